"""The figures of what was measured: models side by side, what they cost, where they fail. Data in, a matplotlib `Figure` out."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from shelfspace.page import drawing, exhibits, palette, words
from shelfspace.page.palette import COLORS, INK, MUTED, PAPER


def latency(table: pd.DataFrame, metric: str = "mrr@20") -> Figure:
    """Quality against the time that a recommendation takes, on a logarithmic axis, a panel for each batch size.

    Up and to the left is better: nothing beats a model that has nothing above and left of it.

    Parameters
    ----------
    table : DataFrame
        model (str), batch (int, users at a time), seconds (per user), value (0–1), kind ("baseline" | …).
    metric : str
        Name of the quality, for the axis.
    """
    drawing.need(table, ("model", "batch", "seconds", "value", "kind"), "latency")
    batches = sorted(table["batch"].unique())
    fig, panels = drawing.figure(1, len(batches), height=4.6, sharex=True, sharey=True)
    for axes, batch in zip(panels, batches):
        part = table[table["batch"] == batch].sort_values("seconds", kind="stable")
        for row in part.itertuples():
            axes.plot(
                1000 * row.seconds,
                row.value,
                linestyle="none",
                color=palette.color_of(row.model),
                marker=palette.marker_of(row.model),
                markersize=9,
                markerfacecolor=PAPER if row.kind == "baseline" else palette.color_of(row.model),
                markeredgewidth=1.6,
                label=palette.label_of(row.model),
            )
        best = part[part["value"] > part["value"].cummax().shift(fill_value=-1)]
        axes.plot(1000 * best["seconds"], best["value"], color=MUTED, linewidth=1, zorder=0, drawstyle="steps-post")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(title=f"{batch:,} {'users' if batch > 1 else 'user'} at a time", xlabel="ms per user")
        axes.margins(x=0.12, y=0.1)
        drawing.thousands(axes.xaxis)
    panels[0].set_ylabel(palette.metric_label(metric))
    drawing.percent(panels[0].yaxis)
    handles, labels = panels[0].get_legend_handles_labels()
    order = np.argsort([-table.loc[table["model"].map(palette.label_of) == label, "value"].iloc[0] for label in labels], kind="stable")
    fig.legend([handles[i] for i in order], [labels[i] for i in order], loc="outside lower center", ncols=2)
    return fig


def reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """How often the first product is the right one, against the probability that the model gave it; the diagonal is honest.

    Parameters
    ----------
    tables : mapping of model name to DataFrame
        probability, hits, lo, hi (0–1), a row for each bin (`shelfspace.measure.beyond_accuracy.calibration`).
    """
    fig, (axes,) = drawing.figure(height=3.4)
    right = max(float(bins[["probability", "hi"]].to_numpy().max()) for bins in tables.values())
    axes.plot([0, right], [0, right], color=MUTED, linewidth=1, linestyle="--", label="honest")
    for name, bins in tables.items():
        drawing.need(bins, ("probability", "hits", "lo", "hi"), "reliability")
        drawing.interval(
            axes, bins["probability"], bins["hits"], bins["lo"], bins["hi"], palette.color_of(name),
            marker=palette.marker_of(name), linewidth=1.4, label=palette.label_of(name),
        )  # fmt: skip
    axes.set(xlabel="probability given to the first product", ylabel="share of users whose target it was")
    drawing.percent(axes.xaxis)
    drawing.percent(axes.yaxis)
    axes.legend(loc="upper left")
    return fig


def slices(table: pd.DataFrame, metric: str = "mrr@20") -> Figure:
    """One metric in parts of the test set, a panel for each way to cut it.

    Parameters
    ----------
    table : DataFrame
        slice (str, the way to cut), group (str, in the order to draw), model (str), value, lo, hi (0–1; lo
        and hi may be missing in a row); optionally n (users in the group) and label (readable name of the
        model).
    metric : str
        Name of the metric, for the axis.
    """
    drawing.need(table, ("slice", "group", "model", "value", "lo", "hi"), "slices")
    names = list(dict.fromkeys(table["slice"]))
    models = list(dict.fromkeys(table["model"]))
    labels = dict(zip(table["model"], table["label" if "label" in table else "model"]))
    across = min(2, len(names))
    down = -(-len(names) // across)
    fig, panels = drawing.figure(down, across, height=0.6 + 1.9 * down + 0.22 * ((len(models) + 1) // 2), sharey=True)
    for spare in panels.ravel()[len(names) :]:
        spare.set_visible(False)
    for number, (axes, name) in enumerate(zip(panels.ravel(), names)):
        cut = table[table["slice"] == name]
        groups = list(dict.fromkeys(cut["group"]))
        for place, model in enumerate(models):
            part = cut[cut["model"] == model]
            x = part["group"].map(groups.index).to_numpy(dtype=float) + (place - (len(models) - 1) / 2) * min(0.16, 0.8 / len(models))
            drawing.interval(
                axes,
                x,
                part["value"],
                part["lo"],
                part["hi"],
                palette.color_of(model),
                marker=palette.marker_of(model),
                linestyle="none",
                label=words.short(labels[model], 34),
            )
        size = cut.groupby("group")["n"].first() if "n" in cut else {}
        ticks = [
            textwrap.fill(words.short(str(group).replace("_", " "), 16), 9) + (f"\nn = {int(size[group]):,}" if group in size else "")
            for group in groups
        ]
        axes.set_xticks(range(len(groups)), ticks)
        axes.set_xlim(-0.55, len(groups) - 0.45)
        axes.set(title=words.short(name, 60), ylabel=palette.metric_label(metric) if number % across == 0 else "")
        axes.yaxis.set_major_locator(MaxNLocator(4))
        drawing.percent(axes.yaxis)
        axes.grid(axis="x", visible=False)
    axes.set_ylim(0, 1.05 * float(np.nanmax(table[["value", "hi"]].to_numpy(dtype=float))))  # of all, which share it
    fig.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, columnspacing=1.2)
    return fig


def learning_curve(history: Sequence[Mapping[str, float]]) -> Figure:
    """Training and validation loss of each epoch, and MRR@20 of the valid users; the epoch marked where it is highest.

    Parameters
    ----------
    history : sequence of mapping
        Per epoch loss, valid_loss and valid_mrr@20, as the recommenders' `train` gives it.
    """
    history = pd.DataFrame(history)
    drawing.need(history, ("loss", "valid_loss", "valid_mrr@20"), "learning_curve")
    epochs, kept = np.arange(1, len(history) + 1), int(np.argmax(history["valid_mrr@20"])) + 1
    fig, panels = drawing.figure(1, 2, height=3.0)
    for column, name, label, line in (("loss", "train", "training", "--"), ("valid_loss", "valid", "validation", "-")):
        panels[0].plot(epochs, history[column], color=COLORS[name], linestyle=line, marker="o", markersize=4, label=label)
    panels[0].set(title="Loss", ylabel="cross-entropy")
    panels[0].legend(loc="best")
    panels[1].plot(epochs, history["valid_mrr@20"], color=COLORS["valid"], marker="o", markersize=4)
    panels[1].set(title="MRR@20, validation")
    drawing.percent(panels[1].yaxis)
    for axes in panels:
        axes.axvline(kept, color=INK, linewidth=1, linestyle=(0, (1, 2)))
        axes.set_xlabel(f"epoch (dotted: {kept} is kept)")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="x", visible=False)
    return fig


def columns_table(
    results: Mapping[str, Mapping[str, Mapping | None]], metric: str, order: Sequence[str], heads: Mapping[str, str]
) -> pd.DataFrame:
    """A table of models with one metric and its interval, in percent, in three columns: "12.3 (11.8–12.9)"; "–" without a target.

    Parameters
    ----------
    results : mapping of model name to mapping of column to results
        As `shelfspace.measure.evaluation.columns` gives them.
    metric : str
    order : sequence of str
        Names of the models, the first row first.
    heads : mapping of column to str
        `shelfspace.measure.evaluation.COLUMNS`.
    """
    rows = {
        palette.label_of(name): {
            heads[key]: exhibits.with_interval(found[metric], found["ci95"][metric]) if found else "–"
            for key, found in results[name].items()
        }
        for name in order
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model").reset_index()
