"""Gains by hand, and verdicts that say what their intervals say."""

import numpy as np
import pytest

from shelfspace.trials import gains, variants

NOTHING = {"value": None, "gain": None, "ci95": None, "n": 0}


def test_gains_by_hand():
    rank, other = np.array([1, 4, 25, 2]), np.array([2, 4, 20, 30])
    asked = {"mrr": (rank, other, "mrr@20"), "hr": (rank, other, "hit_rate@20"), "none": (rank[:0], other[:0], "mrr@20")}
    all_of_them = gains.gained({name: (*one, np.arange(len(one[0]))) for name, one in asked.items()})
    found = all_of_them["mrr"]
    assert found["value"] == pytest.approx((1 + 0.25 + 0 + 0.5) / 4) and found["n"] == 4
    assert found["gain"] == pytest.approx((0.5 + 0 - 0.05 + 0.5) / 4)
    assert all_of_them["hr"]["gain"] == 0.0 and list(all_of_them) == list(asked)
    assert all_of_them["none"] == NOTHING


def test_a_gain_in_a_table():
    one = {"value": 0.381, "gain": 0.004, "ci95": [-0.002, 0.011], "n": 9}
    assert gains.told(one, "word2vec") == "38.1 (-0.2 to +1.1)" and gains.told(one, "") == "38.1"
    assert gains.told(None, "word2vec") == gains.told(NOTHING, "") == "–"


def test_verdicts_follow_the_intervals():
    up, down, level = ({"value": 0.1, "gain": g, "ci95": [g - 0.01, g + 0.01], "n": 9} for g in (0.02, -0.02, 0.0))
    nothing_made = variants.Material(None, None, None, None, None)
    pair = [variants.outside(name, name, None, nothing_made, 0.0) for name in ("word2vec, global positives", "word2vec")]
    helps = gains.verdict(*pair, {"mrr@20": up, "hit_rate@20": level, "cold": NOTHING})
    assert helps == "word2vec, global positives helps over word2vec: MRR@20 +2.0 points (+1.0 to +3.0)."
    beside = {"mrr@20": level, "hit_rate@20": level, "others": down}
    assert "is not shown to differ" in gains.verdict(*pair, beside | {"cold": level | {"value": 0.0}})
    assert "harm" in gains.verdict(*pair, beside | {"cold": level})
    assert "does harm beside" in gains.verdict(*pair, {"mrr@20": level, "hit_rate@20": down})
    assert "gains and loses" in gains.verdict(*pair, {"mrr@20": down, "hit_rate@20": level, "cold": up})
    assert "is not shown to differ from word2vec" in gains.verdict(*pair, {"mrr@20": level, "hit_rate@20": level})


def test_a_short_verdict_names_the_measures():
    up, down, level = ({"value": 0.1, "gain": g, "ci95": [g - 0.01, g + 0.01], "n": 9} for g in (0.02, -0.02, 0.0))
    assert gains.points(up) == "+2.0 (+1.0 to +3.0)"
    assert gains.standing({"mrr@20": level, "hit_rate@20": level}) == "level"
    assert gains.standing({"mrr@20": up, "next_cart": up}) == "helps MRR@20, to the cart"
    mixed = {"mrr@20": down, "cold": up, "others": down}
    assert gains.standing(mixed) == "helps new products; harms MRR@20, beside new products"
    assert gains.standing({"mrr@20": level, "cold": level | {"value": 0.0}, "others": down}) == "level"
