"""Recommender `ranked`: candidates from several sources, put in order by a learned ranker.

Retrieve, then rank, as large shops do (Covington et al. 2016). Every source, a `shelfspace.metrics.Model` of its own, names its
best products for a history; together they are a few hundred candidates. A ranker, gradient-boosted trees trained by LambdaRank
(Burges 2010; Ke et al. 2017), then looks at what each source says of a candidate, at the candidate itself, at how it stands to
the history, and at the customer. A ranker that holds the scores of its own sources has no excuse for losing to one of them.

The ranker learns from targets that no source has learned from: a source that knew the answer would teach it to trust that
source. What was counted is counted without the customer's own sequence (`shelfspace.sequences.Examples.trained`), in training as
in use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before LightGBM is imported: its threads sleep while they wait for each other

import lightgbm as lgb
import numba as nb
import numpy as np
import pandas as pd

from shelfspace import baselines
from shelfspace.embeddings import normalise
from shelfspace.metrics import Model, in_blocks, top_k
from shelfspace.sequences import Corpus, Examples

MARKOV_STEPS, SESSION_KNN = 4, {"neighbours": 300, "decay": 0.1}  # of these sources; the ranker weighs what they say
EASE = {"regularisation": 300.0, "decay": 0.3}  # of this one, too
TOP = 40  # candidates that each source names
OWN = 1_000  # newest visits of a history whose products are candidates
ROWS = 5_000_000  # candidates to learn from at most, and as many to stop by, if nobody named one twice: about half a gigabyte
VISITS = 100  # newest visits of a history that describe it
NEWEST = 5  # visits whose products a candidate is compared with one by one
FADE = 0.8  # what a visit's category, brand and price weigh beside those of the visit after it
PAUSE = 30 / (24 * 60)  # days of silence that end a session
TIE = 1e-4  # of the first source's score is added: candidates that fall into the same leaves stand in its order
BELOW = 1e4  # by so much lies what is no candidate below the scores of its source
DESCRIPTION = (
    "own/visits", "own/visits_ago", "own/days_ago", "own/strongest_event", "own/newest_event", "own/in_this_session",
    "customer/visits", "customer/products", "customer/share_of_returns", "customer/days_since_the_visit_before",
    "customer/days_in_all", "customer/newest_event", "customer/sessions", "customer/visits_in_this_session",
    "popularity/visits", "popularity/share_taken", "popularity/share_late", "popularity/visits_of_the_newest",
    "category/share", "category/visits_ago", "brand/share", "price/above_usual", "price/above_newest",
    "near/newest", "near/nearest_of_five",
)  # fmt: skip
"""What is told of a candidate beside the scores and ranks that its sources give it; its group before the stroke."""


@dataclass(frozen=True)
class Facts:
    """What is known of each product without looking at a history.

    Attributes
    ----------
    visits, taken, late : ndarray of float32, shape (n_products,)
        Training visits; those of them that led to the cart or a purchase; those in the newest quarter of the training time.
    since : float
        When that quarter begins, in days since 1970.
    category, brand : ndarray of int32, shape (n_products,)
        Codes, -1 where there is none.
    price, tier : ndarray of float32, shape (n_products,)
        ln(1 + price), and how far it is above the median of its category; NaN where there is none.
    unit : ndarray of float32, shape (n_products, dim)
        Product embeddings of length 1, rows of zeros where there is none.
    """

    visits: np.ndarray
    taken: np.ndarray
    late: np.ndarray
    since: float
    category: np.ndarray
    brand: np.ndarray
    price: np.ndarray
    tier: np.ndarray
    unit: np.ndarray


def facts(corpus: Corpus, products: pd.DataFrame, vectors: np.ndarray) -> Facts:
    """Gather them.

    Parameters
    ----------
    corpus : Corpus
        All that may train (`shelfspace.sequences.corpus` with targets).
    products : DataFrame
        ``products.parquet``; category, brand and price are used where they are there.
    vectors : ndarray of float32, shape (n_products, dim)
        Product embeddings, zero where there is none.
    """
    n, place = len(products), corpus.places(products.product_id.to_numpy().astype(str))
    times = np.zeros(len(place)) if corpus.times is None else corpus.times
    events = np.zeros(len(place), np.int8) if corpus.events is None else corpus.events
    since = float(np.quantile(times, 0.75))
    category, brand = (
        (pd.factorize(products[name])[0] if name in products else np.full(n, -1)).astype(np.int32) for name in ("category", "brand")
    )
    price = np.log1p(products["price"].to_numpy(np.float32) if "price" in products else np.full(n, np.nan, np.float32))
    usual = pd.Series(price).groupby(category).transform("median").to_numpy(np.float32)
    count = (np.bincount(place[kept], minlength=n).astype(np.float32) for kept in (slice(None), events > 0, times > since))
    return Facts(*count, since, category, brand, price, price - usual, normalise(vectors))


def sources(
    recommender: Model, corpus: Corpus, product_ids: np.ndarray, vectors: Mapping[str, tuple[np.ndarray, np.ndarray]],
    settings: Mapping[str, Mapping], ease: Callable[..., Model] | None = None,
) -> dict[str, Model]:  # fmt: skip
    """The sources of the report's ranker, by name.

    Parameters
    ----------
    recommender : Model
        The tied recommender, trained without the targets that train the ranker.
    corpus : Corpus
        All that may train (`shelfspace.sequences.corpus` with targets).
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    vectors : mapping of name to (ndarray of float32, ndarray of bool)
        Embeddings, aligned with the product table (`shelfspace.embeddings.align`), trained without any target.
    settings : mapping of name to mapping
        Of "cooccurrence", of NAME_user for each of the embeddings and, if not `EASE`, of "ease": chosen on the valid users.
    ease : callable, optional
        From `shelfspace.baselines.ease`; a source only where it is given.
    """
    regressed = {"ease": ease(**settings.get("ease", EASE))} if ease else {}
    return (
        {
            "tied": recommender,
            "cooccurrence": baselines.item_to_item(baselines.cooccurrence(corpus, product_ids), **settings["cooccurrence"]),
            "markov": baselines.markov(corpus, product_ids, MARKOV_STEPS),
            "session_knn": baselines.session_knn(corpus, product_ids, **SESSION_KNN),
        }
        | regressed
        | {f"{name}_user": baselines.nearest_to_user(*pair, **settings[f"{name}_user"]) for name, pair in vectors.items()}
    )


def candidates(
    sources: Mapping[str, Model], examples: Examples, top: int = TOP, targets: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The best products by each source, and those that the user saw, with what every source says of them.

    Parameters
    ----------
    sources : mapping of name to Model
    examples : Examples
        n histories; a block of them at a time is scored by the caller.
    top : int
        Products that each source names.
    targets : bool
        Whether the targets are candidates though no source names them.

    Returns
    -------
    product : ndarray of int32, shape (k,)
        Candidates of all histories, one history after the other, each in order of product.
    offsets : ndarray of int64, shape (n + 1,)
        Where each history's begin.
    said : ndarray of float32, shape (k, 2 * number of sources)
        Score of each source, then the place that each source gives it, from 0; `top` where it is not among its first.
    rest : ndarray of float32, shape (n, n_products)
        Scores of all products by the first source.
    """
    n = len(examples)
    scores = [np.asarray(model(examples), dtype=np.float32) for model in sources.values()]
    n_products = scores[0].shape[1]
    best = [top_k(each, top)[0] for each in scores]
    positions, offsets = replace(examples, start=np.maximum(examples.start, examples.end - OWN)).flat()
    rows = [np.repeat(np.arange(n), np.diff(offsets)), *(np.repeat(np.arange(n), named.shape[1]) for named in best)]
    named = [examples.items[positions], *map(np.ravel, best)]
    if targets:
        rows, named = [*rows, np.arange(n)], [*named, examples.target]
    key = np.unique(np.concatenate(rows) * n_products + np.concatenate(named))
    row, product = np.divmod(key, n_products)
    place = np.full((len(key), len(best)), top, dtype=np.float32)
    for column, products in enumerate(best):
        there = np.searchsorted(key, (np.arange(n)[:, None] * n_products + products).ravel())
        place[there, column] = np.tile(np.arange(products.shape[1]), n)
    said = np.column_stack([each[row, product] for each in scores] + [place])
    return product.astype(np.int32), np.searchsorted(row, np.arange(n + 1)), said, scores[0]


def describe(facts: Facts, examples: Examples, product: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """What `DESCRIPTION` lists of each candidate; float32, shape (k, len(DESCRIPTION)), NaN where it is unknown.

    Parameters
    ----------
    facts : Facts
    examples : Examples
        n histories.
    product, offsets
        Candidates, as `candidates` gives them.
    """
    table = np.full((len(product), len(DESCRIPTION)), np.nan, dtype=np.float32)
    _describe(
        examples.items, examples.times, examples.events, examples.start, examples.end, examples.trained, product, offsets,
        facts.visits, facts.taken, facts.late, facts.since, facts.category, facts.brand, facts.price, facts.tier, facts.unit, table,
    )  # fmt: skip
    return table


@nb.njit(nogil=True, cache=True)
def _describe(
    items, times, events, start, end, trained, product, offsets, visits, taken, late, since, category, brand, price, tier, unit, table
):  # fmt: skip
    """Fill the rows of `table`, columns in the order of `DESCRIPTION`. Without the GIL, for threads."""
    n_products = len(visits)
    times_seen, place_seen = np.zeros(n_products, np.int32), np.zeros(n_products, np.int32)
    strongest = np.zeros(n_products, np.int8)
    own = np.zeros((3, n_products), np.float32)  # what the user's own sequence gave to visits, taken and late
    for row in range(len(start)):
        newest, first = end[row] - 1, max(start[row], end[row] - VISITS)
        now, length, products, last_product = times[newest], end[row] - start[row], 0, items[newest]
        for at in range(start[row], trained[row]):
            own[0, items[at]] += 1
            own[1, items[at]] += events[at] > 0
            own[2, items[at]] += times[at] > since
        sessions, in_session = 1, 1
        usual, weight, known, weights = 0.0, 1.0, 0.0, 0.0
        for at in range(newest, first - 1, -1):
            item = items[at]
            if times_seen[item] == 0:
                place_seen[item] = newest - at
                products += 1
            times_seen[item] += 1
            strongest[item] = max(strongest[item], events[at])
            if at < newest and times[at + 1] - times[at] > PAUSE:
                sessions += 1
            if sessions == 1:
                in_session = newest - at + 1
            weights += weight
            if not np.isnan(tier[item]):
                usual += weight * tier[item]
                known += weight
            weight *= FADE
        for at in range(offsets[row], offsets[row + 1]):
            item, out = product[at], table[at]
            out[0] = times_seen[item]
            if times_seen[item]:
                out[1] = place_seen[item]
                out[2] = now - times[newest - place_seen[item]]
                out[3], out[4] = strongest[item], events[newest - place_seen[item]]
                out[5] = place_seen[item] < in_session
            out[6], out[7], out[8] = length, products, 1 - products / (newest - first + 1)
            if newest > start[row]:
                out[9] = now - times[newest - 1]
            out[10], out[11], out[12], out[13] = now - times[first], events[newest], sessions, in_session
            others = visits[item] - own[0, item]
            out[14] = others
            out[15] = (taken[item] - own[1, item]) / (others + 10)
            out[16] = (late[item] - own[2, item]) / (others + 10)
            out[17] = visits[last_product] - own[0, last_product]
            same_category, same_brand, ago, weight = 0.0, 0.0, -1, 1.0
            for back in range(newest - first + 1):
                other = items[newest - back]
                if category[item] >= 0 and category[other] == category[item]:
                    same_category += weight
                    if ago < 0:
                        ago = back
                if brand[item] >= 0 and brand[other] == brand[item]:
                    same_brand += weight
                weight *= FADE
            if category[item] >= 0:
                out[18], out[19] = same_category / weights, ago if ago >= 0 else VISITS
            if brand[item] >= 0:
                out[20] = same_brand / weights
            if known > 0:
                out[21] = tier[item] - usual / known
            out[22] = price[item] - price[last_product]
            nearest = -1.0
            for back in range(min(NEWEST, newest - first + 1)):
                other, cosine = items[newest - back], np.float32(0)
                for d in range(unit.shape[1]):
                    cosine += unit[item, d] * unit[other, d]
                if back == 0:
                    out[23] = cosine
                nearest = max(nearest, cosine)
            out[24] = nearest
        for at in range(first, end[row]):
            times_seen[items[at]] = 0
            strongest[items[at]] = 0
        for at in range(start[row], trained[row]):
            own[:, items[at]] = 0


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


def look(
    sources: Mapping[str, Model], facts: Facts, examples: Examples, top: int = TOP, targets: bool = False, block: int = 64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates and where each history's begin (see `candidates`), and their `features`: float32, shape (k, n_features)."""

    def one(part: Examples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        product, offsets, table, _ = _look(sources, facts, part, top, targets)  # scores of all products are not kept
        return product, np.diff(offsets), table

    product, lengths, table = (np.concatenate(column) for column in zip(*in_blocks(one, examples, block)))
    return product, np.append(0, np.cumsum(lengths)), table


def _look(sources: Mapping[str, Model], facts: Facts, examples: Examples, top: int, targets: bool = False):
    """As `look`, of one block, and the scores of all products by the first source."""
    product, offsets, said, rest = candidates(sources, examples, top, targets)
    return product, offsets, np.column_stack([said, describe(facts, examples, product, offsets)]), rest


def train(
    sources: Mapping[str, Model],
    facts: Facts,
    examples: Examples,
    valid: Examples,
    *,
    top: int = TOP,
    trees: int = 300,
    learning_rate: float = 0.05,
    leaves: int = 15,
    patience: int = 60,
    seed: int = 0,
) -> Ranked:
    """Fit the ranker by LambdaRank; the number of trees is the one with the best NDCG@20 on the valid users.

    Each example asks twice: for the target among all candidates and, where the target was new to the user, for the target among
    the candidates that were new, too. So one ranker serves both lists. Where no source names any target, the targets join
    the candidates, so that there is something to learn from.

    Parameters
    ----------
    sources, facts
        See `Ranked`.
    examples : Examples
        Their targets must be unknown to the sources.
    valid : Examples
        Of either, no more than `ROWS` allows, drawn at random.
    top : int
        Products that each source names.
    trees, learning_rate, leaves, patience
        Of LightGBM: trees at most, what each one counts, leaves of each, and trees without a gain before stopping.
    seed : int

    Raises
    ------
    ValueError
        If there is no example to learn from, or none to stop by.
    """
    if not len(examples) or not len(valid):
        raise ValueError("No user has a target for the ranker to learn from; give a longer log.")
    data = []
    for part in (_few(examples, top * len(sources), seed), _few(valid, top * len(sources), seed)):
        asked = (_questions(*look(sources, facts, part, top, targets), part) for targets in (False, True))
        data.append(next(each for each in asked if len(each[0])))
    names = features(list(sources))
    learn, judge = (lgb.Dataset(table, label, group=group, feature_name=names) for table, label, group in data)
    judge.set_reference(learn)
    settings = {
        "objective": "lambdarank", "metric": "ndcg", "eval_at": [20], "lambdarank_truncation_level": 40, "learning_rate": learning_rate,
        "num_leaves": leaves, "min_data_in_leaf": 100, "feature_fraction": 0.4, "lambda_l2": 1.0, "deterministic": True,
        "force_row_wise": True, "verbose": -1, "seed": seed,
    }  # fmt: skip
    stop = lgb.early_stopping(patience, verbose=False)
    booster = lgb.train(settings, learn, trees, valid_sets=[judge], callbacks=[stop])
    return Ranked(sources, facts, booster, top)


def _few(examples: Examples, named: int, seed: int) -> Examples:
    """As many of the examples, drawn at random, as have no more than `ROWS` candidates; `named` by the sources for each."""
    drawn = np.random.default_rng(seed).permutation(len(examples))
    most = np.cumsum(np.minimum(examples.lengths, OWN)[drawn] + named)
    return examples[np.sort(drawn[most <= ROWS])]


def _questions(product, offsets, table, examples: Examples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, whether each candidate is the target, and the sizes of the groups in which exactly one is."""
    row = np.repeat(np.arange(len(examples)), np.diff(offsets))
    target = product == examples.target[row]
    new = np.isnan(table[:, features([]).index("own/visits_ago") - len(DESCRIPTION)])
    tables, labels, groups = [], [], []
    for asked in (np.ones(len(row), bool), new):
        answered = np.bincount(row, target & asked, minlength=len(examples)) > 0
        kept = asked & answered[row]
        tables.append(table[kept])
        labels.append(target[kept])
        groups.append(np.bincount(row[kept], minlength=len(examples))[answered])
    return np.concatenate(tables), np.concatenate(labels).astype(np.int8), np.concatenate(groups)


def recommend(ranked: Ranked) -> Model:
    """The ranker as a `shelfspace.metrics.Model`; what is no candidate follows in the order of the first source."""

    def scores(examples: Examples) -> np.ndarray:
        product, offsets, table, rest = _look(ranked.sources, ranked.facts, examples, ranked.top)
        products = rest - np.float32(BELOW)
        products[np.repeat(np.arange(len(examples)), np.diff(offsets)), product] = _scores(ranked.trees, table)
        return products

    return scores


def _scores(trees: lgb.Booster, table: np.ndarray) -> np.ndarray:
    """What the trees say of each candidate, float64, shape (k,), and `TIE`: a few trees alone leave most candidates equal."""
    return trees.predict(table, num_threads=1) + TIE * table[:, 0]


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
    shares = ranked.trees.predict(table[at], pred_contrib=True, num_threads=1)
    parts = pd.DataFrame(shares.T).groupby(groups, sort=False).sum().T
    name, first = next(iter(ranked.sources.items()))
    parts[name] += TIE * table[at, 0]
    parts = parts.mul(named, axis=0)
    parts["no_candidate"] = np.where(named, 0.0, first(examples)[row, product] - BELOW)
    parts.insert(0, "score", np.where(named, _scores(ranked.trees, table[at]), parts.no_candidate))
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
