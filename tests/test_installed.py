"""What pip installs: a wheel with the notebooks in it, that runs in an empty folder far from the repository."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from shelfspace.files import places

SMALL = ["--only", "01", "-p", "shop_users=300", "-p", "shop_products=80", "--out", "reports/first"]


def readme(head: str) -> list[str]:
    """The lines of code of a section of the README."""
    section = (places.ROOT / "README.md").read_text(encoding="utf-8").partition(f"## {head}\n")[2].partition("\n## ")[0]
    return [line.strip() for line in section.splitlines() if line.startswith("    ")]


def shell(home: Path, line: str) -> subprocess.Popen:
    """Begin a line of shell in a folder, without what the tests import from."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(["bash", "-c", line], cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def done(home: Path, line: str) -> str:
    """What a line of shell prints that ends well."""
    process = shell(home, line)
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    return said


@pytest.fixture(scope="module")
def home(wheel, tmp_path_factory) -> Path:
    """A folder, empty but for the wheel, after the first lines of the README: a venv, the package, and a run of the first notebook."""
    home = tmp_path_factory.mktemp("installed")
    shutil.copy(wheel, home)
    make, install, report, *_ = readme("From a report to answers")
    make = make.replace("python3 -m venv", f"{shlex.quote(sys.executable)} -m venv --system-site-packages")
    packages = Path(pytest.__file__).parents[1]  # of the environment that runs the tests, itself perhaps a venv
    prepared = f"{make}; echo {packages} > $(echo .venv/lib/python*/site-packages)/here.pth"
    install = install.replace("pip install", "pip install -q --no-deps")
    said = done(home, f"set -e; {prepared}; {install}; type shelfspace; {report} {' '.join(SMALL)}")
    assert f"shelfspace is {home}" in said and report == "shelfspace report"
    return home


def test_the_wheel_holds_the_notebooks_their_start_page_the_page_and_the_dag(home, wheel):
    (installed,) = home.glob(".venv/lib/python*/site-packages/shelfspace")
    for path in places.NOTEBOOKS.iterdir():
        assert (installed / "notebooks" / path.name).read_bytes() == path.read_bytes(), path
    for path in (path for path in places.PACKAGE.rglob("*") if path.suffix in (".py", ".j2", ".css", ".js")):
        assert (installed / path.relative_to(places.PACKAGE)).read_bytes() == path.read_bytes(), path
    assert (installed / "dags" / "product_embeddings.py").is_file()
    with zipfile.ZipFile(wheel) as file:
        assert not [name for name in file.namelist() if name.endswith((".parquet", ".html"))]


def test_it_runs_in_an_empty_folder_and_writes_its_notebooks_to_be_changed(home):
    run = home / "reports" / "first"
    assert (run / "sequences.parquet").is_file() and (run / "notebooks" / "01_prepare.ipynb").is_file()
    done(home, ".venv/bin/shelfspace notebooks mine")
    script = home / "mine" / "01_prepare.py"
    script.write_text(script.read_text() + '\n# %%\n(run / "mine.txt").write_text("changed")\n')
    done(home, f".venv/bin/shelfspace report --notebooks mine {' '.join(SMALL)}")
    assert (run / "mine.txt").read_text() == "changed"


def test_the_five_lines_of_the_readme(home, small_run):
    """From an empty folder to answers: of a report that is the small one, made by the same command as the first notebook of it here."""
    pytest.importorskip("fastapi", reason="The service is an extra; `make extras` installs it.")
    pytest.importorskip("uvicorn")
    serve, ask = readme("From a report to answers")[3:5]
    (home / "reports" / "default").symlink_to(small_run.folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with shell(home, f". .venv/bin/activate; exec {serve.removesuffix(' &')} --port {port} 2>/dev/null") as serving:
        try:
            until = time.monotonic() + 120
            while subprocess.run(["curl", "-s", f"localhost:{port}/health"], capture_output=True).returncode and time.monotonic() < until:
                time.sleep(0.2)
            said = done(home, ask.replace("8000", str(port)).replace("curl", "curl -s"))
            assert [each["rank"] for each in json.loads(said)["products"]] == [1, 2, 3, 4, 5]
        finally:
            serving.terminate()


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
