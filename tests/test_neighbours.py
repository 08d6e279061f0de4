"""The approximate search beside the exact one."""

import numpy as np
import pytest

from shelfspace.vectors import embeddings, neighbours


def test_it_finds_nearly_what_an_exact_search_finds_and_the_same_each_time():
    if not neighbours.installed():
        pytest.skip("faiss is not installed, so the approximate search is not tried.")
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2000, 16)).astype(np.float32)
    known = rng.random(2000) > 0.1
    vectors[~known] = 0
    queries = vectors[:200] + rng.normal(0, 0.3, (200, 16)).astype(np.float32)
    found, cosines = neighbours.graph(vectors, known).search(queries, 20)
    exact, exact_cosines = embeddings.nearest(vectors, queries, 20)
    assert neighbours.recall(found, exact) > 0.95 and known[found].all()
    np.testing.assert_allclose(cosines[:, 0], exact_cosines[:, 0], atol=0.05)
    again = neighbours.graph(vectors, known)
    assert np.array_equal(again.search(queries, 20)[0], found) and again.size > vectors[known].nbytes
    few = neighbours.graph(vectors[:5], np.array([True, True, True, False, False])).search(queries[:1], 20)[0]
    assert sorted(few[0][few[0] >= 0]) == [0, 1, 2] and (few[0] == -1).sum() == 17


def test_recall_by_hand():
    assert neighbours.recall(np.array([[1, 2], [3, -1]]), np.array([[2, 5], [3, 4]])) == 0.5


def test_without_the_library_one_sentence_says_so(monkeypatch):
    monkeypatch.setattr(neighbours, "installed", lambda: False)
    with pytest.raises(ValueError, match="pip install faiss-cpu"):
        neighbours.graph(np.ones((2, 2), np.float32), np.ones(2, bool))
