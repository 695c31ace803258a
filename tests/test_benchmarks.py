"""The benchmarks: a row runs, is kept and goes on; what differs is no result."""

import json
import subprocess
import sys

import numpy as np
import pytest
from repository import ROOT

from benchmarks.__main__ import all_rows, chosen_rows
from benchmarks.contest import Bench, Contest, Row, Side, run_contest
from benchmarks.data import Volumes, shape_for, tiled_labels
from benchmarks.results import table
from benchmarks.rows_io import equal


def bench_in(folder):
    return Bench(Volumes(folder, 16, None), folder, None)


def test_rows_have_names_of_their_own():
    names = [row.name for row in all_rows()]
    assert len(set(names)) == len(names)
    assert {row.name for row in chosen_rows("pyramid-bare,import")} == {
        "import",
        "pyramid-bare-images",
        "pyramid-bare-labels",
    }
    with pytest.raises(SystemExit, match="no row begins with nothing"):
        chosen_rows("nothing")


@pytest.mark.parametrize(("mib", "itemsize"), [(16, 1), (64, 4), (256, 1), (1024, 1), (1024, 4)])
def test_volumes_are_whole_cubes(mib, itemsize):
    shape = shape_for(mib, itemsize)
    assert all(n % 256 == 0 for n in shape)
    assert np.prod(shape) * itemsize == mib << 20


def test_a_contest_is_interleaved_and_ours_over_theirs(tmp_path):
    calls = []
    seconds = {"ours": [9.0, 1.0, 2.0, 4.0], "theirs": [9.0, 2.0, 2.0, 2.0], "others": [9.0, 4.0, 8.0, 8.0]}

    def side(name, **options):
        def run():
            calls.append(name)
            return seconds[name].pop(0)

        return Side(name, run, lambda: calls.append(f"prepare {name}"), **options)

    def check():
        calls.append("check")
        return "equal"

    contest = Contest(1 << 20, [side("ours"), side("theirs"), side("others", is_peer=True)], check, rounds=3)
    row = Row("name", "work", 2.0, lambda _: contest)
    result = run_contest(row, bench_in(tmp_path), lambda _: None)
    assert result["ratios"] == {"theirs": [2.0, 1.0, 0.5], "others": [4.0, 4.0, 2.0]}
    assert result["speeds"]["ours"] == [2**20, 2**19, 2**18]
    names = ["ours", "theirs", "others"]
    forth, back = (
        [call for name in order for call in (f"prepare {name}", name)] for order in (names, names[::-1])
    )
    assert calls == [*forth, "check", *forth, *back, *forth]
    page = table([result, {"work": "other", "wanted": None, "failed": "it broke"}], "command", {"peer": "1"})
    assert (
        "| work | theirs | 1.00 (0.50 to 2.00) | 2.00 | **no** | ours 1, theirs 1, others 0 | equal |" in page
    )
    assert "|  | others | 4.00 (2.00 to 4.00) | 2.00 | yes |  |  |" in page
    assert "| other | | |  | failed | | it broke |" in page


def test_what_differs_is_no_result(tmp_path):
    def check():
        equal(np.zeros((1, 2, 2, 2)), np.eye(8).reshape(8, 8)[:1].reshape(1, 2, 2, 2))
        return "equal"

    contest = Contest(1, [Side("ours", lambda: 1.0), Side("theirs", lambda: 1.0)], check)
    with pytest.raises(AssertionError, match="1 voxels differ"):
        run_contest(Row("name", "work", None, lambda _: contest), bench_in(tmp_path), lambda _: None)


@pytest.mark.slow
def test_labels_are_the_same_whatever_they_are_made_with():
    labels = tiled_labels(64)
    assert labels.shape == (1, 256, 256, 256)
    assert labels.flags.f_contiguous
    assert labels.dtype == np.uint32
    assert len(np.unique(labels[..., ::32])) > 20


@pytest.mark.slow
def test_a_row_runs_in_a_process_and_is_kept(tmp_path):
    page = tmp_path / "RESULTS.md"
    command = [sys.executable, "-m", "benchmarks", "--only", "read-array-images-raw", "--mib", "16"]
    command += ["--rounds", "1", "--folder", str(tmp_path / "work"), "--results", str(page)]
    command += ["--stack", str(tmp_path / "none")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the array is the volume" in done.stdout
    (kept,) = (tmp_path / "work" / "results-16").glob("read-array*.json")
    result = json.loads(kept.read_text())
    assert set(result["speeds"]) == {
        "wkdask",
        "bare wkw loop, nothing kept",
        "bare wkw loop into one array",
    }
    assert result["work"] in page.read_text()
    assert not (tmp_path / "work" / "scratch").exists()
    result["checked"] = "kept from the first run"
    kept.write_text(json.dumps(result))
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "read-array" not in again.stdout
    assert "kept from the first run" in page.read_text()
