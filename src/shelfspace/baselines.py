"""Recommenders without a network, against which the network has to earn its place.

Most are the same thing: the history's decayed weights W (`shelfspace.users.history_weights`) times an item-to-item
table. Own products: the identity. Co-occurrence: how often two products were seen together. Markov: how often one
followed the other. Nearest products: the cosine of their embeddings. Popular products look at no history, and
session-KNN at the training sequences that are like it. Each model function returns a `shelfspace.metrics.Model`; none
needs the times of visits but `recently_popular` and a decay counted in days.

Co-occurrence, Markov, session-KNN and EASE leave the user's own sequence out of what they counted, or they would count what the
user did as what people do. None of them is fitted to targets, so that what stays is no cheat either (`own`): on a log whose products
few customers share, it leads back to the user's own products. The valid users can choose.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numba as nb
import numpy as np
import pandas as pd
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from shelfspace.embeddings import normalise
from shelfspace.metrics import Model
from shelfspace.sequences import Corpus, Examples
from shelfspace.transitions import companions, followers, following, holds, scales, together
from shelfspace.users import history_weights, user_embeddings

ENTRIES = 50_000_000  # of an item-to-item table, 400 MB
REGRESSED = 5_000  # products of a regression of each on all others: its table takes 100 MB


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
    so_far += _tie_break(visit_counts(corpus, product_ids)) * 1e-6

    def scores(examples: Examples) -> np.ndarray:
        now = (examples.times[examples.end - 1] - first) // width
        return so_far[np.clip(now, 0, len(so_far) - 1).astype(np.int64)]

    return scores


def _tie_break(counts: np.ndarray) -> np.ndarray:
    """A score below 1 that grows with popularity, to order products that a model cannot tell apart; float32."""
    grows = np.log1p(np.asarray(counts, dtype=float))  # a logarithm, so that float32 tells the rare ones apart too
    return (0.9 * grows / max(grows.max(), 1e-12)).astype(np.float32)


def own_products(counts: np.ndarray, decay: float, decay_time: str = "days") -> Model:
    """The user's own products, by decayed weight; the most visited ones of the shop after them."""
    row = (np.asarray(counts) / (1.0 + np.sum(counts))).astype(np.float32)  # below any weight that matters

    def scores(examples: Examples) -> np.ndarray:
        return 1e-6 * row + history_weights(examples, len(row), decay, decay_time).toarray()

    return scores


def cooccurrence(corpus: Corpus, product_ids: np.ndarray) -> tuple[sp.csr_matrix, np.ndarray]:
    """How many sequences hold two products, and how many hold each (`shelfspace.transitions.together`).

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
        How visits fade; see `shelfspace.users.history_weights`.
    power : float
        0.5 is the cosine of the two products' user sets (Sarwar et al. 2001); 0 counts only.
    own : bool
        Leave the user's own sequence in the counts, so that what nobody else saw together leads back to what the user saw.
    """
    pairs, alone = counts
    scale, everything = scales(alone, power), np.ones(len(alone), dtype=bool)
    rest = _tie_break(alone) - 1  # below any score

    def scores(examples: Examples) -> np.ndarray:
        weights = history_weights(examples, len(alone), decay, decay_time)
        examples = replace(examples, trained=examples.start) if own else examples
        row, product, value = companions(weights.indices, weights.data, weights.indptr, pairs, scale, everything, examples)
        found = np.tile(rest, (len(examples), 1))
        found[row, product] = value
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
    row = np.float32(1e-2 / steps) * _tie_break(visit_counts(corpus, product_ids))  # below any count

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
        Zero where there is no embedding (`shelfspace.embeddings.align`).
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

    See `nearest_to_last` for the first two parameters, and `shelfspace.users.history_weights` for the others.
    """
    table = _cosine_table(vectors, known)
    return lambda examples: _cosines(user_embeddings(examples, vectors, decay, decay_time, known, event_weights), table)


def _cosine_table(vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Unit vectors as columns, and below them a row of -2 where there is none, else 0: shape (dim + 1, n_products)."""
    return np.ascontiguousarray(np.column_stack([normalise(vectors), np.where(known, 0, -2)]).T, dtype=np.float32)


def _cosines(query: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Cosines to all products, -2 to those without an embedding, in one product of matrices."""
    return np.column_stack([normalise(query), np.ones(len(query), dtype=np.float32)]) @ table


def ease(corpus: Corpus, product_ids: np.ndarray, most: int = REGRESSED) -> Callable[..., Model]:
    """Each product as a linear regression on all others (EASE, Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data").

    X says who saw what. B = I - P diag(P) ** -1 with P = (X' X + regularisation) ** -1 predicts a column of X from the others; a
    history is scored by its decayed weights w times B. What two products owe to a third that goes with both is told apart, which
    co-occurrence cannot do.

    The user's own sequence x is a row of X. To leave it out, P becomes P + P x x' P / (1 - x' P x) (Sherman & Morrison 1950): the
    scores are those of a table fitted without it, at the price of one more product of vectors.

    Parameters
    ----------
    corpus : Corpus
        What may train.
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    most : int
        Only so many of the most visited products take part, as P is dense; the others come last.

    Returns
    -------
    callable
        From ``regularisation``, ``decay``, ``decay_time`` (see `shelfspace.users.history_weights`) and ``own`` (leave the user's
        own sequence in) to a Model. The last P is kept.
    """
    counts = visit_counts(corpus, product_ids)
    kept = np.sort(np.argsort(-counts, kind="stable")[:most])
    seen = holds(corpus.places(product_ids), corpus.offsets, len(product_ids))[:, kept]
    gram = (seen.T @ seen).toarray().astype(np.float64)
    rest = _tie_break(counts) - 1_000  # below any score

    @lru_cache(maxsize=1)
    def fitted(regularisation: float) -> np.ndarray:
        with threadpool_limits(1, "blas"):  # the same bytes for any number of cores
            return np.linalg.inv(gram + regularisation * np.eye(len(kept))).astype(np.float32)

    def make(regularisation: float, decay: float, decay_time: str = "days", own: bool = False) -> Model:
        table = fitted(regularisation)
        diagonal = np.diag(table).copy()

        def scores(examples: Examples) -> np.ndarray:
            weights = history_weights(examples, len(counts), decay, decay_time)[:, kept].tocsr()
            found, scale = weights @ table, np.broadcast_to(diagonal, (len(examples), len(kept)))
            if not own:
                theirs = replace(examples, end=examples.trained)
                positions, offsets = theirs.flat()
                mine = holds(theirs.items[positions], offsets, len(counts))[:, kept]
                pulled = mine @ table
                share = 1 / (1 - mine.multiply(pulled).sum(axis=1))  # a column
                found += np.asarray(np.multiply(share, weights.multiply(pulled).sum(axis=1))) * pulled
                scale = scale + np.asarray(share) * pulled**2
            found = weights.toarray() - found / scale
            products = np.tile(rest, (len(examples), 1))
            products[:, kept] = found
            return products

        return scores

    return make


def matrix_factorisation(
    corpus: Corpus,
    product_ids: np.ndarray,
    decay: float,
    decay_time: str = "days",
    *,
    dim: int = 64,
    alpha: float = 10.0,
    regularisation: float = 0.1,
    epochs: int = 15,
    seed: int = 0,
) -> Model:
    """Users and products as factors of the table of who saw what (Hu, Koren & Volinsky 2008), with the library implicit.

    A user to recommend to is folded in: given the products' factors, the best factors for the decayed history. The products'
    factors come from all sequences, the user's own among them: to leave one out would be to fit all anew for each user.

    Parameters
    ----------
    corpus : Corpus
        The training sequences.
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    decay, decay_time
        How visits fade in the history of a user to recommend to; see `shelfspace.users.history_weights`. 0: each
        counts once, as in training.
    dim : int
        Factors of each user and product.
    alpha : float
        How much more certain a visit is than no visit.
    regularisation : float
        Of the alternating least squares.
    epochs : int
        Rounds of them.
    seed : int
        Of the factors' start.

    Raises
    ------
    ValueError
        If implicit is not installed.
    """
    if importlib.util.find_spec("implicit") is None:
        raise ValueError("Matrix factorisation needs the library implicit; install it with: pip install 'shelfspace[mf]'.")
    from implicit.cpu.als import AlternatingLeastSquares

    shape, places = (len(corpus), len(product_ids)), corpus.places(product_ids)
    visits = sp.csr_matrix((np.ones(len(places), np.float32), places, corpus.offsets), shape=shape)
    visits.sum_duplicates()
    fitted = AlternatingLeastSquares(factors=dim, alpha=alpha, regularization=regularisation, iterations=epochs, random_state=seed)
    with threadpool_limits(1, "blas"):  # its own threads are enough
        fitted.fit(visits, show_progress=False)

    def scores(examples: Examples) -> np.ndarray:
        weights = history_weights(examples, len(product_ids), decay, decay_time)
        weights.data *= np.repeat(examples.lengths, np.diff(weights.indptr))
        with threadpool_limits(1, "blas"):
            folded = fitted.recalculate_user(np.arange(len(examples)), weights)
        return folded @ fitted.item_factors.T

    return scores


def session_knn(
    corpus: Corpus,
    product_ids: np.ndarray,
    neighbours: int = 500,
    sample: int = 5000,
    decay: float | None = None,
    decay_time: str = "rank",
    own: bool = False,
) -> Model:
    """What the training sequences most like the history hold: V-SKNN of Ludewig & Jannach (2018).

    The history is a vector of weights that grow with recency; a training sequence is a vector of ones. Their dot product
    is the similarity. Of the training sequences that share a product with the history, the `sample` most recent are
    compared and the `neighbours` most similar add their similarity to the score of each of their products. Ties
    go to the more recent sequence; the most visited products follow. Nobody is their own neighbour where the corpus
    says whose its sequences are.

    Parameters
    ----------
    corpus : Corpus
        What may train; without times, later sequences are taken to be more recent.
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    neighbours, sample : int
        At least 1.
    decay : float, optional
        Weigh the history by `shelfspace.users.history_weights`. None: linearly, as in the paper, the i-th of n visits
        by i / n.
    decay_time : {"days", "log_days", "rank"}
        How `decay` counts age.
    own : bool
        Let the user's own sequence be a neighbour.
    """
    if neighbours < 1 or sample < 1:
        raise ValueError(f"neighbours is {neighbours} and sample is {sample}; both must be 1 or more.")
    seen = holds(corpus.places(product_ids), corpus.offsets, len(product_ids))
    order = np.arange(len(corpus))
    if corpus.times is not None:  # sequences in order of their newest visit
        order = np.argsort(np.maximum.reduceat(corpus.times, corpus.offsets[:-1]), kind="stable")
        seen = seen[order]
    users = pd.Index([] if own or corpus.user_ids is None else corpus.user_ids[order])
    holders = seen.T.tocsr()
    holders.sort_indices()
    row = 1e-6 * _tie_break(visit_counts(corpus, product_ids))

    def scores(examples: Examples) -> np.ndarray:
        if decay is None:
            weights = _linear_weights(examples, len(product_ids))
        else:
            weights = history_weights(examples, len(product_ids), decay, decay_time)
        found = np.tile(row, (len(examples), 1))
        _add_neighbours(
            weights.indptr, weights.indices, weights.data, holders.indptr, holders.indices, seen.indptr, seen.indices,
            users.get_indexer(examples.user_ids), neighbours, sample, found,
        )  # fmt: skip
        return found

    return scores


def _linear_weights(examples: Examples, n_products: int) -> sp.csr_matrix:
    """i / n for the i-th of a history's n visits; a product seen twice counts by its newest visit."""
    positions, offsets = examples.flat()
    lengths = np.repeat(examples.lengths, examples.lengths)
    place = (positions - np.repeat(examples.start, examples.lengths) + 1) / lengths
    row = np.repeat(np.arange(len(examples)), examples.lengths)
    items = examples.items[positions]
    order = np.lexsort((place, items, row))
    last = np.append((np.diff(row[order]) != 0) | (np.diff(items[order]) != 0), True)
    keep = order[last]
    return sp.csr_matrix((place[keep].astype(np.float32), (row[keep], items[keep])), shape=(len(examples), n_products))


@nb.njit(nogil=True, cache=True)
def _add_neighbours(
    starts, items, weights, holder_starts, holders, sequence_starts, sequence_items, own, neighbours, sample, scores
):  # fmt: skip
    """Add to each row of `scores` what its history's neighbours hold, sequence ``own[row]`` aside. Without the GIL, for threads."""
    n_sequences = len(sequence_starts) - 1
    similarity = np.zeros(n_sequences, dtype=np.float32)
    bits = similarity.view(np.int32)  # of floats that are not negative: in the same order
    met = np.zeros(n_sequences, dtype=np.bool_)  # apart from `similarity`, which stays 0 where a weight is 0
    found = np.empty(n_sequences, dtype=np.int64)
    keys = np.empty(n_sequences, dtype=np.int64)
    for row in range(len(starts) - 1):
        size = 0
        for place in range(starts[row], starts[row + 1]):
            item = items[place]
            for other in holders[holder_starts[item] : holder_starts[item + 1]]:
                if other == own[row]:
                    continue
                if not met[other]:
                    met[other] = True
                    found[size] = other
                    size += 1
                similarity[other] += weights[place]
        keys[:size] = found[:size]  # later sequences have larger numbers
        oldest = _nth_largest(keys, size, sample)
        kept = 0
        for other in found[:size]:
            if other >= oldest:
                keys[kept] = (np.int64(bits[other]) << 32) | other  # the more similar, then the more recent
                kept += 1
        least = _nth_largest(keys, kept, neighbours)
        for other in found[:size]:
            if other >= oldest and ((np.int64(bits[other]) << 32) | other) >= least:
                for place in range(sequence_starts[other], sequence_starts[other + 1]):
                    scores[row, sequence_items[place]] += similarity[other]
        for other in found[:size]:
            similarity[other], met[other] = 0, False


@nb.njit(nogil=True, cache=True)
def _nth_largest(keys, size, n):
    """The n-th largest of the first `size` distinct non-negative keys, -1 if there are fewer; reorders them."""
    if size < n:
        return np.int64(-1)
    low, high, nth = 0, size - 1, size - n
    while low < high:  # quickselect (Hoare 1961)
        pivot = keys[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if nth <= j:
            high = j
        elif nth >= i:
            low = i
        else:
            break
    return keys[nth]
