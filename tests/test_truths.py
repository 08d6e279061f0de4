"""Known pairs: which they are, and how they are counted."""

import numpy as np
import pytest
from test_variants import PRODUCTS, TABLE

from shelfspace import truths
from shelfspace.sequences import Examples


def test_missions_are_the_visits_before_what_was_bought_and_in_no_training():
    found = truths.missions(TABLE, PRODUCTS.product_id.to_numpy().astype(str))
    assert isinstance(found, Examples) and len(found) > 5 and (found.lengths == 1).all()
    frame = TABLE.to_pandas()
    ids = PRODUCTS.product_id.to_numpy().astype(str)
    one = frame.iloc[found.start[0]]
    same = frame[(frame.user_id == one.user_id) & (frame.session == one.session)]
    assert ids[found.target[0]] in set(same.product_id[(same.role == "target") & (same.event == "purchase")])
    assert (found.items[found.start] != found.target).all()


def test_each_owner_counts_once_by_hand():
    pairs = truths.recovered(np.array([1, 30, 30, 2]), np.array([30, 30, 30, 2]), np.array(list("uuuv")))
    assert pairs["value"] == pytest.approx((1 / 3 + 1) / 2) and pairs["gain"] == pytest.approx(1 / 6)
