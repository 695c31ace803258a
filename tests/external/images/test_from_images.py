"""`Dataset.from_images` and `add_layer_from_images`: voxels, names and refusals, read back by other libraries.

The expected names and voxels are those of webknossos 4.3.3 on the same files, but for what docs/images.md
lists.
"""

import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
import wkw
import zarr
from PIL import Image

import wkdask
from wkdask import BoundingBox, Dataset, LayerViewConfiguration, VecInt, VoxelSize, Zarr3Config
from wkdask.errors import (
    AlignmentError,
    AlreadyExistsError,
    CategoryError,
    ChannelError,
    DTypeError,
    ImageStackError,
    InvalidValueError,
    ReadOnlyError,
    TaskFailedError,
    UnsupportedFormatError,
    WkdaskWarning,
)
from wkdask.external.images.layer_mapping import ConversionLayerMapping as Mapping
from wkdask.external.images.stack import open_stack

FORMATS = ["wkw", "zarr3", "zarr"]
each_format = pytest.mark.parametrize("data_format", FORMATS)
GREY = {"photometric": "minisblack"}


def noise(*shape, dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(1, 200, shape).astype(dtype)


def tiff(path, array, axes=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if axes is not None:
        options |= {"imagej": True, "metadata": {"axes": axes}}
    tifffile.imwrite(path, array, **options)
    return path


def png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def sections(folder, array, **options):
    """Write (z, y, x) as a file per section."""
    for z, image in enumerate(array):
        tiff(folder / f"s{z}.tif", image, **(options or GREY))
    return folder


def made(tmp_path):
    return Dataset(tmp_path / "ds", (4, 4, 40))


def stored(layer, mag="1"):
    """Return all voxels of the layer's box, read by the wkw library or zarr-python."""
    path = str(layer.get_mag(mag).path)
    box = layer.get_mag(mag).box
    if layer.data_format == "wkw":
        with wkw.Dataset.open(path) as bare:
            return bare.read(tuple(box.topleft), tuple(box.size))
    return zarr.open_array(path, mode="r")[(slice(None), *box.to_slices())]


def same(layer, expected, mag="1"):
    """Compare a layer with (c, x, y, z)."""
    got = stored(layer, mag)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


def tree(folder):
    return sorted(
        str(path.relative_to(folder)) for path in Path(folder).rglob("*") if ".wkdask" not in path.parts
    )


def view_color(layer):
    view = layer.default_view_configuration
    return None if view is None else view.color


# --- a layer of images -----------------------------------------------------------------------------------


@each_format
@pytest.mark.parametrize("source", ["folder", "pattern", "list"])
def test_a_stack_of_files(tmp_path, data_format, source):
    images = noise(11, 20, 30)
    expected = images.transpose(2, 1, 0)[None]
    folder = sections(tmp_path / "in", images)
    paths = [folder / f"s{z}.tif" for z in range(11)]
    given = {"folder": folder, "pattern": str(folder / "*.tif"), "list": paths}[source]
    ds = made(tmp_path)
    layer = ds.add_layer_from_images(given, "stack", data_format=data_format, progress=False)
    assert layer == ds.get_layer("stack")
    assert (layer.category, layer.data_format) == ("color", data_format)
    assert layer.bounding_box == BoundingBox((0, 0, 0), (30, 20, 11))
    assert layer.get_mag(1).spec.compression == ("lz4" if data_format == "wkw" else "zstd")
    same(layer, expected)


def test_a_list_is_in_the_right_order_already(tmp_path):
    expected = [9, 1, 5]
    paths = [tiff(tmp_path / f"in/s{value}.tif", np.full((8, 9), value, "uint8")) for value in expected]
    layer = made(tmp_path).add_layer_from_images(paths, "x", progress=False)
    assert stored(layer)[0, 0, 0].tolist() == expected


@pytest.mark.parametrize("turn", list(itertools.product([False, True], repeat=4)))
def test_flips_are_those_of_webknossos(tmp_path, turn):
    # flip_x reverses the rows, flip_y the columns: webknossos says it of the images as they are stored
    swap_xy, flip_x, flip_y, flip_z = turn
    images = noise(5, 20, 33)
    expected = images[:: -1 if flip_z else 1, :: -1 if flip_x else 1, :: -1 if flip_y else 1]
    expected = expected.transpose((1, 2, 0) if swap_xy else (2, 1, 0))[None]
    tiff(tmp_path / "in/a.tif", images[:2], **GREY)
    tiff(tmp_path / "in/b.tif", images[2:], compression="zlib", tile=(16, 16), **GREY)
    layer = made(tmp_path).add_layer_from_images(
        tmp_path / "in", "x", swap_xy=swap_xy, flip_x=flip_x, flip_y=flip_y, flip_z=flip_z, shard_shape=32,
        progress=False,
    )  # fmt: skip
    same(layer, expected)


def test_flips_of_colors(tmp_path):
    images = noise(3, 20, 33, 3)
    expected = images[::-1, ::-1].transpose(3, 1, 2, 0)
    folder = sections(tmp_path / "in", images, photometric="rgb")
    layer = made(tmp_path).add_layer_from_images(
        folder, "x", swap_xy=True, flip_x=True, flip_z=True, progress=False
    )
    same(layer, expected)


@each_format
def test_mag_and_topleft(tmp_path, data_format):
    images = noise(3, 20, 30)
    layer = made(tmp_path).add_layer_from_images(
        sections(tmp_path / "in", images), "x", mag="2-2-1", topleft=(10, 20, 31), data_format=data_format,
        progress=False,
    )  # fmt: skip
    assert layer.bounding_box == BoundingBox((10, 20, 31), (60, 40, 3))
    assert list(layer.mags) == [wkdask.Mag("2-2-1")]
    same(layer, images.transpose(2, 1, 0)[None], "2-2-1")


@pytest.mark.parametrize("topleft", [VecInt(1, 2, 3, axes=("x", "y", "z")), np.array([1, 2, 3]), [1, 2, 3]])
def test_topleft_in_every_form(tmp_path, topleft):
    layer = made(tmp_path).add_layer_from_images(
        sections(tmp_path / "in", noise(2, 5, 6)), "x", topleft=topleft, progress=False
    )
    assert layer.bounding_box.topleft == (1, 2, 3)


def test_a_segmentation_has_its_largest_id(tmp_path):
    images = noise(2, 20, 30, dtype="uint16")
    images[1, 19, 29] = 60_000
    layer = made(tmp_path).add_layer_from_images(
        sections(tmp_path / "in", images), "cells", category="segmentation", progress=False
    )
    assert (layer.category, layer.largest_segment_id) == ("segmentation", 60_000)
    same(layer, images.transpose(2, 1, 0)[None])


@pytest.mark.parametrize(
    ("options", "compression", "chunk", "shard"),
    [
        ({"compress": False}, None, 32, 32),
        ({"compress": Zarr3Config(["gzip"]), "data_format": "zarr3"}, "gzip", 32, 32),
        ({"chunk_shape": 16, "shard_shape": 64}, "lz4", 16, 64),
        ({"chunk_shape": (16, 16, 16), "chunks_per_shard": 4}, "lz4", 16, 64),
        ({"chunks_per_shard": 4, "data_format": "zarr3"}, "zstd", 32, 128),
    ],
)
def test_chunk_layout(tmp_path, options, compression, chunk, shard):
    images = noise(2, 20, 30)
    layer = made(tmp_path).add_layer_from_images(
        sections(tmp_path / "in", images), "x", progress=False, **options
    )
    spec = layer.get_mag(1).spec
    assert (spec.compression, spec.chunk_shape, spec.shard_shape) == (compression, (chunk,) * 3, (shard,) * 3)
    same(layer, images.transpose(2, 1, 0)[None])


def test_types(tmp_path):
    images = noise(2, 20, 30)
    folder, ds = sections(tmp_path / "in", images), made(tmp_path)
    same(
        ds.add_layer_from_images(folder, "a", dtype="uint16", progress=False), images.T[None].astype("uint16")
    )
    same(
        ds.add_layer_from_images(folder, "b", dtype=np.float32, progress=False),
        images.T[None].astype("float32"),
    )
    layer = ds.add_layer_from_images(folder, "c", dtype="uint8", rescale=(0, 51), progress=False)
    same(layer, np.minimum(images.T[None].astype(int) * 5, 255).astype("uint8"))
    with pytest.raises(DTypeError, match="and int8 cannot hold all of its values"):
        ds.add_layer_from_images(folder, "d", dtype="int8", progress=False)
    assert list(ds.layers) == ["a", "b", "c"]


# --- channels --------------------------------------------------------------------------------------------


@each_format
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_colors_are_one_layer(tmp_path, data_format, kind):
    image = noise(20, 30, 3)
    path = (
        png(tmp_path / "a.png", image)
        if kind == "png"
        else tiff(tmp_path / "a.tif", image, photometric="rgb")
    )
    for split in (False, True):
        layer = made(tmp_path / str(split)).add_layer_from_images(
            path, "x", allow_multiple_layers=split, data_format=data_format, progress=False
        )
        assert (layer.name, layer.num_channels) == ("x", 3)
        same(layer, image.transpose(2, 1, 0)[..., None])


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_transparency_is_left_out_with_a_warning(tmp_path, kind):
    image = noise(20, 30, 4)
    path = tmp_path / f"a.{kind}"
    if kind == "png":
        png(path, image)
    else:
        path = tiff(tmp_path / "a.tif", image, photometric="rgb", extrasamples=["unassalpha"])
    ds = made(tmp_path)
    with pytest.warns(WkdaskWarning, match="transparency of the images is left out"):
        layer = ds.add_layer_from_images(path, "x", progress=False)
    same(layer, image.transpose(2, 1, 0)[:3, ..., None])
    same(ds.add_layer_from_images(path, "alpha", channel=3, progress=False), image[..., 3].T[None, ..., None])
    ds.add_layer_from_images(
        path, "all", allow_multiple_layers=True, truncate_rgba_to_rgb=False, progress=False
    )
    for k in range(4):
        same(ds.get_layer(f"all__channel{k}"), image[..., k].T[None, ..., None])
    with pytest.raises(ChannelError, match="has 4 channels of uint8"):
        ds.add_layer_from_images(path, "no", truncate_rgba_to_rgb=False, progress=False)


@each_format
def test_channels_of_a_tiff(tmp_path, data_format):
    images = noise(4, 5, 20, 30, dtype="uint16")  # z, c, y, x
    path, ds = tiff(tmp_path / "a.tif", images, "ZCYX"), made(tmp_path)
    how = {"data_format": data_format, "progress": False}
    with pytest.raises(ChannelError, match=r"5 channels of uint16.*allow_multiple_layers=True.*channel="):
        ds.add_layer_from_images(path, "x", **how)
    assert tree(ds.path) == ["datasource-properties.json"]
    same(ds.add_layer_from_images(path, "one", channel=3, **how), images[:, 3].transpose(2, 1, 0)[None])
    first = ds.add_layer_from_images(path, "x", allow_multiple_layers=True, **how)
    assert first.name == "x__channel0"
    names = [f"x__channel{k}" for k in range(5)]
    assert list(ds.layers) == ["one", *names]
    for k, name in enumerate(names):
        same(ds.get_layer(name), images[:, k].transpose(2, 1, 0)[None])
    assert [view_color(ds.get_layer(name)) for name in names] == [
        (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 38, 38), (38, 101, 255),
    ]  # fmt: skip


def test_split_segmentations_have_no_colors(tmp_path):
    path, ds = tiff(tmp_path / "a.tif", noise(4, 2, 20, 30), "ZCYX"), made(tmp_path)
    ds.add_layer_from_images(path, "x", category="segmentation", allow_multiple_layers=True, progress=False)
    assert [view_color(layer) for layer in ds.layers.values()] == [None, None]


@each_format
def test_three_channels_of_8_bits_become_colors(tmp_path, data_format):
    images = noise(4, 3, 20, 30)
    path, ds = tiff(tmp_path / "a.tif", images, "ZCYX"), made(tmp_path)
    layer = ds.add_layer_from_images(path, "x", data_format=data_format, flip_z=True, progress=False)
    same(layer, images[::-1].transpose(1, 3, 2, 0))
    ds.add_layer_from_images(path, "y", allow_multiple_layers=True, progress=False)
    assert list(ds.layers) == ["x", "y__channel0", "y__channel1", "y__channel2"]


def test_no_more_layers_than_allowed(tmp_path):
    path, ds = tiff(tmp_path / "a.tif", noise(4, 5, 20, 30), "ZCYX"), made(tmp_path)
    with pytest.warns(WkdaskWarning, match="of its 5 channels 2 become layers"):
        ds.add_layer_from_images(path, "x", allow_multiple_layers=True, max_layers=2, progress=False)
    assert list(ds.layers) == ["x__channel0", "x__channel1"]


@pytest.mark.parametrize("channel", [-1, 2, 7])
def test_a_channel_that_is_not_there(tmp_path, channel):
    path, ds = tiff(tmp_path / "a.tif", noise(4, 2, 20, 30), "ZCYX"), made(tmp_path)
    with pytest.raises(ChannelError, match=f"has the channels 0 to 1, got channel={channel}"):
        ds.add_layer_from_images(path, "x", channel=channel, progress=False)


def test_files_of_several_channels_are_one_stack(tmp_path):
    images = noise(3, 2, 20, 30)
    for z in range(3):
        tiff(tmp_path / f"in/m{z}.tif", images[z], "CYX")
    ds = made(tmp_path)
    ds.add_layer_from_images(tmp_path / "in", "x", allow_multiple_layers=True, progress=False)
    for k in range(2):
        same(ds.get_layer(f"x__channel{k}"), images[:, k].transpose(2, 1, 0)[None])
    tiff(tmp_path / "in/m3.tif", images[0, 0], **GREY)
    with pytest.raises(ImageStackError, match=r"m3\.tif"):
        ds.add_layer_from_images(tmp_path / "in", "y", allow_multiple_layers=True, progress=False)


# --- time ------------------------------------------------------------------------------------------------


def timed(tmp_path, kind, images):
    """Write (t, z, c, y, x) in several ways."""
    if kind == "imagej":
        return tiff(tmp_path / "a.tif", images, "TZCYX")
    if kind == "ome":
        tifffile.imwrite(tmp_path / "a.ome.tif", images, ome=True, metadata={"axes": "TZCYX"}, **GREY)
        return tmp_path / "a.ome.tif"
    tifffile.imwrite(tmp_path / "a.tif", images.swapaxes(1, 2).copy(), metadata={"axes": "TCZYX"}, **GREY)
    return tmp_path / "a.tif"


@pytest.mark.parametrize("kind", ["imagej", "ome", "shaped"])
def test_time_is_an_axis_of_zarr_3(tmp_path, kind):
    images = noise(3, 4, 2, 20, 30)
    expected = images.transpose(2, 0, 4, 3, 1)  # c, t, x, y, z
    path, ds = timed(tmp_path, kind, images), made(tmp_path)
    ds.add_layer_from_images(path, "x", data_format="zarr3", allow_multiple_layers=True, progress=False)
    for k in range(2):
        mag = ds.get_layer(f"x__channel{k}").get_mag(1)
        assert mag.axes == ("t", "c", "x", "y", "z")
        assert mag.bounding_box.size == (3, 1, 30, 20, 4)
        np.testing.assert_array_equal(mag.read()[:, 0], expected[k])
        array = zarr.open_array(str(mag.path), mode="r")
        np.testing.assert_array_equal(array[:3, 0, :30, :20, :4], expected[k])


def test_time_with_colors_and_a_corner(tmp_path):
    images = noise(3, 4, 3, 20, 30)
    path, ds = timed(tmp_path, "imagej", images), made(tmp_path)
    layer = ds.add_layer_from_images(path, "x", data_format="zarr3", topleft=(2, 10, 20, 30), progress=False)
    mag = layer.get_mag(1)
    assert mag.bounding_box.topleft == (2, 0, 10, 20, 30)
    np.testing.assert_array_equal(mag.read(), images.transpose(0, 2, 4, 3, 1))
    np.testing.assert_array_equal(mag.read(t=4), images[2].transpose(1, 3, 2, 0))


@pytest.mark.parametrize("data_format", ["wkw", "zarr"])
def test_time_in_another_format_is_refused(tmp_path, data_format):
    path, ds = timed(tmp_path, "imagej", noise(3, 4, 2, 20, 30)), made(tmp_path)
    with pytest.raises(UnsupportedFormatError, match=r'3 positions in time.*data_format="zarr3"'):
        ds.add_layer_from_images(path, "x", channel=0, data_format=data_format, progress=False)
    assert tree(ds.path) == ["datasource-properties.json"]


def test_time_without_depth_is_depth(tmp_path):
    images = noise(5, 20, 30)
    path = tiff(tmp_path / "a.tif", images, "TYX")
    with pytest.warns(WkdaskWarning, match="its axis T is taken for z"):
        layer = made(tmp_path).add_layer_from_images(path, "x", progress=False)
    same(layer, images.transpose(2, 1, 0)[None])


def test_more_axes_are_refused_by_name(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(2, 3, 4, 20, 30), metadata={"axes": "QZCYX"}, **GREY)
    with pytest.raises(ImageStackError, match="the axes QZC of 2 x 3 x 4"):
        made(tmp_path).add_layer_from_images(path, "x", allow_multiple_layers=True, progress=False)


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"czi_channel": 1}, UnsupportedFormatError, "czi_channel=1: CZI files are not read"),
        ({"scale": 0}, UnsupportedFormatError, "scale=0: it chooses a scale of Zarr"),
        ({"category": "image"}, CategoryError, 'a layer is "color" or "segmentation"'),
        ({"category": "segmentation", "dtype": "float32"}, InvalidValueError, "ids of a segmentation"),
        ({"max_layers": 0}, InvalidValueError, "max_layers=0"),
        ({"topleft": (1, 2)}, InvalidValueError, r"topleft is \(x, y, z\)"),
        ({"topleft": (1, 2, 3, 4)}, InvalidValueError, "the images have no time"),
        ({"topleft": (1, 0, 0), "mag": 2}, AlignmentError, "voxel grid of mag 2"),
        ({"topleft": (-1, 0, 0)}, InvalidValueError, "-1"),
        ({"data_format": "n5"}, UnsupportedFormatError, "n5"),
        ({"shard_shape": 64, "chunks_per_shard": 2}, InvalidValueError, "shard_shape or chunks_per_shard"),
        ({"shard_shape": 48, "chunk_shape": 32}, InvalidValueError, "48"),
        ({"layer_name": "a/b"}, InvalidValueError, "a layer's name"),
        ({"timepoint": 1}, TypeError, "timepoint"),
        ({"tiles": "guess"}, InvalidValueError, "tiles='guess'"),
    ],
)
def test_a_refused_call_leaves_nothing(tmp_path, options, error, text):
    folder, ds = sections(tmp_path / "in", noise(2, 20, 30)), made(tmp_path)
    before = Path(ds.path, "datasource-properties.json").read_bytes()
    with pytest.raises(error, match=text):
        ds.add_layer_from_images(folder, **({"layer_name": "x", "progress": False} | options))
    assert tree(ds.path) == ["datasource-properties.json"]
    assert Path(ds.path, "datasource-properties.json").read_bytes() == before


def test_inputs_that_are_none(tmp_path):
    ds = made(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("text")
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(4, 4, 4), dtype="uint8")
    for images, error, text in [
        ([], ImageStackError, "the list is empty"),
        (tmp_path / "nothing.tif", ImageStackError, "no such file"),
        (str(tmp_path / "*.png"), ImageStackError, "fits this pattern"),
        (tmp_path / "empty", ImageStackError, "no images in this folder"),
        (tmp_path / "a.txt", ImageStackError, "not a supported image"),
        (tmp_path / "a.zarr", UnsupportedFormatError, "wkdask convert"),
    ]:
        with pytest.raises(error, match=text):
            ds.add_layer_from_images(images, "x", progress=False)
    assert tree(ds.path) == ["datasource-properties.json"]


def test_images_of_different_sizes_are_refused(tmp_path):
    tiff(tmp_path / "in/a.tif", noise(20, 30))
    tiff(tmp_path / "in/b.tif", noise(25, 28))
    with pytest.raises(ImageStackError, match=r"b.tif: has 28 x 25 pixels.*a.tif, has 30 x 20"):
        made(tmp_path).add_layer_from_images(tmp_path / "in", "x", progress=False)


def test_what_is_there_stays(tmp_path):
    folder, ds = sections(tmp_path / "in", noise(2, 20, 30)), made(tmp_path)
    ds.add_layer_from_images(folder, "x", progress=False)
    before = tree(ds.path)
    with pytest.raises(AlreadyExistsError, match="has a layer 'x'"):
        ds.add_layer_from_images(folder, "x", progress=False)
    with pytest.raises(ReadOnlyError):
        Dataset.open(ds.path, read_only=True).add_layer_from_images(folder, "y", progress=False)
    assert tree(ds.path) == before


def test_arguments_of_other_libraries_are_warned_of(tmp_path):
    folder = sections(tmp_path / "in", noise(2, 20, 30))
    with pytest.warns(WkdaskWarning, match="batch_size= and executor= are ignored"):
        made(tmp_path).add_layer_from_images(folder, "x", batch_size=32, executor=object(), progress=False)


def damaged(path):
    """Write a TIFF whose pixels cannot be decoded, which its header does not show."""
    tiff(path, noise(5, 200, 300), compression="zlib", **GREY)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = bytes(4000)
    path.write_bytes(content)


def test_a_layer_that_fails_is_removed_with_those_before_it(tmp_path):
    # channel 1 cannot be decoded; the layer of channel 0 was complete by then
    path, ds = tiff(tmp_path / "a.tif", noise(2, 2, 200, 300), "ZCYX", compression=None), made(tmp_path)
    with tifffile.TiffFile(path) as file:
        size = file.filehandle.size
    calls = []
    import wkdask.external.images.layers as module

    fill = module.fill_mag

    def failing(*given):
        calls.append(len(ds.layers))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fill(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "fill_mag", failing)
        with pytest.raises(KeyboardInterrupt):
            ds.add_layer_from_images(path, "x", allow_multiple_layers=True, progress=False)
    assert (calls, size) == ([1, 2], path.stat().st_size)
    assert tree(ds.path) == ["datasource-properties.json"]
    assert list(ds.layers) == []


def test_a_layer_that_another_one_added_meanwhile_stays(tmp_path):
    import wkdask.external.images.from_images as module

    folder, ds = sections(tmp_path / "in", noise(2, 20, 30)), made(tmp_path)
    check = module.check_names

    def slow(dataset, layers):
        check(dataset, layers)
        Dataset(ds.path).add_layer("x", "color").add_mag(1).write(np.ones((8, 8, 8), "uint8"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "check_names", slow)
        with pytest.raises(AlreadyExistsError):
            ds.add_layer_from_images(folder, "x", progress=False)
    assert ds.get_layer("x").get_mag(1).read().all()


@pytest.mark.slow
def test_on_a_cluster(tmp_path, client):
    images = noise(3, 4, 3, 40, 50)
    path, ds = tiff(tmp_path / "a.tif", images, "TZCYX"), made(tmp_path)
    layer = ds.add_layer_from_images(path, "x", data_format="zarr3", flip_x=True, progress=False)
    np.testing.assert_array_equal(layer.get_mag(1).read(), images[:, :, :, ::-1].transpose(0, 2, 4, 3, 1))


# --- a dataset of images ---------------------------------------------------------------------------------


def images_below(root, depth):
    """Write two images in each of a/, b/, b/c/ and one at the top; of one section or of several."""
    shape = (20, 30) if depth == 1 else (depth, 20, 30)
    for name in ("a/i0", "a/i1", "b/i0", "b/i1", "b/c/i0", "b/c/i1", "top"):
        tiff(root / f"{name}.tif", noise(*shape), **GREY)
    return root


FLAT = {
    Mapping.INSPECT_SINGLE_FILE: {"a": 2, "b": 2, "c": 2, "in": 1},
    Mapping.INSPECT_EVERY_FILE: {"a": 2, "b": 2, "b_c": 2, "in": 1},
    Mapping.ENFORCE_LAYER_PER_FILE: dict.fromkeys(
        ["a_i0.tif", "a_i1.tif", "b_i0.tif", "b_i1.tif", "b_c_i0.tif", "b_c_i1.tif", "top.tif"], 1
    ),
    Mapping.ENFORCE_SINGLE_LAYER: {"in": 7},
    Mapping.ENFORCE_LAYER_PER_FOLDER: {"a": 2, "b": 2, "b_c": 2, "in": 1},
    Mapping.ENFORCE_LAYER_PER_TOPLEVEL_FOLDER: {"a": 2, "b": 4, "in": 1},
}
ALONE = dict.fromkeys(["ai0.tif", "ai1.tif", "bi0.tif", "bi1.tif", "bci0.tif", "bci1.tif", "top.tif"], 5)
DEEP = {
    Mapping.INSPECT_SINGLE_FILE: ALONE,
    Mapping.INSPECT_EVERY_FILE: ALONE,
} | {mapping: {name: 5 * n for name, n in FLAT[mapping].items()} for mapping in list(FLAT)[2:]}


@pytest.mark.filterwarnings("ignore::wkdask.errors.WkdaskWarning")  # of numbers that are missing in the names
@pytest.mark.parametrize("mapping", list(Mapping))
@pytest.mark.parametrize("depth", [1, 5])
def test_layers_of_files_and_folders(tmp_path, mapping, depth):
    expected = (FLAT if depth == 1 else DEEP)[mapping]
    ds = Dataset.from_images(
        images_below(tmp_path / "in", depth), tmp_path / "ds", (4, 4, 40), "name",
        map_filepath_to_layer_name=mapping, layer_name="L", progress=False,
    )  # fmt: skip
    assert (ds.name, ds.voxel_size) == ("name", (4, 4, 40))
    depths = {name: layer.bounding_box.size.z for name, layer in ds.layers.items()}
    assert depths == {(f"L_{name}" if len(expected) > 1 else "L"): n for name, n in expected.items()}


def test_the_mappings_are_those_of_the_dataset():
    assert Dataset.ConversionLayerMapping is Mapping
    assert [each.value for each in Mapping] == [each.name.lower() for each in Mapping]


def test_segmentations_by_their_names(tmp_path):
    for name in ("raw", "my_labels", "Segmentation", "label"):
        tiff(tmp_path / f"in/{name}.tif", noise(5, 20, 30, dtype="uint16"), **GREY)
    tiff(tmp_path / "in/labels_f.tif", noise(5, 20, 30, dtype="float32"), **GREY)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ds = Dataset.from_images(tmp_path / "in", tmp_path / "ds", (1, 1, 1), progress=False)
    told = [str(each.message) for each in said]
    assert sum("'my_labels.tif' is taken for a segmentation, by its name" in text for text in told) == 1
    assert {name: layer.category for name, layer in ds.layers.items()} == {
        "raw.tif": "color", "my_labels.tif": "segmentation", "Segmentation.tif": "segmentation",
        "label.tif": "color", "labels_f.tif": "color",
    }  # fmt: skip
    ds = Dataset.from_images(
        tmp_path / "in", tmp_path / "ds2", (1, 1, 1), layer_category="color", progress=False
    )
    assert {layer.category for layer in ds.layers.values()} == {"color"}


def test_one_file(tmp_path):
    images = noise(5, 20, 30)
    path = tiff(tmp_path / "in/one.tif", images, **GREY)
    ds = Dataset.from_images(path, tmp_path / "ds", voxel_size_with_unit=VoxelSize((1, 1, 2)), progress=False)
    assert (ds.name, list(ds.layers)) == ("ds", ["one.tif"])
    same(ds.get_layer("one.tif"), images.transpose(2, 1, 0)[None])
    ds = Dataset.from_images(path, tmp_path / "ds2", (1, 1, 2), layer_name="L", progress=False)
    assert list(ds.layers) == ["L"]
    single = tiff(tmp_path / "flat/one.tif", images[0])
    assert list(Dataset.from_images(single, tmp_path / "ds3", (1, 1, 2), progress=False).layers) == ["flat"]


@each_format
def test_options_reach_every_layer(tmp_path, data_format):
    images = noise(5, 20, 30)
    tiff(tmp_path / "in/a.tif", images, **GREY)
    tiff(tmp_path / "in/b.tif", images[:3], **GREY)
    ds = Dataset.from_images(
        tmp_path / "in", tmp_path / "ds", (1, 1, 2), layer_category="segmentation", data_format=data_format,
        chunk_shape=16, shard_shape=16, compress=False, flip_y=True, swap_xy=True, progress=False,
    )  # fmt: skip
    for name, depth in (("a.tif", 5), ("b.tif", 3)):
        layer = ds.get_layer(name)
        spec = layer.get_mag(1).spec
        assert (layer.category, spec.chunk_shape, spec.compression) == ("segmentation", (16, 16, 16), None)
        same(layer, images[:depth, :, ::-1].transpose(1, 2, 0)[None])


@pytest.mark.filterwarnings("ignore::wkdask.errors.WkdaskWarning")  # of numbers that are missing in the names
def test_a_function_of_the_path(tmp_path):
    seen = []

    def name(path):
        seen.append(path)
        return f"n{len(path.parts)}"

    ds = Dataset.from_images(
        images_below(tmp_path / "in", 1), tmp_path / "ds", (1, 1, 1), map_filepath_to_layer_name=name,
        progress=False,
    )  # fmt: skip
    assert {name: layer.bounding_box.size.z for name, layer in ds.layers.items()} == {
        "n1": 1,
        "n2": 4,
        "n3": 2,
    }
    assert Path("b/c/i1.tif") in seen


@pytest.mark.filterwarnings("ignore::wkdask.errors.WkdaskWarning")  # of numbers that are missing in the names
def test_the_order_of_sections(tmp_path):
    for value in (1, 2, 10):
        tiff(tmp_path / f"in/s{value}.tif", np.full((8, 9), value, "uint8"))
    for key, expected in [
        (None, [1, 2, 10]),
        (lambda path: path.name, [1, 10, 2]),
        (lambda path: -int(path.stem[1:]), [10, 2, 1]),
    ]:
        ds = Dataset.from_images(
            tmp_path / "in", tmp_path / f"ds{expected}", (1, 1, 1), z_slices_sort_key=key, progress=False
        )
        assert stored(ds.get_layer("in"))[0, 0, 0].tolist() == expected


def test_numbers_that_are_missing(tmp_path):
    for value in (1, 2, 4):
        tiff(tmp_path / f"in/s{value}.tif", np.full((8, 9), value, "uint8"))
    ds = made(tmp_path)
    with pytest.warns(WkdaskWarning, match=r'1 is missing: 3 .*gaps="keep"'):
        layer = ds.add_layer_from_images(tmp_path / "in", "a", progress=False)
    assert stored(layer)[0, 0, 0].tolist() == [1, 2, 4]
    with pytest.warns(WkdaskWarning, match="empty sections stay"):
        layer = ds.add_layer_from_images(tmp_path / "in", "b", gaps="keep", flip_z=True, progress=False)
    assert stored(layer)[0, 0, 0].tolist() == [4, 0, 2, 1]
    with pytest.raises(ImageStackError, match='gaps="refuse"'):
        Dataset.from_images(tmp_path / "in", tmp_path / "no", (1, 1, 1), gaps="refuse", progress=False)
    assert not (tmp_path / "no").exists()


def test_empty_sections_of_colors(tmp_path):
    images = noise(3, 3, 20, 30)  # z, c, y, x; the one in the middle is missing
    for z in (0, 2):
        tiff(tmp_path / f"in/s{z}.tif", images[z], "CYX")
    tiff(tmp_path / "in/s3.tif", images[1], "CYX")
    with pytest.warns(WkdaskWarning, match="empty sections stay"):
        layer = made(tmp_path).add_layer_from_images(tmp_path / "in", "a", gaps="keep", progress=False)
    expected = np.stack([images[0], 0 * images[0], images[2], images[1]])
    same(layer, expected.transpose(1, 3, 2, 0))


def test_channels_become_layers(tmp_path):
    tiff(tmp_path / "in/a.tif", noise(4, 2, 20, 30), "ZCYX")
    tiff(tmp_path / "in/b.tif", noise(4, 3, 20, 30), "ZCYX")
    tiff(tmp_path / "in/c.tif", noise(4, 20, 30), **GREY)
    names = [f"a.tif__channel{k}" for k in range(2)] + [f"b.tif__channel{k}" for k in range(3)] + ["c.tif"]
    ds = Dataset.from_images(tmp_path / "in", tmp_path / "ds", (1, 1, 1), progress=False)
    assert list(ds.layers) == names
    assert view_color(ds.get_layer("b.tif__channel2")) == (0, 0, 255)
    with pytest.warns(WkdaskWarning, match="of its 3 channels 1 become layers"):
        ds = Dataset.from_images(tmp_path / "in", tmp_path / "few", (1, 1, 1), max_layers=4, progress=False)
    assert list(ds.layers) == ["a.tif__channel0", "a.tif__channel1", "b.tif__channel0", "c.tif"]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"voxel_size": None}, InvalidValueError, "give voxel_size="),
        ({"voxel_size_with_unit": VoxelSize((1, 1, 1))}, InvalidValueError, "not both"),
        ({"max_layers": 3}, InvalidValueError, "the images become 4 layers, max_layers=3"),
        ({"map_filepath_to_layer_name": lambda path: 7}, InvalidValueError, "returned 7 for"),
        (
            {"map_filepath_to_layer_name": lambda path: "a" if path.stem == "top" else "/a"},
            ImageStackError,
            "'a', as",
        ),
        ({"layer_name": "a/b"}, InvalidValueError, "a layer's name"),
        ({"map_filepath_to_layer_name": "by colour"}, InvalidValueError, "inspect_single_file"),
        ({"map_filepath_to_layer_name": 5}, InvalidValueError, "or a function"),
        ({"z_slices_sort_key": lambda path: 1 // 0}, ZeroDivisionError, "division"),
        ({"layer_category": "image"}, CategoryError, "got 'image'"),
        ({"input_path": "nothing"}, ImageStackError, "no such file"),
    ],
)
def test_a_refused_dataset_leaves_nothing(tmp_path, options, error, text):
    given = {
        "input_path": images_below(tmp_path / "in", 1), "output_path": tmp_path / "ds", "voxel_size": (1, 1, 1),
        "progress": False,
    }  # fmt: skip
    with pytest.raises(error, match=text):
        Dataset.from_images(**(given | options))
    assert not (tmp_path / "ds").exists()


@pytest.mark.parametrize("was_there", [False, True])
def test_a_dataset_that_fails_leaves_nothing(tmp_path, was_there):
    tiff(tmp_path / "in/a.tif", noise(5, 20, 30), **GREY)
    damaged(tmp_path / "in/b.tif")
    if was_there:
        (tmp_path / "ds").mkdir()
    with pytest.raises(TaskFailedError, match=r"b\.tif, page"):
        Dataset.from_images(tmp_path / "in", tmp_path / "ds", (1, 1, 1), progress=False)
    assert (tmp_path / "ds").exists() == was_there
    assert not was_there or tree(tmp_path / "ds") == []


def test_a_folder_that_holds_something_stays(tmp_path):
    tiff(tmp_path / "in/a.tif", noise(5, 20, 30), **GREY)
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds/mine.txt").write_text("mine")
    with pytest.raises(AlreadyExistsError, match="not an empty folder"):
        Dataset.from_images(tmp_path / "in", tmp_path / "ds", (1, 1, 1), progress=False)
    assert tree(tmp_path / "ds") == ["mine.txt"]


def test_names_have_what_names_of_layers_can_have(tmp_path):
    tiff(tmp_path / "in/ü my cells.tif", noise(5, 20, 30), **GREY)
    with pytest.warns(WkdaskWarning, match=r"'ü my cells.tif' becomes 'mycells.tif'"):
        ds = Dataset.from_images(tmp_path / "in", tmp_path / "ds", (1, 1, 1), progress=False)
    assert list(ds.layers) == ["mycells.tif"]
    for name, text in (("ü/ß", "nothing of which"), ("", "returned ''")):
        with pytest.raises(InvalidValueError, match=text):
            Dataset.from_images(
                tmp_path / "in", tmp_path / "no", (1, 1, 1), progress=False,
                map_filepath_to_layer_name=lambda path: name,  # noqa: B023
            )  # fmt: skip
    assert not (tmp_path / "no").exists()


def test_two_files_with_the_name_of_one_layer(tmp_path):
    for name in ("a/b.tif", "ab.tif"):
        tiff(tmp_path / "in" / name, noise(5, 20, 30), **GREY)
    with pytest.raises(ImageStackError, match=r"would be the layer 'ab.tif', as"):
        Dataset.from_images(tmp_path / "in", tmp_path / "ds", (1, 1, 1), progress=False)


def test_nothing_is_said_where_there_is_nothing_to_say(tmp_path):
    folder = sections(tmp_path / "in", noise(3, 20, 30))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = Dataset.from_images(folder, tmp_path / "ds", (1, 1, 1), layer_name="color", progress=False)
    assert ds.get_layer("color").default_view_configuration == LayerViewConfiguration(min=1, max=199)
    raw = json.loads(Path(ds.path, "datasource-properties.json").read_text())
    assert [layer["name"] for layer in raw["dataLayers"]] == ["color"]


def test_tiles_are_joined_where_that_is_asked_for(tmp_path):
    section = noise(2, 40, 60)
    for z, y, x in itertools.product(range(2), range(2), range(2)):
        png(tmp_path / f"in/{z}/{y}/{x}.png", section[z, 20 * y : 20 * y + 20, 30 * x : 30 * x + 30])
    ds = made(tmp_path)
    with pytest.raises(ImageStackError, match='tiles="join"'):
        ds.add_layer_from_images(tmp_path / "in", "x", progress=False)
    with pytest.warns(WkdaskWarning, match="side by side"):
        same(
            ds.add_layer_from_images(tmp_path / "in", "x", tiles="join", flip_z=True, progress=False),
            section[::-1].transpose(2, 1, 0)[None],
        )
    with pytest.raises(InvalidValueError, match="sections as they are"):
        ds.add_layer_from_images(tmp_path / "in", "y", tiles="join", flip_x=True, progress=False)
    layer = ds.add_layer_from_images(tmp_path / "in", "z", tiles="sections", progress=False)
    assert layer.bounding_box.size == (30, 20, 8)


def test_a_conversion_refuses_channels_as_before(tmp_path):
    # without a choice of channels a stack has one axis beside those of its pages
    path = tiff(tmp_path / "a.tif", noise(4, 2, 20, 30), "ZCYX")
    with pytest.raises(ImageStackError, match="has the axes ZCYX of 4 x 2 x 20 x 30"):
        open_stack(path)
    with pytest.raises(ImageStackError, match="has transparency"):
        open_stack(png(tmp_path / "b.png", noise(20, 30, 4)))
