"""The first screen of the report: the answer in words, the key table, what to beware of. All from metrics.json and params.json."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from shelfspace.page import chapters
from shelfspace.page.palette import decay_unit, label_of
from shelfspace.page.words import clean, short

QUESTIONS = {
    "": "What will a customer look at next?",
    "view": "What will a customer look at next?",
    "add_to_cart": "What will a customer put in the cart next?",
    "purchase": "What will a customer buy next?",
}
SMALL_TEST, LOW_COVERAGE, MANY_REPEATS, SHORT_DAYS, MANY_DROPPED = 500, 0.98, 0.4, 7, 0.1
"""Limits of the alerts: targets, share of products, share of visits, days, share of rows."""


def summary(metrics: Mapping, params: Mapping, told: Sequence[chapters.Chapter], model: str = "") -> dict:
    """All that the first screen shows, ready for the template; `model` as in `answer`."""
    data = metrics.get("data", {})
    best = metrics.get("best", {})
    timings = stage_seconds(metrics)
    labels = {name: values.get("label") for name, values in metrics["models"].items()}
    declared = {p.name: p.default for chapter in told for p in chapter.parameters}
    return {
        "question": question(metrics, params),
        "source": source(params.get("data", "")),
        "days": days(data),
        "answer": answer(metrics, model, simulated=params.get("data") == "shop"),
        "table": key_table(metrics),
        "facts": [
            (name, _decay(best) if key == "decay" else labels.get(best[key]) or label_of(str(best[key])))
            for key, name in (("model", "Model"), ("embedding", "Embedding"), ("decay", "Decay"))
            if best.get(key) is not None
        ]
        + _apart(metrics),
        "alerts": alerts(metrics),
        "data": data,
        "protocol": metrics.get("protocol", ""),
        "params": params,
        "changed": changed(params.get("parameters", {}), declared),
        "timings": [(stage, seconds) for stage, seconds in timings.items()],
        "minutes": sum(timings.values()) / 60,
    }


def question(metrics: Mapping, params: Mapping) -> str:
    """What the report answers, as its headline; it says so where the shop is a simulated one."""
    asked = QUESTIONS.get(metrics.get("target_event", ""), QUESTIONS[""])
    return asked.replace("a customer", "a customer of a simulated shop") if params.get("data") == "shop" else asked


def _apart(metrics: Mapping) -> list[tuple[str, str]]:
    """The chosen model's MRR@20 on the users that chose it and on those that measure it, as a fact; none without the former."""
    values = metrics["models"][winner(metrics)]
    valid = values.get("valid", {}).get("all")
    return [("MRR@20", f"{percent(valid['mrr@20'])} on valid, which chose it; {percent(values['mrr@20'])} on test")] if valid else []


def stage_seconds(metrics: Mapping) -> dict[str, float]:
    """How long each stage took; the latencies of the models, which also depend on the machine, left out."""
    return {stage: seconds for stage, seconds in metrics.get("timings", {}).items() if stage != "latency"}


COLUMNS = {
    "all": ("all", ""),
    "seen": ("seen before", "Products that the customer knew"),
    "discovery": ("discovery", "Products that were new to the customer"),
}
"""The columns of the key table: head, and what its targets are in words. In discovery, products already seen are no candidates."""
FEW = 4
"""Models by MRR@20 that the key table shows unfolded, besides the chosen one and the best baseline of each column."""
SHOWN = {"hit_rate@20": "hr", "mrr@20": "mrr"}


def ranking(metrics: Mapping, column: str = "all") -> list[dict]:
    """Models by MRR@20 on the test targets of a column, best first, those without such targets and the ceiling left out.

    Each has name, label, kind, whether it is the one that was chosen ("best": on the valid users, or the first where
    metrics.json names none), and both measures with intervals and their places on a scale that all share.
    """
    models = {name: values for name, values in metrics["models"].items() if values.get("kind") != "ceiling"}
    found = {name: values if column == "all" else values.get(column) for name, values in models.items()}
    found = {name: values for name, values in found.items() if values}
    chosen = winner(metrics)
    top = {m: max((_reach(v, m) for v in found.values()), default=0) or 1 for m in SHOWN}
    return [
        {
            "name": name,
            "label": models[name].get("label") or label_of(name),
            "kind": models[name].get("kind", ""),
            "best": name == chosen,
        }
        | {key: _placed(values, metric, top[metric]) for metric, key in SHOWN.items()}
        for name, values in sorted(found.items(), key=lambda item: (-item[1]["mrr@20"], item[0]))
    ]


def winner(metrics: Mapping) -> str:
    """The model that was chosen on the valid users; the one with the highest MRR@20 where metrics.json names none."""
    models = {name: values for name, values in metrics["models"].items() if values.get("kind") != "ceiling"}
    chosen = metrics.get("best", {}).get("model")
    return chosen if chosen in models else min(models, key=lambda name: (-models[name]["mrr@20"], name), default="")


def _reach(values: Mapping, metric: str) -> float:
    return max(values[metric], *values.get("ci95", {}).get(metric, [0]))


def _placed(values: Mapping, metric: str, top: float) -> dict:
    """A value, its interval, and where both are on a scale from 0 to `top`, in % of its length."""
    low, high = values.get("ci95", {}).get(metric, (None, None))
    ends = {"value": values[metric], "low": low, "high": high}
    return ends | {"at" if end == "value" else f"{end}_at": round(100 * x / top, 1) for end, x in ends.items() if x is not None}


def key_table(metrics: Mapping) -> dict:
    """The table of the first screen: both measures in each of `COLUMNS`.

    Returns
    -------
    dict
        "columns": (key, head, number of targets) of those that have targets. "rows" and "more": the models by MRR@20, the few
        that matter and the rest; each with "cells", two a column. "ceiling": the row of what can be known, or None. "lead": the
        chosen model's paired differences, one (baseline, differences of the two measures) a column; empty where there are none.
    """
    models, chosen, told = metrics["models"], winner(metrics), metrics.get("columns", {})
    columns = [key for key in COLUMNS if key == "all" or any(values.get(key) for values in models.values())]
    parts = {name: {key: values if key == "all" else values.get(key) for key in columns} for name, values in models.items()}
    top = {(key, m): max((_reach(p[key], m) for p in parts.values() if p[key]), default=0) or 1 for key in columns for m in SHOWN}

    def row(name: str) -> dict:
        cells = [_placed(parts[name][key], m, top[key, m]) if parts[name][key] else None for key in columns for m in SHOWN]
        label, kind = models[name].get("label") or label_of(name), models[name].get("kind", "")
        return {"name": name, "label": label, "kind": kind, "best": name == chosen, "cells": cells}

    order = [found["name"] for found in ranking(metrics)]
    kept = {chosen, "popular", *order[:FEW], *(column["baseline"] for column in told.values())}
    if len(order) - len(kept & {*order}) < 3:  # so few are not worth a fold
        kept = {*order}
    lead = [(told[key]["baseline"], told[key]["paired"].get(chosen)) if key in told else None for key in columns]
    return {
        "columns": [(key, COLUMNS[key][0], told.get(key, {}).get("n")) for key in columns],
        "rows": [row(name) for name in order if name in kept],
        "more": [row(name) for name in order if name not in kept],
        "ceiling": next((row(name) for name in models if models[name].get("kind") == "ceiling"), None),
        "lead": [
            {
                "baseline": models[found[0]].get("label") or label_of(found[0]),
                "cells": [found[1][m] for m in SHOWN] if found[1] else None,
            }
            if found
            else None
            for found in lead
        ]
        if told
        else [],
    }


VERBS = {"": "look at", "view": "look at", "add_to_cart": "put in the cart", "purchase": "buy"}


def answer(metrics: Mapping, model: str = "", simulated: bool = False) -> dict:
    """The first screen in words: of 100 customers, how many are served, against what, how sure; what it costs, and what it cannot do.

    Parameters
    ----------
    metrics : mapping
    model : str
        The recommender whose recommendations the run wrote, from recommender.json; "" where that is not known.
    simulated : bool
        Whether the customers are simulated.

    Returns
    -------
    dict
        "lead": sentences on all targets. "points": (head, sentences) on each further part.
    """
    models, chosen, told, best = metrics["models"], winner(metrics), metrics.get("columns", {}), metrics.get("best", {})
    label = models[chosen].get("label") or label_of(chosen)
    verb = VERBS.get(metrics.get("target_event", ""), VERBS[""])
    everyone = told.get("all", {})
    one_each = everyone.get("n") == everyone.get("customers")  # several targets a customer: they, not customers, are counted
    value = _placed(models[chosen], "hit_rate@20", 1)
    others = _others(metrics, "all", chosen)
    digits = _digits([value["value"], *(models[name]["hit_rate@20"] for _, name in others)])
    whom = "customers" if one_each else "next products"
    finds = f"find what they {verb} next" if one_each else f"that customers {verb} stand"
    lead = [f"Of 100 {whom}, {_of_100(value['value'], digits)} {finds} among twenty recommendations{_sure(value)}."]
    if others:
        over = best.get("over_popular")
        more = {"popular": f" (a difference of {points(over)})"} if over else {}
        against = (f"{_of_100(models[name]['hit_rate@20'], digits)} with {what}{more.get(name, '')}" for what, name in others)
        lead.append(f"It would be {' and '.join(against)}.")
    parts = []
    for key, (_, what) in COLUMNS.items():
        column = told.get(key)
        mine = models[chosen] if key == "all" else models[chosen].get(key)
        if not everyone or not column or not mine:
            continue
        sentences = []
        if key != "all":
            theirs = _others(metrics, key, chosen)
            rates = [(what, models[name][key]["hit_rate@20"]) for what, name in theirs if models[name].get(key)]
            digits = _digits([mine["hit_rate@20"], *(rate for _, rate in rates)])
            against = " and ".join(f"{_of_100(rate, digits)} with {what}" for what, rate in rates)
            value = _placed(mine, "hit_rate@20", 1)
            sentences.append(
                f"{column['n']:,} of the {everyone['n']:,} targets. Of 100, {_of_100(value['value'], digits)} are "
                f"found{_sure(value)}{f', {against}' if against else ''}."
            )
        sentences.append(_verdict(metrics, key, label, chosen))
        parts.append((what or "All together", sentences))
    parts.append(("What leaves the pipeline", [_product(metrics, model), _made_of(best)]))
    parts.append(("What an answer costs", [_cost(metrics, chosen)]))
    parts.append(("What it cannot do", [_limits(simulated)]))
    paragraphs = [(head, clean(" ".join(text for text in sentences if text))) for head, sentences in parts]
    return {
        "lead": [clean(text) for text in lead],
        "points": [(head, text) for head, text in paragraphs if text],
    }


def _others(metrics: Mapping, column: str, chosen: str) -> list[tuple[str, str]]:
    """What a column's chosen model is held against, in words and by name: the most popular, and the best simple method."""
    models, baseline = metrics["models"], metrics.get("columns", {}).get(column, {}).get("baseline")
    baseline = baseline or next((row["name"] for row in ranking(metrics) if row["kind"] == "baseline" and row["name"] != chosen), None)
    found = [("the most popular products", "popular")] if "popular" in models and chosen != "popular" else []
    if baseline and baseline not in (chosen, "popular"):
        found.append((f"the best simple method, {models[baseline].get('label') or label_of(baseline)}", baseline))
    return found


def _verdict(metrics: Mapping, column: str, label: str, chosen: str) -> str:
    """Whether the chosen model is ahead of the best baseline of a column, by both measures, in one sentence."""
    told = metrics["columns"][column]
    other = metrics["models"][told["baseline"]].get("label") or label_of(told["baseline"])
    found = told["paired"].get(chosen)
    if told["baseline"] == chosen:
        return f"{label} is itself the best simple method here: nothing that was learned was chosen over it."
    if not found:
        return ""
    hits, rank = found["hit_rate@20"], found["mrr@20"]
    told = f"{label} is {standing(hits)} {other} in how many are found ({points(hits)})"
    if standing(hits) == standing(rank):
        return f"{told}, and in how high they stand."
    return f"{told}; in how high they stand (MRR@20), it is {standing(rank)} it ({points(rank)})."


def standing(found: Mapping) -> str:
    """Where a model stands to another by a paired difference: "ahead of", "behind" or "not shown to differ from"."""
    low, high = found["ci95"]
    return "ahead of" if low > 0 else "behind" if high < 0 else "not shown to differ from"


def points(found: Mapping) -> str:
    """A paired difference in words: "+5.07 points, 4.21 to 5.93"; points are hundredths of the measure, not shares of it."""
    gain, (low, high) = found["gain"], found["ci95"]
    return f"{100 * gain:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f}".replace("-", "\u2212")


def _digits(shares: Sequence[float]) -> int:
    """Decimals that tell shares apart as numbers of 100 customers: none, or one where that shows more of them different."""
    shown = [len({f"{100 * share:.{digits}f}" for share in (0, *shares)}) for digits in (0, 1)]
    return int(shown[1] > shown[0])


def _of_100(share: float, digits: int) -> str:
    return f"{100 * share:.{digits}f}"


def _sure(value: Mapping) -> str:
    return "" if value["low"] is None else f" (95 % confidence: {100 * value['low']:.1f} to {100 * value['high']:.1f})"


def _product(metrics: Mapping, model: str) -> str:
    """Whose recommendations a run wrote, and how that model was chosen to be the one reported."""
    models, chosen = metrics["models"], winner(metrics)
    label = models[chosen].get("label") or label_of(chosen)
    if not model:
        return ""
    text = "Twenty products for each customer, and the embeddings of products and customers."
    if model == chosen:
        return f"{text} They are {label}'s, which was chosen on other customers than those it is measured on."
    other = models.get(model, {}).get("label") or label_of(model)
    return f"{text} They are {other}'s, although the valid users chose {label}."


def _cost(metrics: Mapping, chosen: str) -> str:
    """The milliseconds that the chosen model takes for one customer; "" where they were not measured."""
    seconds = metrics.get("timings", {}).get("latency", {}).get(chosen, {})
    if "1" not in seconds:
        return ""
    batch = f", and {1000 * seconds['1024']:.2g} ms each when 1,024 are asked at once" if "1024" in seconds else ""
    return f"One customer's twenty products take {1000 * seconds['1']:.2g} ms on the machine of this run{batch}."


def _limits(simulated: bool) -> str:
    """What no figure of the page can show."""
    made_up = " These customers are simulated: run it on your own log before you believe a number." if simulated else ""
    return (
        "A new product that nobody clicked is not recommended unless places are kept for it (chapter 7). What is forecast is the "
        f"next visit on a log, not what a sale is worth.{made_up}"
    )


def _made_of(best: Mapping) -> str:
    """Which embeddings a model uses, and how fast what a customer saw fades; "" where metrics.json does not say."""
    if not best.get("embedding") or best.get("decay") is None:
        return ""
    space, decay = label_of(str(best["embedding"])), _decay(best)
    alone = best.get("user_decay")
    alone = f"; averaged by themselves, user embeddings do best with {_decay(alone)}" if alone else ""
    if best.get("model") == "ranked":
        return f"One of its sources, the tied recommender, starts from {space} and learned a decay of {decay}{alone}."
    if best.get("model") == "tied":
        return f"The model starts from {space} and learned a decay of {decay}{alone}."
    if best.get("model") == "dense":
        return f"The model uses the {space} user embedding with a decay of {decay}."
    return f"User embeddings are averages in the {space} space, with a decay of {decay}."


def difference(metrics: Mapping, other: str) -> dict | None:
    """The paired difference in MRR@20 of the chosen model to another on all targets, where metrics.json has it.

    It has those of the chosen model to all others in "best", and those of all to the best baseline in "columns".
    """
    chosen, column = winner(metrics), metrics.get("columns", {}).get("all", {})
    gains = metrics.get("best", {}).get("gain", {})
    if other in gains:
        return gains[other]
    if other == column.get("baseline"):
        return column["paired"].get(chosen, {}).get("mrr@20")
    if chosen == column.get("baseline") and other in column["paired"]:
        found = column["paired"][other]["mrr@20"]
        return found | {"gain": -found["gain"], "ci95": [-found["ci95"][1], -found["ci95"][0]]}
    return None


def _standing_to(metrics: Mapping, row: Mapping) -> str:
    """`standing` of the chosen model to that of a row of `ranking`: by the paired difference, else by the two intervals."""
    found, mine = difference(metrics, row["name"]), next(one for one in ranking(metrics) if one["best"])
    if found:
        return standing(found)
    one, other = mine["mrr"], row["mrr"]
    if None in (one["low"], other["low"]) or one["low"] <= other["high"] and other["low"] <= one["high"]:
        return "not shown to differ from"
    return "ahead of" if one["low"] > other["high"] else "behind"


def alerts(metrics: Mapping) -> list[str]:
    """What a reader must know before trusting the numbers; one sentence each."""
    data, found = metrics.get("data", {}), []
    if 0 < data.get("test", SMALL_TEST) < SMALL_TEST:
        found.append(f"Small test set: {data['test']:,} targets, so the intervals are wide; {SMALL_TEST} or more would be better.")
    coverage = {label_of(n): e["coverage"] for n, e in metrics.get("embeddings", {}).items() if "coverage" in e}
    coverage = coverage or ({"the embedding": data["coverage"]} if "coverage" in data else {})
    low = {name: share for name, share in coverage.items() if share < LOW_COVERAGE}
    if low:
        told = " and ".join(f"{percent(share)} ({name})" for name, share in low.items())
        found.append(f"Low coverage: only {told} of the products have an embedding; those without are never found by similarity.")
    if data.get("repeat_share", 0) > MANY_REPEATS:
        found.append(
            f"Heavy repeats: in {percent(data['repeat_share'])} of the visits the customer had seen "
            "the product before; compare the scores without products already seen."
        )
    span = days(data)
    if span is not None and span < SHORT_DAYS:
        found.append(f"Short time range: {span:.1f} days; a decay per day can hardly be told from such a log.")
    rows = ranking(metrics)
    mine, others = next(row for row in rows if row["best"]), [row for row in rows if not row["best"]]
    better = next((row for row in others if _standing_to(metrics, row) == "behind"), None)
    if better:
        gap = difference(metrics, better["name"])
        found.append(
            f"Another model is better: {mine['label']} was chosen on the validation users, but on the test users {better['label']} has "
            f"a higher MRR@20 beyond chance, {percent(better['mrr']['value'])} against {percent(mine['mrr']['value'])}"
            + (f" (paired, the difference is {points(gap)})." if gap else ".")
        )
    elif others and _standing_to(metrics, others[0]) == "not shown to differ from":
        gap = difference(metrics, others[0]["name"])
        found.append(
            f"Close race: {mine['label']} and {others[0]['label']} are not shown to differ in MRR@20"
            + (f" (paired, the difference is {points(gap)})." if gap else ".")
        )
    dropped = sum(data.get("dropped", {}).values())
    if dropped > MANY_DROPPED * data.get("rows_read", float("inf")):
        found.append(f"Many rows dropped: {dropped:,} of {data['rows_read']:,} ({percent(dropped / data['rows_read'])}); see the data.")
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
    names = [Path(str(item)).name or str(item) for item in (data if isinstance(data, list | tuple) else [data])]
    return "the simulated shop" if names == ["shop"] else short(", ".join(names), 80)


def days(data: Mapping) -> float | None:
    """Days between the first and the last event."""
    try:
        return (datetime.fromisoformat(data["last"]) - datetime.fromisoformat(data["first"])).total_seconds() / 86_400
    except (KeyError, TypeError, ValueError):
        return None


def percent(value: float | None) -> str:
    """0.1234 → "12.3%", and small shares with two digits that count: 0.00123 → "0.12%"."""
    if value is None or value != value:
        return "–"
    return f"{value:.1%}" if value >= 0.01 or value == 0 else f"{value:.2%}"


def _decay(best: Mapping) -> str:
    return f"{best['decay']:g} {decay_unit(best.get('decay_time', 'days'))}"
