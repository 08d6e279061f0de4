"""What stands between the recommenders and what can be known of the simulated shop, on products that are new to a customer.

    python benchmarks/discovery_gap.py reports/default

On the valid users of a finished run of the default shop: the true chances (`shelfspace.trials.ceiling`), the same without the customers'
traits, the recommenders, and the best of the simple methods.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from shelfspace.files import run_files
from shelfspace.measure import evaluation, ranking
from shelfspace.models import factors, ranked
from shelfspace.sequences import arrays
from shelfspace.trials import ceiling


def main() -> None:
    """Ask all of them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    ids, data = pd.read_parquet(run / "products.parquet").product_id.to_numpy().astype(str), run_files.read_json(run / "data.json")
    table = arrays.load(run / "sequences.parquet")
    valid, corpus = arrays.examples(table, ids, "valid"), arrays.corpus(table, targets=True)
    ease = factors.Ease(corpus, ids)
    ranker = ranked.reopen(run / "recommender_ranked.txt", corpus)
    how = {"min_products": data["min_products"], "last": data["protocol"] == "last-product"}
    models = {
        "true moves and true traits: what can be known": ceiling.model(run / "shop", ids, **how),
        "true moves, customers unknown": ceiling.model(run / "shop", ids, traits=False, **how),
        "ranked": ranked.recommend(ranker),
        "tied": ranker.sources["tied"],
        "EASE (regularisation 300, decay 0.5)": ease(300.0, 0.5),
        "co-occurrence": ranker.sources["cooccurrence"],
    }
    new = ~valid.seen()
    print(f"{new.sum():,} valid users whose target was new\n\n| who ranks the new products | HR@20 | MRR@20 |\n| --- | ---: | ---: |")
    for name, model in models.items():
        rank = evaluation.evaluate(model, valid).ranks_new[new]
        print(
            f"| {name} | {100 * ranking.hit_rate(rank, 20).mean():.1f} | {100 * ranking.reciprocal_rank(rank, 20).mean():.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
