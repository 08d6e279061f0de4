"""Words of a log, of a parameter or of a notebook, made fit to stand in a page or a figure."""

from __future__ import annotations

import unicodedata


def clean(text: str) -> str:
    """Text without characters that change how their surroundings look: controls and direction overrides are
    removed.

    Line ends and tabs become blanks. Emoji, joiners and right-to-left letters stay.
    """
    text = "".join(" " if char in "\t\n\r\x0b\x0c\x85\u2028\u2029" else char for char in str(text))
    return "".join(char for char in text if char not in _BIDI and unicodedata.category(char) not in ("Cc", "Cs"))


_BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def short(text: str, length: int = 32) -> str:
    """`clean` text, cut to `length` characters with an ellipsis."""
    text = clean(text)
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
