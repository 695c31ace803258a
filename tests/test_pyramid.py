"""Pyramids against numpy: which voxels, however the work is cut."""

import numpy as np
import pytest
from pyramid_oracle import layer_with, oracle

from wkdask import BoundingBox, Mag, Vec3Int, pyramid_plan
from wkdask.errors import InvalidValueError, TaskFailedError, WkdaskWarning

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
