"""Measure what features are worth to products that nobody clicked, and to search queries, on the simulated shop.

    python benchmarks/cold_start.py [--users 30000] [--products 3000] [--seed 0]

A tenth of the products is taken out of the training sequences. Precision@10 is the share of a product's ten nearest
products (by cosine, among all others) that are of its category. A query's right category is the one that was most often
viewed right after it. Queries are held out by text: a tenth of them never stands in a sequence.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd

from shelfspace.sequences.arrays import Corpus
from shelfspace.shop import simulation
from shelfspace.vectors import embeddings, features, starspace

PLAIN = ("name", "description", "brand", "price")
SETTINGS = {"epochs": 20}


def corpus(log: pd.DataFrame, entity: str) -> Corpus:
    """One sequence per user of the log's column `entity`; what follows itself stands once."""
    log = log[(log[entity] != log[entity].shift()) | (log.user_id != log.user_id.shift())]
    ids, items = np.unique(log[entity].to_numpy().astype(str), return_inverse=True)
    begins = np.flatnonzero(log.user_id.to_numpy()[1:] != log.user_id.to_numpy()[:-1]) + 1
    return Corpus(ids, items.astype(np.int32), np.concatenate([[0], begins, [len(items)]]))


def precision(found: np.ndarray, category: np.ndarray, right: np.ndarray) -> float:
    """Share of the neighbours `found`, shape (n, k), that have the right category, shape (n,)."""
    return float((category[found] == right[:, None]).mean())


def main() -> None:
    """Simulate, hide, train with several sets of features, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--users", type=int, default=30_000)
    parser.add_argument("--products", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    made = simulation.simulate(given.users, given.products, seed=given.seed)
    products, category = made.products, made.products.category.to_numpy()
    rng = np.random.default_rng(given.seed)
    hidden = np.sort(rng.permutation(len(products))[: len(products) // 10])
    seen = np.setdiff1d(np.arange(len(products)), hidden)
    log = made.events.sort_values(["user_id", "timestamp"], kind="stable")
    asked_for = "? " + log["query"].astype(object)
    log = log.assign(entity=log.product_id.astype(object).where(log.event != "search", asked_for))
    log = log[~log.product_id.isin(products.product_id.to_numpy()[hidden])]
    asked = log[log.event == "search"].assign(viewed=log.product_id.shift(-1))
    asked = asked[asked.viewed.notna() & (asked.user_id == log.user_id.shift(-1).reindex(asked.index))]
    of = pd.Series(category, index=products.product_id)
    right = asked.assign(c=of[asked.viewed].to_numpy()).groupby("entity", observed=True).c.agg(lambda c: c.mode()[0])
    new_queries = right.index[rng.permutation(len(right)) < len(right) // 10]
    log = log[~log.entity.isin(new_queries)]

    print("| features | queries in sequences | hidden products | seen products | new queries | seconds |")
    print("|---|---|---:|---:|---:|---:|")
    for columns in (PLAIN, (*PLAIN, "category"), ("brand", "price")):
        for with_queries in (False, True):
            of_products = features.of_products(products, columns)
            train_features = of_products
            if with_queries:
                queries = [text for text in log.entity.unique() if text.startswith("? ")]
                train_features = features.join(of_products, features.of_texts(queries))
            sequences = corpus(log if with_queries else log[log.event != "search"], "entity")
            started = time.perf_counter()
            found = starspace.train(sequences, features=train_features, seed=given.seed, progress=False, **SETTINGS)
            seconds = time.perf_counter() - started
            vectors, _ = embeddings.align(found, products.product_id.to_numpy().astype(str))
            by_words = found.embed_products(features.of_texts(new_queries))
            scores = [
                precision(embeddings.nearest(vectors, vectors[who], 10, exclude=who)[0], category, category[who]) for who in (hidden, seen)
            ]
            of_query = right[np.unique(new_queries)].to_numpy()
            scores.append(precision(embeddings.nearest(vectors, by_words, 10)[0], category, of_query))
            row = [", ".join(columns), "yes" if with_queries else "no", *(f"{score:.3f}" for score in scores)]
            print("| " + " | ".join([*row, f"{seconds:.1f}"]) + " |", flush=True)


if __name__ == "__main__":
    main()
