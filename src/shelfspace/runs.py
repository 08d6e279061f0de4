"""The run folder: where it is, and files in it that are either whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp-"  # how the names of unfinished files begin
KEY = "SHELFSPACE_KEY"  # the environment variable with the key of the stage at work, which covers all that it depends on


def run_folder(run_dir: str | Path) -> Path:
    """The folder of a run, made if it is not there.

    A relative path counts from the repository's root, also when a notebook is open in Jupyter, whose working
    directory is then ``notebooks/``.

    Raises
    ------
    ValueError
        If the path is a file, or the folder cannot be made.
    """
    path = Path(run_dir)
    here = Path.cwd()
    if not path.is_absolute() and here.name == "notebooks" and (here.parent / "src" / "shelfspace").is_dir():
        path = here.parent / path
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{path} is a file, and a run needs a folder; name another one with --out.") from None
    except OSError as error:
        raise ValueError(f"The folder {path} cannot be made ({error.strerror}); name another one with --out.") from None
    return path


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there becomes `path` at the end, or vanishes on error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY, suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def once(run_dir: str | Path, name: str, make: Callable[[Path], object]) -> float:
    """Make a file of a stage, unless the same stage made it before it was stopped, or a task of its own did.

    The same stage is one with the same code, inputs, parameters and versions (`shelfspace.pipeline`). A notebook that runs
    by hand makes the file anew.

    Parameters
    ----------
    run_dir : str or Path
    name : str
        The file, in the run folder.
    make : callable
        Takes the path to write to; the file is put in place when it returns.

    Returns
    -------
    float
        The seconds that it took to make.
    """
    path, record = Path(run_dir) / name, _made(run_dir, name)
    key = os.environ.get(KEY)
    known = read_json(record) if record.exists() else {}
    if key and known.get("key") == key and path.is_file() and sha256_file(path) == known["sha256"]:
        os.utime(path)  # the pipeline takes a file with a new time for one that the stage wrote
        return known["seconds"]
    started = time.perf_counter()
    with atomic(path) as temporary:
        make(temporary)
    seconds = time.perf_counter() - started
    if key:
        write_json(record, {"key": key, "sha256": sha256_file(path), "seconds": seconds})
    return seconds


def forget(run_dir: str | Path, key: str) -> None:
    """Have `once` make again what was made under a key."""
    for record in _made(run_dir, "").rglob("*.json"):
        if read_json(record).get("key") == key:
            record.unlink()


def _made(run_dir: str | Path, name: str) -> Path:
    """Where `once` notes how a file was made."""
    folder = Path(run_dir) / ".stages" / "made"
    return folder / f"{name}.json" if name else folder


@contextmanager
def under(key: str) -> Iterator[None]:
    """Set the key of the stage at work, for `once` in this process and in the kernels that it starts."""
    before = os.environ.get(KEY)
    os.environ[KEY] = key
    try:
        yield
    finally:
        os.environ.pop(KEY)
        if before is not None:
            os.environ[KEY] = before


def write_json(path: str | Path, value: object) -> None:
    """Write JSON with two spaces of indent, keys in their order, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def needed(run_dir: str | Path, name: str, otherwise: str) -> dict:
    """Read a JSON object that a run must have.

    Raises
    ------
    ValueError
        If it is missing, adding `otherwise`: what that means, and what to do; or if it is none.
    """
    path = Path(run_dir) / name
    try:
        found = read_json(path)
    except FileNotFoundError:
        raise ValueError(f"{run_dir} has no {name}, so {otherwise}.") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no object, so it is not a run's.")
    return found


def sha256_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
