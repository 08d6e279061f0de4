"""The file of recommendations: each user's best products, with their scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shelfspace.files import run_files
from shelfspace.measure.ranking import Model, in_blocks, top_k
from shelfspace.sequences.arrays import Examples

SCHEMA = pa.schema([("user_id", pa.string()), ("rank", pa.int16()), ("product_id", pa.string()), ("score", pa.float32())])
BLOCK = 128  # histories scored at once


def best(model: Model, examples: Examples, product_ids: np.ndarray, k: int = 20, seen: bool = True) -> pa.RecordBatch:
    """The k best products for each history: user_id, rank (1 the best), product_id, score.

    Without `seen`, what a user saw is not recommended; whoever saw all but a few products then gets fewer than k.
    """
    scores = model(examples)
    if not seen:
        positions, offsets = examples.flat()
        scores = np.array(scores)  # a model may hand out what it keeps
        scores[np.repeat(np.arange(len(examples)), np.diff(offsets)), examples.items[positions]] = -np.inf
    top, scores = top_k(scores, k)
    allowed = np.isfinite(scores)
    columns = (
        np.broadcast_to(examples.user_ids[:, None], top.shape)[allowed].astype(object),
        np.broadcast_to(np.arange(1, top.shape[1] + 1, dtype=np.int16), top.shape)[allowed],
        product_ids[top[allowed]].astype(object),
        scores[allowed],
    )
    return pa.record_batch([pa.array(column, field.type) for column, field in zip(columns, SCHEMA)], schema=SCHEMA)


def batches(model: Model, examples: Examples, product_ids: np.ndarray, k: int = 20, seen: bool = True) -> Iterator[pa.RecordBatch]:
    """As `best`, a block of histories at a time."""
    return in_blocks(lambda part: best(model, part, product_ids, k, seen), examples, BLOCK)


def write_recommendations(
    model: Model, examples: Examples, product_ids: np.ndarray, path: str | Path, k: int = 20, seen: bool = True
) -> None:
    """Write the k `best` products of every user to ``recommendations.parquet``, a block of users at a time, atomically."""
    with run_files.atomic(path) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        for batch in batches(model, examples, product_ids, k, seen):
            writer.write_batch(batch)
