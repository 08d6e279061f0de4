"""Stages side by side: each begins as soon as what it reads is there, and what is long in it is made in parts at once."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from shelfspace.files import run_files
from shelfspace.files.stages import Stage
from shelfspace.run.execution import Executed, StatusLine, Work, terminated_like_ctrl_c
from shelfspace.run.keys import Keys


def jobs_at_most() -> int:
    """How many notebooks run side by side where nobody says: two, as each takes half of the cores; one on a single core."""
    return min(2, os.cpu_count() or 1)


@dataclass
class Task:
    """A stage at work: what is long in it in parts, each as soon as what it reads is there, and then the whole.

    Attributes
    ----------
    stage : Stage
    values : mapping of name to value
        Its parameters.
    keys : Keys
        Until the whole is due, that of the code alone is final.
    urgency : int
        How many stages wait for this one.
    why : str
        What was damaged of it, or "".
    begun : dict of name to key
        Its parts that were begun, or found made.
    awaited : int
        Those of them that have not ended.
    due : bool
        Whether the whole is to run when no part is awaited.
    over : bool
        Whether it has run.
    done : list of Executed
        Its parts that ended, and then the whole.
    """

    stage: Stage
    values: Mapping[str, object]
    keys: Keys
    urgency: int = 0
    why: str = ""
    begun: dict[str, str] = field(default_factory=dict)
    awaited: int = 0
    due: bool = False
    over: bool = False
    done: list[Executed] = field(default_factory=list)

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

    What most stages wait for is first in the queue, and of those alike a part, which is long.

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
        self._queue: list[tuple[Task, str, Work]] = []  # a task, its part or "" for the whole, and the work
        self._at_work: dict[concurrent.futures.Future, tuple[Task, str, Work]] = {}
        self._signals = terminated_like_ctrl_c()

    def __enter__(self) -> Crew:
        self._signals.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            for future, (_, _, work) in self._at_work.items():
                if not future.cancel():
                    work.kernel.stop()
            self._pool.shutdown()
        finally:
            self._signals.__exit__(kind, error, trace)

    def __bool__(self) -> bool:
        return bool(self._at_work or self._queue)

    def begin_part(self, task: Task, name: str, key: str, again: bool = False) -> None:
        """Have a part of a stage run when its turn comes; not where it ran with this key before, unless `again`."""
        task.begun[name] = key
        if again or run_files.read_object(self._record(task, name)) != {"key": key}:
            task.awaited += 1
            self._queue.append((task, name, part_of(task.stage, name, task.values, self.out, task.keys.code)))

    def begin(self, task: Task, last: bool = False) -> None:
        """Have a stage run when its turn comes and its parts have ended; `last` where no other is to follow."""
        task.due = True
        if not task.awaited:
            work = whole(task.stage, task.values, self.out, task.keys.code)
            work.kernel.last = last
            self._queue.append((task, "", work))

    def start(self) -> None:
        """Have as many of the queue run as may at a time."""
        self._queue.sort(key=lambda waiting: (-waiting[0].urgency, not waiting[1]))
        while self._queue and len(self._at_work) < self.jobs:
            task, part, work = self._queue.pop(0)
            self._at_work[self._pool.submit(work.run, self.line)] = task, part, work

    def next(self) -> Task:
        """The next task of which something has ended: a part, or the whole.

        Raises
        ------
        StageError
            If a notebook failed.
        """
        self.start()
        ended, _ = concurrent.futures.wait(self._at_work, return_when=concurrent.futures.FIRST_COMPLETED)
        future = ended.pop()  # others that ended are met at the next call
        task, part, _ = self._at_work.pop(future)
        task.done.append(future.result())
        task.over = not part
        if part:
            run_files.write_json(self._record(task, part), {"key": task.begun[part]})
            task.awaited -= 1
            if task.due:
                self.begin(task)
        return task

    def _record(self, task: Task, part: str) -> Path:
        """Where it is noted with which key a part ran last."""
        return self.out / ".stages" / "parts" / f"{task.stage.name}.{part}.json"

    def run(self, work: Work) -> Executed:
        """Run one notebook after which no other follows, and wait for it."""
        work.kernel.last = True
        task = Task(work.stage, work.values, None)
        self._queue.append((task, "", work))
        (executed,) = self.next().done
        return executed


def whole(stage: Stage, values: Mapping[str, object], out: Path, code: str) -> Work:
    """The work of running a notebook."""
    return Work(stage.name, stage, values, out / "notebooks" / f"{stage.name}.ipynb", code)


def part_of(stage: Stage, name: str, values: Mapping[str, object], out: Path, code: str) -> Work:
    """The work of running those cells of a notebook that make one of its parts."""
    final = out / ".stages" / f"{stage.name}.{name}.ipynb"
    return Work(f"{stage.name[:2]}:{name}", stage.part(name), values, final, code)
