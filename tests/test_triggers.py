"""What whoever triggers the DAG may name."""

from __future__ import annotations

import os

import pytest

from shelfspace.run import triggers


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """Folders that the settings allow, with one log each, and one that they do not."""
    for name in ("logs", "more", "runs", "secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.csv").write_text("")
    monkeypatch.setenv("SHELFSPACE_DATA", f"{tmp_path / 'logs'}{os.pathsep}{tmp_path / 'more'}")
    monkeypatch.setenv("SHELFSPACE_OUT", str(tmp_path / "runs"))
    monkeypatch.setenv("SHELFSPACE_ENGINES", "spark://host:7077, project/dataset")
    return tmp_path


def test_what_the_settings_name_is_allowed(roots):
    for data in (
        "shop",
        f"{roots}/logs",
        f"{roots}/logs/log.csv",
        f"{roots}/more/*.csv",
        f"{roots}/logs/**/x-[0-9].csv",
        f"{roots}/logs/none.csv",
    ):
        triggers.check(data, roots / "runs" / "2024-04-01")
    triggers.check("shop", roots / "runs" / "a" / "b", "spark://host:7077", f"{roots}/more")
    triggers.check("shop", roots / "runs" / "a", "project/dataset")


@pytest.mark.parametrize(
    "given, sentence",
    [
        ({"data": "{}/secret/log.csv"}, "data is .* which SHELFSPACE_DATA does not allow; it must be in .*logs or .*more"),
        ({"data": "{}/logs/../secret/log.csv"}, "SHELFSPACE_DATA"),
        ({"data": "{}/*/log.csv"}, "SHELFSPACE_DATA"),
        ({"data": "{}/logs*/log.csv"}, "SHELFSPACE_DATA"),
        ({"data": "{}/logs/link/log.csv"}, "SHELFSPACE_DATA"),
        ({"data": "{}/logs/*/log.csv"}, "SHELFSPACE_DATA"),
        ({"data": "{}/more"}, "SHELFSPACE_DATA"),
        ({"data": "/etc/passwd"}, "SHELFSPACE_DATA"),
        ({"data": ""}, "SHELFSPACE_DATA"),
        ({"data": "https://host/log.csv"}, "SHELFSPACE_DATA"),
        ({"images": "{}/secret"}, "images is"),
        ({"out": "{}/logs/x"}, "out is .* which SHELFSPACE_OUT does not allow"),
        ({"out": "{}/runs"}, "SHELFSPACE_OUT"),
        ({"out": "{}/runs/.."}, "SHELFSPACE_OUT"),
        ({"out": "{}/runs/a/../../secret"}, "SHELFSPACE_OUT"),
        (
            {"engine_url": "spark://other:7077"},
            "engine_url is .* SHELFSPACE_ENGINES does not name; it names spark://host:7077, project/dataset",
        ),
    ],
)
def test_what_they_do_not_name_is_refused(roots, given, sentence):
    (roots / "logs" / "link").symlink_to(roots / "secret")
    (roots / "more" / "link.csv").symlink_to(roots / "secret" / "log.csv")
    asked = {"data": "shop", "out": f"{roots}/runs/a"} | {name: value.format(roots) for name, value in given.items()}
    with pytest.raises(ValueError, match=sentence) as caught:
        triggers.check(**asked)
    assert len(str(caught.value).splitlines()) == 1


def test_without_settings_it_is_the_projects_own_folders(monkeypatch):
    for name in ("SHELFSPACE_DATA", "SHELFSPACE_OUT", "SHELFSPACE_ENGINES"):
        monkeypatch.delenv(name, raising=False)
    triggers.check("data/log.csv", "reports/airflow/2024-04-01")
    for asked in (("/etc/passwd", "reports/x"), ("shop", "/tmp/x"), ("shop", "notebooks/x"), ("shop", "reports/x", "spark://host:7077")):
        with pytest.raises(ValueError, match="SHELFSPACE_"):
            triggers.check(*asked)
