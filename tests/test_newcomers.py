"""New products, placed by what they are like."""

import numpy as np
import pandas as pd
import pytest

from shelfspace import newcomers
from shelfspace.features import of_products


def test_a_new_product_is_the_mean_of_the_most_alike_by_hand():
    products = pd.DataFrame({
        "product_id": list("abcdez"), "brand": ["x", "x", "x", "y", "y", "x"], "category": ["k", "k", "l", "l", "m", "k"],
    })  # fmt: skip
    information = of_products(products)
    vectors = np.array([[2, 0], [0, 3], [1, 1], [-1, 0], [0, -1], [0, 0]], np.float32)
    known = np.array([True] * 5 + [False])
    filled, now = newcomers.fill(vectors, known, newcomers.placer(information, vectors, known), products)
    length = (2 + 3 + 2**0.5 + 1 + 1) / 5  # of the known vectors, on average
    root = 0.5**0.5  # a and b share brand and category with z, and c the brand; each counts by its direction
    np.testing.assert_allclose(filled[5, :2], length * np.array([1 + 0 + root, 0 + 1 + root]) / 3, rtol=1e-6)
    assert np.linalg.norm(filled[5]) == pytest.approx(length) and now.all()
    assert np.array_equal(filled[:5, :2], vectors[:5]) and not filled[:5, 2].any()
    user = np.array([0.6, 0.8, 0])  # its cosine to z is the mean of those to a, b and c
    assert filled[5] @ user / length == pytest.approx((0.6 + 0.8 + (0.6 + 0.8) * root) / 3)
    stranger = pd.DataFrame({"product_id": ["s"], "brand": ["q"], "category": [None]})
    assert not newcomers.placer(information, vectors, known)(stranger).any()
