"""Several runs side by side, as a page: metrics with intervals, what differed, and a curve where one parameter was swept.

A sweep makes one run for each value of a parameter. Stages before the first one that has the parameter are made once and
handed on, so each further value costs only what it touches.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from shelfspace import exhibits, pipeline, plots, report, runs
from shelfspace.exhibits import clean
from shelfspace.palette import label_of, metric_label

METRICS = ("mrr@20", "hit_rate@20")
UNFINISHED = "it is no finished run; make one with `shelfspace report --out`"
CURVES = 6  # models in the figure: more lines cannot be told apart


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
        For fewer than two folders, one that is named twice, or one that holds no finished run.
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
        metrics, params = (runs.needed(path, file, UNFINISHED) for file in ("metrics.json", "params.json"))
        if not isinstance(metrics.get("models"), dict) or not metrics["models"]:
            raise ValueError(f"{path / 'metrics.json'} holds no models, so there is nothing to compare.")
        report.refuse_older(path, metrics)
        found.append(Run(name, path, metrics, params))
    return found


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
    )
    with runs.atomic(out) as temporary:
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
        prepare = {p.name for p in pipeline.parameters() if p.notebooks[0].startswith("01")}
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
    """Which run has the best model, and whether beyond its interval; then, for a sweep, what it says."""
    tops = [report.ranking(run.metrics)[0] for run in found]
    order = sorted(range(len(found)), key=lambda i: (-tops[i]["mrr"]["value"], i))
    first, second = order[:2]
    bounds = tops[first]["mrr"]["low"], tops[second]["mrr"]["high"]
    clear = None not in bounds and bounds[0] > bounds[1]
    sentences = [
        f"{_called(found[first], swept)} is {'best' if clear else 'ahead'}: its {tops[first]['label']} has an MRR@20 of "
        f"{_told(tops[first]['mrr'])} and an HR@20 of {_told(tops[first]['hr'])}."
    ]
    runner_up = f"{_called(found[second], swept)} follows with {tops[second]['label']} at {_told(tops[second]['mrr'])}"
    if None in bounds:
        sentences.append(f"{runner_up}.")
    elif clear:
        sentences.append(f"{runner_up}; their intervals do not overlap.")
    else:
        sentences.append(f"{runner_up}; their intervals overlap, so which is better is not settled.")
    if swept:
        worst = min(top["mrr"]["value"] for top in tops)
        sentences.append(
            f"Over the values of {swept} tried, the best model's MRR@20 goes from {report.percent(worst)} to "
            f"{report.percent(tops[first]['mrr']['value'])}."
        )
    return [clean(sentence) for sentence in sentences]


def sweep(
    name: str,
    values: Sequence[object],
    out: str | Path,
    *,
    data: str = "shop",
    columns: str = "",
    given: Mapping[str, object] | None = None,
    command: Callable[[Path, Mapping], str] = lambda out, given: "",
    folder: Path = pipeline.NOTEBOOKS,
    say: Callable[[str], None] | None = None,
) -> Path:
    """One run for each value of a parameter, and the page that compares them.

    Parameters
    ----------
    name : str
        The parameter.
    values : sequence
        Two or more of its values.
    out : str or Path
        Each run gets a folder in it, NAME=VALUE; the page is ``compare.html`` in it.
    data, columns, given, folder, say
        See `shelfspace.pipeline.run`; `given` are the parameters that all runs share.
    command : callable, optional
        The command that makes one of the runs, from its folder and its parameters.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ValueError
        If a value or the folder will not do. Nothing has been run then.
    StageError
        If a notebook failed; the runs that were finished stay, and the next call goes on from there.
    """
    say = say or (lambda text: print(text, end="", flush=True))
    given, out = dict(given or {}), Path(out)
    if name in pipeline.PLUMBING:
        raise ValueError(f"{name} cannot be swept; make the runs one by one and compare them with `shelfspace compare`.")
    read_values = [pipeline.resolve(given | {name: value}, folder)[name] for value in values]
    for place, value in enumerate(read_values):
        if value in read_values[:place]:
            raise ValueError(f"{name} is to be {value!r} twice; name each value once.")
    if len(values) < 2:
        raise ValueError(f"A sweep takes two values of {name} or more, as in -p {name}=A,B.")
    if any((out / mark).exists() for mark in (".stages", ".lock")):
        raise ValueError(f"{out} is itself a run; name another folder for the sweep with --out.")
    folders = [out / _folder_name(name, value) for value in read_values]
    todo = pipeline.stages(folder)
    shared = todo[: next((place for place, stage in enumerate(todo) if name in stage.parameters), 0)]
    for run_dir, value in zip(folders, read_values):
        say(f"\n{name} = {value}\n")
        if run_dir != folders[0]:
            _hand_on(folders[0], run_dir, [stage.name for stage in shared])
        own = given | {name: value}
        pipeline.run(data, run_dir, columns=columns, given=own, command=command(run_dir, own), folder=folder, say=say)
    return render(folders, out / "compare.html")


def _hand_on(source: Path, out: Path, stages: Sequence[str]) -> None:
    """Copy what some stages of a run wrote, and their records, to another run; what is there as it should be stays."""
    for stage in stages:
        record_path = Path(".stages") / f"{stage}.json"
        record = runs.read_json(source / record_path)
        if (out / record_path).exists() and runs.read_json(out / record_path) == record:
            continue
        for name in (*record["outputs"], f"notebooks/{stage}.ipynb", record_path):
            with runs.atomic(out / name) as temporary:
                shutil.copyfile(source / name, temporary)


def _folder_name(name: str, value: object) -> str:
    return f"{name}={re.sub('[^A-Za-z0-9.+-]+', '_', str(value)) or 'empty'}"


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of their parents as it takes to tell them apart."""
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return [clean("/".join(path.parts[-depth:]).lstrip("/")) for path in paths]


def _targets(run: Run) -> str | None:
    """The hash of the run's sequences: equal where the same users have the same targets."""
    path = run.folder / ".stages" / "01_prepare.json"
    return runs.read_json(path)["outputs"].get("sequences.parquet") if path.exists() else None


def _swept(found: Sequence[Run], differing: Sequence[tuple[str, list[str]]]) -> str:
    """The one parameter that differs, with another value in each run; "" where there is none or are several."""
    if len(differing) == 1 and len(set(differing[0][1])) == len(found) and all(differing[0][0] in run.parameters for run in found):
        return differing[0][0]
    return ""


def _sort_key(value: object) -> tuple:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (1, value, "") if number else (0, 0, "") if value is None else (2, 0, str(value))


def _called(run: Run, swept: str) -> str:
    return f"{swept} = {run.parameters[swept]!r}" if swept else run.name


def _told(value: Mapping) -> str:
    low, high = value["low"], value["high"]
    return report.percent(value["value"]) + ("" if low is None else f" ({report.percent(low)} to {report.percent(high)})")


def _about(run: Run, out: Path) -> dict:
    """A run for the template: its name, a link to its report, and how to get it again."""
    page = run.folder / "report.html"
    return {
        "name": run.name,
        "link": quote(os.path.relpath(page, out.resolve().parent)) if page.exists() else "",
        "params": run.params,
        "data": run.metrics.get("data", {}),
        "source": report.source(run.params.get("data", "")),
        "minutes": sum(report.stage_seconds(run.metrics).values()) / 60,
    }


def _table(found: Sequence[Run], metric: str) -> list[dict]:
    """One row a model, best first: its value in each run, with interval and place on a shared scale."""
    key = {"mrr@20": "mrr", "hit_rate@20": "hr"}[metric]
    ranked = [{row["name"]: row for row in report.ranking(run.metrics)} for run in found]
    names = dict.fromkeys(name for rows in ranked for name in rows)
    cells = {name: [rows[name][key] if name in rows else None for rows in ranked] for name in names}
    top = max((max(c["value"], c["high"] or 0) for row in cells.values() for c in row if c), default=0) or 1
    table = []
    for name, row in cells.items():
        best = max(c["value"] for c in row if c)
        alike = len({c["value"] for c in row if c}) == 1
        scaled = [
            c and {end: c[end] for end in ("value", "low", "high")}
            | {"at" if end == "value" else f"{end}_at": round(100 * c[end] / top, 1) for end in ("value", "low", "high") if c[end] is not None}
            | {"best": c["value"] == best and not alike}
            for c in row
        ]  # fmt: skip
        label = next(rows[name]["label"] for rows in ranked if name in rows)
        table.append({"name": name, "label": label, "cells": scaled, "top": best})
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
    top = table.loc[table[METRICS[0]].idxmax()]
    return exhibits.figure_html(
        plots.parameter_sweep(table, swept, metrics=METRICS),
        caption=f"MRR@20 and HR@20 on the test users against {swept}, with 95 % intervals. The highest MRR@20, "
        f"{report.percent(top[METRICS[0]])}, is {label_of(top['model'])}'s at {swept} = {top[swept]}.",
        alt=f"Two panels, MRR@20 and HR@20 against {swept}, one line per model with an interval.",
    )
