"""The map of the data flow: which file each stage wrote and which of the later ones read it.

Who wrote a file is in the stages' records (RUN/.stages). Who reads it is in their code: the paths that an executed
notebook builds, as in ``run / "products.parquet"`` or ``run / "product_embeddings" / f"{name}.parquet"``.
"""

from __future__ import annotations

import ast
import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nbformat

from shelfspace.files import run_files

REPORT = ("report", "playground", "player")  # the modules that make the page


@dataclass(frozen=True)
class File:
    """A file of a run, or several that go together.

    Attributes
    ----------
    name : str
        Its path in the run's folder; several as ``folder/{one,other}.parquet``.
    writer : int
        Place of the stage that wrote it; -1 for the log, which came from outside.
    readers : tuple of int
        Places of the stages that read it, in order.
    size : int
        Bytes.
    """

    name: str
    writer: int
    readers: tuple[int, ...]
    size: int


def read(run_dir: str | Path, log: str = "the log") -> tuple[list[str], list[File]]:
    """Stages, the page last, and files in the order in which they were written.

    Parameters
    ----------
    run_dir : path
    log : str
        What to call the input; "" where the run made its own.

    Returns
    -------
    stages : list of str
        Names of the notebooks with a record, then "report"; empty where there is no record.
    files : list of File
    """
    run_dir = Path(run_dir)
    paths = sorted((run_dir / ".stages").glob("[0-9][0-9]_*.json"))
    records = [record for path in paths if (record := run_files.read_record(run_dir, path.stem))]
    if not records:
        return [], []
    stages = [record["stage"] for record in records]
    wanted = [_paths(_notebook_code(run_dir / "notebooks" / f"{name}.ipynb")) for name in stages]
    wanted.append(_paths("\n".join((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8") for name in REPORT)))
    files = [File(log, -1, (0,), 0)] if log else []
    together: dict[tuple, list[str]] = {}
    for writer, record in enumerate(records):
        for name in record["outputs"]:
            readers = tuple(p for p, paths in enumerate(wanted) if p > writer and any(fnmatch.fnmatch(name, path) for path in paths))
            folder, _, last = name.rpartition("/")
            together.setdefault((writer, readers, folder, Path(last).suffix if folder else name), []).append(name)
    for (writer, readers, folder, suffix), names in together.items():
        stems = ",".join(sorted(Path(name).stem for name in names))
        name = f"{folder}/{{{stems}}}{suffix}" if len(names) > 1 else names[0]
        files.append(File(name, writer, readers, sum((run_dir / n).stat().st_size for n in names if (run_dir / n).exists())))
    return [*stages, "report"], files


def _notebook_code(path: Path) -> str:
    """The code cells of a notebook, one after the other; nothing where it is not there."""
    if not path.exists():
        return ""
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


def _paths(code: str) -> set[str]:
    """The paths that some code names, as patterns: * stands for what is filled in, or for all in a folder."""
    found, inner = set(), set()
    for node in ast.walk(ast.parse(code)):  # outer nodes come before inner ones
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and node not in inner:
            parts, left = [], node
            while isinstance(left, ast.BinOp) and isinstance(left.op, ast.Div):
                inner.add(left)
                parts.append(_text(left.right))
                left = left.left
            path = "/".join(reversed(parts))
            found.add(path if "." in path else f"{path}/*")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith((".json", ".parquet", ".keras")):
            found.add(node.value)
    return {path for path in found if not path.startswith(("*", "."))}


def _text(node: ast.expr) -> str:
    """A piece of a path: a literal as it stands, an f-string with * for what it fills in, and * for anything else."""
    pieces: Iterable[ast.expr] = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(piece.value if isinstance(piece, ast.Constant) and isinstance(piece.value, str) else "*" for piece in pieces)
