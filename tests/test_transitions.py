"""Transitions: what is counted, that nobody meets their own part of it, and where they lead."""

from dataclasses import replace

import numpy as np
import pytest

from shelfspace.models import transitions
from shelfspace.sequences.arrays import Examples
from tests.test_tied import HAND, counted, made


def links(examples, products):
    return transitions.Links.count(*counted(examples, products))


def uncounted(examples):
    """The same histories, of somebody of whom nothing was counted."""
    return replace(examples, trained=examples.start)


def dense(n, row, product, value):
    table = np.zeros(n)
    table[row, product] = value
    return table


def test_what_follows_by_hand():
    one, two = (transitions.following(*counted(HAND, 4), step).toarray() for step in (1, 2))
    expected = np.zeros((4, 4))
    expected[0, 1], expected[1, 0], expected[1, 2], expected[1, 3] = 3, 1, 1, 1
    assert np.array_equal(one, expected)
    expected = np.zeros((4, 4))
    expected[0, 0], expected[1, 1], expected[0, 2], expected[0, 3] = 1, 1, 1, 1
    assert np.array_equal(two, expected)


@pytest.mark.parametrize("step", transitions.STEPS)
def test_followers_leave_the_own_sequence_out(step):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(6, size=rng.integers(2, 9)) for _ in range(40)]
    examples = made(sequences)
    table = transitions.following(*counted(examples, 6), step)
    left = dense((len(examples), 6), *transitions.followers(table, examples, step, examples.end - step))
    starts = np.unique(examples.start)
    for i in range(len(examples)):
        expected = np.zeros(6)
        if examples.lengths[i] >= step:
            source = examples.items[examples.end[i] - step]
            for s in (s for s, first in zip(sequences, starts) if first != examples.start[i]):
                for a, b in zip(s, s[step:]):
                    expected[b] += a == source
        assert np.array_equal(left[i], expected)


def test_links_lead_on_from_the_newest_and_the_one_before():
    row, product, kind, count = links(HAND, 4).after(uncounted(HAND[np.array([0, 1])]))  # histories: 0; 0 1
    assert sorted(zip(row.tolist(), product.tolist(), kind.tolist(), count.tolist())) == [
        (0, 1, 0, 3.0), (1, 0, 0, 1.0), (1, 0, 1, 1.0), (1, 2, 0, 1.0), (1, 2, 1, 1.0), (1, 3, 0, 1.0), (1, 3, 1, 1.0),
    ]  # fmt: skip


def test_what_no_other_sequence_shows_gets_no_bonus():
    examples = made([[0, 1], [2, 3]])
    seen, weights, offsets = np.array([0, 2]), np.ones(2), np.arange(3)
    for given, after, alike in (examples, 0, 0), (uncounted(examples), 2, 4):
        found = links(examples, 4)
        assert len(found.after(given)[0]) == after
        assert len(found.alike(given, seen, weights, offsets, np.ones(4, bool))[0]) == alike


def test_together_by_hand():
    table, alone = transitions.together(*counted(HAND, 4), 50)
    assert alone.tolist() == [2, 2, 1, 1]
    assert table.toarray().tolist() == [[2, 2, 1, 1], [2, 2, 1, 1], [1, 1, 1, 0], [1, 1, 0, 1]]


def test_together_keeps_what_goes_together_most():
    table, _ = transitions.together(*counted(made([[0, 1], [0, 1, 2], [0, 3]]), 4), 2)
    assert table.toarray()[0].tolist() == [3, 2, 0, 0]  # 3/√3 and 2/√2, against 1/√1 twice


def test_what_goes_together_is_averaged_over_the_history():
    one = uncounted(HAND[np.array([1])])  # history: 0 1, weighed 0.25 and 0.75
    history = np.array([0, 1]), np.array([0.25, 0.75]), np.array([0, 2])
    for among, expected in ([1, 1, 1, 1], {0: 1.0, 1: 1.0, 2: 1 / np.sqrt(2), 3: 1 / np.sqrt(2)}), ([0, 1, 0, 0], {1: 1.0}):
        row, product, kind, value = links(HAND, 4).alike(one, *history, np.array(among, bool))
        assert dict(zip(product.tolist(), value.tolist())) == pytest.approx(expected)
        assert (row == 0).all() and (kind == transitions.TOGETHER).all()


def test_what_goes_together_leaves_the_own_sequence_out():
    """For histories that were counted as for those that go on after what was counted."""
    rng = np.random.default_rng(0)
    sequences = [rng.integers(6, size=rng.integers(2, 9)) for _ in range(30)]
    examples = made(sequences)
    half = (examples.start + examples.trained) // 2
    for given in (examples, replace(examples, trained=np.where(half > examples.start + 1, half, examples.start))):
        starts, one = np.unique(given.start, return_index=True)
        kept = [given.items[a:b] for a, b in zip(starts, given.trained[one])]
        found = links(given, 6)
        for i in range(0, len(given), 7):
            seen = given.items[given.start[i] : given.end[i]]
            weights = np.full(len(seen), 1 / len(seen))
            others = [set(s.tolist()) for s, first in zip(kept, starts) if first != given.start[i]]
            alone = np.array([sum(p in s for s in others) for p in range(6)])
            expected = np.zeros(6)
            for a, w in zip(seen, weights):
                for b in range(6):
                    both = sum(a in s and b in s for s in others)
                    expected[b] += w * both / np.sqrt(alone[a] * alone[b]) if both else 0
            part = found.alike(given[np.array([i])], seen, weights, np.array([0, len(seen)]), np.ones(6, bool))
            np.testing.assert_allclose(dense((1, 6), part[0], part[1], part[3])[0], expected, rtol=1e-5)


@pytest.mark.parametrize("products", [3, 40, 3000])
@pytest.mark.parametrize("days", [1, 150, 3650])
def test_visits_whose_weight_is_0_are_met_once(products, days):
    """The weight of an old visit is 0 in float32 from about 149 days on; its companions must not be listed twice."""
    rng = np.random.default_rng(0)
    examples = made([rng.integers(products, size=50) for _ in range(30)])
    age = np.linspace(days, 0, 49)
    weights = np.exp(-0.7 * age).astype(np.float32)
    last = examples[examples.lengths == 49]
    items = np.concatenate([last.items[a:b] for a, b in zip(last.start, last.end)])
    offsets = np.arange(0, 49 * len(last) + 1, 49)
    row, product, _, value = links(examples, products).alike(
        uncounted(last), items, np.tile(weights, len(last)), offsets, np.ones(products, bool)
    )
    assert len(np.unique(row.astype(np.int64) * products + product)) == len(row) and np.isfinite(value).all()


def test_who_is_asked_beside_does_not_matter():
    rng = np.random.default_rng(0)
    examples: Examples = made([rng.integers(9, size=8) for _ in range(10)])
    found = links(examples, 9)
    whole = dense((len(examples), 9), *found.after(examples)[:2], found.after(examples)[3])
    for i in range(len(examples)):
        row, product, _, value = found.after(examples[i : i + 1])
        assert np.array_equal(dense((1, 9), row, product, value)[0], whole[i])
