"""Session-KNN: what was in the training sequences that are most like the history."""

from __future__ import annotations

import numba as nb
import numpy as np
import pandas as pd
import scipy.sparse as sp

from shelfspace.measure.ranking import Model, nth_largest
from shelfspace.models import baselines, transitions
from shelfspace.models.users import history_weights
from shelfspace.sequences.arrays import Corpus, Examples


def session_knn(
    corpus: Corpus,
    product_ids: np.ndarray,
    neighbours: int = 500,
    sample: int = 5000,
    decay: float | None = None,
    decay_time: str = "rank",
    own: bool = False,
) -> Model:
    """What the training sequences most like the history hold: V-SKNN of Ludewig & Jannach (2018).

    The history is a vector of weights that grow with recency; a training sequence is a vector of ones. Their dot product
    is the similarity. Of the training sequences that share a product with the history, the `sample` most recent are
    compared and the `neighbours` most similar add their similarity to the score of each of their products. Ties
    go to the more recent sequence; the most visited products follow. Nobody is their own neighbour where the corpus
    says whose its sequences are.

    Parameters
    ----------
    corpus : Corpus
        What may train; without times, later sequences are taken to be more recent.
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    neighbours, sample : int
        At least 1.
    decay : float, optional
        Weigh the history by `shelfspace.models.users.history_weights`. None: linearly, as in the paper, the i-th of n visits
        by i / n.
    decay_time : {"days", "log_days", "rank"}
        How `decay` counts age.
    own : bool
        Let the user's own sequence be a neighbour.
    """
    if neighbours < 1 or sample < 1:
        raise ValueError(f"neighbours is {neighbours} and sample is {sample}; both must be 1 or more.")
    seen = transitions.holds(corpus.places(product_ids), corpus.offsets, len(product_ids))
    order = np.arange(len(corpus))
    if corpus.times is not None:  # sequences in order of their newest visit
        order = np.argsort(np.maximum.reduceat(corpus.times, corpus.offsets[:-1]), kind="stable")
        seen = seen[order]
    users = pd.Index([] if own or corpus.user_ids is None else corpus.user_ids[order])
    holders = seen.T.tocsr()
    holders.sort_indices()
    row = 1e-6 * baselines.tie_break(baselines.visit_counts(corpus, product_ids))

    def scores(examples: Examples) -> np.ndarray:
        if decay is None:
            weights = _linear_weights(examples, len(product_ids))
        else:
            weights = history_weights(examples, len(product_ids), decay, decay_time)
        found = np.tile(row, (len(examples), 1))
        _add_neighbours(
            weights.indptr, weights.indices, weights.data, holders.indptr, holders.indices, seen.indptr, seen.indices,
            users.get_indexer(examples.user_ids), neighbours, sample, found,
        )  # fmt: skip
        return found

    return scores


def _linear_weights(examples: Examples, n_products: int) -> sp.csr_matrix:
    """i / n for the i-th of a history's n visits; a product seen twice counts by its newest visit."""
    positions, offsets = examples.flat()
    lengths = np.repeat(examples.lengths, examples.lengths)
    place = (positions - np.repeat(examples.start, examples.lengths) + 1) / lengths
    row = np.repeat(np.arange(len(examples)), examples.lengths)
    items = examples.items[positions]
    order = np.lexsort((place, items, row))
    last = np.append((np.diff(row[order]) != 0) | (np.diff(items[order]) != 0), True)
    keep = order[last]
    return sp.csr_matrix((place[keep].astype(np.float32), (row[keep], items[keep])), shape=(len(examples), n_products))


@nb.njit(nogil=True, cache=True)
def _add_neighbours(
    starts, items, weights, holder_starts, holders, sequence_starts, sequence_items, own, neighbours, sample, scores
):  # fmt: skip
    """Add to each row of `scores` what its history's neighbours hold, sequence ``own[row]`` aside. Without the GIL, for threads."""
    n_sequences = len(sequence_starts) - 1
    similarity = np.zeros(n_sequences, dtype=np.float32)
    bits = similarity.view(np.int32)  # of floats that are not negative: in the same order
    met = np.zeros(n_sequences, dtype=np.bool_)  # apart from `similarity`, which stays 0 where a weight is 0
    found = np.empty(n_sequences + 1, dtype=np.int64)  # one more is written, and not read
    keys = np.empty(n_sequences, dtype=np.int64)
    for row in range(len(starts) - 1):
        size = 0
        for place in range(starts[row], starts[row + 1]):
            item = items[place]
            for other in holders[holder_starts[item] : holder_starts[item + 1]]:
                if other == own[row]:
                    continue
                found[size] = other
                size += not met[other]  # without a branch, as it cannot be foreseen
                met[other] = True
                similarity[other] += weights[place]
        keys[:size] = found[:size]  # later sequences have larger numbers
        oldest = nth_largest(keys, size, sample) if size >= sample else -1
        kept = 0
        for other in found[:size]:
            if other >= oldest:
                keys[kept] = (np.int64(bits[other]) << 32) | other  # the more similar, then the more recent
                kept += 1
        least = nth_largest(keys, kept, neighbours) if kept >= neighbours else -1
        for other in found[:size]:
            if other >= oldest and ((np.int64(bits[other]) << 32) | other) >= least:
                for place in range(sequence_starts[other], sequence_starts[other + 1]):
                    scores[row, sequence_items[place]] += similarity[other]
        for other in found[:size]:
            similarity[other], met[other] = 0, False
