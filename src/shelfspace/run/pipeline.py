"""The pipeline: the notebooks, in order, through papermill, into one run folder and one report.

A stage is a notebook. Its record, RUN/.stages/NAME.json, is written last and holds a key over all that the stage depends on
(its cells, its parameters, the modules it imports, the files of earlier stages, the input) and the hashes of the files
it wrote and of the executed notebook. A stage whose key and files are unchanged is reused; one whose record or files were
damaged is run again. Whatever interrupts a run, the next call picks up. Files that are not on the folder's list of what
Shelfspace wrote there (see `shelfspace.files.run_files`) are neither replaced nor removed.

Stages run side by side where neither reads what the other writes, as the heads of the notebooks declare, and so do the parts of a
stage (`shelfspace.run.crew`), each of which begins as soon as what it reads itself is there. What a part makes, it makes with
`run_files.once`; the whole notebook then finds it there. The part of a notebook named X is its cells tagged `parameters`, `setup` or
X. A scheduler runs each stage, or each part, as a task of its own (`run` with `only`, `part`).
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from shelfspace.files import imports, run_files, stages
from shelfspace.files.places import CHECKOUT, NOTEBOOKS, PACKAGE
from shelfspace.files.stages import PLUMBING, Stage
from shelfspace.run import crew, execution, hold, keys, server
from shelfspace.run.ahead import Ahead
from shelfspace.run.crew import Crew, Task
from shelfspace.run.hold import PAGES, REPORT
from shelfspace.run.keys import Keys

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of a disk that takes no more
VERSIONS = ("duckdb", "faiss-cpu", "gensim", "ibis-framework", "keras", "numba", "numpy", "openTSNE", "pandas", "papermill", "scikit-learn", "scipy", "seaborn", "tensorflow-cpu", "tensorflow")  # fmt: skip


def run(
    data: str = "shop",
    out: str | Path = "reports/default",
    *,
    columns: str = "",
    given: Mapping[str, object] | None = None,
    start: str | None = None,
    only: str | None = None,
    jobs: int | None = None,
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
    jobs : int, optional
        Notebooks that run side by side at most; see `shelfspace.run.crew.jobs_at_most` for what it is by default.
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
    line = execution.StatusLine()
    say = _aside(line, say or (lambda text: print(text, end="", flush=True)))
    jobs = crew.jobs_at_most() if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"--jobs is {jobs}; it must be 1 (one notebook after the other) or more.")
    opening = {"columns": columns, "given": given, "command": command, "folder": folder}
    if only and ":" in only:
        return _run_part(only, data, out, opening, line, say)
    todo = stages.stages(folder)
    forced = _place(start, todo, "--from")
    last = len(todo) if only == "report" else _place(only, todo, "--only")
    with _opened(data, out, **opening) as (out, values, about):
        state = _State(todo, values, about, out)
        with Ahead() as ahead, Crew(out, jobs, line) as team:
            for stage in todo[: last if only else 0]:
                _refuse_if(state.look(stage)[2], stage, only, out)
            _bring_up_to_date(todo[last if only else 0 : last + 1], todo[forced:], state, team, say, None if only else ahead)
        if last < len(todo):
            return out / "notebooks" / f"{todo[last].name}.ipynb"
        _add_timings(out / "metrics.json", {stage.name: run_files.read_record(out, stage.name)["seconds"] for stage in todo})
        return _report(out, about, say)


def _bring_up_to_date(
    todo: list[Stage], forced: list[Stage], state: _State, team: Crew, say: Callable[[str], None], ahead: Ahead | None
) -> None:
    """Run those of some stages that are forced or not up to date, each as soon as those that it waits for are.

    A part of a stage may begin before the stage can, and even while an earlier stage is at work, of which a part made what it names:
    should the stage be found up to date then, the part has found made what it makes. A part that ran before with the same key does not
    run again; would anything of it be gone, the whole makes it. With `ahead`, the chapters of those that are done are made while others
    are at work.
    """
    left, tasks, done = list(todo), {}, []
    while left or team:
        for stage in list(left):
            before = left[: left.index(stage)]
            task = tasks.get(stage.name)
            if task and task.due:
                continue
            ready = not any(stage.waits_for(other) for other in before)
            made = set().union(*(_files(tasks[other.name], state.out) for other in before if other.name in tasks))
            parts = [name for name in stage.parts if not any(stage.part(name).waits_for(other, made) for other in before)]
            parts = [name for name in parts if not (task and name in task.begun)]
            if team.jobs == 1 or ready and len(stage.parts) == 1:
                parts = []  # nothing to run it beside
            if not (ready or parts):
                continue
            own, found, stale = state.look(stage)
            if ready and stale is None and stage not in forced:
                say(f"{stage.name:<24}   reused\n")
                left.remove(stage)
                done.append(state.out / "notebooks" / f"{stage.name}.ipynb")
                continue
            if not task:
                if stage in forced:
                    run_files.forget(state.out, stage.does_write)
                task = tasks[stage.name] = Task(stage, own, found, urgency=len(_waiting_for(stage, todo)))
            for name in parts:
                team.begin_part(task, name, state.keys_of(stage, name, made)[1].stage, again=stage in forced)
            if ready:
                _take_back(stage, state.out)
                task.keys, task.why = found, stale or ""
                team.begin(task, last=len(left) == 1)
        if team:
            team.start()
            if ahead and any(task.done for task in tasks.values()):  # not at first, while libraries are imported for all kernels
                ahead.begin(done)
                done.clear()
            task = team.next()
            if task.over:
                _record(task, state.out)
                left.remove(task.stage)
                done.append(state.out / "notebooks" / f"{task.stage.name}.ipynb")
                say(f"{task.stage.name:<24}{task.seconds:7.1f} s{_rebuilt(task.why)}\n")


def _waiting_for(stage: Stage, todo: list[Stage]) -> list[Stage]:
    """The stages that wait for one, or for another one that does."""
    found: list[Stage] = []
    for later in todo[todo.index(stage) + 1 :]:
        if any(later.waits_for(other) for other in (stage, *found)):
            found.append(later)
    return found


def _aside(line: execution.StatusLine, say: Callable[[str], None]) -> Callable[[str], None]:
    """The same, above the status line."""

    def spoken(text: str) -> None:
        with line.lock:
            line.clear()
            say(text)

    return spoken


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
    """Hold a run folder while something of a stage is made, with `run_files.once`, that the stage will find made.

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
    todo = stages.stages(folder)
    todo = todo[: _place(of, todo, "--only") + 1]
    with _opened(data, out, columns=columns, given=given, command=command, folder=folder, shared=True) as (out, values, about):
        state = _State(todo, values, about, out)
        for stage in todo[:-1]:
            _refuse_if(state.look(stage)[2], stage, of, out)
        own, found, stale = state.look(todo[-1])
        with run_files.under(found.code):
            yield out, todo[-1], own, stale is None


def _run_part(only: str, data: str, out: str | Path, opening: Mapping, line: execution.StatusLine, say: Callable[[str], None]) -> Path:
    """Run those cells of a notebook that make one of its parts."""
    of, _, name = only.partition(":")
    with part(of, data, out, **opening) as (out, stage, own, fresh):
        code = os.environ[run_files.CODE]
        work = crew.part_of(stage, name, own, out, code)
        if fresh:
            say(f"{work.name:<24}   reused\n")
            return work.final
        with Crew(out, 1, line) as team:
            executed = team.run(work)
        say(f"{work.name:<24}{executed.seconds:7.1f} s\n")
        return work.final


@contextmanager
def _opened(
    data: str, out: str | Path, *, columns: str, given: Mapping | None, command: str, folder: Path, shared: bool = False
) -> Iterator[tuple[Path, dict, dict]]:
    """Check what was asked for, hold the run folder, and give it with the value of each parameter and ``params.json``."""
    values = stages.resolve(dict(given or {}) | {"data": data, "columns": columns}, folder)
    if "engine" in values and (values["engine"], values["engine_url"]) != ("duckdb", ""):
        from shelfspace.logs import engines  # and Ibis with it

        engines.check(values["engine"], values["engine_url"])
    if values.get("images") and not Path(values["images"]).is_dir():
        raise ValueError(
            f"images is {values['images']!r}, which is no folder; it must name one with a picture for each product, named by its id."
        )
    if values.get("start"):
        values["start"] = _earlier(Path(values["start"]))
    out = Path(out).absolute()
    hold.check_folder(out, folder)
    source = _source(data)
    with server.environment(), _named(out), hold.lock(run_files.run_folder(out), shared):
        hold.take_folder(out, folder)
        if not shared:
            run_files.remove_unfinished(out)
        values |= {"data": source["path"], "run_dir": str(out)}
        about = _about(values, source, command)
        if run_files.read_object(out / "params.json") != about:
            run_files.write_json(out / "params.json", about)
        yield out, values, about


@contextmanager
def _named(out: Path) -> Iterator[None]:
    """Name the run folder where an error of the disk names no file, as that of a full one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in FULL:
            raise OSError(error.errno, error.strerror, str(out)) from error
        raise


class _State:
    """What a run knows of its stages: which are up to date, by the files that those before them wrote."""

    def __init__(self, todo: list[Stage], values: Mapping[str, object], about: Mapping, out: Path):
        self.todo, self.values, self.about, self.out = todo, values, about, out

    def look(self, stage: Stage) -> tuple[dict, Keys, str | None]:
        """A stage's own parameters, its keys, and what `keys.stale` says of it; those that it waits for must be up to date."""
        own, found = self.keys_of(stage)
        return own, found, keys.stale(stage.name, found.stage, self.out)

    def keys_of(self, stage: Stage, part: str = "", made: Collection[str] = ()) -> tuple[dict, Keys]:
        """A stage's own parameters, and the keys of it or of one of its parts; `made` are files of stages that are still at work."""
        own = {name: self.values[name] for name in stage.parameters}
        given = {n: v for n, v in own.items() if n not in ("run_dir", "data")}
        if own.get("images"):
            given["images"] = [own["images"], _pictures(Path(own["images"]))]
        if own.get("start"):
            given["start"] = imports.hashes(sorted(Path(own["start"], "product_embeddings").glob("*.parquet")))
        earlier: dict[str, str] = {}
        for before in self.todo[: self.todo.index(stage)]:
            earlier |= (run_files.read_record(self.out, before.name) or {}).get("outputs", {})
        of = stage.part(part) if part else stage
        earlier |= {name: keys.fingerprint(self.out / name) for name in made if of.does_read(name)}
        return own, keys.of(of, given, earlier, self.about["input"]["fingerprint"], self.about["versions"])


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
        raise ValueError("--data is empty; it takes shop, or a file, folder or pattern of CSV, Parquet, JSON Lines or Excel.")
    if data == "shop":
        return {"path": "shop", "fingerprint": "the simulated shop"}
    from shelfspace.logs import sources

    return {"path": str(Path(data).absolute()), "fingerprint": sources.fingerprint(data)}


def _earlier(folder: Path) -> str:
    """The absolute path of a run to start from."""
    lacking = [name for name in ("word2vec", "starspace") if not (folder / "product_embeddings" / f"{name}.parquet").is_file()]
    if lacking:
        raise ValueError(
            f"start is {str(folder)!r}, which holds no product_embeddings/{lacking[0]}.parquet; it must name a run of the day before."
        )
    return str(folder.resolve())


def _pictures(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of each file: another picture, and the stage that reads them is out of date."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()] if folder.is_dir() else []
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


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


def _take_back(stage: Stage, out: Path) -> None:
    """Take back the record of a stage that is to run, and the pages."""
    (out / ".stages" / f"{stage.name}.json").unlink(missing_ok=True)
    if pages := run_files.listed(out) & {*PAGES}:
        for name in (*pages, REPORT):
            (out / name).unlink(missing_ok=True)


def _record(task: Task, out: Path) -> None:
    """Write the record of a stage that ended well."""
    name = task.stage.name
    outputs = {file: keys.fingerprint(out / file) for file in sorted(_files(task, out) & run_files.listed(out))}
    record = {
        "stage": name, "key": task.keys.stage, "seconds": round(task.seconds, 2), "outputs": outputs,
        "notebook": run_files.sha256_file(out / "notebooks" / f"{name}.ipynb"),
    }  # fmt: skip
    if latency := keys.latency(outputs, out):
        record["latency"] = latency
    run_files.write_json(out / ".stages" / f"{name}.json", record)


def _files(task: Task, out: Path) -> set[str]:
    """What a task wrote so far for others to read, or found made: names of files in the run folder."""
    names = {path.relative_to(out).as_posix() for path in task.written if path.is_file() and path.is_relative_to(out)}
    return {name for name in names if not name.startswith((".stages/", "notebooks/"))}


def _add_timings(path: Path, seconds: Mapping[str, float]) -> None:
    """Put the seconds of each stage beside the latencies that 06_evaluate measured."""
    metrics = run_files.read_object(path)
    if metrics is None:
        return
    known = metrics.get("timings")
    timings = dict(seconds) | ({"latency": known["latency"]} if isinstance(known, dict) and "latency" in known else {})
    if known != timings:
        run_files.write_json(path, metrics | {"timings": timings})


def _report(out: Path, about: Mapping, say: Callable[[str], None]) -> Path:
    """Render the report and the model card, unless they are there and nothing they show has changed."""
    say(f"{'report':<24}")
    shown = [*sorted((PACKAGE / "page" / "templates").iterdir()), *run_files.notebooks(out), out / "metrics.json", NOTEBOOKS / "README.md"]
    sources = imports.hashes([*imports.imported("from shelfspace.page import card, report"), *shown])
    key = hashlib.sha256(json.dumps([sources, dict(about)], sort_keys=True, default=str).encode()).hexdigest()
    record, damage = hold.report_record(out), ""
    if record is None and os.path.lexists(out / REPORT):
        damage = "its record was damaged"
    elif record and record["key"] == key:
        damage = next(filter(None, (_damage(out / name, record.get(kept)) for name, kept in PAGES.items())), "")
        if not damage:
            say("   reused\n")
            return out / "report.html"
    from shelfspace.page import card, report

    started = time.perf_counter()
    made = {"report.html": report.render(out), "card.md": card.render(out)}
    run_files.write_json(out / REPORT, {"key": key} | {PAGES[name]: run_files.sha256_file(path) for name, path in made.items()})
    say(f"{time.perf_counter() - started:7.1f} s{_rebuilt(damage)}\n")
    return made["report.html"]


def _damage(page: Path, digest: str | None) -> str:
    """What became of a page that was written with a hash; "" where it is as it was."""
    if not page.is_file():
        return f"{page.name} was missing"
    return "" if run_files.sha256_file(page) == digest else f"{page.name} was changed"
