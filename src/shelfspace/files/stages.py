"""The notebooks as stages: in order, each with its cells and its parameters, and the value of every parameter of a run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shelfspace.files.parameters import LONG, Parameter, check_together, declared, gathered
from shelfspace.files.places import NOTEBOOKS

PLUMBING = {"data", "columns", "run_dir"}  # said by --data, --columns and --out


@dataclass(frozen=True)
class Stage:
    """One notebook: its name, its cells, and the defaults of its own parameters."""

    name: str
    notebook: object  # nbformat.NotebookNode
    parameters: dict[str, Parameter]


def stages(folder: Path = NOTEBOOKS) -> list[Stage]:
    """The notebooks of a folder, in order, with their parameters."""
    import jupytext

    found = []
    for path in sorted(folder.glob("[0-9][0-9]_*.py")):
        notebook = jupytext.read(path)
        cells = "\n".join(cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
        found.append(Stage(path.stem, notebook, {p.name: p for p in declared(cells, path.stem)}))
    if not found:
        raise ValueError(f"{folder} holds no notebook named NN_name.py.")
    return found


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
