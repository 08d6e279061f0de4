"""The parameters of the notebooks: what each means and what it may be, both said where it is declared.

A parameter is a line of the cell tagged `parameters`: a literal, and a comment whose last clause says what is allowed::

    dim = 50  # length of the product embeddings; from 1 to 4096

=========================================  ====================================================================
clause                                     what it allows
=========================================  ====================================================================
``from 1 to 4096``                         a number between the two, both among them
``above 0``, ``0 or more``                 a number with no upper bound; the first without 0 itself
``above 0 and below 1``                    and one with an upper bound, which ``and at most 1`` would allow itself
``whole numbers, each from 1 to 9``        a text of such numbers with commas between; ``3 numbers, each above 0``
``one of: cosine, dot``                    one of these texts; ``one of: , view`` the empty one, too
``a date or time``                         a text of ISO 8601, or the empty one
``pairs of names``                         a text such as ``user_id=visitor,product_id=sku``, or the empty one
=========================================  ====================================================================

The type is that of the literal; None stands for a number, or none.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from math import isfinite

LONG = 60  # characters of a wrong value that a sentence repeats
DIGITS = 30  # of a whole number; more are not even read
_NUMBER = r"-?\d+(?:\.\d+)?"
_BOUNDS = (
    rf"(?:from (?P<low>{_NUMBER}) to (?P<high>{_NUMBER})|"
    rf"(?:above (?P<over>{_NUMBER})|(?P<least>{_NUMBER}) or more)(?: and (?:below (?P<under>{_NUMBER})|at most (?P<most>{_NUMBER})))?)"
)
_CLAUSE = re.compile(rf"(?:(?:(?P<count>\d+) )?(?P<items>whole numbers|numbers), each )?{_BOUNDS}")
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "a number"}


@dataclass(frozen=True)
class Allowed:
    """What a parameter may be.

    Attributes
    ----------
    clause : str
        As it is declared; "" where any value of the type will do.
    low, high : float or None
        Bounds of a number, or of each in a list.
    above, below : bool
        Whether `low` and `high` themselves are not allowed.
    items : {"", "whole numbers", "numbers"}
        Of what a text is a list.
    count : int or None
        How many the list has.
    choices : tuple of str
    """

    clause: str = ""
    low: float | None = None
    high: float | None = None
    above: bool = False
    below: bool = False
    items: str = ""
    count: int | None = None
    choices: tuple[str, ...] = ()

    def contains(self, number: float) -> bool:
        """Whether a number is within the bounds."""
        if self.low is not None and (number < self.low or (self.above and number == self.low)):
            return False
        return self.high is None or not (number > self.high or (self.below and number == self.high))


@dataclass(frozen=True)
class Parameter:
    """One parameter as the notebooks declare it."""

    name: str
    default: int | float | str | bool | None
    help: str
    allowed: Allowed
    notebooks: tuple[str, ...]

    @property
    def what(self) -> str:
        """What it must be, in words."""
        allowed = self.allowed
        if allowed.choices:
            words = f"one of {', '.join(choice or repr(choice) for choice in allowed.choices)}"
        elif allowed.items:
            words = f"{allowed.clause}, with commas between"
        elif allowed.clause and isinstance(self.default, str):
            words = {"a date or time": "a date or time, as 2024-03-04 or 2024-03-04T06:00"}.get(
                allowed.clause, "pairs of NAME=COLUMN, each name once, with commas between"
            )
        else:
            words = _WORDS[type(self.default)]
            words += ("" if not allowed.clause else ", " if allowed.clause[0] in "-0123456789" else " ") + allowed.clause
        empty = isinstance(self.default, str) and not self.default and allowed.clause and not allowed.choices
        return words + (" or none" if self.default is None else ", or empty" if empty else "")

    def read(self, value: object) -> object:
        """A value, also as the text of a command line, as this parameter's type.

        Raises
        ------
        ValueError
            If it is not allowed, saying what is.
        """
        if self.default is None and (value is None or (isinstance(value, str) and value.strip().lower() in ("none", ""))):
            return None
        try:
            return _READERS[type(self.default)](value, self.allowed)
        except (KeyError, TypeError, ValueError, OverflowError, InvalidOperation):
            meaning = "" if self.allowed.choices or not self.help else f": {self.help}"
            raise ValueError(f"{self.name} is {_shown(value)}; it must be {self.what}{meaning}.") from None


def declared(source: str, notebook: str) -> list[Parameter]:
    """The parameters of one `parameters` cell.

    Raises
    ------
    ValueError
        If a default is not of the kind that its own comment allows.
    """
    found = []
    for name, (literal, comment) in assignments(source).items():
        meaning, allowed = _clause(comment)
        parameter = Parameter(name, ast.literal_eval(literal), meaning, allowed, (notebook,))
        parameter.read(parameter.default)
        found.append(parameter)
    return found


def gathered(groups: list[list[Parameter]]) -> list[Parameter]:
    """All parameters of several notebooks, each once, in the order in which they are met.

    Raises
    ------
    ValueError
        If two notebooks declare the same name with different defaults, or allow different values.
    """
    found: dict[str, Parameter] = {}
    for parameter in (parameter for group in groups for parameter in group):
        known = found.get(parameter.name, parameter)
        for ours, theirs, what in (
            ((known.default, type(known.default)), (parameter.default, type(parameter.default)), "default"),
            (known.allowed, parameter.allowed, "range"),
        ):
            if ours != theirs:
                one, other = (p.default if what == "default" else p.allowed.clause for p in (known, parameter))
                raise ValueError(
                    f"{known.name} is {one!r} in {known.notebooks[0]} and {other!r} in {parameter.notebooks[0]}; "
                    f"a parameter needs the same {what} everywhere."
                )
        found[parameter.name] = replace(known, notebooks=tuple(dict.fromkeys((*known.notebooks, *parameter.notebooks))))
    return list(found.values())


def check_together(values: Mapping[str, object]) -> None:
    """Refuse values that are allowed one by one but do not go together.

    Raises
    ------
    ValueError
        Naming the parameters and what holds between them.
    """
    shares = values.get("test_share"), values.get("valid_share")
    if None not in shares and sum(shares) >= 1:
        raise ValueError(
            f"test_share is {shares[0]} and valid_share is {shares[1]}; together they must be below 1, so that users are left to train."
        )
    since, until = values.get("since"), values.get("until")
    if since and until and _moment(since) >= _moment(until):
        raise ValueError(f"since is {since} and until is {until}; since must be the earlier.")


def assignments(source: str) -> dict[str, tuple[str, str]]:
    """Each ``name = literal  # comment`` of a cell: name → (literal, comment); nothing where it is no Python."""
    try:
        nodes = [node for node in ast.parse(source).body if isinstance(node, ast.Assign | ast.AnnAssign)]
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, ValueError, tokenize.TokenError):
        return {}
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    for node in nodes:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Name) and node.value is not None:
            found[target.id] = (ast.unparse(node.value), comments.get(node.end_lineno, ""))
    return found


def writable(text: str) -> bool:
    """Whether a text can stand in a file of ours or in a path: it is Unicode, without NUL."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _clause(comment: str) -> tuple[str, Allowed]:
    """The meaning that a comment gives, and what its last clause allows."""
    meaning, _, clause = (part.strip() for part in comment.rpartition(";"))
    if clause.startswith("one of:"):
        return meaning, Allowed(clause, choices=tuple(choice.strip() for choice in clause.removeprefix("one of:").split(",")))
    if clause in ("a date or time", "pairs of names"):
        return meaning, Allowed(clause)
    match = _CLAUSE.fullmatch(clause)
    if not match:
        return comment.strip(), Allowed()
    given = {
        name: text if name == "items" else int(text) if re.fullmatch(r"-?\d+", text) else float(text)
        for name, text in match.groupdict().items()
        if text
    }
    low, high = (
        next((given[name] for name in names if name in given), None) for names in (("low", "over", "least"), ("high", "under", "most"))
    )
    return meaning, Allowed(clause, low, high, "over" in given, "under" in given, given.get("items", ""), given.get("count"))


def _whole(value: object, allowed: Allowed) -> int:
    """A whole number, digit by digit: read as a float, those above 2^53 would become others."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError
    exact = Decimal(value)
    if not exact.is_finite() or exact.adjusted() >= DIGITS or exact != exact.to_integral_value() or not allowed.contains(exact):
        raise ValueError
    return int(exact)


def _float(value: object, allowed: Allowed) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError
    number = float(value)
    if not isfinite(number) or not allowed.contains(number):
        raise ValueError
    return number


def _switch(value: object, allowed: Allowed) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[str(value).strip().lower()]


def _text(value: object, allowed: Allowed) -> str:
    if not isinstance(value, (str, int, float, date)) or isinstance(value, bool):  # YAML makes dates of dates
        raise TypeError
    text = str(value)
    if not writable(text) or (allowed.choices and text not in allowed.choices):
        raise ValueError
    if allowed.items:
        numbers = [_READERS[int if allowed.items == "whole numbers" else float](item.strip(), allowed) for item in text.split(",")]
        if allowed.count not in (None, len(numbers)):
            raise ValueError
    elif allowed.clause == "a date or time":
        _moment(text)
    elif allowed.clause == "pairs of names" and text:
        pairs = [[part.strip() for part in pair.partition("=")] for pair in text.split(",") if pair.strip()]
        if not all(name and equals for name, equals, _ in pairs) or len({name for name, _, _ in pairs}) < len(pairs):
            raise ValueError
        text = ",".join("".join(pair) for pair in pairs)
    return text


def _moment(text: str) -> datetime | None:
    """A date or time of ISO 8601, in UTC."""
    at = datetime.fromisoformat(text) if text else None
    return at.astimezone(UTC).replace(tzinfo=None) if at and at.tzinfo else at


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONG else f"{text[:LONG]}…"


_READERS: dict[type, Callable[[object, Allowed], object]] = {int: _whole, float: _float, bool: _switch, str: _text, type(None): _float}
