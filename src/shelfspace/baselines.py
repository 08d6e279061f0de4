"""Recommenders without a network, against which the network has to earn its place.

All but the popular one are the same thing: the history's decayed weights W (`shelfspace.users.history_weights`) times
an item-to-item similarity. Own products: the identity. Co-occurrence: how often two products were seen together.
Nearest products: the cosine of their embeddings. Each function returns a `shelfspace.metrics.Model`.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from shelfspace.embeddings import normalise
from shelfspace.metrics import Model
from shelfspace.sequences import Corpus, Examples
from shelfspace.users import history_weights, user_embeddings


def popular(counts: np.ndarray) -> Model:
    """The same most visited products for everybody.

    Parameters
    ----------
    counts : ndarray, shape (n_products,)
        Training visits of each product.
    """
    row = np.asarray(counts, dtype=np.float32)
    return lambda examples: np.broadcast_to(row, (len(examples), len(row)))


def own_products(counts: np.ndarray, decay: float, decay_time: str = "days") -> Model:
    """The user's own products, by decayed weight; the most visited ones of the shop after them."""
    row = (np.asarray(counts) / (1.0 + np.sum(counts))).astype(np.float32)  # below any weight that matters

    def scores(examples: Examples) -> np.ndarray:
        return 1e-6 * row + history_weights(examples, len(row), decay, decay_time).toarray()

    return scores


def cooccurrence(corpus: Corpus, product_ids: np.ndarray, power: float = 0.5) -> sp.csr_matrix:
    """How alike two products are by the users who saw both: n_ab / (n_a n_b) ** power, the diagonal left out.

    Parameters
    ----------
    corpus : Corpus
        The training sequences.
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    power : float
        0.5 is the cosine of the two products' user sets (Sarwar et al. 2001); 0 counts only.

    Returns
    -------
    csr_matrix of float32, shape (n_products, n_products)
    """
    place = np.searchsorted(product_ids, corpus.product_ids)
    users = np.repeat(np.arange(len(corpus)), np.diff(corpus.offsets))
    seen = sp.csr_matrix(
        (np.ones(len(corpus.items), dtype=np.float32), (users, place[corpus.items])),
        shape=(len(corpus), len(product_ids)),
    )
    seen.data[:] = 1  # a user counts once, however often the product was seen
    together = (seen.T @ seen).tocsr()
    count = together.diagonal()
    scale = sp.diags_array((1 / np.maximum(count, 1) ** power).astype(np.float32))
    together.setdiag(0)
    together.eliminate_zeros()
    return (scale @ together @ scale).tocsr()


def item_to_item(similarity: sp.csr_matrix, decay: float, decay_time: str = "days") -> Model:
    """Products that go with what the user saw: decayed weights times an item-to-item table (item-KNN)."""

    def scores(examples: Examples) -> np.ndarray:
        return (history_weights(examples, similarity.shape[0], decay, decay_time) @ similarity).toarray()

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
    unit = normalise(vectors)
    return lambda examples: _cosines(unit[examples.items[examples.end - 1]], unit, known)


def nearest_to_user(vectors: np.ndarray, known: np.ndarray, decay: float, decay_time: str = "days") -> Model:
    """Products nearest by cosine to the decayed user embedding; see `nearest_to_last` for the parameters."""
    unit = normalise(vectors)

    def scores(examples: Examples) -> np.ndarray:
        return _cosines(user_embeddings(examples, vectors, decay, decay_time, known), unit, known)

    return scores


def _cosines(query: np.ndarray, unit: np.ndarray, known: np.ndarray) -> np.ndarray:
    cosines = normalise(query) @ unit.T
    cosines[:, ~known] = -2.0
    return cosines
