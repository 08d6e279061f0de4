"""What the compiled trainers of product embeddings share: how they are compiled, chance, and a few loops over vectors."""

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


@numba.njit(forceinline=True, **FAST)
def add(out, weights, rows, which):
    """Add ``weights[j] * rows[which[j]]`` to `out` for every j, four at a time: `out` is read and written a fourth as often."""
    fours = len(weights) // 4 * 4
    for j in range(0, fours, 4):
        a, b, c, d = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        p, q, r, s = rows[which[j]], rows[which[j + 1]], rows[which[j + 2]], rows[which[j + 3]]
        for i in range(len(out)):
            out[i] += a * p[i] + b * q[i] + c * r[i] + d * s[i]
    for j in range(fours, len(weights)):
        a, p = weights[j], rows[which[j]]
        for i in range(len(out)):
            out[i] += a * p[i]


@numba.njit(forceinline=True, cache=True, fastmath={"contract"})
def exp(x):
    """e ** x of a float32 of at most 0, which a loop computes eight at a time, and `np.exp` one by one.

    2 ** whole times 2 ** rest, the latter by the polynomial of Moshier's Cephes library (exp2f). The relative error is
    below 1e-6 down to -10, and 5e-6 to the least number, 2 ** -126, which stands for all below it.
    """
    x = max(x * np.float32(1.442695041), np.float32(-126))
    whole = np.int32(x - np.float32(0.5))
    rest = x - np.float32(whole)
    power = np.float32(1.535336188e-4)
    for coefficient in (1.339887440e-3, 9.618437357e-3, 5.550332471e-2, 2.402264791e-1, 6.931472029e-1, 1.0):
        power = power * rest + np.float32(coefficient)
    return power * np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)
