"""How a figure's SVG becomes part of the page: it takes the page's colours, and nothing in it can act or load."""

from __future__ import annotations

import re
from html import escape
from xml.etree import ElementTree

from shelfspace.page import palette

INHERITED = {palette.INK: "--ink", palette.MUTED: "--muted", palette.GRID: "--rule", palette.PAPER: "--paper", palette.QUIET: "--quiet"}
"""Colours of the style and the variables of the page that stand for them."""
ELEMENTS = set("svg g defs clipPath path rect use text tspan image".split())
ATTRIBUTES = set("id d x y width height transform viewBox href clip-path style preserveAspectRatio".split())
STYLES = set(
    """
    fill fill-opacity fill-rule font-size font-weight font-style opacity stroke stroke-dasharray stroke-dashoffset stroke-linecap
    stroke-linejoin stroke-miterlimit stroke-opacity stroke-width text-anchor
    """.split()
)


def inline(svg: bytes | str, prefix: str, alt: str) -> str:
    """A figure's SVG as an element of the page: it takes the page's colours and its type, and can neither act nor load anything.

    Colours of the style become the page's variables (`INHERITED`); every other one is lightened by the page's ``--lift``, which
    is 0 % on light paper. Only what `ELEMENTS`, `ATTRIBUTES` and `STYLES` name is kept.

    Parameters
    ----------
    svg : bytes or str
        As matplotlib writes it.
    prefix : str
        Of all its ids, so that they are unique in the page.
    alt : str
        What is seen, for those who do not see it.

    Raises
    ------
    ValueError
        If it is no SVG, or declares entities.
    """
    text = svg.decode() if isinstance(svg, bytes) else svg
    if "<!ENTITY" in text:
        raise ValueError("The SVG declares entities.")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"This is no SVG: {error}") from error
    if _local(root.tag) != "svg":
        raise ValueError(f"This is no SVG, but {_local(root.tag)}.")
    used = {value for node in root.iter() for value in re.findall(r"#([\w-]+)", " ".join([node.get("clip-path", ""), _href(node)]))}
    body = "".join(_element(node, prefix, used) for node in root)
    box = root.get("viewBox", "")
    width = float(box.split()[2]) if re.fullmatch(r"[\d.]+ [\d.]+ [\d.]+ [\d.]+", box) else 72 * palette.WIDTH
    return f'<svg viewBox="{escape(box)}" role="img" aria-label="{escape(alt)}" style="max-width: {width / 0.75:.0f}px">{body}</svg>'


def _element(node: ElementTree.Element, prefix: str, used: set[str]) -> str:
    """An element and what it holds; groups that say nothing are unwrapped."""
    name = _local(node.tag)
    if name not in ELEMENTS:
        return ""
    found = {_local(key): " ".join(value.split()) for key, value in node.attrib.items()} | ({"href": _href(node)} if _href(node) else {})
    kept = {key: value for key, value in found.items() if key in ATTRIBUTES and (key != "id" or value in used)}
    kept = {key: _attribute(key, value, prefix) for key, value in kept.items()}
    inside = escape((node.text or "").strip("\n ")) + "".join(_element(child, prefix, used) for child in node)
    kept = {key: value for key, value in kept.items() if value}
    if name == "g" and not kept:
        return inside
    if not inside and name in ("g", "defs", "text"):
        return ""
    attributes = "".join(f' {key}="{escape(value)}"' for key, value in kept.items())
    return f"<{name}{attributes}>{inside}</{name}>"


def _attribute(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return f"{prefix}-{value}"
    if key == "href":
        return f"#{prefix}-{value[1:]}" if value[0] == "#" else value if value.startswith("data:image/png;base64,") else ""
    if key == "clip-path":
        return re.sub(r"^url\(#([\w-]+)\)$", rf"url(#{prefix}-\1)", value) if re.fullmatch(r"url\(#[\w-]+\)", value) else ""
    if key == "transform" and re.match(r"rotate\(-?0(\.0)?[ )]", value):
        return ""
    if key == "style":
        pairs = [pair.partition(":")[::2] for pair in value.split(";") if ":" in pair]
        return ";".join(f"{name.strip()}:{_color(text.strip())}" for name, text in pairs if name.strip() in STYLES and "(" not in text)
    return value


def _color(text: str) -> str:
    """A colour as the page shows it; any other value as it is."""
    if text.lower() in INHERITED:
        return f"var({INHERITED[text.lower()]})"
    return f"color-mix(in oklab,{text},white var(--lift))" if re.fullmatch("#[0-9a-fA-F]{6}", text) else text


def _href(node: ElementTree.Element) -> str:
    return next((value.strip() for key, value in node.attrib.items() if _local(key) == "href" and value.strip()), "")


def _local(name: str) -> str:
    """A name without its namespace."""
    return name.rpartition("}")[2]
