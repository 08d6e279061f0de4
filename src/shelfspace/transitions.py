"""What came after what, and what came with what: counted in the training examples, and looked up for a history.

A count n_k(a -> b) is how often b came k visits after a in the same training sequence. n(a, b) is how many training
sequences hold both, n(a) how many hold a, and n(a, b) / sqrt(n(a) n(b)) how much they go together. A training example must
not see what its own sequence added to the counts, or it would learn to trust a count that holds its own target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import scipy.sparse as sp

from shelfspace.sequences import Examples

STEPS = (1, 2)  # k: how many visits later
TOGETHER = len(STEPS)  # the kind of link that tells what goes together
COMPANIONS = 50  # of each product are kept: those that go with it most


@dataclass(frozen=True)
class Pairs:
    """Visits and what came a fixed number of visits after, within the same training sequence.

    Attributes
    ----------
    source, target : ndarray of int32, shape (m,)
        Products.
    sequence : ndarray of int64, shape (m,)
        Where in `Examples.items` the sequence begins.
    """

    source: np.ndarray
    target: np.ndarray
    sequence: np.ndarray

    def counts(self, n_products: int) -> sp.csr_matrix:
        """How often each product followed each; csr_matrix of float32, shape (n_products, n_products)."""
        ones = np.ones(len(self.source), dtype=np.float32)
        table = sp.csr_matrix((ones, (self.source, self.target)), shape=(n_products, n_products))
        table.sum_duplicates()
        return table

    def own(self, source: np.ndarray, sequence: np.ndarray, n_products: int) -> sp.csr_matrix:
        """The part of `counts` that each row's own sequence gave to its row of the table.

        Parameters
        ----------
        source, sequence : ndarray, shape (n,)
            Product and sequence of each row.

        Returns
        -------
        csr_matrix of float32, shape (n, n_products)
            To be taken from ``counts(n_products)[source]``.
        """
        key, wanted = self.sequence * n_products + self.source, sequence * n_products + source
        order = np.argsort(key, kind="stable")
        first, last = (np.searchsorted(key[order], wanted, side) for side in ("left", "right"))
        offsets = np.concatenate([[0], np.cumsum(last - first)])
        place = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], last - first)
        ones = np.ones(len(place), dtype=np.float32)
        table = sp.csr_matrix((ones, self.target[order][place], offsets), shape=(len(source), n_products))
        table.sum_duplicates()
        return table


@dataclass(frozen=True)
class Own:
    """What each of n training examples' own sequence added to the counts.

    Attributes
    ----------
    steps : list of csr_matrix
        For each of `STEPS`, as `Pairs.own` gives it.
    first, last : ndarray of int64, shape (n,)
        Where in `Examples.items` the sequence begins and ends.
    """

    steps: list[sp.csr_matrix]
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, examples: Examples, n_products: int) -> Own:
        """That of the training examples, all of them."""
        steps = [pairs(examples, k).own(sources(examples, k)[0], examples.start, n_products) for k in STEPS]
        return cls(steps, *sequence_of(examples))

    def __getitem__(self, rows) -> Own:
        return Own([table[rows] for table in self.steps], self.first[rows], self.last[rows])


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

    @classmethod
    def count(cls, examples: Examples, n_products: int) -> Links:
        """Count in training examples."""
        return cls([pairs(examples, step).counts(n_products) for step in STEPS], *together(examples, n_products))

    def after(self, examples: Examples, own: Own | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Products that came after the newest ones of each history.

        Parameters
        ----------
        examples : Examples
            n histories.
        own : Own, optional
            For training examples: what to take away.

        Returns
        -------
        row, product, kind : ndarray of int32, shape (k,)
            History, product, and place in `STEPS`.
        value : ndarray of float32, shape (k,)
            n_k.
        """
        found = [(np.zeros(0, np.int32),) * 3 + (np.zeros(0, np.float32),)]
        for kind, (table, step) in enumerate(zip(self.steps, STEPS)):
            source, long = sources(examples, step)
            part = table[source]
            if own:
                part = part - own.steps[kind]
            part = part.tocoo()
            keep = (part.data > 0) & long[part.row]
            row, product = part.row[keep].astype(np.int32), part.col[keep].astype(np.int32)
            found.append((row, product, np.full(len(row), kind, np.int32), part.data[keep]))
        return tuple(np.concatenate(column) for column in zip(*found))

    def alike(
        self, examples: Examples, items: np.ndarray, weights: np.ndarray, offsets: np.ndarray, among: np.ndarray,
        own: Own | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        """Products that go with those of each history.

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
        own : Own, optional
            For training examples: what to take away.

        Returns
        -------
        row, product, kind : ndarray of int32, shape (k,)
            As of `after`; the kind is `TOGETHER`.
        value : ndarray of float32, shape (k,)
            sum_i w_i n(a_i, b) / sqrt(n(a_i) n(b)).
        """
        nobody = np.zeros(len(examples), dtype=np.int64)
        first, last = (own.first, own.last) if own else (nobody, nobody)
        row, product, value = companions(
            items, weights, offsets, self.pairs.indptr, self.pairs.indices, self.pairs.data, self.alone, among,
            examples.items, first, last,
        )  # fmt: skip
        return row, product, np.full(len(row), TOGETHER, np.int32), value


def pairs(examples: Examples, step: int) -> Pairs:
    """All pairs of visits `step` apart that the training examples show, targets among them."""
    positions, sequence = span(examples)
    together = np.flatnonzero((sequence[step:] == sequence[:-step]) & (positions[step:] == positions[:-step] + step))
    items = examples.items[positions]
    return Pairs(items[together], items[together + step], sequence[together])


def sequence_of(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Where in `Examples.items` the sequence of each training example begins and ends; int64, shape (n,) each."""
    first, which = np.unique(examples.start, return_inverse=True)
    end = np.zeros(len(first), dtype=np.int64)
    np.maximum.at(end, which, examples.end)  # histories of a user are nested; the target of the longest is at its end
    return examples.start, end[which] + 1


def span(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Positions of all visits that the examples show, histories and targets, and where each one's sequence begins."""
    first, one = np.unique(examples.start, return_index=True)
    lengths = sequence_of(examples)[1][one] - first
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], lengths), np.repeat(first, lengths)


def sources(examples: Examples, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The product from which transitions of `step` visits lead to the target, and which histories are that long."""
    long = examples.lengths >= step
    return examples.items[np.where(long, examples.end - step, examples.start)], long


def holds(items: np.ndarray, offsets: np.ndarray, n_products: int) -> sp.csr_matrix:
    """1 where a sequence holds a product, however often: csr_matrix of float32, shape (n_sequences, n_products).

    Sequence s is ``items[offsets[s]:offsets[s + 1]]``.
    """
    ones = np.ones(len(items), dtype=np.float32)
    held = sp.csr_matrix((ones, items, offsets), shape=(len(offsets) - 1, n_products))
    held.sum_duplicates()
    held.data[:] = 1
    return held


def together(examples: Examples, n_products: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """In how many of the training sequences two products are together, and in how many each one is.

    Returns
    -------
    pairs : csr_matrix of float32, shape (n_products, n_products)
        n(a, b) of each product a and the `COMPANIONS` that go with it most, a itself first of all: n(a, a) is n(a).
    alone : ndarray of float32, shape (n_products,)
        n(a).
    """
    positions, sequence = span(examples)
    begins = np.flatnonzero(np.diff(sequence, prepend=-1))
    held = holds(examples.items[positions], np.append(begins, len(sequence)), n_products)
    alone = np.asarray(held.sum(axis=0), dtype=np.float32).ravel()
    holders = held.T.tocsr()
    blocks = [_most(holders[first : first + 1024] @ held, alone) for first in range(0, n_products, 1024)]
    return sp.vstack(blocks).tocsr(), alone


def _most(block: sp.csr_matrix, alone: np.ndarray) -> sp.csr_matrix:
    """Rows of the counts cut to the `COMPANIONS` largest n(a, b) / sqrt(n(b))."""
    block = block.tocoo()
    row, product, count = block.row, block.col, block.data
    order = np.lexsort((product, -count / np.sqrt(alone[product]), row))
    begins = np.searchsorted(row[order], np.arange(block.shape[0]))
    order = order[np.arange(len(order)) - begins[row[order]] < COMPANIONS]
    return sp.csr_matrix((count[order], (row[order], product[order])), shape=block.shape)


@nb.njit(nogil=True, cache=True)
def companions(items, weights, offsets, starts, neighbours, counts, alone, among, visited, first, last):
    """Products that go with those of each history: sum_i w_i n(a_i, b) / sqrt(n(a_i) n(b)). Without the GIL, for threads.

    Parameters
    ----------
    items, weights : ndarray, shape (m,)
        Products a_i and weights w_i of the visits of all histories, one history after the other.
    offsets : ndarray, shape (n + 1,)
        Where each history begins.
    starts, neighbours, counts, alone : ndarray
        The arrays of the csr_matrix that `together` gives (indptr, indices, data), and its n(a).
    among : ndarray of bool, shape (n_products,)
        Products to find.
    visited : ndarray of int32
        `Examples.items`.
    first, last : ndarray of int64, shape (n,)
        ``visited[first:last]`` is the sequence that an example comes from and that is taken from the counts: see
        `sequence_of`. Empty for others.

    Returns
    -------
    row, product : ndarray of int32, shape (k,)
    value : ndarray of float32, shape (k,)
    """
    n_products, n = len(starts) - 1, len(offsets) - 1
    value = np.zeros(n_products, dtype=np.float32)
    own = np.zeros(n_products, dtype=np.float32)
    touched = np.empty(n_products, dtype=np.int32)
    size, room = 0, 1024
    rows, products, values = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.float32)
    for row in range(n):
        for item in visited[first[row] : last[row]]:
            own[item] = 1
        found = 0
        for place in range(offsets[row], offsets[row + 1]):
            item = items[place]
            others = alone[item] - own[item]
            if others <= 0:
                continue
            weight = weights[place] / np.sqrt(others)
            for at in range(starts[item], starts[item + 1]):
                other = neighbours[at]
                count = counts[at] - own[other]
                if count > 0 and among[other]:
                    if value[other] == 0:
                        touched[found] = other
                        found += 1
                    value[other] += weight * count / np.sqrt(alone[other] - own[other])
        while size + found > room:
            room *= 2
            rows, products, values = _longer(rows, room), _longer(products, room), _longer(values, room)
        for other in touched[:found]:
            rows[size], products[size], values[size] = row, other, value[other]
            size += 1
            value[other] = 0
        for item in visited[first[row] : last[row]]:
            own[item] = 0
    return rows[:size], products[:size], values[:size]


@nb.njit(nogil=True, cache=True)
def _longer(values, room):
    longer = np.empty(room, values.dtype)
    longer[: len(values)] = values
    return longer
