"""A small run of the real notebooks, made once, for all tests that look at what a run writes; and a browser for its page."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from lines import pytest_runtestloop, pytest_sessionstart  # noqa: F401  before anything of the package

sys.modules.setdefault("rfc3987_syntax", None)  # as in `shelfspace.cli.main`, and before what imports it

from shelfspace.files import places  # noqa: E402
from shelfspace.run import pipeline, server  # noqa: E402

# As in a run's kernels, of which two work at a time, too; the processes of the tests have it from the one that starts them.
os.environ |= {name: server.QUIET[name] for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "TF_NUM_INTRAOP_THREADS")}

SMALL = {
    "shop_users": 600, "shop_products": 150, "epochs": 3, "tied_epochs": 2, "w2v_epochs": 20, "ss_epochs": 20,
    "sweep_users": 60, "sg_visits": 30_000, "ss_examples": 20_000,
}  # fmt: skip


LONGEST = (
    *("dags", "report", "pipeline", "notebooks", "playground", "events", "player", "comparison", "tied_training", "benchmark"),
    *("kernels", "recommender", "installed", "service", "engines", "use", "tied", "trainers", "damage", "peers"),
)
"""Files of tests, those that take longest first: begun last, one of them would leave the other process without work at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what was said on the way."""

    folder: Path
    said: str


def make_run(folder: Path, data: str = "shop", columns: str = "", jobs: int | None = None, only: str | None = None, **given) -> Run:
    """Run all notebooks with small parameters, or one of them."""
    said: list[str] = []
    pipeline.run(data, folder, columns=columns, given=SMALL | given, jobs=jobs, only=only, command="shelfspace report", say=said.append)
    return Run(folder, "".join(said))


def drop_chapters_without_toys(folder: Path) -> None:
    """Leave in a copy of a run the notebooks alone in whose chapters the page has toys, so that its page is soon made."""
    for path in (folder / "notebooks").glob("*.ipynb"):
        if "toy-place" not in path.read_text(encoding="utf-8"):
            path.unlink()


@contextmanager
def shared(tmp_path_factory, name: str) -> Iterator[Path]:
    """A folder of that name that the processes of the tests share; one at a time makes what is to be in it."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Run:
    """The notebooks on a small simulated shop. Shared: look, do not touch."""
    with shared(tmp_path_factory, "small") as folder:
        return make_run(folder / "run")  # which is reused where another process made it


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """What pip builds of this checkout."""
    with shared(tmp_path_factory, "wheel") as folder:
        if not list(folder.glob("*.whl")):
            build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, places.ROOT]
            subprocess.run(build, check=True, capture_output=True)
        (built,) = folder.glob("shelfspace-*.whl")
        return built


AIRFLOW = importlib.util.find_spec("airflow") is not None


COMMANDS = """
import json, sys, time
sys.modules["rfc3987_syntax"] = None  # as above
from shelfspace.run import kernels
pause, time.sleep = time.sleep, lambda seconds: pause(min(seconds, 0.01))  # or `dags test` rests a second for each task after a failed one
asked, warm = json.loads(sys.argv[1])
if warm:
    kernels._is_warm(start=True)
from airflow.__main__ import main
for words in asked:
    sys.argv, code = ["airflow", *words], 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    print("ended", code, flush=True)
"""


def airflow(home: Path, said: Path, *asked: tuple[str, ...], warm: bool = False) -> subprocess.Popen:
    """Start a process that loads Airflow once and calls commands of it, one after the other, on the project's DAGs.

    Airflow has a home of its own, and may read logs of a folder beside it; what it says goes to a file, with how each command ended.
    With `warm`, its kernels begin with the libraries loaded, as those of `shelfspace report`, and not each as a scheduler's task.
    """
    own = (server.QUIET if warm else {}) | {
        "AIRFLOW_HOME": str(home),
        "SHELFSPACE_OUT": str(home.parent),
        "SHELFSPACE_DATA": str(home.with_name("log")),
        "AIRFLOW__CORE__DAGS_FOLDER": str(places.ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    command = [sys.executable, "-c", COMMANDS, json.dumps([asked, warm])]
    with open(said, "w") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | own, start_new_session=True)


@pytest.fixture(scope="session")
def second_run(tmp_path_factory) -> Run:
    """The small run once more, apart from the first: where Airflow is installed by the DAG, killed on its way and started again."""
    with shared(tmp_path_factory, "second") as folder:
        return killed_dag_run(folder) if AIRFLOW else make_run(folder / "run")


def killed_dag_run(folder: Path) -> Run:
    """A run of the DAG that was killed on its way and started again, and after it one on a spoiled log, unless it was so before."""
    home, said, out = folder / "airflow", folder / "said", folder / "2024-04-01"
    if (out / "report.html").exists():
        return Run(out, said.read_text())
    day = json.dumps(SMALL | {"out": str(folder), "window_days": 28})
    spoiled = json.dumps({"out": str(folder), "data": str(spoiled_log(folder / "log"))})
    test = ("dags", "test", "product_embeddings", "2024-04-01", "--conf", day)
    process, made = airflow(home, said, ("db", "migrate"), test), out / ".stages" / "made" / "product_embeddings"
    while not list(made.glob("*.json")):
        assert process.poll() is None, said.read_text()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    (folder / "killed").touch()
    after = ("dags", "test", "product_embeddings", "2024-04-02", "--conf", spoiled)
    assert airflow(home, said, test, after, warm=True).wait(timeout=600) == 0, said.read_text()
    return Run(out, said.read_text())


def spoiled_log(folder: Path) -> Path:
    """A log whose last day, the one after those of the run, has but half of its events."""
    import pandas as pd  # not at the top, as the process that starts the others needs none of these

    from shelfspace.shop import write

    folder.mkdir()
    write.simulate(folder / "log.parquet", 2000, 150, 36, 0)
    log = pd.read_parquet(folder / "log.parquet")
    log = log[log.timestamp < "2024-04-02"]
    last = log.timestamp >= "2024-04-01"
    pd.concat([log[~last], log[last].sample(frac=0.5, random_state=0)]).to_parquet(folder / "log.parquet")
    return folder / "log.parquet"


FEATURES = "PaintHolding,MediaRouter,OptimizationHints,NetworkTimeServiceQuerying,WebUIOmniboxPopup,WebUIOmniboxAimPopup"
"""What the browser is to do without: some of what Playwright turns off, whose list this one replaces, and what its address bar opens,
which takes as long for each window as a page does."""


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("No chromium, chromium-browser or google-chrome on the path, so the page is not opened in a browser.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", f"--disable-features={FEATURES}"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_file(browser):
    """Open a file in a window of its own, offline; `page.noise` collects requests, console lines, errors and dialogs."""
    contexts = []

    def open_at(path: Path, width: int = 1440, scheme: str = "light", javascript: bool = True, height: int = 900):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            java_script_enabled=javascript,
            reduced_motion="reduce",
            offline=True,
        )
        contexts.append(context)
        page = context.new_page()
        page.noise = []
        page.on(
            "request",
            lambda r: page.noise.append(r.url) if not r.url.startswith(("file:", "data:")) else None,
        )
        page.on("console", lambda message: page.noise.append(message.text))
        page.on("pageerror", lambda error: page.noise.append(str(error)))
        page.on("dialog", lambda dialog: (page.noise.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri())
        return page

    yield open_at
    for context in contexts:
        context.close()


ONE_TOKEN_OF_A_KIND = """() => {
    const looks = (part) => ["color", "background-color", "font-size", "font-weight"].map((name) => getComputedStyle(part).getPropertyValue(name));
    const repeated = new Set(), seen = new Set();
    for (const token of document.querySelectorAll(".highlight span:not(:has(*))")) {
        const kind = [token.className, ...looks(token), ...looks(token.closest(".highlight"))].join();
        if (seen.has(kind)) repeated.add(token);
        seen.add(kind);
    }
    for (const token of repeated) token.replaceWith(token.textContent);
}"""
"""Leaves of the coloured tokens of code one of each look: a page has 18,000 in twenty looks, and axe would ask each the same."""


def violations(page) -> str:
    """What axe-core finds wrong with a page, of any level; empty when nothing."""
    from axe_playwright_python.sync_playwright import Axe

    page.evaluate(ONE_TOKEN_OF_A_KIND)
    result = Axe().run(page, options={"resultTypes": ["violations"]})  # all rules; what they pass is not listed, which takes as long
    return result.generate_report() if result.violations_count else ""
