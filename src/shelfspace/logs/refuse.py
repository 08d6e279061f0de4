"""The words in which a log is refused: one sentence, with values and names from the file cut to a readable length."""

import difflib
import re
from collections.abc import Sequence


def error(sentence: str) -> ValueError:
    """On one line, whatever names and values hold."""
    return ValueError(re.sub(r"\s+", " ", sentence))


def show(value: object) -> str:
    """A value from a file in quotes, its first 40 characters."""
    text = str(value)
    return "nothing" if value is None else repr(text if len(text) <= 40 else text[:39] + "…")


def listing(names: Sequence[str]) -> str:
    """The first twenty of some names, and how many more there are."""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(str(n)[:40] for n in names[:20]) + more


def closest(name: str, names: Sequence[str]) -> str:
    """The question whether the name that is most like a wrong one is meant; "" where none is like it."""
    near = difflib.get_close_matches(name.lower(), [n.lower() for n in names], 1)
    return f" (is {show(next(n for n in names if n.lower() == near[0]))} meant?)" if near else ""
