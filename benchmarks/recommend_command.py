"""What `shelfspace recommend` takes for all customers of a log: seconds, processor seconds and peak memory, start and reading included.

    shelfspace simulate --users 200000 --products 30000 --out today.parquet
    python benchmarks/recommend_command.py RUN today.parquet [--turns 3]

Each turn is a process of its own. Prints a table for benchmarks/README.md, of the medians.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq


def turn(run: Path, data: str, out: Path) -> tuple[float, float, float]:
    """Seconds, processor seconds and gigabytes at most of one call."""
    begun = time.perf_counter()
    code = "from shelfspace import cli; cli.main()"
    called = subprocess.Popen([sys.executable, "-c", code, "recommend", str(run), "--data", data, "--out", str(out)])
    _, status, used = os.wait4(called.pid, 0)
    if status:
        raise SystemExit("The command failed; see above.")
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20


def main() -> None:
    """Time it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("data", help="a log, as shelfspace recommend takes it")
    parser.add_argument("--turns", type=int, default=1)
    given = parser.parse_args()
    products = len(pd.read_parquet(given.run / "products.parquet", columns=["product_id"]))
    with tempfile.TemporaryDirectory(prefix="shelfspace-") as folder:
        out = Path(folder) / "recommendations.parquet"
        measured = [turn(given.run, given.data, out) for _ in range(given.turns)]
        customers = pc.count_distinct(pq.read_table(out, columns=["user_id"])["user_id"]).as_py()
    seconds, processor, memory = np.median(measured, axis=0)
    print("| customers | products | seconds | processor seconds | ms of a core for each | peak memory |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    print(f"| {customers:,} | {products:,} | {seconds:.0f} | {processor:.0f} | {1e3 * processor / customers:.2f} | {memory:.1f} GB |")


if __name__ == "__main__":
    main()
