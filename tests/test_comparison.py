"""Comparing runs: what is refused, what the page says, and a sweep that runs only what its parameter touches."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from conftest import violations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cli import call
from test_pipeline import notebooks  # noqa: F401  (two notebooks that take no time)
from test_report import HOSTILE, metrics, params

from shelfspace.files import run_files
from shelfspace.page import comparison
from shelfspace.run import keys, pipeline
from shelfspace.run import sweep as sweeps
from shelfspace.vectors import embeddings


def make(folder: Path, factor: float = 1.0, **changed) -> Path:
    """A finished run, as far as comparing goes: metrics.json and params.json."""
    found, about = metrics(), params()
    for values in found["models"].values():
        for name in ("hit_rate@20", "mrr@20"):
            values[name] *= factor
            values["ci95"][name] = [bound * factor for bound in values["ci95"][name]]
        values["valid"] = {"all": {name: values[name] for name in ("hit_rate@20", "mrr@20")}}
    about["parameters"] |= changed
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(found))
    (folder / "params.json").write_text(json.dumps(about))
    return folder


def edit(folder: Path, name: str, change) -> None:
    found = json.loads((folder / name).read_text())
    change(found)
    (folder / name).write_text(json.dumps(found))


def test_page_of_two_runs(tmp_path):
    one, two = make(tmp_path / "one", dim=50, seed=1), make(tmp_path / "two", 1.2, dim=64, seed=2)
    (one / "report.html").write_text("")
    soup = BeautifulSoup(comparison.render([one, two], tmp_path / "pages" / "x.html").read_text(encoding="utf-8"), "html.parser")
    assert soup.h1.get_text() == "Which run is best?" and soup.find("img") is None
    said = soup.find(class_="answer").get_text()
    assert "The valid users choose two: its Recommender has an MRR@20 of 10.5% there." in said
    assert "On the test users it has 10.5% (10.0% to 11.0%), and an HR@20 of 34.9%" in said
    assert "one follows with Recommender, 8.7% on the valid users" in said and "nothing is chosen by that" not in said
    mrr = soup.select("#table-1 tbody tr")
    assert len(mrr) == 8 and mrr[0].th.get_text() == "Recommender"
    assert [" ".join(cell.get_text().split()) for cell in mrr[0].select("td")] == ["8.7% 8.3–9.2%", "10.5% 10.0–11.0%"]
    assert [cell.get("class") for cell in mrr[0].select("td")] == [None, ["best"]]
    edit(two, "metrics.json", lambda m: m["models"].update(popular=run_files.read_json(one / "metrics.json")["models"]["popular"]))
    again = BeautifulSoup(comparison.render([one, two], tmp_path / "y.html").read_text(encoding="utf-8"), "html.parser")
    assert [cell.get("class") for cell in again.select("#table-1 tbody tr")[-1].select("td")] == [None, None]  # alike: none is best
    differing = {row.th.get_text(): [c.get_text() for c in row.select("td")] for row in soup.select("#differences tbody tr")}
    assert differing == {"dim": ["50", "64"], "seed": ["1", "2"]}
    assert [link["href"] for link in soup.select("#runs a")] == ["../one/report.html"]
    assert "same targets" in soup.find(class_="first").get_text()


def test_one_differing_parameter_gives_a_curve_in_order(tmp_path):
    folders = [make(tmp_path / f"d{d}", f, decay=d) for d, f in ((1.0, 0.9), (0.0, 0.8), (0.1, 1.01))]
    soup = BeautifulSoup(comparison.render(folders, tmp_path / "x.html").read_text(encoding="utf-8"), "html.parser")
    assert soup.h1.get_text() == "Which decay is best?"
    assert [th.get_text() for th in soup.select("#table-1 thead th")] == ["Model", "d0.0", "d0.1", "d1.0"]
    assert "The valid users choose decay = 0.1" in soup.find(class_="answer").get_text()
    assert "on the valid users goes from 7.0% to 8.8%" in soup.find(class_="answer").get_text()
    assert "The valid users choose Recommender at decay = 0.1" in soup.figcaption.get_text() and soup.img["alt"]


def test_the_valid_users_choose_though_the_test_users_disagree(tmp_path):
    one, two = make(tmp_path / "one", 1.2, decay=0.0), make(tmp_path / "two", 1.0, decay=0.1)
    edit(two, "metrics.json", lambda m: m["models"]["dense"]["valid"]["all"].update({"mrr@20": 0.2}))
    found = comparison.read([one, two])
    said = comparison.answer(found, "decay")
    assert said[0].startswith("The valid users choose decay = 0.1: its Recommender has an MRR@20 of 20.0% there.")
    assert "On the test users decay = 0.0 is ahead, at 10.5%" in said[2] and "nothing is chosen by that" in said[2]
    assert [cell["best"] for cell in comparison._table(found, "mrr@20")[0]["cells"]] == [False, True]
    edit(two, "metrics.json", lambda m: m["models"]["dense"].update(kind="ceiling"))  # what can be known is no model
    assert comparison.answer(comparison.read([one, two]))[0].startswith("The valid users choose one")


def test_runs_without_figures_of_the_valid_users_choose_nothing(tmp_path):
    one, two = make(tmp_path / "one", 1.2), make(tmp_path / "two")
    edit(two, "metrics.json", lambda m: [values.pop("valid") for values in m["models"].values()])
    said = comparison.answer(comparison.read([one, two]))
    assert said[0].startswith("No best run is named: two holds no figures of the valid users")
    assert "On the test users, one: the highest MRR@20 is 10.5%" in said[1] and len(said) == 3
    assert not any(cell["best"] for row in comparison._table(comparison.read([one, two]), "mrr@20") for cell in row["cells"])


def test_values_without_an_order_keep_theirs(tmp_path):
    folders = [make(tmp_path / name, embedding=name) for name in ("word2vec", "starspace", "none")]
    edit(folders[2], "params.json", lambda p: p["parameters"].update(embedding=None))
    page = comparison.render(folders, tmp_path / "x.html").read_text(encoding="utf-8")
    heads = BeautifulSoup(page, "html.parser").select("#table-1 thead th")
    assert [th.get_text() for th in heads] == ["Model", "none", "starspace", "word2vec"]


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("params.json", lambda p: p["input"].update(fingerprint="other"), "Different logs: the runs did not read the same input"),
        ("metrics.json", lambda m: m.update(protocol="time"), "Different targets: the runs' protocols or target events differ"),
        ("metrics.json", lambda m: m.update(target_event="purchase"), "Different targets"),
        ("params.json", lambda p: p["versions"].update(tensorflow="1"), "Different versions of packages"),
        ("params.json", lambda p: p.update(git_commit="x"), "Different commits of the code"),
    ],
)
def test_runs_that_cannot_be_compared_say_so(tmp_path, file, change, sentence):
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    edit(two, file, change)
    (said,) = comparison.cautions(comparison.read([one, two]))
    assert said.startswith(sentence)
    assert sentence in comparison.render([one, two], tmp_path / "x.html").read_text(encoding="utf-8").replace("&#39;", "'").replace(
        "<strong>", ""
    ).replace("</strong>", "")


def test_other_targets_of_the_same_log_are_told_by_the_records(tmp_path):
    one, two = make(tmp_path / "one", min_products=5), make(tmp_path / "two", min_products=7)
    for folder, digest in ((one, 64 * "a"), (two, 64 * "b")):
        record = {"stage": "01_prepare", "key": 64 * "0", "seconds": 1.0, "outputs": {"sequences.parquet": digest}}
        run_files.write_json(folder / ".stages" / "01_prepare.json", record)
    (said,) = comparison.cautions(comparison.read([one, two]))
    assert said.startswith("Different targets: the runs' sequences differ (min_products)")


def foreign(tmp_path):
    """Runs whose JSON is not a run's, and what is said of them."""
    nan, deep = float("nan"), "[" * 100_000
    cases = (
        ("metrics.json", lambda m: m.update(models=[1]), "models must be an object"),
        ("metrics.json", lambda m: m["models"].update(dense=3), "models/dense must be an object"),
        ("metrics.json", lambda m: m["models"]["dense"].pop("mrr@20"), "models/dense has no mrr@20"),
        (
            "metrics.json",
            lambda m: m["models"]["dense"].update({"mrr@20": nan}),
            "models/dense/mrr@20 is NaN and must be a share from 0 to 1",
        ),
        ("metrics.json", lambda m: m["models"]["dense"].update({"hit_rate@20": "0.3"}), 'hit_rate@20 is "0.3" and must be a share'),
        ("metrics.json", lambda m: m["models"]["dense"].update({"hit_rate@20": True}), "hit_rate@20 is true and must be a share"),
        ("metrics.json", lambda m: m["models"]["dense"]["ci95"].update({"mrr@20": [0.1]}), "ci95/mrr@20 must be a list of 2"),
        ("metrics.json", lambda m: m["models"]["dense"]["ci95"].update({"mrr@20": [0.1, nan]}), "mrr@20/2 is NaN"),
        ("metrics.json", lambda m: m.update(protocol=[]), "protocol is [] and must be text"),
        ("metrics.json", lambda m: m["data"].update(test="many"), 'data/test is "many" and must be a whole number'),
        ("metrics.json", lambda m: m.update(timings={"01": None}), "timings/01 is null and must be a number of seconds"),
        ("params.json", lambda p: p.update(parameters=[1]), "parameters must be an object"),
        ("params.json", lambda p: p["parameters"].update(dim=float("inf")), "parameters/dim is Infinity and must be finite"),
        ("params.json", lambda p: p["parameters"].update(dim=[10**400]), "and must be finite"),
        ("params.json", lambda p: p.update(input="x"), "input must be an object"),
        ("params.json", lambda p: p.update(git_commit={}), "git_commit is {} and must be text or null"),
    )
    for place, (name, change, sentence) in enumerate(cases):
        edit(folder := make(tmp_path / f"foreign{place}"), name, change)
        yield folder, sentence
    (folder := make(tmp_path / "deep")).joinpath("metrics.json").write_text(deep)
    yield folder, "it is nested too deeply"


def test_a_damaged_record_of_the_targets_is_no_record(tmp_path):
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    (one / ".stages").mkdir()
    for text in ("{", "[]", "{}", '{"outputs": []}', '{"outputs": {"sequences.parquet": []}}'):
        (one / ".stages" / "01_prepare.json").write_text(text)
        assert comparison.cautions(comparison.read([one, two])) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda of: st.lists(of, max_size=2) | st.dictionaries(st.text(max_size=5), of, max_size=2),
    max_leaves=3,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_file_holds_there_is_a_page_or_one_sentence(tmp_path, data):
    one, two = (make(Path(tempfile.mkdtemp(dir=tmp_path)) / name, dim=dim) for name, dim in (("one", 1), ("two", 2)))
    name = data.draw(st.sampled_from(["metrics.json", "params.json"]))
    found = json.loads((two / name).read_text())
    at, steps = found, data.draw(st.integers(1, 4))
    for _ in range(steps):
        if not isinstance(at, (dict, list)) or not at:
            break
        into, key = at, data.draw(st.sampled_from(sorted(at))) if isinstance(at, dict) else data.draw(st.integers(0, len(at) - 1))
        at = at[key]
    into[key] = data.draw(VALUES)
    (two / name).write_text(json.dumps(found))
    try:
        assert comparison.render([one, two], tmp_path / "x.html").exists()
    except ValueError as said:
        assert type(said) is ValueError and len(str(said).splitlines()) == 1 and str(two) in str(said)


@pytest.mark.parametrize("figures", [1, {"all": 1}, {"all": {"mrr@20": "high"}}, None])
def test_figures_of_the_valid_users_that_are_none_are_passed_over(tmp_path, figures):
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    found = json.loads((two / "metrics.json").read_text())
    for model in found["models"].values():
        model["valid"] = figures
    (two / "metrics.json").write_text(json.dumps(found))
    assert comparison.render([one, two], tmp_path / "x.html").exists()


def test_what_will_not_do_is_said(tmp_path, monkeypatch, capsys):
    one, two, empty = make(tmp_path / "one"), make(tmp_path / "two"), tmp_path / "empty"
    empty.mkdir()
    (broken := make(tmp_path / "broken")).joinpath("metrics.json").write_text("{")
    (bare := make(tmp_path / "bare")).joinpath("metrics.json").write_text("{}")
    (odd := make(tmp_path / "odd")).joinpath("params.json").write_text("[]")
    for folders, sentence in (
        ([one], "Comparing takes two runs or more; it got 1."),
        ([one, tmp_path / "nowhere"], "There is no folder"),
        ([one, one], "is named twice; name each run once"),
        ([one, tmp_path / "two" / ".." / "one"], "is named twice"),
        ([one, empty], "has no metrics.json, so it is no finished run; make one with `shelfspace report --out`"),
        ([one, broken], "cannot be read"),
        ([one, bare], "holds no models"),
        ([one, odd], "is not a run's"),
        *(([one, folder], sentence) for folder, sentence in foreign(tmp_path)),
    ):
        assert call(monkeypatch, "compare", *folders, "--out", tmp_path / "x.html") == 2
        said = capsys.readouterr().err.strip()
        assert sentence in said and len(said.splitlines()) == 1
    assert call(monkeypatch, "compare", one, two, "--out", tmp_path / "x.txt") == 2
    assert "it must end in .html" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()
    assert call(monkeypatch, "compare", one, two, "--out", tmp_path / "x.html") == 0
    assert "The comparison is" in capsys.readouterr().out and (tmp_path / "x.html").exists()


def test_runs_of_one_name_are_told_apart(tmp_path):
    one, two = make(tmp_path / "a" / "run"), make(tmp_path / "b" / "run")
    assert [run.name for run in comparison.read([one, two])] == ["a/run", "b/run"]


def test_same_runs_same_bytes(tmp_path):
    folders = [make(tmp_path / name, decay=d) for name, d in (("one", 0.1), ("two", 0.2))]
    first = comparison.render(folders, tmp_path / "x.html").read_bytes()
    assert comparison.render(folders, tmp_path / "x.html").read_bytes() == first


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_page_in_a_browser(open_file, tmp_path, width, scheme):
    folders = [make(tmp_path / f"{i} <b>'\"&", f, decay=i) for i, f in enumerate((0.9, 1.0, 0.97, 0.8))]
    edit(folders[0], "metrics.json", lambda m: m["models"]["dense"].update(label=HOSTILE))
    edit(folders[0], "params.json", lambda p: p.update(git_commit=HOSTILE, command=HOSTILE, data=HOSTILE))
    page = open_file(comparison.render(folders, tmp_path / "x.html"), width=width, scheme=scheme)
    assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
    assert violations(page) == "" and page.noise == [] and page.locator("script").count() == 1


def test_a_run_that_starts_from_another_is_told_what_drifted(small_run, open_file, tmp_path):
    copies = [tmp_path / name for name in ("monday", "tuesday")]
    for copy in copies:
        shutil.copytree(small_run.folder, copy)
    edit(copies[1], "params.json", lambda params: params["parameters"].update(start=str(copies[0])))
    path = copies[1] / "product_embeddings" / "word2vec.parquet"
    vectors = embeddings.load(path)
    vectors.vectors[:3] = -vectors.vectors[:3]
    vectors.save(path)
    page = open_file(comparison.render(copies, tmp_path / "x.html"), width=360)
    told = page.locator("#drift").inner_text()
    assert (
        "100.0 % are the same in the StarSpace space" in told.replace("100.0%", "100.0 %")
        and "tuesday starts from the vectors of monday" in told
    )
    assert "have a mean cosine of 1.000 with those they had" in told and page.locator("#curve").count() == 0
    assert violations(page) == "" and page.noise == []
    (copies[0] / "user_embeddings.parquet").write_text("none")
    assert "What drifted" not in comparison.render(copies, tmp_path / "y.html").read_text(encoding="utf-8")


def test_real_runs_are_compared(small_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(small_run.folder, copy)
    page = comparison.render([small_run.folder, copy], tmp_path / "x.html").read_text(encoding="utf-8")
    assert "same targets" in page and "No parameter: the runs were made with the same ones." in page
    table = BeautifulSoup(page, "html.parser").select("#table-1 tbody tr")
    models = run_files.read_json(copy / "metrics.json")["models"]
    assert len(table) == len([name for name, values in models.items() if values["kind"] != "ceiling"])  # which is no model
    assert all(len({cell.get_text() for cell in row.select("td")}) == 1 for row in table)


# --- sweep ---


def sweep(notebooks, out, name, values, **options):  # noqa: F811
    said: list[str] = []
    page = sweeps.sweep(name, values, out, folder=notebooks, say=said.append, **options)
    lines = [line.split() for line in "".join(said).strip().splitlines() if line.strip()]
    return page, [[line[0], "reused" in line] for line in lines if line[0] in ("01_first", "02_second")]


def test_a_sweep_runs_only_what_its_parameter_touches(notebooks, tmp_path):  # noqa: F811
    out = tmp_path / "sweep"
    page, ran = sweep(notebooks, out, "factor", ["2", "3", "5"], given={"size": "4"})
    assert ran == [["01_first", False], ["02_second", False], *[["01_first", True], ["02_second", False]] * 2]
    rates = [run_files.read_json(out / f"factor={f}" / "metrics.json")["models"]["popular"]["hit_rate@20"] for f in (2, 3, 5)]
    assert rates == [0.08, 0.12, 0.2]
    assert page == out / "compare.html" and "No best run is named" in page.read_text(encoding="utf-8")
    _, ran = sweep(notebooks, out, "factor", ["2", "3", "5", "7"], given={"size": "4"})  # one more value
    assert [reused for _, reused in ran] == [True] * 7 + [False]
    _, ran = sweep(notebooks, tmp_path / "sizes", "size", ["1", "2"])  # the first stage has it: nothing to hand on
    assert [reused for _, reused in ran] == [False] * 4


def test_what_a_sweep_refuses(notebooks, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    pipeline.run("shop", run, folder=notebooks, say=lambda text: None)
    for out, name, values, sentence in (
        ("x", "factor", ["2", "two"], "factor is 'two'; it must be a whole number"),
        ("x", "factor", ["2", "2"], "factor is to be 2 twice; name each value once"),
        ("x", "share", ["1", "1.0"], "share is to be 1.0 twice"),
        ("x", "factor", ["2"], "A sweep takes two values of factor or more"),
        ("x", "faktor", ["2", "3"], "Did you mean factor"),
        ("x", "data", ["a", "b"], "data cannot be swept"),
        ("run", "factor", ["2", "3"], "is itself a run; name another folder for the sweep"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            sweep(notebooks, tmp_path / out, name, values)
    assert not (tmp_path / "x").exists()


def test_a_sweep_leaves_the_users_folders_alone(notebooks, tmp_path):  # noqa: F811
    mine = tmp_path / "sweep" / "factor=3" / "first.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(ValueError, match="factor=3 is not empty and was not written by Shelfspace"):
        sweep(notebooks, tmp_path / "sweep", "factor", ["2", "3"])
    assert mine.read_text() == "mine" and not (tmp_path / "sweep" / "factor=2").exists()


def test_sweep_on_the_command_line(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(sweeps, "sweep", lambda *words, **options: asked.append((words, options)) or tmp_path / "compare.html")
    (tmp_path / "p.yaml").write_text("hidden: 256, 128\n")
    words = ["-p", "decay=0, 0.05,0.1", "-p", "dim=32", "-f", tmp_path / "p.yaml", "--data", "log.csv"]
    assert call(monkeypatch, "sweep", *words) == 0
    (name, values, out), options = asked[0]
    assert (name, values, out) == ("decay", ["0", "0.05", "0.1"], Path("reports/sweep-decay"))
    assert options["given"] == {"hidden": "256, 128", "dim": "32"} and options["data"] == "log.csv"
    assert options["command"](Path("r"), {"decay": "0.1"}) == "shelfspace report --data log.csv --out r -p decay=0.1"
    assert call(monkeypatch, "sweep", "-p", "hidden=128;256, 128", "--out", tmp_path / "x") == 0
    assert asked[1][0] == ("hidden", ["128", "256, 128"], tmp_path / "x")
    capsys.readouterr()
    for words, sentence in (
        (["-p", "decay=0.1"], "several values of one parameter, as in -p decay=0,0.1; it got none with several"),
        (["-p", "decay=0,1", "-p", "dim=2,3"], "it got decay, dim"),
        (["-p", "decay"], "-p takes KEY=VALUE"),
        (["-p", "data=a,b"], "data is set with --data"),
    ):
        assert call(monkeypatch, "sweep", *words) == 2
        assert sentence in capsys.readouterr().err


def test_stages_handed_on_are_the_first_runs(small_run, tmp_path):
    copy = tmp_path / "copy"
    sweeps._hand_on(small_run.folder, copy, ["01_prepare", "02_train_embeddings"])
    assert {p.name for p in (copy / ".stages").glob("*.json")} == {"01_prepare.json", "02_train_embeddings.json"}
    for stage in ("01_prepare", "02_train_embeddings"):
        record = run_files.read_json(copy / ".stages" / f"{stage}.json")
        assert keys.stale(stage, record["key"], copy) is None
    kept = small_run.folder / ".stages" / "made"
    for record in kept.rglob("*.json"):  # of later stages, too, which finds made what nothing that differs is in
        file = record.relative_to(kept)
        assert (copy / ".stages" / "made" / file).read_bytes() == record.read_bytes()
        assert run_files.sha256_file(copy / file.as_posix().removesuffix(".json")) == run_files.read_json(record)["sha256"]
    assert (copy / "recommender_tied.keras").exists() and not (copy / "metrics.json").exists()
    shutil.rmtree(copy)
