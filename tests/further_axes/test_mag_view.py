"""Layers with axes beside c, x, y, z: made, read, written, position by position; nothing of the JSON lost."""

import json
import os
import pickle

import dask.array as da
import numpy as np
import pytest
import zarr

from wkdask import BoundingBox, Dataset, MagView, NDBoundingBox, NDMagView, NormalizedBoundingBox
from wkdask.errors import (
    AlignmentError,
    AlreadyExistsError,
    AxisNotFoundError,
    DamagedHeaderError,
    InvalidValueError,
    OutOfBoundsError,
    PropertiesError,
    UnsupportedFormatError,
)
from wkdask.jobs.engines.local import LocalEngine
from wkdask.operations.inline import TaskWrites

SIZES = {"t": 3, "q": 2, "x": 30, "y": 20, "z": 10}
CORNER = {"x": 5, "y": 6, "z": 7}
AXES = ["txyz", "ctxyz", "tcxyz", "tqxyz", "qctxyz"]


def random(shape, seed=0, dtype="uint8"):
    return np.random.default_rng(seed).integers(1, 255, shape, dtype=dtype)


def sizes_of(axes, channels):
    return [channels if axis == "c" else SIZES[axis] for axis in axes]


def make(tmp_path, axes="txyz", channels=None, dtype="uint8", category="color"):
    """Return an empty mag with these axes."""
    channels = channels or (3 if "c" in axes else 1)
    box = NDBoundingBox([CORNER.get(axis, 0) for axis in axes], sizes_of(axes, channels), axes)
    dataset = Dataset.create(tmp_path / "ds", (1, 1, 1))
    layer = dataset.add_layer(
        "l", category, bounding_box=box, data_format="zarr3", num_channels=channels, dtype_per_channel=dtype
    )
    return layer.add_mag(1, chunk_shape=8, shard_shape=16)


def raw(mag):
    with open(os.path.join(mag.layer.dataset_path, "datasource-properties.json")) as file:
        return json.load(file)["dataLayers"][0]


def edit(mag, change):
    path = os.path.join(mag.layer.dataset_path, "datasource-properties.json")
    with open(path) as file:
        content = json.load(file)
    change(content["dataLayers"][0])
    with open(path, "w") as file:
        json.dump(content, file)


def stored(mag):
    """The whole array, by zarr-python."""
    return zarr.open_array(mag.path, mode="r")


# --- what is on disk ----------------------------------------------------------------------------------------


def test_properties_and_metadata_of_a_new_layer(tmp_path):
    mag = make(tmp_path, "tcxyz")
    layer = raw(mag)
    assert layer["additionalAxes"] == [{"name": "t", "bounds": [0, 3], "index": 0}]
    assert layer["mags"] == [
        {"mag": [1, 1, 1], "path": "./l/1", "axisOrder": {"c": 1, "x": 2, "y": 3, "z": 4}}
    ]
    assert (layer["numChannels"], layer["elementClass"]) == (3, "uint24")
    assert {key: layer["boundingBox"][key] for key in ("topLeft", "width", "height", "depth")} == {
        "topLeft": [5, 6, 7], "width": 30, "height": 20, "depth": 10,
    }  # fmt: skip
    with open(os.path.join(mag.path, "zarr.json")) as file:
        metadata = json.load(file)
    assert metadata["shape"] == [3, 3, 48, 32, 32]
    assert metadata["dimension_names"] == ["t", "c", "x", "y", "z"]
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [1, 3, 16, 16, 16]
    (sharding,) = metadata["codecs"]
    assert sharding["configuration"]["chunk_shape"] == [1, 3, 8, 8, 8]
    transpose = {"name": "transpose", "configuration": {"order": [4, 3, 2, 1, 0]}}
    assert sharding["configuration"]["codecs"][0] == transpose


@pytest.mark.parametrize("axes", AXES)
def test_what_is_written_is_read_by_zarr_python_and_back(tmp_path, axes):
    mag = make(tmp_path, axes)
    data = random(sizes_of(axes, mag.num_channels))
    reports = mag.write(data)
    assert len(reports) == np.prod([SIZES[axis] for axis in mag.further_axes])
    box = mag.bounding_box
    np.testing.assert_array_equal(stored(mag)[box.to_slices()], data)
    np.testing.assert_array_equal(mag.read(), data)
    np.testing.assert_array_equal(mag.to_dask().compute(), data)
    again = Dataset(mag.layer.dataset_path).get_layer("l").get_mag(1)
    assert again == mag
    assert box == NDBoundingBox([CORNER.get(axis, 0) for axis in axes], data.shape, axes)
    np.testing.assert_array_equal(again.read(), data)


def test_what_zarr_python_writes_is_read(tmp_path):
    mag = make(tmp_path, "ctxyz")
    data = random((3, 3, 48, 32, 32))
    zarr.open_array(mag.path, mode="r+")[...] = data
    np.testing.assert_array_equal(mag.read(), data[:, :, 5:35, 6:26, 7:17])
    np.testing.assert_array_equal(mag.read(t=2), data[:, 2, 5:35, 6:26, 7:17])


# --- reading ------------------------------------------------------------------------------------------------


def test_one_position_is_c_x_y_z(tmp_path):
    mag = make(tmp_path)
    data = random((3, 30, 20, 10))
    mag.write(data)
    np.testing.assert_array_equal(mag.read(t=1), data[1][None])
    np.testing.assert_array_equal(mag.read(t=np.int64(1)), data[1][None])
    assert mag.read(t=1).flags.f_contiguous
    np.testing.assert_array_equal(mag.to_dask(t=1).compute(), data[1][None])
    np.testing.assert_array_equal(mag.at(t=1).read(), data[1][None])
    np.testing.assert_array_equal(
        mag.read((4, 3, 2), absolute_offset=(6, 8, 9), t=0), data[:1, 1:5, 2:5, 2:4]
    )


def test_several_positions_keep_their_axis(tmp_path):
    mag = make(tmp_path, "tqxyz")
    data = random((3, 2, 30, 20, 10))
    mag.write(data)
    np.testing.assert_array_equal(mag.read(t=(1, 3)), data[1:3])
    np.testing.assert_array_equal(mag.read(t=slice(1, None), q=1), data[1:, 1])
    np.testing.assert_array_equal(mag.read(t=(1, 2), q=(0, 1)), data[1:2, :1])
    np.testing.assert_array_equal(mag.read(t=2, q=1), data[2, 1][None])
    np.testing.assert_array_equal(mag.to_dask(t=slice(1, None), q=1).compute(), data[1:, 1])
    box = NDBoundingBox((1, 0, 6, 8, 9), (2, 1, 4, 3, 2), "tqxyz")
    np.testing.assert_array_equal(mag.read(absolute_bounding_box=box), data[1:3, :1, 1:5, 2:5, 2:4])
    np.testing.assert_array_equal(
        mag.to_dask(absolute_bounding_box=box).compute(), data[1:3, :1, 1:5, 2:5, 2:4]
    )
    spatial = BoundingBox((6, 8, 9), (4, 3, 2))
    np.testing.assert_array_equal(
        mag.read(absolute_bounding_box=spatial, t=0, q=0), data[0, 0, 1:5, 2:5, 2:4][None]
    )
    assert mag.read(t=(1, 1)).shape == mag.to_dask(t=(1, 1)).shape == (0, 2, 30, 20, 10)


@pytest.mark.parametrize("axes", ["txyz", "ctxyz", "tcxyz"])
def test_channels_and_space_of_one_position(tmp_path, axes):
    mag = make(tmp_path, axes)
    data = random(sizes_of(axes, mag.num_channels))
    mag.write(data)
    expected = mag.read(t=1)
    box = mag.bounding_box.with_bounds("t", 1, 1)
    np.testing.assert_array_equal(mag.read_cxyz(t=1), expected)
    np.testing.assert_array_equal(mag.read_cxyz(t=(1, 2)), expected)
    np.testing.assert_array_equal(mag.read_cxyz(absolute_bounding_box=box), expected)
    part = expected[:, 2:6, 1:4, 3:5]
    np.testing.assert_array_equal(mag.read((4, 3, 2), relative_offset=(2, 1, 3), t=1), part)
    np.testing.assert_array_equal(mag.read_cxyz((4, 3, 2), relative_offset=(2, 1, 3), t=1), part)
    with pytest.raises(InvalidValueError, match="one position along t"):
        mag.read_cxyz()
    with pytest.raises(InvalidValueError, match="absolute or relative"):
        mag.read(relative_offset=(0, 0, 0), absolute_offset=(0, 0, 0))


def test_an_empty_mag_is_zeros(tmp_path):
    mag = make(tmp_path, "tcxyz")
    assert mag.read().shape == (3, 3, 30, 20, 10)
    assert not mag.read().any()
    assert mag.at(t=2).read().shape == (3, 30, 20, 10)


@pytest.mark.parametrize(
    ("read", "kind", "says"),
    [
        (lambda mag: mag.read(t=3), OutOfBoundsError, "no t from 3 to 4; the further axes are t from 0 to 3"),
        (lambda mag: mag.read(t=-1), OutOfBoundsError, "no t from -1"),
        (lambda mag: mag.read(t=(0, 4)), OutOfBoundsError, "no t from 0 to 4"),
        (lambda mag: mag.to_dask(t=7), OutOfBoundsError, "no t from 7"),
        (
            lambda mag: mag.read(w=1),
            AxisNotFoundError,
            "no further axis 'w'; the further axes are t from 0 to 3",
        ),
        (lambda mag: mag.read(x=1), AxisNotFoundError, "no further axis 'x'"),
        (lambda mag: mag.read(t=1.5), InvalidValueError, "must be an integer"),
        (lambda mag: mag.read(t=(2, 1)), InvalidValueError, "ends before it begins"),
        (lambda mag: mag.read(t=(1, 2, 3)), InvalidValueError, "first one behind"),
        (lambda mag: mag.read(t=slice(0, 3, 2)), InvalidValueError, "one after the other"),
        (lambda mag: mag.at(), AxisNotFoundError, "position along t is missing"),
        (lambda mag: mag.at(t=9), OutOfBoundsError, "no t from 9"),
        (lambda mag: mag.at(t=(0, 2)), InvalidValueError, "one position along t"),
        (lambda mag: list(mag.views("q")), AxisNotFoundError, "got 'q'"),
        (
            lambda mag: mag.read(absolute_bounding_box=mag.bounding_box, t=1),
            InvalidValueError,
            "in the box and in the arguments",
        ),
        (
            lambda mag: mag.read((1, 1, 1), absolute_bounding_box=mag.bounding_box),
            InvalidValueError,
            "not both",
        ),
    ],
)
def test_a_place_that_is_none_is_refused(tmp_path, read, kind, says):
    with pytest.raises(kind, match=says):
        read(make(tmp_path))


# --- one position as a mag ----------------------------------------------------------------------------------


def test_views_along_an_axis_are_mags(tmp_path):
    mag = make(tmp_path)
    data = random((3, 30, 20, 10))
    mag.write(data)
    views = list(mag.views("t"))
    assert [type(view) for view in views] == [MagView] * 3
    assert views[1].box == BoundingBox((5, 6, 7), (30, 20, 10))
    for n, view in enumerate(views):
        np.testing.assert_array_equal(view.read(), data[n][None])
    assert len(list(views[1].cubes_on_disk())) == 3 * 2 * 2
    assert sum(views[1].map_cubes(np.count_nonzero)) == data[1].size
    assert pickle.loads(pickle.dumps(views[2])).read().sum() == views[2].read().sum()


def test_an_expression_of_one_position_is_written_to_another(tmp_path):
    mag = make(tmp_path, "tcxyz")
    data = random((3, 3, 30, 20, 10))
    mag.write(data)
    first, second = mag.at(t=0), mag.at(t=1)
    report = second.write(255 - first.to_dask(), offset=(5, 6, 7))
    assert report.cubes == 12
    np.testing.assert_array_equal(mag.read(t=1), 255 - data[0])
    np.testing.assert_array_equal(mag.read(t=(0, 3))[[0, 2]], data[[0, 2]])


@pytest.mark.parametrize("little", [False, True], ids=["whole", "in parts"])
def test_a_position_is_replaced_by_an_expression_of_itself(tmp_path, monkeypatch, little, leftovers):
    mag = make(tmp_path, "txyz", dtype="uint64", category="segmentation")
    data = random((3, 30, 20, 10), dtype="uint64")
    mag.write(data)
    if little:  # 16³ of uint64 is 32 KiB
        monkeypatch.setattr(LocalEngine, "task_memory", lambda self: 80 << 10)
    view = mag.at(t=1)
    view.write(view.to_dask(chunks=8) + 1000, offset=(5, 6, 7))
    np.testing.assert_array_equal(mag.read(t=1), data[1][None] + 1000)
    np.testing.assert_array_equal(mag.read(t=0), data[0][None])
    assert mag.layer.largest_segment_id == data[1].max() + 1000
    np.testing.assert_array_equal(stored(mag)[1, 5:35, 6:26, 7:17], data[1] + 1000)
    assert leftovers(view) == []


def test_a_failed_write_of_a_position_goes_on(tmp_path):
    mag = make(tmp_path)
    mag.write(random((3, 30, 20, 10)))
    view, fail = mag.at(t=2), tmp_path / "fail"
    fail.touch()
    seen = []

    def work(block):
        seen.append(block.shape)
        if fail.exists() and len(seen) > 3:
            raise RuntimeError("stopped")
        return block + np.uint8(1)

    array = da.ones((1, 48, 32, 32), dtype="uint8", chunks=(1, 16, 16, 16)).map_blocks(work, dtype="uint8")
    with pytest.raises(Exception, match="stopped"):
        view.write(array, offset=(0, 0, 0), job="again")
    fail.unlink()
    mag.at(t=1).write(np.full((30, 20, 10), 9, "uint8"), offset=(5, 6, 7))  # another position: another job
    view.write(array, offset=(0, 0, 0), job="again", resume=True)
    assert (mag.at(t=2).read((0, 0, 0), (48, 32, 32)) == 2).all()
    assert (mag.at(t=1).read((5, 6, 7), (30, 20, 10)) == 9).all()


def test_tasks_that_write_into_two_positions(tmp_path):
    mag = make(tmp_path)
    data = random((3, 30, 20, 10))
    mag.write(data)
    first, second = mag.at(t=0), mag.at(t=1)

    def move(args):
        view, _ = args
        block = view.read()
        second.write(block, offset=view.global_offset)
        view.write(block // 2)
        np.testing.assert_array_equal(second.read(view.global_offset, view.size), block)

    first.get_view().for_each_chunk(move, chunk_shape=(32, 32, 32))
    np.testing.assert_array_equal(mag.read(), [data[0] // 2, data[0], data[2]])


def test_what_a_lost_task_had_written_is_published_at_its_positions(tmp_path):
    mag = make(tmp_path)
    data = random((3, 30, 20, 10))
    mag.write(data)
    writes = TaskWrites()
    for position, value in ((1, 7), (2, 8)):
        writes.write(
            mag.at(t=position).place, np.full((1, 8, 8, 8), value, "uint8"), BoundingBox((8, 8, 8), (8, 8, 8))
        )
    assert writes.keep(str(tmp_path / "kept"))
    TaskWrites.kept(str(tmp_path / "kept")).publish(None)
    expected = data.copy()
    expected[1, 3:11, 2:10, 1:9] = 7
    expected[2, 3:11, 2:10, 1:9] = 8
    np.testing.assert_array_equal(mag.read(), expected)


# --- writing ------------------------------------------------------------------------------------------------


def test_boxes_and_bounds_grow_with_what_is_written(tmp_path):
    mag = make(tmp_path)
    mag.write(random((8, 8, 8)), absolute_offset=(60, 6, 7), t=6)
    assert raw(mag)["additionalAxes"] == [{"name": "t", "bounds": [0, 7], "index": 0}]
    assert mag.bounding_box == NDBoundingBox((0, 5, 6, 7), (7, 63, 20, 10), "txyz")
    assert stored(mag).shape == (7, 80, 32, 32)
    np.testing.assert_array_equal(
        mag.read((8, 8, 8), absolute_offset=(60, 6, 7), t=6), random((8, 8, 8))[None]
    )
    np.testing.assert_array_equal(stored(mag)[6, 60:68, 6:14, 7:15], random((8, 8, 8)))
    assert not mag.read(t=5).any()


def test_data_go_where_they_are_told(tmp_path):
    mag = make(tmp_path, "tcxyz")
    data = random((2, 3, 4, 5, 6))
    mag.write(data, absolute_offset=(10, 10, 10), t=(1, 3))
    np.testing.assert_array_equal(mag.read((4, 5, 6), absolute_offset=(10, 10, 10), t=(1, 3)), data)
    box = NDBoundingBox((0, 0, 8, 8, 8), (2, 3, 4, 5, 6), "tcxyz")
    mag.write(data, absolute_bounding_box=box)
    np.testing.assert_array_equal(mag.read(absolute_bounding_box=box), data)
    mag.write(data[0], absolute_bounding_box=BoundingBox((8, 8, 8), (4, 5, 6)), t=2)
    np.testing.assert_array_equal(mag.read((4, 5, 6), absolute_offset=(8, 8, 8), t=2), data[0])
    lazy = da.from_array(data + 1, chunks=(1, 3, 4, 5, 6))
    mag.write(lazy, absolute_bounding_box=box)
    np.testing.assert_array_equal(mag.read(absolute_bounding_box=box), data + 1)


@pytest.mark.parametrize(
    ("write", "kind", "says"),
    [
        (
            lambda mag: mag.write(random((4, 4))),
            InvalidValueError,
            r"along t, x, y, z are expected.*\(4, 4\)",
        ),
        (
            lambda mag: mag.write(random((2, 4, 4, 4)), t=1),
            InvalidValueError,
            "has 1 channels, the data have 2",
        ),
        (lambda mag: mag.write(random((2, 4, 4, 4)), t=(0, 3)), InvalidValueError, "2 positions along t"),
        (lambda mag: mag.write(random((4, 4, 4)), t=-1), OutOfBoundsError, "count from 0"),
        (lambda mag: mag.write(random((4, 4, 4)), t=3, allow_resize=False), OutOfBoundsError, "no t from 3"),
        (
            lambda mag: mag.write(random((99, 4, 4)), t=0, allow_resize=False),
            OutOfBoundsError,
            "leaves the layer's box",
        ),
        (lambda mag: mag.write(random((4, 4, 4)), w=1), AxisNotFoundError, "'w' is neither an option"),
        (lambda mag: mag.write(random((4, 4, 4), dtype="uint16"), t=0), ValueError, "uint16"),
        (
            lambda mag: mag.write(
                random((1, 4, 4, 4)), absolute_bounding_box=NDBoundingBox((0, 0, 0, 0), (1, 4, 4, 5), "txyz")
            ),
            InvalidValueError,
            "the data span",
        ),
    ],
)
def test_a_write_that_cannot_work_is_refused(tmp_path, write, kind, says):
    mag = make(tmp_path)
    before = raw(mag), stored(mag).shape, sorted(os.listdir(mag.path))
    with pytest.raises(kind, match=says):
        write(mag)
    assert (raw(mag), stored(mag).shape) == before[:2]


def test_coarser_mags_are_written_as_such(tmp_path):
    layer = make(tmp_path).layer
    layer.bounding_box = BoundingBox((0, 0, 0), (30, 20, 10))
    mag = layer.add_mag("2-2-1", chunk_shape=8, shard_shape=16)
    data = random((3, 15, 10, 10))
    mag.write(data)
    assert stored(mag).shape == (3, 16, 16, 16)
    np.testing.assert_array_equal(mag.read(), data)
    np.testing.assert_array_equal(
        mag.read((2, 2, 1), absolute_offset=(4, 2, 3), t=1), data[1:2, 2:3, 1:2, 3:4]
    )
    with pytest.raises(AlignmentError):
        mag.read((1, 1, 1), absolute_offset=(1, 1, 1), t=0)


# --- what is refused by name ----------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", ["wkw", "zarr"])
def test_other_formats_do_not_get_further_axes(tmp_path, data_format):
    dataset = Dataset.create(tmp_path / "ds", (1, 1, 1))
    box = NDBoundingBox((0, 0, 0, 0), (3, 8, 8, 8), "txyz")
    with pytest.raises(
        UnsupportedFormatError, match=f"c, x, y, z \\(t\\) are written in Zarr 3 only, not in '{data_format}'"
    ):
        dataset.add_layer("l", "color", bounding_box=box, data_format=data_format)
    assert list(dataset.layers) == []
    assert not os.path.exists(tmp_path / "ds" / "l")


@pytest.mark.parametrize(
    ("box", "channels", "kind", "says"),
    [
        (NDBoundingBox((0, 0, 0, 0), (8, 8, 8, 3), "xyzt"), 1, UnsupportedFormatError, "x, y, z last"),
        (NDBoundingBox((0, 0, 0, 0), (3, 8, 8, 8), "tzyx"), 1, UnsupportedFormatError, "x, y, z last"),
        (NDBoundingBox((0, 0, 0, 0), (3, 8, 8, 8), "txyz"), 3, UnsupportedFormatError, "needs the axis c"),
        (NDBoundingBox((0, 0, 0, 0, 0), (3, 2, 8, 8, 8), "tcxyz"), 3, InvalidValueError, "has 3 channels"),
        (NDBoundingBox((-1, 0, 0, 0), (3, 8, 8, 8), "txyz"), 1, InvalidValueError, "count from 0"),
        (NDBoundingBox((0, 0, 0), (8, 8, 8), "zyx"), 1, UnsupportedFormatError, "the axes c, x, y, z"),
    ],
)
def test_axes_that_are_not_written_are_refused(tmp_path, box, channels, kind, says):
    dataset = Dataset.create(tmp_path / "ds", (1, 1, 1))
    with pytest.raises(kind, match=says):
        dataset.add_layer("l", "color", bounding_box=box, data_format="zarr3", num_channels=channels)
    assert list(dataset.layers) == []


def test_a_box_without_further_axes_makes_a_plain_layer(tmp_path):
    dataset = Dataset.create(tmp_path / "ds", (1, 1, 1))
    box = NDBoundingBox((0, 1, 2), (8, 9, 10), "xyz")
    layer = dataset.add_layer("l", "color", bounding_box=box)
    assert layer.bounding_box == BoundingBox((0, 1, 2), (8, 9, 10))
    assert layer.normalized_bounding_box == BoundingBox((0, 1, 2), (8, 9, 10)).normalize_axes(1)
    assert type(layer.add_mag(1, shard_shape=32)) is MagView


def test_the_place_of_channels_may_be_left_in_the_index(tmp_path):
    dataset = Dataset.create(tmp_path / "ds", (1, 1, 1))
    box = NDBoundingBox((0, 0, 0, 0), (3, 8, 8, 8), "txyz", (1, 2, 3, 4))
    layer = dataset.add_layer("l", "color", bounding_box=box, data_format="zarr3", num_channels=2)
    mag = layer.add_mag(1, chunk_shape=8, shard_shape=8)
    assert mag.axes == ("c", "t", "x", "y", "z")
    data = random((2, 3, 8, 8, 8))
    mag.write(data)
    np.testing.assert_array_equal(stored(mag)[...], data)


def test_jobs_on_all_positions_say_that_they_work_on_one(tmp_path):
    mag = make(tmp_path)
    mag.write(random((3, 30, 20, 10)))
    layer = mag.layer
    says = r"mag 1: zarr3 arrays with axes beside c, x, y, z \(t\).*mag.at\(t=0\) is a mag for the rest"
    for work in (
        lambda: mag.map_cubes(np.max),
        lambda: mag.compress(),
        lambda: Dataset(layer.dataset_path).copy_dataset(tmp_path / "copy"),
        lambda: mag.spec,
    ):
        with pytest.raises(UnsupportedFormatError, match=says):
            work()
    assert [record.mag for record in layer.record.mags] == [1]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mag.nothing
    assert "3 t × 30 x × 20 y × 10 z" in repr(Dataset(layer.dataset_path))
    assert "axes t, x, y, z" in repr(mag)


def test_one_position_is_not_written_with_a_pyramid(tmp_path):
    mag = make(tmp_path)
    data = random((3, 30, 20, 10))
    mag.write(data)
    before = raw(mag)
    with pytest.raises(UnsupportedFormatError, match=r"'l' has axes beside.*\(t\).*redownsample"):
        mag.at(t=1).write(data[1], offset=(5, 6, 7), pyramid=True)
    assert raw(mag) == before


def test_one_position_is_not_stored_otherwise(tmp_path):
    mag = make(tmp_path)
    data = random((3, 30, 20, 10))
    mag.write(data)
    before = raw(mag)
    for work in (
        lambda: mag.at(t=1).compress(),
        lambda: mag.at(t=1).rechunk(chunk_shape=8, shard_shape=32),
    ):
        with pytest.raises(UnsupportedFormatError, match=r"\(t\): an array is cut and compressed alike"):
            work()
    assert raw(mag) == before
    np.testing.assert_array_equal(mag.read(), data)
    mag.at(t=1).rechunk(chunk_shape=8, shard_shape=32, target_path=tmp_path / "one")
    one = Dataset(tmp_path / "one").get_layer("l").get_mag(1)
    assert one.spec.shard_shape == (32, 32, 32)
    np.testing.assert_array_equal(one.read(), data[1][None])


def test_a_mag_that_lacks_the_axes_is_not_listed(tmp_path):
    mag = make(tmp_path)
    mag.write(random((3, 30, 20, 10)))
    plain = Dataset.create(tmp_path / "plain", (1, 1, 1)).add_layer("p", "color", data_format="zarr3")
    other = plain.add_mag(2, chunk_shape=8, shard_shape=16)
    other.write(random((8, 8, 8)))
    layer, before = mag.layer, raw(mag)
    for work in (
        lambda: layer.add_symlink_mag(other),
        lambda: layer.add_mag_as_ref(other),
        lambda: layer.add_copy_mag(other),
        lambda: layer.add_fs_copy_mag(other),
        lambda: layer.add_mag_from_zarrarray(2, other.path),
    ):
        with pytest.raises(
            (InvalidValueError, UnsupportedFormatError), match=r"'l' has axes beside.*\(t\).*mag 2"
        ):
            work()
    assert raw(mag) == before
    assert sorted(name for name in os.listdir(layer.path) if not name.startswith(".")) == ["1"]
    assert layer.get_mag(1).read(t=0).shape == (1, 30, 20, 10)


def test_a_mag_is_added_once_and_deleted(tmp_path):
    mag = make(tmp_path)
    with pytest.raises(AlreadyExistsError):
        mag.layer.add_mag(1)
    mag.layer.delete_mag(1)
    assert not os.path.exists(mag.path)
    assert raw(mag)["additionalAxes"] == [{"name": "t", "bounds": [0, 3], "index": 0}]
    again = mag.layer.add_mag(1, chunk_shape=8, shard_shape=16)  # the order of axes is not lost with the mags
    assert again.axes == ("t", "x", "y", "z")


# --- the layer's box ------------------------------------------------------------------------------------------


def test_the_box_of_a_layer_along_all_axes(tmp_path):
    mag = make(tmp_path, "tcxyz")
    layer = mag.layer
    expected = NormalizedBoundingBox((0, 0, 5, 6, 7), (3, 3, 30, 20, 10), "tcxyz")
    assert layer.normalized_bounding_box == mag.normalized_bounding_box == expected
    box = layer.bounding_box
    assert type(box) is NDBoundingBox
    assert (box.axes, *box.topleft, *box.size) == (tuple("tcxyz"), 0, 0, 5, 6, 7, 3, 3, 30, 20, 10)
    assert BoundingBox(box.topleft_xyz, box.size_xyz) == mag.at(t=0).bounding_box
    assert layer.dataset.calculate_bounding_box() == BoundingBox((5, 6, 7), (30, 20, 10))
    layer.bounding_box = box.with_bounds("t", 0, 2)
    assert layer.bounding_box.get_bounds("t") == (0, 2)
    layer.bounding_box = NDBoundingBox((1, 0, 0, 0, 0), (5, 3, 8, 8, 8), "tcxyz")
    assert raw(mag)["additionalAxes"] == [{"name": "t", "bounds": [1, 6], "index": 0}]
    assert mag.read().shape == (5, 3, 8, 8, 8)
    layer.bounding_box = BoundingBox((0, 0, 0), (4, 4, 4))
    assert raw(mag)["additionalAxes"] == [{"name": "t", "bounds": [1, 6], "index": 0}]
    with pytest.raises(InvalidValueError, match="no axis 'w'"):
        layer.bounding_box = NDBoundingBox((1, 0, 0, 0), (5, 8, 8, 8), "wxyz")


def test_unknown_keys_of_an_axis_stay(tmp_path):
    mag = make(tmp_path)
    edit(mag, lambda layer: layer["additionalAxes"][0].update(unit="second"))
    mag.write(random((4, 4, 4)), t=5)
    assert raw(mag)["additionalAxes"] == [{"name": "t", "bounds": [0, 6], "index": 0, "unit": "second"}]
    mag.layer.bounding_box = NDBoundingBox((0, 0, 0, 0), (9, 8, 8, 8), "txyz")
    assert raw(mag)["additionalAxes"] == [{"name": "t", "bounds": [0, 9], "index": 0, "unit": "second"}]


# --- arrays of other programs -----------------------------------------------------------------------------------


def foreign(tmp_path, axes, chunks, shape=None, data_format="zarr3"):
    """Return the mag of an array that zarr-python made, and the array."""
    channels = 2 if "c" in axes else 1
    shape = shape or sizes_of(axes, channels)
    dataset = Dataset.create(tmp_path / "ds", (1, 1, 1))
    layer = dataset.add_layer("l", "color", data_format=data_format, num_channels=channels)
    data = random(shape)
    array = zarr.create_array(
        tmp_path / "ds" / "l" / "1", shape=shape, chunks=chunks, dtype="uint8",
        zarr_format=3 if data_format == "zarr3" else 2,
    )  # fmt: skip
    array[...] = data
    further = [
        {"name": axis, "bounds": [0, shape[n]], "index": n}
        for n, axis in enumerate(axes)
        if axis not in "cxyz"
    ]
    entry = {
        "mag": [1, 1, 1],
        "path": "./l/1",
        "axisOrder": {axis: n for n, axis in enumerate(axes) if axis in "cxyz"},
    }
    box = {"topLeft": [0, 0, 0], "width": 30, "height": 20, "depth": 10}
    path = tmp_path / "ds" / "datasource-properties.json"
    content = json.loads(path.read_text())
    content["dataLayers"][0].update(additionalAxes=further, mags=[entry], boundingBox=box)
    path.write_text(json.dumps(content))
    return layer, data


@pytest.mark.parametrize(
    ("axes", "chunks"),
    [
        ("tzyx", (1, 10, 8, 8)),
        ("tczyx", (1, 2, 10, 8, 8)),
        ("txyzc", (1, 8, 8, 8, 2)),
        ("ctzyx", (2, 1, 5, 8, 8)),
    ],
)
def test_arrays_of_other_orders_are_read_and_written_position_by_position(tmp_path, axes, chunks):
    layer, data = foreign(tmp_path, axes, chunks)
    mag = layer.get_mag(1)
    np.testing.assert_array_equal(mag.read(), data)
    np.testing.assert_array_equal(mag.to_dask().compute(), data)
    plane = np.take(data, 1, axes.index("t")).transpose([axes.replace("t", "").index(a) for a in axes if a == "c"]
        + [axes.replace("t", "").index(a) for a in "xyz"])  # fmt: skip
    plane = plane if "c" in axes else plane[None]
    np.testing.assert_array_equal(mag.read(t=1), plane)
    mag.write(255 - plane, absolute_offset=(0, 0, 0), t=1)
    np.testing.assert_array_equal(mag.read(t=1), 255 - plane)
    inverted = data.copy()
    index = tuple(1 if axis == "t" else slice(None) for axis in axes)
    inverted[index] = 255 - data[index]
    np.testing.assert_array_equal(stored(mag)[tuple(slice(0, n) for n in data.shape)], inverted)


def is_channel(layer, number):
    """Let the properties say that a layer has one channel of its array."""
    path = os.path.join(layer.dataset_path, "datasource-properties.json")
    with open(path) as file:
        content = json.load(file)
    content["dataLayers"][0].update(numChannels=1, elementClass="uint8")
    content["dataLayers"][0]["mags"][0]["channelIndex"] = number
    with open(path, "w") as file:
        json.dump(content, file)
    return Dataset(layer.dataset_path).get_layer("l")


@pytest.mark.parametrize(
    ("axes", "chunks", "data_format"),
    [
        ("tczyx", (1, 2, 10, 8, 8), "zarr3"),
        ("tczyx", (1, 1, 5, 8, 8), "zarr3"),
        ("xyzct", (8, 8, 8, 1, 2), "zarr"),
    ],
)
def test_one_channel_of_an_array_of_several_is_read(tmp_path, axes, chunks, data_format):
    layer, data = foreign(tmp_path, axes, chunks, data_format=data_format)
    at = axes.index("c")
    for number in range(2):
        mag = is_channel(layer, number).get_mag(1)
        expected = np.take(data, [number], at)
        assert mag.num_channels == 1
        np.testing.assert_array_equal(mag.read(), expected)
        np.testing.assert_array_equal(mag.to_dask().compute(), expected)
        box = mag.bounding_box.with_bounds("x", 16, 8).with_bounds("t", 1, 2)
        index = {"x": slice(16, 24), "t": slice(1, 3)}
        part = expected[tuple(index.get(axis, slice(None)) for axis in axes)]
        np.testing.assert_array_equal(mag.read(absolute_bounding_box=box), part)
    for work in (
        lambda: mag.at(t=1),
        lambda: mag.write(np.ones((4, 4, 4), "uint8"), absolute_offset=(0, 0, 0), t=1),
    ):
        with pytest.raises(UnsupportedFormatError, match=r"a channel of an array of several|Zarr 3 only"):
            work()
    np.testing.assert_array_equal(stored(mag)[tuple(slice(0, n) for n in data.shape)], data)


def test_how_a_mag_is_stored(tmp_path):
    info = make(tmp_path, "tcxyz").info
    assert (info.chunk_shape, info.shard_shape, info.chunks_per_shard) == ((8,) * 3, (16,) * 3, (2,) * 3)
    assert (info.data_format, info.num_channels, info.voxel_type) == ("zarr3", 3, np.uint8)
    assert (info.compression_mode, info.compression, info.ndim) == (True, "zstd", 5)
    assert info.bounding_box == NormalizedBoundingBox((0, 0, 5, 6, 7), (3, 3, 30, 20, 10), "tcxyz")


@pytest.mark.parametrize("data_format", ["zarr3", "zarr"])
def test_how_an_array_of_others_is_stored(tmp_path, data_format):
    layer, _ = foreign(tmp_path, "zyxt", (5, 6, 7, 2), data_format=data_format)
    info = layer.get_mag(1).info
    assert (info.chunk_shape, info.shard_shape) == ((7, 6, 5), (7, 6, 5))
    assert (info.data_format, info.compression) == (data_format, "zstd")
    assert info.bounding_box == NormalizedBoundingBox((0, 0, 0, 0), (10, 20, 30, 3), "zyxt")


def test_a_channel_that_there_is_not(tmp_path):
    layer, _ = foreign(tmp_path, "tczyx", (1, 2, 10, 8, 8))
    with pytest.raises(DamagedHeaderError, match="1 channels of uint8, from channel 2 on,"):
        is_channel(layer, 2).get_mag(1)
    with pytest.raises(PropertiesError, match="channelIndex"):
        is_channel(layer, -1).get_mag(1)
    with pytest.raises(PropertiesError, match="channelIndex"):
        is_channel(layer, "x").get_mag(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axes", "chunks", "data_format"),
    [
        ("xyzt", (8, 8, 8, 1), "zarr3"),
        ("tzyx", (2, 10, 8, 8), "zarr3"),
        ("tczyx", (1, 1, 10, 8, 8), "zarr3"),
        ("txyz", (1, 8, 8, 8), "zarr"),
    ],
)
def test_arrays_whose_positions_are_no_folders_are_read_only(tmp_path, axes, chunks, data_format):
    layer, data = foreign(tmp_path, axes, chunks, data_format=data_format)
    mag = layer.get_mag(1)
    np.testing.assert_array_equal(mag.read(), data)
    np.testing.assert_array_equal(mag.to_dask().compute(), data)
    box = NDBoundingBox([{"t": 1, "c": 0}.get(axis, 2) for axis in axes],
                        [{"t": 2, "c": 2}.get(axis, 99) for axis in axes], axes)  # fmt: skip
    part = data[tuple(slice({"t": 1, "c": 0}.get(axis, 2), None) for axis in axes)]
    found = mag.read(absolute_bounding_box=box)
    assert found.shape == tuple(box.size)
    np.testing.assert_array_equal(found[tuple(slice(0, n) for n in part.shape)], part)
    assert found.sum() == part.sum()
    np.testing.assert_array_equal(mag.to_dask(absolute_bounding_box=box).compute(), found)
    plane = np.moveaxis(data, axes.index("t"), 0)[2]
    assert mag.read(t=2).sum() == plane.sum()
    assert mag.read(t=2).shape == (mag.num_channels, 30, 20, 10)
    with pytest.raises(UnsupportedFormatError, match=r"positions|further|Zarr 3 only"):
        mag.at(t=1)
    with pytest.raises(UnsupportedFormatError, match=r"positions|further|Zarr 3 only"):
        mag.write(np.zeros((mag.num_channels, 4, 4, 4), "uint8"), absolute_offset=(0, 0, 0), t=1)
    np.testing.assert_array_equal(stored(mag)[...], data)


def test_wkw_has_no_further_axes(tmp_path):
    layer, _ = foreign(tmp_path, "txyz", (1, 8, 8, 8))
    edit(layer.get_mag(1), lambda raw_layer: raw_layer.update(dataFormat="wkw"))
    with pytest.raises(
        UnsupportedFormatError, match="WKW has no axes beside c, x, y, z, but the properties say t"
    ):
        layer.get_mag(1)


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (lambda raw: raw.update(additionalAxes=[{"name": "t"}]), PropertiesError, "name, bounds and index"),
        (
            lambda raw: raw.update(additionalAxes=[{"name": "t", "bounds": [3, 1], "index": 0}]),
            PropertiesError,
            "name, bounds and index",
        ),
        (
            lambda raw: raw["additionalAxes"].append(raw["additionalAxes"][0]),
            PropertiesError,
            "the same axis",
        ),
        (lambda raw: raw["mags"][0].pop("axisOrder"), PropertiesError, "does not say where x is"),
        (lambda raw: raw["mags"][0]["axisOrder"].update(x=7), PropertiesError, "do not number the axes"),
        (lambda raw: raw.update(elementClass="uint16"), DamagedHeaderError, "uint16"),
    ],
)
def test_properties_that_contradict_themselves_are_named(tmp_path, change, kind, says):
    layer, _ = foreign(tmp_path, "txyz", (1, 8, 8, 8))
    edit(layer.get_mag(1), change)
    with pytest.raises(kind, match=says):
        layer.get_mag(1)


def test_a_mag_that_is_gone_is_no_zeros(tmp_path):
    mag = make(tmp_path)
    mag.write(random((3, 30, 20, 10)))
    view = mag.at(t=1)
    os.rename(os.path.join(mag.path, "zarr.json"), os.path.join(mag.path, "away"))
    for read in (view.read, mag.read, lambda: mag.layer.get_mag(1)):
        with pytest.raises(DamagedHeaderError, match=r"zarr\.json is missing"):
            read()


def test_handles_travel(tmp_path):
    mag = make(tmp_path)
    mag.write(random((3, 30, 20, 10)))
    again = pickle.loads(pickle.dumps(mag))
    assert isinstance(again, NDMagView)
    assert again == mag
    assert hash(again) == hash(mag)
    np.testing.assert_array_equal(again.read(), mag.read())


@pytest.mark.slow
@pytest.mark.cluster
def test_workers_write_positions(tmp_path, client):
    mag = make(tmp_path, "tcxyz")
    data = random((3, 3, 30, 20, 10))
    mag.write(da.from_array(data, chunks=(1, 3, 16, 16, 16)), client=client)
    np.testing.assert_array_equal(mag.read(), data)

    def invert(args):
        view, _ = args
        view.write(255 - view.read())

    mag.at(t=1).get_view().for_each_chunk(invert, chunk_shape=(32, 32, 32), client=client)
    np.testing.assert_array_equal(mag.read(t=1), 255 - data[1])
    view = mag.at(t=2)
    view.write(255 - view.to_dask(), offset=(5, 6, 7), client=client)
    expected = np.stack([data[0], 255 - data[1], 255 - data[2]])
    np.testing.assert_array_equal(mag.to_dask().compute(scheduler=client), expected)
    np.testing.assert_array_equal(stored(mag)[mag.bounding_box.to_slices()], expected)


@pytest.mark.parametrize("axes", ["zyx", "czyx"])
def test_arrays_of_other_orders_are_replaced_in_parts(tmp_path, monkeypatch, axes):
    layer = Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer("l", "color", "uint64", data_format="zarr3")
    sides = {side: tuple(1 if axis == "c" else side for axis in axes) for side in (8, 16, 32)}
    array = zarr.create_array(
        tmp_path / "ds" / "l" / "1", shape=sides[32], chunks=sides[8], shards=sides[16], dtype="uint64"
    )
    path = tmp_path / "ds" / "datasource-properties.json"
    content = json.loads(path.read_text())
    order = {axis: n for n, axis in enumerate(axes)}
    content["dataLayers"][0].update(
        mags=[{"mag": [1, 1, 1], "path": "./l/1", "axisOrder": order}],
        boundingBox={"topLeft": [0, 0, 0], "width": 32, "height": 32, "depth": 32},
    )
    path.write_text(json.dumps(content))
    mag, data = layer.get_mag(1), random((1, 32, 32, 32), dtype="uint64")
    mag.write(data, offset=(0, 0, 0))
    monkeypatch.setattr(LocalEngine, "task_memory", lambda self: 80 << 10)
    mag.write(mag.to_dask(chunks=8) + 1, offset=(0, 0, 0))
    np.testing.assert_array_equal(mag.read(), data + 1)
    np.testing.assert_array_equal(array[...].reshape(32, 32, 32).transpose(), data[0] + 1)


@pytest.mark.parametrize("add", ["add_copy_mag", "add_mag_as_ref", "add_symlink_mag"])
def test_a_mag_of_further_axes_is_not_copied_as_one(tmp_path, add):
    mag = make(tmp_path)
    layer = Dataset.create(tmp_path / "other", (1, 1, 1)).add_layer("l", "color", data_format="zarr3")
    with pytest.raises(UnsupportedFormatError, match=r"mag\.at\(t=0\) is a mag for the rest"):
        getattr(layer, add)(mag)
    assert list(layer.mags) == []
