"""Recommendations for a log of any size, in a file that is whole or not there."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path

import pyarrow.csv as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from shelfspace.files import run_files
from shelfspace.models.recommendations import SCHEMA
from shelfspace.sequences import arrays
from shelfspace.use import histories
from shelfspace.use.runs import Run


def recommend(
    run: Run, data, out: str | Path, *, k: int = 20, seen: bool | None = None, columns: Mapping[str, str] | None = None,
    progress: bool = True,
) -> int:  # fmt: skip
    """Write what `Run.recommend` gives, a block of customers at a time.

    Parameters
    ----------
    run, data, k, seen, columns
        See `Run.recommend`.
    out : path
        Its ending says the form: .parquet or .csv. A file that is there is replaced.
    progress : bool
        Show a progress bar.

    Returns
    -------
    int
        The rows written.

    Raises
    ------
    ValueError
        If the ending is another, or the rows do not fit.
    """
    out = Path(out)
    writers = {".parquet": pq.ParquetWriter, ".csv": pc.CSVWriter}
    if out.suffix.lower() not in writers or out.is_dir():
        raise ValueError(f"--out is {out}; it must be a file that ends in .parquet or .csv.")
    rows = 0
    with run.visits(data, columns) as path, run_files.atomic(out) as temporary:
        gc.collect()  # DuckDB, whose tables refer to each other, gives back its memory to those who score
        arrays.release()
        with writers[out.suffix.lower()](temporary, SCHEMA) as writer, tqdm(unit=" visits", disable=not progress) as bar:
            bar.total = pq.read_metadata(path).num_rows
            for table in histories.blocks(path):
                for batch in run.answers(*run.examples(table), k, seen):
                    writer.write_batch(batch)
                    rows += batch.num_rows
                bar.update(table.num_rows)
    return rows
