"""What came after what, and what came with what: counted in all that may train, and looked up for a history.

A count n_k(a -> b) is how often b came k visits after a in the same sequence. n(a, b) is how many sequences hold both, n(a)
how many hold a, and n(a, b) / sqrt(n(a) n(b)) how much they go together. Whoever is scored, in training or in use, must not
meet what the own sequence added to the counts: a model would learn to trust a count that holds its own target, or would
rank first what nobody but this user ever did. So every look-up leaves out ``items[start:trained]`` (`Examples.trained`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numba as nb
import numpy as np
import scipy.sparse as sp

from shelfspace.sequences.arrays import Corpus, Examples

STEPS = (1, 2)  # k: how many visits later
TOGETHER = len(STEPS)  # the kind of link that tells what goes together
COMPANIONS = 50  # of each product are kept: those that go with it most


@dataclass(frozen=True)
class Links:
    """All that was counted.

    Attributes
    ----------
    steps : list of csr_matrix of float32, shape (n_products, n_products)
        n_k for each of `STEPS`.
    pairs, alone
        See `together`.
    """

    steps: list[sp.csr_matrix]
    pairs: sp.csr_matrix
    alone: np.ndarray

    @cached_property
    def scale(self) -> np.ndarray:
        """See `scales`."""
        return scales(self.alone)

    @classmethod
    def count(cls, corpus: Corpus, product_ids: np.ndarray) -> Links:
        """Count in all that may train."""
        return cls([following(corpus, product_ids, step) for step in STEPS], *together(corpus, product_ids, COMPANIONS))

    def after(self, examples: Examples) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Products that came after the newest ones of each history, in other sequences than its own.

        Returns
        -------
        row, product, kind : ndarray of int32, shape (k,)
            History, product, and place in `STEPS`.
        value : ndarray of float32, shape (k,)
            n_k.
        """
        links = [(np.zeros(0, np.int32),) * 3 + (np.zeros(0, np.float32),)]
        for kind, (table, step) in enumerate(zip(self.steps, STEPS)):
            row, product, count = followers(table, examples, step, examples.end - step)
            links.append((row, product, np.full(len(row), kind, np.int32), count))
        return tuple(np.concatenate(column) for column in zip(*links))

    def alike(
        self, examples: Examples, items: np.ndarray, weights: np.ndarray, offsets: np.ndarray, among: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Products that go with those of each history, in other sequences than its own.

        Parameters
        ----------
        examples : Examples
            n histories.
        items, weights : ndarray, shape (m,)
            Products and weights of their visits, one history after the other.
        offsets : ndarray of int64, shape (n + 1,)
            Where each history begins.
        among : ndarray of bool, shape (n_products,)
            Products to look for.

        Returns
        -------
        row, product, kind : ndarray of int32, shape (k,)
            As of `after`; the kind is `TOGETHER`.
        value : ndarray of float32, shape (k,)
            sum_i w_i n(a_i, b) / sqrt(n(a_i) n(b)).
        """
        row, product, value = companions(items, weights, offsets, self.pairs, self.scale, among, examples)
        return row, product, np.full(len(row), TOGETHER, np.int32), value


def following(corpus: Corpus, product_ids: np.ndarray, step: int) -> sp.csr_matrix:
    """n_k: how often each product (column) came `step` visits after each (row); float32, shape (n_products, n_products)."""
    places = corpus.places(product_ids)
    sequence = np.repeat(np.arange(len(corpus)), np.diff(corpus.offsets))
    same = sequence[step:] == sequence[:-step]
    ones = np.ones(same.sum(), dtype=np.float32)
    table = sp.csr_matrix((ones, (places[:-step][same], places[step:][same])), shape=(len(product_ids),) * 2)
    table.sum_duplicates()
    return table


def together(corpus: Corpus, product_ids: np.ndarray, most: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """In how many of the sequences two products are together, and in how many each one is.

    Parameters
    ----------
    corpus : Corpus
        What may train.
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    most : int
        Products that each one keeps: itself, and the others of the largest n(a, b) / sqrt(n(b)).

    Returns
    -------
    pairs : csr_matrix of float32, shape (n_products, n_products)
        n(a, b), and n(a) on the diagonal.
    alone : ndarray of float32, shape (n_products,)
        n(a).
    """
    held = holds(corpus.places(product_ids), corpus.offsets, len(product_ids))
    alone = np.bincount(held.indices, minlength=len(product_ids)).astype(np.float32)
    holders, block, blocks = held.T.tocsr(), 256, []
    for first in range(0, len(product_ids), block):
        part = holders[first : first + block] @ held
        row = np.repeat(np.arange(first, first + part.shape[0]), np.diff(part.indptr))
        value = np.where(part.indices == row, np.inf, part.data / np.sqrt(alone[part.indices]))
        for begin, end in zip(part.indptr[:-1], part.indptr[1:]):
            if end - begin > most:
                part.data[begin + np.argpartition(-value[begin:end], most - 1, kind="introselect")[most:]] = 0
        part.eliminate_zeros()
        part.sort_indices()
        blocks.append(part)
    return sp.vstack(blocks, format="csr"), alone


def holds(items: np.ndarray, offsets: np.ndarray, n_products: int) -> sp.csr_matrix:
    """1 where a sequence holds a product, however often: csr_matrix of float32, shape (n_sequences, n_products).

    Sequence s is ``items[offsets[s]:offsets[s + 1]]``.
    """
    ones = np.ones(len(items), dtype=np.float32)
    held = sp.csr_matrix((ones, items, offsets), shape=(len(offsets) - 1, n_products))
    held.sum_duplicates()
    held.data[:] = 1
    return held


def followers(table: sp.csr_matrix, examples: Examples, step: int, source: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What came `step` visits after the visit at `source` of each history, in other sequences than its own.

    Parameters
    ----------
    table : csr_matrix, shape (n_products, n_products)
        From `following`, of the same step.
    examples : Examples
        n histories.
    step : int
    source : ndarray of int64, shape (n,)
        Place in `Examples.items`; nothing follows where it lies before the history's start.

    Returns
    -------
    row, product : ndarray of int32, shape (k,)
    count : ndarray of float32, shape (k,)
        n_k without the own sequence's part, where that leaves anything.
    """
    lengths = np.diff(table.indptr)
    room = int(lengths[examples.items[np.maximum(source, examples.start)]].sum())
    return _followers(table.indptr, table.indices, table.data, examples.items, examples.start, examples.trained, source, step, room)


@nb.njit(nogil=True, cache=True)
def _followers(starts, others, counts, items, start, trained, source, step, room):
    """See `followers`; finds at most `room`. Without the GIL, for threads."""
    own = np.zeros(len(starts) - 1, dtype=np.float32)
    rows, products, left = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.float32)
    size = 0
    for row in range(len(start)):
        if source[row] < start[row]:
            continue
        item = items[source[row]]
        for at in range(start[row], trained[row] - step):
            if items[at] == item:
                own[items[at + step]] += 1
        for at in range(starts[item], starts[item + 1]):
            count = counts[at] - own[others[at]]
            if count > 0:
                rows[size], products[size], left[size] = row, others[at], count
                size += 1
        for at in range(start[row], trained[row] - step):
            own[items[at + step]] = 0
    return rows[:size], products[:size], left[:size]


def scales(alone: np.ndarray, power: float = 0.5) -> np.ndarray:
    """1 / n(a) ** power in row 0, and 1 / (n(a) - 1) ** power, for what a left-out sequence holds, in row 1; 0 where nobody is left."""
    scale = np.zeros((2, len(alone)), dtype=np.float32)
    for own in (0, 1):
        np.power(alone - own, -power, out=scale[own], where=alone > own)
    return scale


def companions(
    items: np.ndarray, weights: np.ndarray, offsets: np.ndarray, pairs: sp.csr_matrix, scale: np.ndarray,
    among: np.ndarray, examples: Examples,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Products b that go with those of each history: sum_i w_i n(a_i, b) / (n(a_i) n(b)) ** power, its own sequence left out.

    Parameters
    ----------
    items, weights, offsets, among, examples
        See `Links.alike`.
    pairs : csr_matrix, shape (n_products, n_products)
        See `together`.
    scale : ndarray of float32, shape (2, n_products)
        See `scales`.

    Returns
    -------
    row, product : ndarray of int32, shape (k,)
    value : ndarray of float32, shape (k,)
    """
    return _companions(
        items, weights, offsets, pairs.indptr, pairs.indices, pairs.data, scale, among,
        examples.items, examples.start, examples.trained,
    )  # fmt: skip


def write_companions(
    items: np.ndarray, weights: np.ndarray, offsets: np.ndarray, pairs: sp.csr_matrix, scale: np.ndarray, examples: Examples,
    scores: np.ndarray,
) -> None:  # fmt: skip
    """Write into each row of `scores`, float32, shape (n, n_products), what `companions` finds among all products."""
    _write_companions(
        items, weights, offsets, pairs.indptr, pairs.indices, pairs.data, scale, np.ones(len(pairs.indptr) - 1, dtype=np.bool_),
        examples.items, examples.start, examples.trained, scores,
    )  # fmt: skip


@nb.njit(nogil=True, cache=True)
def _companions(items, weights, offsets, starts, neighbours, counts, scale, among, visited, first, last):
    """See `companions`; ``visited[first:last]`` is each history's own sequence. Without the GIL, for threads."""
    n_products, n = len(starts) - 1, len(offsets) - 1
    value, met, own, touched = _room(n_products)
    size, room = 0, 1024
    rows, products, values = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.float32)
    for row in range(n):
        mine, here = visited[first[row] : last[row]], slice(offsets[row], offsets[row + 1])
        found = _meet(items[here], weights[here], starts, neighbours, counts, scale, among, mine, value, met, own, touched)
        while size + found > room:
            room *= 2
            rows, products, values = _longer(rows, room), _longer(products, room), _longer(values, room)
        for other in touched[:found]:
            rows[size], products[size], values[size] = row, other, value[other]
            size += 1
            value[other], met[other] = 0, False
    return rows[:size], products[:size], values[:size]


@nb.njit(nogil=True, cache=True)
def _write_companions(items, weights, offsets, starts, neighbours, counts, scale, among, visited, first, last, scores):
    """See `write_companions`. Without the GIL, for threads."""
    value, met, own, touched = _room(len(starts) - 1)
    for row in range(len(scores)):
        mine, here = visited[first[row] : last[row]], slice(offsets[row], offsets[row + 1])
        found = _meet(items[here], weights[here], starts, neighbours, counts, scale, among, mine, value, met, own, touched)
        for other in touched[:found]:
            scores[row, other] = value[other]
            value[other], met[other] = 0, False


@nb.njit(nogil=True, cache=True)
def _room(n_products):
    """For `_meet`: of each product its value, whether it was met, and whether it is the own one; and those that were met."""
    value, touched = np.zeros(n_products, dtype=np.float32), np.empty(n_products + 1, dtype=np.int32)  # one more is written, and not read
    met = np.zeros(n_products, dtype=np.bool_)  # apart from `value`, which stays 0 where a weight is 0
    return value, met, np.zeros(n_products, dtype=np.bool_), touched


@nb.njit(nogil=True, cache=True)
def _meet(items, weights, starts, neighbours, counts, scale, among, mine, value, met, own, touched):
    """What goes with one history: puts it into `value`, `met` and `touched`, and says how many products were met; `mine` is the own sequence."""
    for item in mine:
        own[item] = True
    found = 0
    for place in range(len(items)):
        item = items[place]
        is_own = own[item]
        weight = weights[place] * scale[int(is_own), item]
        for at in range(starts[item], starts[item + 1]):
            other = neighbours[at]
            count = counts[at]
            if is_own:
                count -= np.float32(own[other])
            if count > 0 and among[other]:
                touched[found] = other
                found += not met[other]  # without a branch, as it cannot be foreseen
                met[other] = True
                value[other] += weight * count * scale[int(own[other]), other]
    for item in mine:
        own[item] = False
    return found


@nb.njit(nogil=True, cache=True)
def _longer(values, room):
    longer = np.empty(room, values.dtype)
    longer[: len(values)] = values
    return longer
