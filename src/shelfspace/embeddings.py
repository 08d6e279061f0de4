"""Product embeddings as a table of vectors: kept in Parquet, compared by cosine, validated and drawn.

Both trainers (`shelfspace.word2vec`, `shelfspace.starspace`) return `Embeddings`; all that follows works on these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from shelfspace import runs
from shelfspace.features import Features, select
from shelfspace.sequences import Examples


@dataclass(frozen=True)
class Embeddings:
    """One vector per product.

    Attributes
    ----------
    product_ids : ndarray of str, shape (n_products,)
        Sorted.
    vectors : ndarray of float32, shape (n_products, dim)
    losses : tuple of float
        Mean training loss of each epoch, where the trainer reports one.
    scores : tuple of float
        What `validate` gave after each epoch, where training was given one.
    features : Embeddings, optional
        The vectors of the features, their names in place of the product ids, where the trainer was given features.
    """

    product_ids: np.ndarray
    vectors: np.ndarray
    losses: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    features: Embeddings | None = None

    def embed_products(self, features: Features) -> np.ndarray:
        """Vectors of products, or of queries, by their features alone.

        Parameters
        ----------
        features : Features
            Those that training did not see are passed over.

        Returns
        -------
        ndarray of float32, shape (n_products, dim)
            The sum of the features' vectors; zero where none is known.

        Raises
        ------
        ValueError
            If these embeddings were trained without features.
        """
        if self.features is None:
            raise ValueError("These embeddings have no features; train StarSpace with features to embed by them.")
        return select(features, self.features.product_ids).matrix @ self.features.vectors

    def save(self, path: str | Path) -> None:
        """Write product_id and vector (fixed-size list of float32) to a Parquet file, atomically; losses and scores beside."""
        count, dim = self.vectors.shape
        flat = pa.array(np.ascontiguousarray(self.vectors, dtype=np.float32).reshape(-1))
        table = pa.table(
            {
                "product_id": pa.array(self.product_ids.astype(object)),
                "vector": pa.FixedSizeListArray.from_arrays(flat, dim),
            }
        )
        told = {"losses": [float(x) for x in self.losses], "scores": [float(x) for x in self.scores]}
        with runs.atomic(path) as temporary:
            pq.write_table(table.replace_schema_metadata({"training": json.dumps(told)}), temporary)


def load(path: str | Path, key: str = "product_id", first: int | None = None) -> Embeddings:
    """Read what `Embeddings.save` wrote, or a table of user embeddings with ``key="user_id"``; sorted by key.

    With `first`, only so many rows from the start of the file, however large it is.
    """
    table = pq.read_table(path) if first is None else pa.table(next(pq.ParquetFile(path).iter_batches(first)))
    table = table.sort_by(key)
    vectors = table["vector"].combine_chunks()
    flat = vectors.flatten().to_numpy().reshape(-1, vectors.type.list_size)
    told = json.loads((table.schema.metadata or {}).get(b"training", b"{}"))
    told = {name: tuple(values) for name, values in told.items()}
    return Embeddings(table[key].to_numpy().astype(str), flat.astype(np.float32), **told)


def align(embeddings: Embeddings, product_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The vectors in the order of a product table.

    Returns
    -------
    vectors : ndarray of float32, shape (len(product_ids), dim)
        Zero where the product has no embedding.
    known : ndarray of bool, shape (len(product_ids),)
        Whether the product has an embedding: its mean is the coverage.
    """
    place = np.searchsorted(embeddings.product_ids, product_ids).clip(max=len(embeddings.product_ids) - 1)
    known = embeddings.product_ids[place] == product_ids
    return np.where(known[:, None], embeddings.vectors[place], np.float32(0)), known


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to length 1, so that a dot product is a cosine; rows of zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, np.finfo(np.float32).tiny)


def nearest(vectors: np.ndarray, query: np.ndarray, k: int = 10, exclude: np.ndarray | None = None):
    """The k rows of `vectors` with the highest cosine to each query.

    Parameters
    ----------
    vectors : ndarray, shape (n_products, dim)
        Rows of zeros (products without an embedding) are never returned unless nothing else is left.
    query : ndarray, shape (dim,) or (n_queries, dim)
    k : int
    exclude : ndarray of int, shape (n_queries,), optional
        A row that must not be an answer for that query: the product itself.

    Returns
    -------
    index : ndarray of int64, shape (n_queries, k)
        Nearest first; ties by row number.
    cosine : ndarray of float32, shape (n_queries, k)
    """
    query = np.atleast_2d(query)
    cosines = normalise(query) @ normalise(vectors).T
    cosines[:, ~vectors.any(axis=1)] = -2.0
    if exclude is not None:
        cosines[np.arange(len(query)), np.atleast_1d(exclude)] = -3.0
    index = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return index, np.take_along_axis(cosines, index, axis=1)


@dataclass(frozen=True)
class TripletCheck:
    """Is a phone nearer another phone than a chair? See `triplet_check`."""

    auc: float
    ci95: tuple[float, float]
    same: np.ndarray  # cosines of (anchor, same group), float32, shape (n_triplets,)
    other: np.ndarray  # cosines of (anchor, other group), float32, shape (n_triplets,)


def triplet_check(vectors: np.ndarray, pairs: np.ndarray, others: np.ndarray, seed: int = 0) -> TripletCheck:
    """How often a related product is nearer than an unrelated one.

    A triplet (anchor, same, other) counts 1 when cosine(anchor, same) > cosine(anchor, other), and a half when they
    are equal; the AUC is the mean. The interval is a bootstrap over anchors (1,000 draws), as triplets of one anchor
    are not independent.

    Parameters
    ----------
    vectors : ndarray, shape (n_products, dim)
    pairs : ndarray of int, shape (n_triplets, 2)
        Anchor and the related product.
    others : ndarray of int, shape (n_triplets,)
        The unrelated product.
    seed : int
        Of the bootstrap.
    """
    if len(pairs) == 0:
        raise ValueError("There is no triplet to check; `triplet_checks` gives no check then.")
    unit = normalise(vectors)
    anchor = unit[pairs[:, 0]]
    same = np.einsum("td,td->t", anchor, unit[pairs[:, 1]])
    other = np.einsum("td,td->t", anchor, unit[others])
    wins = (same > other) + 0.5 * (same == other)
    anchors, index = np.unique(pairs[:, 0], return_inverse=True)
    won, tried = np.bincount(index, wins), np.bincount(index).astype(float)
    rng, means = np.random.default_rng(seed), np.empty(1000)
    for draw in range(len(means)):  # one at a time, as a thousand would not fit beside a large catalogue
        drawn = rng.integers(len(anchors), size=len(anchors))
        means[draw] = won[drawn].sum() / tried[drawn].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return TripletCheck(float(wins.mean()), (float(low), float(high)), same, other)


def triplet_checks(
    aligned: Mapping[str, tuple[np.ndarray, np.ndarray]], pairs: np.ndarray, others: np.ndarray, seed: int = 0
) -> dict[str, TripletCheck]:
    """`triplet_check` of several embeddings, as `align` gives them, on the same triplets; none where there is no triplet."""
    return {name: triplet_check(vectors, pairs, others, seed) for name, (vectors, _) in aligned.items() if len(pairs)}


def category_triplets(categories: np.ndarray, known: np.ndarray, per_anchor: int = 10, seed: int = 0):
    """Draw triplets (anchor, same category, other category) among products with an embedding.

    Every known product with a companion in its category is an anchor `per_anchor` times.

    Parameters
    ----------
    categories : ndarray of str or object, shape (n_products,)
        Missing categories (None, NaN, "") take no part.
    known : ndarray of bool, shape (n_products,)

    Returns
    -------
    pairs : ndarray of int64, shape (n_triplets, 2)
    others : ndarray of int64, shape (n_triplets,)
    """
    rng = np.random.default_rng(seed)
    named = np.array([isinstance(c, str) and c != "" for c in categories])
    members = np.flatnonzero(known & named)
    _, group = np.unique(categories[members].astype(str), return_inverse=True)
    order = np.argsort(group, kind="stable")
    members, group = members[order], group[order]
    size = np.bincount(group)
    begin = np.cumsum(size) - size
    place = np.repeat(np.arange(len(members)), per_anchor)
    place = place[(size[group[place]] > 1) & (size[group[place]] < len(members))]
    own_begin, own_size = begin[group[place]], size[group[place]]
    # Another place in the own group, and any place outside of it: both by a shift, so that every choice is as likely.
    same = own_begin + (place - own_begin + 1 + rng.integers(own_size - 1)) % own_size
    other = (own_begin + own_size + rng.integers(len(members) - own_size)) % len(members)
    return np.stack([members[place], members[same]], axis=1), members[other]


def next_product_triplets(examples: Examples, known: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Triplets for a log without categories: the last product seen, the target that came next, and a random product.

    Targets that the user had seen before, or that have no embedding, take no part. Shapes as `category_triplets`.
    """
    pairs = np.stack([examples.items[examples.end - 1], examples.target], axis=1).astype(np.int64)
    pairs = pairs[known[pairs].all(axis=1) & ~examples.seen()]
    others = np.random.default_rng(seed).choice(np.flatnonzero(known), size=len(pairs))
    differ = (others != pairs[:, 0]) & (others != pairs[:, 1])
    return pairs[differ], others[differ]


def complement_triplets(complements: pd.DataFrame, products: pd.DataFrame, known: np.ndarray, seed: int = 0):
    """Triplets of a known truth: a product, its complement, and another product of the complement's category.

    Parameters
    ----------
    complements : DataFrame
        product_id, complement_id: what truly goes with what (`shelfspace.shop`).
    products : DataFrame
        ``products.parquet`` with a category.
    known : ndarray of bool, shape (n_products,)

    Returns
    -------
    pairs, others
        As `category_triplets`.
    """
    rng = np.random.default_rng(seed)
    place = pd.Series(np.arange(len(products)), index=products.product_id)
    there = complements[complements[["product_id", "complement_id"]].isin(place.index).all(axis=1)]
    pairs = np.stack([place[there.product_id], place[there.complement_id]], axis=1)
    pairs = pairs[known[pairs].all(axis=1)]
    goes_with = pd.Series(pairs[:, 1]).groupby(pairs[:, 0]).agg(set)
    members = products.assign(place=place.to_numpy())[known].groupby("category").place.agg(list)
    category = products.category.to_numpy()
    rows, others = [], []
    for row, (product, complement) in enumerate(pairs):
        unrelated = [m for m in members[category[complement]] if m not in goes_with[product] and m != product]
        if unrelated:
            rows.append(row)
            others.append(unrelated[rng.integers(len(unrelated))])
    return pairs[rows], np.array(others, dtype=np.int64)


def tsne(vectors: np.ndarray, perplexity: float = 30.0, seed: int = 0, threads: int = 2) -> np.ndarray:
    """Two coordinates per product by t-SNE on cosine distance (van der Maaten & Hinton 2008), with openTSNE.

    Parameters
    ----------
    vectors : ndarray, shape (n_products, dim)
    perplexity : float
        About how many neighbours each product keeps; lowered for fewer than 3 × perplexity products.

    Returns
    -------
    ndarray of float64, shape (n_products, 2)
    """
    from openTSNE import TSNE

    perplexity = min(perplexity, max(1.0, (len(vectors) - 1) / 3))
    fitted = TSNE(
        perplexity=perplexity,
        metric="cosine",
        random_state=seed,
        n_jobs=threads,
        neighbors="exact",
        initialization="pca",
    ).fit(vectors)
    return np.asarray(fitted)
