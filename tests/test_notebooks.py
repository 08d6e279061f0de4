"""The notebooks: paired, without outputs, and as a reader should find them."""

from __future__ import annotations

import ast
import re
import shutil
import statistics

import jupytext
import nbformat
import pandas as pd
import pytest
from conftest import SMALL

from shelfspace.files import places, run_files, stages

STAGES = stages.stages()
SCRIPTS = [places.NOTEBOOKS / f"{stage.name}.py" for stage in STAGES]
SHORT = SMALL | {
    "epochs": 1,
    "w2v_epochs": 5,
    "ss_epochs": 5,
    "sg_visits": 5_000,
    "ss_examples": 5_000,
}  # as the small run, but less trained
each_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_and_notebook_are_in_step_and_carry_no_outputs(script):
    paired = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    source = jupytext.read(script)
    told = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in source.cells]
    assert told == [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in paired.cells], (
        "out of step: jupytext --sync notebooks/*.py"
    )
    assert paired.metadata.kernelspec == source.metadata.kernelspec and paired.metadata.kernelspec.name == "python3"
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in paired.cells)


@each_stage
def test_a_notebook_says_what_it_will_do_and_what_it_found(stage):
    cells = stage.notebook.cells
    number = int(stage.name[:2])
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith(f"# {number}. ")
    assert "In this notebook you will" in cells[0].source
    headings = [line for c in cells if c.cell_type == "markdown" for line in c.source.splitlines() if line.startswith("## ")]
    assert "## Takeaways" in headings
    assert "exhibits.takeaways(" in cells[-1].source


@each_stage
def test_no_code_comes_without_a_sentence(stage):
    cells = stage.notebook.cells
    assert not [cell.source for before, cell in zip(cells, cells[1:]) if before.cell_type == cell.cell_type == "code"]


@each_stage
def test_half_of_the_cells_have_six_lines_at_most(stage):
    code = [cell.source for cell in stage.notebook.cells if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", ())]
    assert statistics.median(sum(bool(line.strip()) for line in source.splitlines()) for source in code) <= 6


@each_stage
def test_cells_are_short_and_logic_lives_in_modules(stage):
    code = [cell for cell in stage.notebook.cells if cell.cell_type == "code"]
    for cell in code:
        assert len(cell.source.splitlines()) <= 25, cell.source
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(cell.source))), cell.source
    assert [cell.metadata.get("tags") for cell in code].count(["parameters"]) == 1


@each_stage
def test_the_parameters_cell_holds_typed_literals_with_comments_and_nothing_derived(stage):
    (cell,) = [cell for cell in stage.notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    for node, line in zip(ast.parse(cell.source).body, cell.source.splitlines(), strict=True):
        assert isinstance(node, ast.Assign) and len(node.targets) == 1
        ast.literal_eval(node.value)
        assert re.search(r"  # \S", line), f"{line} has no comment"


def test_notebooks_are_counted_without_gaps():
    assert [int(stage.name[:2]) for stage in STAGES] == list(range(1, len(STAGES) + 1))


def solutions(stage) -> list[tuple[str, str]]:
    """The code of each folded solution, with the question before it."""
    text = "\n".join(cell.source for cell in stage.notebook.cells if cell.cell_type == "markdown")
    folded = re.findall(r"^\d\. (.+?)\n\n<details><summary>Solution</summary>\n(.*?)\n</details>", text, re.MULTILINE | re.DOTALL)
    return [(question, "\n".join(re.findall(r"```python\n(.*?)```", answer, re.DOTALL))) for question, answer in folded]


@each_stage
def test_a_notebook_warns_and_asks(stage):
    headings = [line for cell in stage.notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    assert "## What could go wrong" in headings and "## Exercises" in headings
    assert 2 <= len(solutions(stage)) <= 3 and all(code.strip() for _, code in solutions(stage))


@each_stage
def test_solutions_run_and_hold(stage, small_run, tmp_path):
    """Run the notebook's cells on a copy of the small run, and then each solution, as a reader would; here, as no kernel is needed."""
    copy = tmp_path / "run"
    shutil.copytree(small_run.folder, copy)
    space = execute(stage, {"run_dir": str(copy)})
    for _, code in solutions(stage):
        exec(code, space)


def execute(stage, given: dict) -> dict:
    """Run the cells of a notebook with short trainings; the names that it leaves."""
    space: dict = {}
    for cell in stage.notebook.cells:
        if cell.cell_type == "code":
            exec(cell.source, space)
            if "parameters" in cell.metadata.get("tags", ()):
                space |= {name: value for name, value in (SHORT | given).items() if name in stage.parameters}
    return space


def test_a_product_that_nobody_clicked_has_the_places_that_are_kept_for_it(small_run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(small_run.folder, copy)
    products = pd.read_parquet(copy / "products.parquet")
    new = products.iloc[[0]].assign(product_id="zzz", count=0)
    pd.concat([products, new], ignore_index=True).to_parquet(copy / "products.parquet")
    shutil.rmtree(copy / "shop")  # whose truth knows nothing of it
    execute(STAGES[4], {"run_dir": str(copy), "new_places": 1, "prefixes": 3, "rank_top": 10})  # however little is learned
    rows = pd.read_parquet(copy / "recommendations.parquet")
    assert set(rows[rows["rank"] == 20].product_id) == {"zzz"} and "zzz" not in set(rows[rows["rank"] < 20].product_id)
    execute(STAGES[5], {"run_dir": str(copy), "asked_targets": 60, "sweep_users": 20})
    leaving = run_files.read_json(copy / "recommender.json")["model"]
    assert 0 < run_files.read_json(copy / "metrics.json")["models"][leaving]["hit_rate@20"] < 1
