"""Recommender tied: what it makes of a history, by hand and as Keras has it, term by term, and from its file to the bit."""

import functools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from shelfspace.models import tied, tied_training, training
from shelfspace.models.training import keras, tf
from shelfspace.sequences.arrays import Corpus, Examples


def made(sequences, times=None, events=None):
    """Every prefix of every sequence, with the product that came next; all of it may train."""
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])])
    items = np.concatenate(sequences).astype(np.int32)
    start = np.concatenate([[a] * (b - a - 1) for a, b in zip(offsets, offsets[1:])]).astype(np.int64)
    end = np.concatenate([np.arange(a + 1, b) for a, b in zip(offsets, offsets[1:])]).astype(np.int64)
    last = np.concatenate([[b] * (b - a - 1) for a, b in zip(offsets, offsets[1:])]).astype(np.int64)
    times = np.arange(len(items), dtype=float) if times is None else np.concatenate(times)
    events = np.zeros(len(items), np.int8) if events is None else np.concatenate(events).astype(np.int8)
    return Examples(items, times, events, start, end, items[end], events[end], np.array([f"u{s}" for s in start]), last)


def ids(products):
    return np.array([f"p{p:05d}" for p in range(products)])


def counted(examples, products):
    """The sequences of the examples, and their products, as `tied_training.start` takes them."""
    start, one = np.unique(examples.start, return_index=True)
    parts = [examples.items[a:b] for a, b in zip(start, examples.trained[one])]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    used, items = np.unique(np.concatenate(parts), return_inverse=True)
    return Corpus(ids(products)[used], items.astype(np.int32), offsets, user_ids=examples.user_ids[one]), ids(products)


HAND = made([[0, 1, 0, 1, 2], [0, 1, 3]])


def test_histories_by_hand():
    h = tied.histories(HAND[np.array([3, 5])], visits=3, decay_time="days")  # 0 1 0 1; 0 1
    assert h.items.tolist() == [1, 0, 1, 1, 0] and h.row.tolist() == [0, 0, 0, 1, 1]
    assert h.place.tolist() == [0, 1, 2, 0, 1] and h.age.tolist() == [0, 1, 2, 0, 1] and h.newest.tolist() == [0, 3]
    assert h.repeats.tolist() == [0, 1, 3, 4]
    habits = [[1, 1, 0, 3, 0], [0, 1, 0, 3, 1], [0, 0, 0, 2, 0], [0, 0, 0, 2, 1]]  # in the order of HABITS
    np.testing.assert_allclose(h.habits, np.log1p(habits), rtol=1e-6)
    logs = tied.histories(HAND[np.array([3])], visits=3, decay_time="log_days").age
    np.testing.assert_allclose(logs, np.log1p([0, 1, 2]), rtol=1e-6)


def ring(n=400, products=30, seed=0):
    """Sequences in which product p is followed by p + 1."""
    rng = np.random.default_rng(seed)
    starts, lengths = rng.integers(products, size=n), rng.integers(3, 7, size=n)
    return made([(first + np.arange(length)) % products for first, length in zip(starts, lengths)])


def trained(examples, seed=0, products=30, **options):
    training.deterministic(seed)
    vectors = np.random.default_rng(1).normal(size=(products, 8)).astype(np.float32)
    settings = {name: options.pop(name) for name in ("transitions", "attention", "decay", "learn_decay") if name in options}
    model = tied_training.start(vectors, np.ones(products, bool), *counted(examples, products), seed=seed, **settings)
    options = {"epochs": 2, "batch": 64, "learning_rate": 0.01, "dropout": 0.1, "progress": False} | options
    return model, tied_training.train(model, examples, seed=seed, **options)


@functools.cache
def taught(products=30, epochs=1) -> tied_training.Tied:
    """A model of sixty sequences that several tests ask and none changes."""
    return trained(ring(n=60, products=products), products=products, epochs=epochs)[0]


EVENTFUL = made([[0, 1, 2, 3, 4]] * 20 + [[2, 0, 3, 1]] * 20, events=[[0, 1, 0, 2, 0]] * 20 + [[1, 0, 0, 2]] * 20)


@pytest.fixture(scope="module")
def eventful() -> tied_training.Tied:
    """A model of them; a test puts back what it changes."""
    return trained(EVENTFUL, products=5, epochs=2)[0]


def test_scores_by_hand():
    """Each term of the formula, for the history 0 1 0 1."""
    rng = np.random.default_rng(0)
    model = tied_training.start(
        np.eye(4, 3, dtype=np.float32), np.ones(4, bool), *counted(HAND, 4), transitions=False, attention=False, decay=0.5
    )
    of_formula = (model.event_bias, model.repeat, model.repeat_event, model.habit_inner, model.habit_bias, model.habit_outer)
    for weight in (*of_formula, model.table):
        weight.assign(rng.normal(size=weight.shape))
    v, bias = np.split(model.table.numpy(), [3], axis=1)
    history = replace(HAND[np.array([3])], events=np.array([0, 0, 2, 1, 0, 0, 0, 0], np.int8))  # 0 1 0 1, a day apart
    event = model.repeat_event.numpy()
    w = np.exp(-0.5 * np.arange(4) + model.event_bias.numpy()[[1, 2, 0, 0]])
    u = (w / w.sum()) @ v[[1, 0, 1, 0]]
    expected = (v @ u) / np.linalg.norm(v, axis=1) / np.linalg.norm(u) / 0.1 + bias[:, 0]
    for product, place, code in ((1, 0, 1), (0, 1, 2)):
        habits = np.log1p([1, 2, 0, 4, place])
        hidden = np.concatenate([habits, bias[product], bias[1]]) @ model.habit_inner.numpy() + model.habit_bias.numpy()
        expected[product] += model.repeat.numpy()[place] + event[code] + np.maximum(hidden, 0) @ model.habit_outer.numpy()
    np.testing.assert_allclose(tied.recommend(model.learned())(history)[0], expected, rtol=1e-4)


def test_the_terms_of_a_score_sum_to_it():
    """Also where several meet in one product, and each is what the formula has it be."""
    examples, model = ring(n=60, products=6), taught(products=6, epochs=2)
    some = examples[np.flatnonzero(examples.lengths == 4)[:3]]
    row, product = np.divmod(np.arange(18), 6)
    parts = tied.explain(model.learned(), some, row, product)
    np.testing.assert_allclose(parts.score, tied.recommend(model.learned())(some).ravel(), rtol=1e-5)
    terms = parts.drop(columns="score")
    assert list(terms) == ["similarity", "popularity", "seen_before", "came_after", "goes_together"]
    np.testing.assert_allclose(terms.sum(axis=1), parts.score, rtol=1e-5)
    seen = np.concatenate([np.isin(np.arange(6), each.items[each.start[0] : each.end[0]]) for each in (some[:1], some[1:2], some[2:])])
    assert (terms.seen_before[~seen] == 0).all() and (terms.seen_before[seen] != 0).all()
    np.testing.assert_array_equal(terms.came_after > 0, product == (some.items[some.end - 1][row] + 1) % 6)
    pd.testing.assert_frame_equal(
        tied.explain(model.learned(), some, row[[7, 2]], product[[7, 2]]), parts.loc[[7, 2]].reset_index(drop=True)
    )


def test_leaving_nothing_out_changes_nothing():
    model, test = taught(), ring(n=20, seed=1)
    assert np.array_equal(tied.recommend(model.learned(), without=())(test), tied.recommend(model.learned())(test))


@pytest.mark.parametrize("name", ["similarity", "popularity", "seen_before", "came_after", "goes_together"])
def test_leaving_a_term_out_takes_it_from_the_scores(name):
    examples, model = ring(n=60, products=6), taught(products=6, epochs=2)
    some = examples[np.flatnonzero(examples.lengths == 4)[:3]]
    parts = tied.explain(model.learned(), some, *np.divmod(np.arange(18), 6))
    assert parts[name].any()
    left = tied.recommend(model.learned(), without=[name])(some).ravel()
    np.testing.assert_allclose(left, parts.score - parts[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name, weight, nothing",
    [("decay", "log_decay", -np.inf), ("events", "event_bias", 0), ("attention", "attention", 0), ("network", "outer", 0)],
)
def test_leaving_a_part_of_the_query_out_is_that_part_without_weight(eventful, name, weight, nothing):
    """Each of these is 0, whatever the history, once one of its weights is."""
    variable = getattr(eventful, weight)
    whole, left = (tied.recommend(eventful.learned(), without=without)(EVENTFUL) for without in ((), [name]))
    before = variable.numpy()
    variable.assign(np.full(before.shape, nothing))
    weightless = tied.recommend(eventful.learned())(EVENTFUL)
    variable.assign(before)
    np.testing.assert_allclose(left, weightless, rtol=1e-6, atol=1e-6)
    assert abs(whole - left).max() > 1e-4


def test_leaving_out_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match="without holds 'price'; its terms must be among decay, events"):
        tied.recommend(taught().learned(), without=["price"])


def test_who_alone_saw_two_products_gets_no_bonus_in_use():
    """The user who alone saw 28 after 29 is scored as if nobody had, and anybody else is told of it."""
    sequences = [(first + np.arange(3)) % 20 for first in range(40)] + [np.array([29, 28, 3])]
    examples = made(sequences)
    model, _ = trained(examples, epochs=1)
    own = examples[np.array([len(examples) - 2])]  # the history 29
    other = replace(own, trained=own.start)
    links = model.learned().links
    assert len(links.after(own)[0]) == 0 and 28 in links.after(other)[1]
    gain = tied.recommend(model.learned())(other)[0] - tied.recommend(model.learned())(own)[0]
    assert gain[28] > 1 and gain[3] > 1 and abs(gain[np.arange(4, 20)]).max() < 1e-4


def test_scores_do_not_depend_on_who_else_is_asked():
    test, scores = ring(n=20, seed=1), tied.recommend(taught().learned())
    alone = np.concatenate([scores(test[i : i + 1]) for i in range(len(test))])
    np.testing.assert_allclose(scores(test), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("attention, transitions", [(True, True), (False, True), (True, False)])
def test_the_answer_is_that_of_keras(attention, transitions):
    """The forward pass that training differentiates gives the same scores, for random weights and histories of random length."""
    rng, products = np.random.default_rng(0), 40
    lengths = rng.integers(2, 80, size=30)  # some longer than the 50 visits that count
    examples = made(
        [rng.integers(products, size=n) for n in lengths],
        times=[np.sort(rng.uniform(0, 30, size=n)) for n in lengths],
        events=[rng.integers(3, size=n) for n in lengths],
    )
    model, _ = trained(examples[:50], products=products, epochs=1, attention=attention, transitions=transitions)
    for weight in model.trainable_variables:
        weight.assign(weight.numpy() + rng.normal(scale=0.3, size=weight.shape))
    some, learned = examples.sample(200), model.learned()
    h, v, bias = tied.histories(some, 50, "days"), model.table[:, :-1], model.table[:, -1:]
    q = model.users(tf.gather(v, h.items), h.age, h.event, h.place, h.row, h.newest)
    expected = tf.matmul(*model.factors(q, v, bias), transpose_b=True).numpy()
    owner, again = h.row[h.repeats], h.items[h.repeats]
    popularity = tf.gather(bias[:, 0], np.stack([again, h.items[h.newest[owner]]], axis=1))
    np.add.at(expected, (owner, again), model.repeat_bonus(h.place[h.repeats], h.event[h.repeats], h.habits, popularity).numpy())
    row, product, kind, value = learned.links.after(some)
    np.add.at(expected, (row, product), model.link_bonus(kind, value).numpy())
    alike = tied.alike(learned.links, 0.7, some, h, np.ones(products, bool))
    np.add.at(expected, alike[:2], np.log1p(30 * alike[3]))
    assert transitions == bool(len(row)) == bool(len(alike[0]))
    np.testing.assert_allclose(tied.recommend(learned)(some), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"attention": False, "learn_decay": False}, {"transitions": False}])
def test_from_its_file_it_answers_to_the_bit(tmp_path, settings):
    model = trained(ring(n=60), epochs=1, **settings)[0] if settings else taught()
    model.save(tmp_path / "recommender.keras")
    learned, loaded = model.learned(), tied.load(tmp_path / "recommender.keras")
    test = ring(n=100, seed=1)
    pairs = np.arange(len(test)) % 30
    assert np.array_equal(tied.recommend(learned)(test), tied.recommend(loaded)(test))
    pd.testing.assert_frame_equal(*(tied.explain(one, test, np.arange(len(test)), pairs) for one in (learned, loaded)), check_exact=True)
    assert loaded.findings() == learned.findings()


def test_what_is_no_tied_recommender_is_refused(tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "recommender.keras")
    with pytest.raises(ValueError, match="holds no tied recommender"):
        tied.load(tmp_path / "recommender.keras")


def test_whoever_answers_needs_no_tensorflow(tmp_path):
    """Neither does who opens the ranker; in a process of its own, as the tests here train."""
    taught().save(tmp_path / "recommender.keras")
    code = """
import sys
from shelfspace.models import ranked, retrieval, tied
tied.recommend(tied.load(sys.argv[1]))
print(sorted({"tensorflow", "keras"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "recommender.keras"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
