"""The command line: what it runs, what its help teaches, and one sentence for what will not do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from shelfspace import cli, pipeline


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
        "data": "log.csv", "out": Path("x y"), "columns": "user_id=u", "start": "04", "only": None, "given": {"dim": 64, "decay": "0.2"},
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

    assert fail(pipeline.StageError("02 stopped.")) == (1, "shelfspace: 02 stopped.")
    assert fail(OSError(28, "No space left on device", "x.parquet")) == (1, "shelfspace: No space left on device: x.parquet")
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
    assert names == [p.name for p in pipeline.parameters() if p.name not in pipeline.PLUMBING]
    assert "one of last-product, time" in said


def test_help_teaches_by_example():
    program = Path(sys.executable).parent / "shelfspace"
    for words in ([], ["report"], ["compare"], ["sweep"], ["simulate"], ["parameters"]):
        found = subprocess.run([program, *words, "--help"], capture_output=True, text=True)
        assert found.returncode == 0
        assert words in ([], ["parameters"]) or "shelfspace " + words[0] in found.stdout.replace("Usage:", "", 1)
