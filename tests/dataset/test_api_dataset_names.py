"""Datasets under the names, parameters and errors of the Dataset API: made, opened read-only, filled, copied."""

import os
import pickle
import warnings

import dask
import dask.array as da
import numpy as np
import pytest
from small_datasets import COLOR, SEGMENTATION, SMALL, filled, names, ramp, raw

import wkdask
from wkdask import BoundingBox, Dataset, LengthUnit, SamplingModes, VoxelSize, Zarr3Config
from wkdask.errors import (
    AlreadyExistsError,
    DTypeError,
    InvalidValueError,
    LayerNotFoundError,
    ReadOnlyError,
    TaskFailedError,
    UnsupportedFormatError,
    WkdaskWarning,
)

DATA = ramp(1, 40, 40, 40)


@pytest.fixture
def source(new):
    ds = new("source")
    filled(ds, DATA)
    return ds


# --- made and opened ------------------------------------------------------------------------------------


def test_the_constructor_makes_a_dataset(tmp_path):
    ds = Dataset(tmp_path / "ds", voxel_size=(1, 2, 3))
    assert raw(ds)["scale"] == {"factor": [1.0, 2.0, 3.0], "unit": "nanometer"}
    assert ds.name == "ds"
    assert ds.voxel_size == (1, 2, 3)
    assert tuple(ds.voxel_size) == ds.scale == (1, 2, 3)
    assert Dataset(tmp_path / "ds").voxel_size == ds.voxel_size  # opens, as in 2021
    (tmp_path / "empty").mkdir()
    assert Dataset(tmp_path / "empty", (1, 1, 1), "name").name == "name"


def test_the_constructor_and_a_dataset_that_exists(tmp_path):
    ds = Dataset(tmp_path / "ds", voxel_size=(1, 2, 3))
    before = raw(ds)
    with pytest.raises(RuntimeError, match="not an empty folder"):
        Dataset(tmp_path / "ds", voxel_size=(1, 2, 3))
    for arguments in ({}, {"name": "ds"}, {"voxel_size": (1, 2, 3)}):
        assert Dataset(tmp_path / "ds", exist_ok=True, **arguments) == ds
    assert Dataset(tmp_path / "new", voxel_size=(1, 2, 3), exist_ok=True).layers == {}
    for arguments in ({"voxel_size": (1, 2, 4)}, {"voxel_size": (1, 2, 3), "name": "other"}):
        with pytest.raises(RuntimeError, match="not"):
            Dataset(tmp_path / "ds", exist_ok=True, **arguments)
    assert raw(ds) == before
    with pytest.raises(FileNotFoundError):
        Dataset(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        Dataset(tmp_path / "nothing", exist_ok=True)
    with pytest.raises(FileNotFoundError):
        Dataset(tmp_path / "nothing", voxel_size=(1, 1, 1), read_only=True)
    with pytest.raises(InvalidValueError):
        Dataset(tmp_path / "nothing", (1, 1, 1), voxel_size_with_unit=VoxelSize((1, 1, 1)))
    with pytest.raises(InvalidValueError):
        Dataset(tmp_path / "nothing", (1, 1, 0))
    assert not (tmp_path / "nothing").exists()


def test_units_of_voxel_sizes(tmp_path):
    size = VoxelSize((1, 2, 3), LengthUnit.MICROMETER)
    ds = Dataset(tmp_path / "ds", voxel_size_with_unit=size)
    assert raw(ds)["scale"] == {"factor": [1.0, 2.0, 3.0], "unit": "micrometer"}
    assert ds.voxel_size_with_unit == size
    assert size.unit == LengthUnit.MICROMETER
    assert ds.voxel_size == (1000, 2000, 3000)
    assert ds.voxel_size[1] == 2000
    assert len(ds.voxel_size) == 3
    assert size != VoxelSize((1000, 2000, 3000))  # another unit
    assert hash(size) == hash((1000.0, 2000.0, 3000.0))
    assert size != (1, 2, 3)
    assert size != "1, 2, 3"


def test_a_dataset_that_is_opened_read_only_stays_as_it_is(source, new):
    before = raw(source), sorted(os.listdir(source.path))
    other = new("other").add_layer("foreign", COLOR).add_mag(2, **SMALL)
    for ds in (
        Dataset.open(source.path, read_only=True),
        Dataset(source.path, read_only=True),
        pickle.loads(pickle.dumps(Dataset.open(source.path, True))),
    ):
        layer = ds.get_layer("layer")
        mag = layer.get_mag(1)
        assert ds.read_only
        assert layer.read_only
        assert mag.read_only
        assert np.array_equal(mag.read(), DATA)
        for change in (
            lambda ds=ds: ds.add_layer("new", COLOR),
            lambda ds=ds: ds.delete_layer("layer"),
            lambda ds=ds: setattr(ds, "name", "new"),
            lambda ds=ds: ds.add_copy_layer(other.layer),
            lambda ds=ds: ds.add_symlink_layer(other.layer),
            lambda ds=ds: ds.add_layer_as_ref(other.layer),
            lambda layer=layer: layer.add_mag(2),
            lambda layer=layer: layer.delete_mag(1),
            lambda layer=layer: layer.downsample(),
            lambda layer=layer: layer.add_copy_mag(other),
            lambda layer=layer: layer.add_symlink_mag(other),
            lambda layer=layer: layer.add_mag_as_ref(other),
            lambda layer=layer: setattr(layer, "name", "new"),
            lambda layer=layer: setattr(layer, "bounding_box", BoundingBox.empty()),
            lambda mag=mag: mag.write(DATA),
            lambda mag=mag: mag.compress(),
            lambda mag=mag: mag.rechunk(16, 64),
            lambda mag=mag: mag.get_buffered_slice_writer(),
            lambda mag=mag: mag.get_view().write(DATA),
        ):
            with pytest.raises(ReadOnlyError, match="read_only=True") as caught:
                change()
            assert isinstance(caught.value, RuntimeError)  # as in version 4
        assert (raw(source), sorted(os.listdir(source.path))) == before
    assert not source.read_only
    assert not source.get_layer("layer").read_only


# --- layers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{"read_only": True}, {"outside": "refuse"}])
def test_arguments_that_contradict_each_other(source, arguments):
    with pytest.raises(InvalidValueError, match="contradicts"):
        Dataset(source.path, writable=True, **arguments)


def test_layers_by_category(new):
    ds = new()
    color = [ds.add_layer(name, wkdask.COLOR_CATEGORY) for name in "ab"]
    cells = [ds.add_layer(name, wkdask.SEGMENTATION_CATEGORY, dtype="uint32") for name in "cd"]
    assert ds.get_color_layers() == color
    assert ds.get_segmentation_layers() == cells
    assert new("none").get_color_layers() == []
    assert cells[0].as_segmentation_layer() is cells[0]
    with pytest.raises(TypeError, match="no segmentation"):
        color[0].as_segmentation_layer()


def test_the_type_of_a_layer_in_version_4s_word(new):
    ds = new()
    for add in (ds.add_layer, ds.get_or_add_layer):
        layer = add("layer" if add == ds.add_layer else "got", COLOR, dtype=np.uint16, num_channels=3)
        assert layer.dtype == layer.dtype_per_channel == np.dtype("uint16")
        assert layer.dtype_per_layer == "uint48"
        with pytest.raises(InvalidValueError, match="two of them"):
            add("wrong", COLOR, dtype="uint8", dtype_per_channel="uint8")
    assert list(ds.layers) == ["layer", "got"]
    with pytest.raises(InvalidValueError, match="uint16"):
        ds.get_or_add_layer("layer", COLOR, dtype="uint8", num_channels=3)
    assert ds.add_layer("boxed", COLOR, bounding_box=None).bounding_box.is_empty()
    zarr = ds.add_layer("zarr", COLOR, data_format=wkdask.DataFormat.Zarr3)
    assert zarr.data_format == "zarr3" == wkdask.DataFormat.Zarr3
    assert raw(ds)["dataLayers"][-1]["dataFormat"] == "zarr3"


def test_other_arguments_of_2021_are_ignored_and_that_is_said(new):
    ds = new()
    with pytest.warns(WkdaskWarning, match="compressed="):
        ds.add_layer("layer", COLOR, compressed=True)
    with pytest.warns(WkdaskWarning, match="compressed="):
        ds.get_or_add_layer("other", COLOR, compressed=True)
    assert list(ds.layers) == ["layer", "other"]


def test_the_finest_mag(source):
    layer = source.get_layer("layer")
    layer.add_mag(4)
    layer.add_mag("2-2-1")
    assert layer.get_finest_mag() == layer.get_best_mag() == layer.get_mag(1)
    with pytest.raises(IndexError, match="no mags"):
        source.add_layer("empty", COLOR).get_finest_mag()


def test_where_layers_are(source, new):
    layer = source.get_layer("layer")
    linked = new().add_symlink_layer(layer, "linked")  # version 4: the name comes second
    assert linked.name == "linked"
    assert linked.is_foreign
    assert linked.is_remote_to_dataset
    assert linked.resolved_path == layer.path == layer.resolved_path
    assert linked.get_mag(1).is_foreign
    assert linked.is_mag_view_foreign(linked.get_mag(1))
    assert not layer.is_foreign
    assert not layer.get_mag(1).is_foreign
    assert not linked.read_only
    assert Dataset(linked.dataset.path).get_layer("linked").read_only
    assert source.resolved_path == source.path
    with pytest.raises(InvalidValueError, match="one name"):
        new("third").add_symlink_layer(layer, "a", "b")


# --- how new mags are cut -------------------------------------------------------------------------------


def test_cubes_in_chunks(new):
    layer = new().add_layer("layer", COLOR, data_format="zarr3")
    assert layer.add_mag(1, chunk_shape=16, chunks_per_shard=4).spec.shard_shape == (64, 64, 64)
    assert layer.add_mag(2, chunk_shape=16, chunks_per_shard=(4, 2, 1)).spec.shard_shape == (64, 32, 16)
    assert layer.get_or_add_mag(1, chunks_per_shard=4) == layer.get_mag(1)
    with pytest.raises(InvalidValueError, match="shard"):
        layer.get_or_add_mag(1, chunks_per_shard=2)
    for wrong in ({"shard_shape": 64}, {"file_len": 4}):
        with pytest.raises(InvalidValueError, match="not both"):
            layer.add_mag(4, chunks_per_shard=2, **wrong)
    assert names(layer) == ["1", "2"]


@pytest.mark.parametrize(
    ("config", "compression"),
    [
        (Zarr3Config(), "zstd"),
        (Zarr3Config([{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}]), "gzip"),
        (Zarr3Config(["transpose", "bytes", "blosc"]), "blosc"),
        (Zarr3Config([{"name": "bytes", "configuration": {"endian": "little"}}]), None),
        (
            Zarr3Config(
                [
                    {
                        "name": "sharding_indexed",
                        "configuration": {"codecs": [{"name": "zstd"}, {"name": "bytes"}]},
                    }
                ],
                {"name": "default", "configuration": {"separator": "/"}},
            ),
            "zstd",
        ),
        (True, "zstd"),
        (False, None),
    ],
)
def test_compression_in_version_4s_words(new, config, compression):
    layer = new().add_layer("layer", COLOR, data_format="zarr3")
    mag = layer.add_mag(1, chunk_shape=16, shard_shape=32, compress=config)
    assert mag.spec.compression == compression
    mag.write(DATA)
    assert np.array_equal(Dataset(layer.dataset.path).get_layer("layer").get_mag(1).read(), DATA)


@pytest.mark.parametrize(
    "arguments",
    [
        {"codecs": [{"name": "lzma"}]},
        {"codecs": ["gzip", "zstd"]},
        {"chunk_key_encoding": {"name": "v2"}},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}}},
    ],
)
def test_arrays_that_are_not_made_so(arguments):
    with pytest.raises(UnsupportedFormatError):
        Zarr3Config(**arguments)


@pytest.mark.parametrize(
    ("category", "dtype", "warns"),
    [
        *((COLOR, dtype, True) for dtype in ("float64", "int64", "uint64")),
        *((COLOR, dtype, False) for dtype in ("uint8", "uint32", "int16", "float32")),
        *((SEGMENTATION, dtype, True) for dtype in ("float32", "float64")),
        *((SEGMENTATION, dtype, False) for dtype in ("uint8", "int64", "uint64")),
    ],
)
def test_layers_that_webknossos_does_not_make(new, category, dtype, warns, recwarn):
    layer = new().add_layer("layer", category, dtype_per_channel=dtype)
    said = [str(each.message) for each in recwarn]
    assert layer.dtype == np.dtype(dtype)
    assert len(said) == warns
    assert all("'layer'" in text and "4.3.3 reads" in text and dtype in text for text in said)


@pytest.mark.parametrize(
    ("data_format", "cut", "warns"),
    [
        ("zarr3", (3, 96), True),
        ("zarr3", (32, 96), True),
        ("zarr3", (16, 64), False),
        ("zarr", (96, 96), True),
        ("zarr", (32, 32), False),
        ("wkw", (16, 64), False),
    ],
)
def test_cuts_that_webknossos_does_not_make(new, data_format, cut, warns, recwarn):
    layer = new().add_layer("layer", COLOR, data_format=data_format)
    layer.add_mag(1, chunk_shape=cut[0], shard_shape=cut[1])
    said = [str(each.message) for each in recwarn]
    assert len(said) == warns
    assert all("powers of two" in text and "4.3.3 reads" in text for text in said)


# --- a layer of an array --------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("data_format", ["wkw", "zarr3"])
def test_a_layer_of_an_array(new, data_format, lazy):
    data = ramp(3, 40, 30, 20)
    layer = new(scale=(1, 1, 1)).write_layer(
        "layer",
        COLOR,
        da.from_array(data, chunks=(3, 16, 16, 16)) if lazy else data,
        data_format=data_format,
        chunk_shape=16,
        shard_shape=32,
        absolute_offset=(3, 5, 7),
    )
    assert layer.bounding_box == BoundingBox((3, 5, 7), (40, 30, 20))
    assert np.array_equal(layer.get_mag(1).read(), data)
    assert (layer.num_channels, layer.data_format) == (3, data_format)
    assert names(layer)[:2] == ["1", "2"]  # with coarser mags
    assert layer.get_mag(2).read().any()


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (None, lambda data: data[None]),
        (("x", "y", "z"), lambda data: data[None]),
        ("zyx", lambda data: data.transpose()[None]),
        (("c", "x", "y"), lambda data: data[..., None]),
        (("y", "x", "c"), lambda data: data.transpose(2, 1, 0)[..., None]),
    ],
)
def test_axes_of_an_array(new, axes, expected):
    data = ramp(3, 40, 30) if axes and axes[0] == "c" else ramp(40, 30, 3)
    layer = new().write_layer("layer", COLOR, data, axes=axes, downsample=False)
    assert np.array_equal(layer.get_mag(1).read(), expected(data))
    assert names(layer) == ["1"]


def test_a_layer_of_ids_of_another_mag(new):
    data = ramp(20, 30, 40, dtype="uint32")
    layer = new().write_layer("layer", SEGMENTATION, data, mag=2, downsample=False, absolute_offset=(2, 4, 6))
    assert layer.bounding_box == BoundingBox((2, 4, 6), (40, 60, 80))
    assert np.array_equal(layer.get_mag(2).read()[0], data)
    assert layer.largest_segment_id == data.max()


@pytest.mark.parametrize(
    ("data", "arguments", "error"),
    [
        (ramp(4, 5), {}, InvalidValueError),
        (ramp(4, 5), {"axes": ("x", "x")}, InvalidValueError),
        (ramp(4, 5), {"axes": ("x", "t")}, InvalidValueError),
        (ramp(4, 5, 6), {"axes": ("x", "y")}, InvalidValueError),
        ([1, 2, 3], {}, InvalidValueError),
        (ramp(4, 5, 6), {"absolute_offset": (1, 0, 0), "mag": 2}, InvalidValueError),
        (ramp(2, 4, 5, 6), {"axes": "txyz"}, UnsupportedFormatError),  # WKW
        (ramp(2, 4, 5, 6), {"axes": "txyz", "data_format": "zarr3", "resume": True}, InvalidValueError),
        (ramp(4, 5, 6), {"axes": "txy", "data_format": "zarr3"}, InvalidValueError),
        (
            ramp(2, 4, 5, 6),
            {"axes": "txyz", "data_format": "zarr3", "absolute_offset": (1, 2)},
            InvalidValueError,
        ),
        (
            ramp(2, 4, 5, 6),
            {"axes": "txyz", "data_format": "zarr3", "absolute_offset": (1, 0, 0), "mag": 2},
            InvalidValueError,
        ),
        (ramp(4, 5, 6), {"chunk_shape": 3, "shard_shape": 5}, InvalidValueError),
        (ramp(4, 5, 6).astype(bool), {}, DTypeError),
        (
            ramp(4, 5, 6),
            {"mag": "4-4-1", "downsample": True, "absolute_offset": (-4, 0, 0)},
            InvalidValueError,
        ),
    ],
)
def test_what_is_no_layer_leaves_nothing_behind(new, data, arguments, error):
    ds = new()
    before = raw(ds), os.listdir(ds.path)
    with pytest.raises(error):
        ds.write_layer("layer", COLOR, data, **arguments)
    assert (raw(ds), os.listdir(ds.path)) == before


@pytest.mark.parametrize(
    ("axes", "stored", "offset", "corner"),
    [
        ("ctxyz", "ctxyz", None, (0, 0, 0, 0, 0)),
        ("ctxyz", "ctxyz", (0, 3, 12, 8, 4), (0, 3, 12, 8, 4)),
        ("xyzt", "txyz", (4, 8, 12), (0, 4, 8, 12)),
        ("tzyx", "txyz", (2, 12, 8, 4), (2, 4, 8, 12)),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_a_layer_of_an_array_of_further_axes(new, axes, stored, offset, corner, lazy):
    shape = {"c": 3, "t": 2, "x": 20, "y": 16, "z": 12}
    data = ramp(*(shape[axis] for axis in axes))
    given = da.from_array(data, chunks=8) if lazy else data
    layer = new().write_layer(
        "layer", COLOR, given, data_format="zarr3", axes=axes, absolute_offset=offset, shard_shape=32
    )
    assert len(layer.mags) > 1
    expected = data.transpose([axes.index(axis) for axis in stored])
    assert np.array_equal(layer.get_mag(1).read(), expected)
    box = layer.bounding_box
    assert (box.axes, tuple(box.topleft), tuple(box.size)) == (tuple(stored), corner, expected.shape)


def half_broken(broken):
    """Return an array one block of which cannot be computed at first, and the list of those that were."""
    computed = []

    def block(x, block_info=None):
        place = block_info[None]["chunk-location"]
        if place == (1, 1, 0) and broken[0]:
            raise RuntimeError("not yet")
        computed.append(place)
        return x + 1

    return da.map_blocks(block, da.zeros((64, 64, 32), dtype="uint8", chunks=32), dtype="uint8"), computed


def test_a_layer_whose_array_failed_goes_on(new):
    ds, broken = new(), [True]
    x, computed = half_broken(broken)
    call = {"chunk_shape": 16, "shard_shape": 32, "downsample": False, "job": "mine"}
    with pytest.raises(TaskFailedError, match="not yet"):
        ds.write_layer("layer", COLOR, x, **call)
    assert names(ds.get_layer("layer")) == ["1"]  # what landed stays
    broken[0] = False
    computed.clear()
    layer = ds.write_layer("layer", COLOR, x, resume=True, **call)
    assert [place for place in computed if place != (0, 0, 0)] == [(1, 1, 0)]
    assert (layer.get_mag(1).read() == 1).all()


def write_layer(ds, array):
    ds.write_layer("layer", COLOR, array, downsample=False, chunk_shape=16, shard_shape=32)


def from_dask(ds, array):
    call = {"pyramid": False, "progress": False, "chunk_shape": 16, "shard_shape": 32}
    Dataset.from_dask(ds.path / "new", array, (1, 1, 1), **call)


@pytest.mark.parametrize("through", [write_layer, from_dask])
def test_what_failed_and_cannot_go_on_leaves_nothing_behind(new, through):
    ds = new()
    zeros = dask.delayed(np.zeros, pure=False)((64, 64, 32), "uint8")  # of another name at each call
    x = da.from_delayed(zeros, (64, 64, 32), "uint8") + half_broken([True])[0]
    before = raw(ds), sorted({*os.listdir(ds.path), ".wkdask"})
    with pytest.raises(TaskFailedError, match="not yet"):
        through(ds, x)
    assert (raw(ds), sorted(os.listdir(ds.path))) == before


# --- all layers -----------------------------------------------------------------------------------------


def test_a_dataset_is_sampled_and_compressed_as_a_whole(new):
    ds = new(scale=(1, 1, 1))
    filled(ds, DATA, name="a")
    filled(ds, DATA, name="b", offset=(40, 0, 0))
    assert ds.calculate_bounding_box() == BoundingBox((0, 0, 0), (80, 40, 40))
    ds.downsample(sampling_mode=SamplingModes.ISOTROPIC, coarsest_mag=4, compress=False)
    assert all(names(layer) == ["1", "2", "4"] for layer in ds.layers.values())
    assert not any(mag.info.compression_mode for layer in ds.layers.values() for mag in layer.mags.values())
    ds.compress()
    assert all(mag.info.compression_mode for layer in ds.layers.values() for mag in layer.mags.values())
    assert np.array_equal(ds.get_layer("a").get_mag(1).read(), DATA)
    assert new("empty").calculate_bounding_box().is_empty()
    for call in (ds.downsample, ds.compress):
        with pytest.warns(WkdaskWarning, match="executor="):
            call(executor=object())


# --- references -----------------------------------------------------------------------------------------


def test_a_layer_by_reference(source, new):
    layer = source.get_layer("layer")
    before = raw(source)
    ds = new()
    by_handle, by_path = ds.add_layer_as_ref(layer), ds.add_layer_as_ref(layer.path, "path")
    for ref in (by_handle, by_path, Dataset(ds.path).get_layer("layer")):
        assert ref.bounding_box == layer.bounding_box
        assert np.array_equal(ref.get_mag(1).read(), DATA)
        assert ref.get_mag(1).is_foreign
        with pytest.raises(ReadOnlyError):
            ref.get_mag(1).write(DATA)
        assert not ref.is_foreign
        assert not ref.read_only
    assert [each["mags"][0]["path"] for each in raw(ds)["dataLayers"]] == [str(layer.get_mag(1).path)] * 2
    assert not any(entry.is_symlink() for entry in ds.path.rglob("*"))
    by_handle.downsample_mag(1, 2)  # more may be added
    assert names(by_handle) == ["1", "2"]
    assert names(layer) == ["1"]
    with pytest.raises(IndexError):
        ds.add_layer_as_ref(layer, "path")
    ds.delete_layer("layer")
    ds.delete_layer("path")
    assert np.array_equal(layer.get_mag(1).read(), DATA)
    assert raw(source) == before


@pytest.mark.parametrize("data_format", ["zarr3", "zarr"])
def test_a_zarr_layer_by_reference(new, data_format):
    source = new("source").write_layer("layer", COLOR, DATA, data_format=data_format, downsample=False)
    layer = new().add_layer_as_ref(source, "ref")  # no metadata of OME-Zarr where there is no folder
    assert np.array_equal(layer.get_mag(1).read(), DATA)
    assert os.listdir(layer.dataset.path) == ["datasource-properties.json"] or not layer.path.exists()
    layer.downsample_mag(1, 2)
    assert (layer.path / ("zarr.json" if data_format == "zarr3" else ".zattrs")).exists()
    layer.name = "other"
    assert layer.get_mag(1).path == source.get_mag(1).path
    assert layer.get_mag(2).read().any()


def test_a_mag_by_reference(source, new):
    mag = source.get_layer("layer").get_mag(1)
    ds = new()
    layer = ds.add_layer("layer", COLOR)
    ref = layer.add_mag_as_ref(mag)
    assert np.array_equal(ref.read(), DATA)
    assert ref.read_only
    assert ref.path == mag.path
    assert layer.bounding_box == BoundingBox((0, 0, 0), (40, 40, 40))
    coarse = layer.add_mag_as_ref(mag.path, mag=4)
    assert coarse.mag == "4"
    assert layer.bounding_box == BoundingBox((0, 0, 0), (160, 160, 160))
    assert np.array_equal(coarse.read(size=(40, 40, 40)), DATA)
    with pytest.raises(AlreadyExistsError):
        layer.add_mag_as_ref(mag)
    with pytest.raises(InvalidValueError, match="add a copy"):
        ds.add_layer("zarr", COLOR, data_format="zarr3").add_mag_as_ref(mag)
    layer.delete_mag(1)
    assert np.array_equal(mag.read(), DATA)
    small = ds.add_layer("small", COLOR)
    small.add_mag_as_ref(mag, extend_layer_bounding_box=False)
    assert small.bounding_box.is_empty()


def test_a_folder_of_any_name_by_reference(source, new, tmp_path):
    os.rename(source.get_layer("layer").get_mag(1).path, tmp_path / "array")
    layer = new().add_layer("layer", COLOR)
    with pytest.raises(InvalidValueError):
        layer.add_mag_as_ref(tmp_path / "array")
    layer.add_mag_as_ref(tmp_path / "array", mag="1")
    assert np.array_equal(layer.get_mag(1).read(size=(40, 40, 40)), DATA)


@pytest.mark.parametrize("move", [False, True])
@pytest.mark.parametrize("data_format", ["zarr3", "zarr"])
def test_an_array_becomes_a_mag(new, data_format, move):
    mag = new("other").add_layer("layer", COLOR, data_format=data_format).add_mag(1, chunk_shape=16)
    mag.write(DATA)
    path = str(mag.path)
    layer = new().add_layer("layer", COLOR, data_format=data_format)
    added = layer.add_mag_from_zarrarray("2-2-1", path, move=move)
    assert added.path == layer.path / "2-2-1"
    assert os.path.exists(path) is not move
    assert np.array_equal(added.read(size=(40, 40, 40)), DATA)
    assert not added.read_only
    assert layer.bounding_box.contains_bbox(BoundingBox((0, 0, 0), (80, 80, 40)))
    added.write(DATA // 2)
    with pytest.raises(AlreadyExistsError):
        layer.add_mag_from_zarrarray("2-2-1", added.path)


@pytest.mark.parametrize("move", [False, True])
def test_an_array_that_does_not_fit_stays_where_it_is(new, move):
    mag = new("other").add_layer("layer", COLOR, "uint16", data_format="zarr3").add_mag(1, chunk_shape=16)
    mag.write(DATA.astype("uint16"))
    ds = new()
    layers = [ds.add_layer("a", COLOR, data_format="zarr3"), ds.add_layer("b", COLOR)]
    layers.append(ds.add_layer("c", COLOR, "uint16", data_format="zarr"))
    for layer in layers:
        with pytest.raises((InvalidValueError, OSError)):
            layer.add_mag_from_zarrarray(1, mag.path, move=move)
        assert (names(layer), [each for each in os.listdir(layer.path) if each[0] in "012"]) == ([], [])
    assert np.array_equal(mag.read(), DATA)


# --- copies ---------------------------------------------------------------------------------------------


def test_a_copied_layer_is_cut_otherwise(source, new):
    layer = source.get_layer("layer")
    ds = new()
    copy = ds.add_layer_as_copy(
        layer, "zarr", data_format="zarr3", chunk_shape=16, chunks_per_shard=4, compress=Zarr3Config(["gzip"])
    )
    info = copy.get_mag(1).info
    assert (info.data_format, info.chunk_shape, info.shard_shape) == ("zarr3", (16,) * 3, (64,) * 3)
    assert info.compression == "gzip"
    for name, compress, expected in (("a", True, "lz4hc"), ("b", False, None), ("c", None, None)):
        assert ds.add_copy_layer(layer, name, compress=compress).get_mag(1).info.compression == expected
    assert ds.add_fs_copy_layer(layer).get_mag(1).spec == layer.get_mag(1).spec
    for each in ds.layers.values():
        assert np.array_equal(each.get_mag(1).read(), DATA)
    with pytest.raises(InvalidValueError, match="not both"):
        ds.add_copy_layer(layer, "wrong", shard_shape=64, chunks_per_shard=2)
    assert "wrong" not in ds.layers


def test_a_copy_goes_on_with_what_is_missing(source, new):
    layer = source.get_layer("layer")
    ds = new()
    copy = ds.add_layer_as_copy(layer)
    copy.get_mag(1).write(DATA // 2)
    layer.downsample_mag(1, 2)
    with pytest.raises(IndexError):
        ds.add_layer_as_copy(layer)
    assert names(ds.add_layer_as_copy(layer, exists_ok=True)) == ["1", "2"]
    assert np.array_equal(copy.get_mag(1).read(), DATA // 2)  # that was there
    assert np.array_equal(copy.get_mag(2).read(), layer.get_mag(2).read())


def test_a_copy_without_what_is_beside_the_mags(source, new):
    layer = source.get_layer("layer")
    os.makedirs(layer.path / "meshes")
    (layer.path / "meshes" / "mesh").write_text("mesh")
    ds = new()
    assert (ds.add_copy_layer(layer).path / "meshes" / "mesh").read_text() == "mesh"
    assert sorted(os.listdir(ds.add_copy_layer(layer, "bare", with_attachments=False).path)) == ["1"]


def test_a_copied_mag_is_another_and_cut_otherwise(source, new):
    mag = source.get_layer("layer").get_mag(1)
    layer = new().add_layer("layer", COLOR, data_format="zarr3")
    copy = layer.add_mag_as_copy(mag, mag=2, chunk_shape=16, shard_shape=32, compress=False)
    assert copy.mag == "2"
    assert (copy.spec.chunk_shape, copy.spec.shard_shape, copy.spec.compression) == (
        (16,) * 3,
        (32,) * 3,
        None,
    )
    assert layer.bounding_box == BoundingBox((0, 0, 0), (80, 80, 80))
    assert np.array_equal(copy.read(), DATA)
    with pytest.raises(AlreadyExistsError):
        layer.add_mag_as_copy(mag, mag=2)
    copy.write(DATA // 2)
    assert layer.add_mag_as_copy(mag, mag=2, exists_ok=True).spec == copy.spec
    assert np.array_equal(copy.read(), DATA)
    wkw = new("wkw").add_layer("layer", COLOR)
    assert wkw.add_fs_copy_mag(mag).spec == mag.spec


def test_a_copied_dataset_in_version_4s_words(source, tmp_path):
    copy = source.copy_dataset(
        tmp_path / "copy", voxel_size=(1, 1, 1), data_format="zarr3", chunks_per_shard=2, compress=True
    )
    info = copy.get_layer("layer").get_mag(1).info
    assert (info.data_format, info.chunks_per_shard, info.compression) == ("zarr3", (2, 2, 2), "zstd")
    assert copy.voxel_size == (1, 1, 1)
    filled(source, DATA // 2, name="later")
    with pytest.raises(AlreadyExistsError):
        source.copy_dataset(tmp_path / "copy")
    again = source.copy_dataset(tmp_path / "copy", exists_ok=True)
    assert list(again.layers) == ["layer", "later"]
    assert np.array_equal(again.get_layer("later").get_mag(1).read(), DATA // 2)
    files = source.fs_copy_dataset(tmp_path / "files", layers_to_ignore=["later"])
    assert list(files.layers) == ["layer"]
    with pytest.raises(InvalidValueError, match="one of scale"):
        source.copy_dataset(tmp_path / "wrong", scale=(1, 1, 1), voxel_size=(1, 1, 1))
    assert not (tmp_path / "wrong").exists()
    shallow = source.shallow_copy_dataset(tmp_path / "shallow", layers_to_ignore=None, make_relative=None)
    assert list(shallow.layers) == ["layer", "later"]


# --- names of folders -----------------------------------------------------------------------------------


def test_a_folder_that_was_renamed_to_its_long_name(source):
    layer = source.get_layer("layer")
    os.rename(layer.get_mag(1).path, layer.path / "1-1-1")
    assert np.array_equal(Dataset(source.path).get_layer("layer").get_mag(1).read(), DATA)
    with pytest.raises(LayerNotFoundError):
        source.get_layer("nothing")


# --- what scripts import --------------------------------------------------------------------------------


def test_names_are_where_scripts_look_for_them():
    from wkdask import utils
    from wkdask.dataset import dataset
    from wkdask.geometry import boxes as geometry

    for name in ("COLOR_CATEGORY", "SEGMENTATION_CATEGORY", "Layer", "SegmentationLayer", "View", "MagView"):
        assert getattr(dataset, name) is getattr(wkdask, name)
    assert dataset.PROPERTIES_FILE_NAME == "datasource-properties.json"
    for name in ("BoundingBox", "Mag", "Vec3Int"):
        assert getattr(geometry, name) is getattr(wkdask, name)
    add = utils.named_partial(np.add, 1)
    assert add(2) == 3
    assert add.__name__ == "add"
    assert [utils.snake_to_camel_case(name) for name in ("zoom", "four_bit", "is_in_edit_mode")] == [
        "zoom",
        "fourBit",
        "isInEditMode",
    ]
    with pytest.warns(WkdaskWarning, match="args="), utils.get_executor_for_args(args=object()):
        pass


@pytest.mark.parametrize("where", ["threads", "client"])
def test_scripts_run_functions_of_their_own(where, request):
    from wkdask.utils import get_executor_for_args, wait_and_ensure_success

    def squared(number):
        if number < 0:
            raise ArithmeticError(f"{number} is negative")
        return number * number

    if where == "client":
        request.getfixturevalue("client")
    with get_executor_for_args(None) as executor:
        futures = executor.map_to_futures(squared, range(5))
        assert sorted(wait_and_ensure_success(futures)) == [0, 1, 4, 9, 16]
        assert sorted(wait_and_ensure_success(futures, executor, "squares")) == [0, 1, 4, 9, 16]
        assert list(executor.map(pow, [2, 3], [5, 2])) == [32, 9]
        assert sorted(executor.map_unordered(squared, [3, 2])) == [4, 9]
        assert [future.result() for future in executor.as_completed([executor.submit(squared, 7)])] == [49]
        with pytest.raises(ArithmeticError, match="-2 is negative"):
            wait_and_ensure_success(executor.map_to_futures(squared, [1, -2, 3]))
        assert wait_and_ensure_success([]) == []


def of_this_module(number):
    return number


def test_a_function_that_workers_cannot_import_is_an_error(client):
    from wkdask.utils import get_executor_for_args, wait_and_ensure_success

    with (
        get_executor_for_args(None) as executor,
        pytest.raises(ImportError, match="cannot import the function"),
    ):
        wait_and_ensure_success(executor.map_to_futures(of_this_module, [1, 2]))


def test_calls_that_get_the_executor_of_a_script_say_nothing_of_it(new):
    from wkdask.utils import get_executor_for_args

    mag = filled(new(), ramp(1, 40, 40, 40))
    seen = []
    with warnings.catch_warnings(), get_executor_for_args(None) as executor:
        warnings.simplefilter("error")
        mag.get_mag(1).for_each_chunk(
            lambda args: seen.append(args[1]), chunk_shape=(32, 32, 32), executor=executor
        )
    assert sorted(seen) == list(range(8))
