"""Read a shop's event log - CSV, Parquet or JSON Lines, also the public logs - into one canonical table.

DuckDB reads the files at the edge, streaming, into a database file in a temporary folder, so that a log
larger than memory loads; `shelfspace.engines` moves the clean log on to another engine. `clean` itself is an
Ibis expression that runs on DuckDB and on Spark. Rows that cannot be used are dropped and counted; a log that
does not fit is refused with one sentence.
"""

import codecs
import csv
import difflib
import glob as globbing
import gzip
import hashlib
import io
import json
import os
import re
import sys
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import duckdb
import ibis

from shelfspace import engines, runs

_SYNONYMS = {
    "view": "view views viewed click clicks clicked detail detail_view pageview page_view product_view "
    "productview product_viewed view_item viewitem impression pv",
    "search": "search searches searched query search_query site_search product_search view_search_results",
    "add_to_cart": "add_to_cart addtocart add_cart added_to_cart cart carts cart_add add product_added basket add_to_basket addtobasket",
    "purchase": "purchase purchases purchased buy buys bought transaction transactions order orders ordered "
    "sale checkout_completed order_completed",
}
#: Event names as logs spell them (lower case, words joined by "_") → the four canonical names.
EVENT_NAMES = {name: event for event, names in _SYNONYMS.items() for name in names.split()}
#: Known events that say nothing on what a user wants: dropped and counted.
UNUSED_EVENTS = ("remove_from_cart", "removefromcart", "remove", "remove_from_basket", "refund", "return")
#: Usual column names, best first, in lower case without spaces and signs.
NAMES = {
    "user_id": "userid user visitorid visitor customerid customer clientid client shopperid memberid "
    "accountid uid fullvisitorid userpseudoid cookieid sessionid session usersession",
    "product_id": "productid itemid product item sku skuid stockcode productsku aid article articleid asin variantid goodsid iid pid",
    "timestamp": "timestamp eventtime eventtimestamp datetime timeunix unixtime unixtimestamp epoch time ts "
    "createdat occurredat invoicedate orderdate eventdate date day",
    "event": "event eventtype eventname type action behavior behaviour behaviortype behaviourtype",
    "session_id": "sessionid session usersession visitid",
    "name": "name title productname itemname producttitle itemtitle",
    "category": "category categoryname productcategory itemcategory categorycode categoryid",
    "brand": "brand brandname manufacturer vendor",
    "price": "price unitprice itemprice productprice",
    "description": "description productdescription itemdescription",
    "query": "query searchquery searchterm searchtext keywords",
}
REQUIRED = ("user_id", "product_id", "timestamp")
_RETAIL = dict(user_id="Customer ID", product_id="StockCode", timestamp="InvoiceDate", name="Description", quantity="Quantity")
_SESSION = dict(user_id="Session ID", session_id="Session ID", product_id="Item ID")
_DIGINETICA = _SESSION | dict(timestamp="eventdate", offset="timeframe")
#: The public logs. `columns`: canonical name → column in the file (case, spaces and "_" do not matter);
#: `others`: columns that the log may have besides (None: any); `event`: what every row is; `headerless`: the
#: columns of a file without header; `nested`: the columns of the JSON Lines file. `clean` explains the rest.
LAYOUTS = {
    "Online Retail": dict(columns=_RETAIL | dict(session_id="InvoiceNo", price="UnitPrice"), others=None, event="purchase", invoices=True),
    "Online Retail II": dict(columns=_RETAIL | dict(session_id="Invoice", price="Price"), others=None, event="purchase", invoices=True),
    "Retailrocket": dict(
        columns=dict(user_id="visitorid", product_id="itemid", timestamp="timestamp", event="event"), others=("transactionid",)
    ),
    "Retailrocket (subset)": dict(columns=dict(user_id="user", product_id="item", timestamp="time_unix", event="event")),
    "YOOCHOOSE clicks": dict(
        columns=_SESSION | dict(timestamp="Timestamp", category="Category"),
        headerless=("Session ID", "Timestamp", "Item ID", "Category"),
        no_category="0",
    ),
    "YOOCHOOSE buys": dict(
        columns=_SESSION | dict(timestamp="Timestamp", price="Price", quantity="Quantity"),
        headerless=("Session ID", "Timestamp", "Item ID", "Price", "Quantity"),
        event="purchase",
    ),
    "YOOCHOOSE (prepared)": dict(columns=_SESSION | dict(timestamp="Time"), others=("split",)),
    "Diginetica views": dict(columns=_DIGINETICA, others=("userId",)),
    "Diginetica purchases": dict(columns=_DIGINETICA, others=("userId", "ordernumber"), event="purchase"),
    "OTTO": dict(
        columns=dict(user_id="session", session_id="session", product_id="aid", timestamp="ts", event="type"),
        nested=("session", "events"),
        event_codes={"0": "view", "1": "add_to_cart", "2": "purchase"},
    ),
}
CANONICAL = ("user_id", "product_id", "timestamp", "event", "session_id", "name", "category", "brand", "price", "description", "query")
ENDINGS = {
    ".csv": "CSV",
    ".tsv": "CSV",
    ".dat": "CSV",
    ".csv.gz": "CSV",
    ".tsv.gz": "CSV",
    ".parquet": "Parquet",
    ".jsonl": "JSON Lines",
    ".ndjson": "JSON Lines",
    ".json": "JSON Lines",
    ".jsonl.gz": "JSON Lines",
}
MISSING = ("", "nan", "NaN", "NA", "N/A", "<NA>", "None", "none", "null", "NULL", "\\N")
FIRST, LAST = 788_918_400, 4_102_444_800  # 1995-01-01 and 2100-01-01 in seconds since 1970
MOSTLY, FEW = 0.5, 0.01  # refuse a log with a larger share of ids missing, of times unreadable
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


def read(data: str | Path | Sequence, columns: Mapping[str, str] | None = None, connection=None, expected: str = "") -> Events:
    """Read a log, clean it and check that it fits.

    Parameters
    ----------
    data : a file, a folder with files of one kind, a glob, or a list of files. Of rows that are the same
        event (user, product, time, event, session, query) in several files only those of the first file
        count, so that exports which overlap can be read together; repeats inside one file stay.
    columns : canonical name → column in the file; wins over what is recognised. An empty text leaves it out.
    connection : an Ibis DuckDB connection to put the table into instead of a database in a temporary folder.
    expected : the fingerprint that the files must have; see `announced`. Empty: any.

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
    paths, kind = _files(data)
    before = _state(paths)
    columns = dict(columns or {})
    for column in columns:
        if column not in NAMES:
            raise _error(f"--columns has no {_show(column)}{_closest(column, NAMES)}; it can set {', '.join(NAMES)}")
    connection = connection if connection is not None else engines.connect()
    name = f"events_{uuid.uuid4().hex[:12]}"
    try:
        sources = _load(connection, paths, kind, columns, name)
        far = _leave_out_far(connection, name)
        stats = _stats(connection.table(name))
        _check(connection, sources, stats)
        found = fingerprint(data)
        if _files(data)[0] != paths or _state(paths) != before or expected not in ("", found):
            raise _error(
                f"{data if isinstance(data, str | os.PathLike) else 'the list of files'} changed while it was "
                "read; wait until nothing writes to it, or read a copy"
            )
    except ValueError:
        connection.raw_sql(f"DROP TABLE IF EXISTS {name}")
        raise
    finally:
        _forget(connection)
    dropped = _count(stats)
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


def fingerprint(data: str | Path | Sequence) -> str:
    """SHA-256 over the base names and the contents of the files of `data`, in the order they are read."""
    digest = hashlib.sha256()
    for path in _files(data)[0]:
        with open(path, "rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def announced(run_dir: str | Path, data: str) -> str:
    """The fingerprint that the pipeline took of the log before it started the notebook; "" for a notebook run by
    hand, and for the simulated shop."""
    if data == "shop" or runs.KEY not in os.environ:
        return ""
    return runs.read_json(Path(run_dir) / "params.json")["input"]["fingerprint"]


def _state(paths: Sequence[Path]) -> list[tuple[int, int, int]]:
    """What changes when a file does."""
    return [(found.st_ino, found.st_size, found.st_mtime_ns) for found in map(os.stat, paths)]


def products(table: ibis.Table) -> ibis.Table:
    """One row per product by product_id: the product columns that the log has, and count (int64, its events).

    A product with several spellings of a name, category, brand or description, or several prices, gets the
    most frequent one, of equally frequent ones the first in the alphabet (the lowest price).
    """
    kept = [c for c in ("name", "category", "brand", "price", "description") if c in table.columns]
    # The events once; what follows is of the size of the catalogue.
    table = table.filter(table.product_id.notnull()).group_by("product_id", *kept).agg(events=lambda t: t.count())
    # DuckDB sums to 128 bits, which Ibis takes for 64 and so would not cast; whole numbers up to 2^53 are exact.
    result = table.group_by("product_id").agg(count=table.events.sum().cast("float64").cast("int64"))
    for column in kept:
        found = table.filter(table[column].notnull()).group_by("product_id", column)
        found = found.agg(n=table.events.sum())
        order = ibis.row_number().over(group_by="product_id", order_by=[ibis.desc("n"), found[column]])
        best = found.mutate(place=order).filter(lambda t: t.place == 0).select("product_id", column)
        result = result.left_join(best, "product_id").select(*result.columns, column)
    return result.select("product_id", *kept, "count").order_by("product_id")


def clean(raw: ibis.Table, layout: Mapping | None = None) -> ibis.Table:
    """Canonical columns, `reason`: why a row cannot be used, else null, and beside a price `price_lost`: whether
    the row has one that cannot be read. Runs on DuckDB and on Spark.

    Values may be text or typed. Epoch times are s, ms, µs or ns by their size. Ids lose outer spaces and a
    last ".0" (whole numbers that were written as floats), unless the number is so large that floats skip some.
    Prices may have a currency's sign or three capital letters, and separators where these have one meaning: 1,234.50
    is read, and 1,234 is not. Columns that are not canonical pass through.

    Parameters
    ----------
    raw : table with user_id, product_id, timestamp and any other canonical columns.
    layout : an entry of `LAYOUTS`. Flags: `event` (what every row is), `event_codes` (number → event),
        `invoices` (drop cancellations, returns, free lines and what is no product; read American dates),
        `no_category` (the value for none). A column `offset` holds milliseconds to add to the timestamp.
    """
    layout, t = layout or {}, raw
    exact = {c: 2**24 if raw[c].type().is_float32() else 2**53 for c in raw.columns}  # whole numbers up to here
    texts = [c for c in t.columns if c in CANONICAL and c not in ("timestamp", "price")]
    values = [c for c in ("timestamp", "price", "quantity", "offset") if c in t.columns]
    texts += [c for c in values if t[c].type().is_string()]
    # One step per mutate: DuckDB works an expression out each time it occurs, but a column once.
    t = t.mutate(**{c: t[c].cast("string").strip() for c in texts})
    missing = dict.fromkeys(MISSING, ibis.null("string"))
    t = t.mutate(**{c: t[c].substitute(missing, else_=t[c]) for c in texts})
    if "no_category" in layout:
        t = t.mutate(category=t.category.nullif(layout["no_category"]))
    named = t.event.lower().re_replace(r"[\s-]+", "_") if "event" in t.columns else ibis.literal("view")
    number, moment = _time(t, layout)
    t = t.mutate(
        **{
            c: ibis.ifelse(
                t[c].endswith(".0") & t[c].re_search(WHOLE_FLOAT) & (t[c].try_cast("float64").abs() < exact[c]),
                t[c].left(t[c].length() - 2),
                t[c],
            )
            for c in ("user_id", "product_id", "session_id", "category")
            if c in t.columns
        },
        **{c: _number(t[c]) for c in ("price", "quantity") if c in t.columns},
        **({"_price": t.price} if "price" in t.columns else {}),
        _named=ibis.literal(layout["event"]) if "event" in layout else named,
        _number=number,
        _moment=moment,
    )
    names = EVENT_NAMES | layout.get("event_codes", {})
    t = t.mutate(event=t._named.substitute(names, else_=ibis.null("string")), _micros=_micros(t._number))
    first, last = (ibis.literal(moment, "timestamp(6)") for moment in ("1995-01-01", "2100-01-01"))
    t = t.mutate(
        _given=t.timestamp.notnull(),
        timestamp=ibis.coalesce(
            ibis.literal("1970-01-01", "timestamp(6)") + t._micros.as_interval("us"),
            ibis.ifelse((t._moment >= first) & (t._moment < last), t._moment, ibis.null("timestamp(6)")),
        ),
    )
    cases = [
        (t.user_id.isnull(), "no user_id"),
        (t.product_id.isnull() & (t.event != "search"), "no product_id"),
        (~t._given, "no timestamp"),
        (t._number.isnull() & t._moment.isnull(), "unreadable timestamp"),
        (t.timestamp.isnull(), "timestamp before 1995 or after 2100"),
        (t._named.isnull(), "no event"),
        *((t._named == name, f"event {name}, which is not used") for name in UNUSED_EVENTS),
        (t.event.isnull(), "unknown event"),
    ]
    if layout.get("invoices"):
        cases += [
            (t.session_id.upper().startswith("C"), "cancelled invoice"),
            (t.quantity <= 0, "quantity of zero or less"),
            (t.price <= 0, "price of zero or less"),
            (~t.product_id.re_search(r"^\d{5}"), "not a product (postage, fees, vouchers, tests)"),
        ]
    t = t.mutate(reason=ibis.cases(*cases, else_=ibis.null("string")))
    if "price" in t.columns:
        given = t._price.notnull() & ~t._price.isnan() if t._price.type().is_floating() else t._price.notnull()
        t = t.mutate(price_lost=given & t.price.isnull())
    return t.drop(*(c for c in t.columns if c.startswith("_") or c in ("offset", "quantity")))


WHOLE_FLOAT = r"^-?\d+\.0$"
_SPACE = "['’\\s\u00a0\u202f]"
#: A number's separators, where they can mean one thing only: shape → the separators of thousands.
_GROUPED = {
    r"^-?\d+,\d{1,2}$": "",
    r"^-?\d{1,3}((,\d{3})+\.\d+|(,\d{3}){2,})$": ",",
    r"^-?\d{1,3}((\.\d{3})+,\d+|(\.\d{3}){2,})$": ".",
    rf"^-?\d{{1,3}}({_SPACE}\d{{3}})+([.,]\d{{1,2}})?$": _SPACE,
}
_CURRENCY = r"^([A-Z]{0,2}\p{Sc}|[A-Z]{3}\s)\s*|\s*(\p{Sc}|\s[A-Z]{3})$"


def _number(column: ibis.Value) -> ibis.Value:
    """A finite float64; of text also with a currency, and with a comma or groups of thousands as `_GROUPED` has it; else null."""
    if column.type().is_string():
        bare = column.re_replace(_CURRENCY, "")
        either = (bare != column) & bare.re_search(r"^-?\d{1,3}[.,]\d{3}$")  # "€ 1.234" may be 1.234 or 1234
        plain = [(either, ibis.null("string"))]
        plain += [
            (bare.re_search(shape), bare.re_replace(f"[{sign}]" if len(sign) == 1 else sign, "") if sign else bare)
            for shape, sign in _GROUPED.items()
        ]
        # The text as it stands first: few logs need more, and a regular expression takes longer.
        column = ibis.coalesce(
            column.try_cast("float64"),
            ibis.cases(*plain, (~bare.contains(","), bare), else_=ibis.null("string")).replace(",", ".").try_cast("float64"),
        )
    column = column.cast("float64")
    return ibis.ifelse(column.abs() <= sys.float_info.max, column, ibis.null("float64"))


def _time(t: ibis.Table, layout: Mapping) -> tuple[ibis.Value, ibis.Value]:
    """The time as a number (float64) and as a moment (UTC): one is null, both where it cannot be read."""
    column, number, moment = t.timestamp, ibis.null("float64"), ibis.null("timestamp(6)")
    if column.type().is_numeric():
        number = _number(column)
    elif column.type().is_string():
        # A failing cast is slow: try only what the signs in the text suggest.
        written = column.contains("-") | column.contains("/") | column.contains(":")
        number = ibis.ifelse(written, ibis.null("float64"), column.try_cast("float64"))
        if layout.get("invoices"):
            american = r"^(\d{1,2})/(\d{1,2})/(\d{4})\b(.*)"  # engines differ in how a replacement names its groups
            month, day, year, rest = (column.re_extract(american, group) for group in (1, 2, 3, 4))
            column = ibis.ifelse(column.re_search(american), year + "-" + month + "-" + day + rest, column)
        # With a zone: DuckDB's plain timestamp would silently ignore "+02:00".
        moment = ibis.ifelse(written, column, ibis.null("string")).try_cast("timestamp('UTC', 6)")
        moment = moment.cast("timestamp(6)")
    else:
        moment = column.cast("timestamp(6)")
    if "offset" in t.columns:
        moment = moment + _number(t.offset).fill_null(0).cast("int64").as_interval("ms")
    return number, moment


def _micros(number: ibis.Value) -> ibis.Value:
    """Number of s, ms, µs or ns since 1970 → µs; null where none of them lies between 1995 and 2100."""
    fits = [(number.between(FIRST * unit, LAST * unit), number * (1e6 / unit)) for unit in (1, 1e3, 1e6, 1e9)]
    return ibis.cases(*fits, else_=ibis.null("float64")).round().cast("int64")


# At the edge: the files and their columns


@dataclass(frozen=True)
class _Source:
    """One file: how DuckDB reads it, and which of its columns (`names`) is which canonical one."""

    path: Path | None
    kind: str
    names: tuple[str, ...]
    types: tuple[str, ...]
    delimiter: str
    encoding: str
    header: bool
    layout: str | None
    mapping: tuple[tuple[str, int], ...]


def _files(data) -> tuple[list[Path], str]:
    """The files of `data` in reading order, and their one kind."""
    fits = ".csv, .tsv, .csv.gz, .parquet, .jsonl, .ndjson or .json"
    one = isinstance(data, str | os.PathLike)
    files = [Path(data).expanduser()] if one else [Path(p).expanduser() for p in data]
    if not files:
        raise _error(f"the list of files is empty; name at least one file ({fits})")
    folder = files[0]
    try:
        if one and folder.is_dir():
            inside = sorted(p for p in folder.iterdir() if not p.name.startswith((".", "_")))
            files = [p for p in inside if _kind(p)]
            if not files:
                only = f", only {', '.join(p.name for p in inside[:5])}" if inside else ""
                raise _error(f"the folder {folder} holds no event log ({fits}){only}")
        elif one and not folder.exists() and globbing.has_magic(str(folder)):
            files = sorted(map(Path, globbing.glob(str(folder), recursive=True)))
            if not files:
                raise _error(f"no file matches {folder}")
        for path in files:
            if not path.exists():
                near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
                raise _error(f"the file {path} does not exist{_closest(path.name, near)}")
            if not path.is_file() and not path.is_dir():
                raise _error(f"{path} is a pipe or a device; a file would fit")
            if not path.is_file() or not _kind(path):
                sheet = path.suffix.lower() in (".xlsx", ".xls", ".ods")
                tip = "; save the sheet as CSV first" if sheet else ""
                raise _error(f"{path} is not a kind of file that can be read{tip}; what fits ends in {fits}")
            if not os.access(path, os.R_OK):
                raise PermissionError
            if not path.stat().st_size:
                raise _error(f"{path} is empty (0 bytes); a log with a header and rows would fit")
    except PermissionError:
        raise _error(f"{data if one else path} may not be read: permission denied") from None
    kinds = {}
    for path in files:
        kinds.setdefault(_kind(path), path.name)
    if len(kinds) > 1:
        found = " and ".join(f"{kind} ({name})" for kind, name in kinds.items())
        raise _error(f"{data if one else 'the list of files'} mixes {found}; name files of one kind, for example with a glob such as *.csv")
    return list(dict.fromkeys(files)), next(iter(kinds))


def _kind(path: Path) -> str | None:
    return next((kind for ending, kind in ENDINGS.items() if path.name.lower().endswith(ending)), None)


def _open(connection, path: Path, kind: str, columns: Mapping[str, str], encoding: str | None) -> _Source:
    """Look at the first bytes and the columns of a file; refuse what its ending does not promise."""
    start = _start(path, kind)
    delimiter, header = "", True
    if kind == "CSV":
        text, encoding = _decode(path, start, encoding)
        heads = [(next(csv.reader(io.StringIO(text, newline=""), delimiter=d), []), d) for d in ",;\t|"]
        names, delimiter = max(heads, key=lambda head: len(head[0]))
        for layout in LAYOUTS.values():
            if len(names) == len(layout.get("headerless", ())) and re.fullmatch(r"\d+,\d{4}-\d\d-\d\dT[\d:.]+Z,\d+,.*", ",".join(names)):
                names, header = layout["headerless"], False
        types = ["VARCHAR"] * len(names)
    else:
        function = "read_parquet" if kind == "Parquet" else "read_ndjson"
        query = f"DESCRIBE FROM {function}({_literal(path)}, {_OPTIONS[kind]})"
        names, types, *_ = zip(*connection.con.execute(query).fetchall(), strict=True)
        if names == ("json",):  # DuckDB's way to say that some lines are no objects
            _find_bad_line(path, 1)
        if kind == "JSON Lines" and set(names) == set(LAYOUTS["OTTO"]["nested"]):
            names, types, header = ("session", "aid", "ts", "type"), ["VARCHAR"] * 4, False
    layout, mapping = _match(path, names, columns)
    for name in REQUIRED:
        found, fits = types[mapping[name]], _FIT["timestamp" if name == "timestamp" else "id"]
        if re.search(r"^(STRUCT|MAP|UNION)|\]$", found) or kind == "Parquet" and not re.match(fits[0], found):
            raise _error(
                f"column {_show(names[mapping[name]])} of {path}, taken for {name}, holds values of "
                f"the type {found[:60]}; {fits[1]} would fit"
            )
    return _Source(path, kind, tuple(names), tuple(types), delimiter, encoding or "", header, layout, tuple(mapping.items()))


_NUMBERS = r'U?(TINY|SMALL|BIG|HUGE)?INT|DOUBLE|FLOAT|DECIMAL|VARCHAR|"?NULL'
_FIT = {
    "id": (f"{_NUMBERS}|UUID|ENUM", "a number or text"),
    "timestamp": (f"{_NUMBERS}|DATE|TIMESTAMP", "ISO text, a date or an epoch number"),
}
_OPTIONS = {
    "CSV": "hive_partitioning=false, auto_detect=false",
    "Parquet": "hive_partitioning=false, binary_as_string=true",
    "JSON Lines": "hive_partitioning=false, sample_size=100000",
}


def _start(path: Path, kind: str) -> bytes:
    """The first 64 kB of a file (unpacked), after checking that it is of its kind."""
    with open(path, "rb") as file:
        start = file.read(65536)
        file.seek(-min(4, path.stat().st_size), os.SEEK_END)
        end = file.read()
    if path.name.lower().endswith(".gz"):
        if start[:2] != b"\x1f\x8b":
            raise _error(f"{path} is not gzip although its name ends in .gz; a name without .gz may fit")
        try:
            with gzip.open(path) as file:
                start = file.read(65536)
        except (EOFError, OSError, zlib.error):
            raise _error(f"{path} is cut short or damaged: its gzip data cannot be unpacked; fetch or write it again") from None
    text = start.decode("latin-1").lstrip("ï»¿ \t\r\n")
    utf16 = start[:2] in (b"\xff\xfe", b"\xfe\xff")
    really = (
        "Parquet"
        if start[:4] == b"PAR1"
        else "gzip"
        if start[:2] == b"\x1f\x8b"
        else "a zip archive or Excel sheet"
        if start[:4] == b"PK\x03\x04"
        else "binary"
        if b"\0" in start and not utf16
        else "blank"
        if not text
        else "JSON"
        if text[0] in "{["
        else "text"
    )
    if kind == really == "Parquet" and end != b"PAR1":
        raise _error(f"{path} is cut short or damaged: a Parquet file ends in PAR1; fetch or write it again")
    if kind == "JSON Lines" and really == "JSON" and text[0] == "[":
        raise _error(f"{path} is one JSON array; one object per line would fit (in pandas: to_json with orient='records', lines=True)")
    if {"CSV": "text", "Parquet": "Parquet", "JSON Lines": "JSON"}[kind] != really:
        tip = {
            "Parquet": "the ending .parquet",
            "gzip": "the ending .gz",
            "JSON": "the ending .jsonl",
            "text": "the ending .csv for a table with a header",
        }.get(really, f"a {kind} file")
        raise _error(f"{path} is not {kind} as its ending says but {really}; {tip} would fit")
    return start


def _decode(path: Path, start: bytes, encoding: str | None) -> tuple[str, str]:
    """The first text of a CSV file and its encoding: UTF-8, UTF-16 with a mark, else Latin-1."""
    encoding = encoding or ("utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
    try:
        text = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)().decode(start)
    except UnicodeDecodeError:
        encoding, text = "latin-1", start.decode("latin-1")
    if encoding == "latin-1":
        signs = [c for c in start.decode("utf-8", "replace") if not c.isascii()]
        if signs.count("\ufffd") * 2 < len(signs):
            raise _error(f"{path} is UTF-8 text with some broken bytes in it; write it again as UTF-8 throughout")
    return text, encoding


def _match(path: Path, names: Sequence[str], columns: Mapping[str, str]) -> tuple[str | None, dict[str, int]]:
    """The public log with exactly these columns, if any, and canonical name → position of its column."""
    keys = [_key(name) for name in names]
    present = set(keys) - {"", "index", "unnamed0"}
    layout, wanted = None, {c: words.split() for c, words in NAMES.items()}
    for name, entry in LAYOUTS.items():
        needed, others = {_key(c) for c in entry["columns"].values()}, entry.get("others", ())
        if needed <= present and (others is None or present <= needed | {_key(c) for c in others}):
            layout, wanted = name, {c: [_key(column)] for c, column in entry["columns"].items()}
            break
    mapping = {}
    for canonical in wanted.keys() | columns.keys():
        if canonical in columns:
            column, tip = columns[canonical], ""
            found = [i for i, name in enumerate(names) if name == column] or [
                i for i, name in enumerate(names) if name.strip().lower() == column.strip().lower()
            ]
            if column and not found:
                raise _error(
                    f"{path} has no column {_show(column)}, which --columns names for {canonical}"
                    f"{_closest(column, names)}; its columns are {_list(names)}"
                )
        else:
            word = next((word for word in wanted[canonical] if word in keys), None)
            found = [i for i, key in enumerate(keys) if key == word]
            tip = f", or choose with --columns {canonical}=COLUMN"
        if len(found) > 1:
            raise _error(
                f"{path} has {len(found)} columns called {_show(names[found[0]])}, one of which "
                f"would be {canonical}; rename all but one{tip}"
            )
        if found and columns.get(canonical) != "":
            mapping[canonical] = found[0]
    if "name" not in mapping and "name" not in columns and "description" in mapping:
        mapping["name"] = mapping.pop("description")
    lacking = [c for c in REQUIRED if c not in mapping]
    if lacking and all(re.fullmatch(r"\d*", key) for key in keys):
        raise _error(f"{path} has no header: its first line is {_list(names)}; put column names in the first line")
    if lacking:
        raise _error(
            f"{path} has no column for {' and '.join(lacking)}: its columns are {_list(names)}; say "
            f"which is which with --columns {','.join(f'{c}=COLUMN' for c in lacking)}, or name "
            "only files of events"
        )
    if mapping["user_id"] == mapping["product_id"]:
        raise _error(f"column {_show(names[mapping['user_id']])} of {path} cannot be both user_id and product_id")
    order = (*CANONICAL, "offset", "quantity")
    return layout, dict(sorted(mapping.items(), key=lambda item: order.index(item[0])))


# At the edge: DuckDB


def _load(connection, paths: Sequence[Path], kind: str, columns: Mapping, name: str) -> list[_Source]:
    """Clean all files into the table `name`, in their order, with `reason` and `file` (the path)."""
    encodings = {}
    while True:
        try:
            sources = [_open(connection, path, kind, columns, encodings.get(path)) for path in paths]
            alike = {}
            for s in sources:
                alike.setdefault(replace(s, path=None), []).append(s)
            parts = [clean(_raw(connection, group), LAYOUTS.get(group[0].layout)) for group in alike.values()]
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
                raise _explain(message, path, kind) from None
            encodings[path] = "latin-1"


def _raw(connection, sources: Sequence[_Source]) -> ibis.Table:
    """Files of the same columns as a view, which `_forget` drops, of canonical names (text for CSV and JSON).

    `file` is the path. Names from files and paths occur in the SQL only quoted.
    """
    first = sources[0]
    files = ", ".join(_literal(s.path) for s in sources)
    files = f"[{files}], {_OPTIONS[first.kind]}, filename='shelfspace_file'"
    ids = [f"c{i}" if first.kind == "CSV" else '"' + name.replace('"', '""') + '"' for i, name in enumerate(first.names)]
    if first.kind == "CSV":
        types = ", ".join(f"{c}: 'VARCHAR'" for c in ids)
        table = (
            f"read_csv({files}, columns={{{types}}}, header={first.header}, delim='{first.delimiter}', "
            f"quote='\"', escape='\"', encoding='{first.encoding}')"
        )
    elif first.kind == "Parquet":
        table = f"read_parquet({files})"
    elif first.header:
        used = dict.fromkeys(first.names[i] for _, i in first.mapping)
        types = ", ".join(f"{_string(c)}: 'VARCHAR'" for c in used)
        table = f"read_ndjson({files}, columns={{{types}}})"
    else:
        types = "session: 'VARCHAR', events: 'STRUCT(aid VARCHAR, ts VARCHAR, \"type\" VARCHAR)[]'"
        table = f"(SELECT session, unnest(events, recursive := true), shelfspace_file FROM read_ndjson({files}, columns={{{types}}}))"
    selected = ", ".join(f'{ids[i]} AS "{c}"' for c, i in first.mapping)
    view = f"shelfspace_raw_{uuid.uuid4().hex[:12]}"
    connection.raw_sql(f"CREATE TEMP VIEW {view} AS SELECT {selected}, shelfspace_file AS file FROM {table}")
    return connection.table(view)


def _forget(connection) -> None:
    found = "SELECT view_name FROM duckdb_views() WHERE starts_with(view_name, 'shelfspace_raw_')"
    for (view,) in connection.con.execute(found).fetchall():
        connection.raw_sql(f"DROP VIEW {view}")


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
        connection.raw_sql(f"UPDATE {name} SET reason = {_string(FAR)} WHERE reason IS NULL AND ({outside})")
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


# Checks


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


def _count(stats: list[dict]) -> dict:
    count = {}
    for s in stats:
        count[s["reason"]] = count.get(s["reason"], 0) + s["n"]
    return count


def _check(connection, sources: Sequence[_Source], stats: list[dict]) -> None:
    """Refuse a log that was read but cannot be used."""
    count, rows = _count(stats), sum(s["n"] for s in stats)
    where = str(sources[0].path) + (f" and {len(sources) - 1} other files" if len(sources) > 1 else "")
    if not rows:
        raise _error(f"{where} has columns but no rows; a log with events would fit")

    def examples(reason: str, column: str) -> tuple[str, str, str]:
        """The column in the first file with that reason, its first values with their rows, the first one."""
        files = [s["file"] for s in stats if s["reason"] == reason]
        source = next(s for s in sources if str(s.path) in files)
        raw = _raw(connection, [source])
        bad = clean(raw.mutate(line=ibis.row_number() + 1, value=raw[column].cast("string")), LAYOUTS.get(source.layout))
        bad = bad.filter(bad.reason == reason).order_by("line").limit(3).select("value", "line")
        bad = bad.to_pyarrow().to_pylist()
        shown = ", ".join(f"{_show(b['value'])} in row {b['line']:,}" for b in bad)
        named = source.names[dict(source.mapping)[column]]
        place = f"column {_show(named)} of {source.path}, taken for {column},"
        return place, f"first: {shown}", bad[0]["value"]

    for column in (*REQUIRED, "event"):
        if (missing := count.get(f"no {column}", 0)) > MOSTLY * rows:
            place, first, _ = examples(f"no {column}", column)
            raise _error(
                f"{place} is empty in {missing:,} of {rows:,} rows ({first}); at least half of the "
                f"rows with a value would fit, or another column with --columns {column}=COLUMN"
            )
    if count.get("unknown event"):
        place, _, _ = examples("unknown event", "event")
        raise _error(
            f"{place} holds unknown event names: {_unknown(connection, sources)}; "
            f"{', '.join(_SYNONYMS)} and their usual synonyms fit, and --columns event= reads every "
            "row as a view"
        )
    for reason, verb in (
        ("unreadable timestamp", "cannot be read as a time"),
        ("timestamp before 1995 or after 2100", "lie before 1995 or after 2100"),
    ):
        if (bad := count.get(reason, 0)) > FEW * rows:
            place, first, value = examples(reason, "timestamp")
            raise _error(
                f"{place} has values that {verb}, {bad:,} of {rows:,} ({first}{_unit(value)}); ISO "
                "text such as 2024-05-31 17:04:00 (UTC unless a zone is given) or seconds, ms or µs "
                "since 1970 would fit"
            )
    for column in ("user_id", "product_id"):
        if odd := sum(s[f"{column}_odd"] for s in stats):
            raise _error(
                f"{where}: {odd:,} values of {column} were rounded to scientific notation or to floats that "
                "are too large to be exact, as 1.2E+05 or 9007199254740992.0, so that different ids became "
                "one; export the column as text or as whole numbers"
            )
        files = {}
        for s in stats:
            n, whole = files.get(s["file"], (0, 0))
            files[s["file"]] = n + s[column], whole + s[f"{column}_whole"]
        numbers = [file for file, (n, whole) in files.items() if whole == n > 0]
        texts = [file for file, (n, whole) in files.items() if n > whole == 0]
        if numbers and texts and len(numbers) + len(texts) == sum(n > 0 for n, _ in files.values()):
            raise _error(
                f"{column} holds only whole numbers in {numbers[0]} but only text in {texts[0]}, so "
                "that the files cannot be joined; the same kind of ids in all files would fit"
            )
    kept = [s for s in stats if s["reason"] is None]
    if not kept:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in count.items())
        raise _error(f"none of the {rows:,} rows of {where} can be used ({reasons})")
    found = {s[c] for s in kept for c in ("low", "high")} - {None}
    if len(found) < 2:
        what = f"one single product, {_show(next(iter(found)))}" if found else "no product, only searches"
        raise _error(
            f"the {sum(s['n'] for s in kept):,} events of {where} hold {what}; a log of many "
            "products would fit, or another column with --columns product_id=COLUMN"
        )


def _unknown(connection, sources: Sequence[_Source]) -> str:
    """The unknown event names of all files with their counts, most frequent first."""
    parts = []
    for s in sources:
        if "event" in dict(s.mapping):
            raw = _raw(connection, [s])
            t = clean(raw.mutate(value=raw.event.cast("string")), LAYOUTS.get(s.layout))
            parts.append(t.filter(t.reason == "unknown event").select("value"))
    t = ibis.union(*parts) if len(parts) > 1 else parts[0]
    found = t.group_by("value").agg(n=t.count()).order_by(ibis.desc("n"), "value").limit(9)
    names = [f"{_show(f['value'])} ({f['n']:,})" for f in found.to_pyarrow().to_pylist()]
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


def _unit(value: str | None) -> str:
    """A guess at what a number that is no epoch time counts."""
    if not re.fullmatch(r"\d+(\.\d*)?", value or ""):
        return ""
    if re.fullmatch(r"(199[5-9]|20\d\d)(0[1-9]|1[0-2])([0-2]\d|3[01])", value):
        return f", which looks like a date without signs: write it as {value[:4]}-{value[4:6]}-{value[6:]}"
    units = {"days": 86_400, "hours": 3_600, "minutes": 60}
    unit = next((u for u, seconds in units.items() if FIRST <= float(value) * seconds <= LAST), None)
    return f", which could be {unit} since 1970: multiply by {units[unit]:,}" if unit else ""


# Sentences


def _explain(error: str, path: Path, kind: str) -> ValueError:
    """DuckDB's message, of many lines, as one sentence."""
    line = int((re.search(r"(?:on Line:|in line) (\d+)", error) or [0, 0])[1])
    if fields := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", error):
        return _error(
            f"line {line:,} of {path} has {fields[2]} fields where its header has {fields[1]}; "
            "fields that contain the separator must stand in double quotes"
        )
    if "unterminated quote" in error or re.search("max(imum|_)[ _]?line[ _]size", error, re.I):
        return _error(
            f"a double quote that opens near line {line:,} of {path} is not closed; a quote inside a quoted field must be doubled"
        )
    if "latin-1 encoded" in error or "unicode" in error.lower():
        return _error(f"{path} is neither UTF-8 nor Latin-1 text; save it as UTF-8")
    if "gzip" in error.lower():
        return _error(f"{path} is cut short or damaged: its gzip data end too early; fetch or write it again")
    if kind == "JSON Lines" and "recursion depth" in error:
        return _error(f"{path} has a line that is nested too deeply; flat objects would fit")
    if kind == "JSON Lines" and "duplicate key" in error:
        return _error(f"line {line:,} of {path} has the same key twice; every key once would fit")
    if kind == "JSON Lines" and "JSON" in error:
        try:
            _find_bad_line(path, line - 2)
        except ValueError as found:
            return found
        return _error(f"line {line:,} of {path} does not fit the other lines; objects with the same keys would fit")
    if re.search("No space left|max_temp_directory_size|Out of Memory", error):
        return _error("there is no room for the temporary database; free some, or set TMPDIR to a larger disk")
    what = error.split("\n")[0].partition("Error: ")[2] or error.split("\n")[0]
    return _error(f"{path} cannot be read as {kind}, it may be damaged or cut short ({what[:200]}); fetch or write it again")


def _find_bad_line(path: Path, first: int) -> None:
    """Refuse the first line from number `first` on that is no object (DuckDB tells the line only roughly)."""
    with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
        for number, text in enumerate(file, 1):
            if number < first or not text.strip():
                continue
            try:
                fits = isinstance(json.loads(text), dict)
                why = "" if fits else f"it is {_show(text.decode('latin-1').strip())}"
            except ValueError as error:
                why = str(error).split(":")[0].lower()
            except RecursionError:
                why = "it is nested too deeply"
            if why:
                raise _error(f"line {number:,} of {path} is not a JSON object ({why}); one whole object per line would fit")
            if number > max(first + 4, 100_000 * (first == 1)):
                break


def _describe(source: _Source) -> str:
    text = source.layout or "columns " + ", ".join(f"{c}={source.names[i]}" for c, i in source.mapping)
    return text + (", read as Latin-1 text" if source.encoding == "latin-1" else "")


def _error(sentence: str) -> ValueError:
    """On one line, whatever names and values hold."""
    return ValueError(re.sub(r"\s+", " ", sentence))


def _show(value: object) -> str:
    text = str(value)
    return "nothing" if value is None else repr(text if len(text) <= 40 else text[:39] + "…")


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(str(n)[:40] for n in names[:20]) + more


def _closest(name: str, names) -> str:
    near = difflib.get_close_matches(name.lower(), [n.lower() for n in names], 1)
    return f" (is {_show(next(n for n in names if n.lower() == near[0]))} meant?)" if near else ""


def _key(name: str) -> str:
    return re.sub(r"[\W_]", "", str(name).lower())


def _string(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _literal(path: Path) -> str:
    return _string(globbing.escape(str(path)))
