"""The chapters of the page, made ahead: from each notebook as soon as it has ended, while others still run."""

from __future__ import annotations

import gc
import queue
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType


class Ahead:
    """A thread that makes chapters ahead, which `shelfspace.page.report.render` then finds made.

    As a context it has made all of them at its end, or lets the rest be where an error ends it: what was not made ahead, or could
    not be, `render` makes, and says what is wrong with it.
    """

    def __init__(self):
        self._asked: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="shelfspace-page", daemon=True)

    def __enter__(self) -> Ahead:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._asked.put(None)
        if kind is None:
            self._thread.join()

    def begin(self, notebooks: Iterable[Path]) -> None:
        """Make these chapters when the thread comes to it."""
        for path in notebooks:
            self._asked.put(path)

    def _work(self) -> None:
        path = self._asked.get()
        if path:
            from shelfspace.page import card, chapters, report, theatre  # noqa: F401  all that a page is made by, imported by the way

            gc.freeze()  # so that no collection goes through it again
            theatre.read()  # of no run, and kept
        while path:
            with suppress(Exception):  # which `render` meets again, where it is told
                chapters.begin(path)
            path = self._asked.get()
