"""How many modules lie between a call and the file that it changes: on the stacks when the file gets its name."""

import os
import sys
import threading

import dask.array as da
import numpy as np
import pytest
import tifffile

from wkdask import Dataset

VOXELS = np.random.default_rng(0).integers(1, 200, (64, 64, 64), "uint8")


def modules_on(thread):
    """Yield the modules of the package on the stack of a thread."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("wkdask."):
            yield name.removeprefix("wkdask.")
        frame = frame.f_back


@pytest.fixture
def ways(monkeypatch):
    """Return what fills while calls run: the modules on the way to a cube, and to the properties file."""
    found = {"cube": set(), "properties": set()}

    def watched(function):
        def call(*paths, **options):
            names = [os.fspath(path) for path in paths if isinstance(path, str | os.PathLike)]
            kind = "properties" if any("datasource-properties" in name for name in names) else "cube"
            if kind == "properties" or any(name.endswith(".wkw") and "header" not in name for name in names):
                caller = threading.main_thread().ident
                found[kind] |= {*modules_on(threading.get_ident()), *modules_on(caller)}
            return function(*paths, **options)

        return call

    for name in ("rename", "replace", "link"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    return found


def test_from_a_write_to_the_cube_and_the_properties(tmp_path, ways):
    mag = Dataset.create(tmp_path / "ds", (4, 4, 4)).add_layer("color", "color").add_mag(1, shard_shape=32)
    ways["properties"].clear()
    mag.write(da.from_array(VOXELS, chunks=32), progress=False)
    assert {"view.box_view", "operations.write", "jobs.driver", "jobs.tasks"} <= ways["cube"]
    assert len(ways["cube"]) <= 14
    assert {"jobs.driver", "jobs.settlement", "properties.commit"} <= ways["properties"]
    # from the report of a task: `box_view` and `write` only wait
    assert len(ways["properties"] - {"view.box_view", "operations.write"}) <= 6


def test_from_downsample_to_the_cube(tmp_path, ways):
    layer = Dataset.create(tmp_path / "ds", (4, 4, 4)).add_layer("color", "color")
    layer.add_mag(1, shard_shape=32).write(VOXELS, progress=False)
    ways["cube"].clear()
    layer.downsample(coarsest_mag=4, progress=False)
    assert {"layer.sampling", "pyramid.job", "pyramid.tasks"} <= ways["cube"]
    assert len(ways["cube"]) <= 14


def test_from_the_command_convert_to_the_cube(tmp_path, ways, invoke):
    (tmp_path / "in").mkdir()
    for z in range(8):
        tifffile.imwrite(tmp_path / "in" / f"{z}.tif", VOXELS[z])
    invoke("convert", tmp_path / "in", tmp_path / "ds", "--voxel-size", "4,4,4")
    assert {"cli.convert", "convert.images", "jobs.driver"} <= ways["cube"]
    assert len(ways["cube"]) <= 14
