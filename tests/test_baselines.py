"""Baselines on a shop small enough to check by hand."""

import numpy as np
import pytest

from shelfspace import baselines
from shelfspace.sequences import Corpus, Examples

IDS = np.array(["a", "b", "c", "d"])
# Three users: a b, a b c, a c; nobody saw d.
CORPUS = Corpus(np.array(["a", "b", "c"]), np.array([0, 1, 0, 1, 2, 0, 2], dtype=np.int32), np.array([0, 2, 5, 7]))
SEEN = Examples(
    np.array([0, 1], dtype=np.int32), np.array([0.0, 1.0]), np.zeros(2, np.int8), np.array([0]), np.array([2]),
    np.array([2], dtype=np.int32), np.zeros(1, np.int8), np.array(["u"]),
)  # fmt: skip


def test_popular_ranks_by_count_for_everybody():
    assert baselines.popular([5, 1, 7, 0])(SEEN).tolist() == [[5, 1, 7, 0]]


def test_own_products_come_first_by_recency_then_the_popular_ones():
    scores = baselines.own_products([5, 1, 7, 0], decay=1.0)(SEEN)
    assert np.argsort(-scores[0]).tolist() == [1, 0, 2, 3]


@pytest.mark.parametrize("power, expected", [(0.0, [2, 2, 1]), (0.5, [2 / 6**0.5, 2 / 6**0.5, 1 / 2])])
def test_cooccurrence_by_hand(power, expected):
    table = baselines.cooccurrence(CORPUS, IDS, power).toarray()
    np.testing.assert_allclose([table[0, 1], table[0, 2], table[1, 2]], expected, rtol=1e-6)
    assert np.array_equal(table, table.T) and not table.diagonal().any() and not table[3].any()


def test_item_to_item_adds_up_the_decayed_history():
    table = baselines.cooccurrence(CORPUS, IDS, power=0)
    scores = baselines.item_to_item(table, decay=np.log(2))(SEEN)  # weights 1/3 on a, 2/3 on b
    np.testing.assert_allclose(scores, [[4 / 3, 2 / 3, 4 / 3, 0]], rtol=1e-6)


def test_nearest_models_rank_products_without_embedding_last():
    vectors = np.array([[1, 0], [0.9, 0.1], [-1, 0], [0, 0]], dtype=np.float32)
    known = np.array([True, True, True, False])
    for model in (baselines.nearest_to_last(vectors, known), baselines.nearest_to_user(vectors, known, decay=0.1)):
        assert np.argsort(-model(SEEN)[0]).tolist()[-2:] == [2, 3]
    assert baselines.nearest_to_last(vectors, known)(SEEN)[0].argmax() == 1
