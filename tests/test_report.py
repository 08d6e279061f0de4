"""The report: what stands in the page, what cannot get into it, and how it behaves in a browser."""

from __future__ import annotations

import functools
import json
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from conftest import violations
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from shelfspace.files import places, stages
from shelfspace.logs import layouts
from shelfspace.page import chapters, charts, exhibits, first_screen, report, result_charts
from shelfspace.run.ahead import Ahead

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202edesrever\x07\u0000 سماعة 🎧"
NAMES = ["Aurora Phone 6", "Aurora Case", HOSTILE, "x" * 10_000, "Oak chair", "Desk lamp"]


def shown(function, *arguments, **keywords):
    """The output cell of a call that displays something."""
    collected = []
    before, exhibits.display = exhibits.display, collected.append
    try:
        function(*arguments, **keywords)
    finally:
        exhibits.display = before
    return new_output(
        "display_data",
        data={"text/html": collected[0].data, "text/plain": "<IPython.core.display.HTML object>"},
    )


def stream(name, text):
    return new_output("stream", name=name, text=text)


def code(source, *outputs, tags=()):
    return new_code_cell(source, outputs=list(outputs), execution_count=1, metadata={"tags": list(tags)})


def cost_table():
    return pd.DataFrame(
        {"model": name, "batch": 1, "seconds": 0.001 * place, "value": values["mrr@20"], "kind": values["kind"]}
        for place, (name, values) in enumerate(metrics()["models"].items(), 1)
    )


def part(found, factor, n):
    """The figures of a column: those of all, by a factor."""
    values = {metric: factor * number for metric, number in found.items()}
    return values | {"ci95": {m: [0.95 * x, 1.05 * x] for m, x in values.items()}, "n": n}


def gain(value, width=0.01):
    return {"gain": value, "ci95": [value - width, value + width], "p": 0.0002, "p_is_bound": abs(value) > width, "p_holm": 0.004}


def paired(models, column):
    """Each model less co-occurrence, which is the best baseline of every column here."""
    of = {name: values if column == "all" else values[column] for name, values in models.items()}
    return {
        name: {metric: gain(values[metric] - of["cooccurrence"][metric]) for metric in ("mrr@20", "hit_rate@20")}
        for name, values in of.items()
        if name != "cooccurrence"
    }


def metrics():
    models = {}
    for name, label, kind, value in (
        ("popular", "Most popular", "baseline", 0.031),
        ("own_products", "Own recent products", "baseline", 0.181),
        ("cooccurrence", "Co-occurrence", "baseline", 0.247),
        ("nearest_last_word2vec", "Nearest to the last product (word2vec)", "embedding", 0.209),
        ("nearest_user_word2vec", "Nearest to the user (word2vec)", "embedding", 0.232),
        ("nearest_last_starspace", "Nearest to the last product (StarSpace)", "embedding", 0.214),
        ("nearest_user_starspace", "Nearest to the user (StarSpace)", "embedding", 0.238),
        ("dense", "Recommender", "recommender", 0.291),
    ):
        found = {f"hit_rate@{k}": value * k / 20 for k in (5, 10, 20)} | {f"mrr@{k}": value * 0.3 * k / 20 for k in (5, 10, 20)}
        models[name] = found | {
            "ci95": {metric: [number * 0.95, number * 1.05] for metric, number in found.items()},
            "catalogue_coverage@20": 0.4,
            "kind": kind,
            "label": label,
            "seen": part(found, 1.5, 3_400),
            "discovery": part(found, 0.8 if kind != "recommender" else 0.5, 1_462),
            "valid": {column: {"hit_rate@20": 1.01 * value, "mrr@20": 0.303 * value} for column in ("all", "seen", "discovery")},
        }
    return {
        "protocol": "last-product",
        "target_event": "",
        "best": {"model": "dense", "embedding": "starspace", "decay": 0.2, "over_popular": gain(0.26)},
        "models": models,
        "slices": {},
        "columns": {
            column: {"n": n, "customers": n, "baseline": "cooccurrence", "comparisons": 21, "paired": paired(models, column)}
            for column, n in (("all", 4_862), ("seen", 3_400), ("discovery", 1_462))
        },
        "data": {
            "rows_read": 412_345,
            "events": 401_234,
            "users": 30_000,
            "users_kept": 24_310,
            "products": 3_000,
            "sessions": 81_220,
            "first": "2024-01-01T00:00:12",
            "last": "2024-01-28T23:59:40",
            "layout": "simulated shop",
            "dropped": {"no product id": 9_211, f"unknown event {HOSTILE}": 1_900},
            "noted": {f"price that cannot be read {HOSTILE}": 8_765},
            "events_by_type": {"view": 340_120, "search": 30_114, "add_to_cart": 24_000, HOSTILE: 7_000},
            "train": 17_017,
            "valid": 2_431,
            "test": 4_862,
            "repeat_share": 0.31,
            "coverage": 0.991,
        },
        "embeddings": {
            "word2vec": {
                "coverage": 0.991,
                "triplet_auc": 0.972,
                "triplet_ci95": [0.968, 0.976],
                "seconds": 12.3,
            },
            "starspace": {
                "coverage": 0.991,
                "triplet_auc": 0.964,
                "triplet_ci95": [0.96, 0.968],
                "seconds": 21.0,
            },
        },
        "timings": {
            "01_prepare": 18.2,
            "02_train_embeddings": 41.7,
            "05_recommender": 38.0,
            "06_evaluate": 22.4,
            "latency": {"popular": {"1": 0.0001, "1024": 0.00002}, "dense": {"1": 0.002, "1024": 0.0003}},
        },
    }


def params():
    return {
        "parameters": {"run_dir": "reports/x", "data": "shop", "decay": 0.2, "dim": 50},
        "data": "shop",
        "seed": 0,
        "versions": {"python": "3.11.9", "tensorflow": "2.21.0"},
        "git_commit": "0123456789abcdef (+ uncommitted changes)",
        "input": {"fingerprint": "9f86d081884c7d659a2feaa0c55ad015", "files": []},
        "command": "shelfspace report --data shop --out reports/x -p decay=0.2",
    }


@functools.cache
def notebooks():
    rng = np.random.default_rng(0)
    days = pd.date_range("2024-01-01", periods=28)
    per_day = pd.concat(
        pd.DataFrame({"day": days, "event": event, "count": rng.poisson(mean, 28)})
        for event, mean in (("view", 12_000), ("add_to_cart", 900), ("purchase", 300))
    )
    products = pd.DataFrame(
        {
            "product": NAMES,
            "category": ["Phones", "Cases", HOSTILE, "Phones", "Chairs", None],
            "count": range(6),
        }
    )
    parameters = 'run_dir = "reports/default"  # folder of the run\ndecay = 0.1  # weight lost per day\ndim = 50  # length of a vector\n'
    prepare = [
        new_markdown_cell(
            "# 1. Prepare shopping sequences\n\nIn this notebook you will\n\n"
            "- read a clickstream;\n- turn clicks into *visits*.\n\n"
            "A product is a word. See [word2vec](https://arxiv.org/abs/1301.3781), [below](#The-log) and "
            "[the next chapter](02_train_embeddings.ipynb). It costs $5 to $6.\n"
        ),
        code(parameters, tags=["parameters"]),
        code('# Parameters\nrun_dir = "reports/x"\ndecay = 0.2\n', tags=["injected-parameters"]),
        new_markdown_cell(
            "## The log\n\nWhat was read, and `what` was not. <script>alert(3)</script>\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
        ),
        code(
            "events = read(data)  # all of it\nprint(f'{len(events):,} events')",
            stream("stdout", "401,234 events\n"),
            stream("stderr", "WARNING: noise on stderr\n 10%|█         | 1/10 [00:00<00:01, 9it/s]"),
            stream("stdout", "epochs:  50%|█████     | 5/10 [00:01<00:01, 4.2it/s]\rdone\n"),
            new_output("display_data", data={"application/javascript": "alert(4)", "text/plain": ""}),
            new_output(
                "display_data",
                data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%| | 0/5"},
            ),
        ),
        code("plots.table(products)", shown(exhibits.table, products, "Six products, one of them up to no good.")),
        code(
            "products",
            new_output("execute_result", execution_count=1, data={"text/html": products.to_html(), "text/plain": "…"}),
        ),
        code(
            "hostile()",
            new_output(
                "display_data",
                data={
                    "text/html": "</div></div><script>alert(5)</script>"
                    "<b onclick=alert(6) style='x'>bold</b><svg/onload=alert(7)>"
                    "<iframe src='https://example.org'></iframe>"
                    "<img src='https://example.org/x.png' alt='gone'>"
                    "<a href='javascript:alert(8)'>link</a><style>body{display:none}</style><!-- x -->"
                },
            ),
        ),
        new_markdown_cell("## What the sequences look like"),
        code(
            "plots.show(plots.sequence_lengths(lengths))",
            shown(
                exhibits.show,
                charts.sequence_lengths(np.clip(rng.lognormal(2.6, 0.8, 3000).astype(int), 5, 400)),
                "Half of the users kept have at most 13 visits.",
                "Histogram of visits per user with the median marked.",
            ),
        ),
        code(
            "plots.show(plots.events_per_day(per_day))",
            shown(
                exhibits.show,
                charts.events_per_day(per_day),
                "Views are steady over four weeks.",
                "A panel per event type with events per day.",
            ),
        ),
        new_markdown_cell("## Takeaways"),
        code(
            "plots.takeaways(found)",
            shown(exhibits.takeaways, [f"{HOSTILE} was visited most.", "24,310 of 30,000 users stay."]),
        ),
    ]
    train = [
        new_markdown_cell(
            "# 2. Train product embeddings\n\nEach product $p$ makes its neighbours $c$ likely:\n\n"
            "$$\\log \\sigma(v_p \\cdot u_c) + \\sum_{k=1}^{K} \\log \\sigma(-v_p \\cdot u_{n_k})$$\n\n"
            "with $\\sigma(x) = 1 / (1 + e^{-x})$.\n\n"
            "\\begin{align}\na &= b \\\\\nc &= d\n\\end{align}\n\n"
            "## The log\n\nA heading as in the chapter before.\n\n"
            "<details><summary>Solution</summary>\n\nFold me, with $x_1$.\n\n</details>\n"
        ),
        code(
            "plots.show(plots.training_loss(losses))",
            shown(
                exhibits.show,
                charts.training_loss({"word2vec": [3.0, 2.4, 2.2, 2.1], "starspace": [0.3, 0.2, 0.15, 0.12]}),
                "The loss fell by 30% (word2vec) and 60% (StarSpace).",
                "Two falling curves.",
            ),
        ),
        code("plots.note(text)", shown(exhibits.note, "This log comes without a truth to compare with.")),
        new_markdown_cell("## Every model"),
        code(
            "plots.show_by(figures)",
            shown(
                exhibits.show_by,
                {key: result_charts.latency(cost_table()) for key in ("hr all", "mrr all", "mrr seen")},
                {"hr all": "Hits of all.", "mrr all": "Ranks of all.", "mrr seen": "Ranks of what was seen."},
                "Dots for eight models.",
            ),
        ),
        new_markdown_cell("A sentence that folds.", metadata={"tags": ["aside"]}),
        code("a_very_long_line = " + " + ".join(["some_quite_long_name"] * 20)),
    ]
    return {"01_prepare": prepare, "02_train_embeddings": train}


def make_run(folder: Path) -> Path:
    (folder / "notebooks").mkdir(parents=True)
    for stem, cells in notebooks().items():
        nbformat.write(
            new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "x"}}),
            folder / "notebooks" / f"{stem}.ipynb",
        )
    (folder / "metrics.json").write_text(json.dumps(metrics()))
    (folder / "params.json").write_text(json.dumps(params()))
    (folder / "recommender.json").write_text(json.dumps({"model": "dense"}))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("reports") / "x")
    report.render(folder)
    return folder


@pytest.fixture(scope="module")
def html(run):
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def soup(html):
    return BeautifulSoup(html, "html.parser")


def test_first_screen(soup):
    assert soup.html["lang"] == "en"
    assert soup.h1.get_text() == "What will a customer of a simulated shop look at next?"
    lead = soup.select_one(".answer > p").get_text()
    assert lead.startswith(
        "Of 100 customers, 29 find what they look at next among twenty recommendations (95 % confidence: 27.6 to 30.6). It would be 3 with "
        "the most popular products (a difference of +26.0 points, +25.0 to +27.0) and 25 with the best simple method, Co-occurrence."
    )
    said = {part.dt.get_text(): part.dd.get_text() for part in soup.select(".answer dl > div")}
    assert list(said) == [
        "All together", "Products that the customer knew", "Products that were new to the customer", "What leaves the pipeline",
        "What an answer costs", "What it cannot do",
    ]  # fmt: skip
    assert "ahead of Co-occurrence in how many are found (+4.4 points, +3.4 to +5.4), and in how high" in said["All together"]
    known, new = said["Products that the customer knew"], said["Products that were new to the customer"]
    assert "3,400 of the 4,862 targets. Of 100, 44 are found" in known and "37 with the best simple method, Co-occurrence" in known
    assert "Of 100, 15 are found" in new and "20 with the best simple method" in new
    assert "Recommender is behind Co-occurrence in how many are found (−5.2 points, −6.2 to −4.2)" in new
    assert "They are Recommender's, which was chosen on other customers" in said["What leaves the pipeline"]
    assert "uses the StarSpace user embedding with a decay of 0.2 per day" in said["What leaves the pipeline"]
    assert (
        said["What an answer costs"].startswith("One customer's twenty products take 2 ms")
        and "0.3 ms each" in said["What an answer costs"]
    )
    assert "nobody clicked" in said["What it cannot do"] and "simulated" in said["What it cannot do"]


def test_key_table(soup):
    tables = soup.select(".key table")
    rows = tables[0].select("tbody:not(.lead) tr")
    assert [len(table.select("tbody:not(.lead) tr")) for table in tables] == [5, 3]  # the rest is folded
    assert tables[1].find_parent("details") and "3 more models" in soup.select_one(".key summary").get_text()
    assert "Recommender" in rows[0].get_text() and "chosen" in rows[0].get_text() and "Most popular" in rows[-1].get_text()
    assert [" ".join(th.get_text().split()) for th in tables[0].select("thead th")] == [
        "Model", "all 4,862 targets", "seen before 3,400 targets", "discovery 1,462 targets",
    ]  # fmt: skip
    cells = [" ".join(cell.get_text().split()) for cell in rows[0].select("td > .by-hr")]
    assert cells[0] == "29.1% 27.6–30.6%" and cells[1].startswith("43.6%") and cells[2].startswith("14.5%") and len(cells) == 3
    assert rows[0].select_one("td > .by-mrr .value").get_text() == "8.7%"
    lead = [" ".join(cell.get_text(" ").split()) for cell in tables[0].select(".lead td > .by-hr")]
    assert lead[0] == "+4.4 +3.4 to +5.4 ahead of Co-occurrence" and lead[2] == "−5.2 −6.2 to −4.2 behind Co-occurrence"
    bar, point = rows[0].select_one("svg rect.interval"), rows[0].select_one("svg circle.point")
    low, width = float(bar["x"]), float(bar["width"])
    assert low < float(point["cx"]) < low + width < 158 and width > 2 * float(
        point["r"]
    )  # the point stands within its interval, which can be seen


def test_the_ceiling_stands_apart_and_is_never_best():
    found = metrics()
    ceiling = found["models"]["dense"] | {"kind": "ceiling", "label": "What can be known", "mrr@20": 0.9, "hit_rate@20": 0.95}
    found["models"] = {"ceiling": ceiling} | found["models"]
    table = first_screen.key_table(found)
    assert table["ceiling"]["label"] == "What can be known" and not table["ceiling"]["best"]
    assert "ceiling" not in [row["name"] for row in [*table["rows"], *table["more"], *first_screen.ranking(found)]]
    del found["best"]
    assert first_screen.winner(found) == "dense" and first_screen.alerts(found) == []
    assert "ceiling" not in str(first_screen.answer(found)) and "known:" not in str(first_screen.answer(found))


def test_data_and_reproduction(soup):
    data = soup.find(id="data").get_text(" ", strip=True)
    for text in ("412,345", "24,310", "2024-01-28", "no product id", "9,211", "add to cart", "price that cannot be read", "8,765"):
        assert text in data
    again = soup.find(id="reproduce").get_text(" ", strip=True)
    for text in (
        "-p decay=0.2",
        "Seed 0",
        "9f86d081884c",
        "2.0 minutes",
        "decay 0.2 default 0.1",
        "tensorflow 2.21.0",
    ):
        assert text in again
    assert "dim 50" not in again


def test_chapters_sections_and_ids(soup):
    assert [s.h2.get_text(strip=True).rstrip("#").strip() for s in soup.select("section.chapter")] == [
        "Prepare shopping sequences",
        "Train product embeddings",
        "Run it on your own log",
        "Glossary",
    ]
    ids = [tag["id"] for tag in soup.find_all(id=True)]
    assert len(ids) == len(set(ids))
    assert {"01-prepare--the-log", "02-train-embeddings--the-log"} <= set(ids)
    for link in soup.select("a[href^='#']"):
        assert link["href"][1:] in ids
    assert soup.find("a", string="the next chapter")["href"] == "#02-train-embeddings"
    assert soup.find("a", string="below")["href"] == "#01-prepare--the-log"
    assert all(heading.find("a", class_="permalink") for heading in soup.select(".chapter :is(h2, h3)"))


def test_code_is_folded_and_noise_is_gone(soup, html):
    assert soup.select("details.code .highlight") and not soup.select(".highlight:not(details .highlight)")
    assert not soup.select("details.code[open]")
    for noise in ("noise on stderr", "it/s", "0/5", "injected", "object>"):
        assert noise not in html
    assert "401,234 events" in html and "done" in html
    parameters = soup.select_one("details.parameters")
    assert "3, 1 changed" in parameters.summary.get_text() and "weight lost per day" in parameters.get_text()


def test_maths_is_mathml(soup, html):
    assert len(soup.select("math[display=block]")) == 2
    assert soup.select_one("math munderover")
    assert "$5 to $6" in html and "$$" not in html and "w3.org" not in html


def test_nothing_hostile_gets_in(soup, html):
    assert len(soup.find_all("script")) == 1 and soup.script.get_text().startswith('"use strict"')
    assert not soup.find_all(["iframe", "object", "embed", "form"]) and len(soup.find_all("style")) == 1
    for tag in soup.find_all(True):
        assert not [name for name in tag.attrs if name.startswith("on")], tag
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html and "javascript:" not in html
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u202a-\u202e\u2066-\u2069]", html)
    assert "x" * 500 not in html and "🎧" in html and "سماعة" in html


def test_nothing_is_loaded_from_elsewhere(soup, html):
    for tag in soup.find_all(True):
        for name in ("src", "srcset", "data", "poster", "action", "xlink:href"):
            assert name not in tag.attrs or str(tag[name]).startswith("data:image/"), tag
        if re.match("https?:", tag.get("href", "")):
            assert tag.name == "a" and "noopener" in tag["rel"]
    assert not re.search(r"url\(|@import|https?://", soup.style.get_text())
    assert "default-src 'none'" in html


def test_every_image_has_an_alternative_text(soup):
    figures = soup.select(".shelf-figure > svg")
    assert len(figures) == 6 and all(figure["role"] == "img" and figure["aria-label"].strip() for figure in figures)
    assert not soup.find_all("img")


def test_same_run_same_bytes(run, html):
    assert report.render(run).read_text(encoding="utf-8") == html


def test_chapters_made_ahead_give_the_same_bytes(run, html, tmp_path):
    paths = sorted((run / "notebooks").iterdir())
    spoiled = tmp_path / "03_spoiled.ipynb"
    spoiled.write_text("no")
    with Ahead() as ahead:
        ahead.begin([spoiled, *paths, tmp_path / "04_missing.ipynb"])  # of which only those that can be read are made
    assert set(chapters._drafts) == set(paths)
    assert report.render(run).read_text(encoding="utf-8") == html and not chapters._drafts


def test_a_chapter_made_ahead_of_a_notebook_that_changed_is_not_taken(tmp_path):
    path = make_run(tmp_path / "run") / "notebooks" / "01_prepare.ipynb"
    chapters.begin(path)
    path.write_text(path.read_text().replace("Prepare", "Make ready"))
    assert "Make ready" in chapters.read(path).title and not chapters._drafts


def test_size_budget(run):
    with pytest.raises(
        ValueError,
        match=r"would take 0\.\d+ MB, more than its budget of 0\.02 MB.*"
        r"largest figures: 0\.\d+ MB “",
    ):
        report.render(run, max_bytes=20_000)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda run: (run / "metrics.json").unlink(), "has no metrics.json, so no report can be made"),
        (lambda run: (run / "params.json").unlink(), "has no params.json"),
        (lambda run: (run / "metrics.json").write_text("{"), "metrics.json cannot be read"),
        (lambda run: (run / "metrics.json").write_text("{}"), "holds no models"),
        (lambda run: shutil.rmtree(run / "notebooks"), "holds no executed notebook"),
        (
            lambda run: (run / "notebooks" / "01_prepare.ipynb").write_text("no"),
            "01_prepare.ipynb is not a notebook",
        ),
    ],
)
def test_what_is_missing_is_said(tmp_path, damage, sentence):
    folder = make_run(tmp_path / "run")
    damage(folder)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        report.render(folder)
    assert not (folder / "report.html").exists()


def test_a_sparse_run_has_a_page_too(tmp_path):
    folder = make_run(tmp_path / "run")
    bare = {"models": {"popular": {"hit_rate@20": 0.1, "mrr@20": 0.02}}}
    (folder / "metrics.json").write_text(json.dumps(bare))
    (folder / "params.json").write_text("{}")
    assert "popular" in report.render(folder).read_text().lower()


def test_answer_when_a_baseline_was_chosen():
    found = metrics()
    found["best"] = {"model": "cooccurrence", "over_popular": gain(0.22)}
    said = first_screen.answer(found, "dense")
    assert said["lead"] == [
        "Of 100 customers, 25 find what they look at next among twenty recommendations (95 % confidence: 23.5 to 25.9).",
        "It would be 3 with the most popular products (a difference of +22.0 points, +21.0 to +23.0).",
    ]
    assert dict(said["points"])["All together"].startswith("Co-occurrence is itself the best simple method here")
    assert "They are Recommender's, although the valid users chose Co-occurrence." in dict(said["points"])["What leaves the pipeline"]
    assert [one["cells"] for one in first_screen.key_table(found)["lead"]] == [None, None, None]


def test_targets_are_counted_where_a_customer_has_several():
    found = metrics()
    found["columns"]["all"]["customers"] = 2_000
    found["target_event"] = "purchase"
    assert first_screen.answer(found)["lead"][0].startswith("Of 100 next products, 29 that customers buy stand among twenty")
    assert first_screen.question(found, {"data": "log.csv"}) == "What will a customer buy next?"


def test_numbers_of_100_tell_models_apart():
    assert [first_screen._digits(shares) for shares in ([0.29, 0.25], [0.291, 0.288], [0.2911, 0.2912], [0.29, 0.004])] == [0, 1, 0, 1]


def test_answer_says_what_the_model_is_made_of():
    found = metrics()
    for model, sentence in (
        ("dense", "The model uses the StarSpace user embedding with a decay of 0.2 per day."),
        ("tied", "The model starts from StarSpace and learned a decay of 0.2 per day."),
        ("ranked", "One of its sources, the tied recommender, starts from StarSpace and learned a decay of 0.2 per day."),
        ("nearest_user_starspace", "User embeddings are averages in the StarSpace space, with a decay of 0.2 per day."),
    ):
        found["best"]["model"] = model
        assert dict(first_screen.answer(found)["points"])["What leaves the pipeline"].endswith(sentence)
    found["best"] |= {"model": "tied", "user_decay": {"decay": 0.1, "decay_time": "days"}}
    said = dict(first_screen.answer(found)["points"])["What leaves the pipeline"]
    assert said.endswith("learned a decay of 0.2 per day; averaged by themselves, user embeddings do best with 0.1 per day.")


def test_alert_when_the_valid_users_chose_another_than_the_best():
    found = metrics()
    found["best"]["model"] = "nearest_user_starspace"  # as valid users might choose; dense is better on test
    assert first_screen.winner(found) == "nearest_user_starspace" and first_screen.ranking(found)[0]["name"] == "dense"
    (said,) = first_screen.alerts(found)
    assert said == (
        "Another model is better: Nearest to the user (StarSpace) was chosen on the validation users, but on the test users "
        "Recommender has a higher MRR@20 beyond chance, 8.7% against 7.1%."
    )
    found["best"]["gain"] = {"dense": gain(-0.016, 0.004)}
    assert first_screen.alerts(found)[0].endswith("8.7% against 7.1% (paired, the difference is −1.6 points, −2.0 to −1.2).")
    found["best"]["gain"] = {"dense": gain(-0.016, 0.02)}  # ahead on test, but not shown to differ
    assert [text.partition(":")[0] for text in first_screen.alerts(found)] == ["Close race"]
    found["best"] = {"model": "cooccurrence"}  # the baseline of the column, whose pairs it holds the other way round
    assert first_screen.difference(found, "dense")["gain"] == pytest.approx(-0.0132)
    assert "(paired, the difference is −1.3 points, −2.3 to −0.3)" in first_screen.alerts(found)[0]


def test_alerts():
    assert first_screen.alerts(metrics()) == []
    found = metrics()
    found["best"]["gain"] = {"cooccurrence": {"gain": 0.0031, "ci95": [-0.002, 0.008]}}
    found["data"] |= {
        "test": 120,
        "repeat_share": 0.6,
        "first": "2024-01-25T00:00:00",
        "dropped": {"x": 100_000},
    }
    found["embeddings"]["word2vec"]["coverage"] = 0.9
    told = first_screen.alerts(found)
    assert told[4] == (
        "Close race: Recommender and Co-occurrence are not shown to differ in MRR@20 (paired, the difference is +0.3 points, −0.2 to +0.8)."
    )
    assert [text.partition(":")[0] for text in told] == [
        "Small test set",
        "Low coverage",
        "Heavy repeats",
        "Short time range",
        "Close race",
        "Many rows dropped",
    ]


def test_the_first_use_of_a_term_leads_to_the_glossary():
    html = "<h3>Decay</h3><p>Targets, a <em>target</em>, t-SNE.</p><pre>decay</pre><li><a href='#x'>decay</a> of pre-decay: decays</li>"
    page, terms = BeautifulSoup(html, "html.parser"), {name: f"glossary--{name}" for name in ("target", "decay", "t-SNE", "EASE")}
    chapters._explain(page, terms)
    links = page.select("a.term")
    assert [(link.get_text(), link["href"][11:], link.parent.name) for link in links] == [
        ("Targets", "target", "p"), ("t-SNE", "t-SNE", "p"), ("decays", "decay", "li"),
    ]  # fmt: skip
    assert page.get_text() == BeautifulSoup(html, "html.parser").get_text() and list(terms) == ["EASE"]


def test_the_page_says_what_a_log_needs(soup):
    rows = {row.th.get_text(): [cell.get_text() for cell in row.find_all("td")] for row in soup.select("#own-log tbody tr")}
    assert all(f"{name}" in soup.select_one("#own-log > p").get_text() for name in layouts.REQUIRED)
    assert list(rows) == list(layouts.NAMES) and [name for name, (needed, _) in rows.items() if needed == "yes"] == list(layouts.REQUIRED)
    assert "visitorid" in rows["user_id"][1] and "shelfspace report --data" in soup.select_one("#own-log pre").get_text()


def test_formula_that_cannot_be_read_stays_as_text():
    assert chapters.formula("<b> \\frac{") == "<code>&lt;b&gt; \\frac{</code>"


def test_pictures_of_other_making_are_kept_as_images():
    notebook = new_notebook(
        cells=[
            code(
                "x",
                new_output("display_data", data={"image/svg+xml": "<svg onload='alert(1)'/>"}),
                new_output("display_data", data={"image/png": "aGk=\n", "text/plain": "<Figure size 1x1>"}),
                new_output("display_data", data={"text/plain": "<Figure size 640x480 with 1 Axes>"}),
                new_output("display_data", data={"text/latex": "$x$"}),
                new_output("error", ename="E", evalue="v", traceback=["\x1b[31mE: <v>\x1b[0m"]),
            )
        ]
    )
    prepared = chapters._prepared(notebook).cells[0].outputs
    kinds = [output.data["text/html"] if "data" in output else output.output_type for output in prepared]
    assert [bool(re.search("base64|<math|error", kind)) for kind in kinds] == [True, True, True, True]


# --- in a browser ---


@pytest.fixture
def open_page(open_file, run):
    return lambda *arguments, **options: open_file(run / "report.html", *arguments, **options)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1440])
def test_no_request_no_error_no_sideways_scroll(open_page, width, scheme):
    page = open_page(width, scheme)
    for unfolded in (False, True):
        if unfolded:
            page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
    assert page.noise == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == (scheme == "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_no_accessibility_violation(open_page, width, scheme):
    page = open_page(width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.wait_for_timeout(100)
    assert violations(page) == ""


def test_one_button_for_all_code_and_contents_that_follow(open_page):
    page = open_page(1440)
    folded = page.locator("details.code")
    assert page.locator("details.code[open]").count() == 0
    page.get_by_role("button", name="Show all code").click()
    assert page.locator("details.code[open]").count() == folded.count()
    page.get_by_role("button", name="Hide all code").click()
    assert page.locator("details.code[open]").count() == 0
    assert page.locator("#contents [aria-current]").inner_text() == "The answer"
    folded.first.locator("summary").click()
    assert page.locator("details.code[open]").count() == 1
    page.evaluate(
        "document.documentElement.style.scrollBehavior = 'auto'; "
        "document.getElementById('02-train-embeddings--every-model').scrollIntoView()"
    )
    page.wait_for_function("document.querySelector('#contents [aria-current]').textContent === 'Every model'")


def test_keyboard_and_print(open_page):
    page = open_page(1440)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.emulate_media(media="print")
    assert not page.locator("#toggle-code").is_visible() and not page.locator("main details:not([open])").first.is_visible()
    page.emulate_media(media="screen")
    assert page.pdf()[:4] == b"%PDF"


def test_reads_without_javascript(open_page):
    page = open_page(360, javascript=False)
    assert page.locator(".answer").is_visible() and page.locator("#contents a").first.is_visible()
    assert not page.locator("#toggle-code").is_visible()
    page.locator("details.code summary").first.click()
    assert page.locator("details.code .highlight").first.is_visible()


@pytest.mark.parametrize("javascript", [True, False])
def test_one_choice_of_metric_and_targets_drives_table_and_figures(open_page, javascript):
    page = open_page(360, javascript=javascript)
    cells = page.locator(".models > .scroll tbody tr").first
    figures = page.locator(".chosen-figure figure:visible figcaption")
    assert "29.1%" in cells.inner_text() and figures.all_inner_texts() == ["Hits of all."]
    page.locator("#by-hr").focus()
    page.keyboard.press("ArrowRight")
    assert "8.7%" in cells.inner_text() and "29.1%" not in cells.inner_text() and figures.all_inner_texts() == ["Ranks of all."]
    page.locator("#by-all").focus()
    page.keyboard.press("ArrowRight")
    assert "13.1%" in cells.inner_text() and figures.all_inner_texts() == ["Ranks of what was seen."]
    copies = page.locator(".chosen-figure .choices input:checked")
    assert [copy.get_attribute("value") for copy in copies.all()] == (["mrr", "seen"] if javascript else [])
    if javascript:
        page.locator(".chosen-figure .choices input[value=all]").check()
        assert page.locator("#by-all").is_checked() and figures.all_inner_texts() == ["Ranks of all."]
    assert page.noise == []


def test_a_wide_screen_shows_all_columns_of_the_table(open_page):
    row = open_page(1440).locator(".models > .scroll tbody tr").first.inner_text()
    assert all(share in row for share in ("29.1%", "43.6%", "14.5%")) and "8.7%" not in row


@pytest.mark.parametrize("scheme, ink", [("light", "rgb(31, 35, 40)"), ("dark", "rgb(229, 227, 221)")])
def test_figures_follow_the_colour_scheme(open_page, scheme, ink):
    page = open_page(1440, scheme)
    color = "getComputedStyle(document.querySelector('.shelf-figure svg text')).fill"
    assert page.evaluate(color) == ink
    page.emulate_media(media="print")
    assert page.evaluate(color) == "rgb(17, 17, 17)"


def test_a_link_to_a_folded_term_unfolds_the_glossary(open_page):
    page = open_page(360)
    assert not page.locator("#glossary dl").is_visible()
    page.locator(".key figcaption a.term").first.click()
    page.wait_for_function("document.querySelector('#glossary details').open")
    assert page.locator("#glossary--hr-20").is_visible()


def test_asides_fold_with_their_code_and_a_phone_shows_them_on_demand(soup, open_page):
    (fold,) = [fold for fold in soup.select("details.code") if "A sentence that folds." in fold.get_text()]
    assert fold.summary.get_text() == "Code · 1 line" and "some_quite_long_name" in fold.get_text()
    page = open_page(360)
    assert not page.locator("details.code").first.is_visible()
    page.locator("#contents summary").click()
    page.get_by_role("button", name="Show all code").click()
    assert page.locator("details.code .highlight").first.is_visible()


# --- what the page of a real run says, and how long it is ---

QUESTIONS = {
    "What is an embedding?": r"An embedding is a list of numbers that stands for a product",
    "Why five products?": r"Customers with fewer than five products are left out, as in the article: with fewer, too little is left",
    "What does word2vec learn from?": r"word2vec learns from pairs of products that stand near each other",
    "What does StarSpace learn from?": r"StarSpace learns from whole sequences: it takes one product \S+ out",
    "Which decay, how chosen, what half-life?": r"The decay of the \w+ user embedding is d = [\d.]+, which found most on the valid users: "
    r"(a half-life of [\d.]+ days|ages counted as \w+)",
    "How many more than with what is popular?": r"with the most popular products \(a difference of \+[\d.]+ points, \+[\d.]+ to \+[\d.]+\)",
    "Is the lead over the best simple method more than chance?": r"(ahead of|not shown to differ from|behind) [\w -]+ in how many are found \("
    r"|is itself the best simple method",
    "How is leakage prevented?": r"Leakage is prevented here, once for all models: no target of the valid or test customers",
    "What happens to new products?": r"A new product that nobody clicked is not recommended unless places are kept",
    "How many milliseconds for one customer?": r"One customer's twenty products take [\d.]+ ms",
    "How is it run on one's own data?": r"A log needs three columns, user_id, product_id and timestamp",
}
SHOWN = """() => [...document.querySelectorAll("main :is(p, li, dd, figcaption)")].filter((part) => part.checkVisibility())
    .map((part) => part.textContent.replace(/\\s+/g, " "))"""
WORDS = """() => {
    const walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT), left = "svg, math, script, .hidden-text, "
        + ".toy :is(ul, ol, table, .now, output, select)";
    let words = 0;
    while (walk.nextNode()) {
        const part = walk.currentNode.parentElement;
        if (part.checkVisibility() && !part.closest(left)) words += walk.currentNode.data.trim().split(/\\s+/).filter(Boolean).length;
    }
    return words;
}"""
"""Words between blanks that are seen with everything folded, tables and captions among them. Left out are formulas, the labels within
figures, and the lists in the toys, which change with what their reader does."""


@pytest.fixture(scope="module")
def paragraphs(small_run, browser) -> list[str]:
    """What is read on the page of a real run before anything is unfolded."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto((small_run.folder / "report.html").as_uri())
    found = page.evaluate(SHOWN)
    page.close()
    return found


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_page_answers_a_newcomers_questions(paragraphs, question):
    assert any(re.search(QUESTIONS[question], part) for part in paragraphs), QUESTIONS[question]


def test_the_page_is_short(small_run, open_file):
    path = small_run.folder / "report.html"
    page = open_file(path, width=1440)
    assert page.evaluate(WORDS) <= 7_000
    pdf = page.pdf(format="A4")
    assert len(re.findall(rb"/Type\s*/Page[^s]", pdf)) <= 28
    phone = open_file(path, width=360, height=780)
    assert phone.evaluate("document.documentElement.scrollHeight") <= 45 * 780
    assert path.stat().st_size <= 5_000_000


def test_the_answer_prints_on_one_page(small_run, open_file):
    page = open_file(small_run.folder / "report.html", width=672, height=1009)  # A4 within its margins, at 96 dots an inch
    page.emulate_media(media="print")
    assert page.evaluate("document.querySelector('.cards').getBoundingClientRect().bottom + scrollY") <= 1009
    assert page.evaluate("getComputedStyle(document.getElementById('01-prepare')).breakBefore") == "page"


CUT = "(box) => [...document.querySelectorAll(box)].filter((box) => box.checkVisibility() && box.scrollWidth > box.clientWidth + 1)"


@pytest.mark.parametrize("width, media", [(1440, "screen"), (768, "screen"), (680, "print")])
def test_no_formula_is_cut(small_run, open_file, width, media):
    page = open_file(small_run.folder / "report.html", width=width)
    page.emulate_media(media=media)
    assert page.locator(".formula").count() > 10 and page.evaluate(f"({CUT})('.formula').length") == 0


def test_what_is_cut_on_a_phone_scrolls_by_keyboard_and_says_so(small_run, open_file):
    page = open_file(small_run.folder / "report.html", width=360)
    cut = page.evaluate(
        f"({CUT})('.formula, .scroll').map((box) => [box.tabIndex, getComputedStyle(box).backgroundImage.includes('gradient')])"
    )
    assert cut and all(place == 0 and shadow for place, shadow in cut)


# --- the glossary and the start page of the notebooks ---


def test_glossary_has_one_source(soup):
    terms = report.glossary()
    names = [term for _, term, _ in terms]
    assert len(names) > 20 and len(set(names)) == len(names) and all(meaning.endswith(".") for _, _, meaning in terms)
    assert names == sorted(names, key=lambda name: re.sub("[^a-z0-9]", "", name.lower()))
    shown = {row["id"]: row.dt.get_text() for row in soup.select("#glossary dl > div")}
    assert shown == {identity: term for identity, term, _ in terms}
    assert [link.get_text() for link in soup.select(".key > .scroll a.term")] == ["all", "seen before", "discovery"]
    assert [link.get_text() for link in soup.select(".key figcaption a.term")] == ["HR@20", "MRR@20"]


def test_start_page_leads_through_the_notebooks_in_order():
    start = report.START.read_text(encoding="utf-8")
    assert re.findall(r"\]\((\S+)\.ipynb\)", start) == [stage.name for stage in stages.stages()]
    makefile = (places.ROOT / "Makefile").read_text()
    assert "notebooks/README.md" in re.search(r"^lab:.*\n((?:\t.*\n)+)", makefile, re.M)[1]


def test_no_path_of_this_machine_is_told(small_run):
    page = (small_run.folder / "report.html").read_text(encoding="utf-8")
    assert str(small_run.folder) not in page and str(places.ROOT) not in page


def test_what_a_page_is_made_of_is_told_by_it(small_run):
    page = (small_run.folder / "report.html").read_text(encoding="utf-8")
    notebooks = {stage.name: stage.notebook for stage in stages.stages()}
    assert sample_is_made_of(page) == report.made_of(notebooks)
    notebooks["01_prepare"].cells[0].source += " "
    assert sample_is_made_of(page) != report.made_of(notebooks)


def sample_is_made_of(page: str) -> str:
    return re.search(r'<meta name="shelfspace-made-of" content="(\w+)">', page)[1]


def test_the_sample_is_of_this_code_and_of_no_machine():
    folder = places.ROOT / "reports" / "sample"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert sample_is_made_of(page) == report.made_of({stage.name: stage.notebook for stage in stages.stages()}), (
        "reports/sample/report.html is older than the code; run `make sample`"
    )
    assert not re.search(r"/(home|root|Users|tmp|work|var|private)/\w", page)
    assert len(page.encode()) <= 3_000_000
    for name in ("first-screen.png", "phone-dark.png"):
        assert (folder / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert f"reports/sample/{name}" in (places.ROOT / "README.md").read_text(encoding="utf-8")


def test_budget_grows_with_the_products(run, monkeypatch):
    monkeypatch.setattr(report, "BUDGETS", (20_000, 8_000_000))
    monkeypatch.setattr(report, "MANY_PRODUCTS", metrics()["data"]["products"])
    with pytest.raises(ValueError, match=r"more than its budget of 0\.02 MB"):
        report.render(run)
    monkeypatch.setattr(report, "MANY_PRODUCTS", metrics()["data"]["products"] - 1)
    report.render(run)
