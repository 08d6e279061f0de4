"""The command line: what it runs, what its help teaches, and one sentence for what will not do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from shelfspace import cli
from shelfspace.files import places, stages
from shelfspace.run import execution, pipeline


def call(monkeypatch, *words: str) -> int:
    """Run the command line in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["shelfspace", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


@pytest.fixture
def asked(monkeypatch, tmp_path) -> list:
    """What the pipeline was asked to run; nothing is run."""
    calls = []

    def run(data, out, **options):
        calls.append({"data": data, "out": out} | options)
        return tmp_path / "report.html"

    monkeypatch.setattr(pipeline, "run", run)
    return calls


def test_report_hands_on_what_was_given_and_tells_how_to_get_it_again(asked, monkeypatch, tmp_path, capsys):
    file = tmp_path / "params.yaml"
    file.write_text("dim: 64\ndecay: 0.1\n")
    words = ["--data", "log.csv", "--columns", "user_id=u", "--out", "x y", "-p", "decay=0.2", "-f", file, "--from", "04"]
    assert call(monkeypatch, "report", *words) == 0
    assert asked == [{
        "data": "log.csv", "out": Path("x y"), "columns": "user_id=u", "start": "04", "only": None, "jobs": None, "given": {"dim": 64, "decay": "0.2"},
        "folder": places.NOTEBOOKS,
        "command": "shelfspace report --data log.csv --columns user_id=u --out 'x y' -p dim=64 -p decay=0.2",
    }]  # fmt: skip
    assert "The report is" in capsys.readouterr().out


def test_an_engine_is_a_parameter_of_the_notebooks(asked, monkeypatch):
    assert call(monkeypatch, "report", "--engine", "spark", "--engine-url", "spark://host:7077") == 0
    assert asked[0]["given"] == {"engine": "spark", "engine_url": "spark://host:7077"}
    assert asked[0]["command"] == "shelfspace report -p engine=spark -p engine_url=spark://host:7077"


def test_the_plain_command_is_the_shop(asked, monkeypatch):
    assert call(monkeypatch, "report") == 0
    assert asked[0]["data"] == "shop" and asked[0]["command"] == "shelfspace report"


def test_only_asks_for_one_stage(asked, monkeypatch):
    assert call(monkeypatch, "report", "--only", "02:word2vec") == 0
    assert asked[0]["only"] == "02:word2vec" and asked[0]["command"] == "shelfspace report"


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["-p", "decay"], "-p takes KEY=VALUE, as in -p decay=0.2; it got 'decay'."),
        (["-p", "data=x"], "data is set with --data, not with -p or -f."),
        (["-p", "run_dir=x"], "run_dir is set with --out"),
        (["-f", "missing.yaml"], "missing.yaml cannot be read"),
        (["-f", "list.yaml"], "holds list; it must hold one `name: value` per line."),
        (["-f", "odd.yaml"], "odd.yaml is not YAML"),
        (["-p", "dimm=3"], "There is no parameter 'dimm'. Did you mean dim?"),
        (["--data", "nowhere.csv"], "nowhere.csv"),
        (["--from", "9"], "--from takes one of 01_prepare"),
        (["--engine", "sparc"], "engine is 'sparc'; it must be one of duckdb, spark, bigquery."),
        (["--engine", "bigquery"], "The engine bigquery needs a project"),
    ],
)
def test_what_will_not_do_is_one_sentence(monkeypatch, tmp_path, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    Path("list.yaml").write_text("- 1\n")
    Path("odd.yaml").write_text("{a: [")
    assert call(monkeypatch, "report", "--out", tmp_path / "run", *words) == 2
    captured = capsys.readouterr()
    assert captured.err.strip().startswith("shelfspace: ") and sentence in captured.err
    assert len(captured.err.strip().splitlines()) == 1 and captured.out == ""
    assert not (tmp_path / "run").exists()


BOMB = "a: &a [1, 1]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijklmnopqrstuvwxy", "bcdefghijklmnopqrstuvwxyz"))


@pytest.mark.parametrize(
    "text, sentence",
    [
        (BOMB, "uses an alias (*name), which a file of parameters may not; write the value out."),
        ("dim: 1\n" * 20_000, "is larger than 100,000 bytes, so it is no file of parameters."),
        ("a: " + "[" * 20_000, "is nested too deeply"),
        ("dim: 2024-13-45\n", "is not YAML"),
        ("dim: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        ("? [1]\n: 2\n", "is not YAML"),
        ("dim: {a: 1}\n", "dim is {'a': 1}; it must be a whole number"),
        ("[1]: 2\ndim: 3\n", "is not YAML"),
    ],
)
def test_a_parameter_file_that_will_not_do_is_one_sentence(monkeypatch, tmp_path, capsys, text, sentence):
    (tmp_path / "p.yaml").write_text(text)
    assert call(monkeypatch, "report", "--out", tmp_path / "run", "-f", tmp_path / "p.yaml") == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("shelfspace: ") and sentence in said and len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_parameter_file_is_a_regular_one(monkeypatch, tmp_path, capsys):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for path, sentence in (
        ("/dev/zero", "is no file"),
        (tmp_path / "pipe", "is no file"),
        (tmp_path, "is no file"),
        (tmp_path / "loop", "cannot be read"),
    ):
        assert call(monkeypatch, "report", "--out", tmp_path / "run", "-f", path) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--out", "/"], "/ is the root of the file system; name a folder of its own"),
        (["--out", "loop"], "loop is a link that leads back to itself; name another folder"),
        (["--out", "loop/run"], "loop/run is a link that leads back to itself"),
        (["--out", "a\udcffb"], "is not Unicode text"),
        (["--data", ""], "--data is empty; it takes shop, or a file, folder or pattern"),
        (["--data", "loop"], "loop"),
        (["--data", "a\udcffb"], "data is"),
        (["--columns", "user_id"], "columns is 'user_id'; it must be pairs of NAME=COLUMN"),
        (["-p", "images=nowhere"], "images is 'nowhere', which is no folder"),
    ],
)
def test_paths_that_will_not_do_are_one_sentence(monkeypatch, tmp_path, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("log.csv").write_text("user_id,product_id,timestamp\nu,p,2024-01-01\n")
    assert call(monkeypatch, "report", *words, *([] if "--out" in words else ["--out", "run"])) == 2
    said = capsys.readouterr().err.strip()
    assert sentence in said and len(said.splitlines()) == 1 and "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "loop"]


def test_an_empty_parameter_file_changes_nothing(asked, monkeypatch, tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert call(monkeypatch, "report", "-f", tmp_path / "empty.yaml") == 0
    assert asked[0]["given"] == {}


def test_errors_of_a_stage_and_of_the_disk_are_told_apart_from_wrong_input(asked, monkeypatch, capsys):
    def fail(error):
        def run(*arguments, **options):
            raise error

        monkeypatch.setattr(pipeline, "run", run)
        code = call(monkeypatch, "report")
        return code, capsys.readouterr().err.strip()

    assert fail(execution.StageError("02 stopped.")) == (1, "shelfspace: 02 stopped.")
    assert fail(OSError(28, "No space left on device", "x.parquet")) == (1, "shelfspace: No space left on device: x.parquet")
    assert fail(OSError(28, "No space left on device")) == (1, "shelfspace: No space left on device.")
    assert fail(MemoryError())[1].startswith("shelfspace: there is not enough memory")
    assert fail(KeyboardInterrupt()) == (130, "shelfspace: stopped; the next call picks up where this one was.")
    assert fail(ValueError("No.")) == (2, "shelfspace: No.")
    monkeypatch.setenv("SHELFSPACE_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["shelfspace", "report"])
    with pytest.raises(ValueError, match="No"):
        cli.main()


@pytest.mark.parametrize("ending, read", [("csv", pd.read_csv), ("parquet", pd.read_parquet)])
def test_simulate_writes_a_log_and_its_truth(monkeypatch, tmp_path, capsys, ending, read):
    out = tmp_path / f"log.{ending}"
    assert call(monkeypatch, "simulate", "--users", 50, "--products", 60, "--out", out, "--truth", tmp_path / "truth") == 0
    log = read(out)
    assert {"user_id", "product_id", "timestamp", "event", "name", "price"} <= set(log) and log.user_id.nunique() == 50
    assert f"{len(log):,} events of 50 users and 60 products" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "truth").iterdir()} >= {"truth_users.parquet", "truth_complements.parquet"}
    assert call(monkeypatch, "simulate", "--users", 0, "--out", out) == 2
    assert "users is 0; it must be a whole number of at least 1" in capsys.readouterr().err


def test_parameters_lists_every_one(monkeypatch, capsys):
    assert call(monkeypatch, "parameters") == 0
    said = capsys.readouterr().out
    names = [line.split()[0] for line in said.strip().splitlines()]
    assert names == [p.name for p in stages.parameters() if p.name not in stages.PLUMBING]
    assert "one of last-product, time" in said


def test_help_teaches_by_example():
    program = Path(sys.executable).parent / "shelfspace"
    for words in ([], ["report"], ["compare"], ["sweep"], ["simulate"], ["parameters"]):
        found = subprocess.run([program, *words, "--help"], capture_output=True, text=True)
        assert found.returncode == 0
        assert words in ([], ["parameters"]) or "shelfspace " + words[0] in found.stdout.replace("Usage:", "", 1)


def test_the_program_ends_without_a_word_of_its_libraries(tmp_path):
    """DuckDB counts at the end what was not collected, and tells of it in forty lines."""
    program = Path(sys.executable).parent / "shelfspace"
    words = ["simulate", "--users", "50", "--products", "60", "--out", tmp_path / "log.csv"]
    found = subprocess.run([program, *words], capture_output=True, text=True)
    assert found.returncode == 0 and found.stderr == ""
    assert found.stdout.startswith(str(tmp_path / "log.csv")) and len(found.stdout.splitlines()) == 1
