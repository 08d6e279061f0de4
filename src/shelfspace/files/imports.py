"""Which files of this package a piece of code imports, and their hashes: what a stage's key and a page's hash cover."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

from shelfspace.files import run_files
from shelfspace.files.places import PACKAGE


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
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")[1:]) for alias in node.names if alias.name.split(".")[0] == PACKAGE.name)
        elif isinstance(node, ast.ImportFrom):
            first, *below = (node.module or "").split(".")
            if node.level:
                base = (*package[: len(package) - node.level + 1], *filter(None, [first, *below]))
            elif first == PACKAGE.name:
                base = tuple(below)
            else:
                continue
            yield from ((*base, alias.name) for alias in node.names)


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file that is there, by its name below the package, or else its own."""
    return {
        path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name: run_files.sha256_file(path)
        for path in paths
        if path.is_file()
    }
