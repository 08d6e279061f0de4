"""New products, placed by what they are like."""

import numpy as np
import pandas as pd
import pytest

from shelfspace.measure.ranking import top_k
from shelfspace.models import newcomers
from shelfspace.sequences.arrays import Examples
from shelfspace.vectors.features import of_products


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


def test_new_products_have_the_places_that_are_kept_for_them_and_no_others():
    products = pd.DataFrame({"product_id": [f"p{n:02d}" for n in range(40)], "brand": np.repeat(list("abcd"), 10)})
    clicked = np.arange(40) % 10 < 8
    vectors = np.repeat(np.eye(4, dtype=np.float32), 10, axis=0) * clicked[:, None]
    items = np.array([0, 1, 2, 35], np.int32)
    asked = Examples(items, np.arange(4.0), np.zeros(4, np.int8), np.array([0, 3]), np.array([2, 4]), np.array([2, 3]), *[np.zeros(2)] * 3)
    theirs = newcomers.model(products, vectors, clicked, clicked, 0.1)
    assert [set(row) for row in top_k(theirs(asked), 2)[0]] == [{8, 9}, {38, 39}]
    plain = np.tile(-np.arange(40, dtype=np.float32), (2, 1))
    plain[1, 30:] = 7  # equal scores stay in order of product
    kept = newcomers.keep_places(lambda _: plain, theirs, 2)
    old = [n for n in range(40) if clicked[n]]
    second = [n for n in range(30, 40) if clicked[n]] + [n for n in range(30) if clicked[n]]
    assert top_k(kept(asked), 22)[0].tolist() == [[*old[:18], 8, 9, *old[18:20]], [*second[:18], 38, 39, *second[18:20]]]
    assert plain[0, 0] == 0 and newcomers.model(products[["product_id"]], vectors, clicked, clicked, 0.1) is None
    assert newcomers.model(products, vectors, clicked, np.ones(40, bool), 0.1) is None
