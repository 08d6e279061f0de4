"""One HTML file from a run: the answer first, then the executed notebooks as chapters; it loads nothing from
anywhere.

`render` reads RUN/notebooks, metrics.json and params.json. The page's template, style and script lie in
``templates/``.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import nbformat

from shelfspace.files import imports, run_files
from shelfspace.files.places import NOTEBOOKS
from shelfspace.logs.layouts import NAMES, REQUIRED
from shelfspace.page import chapters, dataflow, first_screen, player, playground, theatre
from shelfspace.page.palette import color_of
from shelfspace.page.words import clean, short

PAGE = Path(__file__).parent / "templates"
STYLES = ("style.css", "player.css")
START = NOTEBOOKS / "README.md"
"""The start page of the notebooks, which holds the glossary."""
EVERYDAY = ("all", "level", "point", "source")
"""Terms of the glossary that are everyday words as well, so that their first use is seldom the term."""
BUDGETS, MANY_PRODUCTS = (5_000_000, 8_000_000), 10_000
"""Bytes that the page may take: with at most, and with more than, so many products."""
PAGE_ITSELF = 200_000
"""Bytes that the page takes besides its chapters and the toys' data: first screen, style, scripts."""


def render(run_dir: str | Path, max_bytes: int | None = None) -> Path:
    """Write RUN/report.html from the executed notebooks, metrics.json and params.json of a run.

    Parameters
    ----------
    run_dir : path
        The run's folder.
    max_bytes : int, optional
        The page's size budget; see `BUDGETS`. The toys' data take what the chapters leave of it.

    Returns
    -------
    Path
        RUN/report.html, written atomically.

    Raises
    ------
    ValueError
        If a file is missing or cannot be read, or if the page is larger than `max_bytes`.
    """
    run_dir = Path(run_dir)
    metrics = run_files.needed(run_dir, "metrics.json", "no report can be made; the notebook 06_evaluate writes it")
    params = run_files.needed(run_dir, "params.json", "no report can be made; the pipeline writes it")
    if not metrics.get("models"):
        raise ValueError(f"{run_dir / 'metrics.json'} holds no models, so there is nothing to report.")
    paths = run_files.notebooks(run_dir)
    if not paths:
        raise ValueError(f"{run_dir / 'notebooks'} holds no executed notebook; run the pipeline first.")
    stems = [path.stem for path in paths]
    terms = glossary()
    unexplained = {term: identity for identity, term, _ in terms if term not in EVERYDAY}
    told = [chapters.read(path, stems, unexplained) for path in paths]
    if max_bytes is None:
        max_bytes = BUDGETS[metrics.get("data", {}).get("products", 0) > MANY_PRODUCTS]
    room = max_bytes - sum(len(chapter.html.encode()) for chapter in told) - PAGE_ITSELF - player.BYTES
    play = playground.read(run_dir, room)
    html = page(
        "page.html.j2", scripts=("page.js", "play.js", "player.js", "theatre.js"), **first_screen.summary(metrics, params, told, _left(run_dir)), chapters=told, play=play,
        play_json=playground.to_json(play) if play else "", theatre_json=playground.to_json(theatre.read()), flow=_flow(run_dir, params, told), glossary=terms, columns=log_columns(),
        made_of=made_of({path.stem: nbformat.read(path, as_version=4) for path in paths}),
    )  # fmt: skip
    size = len(html.encode())
    if size > max_bytes:
        figures = sorted(((n, caption) for chapter in told for n, caption in chapter.figures), reverse=True)[:3]
        largest = "; ".join(f"{n / 1e6:.2f} MB “{short(caption, 60)}”" for n, caption in figures) or "none"
        raise ValueError(
            f"The report would take {size / 1e6:.2f} MB, more than its budget of {max_bytes / 1e6:.2f} MB. Its largest figures: {largest}."
        )
    path = run_dir / "report.html"
    with run_files.atomic(path) as temporary:
        Path(temporary).write_text(html, encoding="utf-8", newline="\n")
    return path


def log_columns() -> list[tuple[str, bool, list[str]]]:
    """The columns that a log may have: name, whether it is needed, and the other names that it is known by."""
    plain = {name: name.replace("_", "") for name in NAMES}
    return [(name, name in REQUIRED, [other for other in names.split() if other != plain[name]]) for name, names in NAMES.items()]


def _left(run_dir: Path) -> str:
    """The recommender whose recommendations a run wrote; "" for a run without recommender.json."""
    return run_files.needed(run_dir, "recommender.json", "").get("model", "") if (run_dir / "recommender.json").exists() else ""


def made_of(notebooks: Mapping[str, nbformat.NotebookNode]) -> str:
    """A hash over all that a page is made of: the notebooks' cells, the modules they use, and those that make the page.

    The page carries it, so that a test can tell whether a rendered report is older than the code beside it.
    """
    cells = {
        name: [(cell.cell_type, cell.source) for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", ())]
        for name, notebook in notebooks.items()
    }
    code = "\n".join(source for told in cells.values() for kind, source in told if kind == "code")
    used = imports.imported(f"{code}\nfrom shelfspace.page import report")
    files = [*used, *sorted(PAGE.iterdir()), START]
    hashes = [run_files.sha256_file(file) for file in files if file.is_file()]
    return hashlib.sha256(json.dumps([cells, hashes]).encode()).hexdigest()


def page(template: str, scripts: Sequence[str] = ("page.js",), **values) -> str:
    """Fill a template of ``templates/`` in; style and script go into the page, and nothing else may run or load in
    it."""
    script = "".join((PAGE / name).read_text(encoding="utf-8") for name in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = "".join((PAGE / name).read_text(encoding="utf-8") for name in STYLES)
    return _templates().get_template(template).render(style=style, script=script, script_digest=digest, **values)


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "percent": first_screen.percent,
        "gain": lambda found: first_screen.points(found).split(" points")[0],
        "bounds": lambda found: first_screen.points(found).split(", ")[1],
        "standing": first_screen.standing,
        "clean": clean,
        "short": short,
        "count": "{:,}".format,
        "zip": zip,
        "bytes": _bytes,
        "color": color_of,
        "with_toys": with_toys,
        "homeless": homeless,
    }
    return environment


def with_toys(html: str, toys: Mapping[str, str]) -> str:
    """A chapter with toys in the places that `shelfspace.page.exhibits.toy` kept for them."""
    return re.sub(r'<p class="toy-place (\w+)">.*?</p>', lambda place: toys.get(place[1], ""), html, flags=re.DOTALL)


def homeless(toys: Mapping[str, str], told: Sequence[chapters.Chapter]) -> list[str]:
    """The toys for which no chapter keeps a place."""
    return [toy for name, toy in toys.items() if not any(f'<p class="toy-place {name}">' in chapter.html for chapter in told)]


def glossary(path: Path = START) -> list[tuple[str, str, str]]:
    """The terms that the start page of the notebooks explains, as (id in the page, term, meaning); none without it."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.findall(r"^- \*\*(.+?)\*\*: (.+)$", text.partition("## Glossary")[2], re.MULTILINE)
    return [(f"glossary--{re.sub('[^a-z0-9]+', '-', term.lower())}", term, meaning) for term, meaning in found]


def _flow(run_dir: Path, params: Mapping, told: Sequence[chapters.Chapter]) -> dict | None:
    """The map of the data flow for the template; None for a run without records."""
    stages, files = dataflow.read(run_dir, "" if params.get("data") == "shop" else first_screen.source(params.get("data", "")))
    titles = {chapter.id: chapter.title for chapter in told}
    ids = [name.replace("_", "-") for name in stages]
    return {"stages": [(i if i in titles else "", titles.get(i, "This page")) for i in ids], "files": files} if stages else None


def _bytes(size: int) -> str:
    """1234567 → "1.2 MB"."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
