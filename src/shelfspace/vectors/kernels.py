"""What the compiled trainers of product embeddings share: how they are compiled, chance, and the dot product."""

from __future__ import annotations

import numba
import numpy as np

LANES = 16  # floats of a vector register; rows are padded to a multiple of it
FAST = {"cache": True, "fastmath": True, "error_model": "numpy"}


@numba.njit(forceinline=True, **FAST)
def draw(state, n):
    """A whole number below n (xorshift64*, Vigna 2016); `state` is one uint64, never 0."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    high = (x * np.uint64(2685821657736338717)) >> np.uint64(32)
    return np.int64((high * np.uint64(n)) >> np.uint64(32))


@numba.njit(forceinline=True, **FAST)
def dot(a, b):
    """The sum of products of two float32 vectors of one length."""
    result = np.float32(0)
    for i in range(len(a)):
        result += a[i] * b[i]
    return result
