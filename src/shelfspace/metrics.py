"""How good are recommendations? Hit rate and mean reciprocal rank, every model on the same targets and candidates.

Rules that hold for every number of the report: all products are candidates, those that the user already saw too; a
second set of ranks leaves the seen ones out. Ties share the places they take: a target's rank is 1 + the number of
products scored strictly higher + half of the others scored equal, rounded up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shelfspace.sequences import Examples

Model = Callable[[Examples], np.ndarray]
"""Scores of all products for each example: float array of shape (len(examples), n_products), higher is better."""

CUTOFFS = (5, 10, 20)


def ranks(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Rank of each row's target among all candidates, 1 the best.

    Parameters
    ----------
    scores : ndarray, shape (n, n_products)
        -inf takes a product out of the candidates; NaN is refused.
    targets : ndarray of int, shape (n,)

    Returns
    -------
    ndarray of int64, shape (n,)
        1 + number strictly higher + ceil(ties / 2), where ties are the other products of the same score.

    Raises
    ------
    ValueError
        If a score is NaN: no rank follows from it.
    """
    own = scores[np.arange(len(targets)), targets][:, None]
    higher = (scores > own).sum(axis=1)
    equal = (scores == own).sum(axis=1) - 1
    if (equal < 0).any() or np.isnan(scores).any():
        raise ValueError("A model scored a product NaN; scores must be numbers, or -inf to leave a product out.")
    return 1 + higher + (equal + 1) // 2


def hit_rate(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 where the target is among the first k, else 0 (the mean is HR@K); float64, shape of `ranks`."""
    return (ranks <= k).astype(float)


def reciprocal_rank(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 / rank where the target is among the first k, else 0 (the mean is MRR@K); float64, shape of `ranks`."""
    return np.where(ranks <= k, 1.0 / ranks, 0.0)


def bootstrap(values: np.ndarray, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Means of `values` over resampled users: float64, shape (draws,) + values.shape[1:].

    All columns of `values` (shape (n,) or (n, columns)) are resampled together, so that differences are paired.
    """
    rng = np.random.default_rng(seed)
    n = len(values)
    means = np.empty((draws, *values.shape[1:]))
    for draw in range(draws):  # how often each user is drawn, as weights: no copy of the values
        weights = np.bincount(rng.integers(n, size=n), minlength=n)
        means[draw] = weights @ values / n
    return means


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval over users of the mean of `values`, shape (n,)."""
    low, high = np.quantile(bootstrap(values, seed=seed), [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Evaluation:
    """One model on one set of examples.

    Attributes
    ----------
    ranks : ndarray of int64, shape (n,)
        Among all products.
    ranks_new : ndarray of int64, shape (n,)
        Among the products that the user had not seen; 0 where the target itself had been seen.
    top : ndarray of int32, shape (n, 20)
        The recommended products, best first; ties by product number.
    top_scores : ndarray of float32, shape (n, 20)
    """

    ranks: np.ndarray
    ranks_new: np.ndarray
    top: np.ndarray
    top_scores: np.ndarray


def evaluate(model: Model, examples: Examples, block: int = 512) -> Evaluation:
    """Score all products for each example, a block of examples at a time, and keep only what the metrics need.

    Parameters
    ----------
    model : callable
        See `Model`.
    examples : Examples
    block : int
        Examples scored at once; memory is about 3 × block × n_products floats.
    """
    parts: list[tuple] = []
    for first in range(0, len(examples), block):
        part = examples[first : first + block]
        scores = np.array(model(part), dtype=np.float32)  # a copy: seen products are struck out below
        best, best_scores = top_k(scores, max(CUTOFFS))
        rank = ranks(scores, part.target)
        positions, offsets = part.flat()
        scores[np.repeat(np.arange(len(part)), part.lengths), part.items[positions]] = -np.inf
        new = ~part.seen()
        rank_new = np.zeros(len(part), dtype=np.int64)
        rank_new[new] = ranks(scores[new], part.target[new])
        parts.append((rank, rank_new, best, best_scores))
    return Evaluation(*(np.concatenate(column) for column in zip(*parts)))


def top_k(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best products of each row, best first, ties by product number; int32 and float32, shape (n, min(k, M))."""
    k = min(k, scores.shape[1])
    # argpartition breaks ties as it likes: take all that reach the k-th best score, in order of product number.
    kth = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
    index = np.empty((len(scores), k), dtype=np.int32)
    for row, (values, least) in enumerate(zip(scores, kth)):
        candidates = np.flatnonzero(values >= least)
        index[row] = candidates[np.argsort(-values[candidates], kind="stable")[:k]]
    return index, np.take_along_axis(scores, index, axis=1)


def summary(rank: np.ndarray, seed: int = 0) -> dict:
    """HR@K and MRR@K of one model with 95 % bootstrap intervals over users, in the layout of ``metrics.json``."""
    columns = {f"hit_rate@{k}": hit_rate(rank, k) for k in CUTOFFS} | {
        f"mrr@{k}": reciprocal_rank(rank, k) for k in CUTOFFS
    }
    values = np.stack(list(columns.values()), axis=1)
    low, high = np.quantile(bootstrap(values, seed=seed), [0.025, 0.975], axis=0)
    means = values.mean(axis=0)
    return {name: float(mean) for name, mean in zip(columns, means)} | {
        "ci95": {name: [float(a), float(b)] for name, a, b in zip(columns, low, high)}
    }


def difference(rank: np.ndarray, other: np.ndarray, k: int = 20, seed: int = 0) -> dict:
    """Paired gain in MRR@K of one model over another on the same examples, absolute, with its 95 % interval."""
    gain = reciprocal_rank(rank, k) - reciprocal_rank(other, k)
    low, high = interval(gain, seed)
    return {"gain": float(gain.mean()), "ci95": [low, high]}


def tidy(results: Mapping[str, Mapping], metrics: Sequence[str] = ("hit_rate@20", "mrr@20")) -> pd.DataFrame:
    """Results in the layout of ``metrics.json`` as rows: model, metric, value, lo, hi (the 95 % interval)."""
    rows = [
        {"model": model, "metric": metric, "value": found[metric]} | dict(zip(("lo", "hi"), found["ci95"][metric]))
        for model, found in results.items()
        for metric in metrics
    ]
    return pd.DataFrame(rows, columns=["model", "metric", "value", "lo", "hi"])


def rank_all(model: Model, examples: Examples, block: int = 512) -> np.ndarray:
    """Ranks of all targets among all products, a block of examples at a time; int64, shape (n,)."""
    blocks = (examples[first : first + block] for first in range(0, len(examples), block))
    return np.concatenate([ranks(model(part), part.target) for part in blocks])


def sweep(
    models: Mapping[str, Callable[..., Model]], decays: Iterable[float], decay_times: Iterable[str], examples: Examples
) -> pd.DataFrame:
    """Every model at every decay, counted in every way, on the same examples.

    Parameters
    ----------
    models : mapping of name to callable
        Each makes a `Model` from the keywords `decay` and `decay_time`.
    decays : iterable of float
    decay_times : iterable of str
        See `shelfspace.users.ages`.
    examples : Examples
        The valid ones, when the decay is chosen by them.

    Returns
    -------
    DataFrame
        model, decay, decay_time, hit_rate@20, mrr@20, and their intervals: hit_rate@20_lo, hit_rate@20_hi, …
    """
    rows = []
    for name, decay_time, decay in itertools.product(models, decay_times, decays):
        found = summary(rank_all(models[name](decay=decay, decay_time=decay_time), examples))
        row = {"model": name, "decay": float(decay), "decay_time": decay_time}
        for metric in ("hit_rate@20", "mrr@20"):
            row[metric] = found[metric]
            row[f"{metric}_lo"], row[f"{metric}_hi"] = found["ci95"][metric]
        rows.append(row)
    return pd.DataFrame(rows)


def catalogue_coverage(top: np.ndarray, n_products: int) -> float:
    """Share of all products that anybody is recommended: distinct products in `top`, shape (n, k), by `n_products`."""
    return len(np.unique(top)) / n_products


def parts(examples: Examples, counts: np.ndarray, event_names: Sequence[str]) -> dict[tuple[str, str], np.ndarray]:
    """Ways to cut the examples, as masks of shape (n,), by (cut, group).

    Parameters
    ----------
    examples : Examples
    counts : ndarray, shape (n_products,)
        Training visits of each product. The popular products make up the first third of all visits, the rare ones the
        last third.
    event_names : sequence of str
        Names of the event codes.
    """
    counts, lengths, seen = np.asarray(counts), examples.lengths, examples.seen()
    order = np.argsort(-counts, kind="stable")
    share = np.empty(len(order))
    share[order] = np.cumsum(counts[order]) / max(1, counts.sum())
    of_target = share[examples.target]
    found = {
        ("history", "up to 5 visits"): lengths <= 5,
        ("history", "6 to 15 visits"): (lengths > 5) & (lengths <= 15),
        ("history", "over 15 visits"): lengths > 15,
        ("target", "popular"): of_target <= 1 / 3,
        ("target", "middling"): (of_target > 1 / 3) & (of_target <= 2 / 3),
        ("target", "rare"): of_target > 2 / 3,
    }
    for code, name in enumerate(event_names):
        found["event of the target", name] = examples.target_event == code
    return found | {("target and user", "seen before"): seen, ("target and user", "new"): ~seen}


def slices(evaluations: Mapping[str, Evaluation], masks: Mapping[tuple[str, str], np.ndarray], least: int = 20) -> dict:
    """HR@20 and MRR@20 of every model on parts of the examples, in the layout of ``metrics.json``.

    Parameters
    ----------
    evaluations : mapping of model name to Evaluation
    masks : mapping of (cut, group) to ndarray of bool, shape (n,)
        From `parts`.
    least : int
        Parts with fewer examples are left out.
    """
    found = {}
    for (cut, group), mask in masks.items():
        if mask.sum() < least:
            continue
        models = {}
        for model, evaluation in evaluations.items():
            whole = summary(evaluation.ranks[mask])
            models[model] = {key: whole[key] for key in ("hit_rate@20", "mrr@20")} | {
                "ci95": {key: whole["ci95"][key] for key in ("hit_rate@20", "mrr@20")}
            }
        found[f"{cut}: {group}"] = {"cut": cut, "group": group, "n": int(mask.sum()), "models": models}
    return found
