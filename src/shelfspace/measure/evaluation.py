"""How good are recommendations? Hit rate and mean reciprocal rank, every model on the same targets and candidates.

Rules that hold for every number of the report: all products are candidates, those that the user already saw too; a
second set of ranks leaves the seen ones out. What a rank is, ties included, is in `shelfspace.measure.ranking`.

Users x products is never in memory: `evaluate` scores a block of users, and ranks it while it is still in the cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from shelfspace.measure import intervals, ranking
from shelfspace.measure.intervals import TEST_DRAWS
from shelfspace.measure.ranking import CUTOFFS, Model
from shelfspace.sequences.arrays import Examples

K = TypeVar("K")
Measure = Callable[[np.ndarray, int], np.ndarray]


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
    log_total : ndarray of float32, shape (n,), optional
        Logarithm of the sum of exp(score) over all products, where it was asked for: exp(score - log_total) is a
        softmax's probability.
    """

    ranks: np.ndarray
    ranks_new: np.ndarray
    top: np.ndarray
    top_scores: np.ndarray
    log_total: np.ndarray | None = None


def evaluate(model: Model, examples: Examples, block: int = 64, *, probabilities: bool = False, threads: int | None = None) -> Evaluation:
    """Score all products for each example, a block of examples at a time, and keep only what the metrics need.

    The result is the same to the bit for any number of threads (`in_blocks`).

    Parameters
    ----------
    model : callable
        See `Model`.
    examples : Examples
    block : int
        Examples scored at once; memory is about threads x block x n_products floats, and what the model needs itself.
    probabilities : bool
        Also keep `Evaluation.log_total`.
    threads : int, optional
        None: one per core, at most four.

    Raises
    ------
    ValueError
        If a score is NaN.
    """

    def one(part: Examples) -> tuple:
        scores = np.asarray(model(part), dtype=np.float32)
        positions, offsets = part.flat()
        found = ranking.read(scores, part.target, part.items[positions], offsets, max(CUTOFFS))
        return (*found, logsumexp(scores, axis=1)) if probabilities else found

    return Evaluation(*(np.concatenate(column) for column in zip(*ranking.in_blocks(one, examples, block, threads))))


def save(path: str | Path, evaluations: Mapping[str, Evaluation]) -> None:
    """Write evaluations, each by its name, to an ``.npz`` file."""
    arrays = {f"{name}/{field}": value for name, of in evaluations.items() for field, value in vars(of).items() if value is not None}
    np.savez(path, **arrays)


def load(path: str | Path) -> dict[str, Evaluation]:
    """Read what `save` wrote."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as stored:
        for key in stored.files:
            name, _, field = key.rpartition("/")
            found.setdefault(name, {})[field] = stored[key]
    return {name: Evaluation(**fields) for name, fields in found.items()}


def summary(rank: np.ndarray, owners: np.ndarray | None = None, seed: int = 0, cutoffs: Sequence[int] = CUTOFFS) -> dict:
    """HR@K and MRR@K of one model with 95 % bootstrap intervals, in the layout of ``metrics.json``.

    Parameters
    ----------
    rank : ndarray of int, shape (n,)
    owners : ndarray, shape (n,), optional
        Who is drawn: the customers, such as `Examples.user_ids`; None: each example is its own.
    seed : int
    cutoffs : sequence of int
        Each K.
    """
    names = [(f"hit_rate@{k}", ranking.hit_rate, k) for k in cutoffs] + [(f"mrr@{k}", ranking.reciprocal_rank, k) for k in cutoffs]
    values = np.stack([measure(rank, k) for _, measure, k in names], axis=1)
    low, high = np.quantile(intervals.bootstrap(values, owners, seed=seed), [0.025, 0.975], axis=0)
    return {name: float(mean) for (name, *_), mean in zip(names, values.mean(axis=0))} | {
        "ci95": {name: [float(a), float(b)] for (name, *_), a, b in zip(names, low, high)}
    }


def difference(
    rank: np.ndarray, other: np.ndarray, owners: np.ndarray | None = None, *, measure: Measure = ranking.reciprocal_rank, **given
) -> dict:
    """The paired test of one model against another, by MRR where no other measure is given; the rest as `differences` takes it."""
    return differences({"": (rank, other, measure)}, owners, **given)[""]


def differences(
    pairs: Mapping[K, tuple[np.ndarray, np.ndarray, Measure]],
    owners: np.ndarray | None = None,
    *,
    k: int = 20,
    seed: int = 0,
    comparisons: int = 1,
) -> dict[K, dict]:
    """Paired tests of models against others on the same examples, by a bootstrap over owners that draws them once for all tests.

    Parameters
    ----------
    pairs : mapping of name to (rank, other, measure)
        Ranks of the two models, each an ndarray of int, shape (n,), and what is compared: `ranking.reciprocal_rank` or `ranking.hit_rate`.
    owners : ndarray, shape (n,), optional
        See `summary`.
    k : int
        The first so many ranks count.
    seed : int
    comparisons : int
        How many such differences are told at once.

    Returns
    -------
    dict of name to dict
        "gain": mean difference in the measure, absolute. "ci95": its interval at the level 1 - 0.05 / comparisons, so that all
        of those told at once hold together in 95 % of repeats (Bonferroni). "p": two-sided p-value of this one test, twice
        the share of draws on the other side of zero (Efron & Tibshirani 1993), never below 2 / (draws + 1). "p_is_bound":
        whether it is that least value, so that p says "at most".
    """
    if not pairs:
        return {}
    gains = np.stack([measure(rank, k) - measure(other, k) for rank, other, measure in pairs.values()], axis=1)
    means = intervals.bootstrap(gains, owners, TEST_DRAWS, seed)
    beyond = np.minimum((means <= 0).sum(axis=0), (means >= 0).sum(axis=0))
    bounds = np.quantile(means, [0.025 / comparisons, 1 - 0.025 / comparisons], axis=0)
    p = np.minimum(1.0, 2 * (1 + beyond) / (1 + len(means)))
    return {
        name: {"gain": float(gain), "ci95": [float(low), float(high)], "p": float(of), "p_is_bound": bool(many == 0)}
        for name, gain, low, high, of, many in zip(pairs, gains.mean(axis=0), *bounds, p, beyond)
    }


COLUMNS = {"all": "all", "seen": "seen before", "discovery": "discovery"}
"""The three columns of every table of models, and their heads. "seen": targets that stand in the history, among all products.
"discovery": targets that do not, with the products of the history taken out of the candidates."""


def cut(evaluation: Evaluation, seen: np.ndarray) -> dict[str, np.ndarray]:
    """The ranks of each of `COLUMNS`, given which targets were seen before (`Examples.seen`)."""
    return {"all": evaluation.ranks, "seen": evaluation.ranks[seen], "discovery": evaluation.ranks_new[~seen]}


def _owners(examples: Examples, seen: np.ndarray) -> dict[str, np.ndarray]:
    return {"all": examples.user_ids, "seen": examples.user_ids[seen], "discovery": examples.user_ids[~seen]}


def columns(evaluation: Evaluation, examples: Examples, seed: int = 0) -> dict[str, dict | None]:
    """A `summary` with its number of targets "n" for each of `COLUMNS`, drawn over customers; None where it has no target."""
    seen = examples.seen()
    owners = _owners(examples, seen)
    return {key: summary(rank, owners[key], seed) | {"n": len(rank)} if len(rank) else None for key, rank in cut(evaluation, seen).items()}


def figures(evaluation: Evaluation, examples: Examples) -> dict[str, dict | None]:
    """HR@20 and MRR@20 alone for each of `COLUMNS`: what is chosen by on the valid users; None where it has no target."""
    return {
        key: {"hit_rate@20": float(ranking.hit_rate(rank, 20).mean()), "mrr@20": float(ranking.reciprocal_rank(rank, 20).mean())}
        if len(rank)
        else None
        for key, rank in cut(evaluation, examples.seen()).items()
    }


def chosen(valid: Mapping[str, Mapping], names: Sequence[str], column: str = "all") -> list[str]:
    """Models by their MRR@20 on the valid users (`figures` of each), the best first; equals in the given order.

    Without a valid target in that column, those of all targets decide.
    """
    return sorted(names, key=lambda name: -(valid[name][column] or valid[name]["all"])["mrr@20"])


def against_baselines(
    evaluations: Mapping[str, Evaluation], valid: Mapping[str, Mapping], baselines: Sequence[str], examples: Examples, seed: int = 0
) -> dict[str, dict]:
    """Each model against the best baseline of each of `COLUMNS`, which the valid users chose; in the layout of ``metrics.json``.

    Parameters
    ----------
    evaluations : mapping of model name to Evaluation
        Of the test examples.
    valid : mapping of model name to figures
        See `figures`.
    baselines : sequence of str
        Names of those that are baselines.
    examples : Examples
        The test ones.
    seed : int

    Returns
    -------
    dict of column to dict
        "n" targets of so many "customers"; "baseline"; "comparisons", how many differences each measure has in all columns;
        "paired": for each other model a `difference` in "mrr@20" and "hit_rate@20", corrected for these, with "p_holm".
        Columns without a target are left out.
    """
    seen = examples.seen()
    owners = {key: of for key, of in _owners(examples, seen).items() if len(of)}
    comparisons = len(owners) * (len(evaluations) - 1)
    found = {}
    for key, of in owners.items():
        best = chosen(valid, baselines, key)[0]
        ranks = {name: cut(evaluation, seen)[key] for name, evaluation in evaluations.items()}
        tests = differences(
            {(name, metric): (rank, ranks[best], measure) for name, rank in ranks.items() if name != best for metric, measure in MEASURES.items()},
            of, seed=seed, comparisons=comparisons,
        )  # fmt: skip
        paired = {name: {metric: tests[name, metric] for metric in MEASURES} for name in ranks if name != best}
        found[key] = {
            "n": len(of), "customers": len(np.unique(of)), "baseline": best, "comparisons": comparisons, "paired": paired,
        }  # fmt: skip
    for metric in MEASURES:
        tests = [one[metric] for column in found.values() for one in column["paired"].values()]
        intervals.correct(tests)
    return found


MEASURES = {"mrr@20": ranking.reciprocal_rank, "hit_rate@20": ranking.hit_rate}


def tidy(results: Mapping[str, Mapping], metrics: Sequence[str] = ("hit_rate@20", "mrr@20")) -> pd.DataFrame:
    """Results in the layout of ``metrics.json`` as rows: model, metric, value, lo, hi (the 95 % interval)."""
    rows = [
        {"model": model, "metric": metric, "value": found[metric]} | dict(zip(("lo", "hi"), found["ci95"][metric]))
        for model, found in results.items()
        for metric in metrics
    ]
    return pd.DataFrame(rows, columns=["model", "metric", "value", "lo", "hi"])


def sweep(
    models: Mapping[str, Callable[..., Model]], grids: Mapping[str, Mapping[str, Sequence]], examples: Examples
) -> tuple[pd.DataFrame, dict[str, dict]]:
    """Every model with all combinations of its settings on the same examples, and the best settings by MRR@20.

    Parameters
    ----------
    models : mapping of name to callable
        Each makes a `Model` from the keywords of its grid.
    grids : mapping of name to mapping of keyword to values
        What to try.
    examples : Examples
        The valid ones, when a setting is chosen by them.

    Returns
    -------
    table : DataFrame
        model, the settings (missing where a model has no such), hit_rate@20, mrr@20, and their intervals:
        hit_rate@20_lo, hit_rate@20_hi, …
    best : dict of name to dict
        Settings of the highest MRR@20 of each model; the first of equals.
    """
    rows, best = [], {}
    for name, grid in grids.items():
        top = -1.0
        for values in itertools.product(*grid.values()):
            settings = dict(zip(grid, values))
            found = summary(evaluate(models[name](**settings), examples).ranks, examples.user_ids)
            row = {"model": name} | settings
            for metric in ("hit_rate@20", "mrr@20"):
                row[metric] = found[metric]
                row[f"{metric}_lo"], row[f"{metric}_hi"] = found["ci95"][metric]
            rows.append(row)
            if found["mrr@20"] > top:
                top, best[name] = found["mrr@20"], settings
    return pd.DataFrame(rows), best


def save_sweep(path: str | Path, models: Mapping, grids: Mapping, examples: Examples) -> dict[str, dict]:
    """`sweep`, whose table is written to a Parquet file and whose best settings are returned: for `shelfspace.files.run_files.once`."""
    table, best = sweep(models, grids, examples)
    table.to_parquet(path, index=False)
    return best


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


def slices(
    evaluations: Mapping[str, Evaluation],
    masks: Mapping[tuple[str, str], np.ndarray],
    owners: np.ndarray | None = None,
    least: int = 20,
) -> dict:
    """HR@20 and MRR@20 of every model on parts of the examples, in the layout of ``metrics.json``.

    Parameters
    ----------
    evaluations : mapping of model name to Evaluation
    masks : mapping of (cut, group) to ndarray of bool, shape (n,)
        From `parts`.
    owners : ndarray, shape (n,), optional
        See `summary`.
    least : int
        Parts with fewer examples are left out.
    """
    found = {}
    for (cut, group), mask in masks.items():
        if mask.sum() < least:
            continue
        of = None if owners is None else owners[mask]
        models = {model: summary(evaluation.ranks[mask], of, cutoffs=[20]) for model, evaluation in evaluations.items()}
        found[f"{cut}: {group}"] = {"cut": cut, "group": group, "n": int(mask.sum()), "models": models}
    return found
