"""BLAS on one thread: sums are then added in the same order on every machine, and threads of our own do not wait for its."""

from __future__ import annotations

import functools
import sys
from contextlib import AbstractContextManager

from threadpoolctl import ThreadpoolController


def one_blas_thread() -> AbstractContextManager:
    """As a context, hold every BLAS library of the process to one thread."""
    return _libraries(len(sys.modules)).limit(limits=1, user_api="blas")


@functools.lru_cache(maxsize=1)
def _libraries(modules: int) -> ThreadpoolController:
    """The libraries that are loaded, which takes milliseconds to find out; another can only have come with another module."""
    return ThreadpoolController()
