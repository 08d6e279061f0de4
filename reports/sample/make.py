"""Make the sample of this folder from a finished run: its report and two screenshots of it. `make sample` calls it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent


def main(run: Path) -> None:
    """Copy RUN/report.html here, and show its first screen on a desktop, and its map on a phone in the dark."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        sys.exit("The screenshots need chromium, chromium-browser or google-chrome on the path.")
    page_file = HERE / "report.html"
    shutil.copyfile(run / "report.html", page_file)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(page_file.as_uri())
        page.screenshot(path=HERE / "first-screen.png")
        page = browser.new_page(viewport={"width": 390, "height": 780}, color_scheme="dark", reduced_motion="reduce", device_scale_factor=2)
        page.goto(page_file.as_uri())
        page.evaluate("""document.querySelector("#play--map .canvas").scrollIntoView({ block: "start" }); scrollBy(0, -90)""")
        page.screenshot(path=HERE / "phone-dark.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
