"""A folder held for one run: refused where it is somebody else's, taken where it is free, locked while the run writes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shelfspace.files import run_files
from shelfspace.files.parameters import writable
from shelfspace.files.places import CHECKOUT, NOTEBOOKS

REPORT = ".stages/report.json"
PAGES = {"report.html": "sha256", "card.md": "card"}
"""What is made of a finished run to be read, and under which name its record holds the hash of each."""


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
    if out.is_dir() and not run_files.is_run(out) and not any(_records(out)) and not _bare(out):
        raise ValueError(f"{out} is not empty and was not written by Shelfspace; name another folder with --out.")


def _bare(out: Path) -> bool:
    """Whether a folder holds no file, but for the empty ones of a run that was killed at once."""
    begun = (out / ".lock", out / run_files.LIST)
    return all(
        path.is_dir() and not path.is_symlink() or (path in begun and path.is_file() and path.stat().st_size == 0)
        for path in out.rglob("*")
    )


def _records(out: Path) -> Iterator[dict]:
    """The whole records of the stages in a folder."""
    for path in sorted((out / ".stages").glob("[0-9][0-9]_*.json")):
        if record := run_files.read_record(out, path.stem):
            yield record


def take_folder(out: Path, folder: Path = NOTEBOOKS) -> None:
    """Make a folder this run's: list what its records say is ours, and refuse it where another file is in the way.

    In a folder without a list, of a run before there were any or where it was damaged, the records alone say what is ours.

    Raises
    ------
    ValueError
        Naming the file in the way.
    """
    old = not run_files.is_run(out)
    names = [name for record in _records(out) for name in (*record["outputs"], f"notebooks/{record['stage']}.ipynb")]
    written = [f"notebooks/{path.stem}.ipynb" for path in sorted(folder.glob("[0-9][0-9]_*.py"))]
    if names and old:
        made = out / ".stages" / "made"
        names += ["params.json", *written, *(path.relative_to(made).as_posix().removesuffix(".json") for path in made.rglob("*.json"))]
    if report_record(out):
        names += PAGES
    run_files.claim(out, filter(run_files.inside, names))
    ours = run_files.listed(out)
    for name in ("params.json", *PAGES, *written):
        if os.path.lexists(out / name) and name not in ours:
            raise ValueError(
                f"{out / name} was not written by this run, which would replace it; move it, or name another folder with --out."
            )


@contextmanager
def lock(out: Path, shared: bool = False) -> Iterator[None]:
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


def report_record(out: Path) -> dict | None:
    """The record of the page, or None where there is none that is whole."""
    record = run_files.read_object(out / REPORT)
    return record if record and run_files.is_hash(record.get("key")) and run_files.is_hash(record.get("sha256", record["key"])) else None
