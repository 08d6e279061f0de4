"""Figures and tables: they draw what they are given, the same bytes each time, and let no text become
markup."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from shelfspace.page import charts, exhibits, palette, result_charts, svg, words

HOSTILE = "<script>alert(1)</script>\u202e$x$\x07"


@pytest.fixture
def displayed(monkeypatch):
    found = []
    monkeypatch.setattr(exhibits, "display", lambda html: found.append(BeautifulSoup(html.data, "html.parser")))
    return found


def sweep():
    decays = np.array([0, 0.05, 0.1, 0.5])
    hit = np.array([0.2, 0.25, 0.3, 0.22])
    return pd.DataFrame(
        {"decay": decays} | {f"{m}{end}": hit + d for m in ("hit_rate@20", "mrr@20") for end, d in (("", 0), ("_lo", -0.02), ("_hi", 0.02))}
    )


def slice_table():
    rows = [
        {"slice": "history", "group": group, "model": model, "value": 0.1, "lo": lo, "hi": 0.12, "n": 30}
        for group in ("4–9", HOSTILE)
        for model, lo in (("popular", 0.08), ("dense", np.nan))
    ]
    return pd.DataFrame(rows + [rows[0] | {"slice": "popularity"}])


def latencies():
    return pd.DataFrame(
        {"model": model, "batch": batch, "seconds": seconds / batch**0.5, "value": value, "kind": kind}
        for model, seconds, value, kind in (
            ("popular", 1e-4, 0.02, "baseline"),
            (HOSTILE, 1e-3, 0.01, "embedding"),
            ("dense", 2e-3, 0.1, "recommender"),
        )
        for batch in (1, 1024)
    )


def reliabilities():
    return pd.DataFrame({"probability": [0.1, 0.4], "hits": [0.12, 0.3], "lo": [0.1, 0.2], "hi": [0.2, 0.35]})


RNG = np.random.default_rng(0)
FIGURES = {
    "sequence_lengths": lambda: charts.sequence_lengths(RNG.integers(5, 300, 500)),
    "sequence_lengths, all alike": lambda: charts.sequence_lengths([5, 5, 5]),
    "events_per_day": lambda: charts.events_per_day(
        pd.DataFrame(
            {
                "day": ["2024-01-01", "2024-01-03", "2024-01-03"],
                "event": ["view", "view", HOSTILE],
                "count": [3, 4, 5],
            }
        )
    ),
    "events_per_day, one day": lambda: charts.events_per_day(pd.DataFrame({"day": ["2024-01-01"], "event": ["view"], "count": [3]})),
    "training_loss": lambda: charts.training_loss({"word2vec": [3, 2, 1], "starspace": [], "other": [1.0]}),
    "tsne_map": lambda: charts.tsne_map(RNG.normal(size=(60, 2)), ["a", "b", None, HOSTILE, *"cdefghijklmnop"[:11]] * 4),
    "tsne_map, no category": lambda: charts.tsne_map(RNG.normal(size=(9, 2)), [None] * 9, title="t"),
    "triplet_margins": lambda: charts.triplet_margins(RNG.random(99), RNG.random(99) - 0.5),
    "triplet_margins, two": lambda: charts.triplet_margins(
        {"word2vec": RNG.random(9), "starspace": RNG.random(9)},
        {"word2vec": RNG.random(9), "starspace": RNG.random(9)},
    ),
    "decay_weights": lambda: charts.decay_weights([3, 2, 0], {0: [1 / 3] * 3, 1.0: [0.1, 0.2, 0.7]}),
    "decay_sweep": lambda: charts.decay_sweep(sweep()),
    "decay_sweep, two models": lambda: charts.decay_sweep(pd.concat([sweep().assign(model="word2vec"), sweep().assign(model="starspace")])),
    "slices": lambda: result_charts.slices(slice_table()),
    "latency": lambda: result_charts.latency(latencies()),
    "reliability": lambda: result_charts.reliability({"dense": reliabilities(), HOSTILE: reliabilities()}),
    "learning_curve": lambda: result_charts.learning_curve(
        [
            {"loss": 3, "valid_loss": 3, "valid_mrr@20": 0.2},
            {"loss": 2, "valid_loss": 2.5, "valid_mrr@20": 0.1},
        ]
    ),
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", FIGURES)
def test_figures_draw_and_are_named(name):
    fig = FIGURES[name]()
    assert isinstance(fig, Figure) and fig.get_size_inches()[0] == palette.WIDTH
    if not name.startswith("tsne"):
        assert any(axes.get_xlabel() for axes in fig.axes) or fig._supxlabel or name == "slices" or name.startswith("events")
    with np.errstate(all="raise"):
        drawn = exhibits._svg(fig)
    assert len(drawn) > 1000 and svg.inline(drawn, "x", name).startswith("<svg viewBox=")


def test_same_figure_same_bytes():
    one, two = (exhibits._svg(result_charts.latency(latencies())) for _ in range(2))
    assert one == two and b"<dc:date>" not in one


def test_many_dots_are_one_picture():
    rng = np.random.default_rng(0)
    drawn = exhibits._svg(charts.tsne_map(rng.normal(size=(3000, 2)), ["a"] * 3000))
    inline = BeautifulSoup(svg.inline(drawn, "x", "dots"), "html.parser")
    pictures = [image["href"] for image in inline.find_all("image")]
    assert len(pictures) == 1 and pictures[0].startswith("data:image/png;base64,") and len(drawn) < 300_000
    picture = Image.open(io.BytesIO(base64.b64decode(pictures[0].partition(",")[2])))
    assert picture.mode == "RGBA" and picture.getpixel((0, 0))[3] == 0  # nothing lies behind the dots, on dark paper either


def test_inline_figures_take_the_colours_of_the_page():
    inline = svg.inline(exhibits._svg(charts.training_loss({"word2vec": [3, 2, 1], "starspace": [1, 2]})), "c1-2", 'a "b" <c>')
    figure = BeautifulSoup(inline, "html.parser").svg
    assert figure["role"] == "img" and figure["aria-label"] == 'a "b" <c>'
    styles = " ".join(tag["style"] for tag in figure.find_all(style=True))
    assert "fill:var(--ink)" in styles and "fill:var(--paper)" in styles and "stroke:var(--rule)" in styles
    assert f"stroke:color-mix(in oklab,{palette.color_of('word2vec')},white var(--lift))" in styles
    assert not re.search(r"(?<!oklab,)#[0-9a-f]{6}", styles) and "font-family" not in styles
    assert "word2vec" in [text.get_text() for text in figure.find_all("text")]
    ids = [tag["id"] for tag in figure.find_all(id=True)]
    assert ids and all(identity.startswith("c1-2-") for identity in ids) and len(set(ids)) == len(ids)
    assert {tag["href"][1:] for tag in figure.find_all("use")} <= set(ids)
    assert {tag["clip-path"] for tag in figure.find_all(attrs={"clip-path": True})} <= {f"url(#{identity})" for identity in ids}


def test_nothing_that_acts_or_loads_is_in_an_inline_figure():
    hostile = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9" onload="a()">
    <script>a()</script><style>*{color:red}</style><a href="https://x.org"><path d="M0 0"/></a><foreignObject><b>x</b></foreignObject>
    <path d="M0 0" onclick="a()" style="fill: url(https://x.org); stroke: red; background: blue" clip-path="url(https://x.org#a)"/>
    <image xlink:href="https://x.org/a.png"/><image xlink:href="data:image/svg+xml;base64,aGk="/><use xlink:href="https://x.org#a"/>
    <text>&lt;b&gt;</text></svg>"""
    kept = svg.inline(hostile, "x", "y")
    assert "x.org" not in kept and not re.search("script|<style|onclick|onload|foreign|background|svg\\+xml|<b>|<a", kept)
    assert "stroke:red" in kept and "&lt;b&gt;" in kept
    for text in ("<p/>", "no", '<!DOCTYPE a [<!ENTITY b "c">]><svg/>'):
        with pytest.raises(ValueError, match="SVG"):
            svg.inline(text, "x", "y")


def test_colours_stay_with_their_names():
    assert palette.color_of("word2vec") == palette.color_of("nearest_last_word2vec") == palette.color_of("Nearest to the user (word2vec)")
    assert palette.color_of("Co-occurrence") == palette.color_of("cooccurrence") and palette.color_of("popular") == palette.color_of(
        "most popular"
    )
    assert palette.color_of("own_products") != palette.color_of("popular") != palette.color_of("dense")
    assert palette.color_of("Phones") == palette.color_of("Phones") and palette.color_of("Phones") in palette.PALETTE
    names = ["Phones", "Cases", "Chairs", "Desks", "Lamps", "TVs", "Toys", "Books", "Bags", "Cups"]
    colors = palette.colors_of(names)
    assert len({colors[name] for name in names}) == 10 and colors == palette.colors_of(names[::-1])


def test_colours_show_on_paper():
    def luminance(color):
        part = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2]

    for name, color in palette.COLORS.items():
        assert name == "other" or 1.05 / (luminance(color) + 0.05) >= 3, name


def test_show_needs_words(displayed):
    exhibits.show(charts.training_loss({"word2vec": [2.0, 1.0]}), caption="It <fell>.", alt='A "falling" curve.')
    image = displayed[0].find("img")
    assert image["alt"] == 'A "falling" curve.' and image["src"].startswith("data:image/svg+xml;base64,") and image["width"] == "499"
    assert displayed[0].figcaption.get_text() == "It <fell>."
    for missing in ({"caption": " ", "alt": "x"}, {"caption": "x", "alt": ""}):
        with pytest.raises(ValueError, match="needs a text"):
            exhibits.show(Figure(), **missing)


def test_table(displayed):
    df = pd.DataFrame(
        {
            "name": [HOSTILE, "y" * 10_000, None],
            "count": [12_345, 2, 3],
            "share": [0.12345, np.nan, 0.5],
            "text": ["98.2%", "3", "4.5 %"],
            "ok": [True, False, True],
            "day": pd.to_datetime(["2024-01-01 00:00", "2024-01-01 10:30", None]),
        },
        index=["a", "b", "c"],
    )
    exhibits.table(df, "Three <rows>.", {"share": ".1%", "name": str}, best=["count"], index=True)
    cells = [[td.get_text() for td in tr.find_all("td")] for tr in displayed[0].tbody.find_all("tr")]
    assert cells[0] == ["a", "<script>alert(1)</script>$x$", "12,345", "12.3%", "98.2%", "yes", "2024-01-01"]
    assert cells[1][3:] == ["–", "3", "no", "2024-01-01 10:30"] and len(cells[1][1]) == 400
    assert cells[2][3:] == ["50.0%", "4.5 %", "yes", "–"]
    assert displayed[0].strong.get_text() == "12,345" and not displayed[0].find("script")
    assert [th.get_text() for th in displayed[0].select("th.number")] == ["count", "share", "text"]
    exhibits.table(df.iloc[:0], "Nothing.")
    exhibits.table(pd.DataFrame({"a": [1234567.8, 0.00012345]}), "Numbers.")
    assert [td.get_text() for td in displayed[2].find_all("td")] == ["1,234,568", "0.0001234"]
    with pytest.raises(ValueError, match="no column 'shar'; its columns are name"):
        exhibits.table(df, "x", {"shar": ".1%"})


def test_a_folded_text_keeps_its_lines(displayed):
    exhibits.folded(HOSTILE, "SELECT 1 < 2\n  AS x")
    assert displayed[0].details.summary.text == "<script>alert(1)</script>$x$"
    assert displayed[0].pre.code.text == "SELECT 1 < 2\n  AS x"


def test_one_of_several_figures_is_shown(displayed):
    figures = {key: charts.training_loss({"word2vec": [2.0, 1.0]}) for key in ("hr all", "mrr seen")}
    exhibits.show_by(figures, dict.fromkeys(figures, "It <fell>."), "A curve.")
    one, other = displayed[0].select(".chosen-figure > figure.shelf-figure")
    assert {"by-hr", "by-all"} < set(one["class"]) and {"by-mrr", "by-seen"} < set(other["class"])
    assert not one.has_attr("hidden") and other.has_attr("hidden")


def test_takeaways_and_notes_are_text(displayed):
    exhibits.takeaways([HOSTILE, "b"])
    exhibits.note(HOSTILE)
    assert [li.get_text() for li in displayed[0].find_all("li")] == ["<script>alert(1)</script>$x$", "b"]
    assert displayed[1].p.get_text() == "<script>alert(1)</script>$x$"


def test_clean_and_short():
    assert words.clean("a\tb\nc\x00\x1b[31m\u2066d\u202e 👩‍👧 سماعة") == "a b c[31md 👩‍👧 سماعة"
    assert words.short("abcdef", 4) == "abc…" and words.short("abcd", 4) == "abcd"


def test_labels():
    assert palette.label_of("starspace") == "StarSpace" and palette.label_of("my_model") == "my model"
    assert (
        palette.metric_label("hit_rate@20") == "HR@20" and palette.metric_label("mrr@5") == "MRR@5" and palette.metric_label("x_y") == "x y"
    )
    products = pd.DataFrame({"product_id": ["1", "2", "3"], "name": ["Phone", None, "\x07"]})
    assert list(charts.product_labels(products)) == ["Phone", "2", "3"]
    assert list(charts.product_labels(products[["product_id"]])) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: charts.events_per_day(pd.DataFrame({"day": [1], "event": ["view"]})),
            "events_per_day needs a column 'count'; it got day, event",
        ),
        (lambda: charts.decay_sweep(sweep().drop(columns="mrr@20_lo")), "needs a column 'mrr@20_lo'"),
        (lambda: charts.training_loss({"word2vec": []}), "got no losses"),
        (lambda: result_charts.latency(pd.DataFrame()), "it got none"),
    ],
)
def test_what_does_not_fit_is_said(call, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        call()


def test_latency_joins_the_models_that_nothing_beats():
    axes = result_charts.latency(latencies()).axes
    assert [a.get_title(loc="left") for a in axes] == ["1 user at a time", "1,024 users at a time"]
    front = next(line for line in axes[0].lines if len(line.get_xdata()) > 1)
    assert front.get_xdata() == pytest.approx([0.1, 2]) and front.get_ydata() == pytest.approx([0.02, 0.1])


def test_models_differ_in_colour_or_marker():
    models = ["popular", "recently_popular", "own_products", "cooccurrence", "markov", "session_knn"]
    models += [
        "matrix_factorisation",
        "gru4rec",
        "sasrec",
        "ranked",
        "dense",
        "tied",
        *(f"{e}_{how}" for e in ("word2vec", "starspace") for how in ("last", "user")),
    ]
    looks = {(palette.color_of(name), palette.marker_of(name)) for name in models}
    assert len(looks) == len(models) and all(palette.label_of(name) != name for name in models)
    assert palette.color_of("recently_popular") != palette.color_of("popular")
