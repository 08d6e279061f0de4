"""Engines: the same expressions on DuckDB, on Spark, and as BigQuery's SQL; and one sentence where an engine is missing."""

from __future__ import annotations

import os

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot

from shelfspace.logs import clean, engines, layouts
from shelfspace.models import relational, users
from shelfspace.sequences import arrays, prepare

DIM = 4
LOG = {"user_id": "string", "product_id": "string", "timestamp": "timestamp('UTC')", "event": "string", "row": "int64"}


@pytest.fixture(scope="session")
def spark():
    """Local Spark, set for small tables."""
    os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")  # Java's quick compiler
    try:
        connection = engines.connect("spark", "local[2]")
    except ValueError as missing:
        pytest.skip(str(missing))
    for setting in ("shuffle.partitions = 1", "codegen.wholeStage = false", "codegen.factoryMode = NO_CODEGEN", "adaptive.enabled = false"):
        connection.raw_sql(f"SET spark.sql.{setting}")
    yield connection
    connection.disconnect()


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """Parquet files of a log with times to the microsecond, of histories, and of embeddings; their folder."""
    folder, rng, n = tmp_path_factory.mktemp("tables"), np.random.default_rng(0), 1500
    log = pd.DataFrame({
        "user_id": [f"ü{u:03d}" for u in rng.integers(120, size=n)],
        "product_id": [f"p{p:02d}" for p in rng.integers(30, size=n)],
        "timestamp": pd.Timestamp("2024-03-04") + pd.to_timedelta(rng.integers(20 * 86_400_000_000, size=n), unit="us"),
        "event": np.array(["search", *arrays.EVENT_LEVELS])[rng.choice(4, p=[0.05, 0.75, 0.15, 0.05], size=n)],
        "name": np.array(["lamp", "Lamp", None])[rng.integers(3, size=n)], "price": rng.choice([1.5, 2.0, np.nan], size=n),
        "row": np.arange(n),
    })  # fmt: skip
    log.loc[log.event == "search", "product_id"] = None
    log.loc[::7, "timestamp"] = log.timestamp[::7].dt.floor("D")  # several events at one time: the file's order counts
    log.to_parquet(folder / "log.parquet", index=False)
    visits = prepare.visits(ibis.memtable(log), 600).select("user_id", "product_id", "timestamp", "position")
    visits.order_by("user_id", "position").to_parquet(folder / "history.parquet")
    vectors = pa.array(rng.normal(size=24 * DIM).astype(np.float32))  # six products have none
    ids = [f"p{p:02d}" for p in range(24)]
    embeddings = pa.table({"product_id": ids, "vector": pa.FixedSizeListArray.from_arrays(vectors, DIM)})
    pq.write_table(embeddings, folder / "embeddings.parquet")
    return folder


@pytest.fixture(scope="session")
def duckdb():
    return engines.connect()


def written(query: ibis.Table, path) -> pa.Table:
    """The rows that a query writes; whether a column may hold nulls, which engines infer differently, is left out."""
    engines.write(query, path)
    table = pq.read_table(path)
    return table.cast(pa.schema([(field.name, field.type) for field in table.schema]))


@pytest.mark.parametrize("engine", ["duckdb", "spark"])
@pytest.mark.parametrize("name", ["user_id=7", "role=x", "[ab]", "{a,b}", "*", "it's"])
def test_a_path_says_nothing_of_what_is_in_the_file(tmp_path, request, engine, name):
    for folder in (name, "a"):  # "a" is what a pattern would match
        (tmp_path / folder).mkdir()
        pd.DataFrame({"user_id": [f"{folder}1", f"{folder}2"]}).to_parquet(tmp_path / folder / "rows.parquet")
    found = engines.read(request.getfixturevalue(engine), tmp_path / name / "rows.parquet").to_pandas()
    assert found.to_dict("list") == {"user_id": [f"{name}1", f"{name}2"]}


@pytest.mark.parametrize("target_event", ["", "add_to_cart"])
@pytest.mark.parametrize("protocol", prepare.PROTOCOLS)
def test_spark_writes_the_same_sequences_as_duckdb(spark, duckdb, tables, tmp_path, protocol, target_event):
    made = {}
    for connection in (duckdb, spark):
        log = prepare.last_days(engines.read(connection, tables / "log.parquet"), 15 if target_event else 0)
        if protocol == "time":  # with the log's own sessions, some of them missing
            log = log.mutate(session_id=log.timestamp.day().cast("string").nullif("7"))
        query = prepare.sequences(log, protocol=protocol, target_event=target_event, session_gap=600, test_days=5)
        made[connection.name] = written(query, tmp_path / f"{connection.name}.parquet")
    assert made["duckdb"].num_rows > 500 and set(made["duckdb"]["role"].to_pylist()) == {"history", "target"}
    assert made["pyspark"].equals(made["duckdb"])


@pytest.mark.parametrize("decay_time", users.DECAY_TIMES)
def test_spark_gives_the_same_user_embeddings_as_duckdb(spark, duckdb, tables, tmp_path, decay_time):
    found = {}
    for connection in (duckdb, spark):
        history, embeddings = (engines.read(connection, tables / f"{name}.parquet") for name in ("history", "embeddings"))
        query = relational.relational(history, embeddings, DIM, 2.0, decay_time).order_by("user_id")
        relational.write(query, tmp_path / f"{connection.name}.parquet", DIM)
        found[connection.name] = pq.read_table(tmp_path / f"{connection.name}.parquet")
    assert found["pyspark"].schema == found["duckdb"].schema and found["duckdb"].num_rows > 100
    assert found["pyspark"]["user_id"].equals(found["duckdb"]["user_id"])
    one, two = (np.array(table["vector"].to_pylist()) for table in found.values())
    np.testing.assert_allclose(one, two, atol=1e-5)


TEXT = pd.DataFrame({
    "user_id": [" u1 ", "12.0", "nan", "", "-3.0", "x\t", "7", "8", "9", None, "a", "b"],
    "product_id": ["p", None, "2.0", "p", "NULL", "p", "p", "p", "q", "q", "q", "q"],
    "timestamp": ["2024-05-31 17:04:00", "2024-05-31T17:04:00+02:00", "1717174800", "1717174800123", "1717174800123456",
                  "2024-05-31 17:04:00.123456", "31/12/2024", "yesterday", "1990-01-01", "2024-05-31", "",
                  "1717174800123456789"],
    "event": ["view", "Add To Cart", "add-to-cart", "search", "PURCHASE", "refund", "clck", None, " view ", "pv", "buy", "view"],
    "price": ["1.5", "1,50", "x", "nan", "inf", "-inf", "", "1e3", "12.345,6", None, "0", "1"],
})  # fmt: skip
INVOICES = pd.DataFrame({
    "user_id": ["a", "b", "c"], "product_id": ["21731", "POST", "21732B"], "session_id": ["536365", "C5", "536366"],
    "timestamp": ["12/1/2010 8:26", "1/13/2011 18:26", "2/3/2011 0:01"], "quantity": ["3", "1", "-1"],
    "price": ["2,55", "2.5", "0"],
})  # fmt: skip


@pytest.mark.parametrize("raw, layout", [(TEXT, None), (INVOICES, layouts.LAYOUTS["Online Retail"])], ids=["text", "invoices"])
def test_spark_cleans_as_duckdb_does(spark, duckdb, tmp_path, raw, layout):
    raw.assign(row=range(len(raw))).to_parquet(tmp_path / "raw.parquet", index=False)
    one, two = (
        written(clean.clean(engines.read(connection, tmp_path / "raw.parquet"), layout).order_by("row"), tmp_path / name)
        for connection, name in ((duckdb, "one.parquet"), (spark, "two.parquet"))
    )
    assert one["reason"].null_count and one["reason"].null_count < len(raw)
    assert two.equals(one)


def test_spark_lists_the_same_products(spark, duckdb, tables, tmp_path):
    one, two = (
        written(clean.products(engines.read(connection, tables / "log.parquet")), tmp_path / f"{connection.name}.parquet")
        for connection in (duckdb, spark)
    )
    assert one.num_rows == 30 and two.equals(one)


def through_bigquery(query: ibis.Table, duckdb) -> pa.Table:
    """Compile a query for BigQuery, translate that SQL back to DuckDB's, and run it there."""
    (statement,) = sqlglot.transpile(engines.sql(query, "bigquery"), read="bigquery", write="duckdb")
    # BigQuery's functions of these names know no fractions of a second, and no seconds in the milliseconds.
    for name, ours in (("CAST(EPOCH(", "CAST(whole_seconds("), ("EXTRACT(MILLISECOND FROM ", "milliseconds(")):
        statement = statement.replace(name, ours)
    duckdb.raw_sql("SET TimeZone = 'UTC'")
    for macro in ("ieee_divide(a, b) AS a / b", "whole_seconds(t) AS floor(epoch(t))", "milliseconds(t) AS extract('ms' FROM t) % 1000"):
        duckdb.raw_sql(f"CREATE OR REPLACE MACRO {macro}")
    return duckdb.con.sql(statement).to_arrow_table()


@pytest.mark.parametrize("target_event", ["", "add_to_cart"])
@pytest.mark.parametrize("protocol", prepare.PROTOCOLS)
def test_bigquerys_sql_gives_the_same_sequences(duckdb, tables, tmp_path, protocol, target_event):
    options = {"protocol": protocol, "target_event": target_event, "session_gap": 600, "test_days": 5}
    log = engines.read(duckdb, tables / "log.parquet").select(*LOG)
    expected = written(prepare.sequences(log, **options), tmp_path / "sequences.parquet")
    duckdb.raw_sql(f"CREATE OR REPLACE VIEW log AS {duckdb.compile(log.mutate(timestamp=log.timestamp.cast(LOG['timestamp'])))}")
    found = through_bigquery(prepare.sequences(ibis.table(LOG, name="log"), **options), duckdb)
    assert found.num_rows > 500 and found.cast(expected.schema).equals(expected)


@pytest.mark.parametrize("decay_time", users.DECAY_TIMES)
def test_bigquerys_sql_gives_the_same_user_embeddings(duckdb, tables, decay_time):
    history, embeddings = (engines.read(duckdb, tables / f"{name}.parquet") for name in ("history", "embeddings"))
    expected = relational.relational(history, embeddings, DIM, 2.0, decay_time).order_by("user_id").to_pandas()
    for name, table in (("history", history.mutate(timestamp=history.timestamp.cast(LOG["timestamp"]))), ("embeddings", embeddings)):
        duckdb.raw_sql(f"CREATE OR REPLACE VIEW {name} AS {duckdb.compile(table)}")
    visits = ibis.table({**{name: LOG[name] for name in ("user_id", "product_id", "timestamp")}, "position": "int32"}, name="history")
    vectors = ibis.table({"product_id": "string", "vector": "array<float32>"}, name="embeddings")
    found = through_bigquery(relational.relational(visits, vectors, DIM, 2.0, decay_time).order_by("user_id"), duckdb).to_pandas()
    assert found.user_id.tolist() == expected.user_id.tolist() and len(found) > 100
    np.testing.assert_allclose(np.stack(found.vector), np.stack(expected.vector), atol=1e-5)


@pytest.mark.parametrize(
    "engine, url, sentence",
    [
        ("sparc", "", "engine is 'sparc'; it must be one of duckdb, spark, bigquery."),
        ("duckdb", "spark://host:7077", "DuckDB runs on this machine"),
        ("bigquery", "", "needs a project"),
    ],
)
def test_an_engine_that_will_not_do_is_one_sentence(engine, url, sentence):
    with pytest.raises(ValueError, match=sentence):
        engines.connect(engine, url)


@pytest.mark.parametrize(
    "engine, url, package, sentence",
    [("spark", "", "pyspark", "needs PySpark; install it"), ("bigquery", "shop", "pydata_google_auth", "needs its driver; install it")],
)
def test_a_missing_package_is_one_sentence(monkeypatch, engine, url, package, sentence):
    there = engines.importlib.util.find_spec
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None if name == package else there(name))
    with pytest.raises(ValueError, match=sentence):
        engines.connect(engine, url)


def test_missing_java_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="needs Java 17 or later; install it, or say where it is in JAVA_HOME."):
        engines.connect("spark")


def test_sql_of_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="one of duckdb, spark, bigquery"):
        engines.sql(ibis.table(LOG, name="log"), "mysql")


@pytest.mark.parametrize("name", ["q\"u'o", "no\u00a0break", "%s{seed}", "back\\slash", "a;--"])
def test_a_query_can_be_written_to_any_path(duckdb, tmp_path, name):
    duckdb.raw_sql("CREATE OR REPLACE TABLE one_row AS SELECT 1 AS x")
    engines.write(duckdb.table("one_row"), tmp_path / name / f"{name}.parquet")
    assert pq.read_table(pa.BufferReader((tmp_path / name / f"{name}.parquet").read_bytes())).to_pydict() == {"x": [1]}
    assert [path.name for path in (tmp_path / name).iterdir()] == [f"{name}.parquet"]


def test_a_table_of_duckdb_stays_where_it_is(duckdb, tables):
    table = engines.read(duckdb, tables / "log.parquet")
    assert engines.move(table, duckdb) is table


def test_a_table_of_duckdb_moves_to_spark(spark, duckdb, tables, tmp_path):
    table = engines.read(duckdb, tables / "log.parquet")
    moved = engines.move(table, spark)
    assert moved.get_backend() is spark
    assert written(moved.order_by("row"), tmp_path / "moved.parquet").equals(
        pq.read_table(tables / "log.parquet").cast(table.schema().to_pyarrow())
    )


def test_a_query_that_fails_leaves_no_file(duckdb, tables, tmp_path):
    table = engines.read(duckdb, tables / "log.parquet")
    with pytest.raises(Exception, match="Conversion"):
        engines.write(table.select(wrong=table.user_id.cast("int64")), tmp_path / "out.parquet", pa.schema({"wrong": pa.int64()}))
    assert not list(tmp_path.iterdir())
