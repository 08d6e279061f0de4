"""The training of tied: what it counts, what it samples, that it learns what was planted, and that it repeats to the bit."""

from dataclasses import replace

import numpy as np
import pytest

from shelfspace.measure import evaluation, ranking
from shelfspace.models import tied, tied_training, training, transitions
from tests.test_tied import HAND, counted, made, ring, taught, trained


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


@pytest.mark.parametrize("options", [{}, {"transitions": False}, {"full_below": 0, "negatives": 4}])
def test_learns_what_follows(options):
    model, history = trained(ring(), epochs=8, **options)
    test = ring(n=50, seed=1)
    assert (evaluation.evaluate(tied.recommend(model.learned()), test).ranks == 1).mean() > 0.9
    assert history[-1]["loss"] < history[0]["loss"]


def test_learns_that_who_went_back_goes_back_again():
    """Half of the customers alternate between two products, the others never see one twice."""
    rng = np.random.default_rng(0)
    walks = [rng.permutation(30)[:6] for _ in range(400)]
    examples = made([walk if i % 2 else walk[np.array([0, 1, 0, 1, 0, 1])] for i, walk in enumerate(walks)])
    model, _ = trained(examples[examples.lengths > 2], transitions=False, epochs=12)
    test = examples[examples.lengths == 5]
    back = np.array([len(set(test.items[a:b].tolist())) == 2 for a, b in zip(test.start, test.end)])
    rank = evaluation.evaluate(tied.recommend(model.learned()), test).ranks
    first = ranking.top_k(tied.recommend(model.learned())(test), 1)[0][:, 0]
    seen = np.array([product in test.items[a:b] for product, a, b in zip(first, test.start, test.end)])
    assert (rank[back] == 1).mean() > 0.9 and seen[~back].mean() < 0.1


def test_the_loss_of_a_step_is_that_of_the_scores():
    """What training lowers is the cross-entropy of what is recommended, where several bonuses meet in one product, too."""
    examples = ring(n=30, products=4)
    model, _ = trained(examples, products=4, epochs=1)
    scores = tied.recommend(model.learned())(examples).astype(np.float64)
    loss = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(examples)), examples.target]
    history = tied_training.train(model, examples, epochs=1, batch=len(examples), dropout=0.0, progress=False)
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
    tied.recommend(model.learned())(trained_on)
    for one, other in zip(by_training, looked_up[-1][1], strict=True):
        assert np.array_equal(one, other)


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
    model = tied_training.start(
        vectors.astype(np.float32), np.ones(products, bool), *counted(examples, products), decay=3.0, attention=False, transitions=False
    )
    tied_training.train(model, examples, epochs=12, batch=64, learning_rate=0.01, dropout=0.0, progress=False)
    found = model.learned().findings()
    assert true / 1.6 < found["decay"] < true * 1.6
    assert found["half_life"] == pytest.approx(np.log(2) / found["decay"]) and found["decay_time"] == "days"


def test_a_fixed_decay_stays():
    model, _ = trained(ring(n=60), decay=0.25, learn_decay=False, epochs=1)
    assert model.learned().findings()["decay"] == pytest.approx(0.25)


def test_the_same_seed_gives_the_same_bytes():
    one, two, other = (trained(ring(n=100), seed=seed, epochs=1, full_below=0, negatives=4)[0].get_weights() for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(one, two))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other))


def test_recency_by_hand():
    chances = tied_training.recency(HAND, 2.0)  # times of the newest visits: 0 1 2 3; 5 6
    np.testing.assert_allclose(chances, np.exp(-2 * (6 - np.array([0, 1, 2, 3, 5, 6])) / 6))
    without = made([[0, 1], [0, 1], [0, 1]], times=[np.zeros(2)] * 3)
    np.testing.assert_allclose(tied_training.recency(without, 1.0), np.exp([-1, -0.5, 0]))
    assert (tied_training.recency(HAND, 0.0) == 1).all()
    with pytest.raises(ValueError, match="recency is -1"):
        tied_training.recency(HAND, -1)


def test_examples_without_a_chance_teach_nothing():
    """Half of the sequences say that p + 1 follows p, half that p - 1 does; after the first epoch the former alone train."""
    rng = np.random.default_rng(0)
    firsts = rng.integers(30, size=300)
    examples = made([(first + np.arange(5) * (1 if i % 2 else -1)) % 30 for i, first in enumerate(firsts)])
    forward = (examples.target - examples.items[examples.end - 1]) % 30 == 1
    model, _ = trained(examples, transitions=False, epochs=12, chances=np.where(forward, 1.0, 1e-9))
    test = ring(n=50, seed=1)
    first = ranking.top_k(tied.recommend(model.learned())(test), 1)[0][:, 0]
    ahead, behind = (first - test.items[test.end - 1]) % 30 == 1, (test.items[test.end - 1] - first) % 30 == 1
    assert ahead.mean() > 0.8 and behind.mean() < 0.05


def test_a_single_pass_takes_the_examples_by_their_chances(monkeypatch):
    examples, taken, histories = ring(n=60), [], tied.histories
    monkeypatch.setattr(tied, "histories", lambda part, *given: taken.append(part.end) or histories(part, *given))
    half = np.arange(len(examples)) % 2 == 0
    trained(examples, epochs=1, chances=np.where(half, 1.0, 1e-9))
    assert np.array_equal(np.sort(np.concatenate(taken)), np.sort(examples.end[half]))


def test_relabelling_the_products_changes_no_figures():
    """Trained on the same sequences whose products have other numbers, it ranks their targets alike."""
    found, rng = [], np.random.default_rng(0)
    vectors = rng.normal(size=(30, 8)).astype(np.float32)
    for place in (np.arange(30), rng.permutation(30)):
        train, test = (made([place[s] for s in np.split(e.items, np.unique(e.start)[1:])]) for e in (ring(n=100), ring(n=50, seed=1)))
        training.deterministic(0)
        model = tied_training.start(vectors[np.argsort(place)], np.ones(30, bool), *counted(train, 30))
        tied_training.train(model, train, epochs=2, batch=64, progress=False)
        found.append(evaluation.evaluate(tied.recommend(model.learned()), replace(test, trained=test.start)).ranks)
    assert (found[0] == found[1]).mean() > 0.98 and len(np.unique(found[0])) > 3


def test_a_sample_of_everything_is_the_full_softmax():
    whole = taught()
    sampled, _ = trained(ring(n=60), epochs=1, full_below=0, negatives=1000)
    test = ring(n=20, seed=1)
    np.testing.assert_allclose(tied.recommend(whole.learned())(test), tied.recommend(sampled.learned())(test), rtol=1e-3, atol=1e-3)


def test_an_epoch_takes_no_more_examples_than_asked(monkeypatch):
    sizes, make = [], tied_training._stepper

    def counting(*arguments):
        take = make(*arguments)
        return lambda rows, batch, *rest: (sizes.append(len(batch["target"])), take(rows, batch, *rest))[1]

    monkeypatch.setattr(tied_training, "_stepper", counting)
    trained(ring(n=60), epochs=2, batch=32, limit=50)
    assert sizes == [32, 18, 32, 18]


def test_each_row_of_the_table_counts_its_own_steps(monkeypatch):
    counted, move = [], tied_training.Rows.move

    def watching(rows, products, *given):
        move(rows, products, *given)
        counted.append((rows.steps, rows.steps_of[products]))

    monkeypatch.setattr(tied_training.Rows, "move", watching)
    trained(ring(n=60), epochs=2, full_below=0, negatives=1, batch=2)
    assert all(of_rows.min() >= 1 and of_rows.max() <= steps for steps, of_rows in counted)
    assert any(of_rows.min() == 1 for steps, of_rows in counted if steps > 3)  # a row that is first touched late begins at 1


def test_a_small_log_gets_more_passes():
    model = tied_training.start(np.eye(4, dtype=np.float32), np.ones(4, bool), *counted(HAND, 4))
    assert len(tied_training.train(model, HAND, progress=False)) == 100  # the most there are
    assert len(tied_training.train(model, HAND, epochs=2, progress=False)) == 2


def test_keeps_the_best_epoch_of_the_valid_users():
    valid = ring(n=40, seed=2)
    training.deterministic(0)
    model = tied_training.start(np.eye(30, 8, dtype=np.float32), np.ones(30, bool), *counted(ring(n=80), 30))
    history = tied_training.train(model, ring(n=80), valid, epochs=3, batch=64, progress=False)
    found = ranking.reciprocal_rank(evaluation.evaluate(tied.recommend(model.learned()), valid).ranks, 20).mean()
    assert found == pytest.approx(max(epoch["valid_mrr@20"] for epoch in history), abs=1e-9)


@pytest.mark.parametrize("learn_decay", [True, False])
def test_survives_saving(tmp_path, learn_decay):
    model = taught() if learn_decay else trained(ring(n=60), epochs=1, learn_decay=False)[0]
    model.save(tmp_path / "recommender.keras")
    again = training.keras.saving.load_model(tmp_path / "recommender.keras")
    weights, read = ({each.name: each.numpy() for each in one.variables} for one in (model, again))
    assert list(weights) == list(read) and all(np.array_equal(weights[name], read[name]) for name in weights)
    assert again.get_config() == model.get_config()


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
    learned = model.learned().findings()[finding]
    assert learned["add_to_cart"] > 3 * learned["view"]


@pytest.mark.parametrize(
    "settings, message", [({"decay_time": "weeks"}, "decay_time is 'weeks'; it must be one of"), ({"visits": 0}, "visits is 0")]
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tied_training.start(np.eye(4, dtype=np.float32), np.ones(4, bool), *counted(HAND, 4), **settings)


def test_nothing_to_learn_from_is_refused():
    model = tied_training.start(np.eye(4, dtype=np.float32), np.ones(4, bool), *counted(HAND, 4))
    with pytest.raises(ValueError, match="no training example"):
        tied_training.train(model, HAND[:0])
