"""The peers: that they learn an order, see neither the future nor what stands behind the end, and repeat themselves to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from shelfspace.measure import evaluation
from shelfspace.models import peers
from shelfspace.sequences.arrays import Corpus, Examples

IDS = np.array([f"p{i:02d}" for i in range(12)])


def ring(n: int = 200, length: int = 5, seed: int = 0) -> Corpus:
    """Product p is followed by p + 1 or, half of the time where the first product is even, by p + 2."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 12, n)
    items = (first[:, None] + np.arange(length) * (1 + first[:, None] % 2)) % 12
    return Corpus(IDS, items.ravel().astype(np.int32), length * np.arange(n + 1))


def asked(histories: list[list[int]], targets: list[int]) -> Examples:
    items = np.concatenate(histories).astype(np.int32)
    end = np.cumsum([len(one) for one in histories])
    start, n = end - [len(one) for one in histories], len(targets)
    return Examples(
        items, np.zeros(len(items)), np.zeros(len(items), np.int8), start, end, np.array(targets, np.int32), np.zeros(n, np.int8),
        np.arange(n).astype(str),
    )  # fmt: skip


@pytest.mark.parametrize("kind", peers.PEERS)
def test_learns_what_only_the_order_tells(kind):
    """After 4 comes 5, or 6 where 2 came before it; one product alone cannot tell which."""
    model, kept = peers.train(kind, ring(), IDS, dim=16, dropout=0.0, epochs=15, batch=20, learning_rate=0.01, progress=False)
    assert kept == 15
    examples = asked([[2, 3, 4], [1, 3, 5], [2, 3], [1, 3]], [5, 7, 4, 5])
    assert evaluation.evaluate(model, examples).ranks.tolist() == [1, 1, 1, 1]
    alone = np.concatenate([model(examples[i : i + 1]) for i in range(4)])
    assert np.allclose(model(examples), alone, atol=1e-5)  # shorter rows do not see what they are padded with


@pytest.mark.parametrize("kind", peers.PEERS)
def test_no_vector_sees_what_comes_later(kind):
    body = peers.network(kind, 12, 8, 0.3)
    rows = np.array([[1, 2, 3, 4], [1, 2, 9, 9]], np.int32)
    out = np.asarray(body(rows, training=False))
    assert np.allclose(out[0, :2], out[1, :2], atol=1e-6) and not np.allclose(out[0, 2:], out[1, 2:], atol=1e-3)


def test_the_best_pass_is_kept_and_the_same_comes_again():
    """The valid targets follow another rule than the sequences, so that the last pass is not the best."""
    against = asked([[2, 3, 4], [5, 6]], [0, 2])
    settings = dict(dim=8, epochs=6, patience=1, batch=50, learning_rate=0.02, progress=False)
    (one, kept), (two, again) = (peers.train("gru4rec", ring(), IDS, against, **settings) for _ in range(2))
    assert kept == again < 6 and np.array_equal(one(against), two(against))
    stopped, _ = peers.train("gru4rec", ring(), IDS, **settings | {"epochs": kept})
    assert np.array_equal(one(against), stopped(against))


def test_long_sequences_are_cut_and_nothing_is_asked_twice():
    n = 2 * peers.VISITS + 7
    items = (np.arange(n) % 12).astype(np.int32)
    parts = peers.pieces(Corpus(IDS, items, np.array([0, n])), IDS)
    assert [len(part) for part in parts] == [peers.VISITS + 1, peers.VISITS + 1, 7]
    assert sum(len(part) - 1 for part in parts) == n - 1  # each visit but the first is a target once
    long = asked([items.tolist()], [3])
    model, _ = peers.train("sasrec", ring(50), IDS, dim=8, epochs=1, progress=False)
    assert np.allclose(model(long), model(asked([items[-peers.VISITS :].tolist()], [3])), atol=1e-6)


def test_what_cannot_be_is_told():
    with pytest.raises(ValueError, match="no peer 'bert'; it must be one of gru4rec, sasrec"):
        peers.network("bert", 3, 4, 0.0)
    with pytest.raises(ValueError, match="No sequence has two products"):
        peers.train("gru4rec", Corpus(IDS, np.zeros(2, np.int32), np.arange(3)), IDS, progress=False)
