"""What pip installs: a wheel with the notebooks in it, that runs in an empty folder far from the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from shelfspace.files import places

MODULE = "from shelfspace import cli; cli.main()"


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the package, unpacked from the wheel that pip builds of this checkout."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def shelfspace(installed: Path, where: Path, *words: object) -> subprocess.CompletedProcess:
    """The installed command line, in a folder of its own."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", MODULE, *map(str, words)]
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)


def test_the_wheel_holds_the_notebooks_their_start_page_the_page_and_the_dag(installed):
    for path in places.NOTEBOOKS.iterdir():
        assert (installed / "shelfspace" / "notebooks" / path.name).read_bytes() == path.read_bytes(), path
    for path in (path for path in places.PACKAGE.rglob("*") if path.suffix in (".py", ".j2", ".css", ".js")):
        assert (installed / "shelfspace" / path.relative_to(places.PACKAGE)).read_bytes() == path.read_bytes(), path
    assert (installed / "shelfspace" / "dags" / "product_embeddings.py").is_file()
    assert not list(installed.rglob("*.parquet")) and not list(installed.rglob("*.html"))


def test_it_runs_in_an_empty_folder_and_writes_its_notebooks_to_be_changed(installed, tmp_path):
    asked = ["--only", "01", "-p", "shop_users=300", "-p", "shop_products=80", "--out", "run"]
    run = shelfspace(installed, tmp_path, "report", *asked)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "run" / "sequences.parquet").is_file() and (tmp_path / "run" / "notebooks" / "01_prepare.ipynb").is_file()

    copied = shelfspace(installed, tmp_path, "notebooks", "mine")
    assert copied.returncode == 0, copied.stderr
    script = tmp_path / "mine" / "01_prepare.py"
    script.write_text(script.read_text() + '\n# %%\n(run / "mine.txt").write_text("changed")\n')
    changed = shelfspace(installed, tmp_path, "report", "--notebooks", "mine", *asked)
    assert changed.returncode == 0, changed.stderr
    assert (tmp_path / "run" / "mine.txt").read_text() == "changed"


def test_notebooks_are_not_written_over_others(tmp_path):
    written = places.copy_notebooks(tmp_path / "mine")
    assert {path.name for path in places.NOTEBOOKS.iterdir() if path.is_file()} <= {path.name for path in written}
    assert (tmp_path / "mine" / "jupytext.toml").is_file()
    (tmp_path / "mine" / "02_train_embeddings.py").unlink()
    with pytest.raises(ValueError, match="is there already"):
        places.copy_notebooks(tmp_path / "mine")
    assert not (tmp_path / "mine" / "02_train_embeddings.py").exists()
    with pytest.raises(ValueError, match="is a file"):
        places.copy_notebooks(tmp_path / "mine" / "01_prepare.py")
