"""The command for published splits: on a tiny split, on bad ones, and on a published one where it is there."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shelfspace import cli
from shelfspace.measure import evaluation
from shelfspace.models import baselines, dense, peers, session_knn, tied_training, training, transitions
from shelfspace.trials import benchmark, published
from shelfspace.vectors import skipgram

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "session-benchmarks" / "yoochoose1_64"


def write(folder, sessions, prefixes, targets, **columns):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"session": range(len(sessions)), "items": sessions}), folder / "train_sessions.parquet")
    pq.write_table(pa.table({"prefix": prefixes, "target": targets} | columns), folder / "test_prefixes.parquet")
    return folder


@pytest.fixture
def split(tmp_path):
    """Product p is followed by p + 1; product 99 is in a test row alone."""
    rng = np.random.default_rng(0)
    sessions = [[int(p) for p in (first + np.arange(4)) % 12] for first in rng.integers(12, size=1000)]
    return write(tmp_path / "ring", sessions, [[3, 4], [7], [99]], [5, 8, 99])


def test_reads_sessions_and_rows_as_they_stand(split):
    found = published.read(split)
    assert found.product_ids.tolist() == sorted([str(p) for p in range(12)] + ["99"])
    examples = found.examples()
    assert len(examples) == 1000 * 3 and (examples.items[examples.end] == examples.target).all()
    test = found.test
    rows = [found.product_ids[test.items[a:b]].tolist() for a, b in zip(test.start, test.end)]
    assert rows == [["3", "4"], ["7"], ["99"]] and found.product_ids[test.target].tolist() == ["5", "8", "99"]
    corpus = found.corpus(slice(0, 2))
    assert len(corpus) == 2 and len(corpus.items) == 8
    assert [s for s in corpus] == [found.product_ids[found.items[a : a + 4]].tolist() for a in (0, 4)]


def test_every_model_runs_and_is_measured(split, monkeypatch):
    monkeypatch.setattr(peers, "train", partial(peers.train, epochs=2))  # test_peers has them learn
    monkeypatch.setattr(peers, "DROPOUTS", (0.2,))
    monkeypatch.setattr(tied_training, "train", partial(tied_training.train, epochs=20))  # instead of a hundred for so small a log
    lines, names = [], [name for name in benchmark.makers(published.read(split)) if name != "sasrec"]
    result = benchmark.run(split, names, progress=False, say=lines.append)
    assert result["split"] == {
        "name": "ring", "products": 13, "train_sessions": 1000, "train_examples": 3000, "train_examples_of_two_or_more": 2000,
        "test_rows": 3, "test_sessions": 3, "test_rows_of_seen_targets": 1, "test_rows_of_unknown_targets": 1,
    }  # fmt: skip
    models = result["models"]
    assert {"popular", "own_products", "cooccurrence", "markov", "session_knn", "ease", "gru4rec", "dense", "tied", "ranked"} <= set(models)
    assert len(lines) == 1 + len(models)
    for name in ("markov", "tied", "ranked"):  # two of three are found at once; the third was never met
        assert models[name]["hit_rate@20"] >= 2 / 3 and models[name]["mrr@20"] >= 2 / 3
        assert models[name]["discovery"]["mrr@20"] == 1 and models[name]["discovery"]["n"] == 2
        assert models[name]["seen"]["n"] == 1
    assert all(found["peak_mb"] > 10 and found["train_seconds"] >= 0 for found in models.values())
    assert [line.split()[0] for line in benchmark.table(result).splitlines()] == ["all", "model", *models]
    assert models["own_products"]["settings"]["decay"] in benchmark.BY_DECAY["decay"]
    assert models["markov"]["settings"]["steps"] == 1 and models["tied"]["settings"] == {"recency": benchmark.RECENCY}
    assert models["dense"]["settings"]["epochs"] in range(1, benchmark.DENSE_EPOCHS + 1)


def test_settings_are_chosen_on_sessions_that_nothing_saw(split, monkeypatch):
    """Whatever is tried has seen the first 95 % of the sessions, and no test row; what is measured has seen all of them."""
    read = published.read(split)
    early, judges = read.held_out()
    assert early == slice(0, 950) and len(judges) == 50 * 3 and (judges.end > read.offsets[950]).all()
    seen, tried, measured = {}, {}, {}

    def spy(module, name):
        real = getattr(module, name)

        def wrapped(given, *args, **kwargs):
            seen[name] = len(given)
            return real(given, *args, **kwargs)

        monkeypatch.setattr(module, name, wrapped)

    for module, name in ((skipgram, "train"), (baselines, "visit_counts"), (baselines, "cooccurrence"),
                         (baselines, "markov"), (session_knn, "session_knn"), (dense, "dense")):  # fmt: skip
        spy(module, name)
    evaluate, validate = evaluation.evaluate, training.validate

    def watch(model, examples, *args, **kwargs):
        (measured if len(examples) == len(read.test) else tried).update(seen)
        return evaluate(model, examples, *args, **kwargs)

    def judge(scores, targets, *args, **kwargs):
        assert (targets == judges.target).all() and seen["train"] == 950 and seen["dense"] == 2850
        return validate(scores, targets, *args, **kwargs)

    monkeypatch.setattr(evaluation, "evaluate", watch)
    monkeypatch.setattr(training, "validate", judge)
    for model in ("own_products", "cooccurrence", "markov", "session_knn", "dense"):
        make = benchmark.makers(read, progress=False)[model]
        for record in (seen, tried, measured):
            record.clear()
        chosen, _ = make()
        evaluation.evaluate(chosen, read.test)
        assert tried and set(tried.values()) == {950}, model
        assert set(measured.values()) <= {1000, 3000}, model  # sessions, and for dense their examples


def test_test_rows_change_no_choice(split, tmp_path):
    """Other targets on the same rows, and the settings stay as they were."""
    names = ["own_products", "cooccurrence", "markov", "session_knn"]
    other = write(tmp_path / "other", [list(map(int, s)) for s in published.read(split).corpus()], [[3, 4], [7], [99]], [1, 2, 99])
    one, two = (benchmark.run(folder, names, progress=False)["models"] for folder in (split, other))
    assert all(one[name]["settings"] == two[name]["settings"] and one[name]["mrr@20"] != two[name]["mrr@20"] for name in names)


def test_shorter_prefixes_can_be_left_out(split):
    read = published.read(split)
    assert len(read.examples(shortest=2)) == 2000 and (read.examples(shortest=2).lengths > 1).all()
    with pytest.raises(ValueError, match="shortest is 4; it must be from 1 to 3"):
        benchmark.run(split, ["popular"], shortest=4)


def test_the_own_session_of_a_training_row_is_known_and_test_rows_have_none(split):
    read = published.read(split)
    train = read.examples()
    assert (train.trained - train.start == 4).all() and (train.start % 4 == 0).all()
    assert (read.test.trained == read.test.start).all()


def test_rows_that_are_prefixes_of_one_another_are_of_one_session(tmp_path):
    sessions = [[1, 2, 3, 4]] * 40
    falling = [([1, 2, 3], 4), ([1, 2], 3), ([1], 2), ([1], 2), ([1, 2], 5), ([1], 2), ([7], 8)]
    expected = [0, 0, 0, 1, 2, 2, 3]
    for rows, owners in ((falling, expected), (falling[::-1], [0, 1, 1, 2, 3, 3, 3])):
        folder = write(tmp_path / "rows", sessions, [row[0] for row in rows], [row[1] for row in rows])
        assert published.read(folder).test.user_ids.tolist() == [str(owner) for owner in owners]
    named = write(tmp_path / "named", sessions, [row[0] for row in falling], [row[1] for row in falling], session_id=[5, 5, 5, 6, 7, 7, 8])
    assert published.read(named).test.user_ids.tolist() == ["5", "5", "5", "6", "7", "7", "8"]


def test_intervals_are_drawn_over_sessions(tmp_path):
    """Ten rows of each session share its fate, so the interval is that of the sessions, about three times as wide."""
    rng = np.random.default_rng(0)
    sessions = [[int(p), int(p) + 1] for p in rng.integers(0, 60, 400)]
    hits = rng.random(40) < 0.5
    prefixes, targets = [], []
    for hit in hits:  # the session goes round 3, 4 or stays at a product that nobody visits
        whole = [3, 4] * 6 if hit else [90 + i for i in range(12)]
        prefixes += [whole[: 11 - i] for i in range(10)]
        targets += [whole[11 - i] for i in range(10)]
    split = write(tmp_path / "rows", sessions, prefixes, targets)
    result = benchmark.run(split, ["own_products"], progress=False)
    assert result["split"]["test_sessions"] == 40
    low, high = result["models"]["own_products"]["ci95"]["hit_rate@20"]
    by_rows = 2 * 1.96 * np.sqrt(0.25 / 400)
    assert high - low > 2 * by_rows


def test_the_command_prints_and_writes(split, tmp_path, monkeypatch, capsys):
    out = tmp_path / "found.json"
    monkeypatch.setattr("sys.argv", ["shelfspace", "benchmark", str(split), "--models", "popular,markov", "--out", str(out)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    written = json.loads(out.read_text())
    assert list(written["models"]) == ["popular", "markov"]
    assert f"{100 * written['models']['markov']['mrr@20']:.2f}" in capsys.readouterr().out


def test_an_unknown_model_is_refused(split):
    with pytest.raises(ValueError, match="There is no model 'magic'; it must be one of popular, "):
        benchmark.run(split, ["magic"])


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda s: (s / "test_prefixes.parquet").unlink(), "test_prefixes.parquet is missing; a split is a folder with"),
        (lambda s: (s / "train_sessions.parquet").write_text("no"), "train_sessions.parquet is not a Parquet file"),
        (lambda s: pq.write_table(pa.table({"x": [1]}), s / "train_sessions.parquet"), "has no column 'items'; it has x"),
        (lambda s: pq.write_table(pa.table({"items": [1]}), s / "train_sessions.parquet"), "must hold lists of products"),
        (lambda s: write(s, [[1, 2], None], [[1]], [2]), "column 'items' has 1 empty rows"),
        (lambda s: write(s, [[1, None]], [[1]], [2]), "have 1 empty products"),
        (lambda s: write(s, [[1], [2]], [[1]], [2]), "no session of two products"),
        (lambda s: write(s, [[1, 2]], [[1], []], [2, 2]), "the prefix of row 1 is empty"),
        (lambda s: write(s, [[1, 2]], pa.array([], pa.list_(pa.int64())), pa.array([], pa.int64())), "holds no row"),
        (lambda s: write(s, [[1, 2]], [[1]], ["b"]), "of one type"),
    ],
)
def test_bad_splits_are_refused_in_one_sentence(split, spoil, message):
    spoil(split)
    with pytest.raises(ValueError, match=message):
        published.read(split)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a folder; a split is a folder with train_sessions.parquet"):
        published.read(tmp_path / "nothing")


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="The published split is not on this machine (../shared/data).")
def test_a_published_split_gives_the_known_figures():
    """First-order Markov and the counts of the file, as measured by its editors."""
    split = published.read(PUBLISHED)
    assert len(split.examples()) == 369_859 and len(split.test) == 55_898 and len(split.product_ids) == 17_745
    corpus, ids = split.corpus(), split.product_ids
    table = transitions.following(corpus, ids, 1)
    # Its editors let nothing follow what came after the last product, and broke no ties by popularity: ours does both.
    alone, ours = (
        evaluation.summary(evaluation.evaluate(model, split.test).ranks)
        for model in (lambda part: table[part.items[part.end - 1]].toarray(), baselines.markov(corpus, ids))
    )
    assert alone["hit_rate@20"] == pytest.approx(0.647, abs=0.002) and ours["mrr@20"] == pytest.approx(0.297, abs=0.003)
    assert ours["hit_rate@20"] > alone["hit_rate@20"]
