"""The simulated shop's true chances: they are those that it draws by, and no model beats them."""

import numpy as np
import pandas as pd
import pytest

from shelfspace.logs import clean, engines, events
from shelfspace.measure import beyond_accuracy, evaluation, ranking
from shelfspace.models import baselines, session_knn
from shelfspace.sequences import arrays, prepare
from shelfspace.shop import assortment, simulation, tables, write
from shelfspace.trials import ceiling


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = simulation.simulate(users=6_000, products=600, seed=3)
    folder = tmp_path_factory.mktemp("shop")
    write.write(made, folder / "events.parquet")
    write.write_truth(made, folder)
    return folder


@pytest.fixture(scope="module", params=prepare.PROTOCOLS)
def trial(folder, request, tmp_path_factory):
    """Table, product ids, test examples and the ceiling's evaluation under a protocol."""
    log, path = events.read(folder / "events.parquet"), tmp_path_factory.mktemp(request.param) / "sequences.parquet"
    engines.write(prepare.sequences(log.table, protocol=request.param), path)
    table = arrays.load(path)
    product_ids = np.sort(clean.products(log.table).to_pandas()["product_id"].to_numpy().astype(str))
    test = arrays.examples(table, product_ids, "test")
    model = ceiling.model(folder, product_ids, min_products=5, last=request.param == "last-product")
    return table, product_ids, test, evaluation.evaluate(model, test, probabilities=True)


def test_chances_by_taste_are_those_of_many_draws():
    catalogue, rng = assortment.make_catalogue(200, np.random.default_rng(1)), np.random.default_rng(2)
    traits = simulation._traits(catalogue, 3, rng)
    truth = tables.truth(catalogue, traits)
    found = ceiling._taste(truth["products"], truth["users"])(np.arange(3))
    place = tables._by_id(catalogue)[1]
    assert np.allclose(found.sum(axis=1), 1, atol=2e-3)
    for user in range(3):
        drawn = place[simulation._by_taste(catalogue, traits, np.full(200_000, user), rng)]
        share = np.bincount(drawn, minlength=200) / len(drawn)
        assert np.abs(share - found[user]).max() < 5 * np.sqrt(found[user].max() / len(drawn))


def test_what_is_expected_is_what_happens(trial):
    """Of n targets that the first k products hold with the chances p, sum(p) are held, give or take the root of sum(p (1 - p))."""
    _, _, test, found = trial
    assert np.abs(found.log_total).max() < 1e-4  # the chances of all products sum to 1
    chance, hit = np.exp(found.top_scores.astype(float)), found.top == test.target[:, None]
    for k in (1, 5, 20):
        expected, observed = chance[:, :k].sum(axis=1), hit[:, :k].any(axis=1)
        assert abs(observed.sum() - expected.sum()) < 3 * np.sqrt((expected * (1 - expected)).sum()), k
    reciprocal = 1 / np.arange(1, 21)
    off = (hit - chance) @ reciprocal
    assert abs(off.mean()) < 3 * off.std() / np.sqrt(len(off))
    table, error = beyond_accuracy.calibration(found, test.target)
    assert error < 0.03 and table.probability.iloc[-1] > 5 * table.probability.iloc[0]


def test_no_target_was_impossible(trial):
    _, product_ids, _, found = trial
    assert (found.ranks < len(product_ids)).all() and np.median(found.ranks) < 20


def test_no_baseline_beats_the_ceiling(trial, folder):
    table, product_ids, test, found = trial
    corpus, new = arrays.corpus(table, targets=True), ~test.seen()
    counts = baselines.visit_counts(corpus, product_ids)
    models = {
        "popular": baselines.popular(counts),
        "own products": baselines.own_products(counts, 1.0),
        "markov": baselines.markov(corpus, product_ids, 4),
        "co-occurrence": baselines.item_to_item(baselines.cooccurrence(corpus, product_ids), 1.0),
        "session-KNN": session_knn.session_knn(corpus, product_ids, decay=0.3),
        "who does not know the customers": ceiling.model(
            folder, product_ids, min_products=5, last=len(np.unique(test.user_ids)) == len(test), traits=False
        ),
    }
    for name, model in models.items():
        other = evaluation.evaluate(model, test)
        for rank, of_other in ((found.ranks, other.ranks), (found.ranks_new[new], other.ranks_new[new])):
            for measure in (ranking.hit_rate, ranking.reciprocal_rank):
                assert measure(rank, 20).mean() > measure(of_other, 20).mean(), name


def test_a_block_of_examples_changes_nothing(trial, folder):
    _, product_ids, test, found = trial
    model = ceiling.model(folder, product_ids, min_products=5, last=len(np.unique(test.user_ids)) == len(test))
    again = evaluation.evaluate(model, test[:50], block=7, threads=1)
    assert (again.ranks == found.ranks[:50]).all() and (again.ranks_new == found.ranks_new[:50]).all()


def test_nobody_leaves_with_fewer_products_than_the_least(folder, trial):
    table, product_ids, test, _ = trial
    if len(np.unique(test.user_ids)) < len(test):
        pytest.skip("Under protocol time, a customer's later visits can make up the least number of products.")
    positions, offsets = test.flat()
    distinct = np.array([len(set(test.items[positions[a:b]])) for a, b in zip(offsets[:-1], offsets[1:])])
    few = test[np.flatnonzero(distinct < 5)[:30]]
    scores = ceiling.model(folder, product_ids, min_products=5)(few)
    for row, (start, end) in enumerate(zip(few.start, few.end)):
        assert np.isneginf(scores[row, few.items[start:end]]).all()
    free = ceiling.model(folder, product_ids)(few)
    assert np.isfinite(free[0, few.items[few.start[0]]])


def test_a_run_has_a_ceiling_where_its_shop_is_simulated_and_all_events_count(folder, tmp_path):
    data = {"protocol": "time", "target_event": "", "min_products": 5}
    assert not ceiling.is_known(tmp_path, data)
    (tmp_path / "shop").symlink_to(folder)
    assert not ceiling.is_known(tmp_path, data | {"target_event": "purchase"})
    assert ceiling.is_known(tmp_path, data) and callable(ceiling.of_run(tmp_path, np.array(["P00001"]), data))


def test_a_missing_file_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match="lacks events.parquet, truth_products.parquet, .* run 01_prepare again"):
        ceiling.model(tmp_path, np.array(["P00001"]))


def test_the_truth_tells_where_moves_go(folder):
    for name, goal in (("complements", "complement_id"), ("substitutes", "substitute_id")):
        moves = pd.read_parquet(folder / f"truth_{name}.parquet")
        assert list(moves.columns) == ["product_id", goal, "chance"] and not moves.duplicated(["product_id", goal]).any()
        assert np.allclose(moves.groupby("product_id")["chance"].sum(), 1)
