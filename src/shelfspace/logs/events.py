"""Read a shop's event log - CSV, Parquet, JSON Lines or Excel, also the public logs - into one canonical table.

DuckDB reads the files at the edge, streaming, into a database file in a temporary folder, so that a log
larger than memory loads; `shelfspace.logs.engines` moves the clean log on to another engine. `clean` itself is an
Ibis expression that runs on DuckDB and on Spark. Rows that cannot be used are dropped and counted; a log that
does not fit is refused with one sentence.
"""

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import duckdb
import ibis

from shelfspace.files import run_files
from shelfspace.logs import check, clean, engines, refuse
from shelfspace.logs.check import FEW
from shelfspace.logs.clean import WHOLE_FLOAT
from shelfspace.logs.layouts import CANONICAL, LAYOUTS, NAMES
from shelfspace.logs.sources import Source, as_text, check_time_format, explain, files, fingerprint, forget_raw_rows, opened, raw_rows

FAR = "timestamp years away from the rest of the log"
UNREAD_PRICE = "price that cannot be read"


@dataclass(frozen=True)
class Events:
    """A log in canonical form.

    Attributes
    ----------
    table : ibis.Table
        user_id, product_id (null only for searches), timestamp (UTC without zone, microseconds), event, those
        of session_id, name, category, brand, price, description, query that the log has, and row (int64, the
        order in the files, with gaps where rows were dropped).
    dropped : reason → number of rows, most rows first.
    noted : what is odd → number of rows that were kept all the same: those whose price cannot be read, which have
        none, and those with a time years away from the others', where they are more than a few.
    rows : rows read, before any was dropped: those of `table` and of `dropped`.
    layout : what was recognised: a public log's name, or which column was taken for what.
    fingerprint : see `fingerprint`.
    connection : the Ibis DuckDB backend that holds the table. A temporary database of our own is deleted with
        the last reference to it, or at exit.
    """

    table: ibis.Table
    dropped: dict[str, int]
    rows: int
    layout: str
    fingerprint: str
    connection: object
    noted: dict[str, int] = field(default_factory=dict)


def read(
    data: str | Path | Sequence,
    columns: Mapping[str, str] | None = None,
    connection=None,
    expected: str = "",
    learn: bool = True,
    time_format: str = "",
) -> Events:
    """Read a log, clean it and check that it fits.

    Parameters
    ----------
    data : a file, a folder with files of one kind, a glob, or a list of files. Of rows that are the same
        event (user, product, time, event, session, query) in several files only those of the first file
        count, so that exports which overlap can be read together; repeats inside one file stay.
    columns : canonical name → column in the file; wins over what is recognised. An empty text leaves it out.
    connection : an Ibis DuckDB connection to put the table into instead of a database in a temporary folder.
    expected : the fingerprint that the files must have; see `announced`. Empty: any.
    learn : whether something is to be learned from the log, which takes more than a single product.
    time_format : how times are written that are not ISO 8601, in the codes of strptime: "%d.%m.%Y %H:%M".

    Raises
    ------
    ValueError
        One sentence on what does not fit, where, and what would. Among others: more than half of the ids or
        times missing, more than 1 % of the times unreadable (below that, such rows are dropped and counted),
        any unknown event name, ids that were rounded, a single product, files that changed meanwhile.

    Notes
    -----
    One event of 2099 would move the end of the log, and with it `last_days` and the test period. Of a log of more
    than a year, times further from its middle half than a year and ten times the length of that half are far away.
    If they are at most 1 % of the rows, or one row, they are dropped and counted, else counted alone.
    """
    paths, kind = files(data)
    before = _state(paths)
    columns = dict(columns or {})
    for column in columns:
        if column not in NAMES:
            raise refuse.error(f"--columns has no {refuse.show(column)}{refuse.closest(column, NAMES)}; it can set {', '.join(NAMES)}")
    connection = connection if connection is not None else engines.connect()
    name = f"events_{uuid.uuid4().hex[:12]}"
    try:
        check_time_format(connection, time_format)
        with as_text(paths, kind) as (texts, kind):
            sources = _load(connection, texts, kind, columns, name, time_format)
            far = _leave_out_far(connection, name)
            stats = _stats(connection.table(name))
            check.check(connection, sources, stats, learn)
        found = fingerprint(data)
        if files(data)[0] != paths or _state(paths) != before or expected not in ("", found):
            raise refuse.error(
                f"{data if isinstance(data, str | os.PathLike) else 'the list of files'} changed while it was "
                "read; wait until nothing writes to it, or read a copy"
            )
    except ValueError:
        connection.raw_sql(f"DROP TABLE IF EXISTS {name}")
        raise
    finally:
        forget_raw_rows(connection)
    dropped = check.rows_by_reason(stats)
    kept = dropped.pop(None)
    table = connection.table(name)
    table = table.mutate(row=table.rowid()).filter(table.reason.isnull())
    if overlap := _overlap([s for s in stats if s["reason"] is None]):
        table = _once(connection, table, overlap, name)
        if repeated := kept - int(table.count().execute()):
            dropped["the same event in an earlier file"] = repeated
    lost = table.price_lost.sum().execute() if "price_lost" in table.columns else 0
    noted = {UNREAD_PRICE: int(lost), FAR: far}
    return Events(
        table=table.drop("reason", "file", *(c for c in ("price_lost",) if c in table.columns)),
        dropped=dict(sorted(dropped.items(), key=lambda item: (-item[1], item[0]))),
        rows=sum(s["n"] for s in stats),
        layout=" + ".join(dict.fromkeys(_describe(s) for s in sources)),
        fingerprint=found,
        connection=connection,
        noted={what: n for what, n in noted.items() if n},
    )


def announced(run_dir: str | Path, data: str) -> str:
    """The fingerprint that the pipeline took of the log before it started the notebook; "" for a notebook run by
    hand, and for the simulated shop."""
    if data == "shop" or run_files.CODE not in os.environ:
        return ""
    return run_files.read_json(Path(run_dir) / "params.json")["input"]["fingerprint"]


def _state(paths: Sequence[Path]) -> list[tuple[int, int, int]]:
    """What changes when a file does."""
    return [(found.st_ino, found.st_size, found.st_mtime_ns) for found in map(os.stat, paths)]


def _load(connection, paths: Sequence[Path], kind: str, columns: Mapping, name: str, time_format: str) -> list[Source]:
    """Clean all files into the table `name`, in their order, with `reason` and `file` (the path)."""
    encodings = {}
    while True:
        try:
            sources = [opened(connection, path, kind, columns, encodings.get(path), time_format) for path in paths]
            alike = {}
            for s in sources:
                alike.setdefault(replace(s, path=None), []).append(s)
            parts = [clean.clean(raw_rows(connection, group), LAYOUTS.get(group[0].layout)) for group in alike.values()]
            used = [c for c in CANONICAL if any(c in part.columns for part in parts)]
            nulls = {c: ibis.null("float64" if c == "price" else "string") for c in used}
            if "price" in used:
                used.append("price_lost")
                nulls["price_lost"] = ibis.literal(False)
            parts = [part.mutate(**{c: nulls[c] for c in used if c not in part.columns}) for part in parts]
            parts = [part.select("reason", "file", *used) for part in parts]
            sql = connection.compile(ibis.union(*parts) if len(parts) > 1 else parts[0])
            connection.raw_sql(f"CREATE OR REPLACE TABLE {name} AS {sql}")
            return sources
        except duckdb.InterruptException:
            raise KeyboardInterrupt from None
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
            raise  # our mistake, not the file's
        except duckdb.Error as error:
            message = str(error)
            # The longest of the paths in it: one may be a part of another.
            path = max(paths, key=lambda path, text=message: len(str(path)) * (str(path) in text))
            if "not utf-8 encoded" not in message or path in encodings:
                raise explain(message, path, kind) from None
            encodings[path] = "latin-1"


def _leave_out_far(connection, name: str) -> int:
    """Mark rows with times `FAR` from the rest; or only count them, where they are more than a few. See `read`."""
    table = connection.table(name)
    kept = table.filter(table.reason.isnull())
    first, last = kept.agg(first=kept.timestamp.min(), last=kept.timestamp.max()).to_pyarrow().to_pylist()[0].values()
    year = timedelta(days=365)
    if first is None or last - first <= year:
        return 0
    days = kept.group_by(day=kept.timestamp.date()).agg(n=kept.count()).order_by("day").to_pyarrow().to_pylist()
    rows, so_far, quarters = sum(d["n"] for d in days), 0, []
    for d in days:
        so_far += d["n"]
        quarters += [d["day"]] * (sum(so_far * 4 > rows * q for q in (1, 3)) - len(quarters))
    margin = min(year + 10 * (quarters[1] - quarters[0]), timedelta(days=36_500))
    low, high = quarters[0] - margin, quarters[1] + margin
    far = sum(d["n"] for d in days if not low <= d["day"] <= high)
    if far > max(1, FEW * rows):
        return far
    if far:
        outside = f"timestamp < DATE '{low}' OR timestamp >= DATE '{high + timedelta(days=1)}'"
        connection.raw_sql(f"UPDATE {name} SET reason = {engines.quoted(FAR)} WHERE reason IS NULL AND ({outside})")
    return 0


def _overlap(kept: list[dict]) -> list[tuple]:
    """The stretches of time that more than one file covers (a repeated event has the same time in both)."""
    stretches, end = [], None
    for s in sorted(kept, key=lambda s: (s["start"], s["end"])):
        if end is not None and s["start"] <= end:
            if stretches and s["start"] <= stretches[-1][1]:
                stretches[-1] = stretches[-1][0], max(stretches[-1][1], min(end, s["end"]))
            else:
                stretches.append((s["start"], min(end, s["end"])))
        end = s["end"] if end is None else max(end, s["end"])
    return stretches


def _once(connection, table: ibis.Table, overlap: list[tuple], name: str) -> ibis.Table:
    """Without the events in `overlap` that an earlier file holds too; what lies outside is not compared."""
    keys = ("user_id", "product_id", "timestamp", "event", "session_id", "query")
    keys = [c for c in keys if c in table.columns]
    t = table.filter(ibis.or_(*(table.timestamp.between(start, end) for start, end in overlap)))
    t = t.select("row", "file", **{c: t[c] if c == "timestamp" else t[c].fill_null("") for c in keys})
    # Rows count up in the order of the files: an event's lowest row stands in the earliest file that has it.
    groups = t.group_by(keys).agg(first=t.file.argmin(t.row), files=t.file.nunique())
    repeats = t.inner_join(groups.filter(groups.files > 1), keys)
    kept = table.anti_join(repeats.filter(repeats.file != repeats.first), "row").order_by("row")
    connection.raw_sql(f"CREATE TABLE {name}_once AS {connection.compile(kept)}")
    connection.raw_sql(f"DROP TABLE {name}")
    return connection.table(f"{name}_once")


def _stats(table: ibis.Table) -> list[dict]:
    """Per file and reason: rows, first and last time, two product ids, how many ids are whole or odd."""
    users, items = table.user_id, table.product_id
    whole, odd = r"^-?\d+$", r"^-?\d(\.\d+)?[eE]\+\d+$"
    groups = table.group_by("file", "reason").agg(
        n=table.count(),
        start=table.timestamp.min(),
        end=table.timestamp.max(),
        low=items.min(),
        high=items.max(),
        user_id=users.count(),
        user_id_whole=users.re_search(whole).sum().fill_null(0),
        product_id=items.count(),
        product_id_whole=items.re_search(whole).sum().fill_null(0),
        **{
            f"{c}_odd": (table[c].contains("+") & table[c].re_search(odd) | table[c].endswith(".0") & table[c].re_search(WHOLE_FLOAT))
            .sum()
            .fill_null(0)
            for c in ("user_id", "product_id")
        },
    )
    return groups.order_by("file", "reason").to_pyarrow().to_pylist()


def _describe(source: Source) -> str:
    text = source.layout or "columns " + ", ".join(f"{c}={source.names[i]}" for c, i in source.mapping)
    return text + (", read as Latin-1 text" if source.encoding == "latin-1" else "")
