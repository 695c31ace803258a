"""Views under version 4's names: places in voxels of mag 1, chunks, arrays whole, and what a mag says of itself."""

import inspect
import itertools
import shutil
import warnings

import numpy as np
import pytest
import zarr
from small_datasets import COLOR, ramp
from thorough import mostly_slow

from wkdask import BoundingBox, Dataset, Mag, MagView, View
from wkdask.errors import AlignmentError, InvalidValueError, OutOfBoundsError, ReadOnlyError, WkdaskWarning

CORNER = (4, 8, 12)  # of the layer, in voxels of mag 1


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folders of two datasets: of one mag, and of two."""
    home = tmp_path_factory.mktemp("written")
    layer = Dataset.create(home / "one", (11.24, 11.24, 28)).add_layer("layer", COLOR)
    layer.add_mag(1, chunk_shape=8, shard_shape=16).write(ramp(1, 20, 20, 20), CORNER)
    shutil.copytree(home / "one", home / "two")
    mag = Dataset(home / "two").get_layer("layer").add_mag(2, chunk_shape=8, shard_shape=16)
    mag.write(ramp(1, 10, 10, 10), (2, 4, 6))
    return home


@pytest.fixture
def mag1(written, tmp_path, request):
    name = "two" if "mag2" in request.fixturenames else "one"
    shutil.copytree(written / name, tmp_path / "ds")
    return Dataset(tmp_path / "ds").get_layer("layer").get_mag(1)


@pytest.fixture
def mag2(mag1):
    return mag1.layer.get_mag(2)


DATA1, DATA2 = ramp(1, 20, 20, 20), ramp(1, 10, 10, 10)


# --- places ---------------------------------------------------------------------------------------------

PLACES = [
    ({"absolute_offset": (6, 10, 16), "size": (4, 6, 8)}, (2, 2, 4), (4, 6, 8)),
    ({"relative_offset": (2, 2, 4), "size": (4, 6, 8)}, (2, 2, 4), (4, 6, 8)),
    ({"absolute_bounding_box": BoundingBox((6, 10, 16), (4, 6, 8))}, (2, 2, 4), (4, 6, 8)),
    ({"relative_bounding_box": BoundingBox((2, 2, 4), (4, 6, 8))}, (2, 2, 4), (4, 6, 8)),
]
"""(what version 4 says, the corner from that of the layer on, the size), all in voxels of mag 1."""


@pytest.mark.parametrize(("where", "corner", "size"), PLACES)
@pytest.mark.parametrize("step", [1, 2])
def test_places_count_voxels_of_mag_1(mag1, mag2, where, corner, size, step):
    mag, data = {1: (mag1, DATA1), 2: (mag2, DATA2)}[step]
    index = tuple(slice(a // step, (a + n) // step) for a, n in zip(corner, size, strict=True))
    expected = data[:, *index]
    view = mag.get_view(**where, read_only=True)
    assert view.bounding_box == BoundingBox(np.add(CORNER, corner), size)
    assert np.array_equal(view.read(), expected)
    for read in (mag.read, mag.read_cxyz, mag.get_view().read):
        assert np.array_equal(read(**where), expected)
    if "size" not in where:
        assert np.array_equal(mag.read_xyz(**where), expected)
        assert np.array_equal(mag.to_dask(**where).compute(), expected)
        assert np.array_equal(mag.get_view().to_dask(**where).compute(), expected)
        with mag.get_buffered_slice_reader(dimension="z", **where) as slices:
            assert np.array_equal(np.stack(list(slices), axis=-1), expected)


@pytest.mark.parametrize(
    ("through", "step", "place"),
    mostly_slow(
        itertools.product(["mag", "view", "cxyz", "slices"], [1, 2], PLACES),
        lambda n, _: n % 4 == (n // 8 + n // 4) % 4,  # every day each place, through each
    ),
)
def test_places_of_what_is_written(mag1, mag2, place, step, through):
    where, corner, size = place
    mag, expected = {1: (mag1, DATA1.copy()), 2: (mag2, DATA2.copy())}[step]
    index = tuple(slice(a // step, (a + n) // step) for a, n in zip(corner, size, strict=True))
    data = np.full((1, *(n // step for n in size)), 255, "uint8")
    expected[:, *index] = 255
    where = {name: value for name, value in where.items() if name != "size"}  # that of the array
    if through == "slices":
        with mag.get_buffered_slice_writer(dimension="z", allow_unaligned=True, **where) as writer:
            for number in range(data.shape[-1]):
                writer.send(data[..., number])
    else:
        target = mag.get_view() if through == "view" else mag
        planned = target.plan_write(data, **where).plan.box
        assert planned == BoundingBox(np.add(CORNER, corner), size).in_mag(mag.mag)
        (target.write_cxyz if through == "cxyz" else target.write)(data, allow_unaligned=True, **where)
    assert np.array_equal(mag.read(), expected)
    assert mag.layer.bounding_box == BoundingBox(CORNER, (20, 20, 20))


def test_relative_places_of_views_of_views(mag1):
    view = mag1.get_view(relative_offset=(1, 2, 3), size=(10, 10, 10), read_only=True)
    inner = view.get_view(relative_offset=(1, 1, 1), size=(2, 2, 2))
    assert inner.bounding_box == BoundingBox((6, 11, 16), (2, 2, 2))
    assert inner == view.get_view(absolute_offset=(6, 11, 16), size=(2, 2, 2))
    assert inner == view.get_view(relative_bounding_box=BoundingBox((1, 1, 1), (2, 2, 2)))


def test_a_writable_view_off_the_grid_is_warned_of_in_version_4_s_words_only(mag1):
    off, message = {"size": (10, 10, 10)}, r"not aligned with the shard shape.*nearest of whole cubes is"
    with pytest.warns(UserWarning, match=message) as caught:
        view = mag1.get_view(absolute_offset=(5, 8, 12), **off)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=message):
        view.get_view(relative_offset=(1, 1, 1), size=(2, 2, 2))
    with pytest.warns(UserWarning, match=message):
        mag1.get_view(absolute_bounding_box=BoundingBox((16, 16, 16), (8, 8, 8)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mag1.get_view((5, 8, 12), **off)  # 2021
        mag1.get_view(bounding_box=BoundingBox((5, 8, 12), (10, 10, 10)))
        mag1.get_view(absolute_offset=(5, 8, 12), **off, read_only=True)
        mag1.get_view(absolute_offset=CORNER, size=(20, 20, 20))  # ends where the layer does
        mag1.get_view(absolute_offset=(16, 16, 16), size=(8, 12, 16))
        list(mag1.chunk((5, 5, 5)))
        list(mag1.get_views_on_disk())


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ({"absolute_offset": (0, 0, 0), "relative_offset": (0, 0, 0), "size": (1, 1, 1)}, InvalidValueError),
        ({"absolute_offset": (0, 0, 0), "offset": (0, 0, 0), "size": (1, 1, 1)}, InvalidValueError),
        ({"absolute_offset": (4, 8, 12)}, InvalidValueError),  # no size
        ({"relative_offset": (0, 0, 0)}, InvalidValueError),
        ({"absolute_bounding_box": BoundingBox((4, 8, 12), (2, 2, 2)), "size": (1, 1, 1)}, InvalidValueError),
        (
            {
                "absolute_bounding_box": BoundingBox((4, 8, 12), (2, 2, 2)),
                "bounding_box": BoundingBox((4, 8, 12), (2, 2, 2)),
            },
            InvalidValueError,
        ),
        ({"absolute_offset": (-2, 0, 0), "size": (2, 2, 2)}, OutOfBoundsError),
        ({"absolute_offset": (5, 8, 12), "size": (2, 2, 2)}, AlignmentError),  # half a voxel of mag 2
        ({"absolute_offset": (4, 8, 12), "size": (3, 2, 2)}, AlignmentError),
    ],
)
def test_places_that_mean_nothing(mag2, where, error):
    for call in (mag2.read, mag2.get_view):
        with pytest.raises(error) as caught:
            call(**where)
        assert isinstance(caught.value, AssertionError)  # as there


# --- what version 4 refuses by default ------------------------------------------------------------------


def test_a_write_may_be_kept_inside_of_the_box(mag1):
    block = np.ones((4, 4, 4), "uint8")
    before = mag1.read()
    with pytest.raises(OutOfBoundsError, match="allow_resize"):
        mag1.write(block, absolute_offset=(22, 8, 12), allow_resize=False)
    assert np.array_equal(mag1.read(), before)
    mag1.write(block, absolute_offset=(20, 8, 12), allow_resize=False, allow_unaligned=True)
    assert mag1.layer.bounding_box == BoundingBox(CORNER, (20, 20, 20))
    mag1.write(block, absolute_offset=(22, 8, 12), allow_resize=True, allow_unaligned=True)
    assert mag1.layer.bounding_box == BoundingBox(CORNER, (22, 20, 20))


@pytest.mark.parametrize(
    ("corner", "size", "aligned"),
    [
        ((4, 8, 12), (20, 20, 20), True),  # the whole box
        ((4, 8, 16), (12, 8, 16), True),  # cubes, or parts of them that end with the box
        ((4, 8, 12), (12, 8, 4), True),
        ((4, 8, 12), (11, 8, 4), False),
        ((5, 8, 12), (11, 8, 4), False),
        ((16, 16, 16), (8, 8, 8), False),
    ],
)
def test_a_write_may_be_kept_to_whole_cubes(mag1, corner, size, aligned):
    block, before = np.full(size, 255, "uint8"), mag1.read()
    if aligned:
        mag1.write(block, absolute_offset=corner, allow_unaligned=False)
        assert (mag1.read(absolute_offset=corner, size=size) == 255).all()
    else:
        with pytest.raises(AlignmentError, match="allow_unaligned"):
            mag1.write(block, absolute_offset=corner, allow_unaligned=False)
        assert np.array_equal(mag1.read(), before)


@pytest.mark.parametrize("through", ["write", "write_cxyz"])
@pytest.mark.parametrize(("data_format", "compress"), [("wkw", True), ("wkw", False), ("zarr3", False)])
def test_version_4_s_words_for_a_place_bring_its_refusals(new, data_format, compress, through):
    layer = new().add_layer("layer", COLOR, data_format=data_format)
    mag = layer.add_mag(1, chunk_shape=8, shard_shape=16, compress=compress)
    mag.write(DATA1, CORNER)
    expected, write = DATA1.copy(), getattr(mag, through)
    with pytest.raises(OutOfBoundsError, match="does not fit in the layer's bounding box"):
        write(np.ones((1, 4, 4, 4), "uint8"), absolute_offset=(22, 8, 12), allow_unaligned=True)
    part = np.full((1, 8, 8, 8), 255, "uint8")
    places = [{"relative_offset": (1, 0, 0)}, {"absolute_bounding_box": BoundingBox((16, 16, 16), (8, 8, 8))}]
    if (data_format, compress) == ("wkw", False):  # which version 4 allows
        for place in places:
            write(part, **place)
        expected[:, 1:9, :8, :8] = expected[:, 12:, 8:16, 4:12] = 255
    else:
        for place in places:
            with pytest.raises(AlignmentError, match="not aligned with the shard shape"):
                write(part, **place)
    with pytest.raises(AlignmentError, match="do not begin at a cube"):
        mag.get_buffered_slice_writer(absolute_offset=(0, 0, 8))
    assert np.array_equal(mag.read(), expected)
    few = np.full((1, 4, 4, 4), 7, "uint8")
    write(few, absolute_offset=(22, 8, 12), allow_resize=True, allow_unaligned=True)
    assert layer.bounding_box == BoundingBox(CORNER, (22, 20, 20))
    mag.write(few + 1, offset=(24, 8, 12))  # our own words allow both
    assert layer.bounding_box == BoundingBox(CORNER, (24, 20, 20))
    assert mag.read(offset=(22, 8, 12), size=(6, 1, 1)).ravel().tolist() == [7, 7, 8, 8, 8, 8]


@pytest.mark.parametrize("words", [{"allow_resize": True}, {"allow_unaligned": True}])
def test_without_a_place_version_4_s_words_mean_the_corner_of_the_box(mag1, mag2, words):
    expected = DATA1.copy()
    expected[:, :3, :3, :3] = 255
    mag1.write(np.full((3, 3, 3), 255, "uint8"), **words)
    assert np.array_equal(mag1.read(), expected)
    mag1.get_view(offset=(10, 10, 14), size=(4, 4, 4)).write(np.full((1, 1, 1), 9, "uint8"), **words)
    expected[:, 6, 2, 2] = 9
    assert np.array_equal(mag1.read(), expected)
    with pytest.raises(InvalidValueError, match="say where"):
        mag1.write(np.full((3, 3, 3), 255, "uint8"))
    coarse = DATA2.copy()
    coarse[:, 0, 0, 0] = 255
    mag2.write(np.full((1, 1, 1), 255, "uint8"), **words)
    assert np.array_equal(mag2.read(), coarse)


def test_slices_may_be_kept_to_whole_cubes(mag1):
    with pytest.raises(AlignmentError, match="allow_unaligned"):
        mag1.get_buffered_slice_writer(absolute_offset=(0, 0, 8), allow_unaligned=False)
    with mag1.get_buffered_slice_writer(absolute_offset=(0, 0, 16), allow_unaligned=False, use_logging=True):
        pass


def test_arrays_with_a_channel_axis_only(mag1):
    with pytest.raises(InvalidValueError, match="c, x, y, z"):
        mag1.write_cxyz(DATA1[0])


# --- slices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", "xyz")
def test_axes_of_slices_have_names(mag1, axis):
    number = "xyz".index(axis)
    with mag1.get_buffered_slice_reader(dimension=axis, buffer_size=None) as slices:
        assert np.array_equal(np.stack(list(slices), axis=number + 1), DATA1)
    target = mag1.layer.dataset.add_layer("out", COLOR).add_mag(1, chunk_shape=8, shard_shape=16)
    with target.get_buffered_slice_writer(dimension=axis, buffer_size=None) as writer:
        for each in np.moveaxis(DATA1, number + 1, 0):
            writer.send(each)
    assert np.array_equal(target.read(), DATA1)


def test_slices_that_go_on_elsewhere(mag1):
    image = np.full((20, 20), 255, "uint8")
    expected = DATA1.copy()
    expected[..., [0, 1, 7, 12]] = 255
    with mag1.get_buffered_slice_writer(relative_offset=(0, 0, 0), allow_unaligned=True) as writer:
        writer.send(image)
        writer.send(image)
        writer.reset_offset(relative_offset=(0, 0, 7))
        writer.send(image)
        writer.reset_offset(absolute_bounding_box=BoundingBox((4, 8, 24), (20, 20, 1)))
        writer.send(image)
        for wrong in ({}, {"relative_offset": (0, 0, 0), "absolute_offset": (0, 0, 0)}):
            with pytest.raises(InvalidValueError):
                writer.reset_offset(**wrong)
    assert np.array_equal(mag1.read(), expected)
    assert writer.report.bounding_box == BoundingBox(CORNER, (20, 20, 13))


# --- parts ----------------------------------------------------------------------------------------------


def test_chunks_are_views(mag2):
    views = list(mag2.chunk((8, 8, 8)))
    assert sum(view.box.volume() for view in views) == 1000
    assert views[0].bounding_box == BoundingBox(CORNER, (8, 8, 8))
    for view in views:
        corner = view.box.topleft - (2, 4, 6)
        index = tuple(slice(a, a + n) for a, n in zip(corner, view.box.size, strict=True))
        assert np.array_equal(view.read(), DATA2[:, *index])
        assert not view.read_only
    aligned = list(mag2.get_view().chunk((16, 16, 16), chunk_border_alignments=(16, 16, 16), read_only=True))
    assert aligned[0].bounding_box == BoundingBox(CORNER, (12, 8, 4))
    assert all(view.read_only for view in aligned)
    with pytest.raises(ReadOnlyError):
        aligned[0].write(np.ones(aligned[0].size, "uint8"))
    with pytest.raises(InvalidValueError, match="chunk_shape"):
        mag2.chunk((3, 3, 3))


def test_views_of_the_cubes_on_disk(mag1):
    views = list(mag1.get_views_on_disk())
    assert {view.box for view in views} == {cube.intersection(mag1.box) for cube in mag1.cubes_on_disk()}
    assert sum(view.box.volume() for view in views) == 8000
    assert all(view.read_only for view in mag1.get_views_on_disk(read_only=True))


def test_functions_by_their_name_of_2021(mag1):
    def brighten(arguments):
        view, _ = arguments
        view.write(view.read() // 2 + 100)

    big = mag1.layer.dataset.add_layer("big", COLOR).add_mag(1, chunk_shape=8, shard_shape=32)
    big.write(ramp(1, 40, 40, 40))
    big.for_each_chunk(work_on_chunk=brighten, chunk_size=(32, 32, 32))
    assert np.array_equal(big.read(), ramp(1, 40, 40, 40) // 2 + 100)

    def copy(arguments):
        source, target, _ = arguments
        target.write(source.read())

    out = mag1.layer.dataset.add_layer("out", COLOR).add_mag(1, chunk_shape=8, shard_shape=32)
    out.layer.bounding_box = big.layer.bounding_box
    shape = {"source_chunk_size": (32, 32, 32), "target_chunk_size": (32, 32, 32)}
    big.get_view().for_zipped_chunks(work_on_chunk=copy, target_view=out.get_view(), **shape)
    assert np.array_equal(out.read(), big.read())
    for wrong in ({}, {"func_per_chunk": copy, "work_on_chunk": copy}):
        with pytest.raises(InvalidValueError, match="work_on_chunk"):
            big.for_each_chunk(**wrong)
        with pytest.raises(InvalidValueError, match="work_on_chunk"):
            big.for_zipped_chunks(target_view=out, **wrong)
    with pytest.raises(InvalidValueError, match="target_view"):
        big.for_zipped_chunks(copy)


def test_descriptions_of_progress_are_ignored_and_that_is_said(mag1):
    for call in (
        lambda: mag1.for_each_chunk(lambda _: None, progress_desc="x"),
        lambda: mag1.map_chunk(lambda _: 1, progress_desc="x"),
        lambda: mag1.content_is_equal(mag1, progress_desc="x"),
    ):
        with pytest.warns(WkdaskWarning, match="progress_desc="):
            call()


# --- what a mag says ------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", ["wkw", "zarr3", "zarr"])
def test_how_a_mag_is_stored(new, data_format):
    layer = new().add_layer("layer", COLOR, "uint48", num_channels=3, data_format=data_format)
    cut = {"chunk_shape": 8, "shard_shape": 8 if data_format == "zarr" else 16, "compression": False}
    mag = layer.add_mag(2, **cut)
    mag.write(np.ones((3, 4, 4, 4), "uint16"), (1, 1, 1))
    for view in (mag, mag.get_view()):
        info = view.info
        assert (info.data_format, info.voxel_type, info.num_channels) == (data_format, np.dtype("uint16"), 3)
        assert (info.chunk_shape, info.shard_shape) == ((8, 8, 8), (cut["shard_shape"],) * 3)
        assert info.chunks_per_shard == (cut["shard_shape"] // 8,) * 3
        assert info.bounding_box == BoundingBox((1, 1, 1), (4, 4, 4))
        assert (info.bounding_box.size.c, info.chunk_shape.xyz) == (3, (8, 8, 8))
        assert (info.compression_mode, info.compression, info.ndim) == (False, None, 4)
        assert view.data_format == data_format
    assert layer.add_mag(4, **{**cut, "compression": True}).info.compression_mode


def test_the_array_of_a_zarr_mag(new, mag1):
    layer = new("zarr").add_layer("layer", COLOR, data_format="zarr3")
    mag = layer.add_mag(1, chunk_shape=8, shard_shape=16)
    mag.write(DATA1)
    array = mag.get_zarr_array()
    assert isinstance(array, zarr.Array)
    assert np.array_equal(array[:, :20, :20, :20], DATA1)
    with pytest.raises(ValueError, match="WKW"):
        mag1.get_zarr_array()
    assert mag.mag == Mag(1)


OF_VERSION_4 = {"relative_offset", "absolute_offset", "relative_bounding_box", "absolute_bounding_box"}


@pytest.mark.parametrize("kind", [View, MagView])
@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("read", set()),
        ("read_cxyz", set()),
        ("read_xyz", {"relative_offset", "absolute_offset"}),  # it has no size
        ("to_dask", {"relative_offset", "absolute_offset"}),
        ("write", set()),
        ("write_cxyz", set()),
        ("plan_write", set()),
        ("get_view", set()),
        ("get_buffered_slice_writer", set()),
        ("get_buffered_slice_reader", set()),
    ],
)
def test_every_method_that_takes_a_place_takes_it_in_the_words_of_version_4(kind, name, without):
    parameters = inspect.signature(getattr(kind, name)).parameters
    found = {word for word in parameters if word in OF_VERSION_4}
    assert found == OF_VERSION_4 - without
    assert all(parameters[word].kind is inspect.Parameter.KEYWORD_ONLY for word in found)
