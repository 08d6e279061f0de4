"""Product embeddings by StarSpace: place a product near the rest of the sequence that it was taken from.

Wu et al. 2017, "StarSpace: Embed All The Things!" (arXiv 1709.03856), sections 3 and 4, for collections of items. For
a sequence, one product is the label b and the others are the bag a. With sim the similarity (cosine, or a dot product
of sums over n ** p products) and b1 … bK sampled negatives,

    hinge      sum_k max(0, margin - sim(a, b) + sim(a, b_k))
    softmax    -log( exp sim(a, b) / (exp sim(a, b) + sum_k exp sim(a, b_k)) )

is lowered by Adagrad. Both sides share one table, with an Adagrad accumulator per row for each side.
"""

from __future__ import annotations

import numba
import numpy as np
from tqdm.auto import tqdm

from shelfspace.embeddings import Embeddings
from shelfspace.sequences import Corpus, passes

SIMILARITIES = ("cosine", "dot")
LOSSES = ("hinge", "softmax")
EXAMPLES = 2_000_000  # trained on in all, when the number of epochs is left to the size of the log
BATCH = 5  # examples that share their negatives, as in the original


def train(
    corpus: Corpus,
    *,
    dim: int = 50,
    similarity: str = "cosine",
    loss: str = "hinge",
    margin: float = 0.2,
    negatives: int = 50,
    max_kept: int = 10,
    window: int = 0,
    epochs: int = 0,
    learning_rate: float = 0.05,
    p: float = 0.5,
    max_norm: float = 1.0,
    seed: int = 0,
    progress: bool = True,
) -> Embeddings:
    """Train StarSpace on sequences of products.

    Parameters
    ----------
    corpus : Corpus
        The training sequences (`shelfspace.sequences.corpus`); those with a single visit are skipped.
    dim : int
        Length of the vectors.
    similarity : {"cosine", "dot"}
        Of the sums of both sides.
    loss : {"hinge", "softmax"}
        Margin ranking or softmax over the label and its negatives.
    margin : float
        By how much the label must be more similar than a negative (hinge).
    negatives : int
        K, drawn for every five examples: a uniformly drawn sequence, then a uniformly drawn visit of it, so that
        products are drawn about as often as they occur.
    max_kept : int
        Use at most so many of the negatives that violate the margin (hinge).
    window : int
        Take only the products up to this many places from the label into the bag; 0 takes all of the sequence.
    epochs : int
        Passes over the sequences, each of which gives one example per pass; 0 chooses them by the size of the log,
        for about two million examples in all (5 to 100 passes).
    learning_rate : float
        Of Adagrad; falls linearly to nearly 0.
    p : float
        Sums are divided by n ** p (dot).
    max_norm : float
        Vectors longer than this are shortened to it after every epoch.
    seed : int
        One thread and one seed: the same bytes in every process.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Embeddings

    Raises
    ------
    ValueError
        If `similarity` or `loss` is unknown, or no sequence has two visits.
    """
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity is {similarity!r}; it must be one of {', '.join(SIMILARITIES)}.")
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; it must be one of {', '.join(LOSSES)}.")
    usable = np.flatnonzero(np.diff(corpus.offsets) > 1)
    if len(usable) == 0:
        raise ValueError("No training sequence has two visits, so there is nothing to place near each other.")
    epochs = epochs or passes(len(usable), EXAMPLES)
    rng = np.random.default_rng(seed)
    table = rng.normal(0.0, 0.001, (len(corpus.product_ids), dim)).astype(np.float32)
    squares = np.zeros((2, len(table)), dtype=np.float32)  # Adagrad: of the rows as bag, and as label
    losses = []
    with tqdm(total=epochs, desc="StarSpace", unit="epoch", disable=not progress) as bar:
        for epoch in range(epochs):
            rates = learning_rate * (1 - np.array([epoch, epoch + 1]) / epochs)
            losses.append(
                _epoch(
                    table,
                    squares,
                    corpus.items,
                    corpus.offsets,
                    usable,
                    rng.permutation(usable),
                    int(rng.integers(2**31)),
                    rates[0],
                    rates[1],
                    similarity == "cosine",
                    loss == "hinge",
                    margin,
                    negatives,
                    max_kept,
                    window,
                    p,
                )  # fmt: skip
            )
            table *= np.minimum(1, max_norm / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12))
            bar.update()
            bar.set_postfix(loss=f"{losses[-1]:.5f}")
    return Embeddings(corpus.product_ids, table, tuple(losses))


@numba.njit(cache=True)
def _epoch(
    table, squares, items, offsets, usable, order, seed, rate_start, rate_end, cosine, hinge, margin, negatives, max_kept,
    window, p,
):  # fmt: skip
    """One pass over the sequences in `order`, in batches that share negatives; returns the mean loss per example."""
    np.random.seed(seed)
    dim = table.shape[1]
    drawn = np.empty(negatives, np.int64)
    noise = np.empty((negatives, dim), np.float32)
    labels = np.empty(BATCH, np.int64)
    bags = np.empty((BATCH, 2), np.int64)  # where the bag's visits begin and end, the label's own among them
    left = np.empty((BATCH, dim), np.float32)
    right = np.empty((BATCH, dim), np.float32)
    scores = np.empty(negatives, np.float32)
    kept = np.empty(negatives, np.int64)
    gradient = np.empty(dim, np.float32)
    total = 0.0
    for first in range(0, len(order), BATCH):
        size = min(BATCH, len(order) - first)
        rate = rate_start + (rate_end - rate_start) * first / len(order)
        for k in range(negatives):
            s = usable[np.random.randint(len(usable))]
            drawn[k] = items[np.random.randint(offsets[s], offsets[s + 1])]
            _project(table, drawn[k : k + 1], -1, cosine, p, noise[k])
        for b in range(size):  # all projections are those of the batch's start
            s = order[first + b]
            place = np.random.randint(offsets[s], offsets[s + 1])
            begin, end = offsets[s], offsets[s + 1]
            if window > 0:
                begin, end = max(begin, place - window), min(end, place + window + 1)
            labels[b], bags[b, 0], bags[b, 1] = place, begin, end
            _project(table, items[begin:end], place - begin, cosine, p, left[b])
            _project(table, items[place : place + 1], -1, cosine, p, right[b])
        for b in range(size):
            label = items[labels[b]]
            positive = np.float32(0)
            for i in range(dim):
                positive += left[b, i] * right[b, i]
            count = 0
            for k in range(negatives):
                if drawn[k] == label:
                    continue
                score = np.float32(0)
                for i in range(dim):
                    score += left[b, i] * noise[k, i]
                if hinge:
                    excess = margin - positive + score
                    if excess <= 0 or count == max_kept:
                        continue
                    total += excess / negatives
                    scores[count] = 1.0  # divided by the number kept below
                else:
                    scores[count] = score
                kept[count] = k
                count += 1
            if count == 0:
                continue
            pull = np.float32(1.0)  # how strongly the label attracts: the derivative of the loss by -positive
            if hinge:
                scores[:count] /= count
            else:
                top = max(positive, scores[:count].max())
                own = np.exp(positive - top)
                scores[:count] = np.exp(scores[:count] - top)
                all_of_it = own + scores[:count].sum()
                total -= np.log(own / all_of_it)
                scores[:count] /= all_of_it
                pull = 1 - own / all_of_it
            for i in range(dim):
                gradient[i] = -pull * right[b, i]
            for j in range(count):
                for i in range(dim):
                    gradient[i] += scores[j] * noise[kept[j], i]
            # The projections' scale is held constant, so that every row of the bag gets the same gradient.
            for at in range(bags[b, 0], bags[b, 1]):
                if at != labels[b]:
                    _step(table, squares[0], items[at], gradient, np.float32(-1), rate)
            _step(table, squares[1], label, left[b], pull, rate)
            for j in range(count):
                _step(table, squares[1], drawn[kept[j]], left[b], -scores[j], rate)
    return total / len(order)


@numba.njit(cache=True, inline="always")
def _project(table, rows, leave_out, cosine, p, out):
    """Sum the rows (but the one at place `leave_out`), scaled to length 1 (cosine) or by 1 / n ** p (dot)."""
    out[:] = 0
    for place in range(len(rows)):
        if place != leave_out:
            for i in range(len(out)):
                out[i] += table[rows[place], i]
    if cosine:
        scale = np.sqrt((out * out).sum()) + 1e-12
    else:
        scale = max(1, len(rows) - (leave_out >= 0)) ** p
    for i in range(len(out)):
        out[i] /= np.float32(scale)


@numba.njit(cache=True, inline="always")
def _step(table, squares, row, direction, weight, rate):
    """Adagrad with one accumulator per row: move by weight × direction, scaled by the row's history of squares."""
    dim = table.shape[1]
    square = np.float32(0)
    for i in range(dim):
        square += direction[i] * direction[i]
    squares[row] += square / dim
    step = np.float32(rate * weight / np.sqrt(squares[row] + 1e-6))
    for i in range(dim):
        table[row, i] += step * direction[i]
