"""Conversions keep to the memory that they plan, whatever the images hold together."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

import wkdask

MIB = 1 << 20
SIDE, DEPTH = 2048, 96  # 384 MiB
SHARE = 32 * MIB
BESIDE = 48 * MIB  # what a process loads beside its voxels, as the plan of cubes in parts counts it

CHILD = """
import sys
import dask
from wkdask.convert import images
from wkdask.convert import zarr as zarr_layers
from wkdask.jobs.engines.local import LocalEngine

share, kind, source, warm, target = int(sys.argv[1]), *sys.argv[2:]
LocalEngine.task_memory = lambda self: share

def run(path, target):
    if kind == "images":
        images.convert_images(path, target, voxel_size=(1, 1, 1), shard_shape=256, progress=False, durable=False)
    else:
        zarr_layers.convert_zarr(path, target, voxel_size=(1, 1, 1), axes="zyx", shard_shape=256, progress=False,
                                 durable=False)

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) * 1024

with dask.config.set(num_workers=2):
    run(warm, target + "-warm")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    idle = status("VmRSS")
    run(source, target)
    print(status("VmHWM") - idle)
"""


def volume(depth):
    """Sections that compress a little, each another."""
    rng = np.random.default_rng(1)
    base = rng.integers(0, 200, (SIDE, SIDE), "uint8")
    for z in range(depth):
        yield np.roll(base, z, 0) + np.uint8(z % 50)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "zarr"])
def test_two_tasks_take_their_shares(tmp_path, kind):
    for name, depth in (("warm", 32), ("all", DEPTH)):
        if kind == "images":
            (tmp_path / name).mkdir()
            for z, section in enumerate(volume(depth)):
                tifffile.imwrite(tmp_path / name / f"{z}.tif", section, compression="zlib")
        else:
            array = zarr.create_array(
                tmp_path / name, shape=(depth, SIDE, SIDE), chunks=(1, 512, 512), dtype="uint8"
            )
            for z, section in enumerate(volume(depth)):
                array[z] = section
    env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}
    done = subprocess.run(
        [
            sys.executable, "-W", "ignore", "-c", CHILD, str(SHARE), kind, tmp_path / "all", tmp_path / "warm",
            tmp_path / "ds",
        ],
        env=env, capture_output=True, text=True, check=True, timeout=280,
    )  # fmt: skip
    assert int(done.stdout) <= 2 * SHARE + BESIDE < SIDE * SIDE * DEPTH // 2
    found = wkdask.Dataset(tmp_path / "ds").get_layer("color").get_mag(1)
    for z, section in enumerate(volume(DEPTH)):
        if z % 13 == 0:
            np.testing.assert_array_equal(
                found.read(offset=(0, 0, z), size=(SIDE, SIDE, 1))[0, ..., 0].T, section
            )
    print(kind, int(done.stdout) / MIB, "MiB of", (2 * SHARE + BESIDE) / MIB)
