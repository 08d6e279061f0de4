"""The package's rooms: imports point one way, and every room says what it is for."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from shelfspace.files import places

ROOMS = ("files", "logs", "shop", "sequences", "vectors", "measure", "models", "trials", "use", "page", "run")
"""From the ground floor up: a room imports from those before it, and from itself."""
MODULES = sorted(places.PACKAGE.glob("*/*.py"))


def imports(path: Path) -> set[tuple[str, ...]]:
    """The modules of the package that a file names, as ("models", "tied"), wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "shelfspace":
            found |= {(*node.module.split(".")[1:], alias.name)[:2] for alias in node.names}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path} has a relative import"
    return found


def test_every_module_has_a_room():
    assert {path.name for path in places.PACKAGE.glob("*.py")} == {"__init__.py", "cli.py"}
    assert {path.parent.name for path in MODULES} == set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_imports_point_one_way(path):
    own = ROOMS.index(path.parent.name)
    above = {".".join(name) for name in imports(path) if name[0] not in ROOMS[: own + 1]}
    assert not above, f"{path.parent.name}/{path.name} imports {', '.join(above)} from above"


def test_no_circle():
    names = {(path.parent.name, path.stem): imports(path) for path in MODULES}
    order = list(TopologicalSorter({name: found & set(names) - {name} for name, found in names.items()}).static_order())
    assert len(order) == len(names)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for_and_what_it_may_import(room):
    source = (places.PACKAGE / room / "__init__.py").read_text(encoding="utf-8")
    assert len(ast.parse(source).body) == 1  # words alone: whoever imports a module imports no other with it
    assert "May import: " in ast.get_docstring(ast.parse(source))


def test_the_readme_draws_the_rooms_in_their_order():
    readme = (places.ROOT / "README.md").read_text(encoding="utf-8")
    spots = [readme.index(f"      {room}/ ") for room in reversed(ROOMS)]
    assert spots == sorted(spots)
