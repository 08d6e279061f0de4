"""StarSpace: the gradient against automatic differentiation, an update by hand, and what its parameters promise."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_trainers import corpus

from shelfspace.sequences.arrays import Corpus, without
from shelfspace.vectors import embeddings, features, kernels, starspace, validation

WIDTH, DIM = 16, 12


def small(sequences: int = 6, products: int = 9, seed: int = 0) -> Corpus:
    """Short random sequences in which products repeat."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 6, sequences)
    ids = np.array([f"p{i}" for i in range(products)])
    return Corpus(ids, rng.integers(products, size=lengths.sum()).astype(np.int32), np.append(0, lengths.cumsum()))


def one_batch(given: Corpus, table, starts, rows, *, cosine, hinge, seed=5, **changed):
    """Run the kernel for a single batch of all sequences; return the loss, the table after it, and what was drawn."""
    settings = {"margin": 0.3, "temperature": 0.5, "negatives": 7, "max_kept": 4, "batch": 10, "window": 0, "p": 0.5}
    settings |= changed
    order = np.random.default_rng(seed).permutation(len(given))
    state = np.array([seed + 1], dtype=np.uint64)
    replay, nothing = state.copy(), np.zeros(0, np.int64)
    labels = starspace._draw_labels.py_func(given.offsets, order, nothing, replay)
    drawn = [given.items[labels[kernels.draw(replay, len(order))]] for _ in range(settings["negatives"])]
    after, squares = table.copy(), np.zeros((len(table), 2), np.float32)
    loss = starspace._epoch(
        after, squares, starts, rows, given.items, given.offsets, order, state, DIM, 0.1, 0.1, cosine, hinge,
        settings["margin"], settings["temperature"], settings["negatives"], settings["max_kept"], settings["batch"],
        settings["window"], settings["p"], 100.0, nothing, nothing, nothing, nothing, nothing, 0,
    )  # fmt: skip
    return loss, after, order, labels, drawn, settings


@pytest.mark.parametrize("several_rows", [False, True])
@pytest.mark.parametrize("window", [0, 1])
@pytest.mark.parametrize("similarity", starspace.SIMILARITIES)
@pytest.mark.parametrize("loss", starspace.LOSSES)
def test_one_batch_is_the_gradient_of_automatic_differentiation(loss, similarity, window, several_rows):
    """The oracle builds each example's loss from both sides' rows, holding the projections' scales constant."""
    import tensorflow as tf

    given, rng = small(), np.random.default_rng(1)
    members = [[i, 9 + i % 3] if several_rows else [i] for i in range(9)]  # products that share a feature's row
    starts, rows = np.cumsum([0] + [len(m) for m in members]), np.concatenate(members).astype(np.int32)
    table = np.zeros((12, WIDTH), np.float32)
    table[:, :DIM] = rng.normal(0, 0.5, (12, DIM))
    cosine, hinge = similarity == "cosine", loss == "hinge"
    found, after, order, labels, drawn, has = one_batch(given, table, starts, rows, cosine=cosine, hinge=hinge, window=window)

    def project(rows_table, items):
        of = [row for item in items for row in members[item]]
        total = tf.reduce_sum(tf.gather(rows_table, of), axis=0)
        return total / tf.stop_gradient(tf.norm(total) if cosine else tf.constant(len(of) ** 0.5, tf.float64))

    expected, squares, loss_sum = table.astype(float), np.zeros((12, 2)), 0.0
    of_negatives = []  # they move last, one after the other

    def adagrad(row, side, gradient, square):
        squares[row, side] += square / DIM
        expected[row] -= 0.1 * gradient / np.sqrt(squares[row, side] + 1e-6)

    for sequence, place in zip(order, labels):
        begin, end = given.offsets[sequence], given.offsets[sequence + 1]
        if window:
            begin, end = max(begin, place - window), min(end, place + window + 1)
        bag = [given.items[i] for i in range(begin, end) if i != place]
        label = given.items[place]
        places = [place for place, product in enumerate(drawn) if product != label]
        noise = [drawn[place] for place in places]
        left, right = tf.Variable(table, dtype=tf.float64), tf.Variable(table, dtype=tf.float64)
        one_by_one = [tf.Variable(table, dtype=tf.float64) for _ in noise]
        with tf.GradientTape() as tape:
            a = project(left, bag)
            positive = tf.tensordot(a, project(right, [label]), 1)
            scores = [tf.tensordot(a, project(own, [item]), 1) for own, item in zip(one_by_one, noise)]
            if hinge:
                terms = [has["margin"] - positive + score for score in scores]
                used = [j for j, term in enumerate(terms) if term > 0][: has["max_kept"]]
                value = tf.add_n([terms[j] for j in used]) if used else tf.constant(0.0, tf.float64)
                loss_sum += float(value) / has["negatives"]
                value /= max(1, len(used))
            else:
                used = list(range(len(noise)))
                value = tf.reduce_logsumexp(tf.stack([positive, *scores]) / has["temperature"])
                value -= positive / has["temperature"]
                loss_sum += float(value)
                value *= has["temperature"]
        gradients = tape.gradient(value, [left, right, *one_by_one], unconnected_gradients="zero")
        gradients = [tf.convert_to_tensor(g).numpy() for g in gradients]
        if not used:
            continue
        a = a.numpy()
        bag_rows = [row for item in bag for row in members[item]]
        share = 1.0 if cosine else len(bag_rows) ** -0.5  # what the projection's scale leaves of a row's gradient
        scale = np.linalg.norm(table.astype(float)[bag_rows].sum(axis=0)) ** -1 if cosine else share
        for row in bag_rows:  # G is the gradient by the projection, for every row that it sums, as often as it does
            of_row = gradients[0][row] / scale / bag_rows.count(row)
            adagrad(row, 0, of_row, of_row @ of_row)
        for side, item in [(1, label), *((2 + j, noise[j]) for j in used)]:
            of = members[item]
            scale = np.linalg.norm(table.astype(float)[of].sum(axis=0)) ** -1 if cosine else len(of) ** -0.5
            for row in of:
                if side == 1:
                    adagrad(row, 1, gradients[side][row] / scale, a @ a)
                else:
                    of_negatives.append((places[side - 2], row, gradients[side][row] / scale, a @ a))
    for _, row, gradient, square in sorted(of_negatives, key=lambda negative: negative[0]):
        adagrad(row, 1, gradient, square)
    assert found == pytest.approx(loss_sum, rel=1e-5) and loss_sum > 0
    np.testing.assert_allclose(after, expected, atol=2e-5)
    assert np.abs(after - table).max() > 0.05


def test_an_update_by_hand():
    # The label is a = (1, 0), the bag is b = (0, 1); the negatives are c = (0.6, 0.8) and a, which is passed over.
    # The cosines to the bag are 0 and 0.8. The hinge loss is (0.2 - 0 + 0.8) / 2 negatives.
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.3, 0.3]])
    loss, after = starspace.update(vectors, bag=[1], label=0, noise=[2, 0], margin=0.2, learning_rate=0.1)
    assert loss == pytest.approx(0.5)
    # The bag's gradient is G = c - a = (-0.4, 0.8), of squared length 0.8, so b moves by -0.1 G / sqrt(0.8 / 2); the
    # label moves by 0.1 b / sqrt(1 / 2), and the negative by as much the other way.
    of_label, of_bag = 0.1 / math.sqrt(1 / 2), 0.1 / math.sqrt(0.8 / 2)
    by_hand = [[1, of_label], [0.4 * of_bag, 1 - 0.8 * of_bag], [0.6, 0.8 - of_label], [0.3, 0.3]]
    np.testing.assert_allclose(after, by_hand, atol=1e-6)
    # A negative beyond the margin costs nothing and moves nothing.
    loss, after = starspace.update(vectors, bag=[2], label=0, noise=[3], margin=-0.9)
    assert loss == 0 and np.array_equal(after, vectors.astype(np.float32))


def test_labels_and_draws_are_uniform():
    state = np.array([3], dtype=np.uint64)
    draws = np.array([kernels.draw(state, 7) for _ in range(14_000)])
    assert draws.min() == 0 and draws.max() == 6
    assert np.abs(np.bincount(draws) - 2000).max() < 5 * math.sqrt(2000)
    offsets = np.arange(3001) * 3
    labels = starspace._draw_labels(offsets, np.arange(3000), np.zeros(0, np.int64), state)
    assert np.abs(np.bincount(labels - offsets[:-1]) - 1000).max() < 5 * math.sqrt(1000)


@pytest.mark.parametrize(
    "options",
    [{"similarity": similarity, "loss": loss} for similarity in starspace.SIMILARITIES for loss in starspace.LOSSES]
    + [{"loss": "softmax", "temperature": 0.5}],
)
def test_every_similarity_and_loss_learns(options):
    found = starspace.train(corpus(), dim=8, epochs=25, progress=False, **options)
    categories = np.repeat(list("abcd"), 10).astype(object)
    check = validation.triplet_check(found.vectors, *validation.category_triplets(categories, np.ones(40, bool)))
    assert check.auc > 0.95
    assert np.linalg.norm(found.vectors, axis=1).max() <= 1 + 1e-5


def test_the_run_that_compiles_and_those_after_it_give_the_same_bytes(tmp_path):
    given = corpus()
    given = {"product_ids": given.product_ids, "items": given.items, "offsets": given.offsets}
    np.savez(tmp_path / "corpus.npz", **given)
    program = (
        "import sys, zlib, numpy as np; from shelfspace.vectors import starspace; from shelfspace.sequences.arrays import Corpus\n"
        "found = starspace.train(Corpus(**np.load(sys.argv[1])), epochs=3, loss='softmax', progress=False)\n"
        "print(zlib.crc32(found.vectors), found.losses)"
    )
    own = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(starspace.__file__).parents[2])}
    command = [sys.executable, "-c", program, tmp_path / "corpus.npz"]
    compiled, loaded = (subprocess.run(command, env=os.environ | own, capture_output=True, check=True).stdout for _ in range(2))
    assert compiled == loaded != b""


def test_the_exponential_of_the_softmax():
    for x in np.append(np.linspace(-87, 0, 1000), -1e-9).astype(np.float32):
        assert kernels.exp(x) == pytest.approx(math.exp(x), rel=1e-6 if x > -10 else 5e-6)
    assert kernels.exp(np.float32(0)) == 1 and 0 < kernels.exp(np.float32(-500)) < 2e-38


@pytest.mark.parametrize("count", range(10))
def test_a_weighted_sum_of_chosen_rows(count):
    rng = np.random.default_rng(count)
    rows, which, weights = rng.normal(size=(5, 16)).astype(np.float32), rng.integers(5, size=9), rng.normal(size=count).astype(np.float32)
    out = np.ones(16, np.float32)
    kernels.add(out, weights, rows, which)
    np.testing.assert_allclose(out, 1 + weights @ rows[which[:count]], atol=1e-5)


def test_no_vector_is_longer_than_max_norm():
    def longest(limit: float, **more) -> float:
        found = starspace.train(corpus(), dim=8, epochs=10, max_norm=limit, progress=False, **more)
        return np.linalg.norm(found.vectors, axis=1).max()

    assert longest(0.1, negatives=1) == pytest.approx(0.1, rel=1e-5) and longest(10.0, negatives=1) > 0.2
    assert longest(0.1) <= 0.1 + 1e-6 and longest(10.0) > 0.2  # all are among the negatives, which move on after they were shortened


def test_window_keeps_the_bag_to_the_neighbourhood():
    # A walk a-b-c-d-e-f: with a window of 1 neighbours meet, with the whole sequence all meet all.
    ids = np.array(list("abcdef"))
    walk = Corpus(ids, np.tile(np.arange(6, dtype=np.int32), 400), np.arange(401) * 6)
    unit = embeddings.normalise(starspace.train(walk, dim=8, window=1, epochs=10, negatives=5, progress=False).vectors)
    cosine = unit @ unit.T
    assert cosine[0, 1] > cosine[0, 5]


def test_single_visits_are_skipped_and_a_product_of_none_but_these_hardly_moves():
    ids = np.array(["a", "b", "c"])
    given = Corpus(ids, np.array([0, 1] * 50 + [2], np.int32), np.append(np.arange(51) * 2, 101))
    found = starspace.train(given, dim=4, epochs=3, progress=False)
    lengths = np.linalg.norm(found.vectors, axis=1)
    assert lengths[2] < 0.01 < lengths[0]


def test_patience_stops_and_gives_the_best_epochs_vectors():
    script = iter([0.1, 0.3, 0.2, 0.25, 0.9])
    kept = []

    def validate(made):
        kept.append(made.vectors)
        return next(script)

    found = starspace.train(corpus(), dim=4, epochs=5, validate=validate, patience=2, progress=False)
    assert found.scores == (0.1, 0.3, 0.2, 0.25) and len(found.losses) == 4
    assert np.array_equal(found.vectors, kept[1]) and not np.array_equal(kept[1], kept[3])
    watched = starspace.train(corpus(), dim=4, epochs=5, validate=lambda made: 0.0, progress=False)
    plain = starspace.train(corpus(), dim=4, epochs=5, progress=False)
    assert watched.scores == (0.0,) * 5 and np.array_equal(watched.vectors, plain.vectors)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"similarity": "euclid"}, "must be one of cosine, dot"),
        ({"loss": "triplet"}, "must be one of hinge, softmax"),
        ({"negatives": 0}, "negatives is 0; it must be at least 1"),
        ({"learning_rate": 0.0}, "must be more than 0"),
        ({"window": -1}, "must be 0 or more"),
        ({"patience": 2}, "give validate"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        starspace.train(corpus(), progress=False, **wrong)


def test_a_sequence_of_two_is_needed():
    with pytest.raises(ValueError, match="two visits"):
        starspace.train(Corpus(np.array(["a"]), np.zeros(2, np.int32), np.array([0, 1, 2])), progress=False)


def described(hidden=()) -> tuple[pd.DataFrame, features.Features, Corpus]:
    """The grouped corpus with a name for each product, and without the visits of the hidden products."""
    given = corpus()
    noun = np.repeat(["phone", "chair", "lamp", "kettle"], 10)
    names = [f"fine {word} {i}" for i, word in enumerate(noun)]
    products = pd.DataFrame({"product_id": given.product_ids, "name": names})
    return products, features.of_products(products, max_share=0.3), without(given, np.array(hidden, dtype=str))


def test_a_product_without_a_click_lies_with_its_kind():
    hidden = ["p03", "p17", "p25"]
    products, made_of, seen = described(hidden)
    assert not np.isin(hidden, seen.product_ids).any()
    found = starspace.train(seen, features=made_of, dim=8, epochs=20, progress=False)
    assert found.product_ids.tolist() == products.product_id.tolist()
    place = np.searchsorted(found.product_ids, hidden)
    np.testing.assert_allclose(found.vectors[place], found.embed_products(made_of)[place], atol=1e-6)
    index, _ = embeddings.nearest(found.vectors, found.vectors[place], k=5, exclude=place)
    assert (index // 10 == place[:, None] // 10).all()


def test_a_query_finds_the_products_of_its_words():
    _, made_of, seen = described()
    found = starspace.train(seen, features=made_of, dim=8, epochs=20, progress=False)
    query = found.embed_products(features.of_texts(["a fine kettle"]))
    assert (embeddings.nearest(found.vectors, query, k=10)[0] >= 30).all()
    assert not found.embed_products(features.of_texts(["unheard of"])).any()


def test_queries_may_stand_in_the_sequences():
    """A word that no product has ("cuppa") is learned from what was clicked after it."""
    products, made_of, seen = described()
    ids = np.append(seen.product_ids, "query: cuppa")
    rows = [np.append(row, 40) if row[0] >= 30 else row for row in np.split(seen.items, seen.offsets[1:-1])]
    given = Corpus(ids, np.concatenate(rows).astype(np.int32), np.append(0, np.cumsum([len(row) for row in rows])))
    both = features.join(made_of, features.of_texts(["query: cuppa"]))
    found = starspace.train(given, features=both, dim=8, epochs=20, progress=False)
    is_product = np.isin(found.product_ids, products.product_id)
    index, _ = embeddings.nearest(found.vectors[is_product], found.embed_products(features.of_texts(["cuppa"])), k=10)
    assert (index >= 30).all()


def test_embedding_by_features_needs_features():
    found = starspace.train(corpus(), dim=4, epochs=1, progress=False)
    with pytest.raises(ValueError, match="train StarSpace with features"):
        found.embed_products(features.of_texts(["phone"]))


def test_features_change_neither_the_seed_nor_the_bytes():
    _, made_of, seen = described(["p03"])
    one, two = (starspace.train(seen, features=made_of, dim=4, epochs=2, progress=False) for _ in range(2))
    assert np.array_equal(one.vectors, two.vectors) and np.array_equal(one.features.vectors, two.features.vectors)


# --- weights, goals and negatives of the category ---


def test_switches_that_switch_nothing_leave_the_bytes_alone():
    given = corpus()
    visits = len(given.items)
    plain = starspace.train(given, dim=8, epochs=2, progress=False).vectors
    neutral = {"weights": np.ones(visits), "goals": np.full(visits, -1), "groups": np.arange(len(given.product_ids)) % 3}
    for chosen in ({name: neutral[name]} for name in neutral):
        assert np.array_equal(plain, starspace.train(given, dim=8, epochs=2, progress=False, **chosen).vectors), chosen
    assert not np.array_equal(plain, starspace.train(given, dim=8, epochs=2, progress=False, goals=np.arange(visits) // 8 * 8).vectors)


def batches(monkeypatch, given: Corpus, *, weights=(), goals=(), group=(), market=0, negatives=6, batch=4):
    """The batches of one pass, as (bags, labels, drawn), recorded in place of being learned."""
    seen = []

    def record(table, squares, starts, rows, items, bags, labels, drawn, *_):
        seen.append((bags[: len(labels)].copy(), labels.copy(), drawn.copy()))
        return 0.0

    monkeypatch.setattr(starspace, "_batch", record)
    group = np.array(group, np.int64)
    by_group = np.argsort(group, kind="stable")
    by_group = by_group[group[by_group] >= 0]
    starts = np.searchsorted(group[by_group], np.arange(group.max(initial=-1) + 2))
    count = len(given.product_ids)
    starspace._epoch.py_func(
        np.zeros((count, 16), np.float32), np.zeros((count, 2), np.float32), np.arange(count + 1), np.arange(count, dtype=np.int32),
        given.items, given.offsets, np.arange(len(given)), np.array([9], np.uint64), DIM, 0.1, 0.1, True, True, 0.2, 1.0, negatives,
        10, batch, 0, 0.5, 1.0, np.array(weights, np.int64), np.array(goals, np.int64), group, starts, by_group, market,
    )  # fmt: skip
    return seen


def test_what_the_session_bought_is_a_second_label_to_the_visit_alone(monkeypatch):
    given = Corpus(np.array(list("abcd")), np.array([0, 1, 3, 2, 1, 3], np.int32), np.array([0, 3, 6]))
    goals = np.array([2, 2, 2, -1, 5, 5])
    for bags, labels, _ in batches(monkeypatch, given, goals=goals):
        first, second = labels[0], labels[1]
        added = [(place, goals[place]) for place in (first, second) if goals[place] >= 0 and goals[place] != place]
        assert bags[:2].tolist() == [[0, 3], [3, 6]]
        assert labels[2:].tolist() == [goal for _, goal in added]
        assert bags[2:].tolist() == [[place, place + 1] for place, _ in added]


def test_a_goal_by_hand():
    """The bag is the one visit (1, 0), the label what was bought, (0, 1), the negative (0.6, 0.8): all of the negative's term."""
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    loss, after = starspace.update(vectors, [0], 1, [2], margin=0.2, learning_rate=0.1)
    assert loss == pytest.approx(0.2 - 0.0 + 0.6, abs=1e-6)
    pull = vectors[1] - vectors[2]
    np.testing.assert_allclose(after[0], vectors[0] + 0.1 * pull / np.sqrt((pull**2).mean()), atol=1e-4)
    np.testing.assert_allclose(after[1], vectors[1] + 0.1 * vectors[0] / np.sqrt(0.5), atol=1e-4)


def test_negatives_of_the_category_are_those_of_each_label(monkeypatch):
    given = small(40, 9)
    group = np.array([0, 0, 0, 1, 1, 1, 2, 2, -1])[given.items]
    for _, labels, drawn in batches(monkeypatch, given, group=group, market=4):
        assert len(drawn) == 2 + 4 * len(labels)
        for b, label in enumerate(labels):
            own = drawn[2 + 4 * b : 6 + 4 * b]
            if group[label] >= 0:
                assert set(np.array([0, 0, 0, 1, 1, 1, 2, 2, -1])[own]) == {group[label]}


def test_each_example_sees_its_own_negatives_alone():
    """Two examples; the negative of the second violates the first's margin, yet only the second learns from it."""
    table = np.zeros((6, 16), np.float32)
    table[:, :2] = [[1, 0], [0, 1], [-1, 0], [0.8, 0.6], [0.9, 0.1], [0, -1]]
    items = np.array([0, 1, 2, 3], np.int32)  # bag 0, label 1; bag 2, label 3
    before = table.copy()
    starspace._batch(
        table, np.zeros((6, 2), np.float32), np.arange(7), np.arange(6, dtype=np.int32), items, np.array([[0, 2], [2, 4]]),
        np.array([1, 3]), np.array([5, 4]), 2, 0.1, True, True, 0.05, 1.0, 10, 0.5, np.inf, 1,
    )  # fmt: skip
    moved = np.abs(table - before).sum(axis=1) > 0
    # Example 1: cosine(0, label) = 0, its negative 5 has 0 > -0.05; example 2: label -0.8, its negative 4 about -1, no violation.
    assert moved.tolist() == [True, True, False, False, False, True]


def test_weights_make_labels_likelier():
    offsets, state = np.array([0, 3]), np.array([4], np.uint64)
    labels = [starspace._draw_labels(offsets, np.array([0]), np.array([1, 3, 0]), state)[0] for _ in range(2000)]
    np.testing.assert_allclose(np.bincount(labels, minlength=3) / 2000, [0.25, 0.75, 0], atol=0.04)


def test_products_may_be_the_sums_of_their_features_alone():
    given = Corpus(np.array(["a", "b", "c"]), np.array([0, 1, 0, 2], np.int32), np.array([0, 2, 4]))
    table = pd.DataFrame({"product_id": ["a", "b", "d"], "brand": ["x", "y", "x"]})
    made = starspace.train(given, features=features.of_products(table, min_products=1), own_rows=False, dim=4, epochs=2, progress=False)
    vectors = dict(zip(made.product_ids, made.vectors))
    assert np.array_equal(vectors["a"], vectors["d"]) and not vectors["c"].any()
    with pytest.raises(ValueError, match="own_rows"):
        starspace.train(given, own_rows=False, progress=False)


@pytest.mark.parametrize("market, groups", [(2, None), (60, np.zeros(40)), (-1, np.zeros(40))])
def test_negatives_of_the_category_need_categories_and_a_number_that_fits(market, groups):
    with pytest.raises(ValueError, match="market is"):
        starspace.train(corpus(), market=market, groups=groups, progress=False)
