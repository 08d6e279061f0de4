"""Which lines of the package the tests reach, told by marks that are set in its code as it is imported.

Before Python 3.12, coverage has but a tracer, which is called at every step of every library, too, and makes the tests a third as long
again. The marks cost next to nothing. What is reached goes to coverage, which reports on it as on what its own tracer had seen.
"""

from __future__ import annotations

import ast
import itertools
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader

import coverage
import pytest

PACKAGE = "shelfspace"
REACHED: dict[str, bytearray] = {}
"""For each file, whether a line was reached."""


def mark(statement: ast.stmt, lines: list[int]) -> ast.stmt:
    """`__reached__[1] = __reached__[2] = 1`, as if it stood where a statement does."""
    name = ast.Name("__reached__", ast.Load())
    targets = [ast.Subscript(name, ast.Constant(line), ast.Store()) for line in lines]
    return ast.fix_missing_locations(ast.copy_location(ast.Assign(targets, ast.Constant(1)), statement))


def must_be_first(statement: ast.stmt) -> bool:
    """Whether it may be a docstring or is an import of the future, before which nothing may stand."""
    text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return text or isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


class Marks(ast.NodeTransformer):
    """Sets a mark before each statement; none in a function that Numba compiles."""

    def visit(self, node: ast.AST) -> ast.AST:
        if any("njit" in ast.unparse(decorator) for decorator in getattr(node, "decorator_list", ())):
            return node
        self.generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            if isinstance(block := getattr(node, name, None), list):
                setattr(node, name, self.marked(block))
        if isinstance(node, (ast.ExceptHandler, ast.match_case)):
            node.body.insert(0, mark(node.body[0], [getattr(node, "pattern", node).lineno]))
        return node

    def marked(self, block: list[ast.stmt]) -> list[ast.stmt]:
        marks = [mark(each, [*(part.lineno for part in getattr(each, "decorator_list", ())), each.lineno]) for each in block]
        head = list(itertools.takewhile(must_be_first, block))
        rest = zip(marks[len(head) :], block[len(head) :])
        return [*head, *marks[: len(head)], *itertools.chain.from_iterable(rest)]


class Loader(SourceFileLoader):
    def get_code(self, fullname: str):
        return compile(Marks().visit(ast.parse(self.get_data(self.path), self.path)), self.path, "exec", dont_inherit=True)

    def exec_module(self, module) -> None:
        module.__reached__ = REACHED.setdefault(self.path, bytearray(self.get_data(self.path).count(b"\n") + 2))
        super().exec_module(module)


class Finder(MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] != PACKAGE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


sys.meta_path.insert(0, Finder())


@pytest.hookimpl(trylast=True)
def pytest_sessionstart() -> None:
    """Stop the tracer, which has just begun."""
    if counting := coverage.Coverage.current():
        counting.stop()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtestloop(session: pytest.Session):
    """Hand over what was reached, before pytest-cov ends."""
    ended = yield
    if (plugin := session.config.pluginmanager.getplugin("_cov")) and plugin.cov_controller:
        lines = {path: [line for line, reached in enumerate(each) if reached] for path, each in REACHED.items()}
        plugin.cov_controller.cov.get_data().add_lines(lines)
    return ended
