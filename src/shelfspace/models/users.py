"""User embeddings: the time-decayed weighted average of the products a user saw.

For user u with visits i of age t_i (0 for the newest),

    w_i = exp(-d t_i) / sum_j exp(-d t_j)        embedding(u) = sum_i w_i v(p_i)

so the weights are a softmax of -d t. The decay d sets how much recency counts: d = 0 is the plain mean, and a large
d the last product alone. Ages are counted from the user's own newest visit, never from the target's time, which a
model cannot know.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from shelfspace.sequences.arrays import Examples

DECAY_TIMES = ("days", "log_days", "rank")
BLOCK = 20_000  # histories whose weights are in memory at once


def ages(examples: Examples, decay_time: str = "days") -> tuple[np.ndarray, np.ndarray]:
    """Age t_i of every visit of every history, as the decay counts it.

    Parameters
    ----------
    examples : Examples
    decay_time : {"days", "log_days", "rank"}
        "days": days since the user's newest visit; "log_days": ln(1 + days); "rank": how many visits came after it.

    Returns
    -------
    ages : ndarray of float64
        All histories one after the other, each oldest first; the newest visit of a history has age 0.
    offsets : ndarray of int64, shape (n + 1,)
        Where each history begins.
    """
    positions, offsets = examples.flat()
    return _ages(examples, positions, decay_time), offsets


def _ages(examples: Examples, positions: np.ndarray, decay_time: str) -> np.ndarray:
    check_decay_time(decay_time)
    if decay_time == "rank":
        return np.repeat(examples.end, examples.lengths) - 1.0 - positions
    days = np.repeat(examples.times[examples.end - 1], examples.lengths) - examples.times[positions]
    return np.log1p(days) if decay_time == "log_days" else days


def history_weights(
    examples: Examples,
    n_products: int,
    decay: float,
    decay_time: str = "days",
    known: np.ndarray | None = None,
    event_weights: Sequence[float] | None = None,
) -> sp.csr_matrix:
    """Decayed weight of every product in every history, as a sparse matrix W.

    W is all there is to know of a history for a linear model: ``W @ vectors`` are the user embeddings, and W times an
    item-to-item table are the scores of a neighbourhood recommender.

    Parameters
    ----------
    examples : Examples
    n_products : int
        Size of the product table.
    decay : float
        d, at least 0, per day, per ln(day) or per visit, as `decay_time` says.
    decay_time : {"days", "log_days", "rank"}
        See `ages`.
    known : ndarray of bool, shape (n_products,), optional
        Products that count; the weights of the others are 0 and the rest still sum to 1.
    event_weights : sequence of float, optional
        How often a visit counts, by its event, in the order of `shelfspace.sequences.arrays.EVENT_LEVELS`: then w_i is in
        proportion to b(e_i) exp(-d t_i). Once each where there is none.

    Returns
    -------
    csr_matrix of float32, shape (n, n_products)
        Rows sum to 1, or are empty when no product of the history is known.
    """
    if decay < 0:
        raise ValueError(f"decay is {decay}; it must be 0 (the plain mean) or more.")
    positions, offsets = examples.flat()
    age = _ages(examples, positions, decay_time)
    items = examples.items[positions]
    weights = np.exp(-decay * age)
    if known is not None:
        # A softmax over the known products only; measured from the newest known one, or old ones would underflow.
        newest = np.minimum.reduceat(np.where(known[items], age, np.inf), offsets[:-1])
        since = np.where(known[items], age - np.repeat(newest, examples.lengths), 0.0)
        weights = np.exp(-decay * since) * known[items]
    if event_weights is not None:
        weights *= np.asarray(event_weights, dtype=float)[examples.events[positions]]
    total = np.add.reduceat(weights, offsets[:-1])
    weights /= np.repeat(np.where(total > 0, total, 1.0), examples.lengths)
    matrix = sp.csr_matrix((weights.astype(np.float32), items, offsets), shape=(len(examples), n_products))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def user_embeddings(
    examples: Examples,
    vectors: np.ndarray,
    decay: float,
    decay_time: str = "days",
    known: np.ndarray | None = None,
    event_weights: Sequence[float] | None = None,
) -> np.ndarray:
    """Decayed weighted average of the products in each history (the array kernel of the formula above).

    Parameters
    ----------
    examples : Examples
    vectors : ndarray of float32, shape (n_products, dim)
    decay, decay_time, known, event_weights
        See `history_weights`.

    Returns
    -------
    ndarray of float32, shape (n, dim)
    """
    embeddings = np.empty((len(examples), vectors.shape[1]), dtype=np.float32)
    for first in range(0, len(examples), BLOCK):
        part = slice(first, first + BLOCK)
        weights = history_weights(examples[part], len(vectors), decay, decay_time, known, event_weights)
        embeddings[part] = weights @ vectors
    return embeddings


def check_decay_time(decay_time: str) -> None:
    """Refuse a unit of age that is none of `DECAY_TIMES`, with a ValueError."""
    if decay_time not in DECAY_TIMES:
        raise ValueError(f"decay_time is {decay_time!r}; it must be one of {', '.join(DECAY_TIMES)}.")
