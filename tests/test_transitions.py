"""Transitions: what is counted, whose own part is left out, and where they lead."""

import numpy as np
import pytest

from shelfspace import transitions
from tests.test_tied import HAND, made


def test_pairs_by_hand():
    one, two = (transitions.pairs(HAND, step).counts(4).toarray() for step in (1, 2))
    expected = np.zeros((4, 4))
    expected[0, 1], expected[1, 0], expected[1, 2], expected[1, 3] = 3, 1, 1, 1
    assert np.array_equal(one, expected)
    expected = np.zeros((4, 4))
    expected[0, 0], expected[1, 1], expected[0, 2], expected[0, 3] = 1, 1, 1, 1
    assert np.array_equal(two, expected)


def test_pairs_come_from_the_training_examples_alone():
    """Without the longest prefix of the first sequence, its last visit is nobody's target and is not counted."""
    assert transitions.pairs(HAND[np.array([0, 1, 2, 4, 5])], 1).counts(4).toarray()[1].tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("step", transitions.STEPS)
def test_counts_leave_the_examples_own_sequence_out(step):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(6, size=rng.integers(2, 9)) for _ in range(40)]
    examples = made(sequences)
    source = examples.items[np.maximum(examples.end - step, examples.start)]
    left = transitions.pairs(examples, step).counts(6)[source] - transitions.pairs(examples, step).own(source, examples.start, 6)
    starts = np.unique(examples.start)
    for i in range(len(examples)):
        others = [s for s, first in zip(sequences, starts) if first != examples.start[i]]
        expected = np.zeros(6)
        for s in others:
            for a, b in zip(s, s[step:]):
                expected[b] += a == source[i]
        assert np.array_equal(left[[i]].toarray()[0], expected)


def test_links_lead_on_from_the_newest_and_the_one_before():
    row, product, kind, count = transitions.Links.count(HAND, 4).after(HAND[np.array([0, 1])])  # histories: 0; 0 1
    assert sorted(zip(row.tolist(), product.tolist(), kind.tolist(), count.tolist())) == [
        (0, 1, 0, 3.0), (1, 0, 0, 1.0), (1, 0, 1, 1.0), (1, 2, 0, 1.0), (1, 2, 1, 1.0), (1, 3, 0, 1.0), (1, 3, 1, 1.0),
    ]  # fmt: skip


def test_a_target_that_no_other_sequence_shows_gets_no_bonus():
    examples = made([[0, 1], [2, 3]])
    links, own = transitions.Links.count(examples, 4), transitions.Own.of(examples, 4)
    assert len(links.after(examples)[0]) == 2 and len(links.after(examples, own)[0]) == 0


def test_together_by_hand():
    table, alone = transitions.together(HAND, 4)
    assert alone.tolist() == [2, 2, 1, 1]
    assert table.toarray().tolist() == [[2, 2, 1, 1], [2, 2, 1, 1], [1, 1, 1, 0], [1, 1, 0, 1]]


def test_together_keeps_what_goes_together_most(monkeypatch):
    monkeypatch.setattr(transitions, "COMPANIONS", 2)
    table, _ = transitions.together(made([[0, 1], [0, 1, 2], [0, 3]]), 4)
    assert table.toarray()[0].tolist() == [3, 2, 0, 0]  # 3/√3 and 2/√2, against 1/√1 twice


def test_what_goes_together_is_averaged_over_the_history():
    links = transitions.Links.count(HAND, 4)
    one = HAND[np.array([1])]  # history: 0 1, weighed 0.25 and 0.75
    history = np.array([0, 1]), np.array([0.25, 0.75]), np.array([0, 2])
    for among, expected in ([1, 1, 1, 1], {0: 1.0, 1: 1.0, 2: 1 / np.sqrt(2), 3: 1 / np.sqrt(2)}), ([0, 1, 0, 0], {1: 1.0}):
        row, product, kind, value = links.alike(one, *history, np.array(among, bool))
        assert dict(zip(product.tolist(), value.tolist())) == pytest.approx(expected)
        assert (row == 0).all() and (kind == transitions.TOGETHER).all()


def test_what_goes_together_leaves_the_examples_own_sequence_out():
    rng = np.random.default_rng(0)
    sequences = [rng.integers(6, size=rng.integers(2, 9)) for _ in range(30)]
    examples = made(sequences)
    links, own = transitions.Links.count(examples, 6), transitions.Own.of(examples, 6)
    starts = np.unique(examples.start)
    for i in range(0, len(examples), 7):
        seen = examples.items[examples.start[i] : examples.end[i]]
        weights = np.full(len(seen), 1 / len(seen))
        others = [set(s.tolist()) for s, first in zip(sequences, starts) if first != examples.start[i]]
        alone = np.array([sum(p in s for s in others) for p in range(6)])
        expected = np.zeros(6)
        for a, w in zip(seen, weights):
            for b in range(6):
                both = sum(a in s and b in s for s in others)
                expected[b] += w * both / np.sqrt(alone[a] * alone[b]) if both else 0
        one = np.array([i])
        _, product, _, value = links.alike(examples[one], seen, weights, np.array([0, len(seen)]), np.ones(6, bool), own[one])
        found = np.zeros(6)
        found[product] = value
        np.testing.assert_allclose(found, expected, rtol=1e-5)
