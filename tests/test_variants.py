"""The variants: what each log can tell, that a switch switches its one thing, and the figures by hand."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from shelfspace import metrics, searches, sequences, shop, variants
from shelfspace.features import of_products
from shelfspace.sequences import Corpus, Examples


def log(users: int = 250, products: int = 90, seed: int = 0):
    """A small simulated shop as the pipeline would leave it: sequences, products, searches."""
    import ibis

    made = shop.simulate(users, products, seed=seed)
    frame = made.events.astype({name: object for name in ("user_id", "event", "product_id", "query")})
    events = ibis.memtable(frame.assign(row=range(len(frame))))
    rows = sequences.sequences(events, min_products=3).to_pyarrow()
    coded = [rows[c].dictionary_encode() if rows[c].type == pa.string() else rows[c] for c in rows.column_names]
    return pa.table(dict(zip(rows.column_names, coded))), made.products, searches.of_log(events), made.complements


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
        rank = metrics.evaluate(one.model, one.test).ranks
        first = one.answer(one.test)
        hits = (first == one.test.target[:, None]).any(axis=1)
        assert (hits[rank <= 19]).all() and not hits[rank > 21].any()
        assert one.megabytes > 0 and one.train_seconds >= 0 and variants.latency(one, repeats=2) > 0


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
    assert list(learned) == list(sequences.EVENT_LEVELS) and learned["view"] == 1.0
    assert all(learned[name] in variants.EVENT_GRID[name] for name in variants.EVENT_GRID)


def test_queries_are_never_recommended(made, material):
    one = made["starspace_searches"]
    scores = one.model(one.test[:20])
    assert np.isfinite(scores).sum(axis=1).max() <= len(material.product_ids) < scores.shape[1]


def test_products_without_a_click_are_found_by_information_alone(material, made):
    hidden = np.arange(0, len(PRODUCTS), 5)
    found = variants.cold(material, SETTINGS, made, hidden)
    is_cold = np.isin(made["word2vec"].test.target, hidden)
    assert list(found) == list(made) and is_cold.sum() > 5
    last = len(PRODUCTS) - len(hidden)
    assert (found["word2vec"][is_cold] > last).all() and (found["starspace_goals"][is_cold] > last).all()
    for name in ("word2vec_newcomers", "starspace_alone", "starspace_both", "starspace_images", "starspace_searches"):
        assert (found[name][is_cold] <= 20).any(), name


def test_a_new_product_is_the_mean_of_the_most_alike_by_hand():
    products = pd.DataFrame({
        "product_id": list("abcdez"), "brand": ["x", "x", "x", "y", "y", "x"], "category": ["k", "k", "l", "l", "m", "k"],
    })  # fmt: skip
    information = of_products(products)
    vectors = np.array([[2, 0], [0, 3], [1, 1], [-1, 0], [0, -1], [0, 0]], np.float32)
    known = np.array([True] * 5 + [False])
    filled, now = variants.fill(vectors, known, variants.placer(information, vectors, known), products)
    length = (2 + 3 + 2**0.5 + 1 + 1) / 5  # of the known vectors, on average
    root = 0.5**0.5  # a and b share brand and category with z, and c the brand; each counts by its direction
    np.testing.assert_allclose(filled[5, :2], length * np.array([1 + 0 + root, 0 + 1 + root]) / 3, rtol=1e-6)
    assert np.linalg.norm(filled[5]) == pytest.approx(length) and now.all()
    assert np.array_equal(filled[:5, :2], vectors[:5]) and not filled[:5, 2].any()
    user = np.array([0.6, 0.8, 0])  # its cosine to z is the mean of those to a, b and c
    assert filled[5] @ user / length == pytest.approx((0.6 + 0.8 + (0.6 + 0.8) * root) / 3)
    stranger = pd.DataFrame({"product_id": ["s"], "brand": ["q"], "category": [None]})
    assert not variants.placer(information, vectors, known)(stranger).any()


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


def test_gains_by_hand():
    rank, other = np.array([1, 4, 25, 2]), np.array([2, 4, 20, 30])
    found = variants.gain(rank, other, "mrr@20")
    assert found["value"] == pytest.approx((1 + 0.25 + 0 + 0.5) / 4) and found["n"] == 4
    assert found["gain"] == pytest.approx((0.5 + 0 - 0.05 + 0.5) / 4)
    assert variants.gain(rank, other, "hit_rate@20")["gain"] == 0.0
    assert variants.gain(rank[:0], other[:0], "mrr@20") == {"value": None, "gain": None, "ci95": None, "n": 0}
    pairs = variants.recovered(np.array([1, 30, 30, 2]), np.array([30, 30, 30, 2]), np.array(list("uuuv")))
    assert pairs["value"] == pytest.approx((1 / 3 + 1) / 2) and pairs["gain"] == pytest.approx(1 / 6)


def test_a_gain_in_a_table():
    one = {"value": 0.381, "gain": 0.004, "ci95": [-0.002, 0.011], "n": 9}
    assert variants.told(one, "word2vec") == "38.1 (-0.2 to +1.1)" and variants.told(one, "") == "38.1"
    assert variants.told(None, "word2vec") == variants.told(variants.gain(np.zeros(0), np.zeros(0), "mrr@20"), "") == "–"


def test_verdicts_follow_the_intervals(made):
    up, down, level = ({"value": 0.1, "gain": g, "ci95": [g - 0.01, g + 0.01], "n": 9} for g in (0.02, -0.02, 0.0))
    nothing = variants.gain(np.zeros(0), np.zeros(0), "mrr@20")
    pair = (made["word2vec_goals"], made["word2vec"])
    helps = variants.verdict(*pair, {"mrr@20": up, "hit_rate@20": level, "cold": nothing})
    assert helps == "word2vec, global positives helps over word2vec: MRR@20 +2.0 points (+1.0 to +3.0)."
    assert "does harm beside" in variants.verdict(*pair, {"mrr@20": level, "hit_rate@20": down})
    assert "gains and loses" in variants.verdict(*pair, {"mrr@20": down, "hit_rate@20": level, "cold": up})
    assert "is level with word2vec" in variants.verdict(*pair, {"mrr@20": level, "hit_rate@20": level})


def test_all_measures_of_all_models(made, material):
    hidden = np.arange(0, len(PRODUCTS), 5)
    cold = variants.cold(material, SETTINGS, made, hidden)
    most = np.bincount(material.corpus.items, minlength=len(PRODUCTS)).astype(np.float32)
    outside = variants.outside("popular", "popular", lambda part: np.tile(most, (len(part), 1)), material.test, 0.1)
    found = variants.measure(made | {"popular": outside}, hidden, cold)
    assert list(found) == [*made, "popular"] and "cold" not in found["popular"]
    for name, of in found.items():
        assert of["next_cart"]["n"] == (material.test.target_event > 0).sum()
        assert name == "popular" or of["cold"]["n"] + of["others"]["n"] == len(material.test)
        assert of["mrr@20"]["gain"] == 0 or (name in ("popular",) or made[name].variant.base)
    shown = variants.tabulate(made, {name: found[name] for name in made}, variants.MEASURES)
    assert list(shown.columns) == ["variant", *variants.MEASURES.values()] and len(shown) == len(made)
    assert "to" not in shown["HR@20"][0] and " to " in shown["HR@20"][1]


def test_missions_are_the_visits_before_what_was_bought_and_in_no_training():
    found = variants.missions(TABLE, PRODUCTS.product_id.to_numpy().astype(str))
    assert isinstance(found, Examples) and len(found) > 5 and (found.lengths == 1).all()
    frame = TABLE.to_pandas()
    ids = PRODUCTS.product_id.to_numpy().astype(str)
    one = frame.iloc[found.start[0]]
    same = frame[(frame.user_id == one.user_id) & (frame.session == one.session)]
    assert ids[found.target[0]] in set(same.product_id[(same.role == "target") & (same.event == "purchase")])
    assert (found.items[found.start] != found.target).all()


def test_known_pairs_are_ranked_among_all_products(made, material):
    pairs = variants.complements(COMPLEMENTS, material.product_ids)
    rank = variants.found_near(made["word2vec"], pairs)
    assert len(rank) == len(COMPLEMENTS) and rank.min() >= 1 and rank.max() <= len(PRODUCTS)
    found = variants.recover(made, {"complement": pairs}, ["word2vec", "word2vec_market"])
    other = variants.found_near(made["word2vec_market"], pairs)
    assert found["word2vec_market"]["complement"] == variants.recovered(other, rank, pairs.user_ids)
    assert found["word2vec"]["complement"]["gain"] == 0.0
