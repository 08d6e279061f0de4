"""Every model on several logs, both protocols and several seeds, in the columns all, seen before and discovery.

    python benchmarks/logs.py shop data/retailrocket.parquet 'data/retail/*.parquet' --out reports/logs

Runs notebooks 01 to 06 for each log, protocol and seed, into a folder of its own under --out, and prints a table for each log and
protocol: HR@20 / MRR@20 in %, the mean over seeds and, in brackets, the smallest and largest. What is up to date is not run again,
so the script can be stopped and started. A star marks the model that the valid users chose at most seeds. A second table holds
the model that leaves the pipeline against the best baseline of each column (paired, corrected, as in notebook 06), seed by seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np

from shelfspace.measure import intervals
from shelfspace.run import pipeline
from shelfspace.run.execution import StageError

COLUMNS = ("all", "seen", "discovery")


def figures(folder: Path) -> dict:
    """The run's ``metrics.json``."""
    return json.loads((folder / "metrics.json").read_text())


def cell(found: list[dict | None]) -> str:
    """One model in one column over the seeds."""
    known = [one for one in found if one]
    if not known:
        return "–"
    parts = []
    for metric in ("hit_rate@20", "mrr@20"):
        values = 100 * np.array([one[metric] for one in known])
        spread = f" ({values.min():.1f}–{values.max():.1f})" if len(values) > 1 else ""
        parts.append(f"{values.mean():.1f}{spread}")
    return " / ".join(parts)


def table(runs: list[dict]) -> str:
    """Rows of Markdown: a model each, by MRR@20."""
    chosen = Counter(run["best"]["model"] for run in runs).most_common(1)[0][0]
    sizes = {name: [run["columns"][name]["n"] for run in runs if run["columns"].get(name)] for name in COLUMNS}
    heads = [f"{name}, {min(n):,}" + (f"–{max(n):,}" if max(n) > min(n) else "") + " targets" for name, n in sizes.items() if n]
    lines = ["| model | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    names = sorted(runs[0]["models"], key=lambda name: -np.mean([run["models"][name]["mrr@20"] for run in runs]))
    for name in names:
        models = [run["models"][name] for run in runs]
        cells = [cell(models), *(cell([model.get(column) for model in models]) for column in COLUMNS[1:] if sizes[column])]
        lines.append(f"| {models[0]['label']}{' ★' if name == chosen else ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def against(runs: list[dict]) -> str:
    """Rows of Markdown: a column each; gains in points, and at how many seeds they are beyond chance."""
    lines = ["| column | best baseline | HR@20, points | MRR@20, points | ahead / level / behind |", "|---|---|---|---|---|"]
    for column in COLUMNS:
        found = [(run["best"]["model"], run["columns"][column], run["models"]) for run in runs if run["columns"].get(column)]
        if not found:
            continue
        pairs = [[of["paired"][model][metric] for model, of, _ in found] for metric in ("hit_rate@20", "mrr@20")]
        names = Counter(models[of["baseline"]]["label"] for _, of, models in found)
        signs = [np.sign(one["gain"]) * intervals.clear(one) for pair in pairs for one in pair]
        cells = [", ".join(f"{100 * one['gain']:+.1f}" for one in pair) for pair in pairs]
        verdicts = " / ".join(str(sum(sign == which for sign in signs)) for which in (1, 0, -1))
        lines.append(f"| {column} | {', '.join(names)} | {' | '.join(cells)} | {verdicts} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+", help="'shop', or files, folders and patterns as for shelfspace report --data")
    parser.add_argument("--out", type=Path, default=Path("reports/logs"))
    parser.add_argument("--protocols", default="last-product,time")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("-p", "--parameter", action="append", default=[], metavar="KEY=VALUE", help="for all runs")
    given = parser.parse_args()
    shared = dict(pair.split("=", 1) for pair in given.parameter)
    for log, protocol in itertools.product(given.logs, given.protocols.split(",")):
        runs = []
        for seed in given.seeds.split(","):
            name = "shop" if log == "shop" else f"{Path(log).parent.name}-{Path(log).stem.strip('*')}"
            folder = given.out / f"{name}-{protocol}-{seed}"
            try:
                for stage in range(1, 7):
                    pipeline.run(log, folder, given=shared | {"protocol": protocol, "seed": seed}, only=str(stage))
            except StageError as error:  # a log of sessions, none of which goes on after the cut of protocol time
                print(f"\n{log}, {protocol}: {error}\n", flush=True)
                break
            runs.append(figures(folder))
        if not runs:
            continue
        print(f"\n{log}, {protocol}, seeds {given.seeds}\n\n{table(runs)}\n\n{against(runs)}\n", flush=True)


if __name__ == "__main__":
    main()
