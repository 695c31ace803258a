"""The command ``wkdask check``: what it prints, its exit codes, what it asks."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import dask
import pytest
from click.testing import CliRunner
from damage import cubes, edit, layer, segment_id_too_small, sound_dataset
from repository import ROOT

import wkdask
from wkdask.check.rules import RULES, SEVERITIES
from wkdask.cli import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return the working folder, which holds a sound dataset."""
    monkeypatch.chdir(tmp_path)
    sound_dataset(tmp_path / "ds", "zarr3")
    return tmp_path


def run(line, code=0, **more):
    """Run a command line."""
    done = CliRunner().invoke(main, shlex.split(line), **more)
    assert done.exit_code == code, (done.output, done.exception)
    return done


def test_a_clean_dataset_ends_with_0(here):
    assert run("check ds -q").stdout == f"{here}/ds: clean (2 layers, 6 mags, 12 cube files)\n"
    facts = json.loads(run("check ds --json -q --deep").stdout)
    assert facts["findings"] == facts["repaired"] == []
    assert (facts["clean"], facts["cubes"], facts["layers"]) == (True, 12, 2)
    assert facts["bytes"] > 0


def test_a_finding_ends_with_2_and_says_what_where_and_what_to_do(here):
    path = cubes(here / "ds")[0]
    os.truncate(path, 3)
    text = run("check ds -q", code=2).stdout
    assert f"error: cube-damaged: {path}: " in text
    assert RULES["cube-damaged"].remedy in text
    (found,) = json.loads(run("check ds -q --json", code=2).stdout)["findings"]
    assert (found["code"], found["path"], found["layer"], found["mag"]) == (
        "cube-damaged",
        str(path),
        "color",
        "1",
    )
    assert run("check ds -q --layer cells").stdout  # of another layer it is not
    assert run("check ds -q --metadata-only").stdout


def test_infos_alone_end_with_0(here):
    for path in cubes(here / "ds", mag="4"):
        path.unlink()
    report = json.loads(run("check ds -q --json").stdout)
    assert {each["severity"] for each in report["findings"]} == {"info"}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("check", "Usage: wkdask check"),
        ("check nothere", "there is no folder"),
        ("check ds/color", "no dataset in the folder"),
        ("check ds/datasource-properties.json", "is no folder"),
        ("check ds --deeep", "--deep"),
        ("check ds --metadata-only --deep", "give one of them"),
        ("check ds --sample 3", "--deep"),
        ("check ds --deep --sample 0", "x>=1"),
        ("check ds --yes", "--repair"),
        ("check ds --layer colr", "'color'"),
    ],
)
def test_a_check_that_could_not_run_ends_with_1_and_one_line(here, line, text):
    done = run(line, code=1)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert text in done.stderr


def test_a_repair_is_printed_first_and_done_only_if_somebody_agrees(here):
    segment_id_too_small(here / "ds")
    before = (here / "ds" / "datasource-properties.json").read_bytes()
    done = run("check ds --deep --repair --progress none", code=2)  # nobody can be asked
    assert "raise the largest segment id of layer 'cells' to 900" in done.stderr
    assert "Nothing was changed: --yes" in done.stderr
    assert (here / "ds" / "datasource-properties.json").read_bytes() == before
    facts = json.loads(run("check ds --deep --repair --yes --json -q").stdout)
    assert facts["clean"]
    assert facts["repaired"] == ["raise the largest segment id of layer 'cells' to 900"]
    assert wkdask.Dataset("ds").get_layer("cells").largest_segment_id == 900


def test_where_nothing_can_be_mended_nobody_is_asked(here):
    os.truncate(cubes(here / "ds")[0], 3)
    done = run("check ds --repair --progress none", code=2)
    assert "To repair it" not in done.stderr


def test_a_property_file_that_is_damaged_is_a_finding(here):
    (here / "ds" / "datasource-properties.json").write_text("{")
    assert "properties-damaged" in run("check ds", code=2).stdout


def test_nan_and_bytes_that_are_no_text_are_printed(here):
    os.close(os.open(os.fsencode(here / "ds/color/1") + b"/k\xe9", os.O_CREAT))
    edit(here / "ds", lambda raw: layer(raw)["boundingBox"].update(width=float("nan")))
    text = run("check ds", code=2).stdout
    assert "k\\udce9" in text
    assert "box-invalid" in text
    assert json.loads(run("check ds --json -q", code=2).stdout)["clean"] is False


def test_ctrl_c_leaves_nothing_behind(here):
    def entries():
        return sorted(str(path) for path in (here / "ds").rglob("*"))

    before = entries()
    script = (
        "import os, signal\n"
        "from wkdask.check import cubes\n"
        "def stop(*_): os.kill(os.getpid(), signal.SIGINT)\n"
        "cubes.scan_cubes = stop\n"
        "from wkdask.cli import main\n"
        "main(['check', 'ds', '--progress', 'none'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=here,
        env={**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}, timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert entries() == before


def test_on_workers_it_finds_the_same(here, client):
    os.truncate(cubes(here / "ds")[0], 3)
    line = "check ds -q --deep --json"
    with dask.config.set(scheduler="threads"):  # not on the client that is active
        here_found = json.loads(run(line, code=2).stdout)["findings"]
    address = client.scheduler.address
    there_found = json.loads(run(f"{line} --scheduler {address}", code=2).stdout)["findings"]
    assert here_found == there_found
    assert [each["code"] for each in here_found] == ["cube-damaged"]


def test_the_page_has_every_code_with_its_severity():
    page = (ROOT / "docs" / "howto" / "check.md").read_text()
    for code, rule in RULES.items():
        source = f" ({rule.source})" if rule.source else ""
        assert f"| `{code}` | {rule.severity} | {rule.meaning}{source} | {rule.remedy} |" in page
        assert rule.severity in SEVERITIES
