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
