"""What came after what: transitions counted in the training examples, and those that lead on from a history.

A count n_k(a -> b) is how often b came k visits after a in the same training sequence. A training example must not see
what its own sequence added to the counts, or it would learn to trust a count that holds its own target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from shelfspace.sequences import Examples

STEPS = (1, 2)  # k: how many visits later


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


def pairs(examples: Examples, step: int) -> Pairs:
    """All pairs of visits `step` apart that the training examples show, targets among them."""
    positions, sequence = span(examples)
    together = np.flatnonzero((sequence[step:] == sequence[:-step]) & (positions[step:] == positions[:-step] + step))
    items = examples.items[positions]
    return Pairs(items[together], items[together + step], sequence[together])


def span(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Positions of all visits that the examples show, histories and targets, and where each one's sequence begins."""
    first, which = np.unique(examples.start, return_inverse=True)
    end = np.zeros(len(first), dtype=np.int64)
    np.maximum.at(end, which, examples.end)  # histories of a user are nested; the target of the longest is at its end
    lengths = end + 1 - first
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], lengths), np.repeat(first, lengths)


def sources(examples: Examples, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The product from which transitions of `step` visits lead to the target, and which histories are that long."""
    long = examples.lengths >= step
    return examples.items[np.where(long, examples.end - step, examples.start)], long


def linked(
    tables: Sequence[sp.csr_matrix], examples: Examples, own: Sequence[sp.csr_matrix] = ()
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Transitions that lead on from the newest products of each history.

    Parameters
    ----------
    tables : sequence of csr_matrix
        For each of `STEPS`.
    examples : Examples
    own : sequence of csr_matrix
        For training examples: what their own sequences counted (`Pairs.own`), which is taken away.

    Returns
    -------
    row, product, kind : ndarray of int32, shape (m,)
        History, product it leads to, and place in `STEPS`.
    count : ndarray of float32, shape (m,)
    """
    found = [(np.zeros(0, np.int32),) * 3 + (np.zeros(0, np.float32),)]
    for kind, (table, step) in enumerate(zip(tables, STEPS)):
        source, long = sources(examples, step)
        part = table[source]
        if own:
            part = part - own[kind]
        part = part.tocoo()
        keep = (part.data > 0) & long[part.row]
        row, product = part.row[keep].astype(np.int32), part.col[keep].astype(np.int32)
        found.append((row, product, np.full(len(row), kind, np.int32), part.data[keep]))
    return tuple(np.concatenate(column) for column in zip(*found))
