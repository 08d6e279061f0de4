"""What the trainings of all networks share: TensorFlow set up, several machines, Adam on the rows that a step touches, negatives, the
judgement of the valid users."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # both must be set before TensorFlow is imported
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import numba as nb
import tensorflow as tf

from shelfspace.measure.ranking import ranks, reciprocal_rank

STRATEGIES = ("", "mirrored", "workers")


def strategy(distribute: str = "") -> tf.distribute.Strategy:
    """Who shares the training; see `shelfspace.models.dense.train`.

    Parameters
    ----------
    distribute : {"", "mirrored", "workers"}
        "": this process alone; "mirrored": all GPUs that this machine shows; "workers": the machines that the environment
        variable TF_CONFIG lists, each of which must run the same program on the same data. TensorFlow wants to know of
        workers before it makes anything, a network for example.

    Raises
    ------
    ValueError
        For another word, or when TF_CONFIG is missing.
    """
    if distribute not in STRATEGIES:
        raise ValueError(f"distribute is {distribute!r}; it must be empty or one of {', '.join(STRATEGIES[1:])}.")
    if distribute == "workers":
        if not os.environ.get("TF_CONFIG"):
            raise ValueError("distribute is workers, which takes the machines from the environment variable TF_CONFIG; it is not set.")
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.MirroredStrategy() if distribute else tf.distribute.get_strategy()


class Rows:
    """A table with Adam's two moments, of which a step takes, and moves, only the rows of the products it holds.

    So a step costs what it holds and not what the catalogue is. The moments of a row stay as they are in the steps
    between, and so does its count of steps: Adam's correction of young moments is by it, or a row that is first touched
    late would set out at 3.2 times the rate.

    Attributes
    ----------
    table : ndarray of float32, shape (n_products, columns)
    steps : int
        How often rows were moved.
    steps_of : ndarray of int64, shape (n_products,)
        How often each row was.
    """

    def __init__(self, table: np.ndarray):
        self.table = np.array(table, dtype=np.float32, order="C")
        self.first, self.second = np.zeros_like(self.table), np.zeros_like(self.table)
        self.steps = 0
        self.steps_of = np.zeros(len(table), dtype=np.int64)

    def rate(self, start: float, steps: int) -> np.float32:
        """Adam's next step size, which falls linearly from `start` to zero over so many steps in all."""
        return np.float32(start * (1 - self.steps / steps))

    def move(self, products: np.ndarray, gradient: np.ndarray, rate: float) -> None:
        """A step of Adam for the rows of these products, each named once; gradient: float32, shape (m, columns)."""
        self.steps += 1
        self.steps_of[products] += 1
        _move(self.table, self.first, self.second, self.steps_of, products, gradient, np.float32(rate))


@nb.njit(nogil=True, cache=True)
def _move(table, first, second, steps_of, products, gradient, rate):
    """As `adam`, in place."""
    for i in range(len(products)):
        row = products[i]
        young, younger = np.float32(1 - 0.9 ** steps_of[row]), np.float32(1 - 0.999 ** steps_of[row])
        for j in range(table.shape[1]):
            slope = gradient[i, j]
            first[row, j] = np.float32(0.9) * first[row, j] + np.float32(0.1) * slope
            second[row, j] = np.float32(0.999) * second[row, j] + np.float32(0.001) * slope * slope
            table[row, j] -= rate * (first[row, j] / young) / (np.sqrt(second[row, j] / younger) + np.float32(1e-8))


def adam(gradient, value, first, second, rate, t):
    """Value and moments after step t of Adam (Kingma & Ba 2015, algorithm 1), in TensorFlow."""
    first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
    step = first / (1 - 0.9**t) / (tf.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return value - rate * step, first, second


def sample(always: np.ndarray, n_products: int, negatives: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Products to train a step on, and what to add to their logits so that the softmax is that over all products.

    The products in `always` are taken as they are; of the others, `negatives` are drawn uniformly without replacement,
    and each stands for (others / drawn) of them: log of that is added to its logit. The sum of exp(logit) over the
    sample is then an unbiased estimate of the sum over all products, and exact for all that matters most (targets,
    histories and what followed them).

    Returns
    -------
    products : ndarray of int64, shape (m,)
        `always` first.
    correction : ndarray of float32, shape (m,)
    """
    left = np.ones(n_products, dtype=bool)
    left[always] = False
    others = np.flatnonzero(left)
    drawn = np.sort(rng.choice(others, min(negatives, len(others)), replace=False, shuffle=False))
    correction = np.zeros(len(always) + len(drawn), dtype=np.float32)
    correction[len(always) :] = np.log(max(1, len(others)) / max(1, len(drawn)))
    return np.concatenate([always, drawn]), correction


def validate(scores: Callable[[slice], np.ndarray], targets: np.ndarray, block: int = 512) -> tuple[float, float]:
    """Mean cross-entropy and MRR@20, a block of users at a time.

    Parameters
    ----------
    scores : callable
        From a slice of the users to their logits, float32, shape (users of the slice, n_products).
    targets : ndarray of int, shape (n,)
    block : int
        Users scored at once.
    """
    losses, found = [], []
    for first in range(0, len(targets), block):
        part = slice(first, first + block)
        logits, target = scores(part), targets[part]
        top = logits.max(axis=1)
        losses.append(top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - logits[np.arange(len(target)), target])
        found.append(reciprocal_rank(ranks(logits, target), 20))
    return float(np.concatenate(losses).mean()), float(np.concatenate(found).mean())


def deterministic(seed: int) -> None:
    """Seed Python, numpy and TensorFlow, and ask TensorFlow for operations that give the same bits every time."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
