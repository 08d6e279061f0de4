"""word2vec, skip-gram and StarSpace: what all owe, on sequences whose structure is known."""

import os
import subprocess
import sys

import numpy as np
import pytest

from shelfspace.sequences.arrays import Corpus
from shelfspace.vectors import skipgram, starspace, validation, word2vec

TRAINERS = [word2vec.train, skipgram.train, starspace.train]


def corpus(users=300, groups=4, size=10, length=8, seed=0) -> Corpus:
    """Each user looks at products of one group only."""
    rng = np.random.default_rng(seed)
    group = rng.integers(groups, size=users)
    items = (group[:, None] * size + rng.integers(size, size=(users, length))).astype(np.int32)
    ids = np.array([f"p{i:02d}" for i in range(groups * size)])
    return Corpus(ids, items.reshape(-1), np.arange(users + 1) * length)


@pytest.mark.parametrize(
    "train, options", [(word2vec.train, {"subsample": 0.01}), (skipgram.train, {"subsample": 0.01}), (starspace.train, {})]
)
def test_products_seen_together_lie_together(train, options):
    found = train(corpus(), dim=8, epochs=20, progress=False, **options)
    assert found.vectors.shape == (40, 8) and found.vectors.dtype == np.float32
    categories = np.repeat(list("abcd"), 10).astype(object)
    check = validation.triplet_check(found.vectors, *validation.category_triplets(categories, np.ones(40, bool)))
    assert check.auc > 0.99
    assert len(found.losses) == 20 and found.losses[-1] < found.losses[0]


@pytest.mark.parametrize("train", TRAINERS)
def test_progress_and_seed_leave_the_vectors_alone_and_another_seed_changes_them(train, capsys):
    shown = train(corpus(), dim=4, epochs=2, seed=3, progress=True)
    hidden = train(corpus(), dim=4, epochs=2, seed=3, progress=False)
    other = train(corpus(), dim=4, epochs=2, seed=4, progress=False)
    assert np.array_equal(shown.vectors, hidden.vectors) and not np.array_equal(shown.vectors, other.vectors)
    assert "epoch" in capsys.readouterr().err


DIGESTS = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from test_trainers import corpus
from shelfspace.vectors import skipgram, starspace, word2vec
for module in (word2vec, skipgram, starspace):
    vectors = module.train(corpus(), dim=4, epochs=2, progress=False).vectors
    print(module.__name__, hashlib.sha256(vectors.tobytes()).hexdigest())
"""


def test_the_same_bytes_in_every_process():
    told = [
        subprocess.run(
            [sys.executable, "-c", DIGESTS, os.path.dirname(__file__)], env=os.environ | {"PYTHONHASHSEED": seed}, text=True,
            capture_output=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert told[0] == told[1] and len(told[0].splitlines()) == 3


def test_word2vec_leaves_out_rare_products_on_request():
    sequences = Corpus(np.array(["a", "b", "c"]), np.array([0, 1, 0, 1, 2], dtype=np.int32), np.array([0, 2, 5]))
    assert word2vec.train(sequences, min_count=2, epochs=1, progress=False).product_ids.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="lower min_count"):
        word2vec.train(sequences, min_count=9, progress=False)
