"""Product embeddings: files, alignment, neighbours, the triplet check and t-SNE."""

import numpy as np
import pandas as pd
import pytest

from shelfspace.sequences.arrays import Corpus, Examples
from shelfspace.vectors import embeddings, skipgram, starspace, validation
from shelfspace.vectors.embeddings import Embeddings


def blobs(groups=4, size=25, dim=8, spread=0.3, seed=0):
    """Vectors around one centre per group, and the groups' names."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, dim))
    vectors = np.repeat(centres, size, axis=0) + spread * rng.normal(size=(groups * size, dim))
    return vectors.astype(np.float32), np.repeat([f"c{g}" for g in range(groups)], size).astype(object)


def test_saved_and_loaded_embeddings_are_equal(tmp_path):
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    made = Embeddings(np.array(["a", "b", "ü"]), vectors, losses=(0.3, 0.1), scores=(0.2,))
    made.save(tmp_path / "e.parquet")
    read = embeddings.load(tmp_path / "e.parquet")
    assert read.product_ids.tolist() == ["a", "b", "ü"] and np.array_equal(read.vectors, made.vectors)
    assert read.vectors.dtype == np.float32 and (read.losses, read.scores) == (made.losses, made.scores)


def test_align_puts_zeros_where_there_is_no_embedding():
    made = Embeddings(np.array(["b", "d"]), np.array([[1, 2], [3, 4]], dtype=np.float32))
    vectors, known = embeddings.align(made, np.array(["a", "b", "c", "d", "e"]))
    assert known.tolist() == [False, True, False, True, False]
    assert vectors.tolist() == [[0, 0], [1, 2], [0, 0], [3, 4], [0, 0]]


def test_nearest_by_cosine_ignores_length_and_leaves_out_the_product_itself():
    vectors = np.array([[1, 0], [10, 1], [0, 5], [0, 0]], dtype=np.float32)
    index, cosine = embeddings.nearest(vectors, vectors[0], k=2, exclude=np.array([0]))
    assert index.tolist() == [[1, 2]]
    np.testing.assert_allclose(cosine, [[10 / np.sqrt(101), 0]], atol=1e-6)


def test_triplets_are_of_the_same_and_of_another_category():
    vectors, categories = blobs()
    categories[:3] = [None, "", "lonely"]
    pairs, others = validation.category_triplets(categories, np.ones(len(categories), bool), per_anchor=40)
    assert (categories[pairs[:, 0]] == categories[pairs[:, 1]]).all()
    assert (categories[pairs[:, 0]] != categories[others]).all()
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert not np.isin(pairs, [0, 1, 2]).any() and 2 in others
    drawn = np.bincount(others, minlength=100)[3:]
    assert drawn.min() > 0  # every other product can be drawn


def test_triplet_check_tells_good_vectors_from_noise():
    vectors, categories = blobs()
    triplets = validation.category_triplets(categories, np.ones(100, bool))
    good = validation.triplet_check(vectors, *triplets)
    noise = validation.triplet_check(np.random.default_rng(9).normal(size=(100, 8)), *triplets)
    assert good.auc > 0.95 and good.ci95[0] <= good.auc <= good.ci95[1]
    assert noise.ci95[0] < 0.5 < noise.ci95[1]
    assert validation.triplet_check(np.ones((100, 8)), *triplets).auc == 0.5


def test_triplet_check_needs_a_triplet():
    with pytest.raises(ValueError, match="no triplet"):
        validation.triplet_check(np.ones((2, 2)), np.zeros((0, 2), int), np.zeros(0, int))


def test_several_embeddings_are_asked_the_same_triplets_or_none():
    aligned = {"right": (np.eye(3)[[0, 0, 1]], np.ones(3, bool)), "wrong": (np.eye(3)[[0, 1, 0]], np.ones(3, bool))}
    found = validation.triplet_checks(aligned, np.array([[0, 1]]), np.array([2]))
    assert {name: check.auc for name, check in found.items()} == {"right": 1.0, "wrong": 0.0}
    assert validation.triplet_checks(aligned, np.zeros((0, 2), int), np.zeros(0, int)) == {}


def test_tsne_keeps_neighbours_together_and_repeats_to_the_bit():
    vectors, categories = blobs(groups=3, size=20)
    one, two = validation.tsne(vectors, perplexity=10, seed=1), validation.tsne(vectors, perplexity=10, seed=1)
    assert one.shape == (60, 2) and np.array_equal(one, two)
    centres = np.array([one[categories == c].mean(axis=0) for c in ("c0", "c1", "c2")])
    nearest = np.linalg.norm(one[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == np.repeat([0, 1, 2], 20)).mean() > 0.95


def test_next_product_triplets_take_new_known_targets_only():
    items = np.array([0, 1, 2, 3], dtype=np.int32)
    four = np.arange(4)
    seen = Examples(items, np.zeros(4), np.zeros(4, np.int8), four, four + 1, np.array([1, 1, 4, 0], np.int32),
                    np.zeros(4, np.int8), four.astype(str))  # fmt: skip
    known = np.array([True, True, True, True, False, True])
    pairs, others = validation.next_product_triplets(seen, known)
    assert set(map(tuple, pairs)) <= {(0, 1), (3, 0)}  # 1 → 1 was seen before, and 4 has no embedding
    assert known[others].all() and (others[:, None] != pairs).all()


def test_complement_triplets_compare_within_the_complements_category():
    products = pd.DataFrame({"product_id": list("abcdef"), "category": ["phone", "case", "case", "case", "phone", "chair"]})
    complements = pd.DataFrame({"product_id": ["a", "a", "e", "x"], "complement_id": ["b", "c", "d", "b"], "chance": 0.5})
    pairs, others = validation.complement_triplets(complements, products, np.ones(6, bool))
    assert pairs.tolist() == [[0, 1], [0, 2], [4, 3]]
    assert others[:2].tolist() == [3, 3]  # the only case that does not go with phone a
    assert others[2] in (1, 2)


def test_user_embeddings_are_read_by_their_own_key(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = pa.FixedSizeListArray.from_arrays(pa.array([3, 4, 1, 2], pa.float32()), 2)
    pq.write_table(pa.table({"user_id": ["v", "u"], "vector": vectors}), tmp_path / "u.parquet")
    read = embeddings.load(tmp_path / "u.parquet", key="user_id")
    assert read.product_ids.tolist() == ["u", "v"] and read.vectors.tolist() == [[1, 2], [3, 4]]


def rotation(dim: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def test_a_turned_space_is_turned_back_and_nothing_in_it_changes():
    rng = np.random.default_rng(0)
    ids = np.array([f"p{i}" for i in range(40)])
    earlier = Embeddings(ids[:30], rng.normal(size=(30, 8)).astype(np.float32))
    later = Embeddings(
        ids[10:], np.vstack([earlier.vectors[10:], rng.normal(size=(10, 8))]).astype(np.float32) @ rotation(8).astype(np.float32)
    )
    found = embeddings.turned(later, earlier)
    np.testing.assert_allclose(found.vectors[:20], earlier.vectors[10:], atol=1e-5)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, later.vectors @ later.vectors.T, atol=1e-4)
    assert embeddings.turned(later, None) is later
    strangers = Embeddings(np.array(["x"]), np.ones((1, 8), np.float32))
    assert embeddings.turned(later, strangers) is later
    with pytest.raises(ValueError, match="Vectors of 8 numbers cannot be turned onto some of 3"):
        embeddings.turned(later, Embeddings(ids[:1], np.ones((1, 3), np.float32)))


def test_a_new_product_begins_at_the_mean_of_those_it_stands_near():
    ids = np.array(["lamp", "new", "new, alone", "oven", "sofa"])
    items = np.array([0, 1, 4, 4, 1, 3, 3, 3, 3, 3, 2], dtype=np.int32)  # lamp new sofa | sofa new oven ×4 | oven, and new alone
    corpus = Corpus(ids, items, np.array([0, 3, 9, 10, 11]))
    start = Embeddings(ids[[0, 3, 4]], np.array([[1, 0], [0, 1], [3, 3]], np.float32))
    table = np.full((5, 3), 7, np.float32)
    embeddings.begin(table, corpus, start)
    assert table[:, 2].tolist() == [7] * 5 and table[2].tolist() == [7, 7, 7]
    assert table[[0, 3, 4], :2].tolist() == start.vectors.tolist()
    assert table[1, :2] == pytest.approx(np.mean([[1, 0], [3, 3], [3, 3], *[[0, 1]] * 4], axis=0))


@pytest.mark.parametrize("trainer", [skipgram, starspace])
def test_a_training_that_starts_from_the_day_before_keeps_its_neighbours(trainer):
    ids = np.array([f"p{i:02d}" for i in range(60)])

    def day(seed: int) -> Corpus:
        """Customers who each stay within one of six groups."""
        rng = np.random.default_rng(seed)
        items = (rng.integers(0, 6, (150, 1)) * 10 + rng.integers(0, 10, (150, 8))).astype(np.int32).ravel()
        return Corpus(ids, items, np.arange(0, len(items) + 1, 8))

    def kept(one: Embeddings, other: Embeddings) -> float:
        near = [embeddings.nearest(each.vectors, each.vectors, 5, np.arange(60))[0] for each in (one, other)]
        return float(np.mean([len(set(a) & set(b)) / 5 for a, b in zip(*near)]))

    settings = {"dim": 16, "progress": False}
    monday = trainer.train(day(0), epochs=20, **settings)
    apart = trainer.train(day(1), epochs=5, seed=1, **settings)
    tuesday = trainer.train(day(1), epochs=5, seed=1, start=monday, **settings)
    assert kept(tuesday, monday) > (1.2 if trainer is skipgram else 1.0) * kept(apart, monday)
    turned = [embeddings.normalise(embeddings.turned(each, monday).vectors) for each in (tuesday, apart)]
    near = [(each * embeddings.normalise(monday.vectors)).sum(axis=1).mean() for each in turned]
    assert near[0] > near[1]
    fewer = Embeddings(monday.product_ids[:5], monday.vectors[:5])
    assert len(trainer.train(day(1), epochs=1, start=fewer, **settings).vectors) == 60
    with pytest.raises(ValueError, match="The vectors to start from have 16 numbers"):
        trainer.train(day(1), epochs=1, dim=8, progress=False, start=monday)
