"""LambdaRank with one target for each question: by its formula, and beside LightGBM's own."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import pytest

from shelfspace.models import lambdarank


def questions(n: int = 60, most: int = 70, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets and sizes of questions with two candidates or more."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, most, n)
    starts = np.cumsum(sizes) - sizes
    target = np.zeros(sizes.sum(), np.int8)
    target[starts + rng.integers(0, sizes)] = 1
    return target, sizes


def by_formula(scores: np.ndarray, target: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Slopes and curvatures of one question, pair by pair."""
    order = np.argsort(-scores, kind="stable")
    place = np.empty(len(scores), int)
    place[order] = np.arange(len(scores))
    own, slope, curvature, even = int(np.argmax(target)), np.zeros(len(scores)), np.zeros(len(scores)), np.ptp(scores) == 0
    for other in range(len(scores)):
        a, b = place[own], place[other]
        if other == own or min(a, b) >= top:
            continue
        gap = scores[own] - scores[other]
        weight = abs(1 / np.log2(2 + a) - 1 / np.log2(2 + b)) / (1 if even else 0.01 + abs(gap))
        wrong = 1 / (1 + np.exp(gap))
        for at, sign in ((other, 1), (own, -1)):
            slope[at] += sign * weight * wrong
            curvature[at] += weight * wrong * (1 - wrong)
    both = -2 * slope[own]
    scale = np.log2(1 + both) / both if both > 0 else 1.0
    return scale * slope, scale * curvature


@pytest.mark.parametrize("top", [1, 5, 1000])
def test_slopes_and_curvatures_are_those_of_the_formula(top):
    """At first all scores are equal, then a few are, then none; the order of the call before is at hand."""
    target, sizes = questions()
    slopes = lambdarank.objective(target, sizes, top)
    rng = np.random.default_rng(1)
    for scores in (np.zeros(len(target)), rng.integers(0, 3, len(target)).astype(float), rng.normal(size=len(target)), -1e3 * target):
        slope, curvature = slopes(scores, None)
        for first, size in zip(np.cumsum(sizes) - sizes, sizes):
            part = slice(first, first + size)
            expected = by_formula(scores[part], target[part], top)
            np.testing.assert_allclose(slope[part], expected[0], rtol=2e-5, atol=1e-7)
            np.testing.assert_allclose(curvature[part], expected[1], rtol=2e-5, atol=1e-7)


def test_trees_are_those_that_lightgbm_grows_by_its_own():
    target, sizes = questions(n=300, seed=2)
    table = np.random.default_rng(3).normal(size=(len(target), 4)).astype(np.float32)
    table[:, 0] += target
    settings = {"num_leaves": 7, "learning_rate": 0.1, "deterministic": True, "force_row_wise": True, "verbose": -1, "num_threads": 1}
    own = settings | {"objective": "lambdarank", "lambdarank_truncation_level": 10}
    theirs = lgb.train(own, lgb.Dataset(table, target, group=sizes, params=settings), 20)
    ours = lgb.train(settings | {"objective": lambdarank.objective(target, sizes, 10)}, lgb.Dataset(table, target, params=settings), 20)
    np.testing.assert_allclose(ours.predict(table), theirs.predict(table), atol=1e-4)


def test_any_number_of_cores_gives_the_same(monkeypatch):
    target, sizes = questions()
    scores = np.random.default_rng(1).normal(size=len(target))
    found = []
    for cores in (1, 3, 100):
        monkeypatch.setattr(lambdarank.os, "cpu_count", lambda cores=cores: cores)
        found.append(lambdarank.objective(target, sizes, 40)(scores, None))
    for slope, curvature in found[1:]:
        assert np.array_equal(slope, found[0][0]) and np.array_equal(curvature, found[0][1])


@pytest.mark.parametrize("target", [[0, 0, 1, 0], [1, 1, 1, 0], [1, 0, 0, 0]])
def test_a_question_without_exactly_one_target_is_refused(target):
    with pytest.raises(ValueError, match="A question has no target, or more than one"):
        lambdarank.objective(np.array(target), np.array([2, 2]), 40)
