"""Files of a run folder are whole or not there."""

import os

import pytest

from shelfspace import runs


def test_an_atomic_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "x.json"
    with pytest.raises(RuntimeError), runs.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert os.listdir(path.parent) == []
    runs.write_json(path, {"b": 1, "a": "ü"})
    with pytest.raises(RuntimeError), runs.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert runs.read_json(path) == {"b": 1, "a": "ü"} and list(runs.read_json(path)) == ["b", "a"]
    assert os.listdir(path.parent) == ["x.json"] and path.stat().st_mode & 0o777 == 0o644


def test_numbers_that_are_none_are_no_json(tmp_path):
    with pytest.raises(ValueError):
        runs.write_json(tmp_path / "x.json", float("nan"))
    assert os.listdir(tmp_path) == []


def test_a_relative_folder_counts_from_the_repository_also_in_its_notebooks(tmp_path, monkeypatch):
    (tmp_path / "src" / "shelfspace").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert runs.run_folder("reports/x") == tmp_path / "reports" / "x"
    monkeypatch.chdir(tmp_path)
    assert runs.run_folder("reports/y").absolute() == tmp_path / "reports" / "y"
    assert sorted(os.listdir(tmp_path / "reports")) == ["x", "y"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="is a file, and a run needs a folder"):
            runs.run_folder(path)
    with pytest.raises(ValueError, match="cannot be made"):
        runs.run_folder(tmp_path / ("x" * 300))


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert runs.sha256_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_once_makes_again_only_what_another_key_or_nobody_made(tmp_path):
    made = []

    def make(path):
        made.append(path)
        path.write_text("x")

    runs.once(tmp_path, "a/b.txt", make)
    runs.once(tmp_path, "a/b.txt", make)
    assert len(made) == 2 and not (tmp_path / ".stages").exists()  # by hand, always
    with runs.under("one"):
        seconds = runs.once(tmp_path, "a/b.txt", make)
        assert len(made) == 3 and runs.once(tmp_path, "a/b.txt", make) == seconds and len(made) == 3
        with runs.under("two"):
            runs.once(tmp_path, "a/b.txt", make)
        assert len(made) == 4
        runs.once(tmp_path, "a/b.txt", make)
        assert len(made) == 5
        runs.forget(tmp_path, "two")
        runs.once(tmp_path, "a/b.txt", make)
        assert len(made) == 5
        runs.forget(tmp_path, "one")
        runs.once(tmp_path, "a/b.txt", make)
        assert len(made) == 6
    assert "SHELFSPACE_KEY" not in runs.os.environ


def test_a_run_folder_is_known_by_its_list_which_says_what_may_be_replaced(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "mine.json").write_text("mine")
    assert not runs.is_run(run) and runs.listed(run) == set()
    runs.claim(run, ["a"])
    assert runs.is_run(run) and runs.listed(run) == {"a"}
    runs.write_json(run / "deep" / "b.json", 1)
    runs.write_json(run / "deep" / "b.json", 2)
    assert {"a", "deep/b.json"} == {name for name in runs.listed(run) if runs.TEMPORARY not in name}
    with pytest.raises(ValueError, match="mine.json was not written by the run in that folder, so it is not replaced"):
        runs.write_json(run / "mine.json", 1)
    with pytest.raises(ValueError, match="not replaced"):
        runs.write_json(run / "deep" / ".." / "mine.json", 1)
    assert (run / "mine.json").read_text() == "mine" and sorted(os.listdir(run)) == [".stages", "deep", "mine.json"]
    runs.remove_unfinished(run)
    assert runs.listed(run) == {"a", "deep/b.json"}

    path = run / runs.LIST
    path.write_bytes(path.read_bytes()[:-2])  # cut short
    runs.claim(run, ["c"])
    assert "c" in runs.listed(run)
    path.write_text("of something else")
    assert not runs.is_run(run)


def test_records_of_a_wrong_shape_are_none(tmp_path):
    good = {"stage": "01_x", "key": "0" * 64, "seconds": 1.5, "outputs": {"a/b.json": "f" * 64}}
    wrong = [
        {"stage": "02_y"}, {"key": 3}, {"key": "k"}, {"seconds": "1"}, {"seconds": -1}, {"seconds": True}, {"outputs": []}, {"outputs": {"a": 1}},
        *({"outputs": {name: "f" * 64}} for name in ("", "/etc/x", "../x", "a/../../x", "a//b", "./a", "a\nb", "a\0b")), {"notebook": 1}, {"latency": []},
    ]  # fmt: skip
    for value in (None, [], {}, 1, *(good | change for change in wrong)):
        runs.write_json(tmp_path / ".stages" / "01_x.json", value)
        assert runs.read_record(tmp_path, "01_x") is None, value
    runs.write_json(tmp_path / ".stages" / "01_x.json", good | {"notebook": "0" * 64, "latency": "0" * 64})
    assert runs.read_record(tmp_path, "01_x")["notebook"] == "0" * 64
    (tmp_path / ".stages" / "01_x.json").write_text("[" * 10_000)
    assert runs.read_record(tmp_path, "01_x") is None
