"""An executed notebook as one chapter of the report: a fragment of HTML that runs nothing and loads nothing.

nbconvert's "basic" template makes the HTML; here outputs are cut down to what may stand in the page, formulas
become MathML, figures take the page's colours, and headings get ids of their own. Code is folded, together with the text of
cells tagged "aside" beside it and all that a code cell with this tag shows; a cell tagged "folded" is folded behind its heading.
"""

from __future__ import annotations

import ast
import base64
import copy
import functools
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePath
from urllib.parse import unquote

import nbformat
from bleach.sanitizer import Cleaner
from bs4 import BeautifulSoup, NavigableString, Tag
from jinja2 import pass_context
from latex2mathml.converter import convert as to_mathml
from nbconvert import HTMLExporter, TemplateExporter
from nbconvert.filters import Highlight2HTML, clean_html
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from shelfspace.files import run_files
from shelfspace.files.parameters import assignments
from shelfspace.page import svg
from shelfspace.page.words import clean, short

TAGS = set(
    """
    a abbr b bdi blockquote br caption code col colgroup dd del details div dl dt em figcaption figure
    h1 h2 h3 h4 h5 h6 hr i img kbd li ol p pre q s samp small span strong sub summary sup table tbody td
    tfoot th thead tr u ul var
    """.split()
)
MATH = set(
    """
    math mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace msqrt
    mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none
    """.split()
)
MATH_ATTRIBUTES = set(
    """
    alttext columnalign columnspacing columnlines depth display displaystyle fence form height largeop
    linethickness lspace mathvariant maxsize minsize movablelimits rowspacing rspace scriptlevel
    separator stretchy symmetric voffset width accent accentunder
    """.split()
)
ATTRIBUTES = set(
    """
    align alt class colspan dir height href lang open rowspan scope src start title width
    """.split()
)
UNDESCRIBED = "A figure without a description"
WORDLESS = ["script", "style", "svg", "iframe", "object", "embed", "form", "template"]  # of which nothing stays, not even their words
IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]*\Z")
PROGRESS = re.compile(r"\d+%\s*\||\b(it|s)/(s|it|epoch|step)\b|\d+(\.\d+)?\s*(it|epoch|step)/s")
CELL = 160  # characters that a table's cell shows of a longer text
PARAMETER_TAGS = ("parameters", "injected-parameters")
PLACES = ("run_dir", "data", "images", "start")  # parameters that are paths: the page tells the name, not where on a machine it lies


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook: as declared and as used (both as Python literals), and its comment."""

    name: str
    default: str
    value: str
    help: str


@dataclass(frozen=True)
class Chapter:
    """One executed notebook.

    Attributes
    ----------
    id : str
        Prefix of all ids in the chapter, from the file's name.
    title : str
        The notebook's first heading, without its number.
    html : str
        Safe to put into the page as it is.
    sections : list of (id, title)
        Headings of the second level.
    parameters : list of Parameter
    figures : list of (bytes, caption)
        What each image takes in the page.
    """

    id: str
    title: str
    html: str
    sections: list[tuple[str, str]]
    parameters: list[Parameter]
    figures: list[tuple[int, str]]


@dataclass(frozen=True)
class _Draft:
    """A chapter before it knows of the others: its elements, still to be linked, with what `Chapter` has besides."""

    id: str
    title: str
    page: BeautifulSoup
    sections: list[tuple[str, str]]
    parameters: list[Parameter]


_drafts: dict[Path, tuple[str, _Draft]] = {}  # made ahead, with the digest of the notebook; each is for one reading


def begin(path: str | Path) -> None:
    """Do the long part of `read` ahead of time, while the other notebooks of a report still run."""
    path = Path(path).absolute()
    _drafts[path] = run_files.sha256_file(path), _draft(path)


def read(path: str | Path, others: Collection[str] = (), terms: dict[str, str] | None = None) -> Chapter:
    """Turn an executed notebook into a chapter.

    Parameters
    ----------
    path : path to an .ipynb
    others : collection of str
        Stems of all notebooks of the report, so that links between them become links within the page.
    terms : dict, optional
        Terms of the glossary that no chapter explained yet, and their ids in the page. Their first use here leads there, and
        takes them out.

    Raises
    ------
    ValueError
        If the file is not a notebook.
    """
    path = Path(path).absolute()
    digest, draft = _drafts.pop(path, ("", None))
    if digest != run_files.sha256_file(path):
        draft = _draft(path)
    page = draft.page
    _links(page, draft.id, {_slug(stem) for stem in [*others, path.stem]})
    _explain(page, {} if terms is None else terms)
    for tag in page.find_all("th"):
        if not tag.get_text(strip=True):  # the corner of a pandas table heads nothing
            tag.name = "td"
    for tag in page.find_all("table"):
        if tag.find_parent(class_="scroll") is None:
            tag.wrap(page.new_tag("div", attrs={"class": "scroll"}))
    figures = _inline(page, draft.id)
    return Chapter(draft.id, draft.title, str(page), draft.sections, draft.parameters, figures)


def _draft(path: Path) -> _Draft:
    """The chapter of a notebook, not yet linked."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises what its JSON and schema readers raise
        raise ValueError(f"{path} is not a notebook that can be read: {error}") from error
    parameters = _parameters(notebook)
    soup = BeautifulSoup(_exporter().from_notebook_node(_prepared(notebook))[0], "html.parser")
    page = BeautifulSoup("", "html.parser")
    for cell in soup.find_all("div", class_="cell", recursive=False):
        classes = cell.get("class", [])
        if "celltag_parameters" in classes and parameters:
            page.append(_fragment(_parameter_table(parameters)))
        elif "celltag_folded" in classes:
            page.append(_folded(cell))
        elif not any(f"celltag_{tag}" in classes for tag in PARAMETER_TAGS):
            for part, folded in _cell(cell, "celltag_aside" in classes):
                _add(page, part, folded)
    for details in page.find_all("details", class_="code", recursive=False):
        _sum_up(details)
    for text in page.find_all("p", string=re.compile("^In this notebook you will")):  # which the page's contents say
        text.find_next_sibling("ul").decompose()
        text.decompose()
    identity = _slug(path.stem)
    title, sections = _headings(page, identity, path.stem)
    return _Draft(identity, title, page, sections, parameters)


def sanitize(html: str) -> str:
    """Keep only elements and attributes that cannot act or load anything; text stays as text, cut to `CELL` in tables."""
    soup = BeautifulSoup(html, "html.parser")
    for tag in soup.find_all(WORDLESS):
        tag.decompose()
    for text in soup.find_all(string=lambda text: type(text) is NavigableString):
        said = "\n".join(clean(line) for line in text.split("\n"))
        text.replace_with(short(said, CELL) if len(said) > CELL and text.find_parent(["td", "th"]) else said)
    for image in soup.find_all("img"):
        if not IMAGE.match(image.get("src", "")):
            image.replace_with(image.get("alt", ""))
        else:
            image.attrs.setdefault("alt", UNDESCRIBED)
    return CLEANER.clean(str(soup))


def _allowed(tag: str, name: str, value: str) -> bool:
    """Whether an attribute may stay."""
    if name == "href":
        return re.match(r"(https?://|#|[\w.-]+\.ipynb\Z)", value) is not None
    return name in (MATH_ATTRIBUTES if tag in MATH else ATTRIBUTES) and (name != "src" or tag == "img")


CLEANER = Cleaner(tags=TAGS | MATH, attributes=_allowed, protocols=["http", "https", "data"], strip=True)


def formula(latex: str, display: bool = False) -> str:
    """LaTeX as MathML, without a network; what cannot be read stays as code."""
    try:
        math = to_mathml(latex.strip(), display="block" if display else "inline")
    except Exception:  # the parser raises many kinds of errors on what it does not know
        return f"<code>{escape(latex.strip())}</code>"
    math = re.sub(r' xmlns="[^"]*"', "", math, count=1)
    upright = r'(?:<mi mathvariant="normal">\w</mi>){2,}'  # \mathrm comes letter by letter
    math = re.sub(upright, lambda word: f"<mi>{re.sub('<[^>]*>', '', word[0])}</mi>", math)
    math = re.sub(
        r"(<mi>(?:log|ln|exp|sin|cos|tan)</mi>)(?=<m(?:i|n|sub|sup|frac)\b)",
        r'\1<mspace width="0.17em"></mspace>',
        math,
    )
    return f'<span class="formula">{math}</span>' if display else math


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown, with formulas as MathML."""

    def block_math(self, body: str) -> str:
        return formula(body, display=True)

    def inline_math(self, body: str) -> str:
        if body != body.strip():  # "from $5 to $6" is money
            return f"${escape(body)}$"
        return formula(body)

    def latex_environment(self, name: str, body: str) -> str:
        return formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)


class _Highlighted(str):
    """Code as Pygments made it HTML, with all that is special in it escaped."""


class _Exporter(HTMLExporter):
    """nbconvert's, which neither checks nor cleans again what is checked and clean, nor parses all of it once more than `_draft`."""

    def default_filters(self):
        yield from super().default_filters()
        highlight = Highlight2HTML(pygments_lexer="ipython3", parent=self)
        yield "highlight_code", lambda code, metadata=None: _Highlighted(highlight(code, metadata=metadata))
        yield "clean_html", lambda html: html if isinstance(html, _Highlighted) else clean_html(html)

    def from_notebook_node(self, nb, resources=None, **given):
        return TemplateExporter.from_notebook_node(self, nb, resources, **given)

    def _validate_preprocessor(self, *_) -> None:
        """After each of nbconvert's steps it would check the whole notebook, which `_draft` read and made."""

    @pass_context
    def markdown2html(self, context, source):  # the name of nbconvert's filter
        attachments = context.get("cell", {}).get("attachments", {})
        return _markdown(source, attachments)


@functools.cache
def _exporter() -> _Exporter:
    return _Exporter(template_name="basic", exclude_anchor_links=True)


def _markdown(source: str, attachments: dict | None = None) -> str:
    renderer = _Renderer(escape=False, exclude_anchor_links=True, attachments=attachments)
    return sanitize(MarkdownWithMath(renderer=renderer).render(source))


def _prepared(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy whose outputs are those that the page shows, each in one safe form."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [shown for output in cell.outputs if (shown := _output(output)) is not None]
    return notebook


def _output(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    if output.output_type == "stream":
        if output.name == "stderr":
            return None
        lines = [line.rsplit("\r", 1)[-1] for line in output.text.replace("\r\n", "\n").split("\n")]
        output.text = "\n".join(clean(line) for line in lines if not PROGRESS.search(line))
        return output if output.text.strip() else None
    if output.output_type == "error":
        return output
    data = output.data
    if any("widget" in kind for kind in data):  # a progress bar
        return None
    if "text/html" in data:
        html = sanitize("".join(data["text/html"]))
    elif "image/svg+xml" in data:
        html = _image("svg+xml", base64.b64encode("".join(data["image/svg+xml"]).encode()).decode())
    elif kind := next((kind for kind in ("png", "jpeg") if f"image/{kind}" in data), None):
        html = _image(kind, "".join(data[f"image/{kind}"].split()))
    elif "text/markdown" in data or "text/latex" in data:
        markdown = "".join(data.get("text/markdown", data.get("text/latex", "")))
        html = _markdown(markdown)
    else:
        text = "".join(data.get("text/plain", ""))
        if not text.strip() or PROGRESS.search(text) or re.match(r"<(Figure size|matplotlib\.)", text):
            return None
        html = sanitize(f'<pre class="text">{escape(text)}</pre>')
    output.data = nbformat.from_dict({"text/html": html})
    return output


def _image(kind: str, data: str) -> str:
    image = f'<img src="data:image/{kind};base64,{data}" alt="{UNDESCRIBED}">'
    return f'<figure class="shelf-figure">{image}</figure>'


def _cell(cell: Tag, aside: bool) -> list[tuple[Tag, bool]]:
    """The parts of one cell of nbconvert's page, each with whether it is folded: its text, or its code and then its outputs."""
    text = cell.find("div", class_="text_cell_render")
    if text is not None:
        return [(child.extract(), aside) for child in list(text.children)]
    code = cell.find("div", class_="highlight")
    parts = [(code.extract(), True)] if code is not None and code.get_text().strip() else []
    for output in cell.find_all("div", class_="output_subarea"):
        output.attrs = {"class": "output"}
        parts.append((output.extract(), aside))
    return parts


def _add(page: BeautifulSoup, part: Tag, folded: bool) -> None:
    """Append a part to a page; what is folded joins the fold before it, if nothing stands between."""
    if not folded:
        page.append(part)
        return
    last = next((child for child in reversed(page.contents) if not isinstance(child, NavigableString) or child.strip()), None)
    if not isinstance(last, Tag) or last.name != "details" or "code" not in last.get("class", []):
        last = page.new_tag("details", attrs={"class": "code"})
        page.append(last)
    last.append(part)


def _sum_up(details: Tag) -> None:
    """Say what a fold holds: so many lines of code, and tables or figures."""
    lines = sum(len(code.get_text().strip().split("\n")) for code in details.find_all("div", class_="highlight"))
    shown = [what for what, css in (("table", ".shelf-table"), ("figure", ".shelf-figure")) if details.select_one(css)]
    what = ["Code", *shown] if lines else ["Aside"]
    size = f"<span> · {lines} line{'s' * (lines > 1)}</span>" if lines else ""
    details.insert(0, _fragment(f"<summary>{' and '.join([', '.join(what[:-1]), what[-1]] if what[1:] else what)}{size}</summary>"))


def _folded(cell: Tag) -> Tag:
    """A cell of text, folded behind its heading; says how many solutions it holds."""
    text = cell.find("div", class_="text_cell_render")
    heading = text.find(re.compile(r"h[1-6]\Z")).extract()
    number = len(text.find_all("details"))
    size = f"<span> · {number}, with solutions</span>" if number else ""
    details = _fragment(f'<details class="folded"><summary>{escape(heading.get_text())}{size}</summary></details>').details
    for child in list(text.children):
        details.append(child.extract())
    return details


def _inline(page: BeautifulSoup, prefix: str) -> list[tuple[int, str]]:
    """Turn each SVG of a figure into elements of the page; what each image takes in bytes, and its caption."""
    found = []
    for number, image in enumerate(page.find_all("img"), 1):
        head, _, data = image["src"].partition(";base64,")
        shown = image["src"]
        if head == "data:image/svg+xml" and image.find_parent(class_="shelf-figure"):
            with suppress(ValueError):  # a picture of other making stays an image
                shown = svg.inline(base64.b64decode(data), f"{prefix}-{number}", image.get("alt", ""))
        found.append((len(shown), _caption(image)))
        if shown.startswith("<svg"):
            image.replace_with(_fragment(shown))
    return found


def _headings(page: BeautifulSoup, prefix: str, stem: str) -> tuple[str, list[tuple[str, str]]]:
    """Give headings ids and permalinks, one level down (the page has its own first level); take the first as
    title."""
    title, sections, taken = "", [], {prefix}
    for tag in page.find_all(re.compile(r"h[1-6]\Z")):
        text = " ".join(tag.get_text().split())
        if tag.name == "h1" and not title:
            title = re.sub(r"^\d+[.:]?\s+", "", text)
            tag.decompose()
            continue
        level = min(6, int(tag.name[1]) + 1)
        tag.name = f"h{level}"
        identity = base = f"{prefix}--{_slug(text) or 'section'}"
        count = 1
        while identity in taken:
            count += 1
            identity = f"{base}-{count}"
        taken.add(identity)
        tag["id"] = identity
        tag.append(_fragment(f' <a class="permalink" href="#{identity}" aria-label="Link to {escape(text)}">#</a>'))
        if level == 3:
            sections.append((identity, text))
    return title or re.sub(r"^\d+_", "", stem).replace("_", " ").capitalize(), sections


def _links(page: BeautifulSoup, prefix: str, chapters: Collection[str]) -> None:
    """Lead links to headings and to other notebooks within the page; open the rest safely; drop what leads
    nowhere."""
    known = {tag["id"] for tag in page.find_all(id=True)}
    for tag in page.find_all("a", href=True):
        href = tag["href"]
        if "permalink" in tag.get("class", []):
            continue
        if href.endswith(".ipynb") and _slug(href.removesuffix(".ipynb")) in chapters:
            tag["href"] = f"#{_slug(href.removesuffix('.ipynb'))}"
        elif href.startswith("#") and f"{prefix}--{_slug(unquote(href[1:]))}" in known:
            tag["href"] = f"#{prefix}--{_slug(unquote(href[1:]))}"
        elif re.match("https?://", href) and not tag.find_parent(class_="output"):
            tag["rel"] = "noopener noreferrer"
        else:
            tag.unwrap()


def _explain(page: BeautifulSoup, terms: dict[str, str]) -> None:
    """Lead the first use of each term in the running text to the glossary, and take it out of `terms`."""
    use_of = _uses(terms)
    for text in page.find_all(string=True):
        while terms and (use := use_of.search(text)):
            if not text.find_parent(["p", "li"]) or text.find_parent(["a", "code", "pre", "math", "details", "figure"]):
                break
            name = next(name for name in terms if name.lower() == use[1].lower())
            link = page.new_tag("a", attrs={"class": "term", "href": f"#{terms.pop(name)}"}, string=use[0])
            before, after = NavigableString(text[: use.start()]), NavigableString(text[use.end() :])
            text.replace_with(before, link, after)
            text, use_of = after, _uses(terms)


def _uses(terms: Collection[str]) -> re.Pattern:
    """What finds a term, or its plural, as a word of a text; of two that begin alike the longer one."""
    names = "|".join(map(re.escape, sorted(terms, key=len, reverse=True)))
    return re.compile(rf"(?<![\w-])({names})s?(?![\w-])", re.IGNORECASE)


def _parameters(notebook: nbformat.NotebookNode) -> list[Parameter]:
    """What the notebook's `parameters` cell declares, with the values that papermill injected, paths by their last name."""
    declared: dict[str, tuple[str, str]] = {}
    values: dict[str, str] = {}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code" and "parameters" in tags:
            declared |= assignments(cell.source)
        elif cell.cell_type == "code" and "injected-parameters" in tags:
            values |= {name: value for name, (value, _) in assignments(cell.source).items()}
    for name in set(PLACES) & set(values):
        values[name] = repr(PurePath(ast.literal_eval(values[name])).name)
    return [Parameter(name, default, values.get(name, default), text) for name, (default, text) in declared.items()]


def _parameter_table(parameters: list[Parameter]) -> str:
    changed = sum(parameter.value != parameter.default for parameter in parameters if parameter.name != "run_dir")
    rows = "".join(
        f"<tr{' class=changed' * (p.value != p.default and p.name != 'run_dir')}>"
        f'<th scope="row"><code>{escape(p.name)}</code></th>'
        f"<td><code>{escape(clean(p.value))}</code></td><td><code>{escape(clean(p.default))}</code></td>"
        f"<td>{escape(clean(p.help))}</td></tr>"
        for p in parameters
    )
    count = f"{changed} changed" if changed else "all at their defaults"
    return (
        f'<details class="parameters"><summary>Parameters<span> · {len(parameters)}, {count}</span></summary>'
        '<div class="scroll">'
        f'<table><thead><tr><th scope="col">Name</th><th scope="col">Value</th><th scope="col">Default</th>'
        f'<th scope="col">Meaning</th></tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def _caption(image: Tag) -> str:
    figure = image.find_parent("figure")
    caption = figure.find("figcaption") if figure else None
    return caption.get_text() if caption else image.get("alt", "")


def _fragment(html: str) -> BeautifulSoup:
    return BeautifulSoup(html, "html.parser")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
