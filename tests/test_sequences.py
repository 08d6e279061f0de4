"""Sequences: visits, targets, splits, and the promise that no target reaches what is trained on."""

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from shelfspace.sequences import arrays, prepare


def log(rows, **columns) -> ibis.Table:
    """Canonical events from (user, product, minute, event) rows."""
    frame = pd.DataFrame(rows, columns=["user_id", "product_id", "minute", "event"])
    frame["timestamp"] = pd.Timestamp("2024-03-04") + pd.to_timedelta(frame.pop("minute"), unit="min")
    frame["row"] = np.arange(len(frame))
    return ibis.memtable(frame.assign(**columns))


def random_log(users=200, products=30, days=20, seed=0) -> ibis.Table:
    rng = np.random.default_rng(seed)
    n = users * 12
    names = np.array(arrays.EVENT_LEVELS)
    rows = {
        "user_id": [f"u{u:03d}" for u in rng.integers(users, size=n)],
        "product_id": [f"p{p:02d}" for p in rng.integers(products, size=n)],
        "minute": rng.integers(days * 24 * 60, size=n),
        "event": names[rng.choice(3, p=[0.8, 0.15, 0.05], size=n)],
    }
    return log(pd.DataFrame(rows).itertuples(index=False))


def table(expression) -> pa.Table:
    rows = expression.to_pyarrow()
    encoded = [rows[c].dictionary_encode() if rows[c].type == pa.string() else rows[c] for c in rows.column_names]
    return pa.table(dict(zip(rows.column_names, encoded)))


def test_consecutive_events_on_one_product_are_one_visit_with_its_strongest_event():
    events = log([
        ("u", "a", 0, "view"), ("u", "a", 1, "add_to_cart"), ("u", "a", 2, "view"), ("u", "b", 3, "view"), ("u", "a", 4, "purchase"),
    ])  # fmt: skip
    visits = prepare.visits(events).order_by("position").to_pandas()
    assert visits.product_id.tolist() == ["a", "b", "a"]
    assert visits.event.tolist() == ["add_to_cart", "view", "purchase"]
    assert visits.timestamp.dt.minute.tolist() == [0, 3, 4]
    assert visits.position.tolist() == [0, 1, 2]
    assert visits.add_to_cart.tolist() == [True, False, False]


def test_sessions_end_after_silence_or_with_the_logs_own_session():
    rows = [("u", "a", 0, "view"), ("u", "b", 30, "view"), ("u", "c", 61, "view"), ("v", "a", 62, "view")]
    by_gap = prepare.visits(log(rows), session_gap=30).order_by("user_id", "position").to_pandas()
    assert by_gap.session.tolist() == [1, 1, 2, 1]
    own = prepare.visits(log(rows, session_id=["x", "y", "y", None])).order_by("user_id", "position").to_pandas()
    assert own.session.tolist() == [1, 2, 2, 1]


def test_a_visit_ends_with_its_session():
    """Who comes back to a product the next day visits it again, and when; by silence as by the log's own sessions."""
    rows = [("u", "a", 0, "view"), ("u", "a", 10, "add_to_cart"), ("u", "a", 1500, "view"), ("u", "b", 1501, "view")]
    for events in (log(rows), log(rows, session_id=["x", "x", "y", "y"])):
        visits = prepare.visits(events).order_by("position").to_pandas()
        assert visits.product_id.tolist() == ["a", "a", "b"] and visits.session.tolist() == [1, 2, 2]
        assert visits.event.tolist() == ["add_to_cart", "view", "view"] and visits.position.tolist() == [0, 1, 2]
        assert (visits.timestamp - visits.timestamp[0]).dt.total_seconds().tolist() == [0, 90_000, 90_060]


def test_events_of_the_same_time_keep_the_order_of_the_file():
    events = log([("u", p, 5, "view") for p in "dacb"])
    assert prepare.visits(events).order_by("position").to_pandas().product_id.tolist() == list("dacb")


def test_searches_are_no_visits():
    events = log([("u", "a", 0, "view"), ("u", None, 1, "search"), ("u", "a", 2, "view")])
    assert prepare.visits(events).count().execute() == 1


def test_short_users_are_dropped_and_the_last_visit_is_the_target():
    rows = [("long", p, i, "view") for i, p in enumerate("abcde")] + [("short", p, i, "view") for i, p in enumerate("ababa")]
    out = prepare.sequences(log(rows), min_products=5).to_pandas()
    assert set(out.user_id) == {"long"}
    assert out.role.tolist() == ["history"] * 4 + ["target"]
    assert out.split.tolist()[:4] == ["train"] * 4


def test_target_event_takes_the_last_such_visit_and_leaves_out_what_follows():
    kinds = ["view", "view", "add_to_cart", "view", "view"]
    out = prepare.sequences(log([("u", p, i, k) for i, (p, k) in enumerate(zip("abcde", kinds))]), target_event="add_to_cart")
    rows = out.to_pandas()
    assert rows.product_id.tolist() == ["a", "b", "c"]
    assert rows.role.tolist() == ["history", "history", "target"]
    assert rows.event.iloc[-1] == "add_to_cart"


def test_users_without_a_target_still_train_the_embeddings():
    out = prepare.sequences(log([("u", p, i, "view") for i, p in enumerate("abcde")]), target_event="purchase")
    assert out.to_pandas().role.tolist() == ["history"] * 5


@pytest.mark.parametrize("target_event", ["", "purchase"])
def test_last_product_has_one_target_per_user_and_the_asked_shares(target_event):
    rows = prepare.sequences(random_log(users=600), target_event=target_event).to_pandas()
    targets = rows[rows.role == "target"]
    assert targets.user_id.is_unique
    shares = targets.split.value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.3, abs=0.06) and shares["valid"] == pytest.approx(0.1, abs=0.05)
    newest_history = rows[rows.role == "history"].groupby("user_id").timestamp.max().rename("newest")
    both = targets.set_index("user_id").join(newest_history)
    assert (both.timestamp >= both.newest).all()


def test_a_users_split_stays_when_the_log_grows():
    events = random_log()
    small = prepare.sequences(events.filter(events.user_id < "u100")).to_pandas()
    large = prepare.sequences(events).to_pandas()
    splits = [frame[frame.role == "target"].set_index("user_id").split for frame in (small, large)]
    assert splits[1].reindex(splits[0].index).equals(splits[0])


def test_what_a_session_does_after_the_cut_labels_nothing_before_it():
    """The phone is viewed before the cut, and bought after it, within one session: neither the purchase nor what follows counts."""
    day = 24 * 60
    early = [("u", p, i, "view") for i, p in enumerate("abcd")]
    over = [("u", "e", 5 * day - 2, "view"), ("u", "e", 5 * day + 1, "purchase"), ("u", "f", 5 * day + 2, "view")]
    late = [("v", p, 10 * day + i - 5, "view") for i, p in enumerate("abcdef")]  # the last of them ends the log
    events = log([*early, *over, *late])
    rows = prepare.sequences(events, protocol="time", test_days=5, valid_share=1e-9, test_share=1e-9).to_pandas()
    of_u = rows[rows.user_id == "u"]
    assert of_u.product_id.tolist() == list("abcde") and (of_u.event == "view").all() and (of_u.split == "train").all()
    assert of_u.position.tolist() == list(range(5)) and (rows[rows.user_id == "v"].split == "test").all()
    bought = prepare.sequences(events, protocol="time", test_days=5, target_event="purchase", valid_share=1e-9, test_share=1e-9).to_pandas()
    assert (bought.event != "purchase").all()


def test_another_seed_is_another_split():
    one, two = (prepare.sequences(random_log(), seed=seed).to_pandas() for seed in (0, 1))
    assert one.product_id.equals(two.product_id) and not one.split.equals(two.split)


def test_protocol_time_trains_before_the_cut_and_tests_every_later_visit_of_a_session_after_it():
    rows = prepare.sequences(random_log(days=20), protocol="time", test_days=5, session_gap=600).to_pandas()
    cut = rows.timestamp.max() - pd.Timedelta(days=5)
    assert (rows[rows.split != "test"].timestamp < cut).all()
    assert (rows[rows.split == "test"].timestamp >= cut).all()
    tested = rows[rows.split == "test"].groupby(["user_id", "session"]).role.agg(list)
    assert all(roles == ["history"] + ["target"] * (len(roles) - 1) for roles in tested)
    assert (rows.role == "target").sum() > 50


def test_protocol_time_gives_training_targets_from_the_last_session_before_the_cut():
    rows = prepare.sequences(random_log(days=20), protocol="time", test_days=5, session_gap=4000).to_pandas()
    train = rows[rows.split == "train"]
    asked = train[train.role == "target"].user_id.unique()
    assert 0.1 < len(asked) / train.user_id.nunique() < 0.4  # not all last sessions have a second visit
    for _, visits in train[train.user_id.isin(asked)].groupby("user_id"):
        last = visits[visits.session == visits.session.max()]
        assert last.role.tolist() == ["history"] + ["target"] * (len(last) - 1)
        assert (visits[visits.session < visits.session.max()].role == "history").all()


@pytest.mark.parametrize("protocol", prepare.PROTOCOLS)
def test_no_target_reaches_the_corpus_a_history_or_a_prefix_example(protocol):
    rows = table(prepare.sequences(random_log(), protocol=protocol, session_gap=600))
    frame = rows.to_pandas()
    product_ids = np.array(sorted(frame.product_id.unique()))
    trained = frame[(frame.role == "history") & (frame.split == "train")]
    corpus = arrays.corpus(rows)
    assert corpus.product_ids[corpus.items].tolist() == trained.product_id.tolist()
    assert [len(list_) for list_ in corpus] == trained.groupby("user_id", sort=True).size().tolist()
    for split in ("train", "valid", "test"):
        owners = set(frame.user_id[(frame.role == "target") & (frame.split == split)])
        part = arrays.of_split(rows, split).to_pandas()  # all that these users did, and nobody else
        expected = frame[frame.user_id.isin(owners)].reset_index(drop=True)
        pd.testing.assert_frame_equal(part.astype(str), expected.astype(str))
        part = frame if split == "train" else part
        position = part.groupby("user_id").cumcount().to_numpy()
        target_rows = set(np.flatnonzero(part.role == "target"))
        chosen = arrays.examples(rows, product_ids, split, prefixes=5 if split == "train" else 0)
        assert (chosen.lengths == position[chosen.end]).all()  # from the user's first visit to just before the target
        assert (product_ids[chosen.target] == part.product_id.to_numpy()[chosen.end]).all()
        assert (part.user_id.to_numpy()[chosen.start] == chosen.user_ids).all()
        for start, end in zip(chosen.start, chosen.end):
            if protocol == "last-product" or split == "train" and end not in target_rows:
                assert not target_rows.intersection(range(start, end))
            assert not {"test", "valid"} & set(part.split[start:end]) or split != "train"


def test_prefixes_are_the_last_training_visits_of_each_user():
    rows = table(prepare.sequences(log([("u", p, i, "view") for i, p in enumerate("abcdefg")]), seed=1))
    product_ids = np.array(list("abcdefg"))
    found = arrays.examples(rows, product_ids, "train", prefixes=2)
    role, split = rows["role"].to_pylist()[-1], rows["split"].to_pylist()[-1]
    expected = ["e", "f"] + (["g"] if (role, split) == ("target", "train") else [])
    assert product_ids[found.target].tolist() == expected


@pytest.mark.parametrize("protocol", prepare.PROTOCOLS)
def test_latest_has_every_user_once_up_to_the_last_target(protocol):
    rows = table(prepare.sequences(random_log(), protocol=protocol, session_gap=600, target_event="purchase"))
    frame = rows.to_pandas()
    product_ids = np.array(sorted(frame.product_id.unique()))
    found = arrays.latest(rows, product_ids)
    assert found.user_ids.tolist() == sorted(frame.user_id.unique())
    for example, (_, own) in zip(range(len(found)), frame.groupby("user_id", sort=True)):
        targets = np.flatnonzero(own.role == "target")
        until = targets[-1] if len(targets) else len(own)
        history = own.product_id.to_numpy()[:until]
        assert product_ids[found.items[found.start[example] : found.end[example]]].tolist() == history.tolist()
        expected = own.product_id.iloc[until] if len(targets) else None
        assert (product_ids[found.target[example]] if found.target[example] >= 0 else None) == expected


def test_passes_spend_a_budget_within_limits():
    assert [arrays.passes(size, 1000) for size in (0, 1, 100, 150, 10_000)] == [100, 100, 10, 7, 3]
    assert arrays.passes(10_000, 1000, least=2) == 2


def test_seen_tells_whether_the_target_was_in_the_history():
    events = [("u", p, i, "view") for i, p in enumerate("abcdea")] + [("v", p, i, "view") for i, p in enumerate("abcde")]
    rows = table(prepare.sequences(log(events), test_share=0.98, valid_share=0.01))
    found = arrays.examples(rows, np.array(list("abcde")), "test")
    assert dict(zip(found.user_ids, found.seen())) == {"u": True, "v": False}
    assert found[found.user_ids == "v"].seen().tolist() == [False]


def test_window_keeps_its_start_and_not_its_end():
    times = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-02 12:00", "2024-01-03"], format="ISO8601")
    events = ibis.memtable(pd.DataFrame({"user_id": "u", "timestamp": times, "row": range(4)}))

    def rows(*bounds):
        return prepare.window(events, *bounds).order_by("row").to_pandas()["row"].tolist()

    assert rows("2024-01-02", "2024-01-03") == [1, 2]
    assert rows("2024-01-02T12:00") == [2, 3] and rows("", "2024-01-02") == [0]
    assert rows("2024-01-02T01:00+01:00", "2024-01-02T10:00-02:00") == [1]  # from midnight to noon, UTC
    assert prepare.window(events) is events
    with pytest.raises(ValueError, match="since is 'May'; it must be empty, or a date"):
        rows("May")
    with pytest.raises(ValueError, match="since must be the earlier"):
        rows("2024-01-02", "2024-01-02")
    with pytest.raises(ValueError, match="no event from 2024-02-01 to its end; its events are from 2024-01-01 .* to 2024-01-03"):
        rows("2024-02-01")


def test_last_days_keeps_the_end_of_the_log():
    events = random_log(days=20)
    kept = prepare.last_days(events, 7)
    assert kept.timestamp.min().execute() > events.timestamp.max().execute() - pd.Timedelta(days=7)
    assert 0.2 < kept.count().execute() / events.count().execute() < 0.5
    assert prepare.last_days(events, 0) is events
    with pytest.raises(ValueError, match="0 .the whole log."):
        prepare.last_days(events, -1)


def test_permuting_the_files_rows_changes_nothing():
    frame = random_log().to_pandas().drop_duplicates(["user_id", "timestamp"])
    shuffled = frame.sample(frac=1, random_state=3)
    one, two = (prepare.sequences(ibis.memtable(f.assign(row=np.arange(len(f))))).to_pandas() for f in (frame, shuffled))
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"protocol": "random"}, "must be one of last-product, time"),
        ({"target_event": "click"}, "one of view, add_to_cart, purchase"),
        ({"min_products": 1}, "at least 2"),
        ({"test_days": 0}, "positive number of days"),
        ({"test_share": 0.6, "valid_share": 0.5}, "leave some users to train"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        prepare.sequences(random_log(), **wrong)


def test_all_users_too_short_is_one_sentence():
    events = log([("u", p, i, "view") for i, p in enumerate("abc")])
    rows = prepare.sequences(events)
    with pytest.raises(ValueError, match="No user has 5 distinct products .the longest history has 3."):
        prepare.check(rows, events, 5)


def test_a_split_without_targets_is_one_sentence():
    events = log([("u", p, i, "view") for i, p in enumerate("abcde")])
    rows = prepare.sequences(events, target_event="purchase")
    with pytest.raises(ValueError, match="No purchase visit is left as a target of the valid users"):
        prepare.check(rows, events, 5, "purchase")


def test_products_missing_from_the_product_table_are_refused():
    rows = table(prepare.sequences(random_log()))
    with pytest.raises(ValueError, match="products.parquet lacks"):
        arrays.examples(rows, np.array(["p00", "p01"]), "test")


def test_goals_by_hand():
    """Two users; the first buys twice in the first session and nothing in the second."""
    view, bought = 0, arrays.EVENT_LEVELS.index("purchase")
    events = np.array([view, bought, view, bought, view, view, bought], np.int8)
    given = arrays.Corpus(
        np.array(list("ab")), np.zeros(7, np.int32), np.array([0, 5, 7]), None, events, np.array([1, 1, 1, 1, 2, 2, 2], np.int32)
    )
    assert arrays.goals(given).tolist() == [3, 3, 3, 3, -1, 6, 6]  # the second user's session 2 is not the first's


@pytest.mark.parametrize("protocol", prepare.PROTOCOLS)
def test_what_may_train_is_one_thing_for_all(protocol):
    """All rows of split train; and the examples of every split say which part of their own sequence stands in it."""
    rows = table(prepare.sequences(random_log(), protocol=protocol, min_products=3, test_days=5, session_gap=600))
    frame, ids = rows.to_pandas(), np.array([f"p{p:02d}" for p in range(30)])
    trains = frame[frame.split == "train"]
    corpus = arrays.corpus(rows, targets=True)
    assert corpus.product_ids[corpus.items].tolist() == trains.product_id.tolist()
    assert corpus.user_ids.tolist() == list(dict.fromkeys(trains.user_id))
    assert protocol != "last-product" or len(arrays.corpus(rows).items) < len(trains)
    of_user = dict(zip(corpus.user_ids, corpus))
    parts = [arrays.examples(rows, ids, split, prefixes=3) for split in ("train", "valid", "test")] + [arrays.latest(rows, ids)]
    for part in parts:
        assert len(part)
        for i in range(len(part)):
            counted = ids[part.items[part.start[i] : part.trained[i]]].tolist()
            assert counted == of_user.get(part.user_ids[i], [])
            assert np.array_equal(part[i : i + 1].trained, part.trained[i : i + 1])


def test_the_corpus_carries_events_and_sessions():
    events = log([("u", "a", 0, "view"), ("u", "b", 1, "purchase"), ("u", "c", 90, "view"), ("u", "d", 91, "view")])
    found = arrays.corpus(table(prepare.sequences(events, min_products=2)))
    assert found.events.tolist() == [0, 2, 0] and found.sessions.tolist() == [1, 1, 2]
    assert arrays.goals(found).tolist() == [1, 1, -1]


def test_a_sample_holds_whole_users():
    whole = table(prepare.sequences(random_log(), min_products=2))
    few = arrays.sample(whole, 20, seed=1)
    users = few.to_pandas().groupby("user_id", observed=True).size()
    assert len(users) == 20 and (whole.to_pandas().groupby("user_id", observed=True).size()[users.index] == users).all()
    assert arrays.sample(whole, 20, seed=1).equals(few) and not arrays.sample(whole, 20, seed=2).equals(few)
    assert arrays.sample(whole, 0) is whole and arrays.sample(whole, 10**6) is whole


def test_a_sample_of_the_examples_is_in_their_order_and_the_same_each_time():
    n = 50
    examples = arrays.Examples(
        np.arange(n, dtype=np.int32), np.zeros(n), np.zeros(n, np.int8), np.arange(n), np.arange(n) + 1, np.zeros(n, np.int32),
        np.zeros(n, np.int8), np.arange(n).astype(str),
    )  # fmt: skip
    few = examples.sample(20, seed=3)
    assert len(few) == 20 and (np.diff(few.start) > 0).all()
    np.testing.assert_array_equal(few.start, examples.sample(20, seed=3).start)
    assert few.start.tolist() != examples.sample(20, seed=4).start.tolist()
    np.testing.assert_array_equal(examples.sample(80).start, examples.start)
