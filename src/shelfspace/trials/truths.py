"""Pairs of products that are known to belong together, and how near each other vectors place them.

What a session bought in the end belongs to the visits that led there; and the simulated shop knows which products truly go
with which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from shelfspace.measure import evaluation, intervals, ranking
from shelfspace.models.baselines import nearest_to_last
from shelfspace.sequences import arrays
from shelfspace.sequences.arrays import EVENT_LEVELS, Examples
from shelfspace.trials.variants import Made


def missions(table: pa.Table, product_ids: np.ndarray) -> Examples:
    """Single visits that led to a purchase which no embedding was trained on: the targets that were bought.

    Returns
    -------
    Examples
        One for each visit of the session before such a target, to another product than the one bought; the visit is the
        whole history.
    """
    parts = []
    for split in ("train", "valid", "test"):
        rows = arrays.of_split(table, split)
        session, found = rows["session"].to_numpy(), arrays.examples(rows, product_ids, split)
        found = found[found.target_event == EVENT_LEVELS.index("purchase")]
        positions, _ = found.flat()
        bought = np.repeat(found.end, found.lengths)
        target, users = np.repeat(found.target, found.lengths), np.repeat(found.user_ids, found.lengths)
        led = (session[positions] == session[bought]) & (found.items[positions] != target)
        visits = positions[led]
        parts.append((found.items[visits], found.times[visits], found.events[visits], target[led], users[led]))
    items, times, events, target, users = (np.concatenate(column) for column in zip(*parts))
    start, codes = np.arange(len(target)), np.full(len(target), EVENT_LEVELS.index("purchase"), np.int8)
    return Examples(items, times, events, start, start + 1, target, codes, users)


def complements(pairs: pd.DataFrame, product_ids: np.ndarray) -> Examples:
    """Pairs of product_id and complement_id, as histories of one visit with the complement as target."""
    columns = ["product_id", "complement_id"]
    there = pairs[pairs[columns].isin(product_ids).all(axis=1)]
    first, second = (np.searchsorted(product_ids, there[name].astype(str)) for name in columns)
    n = len(there)
    nothing = np.zeros(n, dtype=np.int8)
    return Examples(
        first.astype(np.int32), np.zeros(n), nothing, np.arange(n), np.arange(n) + 1, second.astype(np.int32), nothing,
        there.product_id.to_numpy().astype(str),
    )  # fmt: skip


def found_near(made: Made, pairs: Examples) -> np.ndarray:
    """How far each pair's target comes among the products nearest to its one visit, the visit's own product included.

    Returns
    -------
    ndarray of int64, shape (n,)
        Ranks among all products.
    """
    return evaluation.evaluate(nearest_to_last(made.vectors, made.known), pairs).ranks


def recovered(rank: np.ndarray, other: np.ndarray, owners: np.ndarray, seed: int = 0, comparisons: int = 1) -> dict:
    """HR@20 of the pairs, and its paired gain, with an interval over owners: pairs of one are not independent.

    Each owner counts once, with the mean of its pairs. As `shelfspace.trials.gains.gained`.
    """
    hits, base = ranking.hit_rate(rank, 20), ranking.hit_rate(other, 20)
    mean = pd.DataFrame({"hit": hits, "gain": hits - base}).groupby(owners).mean()
    drawn = intervals.bootstrap(mean.gain.to_numpy(), draws=intervals.TEST_DRAWS, seed=seed)
    low, high = np.quantile(drawn, [0.025 / comparisons, 1 - 0.025 / comparisons])
    return {
        "value": float(mean.hit.mean()), "gain": float(mean.gain.mean()), "ci95": [float(low), float(high)], "n": len(rank),
    }  # fmt: skip


def recover(made: Mapping[str, Made], pairs: Mapping[str, Examples], names: Sequence[str], seed: int = 0) -> dict[str, dict]:
    """How well known pairs are found, by name and kind of pair; see `recovered`.

    The intervals are as wide as it takes for those of all variants and kinds together to hold in 95 % (Bonferroni).

    Parameters
    ----------
    made : mapping of name to Made
    pairs : mapping of kind to Examples
        From `missions` or `complements`.
    names : sequence of str
        Variants to ask, their bases among them.
    seed : int
    """
    near = {(name, kind): found_near(made[name], of) for name in names for kind, of in pairs.items()}
    comparisons = max(1, len(pairs) * sum(bool(made[name].variant.base) for name in names))
    return {
        name: {
            kind: recovered(near[name, kind], near[made[name].variant.base or name, kind], of.user_ids, seed, comparisons)
            for kind, of in pairs.items()
        }
        for name in names
    }
