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
    tables = [transitions.pairs(HAND, step).counts(4) for step in transitions.STEPS]
    row, product, kind, count = transitions.linked(tables, HAND[np.array([0, 1])])  # histories: 0; 0 1
    assert sorted(zip(row.tolist(), product.tolist(), kind.tolist(), count.tolist())) == [
        (0, 1, 0, 3.0), (1, 0, 0, 1.0), (1, 0, 1, 1.0), (1, 2, 0, 1.0), (1, 2, 1, 1.0), (1, 3, 0, 1.0), (1, 3, 1, 1.0),
    ]  # fmt: skip


def test_a_target_that_no_other_sequence_shows_gets_no_bonus():
    examples = made([[0, 1], [2, 3]])
    found = transitions.pairs(examples, 1)
    own = [found.own(examples.items[examples.end - 1], examples.start, 4)]
    assert len(transitions.linked([found.counts(4)], examples, own)[0]) == 0
