"""The files of a log, opened in DuckDB as they stand: which there are, their encoding, their rows as text, and what breaks them."""

import codecs
import csv
import glob as globbing
import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import tempfile
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import ibis

from shelfspace.logs import engines, layouts, refuse
from shelfspace.logs.layouts import ENDINGS, LAYOUTS, REQUIRED


def fingerprint(data: str | Path | Sequence) -> str:
    """SHA-256 over the base names and the contents of the files of `data`, in the order they are read."""
    digest = hashlib.sha256()
    for path in files(data)[0]:
        with open(path, "rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Source:
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
    time_format: str = ""


def files(data) -> tuple[list[Path], str]:
    """The files of `data` in reading order, and their one kind."""
    fits = ".csv, .tsv, .csv.gz, .parquet, .jsonl, .ndjson, .json or .xlsx"
    one = isinstance(data, str | os.PathLike)
    files = [Path(data).expanduser()] if one else [Path(p).expanduser() for p in data]
    if not files:
        raise refuse.error(f"the list of files is empty; name at least one file ({fits})")
    folder = files[0]
    try:
        if one and folder.is_dir():
            inside = sorted(p for p in folder.iterdir() if not p.name.startswith((".", "_")))
            files = [p for p in inside if _kind(p)]
            if not files:
                only = f", only {', '.join(p.name for p in inside[:5])}" if inside else ""
                raise refuse.error(f"the folder {folder} holds no event log ({fits}){only}")
        elif one and not folder.exists() and globbing.has_magic(str(folder)):
            files = sorted(map(Path, globbing.glob(str(folder), recursive=True)))
            if not files:
                raise refuse.error(f"no file matches {folder}")
        for path in files:
            if not path.exists():
                near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
                raise refuse.error(f"the file {path} does not exist{refuse.closest(path.name, near)}")
            if not path.is_file() and not path.is_dir():
                raise refuse.error(f"{path} is a pipe or a device; a file would fit")
            if not path.is_file() or not _kind(path):
                sheet = path.suffix.lower() in (".xls", ".xlsb", ".ods")
                tip = "; save the sheet as .xlsx or CSV first" if sheet else ""
                raise refuse.error(f"{path} is not a kind of file that can be read{tip}; what fits ends in {fits}")
            if not os.access(path, os.R_OK):
                raise PermissionError
            if not path.stat().st_size:
                raise refuse.error(f"{path} is empty (0 bytes); a log with a header and rows would fit")
    except PermissionError:
        raise refuse.error(f"{data if one else path} may not be read: permission denied") from None
    kinds = {}
    for path in files:
        kinds.setdefault(_kind(path), path.name)
    if len(kinds) > 1:
        found = " and ".join(f"{kind} ({name})" for kind, name in kinds.items())
        raise refuse.error(
            f"{data if one else 'the list of files'} mixes {found}; name files of one kind, for example with a glob such as *.csv"
        )
    return list(dict.fromkeys(files)), next(iter(kinds))


def _kind(path: Path) -> str | None:
    return next((kind for ending, kind in ENDINGS.items() if path.name.lower().endswith(ending)), None)


def check_time_format(connection, time_format: str) -> None:
    """Refuse a form of times that DuckDB's strptime does not know, or that leaves the day open."""
    fits = re.search("%[yY]", time_format) and re.search("%[dj]", time_format) or re.search("%[cx]", time_format)
    try:
        connection.con.execute(f"SELECT try_strptime('', {engines.quoted(time_format)})")
    except duckdb.Error:
        fits = None
    if time_format and not fits:
        raise refuse.error(
            f"--time-format is {refuse.show(time_format)}; it must say the day, as %d.%m.%Y or '%m/%d/%Y %H:%M' do (the codes of strptime)"
        )


@contextmanager
def as_text(paths: Sequence[Path], kind: str) -> Iterator[tuple[list[Path], str]]:
    """Excel sheets as CSV files while the log is read, and whatever is wrong with these told of the sheets; other files as they are.

    Of a workbook, all sheets with the columns of its first one are read; an empty sheet and others are passed over.
    """
    if kind != "Excel":
        yield list(paths), kind
        return
    if importlib.util.find_spec("openpyxl") is None:
        raise refuse.error(
            f"{paths[0]} is an Excel sheet, which takes openpyxl; install it with: pip install 'shelfspace[excel]', or save it as CSV"
        )
    with tempfile.TemporaryDirectory(prefix="shelfspace-") as folder:
        made = {Path(folder) / f"{place}-{number}.csv": path for place, path in enumerate(paths) for number in _sheets(path, folder, place)}
        try:
            yield list(made), "CSV"
        except ValueError as error:
            told = str(error)
            for copy, path in made.items():
                told = told.replace(str(copy), str(path))
            raise refuse.error(told) from None


def _sheets(path: Path, folder: str, place: int) -> list[int]:
    """Write the sheets of a workbook as PLACE-NUMBER.csv; the numbers."""
    import openpyxl

    numbers, first = [], None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        for number, sheet in enumerate(book.worksheets):
            rows = sheet.iter_rows(values_only=True)
            head = next((row for row in rows if any(cell is not None for cell in row)), None)
            if head is None or head != (first := first or head):
                continue
            with open(Path(folder) / f"{place}-{number}.csv", "w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerow(head)
                csv.writer(file).writerows(row for row in rows if any(cell is not None for cell in row))
            numbers.append(number)
        book.close()
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, openpyxl.utils.exceptions.InvalidFileException):
        raise refuse.error(
            f"{path} cannot be read as an Excel sheet, it may be damaged or cut short; save it again as .xlsx or CSV"
        ) from None
    if not numbers:
        raise refuse.error(f"{path} is an Excel file without a cell; a sheet with a header and rows would fit")
    return numbers


def opened(connection, path: Path, kind: str, columns: Mapping[str, str], encoding: str | None, time_format: str = "") -> Source:
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
    layout, mapping = layouts.match(path, names, columns)
    for name in REQUIRED:
        found, fits = types[mapping[name]], _FIT["timestamp" if name == "timestamp" else "id"]
        if re.search(r"^(STRUCT|MAP|UNION)|\]$", found) or kind == "Parquet" and not re.match(fits[0], found):
            raise refuse.error(
                f"column {refuse.show(names[mapping[name]])} of {path}, taken for {name}, holds values of "
                f"the type {found[:60]}; {fits[1]} would fit"
            )
    return Source(path, kind, tuple(names), tuple(types), delimiter, encoding or "", header, layout, tuple(mapping.items()), time_format)


_RAW = "shelfspace_raw_"  # how the names of the views of raw rows begin
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
            raise refuse.error(f"{path} is not gzip although its name ends in .gz; a name without .gz may fit")
        try:
            with gzip.open(path) as file:
                start = file.read(65536)
        except (EOFError, OSError, zlib.error):
            raise refuse.error(f"{path} is cut short or damaged: its gzip data cannot be unpacked; fetch or write it again") from None
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
        raise refuse.error(f"{path} is cut short or damaged: a Parquet file ends in PAR1; fetch or write it again")
    if kind == "JSON Lines" and really == "JSON" and text[0] == "[":
        raise refuse.error(
            f"{path} is one JSON array; one object per line would fit (in pandas: to_json with orient='records', lines=True)"
        )
    if {"CSV": "text", "Parquet": "Parquet", "JSON Lines": "JSON"}[kind] != really:
        tip = {
            "Parquet": "the ending .parquet",
            "gzip": "the ending .gz",
            "JSON": "the ending .jsonl",
            "text": "the ending .csv for a table with a header",
        }.get(really, f"a {kind} file")
        raise refuse.error(f"{path} is not {kind} as its ending says but {really}; {tip} would fit")
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
            raise refuse.error(f"{path} is UTF-8 text with some broken bytes in it; write it again as UTF-8 throughout")
    return text, encoding


def raw_rows(connection, sources: Sequence[Source]) -> ibis.Table:
    """Files of the same columns as a view, which `forget_raw_rows` drops, of canonical names (text for CSV and JSON).

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
        types = ", ".join(f"{engines.quoted(c)}: 'VARCHAR'" for c in used)
        table = f"read_ndjson({files}, columns={{{types}}})"
    else:
        types = "session: 'VARCHAR', events: 'STRUCT(aid VARCHAR, ts VARCHAR, \"type\" VARCHAR)[]'"
        table = f"(SELECT session, unnest(events, recursive := true), shelfspace_file FROM read_ndjson({files}, columns={{{types}}}))"
    read_as = {c: ids[i] for c, i in first.mapping}
    if first.time_format and (first.kind != "Parquet" or first.types[dict(first.mapping)["timestamp"]] == "VARCHAR"):
        read_as["timestamp"] = _in_iso(read_as["timestamp"], first.time_format)
    selected = ", ".join(f'{read} AS "{c}"' for c, read in read_as.items())
    view = f"{_RAW}{uuid.uuid4().hex[:12]}"
    connection.raw_sql(f"CREATE TEMP VIEW {view} AS SELECT {selected}, shelfspace_file AS file FROM {table}")
    return connection.table(view)


def _in_iso(column: str, time_format: str) -> str:
    """SQL for a text column of times, those of the form written as ISO 8601; the others as they are, to be refused by what they say."""
    moment = f"try_strptime(trim({column}), {engines.quoted(time_format)})"
    if "%z" in time_format or "%Z" in time_format:
        moment = f"({moment} AT TIME ZONE 'UTC')"
    return f"coalesce(strftime({moment}, '%Y-%m-%d %H:%M:%S.%f'), {column})"


def forget_raw_rows(connection) -> None:
    """Drop the views that `raw_rows` made."""
    found = f"SELECT view_name FROM duckdb_views() WHERE starts_with(view_name, {engines.quoted(_RAW)})"
    for (view,) in connection.con.execute(found).fetchall():
        connection.raw_sql(f"DROP VIEW {view}")


def explain(error: str, path: Path, kind: str) -> ValueError:
    """DuckDB's message, of many lines, as one sentence."""
    line = int((re.search(r"(?:on Line:|in line) (\d+)", error) or [0, 0])[1])
    if fields := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", error):
        return refuse.error(
            f"line {line:,} of {path} has {fields[2]} fields where its header has {fields[1]}; "
            "fields that contain the separator must stand in double quotes"
        )
    if "unterminated quote" in error or re.search("max(imum|_)[ _]?line[ _]size", error, re.I):
        return refuse.error(
            f"a double quote that opens near line {line:,} of {path} is not closed; a quote inside a quoted field must be doubled"
        )
    if "latin-1 encoded" in error or "unicode" in error.lower():
        return refuse.error(f"{path} is neither UTF-8 nor Latin-1 text; save it as UTF-8")
    if "gzip" in error.lower():
        return refuse.error(f"{path} is cut short or damaged: its gzip data end too early; fetch or write it again")
    if kind == "JSON Lines" and "recursion depth" in error:
        return refuse.error(f"{path} has a line that is nested too deeply; flat objects would fit")
    if kind == "JSON Lines" and "duplicate key" in error:
        return refuse.error(f"line {line:,} of {path} has the same key twice; every key once would fit")
    if kind == "JSON Lines" and "JSON" in error:
        try:
            _find_bad_line(path, line - 2)
        except ValueError as found:
            return found
        return refuse.error(f"line {line:,} of {path} does not fit the other lines; objects with the same keys would fit")
    if re.search("No space left|max_temp_directory_size|Out of Memory", error):
        return refuse.error("there is no room for the temporary database; free some, or set TMPDIR to a larger disk")
    what = error.split("\n")[0].partition("Error: ")[2] or error.split("\n")[0]
    return refuse.error(f"{path} cannot be read as {kind}, it may be damaged or cut short ({what[:200]}); fetch or write it again")


def _find_bad_line(path: Path, first: int) -> None:
    """Refuse the first line from number `first` on that is no object (DuckDB tells the line only roughly)."""
    with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
        for number, text in enumerate(file, 1):
            if number < first or not text.strip():
                continue
            try:
                fits = isinstance(json.loads(text), dict)
                why = "" if fits else f"it is {refuse.show(text.decode('latin-1').strip())}"
            except ValueError as error:
                why = str(error).split(":")[0].lower()
            except RecursionError:
                why = "it is nested too deeply"
            if why:
                raise refuse.error(f"line {number:,} of {path} is not a JSON object ({why}); one whole object per line would fit")
            if number > max(first + 4, 100_000 * (first == 1)):
                break


def _literal(path: Path) -> str:
    return engines.quoted(globbing.escape(str(path)))
