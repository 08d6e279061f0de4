"""Customers followed visit by visit: who is chosen, what each step may see, and that the parts sum to the score."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from shelfspace.models import journeys
from shelfspace.sequences.arrays import Examples

PRODUCTS = np.array([f"p{i}" for i in range(9)])


def log(lengths, seed: int = 0) -> Examples:
    """Histories of these lengths and a target after each, one day between visits."""
    rng = np.random.default_rng(seed)
    lengths = np.asarray(lengths)
    items = rng.integers(0, len(PRODUCTS), lengths.sum() + len(lengths)).astype(np.int32)
    start = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]])
    end = start + lengths
    events = (np.arange(len(items)) % 3).astype(np.int8)
    ids = np.array([f"u{i}" for i in range(len(lengths))])
    return Examples(items, np.arange(len(items), dtype=float), events, start, end, items[end], events[end], ids, end)


def newest_first(examples: Examples) -> np.ndarray:
    """Scores by the last product alone: itself, then the next ones in the table."""
    return -((np.arange(len(PRODUCTS)) - examples.items[examples.end - 1][:, None]) % len(PRODUCTS)).astype(np.float32)


def halves(examples: Examples, row: np.ndarray, product: np.ndarray) -> pd.DataFrame:
    score = newest_first(examples)[row, product].astype(float)
    return pd.DataFrame({"score": score, "one": score / 4, "two": score / 2, "base": score / 4})


def test_a_step_sees_the_visits_before_it_and_is_asked_for_the_next():
    examples = log([5, 2])
    followed, row = journeys.steps(examples, np.array([0, 1]), newest=3)
    assert row.tolist() == [0, 0, 0, 1, 1] and followed.lengths.tolist() == [3, 4, 5, 1, 2]
    assert followed.target.tolist() == [examples.items[3], examples.items[4], examples.target[0], examples.items[7], examples.target[1]]
    assert followed.target_event.tolist() == [0, 1, 2, 1, 2]
    assert followed.trained.tolist() == [5, 5, 5, 8, 8]  # the own sequence stays out of what was counted, at every step
    assert followed.user_ids.tolist() == ["u0"] * 3 + ["u1"] * 2


def test_those_chosen_are_of_every_kind_and_the_same_again():
    examples = log(np.random.default_rng(1).integers(2, 40, 600), 1)
    rank = np.random.default_rng(2).integers(1, 40, 600)
    rows = journeys.choose(examples, rank)
    assert len(rows) == len(set(rows)) == journeys.CUSTOMERS and np.array_equal(rows, journeys.choose(examples, rank))
    assert not np.array_equal(rows, journeys.choose(examples, rank, seed=1))
    lengths = examples.lengths[rows]
    assert journeys.VISITS[0] <= lengths.min() and lengths.max() <= journeys.VISITS[1]
    middle = np.median(examples.lengths[(examples.lengths >= journeys.VISITS[0]) & (examples.lengths <= journeys.VISITS[1])])
    kinds = pd.Series(list(zip(rank[rows] > 20, examples.seen()[rows], lengths > middle))).value_counts()
    assert kinds.tolist() == [3] * 8
    assert len(set(kinds.index[:8])) == 8


def test_few_customers_and_none():
    assert journeys.choose(log([5, 6]), np.array([1, 50])).tolist() != [] and len(journeys.choose(log([5, 6]), np.array([1, 50]))) == 2
    assert len(journeys.choose(log([1, 1]), np.array([1, 1]))) == 0
    assert journeys.follow(log([1]), np.zeros(0, int), PRODUCTS, newest_first).empty


@pytest.mark.parametrize("explain", [halves, None])
def test_what_is_told_is_the_recommenders_and_sums_to_the_score(explain):
    examples = log([4, 6])
    told = journeys.follow(examples, np.array([1, 0]), PRODUCTS, newest_first, explain, newest=2, top=4)
    assert told.groupby(["row", "visits"], sort=False).size().to_dict() == {(1, 5): 4, (1, 6): 4, (0, 3): 4, (0, 4): 4}
    parts = told.filter(like="part_")
    assert list(parts) == (["part_one", "part_two", "part_start"] if explain else ["part_score", "part_start"])
    np.testing.assert_allclose(parts.sum(axis=1), told.score, atol=1e-12)
    for (row, visits), of in told.groupby(["row", "visits"]):
        last = examples.items[examples.start[row] + visits - 1]
        assert of.product_id.tolist() == [PRODUCTS[(last + step) % 9] for step in range(4)] and of["rank"].tolist() == [1, 2, 3, 4]
        following = examples.items[examples.start[row] + visits]
        assert set(of.next_id) == {PRODUCTS[following]} and set(of.next_rank) == {1 + (following - last) % 9}


def test_what_is_no_candidate_is_left_out_and_a_kept_place_is_told():
    examples = log([4])

    def some(part):
        return np.where(np.arange(9) < 2, newest_first(part), newest_first(part) - 10_000)

    def explain(part, row, product):
        score = some(part)[row, product].astype(float)
        named = product < 1
        return pd.DataFrame({"score": score, "one": named * score, "no_candidate": ~named * score})

    told = journeys.follow(examples, np.array([0]), PRODUCTS, some, explain, newest=1, top=9)
    assert set(told.product_id) == {"p0", "p1"}
    new = told[told.product_id == "p1"].iloc[0]
    assert new.part_one == 0 and new.part_start == new.score  # no part explains it


def test_ranks_tell_what_the_targets_are():
    examples = log([4, 8, 20])
    counts = np.array([90, 10, 10, 10, 10, 10, 1, 1, 1])
    found = journeys.ranks(examples, PRODUCTS, {"ours": np.array([1, 2, 3])}, counts, ("view", "add_to_cart", "purchase"))
    assert found.product_id.tolist() == PRODUCTS[examples.target].tolist() and found.ours.tolist() == [1, 2, 3]
    assert found.history.tolist() == ["up to 5 visits", "6 to 15 visits", "over 15 visits"] and found.visits.tolist() == [4, 8, 20]
    assert found.seen.tolist() == examples.seen().tolist() and set(found.target) <= {"popular", "middling", "rare"}
    assert found.event.tolist() == [("view", "add_to_cart", "purchase")[e] for e in examples.target_event]
