"""One notebook in a kernel of its own, through papermill: its progress, its end, and why it failed, in one sentence."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from shelfspace.files import run_files
from shelfspace.files.places import ROOT


class StageError(RuntimeError):
    """A notebook failed; the message names it, the cell and the cause in one sentence."""


def run(stage, values: Mapping[str, object], final: Path) -> None:
    """Run a notebook to `final`; on failure keep what it had come to and say where it stopped.

    Parameters
    ----------
    stage : shelfspace.files.stages.Stage
        Its name and its notebook.
    values : mapping of name to value
        Its parameters.
    final : Path
        The executed notebook.

    Raises
    ------
    StageError
        If a cell failed, or the kernel died.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    failure, ends = None, []
    with run_files.atomic(final) as temporary, _terminated_like_ctrl_c(), _temporary_files(), _terminal_line(stage.name) as line:
        target = str(temporary).replace("{", "{{").replace("}", "}}")  # papermill fills braces in with parameters
        try:
            papermill.execute_notebook(
                stage.notebook, target, dict(values), kernel_name="python3", progress_bar=False, cwd=str(ROOT), stderr_file=line,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"], kernel_manager_class=_watched(ends),
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            failure = _cause(stage, error, final)
        except DeadKernelError:
            failure = f"{stage.name} stopped because {_end(ends)} (The executed notebook is {final}.)"
    if failure:
        raise StageError(failure)


def _watched(ends: list[int]) -> type:
    """A manager of kernels that notes the exit code of its kernel: negative for the signal that ended it."""
    from jupyter_client.manager import AsyncKernelManager

    class Watched(AsyncKernelManager):
        async def _async_is_alive(self) -> bool:
            code = await self.provisioner.poll() if self.has_kernel else None
            if code is not None:
                ends.append(code)
            return await super()._async_is_alive()

        is_alive = _async_is_alive

    return Watched


def _end(ends: list[int]) -> str:
    """Why a kernel died, by its exit code; only the signal that a system sends when memory is short speaks of memory."""
    code = ends[0] if ends else None
    if code == -signal.SIGKILL:
        return "its kernel was killed (SIGKILL), most often for lack of memory; try a smaller log, last_days, or a machine with more."
    if code is not None and code < 0:
        name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
        return f"its kernel crashed ({name}), which is a fault of the code or of a library, not of the log; please report it."
    return "its kernel ended by itself" + (f", with exit code {code}." if code is not None else ".")


def _cause(stage, error, final: Path) -> str:
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


class _TerminalLine:
    """A file that shows the newest progress bar of a notebook on the terminal's current line, behind the stage's name."""

    def __init__(self, name: str):
        self.name = name

    def write(self, text: str) -> None:
        newest = re.split(r"[\r\n]", text.strip())[-1]
        if "%|" in newest:
            self._show(f"{self.name:<24}{newest}")

    def flush(self) -> None:
        sys.stdout.flush()

    def clear(self) -> None:
        self._show(f"{self.name:<24}")

    def _show(self, text: str) -> None:
        sys.stdout.write(f"\r\x1b[K{text}")


@contextmanager
def _terminal_line(name: str) -> Iterator[_TerminalLine | None]:
    """Where a notebook's progress bars go: to the terminal while it runs; nowhere when the output is no terminal."""
    if not sys.stdout.isatty():
        yield None
        return
    line = _TerminalLine(name)
    try:
        yield line
    finally:
        line.clear()


@contextmanager
def _temporary_files() -> Iterator[None]:
    """A folder for the temporary files of a notebook's kernel that goes at its end, also where the kernel was killed."""
    given = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="shelfspace-", ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = folder
        try:
            yield
        finally:
            os.environ.pop("TMPDIR")
            if given is not None:
                os.environ["TMPDIR"] = given


@contextmanager
def _terminated_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that the kernel is stopped and temporary files go."""

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
        signal.signal(signal.SIGTERM, previous)
