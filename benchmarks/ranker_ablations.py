"""Leave one thing of the ranker out at a time, and print what it costs the valid users, as a markdown table.

    python benchmarks/ranker_ablations.py RUN

RUN is the folder of a finished run (`shelfspace report --out RUN`). Each ranker learns from the same targets, those of train users
that the run's tied recommender did not learn from, and is measured in the columns all, seen before and discovery. A source that is
left out names no candidates and gives no scores; a group of features that is left out is not told.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from shelfspace.measure import evaluation
from shelfspace.models import ranked
from shelfspace.sequences import arrays


def main() -> None:
    """Train the rankers and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    product_ids = pd.read_parquet(run / "products.parquet").product_id.to_numpy().astype(str)
    table = arrays.load(run / "sequences.parquet")
    asked, valid = (arrays.examples(table, product_ids, split) for split in ("train", "valid"))
    opened = ranked.reopen(run / "recommender_ranked.txt", arrays.corpus(table, targets=True))
    sources, facts = opened.sources, opened.facts
    half = asked.sample(len(asked) // 2)
    rest = {name: model for name, model in sources.items() if name != "tied"}  # tied stands first, and orders what is no candidate

    variants = {"full": (sources, facts, asked)}
    variants |= {
        f"without {name}": ({"tied": sources["tied"]} | {k: m for k, m in rest.items() if k != name}, facts, asked) for name in rest
    }
    variants |= {
        "without tied": (rest, facts, asked),
        "tied alone": ({"tied": sources["tied"]}, facts, asked),
        "no category, brand or price": (sources, replace(
            facts, category=np.full_like(facts.category, -1), brand=np.full_like(facts.brand, -1),
            price=np.full_like(facts.price, np.nan), tier=np.full_like(facts.tier, np.nan),
        ), asked),
        "half of the targets": (sources, facts, half),
    }  # fmt: skip
    rows = {name: (evaluation.evaluate(source, valid), np.nan) for name, source in sources.items()}
    for name, (given, known, targets) in variants.items():
        begun = time.perf_counter()
        ranker = ranked.train(given, known, targets)
        rows[f"ranker: {name}"] = evaluation.evaluate(ranked.recommend(ranker), valid), time.perf_counter() - begun
    print("| | all: HR@20 | MRR@20 | seen before: HR@20 | MRR@20 | discovery: HR@20 | MRR@20 | seconds |\n| --- " + "| ---: " * 7 + "|")
    for name, (found, seconds) in rows.items():
        figures = evaluation.figures(found, valid)
        cells = [f"{100 * figures[column][key]:.2f}" for column in ("all", "seen", "discovery") for key in ("hit_rate@20", "mrr@20")]
        print(f"| {name} | {' | '.join(cells)} | {'–' if np.isnan(seconds) else f'{seconds:.0f}'} |", flush=True)


if __name__ == "__main__":
    main()
