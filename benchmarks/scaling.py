"""Seconds and peak memory of every stage on simulated logs of several sizes, and how they grow.

    python benchmarks/scaling.py --events 1 5                    the whole report
    python benchmarks/scaling.py --events 20 50 --relational     simulate, prepare, embeddings in one pass, user embeddings

Sizes are millions of events; a log of n million has 40,000 n users with 25 events each, and up to 30,000 products. Each
stage is a process of its own with a kernel below it. Memory is what the whole tree of processes holds, sampled four times
a second, or less often where that would take more than a fiftieth of a core: resident pages, of which those that several
processes share count once in all where the system tells them apart, for which it goes through all of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
VISITS = 16.8  # median per user, which makes 25 events
SHELFSPACE = (sys.executable, "-c", "from shelfspace.cli import main; main()")
PAPERMILL = (sys.executable, "-m", "papermill", "--no-progress-bar", "--log-level", "WARNING", "--cwd", str(ROOT))
QUICK = {"02_train_embeddings": {"w2v_epochs": 1, "ss_epochs": 1, "feature_epochs": 0, "w2v_negatives": 5}}


class Peak:
    """The most memory that a process and those below it hold together, in bytes; `take` starts afresh."""

    def __init__(self, pid: int):
        self.root, self.most, self.stopped = psutil.Process(pid), 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        pause = 0.25
        while not self.stopped.wait(pause):
            held, began = 0, time.thread_time()
            try:
                for process in (self.root, *self.root.children(recursive=True)):
                    try:
                        memory = process.memory_full_info()
                        held += getattr(memory, "pss", memory.rss)
                    except (psutil.NoSuchProcess, psutil.AccessDenied):
                        continue
            except psutil.NoSuchProcess:
                return
            self.most = max(self.most, held)
            pause = max(0.25, 50 * (time.thread_time() - began))

    def take(self) -> int:
        most, self.most = self.most, 0
        return most


def run(name: str, command: tuple[str, ...], say: Callable[..., None] = print) -> list[tuple[str, float, float]]:
    """Run a command; (stage, seconds, GB) of all of it, or of each stage where its output names them."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    started, rows, stage = time.perf_counter(), [], ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, bufsize=1) as process:
        peak = Peak(process.pid)
        while character := process.stdout.read(1):
            stage += character
            if character == "\n":
                words = stage.split()
                if len(words) == 3 and words[2] == "s":  # "01_prepare   12.3 s"
                    rows.append((words[0], float(words[1]), peak.take() / 1e9))
                    say(*rows[-1])
                stage = ""
        most = peak.take() / 1e9
    peak.stopped.set()
    if process.returncode:
        raise SystemExit(f"{name} failed with exit code {process.returncode}.")
    if not rows:
        rows.append((name, time.perf_counter() - started, most))
        say(*rows[-1])
    return rows


def measure(millions: float, folder: Path, relational: bool) -> list[tuple[str, float, float]]:
    """Every stage on a log of so many million events."""
    log, out = folder / f"events-{millions:g}m.parquet", folder / f"run-{millions:g}m"
    users, products = round(40_000 * millions), min(30_000, round(6_000 * millions))
    rows = run(
        "simulate",
        (*SHELFSPACE, "simulate", "--users", str(users), "--products", str(products), "--visits", str(VISITS), "--out", str(log)),
    )
    if not relational:
        return rows + run("report", (*SHELFSPACE, "report", "--data", str(log), "--out", str(out)))
    out.mkdir(parents=True, exist_ok=True)
    for notebook in ("01_prepare", "02_train_embeddings", "04_user_embeddings"):
        given = {"run_dir": out} | ({"data": log} if notebook == "01_prepare" else {}) | QUICK.get(notebook, {})
        pairs = [word for key, value in given.items() for word in ("-p", key, str(value))]
        rows += run(notebook, (*PAPERMILL, str(ROOT / "notebooks" / f"{notebook}.ipynb"), str(out / f"{notebook}.ipynb"), *pairs))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=float, nargs="+", default=[1, 5], help="sizes in millions of events")
    parser.add_argument("--relational", action="store_true", help="only what is needed for user embeddings")
    parser.add_argument("--folder", type=Path, default=Path("scaling"), help="for the logs and the runs, several GB")
    given = parser.parse_args()
    found = {millions: measure(millions, given.folder.absolute(), given.relational) for millions in given.events}
    print("| stage | " + " | ".join(f"{millions:g} M: s | GB" for millions in found) + " |")
    print("| --- |" + " ---: | ---: |" * len(found))
    for stage in [name for name, _, _ in found[given.events[0]]]:
        cells = [next((s, gb) for name, s, gb in rows if name == stage) for rows in found.values()]
        print(f"| {stage} | " + " | ".join(f"{s:.0f} | {gb:.2f}" for s, gb in cells) + " |")
    print("| all | " + " | ".join(f"{sum(r[1] for r in rows):.0f} | {max(r[2] for r in rows):.2f}" for rows in found.values()) + " |")


if __name__ == "__main__":
    main()
