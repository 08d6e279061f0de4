"""Engines: where the relational work runs - DuckDB on this machine, Spark, or BigQuery - and how tables get there.

Cleaning, visits, sequences, splits and user embeddings are Ibis expressions, one each, that know nothing of the engine.
This module opens a connection by name, moves Parquet in, and writes results out as one Parquet file.

Raw files (CSV, JSON Lines, Parquet in any layout) are always read and cleaned by DuckDB, which streams them; what goes to
another engine is the clean log. The workers of a Spark cluster read and write Parquet in the run folder and in TMPDIR, so
both must be on storage that they share with this machine. BigQuery uploads tables to a session's temporary dataset.
"""

from __future__ import annotations

import glob as globbing
import importlib.util
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import duckdb
import ibis
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.sql.compilers import BigQueryCompiler

from shelfspace.files import run_files

ENGINES = ("duckdb", "spark", "bigquery")
MEMORY = "1.5GB"  # that DuckDB takes before it spills to disk; Arrow, Python and the results come on top
ROWS = 100_000  # of a row group, and so of what is in memory while a result is written


def check(engine: str, url: str = "") -> None:
    """Refuse an engine that is unknown or that this machine lacks, in one sentence, before anything is opened.

    Parameters
    ----------
    engine : {"duckdb", "spark", "bigquery"}
    url : str
        See `connect`.

    Raises
    ------
    ValueError
        Naming what is allowed, or what to install.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; it must be one of {', '.join(ENGINES)}.")
    if engine == "duckdb" and url:
        raise ValueError(f"engine_url is {url!r}, but DuckDB runs on this machine and needs none; name an engine, too.")
    if engine == "spark":
        if importlib.util.find_spec("pyspark") is None:
            raise ValueError("The engine spark needs PySpark; install it with: pip install 'shelfspace[spark]'.")
        if not url.startswith("sc://") and not _java():
            raise ValueError("The engine spark needs Java 17 or later; install it, or say where it is in JAVA_HOME.")
    if engine == "bigquery":
        if not url.strip("/."):
            raise ValueError("The engine bigquery needs a project; give it as engine_url, as PROJECT or PROJECT/DATASET.")
        if importlib.util.find_spec("pydata_google_auth") is None:
            raise ValueError("The engine bigquery needs its driver; install it with: pip install 'ibis-framework[bigquery]'.")


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=os.path.join(home, "bin") if home else None)


def connect(engine: str = "duckdb", url: str = "") -> ibis.BaseBackend:
    """Open an engine.

    Parameters
    ----------
    engine : {"duckdb", "spark", "bigquery"}
    url : str
        Spark: its master, as ``spark://host:7077``, ``yarn`` or ``local[4]``; empty: all cores of this machine.
        BigQuery: PROJECT or PROJECT/DATASET. DuckDB: empty.

    Returns
    -------
    ibis.BaseBackend
        DuckDB's holds its tables in a temporary folder that goes with it, and spills there beyond `MEMORY`.

    Raises
    ------
    ValueError
        See `check`; or if the engine cannot be reached.
    """
    check(engine, url)
    return {"duckdb": _duckdb, "spark": _spark, "bigquery": _bigquery}[engine](url)


def _duckdb(url: str) -> ibis.BaseBackend:
    folder = tempfile.mkdtemp(prefix="shelfspace-")
    connection = ibis.duckdb.connect(
        os.path.join(folder, "events.duckdb"), preserve_insertion_order=True, memory_limit=MEMORY,
        temp_directory=os.path.join(folder, "tmp"),
    )  # fmt: skip
    with suppress(duckdb.InvalidInputException):  # in Jupyter it can be neither on nor turned off without its widgets
        connection.con.execute("SET enable_progress_bar = false")  # which in a forked kernel writes past it, into the terminal
    weakref.finalize(connection, _close, connection.con, folder)
    return connection


def _close(connection, folder: str) -> None:
    connection.close()
    shutil.rmtree(folder, ignore_errors=True)


def _spark(url: str) -> ibis.BaseBackend:
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    here = not url or url.startswith("local")
    settings = {"spark.sql.session.timeZone": "UTC", "spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false"}
    if here:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        cores = os.cpu_count() or 1
        settings |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
        settings |= {"spark.driver.memory": "2g", "spark.sql.shuffle.partitions": str(4 * cores)}
    builder = SparkSession.builder.appName("shelfspace")
    builder = builder.remote(url) if url.startswith("sc://") else builder.master(url or "local[*]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except (PySparkException, RuntimeError, OSError) as error:
        raise ValueError(f"Spark does not start at {url or 'local[*]'}: {_first_line(error)}.") from None
    except Exception as error:  # py4j's, which is there only with PySpark
        raise ValueError(f"Spark cannot be reached at {url or 'local[*]'}: {_first_line(error)}.") from None
    if not url.startswith("sc://"):
        session.sparkContext.setLogLevel("OFF")
    return ibis.pyspark.connect(session)


def _bigquery(url: str) -> ibis.BaseBackend:
    project, _, dataset = url.partition("/")
    try:
        return ibis.bigquery.connect(project_id=project, dataset_id=dataset, auth_local_webserver=False)
    except Exception as error:  # of Google's libraries, which are there only with the driver
        raise ValueError(f"BigQuery cannot be reached as {url}: {_first_line(error)}.") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def read(connection: ibis.BaseBackend, path: str | Path) -> ibis.Table:
    """A Parquet file as a table of an engine: the columns that are in the file, whatever NAME=VALUE or sign its path holds."""
    if connection.name == "duckdb":
        return connection.read_parquet(globbing.escape(os.path.abspath(path)), hive_partitioning=False)
    if connection.name == "pyspark":  # finds partitions only below the path that it is given, and this is a file
        return connection.read_parquet(re.sub(r"([\\*?\[\]{}])", r"\\\1", os.path.abspath(path)))
    schema = ibis.Schema.from_pyarrow(pq.read_schema(path))
    if any(kind.is_array() for kind in schema.values()):  # embeddings: BigQuery's loader would make records of lists
        return connection.create_table(ibis.util.gen_name("shelfspace"), ibis.memtable(pq.read_table(path)), temp=True)
    table = connection.read_parquet(str(path))
    # Its functions tell times with a zone from those without; all of ours are UTC.
    moments = [name for name, kind in table.schema().items() if kind.is_timestamp()]
    return table.mutate(**{name: table[name].cast("timestamp('UTC')") for name in moments})


def move(table: ibis.Table, connection: ibis.BaseBackend) -> ibis.Table:
    """A table of DuckDB as a table of the engine: itself where that is DuckDB, else through a Parquet file."""
    if connection.name == "duckdb":
        return table
    folder = tempfile.mkdtemp(prefix="shelfspace-")
    weakref.finalize(connection, shutil.rmtree, folder, True)
    path = Path(folder) / "table.parquet"
    table.to_parquet(path)
    return read(connection, path)


def write(query: ibis.Table, path: str | Path, schema: pa.Schema | None = None) -> None:
    """Run a query where its tables are, and write the rows in their order to one Parquet file, atomically.

    Never more than a row group of the result is in this machine's memory.

    Parameters
    ----------
    query : ibis.Table
        Its last step should be an order, so that one input gives the same bytes.
    path : str or Path
    schema : pyarrow.Schema, optional
        Types to write, where they are not the query's own.
    """
    connection = query.get_backend()
    if connection.name == "duckdb" and schema is None:
        with run_files.atomic(path) as temporary:
            connection._run_pre_execute_hooks(query)  # as Ibis's to_parquet, which quotes the path as Python does, not as SQL
            connection.raw_sql(f"COPY ({connection.compile(query)}) TO {quoted(temporary)} (FORMAT 'parquet')")
        return
    schema = schema or query.schema().to_pyarrow()
    with tempfile.TemporaryDirectory(prefix="shelfspace-") as folder, run_files.atomic(path) as temporary:
        with pq.ParquetWriter(temporary, schema) as writer:
            for batch in _batches(query, connection, Path(folder) / "parts"):
                columns = [batch[name].cast(kind) for name, kind in zip(schema.names, schema.types)]
                writer.write_batch(pa.record_batch(columns, schema=schema))


def _batches(query: ibis.Table, connection: ibis.BaseBackend, folder: Path) -> Iterator[pa.RecordBatch]:
    """The result in order, from DuckDB as it comes; Spark's by way of files, as Ibis would gather all of it in memory."""
    if connection.name == "duckdb":
        yield from connection.con.sql(connection.compile(query)).to_arrow_reader(ROWS)
    elif connection.name == "pyspark":
        query.to_parquet(folder)
        for part in sorted(folder.glob("part-*.parquet")):
            yield from pq.ParquetFile(part).iter_batches(ROWS)
    else:
        yield from query.to_pyarrow_batches(chunk_size=ROWS)


def quoted(text: object) -> str:
    """Text, such as a path, as a literal of SQL."""
    return "'" + str(text).replace("'", "''") + "'"


def sql(query: ibis.Table, engine: str) -> str:
    """The text that an engine is given for a query. For Spark, the query must be of a table on Spark.

    Raises
    ------
    ValueError
        If the engine is unknown.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; it must be one of {', '.join(ENGINES)}.")
    return str(ibis.to_sql(query, dialect={"spark": "pyspark"}.get(engine, engine)))


def _hex_digest(self, op, *, arg, how):
    """MD5 in hexadecimal digits, the one rule that Ibis lacks for BigQuery."""
    return self.f.to_hex(self.f[how](arg))


BigQueryCompiler.visit_HexDigest = _hex_digest
