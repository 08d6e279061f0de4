import numpy as np
import pytest
import tensorflow as tf

from shelfspace.models import losses


def theirs(logits, target):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits)


def test_cross_entropy_is_tensorflows():
    rng = np.random.default_rng(0)
    logits, target, weight = rng.normal(scale=100, size=(6, 9)).astype(np.float32), rng.integers(9, size=6), rng.normal(size=6)
    found = []
    for loss in (losses.cross_entropy, theirs):
        x = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(x)
            each = loss(x, tf.constant(target, tf.int32))
            total = tf.reduce_sum(each * weight.astype(np.float32))
        found.append((each, tape.gradient(total, x)))
    for ours, other in zip(*found):
        np.testing.assert_allclose(ours, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n, m, k, scale", [(6, 9, 20, 1.0), (5, 700, 4000, 10.0), (3, 4, 0, 1.0), (1, 1, 2, 1.0)])
@pytest.mark.parametrize("gpu", [False, True])
def test_of_products_is_tensorflows_and_so_are_its_gradients(monkeypatch, n, m, k, scale, gpu):
    """Against logits made in full, to which each bonus is added by a scatter; several bonuses fall on one logit."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a GPU"] * gpu)
    rng = np.random.default_rng(0)
    given = [(scale * rng.normal(size=size)).astype(np.float32) for size in ((n, 4), (m, 4), k)]
    row, column, target = (rng.integers(most, size=size, dtype=np.int32) for most, size in ((n, k), (m, k), (n, n)))
    target %= m

    def in_full(queries, products, bonus):
        logits = tf.matmul(queries, products, transpose_b=True)
        return tf.reduce_mean(theirs(tf.tensor_scatter_nd_add(logits, np.stack([row, column], 1), bonus), target))

    found = []
    for loss in (lambda *x: losses.of_products(*x, row, column, target), in_full):
        variables = [tf.constant(values) for values in given]
        with tf.GradientTape() as tape:
            for variable in variables:
                tape.watch(variable)
            total = 3 * tf.function(loss)(*variables)
        found.append([total, *tape.gradient(total, variables)])
    for ours, other in zip(*found, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-5)
