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
