"""Files of a run folder are whole or not there."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from shelfspace.files import run_files


def test_an_atomic_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "x.json"
    with pytest.raises(RuntimeError), run_files.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert os.listdir(path.parent) == []
    run_files.write_json(path, {"b": 1, "a": "ü"})
    with pytest.raises(RuntimeError), run_files.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert run_files.read_json(path) == {"b": 1, "a": "ü"} and list(run_files.read_json(path)) == ["b", "a"]
    assert os.listdir(path.parent) == ["x.json"] and path.stat().st_mode & 0o777 == 0o644


def test_numbers_that_are_none_are_no_json(tmp_path):
    with pytest.raises(ValueError):
        run_files.write_json(tmp_path / "x.json", float("nan"))
    assert os.listdir(tmp_path) == []


def test_a_relative_folder_counts_from_the_repository_also_in_its_notebooks(tmp_path, monkeypatch):
    (tmp_path / "src" / "shelfspace").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert run_files.run_folder("reports/x") == tmp_path / "reports" / "x"
    monkeypatch.chdir(tmp_path)
    assert run_files.run_folder("reports/y").absolute() == tmp_path / "reports" / "y"
    assert sorted(os.listdir(tmp_path / "reports")) == ["x", "y"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="is a file, and a run needs a folder"):
            run_files.run_folder(path)
    with pytest.raises(ValueError, match="cannot be made"):
        run_files.run_folder(tmp_path / ("x" * 300))


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert run_files.sha256_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_once_makes_again_only_what_other_code_or_other_arguments_would_make(tmp_path):
    made = []

    def make(path, **given):
        made.append(given)
        path.write_text("x")
        return given["size"]

    def once(size=1, vectors=(1, 2)):
        return run_files.once(tmp_path, "a/b.txt", make, size=size, vectors=np.array(vectors))

    once()
    once()
    assert len(made) == 2 and not (tmp_path / ".stages").exists()  # by hand, always
    with run_files.under("one"):
        first = once()
        assert len(made) == 3 and first.returned == 1 and once() == first and len(made) == 3
        assert once(size=2).returned == 2 and len(made) == 4
        once(size=2, vectors=(1, 3))
        assert len(made) == 5
        with run_files.under("two"):
            once(size=2, vectors=(1, 3))
        assert len(made) == 6
        once(size=2, vectors=(1, 3))
        assert len(made) == 7
        run_files.forget(tmp_path, lambda name: name == "a/c.txt")
        once(size=2, vectors=(1, 3))
        assert len(made) == 7
        run_files.forget(tmp_path, lambda name: name == "a/b.txt")
        once(size=2, vectors=(1, 3))
        assert len(made) == 8
        (tmp_path / "a" / "b.txt").write_text("y")  # somebody meddled with it
        once(size=2, vectors=(1, 3))
        assert len(made) == 9
    assert run_files.CODE not in os.environ


def test_the_ledger_lists_what_was_written_and_what_was_found_made(tmp_path, monkeypatch):
    ledger = tmp_path / "ledger"
    monkeypatch.setenv(run_files.LEDGER, str(ledger))
    with run_files.under("code"):
        run_files.once(tmp_path, "a.txt", lambda path: path.write_text("x") and None)
        ledger.unlink()
        run_files.once(tmp_path, "a.txt", lambda path: path.write_text("x") and None)
    run_files.write_json(tmp_path / "b\nc.json", 1)
    assert [Path(json.loads(line)).name for line in ledger.read_text().splitlines()] == ["a.txt", "b\nc.json"]


def test_a_run_folder_is_known_by_its_list_which_says_what_may_be_replaced(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "mine.json").write_text("mine")
    assert not run_files.is_run(run) and run_files.listed(run) == set()
    run_files.claim(run, ["a"])
    assert run_files.is_run(run) and run_files.listed(run) == {"a"}
    run_files.write_json(run / "deep" / "b.json", 1)
    run_files.write_json(run / "deep" / "b.json", 2)
    assert {"a", "deep/b.json"} == {name for name in run_files.listed(run) if run_files.TEMPORARY not in name}
    with pytest.raises(ValueError, match="mine.json was not written by the run in that folder, so it is not replaced"):
        run_files.write_json(run / "mine.json", 1)
    with pytest.raises(ValueError, match="not replaced"):
        run_files.write_json(run / "deep" / ".." / "mine.json", 1)
    assert (run / "mine.json").read_text() == "mine" and sorted(os.listdir(run)) == [".stages", "deep", "mine.json"]
    run_files.remove_unfinished(run)
    assert run_files.listed(run) == {"a", "deep/b.json"}

    path = run / run_files.LIST
    path.write_bytes(path.read_bytes()[:-2])  # cut short
    run_files.claim(run, ["c"])
    assert "c" in run_files.listed(run)
    path.write_text("of something else")
    assert not run_files.is_run(run)


def test_records_of_a_wrong_shape_are_none(tmp_path):
    good = {"stage": "01_x", "key": "0" * 64, "seconds": 1.5, "outputs": {"a/b.json": "f" * 64}}
    wrong = [
        {"stage": "02_y"}, {"key": 3}, {"key": "k"}, {"seconds": "1"}, {"seconds": -1}, {"seconds": True}, {"outputs": []}, {"outputs": {"a": 1}},
        *({"outputs": {name: "f" * 64}} for name in ("", "/etc/x", "../x", "a/../../x", "a//b", "./a", "a\nb", "a\0b")), {"notebook": 1}, {"latency": []},
    ]  # fmt: skip
    for value in (None, [], {}, 1, *(good | change for change in wrong)):
        run_files.write_json(tmp_path / ".stages" / "01_x.json", value)
        assert run_files.read_record(tmp_path, "01_x") is None, value
    run_files.write_json(tmp_path / ".stages" / "01_x.json", good | {"notebook": "0" * 64, "latency": "0" * 64})
    assert run_files.read_record(tmp_path, "01_x")["notebook"] == "0" * 64
    (tmp_path / ".stages" / "01_x.json").write_text("[" * 10_000)
    assert run_files.read_record(tmp_path, "01_x") is None
