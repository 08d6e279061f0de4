"""A few customers followed visit by visit: what a recommender would have shown after each, and what its scores are made of.

`ranks` keeps the place of every test target by every model, so that one can see where a model fails; `choose` picks some of these
customers, of every kind; `follow` tells what the recommender puts first for each of them after each of the newest visits. The page
draws what these give and computes nothing of it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from shelfspace.measure import evaluation, ranking
from shelfspace.measure.ranking import Model
from shelfspace.sequences.arrays import Examples

CUSTOMERS = 24  # to follow
VISITS = (3, 30)  # a history has to have so many, from and to: each is shown on one line
STEPS = 8  # newest visits of each after which recommendations are told
TOP = 60  # products told for each: more than are shown, so that the list can change when a part of the score is left out


def ranks(
    examples: Examples, product_ids: np.ndarray, of_models: Mapping[str, np.ndarray], counts: np.ndarray, events: Sequence[str]
) -> pd.DataFrame:
    """The place of each target by each model, and what is known of the target: a row per example, in their order.

    Parameters
    ----------
    examples : Examples
    product_ids : ndarray of str, shape (n_products,)
        What `examples.target` indexes.
    of_models : mapping of name to ndarray of int, shape (n,)
        Places among all products (`shelfspace.measure.evaluation.Evaluation.ranks`).
    counts, events
        See `shelfspace.measure.evaluation.parts`.

    Returns
    -------
    DataFrame
        user_id, product_id (the target), event, seen (whether it stood in the history), visits (of the history), target ("popular",
        "middling" or "rare") and history (its length in words), as in the report's slices; then a column for each model.
    """
    found = pd.DataFrame({
        "user_id": examples.user_ids, "product_id": product_ids[examples.target], "event": np.array(events)[examples.target_event],
        "seen": examples.seen(), "visits": examples.lengths,
    })  # fmt: skip
    parts = evaluation.parts(examples, counts, events)
    for cut in ("target", "history"):
        of_cut = {group: mask for (name, group), mask in parts.items() if name == cut}
        found[cut] = np.select(list(of_cut.values()), list(of_cut), "")
    return found.assign(**of_models)


def choose(examples: Examples, rank: np.ndarray, customers: int = CUSTOMERS, visits: tuple[int, int] = VISITS, seed: int = 0) -> np.ndarray:
    """Some examples of every kind: the target new or seen, found or missed, after a short or a long history.

    One of each of the eight kinds in turn, drawn at random, until there are enough. A customer is taken once.

    Parameters
    ----------
    examples : Examples
    rank : ndarray of int, shape (n,)
        Place of each target; up to 20 is found.
    customers : int
    visits : (int, int)
        Shortest and longest history to take; longer ones than the median of these are long.
    seed : int

    Returns
    -------
    ndarray of int64, shape (m,)
        Rows of `examples`, m ≤ customers; in turn, so that neighbours are of different kinds.
    """
    lengths = examples.lengths
    rows = np.random.default_rng(seed).permutation(np.flatnonzero((lengths >= visits[0]) & (lengths <= visits[1])))
    if not len(rows):
        return rows
    rows = rows[np.sort(np.unique(examples.user_ids[rows], return_index=True)[1])]
    kind = 4 * (rank[rows] > 20) + 2 * examples.seen()[rows] + (lengths[rows] <= np.median(lengths[rows]))
    turn = pd.Series(kind).groupby(kind).cumcount().to_numpy()
    return rows[np.lexsort([kind, turn])[:customers]]


def steps(examples: Examples, rows: np.ndarray, newest: int = STEPS) -> tuple[Examples, np.ndarray]:
    """The chosen examples as they stood after each of their newest visits; the next visit is the target of each.

    What the user's own sequence taught is left out of every step's scores as it is of the example's own.

    Parameters
    ----------
    examples : Examples
    rows : ndarray of int, shape (m,)
    newest : int
        So many visits of each, or as many as there are.

    Returns
    -------
    Examples
        k of them, oldest first for each row; the last of each is the example itself.
    row : ndarray of int64, shape (k,)
        Whose step each is.
    """
    row, end = [], []
    for each in np.asarray(rows, dtype=np.int64):
        first = max(examples.start[each] + 1, examples.end[each] - newest + 1)
        end.append(np.arange(first, examples.end[each] + 1))
        row.append(np.full(len(end[-1]), each))
    row, end = (np.concatenate(column) if column else np.zeros(0, np.int64) for column in (row, end))
    last = end == examples.end[row]
    following = np.minimum(end, len(examples.items) - 1)
    target = np.where(last, examples.target[row], examples.items[following]).astype(np.int32)
    event = np.where(last, examples.target_event[row], examples.events[following]).astype(np.int8)
    of_row = (examples.start[row], end, target, event, examples.user_ids[row], examples.trained[row])
    return Examples(examples.items, examples.times, examples.events, *of_row), row


def follow(
    examples: Examples,
    rows: np.ndarray,
    product_ids: np.ndarray,
    recommender: Model,
    explain: Callable[[Examples, np.ndarray, np.ndarray], pd.DataFrame] | None = None,
    newest: int = STEPS,
    top: int = TOP,
) -> pd.DataFrame:
    """What a recommender puts first after each of the newest visits, and the parts of each score.

    Parameters
    ----------
    examples : Examples
    rows : ndarray of int, shape (m,)
        Which to follow (`choose`).
    product_ids : ndarray of str, shape (n_products,)
    recommender : Model
    explain : callable, optional
        From (examples, row, product) to the parts of the scores, as `shelfspace.models.ranked.explain` and
        `shelfspace.models.tied.explain`; without, the score is its own only part.
    newest, top : int
        Visits of each example, and products of each list.

    Returns
    -------
    DataFrame
        A row for each product of each list: row (of `examples`), visits (how many the recommender had seen), next_id and next_rank (the
        product of the next visit, and its place among all), rank (1 the best), product_id, score, and the parts. These sum to the score;
        the last of them, start, is what no other part explains: the same for all products, unless places are kept for new ones
        (`shelfspace.models.newcomers.keep_places`). Products that the recommender ranked by no part at all are left out.
    """
    followed, row = steps(examples, rows, newest)
    if not len(followed):
        return pd.DataFrame()
    scores = np.asarray(recommender(followed))
    best, value = ranking.top_k(scores, top)
    step, place = (axis.ravel() for axis in np.indices(best.shape))
    product, value = best.ravel(), value.ravel().astype(float)
    parts = pd.DataFrame({"score": value}) if explain is None else explain(followed, step, product).drop(columns="score")
    parts = parts.drop(columns=["base", "no_candidate"], errors="ignore").astype(float)
    told = pd.DataFrame({
        "row": row[step], "visits": followed.lengths[step], "next_id": product_ids[followed.target[step]],
        "next_rank": ranking.ranks(scores, followed.target)[step], "rank": place + 1, "product_id": product_ids[product], "score": value,
    })  # fmt: skip
    told = told.join(parts.add_prefix("part_")).assign(part_start=value - parts.sum(axis=1))
    lists = told.groupby([told["row"], told["visits"]]).score
    ranked = told.score > lists.transform("max") - 1_000  # what is no candidate stands far below
    return told[np.isfinite(told.score) & ranked].reset_index(drop=True)
