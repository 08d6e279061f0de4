"""Known pairs: which they are, and how they are counted."""

import numpy as np
import pytest
from test_variants import PRODUCTS, TABLE

from shelfspace.sequences.arrays import Examples
from shelfspace.trials import truths


def test_missions_are_the_visits_before_what_was_bought_and_in_no_training():
    found = truths.missions(TABLE, PRODUCTS.product_id.to_numpy().astype(str))
    assert isinstance(found, Examples) and len(found) > 5 and (found.lengths == 1).all()
    frame = TABLE.to_pandas()
    ids = PRODUCTS.product_id.to_numpy().astype(str)
    for visit, target, user in zip(ids[found.items], ids[found.target], found.user_ids):
        own = frame[frame.user_id == user]
        bought = own[(own.role == "target") & (own.event == "purchase") & (own.product_id == target)]
        assert visit in set(own.product_id[(own.role == "history") & own.session.isin(bought.session)])
    assert (found.items[found.start] != found.target).all()


def test_each_owner_counts_once_by_hand():
    pairs = truths.recovered(np.array([1, 30, 30, 2]), np.array([30, 30, 30, 2]), np.array(list("uuuv")))
    assert pairs["value"] == pytest.approx((1 / 3 + 1) / 2) and pairs["gain"] == pytest.approx(1 / 6)
