"""The settings: their defaults, their checks, and where a value may come from."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import dask
import pytest
import yaml
from repository import ROOT

import wkdask
from wkdask import settings
from wkdask.errors import InvalidValueError, WkdaskWarning
from wkdask.testing import random_voxels

FILE = Path(wkdask.__file__).with_name("wkdask.yaml")


@pytest.fixture(autouse=True)
def nobody_was_told(monkeypatch):
    monkeypatch.setattr(settings, "_told", set())


def in_another_process(script, **env):
    """Return what a script prints in a process that has these environment variables."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_setting_has_a_default_a_comment_and_a_check():
    defaults = yaml.safe_load(FILE.read_text())
    assert [*defaults] == ["wkdask"]
    assert [*defaults["wkdask"]] == [*settings.SETTINGS]
    lines = FILE.read_text().splitlines()
    for name in settings.SETTINGS:
        (at,) = (number for number, line in enumerate(lines) if line.startswith(f"  {name}: "))
        assert lines[at - 1].startswith("  # ")


def test_the_defaults():
    assert settings.get("lock-timeout") == 600
    assert settings.get("check-space") is True
    assert settings.get("worker-timeout") == "auto"
    assert settings.get("progress-interval") == 10
    assert settings.get("thumbnails") is True
    assert settings.get("compile-after") == 0.5
    assert settings.get("read-threads") is None
    assert settings.get("zarr-shape") == "shards"
    settings.check()


def test_the_package_reads_its_settings_in_one_place():
    found = [path for path in FILE.parent.rglob("*.py") if 'config.get("wkdask' in path.read_text()]
    assert found == [FILE.with_name("settings.py")]


def test_the_file_is_in_the_wheel():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["wkdask"]}  # all that is in the folder


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("lock-timeout", 2, 2),
        ("lock-timeout", 0, 0),
        ("lock-timeout", "100ms", 0.1),
        ("lock-timeout", "2 minutes", 120),
        ("lock-timeout", "7", 7),
        ("check-space", False, False),
        ("check-space", 0, False),
        ("check-space", 1, True),
        ("read-threads", None, None),
        ("read-threads", 1, 1),
        ("read-threads", 16, 16),
        ("worker-timeout", None, None),
        ("worker-timeout", "auto", "auto"),
        ("worker-timeout", "1h", 3600),
        ("progress-interval", 0.5, 0.5),
    ],
)
def test_a_value_that_works(name, value, meant):
    with dask.config.set({f"wkdask.{name}": value}):
        assert settings.get(name) == meant
        settings.check()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lock-timeout", "soon"),
        ("lock-timeout", "10 parsecs"),
        ("lock-timeout", ""),
        ("lock-timeout", -1),
        ("lock-timeout", float("nan")),
        ("lock-timeout", float("inf")),
        ("lock-timeout", True),
        ("lock-timeout", None),
        ("lock-timeout", [1]),
        ("check-space", "never"),
        ("check-space", None),
        ("check-space", 2),
        ("worker-timeout", "always"),
        ("worker-timeout", False),
        ("progress-interval", {"bar": 1}),
    ],
)
def test_a_value_that_cannot_work_is_named(name, value):
    with dask.config.set({f"wkdask.{name}": value}), pytest.raises(InvalidValueError) as raised:
        settings.get(name)
    text = str(raised.value)
    assert f"wkdask.{name} is {value!r}" in text
    assert settings.SETTINGS[name].expected in text
    assert f"DASK_WKDASK__{name.upper().replace('-', '_')}" in text


def test_a_job_checks_the_settings_before_it_writes(make_mag, state_of):
    mag = make_mag()
    before = state_of(mag)
    wrong = dask.config.set({"wkdask.worker-timeout": "tomorrow"})  # no thread of this process would read it
    with wrong, pytest.raises(InvalidValueError, match=r"wkdask\.worker-timeout is 'tomorrow'"):
        mag.write(random_voxels((1, 40, 40, 40)))
    assert state_of(mag) == before


def test_a_name_that_nobody_reads_is_told_once():
    with dask.config.set({"wkdask.lock-timout": 3, "wkdask.colour": "red"}):
        with pytest.warns(WkdaskWarning) as told:
            settings.check()
        settings.check()
    texts = sorted(str(warning.message) for warning in told)
    assert texts[0].startswith("unknown setting wkdask.colour; there are lock-timeout, ")
    assert texts[1] == "unknown setting wkdask.lock-timout; did you mean wkdask.lock-timeout?"


def test_wkdask_itself_is_no_value():
    with dask.config.set({"wkdask": 5}), pytest.raises(InvalidValueError, match="settings by name"):
        settings.check()


def test_the_environment_and_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("wkdask:\n  lock-timeout: 1h\n  check-space: no\n")
    script = "import wkdask; from wkdask.settings import *; print(*map(get, SETTINGS))"
    env = {"DASK_CONFIG": str(tmp_path), "DASK_WKDASK__PROGRESS_INTERVAL": "1"}
    env |= {"DASK_WKDASK__WORKER_TIMEOUT": "none", "DASK_WKDASK__THUMBNAILS": "0"}
    assert (
        in_another_process(script, **env)
        == "3600.0 False None 1.0 False 0.5 None 1 False False 60.0 6 5.0 8 shards"
    )


def test_dask_knows_the_defaults_once_a_name_of_the_package_is_used():
    script = (
        "from wkdask import Dataset; import dask; dask.config.refresh(); "
        "print(dask.config.get('wkdask.check-space'))"
    )
    assert in_another_process(script) == "True"
    script = (
        "import dask; dask.config.set({'wkdask.check-space': False}); "
        "from wkdask import settings; print(settings.get('check-space'))"
    )
    assert in_another_process(script) == "False"
