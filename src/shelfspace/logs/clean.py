"""From rows as text to canonical events: times, numbers and events in one notation, each row that will not do with its reason."""

import sys
from collections.abc import Mapping

import ibis

from shelfspace.logs.layouts import CANONICAL, EVENT_NAMES, UNUSED_EVENTS

MISSING = ("", "nan", "NaN", "NA", "N/A", "<NA>", "None", "none", "null", "NULL", "\\N")
FIRST, LAST = 788_918_400, 4_102_444_800  # 1995-01-01 and 2100-01-01 in seconds since 1970


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
    layout : an entry of `layouts.LAYOUTS`. Flags: `event` (what every row is), `event_codes` (number → event),
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
