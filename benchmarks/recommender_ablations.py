"""Change one thing of the tied recommender at a time, and print what it costs, as a markdown table.

    python benchmarks/recommender_ablations.py RUN [--epochs N] [--only NAME,NAME]

RUN is the folder of a finished run (`shelfspace report --out RUN`). Every variant learns from the same examples with the
same seed; MRR@20 and HR@20 are those of the valid users, as whoever reads them chooses by them. The gain is paired with the full
model, its interval corrected for the number of variants.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from shelfspace.files import run_files
from shelfspace.measure import evaluation, ranking
from shelfspace.models import dense, tied, tied_training, training, users
from shelfspace.sequences import arrays
from shelfspace.vectors import embeddings, skipgram, starspace

VARIANTS = {
    "full": {},
    "start: StarSpace": {"embedding": "starspace"},
    "start: random": {"embedding": "random"},
    "decay: fixed at 0 (plain mean)": {"decay": 0.0, "learn_decay": False},
    "decay: fixed at the run's choice": {"decay": None, "learn_decay": False},
    "no attention": {"attention": False},
    "no attention, decay fixed at 0": {"attention": False, "decay": 0.0, "learn_decay": False},
    "nothing goes together": {"together": 0.0},
    "neither that nor transitions": {"transitions": False},
    "temperature 0.07": {"temperature": 0.07},
    "dimension 25": {"dim": 25},
    "dimension 100": {"dim": 100},
    "ages as rank": {"decay_time": "rank"},
    "head: dense (the article's network)": {"dense": True},
}


def main() -> None:
    """Run the variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--epochs", type=int, default=0, help="passes; by default as many as the size of the log asks for")
    parser.add_argument("--only", default="", help="names of variants, separated by commas")
    given = parser.parse_args()
    product_ids = pd.read_parquet(given.run / "products.parquet").product_id.to_numpy().astype(str)
    table = arrays.load(given.run / "sequences.parquet")
    corpus, choice = arrays.corpus(table), run_files.read_json(given.run / "decay.json")
    train = arrays.examples(table, product_ids, "train", prefixes=1000)
    valid = arrays.examples(table, product_ids, "valid")
    trainers = {"word2vec": skipgram.train, "starspace": starspace.train}

    def vectors(name: str, dim: int) -> tuple[np.ndarray, np.ndarray]:
        if name == "random":
            random = np.random.default_rng(0).normal(size=(len(product_ids), dim))
            return random.astype(np.float32), np.ones(len(product_ids), dtype=bool)
        return embeddings.align(trainers[name](corpus, dim=dim, progress=False), product_ids)

    print("| variant | HR@20 | MRR@20 | gain in MRR@20 (95 % interval) | half-life | seconds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    wanted = [name.strip() for name in given.only.split(",")] if given.only else list(VARIANTS)
    full = None
    for name in dict.fromkeys(["full", *wanted]):
        change = dict(VARIANTS[name])
        start, known = vectors(change.pop("embedding", choice["embedding"] if change.get("dense") else "word2vec"), change.pop("dim", 50))
        if change.get("decay", 0) is None:
            change |= {"decay": choice["decay"], "decay_time": choice["decay_time"]}
        training.deterministic(0)
        begun = time.perf_counter()
        if change.pop("dense", False):
            settings = (choice["decay"], choice["decay_time"], known)
            inputs, judged = (users.user_embeddings(part, start, *settings) for part in (train, valid))
            network = dense.dense(inputs, len(product_ids))
            dense.train(network, inputs, train.target, judged, valid.target, progress=False)
            model, half_life = dense.recommend(network, start, *settings), "–"
        else:
            network = tied_training.start(start, known, arrays.corpus(table, targets=True), product_ids, **change)
            tied_training.train(network, train, valid, epochs=given.epochs, progress=False)
            learned = network.learned()
            found = learned.findings()
            unit = "visits" if found["decay_time"] == "rank" else "days"
            model, half_life = tied.recommend(learned), f"{found['half_life']:.2g} {unit}" if found["decay"] > 1e-6 else "∞"
        seconds = time.perf_counter() - begun
        rank = evaluation.evaluate(model, valid).ranks
        full = rank if full is None else full
        lead = evaluation.difference(rank, full, valid.user_ids, comparisons=len(VARIANTS) - 1)
        gain = "" if name == "full" else "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * x for x in (lead["gain"], *lead["ci95"])))
        hit, mrr = (100 * kind(rank, 20).mean() for kind in (ranking.hit_rate, ranking.reciprocal_rank))
        print(f"| {name} | {hit:.2f} | {mrr:.2f} | {gain} | {half_life} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
