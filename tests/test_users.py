"""User embeddings: the formula by hand, its limits, and the relational form against the array kernel."""

import ibis
import numpy as np
import pandas as pd
import pytest

from shelfspace.files import run_files
from shelfspace.logs import engines
from shelfspace.models import relational, users
from shelfspace.sequences.arrays import Examples
from shelfspace.vectors.embeddings import Embeddings


def history(items, days, target=0) -> Examples:
    """One example whose history is `items` seen at `days`."""
    n = len(items)
    return Examples(
        np.array(items, dtype=np.int32), np.array(days, dtype=float), np.zeros(n, np.int8), np.array([0]), np.array([n]),
        np.array([target], dtype=np.int32), np.zeros(1, np.int8), np.array(["u"]),
    )  # fmt: skip


VECTORS = np.array([[1, 0], [0, 1], [3, 4], [0, 0]], dtype=np.float32)


def test_weights_by_hand():
    # Ages 2, 1 and 0 days, d = ln 2: weights halve per day, 1/4 : 1/2 : 1 = 1/7, 2/7, 4/7.
    weights = users.history_weights(history([0, 1, 2], [10, 11, 12]), 4, np.log(2)).toarray()
    np.testing.assert_allclose(weights, [[1 / 7, 2 / 7, 4 / 7, 0]], rtol=1e-6)
    embedding = users.user_embeddings(history([0, 1, 2], [10, 11, 12]), VECTORS, np.log(2))
    np.testing.assert_allclose(embedding, [[(1 + 12) / 7, (2 + 16) / 7]], rtol=1e-6)


@pytest.mark.parametrize("decay_time, expected", [("days", [3, 1, 0]), ("log_days", [np.log(4), np.log(2), 0]), ("rank", [2, 1, 0])])
def test_ages(decay_time, expected):
    ages, offsets = users.ages(history([0, 1, 2], [7, 9, 10]), decay_time)
    np.testing.assert_allclose(ages, expected)
    assert offsets.tolist() == [0, 3]


def test_no_decay_is_the_mean_and_a_huge_one_the_last_product():
    seen = history([0, 1, 2], [0, 400, 900])
    np.testing.assert_allclose(users.user_embeddings(seen, VECTORS, 0.0), VECTORS[:3].mean(axis=0)[None], rtol=1e-6)
    np.testing.assert_allclose(users.user_embeddings(seen, VECTORS, 1e3), VECTORS[[2]])


def test_a_product_seen_twice_counts_twice():
    weights = users.history_weights(history([0, 1, 0], [0, 0, 0]), 2, 0.5).toarray()
    np.testing.assert_allclose(weights, [[2 / 3, 1 / 3]], rtol=1e-6)


def test_unknown_products_leave_the_weights_of_the_others_summing_to_one():
    known = np.array([True, True, False, False])
    seen = history([0, 1, 2], [0, 1, 5000])  # the newest is unknown, and far away: no underflow
    weights = users.history_weights(seen, 4, 1.0, known=known).toarray()
    np.testing.assert_allclose(weights, [[1 / (1 + np.e), np.e / (1 + np.e), 0, 0]], rtol=1e-6)
    nobody = users.history_weights(seen, 4, 1.0, known=np.zeros(4, bool)).toarray()
    assert not nobody.any()


def test_shifting_all_times_changes_nothing():
    one, two = (users.user_embeddings(history([0, 1, 2], np.array([1, 4, 6.5]) + by), VECTORS, 0.3) for by in (0, 365))
    np.testing.assert_allclose(one, two, rtol=1e-6)


def test_bad_decay_is_refused():
    with pytest.raises(ValueError, match="0 .the plain mean. or more"):
        users.history_weights(history([0], [0]), 4, -1)
    with pytest.raises(ValueError, match="one of days, log_days, rank"):
        users.ages(history([0], [0]), "weeks")


@pytest.mark.parametrize("decay_time", users.DECAY_TIMES)
@pytest.mark.parametrize("decay", [0.0, 0.2, 3.0])
def test_relational_form_agrees_with_the_array_kernel(decay, decay_time):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(40, 6)).astype(np.float32)
    known = rng.random(40) < 0.9
    lengths = rng.integers(1, 30, size=50)
    rows = pd.DataFrame({"user": np.repeat(np.arange(50), lengths), "item": rng.integers(40, size=lengths.sum())})
    rows["timestamp"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(60 * 86_400, size=len(rows)), unit="s")
    rows = rows.sort_values(["user", "timestamp"], kind="stable").reset_index(drop=True)
    rows["position"] = rows.groupby("user").cumcount()
    ends = np.cumsum(lengths)
    days = (rows.timestamp - pd.Timestamp(0)) / pd.Timedelta(days=1)
    seen = Examples(
        rows.item.to_numpy(np.int32), days.to_numpy(), np.zeros(len(rows), np.int8), ends - lengths, ends,
        np.zeros(50, np.int32), np.zeros(50, np.int8), np.arange(50).astype(str),
    )  # fmt: skip
    kernel = users.user_embeddings(seen, vectors, decay, decay_time, known)
    history_table = ibis.memtable(rows.assign(user_id=rows.user.astype(str), product_id=rows.item.astype(str)))
    table = ibis.memtable(pd.DataFrame({"product_id": np.flatnonzero(known).astype(str), "vector": list(vectors[known])}))
    queried = relational.relational(history_table, table, 6, decay, decay_time).to_pandas().set_index("user_id")
    assert len(queried) == 50 - (~np.isin(seen.user_ids, queried.index)).sum()
    for user, vector in queried.vector.items():
        np.testing.assert_allclose(vector, kernel[int(user)], atol=1e-5)
    absent = ~np.isin(seen.user_ids, queried.index)
    assert not kernel[absent].any()


def test_the_steps_of_a_scheduler_make_what_the_one_expression_makes(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"user_id": np.repeat(list("abcd"), 6), "position": np.tile(np.arange(6), 4).astype("int32")})
    frame["product_id"] = rng.integers(8, size=24).astype(str)
    frame["timestamp"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(7 * frame.position + 1, unit="h")
    frame["role"] = np.where((frame.position == 4) & (frame.user_id != "a"), "target", "history")  # a has no target
    frame.to_parquet(tmp_path / "sequences.parquet")
    vectors = rng.normal(size=(6, 3)).astype(np.float32)  # products 6 and 7 have none
    Embeddings(np.arange(6).astype(str), vectors).save(tmp_path / "product_embeddings" / "starspace.parquet")
    run_files.write_json(tmp_path / "decay.json", {"embedding": "starspace", "decay": 0.7, "decay_time": "log_days"})
    connection = engines.connect()
    for step in relational.STEPS:
        relational.materialise(connection, tmp_path, step)
    made = pd.read_parquet(tmp_path / "user_embeddings.parquet").set_index("user_id").vector

    seen = pd.read_parquet(tmp_path / "user_tables" / "histories.parquet")
    assert seen.groupby("user_id").size().to_dict() == {"a": 6, "b": 4, "c": 4, "d": 4}
    one = relational.relational(
        relational.histories(ibis.read_parquet(tmp_path / "sequences.parquet")),
        ibis.read_parquet(tmp_path / "product_embeddings" / "starspace.parquet"), 3, 0.7, "log_days",
    ).to_pandas().set_index("user_id").vector  # fmt: skip
    assert set(made.index) == set(one.index) == set("abcd")
    for user in one.index:
        np.testing.assert_allclose(made[user], one[user], rtol=1e-6)
    with pytest.raises(ValueError, match="step is 'means'; it must be one of histories, weights, sums, averages"):
        relational.materialise(connection, tmp_path, "means")


def test_written_user_embeddings_are_fixed_size_lists(tmp_path):
    import pyarrow.parquet as pq

    rows = pd.DataFrame({"user_id": ["u", "v"], "vector": [[1.0, 2.0], [3.0, 4.0]]})
    rows.to_parquet(tmp_path / "rows.parquet")
    query = engines.read(engines.connect(), tmp_path / "rows.parquet").order_by("user_id")
    relational.write(query, tmp_path / "out" / "user_embeddings.parquet", 2)
    written = pq.read_table(tmp_path / "out" / "user_embeddings.parquet")
    assert str(written.schema.field("vector").type) == "fixed_size_list<element: float>[2]"
    assert written["vector"].to_pylist() == [[1, 2], [3, 4]]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["user_embeddings.parquet"]


def test_events_weigh_by_hand():
    # Ages 2, 1 and 0 days, d = ln 2, a view and two carts of which each counts 3: 1/4 : 3/2 : 3.
    seen = history([0, 1, 2], [10, 11, 12])
    seen = Examples(*(np.array([0, 1, 1], np.int8) if name == "events" else value for name, value in vars(seen).items()))
    weights = users.history_weights(seen, 4, np.log(2), event_weights=(1, 3, 5)).toarray()
    np.testing.assert_allclose(weights, [[1 / 19, 6 / 19, 12 / 19, 0]], rtol=1e-6)
    plain = users.history_weights(seen, 4, np.log(2)).toarray()
    assert np.array_equal(users.history_weights(seen, 4, np.log(2), event_weights=(1, 1, 1)).toarray(), plain)


def test_the_relational_sums_do_not_depend_on_the_order_of_the_rows():
    """Numbers of many sizes, whose sums in floating point would differ in their last bits."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"user_id": "u", "product_id": rng.permutation(400).astype(str), "weight": np.exp(-8 * rng.random(400))})
    vectors = ibis.memtable(pd.DataFrame({"product_id": np.arange(400).astype(str), "vector": list(rng.normal(size=(400, 3)))}))
    found = []
    for order in (rows.index, rows.index[::-1], rng.permutation(400)):
        table = relational.sums(ibis.memtable(rows.loc[order]), vectors, 3).execute()
        found.append(table[["total", "d0", "d1", "d2"]].to_numpy())
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    exact = np.array(
        [[np.sum(rows.weight), *(rows.weight.to_numpy() @ np.stack(vectors.execute().set_index("product_id").loc[rows.product_id].vector))]]
    )
    np.testing.assert_allclose(found[0], exact, atol=400 * 2.0**-32)
