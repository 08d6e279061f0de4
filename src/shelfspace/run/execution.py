"""One notebook in a kernel of its own, through papermill: its progress, its end, and why it failed, in one sentence."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.engines import NBClientEngine, papermill_engines

from shelfspace.files import run_files
from shelfspace.files.places import ROOT
from shelfspace.files.stages import Stage
from shelfspace.run.kernels import Kernel


class StageError(RuntimeError):
    """A notebook failed; the message names it, the cell and the cause in one sentence."""


class Stopped(RuntimeError):
    """A notebook was stopped from outside, as another one failed or the user wished it."""


@dataclass(frozen=True)
class Executed:
    """What is known of a notebook that ran.

    Attributes
    ----------
    seconds : float
    written : tuple of Path
        The files that it wrote, or found made, in the order of the last time.
    """

    seconds: float
    written: tuple[Path, ...]


class Work:
    """A notebook, or a part of one, to be run once.

    Parameters
    ----------
    name : str
        What progress calls it.
    stage : Stage
        Its cells.
    values : mapping of name to value
        Its parameters.
    final : Path
        The executed notebook.
    code : str
        The hash of its code; see `shelfspace.files.run_files.once`.
    """

    def __init__(self, name: str, stage: Stage, values: Mapping[str, object], final: Path, code: str):
        self.name, self.stage, self.values, self.final = name, stage, values, final
        self.kernel = Kernel({run_files.CODE: code}, ROOT)
        self.executed = stage.notebook

    def run(self, line: StatusLine) -> Executed:
        """Run it to `final`; on failure keep what it had come to and say where it stopped.

        Raises
        ------
        StageError
            If a cell failed, or the kernel died.
        Stopped
            If the kernel was stopped.
        """
        started, failure = time.perf_counter(), None
        with run_files.atomic(self.final) as temporary, _temporary_files() as folder, line.of(self.name) as progress:
            ledger = folder / "ledger"
            ledger.touch()
            self.kernel.environment |= {"TMPDIR": str(folder / "tmp"), run_files.LEDGER: str(ledger)}
            try:
                papermill.execute_notebook(
                    self.stage.notebook, str(temporary).replace("{", "{{").replace("}", "}}"),  # papermill fills braces in
                    dict(self.values), engine_name=ENGINE, work=self, kernel_name="python3", progress_bar=False, stderr_file=progress,
                    extra_arguments=["--IPKernelApp.log_level=CRITICAL", f"--IPKernelApp.exec_lines={END_AT_ONCE}{GIVE_BACK}"],
                    kernel_manager_class=self.kernel.manager(), request_save_on_cell_execute=False,
                )  # fmt: skip
            except papermill.PapermillExecutionError as error:
                failure = _cause(self.stage, error, self.final)
            except (DeadKernelError, RuntimeError):
                if self.kernel.stopped:
                    raise Stopped(self.name) from None
                if self.kernel.exit_code is None:
                    raise
                nbformat.write(self.executed, temporary)
                failure = f"{self.stage.name} stopped because {_end(self.kernel.exit_code)} (The executed notebook is {self.final}.)"
            written = [Path(json.loads(text)) for text in ledger.read_text(encoding="utf-8").splitlines()]
        if failure:
            raise StageError(failure)
        return Executed(time.perf_counter() - started, tuple(dict.fromkeys(written)))


ENGINE = "shelfspace"
END_AT_ONCE = "__import__('atexit').register(__import__('gc').freeze);"  # or its last act is to go through all that libraries hold
GIVE_BACK = (  # after each cell, what the GNU C library keeps of the memory that was let go, in case there is more to come
    "get_ipython().events.register('post_run_cell', lambda _, trim=getattr(__import__('ctypes').CDLL(None), 'malloc_trim', abs): trim(0));"
)


class _Engine(NBClientEngine):
    """Papermill's own engine; the work keeps the notebook, also where its kernel dies, and what each cell took."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, work: Work, **given):
        work.executed = nb_man.nb
        complete = nb_man.cell_complete

        def note_memory(cell, **more):
            complete(cell, **more)
            if (peak := _peak(work.kernel.pid)) is not None:
                cell.metadata.papermill["peak_mb"] = peak

        nb_man.cell_complete = note_memory
        super().execute_managed_notebook(nb_man, kernel_name, **given)


papermill_engines.register(ENGINE, _Engine)


def _peak(pid: int | None) -> float | None:
    """Megabytes that a process held at most since this was last asked; None where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # counts from here
    except OSError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else None


def _end(code: int) -> str:
    """Why a kernel died, by its exit code; only the signal that a system sends when memory is short speaks of memory."""
    if code == -signal.SIGKILL:
        return "its kernel was killed (SIGKILL), most often for lack of memory; try a smaller log, last_days, or a machine with more."
    if code < 0:
        name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
        return f"its kernel crashed ({name}), which is a fault of the code or of a library, not of the log; please report it."
    return f"its kernel ended by itself, with exit code {code}."


def _cause(stage: Stage, error: papermill.PapermillExecutionError, final: Path) -> str:
    """One sentence: which notebook, under which heading, in which cell, why, and where to look."""
    cells = [cell.source for cell in stage.notebook.cells]
    place = next((i for i, source in enumerate(cells) if source == error.source), len(cells) - 1)
    headings = [
        line.lstrip("# ").strip()
        for cell in stage.notebook.cells[:place]
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("#")
    ]
    where = f"{stage.name} stopped in cell [{error.exec_count}]" + (f", “{headings[-1]}”" if headings else "")
    why = error.evalue if error.ename == "ValueError" else f"{error.ename}: {error.evalue}"
    if error.ename == "MemoryError":
        why = "There is not enough memory; try a smaller log, last_days, or a machine with more."
    elif os.strerror(errno.ENOSPC) in error.evalue:
        why = f"The disk of {final.parents[1]}, or that of temporary files (TMPDIR), is full; make room and run it again."
    return f"{where}: {' '.join(why.split())} (The executed notebook is {final}.)"


class StatusLine:
    """The terminal's current line: what runs, and the newest progress bar of each; nothing where the output is no terminal."""

    def __init__(self):
        self.shown: dict[str, str] = {}
        self.lock = threading.RLock()

    @contextmanager
    def of(self, name: str) -> Iterator[_Progress | None]:
        """A file for the progress bars of one notebook, shown until it ends."""
        if not sys.stdout.isatty():
            yield None
            return
        self.show(name, "")
        try:
            yield _Progress(self, name)
        finally:
            with self.lock:
                self.shown.pop(name)
                self._draw()

    def show(self, name: str, bar: str) -> None:
        with self.lock:
            self.shown[name] = bar
            self._draw()

    def clear(self) -> None:
        """Free the line for a text that stays; the next progress draws it again."""
        if self.shown:
            sys.stdout.write("\r\x1b[K")

    def _draw(self) -> None:
        if len(self.shown) == 1:
            ((name, bar),) = self.shown.items()
            text = f"{name:<24}{bar}"
        else:
            text = "  ".join(f"{name} {''.join(re.findall('[0-9]+%', bar)[:1])}".strip() for name, bar in self.shown.items())
        sys.stdout.write(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}")
        sys.stdout.flush()


class _Progress:
    """What a notebook writes to its standard error, as a file: its newest progress bar goes to the status line."""

    def __init__(self, line: StatusLine, name: str):
        self.line, self.name = line, name

    def write(self, text: str) -> None:
        newest = re.split(r"[\r\n]", text.strip())[-1]
        if "%|" in newest:
            self.line.show(self.name, newest)

    def flush(self) -> None:
        pass


@contextmanager
def _temporary_files() -> Iterator[Path]:
    """A folder for a kernel's temporary files (``tmp`` in it) that goes at the kernel's end, also where it was killed."""
    with tempfile.TemporaryDirectory(prefix="shelfspace-", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "tmp").mkdir()
        yield Path(folder)


@contextmanager
def terminated_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that kernels are stopped and temporary files go."""

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    try:
        previous = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, previous)
