"""Rows of a log as the histories that models take: read, cleaned and made visits as in the run that is to answer for them."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import ibis
import numba as nb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shelfspace.logs import engines, events
from shelfspace.sequences import arrays, prepare
from shelfspace.sequences.arrays import EVENT_LEVELS, Corpus, Examples

ROWS = 1_000_000  # visits in memory at once
ME = "me"  # the customer of a history that names none
DAY = 86_400_000_000  # microseconds


@contextmanager
def visits(
    data, columns: Mapping[str, str] | None = None, session_gap: float = 30.0, at: str | datetime = "", time_format: str = ""
) -> Iterator[Path]:
    """The visits that a log's rows make, as a Parquet file like ``sequences.parquet`` that goes with the context.

    Parameters
    ----------
    data : path, DataFrame, pyarrow.Table, or sequence of str
        A log as `shelfspace.logs.events.read` takes it, or as a table; or the ids of the products that one customer saw, oldest first.
    columns : mapping of canonical name to column, optional
        The log's own names.
    session_gap : float
        Minutes of silence that end a session where the log has none of its own.
    at : str or datetime
        Only rows up to then count (UTC); empty: all.
    time_format : str
        How times are written that are not ISO 8601.

    Yields
    ------
    Path
        user_id, position, product_id, timestamp, event, session, role ("history") and split ("test"), by user and position. A customer
        without a visit, who only searched, has one row without a product.

    Raises
    ------
    ValueError
        If the rows do not fit, saying what would.
    """
    with tempfile.TemporaryDirectory(prefix="shelfspace-") as folder:
        _write(data, dict(columns or {}), session_gap, at, time_format, Path(folder) / "visits.parquet")
        yield Path(folder) / "visits.parquet"


def _write(data, columns: dict[str, str], session_gap: float, at: str | datetime, time_format: str, path: Path) -> None:
    """Write `visits` to a file."""
    log = events.read(_file(data, path.parent), columns, learn=False, time_format=time_format)
    rows = log.table
    if at:
        moment = pd.Timestamp(at)
        rows = rows.filter(rows.timestamp <= ibis.timestamp(moment.tz_convert(None) if moment.tzinfo else moment))
    made = prepare.visits(rows, session_gap).drop(*EVENT_LEVELS)
    everybody = log.table.select("user_id").distinct()
    made = everybody.left_join(made, "user_id").select(*made.columns).mutate(role=ibis.literal("history"), split=ibis.literal("test"))
    engines.write(made.order_by("user_id", "position"), path)


def _file(data, folder: Path):
    """Where the rows lie: the path that was given, or a file that is written for a table."""
    if isinstance(data, str | os.PathLike):
        return data
    if not isinstance(data, pd.DataFrame | pa.Table):
        data = of_products(data)
    table = data if isinstance(data, pa.Table) else pa.Table.from_pandas(data, preserve_index=False)
    if not table.num_rows:
        raise ValueError("The table of histories has no rows; a row for each event of a customer would fit.")
    pq.write_table(table, folder / "rows.parquet")
    return folder / "rows.parquet"


def of_products(products: Sequence[str]) -> pd.DataFrame:
    """Rows of one customer who saw these products, oldest first, a minute apart and just now.

    Raises
    ------
    ValueError
        If there is none, or one is no text.
    """
    products = list(products)
    if not products or not all(isinstance(product, str) and product for product in products):
        raise ValueError(f"A history is a table of a log's rows, or the ids of one customer's products; it is {str(products)[:60]!r}.")
    now = pd.Timestamp(int(time.time()), unit="s")
    ago = pd.to_timedelta(np.arange(len(products))[::-1], unit="min")
    return pd.DataFrame({"user_id": ME, "product_id": products, "timestamp": now - ago})


def blocks(path: Path, rows: int = ROWS) -> Iterator[pa.Table]:
    """A file of `visits` in pieces of about so many rows, each of whole customers."""
    rest = None
    for batch in pq.ParquetFile(path, read_dictionary=["user_id", "product_id", "event"]).iter_batches(rows):
        table = pa.Table.from_batches([batch])
        table = pa.concat_tables([rest, table]) if rest is not None else table
        last = pc.index(table["user_id"].cast(pa.string()), table["user_id"][-1].as_py()).as_py()
        yield from [table.slice(0, last)] if last else []
        rest = table.slice(last)
    yield from [] if rest is None else [rest]


def examples(table: pa.Table, product_ids: np.ndarray) -> tuple[Examples, np.ndarray]:
    """The histories of a piece of `visits`, and the customers of whom no product is known.

    Parameters
    ----------
    table : pyarrow.Table
        From `blocks`.
    product_ids : ndarray of str, shape (n_products,)
        The product table of the run, sorted; visits to other products are passed over.

    Returns
    -------
    examples : Examples
        One for each customer, by user_id; nothing of them was counted (see `own`).
    strangers : ndarray of str
    """
    names = pc.unique(table["product_id"].cast(pa.string()))
    known = names.filter(pc.is_in(names, pa.array(product_ids.astype(object))))
    kept = table.filter(pc.and_(pc.is_valid(table["product_id"]), pc.is_in(table["product_id"].cast(pa.string()), known)))
    everybody = pc.unique(table["user_id"].cast(pa.string())).to_numpy(zero_copy_only=False).astype(str)
    if not kept.num_rows:
        return _nobody(), everybody
    found = arrays.latest(_encoded(kept), product_ids)
    return found, np.setdiff1d(everybody, found.user_ids)


def _encoded(table: pa.Table) -> pa.Table:
    """Ids and events dictionary-encoded, with nothing in the dictionaries that no row has."""
    for name in ("user_id", "product_id", "event"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].cast(pa.string()).dictionary_encode())
    return table


def _nobody() -> Examples:
    none = np.zeros(0, dtype=np.int64)
    return Examples(
        none.astype(np.int32), none.astype(float), none.astype(np.int8), none, none, none.astype(np.int32), none.astype(np.int8),
        none.astype(str),
    )  # fmt: skip


def of_events(products: np.ndarray, micros: np.ndarray, levels: np.ndarray, session_gap: float = 30.0, user_id: str = ME) -> Examples:
    """One customer's history from events on known products: `shelfspace.sequences.prepare.visits` on arrays, for a service that cannot wait.

    Parameters
    ----------
    products : ndarray of int32, shape (n,)
        Places in the product table, n at least 1.
    micros : ndarray of int64, shape (n,)
        Times in microseconds since 1970 (UTC).
    levels : ndarray of int8, shape (n,)
        Places of the events in `EVENT_LEVELS`.
    session_gap : float
        Minutes of silence that end a session.
    user_id : str
    """
    order = np.argsort(micros, kind="stable")
    products, micros, levels = products[order], micros[order], levels[order]
    silent = np.diff(micros) > int(session_gap * 60) * 1_000_000
    first = np.flatnonzero(np.append(True, silent | (np.diff(products) != 0)))
    items, strongest = products[first].astype(np.int32), np.maximum.reduceat(levels, first).astype(np.int8)
    start, end = np.array([0]), np.array([len(first)])
    return Examples(items, micros[first] / DAY, strongest, start, end, np.array([-1], np.int32), np.zeros(1, np.int8), np.array([user_id]))


def together(histories: Sequence[Examples]) -> Examples:
    """Several examples as one."""
    sizes = np.cumsum([0, *(len(each.items) for each in histories)])
    visit = (np.concatenate([getattr(each, name) for each in histories]) for name in ("items", "times", "events"))
    place = {
        name: np.concatenate([getattr(each, name) + size for each, size in zip(histories, sizes)]) for name in ("start", "end", "trained")
    }
    own = {name: np.concatenate([getattr(each, name) for each in histories]) for name in ("target", "target_event", "user_ids")}
    return Examples(*visit, **place, **own)


class Own:
    """The sequences that the run's models counted, by customer: whoever is asked for is scored without the own one, as in training."""

    def __init__(self, corpus: Corpus, product_ids: np.ndarray):
        self.corpus, self.items = corpus, corpus.places(product_ids).astype(np.int32)
        self.users = pd.Index(corpus.user_ids)

    def of(self, found: Examples) -> Examples:
        """The same histories, told which of their visits were counted (`Examples.trained`).

        A history that stands in the customer's counted sequence, from its first visit on, is known as the own one as far as the two
        agree; where it ends sooner, what was counted of the customer after it stands behind it.
        """
        row = self.users.get_indexer(found.user_ids)
        if not (row >= 0).any():
            return found
        agreed, rest = _agree(found.items, found.times, found.start, found.end, self.items, self.corpus.times, self.corpus.offsets, row)
        after = np.where(rest >= 0, self.corpus.offsets[row + 1] - rest, 0)
        lengths = found.lengths
        start = np.cumsum(np.append(0, lengths + after))[:-1]
        visits = {}
        positions, _ = found.flat()
        mine, theirs = _ranges(start, lengths), _ranges(start + lengths, after)
        behind = _ranges(rest, after)
        for name, counted in (("items", self.items), ("times", self.corpus.times), ("events", self.corpus.events)):
            values = np.empty(int((lengths + after).sum()), dtype=getattr(found, name).dtype)
            values[mine], values[theirs] = getattr(found, name)[positions], counted[behind]
            visits[name] = values
        return replace(found, **visits, start=start, end=start + lengths, trained=start + agreed + after)


def _ranges(start: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start[i], start[i] + 1, …, lengths[i] numbers for each i, one range after the other."""
    offsets = np.cumsum(np.append(0, lengths))
    return np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], lengths)


@nb.njit(nogil=True, cache=True)
def _agree(items, times, start, end, counted, counted_times, offsets, row):
    """How many visits each history shares with its own counted sequence, and where that goes on after a shorter history, else -1."""
    agreed, rest = np.zeros(len(row), np.int64), np.full(len(row), -1, np.int64)
    for i in range(len(row)):
        if row[i] < 0:
            continue
        at, last = offsets[row[i]], offsets[row[i] + 1]
        while at < last and (counted_times[at] != times[start[i]] or counted[at] != items[start[i]]):
            at += 1
        place = start[i]
        while at < last and place < end[i] and counted_times[at] == times[place] and counted[at] == items[place]:
            at, place = at + 1, place + 1
        agreed[i] = place - start[i]
        if place == end[i]:
            rest[i] = at
    return agreed, rest
