"""How large a report is, how soon it can be used, and how fast the decay toy and the session player answer, in headless Chromium.

    python benchmarks/page_speed.py reports/default --products 30000

prints a table in Markdown. With --products, the run is also measured with its product table repeated, under other names
and with vectors shaken a little, to so many products.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from playwright.sync_api import sync_playwright

from shelfspace.files import run_files
from shelfspace.page import report
from shelfspace.vectors import embeddings

USABLE = """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"""
DRAG = """async (id) => {
    const slider = document.getElementById(id), handled = [], painted = [], [low, high] = [Number(slider.min), Number(slider.max)];
    slider.scrollIntoView({ block: "center", behavior: "instant" });
    for (let step = 0; step <= 50; step += 1) {
        slider.value = String(Math.round(low + (high - low) * (step / 50)));
        const begun = performance.now();
        slider.dispatchEvent(new Event("input", { bubbles: true }));
        document.body.offsetHeight;  // lay the page out
        handled.push(performance.now() - begun);
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        painted.push(performance.now() - begun);
    }
    return [handled, painted];
}"""


def larger(run: Path, products: int, folder: Path) -> Path:
    """A copy of a run with its products repeated up to `products`."""
    shutil.copytree(run, folder)
    table = pd.read_parquet(run / "products.parquet")
    times = -(-products // len(table))
    rng = np.random.default_rng(0)
    copies = [table] + [
        table.assign(product_id=table.product_id + f"-{i}", name=table.name + f", {i}", count=(table["count"] * 0.9**i).astype(int))
        for i in range(1, times)
    ]
    whole = pd.concat(copies, ignore_index=True)[:products].sort_values("product_id", ignore_index=True)
    whole.to_parquet(folder / "products.parquet", index=False)
    for file in (run / "product_embeddings").glob("*.parquet"):
        vectors = embeddings.align(embeddings.load(file), whole.product_id.str.partition("-")[0].to_numpy().astype(str))[0]
        shaken = vectors * rng.normal(1, 0.1, vectors.shape).astype(np.float32)
        embeddings.Embeddings(whole.product_id.to_numpy().astype(str), shaken).save(folder / "product_embeddings" / file.name)
    metrics = run_files.read_json(folder / "metrics.json")
    metrics["data"]["products"] = products
    run_files.write_json(folder / "metrics.json", metrics)
    return folder


def measure(browser, run: Path, repeats: int) -> dict:
    """Size in MB, and times in milliseconds."""
    path = report.render(run).absolute()
    usable, times = [], {}
    for _ in range(repeats):
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(path.as_uri())
        usable.append(page.evaluate(USABLE))
        for name, slider in (("decay", "decay-d"), ("player", "player-visit")):
            for what, found in zip(("answers", "is painted"), page.evaluate(DRAG, slider)):
                times.setdefault(f"{name} {what} in, median / 99 %, ms", []).extend(found)
        page.close()
    return {
        "size, MB": f"{path.stat().st_size / 1e6:.2f}",
        "usable after, median / most, ms": f"{statistics.median(usable):.0f} / {max(usable):.0f}",
    } | {name: f"{statistics.median(found):.1f} / {np.quantile(found, 0.99):.1f}" for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--products", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--browser", default=shutil.which("chromium"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.browser, args=["--no-sandbox"])
        found = {"as it is": measure(browser, arguments.run, arguments.repeats)}
        if arguments.products:
            run = larger(arguments.run, arguments.products, Path(folder) / "run")
            found[f"{arguments.products:,} products"] = measure(browser, run, arguments.repeats)
        browser.close()
    print("| | " + " | ".join(found) + " |\n| --- |" + " ---: |" * len(found))
    for name in next(iter(found.values())):
        print(f"| {name} | " + " | ".join(row[name] for row in found.values()) + " |")


if __name__ == "__main__":
    main()
