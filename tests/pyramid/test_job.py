"""Pyramids against numpy: which voxels, however the work is cut."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyramid_oracle import layer_with, oracle
from thorough import examples

from wkdask import BoundingBox, Dataset, Mag, Vec3Int
from wkdask.errors import InvalidValueError, PlanError, TaskFailedError, WkdaskWarning
from wkdask.jobs.engines.choice import LocalEngine
from wkdask.jobs.events import UnitDone
from wkdask.kernels import downsample, reach
from wkdask.layer import sampling as layer_sampling
from wkdask.pyramid import job as pyramid
from wkdask.pyramid import plan as pyramid_plan
from wkdask.storage.publish import assemble

CASES = [
    # mode, dtype, channels, values, scale, corner, size
    ("median", "uint8", 1, 256, (1, 1, 1), (3, 5, 7), (70, 45, 39)),
    ("median", "uint16", 3, 60000, (1, 1, 2.5), (33, 31, 1), (40, 37, 21)),
    ("median", "int16", 1, 300, (1, 1, 1), (0, 0, 0), (64, 32, 32)),
    ("mode", "uint32", 1, 4, (1, 1, 1), (3, 5, 7), (41, 30, 25)),
    ("mode", "uint64", 1, 3, (1, 1, 2.5), (1, 0, 63), (37, 41, 11)),
    ("mode", "uint8", 3, 3, (1, 1, 1), (31, 31, 31), (20, 13, 9)),
    ("min", "int8", 1, 100, (1, 1, 1), (3, 5, 7), (41, 30, 25)),
    ("max", "float32", 2, 100, (1, 1, 2.5), (3, 5, 7), (41, 30, 25)),
    ("median", "uint8", 1, 256, (1, 1, 1), (5, 5, 5), (1, 1, 1)),
    ("median", "uint8", 1, 256, (1, 1, 1), (7, 0, 3), (90, 1, 2)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "dtype", "channels", "values", "scale", "corner", "size"), CASES)
def test_a_pyramid_is_that_of_numpy(tmp_path, mode, dtype, channels, values, scale, corner, size):
    rng = np.random.default_rng(7)
    voxels = rng.integers(0, values, (channels, *size)).astype(dtype)
    if np.dtype(dtype).kind == "i":
        voxels -= np.array(values // 2, dtype)
    if dtype == "uint64":
        voxels += np.array(2**60, dtype)
    layer = layer_with(tmp_path / "ds", voxels, corner, scale, "segmentation" if mode == "mode" else "color")
    sampling = "constant_z" if size[2] == 1 else "anisotropic"  # what a single section gets anyway
    layer.downsample(coarsest_mag=8, interpolation_mode=mode, sampling_mode=sampling)
    assert layer.bounding_box == BoundingBox(corner, size)
    before = Mag(1)
    for mag in list(layer.mags)[1:]:
        factors = tuple(mag.to_vec3_int() // before.to_vec3_int())
        voxels, corner = oracle(voxels, corner, factors, mode)
        view = layer.get_mag(mag)
        assert view.box == BoundingBox(corner, voxels.shape[1:])
        assert np.array_equal(view.read(), voxels)
        before = mag
    assert before.max_dim == 8


@pytest.mark.parametrize(("start", "target"), [(1, "4-4-2"), (2, 8), ("2-2-1", "8-2-1"), ("2-2-1", "4-8-8")])
def test_any_step_that_divides(tmp_path, start, target):
    voxels = np.random.default_rng(3).integers(0, 9, (1, 37, 29, 31)).astype("uint8")
    corner = (9, 14, 3)
    layer = layer_with(tmp_path / "ds", voxels, corner, start=start)
    factors = Mag(target).to_vec3_int() // Mag(start).to_vec3_int()
    report = layer.downsample_mag(start, target, "mode")
    expected, low = oracle(voxels, corner, tuple(factors), "mode")
    out = layer.get_mag(target)
    assert out.box == BoundingBox(low, expected.shape[1:])
    assert np.array_equal(out.read(), expected)
    assert report.bounding_box == out.box.from_mag_to_mag1(target)
    for bad in (start, "16-1-1"):
        with pytest.raises(InvalidValueError, match="cannot be computed"):
            layer.downsample_mag(target, bad)


@pytest.mark.parametrize(("cube", "tile"), [(16, 1 << 9), (32, 3 << 10), (128, 1 << 12), (128, 1 << 30)])
def test_the_result_does_not_depend_on_cubes_and_tiles(tmp_path, monkeypatch, cube, tile):
    voxels = np.random.default_rng(5).integers(0, 200, (1, 75, 50, 41)).astype("uint8")
    corner = (3, 5, 7)
    expected, low = oracle(voxels, corner, (2, 2, 2), "median")
    monkeypatch.setattr(pyramid_plan, "TILE_NBYTES", tile)
    layer = layer_with(tmp_path / "ds", voxels, corner, cube=cube)
    (report,) = layer.downsample(coarsest_mag=2, compression=None)
    assert np.array_equal(layer.get_mag(2).read(), expected)
    assert report.cubes == len(layer.get_mag(2).spec.grid.cubes(BoundingBox(low, expected.shape[1:])))
    assert (report.minimum, report.maximum) == (expected.min(), expected.max())


def test_one_section_keeps_its_z(tmp_path):
    voxels = np.random.default_rng(5).integers(0, 200, (1, 40, 30, 1)).astype("uint8")
    layer = layer_with(tmp_path / "ds", voxels, (3, 5, 7))
    with pytest.warns(WkdaskWarning, match="constant_z"):
        layer.downsample(coarsest_mag=4)
    assert [mag.to_layer_name() for mag in layer.mags] == ["1", "2-2-1", "4-4-1"]


@pytest.mark.cluster
def test_a_pyramid_on_a_cluster(tmp_path, client):
    voxels = np.random.default_rng(5).integers(0, 200, (1, 130, 70, 41)).astype("uint8")
    layer = layer_with(tmp_path / "ds", voxels, (3, 5, 7))
    layer.downsample(coarsest_mag=4, client=client)
    half, low = oracle(voxels, (3, 5, 7), (2, 2, 2), "median")
    quarter, _ = oracle(half, low, (2, 2, 2), "median")
    assert np.array_equal(layer.get_mag(2).read(), half)
    assert np.array_equal(layer.get_mag(4).read(), quarter)


def test_a_damaged_source_is_named(tmp_path):
    layer = layer_with(tmp_path / "ds", np.ones((1, 70, 45, 39), "uint8"), (3, 5, 7))
    path = layer.get_mag(1).place.store.cube_path(Vec3Int(1, 1, 0))
    with open(path, "r+b") as file:
        file.truncate(100)
    with pytest.raises(TaskFailedError, match="downsampling") as caught:
        layer.downsample(coarsest_mag=2)
    assert path in str(caught.value)


# --- any pyramid ----------------------------------------------------------------------------------------


def check_mags(layer, voxels, corner, mags, mode, before=None):
    """Check all coarser mags, and that nothing lies around what they hold."""
    for finer, mag in itertools.pairwise(mags):
        factors = tuple(mag.to_vec3_int() // finer.to_vec3_int())
        voxels, corner = oracle(voxels, corner, factors, mode)
        view = layer.get_mag(mag)
        assert view.box == BoundingBox(corner, voxels.shape[1:])
        assert np.array_equal(view.read(), voxels)
        around = view.place.store.read(BoundingBox((0, 0, 0), view.box.bottomright + 40))
        around[(slice(None), *view.box.to_slices())] = 0
        assert not around.any()


@pytest.mark.slow
@settings(max_examples=examples(12), deadline=None)
@given(data=st.data())
def test_any_tree_gives_the_voxels_of_numpy(data):
    """Cubes of any side per mag, leaves and tiles of any size, little memory: the same voxels, the same reports."""
    draw = data.draw
    mags = [Mag(1)]
    for _ in range(draw(st.integers(1, 3))):
        factors = draw(st.sampled_from([(2, 2, 2), (2, 2, 1), (1, 2, 2), (4, 1, 2)]))
        mags.append(Mag(mags[-1].to_vec3_int() * factors))
    mode = draw(st.sampled_from(["median", "mode", "min", "max"]))
    dtype, channels = draw(st.sampled_from([("uint8", 1), ("uint16", 3), ("uint64", 1), ("int16", 1)]))
    size = draw(st.tuples(*[st.sampled_from([1, 2, 7, 33, 64, 90])] * 3))
    corner = draw(st.tuples(*[st.sampled_from([0, 1, 31, 32, 63])] * 3))
    voxels = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 5, (channels, *size)).astype(dtype)
    if draw(st.booleans()):
        voxels[:, size[0] // 3 :] = 0
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid_plan, "LEAF_NBYTES", draw(st.sampled_from([1 << 10, 1 << 14, 1 << 20])))
        patch.setattr(pyramid_plan, "_LEAST_LEAF_NBYTES", draw(st.sampled_from([1 << 9, 1 << 14])))
        patch.setattr(pyramid_plan, "TILE_NBYTES", draw(st.sampled_from([1 << 9, 1 << 13, 1 << 23])))
        layer = layer_with(f"{folder}/ds", voxels, corner, cube=draw(st.sampled_from([16, 32, 64])))
        for mag in mags[1:]:
            compression = draw(st.sampled_from([None, "lz4"]))
            layer.add_mag(
                mag, chunk_shape=8, shard_shape=draw(st.sampled_from([8, 16, 64])), compression=compression
            )
        with dask.config.set(num_workers=draw(st.integers(1, 3))):
            reports = layer.downsample_mag_list(1, mags[1:], mode, allow_overwrite=True)
        check_mags(layer, voxels, corner, mags, mode)
        for mag, report in zip(mags[1:], reports, strict=True):
            view = layer.get_mag(mag)
            assert report.bounding_box == view.box.from_mag_to_mag1(mag)
            assert report.cubes == len(view.spec.grid.cubes(view.box))
            assert report.bytes == view.read().nbytes


@pytest.mark.parametrize("compression", [None, "lz4", "lz4hc"])
def test_cubes_that_do_not_fit_into_memory_come_together_in_parts(tmp_path, monkeypatch, compression):
    voxels = np.random.default_rng(5).integers(0, 200, (1, 200, 150, 130)).astype("uint8")
    monkeypatch.setattr(LocalEngine, "task_memory", lambda self: 1 << 19)
    monkeypatch.setattr(pyramid_plan, "_LEAST_LEAF_NBYTES", 1 << 15)
    monkeypatch.setattr(pyramid_plan, "TILE_NBYTES", 1 << 15)
    monkeypatch.setattr(assemble, "SLAB_NBYTES", 1 << 16)
    monkeypatch.setattr(assemble, "_BESIDE_NBYTES", 0)
    layer = layer_with(tmp_path / "ds", voxels, (3, 5, 7), cube=128)
    plans = []
    real = pyramid.plan_tree
    monkeypatch.setattr(pyramid, "plan_tree", lambda *a, **k: plans.append(real(*a, **k)) or plans[-1])
    for _ in range(2):  # into new mags, then over what is there
        layer.downsample(coarsest_mag=4, compression=compression, allow_overwrite=True)
        check_mags(layer, voxels, (3, 5, 7), [Mag(1), Mag(2), Mag(4)], "median")
    assert all(plan.task_nbytes <= 1 << 19 for plan in plans)
    assert all(plan.tiers[0].staged for plan in plans)


# --- what has changed -----------------------------------------------------------------------------------


def changed(layer, voxels, corner, box, seed=1):
    """Write other voxels into a box of mag 1; return what the whole then is."""
    patch = np.random.default_rng(seed).integers(0, 200, (len(voxels), *box.size)).astype(voxels.dtype)
    before = BoundingBox(corner, voxels.shape[1:])
    layer.get_mag(1).write(patch, offset=box.topleft)
    now = before.extended_by(box)
    whole = np.zeros((len(voxels), *now.size), voxels.dtype)
    whole[(slice(None), *before.to_slices(now.topleft))] = voxels
    whole[(slice(None), *box.to_slices(now.topleft))] = patch
    return whole, tuple(now.topleft)


@pytest.mark.slow
@pytest.mark.parametrize("cube", [16, 64])
@pytest.mark.parametrize("mode", ["median", "bicubic"])
def test_only_what_has_changed_is_redone(tmp_path, cube, mode):
    voxels, corner = np.random.default_rng(5).integers(0, 200, (1, 90, 70, 61)).astype("uint8"), (3, 5, 7)
    layer, twin = (layer_with(tmp_path / name, voxels, corner, cube=cube) for name in ("ds", "twin"))
    layer.downsample(coarsest_mag=8, interpolation_mode=mode)
    box, far = BoundingBox((20, 30, 11), (9, 2, 5)), BoundingBox((85, 70, 60), (5, 5, 5))
    for part in (box, far):
        voxels, corner = changed(layer, voxels, corner, part)
    twin.get_mag(1).write(voxels, offset=corner)
    twin.downsample(coarsest_mag=8, interpolation_mode=mode)
    state = {path: path.stat().st_mtime_ns for path in (tmp_path / "ds" / "layer").rglob("x*.wkw")}
    reports = layer.redownsample(mode, boxes=[box, far])
    for mag in list(layer.mags)[1:]:
        assert np.array_equal(layer.get_mag(mag).read(), twin.get_mag(mag).read())
    touched = [path for path, time in state.items() if path.stat().st_mtime_ns != time]
    assert sum(report.cubes for report in reports) >= len(touched) > 0
    if cube == 16:
        assert len(touched) < len(state) // 3
    # windows of mag 8 along x, y, z, of either box
    if mode == "median":
        assert reports[-1].bytes == 2 * 1 * 1 + 2 * 2 * 2
    assert layer.redownsample(boxes=[BoundingBox((900, 0, 0), (5, 5, 5))]) == []


@pytest.mark.parametrize("at", [(100, 20, 20), (0, 0, 0), (60, 81, 3)])
def test_the_old_border_is_redone_where_the_box_grew(tmp_path, at):
    voxels, corner = np.random.default_rng(5).integers(1, 200, (1, 90, 70, 61)).astype("uint8"), (3, 5, 7)
    layer = layer_with(tmp_path / "ds", voxels, corner, cube=32)
    layer.downsample(coarsest_mag=4, interpolation_mode="max")
    before, box = layer.bounding_box, BoundingBox(at, (6, 7, 8))
    voxels, corner = changed(layer, voxels, corner, box)
    assert layer.bounding_box != before
    layer.redownsample("max", boxes=[box], previous_box=before)
    check_mags(layer, voxels, corner, [Mag(1), Mag(2), Mag(4)], "max")


def test_voxels_that_become_zero_leave_no_cube(tmp_path):
    voxels = np.random.default_rng(5).integers(1, 200, (1, 64, 64, 64)).astype("uint8")
    layer = layer_with(tmp_path / "ds", voxels, (0, 0, 0), cube=16)
    layer.downsample(coarsest_mag=2)
    box = BoundingBox((0, 0, 0), (32, 64, 64))
    layer.get_mag(1).write(np.zeros((1, *box.size), "uint8"))
    layer.redownsample(boxes=[box])
    assert sorted(cube.topleft.x for cube in layer.get_mag(2).cubes_on_disk()) == [16] * 4


# --- interpolation over the whole pyramid -------------------------------------------------------------


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_interpolation_does_not_depend_on_cubes_and_tiles(tmp_path, monkeypatch, mode):
    voxels = np.random.default_rng(5).integers(0, 200, (1, 75, 50, 41)).astype("uint8")
    results = []
    for cube, tile in [(16, 1 << 9), (128, 1 << 12), (32, 1 << 30)]:
        monkeypatch.setattr(pyramid_plan, "TILE_NBYTES", tile)
        layer = layer_with(tmp_path / str(cube), voxels, (3, 5, 7), cube=cube)
        layer.downsample(coarsest_mag=4, interpolation_mode=mode)
        results.append([layer.get_mag(mag).read() for mag in (2, 4)])
    for mags in zip(*results, strict=True):
        assert all(np.array_equal(mags[0], other) for other in mags[1:])
    # Mag 2 begins at voxel 2 of mag 1, one before the box, and ends at 78, 56, 48: behind it, or at its end.
    halo = reach(mode, (2, 2, 2))[0]
    pads = [(1 + halo, halo), (1 + halo, 1 + halo), (1 + halo, halo)]
    padded = np.pad(voxels, [(0, 0), *pads], mode="symmetric")
    assert np.array_equal(results[0][0], downsample(padded, (2, 2, 2), mode))


def test_ids_are_not_mixed(tmp_path):
    layer = layer_with(tmp_path / "ds", np.ones((1, 9, 9, 9), "uint8"), (0, 0, 0), category="segmentation")
    for mode in ("bilinear", "bicubic"):
        with pytest.raises(InvalidValueError, match="ids"):
            layer.downsample(coarsest_mag=2, interpolation_mode=mode)
    assert list(layer.mags) == [Mag(1)]


def test_a_refused_plan_leaves_no_mag(tmp_path, monkeypatch):
    layer = layer_with(tmp_path / "ds", np.ones((1, 9, 9, 9), "uint8"), (0, 0, 0), cube=512)
    monkeypatch.setattr(LocalEngine, "task_memory", lambda self: 1 << 20)
    with pytest.raises(PlanError, match="shard_shape"):
        layer.downsample(coarsest_mag=2)
    assert list(layer.mags) == [Mag(1)]


# --- a worker dies --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.cluster
def test_a_half_that_died_with_its_worker_comes_from_the_published_cubes(tmp_path, monkeypatch):
    """What a finished leaf read of mag 1 is destroyed, then its worker: the voxels are right all the same."""
    from distributed import Client, LocalCluster

    voxels = np.random.default_rng(5).integers(1, 200, (1, 256, 256, 128)).astype("uint8")
    layer = layer_with(tmp_path / "ds", voxels, (0, 0, 0), cube=32)
    monkeypatch.setattr(pyramid_plan, "LEAF_NBYTES", 1 << 18)  # 64³: whole cubes of mag 2
    monkeypatch.setattr(pyramid_plan, "_LEAST_LEAF_NBYTES", 1 << 18)
    source = layer.get_mag(1).place.store
    killed, ended = [], []

    def listen(event):
        if not isinstance(event, UnitDone):
            return
        ended.append(event.report)
        if event.report.unit.size != Vec3Int(32, 32, 32):
            return  # not a leaf
        read = event.report.unit.from_mag_to_mag1(2)
        for index in source.spec.grid.cubes(read):
            os.unlink(source.cube_path(index))
        if len(killed) < 2 and len(ended) % 5 == 2:
            _, process = event.report.worker.split(":")
            killed.append(int(process))
            os.kill(int(process), signal.SIGKILL)

    monkeypatch.setattr(layer_sampling, "listeners_for", lambda progress: [listen])
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2, timeout=60)
        layer.downsample(coarsest_mag=8, client=client, compression=None)
    assert len(killed) == 2
    leaves = [report for report in ended if report.unit.size == Vec3Int(32, 32, 32)]
    assert len(leaves) == 32
    check_mags(layer, voxels, (0, 0, 0), [Mag(1), Mag(2), Mag(4), Mag(8)], "median")


# --- memory ---------------------------------------------------------------------------------------------

PEAK = """
import sys, threading
import numpy as np
import psutil
from wkdask import Dataset
from wkdask.pyramid import job as pyramid
from wkdask.pyramid import plan as pyramid_plan
from wkdask.kernels import block_stats, downsample, is_zero
warm = np.ones((1, 4, 4, 4), "uint8", order="F")
downsample(warm, (2, 2, 2), "median"), block_stats(warm), is_zero(warm)
plans, plan_tree = [], pyramid.plan_tree
pyramid.plan_tree = lambda *a, **k: plans.append(plan_tree(*a, **k)) or plans[-1]
layer = Dataset(sys.argv[1]).get_layer("layer")
process, done, peak = psutil.Process(), threading.Event(), 0
idle = process.memory_info().rss
def watch():
    global peak
    while not done.wait(0.001):
        peak = max(peak, process.memory_info().rss)
watcher = threading.Thread(target=watch)
watcher.start()
layer.downsample(coarsest_mag=8, compression=None if sys.argv[2] == "raw" else sys.argv[2])
done.set()
watcher.join()
print(peak - idle, max(plan.task_nbytes for plan in plans), len(plans[0].tiers))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cube", "compression"),
    [
        (64, "raw"),
        pytest.param(256, "raw", marks=pytest.mark.slow),
        pytest.param(256, "lz4", marks=pytest.mark.slow),
    ],
)
def test_no_more_memory_than_planned(tmp_path, cube, compression):
    voxels = np.random.default_rng(5).integers(0, 200, (1, 512, 512, 256)).astype("uint8")
    layer_with(tmp_path / "ds", np.asfortranarray(voxels), (0, 0, 0), cube=cube)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "ds"), compression],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "DASK_NUM_WORKERS": "2"},
    )
    used, planned, _ = map(int, done.stdout.split())
    assert used <= 2 * planned + (16 << 20)  # two threads; what the libraries keep for themselves
    assert planned < 256 << 20


def test_a_foreign_mag_whose_channels_are_files_of_their_own(tmp_path):
    """Where the first channel has no file the second one's voxels count all the same."""
    layer = Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer(
        "layer", "color", dtype_per_channel="uint8", num_channels=2, data_format="zarr3"
    )
    path = Path(layer.add_mag(1, chunk_shape=16, shard_shape=64).path)
    shutil.rmtree(path)
    array = zarr.create_array(
        path, shape=(2, 128, 128, 128), chunks=(1, 64, 64, 64), dtype="uint8", fill_value=0,
        dimension_names=["c", "x", "y", "z"],
    )  # fmt: skip
    array[1, :64, :64, :64] = 3
    expected = array[:, ::2, ::2, ::2]
    layer = Dataset(tmp_path / "ds").get_layer("layer")
    layer.bounding_box = BoundingBox((0, 0, 0), (128, 128, 128))
    layer.downsample(coarsest_mag=2, sampling_mode="isotropic", interpolation_mode="max", progress=False)
    np.testing.assert_array_equal(layer.get_mag(2).read(), expected)
