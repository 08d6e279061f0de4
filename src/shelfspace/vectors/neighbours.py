"""Approximate nearest neighbours: a graph of the products to walk on, rather than a product of matrices.

HNSW of Malkov & Yashunin (2018), in the library faiss. Asking costs about the logarithm of the number of products where
an exact search costs the number, so it pays for large catalogues; it may miss some of the nearest.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shelfspace.vectors.embeddings import normalise


@dataclass(frozen=True)
class Graph:
    """Products to search by cosine.

    Attributes
    ----------
    search : callable
        From queries, float32 of shape (n, dim), and k to the k nearest products of each, nearest first: their numbers,
        int64 of shape (n, k), -1 where fewer are found, and their cosines, float32.
    size : int
        Bytes of the graph with its vectors.
    """

    search: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
    size: int


def installed() -> bool:
    """Whether faiss is there."""
    return importlib.util.find_spec("faiss") is not None


def graph(vectors: np.ndarray, known: np.ndarray, *, links: int = 32, build: int = 100, effort: int = 64) -> Graph:
    """Build the graph, in one thread, so that the same vectors give the same graph.

    Parameters
    ----------
    vectors : ndarray of float32, shape (n_products, dim)
    known : ndarray of bool, shape (n_products,)
        Products without an embedding are not in the graph.
    links : int
        Neighbours that each product is linked with.
    build, effort : int
        Candidates looked at when a product is put in, and when one is searched for: more find more, and take longer.

    Raises
    ------
    ValueError
        If faiss is not installed.
    """
    if not installed():
        raise ValueError("An approximate search needs the library faiss; install it with: pip install faiss-cpu.")
    import faiss

    faiss.omp_set_num_threads(1)
    places = np.flatnonzero(known)
    index = faiss.IndexHNSWFlat(vectors.shape[1], links, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = build, effort
    index.add(np.ascontiguousarray(normalise(vectors[places]), dtype=np.float32))

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        cosines, found = index.search(np.ascontiguousarray(normalise(queries), dtype=np.float32), k)
        return np.where(found >= 0, places[found], -1), cosines

    return Graph(search, len(faiss.serialize_index(index)))


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact k nearest, shape (n, k), that are among the found ones of the same row."""
    return float((found[:, :, None] == exact[:, None, :]).any(axis=1).mean())
