"""Metrics at their limits, with ties, against a slow independent count."""

import numpy as np
import pytest

from shelfspace import metrics
from shelfspace.sequences import Examples


def examples(histories, targets) -> Examples:
    lengths = np.array([len(h) for h in histories])
    end = np.cumsum(lengths)
    n = len(targets)
    items = np.concatenate(histories).astype(np.int32)
    return Examples(
        items, np.zeros(len(items)), np.zeros(len(items), np.int8), end - lengths, end, np.array(targets, np.int32),
        np.zeros(n, np.int8), np.arange(n).astype(str),
    )  # fmt: skip


def test_rank_counts_higher_scores_and_half_of_the_ties_rounded_up():
    scores = np.array([[3, 2, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0], [5, 5, 5, 5]], dtype=float)
    # Second: two others tie, 1 + 0 + 1; third: one other ties, 1 + 0 + ceil(1/2); fourth: three others, 1 + ceil(3/2).
    assert metrics.ranks(scores, np.array([1, 0, 1, 2])).tolist() == [2, 2, 2, 3]


def test_rank_against_a_slow_count():
    rng = np.random.default_rng(0)
    scores = rng.integers(6, size=(200, 30)).astype(float)
    targets = rng.integers(30, size=200)
    slow = []
    for row, target in zip(scores.tolist(), targets.tolist()):
        others = [s for i, s in enumerate(row) if i != target]
        higher, equal = sum(s > row[target] for s in others), sum(s == row[target] for s in others)
        slow.append(1 + higher + -(-equal // 2))
    assert metrics.ranks(scores, targets).tolist() == slow


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        metrics.ranks(np.array([[np.nan, 1.0]]), np.array([1]))


def test_hit_rate_and_reciprocal_rank():
    rank = np.array([1, 2, 20, 21])
    assert metrics.hit_rate(rank, 20).tolist() == [1, 1, 1, 0]
    np.testing.assert_allclose(metrics.reciprocal_rank(rank, 20), [1, 0.5, 0.05, 0])


def test_summary_of_perfect_and_hopeless_models():
    perfect, hopeless = metrics.summary(np.ones(50, int)), metrics.summary(np.full(50, 999))
    assert perfect["hit_rate@5"] == perfect["mrr@20"] == 1 and perfect["ci95"]["mrr@20"] == [1, 1]
    assert hopeless["hit_rate@20"] == hopeless["mrr@20"] == 0


def test_interval_covers_the_mean_about_95_times_in_100():
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(200):
        low, high = metrics.interval(rng.random(80) < 0.3, seed=trial)
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 199


def test_difference_is_paired():
    rng = np.random.default_rng(2)
    worse = rng.integers(1, 15, size=300)
    better = np.maximum(1, worse - 1)
    found = metrics.difference(better, worse)
    assert found["ci95"][0] > 0 and found["gain"] == pytest.approx((1 / better - 1 / worse).mean())


def test_evaluate_ranks_all_products_and_the_new_ones_apart():
    scores = np.array([[9, 8, 7, 6], [9, 8, 7, 6]], dtype=np.float32)
    data = examples([[0, 1], [0, 2]], [3, 2])
    found = metrics.evaluate(lambda part: scores[: len(part)], data)
    assert found.ranks.tolist() == [4, 3]
    assert found.ranks_new.tolist() == [2, 0]  # without products 0 and 1; the second target had been seen
    assert found.top.tolist() == [[0, 1, 2, 3]] * 2


def test_evaluate_is_the_same_for_any_block_size_and_leaves_the_models_scores_alone():
    rng = np.random.default_rng(3)
    table = rng.integers(9, size=(60, 40)).astype(np.float32)
    data = examples([rng.integers(40, size=rng.integers(1, 6)) for _ in range(60)], rng.integers(40, size=60))
    model = lambda part: table[part.user_ids.astype(int)]  # noqa: E731
    before = table.copy()
    one, two = metrics.evaluate(model, data, block=7), metrics.evaluate(model, data, block=60)
    for name in ("ranks", "ranks_new", "top", "top_scores"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert np.array_equal(table, before)


def test_permuting_the_users_changes_no_metric():
    rng = np.random.default_rng(4)
    rank = rng.integers(1, 60, size=100)
    one, two = metrics.summary(rank), metrics.summary(rng.permutation(rank))
    assert one["mrr@20"] == pytest.approx(two["mrr@20"])


def test_top_k_breaks_ties_by_product_number():
    index, scores = metrics.top_k(np.array([[1, 3, 3, 2, 3]], dtype=np.float32), 3)
    assert index.tolist() == [[1, 2, 4]] and scores.tolist() == [[3, 3, 3]]
    assert metrics.top_k(np.array([[1.0, 2.0]]), 5)[0].tolist() == [[1, 0]]


def test_rank_all_is_what_evaluate_ranks():
    rng = np.random.default_rng(6)
    table = rng.integers(9, size=(30, 12)).astype(np.float32)
    data = examples([rng.integers(12, size=3) for _ in range(30)], rng.integers(12, size=30))
    model = lambda part: table[part.user_ids.astype(int)]  # noqa: E731
    assert np.array_equal(metrics.rank_all(model, data, block=7), metrics.evaluate(model, data).ranks)


def test_sweep_tries_every_model_decay_and_clock():
    data = examples([[0, 1], [2]], [1, 0])

    def first(decay, decay_time):
        return lambda part: np.tile([1 + decay, 1.0, 0.0], (len(part), 1))

    found = metrics.sweep({"a": first, "b": first}, [0.0, 0.5], ["days", "rank"], data)
    assert len(found) == 8
    row = found[(found.model == "a") & (found.decay == 0.5) & (found.decay_time == "rank")].iloc[0]
    assert row["hit_rate@20"] == 1 and row["mrr@20"] == pytest.approx((1 / 2 + 1) / 2)
    assert row["mrr@20_lo"] <= row["mrr@20"] <= row["mrr@20_hi"]


def test_parts_and_slices():
    rng = np.random.default_rng(7)
    data = examples([rng.integers(5, size=n) for n in rng.integers(1, 30, size=200)], rng.integers(5, size=200))
    masks = metrics.parts(data, np.array([50, 30, 10, 5, 5]), ["view", "purchase"])
    for cut in {cut for cut, _ in masks}:  # each way to cut takes every example once
        assert (np.sum([mask for (c, _), mask in masks.items() if c == cut], axis=0) == 1).all()
    assert (data.target[masks["target", "popular"]] == 0).sum() == 0  # half of all visits: beyond the first third
    evaluation = metrics.evaluate(lambda part: np.tile(np.arange(5.0), (len(part), 1)), data)
    found = metrics.slices({"m": evaluation}, masks)
    assert "event of the target: purchase" not in found  # nobody
    one = found["history: over 15 visits"]
    assert one["n"] == masks["history", "over 15 visits"].sum()
    assert one["models"]["m"]["mrr@20"] == pytest.approx((1 / evaluation.ranks[data.lengths > 15]).mean())


def test_catalogue_coverage():
    assert metrics.catalogue_coverage(np.array([[0, 1], [1, 2]]), 6) == 0.5
