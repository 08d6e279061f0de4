"""The pipeline: what is run, what is reused, what a failure or an interruption leaves, and what a real run writes."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import make_run

from shelfspace.files import imports, places, run_files, stages
from shelfspace.run import execution, hold, kernels, keys, pipeline, server
from shelfspace.sequences import arrays
from shelfspace.trials import variants
from shelfspace.vectors import embeddings

HEADER = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

"""
FIRST = """# %% [markdown]
# # 1. First

# %% tags=["parameters"]
run_dir = ""  # folder that this run writes to
data = "shop"  # the log
columns = ""  # names of its columns
size = 3  # how many
share = 0.5  # a share
kind = "a"  # which; one of: a, b
maybe = None  # a number
wide = False  # a switch

# %% [markdown]
# ## Count to the size

# %%
from shelfspace.files import run_files

run = run_files.run_folder(run_dir)
run_files.write_json(run / "first.json", {"size": size, "data": data})
"""
SECOND = """# %% [markdown]
# # 2. Second

# %% tags=["parameters"]
run_dir = ""  # folder that this run writes to
factor = 2  # times
seed = 0  # of everything random

# %% [markdown]
# ## Multiply

# %%
from shelfspace.files import run_files

run = run_files.run_folder(run_dir)
value = run_files.read_json(run / "first.json")["size"] * factor

# %%
model = {"hit_rate@20": value / 100, "mrr@20": value / 200, "label": "Popular", "kind": "baseline"}
run_files.write_json(run / "metrics.json", {"models": {"popular": model}, "data": {}})
"""


@pytest.fixture
def notebooks(tmp_path) -> Path:
    """Two notebooks that take no time: the first writes a number, the second multiplies it."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "01_first.py").write_text(HEADER + FIRST)
    (folder / "02_second.py").write_text(HEADER + SECOND)
    return folder


def run(notebooks: Path, out: Path, **options) -> list[str]:
    """Run the pipeline on the two notebooks; what each stage said, by line."""
    said: list[str] = []
    pipeline.run("shop", out, folder=notebooks, say=said.append, **options)
    return [line.split(maxsplit=1)[1].strip() for line in "".join(said).strip().splitlines()]


def reused(lines: list[str]) -> list[bool]:
    return [line == "reused" for line in lines]


# --- what is run and what is reused ---


def test_a_change_of_a_figure_runs_the_stage_and_trains_nothing(monkeypatch):
    stage, files = stages.stages()[1], {"page/charts.py": "a", "vectors/skipgram.py": "b"}
    monkeypatch.setattr(imports, "hashes", lambda paths: files)
    before = keys.of(stage, {}, {}, "", {})
    files["page/charts.py"] = "c"
    coloured = keys.of(stage, {}, {}, "", {})
    assert coloured.stage != before.stage and coloured.code == before.code
    files["vectors/skipgram.py"] = "d"
    assert keys.of(stage, {}, {}, "", {}).code != before.code


def test_a_stage_is_run_again_for_files_that_it_reads_and_for_no_others():
    stage = stages.stages()[1]
    before = keys.of(stage, {}, {"products.parquet": "a", "searches.parquet": "b"}, "", {})
    assert keys.of(stage, {}, {"products.parquet": "a", "searches.parquet": "c"}, "", {}) == before
    assert keys.of(stage, {}, {"products.parquet": "c", "searches.parquet": "b"}, "", {}).stage != before.stage


def test_stages_run_in_order_then_are_reused_until_something_they_depend_on_changes(notebooks, tmp_path):
    out = tmp_path / "run"
    assert reused(run(notebooks, out)) == [False, False, False]
    assert run_files.read_json(out / "metrics.json")["models"]["popular"]["hit_rate@20"] == 0.06
    page = (out / "report.html").read_bytes()

    assert reused(run(notebooks, out)) == [True, True, True]
    assert reused(run(notebooks, out, given={"factor": 5})) == [True, False, False]  # only what the parameter touches
    assert (out / "report.html").read_bytes() != page
    assert reused(run(notebooks, out, given={"factor": 5, "size": "4"})) == [False, False, False]
    assert run_files.read_json(out / "metrics.json")["models"]["popular"]["hit_rate@20"] == 0.2

    given = {"factor": 5, "size": 4}
    (out / "first.json").write_text("{}")  # somebody meddled with an output
    assert reused(run(notebooks, out, given=given)) == [False, True, False]  # the same bytes again: 02 stands
    text = (notebooks / "02_second.py").read_text()
    (notebooks / "02_second.py").write_text(text.replace("## Multiply", "## Times"))
    assert reused(run(notebooks, out, given=given)) == [True, False, False]
    assert reused(run(notebooks, out, given=given, start="02")) == [True, False, False]
    assert reused(run(notebooks, out, given=given, start="1")) == [False, False, False]


def test_timings_are_written_and_do_not_count_as_a_change(notebooks, tmp_path):
    run(notebooks, tmp_path / "run")
    timings = run_files.read_json(tmp_path / "run" / "metrics.json")["timings"]
    assert list(timings) == ["01_first", "02_second"] and all(seconds > 0 for seconds in timings.values())


@pytest.mark.parametrize(
    "code, files",
    [
        ("from shelfspace import a, nothing\nimport shelfspace.c", "a b c"),
        ("from shelfspace.a import x", "a b"),
        ("import numpy\nfrom other.a import b", ""),
        ("from shelfspace.room import deep", "b room/__init__ room/deep"),
        ("from shelfspace.room.deep import x", "b room/__init__ room/deep"),
        ("import shelfspace.room.deep as d", "b room/__init__ room/deep"),
        ("from shelfspace.room.inner import last", "a b c room/__init__ room/inner/__init__ room/inner/last room/near"),
        ("def f():\n    from shelfspace import c", "c"),
        ("from shelfspace import (  # c too\n    b as d,  # from\n    c,\n)", "b c"),
        ("x = 1; from shelfspace import b, \\\n    c", "b c"),
        ("if True: import numpy, shelfspace.c as d", "c"),
    ],
)
def test_whatever_a_stage_imports_is_part_of_its_key(tmp_path, monkeypatch, code, files):
    """Also by way of another module, of a package in the package, and of a relative import."""
    modules = {
        "__init__": "", "a": "from shelfspace import b", "b": "", "c": "", "room/__init__": "", "room/deep": "from .. import b",
        "room/near": "from ..c import x", "room/inner/__init__": "from .. import near", "room/inner/last": "from ...a import x",
    }  # fmt: skip
    package = tmp_path / "shelfspace"
    for name, text in modules.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").write_text(text)
    monkeypatch.setattr(imports, "PACKAGE", package)
    found = {path.relative_to(package).with_suffix("").as_posix() for path in imports.imported(code)}
    assert found - {"__init__"} == set(files.split()) and ("__init__" in found) == bool(files)


def test_a_file_as_input_is_told_apart_by_its_content(notebooks, tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("user_id,product_id,timestamp\nu,p,2024-01-01\n")
    out = tmp_path / "run"

    def again():
        said: list[str] = []
        pipeline.run(str(log), out, folder=notebooks, say=said.append)
        return "reused" in "".join(said)

    assert not again()
    assert again()
    log.write_text("user_id,product_id,timestamp\nu,q,2024-01-01\n")
    assert not again()
    assert run_files.read_json(out / "first.json")["data"] == str(log)


def test_a_changed_folder_of_pictures_makes_the_stage_that_takes_it_stale(notebooks, tmp_path):
    second, pictures = notebooks / "02_second.py", tmp_path / "pictures"
    second.write_text(second.read_text().replace("factor = 2", 'images = ""  # folder with a picture of each product\nfactor = 2'))
    pictures.mkdir()
    (pictures / "p.png").write_bytes(b"one")
    given = {"images": str(pictures)}
    assert reused(run(notebooks, tmp_path / "run", given=given)) == [False, False, False]
    assert reused(run(notebooks, tmp_path / "run", given=given)) == [True, True, True]
    (pictures / "p.png").write_bytes(b"another")
    assert reused(run(notebooks, tmp_path / "run", given=given))[:2] == [True, False]


# --- what is refused ---


@pytest.mark.parametrize(
    "given, sentence",
    [
        ({"sise": 3}, r"no parameter 'sise'\. Did you mean size\? Valid ones are: factor, kind, maybe, seed"),
        ({"size": "many"}, "size is 'many'; it must be a whole number: how many"),
        ({"size": 2.5}, "a whole number"),
        ({"size": True}, "a whole number"),
        ({"size": "1e999"}, "a whole number"),
        ({"share": "nan"}, "share is 'nan'; it must be a number"),
        ({"share": None}, "a number"),
        ({"maybe": "soon"}, "a number or none"),
        ({"kind": "c"}, "kind is 'c'; it must be one of a, b"),
        ({"kind": ["a"]}, "kind is .* it must be one of a, b"),
        ({"wide": "perhaps"}, "true or false"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(notebooks, tmp_path, given, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(notebooks, tmp_path / "run", given=given)
    assert not (tmp_path / "run").exists()


def test_parameters_are_read_as_what_their_defaults_are(notebooks):
    given = {"size": "4", "share": "1", "kind": "b", "maybe": "0.5", "wide": "yes"}
    found = stages.resolve(given, notebooks)
    assert [found[name] for name in given] == [4, 1.0, "b", 0.5, True]
    assert stages.resolve({"maybe": "none", "size": 3.0}, notebooks)["maybe"] is None
    assert stages.resolve({"since": date(2024, 3, 4)})["since"] == "2024-03-04"  # as YAML reads it


def test_two_notebooks_must_agree_on_a_default(notebooks):
    text = (notebooks / "02_second.py").read_text()
    (notebooks / "02_second.py").write_text(text.replace("factor = 2", "size = 2"))
    with pytest.raises(ValueError, match="size is 3 in 01_first and 2 in 02_second"):
        stages.parameters(notebooks)


@pytest.mark.parametrize("start", ["07", "third"])
def test_an_unknown_stage_is_refused(notebooks, tmp_path, start):
    with pytest.raises(ValueError, match="--from takes one of 01_first, 02_second"):
        run(notebooks, tmp_path / "run", start=start)


def contents(folder: Path) -> dict:
    """Each file below a folder, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("mark", [".lock", "data.json", ".stages/01_first.json", ".stages/report.json", ".stages/files", "report.html"])
def test_a_folder_that_only_looks_like_a_runs_is_refused(notebooks, tmp_path, mark):
    out = tmp_path / "mine"
    for name in (mark, "report.html", "products.parquet", "sub/a.failed", "sub/.tmp-b"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text('{"of": "the user"}')
    before = contents(out)
    with pytest.raises(ValueError, match="is not empty and was not written by Shelfspace; name another folder with --out"):
        run(notebooks, out)
    assert contents(out) == before


def test_what_the_user_put_into_a_runs_folder_stays(notebooks, tmp_path):
    out = tmp_path / "run"
    run(notebooks, out)
    mine = {
        name: name.encode()
        for name in ("thesis.txt", "sub/a.failed", "sub/.tmp-b", "notebooks/.tmp-c.ipynb", "notebooks/02_second.failed", "data.csv")
    }
    for name, text in mine.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(text)
    assert reused(run(notebooks, out)) == [True, True, True]
    assert reused(run(notebooks, out, start="01", given={"size": 4})) == [False, False, False]
    assert contents(out).items() >= mine.items()
    assert not set(mine) & (run_files.listed(out) | set(run_files.read_record(out, "01_first")["outputs"]))


@pytest.mark.parametrize("name", ["report.html", "params.json", "notebooks/02_second.ipynb"])
def test_a_file_of_the_user_where_the_run_would_write_is_refused_before_any_work(notebooks, tmp_path, name):
    out = tmp_path / "run"
    out.mkdir()
    run_files.claim(out, ())
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    with pytest.raises(ValueError, match=f"{name} was not written by this run, which would replace it; move it"):
        run(notebooks, out)
    assert contents(out)[name] == b"mine" and not (out / "first.json").exists()


def test_a_file_of_the_user_where_a_notebook_would_write_stops_the_notebook(notebooks, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    run_files.claim(out, ())
    (out / "first.json").write_text("mine")
    with pytest.raises(execution.StageError, match="first.json was not written by the run in that folder, so it is not replaced; move it"):
        run(notebooks, out)
    assert (out / "first.json").read_text() == "mine"


def test_a_run_from_before_there_were_lists_goes_on(notebooks, tmp_path):
    out = tmp_path / "run"
    run(notebooks, out)
    (out / ".stages" / "files").unlink()
    (out / "thesis.txt").write_text("mine")
    assert reused(run(notebooks, out)) == [True, True, True]
    assert {"first.json", "metrics.json", "params.json", "report.html", "notebooks/01_first.ipynb"} <= run_files.listed(out)
    assert "thesis.txt" not in run_files.listed(out)


def test_unfinished_files_of_a_killed_run_go_and_no_others(notebooks, tmp_path):
    out = tmp_path / "run"
    run(notebooks, out)
    (out / "sub").mkdir()
    for name in ("sub/.tmp-ours", "sub/.tmp-theirs"):
        (out / name).write_text("")
    run_files.claim(out, ["sub/.tmp-ours"])
    run(notebooks, out)
    assert os.listdir(out / "sub") == [".tmp-theirs"] and "sub/.tmp-ours" not in run_files.listed(out)


@pytest.mark.parametrize("name", ["a{b}", "a{seed}", "no\u00a0break", "both'\"quotes", "%s {", "back\\slash", "user_id=7", "-"])
def test_any_name_of_a_run_folder_will_do(notebooks, tmp_path, name):
    out = tmp_path / name
    assert reused(run(notebooks, out)) == [False, False, False]
    assert run_files.read_json(out / "metrics.json")["models"]["popular"]["hit_rate@20"] == 0.06
    assert sorted(os.listdir(tmp_path)) == sorted(["notebooks", name])


def test_the_callers_environment_is_as_it_was(notebooks, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run(notebooks, tmp_path / "warm")  # what modules set when they are imported is not the run's
    for name in server.QUIET.keys() - {"OMP_NUM_THREADS"}:
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    run(notebooks, tmp_path / "run")
    assert dict(os.environ) == before
    (notebooks / "02_second.py").write_text((notebooks / "02_second.py").read_text().replace("* factor", "* undefined"))
    with pytest.raises(execution.StageError):
        run(notebooks, tmp_path / "run")
    assert dict(os.environ) == before


def test_a_full_disk_names_the_run_where_the_system_names_no_file(notebooks, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(execution.Work, "run", full)
    with pytest.raises(OSError) as caught:
        run(notebooks, tmp_path / "run")
    assert caught.value.filename == str(tmp_path / "run")


def test_folders_that_are_not_a_runs_are_left_alone(notebooks, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("")
    for out, sentence in (
        (full, "is not empty and was not written by Shelfspace"),
        (tmp_path / "file", "is a file, and a run needs a folder"),
        (tmp_path / "file" / "below", "is a file|cannot be made"),
        (notebooks / "run", "belongs to the project itself"),
        (places.ROOT, "belongs to the project itself"),
    ):
        with pytest.raises(ValueError, match=sentence):
            run(notebooks, out)
    assert os.listdir(full) == ["thesis.txt"]
    with pytest.raises(ValueError, match="holds no notebook"):
        stages.stages(full)


def test_two_runs_at_once_do_not_meet_in_one_folder(notebooks, tmp_path):
    with hold.lock(run_files.run_folder(tmp_path / "run")):
        with pytest.raises(ValueError, match="Another run is writing to"):
            run(notebooks, tmp_path / "run")
    assert reused(run(notebooks, tmp_path / "run")) == [False, False, False]


# --- one stage, or a part of one, at a time ---


def test_a_scheduler_runs_stage_by_stage_and_the_whole_then_has_nothing_left_to_do(notebooks, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="01_first is not up to date in .*, and 02 builds on it; run 01_first first"):
        run(notebooks, out, only="02")
    for only in ("01", "02_second", "report"):
        assert reused(run(notebooks, out, only=only)) == [False]
    assert reused(run(notebooks, out)) == [True, True, True]
    assert reused(run(notebooks, out, only="01", given={"size": 4})) == [False]
    assert not (out / "report.html").exists()
    with pytest.raises(ValueError, match="02_second is not up to date in .*, and report builds on it"):
        run(notebooks, out, only="report", given={"size": 4})
    with pytest.raises(ValueError, match="--only takes one of 01_first, 02_second"):
        run(notebooks, out, only="03")


PARTS = """# %% tags=["setup"]
from shelfspace.files import run_files

run = run_files.run_folder(run_dir)

# %% tags=["slow"]
run_files.once(run, "slow.json", lambda path, **given: (open(log, "a").write("slow "), path.write_text("1")), factor=factor)

# %% tags=["other"]
run_files.once(run, "other.json", lambda path: (open(log, "a").write("other "), path.write_text("2")))

# %%
model = {"hit_rate@20": run_files.read_json(run / "slow.json") / 10, "mrr@20": 0.1, "label": "Popular", "kind": "baseline"}
run_files.write_json(run / "metrics.json", {"models": {"popular": model}, "data": {}})
"""


def test_what_a_part_made_the_stage_finds_made(notebooks, tmp_path):
    out, log = tmp_path / "run", tmp_path / "log"
    head = SECOND.partition("# %% [markdown]\n# ## Multiply")[0].replace("seed = 0", f"log = {str(log)!r}  # what was made\nseed = 0")
    (notebooks / "02_second.py").write_text(HEADER + head + PARTS)
    with pytest.raises(ValueError, match="01_first is not up to date"):
        run(notebooks, out, only="02:slow")
    run(notebooks, out, only="01")
    with pipeline.part("02", out=out, folder=notebooks) as (_, _, _, fresh):  # parts share the folder
        assert not fresh
        assert reused(run(notebooks, out, only="02:slow")) == [False]
        with pytest.raises(ValueError, match="Another run is writing to"):
            run(notebooks, out, only="02")
    with pytest.raises(ValueError, match="02_second has no part 'quick'; it has other, slow"):
        run(notebooks, out, only="02:quick")
    run(notebooks, out, only="02:slow")  # tried again, it finds what it made
    assert log.read_text() == "slow " and not (out / "metrics.json").exists()
    assert reused(run(notebooks, out)) == [True, False, False]
    assert log.read_text() == "slow other "
    record = run_files.read_json(out / ".stages" / "02_second.json")
    assert {"slow.json", "other.json", "metrics.json"} == set(record["outputs"])
    assert reused(run(notebooks, out, only="02:slow")) == [True]

    (out / "slow.json").write_text("3")  # somebody meddled with it
    run(notebooks, out)
    assert log.read_text() == "slow other slow "
    run(notebooks, out, given={"factor": 3})  # on which one of the two depends
    assert log.read_text() == "slow other slow slow "
    run(notebooks, out, given={"factor": 3}, start="02")
    assert log.read_text() == "slow other slow slow slow other "


# --- side by side ---


def declare(path: Path, **head: list[str] | dict[str, list[str]]) -> None:
    """Give a notebook a head."""
    text = "".join(f"#     {what}: {json.dumps(files)}\n" for what, files in head.items())
    path.write_text(path.read_text().replace("# ---\n\n", f"#   shelfspace:\n{text}# ---\n\n", 1))


MEET = """
import time
from pathlib import Path

(Path(run_dir) / "here{mine}").touch()
deadline = time.monotonic() + 60
while not (Path(run_dir) / "here{theirs}").exists():
    assert time.monotonic() < deadline, "the other never came"
    time.sleep(0.05)
"""


def test_stages_that_read_nothing_of_each_other_run_side_by_side(notebooks, tmp_path):
    declare(notebooks / "01_first.py", reads=[], writes=["first.json"])
    declare(notebooks / "02_second.py", reads=["first.json"], writes=["metrics.json"])
    third = (notebooks / "01_first.py").read_text().replace("first.json", "third.json").replace("# 1. First", "# 3. Third")
    (notebooks / "03_third.py").write_text(third + MEET.format(mine=3, theirs=2))
    (notebooks / "02_second.py").write_text((notebooks / "02_second.py").read_text() + MEET.format(mine=2, theirs=3))
    out = tmp_path / "run"
    assert len(run(notebooks, out, jobs=2)) == 4
    assert set(run_files.read_record(out, "02_second")["outputs"]) == {"metrics.json"}
    assert set(run_files.read_record(out, "03_third")["outputs"]) == {"third.json"}
    assert reused(run(notebooks, out, jobs=1)) == [True] * 4
    (out / "third.json").write_text("{}")
    assert reused(run(notebooks, out)) == [True, True, False, False]
    with pytest.raises(ValueError, match="--jobs is 0; it must be 1"):
        run(notebooks, out, jobs=0)


def test_parts_run_side_by_side_and_the_stage_finds_what_they_made(notebooks, tmp_path):
    out, log = tmp_path / "run", tmp_path / "log"
    head = SECOND.partition("# %% [markdown]\n# ## Multiply")[0].replace("seed = 0", f"log = {str(log)!r}  # what was made\nseed = 0")
    body = PARTS
    for mine, theirs in (("slow", "other"), ("other", "slow")):
        body = body.replace(f'# %% tags=["{mine}"]\n', f'# %% tags=["{mine}"]{MEET.format(mine=mine, theirs=theirs)}')
    (notebooks / "02_second.py").write_text(HEADER + head + body)
    reads = ["first.json"]
    declare(notebooks / "02_second.py", parts={"slow": reads, "other": reads}, reads=reads, writes=["*.json"])
    run(notebooks, out, jobs=2)
    assert sorted(log.read_text().split()) == ["other", "slow"]
    assert {"slow.json", "other.json", "metrics.json"} == set(run_files.read_record(out, "02_second")["outputs"])


def test_a_part_begins_before_what_else_its_stage_reads_is_there(notebooks, tmp_path):
    out, log = tmp_path / "run", tmp_path / "log"
    middle = (notebooks / "01_first.py").read_text().replace("first.json", "middle.json").replace("# 1. First", "# 2. Middle")
    head = SECOND.partition("# %% [markdown]\n# ## Multiply")[0].replace("seed = 0", f"log = {str(log)!r}  # what was made\nseed = 0")
    slow = PARTS.replace('# %% tags=["slow"]\n', f'# %% tags=["slow"]{MEET.format(mine="slow", theirs="middle")}')
    (notebooks / "02_second.py").write_text(middle + MEET.format(mine="middle", theirs="slow"))
    (notebooks / "03_third.py").write_text(HEADER + head + slow)
    declare(notebooks / "01_first.py", reads=[], writes=["first.json"])
    declare(notebooks / "02_second.py", reads=["first.json"], writes=["middle.json"])
    writes = ["slow.json", "other.json", "metrics.json"]
    declare(notebooks / "03_third.py", parts={"slow": ["first.json"]}, reads=["first.json", "middle.json"], writes=writes)
    assert reused(run(notebooks, out, jobs=2)) == [False] * 4
    assert log.read_text() == "slow other " and set(run_files.read_record(out, "03_third")["outputs"]) == {*writes}

    part, third = out / ".stages" / "03_third.slow.ipynb", notebooks / "03_third.py"
    made = part.read_bytes()
    (notebooks / "02_second.py").write_text((notebooks / "02_second.py").read_text() + "\n# the same file as before\n")
    assert reused(run(notebooks, out, jobs=2)) == [True, False, True, False]
    (out / "slow.json").unlink()
    assert reused(run(notebooks, out, jobs=2)) == [True, True, False, False]  # which the whole makes
    third.write_text(third.read_text() + "\n# and here, in no part\n")
    assert reused(run(notebooks, out, jobs=2)) == [True, True, False, False]
    assert log.read_text() == "slow other slow " and part.read_bytes() == made  # it did not run again
    assert reused(run(notebooks, out, jobs=2, start="03")) == [True, True, False, False]
    assert log.read_text() == "slow other slow slow other "


def test_a_part_begins_when_a_part_of_the_stage_at_work_made_what_it_names(notebooks, tmp_path):
    out, log, second = tmp_path / "run", tmp_path / "log", notebooks / "02_second.py"
    head = SECOND.partition("# %% [markdown]\n# ## Multiply")[0].replace("seed = 0", f"log = {str(log)!r}  # what was made\nseed = 0")
    made = PARTS.partition("# %%\nmodel")[0].replace("slow", "one").replace("other", "two")
    third = PARTS.replace('# %% tags=["slow"]\n', f'# %% tags=["slow"]{MEET.format(mine="slow", theirs="middle")}')
    second.write_text(HEADER + head + made + "\n# %%\n" + MEET.format(mine="middle", theirs="slow"))
    (notebooks / "03_third.py").write_text(HEADER + head + third)
    declare(notebooks / "01_first.py", reads=[], writes=["first.json"])
    parts = {"one": ["first.json"], "two": ["first.json"]}
    declare(second, parts=parts, reads=["first.json"], writes=["one.json", "two.json"])
    reads, writes = ["one.json", "two.json"], ["slow.json", "other.json", "metrics.json"]
    declare(notebooks / "03_third.py", parts={"slow": reads[:1]}, reads=reads, writes=writes)
    assert reused(run(notebooks, out, jobs=2)) == [False] * 4
    assert sorted(log.read_text().split()) == ["one", "other", "slow", "two"]
    part = out / ".stages" / "03_third.slow.ipynb"
    before = part.read_bytes()
    second.write_text(second.read_text() + "\n# the same files as before\n")
    assert reused(run(notebooks, out, jobs=2)) == [True, False, True, False] and part.read_bytes() == before  # by the same key


def test_what_most_stages_wait_for_goes_first():
    todo = stages.stages()
    waiting = {stage.name[:2]: {later.name[:2] for later in pipeline._waiting_for(stage, todo)} for stage in todo}
    assert waiting["02"] == {"03", "04", "05", "06", "07"} and waiting["04"] == {"05", "06", "07"}
    assert waiting["03"] == waiting["05"] == {"06"} and not waiting["06"] | waiting["07"]


def test_a_failing_notebook_stops_the_one_beside_it(notebooks, tmp_path):
    declare(notebooks / "01_first.py", reads=[], writes=["first.json"])
    declare(notebooks / "02_second.py", reads=[], writes=["metrics.json"])
    mark = tmp_path / "mark"
    first, second = notebooks / "01_first.py", notebooks / "02_second.py"
    second.write_text(
        HEADER
        + SECOND.partition("# %%\nfrom")[0]
        + f"# %%\nimport os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    declare(second, reads=[], writes=["metrics.json"])
    first.write_text(first.read_text() + f"import os, time\nwhile not os.path.exists({str(mark)!r}):\n    time.sleep(0.05)\nundefined\n")
    with pytest.raises(execution.StageError, match="01_first stopped in cell"):
        run(notebooks, tmp_path / "run", jobs=2)
    assert not Path(f"/proc/{mark.read_text()}").exists() and not temporary_files(tmp_path / "run")


# --- failures and interruptions ---


def test_a_failing_notebook_stops_the_run_and_is_kept(notebooks, tmp_path):
    out = tmp_path / "run"
    run(notebooks, out)
    broken = (notebooks / "02_second.py").read_text().replace("* factor", "* undefined")
    whole = (notebooks / "02_second.py").read_text()
    (notebooks / "02_second.py").write_text(broken)
    with pytest.raises(execution.StageError) as caught:
        run(notebooks, out)
    sentence = str(caught.value)
    assert "02_second stopped in cell [" in sentence and "“Multiply”: NameError: name 'undefined' is not defined" in sentence
    assert not (out / "report.html").exists()  # neither half a report nor one of another run
    kept = nbformat.read(out / "notebooks" / "02_second.ipynb", as_version=4)
    assert any(o.output_type == "error" for cell in kept.cells for o in cell.get("outputs", []))
    assert not temporary_files(out)

    (notebooks / "02_second.py").write_text(whole)
    assert reused(run(notebooks, out)) == [True, False, False]


def test_a_sentence_of_a_module_is_passed_on_as_it_is(notebooks, tmp_path):
    text = (notebooks / "01_first.py").read_text()
    (notebooks / "01_first.py").write_text(text.replace("run = ", 'raise ValueError("No users; give a longer log.")\nrun = '))
    with pytest.raises(execution.StageError, match=r"“Count to the size”: No users; give a longer log\. \(The executed"):
        run(notebooks, tmp_path / "run")


@pytest.mark.parametrize(
    "last, sentence",
    [
        ("os._exit(9)", "01_first stopped because its kernel ended by itself, with exit code 9."),
        ("os.kill(os.getpid(), 9)", "01_first stopped because its kernel was killed (SIGKILL), most often for lack of memory"),
        ("os.kill(os.getpid(), 11)", "01_first stopped because its kernel crashed (SIGSEGV), which is a fault of the code or of a library"),
        ("raise MemoryError", "“Count to the size”: There is not enough memory; try a smaller log"),
        ("raise OSError(28, os.strerror(28))", "or that of temporary files (TMPDIR), is full; make room and run it again."),
    ],
)
def test_why_a_notebook_died_is_said_and_no_temporary_file_stays(notebooks, tmp_path, last, sentence):
    text, told = (notebooks / "01_first.py").read_text(), tmp_path / "folder"
    (notebooks / "01_first.py").write_text(text + f"import os, tempfile\nopen({str(told)!r}, 'w').write(tempfile.mkdtemp())\n{last}\n")
    with pytest.raises(execution.StageError) as caught:
        run(notebooks, tmp_path / "run")
    assert sentence in str(caught.value) and ("memory" in str(caught.value)) == ("memory" in sentence)
    assert not temporary_files(tmp_path / "run")
    assert told.read_text() and not Path(told.read_text()).exists()
    assert nbformat.read(tmp_path / "run" / "notebooks" / "01_first.ipynb", as_version=4).cells


def temporary_files(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.name.startswith(run_files.TEMPORARY) or path.suffix == ".failed"]


def test_a_forked_kernel_is_interrupted_and_killed_as_any_other(tmp_path):
    async def live() -> int | None:
        kernel = kernels.Kernel({}, tmp_path)
        manager = kernel.manager()(kernel_name="python3")
        await manager.start_kernel()
        client = manager.client()
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=120)
            await manager.interrupt_kernel()
            assert await manager.is_alive() and isinstance(manager.provisioner.process, kernels._Forked)
            kernel.stop()
            while await manager.is_alive():
                await asyncio.sleep(0.05)
            with pytest.raises(RuntimeError, match="the kernel died before it was ready"):
                await client.wait_for_ready(timeout=120)
        finally:
            client.stop_channels()
            await manager.shutdown_kernel(now=True)
        return kernel.exit_code

    kernels._is_warm(start=True)  # the server, should this be the first kernel
    with ThreadPoolExecutor(1) as thread:  # where no event loop runs: the browser of other tests keeps one in this thread
        assert thread.submit(asyncio.run, live()).result() == -signal.SIGKILL


INTERRUPTED = """
import os, signal
from multiprocessing import forkserver
from shelfspace.run import server

server.LIBRARIES = ("asyncio", "numpy")
server.start()
os.kill(forkserver._forkserver._forkserver_pid, signal.SIGINT)
server.process(print, "at work").join()
"""


def test_ctrl_c_while_the_server_imports_is_for_the_run_alone():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("at work\n", "")


START = "from shelfspace.run import server; server.LIBRARIES = server.LIBRARIES[:1]; from shelfspace import cli; cli.main()"


def start(notebooks: Path, out: Path, limit: int | None = None) -> subprocess.Popen:
    """The same run in a process of its own, whose second kernel is forked as always, from a server with what a kernel itself needs."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the tests ignore it where a script started them in the background
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-c", START, "report", "--notebooks", notebooks, "--out", out], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=prepare, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_interrupts_a_run_the_next_call_picks_up(notebooks, tmp_path, sent):
    out, mark = tmp_path / "run", tmp_path / "mark"
    whole = (notebooks / "02_second.py").read_text()
    slow = f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    (notebooks / "02_second.py").write_text(whole.replace("# %%\nmodel", f"# %%\n{slow}model"))
    process = start(notebooks, out)
    while not mark.exists() or not mark.read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert not (out / "report.html").exists() and not (out / "metrics.json").exists()
    if sent != signal.SIGKILL:
        assert process.returncode == 130 and errors.strip().splitlines()[-1].startswith("shelfspace: stopped; the next call")
        assert not temporary_files(out)
    kernel, deadline = int(mark.read_text()), time.monotonic() + 30
    while Path(f"/proc/{kernel}").exists() and "Z" not in Path(f"/proc/{kernel}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "the kernel outlived the run"
        time.sleep(0.2)

    (notebooks / "02_second.py").write_text(whole)
    assert reused(run(notebooks, out)) == [True, False, False]
    assert not temporary_files(out)


def test_a_full_disk_leaves_no_half_file(notebooks, tmp_path):
    out = tmp_path / "run"
    text = (notebooks / "01_first.py").read_text()
    (notebooks / "01_first.py").write_text(text + 'run_files.write_json(run / "big.json", "x" * 400_000)\n')
    process = start(notebooks, out, limit=100_000)  # no file may grow beyond it, as on a disk that is full
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "File too large" in errors and "Traceback" not in errors
    assert not (out / "big.json").exists() and not (out / "report.html").exists() and not temporary_files(out)
    assert reused(run(notebooks, out)) == [False, False, False]


# --- what the real notebooks write ---


def test_a_run_writes_what_the_design_promises(small_run):
    out = small_run.folder
    lines = small_run.said.strip().splitlines()
    *names, last = [line.split()[0] for line in lines]
    assert sorted(names) == [stage.name for stage in stages.stages()] and last == "report"  # each when it has ended
    table = pq.read_table(out / "sequences.parquet")
    expected = {"user_id", "product_id", "timestamp", "event", "session", "role", "split"}
    assert expected <= set(table.column_names)
    products = pd.read_parquet(out / "products.parquet")
    assert {"product_id", "name", "category", "brand", "price", "count"} <= set(products)
    for name in ("word2vec", "starspace"):
        found = embeddings.load(out / "product_embeddings" / f"{name}.parquet")
        assert found.vectors.shape[1] == 50 and embeddings.align(found, products.product_id.to_numpy().astype(str))[1].mean() >= 0.98
    users = embeddings.load(out / "user_embeddings.parquet", key="user_id")
    assert len(users.vectors) == len(set(table["user_id"].to_pylist()))
    rows = pd.read_parquet(out / "recommendations.parquet")
    assert list(rows) == ["user_id", "rank", "product_id", "score"] and (rows.groupby("user_id").size() == 20).all()
    explained = pd.read_parquet(out / "explanations.parquet")
    assert explained.user_id.nunique() == 200 and (explained.groupby("user_id").size() == 20).all()
    beside = explained.merge(rows, on=["user_id", "rank", "product_id"], suffixes=("", "_written"))
    np.testing.assert_allclose(beside.score, beside.score_written, rtol=1e-5)
    parts = explained.drop(columns=["user_id", "rank", "product_id", "score"])
    assert len(beside) == len(explained) and parts.shape[1] > 4
    np.testing.assert_allclose(parts.sum(axis=1), explained.score, rtol=1e-5, atol=1e-5)
    metrics = run_files.read_json(out / "metrics.json")
    for model in metrics["models"].values():
        for name in ("hit_rate", "mrr"):
            for k in (5, 10, 20):
                low, high = model["ci95"][f"{name}@{k}"]
                assert 0 <= low <= model[f"{name}@{k}"] <= high <= 1
    assert set(metrics["columns"]) == {"all", "seen", "discovery"} and not {"unseen", "paired"} & set(metrics)
    models, best = {name: of for name, of in metrics["models"].items() if of["kind"] != "ceiling"}, metrics["best"]
    assert metrics["models"]["ceiling"]["kind"] == "ceiling" and "ceiling" not in metrics["columns"]["all"]["paired"]
    assert best["model"] == max(models, key=lambda name: models[name]["valid"]["all"]["mrr@20"])  # not by what test says
    assert best["regret"] == models[best["test_best"]]["mrr@20"] - models[best["model"]]["mrr@20"] >= 0
    for key, column in metrics["columns"].items():
        baselines = [name for name in models if models[name]["kind"] == "baseline"]
        assert column["baseline"] == max(baselines, key=lambda name: models[name]["valid"][key]["mrr@20"])
        assert set(column["paired"]) == set(models) - {column["baseline"]}
        assert all(one["p"] <= one["p_holm"] <= 1 for pair in column["paired"].values() for one in pair.values())
    assert set(metrics["timings"]) == {stage.name for stage in stages.stages()} | {"latency"}
    params = run_files.read_json(out / "params.json")
    assert params["seed"] == 0 and params["parameters"]["shop_users"] == 600 and params["versions"]["gensim"]
    assert (out / "recommender.keras").stat().st_size > 0 and (out / "report.html").stat().st_size < 5_000_000
    assert len(list((out / "notebooks").glob("*.ipynb"))) == len(stages.stages())


def test_no_target_reaches_what_was_trained(small_run):
    table = arrays.load(small_run.folder / "sequences.parquet")
    frame = table.to_pandas()
    targets = frame[frame.role == "target"]
    corpus = arrays.corpus(table)
    history = frame[(frame.role == "history") & (frame.split == "train")]
    assert len(corpus.items) == len(history) == len(frame) - len(targets)
    last = frame[frame.role == "history"].groupby("user_id", observed=True).position.max()
    assert (targets.set_index("user_id").position > last.reindex(targets.user_id)).all()


def figures(folder: Path) -> dict:
    return {name: value for name, value in run_files.read_json(folder / "metrics.json").items() if name != "timings"}


def next_steps(folder: Path) -> dict:
    """Gains of all variants, without what depends on the machine."""
    told = run_files.read_json(folder / "next_steps.json")
    for one in told["variants"].values():
        for cost in ("train_s", "user_ms", "product_ms"):
            one.pop(cost)
    return told


def test_the_next_steps_are_told_for_all_variants(small_run):
    told = next_steps(small_run.folder)
    names = {variant.name for variant in variants.VARIANTS}
    assert set(told["variants"]) | set(told["left_out"]) == names | {"word2vec_before", "starspace_before"}
    assert "starspace_images" in told["left_out"] and set(told["verdicts"]) < set(told["variants"])
    for one in told["variants"].values():
        low, high = one["mrr@20"]["ci95"]
        assert low <= one["mrr@20"]["gain"] <= high and one["megabytes"] > 0 and one["mrr@20"]["n"] == told["test"]
    assert told["variants"]["starspace_alone"]["cold"]["value"] > told["variants"]["starspace"]["cold"]["value"] == 0


def test_the_same_run_again_gives_the_same_bytes(small_run, second_run):
    again = second_run.folder
    assert json.dumps(figures(again)) == json.dumps(figures(small_run.folder))
    assert json.dumps(next_steps(again)) == json.dumps(next_steps(small_run.folder))
    for name in (
        *("product_embeddings/word2vec.parquet", "product_embeddings/starspace.parquet", "user_embeddings.parquet"),
        *("sequences.parquet", "products.parquet", "recommendations.parquet", "explanations.parquet", "tsne.parquet"),
        *("test_ranks.parquet", "journeys.parquet"),
    ):
        assert run_files.sha256_file(again / name) == run_files.sha256_file(small_run.folder / name), name


def test_a_log_of_three_columns_by_time(small_run, tmp_path):
    log = pd.read_parquet(small_run.folder / "shop" / "events.parquet")
    log = log[log.product_id.notna()].rename(columns={"user_id": "shopper", "product_id": "thing", "timestamp": "at"})
    log[["shopper", "thing", "at"]].to_csv(tmp_path / "log.csv", index=False)
    given = {
        "protocol": "time",
        "test_days": 7,
        "w2v_trainer": "gensim",
        "epochs": 2,
        "tied_epochs": 1,
        "w2v_epochs": 5,
        "ss_epochs": 5,
        "sg_visits": 5_000,
        "ss_examples": 5_000,
        "asked_targets": 50,
        "decays": "0, 0.1, 1",
    }
    run = make_run(
        tmp_path / "run", str(tmp_path / "log.csv"), columns="user_id=shopper,product_id=thing,timestamp=at",
        jobs=1,  # whole notebooks, one after the other: less work than side by side, and another core has other tests
        **given,
    )  # fmt: skip
    metrics = run_files.read_json(tmp_path / "run" / "metrics.json")
    assert metrics["protocol"] == "time" and metrics["data"]["events_by_type"] == {"view": len(log)}
    assert len(pd.read_parquet(tmp_path / "run" / "test_ranks.parquet")) == metrics["columns"]["all"]["n"] == 50
    told = run_files.read_json(tmp_path / "run" / "next_steps.json")
    assert not {"starspace_alone", "word2vec_market", "word2vec_goals", "starspace_searches", "word2vec_learned"} & set(told["variants"])
    assert (run.folder / "report.html").exists() and not {"name", "category"} & set(pd.read_parquet(tmp_path / "run" / "products.parquet"))


def test_another_decay_asks_the_dense_network_alone_again(small_run, tmp_path):
    def made(folder: Path) -> dict[str, dict]:
        return {path.stem: run_files.read_json(path) for path in (folder / ".stages" / "made" / "evaluations").glob("*.json")}

    again, before = tmp_path / "run", made(small_run.folder)
    shutil.copytree(small_run.folder, again)
    for stage in ("04", "05", "06"):  # those that the figures come from
        make_run(again, jobs=1, only=stage, decay=0.2)
    asked = {name for name, record in made(again).items() if record != before[name]}
    assert asked == {"dense.npz"} and {"ranked.npz", "ceiling.npz"} < set(before)
    were, are = (run_files.read_json(folder / "metrics.json")["models"] for folder in (small_run.folder, again))
    assert {name for name in are if are[name] != were[name] and name != "dense"} == set()


def test_a_tiny_log_has_a_report_that_leaves_out_what_it_cannot_tell(tmp_path):
    """Nine users without a product in common, in a folder named as a partition would be."""
    lines = [f"u{user},p{user}_{visit},2024-05-0{visit + 1}" for user in range(9) for visit in range(3)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,product_id,timestamp", *lines]))
    shares = {"min_products": 2, "valid_share": 0.3, "test_share": 0.3}
    made = make_run(tmp_path / "user_id=7" / "run", str(tmp_path / "log.csv"), jobs=1, **shares)
    assert (made.folder / "report.html").exists()
    found = run_files.read_json(made.folder / "metrics.json")
    assert found["data"]["users_kept"] == 9 and found["slices"] == {} and found["embeddings"]["word2vec"]["triplet_auc"] is None
    page = (made.folder / "report.html").read_text(encoding="utf-8")
    assert "too small for a single triplet" in page and "No part of the" in page


def test_papermill_by_hand_on_a_finished_run(small_run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(small_run.folder, copy)
    notebook = places.NOTEBOOKS / "04_user_embeddings.ipynb"
    subprocess.run(
        [Path(sys.executable).parent / "papermill", notebook, tmp_path / "out.ipynb", "-p", "run_dir", copy, "-p", "decay", "0.2"],
        check=True, capture_output=True, cwd=places.ROOT,
    )  # fmt: skip
    assert run_files.read_json(copy / "decay.json")["decay"] == 0.2
    for name in ("best_decays.json", "decay_sweep.parquet"):  # what recommends by itself has its own best all the same
        assert (copy / name).read_bytes() == (small_run.folder / name).read_bytes()
    assert (out := nbformat.read(tmp_path / "out.ipynb", as_version=4)).cells and out.metadata.papermill.exception is None
    assert "d = 0.2, which was given" in str(out.cells[-1].outputs)
    # What was made by hand is not taken for the pipeline's own: the stage is run again.
    users = np.abs(embeddings.load(small_run.folder / "user_embeddings.parquet", key="user_id").vectors)
    assert not np.array_equal(users, np.abs(embeddings.load(copy / "user_embeddings.parquet", key="user_id").vectors))


def test_an_input_that_does_not_fit_is_one_sentence_and_leaves_no_report(tmp_path):
    log = tmp_path / "short.csv"
    log.write_text("user_id,product_id,timestamp\nu,p,2024-01-01\nu,q,2024-01-02\nv,p,2024-01-03\n")
    with pytest.raises(execution.StageError, match="No user has 5 distinct products .the longest history has 2."):
        make_run(tmp_path / "run", data=str(log))
    assert not (tmp_path / "run" / "report.html").exists()


def test_every_declared_parameter_is_used_and_explained():
    for stage in stages.stages():
        code = "\n".join(c.source for c in stage.notebook.cells if c.cell_type == "code")
        names = [node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
        for parameter in stage.parameters.values():
            assert parameter.help, f"{parameter.name} in {stage.name} says nothing of itself"
            assert parameter.name in names, f"{parameter.name} in {stage.name} is used nowhere"
