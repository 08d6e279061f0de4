"""The map of the data flow: read from the records and the code of a run, not drawn by hand."""

from __future__ import annotations

import nbformat
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_notebook

from shelfspace.files import run_files, stages
from shelfspace.page import dataflow


def test_paths_that_code_names():
    code = """
run = folder("x")
a = run / "products.parquet"
b = {name: run / "vectors" / f"{name}.parquet" for name in names}
c = (run / "shop").glob("*")
d = read(run, "metrics.json")
e = 3 / 4 / count
f = run / name
"""
    assert dataflow._paths(code) == {"products.parquet", "vectors/*.parquet", "shop/*", "metrics.json"}


def test_who_wrote_and_who_reads(tmp_path):
    cells = {
        "01_first": '(run / "a.json").write_text("")',
        "02_second": 'x = run / "a.json"; y = run / "v" / f"{n}.parquet"',
        "03_third": 'x = run / "v" / f"{chosen}.parquet"; y = run / "v"',
    }
    outputs = {"01_first": ["a.json"], "02_second": ["v/one.parquet", "v/two.parquet", "lonely.parquet"], "03_third": ["metrics.json"]}
    for stage, code in cells.items():
        record = {"stage": stage, "key": "0" * 64, "seconds": 1, "outputs": dict.fromkeys(outputs[stage], "0" * 64)}
        run_files.write_json(tmp_path / ".stages" / f"{stage}.json", record)
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        nbformat.write(new_notebook(cells=[new_code_cell(code)]), tmp_path / "notebooks" / f"{stage}.ipynb")
    (tmp_path / "a.json").write_text("12345")
    stages, files = dataflow.read(tmp_path)
    assert stages == [*cells, "report"]
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
    soup = BeautifulSoup((small_run.folder / "report.html").read_text(encoding="utf-8"), "html.parser")
    rows = {row.th.get_text(): [cell.get_text() for cell in row.find_all("td")] for row in soup.select("#flow tbody tr")}
    assert list(rows) == [file.name for file in files]
    for file in files:
        told = {i: text for i, text in enumerate(rows[file.name][:-1]) if text}
        assert told == {file.writer: "writes"} | dict.fromkeys(file.readers, "reads")
