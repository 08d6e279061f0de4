"""Metrics at their limits, with ties, against a slow independent count."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from shelfspace.measure import beyond_accuracy, evaluation, intervals, ranking
from shelfspace.sequences.arrays import Examples


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
    assert ranking.ranks(scores, np.array([1, 0, 1, 2])).tolist() == [2, 2, 2, 3]


def test_rank_against_a_slow_count():
    rng = np.random.default_rng(0)
    scores = rng.integers(6, size=(200, 30)).astype(float)
    targets = rng.integers(30, size=200)
    slow = []
    for row, target in zip(scores.tolist(), targets.tolist()):
        others = [s for i, s in enumerate(row) if i != target]
        higher, equal = sum(s > row[target] for s in others), sum(s == row[target] for s in others)
        slow.append(1 + higher + -(-equal // 2))
    assert ranking.ranks(scores, targets).tolist() == slow


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        ranking.ranks(np.array([[np.nan, 1.0]]), np.array([1]))


def test_hit_rate_and_reciprocal_rank():
    rank = np.array([1, 2, 20, 21])
    assert ranking.hit_rate(rank, 20).tolist() == [1, 1, 1, 0]
    np.testing.assert_allclose(ranking.reciprocal_rank(rank, 20), [1, 0.5, 0.05, 0])


def test_summary_of_perfect_and_hopeless_models():
    perfect, hopeless = evaluation.summary(np.ones(50, int)), evaluation.summary(np.full(50, 999))
    assert perfect["hit_rate@5"] == perfect["mrr@20"] == 1 and perfect["ci95"]["mrr@20"] == [1, 1]
    assert hopeless["hit_rate@20"] == hopeless["mrr@20"] == 0


def test_interval_covers_the_mean_about_95_times_in_100():
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(200):
        low, high = intervals.interval(rng.random(80) < 0.3, seed=trial)
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 199


def test_difference_is_paired():
    """A gain of one rank in ten users is lost among users who differ widely, unless each is held against itself."""
    rng = np.random.default_rng(2)
    worse = rng.integers(1, 21, size=300)
    better = np.where(rng.random(300) < 0.1, np.maximum(1, worse - 1), worse)
    found = evaluation.difference(better, worse)
    apart = evaluation.difference(better, rng.permutation(worse))  # the same ranks, other partners
    assert found["gain"] == pytest.approx((1 / better - 1 / worse).mean()) == pytest.approx(apart["gain"])
    assert intervals.clear(found) and not intervals.clear(apart)
    assert np.ptp(found["ci95"]) < 0.2 * np.ptp(apart["ci95"])


def test_intervals_are_over_owners_all_of_whose_examples_come_along():
    """Four examples of each of 500 customers, all alike: as wide as with one example each, twice as wide as with 2,000 customers."""
    rng = np.random.default_rng(20)
    rank, other = rng.integers(1, 41, size=(2, 500))
    owners, four = np.repeat(np.arange(500).astype(str), 4), np.repeat(rank, 4)
    widths = [np.ptp(evaluation.summary(*one)["ci95"]["mrr@20"]) for one in ((rank,), (four, owners), (four,))]
    assert widths[1] == pytest.approx(widths[0], rel=0.1) and widths[1] == pytest.approx(2 * widths[2], rel=0.1)
    paired = [np.ptp(evaluation.difference(*one)["ci95"]) for one in ((rank, other), (four, np.repeat(other, 4), owners))]
    assert paired[1] == pytest.approx(paired[0], rel=0.1)
    assert np.ptp(intervals.interval(four / 1.0, owners)) == pytest.approx(np.ptp(intervals.interval(rank / 1.0)), rel=0.1)


@pytest.mark.parametrize("customers", [200, 6000])
def test_the_bootstrap_of_a_ratio_against_a_slow_one(customers):
    """Customers with one to nine examples, the many with other values: few, and more than are drawn one by one."""
    rng = np.random.default_rng(21)
    sizes = rng.integers(1, 10, size=customers)
    owners = np.repeat(np.arange(customers), sizes)
    values = rng.random(len(owners)) * (1 / sizes)[owners] + rng.random(customers)[owners]
    sums = np.bincount(owners, values)
    draws = rng.integers(customers, size=(1500, customers))
    slow = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    order = rng.permutation(len(owners))
    fast = intervals.bootstrap(values[order], owners[order].astype(str), draws=4000)
    assert fast.mean() == pytest.approx(values.mean(), abs=4 * slow.std() / 1500**0.5) and fast.shape == (4000,)
    assert fast.std() == pytest.approx(slow.std(), rel=0.1)


def test_holm_by_hand():
    """0.01 x 4; 0.02 x 3; 0.03 x 2, which is no less than the one before; 0.5 x 1."""
    assert intervals.holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert intervals.holm([0.7, 0.6]).tolist() == [1, 1] and intervals.holm([]).tolist() == []


def test_intervals_told_at_once_are_as_wide_as_bonferroni_asks():
    one, other = np.random.default_rng(22).integers(1, 41, size=(2, 400))
    alone, among = (evaluation.difference(one, other, comparisons=m)["ci95"] for m in (1, 20))
    spread = (ranking.reciprocal_rank(one, 20) - ranking.reciprocal_rank(other, 20)).std() / 400**0.5
    assert np.ptp(alone) == pytest.approx(2 * 1.96 * spread, rel=0.05)
    assert np.ptp(among) == pytest.approx(2 * 3.023 * spread, rel=0.08)  # of the normal distribution at 1 - 0.05 / 20


def test_a_p_at_the_floor_says_at_most():
    worse = np.random.default_rng(23).integers(1, 15, size=300)
    tests = [evaluation.difference(np.maximum(1, worse - 1), worse), evaluation.difference(worse, worse)]
    intervals.correct(tests)
    assert [intervals.p_text(one) for one in tests] == ["≤ 0.0004", "1.000"]


def test_three_columns_by_hand():
    """The first customer looks again at what was seen, the second at something new; both rankings are 0, 1, 2, 3, 4."""
    data = examples([[0, 2], [0, 1]], [2, 3])
    found = evaluation.evaluate(lambda part: np.tile(np.arange(5.0)[::-1], (len(part), 1)), data)
    three = evaluation.columns(found, data)
    assert list(three) == list(evaluation.COLUMNS) and [three[key]["n"] for key in three] == [2, 1, 1]
    assert [three[key]["mrr@20"] for key in three] == pytest.approx([(1 / 3 + 1 / 4) / 2, 1 / 3, 1 / 2])
    assert evaluation.figures(found, data)["discovery"] == {"hit_rate@20": 1.0, "mrr@20": 0.5}
    again = evaluation.columns(evaluation.evaluate(lambda part: np.tile(np.arange(5.0), (len(part), 1)), data[:1]), data[:1])
    assert again["discovery"] is None and again["seen"]["n"] == 1


def test_each_column_has_the_baseline_that_the_valid_users_chose():
    """On the test users "one" is the better baseline of all three columns; the valid users chose otherwise in one."""
    rng = np.random.default_rng(24)
    data = examples([[0]] * 90, np.where(rng.random(90) < 0.5, 0, rng.integers(1, 30, size=90)))
    hits = np.eye(30, dtype=np.float32)[data.target]
    scores = {"one": 1.0 * hits, "two": -1.0 * hits, "model": rng.random((90, 30), dtype=np.float32)}
    evaluations = {n: evaluation.evaluate(lambda part, of=of: of[part.user_ids.astype(int)], data) for n, of in scores.items()}
    valid = {name: {key: {"mrr@20": m} for key in evaluation.COLUMNS} for name, m in (("one", 0.2), ("two", 0.1), ("model", 0.9))}
    valid["two"]["discovery"] = {"mrr@20": 0.3}
    found = evaluation.against_baselines(evaluations, valid, ["one", "two"], data)
    assert {key: of["baseline"] for key, of in found.items()} == {"all": "one", "seen": "one", "discovery": "two"}
    assert set(found["all"]["paired"]) == {"two", "model"} and found["all"]["customers"] == found["all"]["n"] == 90
    assert found["seen"]["n"] + found["discovery"]["n"] == 90 and found["all"]["comparisons"] == 6
    lead = found["discovery"]["paired"]["one"]["mrr@20"]
    assert lead["gain"] > 0.9 and lead["p_holm"] == pytest.approx(6 * 2 / 10_001) and lead["p_is_bound"]
    assert evaluation.chosen(valid, list(scores)) == ["model", "one", "two"]


def test_evaluate_ranks_all_products_and_the_new_ones_apart():
    scores = np.array([[9, 8, 7, 6], [9, 8, 7, 6]], dtype=np.float32)
    data = examples([[0, 1], [0, 2]], [3, 2])
    found = evaluation.evaluate(lambda part: scores[: len(part)], data)
    assert found.ranks.tolist() == [4, 3]
    assert found.ranks_new.tolist() == [2, 0]  # without products 0 and 1; the second target had been seen
    assert found.top.tolist() == [[0, 1, 2, 3]] * 2


def test_evaluate_is_the_same_for_any_block_size_and_leaves_the_models_scores_alone():
    rng = np.random.default_rng(3)
    table = rng.integers(9, size=(60, 40)).astype(np.float32)
    data = examples([rng.integers(40, size=rng.integers(1, 6)) for _ in range(60)], rng.integers(40, size=60))
    model = lambda part: table[part.user_ids.astype(int)]  # noqa: E731
    before = table.copy()
    one, two = evaluation.evaluate(model, data, block=7), evaluation.evaluate(model, data, block=60)
    for name in ("ranks", "ranks_new", "top", "top_scores"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert np.array_equal(table, before)


def test_permuting_the_examples_changes_no_metric():
    """Nor what is beside it: the whole way from scores to the three columns, with customers of several examples."""
    rng = np.random.default_rng(4)
    data = examples([rng.integers(40, size=5) for _ in range(120)], rng.integers(40, size=120))
    owners = np.sort(rng.integers(50, size=120)).astype(str)
    scores, order = rng.integers(99, size=(120, 40)).astype(np.float32), rng.permutation(120)

    def found(rows):
        part = replace(data[rows], user_ids=owners[rows])
        places = iter(np.array_split(rows, range(64, 120, 64)))  # the blocks of `evaluate`, in their order
        found = evaluation.evaluate(lambda block: scores[next(places)], part, threads=1)
        return found.ranks, evaluation.columns(found, part)

    (ranks, one), (mixed, two) = found(np.arange(120)), found(order)
    assert np.array_equal(ranks[order], mixed) and not np.array_equal(ranks, mixed)
    for key in evaluation.COLUMNS:
        assert one[key].pop("ci95")["mrr@20"] == pytest.approx(two[key].pop("ci95")["mrr@20"])
        assert one[key] == pytest.approx(two[key])


def test_top_k_breaks_ties_by_product_number():
    index, scores = ranking.top_k(np.array([[1, 3, 3, 2, 3]], dtype=np.float32), 3)
    assert index.tolist() == [[1, 2, 4]] and scores.tolist() == [[3, 3, 3]]
    assert ranking.top_k(np.array([[1.0, 2.0]]), 5)[0].tolist() == [[1, 0]]


def test_top_k_equals_a_stable_sort():
    rng = np.random.default_rng(8)
    for n_products, k in (
        (3, 20),
        (19, 20),
        (255, 20),
        (256, 20),
        (257, 20),
        (1500, 20),
        (1500, 300),
    ):  # around the number of lanes, and few
        for spread in (2, 1000):  # many ties and few
            scores = rng.integers(spread, size=(40, n_products)).astype(np.float32)
            scores[rng.random(scores.shape) < 0.1] = -np.inf
            index, value = ranking.top_k(scores, k)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            assert np.array_equal(index, order)
            assert np.array_equal(value, np.take_along_axis(scores, order, axis=1))


def test_a_nan_anywhere_is_refused_by_every_reader():
    rng = np.random.default_rng(9)
    data = examples([[0]] * 4, [1, 2, 3, 1])
    for place in (0, 1, 255, 256, 1279, 1280, 1299):
        scores = rng.random((4, 1300), dtype=np.float32)
        scores[2, place] = np.nan
        for read in (lambda: evaluation.evaluate(lambda part: scores, data), lambda: ranking.top_k(scores, 3)):
            with pytest.raises(ValueError, match="NaN"):
                read()


@pytest.mark.parametrize("history, target, rows", [([0], 5, 1), ([5], 0, 1), ([0], -1, 1), ([0], 1, 2)])
def test_scores_of_other_examples_or_products_are_refused(history, target, rows):
    with pytest.raises(ValueError, match="other examples, or they name products outside"):
        evaluation.evaluate(lambda part: np.zeros((rows, 5), np.float32), examples([history], [target]))


def test_evaluate_against_a_slow_count_with_ties_and_seen_products():
    rng = np.random.default_rng(10)
    n, n_products = 150, 700
    table = rng.integers(40, size=(n, n_products)).astype(np.float32)
    histories = [rng.integers(n_products, size=rng.integers(1, 40)) for _ in range(n)]
    targets = np.where(rng.random(n) < 0.3, [h[0] for h in histories], rng.integers(n_products, size=n))
    found = evaluation.evaluate(lambda part: table[part.user_ids.astype(int)], examples(histories, targets), block=16)
    for row in range(n):
        for ranks, candidates in (
            (found.ranks, np.ones(n_products, bool)),
            (found.ranks_new, ~np.isin(np.arange(n_products), histories[row])),
        ):
            others = table[row][candidates & (np.arange(n_products) != targets[row])]
            own = table[row, targets[row]]
            slow = 1 + (others > own).sum() + -(-(others == own).sum() // 2)
            assert ranks[row] == (slow if candidates[targets[row]] else 0)


def test_evaluate_gives_the_same_on_any_number_of_threads():
    rng = np.random.default_rng(11)
    users, products = rng.standard_normal((500, 8), np.float32), rng.standard_normal((8, 900), np.float32)
    data = examples([rng.integers(900, size=3) for _ in range(500)], rng.integers(900, size=500))
    model = lambda part: users[part.user_ids.astype(int)] @ products  # noqa: E731
    one, three = (evaluation.evaluate(model, data, block=32, probabilities=True, threads=t) for t in (1, 3))
    for name in ("ranks", "ranks_new", "top", "top_scores", "log_total"):
        assert np.array_equal(getattr(one, name), getattr(three, name))


def test_metrics_equal_ranx():
    """Against another implementation, on scores full of ties; ranx breaks these by a sort, so we break them by our rule.

    It runs apart and as it is written: to compile it, as it would, takes half a minute.
    """
    rng = np.random.default_rng(12)
    n, n_products = 120, 60
    scores = rng.integers(25, size=(n, n_products)).astype(float)
    targets = rng.integers(n_products, size=n)
    apart = np.zeros_like(scores)  # of the others that tie with the target, half, rounded up, go before it
    for row, target in enumerate(targets):
        tied = np.flatnonzero((scores[row] == scores[row, target]) & (np.arange(n_products) != target))
        apart[row, tied] = np.where(np.arange(len(tied)) < -(-len(tied) // 2), 0.25, -0.25)
    qrels = {f"u{row}": {f"p{target}": 1} for row, target in enumerate(targets)}
    run = {f"u{row}": {f"p{i}": s for i, s in enumerate(line)} for row, line in enumerate(scores + apart)}
    found = evaluation.summary(evaluation.evaluate(lambda part: scores[part.user_ids.astype(int)], examples(
        [[0]] * n, targets)).ranks)  # fmt: skip
    assert (apart != 0).sum() > n  # ties there were
    names = [f"{metric}@{k}" for metric in ("hit_rate", "mrr") for k in ranking.CUTOFFS]
    program = """
import json, sys
import ranx
qrels, run, names = json.load(sys.stdin)
print(json.dumps({name: float(value) for name, value in ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), names).items()}))
"""
    answer = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps([qrels, run, names]), env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = json.loads(answer.stdout)
    assert {name: found[name] for name in names} == pytest.approx(expected, abs=1e-12)


def test_bootstrap_draws_users_with_replacement():
    rng = np.random.default_rng(13)
    users = rng.choice([0.0, 0.2, 1.0], p=[0.5, 0.3, 0.2], size=400)
    slow = [rng.choice(users, size=400).mean() for _ in range(4000)]
    fast = intervals.bootstrap(users, draws=4000)
    assert fast.mean() == pytest.approx(users.mean(), abs=3 * fast.std() / 4000**0.5)
    np.testing.assert_allclose(np.quantile(fast, [0.025, 0.5, 0.975]), np.quantile(slow, [0.025, 0.5, 0.975]), atol=0.005)


def test_difference_gives_p_values_that_are_fair_without_a_difference_and_small_with_one():
    rng = np.random.default_rng(14)
    ps = []
    for trial in range(200):
        one, other = rng.integers(1, 40, size=(2, 100))
        ps.append(evaluation.difference(one, other, seed=trial)["p"])
    assert 0.02 <= np.mean(np.array(ps) < 0.05) <= 0.09 and 0.4 < np.mean(ps) < 0.6
    worse = rng.integers(1, 15, size=300)
    assert evaluation.difference(np.maximum(1, worse - 1), worse)["p"] == pytest.approx(2 / 10_001)
    assert evaluation.difference(worse, worse)["p"] == 1


def test_sweep_tries_all_settings_and_finds_the_best():
    data = examples([[0, 1], [2]], [1, 0])

    def first(decay, decay_time):
        return lambda part: np.tile([1 + decay, 1.0, 0.0], (len(part), 1))

    def only(size):
        return lambda part: np.tile([1.0, size, 0.0], (len(part), 1))

    grids = {"a": {"decay": [0.5, 0.0], "decay_time": ["days", "rank"]}, "b": {"size": [0, 2, 3]}}
    found, best = evaluation.sweep({"a": first, "b": only}, grids, data)
    assert len(found) == 7
    row = found[(found.model == "a") & (found.decay == 0.5) & (found.decay_time == "rank")].iloc[0]
    assert row["hit_rate@20"] == 1 and row["mrr@20"] == pytest.approx((1 / 2 + 1) / 2)
    assert row["mrr@20_lo"] <= row["mrr@20"] <= row["mrr@20_hi"]
    assert best == {"a": {"decay": 0.5, "decay_time": "days"}, "b": {"size": 2}}  # equals: the first


def test_parts_and_slices():
    rng = np.random.default_rng(7)
    data = examples([rng.integers(5, size=n) for n in rng.integers(1, 30, size=200)], rng.integers(5, size=200))
    masks = evaluation.parts(data, np.array([50, 30, 10, 5, 5]), ["view", "purchase"])
    for cut in {cut for cut, _ in masks}:  # each way to cut takes every example once
        assert (np.sum([mask for (c, _), mask in masks.items() if c == cut], axis=0) == 1).all()
    assert (data.target[masks["target", "popular"]] == 0).sum() == 0  # half of all visits: beyond the first third
    measured = evaluation.evaluate(lambda part: np.tile(np.arange(5.0), (len(part), 1)), data)
    found = evaluation.slices({"m": measured}, masks)
    assert "event of the target: purchase" not in found  # nobody
    one = found["history: over 15 visits"]
    assert one["n"] == masks["history", "over 15 visits"].sum()
    assert one["models"]["m"]["mrr@20"] == pytest.approx((1 / measured.ranks[data.lengths > 15]).mean())


def test_catalogue_coverage():
    assert beyond_accuracy.catalogue_coverage(np.array([[0, 1], [1, 2]]), 6) == 0.5


def test_gini_by_hand():
    assert beyond_accuracy.gini(np.array([[0, 1], [2, 3]]), 4) == 0
    assert beyond_accuracy.gini(np.array([[0, 0], [0, 0]]), 4) == pytest.approx(3 / 4)  # all on one of four
    # Counts 1 and 3: the mean difference of all pairs, 2 * 2 / 4, by twice the mean of 2.
    assert beyond_accuracy.gini(np.array([[0, 1], [1, 1]]), 2) == pytest.approx(0.25)


def test_novelty_by_hand():
    counts = np.array([4, 2, 1, 1, 0])
    assert beyond_accuracy.novelty(np.array([[0, 1]]), counts[:4]) == pytest.approx((1 + 2) / 2)
    assert beyond_accuracy.novelty(np.array([[4]]), counts) == pytest.approx(np.log2(9))  # never visited: as if once


def test_intra_list_diversity_is_one_minus_the_mean_cosine_of_pairs():
    rng = np.random.default_rng(15)
    vectors = rng.standard_normal((30, 5)).astype(np.float32)
    vectors[7] = 0  # without an embedding
    top = np.array([rng.permutation(30)[:6] for _ in range(9)] + [[7, 7, 7, 7, 7, 1]])
    slow = []
    for line in top[:9]:
        unit = [vectors[i] / np.linalg.norm(vectors[i]) for i in line if i != 7]
        slow.append(np.mean([1 - a @ b for i, a in enumerate(unit) for b in unit[:i]]))
    assert beyond_accuracy.intra_list_diversity(top, vectors, block=4) == pytest.approx(np.mean(slow), abs=1e-6)
    assert beyond_accuracy.intra_list_diversity(np.array([[0, 0]]), vectors) == pytest.approx(0, abs=1e-6)


def test_calibration_of_honest_and_of_boastful_probabilities():
    rng = np.random.default_rng(16)
    logits = rng.standard_normal((20_000, 6)) * 2
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (probability.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    data = examples([[0]] * 20_000, targets)
    model = lambda scale: lambda part: scale * logits[part.user_ids.astype(int)]  # noqa: E731
    table, honest = beyond_accuracy.calibration(evaluation.evaluate(model(1), data, probabilities=True), targets)
    assert honest < 0.02 and table.n.sum() == 20_000 and len(table) == 10
    assert ((table.lo <= table.probability) & (table.probability <= table.hi)).mean() >= 0.7
    assert table.probability.to_numpy()[-1] == pytest.approx(np.sort(probability.max(axis=1))[-2000:].mean(), rel=1e-4)
    _, boastful = beyond_accuracy.calibration(evaluation.evaluate(model(3), data, probabilities=True), targets)
    assert boastful > 0.1
    with pytest.raises(ValueError, match="probabilities=True"):
        beyond_accuracy.calibration(evaluation.evaluate(model(1), data), targets)


def test_wilson_interval_by_hand():
    assert intervals.wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert intervals.wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_latency_is_per_user_and_goes_round_few_examples():
    data = examples([[0], [1], [2]], [1, 2, 0])
    sizes = []

    def model(part):
        sizes.append(len(part))
        return np.zeros((len(part), 5), dtype=np.float32)

    assert beyond_accuracy.latency(model, data, batch=8, repeats=3) > 0 and sizes == [8] * 4


def test_what_a_model_answered_is_kept_in_a_file(tmp_path):
    data = examples([[0], [1], [2]], [1, 2, 0])

    def make():
        return lambda part: np.random.default_rng(part.target[0]).normal(size=(len(part), 30)).astype(np.float32)

    seconds = beyond_accuracy.measure(tmp_path / "one.npz", make, data[:2], data, probabilities=True)
    assert list(seconds) == ["1", "1024"] and min(seconds.values()) > 0
    kept = evaluation.load(tmp_path / "one.npz")
    for name, part, probabilities in (("valid", data[:2], False), ("test", data, True)):
        for field, value in vars(evaluation.evaluate(make(), part, probabilities=probabilities)).items():
            np.testing.assert_array_equal(getattr(kept[name], field), value)


def test_an_interval_that_holds_0_is_level():
    bounds = {"ahead": (0.1, 0.3), "level": (0.0, 0.3), "behind": (-0.3, -0.1)}
    assert {where: intervals.standing({"ci95": ci95}) for where, ci95 in bounds.items()} == {where: where for where in bounds}


@pytest.mark.parametrize("values", [1, 2, 5, 1000])
def test_the_nth_largest_is_found_among_any_ties(values):
    rng = np.random.default_rng(values)
    for size in (1, 2, 3, 10, 257):
        for keys in (rng.integers(0, values, size), np.sort(rng.integers(0, values, size)), -np.sort(rng.integers(0, values, size))):
            for n in {1, size // 2 + 1, size}:
                found = ranking.nth_largest(keys.astype(np.float32), size, n)
                assert found == np.sort(keys)[::-1][n - 1]
