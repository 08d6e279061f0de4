"""Seconds per epoch of the dense and the tied recommender on the same examples, as a markdown table.

    python benchmarks/recommender_speed.py [--products 30000] [--users 10000] [--epochs 3]

The examples are every prefix of the simulated shop's users. The first epoch, which compiles, is not counted. The
embeddings are random, which changes no time.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np

from shelfspace.models import dense, tied_training, users
from shelfspace.sequences.arrays import Corpus, Examples
from shelfspace.shop import simulation


def examples(n_users: int, n_products: int) -> tuple[Examples, Corpus]:
    """All prefixes of the simulated users' visits, and these visits."""
    events = simulation.simulate(n_users, n_products).events
    clicks = events[events["event"] != "search"]
    clicks = clicks.assign(
        user=clicks["user_id"].cat.codes, item=clicks["product_id"].cat.codes, days=clicks["timestamp"].astype("int64") / 86_400e6
    ).sort_values(["user", "days"], kind="stable")
    first = np.flatnonzero(np.diff(clicks["user"], prepend=-1))
    start = np.repeat(first, np.diff(first, append=len(clicks)))
    rows = np.flatnonzero(np.arange(len(clicks)) > start)
    items, nothing = clicks["item"].to_numpy(np.int32), np.zeros(len(clicks), np.int8)
    ids = start[rows].astype(str)
    offsets = np.append(first, len(clicks))
    end = np.repeat(offsets[1:], np.diff(offsets))
    given = Examples(items, clicks["days"].to_numpy(), nothing, start[rows], rows, items[rows], nothing[rows], ids, end[rows])
    return given, Corpus(np.arange(n_products), items, offsets)


def per_epoch(fit, epochs: int) -> float:
    """Seconds of an epoch once everything is compiled: of 1 + `epochs` less those of one, by `epochs`."""
    seconds = []
    for n in (1, 1 + epochs):
        begun = time.perf_counter()
        fit(n)
        seconds.append(time.perf_counter() - begun)
    return (seconds[1] - seconds[0]) / epochs


def main() -> None:
    """Time both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--products", type=int, default=30_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    train, corpus = examples(given.users, given.products)
    vectors, known = np.random.default_rng(0).normal(size=(given.products, 50)).astype(np.float32), np.ones(given.products, bool)

    def train_dense(epochs: int, **softmax) -> None:
        inputs = users.user_embeddings(train, vectors, 0.1)
        network = dense.dense(inputs, given.products)
        few = slice(0, 100)
        dense.train(network, inputs, train.target, inputs[few], train.target[few], epochs=epochs, progress=False, **softmax)

    def ours(epochs: int) -> None:
        tied_training.train(tied_training.start(vectors, known, corpus, corpus.product_ids), train, epochs=epochs, progress=False)

    fits = {
        "dense, softmax over all products (the article's)": partial(train_dense, full_below=given.products),
        "dense, on a sample of them": partial(train_dense, full_below=0),
        "tied": ours,
    }
    seconds = {name: per_epoch(fit, given.epochs) for name, fit in fits.items()}
    print(f"{len(train):,} examples, {given.products:,} products\n")
    print("| recommender | seconds per epoch | tied is so many times as fast |\n| --- | ---: | ---: |")
    for name, value in seconds.items():
        print(f"| {name} | {value:.1f} | {value / seconds['tied']:.1f} |")


if __name__ == "__main__":
    main()
