"""Print what the seventh notebook measured on a finished run: every variant, its paired gains and its costs.

python benchmarks/next_steps.py RUN
"""

from __future__ import annotations

import argparse

from shelfspace.files import run_files
from shelfspace.trials import gains


def main() -> None:
    """Read RUN/next_steps.json and print a table and the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    told = run_files.read_json(f"{parser.parse_args().run}/next_steps.json")
    passes = " and ".join(f"{count} passes of {name}" for name, count in told["passes"].items())
    recall = "" if told["recall"] is None else f"; recall of the approximate search {told['recall']:.1%}"
    print(f"{told['users']:,} users, {told['test']:,} test targets, {passes}{recall}\n")
    print("| " + " | ".join(["variant", *gains.MEASURES.values(), "train s", "ms/user", "ms/new product", "MB"]) + " |")
    print("|" + " --- |" + " ---: |" * (len(gains.MEASURES) + 4))
    for one in told["variants"].values():
        cells = [one["label"], *(gains.told(one.get(measure), one["base"]) for measure in gains.MEASURES)]
        for cost, digits in (("train_s", 1), ("user_ms", 3), ("product_ms", 2), ("megabytes", 2)):
            cells.append("–" if one[cost] is None else f"{one[cost]:.{digits}f}")
        print("| " + " | ".join(cells) + " |")
    print()
    for name, kinds in told["recovered"].items():
        shown = "; ".join(f"{kind} {gains.told(one, told['variants'][name]['base'])}" for kind, one in kinds.items())
        print(f"- Recovered by {told['variants'][name]['label']}: {shown}." if shown else "", end="\n" if shown else "")
    for sentence in [*told["verdicts"].values(), *told["left_out"].values()]:
        print(f"- {sentence}")


if __name__ == "__main__":
    main()
