"""A small run of the real notebooks, made once, for all tests that look at what a run writes; and a browser for its page."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from shelfspace import pipeline

SMALL = {"shop_users": 600, "shop_products": 150, "epochs": 3, "w2v_epochs": 20, "ss_epochs": 20, "sweep_users": 60}


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what was said on the way."""

    folder: Path
    said: str


def make_run(folder: Path, data: str = "shop", **given) -> Run:
    """Run all notebooks with small parameters."""
    said: list[str] = []
    pipeline.run(data, folder, given=SMALL | given, command="shelfspace report", say=said.append)
    return Run(folder, "".join(said))


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Run:
    """The notebooks on a small simulated shop. Shared: look, do not touch."""
    return make_run(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip(
            "No chromium, chromium-browser or google-chrome on the path, "
            "so the page is not opened in a browser."
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
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


def violations(page) -> str:
    """What axe-core finds wrong with a page, of any level; empty when nothing."""
    from axe_playwright_python.sync_playwright import Axe

    result = Axe().run(page)
    return result.generate_report() if result.violations_count else ""
