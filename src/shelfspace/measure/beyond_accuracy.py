"""What a hit rate does not tell: coverage of the catalogue, novelty, diversity, calibration, and how long an answer takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from shelfspace.measure import intervals, ranking
from shelfspace.measure.evaluation import Evaluation, evaluate, save
from shelfspace.measure.ranking import CUTOFFS, Model
from shelfspace.sequences.arrays import Examples
from shelfspace.vectors.embeddings import normalise

BATCHES = {1: 15, 1024: 3}
"""Users who are answered at once where a model is timed, and how often."""


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
        low, high = intervals.wilson(hit[members].sum(), len(members))
        rows.append((probability[members].mean(), hit[members].mean(), low, high, len(members)))
    table = pd.DataFrame(rows, columns=["probability", "hits", "lo", "hi", "n"])
    return table, float((table.n * (table.hits - table.probability).abs()).sum() / table.n.sum())


def measure(path: str | Path, make: Callable[[], Model], valid: Examples, test: Examples, probabilities: bool = False) -> dict[str, float]:
    """Ask a model about the valid and the test users, keep what it answers, and time it: for `shelfspace.files.run_files.once`.

    Parameters
    ----------
    path : str or Path
        Of an ``.npz`` file, for the evaluations "valid" and "test" (`shelfspace.measure.evaluation.save`).
    make : callable
        Makes the model, which is let go afterwards.
    valid, test : Examples
    probabilities : bool
        Also of the test users; see `shelfspace.measure.evaluation.evaluate`.

    Returns
    -------
    dict of str to float
        The `latency` in batches of each of `BATCHES`.
    """
    model = make()
    save(path, {"valid": evaluate(model, valid), "test": evaluate(model, test, probabilities=probabilities)})
    return {str(batch): latency(model, test, batch, repeats) for batch, repeats in BATCHES.items()}


def latency(model: Model, examples: Examples, batch: int, repeats: int = 7) -> float:
    """Seconds per user to score all products and pick the best 20, `batch` users at a time: the median of `repeats` batches.

    Depends on the machine and on what else it does, so it is no figure that two runs share. Batches go round the
    examples; the first, untimed, lets the model warm up.
    """
    return seconds_per_user(lambda part: ranking.top_k(model(part), max(CUTOFFS)), examples, batch, repeats)


def seconds_per_user(answer: Callable[[Examples], object], examples: Examples, batch: int, repeats: int) -> float:
    """Seconds per user that an answer to `batch` users takes; see `latency`."""
    seconds = []
    for repeat in range(repeats + 1):
        part = examples[np.arange(repeat * batch, (repeat + 1) * batch) % len(examples)]
        started = time.perf_counter()
        answer(part)
        seconds.append((time.perf_counter() - started) / batch)
    return float(np.median(seconds[1:]))
