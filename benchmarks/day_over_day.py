"""Neighbours kept from day to day: trained apart, and each day from the vectors of the day before.

    python benchmarks/day_over_day.py [--days 5] [--window 14] [--users 8000] [--products 1000]

Windows of the simulated shop, each a day later than the one before. Prints, for each trainer, the share of the ten nearest products
that stay from one day to the next, and MRR@20 of the nearest products to the valid customers' embeddings.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from shelfspace.logs import engines, events
from shelfspace.measure import evaluation, ranking
from shelfspace.models import baselines
from shelfspace.sequences import arrays, prepare
from shelfspace.shop import write
from shelfspace.use import drift
from shelfspace.vectors import embeddings, skipgram, starspace


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--days", type=int, default=5)
    options.add_argument("--window", type=int, default=14)
    options.add_argument("--users", type=int, default=8000)
    options.add_argument("--products", type=int, default=1000)
    given = options.parse_args()
    days = []
    with tempfile.TemporaryDirectory(prefix="shelfspace-") as folder:
        write.simulate(Path(folder) / "log.parquet", given.users, given.products, given.window + given.days, 0, 8.6, None)
        log = events.read(Path(folder) / "log.parquet")
        first = pd.Timestamp(log.table.timestamp.min().execute()).normalize()
        for day in range(given.days):
            since, until = (first + pd.Timedelta(days=day + more) for more in (0, given.window))
            engines.write(prepare.sequences(prepare.window(log.table, str(since), str(until))), Path(folder) / "s.parquet")
            days.append(arrays.load(Path(folder) / "s.parquet"))
    print("| trainer | trained | neighbours@10 kept | MRR@20 |\n|---|---|---:|---:|")
    for name, trainer in (("word2vec", skipgram), ("StarSpace", starspace)):
        for how in ("apart", "from the day before"):
            before, kept, gains = None, [], []
            for day, table in enumerate(days):
                start = before if how != "apart" else None
                made = trainer.train(arrays.corpus(table), start=start, seed=day, progress=False)
                made = embeddings.turned(made, before)
                ids = np.unique(table["product_id"].cast("string").to_numpy().astype(str))
                valid = arrays.examples(table, ids, "valid")
                model = baselines.nearest_to_user(*embeddings.align(made, ids), 0.1, "days")
                gains.append(ranking.reciprocal_rank(evaluation.evaluate(model, valid).ranks, 20).mean())
                if before is not None:
                    both = np.intersect1d(made.product_ids, before.product_ids)
                    kept.append(drift.kept(*(embeddings.align(each, both)[0] for each in (made, before))))
                before = made
            print(f"| {name} | {how} | {np.mean(kept):.1%} | {np.mean(gains):.1%} |", flush=True)


if __name__ == "__main__":
    main()
