"""What the ranker looks at: the sources, the candidates that they name for a history, and what is said of each candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numba as nb
import numpy as np
import pandas as pd
import scipy.sparse as sp

from shelfspace.measure.ranking import Model, top_k
from shelfspace.models import baselines, session_knn
from shelfspace.sequences.arrays import Corpus, Examples
from shelfspace.vectors.embeddings import normalise

MARKOV_STEPS, SESSION_KNN = 4, {"neighbours": 300, "decay": 0.1}  # of these sources; the ranker weighs what they say
EASE = {"regularisation": 300.0, "decay": 0.3}  # of this one, too
TOP = 40  # candidates that each source names
OWN = 1_000  # newest visits of a history whose products are candidates
VISITS = 100  # newest visits of a history that describe it
NEWEST = 5  # visits whose products a candidate is compared with one by one
FADE = 0.8  # what a visit's category, brand and price weigh beside those of the visit after it
PAUSE = 30 / (24 * 60)  # days of silence that end a session
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
        All that may train (`shelfspace.sequences.arrays.corpus` with targets).
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
    settings: Mapping[str, Mapping], ease: Callable[..., Model] | None = None, pairs: tuple[sp.csr_matrix, np.ndarray] | None = None,
) -> dict[str, Model]:  # fmt: skip
    """The sources of the report's ranker, by name.

    Parameters
    ----------
    recommender : Model
        The tied recommender, trained without the targets that train the ranker.
    corpus : Corpus
        All that may train (`shelfspace.sequences.arrays.corpus` with targets).
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    vectors : mapping of name to (ndarray of float32, ndarray of bool)
        Embeddings, aligned with the product table (`shelfspace.vectors.embeddings.align`), trained without any target.
    settings : mapping of name to mapping
        Of "cooccurrence", of NAME_user for each of the embeddings and, if not `EASE`, of "ease": chosen on the valid users.
    ease : callable, optional
        From `shelfspace.models.factors.Ease`; a source only where it is given.
    pairs : tuple, optional
        From `shelfspace.models.baselines.cooccurrence` of this corpus, where it was counted already; it takes long.
    """
    pairs = pairs or baselines.cooccurrence(corpus, product_ids)
    regressed = {"ease": ease(**settings.get("ease", EASE))} if ease else {}
    return (
        {
            "tied": recommender,
            "cooccurrence": baselines.item_to_item(pairs, **settings["cooccurrence"]),
            "markov": baselines.markov(corpus, product_ids, MARKOV_STEPS),
            "session_knn": session_knn.session_knn(corpus, product_ids, **SESSION_KNN),
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
    scores = [np.require(model(examples), np.float32, ("C", "W")) for model in sources.values()]
    best = [top_k(each, top)[0] for each in scores]
    first, asked = np.maximum(examples.start, examples.end - OWN), examples.target if targets else np.zeros(0, np.int32)
    room = sum(each.size for each in best) + int((examples.end - first).sum()) + len(asked)
    product, offsets = _named(examples.items, first, examples.end, np.concatenate(best, axis=1), asked, scores[0].shape[1], room)
    said = np.empty((len(product), 2 * len(best)), dtype=np.float32)
    for column, (each, products) in enumerate(zip(scores, best)):
        _say(each, products, product, offsets, np.float32(top), said[:, column], said[:, len(best) + column])
    return product, offsets, said, scores[0]


@nb.njit(nogil=True, cache=True)
def _named(items, first, end, best, asked, n_products, room):
    """Products of each history's newest visits, of its row in `best` and, where there are any, in `asked`: each once, in order, and offsets."""
    named = np.zeros(n_products + 8, dtype=np.uint8)
    eights = named[: (n_products + 7) // 8 * 8].view(np.uint64)  # to pass over eight products at once
    products, offsets, size = np.empty(room, dtype=np.int32), np.zeros(len(first) + 1, dtype=np.int64), 0
    for row in range(len(first)):
        for item in items[first[row] : end[row]]:
            named[item] = 1
        for item in best[row]:
            named[item] = 1
        if len(asked):
            named[asked[row]] = 1
        for eight in range(len(eights)):
            if eights[eight]:
                for item in range(8 * eight, 8 * eight + 8):
                    if named[item]:
                        products[size] = item
                        size += 1
                eights[eight] = 0
        offsets[row + 1] = size
    return products[:size].copy(), offsets


@nb.njit(nogil=True, cache=True)
def _say(scores, best, product, offsets, top, score, place):
    """Fill in a source's score of each candidate, and its place, which is `top` outside of its row in `best`."""
    where = np.zeros(scores.shape[1], dtype=np.int64)
    for row in range(len(scores)):
        for at in range(offsets[row], offsets[row + 1]):
            where[product[at]] = at
            score[at], place[at] = scores[row, product[at]], top
        for i in range(best.shape[1]):
            place[where[best[row, i]]] = i


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
