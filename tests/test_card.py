"""The model card: the run's own figures, its limits, and how it was made."""

from __future__ import annotations

import json

import pytest

from shelfspace.files import run_files
from shelfspace.page import card
from shelfspace.page.first_screen import percent


def test_the_card_has_the_figures_of_what_left_the_run(small_run):
    text = (small_run.folder / "card.md").read_text(encoding="utf-8")
    metrics, params = (run_files.read_json(small_run.folder / name) for name in ("metrics.json", "params.json"))
    left = metrics["models"][run_files.read_json(small_run.folder / "recommender.json")["model"]]
    for part, name in ((left, "all"), (left["seen"], "seen before"), (left["discovery"], "discovery")):
        low, high = part["ci95"]["mrr@20"]
        assert f"| {name} | {part['n']} |" in text and f"{percent(part['mrr@20'])} ({percent(low)} to {percent(high)})" in text
    for slice_of in metrics["slices"]:
        assert f"| {slice_of} |" in text
    assert metrics["data"]["first"][:10] in text and "most recent product is the target" in text
    assert all(f"{name} {version}" in text for name, version in params["versions"].items())
    assert "The shop is simulated" in text and "`shop_users=600`" in text and "none is needed, it is simulated" in text
    assert "{{" not in text and "None" not in text and "nan" not in text


METRICS = {"protocol": "time", "models": {"popular": {"hit_rate@20": 0.5, "mrr@20": 0.25, "n": 8}}}


def test_a_run_of_little_still_has_a_card():
    text = card.text(METRICS, {"data": "/home/someone/log|1.csv"})
    assert "| all | 8 | 50.0% | 25.0% | – | – |" in text and "What came before a date trains" in text
    assert "**Log:** log|1.csv" in text and "/home" not in text and "simulated" not in text
    assert "**Licence of the data:** not stated" in text


def test_the_licence_is_the_one_that_was_said():
    text = card.text(METRICS | {"data": {"licence": "CC BY 4.0\n# no heading"}}, {"data": "log.csv"})
    assert "**Licence of the data:** CC BY 4.0 # no heading." in text


def test_a_run_without_figures_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no metrics.json, so no card can be made"):
        card.render(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    with pytest.raises(ValueError, match="has no params.json"):
        card.render(tmp_path)
