"""Two linear models of who takes what: EASE, and matrix factorisation by alternating least squares (iALS)."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numba as nb
import numpy as np
import scipy.sparse as sp
from scipy.linalg import get_lapack_funcs

from shelfspace.measure.ranking import Model
from shelfspace.models import baselines, transitions, users
from shelfspace.sequences.arrays import Corpus, Examples
from shelfspace.vectors.threads import one_blas_thread

STEEP = 10_000  # times the regularisation: eigenvalues up to which float32 inverts well
REGRESSED = 5_000  # products of a regression of each on all others: its table takes 100 MB


class Ease:
    """Each product as a linear regression on all others (EASE, Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data").

    X says who saw what. B = I - P diag(P) ** -1 with P = (X' X + regularisation) ** -1 predicts a column of X from the others; a
    history is scored by its decayed weights w times B. What two products owe to a third that goes with both is told apart, which
    co-occurrence cannot do.

    The user's own sequence x is a row of X. To leave it out, P becomes P + P x x' P / (1 - x' P x) (Sherman & Morrison 1950): the
    scores are those of a table fitted without it, at the price of one more product of vectors.

    Parameters
    ----------
    corpus : Corpus
        What may train.
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    most : int
        Only so many of the most visited products take part, as P is dense; the others come last.
    saved : str or Path, optional
        A P of the same corpus, as `save` wrote it: to fit one of 5,000 products takes seconds.
    """

    def __init__(self, corpus: Corpus, product_ids: np.ndarray, most: int = REGRESSED, saved: str | Path | None = None):
        self.counts = baselines.visit_counts(corpus, product_ids)
        self.kept = np.sort(np.argsort(-self.counts, kind="stable")[:most])
        self._corpus, self._product_ids, self._saved = corpus, product_ids, saved
        self._fitted: tuple[float, np.ndarray] | None = None

    def table(self, regularisation: float) -> np.ndarray:
        """P, float32, shape (m, m) for the m products that take part; the last one is kept."""
        if self._fitted is None or self._fitted[0] != regularisation:
            self._fitted = regularisation, self._read(regularisation)
        return self._fitted[1]

    def _read(self, regularisation: float) -> np.ndarray:
        """P as it was saved, or else fitted."""
        if self._saved is not None:
            with np.load(self._saved) as stored:
                if stored["regularisation"] == regularisation:
                    return stored["table"]
        seen = transitions.holds(self._corpus.places(self._product_ids), self._corpus.offsets, len(self.counts))[:, self.kept]
        return _inverse((seen.T @ seen).toarray(), regularisation)

    def save(self, path: str | Path) -> None:
        """Write the last P and its regularisation to an ``.npz`` file."""
        regularisation, table = self._fitted
        np.savez(path, regularisation=regularisation, table=table)

    def __call__(self, regularisation: float, decay: float, decay_time: str = "days", own: bool = False) -> Model:
        """The model of a regularisation.

        Parameters
        ----------
        regularisation : float
        decay, decay_time
            How visits of a history to recommend to fade; see `shelfspace.models.users.history_weights`.
        own : bool
            Leave the user's own sequence in P.
        """
        table, counts, kept = self.table(regularisation), self.counts, self.kept
        diagonal = np.diag(table).copy()
        rest = baselines.tie_break(counts) - 1_000  # below any score
        place = np.full(len(counts), -1)
        place[kept] = np.arange(len(kept))

        def scores(examples: Examples) -> np.ndarray:
            weights = users.history_weights(examples, len(counts), decay, decay_time)
            theirs = replace(examples, end=examples.start if own else examples.trained)
            positions, offsets = theirs.flat()
            mine = transitions.holds(theirs.items[positions], offsets, len(counts))
            products = np.tile(rest, (len(examples), 1))
            _regress(
                weights.indptr, weights.indices, weights.data, mine.indptr, mine.indices, place, kept, table, diagonal, products
            )  # fmt: skip
            return products

        return scores


def fit_ease(path: str | Path, corpus: Corpus, product_ids: np.ndarray, regularisation: float) -> None:
    """Fit `Ease` with one regularisation and write it to an ``.npz`` file: for `shelfspace.files.run_files.once`."""
    ease = Ease(corpus, product_ids)
    ease.table(regularisation)
    ease.save(path)


def _inverse(gram: np.ndarray, regularisation: float) -> np.ndarray:
    """(gram + regularisation) ** -1 of a symmetric matrix without negative eigenvalues, by Cholesky; float32.

    It is worked out in float32, too, while the largest eigenvalue (at most the largest sum of a row) is no more than `STEEP` times the
    regularisation: what is rounded away is then less than a millionth.
    """
    gram = gram.astype(np.float32 if gram.sum(axis=1).max(initial=0) <= STEEP * regularisation else np.float64)
    gram[np.diag_indices(len(gram))] += gram.dtype.type(regularisation)
    factorise, invert = get_lapack_funcs(("potrf", "potri"), (gram,))
    with one_blas_thread():  # the same bytes for any number of cores
        factor, failed = factorise(gram.T, overwrite_a=True)
        if failed:
            raise ValueError(f"regularisation is {regularisation}; it must be more than 0.")
        upper = np.triu(invert(factor, overwrite_c=True)[0].astype(np.float32, copy=False))
    return upper + np.triu(upper, 1).T


@nb.njit(nogil=True, cache=True)
def _regress(starts, items, weights, own_starts, own_items, place, kept, table, diagonal, scores):
    """Write into each row of `scores` those of the products `kept`, the own sequence left out of P. Without the GIL, for threads."""
    m, one = len(kept), np.float32(1)
    found, pulled = np.empty(m, dtype=np.float32), np.empty(m, dtype=np.float32)
    for row in range(len(scores)):
        found[:] = 0
        for at in range(starts[row], starts[row + 1]):
            if place[items[at]] >= 0:
                _add_times(weights[at], table[place[items[at]]], found)
        mine = own_items[own_starts[row] : own_starts[row + 1]]
        share, pull = np.float32(0), np.float32(0)  # x' P x, and w' P x
        pulled[:] = 0
        for item in mine:
            if place[item] >= 0:
                _add_times(one, table[place[item]], pulled)
        for item in mine:
            if place[item] >= 0:
                share += pulled[place[item]]
        for at in range(starts[row], starts[row + 1]):
            if place[items[at]] >= 0:
                pull += weights[at] * pulled[place[items[at]]]
        share = one / (one - share)
        pull *= share
        for j in range(m):
            found[j] = np.float32(0) - (found[j] + pull * pulled[j]) / (diagonal[j] + share * (pulled[j] * pulled[j]))
        for at in range(starts[row], starts[row + 1]):
            if place[items[at]] >= 0:
                found[place[items[at]]] += weights[at]
        for j in range(m):
            scores[row, kept[j]] = found[j]


@nb.njit(nogil=True, cache=True)
def _add_times(weight, line, found):
    for j in range(len(found)):
        found[j] += weight * line[j]


def matrix_factorisation(
    corpus: Corpus,
    product_ids: np.ndarray,
    decay: float,
    decay_time: str = "days",
    *,
    dim: int = 64,
    alpha: float = 10.0,
    regularisation: float = 0.1,
    epochs: int = 15,
    seed: int = 0,
) -> Model:
    """Users and products as factors of the table of who saw what (Hu, Koren & Volinsky 2008), with the library implicit.

    A user to recommend to is folded in: given the products' factors, the best factors for the decayed history. The products'
    factors come from all sequences, the user's own among them: to leave one out would be to fit all anew for each user.

    Parameters
    ----------
    corpus : Corpus
        The training sequences.
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    decay, decay_time
        How visits fade in the history of a user to recommend to; see `shelfspace.models.users.history_weights`. 0: each
        counts once, as in training.
    dim : int
        Factors of each user and product.
    alpha : float
        How much more certain a visit is than no visit.
    regularisation : float
        Of the alternating least squares.
    epochs : int
        Rounds of them.
    seed : int
        Of the factors' start.

    Raises
    ------
    ValueError
        If implicit is not installed.
    """
    if importlib.util.find_spec("implicit") is None:
        raise ValueError("Matrix factorisation needs the library implicit; install it with: pip install 'shelfspace[mf]'.")
    from implicit.cpu.als import AlternatingLeastSquares

    shape, places = (len(corpus), len(product_ids)), corpus.places(product_ids)
    visits = sp.csr_matrix((np.ones(len(places), np.float32), places, corpus.offsets), shape=shape)
    visits.sum_duplicates()
    fitted = AlternatingLeastSquares(factors=dim, alpha=alpha, regularization=regularisation, iterations=epochs, random_state=seed)
    with one_blas_thread():  # its own threads are enough
        fitted.fit(visits, show_progress=False)

    def scores(examples: Examples) -> np.ndarray:
        weights = users.history_weights(examples, len(product_ids), decay, decay_time)
        weights.data *= np.repeat(examples.lengths, np.diff(weights.indptr))
        with one_blas_thread():
            folded = fitted.recalculate_user(np.arange(len(examples)), weights)
        return folded @ fitted.item_factors.T

    return scores
