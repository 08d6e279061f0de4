"""The answers of LightGBM's trees for many rows at once, to the bit: its own go from node to node, a row at a time.

QuickScorer (Lucchese et al. 2015) asks all nodes of a tree in turn, each of all rows: a node that sends a row to the right strikes out the
leaves on its left, and the first leaf that is left is the row's. No step depends on the one before, so that the compiler makes vector
code of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba as nb
import numpy as np

if TYPE_CHECKING:
    import lightgbm as lgb

LEAVES = 32  # of a tree at most: each is a bit
ROWS = 128  # that are asked at once: their features stay in the nearest cache
DE_BRUIJN = np.uint32(0x077CB531)  # times a power of two, its upper five bits tell which (Leiserson et al. 1998)
_SLOT = np.array([np.uint32((int(DE_BRUIJN) << leaf) & 0xFFFFFFFF) >> np.uint32(27) for leaf in range(LEAVES)])


@dataclass(frozen=True)
class Nodes:
    """The nodes of all trees, one tree after the other.

    Attributes
    ----------
    feature : ndarray of int32, shape (n_nodes,)
    threshold : ndarray of float32, shape (n_nodes,)
        A value above it goes right; rounded down from float64, which is the same question of a float32.
    missing_left : ndarray of bool, shape (n_nodes,)
        Where NaN goes.
    right : ndarray of uint32, shape (n_nodes,)
        The leaves that are left to a row that goes right, a bit each, leaf 0 the lowest.
    offsets : ndarray of int64, shape (n_trees + 1,)
        Where each tree's nodes begin.
    values : ndarray of float64, shape (n_trees, LEAVES)
        What each leaf adds, in the order of the de Bruijn sequence.
    """

    feature: np.ndarray
    threshold: np.ndarray
    missing_left: np.ndarray
    right: np.ndarray
    offsets: np.ndarray
    values: np.ndarray


def predictor(booster: lgb.Booster) -> Callable[[np.ndarray], np.ndarray]:
    """``booster.predict`` of a float32 table without the way through the library: float64, shape (k,).

    Trees that `Nodes` cannot hold, those of more than `LEAVES` leaves or with categories, are left to the library.
    """
    made = nodes(booster)
    if made is None:
        return lambda table: booster.predict(table, num_threads=1)

    def predict(table: np.ndarray) -> np.ndarray:
        total = np.zeros(len(table))
        _add(table, made.feature, made.threshold, made.missing_left, made.right, made.offsets, made.values, total)
        return total

    return predict


def nodes(booster: lgb.Booster) -> Nodes | None:
    """Take a booster apart, up to its best iteration; None where it does not fit (see `predictor`)."""
    told = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    parts, offsets, values = [], [0], np.zeros((len(told), LEAVES))
    for number, root in enumerate(told):
        leaves = list(_leaves(root))
        inner = list(_inner(root, 0))
        if len(leaves) > LEAVES or any(node["decision_type"] != "<=" or node["missing_type"] == "Zero" for node, *_ in inner):
            return None
        values[number, _SLOT[: len(leaves)]] = leaves
        parts += inner
        offsets.append(len(parts))
    exact = np.array([node["threshold"] for node, *_ in parts], dtype=np.float64)
    with np.errstate(over="ignore"):  # LightGBM's largest is beyond float32: no finite value is above it
        threshold = exact.astype(np.float32)
    threshold = np.where(threshold > exact, np.nextafter(threshold, np.float32(-np.inf)), threshold)
    left = [node["default_left"] if node["missing_type"] == "NaN" else node["threshold"] >= 0 for node, *_ in parts]  # else NaN is 0
    struck = [(1 << first + count) - (1 << first) for _, first, count in parts]
    right = np.array([0xFFFFFFFF ^ bits for bits in struck], dtype=np.uint32)
    feature = np.array([node["split_feature"] for node, *_ in parts], dtype=np.int32)
    return Nodes(feature, threshold, np.array(left, dtype=bool), right, np.array(offsets), values)


def _leaves(node: dict) -> Iterator[float]:
    """Values of a tree's leaves, from left to right."""
    if "split_feature" not in node:
        yield node["leaf_value"]
    else:
        yield from _leaves(node["left_child"])
        yield from _leaves(node["right_child"])


def _inner(node: dict, first: int) -> Iterator[tuple[dict, int, int]]:
    """Nodes that ask, each with its first leaf and the number of leaves on its left."""
    if "split_feature" in node:
        count = sum(1 for _ in _leaves(node["left_child"]))
        yield node, first, count
        yield from _inner(node["left_child"], first)
        yield from _inner(node["right_child"], first + count)


@nb.njit(nogil=True, cache=True)
def _add(table, feature, threshold, missing_left, right, offsets, values, total):
    """Add to `total` what the trees say of each row, tree by tree, as the library does. Without the GIL, for threads."""
    n_features, everything = table.shape[1], np.uint32(0xFFFFFFFF)
    columns = np.zeros((n_features, ROWS), dtype=np.float32)
    left = np.empty(ROWS, dtype=np.uint32)  # leaves
    for first in range(0, len(table), ROWS):
        size = min(ROWS, len(table) - first)
        for i in range(size):
            for j in range(n_features):
                columns[j, i] = table[first + i, j]
        for tree in range(len(offsets) - 1):
            left[:] = everything
            for node in range(offsets[tree], offsets[tree + 1]):
                values_of, least, kept = columns[feature[node]], threshold[node], right[node]
                if missing_left[node]:
                    for i in range(ROWS):
                        left[i] &= kept if values_of[i] > least else everything
                else:
                    for i in range(ROWS):
                        left[i] &= everything if values_of[i] <= least else kept
            for i in range(size):
                lowest = left[i] & (~left[i] + np.uint32(1))
                total[first + i] += values[tree, np.uint32(lowest * DE_BRUIJN) >> np.uint32(27)]
