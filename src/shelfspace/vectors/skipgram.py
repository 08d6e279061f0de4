"""Skip-gram with negative sampling, with the two terms that Airbnb added to it, and a weight for each visit.

Mikolov et al. 2013, "Distributed Representations of Words and Phrases and their Compositionality", equation 4, gives
each product a vector v and a context vector u, and raises for each visit to p and each visit to c near it

    w_c ( log s(v_p . u_c) + sum_k log s(-v_p . u_nk) )                 s(x) = 1 / (1 + exp(-x))

with n_1 … n_K noise products, drawn once for all products that c is near to (Ji et al. 2016, "Parallelizing Word2Vec in
Shared and Distributed Memory": a row that was fetched is used at once), and, here, a weight w_c of the context's visit.
Grbovic & Cheng 2018, "Real-time Personalization using Embeddings for Search Ranking at Airbnb" (KDD), section 3, add for
each visit to p

    log s(v_p . u_b)                 b: what the visit's session bought in the end, however far away (a global positive)
    sum_m log s(-v_p . u_nm)         n_m: products of p's own category (their "market"), drawn for each pair

`shelfspace.vectors.word2vec` is gensim's trainer of the first line, and knows no other. Both train as well (benchmarks/README.md); this one
is faster. Here, too, one thread does it all, so one seed gives the same bytes.

What suits text need not suit a shop (Caselles-Dupré, Lesaint & Royo-Letelier, RecSys 2018, "Word2vec applied to
Recommendation: Hyperparameters Matter"): small logs want many more epochs, a larger step and more negatives
(benchmarks/README.md tells the search that chose the defaults).
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from tqdm import tqdm

from shelfspace.sequences.arrays import Corpus, passes
from shelfspace.vectors.embeddings import Embeddings, begin
from shelfspace.vectors.kernels import FAST, LANES, dot, draw

VISITS = 4_000_000  # trained on in all, when the number of epochs is left to the size of the log
GENTLE = 0.2  # of its step size and of its passes a training keeps that starts from an earlier one: at full size it forgets the start


def train(
    corpus: Corpus,
    *,
    weights: np.ndarray | None = None,
    goals: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    market: int = 0,
    dim: int = 50,
    window: int = 5,
    negatives: int = 20,
    ns_exponent: float = 0.5,
    subsample: float = 0.0,
    epochs: int = 0,
    learning_rate: float = 0.1,
    start: Embeddings | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Embeddings:
    """Train skip-gram with negative sampling; without the first four options, that and nothing else.

    Parameters
    ----------
    corpus : Corpus
        The training sequences (`shelfspace.sequences.arrays.corpus`).
    weights : ndarray of float, shape (n_visits,), optional
        w of each visit as a context; 1 where there is none.
    goals : ndarray of int64, shape (n_visits,), optional
        Where among the visits the purchase stands that the visit's session led to; -1 for none
        (`shelfspace.sequences.arrays.goals`).
    groups : ndarray of int, shape (n_products,), optional
        Category of each product of the corpus; -1 for none. Needed for `market`.
    market : int
        Noise products of the same category that each pair has besides `negatives`.
    dim : int
        Length of the vectors.
    window : int
        Products up to this many places before and after are context.
    negatives : int
        Noise products drawn for each visit as a context.
    ns_exponent : float
        Noise products are drawn in proportion to count ** ns_exponent: 1 as often as they occur, 0 uniformly, below
        0 rare ones more often. So is the noise of the same category.
    subsample : float
        A visit to a product with a share f of all visits above about this value is left out of a pass with the chance
        1 - sqrt(subsample / f) (as in word2vec's code, Mikolov et al. 2013, section 2.3); 0 keeps all.
    epochs : int
        Passes over the corpus; 0 chooses them by its size, for about four million visits in all (3 to 100 passes):
        small logs need many.
    learning_rate : float
        Step size of the gradient descent at the start; falls linearly to 0.
    start : Embeddings, optional
        Vectors of an earlier training, from which the products that both know set out, in smaller and fewer steps (`GENTLE`); the others
        from the products they stand near to.
    seed : int
        One thread and one seed: the same bytes in every process.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Embeddings
        The vectors v, with the mean loss per visit of each epoch.

    Raises
    ------
    ValueError
        If the corpus is empty, a parameter is out of its range, or the steps are so large that the vectors overflow.
    """
    for name, value, least in (("dim", dim, 1), ("window", window, 1), ("negatives", negatives, 1), ("market", market, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}.")
    if subsample < 0:
        raise ValueError(f"subsample is {subsample}; it must be 0 (keep all visits) or more.")
    if len(corpus.items) == 0:
        raise ValueError("There is no training visit, so there is nothing to learn from; give a longer log.")
    if market and groups is None:
        raise ValueError("Noise of the same category (market) needs the categories of the products; give groups as well.")
    count, visits = len(corpus.product_ids), len(corpus.items)
    epochs = epochs or max(1, round((1 if start is None else GENTLE) * passes(visits, VISITS)))
    learning_rate *= 1 if start is None else GENTLE
    rng = np.random.default_rng(seed)
    v, u = (np.zeros((count, -(-dim // LANES) * LANES), dtype=np.float32) for _ in range(2))
    v[:, :dim] = rng.uniform(-0.5 / dim, 0.5 / dim, (count, dim))
    begin(v[:, :dim], corpus, start)
    share = np.bincount(corpus.items, minlength=count).astype(float) ** ns_exponent
    chance, other = _alias(share)
    weights = np.ones(visits, np.float32) if weights is None else weights.astype(np.float32)
    goals = np.full(visits, -1) if goals is None else np.where(goals >= 0, corpus.items[goals], -1)  # products from here on
    seen, keep = (corpus.items, corpus.offsets, weights, goals), _keep(corpus.items, count, subsample)
    grouped = _grouped(np.full(count, -1) if groups is None else groups, share)
    losses = []
    with tqdm(total=epochs, desc="skip-gram", unit="epoch", disable=not progress) as bar:
        for epoch in range(epochs):
            order = rng.permutation(len(corpus))
            taken = seen if keep is None else _thinned(*seen, rng.random(visits) < keep)
            total = _epoch(
                v, u, *taken, order, rng.integers(1, 2**63, size=1, dtype=np.uint64), window, negatives, chance, other, *grouped,
                market, learning_rate * (1 - epoch / epochs), learning_rate * (1 - (epoch + 1) / epochs),
            )  # fmt: skip
            if not np.isfinite(total):
                raise ValueError(f"word2vec took steps so large that its vectors overflowed; lower the step size, {learning_rate}.")
            losses.append(total / max(1, len(taken[0])))
            bar.update()
            bar.set_postfix(loss=f"{losses[-1]:.3f}")
    return Embeddings(corpus.product_ids, v[:, :dim].copy(), tuple(losses))


def _keep(items: np.ndarray, count: int, subsample: float) -> np.ndarray | None:
    """Each visit's chance to stay in a pass; None where all stay."""
    if not subsample:
        return None
    of_product = subsample * len(items) / np.maximum(1, np.bincount(items, minlength=count))
    return (np.sqrt(of_product) + of_product)[items]  # 1 and more: always


def _thinned(items: np.ndarray, offsets: np.ndarray, weights: np.ndarray, goals: np.ndarray, kept: np.ndarray) -> tuple:
    """The visits that are kept, and where each sequence begins among them."""
    return items[kept], np.append(0, np.cumsum(kept))[offsets], weights[kept], goals[kept]


def update(
    v: np.ndarray,
    u: np.ndarray,
    product: int,
    context: int,
    noise: Sequence[int],
    *,
    weight: float = 1.0,
    learning_rate: float = 0.1,
) -> tuple[float, np.ndarray, np.ndarray]:
    """One pair's loss, and both tables after one step: what `train` does, made to be looked at.

    Parameters
    ----------
    v, u : ndarray, shape (n_products, dim)
        Vectors and context vectors; left as they are.
    product, context : int
    noise : sequence of int
        The noise products, those of the same category among them; none for a global positive.
    weight : float
        w of the context's visit.
    learning_rate : float

    Returns
    -------
    loss : float
    v, u : ndarray of float32, shape (n_products, dim)
    """
    v, u = v.astype(np.float32), u.astype(np.float32)
    outputs = np.array([context, *noise], dtype=np.int64)
    gradient = np.empty(v.shape[1], np.float32)
    loss = _learn(v, u, product, outputs, len(outputs), np.float32(weight), np.float32(learning_rate), gradient)
    return loss, v, u


@numba.njit(**FAST)
def _epoch(
    v, u, items, offsets, weights, goals, order, state, window, negatives, chance, other, group_of, group_starts, group_items,
    group_mass, market, rate_start, rate_end,
):  # fmt: skip
    """One pass over the sequences in `order`; returns the sum of the losses."""
    outputs, goal = np.empty(1 + negatives + market, np.int64), np.empty(1, np.int64)
    gradient = np.empty(v.shape[1], np.float32)
    total, done = 0.0, 0
    for s in order:
        begin, end = offsets[s], offsets[s + 1]
        for place in range(begin, end):  # a context
            rate = np.float32(rate_start + (rate_end - rate_start) * done / len(items))
            done += 1
            outputs[0] = items[place]
            shared = 1
            for _ in range(negatives):
                drawn = draw(state, len(chance))
                if _unit(state) >= chance[drawn]:
                    drawn = other[drawn]
                if drawn != outputs[0]:
                    outputs[shared] = drawn
                    shared += 1
            reach = 1 + draw(state, window)  # nearer contexts come up more often
            for near in range(max(begin, place - reach), min(end, place + reach + 1)):
                if near == place:
                    continue
                product, size = items[near], shared
                if market > 0 and group_of[product] >= 0:
                    first, last = group_starts[group_of[product]], group_starts[group_of[product] + 1]
                    for _ in range(market):
                        drawn = group_items[_within(state, group_mass, first, last)]
                        if drawn != outputs[0] and drawn != product:
                            outputs[size] = drawn
                            size += 1
                total += _learn(v, u, product, outputs, size, weights[place], rate, gradient)
            if goals[place] >= 0 and goals[place] != items[place]:
                goal[0] = goals[place]
                total += _learn(v, u, items[place], goal, 1, np.float32(1), rate, gradient)
    return total


@numba.njit(**FAST)
def _learn(v, u, product, outputs, size, weight, rate, gradient):
    """One step up the log-likelihood of ``outputs[0]`` and down that of the others; returns weight × the loss before it."""
    one, unlikely = np.float32(1), 1.0  # 1 / the product of the likelihoods, so that a step needs one logarithm
    gradient[:] = 0
    for k in range(size):
        out = outputs[k]
        score = dot(v[product], u[out])
        sign = one if k == 0 else -one
        odds = np.exp(-sign * score)  # 1 / (1 + odds) is the likelihood of what was seen
        unlikely *= one + odds
        step = weight * rate * sign * odds / (one + odds)
        for i in range(len(gradient)):
            gradient[i] += step * u[out, i]
            u[out, i] += step * v[product, i]
    for i in range(len(gradient)):
        v[product, i] += gradient[i]
    return weight * np.log(unlikely)


@numba.njit(forceinline=True, **FAST)
def _unit(state):
    """A number in [0, 1)."""
    return np.float32(draw(state, 16_777_216)) * np.float32(1 / 16_777_216)


@numba.njit(forceinline=True, **FAST)
def _within(state, mass, first, last):
    """A place in ``first:last`` in proportion to what each adds to the running sum `mass`, which begins with 0."""
    goal = mass[first] + _unit(state) * (mass[last] - mass[first])
    low, high = first, last - 1
    while low < high:
        middle = (low + high) // 2
        if mass[middle + 1] > goal:
            high = middle
        else:
            low = middle + 1
    return low


@numba.njit(**FAST)
def _alias(share):
    """Tables to draw from a distribution in constant time (Walker 1977): place n with chance[n], else other[n]."""
    n = len(share)
    scaled = share / share.sum() * n
    chance, other = np.ones(n, np.float32), np.arange(n)
    small, large = np.flatnonzero(scaled < 1), np.flatnonzero(scaled >= 1)
    few, many = len(small), len(large)
    waiting = np.empty(n, np.int64)
    waiting[:few] = small
    while few > 0 and many > 0:
        few, many = few - 1, many - 1
        poor, rich = waiting[few], large[many]
        chance[poor], other[poor] = scaled[poor], rich
        scaled[rich] -= 1 - scaled[poor]
        if scaled[rich] < 1:
            waiting[few] = rich
            few += 1
        else:
            many += 1
    return chance, other


def _grouped(groups: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Group of each product, where each group begins among the products in order of group, these, and their running share."""
    products = np.argsort(groups, kind="stable")
    products = products[groups[products] >= 0]
    starts = np.searchsorted(groups[products], np.arange(groups.max(initial=-1) + 2))
    return groups, starts, products, np.concatenate([[0.0], np.cumsum(share[products])])
