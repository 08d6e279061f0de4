"""Product embeddings as a table of vectors: kept in Parquet, brought into the order of a product table, compared by cosine.

Both trainers (`shelfspace.vectors.word2vec`, `shelfspace.vectors.starspace`) return `Embeddings`; all that follows works on these.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_array

from shelfspace.files import run_files
from shelfspace.sequences.arrays import Corpus
from shelfspace.vectors.features import Features, select
from shelfspace.vectors.threads import one_blas_thread

NEAR = 5  # places before and after a new product from whose products it begins


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
        with run_files.atomic(path) as temporary:
            pq.write_table(table.replace_schema_metadata({"training": json.dumps(told)}), temporary)


def fit(path: str | Path, train: Callable[..., Embeddings], like: Embeddings | None = None, **given) -> None:
    """Train, and write to a file what came of it: for `shelfspace.files.run_files.once`.

    Parameters
    ----------
    path : str or Path
    train : callable
        A trainer, as `shelfspace.vectors.skipgram.train`.
    like : Embeddings, optional
        Those of the day before, onto which they are `turned`.
    given
        What the trainer takes.
    """
    turned(train(**given), like).save(path)


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


def begin(table: np.ndarray, corpus: Corpus, start: Embeddings | None) -> None:
    """Put the vectors of an earlier training into the first rows and columns of a trainer's table, for the products that both know.

    A product that is new begins at the mean of the known ones that stand within `NEAR` places of it: the few and small steps that follow
    would leave it near to where chance had put it.

    Parameters
    ----------
    table : ndarray of float32, shape (n_products or more, dim or more)
        Changed in place; a new product that stands near no known one keeps what it has.
    corpus : Corpus
        The sequences to train on; its products are the table's first rows.
    start : Embeddings or None
        None leaves the table alone.

    Raises
    ------
    ValueError
        If the earlier vectors are longer than the table's rows.
    """
    if start is None:
        return
    dim = start.vectors.shape[1]
    if dim > table.shape[1]:
        raise ValueError(f"The vectors to start from have {dim} numbers, more than the {table.shape[1]} of these; give the same dim.")
    vectors, known = align(start, corpus.product_ids)
    table[np.flatnonzero(known), :dim] = vectors[known]
    items, owner = corpus.items, np.repeat(np.arange(len(corpus)), np.diff(corpus.offsets))
    near = np.zeros((len(known), 2), dtype=np.int64)[:0]
    for places in range(1, NEAR + 1) if not known.all() else ():
        pairs = np.column_stack([items[:-places], items[places:]])[owner[:-places] == owner[places:]]
        near = np.concatenate([near, *(both[~known[both[:, 0]] & known[both[:, 1]]] for both in (pairs, pairs[:, ::-1]))])
    met = csr_array((np.ones(len(near), np.float32), near.T), shape=(len(known),) * 2)
    new = np.flatnonzero(np.diff(met.indptr))
    table[new, :dim] = (met @ vectors)[new] / met.sum(axis=1)[new, None]


def turned(embeddings: Embeddings, onto: Embeddings | None) -> Embeddings:
    """The same embeddings, turned (and mirrored) as a whole to lie as near as can be to earlier ones of the products that both know.

    Orthogonal Procrustes (Schönemann 1966): no length, cosine or dot product among them changes, so that nothing but the frame does.
    The vectors of features are turned with them.

    Parameters
    ----------
    embeddings : Embeddings
    onto : Embeddings or None
        None leaves them as they are.

    Raises
    ------
    ValueError
        If their vectors differ in length.
    """
    if onto is None:
        return embeddings
    if embeddings.vectors.shape[1] != onto.vectors.shape[1]:
        raise ValueError(
            f"Vectors of {embeddings.vectors.shape[1]} numbers cannot be turned onto some of {onto.vectors.shape[1]}; give the same dim."
        )
    vectors, known = align(onto, embeddings.product_ids)
    from scipy.linalg import orthogonal_procrustes  # here alone

    with one_blas_thread():  # the same bytes for any number of cores
        turn = orthogonal_procrustes(embeddings.vectors[known].astype(float), vectors[known].astype(float))[0] if known.any() else None
        if turn is None:
            return embeddings
        of = embeddings.features
        features = None if of is None else replace(of, vectors=(of.vectors @ turn).astype(np.float32))
        return replace(embeddings, vectors=(embeddings.vectors @ turn).astype(np.float32), features=features)


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
