"""Measure StarSpace: our trainer alone, or side by side with the original C++ program.

    python benchmarks/starspace_speed.py                        ours: speed, memory, losses, quality
    python benchmarks/starspace_speed.py --original starspace   both, one right after the other
    python benchmarks/starspace_speed.py --scaling              ours on more and more clicks and products

The clicks are simulated: users have a taste for three of the groups of products, and a session looks about near one
place of a group. Each run is a process of its own, and the peak memory is that of the whole process. Speed is that of
the training passes (reading the data and compiling are left out on both sides), the median of runs in which the two
programs take turns. On a machine with other work to do, look at the processor seconds, of all threads together: on
two idle cores the original, whose three threads keep both busy, takes half of its seconds, and ours, one thread, all.
Quality is that of the mean of a user's history → nearest product by cosine, on the users' last products, which
training does not see.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from shelfspace.sequences.arrays import Corpus
from shelfspace.vectors import starspace
from shelfspace.vectors.embeddings import normalise

SETTINGS = {
    "hinge, cosine, margin 0.05": {"learning_rate": 0.01, "margin": 0.05},
    "hinge, cosine, margin 0.2": {"learning_rate": 0.05, "margin": 0.2},
    "softmax, dot": {"learning_rate": 0.05, "loss": "softmax", "similarity": "dot"},
}
JUDGES = 30_000  # users on whom quality is measured


def clicks(sessions: int, products: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Products of all clicks, offsets of the sessions, and the user of each session (sorted)."""
    rng = np.random.default_rng(seed)
    groups, size = products // 100, 100
    lengths = 1 + rng.negative_binomial(5, 5 / 9.16, sessions)
    offsets = np.append(0, np.cumsum(lengths))
    user = np.sort(rng.integers(max(1, sessions // 5), size=sessions))
    by_group = np.cumsum((np.arange(groups) + 3.0) ** -0.7)
    taste = np.searchsorted(by_group, rng.random((user[-1] + 1, 3)) * by_group[-1])
    group = np.repeat(taste[user, rng.choice(3, sessions, p=[0.6, 0.3, 0.1])], lengths)
    stray = rng.random(offsets[-1]) < 0.1
    group[stray] = np.searchsorted(by_group, rng.random(stray.sum()) * by_group[-1])
    focus = np.repeat(rng.integers(size, size=sessions), lengths)
    near = (focus + np.rint(rng.normal(0, 5, offsets[-1])).astype(int)) % size
    by_place = np.cumsum((np.arange(size) + 2.0) ** -0.9)
    popular = np.searchsorted(by_place, rng.random(offsets[-1]) * by_place[-1])
    place = np.where(rng.random(offsets[-1]) < 0.7, near, popular)
    return (group * size + place).astype(np.int32), offsets, user


def hide_targets(items, offsets, user):
    """Take the last click of each user out of the training sessions; return the rest, its offsets and the targets."""
    last = offsets[1:][np.append(np.diff(user) > 0, True)] - 1
    keep = np.ones(len(items), dtype=bool)
    keep[last] = False
    return items[keep], np.append(0, np.cumsum(np.add.reduceat(keep, offsets[:-1]))), items[last]


def quality(vectors: np.ndarray, items, offsets, user, targets) -> tuple[float, float]:
    """HR@20 and MRR@20 of the mean of each judge's history → nearest by cosine, all products being candidates."""
    per_user = np.append(0, np.cumsum(np.bincount(user)[np.unique(user)]))  # sessions of each user, as offsets
    bounds = offsets[per_user]
    judges = np.flatnonzero(np.diff(bounds) > 0)[:JUDGES]
    unit, ranks = normalise(vectors), []
    for block in np.array_split(judges, max(1, len(judges) // 500)):
        history = np.stack([vectors[items[bounds[j] : bounds[j + 1]]].mean(axis=0) for j in block])
        scores = history @ unit.T
        ranks.append((scores > scores[np.arange(len(block)), targets[block]][:, None]).sum(axis=1) + 1)
    ranks = np.concatenate(ranks)
    return float((ranks <= 20).mean()), float(np.where(ranks <= 20, 1 / ranks, 0).mean())


def run_ours(folder: Path, products: int, seed: int, epochs: int, settings: dict) -> dict:
    """Train in a process of its own (this script again)."""
    given = json.dumps({"folder": str(folder), "products": products, "seed": seed, "epochs": epochs} | settings)
    done = subprocess.run([sys.executable, __file__, "--child", given], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def cpu(process: int) -> float:
    """Processor seconds that a running process has used so far, all its threads together."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak(process: int) -> float:
    """Megabytes that a running process has used at most (a child's ru_maxrss would begin at its parent's)."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())[1]) / 1024


def child(given: dict) -> None:
    """Train once, save the vectors, print the seconds, the losses and the peak memory."""
    folder, products = Path(given.pop("folder")), given.pop("products")
    ids = np.array([f"{i:07d}" for i in range(products)])
    items, offsets = np.load(folder / "items.npy"), np.load(folder / "offsets.npy")
    corpus = Corpus(ids, items, offsets)
    warm = Corpus(ids, np.zeros(4, np.int32), np.array([0, 2, 4]))
    starspace.train(warm, epochs=1, progress=False)  # load the compiled code
    started, used = time.perf_counter(), time.process_time()
    made = starspace.train(corpus, progress=False, **given)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    np.save(folder / "ours.npy", made.vectors)
    print(json.dumps({"seconds": seconds, "cpu": used, "losses": made.losses, "peak": peak(os.getpid())}))


def run_original(program: str, folder: Path, epochs: int, settings: dict) -> dict:
    """Train with the original, two workers (its third thread keeps the norms), and read what it printed."""
    options = {
        "trainFile": folder / "train.txt", "model": folder / "original", "trainMode": 1, "dim": 50, "epoch": epochs,
        "thread": 3, "lr": settings["learning_rate"], "loss": settings.get("loss", "hinge"),
        "similarity": settings.get("similarity", "cosine"), "margin": settings.get("margin", 0.05),
    }  # fmt: skip
    command = [program, "train", *(str(part) for name, value in options.items() for part in ("-" + name, value))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    started = ended = megabytes = used = total = 0.0
    losses = []
    for line in process.stdout:
        if line.startswith(b"Training epoch 0"):
            started, used = time.perf_counter(), cpu(process.pid)
        if found := re.search(rb"Train error : ([\d.]+)", line):
            ended = time.perf_counter()
            losses.append(float(found[1]) / 5)  # it adds up the five examples of a batch
            megabytes, total = peak(process.pid), cpu(process.pid)
    if process.wait():
        raise RuntimeError(f"The original ended with status {process.returncode}: {' '.join(command)}")
    return {"seconds": ended - started, "cpu": total - used, "losses": losses, "peak": megabytes}


def read_original(folder: Path, products: int) -> np.ndarray:
    """The vectors that the original wrote; zero for products without a click."""
    vectors = np.zeros((products, 50), np.float32)
    for line in (folder / "original.tsv").open():
        name, *numbers = line.split()
        vectors[int(name.removeprefix("__label__"))] = np.array(numbers, np.float32)
    return vectors


def write(folder: Path, items, offsets) -> None:
    """The training sessions for both programs."""
    np.save(folder / "items.npy", items)
    np.save(folder / "offsets.npy", offsets)
    names = np.array([f"__label__{i}" for i in range(items.max() + 1)], dtype=object)[items].tolist()
    with (folder / "train.txt").open("w") as file:
        for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist()):
            if end - begin > 1:
                file.write(" ".join(names[begin:end]) + "\n")


def compare(original: str, sessions: int, products: int, epochs: int, seeds: int) -> None:
    """Print speed, memory, losses and quality, a row for each setting and program."""
    found: dict[tuple[str, str], list[dict]] = {}
    for seed in range(seeds):
        items, offsets, user = clicks(sessions, products, seed)
        items, offsets, targets = hide_targets(items, offsets, user)
        examples = int((np.diff(offsets) > 1).sum()) * epochs
        print(f"seed {seed}: {len(items):,} clicks, {examples // epochs:,} examples per epoch", file=sys.stderr)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder, items, offsets)
            for setting, options in SETTINGS.items():
                for program in ("original", "ours") if original else ("ours",):
                    if program == "ours":
                        result = run_ours(folder, products, seed, epochs, options)
                        vectors = np.load(folder / "ours.npy")
                    else:
                        result = run_original(original, folder, epochs, options)
                        vectors = read_original(folder, products)
                    result["hr"], result["mrr"] = quality(vectors, items, offsets, user, targets)
                    result["speed"] = examples / result["seconds"]
                    found.setdefault((setting, program), []).append(result)
                    print(setting, program, result, file=sys.stderr)
    print("| setting | program | examples/s | × | CPU s per epoch | × | peak MB | last loss | HR@20 | MRR@20 |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for (setting, program), runs in found.items():
        speed = np.median([run["speed"] for run in runs])
        used = np.median([run["cpu"] for run in runs]) / epochs
        against = found.get((setting, "original"), runs)
        times = speed / np.median([run["speed"] for run in against])
        cheaper = np.median([run["cpu"] for run in against]) / epochs / used
        loss, hr, mrr = (np.mean(column) for column in zip(*((r["losses"][-1], r["hr"], r["mrr"]) for r in runs)))
        megabytes = max(run["peak"] for run in runs)
        print(
            f"| {setting} | {program} | {speed:,.0f} | {times:.1f} | {used:.2f} | {cheaper:.1f} | {megabytes:.0f} "
            f"| {loss:.5f} | {hr:.4f} | {mrr:.4f} |"
        )


def scaling(epochs: int) -> None:
    """Print processor seconds per epoch and peak memory against clicks, products and negatives."""
    print("| clicks | products | negatives | CPU s per epoch | µs per click | peak MB |")
    print("|---:|---:|---:|---:|---:|---:|")
    grown = [(100_000, 30_000, 50), (200_000, 30_000, 50), (400_000, 30_000, 50), (1_000_000, 30_000, 50)]
    grown += [(2_000_000, 30_000, 50), (400_000, 30_000, 200), (400_000, 100_000, 50), (400_000, 300_000, 50)]
    for sessions, products, negatives in grown:
        items, offsets, _ = clicks(sessions, products)
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "items.npy", items)
            np.save(Path(folder) / "offsets.npy", offsets)
            options = SETTINGS["hinge, cosine, margin 0.05"] | {"negatives": negatives}
            run = run_ours(Path(folder), products, 0, epochs, options)
        seconds = run["cpu"] / epochs
        print(
            f"| {len(items) / 1e6:.1f} M | {products:,} | {negatives} | {seconds:.2f} "
            f"| {1e6 * seconds / len(items):.2f} | {run['peak']:.0f} |",
            flush=True,
        )


def main() -> None:
    """Read the options; compare, or scale."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--original", default="", help="path of the original's `starspace` program")
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--products", type=int, default=30_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each setting, each on clicks of its own")
    parser.add_argument("--scaling", action="store_true", help="ours on more and more clicks and products")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(json.loads(given.child))
    elif given.scaling:
        scaling(given.epochs)
    else:
        compare(given.original, given.sessions, given.products, given.epochs, given.seeds)


if __name__ == "__main__":
    main()
