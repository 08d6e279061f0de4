"""The pipeline: the notebooks, in order, through papermill, into one run folder and one report.

A stage is a notebook. Its record, RUN/.stages/NAME.json, is written last and holds a key over all that the stage depends on
(its cells, its parameters, the modules it imports, the files of earlier stages, the input) and the hashes of the files
it wrote and of the executed notebook. A stage whose key and files are unchanged is reused; one whose record or files were
damaged is run again. Whatever interrupts a run, the next call picks up. Files that are not on the folder's list of what
Shelfspace wrote there (see `shelfspace.runs`) are neither replaced nor removed.

A scheduler runs each stage as a task of its own (`run` with `only`), and what is long in a stage as tasks side by side
(`part`). What a part makes, it makes with `runs.once`; the whole notebook then finds it there. The part of a notebook named X
is its cells tagged `parameters`, `setup` or X.
"""

from __future__ import annotations

import ast
import difflib
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shelfspace import execution, runs
from shelfspace.execution import StageError  # noqa: F401, what `run` raises
from shelfspace.parameters import LONG, Parameter, check_together, declared, gathered, writable
from shelfspace.places import CHECKOUT, NOTEBOOKS, PACKAGE

REPORT = ".stages/report.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of a disk that takes no more
PLUMBING = {"data", "columns", "run_dir"}  # said by --data, --columns and --out
VERSIONS = ("duckdb", "faiss-cpu", "gensim", "ibis-framework", "keras", "numba", "numpy", "openTSNE", "pandas", "papermill", "scikit-learn", "scipy", "seaborn", "tensorflow-cpu", "tensorflow")  # fmt: skip
QUIET = {
    "OMP_NUM_THREADS": str(min(2, os.cpu_count() or 1)),  # more threads than cores to spare make BLAS slower, not faster
    "OMP_WAIT_POLICY": "passive",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONHASHSEED": "0",
    "TQDM_NCOLS": "54",  # progress bars fit behind the stage's name, and look the same in every terminal
    "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one that the user registered by the same name
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}


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


def run(
    data: str = "shop",
    out: str | Path = "reports/default",
    *,
    columns: str = "",
    given: Mapping[str, object] | None = None,
    start: str | None = None,
    only: str | None = None,
    command: str = "",
    folder: Path = NOTEBOOKS,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Run all stages that are not up to date, and render the report.

    Parameters
    ----------
    data : str
        "shop" for the simulated shop, or a file, folder or pattern.
    out : str or Path
        The run folder.
    columns : str
        The log's own column names, as "user_id=visitorid,product_id=itemid".
    given : mapping of name to value, optional
        Parameters of the notebooks; see `resolve`.
    start : str, optional
        Number or name of a stage that is run again with all after it, also when unchanged.
    only : str, optional
        Number or name of the one stage to run, "report" for the page alone, or a part of a stage, as "02:word2vec". All
        stages before it must be up to date. Parts of one stage may run at the same time.
    command : str
        How to get the same report again, for the reader.
    folder : Path
        The notebooks.
    say : callable, optional
        Takes each piece of progress text; prints by default.

    Returns
    -------
    Path
        The report; with `only` a stage, the executed notebook.

    Raises
    ------
    ValueError
        If the input, a parameter or the run folder will not do. Nothing has been changed then.
    StageError
        If a notebook failed. It is kept as executed; there is no report.
    """
    say = say or (lambda text: print(text, end="", flush=True))
    opening = {"columns": columns, "given": given, "command": command, "folder": folder}
    if only and ":" in only:
        return _run_part(only, data, out, opening, say)
    todo = stages(folder)
    forced = _place(start, todo, "--from")
    last = len(todo) if only == "report" else _place(only, todo, "--only")
    with _opened(data, out, **opening) as (out, values, about):
        for place, (stage, own, key, stale) in enumerate(_walk(todo[: last + 1], values, about, out)):
            if only and place < last:
                _refuse_if(stale, stage, only, out)
                continue
            say(f"{stage.name:<24}")
            if place < forced and stale is None:
                say("   reused\n")
                continue
            if place >= forced:
                runs.forget(out, key)
            seconds = _execute(stage, own, key, out)["seconds"]
            say(f"{seconds:7.1f} s{_rebuilt(stale)}\n")
        if last < len(todo):
            return out / "notebooks" / f"{todo[last].name}.ipynb"
        _add_timings(out / "metrics.json", {stage.name: runs.read_record(out, stage.name)["seconds"] for stage in todo})
        return _report(out, about, say)


@contextmanager
def part(
    of: str,
    data: str = "shop",
    out: str | Path = "reports/default",
    *,
    columns: str = "",
    given: Mapping[str, object] | None = None,
    command: str = "",
    folder: Path = NOTEBOOKS,
) -> Iterator[tuple[Path, Stage, dict[str, object], bool]]:
    """Hold a run folder while something of a stage is made, with `runs.once`, that the stage will find made.

    Parameters
    ----------
    of : str
        Number or name of the stage. All stages before it must be up to date.
    data, out, columns, given, command, folder
        See `run`.

    Yields
    ------
    out : Path
        The run folder. Other parts of the stage may be at work in it; a whole stage may not.
    stage : Stage
    values : dict
        Its parameters.
    fresh : bool
        Whether the stage is up to date, so that there is nothing to make.
    """
    todo = stages(folder)
    todo = todo[: _place(of, todo, "--only") + 1]
    with _opened(data, out, columns=columns, given=given, command=command, folder=folder, shared=True) as (out, values, about):
        for stage, own, key, stale in _walk(todo, values, about, out):
            if stage is not todo[-1]:
                _refuse_if(stale, stage, of, out)
        with runs.under(key):
            yield out, stage, own, stale is None


def _run_part(only: str, data: str, out: str | Path, opening: Mapping, say: Callable[[str], None]) -> Path:
    """Run those cells of a notebook that make one of its parts."""
    of, _, name = only.partition(":")
    with part(of, data, out, **opening) as (out, stage, own, fresh):
        tags = {"parameters", "setup", name}
        cells = [cell for cell in stage.notebook.cells if tags & set(cell.metadata.get("tags", ()))]
        known = sorted({tag for cell in stage.notebook.cells for tag in cell.metadata.get("tags", ())} - {"parameters", "setup"})
        if name not in known:
            raise ValueError(f"{stage.name} has no part {name!r}; it has {', '.join(known) or 'none'}.")
        say(f"{f'{stage.name[:2]}:{name}':<24}")
        final = out / ".stages" / f"{stage.name}.{name}.ipynb"
        if fresh:
            say("   reused\n")
            return final
        started = time.perf_counter()
        notebook = type(stage.notebook)(stage.notebook | {"cells": cells})
        execution.run(Stage(stage.name, notebook, stage.parameters), own, final)
        say(f"{time.perf_counter() - started:7.1f} s\n")
        return final


@contextmanager
def _opened(
    data: str, out: str | Path, *, columns: str, given: Mapping | None, command: str, folder: Path, shared: bool = False
) -> Iterator[tuple[Path, dict, dict]]:
    """Check what was asked for, hold the run folder, and give it with the value of each parameter and ``params.json``."""
    values = resolve(dict(given or {}) | {"data": data, "columns": columns}, folder)
    if "engine" in values:
        from shelfspace import engines

        engines.check(values["engine"], values["engine_url"])
    if values.get("images") and not Path(values["images"]).is_dir():
        raise ValueError(
            f"images is {values['images']!r}, which is no folder; it must name one with a picture for each product, named by its id."
        )
    out = Path(out).absolute()
    check_folder(out, folder)
    source = _source(data)
    with _environment(), _named(out), _lock(runs.run_folder(out), shared):
        take_folder(out, folder)
        if not shared:
            runs.remove_unfinished(out)
        values |= {"data": source["path"], "run_dir": str(out)}
        about = _about(values, source, command)
        if runs.read_object(out / "params.json") != about:
            runs.write_json(out / "params.json", about)
        yield out, values, about


@contextmanager
def _environment() -> Iterator[None]:
    """Set what the kernels need where the caller has not, and take it back at the end."""
    new = {name: value for name, value in QUIET.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


@contextmanager
def _named(out: Path) -> Iterator[None]:
    """Name the run folder where an error of the disk names no file, as that of a full one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in FULL:
            raise OSError(error.errno, error.strerror, str(out)) from error
        raise


def _walk(todo: list[Stage], values: Mapping, about: Mapping, out: Path) -> Iterator[tuple[Stage, dict, str, str | None]]:
    """Each stage with its own parameters, its key, and what `_stale` says of it; it must be up to date when the next is asked for."""
    earlier: dict[str, str] = {"input": about["input"]["fingerprint"]}
    for stage in todo:
        own = {name: values[name] for name in stage.parameters}
        given = {n: v for n, v in own.items() if n not in ("run_dir", "data")}
        if own.get("images"):
            given["images"] = [own["images"], _pictures(Path(own["images"]))]
        key = _key(stage, given, earlier, about["versions"])
        yield stage, own, key, _stale(stage.name, key, out)
        earlier |= (runs.read_record(out, stage.name) or {}).get("outputs", {})


def _refuse_if(stale: str | None, stage: Stage, wanted: str, out: Path) -> None:
    if stale is not None:
        why = f" ({stale})" if stale else ""
        raise ValueError(f"{stage.name} is not up to date in {out}{why}, and {wanted} builds on it; run {stage.name} first.")


def _rebuilt(stale: str | None) -> str:
    """What the line of a stage says of damage."""
    return f"   rebuilt: {stale}" if stale else ""


def _place(wanted: str | None, todo: list[Stage], option: str) -> int:
    """Place of a stage by its number or name; beyond the last where none is named."""
    if wanted is None:
        return len(todo)
    for place, stage in enumerate(todo):
        if stage.name == wanted or stage.name.split("_")[0] == wanted.zfill(2):
            return place
    raise ValueError(f"There is no stage {wanted!r}; {option} takes one of {', '.join(stage.name for stage in todo)}.")


def _source(data: str) -> dict:
    """Where the input is and what is in it: its absolute path, and a hash that changes when the input does."""
    if not data.strip():
        raise ValueError("--data is empty; it takes shop, or a file, folder or pattern of CSV, Parquet or JSON Lines.")
    if data == "shop":
        return {"path": "shop", "fingerprint": "the simulated shop"}
    from shelfspace import events

    return {"path": str(Path(data).absolute()), "fingerprint": events.fingerprint(data)}


def _pictures(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of each file: another picture, and the stage that reads them is out of date."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()] if folder.is_dir() else []
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def check_folder(out: str | Path, folder: Path = NOTEBOOKS) -> None:
    """Refuse a folder that is not a run's and cannot become one, before anything is written to it.

    Raises
    ------
    ValueError
        If it belongs to the project, or holds files and no record of a run.
    """
    if not writable(str(out)):
        raise ValueError(f"The name of the run folder, {str(out)!r}, is not Unicode text; name another one with --out.")
    out = Path(os.path.abspath(out))
    if out == out.parent:
        raise ValueError(f"{out} is the root of the file system; name a folder of its own for the run with --out.")
    if out == CHECKOUT or out in folder.absolute().parents or out == folder.absolute() or folder.absolute() in out.parents:
        raise ValueError(f"{out} belongs to the project itself; name a folder of its own for the run with --out.")
    try:
        os.stat(out)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"{out} is a link that leads back to itself; name another folder with --out.") from None
    if out.is_dir() and not runs.is_run(out) and not any(_records(out)) and not _bare(out):
        raise ValueError(f"{out} is not empty and was not written by Shelfspace; name another folder with --out.")


def _bare(out: Path) -> bool:
    """Whether a folder holds no file, but for the empty ones of a run that was killed at once."""
    begun = (out / ".lock", out / runs.LIST)
    return all(
        path.is_dir() and not path.is_symlink() or (path in begun and path.is_file() and path.stat().st_size == 0)
        for path in out.rglob("*")
    )


def _records(out: Path) -> Iterator[dict]:
    """The whole records of the stages in a folder."""
    for path in sorted((out / ".stages").glob("[0-9][0-9]_*.json")):
        if record := runs.read_record(out, path.stem):
            yield record


def take_folder(out: Path, folder: Path = NOTEBOOKS) -> None:
    """Make a folder this run's: list what its records say is ours, and refuse it where another file is in the way.

    In a folder without a list, of a run before there were any or where it was damaged, the records alone say what is ours.

    Raises
    ------
    ValueError
        Naming the file in the way.
    """
    old = not runs.is_run(out)
    names = [name for record in _records(out) for name in (*record["outputs"], f"notebooks/{record['stage']}.ipynb")]
    written = [f"notebooks/{path.stem}.ipynb" for path in sorted(folder.glob("[0-9][0-9]_*.py"))]
    if names and old:
        made = out / ".stages" / "made"
        names += ["params.json", *written, *(path.relative_to(made).as_posix().removesuffix(".json") for path in made.rglob("*.json"))]
    if _report_record(out):
        names.append("report.html")
    runs.claim(out, filter(runs.inside, names))
    ours = runs.listed(out)
    for name in ("params.json", "report.html", *written):
        if os.path.lexists(out / name) and name not in ours:
            raise ValueError(
                f"{out / name} was not written by this run, which would replace it; move it, or name another folder with --out."
            )


@contextmanager
def _lock(out: Path, shared: bool = False) -> Iterator[None]:
    """Hold the run folder for this process alone, or for several that share it; the lock goes with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows: no lock
        yield
        return
    try:
        file = os.fdopen(os.open(out / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b", buffering=0)
    except OSError as error:
        raise ValueError(f"Nothing can be written to {out} ({error.strerror}); name another folder with --out.") from None
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"Another run is writing to {out}; wait for it, or name another folder with --out.") from None
        yield


def _about(values: Mapping[str, object], source: Mapping, command: str) -> dict:
    """What ``params.json`` says: all that is needed to get the same run again."""
    versions = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "command": command,
        "data": source["path"],
        "input": {"fingerprint": source["fingerprint"]},
        "parameters": {name: value for name, value in values.items() if name not in PLUMBING} | {"columns": values["columns"]},
        "seed": values.get("seed"),
        "versions": versions,
        "git_commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of the code, and whether it was changed since; None outside a repository."""
    if CHECKOUT is None:
        return None
    git = ["git", "-C", str(CHECKOUT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain", "src", "notebooks"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit} with uncommitted changes" if changes.stdout.strip() else commit


def _key(stage: Stage, values: Mapping[str, object], earlier: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """Hash over all that a stage depends on."""
    cells = [(cell.cell_type, cell.source) for cell in stage.notebook.cells]
    code = "\n".join(source for kind, source in cells if kind == "code")
    whole = [cells, dict(values), _hashes(imported(code)), dict(earlier), dict(versions), platform.machine()]
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()


def imported(code: str) -> list[Path]:
    """The files of this package that run when some code is imported: its modules, the packages around them, and what these import."""
    found: set[Path] = set()
    todo: list[tuple[str, tuple[str, ...]]] = [(code, ())]
    while todo:
        for name in _mentioned(*todo.pop()):
            for end in range(len(name) + 1):
                place = PACKAGE.joinpath(*name[:end])
                for path, package in ((place.with_suffix(".py"), name[: end - 1]), (place / "__init__.py", name[:end])):
                    if path not in found and path.is_file():
                        found.add(path)
                        todo.append((path.read_text(encoding="utf-8"), package))
    return sorted(found)


def _mentioned(code: str, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """What may be modules of this package among all that some code of `package` imports, as ("models", "tied")."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")[1:]) for alias in node.names if alias.name.split(".")[0] == PACKAGE.name)
        elif isinstance(node, ast.ImportFrom):
            first, *below = (node.module or "").split(".")
            if node.level:
                base = (*package[: len(package) - node.level + 1], *filter(None, [first, *below]))
            elif first == PACKAGE.name:
                base = tuple(below)
            else:
                continue
            yield from ((*base, alias.name) for alias in node.names)


def _hashes(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file that is there, by its name below the package, or else its own."""
    return {
        path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name: runs.sha256_file(path)
        for path in paths
        if path.is_file()
    }


def _stale(stage: str, key: str, out: Path) -> str | None:
    """None where a stage is up to date; else what was damaged of it, or "" where it is to be run for another reason.

    It is up to date where its record has this key, and the executed notebook and all that it wrote are unchanged.
    """
    record = runs.read_record(out, stage)
    if record is None:
        return "its record was damaged" if os.path.lexists(out / ".stages" / f"{stage}.json") else ""
    if record["key"] != key or "notebook" not in record:
        return ""
    digests = record["outputs"] | {f"notebooks/{stage}.ipynb": record["notebook"]}
    for name, digest in digests.items():
        if not (out / name).is_file():
            return f"{name} was missing"
        if _fingerprint(out / name) != digest:
            return f"{name} was changed"
    return None if record.get("latency") == _latency(record["outputs"], out) else "metrics.json was changed"


def _fingerprint(path: Path) -> str:
    """SHA-256 of an output; of metrics.json without its timings, which no two runs share."""
    if path.name != "metrics.json":
        return runs.sha256_file(path)
    figures = {name: value for name, value in (runs.read_object(path) or {}).items() if name != "timings"}
    return hashlib.sha256(json.dumps(figures).encode()).hexdigest()


def _latency(outputs: Mapping[str, str], out: Path) -> str | None:
    """SHA-256 of the latencies in metrics.json, of the stage that writes it."""
    if "metrics.json" not in outputs:
        return None
    timings = (runs.read_object(out / "metrics.json") or {}).get("timings")
    return hashlib.sha256(json.dumps(timings.get("latency") if isinstance(timings, dict) else None).encode()).hexdigest()


def _execute(stage: Stage, values: Mapping[str, object], key: str, out: Path) -> dict:
    """Run one notebook and, on success, write its record."""
    record_path = out / ".stages" / f"{stage.name}.json"
    record_path.unlink(missing_ok=True)
    if "report.html" in runs.listed(out):
        for name in ("report.html", REPORT):
            (out / name).unlink(missing_ok=True)
    before = _files(out)
    started = time.perf_counter()
    with runs.under(key):
        execution.run(stage, values, out / "notebooks" / f"{stage.name}.ipynb")
    ours = runs.listed(out)
    outputs = {name: _fingerprint(out / name) for name, state in _files(out).items() if name in ours and before.get(name) != state}
    record = {
        "stage": stage.name, "key": key, "seconds": round(time.perf_counter() - started, 2),
        "outputs": dict(sorted(outputs.items())), "notebook": runs.sha256_file(out / "notebooks" / f"{stage.name}.ipynb"),
    }  # fmt: skip
    if latency := _latency(outputs, out):
        record["latency"] = latency
    runs.write_json(record_path, record)
    return record


def _files(out: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file that a stage may have written."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        own = name.split("/")[0] in ("notebooks", ".stages", ".lock", "report.html", "params.json")
        if path.is_file() and not own and not path.name.startswith(runs.TEMPORARY):
            found[name] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found


def _add_timings(path: Path, seconds: Mapping[str, float]) -> None:
    """Put the seconds of each stage beside the latencies that 06_evaluate measured."""
    metrics = runs.read_object(path)
    if metrics is None:
        return
    known = metrics.get("timings")
    timings = dict(seconds) | ({"latency": known["latency"]} if isinstance(known, dict) and "latency" in known else {})
    if known != timings:
        runs.write_json(path, metrics | {"timings": timings})


def _report(out: Path, about: Mapping, say: Callable[[str], None]) -> Path:
    """Render the report, unless it is there and nothing it shows has changed."""
    say(f"{'report':<24}")
    shown = [*sorted((PACKAGE / "page").iterdir()), *runs.notebooks(out), out / "metrics.json", NOTEBOOKS / "README.md"]
    sources = _hashes([*imported("from shelfspace import report"), *shown])
    key = hashlib.sha256(json.dumps([sources, dict(about)], sort_keys=True, default=str).encode()).hexdigest()
    page, record = out / "report.html", _report_record(out)
    damage = ""
    if record is None and os.path.lexists(out / REPORT):
        damage = "its record was damaged"
    elif record and record["key"] == key and not page.is_file():
        damage = "report.html was missing"
    elif record and record["key"] == key and runs.sha256_file(page) != record.get("sha256"):
        damage = "report.html was changed"
    elif record and record["key"] == key:
        say("   reused\n")
        return page
    from shelfspace import report

    started = time.perf_counter()
    page = report.render(out)
    runs.write_json(out / REPORT, {"key": key, "sha256": runs.sha256_file(page)})
    say(f"{time.perf_counter() - started:7.1f} s{_rebuilt(damage)}\n")
    return page


def _report_record(out: Path) -> dict | None:
    """The record of the page, or None where there is none that is whole."""
    record = runs.read_object(out / REPORT)
    return record if record and runs.is_hash(record.get("key")) and runs.is_hash(record.get("sha256", record["key"])) else None
