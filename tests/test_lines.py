"""What the tests reach is counted line by line, and a line that is not reached is not counted."""

from __future__ import annotations

import ast

import pytest
from lines import Marks

CODE = '''"""Words."""
from __future__ import annotations
import functools

@functools.cache
def of(x):
    """Words."""
    try:
        if x > 1:
            return "more"
        elif x == 1:
            y = [i
                 for i in range(2)]
        else:
            raise ValueError
    except ValueError:
        return "less"
    finally:
        x = 0
    while x:
        pass
    return y

@njit
def compiled():
    return 1
'''
AT_IMPORT = {1, 2, 3, 5, 6, 24, 25}


@pytest.mark.parametrize(
    "given, lines",
    [(2, {7, 8, 9, 10, 19}), (1, {7, 8, 9, 11, 12, 19, 20, 22}), (0, {7, 8, 9, 11, 15, 16, 17, 19}), (None, set())],
)
def test_each_statement_that_is_reached_is_counted_and_no_other(given, lines):
    reached = bytearray(len(CODE.splitlines()) + 2)
    names = {"__reached__": reached, "njit": lambda function: function}
    exec(compile(Marks().visit(ast.parse(CODE)), "code", "exec"), names)
    if given is not None:
        names["of"](given)
    names["compiled"]()  # Numba could not compile a mark
    assert {line for line, was in enumerate(reached) if was} == AT_IMPORT | lines
