"""Parameters: what each may be is declared beside it, and checked before any work."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelfspace.files import parameters, stages

KNOWN = {parameter.name: parameter for parameter in stages.parameters()}


def one(line: str) -> parameters.Parameter:
    (found,) = parameters.declared(line, "01_first")
    return found


# --- the declaration ---


@pytest.mark.parametrize(
    "line, allowed, refused, words",
    [
        ("x = 2  # times; from 1 to 3", [1, 3, "2", 2.0], [0, 4, "2.5", None], "a whole number from 1 to 3"),
        ("x = 0.5  # share; above 0 and below 1", [0.1, "0.9"], [0, 1, "nan", "inf"], "a number above 0 and below 1"),
        ("x = 0.5  # share; 0 or more and at most 1", [0, 1], [-0.1, 1.1], "a number, 0 or more and at most 1"),
        ("x = 5  # minutes; above 0", [1, 10**20], [0, -5], "a whole number above 0"),
        ("x = None  # of choice; from -1 to 1", [-1, "none", ""], [2, "a"], "a number from -1 to 1 or none"),
        ('x = "8"  # sizes; whole numbers, each from 1 to 9', ["1", "2, 3", 4], ["a", "", "1,", "0", "1.5", "10"], "whole numbers, each from 1 to 9, with"),
        ('x = "1, 2"  # counts; 2 numbers, each above 0', ["0.5,1"], ["1", "1,2,3", "0,1"], "2 numbers, each above 0, with commas between"),
        ('x = "a"  # which; one of: a, b', ["b"], ["c", "", None, ["a"]], "one of a, b"),
        ('x = ""  # when; a date or time', ["", "2024-03-04", "2024-03-04T06:00+02:00"], ["soon", "2024-13-01", 7], "a date or time, as 2024-03-04"),
        ('x = ""  # names; pairs of names', ["", "a=b", "a=b, c=", "a=b=c"], ["a", "a=b,c", "=b", "a=b,a=c"], "pairs of NAME=COLUMN"),
        ('x = ""  # a word', ["", "ä # ; from 1 to 2"], ["\0", "\ud800", True, [1]], "text"),
        ("x = False  # a switch", ["yes", "0", True], ["perhaps", None, 2], "true or false"),
    ],
)  # fmt: skip
def test_a_comment_says_what_is_allowed(line, allowed, refused, words):
    parameter = one(line)
    assert ";" not in parameter.help and parameter.what.startswith(words)
    for value in allowed:
        parameter.read(value)
    for value in refused:
        with pytest.raises(ValueError) as caught:
            parameter.read(value)
        assert str(caught.value).startswith("x is ") and f"it must be {words}" in str(caught.value)


def test_a_comment_keeps_what_is_no_clause():
    assert one("x = 3  # about; 0: by the size; from 0 to 9").help == "about; 0: by the size"
    assert one("x = 3  # about; 0: by the size").help == "about; 0: by the size"
    assert one('x = "a # b"  # text').default == "a # b"


def test_a_default_must_be_allowed_by_its_own_comment():
    with pytest.raises(ValueError, match="x is 0; it must be a whole number from 1 to 3"):
        one("x = 0  # times; from 1 to 3")


def test_two_notebooks_must_agree_on_what_is_allowed():
    groups = [parameters.declared(f"x = 2  # times; from 1 to {high}", name) for high, name in ((3, "01"), (4, "02"))]
    with pytest.raises(ValueError, match="'from 1 to 3' in 01 and 'from 1 to 4' in 02; a parameter needs the same range everywhere"):
        parameters.gathered(groups)
    (both,) = parameters.gathered([groups[0], groups[0]])
    assert both.notebooks == ("01",)


def test_whole_numbers_are_not_read_through_a_float():
    number = one("x = 2  # times")
    assert number.read(str(2**53 + 1)) == number.read(2**53 + 1) == 2**53 + 1
    assert number.read("1e3") == 1000 and number.read("9007199254740993.0") == 2**53 + 1
    for value in ("1e999999999", "9" * 10**5, "1" + "0" * 40):
        with pytest.raises(ValueError, match="a whole number") as caught:
            number.read(value)
        assert len(str(caught.value)) < 200


# --- the notebooks' own ---


def test_every_number_and_list_of_the_notebooks_declares_its_range():
    for parameter in KNOWN.values():
        if isinstance(parameter.default, bool):
            continue
        if parameter.default is None or isinstance(parameter.default, (int, float)):
            assert parameter.allowed.low is not None and parameter.allowed.high is not None, parameter.name
        elif parameter.allowed.items:
            assert parameter.allowed.high is not None, parameter.name
        assert "=" not in parameter.help + parameter.allowed.clause, f"papermill cannot read the comment of {parameter.name}"
    texts = {name for name, parameter in KNOWN.items() if isinstance(parameter.default, str) and not parameter.allowed.clause}
    assert texts == {"run_dir", "data", "engine_url", "images", "licence", "start", "time_format"}


@pytest.mark.parametrize(
    "name, value",
    [
        ("dim", 0), ("dim", 10**9), ("w2v_window", 0), ("w2v_window", -2), ("w2v_epochs", -1), ("ss_epochs", -3), ("epochs", -1),
        ("tied_epochs", -1), ("feature_epochs", -1), ("shop_users", 0), ("shop_products", 0), ("shop_products", 51), ("shop_days", 0),
        ("w2v_negatives", -1), ("ss_negatives", 0), ("examples", 0), ("tied_examples", 0), ("ss_examples", 0), ("sg_visits", 0), ("hidden", "a"), ("hidden", ""),
        ("hidden", "0"), ("hidden", "128;64"), ("decays", "x"), ("decays", ""), ("decays", "-1"), ("decay", -1), ("batch", 0), ("dropout", 1),
        ("dropout", -0.1), ("tied_dropout", 1), ("event_counts", "1,2"), ("event_counts", "1,2,3,4"), ("event_counts", "1,2,x"),
        ("cold_share", 2), ("cold_share", 0), ("session_gap", -5), ("w2v_learning_rate", -1), ("ss_learning_rate", -1), ("learning_rate", -1),
        ("learning_rate", 0), ("prefixes", -1), ("columns", "user_id"), ("sweep_users", 0), ("compare_users", 0), ("next_users", -1),
        ("tsne_products", 0), ("perplexity", 0), ("market", -1), ("seed", -1), ("seed", 2**32), ("test_share", 0), ("valid_share", 1),
        ("test_days", 0), ("last_days", -1), ("min_products", 1), ("ss_margin", -1), ("ss_temperature", 0), ("ss_window", -1),
        ("tied_recency", -1), ("since", "yesterday"), ("until", "2024-02-30"), ("w2v_subsample", -0.1), ("protocol", "never"),
    ],
)  # fmt: skip
def test_absurd_values_are_refused_in_one_sentence_that_says_what_is_allowed(name, value):
    with pytest.raises(ValueError) as caught:
        KNOWN[name].read(value)
    sentence = str(caught.value)
    assert sentence.startswith(f"{name} is {value!r}; it must be {KNOWN[name].what}") and "\n" not in sentence


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"test_share": 0.7, "valid_share": 0.3}, "test_share is 0.7 and valid_share is 0.3; together they must be below 1"),
        ({"since": "2024-03-04", "until": "2024-03-04"}, "since must be the earlier"),
        ({"since": "2024-03-04T01:00+02:00", "until": "2024-03-03T22:00"}, "since must be the earlier"),
    ],
)
def test_values_that_do_not_go_together_are_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        stages.resolve(values)


def test_values_that_go_together():
    parameters.check_together({"test_share": 0.6, "valid_share": 0.3, "since": "2024-03-04T01:00+02:00", "until": "2024-03-04"})


# --- whatever is given ---

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.dates(), st.datetimes(), st.binary(max_size=3),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.integers().map(str), st.floats().map(str), st.decimals().map(str), st.lists(st.floats(), max_size=4).map(lambda row: ",".join(map(str, row))),
    st.text("0123456789eE+-._, =;:none", max_size=12),
    st.sampled_from(["", "none", "2024-03-04", "0001-01-01T00:00+23:00", "user_id=a", "1e999999999", "NaN", "sNaN", "-Infinity", "1_0", "٣", *KNOWN]),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(KNOWN)), VALUES)
def test_any_value_is_read_as_allowed_or_refused_in_a_sentence(name, value):
    parameter = KNOWN[name]
    try:
        read = parameter.read(value)
    except ValueError as error:
        sentence = str(error)
        assert sentence.startswith(f"{name} is ") and "it must be" in sentence and len(sentence.splitlines()) == 1
        return
    allowed, kind = parameter.allowed, type(parameter.default)
    assert read is None if parameter.default is None and read is None else type(read) is (float if parameter.default is None else kind)
    if isinstance(read, (int, float)) and kind is not bool:
        assert math.isfinite(read) and allowed.low <= read <= allowed.high
    if allowed.choices:
        assert read in allowed.choices
    if allowed.items:
        assert all(allowed.low <= float(item) <= allowed.high for item in read.split(","))
    assert parameter.read(str(read)) == read  # as a command line hands it on


@settings(max_examples=100, deadline=None)
@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999), st.datetimes(), st.datetimes())
def test_any_two_values_go_together_or_are_refused(test, valid, since, until):
    values = {"test_share": test, "valid_share": valid, "since": since.isoformat(), "until": until.isoformat()}
    fits = test + valid < 1 and since < until
    if fits:
        parameters.check_together(values)
    else:
        with pytest.raises(ValueError, match="must be"):
            parameters.check_together(values)
