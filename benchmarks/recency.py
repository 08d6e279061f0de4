"""How much more often should recent sessions train `tied`? Tried on the last training sessions of published splits.

    python benchmarks/recency.py SPLIT_DIR ...

For each split and strength, `tied` and its word2vec are trained on all training sessions but the last 5 % and measured on
at most 10,000 prefixes of these. `shelfspace.trials.benchmark.RECENCY` is the strength of the highest mean MRR@20 over the splits. No test row is scored.
"""

import sys
from pathlib import Path

import numpy as np

from shelfspace.measure import evaluation, ranking
from shelfspace.trials import benchmark, published
from shelfspace.vectors import embeddings, word2vec

STRENGTHS = (0.0, 2.0)
SEED = 0

if __name__ == "__main__":
    means = []
    for folder in sys.argv[1:]:
        split = published.read(folder)
        early, judges = split.held_out(SEED)
        vectors = embeddings.align(word2vec.train(split.corpus(early), dim=benchmark.DIM, seed=SEED, progress=False), split.product_ids)
        for strength in STRENGTHS:
            model = benchmark.tied_on(split, early, vectors, strength, seed=SEED, progress=False)
            rank = evaluation.evaluate(model, judges).ranks
            hit_rate, mrr = ranking.hit_rate(rank, 20).mean(), ranking.reciprocal_rank(rank, 20).mean()
            means.append(mrr)
            print(f"| {Path(folder).name} | {strength:g} | {100 * hit_rate:.2f} | {100 * mrr:.2f} |", flush=True)
    best = np.reshape(means, (-1, len(STRENGTHS))).mean(axis=0)
    print("mean MRR@20:", ", ".join(f"{strength:g}: {100 * mrr:.2f}" for strength, mrr in zip(STRENGTHS, best)))
