"""User embeddings as a query: the same decayed average as `shelfspace.models.users`, on any engine, whole or a table at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from shelfspace.files import run_files
from shelfspace.logs import engines
from shelfspace.models import users

STEPS = ("histories", "weights", "sums", "averages")  # of the relational form
ROUNDING = 1.5 * 2.0**20  # x + ROUNDING - ROUNDING is x to the nearest multiple of 2 ** -32: doubles of that size are so far apart


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
        See `shelfspace.models.users.history_weights`.

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
    users.check_decay_time(decay_time)
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

    A table that was made of the same already is left alone (see `shelfspace.files.run_files.once`).

    Parameters
    ----------
    connection : ibis.BaseBackend
        The engine; see `shelfspace.logs.engines.connect`.
    run_dir : str or Path
        A run with sequences and, but for "histories", product embeddings and a decay.
    step : {"histories", "weights", "sums", "averages"}
        The first three go to the folder ``user_tables`` and read the one before; averages are ``user_embeddings.parquet``.
    """
    if step not in STEPS:
        raise ValueError(f"step is {step!r}; it must be one of {', '.join(STEPS)}.")
    run = Path(run_dir)
    given = inputs(run, None if step == "histories" else run_files.read_json(run / "decay.json"))
    name = "user_embeddings.parquet" if step == "averages" else f"user_tables/{step}.parquet"
    run_files.once(run, name, lambda path, **_: _write_step(connection, run, step, path), **given)


def inputs(run: Path, choice: Mapping | None) -> dict[str, object]:
    """What user embeddings depend on, for `run_files.once`: the choice of ``decay.json``, and hashes of the files that they are made of."""
    names = ["sequences.parquet", *([f"product_embeddings/{choice['embedding']}.parquet"] if choice else [])]
    chosen = {name: choice[name] for name in ("decay", "decay_time")} if choice else {}
    return chosen | {name: run_files.sha256_file(run / name) for name in names}


def _write_step(connection: ibis.BaseBackend, run: Path, step: str, path: Path) -> None:
    if step == "histories":
        engines.write(histories(engines.read(connection, run / "sequences.parquet")), path)
        return
    choice = run_files.read_json(run / "decay.json")
    file = run / "product_embeddings" / f"{choice['embedding']}.parquet"
    vectors, dim = engines.read(connection, file), pq.read_schema(file).field("vector").type.list_size
    before = engines.read(connection, run / "user_tables" / f"{STEPS[STEPS.index(step) - 1]}.parquet")
    if step == "weights":
        engines.write(weights(before, vectors, choice["decay"], choice["decay_time"]), path)
    elif step == "sums":
        engines.write(sums(before, vectors, dim), path)
    else:
        write(averages(before, dim).order_by("user_id"), path, dim)


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
