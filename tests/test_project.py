"""The project's own files agree with each other: pins, set-up, licence."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

from shelfspace.files import places, stages

ROOT = places.ROOT


def pins(name: str) -> list[Requirement]:
    """The lines of a file of pins."""
    return [Requirement(line) for line in (ROOT / name).read_text().splitlines() if line and line[0] not in "#-"]


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


PINS, ALL_PINS = pins("requirements.txt"), pins("requirements-all.txt")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_pin_is_exact():
    assert PINS and all([s.operator for s in pin.specifier] == ["=="] for pin in [*PINS, *ALL_PINS])


def test_the_extras_leave_the_reports_pins_as_they_are():
    assert {str(pin) for pin in PINS} < {str(pin) for pin in ALL_PINS}


@pytest.mark.parametrize("given, extras", [(PINS, ["test"]), (ALL_PINS, PROJECT["optional-dependencies"])], ids=["report", "all"])
def test_every_dependency_is_pinned_and_allowed_by_the_pin(given, extras):
    pinned = {normal(pin.name): pin for pin in given}
    for text in [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]:
        wanted = Requirement(text)
        (version,) = pinned[normal(wanted.name)].specifier
        assert wanted.specifier.contains(version.version), text


def test_whatever_is_imported_is_declared():
    provides = importlib.metadata.packages_distributions()
    extras = [text for name, texts in PROJECT["optional-dependencies"].items() if name != "test" for text in texts]
    declared = {Requirement(text).name.lower() for text in [*PROJECT["dependencies"], *extras]}
    declared |= {"keras"}  # comes with TensorFlow
    for path in [*(ROOT / "src").rglob("*.py"), *places.NOTEBOOKS.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"shelfspace"}:
                assert {found.lower().replace("_", "-") for found in provides.get(name, [name])} & declared, f"{path.name} imports {name}"


def test_conda_uses_the_same_pins_and_python():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, through_pip = conda["dependencies"]
    assert pip == "pip" and through_pip == {"pip": ["-r requirements.txt", "-e ."]}
    assert python.partition("=")[2] in PROJECT["requires-python"]


def tracked() -> list:
    found = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip("This is no git checkout, so what is tracked cannot be told.")
    return [ROOT / name for name in found.stdout.split("\0") if name]


def test_no_pin_file_names_a_host():
    for path in tracked():
        if re.search(r"requirements|environment|\.lock|pylock|pyproject", path.name):
            assert not re.search(r"https?://|index-url|find-links", path.read_text()), path


def test_nothing_that_is_a_logs_or_a_runs_is_tracked():
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        assert not name.startswith("data/") or name == "data/README.md"
        assert not name.startswith("reports/") or name.startswith("reports/sample/")
        assert path.suffix not in (".parquet", ".keras"), name


def test_the_readme_names_commands_that_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make (\w+)\b(?= |`|$)", readme, re.M)) & {"report", "test", "lab", "sample"}:
        assert re.search(rf"^{target}:", makefile, re.M), target
    for notebook in re.findall(r"\d\d_[a-z_]+", readme):
        assert notebook in {stage.name for stage in stages.stages()}, notebook
    known = {p.name for p in stages.parameters()}
    for name in re.findall(r"-p (\w+)[= ]", readme):
        assert name in known, name


def test_licence():
    assert "MIT" in PROJECT["license"] and "Permission is hereby granted" in (ROOT / "LICENSE").read_text()
