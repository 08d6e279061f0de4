"""How long it takes to evaluate many users against many products, beside a bare product of the two matrices.

    python benchmarks/evaluation_speed.py [--users 200000] [--products 30000] [--dim 50] [--repeats 3]

The bare product multiplies blocks of users with all products in float32, into memory that is reused, and keeps nothing:
no evaluation by scores can be faster on one way of using the cores. It is timed with BLAS on two threads (the bar) and
with two threads that multiply blocks of their own, which `evaluation.evaluate` does. Each line is the fastest of the
repeats, taken in turns so that all meet the same load.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from shelfspace.measure import evaluation, ranking
from shelfspace.models import baselines
from shelfspace.sequences.arrays import Examples

VISITS = 10  # per history


def inputs(n_users: int, n_products: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Examples]:
    """Random user vectors, product vectors and histories with a target each."""
    rng = np.random.default_rng(seed)
    users = rng.standard_normal((n_users, dim), dtype=np.float32)
    products = rng.standard_normal((n_products, dim), dtype=np.float32)
    items = rng.integers(n_products, size=n_users * VISITS, dtype=np.int32)
    start = np.arange(n_users) * VISITS
    examples = Examples(
        items, np.tile(np.arange(VISITS, dtype=float), n_users), np.zeros(len(items), np.int8), start, start + VISITS,
        rng.integers(n_products, size=n_users, dtype=np.int32), np.zeros(n_users, np.int8), np.full(n_users, "u"),
    )  # fmt: skip
    return users, products, examples


def product_on_blas_threads(users: np.ndarray, products: np.ndarray, block: int) -> None:
    """All scores, a block of users at a time, BLAS on as many threads as it was given."""
    scores = np.empty((block, len(products)), dtype=np.float32)
    for first in range(0, len(users), block):
        part = users[first : first + block]
        np.matmul(part, products.T, out=scores[: len(part)])


def product_on_own_threads(users: np.ndarray, products: np.ndarray, block: int, threads: int = 2) -> None:
    """All scores, each thread a block of users of its own, BLAS on one thread."""

    def work(thread: int) -> None:
        scores = np.empty((block, len(products)), dtype=np.float32)
        for first in range(thread * block, len(users), threads * block):
            part = users[first : first + block]
            np.matmul(part, products.T, out=scores[: len(part)])

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))


def peak_megabytes() -> float:
    """The most memory this process has ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("users", 200_000), ("products", 30_000), ("dim", 50), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    users, products, examples = inputs(given.users, given.products, given.dim)
    every = np.ones(given.products, dtype=bool)
    columns = np.ascontiguousarray(products.T)
    by_vectors = lambda part: users[part.start // VISITS] @ columns  # noqa: E731
    by_history = baselines.nearest_to_user(products, every, decay=0.1)
    tasks: dict[str, Callable[[], object]] = {
        "evaluate(user vectors · product vectors)": lambda: evaluation.evaluate(by_vectors, examples, threads=2),
        "evaluate(nearest_to_user)": lambda: evaluation.evaluate(by_history, examples, threads=2),
        "bare product, BLAS on 2 threads, blocks of 256": lambda: product_on_blas_threads(users, products, 256),
        "bare product, BLAS on 2 threads, blocks of 1024": lambda: product_on_blas_threads(users, products, 1024),
        "bare product, 2 threads of their own, blocks of 64": lambda: product_on_own_threads(users, products, 64),
    }
    ranking.top_k(users[:9], 20)  # compiles
    before, above = peak_megabytes(), {}
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    with threadpool_limits(2, "blas"):
        for _ in range(given.repeats):
            for name, task in tasks.items():
                started = time.perf_counter()
                task()
                seconds[name].append(time.perf_counter() - started)
                above.setdefault(name, peak_megabytes() - before)  # grows only: the first lines are the evaluations
    bare = min(min(times) for name, times in seconds.items() if name.startswith("bare product, BLAS"))
    print(f"{given.users:,} users × {given.products:,} products, d = {given.dim}\n")
    print("| | seconds | × bare product on BLAS threads | MB above the inputs |\n| --- | ---: | ---: | ---: |")
    for name, times in seconds.items():
        memory = f"{above[name]:.0f}" if name.startswith("evaluate") else "–"
        print(f"| {name} | {min(times):.1f} | {min(times) / bare:.2f} | {memory} |")


if __name__ == "__main__":
    main()
