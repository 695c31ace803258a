"""Damaged datasets: each fault is found under its code, and nothing else is; a repair mends what it can."""

import contextlib
import json
import os
import shutil
import warnings

import numpy as np
import pytest
import wkw
import zarr
from damage import FAULTS, FORMATS, OFFSET, SIZE, sound_dataset

from wkdask.check.repair import mend, plan_repairs
from wkdask.check.run import check_dataset
from wkdask.jobs.job import WriteOptions


def often(fault, kind):
    """Tell whether a fault is tried in a format every day: each in one, every format by some."""
    return kind == fault.formats[FAULTS.index(fault) % len(fault.formats)]


def cases(faults):
    """Return faults in each of their formats, for `parametrize`."""
    return [
        pytest.param(
            (fault, kind), id=f"{fault.name}-{kind}", marks=[] if often(fault, kind) else [pytest.mark.slow]
        )
        for fault in faults
        for kind in fault.formats
    ]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Return the folders of sound datasets, by format."""
    home = tmp_path_factory.mktemp("sound")
    for kind in FORMATS:
        sound_dataset(home / kind, kind)
    return home


@pytest.fixture
def damaged(sound, tmp_path, request):
    """Return the folder of a dataset with a fault; what a mode hides can be removed afterwards."""
    fault, kind = request.param
    folder = tmp_path / "dataset"
    shutil.copytree(sound / kind, folder)
    fault.damage(folder)
    yield fault, kind, folder
    for home, folders, _ in os.walk(os.fsencode(folder)):
        for name in folders:
            with contextlib.suppress(OSError):
                os.chmod(os.path.join(home, name), 0o700)


def codes(report):
    """Return the codes of errors and warnings."""
    return {each.code for each in report if each.severity != "info"}


def all_files(folder):
    """Return every file with its bytes and time."""
    found = {}
    for home, _, files in os.walk(os.fsencode(folder)):
        for name in files:
            path = os.path.join(home, name)
            info = os.lstat(path)
            found[path] = (info.st_mtime_ns, info.st_size, info.st_mode)
    return found


def voxels(folder, kind, name):
    """Return the voxels of mag 1 as the library of the format reads them."""
    high = [a + b for a, b in zip(OFFSET, SIZE, strict=True)]
    if kind.startswith("wkw"):
        with contextlib.closing(wkw.Dataset.open(str(folder / name / "1"))) as mag:
            return mag.read(OFFSET, SIZE)
    array = zarr.open_array(str(folder / name / "1"), mode="r")
    return array[(slice(None), *(slice(a, b) for a, b in zip(OFFSET, high, strict=True)))]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_sound_dataset_is_clean(sound, kind):
    before = all_files(sound / kind)
    for report in (
        check_dataset(sound / kind),
        check_dataset(sound / kind, deep=True),
        check_dataset(sound / kind, metadata_only=True),
    ):
        assert report.findings == ()
        assert report.is_clean
    assert all_files(sound / kind) == before


@pytest.mark.parametrize("damaged", cases(FAULTS), indirect=True)
def test_each_fault_is_found_and_nothing_else(damaged):
    fault, _, folder = damaged
    before = all_files(folder)
    assert codes(check_dataset(folder)) == fault.codes
    report = check_dataset(folder, deep=True)
    assert codes(report) == fault.codes | fault.deep
    assert all_files(folder) == before  # a check changes nothing
    assert json.loads(json.dumps(report.to_json()))["clean"] is False
    assert str(report).encode().decode()


@pytest.mark.parametrize("damaged", cases(fault for fault in FAULTS if fault.repaired), indirect=True)
def test_a_repair_leaves_nothing_to_be_found_and_no_voxel_changed(damaged):
    _, kind, folder = damaged
    before = {name: voxels(folder, kind, name) for name in ("color", "cells")}
    options = WriteOptions()

    def check():
        return check_dataset(folder, deep=True)

    report, done = mend(check(), check, options, lambda repairs: True)
    assert codes(report) == set()
    assert done
    assert plan_repairs(report) == []
    for name, block in before.items():
        assert np.array_equal(voxels(folder, kind, name), block)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert codes(check_dataset(folder)) == set()


UNMENDED = [(fault, fault.formats[0]) for fault in FAULTS if not fault.repaired]


@pytest.mark.parametrize("damaged", UNMENDED, indirect=True, ids=[f.name for f, _ in UNMENDED])
def test_what_could_lose_a_voxel_is_left_alone(damaged):
    fault, _, folder = damaged
    files = {
        path: facts for path, facts in all_files(folder).items() if path.endswith(b".wkw") or b"/c/" in path
    }

    def check():
        return check_dataset(folder)

    report, _ = mend(check(), check, WriteOptions(), lambda repairs: True)
    assert codes(report) >= fault.codes - {"leftover", "segment-id-missing"}
    after = all_files(folder)
    assert {path: after[path] for path in files} == files
