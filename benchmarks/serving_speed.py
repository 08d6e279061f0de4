"""How long the ranker takes to recommend: one customer alone, and every customer of a large shop.

    python benchmarks/serving_speed.py [--products 30000] [--users 200000] [--trees 100]

The customers are those of the simulated shop, each with all visits but the newest as history. Embeddings and the tied recommender
are random, and the ranker learns from a few customers: that changes what is recommended, not what it costs.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from recommender_speed import examples

from shelfspace.models import factors, ranked, recommendations, retrieval, tied, tied_training


def main() -> None:
    """Time both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--products", type=int, default=30_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--trees", type=int, default=95, help="of the ranker")
    given = parser.parse_args()
    everything, corpus = examples(given.users, given.products)
    newest = everything[everything.end + 1 == everything.trained]
    rng = np.random.default_rng(0)
    ids = np.array([f"p{n:06d}" for n in range(given.products)])
    corpus = type(corpus)(ids, corpus.items, corpus.offsets, times=everything.times, user_ids=corpus.offsets[:-1].astype(str))
    products = pd.DataFrame({"product_id": ids, "price": rng.lognormal(3, 1, len(ids)), "category": rng.integers(0, 50, len(ids))})
    vectors = {name: (rng.normal(size=(len(ids), 50)).astype(np.float32), np.ones(len(ids), bool)) for name in ("word2vec", "starspace")}
    settings = dict.fromkeys(("cooccurrence", "word2vec_user", "starspace_user"), {"decay": 0.5})
    model = tied_training.start(*vectors["word2vec"], corpus, ids, decay_time="days")
    sources = retrieval.sources(tied.recommend(model.learned()), corpus, ids, vectors, settings, factors.Ease(corpus, ids))
    few = newest[rng.permutation(len(newest))[:4000]]
    facts = retrieval.facts(corpus, products, vectors["word2vec"][0])
    ranker = ranked.train(sources, facts, few, trees=given.trees)
    recommend = ranked.recommend(ranker)
    seconds = []
    for place in range(300):
        begun = time.perf_counter()
        recommend(few[place : place + 1])
        seconds.append(time.perf_counter() - begun)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        recommendations.write_recommendations(recommend, newest, ids, Path(folder) / "recommendations.parquet")
        everybody = time.perf_counter() - begun
    print(f"{given.products:,} products, {len(ranker.sources)} sources, {given.trees} trees\n")
    print("| who is recommended to | time |\n| --- | ---: |")
    print(f"| one customer, median of {len(seconds)} | {1e3 * np.median(seconds):.1f} ms |")
    print(f"| {len(newest):,} customers | {everybody:.0f} s |")
    print(f"\nPeak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")


if __name__ == "__main__":
    main()
