"""Reading logs: what is recognised, what is dropped and counted, and one sentence for what does not fit."""

import csv
import datetime
import gc
import gzip
import json
import os
import stat
from pathlib import Path

import duckdb
import ibis
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shelfspace.files import run_files
from shelfspace.logs import clean, events, sources

LOGS = Path(os.environ.get("SHELFSPACE_LOGS", Path(__file__).parents[1].parent / "shared" / "data"))
GOOD = "user_id,product_id,timestamp\nu1,p1,2024-05-01\nu1,p2,2024-05-02\nu2,p1,2024-05-03\n"
HEADER = "user_id,product_id,timestamp\n"


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet(path, select):
    duckdb.sql(f"COPY ({select}) TO '{path}' (FORMAT parquet)")
    return path


def rows(log, *columns):
    table = log.table.order_by("row").select(*columns).to_pyarrow().to_pylist()
    return [tuple(row.values()) for row in table]


def at(*parts):
    return datetime.datetime(*parts)


# What fits


@pytest.mark.parametrize(
    "name, content",
    [
        ("log.csv", GOOD),
        ("log.csv", "\ufeff" + GOOD.replace("\n", "\r\n")),
        ("log.csv", GOOD.replace(",", ";")),
        ("log.csv", GOOD.replace("\n", "\r\n").encode("utf-16")),
        ("log.tsv", GOOD.replace(",", "\t")),
        ("log.csv.gz", gzip.compress(GOOD.encode(), mtime=0)),
        (
            "log.jsonl",
            '{"user_id":"u1","product_id":"p1","timestamp":"2024-05-01"}\n'
            '{"user_id":"u1","product_id":"p2","timestamp":1714608000}\n'
            '{"user_id":"u2","product_id":"p1","timestamp":1714694400000}\n',
        ),
        (
            "log.csv",
            "visitorId;SKU;Event Time\n u1 ;p1;1714521600\nu1;p2;1714608000000\nu2;p1;1714694400.0\n",
        ),
        (
            "log.csv",
            'Customer ID,"StockCode",ts\n"u1",p1,2024-05-01T02:00:00+02:00\nu1,p2,2024-05-02 00:00:00 UTC\nu2,p1,2024/05/03\n',
        ),
    ],
)
def test_kinds_of_files_and_spellings_give_the_same_table(tmp_path, name, content):
    log = events.read(write(tmp_path, name, content))
    assert rows(log, "user_id", "product_id", "timestamp", "event") == [
        ("u1", "p1", at(2024, 5, 1), "view"),
        ("u1", "p2", at(2024, 5, 2), "view"),
        ("u2", "p1", at(2024, 5, 3), "view"),
    ]
    assert log.rows == 3 and log.dropped == {}
    schema = log.table.schema()
    assert list(schema) == ["user_id", "product_id", "timestamp", "event", "row"]
    assert schema["user_id"] == schema["event"] == ibis.dtype("string") and schema["row"] == ibis.dtype("int64")
    assert schema["timestamp"].timezone is None


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP_NS", "TIMESTAMP_S", "DATE"])
def test_native_times_and_float_ids_of_parquet(tmp_path, kind):
    path = parquet(
        tmp_path / "log.parquet",
        f"""
        SELECT CASE WHEN i < 3 THEN 7.0 + i END AS userid, 'p' || i AS "Item ID", '2024-05-01'::{kind} AS time
        FROM range(4) r(i)""",
    )
    log = events.read(path)
    assert rows(log, "user_id", "product_id", "timestamp")[0] == ("7", "p0", at(2024, 5, 1))
    assert log.dropped == {"no user_id": 1}


def test_epochs_keep_their_fractions(tmp_path):
    times = [
        "1714521600.25",
        "1714521600250",
        "1714521600250001",
        "1714521600250001000",
        "1.71452160025E9",
        "2024-05-01 00:00:00.250001",
    ]
    path = write(tmp_path, "log.csv", HEADER + "".join(f"u,p{i},{t}\n" for i, t in enumerate(times)))
    found = [t for (t,) in rows(events.read(path), "timestamp")]
    assert [t.microsecond for t in found] == [250000, 250000, 250001, 250001, 250000, 250001]
    assert {t.replace(microsecond=0) for t in found} == {at(2024, 5, 1)}


def test_events_product_columns_and_drops(tmp_path):
    path = write(
        tmp_path,
        "log.csv",
        """user,item,datetime,event_type,title,Description,price,query,user_session,brand
1.0,a,2024-05-01,Click,Lamp,"bright, ""warm""\nlight",12.50,,s1,nan
2,b,2024-05-01,Add to cart,<script>,x,"3,99",,s2,B
2,,2024-05-01,search,,,,red lamp,s2,
,b,2024-05-01,view,,,,,s3,
3,,2024-05-01,view,,,,,s3,
3,b,2024-05-01,remove_from_cart,,,,,s3,
3,b,,buy,,,,,s3,
3,b,2024-05-01,ORDER,,,free,,s3,
""",
    )
    log = events.read(path)
    assert rows(log, "user_id", "product_id", "event", "name", "description", "price", "query", "session_id", "brand") == [
        ("1", "a", "view", "Lamp", 'bright, "warm"\nlight', 12.5, None, "s1", None),
        ("2", "b", "add_to_cart", "<script>", "x", 3.99, None, "s2", "B"),
        ("2", None, "search", None, None, None, "red lamp", "s2", None),
        ("3", "b", "purchase", None, None, None, None, "s3", None),
    ]
    assert log.dropped == {
        "event remove_from_cart, which is not used": 1,
        "no product_id": 1,
        "no timestamp": 1,
        "no user_id": 1,
    }
    assert log.rows == 8 and log.layout.startswith("columns user_id=user, product_id=item, timestamp=datetime, event=")


def test_few_unreadable_times_are_dropped_and_counted(tmp_path):
    good = "".join(f"u{i},p{i % 7},2024-05-01\n" for i in range(198))
    log = events.read(write(tmp_path, "log.csv", HEADER + good + "u,p1,yesterday\nu,p2,1970-01-01\n"))
    assert log.dropped == {"timestamp before 1995 or after 2100": 1, "unreadable timestamp": 1}
    assert log.table.count().execute() == 198


PRICES = {
    "$599": 599, "1,234.50": 1234.5, "1.234,50": 1234.5, "€ 12": 12, "12,00 EUR": 12, "US$ 5": 5, "1 234,50": 1234.5,
    "1'234": 1234, "1\u00a0234": 1234, "1,234,567": 1_234_567, "1.234": 1.234, "3,9": 3.9, "-5": -5, "": None, "NaN": None,
}  # fmt: skip
NO_PRICES = ("1e309", "-inf", "free", "1,234", "€1.234", "$1$2", "12,34,5", "1,2345")  # or of two meanings


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_prices_are_read_where_they_mean_one_thing_and_counted_where_not(tmp_path, kind):
    texts = [*PRICES, *NO_PRICES]
    if kind == "csv":
        lines = [f'u,p{i},2024-05-01,"{text}"' for i, text in enumerate(texts)]
        content = "\n".join(["user_id,product_id,timestamp,price", *lines])
    else:
        content = "\n".join(
            json.dumps({"user_id": "u", "product_id": f"p{i}", "timestamp": 1714521600, "price": t}) for i, t in enumerate(texts)
        )
    log = events.read(write(tmp_path, f"log.{kind}", content))
    assert [price for (price,) in rows(log, "price")] == [*PRICES.values(), *[None] * len(NO_PRICES)]
    assert log.noted == {events.UNREAD_PRICE: len(NO_PRICES)} and log.dropped == {}
    assert "price_lost" not in log.table.columns


def test_typed_prices_without_a_finite_number_are_counted_and_missing_ones_are_not(tmp_path):
    path = parquet(
        tmp_path / "log.parquet",
        "SELECT 'u' AS user_id, 'p' || i AS product_id, now() AS ts, ['1.5', 'inf', 'nan', NULL][i]::DOUBLE AS price FROM range(1, 5) r(i)",
    )
    log = events.read(path)
    assert [price for (price,) in rows(log, "price")] == [1.5, None, None, None] and log.noted == {events.UNREAD_PRICE: 1}
    (tmp_path / "more").mkdir()
    write(
        tmp_path / "more",
        "a.csv",
        GOOD.replace("timestamp", "timestamp,price").replace("-01\n", "-01,?\n").replace("-02\n", "-02,1\n").replace("-03\n", "-03,2\n"),
    )
    write(tmp_path / "more", "b.csv", GOOD)  # without prices
    assert events.read(tmp_path / "more").noted == {events.UNREAD_PRICE: 1}


def test_whole_floats_are_ids_up_to_where_floats_are_exact(tmp_path):
    log = events.read(write(tmp_path, "log.csv", HEADER + "9007199254740991.0,p,2024-05-01\n-7.0,q,2024-05-01\n"))
    assert rows(log, "user_id") == [("9007199254740991",), ("-7",)]


def test_a_few_times_years_away_are_left_out_and_many_are_said(tmp_path):
    near = [f"u{i},p{i % 7},2024-05-{1 + i % 28:02d}\n" for i in range(198)]
    far = ["u,p1,1996-02-29\n", "u,p2,2099-01-01\n"]
    log = events.read(write(tmp_path, "log.csv", HEADER + "".join([far[0], *near, far[1]])))
    assert log.dropped == {events.FAR: 2} and log.noted == {} and log.rows == 200
    assert log.table.timestamp.max().execute() == at(2024, 5, 28)
    assert rows(log, "row") == [(i,) for i in range(1, 199)]  # the order in the file, as before
    log = events.read(write(tmp_path, "log.csv", HEADER + "".join([*far, *near, far[0]])))  # more than 1 %
    assert log.dropped == {} and log.noted == {events.FAR: 3} and log.table.count().execute() == 201
    log = events.read(write(tmp_path, "log.csv", HEADER + "".join([*near[:9], far[1]])))  # one row, of however few
    assert log.dropped == {events.FAR: 1}


def test_years_of_events_are_no_strangers_to_each_other(tmp_path):
    growing = "".join(f"u{i},p{i % 7},{2024 - int(8 * 0.98**i)}-05-01\n" for i in range(400))
    log = events.read(write(tmp_path, "log.csv", HEADER + growing))
    assert log.dropped == log.noted == {} and log.table.timestamp.min().execute() == at(2016, 5, 1)


def test_columns_win_over_recognition_and_can_be_left_out(tmp_path):
    path = write(
        tmp_path,
        "log.csv",
        "user_id,who,product_id,timestamp,type\nx,u1,p1,2024-05-01,lamp\nx,u2,p2,2024-05-01,tv\n",
    )
    log = events.read(path, columns={"user_id": "WHO", "event": ""})
    assert rows(log, "user_id", "event") == [("u1", "view"), ("u2", "view")]


def test_hostile_names_and_values_are_data(tmp_path):
    evil = 'x"; DROP TABLE t; --'
    path = write(
        tmp_path,
        "a'b;drop[1]*.csv",
        f"\"{evil.replace(chr(34), chr(34) * 2)}\",it's,timestamp\n' OR 1=1 --,<script>alert(1)</script>,2024-05-01\nu,p,2024-05-01\n",
    )
    log = events.read(path, columns={"user_id": evil, "product_id": "it's"})
    assert rows(log, "user_id", "product_id") == [("' OR 1=1 --", "<script>alert(1)</script>"), ("u", "p")]
    lines = [{evil: "u", "it's": "p", "ts": 1714521600}, {evil: "u", "it's": "q", "ts": 1714521600}]
    path = write(tmp_path, "a'b?.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    assert rows(events.read(path, {"user_id": evil, "product_id": "it's"}), "product_id") == [("p",), ("q",)]
    path = parquet(
        tmp_path / "p[a].parquet",
        """SELECT 'u' AS "x""; DROP", 'p' || i AS sku, now() AS ts FROM range(2) r(i)""",
    )
    assert rows(events.read(path, {"user_id": 'x"; DROP'}), "product_id") == [("p0",), ("p1",)]
    with pytest.raises(ValueError, match="values that cannot be read as a time, 1 of 2 .first: 'never' in row 2"):
        events.read(write(tmp_path, "c'd[2].csv", HEADER + "u,p,2024-05-01\nu,q,never\n"))


def test_latin1_is_read_and_said_also_when_it_shows_late(tmp_path):
    text = "user_id,product_id,timestamp,name\n" + "u,p1,2024-05-01,Lamp\n" * 20_000 + "u,p2,2024-05-01,Café £5\n"
    log = events.read(write(tmp_path, "log.csv", text.encode("latin-1")))
    assert rows(log.__class__(log.table.filter(log.table.product_id == "p2"), {}, 0, "", "", None), "name") == [("Café £5",)]
    assert log.layout.endswith("read as Latin-1 text")
    early = write(
        tmp_path,
        "early.csv",
        "user_id,product_id,timestamp,name\nu,p,2024-05-01,é\nu,q,2024-05-01,ü\n".encode("latin-1"),
    )
    assert rows(events.read(early), "name") == [("é",), ("ü",)]


def test_row_is_the_order_of_a_large_file_read_in_parallel(tmp_path):
    path = tmp_path / "log.csv"
    duckdb.sql(
        f"""COPY (SELECT 'u' AS user_id, i AS product_id, 1714521600 AS timestamp FROM range(600000) r(i))
            TO '{path}'"""
    )
    table = events.read(path).table
    assert table.filter(table.row == table.product_id.cast("int64")).count().execute() == 600_000


def test_more_than_memory(tmp_path):
    path = tmp_path / "log.parquet"
    duckdb.sql(f"""COPY (SELECT uuid() AS user_id, uuid() AS product_id, uuid() AS session_id,
                                1714521600 + i AS timestamp
                         FROM range(1500000) r(i)) TO '{path}'""")
    connection = ibis.duckdb.connect(tmp_path / "small.duckdb", memory_limit="100MB", threads=2, temp_directory=str(tmp_path / "spill"))
    log = events.read(path, connection=connection)
    assert log.table.count().execute() == 1_500_000 and log.connection is connection


@pytest.mark.parametrize("name", ["user_id=7", "c0=7", "shelfspace_file=7", "file=7"])
def test_a_folder_named_as_a_partition_adds_no_column(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    lines = [{"user_id": f"u{i}", "product_id": f"p{i}", "timestamp": "2024-05-01"} for i in range(3)]
    write(folder, "log.csv", HEADER + "".join(",".join(line.values()) + "\n" for line in lines))
    write(folder, "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    parquet(folder / "log.parquet", f"SELECT * FROM read_csv('{folder}/log.csv', hive_partitioning=false)")
    for ending in ("csv", "jsonl", "parquet"):
        found = rows(events.read(folder / f"log.{ending}"), "user_id", "product_id")
        assert found == [(f"u{i}", f"p{i}") for i in range(3)]


# Several files


def test_folder_glob_and_list_read_in_order(tmp_path):
    for i in range(3):
        write(tmp_path, f"part-{i}.csv", HEADER + f"u,p{i},2024-05-01\nu,q{i},2024-05-0{i + 2}\n")
    write(tmp_path, "SOURCE.md", "not a log")
    write(tmp_path, "_SUCCESS.csv", "")
    expected = [("p0",), ("q0",), ("p1",), ("q1",), ("p2",), ("q2",)]
    assert rows(events.read(tmp_path), "product_id") == expected
    assert rows(events.read(str(tmp_path / "part-*.csv")), "product_id") == expected
    files = [tmp_path / f"part-{i}.csv" for i in (2, 0, 2)]
    assert rows(events.read(files), "product_id") == [("p2",), ("q2",), ("p0",), ("q0",)]
    assert events.read(tmp_path).fingerprint == sources.fingerprint(tmp_path) != sources.fingerprint(files)


def test_events_in_the_overlap_of_two_files_count_once(tmp_path):
    write(
        tmp_path,
        "a.csv",
        HEADER + "u,old,2024-04-01\nu,twice,2024-05-01\nu,twice,2024-05-01\nv,p,2024-05-01\n",
    )
    write(
        tmp_path,
        "b.csv",
        "timestamp;product_id;user_id\n2024-05-01;twice;u\n2024-05-01;twice;u\n2024-05-01;q;v\n2024-06-01;new;u\n2024-06-01;new;u\n",
    )
    log = events.read(tmp_path)
    assert [p for (p,) in rows(log, "product_id")] == ["old", "twice", "twice", "p", "q", "new", "new"]
    assert log.dropped == {"the same event in an earlier file": 2} and log.rows == 9


def test_files_with_different_columns_are_put_together(tmp_path):
    write(tmp_path, "clicks.dat", "1,2014-04-07T10:00:09.250Z,3001,0\n1,2014-04-07T10:01:09.500Z,3002,S\n")
    write(tmp_path, "buys.dat", "1,2014-04-07T11:00:00.000Z,3002,500,1\n")
    log = events.read(tmp_path)
    assert log.layout == "YOOCHOOSE buys + YOOCHOOSE clicks"
    assert rows(log, "user_id", "session_id", "product_id", "event", "category", "price") == [
        ("1", "1", "3002", "purchase", None, 500.0),
        ("1", "1", "3001", "view", None, None),
        ("1", "1", "3002", "view", "S", None),
    ]


# Layouts of public logs


@pytest.mark.parametrize(
    "name, content, layout, expected",
    [
        (
            "a.csv",
            "timestamp,visitorid,event,itemid,transactionid\n1433221000117,71,view,811,\n1433224000164,72,transaction,812,7\n",
            "Retailrocket",
            [
                ("71", "811", at(2015, 6, 2, 4, 56, 40, 117000), "view"),
                ("72", "812", at(2015, 6, 2, 5, 46, 40, 164000), "purchase"),
            ],
        ),
        (
            "a.csv",
            "user,item,event,time_unix\n0,3,view,1433221000\n0,1,addtocart,1433222000\n",
            "Retailrocket (subset)",
            [
                ("0", "3", at(2015, 6, 2, 4, 56, 40), "view"),
                ("0", "1", at(2015, 6, 2, 5, 13, 20), "add_to_cart"),
            ],
        ),
        (
            "a.csv",
            "SessionId,ItemId,Time,split\n3,3003,1396437000.94,train\n3,9,1396437001,test\n",
            "YOOCHOOSE (prepared)",
            [
                ("3", "3003", at(2014, 4, 2, 11, 10, 0, 940000), "view"),
                ("3", "9", at(2014, 4, 2, 11, 10, 1), "view"),
            ],
        ),
        (
            "a.csv",
            "sessionId;userId;itemId;timeframe;eventdate\n1;NA;4001;60309;2016-05-09\n1;NA;4002;61018;2016-05-09\n",
            "Diginetica views",
            [
                ("1", "4001", at(2016, 5, 9, 0, 1, 0, 309000), "view"),
                ("1", "4002", at(2016, 5, 9, 0, 1, 1, 18000), "view"),
            ],
        ),
        (
            "a.csv",
            "sessionId;userId;timeframe;eventdate;ordernumber;itemId\n150;1;0;2016-05-06;6;4003\n150;1;0;2016-05-06;6;17\n",
            "Diginetica purchases",
            [("150", "4003", at(2016, 5, 6), "purchase"), ("150", "17", at(2016, 5, 6), "purchase")],
        ),
        (
            "a.jsonl",
            '{"session":12,"events":[{"aid":1,"ts":1661724000000,"type":"clicks"},{"aid":2,"ts":1661724000500,'
            '"type":"orders"}]}\n{"session":13,"events":[]}\n',
            "OTTO",
            [
                ("12", "1", at(2022, 8, 28, 22), "view"),
                ("12", "2", at(2022, 8, 28, 22, 0, 0, 500000), "purchase"),
            ],
        ),
        (
            "a.csv",
            "session,aid,ts,type\n12,1,1661724000,0\n12,2,1661724000,1\n",
            "OTTO",
            [("12", "1", at(2022, 8, 28, 22), "view"), ("12", "2", at(2022, 8, 28, 22), "add_to_cart")],
        ),
    ],
)
def test_public_layouts(tmp_path, name, content, layout, expected):
    log = events.read(write(tmp_path, name, content))
    assert log.layout == layout
    assert rows(log, "user_id", "product_id", "timestamp", "event") == expected


@pytest.mark.parametrize(
    "head",
    [
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country",
        "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country",
    ],
)
def test_online_retail_cleaning(tmp_path, head):
    lines = [
        "9001,10001A, LAMP ,6,12/1/2010 8:20,2.75,501.0,UK",
        "C9001,10001A,LAMP,6,2010-12-01 08:20:00,2.75,501,UK",
        "9002,10002,TIN,0,2010-12-01 08:28:00,2.75,501,UK",
        "9002,10002,TIN,1,2010-12-01 08:28:00,0,501,UK",
        "9002,POST,POSTAGE,1,2010-12-01 08:28:00,18,501,UK",
        "9002,10002,TIN,1,2010-12-01 08:28:00,2.5,,UK",
        "9002,10002,TIN,1,2010-12-01 08:28:00,2.5,501,UK",
    ]
    log = events.read(write(tmp_path, "a.csv", "\n".join([head, *lines]) + "\n"))
    assert rows(log, "user_id", "product_id", "timestamp", "event", "session_id", "name", "price") == [
        ("501", "10001A", at(2010, 12, 1, 8, 20), "purchase", "9001", "LAMP", 2.75),
        ("501", "10002", at(2010, 12, 1, 8, 28), "purchase", "9002", "TIN", 2.5),
    ]
    assert log.dropped == {
        "cancelled invoice": 1,
        "no user_id": 1,
        "not a product (postage, fees, vouchers, tests)": 1,
        "price of zero or less": 1,
        "quantity of zero or less": 1,
    }
    assert log.layout.startswith("Online Retail")


@pytest.mark.parametrize(
    "where, layout, read, kept, users, products",
    [
        ("online-retail", "Online Retail", 1_067_370, 788_187, 5_852, 4_619),
        ("retailrocket/events.parquet", "Retailrocket (subset)", 97_381, 97_381, 2_174, 29_905),
        ("yoochoose-100k", "YOOCHOOSE (prepared)", 83_846, 83_846, 21_210, 2_933),
        ("otto/train.jsonl", "OTTO", 862, 862, 20, 510),
    ],
)
def test_real_logs(where, layout, read, kept, users, products):
    if not (LOGS / where).exists():
        pytest.skip(f"the real log {where} is not here; SHELFSPACE_LOGS names its folder")
    log = events.read(LOGS / where)
    found = log.table.aggregate(n=log.table.count(), u=log.table.user_id.nunique(), p=log.table.product_id.nunique())
    assert tuple(found.execute().iloc[0]) == (kept, users, products)
    assert log.layout == layout and log.rows == read == kept + sum(log.dropped.values())
    assert clean.products(log.table).count().execute() == products


# What does not fit: one sentence each


def one(rows_, name="log.csv", head=HEADER):
    return {name: head + rows_}


BIG = "".join(f"u{i},p{i},2024-05-01\n" for i in range(20_000))
JSONL = '{"user_id":1,"product_id":"a","timestamp":1714521600}\n'
PARQUET = "SELECT 'u' AS user_id, 'p' || i AS product_id, 1714521600 AS timestamp FROM range(2000) r(i)"
BAD = {
    "missing column": (
        one("", head="visitor,when,what\n1,2,3\n"),
        {},
        "log.csv has no column for product_id and timestamp: its columns are visitor, when, what; say which "
        "is which with --columns product_id=COLUMN,timestamp=COLUMN",
    ),
    "column not in the file": (
        {"log.csv": GOOD},
        {"user_id": "userr_id"},
        "has no column 'userr_id', which --columns names for user_id .is 'user_id' meant\\?.; its "
        "columns are user_id, product_id, timestamp",
    ),
    "unknown canonical name": (
        {"log.csv": GOOD},
        {"usr_id": "user_id"},
        "--columns has no 'usr_id' .is 'user_id' meant\\?.; it can set user_id, product_id, timestamp",
    ),
    "one column for two": (
        {"log.csv": GOOD},
        {"product_id": "user_id"},
        "'user_id' of .* cannot be both user_id and product_id",
    ),
    "a required column left out": (
        {"log.csv": GOOD},
        {"timestamp": ""},
        "has no column for timestamp: its columns are",
    ),
    "empty file": ({"log.csv": ""}, {}, r"log.csv is empty \(0 bytes\)"),
    "blank file": ({"log.csv": " \n\n"}, {}, "log.csv is not CSV as its ending says but blank"),
    "header only": ({"log.csv": HEADER}, {}, "log.csv has columns but no rows"),
    "no rows in Parquet": ({"log.parquet": PARQUET + " LIMIT 0"}, {}, "log.parquet has columns but no rows"),
    "no header": (
        one("", head="7,12,1714521600\n8,13,1714521600\n"),
        {},
        "has no header: its first line is 7, 12, 1714521600",
    ),
    "unreadable times": (
        one("u,p,2024-05-01\nu,q,32/13/2024\nu,r,soon\n"),
        {},
        "column 'timestamp' of .*log.csv, taken for timestamp, has values that cannot be read as a time, "
        r"2 of 3 \(first: '32/13/2024' in row 2, 'soon' in row 3\); ISO text such as "
        "2024-05-31 17:04:00 .* would fit",
    ),
    "far future": (
        one("u,p,171452160000000000000\nu,q,5\n"),
        {},
        "has values that lie before 1995 or after 2100, 2 of 2",
    ),
    "days": (
        one("u,p,19845\nu,q,19846\n"),
        {},
        "'19845' in row 1, .* which could be days since 1970: multiply by 86,400",
    ),
    "date without signs": (
        one("u,p,20240531\nu,q,20240531\n"),
        {},
        "looks like a date without signs: write it as 2024-05-31",
    ),
    "all times empty": (
        one("u,p,\nu,q,NaN\n"),
        {},
        "'timestamp' of .*, taken for timestamp, is empty in 2 of 2 rows",
    ),
    "most users empty": (
        one(",p,2024-05-01\n,q,2024-05-01\nu,q,2024-05-01\n"),
        {},
        "taken for user_id, is empty in 2 of 3 rows .*--columns user_id=COLUMN",
    ),
    "all products null": (
        {"log.parquet": PARQUET.replace("'p' || i", "NULL::INT")},
        {},
        "taken for product_id, is empty in 2,000",
    ),
    "no event names": (
        one("u,p,2024-05-01,\nu,q,2024-05-01,\n", head="user_id,product_id,timestamp,event\n"),
        {},
        "taken for event, is empty in 2 of 2 rows",
    ),
    "unknown events": (
        one(
            "u,p,2024-05-01,wish\nu,q,2024-05-01,wish\nu,q,2024-05-01,<b>\nu,q,2024-05-01,view\n",
            head="user_id,product_id,timestamp,event\n",
        ),
        {},
        r"unknown event names: 'wish' \(2\), '<b>' \(1\); view, search, add_to_cart, purchase .* fit, and "
        "--columns event= reads every row as a view",
    ),
    "rounded ids": (
        one("1.23E+05,p,2024-05-01\n1.24E+05,q,2024-05-01\n"),
        {},
        "2 values of user_id were rounded to scientific",
    ),
    "mixed ids": (
        {"a.csv": HEADER + "12,p,2024-05-01\n", "b.csv": HEADER + "abc12,q,2024-05-01\n"},
        {},
        "user_id holds only whole numbers in .*a.csv but only text in .*b.csv",
    ),
    "nested ids": (
        {"log.jsonl": '{"user_id":{"id":1},"product_id":"a","timestamp":1}\n'},
        {},
        r"column 'user_id' of .*, taken for user_id, holds values of the type STRUCT\(.*"
        "a number or text would fit",
    ),
    "ids that are lists": (
        {"log.parquet": PARQUET.replace("'p' || i", "[i]")},
        {},
        "taken for product_id, holds values of the type BIGINT",
    ),
    "times without a day": (
        {"log.parquet": PARQUET.replace("1714521600", "TIME '10:00'")},
        {},
        "holds values of the type TIME; ISO text",
    ),
    "CSV called Parquet": (
        {"log.parquet": GOOD.encode()},
        {},
        "is not Parquet as its ending says but text; the ending .csv",
    ),
    "Parquet called CSV": (
        {"log.csv": b"PAR1\x15\x04PAR1"},
        {},
        "is not CSV as its ending says but Parquet; the ending .parquet",
    ),
    "gzip called CSV": (
        {"log.csv": gzip.compress(GOOD.encode())},
        {},
        "is not CSV as its ending says but gzip; the ending .gz",
    ),
    "Excel called CSV": (
        {"log.csv": b"PK\x03\x04aaa"},
        {},
        "is not CSV as its ending says but a zip archive or Excel sheet",
    ),
    "JSON called CSV": ({"log.csv": JSONL}, {}, "is not CSV as its ending says but JSON; the ending .jsonl"),
    "binary called CSV": ({"log.csv": b"a\0b\0"}, {}, "is not CSV as its ending says but binary"),
    "CSV called gzip": ({"log.csv.gz": GOOD}, {}, "is not gzip although its name ends in .gz"),
    "JSON array": ({"log.json": f"[{JSONL}]"}, {}, "is one JSON array; one object per line would fit"),
    "CSV called JSON": ({"log.jsonl": GOOD}, {}, "is not JSON Lines as its ending says but text"),
    "broken JSON": (
        {"log.jsonl": JSONL * 2 + '{"user_id":1,\n' + JSONL},
        {},
        "line 3 of .*log.jsonl is not a JSON object",
    ),
    "JSON that ends early": (
        {"log.jsonl": JSONL * 2 + '{"user_id":1'},
        {},
        "line 3 of .*log.jsonl is not a JSON object",
    ),
    "JSON numbers": (
        {"log.jsonl": JSONL * 30_000 + "17\n"},
        {},
        "line 30,001 of .*log.jsonl is not a JSON object .it is '17'",
    ),
    "rounded float ids": (
        one("9007199254740993.0,p,2024-05-01\n8.0,q,2024-05-01\n"),
        {},
        "log.csv: 1 values of user_id were rounded to scientific notation or to floats that are too large to be exact",
    ),
    "rounded doubles": (
        {"log.parquet": PARQUET.replace("'p' || i", "(9007199254740990 + i)::DOUBLE")},
        {},
        "1,998 values of product_id were rounded",
    ),
    "rounded floats": (
        {"log.parquet": PARQUET.replace("'p' || i", "(16777200 + i)::FLOAT")},
        {},
        "1,984 values of product_id were rounded",
    ),
    "deep JSON": (
        {"log.jsonl": JSONL + '{"user_id":1,"product_id":"a","timestamp":1714521600,"x":' + "[" * 3000 + "]" * 3000 + "}\n"},
        {},
        "log.jsonl has a line that is nested too deeply; flat objects would fit",
    ),
    "deep JSON without an end": (
        {"log.jsonl": '{"a":' * 100_000},
        {},
        "line 1 of .*log.jsonl is not a JSON object .it is nested too deeply",
    ),
    "same key twice": (
        {"log.jsonl": JSONL + '{"user_id":1,"user_id":2,"product_id":3,"timestamp":4}\n'},
        {},
        "line 2 of .* has the same key twice",
    ),
    "truncated gzip": (
        {"log.csv.gz": gzip.compress((HEADER + BIG).encode())[:-9000]},
        {},
        "log.csv.gz is cut short or damaged",
    ),
    "truncated small gzip": (
        {"log.csv.gz": gzip.compress(GOOD.encode())[:-12]},
        {},
        "log.csv.gz is cut short or damaged",
    ),
    "truncated Parquet": (
        {"log.parquet": (PARQUET, -30)},
        {},
        "log.parquet is cut short or damaged: a Parquet file ends in PAR1",
    ),
    "damaged Parquet": (
        {"log.parquet": (PARQUET, None)},
        {},
        "log.parquet cannot be read as Parquet, it may be damaged",
    ),
    "mixed kinds": ({"a.csv": GOOD, "b.jsonl": JSONL}, {}, r"mixes CSV \(a.csv\) and JSON Lines \(b.jsonl\)"),
    "folder without logs": ({"notes.md": "x"}, {}, "holds no event log .*, only notes.md"),
    "one product": (
        one("u,p,2024-05-01\nv,p,2024-05-02\n"),
        {},
        "the 2 events of .* hold one single product, 'p'",
    ),
    "only searches": (
        one("u,,2024-05-01,search\nu,,2024-05-01,search\n", head="user_id,product_id,timestamp,event\n"),
        {},
        "hold no product, only searches",
    ),
    "nothing left": (
        one("u,,2024-05-01\n,p,2024-05-01\n"),
        {},
        "none of the 2 rows of .* can be used .*no product_id: 1",
    ),
    "duplicate columns": (
        one("", head="user_id,User_ID,product_id,timestamp\n1,2,3,2024-05-01\n"),
        {},
        "has 2 columns called 'user_id', one of which would be user_id; rename all but one, or choose with",
    ),
    "duplicate named column": (
        one("", head="who,who,product_id,timestamp\n1,2,3,2024-05-01\n"),
        {"user_id": "who"},
        "has 2 columns called 'who', one of which would be user_id; rename all but one$",
    ),
    "too many fields": (
        one("u,p,2024-05-01\nu,a,b,2024-05-01\n"),
        {},
        "line 3 of .*log.csv has 4 fields where its header has 3",
    ),
    "open quote": (
        one('u,"p,2024-05-01\nu,q,2024-05-01\n'),
        {},
        "a double quote .* near line 2 of .*log.csv is not closed",
    ),
    "no known encoding": (
        {"log.csv": b"user_id,product_id,timestamp,name\nu,p,2024-05-01,\x93x\x94\xe9\nu,q,2024-05-01,\n"},
        {},
        "log.csv is neither UTF-8 nor Latin-1 text; save it as UTF-8",
    ),
    "broken UTF-8": (
        {"log.csv": "user_id,product_id,timestamp,name\nu,é,2024-05-01,üö\n".encode() + b"u,q,2024-05-01,\xe9,\n"},
        {},
        "log.csv is UTF-8 text with some broken bytes in it",
    ),
    "one bad file of two": (
        {"a.csv": GOOD, "b.csv": "categoryid,parentid\n1,2\n"},
        {},
        "b.csv has no column for user_id .*or name only files of events",
    ),
}


@pytest.mark.parametrize("files, columns, sentence", BAD.values(), ids=BAD)
def test_bad_input_gets_one_sentence(tmp_path, files, columns, sentence):
    for name, content in files.items():
        if name.endswith(".parquet") and not isinstance(content, bytes):
            select, cut = content if isinstance(content, tuple) else (content, 0)
            path = parquet(tmp_path / name, select)
            whole = path.read_bytes()
            if cut is None:
                whole = whole[:4] + b"\xff" * 90 + whole[94:]
            write(tmp_path, name, whole[:cut] if cut else whole)
        else:
            write(tmp_path, name, content)
    data = tmp_path / next(iter(files)) if len(files) == 1 and "notes.md" not in files else tmp_path
    with pytest.raises(ValueError, match=sentence) as error:
        events.read(data, columns)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700
    assert "LINE 1" not in str(error.value) and "Possible" not in str(error.value)


def test_files_that_cannot_be_had(tmp_path, monkeypatch):
    write(tmp_path, "events.csv", GOOD)
    write(tmp_path, "events.ods", "x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "pipes").mkdir()
    os.mkfifo(tmp_path / "pipes" / "pipe.csv")
    for data, sentence in [
        (tmp_path / "event.csv", "event.csv does not exist .is 'events.csv' meant\\?."),
        (tmp_path / "no" / "event.csv", "event.csv does not exist$"),
        (tmp_path / "*.parquet", "no file matches"),
        (
            tmp_path / "events.ods",
            "events.ods is not a kind of file that can be read; save the sheet as .xlsx or CSV first; what fits",
        ),
        (tmp_path / "empty", "holds no event log .*xlsx.$"),
        ([], "the list of files is empty"),
        (tmp_path / "pipes", "pipe.csv is a pipe or a device; a file would fit$"),
        ("/dev/null", "null is a pipe or a device"),
        ([tmp_path], "is not a kind of file that can be read"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            events.read(data)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="events.csv may not be read: permission denied"):
        events.read(tmp_path / "events.csv")

    def denied(self):
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(ValueError, match="may not be read: permission denied"):
        events.read(tmp_path)


CELLS = st.sampled_from([
    "u", "7", "7.0", "9007199254740993.0", "1e5", "1.5E+07", "", "nan", " ", "2024-05-01", "1996-01-01", "2099-01-01T00:00:00Z", "1714521600",
    "1714521600000", "-1", "1e309", "$599", "1,234", "view", "purchase", "search", "remove", "wish", "'", '"', "\n", ",", ";", "\\", "\0", "é",
    "{", "[", "<script>", "NULL", "9" * 40, "2024-02-30", "10:00",
]) | st.text(max_size=4)  # fmt: skip
SPOILED = st.fixed_dictionaries(
    {"user_id": CELLS, "product_id": CELLS, "timestamp": CELLS}, optional={"event": CELLS, "price": CELLS, "name": CELLS, "a/b": CELLS}
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spoiled=st.lists(SPOILED, max_size=4), good=st.integers(0, 500), kind=st.sampled_from(["csv", "jsonl"]), cut=st.integers(0, 60),
    noise=st.binary(max_size=6), quoted=st.booleans(),
)  # fmt: skip
def test_whatever_a_log_holds_its_rows_add_up_or_one_sentence_refuses_it(tmp_path, spoiled, good, kind, cut, noise, quoted):
    lines = [{"user_id": f"u{i % 9}", "product_id": f"p{i % 7}", "timestamp": f"2024-05-{1 + i % 28:02d}"} for i in range(good)]
    lines[good // 2 : good // 2] = spoiled
    path = tmp_path / f"log.{kind}"
    if kind == "csv":
        names = list(dict.fromkeys(name for line in lines for name in line))
        with open(path, "w", newline="", encoding="utf-8", errors="replace") as file:
            writer = csv.DictWriter(file, names, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
            writer.writeheader()
            writer.writerows(lines)
    else:
        path.write_text("".join(json.dumps(line, ensure_ascii=quoted) + "\n" for line in lines), encoding="utf-8", errors="replace")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut] + noise if cut % 2 else whole)
    connection = ibis.duckdb.connect()
    try:
        log = events.read(path, connection=connection)
    except ValueError as said:
        assert type(said) is ValueError and len(str(said).splitlines()) == 1
    else:
        kept = log.table.to_pandas()
        assert log.rows == len(kept) + sum(log.dropped.values())
        lost = log.noted.get(events.UNREAD_PRICE, 0)
        assert lost <= kept.get("price", pd.Series(dtype=float)).isna().sum()
        assert kept.user_id.notna().all() and kept.timestamp.notna().all() and kept.row.is_unique


# Products, fingerprint, connection


def test_products_take_the_most_frequent_spelling(tmp_path):
    log = events.read(
        write(
            tmp_path,
            "log.csv",
            """user_id,product_id,timestamp,name,price,event
u,b,2024-05-01,Lamp,2,view
u,b,2024-05-01,lamp,2,view
v,b,2024-05-01,lamp,3,buy
u,a,2024-05-01,Zebra,5,view
u,a,2024-05-01,Ant,4,view
u,c,2024-05-01,,,view
u,,2024-05-01,ignored,,search
""",
        )
    )
    assert clean.products(log.table).to_pyarrow().to_pylist() == [
        {"product_id": "a", "name": "Ant", "price": 4.0, "count": 2},
        {"product_id": "b", "name": "lamp", "price": 2.0, "count": 3},
        {"product_id": "c", "name": None, "price": None, "count": 1},
    ]


def test_cleaning_is_portable():
    raw = ibis.table(
        {
            "user_id": "string",
            "product_id": "int64",
            "timestamp": "string",
            "event": "string",
            "price": "string",
        }
    )
    sql = str(ibis.to_sql(clean.clean(raw), dialect="bigquery"))
    assert "SAFE_CAST" in sql and "reason" in sql


def test_fingerprint_follows_bytes_and_names(tmp_path):
    a, b = write(tmp_path, "a.csv", GOOD), write(tmp_path, "b.csv", GOOD)
    assert sources.fingerprint(a) == sources.fingerprint(str(a)) == sources.fingerprint([a])
    assert len({sources.fingerprint(d) for d in (a, b, [a, b], [b, a])}) == 4
    before = sources.fingerprint(a)
    write(tmp_path, "a.csv", GOOD + "u3,p1,2024-05-04\n")
    assert sources.fingerprint(a) != before


def test_a_log_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path, load = write(tmp_path, "log.csv", GOOD), events._load
    for change in (lambda: path.write_text(GOOD + "u3,p1,2024-05-04\n"), lambda: write(tmp_path, "new.csv", GOOD)):

        def loads_and_changes(*given, change=change):
            found = load(*given)
            change()
            return found

        monkeypatch.setattr(events, "_load", loads_and_changes)
        connection = ibis.duckdb.connect()
        with pytest.raises(ValueError, match=f"^{tmp_path} changed while it was read; wait until nothing writes to it, or read a copy$"):
            events.read(tmp_path, connection=connection)
        assert connection.con.execute("SHOW ALL TABLES").fetchall() == []
        monkeypatch.setattr(events, "_load", load)
        assert events.read(tmp_path).fingerprint == sources.fingerprint(tmp_path)


def test_a_log_that_is_another_than_the_pipeline_saw_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path, "log.csv", GOOD)
    run_files.write_json(tmp_path / "params.json", {"input": {"fingerprint": sources.fingerprint(path)}})
    assert events.announced(tmp_path, str(path)) == ""  # a notebook by hand
    monkeypatch.setenv(run_files.CODE, "key")
    assert events.announced(tmp_path, "shop") == ""
    expected = events.announced(tmp_path, str(path))
    assert events.read(path, expected=expected).rows == 3
    write(tmp_path, "log.csv", GOOD + "u3,p1,2024-05-04\n")
    with pytest.raises(ValueError, match="log.csv changed while it was read"):
        events.read(path, expected=expected)


def test_temporary_database_goes_with_the_last_reference(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    path = write(tmp_path, "log.csv", GOOD)
    log = events.read(path)
    assert list((tmp_path / "tmp").iterdir())
    del log
    with pytest.raises(ValueError):
        events.read(path, {"user_id": "nobody"})
    gc.collect()
    assert not list((tmp_path / "tmp").iterdir())
    assert stat.S_ISREG(path.stat().st_mode)


def test_a_given_connection_is_left_clean_after_a_refusal(tmp_path):
    connection = ibis.duckdb.connect()
    with pytest.raises(ValueError):
        events.read(write(tmp_path, "log.csv", HEADER), connection=connection)
    assert connection.con.execute("SHOW ALL TABLES").fetchall() == []


# A shop's own export


@pytest.mark.parametrize(
    "first, second, form",
    [
        ("31.05.2024", "01.06.2024", "%d.%m.%Y"),
        ("05/31/2024", "06/01/2024", "%m/%d/%Y"),
        ("31/05/2024 14:03", "01/06/2024 09:15", "'%d/%m/%Y %H:%M'"),
        ("31-05-2024 14:00", "01-06-2024 09:00", "'%d-%m-%Y %H:%M'"),
        ("31.05.2024, 14:03:09", "01.06.2024, 00:00:01", "'%d.%m.%Y, %H:%M:%S'"),
        ("31 May 2024", "01 Jun 2024", "'%d %b %Y'"),
        ("05/31/2024 02:03 PM", "06/01/2024 11:00 AM", "'%m/%d/%Y %I:%M %p'"),
    ],
)
def test_a_usual_form_of_times_is_named_and_then_read(tmp_path, first, second, form):
    cells = f'u,p,"{first}"\nu,q,"{second}"\nv,p,"{second}"\n'
    write(tmp_path, "log.csv", HEADER + cells)
    with pytest.raises(ValueError, match="cannot be read as a time") as refused:
        events.read(tmp_path / "log.csv")
    assert f"; --time-format {form} would read them" in str(refused.value)
    log = events.read(tmp_path / "log.csv", time_format=form.strip("'"))
    found = [row[0] for row in rows(log, "timestamp")]
    assert [moment.date() for moment in found] == [datetime.date(2024, 5, 31), datetime.date(2024, 6, 1), datetime.date(2024, 6, 1)]
    assert (found[0].hour, found[0].minute) == ((14, 3) if ":03" in first else (14, 0) if "14" in first else (0, 0))


def test_where_the_order_of_day_and_month_is_open_both_are_named(tmp_path):
    write(tmp_path, "log.csv", HEADER + "u,p,05/06/2024\nu,q,06/07/2024\n")
    with pytest.raises(ValueError, match="--time-format %d/%m/%Y or --time-format %m/%d/%Y would read them$"):
        events.read(tmp_path / "log.csv")
    days = {form: rows(events.read(tmp_path / "log.csv", time_format=form), "timestamp")[0][0] for form in ("%d/%m/%Y", "%m/%d/%Y")}
    assert days == {"%d/%m/%Y": at(2024, 6, 5), "%m/%d/%Y": at(2024, 5, 6)}


def test_times_of_a_form_with_a_zone_become_utc_and_what_has_another_form_is_counted(tmp_path):
    write(
        tmp_path,
        "log.csv",
        HEADER + "u,p,31.05.2024 01:00 +0200\nu,q,31.05.2024 01:00 +0000\n" + "u,q,2024-05-31T02:00:00Z\n" * 200 + "u,q,soon\n",
    )
    log = events.read(tmp_path / "log.csv", time_format="%d.%m.%Y %H:%M %z")
    assert [row[0] for row in rows(log, "timestamp")][:3] == [at(2024, 5, 30, 23), at(2024, 5, 31, 1), at(2024, 5, 31, 2)]
    assert log.dropped == {"unreadable timestamp": 1}


def test_a_form_changes_nothing_where_times_are_no_text(tmp_path):
    path = parquet(
        tmp_path / "log.parquet",
        "SELECT 'u' AS user_id, 'p' || i AS product_id, TIMESTAMP '2024-05-31 10:00:00' AS timestamp FROM range(3) r(i)",
    )
    assert {row[0] for row in rows(events.read(path, time_format="%d.%m.%Y"), "timestamp")} == {at(2024, 5, 31, 10)}


@pytest.mark.parametrize("form", ["%H:%M", "%Q.%Y.%d", "day", "%Y'; DROP TABLE x; --"])
def test_a_form_that_says_no_day_is_refused(tmp_path, form):
    write(tmp_path, "log.csv", GOOD)
    with pytest.raises(ValueError, match="--time-format is .*; it must say the day"):
        events.read(tmp_path / "log.csv", time_format=form)


@pytest.mark.parametrize(
    "head, offered",
    [
        ("household_id,product_id,transaction_timestamp", "user_id=household_id,timestamp=transaction_timestamp"),
        ("Kunde,Artikel,Datum", "user_id=Kunde,product_id=Artikel,timestamp=Datum"),
        ("kunde_id,artikel_nr,Kaufdatum,Preis", "user_id=kunde_id,product_id=artikel_nr,timestamp=Kaufdatum"),
        ("Kunde Nr,Artikel,Zeit", "'user_id=Kunde Nr,product_id=Artikel,timestamp=Zeit'"),
        ("customer_name,cust_id,product_sku_code,bought_at_datetime", "user_id=cust_id,product_id=product_sku_code,timestamp=bought_at_datetime"),
        ("household_key,PRODUCT_ID,WEEK_NO,foo", "user_id=household_key,timestamp=COLUMN"),
    ],
)  # fmt: skip
def test_likely_columns_are_offered_and_not_taken(tmp_path, head, offered):
    write(tmp_path, "log.csv", head + "\n" + ",".join(["2024-05-01"] * (head.count(",") + 1)) + "\n")
    with pytest.raises(ValueError, match="has no column for") as refused:
        events.read(tmp_path / "log.csv")
    assert str(refused.value).endswith(f"; did you mean --columns {offered}?")


def test_what_is_offered_is_read(tmp_path):
    write(tmp_path, "log.csv", "Kunde;Artikel;Datum\n7;a;31.05.2024\n8;b;31.05.2024\n")
    log = events.read(tmp_path / "log.csv", {"user_id": "Kunde", "product_id": "Artikel", "timestamp": "Datum"}, time_format="%d.%m.%Y")
    assert rows(log, "user_id", "product_id", "timestamp") == [("7", "a", at(2024, 5, 31)), ("8", "b", at(2024, 5, 31))]


def workbook(path, *sheets):
    openpyxl = pytest.importorskip("openpyxl", reason="Excel sheets are an extra; `make extras` installs it.")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, sheet in enumerate(sheets):
        page = book.create_sheet(f"Sheet {number}")
        for row in sheet:
            page.append(row)
    book.save(path)
    return path


HEAD = ["customer", "item", "date", "price"]


def test_excel_sheets_are_read(tmp_path):
    one = [HEAD, [7, 'a, "b"', datetime.datetime(2024, 5, 31, 14, 3), 2.5], [None] * 4, [8, 17, datetime.date(2024, 6, 1), None]]
    path = workbook(tmp_path / "sales.xlsx", one, [], [["notes"], ["none"]], [HEAD, [9, "a", "2024-06-02", 1]])
    log = events.read(path)
    assert rows(log, "user_id", "product_id", "timestamp", "price") == [
        ("7", 'a, "b"', at(2024, 5, 31, 14, 3), 2.5), ("8", "17", at(2024, 6, 1), None), ("9", "a", at(2024, 6, 2), 1.0),
    ]  # fmt: skip
    assert log.fingerprint == sources.fingerprint(path)


def test_what_is_wrong_with_a_sheet_names_the_sheet(tmp_path, monkeypatch):
    path = workbook(tmp_path / "sales.xlsx", [["Kunde", "item", "date"], [1, 2, 3]])
    with pytest.raises(ValueError, match=f"{path} has no column for user_id.*did you mean --columns user_id=Kunde"):
        events.read(path)
    with pytest.raises(ValueError, match="empty.xlsx is an Excel file without a cell"):
        events.read(workbook(tmp_path / "empty.xlsx", []))
    for content in ("x", path.read_bytes()[:300], b"PK\x03\x04"):
        with pytest.raises(ValueError, match="broken.xlsx cannot be read as an Excel sheet"):
            events.read(write(tmp_path, "broken.xlsx", content))


def test_without_its_reader_an_excel_sheet_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="takes openpyxl; install it with: pip install 'shelfspace.excel.', or save it as CSV$"):
        events.read(write(tmp_path, "sales.xlsx", "x"))
