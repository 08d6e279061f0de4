"""Search settings of word2vec and StarSpace on the valid users of a run, with as many tries for each.

    shelfspace report --out reports/default        (01_prepare is enough)
    python benchmarks/tune_embeddings.py reports/default [--tries 12] [--users 4000]

A random search: every try draws each setting on its own, and the first try is the defaults. A try's score is the MRR@20
of the products nearest to the decayed history of valid users, at the best of a few decays by rank, cosine for both.
Half of the valid users choose; the other half, whom no choice saw, give the last column. Training takes the histories
of `--users` users, a part of the log, so that the search stays cheap; passes are counted in visits trained on.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from shelfspace.measure import evaluation, ranking
from shelfspace.models import baselines
from shelfspace.sequences import arrays
from shelfspace.sequences.arrays import Corpus, Examples
from shelfspace.vectors import embeddings, starspace, word2vec

SPACE = {
    "word2vec": {
        "window": [3, 5, 10, 20],
        "negatives": [5, 10, 20],
        "ns_exponent": [-0.5, 0.0, 0.5, 0.75, 1.0],
        "subsample": [0.0, 1e-3, 1e-4],
        "learning_rate": [0.025, 0.05, 0.1],
        "epochs": [10, 20, 40],
    },
    "starspace": {
        "loss": ["hinge", "softmax"],
        "margin": [0.1, 0.2, 0.4, 0.6],
        "temperature": [0.05, 0.1, 0.2],
        "negatives": [50, 100, 200],
        "max_kept": [5, 10, 20],
        "window": [0, 3, 5, 10],
        "learning_rate": [0.02, 0.05, 0.1, 0.2],
        "epochs": [20, 50, 100],
    },
}
TRAIN = {"word2vec": word2vec.train, "starspace": starspace.train}
DECAYS = (0.0, 0.3, 0.7, 1.5)  # per visit of the history


def score(made: embeddings.Embeddings, product_ids: np.ndarray, judges: Examples) -> tuple[float, float]:
    """The best MRR@20 over `DECAYS`, and the decay that gave it."""
    aligned = embeddings.align(made, product_ids)
    ranks = {d: evaluation.evaluate(baselines.nearest_to_user(*aligned, d, "rank"), judges).ranks for d in DECAYS}
    return max((float(ranking.reciprocal_rank(rank, 20).mean()), d) for d, rank in ranks.items())


def main() -> None:
    """Search, and print a table of the tries for each trainer, the best first."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run with sequences.parquet and products.parquet")
    parser.add_argument("--tries", type=int, default=12)
    parser.add_argument("--users", type=int, default=4_000, help="users whose histories train")
    parser.add_argument("--dim", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    table = arrays.load(given.run / "sequences.parquet")
    product_ids = pd.read_parquet(given.run / "products.parquet").product_id.to_numpy().astype(str)
    whole = arrays.corpus(table)
    users = min(given.users, len(whole))
    corpus = Corpus(whole.product_ids, whole.items[: whole.offsets[users]], whole.offsets[: users + 1])
    valid = arrays.examples(table, product_ids, "valid")
    halves = np.random.default_rng(given.seed).permutation(len(valid)) % 2
    choose, confirm = valid[halves == 0], valid[halves == 1]
    print(f"{len(corpus):,} sequences with {len(corpus.items):,} visits; {len(choose):,} valid users choose.\n")
    for trainer, space in SPACE.items():
        rng = np.random.default_rng(given.seed)
        tries = [{}]
        for _ in range(given.tries - 1):
            tries.append({name: values[rng.integers(len(values))] for name, values in space.items()})
        rows = []
        for settings in tries:
            started = time.perf_counter()
            made = TRAIN[trainer](corpus, dim=given.dim, seed=given.seed, progress=False, **settings)
            seconds = time.perf_counter() - started
            (mrr, decay), (again, _) = score(made, product_ids, choose), score(made, product_ids, confirm)
            rows.append((mrr, again, decay, seconds, settings))
            print(f"{trainer} {mrr:.4f} {settings}", file=sys.stderr, flush=True)
        print(f"| {trainer} | MRR@20 | other half | decay | seconds |\n|---|---:|---:|---:|---:|")
        for mrr, again, decay, seconds, settings in sorted(rows, key=lambda row: -row[0]):
            text = ", ".join(f"{name} {value}" for name, value in settings.items()) or "the defaults"
            print(f"| {text} | {mrr:.4f} | {again:.4f} | {decay:g} | {seconds:.1f} |")
        print(flush=True)


if __name__ == "__main__":
    main()
