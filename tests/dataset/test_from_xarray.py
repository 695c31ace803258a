"""`Dataset.from_dask` of an array with coordinates: they say how long a voxel is, and where the array begins."""

import os

import dask.array as da
import numpy as np
import pytest

from wkdask import Dataset, VoxelSize
from wkdask.errors import AlignmentError, ChannelError, InvalidValueError

xr = pytest.importorskip("xarray")

DATA = (np.arange(12 * 10 * 8) % 250 + 1).astype("uint8").reshape(12, 10, 8)


def labelled(data=DATA, dims="xyz", start=(24, 30, 175), side=(4, 5, 35), units="nm", **coords):
    """Return an array with coordinates."""
    made = {
        axis: (
            axis,
            first + step * np.arange(data.shape[dims.index(axis)]),
            {"units": units} if units else {},
        )
        for axis, first, step in zip("xyz", start, side, strict=True)
    }
    return xr.DataArray(data, {**made, **coords}, tuple(dims))


def layer_of(dataset):
    layer = dataset.get_layer("color")
    return tuple(layer.bounding_box.topleft), layer.get_mag(1).read()


@pytest.mark.parametrize("lazy", [False, True])
def test_size_and_place(tmp_path, lazy):
    given = labelled(da.from_array(DATA, chunks=5) if lazy else DATA).transpose("z", "x", "y")
    dataset = Dataset.from_dask(tmp_path / "ds", given)
    assert dataset.voxel_size_with_unit == VoxelSize((4, 5, 35))
    corner, voxels = layer_of(dataset)
    assert corner == (6, 6, 5)
    assert np.array_equal(voxels[0], DATA)


def test_another_unit_and_several(tmp_path):
    given = labelled(start=(0, 0, 0), side=(0.3, 0.3, 1), units="µm")
    assert Dataset.from_dask(tmp_path / "a", given).voxel_size_with_unit == VoxelSize(
        (0.3, 0.3, 1), "micrometer"
    )
    given["z"] = ("z", 900 * np.arange(8), {"units": "nm"})
    assert Dataset.from_dask(tmp_path / "b", given).voxel_size_with_unit.factor == (0.3, 0.3, 0.9)


def test_channels(tmp_path):
    given = labelled(np.stack([DATA, DATA + 1], axis=-1), "xyzc")
    _, voxels = layer_of(Dataset.from_dask(tmp_path / "a", given))
    assert np.array_equal(voxels, np.stack([DATA, DATA + 1]))
    with pytest.raises(ChannelError):
        Dataset.from_dask(tmp_path / "b", given.assign_coords(c=[1, 0]))


def test_what_a_mag_gives(tmp_path):
    first = Dataset.from_dask(tmp_path / "a", DATA, (4.6, 4.6, 45), topleft=(3, 4, 5))
    array = first.get_layer("color").get_mag(1).to_xarray()
    again = Dataset.from_dask(tmp_path / "b", array.isel(x=slice(2, 9)))
    assert again.voxel_size == first.voxel_size
    corner, voxels = layer_of(again)
    assert corner == (5, 4, 5)
    assert np.array_equal(voxels[0], DATA[2:9])


def test_a_coarser_mag_is_put_by_hand(tmp_path):
    first = Dataset.from_dask(tmp_path / "a", DATA, (4, 4, 35))
    coarse = first.get_layer("color").downsample_mag(1, 2) and first.get_layer("color").get_mag(2)
    with pytest.raises(AlignmentError, match="between two"):
        Dataset.from_dask(tmp_path / "b", coarse.to_xarray())
    assert not os.path.exists(tmp_path / "b")
    again = Dataset.from_dask(tmp_path / "b", coarse.to_xarray(), topleft=(1, 2, 3))
    assert again.voxel_size == (8, 8, 70)
    corner, voxels = layer_of(again)
    assert corner == (1, 2, 3)
    assert np.array_equal(voxels, coarse.read())


def test_a_section_needs_the_size(tmp_path):
    section = labelled().isel(z=3)
    with pytest.raises(InvalidValueError, match=r"one voxel along 'z'.*voxel_size="):
        Dataset.from_dask(tmp_path / "a", section)
    corner, voxels = layer_of(Dataset.from_dask(tmp_path / "a", section, (4, 5, 35), pyramid=False))
    assert corner == (6, 6, 8)
    assert np.array_equal(voxels[0, ..., 0], DATA[..., 3])
    moved = Dataset.from_dask(tmp_path / "b", section, (4, 5, 35), topleft=(0, 0, 9), pyramid=False)
    assert layer_of(moved)[0] == (0, 0, 9)


def test_without_units_the_size_is_given(tmp_path):
    with pytest.raises(InvalidValueError, match=r"'x' has the units None.*voxel_size="):
        Dataset.from_dask(tmp_path / "a", labelled(units=None))
    dataset = Dataset.from_dask(tmp_path / "a", labelled(units=None), (4, 5, 35))
    assert layer_of(dataset)[0] == (6, 6, 5)
    bare = xr.DataArray(DATA, dims=("x", "y", "z"))
    with pytest.raises(InvalidValueError, match="no coordinates along 'x'"):
        Dataset.from_dask(tmp_path / "b", bare)
    assert layer_of(Dataset.from_dask(tmp_path / "b", bare, (4, 5, 35)))[0] == (0, 0, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x.isel(x=slice(None, None, -1)), "do not ascend"),
        (lambda x: x.isel(x=[0, 1, 2, 4, 8]), "one after the other"),
        (lambda x: x.assign_coords(y=("y", [float("nan")] * 10, {"units": "nm"})), "finite"),
        (lambda x: x.assign_coords(y=("y", np.arange(10), {"units": "s"})), "units 's'"),
        (lambda x: x.rename(z="depth"), "no coordinates along 'z'"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, change, says):
    with pytest.raises(InvalidValueError, match=says):
        Dataset.from_dask(tmp_path / "a", change(labelled()))
    assert os.listdir(tmp_path) == []


def test_a_plain_array_needs_the_size(tmp_path):
    with pytest.raises(InvalidValueError, match="voxel_size= is missing"):
        Dataset.from_dask(tmp_path / "a", DATA)
