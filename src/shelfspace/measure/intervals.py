"""How sure is a figure? Bootstrap over customers, Wilson's interval for shares, and Holm's correction for many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

DRAWS, TEST_DRAWS, GROUPS = 1000, 10_000, 2000
"""Draws of the bootstrap for an interval, and for a paired test, whose p must be small enough to be corrected for many
tests; and the most owners that are drawn one by one."""


def bootstrap(values: np.ndarray, owners: np.ndarray | None = None, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Means over examples when their owners are drawn with replacement, each with all of its examples.

    Examples of one customer are alike, so a draw of examples would make intervals too narrow (Field and Welsh 2007). The mean of
    a draw is a ratio: the sum over the drawn owners, by the number of their examples. Owners with the same sum and number are
    drawn together, by a multinomial, where they are few kinds. Otherwise more than `GROUPS` owners are first put together at
    random into that many groups, which are drawn instead: the mean varies by as much.

    Parameters
    ----------
    values : ndarray, shape (n,) or (n, columns)
        The columns of an example are drawn together.
    owners : ndarray, shape (n,), optional
        Whose each example is, such as `Examples.user_ids`; None: each example is its own.
    draws : int
    seed : int

    Returns
    -------
    ndarray of float64, shape (draws,) + values.shape[1:]
    """
    rng = np.random.default_rng(seed)
    flat = np.asarray(values, dtype=float).reshape(len(values), -1)
    sums = _per_owner(np.column_stack([flat, np.ones(len(flat))]), owners)
    distinct, many = _distinct(sums)
    n = len(sums)
    if 8 * len(distinct) < n or len(distinct) == 1:  # a binomial takes about as long as eight owners drawn one by one
        drawn = rng.multinomial(n, many / n, size=draws) @ distinct
    else:
        if n > GROUPS:
            sums = _per_owner(sums, rng.permutation(n) % GROUPS)
            n = GROUPS
        drawn = (_draws(n, draws, seed) @ sums.astype(np.float32)).astype(float)
    return (drawn[:, :-1] / drawn[:, -1:]).reshape((draws, *np.shape(values)[1:]))


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows in order, and how many there are of each: as `np.unique`, which sorts whole rows, where one number tells them apart."""
    number = (rows * np.sqrt(2 + np.arange(rows.shape[1]))).sum(axis=1)
    _, first, place, many = np.unique(number, return_index=True, return_inverse=True, return_counts=True)
    distinct = rows[first]
    if not np.array_equal(distinct[place], rows):
        return np.unique(rows, axis=0, return_counts=True)
    order = np.lexsort(distinct.T[::-1])
    return distinct[order], many[order]


def _per_owner(rows: np.ndarray, owners: np.ndarray | None) -> np.ndarray:
    """The rows of each owner added up, shape (n_owners, columns), in the order of the owners' names."""
    if owners is None:
        return rows
    codes, names = pd.factorize(np.asarray(owners), sort=True)
    return np.stack([np.bincount(codes, column, len(names)) for column in rows.T], axis=1)


@lru_cache(maxsize=4)  # the tests of one table draw the same customers, so that they are drawn but once
def _draws(n: int, draws: int, seed: int) -> np.ndarray:
    """How often each of n owners is drawn when n are drawn with replacement, so many times; float32, shape (draws, n)."""
    rng, block = np.random.default_rng(seed), max(1, 2_000_000 // n)
    times = np.empty((draws, n), dtype=np.float32)
    for first in range(0, draws, block):
        some = times[first : first + block]
        places = rng.integers(n, size=some.shape) + n * np.arange(len(some))[:, None]
        some[:] = np.bincount(places.reshape(-1), minlength=some.size).reshape(some.shape)
    return times


def interval(values: np.ndarray, owners: np.ndarray | None = None, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of `values`, shape (n,), over their `owners` (see `bootstrap`)."""
    low, high = np.quantile(bootstrap(values, owners, seed=seed), [0.025, 0.975])
    return float(low), float(high)


def holm(p: Sequence[float]) -> np.ndarray:
    """P-values adjusted for all of them being told at once (Holm 1979), in the given order; at most 1.

    The least p counts as often as there are tests, the next once less, and none less than the one before it: an adjusted p
    below 0.05 keeps the chance of any false finding among them below 5 %.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def clear(found: Mapping) -> bool:
    """Whether a paired difference (`evaluation.difference`) is beyond chance: its interval leaves out 0. Otherwise no difference is shown, which is not
    that there is none."""
    return found["ci95"][0] > 0 or found["ci95"][1] < 0


def standing(found: Mapping) -> str:
    """Where a paired difference puts the first of its two models: "ahead", "behind", or "level" where none is shown (`clear`)."""
    return "level" if not clear(found) else "ahead" if found["ci95"][0] > 0 else "behind"


def p_text(found: Mapping, key: str = "p_holm") -> str:
    """The p of a paired difference as a table shows it: "0.031", or "≤ 0.0066" where the draws could not show a smaller one."""
    return f"≤ {found[key]:.2g}" if found["p_is_bound"] else f"{found[key]:.3f}"


def correct(tests: Sequence[dict]) -> None:
    """Give each paired difference of those told at once its "p_holm"."""
    for test, p in zip(tests, holm([test["p"] for test in tests])):
        test["p_holm"] = float(p)


def wilson(hits: float, n: float) -> tuple[float, float]:
    """95 % interval of a share of which `hits` of `n` were seen (Wilson 1927)."""
    z = 1.959964
    centre, spread = hits + z * z / 2, z * np.sqrt(hits * (n - hits) / n + z * z / 4)
    return float((centre - spread) / (n + z * z)), float((centre + spread) / (n + z * z))
