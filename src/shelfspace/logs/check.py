"""Whether a log that could be read can be used: enough rows whose time and event are known. If not, one sentence says why."""

import re
import shlex
from collections.abc import Sequence
from datetime import datetime

import ibis

from shelfspace.logs import clean, refuse
from shelfspace.logs.clean import FIRST, LAST
from shelfspace.logs.layouts import LAYOUTS, REQUIRED, SYNONYMS
from shelfspace.logs.sources import Source, raw_rows

MOSTLY, FEW = 0.5, 0.01  # refuse a log with a larger share of ids missing, of times unreadable


def rows_by_reason(stats: list[dict]) -> dict[str, int]:
    """Rows of all files by the reason for which they are dropped, None for those that stay."""
    rows = {}
    for s in stats:
        rows[s["reason"]] = rows.get(s["reason"], 0) + s["n"]
    return rows


def check(connection, sources: Sequence[Source], stats: list[dict], learn: bool = True) -> None:
    """Refuse a log that was read but cannot be used; one of a single product only where it is to `learn` from."""
    count, rows = rows_by_reason(stats), sum(s["n"] for s in stats)
    where = str(sources[0].path) + (f" and {len(sources) - 1} other files" if len(sources) > 1 else "")
    if not rows:
        raise refuse.error(f"{where} has columns but no rows; a log with events would fit")

    def examples(reason: str, column: str) -> tuple[str, str, list[str | None]]:
        """The column in the first file with that reason, its first three values with their rows, its first thousand values."""
        files = [s["file"] for s in stats if s["reason"] == reason]
        source = next(s for s in sources if str(s.path) in files)
        raw = raw_rows(connection, [source])
        bad = clean.clean(raw.mutate(line=ibis.row_number() + 1, value=raw[column].cast("string")), LAYOUTS.get(source.layout))
        bad = bad.filter(bad.reason == reason).order_by("line").limit(1000).select("value", "line")
        bad = bad.to_pyarrow().to_pylist()
        shown = ", ".join(f"{refuse.show(b['value'])} in row {b['line']:,}" for b in bad[:3])
        named = source.names[dict(source.mapping)[column]]
        place = f"column {refuse.show(named)} of {source.path}, taken for {column},"
        return place, f"first: {shown}", [b["value"] for b in bad]

    for column in (*REQUIRED, "event"):
        if (missing := count.get(f"no {column}", 0)) > MOSTLY * rows:
            place, first, _ = examples(f"no {column}", column)
            raise refuse.error(
                f"{place} is empty in {missing:,} of {rows:,} rows ({first}); at least half of the "
                f"rows with a value would fit, or another column with --columns {column}=COLUMN"
            )
    if count.get("unknown event"):
        place, _, _ = examples("unknown event", "event")
        raise refuse.error(
            f"{place} holds unknown event names: {_unknown(connection, sources)}; "
            f"{', '.join(SYNONYMS)} and their usual synonyms fit, and --columns event= reads every "
            "row as a view"
        )
    for reason, verb in (
        ("unreadable timestamp", "cannot be read as a time"),
        ("timestamp before 1995 or after 2100", "lie before 1995 or after 2100"),
    ):
        if (bad := count.get(reason, 0)) > FEW * rows:
            place, first, values = examples(reason, "timestamp")
            forms = " or ".join(f"--time-format {shlex.quote(form)}" for form in _forms(values))
            raise refuse.error(
                f"{place} has values that {verb}, {bad:,} of {rows:,} ({first}{_unit(values[0])}); "
                + (
                    f"{forms} would read them"
                    if forms
                    else "ISO text such as 2024-05-31 17:04:00 (UTC unless a zone is given) or "
                    "seconds, ms or µs since 1970 would fit, or say their form with --time-format"
                )
            )
    for column in ("user_id", "product_id"):
        if odd := sum(s[f"{column}_odd"] for s in stats):
            raise refuse.error(
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
            raise refuse.error(
                f"{column} holds only whole numbers in {numbers[0]} but only text in {texts[0]}, so "
                "that the files cannot be joined; the same kind of ids in all files would fit"
            )
    kept = [s for s in stats if s["reason"] is None]
    if not kept:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in count.items())
        raise refuse.error(f"none of the {rows:,} rows of {where} can be used ({reasons})")
    found = {s[c] for s in kept for c in ("low", "high")} - {None}
    if learn and len(found) < 2:
        what = f"one single product, {refuse.show(next(iter(found)))}" if found else "no product, only searches"
        raise refuse.error(
            f"the {sum(s['n'] for s in kept):,} events of {where} hold {what}; a log of many "
            "products would fit, or another column with --columns product_id=COLUMN"
        )


def _unknown(connection, sources: Sequence[Source]) -> str:
    """The unknown event names of all files with their counts, most frequent first."""
    parts = []
    for s in sources:
        if "event" in dict(s.mapping):
            raw = raw_rows(connection, [s])
            t = clean.clean(raw.mutate(value=raw.event.cast("string")), LAYOUTS.get(s.layout))
            parts.append(t.filter(t.reason == "unknown event").select("value"))
    t = ibis.union(*parts) if len(parts) > 1 else parts[0]
    found = t.group_by("value").agg(n=t.count()).order_by(ibis.desc("n"), "value").limit(9)
    names = [f"{refuse.show(f['value'])} ({f['n']:,})" for f in found.to_pyarrow().to_pylist()]
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


_DAYS = (
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%Y.%m.%d",
    "%d.%m.%y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%Y%m%d",
    "%d %b %Y",
    "%d-%b-%Y",
    "%b %d, %Y",
)
_TIMES = ("", " %H:%M", " %H:%M:%S", ", %H:%M", ", %H:%M:%S", "T%H:%M:%S", " %I:%M %p", " %I:%M:%S %p")


def _forms(values: Sequence[str | None]) -> list[str]:
    """The usual forms of times that all these values have; two where it is open whether the day or the month comes first."""

    def fits(form: str) -> bool:
        try:
            return all(1995 <= datetime.strptime(value.strip(), form).year < 2100 for value in values if value)
        except ValueError:
            return False

    return [day + time for day in _DAYS for time in _TIMES if fits(day + time)] if any(values) else []


def _unit(value: str | None) -> str:
    """A guess at what a number that is no epoch time counts."""
    if not re.fullmatch(r"\d+(\.\d*)?", value or ""):
        return ""
    if re.fullmatch(r"(199[5-9]|20\d\d)(0[1-9]|1[0-2])([0-2]\d|3[01])", value):
        return f", which looks like a date without signs: write it as {value[:4]}-{value[4:6]}-{value[6:]}"
    units = {"days": 86_400, "hours": 3_600, "minutes": 60}
    unit = next((u for u, seconds in units.items() if FIRST <= float(value) * seconds <= LAST), None)
    return f", which could be {unit} since 1970: multiply by {units[unit]:,}" if unit else ""
