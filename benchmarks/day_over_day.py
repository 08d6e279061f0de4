"""Ten days through the DAG, each from the vectors of the day before, and the same days trained apart; then days that are spoiled.

    python benchmarks/day_over_day.py [--days 10] [--window 14] [--users 1500] [--products 300] [--out FOLDER]
    python benchmarks/day_over_day.py --gentle 0.05,0.1,0.2,0.4 --seed 1    # the trainers alone, with steps of several sizes
    python benchmarks/day_over_day.py --alarms 10 --seed 10                 # the look at the log alone, on good days of ten shops

A simulated shop delivers a file a day. Each day `airflow dags test` runs the DAG on the days so far, with a window that moves along. Prints
what of the neighbours and the user vectors stays from one day to the next; MRR@20 on each day's test customers, with a paired test over
customers of all days together; and for each way to spoil the next day's file which task stopped it, why, and what stayed in use. A day
that is finished in FOLDER is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from shelfspace.files import places, run_files
from shelfspace.logs import engines, events
from shelfspace.measure import evaluation, intervals, ranking
from shelfspace.models import baselines
from shelfspace.sequences import arrays, prepare
from shelfspace.shop import write
from shelfspace.use import drift
from shelfspace.vectors import embeddings, skipgram, starspace

EDGE = 4  # days at either end of the simulated log that are left out: customers come and go within it
ARMS = {"apart": False, "started": True}  # whether a day starts from the day before
AHEAD = r"train\.(word2vec|starspace)|recommend\.(dense|tied)"
"""Tasks that make a part of a notebook ahead, on a machine of their own; left out, as the notebook makes on this one what it does not find."""
MODELS = {
    "word2vec_user": "word2vec, nearest to the customer",
    "starspace_user": "StarSpace, nearest to the customer",
    "": "what leaves the run",
}
BRIEF = {
    "epochs": 2, "hidden": "16", "prefixes": 5, "tied_epochs": 1, "examples": 2000, "rank_examples": 300, "rank_top": 10, "explained": 0,
    "sweep_users": 60, "sg_visits": 5000, "ss_examples": 3000, "feature_epochs": 0, "compare_users": 200,
}  # of chapters that are not what is asked here, so that a day takes a minute or two  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("days", 10), ("window", 14), ("users", 1500), ("products", 300), ("seed", 0)):
        options.add_argument(f"--{name}", type=int, default=default)
    options.add_argument("--out", type=Path, help="Folder to keep; a temporary one by default.")
    options.add_argument("--gentle", help="Compare these values of embeddings.GENTLE instead, with commas between.")
    options.add_argument("--alarms", type=int, help="Count the good days of so many shops that the look at the log stops instead.")
    given = options.parse_args()
    if given.gentle:
        return print_gentle(given, [float(value) for value in given.gentle.split(",")])
    if given.alarms:
        return print_alarms(given)
    with tempfile.TemporaryDirectory(prefix="shelfspace-") as temporary:
        folder = (given.out or Path(temporary)).absolute()
        delivered = deliveries(folder, given)
        dates = [f"{day:%Y-%m-%d}" for day in list(delivered)[given.window :]]  # a run has the name of the day after its last
        stopped: dict[str, dict[str, tuple[str, str]]] = {arm: {} for arm in ARMS}
        for date in dates[:-1]:
            for arm, start in ARMS.items():
                if task := day(folder / arm, delivered, date, given.window, start):
                    stopped[arm][date] = task
        for arm, found in stopped.items():
            print(f"{arm}: {len(found)} of {len(dates) - 1} good days were stopped.")
            print("".join(f"- {date}: {task}: {why}\n" for date, (task, why) in found.items()))
        runs = {arm: [folder / arm / "runs" / date for date in dates[:-1] if date not in stopped[arm]] for arm in ARMS}
        print_kept(runs)
        print_ranks(runs)
        print_spoiled(folder / "started", delivered, dates[-1], given.window)


def deliveries(folder: Path, given: argparse.Namespace) -> dict[pd.Timestamp, pd.DataFrame]:
    """The rows of each day, of one more than are run, and the day after."""
    folder.mkdir(parents=True, exist_ok=True)
    days = given.window + given.days + 1
    write.simulate(folder / "shop.parquet", given.users, given.products, days + 2 * EDGE, given.seed)
    rows = pd.read_parquet(folder / "shop.parquet")
    rows["session_id"] = rows.session_id.astype(str)
    of_day = rows.groupby(rows.timestamp.dt.normalize())
    return {day: part for day, part in list(of_day)[EDGE : EDGE + days]}


def day(arm: Path, delivered: dict, date: str, window: int, start: bool) -> tuple[str, str] | None:
    """Run the DAG for a date, on the files of the days before it, unless it was run; gives the task that stopped it, and why."""
    log = arm / "log"
    log.mkdir(parents=True, exist_ok=True)
    for day, rows in delivered.items():
        file = log / f"{day:%Y-%m-%d}.csv"
        if day < pd.Timestamp(date) and not file.exists():
            rows.to_csv(file, index=False)
    return None if (arm / "runs" / date / "report.html").exists() else run(arm, date, window, start)


def run(arm: Path, date: str, window: int, start: bool = True) -> tuple[str, str] | None:
    """A day of the DAG; gives the task that failed and what it said, if one did."""
    home, said = arm / "airflow", arm / f"{date}.said"
    own = {
        "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__DAGS_FOLDER": str(places.ROOT / "dags"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "SHELFSPACE_OUT": str(arm), "SHELFSPACE_DATA": str(arm),
    }  # fmt: skip
    conf = BRIEF | {"data": str(arm / "log" / "*.csv"), "out": str(arm / "runs"), "window_days": window, "from_day_before": start}
    airflow = str(Path(sys.executable).parent / "airflow")
    if not (home / "airflow.db").exists():
        subprocess.run([airflow, "db", "migrate"], env=os.environ | own, check=True, capture_output=True)
    with open(said, "w") as file:
        words = [airflow, "dags", "test", "product_embeddings", date, "--mark-success-pattern", AHEAD, "--conf", json.dumps(conf)]
        subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, env=os.environ | own)
    with sqlite3.connect(home / "airflow.db") as database:
        last = "(SELECT run_id FROM dag_run ORDER BY id DESC LIMIT 1)"
        failed = [task for (task,) in database.execute(f"SELECT task_id FROM task_instance WHERE state = 'failed' AND run_id = {last}")]
    why = re.findall(r"^(?:airflow\S*)?\w*(?:Exception|Error): (.*)$", said.read_text(), re.M)
    if not failed and not (arm / "runs" / date / "report.html").exists():
        raise RuntimeError(f"Neither did a task fail nor is there a report; see {said}.")
    return (", ".join(failed), why[-1] if why else f"see {said}") if failed else None


def print_kept(runs: dict[str, list[Path]]) -> None:
    """Neighbours and user vectors that are kept from each day to the next."""
    rows = []
    for arm, folders in runs.items():
        for before, today in zip(folders, folders[1:]):
            found = drift.drift(today, before)
            kept = found["neighbours_kept"] | {"user vectors": found["user_vectors_kept"]}
            rows += [{"day": today.name, "what": what, "arm": arm, "kept": value} for what, value in kept.items()]
    kept = pd.DataFrame(rows).pivot(index="day", columns=["what", "arm"], values="kept").astype(float)
    columns = [(what, arm) for what in ("word2vec", "starspace", "user vectors") for arm in ARMS]
    print("| day | " + " | ".join(f"{what}, {arm}" for what, arm in columns) + " |\n|---|" + "---:|" * len(columns))
    mean = kept.mean()
    for name, row in [*kept.iterrows(), ("all kept", mean), ("all that change", 1 - mean)]:
        values = [
            f"{row[c]:.2f}" if c[0] == "user vectors" and name != "all that change" else f"{row[c]:.1%}" if c[0] != "user vectors" else ""
            for c in columns
        ]
        print(f"| {name} | " + " | ".join("–" if value == "nan" else value for value in values) + " |")
    print(f"\nBy chance, {found['by_chance']:.1%} of the neighbours are kept.\n")


def print_ranks(runs: dict[str, list[Path]]) -> None:
    """MRR@20 of each day and arm, and a paired test over the customers of all days."""
    both = [date for date in (folder.name for folder in runs["apart"]) if date in {folder.name for folder in runs["started"]}]
    ranks = {arm: [places_of(folder).assign(day=folder.name) for folder in folders if folder.name in both] for arm, folders in runs.items()}
    apart, started = (pd.concat(ranks[arm], ignore_index=True) for arm in ("apart", "started"))
    if not apart[["day", "user_id", "product_id"]].equals(started[["day", "user_id", "product_id"]]):
        raise RuntimeError("The two arms were not asked the same.")
    print("| day | customers | " + " | ".join(f"{label}, {arm}" for label in MODELS.values() for arm in ARMS) + " |")
    print("|---|---:|" + "---:|" * (2 * len(MODELS)))
    for day in both:
        means = [ranking.reciprocal_rank(of[name][of.day == day].to_numpy(), 20).mean() for name in MODELS for of in (apart, started)]
        print(f"| {day} | {(apart.day == day).sum()} | " + " | ".join(f"{mean:.1%}" for mean in means) + " |")
    owners = apart.user_id.to_numpy()
    tests = {
        name: evaluation.difference(started[name].to_numpy(), apart[name].to_numpy(), owners, comparisons=len(MODELS)) for name in MODELS
    }
    intervals.correct(list(tests.values()))
    print("\n| all days | MRR@20, apart | started | gain, in points | 95 % interval | p (Holm) |\n|---|---:|---:|---:|---|---:|")
    for name, test in tests.items():
        low, high = test["ci95"]
        means = (ranking.reciprocal_rank(of[name].to_numpy(), 20).mean() for of in (apart, started))
        figures = " | ".join(f"{mean:.1%}" for mean in means)
        print(f"| {MODELS[name]} | {figures} | {100 * test['gain']:+.2f} | {100 * low:+.2f} to {100 * high:+.2f} | {test['p_holm']:.2g} |")
    print(f"\n{len(apart):,} targets of {len(np.unique(owners)):,} customers; the intervals hold together.\n")


def places_of(folder: Path) -> pd.DataFrame:
    """The place of each test target by each of `MODELS`."""
    found = pd.read_parquet(folder / "test_ranks.parquet")
    return found.assign(**{"": found[run_files.read_json(folder / "recommender.json")["model"]]})[["user_id", "product_id", *MODELS]]


def print_spoiled(arm: Path, delivered: dict, date: str, window: int) -> None:
    """Spoil the last day's file in each of the ways of `SPOILED`, on the history of good days, and tell what became of it."""
    day, rows = list(delivered.items())[-2]
    file, out = arm / "log" / f"{day:%Y-%m-%d}.csv", arm / "runs" / date
    print("| the day's file | stopped by | why | in use |\n|---|---|---|---|")
    for what, spoil in SPOILED.items():
        shutil.rmtree(out, ignore_errors=True)
        spoil(rows.copy()).to_csv(file, index=False)
        task, why = run(arm, date, window) or ("**nothing**", "")
        print(f"| {what} | {task} | {why.replace(str(arm), '')} | {os.readlink(arm / 'runs' / 'current')} |", flush=True)
    file.unlink()


def print_gentle(given: argparse.Namespace, values: list[float]) -> None:
    """Neighbours kept and MRR@20 of the products nearest to the customers, with each of the values and apart: valid customers choose."""
    tables = []
    with tempfile.TemporaryDirectory(prefix="shelfspace-") as folder:
        days = deliveries(Path(folder), given)
        clicks = events.read(Path(folder) / "shop.parquet").table
        for until in list(days)[given.window :][: given.days]:
            since = until - pd.Timedelta(days=given.window)
            engines.write(prepare.sequences(prepare.window(clicks, str(since), str(until))), Path(folder) / "sequences.parquet")
            tables.append(arrays.load(Path(folder) / "sequences.parquet"))
    print("| trainer | GENTLE | neighbours@10 kept | changed | MRR@20, valid | gain | test | gain, 95 % |\n|---|---|" + "---:|" * 6)
    for name, module in (("word2vec", skipgram), ("StarSpace", starspace)):
        apart: dict[str, np.ndarray] = {}
        for value in (None, *values):
            module.GENTLE = value
            kept, before, ranks = [], None, {"valid": [], "test": []}
            for table in tables:
                corpus, ids = arrays.corpus(table), np.unique(table["product_id"].cast("string").to_numpy(zero_copy_only=False).astype(str))
                start = before if value is not None else None
                made = embeddings.turned(module.train(corpus, start=start, seed=given.seed, progress=False), start)
                if before is not None:
                    both = np.intersect1d(made.product_ids, before.product_ids)
                    kept.append(drift.kept(*(embeddings.align(each, both)[0] for each in (made, before))))
                before = made
                model = baselines.nearest_to_user(*embeddings.align(made, ids), 0.1, "days")
                for split, found in ranks.items():
                    asked = arrays.examples(table, ids, split)
                    found.append(pd.DataFrame({"user": asked.user_ids, "rank": evaluation.evaluate(model, asked).ranks}))
            told = {split: pd.concat(found, ignore_index=True) for split, found in ranks.items()}
            apart = apart or {split: found["rank"].to_numpy() for split, found in told.items()}
            gain = {
                split: evaluation.difference(found["rank"].to_numpy(), apart[split], found.user.to_numpy()) for split, found in told.items()
            }
            mean = {split: ranking.reciprocal_rank(found["rank"].to_numpy(), 20).mean() for split, found in told.items()}
            low, high = gain["test"]["ci95"]
            print(
                f"| {name} | {value or 'apart'} | {np.mean(kept):.1%} | {1 - np.mean(kept):.1%} | {mean['valid']:.1%} | "
                f"{100 * gain['valid']['gain']:+.2f} | {mean['test']:.1%} | {100 * low:+.2f} to {100 * high:+.2f} |", flush=True,
            )  # fmt: skip


def print_alarms(given: argparse.Namespace) -> None:
    """Good days of several shops that the look at the log stops, and spoiled ones that it lets pass; the log's reader may stop them before."""
    alarms, passed = [], dict.fromkeys(SPOILED, 0)
    shops = range(given.seed, given.seed + given.alarms)
    for seed in shops:
        with tempfile.TemporaryDirectory(prefix="shelfspace-") as folder:
            days = deliveries(Path(folder), argparse.Namespace(**vars(given) | {"seed": seed}))
            for until in list(days)[given.window :][: given.days]:
                if why := refused(Path(folder), [rows for day, rows in days.items() if day < until], until):
                    alarms.append(f"- shop {seed}: {why}")
            *before, last = list(days.values())[:-1]
            for what, spoil in SPOILED.items():
                passed[what] += not refused(Path(folder), [*before, spoil(last.copy())], list(days)[-1])
    print(f"{len(alarms)} of {len(shops) * given.days} good days of {len(shops)} shops were stopped.", *alarms, sep="\n")
    print("".join(f"- {what}: {n} of {len(shops)} passed\n" for what, n in passed.items()))


def refused(folder: Path, days: list[pd.DataFrame], until: pd.Timestamp) -> str:
    """What is said against a log of these days."""
    for n, rows in enumerate(days):
        rows.to_csv(folder / f"{n:03}.csv", index=False)
    try:
        drift.check_log(events.read(folder / "*.csv").table, until.to_pydatetime())
    except ValueError as error:
        return str(error)
    finally:
        for file in folder.glob("*.csv"):
            file.unlink()
    return ""


def swapped(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.rename(columns={"user_id": "product_id", "product_id": "user_id"})[rows.columns]


def shifted(rows: pd.DataFrame) -> pd.DataFrame:
    """What stands from the product id on, one column to the right, as after a field without quotes."""
    columns = list(rows.columns[rows.columns.get_loc("product_id") :])
    return rows.assign(**dict(zip(columns[1:], (rows[name] for name in columns[:-1]))), **{columns[0]: rows["query"]})


def early(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(timestamp=pd.Timestamp(0) + (rows.timestamp - pd.Timestamp(0)) / 1000)


SPOILED: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "half of the rows missing": lambda rows: rows.sample(frac=0.5, random_state=0).sort_index(),
    "cut off at noon": lambda rows: rows[rows.timestamp.dt.hour < 12],
    "customers and products swapped": swapped,
    "columns shifted from the product id on": shifted,
    "the price in the time's column": lambda rows: rows.assign(timestamp=rows.price.fillna(0)),
    "delivered twice": lambda rows: pd.concat([rows, rows]),
    "a quarter of it delivered twice": lambda rows: pd.concat([rows, rows.iloc[: len(rows) // 4]]),
    "events renamed": lambda rows: rows.assign(event="evt " + rows.event),
    "views named purchases": lambda rows: rows.assign(event=rows.event.astype(str).replace("view", "purchase")),
    "no purchases": lambda rows: rows[rows.event != "purchase"],
    "prices in cents": lambda rows: rows.assign(price=100 * rows.price),
    "seconds read as milliseconds": early,
    "an empty file": lambda rows: rows.iloc[:0],
}


if __name__ == "__main__":
    main()
