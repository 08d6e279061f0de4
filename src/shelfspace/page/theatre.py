"""The training theatre: word2vec and StarSpace on the few products of the second chapter, in two dimensions, step by step.

Every number is the trainers' own (`shelfspace.vectors.skipgram.update`, `shelfspace.vectors.starspace.update`); StarSpace's first step
is the one that the chapter works out by hand.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from shelfspace.vectors import skipgram, starspace

NAMES = ("phone A", "case A", "phone B", "chair", "lamp")
BEFORE = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.8, -0.6], [-1.0, 0.0]])
"""Where the vectors of both begin, shape (5, 2); word2vec's context vectors begin at 0."""
HISTORIES = ((0, 2, 0, 1), (3, 4))
"""Ada's visits, and those of a second customer; noise is what a customer did not visit."""
STEPS = 40
RATES = {"word2vec": 0.3, "starspace": 0.1}
MARGIN = 0.5


@functools.cache
def read() -> dict:
    """All steps of both, for the page; the same at every call.

    Returns
    -------
    dict
        ``names``, and for "word2vec" and "starspace" a list of steps: ``from`` and ``to`` (the products that are drawn to each other),
        ``noise``, ``loss`` before the step, and ``vectors``, five pairs, after it. Step 0 has vectors alone.
    """
    return {"names": list(NAMES), "word2vec": word2vec(), "starspace": star()}


def word2vec() -> list[dict]:
    """`STEPS` steps of skip-gram, over and over the pairs of each history under a window of one; see `read`."""
    pairs = [
        (history[i], history[j], history)
        for history in HISTORIES
        for i in range(len(history))
        for j in (i - 1, i + 1)
        if 0 <= j < len(history)
    ]
    v, u, steps = BEFORE, np.zeros_like(BEFORE), [_step(BEFORE)]
    for step in range(STEPS):
        product, context, history = pairs[step % len(pairs)]
        loss, v, u = skipgram.update(v, u, product, context, _noise(history), learning_rate=RATES["word2vec"])
        steps.append(_step(v, [product], context, _noise(history), loss))
    return steps


def star() -> list[dict]:
    """`STEPS` steps of StarSpace: each product of each history in turn is the label, and the others are the bag; see `read`."""
    examples = [(label, history) for history in HISTORIES for label in sorted(set(history), reverse=True)]
    vectors, squares, steps = BEFORE, np.zeros((len(NAMES), 2), np.float32), [_step(BEFORE)]
    for step in range(STEPS):
        label, history = examples[step % len(examples)]
        bag = sorted(set(history) - {label})
        loss, vectors = starspace.update(
            vectors, bag, label, _noise(history), margin=MARGIN, learning_rate=RATES["starspace"], squares=squares
        )  # fmt: skip
        steps.append(_step(vectors, bag, label, _noise(history), loss))
    return steps


def _noise(history: tuple[int, ...]) -> list[int]:
    return [product for product in range(len(NAMES)) if product not in history]


def _step(vectors: np.ndarray, bag: Sequence[int] = (), label: int = -1, noise: Sequence[int] = (), loss: float | None = None) -> dict:
    return {
        "from": list(bag), "to": label, "noise": list(noise), "loss": None if loss is None else round(float(loss), 4),
        "vectors": np.asarray(vectors, dtype=float).round(3).tolist(),
    }  # fmt: skip
