"""The figures of the report: data in, a matplotlib `Figure` out.

Notebooks display with `show`, `table`, `folded`, `takeaways` and `note`, handed on from `shelfspace.exhibits`; colours
and names come from `shelfspace.palette`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from shelfspace.exhibits import clean, folded, note, short, show, table, table_html, takeaways, with_interval  # noqa: F401, some only handed on
from shelfspace.palette import (
    COLORS,
    INK,
    MUTED,
    PALETTE,
    PAPER,
    color_of,
    colors_of,
    decay_unit,
    label_of,
    marker_of,
    metric_label,
    theme,
)

__all__ = [
    "clean",
    "color_of",
    "colors_of",
    "columns_table",
    "coverage_by_count",
    "decay_sweep",
    "decay_unit",
    "decay_weights",
    "events_per_day",
    "gains",
    "label_of",
    "latency",
    "learning_curve",
    "metric_label",
    "model_comparison",
    "note",
    "parameter_sweep",
    "product_labels",
    "reliability",
    "sequence_lengths",
    "short",
    "show",
    "similarity_heatmap",
    "slices",
    "table",
    "table_html",
    "takeaways",
    "theme",
    "training_loss",
    "triplet_margins",
    "tsne_map",
    "what_it_costs",
    "with_interval",
]

WIDTH = 6.4  # inches: the width of the report's column, so that text in figures has the size of text around them


def product_labels(products: pd.DataFrame) -> np.ndarray:
    """What to call each product in figures and tables: its name, else its id.

    Parameters
    ----------
    products : DataFrame
        product_id; optionally name (may be missing in a row).

    Returns
    -------
    ndarray of object (str), shape (len(products),)
        At most 48 characters each.
    """
    _need(products, ("product_id",), "product_labels")
    ids = products["product_id"].astype(str)
    names = products["name"].astype(object).where(products["name"].notna(), ids) if "name" in products else ids
    return np.array([short(name, 48) or identity for name, identity in zip(names, ids)], dtype=object)


def _figure(rows: int = 1, columns: int = 1, height: float = 3.2, **kwargs) -> tuple[Figure, np.ndarray]:
    """A figure of the report's width outside pyplot, so that nothing displays it a second time."""
    theme()
    fig = Figure(figsize=(WIDTH, height), layout="constrained")
    fig.get_layout_engine().set(w_pad=0.07, h_pad=0.06)
    return fig, np.atleast_1d(fig.subplots(rows, columns, **kwargs))


def _need(df: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    missing = [column for column in columns if column not in df.columns]
    if missing:
        raise ValueError(f"{what} needs a column {missing[0]!r}; it got {', '.join(map(str, df.columns)) or 'none'}.")


def _thousands(axis: mpl.axis.Axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value == round(value) else f"{value:g}"))


def _percent(axis: mpl.axis.Axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g}%"))


def _interval(axes: Axes, x, y, lo, hi, color: str, *, horizontal: bool = False, **kwargs) -> None:
    """A dot with its interval; lo and hi may hold NaN (no interval known)."""
    value = np.asarray(x if horizontal else y, dtype=float)
    low, high = (np.asarray(bound, dtype=float) for bound in (lo, hi))
    error = np.nan_to_num(np.maximum(0, [value - low, high - value]))
    axes.errorbar(
        x,
        y,
        **{"xerr" if horizontal else "yerr": error},
        color=color,
        ecolor=color,
        elinewidth=1.6,
        capsize=0,
        **kwargs,
    )


def sequence_lengths(lengths: Sequence[int], unit: str = "visits per user") -> Figure:
    """How long the sequences are: a histogram on a logarithmic axis with the median marked.

    Parameters
    ----------
    lengths : array of int, shape (n_users,)
    unit : str
        Label of the axis.
    """
    lengths = np.asarray(lengths)
    fig, (axes,) = _figure(height=2.9)
    edges = np.unique(np.round(np.geomspace(max(1, lengths.min()), lengths.max() + 1, 32)).astype(int))
    counts, _ = np.histogram(lengths, bins=np.append(edges, edges[-1] + 1) - 0.5)
    widths = np.diff(np.append(edges, edges[-1] + 1))  # bins hold one length or several: draw users per single length
    axes.bar(
        edges - 0.5,
        counts / widths,
        width=widths,
        align="edge",
        color=PALETTE[0],
        alpha=0.85,
        edgecolor=PAPER,
        linewidth=0.6,
    )
    axes.set_xscale("log")
    middle = float(np.median(lengths))
    axes.axvline(middle, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(
        f"median {middle:g}",
        (middle, 1),
        xycoords=("data", "axes fraction"),
        xytext=(5, -4),
        textcoords="offset points",
        va="top",
    )
    ticks = [tick for tick in (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500, 1000, 2000, 5000, 10_000) if edges[0] <= tick <= edges[-1]]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set(xlabel=f"{unit} (logarithmic)", ylabel="users per length")
    axes.grid(axis="x", visible=False)
    _thousands(axes.yaxis)
    return fig


def events_per_day(df: pd.DataFrame) -> Figure:
    """Events per day, a panel for each kind of event with its own scale from zero.

    Parameters
    ----------
    df : DataFrame
        day (date or timestamp), event (str), count (int).
    """
    _need(df, ("day", "event", "count"), "events_per_day")
    df = df.assign(day=pd.to_datetime(df["day"]))
    order = df.groupby("event")["count"].sum().sort_values(ascending=False).index
    days = pd.date_range(df["day"].min(), df["day"].max(), freq="D")
    fig, panels = _figure(len(order), height=0.9 + 1.15 * len(order), sharex=True)
    for axes, event in zip(panels, order):
        count = df[df["event"] == event].groupby("day")["count"].sum().reindex(days, fill_value=0)
        axes.fill_between(days, count, color=color_of(event), alpha=0.18, linewidth=0)
        axes.plot(days, count, color=color_of(event), linewidth=1.8, marker="o" if len(days) < 3 else "")
        axes.set_title(f"{short(label_of(event), 40)} ({count.sum():,})")
        axes.set_ylim(0, max(1, count.max() * 1.1))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        _thousands(axes.yaxis)
        axes.grid(axis="x", visible=False)
    panels[-1].xaxis.set_major_locator(mpl.dates.AutoDateLocator(minticks=3, maxticks=7))
    panels[-1].xaxis.set_major_formatter(mpl.dates.ConciseDateFormatter(panels[-1].xaxis.get_major_locator()))
    fig.supylabel("events per day", fontsize=11)
    return fig


def training_loss(losses: Mapping[str, Sequence[float]]) -> Figure:
    """Mean training loss of each epoch, a panel for each trainer: their losses are not on one scale.

    Parameters
    ----------
    losses : mapping of trainer name to losses, one per epoch
    """
    losses = {name: values for name, values in losses.items() if len(values)}
    if not losses:
        raise ValueError("training_loss got no losses; give at least one trainer with one loss per epoch.")
    fig, panels = _figure(1, len(losses), height=2.7)
    for axes, (name, values) in zip(panels, losses.items()):
        axes.plot(
            np.arange(1, len(values) + 1),
            values,
            color=color_of(name),
            marker="o" if len(values) < 30 else "",
        )
        axes.set(title=label_of(name), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panels[0].set_ylabel("mean training loss")
    return fig


def tsne_map(xy: np.ndarray, categories: Sequence[str], title: str = "", top: int = 10) -> Figure:
    """A map of the products, coloured by category: the `top` most frequent ones, the rest grey.

    Parameters
    ----------
    xy : ndarray, shape (n, 2)
        Positions; their axes have no unit and are not drawn.
    categories : sequence of str, shape (n,)
        Missing ones are grey.
    title : str
    top : int
        At most ten categories can be told apart.
    """
    xy = np.asarray(xy)
    labels = pd.Series(list(categories), dtype=object)
    frequent = list(
        labels.dropna()
        .value_counts()
        .rename_axis("name")
        .reset_index()
        .sort_values(["count", "name"], ascending=[False, True])["name"][:top]
    )
    colors = colors_of(frequent)
    size = float(np.clip(18_000 / max(1, len(xy)), 3, 26))
    fig, (axes,) = _figure(height=5.9 + 0.22 * ((len(frequent) + 3) // 3))
    rest = ~labels.isin(frequent).to_numpy()
    if rest.any():
        axes.scatter(*xy[rest].T, s=size, color=COLORS["other"], alpha=0.6, linewidth=0, label="other")
    for place, name in enumerate(frequent):
        chosen = (labels == name).to_numpy()
        axes.scatter(
            *xy[chosen].T,
            s=size * 1.1,
            color=colors[str(name)],
            alpha=0.8,
            linewidth=0,
            marker="os^D"[place % 4],
            label=short(str(name), 22),
        )
    axes.set(xticks=[], yticks=[], title=title)
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    legend = fig.legend(loc="outside lower center", ncols=3, handletextpad=0.3, columnspacing=1.4)
    for handle in legend.legend_handles:
        handle.set(sizes=[36], alpha=1)
    return fig


def similarity_heatmap(matrix: np.ndarray, labels: Sequence[str], title: str = "") -> Figure:
    """Cosine similarities of a few products; numbers are written in the cells up to twelve products.

    Parameters
    ----------
    matrix : ndarray, shape (n, n)
    labels : sequence of str, shape (n,)
    """
    matrix = np.asarray(matrix, dtype=float)
    names = [short(str(label), 26) for label in labels]
    fig, (axes,) = _figure(height=2.2 + 0.36 * len(names))
    sns.heatmap(
        matrix,
        vmin=min(0.0, float(np.nanmin(matrix))),
        vmax=1,
        cmap="crest",
        annot=len(names) <= 12,
        fmt=".2f",
        annot_kws={"fontsize": 9},
        linewidths=1,
        linecolor=PAPER,
        xticklabels=names,
        yticklabels=names,
        ax=axes,
        cbar_kws={"label": "cosine similarity", "shrink": 0.8},
    )
    axes.set_xticks(axes.get_xticks(), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.set_title(title)
    return fig


def triplet_margins(same, other, title: str = "") -> Figure:
    """How similar a product is to one of its own group and to one of another: two distributions and their
    medians.

    Parameters
    ----------
    same, other : array of float, shape (n,), or mapping of embedding name to such arrays
        Cosine similarities of the same anchors to a product of their own and of another group (a category,
        say).
    """
    same = same if isinstance(same, Mapping) else {title: same}
    other = other if isinstance(other, Mapping) else {title: other}
    fig, panels = _figure(len(same), height=0.8 + 2.0 * len(same), sharex=True)
    bins = np.linspace(min(-0.2, *(float(np.min(v)) for v in [*same.values(), *other.values()])), 1, 50)
    for axes, name in zip(panels, same):
        for values, label, color, line in (
            (same[name], "same group", PALETTE[0], "-"),
            (other[name], "another group", "#b8860b", "--"),
        ):
            axes.hist(values, bins=bins, density=True, color=color, alpha=0.25, linewidth=0)
            axes.hist(
                values,
                bins=bins,
                density=True,
                color=color,
                histtype="step",
                linewidth=1.6,
                linestyle=line,
                label=f"{label} (median {np.median(values):.2f})",
            )
        axes.set(title=label_of(name), ylabel="density")
        axes.grid(axis="x", visible=False)
        axes.set_ylim(top=axes.get_ylim()[1] * 1.32)
        axes.legend(loc="upper left", ncols=2, columnspacing=1, handlelength=1.6)
    panels[-1].set_xlabel("cosine similarity to the anchor")
    return fig


def decay_weights(ages_days: Sequence[float], weights: Mapping[float, Sequence[float]]) -> Figure:
    """How much each of one user's visits counts under several decays; time runs to the right, to "now".

    Parameters
    ----------
    ages_days : array of float, shape (n,)
        Days before now, one per visit.
    weights : mapping of decay (1/day) to array of float, shape (n,)
        Each sums to 1.
    """
    ages = np.asarray(ages_days, dtype=float)
    order = np.argsort(-ages, kind="stable")
    fig, (axes,) = _figure(height=3.4)
    shades = sns.color_palette("viridis", len(weights) + 1)[: len(weights)]
    for (decay, values), color, marker in zip(sorted(weights.items()), shades, "osD^vXP*hp" * 3):
        axes.plot(
            ages[order],
            np.asarray(values)[order],
            color=color,
            marker=marker,
            markersize=5,
            linewidth=1.6,
            label=f"d = {decay:g}",
        )
    axes.invert_xaxis()
    axes.set(xlabel="days before now", ylabel="weight of the visit")
    axes.set_ylim(bottom=0)
    _percent(axes.yaxis)
    axes.grid(axis="x", visible=False)
    axes.legend(title="decay", loc="upper left", alignment="left")
    return fig


def decay_sweep(table: pd.DataFrame, metrics: Sequence[str] = ("hit_rate@20", "mrr@20"), unit: str = "per day") -> Figure:
    """Quality against the decay; see `parameter_sweep`."""
    return parameter_sweep(table, "decay", f"decay d ({unit}), values tried", metrics)


def parameter_sweep(table: pd.DataFrame, parameter: str, label: str = "", metrics: Sequence[str] = ("hit_rate@20", "mrr@20")) -> Figure:
    """Quality against a parameter, a panel for each metric, 95 % intervals as bands, the best value ringed.

    Parameters
    ----------
    table : DataFrame
        A column named as the parameter (numbers, which are set in order, or texts, which keep theirs), and for each
        metric NAME the columns NAME, NAME_lo, NAME_hi; optionally model (a line for each).
    parameter : str
    label : str
        Of the axis; the parameter's name by default.
    """
    what = "decay_sweep" if parameter == "decay" else "parameter_sweep"
    _need(table, [parameter, *[m + end for m in metrics for end in ("", "_lo", "_hi")]], what)
    table = table if "model" in table else table.assign(model="recommender")
    values = list(table[parameter].unique())
    if pd.api.types.is_numeric_dtype(table[parameter]):
        values = sorted(values)
    place = {value: x for x, value in enumerate(values)}
    ticks = [short(f"{value:g}" if isinstance(value, (int, float, np.integer)) else str(value), 16) for value in values]
    fig, panels = _figure(1, len(metrics), height=3.3)
    for axes, metric in zip(panels, metrics):
        for name, part in table.groupby("model", sort=False):
            part = part.assign(_x=part[parameter].map(place)).sort_values("_x")
            x = part["_x"].to_numpy()
            axes.fill_between(x, part[metric + "_lo"], part[metric + "_hi"], color=color_of(name), alpha=0.18, linewidth=0)
            axes.plot(
                x,
                part[metric],
                color=color_of(name),
                marker=marker_of(name),
                markersize=5,
                label=label_of(name),
            )
            top = int(np.argmax(part[metric].to_numpy()))
            axes.plot(
                x[top],
                part[metric].iloc[top],
                "o",
                markersize=13,
                markerfacecolor="none",
                markeredgecolor=color_of(name),
            )
        axes.set_xticks(range(len(values)), ticks, rotation=45 if len(values) > 7 or max(map(len, ticks)) > 7 else 0)
        axes.set(title=metric_label(metric), xlabel=clean(label or parameter))
        axes.grid(axis="x", visible=False)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        _percent(axes.yaxis)
    if table["model"].nunique() > 1:
        fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


def model_comparison(table: pd.DataFrame) -> Figure:
    """Every model with its 95 % interval, a panel for each metric, sorted by the last one; baselines are
    hollow.

    Parameters
    ----------
    table : DataFrame
        model (str), metric (str), value, lo, hi (0–1), kind ("baseline" | "embedding" | "recommender");
        optionally label.
    """
    _need(table, ("model", "metric", "value", "lo", "hi", "kind"), "model_comparison")
    metrics = list(dict.fromkeys(table["metric"]))
    order = table[table["metric"] == metrics[-1]].sort_values(["value", "model"], kind="stable")
    order = order.assign(label=order["label"] if "label" in order else order["model"])
    fig, panels = _figure(1, len(metrics), height=1.1 + 0.36 * len(order), sharey=True)
    for axes, metric in zip(panels, metrics):
        part = table[table["metric"] == metric].set_index("model")
        right = float(np.nanmax(part[["value", "hi"]].to_numpy()))
        for y, (model, kind) in enumerate(zip(order["model"], order["kind"])):
            if model not in part.index:
                continue
            row, color = part.loc[model], color_of(model)
            fill = PAPER if kind == "baseline" else color
            _interval(
                axes,
                [row["value"]],
                [y],
                [row["lo"]],
                [row["hi"]],
                color,
                horizontal=True,
                marker=marker_of(model),
                markersize=7,
                markerfacecolor=fill,
                markeredgewidth=1.6,
            )
            end = np.nanmax([row["value"], row["hi"]])
            axes.annotate(
                f"{row['value']:.1%}",
                (end, y),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=9.5,
                fontweight="bold" if row["value"] == part["value"].max() else "normal",
            )
        axes.set_xlim(0, right * 1.32)
        axes.set_yticks(range(len(order)), [textwrap.fill(short(label, 60), 26) for label in order["label"]])
        axes.set_title(metric_label(metric))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        _percent(axes.xaxis)
        axes.grid(axis="y", visible=False)
    fig.supxlabel("dot: mean, line: 95 % interval, hollow: baseline", fontsize=9.5, color=MUTED)
    return fig


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
    _need(table, ("model", "batch", "seconds", "value", "kind"), "latency")
    batches = sorted(table["batch"].unique())
    fig, panels = _figure(1, len(batches), height=4.6, sharex=True, sharey=True)
    for axes, batch in zip(panels, batches):
        part = table[table["batch"] == batch].sort_values("seconds", kind="stable")
        for row in part.itertuples():
            axes.plot(
                1000 * row.seconds,
                row.value,
                linestyle="none",
                color=color_of(row.model),
                marker=marker_of(row.model),
                markersize=9,
                markerfacecolor=PAPER if row.kind == "baseline" else color_of(row.model),
                markeredgewidth=1.6,
                label=label_of(row.model),
            )
        best = part[part["value"] > part["value"].cummax().shift(fill_value=-1)]
        axes.plot(1000 * best["seconds"], best["value"], color=MUTED, linewidth=1, zorder=0, drawstyle="steps-post")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(title=f"{batch:,} {'users' if batch > 1 else 'user'} at a time", xlabel="ms per user")
        axes.margins(x=0.12, y=0.1)
        _thousands(axes.xaxis)
    panels[0].set_ylabel(metric_label(metric))
    _percent(panels[0].yaxis)
    handles, labels = panels[0].get_legend_handles_labels()
    order = np.argsort([-table.loc[table["model"].map(label_of) == label, "value"].iloc[0] for label in labels], kind="stable")
    fig.legend([handles[i] for i in order], [labels[i] for i in order], loc="outside lower center", ncols=2)
    return fig


def gains(table: pd.DataFrame) -> Figure:
    """What each of several changes brought, in points, with its 95 % interval, a panel for each metric; hollow: not shown to differ.

    Parameters
    ----------
    table : DataFrame
        model (str, for the colour), label (str), metric (str), gain, lo, hi (shares, paired differences).
    """
    _need(table, ("model", "label", "metric", "gain", "lo", "hi"), "gains")
    measures, labels = list(dict.fromkeys(table["metric"])), list(dict.fromkeys(table["label"]))[::-1]
    fig, panels = _figure(1, len(measures), height=1.1 + 0.34 * len(labels), sharey=True)
    for axes, metric in zip(panels, measures):
        for row in table[table["metric"] == metric].itertuples():
            clear = row.lo > 0 or row.hi < 0
            _interval(
                axes, [100 * row.gain], [labels.index(row.label)], [100 * row.lo], [100 * row.hi], color_of(row.model),
                horizontal=True, marker=marker_of(row.model), markersize=7, markeredgewidth=1.6,
                markerfacecolor=color_of(row.model) if clear else PAPER,
            )  # fmt: skip
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(range(len(labels)), [textwrap.fill(short(label, 60), 30) for label in labels])
        axes.set_title(metric_label(metric))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="y", visible=False)
    fig.supxlabel("points gained over the default, line: interval, hollow: not shown to differ", fontsize=9.5, color=MUTED)
    return fig


def what_it_costs(table: pd.DataFrame, metric: str = "mrr@20") -> Figure:
    """Quality, time and size of each model, a panel for each; time and size on logarithmic axes.

    Parameters
    ----------
    table : DataFrame
        model (str, for the colour), label (str), value (0–1), user_ms, product_ms (milliseconds for one user, and to place
        one new product, NaN where that cannot be done), megabytes.
    metric : str
        Name of the quality.
    """
    _need(table, ("model", "label", "value", "user_ms", "product_ms", "megabytes"), "what_it_costs")
    table = table.sort_values("value", kind="stable")
    fig, (quality, speed, size) = _figure(1, 3, height=1.4 + 0.34 * len(table), sharey=True)
    for y, row in enumerate(table.itertuples()):
        color, marker = color_of(row.model), marker_of(row.model)
        quality.plot([row.value], [y], marker, color=color, markersize=7)
        speed.plot([row.user_ms], [y], marker, color=color, markersize=7)
        speed.plot([row.product_ms], [y], marker, color=color, markersize=7, markerfacecolor=PAPER, markeredgewidth=1.6)
        size.plot([row.megabytes], [y], marker, color=color, markersize=7)
    quality.set_yticks(range(len(table)), [textwrap.fill(short(label, 60), 30) for label in table["label"]])
    quality.set_title(metric_label(metric))
    quality.xaxis.set_major_locator(MaxNLocator(3))
    _percent(quality.xaxis)
    for axes, title in ((speed, "ms"), (size, "MB")):
        axes.set(title=title, xscale="log")
        axes.margins(x=0.15)
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if axes is speed else (1, 3)))
        axes.xaxis.set_minor_locator(NullLocator())
        _thousands(axes.xaxis)
    for axes in (quality, speed, size):
        axes.grid(axis="y", visible=False)
    fig.supxlabel("ms: for one user (filled), to place a new product (hollow)", fontsize=9.5, color=MUTED)
    return fig


def reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """How often the first product is the right one, against the probability that the model gave it; the diagonal is honest.

    Parameters
    ----------
    tables : mapping of model name to DataFrame
        probability, hits, lo, hi (0–1), a row for each bin (`shelfspace.metrics.calibration`).
    """
    fig, (axes,) = _figure(height=3.4)
    right = max(float(bins[["probability", "hi"]].to_numpy().max()) for bins in tables.values())
    axes.plot([0, right], [0, right], color=MUTED, linewidth=1, linestyle="--", label="honest")
    for name, bins in tables.items():
        _need(bins, ("probability", "hits", "lo", "hi"), "reliability")
        _interval(
            axes, bins["probability"], bins["hits"], bins["lo"], bins["hi"], color_of(name),
            marker=marker_of(name), linewidth=1.4, label=label_of(name),
        )  # fmt: skip
    axes.set(xlabel="probability given to the first product", ylabel="share of users whose target it was")
    _percent(axes.xaxis)
    _percent(axes.yaxis)
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
    _need(table, ("slice", "group", "model", "value", "lo", "hi"), "slices")
    names = list(dict.fromkeys(table["slice"]))
    models = list(dict.fromkeys(table["model"]))
    labels = dict(zip(table["model"], table["label" if "label" in table else "model"]))
    fig, panels = _figure(len(names), height=0.7 + 2.3 * len(names) + 0.25 * ((len(models) + 1) // 2))
    for axes, name in zip(panels, names):
        cut = table[table["slice"] == name]
        groups = list(dict.fromkeys(cut["group"]))
        for place, model in enumerate(models):
            part = cut[cut["model"] == model]
            x = part["group"].map(groups.index).to_numpy(dtype=float) + (place - (len(models) - 1) / 2) * min(0.16, 0.8 / len(models))
            _interval(
                axes,
                x,
                part["value"],
                part["lo"],
                part["hi"],
                color_of(model),
                marker=marker_of(model),
                linestyle="none",
                label=short(labels[model], 34),
            )
        size = cut.groupby("group")["n"].first() if "n" in cut else {}
        ticks = [short(str(group), 16) + (f"\nn = {int(size[group]):,}" if group in size else "") for group in groups]
        axes.set_xticks(range(len(groups)), ticks)
        axes.set_xlim(-0.55, len(groups) - 0.45)
        axes.set_ylim(bottom=0)
        axes.set(title=short(name, 60), ylabel=metric_label(metric))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        _percent(axes.yaxis)
        axes.grid(axis="x", visible=False)
    fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, columnspacing=1.2)
    return fig


def learning_curve(history: Sequence[Mapping[str, float]]) -> Figure:
    """Training and validation loss of each epoch, and MRR@20 of the valid users; the epoch marked where it is highest.

    Parameters
    ----------
    history : sequence of mapping
        Per epoch loss, valid_loss and valid_mrr@20, as the recommenders' `train` gives it.
    """
    history = pd.DataFrame(history)
    _need(history, ("loss", "valid_loss", "valid_mrr@20"), "learning_curve")
    epochs, kept = np.arange(1, len(history) + 1), int(np.argmax(history["valid_mrr@20"])) + 1
    fig, panels = _figure(1, 2, height=3.0)
    for column, name, label, line in (("loss", "train", "training", "--"), ("valid_loss", "valid", "validation", "-")):
        panels[0].plot(epochs, history[column], color=COLORS[name], linestyle=line, marker="o", markersize=4, label=label)
    panels[0].set(title="Loss", ylabel="cross-entropy")
    panels[0].legend(loc="best")
    panels[1].plot(epochs, history["valid_mrr@20"], color=COLORS["valid"], marker="o", markersize=4)
    panels[1].set(title="MRR@20, validation")
    _percent(panels[1].yaxis)
    for axes in panels:
        axes.axvline(kept, color=INK, linewidth=1, linestyle=(0, (1, 2)))
        axes.set_xlabel(f"epoch (dotted: {kept} is kept)")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="x", visible=False)
    return fig


COUNT_GROUPS = (1, 2, 3, 5, 10, 20, 50, 100)


def coverage_by_count(df: pd.DataFrame) -> Figure:
    """Share of products that have an embedding, by how often they were visited, with 95 % Wilson intervals.

    Parameters
    ----------
    df : DataFrame
        One row per product (and embedding): count (int ≥ 0, visits), known (bool, has an embedding);
        optionally embedding (str, a line for each).
    """
    _need(df, ("count", "known"), "coverage_by_count")
    df = df if "embedding" in df else df.assign(embedding="word2vec")
    starts = [0, *COUNT_GROUPS]
    ends = [*(start - 1 for start in starts[1:]), None]
    names = [f"{a}+" if b is None else str(a) if a == b else f"{a}–{b}" for a, b in zip(starts, ends)]
    df = df.assign(group=np.searchsorted(starts, df["count"], side="right") - 1)
    used = sorted(df["group"].unique())
    embeddings = list(dict.fromkeys(df["embedding"]))
    fig, (axes,) = _figure(height=3.2)
    for place, name in enumerate(embeddings):
        counts = df[df["embedding"] == name].groupby("group")["known"].agg(["sum", "count"])
        share, n = counts["sum"] / counts["count"], counts["count"]
        middle, half = (
            (share + 1.92 / n) / (1 + 3.84 / n),
            1.96 * np.sqrt(share * (1 - share) / n + 0.96 / n**2) / (1 + 3.84 / n),
        )
        x = np.searchsorted(used, counts.index) + (place - (len(embeddings) - 1) / 2) * 0.18
        _interval(
            axes,
            x,
            share,
            middle - half,
            middle + half,
            color_of(name),
            marker="os^D"[place % 4],
            linestyle="none",
            label=label_of(name),
        )
    n = df[df["embedding"] == embeddings[0]].groupby("group").size().reindex(used, fill_value=0)
    axes.set_xticks(range(len(used)), [f"{names[group]}\n{n[group]:,}" for group in used])
    axes.set(xlabel="visits of the product, and number of such products", ylabel="with an embedding")
    axes.set_ylim(-0.03, 1.05)
    _percent(axes.yaxis)
    axes.grid(axis="x", visible=False)
    if len(embeddings) > 1:
        axes.legend(loc="lower right")
    return fig


def columns_table(
    results: Mapping[str, Mapping[str, Mapping | None]], metric: str, order: Sequence[str], heads: Mapping[str, str]
) -> pd.DataFrame:
    """A table of models with one metric and its interval, in percent, in three columns: "12.3 (11.8–12.9)"; "–" without a target.

    Parameters
    ----------
    results : mapping of model name to mapping of column to results
        As `shelfspace.metrics.columns` gives them.
    metric : str
    order : sequence of str
        Names of the models, the first row first.
    heads : mapping of column to str
        `shelfspace.metrics.COLUMNS`.
    """
    rows = {
        label_of(name): {
            heads[key]: with_interval(found[metric], found["ci95"][metric]) if found else "–" for key, found in results[name].items()
        }
        for name in order
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model").reset_index()
