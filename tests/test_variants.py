"""The variants: what each log can tell, that a switch switches its one thing, and the figures by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from shelfspace.measure import evaluation
from shelfspace.models.baselines import nearest_to_user
from shelfspace.sequences import arrays, prepare
from shelfspace.sequences.arrays import Corpus
from shelfspace.shop import simulation
from shelfspace.trials import gains, searches, truths, variants
from shelfspace.vectors.features import of_products


def log(users: int = 250, products: int = 90, seed: int = 0):
    """A small simulated shop as the pipeline would leave it: sequences, products, searches."""
    import ibis

    made = simulation.simulate(users, products, seed=seed)
    frame = made.events.astype({name: object for name in ("user_id", "event", "product_id", "query")})
    events = ibis.memtable(frame.assign(row=range(len(frame))))
    rows = prepare.sequences(events, min_products=3).to_pyarrow()
    coded = [rows[c].dictionary_encode() if rows[c].type == pa.string() else rows[c] for c in rows.column_names]
    return pa.table(dict(zip(rows.column_names, coded))), made.products, searches.of_log(events).to_pandas(), made.complements


TABLE, PRODUCTS, ASKED, COMPLEMENTS = log()
SETTINGS = variants.Settings(dim=8, sg_epochs=2, ss_epochs=2)


@pytest.fixture(scope="module")
def material():
    return variants.gather(TABLE, PRODUCTS, asked=ASKED, pictures=of_products(PRODUCTS, ["brand"]))


@pytest.fixture(scope="module")
def made(material):
    return variants.train(material, SETTINGS, progress=False)


def named(name: str) -> variants.Variant:
    return next(variant for variant in variants.VARIANTS if variant.name == name)


def test_every_variant_says_what_it_is_and_changes_a_known_one():
    names = [variant.name for variant in variants.VARIANTS]
    assert len(set(names)) == len(names)
    for place, variant in enumerate(variants.VARIANTS):
        assert variant.label and variant.formula and variant.source and set(variant.needs) <= set(variants.LACKS)
        assert variant.base == "" if variant.name in ("word2vec", "starspace") else variant.base in names[:place]


def test_all_are_made_and_measured_on_the_same_targets(material, made):
    assert list(made) == [v.name for v in variants.VARIANTS if not variants.lacking(v, material)]
    assert len(made) >= len(variants.VARIANTS) - 1  # all but the approximate search, where faiss is missing
    for one in made.values():
        assert len(one.test) == len(material.test)
        rank = evaluation.evaluate(one.model, one.test).ranks
        first = one.answer(one.test)
        hits = (first == one.test.target[:, None]).any(axis=1)
        assert (hits[rank <= 19]).all() and not hits[rank > 21].any()
        assert one.megabytes > 0 and one.train_seconds >= 0 and gains.latency(one, repeats=2) > 0


def test_the_same_material_gives_the_same_vectors(material, made):
    again = variants.train(material, SETTINGS, progress=False)
    for name in made:
        assert np.array_equal(made[name].vectors, again[name].vectors), name


@pytest.mark.parametrize("name", ["word2vec_weights", "word2vec_goals", "starspace_weights", "starspace_goals"])
def test_a_switch_on_a_log_without_its_cause_is_the_default_to_the_bit(material, name):
    quiet = Corpus(*(getattr(material.corpus, field) for field in ("product_ids", "items", "offsets", "times")),
                   np.zeros(len(material.corpus.items), np.int8), material.corpus.sessions)  # fmt: skip
    calm = variants.Material(PRODUCTS, material.product_ids, quiet, material.valid, material.test)
    plain, switched = (variants.embed(named(one), calm, SETTINGS).vectors for one in (named(name).base, name))
    assert np.array_equal(plain, switched)
    assert not np.array_equal(plain, variants.embed(named(name), material, SETTINGS).vectors)


def test_the_given_weights_are_those_of_the_user_alone(made):
    assert made["word2vec_given"].vectors is made["word2vec"].vectors
    learned = made["word2vec_learned"].chosen
    assert list(learned) == list(arrays.EVENT_LEVELS) and learned["view"] == 1.0
    assert all(learned[name] in variants.EVENT_GRID[name] for name in variants.EVENT_GRID)


def test_the_learned_weights_are_the_best_that_were_tried(made):
    one = made["word2vec_learned"]
    best = one.tried.sort_values("mrr@20", ascending=False, kind="stable").iloc[0]
    assert best[list(one.chosen)].to_dict() == one.chosen and len(one.tried) == 36
    valid = evaluation.evaluate(one.model, one.valid).ranks
    assert best["mrr@20"] == pytest.approx(evaluation.MEASURES["mrr@20"](valid, 20).mean())


def test_queries_are_never_recommended(made, material):
    one = made["starspace_searches"]
    scores = one.model(one.test[:20])
    assert np.isfinite(scores).sum(axis=1).max() <= len(material.product_ids) < scores.shape[1]


def test_products_without_a_click_are_found_by_information_alone(material, made):
    """The targets of the train users are asked, which are many: the hidden ones among them were in no training here."""
    hidden = np.arange(0, len(PRODUCTS), 4)
    asked = replace(material, test=arrays.examples(TABLE, material.product_ids, "train"))
    found = variants.cold(asked, SETTINGS, made, hidden)
    is_cold = np.isin(asked.test.target, hidden)
    n, last = is_cold.sum(), len(PRODUCTS) - len(hidden)
    placing = {"word2vec_newcomers", "starspace_alone", "starspace_both", "starspace_images", "starspace_searches"}
    assert set(found) == {"word2vec", "starspace"} | placing and n > 20
    assert (found["word2vec"][is_cold] > last).all() and (found["starspace"][is_cold] > last).all()
    chance = 20 / len(PRODUCTS)
    for name in placing:
        beyond = chance + 1.64 * (chance * (1 - chance) / n) ** 0.5  # products in random order hit as often once in twenty
        assert (found[name][is_cold] <= 20).mean() > beyond, name


def test_hiding_products_moves_the_vectors_of_the_others(material, made):
    """The default is trained again: its ranks of the other targets are not those of its vectors with some taken away."""
    hidden = np.arange(0, len(PRODUCTS), 5)
    one, others = made["word2vec"], ~np.isin(material.test.target, hidden)
    known = one.known & ~np.isin(np.arange(len(PRODUCTS)), hidden)
    taken = nearest_to_user(np.where(known[:, None], one.vectors, np.float32(0)), known, **SETTINGS.decays["word2vec"])
    masked = evaluation.evaluate(taken, material.test).ranks
    assert (variants.cold(material, SETTINGS, {"word2vec": one}, hidden)["word2vec"][others] != masked[others]).any()


def test_too_few_users_are_refused():
    one = arrays.sample(TABLE, 1)
    with pytest.raises(ValueError, match="take more of them"):
        variants.gather(one, PRODUCTS)


def test_categories_are_numbered_and_missing_ones_are_none():
    products = pd.DataFrame({"product_id": list("abcd"), "category": ["k", None, "", "j"]})
    given = Corpus(np.array(list("abd")), np.zeros(0, np.int32), np.zeros(1, np.int64))
    assert variants.groups(products, given).tolist() == [1, -1, 0]
    assert variants.groups(products[["product_id"]], given).tolist() == [-1, -1, -1]


def test_a_bare_log_leaves_out_what_it_cannot_tell():
    """Views alone, no columns, no searches: the two defaults remain, each of the others with one sentence."""
    views = TABLE.set_column(TABLE.column_names.index("event"), "event", pa.array(["view"] * TABLE.num_rows).dictionary_encode())
    bare = variants.gather(views, PRODUCTS[["product_id"]])
    sentences = {variant.name: variants.lacking(variant, bare) for variant in variants.VARIANTS}
    kept = [name for name, sentence in sentences.items() if not sentence]
    assert set(kept) - {"word2vec_graph"} == {"word2vec", "starspace"}
    assert "all of one kind of event" in sentences["word2vec_learned"] and "no search" in sentences["starspace_searches"]
    assert "purchase" in sentences["word2vec_airbnb"] and "categories" in sentences["word2vec_airbnb"]
    assert all(sentence.count(".") == 1 for sentence in sentences.values() if sentence)
    assert list(variants.train(bare, SETTINGS, progress=False)) == kept
    bought = TABLE.set_column(TABLE.column_names.index("event"), "event", pa.array(["purchase"] * TABLE.num_rows).dictionary_encode())
    assert "purchases" not in variants.gather(bought, PRODUCTS).has  # every visit is one, so none leads to one


def test_all_measures_of_all_models(made, material):
    hidden = np.arange(0, len(PRODUCTS), 5)
    cold = variants.cold(material, SETTINGS, made, hidden)
    most = np.bincount(material.corpus.items, minlength=len(PRODUCTS)).astype(np.float32)
    outside = variants.outside("popular", "popular", lambda part: np.tile(most, (len(part), 1)), material, 0.1)
    found = gains.measure(made | {"popular": outside}, hidden, cold)
    assert list(found) == [*made, "popular"] and "cold" not in found["popular"]
    for name, of in found.items():
        assert of["next_cart"]["n"] == (material.test.target_event > 0).sum()
        assert ("cold" in of) == (name in cold) and (name not in cold or of["cold"]["n"] + of["others"]["n"] == len(material.test))
        assert 0 <= of["valid"] <= 1 and ("p_holm" in of["mrr@20"]) == (name == "popular" or bool(made[name].variant.base))
        assert of["mrr@20"]["gain"] == 0 or (name in ("popular",) or made[name].variant.base)
    one, base = (evaluation.evaluate(made[name].model, made[name].test).ranks for name in ("word2vec_goals", "word2vec"))
    alone = evaluation.difference(one, base, material.test.user_ids)  # the interval of one switch that is told by itself
    assert np.ptp(found["word2vec_goals"]["mrr@20"]["ci95"]) > 1.3 * np.ptp(alone["ci95"])
    shown = gains.tabulate(made, {name: found[name] for name in made}, gains.MEASURES)
    assert list(shown.columns) == ["variant", *gains.MEASURES.values()] and len(shown) == len(made)
    assert "to" not in shown["HR@20"][0] and " to " in shown["HR@20"][1]
    told = gains.overview(made, found)
    assert list(told.columns) == ["variant", "HR@20", "MRR@20", "verdict"] and len(told) == len(made)
    assert told.verdict[0] == "default" and told["MRR@20"][1] == gains.points(found[list(made)[1]]["mrr@20"])


def test_known_pairs_are_ranked_among_all_products(made, material):
    pairs = truths.complements(COMPLEMENTS, material.product_ids)
    rank = truths.found_near(made["word2vec"], pairs)
    assert len(rank) == len(COMPLEMENTS) and rank.min() >= 1 and rank.max() <= len(PRODUCTS)
    found = truths.recover(made, {"complement": pairs}, ["word2vec", "word2vec_market"])
    other = truths.found_near(made["word2vec_market"], pairs)
    assert found["word2vec_market"]["complement"] == truths.recovered(other, rank, pairs.user_ids)
    assert found["word2vec"]["complement"]["gain"] == 0.0
