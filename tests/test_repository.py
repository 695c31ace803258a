"""The repository itself: what the README promises is what CI runs, and the version has its section."""

import re
import tomllib

from repository import ROOT

import wkdask


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = re.findall(r"^python3 -m venv .*pytest.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_version_has_a_section_in_the_changelog():
    assert f"## [{wkdask.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_has_a_lower_bound_and_no_upper_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        assert re.fullmatch(r"[a-z0-9-]+(\[[a-z]+\])?>=[\d.]+", requirement), requirement


def test_the_lower_bounds_that_are_tested_are_those_declared():
    """A release that a bound of two numbers means has three: 2025.1 is 2025.1.0."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = dict(requirement.split(">=") for requirement in project["dependencies"])
    lines = (ROOT / ".ci/lower-bounds.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert [name.partition("[")[0] for name in declared] == [*tested]
    for bound, version in zip(declared.values(), tested.values(), strict=True):
        assert f"{version}.".startswith(f"{bound}.")
