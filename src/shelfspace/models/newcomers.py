"""New products, which nobody clicked, placed by the products that are most like them by information.

Grbovic & Cheng 2018, "Real-time Personalization using Embeddings for Search Ranking at Airbnb" (KDD), section 3, give a new
listing the mean of the vectors of the three listings nearest in place, type and price. Here, what two products are alike in
is any of their features (`shelfspace.vectors.features`), the rare ones most.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.sparse as sp

from shelfspace.measure.ranking import Model, top_k
from shelfspace.models import baselines
from shelfspace.sequences.arrays import Examples
from shelfspace.vectors import features
from shelfspace.vectors.embeddings import normalise
from shelfspace.vectors.features import Features

ALIKE = 3  # products whose mean a new product takes
BELOW = 1e6  # by so much lie new products that have no place below all others
FIRST = 20  # products of a list, of which some places may be kept for new ones


def placer(information: Features, vectors: np.ndarray, known: np.ndarray) -> Callable[[pd.DataFrame], np.ndarray]:
    """A function that places new products by the `ALIKE` products most like them by information.

    Alike is the cosine of two products' features, each weighing log(products / products that have it), so that rare ones
    say more. A new product's cosine to whatever is compared with it is to be the mean of theirs, so its vector is the mean
    of their directions, and a number in a dimension of its own that makes its length 1. Were the mean itself brought to
    length 1, it would be nearer to all than any of the three, and new products would crowd out the others.

    Parameters
    ----------
    information : Features
        Of all products, in the order of `vectors`.
    vectors : ndarray of float32, shape (n_products, dim)
    known : ndarray of bool, shape (n_products,)
        Whose vectors may be taken.

    Returns
    -------
    callable
        From a product table to float32 of shape (rows, dim + 1), zero where no feature is known, else as long as the known
        vectors are on average.
    """
    weight = np.log(len(known) / information.matrix.getnnz(axis=0))
    there = np.flatnonzero(known)
    unit, table = normalise(vectors[there]), _of_length_one(information.matrix[there].multiply(weight))
    length = np.linalg.norm(vectors[there], axis=1).mean()

    def place(rows: pd.DataFrame) -> np.ndarray:
        theirs = features.select(features.of_products(rows, min_products=1, max_share=1.0), information.names)
        alike = (_of_length_one(theirs.matrix.multiply(weight)) @ table.T).toarray()
        mean = unit[np.argsort(-alike, axis=1, kind="stable")[:, :ALIKE]].mean(axis=1)
        rest = np.sqrt(np.maximum(0, 1 - (mean**2).sum(axis=1, keepdims=True)))
        return length * np.hstack([mean, rest]) * (alike.max(axis=1, initial=0.0, keepdims=True) > 0)

    return place


def fill(vectors: np.ndarray, known: np.ndarray, place: Callable, products: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Vectors with the dimension that `placer` adds, and known, with what it gives for the products that have no vector.

    `products` are in the order of `vectors`.
    """
    missing, known = np.flatnonzero(~known), known.copy()
    vectors = np.hstack([vectors, np.zeros((len(vectors), 1), np.float32)])
    for first in range(0, len(missing), 512):
        part = missing[first : first + 512]
        vectors[part] = place(products.iloc[part])
    known[missing] = vectors[missing].any(axis=1)
    return vectors, known


def model(
    products: pd.DataFrame, vectors: np.ndarray, known: np.ndarray, clicked: np.ndarray, decay: float, decay_time: str = "days"
) -> Model | None:
    """The new products nearest to the user embedding by where `placer` puts them; all others score -inf.

    Parameters
    ----------
    products : DataFrame
        The product table, with whatever it tells of the products.
    vectors, known
        Product embeddings, in the order of `products`, and whether there is one.
    clicked : ndarray of bool, shape (n_products,)
        Which products are not new.
    decay, decay_time
        See `shelfspace.models.users.history_weights`.

    Returns
    -------
    Model or None
        None where no new product can be placed.
    """
    known = known & clicked
    if clicked.all() or not known.any():
        return None
    information = features.of_products(products)
    if not len(information.names):
        return None
    filled, placed = fill(vectors, known, placer(information, vectors, known), products)
    nearest, new = baselines.nearest_to_user(filled, placed, decay, decay_time), placed & ~clicked
    return (lambda examples: np.where(new, nearest(examples), np.float32(-np.inf))) if new.any() else None


def keep_places(recommender: Model, newcomers: Model | None, places: int) -> Model:
    """The recommender, with the last `places` of its first `FIRST` products given to the best new ones.

    A new product has that place or none: how often one is shown that nobody clicked yet is for the shop to decide, and not for
    clicks to tell. All other products keep their order.

    Parameters
    ----------
    recommender : Model
    newcomers : Model or None
        From `model`.
    places : int
        From 0 to `FIRST` - 1. Where fewer can be placed, so many.
    """
    if newcomers is None or not places:
        return recommender

    def scores(examples: Examples) -> np.ndarray:
        products, rows = np.array(recommender(examples), dtype=np.float32), np.arange(len(examples))[:, None]
        of_new = newcomers(examples)
        products -= np.where(np.isfinite(of_new), np.float32(BELOW), 0)
        first, best = top_k(products, FIRST - places)
        new, placed = top_k(of_new, places)
        products[rows, first] += 1  # makes room for the new ones below them
        below = best[:, -1:] + 1 - np.arange(1, new.shape[1] + 1, dtype=np.float32) / (new.shape[1] + 1)
        products[rows, new] = np.where(np.isfinite(placed), below, products[rows, new])
        return products

    return scores


def _of_length_one(matrix: sp.sparray) -> sp.csr_matrix:
    matrix = sp.csr_matrix(matrix)
    norm = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sp.csr_matrix(sp.diags_array(1 / np.maximum(norm, 1e-12)) @ matrix)
