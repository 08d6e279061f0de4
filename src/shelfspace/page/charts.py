"""The figures of the log, the embeddings and the parameters: data in, a matplotlib `Figure` out.

Those of what was measured are in `shelfspace.page.result_charts`; notebooks display either with `shelfspace.page.exhibits`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from shelfspace.page import drawing, palette, words
from shelfspace.page.palette import COLORS, INK, PALETTE, PAPER


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
    drawing.need(products, ("product_id",), "product_labels")
    ids = products["product_id"].astype(str)
    names = products["name"].astype(object).where(products["name"].notna(), ids) if "name" in products else ids
    return np.array([words.short(name, 48) or identity for name, identity in zip(names, ids)], dtype=object)


def sequence_lengths(lengths: Sequence[int], unit: str = "visits per user") -> Figure:
    """How long the sequences are: a histogram on a logarithmic axis with the median marked.

    Parameters
    ----------
    lengths : array of int, shape (n_users,)
    unit : str
        Label of the axis.
    """
    lengths = np.asarray(lengths)
    fig, (axes,) = drawing.figure(height=2.9)
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
    drawing.thousands(axes.yaxis)
    return fig


def events_per_day(df: pd.DataFrame) -> Figure:
    """Events per day, a panel for each kind of event with its own scale from zero.

    Parameters
    ----------
    df : DataFrame
        day (date or timestamp), event (str), count (int).
    """
    drawing.need(df, ("day", "event", "count"), "events_per_day")
    df = df.assign(day=pd.to_datetime(df["day"]))
    order = df.groupby("event")["count"].sum().sort_values(ascending=False).index
    days = pd.date_range(df["day"].min(), df["day"].max(), freq="D")
    fig, panels = drawing.figure(len(order), height=0.9 + 1.15 * len(order), sharex=True)
    for axes, event in zip(panels, order):
        count = df[df["event"] == event].groupby("day")["count"].sum().reindex(days, fill_value=0)
        axes.fill_between(days, count, color=palette.color_of(event), alpha=0.18, linewidth=0)
        axes.plot(days, count, color=palette.color_of(event), linewidth=1.8, marker="o" if len(days) < 3 else "")
        axes.set_title(f"{words.short(palette.label_of(event), 40)} ({count.sum():,})")
        axes.set_ylim(0, max(1, count.max() * 1.1))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        drawing.thousands(axes.yaxis)
        axes.grid(axis="x", visible=False)
    panels[-1].xaxis.set_major_locator(mpl.dates.AutoDateLocator(minticks=3, maxticks=7))
    panels[-1].xaxis.set_major_formatter(mpl.dates.ConciseDateFormatter(panels[-1].xaxis.get_major_locator()))
    fig.supylabel("events per day", fontsize=9.5)
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
    fig, panels = drawing.figure(1, len(losses), height=2.7)
    for axes, (name, values) in zip(panels, losses.items()):
        axes.plot(
            np.arange(1, len(values) + 1),
            values,
            color=palette.color_of(name),
            marker="o" if len(values) < 30 else "",
        )
        axes.set(title=palette.label_of(name), xlabel="epoch")
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
    colors = palette.colors_of(frequent)
    size = float(np.clip(18_000 / max(1, len(xy)), 3, 26))
    fig, (axes,) = drawing.figure(height=5.9 + 0.22 * ((len(frequent) + 3) // 3))
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
            label=words.short(str(name), 22),
        )
    axes.set(xticks=[], yticks=[], title=title)
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    legend = fig.legend(loc="outside lower center", ncols=3, handletextpad=0.3, columnspacing=1.4)
    for handle in legend.legend_handles:
        handle.set(sizes=[36], alpha=1)
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
    fig, panels = drawing.figure(len(same), height=0.8 + 2.0 * len(same), sharex=True)
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
        axes.set(title=palette.label_of(name), ylabel="density")
        axes.grid(axis="x", visible=False)
        axes.set_ylim(top=axes.get_ylim()[1] * 1.32)
        axes.legend(loc="upper left", ncols=2, columnspacing=1, handlelength=1.6)
    panels[-1].set_xlabel("cosine similarity to the anchor")
    return fig


def decay_weights(ages_days: Sequence[float], weights: Mapping[float, Sequence[float]]) -> Figure:
    """How much each of one user's visits counts under several decays; time runs to the right, to the newest one.

    Parameters
    ----------
    ages_days : array of float, shape (n,)
        Days before the newest visit, one per visit.
    weights : mapping of decay (1/day) to array of float, shape (n,)
        Each sums to 1.
    """
    ages = np.asarray(ages_days, dtype=float)
    fig, (axes,) = drawing.figure(height=3.0)
    shades = sns.color_palette("viridis", len(weights) + 1)[: len(weights)]
    days = np.linspace(ages.min(), ages.max(), 200)
    newest = int(ages.argmin())
    for (decay, values), color, marker in zip(sorted(weights.items()), shades, "osD^vXP*hp" * 3):
        values = np.asarray(values)
        axes.plot(days, values[newest] * np.exp(-decay * (days - ages[newest])), color=color, linewidth=1.4)
        axes.plot(ages, values, color=color, marker=marker, markersize=5, linestyle="none", label=f"d = {decay:g}")
    axes.invert_xaxis()
    axes.set(xlabel="days before the newest visit", ylabel="weight of the visit")
    axes.set_ylim(bottom=0)
    drawing.percent(axes.yaxis)
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
    drawing.need(table, [parameter, *[m + end for m in metrics for end in ("", "_lo", "_hi")]], what)
    table = table if "model" in table else table.assign(model="recommender")
    values = list(table[parameter].unique())
    if pd.api.types.is_numeric_dtype(table[parameter]):
        values = sorted(values)
    place = {value: x for x, value in enumerate(values)}
    ticks = [words.short(f"{value:g}" if isinstance(value, (int, float, np.integer)) else str(value), 16) for value in values]
    fig, panels = drawing.figure(1, len(metrics), height=3.3)
    for axes, metric in zip(panels, metrics):
        for name, part in table.groupby("model", sort=False):
            part = part.assign(_x=part[parameter].map(place)).sort_values("_x")
            x = part["_x"].to_numpy()
            axes.fill_between(x, part[metric + "_lo"], part[metric + "_hi"], color=palette.color_of(name), alpha=0.18, linewidth=0)
            axes.plot(
                x,
                part[metric],
                color=palette.color_of(name),
                marker=palette.marker_of(name),
                markersize=5,
                label=palette.label_of(name),
            )
            top = int(np.argmax(part[metric].to_numpy()))
            axes.plot(
                x[top],
                part[metric].iloc[top],
                "o",
                markersize=13,
                markerfacecolor="none",
                markeredgecolor=palette.color_of(name),
            )
        axes.set_xticks(range(len(values)), ticks, rotation=45 if len(values) > 7 or max(map(len, ticks)) > 7 else 0)
        axes.set(title=palette.metric_label(metric), xlabel=words.clean(label or parameter))
        axes.grid(axis="x", visible=False)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        drawing.percent(axes.yaxis)
    if table["model"].nunique() > 1:
        fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig
