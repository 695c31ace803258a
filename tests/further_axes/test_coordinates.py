"""Mags with further axes as arrays of xarray, and where such arrays go."""

import itertools

import numpy as np
import pytest
import zarr
from thorough import mostly_slow

from wkdask import Dataset, NDBoundingBox
from wkdask.errors import InvalidValueError

pytest.importorskip("xarray")

SIZES = {"t": 3, "q": 2, "x": 30, "y": 20, "z": 10}
CORNER = {"x": 5, "y": 6, "z": 7, "t": 4}


def make(folder, axes="txyz"):
    """Return a mag that is full of random voxels, and these."""
    shape = [3 if axis == "c" else SIZES[axis] for axis in axes]
    box = NDBoundingBox([CORNER.get(axis, 0) for axis in axes], shape, axes)
    layer = Dataset.create(folder, (2, 2, 30)).add_layer(
        "movie", "color", bounding_box=box, data_format="zarr3", num_channels=3 if "c" in axes else 1
    )
    mag = layer.add_mag(1, chunk_shape=8, shard_shape=16)
    voxels = np.random.default_rng(0).integers(1, 255, shape, np.uint8)
    mag.write(voxels)
    return mag, voxels


@pytest.mark.parametrize("axes", ["txyz", "ctxyz", "tcxyz", "tqxyz"])
def test_axes_and_coordinates(tmp_path, axes):
    mag, voxels = make(tmp_path / "ds", axes)
    found = mag.to_xarray()
    assert found.dims == tuple(axes)
    assert np.array_equal(found.values, voxels)
    assert found.t.values.tolist() == [4, 5, 6]
    assert found.x.values[:2].tolist() == [10, 12]
    assert found.x.attrs == {"units": "nm"}


@pytest.mark.parametrize(
    ("in_memory", "axes"),
    mostly_slow(
        itertools.product([True, False], ["txyz", "ctxyz", "tcxyz", "tqxyz"]),
        lambda n, _: n % 2 == n // 4,  # every day all axes, and both
    ),
)
def test_a_part_goes_where_it_says(tmp_path, axes, in_memory):
    mag, voxels = make(tmp_path / "ds", axes)
    part = (255 - mag.to_xarray()).isel(t=slice(1, 3), x=slice(2, 20))
    part = part.transpose(*reversed(part.dims))
    reports = mag.write(part.compute() if in_memory else part)
    expected = voxels.copy()
    where = tuple({"t": slice(1, 3), "x": slice(2, 20)}.get(axis, slice(None)) for axis in axes)
    expected[where] = 255 - voxels[where]
    assert len(reports) == 2 * (2 if "q" in axes else 1)
    stored = zarr.open_array(str(mag.path), mode="r")
    inner = tuple(
        slice(CORNER.get(axis, 0), CORNER.get(axis, 0) + length)
        for axis, length in zip(axes, voxels.shape, strict=True)
    )
    if stored.ndim == len(inner):
        assert np.array_equal(stored[inner], expected)
    assert np.array_equal(mag.read(), expected)


def test_one_position(tmp_path):
    mag, voxels = make(tmp_path / "ds")
    frame = mag.to_xarray(t=5)
    assert frame.dims == ("c", "x", "y", "z")
    assert int(frame.t) == 5
    mag.write(255 - frame, t=5)
    expected = voxels.copy()
    expected[1] = 255 - voxels[1]
    assert np.array_equal(mag.read(), expected)
    mag.write(mag.to_xarray().isel(t=0) * np.uint8(0))
    expected[0] = 0
    assert np.array_equal(mag.read(), expected)


def test_a_position_of_its_own_is_a_mag(tmp_path):
    mag, voxels = make(tmp_path / "ds")
    assert np.array_equal(mag.at(t=6).to_xarray().values[0], voxels[2])


def test_what_disagrees_is_refused(tmp_path):
    mag, voxels = make(tmp_path / "ds")
    frame = mag.to_xarray(t=5)
    with pytest.raises(InvalidValueError, match="begin at 5 along 't', it is to be written from 6 on"):
        mag.write(frame, t=6)
    with pytest.raises(InvalidValueError, match="begin at 5 along 'x', it is to be written from 8 on"):
        mag.write(frame, t=5, absolute_offset=(8, 6, 7))
    with pytest.raises(InvalidValueError, match="positions along 't', one after the other"):
        mag.write(mag.to_xarray().isel(t=[0, 2]))
    with pytest.raises(InvalidValueError, match="no coordinate along 't'"):
        mag.write(mag.to_xarray().drop_vars("t"))
    with pytest.raises(InvalidValueError, match="'q'"):
        mag.write(mag.to_xarray().rename(t="q"))
    assert np.array_equal(mag.read(), voxels)
