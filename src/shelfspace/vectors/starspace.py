"""Product embeddings by StarSpace: place a product near the rest of the sequence that it was taken from.

Wu et al. 2017, "StarSpace: Embed All The Things!" (arXiv 1709.03856), sections 3 and 4, for collections of items. For
a sequence, one product is the label b and the others are the bag a. With sim the similarity (cosine, or a dot product
of sums over n ** p rows) and b1 … bK sampled negatives,

    hinge      sum_k max(0, margin - sim(a, b) + sim(a, b_k))
    softmax    -log( exp(sim(a, b) / t) / (exp(sim(a, b) / t) + sum_k exp(sim(a, b_k) / t)) )

is lowered by Adagrad; the hinge of only so many negatives at a time as `max_kept` says, which is what the reported loss
counts, divided by K. Both sides share one table, with an Adagrad accumulator per row for each side. A product may be
the sum of several rows of the table: its own and those of its features (`shelfspace.vectors.features`), which other products
share; so a product that nobody clicked has a vector, too.

Three switches, off by default, take over what others found for shops. `weights`: some visits are labels more often.
`goals`: what the label's session bought in the end is a second label, b*, to the visit alone, which adds the loss of
(a = the visit, b = b*) to the example; drawn over all visits, this is the global context of Grbovic & Cheng 2018 (KDD,
section 3.2). `market`: some of the negatives of each example are of its label's own category, as in the same section.

One thread does it all, and so one seed gives the same bytes. It is fast because the rows are padded to whole vector
registers, all that a batch reads from the table is read before it is used, and the negatives, which move at nearly
every example, move once for the whole batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numba
import numpy as np
from tqdm import tqdm

from shelfspace.sequences.arrays import Corpus, passes
from shelfspace.vectors.embeddings import Embeddings, begin
from shelfspace.vectors.features import Features
from shelfspace.vectors.kernels import FAST, LANES, add, dot, draw, exp

SIMILARITIES = ("cosine", "dot")
LOSSES = ("hinge", "softmax")
EXAMPLES = 2_000_000  # trained on in all, when the number of epochs is left to the size of the log
EPSILON = np.float32(1e-6)  # under Adagrad's root
GENTLE = 0.1  # of its step size and of its passes a training keeps that starts from an earlier one: at full size it forgets the start


def train(
    corpus: Corpus,
    *,
    features: Features | None = None,
    own_rows: bool = True,
    weights: np.ndarray | None = None,
    goals: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    market: int = 0,
    dim: int = 50,
    similarity: str = "cosine",
    loss: str = "hinge",
    margin: float = 0.2,
    temperature: float = 1.0,
    negatives: int = 50,
    max_kept: int = 10,
    batch: int = 10,
    window: int = 0,
    epochs: int = 0,
    learning_rate: float = 0.05,
    p: float = 0.5,
    max_norm: float = 1.0,
    validate: Callable[[Embeddings], float] | None = None,
    patience: int = 0,
    start: Embeddings | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Embeddings:
    """Train StarSpace on sequences of products.

    Parameters
    ----------
    corpus : Corpus
        The training sequences (`shelfspace.sequences.arrays.corpus`); those with a single visit are skipped. What stands in
        them may be any entity that has an id: with `features`, also a search query that is the sum of its words.
    features : Features, optional
        A product's row is then added to those of its features. Products with features but without a visit get a
        vector as well.
    own_rows : bool
        False: products are the sums of their features and nothing else; those without a feature have a zero vector.
    weights : ndarray of int, shape (n_visits,), optional
        How many times as likely as others of its sequence each visit is to be the label; at least 1.
    goals : ndarray of int64, shape (n_visits,), optional
        Where among the visits the purchase stands that the visit's session led to; -1 for none
        (`shelfspace.sequences.arrays.goals`).
    groups : ndarray of int, shape (n_products,), optional
        Category of each product of the corpus; -1 for none. Needed for `market`.
    market : int
        So many of the negatives are drawn for each example alone, from the visits to products of the label's category.
    dim : int
        Length of the vectors.
    similarity : {"cosine", "dot"}
        Of the sums of both sides.
    loss : {"hinge", "softmax"}
        Margin ranking, or softmax over the label and its negatives.
    margin : float
        By how much the label must be more similar than a negative (hinge).
    temperature : float
        t of the softmax; 0.1 to 0.2 goes with the cosine, 1 with the dot product. The step is that of t times the loss,
        so that the learning rate need not change with it.
    negatives : int
        K, drawn for every batch: a uniformly drawn sequence, then the product that is its label in this epoch, so
        that products are drawn about as often as they occur.
    max_kept : int
        Use at most so many of the negatives that violate the margin (hinge); the loss that is reported is theirs, too, by K.
    batch : int
        Examples that share their negatives and are scored before any of them moves a vector. The original's is 5.
    window : int
        Take only the products up to this many places from the label into the bag; 0 takes all of the sequence.
    epochs : int
        Passes over the sequences, each of which gives one example per pass; 0 chooses them by the size of the log,
        for about two million examples in all (3 to 100 passes).
    learning_rate : float
        Of Adagrad; falls linearly to nearly 0.
    p : float
        Sums are divided by n ** p (dot).
    max_norm : float
        Rows longer than this are shortened to it, whenever they were among the negatives and after every epoch.
    validate : callable, optional
        Takes the `Embeddings` after each epoch and returns a number, the higher the better, say a hit rate; they are
        kept as `Embeddings.scores`.
    patience : int
        Stop after so many epochs without a better score, and return the best epoch's vectors; 0 never stops.
    start : Embeddings, optional
        Vectors of an earlier training, from which the products that both know set out, in smaller and fewer steps (`GENTLE`), the
        others from the products they stand near to. Not with features, whose products are sums.
    seed : int
        One seed: the same bytes in every process.
    progress : bool
        Show a progress bar with the loss, the examples per second and the score.

    Returns
    -------
    Embeddings
        Of the products (with features: also of those without a visit), with the mean loss per example of each epoch.
        `Embeddings.features` holds the vectors of the features.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or no sequence has two visits.
    """
    _check(similarity, loss, locals())
    if (groups is None and market) or not 0 <= market <= negatives:
        raise ValueError(f"market is {market}; it must be from 0 to negatives ({negatives}), and needs groups.")
    if not own_rows and features is None:
        raise ValueError("Products that are the sums of their features alone (own_rows) need features; give them as well.")
    usable = np.flatnonzero(np.diff(corpus.offsets) > 1)
    if len(usable) == 0:
        raise ValueError("No training sequence has two visits, so there is nothing to place near each other.")
    epochs = epochs or max(1, round((1 if start is None or features else GENTLE) * passes(len(usable), EXAMPLES)))
    learning_rate *= 1 if start is None or features else GENTLE
    product_ids, starts, rows, n_rows = _rows(corpus, features, own_rows)
    items = corpus.items
    weights = np.zeros(0, np.int64) if weights is None else weights.astype(np.int64)
    goals = np.zeros(0, np.int64) if goals is None else goals.astype(np.int64)
    group = groups[items] if market else np.zeros(0, np.int64)  # of each visit
    by_group = np.argsort(group, kind="stable")
    by_group = by_group[group[by_group] >= 0]
    group_starts = np.searchsorted(group[by_group], np.arange(group.max(initial=-1) + 2))
    if features:  # from the corpus's vocabulary to all products'
        items = np.searchsorted(product_ids, corpus.product_ids).astype(np.int32)[items]

    rng = np.random.default_rng(seed)
    table = np.zeros((n_rows, -(-dim // LANES) * LANES), dtype=np.float32)
    table[:, :dim] = rng.normal(0.0, 0.001, (n_rows, dim))
    begin(table[:, :dim], corpus, None if features else start)
    squares = np.zeros((n_rows, 2), dtype=np.float32)  # Adagrad: of the rows in a bag, and in a label
    losses, scores, best = [], [], None
    with tqdm(total=epochs, desc="StarSpace", unit="epoch", disable=not progress) as bar:
        for epoch in range(epochs):
            started = time.perf_counter()
            order = rng.permutation(usable)
            total = _epoch(
                table, squares, starts, rows, items, corpus.offsets, order,
                rng.integers(1, 2**63, size=1, dtype=np.uint64), dim,
                learning_rate * (1 - epoch / epochs), learning_rate * (1 - (epoch + 1) / epochs),
                similarity == "cosine", loss == "hinge", margin, temperature, negatives, max_kept, batch, window, p,
                max_norm, weights, goals, group, group_starts, by_group, market,
            )  # fmt: skip
            losses.append(total / len(order))
            _shorten(table, 0, n_rows, max_norm)
            shown = {"loss": f"{losses[-1]:.5f}", "examples/s": f"{len(order) / (time.perf_counter() - started):,.0f}"}
            if validate:
                made = _embeddings(product_ids, table, dim, starts, rows, features, losses, scores)
                scores.append(float(validate(made)))
                shown["score"] = f"{scores[-1]:.4f}"
                if scores[-1] == max(scores):
                    best = table.copy()
            bar.update()
            bar.set_postfix(shown)
            if patience and len(scores) - 1 - int(np.argmax(scores)) >= patience:
                break
    table = best if patience else table
    return _embeddings(product_ids, table, dim, starts, rows, features, losses, scores)


def update(
    vectors: np.ndarray,
    bag: Sequence[int],
    label: int,
    noise: Sequence[int],
    *,
    similarity: str = "cosine",
    loss: str = "hinge",
    margin: float = 0.2,
    temperature: float = 1.0,
    max_kept: int = 10,
    learning_rate: float = 0.05,
    p: float = 0.5,
    squares: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """One example's loss, and the vectors after an update, the very first one by default: what `train` does, made to be looked at.

    Parameters
    ----------
    vectors : ndarray, shape (n_products, dim)
        Left as they are.
    bag : sequence of int
        Products of the bag, as rows of `vectors`.
    label : int
    noise : sequence of int
        The negatives.
    similarity, loss, margin, temperature, max_kept, learning_rate, p
        As in `train`.
    squares : ndarray of float32, shape (n_products, 2), optional
        Adagrad's sums of the updates before, of each product in a bag and as a label; moved on in place. None: there was no other.

    Returns
    -------
    loss : float
        Of the negatives that were used (at most `max_kept` for the hinge), divided by their number K for the hinge.
    vectors : ndarray of float32, shape (n_products, dim)
    """
    count, dim = vectors.shape
    table = vectors.astype(np.float32)
    squares = np.zeros((count, 2), np.float32) if squares is None else squares
    result = _batch(
        table, squares, np.arange(count + 1), np.arange(count, dtype=np.int32),
        np.array([*bag, label], dtype=np.int32), np.array([[0, len(bag)]]), np.array([len(bag)]), np.array(noise), dim,
        learning_rate, similarity == "cosine", loss == "hinge", margin, temperature, max_kept, p, np.inf, 0,
    )  # fmt: skip
    return result, table


def _check(similarity: str, loss: str, given: dict) -> None:
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity is {similarity!r}; it must be one of {', '.join(SIMILARITIES)}.")
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; it must be one of {', '.join(LOSSES)}.")
    for name in ("dim", "negatives", "max_kept", "batch"):
        if given[name] < 1:
            raise ValueError(f"{name} is {given[name]}; it must be at least 1.")
    for name in ("epochs", "window", "patience", "margin", "p"):
        if given[name] < 0:
            raise ValueError(f"{name} is {given[name]}; it must be 0 or more.")
    for name in ("learning_rate", "temperature", "max_norm"):
        if given[name] <= 0:
            raise ValueError(f"{name} is {given[name]}; it must be more than 0.")
    if given["patience"] and not given["validate"]:
        raise ValueError("patience needs a score to watch; give validate as well.")


def _rows(corpus: Corpus, features: Features | None, own_rows: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """All product ids, the rows of the table that each is the sum of, and the number of rows.

    Product i is the sum of ``rows[starts[i]:starts[i + 1]]``: its own row, if it has a visit, and its features'.
    """
    if features is None:
        count = len(corpus.product_ids)
        return corpus.product_ids, np.arange(count + 1), np.arange(count, dtype=np.int32), count
    product_ids = np.union1d(corpus.product_ids, features.product_ids)
    own = np.searchsorted(product_ids, corpus.product_ids) if own_rows else np.zeros(0, np.int64)
    described = np.repeat(np.searchsorted(product_ids, features.product_ids), np.diff(features.matrix.indptr))
    product = np.concatenate([own, described])
    row = np.concatenate([np.arange(len(own)), len(own) + features.matrix.indices]).astype(np.int32)
    order = np.argsort(product, kind="stable")
    starts = np.searchsorted(product[order], np.arange(len(product_ids) + 1))
    return product_ids, starts, row[order], len(own) + len(features.names)


def _embeddings(product_ids, table, dim, starts, rows, features, losses, scores) -> Embeddings:
    """Sum the rows of each product."""
    if features is None:
        return Embeddings(product_ids, table[:, :dim].copy(), tuple(losses), tuple(scores))
    vectors = np.add.reduceat(np.vstack([table[rows, :dim], np.zeros((1, dim), np.float32)]), starts[:-1])
    vectors[starts[:-1] == starts[1:]] = 0  # neither a visit nor a feature
    of_features = Embeddings(features.names, table[len(table) - len(features.names) :, :dim].copy())
    return Embeddings(product_ids, vectors, tuple(losses), tuple(scores), of_features)


@numba.njit(**FAST)
def _epoch(
    table, squares, starts, rows, items, offsets, order, state, dim, rate_start, rate_end, cosine, hinge, margin,
    temperature, negatives, max_kept, batch, window, p, max_norm, weights, goals, group, group_starts, by_group, market,
):  # fmt: skip
    """One pass over the sequences in `order`, in batches that share negatives; returns the sum of the losses."""
    labels = _draw_labels(offsets, order, weights, state)
    shared = negatives - market
    drawn = np.empty(shared + 2 * batch * market, np.int64)  # those of all examples, then those of each
    bags = np.empty((2 * batch, 2), np.int64)  # where the bag's visits begin and end, the label's own among them
    chosen = np.empty(2 * batch, np.int64)  # the labels of the batch, and after them the goals
    total = 0.0
    for first in range(0, len(order), batch):
        last = min(first + batch, len(order))
        for k in range(shared):
            drawn[k] = items[labels[draw(state, len(order))]]
        size = last - first
        for b in range(size):
            place = labels[first + b]
            chosen[b] = place
            begin, end = offsets[order[first + b]], offsets[order[first + b] + 1]
            if window > 0:
                begin, end = max(begin, place - window), min(end, place + window + 1)
            bags[b, 0], bags[b, 1] = begin, end
        if len(goals) > 0:
            for b in range(last - first):
                place = labels[first + b]
                if goals[place] >= 0 and items[goals[place]] != items[place]:
                    chosen[size], bags[size, 0], bags[size, 1] = goals[place], place, place + 1
                    size += 1
        for b in range(size if market > 0 else 0):
            of = group[chosen[b]]
            for k in range(shared + b * market, shared + (b + 1) * market):
                if of >= 0:
                    drawn[k] = items[by_group[group_starts[of] + draw(state, group_starts[of + 1] - group_starts[of])]]
                else:
                    drawn[k] = items[labels[draw(state, len(order))]]
        total += _batch(
            table, squares, starts, rows, items, bags, chosen[:size], drawn[: shared + size * market], dim,
            rate_start + (rate_end - rate_start) * first / len(order), cosine, hinge, margin, temperature, max_kept, p,
            max_norm, market,
        )  # fmt: skip
    return total


@numba.njit(forceinline=True, **FAST)  # compiled apart, it would add in another order in the run that compiles than in later ones
def _batch(
    table, squares, starts, rows, items, bags, labels, drawn, dim, rate, cosine, hinge, margin, temperature, max_kept, p,
    max_norm, apart,
):  # fmt: skip
    """Learn from one batch: the label of example b is the visit ``labels[b]``, its bag the other visits of ``bags[b]``.

    The last `apart` × len(labels) of the negatives are for one example each, the others for all. All projections are those of the batch's start. Returns the sum of the losses.
    """
    width = table.shape[1]
    shared, every = len(drawn) - apart * len(labels), len(drawn)
    negatives = shared + apart  # of each example
    left, right = np.empty((len(labels), width), np.float32), np.empty((len(labels), width), np.float32)
    noise = np.empty((every, width), np.float32)
    for k in range(every):
        _project(table, starts, rows, drawn, k, k + 1, -1, cosine, p, noise[k])
    for b in range(len(labels)):
        _project(table, starts, rows, items, bags[b, 0], bags[b, 1], labels[b], cosine, p, left[b])
        _project(table, starts, rows, items, labels[b], labels[b] + 1, -1, cosine, p, right[b])

    weights = np.empty(negatives, np.float32)  # how strongly each kept negative repels the bag
    repel = np.zeros((every, len(labels)), np.float32)  # how far each example moves each negative
    kept = np.empty(negatives, np.int64)
    gradient = np.empty(width, np.float32)
    sizes = np.empty(len(labels), np.float32)  # mean square of each bag
    steps, movers = np.empty(len(labels), np.float32), np.empty(len(labels), np.int64)
    rate, one, total = np.float32(rate), np.float32(1), 0.0
    for b in range(len(labels)):
        label, bag = items[labels[b]], left[b]
        positive = dot(bag, right[b])
        count = 0
        if hinge:
            bound = positive - np.float32(margin)
            for j in range(negatives):
                k = shared + b * apart + j if j < apart else j - apart
                score = dot(bag, noise[k])
                if score > bound and drawn[k] != label:
                    total += (score - bound) / negatives
                    kept[count] = k
                    count += 1
                    if count == max_kept:
                        break
            pull = one  # how strongly the label attracts
            weights[:count] = one / np.float32(max(1, count))
        else:
            sharpness = np.float32(1 / temperature)
            top = positive
            for j in range(negatives):
                k = shared + b * apart + j if j < apart else j - apart
                if drawn[k] != label:
                    weights[count] = dot(bag, noise[k])
                    top = max(top, weights[count])
                    kept[count] = k
                    count += 1
            own = exp((positive - top) * sharpness)
            mass = own
            for j in range(count):
                weights[j] = exp((weights[j] - top) * sharpness)
                mass += weights[j]
            total -= np.log(own / mass)
            pull = one - own / mass
            for j in range(count):
                weights[j] /= mass
        if count == 0:
            continue

        # The projections' scale is held constant, so that every row of the bag gets the same gradient.
        for i in range(width):
            gradient[i] = -pull * right[b, i]
        add(gradient, weights[:count], noise, kept)
        square = dot(gradient, gradient) / np.float32(dim)
        for at in range(bags[b, 0], bags[b, 1]):
            if at != labels[b]:
                _move(table, squares, 0, starts, rows, items[at], gradient, square, -rate)
        sizes[b] = dot(bag, bag) / np.float32(dim)
        _move(table, squares, 1, starts, rows, label, bag, sizes[b], rate * pull)
        for j in range(count):
            repel[kept[j], b] = rate * weights[j]
    for k in range(every):  # last, so that each row is fetched once for all examples
        for r in range(starts[drawn[k]], starts[drawn[k] + 1]):
            row = rows[r]
            count, square = 0, squares[row, 1]
            for b in range(len(labels)):
                if repel[k, b] > 0:
                    square += sizes[b]
                    steps[count] = -repel[k, b] / np.sqrt(square + EPSILON)
                    movers[count] = b
                    count += 1
            squares[row, 1] = square
            add(table[row], steps[:count], left, movers)
            _shorten(table, row, row + 1, max_norm)
    return total


@numba.njit(forceinline=True, **FAST)
def _shorten(table, begin, end, max_norm):
    """Shorten rows begin to end that are longer than max_norm to it."""
    for row in range(begin, end):
        square = dot(table[row], table[row])
        if square > max_norm * max_norm:
            scale = np.float32(max_norm / np.sqrt(square))
            for i in range(table.shape[1]):
                table[row, i] *= scale


@numba.njit(**FAST)
def _draw_labels(offsets, order, weights, state):
    """Where the label of each sequence in `order` stands among the items, drawn uniformly or, if given, by weights."""
    labels = np.empty(len(order), np.int64)
    for n in range(len(order)):
        begin, end = offsets[order[n]], offsets[order[n] + 1]
        if len(weights) == 0:
            labels[n] = begin + draw(state, end - begin)
        else:
            left = draw(state, weights[begin:end].sum())
            while left >= weights[begin]:
                left -= weights[begin]
                begin += 1
            labels[n] = begin
    return labels


@numba.njit(forceinline=True, **FAST)
def _project(table, starts, rows, items, begin, end, leave_out, cosine, p, out):
    """Sum the rows of ``items[begin:end]`` (but the one at `leave_out`), scaled to length 1 or by 1 / n ** p."""
    out[:] = 0
    count = 0
    for at in range(begin, end):
        if at != leave_out:
            for r in range(starts[items[at]], starts[items[at] + 1]):
                row = rows[r]
                count += 1
                for i in range(len(out)):
                    out[i] += table[row, i]
    scale = np.float32(1) / (np.sqrt(dot(out, out)) + np.float32(1e-12)) if cosine else np.float32(max(1, count) ** -p)
    for i in range(len(out)):
        out[i] *= scale


@numba.njit(forceinline=True, **FAST)
def _move(table, squares, side, starts, rows, item, direction, square, weight):
    """Move all rows of an item."""
    for r in range(starts[item], starts[item + 1]):
        _step(table, squares, rows[r], side, direction, square, weight)


@numba.njit(forceinline=True, **FAST)
def _step(table, squares, row, side, direction, square, weight):
    """Adagrad with one accumulator per row and side: move by weight × direction over its root."""
    squares[row, side] += square
    step = weight / np.sqrt(squares[row, side] + EPSILON)
    for i in range(len(direction)):
        table[row, i] += step * direction[i]
