"""The notebooks as stages: in order, each with its cells and its parameters, and the value of every parameter of a run."""

from __future__ import annotations

import copy
import difflib
import fnmatch
import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from shelfspace.files.parameters import LONG, Parameter, check_together, declared, gathered
from shelfspace.files.places import NOTEBOOKS

PLUMBING = {"data", "columns", "run_dir"}  # said by --data, --columns and --out


SETUP = {"parameters", "setup"}  # tags of cells that every part of a notebook begins with


@dataclass(frozen=True)
class Stage:
    """One notebook, and what its head (`shelfspace` in its metadata) declares of it.

    Attributes
    ----------
    name : str
    notebook : nbformat.NotebookNode
    parameters : dict of name to Parameter
        Its own parameters with their defaults.
    """

    name: str
    notebook: object
    parameters: dict[str, Parameter]

    @property
    def reads(self) -> tuple[str, ...]:
        """Files of the run that it may read, as patterns; all of them where the notebook has no head."""
        return self._declared("reads", ("*",))

    @property
    def writes(self) -> tuple[str, ...]:
        """Files of the run that it may write, as patterns; all of them where the notebook has no head."""
        return self._declared("writes", ("*",))

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """What in it is long and can be made before the whole: tags of cells, each with the files of the run that these may read."""
        return {name: tuple(reads) for name, reads in self._head.get("parts", {}).items()}

    @property
    def _head(self) -> Mapping:
        return self.notebook.metadata.get("shelfspace", {})

    def _declared(self, what: str, otherwise: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self._head.get(what, otherwise if not self._head else ()))

    def does_read(self, file: str) -> bool:
        """Whether it may read this file of the run."""
        return any(fnmatch.fnmatch(file, pattern) for pattern in self.reads)

    def does_write(self, file: str) -> bool:
        """Whether it may write this file of the run."""
        return any(fnmatch.fnmatch(file, pattern) for pattern in self.writes)

    def waits_for(self, earlier: Stage, made: Collection[str] = ()) -> bool:
        """Whether it reads or overwrites what an earlier stage writes, but for files of it that are made already."""
        return any(
            fnmatch.fnmatch(mine, theirs) or fnmatch.fnmatch(theirs, mine)
            for mine in (*(name for name in self.reads if name not in made), *self.writes)
            for theirs in earlier.writes
        )

    def part(self, name: str) -> Stage:
        """Those of its cells that make one of its parts: tagged `parameters`, `setup` or the part's name. It reads what the part does.

        Raises
        ------
        ValueError
            If no cell has the name as its tag.
        """
        tags = [set(cell.metadata.get("tags", ())) for cell in self.notebook.cells]
        known = sorted(set().union(*tags) - SETUP - {"aside"})
        if name not in known:
            raise ValueError(f"{self.name} has no part {name!r}; it has {', '.join(known) or 'none'}.")
        cells = [cell for cell, its in zip(self.notebook.cells, tags) if its & (SETUP | {name})]
        head = self._head | ({"reads": list(self.parts[name])} if name in self.parts else {})
        metadata = type(self.notebook)(self.notebook.metadata | {"shelfspace": head})
        return replace(self, notebook=type(self.notebook)(self.notebook | {"cells": cells, "metadata": metadata}))


def stages(folder: Path = NOTEBOOKS) -> list[Stage]:
    """The notebooks of a folder, in order, with their parameters."""
    found = [_stage(path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("[0-9][0-9]_*.py"))]
    if not found:
        raise ValueError(f"{folder} holds no notebook named NN_name.py.")
    return [replace(stage, notebook=copy.deepcopy(stage.notebook)) for stage in found]  # which its caller may change


@functools.lru_cache(maxsize=64)
def _stage(name: str, script: str) -> Stage:
    """A notebook by its text, which is taken apart once: a run asks for its stages several times."""
    import jupytext

    notebook = jupytext.reads(script, fmt="py")
    cells = "\n".join(cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    return Stage(name, notebook, {p.name: p for p in declared(cells, name)})


def parameters(folder: Path = NOTEBOOKS) -> list[Parameter]:
    """All parameters of all notebooks, each once, in the order in which they are met.

    Raises
    ------
    ValueError
        If two notebooks declare the same name differently.
    """
    return gathered([list(stage.parameters.values()) for stage in stages(folder)])


def resolve(given: Mapping[str, object], folder: Path = NOTEBOOKS) -> dict[str, object]:
    """The value of every parameter: the given ones, checked, and the defaults of the rest.

    Parameters
    ----------
    given : mapping of name to value
        Text (as from a command line) is read as the default's type; a `None` default takes a number.

    Raises
    ------
    ValueError
        For an unknown name, or a value that is not allowed by itself or beside the others, naming what is.
    """
    known = {p.name: p for p in parameters(folder)}
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name[:LONG], known, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            valid = ", ".join(sorted(set(known) - PLUMBING))
            raise ValueError(f"There is no parameter {name[:LONG]!r}.{hint} Valid ones are: {valid}.")
    values = {name: p.read(given[name]) if name in given else p.default for name, p in known.items()}
    check_together(values)
    return values
