"""What all figures share: their size and style, the axes in percent and in thousands, points with an interval."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from shelfspace.page import palette


def figure(rows: int = 1, columns: int = 1, height: float = 3.2, **kwargs) -> tuple[Figure, np.ndarray]:
    """A figure of the report's width outside pyplot, so that nothing displays it a second time."""
    palette.theme()
    fig = Figure(figsize=(palette.WIDTH, height), layout="constrained")
    fig.get_layout_engine().set(w_pad=0.07, h_pad=0.06)
    return fig, np.atleast_1d(fig.subplots(rows, columns, **kwargs))


def need(df: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Refuse a table that lacks a column which the figure `what` draws, with a ValueError."""
    missing = [column for column in columns if column not in df.columns]
    if missing:
        raise ValueError(f"{what} needs a column {missing[0]!r}; it got {', '.join(map(str, df.columns)) or 'none'}.")


def thousands(axis: mpl.axis.Axis) -> None:
    """Label an axis with commas between thousands."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value == round(value) else f"{value:g}"))


def percent(axis: mpl.axis.Axis) -> None:
    """Label an axis of shares in percent."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g}%"))


def interval(axes: Axes, x, y, lo, hi, color: str, *, horizontal: bool = False, **kwargs) -> None:
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
