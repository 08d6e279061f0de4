"""Recommender `ranked`: candidates from several sources, put in order by a learned ranker.

Retrieve, then rank, as large shops do (Covington et al. 2016). Every source, a `shelfspace.measure.ranking.Model` of its own, names its
best products for a history; together they are a few hundred candidates. A ranker, gradient-boosted trees (Ke et al. 2017) trained by
LambdaRank (`shelfspace.models.lambdarank`), then looks at what each source says of a candidate, at the candidate itself, at how it
stands to the history, and at the customer. A ranker that holds the scores of its own sources has no excuse for losing to one of them.

The ranker learns from targets that no source has learned from: a source that knew the answer would teach it to trust that
source. What was counted is counted without the customer's own sequence (`shelfspace.sequences.arrays.Examples.trained`), in training as
in use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before LightGBM is imported: its threads sleep while they wait for each other

import lightgbm as lgb
import numpy as np
import pandas as pd
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from shelfspace.files import run_files
from shelfspace.measure.ranking import Model, in_blocks
from shelfspace.models import factors, lambdarank, retrieval, tied, trees
from shelfspace.models.retrieval import DESCRIPTION, OWN, TOP, Facts
from shelfspace.sequences.arrays import Corpus, Examples
from shelfspace.vectors import embeddings

ROWS = 5_000_000  # candidates to learn from, if nobody named one twice: about half a gigabyte; of more a share is drawn
TIE = 1e-4  # of the first source's score is added: candidates that fall into the same leaves stand in its order
PLACES = 40  # of a list that the ranker learns to put in order
PART = 64  # histories of which the scores of all sources are in memory at once
BELOW = 1e4  # by so much lies what is no candidate below the scores of its source


@dataclass(frozen=True)
class Ranked:
    """Sources, what is known of the products, and the ranker.

    Attributes
    ----------
    sources : mapping of name to Model
        The first one puts in order what is no candidate.
    facts : Facts
    trees : lightgbm.Booster
    top : int
        Products that each source names.
    """

    sources: Mapping[str, Model]
    facts: Facts
    trees: lgb.Booster
    top: int = TOP


def features(sources: Sequence[str]) -> list[str]:
    """Names of the ranker's features, in order, the group before the stroke."""
    return [f"{name}/score" for name in sources] + [f"{name}/place" for name in sources] + list(DESCRIPTION)


def look(sources: Mapping[str, Model], facts: Facts, examples: Examples, top: int = TOP) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates and where each history's begin (see `candidates`), and their `features`: float32, shape (k, n_features)."""

    def one(part: Examples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        product, offsets, table, _ = _look(sources, facts, part, top)  # scores of all products are not kept
        return product, np.diff(offsets), table

    product, lengths, table = (np.concatenate(column) for column in zip(*in_blocks(one, examples)))
    return product, np.append(0, np.cumsum(lengths)), table


def _look(sources: Mapping[str, Model], facts: Facts, examples: Examples, top: int):
    """As `look`, of one block, and the scores of all products by the first source."""
    product, offsets, said, rest = retrieval.candidates(sources, examples, top)
    return product, offsets, np.column_stack([said, retrieval.describe(facts, examples, product, offsets)]), rest


def train(
    sources: Mapping[str, Model],
    facts: Facts,
    examples: Examples,
    *,
    top: int = TOP,
    trees: int = 95,
    learning_rate: float = 0.07,
    leaves: int = 15,
    seed: int = 0,
) -> Ranked:
    """Fit the ranker by LambdaRank.

    Each example asks twice: for the target among all candidates and, where the target was new to the user, for the target among
    the candidates that were new, too. So one ranker serves both lists. Of more than `ROWS` candidates a share is learned from, drawn at
    random, beside all targets. Where no source names any target, the targets join the candidates, so that there is something to learn
    from.

    The number of trees is fixed: the few hundred users that a small log has to stop it by would stop it after five trees or
    a hundred, by luck.

    Parameters
    ----------
    sources, facts
        See `Ranked`.
    examples : Examples
        Their targets must be unknown to the sources.
    top : int
        Products that each source names.
    trees, learning_rate, leaves
        Of LightGBM: trees, what each one counts, and leaves of each.
    seed : int

    Raises
    ------
    ValueError
        If there is no example to learn from.
    """
    if not len(examples):
        raise ValueError("No user has a target for the ranker to learn from; give a longer log.")
    settings = {
        "learning_rate": learning_rate, "num_leaves": leaves, "min_data_in_leaf": 100, "feature_fraction": 0.4, "lambda_l2": 1.0,
        "deterministic": True, "force_row_wise": True, "verbose": -1, "seed": seed,
    }  # fmt: skip
    asked = (_questions(sources, facts, examples, top, targets, seed) for targets in (False, True))
    tables, label, group = next(each for each in asked if len(each[1]))
    learn = lgb.Dataset(tables, label, feature_name=features(list(sources)), params=settings)
    with threadpool_limits(os.cpu_count(), "openmp"):  # a run waits for it; the same trees for any number
        learn.construct()
        del tables  # binned, the features are not needed
        order = {"objective": lambdarank.objective(label, group, PLACES)}
        return Ranked(sources, facts, lgb.train(settings | order, learn, trees), top)


def _questions(
    sources: Mapping[str, Model], facts: Facts, examples: Examples, top: int, targets: bool, seed: int
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Features, whether each candidate is the target, and the sizes of the groups in which exactly one is.

    First all that ask for any product, then all that ask for a new one. The features are as many arrays, one below the other, as one of
    all would be as large again.
    """
    visits_ago = DESCRIPTION.index("own/visits_ago")
    share = ROWS / max(1, int((np.minimum(examples.lengths, OWN) + top * len(sources)).sum()))

    def one(part: Examples) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        product, offsets, said, _ = retrieval.candidates(sources, part, top, targets)
        row = np.repeat(np.arange(len(part)), np.diff(offsets))
        target = product == part.target[row]
        rng = np.random.default_rng([seed, int(part.end[0])])  # its own, as blocks are looked at side by side
        kept = (np.bincount(row, target, minlength=len(part)) > 0)[row] & (target | (rng.random(len(row)) < share))
        product, said, row, target = product[kept], said[kept], row[kept], target[kept]
        described = retrieval.describe(facts, part, product, np.searchsorted(row, np.arange(len(part) + 1)))
        table, found = np.column_stack([said, described]), []
        for asked in (np.ones(len(row), bool), np.isnan(described[:, visits_ago])):
            kept = asked & (np.bincount(row, target & asked, minlength=len(part)) > 0)[row]
            sizes = np.bincount(row[kept], minlength=len(part))
            found.append((table[kept], target[kept].astype(np.int8), sizes[sizes > 0]))
        return found

    blocks = zip(*in_blocks(one, examples))
    tables, labels, groups = zip(*(each for question in blocks for each in question))
    return [table for table in tables if len(table)], np.concatenate(labels), np.concatenate(groups)


def recommend(ranked: Ranked) -> Model:
    """The ranker as a `shelfspace.measure.ranking.Model`; what is no candidate follows in the order of the first source."""

    predict = trees.predictor(ranked.trees)
    (name, first), *others = ranked.sources.items()

    def scores(examples: Examples) -> np.ndarray:
        rest = np.asarray(first(examples), dtype=np.float32)
        products = rest - np.float32(BELOW)
        for begin in range(0, len(examples), PART):
            part = slice(begin, begin + PART)
            sources = {name: lambda _, part=part: rest[part]} | dict(others)
            product, offsets, table, _ = _look(sources, ranked.facts, examples[part], ranked.top)
            products[begin + np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)), product] = _scores(predict, table)
        return products

    return scores


def _scores(predict: Callable[[np.ndarray], np.ndarray], table: np.ndarray) -> np.ndarray:
    """What the trees say of each candidate, float64, shape (k,), and `TIE`: a few trees alone leave most candidates equal."""
    return predict(table) + TIE * table[:, 0]


def explain(ranked: Ranked, examples: Examples, row: np.ndarray, product: np.ndarray) -> pd.DataFrame:
    """What makes up the scores of some products for some histories.

    Parameters
    ----------
    ranked : Ranked
    examples : Examples
    row, product : ndarray of int, shape (m,)
        Which history asks for which product.

    Returns
    -------
    DataFrame
        m rows: score, and a column for each group of features with what it adds to the score (Lundberg et al. 2020, exact for trees);
        `TIE` counts with the first source.
        These, "base" and "no_candidate" among them, sum to the score. A product that no source named has nothing but the last.
    """
    candidate, offsets, table = look(ranked.sources, ranked.facts, examples, ranked.top)
    n_products = len(ranked.facts.visits)
    candidates = np.repeat(np.arange(len(examples)), np.diff(offsets)) * n_products + candidate  # in ascending order
    asked = np.asarray(row) * n_products + product
    at = np.minimum(np.searchsorted(candidates, asked), len(candidates) - 1)
    named = candidates[at] == asked
    groups = [name.partition("/")[0] for name in ranked.trees.feature_name()] + ["base"]
    shares = ranked.trees.predict(table[at], pred_contrib=True, num_threads=os.cpu_count() or 1)
    parts = pd.DataFrame(shares.T).groupby(groups, sort=False).sum().T
    name, first = next(iter(ranked.sources.items()))
    parts[name] += TIE * table[at, 0]
    parts = parts.mul(named, axis=0)
    parts["no_candidate"] = np.where(named, 0.0, first(examples)[row, product] - BELOW)
    parts.insert(0, "score", np.where(named, _scores(trees.predictor(ranked.trees), table[at]), parts.no_candidate))
    return parts


def save(ranked: Ranked, path: str | Path) -> None:
    """Write the trees as LightGBM's text."""
    ranked.trees.save_model(str(path))


def load(path: str | Path, sources: Mapping[str, Model], facts: Facts, top: int = TOP) -> Ranked:
    """A ranker with the sources that it was trained with.

    Raises
    ------
    ValueError
        If it was trained with other sources.
    """
    trees = lgb.Booster(model_file=str(path))
    if features(list(sources)) != trees.feature_name():
        raise ValueError(f"{path} was trained with other sources than {', '.join(sources)}; run 05_recommender again.")
    return Ranked(sources, facts, trees, top)


def reopen(path: str | Path, corpus: Corpus, pairs: tuple[sp.csr_matrix, np.ndarray] | None = None) -> Ranked:
    """The ranker of a run, its sources and facts made anew from the files beside it; the first source is the tied recommender.

    Parameters
    ----------
    path : str or Path
        ``RUN/recommender_ranked.txt``, as ``05_recommender`` left it.
    corpus : Corpus
        All of the run that may train (`shelfspace.sequences.arrays.corpus` with targets).
    pairs : tuple, optional
        What `shelfspace.models.baselines.cooccurrence` gives for this corpus, where it was counted already.

    Raises
    ------
    ValueError
        If the ranker was trained with other sources.
    """
    run = Path(path).parent
    products, choice = pd.read_parquet(run / "products.parquet"), run_files.read_json(run / "decay.json")
    best = run_files.read_json(run / "best_decays.json")
    ids = products.product_id.to_numpy().astype(str)
    files = {name: run / "product_embeddings" / f"{name}.parquet" for name in ("word2vec", "starspace")}
    aligned = {name: embeddings.align(embeddings.load(file), ids) for name, file in files.items()}
    learned = tied.recommend(tied.load(run / "recommender_tied.keras"))
    saved = run / "recommender_ease.npz"  # which runs before it was kept do not have
    ease = factors.Ease(corpus, ids, saved=saved if saved.exists() else None)
    sources = retrieval.sources(learned, corpus, ids, aligned, best, ease, pairs)
    facts = retrieval.facts(corpus, products, aligned[choice["embedding"]][0])
    return load(path, sources, facts, run_files.read_json(run / "recommender.json")["top"])
