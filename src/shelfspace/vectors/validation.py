"""Do the embeddings mean what they should? Triplets (a phone is nearer another phone than a chair) and a map by t-SNE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shelfspace.sequences.arrays import Examples
from shelfspace.vectors import embeddings


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
    unit = embeddings.normalise(vectors)
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
    """`triplet_check` of several embeddings, as `embeddings.align` gives them, on the same triplets; none where there is no triplet."""
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
        product_id, complement_id: what truly goes with what (`shelfspace.shop.simulation`).
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
        early_exaggeration_iter=125,  # half of the usual iterations: the map keeps neighbours as well (benchmarks/README.md)
        n_iter=250,
    ).fit(vectors)
    return np.asarray(fitted)
