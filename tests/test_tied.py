"""Recommender tied: what it counts, what it samples, that it learns what was planted, and that it repeats to the bit."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from shelfspace.measure import evaluation, ranking
from shelfspace.models import tied, training, transitions
from shelfspace.models.training import tf
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
    """The sequences of the examples, and their products, as `tied.start` takes them."""
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


def test_sample_by_hand():
    products, correction = training.sample(np.array([3, 1]), 10, 2, np.random.default_rng(0))
    assert products[:2].tolist() == [3, 1] and len(np.unique(products)) == 4
    np.testing.assert_allclose(correction, [0, 0, np.log(8 / 2), np.log(8 / 2)], rtol=1e-6)
    products, correction = training.sample(np.array([3, 1]), 10, 100, np.random.default_rng(0))
    assert sorted(products) == list(range(10)) and not correction.any()


def test_sampled_softmax_is_unbiased():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=50)
    sums = []
    for _ in range(4000):
        products, correction = training.sample(np.array([0, 7]), 50, 5, rng)
        sums.append(np.exp(logits[products] + correction).sum())
    error = np.std(sums) / np.sqrt(len(sums))
    assert np.mean(sums) == pytest.approx(np.exp(logits).sum(), abs=4 * error) and error < 1


def ring(n=400, products=30, seed=0):
    """Sequences in which product p is followed by p + 1."""
    rng = np.random.default_rng(seed)
    starts, lengths = rng.integers(products, size=n), rng.integers(3, 7, size=n)
    return made([(first + np.arange(length)) % products for first, length in zip(starts, lengths)])


def trained(examples, seed=0, products=30, **options):
    training.deterministic(seed)
    vectors = np.random.default_rng(1).normal(size=(products, 8)).astype(np.float32)
    settings = {name: options.pop(name) for name in ("transitions", "attention", "decay", "learn_decay") if name in options}
    model = tied.start(vectors, np.ones(products, bool), *counted(examples, products), seed=seed, **settings)
    options = {"epochs": 2, "batch": 64, "learning_rate": 0.01, "dropout": 0.1, "progress": False} | options
    return model, tied.train(model, examples, seed=seed, **options)


@pytest.mark.parametrize("options", [{}, {"transitions": False}, {"full_below": 0, "negatives": 4}])
def test_learns_what_follows(options):
    model, history = trained(ring(), epochs=8, **options)
    test = ring(n=50, seed=1)
    assert (evaluation.evaluate(tied.recommend(model), test).ranks == 1).mean() > 0.9
    assert history[-1]["loss"] < history[0]["loss"]


def test_learns_that_who_went_back_goes_back_again():
    """Half of the customers alternate between two products, the others never see one twice."""
    rng = np.random.default_rng(0)
    walks = [rng.permutation(30)[:6] for _ in range(400)]
    examples = made([walk if i % 2 else walk[np.array([0, 1, 0, 1, 0, 1])] for i, walk in enumerate(walks)])
    model, _ = trained(examples[examples.lengths > 2], transitions=False, epochs=12)
    test = examples[examples.lengths == 5]
    back = np.array([len(set(test.items[a:b].tolist())) == 2 for a, b in zip(test.start, test.end)])
    rank = evaluation.evaluate(tied.recommend(model), test).ranks
    first = ranking.top_k(tied.recommend(model)(test), 1)[0][:, 0]
    seen = np.array([product in test.items[a:b] for product, a, b in zip(first, test.start, test.end)])
    assert (rank[back] == 1).mean() > 0.9 and seen[~back].mean() < 0.1


def test_scores_by_hand():
    """Each term of the formula, for the history 0 1 0 1."""
    rng = np.random.default_rng(0)
    model = tied.start(np.eye(4, 3, dtype=np.float32), np.ones(4, bool), *counted(HAND, 4), transitions=False, attention=False, decay=0.5)
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
    np.testing.assert_allclose(tied.recommend(model)(history)[0], expected, rtol=1e-4)


def test_the_terms_of_a_score_sum_to_it():
    """Also where several meet in one product, and each is what the formula has it be."""
    examples = ring(n=60, products=6)
    model, _ = trained(examples, products=6, epochs=2)
    some = examples[np.flatnonzero(examples.lengths == 4)[:3]]
    row, product = np.divmod(np.arange(18), 6)
    parts = tied.explain(model, some, row, product)
    np.testing.assert_allclose(parts.score, tied.recommend(model)(some).ravel(), rtol=1e-5)
    terms = parts.drop(columns="score")
    assert list(terms) == ["similarity", "popularity", "seen_before", "came_after", "goes_together"]
    np.testing.assert_allclose(terms.sum(axis=1), parts.score, rtol=1e-5)
    seen = np.concatenate([np.isin(np.arange(6), each.items[each.start[0] : each.end[0]]) for each in (some[:1], some[1:2], some[2:])])
    assert (terms.seen_before[~seen] == 0).all() and (terms.seen_before[seen] != 0).all()
    np.testing.assert_array_equal(terms.came_after > 0, product == (some.items[some.end - 1][row] + 1) % 6)
    pd.testing.assert_frame_equal(tied.explain(model, some, row[[7, 2]], product[[7, 2]]), parts.loc[[7, 2]].reset_index(drop=True))


def test_leaving_nothing_out_changes_nothing():
    model, _ = trained(ring(n=60), epochs=1)
    test = ring(n=20, seed=1)
    assert np.array_equal(tied.recommend(model, without=())(test), tied.recommend(model)(test))


@pytest.mark.parametrize("name", ["similarity", "popularity", "seen_before", "came_after", "goes_together"])
def test_leaving_a_term_out_takes_it_from_the_scores(name):
    examples = ring(n=60, products=6)
    model, _ = trained(examples, products=6, epochs=2)
    some = examples[np.flatnonzero(examples.lengths == 4)[:3]]
    parts = tied.explain(model, some, *np.divmod(np.arange(18), 6))
    assert parts[name].any()
    left = tied.recommend(model, without=[name])(some).ravel()
    np.testing.assert_allclose(left, parts.score - parts[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name, weight, nothing",
    [("decay", "log_decay", -np.inf), ("events", "event_bias", 0), ("attention", "attention", 0), ("network", "outer", 0)],
)
def test_leaving_a_part_of_the_query_out_is_that_part_without_weight(name, weight, nothing):
    """Each of these is 0, whatever the history, once one of its weights is."""
    examples = made([[0, 1, 2, 3, 4]] * 20 + [[2, 0, 3, 1]] * 20, events=[[0, 1, 0, 2, 0]] * 20 + [[1, 0, 0, 2]] * 20)
    model, _ = trained(examples, products=5, epochs=2)
    whole, left = tied.recommend(model)(examples), tied.recommend(model, without=[name])(examples)
    getattr(model, weight).assign(np.full(getattr(model, weight).shape, nothing))
    np.testing.assert_allclose(left, tied.recommend(model)(examples), rtol=1e-6, atol=1e-6)
    assert abs(whole - left).max() > 1e-4


def test_leaving_out_what_there_is_not_is_refused():
    model, _ = trained(HAND, products=4, epochs=1)
    with pytest.raises(ValueError, match="without holds 'price'; its terms must be among decay, events"):
        tied.recommend(model, without=["price"])


def test_the_loss_of_a_step_is_that_of_the_scores():
    """What training lowers is the cross-entropy of what is recommended, where several bonuses meet in one product, too."""
    examples = ring(n=30, products=4)
    model, _ = trained(examples, products=4, epochs=1)
    scores = tied.recommend(model)(examples).astype(np.float64)
    loss = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(examples)), examples.target]
    history = tied.train(model, examples, epochs=1, batch=len(examples), dropout=0.0, progress=False)
    assert history[0]["loss"] == pytest.approx(loss.mean(), rel=1e-4)


def test_training_and_use_give_the_same_score_for_the_same_history(monkeypatch):
    """What a training step looks up for a history is what is looked up when the same user is recommended to."""
    examples, looked_up, find = ring(n=30), [], transitions.Links.after

    def watching(links, part):
        looked_up.append((part, find(links, part)))
        return looked_up[-1][1]

    monkeypatch.setattr(transitions.Links, "after", watching)
    model, _ = trained(examples, epochs=1, batch=len(examples))
    trained_on, by_training = looked_up[0]
    tied.recommend(model)(trained_on)
    for one, other in zip(by_training, looked_up[-1][1], strict=True):
        assert np.array_equal(one, other)


def test_who_alone_saw_two_products_gets_no_bonus_in_use():
    """The user who alone saw 28 after 29 is scored as if nobody had, and anybody else is told of it."""
    sequences = [(first + np.arange(3)) % 20 for first in range(40)] + [np.array([29, 28, 3])]
    examples = made(sequences)
    model, _ = trained(examples, epochs=1)
    own = examples[np.array([len(examples) - 2])]  # the history 29
    other = replace(own, trained=own.start)
    links = model.links()
    assert len(links.after(own)[0]) == 0 and 28 in links.after(other)[1]
    gain = tied.recommend(model)(other)[0] - tied.recommend(model)(own)[0]
    assert gain[28] > 1 and gain[3] > 1 and abs(gain[np.arange(4, 20)]).max() < 1e-4


def test_cross_entropy_is_tensorflows():
    rng = np.random.default_rng(0)
    logits, target, weight = rng.normal(scale=100, size=(6, 9)).astype(np.float32), rng.integers(9, size=6), rng.normal(size=6)
    found = []
    for loss in (tied.cross_entropy, lambda x, y: tf.nn.sparse_softmax_cross_entropy_with_logits(y, x)):
        x = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(x)
            each = loss(x, tf.constant(target, tf.int32))
            total = tf.reduce_sum(each * weight.astype(np.float32))
        found.append((each, tape.gradient(total, x)))
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_learns_a_planted_decay():
    """Targets drawn by the cosine to a decayed average; started at ten times the true decay."""
    rng, true, products = np.random.default_rng(0), 0.3, 40
    vectors = rng.normal(size=(products, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sequences, times = [], []
    for _ in range(3000):
        seen, age = rng.integers(products, size=6), np.sort(rng.uniform(0, 8, size=6))[::-1]
        age -= age[-1]
        weights = np.exp(-true * age)
        user = weights @ vectors[seen]
        score = vectors @ user / np.linalg.norm(user) / 0.1
        p = np.exp(score - score.max())
        sequences.append(np.append(seen, rng.choice(products, p=p / p.sum())))
        times.append(np.append(100 - age, 101.0))
    examples = made(sequences, times)
    examples = examples[examples.lengths == 6]
    training.deterministic(0)
    model = tied.start(
        vectors.astype(np.float32), np.ones(products, bool), *counted(examples, products), decay=3.0, attention=False, transitions=False
    )
    tied.train(model, examples, epochs=12, batch=64, learning_rate=0.01, dropout=0.0, progress=False)
    found = model.findings()
    assert true / 1.6 < found["decay"] < true * 1.6
    assert found["half_life"] == pytest.approx(np.log(2) / found["decay"]) and found["decay_time"] == "days"


def test_a_fixed_decay_stays():
    model, _ = trained(ring(n=60), decay=0.25, learn_decay=False, epochs=1)
    assert model.findings()["decay"] == pytest.approx(0.25)


def test_the_same_seed_gives_the_same_bytes():
    one, two, other = (trained(ring(n=100), seed=seed, epochs=1, full_below=0, negatives=4)[0].get_weights() for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(one, two))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other))


def test_recency_by_hand():
    chances = tied.recency(HAND, 2.0)  # times of the newest visits: 0 1 2 3; 5 6
    np.testing.assert_allclose(chances, np.exp(-2 * (6 - np.array([0, 1, 2, 3, 5, 6])) / 6))
    without = made([[0, 1], [0, 1], [0, 1]], times=[np.zeros(2)] * 3)
    np.testing.assert_allclose(tied.recency(without, 1.0), np.exp([-1, -0.5, 0]))
    assert (tied.recency(HAND, 0.0) == 1).all()
    with pytest.raises(ValueError, match="recency is -1"):
        tied.recency(HAND, -1)


def test_examples_without_a_chance_teach_nothing():
    """Half of the sequences say that p + 1 follows p, half that p - 1 does; after the first epoch the former alone train."""
    rng = np.random.default_rng(0)
    firsts = rng.integers(30, size=300)
    examples = made([(first + np.arange(5) * (1 if i % 2 else -1)) % 30 for i, first in enumerate(firsts)])
    forward = (examples.target - examples.items[examples.end - 1]) % 30 == 1
    model, _ = trained(examples, transitions=False, epochs=12, chances=np.where(forward, 1.0, 1e-9))
    test = ring(n=50, seed=1)
    first = ranking.top_k(tied.recommend(model)(test), 1)[0][:, 0]
    ahead, behind = (first - test.items[test.end - 1]) % 30 == 1, (test.items[test.end - 1] - first) % 30 == 1
    assert ahead.mean() > 0.8 and behind.mean() < 0.05


def test_relabelling_the_products_changes_no_figures():
    """Trained on the same sequences whose products have other numbers, it ranks their targets alike."""
    found, rng = [], np.random.default_rng(0)
    vectors = rng.normal(size=(30, 8)).astype(np.float32)
    for place in (np.arange(30), rng.permutation(30)):
        train, test = (made([place[s] for s in np.split(e.items, np.unique(e.start)[1:])]) for e in (ring(n=100), ring(n=50, seed=1)))
        training.deterministic(0)
        model = tied.start(vectors[np.argsort(place)], np.ones(30, bool), *counted(train, 30))
        tied.train(model, train, epochs=2, batch=64, progress=False)
        found.append(evaluation.evaluate(tied.recommend(model), replace(test, trained=test.start)).ranks)
    assert (found[0] == found[1]).mean() > 0.98 and len(np.unique(found[0])) > 3


def test_a_sample_of_everything_is_the_full_softmax():
    whole, _ = trained(ring(n=60), epochs=1)
    sampled, _ = trained(ring(n=60), epochs=1, full_below=0, negatives=1000)
    test = ring(n=20, seed=1)
    np.testing.assert_allclose(tied.recommend(whole)(test), tied.recommend(sampled)(test), rtol=1e-3, atol=1e-3)


def test_an_epoch_takes_no_more_examples_than_asked(monkeypatch):
    sizes, make = [], tied._stepper

    def counting(*arguments):
        take = make(*arguments)
        return lambda rows, batch, *rest: (sizes.append(len(batch["target"])), take(rows, batch, *rest))[1]

    monkeypatch.setattr(tied, "_stepper", counting)
    trained(ring(n=60), epochs=2, batch=32, limit=50)
    assert sizes == [32, 18, 32, 18]


def test_each_row_of_the_table_counts_its_own_steps(monkeypatch):
    of_rows, make = [], tied._stepper

    def watching(*arguments):
        take = make(*arguments)
        return lambda rows, batch, rate, t, t_of: (of_rows.append((t, t_of)), take(rows, batch, rate, t, t_of))[1]

    monkeypatch.setattr(tied, "_stepper", watching)
    trained(ring(n=60), epochs=2, full_below=0, negatives=1, batch=2)
    assert all(t_of.min() >= 1 and t_of.max() <= t for t, t_of in of_rows)
    assert any(t_of.min() == 1 for t, t_of in of_rows if t > 3)  # a row that is first touched late begins at 1


def test_a_small_log_gets_more_passes():
    model = tied.start(np.eye(4, dtype=np.float32), np.ones(4, bool), *counted(HAND, 4))
    assert len(tied.train(model, HAND, progress=False)) == 100  # the most there are
    assert len(tied.train(model, HAND, epochs=2, progress=False)) == 2


def test_keeps_the_best_epoch_of_the_valid_users():
    valid = ring(n=40, seed=2)
    training.deterministic(0)
    model = tied.start(np.eye(30, 8, dtype=np.float32), np.ones(30, bool), *counted(ring(n=80), 30))
    history = tied.train(model, ring(n=80), valid, epochs=3, batch=64, progress=False)
    found = ranking.reciprocal_rank(evaluation.evaluate(tied.recommend(model), valid).ranks, 20).mean()
    assert found == pytest.approx(max(epoch["valid_mrr@20"] for epoch in history), abs=1e-9)


def test_survives_saving(tmp_path):
    model, _ = trained(ring(n=60), epochs=1)
    model.save(tmp_path / "recommender.keras")
    again = training.keras.saving.load_model(tmp_path / "recommender.keras")
    test = ring(n=20, seed=1)
    assert np.array_equal(tied.recommend(model)(test), tied.recommend(again)(test))
    assert again.findings() == model.findings()


def test_scores_do_not_depend_on_who_else_is_asked():
    model, _ = trained(ring(n=60), epochs=1)
    test, scores = ring(n=20, seed=1), tied.recommend(model)
    alone = np.concatenate([scores(test[i : i + 1]) for i in range(len(test))])
    np.testing.assert_allclose(scores(test), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("step, finding", [(0, "repeat_odds"), (0, "event_weights"), (1, "event_weights")])
def test_weights_of_events_are_learned(step, finding):
    """The target is always the one product put in the cart, or the one after it in the catalogue."""
    rng = np.random.default_rng(0)
    seen = rng.integers(20, size=(1500, 4))
    cart = rng.integers(4, size=1500)
    events = np.zeros((1500, 5))
    events[np.arange(1500), cart] = 1
    sequences = np.column_stack([seen, (seen[np.arange(1500), cart] + step) % 20])
    examples = made(list(sequences), events=list(events))
    examples = examples[examples.lengths == 4]
    model, _ = trained(examples, products=20, attention=False, transitions=False, epochs=12)
    learned = model.findings()[finding]
    assert learned["add_to_cart"] > 3 * learned["view"]


@pytest.mark.parametrize(
    "settings, message", [({"decay_time": "weeks"}, "decay_time is 'weeks'; it must be one of"), ({"visits": 0}, "visits is 0")]
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tied.start(np.eye(4, dtype=np.float32), np.ones(4, bool), *counted(HAND, 4), **settings)


def test_nothing_to_learn_from_is_refused():
    model = tied.start(np.eye(4, dtype=np.float32), np.ones(4, bool), *counted(HAND, 4))
    with pytest.raises(ValueError, match="no training example"):
        tied.train(model, HAND[:0])
