"""User embeddings: the time-decayed weighted average of the products a user saw.

For user u with visits i of age t_i (0 for the newest),

    w_i = exp(-d t_i) / sum_j exp(-d t_j)        embedding(u) = sum_i w_i v(p_i)

so the weights are a softmax of -d t. The decay d sets how much recency counts: d = 0 is the plain mean, and a large
d the last product alone. Ages are counted from the user's own newest visit, never from the target's time, which a
model cannot know.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from shelfspace import engines, runs
from shelfspace.sequences import Examples

DECAY_TIMES = ("days", "log_days", "rank")
STEPS = ("histories", "weights", "sums", "averages")  # of the relational form
ROUNDING = 1.5 * 2.0**20  # x + ROUNDING - ROUNDING is x to the nearest multiple of 2 ** -32: doubles of that size are so far apart
BLOCK = 20_000  # histories whose weights are in memory at once


def ages(examples: Examples, decay_time: str = "days") -> tuple[np.ndarray, np.ndarray]:
    """Age t_i of every visit of every history, as the decay counts it.

    Parameters
    ----------
    examples : Examples
    decay_time : {"days", "log_days", "rank"}
        "days": days since the user's newest visit; "log_days": ln(1 + days); "rank": how many visits came after it.

    Returns
    -------
    ages : ndarray of float64
        All histories one after the other, each oldest first; the newest visit of a history has age 0.
    offsets : ndarray of int64, shape (n + 1,)
        Where each history begins.
    """
    _check_decay_time(decay_time)
    positions, offsets = examples.flat()
    if decay_time == "rank":
        return (np.repeat(examples.end, examples.lengths) - 1.0 - positions), offsets
    days = np.repeat(examples.times[examples.end - 1], examples.lengths) - examples.times[positions]
    return (np.log1p(days) if decay_time == "log_days" else days), offsets


def history_weights(
    examples: Examples,
    n_products: int,
    decay: float,
    decay_time: str = "days",
    known: np.ndarray | None = None,
    event_weights: Sequence[float] | None = None,
) -> sp.csr_matrix:
    """Decayed weight of every product in every history, as a sparse matrix W.

    W is all there is to know of a history for a linear model: ``W @ vectors`` are the user embeddings, and W times an
    item-to-item table are the scores of a neighbourhood recommender.

    Parameters
    ----------
    examples : Examples
    n_products : int
        Size of the product table.
    decay : float
        d, at least 0, per day, per ln(day) or per visit, as `decay_time` says.
    decay_time : {"days", "log_days", "rank"}
        See `ages`.
    known : ndarray of bool, shape (n_products,), optional
        Products that count; the weights of the others are 0 and the rest still sum to 1.
    event_weights : sequence of float, optional
        How often a visit counts, by its event, in the order of `shelfspace.sequences.EVENT_LEVELS`: then w_i is in
        proportion to b(e_i) exp(-d t_i). Once each where there is none.

    Returns
    -------
    csr_matrix of float32, shape (n, n_products)
        Rows sum to 1, or are empty when no product of the history is known.
    """
    if decay < 0:
        raise ValueError(f"decay is {decay}; it must be 0 (the plain mean) or more.")
    age, offsets = ages(examples, decay_time)
    positions, _ = examples.flat()
    items = examples.items[positions]
    weights = np.exp(-decay * age)
    if known is not None:
        # A softmax over the known products only; measured from the newest known one, or old ones would underflow.
        newest = np.minimum.reduceat(np.where(known[items], age, np.inf), offsets[:-1])
        since = np.where(known[items], age - np.repeat(newest, examples.lengths), 0.0)
        weights = np.exp(-decay * since) * known[items]
    if event_weights is not None:
        weights *= np.asarray(event_weights, dtype=float)[examples.events[positions]]
    total = np.add.reduceat(weights, offsets[:-1])
    weights /= np.repeat(np.where(total > 0, total, 1.0), examples.lengths)
    matrix = sp.csr_matrix((weights.astype(np.float32), items, offsets), shape=(len(examples), n_products))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def user_embeddings(
    examples: Examples,
    vectors: np.ndarray,
    decay: float,
    decay_time: str = "days",
    known: np.ndarray | None = None,
    event_weights: Sequence[float] | None = None,
) -> np.ndarray:
    """Decayed weighted average of the products in each history (the array kernel of the formula above).

    Parameters
    ----------
    examples : Examples
    vectors : ndarray of float32, shape (n_products, dim)
    decay, decay_time, known, event_weights
        See `history_weights`.

    Returns
    -------
    ndarray of float32, shape (n, dim)
    """
    embeddings = np.empty((len(examples), vectors.shape[1]), dtype=np.float32)
    for first in range(0, len(examples), BLOCK):
        part = slice(first, first + BLOCK)
        weights = history_weights(examples[part], len(vectors), decay, decay_time, known, event_weights)
        embeddings[part] = weights @ vectors
    return embeddings


def relational(history: ibis.Table, embeddings: ibis.Table, dim: int, decay: float, decay_time: str = "days") -> ibis.Table:
    """The same formula as one relational expression, for engines that hold the log (DuckDB, Spark, BigQuery).

    Parameters
    ----------
    history : ibis.Table
        user_id, product_id, timestamp and position (the visit's number within the user), as `histories` gives them.
    embeddings : ibis.Table
        product_id, vector (array of `dim` floats).
    dim : int
        Length of the vectors.
    decay, decay_time
        See `history_weights`.

    Returns
    -------
    ibis.Table
        user_id, vector. Users none of whose products has an embedding are absent.
    """
    return averages(sums(weights(history, embeddings, decay, decay_time), embeddings, dim), dim)


def histories(sequences: ibis.Table) -> ibis.Table:
    """The visits before each user's last target, or all where there is none: user_id, product_id, timestamp, position."""
    last = sequences.filter(sequences.role == "target").group_by("user_id").agg(until=sequences.position.max())
    rows = sequences.left_join(last, "user_id")
    rows = rows.filter(rows.until.isnull() | (rows.position < rows.until))
    return rows.select("user_id", "product_id", "timestamp", "position")


def weights(history: ibis.Table, embeddings: ibis.Table, decay: float, decay_time: str = "days") -> ibis.Table:
    """exp(-d t) of each visit to a product with an embedding, up to a factor per user: user_id, product_id, weight."""
    _check_decay_time(decay_time)
    if decay < 0:
        raise ValueError(f"decay is {decay}; it must be 0 (the plain mean) or more.")
    # Milliseconds are what all engines can tell.
    at = history.timestamp.epoch_seconds().floor() + history.timestamp.millisecond() / 1000.0
    visits = history.select("user_id", "product_id", "position", day=at / 86_400.0)
    # Ages count from the user's newest visit of all; the softmax is shifted to the newest known one (see above).
    flagged = visits.left_join(embeddings.select("product_id", known=True), "product_id")
    known = flagged.known.notnull()
    ends = flagged.group_by("user_id").agg(
        newest=flagged.day.max(), known_day=flagged.day.max(where=known), known_position=flagged.position.max(where=known)
    )
    rows = flagged.filter(known).join(ends, "user_id")
    if decay_time == "rank":
        later = (rows.known_position - rows.position).cast("float64")
    elif decay_time == "days":
        later = rows.known_day - rows.day
    else:
        later = (rows.newest - rows.day + 1.0).ln() - (rows.newest - rows.known_day + 1.0).ln()
    return rows.select("user_id", "product_id", weight=(-decay * later).exp())


def sums(weights: ibis.Table, embeddings: ibis.Table, dim: int) -> ibis.Table:
    """Each user's weighted sum of vectors, a column per dimension, and of the weights: user_id, total, d0, d1, …

    Each term is rounded to a multiple of 2 ** -32, so that no sum below 2 ** 21 is rounded: it is the same to the bit in
    whatever order an engine adds.
    """

    def total(values: ibis.Column) -> ibis.Value:
        return (values + ROUNDING - ROUNDING).sum()

    # One column per dimension: ordered array aggregation is slower, and Spark has none in Ibis.
    columns = {f"v{i}": embeddings.vector[i].cast("float64") for i in range(dim)}
    rows = weights.join(embeddings.select("product_id", **columns), "product_id")
    return rows.group_by("user_id").agg(total=total(rows.weight), **{f"d{i}": total(rows.weight * rows[f"v{i}"]) for i in range(dim)})


def averages(sums: ibis.Table, dim: int) -> ibis.Table:
    """The sums of the vectors over the sum of the weights, packed: user_id, vector."""
    vector = ibis.array([(sums[f"d{i}"] / sums.total).cast("float32") for i in range(dim)])
    return sums.select("user_id", vector=vector)


def materialise(connection: ibis.BaseBackend, run_dir: str | Path, step: str) -> None:
    """Write one step of `relational` as a table, for a scheduler that shows and repeats the steps one by one.

    A table that the same stage already wrote is left alone (see `shelfspace.runs.once`).

    Parameters
    ----------
    connection : ibis.BaseBackend
        The engine; see `shelfspace.engines.connect`.
    run_dir : str or Path
        A run with sequences and, but for "histories", product embeddings and a decay.
    step : {"histories", "weights", "sums", "averages"}
        The first three go to the folder ``user_tables`` and read the one before; averages are ``user_embeddings.parquet``.
    """
    if step not in STEPS:
        raise ValueError(f"step is {step!r}; it must be one of {', '.join(STEPS)}.")
    run = Path(run_dir)
    files = {name: f"user_tables/{name}.parquet" for name in STEPS[:-1]}
    if step == "histories":
        query = histories(engines.read(connection, run / "sequences.parquet"))
        runs.once(run, files[step], lambda path: engines.write(query, path))
        return
    choice = runs.read_json(run / "decay.json")
    file = run / "product_embeddings" / f"{choice['embedding']}.parquet"
    vectors, dim = engines.read(connection, file), pq.read_schema(file).field("vector").type.list_size
    before = engines.read(connection, run / files[STEPS[STEPS.index(step) - 1]])
    if step == "weights":
        query = weights(before, vectors, choice["decay"], choice["decay_time"])
        runs.once(run, files[step], lambda path: engines.write(query, path))
    elif step == "sums":
        runs.once(run, files[step], lambda path: engines.write(sums(before, vectors, dim), path))
    else:
        query = averages(before, dim).order_by("user_id")
        runs.once(run, "user_embeddings.parquet", lambda path: write(query, path, dim))


def write(query: ibis.Table, path: str | Path, dim: int) -> None:
    """Run a query that gives user_id and vector, and write it in row groups as ``user_embeddings.parquet``, atomically.

    Parameters
    ----------
    query : ibis.Table
        As `relational` gives it.
    path : str or Path
    dim : int
        Length of the vectors; they are stored as fixed-size lists of float32.
    """
    schema = pa.schema([("user_id", pa.string()), ("vector", pa.list_(pa.float32(), dim))])
    engines.write(query, path, schema)


def _check_decay_time(decay_time: str) -> None:
    if decay_time not in DECAY_TIMES:
        raise ValueError(f"decay_time is {decay_time!r}; it must be one of {', '.join(DECAY_TIMES)}.")
