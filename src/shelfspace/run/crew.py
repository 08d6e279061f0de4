"""Stages side by side: each begins as soon as what it reads is there, and what is long in it is made in parts at once."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from shelfspace.files.stages import Stage
from shelfspace.run.execution import Executed, StatusLine, Work, terminated_like_ctrl_c
from shelfspace.run.keys import Keys


def jobs_at_most() -> int:
    """How many notebooks run side by side where nobody says: two, as each takes half of the cores; one on a single core."""
    return min(2, os.cpu_count() or 1)


@dataclass
class Task:
    """A stage at work: its parts first, if it has several and they can run side by side, then the whole.

    Attributes
    ----------
    stage : Stage
    values : mapping of name to value
        Its parameters.
    keys : Keys
    why : str
        What was damaged of it, or "".
    done : list of Executed
        Its parts that ended, and then the whole.
    awaited : int
        Parts that have not ended.
    """

    stage: Stage
    values: Mapping[str, object]
    keys: Keys
    why: str
    done: list[Executed] = field(default_factory=list)
    awaited: int = 0

    @property
    def seconds(self) -> float:
        """Of all its kernels together."""
        return sum(executed.seconds for executed in self.done)

    @property
    def written(self) -> set[Path]:
        """All that it wrote, or found made."""
        return {path for executed in self.done for path in executed.written}


class Crew:
    """A few threads, each of which waits for one kernel at a time.

    Parameters
    ----------
    out : Path
        The run folder.
    jobs : int
        Kernels at a time.
    line : StatusLine

    As a context it stops all kernels that still run at its end, also at Ctrl-C and SIGTERM.
    """

    def __init__(self, out: Path, jobs: int, line: StatusLine):
        self.out, self.jobs, self.line = out, jobs, line
        self._pool = concurrent.futures.ThreadPoolExecutor(jobs, thread_name_prefix="shelfspace")
        self._at_work: dict[concurrent.futures.Future, tuple[Task | None, Work]] = {}
        self._signals = terminated_like_ctrl_c()

    def __enter__(self) -> Crew:
        self._signals.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            for future, (_, work) in self._at_work.items():
                if not future.cancel():
                    work.kernel.stop()
            self._pool.shutdown()
        finally:
            self._signals.__exit__(kind, error, trace)

    def __bool__(self) -> bool:
        return bool(self._at_work)

    def begin(self, task: Task, last: bool = False) -> None:
        """Have a stage run when its turn comes; `last` where no other is to follow."""
        parts = task.stage.parts if self.jobs > 1 and len(task.stage.parts) > 1 else ()
        for name in parts:
            self._submit(task, part_of(task.stage, name, task.values, self.out, task.keys.code))
        task.awaited = len(parts)
        if not parts:
            work = whole(task.stage, task.values, self.out, task.keys.code)
            work.kernel.last = last
            self._submit(task, work)

    def next(self) -> Task:
        """The next stage that has ended.

        Raises
        ------
        StageError
            If a notebook failed.
        """
        while True:
            ended, _ = concurrent.futures.wait(self._at_work, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                task, _ = self._at_work.pop(future)
                task.done.append(future.result())
                if not task.awaited:
                    return task
                task.awaited -= 1
                if not task.awaited:
                    self._submit(task, whole(task.stage, task.values, self.out, task.keys.code))

    def run(self, work: Work) -> Executed:
        """Run one notebook after which no other follows, and wait for it."""
        work.kernel.last = True
        future = self._submit(None, work)
        return future.result()

    def _submit(self, task: Task | None, work: Work) -> concurrent.futures.Future:
        future = self._pool.submit(work.run, self.line)
        self._at_work[future] = task, work
        return future


def whole(stage: Stage, values: Mapping[str, object], out: Path, code: str) -> Work:
    """The work of running a notebook."""
    return Work(stage.name, stage, values, out / "notebooks" / f"{stage.name}.ipynb", code)


def part_of(stage: Stage, name: str, values: Mapping[str, object], out: Path, code: str) -> Work:
    """The work of running those cells of a notebook that make one of its parts."""
    final = out / ".stages" / f"{stage.name}.{name}.ipynb"
    return Work(f"{stage.name[:2]}:{name}", stage.part(name), values, final, code)
