"""When is a stage up to date? Its key covers all that it depends on, its record the hashes of all that it wrote."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from shelfspace.files import imports, run_files
from shelfspace.files.stages import Stage


class Keys(NamedTuple):
    """A hash over all that a stage depends on, and one over the code that trains in it: its modules but for figures, and libraries."""

    stage: str
    code: str


def of(stage: Stage, values: Mapping[str, object], earlier: Mapping[str, str], log: str, versions: Mapping[str, str]) -> Keys:
    """The keys of a stage.

    Parameters
    ----------
    stage : Stage
    values : mapping of name to value
        Its parameters.
    earlier : mapping of name to hash
        The files of the stages before it; those count that it reads.
    log : str
        The fingerprint of the log.
    versions : mapping of name to version
        Of libraries.
    """
    cells = [(cell.cell_type, cell.source) for cell in stage.notebook.cells]
    code = "\n".join(source for kind, source in cells if kind == "code")
    files = imports.hashes(imports.imported(code))
    without_figures = {name: digest for name, digest in files.items() if not name.startswith("page/")}
    libraries = [dict(versions), platform.machine()]
    read = {name: digest for name, digest in earlier.items() if stage.does_read(name)}
    return Keys(_digest([cells, dict(values), files, log, read, libraries]), _digest([without_figures, libraries]))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def stale(stage: str, key: str, out: Path) -> str | None:
    """None where a stage is up to date; else what was damaged of it, or "" where it is to be run for another reason.

    It is up to date where its record has this key, and the executed notebook and all that it wrote are unchanged.
    """
    record = run_files.read_record(out, stage)
    if record is None:
        return "its record was damaged" if os.path.lexists(out / ".stages" / f"{stage}.json") else ""
    if record["key"] != key or "notebook" not in record:
        return ""
    digests = record["outputs"] | {f"notebooks/{stage}.ipynb": record["notebook"]}
    for name, digest in digests.items():
        if not (out / name).is_file():
            return f"{name} was missing"
        if fingerprint(out / name) != digest:
            return f"{name} was changed"
    return None if record.get("latency") == latency(record["outputs"], out) else "metrics.json was changed"


def fingerprint(path: Path) -> str:
    """SHA-256 of an output; of metrics.json without its timings, which no two runs share."""
    if path.name != "metrics.json":
        return run_files.sha256_file(path)
    figures = {name: value for name, value in (run_files.read_object(path) or {}).items() if name != "timings"}
    return hashlib.sha256(json.dumps(figures).encode()).hexdigest()


def latency(outputs: Mapping[str, str], out: Path) -> str | None:
    """SHA-256 of the latencies in metrics.json, of the stage that writes it."""
    if "metrics.json" not in outputs:
        return None
    timings = (run_files.read_object(out / "metrics.json") or {}).get("timings")
    return hashlib.sha256(json.dumps(timings.get("latency") if isinstance(timings, dict) else None).encode()).hexdigest()
