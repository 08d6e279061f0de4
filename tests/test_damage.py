"""Run folders with any damage: never a traceback, never a file lost that is not ours, and what was damaged is made again."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_pipeline import FIRST as FIRST_STAGE
from test_pipeline import HEADER, contents
from test_pipeline import SECOND as SECOND_STAGE

from shelfspace import cli
from shelfspace.files import run_files, stages
from shelfspace.page import report
from shelfspace.run import execution, pipeline

RECORDS = (".stages/01_first.json", ".stages/02_second.json", ".stages/report.json", ".stages/made/first.json.json", ".stages/files")
FILES = ("first.json", "metrics.json", "params.json", "report.html", "card.md", "notebooks/01_first.ipynb", "notebooks/02_second.ipynb")
FOLDERS = (".stages", ".stages/made", "notebooks")
MINE = (
    "thesis.txt",
    "sub/x.failed",
    "sub/.tmp-x",
    "notebooks/own.ipynb",
    "notebooks/.tmp-y.ipynb",
    ".tmp-z.json",
    "sub/report.html",
    "data.json",
)
DEEP = "[" * 3_000 + "]" * 3_000
SHAPES = (
    "", "{", "null", "[]", "{}", "1", '"x"', "NaN", DEEP, "\0", '{"stage": "01_first", "key": 1}', '{"stage": [], "key": [], "outputs": 3}',
    '{"stage": "01_first", "key": "k", "seconds": -1, "outputs": {"../../x": "y"}}', '{"key": {}, "sha256": null, "seconds": "long"}',
    '{"timings": 3}', '{"timings": {"latency": []}}', '{"outputs": ["first.json"]}', "# a list\nfirst.json\n",
)  # fmt: skip


def in_process(work, line) -> execution.Executed:
    """Run a notebook here, which takes no time, instead of in a kernel."""
    space: dict = {}
    with run_files.atomic(work.final) as temporary, tempfile.NamedTemporaryFile() as ledger, pytest.MonkeyPatch.context() as patch:
        patch.setenv(run_files.LEDGER, ledger.name)
        patch.setenv(run_files.CODE, work.kernel.environment[run_files.CODE])
        for cell in work.stage.notebook.cells:
            if cell.cell_type == "code":
                exec(cell.source, space)
                space |= work.values if "parameters" in cell.metadata.get("tags", ()) else {}
        nbformat.write(work.stage.notebook, temporary)
        return execution.Executed(0.0, tuple(Path(json.loads(line)) for line in Path(ledger.name).read_text().splitlines()))


def page(out: Path) -> Path:
    """A page that shows the figures, instead of all that the report shows."""
    with run_files.atomic(out / "report.html") as temporary:
        temporary.write_text(json.dumps(run_files.read_json(out / "metrics.json")["models"]))
    return out / "report.html"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a finished run of two notebooks, and the command line that made it."""
    root = tmp_path_factory.mktemp("damage")
    notebooks = root / "notebooks"
    notebooks.mkdir()
    (notebooks / "01_first.py").write_text(HEADER + FIRST_STAGE.replace(
        'run_files.write_json(run / "first.json", {"size": size, "data": data})',
        'run_files.once(run, "first.json", lambda path, size: path.write_text(f\'{{"size": {size}}}\') and None, size=size)',
    ))  # fmt: skip
    (notebooks / "02_second.py").write_text(HEADER + SECOND_STAGE)
    known = stages.stages(notebooks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution.Work, "run", in_process)
        patch.setattr(pipeline, "_commit", lambda: None)
        patch.setattr(stages, "stages", lambda folder: known)
        patch.setattr(report, "render", page)
        patch.setitem(pipeline.run.__kwdefaults__, "folder", notebooks)
        out = root / "whole"
        assert call(out) == 0
        assert all((out / name).is_file() for name in (*RECORDS, *FILES))
        yield out


def call(out: Path, *words: str) -> int:
    """`shelfspace report`; any error but those that it says in a sentence comes through."""
    given = sys.argv
    sys.argv = ["shelfspace", "report", "--out", str(out), *words]
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = given
    raise AssertionError("the command line did not exit")


def damage(path: Path, how: str, text: str) -> None:
    """Do something to a file or a folder of a run."""
    if not os.path.lexists(path):
        return
    if how == "cut" and path.is_file():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return
    if how == "append" and path.is_file():
        path.write_bytes(path.read_bytes() + text.encode())
        return
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if how == "write":
        path.write_text(text)
    elif how == "folder":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "pipe":
        os.mkfifo(path)


DAMAGE = st.tuples(
    st.sampled_from((*RECORDS, *FILES, *FOLDERS)),
    st.sampled_from(("remove", "cut", "append", "write", "folder", "loop", "pipe")),
    st.sampled_from(SHAPES),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(DAMAGE, max_size=4), st.sets(st.sampled_from(MINE)),
    st.sampled_from(([], ["--from", "01"], ["--from", "02"], ["--only", "01"], ["--only", "report"], ["-p", "size=4"])),
)  # fmt: skip
def test_any_damage_is_mended_or_refused_and_nothing_of_the_users_is_lost(whole, tmp_path_factory, capfd, damages, mine, words):
    out = tmp_path_factory.mktemp("run", numbered=True) / "run"
    shutil.copytree(whole, out, symlinks=True)
    for path, how, text in damages:
        if not any(parent.is_symlink() or parent.is_file() for parent in (out / path).parents if parent != out):
            damage(out / path, how, text)
    before = {}
    for name in mine:
        if not os.path.lexists((out / name).parent) or (out / name).parent.is_dir():
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_text(f"mine: {name}")
            before[name] = f"mine: {name}".encode()
    capfd.readouterr()

    code = call(out, *words)
    errors = capfd.readouterr().err.strip()
    assert code in (0, 1, 2) and "Traceback" not in errors
    assert not errors if code == 0 else len(errors.splitlines()) == 1 and errors.startswith("shelfspace: "), errors
    assert contents(out).items() >= before.items()
    if code == 0 and "--only" not in words:
        own = words if "size=4" in words else []
        assert json.loads((out / "report.html").read_text())["popular"]["hit_rate@20"] == (0.08 if own else 0.06)
        assert (out / "card.md").read_text().startswith("# Model card: ")
        assert call(out, *own) == 0
        assert capfd.readouterr().out.count("reused") == 3
    shutil.rmtree(out)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from((*RECORDS, *FILES, *MINE, ".lock", "log.csv/x")), st.sampled_from(SHAPES[1:]), min_size=1))
def test_a_folder_that_is_no_runs_keeps_all_its_files_whatever_their_names(whole, tmp_path_factory, capfd, mine):
    out = tmp_path_factory.mktemp("mine", numbered=True)
    for name, text in mine.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    before = contents(out)
    assert call(out) == 2
    assert "is not empty and was not written by Shelfspace" in capfd.readouterr().err
    assert contents(out) == before
    shutil.rmtree(out)


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("report.html", "<p>forged", ["reused", "reused", "rebuilt: report.html was changed"]),
        ("card.md", "# forged", ["reused", "reused", "rebuilt: card.md was changed"]),
        ("notebooks/01_first.ipynb", "{", ["rebuilt: notebooks/01_first.ipynb was changed", "reused", " s"]),
        ("first.json", '{"size": 99}', ["rebuilt: first.json was changed", "reused", " s"]),
        (".stages/01_first.json", '{"outputs": []}', ["rebuilt: its record was damaged", "reused", " s"]),
        (".stages/02_second.json", "[]", ["reused", "rebuilt: its record was damaged", " s"]),
        (".stages/report.json", "null", ["reused", "reused", "rebuilt: its record was damaged"]),
        (".stages/made/first.json.json", DEEP, ["reused", "reused", "reused"]),
        (".stages/files", "", ["reused", "reused", "reused"]),
        ("params.json", "[1]", ["reused", "reused", "reused"]),
    ],
)
def test_the_progress_says_what_was_damaged(whole, tmp_path, capfd, name, text, said):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    assert call(out) == 0  # the page names the folder
    params = (out / "params.json").read_text()
    capfd.readouterr()
    (out / name).write_text(text)
    assert call(out) == 0
    lines = capfd.readouterr().out.strip().splitlines()[:3]
    assert [line.endswith(end) for line, end in zip(lines, said, strict=True)] == [True] * 3, lines
    assert (out / "params.json").read_text() == params
    assert call(out, "--from", "01") == 0


def test_latencies_that_were_forged_are_measured_again(whole, tmp_path, capfd):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    metrics = run_files.read_json(out / "metrics.json")
    (out / "metrics.json").write_text(json.dumps(metrics | {"timings": {"latency": "forged"}}))
    assert call(out) == 0
    assert "02_second" in (said := capfd.readouterr().out) and "rebuilt: metrics.json was changed" in said
    (out / "metrics.json").write_text(json.dumps(metrics | {"timings": {"01_first": "forged"}}))
    assert call(out) == 0
    assert all(isinstance(seconds, float) for seconds in run_files.read_json(out / "metrics.json")["timings"].values())
