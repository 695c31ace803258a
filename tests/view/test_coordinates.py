"""Views as arrays of xarray with coordinates: what they say, and that a write puts them where they say."""

import os
import pickle
import subprocess
import sys

import dask
import dask.array as da
import numpy as np
import pytest
import wkw
import zarr

import wkdask
from wkdask import BoundingBox, Dataset, MagView
from wkdask.errors import (
    AlignmentError,
    ChannelError,
    DTypeError,
    InvalidValueError,
    MissingPackageError,
    OutOfBoundsError,
)

xr = pytest.importorskip("xarray")

SHAPE = (40, 36, 20)
CORNER = (3, 5, 7)
VOXELS = (np.arange(np.prod(SHAPE)) % 251 + 1).astype("uint8").reshape(SHAPE)
FORMATS = ["wkw", "zarr3", "zarr"]
each_format = pytest.mark.parametrize("data_format", FORMATS)


def cut_of(data_format):
    return {"chunk_shape": 16, "shard_shape": 16 if data_format == "zarr" else 32}


def make(folder, data_format="wkw", mag=1, dtype="uint8", channels=1, voxel_size=(11.24, 11.24, 28)):
    """Return an empty mag."""
    dataset = Dataset.create(folder, voxel_size)
    layer = dataset.add_layer(
        "color", "color", dtype_per_channel=dtype, num_channels=channels, data_format=data_format
    )
    return layer.add_mag(mag, **cut_of(data_format))


@pytest.fixture
def mag(tmp_path):
    """A mag of WKW that holds VOXELS at CORNER."""
    mag = make(tmp_path / "ds")
    mag.write(VOXELS, CORNER)
    return mag


def read_by_others(mag, corner, size):
    """Return voxels as the reference library of the format reads them."""
    path = os.fspath(mag.path)
    if mag.data_format == "wkw":
        with wkw.Dataset.open(path) as dataset:
            return dataset.read(corner, size)
    array = zarr.open_array(path, mode="r")
    whole = np.zeros((array.shape[0], *(np.array(corner) + size)), array.dtype)
    found = array[tuple(slice(0, side) for side in whole.shape)]
    whole[tuple(slice(0, side) for side in found.shape)] = found
    return whole[(slice(None), *(slice(low, None) for low in corner))]


# --- what it says ------------------------------------------------------------------------------------


@each_format
def test_voxels_and_coordinates(tmp_path, data_format):
    mag = make(tmp_path / "ds", data_format)
    mag.write(VOXELS, CORNER)
    found = mag.to_xarray()
    assert isinstance(found.data, da.Array)
    assert found.dims == ("c", "x", "y", "z")
    assert found.name == "color"
    assert np.array_equal(found.values[0], VOXELS)
    assert found.chunks == mag.to_dask().chunks
    for axis, low, length, side in zip("xyz", CORNER, SHAPE, (11.24, 11.24, 28), strict=True):
        assert np.array_equal(found[axis].values, (low + np.arange(length)) * side)
        assert found[axis].attrs == {"units": "nm"}
    assert found.c.values.tolist() == [0]
    assert found.attrs == {
        "layer": "color", "mag": "1", "voxel_size": [11.24, 11.24, 28.0], "voxel_size_unit": "nm",
    }  # fmt: skip


def test_a_coarser_voxel_lies_in_the_middle_of_those_it_covers(tmp_path):
    mag = make(tmp_path / "ds", mag="2-2-1", voxel_size=(4, 4, 30))
    mag.write(VOXELS, (0, 0, 2))
    found = mag.to_xarray()
    assert found.x.values[:3].tolist() == [2, 10, 18]  # the middle of 0 and 4, of 8 and 12
    assert found.z.values[:2].tolist() == [60, 90]
    assert found.attrs["mag"] == "2-2-1"


def test_the_unit_is_that_of_the_dataset(tmp_path):
    mag = make(tmp_path / "ds", voxel_size=wkdask.VoxelSize((0.5, 0.5, 2), "micrometer"))
    mag.write(VOXELS)
    found = mag.to_xarray()
    assert found.z.values[:2].tolist() == [0, 2]
    assert found.z.attrs == {"units": "µm"}
    assert found.attrs["voxel_size_unit"] == "µm"
    # the same in nm
    moved = found.assign_coords({axis: (axis, found[axis].values * 1000, {"units": "nm"}) for axis in "xyz"})
    assert mag.write(moved.isel(x=slice(2, 9))).bounding_box == BoundingBox((2, 0, 0), (7, 36, 20))


def test_a_box_of_a_view_and_of_a_mag(mag):
    expected = VOXELS[10:20, 4:8, 2:12]
    corner = [
        (low + first) * side for low, first, side in zip(CORNER, (10, 4, 2), mag_sides(mag), strict=True)
    ]
    view = mag.get_view(bounding_box=BoundingBox((13, 9, 9), (10, 4, 10)))
    for found in (view.to_xarray(), mag.to_xarray(bounding_box=view.bounding_box)):
        assert np.array_equal(found.values[0], expected)
        assert [float(found[axis][0]) for axis in "xyz"] == pytest.approx(corner)
    assert view.to_xarray(16).chunks == view.to_dask(16).chunks


def mag_sides(mag):
    return mag.layer.dataset.voxel_size.factor


def test_it_is_lazy(mag, monkeypatch):
    read = []
    monkeypatch.setattr(type(mag.place.store), "read", lambda *_, **__: read.append(1))
    found = mag.to_xarray()
    _ = (found.astype("float32") * 2).sel(x=slice(100, 200)).mean("z")
    assert read == []


def test_it_pickles_and_computes_elsewhere(mag):
    assert pickle.loads(pickle.dumps(mag.to_xarray())).equals(mag.to_xarray())


# --- where a write puts it ---------------------------------------------------------------------------


@each_format
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_round_trip(tmp_path, data_format, in_memory):
    source = make(tmp_path / "source", "wkw")
    source.write(VOXELS, CORNER)
    target = make(tmp_path / "target", data_format)
    inverted = 255 - source.to_xarray()
    part = inverted.isel(x=slice(4, 30), z=slice(1, None)).transpose("z", "c", "y", "x")
    report = target.write(part.compute() if in_memory else part)
    expected = BoundingBox((7, 5, 8), (26, 36, 19))
    assert report.bounding_box == expected == target.layer.bounding_box
    found = read_by_others(target, expected.topleft, expected.size)
    assert np.array_equal(found[0], 255 - VOXELS[4:30, :, 1:])
    assert target.to_xarray().drop_attrs().equals(part.transpose("c", "x", "y", "z").drop_attrs())


def test_into_a_coarser_mag(tmp_path):
    target = make(tmp_path / "ds", mag="2-2-1", voxel_size=(4, 4, 30))
    target.write(np.zeros(SHAPE, "uint8") + 1)
    part = target.to_xarray().isel(x=slice(6, 9), y=slice(1, 3)) + np.uint8(1)
    assert target.write(part).bounding_box == BoundingBox((12, 2, 0), (6, 4, 20))


def test_through_a_view(mag):
    view = mag.get_view(bounding_box=BoundingBox((13, 9, 9), (10, 4, 10)))
    view.write(view.to_xarray().isel(x=[4, 5]) * np.uint8(0))
    expected = VOXELS.copy()
    expected[14:16, 4:8, 2:12] = 0
    assert np.array_equal(mag.read(CORNER, SHAPE)[0], expected)
    with pytest.raises(OutOfBoundsError):
        view.write(mag.to_xarray().isel(x=[0]))
    assert np.array_equal(mag.read(CORNER, SHAPE)[0], expected)


def test_one_section_keeps_its_coordinate(mag):
    section = (255 - mag.to_xarray()).isel(z=3, c=0)
    assert section.dims == ("x", "y")
    mag.write(section)
    expected = VOXELS.copy()
    expected[:, :, 3] = 255 - VOXELS[:, :, 3]
    assert np.array_equal(mag.read(CORNER, SHAPE)[0], expected)


def test_channels(tmp_path):
    mag = make(tmp_path / "ds", channels=3)
    rgb = np.stack([VOXELS, VOXELS // 2, VOXELS // 3])
    mag.write(rgb, CORNER)
    found = mag.to_xarray()
    mag.write((255 - found).transpose("x", "y", "z", "c"))
    assert np.array_equal(mag.read(CORNER, SHAPE), 255 - rgb)
    for wrong in (found.isel(c=[1, 0, 2]), found.isel(c=1), found.isel(c=[0, 1])):
        with pytest.raises(ChannelError, match="3 channels"):
            mag.write(wrong)


def test_single_precision_of_coordinates_is_enough(tmp_path):
    mag = make(tmp_path / "ds")
    mag.write(VOXELS, (60_000, 70_000, 5_000))
    found = mag.to_xarray()
    rough = found.assign_coords({axis: found[axis].astype("float32") for axis in "xyz"})
    assert mag.write(rough).bounding_box == BoundingBox((60_000, 70_000, 5_000), SHAPE)


def test_the_place_may_be_said_where_there_are_no_coordinates(mag):
    bare = xr.DataArray(VOXELS.T, dims=("z", "y", "x"))
    with pytest.raises(InvalidValueError, match="no coordinate along 'x'"):
        mag.write(bare)
    mag.write(bare, (0, 0, 0))
    assert np.array_equal(mag.read((0, 0, 0), SHAPE)[0], VOXELS)


def test_a_place_that_is_said_as_well_must_be_the_same(mag):
    found = mag.to_xarray()
    mag.write(found, CORNER)
    mag.write(found, bounding_box=BoundingBox(CORNER, SHAPE))
    with pytest.raises(InvalidValueError, match="begin at voxel 3 along 'x', it is to be written from 4 on"):
        mag.write(found, (4, 5, 7))
    assert np.array_equal(mag.read(CORNER, SHAPE)[0], VOXELS)


def test_it_is_planned_as_it_is_written(mag):
    planned = mag.plan_write(mag.to_xarray().isel(x=slice(4, 9)))
    assert planned.plan.box == BoundingBox((7, 5, 7), (5, 36, 20))


def test_several_as_one_job(mag):
    found = mag.to_xarray().isel(y=slice(2, 9))
    targets = [mag.layer.dataset.add_layer_like(mag.layer, name).add_mag(1, shard_shape=32) for name in "ab"]
    reports = wkdask.store([(255 - found, targets[0]), (found // 2, targets[1])])
    assert [report.bounding_box for report in reports] == [BoundingBox((3, 7, 7), (40, 7, 20))] * 2
    assert np.array_equal(targets[1].read((3, 7, 7), (40, 7, 20))[0], VOXELS[:, 2:9] // 2)


def test_coarser_mags_of_what_is_written(mag):
    mag.layer.add_mag(2, shard_shape=32)
    report = mag.write(mag.to_xarray() * np.uint8(0) + np.uint8(9), pyramid=True)
    assert [each.label for each in report.others] == ["layer 'color' mag 2"]
    assert mag.layer.get_mag(2).read((2, 3, 4), (5, 5, 5)).tolist() == np.full((1, 5, 5, 5), 9).tolist()


# --- what is refused, by name, with nothing touched --------------------------------------------------


def shifted(found, axis, by):
    return found.assign_coords({axis: (axis, found[axis].values + by, found[axis].attrs)})


def in_unit(found, units):
    return found.assign_coords(x=("x", found.x.values, {"units": units}))


WRONG = {
    "between voxels": (lambda a: shifted(a, "y", 5.0), AlignmentError, r"begins at y = 61\.2 nm.*between"),
    "every second voxel": (lambda a: a.isel(x=slice(0, 10, 2)), InvalidValueError, "'x', one after the other"),
    "a gap": (lambda a: a.isel(z=[0, 1, 5]), InvalidValueError, r"'z'.*from 224 to 336 nm at index 1"),
    "turned round": (lambda a: a.isel(x=slice(None, None, -1)), InvalidValueError, r"sortby\('x'\)"),
    "another voxel size": (lambda a: a.assign_coords(x=a.x.values * 2), InvalidValueError, "of 11.24 nm"),
    "another unit": (lambda a: in_unit(a, "µm"), InvalidValueError, "of 11.24 nm"),
    "no length": (lambda a: in_unit(a, "s"), InvalidValueError, "units 's'"),
    "no numbers": (lambda a: a.assign_coords(x=a.x.values.astype(str)), InvalidValueError, "coordinate 'x'"),
    "not a number": (lambda a: a.assign_coords(x=("x", a.x.values * np.nan)), InvalidValueError, "not all finite"),
    "a further axis": (lambda a: a.expand_dims(t=2), InvalidValueError, "'t'"),
    "a missing axis": (lambda a: a.isel(z=0, drop=True), InvalidValueError, "no 'z'"),
    "a renamed axis": (lambda a: a.rename(z="depth"), InvalidValueError, "'depth'"),
    "no coordinates": (lambda a: a.drop_vars("y"), InvalidValueError, "no coordinate along 'y'"),
    "another type": (lambda a: a.astype("float32"), DTypeError, "float32"),
    "several arrays": (lambda a: a.to_dataset(), InvalidValueError, r"data\['color'\]"),
    "a tree": (lambda a: xr.DataTree.from_dict({"1": a.to_dataset()}), InvalidValueError, r"data\['1'\]"),
    "before the origin": (lambda a: shifted(a, "x", -100 * 11.24), OutOfBoundsError, "negative"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused(mag, name):
    change, error, text = WRONG[name]
    before = state_of(mag)
    with pytest.raises(error, match=text):
        mag.write(change(mag.to_xarray()))
    assert state_of(mag) == before


def state_of(mag):
    """Return every file of the dataset."""
    found = {}
    for folder, _, names in os.walk(mag.layer.dataset_path):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[path] = (os.stat(path).st_mtime_ns, file.read())
    return found


def test_without_xarray_the_error_names_the_extra(mag, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'wkdask\[xarray\]'"):
        mag.to_xarray()
    mag.write(VOXELS, CORNER)  # what needs no xarray does not ask for it


def test_it_is_not_imported_unasked():
    script = (
        "import sys, numpy as np, wkdask, tempfile\n"
        "mag = wkdask.Dataset.create(tempfile.mkdtemp() + '/ds', (1, 1, 1)).add_layer('a', 'color').add_mag(1)\n"
        "mag.write(np.ones((8, 8, 8), 'uint8'))\n"
        "assert 'xarray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": root()})


def root():
    return os.path.dirname(os.path.dirname(wkdask.__file__))


@pytest.mark.cluster
@pytest.mark.slow
def test_on_a_cluster(mag, client):
    assert isinstance(mag, MagView)
    mag.write(255 - mag.to_xarray(), client=client)
    assert np.array_equal(mag.read(CORNER, SHAPE)[0], 255 - VOXELS)
    assert dask.compute(mag.to_xarray().max())[0] == 254
