"""Which files of this package a piece of code imports, and their hashes: what a stage's key and a page's hash cover."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from shelfspace.files import run_files
from shelfspace.files.places import PACKAGE

STATEMENT = re.compile(
    r"(?:^|[:;])[ \t]*(?:from[ \t]+([.\w]+)[ \t]+import[ \t]*(\([^)]*\)|(?:\\\n|[^\n;#])*)|import[ \t]+([^\n;#]*))", re.M
)
"""An import, wherever in some code: its module and what is imported of it, or its modules. What only looks like one, as in a text,
does no harm; the code is not parsed, which would take 16 times as long."""


def imported(code: str) -> list[Path]:
    """The files of this package that run when some code is imported: its modules, the packages around them, and what these import."""
    found: set[Path] = set()
    todo: list[tuple[str, tuple[str, ...]]] = [(code, ())]
    while todo:
        for name in _mentioned(*todo.pop()):
            for end in range(len(name) + 1):
                place = PACKAGE.joinpath(*name[:end])
                for path, package in ((place.with_suffix(".py"), name[: end - 1]), (place / "__init__.py", name[:end])):
                    if path not in found and path.is_file():
                        found.add(path)
                        todo.append((path.read_text(encoding="utf-8"), package))
    return sorted(found)


@functools.lru_cache(maxsize=1024)
def _mentioned(code: str, package: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    """What may be modules of this package among all that some code of `package` imports, as ("models", "tied")."""
    return frozenset(_names(code, package))


def _names(code: str, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for module, members, plain in STATEMENT.findall(code):
        level = len(module) - len(module.lstrip("."))
        within = module[level:].split(".") if module[level:] else []
        if level:
            within = [*package[: len(package) - level + 1], *within]
        elif within[:1] == [PACKAGE.name]:
            del within[0]
        else:
            module = ""
        if module:
            members = re.sub(r"#.*|[()\\]", "", members).split(",")
            yield from ((*within, name.split()[0]) for name in members if name.split())
        named = [name.split()[0].split(".") for name in plain.split(",") if name.split()]
        yield from (tuple(name[1:]) for name in named if name[0] == PACKAGE.name)


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file that is there, by its name below the package, or else its own."""
    return {
        path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name: run_files.sha256_file(path)
        for path in paths
        if path.is_file()
    }
