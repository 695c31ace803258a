"""Cubes that no worker can hold: assembled part by part, published by tasks that never have them in memory."""

import os

import dask.array as da
import numpy as np
import pytest

from wkdask import BoundingBox
from wkdask.errors import PlanError
from wkdask.jobs.events import UnitDone
from wkdask.jobs.plan import BESIDE_NBYTES

GIB = 1 << 30


def coordinates(box):
    """Return voxels that tell where they are: ``x + 2048 y + 4194304 z``, absolute, uint64."""
    spans = zip(box.topleft, box.bottomright, strict=True)
    x, y, z = np.ogrid[tuple(slice(low, high) for low, high in spans)]
    return np.asfortranarray((x + 2048 * y + 4194304 * z).astype("uint64")[None])


def located(divisor):
    """Return a function for map_blocks that makes `coordinates`, divided."""

    def make(block_info=None):
        import numpy as np

        _, *spans = block_info[None]["array-location"]
        sides = np.ogrid[tuple(slice(low, high) for low, high in spans)]
        x, y, z = (side.astype("uint64") for side in sides)
        block = np.empty((1, x.size, y.size, z.size), "uint64", order="F")  # and nothing beside it
        np.add(x, np.uint64(2048) * y, out=block[0])
        block += np.uint64(4194304) * z
        block //= np.uint64(divisor)
        return block

    return make


def array_of(shape, block, divisor=1):
    chunks = ((1,), *((block,) * (side // block) for side in shape))
    return da.map_blocks(located(divisor), chunks=chunks, dtype="uint64", meta=np.empty((0,) * 4, "uint64"))


def memory_probes():
    """Return two functions for workers, which cannot import this module: one resets what the other returns."""

    def high_water():
        """Return the most bytes that this process has had in memory."""
        import re

        with open("/proc/self/status") as file:
            return int(re.search(r"VmHWM:\s+(\d+)", file.read())[1]) << 10

    def reset():
        """Load what every task loads, then forget how much memory this process has had."""
        import numpy as np

        from wkdask.kernels import block_stats, is_zero, to_fortran

        small = np.ones((1, 32, 32, 32), "uint64", order="F")
        block_stats(small), is_zero(small), to_fortran(small)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")

    return reset, high_water


# --- small cubes, little memory --------------------------------------------------------------------------


@pytest.fixture
def little_memory(monkeypatch):
    """Local threads with so much memory that a cube of 64³ of uint64 (2 MiB) does not fit."""
    from wkdask.jobs.engines.local import LocalEngine

    monkeypatch.setattr(LocalEngine, "task_memory", lambda self: 1 << 20)


@pytest.mark.parametrize("compression", [None, "lz4hc"])
def test_cubes_in_parts(make_mag, little_memory, compression):
    mag = make_mag("uint64", cube=64, compression=compression)
    box = BoundingBox((5, 70, 64), (128, 64, 90))
    expected = coordinates(BoundingBox((0, 0, 0), box.size)) + np.uint64(1)
    x = da.from_array(expected, chunks=(1, 16, 16, 16))
    planned = mag.plan_write(x, bounding_box=box)
    assert planned.plan.part is not None
    assert planned.plan.task_nbytes - BESIDE_NBYTES <= 1 << 20
    assert "assemble cubes from parts" in repr(planned)
    events = []
    report = mag.write(x, bounding_box=box, progress=events.append)
    assert np.array_equal(mag.read(), expected)
    assert report.cubes == planned.plan.num_cubes == 3 * 2 * 2
    assert (report.minimum, report.maximum) == (expected.min(), expected.max())
    assert report.bytes == expected.nbytes
    assert sum(isinstance(event, UnitDone) for event in events) == events[0].units
    # other voxels of cubes that exist stay
    inner = BoundingBox((30, 80, 70), (50, 40, 60))
    more = coordinates(BoundingBox((0, 0, 0), inner.size)) * np.uint64(3)
    mag.write(da.from_array(more, chunks=(1, 15, 20, 13)), bounding_box=inner)
    expected[(slice(None), *inner.to_slices(box.topleft))] = more
    assert np.array_equal(mag.read(), expected)
    assert {*os.listdir(f"{mag.path}/.wkdask")} <= {"locks", "finished"}


@pytest.mark.parametrize("compression", [None, "lz4", "lz4hc"])
def test_cubes_in_parts_in_place(make_mag, little_memory, compression):
    mag = make_mag("uint64", cube=64, compression=compression)
    voxels = coordinates(BoundingBox((0, 0, 0), (100, 64, 64)))
    mag.write(voxels)
    mag.write(7 + 2 * mag.to_dask(16))
    assert np.array_equal(mag.read(), 7 + 2 * voxels)


def test_a_chunk_that_does_not_fit_is_refused(make_mag, little_memory):
    mag = make_mag("uint64", cube=128, chunk=64)
    with pytest.raises(PlanError, match="smaller shard_shape"):
        mag.write(array_of((128, 128, 128), 64))
    assert not os.path.exists(f"{mag.path}/.wkdask")


# --- a cube of 8 GiB, workers of 2 GiB -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("compression", "divisor"), [(None, 1), ("lz4", 4096)])
def test_a_cube_of_8_gib_by_workers_of_2_gib(make_mag, compression, divisor):
    from distributed import Client, LocalCluster

    mag = make_mag("uint64", cube=1024, chunk=32, compression=compression)
    x = array_of((1024,) * 3, 256, divisor)
    assert x.nbytes == 8 * GIB
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit="2GiB", dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        client.wait_for_workers(2, timeout=60)
        reset, high_water = memory_probes()
        client.run(reset)
        idle = client.run(high_water)
        planned = mag.plan_write(x).plan
        report = mag.write(x)
        peaks = client.run(high_water)
    assert {*idle} == {*peaks}, "no worker was lost"
    over = [peaks[worker] - idle[worker] for worker in idle]
    print(
        "over idle:", [f"{value / GIB:.2f} GiB" for value in over], f"planned {planned.task_nbytes / GIB:.2f}"
    )
    assert max(over) <= planned.task_nbytes < 2 * GIB
    assert report.cubes == 1
    assert report.bytes == 8 * GIB
    assert report.maximum == (1023 * (1 + 2048 + 4194304)) // divisor
    rng = np.random.default_rng(0)
    for corner in [(0, 0, 0), (960, 960, 960), *rng.integers(0, 960, (20, 3))]:
        box = BoundingBox(corner, (64, 64, 64))
        assert np.array_equal(mag.read(box.topleft, box.size), coordinates(box) // np.uint64(divisor))
