"""Baselines on a shop small enough to check by hand."""

from dataclasses import replace

import numpy as np
import pytest

from shelfspace.measure import evaluation
from shelfspace.models import baselines, factors, session_knn
from shelfspace.models.users import history_weights
from shelfspace.sequences.arrays import Corpus, Examples

IDS = np.array(["a", "b", "c", "d"])
# Three users: a b, a b c, a c; nobody saw d.
CORPUS = Corpus(np.array(["a", "b", "c"]), np.array([0, 1, 0, 1, 2, 0, 2], dtype=np.int32), np.array([0, 2, 5, 7]))
SEEN = Examples(
    np.array([0, 1], dtype=np.int32), np.array([0.0, 1.0]), np.zeros(2, np.int8), np.array([0]), np.array([2]),
    np.array([2], dtype=np.int32), np.zeros(1, np.int8), np.array(["u"]),
)  # fmt: skip


TIMED = replace(CORPUS, times=np.array([0.0, 1.0, 10.0, 11.0, 12.0, 20.0, 21.0]))


def one_history(items, times) -> Examples:
    n = len(items)
    return Examples(
        np.array(items, np.int32), np.array(times, float), np.zeros(n, np.int8), np.array([0]), np.array([n]),
        np.array([2], np.int32), np.zeros(1, np.int8), np.array(["u"]),
    )  # fmt: skip


def test_visit_counts():
    assert baselines.visit_counts(CORPUS, IDS).tolist() == [3, 2, 2, 0]


def test_popular_ranks_by_count_for_everybody():
    assert baselines.popular([5, 1, 7, 0])(SEEN).tolist() == [[5, 1, 7, 0]]


def test_own_products_come_first_by_recency_then_the_popular_ones():
    scores = baselines.own_products([5, 1, 7, 0], decay=1.0)(SEEN)
    assert np.argsort(-scores[0]).tolist() == [1, 0, 2, 3]


def test_cooccurrence_by_hand():
    pairs, alone = baselines.cooccurrence(CORPUS, IDS)
    assert pairs.toarray().tolist() == [[0, 2, 2, 0], [2, 0, 1, 0], [2, 1, 0, 0], [0] * 4] and alone.tolist() == [3, 2, 2, 0]


@pytest.mark.parametrize("power, expected", [(0.0, [2, 2]), (0.5, [2 / 6**0.5, 2 / 6**0.5])])
def test_cooccurrence_scores_by_hand(power, expected):
    scores = baselines.item_to_item(baselines.cooccurrence(CORPUS, IDS), decay=0.0, power=power)(one_history([0], [0]))[0]
    np.testing.assert_allclose(scores[1:3], expected, rtol=1e-6)
    assert scores[3] < scores[0] < 0  # not seen together with it; the more visited before the other


def test_cooccurrence_of_a_large_catalogue_keeps_the_most_alike(monkeypatch):
    rng = np.random.default_rng(0)
    corpus = Corpus(np.arange(300).astype("U3"), rng.integers(300, size=6000).astype(np.int32), np.arange(0, 6001, 20))
    ids = np.sort(corpus.product_ids)
    corpus = Corpus(ids, corpus.items, corpus.offsets)
    whole, alone = baselines.cooccurrence(corpus, ids)
    monkeypatch.setattr(baselines, "ENTRIES", 300 * 7)
    few, _ = baselines.cooccurrence(corpus, ids)
    assert (np.diff(few.indptr) == 7).all() and (few.toarray()[few.nonzero()] == whole.toarray()[few.nonzero()]).all()
    likeness = [pairs.toarray() / np.sqrt(alone) for pairs in (few, whole)]
    np.testing.assert_allclose(*(np.sort(each, axis=1)[:, -7:] for each in likeness))


def test_item_to_item_adds_up_the_decayed_history():
    pairs = baselines.cooccurrence(CORPUS, IDS)
    scores = baselines.item_to_item(pairs, decay=np.log(2), power=0)(SEEN)  # weights 1/3 on a, 2/3 on b
    np.testing.assert_allclose(scores, [[4 / 3, 2 / 3, 4 / 3, -1]], rtol=1e-6)


def test_nearest_models_rank_products_without_embedding_last():
    vectors = np.array([[1, 0], [0.9, 0.1], [-1, 0], [0, 0]], dtype=np.float32)
    known = np.array([True, True, True, False])
    for model in (baselines.nearest_to_last(vectors, known), baselines.nearest_to_user(vectors, known, decay=0.1)):
        assert np.argsort(-model(SEEN)[0]).tolist()[-2:] == [2, 3]
    assert baselines.nearest_to_last(vectors, known)(SEEN)[0].argmax() == 1


def test_recently_popular_counts_what_came_before_and_fades():
    model = baselines.recently_popular(TIMED, IDS, decay=np.log(2))
    # Before day 12: a on days 0 and 10, b on days 1 and 11; a day halves a visit, counted from the start of day 12.
    scores = model(one_history([0], [12.5]))[0]
    np.testing.assert_allclose(scores[:2], [2**-12 + 2**-2, 2**-11 + 2**-1], rtol=1e-4)
    assert scores[2] < 1e-5  # c came on day 12 itself
    late = model(one_history([0], [40.0]))[0]  # after the log's end, all count: c on days 12 and 21, a on 20 last
    assert np.argsort(-late).tolist() == [2, 0, 1, 3]
    assert np.argsort(-model(one_history([0], [0.0]))[0], kind="stable").tolist() == [0, 1, 2, 3]  # most visited of all


def test_recently_popular_is_the_same_in_longer_buckets_without_decay():
    model = baselines.recently_popular(TIMED, IDS, decay=0.0, buckets=3)  # of 10.5 days
    np.testing.assert_allclose(model(one_history([0], [11.0]))[0], [2, 1, 0, 0], atol=1e-5)  # days 0, 1 and 10


def test_recently_popular_needs_times():
    with pytest.raises(ValueError, match="needs the times"):
        baselines.recently_popular(CORPUS, IDS, 0.1)


def test_markov_by_hand():
    for steps, expected in (1, [0, 2, 1, 0]), (2, [0, 2, 1.5, 0]):  # a, then b twice and c once; c once two visits later
        found = baselines.markov(CORPUS, IDS, steps)(one_history([0], [0]))[0]
        np.testing.assert_allclose(found, expected, atol=0.011)  # the rest tells ties apart
    with pytest.raises(ValueError, match="1 .the next product. or more"):
        baselines.markov(CORPUS, IDS, steps=0)


def test_markov_follows_the_last_product_and_breaks_ties_by_popularity():
    model = baselines.markov(CORPUS, IDS)
    assert np.argsort(-model(SEEN)[0], kind="stable").tolist() == [2, 0, 1, 3]  # after b came c; then a, b, d by visits
    assert (np.argsort(-model(one_history([3], [0]))[0], kind="stable") == [0, 1, 2, 3]).all()  # nothing came after d


def slow_session_knn(corpus, history, neighbours, sample, weights):
    """The definition, one sequence at a time; `weights` of the history's products."""
    alike = []
    for number, (start, end) in enumerate(zip(corpus.offsets[:-1], corpus.offsets[1:])):
        held = set(corpus.items[start:end].tolist())
        if held & set(history):
            alike.append((sum(weights[i] for i in held & set(history)), number, held))
    alike = sorted(alike, key=lambda found: -found[1])[:sample]
    scores = np.zeros(len(corpus.product_ids))
    for similarity, _, held in sorted(alike, key=lambda found: (-found[0], -found[1]))[:neighbours]:
        scores[list(held)] += similarity
    return scores


@pytest.mark.parametrize("neighbours, sample", [(1, 3), (5, 8), (5, 1000), (1000, 1000)])
def test_session_knn_equals_its_definition(neighbours, sample):
    rng = np.random.default_rng(neighbours)
    lengths = rng.integers(1, 9, size=60)
    ids = np.array([f"{i:02d}" for i in range(20)])
    corpus = Corpus(ids, rng.integers(20, size=lengths.sum()).astype(np.int32), np.append(0, np.cumsum(lengths)))
    model = session_knn.session_knn(corpus, ids, neighbours, sample)
    for n in (1, 2, 4, 8):
        history = rng.integers(20, size=n).tolist()
        weights = {item: (i + 1) / n for i, item in enumerate(history)}  # a repeat: the newest visit counts
        np.testing.assert_allclose(
            model(one_history(history, range(n)))[0],
            slow_session_knn(corpus, history, neighbours, sample, weights),
            rtol=1e-5, atol=1e-5,
        )  # fmt: skip


def test_session_knn_takes_recent_sequences_by_their_times_and_weights_by_the_decay():
    times = CORPUS.items * 0.0 + np.repeat([2.0, 1.0, 0.0], [2, 3, 2])  # the first sequence is the newest
    newest = session_knn.session_knn(replace(CORPUS, times=times), IDS, neighbours=1, sample=1)
    assert (newest(one_history([0], [5.0]))[0] > 0.5).tolist() == [True, True, False, False]
    decayed = session_knn.session_knn(CORPUS, IDS, decay=np.log(2), decay_time="rank")(SEEN)[0]
    # Weights 1/3 on a and 2/3 on b: similarities 1 (a b), 1 (a b c), 1/3 (a c).
    np.testing.assert_allclose(decayed, [7 / 3, 2, 4 / 3, 0], atol=1e-5)
    with pytest.raises(ValueError, match="both must be 1 or more"):
        session_knn.session_knn(CORPUS, IDS, neighbours=0)


def test_session_knn_gives_the_same_scores_whatever_the_block():
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 9, size=200)
    ids = np.array([f"{i:02d}" for i in range(30)])
    corpus = Corpus(ids, rng.integers(30, size=lengths.sum()).astype(np.int32), np.append(0, np.cumsum(lengths)))
    end = np.cumsum(lengths)
    examples = Examples(
        corpus.items, np.zeros(end[-1]), np.zeros(end[-1], np.int8), end - lengths, end, np.zeros(200, np.int32),
        np.zeros(200, np.int8), np.arange(200).astype(str),
    )  # fmt: skip
    model = session_knn.session_knn(corpus, ids, neighbours=10, sample=30)
    whole = model(examples)
    assert np.array_equal(whole, np.concatenate([model(examples[i : i + 37]) for i in range(0, 200, 37)]))


def two_tastes(n=200, seed=0) -> Corpus:
    """Half of the users see products a–e, the other half f–j, three each."""
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(5)[:3] + 5 * (user % 2) for user in range(n)])
    return Corpus(np.array(list("abcdefghij")), items.reshape(-1).astype(np.int32), np.arange(0, 3 * n + 1, 3))


def of_users(corpus, history=slice(None)):
    """The training sequences' own histories, without their newest visit."""
    start, end = corpus.offsets[:-1], corpus.offsets[1:] - 1
    n, visits = len(corpus), len(corpus.items)
    return Examples(
        corpus.items, np.zeros(visits), np.zeros(visits, np.int8), start, end, corpus.items[end], np.zeros(n, np.int8),
        corpus.user_ids, corpus.offsets[1:],
    )  # fmt: skip


MODELS = {
    "cooccurrence": lambda corpus, ids, **own: baselines.item_to_item(baselines.cooccurrence(corpus, ids), decay=0.0, **own),
    "markov": lambda corpus, ids, **own: baselines.markov(corpus, ids, steps=3, **own),
    "session_knn": lambda corpus, ids, **own: session_knn.session_knn(corpus, ids, neighbours=5, **own),
    "ease": lambda corpus, ids, **own: factors.Ease(corpus, ids)(regularisation=5.0, decay=0.0, **own),
}


@pytest.mark.parametrize("name", MODELS)
def test_who_was_counted_is_scored_as_if_they_were_not(name):
    """Each user's scores are those of a model that was made without the user; but for the most visited products' order."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 7, size=40)
    ids, offsets = np.array([f"p{p:02d}" for p in range(12)]), np.concatenate([[0], np.cumsum(lengths)])
    items = np.concatenate([np.arange(12), rng.integers(12, size=offsets[-1] - 12)]).astype(np.int32)
    corpus = Corpus(ids, items, offsets, user_ids=np.array([f"u{u:02d}" for u in rng.permutation(40)]))
    examples, model = of_users(corpus), MODELS[name](corpus, ids)
    for user in range(0, 40, 3):
        keep = np.arange(40) != user
        visits = np.repeat(keep, lengths)
        used, places = np.unique(items[visits], return_inverse=True)
        others = Corpus(ids[used], places.astype(np.int32), np.append(0, np.cumsum(lengths[keep])), user_ids=corpus.user_ids[keep])
        one = examples[user : user + 1]
        expected = MODELS[name](others, ids)(replace(one, trained=one.start))[0]
        scores = model(one)[0]
        assert np.array_equal(
            MODELS[name](corpus, ids, own=True)(one), MODELS[name](replace(corpus, user_ids=None), ids)(replace(one, trained=one.start))
        )
        known = expected > 0.02
        np.testing.assert_allclose(scores[known], expected[known], rtol=1e-4, atol=0.02 if name == "markov" else 1e-5)
        assert (scores[~known] <= 0.02).all()


def relabelled(corpus, examples, vectors, names):
    """The same log whose product p is called ``names[p]``, with its product table."""
    used = np.argsort(names)  # the vocabulary is sorted
    place = np.argsort(used).astype(np.int32)
    moved = replace(examples, items=place[examples.items], target=place[examples.target])
    return replace(corpus, product_ids=names[used], items=place[corpus.items]), moved, vectors[used]


ALL = MODELS | {
    "popular": lambda corpus, ids: baselines.popular(baselines.visit_counts(corpus, ids)),
    "recently_popular": lambda corpus, ids: baselines.recently_popular(corpus, ids, 0.1),
    "own_products": lambda corpus, ids: baselines.own_products(baselines.visit_counts(corpus, ids), 0.3),
    "session_knn": lambda corpus, ids: session_knn.session_knn(corpus, ids, 20, decay=0.3, decay_time="days"),  # no ties
}


@pytest.mark.parametrize("name", [*ALL, "nearest_to_last", "nearest_to_user"])
def test_relabelling_the_products_changes_no_figures(name):
    rng = np.random.default_rng(0)
    names, n = np.array([f"p{p:03d}" for p in range(60)]), 300
    lengths = rng.integers(3, 12, size=n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = np.minimum(rng.exponential(15, size=offsets[-1]), 59).astype(np.int32)
    items[rng.permutation(len(items))[:60]] = np.arange(60)  # each occurs
    times, user_ids = np.concatenate([np.sort(rng.uniform(0, 60, size=k)) for k in lengths]), np.arange(n).astype("U4")
    corpus = Corpus(names, items, offsets, times, user_ids=user_ids)
    examples = replace(of_users(corpus), times=times)
    vectors = rng.normal(size=(60, 5)).astype(np.float32)
    found = []
    for called in (names, rng.permutation(names), names[::-1]):
        one, asked, table = relabelled(corpus, examples, vectors, called)
        if name in ALL:
            model = ALL[name](one, one.product_ids)
        else:
            known = np.ones(60, bool)
            model = baselines.nearest_to_last(table, known) if name.endswith("last") else baselines.nearest_to_user(table, known, 0.3)
        found.append(evaluation.evaluate(model, asked, threads=1).ranks)
    assert len(np.unique(found[0])) > 10
    for other in found[1:]:
        np.testing.assert_allclose([(other <= 20).mean(), (1 / other).mean()], [(found[0] <= 20).mean(), (1 / found[0]).mean()], atol=1e-3)
        assert (other == found[0]).mean() > 0.98  # but for what rounding does to equal scores


def test_ease_is_the_regression_of_each_product_on_all_others_without_the_users_own_row():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, size=50)
    offsets, ids = np.append(0, np.cumsum(lengths)), np.array([f"p{p:02d}" for p in range(12)])
    corpus = Corpus(ids, rng.integers(12, size=offsets[-1]).astype(np.int32), offsets, user_ids=np.arange(50).astype("U2"))
    examples = of_users(corpus)
    seen = np.zeros((50, 12))
    seen[np.repeat(np.arange(50), lengths), corpus.items] = 1
    weights = history_weights(examples, 12, 0.3, "rank").toarray()
    scores = factors.Ease(corpus, ids)(5.0, 0.3, "rank")(examples)
    for user in range(50):
        others = np.delete(seen, user, axis=0)
        for product in range(12):
            rest = np.delete(np.arange(12), product)
            table = others[:, rest].T @ others[:, rest] + 5 * np.eye(11)
            coefficients = np.linalg.solve(table, others[:, rest].T @ others[:, product])
            assert scores[user, product] == pytest.approx(weights[user, rest] @ coefficients, abs=1e-5)
    few = factors.Ease(corpus, ids, most=3)(5.0, 0.3, "rank")(examples)
    popular = np.argsort(-baselines.visit_counts(corpus, ids), kind="stable")[:3]
    assert set(np.flatnonzero((few > -100).any(axis=0))) == set(popular)


def test_a_saved_regression_is_not_fitted_again_whatever_is_tried_between(tmp_path, monkeypatch):
    corpus, ids = Corpus(np.array(["a", "b"]), np.array([0, 1, 1], np.int32), np.array([0, 2, 3])), np.array(["a", "b"])
    first = factors.Ease(corpus, ids)
    table = first.table(5.0)
    np.testing.assert_allclose(table, np.linalg.inv([[6, 1], [1, 7]]), rtol=1e-6)
    first.save(tmp_path / "ease.npz")
    again = factors.Ease(corpus, ids, saved=tmp_path / "ease.npz")
    assert not np.allclose(again.table(7.0), table)
    monkeypatch.setattr(factors, "_inverse", None)
    np.testing.assert_array_equal(again.table(5.0), table)


@pytest.mark.parametrize("regularisation", [1000.0, 30.0, 0.3, 0.01])
def test_the_inverse_of_a_regression_is_that_of_double_precision_to_a_millionth(regularisation):
    """Sequences in which a few products are everywhere, as in a log; the last regularisation is worked out in double precision."""
    seen = np.random.default_rng(0).random((4000, 60)) < np.geomspace(0.9, 0.001, 60)
    gram = (seen.T.astype(np.float32) @ seen).astype(np.float32)
    exact = np.linalg.inv(gram.astype(float) + regularisation * np.eye(60))
    found = factors._inverse(gram, regularisation)
    assert found.dtype == np.float32 and np.array_equal(found, found.T)
    np.testing.assert_allclose(found / np.diag(found), exact / np.diag(exact), atol=2e-6)


def test_matrix_factorisation_tells_two_tastes_apart():
    pytest.importorskip("implicit", reason="the extra mf is not installed")
    corpus = two_tastes()
    model = factors.matrix_factorisation(corpus, corpus.product_ids, decay=0.0, dim=2)
    for history, taste in (([0, 1], range(5)), ([7], range(5, 10))):
        assert set(np.argsort(-model(one_history(history, range(len(history))))[0])[:5]) == set(taste)
    again = factors.matrix_factorisation(corpus, corpus.product_ids, decay=0.0, dim=2)
    assert np.array_equal(model(SEEN), again(SEEN))


def test_matrix_factorisation_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(factors.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the library implicit"):
        factors.matrix_factorisation(CORPUS, IDS, 0.0)
