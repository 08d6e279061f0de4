"""What a notebook displays: figures with captions, tables, takeaways, notes. Text in them cannot become
markup.

`shelfspace.page.charts` hands these on, so notebooks write ``exhibits.show``; `shelfspace.page.report` carries their HTML
into the page.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape

import matplotlib as mpl
import numpy as np
import pandas as pd
from IPython.display import HTML, display
from matplotlib.figure import Figure

from shelfspace.page import words

MANY_DOTS = 500  # dots of one kind; more are drawn as one picture within the figure


def show(fig: Figure, caption: str, alt: str) -> None:
    """Display a figure with a caption that states its finding and an alternative text that says what is seen.

    A figure is an SVG, of which more than `MANY_DOTS` dots of a kind are one picture of 150 dpi; the same figure gives the same
    bytes. The page takes its words and lines into its own colours (`shelfspace.page.svg.inline`).

    Raises
    ------
    ValueError
        If `caption` or `alt` is empty.
    """
    display(HTML(figure_html(fig, caption, alt)))


def show_by(figures: Mapping[str, Figure], captions: Mapping[str, str], alt: str) -> None:
    """Display one of several figures: the first here, and on the page the one of the metric and column that its reader chose.

    Parameters
    ----------
    figures : mapping of key to Figure
        A key names a metric, and maybe a column: "hr seen", "mrr discovery", "mrr".
    captions : mapping of key to str
    alt : str
        Of all of them.

    Raises
    ------
    ValueError
        If a caption or `alt` is empty.
    """
    parts = []
    for key, fig in figures.items():
        classes = " ".join(f"by-{name}" for name in key.split())
        part = figure_html(fig, captions[key], alt).replace('<figure class="', f'<figure{" hidden" * bool(parts)} class="{classes} ', 1)
        parts.append(part)
    display(HTML(f'<div class="chosen-figure">{"".join(parts)}</div>'))


def figure_html(fig: Figure, caption: str, alt: str) -> str:
    """The HTML that `show` displays."""
    for what, text in (("caption", caption), ("alt", alt)):
        if not text or not text.strip():
            raise ValueError(f"A figure needs a text for `{what}`: plots.show(fig, caption='…', alt='…').")
    data = _svg(fig)
    width, height = (round(inches * 96) for inches in fig.get_size_inches())
    source = f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}"
    return (
        f'<figure class="shelf-figure"><img src="{source}" width="{width}" height="{height}" '
        f'alt="{escape(words.clean(alt))}"><figcaption>{escape(words.clean(caption))}</figcaption></figure>'
    )


def table(
    df: pd.DataFrame,
    caption: str,
    formats: Mapping[str, str | Callable] | None = None,
    *,
    best: Sequence[str] = (),
    index: bool = False,
) -> None:
    """Display a table; every text in it is escaped, so a product's name can be anything.

    Parameters
    ----------
    df : DataFrame
    caption : str
        States the finding.
    formats : mapping of column name to format, optional
        A format spec such as ".4f", ".1%" or ",d", or a function from a cell to text. Without: integers as
        12,345, other numbers with four significant digits, missing cells as "–".
    best : sequence of str
        Columns whose largest number is set in bold.
    index : bool
        Show the index as first column.
    """
    display(HTML(table_html(df, caption, formats, best=best, index=index)))


def table_html(
    df: pd.DataFrame,
    caption: str,
    formats: Mapping[str, str | Callable] | None = None,
    *,
    best: Sequence[str] = (),
    index: bool = False,
) -> str:
    """The HTML that `table` displays."""
    formats = formats or {}
    unknown = [column for column in [*formats, *best] if column not in df.columns]
    if unknown:
        raise ValueError(f"The table has no column {unknown[0]!r}; its columns are {', '.join(map(str, df.columns))}.")
    df = df.reset_index() if index else df
    numeric = {column: _is_numeric(df[column]) for column in df.columns}
    top = {column: df[column].max() for column in best}
    align = {column: ' class="number"' if numeric[column] else "" for column in df.columns}
    head = "".join(f'<th scope="col"{align[column]}>{escape(words.clean(str(column)))}</th>' for column in df.columns)
    rows = []
    for record in df.itertuples(index=False, name=None):
        cells = []
        for column, value in zip(df.columns, record):
            text = escape(_cell(value, formats.get(column)))
            text = text if numeric[column] else f"<bdi>{text}</bdi>"
            text = f"<strong>{text}</strong>" if column in top and value == top[column] else text
            cells.append(f"<td{align[column]}>{text}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    label = escape(words.clean(caption))
    return (
        '<figure class="shelf-table"><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f"<figcaption>{label}</figcaption></figure>"
    )


def takeaways(sentences: Sequence[str]) -> None:
    """Display what a chapter found, one sentence per item."""
    items = "".join(f"<li>{escape(words.clean(sentence))}</li>" for sentence in sentences)
    display(HTML(f'<div class="takeaways"><ul>{items}</ul></div>'))


def note(text: str) -> None:
    """Display a remark that carries this run's numbers."""
    display(HTML(f'<div class="note"><p>{escape(words.clean(text))}</p></div>'))


def toy(name: str, text: str) -> None:
    """Keep a place for a toy of the page (`shelfspace.page.report.with_toys`); a notebook shows the text in its stead."""
    display(HTML(f'<p class="toy-place {escape(name)}">{escape(words.clean(text))}</p>'))


def folded(summary: str, text: str) -> None:
    """Display a text such as a query, as it is written, folded away behind its summary."""
    lines = "\n".join(words.clean(line) for line in text.splitlines())
    display(HTML(f"<details><summary>{escape(words.clean(summary))}</summary><pre><code>{escape(lines)}</code></pre></details>"))


def with_interval(value: float, bounds: Sequence[float]) -> str:
    """A share and its interval in percent: "12.3 (11.8–12.9)"."""
    return f"{100 * value:.1f} ({100 * bounds[0]:.1f}–{100 * bounds[1]:.1f})"


def _is_numeric(column: pd.Series) -> bool:
    """Numbers, and texts that are all numbers ("98.2%"), are set flush right."""
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column):
        return not pd.api.types.is_bool_dtype(column)
    return len(column) > 0 and all(isinstance(v, str) and re.fullmatch(r"[-+–]?[\d.,]+ ?%?", v) for v in column)


def _cell(value: object, form: str | Callable | None) -> str:
    if callable(form):
        return words.short(form(value), 400)
    if value is None or (np.isscalar(value) and pd.isna(value)) or value is pd.NaT:
        return "–"
    if form:
        return format(value, form)
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, pd.Timestamp):
        return value.strftime("%Y-%m-%d" if value == value.normalize() else "%Y-%m-%d %H:%M")
    return words.short(str(value), 160)


def _svg(fig: Figure) -> bytes:
    """The figure, its words as text."""
    dpi = fig.dpi
    fig.set_dpi(400)  # measures text as finely as an SVG draws it
    layout = fig.get_layout_engine()
    for _ in range(2 if layout else 0):  # it settles the second time; kept, it is the same each time
        layout.execute(fig)
    fig.set_layout_engine(None)  # with any, and be it "none", the figure is drawn twice
    fig.set_dpi(dpi)
    for dots in (dots for axes in fig.axes for dots in axes.collections if len(dots.get_offsets()) > MANY_DOTS):
        dots.set_rasterized(True)
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "shelfspace", "svg.fonttype": "none"}):
        fig.savefig(buffer, format="svg", dpi=150, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()
