"""The run folder: where it is, and files in it that are either whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp-"  # how the names of unfinished files begin


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


def write_json(path: str | Path, value: object) -> None:
    """Write JSON with two spaces of indent, keys in their order, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
