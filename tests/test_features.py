"""Features of products and queries: which cells give which features, and how tables of them are joined."""

import numpy as np
import pandas as pd
import pytest

from shelfspace.vectors import features

PRODUCTS = pd.DataFrame({
    "product_id": ["b", "a", "c"],
    "name": ["Blue phone-case", "Red phone", None],
    "brand": ["Orvane", "Orvane", "Nubrik"],
    "price": [8.0, 9.0, np.nan],
})  # fmt: skip


def listed(made: features.Features) -> dict[str, list[str]]:
    """The features of each product by name."""
    return {one: made.names[made.matrix[i].indices].tolist() for i, one in enumerate(made.product_ids)}


def test_each_column_gives_its_features():
    made = features.of_products(PRODUCTS, min_products=1, max_share=1.0)
    assert listed(made) == {
        "a": ["brand:orvane", "price:6", "word:phone", "word:red"],
        "b": ["brand:orvane", "price:6", "word:blue", "word:case", "word:phone"],
        "c": ["brand:nubrik"],
    }
    assert made.names.tolist() == sorted(made.names) and made.product_ids.tolist() == ["a", "b", "c"]


def test_rare_features_and_common_words_are_left_out():
    both = ["brand:orvane", "price:6"]
    assert listed(features.of_products(PRODUCTS)) == {"a": both, "b": both, "c": []}
    assert listed(features.of_products(PRODUCTS, ["name"], max_share=0.7))["a"] == ["word:phone"]


def test_a_table_without_any_column_has_no_features():
    made = features.of_products(PRODUCTS[["product_id"]])
    assert made.matrix.shape == (3, 0)


def test_columns_must_be_known():
    with pytest.raises(ValueError, match="'colour' is no column of features; it must be one of name"):
        features.of_products(PRODUCTS, ["colour"])


def test_texts_are_their_words_each_once():
    made = features.of_texts(["phone case", "Phone", "phone case"])
    assert listed(made) == {"Phone": ["word:phone"], "phone case": ["word:case", "word:phone"]}


def test_join_and_select_keep_what_each_has():
    products = features.of_products(PRODUCTS, ["name"], min_products=1, max_share=1.0)
    both = features.join(products, features.of_texts(["a red sofa"]))
    assert listed(both) == listed(products) | {"a red sofa": ["word:a", "word:red", "word:sofa"]}
    only = features.select(both, np.array(["brand:orvane", "word:red"]))
    assert listed(only) == {"a": ["word:red"], "a red sofa": ["word:red"], "b": [], "c": []}
    with pytest.raises(ValueError, match="share an id"):
        features.join(products, features.of_texts(["a"]))
