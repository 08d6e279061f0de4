"""A sweep: one run for each value of a parameter, and the page that compares them.

Stages before the first one that has the parameter are made once and handed on, so each further value costs only what it touches.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shelfspace.files import run_files, stages
from shelfspace.files.places import NOTEBOOKS
from shelfspace.page import comparison
from shelfspace.run import hold, pipeline


def sweep(
    name: str,
    values: Sequence[object],
    out: str | Path,
    *,
    data: str = "shop",
    columns: str = "",
    given: Mapping[str, object] | None = None,
    command: Callable[[Path, Mapping], str] = lambda out, given: "",
    folder: Path = NOTEBOOKS,
    say: Callable[[str], None] | None = None,
) -> Path:
    """One run for each value of a parameter, and the page that compares them.

    Parameters
    ----------
    name : str
        The parameter.
    values : sequence
        Two or more of its values.
    out : str or Path
        Each run gets a folder in it, NAME=VALUE; the page is ``compare.html`` in it.
    data, columns, given, folder, say
        See `shelfspace.run.pipeline.run`; `given` are the parameters that all runs share.
    command : callable, optional
        The command that makes one of the runs, from its folder and its parameters.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ValueError
        If a value or the folder will not do. Nothing has been run then.
    StageError
        If a notebook failed; the runs that were finished stay, and the next call goes on from there.
    """
    say = say or (lambda text: print(text, end="", flush=True))
    given, out = dict(given or {}), Path(out)
    if name in stages.PLUMBING:
        raise ValueError(f"{name} cannot be swept; make the runs one by one and compare them with `shelfspace compare`.")
    read_values = [stages.resolve(given | {name: value}, folder)[name] for value in values]
    for place, value in enumerate(read_values):
        if value in read_values[:place]:
            raise ValueError(f"{name} is to be {value!r} twice; name each value once.")
    if len(values) < 2:
        raise ValueError(f"A sweep takes two values of {name} or more, as in -p {name}=A,B.")
    if any((out / mark).exists() for mark in (".stages", ".lock")):
        raise ValueError(f"{out} is itself a run; name another folder for the sweep with --out.")
    folders = [out / _folder_name(name, value) for value in read_values]
    for run_dir in folders:
        hold.check_folder(run_dir, folder)
    todo = stages.stages(folder)
    shared = todo[: next((place for place, stage in enumerate(todo) if name in stage.parameters), 0)]
    for run_dir, value in zip(folders, read_values):
        say(f"\n{name} = {value}\n")
        if run_dir != folders[0]:
            hold.take_folder(run_dir, folder)
            _hand_on(folders[0], run_dir, [stage.name for stage in shared])
        own = given | {name: value}
        pipeline.run(data, run_dir, columns=columns, given=own, command=command(run_dir, own), folder=folder, say=say)
    return comparison.render(folders, out / "compare.html")


def _hand_on(source: Path, out: Path, names: Sequence[str]) -> None:
    """Copy what some stages of a run wrote, and their records, to another run; what is there as it should be stays.

    So are files of the later stages that `shelfspace.files.run_files.once` made: it finds them made where nothing that differs is in them.
    """
    handed: list[str] = []
    for stage in names:
        record = run_files.read_record(source, stage)
        if run_files.read_record(out, stage) != record:
            handed += [*record["outputs"], f"notebooks/{stage}.ipynb", f".stages/{stage}.json"]
    made = Path(".stages") / "made"
    for record in sorted((source / made).rglob("*.json")):
        name = record.relative_to(source / made).as_posix().removesuffix(".json")
        if (source / name).is_file() and not (out / made / f"{name}.json").exists():
            handed += [name, f".stages/made/{name}.json"]  # a file before its record
    handed += [name for path in (source / ".stages").glob("parts/*.json") if not (out / (name := f".stages/parts/{path.name}")).exists()]
    for name in dict.fromkeys(handed):
        with run_files.atomic(out / name) as temporary:
            shutil.copyfile(source / name, temporary)


def _folder_name(name: str, value: object) -> str:
    return f"{name}={re.sub('[^A-Za-z0-9.+-]+', '_', str(value)) or 'empty'}"
