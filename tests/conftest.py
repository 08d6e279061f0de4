"""A small run of the real notebooks, made once, for all tests that look at what a run writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from shelfspace import pipeline

SMALL = {"shop_users": 600, "shop_products": 150, "epochs": 3, "w2v_epochs": 20, "ss_epochs": 20, "sweep_users": 60}


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what was said on the way."""

    folder: Path
    said: str


def make_run(folder: Path, data: str = "shop", **given) -> Run:
    """Run all notebooks with small parameters."""
    said: list[str] = []
    pipeline.run(data, folder, given=SMALL | given, command="shelfspace report", say=said.append)
    return Run(folder, "".join(said))


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Run:
    """The notebooks on a small simulated shop. Shared: look, do not touch."""
    return make_run(tmp_path_factory.mktemp("runs") / "small")
