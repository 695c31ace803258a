"""Copies that are read back from the disk: a fault between the write and the comparison is found and named."""

import os

import dask
import numpy as np
import pytest

from wkdask import Dataset, testing
from wkdask.errors import DamagedCubeError, TaskFailedError
from wkdask.geometry import Vec3Int
from wkdask.jobs.events import JobFinished, JobStarted, UnitDone
from wkdask.operations.verify import verify_unit

WAYS = [
    {},
    {"data_format": "zarr3", "shard_shape": 64},
    {"compression": "lz4"},
    {"shard_shape": 128},
]


@pytest.fixture
def source(tmp_path):
    """Return a dataset of a layer with two mags, and the voxels of the first."""
    voxels = testing.random_voxels((1, 128, 128, 64), "uint8")
    ds = Dataset.create(tmp_path / "source", (4, 4, 35))
    layer = ds.add_layer("color", "color")
    layer.add_mag(1, shard_shape=64).write(voxels, offset=(0, 0, 0), progress=False)
    layer.downsample(coarsest_mag=2, progress=False)
    return ds, voxels


def spoiling(folder, after):
    """Return a listener that flips a bit of a published cube after so many units of the copy."""
    seen = []

    def listen(event):
        seen.append(event)
        if sum(isinstance(each, UnitDone) for each in seen) == after and isinstance(event, UnitDone):
            path = next(
                os.path.join(root, name)
                for root, _, names in os.walk(folder)
                for name in names
                if (name.startswith("x") or name.isdigit()) and ".wkdask" not in root
            )
            with open(path, "r+b") as file:
                file.seek(os.stat(path).st_size // 2)
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 64]))

    return listen, seen


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_says_what_was_verified(source, tmp_path, way):
    ds, voxels = source
    listen, seen = spoiling(tmp_path / "copy", 10_000)
    copy = ds.copy_dataset(tmp_path / "copy", verify=True, progress=listen, **way)
    assert np.array_equal(copy.get_layer("color").get_mag(1).read(), voxels)
    (report,) = [event.report for event in seen if isinstance(event, JobFinished)]
    assert report.verified == sum(mag.read().nbytes for mag in copy.get_layer("color").mags.values())
    assert "Verified" in repr(report)
    (started,) = [event for event in seen if isinstance(event, JobStarted)]
    assert started.units == sum(isinstance(event, UnitDone) for event in seen)


@pytest.mark.parametrize("way", WAYS[:2])
def test_a_fault_between_write_and_comparison_is_found_only_with_verify(source, tmp_path, way):
    ds, _ = source
    with dask.config.set(num_workers=1):
        units = 4 if way else 1
        listen, _ = spoiling(tmp_path / "unverified", 1)
        ds.copy_dataset(tmp_path / "unverified", progress=listen, **way)
        listen, _ = spoiling(tmp_path / "copy", units)
        with pytest.raises(TaskFailedError) as caught:
            ds.copy_dataset(tmp_path / "copy", verify=True, progress=listen, **way)
    assert isinstance(caught.value.__cause__, DamagedCubeError)
    assert str(tmp_path / "copy" / "color" / "1") in str(caught.value)
    assert not Dataset(tmp_path / "copy").layers


def test_a_voxel_that_differs_is_named(source, make_mag):
    ds, voxels = source
    mag = ds.get_layer("color").get_mag(1)
    other = make_mag(cube=64, chunk=32)
    wrong = voxels.copy()
    wrong[0, 70, 5, 33] ^= 8
    other.write(wrong, offset=(0, 0, 0), progress=False)
    text = rf"voxel \(70, 5, 33\), channel 0, is {wrong[0, 70, 5, 33]}, and was copied from {voxels[0, 70, 5, 33]}"
    with pytest.raises(DamagedCubeError, match=text) as caught:
        verify_unit(mag.place.store, other.place.store, mag.box)
    assert other.place.store.cube_path(Vec3Int(1, 0, 0)) in str(caught.value)
    assert verify_unit(mag.place.store, mag.place.store, mag.box).verified == voxels.nbytes


def test_cubes_are_read_past_the_page_cache_and_past_what_is_remembered_of_them(
    source, tmp_path, monkeypatch
):
    ds, _ = source
    dropped = []
    monkeypatch.setattr("wkdask.operations.verify.drop_file", dropped.append)
    mag = ds.get_layer("color").get_mag(1)
    verify_unit(mag.place.store, mag.place.store, mag.box)
    store = mag.place.store
    assert sorted(dropped) == sorted(store.cube_path(index) for index in store.cubes_on_disk())


def test_layers_and_mags_are_copied_and_verified_too(source, tmp_path):
    ds, voxels = source
    other = Dataset.create(tmp_path / "other", (4, 4, 35))
    layer = other.add_copy_layer(ds.get_layer("color"), "copy", verify=True, progress=False)
    assert np.array_equal(layer.get_mag(1).read(), voxels)
    second = other.add_layer("second", "color")
    mag = second.add_copy_mag(ds.get_layer("color").get_mag(1), shard_shape=32, verify=True)
    assert np.array_equal(mag.read(), voxels)
