"""Writes that compute their pyramid: the voxels of a write and a downsampling, whatever stops them."""

import itertools
import os
import signal
import subprocess
import sys
import tempfile

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyramid_oracle import oracle

from wkdask import BoundingBox, Dataset, Mag, Vec3Int
from wkdask.errors import AlreadyExistsError, PlanError, ResumeError, TaskFailedError, WkdaskWarning
from wkdask.geometry.grid import chunks_on_grid
from wkdask.jobs.engines.choice import LocalEngine
from wkdask.jobs.events import JobStarted, UnitDone
from wkdask.properties import PROPERTIES_FILE
from wkdask.storage.publish.jobs import unfinished_jobs

META = np.empty((0,) * 4, "uint8")


class Events(list):
    """Collects events; given as `progress=`."""

    def __call__(self, event):
        self.append(event)

    @property
    def jobs(self):
        return [event.action for event in self if isinstance(event, JobStarted)]

    @property
    def done(self):
        return [event.report for event in self if isinstance(event, UnitDone)]


def new_layer(folder, mags=(1, 2, 4, 8), cubes=(32,), dtype="uint8", channels=1, compression=None, **options):
    category = options.pop("category", "color")
    layer = Dataset.create(folder, options.pop("voxel_size", (1, 1, 1))).add_layer(
        "layer", category, dtype_per_channel=dtype, num_channels=channels
    )
    for mag, cube in zip(mags, itertools.cycle(cubes), strict=False):
        layer.add_mag(mag, chunk_shape=16, shard_shape=cube, compression=compression)
    return layer


def all_of(layer):
    """Return box, largest id, and all voxels of each mag, with those around the layer's box."""
    reach = layer.bounding_box.bottomright + 40
    voxels = {
        mag: layer.get_mag(mag).place.store.read(BoundingBox((0, 0, 0), reach.ceildiv(mag.to_vec3_int())))
        for mag in layer.mags
    }
    return layer.bounding_box, layer.record.largest_segment_id, voxels


def check_same(layer, expected):
    box, largest, voxels = all_of(layer)
    assert (box, largest) == expected[:2]
    assert list(voxels) == list(expected[2])
    for mag, found in voxels.items():
        assert np.array_equal(found, expected[2][mag]), mag


def check_pyramid(layer, voxels, corner, mode="median"):
    mags = sorted(layer.mags)
    for finer, mag in itertools.pairwise(mags):
        factors = tuple(mag.to_vec3_int() // finer.to_vec3_int())
        voxels, corner = oracle(voxels, corner, factors, mode)
        view = layer.get_mag(mag)
        assert view.box == BoundingBox(corner, voxels.shape[1:])
        assert np.array_equal(view.read(), voxels), mag


def in_memory(voxels, chunks):
    """Return a dask array without tasks that blocks could have in common."""
    return da.from_array(voxels, chunks=(len(voxels), *chunks))


# --- the voxels ---------------------------------------------------------------------------------------------

SIDES = st.tuples(*[st.integers(1, 50)] * 3)
CORNERS = st.tuples(*[st.integers(0, 37)] * 3)


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_the_voxels_are_those_of_a_write_and_a_downsampling(data):
    """Two writes, one beside or over the other, off all grids: what was there stays, what is stale is redone."""
    draw = data.draw
    dtype, channels = draw(
        st.sampled_from([("uint8", 1), ("uint8", 3), ("uint16", 1), ("float32", 2), ("uint64", 1)])
    )
    mags = draw(st.sampled_from([(1, 2, 4, 8), (1, "2-2-1", "4-4-2"), (2, 4), (1, 2, 8)]))
    cubes = draw(st.lists(st.sampled_from([16, 32, 64]), min_size=1, max_size=4))
    options = {
        "mags": mags,
        "cubes": cubes,
        "dtype": dtype,
        "channels": channels,
        "compression": draw(st.sampled_from([None, "lz4"])),
        "category": "segmentation" if dtype == "uint64" else "color",
    }
    finest = Mag(mags[0])
    with tempfile.TemporaryDirectory() as folder:
        plain, fused = (new_layer(f"{folder}/{name}", **options) for name in ("plain", "fused"))
        for number in range(2):
            size, corner = draw(SIDES), draw(CORNERS)
            voxels = np.random.default_rng(number).integers(0, 200, (channels, *size)).astype(dtype)
            voxels[:, : draw(st.integers(0, size[0]))] = 0
            before = plain.bounding_box
            report = plain.get_mag(finest).write(voxels, offset=corner, durable=False)
            plain.redownsample(
                boxes=[report.bounding_box], previous_box=None if before.is_empty() else before
            )
            on_grid = chunks_on_grid(BoundingBox(corner, size), Vec3Int.full(cubes[0]))
            chunks = draw(st.sampled_from([None, on_grid, (40, 30, 20)]))
            array = voxels if chunks is None else in_memory(voxels, chunks)
            events = Events()
            found = fused.get_mag(finest).write(
                array, offset=corner, pyramid=True, durable=False, progress=events
            )
            if chunks in (None, on_grid):
                assert events.jobs == ["writing"]
            else:  # as it comes
                assert events.jobs in (["writing"], ["writing", "downsampling"])
            units = sum(event.units for event in events if isinstance(event, JobStarted))
            assert len(events.done) == units
            assert (found.bounding_box, found.cubes, found.bytes) == (
                report.bounding_box, report.cubes, report.bytes,
            )  # fmt: skip
            assert (found.minimum, found.maximum) == (report.minimum, report.maximum)
            check_same(fused, all_of(plain))


def test_mag_1_is_not_read(tmp_path, monkeypatch):
    layer = new_layer(tmp_path / "ds")
    mag, read = layer.get_mag(1), []
    store = type(mag.place.store)
    original = store.read

    def noted(self, box, threads=1):
        read.append((self.path, box))
        return original(self, box, threads)

    monkeypatch.setattr(store, "read", noted)
    voxels = np.random.default_rng(5).integers(1, 200, (1, 128, 96, 64)).astype("uint8")
    x = in_memory(voxels, (32, 32, 32)).map_blocks(np.array, meta=META)
    events = Events()
    mag.write(x, offset=(32, 0, 64), pyramid=True, progress=events)
    assert events.jobs == ["writing"]
    assert read == []
    check_pyramid(layer, voxels, (32, 0, 64))
    read.clear()
    mag.write(x[:, :60], offset=(32, 0, 64), pyramid=True)  # ends in a cube: what follows there is read
    assert {path for path, _ in read} == {mag.place.store.path}
    assert sum(box.volume() for _, box in read) <= 32 * 96 * 64  # one layer of units
    check_pyramid(layer, voxels, (32, 0, 64))


@pytest.mark.slow
def test_mags_that_are_not_there_are_added_and_all_of_the_layer_is_computed(tmp_path):
    layer = new_layer(tmp_path / "ds", mags=[1], compression="lz4")
    voxels = np.random.default_rng(5).integers(1, 200, (1, 150, 130, 70)).astype("uint8")
    layer.get_mag(1).write(voxels[:, :70])
    report = layer.get_mag(1).write(in_memory(voxels[:, 70:], (50, 50, 50)), offset=(70, 0, 0), pyramid=True)
    assert [str(mag) for mag in layer.mags] == ["1", "2", "4"]
    assert layer.get_mag(2).spec.compression == "lz4"
    check_pyramid(layer, voxels, (0, 0, 0))
    coarser, _ = report.others
    assert (coarser.label, coarser.bytes) == (
        "layer 'layer' mag 2",
        75 * 65 * 35,
    )  # all of it, not what was written


# --- after the write, where it cannot be at once --------------------------------------------------------------


def written_after(layer, array, voxels, corner=(0, 0, 0)):
    events = Events()
    report = layer.get_mag(1).write(array, offset=corner, pyramid=True, progress=events)
    assert events.jobs == ["writing"]
    assert [str(other.label).split()[-1] for other in report.others] == [str(m) for m in list(layer.mags)[1:]]
    assert np.array_equal(layer.get_mag(1).read(), voxels)
    check_pyramid(layer, voxels, corner)


def test_an_array_that_reads_what_it_is_written_to(tmp_path):
    layer = new_layer(tmp_path / "ds")
    voxels = np.random.default_rng(5).integers(1, 200, (1, 90, 70, 61)).astype("uint8")
    layer.get_mag(1).write(voxels)
    written_after(layer, 255 - layer.get_mag(1).to_dask(), 255 - voxels)


def test_blocks_across_the_borders_of_units(tmp_path):
    layer = new_layer(tmp_path / "ds")
    voxels = np.random.default_rng(5).integers(1, 200, (1, 90, 70, 61)).astype("uint8")
    written_after(layer, in_memory(voxels, (50, 50, 50)) + np.uint8(1), voxels + 1)


def test_a_first_step_that_looks_into_other_units(tmp_path):
    layer = new_layer(tmp_path / "ds", mags=(1, 4, 8))
    voxels = np.random.default_rng(5).integers(1, 200, (1, 90, 70, 61)).astype("uint8")
    written_after(layer, in_memory(voxels, (32, 32, 32)), voxels)


@pytest.mark.slow
def test_cubes_in_parts(tmp_path, monkeypatch):
    layer = new_layer(tmp_path / "ds", cubes=[256])
    voxels = np.random.default_rng(5).integers(1, 200, (1, 256, 256, 256)).astype("uint8")
    voxels[:, 100:] = 0
    monkeypatch.setattr(LocalEngine, "task_memory", lambda self: 24 << 20)
    written_after(layer, in_memory(voxels, (256, 256, 32)), voxels)


def test_what_cannot_be_planned_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    layer = new_layer(tmp_path / "ds", mags=[1])
    layer.add_mag(2, chunk_shape=16, shard_shape=512, compression="lz4")
    monkeypatch.setattr(LocalEngine, "task_memory", lambda self: 1 << 20)
    before = (tmp_path / "ds" / PROPERTIES_FILE).read_text()
    with pytest.raises(PlanError, match="mag 2"):
        layer.get_mag(1).write(in_memory(np.ones((1, 64, 64, 64), "uint8"), (32, 32, 32)), pyramid=True)
    assert (tmp_path / "ds" / PROPERTIES_FILE).read_text() == before
    assert not layer.get_mag(1).place.store.read(BoundingBox((0, 0, 0), (64, 64, 64))).any()


# --- what stops it ----------------------------------------------------------------------------------------


class Failing:
    """Fails at a block as long as a file is there, notes the others; named by its arguments only."""

    __name__ = "failing"

    def __init__(self, place, folder):
        self.place, self.folder = place, str(folder)

    def __dask_tokenize__(self):
        return ("Failing", self.place, self.folder)

    def __call__(self, block, block_id=None):
        if block_id is None:
            return block
        if tuple(block_id[1:]) == self.place and os.path.exists(f"{self.folder}/flag"):
            raise ZeroDivisionError("not yet")
        with open(f"{self.folder}/calls", "a") as file:
            file.write(f"{block_id[1:]}\n")
        return block


@pytest.mark.parametrize("cubes", [(32,), (32, 64)], ids=["leaves with cubes of mag 2", "leaves without"])
def test_a_failed_job_goes_on_where_it_stopped(tmp_path, cubes):
    """Also where it made the mags itself, and grew the layer's box; halves come from what was published."""
    voxels = np.random.default_rng(5).integers(1, 200, (1, 160, 128, 96)).astype("uint8")
    layer = new_layer(tmp_path / "ds", mags=[1] if len(cubes) == 1 else (1, 2, 4), cubes=cubes)
    mag = layer.get_mag(1)
    mag.write(voxels[:, :7, :5, :3])
    (tmp_path / "flag").touch()
    x = in_memory(voxels, (32, 32, 32)).map_blocks(Failing((3, 2, 1), tmp_path), dtype="uint8", meta=META)
    events = Events()
    with pytest.raises(TaskFailedError, match="not yet"):
        mag.write(x, pyramid=True, in_place=False, progress=events)
    landed = [report for report in events.done if report.box is not None]
    assert landed
    assert (tmp_path / "calls").read_text().count("\n") >= len(landed)
    (ticket,) = unfinished_jobs(mag.place.store)
    assert ticket.layer_box == BoundingBox((0, 0, 0), (7, 5, 3))
    with pytest.raises(AlreadyExistsError, match="left mag 2"):
        layer.downsample()
    (tmp_path / "flag").unlink()
    (tmp_path / "calls").unlink()
    report = mag.write(x, pyramid=True, in_place=False, resume=True)
    computed = (tmp_path / "calls").read_text().split("\n")[:-1]
    units = {report.unit for report in landed}
    inside = {
        str(tuple(Vec3Int(index)))
        for unit in units
        for index in mag.spec.grid.cubes(unit.intersection(BoundingBox((0, 0, 0), (160, 128, 96))))
    }
    assert len(computed) == len(set(computed)) == 5 * 4 * 3 - len(inside)
    assert not inside & set(computed)
    assert report.bytes == voxels.nbytes
    assert np.array_equal(mag.read(), voxels)
    assert len(layer.mags) > 1
    check_pyramid(layer, voxels, (0, 0, 0))
    assert unfinished_jobs(mag.place.store) == []
    assert sorted(os.listdir(f"{mag.path}/.wkdask")) == ["finished", "locks"]


def test_another_job_is_not_taken_for_it(tmp_path):
    layer = new_layer(tmp_path / "ds")
    voxels = np.random.default_rng(5).integers(1, 200, (1, 96, 64, 64)).astype("uint8")
    (tmp_path / "flag").touch()
    x = in_memory(voxels, (32, 32, 32)).map_blocks(Failing((1, 1, 1), tmp_path), dtype="uint8", meta=META)
    with pytest.raises(TaskFailedError):
        layer.get_mag(1).write(x, pyramid=True)
    other = in_memory(voxels[:, ::-1], (32, 32, 32))
    with pytest.warns(WkdaskWarning, match="another one"):
        layer.get_mag(1).write(other, offset=(0, 0, 0), pyramid=True, resume=True)
    check_pyramid(layer, voxels[:, ::-1], (0, 0, 0))
    with pytest.raises(ResumeError, match="non-deterministic"):
        layer.get_mag(1).write(x.map_blocks(lambda b: b) + da.random.random(x.shape).astype("uint8"),
                               offset=(0, 0, 0), pyramid=True, resume=True)  # fmt: skip


def test_a_job_whose_border_is_none_any_more_begins_anew(tmp_path):
    layer = new_layer(tmp_path / "ds")
    voxels = np.random.default_rng(5).integers(1, 200, (1, 98, 61, 61)).astype("uint8")
    (tmp_path / "flag").touch()
    x = in_memory(voxels[:, :61], (32, 32, 32))
    x = x.map_blocks(Failing((1, 1, 1), tmp_path), dtype="uint8", meta=META)
    with pytest.raises(TaskFailedError):
        layer.get_mag(1).write(x, pyramid=True)
    (tmp_path / "flag").unlink()
    layer.get_mag(1).write(voxels[:, 61:], offset=(61, 0, 0), pyramid=True)
    with pytest.warns(WkdaskWarning, match="starts from its beginning"):
        layer.get_mag(1).write(x, offset=(0, 0, 0), pyramid=True, resume=True)
    check_pyramid(layer, voxels, (0, 0, 0))


WRITE = """
import sys, time
import dask.array as da, numpy as np
from wkdask import Dataset

class Slow:
    __name__ = "slow"

    def __dask_tokenize__(self):
        return ("Slow",)
    def __call__(self, block):
        time.sleep(float(sys.argv[2]))
        return block

voxels = np.random.default_rng(5).integers(1, 200, (1, 160, 128, 96)).astype("uint8")
x = da.from_array(voxels, chunks=(1, 32, 32, 32))
x = x.map_blocks(Slow(), dtype="uint8", meta=np.empty((0,) * 4, "uint8"))
def say(event):
    print(type(event).__name__, flush=True)
Dataset(sys.argv[1]).get_layer("layer").get_mag(1).write(
    x, offset=(0, 0, 0), pyramid=True, resume=True, progress=say
)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_job_is_resumed(tmp_path, kill):
    layer = new_layer(tmp_path / "ds", mags=(1, 2, 4), cubes=(32, 64))
    script = [sys.executable, "-c", WRITE, str(tmp_path / "ds")]
    with subprocess.Popen([*script, "0.1"], stdout=subprocess.PIPE, text=True) as process:
        while process.stdout.readline().strip() != "UnitDone":
            assert process.poll() is None
        process.stdout.readline()
        process.send_signal(kill)
        process.communicate(timeout=60)
    assert process.returncode == (143 if kill == signal.SIGTERM else -signal.SIGKILL)
    if kill == signal.SIGTERM:  # what landed is in the box
        assert not layer.bounding_box.is_empty()
    assert len(unfinished_jobs(layer.get_mag(1).place.store)) == 1
    again = subprocess.run([*script, "0"], capture_output=True, text=True, timeout=100, check=True)
    assert again.stdout.count("JobStarted") == 1
    voxels = np.random.default_rng(5).integers(1, 200, (1, 160, 128, 96)).astype("uint8")
    assert np.array_equal(layer.get_mag(1).read(), voxels)
    check_pyramid(layer, voxels, (0, 0, 0))


# --- on a cluster -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.cluster
def test_on_a_cluster(tmp_path, client):
    layer = new_layer(tmp_path / "ds", cubes=(32, 64))
    voxels = np.random.default_rng(5).integers(1, 200, (1, 160, 128, 96)).astype("uint8")
    x = in_memory(voxels, (32, 32, 32)).map_blocks(np.array, meta=META)
    kept = client.persist(x[:, 80:] + np.uint8(0)).rechunk((1, 16, 32, 32))
    mag = layer.get_mag(1)
    events = Events()
    mag.write(x[:, :80], offset=(3, 0, 5), client=client, pyramid=True, progress=events)
    mag.write(kept, offset=(83, 0, 5), client=client, pyramid=True, progress=events)
    assert "writing" in events.jobs
    assert np.array_equal(mag.read(), voxels)
    check_pyramid(layer, voxels, (3, 0, 5))


@pytest.mark.slow
@pytest.mark.cluster
def test_a_worker_that_dies_takes_halves_with_it(tmp_path):
    from distributed import Client, LocalCluster

    layer = new_layer(tmp_path / "ds", cubes=(32, 64))
    voxels = np.random.default_rng(5).integers(1, 200, (1, 256, 256, 128)).astype("uint8")
    x = in_memory(voxels, (64, 64, 64)).map_blocks(np.array, meta=META)
    killed, events = [], Events()

    def listen(event):
        events(event)
        if isinstance(event, UnitDone) and len(killed) < 2 and len(events) % 4 == 0:
            killed.append(int(event.report.worker.split(":")[1]))
            os.kill(killed[-1], signal.SIGKILL)

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2, timeout=60)
        report = layer.get_mag(1).write(x, client=client, pyramid=True, progress=listen)
    assert len(killed) == 2
    assert events.jobs == ["writing"]
    assert report.bytes == voxels.nbytes
    assert np.array_equal(layer.get_mag(1).read(), voxels)
    check_pyramid(layer, voxels, (0, 0, 0))
