"""The ranker: what it is told of a candidate by hand, that own visits are left out, that it learns, and that it explains itself."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest

from shelfspace.files import run_files
from shelfspace.measure import evaluation, ranking
from shelfspace.models import baselines, factors, ranked, retrieval, tied, tied_training, trees
from shelfspace.sequences.arrays import Corpus, Examples
from shelfspace.vectors import embeddings


def shop(n: int = 400, n_products: int = 30, seed: int = 0) -> tuple[Examples, retrieval.Facts]:
    """Customers who see four products, after which comes the one whose number follows that of the newest, or the newest again."""
    rng = np.random.default_rng(seed)
    items = rng.integers(0, n_products, (n, 5))
    again = rng.random(n) < 0.3
    items[:, 4] = np.where(again, items[:, 3], (items[:, 3] + 1) % n_products)
    start = 5 * np.arange(n)
    events = np.zeros((n, 5), np.int8)
    events[:, 3] = again  # what was put in the cart is looked at again
    examples = Examples(
        items.ravel().astype(np.int32), np.tile(np.arange(5.0), n), events.ravel(), start, start + 4, items[:, 4].astype(np.int32),
        np.zeros(n, np.int8), np.arange(n).astype(str), start + 5,
    )  # fmt: skip
    ids = np.array([f"p{i:02d}" for i in range(n_products)])
    corpus = Corpus(ids, examples.items, 5 * np.arange(n + 1), examples.times, examples.events)
    products = pd.DataFrame({"product_id": ids, "category": np.where(np.arange(n_products) % 2, "odd", "even")})
    return examples, retrieval.facts(corpus, products, np.eye(n_products, dtype=np.float32))


def following(n_products: int):
    """A source that knows the rule, and one that names the same products to everybody."""
    shift = np.roll(np.eye(n_products, dtype=np.float32), 1, axis=1)
    return {
        "after": lambda part: shift[part.items[part.end - 1]],
        "same": lambda part: np.tile(-np.arange(n_products, dtype=np.float32), (len(part), 1)),
    }


@pytest.fixture(scope="module")
def trained():
    examples, facts = shop()
    return ranked.train(following(30), facts, examples, top=3, trees=40), shop(seed=2)[0]


def column(table: np.ndarray, name: str) -> np.ndarray:
    return table[:, retrieval.DESCRIPTION.index(name)]


def test_a_candidate_is_described_as_by_hand():
    """Three visits: product 2 in the cart, product 0, product 2 again after a pause of two days; candidates 0, 1 and 2."""
    examples = Examples(
        np.array([2, 0, 2], np.int32), np.array([0.0, 0.01, 2.01]), np.array([1, 0, 0], np.int8), np.array([0]), np.array([3]),
        np.array([1], np.int32), np.zeros(1, np.int8), np.array(["Ada"]), np.array([2]),
    )  # fmt: skip
    nothing = np.full(3, np.nan, np.float32)
    facts = retrieval.Facts(
        np.array([5.0, 1.0, 3.0], np.float32), np.array([0.0, 0.0, 2.0], np.float32), np.zeros(3, np.float32), 9.0,
        np.array([0, 0, 1], np.int32), np.full(3, -1, np.int32), np.log1p(np.array([10.0, 20.0, 5.0], np.float32)), nothing,
        np.eye(3, dtype=np.float32),
    )  # fmt: skip
    table = retrieval.describe(facts, examples, np.arange(3, dtype=np.int32), np.array([0, 3]))
    np.testing.assert_allclose(column(table, "own/visits"), [1, 0, 2])
    np.testing.assert_allclose(column(table, "own/visits_ago"), [1, np.nan, 0])
    np.testing.assert_allclose(column(table, "own/days_ago"), [2, np.nan, 0])
    np.testing.assert_allclose(column(table, "own/strongest_event"), [0, np.nan, 1])
    np.testing.assert_allclose(column(table, "own/newest_event"), [0, np.nan, 0])
    np.testing.assert_allclose(column(table, "own/in_this_session"), [0, np.nan, 1])
    for name, value in (
        ("customer/visits", 3), ("customer/products", 2), ("customer/share_of_returns", 1 / 3), ("customer/sessions", 2),
        ("customer/days_since_the_visit_before", 2), ("customer/days_in_all", 2.01), ("customer/visits_in_this_session", 1),
    ):  # fmt: skip
        np.testing.assert_allclose(column(table, name), value, rtol=1e-6)
    # Two of Ada's visits were counted: one to product 2, in the cart, and one to product 0.
    np.testing.assert_allclose(column(table, "popularity/visits"), [4, 1, 2])
    np.testing.assert_allclose(column(table, "popularity/share_taken"), [0, 0, 1 / 12], rtol=1e-6)
    np.testing.assert_allclose(column(table, "category/visits_ago"), [1, 1, 0])
    fade = 1 + retrieval.FADE + retrieval.FADE**2
    np.testing.assert_allclose(column(table, "category/share"), [0.8 / fade, 0.8 / fade, 1.64 / fade], rtol=1e-6)
    assert np.isnan(column(table, "brand/share")).all() and np.isnan(column(table, "price/above_usual")).all()
    np.testing.assert_allclose(column(table, "price/above_newest"), np.log([11 / 6, 21 / 6, 1]), rtol=1e-5)
    np.testing.assert_allclose(column(table, "near/newest"), [0, 0, 1])
    np.testing.assert_allclose(column(table, "near/nearest_of_five"), [1, 0, 1])


def test_descriptions_do_not_depend_on_who_else_is_described():
    examples, facts = shop(50)
    product = np.tile(np.arange(30, dtype=np.int32), 50)
    whole = retrieval.describe(facts, examples, product, 30 * np.arange(51))
    alone = [retrieval.describe(facts, examples[i : i + 1], product[:30], np.array([0, 30])) for i in range(50)]
    np.testing.assert_array_equal(whole, np.concatenate(alone))


def test_candidates_are_the_first_of_each_source_and_what_was_seen():
    examples, _ = shop(20)
    product, offsets, said, _ = retrieval.candidates(following(30), examples, top=3)
    for i in range(20):
        mine = product[offsets[i] : offsets[i + 1]]
        history = examples.items[examples.start[i] : examples.end[i]]
        assert set(history) | {0, 1, 2, (history[-1] + 1) % 30} <= set(mine) and len(set(mine)) == len(mine)
        place = said[offsets[i] : offsets[i + 1], 3]  # by the source that names the same to everybody
        assert dict(zip(mine, place)) == {p: (p if p < 3 else 3) for p in mine}


@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize("n_products, top", [(30, 7), (5, 7), (700, 40)])
def test_candidates_equal_their_definition(n_products, top, targets):
    """Products are few enough to be named by all, or many, and tie in places."""
    examples, _ = shop(100, n_products)
    rng = np.random.default_rng(3)
    scores = {name: rng.integers(levels, size=(100, n_products)).astype(np.float32) for name, levels in (("a", 3), ("b", 50), ("c", 9999))}
    sources = {name: lambda part, each=each: each for name, each in scores.items()}
    product, offsets, said, rest = retrieval.candidates(sources, examples, top, targets)
    np.testing.assert_array_equal(rest, scores["a"])
    order = [np.argsort(-each, axis=1, kind="stable")[:, :top].tolist() for each in scores.values()]
    for row in range(100):
        named = {*examples.items[examples.start[row] : examples.end[row]], *([examples.target[row]] if targets else [])}
        named = sorted(named.union(*(each[row] for each in order)))
        assert product[offsets[row] : offsets[row + 1]].tolist() == named
        for j, each in enumerate(scores.values()):
            place = [order[j][row].index(p) if p in order[j][row] else top for p in named]
            np.testing.assert_array_equal(said[offsets[row] : offsets[row + 1], [j, 3 + j]], np.stack([each[row, named], place], axis=1))


def test_of_a_very_long_history_the_newest_products_are_candidates():
    n = 3_000
    items = np.arange(n, dtype=np.int32)
    one = Examples(
        items,
        np.arange(float(n)),
        np.zeros(n, np.int8),
        np.array([0]),
        np.array([n - 1]),
        items[-1:],
        np.zeros(1, np.int8),
        np.array(["Ada"]),
    )
    product, _, _, _ = retrieval.candidates({"none": lambda part: np.zeros((len(part), n), np.float32)}, one, top=3)
    assert set(product) == {0, 1, 2, *range(n - 1 - retrieval.OWN, n - 1)}


def test_of_many_candidates_a_share_is_learned_from_and_every_target(monkeypatch):
    examples, facts = shop(200)  # histories of four, and three products named by each of two sources

    def questions(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        monkeypatch.setattr(ranked, "ROWS", rows)
        tables, *rest = ranked._questions(following(30), facts, examples, 3, False, seed)
        return np.concatenate(tables), *rest

    table, target, groups = questions(10 * 200)
    fewer, still, sizes = questions(3 * 200)
    assert sum(groups) == len(target) and sum(sizes) == len(still) and target.sum() == still.sum() == len(groups) == len(sizes)
    others = (still == 0).sum() / (target == 0).sum()
    assert 0.25 < others < 0.35
    rows = {row.tobytes() for row in table}
    assert all(row.tobytes() in rows for row in fewer)  # told of a candidate is the same as where all are there
    np.testing.assert_array_equal(fewer[still == 1], table[target == 1])
    assert not np.array_equal(questions(3 * 200, seed=1)[1], still)


def test_it_learns_when_to_trust_a_source(trained):
    model, test = trained
    rank = evaluation.evaluate(ranked.recommend(model), test).ranks
    alone = evaluation.evaluate(model.sources["after"], test).ranks
    assert ranking.reciprocal_rank(rank, 20).mean() > ranking.reciprocal_rank(alone, 20).mean() + 0.1
    assert (rank <= 2).mean() > 0.95  # either of the two that can come


def test_the_parts_of_a_score_sum_to_it(trained):
    model, test = trained
    row, product = np.divmod(np.arange(150), 30)
    parts = ranked.explain(model, test[:5], row, product)
    np.testing.assert_allclose(parts.drop(columns="score").sum(axis=1), parts.score, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(parts.score, ranked.recommend(model)(test[:5]).ravel(), rtol=1e-6)
    candidates, offsets, _ = ranked.look(model.sources, model.facts, test[:5], model.top)
    named = np.isin(np.arange(150), np.repeat(np.arange(5), np.diff(offsets)) * 30 + candidates)
    assert named.any() and not named.all()
    np.testing.assert_array_equal(parts.no_candidate == 0, named)
    np.testing.assert_array_equal(parts.base != 0, named)
    some = [70, 3, 3]
    pd.testing.assert_frame_equal(ranked.explain(model, test[:5], row[some], product[some]), parts.loc[some].reset_index(drop=True))


def test_what_is_no_candidate_comes_after_all_candidates(trained):
    model, test = trained
    product, offsets, _ = ranked.look(model.sources, model.facts, test[:10], model.top)
    scores = ranked.recommend(model)(test[:10])
    for row in range(10):
        inside = np.isin(np.arange(30), product[offsets[row] : offsets[row + 1]])
        assert scores[row, inside].min() > scores[row, ~inside].max()


def test_what_the_trees_hold_equal_stands_in_the_order_of_the_first_source():
    (examples, facts), (valid, _) = shop(), shop(seed=1)
    sources = following(30)
    model = ranked.train({"same": sources["same"], "after": sources["after"]}, facts, examples, top=5, trees=1)
    scores = ranked.recommend(model)(valid[:20])
    product, offsets, table = ranked.look(model.sources, model.facts, valid[:20], model.top)
    alike = 0
    for row, (begin, end) in enumerate(zip(offsets, offsets[1:])):
        leaves = model.trees.predict(table[begin:end], pred_leaf=True).ravel()
        for leaf in np.unique(leaves):
            among = product[begin:end][leaves == leaf]  # in order of product, as "same" would have it
            assert (np.diff(scores[row, among]) < 0).all()
            alike += len(among) > 1
    assert alike >= 20


@pytest.mark.parametrize("leaves", [2, 15, 32, 33])
def test_the_trees_are_asked_as_their_library_asks_them(leaves):
    """To the bit: values at the thresholds, missing ones where training met them and where it did not, more leaves than bits, and none."""
    rng = np.random.default_rng(leaves)
    table = rng.integers(-40, 40, size=(3000, 4)).astype(np.float32) / 7
    table[:, 3] = np.where(rng.random(3000) < 0.3, np.nan, table[:, 3])
    label = np.nan_to_num(table[:, 3], nan=2) * table[:, 0] + np.sin(table[:, 1]) + table[:, 2]
    settings = {"num_leaves": leaves, "min_data_in_leaf": 2, "verbose": -1, "seed": 0}
    asked = np.where(rng.random((500, 4)) < 0.2, np.nan, rng.integers(-45, 45, size=(500, 4)) / 7).astype(np.float32)
    for of in (label, np.ones(3000)):
        booster = lgb.train(settings, lgb.Dataset(table, of), 20)
        np.testing.assert_array_equal(trees.predictor(booster)(asked), booster.predict(asked))
        booster.best_iteration = 7
        np.testing.assert_array_equal(trees.predictor(booster)(asked), booster.predict(asked))
    assert (trees.nodes(lgb.train(settings, lgb.Dataset(table, label), 20)) is None) == (leaves > trees.LEAVES)


def test_the_scores_of_a_block_are_those_of_its_parts(trained):
    model, test = trained
    apart = [ranked.recommend(model)(test[i : i + 50]) for i in range(0, 400, 50)]
    np.testing.assert_array_equal(ranked.recommend(model)(test), np.concatenate(apart))


def test_it_is_the_same_from_its_file(trained, tmp_path):
    model, test = trained
    ranked.save(model, tmp_path / "ranker.txt")
    again = ranked.load(tmp_path / "ranker.txt", model.sources, model.facts, model.top)
    np.testing.assert_array_equal(ranked.recommend(again)(test), ranked.recommend(model)(test))
    with pytest.raises(ValueError, match="trained with other sources"):
        ranked.load(tmp_path / "ranker.txt", {"after": model.sources["after"]}, model.facts)


def test_the_ranker_of_a_run_is_opened_as_it_was_left(tmp_path, monkeypatch):
    """From the files of a run alone: the scores are those of the ranker that was trained, and what is given is not counted anew."""
    examples, test = (shop(200, seed=seed)[0] for seed in (0, 2))
    ids = np.array([f"p{i:02d}" for i in range(30)])
    corpus = Corpus(ids, examples.items, 5 * np.arange(201), examples.times, examples.events)
    products = pd.DataFrame({"product_id": ids, "category": np.where(np.arange(30) % 2, "odd", "even")})
    vectors = {
        name: np.random.default_rng(seed).normal(size=(30, 4)).astype(np.float32) for seed, name in enumerate(("word2vec", "starspace"))
    }
    best = dict.fromkeys(("cooccurrence", "word2vec_user", "starspace_user"), {"decay": 0.5, "decay_time": "rank"})
    network = tied_training.start(vectors["starspace"], np.ones(30, bool), corpus, ids, decay_time="rank")
    ease, pairs = factors.Ease(corpus, ids), baselines.cooccurrence(corpus, ids)
    aligned = {name: (table, np.ones(30, bool)) for name, table in vectors.items()}
    sources = retrieval.sources(tied.recommend(network.learned()), corpus, ids, aligned, best, ease)
    model = ranked.train(sources, retrieval.facts(corpus, products, vectors["starspace"]), examples, top=7, trees=20)

    products.to_parquet(tmp_path / "products.parquet")
    (tmp_path / "product_embeddings").mkdir()
    for name, table in vectors.items():
        embeddings.Embeddings(ids, table).save(tmp_path / "product_embeddings" / f"{name}.parquet")
    run_files.write_json(tmp_path / "decay.json", {"embedding": "starspace"})
    run_files.write_json(tmp_path / "best_decays.json", best)
    run_files.write_json(tmp_path / "recommender.json", {"top": 7})
    network.save(tmp_path / "recommender_tied.keras")
    ranked.save(model, tmp_path / "recommender_ranked.txt")
    ease.save(tmp_path / "recommender_ease.npz")
    monkeypatch.setattr(np.linalg, "inv", None)  # what was fitted is not fitted again
    opened = ranked.reopen(tmp_path / "recommender_ranked.txt", corpus)
    assert opened.top == 7 and next(iter(opened.sources)) == "tied"
    np.testing.assert_array_equal(ranked.recommend(opened)(test), ranked.recommend(model)(test))
    monkeypatch.setattr(baselines, "cooccurrence", None)
    again = ranked.reopen(tmp_path / "recommender_ranked.txt", corpus, pairs)
    np.testing.assert_array_equal(ranked.recommend(again)(test), ranked.recommend(model)(test))


def test_it_is_the_same_in_every_run():
    examples, facts = shop(200)
    texts = {ranked.train(following(30), facts, examples, top=3, trees=10).trees.model_to_string() for _ in range(2)}
    assert len(texts) == 1


def test_where_no_source_names_a_target_the_targets_are_candidates():
    """Which a log may ask for whose customers share no product; who has no example at all is told."""
    examples, facts = shop(200)
    far = Examples(*(getattr(examples, name) for name in ("items", "times", "events", "start", "end")),
                   np.full(200, 29, np.int32), examples.target_event, examples.user_ids, examples.trained)  # fmt: skip
    far = far[~far.seen() & (far.items[far.end - 1] != 28)]
    assert not any(29 in retrieval.candidates(following(30), far[i : i + 1], top=3)[0] for i in range(5))
    model = ranked.train(following(30), facts, far, top=3, trees=5)
    assert model.trees.num_trees() > 0 and np.isfinite(ranked.recommend(model)(far)).all()
    with pytest.raises(ValueError, match="No user has a target"):
        ranked.train(following(30), facts, far[:0], top=3)
