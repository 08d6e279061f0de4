"""The run folder: where it is, which of its files are ours, and files in it that are either whole or not there.

A folder is a run's by its list, RUN/.stages/files: all that Shelfspace wrote there, a name per line. What is not on it is the
user's, and is neither replaced nor removed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

LIST = ".stages/files"
HEAD = "# What Shelfspace wrote into this folder. It replaces and removes these files, and no others."
TEMPORARY = ".tmp-"  # how the names of unfinished files begin
CODE = "SHELFSPACE_CODE"  # the environment variable with the hash of the code at work, where the pipeline runs it
LEDGER = "SHELFSPACE_LEDGER"  # that with the name of a file which lists what the notebook at work wrote


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


def is_run(run_dir: str | Path) -> bool:
    """Whether a folder has a list of what is ours in it."""
    path = Path(run_dir) / LIST
    try:
        if not path.is_file():
            return False
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline(len(HEAD) + 1) == f"{HEAD}\n"
    except OSError:
        return False


def listed(run_dir: str | Path) -> set[str]:
    """Names of the files of a run folder that Shelfspace wrote."""
    if not is_run(run_dir):
        return set()
    return set((Path(run_dir) / LIST).read_text(encoding="utf-8", errors="replace").split("\n")[1:]) - {""}


def notebooks(run_dir: str | Path) -> list[Path]:
    """The executed notebooks of a run, in order, without those that the user put beside them."""
    run_dir, ours = Path(run_dir), listed(run_dir)
    paths = sorted((run_dir / "notebooks").glob("*.ipynb"))
    return [path for path in paths if f"notebooks/{path.name}" in ours] if is_run(run_dir) else paths


def claim(run_dir: str | Path, names: Iterable[str]) -> None:
    """Put names on the list of what is ours, which makes the folder a run's; several processes may do so at once."""
    path, known = Path(run_dir) / LIST, listed(run_dir)
    new = [name for name in dict.fromkeys(names) if name not in known]
    if is_run(run_dir):
        if not new:
            return
        head = "" if path.read_bytes().endswith(b"\n") else "\n"  # it was cut short
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # of something else
        head = f"{HEAD}\n"
    with open(path, "a", encoding="utf-8") as file:  # one write, at the end of the file whatever others append
        file.write(head + "".join(f"{name}\n" for name in new))


def remove_unfinished(run_dir: str | Path) -> None:
    """Remove the unfinished files of a run that was killed, and take them off the list."""
    names = listed(run_dir)
    unfinished = {name for name in names if name.rpartition("/")[2].startswith(TEMPORARY) and inside(name)}
    for name in unfinished:
        try:
            (Path(run_dir) / name).unlink()
        except OSError:  # it was put in place, or is no file
            continue
    if unfinished:
        path = Path(run_dir) / LIST
        path.with_suffix(".new").write_text("\n".join([HEAD, *sorted(names - unfinished)]) + "\n", encoding="utf-8")
        os.replace(path.with_suffix(".new"), path)


def inside(name: object) -> bool:
    """Whether a name is that of a file below a run folder."""
    return isinstance(name, str) and not {"", ".", ".."} & set(name.split("/")) and not {"\0", "\n"} & set(name)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there becomes `path` at the end, or vanishes on error.

    Raises
    ------
    ValueError
        If the file is in a run's folder, but not the run's.
    """
    path = Path(path)
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(6)}{path.suffix}"
    place = Path(os.path.abspath(path))
    run = next((folder for folder in place.parents if is_run(folder)), None)
    if run is not None:
        name = place.relative_to(run).as_posix()
        if os.path.lexists(path) and not name.startswith(".stages/") and name not in listed(run):
            raise ValueError(f"{path} was not written by the run in that folder, so it is not replaced; move it, or use another folder.")
        claim(run, [place.with_name(temporary.name).relative_to(run).as_posix()])
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        temporary.chmod(0o644)
        if run is not None:
            claim(run, [name])
        os.replace(temporary, path)
        _note(path)
    finally:
        temporary.unlink(missing_ok=True)


class Made(NamedTuple):
    """What `once` made: the seconds that it took, and what its maker returned."""

    seconds: float
    returned: object


def once(run_dir: str | Path, name: str, make: Callable, **given) -> Made:
    """Make a file, unless it was made before from the same by the same code: in a run that was stopped, in a part of the notebook that
    ran before, or in an earlier run of the folder.

    The same code is that of the modules which the notebook imports, without figures (`shelfspace.run.keys`). A notebook that runs
    by hand makes the file anew.

    Parameters
    ----------
    run_dir : str or Path
    name : str
        The file, in the run folder.
    make : callable
        Takes the path to write to and what is `given`; the file is put in place when it returns. What it returns must be JSON.
    given
        All that the file depends on beside code, as `joblib.hash` takes it: arrays, dataclasses, functions of modules.
    """
    import joblib

    path, record, code = Path(run_dir) / name, _made(run_dir, name), os.environ.get(CODE)
    key = hashlib.sha256(f"{code} {name} {joblib.hash(given)}".encode()).hexdigest() if code else None
    known = read_object(record)
    if key and _is_made(known) and known["key"] == key and path.is_file() and sha256_file(path) == known["sha256"]:
        _note(path)
        return Made(known["seconds"], known["returned"])
    started = time.perf_counter()
    with atomic(path) as temporary:
        returned = make(temporary, **given)
    seconds = time.perf_counter() - started
    if key:
        write_json(record, {"key": key, "sha256": sha256_file(path), "seconds": seconds, "returned": returned})
    return Made(seconds, returned)


def forget(run_dir: str | Path, does_write: Callable[[str], bool]) -> None:
    """Have `once` make those files again of which `does_write` is true."""
    folder = _made(run_dir, "")
    for record in folder.rglob("*.json"):
        if does_write(record.relative_to(folder).as_posix().removesuffix(".json")):
            record.unlink()


def _is_made(record: Mapping | None) -> bool:
    """Whether a record is what `once` writes."""
    return (
        record is not None
        and is_hash(record.get("key"))
        and is_hash(record.get("sha256"))
        and is_seconds(record.get("seconds"))
        and "returned" in record
    )


def _made(run_dir: str | Path, name: str) -> Path:
    """Where `once` notes how a file was made."""
    folder = Path(run_dir) / ".stages" / "made"
    return folder / f"{name}.json" if name else folder


def _note(path: Path) -> None:
    """Tell the pipeline that the notebook at work wrote a file, or found it made."""
    if ledger := os.environ.get(LEDGER):
        with open(ledger, "a", encoding="utf-8") as file:  # one write, at the end, whatever others append
            file.write(json.dumps(os.path.abspath(path)) + "\n")


@contextmanager
def under(code: str) -> Iterator[None]:
    """Set the hash of the code at work, for `once` in this process."""
    before = os.environ.get(CODE)
    os.environ[CODE] = code
    try:
        yield
    finally:
        os.environ.pop(CODE)
        if before is not None:
            os.environ[CODE] = before


def write_json(path: str | Path, value: object) -> None:
    """Write JSON with two spaces of indent, keys in their order, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def read_object(path: str | Path) -> dict | None:
    """A JSON object, or None where there is no such file or it holds none that can be read."""
    try:
        found = read_json(path) if Path(path).is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_record(run_dir: str | Path, stage: str) -> dict | None:
    """The record of a stage, or None where there is none that is whole.

    Returns
    -------
    dict
        "stage"; "key", over all that it depends on; "seconds"; "outputs", the hash of each file that it wrote; "notebook", that of
        the executed notebook, and "latency", that of the latencies in metrics.json, which older runs did not keep.
    """
    record = read_object(Path(run_dir) / ".stages" / f"{stage}.json")
    whole = (
        record is not None
        and record.get("stage") == stage
        and is_hash(record.get("key"))
        and is_seconds(record.get("seconds"))
        and isinstance(record.get("outputs"), dict)
        and all(inside(name) and is_hash(digest) for name, digest in record["outputs"].items())
        and all(is_hash(record[name]) for name in ("notebook", "latency") if name in record)
    )
    return record if whole else None


def is_hash(value: object) -> bool:
    """Whether this is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def is_seconds(value: object) -> bool:
    """Whether this is a length of time."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


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
    except RecursionError:
        raise ValueError(f"{path} cannot be read: it is nested too deeply.") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no object, so it is not a run's.")
    return found


def sha256_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
