"""LambdaRank (Burges 2010) as LightGBM's trees are grown by it, where exactly one candidate of each question is the target.

LightGBM's own goes through all pairs of the first places with all others, and sorts every question anew for each tree: half of its
time. With one target, only the pairs that hold it count, and the order that a tree leaves is nearly that of the tree before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba as nb
import numpy as np

from shelfspace.vectors.kernels import exp


def objective(target: np.ndarray, sizes: np.ndarray, top: int) -> Callable[[np.ndarray, object], tuple[np.ndarray, np.ndarray]]:
    """What LightGBM takes as its ``objective``: from the scores so far to the slopes and curvatures of the loss.

    A pair of the target at place a and another candidate at place b, the first place being 0, counts if either is below `top`. With s
    their scores and D(place) = 1 / log2(2 + place), it adds to the loss, as in LightGBM,

        |D(a) - D(b)| / (0.01 + |s_a - s_b|) · log(1 + exp(s_b - s_a))

    where the factor before the logarithm is held constant, and its divisor is left out while all scores of the question are equal. With
    Λ twice the sum of the slopes of all but the target, slopes and curvatures of the question are scaled by log2(1 + Λ) / Λ, so that none
    outweighs the others.

    Parameters
    ----------
    target : ndarray of bool or int, shape (k,)
        1 for one candidate of each question, else 0; one question after the other.
    sizes : ndarray of int, shape (n_questions,)
        Candidates of each.
    top : int

    Returns
    -------
    callable
        From scores of float64, shape (k,), and the data set, which is not looked at, to two arrays of float32, shape (k,). It keeps the
        order of the candidates from one call to the next. The same for any number of cores.

    Raises
    ------
    ValueError
        If a question has no target, or more than one.
    """
    starts = np.append(0, np.cumsum(sizes))
    own = np.flatnonzero(target)
    if not np.array_equal(np.searchsorted(own, starts), np.arange(len(starts))):
        raise ValueError("A question has no target, or more than one.")
    order = np.arange(len(target)) - np.repeat(starts[:-1], sizes)
    discount = (1 / np.log2(2 + np.arange(max(sizes, default=0)))).astype(np.float32)
    threads = os.cpu_count() or 1
    parts = [(part[0], part[-1] + 1) for part in np.array_split(np.arange(len(sizes)), threads) if len(part)]
    pool = ThreadPoolExecutor(threads)

    def slopes(scores: np.ndarray, _) -> tuple[np.ndarray, np.ndarray]:
        slope, curvature = np.zeros(len(scores), np.float32), np.zeros(len(scores), np.float32)
        list(pool.map(lambda part: _slopes(*part, starts, own, scores, order, discount, top, slope, curvature), parts))
        return slope, curvature

    return slopes


@nb.njit(nogil=True, cache=True)
def _slopes(begin, end, starts, own, scores, order, discount, top, slope, curvature):
    """Fill in slopes and curvatures of the questions from `begin` to `end`, and bring `order` up to date. Without the GIL, for threads."""
    one, room = np.float32(1), len(discount)
    apart, pull, bend = np.empty(room, np.float32), np.empty(room, np.float32), np.empty(room, np.float32)
    for question in range(begin, end):
        first, last = starts[question], starts[question + 1]
        score, places = scores[first:last], order[first:last]
        _sort(score, places)
        mine, at = own[question] - first, 0
        while places[at] != mine:
            at += 1
        reach = len(places) if at < top else min(top, len(places))
        even = score[places[0]] == score[places[-1]]
        for place in range(reach):
            apart[place] = score[mine] - score[places[place]]
        for place in range(reach):  # by index and without a branch, so that it becomes vector code
            away = abs(apart[place])
            odds = exp(-away)
            wrong = (odds if apart[place] > 0 else one) / (one + odds)
            weight = abs(discount[at] - discount[place])  # 0 of the target itself
            weight = weight if even else weight / (np.float32(0.01) + away)
            pull[place] = weight * wrong
            bend[place] = weight * wrong * (one - wrong)
        pulled, bent = 0.0, 0.0
        for place in range(reach):
            pulled += pull[place]
            bent += bend[place]
        scale = np.log2(1 + 2 * pulled) / (2 * pulled) if pulled > 0 else 1.0
        for place in range(reach):
            slope[first + places[place]] = scale * pull[place]
            curvature[first + places[place]] = scale * bend[place]
        slope[own[question]], curvature[own[question]] = -scale * pulled, scale * bent


@nb.njit(nogil=True, cache=True)
def _sort(score, places):
    """Put candidates in order of their scores, the best first, equal ones by number: by insertion, quick where it is nearly so."""
    for start in range(1, len(places)):
        moved, at = places[start], start
        while at > 0 and (score[places[at - 1]] < score[moved] or score[places[at - 1]] == score[moved] and places[at - 1] > moved):
            places[at] = places[at - 1]
            at -= 1
        places[at] = moved
