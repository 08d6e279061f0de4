"""The service under load, from this machine: answers a second, how long they take, errors, memory, a swap of runs, kill -9.

    python benchmarks/service_load.py RUN [--seconds 60] [--connections 8]

The load shares the machine with the service, so that the figures are of both. Prints a table for benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

PORT = 8177
URL = f"http://127.0.0.1:{PORT}"


def start(link: Path) -> tuple[subprocess.Popen, float]:
    """Start the service; the process, and seconds to its first recommendation."""
    begun = time.perf_counter()
    code = f"from shelfspace.use.service import serve; serve({str(link)!r}, port={PORT})"
    service = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            httpx.post(f"{URL}/recommend", json={"history": ["?"]}, timeout=10).raise_for_status()
            return service, time.perf_counter() - begun
        except httpx.TransportError:
            if service.poll() is not None:
                raise SystemExit("The service does not start; try: shelfspace serve RUN") from None
            time.sleep(0.05)


def memory() -> float:
    """Megabytes that the service holds."""
    said = httpx.get(f"{URL}/metrics", timeout=10).text
    return float(re.search(r"^process_resident_memory_bytes (\S+)", said, re.M)[1]) / 1e6


def histories(run: Path, n: int = 5000, seed: int = 0) -> list[list[str]]:
    """The last ten visits of some of the run's customers."""
    rows = pd.read_parquet(run / "sequences.parquet", columns=["user_id", "product_id"])
    found = rows.groupby("user_id").product_id.agg(lambda products: products.tolist()[-10:]).tolist()
    return [found[place] for place in np.random.default_rng(seed).permutation(len(found))[:n]]


async def load(asked: list[list[str]], seconds: float, connections: int) -> tuple[np.ndarray, int]:
    """Ask on so many connections at once, each again as soon as it is answered: seconds of each answer, and errors."""
    taken: list[float] = []
    errors, end = 0, time.perf_counter() + seconds

    async def ask(client: httpx.AsyncClient, place: int) -> None:
        nonlocal errors
        while time.perf_counter() < end:
            place += connections
            begun = time.perf_counter()
            try:
                answer = await client.post(f"{URL}/recommend", json={"history": asked[place % len(asked)]})
                errors += answer.status_code != 200 or len(answer.json()["products"]) != 20
            except httpx.HTTPError:
                errors += 1
            taken.append(time.perf_counter() - begun)

    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=connections)) as client:
        await asyncio.gather(*(ask(client, place) for place in range(connections)))
    return np.array(taken), errors


def answering() -> str:
    return httpx.get(f"{URL}/health", timeout=30).json()["run"]


async def swapped(link: Path, newer: Path, asked: list[list[str]], connections: int) -> tuple[int, int, float]:
    """Turn the link while it is asked; requests, errors, and seconds until the newer run answers."""
    under_load = asyncio.create_task(load(asked, 30, connections))
    await asyncio.sleep(2)
    (link.parent / "next").symlink_to(newer)
    os.replace(link.parent / "next", link)
    begun = time.perf_counter()
    while await asyncio.to_thread(answering) != newer.name and time.perf_counter() - begun < 300:
        await asyncio.sleep(0.1)
    seconds = time.perf_counter() - begun
    taken, errors = await under_load
    return len(taken), errors, seconds


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("run", type=Path)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--connections", type=int, default=8)
    given = options.parse_args()
    asked = histories(given.run)
    products = len(pd.read_parquet(given.run / "products.parquet", columns=["product_id"]))
    with tempfile.TemporaryDirectory(prefix="shelfspace-") as folder:
        for name in ("monday", "tuesday"):
            shutil.copytree(given.run.resolve(), Path(folder) / name, ignore=shutil.ignore_patterns("notebooks", "shop"))
        link = Path(folder) / "current"
        link.symlink_to("monday")
        service, first = start(link)
        try:
            asyncio.run(load(asked, 5, given.connections))  # warms up
            before = memory()
            taken, errors = asyncio.run(load(asked, given.seconds, given.connections))
            after = memory()
            requests, lost, turn = asyncio.run(swapped(link, Path(folder) / "tuesday", asked, given.connections))
            service.send_signal(signal.SIGKILL)
            service.wait()
            service, again = start(link)
        finally:
            service.kill()
            service.wait()
    p50, p99 = 1000 * np.quantile(taken, [0.5, 0.99])
    rows = {
        "products": f"{products:,}",
        f"answers a second, {given.connections} connections, {given.seconds:g} s": f"{len(taken) / given.seconds:,.0f}",
        "milliseconds of an answer, p50 and p99": f"{p50:.0f}, {p99:.0f}",
        "errors": f"{errors} of {len(taken):,}",
        "megabytes before and after": f"{before:,.0f}, {after:,.0f}",
        "a swap under load: requests lost, seconds until the newer run answers": f"{lost} of {requests:,}, {turn:.1f}",
        "seconds from start to the first answer; from kill -9": f"{first:.1f}; {again:.1f}",
    }
    print("| | |\n|---|---:|")
    print("\n".join(f"| {name} | {value} |" for name, value in rows.items()))


if __name__ == "__main__":
    main()
