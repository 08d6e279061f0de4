"""Recommender `tied`: the decayed user embedding, all of it learned, scored against the same product table.

A history of visits i, with product embeddings v, ages t_i and events e_i, becomes one vector,

    w_i = softmax_i(-d t_i + b(e_i) + a . sigmoid(A v_i + B v_last + P_i))      u = sum_i w_i v_i
    q = u + W2 relu(W1 [u, v_last] + c)

where d is the decay, b one weight per kind of event, and the last term attention that looks at the newest product and
at how many visits ago i was (P_i). W2 starts at zero, so that training starts from the article's user embedding. Product
j then scores

    cos(q, v_j) / T + bias_j + [j was seen i visits ago] (r_i + s(e_i) + o . relu(H [h, bias_j, bias_last] + g))
    + sum_k alpha_k log(1 + kappa_k n_k(k-th newest -> j)) + beta log(1 + 30 sum_i c_i n(p_i, j) / sqrt(n(p_i) n(j)))

The table v starts from pre-trained embeddings and keeps learning; there is no second one on the way out. Whether a product
comes back, which RepeatNet (Ren et al. 2019) has a decoder for, is told by s, as what lies in the cart is still wanted; by
the habits h of the history (`HABITS`), as who went back before, goes back again; and by popularity, that of the product and
of the newest one, which the bias holds. n_k(a -> b) is how often b came k visits after a in training
(`shelfspace.models.transitions`), the user's own sequence left out: a cosine cannot say that b follows a but not a b. n(a, b) is in how
many sequences both were: the item-to-item neighbours of Sarwar et al. 2001, averaged over the history with weights c_i in proportion
to exp(-d t_i), where d is the decay that training starts from. Large catalogues are trained on a sample of the products at each step (`shelfspace.models.training.sample`). The attention is
that of Li et al. 2017 (NARM) and Liu et al. 2018 (STAMP).

This module holds what was learned, and answers by it in numpy; `shelfspace.models.tied_training` learns it, in TensorFlow, which no
answer needs.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from shelfspace.measure.ranking import Model
from shelfspace.models.transitions import Links
from shelfspace.sequences.arrays import EVENT_LEVELS, Examples
from shelfspace.vectors.embeddings import normalise
from shelfspace.vectors.threads import one_blas_thread

TOGETHER_SCALE = np.float32(30)  # of what goes together, as kappa is of what came after
HABITS = ("seen again", "revisits", "repeats in a row", "visits", "place")  # of a history and a product in it, as ln(1 + n)
POPULARITY = ("product", "newest product")  # whose bias tells beside these whether a product comes back

TERMS = {
    "decay": "decay",
    "events": "weights of events",
    "attention": "attention",
    "network": "small network",
    "similarity": "cosine",
    "popularity": "popularity",
    "seen_before": "seen before",
    "came_after": "what follows what",
    "goes_together": "what goes together",
}
"""What `recommend` can leave out, and what it is called: four parts of q, and the five terms that sum to the score (`explain`)."""


@dataclass(frozen=True)
class Learned:
    """What was learned, and what was counted; the letters are those of the module's formula.

    It holds no product ids: product j is row j of the product table that training was given, which a run keeps as ``products.parquet``.

    Attributes
    ----------
    visits : int
        Newest visits of a history that count.
    decay_time : {"days", "log_days", "rank"}
        How age is counted.
    decay_at_start : float
        The decay that training started from, by which c_i weighs what goes together.
    temperature : float
        T.
    together : float
        beta.
    vectors : ndarray of float32, shape (n_products, dim)
        v.
    bias : ndarray of float32, shape (n_products,)
        Popularity.
    decay : float
        d, per unit of age.
    event_bias, repeat_event : ndarray of float32, shape (n_events,)
        b and s, in the order of `shelfspace.sequences.arrays.EVENT_LEVELS`.
    repeat : ndarray of float32, shape (visits,)
        r.
    habit_inner, habit_bias, habit_outer : ndarray of float32, shapes (n_habits, 16), (16,) and (16,)
        H, g and o, where n_habits counts `HABITS` and `POPULARITY`.
    inner, inner_bias, outer : ndarray of float32, shapes (2 dim, dim), (dim,) and (dim, dim)
        W1, c and W2.
    link_weight, link_scale : ndarray of float32, shape (len(STEPS),)
        alpha and kappa.
    links : Links
        n_k and n.
    of_visit, of_last, of_place, attention : ndarray of float32, shapes (dim, dim), (dim, dim), (visits, dim) and (dim,)
        A, B, P and a; None without attention.
    """

    visits: int
    decay_time: str
    decay_at_start: float
    temperature: float
    together: float
    vectors: np.ndarray
    bias: np.ndarray
    decay: float
    event_bias: np.ndarray
    repeat_event: np.ndarray
    repeat: np.ndarray
    habit_inner: np.ndarray
    habit_bias: np.ndarray
    habit_outer: np.ndarray
    inner: np.ndarray
    inner_bias: np.ndarray
    outer: np.ndarray
    link_weight: np.ndarray
    link_scale: np.ndarray
    links: Links
    of_visit: np.ndarray | None = None
    of_last: np.ndarray | None = None
    of_place: np.ndarray | None = None
    attention: np.ndarray | None = None

    @classmethod
    def of_weights(cls, settings: Mapping, weights: Mapping[str, np.ndarray]) -> Learned:
        """Put together from what `shelfspace.models.tied_training.Tied` was made with and its weights by name."""
        given = dict(weights)
        table, alone = given.pop("table"), given.pop("alone")
        shape = (len(table),) * 2
        counted = [
            sp.csr_matrix(tuple(given.pop(f"link_{part}_{k}") for part in ("counts", "products", "offsets")), shape=shape)
            for k in range(len(settings["links"]))
        ]
        *steps, pairs = counted or [sp.csr_matrix(shape, dtype=np.float32)]
        return cls(
            visits=settings["visits"], decay_time=settings["decay_time"], decay_at_start=settings["decay"],
            temperature=settings["temperature"], together=settings["together"],
            vectors=np.ascontiguousarray(table[:, :-1]), bias=np.ascontiguousarray(table[:, -1]),
            decay=float(np.exp(given.pop("log_decay"))), link_scale=np.exp(given.pop("log_link_scale")),
            links=Links(steps, pairs, alone), **given,
        )  # fmt: skip

    @cached_property
    def unit(self) -> np.ndarray:
        """The products' embeddings of length 1; float32, shape (n_products, dim)."""
        return normalise(self.vectors)

    @cached_property
    def of_product(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A v, B v and the right half of W1 times v, of each product; float32, each of shape (n_products, dim)."""
        dim = self.vectors.shape[1]
        matrices = (self.of_visit, self.of_last, self.inner[dim:])
        with one_blas_thread():  # whoever asks first, the bits are the same
            return tuple(None if matrix is None else self.vectors @ matrix for matrix in matrices)

    def findings(self) -> dict:
        """What it learned that can be read: decay, half_life, event_weights, repeat, repeat_odds, link_weight.

        `decay` and `half_life` (ln 2 / d) are per day and in days, or in visits where age is counted as rank; an event's
        weight, and the odds exp(s(e)) that its product is the next, are relative to those of a view.
        """
        weights, odds = (np.exp(each - each[0]) for each in (self.event_bias, self.repeat_event))
        return {
            "decay": self.decay,
            "half_life": float(np.log(2) / self.decay),
            "decay_time": self.decay_time,
            "event_weights": {name: float(w) for name, w in zip(EVENT_LEVELS, weights)},
            "repeat": self.repeat.tolist(),
            "repeat_odds": {name: float(o) for name, o in zip(EVENT_LEVELS, odds)},
            "link_weight": self.link_weight.tolist(),
        }


def load(path: str | Path) -> Learned:
    """What `shelfspace.models.tied_training.Tied.save` wrote as a ``.keras`` file: a zip of its settings and a HDF5 file of its weights.

    Raises
    ------
    ValueError
        If the file holds another model.
    """
    with zipfile.ZipFile(path) as kept:
        settings = json.loads(kept.read("config.json"))["config"]
        with h5py.File(io.BytesIO(kept.read("model.weights.h5")), "r") as file:  # within the zip, each seek reads it anew
            weights = {name: value[()] for name, value in file["vars"].items()} if "vars" in file else {}
    if "table" not in weights:
        raise ValueError(f"{path} holds no tied recommender of this version; run 05_recommender again.")
    return Learned.of_weights(settings, weights)


@dataclass(frozen=True)
class Histories:
    """The newest visits of n histories, one history after the other, each newest first.

    Attributes
    ----------
    items, age, event, place, row : ndarray, shape (m,)
        Product, age, event code, how many visits came after, and number of the history.
    newest : ndarray of int32, shape (n,)
        Where each history begins.
    repeats : ndarray of int64, shape (k,)
        Places of those visits that are the newest of their product in their history.
    habits : ndarray of float32, shape (k, len(HABITS))
        Of the history and the product at each of these places.
    """

    items: np.ndarray
    age: np.ndarray
    event: np.ndarray
    place: np.ndarray
    row: np.ndarray
    newest: np.ndarray
    repeats: np.ndarray
    habits: np.ndarray


def histories(examples: Examples, visits: int, decay_time: str) -> Histories:
    """The histories of the examples as flat arrays, cut to the newest `visits` visits."""
    lengths = np.minimum(examples.lengths, visits)
    newest = np.concatenate([[0], np.cumsum(lengths)])
    row = np.repeat(np.arange(len(examples), dtype=np.int32), lengths)
    place = (np.arange(newest[-1]) - newest[row]).astype(np.int32)
    position = examples.end[row] - 1 - place
    items = examples.items[position]
    if decay_time == "rank":
        age = place.astype(np.float32)
    else:
        age = examples.times[examples.end - 1][row] - examples.times[position]
        age = (np.log1p(age) if decay_time == "log_days" else age).astype(np.float32)
    key = row.astype(np.int64) * (int(items.max(initial=0)) + 1) + items
    _, repeats, times = np.unique(key, return_index=True, return_counts=True)  # the first of each key: the newest
    order = np.argsort(repeats)
    repeats, times = repeats[order], times[order]
    of, n = row[repeats], len(examples)
    revisits = lengths - np.bincount(of, minlength=n)
    in_a_row = np.bincount(row[1:][(np.diff(items) == 0) & (np.diff(row) == 0)], minlength=n)
    habits = np.log1p([times - 1, revisits[of], in_a_row[of], lengths[of], place[repeats]]).T.astype(np.float32)
    event = examples.events[position].astype(np.int32)
    return Histories(items, age, event, place, row, newest[:-1].astype(np.int32), repeats, habits)


def alike(
    links: Links, decay: float, examples: Examples, h: Histories, among: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What goes with each history (`Links.alike`), a visit of age t weighted by exp(-decay t).

    Parameters
    ----------
    links : Links
    decay : float
    examples : Examples
    h : Histories
        Of these examples.
    among : ndarray of bool, shape (n_products,)
        Products to look for.
    """
    offsets = np.append(h.newest, len(h.items)).astype(np.int64)
    weights = np.exp(-decay * h.age)  # the newest visit has age 0, so that no sum is 0
    weights /= np.repeat(np.add.reduceat(weights, offsets[:-1]), np.diff(offsets))
    return links.alike(examples, h.items, weights, offsets, among)


def queries(learned: Learned, h: Histories, without: Collection[str] = ()) -> np.ndarray:
    """q of each history, brought to length 1; float32, shape (n, dim).

    Parameters
    ----------
    learned : Learned
    h : Histories
    without : collection of str
        Of decay, events, attention and network: what is left out (`recommend`).
    """
    visit, newest, inner = learned.of_product
    logit = np.zeros_like(h.age) if "events" in without else learned.event_bias[h.event]
    if "decay" not in without:
        logit = logit - np.float32(learned.decay) * h.age
    last = h.items[h.newest]
    if learned.attention is not None and "attention" not in without:
        hidden = visit[h.items] + newest[last][h.row] + learned.of_place[h.place]
        logit = logit + (0.5 + 0.5 * np.tanh(0.5 * hidden)) @ learned.attention  # the sigmoid, which cannot overflow so
    w = np.exp(logit - np.maximum.reduceat(logit, h.newest)[h.row])
    w /= np.add.reduceat(w, h.newest)[h.row]
    q = np.add.reduceat(w[:, None] * learned.vectors[h.items], h.newest)
    if "network" not in without:
        dim = q.shape[1]
        q = q + np.maximum(q @ learned.inner[:dim] + inner[last] + learned.inner_bias, 0) @ learned.outer
    return q / np.sqrt(np.maximum((q * q).sum(axis=1, keepdims=True), 1e-8))


def repeat_bonus(learned: Learned, h: Histories) -> np.ndarray:
    """r_i + s(e_i) + o . relu(H [h, bias_j, bias_last] + g) of each of the histories' `repeats`; float32, shape (k,)."""
    place, newest = h.place[h.repeats], h.newest[h.row[h.repeats]]
    popularity = learned.bias[h.items[np.stack([h.repeats, newest], axis=1)]]
    hidden = np.concatenate([h.habits, popularity], axis=1) @ learned.habit_inner + learned.habit_bias
    return learned.repeat[place] + learned.repeat_event[h.event[h.repeats]] + np.maximum(hidden, 0) @ learned.habit_outer


def recommend(learned: Learned, without: Collection[str] = ()) -> Model:
    """What was learned as a `shelfspace.measure.ranking.Model`: from histories to scores of all products.

    The same block of histories has the same scores to the bit; in a block of another size a score may differ in its last digits,
    as BLAS sums in another order.

    Parameters
    ----------
    learned : Learned
    without : collection of str
        Names of `TERMS` that are left out of the score, as if they were 0; what else was learned stays as it is, though a model
        trained without the term would have learned something else. Popularity stays in what a product gains that was seen before.

    Raises
    ------
    ValueError
        If `without` holds another name.
    """
    if unknown := sorted(set(without) - set(TERMS)):
        raise ValueError(f"without holds {unknown[0]!r}; its terms must be among {', '.join(TERMS)}.")
    terms, bias = _terms(learned, without), learned.bias * ("popularity" not in without)

    def scores(examples: Examples) -> np.ndarray:
        products, *bonuses = terms(examples)
        if "similarity" in without:
            products[:] = 0
        products += bias
        for name, row, product, value in bonuses:  # several kinds may meet in one product; numpy is quick with one index alone
            if name not in without:
                np.add.at(products.ravel(), row.astype(np.int64) * products.shape[1] + product, value)
        return products

    return scores


def explain(learned: Learned, examples: Examples, row: np.ndarray, product: np.ndarray) -> pd.DataFrame:
    """The terms that make up the scores of some products for some histories.

    Parameters
    ----------
    learned : Learned
    examples : Examples
    row, product : ndarray of int, shape (m,)
        Which history asks for which product.

    Returns
    -------
    DataFrame
        m rows: score, and the terms of the module's formula, which sum to it: similarity (cos(q, v_j) / T), popularity (the bias),
        seen_before, came_after, and goes_together.
    """
    similar, *bonuses = _terms(learned)(examples)
    parts = {"similarity": similar[row, product], "popularity": learned.bias[product]}
    for name, *places, value in bonuses:
        added = np.zeros_like(similar)
        np.add.at(added, tuple(places), value)
        parts[name] = added[row, product]
    return pd.DataFrame({"score": np.sum(list(parts.values()), axis=0)} | parts)


def _terms(learned: Learned, without: Collection[str] = ()) -> Callable:
    """From histories to cos(q, v_j) / T of all products, and to each bonus: its name, histories, products and values.

    Parts of q that are in `without` are left out.
    """
    links, everything = learned.links, np.ones(len(learned.vectors), dtype=bool)
    weight = np.append(learned.link_weight, np.float32(learned.together))  # by kind, as `Links` numbers them
    scale = np.append(learned.link_scale, TOGETHER_SCALE)

    def terms(examples: Examples) -> list:
        h = histories(examples, learned.visits, learned.decay_time)
        similar = (queries(learned, h, without) / learned.temperature) @ learned.unit.T
        found = [similar, ("seen_before", h.row[h.repeats], h.items[h.repeats], repeat_bonus(learned, h))]
        together = alike(links, learned.decay_at_start, examples, h, everything)
        for name, (row, product, kind, value) in {"came_after": links.after(examples), "goes_together": together}.items():
            found.append((name, row, product, weight[kind] * np.log1p(scale[kind] * value)))
        return found

    return terms
