"""A finished run in use: the same answers as its own files, for its own customers and for others."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gensim.models import KeyedVectors
from hypothesis import given, settings
from hypothesis import strategies as st

import shelfspace
from shelfspace import cli
from shelfspace.logs import events
from shelfspace.sequences import arrays
from shelfspace.use import answers, exports, histories, runs


@pytest.fixture(scope="module")
def run(small_run) -> runs.Run:
    return shelfspace.open(small_run.folder)


@pytest.fixture(scope="module")
def log(run) -> pd.DataFrame:
    """The raw rows of the simulated shop, as far as the histories of the run's customers go."""
    rows = pd.read_parquet(run.folder / "shop" / "events.parquet")
    sequences = pd.read_parquet(run.folder / "sequences.parquet")
    target = sequences[sequences.role == "target"].groupby("user_id").last()
    rows = rows[rows.user_id.isin(sequences.user_id)].sort_values(["user_id", "timestamp"], kind="stable")
    begins = (rows.timestamp == rows.user_id.map(target.timestamp)) & (rows.product_id == rows.user_id.map(target.product_id))
    return rows[begins.groupby(rows.user_id).cumsum() == 0]


def same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    """The same recommendations, scores to the bit."""
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True), wanted.reset_index(drop=True), check_exact=True, check_dtype=False, check_column_type=False
    )


def test_the_histories_of_the_runs_own_customers_get_the_runs_own_recommendations(run, log):
    same(run.recommend(log), pd.read_parquet(run.folder / "recommendations.parquet"))


def test_so_do_the_test_customers_alone(run, log):
    sequences = pd.read_parquet(run.folder / "sequences.parquet")
    test = sequences[(sequences.role == "target") & (sequences.split == "test")].user_id.unique()
    wanted = pd.read_parquet(run.folder / "recommendations.parquet")
    found = run.recommend(log[log.user_id.isin(test)])
    both = found.merge(wanted[wanted.user_id.isin(test)], on=["user_id", "rank"], suffixes=("", "_wanted"))
    assert len(both) == len(found) == wanted.user_id.isin(test).sum()
    # In other company a product of matrices may round its last bit otherwise, which swaps only what is tied but for it.
    np.testing.assert_allclose(both.score, both.score_wanted, rtol=1e-4, atol=1e-6)
    assert (both.product_id == both.product_id_wanted).mean() > 0.999


def test_and_their_embeddings(run, log):
    found, wanted = run.user_embeddings(log), pd.read_parquet(run.folder / "user_embeddings.parquet")
    assert found.user_id.tolist() == wanted.user_id.tolist()
    assert np.array_equal(np.stack(found.vector), np.stack(wanted.vector))


def test_embeddings_as_of_a_time_know_nothing_later(run, log):
    at = pd.to_datetime(log.timestamp, utc=True)
    middle = at.sort_values().iloc[len(at) // 2]
    early = run.user_embeddings(log[at <= middle])
    then = run.user_embeddings(log, at=middle)
    assert 0 < len(then) == len(early) < len(run.user_embeddings(log))
    assert np.array_equal(np.stack(then.vector), np.stack(early.vector))


def test_blocks_are_of_whole_customers_and_change_nothing(run, log, tmp_path):
    one = log[log.user_id.isin(log.user_id.unique()[:40])]
    with run.visits(one) as path:
        blocks = list(histories.blocks(path, rows=7))
        assert len(blocks) > 20
        users = [set(block["user_id"].to_pylist()) for block in blocks]
        assert sum(map(len, users)) == len(set().union(*users)) == 40
        assert pa.concat_tables(blocks).num_rows == pq.read_metadata(path).num_rows
        pieces = pd.concat([batch.to_pandas() for block in blocks for batch in run.answers(*run.examples(block), 5)])
    whole = run.recommend(one, k=5)
    assert pieces.product_id.tolist() == whole.product_id.tolist() and np.allclose(pieces.score, whole.score, rtol=1e-5, atol=1e-6)


def test_without_what_was_seen(run, log):
    found = run.recommend(log, k=5, seen=False)
    saw = set(zip(log.user_id, log.product_id))
    assert len(found) and not any(pair in saw for pair in zip(found.user_id, found.product_id))


def test_strangers_get_what_is_popular(run):
    visits = pd.DataFrame({"user_id": ["a", "b", "b"], "product_id": [run.product_ids[0], "?", "??"], "timestamp": 1_700_000_000})
    found = run.recommend(visits, k=3)
    assert found.groupby("user_id").size().to_dict() == {"a": 3, "b": 3} and found.score.isna().tolist() == [False] * 3 + [True] * 3
    sequences = pd.read_parquet(run.folder / "sequences.parquet")
    counts = sequences[sequences.split == "train"].product_id.value_counts()
    b = found[found.user_id == "b"].product_id
    assert counts[b].tolist() == counts.nlargest(3).tolist()


def test_who_only_searched_is_answered_too(run):
    rows = pd.DataFrame({
        "user_id": ["a", "b"], "product_id": [run.product_ids[0], None], "timestamp": 1_700_000_000, "event": ["view", "search"],
        "query": [None, "tea"],
    })  # fmt: skip
    assert run.recommend(rows, k=2).user_id.tolist() == ["a", "a", "b", "b"]


def test_a_list_of_products_is_a_history_and_other_names_of_columns_are_said(run):
    saw = run.product_ids[[3, 9]].tolist()
    found = run.recommend(saw, k=4)
    rows = pd.DataFrame({"who": "me", "what": saw, "when": pd.Timestamp("2024-01-01") + pd.to_timedelta([0, 1], unit="min")})
    renamed = run.recommend(rows, k=4, columns={"user_id": "who", "product_id": "what", "timestamp": "when"})
    assert found.product_id.tolist() == renamed.product_id.tolist()
    assert run.recommend(
        pa.Table.from_pandas(rows.rename(columns={"who": "user", "what": "sku", "when": "time"})), k=4
    ).product_id.tolist() == (found.product_id.tolist())


def test_similar_is_the_exact_search(run):
    place = int(np.flatnonzero(run.known)[4])
    unit = run.vectors / np.linalg.norm(run.vectors, axis=1, keepdims=True).clip(1e-12)
    cosine = unit @ unit[place]
    cosine[place] = -2
    found = run.similar(run.product_ids[place], 6)
    assert found.product_id.tolist() == run.product_ids[np.argsort(-cosine, kind="stable")[:6]].tolist()
    assert np.allclose(found.similarity, np.sort(cosine)[::-1][:6], atol=1e-6) and "name" in found
    assert run.similar(run.vectors[place], 1).product_id.tolist() == [run.product_ids[place]]
    assert len(run.similar(run.product_ids[place], 10_000)) == run.known.sum() - 1


def test_parts_of_a_score_sum_to_it(run, log):
    one = log[log.user_id == log.user_id.iloc[0]]
    for place in (0, 19):
        best = run.recommend(one).iloc[place]
        parts = run.explain(one, best.product_id)
        assert np.isclose(parts.score, best.score, rtol=1e-5) and np.isclose(parts.iloc[1:].sum(), parts.score, rtol=1e-4, atol=1e-5)


def test_new_products_lie_where_their_like_lie(run):
    twin = run.products[run.known].iloc[[0, 7]].assign(product_id=["new 2", "new 1"])
    found = run.embed_products(twin)
    assert found.product_ids.tolist() == ["new 1", "new 2"] and found.vectors.shape == (2, run.vectors.shape[1] + 1)
    near = run.similar(found.vectors[1], 10)
    assert twin.category.iloc[0] in near.category.tolist()
    nothing = run.embed_products(pd.DataFrame({"product_id": ["x"], "name": ["qqqq"]}))
    assert not nothing.vectors.any()


@pytest.mark.parametrize(
    "ask, sentence",
    [
        (lambda run: run.similar("P000031"), "has no product 'P000031' (is 'P00031' meant?)"),
        (lambda run: run.similar("P00003", 0), "k is 0; it must be a whole number from 1 to"),
        (lambda run: run.similar(np.zeros(3)), "A vector of shape (3,) is none of this run; it must hold 50 numbers."),
        (lambda run: run.recommend([]), "A history is a table of a log's rows, or the ids of one customer's products; it is '[]'."),
        (lambda run: run.recommend([1, 2]), "A history is a table"),
        (lambda run: run.recommend(pd.DataFrame({"user_id": [], "product_id": [], "timestamp": []})), "has no rows"),
        (lambda run: run.recommend(pd.DataFrame({"user_id": ["a"], "product_id": ["b"]})), "no column for timestamp"),
        (lambda run: run.recommend("nowhere.parquet"), "nowhere.parquet does not exist"),
        (lambda run: run.recommend(["P00003"], k=True), "k is True"),
        (lambda run: run.explain(["P00003"], "x"), "has no product 'x'"),
        (lambda run: run.explain(["x"], "P00003"), "knows no product of this history"),
        (
            lambda run: run.explain(pd.DataFrame({"user_id": ["a", "b"], "product_id": "P00003", "timestamp": 1_700_000_000}), "P00003"),
            "is of 2 customers; the rows of one would fit",
        ),
        (lambda run: run.embed_products(pd.DataFrame({"id": [1]})), "has no column product_id; its columns are id"),
        (lambda run: run.embed_products(pd.DataFrame({"product_id": [1]})), "tells nothing of the new products"),
        (lambda run: run.embed_products(pd.DataFrame({"product_id": [1, 1], "name": "x"})), "stands in the table twice"),
        (lambda run: shelfspace.open(run.folder / "shop"), "is no finished run, as it has no params.json"),
        (lambda run: exports.export(run, "csv"), "--to is 'csv'; it must be one of word2vec, parquet, faiss, npz."),
        (lambda run: exports.export(run, "npz", embedding="glove"), "it must be one of word2vec, starspace"),
        (lambda run: answers.recommend(run, ["P00003"], "x.txt"), "must be a file that ends in .parquet or .csv"),
    ],
)
def test_what_will_not_do_is_one_sentence(run, ask, sentence):
    with pytest.raises(ValueError) as found:
        ask(run)
    assert sentence in str(found.value) and "\n" not in str(found.value)


def test_opening_is_light():
    code = "import sys, shelfspace; assert not {'pandas', 'tensorflow', 'numpy'} & set(sys.modules); shelfspace.open"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'shut'"):
        shelfspace.shut  # noqa: B018


rows = st.lists(
    st.tuples(
        st.integers(0, 4), st.one_of(st.integers(0, 200), st.sampled_from([1800, 1801, 3600, 90_000])), st.integers(0, 2)
    ),
    min_size=1, max_size=30,
)  # fmt: skip


@settings(max_examples=8, deadline=None)
@given(st.lists(rows, min_size=4, max_size=12))  # a query takes as long for one customer as for twelve
def test_visits_of_a_service_are_those_of_the_query(drawn):
    ids = np.array([f"p{i}" for i in range(5)])
    tables, found = [], []
    for user, (products, seconds, levels) in enumerate(np.array(each).T for each in drawn):
        micros = 1_700_000_000_000_000 + np.cumsum(seconds) * 1_000_000
        tables.append(pd.DataFrame({
            "user_id": f"u{user:02d}", "product_id": ids[products], "timestamp": pd.to_datetime(micros, unit="us"),
            "event": np.array(arrays.EVENT_LEVELS)[levels],
        }))  # fmt: skip
        found.append(histories.of_events(products.astype(np.int32), micros, levels.astype(np.int8)))
    with histories.visits(pd.concat(tables)) as path:
        wanted = arrays.latest(arrays.load(path), ids)
    together = histories.together(found)
    for name in ("items", "times", "events", "start", "end"):
        assert getattr(together, name).tolist() == getattr(wanted, name).tolist()


def test_own_visits_are_known_as_far_as_they_agree(run, log):
    own = run.own
    user = own.users[5]
    mine = slice(*own.corpus.offsets[5:7])
    items, micros = own.items[mine], np.round(own.corpus.times[mine] * histories.DAY).astype(np.int64)

    def trained(items, micros, user=user):
        made = histories.of_events(items, micros, np.zeros(len(items), np.int8), user_id=user)
        return int((own.of(made).trained - own.of(made).start)[0])

    assert trained(items, micros) == trained(items[:3], micros[:3]) == len(items)  # what came after is the own, too
    assert trained(items[2:], micros[2:]) == len(items) - 2
    assert trained(items, micros + 1) == 0 == trained(items, micros, "nobody")
    later = micros.copy()
    later[3:] += 7_000_000
    assert trained(items, later) == 3


@pytest.mark.parametrize(
    "ending, read", [("parquet", pd.read_parquet), ("csv", lambda path: pd.read_csv(path, dtype={"score": np.float32}))]
)
def test_a_file_of_recommendations(run, log, tmp_path, ending, read):
    few = log[log.user_id.isin(log.user_id.unique()[:30])]
    rows = answers.recommend(run, few, tmp_path / f"r.{ending}", k=4, progress=False)
    found = read(tmp_path / f"r.{ending}")
    assert rows == len(found) == 120
    same(found, run.recommend(few, k=4))


def test_a_file_of_recommendations_is_whole_or_not_there(run, log, tmp_path, monkeypatch):
    (tmp_path / "r.parquet").write_text("of before")

    def fail(*arguments):
        yield next(runs.Run.answers(run, *arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "answers", fail)
    with pytest.raises(KeyboardInterrupt):
        answers.recommend(run, log, tmp_path / "r.parquet", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["r.parquet"] and (tmp_path / "r.parquet").read_text() == "of before"


def test_exports_open_elsewhere(run, tmp_path):
    ids, vectors = run.product_ids[run.known], run.vectors[run.known]
    text, tsv, metadata = exports.export(run, "word2vec", tmp_path / "e.txt")
    keyed = KeyedVectors.load_word2vec_format(text)
    assert keyed.index_to_key == ids.tolist() and np.allclose(keyed.vectors, vectors, atol=1e-6)
    assert np.allclose(np.loadtxt(tsv, delimiter="\t"), vectors, atol=1e-6)
    told = pd.read_csv(metadata, sep="\t", dtype=str)
    assert told.product_id.tolist() == ids.tolist() and "category" in told
    (table,) = exports.export(run, "parquet", tmp_path / "e.parquet")
    assert np.array_equal(np.stack(pd.read_parquet(table).vector), vectors)
    (arrays_of,) = exports.export(run, "npz", tmp_path / "e.npz")
    with np.load(arrays_of) as found:
        assert found["product_ids"].tolist() == ids.tolist() and np.array_equal(found["vectors"], vectors)


def test_the_index_answers_like_similar(run, tmp_path):
    file, names = exports.export(run, "faiss", tmp_path / "e.faiss")
    index, ids = faiss.read_index(str(file)), np.array(names.read_text().splitlines())
    for place in range(0, len(ids), 7):
        cosine, found = index.search(index.reconstruct(place)[None], 6)
        wanted = run.similar(ids[place], 5)
        assert [i for i in ids[found[0]] if i != ids[place]][:5] == wanted.product_id.tolist()
        assert np.allclose(np.sort(wanted.similarity)[::-1], cosine[0][1:], atol=1e-5)


def test_ids_that_a_form_cannot_hold_are_refused(run, monkeypatch, tmp_path):
    odd = run.products.copy()
    odd.loc[[0, 1], "product_id"] = ["a b", "a_b"]
    monkeypatch.setattr(run, "products", odd)
    with pytest.raises(ValueError, match="differ in nothing but spaces"):
        exports.export(run, "word2vec", tmp_path / "e.txt")
    odd.loc[0, "product_id"] = "a\nb"
    with pytest.raises(ValueError, match="line's end"):
        exports.export(run, "faiss", tmp_path / "e.faiss")
    assert not list(tmp_path.iterdir())


def call(monkeypatch, capsys, *words) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["shelfspace", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code, *capsys.readouterr()


def test_the_commands(run, log, monkeypatch, capsys, tmp_path):
    log.head(200).to_csv(tmp_path / "today.csv", index=False)
    code, said, _ = call(
        monkeypatch, capsys, "recommend", run.folder, "--data", tmp_path / "today.csv", "--out", tmp_path / "r.csv", "-k", 3
    )
    assert code == 0 and "rows" in said and len(pd.read_csv(tmp_path / "r.csv")) == 3 * log.head(200).user_id.nunique()
    product = run.product_ids[run.known][0]
    code, said, _ = call(monkeypatch, capsys, "similar", run.folder, product, "-k", 2)
    assert code == 0 and [line.split()[0] for line in said.splitlines()[1:]] == run.similar(product, 2).product_id.tolist()
    code, said, _ = call(monkeypatch, capsys, "explain", run.folder, product, *run.product_ids[:2])
    assert code == 0 and said.startswith("score")
    code, said, _ = call(monkeypatch, capsys, "export", run.folder, "--to", "npz", "--out", tmp_path / "e.npz")
    assert code == 0 and Path(said.strip()).resolve() == tmp_path / "e.npz"
    code, _, said = call(monkeypatch, capsys, "similar", run.folder, "nothing")
    assert code == 2 and "has no product 'nothing'" in said
    code, _, said = call(monkeypatch, capsys, "recommend", run.folder, "--data", "x.csv", "--out", "r.csv", "--columns", "user_id")
    assert code == 2 and "--columns is 'user_id'; it must be pairs" in said
    code, _, said = call(monkeypatch, capsys, "serve", tmp_path)
    there = all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn"))
    assert code == 2 and ("is no finished run" if there else "pip install 'shelfspace[serve]'") in said


def test_a_log_of_one_product_is_enough_for_a_question_and_not_for_a_report(tmp_path):
    pd.DataFrame({"user_id": ["a", "b"], "product_id": "p", "timestamp": 1_700_000_000}).to_csv(tmp_path / "log.csv", index=False)
    assert events.read(tmp_path / "log.csv", learn=False).rows == 2
    with pytest.raises(ValueError, match="one single product"):
        events.read(tmp_path / "log.csv")
