"""Recommenders without a network, against which the network has to earn its place.

Most are the same thing: the history's decayed weights W (`shelfspace.models.users.history_weights`) times an item-to-item
table. Own products: the identity. Co-occurrence: how often two products were seen together. Markov: how often one
followed the other. Nearest products: the cosine of their embeddings. Popular products look at no history, and
session-KNN at the training sequences that are like it. Each model function returns a `shelfspace.measure.ranking.Model`; none
needs the times of visits but `recently_popular` and a decay counted in days.

Co-occurrence, Markov, session-KNN and EASE leave the user's own sequence out of what they counted, or they would count what the
user did as what people do. None of them is fitted to targets, so that what stays is no cheat either (`own`): on a log whose products
few customers share, it leads back to the user's own products. The valid users can choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from shelfspace.measure import evaluation, ranking
from shelfspace.measure.ranking import Model
from shelfspace.models import users
from shelfspace.models.transitions import followers, following, scales, together, write_companions
from shelfspace.models.users import user_embeddings
from shelfspace.sequences.arrays import Corpus, Examples
from shelfspace.vectors.embeddings import Embeddings, align, normalise

ENTRIES = 20_000_000  # of an item-to-item table, 160 MB; all pairs would find no more


def visit_counts(corpus: Corpus, product_ids: np.ndarray) -> np.ndarray:
    """Training visits of each product of the (sorted) product table; float64, shape (n_products,)."""
    return np.bincount(corpus.places(product_ids), minlength=len(product_ids)).astype(float)


def popular(counts: np.ndarray) -> Model:
    """The same most visited products for everybody; the user's own visits, a handful of all, stay among them.

    Parameters
    ----------
    counts : ndarray, shape (n_products,)
        Training visits of each product (`visit_counts`).
    """
    row = np.asarray(counts, dtype=np.float32)
    return lambda examples: np.broadcast_to(row, (len(examples), len(row)))


def recently_popular(corpus: Corpus, product_ids: np.ndarray, decay: float, buckets: int = 256) -> Model:
    """The products most visited of late, as of each user's newest visit.

    A training visit that is t days older than the user's newest one counts exp(-decay t). Time is cut into buckets of a
    day, or longer ones if there were more than `buckets`; only those before the user's own count, so that nothing
    is known from the future. The user's own earlier visits count as anybody's: a handful of all. Whom nothing precedes gets the most visited products of the whole log.

    Parameters
    ----------
    corpus : Corpus
        The training sequences, with times.
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    decay : float
        Per day, at least 0.
    buckets : int
        Memory is `buckets` x n_products floats.

    Raises
    ------
    ValueError
        If the corpus has no times, or the decay is negative.
    """
    if corpus.times is None:
        raise ValueError("Recent popularity needs the times of the training visits, and these sequences have none.")
    if decay < 0:
        raise ValueError(f"decay is {decay}; it must be 0 (all visits so far count the same) or more.")
    first, n_products = corpus.times.min(), len(product_ids)
    width = max(1.0, (corpus.times.max() - first) / (buckets - 1))
    bucket = ((corpus.times - first) // width).astype(np.int64)
    place = corpus.places(product_ids)
    so_far = np.zeros((bucket.max() + 2, n_products), dtype=np.float32)  # row b: all that came before bucket b
    np.add.at(so_far, (bucket + 1, place), np.exp(-decay * (first + (bucket + 1) * width - corpus.times)))
    for b in range(1, len(so_far)):
        so_far[b] += np.float32(np.exp(-decay * width)) * so_far[b - 1]
    so_far += tie_break(visit_counts(corpus, product_ids)) * 1e-6

    def scores(examples: Examples) -> np.ndarray:
        now = (examples.times[examples.end - 1] - first) // width
        return so_far[np.clip(now, 0, len(so_far) - 1).astype(np.int64)]

    return scores


def tie_break(counts: np.ndarray) -> np.ndarray:
    """A score below 1 that grows with popularity, to order products that a model cannot tell apart; float32."""
    grows = np.log1p(np.asarray(counts, dtype=float))  # a logarithm, so that float32 tells the rare ones apart too
    return (0.9 * grows / max(grows.max(), 1e-12)).astype(np.float32)


def own_products(counts: np.ndarray, decay: float, decay_time: str = "days") -> Model:
    """The user's own products, by decayed weight; the most visited ones of the shop after them."""
    row = (np.asarray(counts) / (1.0 + np.sum(counts))).astype(np.float32)  # below any weight that matters

    def scores(examples: Examples) -> np.ndarray:
        return 1e-6 * row + users.history_weights(examples, len(row), decay, decay_time).toarray()

    return scores


def cooccurrence(corpus: Corpus, product_ids: np.ndarray) -> tuple[sp.csr_matrix, np.ndarray]:
    """How many sequences hold two products, and how many hold each (`shelfspace.models.transitions.together`).

    Of a catalogue so large that there would be more than `ENTRIES` pairs, each product keeps only its most alike ones.

    Parameters
    ----------
    corpus : Corpus
        What may train.
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.

    Returns
    -------
    pairs : csr_matrix of float32, shape (n_products, n_products)
        n(a, b); nothing on the diagonal.
    alone : ndarray of float32, shape (n_products,)
        n(a).
    """
    pairs, alone = together(corpus, product_ids, 1 + max(1, ENTRIES // len(product_ids)))  # one is the product itself
    pairs.setdiag(0)
    pairs.eliminate_zeros()
    return pairs, alone


def item_to_item(
    counts: tuple[sp.csr_matrix, np.ndarray], decay: float, decay_time: str = "days", power: float = 0.5, own: bool = False
) -> Model:
    """Products that go with what the user saw (item-KNN), by n(a, b) / (n(a) n(b)) ** power; then the most visited ones.

    Parameters
    ----------
    counts
        From `cooccurrence`.
    decay, decay_time
        How visits fade; see `shelfspace.models.users.history_weights`.
    power : float
        0.5 is the cosine of the two products' user sets (Sarwar et al. 2001); 0 counts only.
    own : bool
        Leave the user's own sequence in the counts, so that what nobody else saw together leads back to what the user saw.
    """
    pairs, alone = counts
    scale = scales(alone, power)
    rest = tie_break(alone) - 1  # below any score

    def scores(examples: Examples) -> np.ndarray:
        weights = users.history_weights(examples, len(alone), decay, decay_time)
        examples = replace(examples, trained=examples.start) if own else examples
        found = np.tile(rest, (len(examples), 1))
        write_companions(weights.indices, weights.data, weights.indptr, pairs, scale, examples, found)
        return found

    return scores


def markov(corpus: Corpus, product_ids: np.ndarray, steps: int = 1, own: bool = False) -> Model:
    """What came most often after the last product seen; the most visited products break ties and follow.

    What came k visits later counts 1 / k.

    Parameters
    ----------
    corpus : Corpus
        What may train.
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    steps : int
        The largest k. 1 is the first-order Markov chain; more are the sequential rules of Ludewig & Jannach (2018).
    own : bool
        Leave the user's own sequence in the counts.

    Raises
    ------
    ValueError
        If `steps` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be 1 (the next product) or more.")
    tables = [following(corpus, product_ids, step) for step in range(1, steps + 1)]
    row = np.float32(1e-2 / steps) * tie_break(visit_counts(corpus, product_ids))  # below any count

    def scores(examples: Examples) -> np.ndarray:
        found = np.tile(row, (len(examples), 1))
        examples = replace(examples, trained=examples.start) if own else examples
        for step, table in enumerate(tables, 1):
            history, product, count = followers(table, examples, step, examples.end - 1)
            found[history, product] += count / np.float32(step)
        return found

    return scores


def nearest_to_last(vectors: np.ndarray, known: np.ndarray) -> Model:
    """Products nearest by cosine to the last product seen, itself included.

    Parameters
    ----------
    vectors : ndarray of float32, shape (n_products, dim)
        Zero where there is no embedding (`shelfspace.vectors.embeddings.align`).
    known : ndarray of bool, shape (n_products,)
        Products without an embedding come last.
    """
    unit, table = normalise(vectors), _cosine_table(vectors, known)
    return lambda examples: _cosines(unit[examples.items[examples.end - 1]], table)


def nearest_to_user(
    vectors: np.ndarray,
    known: np.ndarray,
    decay: float,
    decay_time: str = "days",
    event_weights: Sequence[float] | None = None,
) -> Model:
    """Products nearest by cosine to the decayed user embedding.

    See `nearest_to_last` for the first two parameters, and `shelfspace.models.users.history_weights` for the others.
    """
    table = _cosine_table(vectors, known)
    return lambda examples: _cosines(user_embeddings(examples, vectors, decay, decay_time, known, event_weights), table)


def hit_rate_of_mean(made: Embeddings, examples: Examples, product_ids: np.ndarray, k: int = 20) -> float:
    """Share of the examples whose target is among the `k` products nearest to the plain mean of the history.

    Parameters
    ----------
    made : Embeddings
        As a trainer gives them after a pass.
    examples : Examples
    product_ids : ndarray of str, shape (n_products,)
        What the examples' products stand for, sorted.
    k : int
    """
    ranks = evaluation.evaluate(nearest_to_user(*align(made, product_ids), decay=0.0), examples).ranks
    return float(ranking.hit_rate(ranks, k).mean())


def _cosine_table(vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Unit vectors as columns, and below them a row of -2 where there is none, else 0: shape (dim + 1, n_products)."""
    return np.ascontiguousarray(np.column_stack([normalise(vectors), np.where(known, 0, -2)]).T, dtype=np.float32)


def _cosines(query: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Cosines to all products, -2 to those without an embedding, in one product of matrices."""
    return np.column_stack([normalise(query), np.ones(len(query), dtype=np.float32)]) @ table
