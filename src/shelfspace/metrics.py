"""How good are recommendations? Hit rate and mean reciprocal rank, every model on the same targets and candidates.

Rules that hold for every number of the report: all products are candidates, those that the user already saw too; a
second set of ranks leaves the seen ones out. Ties share the places they take: a target's rank is 1 + the number of
products scored strictly higher + half of the others scored equal, rounded up.

Users x products is never in memory: `evaluate` scores a block of users, and one compiled pass over each row counts what
is above the target and picks the best products, while the row is still in the cache.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba as nb
import numpy as np
import pandas as pd
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

from shelfspace.embeddings import normalise
from shelfspace.sequences import Examples

Model = Callable[[Examples], np.ndarray]
"""Scores of all products for each example: float array of shape (len(examples), n_products), higher is better. It may be
called from several threads at once."""

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
    return _read(scores, targets, *_nothing_seen(len(targets)), k=1)[0]


def top_k(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best products of each row, best first, ties by product number; int32 and float, shape (n, min(k, M)).

    Scores must be as in `ranks`.
    """
    return _read(scores, np.zeros(len(scores), np.int32), *_nothing_seen(len(scores)), k=k)[2:]


def _nothing_seen(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(0, dtype=np.int32), np.zeros(n + 1, dtype=np.int64)


def _read(scores: np.ndarray, targets: np.ndarray, seen: np.ndarray, offsets: np.ndarray, k: int):
    """Ranks, ranks without seen products, best products and their scores of a block; see `_pass` and `Evaluation`."""
    kind = np.float32 if scores.dtype == np.float32 else np.float64
    scores = np.require(scores, kind, ("C", "W"))
    targets = targets.astype(np.int32, copy=False)
    n, n_products = scores.shape
    if n != len(targets) or any(places.size and not 0 <= places.min() <= places.max() < n_products for places in (targets, seen)):
        raise ValueError(
            f"A model scored {n:,} examples and {n_products:,} products; these are other examples, or they name products outside the table."
        )
    k = min(k, n_products)
    rank, rank_new = np.empty(n, np.int64), np.empty(n, np.int64)
    top, top_scores = np.empty((n, k), np.int32), np.empty((n, k), kind)
    if not _pass(scores, targets, seen, offsets, rank, rank_new, top, top_scores):
        raise ValueError("A model scored a product NaN; scores must be numbers, or -inf to leave a product out.")
    return rank, rank_new, top, top_scores


LANES = 512  # lane i of a row is every 512th score from the i-th on; the largest of each comes cheap


@nb.njit(nogil=True, cache=True)
def _pass(scores, targets, seen, offsets, rank, rank_new, top, top_scores):
    """Fill the last four arrays, row by row; False if a score is NaN. Without the GIL, for threads."""
    n, n_products = scores.shape
    seen_by = np.full(n_products, -1, dtype=np.int32)
    largest = np.empty(min(LANES, n_products), dtype=scores.dtype)
    for row in range(n):
        line, target = scores[row], targets[row]
        own = line[target]
        lower, equal, above = _scan(line, own, largest)
        if lower + equal + above != n_products:
            return False
        equal -= 1
        rank[row] = 1 + above + (equal + 1) // 2
        for item in seen[offsets[row] : offsets[row + 1]]:
            if seen_by[item] != row:  # each product once
                seen_by[item] = row
                above -= line[item] > own
                equal -= line[item] == own
        rank_new[row] = 0 if seen_by[target] == row else 1 + above + (equal + 1) // 2
        _best(line, largest, top[row], top_scores[row])
    return True


@nb.njit(nogil=True, cache=True)
def _scan(line, own, largest):
    """How many scores are lower than, equal to, and above `own`; fills in the largest score of each lane."""
    lanes, n = len(largest), len(line)
    lower, equal, above = 0, 0, 0
    largest[:] = -np.inf
    for first in range(0, n - n % lanes, lanes):
        part = line[first : first + lanes]
        for i in range(lanes):  # by index, so that it becomes vector code
            lower += part[i] < own
            equal += part[i] == own
            above += part[i] > own
            largest[i] = part[i] if part[i] > largest[i] else largest[i]
    for i in range(n % lanes):
        score = line[n - n % lanes + i]
        lower += score < own
        equal += score == own
        above += score > own
        largest[i] = max(score, largest[i])
    return lower, equal, above


@nb.njit(nogil=True, cache=True)
def _best(line, largest, index, value):
    """The best of a row in order. A lane whose largest score is below the k-th of the largest ones holds none of them."""
    k, size = len(index), 0
    for lane in range(len(largest)):
        if size < k or largest[lane] > value[k - 1]:
            size = _insert(largest[lane], lane, index, value, size)
    least, size = value[size - 1] if size == k else -np.inf, 0
    for lane in range(len(largest)):
        if largest[lane] >= least:
            for place in range(lane, len(line), len(largest)):
                if line[place] >= least:
                    size = _insert(line[place], place, index, value, size)


@nb.njit(nogil=True, cache=True)
def _insert(score, place, index, value, size):
    """Put a score into a sorted list of at most k, equal ones by place; the new size."""
    k = len(index)
    at = size
    while at > 0 and (value[at - 1] < score or value[at - 1] == score and index[at - 1] > place):
        at -= 1
    if at == k:
        return size
    size = min(size + 1, k)
    for i in range(size - 1, at, -1):
        index[i], value[i] = index[i - 1], value[i - 1]
    index[at], value[at] = place, score
    return size


def hit_rate(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 where the target is among the first k, else 0 (the mean is HR@K); float64, shape of `ranks`."""
    return (ranks <= k).astype(float)


def reciprocal_rank(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 / rank where the target is among the first k, else 0 (the mean is MRR@K); float64, shape of `ranks`."""
    return np.where(ranks <= k, 1.0 / ranks, 0.0)


DRAWS, TEST_DRAWS, GROUPS = 1000, 10_000, 2000
"""Draws of the bootstrap for an interval, and for a paired test, whose p must be small enough to be corrected for many
tests; and the most owners that are drawn one by one."""


def bootstrap(values: np.ndarray, owners: np.ndarray | None = None, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Means over examples when their owners are drawn with replacement, each with all of its examples.

    Examples of one customer are alike, so a draw of examples would make intervals too narrow (Field and Welsh 2007). The mean of
    a draw is a ratio: the sum over the drawn owners, by the number of their examples. Owners with the same sum and number are
    drawn together, by a multinomial, where they are few kinds. Otherwise more than `GROUPS` owners are first put together at
    random into that many groups, which are drawn instead: the mean varies by as much.

    Parameters
    ----------
    values : ndarray, shape (n,) or (n, columns)
        The columns of an example are drawn together.
    owners : ndarray, shape (n,), optional
        Whose each example is, such as `Examples.user_ids`; None: each example is its own.
    draws : int
    seed : int

    Returns
    -------
    ndarray of float64, shape (draws,) + values.shape[1:]
    """
    rng = np.random.default_rng(seed)
    flat = np.asarray(values, dtype=float).reshape(len(values), -1)
    sums = _per_owner(np.column_stack([flat, np.ones(len(flat))]), owners)
    distinct, many = np.unique(sums, axis=0, return_counts=True)
    n = len(sums)
    if 8 * len(distinct) < n or len(distinct) == 1:  # a binomial takes about as long as eight owners drawn one by one
        drawn = rng.multinomial(n, many / n, size=draws) @ distinct
    else:
        if n > GROUPS:
            sums = _per_owner(sums, rng.permutation(n) % GROUPS)
            n = GROUPS
        block = max(1, 2_000_000 // n)
        drawn = np.concatenate([_draw(rng, sums, min(block, draws - first)) for first in range(0, draws, block)])
    return (drawn[:, :-1] / drawn[:, -1:]).reshape((draws, *np.shape(values)[1:]))


def _per_owner(rows: np.ndarray, owners: np.ndarray | None) -> np.ndarray:
    """The rows of each owner added up, shape (n_owners, columns), in the order of the owners' names."""
    if owners is None:
        return rows
    codes, names = pd.factorize(np.asarray(owners), sort=True)
    return np.stack([np.bincount(codes, column, len(names)) for column in rows.T], axis=1)


def _draw(rng: np.random.Generator, sums: np.ndarray, draws: int) -> np.ndarray:
    """Sums over as many rows as there are, drawn with replacement, so many times."""
    n = len(sums)
    places = rng.integers(n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(places.reshape(-1), minlength=draws * n).reshape(draws, n) @ sums


def interval(values: np.ndarray, owners: np.ndarray | None = None, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of `values`, shape (n,), over their `owners` (see `bootstrap`)."""
    low, high = np.quantile(bootstrap(values, owners, seed=seed), [0.025, 0.975])
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
    log_total : ndarray of float32, shape (n,), optional
        Logarithm of the sum of exp(score) over all products, where it was asked for: exp(score - log_total) is a
        softmax's probability.
    """

    ranks: np.ndarray
    ranks_new: np.ndarray
    top: np.ndarray
    top_scores: np.ndarray
    log_total: np.ndarray | None = None


def in_blocks(work: Callable[[Examples], tuple], examples: Examples, block: int = 64, threads: int | None = None) -> Iterator[tuple]:
    """What `work` makes of each block of examples, in order; a few blocks at a time, so that little waits to be taken.

    Each thread works on blocks of its own, with BLAS held to one thread, so that the result is the same to the bit for any
    number of them.

    Parameters
    ----------
    work : callable
        It may be called from several threads at once.
    examples : Examples
    block : int
        Examples in each.
    threads : int, optional
        None: one per core, at most four.
    """
    threads = threads or min(4, os.cpu_count() or 1)
    starts = range(0, len(examples), block)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(starts), 16 * threads):
            yield from pool.map(lambda start: work(examples[start : start + block]), starts[first : first + 16 * threads])


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
        found = _read(scores, part.target, part.items[positions], offsets, max(CUTOFFS))
        return (*found, logsumexp(scores, axis=1)) if probabilities else found

    return Evaluation(*(np.concatenate(column) for column in zip(*in_blocks(one, examples, block, threads))))


def summary(rank: np.ndarray, owners: np.ndarray | None = None, seed: int = 0) -> dict:
    """HR@K and MRR@K of one model with 95 % bootstrap intervals, in the layout of ``metrics.json``.

    Parameters
    ----------
    rank : ndarray of int, shape (n,)
    owners : ndarray, shape (n,), optional
        Who is drawn: the customers, such as `Examples.user_ids`; None: each example is its own.
    seed : int
    """
    names = [(f"hit_rate@{k}", hit_rate, k) for k in CUTOFFS] + [(f"mrr@{k}", reciprocal_rank, k) for k in CUTOFFS]
    values = np.stack([measure(rank, k) for _, measure, k in names], axis=1)
    low, high = np.quantile(bootstrap(values, owners, seed=seed), [0.025, 0.975], axis=0)
    return {name: float(mean) for (name, *_), mean in zip(names, values.mean(axis=0))} | {
        "ci95": {name: [float(a), float(b)] for (name, *_), a, b in zip(names, low, high)}
    }


def difference(
    rank: np.ndarray,
    other: np.ndarray,
    owners: np.ndarray | None = None,
    k: int = 20,
    seed: int = 0,
    measure: Callable[[np.ndarray, int], np.ndarray] = reciprocal_rank,
    comparisons: int = 1,
) -> dict:
    """Paired test of one model against another on the same examples, by bootstrap over owners.

    Parameters
    ----------
    rank, other : ndarray of int, shape (n,)
        Of the two models.
    owners : ndarray, shape (n,), optional
        See `summary`.
    k : int
        The first so many ranks count.
    seed : int
    measure : {reciprocal_rank, hit_rate}
        What is compared.
    comparisons : int
        How many such differences are told at once.

    Returns
    -------
    dict
        "gain": mean difference in the measure, absolute. "ci95": its interval at the level 1 - 0.05 / comparisons, so that all
        of those told at once hold together in 95 % of repeats (Bonferroni). "p": two-sided p-value of this one test, twice
        the share of draws on the other side of zero (Efron & Tibshirani 1993), never below 2 / (draws + 1). "p_is_bound":
        whether it is that least value, so that p says "at most".
    """
    gain = measure(rank, k) - measure(other, k)
    means = bootstrap(gain, owners, TEST_DRAWS, seed)
    beyond = min((means <= 0).sum(), (means >= 0).sum())
    low, high = np.quantile(means, [0.025 / comparisons, 1 - 0.025 / comparisons])
    p = min(1.0, 2 * (1 + beyond) / (1 + len(means)))
    return {"gain": float(gain.mean()), "ci95": [float(low), float(high)], "p": float(p), "p_is_bound": bool(beyond == 0)}


def holm(p: Sequence[float]) -> np.ndarray:
    """P-values adjusted for all of them being told at once (Holm 1979), in the given order; at most 1.

    The least p counts as often as there are tests, the next once less, and none less than the one before it: an adjusted p
    below 0.05 keeps the chance of any false finding among them below 5 %.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def clear(found: Mapping) -> bool:
    """Whether a `difference` is beyond chance: its interval leaves out 0. Otherwise no difference is shown, which is not
    that there is none."""
    return found["ci95"][0] > 0 or found["ci95"][1] < 0


def p_text(found: Mapping, key: str = "p_holm") -> str:
    """The p of a `difference` as a table shows it: "0.031", or "≤ 0.0066" where the draws could not show a smaller one."""
    return f"≤ {found[key]:.2g}" if found["p_is_bound"] else f"{found[key]:.3f}"


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
        key: {"hit_rate@20": float(hit_rate(rank, 20).mean()), "mrr@20": float(reciprocal_rank(rank, 20).mean())} if len(rank) else None
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
        paired = {
            name: {
                metric: difference(rank, ranks[best], of, seed=seed, measure=measure, comparisons=comparisons)
                for metric, measure in MEASURES.items()
            }
            for name, rank in ranks.items()
            if name != best
        }
        found[key] = {
            "n": len(of), "customers": len(np.unique(of)), "baseline": best, "comparisons": comparisons, "paired": paired,
        }  # fmt: skip
    for metric in MEASURES:
        tests = [one[metric] for column in found.values() for one in column["paired"].values()]
        correct(tests)
    return found


def correct(tests: Sequence[dict]) -> None:
    """Give each `difference` of those told at once its "p_holm"."""
    for test, p in zip(tests, holm([test["p"] for test in tests])):
        test["p_holm"] = float(p)


MEASURES = {"mrr@20": reciprocal_rank, "hit_rate@20": hit_rate}


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


def catalogue_coverage(top: np.ndarray, n_products: int) -> float:
    """Share of all products that anybody is recommended: distinct products in `top`, shape (n, k), by `n_products`."""
    return len(np.unique(top)) / n_products


def gini(top: np.ndarray, n_products: int) -> float:
    """How unevenly recommendations fall on the products: 0 all alike, towards 1 all on one (Gini coefficient).

    `top`, of shape (n, k), holds the recommended products; those that nobody is recommended count too.
    """
    shown = np.sort(np.bincount(top.reshape(-1), minlength=n_products))
    place = 2 * np.arange(1, n_products + 1) - n_products - 1
    return float(place @ shown / (n_products * shown.sum()))


def novelty(top: np.ndarray, counts: np.ndarray) -> float:
    """How little known what is recommended is: mean self-information -log2(share of training visits), in bits.

    Zhou et al. (2010). `top`, of shape (n, k), holds the recommended products, `counts`, of shape (n_products,), the
    training visits of each; a product without any counts as visited once.
    """
    known = np.maximum(counts, 1)
    return float(-np.log2(known / known.sum())[top].mean())


def intra_list_diversity(top: np.ndarray, vectors: np.ndarray, block: int = 4096) -> float:
    """How different the products in one list are: 1 - mean cosine of all pairs, averaged over lists (Ziegler et al. 2005).

    Parameters
    ----------
    top : ndarray of int, shape (n, k)
        The recommended products.
    vectors : ndarray of float32, shape (n_products, dim)
        Embeddings by which products are alike. Rows of zeros (products without one) are left out of their lists, and
        lists with fewer than two others out of the mean.
    block : int
        Lists at once; memory is block x k x dim floats.

    Returns
    -------
    float
        NaN if there is no pair.
    """
    unit = normalise(vectors)
    known = vectors.any(axis=1)
    total, lists = 0.0, 0
    for first in range(0, len(top), block):
        part = top[first : first + block]
        size = known[part].sum(axis=1)
        alike = (unit[part].sum(axis=1, dtype=np.float64) ** 2).sum(axis=1) - size  # twice the sum over pairs
        usable = size > 1
        total += (1 - alike[usable] / (size * (size - 1))[usable]).sum()
        lists += usable.sum()
    return float(total / lists) if lists else float("nan")


def calibration(evaluation: Evaluation, targets: np.ndarray, bins: int = 10) -> tuple[pd.DataFrame, float]:
    """Is a product that is given 20 % the target in 20 % of cases? For models whose scores are logits of a softmax.

    Looks at each user's first product: its probability, and whether it was the target. Users are put into bins of equal
    size by this probability, as few products ever get a large one.

    Parameters
    ----------
    evaluation : Evaluation
        With `log_total`.
    targets : ndarray of int, shape (n,)
    bins : int

    Returns
    -------
    table : DataFrame
        Per bin: probability (mean), hits (share), lo, hi (95 % Wilson interval of the share), n.
    error : float
        Expected calibration error, the mean over users of their bin's |hits - probability| (Guo et al. 2017).
    """
    if evaluation.log_total is None:
        raise ValueError("Calibration needs probabilities; evaluate the model with probabilities=True.")
    probability = np.exp(evaluation.top_scores[:, 0].astype(float) - evaluation.log_total)
    hit = evaluation.top[:, 0] == targets
    rows = []
    for members in np.array_split(np.argsort(probability, kind="stable"), min(bins, len(hit))):
        low, high = wilson(hit[members].sum(), len(members))
        rows.append((probability[members].mean(), hit[members].mean(), low, high, len(members)))
    table = pd.DataFrame(rows, columns=["probability", "hits", "lo", "hi", "n"])
    return table, float((table.n * (table.hits - table.probability).abs()).sum() / table.n.sum())


def wilson(hits: float, n: float) -> tuple[float, float]:
    """95 % interval of a share of which `hits` of `n` were seen (Wilson 1927)."""
    z = 1.959964
    centre, spread = hits + z * z / 2, z * np.sqrt(hits * (n - hits) / n + z * z / 4)
    return float((centre - spread) / (n + z * z)), float((centre + spread) / (n + z * z))


def latency(model: Model, examples: Examples, batch: int, repeats: int = 7) -> float:
    """Seconds per user to score all products and pick the best 20, `batch` users at a time: the median of `repeats` batches.

    Depends on the machine and on what else it does, so it is no figure that two runs share. Batches go round the
    examples; the first, untimed, lets the model warm up.
    """
    seconds = []
    for repeat in range(repeats + 1):
        part = examples[np.arange(repeat * batch, (repeat + 1) * batch) % len(examples)]
        started = time.perf_counter()
        top_k(model(part), max(CUTOFFS))
        seconds.append((time.perf_counter() - started) / batch)
    return float(np.median(seconds[1:]))


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
        models = {}
        for model, evaluation in evaluations.items():
            whole = summary(evaluation.ranks[mask], None if owners is None else owners[mask])
            models[model] = {key: whole[key] for key in ("hit_rate@20", "mrr@20")} | {
                "ci95": {key: whole["ci95"][key] for key in ("hit_rate@20", "mrr@20")}
            }
        found[f"{cut}: {group}"] = {"cut": cut, "group": group, "n": int(mask.sum()), "models": models}
    return found
