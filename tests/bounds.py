"""Calls every compiled kernel of the package, on logs of many shapes. Run by test_kernels with bounds checks on."""

import importlib
import re
from dataclasses import replace
from pathlib import Path

import lightgbm
import numba
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numba.core.dispatcher import Dispatcher

import shelfspace
from shelfspace.measure import evaluation
from shelfspace.models import baselines, factors, lambdarank, losses, retrieval, session_knn, training, transitions, trees
from shelfspace.models.transitions import Links, companions, scales
from shelfspace.models.users import history_weights
from shelfspace.sequences.arrays import Corpus, Examples
from shelfspace.shop import assortment, simulation, tables
from shelfspace.trials import ceiling
from shelfspace.use import histories
from shelfspace.vectors import skipgram, starspace
from shelfspace.vectors.features import Features


def kernels() -> dict[str, Dispatcher]:
    """All compiled functions that the package's modules hold, by their full names."""
    root, modules = Path(shelfspace.__file__).parent, []
    for path in root.rglob("*.py"):
        if re.search(r"^\s*(import|from) numba", path.read_text(), re.M):  # or it holds none of its own
            modules.append(importlib.import_module(".".join([root.name, *path.relative_to(root).with_suffix("").parts])))
    held = (value for module in modules for value in vars(module).values() if isinstance(value, Dispatcher))
    return {f"{kernel.py_func.__module__}.{kernel.__name__}": kernel for kernel in held}


def log(products: int, visits: int, users: int, seed: int = 0) -> tuple[Corpus, Examples]:
    """Random sequences over a year, and their histories but for the last visit."""
    rng = np.random.default_rng(seed)
    ids = np.array([f"p{p:05d}" for p in range(products)])
    items = rng.integers(products, size=users * visits).astype(np.int32)
    items[:products] = np.arange(products)[: len(items)]  # all of them occur where there is room
    offsets = np.arange(0, len(items) + 1, visits)
    times = np.tile(np.linspace(0, 365, visits), users)
    events, user_ids = rng.integers(3, size=len(items)).astype(np.int8), np.array([f"u{u:03d}" for u in range(users)])
    used, places = np.unique(items, return_inverse=True)
    corpus = Corpus(ids[used], places.astype(np.int32), offsets, times, events, np.zeros(len(items), np.int32), user_ids)
    end = offsets[1:] - 1
    examples = Examples(items, times, events, offsets[:-1], end, items[end], events[end], user_ids, offsets[1:])
    return corpus, examples


def call(products: int, visits: int, users: int) -> None:
    """Every kernel on one log."""
    corpus, examples = log(products, visits, users)
    ids, n = np.array([f"p{p:05d}" for p in range(products)]), len(corpus.product_ids)
    links, everything = Links.count(corpus, ids), np.ones(products, bool)
    positions, offsets = examples.flat()
    weights = np.exp(-0.7 * (365 - examples.times[positions])).astype(np.float32)  # 0 for the older half of a year
    assert visits < 20 or not weights.all()
    for given in (weights, np.zeros_like(weights)):
        row, product, _ = companions(examples.items[positions], given, offsets, links.pairs, scales(links.alone), everything, examples)
        assert len(np.unique(row.astype(np.int64) * products + product)) == len(row)
    pairs = baselines.cooccurrence(corpus, ids)
    models = [
        baselines.item_to_item(pairs, 0.7), baselines.markov(corpus, ids, 3), session_knn.session_knn(corpus, ids, 3, 5),
        session_knn.session_knn(corpus, ids, 500, 5000, decay=0.7, decay_time="days"), factors.Ease(corpus, ids, 500)(30.0, 0.7),
    ]  # fmt: skip
    for model in models:
        evaluation.evaluate(model, examples, block=7, threads=1)
    retrieval.candidates(dict(enumerate(models)), examples, top=20, targets=True)
    held = transitions.holds(corpus.places(ids), corpus.offsets, products)
    holders = held.T.tocsr()
    history = history_weights(examples, products, 0.0)
    history.data[:] = 0  # similarities that stay 0
    session_knn._add_neighbours(
        history.indptr, history.indices, history.data, holders.indptr, holders.indices, held.indptr, held.indices,
        np.full(len(examples), -1), 3, 5, np.zeros((len(examples), products), np.float32),
    )  # fmt: skip
    own = histories.Own(corpus, ids)
    for lengths in (visits - 1, min(1, visits - 1)):  # as they were counted, and shorter
        assert (own.of(replace(examples, end=examples.start + lengths, trained=examples.start + lengths)).trained >= examples.start).all()
    vectors = np.ones((products, 4), np.float32)
    facts = retrieval.facts(corpus, pd.DataFrame({"product_id": ids, "category": "all"}), vectors)
    named = np.tile(np.arange(min(products, 30), dtype=np.int32), len(examples))
    retrieval.describe(facts, examples, named, np.arange(0, len(named) + 1, min(products, 30)))
    slopes = lambdarank.objective(named == 0, np.full(len(examples), min(products, 30)), 20)
    slopes(-named.astype(float), None), slopes(np.sin(np.arange(len(named))), None)
    row, product, _, count = links.after(examples)
    losses._of_products(vectors[examples.target], vectors, count, row, product, examples.target)
    training.Rows(vectors).move(np.arange(products)[::-2], vectors[::-2], 0.1)
    groups, goals = np.arange(n) % 3 - 1, np.where(np.arange(len(corpus.items)) % 4, -1, np.arange(len(corpus.items)))
    of = Features(corpus.product_ids, np.array(["x", "y"]), sp.csr_matrix(np.eye(2, dtype=np.float32)[np.arange(n) % 2]))
    switches = {"weights": np.ones(len(corpus.items), np.int64), "goals": goals, "groups": groups, "market": 2}
    for given in ({}, switches):
        skipgram.train(corpus, dim=5, epochs=1, negatives=3, progress=False, **given)
        for loss in starspace.LOSSES:
            for window, features in ((0, None), (2, of)):
                starspace.train(
                    corpus, dim=5, epochs=1, negatives=4, max_kept=2, loss=loss, window=window, features=features, progress=False, **given
                )  # fmt: skip


def call_the_ceiling(products: int, users: int) -> None:
    """The kernel that knows what the simulated shop draws by."""
    rng = np.random.default_rng(0)
    catalogue = assortment.make_catalogue(products, rng)
    truth = tables.truth(catalogue, simulation._traits(catalogue, users, rng))
    ceiling._taste(truth["products"], truth["users"])(np.arange(users))


def call_the_trees(rows: int, leaves: int) -> None:
    """The kernel that asks LightGBM's trees."""
    table = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    settings = {"num_leaves": leaves, "min_data_in_leaf": 1, "verbose": -1}
    trees.predictor(lightgbm.train(settings, lightgbm.Dataset(table, table.prod(axis=1)), 5))(table)


@numba.njit
def past_the_end(values):
    return values[len(values)]


if __name__ == "__main__":
    try:
        past_the_end(np.zeros(3))
    except IndexError:
        pass
    else:
        raise SystemExit("Bounds checks are off; set NUMBA_BOUNDSCHECK=1.")
    for shape in ((3, 2, 4), (3, 60, 12), (40, 50, 20), (700, 50, 20), (3000, 2, 30)):
        call(*shape)
    for shape in ((100, 2), (300, 32)):
        call_the_trees(*shape)
    for shape in ((60, 2), (800, 20)):
        call_the_ceiling(*shape)
    called = {name: bool(kernel.signatures) for name, kernel in kernels().items()}
    print("\n".join(sorted(name for name, was in called.items() if was)))
    if not all(called.values()):
        raise SystemExit(f"No call reaches {', '.join(name for name, was in called.items() if not was)}; add one to tests/bounds.py.")
