"""Day over day: what is kept of the vectors, which days are stopped, and the link that is turned."""

from __future__ import annotations

import json
import re
import shutil
from datetime import datetime

import ibis
import numpy as np
import pandas as pd
import pytest

from shelfspace.logs import events
from shelfspace.shop import write
from shelfspace.use import drift
from shelfspace.vectors.embeddings import Embeddings


@pytest.fixture
def days(small_run, tmp_path):
    """Two days that are the same run."""
    for name in ("2024-04-01", "2024-04-02"):
        shutil.copytree(small_run.folder, tmp_path / name, ignore=shutil.ignore_patterns("notebooks", "shop"))
    return tmp_path / "2024-04-02", tmp_path / "2024-04-01"


def changed(run, name, **values):
    (run / name).write_text(json.dumps(json.loads((run / name).read_text()) | values))


def test_the_same_day_again_is_kept_whole_and_passes(days):
    today, before = days
    found = drift.drift(today, before)
    assert found["neighbours_kept"] == {"word2vec": 1.0, "starspace": 1.0} and found["products"] == 150
    assert found["user_vectors_kept"] == pytest.approx(1) and found["moved"].cosine.min() == pytest.approx(1)
    assert drift.earlier(today) == [before] and drift.earlier(before) == []
    drift.check(today, [before])
    drift.check(today, [])


def test_what_moved_is_named(days):
    today, before = days
    name = json.loads((today / "decay.json").read_text())["embedding"]
    ids = pd.read_parquet(before / "products.parquet").product_id.to_numpy().astype(str)
    vectors = np.stack(pd.read_parquet(before / "product_embeddings" / f"{name}.parquet").sort_values("product_id").vector)
    vectors[7] *= -1
    Embeddings(ids, vectors).save(today / "product_embeddings" / f"{name}.parquet")
    found = drift.drift(today, before)
    assert found["moved"].product_id[0] == ids[7] and found["moved"].cosine[0] == pytest.approx(-1)
    assert 0.8 < found["neighbours_kept"][name] < 1
    rng = np.random.default_rng(0)
    Embeddings(ids, rng.normal(size=vectors.shape).astype(np.float32)).save(today / "product_embeddings" / f"{name}.parquet")
    assert drift.drift(today, before)["neighbours_kept"][name] < 3 * found["by_chance"]


def test_half_of_the_rows_missing_stops_a_day(days):
    today, before = days
    data = json.loads((today / "data.json").read_text())
    changed(today, "data.json", rows_read=data["rows_read"] // 2, events=data["events"] // 2)
    with pytest.raises(
        ValueError, match="2024-04-02 does not take the place of 2024-04-01: It has .* rows, and the days before had .* events"
    ):
        drift.check(today, [before])


def test_a_shifted_column_stops_a_day(days):
    """Product ids that no one knew, and customers who never come back to one."""
    today, before = days
    products = pd.read_parquet(today / "products.parquet")
    products.assign(product_id="x" + products.product_id).to_parquet(today / "products.parquet")
    changed(today, "data.json", repeat_share=0.01)
    said = " ".join(drift.unlike(today, [before]))
    assert "Only 0% of its events are on products that the day before knew." in said and "share of returns is 1%" in said


@pytest.mark.parametrize("value, stopped", [(0.02, True), (0.0, True), (1.0, False)])
def test_a_day_is_stopped_where_it_is_worse_beyond_chance(days, value, stopped):
    today, before = days
    metrics = json.loads((today / "metrics.json").read_text())
    left = json.loads((today / "recommender.json").read_text())["model"]
    was = metrics["models"][left]["mrr@20"]
    metrics["models"][left]["mrr@20"] = value or was - 0.2
    metrics["models"][left]["ci95"]["mrr@20"] = [max(0, value - 0.05), min(1, value + 0.05)]
    (today / "metrics.json").write_text(json.dumps(metrics))
    found = drift.worse(today, before)
    assert any("MRR@20" in sentence for sentence in found) == stopped
    (today / "metrics.json").unlink()  # nothing is measured yet, but the embeddings are
    assert drift.worse(today, before) == []
    checks = json.loads((today / "embeddings.json").read_text())
    checks["word2vec"] |= {"triplet_auc": 0.5, "triplet_ci95": [0.45, 0.55]}
    (today / "embeddings.json").write_text(json.dumps(checks))
    assert "share of right triplets by word2vec is 50.0%" in drift.worse(today, before)[0]


def test_a_stopped_day_is_no_day_before(days, tmp_path):
    today, before = days
    (before / "report.html").unlink()
    assert drift.earlier(today) == [] and drift.earlier(tmp_path / "by-hand") == []


def test_the_link_is_turned_to_the_newer_day(days):
    today, before = days
    assert drift.publish(before).resolve() == before.resolve() and drift.publish(today).resolve() == today.resolve()
    assert not [path for path in today.parent.iterdir() if path.name.startswith(".")]
    (today.parent / "current").unlink()
    (today.parent / "current").mkdir()
    with pytest.raises(ValueError, match="current is no link"):
        drift.publish(today)


DAY, NEXT = pd.Timestamp("2024-03-25"), pd.Timestamp("2024-03-26")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Three whole weeks of a shop's events, of which the last day is `DAY`."""
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    write.simulate(path, 2000, 150, 30, 0)
    return events.read(path).table.filter(lambda t: t.timestamp < NEXT).to_pandas()


def stopped(before, day, until=NEXT, runs=()) -> str:
    """What is said against a day after those before."""
    try:
        drift.check_log(ibis.memtable(pd.concat([before, day])), until.to_pydatetime(), runs)
    except ValueError as error:
        return str(error)
    return ""


def test_deliveries_by_hand():
    rows = [
        ("2024-03-01 23:00", "Ada", "lamp", "view"),
        ("2024-03-02 00:00", "Ada", "lamp", "view"),
        ("2024-03-02 08:00", "Bob", "lamp", "view"),
        ("2024-03-03 08:00", "Ada", "lamp", "view"),
        ("2024-03-03 08:00", "Ada", "lamp", "view"),
        ("2024-03-03 23:59", "Cyd", "sofa", "purchase"),
    ]
    table = pd.DataFrame(rows, columns=["timestamp", "user_id", "product_id", "event"]).assign(price=[1.0, 1, 1, 1.2, 1.2, 4])
    table["timestamp"] = pd.to_datetime(table.timestamp)
    days = drift.deliveries(ibis.memtable(table), datetime(2024, 3, 4))
    assert list(days.index) == [0, 1]  # the first day of the log may be a part of one
    assert days.events.tolist() == [3, 2] and days["purchase events"].tolist() == [1, 0]
    assert days.customers.tolist() == [2, 2] and days.products.tolist() == [2, 1]
    assert days.once.tolist() == pytest.approx([2 / 3, 1]) and days["with products"].tolist() == [1, 1]
    assert days["near prices"].tolist() == [1, 1]
    assert days["known customers"].tolist() == pytest.approx([2 / 3, 1 / 2]) and days["known products"].tolist() == pytest.approx(
        [2 / 3, 1]
    )


def test_good_days_pass(log):
    for back in range(4):
        until = NEXT - pd.Timedelta(days=back)
        assert not stopped(log[log.timestamp < until], log[:0], until)
    assert not stopped(log[log.timestamp < "2024-03-06"], log[:0], pd.Timestamp("2024-03-06"))  # too few days to tell


@pytest.mark.parametrize("spoil, why", [
    (lambda day: day.sample(frac=0.5, random_state=0), "It has 616 events, where 1,083 are usual"),
    (lambda day: day[:0], "It has 0 events"),
    (lambda day: pd.concat([day, day[: len(day) // 3]]), r"Only 75% of its events repeat no other to the letter"),
    (lambda day: day.assign(user_id=day.product_id, product_id=day.user_id), "have customers met before.*Only 0% of its events have products met before"),
    (lambda day: day.assign(event=day.event.replace("view", "purchase")), r"It has \d+ purchase events.*It has 0 view events"),
    (lambda day: day[day.event != "purchase"], "days before. 2024-03-25: It has 0 purchase events, where .. are usual.$"),
    (lambda day: day.assign(category=day.brand, brand=None), "Only 0% of its events have brands.*have categories met before"),
    (lambda day: day.assign(price=100 * day.price), "days before. 2024-03-25: Only 0% of its events have prices near those before, where 100% are usual.$"),
])  # fmt: skip
def test_a_spoiled_delivery_is_stopped_for_what_it_is(log, spoil, why):
    last = log.timestamp >= DAY
    assert re.search(why, stopped(log[~last], spoil(log[last])))


def test_a_kind_of_event_that_is_gone_is_missed_where_it_was_usual():
    days = pd.DataFrame({"events": [700.0] * 5, "purchase events": [0.0, 16, 16, 16, 16], "search events": [0.0, 5, 5, 5, 5]})
    assert drift.unlike_before(days) == {0: ["It has 0 purchase events, where 16 are usual."]}


def test_all_days_since_the_last_run_are_looked_at(log):
    early = log[log.timestamp < DAY]
    spoiled = early[(early.timestamp < DAY - pd.Timedelta(days=1)) | (early.index % 3 == 0)]
    assert not stopped(spoiled, log[log.timestamp >= DAY], runs=["2024-03-25"])
    assert "2024-03-24: It has" in stopped(spoiled, log[log.timestamp >= DAY], runs=["2024-03-24", "2024-03-23"])
