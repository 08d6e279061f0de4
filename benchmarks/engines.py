"""Sequences and user embeddings: our expressions on DuckDB beside the same by hand, in SQL, in polars and in numpy.

    python benchmarks/engines.py [--users 200000] [--products 30000] [--visits 18.6] [--repeats 3] [--spark]

From Parquet to Parquet, on a simulated log of about five million events with the default sizes. Every way has to give the
same rows (vectors to 1e-5), or the script stops. The lines take turns so that all meet the same load, and each shows its
fastest; processor seconds are of the same turn, of all threads. polars and Spark are measured where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shelfspace.logs import engines
from shelfspace.models import relational, users
from shelfspace.sequences import arrays, prepare
from shelfspace.shop import write
from shelfspace.vectors import embeddings

DIM, DECAY = 50, 0.3
SEQUENCES = """
WITH clicks AS (
  SELECT user_id, product_id, timestamp, event, session_id, row,
    lag(product_id) OVER w IS NOT DISTINCT FROM product_id AS again,
    lag(session_id) OVER w IS NOT DISTINCT FROM session_id AS same_session
  FROM '{log}' WHERE event <> 'search' WINDOW w AS (PARTITION BY user_id ORDER BY timestamp, row)
), numbered AS (
  SELECT *, (sum((NOT again)::int) OVER w)::int AS visit, (sum((NOT same_session)::int) OVER w)::int AS session
  FROM clicks WINDOW w AS (PARTITION BY user_id ORDER BY timestamp, row)
), visits AS (
  SELECT user_id, visit, min(product_id) AS product_id, min(timestamp) AS timestamp, min(session) AS session,
    max(CASE event WHEN 'view' THEN 0 WHEN 'add_to_cart' THEN 1 ELSE 2 END) AS level
  FROM numbered GROUP BY user_id, visit
), kept AS (
  SELECT user_id, max(visit) AS last, md5(user_id || '#0')[:8] AS digest
  FROM visits GROUP BY user_id HAVING count(DISTINCT product_id) >= 5
)
SELECT user_id, visit - 1 AS position, product_id, timestamp, ['view', 'add_to_cart', 'purchase'][level + 1] AS event, session,
  CASE WHEN visit = last THEN 'target' ELSE 'history' END AS role,
  CASE WHEN visit < last THEN 'train' WHEN digest < '4ccccccc' THEN 'test' WHEN digest < '66666666' THEN 'valid' ELSE 'train' END AS split
FROM visits JOIN kept USING (user_id) ORDER BY user_id, position
"""
EMBEDDINGS = f"""
WITH newest AS (SELECT user_id, max(epoch(timestamp)) AS newest FROM '{{history}}' GROUP BY user_id), weighed AS (
  SELECT user_id, vector, exp(-{DECAY} * (newest - epoch(timestamp)) / 86400) AS w
  FROM '{{history}}' JOIN '{{vectors}}' USING (product_id) JOIN newest USING (user_id)
), sums AS (SELECT user_id, sum(w) AS total, {", ".join(f"sum(w * vector[{i + 1}]) AS d{i}" for i in range(DIM))} FROM weighed GROUP BY user_id)
SELECT user_id, [{", ".join(f"(d{i} / total)::float" for i in range(DIM))}] AS vector FROM sums ORDER BY user_id
"""


def our_sequences(log: Path, out: Path, engine: str = "duckdb") -> None:
    table = engines.read(_connection(engine), log)
    engines.write(prepare.sequences(table), out)


def sql(text: str, out: Path) -> None:
    connection = engines.connect()
    connection.raw_sql(f"COPY ({text}) TO '{out}'")


def polars_sequences(log: Path, out: Path) -> None:
    import polars as pl

    columns = ["user_id", "product_id", "timestamp", "event", "session_id", "row"]
    clicks = pl.read_parquet(log, columns=columns).filter(pl.col("event") != "search").sort("user_id", "timestamp", "row")
    level = pl.col("event").replace_strict({"view": 0, "add_to_cart": 1, "purchase": 2}, return_dtype=pl.Int8)
    new_user = pl.col("user_id").ne_missing(pl.col("user_id").shift())
    clicks = clicks.with_columns(
        level=level,
        new_user=new_user,
        new_visit=new_user | pl.col("product_id").ne_missing(pl.col("product_id").shift()),
        new_session=new_user | pl.col("session_id").ne_missing(pl.col("session_id").shift()),
    ).with_columns(visit=pl.col("new_visit").cum_sum(), session=pl.col("new_session").cum_sum())
    visits = clicks.group_by("visit", maintain_order=True).agg(pl.first("user_id", "product_id", "timestamp", "session"), pl.max("level"))
    visits = visits.with_columns(
        position=pl.int_range(pl.len()).over("user_id").cast(pl.Int32),
        products=pl.n_unique("product_id").over("user_id"),
        last=pl.len().over("user_id") - 1,
        session=(pl.col("session") - pl.min("session").over("user_id") + 1).cast(pl.Int32),
    ).filter(pl.col("products") >= 5)
    ids = visits["user_id"].unique(maintain_order=True).to_list()
    digest = duckdb.sql("SELECT i AS user_id, md5(i || '#0')[:8] AS digest FROM (SELECT unnest($ids) AS i)", params={"ids": ids}).pl()
    visits = visits.join(digest, on="user_id", how="left", maintain_order="left")
    of_user = pl.when(pl.col("digest") < "4ccccccc").then(pl.lit("test")).when(pl.col("digest") < "66666666").then(pl.lit("valid"))
    is_target = pl.col("position") == pl.col("last")
    visits.select(
        "user_id", "position", "product_id", "timestamp",
        pl.col("level").replace_strict({0: "view", 1: "add_to_cart", 2: "purchase"}, return_dtype=pl.String).alias("event"), "session",
        pl.when(is_target).then(pl.lit("target")).otherwise(pl.lit("history")).alias("role"),
        pl.when(is_target).then(of_user.otherwise(pl.lit("train"))).otherwise(pl.lit("train")).alias("split"),
    ).write_parquet(out)  # fmt: skip


def our_embeddings(history: Path, vectors: Path, out: Path, engine: str = "duckdb") -> None:
    connection = _connection(engine)
    query = relational.relational(engines.read(connection, history), engines.read(connection, vectors), DIM, DECAY)
    relational.write(query.order_by("user_id"), out, DIM)


def numpy_embeddings(history: Path, vectors: Path, out: Path) -> None:
    """The array kernel that the recommender uses, on a sorted history."""
    made = embeddings.load(vectors)
    seen = arrays.latest(arrays.load(history), made.product_ids)
    averages = np.concatenate([
        users.user_embeddings(seen[first : first + 20_000], made.vectors, DECAY) for first in range(0, len(seen), 20_000)
    ])  # fmt: skip
    flat = pa.FixedSizeListArray.from_arrays(pa.array(averages.reshape(-1)), DIM)
    pq.write_table(pa.table({"user_id": pa.array(seen.user_ids.astype(object)), "vector": flat}), out)


_spark: list = []


def _connection(engine: str):
    if engine != "spark":
        return engines.connect(engine)
    if not _spark:
        _spark.append(engines.connect("spark"))
    return _spark[0]


def turns(tasks: dict[str, Callable[[Path], None]], folder: Path, repeats: int) -> dict[str, tuple[float, float]]:
    """Fastest seconds of each, and the processor seconds of that turn (this process only, so not Spark's)."""
    best: dict[str, tuple[float, float]] = {}
    for _ in range(repeats):
        for name, task in tasks.items():
            started, cpu = time.perf_counter(), time.process_time()
            task(folder / f"{name}.parquet")
            best[name] = min(best.get(name, (np.inf, np.inf)), (time.perf_counter() - started, time.process_time() - cpu))
    return best


def show(title: str, best: dict[str, tuple[float, float]]) -> None:
    print(f"\n| {title} | seconds | CPU s |\n| --- | ---: | ---: |")
    for name, (seconds, cpu) in best.items():
        print(f"| {name} | {seconds:.1f} | {'–' if 'Spark' in name else f'{cpu:.1f}'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind, default in (("users", int, 200_000), ("products", int, 30_000), ("visits", float, 18.6), ("repeats", int, 3)):
        parser.add_argument(f"--{name}", type=kind, default=default)
    parser.add_argument("--spark", action="store_true", help="local Spark, too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw, log, history, vectors = (folder / f"in-{part}.parquet" for part in ("raw", "log", "history", "vectors"))
        write.simulate(raw, given.users, given.products, visits=given.visits)
        columns = "user_id, product_id, timestamp, event, session_id::VARCHAR AS session_id, file_row_number AS row"
        sql(f"SELECT {columns} FROM read_parquet('{raw}', file_row_number = true)", log)
        raw.unlink()
        print(f"{pq.read_metadata(log).num_rows:,} events, {given.users:,} users, {given.products:,} products, d = {DIM}")

        tasks = {
            "ours on DuckDB": lambda out: our_sequences(log, out),
            "SQL by hand, on DuckDB": lambda out: sql(SEQUENCES.format(log=log), out),
        }
        if importlib.util.find_spec("polars"):
            tasks["polars by hand"] = lambda out: polars_sequences(log, out)
        if given.spark:
            tasks["ours on local Spark"] = lambda out: our_sequences(log, out, "spark")
        best = turns(tasks, folder, given.repeats)
        paths = [folder / f"{name}.parquet" for name in tasks]
        for path in paths[1:]:
            ways = (f"SELECT * FROM '{a}' EXCEPT ALL SELECT * FROM '{b}'" for a, b in ((paths[0], path), (path, paths[0])))
            if any(duckdb.sql(way).fetchall() for way in ways):
                raise SystemExit(f"{path.stem} gives other sequences.")
        show("sequences", best)

        text = f"SELECT user_id, product_id, timestamp, position, event, role, split FROM '{paths[0]}' WHERE role = 'history' ORDER BY user_id, position"
        sql(text, history)
        ids = np.array(sorted(row for (row,) in duckdb.sql(f"SELECT DISTINCT product_id FROM '{history}'").fetchall()))
        embeddings.Embeddings(ids, np.random.default_rng(0).normal(size=(len(ids), DIM)).astype(np.float32)).save(vectors)
        tasks = {
            "ours on DuckDB": lambda out: our_embeddings(history, vectors, out),
            "SQL by hand, on DuckDB": lambda out: sql(EMBEDDINGS.format(history=history, vectors=vectors), out),
            "array kernel, scipy": lambda out: numpy_embeddings(history, vectors, out),
        }
        if given.spark:
            tasks["ours on local Spark"] = lambda out: our_embeddings(history, vectors, out, "spark")
        best = turns(tasks, folder, given.repeats)
        found = [pq.read_table(folder / f"{name}.parquet", columns=["user_id", "vector"]) for name in tasks]
        for name, other in zip(tasks, found):
            one, two = (np.asarray(t["vector"].combine_chunks().flatten()) for t in (found[0], other))
            if not (other["user_id"].to_pylist() == found[0]["user_id"].to_pylist() and np.allclose(one, two, atol=1e-5)):
                raise SystemExit(f"{name} gives other user embeddings.")
        show(f"user embeddings of {pq.read_metadata(history).num_rows:,} visits", best)


if __name__ == "__main__":
    main()
