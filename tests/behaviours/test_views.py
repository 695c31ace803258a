"""The acceptance behaviours 22 to 49 of the Dataset API, one test each: reading, writing, views.

See `test_behaviours.py` and `docs/behaviours.md`.
"""

import itertools
import json
import os
import pickle
import warnings

import numpy as np
import pytest

from wkdask import BoundingBox, Dataset, LayerCategories, Mag, NDBoundingBox, Vec3Int, View
from wkdask.errors import (
    AlignmentError,
    AlreadyExistsError,
    ChannelError,
    DamagedHeaderError,
    DTypeError,
    InvalidValueError,
    OutOfBoundsError,
    ReadOnlyError,
    TaskFailedError,
    WkdaskWarning,
)

COLOR = LayerCategories.COLOR_TYPE
SMALL = {"block_len": 16, "file_len": 2}


def raw(mag):
    """Return the properties file of a mag's dataset as JSON."""
    with open(os.path.join(mag.layer.dataset_path, "datasource-properties.json")) as file:
        return json.load(file)


def check_reopened(mag):
    """Check that a dataset opened anew has the same layer, and the same voxels."""
    again = Dataset(mag.layer.dataset_path).get_layer(mag.layer.name)
    assert again.bounding_box == mag.layer.bounding_box
    assert again.get_mag(mag.mag).spec == mag.spec
    assert np.array_equal(again.get_mag(mag.mag).read(), mag.read())


def ramp(*shape, dtype="uint8", start=0):
    """Return voxels that all differ from their neighbours, none of them zero."""
    return ((np.arange(np.prod(shape), dtype="int64") + start) % 251 + 1).reshape(shape).astype(dtype)


def placed(array, box, size):
    """Return a larger array of zeros with an array in it."""
    out = np.zeros((array.shape[0], *size), array.dtype)
    out[(slice(None), *box.to_slices())] = array
    return out


# --- reading and writing --------------------------------------------------------------------------------


def test_22_an_empty_mag_reads_zeros(make_mag):
    expected = np.zeros((3, 10, 10, 10), "uint8")
    mag = make_mag(channels=3)
    for found in (mag.read((0, 0, 0), (10, 10, 10)), mag.read(offset=(500, 0, 7), size=(10, 10, 10))):
        assert np.array_equal(found, expected)
        assert found.dtype == np.uint8
        assert found.flags.f_contiguous
    assert mag.layer.bounding_box.is_empty()
    assert list(mag.get_bounding_boxes_on_disk()) == []


def test_23_sizes_of_zero_and_negative_offsets(make_mag, state_of):
    mag = make_mag()
    mag.write(ramp(1, 10, 10, 10))
    before = state_of(mag)
    assert mag.read(size=(0, 10, 10)).shape == (1, 0, 10, 10)  # a read of nothing is nothing
    view = mag.get_view(size=(10, 0, 10))
    assert (view.box.is_empty(), view.read().shape) == (True, (1, 10, 0, 10))  # and so is a view
    with pytest.raises(InvalidValueError, match="no voxel"):
        mag.write(np.zeros((1, 0, 10, 10), "uint8"))
    for wrong in (
        lambda: mag.read(offset=(-1, 0, 0)),
        lambda: mag.read(offset=(0, 0, 0), size=(1, -1, 1)),
        lambda: mag.write(ramp(1, 2, 2, 2), offset=(0, 0, -1)),
        lambda: mag.get_view().read(offset=(0, -1, 0)),
        lambda: mag.get_view().write(ramp(1, 2, 2, 2), offset=(0, 0, -1)),
    ):
        with pytest.raises(ValueError, match="-1"):
            wrong()
    assert state_of(mag) == before


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_24_three_channels_round_trip(make_mag, dtype):
    expected = ramp(3, 250, 200, 10, dtype=dtype)
    mag = make_mag(dtype, 3, cube=64, chunk=32)
    mag.write(expected)
    assert np.array_equal(mag.read(), expected)
    check_reopened(mag)


def test_25_data_that_do_not_fit_change_nothing(make_mag, state_of):
    one, three = make_mag(), make_mag(channels=3)
    for mag in (one, three):
        mag.write(ramp(mag.num_channels, 8, 8, 8))
        before = state_of(mag)
        for data, error in [
            (ramp(4 - mag.num_channels, 20, 20, 20), ChannelError),
            (ramp(20, 20, 20) if mag is three else ramp(2, 20, 20, 20), ChannelError),
            (ramp(mag.num_channels, 20, 20, 20, dtype="uint16"), DTypeError),
            (ramp(20, 20), InvalidValueError),
            (ramp(1, mag.num_channels, 20, 20, 20), InvalidValueError),
            ([[[1]]], InvalidValueError),
        ]:
            with pytest.raises(error) as caught:
                mag.write(data, offset=(40, 40, 40))
            assert isinstance(caught.value, ValueError)
        assert state_of(mag) == before
        check_reopened(mag)
    one.write(ramp(20, 20, 20))  # (x, y, z) where there is one channel
    assert np.array_equal(one.read(), ramp(1, 20, 20, 20))


def test_26_the_box_is_around_what_was_written(make_mag):
    mag = make_mag()
    mag.write(ramp(1, 10, 10, 10), offset=(10, 10, 10))
    assert mag.layer.bounding_box == BoundingBox((10, 10, 10), (10, 10, 10))
    mag.write(ramp(1, 10, 10, 10), offset=(5, 5, 20))
    assert mag.layer.bounding_box == BoundingBox((5, 5, 10), (15, 15, 20))
    assert raw(mag)["dataLayers"][0]["boundingBox"] == {
        "topLeft": [5, 5, 10], "width": 15, "height": 15, "depth": 20,
    }  # fmt: skip
    assert mag.global_offset == (0, 0, 0)
    assert mag.size == (20, 20, 30)
    check_reopened(mag)


def test_27_the_box_grows_along_one_axis(make_mag):
    mag = make_mag(channels=3)
    mag.layer.bounding_box = BoundingBox((0, 0, 0), (24, 24, 24))
    mag.write(ramp(3, 1, 1, 48), offset=(0, 0, 0))
    assert mag.layer.bounding_box == BoundingBox((0, 0, 0), (24, 24, 48))
    check_reopened(mag)


def test_28_a_coarse_write_grows_the_box_in_voxels_of_mag_1(make_mag):
    expected = ramp(1, 50, 1, 48)
    mag = make_mag(mag="2-2-1")
    mag.layer.set_bounding_box((0, 0, 0), (24, 24, 24))
    mag.write(expected, offset=(10, 10, 10))
    assert mag.layer.bounding_box == BoundingBox((0, 0, 0), (120, 24, 58))
    assert mag.size == (60, 12, 58)
    assert np.array_equal(mag.read(bounding_box=BoundingBox((20, 20, 10), (100, 2, 48))), expected)
    assert np.array_equal(mag.read(offset=(10, 10, 10), size=(50, 1, 48)), expected)
    odd = make_mag(mag="2-2-1")  # a box that ends within a voxel of the mag stays as it is, as in version 4
    odd.layer.set_bounding_box((1, 1, 0), (22, 22, 24))
    odd.write(ramp(1, 12, 12, 24), offset=(0, 0, 0))
    assert odd.layer.bounding_box == BoundingBox((1, 1, 0), (22, 22, 24))
    check_reopened(mag)


def test_29_nothing_is_written_outside_of_a_view(make_mag, state_of):
    mag = make_mag()
    mag.write(ramp(1, 60, 60, 60))
    view = mag.get_view(offset=(10, 10, 10), size=(20, 20, 20))
    before = state_of(mag)
    for data, offset in [
        (ramp(1, 21, 20, 20), None),
        (ramp(1, 10, 10, 10), (15, 0, 0)),
        (ramp(1, 1, 1, 1), (20, 0, 0)),
    ]:
        with pytest.raises(OutOfBoundsError) as caught:
            view.write(data, offset=offset)
        assert isinstance(caught.value, ValueError)
    assert state_of(mag) == before


def test_30_writes_of_a_mag_grow_the_box_without_a_flag(make_mag):
    expected = placed(ramp(1, 8, 8, 8), BoundingBox((0, 0, 0), (8, 8, 8)), (40, 40, 40))
    expected[:, 20:, 20:, 20:] = ramp(1, 20, 20, 20)
    mag = make_mag()
    mag.write(ramp(1, 8, 8, 8))
    mag.write(ramp(1, 20, 20, 20), offset=(20, 20, 20))
    assert mag.layer.bounding_box == BoundingBox((0, 0, 0), (40, 40, 40))
    assert np.array_equal(mag.read(), expected)
    report = mag.write(ramp(1, 20, 20, 20), offset=(20, 20, 20))  # and within the box nothing grows
    assert report.bounding_box == BoundingBox((20, 20, 20), (20, 20, 20))
    assert mag.layer.bounding_box == BoundingBox((0, 0, 0), (40, 40, 40))
    check_reopened(mag)


@pytest.mark.parametrize("compression", [None, "lz4", "lz4hc"])
def test_31_unaligned_writes_are_merged(make_mag, compression):
    mag = make_mag(cube=16, chunk=16, compression=compression)
    expected = ramp(1, 48, 48, 48)
    mag.write(expected)
    for offset, side in [((6, 6, 6), 4), ((14, 14, 14), 4), ((16, 16, 16), 16), ((0, 0, 16), 32)]:
        block = ramp(1, side, side, side, start=99)
        mag.write(block, offset=offset)
        expected[(slice(None), *BoundingBox(offset, block.shape[1:]).to_slices())] = block
        assert np.array_equal(mag.read(), expected)
    check_reopened(mag)


def test_32_shape_and_box_must_agree(make_mag, state_of):
    mag = make_mag()
    mag.write(ramp(1, 20, 20, 20))
    before = state_of(mag)
    with pytest.raises(InvalidValueError, match=r"\(20, 20, 20\)"):
        mag.write(ramp(1, 20, 20, 20), bounding_box=BoundingBox((0, 0, 0), (20, 20, 21)))
    with pytest.raises(InvalidValueError, match="either"):
        mag.write(ramp(1, 2, 2, 2), offset=(0, 0, 0), bounding_box=BoundingBox((0, 0, 0), (2, 2, 2)))
    view = mag.get_view(read_only=True)
    assert view.read_only
    for write in (
        lambda: view.write(ramp(1, 20, 20, 20)),
        lambda: view.get_buffered_slice_writer(),
    ):
        with pytest.raises(ReadOnlyError) as caught:
            write()
        assert isinstance(caught.value, ValueError)
    assert state_of(mag) == before


def test_33_the_box_says_what_is_read_and_never_touches_data(make_mag):
    data = ramp(1, 40, 40, 40)
    mag = make_mag()
    mag.write(data, offset=(10, 10, 10))
    whole = mag.layer.bounding_box
    for box in (
        BoundingBox((10, 10, 10), (5, 6, 7)),  # shrunk
        BoundingBox((0, 0, 0), (60, 60, 60)),  # grown
        BoundingBox((20, 30, 40), (40, 40, 40)),  # shifted
        whole,
    ):
        expected = placed(data, whole, (80, 80, 80))[(slice(None), *box.to_slices())]
        mag.layer.bounding_box = box
        assert np.array_equal(mag.read(), expected)
        assert np.array_equal(mag.get_view().read(), expected)
        assert mag.size == box.bottomright  # from the origin on, as in 2021
        assert np.array_equal(mag.read(offset=(10, 10, 10), size=(40, 40, 40)), data)
    assert np.array_equal(mag.read(size=(3, 3, 3)), data[:, :3, :3, :3])  # from the box's corner on
    assert np.array_equal(mag.read(offset=(12, 12, 12)), data[:, 2:, 2:, 2:])  # to the box's far corner
    check_reopened(mag)


def test_34_a_write_across_eight_compressed_cubes(make_mag):
    expected = ramp(1, 10, 10, 10)
    mag = make_mag(cube=32, compression="lz4hc")
    report = mag.write(expected, offset=(27, 27, 27))
    assert report.cubes == 8
    assert np.array_equal(mag.read(offset=(27, 27, 27), size=(10, 10, 10)), expected)
    around = placed(expected, BoundingBox((27, 27, 27), (10, 10, 10)), (64, 64, 64))
    assert np.array_equal(mag.read(offset=(0, 0, 0), size=(64, 64, 64)), around)
    check_reopened(mag)


@pytest.mark.parametrize("channels", [1, 3])
def test_35_an_unaligned_write_keeps_the_other_voxels_of_a_compressed_cube(make_mag, channels):
    expected = ramp(channels, 60, 60, 60)
    mag = make_mag(channels=channels, cube=32, compression="lz4hc")
    mag.write(expected)
    view = mag.get_view(offset=(10, 20, 30), size=(25, 25, 25))  # covers no cube
    part = view.get_view(offset=(3, 3, 3), size=(20, 20, 20))
    block = ramp(channels, 7, 8, 9, start=50)
    part.write(block, offset=(5, 5, 5))
    expected[:, 18:25, 28:36, 38:47] = block
    assert np.array_equal(mag.read(), expected)
    assert np.array_equal(part.read(), expected[:, 13:33, 23:43, 33:53])
    check_reopened(mag)


def test_36_a_write_that_ends_at_the_boxs_border_warns_of_nothing(make_mag):
    expected = ramp(1, 50, 50, 50)
    mag = make_mag(cube=32, compression="lz4hc")
    mag.layer.bounding_box = BoundingBox((0, 0, 0), (50, 50, 50))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for corner in itertools.product((0, 32), repeat=3):
            part = BoundingBox(corner, (32, 32, 32)).intersection(BoundingBox((0, 0, 0), (50, 50, 50)))
            mag.write(expected[(slice(None), *part.to_slices())], offset=part.topleft)
    assert np.array_equal(mag.read(), expected)
    assert mag.layer.bounding_box == BoundingBox((0, 0, 0), (50, 50, 50))
    check_reopened(mag)


def test_37_a_mag_with_partial_cubes_at_the_border_is_compressed(make_mag):
    expected = ramp(1, 50, 40, 70)
    mag = make_mag(mag="8-8-2", cube=32)
    mag.write(expected, offset=(3, 4, 5))
    box = mag.layer.bounding_box
    mag.compress()
    assert mag.spec.compression == "lz4hc"
    assert np.array_equal(mag.read(), expected)
    assert mag.layer.bounding_box == box == BoundingBox((24, 32, 10), (400, 320, 140))
    check_reopened(mag)


def test_38_compressing_in_place(make_mag, tmp_path):
    expected = ramp(1, 60, 60, 60)
    mag = make_mag(cube=32)
    mag.write(expected, offset=(5, 5, 5))
    before = raw(mag)
    mag.compress()
    assert mag.spec.compression == "lz4hc"
    assert mag.header.block_type == 3  # LZ4HC in the wkw package
    assert np.array_equal(mag.read(), expected)
    assert raw(mag) == before
    mag.write(ramp(1, 20, 20, 20, start=9), offset=(20, 20, 20))
    expected[:, 15:35, 15:35, 15:35] = ramp(1, 20, 20, 20, start=9)
    assert np.array_equal(mag.read(), expected)
    check_reopened(mag)
    mag.compress(tmp_path / "elsewhere", compression="lz4")  # a target: a dataset with this mag only
    copy = Dataset(tmp_path / "elsewhere").get_layer("layer").get_mag(1)
    assert (copy.spec.compression, mag.spec.compression) == ("lz4", "lz4hc")
    assert np.array_equal(copy.read(), expected)
    with pytest.raises(AlreadyExistsError):
        mag.compress(tmp_path / "elsewhere")
    with pytest.warns(WkdaskWarning, match="args="):
        mag.compress(args=object())


@pytest.mark.slow
def test_39_another_cut_in_place_or_in_a_new_dataset(make_mag, tmp_path):
    expected = ramp(1, 60, 60, 60)
    mag = make_mag(cube=64, chunk=16)
    mag.write(expected, offset=(5, 5, 5))
    mag.rechunk(target_path=tmp_path / "new")
    found = Dataset(tmp_path / "new").get_layer("layer").get_mag(1)
    assert (found.spec.chunk_shape, found.spec.shard_shape) == ((32, 32, 32), (1024, 1024, 1024))
    assert found.spec.compression == "lz4hc"
    assert np.array_equal(found.read(), expected)
    assert found.layer.bounding_box == mag.layer.bounding_box
    check_reopened(found)
    mag.rechunk(16, 32, compress=False, target_path=tmp_path / "small")
    small = Dataset(tmp_path / "small").get_layer("layer").get_mag(1)
    assert (small.spec.shard_shape, small.spec.compression) == ((32, 32, 32), None)
    assert small.content_is_equal(mag)
    with pytest.raises(AlreadyExistsError):
        mag.rechunk(target_path=tmp_path / "new")
    mag.rechunk(32, 128)
    assert (mag.spec.chunk_shape, mag.spec.shard_shape) == ((32, 32, 32), (128, 128, 128))
    assert mag.spec.compression == "lz4hc"
    assert np.array_equal(mag.read(), expected)
    check_reopened(mag)


def test_40_the_cubes_on_disk(make_mag):
    for name in ("1", "2-2-1"):
        mag = make_mag(mag=name, cube=32)
        mag.write(ramp(1, 10, 40, 10), offset=(60, 0, 0))
        mag.write(ramp(1, 1, 1, 1), offset=(1000, 2000, 4000))
        expected = {
            (Vec3Int(corner), Vec3Int(32, 32, 32))
            for corner in [(32, 0, 0), (64, 0, 0), (32, 32, 0), (64, 32, 0), (992, 1984, 4000)]
        }
        found = list(mag.get_bounding_boxes_on_disk())
        assert set(found) == expected  # voxels of the mag, as in 2021
        assert len(found) == len(expected)
        assert mag.layer.bounding_box.bottomright == Vec3Int(1001, 2001, 4001) * Mag(name).to_vec3_int()


def test_41_pickling_a_mag(make_mag):
    expected = ramp(1, 40, 40, 40)
    mag = make_mag(cube=32)
    mag.write(expected)
    mag.open()
    assert np.array_equal(mag.read(), expected)
    data = pickle.dumps(mag)
    assert len(data) < 2000
    again = pickle.loads(data)
    assert np.array_equal(again.read(), expected)
    assert (again.layer.name, again.layer.bounding_box) == ("layer", mag.layer.bounding_box)
    assert (again.mag, again.path, again.spec) == (mag.mag, mag.path, mag.spec)
    again.open()  # the copy is not open
    with pytest.raises(InvalidValueError, match="open already"):
        mag.open()
    mag.close()
    with pytest.raises(InvalidValueError, match="not open"):
        mag.close()
    with mag as opened:
        assert opened is mag


def test_42_a_layer_of_more_axes_is_listed_and_kept(make_mag):
    mag = make_mag()
    content = raw(mag)
    layer = {
        "name": "t",
        "category": "color",
        "boundingBox": {"topLeft": [0, 0, 0], "width": 10, "height": 20, "depth": 30},
        "dataFormat": "zarr3",
        "mags": [{"mag": [1, 1, 1], "path": "./t/1", "axisOrder": {"z": 1, "y": 2, "x": 3}}],
        "additionalAxes": [{"name": "t", "bounds": [0, 7], "index": 0}],
        "numChannels": 1,
        "elementClass": "uint8",
    }
    content["dataLayers"].append(layer)
    with open(os.path.join(mag.layer.dataset_path, "datasource-properties.json"), "w") as file:
        json.dump(content, file)
    opened = Dataset(mag.layer.dataset_path)
    assert opened.get_layer("t").bounding_box == NDBoundingBox((0, 0, 0, 0), (7, 30, 20, 10), "tzyx")
    with pytest.raises(DamagedHeaderError, match="zarr"):  # there is no array
        opened.get_layer("t").get_mag(1)
    mag.write(ramp(1, 8, 8, 8))
    assert raw(mag)["dataLayers"][1] == layer
    with pytest.raises(InvalidValueError, match=r"\(c, x, y, z\)"):
        mag.write(ramp(2, 1, 8, 8, 8))


# --- views ----------------------------------------------------------------------------------------------


def test_43_views_of_views(make_mag):
    mag = make_mag()
    empty = mag.get_view()  # of an empty layer: empty, as in version 4
    assert (empty.size, empty.read().shape) == ((0, 0, 0), (1, 0, 0, 0))
    with pytest.raises(OutOfBoundsError):
        mag.get_view(size=(1, 1, 1))
    data = ramp(1, 40, 40, 40)
    mag.write(data, offset=(10, 10, 10))
    assert np.array_equal(mag.get_view().read(), data)
    with pytest.raises(OutOfBoundsError, match="read_only=True"):
        mag.get_view(offset=(10, 10, 10), size=(41, 40, 40))
    beyond = mag.get_view(offset=(0, 0, 0), size=(60, 60, 60), read_only=True)
    assert np.array_equal(beyond.read(), placed(data, mag.layer.bounding_box, (60, 60, 60)))
    with pytest.raises(ReadOnlyError) as caught:
        beyond.get_view(size=(10, 10, 10), read_only=False)
    assert isinstance(caught.value, ValueError)
    view = mag.get_view(offset=(15, 16, 17), size=(20, 20, 20))
    part = view.get_view(offset=(1, 2, 3), size=(10, 10, 10)).get_view(offset=(4, 4, 4), size=(2, 2, 2))
    assert part.global_offset == (20, 22, 24)
    assert part.bounding_box == BoundingBox((20, 22, 24), (2, 2, 2))
    assert np.array_equal(part.read(), data[:, 10:12, 12:14, 14:16])
    assert np.array_equal(view.read_bbox(BoundingBox((5, 6, 7), (2, 2, 2))), part.read())
    assert np.array_equal(view.read_bbox(), view.read())
    for wrong in (
        lambda: view.get_view(offset=(-1, 0, 0), size=(2, 2, 2)),
        lambda: view.get_view(offset=(19, 0, 0), size=(2, 2, 2)),
        lambda: view.read(offset=(19, 0, 0), size=(2, 2, 2)),
        lambda: view.read_bbox(BoundingBox((0, 0, 0), (21, 1, 1))),
    ):
        with pytest.raises(OutOfBoundsError):
            wrong()
    check_reopened(mag)


@pytest.mark.parametrize("how", ["alone", "executor", "cluster"])
def test_44_every_chunk_is_visited_once(make_mag, how, request):
    data = ramp(1, 50, 100, 150, dtype="uint16")
    mag = make_mag("uint16", cube=64, chunk=32)
    mag.write(data, offset=(70, 80, 90))
    if how == "cluster":
        request.getfixturevalue("client")

    def add(arguments):
        view, _ = arguments
        view.write(view.read() + 50)

    view = mag.get_view()
    if how == "executor":
        with pytest.warns(WkdaskWarning, match="executor="):
            view.for_each_chunk(add, (64, 64, 64), executor=object())
    else:
        view.for_each_chunk(add, chunk_size=(64, 64, 64))
    assert np.array_equal(mag.read(), data + 50)
    assert mag.layer.bounding_box == BoundingBox((70, 80, 90), (50, 100, 150))
    around = mag.read(offset=(0, 0, 0), size=(192, 192, 256))
    assert np.array_equal(around, placed(data + 50, mag.layer.bounding_box, (192, 192, 256)))
    check_reopened(mag)


def test_45_chunks_lie_on_the_absolute_grid_and_end_at_the_box(make_mag):
    edges = [(10, 64), (64, 128), (128, 160)]
    expected = [
        BoundingBox.from_corners((x[0], y[0], 10), (x[1], y[1], 64))
        for y, x in itertools.product(edges, edges)
    ]
    mag = make_mag(cube=32, chunk=32)
    mag.layer.bounding_box = BoundingBox((10, 10, 10), (150, 150, 54))
    found = []
    mag.get_view().for_each_chunk(lambda args: found.append((args[1], args[0])), (64, 64, 64))
    found.sort(key=lambda entry: entry[0])
    assert [number for number, _ in found] == [*range(9)]
    assert [view.box for _, view in found] == expected
    assert all(type(view) is View and not view.read_only for _, view in found)
    assert mag.map_chunk(lambda view: view.box, (64, 64, 64)) == expected  # results in the order of chunks


def test_46_impossible_chunks(make_mag, state_of):
    mag = make_mag(cube=32)
    mag.write(ramp(1, 64, 64, 64))
    before = state_of(mag)
    for shape in [(0, 64, 64), (16, 64, 64), (100, 64, 64), (-64, 64, 64), (64, 96, 64)]:
        for call in (
            lambda shape=shape: mag.for_each_chunk(pytest.fail, shape),
            lambda shape=shape: mag.map_chunk(pytest.fail, shape),
            lambda shape=shape: mag.for_zipped_chunks(pytest.fail, mag, shape, shape),
        ):
            with pytest.raises(AlignmentError) as caught:
                call()
            assert isinstance(caught.value, ValueError)
    assert state_of(mag) == before


@pytest.mark.slow
def test_47_pairs_of_chunks(make_mag):
    expected = ramp(1, 256, 256, 256)
    source, target = make_mag(cube=64, chunk=32), make_mag(cube=64, chunk=32, compression="lz4")
    source.write(expected)
    target.layer.bounding_box = source.layer.bounding_box

    def copy(arguments):
        from_view, to_view, _ = arguments
        to_view.write(from_view.read())

    side = (64, 64, 64)
    source.get_view().for_zipped_chunks(copy, target.get_view(), side, side)
    assert np.array_equal(target.read(), expected)
    assert source.content_is_equal(target)
    for views, shapes in [
        ((source.get_view(), target.get_view()), (side, (32, 32, 32))),  # other ratios
        ((source.get_view(), target.get_view()), ((32, 32, 32), (32, 32, 32))),  # parts of cubes
        ((source.get_view(size=(128, 256, 256)), target.get_view()), (side, side)),
        ((source.get_view(size=(0, 0, 0)), target.get_view(size=(0, 0, 0))), (side, side)),
    ]:
        with pytest.raises(ValueError, match=r"ratio|whole|empty"):
            views[0].for_zipped_chunks(pytest.fail, views[1], *shapes)
    assert np.array_equal(target.read(), expected)
    check_reopened(target)


def test_48_equal_contents(make_mag):
    data = ramp(1, 70, 70, 70)
    one, other = make_mag(cube=32), make_mag(cube=64, compression="lz4")
    one.write(data, offset=(10, 0, 0))
    other.write(data, offset=(0, 20, 0))
    assert one.get_view().content_is_equal(other.get_view())  # whatever the cut and the place
    assert one.content_is_equal(other)
    other.write(np.zeros((1, 1, 1, 1), "uint8"), offset=(69, 89, 69))
    assert not one.get_view().content_is_equal(other.get_view())
    assert not one.content_is_equal(other)
    assert not one.get_view(size=(1, 1, 1)).content_is_equal(other.get_view(size=(1, 1, 2)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_49_slices_in_and_out(make_mag, axis):
    data = ramp(2, 50, 45, 40)
    slices = [data.take(number, axis + 1) for number in range(data.shape[axis + 1])]
    mag = make_mag(channels=2, cube=32)
    with mag.get_buffered_slice_writer(offset=(5, 10, 20), buffer_size=16, dimension=axis) as writer:
        for image in slices:
            writer.send(image)
    assert np.array_equal(mag.read(), data)
    assert mag.layer.bounding_box == BoundingBox((5, 10, 20), (50, 45, 40))
    with mag.get_view().get_buffered_slice_reader(buffer_size=7, dimension=axis) as reader:
        found = list(reader)
    assert len(found) == len(slices)
    assert all(np.array_equal(a, b) for a, b in zip(found, slices, strict=True))
    with mag.get_buffered_slice_reader((6, 11, 21), (3, 3, 3), dimension=axis) as reader:
        part = np.stack(list(reader), axis + 1)
    assert np.array_equal(part, data[:, 1:4, 1:4, 1:4])
    check_reopened(mag)

    inner = mag.get_view(offset=(10, 20, 30), size=(10, 10, 10))
    with inner.get_buffered_slice_writer((1, 1, 1), dimension=axis) as writer:  # off the grid: merged
        for _ in range(9):
            writer.send(np.full((2, 9, 9), 7, "uint8"))
    data[:, 6:15, 11:20, 11:20] = 7
    assert np.array_equal(mag.read(), data)
    with pytest.raises(OutOfBoundsError), inner.get_buffered_slice_writer(dimension=axis) as writer:  # noqa: PT012
        for _ in range(11):
            writer.send(np.full((2, 10, 10), 9, "uint8"))
    assert np.array_equal(mag.read(), data)

    ragged = make_mag(cube=32)  # slices of different sizes are padded with zeros
    with ragged.get_buffered_slice_writer(dimension=axis) as writer:
        writer.send(np.full((4, 5), 1, "uint8"))
        writer.send(np.full((6, 3), 2, "uint8"))
    size = [6, 5]
    size.insert(axis, 2)
    assert ragged.layer.bounding_box.size == tuple(size)
    assert ragged.read().sum() == 4 * 5 + 2 * 6 * 3
    for wrong, error in [
        (np.zeros((3, 4, 4), "uint8"), ChannelError),
        (np.zeros((4, 4), "uint16"), DTypeError),
        (np.zeros(4, "uint8"), InvalidValueError),
    ]:
        with pytest.raises(error), ragged.get_buffered_slice_writer((0, 0, 0), dimension=axis) as writer:
            writer.send(wrong)
    for arguments in ({"dimension": 3}, {"buffer_size": 0}):
        with pytest.raises(InvalidValueError):
            ragged.get_buffered_slice_writer(**arguments)


def test_a_function_that_fails_is_named_with_its_chunk(make_mag):
    mag = make_mag(cube=32, chunk=32)
    mag.write(ramp(1, 64, 32, 32))

    def fail(_):
        raise KeyError("no such thing")

    with pytest.raises(TaskFailedError, match=r"layer") as caught:
        mag.for_each_chunk(fail, (32, 32, 32))
    assert isinstance(caught.value, RuntimeError)
    assert np.array_equal(mag.read(), ramp(1, 64, 32, 32))
