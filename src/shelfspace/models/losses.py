"""The softmax over all products as a loss: how the trainings of the networks spend most of their time.

Both say the same, -ln softmax(logits)[target]. `cross_entropy` is given logits and runs wherever TensorFlow does; `of_products`
makes the logits itself, from embeddings and bonuses of single products, and keeps the whole of it in a few passes over one
matrix.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import numba as nb
import numpy as np

from shelfspace.models.training import tf


@tf.custom_gradient
def cross_entropy(logits, target):
    """-ln softmax(logits)[target] of each row, shape (n,): TensorFlow's own, in half its time on processors.

    Parameters
    ----------
    logits : tensor of float32, shape (n, n_products)
    target : tensor of int, shape (n,)
    """
    place = tf.stack([tf.range(tf.shape(logits, target.dtype)[0]), target], 1)
    top = tf.reduce_max(logits, 1)
    odds = tf.exp(logits - top[:, None])
    total = tf.reduce_sum(odds, 1)

    def gradient(each):
        return tf.tensor_scatter_nd_sub(odds * (each / total)[:, None], place, each), None

    return tf.math.log(total) + top - tf.gather_nd(logits, place), gradient


def of_products(queries, products, bonus, row, column, target):
    """The mean of -ln softmax(logits)[target] over some histories.

    The logit of history i and product j is q_i · v_j, and what `bonus` adds to it: many bonuses may fall on one logit, and most
    logits have none, so that they cost what they are and not what the matrix is. On processors the gradients are made along with the
    loss, by hand: with p = softmax(logits) and y the target, that of a logit is (p - y) / n, and those of queries and products are
    products of matrices with it. Where TensorFlow has a GPU, it does all of it.

    Parameters
    ----------
    queries : tensor of float32, shape (n, d)
    products : tensor of float32, shape (m, d)
    bonus : tensor of float32, shape (k,)
    row, column : tensor of int32, shape (k,)
        The logit that each bonus is added to.
    target : tensor of int32, shape (n,)

    Returns
    -------
    tensor of float32, shape ()
        Differentiable in queries, products and bonus.
    """

    if tf.config.list_logical_devices("GPU"):
        return _by_tensorflow(queries, products, bonus, row, column, target)

    @tf.custom_gradient
    def loss(queries, products, bonus):
        kinds = [tf.float32] * 4
        mean, *gradients = tf.numpy_function(_of_products, [queries, products, bonus, row, column, target], kinds, stateful=False)
        for gradient, of in zip(gradients, (queries, products, bonus)):
            gradient.set_shape(of.shape)
        mean.set_shape(())
        return mean, lambda each: [each * gradient for gradient in gradients]

    return loss(queries, products, bonus)


def _by_tensorflow(queries, products, bonus, row, column, target):
    logits = tf.matmul(queries, products, transpose_b=True)
    return tf.reduce_mean(cross_entropy(tf.tensor_scatter_nd_add(logits, tf.stack([row, column], 1), bonus), target))


def _of_products(queries, products, bonus, row, column, target) -> tuple[np.ndarray, ...]:
    """Loss, and the gradients of queries, products and bonus. Without a bonus two threads share the histories, always in the same halves."""
    n, half = len(queries), len(queries) // 2
    if len(bonus) or not half:
        loss, *gradients = _of_some(queries, products, bonus, row, column, target, n)
        return np.float32(loss / n), *gradients

    def of_half(part: slice) -> tuple:
        return _of_some(queries[part], products, bonus, row, column, target[part], n)

    first, second = _two_threads().map(of_half, (slice(half), slice(half, None)))
    return np.float32((first[0] + second[0]) / n), np.concatenate([first[1], second[1]]), first[2] + second[2], bonus


def _of_some(queries, products, bonus, row, column, target, n: int) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """As `_of_products`, of some of n histories; the loss is a sum."""
    matrix = queries @ products.T
    loss = _shift(matrix, bonus, row, column, target)
    np.exp(matrix, out=matrix)
    of_bonus = np.empty_like(bonus)
    loss += _slope(matrix, row, column, target, of_bonus, n)
    return loss, matrix @ products, matrix.T @ queries, of_bonus


@functools.cache
def _two_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="softmax")


@nb.njit(nogil=True, cache=True, fastmath=True)
def _shift(logits, bonus, row, column, target):
    """Add the bonuses, and bring the largest logit of each row to 0; minus the sum of the targets' logits after it."""
    for at in range(len(bonus)):
        logits[row[at], column[at]] += bonus[at]
    loss = 0.0
    for i in range(len(logits)):
        line = logits[i]
        top = line[0]
        for j in range(len(line)):
            top = line[j] if line[j] > top else top
        for j in range(len(line)):
            line[j] -= top
        loss -= line[target[i]]
    return loss


@nb.njit(nogil=True, cache=True, fastmath=True)
def _slope(odds, row, column, target, of_bonus, n):
    """Turn exp(logits) into the gradient of the logits in a mean over n rows, and that of the bonuses; the sum of the rows' ln of sums."""
    loss = 0.0
    for i in range(len(odds)):
        line = odds[i]
        total = np.float32(0)
        for j in range(len(line)):
            total += line[j]
        loss += np.log(total)
        scale = np.float32(1 / (total * n))
        for j in range(len(line)):
            line[j] *= scale
        line[target[i]] -= np.float32(1 / n)
    for at in range(len(of_bonus)):
        of_bonus[at] = odds[row[at], column[at]]
    return loss
