"""What variants gained over their bases: paired differences with intervals, costs, and a verdict in a sentence."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import pandas as pd

from shelfspace.measure import beyond_accuracy, evaluation, intervals, ranking
from shelfspace.sequences.arrays import EVENT_LEVELS
from shelfspace.trials.variants import Made
from shelfspace.vectors.threads import one_blas_thread

K = TypeVar("K")
MEASURES = {
    "hit_rate@20": "HR@20", "mrr@20": "MRR@20", "next_cart": "HR@20, to the cart", "cold": "HR@20, new products",
    "others": "HR@20, beside new products",
}  # fmt: skip
"""The measures of a variant, by the key under which its gain is kept (`gained`)."""


def measure(made: Mapping[str, Made], hidden: np.ndarray, cold: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, dict]:
    """All `MEASURES` of all models, each with its paired gain over its base; those of new products where they are known.

    Intervals are over customers, and as wide as it takes for those of all switches and measures together to hold in 95 %.

    Parameters
    ----------
    made : mapping of name to Made
    hidden : ndarray of int
        The products without a click in `cold`.
    cold : mapping of name to ndarray of int
        From `cold`.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict of name to dict of measure to dict
        "next_cart" is of the targets that were put in the cart or bought, "cold" of the hidden ones, "others" of the rest
        in their company. Each of a model with a base has "p_holm". "valid" is the MRR@20 of the valid users, by which
        variants are chosen.
    """
    ranks = {name: evaluation.evaluate(one.model, one.test).ranks for name, one in made.items()}
    new = np.isin(made["word2vec"].test.target, hidden)
    asked = {}  # by name and measure: the ranks of both, the metric, and whose they are
    for name, one in made.items():
        base, owners = one.variant.base or name, one.test.user_ids
        cart = one.test.target_event >= EVENT_LEVELS.index("add_to_cart")
        asked |= {(name, metric): (ranks[name], ranks[base], metric, owners) for metric in ("hit_rate@20", "mrr@20")}
        asked[name, "next_cart"] = ranks[name][cart], ranks[base][cart], "hit_rate@20", owners[cart]
        if name in cold:
            for key, part in (("cold", new), ("others", ~new)):
                asked[name, key] = cold[name][part], cold[base][part], "hit_rate@20", owners[part]
    comparisons = max(1, sum(bool(made[name].variant.base) and len(one[0]) > 0 for (name, _), one in asked.items()))
    found: dict[str, dict] = {name: {} for name in made}
    for (name, key), one in gained(asked, seed, comparisons).items():
        found[name][key] = one
    intervals.correct([found[name][key] for name, key in asked if made[name].variant.base and found[name][key]["n"]])
    for name, one in made.items():
        found[name]["valid"] = float(ranking.reciprocal_rank(evaluation.evaluate(one.model, one.valid).ranks, 20).mean())
    return found


def gained(asked: Mapping[K, tuple[np.ndarray, np.ndarray, str, np.ndarray]], seed: int = 0, comparisons: int = 1) -> dict[K, dict]:
    """Means of a metric, and their paired differences to other models' ranks on the same examples, as shares.

    Parameters
    ----------
    asked : mapping of name to (rank, other, metric, owners)
        Ranks of both, "hit_rate@20" or "mrr@20", and over whom the interval is drawn (`shelfspace.measure.intervals.bootstrap`).
    seed : int
        Of the bootstrap.
    comparisons : int
        How many gains are told at once (`shelfspace.measure.evaluation.differences`).

    Returns
    -------
    dict of name to dict
        "value", "n", and "gain", "ci95", "p" and "p_is_bound" of the difference; all but "n" None without examples.
    """
    found: dict[K, dict] = {}
    together: list[tuple[np.ndarray, dict]] = []  # owners, and the tests that are over them
    for name, (rank, other, metric, owners) in asked.items():
        if not len(rank):
            found[name] = {"value": None, "gain": None, "ci95": None, "n": 0}
            continue
        measure = evaluation.MEASURES[metric]
        found[name] = {"value": float(measure(rank, 20).mean()), "n": len(rank)}
        tests = next((tests for of, tests in together if np.array_equal(of, owners)), None)
        if tests is None:
            tests = {}
            together.append((owners, tests))
        tests[name] = rank, other, measure
    for owners, tests in together:
        for name, one in evaluation.differences(tests, owners, seed=seed, comparisons=comparisons).items():
            found[name] |= one
    return found


def told(one: Mapping | None, base: str) -> str:
    """A gain (`gained`) as a table shows it, in %: "38.1 (-0.2 to +1.1)", the interval that of the difference; without for a default."""
    if not one or one["value"] is None:
        return "–"
    low, high = one["ci95"]
    return f"{100 * one['value']:.1f}" + (f" ({100 * low:+.1f} to {100 * high:+.1f})" if base else "")


def tabulate(made: Mapping[str, Made], found: Mapping[str, Mapping], heads: Mapping[str, str]) -> pd.DataFrame:
    """A row for each model in `found`: its label, and what was `told` of each measure of `heads`, under that head."""
    return pd.DataFrame([
        {"variant": made[name].variant.label}
        | {head: told(of.get(measure), made[name].variant.base) for measure, head in heads.items()}
        for name, of in found.items()
    ])  # fmt: skip


def points(one: Mapping, unit: str = "") -> str:
    """A gain and its interval, in points: "+3.1 (+2.3 to +3.9)", the unit after the first number."""
    low, high = one["ci95"]
    return f"{100 * one['gain']:+.1f}{unit} ({100 * low:+.1f} to {100 * high:+.1f})"


def overview(made: Mapping[str, Made], found: Mapping[str, Mapping]) -> pd.DataFrame:
    """A row for each model: its label, HR@20 and MRR@20 (a default's own, the others' gains in `points`), and its `standing`."""
    rows = []
    for name, one in made.items():
        gained = {
            MEASURES[key]: points(found[name][key]) if one.variant.base else f"{100 * found[name][key]['value']:.1f}"
            for key in ("hit_rate@20", "mrr@20")
        }
        rows.append({"variant": one.variant.label} | gained | {"verdict": standing(found[name]) if one.variant.base else "default"})
    return pd.DataFrame(rows)


def standing(found: Mapping[str, Mapping]) -> str:
    """What a variant helps and harms by its intervals, as "helps MRR@20; harms HR@20"; "level" where no difference is shown."""
    names = (", ".join(MEASURES[key].removeprefix("HR@20, ") for key in side) for side in _clear(found))
    return "; ".join(f"{verb} {measures}" for verb, measures in zip(("helps", "harms"), names) if measures) or "level"


def verdict(one: Made, base: Made, found: Mapping[str, Mapping]) -> str:
    """One sentence on what a variant brought over its base, from its gains and nothing else.

    The intervals of `measure` are corrected for all switches and measures, so that one is seldom called a help by luck.

    Parameters
    ----------
    one, base : Made
    found : mapping of measure to gain
        By the keys of `MEASURES`; "mrr@20" must be there.
    """
    better, worse = ("; ".join(f"{MEASURES[key]} {points(found[key], ' points')}" for key in side) for side in _clear(found))
    if better and worse:
        said = f"gains and loses against {base.variant.label}: {better}; but {worse}"
    elif better:
        said = f"helps over {base.variant.label}: {better}"
    elif worse:
        said = f"does harm beside {base.variant.label}: {worse}"
    else:
        said = f"is not shown to differ from {base.variant.label}: MRR@20 {points(found['mrr@20'], ' points')}"
    return f"{one.variant.label} {said}."


def _clear(found: Mapping[str, Mapping]) -> tuple[list[str], list[str]]:
    """Keys of the `MEASURES` in which a variant is better than its base, and of those in which it is worse."""
    places = found.get("cold") and found["cold"]["value"]  # else there are no new products to stand beside
    told = [key for key in MEASURES if found.get(key) and found[key]["ci95"] and (places or key != "others")]
    return [key for key in told if found[key]["ci95"][0] > 0], [key for key in told if found[key]["ci95"][1] < 0]


def latency(made: Made, batch: int = 1, repeats: int = 50) -> float:
    """Seconds per user from the history to the first 20 products, `batch` users at a time: the median of `repeats`.

    With one thread of BLAS, as the approximate search has one.
    """
    with one_blas_thread():
        return beyond_accuracy.seconds_per_user(made.answer, made.test, batch, repeats)


def newcomer(made: Made, products: pd.DataFrame, repeats: int = 20) -> float:
    """Seconds to place one new product, from its columns to its vector: the median of `repeats`.

    NaN where only another training can place it.
    """
    if made.place is None:
        return float("nan")
    seconds = []
    for row in range(repeats):
        started = time.perf_counter()
        made.place(products.iloc[[row % len(products)]])
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))
