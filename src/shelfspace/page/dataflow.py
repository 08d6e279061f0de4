"""The map of the data flow: which file each stage wrote and which of the later ones read it.

Who wrote a file is in the stages' records (RUN/.stages); who reads it, in the heads of the executed notebooks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nbformat

from shelfspace.files import run_files
from shelfspace.files.stages import Stage

READ_BY_THE_PAGE = {
    "reads": [
        "metrics.json",
        "test_ranks.parquet",
        "journeys.parquet",
        "recommender.json",
        "decay.json",
        "products.parquet",
        "tsne.parquet",
        "product_embeddings/*",
        "sequences.parquet",
    ]
}
"""As a notebook's head says it."""

NAMED = 4  # files that go together and are named one by one


@dataclass(frozen=True)
class File:
    """A file of a run, or several that go together.

    Attributes
    ----------
    name : str
        Its path in the run's folder; several as ``folder/{one,other}.parquet``, more than `NAMED` as ``folder/*.npz``.
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
    stages = [_executed(run_dir, record["stage"]) for record in records]
    stages.append(Stage("report", nbformat.v4.new_notebook(metadata={"shelfspace": READ_BY_THE_PAGE}), {}))
    files = [File(log, -1, (0,), 0)] if log else []
    together: dict[tuple, list[str]] = {}
    for writer, record in enumerate(records):
        for name in record["outputs"]:
            readers = tuple(place for place, stage in enumerate(stages) if place > writer and stage.does_read(name))
            folder, _, last = name.rpartition("/")
            together.setdefault((writer, readers, folder, Path(last).suffix if folder else name), []).append(name)
    for (writer, readers, folder, suffix), names in together.items():
        stems = "{" + ",".join(sorted(Path(name).stem for name in names)) + "}" if len(names) <= NAMED else "*"
        name = f"{folder}/{stems}{suffix}" if len(names) > 1 else names[0]
        files.append(File(name, writer, readers, sum((run_dir / n).stat().st_size for n in names if (run_dir / n).exists())))
    return [stage.name for stage in stages], files


def _executed(run_dir: Path, name: str) -> Stage:
    """A stage as it was run; nothing is known of one whose notebook is gone."""
    path = run_dir / "notebooks" / f"{name}.ipynb"
    return Stage(name, nbformat.read(path, as_version=4) if path.exists() else nbformat.v4.new_notebook(), {})
