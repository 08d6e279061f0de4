"""Ten days through the DAG, each from the vectors of the day before, and the same days trained apart; then days that are spoiled.

    python benchmarks/day_over_day.py [--days 10] [--window 14] [--users 1500] [--products 300] [--out FOLDER]
    python benchmarks/day_over_day.py --gentle 0.05,0.1,0.2,0.4 --seed 1    # the trainers alone, with steps of several sizes
    python benchmarks/day_over_day.py --gentle 0.1,0.2 --new 0.1 --days 4   # and with products that appear
    python benchmarks/day_over_day.py --alarms 10 --seed 10                 # the look at the log alone, on good days of ten shops

A simulated shop delivers a file a day. Each day `airflow dags test` runs the DAG on the days so far, with a window that moves along, and
the trainers alone train the same sequences apart; with --both N, the DAG, too, trains the first N days apart. Prints what of the neighbours
and the user vectors stays from one day to the next; MRR@20 on each day's test customers, with a paired test over customers of all days
together; and for each way to spoil the next day's file which task stopped it, why, and what stayed in use. A day that is finished in
FOLDER is not run again.
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
TRAINERS = {"word2vec": skipgram, "starspace": starspace}
BRIEF = {
    "epochs": 2, "hidden": "16", "prefixes": 5, "tied_epochs": 1, "examples": 2000, "tied_examples": 2000,
    "rank_examples": 300, "rank_top": 10, "explained": 0, "sweep_users": 60, "sg_visits": 5000, "ss_examples": 3000, "feature_epochs": 0, "compare_users": 200,
}  # of chapters that are not what is asked here, so that a day takes a minute or two  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("days", 10), ("window", 14), ("users", 1500), ("products", 300), ("seed", 0)):
        options.add_argument(f"--{name}", type=int, default=default)
    options.add_argument("--both", type=int, default=0, help="Days that the DAG trains apart, too.")
    options.add_argument("--out", type=Path, help="Folder to keep; a temporary one by default.")
    options.add_argument("--gentle", help="Compare these values of the trainers' GENTLE instead, with commas between.")
    options.add_argument(
        "--new", type=float, default=0.0, help="With --gentle: a share of the products that appear on the last day but one."
    )
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
        for n, date in enumerate(dates[:-1]):
            for arm, start in ARMS.items():
                if (start or n < given.both) and (task := day(folder / arm, delivered, date, given.window, start)):
                    stopped[arm][date] = task
        for arm, found in stopped.items():
            many = given.days if ARMS[arm] else given.both
            print(
                f"{arm}: {len(found)} of {many} good days were stopped.",
                *(f"{date}: {' '.join(why)}" for date, why in found.items()),
                sep="\n- ",
            )
        runs = [folder / "started" / "runs" / date for date in dates[:-1] if date not in stopped["started"]]
        made = {"apart": [apart(run) for run in runs], "started": [vectors(run) for run in runs]}
        print_kept(runs, made)
        print_mrr(runs, made)
        if given.both:
            print_leaving([run for run in runs[: given.both] if run.name not in stopped["apart"]], folder / "apart" / "runs")
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


def vectors(run: Path) -> dict[str, embeddings.Embeddings]:
    """The product embeddings of a run."""
    return {name: embeddings.load(run / "product_embeddings" / f"{name}.parquet") for name in TRAINERS}


def apart(run: Path) -> dict[str, embeddings.Embeddings]:
    """What a run would have trained without a start: its sequences, its seed."""
    corpus = arrays.corpus(arrays.load(run / "sequences.parquet"))
    return {name: module.train(corpus, progress=False) for name, module in TRAINERS.items()}


def print_kept(runs: list[Path], made: dict[str, list[dict]]) -> None:
    """Neighbours that are kept from each day to the next, of either arm, and the user vectors of the runs."""
    rows = []
    for n in range(1, len(runs)):
        found = drift.drift(runs[n], runs[n - 1])
        row = {"day": runs[n].name}
        for name in TRAINERS:
            for arm in ARMS:
                new, old = made[arm][n][name], made[arm][n - 1][name]
                both = np.intersect1d(new.product_ids, old.product_ids)
                row[f"{name}, {arm}"] = drift.kept(*(embeddings.align(each, both)[0] for each in (new, old)))
        rows.append(row | {"user vectors, started": found["user_vectors_kept"]})
    table = pd.DataFrame(rows).set_index("day").astype(float)
    print("\n| neighbours@10 kept | " + " | ".join(table) + " |\n|---|" + "---:|" * len(table.columns))
    shown = [*table.iterrows(), ("mean", table.mean()), ("changed", 1 - table.mean())]
    for name, row in shown:
        shares = [f"{value:.1%}" for value in row[:-1]]
        print(
            f"| {name} | {' | '.join(shares)} | "
            + ("" if name == "changed" else "–" if np.isnan(row.iloc[-1]) else f"{row.iloc[-1]:.3f}")
            + " |"
        )
    print(f"\nBy chance, {found['by_chance']:.1%} of the neighbours are kept. A user vector is kept by the cosine of the two.\n")


def print_mrr(runs: list[Path], made: dict[str, list[dict]]) -> None:
    """MRR@20 of the products nearest to the test customers' embeddings, by the settings of the run, of either arm, with a paired test."""
    asked = []
    for n, run in enumerate(runs):
        table, ids = arrays.load(run / "sequences.parquet"), pd.read_parquet(run / "products.parquet").product_id.to_numpy().astype(str)
        test, best = arrays.examples(table, ids, "test"), run_files.read_json(run / "best_decays.json")
        ranks = {
            f"{name}, {arm}": evaluation.evaluate(
                baselines.nearest_to_user(*embeddings.align(made[arm][n][name], ids), **best[f"{name}_user"]), test
            ).ranks
            for name in TRAINERS
            for arm in ARMS
        }
        asked.append(pd.DataFrame({"day": run.name, "user": test.user_ids} | ranks))
    print_tests(pd.concat(asked, ignore_index=True), list(TRAINERS))


def print_leaving(runs: list[Path], other: Path) -> None:
    """The same of what left the runs, where the DAG ran both arms, and of the models that look for what is nearest to the customer."""
    asked = []
    for run in runs:
        both = {arm: pd.read_parquet(folder / "test_ranks.parquet") for arm, folder in (("apart", other / run.name), ("started", run))}
        if not both["apart"][["user_id", "product_id"]].equals(both["started"][["user_id", "product_id"]]):
            raise RuntimeError("The two arms were not asked the same.")
        left = {
            arm: run_files.read_json(folder / "recommender.json")["model"]
            for arm, folder in (("apart", other / run.name), ("started", run))
        }
        ranks = {f"what leaves, {arm}": found[left[arm]] for arm, found in both.items()}
        ranks |= {f"{name}_user, {arm}": found[f"{name}_user"] for name in TRAINERS for arm, found in both.items()}
        asked.append(pd.DataFrame({"day": run.name, "user": both["apart"].user_id} | ranks))
    print_tests(pd.concat(asked, ignore_index=True), ["what leaves", *(f"{name}_user" for name in TRAINERS)])


def print_tests(asked: pd.DataFrame, names: list[str]) -> None:
    """MRR@20 by day and arm, and of all days a paired test over customers."""
    columns = [f"{name}, {arm}" for name in names for arm in ARMS]
    print("| MRR@20 | customers | " + " | ".join(columns) + " |\n|---|---:|" + "---:|" * len(columns))
    gained = pd.DataFrame({name: ranking.reciprocal_rank(asked[name].to_numpy(), 20) for name in columns})
    for day, rows in gained.groupby(asked.day):
        print(f"| {day} | {len(rows):,} | " + " | ".join(f"{mean:.1%}" for mean in rows.mean()) + " |")
    print(f"| all | {len(gained):,} | " + " | ".join(f"{mean:.1%}" for mean in gained.mean()) + " |")
    owners = asked.user.to_numpy()
    tests = [
        evaluation.difference(asked[f"{name}, started"].to_numpy(), asked[f"{name}, apart"].to_numpy(), owners, comparisons=len(names))
        for name in names
    ]
    intervals.correct(tests)
    print("\n| started, against apart | gain in MRR@20, points | 95 % interval | p (Holm) |\n|---|---:|---|---:|")
    for name, test in zip(names, tests):
        low, high = (100 * bound for bound in test["ci95"])
        print(f"| {name} | {100 * test['gain']:+.2f} | {low:+.2f} to {high:+.2f} | {test['p_holm']:.2g} |")
    print(f"\n{len(asked):,} targets of {len(np.unique(owners)):,} customers; the intervals hold together.\n")


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
    """Neighbours kept and MRR@20 of the products nearest to the customers, with each of the values and apart: valid customers choose.

    With --new, a share of the products is first trained on in the last two days, whose targets among them are told apart.
    """
    tables = []
    with tempfile.TemporaryDirectory(prefix="shelfspace-") as folder:
        days = deliveries(Path(folder), given)
        clicks = events.read(Path(folder) / "shop.parquet").table
        for until in list(days)[given.window :][: given.days]:
            since = until - pd.Timedelta(days=given.window)
            engines.write(prepare.sequences(prepare.window(clicks, str(since), str(until))), Path(folder) / "sequences.parquet")
            tables.append(arrays.load(Path(folder) / "sequences.parquet"))
    ids = np.unique(pd.concat(list(days.values())).product_id.dropna().to_numpy().astype(str))
    new = np.random.default_rng(given.seed).choice(ids, round(given.new * len(ids)), replace=False)
    groups = ["valid", "test"] if not given.new else ["known product", "new product"]
    print("| trainer | GENTLE | neighbours@10 kept | " + " | ".join(f"MRR@20, {group} | against apart, points" for group in groups) + " |")
    print("|---|---|---:|" + "---:|---|" * len(groups))
    for name, module in TRAINERS.items():
        apart = None
        for value in (None, *values):
            module.GENTLE = value
            kept, before, asked = [], None, []
            for n, table in enumerate(tables):
                late = n >= len(tables) - 2
                corpus = arrays.corpus(table)
                corpus = corpus if late or not given.new else arrays.without(corpus, new)
                start = before if value is not None else None
                made = embeddings.turned(module.train(corpus, start=start, progress=False), start)
                if before is not None:
                    both = np.intersect1d(made.product_ids, before.product_ids)
                    kept.append(drift.kept(*(embeddings.align(each, both)[0] for each in (made, before))))
                before = made
                model = baselines.nearest_to_user(*embeddings.align(made, ids), 1.0, "log_days")
                for split in ("valid", "test", *(["train"] if given.new else [])):  # a start has no targets of train either
                    of = arrays.examples(table, ids, split)
                    group = np.where(np.isin(ids[of.target], new), "new product", "known product") if given.new else split
                    found = pd.DataFrame({"user": of.user_ids, "group": group, "rank": evaluation.evaluate(model, of).ranks})
                    asked += [found] if late or not given.new else []
            told = pd.concat(asked, ignore_index=True)
            apart = told if apart is None else apart
            cells = []
            for group in groups:
                of = told.group == group
                gain = evaluation.difference(told["rank"][of].to_numpy(), apart["rank"][of].to_numpy(), told.user[of].to_numpy())
                low, high = (100 * bound for bound in gain["ci95"])
                mean = ranking.reciprocal_rank(told["rank"][of].to_numpy(), 20).mean()
                cells.append(f"{mean:.1%} | {100 * gain['gain']:+.2f} ({low:+.2f} to {high:+.2f})" if value else f"{mean:.1%} | ")
            print(f"| {name} | {value or 'apart'} | {np.mean(kept):.1%} | {' | '.join(cells)} |", flush=True)


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
