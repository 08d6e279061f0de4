"""What places kept for new products find, and what they cost the others.

    python benchmarks/new_products.py reports/default [--seed 0]

Takes a tenth of the products out of all histories of a finished run, trains word2vec, StarSpace, the tied recommender and the ranker
on what is left, and asks the test users, with 0 to 5 of the twenty places kept for the products that are now new (`new_places` of
notebook 05). Beside it the same places filled by the tied recommender of the run itself, which knew every click: more than any
placing by information could find in them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from shelfspace.files import run_files
from shelfspace.measure import evaluation, ranking
from shelfspace.models import factors, newcomers, ranked, retrieval, tied, tied_training, training
from shelfspace.sequences import arrays
from shelfspace.vectors import embeddings, skipgram, starspace


def main() -> None:
    """Hide, train, ask, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    products, choice = pd.read_parquet(given.run / "products.parquet"), run_files.read_json(given.run / "decay.json")
    best_decays = run_files.read_json(given.run / "best_decays.json")
    ids, seed = products.product_id.to_numpy().astype(str), given.seed
    knowing = tied.recommend(tied.load(given.run / "recommender_tied.keras"))
    table = arrays.load(given.run / "sequences.parquet")
    whole = arrays.corpus(table, targets=True)
    hidden = np.random.default_rng(seed).random(len(ids)) < 0.1
    is_test_target = pc.and_(pc.equal(table["role"], "target"), pc.equal(table["split"], "test"))
    table = table.filter(pc.or_(is_test_target, pc.invert(pc.is_in(pc.cast(table["product_id"], pa.string()), pa.array(ids[hidden])))))

    corpus, plain = arrays.corpus(table, targets=True), arrays.corpus(table)
    trained = {"word2vec": skipgram.train(plain, seed=seed), "starspace": starspace.train(plain, seed=seed)}
    aligned = {name: embeddings.align(made, ids) for name, made in trained.items()}
    train, valid, test = (arrays.examples(table, ids, split, prefixes=1000) for split in ("train", "valid", "test"))
    asked = arrays.examples(table, ids, "train")
    training.deterministic(seed)
    network = tied_training.start(*aligned["word2vec"], corpus, ids, decay_time="days", seed=seed)
    tied_training.train(network, train[~np.isin(train.end, asked.end)], valid, dropout=0.4, limit=400_000, seed=seed)
    sources = retrieval.sources(tied.recommend(network.learned()), corpus, ids, aligned, best_decays, factors.Ease(corpus, ids))
    facts = retrieval.facts(corpus, products, aligned[choice["embedding"]][0])
    ranker = ranked.recommend(ranked.train(sources, facts, asked, seed=seed))

    new = hidden[test.target]
    placed = newcomers.model(products, *aligned["word2vec"], ~hidden, **best_decays["word2vec_user"])

    def with_clicks(examples: arrays.Examples) -> np.ndarray:
        return np.where(hidden, knowing(examples), np.float32(-np.inf))

    gone = len(whole.items) - len(corpus.items)
    print(
        f"{hidden.sum()} of {len(ids):,} products hidden; {new.sum():,} of {len(test):,} test targets are such; {gone:,} visits taken out\n"
    )
    print("| places | new found, % | the same by who knew the clicks, % | others found, % | cost, points |")
    print("| ---: | ---: | ---: | ---: | ---: |", flush=True)
    first = None
    for places in range(6):
        hits = [
            100 * ranking.hit_rate(evaluation.evaluate(newcomers.keep_places(ranker, source, places), test).ranks, 20)
            for source in (placed, with_clicks)
        ]
        others = hits[0][~new].mean()
        first = others if first is None else first
        print(f"| {places} | {hits[0][new].mean():.1f} | {hits[1][new].mean():.1f} | {others:.1f} | {others - first:+.1f} |", flush=True)


if __name__ == "__main__":
    main()
