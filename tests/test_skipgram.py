"""Skip-gram: its formulas by hand, which pairs it learns from, and what its switches leave alone."""

import math

import numpy as np
import pytest
from gensim.models import Word2Vec
from test_trainers import corpus

from shelfspace.sequences.arrays import Corpus
from shelfspace.vectors import skipgram


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


V = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
U = np.array([[0.0, 0.0], [0.6, 0.8], [-0.5, 1.0]])


def test_one_pair_by_hand():
    """v_p = (1, 0), u_c = (0.6, 0.8), u_n = (-0.5, 1), a learning rate of 0.1 and a weight of 2."""
    loss, v, u = skipgram.update(V, U, 0, 1, [2], weight=2.0, learning_rate=0.1)
    towards, away = 1 - sigmoid(0.6), sigmoid(-0.5)  # what is left of 1 and of 0
    assert loss == pytest.approx(-2 * (math.log(sigmoid(0.6)) + math.log(sigmoid(0.5))), abs=1e-6)
    np.testing.assert_allclose(v[0], V[0] + 0.2 * (towards * U[1] - away * U[2]), atol=1e-6)
    np.testing.assert_allclose(u[1], U[1] + 0.2 * towards * V[0], atol=1e-6)
    np.testing.assert_allclose(u[2], U[2] - 0.2 * away * V[0], atol=1e-6)
    assert np.array_equal(v[1:], V[1:]) and np.array_equal(u[0], U[0])


def test_a_global_positive_by_hand_has_no_noise():
    loss, v, u = skipgram.update(V, U, 0, 1, [], learning_rate=0.1)
    assert loss == pytest.approx(-math.log(sigmoid(0.6)), abs=1e-6)
    np.testing.assert_allclose(v[0], V[0] + 0.1 * (1 - sigmoid(0.6)) * U[1], atol=1e-6)


def learned_from(monkeypatch, given: Corpus, *, weights=None, goals=None, groups=None, market=0, window=1, negatives=2):
    """The pairs of one pass, as (product, context, noise, weight), recorded in place of being learned."""
    seen = []

    def record(v, u, product, outputs, size, weight, rate, gradient):
        seen.append((int(product), int(outputs[0]), outputs[1:size].tolist(), float(weight)))
        return 0.0

    monkeypatch.setattr(skipgram, "_learn", record)
    n = len(given.product_ids)
    share = np.bincount(given.items, minlength=n).astype(float)
    weights = np.ones(len(given.items), np.float32) if weights is None else weights
    goals = np.full(len(given.items), -1) if goals is None else np.where(goals >= 0, given.items[goals], -1)
    grouped = skipgram._grouped(np.full(n, -1) if groups is None else groups, share)
    skipgram._epoch.py_func(
        np.zeros((n, 16), np.float32), np.zeros((n, 16), np.float32), given.items, given.offsets, weights, goals,
        np.arange(len(given)), np.array([7], np.uint64), window, negatives, *skipgram._alias(share), *grouped, market, 0.1, 0.0,
    )  # fmt: skip
    return seen


LINE = Corpus(np.array(list("abcd")), np.array([0, 1, 2, 3], np.int32), np.array([0, 4]))


def test_pairs_are_those_of_the_window_with_the_weight_of_the_context(monkeypatch):
    pairs = learned_from(monkeypatch, LINE, weights=np.array([1, 3, 1, 5], np.float32))
    assert [(p, c, w) for p, c, _, w in pairs] == [(1, 0, 1), (0, 1, 3), (2, 1, 3), (1, 2, 1), (3, 2, 1), (2, 3, 5)]
    assert all(c not in noise for _, c, noise, _ in pairs)
    assert pairs[1][2] == pairs[2][2] and pairs[3][2] == pairs[4][2]  # drawn once for all that a visit is context of


def test_every_visit_has_the_purchase_of_its_session_as_context_but_the_purchase_itself(monkeypatch):
    plain = [(p, c) for p, c, _, _ in learned_from(monkeypatch, LINE)]
    pairs = learned_from(monkeypatch, LINE, goals=np.array([3, 3, -1, 3]))
    assert [(p, c) for p, c, _, _ in pairs] == [(1, 0), (0, 3), (0, 1), (2, 1), (1, 3), *plain[3:]]  # at every distance
    assert pairs[1] == (0, 3, [], 1.0) and pairs[4] == (1, 3, [], 1.0)  # without noise


def test_noise_of_the_category_comes_from_it_and_is_neither_product_nor_context(monkeypatch):
    items = np.tile(np.array([0, 1, 2, 3, 4, 5], np.int32), 20)
    given = Corpus(np.array(list("abcdef")), items, np.array([0, len(items)]))
    groups = np.array([0, 0, 0, 1, 1, -1])
    pairs = learned_from(monkeypatch, given, groups=groups, market=30, negatives=1)
    for product, context, noise, _ in pairs:
        own = noise[1:] if len(noise) and noise[0] not in (product,) else noise
        if groups[product] < 0:
            assert len(noise) <= 1
        else:
            drawn = [n for n in own if groups[n] == groups[product]]
            assert set(drawn) <= set(np.flatnonzero(groups == groups[product])) - {context}
            assert len(own) - len(drawn) <= 1  # the one that is drawn from all products
    assert {n for p, _, noise, _ in pairs if p == 0 for n in noise[1:]} == {1, 2}


def test_the_tables_draw_in_proportion():
    share = np.array([5.0, 1.0, 0.0, 2.0])
    chance, other = skipgram._alias(share)
    mass = np.bincount(np.arange(4), chance, 4) + np.bincount(other, 1 - chance, 4)
    np.testing.assert_allclose(mass / 4, share / 8, atol=1e-6)
    state, running = np.array([3], np.uint64), np.concatenate([[0.0], np.cumsum(share)])
    drawn = np.bincount([skipgram._within.py_func(state, running, 1, 4) for _ in range(3000)], minlength=4) / 3000
    np.testing.assert_allclose(drawn, [0, 1 / 3, 0, 2 / 3], atol=0.04)


def test_switches_that_switch_nothing_leave_the_bytes_alone():
    given = corpus()
    visits, products = len(given.items), len(given.product_ids)
    plain = skipgram.train(given, dim=8, epochs=2, progress=False)
    neutral = skipgram.train(
        given, dim=8, epochs=2, progress=False, weights=np.ones(visits), goals=np.full(visits, -1), groups=np.arange(products) % 3
    )
    assert np.array_equal(plain.vectors, neutral.vectors)
    heavy = skipgram.train(given, dim=8, epochs=2, progress=False, weights=np.full(visits, 2))
    assert not np.array_equal(plain.vectors, heavy.vectors)


def test_visits_that_led_to_the_same_purchase_come_nearer_to_each_other():
    """Two products that never stand side by side lead to the same purchase, far away."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(600):
        kind, side = rng.integers(4), rng.integers(2)
        rows.append([kind * 2 + side, *(8 + rng.integers(10, size=8)), 18 + kind])
    given = Corpus(np.array([f"p{i:02d}" for i in range(22)]), np.array(rows, np.int32).reshape(-1), np.arange(601) * 10)
    goals = np.repeat(np.arange(600) * 10 + 9, 10)
    apart = []
    for switch in (None, goals):
        made = skipgram.train(given, dim=8, epochs=20, window=1, goals=switch, progress=False).vectors
        unit = made / np.linalg.norm(made, axis=1, keepdims=True)
        apart.append(np.mean([unit[2 * k] @ unit[2 * k + 1] - unit[2 * k] @ unit[(2 * k + 3) % 8] for k in range(4)]))
    assert apart[1] > apart[0] + 0.1


@pytest.mark.parametrize(
    "given, sentence",
    [({"dim": 0}, "dim is 0"), ({"window": 0}, "window is 0"), ({"negatives": 0}, "negatives is 0"), ({"market": 2}, "give groups")],
)
def test_what_does_not_fit_is_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        skipgram.train(corpus(), progress=False, **given)
    with pytest.raises(ValueError, match="no training visit"):
        skipgram.train(Corpus(np.zeros(0, str), np.zeros(0, np.int32), np.zeros(1, np.int64)), progress=False)


def test_popular_products_are_thinned_out_as_by_gensim():
    items = np.repeat(np.arange(5, dtype=np.int32), [400, 100, 40, 9, 1])
    model = Word2Vec(min_count=1, sample=0.02)
    model.build_vocab([items.astype(str).tolist()])
    theirs = [model.wv.get_vecattr(str(item), "sample_int") / 2**32 for item in range(5)]
    ours = skipgram._keep(items, 5, 0.02)[np.searchsorted(items, np.arange(5))]
    np.testing.assert_allclose(np.minimum(ours, 1), theirs, atol=1e-6)
    assert skipgram._keep(items, 5, 0.0) is None


def test_what_is_left_of_a_pass_keeps_its_sequences():
    items, offsets = np.array([3, 1, 2, 0, 3], np.int32), np.array([0, 2, 3, 5])
    kept = np.array([True, False, False, True, True])
    left = skipgram._thinned(items, offsets, np.arange(5.0), items - 1, kept)
    assert [each.tolist() for each in left] == [[3, 0, 3], [0, 1, 1, 3], [0, 3, 4], [2, -1, 2]]


def test_steps_that_are_too_large_are_told_and_not_handed_on():
    items = np.random.default_rng(0).integers(0, 20, 4000).astype(np.int32)
    corpus = Corpus(np.array([f"p{i:02d}" for i in range(20)]), items, np.arange(0, 4001, 10))
    with pytest.raises(ValueError, match="overflowed; lower the step size, 3.0"):
        skipgram.train(corpus, dim=16, epochs=5, learning_rate=3.0, progress=False)
