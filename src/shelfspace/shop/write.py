"""The simulated shop as files: its log as CSV, Parquet or JSON Lines, and the truth behind it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from shelfspace.files import run_files
from shelfspace.logs import engines
from shelfspace.shop import simulation, tables
from shelfspace.shop.simulation import Shop

OUTPUT = (
    *("user_id", "session_id", "timestamp", "event", "product_id", "query"),
    *("name", "category", "brand", "price", "description"),
)  # columns of a written log

_TIMES = "TIMESTAMPFORMAT '%Y-%m-%dT%H:%M:%S.%f'"
ENDINGS = {".csv": f"FORMAT csv, HEADER, {_TIMES}", ".parquet": "FORMAT parquet, COMPRESSION zstd", ".jsonl": f"FORMAT json, {_TIMES}"}
"""How DuckDB is to write a file, by the file's ending."""
BATCH = 122_880  # events written at a time: what DuckDB hands over at once


def write(shop: Shop, path: str | Path) -> Path:
    """Write the events, joined with the columns of their product, into one file by its ending.

    Columns are `OUTPUT`. The file appears whole or not at all: it is first written under a temporary name.

    Parameters
    ----------
    shop : Shop
    path : str or Path
        Ends in .csv, .parquet or .jsonl. Folders on the way are made.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If the ending is another one.
    """
    events = (shop.events.iloc[first : first + BATCH] for first in range(0, len(shop.events), BATCH))
    return _write(path, _joined(events, shop.products))


def _write(path: str | Path, batches: Iterator[pa.RecordBatch]) -> Path:
    path = check_ending(path)
    first = next(batches)
    with run_files.atomic(path) as temporary:
        connection = engines.connect()
        connection.con.register("log", pa.RecordBatchReader.from_batches(first.schema, itertools.chain([first], batches)))
        connection.con.execute(f"COPY log TO {engines.quoted(temporary)} ({ENDINGS[path.suffix]})")
    return path


def check_ending(path: str | Path) -> Path:
    """The path, if its ending is one of `ENDINGS`; a ValueError otherwise."""
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path.name} must end in one of {', '.join(ENDINGS)}; the ending chooses the format.")
    return path


def simulate(
    path: str | Path, users: int = 30_000, products: int = 3_000, days: int = 28, seed: int = 0,
    visits: float = simulation.VISITS_MEDIAN, truth: str | Path | None = None,
) -> int:  # fmt: skip
    """Simulate a shop of any size into a file: the same as `write` writes of `simulation.simulate`, in bounded memory.

    Users are simulated in blocks; DuckDB puts their events in order of time, on disk where they do not fit.

    Parameters
    ----------
    path, users, products, days, seed, visits
        See `write` and `simulation.simulate`.
    truth : str or Path, optional
        Folder to write the ground truth to; see `write_truth`.

    Returns
    -------
    int
        Number of events.
    """
    check_ending(path)
    catalogue, blocks = simulation.in_blocks(users, products, days, seed, visits)
    connection = engines.connect()
    con = connection.con
    con.execute("CREATE TABLE log (user INT, session BIGINT, time BIGINT, event TINYINT, product INT, query INT, row BIGINT)")
    traits: list[dict[str, np.ndarray]] = []
    sessions = rows = 0
    for log, of_users in blocks:
        table = pa.table(log | {"session": log["session"] + sessions, "row": np.arange(rows, rows + len(log["time"]))})
        con.register("block", table)
        con.execute("INSERT INTO log BY NAME SELECT * FROM block")
        con.unregister("block")
        sessions, rows = sessions + log["session"].max() + 1, rows + len(table)
        traits.append(of_users)
    # Sessions are numbered by their first event.
    con.execute(
        "CREATE TABLE numbers AS SELECT session, row_number() OVER (ORDER BY least) AS number FROM "
        "(SELECT session, min(time::HUGEINT * 1099511627776 + row) AS least FROM log GROUP BY session)"
    )
    batches = con.sql("SELECT log.*, number FROM log JOIN numbers USING (session) ORDER BY time, row").to_arrow_reader(BATCH)
    needed = ("user", "time", "event", "number", "product", "query")
    frames = ({name: batch[name].to_numpy() for name in needed} for batch in batches)
    truths = tables.truth(catalogue, {name: np.concatenate([t[name] for t in traits]) for name in traits[0]})
    ids = tables.ids(catalogue, users)
    _write(path, _joined((tables.columns(catalogue, log, ids) for log in frames), truths["products"]))
    if truth:
        _write_truth(truths, truth)
    return rows


def write_truth(shop: Shop, folder: str | Path) -> list[Path]:
    """Write the ground truth: truth_products, truth_users, truth_complements and truth_substitutes, all .parquet."""
    return _write_truth({name: getattr(shop, name) for name in ("products", "users", "complements", "substitutes")}, folder)


def _write_truth(tables: dict[str, pd.DataFrame], folder: str | Path) -> list[Path]:
    paths = []
    for name, frame in tables.items():
        path = Path(folder) / f"truth_{name}.parquet"
        with run_files.atomic(path) as temporary:
            pa.parquet.write_table(pa.Table.from_pandas(frame, preserve_index=False), temporary)
        paths.append(path)
    return paths


def _joined(events: Iterable[pd.DataFrame], products: pd.DataFrame) -> Iterator[pa.RecordBatch]:
    """Batches of events with their product columns; texts are dictionary-encoded."""
    of_product = {name: pa.array(products[name]) for name in OUTPUT if name not in OUTPUT[:6]}
    for part in events:
        code = part["product_id"].cat.codes.to_numpy(dtype=np.int32)
        index = pa.array(code, mask=code < 0)
        columns = {name: pa.Array.from_pandas(part[name]) for name in part.columns}
        for name, values in of_product.items():
            coded = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
            columns[name] = pa.DictionaryArray.from_arrays(index, values) if coded else values.take(index)
        yield pa.record_batch({name: columns[name] for name in OUTPUT})
