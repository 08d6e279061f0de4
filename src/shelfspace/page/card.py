"""The model card beside the report (Mitchell et al. 2019, "Model Cards for Model Reporting"): what the run's recommendations are made
of, how good they are for whom, and what they are not for. All from metrics.json, params.json and recommender.json."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import jinja2

from shelfspace.files import run_files, stages
from shelfspace.page import first_screen
from shelfspace.page.first_screen import percent, points
from shelfspace.page.palette import label_of
from shelfspace.page.words import clean, short

TEMPLATES = Path(__file__).parent / "templates"
PROTOCOLS = {
    "last-product": "Each customer's most recent product is the target, and what came before is the history that is asked with. Targets are "
    "put to train, valid and test by a hash of the customer's id. The valid ones chose settings and model; the figures are of the test ones, "
    "which no training saw.",
    "time": "What came before a date trains. Each visit of a later session but its first is a target, asked with all that the customer did "
    "before it. Customers held out before the date chose settings and model; the figures are of what came after it.",
}
LIMITS = (
    "It was measured on what customers did by themselves, not on what they do when they are shown these products; that takes an experiment.",
    "It knows no product that nobody clicked in the window, but for the places that `new_places` keeps for such.",
    "To whoever saw no product that it knows, it can only show what is popular.",
    "It learns what is clicked. It does not know stock, margin or taste, and what was shown more was clicked more.",
    "It grows old: train it anew as the assortment and the season change.",
)


def render(run_dir: str | Path) -> Path:
    """Write RUN/card.md, in Markdown, atomically.

    Raises
    ------
    ValueError
        If metrics.json or params.json is missing or cannot be read.
    """
    run_dir = Path(run_dir)
    metrics = run_files.needed(run_dir, "metrics.json", "no card can be made; the notebook 06_evaluate writes it")
    params = run_files.needed(run_dir, "params.json", "no card can be made; the pipeline writes it")
    left = run_files.read_object(run_dir / "recommender.json") or {}
    with run_files.atomic(run_dir / "card.md") as temporary:
        temporary.write_text(text(metrics, params, left.get("model", "")), encoding="utf-8", newline="\n")
    return run_dir / "card.md"


def text(metrics: Mapping, params: Mapping, model: str = "") -> str:
    """The card; of the model whose recommendations left the run, or where that is not known of the one that was chosen."""
    models, data, best = metrics["models"], metrics.get("data", {}), metrics.get("best", {})
    name = model if model in models else first_screen.winner(metrics)
    label = models[name].get("label") or label_of(name)
    defaults = {parameter.name: repr(parameter.default) for parameter in stages.parameters()}
    columns = {key: models[name] if key == "all" else models[name].get(key) for key in first_screen.COLUMNS}
    return _templates().get_template("card.md.j2").render(
        question=first_screen.question(metrics, params),
        what=_what(label, best, data),
        source=clean(first_screen.source(params.get("data", ""))),
        data=data,
        dropped=list(data.get("dropped", {}).items()),
        licence=clean(data.get("licence", "")) or ("none is needed, it is simulated" if params.get("data") == "shop" else "not stated"),
        protocol=PROTOCOLS.get(metrics.get("protocol", ""), "Not stated."),
        rows=[_row(metrics, name, key, found) for key, found in columns.items() if found],
        slices=[
            {"name": head, "n": cut["n"]} | _figures(cut["models"][name])
            for head, cut in metrics.get("slices", {}).items()
            if name in cut.get("models", {})
        ],
        limits=[*(() if params.get("data") != "shop" else ("The shop is simulated: nothing here tells of a real one.",)), *first_screen.alerts(metrics), *LIMITS],
        params=params,
        changed=first_screen.changed(params.get("parameters", {}), defaults),
        count=lambda value: f"{value:,}" if isinstance(value, int) else "–",
    )  # fmt: skip


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    environment.filters["short"] = lambda value, length: short(clean(str(value)), length).replace("|", "/")
    return environment


def _what(label: str, best: Mapping, data: Mapping) -> str:
    """What the model gives, to whom, in two sentences."""
    whom = f"{data['users_kept']:,} customers" if data.get("users_kept") else "each customer"
    space = f" It builds on the {label_of(str(best['embedding']))} product embeddings." if best.get("embedding") else ""
    return clean(f"{label} puts the products of a shop in order for {whom}, by what each has seen; twenty for each leave the run.{space}")


def _row(metrics: Mapping, name: str, key: str, found: Mapping) -> dict:
    """The model on all targets, on those seen before or on the new ones, beside the best simple method there."""
    column = metrics.get("columns", {}).get(key, {})
    other, paired = column.get("baseline"), column.get("paired", {}).get(name)
    row = {"name": first_screen.COLUMNS[key][0], "n": found.get("n")} | _figures(found)
    label = (metrics["models"][other].get("label") or label_of(other)) if other else "–"
    return row | {"other": clean(label), "lead": points(paired["mrr@20"]) if paired else "it is that itself" if other == name else "–"}


def _figures(found: Mapping) -> dict[str, str]:
    return {short_name: _with_interval(found, metric) for short_name, metric in (("hit", "hit_rate@20"), ("mrr", "mrr@20"))}


def _with_interval(found: Mapping, metric: str) -> str:
    low, high = (found.get("ci95") or {}).get(metric) or (None, None)
    return percent(found.get(metric)) + ("" if low is None else f" ({percent(low)} to {percent(high)})")
