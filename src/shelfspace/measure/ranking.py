"""The places of targets among scores, and the best products of each row; hit rate and reciprocal rank are means over the former.

Ties share the places they take: a target's rank is 1 + the number of products scored strictly higher + half of the others
scored equal, rounded up. One compiled pass over a row counts what is above the target and picks the best products.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numba as nb
import numpy as np

from shelfspace.sequences.arrays import Examples
from shelfspace.vectors.threads import one_blas_thread

Model = Callable[[Examples], np.ndarray]
"""Scores of all products for each example: float array of shape (len(examples), n_products), higher is better. It may be
called from several threads at once."""

CUTOFFS = (5, 10, 20)


def ranks(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Rank of each row's target among all candidates, 1 the best.

    Parameters
    ----------
    scores : ndarray, shape (n, n_products)
        -inf takes a product out of the candidates; NaN is refused.
    targets : ndarray of int, shape (n,)

    Returns
    -------
    ndarray of int64, shape (n,)
        1 + number strictly higher + ceil(ties / 2), where ties are the other products of the same score.

    Raises
    ------
    ValueError
        If a score is NaN: no rank follows from it.
    """
    return read(scores, targets, *_nothing_seen(len(targets)), k=1)[0]


def top_k(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best products of each row, best first, ties by product number; int32 and float, shape (n, min(k, M)).

    Scores must be as in `ranks`.
    """
    scores = _numbers(scores)
    top, top_scores = _room(scores, k)
    if not _tops(scores, top, top_scores):
        raise ValueError(NO_NUMBER)
    return top, top_scores


def _nothing_seen(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(0, dtype=np.int32), np.zeros(n + 1, dtype=np.int64)


def read(scores: np.ndarray, targets: np.ndarray, seen: np.ndarray, offsets: np.ndarray, k: int):
    """Ranks, ranks without seen products, best products and their scores of a block; see `_pass` and `shelfspace.measure.evaluation.Evaluation`."""
    scores = _numbers(scores)
    targets = targets.astype(np.int32, copy=False)
    n, n_products = scores.shape
    if n != len(targets) or any(places.size and not 0 <= places.min() <= places.max() < n_products for places in (targets, seen)):
        raise ValueError(
            f"A model scored {n:,} examples and {n_products:,} products; these are other examples, or they name products outside the table."
        )
    rank, rank_new = np.empty(n, np.int64), np.empty(n, np.int64)
    top, top_scores = _room(scores, k)
    if not _pass(scores, targets, seen, offsets, rank, rank_new, top, top_scores):
        raise ValueError(NO_NUMBER)
    return rank, rank_new, top, top_scores


NO_NUMBER = "A model scored a product NaN; scores must be numbers, or -inf to leave a product out."
LANES = 256  # at least; lane i of a row is every 256th score from the i-th on, whose largest comes cheap


def _numbers(scores: np.ndarray) -> np.ndarray:
    """Scores as the compiled passes take them: of float32 or float64, row by row."""
    return np.require(scores, np.float32 if scores.dtype == np.float32 else np.float64, ("C", "W"))


def _room(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for the k best products of each row and their scores."""
    shape = len(scores), min(k, scores.shape[1])
    return np.empty(shape, np.int32), np.empty(shape, scores.dtype)


@nb.njit(nogil=True, cache=True)
def _pass(scores, targets, seen, offsets, rank, rank_new, top, top_scores):
    """Fill the last four arrays, row by row; False if a score is NaN. Without the GIL, for threads."""
    n, n_products = scores.shape
    seen_by = np.full(n_products, -1, dtype=np.int32)
    largest = np.empty(min(max(LANES, 4 * top.shape[1]), n_products), dtype=scores.dtype)
    copy = largest.copy()
    for row in range(n):
        line, target = scores[row], targets[row]
        own = line[target]
        lower, equal, above = _scan(line, own, largest)
        if lower + equal + above != n_products:
            return False
        equal -= 1
        rank[row] = 1 + above + (equal + 1) // 2
        for item in seen[offsets[row] : offsets[row + 1]]:
            if seen_by[item] != row:  # each product once
                seen_by[item] = row
                above -= line[item] > own
                equal -= line[item] == own
        rank_new[row] = 0 if seen_by[target] == row else 1 + above + (equal + 1) // 2
        _best(line, largest, copy, top[row], top_scores[row])
    return True


@nb.njit(nogil=True, cache=True)
def _tops(scores, top, top_scores):
    """As `_pass`, of the best products alone."""
    largest = np.empty(min(max(LANES, 4 * top.shape[1]), scores.shape[1]), dtype=scores.dtype)
    copy = largest.copy()
    for row in range(len(scores)):
        if not _largest(scores[row], largest):
            return False
        _best(scores[row], largest, copy, top[row], top_scores[row])
    return True


@nb.njit(nogil=True, cache=True)
def _largest(line, largest):
    """Fill in the largest score of each lane; False if a score is NaN."""
    lanes, n, wrong = len(largest), len(line), 0
    largest[:] = -np.inf
    for first in range(0, n - n % lanes, lanes):
        part = line[first : first + lanes]
        for i in range(lanes):  # by index, so that it becomes vector code
            largest[i] = part[i] if part[i] > largest[i] else largest[i]
            wrong += part[i] != part[i]
    for i in range(n % lanes):
        score = line[n - n % lanes + i]
        largest[i] = max(score, largest[i])
        wrong += score != score
    return wrong == 0


@nb.njit(nogil=True, cache=True)
def _scan(line, own, largest):
    """How many scores are lower than, equal to, and above `own`; fills in the largest score of each lane."""
    lanes, n = len(largest), len(line)
    lower, equal, above = 0, 0, 0
    largest[:] = -np.inf
    for first in range(0, n - n % lanes, lanes):
        part = line[first : first + lanes]
        for i in range(lanes):  # by index, so that it becomes vector code
            lower += part[i] < own
            equal += part[i] == own
            above += part[i] > own
            largest[i] = part[i] if part[i] > largest[i] else largest[i]
    for i in range(n % lanes):
        score = line[n - n % lanes + i]
        lower += score < own
        equal += score == own
        above += score > own
        largest[i] = max(score, largest[i])
    return lower, equal, above


@nb.njit(nogil=True, cache=True)
def _best(line, largest, copy, index, value):
    """The best of a row in order. A lane whose largest score is below the k-th of the largest ones holds none of them."""
    least, size = -np.inf, 0
    if len(index) <= len(largest):
        copy[:] = largest
        least = nth_largest(copy, len(copy), len(index))
    for lane in range(len(largest)):
        if largest[lane] >= least:
            for place in range(lane, len(line), len(largest)):
                if line[place] >= least:
                    size = _insert(line[place], place, index, value, size)


@nb.njit(nogil=True, cache=True)
def nth_largest(keys, size, n):
    """The n-th largest of the first `size` keys, which are at least as many; reorders them (quickselect, Hoare 1961).

    No step of a pass hangs on whether a key is smaller than the pivot, which a processor cannot foresee.
    """
    low, high, nth = 0, size - 1, size - n
    while low < high:
        middle = (low + high) // 2
        pivot = keys[middle]
        keys[middle] = keys[high]
        smaller = low  # where the keys that are not smaller begin
        for i in range(low, high):
            keys[i], keys[smaller] = keys[smaller], keys[i]
            smaller += keys[smaller] < pivot
        keys[high], keys[smaller] = keys[smaller], pivot
        if nth < smaller:
            high = smaller - 1
        elif nth == smaller:
            break
        elif smaller > low:
            low = smaller + 1
        else:  # none is smaller: all that equal it may be many, and are passed over at once
            for i in range(low, high + 1):
                keys[i], keys[low] = keys[low], keys[i]
                low += keys[low] == pivot
            if nth < low:
                return pivot
    return keys[nth]


@nb.njit(nogil=True, cache=True)
def _insert(score, place, index, value, size):
    """Put a score into a sorted list of at most k, equal ones by place; the new size."""
    at = size
    if size < len(index):
        size += 1
    elif value[size - 1] < score or value[size - 1] == score and index[size - 1] > place:
        at -= 1
    else:
        return size
    while at > 0 and (value[at - 1] < score or value[at - 1] == score and index[at - 1] > place):
        value[at], index[at] = value[at - 1], index[at - 1]
        at -= 1
    value[at], index[at] = score, place
    return size


def hit_rate(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 where the target is among the first k, else 0 (the mean is HR@K); float64, shape of `ranks`."""
    return (ranks <= k).astype(float)


def reciprocal_rank(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 / rank where the target is among the first k, else 0 (the mean is MRR@K); float64, shape of `ranks`."""
    return np.where(ranks <= k, 1.0 / ranks, 0.0)


def in_blocks(work: Callable[[Examples], tuple], examples: Examples, block: int = 64, threads: int | None = None) -> Iterator[tuple]:
    """What `work` makes of each block of examples, in order; a few blocks at a time, so that little waits to be taken.

    Each thread works on blocks of its own, with BLAS held to one thread, so that the result is the same to the bit for any
    number of them.

    Parameters
    ----------
    work : callable
        It may be called from several threads at once.
    examples : Examples
    block : int
        Examples in each.
    threads : int, optional
        None: one per core, at most four.
    """
    threads = threads or min(4, os.cpu_count() or 1)
    starts = range(0, len(examples), block)
    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(starts), 16 * threads):
            yield from pool.map(lambda start: work(examples[start : start + block]), starts[first : first + 16 * threads])
