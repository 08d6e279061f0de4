"""Several runs side by side, as a page: metrics with intervals, what differed, and a curve where one parameter was swept."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from shelfspace.files import run_files, stages
from shelfspace.page import charts, exhibits, first_screen, report
from shelfspace.page.palette import label_of, metric_label
from shelfspace.page.words import clean, short
from shelfspace.use import drift

METRICS = ("mrr@20", "hit_rate@20")
UNFINISHED = "it is no finished run; make one with `shelfspace report --out`"
CURVES = 6  # models in the figure: more lines cannot be told apart
MOVED = 5  # products that are named of those whose vectors moved most


def _number(value: object, low: float = -1e300, high: float = 1e300) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high  # NaN is not


ANY = "finite", lambda value: not isinstance(value, (int, float)) or isinstance(value, bool) or _number(value)
SHARE = "a share from 0 to 1", lambda value: _number(value, 0, 1)
COUNT = "a whole number", lambda value: isinstance(value, int) and _number(value, 0)
SECONDS = "a number of seconds", lambda value: _number(value, 0)
TEXT = "text", lambda value: isinstance(value, str)
NAME = "text or null", lambda value: value is None or isinstance(value, str)
FIGURES = {"hit_rate@20": [SHARE, SHARE], "mrr@20": [SHARE, SHARE]}
MODEL = {"hit_rate@20!": SHARE, "mrr@20!": SHARE, "ci95": FIGURES, "label": NAME, "kind": TEXT}
SHAPES = {
    "metrics.json": {
        "models": {"*": MODEL}, "best": {"model": NAME}, "protocol": TEXT, "target_event": TEXT, "timings": {"latency": ANY, "*": SECONDS},
        "data": {"users_kept": COUNT, "products": COUNT, "test": COUNT},
    },
    "params.json": {
        "parameters": {}, "input": {"fingerprint": NAME}, "versions": {}, "command": NAME, "git_commit": NAME, "data": TEXT,
    },
}  # fmt: skip
"""What is read of the files of a run: the values of the keys, and what each must be; see `_misfit`."""


@dataclass(frozen=True)
class Run:
    """A finished run: what to call it, where it is, and its metrics.json and params.json."""

    name: str
    folder: Path
    metrics: Mapping
    params: Mapping

    @property
    def parameters(self) -> Mapping:
        return self.params.get("parameters", {})


def read(folders: Sequence[str | Path]) -> list[Run]:
    """Read the runs of several folders.

    Raises
    ------
    ValueError
        For fewer than two folders, one that is named twice, or one that holds no finished run, or files that no run wrote.
    """
    if len(folders) < 2:
        raise ValueError(f"Comparing takes two runs or more; it got {len(folders)}.")
    paths = [Path(folder).resolve() for folder in folders]
    for place, path in enumerate(paths):
        if path in paths[:place]:
            raise ValueError(f"{folders[place]} is named twice; name each run once.")
        if not path.is_dir():
            raise ValueError(f"There is no folder {folders[place]}; name the folders of finished runs, as reports/default.")
    found = []
    for path, name in zip(paths, _names(paths)):
        metrics, params = (_shaped(path, file) for file in SHAPES)
        if not metrics.get("models"):
            raise ValueError(f"{path / 'metrics.json'} holds no models, so there is nothing to compare.")
        found.append(Run(name, path, metrics, params))
    return found


def _shaped(folder: Path, name: str) -> dict:
    """A JSON file of a run, of the shape that a run gives it in all that is read of it."""
    try:
        found = run_files.needed(folder, name, UNFINISHED)
        wrong = _misfit(found, SHAPES[name], "")
    except RecursionError:
        raise ValueError(f"{folder / name} is nested too deeply, so it is not a run's.") from None
    if wrong:
        raise ValueError(f"{folder / name} is not a run's: {clean(wrong)}.")
    return found


def _misfit(value: object, shape: object, name: str) -> str:
    """What does not fit, as "a/b is -1 and must be a share from 0 to 1"; "" where all does.

    A shape is a mapping of keys to shapes ("*": of every other key), a list of shapes, or words and a test of the value. A
    key that is lacking fits, unless its own shape says "!".
    """
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{name or 'it'} must be an object"
        lacking = [key.rstrip("!") for key in shape if key.endswith("!") and key.rstrip("!") not in value]
        if lacking:
            return f"{name} has no {lacking[0]}"
        shapes = {key.rstrip("!"): of for key, of in shape.items()}
        inside = [(item, shapes.get(key, shapes.get("*", ANY)), f"{name}/{key}".lstrip("/")) for key, item in value.items()]
    elif isinstance(shape, list):
        if not isinstance(value, list) or len(value) != len(shape):
            return f"{name} must be a list of {len(shape)}"
        inside = [(item, of, f"{name}/{place}") for place, (item, of) in enumerate(zip(value, shape), 1)]
    elif not shape[1](value):
        return f"{name} is {short(json.dumps(value), 40)} and must be {shape[0]}"
    elif shape is ANY and isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value, 1)
        inside = [(item, ANY, f"{name}/{key}") for key, item in items]
    else:
        return ""
    return next(filter(None, (_misfit(*one) for one in inside)), "")


def render(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Write the page that compares runs; see `read` for what is refused.

    Returns
    -------
    Path
        `out`, written atomically.
    """
    found = read(folders)
    out = Path(out)
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise ValueError(f"{out} is no name for the page; it must end in .html.")
    differing = differences(found)
    swept = _swept(found, differing)
    if swept:
        found = sorted(found, key=lambda run: _sort_key(run.parameters[swept]))
        differing = differences(found)
    html = report.page(
        "compare.html.j2",
        runs=[_about(run, out) for run in found],
        answer=answer(found, swept),
        cautions=cautions(found),
        tables=[{"metric": metric_label(metric), "rows": _table(found, metric)} for metric in METRICS],
        differing=differing,
        swept=swept,
        figure=_figure(found, swept) if swept else "",
        drifts=[told for run in found for before in found if _starts_from(run, before) and (told := _drift(run, before))],
    )
    with run_files.atomic(out) as temporary:
        temporary.write_text(html, encoding="utf-8", newline="\n")
    return out


def differences(found: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Parameters whose values are not the same in all runs: (name, value in each run); "–" where a run has none."""
    names = dict.fromkeys(name for run in found for name in run.parameters)
    told = {name: [repr(run.parameters[name]) if name in run.parameters else "–" for run in found] for name in names}
    return [(name, values) for name, values in told.items() if len(set(values)) > 1]


def cautions(found: Sequence[Run]) -> list[str]:
    """Why the figures of these runs may not be compared, or not quite; none where they may."""
    said = []
    if len({run.params.get("input", {}).get("fingerprint") for run in found}) > 1:
        said.append("Different logs: the runs did not read the same input, so their figures cannot be compared.")
    elif len({(run.metrics.get("protocol"), run.metrics.get("target_event")) for run in found}) > 1:
        said.append("Different targets: the runs' protocols or target events differ, so their figures cannot be compared.")
    elif len({_targets(run) for run in found}) > 1:
        prepare = {p.name for p in stages.parameters() if p.notebooks[0].startswith("01")}
        names = ", ".join(name for name, _ in differences(found) if name in prepare)
        said.append(
            f"Different targets: the runs' sequences differ{f' ({names})' if names else ''}, so each was measured on "
            "questions of its own, and their figures cannot be compared."
        )
    for what, values in (
        ("versions of packages", [json.dumps(run.params.get("versions"), sort_keys=True) for run in found]),
        ("commits of the code", [run.params.get("git_commit") for run in found]),
    ):
        if len(set(values)) > 1:
            said.append(f"Different {what}: a difference between the runs may come from these.")
    return said


def answer(found: Sequence[Run], swept: str = "") -> list[str]:
    """Which run is to be kept, by its model's MRR@20 on the valid users, with the test figure beside it; then the runner-up.

    The test users do not choose: the best of many runs on them is best in part by luck. Where a run has no valid figures, as
    those of an older version, nothing is chosen, and the sentences say so.
    """
    tops = [_top(run) for run in found]
    if not all(tops):
        lacking = ", ".join(_called(run, swept) for run, top in zip(found, tops) if not top)
        sentences = [
            f"No best run is named: {lacking} holds no figures of the valid users, as runs of older versions do not; make it again to "
            "choose by these.",
            *(
                f"On the test users, {_called(run, swept)}: the highest MRR@20 is {_told(row['mrr'])}, of {row['label']}."
                for run in found
                for row in first_screen.ranking(run.metrics)[:1]
            ),
        ]
        return [clean(sentence) for sentence in sentences]
    order = sorted(range(len(found)), key=lambda i: (-tops[i][0], i))
    (valid, first), (other_valid, second) = tops[order[0]], tops[order[1]]
    sentences = [
        f"The valid users choose {_called(found[order[0]], swept)}: its {first['label']} has an MRR@20 of {first_screen.percent(valid)} "
        f"there. On the test users it has {_told(first['mrr'])}, and an HR@20 of {_told(first['hr'])}.",
        f"{_called(found[order[1]], swept)} follows with {second['label']}, {first_screen.percent(other_valid)} on the valid users and "
        f"{_told(second['mrr'])} on the test users.",
    ]
    ahead = max(range(len(found)), key=lambda i: tops[i][1]["mrr"]["value"])
    if tops[ahead][1]["mrr"]["value"] > first["mrr"]["value"]:
        sentences.append(
            f"On the test users {_called(found[ahead], swept)} is ahead, at {_told(tops[ahead][1]['mrr'])}; nothing is chosen by that."
        )
    if None not in (first["mrr"]["low"], second["mrr"]["low"]):
        sentences.append(
            "Each interval is that of one run by itself. The runs were asked about the same customers, so an overlap does not show "
            "that two are equal."
        )
    if swept:
        values = [top[0] for top in tops]
        sentences.append(
            f"Over the values of {swept} tried, the chosen model's MRR@20 on the valid users goes from {first_screen.percent(min(values))} to "
            f"{first_screen.percent(max(values))}."
        )
    return [clean(sentence) for sentence in sentences]


def _valid(run: Run, name: str, metric: str = METRICS[0]) -> float | None:
    """A model's figure on the valid users; None where metrics.json has none."""
    found = run.metrics["models"].get(name)
    for key in ("valid", "all", metric):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, int | float) else None


def _top(run: Run) -> tuple[float, dict] | None:
    """The model with the run's highest MRR@20 on the valid users: that figure and its row; None where one model has none."""
    rows = [(_valid(run, row["name"]), row) for row in first_screen.ranking(run.metrics)]
    return None if any(value is None for value, _ in rows) else max(rows, key=lambda one: one[0])


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of their parents as it takes to tell them apart."""
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return [clean("/".join(path.parts[-depth:]).lstrip("/")) for path in paths]


def _targets(run: Run) -> str | None:
    """The hash of the run's sequences: equal where the same users have the same targets."""
    record = run_files.read_record(run.folder, "01_prepare")
    return record["outputs"].get("sequences.parquet") if record else None


def _swept(found: Sequence[Run], differing: Sequence[tuple[str, list[str]]]) -> str:
    """The one parameter that differs, with another value in each run; "" where there is none or are several."""
    name = differing[0][0] if len(differing) == 1 else "start"  # one day starts from another, which is no series
    if name != "start" and len(set(differing[0][1])) == len(found) and all(name in run.parameters for run in found):
        return name
    return ""


def _starts_from(run: Run, before: Run) -> bool:
    """Whether the embeddings of one run start from those of another."""
    start = run.parameters.get("start")
    return isinstance(start, str) and bool(start) and Path(start).resolve() == before.folder


def _drift(run: Run, before: Run) -> dict | None:
    """What became of the vectors of the day before, for the template; None where the files of one of the two cannot be read."""
    try:
        found = drift.drift(run.folder, before.folder)
        products = pd.read_parquet(run.folder / "products.parquet")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    names = dict(zip(products.product_id.astype(str), charts.product_labels(products)))
    moved = found["moved"].head(MOVED).itertuples(index=False) if "moved" in found else ()
    return {
        "run": run.name,
        "before": before.name,
        "kept": [(label_of(name), first_screen.percent(share)) for name, share in found["neighbours_kept"].items()],
        "by_chance": first_screen.percent(found["by_chance"]),
        "customers": found["customers"],
        "users": found["user_vectors_kept"],
        "moved": [(names.get(product, product), float(cosine)) for product, cosine in moved],
    }


def _sort_key(value: object) -> tuple:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (1, value, "") if number else (0, 0, "") if value is None else (2, 0, str(value))


def _called(run: Run, swept: str) -> str:
    return f"{swept} = {run.parameters[swept]!r}" if swept else run.name


def _told(value: Mapping) -> str:
    low, high = value["low"], value["high"]
    return first_screen.percent(value["value"]) + ("" if low is None else f" ({first_screen.percent(low)} to {first_screen.percent(high)})")


def _about(run: Run, out: Path) -> dict:
    """A run for the template: its name, a link to its report, and how to get it again."""
    page = run.folder / "report.html"
    return {
        "name": run.name,
        "link": quote(os.path.relpath(page, out.resolve().parent)) if page.exists() else "",
        "params": run.params,
        "data": run.metrics.get("data", {}),
        "source": first_screen.source(run.params.get("data", "")),
        "minutes": sum(first_screen.stage_seconds(run.metrics).values()) / 60,
    }


def _table(found: Sequence[Run], metric: str) -> list[dict]:
    """One row a model, the highest on test first: its value in each run, with interval and place on a shared scale; "best" is
    the run that the valid users choose for it."""
    key = {"mrr@20": "mrr", "hit_rate@20": "hr"}[metric]
    ranked = [{row["name"]: row for row in first_screen.ranking(run.metrics)} for run in found]
    names = dict.fromkeys(name for rows in ranked for name in rows)
    cells = {name: [rows[name][key] if name in rows else None for rows in ranked] for name in names}
    top = max((max(c["value"], c["high"] or 0) for row in cells.values() for c in row if c), default=0) or 1
    table = []
    for name, row in cells.items():
        judged = [_valid(run, name, metric) for run in found]
        alike = None in judged or len(set(judged)) == 1
        best = None if alike else max(judged)
        scaled = [
            c and {end: c[end] for end in ("value", "low", "high")}
            | {"at" if end == "value" else f"{end}_at": round(100 * c[end] / top, 1) for end in ("value", "low", "high") if c[end] is not None}
            | {"best": not alike and value == best, "valid": value}
            for c, value in zip(row, judged)
        ]  # fmt: skip
        label = next(rows[name]["label"] for rows in ranked if name in rows)
        table.append({"name": name, "label": label, "cells": scaled, "top": max(c["value"] for c in row if c)})
    return sorted(table, key=lambda row: -row["top"])


def _figure(found: Sequence[Run], swept: str) -> str:
    """The metrics against the swept parameter, as HTML."""
    models = [row["name"] for row in _table(found, METRICS[0])][:CURVES]
    rows = []
    for run in found:
        value = run.parameters[swept]
        for model in models:
            if model in run.metrics["models"]:
                values = run.metrics["models"][model]
                row = {"model": model, swept: value if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)}
                for metric in METRICS:
                    low, high = values.get("ci95", {}).get(metric, (float("nan"),) * 2)
                    row |= {metric: values[metric], f"{metric}_lo": low, f"{metric}_hi": high}
                rows.append(row)
    table = pd.DataFrame(rows)
    told = f"MRR@20 and HR@20 on the test users against {swept}, with 95 % intervals."
    if all(map(_top, found)):
        run, (value, row) = max(((run, _top(run)) for run in found), key=lambda one: one[1][0])
        told += f" The valid users choose {row['label']} at {swept} = {run.parameters[swept]}, with an MRR@20 of {first_screen.percent(value)} there."
    else:
        told += " Nothing is chosen: not all runs hold figures of the valid users."
    return exhibits.figure_html(
        charts.parameter_sweep(table, swept, metrics=METRICS),
        caption=told,
        alt=f"Two panels, MRR@20 and HR@20 against {swept}, one line per model with an interval.",
    )
