"""The map of the data flow: read from the records of a run and the heads of its notebooks, which say what their code does."""

from __future__ import annotations

import ast
import fnmatch

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_notebook

from shelfspace.files import run_files, stages
from shelfspace.page import dataflow


def paths(code: str) -> set[str]:
    """The files of a run that some code names, as ``run / "vectors" / f"{name}.parquet"``: patterns, with * for what is filled in."""
    found, inner = set(), set()
    for node in ast.walk(ast.parse(code)):  # outer nodes come before inner ones
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and node not in inner:
            parts, left = [], node
            while isinstance(left, ast.BinOp) and isinstance(left.op, ast.Div):
                inner |= {left, left.right}
                parts.append(text(left.right))
                left = left.left
            path = "/".join(reversed(parts))
            found.add(path if "." in path else f"{path}/*")
        elif isinstance(node, ast.Constant | ast.JoinedStr) and node not in inner and text(node).endswith((".json", ".parquet", ".keras")):
            found.add(text(node))
    return {path for path in found if not path.startswith(("*", "."))}


def text(node: ast.expr) -> str:
    """A literal as it stands, an f-string with * for what it fills in, and * for anything else."""
    pieces = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(piece.value if isinstance(piece, ast.Constant) and isinstance(piece.value, str) else "*" for piece in pieces)


def test_paths_that_code_names():
    code = """
run = folder("x")
a = run / "products.parquet"
b = {name: run / "vectors" / f"{name}.parquet" for name in names}
c = (run / "shop").glob("*")
d = read(run, "metrics.json")
e = 3 / 4 / count
f = run / name
g = f"tables/{name}.parquet"
"""
    assert paths(code) == {"products.parquet", "vectors/*.parquet", "shop/*", "metrics.json", "tables/*.parquet"}


@pytest.mark.parametrize("stage", stages.stages(), ids=lambda stage: stage.name)
def test_a_notebook_declares_every_file_that_it_names(stage):
    code = "\n".join(cell.source for cell in stage.notebook.cells if cell.cell_type == "code")
    assert stage.reads != ("*",) or stage.writes != ("*",)
    for path in paths(code):
        assert stage.does_read(path) or stage.does_write(path), f"{stage.name} names {path} and declares it nowhere"


@pytest.mark.parametrize(
    "stage, name", [(stage, name) for stage in stages.stages() for name in stage.parts], ids=lambda of: getattr(of, "name", of)
)
def test_a_part_declares_every_file_that_its_cells_name(stage, name):
    part = stage.part(name)
    assert all(any(fnmatch.fnmatch(mine, theirs) for theirs in stage.reads) for mine in part.reads)
    for path in paths("\n".join(cell.source for cell in part.notebook.cells if cell.cell_type == "code")):
        assert part.does_read(path) or stage.does_write(path), f"{stage.name}:{name} names {path} and declares it nowhere"


def test_what_a_run_wrote_was_declared(small_run):
    for stage in stages.stages():
        record = run_files.read_record(small_run.folder, stage.name)
        assert record["outputs"] and all(stage.does_write(name) for name in record["outputs"]), stage.name
        unwritten = [pattern for pattern in stage.writes if not any(fnmatch.fnmatch(name, pattern) for name in record["outputs"])]
        assert set(unwritten) <= {"user_tables/*"}, stage.name  # which a scheduler's tasks write


def test_a_stage_waits_for_those_whose_files_it_reads():
    by_number = {stage.name[:2]: stage for stage in stages.stages()}
    waits = {
        number: {other for other, earlier in by_number.items() if other < number and stage.waits_for(earlier)}
        for number, stage in by_number.items()
    }
    assert waits["03"] == {"01", "02"} and waits["04"] == {"01", "02"}
    assert "03" not in waits["05"] and {"03", "05"} <= waits["06"] and not {"05", "06"} & waits["07"]


def test_who_wrote_and_who_reads(tmp_path):
    heads = {
        "01_first": {"writes": ["a.json"]},
        "02_second": {"reads": ["a.json"], "writes": ["v/*", "lonely.parquet"]},
        "03_third": {"reads": ["v/*"], "writes": ["metrics.json"]},
    }
    outputs = {"01_first": ["a.json"], "02_second": ["v/one.parquet", "v/two.parquet", "lonely.parquet"], "03_third": ["metrics.json"]}
    for stage, head in heads.items():
        record = {"stage": stage, "key": "0" * 64, "seconds": 1, "outputs": dict.fromkeys(outputs[stage], "0" * 64)}
        run_files.write_json(tmp_path / ".stages" / f"{stage}.json", record)
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        nbformat.write(new_notebook(metadata={"shelfspace": head}), tmp_path / "notebooks" / f"{stage}.ipynb")
    (tmp_path / "a.json").write_text("12345")
    stages, files = dataflow.read(tmp_path)
    assert stages == [*heads, "report"]
    assert files == [
        dataflow.File("the log", -1, (0,), 0),
        dataflow.File("a.json", 0, (1,), 5),
        dataflow.File("v/{one,two}.parquet", 1, (2,), 0),
        dataflow.File("lonely.parquet", 1, (), 0),
        dataflow.File("metrics.json", 2, (3,), 0),
    ]
    assert dataflow.read(tmp_path / "nothing") == ([], [])


def test_the_map_in_the_page_is_that_of_the_run(small_run):
    names, files = dataflow.read(small_run.folder, "")
    assert names == [stage.name for stage in stages.stages()] + ["report"]
    known = {file.name: file for file in files}
    assert known["products.parquet"].readers == (1, 2, 3, 4, 5, 6, 7) and known["tsne.parquet"].readers == (7,)
    assert known["product_embeddings/{starspace,word2vec}.parquet"].writer == 1
    assert known["evaluations/*.npz"].writer == 5 and not known["evaluations/*.npz"].readers  # too many to be named
    soup = BeautifulSoup((small_run.folder / "report.html").read_text(encoding="utf-8"), "html.parser")
    rows = {row.th.get_text(): [cell.get_text() for cell in row.find_all("td")] for row in soup.select("#flow tbody tr")}
    assert list(rows) == [file.name for file in files]
    for file in files:
        told = {i: text for i, text in enumerate(rows[file.name][:-1]) if text}
        assert told == {file.writer: "writes"} | dict.fromkeys(file.readers, "reads")
