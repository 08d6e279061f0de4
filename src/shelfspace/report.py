"""One HTML file from a run: the answer first, then the executed notebooks as chapters; it loads nothing from
anywhere.

`render` reads RUN/notebooks, metrics.json and params.json. The page's template, style and script lie in
``page/``.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import jinja2
import nbformat

from shelfspace import chapters, dataflow, pipeline, playground, runs
from shelfspace.exhibits import clean, short
from shelfspace.palette import color_of, decay_unit, label_of

PAGE = Path(__file__).parent / "page"
START = Path(__file__).resolve().parents[2] / "notebooks" / "README.md"
"""The start page of the notebooks, which holds the glossary."""
QUESTIONS = {
    "": "What will a customer look at next?",
    "view": "What will a customer look at next?",
    "add_to_cart": "What will a customer put in the cart next?",
    "purchase": "What will a customer buy next?",
}
SMALL_TEST, LOW_COVERAGE, MANY_REPEATS, SHORT_DAYS, MANY_DROPPED = 500, 0.98, 0.4, 7, 0.1
"""Limits of the alerts: targets, share of products, share of visits, days, share of rows."""
BUDGETS, MANY_PRODUCTS = (5_000_000, 8_000_000), 10_000
"""Bytes that the page may take: with at most, and with more than, so many products."""
PAGE_ITSELF = 200_000
"""Bytes that the page takes besides its chapters and the toys' data: first screen, style, scripts."""


def render(run_dir: str | Path, max_bytes: int | None = None) -> Path:
    """Write RUN/report.html from the executed notebooks, metrics.json and params.json of a run.

    Parameters
    ----------
    run_dir : path
        The run's folder.
    max_bytes : int, optional
        The page's size budget; see `BUDGETS`. The toys' data take what the chapters leave of it.

    Returns
    -------
    Path
        RUN/report.html, written atomically.

    Raises
    ------
    ValueError
        If a file is missing or cannot be read, or if the page is larger than `max_bytes`.
    """
    run_dir = Path(run_dir)
    metrics = runs.needed(run_dir, "metrics.json", "no report can be made; the notebook 06_evaluate writes it")
    params = runs.needed(run_dir, "params.json", "no report can be made; the pipeline writes it")
    if not metrics.get("models"):
        raise ValueError(f"{run_dir / 'metrics.json'} holds no models, so there is nothing to report.")
    paths = runs.notebooks(run_dir)
    if not paths:
        raise ValueError(f"{run_dir / 'notebooks'} holds no executed notebook; run the pipeline first.")
    stems = [path.stem for path in paths]
    told = [chapters.read(path, stems) for path in paths]
    if max_bytes is None:
        max_bytes = BUDGETS[metrics.get("data", {}).get("products", 0) > MANY_PRODUCTS]
    room = max_bytes - sum(len(chapter.html.encode()) for chapter in told) - PAGE_ITSELF
    play = playground.read(run_dir, room)
    html = page(
        "page.html.j2", scripts=("page.js", "play.js"), **summary(metrics, params, told), chapters=told, play=play,
        play_json=playground.to_json(play) if play else "", flow=_flow(run_dir, params, told), glossary=glossary(),
        made_of=made_of({path.stem: nbformat.read(path, as_version=4) for path in paths}),
    )  # fmt: skip
    size = len(html.encode())
    if size > max_bytes:
        figures = sorted(((n, caption) for chapter in told for n, caption in chapter.figures), reverse=True)[
            :3
        ]
        largest = "; ".join(f"{n / 1e6:.2f} MB “{short(caption, 60)}”" for n, caption in figures) or "none"
        raise ValueError(
            f"The report would take {size / 1e6:.2f} MB, more than its budget of {max_bytes / 1e6:.2f} MB. "
            f"Its largest figures: {largest}."
        )
    path = run_dir / "report.html"
    with runs.atomic(path) as temporary:
        Path(temporary).write_text(html, encoding="utf-8", newline="\n")
    return path


def made_of(notebooks: Mapping[str, nbformat.NotebookNode]) -> str:
    """A hash over all that a page is made of: the notebooks' cells, the modules they use, and those that make the page.

    The page carries it, so that a test can tell whether a rendered report is older than the code beside it.
    """
    cells = {
        name: [(cell.cell_type, cell.source) for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", ())]
        for name, notebook in notebooks.items()
    }
    code = "\n".join(source for told in cells.values() for kind, source in told if kind == "code")
    used = pipeline.imported(f"{code}\nfrom shelfspace import report")
    files = [*(PAGE.parent / f"{name}.py" for name in used), *sorted(PAGE.iterdir()), START]
    hashes = [runs.sha256_file(file) for file in files if file.is_file()]
    return hashlib.sha256(json.dumps([cells, hashes]).encode()).hexdigest()


def page(template: str, scripts: Sequence[str] = ("page.js",), **values) -> str:
    """Fill a template of ``page/`` in; style and script go into the page, and nothing else may run or load in
    it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": percent,
        "clean": clean,
        "short": short,
        "count": "{:,}".format,
        "zip": zip,
        "bytes": _bytes,
        "color": color_of,
    }
    script = "".join((PAGE / name).read_text(encoding="utf-8") for name in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (PAGE / "style.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        style=style, script=script, script_digest=digest, **values
    )


def summary(metrics: Mapping, params: Mapping, told: Sequence[chapters.Chapter]) -> dict:
    """All that the first screen shows, ready for the template."""
    data = metrics.get("data", {})
    best = metrics.get("best", {})
    timings = stage_seconds(metrics)
    labels = {name: values.get("label") for name, values in metrics["models"].items()}
    declared = {p.name: p.default for chapter in told for p in chapter.parameters}
    return {
        "question": QUESTIONS.get(metrics.get("target_event", ""), QUESTIONS[""]),
        "source": source(params.get("data", "")),
        "days": days(data),
        "answer": answer(metrics),
        "models": ranking(metrics),
        "facts": [
            (name, _decay(best) if key == "decay" else labels.get(best[key]) or label_of(str(best[key])))
            for key, name in (("model", "Model"), ("embedding", "Embedding"), ("decay", "Decay"))
            if best.get(key) is not None
        ],
        "embeddings": [
            {"name": name, "label": label_of(name)} | values
            for name, values in metrics.get("embeddings", {}).items()
        ],
        "alerts": alerts(metrics),
        "data": data,
        "protocol": metrics.get("protocol", ""),
        "params": params,
        "changed": changed(params.get("parameters", {}), declared),
        "timings": [(stage, seconds) for stage, seconds in timings.items()],
        "minutes": sum(timings.values()) / 60,
    }


def stage_seconds(metrics: Mapping) -> dict[str, float]:
    """How long each stage took; the latencies of the models, which also depend on the machine, left out."""
    return {stage: seconds for stage, seconds in metrics.get("timings", {}).items() if stage != "latency"}


def ranking(metrics: Mapping) -> list[dict]:
    """Models by MRR@20, best first: name, label, kind, values with intervals, and their places on a shared
    scale."""
    models = metrics["models"]
    rows = sorted(models.items(), key=lambda item: (-item[1]["mrr@20"], item[0]))
    top = {
        m: max(max(v[m], *v.get("ci95", {}).get(m, [0])) for v in models.values()) or 1
        for m in ("hit_rate@20", "mrr@20")
    }
    table = []
    for place, (name, values) in enumerate(rows):
        row = {
            "name": name,
            "label": values.get("label") or label_of(name),
            "kind": values.get("kind", ""),
            "best": place == 0,
        }
        for metric, key in (("hit_rate@20", "hr"), ("mrr@20", "mrr")):
            low, high = values.get("ci95", {}).get(metric, (None, None))
            row[key] = {"value": values[metric], "low": low, "high": high}
            row[key] |= {
                "at" if end == "value" else f"{end}_at": round(100 * row[key][end] / top[metric], 1)
                for end in ("value", "low", "high")
                if row[key][end] is not None
            }
        table.append(row)
    return table


def answer(metrics: Mapping) -> list[str]:
    """Which model won, and by how much against most-popular and the strongest baseline; the answer comes first."""
    rows = ranking(metrics)
    winner, best, data = rows[0], metrics.get("best", {}), metrics.get("data", {})
    level = next((row for row in rows[1:2] if not _clear(best, winner, row)), None)
    whom = f"of {data['test']:,} test targets" if data.get("test") else "of the test targets"
    hits = f"puts {percent(winner['hr']['value'])} {whom} among its first 20 products{_interval(winner['hr'], '95 % interval ')}"
    if level:
        sentences = [f"{winner['label']} and {level['label']} are level: the former {hits}."]
    else:
        sentences = [f"{winner['label']} finds the next product best: it {hits}."]

    mrr = f"Its MRR@20 is {percent(winner['mrr']['value'])}{_interval(winner['mrr'])}"
    baselines = [row for row in rows if row["kind"] == "baseline" and row is not winner]
    popular = next((row for row in baselines if row["name"] == "popular"), None)
    if popular:
        mrr += f", {_gain(winner, popular)} {popular['label']}{_value(popular)}"
    sentences.append(mrr + ".")
    if baselines and baselines[0] is not popular:
        other = baselines[0]
        paired = _paired(best, other)
        noise = "ahead beyond chance" if _clear(best, winner, other) else "within the noise"
        sentences.append(
            f"Against the strongest {'other ' * (winner['kind'] == 'baseline')}baseline, {other['label']}{_value(other)}, it is {noise}"
            + (f": {paired}." if paired else ".")
        )
    learned = next((row for row in rows if row["kind"] not in ("baseline", "")), None)
    if winner["kind"] == "baseline":
        rest = f"; the best of what was learned is {learned['label']}{_value(learned)}" if learned else ""
        sentences.append(f"{winner['label']} is a baseline: nothing that was learned beats it{rest}.")
    if best.get("embedding") and best.get("decay") is not None:
        space = label_of(str(best["embedding"]))
        if best.get("model") == "tied":
            sentences.append(f"It starts from the {space} embeddings and learned a decay of {_decay(best)}.")
        elif best.get("model") == "dense":
            sentences.append(f"The recommender uses the {space} user embedding with a decay of {_decay(best)}.")
        else:
            sentences.append(f"User embeddings are averages in the {space} space, with a decay of {_decay(best)}.")
    return [clean(sentence) for sentence in sentences]


def _clear(best: Mapping, winner: Mapping, other: Mapping) -> bool:
    """Whether the winner is ahead beyond chance: by the paired interval where metrics.json has it, else by the two."""
    gain = best.get("gain", {}).get(other["name"]) if best.get("model") == winner["name"] else None
    return gain["ci95"][0] > 0 if gain else not _overlap(winner["mrr"], other["mrr"])


def alerts(metrics: Mapping) -> list[str]:
    """What a reader must know before trusting the numbers; one sentence each."""
    data, found = metrics.get("data", {}), []
    if 0 < data.get("test", SMALL_TEST) < SMALL_TEST:
        found.append(
            f"Small test set: {data['test']:,} targets, so the intervals are wide; "
            f"{SMALL_TEST} or more would be better."
        )
    coverage = {
        label_of(n): e["coverage"] for n, e in metrics.get("embeddings", {}).items() if "coverage" in e
    }
    coverage = coverage or ({"the embedding": data["coverage"]} if "coverage" in data else {})
    low = {name: share for name, share in coverage.items() if share < LOW_COVERAGE}
    if low:
        told = " and ".join(f"{percent(share)} ({name})" for name, share in low.items())
        found.append(
            f"Low coverage: only {told} of the products have an embedding; "
            "those without are never found by similarity."
        )
    if data.get("repeat_share", 0) > MANY_REPEATS:
        found.append(
            f"Heavy repeats: in {percent(data['repeat_share'])} of the visits the customer had seen "
            "the product before; compare the scores without products already seen."
        )
    span = days(data)
    if span is not None and span < SHORT_DAYS:
        found.append(
            f"Short time range: {span:.1f} days; a decay per day can hardly be told from such a log."
        )
    rows = ranking(metrics)
    if len(rows) > 1 and not _clear(metrics.get("best", {}), rows[0], rows[1]):
        paired = _paired(metrics.get("best", {}), rows[1])
        found.append(
            f"Close race: {rows[0]['label']} is not ahead of {rows[1]['label']} beyond chance"
            + (f"; {paired}." if paired else ".")
        )
    chosen = metrics.get("best", {}).get("model")
    if chosen in metrics["models"] and chosen != rows[0]["name"]:
        label = next(row["label"] for row in rows if row["name"] == chosen)
        found.append(f"Chosen on validation users was {label}; on test users {rows[0]['label']} is ahead.")
    dropped = sum(data.get("dropped", {}).values())
    if dropped > MANY_DROPPED * data.get("rows_read", float("inf")):
        found.append(
            f"Many rows dropped: {dropped:,} of {data['rows_read']:,} "
            f"({percent(dropped / data['rows_read'])}); see the data."
        )
    return [clean(text) for text in found]


def changed(values: Mapping, defaults: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Parameters that differ from what the notebooks declare: (name, value, default), without the run's
    folder."""
    return [
        (name, repr(value), defaults[name])
        for name, value in values.items()
        if name in defaults and name != "run_dir" and value != _literal(defaults[name])
    ]


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


def source(data: object) -> str:
    """A short name of the input: "the simulated shop", or the file's or folder's name."""
    names = [
        Path(str(item)).name or str(item) for item in (data if isinstance(data, list | tuple) else [data])
    ]
    return "the simulated shop" if names == ["shop"] else short(", ".join(names), 80)


def days(data: Mapping) -> float | None:
    """Days between the first and the last event."""
    try:
        return (
            datetime.fromisoformat(data["last"]) - datetime.fromisoformat(data["first"])
        ).total_seconds() / 86_400
    except (KeyError, TypeError, ValueError):
        return None


def percent(value: float | None) -> str:
    """0.1234 → "12.3%", and small shares with two digits that count: 0.00123 → "0.12%"."""
    if value is None or value != value:
        return "–"
    return f"{value:.1%}" if value >= 0.01 or value == 0 else f"{value:.2%}"


def glossary(path: Path = START) -> list[tuple[str, str, str]]:
    """The terms that the start page of the notebooks explains, as (id in the page, term, meaning); none without it."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.findall(r"^- \*\*(.+?)\*\*: (.+)$", text.partition("## Glossary")[2], re.MULTILINE)
    return [(f"glossary--{re.sub('[^a-z0-9]+', '-', term.lower())}", term, meaning) for term, meaning in found]


def _flow(run_dir: Path, params: Mapping, told: Sequence[chapters.Chapter]) -> dict | None:
    """The map of the data flow for the template; None for a run without records."""
    stages, files = dataflow.read(run_dir, "" if params.get("data") == "shop" else source(params.get("data", "")))
    titles = {chapter.id: chapter.title for chapter in told}
    ids = [name.replace("_", "-") for name in stages]
    return {"stages": [(i if i in titles else "", titles.get(i, "This page")) for i in ids], "files": files} if stages else None


def _bytes(size: int) -> str:
    """1234567 → "1.2 MB"."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _gain(winner: Mapping, other: Mapping) -> str:
    ours, theirs = winner["mrr"]["value"], other["mrr"]["value"]
    if theirs <= 0:
        return "above"
    return f"{ours / theirs:.1f} times" if ours / theirs >= 2 else f"{ours / theirs - 1:.0%} above"


def _interval(value: Mapping, name: str = "") -> str:
    return "" if value["low"] is None else f" ({name}{percent(value['low'])} to {percent(value['high'])})"


def _value(row: Mapping) -> str:
    low, high = row["mrr"]["low"], row["mrr"]["high"]
    return (
        f" ({percent(row['mrr']['value'])}"
        + ("" if low is None else f", {percent(low)} to {percent(high)}")
        + ")"
    )


def _decay(best: Mapping) -> str:
    return f"{best['decay']:g} {decay_unit(best.get('decay_time', 'days'))}"


def _paired(best: Mapping, other: Mapping) -> str:
    """The paired gain over another model in points of MRR@20, where metrics.json has it."""
    gain = best.get("gain", {}).get(other["name"])
    if not gain:
        return ""
    low, high = gain["ci95"]
    return f"paired, the gain is {100 * gain['gain']:.2f} points ({100 * low:.2f} to {100 * high:.2f})"


def _overlap(one: Mapping, other: Mapping) -> bool:
    return (
        None not in (one["low"], other["low"]) and one["low"] <= other["high"] and other["low"] <= one["high"]
    )
