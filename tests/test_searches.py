"""Searches among the visits: where they stand, and that none tells what came next."""

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from shelfspace.logs import engines
from shelfspace.sequences import arrays
from shelfspace.trials import searches

TABLE = pa.Table.from_pandas(
    pd.DataFrame({
        "user_id": ["u", "u", "u", "v", "v"],
        "position": np.array([0, 1, 2, 0, 1], np.int32),
        "product_id": ["a", "b", "c", "b", "a"],
        "timestamp": pd.to_datetime([f"2024-01-{at}" for at in ("01 10:00", "01 10:10", "01 10:20", "02 00:00", "03 00:00")]),
        "event": "view",
        "session": np.array([1, 1, 1, 1, 2], np.int32),
        "role": ["history", "history", "target", "history", "target"],
        "split": ["train", "train", "test", "train", "valid"],
    }).astype({name: "category" for name in ("user_id", "product_id", "event", "role", "split")}),
    preserve_index=False,
)  # fmt: skip
ASKED = pd.DataFrame(
    [
        ("u", "2024-01-01 09:59", "Red  Phone"),
        ("u", "2024-01-01 10:05", "case"),
        ("u", "2024-01-01 10:06", "case"),
        ("u", "2024-01-01 10:15", "leads to the target"),
        ("u", "2024-01-01 11:00", "after all"),
        ("w", "2024-01-01 11:00", "of a stranger"),
    ],
    columns=["user_id", "timestamp", "query"],
).assign(timestamp=lambda rows: pd.to_datetime(rows.timestamp))


def of_log() -> pd.DataFrame:
    view = {"user_id": ["u"], "timestamp": [pd.Timestamp("2024-01-01")], "query": [None], "event": ["view"]}
    log = pd.concat([ASKED.assign(event="search"), pd.DataFrame(view)])
    return searches.of_log(ibis.memtable(log.assign(row=range(len(log))))).to_pandas()


def test_searches_stand_before_the_visit_that_came_next_and_never_before_a_target():
    found = searches.insert(TABLE, of_log()).to_pandas()
    rows = [tuple(row) for row in found[["user_id", "position", "product_id", "role", "split"]].astype(object).to_numpy()]
    assert rows == [
        ("u", 0, "? red phone", "history", "train"),
        ("u", 1, "a", "history", "train"),
        ("u", 2, "? case", "history", "train"),
        ("u", 3, "b", "history", "train"),
        ("u", 4, "c", "target", "test"),
        ("v", 0, "b", "history", "train"),
        ("v", 1, "a", "target", "valid"),
    ]


def test_all_that_works_on_sequences_works_on_it():
    table = searches.insert(TABLE, of_log())
    assert list(arrays.corpus(table)) == [["? red phone", "a", "? case", "b"], ["b"]]
    ids = np.array(["? case", "? red phone", "a", "b", "c"])
    test = arrays.examples(table, ids, "test")
    assert test.items[test.start[0] : test.end[0]].tolist() == [1, 2, 0, 3] and test.target.tolist() == [4]


@pytest.mark.parametrize("left_out", [[], ["query"]], ids=["queries", "no column of queries"])
def test_queries_are_cleaned_and_written_by_the_engine(left_out, tmp_path):
    log = ASKED.assign(event="search", row=range(len(ASKED)))
    log = pd.concat([log.iloc[::-1], log.iloc[:1].assign(query=[" \t\u2003"], row=9)]).drop(columns=left_out)
    log.to_parquet(tmp_path / "events.parquet")
    events = engines.read(engines.connect(), tmp_path / "events.parquet")
    engines.write(searches.of_log(events), tmp_path / "searches.parquet")
    found = pd.read_parquet(tmp_path / "searches.parquet")
    assert list(found.columns) == ["user_id", "timestamp", "query"] and str(found.timestamp.dtype) == "datetime64[us]"
    assert list(found["query"]) == ([] if left_out else ["red phone", "case", "case", *ASKED["query"][3:]])


def test_without_searches_nothing_changes():
    same = searches.insert(TABLE, ASKED[:0])
    assert same.to_pandas().astype(str).equals(TABLE.to_pandas().astype(str))


def test_a_product_that_looks_like_a_query_is_refused():
    products = pa.array(["? a"] * TABLE.num_rows).dictionary_encode()
    with pytest.raises(ValueError, match="other ids"):
        searches.insert(TABLE.set_column(2, "product_id", products), ASKED)
