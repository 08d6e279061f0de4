"""Features of products and of queries: the words, category, brand and price band that products share.

StarSpace makes a product the sum of its own row and the rows of its features (Wu et al. 2017, section 3), so that a
product that nobody clicked yet lies where its features say, and a query where its words say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("name", "description", "category", "brand", "price")
WORDS = ("name", "description")  # columns of free text
PRICE_BANDS = 2.0  # per doubling of the price


@dataclass(frozen=True)
class Features:
    """Which product has which features.

    Attributes
    ----------
    product_ids : ndarray of str, shape (n_products,)
        Sorted. Ids of queries, where the features are those of queries.
    names : ndarray of str, shape (n_features,)
        Sorted: "word:coffee", "category:phones", "brand:orvane", "price:17".
    matrix : csr_matrix of float32, shape (n_products, n_features)
        1 where the product has the feature.
    """

    product_ids: np.ndarray
    names: np.ndarray
    matrix: sp.csr_matrix


def of_products(products: pd.DataFrame, columns: Sequence[str] = COLUMNS, *, min_products: int = 2, max_share: float = 0.2) -> Features:
    """Features from the product table.

    Parameters
    ----------
    products : DataFrame
        product_id and any of `COLUMNS`; cells may be missing.
    columns : sequence of str
        Which of `COLUMNS` to use; those that the table lacks are passed over.
    min_products : int
        Features of fewer products are left out: they tell nothing that the product's own row does not.
    max_share : float
        Words of more than this share of the products ("for", "with") are left out: they tell nothing apart.

    Raises
    ------
    ValueError
        If a column is none of `COLUMNS`.
    """
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no column of features; it must be one of {', '.join(COLUMNS)}.")
    products = products.sort_values("product_id", kind="stable")
    lists: list[list[str]] = [[] for _ in range(len(products))]
    for column in columns:
        if column in products:
            for found, value in zip(lists, products[column]):
                found += _of_cell(column, value)
    made = _features(products.product_id.to_numpy().astype(str), lists)
    count = np.asarray(made.matrix.sum(axis=0)).ravel()
    is_word = np.char.startswith(made.names, "word:")
    keep = (count >= min_products) & ~(is_word & (count > max_share * len(products)))
    return Features(made.product_ids, made.names[keep], made.matrix[:, keep])


def of_texts(texts: Iterable[str]) -> Features:
    """The words of texts, say of search queries; the texts themselves are the ids, each once."""
    ids = np.unique(np.asarray(list(texts), dtype=str))
    return _features(ids, [_of_cell("name", text) for text in ids])


def join(one: Features, other: Features) -> Features:
    """Both together, for a corpus that holds products and queries; their ids must differ."""
    ids = np.concatenate([one.product_ids, other.product_ids])
    order = np.argsort(ids, kind="stable")
    if len(np.unique(ids)) < len(ids):
        raise ValueError("Two Features share an id; give queries another form of id than products.")
    names = np.union1d(one.names, other.names)
    matrix = sp.vstack([select(one, names).matrix, select(other, names).matrix]).tocsr()
    return Features(ids[order], names, matrix[order])


def select(features: Features, names: np.ndarray) -> Features:
    """The same products with the features `names` (sorted) only, in that order; others are dropped."""
    place = np.searchsorted(names, features.names).clip(max=max(0, len(names) - 1))
    known = names[place] == features.names if len(names) else np.zeros(len(features.names), bool)
    coo = features.matrix.tocoo()
    keep = known[coo.col]
    matrix = sp.csr_matrix((coo.data[keep], (coo.row[keep], place[coo.col[keep]])), shape=(len(features.product_ids), len(names)))
    return Features(features.product_ids, names, matrix)


def _of_cell(column: str, value) -> list[str]:
    """The features that one cell of the product table gives; none when it is missing."""
    if value is None or value != value or value == "":
        return []
    if column in WORDS:
        return [f"word:{word}" for word in re.findall(r"[^\W_]+", str(value).lower())]
    if column == "price":
        return [f"price:{round(PRICE_BANDS * np.log2(value))}"] if value > 0 else []
    return [f"{column}:{str(value).lower()}"]


def _features(product_ids: np.ndarray, lists: list[list[str]]) -> Features:
    lists = [sorted(set(found)) for found in lists]
    names, columns = np.unique([name for found in lists for name in found] or np.zeros(0, str), return_inverse=True)
    offsets = np.concatenate([[0], np.cumsum([len(found) for found in lists])])
    data = np.ones(len(columns), dtype=np.float32)
    return Features(product_ids, names, sp.csr_matrix((data, columns, offsets), shape=(len(lists), len(names))))
