"""The acceptance behaviours 50 to 69 of the Dataset API, one test each: links, copies, pyramids, formats.

See `test_behaviours.py` and `docs/behaviours.md`.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import wkw
from small_datasets import COLOR, SBEM, SEGMENTATION, SMALL, check_reopened, filled, names, put, ramp, raw

from wkdask import BoundingBox, Dataset, LayerViewConfiguration, Mag, VoxelSize, kernels
from wkdask.errors import (
    AlreadyExistsError,
    DamagedCubeError,
    DamagedHeaderError,
    InvalidValueError,
    MagNotFoundError,
    ReadOnlyError,
    UnsupportedFormatError,
    WkdaskWarning,
)
from wkdask.pyramid.mags import default_coarsest_mag, mag_chain


def files_below(path):
    """Return the files in a folder, without those of ours in progress; links are not followed."""
    found = set()
    for folder, folders, files in os.walk(path):
        folders[:] = [each for each in folders if each != ".wkdask"]
        found |= {os.path.relpath(os.path.join(folder, each), path) for each in files}
    return found


# --- copies and links -----------------------------------------------------------------------------------


def test_50_links_share_data(new):
    data = ramp(1, 40, 40, 40)
    source, ds = new("source"), new()
    foreign = filled(source, data, offset=(10, 10, 10))
    before = files_below(source.path), raw(source)

    linked = ds.add_symlink_layer(foreign, new_layer_name="linked")
    assert linked.bounding_box == foreign.bounding_box
    assert np.array_equal(linked.get_mag(1).read(), data)

    layer = ds.add_layer("own", COLOR)
    layer.add_mag(2, **SMALL).write(ramp(1, 5, 5, 5))
    mag = layer.add_symlink_mag(foreign.get_mag(1), make_relative=True)
    assert not os.path.isabs(os.readlink(os.path.join(layer.path, "1")))
    assert layer.bounding_box == BoundingBox((0, 0, 0), (50, 50, 50))  # the union
    assert np.array_equal(mag.read(bounding_box=foreign.bounding_box), data)
    layer.add_mag(4, **SMALL)

    assert (files_below(source.path), raw(source)) == before  # no new mag appears in the source
    assert names(foreign) == ["1"]
    later = Dataset(ds.path)  # in a session that has not made the links
    for view in (later.get_layer("linked").get_mag(1), later.get_layer("own").get_mag(1)):
        assert view.read_only
        with pytest.raises(ReadOnlyError, match=r"outside.*writable=True"):
            view.write(data)
    with pytest.raises(ReadOnlyError):  # the folder of a linked layer is the source's
        later.get_layer("linked").add_mag(2)
    assert (files_below(source.path), raw(source)) == before
    for number, view in enumerate(
        [
            linked.get_mag(1),
            ds.get_layer("linked").get_mag(1),
            mag,
            Dataset(ds.path, writable=True).get_layer("own").get_mag(1),
        ]
    ):
        assert not view.read_only
        assert view.is_foreign
        view.write(np.full((1, 5, 5, 5), number, "uint8"), offset=(10, 10, 10))
        assert (foreign.get_mag(1).read(size=(5, 5, 5)) == number).all()
    assert raw(source) == before[1]  # no word of it there
    foreign.get_mag(1).write(data, offset=(10, 10, 10))
    with pytest.raises(AlreadyExistsError):
        ds.add_symlink_layer(foreign.path, new_layer_name="own")
    with pytest.raises(AlreadyExistsError):
        layer.add_symlink_mag(foreign.get_mag(1).path)
    foreign.get_mag(1).write(ramp(1, 40, 40, 40)[:, ::-1], offset=(10, 10, 10))
    assert np.array_equal(linked.get_mag(1).read(), data[:, ::-1])  # the same data, not a copy
    outer = ds.add_layer("outer", COLOR)
    outer.add_symlink_mag(foreign.get_mag(1).path, extend_layer_bounding_box=False)
    assert outer.bounding_box.is_empty()
    check_reopened(ds)


def test_51_copies_are_equal_and_keep_what_the_properties_say(new):
    data = ramp(3, 40, 30, 20)
    source, ds = new("source"), new()
    foreign = filled(source, data, offset=(10, 10, 10))
    foreign.default_view_configuration = LayerViewConfiguration(alpha=40)
    content = raw(source)
    transform = [{"type": "affine", "matrix": [[1, 0, 0, 5], [0, 1, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]]}]
    content["dataLayers"][0]["coordinateTransformations"] = transform
    put(source, content)

    for copied in (ds.add_copy_layer(foreign), ds.add_copy_layer(foreign.path, "again")):
        assert np.array_equal(copied.get_mag(1).read(), data)
        assert copied.bounding_box == foreign.bounding_box
        assert copied.get_mag(1).spec == foreign.get_mag(1).spec
        assert copied.default_view_configuration == LayerViewConfiguration(alpha=40)
        assert copied.record.raw["coordinateTransformations"] == transform
    with pytest.raises(AlreadyExistsError) as caught:
        ds.add_copy_layer(foreign)
    assert isinstance(caught.value, IndexError)

    layer = ds.add_layer("mags", COLOR, num_channels=3)
    copied = layer.add_copy_mag(foreign.get_mag(1))
    assert np.array_equal(copied.read(), data)
    assert layer.bounding_box == foreign.bounding_box
    with pytest.raises(AlreadyExistsError) as caught:
        layer.add_copy_mag(foreign.get_mag(1).path)
    assert isinstance(caught.value, IndexError)
    copied.write(ramp(3, 1, 1, 1) * 0, offset=(10, 10, 10))
    assert np.array_equal(foreign.get_mag(1).read(), data)  # a copy is one
    check_reopened(ds)


def test_52_a_dataset_copied_into_another_cut(new, tmp_path):
    data = ramp(1, 70, 60, 50)
    source = new("source")
    layer = filled(source, data, offset=(3, 4, 5), block_len=16, file_len=2)
    layer.downsample(coarsest_mag=2)
    filled(source, np.ones((1, 8, 8, 8), "uint32"), category=SEGMENTATION, name="ignored")
    copy = source.copy_dataset(
        tmp_path / "copy", block_len=32, file_len=4, compress=True, layers_to_ignore=["ignored"]
    )
    assert list(copy.layers) == ["layer"]
    assert copy.scale == SBEM
    for mag, view in layer.mags.items():
        found = copy.get_layer("layer").get_mag(mag)
        assert np.array_equal(found.read(), view.read())
        assert (found.spec.chunk_shape, found.spec.shard_shape) == ((32, 32, 32), (128, 128, 128))
        assert found.spec.compression == "lz4hc"
    assert copy.get_layer("layer").bounding_box == layer.bounding_box
    with pytest.warns(WkdaskWarning, match="args="):
        plain = source.copy_dataset(tmp_path / "plain", scale=(1, 2, 3), file_len=4, compress=False, args=1)
    found = plain.get_layer("layer").get_mag(1)
    assert (found.spec.chunk_shape, found.spec.shard_shape) == ((16, 16, 16), (64, 64, 64))  # its own chunks
    assert found.spec.compression is None
    assert plain.scale == (1, 2, 3)
    assert np.array_equal(found.read(), data)
    with pytest.raises(AlreadyExistsError):
        source.copy_dataset(tmp_path / "copy")
    check_reopened(copy)


def test_53_a_shallow_copy_holds_links_only(new, tmp_path):
    data = ramp(1, 40, 40, 40, dtype="uint32")
    source = new("source")
    layer = filled(source, data, category=SEGMENTATION, name="seg")
    folder = os.path.join(layer.path, "agglomerates")
    os.mkdir(folder)
    Path(folder, "view.hdf5").write_text("agglomerates")
    Path(source.path, "loose.hdf5").write_text("loose")
    os.mkdir(os.path.join(layer.path, "notes"))
    Path(layer.path, "notes", "of_nobody.txt").write_text("notes")
    content = raw(source)
    content["dataLayers"][0]["attachments"] = {
        "agglomerates": [{"name": "view", "path": "./seg/agglomerates/view.hdf5", "dataFormat": "hdf5"}],
        "cumsum": {"name": "loose", "path": "loose.hdf5", "dataFormat": "json"},
        "meshes": [{"name": "far", "path": "s3://bucket/mesh", "dataFormat": "zarr3"}],
    }
    put(source, content)
    copy = source.shallow_copy_dataset(tmp_path / "copy", name="another name")
    assert copy.name == "another name"
    assert np.array_equal(copy.get_layer("seg").get_mag(1).read(), data)
    assert files_below(copy.path) == {"datasource-properties.json"}  # the rest are links
    attachments = raw(copy)["dataLayers"][0]["attachments"]
    assert attachments["meshes"][0]["path"] == "s3://bucket/mesh"
    for each, text in [(attachments["agglomerates"][0], "agglomerates"), (attachments["cumsum"], "loose")]:
        assert Path(copy.path, each["path"]).read_text() == text
    assert not os.path.lexists(copy.path / "seg" / "agglomerates")  # all in it is listed by its path
    assert (copy.path / "seg" / "notes").is_symlink()
    with pytest.raises(ReadOnlyError):
        copy.get_layer("seg").get_mag(1).write(data)
    copy.get_layer("seg").downsample(coarsest_mag=2)  # what is added lies in the copy
    assert names(layer) == ["1"]
    assert {*os.listdir(layer.path)} == {"1", "agglomerates", "notes"}
    check_reopened(copy)
    near = source.shallow_copy_dataset(tmp_path / "near", make_relative=True)
    path = raw(near)["dataLayers"][0]["attachments"]["agglomerates"][0]["path"]
    assert path == os.path.join("..", source.path.name, "seg", "agglomerates", "view.hdf5")
    copied = source.copy_dataset(tmp_path / "whole")  # a whole copy has the files themselves
    path = raw(copied)["dataLayers"][0]["attachments"]["agglomerates"][0]["path"]
    assert path == "./seg/agglomerates/view.hdf5"
    assert os.path.join("seg", "agglomerates", "view.hdf5") in files_below(copied.path)


def test_54_a_second_handle_loses_nothing(new):
    first = new()
    second = Dataset(first.path)
    layer = filled(first, ramp(1, 10, 10, 10))
    assert list(second.layers) == ["layer"]  # what the first did meanwhile
    second.get_layer("layer").get_mag(1).write(ramp(1, 10, 10, 10), offset=(30, 0, 0))
    layer.get_mag(1).write(ramp(1, 10, 10, 10), offset=(0, 30, 0))
    layer.default_view_configuration = LayerViewConfiguration(alpha=1)
    second.add_layer("other", SEGMENTATION)
    second.name = "name"
    for ds in (first, second, Dataset(first.path)):
        assert ds.name == "name"
        assert list(ds.layers) == ["layer", "other"]
        assert ds.get_layer("layer").bounding_box == BoundingBox((0, 0, 0), (40, 40, 10))
        assert ds.get_layer("layer").default_view_configuration.alpha == 1
    check_reopened(first)


# --- down- and upsampling -------------------------------------------------------------------------------


def chain_of(size, start, end):
    return " ".join(map(str, mag_chain(Mag(start), Mag(end), VoxelSize(size))))


def test_55_which_mags_follow_which(new):
    for size, start, end, expected in [
        ((10.5, 10.5, 24), "1", "16", "2-2-1 4-4-2 8-8-4 16-16-8"),
        ((10.5, 10.5, 35), "1", "16", "2-2-1 4-4-1 8-8-2 16-16-4"),
        ((1, 1, 2), "2-2-2", "16-16-8", "4-4-2 8-8-4 16-16-8"),
        ((1, 1, 4), "1", "16-16-2", "2-2-1 4-4-1 8-8-2 16-16-2"),
        ((85, 85, 346), "1", "4", "2-2-1 4-4-1"),
    ]:
        assert chain_of(size, start, end) == expected
    for start, end in [("2", "16-16-2"), ("1", "1-1-2"), ("1", "4-4-16")]:
        with pytest.raises(InvalidValueError, match="cannot be reached"):
            chain_of((10.5, 10.5, 24), start, end)
    layer = filled(new(scale=(10.5, 10.5, 24)), ramp(1, 4, 4, 4), mag="8-8-4")
    layer.upsample("8-8-4")
    assert names(layer) == ["1", "2-2-1", "4-4-2", "8-8-4"]  # the chain down, backwards


def test_56_the_default_coarsest_mag():
    for longest, expected in [(1, 4), (256, 4), (4096, 64), (32768, 512), (65536, 1024), (262144, 4096)]:
        assert default_coarsest_mag(BoundingBox((7, 7, 7), (longest, 1, 10**6))) == Mag(expected)
        assert default_coarsest_mag(BoundingBox((0, 0, 0), (1, longest, 1))) == Mag(expected)


def test_57_the_mode_of_a_tie_is_what_comes_first(new):
    columns = np.array([[1, 3, 4, 2, 2, 7], [5, 2, 2, 1, 4, 1], [3, 3, 2, 2, 1, 1]], "uint32")
    expected = [1, 3, 2, 2, 2, 1]  # version 4; in 2021 the smallest won: 1, 3, 2, 2, 1, 1
    assert kernels.downsample(columns[None, :, :, None], (3, 1, 1), "mode").ravel().tolist() == expected
    window = np.array([9, 3, 5, 3, 9, 5, 7, 1], "uint32")  # in the order z, x, y: y fastest
    block = np.empty((1, 2, 2, 2), "uint32")
    for number, value in enumerate(window):
        z, x, y = np.unravel_index(number, (2, 2, 2))
        block[0, x, y, z] = value
    layer = filled(new(scale=(1, 1, 1)), block, category=SEGMENTATION)
    layer.downsample(coarsest_mag=2)
    assert layer.get_mag(2).read().ravel().tolist() == [9]


@pytest.mark.parametrize("dtype", [pytest.param("uint8", marks=pytest.mark.slow), "uint32"])
def test_58_the_mode_of_a_ramp_is_even(new, dtype):
    expected = np.arange(0, 100, 2, dtype=dtype)
    data = np.broadcast_to(np.arange(100, dtype=dtype)[None, :, None, None], (1, 100, 10, 10))
    layer = filled(new(scale=(1, 1, 1)), np.ascontiguousarray(data))
    layer.downsample(coarsest_mag=2, interpolation_mode="mode")
    found = layer.get_mag(2).read()
    assert found.shape == (1, 50, 5, 5)
    assert found.dtype == np.dtype(dtype)
    assert (found == expected[None, :, None, None]).all()


def test_59_channels_are_sampled_one_by_one(new):
    data = np.random.default_rng(0).integers(0, 255, (3, 40, 40, 40), "uint8")
    expected = data.reshape(3, 20, 2, 20, 2, 20, 2).max((2, 4, 6))
    ds = new(scale=(1, 1, 1))
    layer = filled(ds, data)
    layer.downsample(coarsest_mag=2, interpolation_mode="max")
    assert np.array_equal(layer.get_mag(2).read(), expected)
    for channel in range(3):
        single = filled(ds, data[channel : channel + 1], name=f"channel{channel}")
        single.downsample(coarsest_mag=2, interpolation_mode="MAX")
        assert np.array_equal(single.get_mag(2).read()[0], expected[channel])
    check_reopened(ds)


@pytest.mark.parametrize("compress", [False, True])
def test_60_a_cube_is_the_reference(new, compress):
    data = np.random.default_rng(1).integers(0, 255, (1, 128, 128, 128), "uint8")
    windows = data.reshape(1, 64, 2, 64, 2, 64, 2)
    expected = np.median(windows, axis=(2, 4, 6)).astype("uint8")  # truncated
    layer = filled(new(scale=(1, 1, 1)), data, block_len=32, file_len=2, compress=compress)
    layer.downsample(coarsest_mag=2, compress=compress)  # and any warning would be an error
    mag = layer.get_mag(2)
    assert mag.spec.compression == ("lz4hc" if compress else None)
    assert mag.spec.shard_shape == (64, 64, 64)
    assert list(mag.get_bounding_boxes_on_disk()) == [((0, 0, 0), (64, 64, 64))]
    assert np.array_equal(mag.read(), expected)


def test_61_where_downsampling_starts_and_ends(new):
    layer = filled(new("a", (1, 1, 1)), ramp(1, 20, 20, 20), mag=2)
    layer.downsample()
    assert names(layer) == ["2", "4"]
    flat = filled(new("b", (85, 85, 346)), ramp(1, 100, 100, 40))
    flat.downsample()
    assert names(flat) == ["1", "2-2-1", "4-4-1"]
    with pytest.raises(AlreadyExistsError) as caught:
        flat.downsample(from_mag=1)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(MagNotFoundError) as caught:
        flat.downsample(from_mag=8, max_mag=16)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, KeyError)
    for call in (
        lambda: flat.downsample_mag("4-4-1", 2),
        lambda: flat.downsample(from_mag="4-4-1", coarsest_mag=2),
        lambda: flat.downsample(coarsest_mag=8, max_mag=8),
        lambda: flat.downsample(max_mag=8, interpolation_mode="tricubic"),
    ):
        with pytest.raises(InvalidValueError):
            call()
    assert names(flat) == ["1", "2-2-1", "4-4-1"]


def test_62_a_depth_that_two_does_not_divide(new):
    layer = filled(new(), np.full((1, 100, 50, 15), 9, "uint8"))
    layer.downsample()
    assert names(layer) == ["1", "2-2-1", "4-4-2"]
    assert layer.get_mag("4-4-2").read().shape == (1, 25, 13, 8)
    assert (layer.get_mag("4-4-2").read() == 9).all()
    assert layer.bounding_box == BoundingBox((0, 0, 0), (100, 50, 15))
    check_reopened(layer.dataset)


@pytest.mark.parametrize("sampling_mode", ["isotropic", "anisotropic", "constant_z"])
def test_63_one_section_does_not_darken(new, sampling_mode):
    layer = filled(new(), np.full((1, 101, 99, 1), 123, "uint8"), offset=(3, 5, 7))
    if sampling_mode == "constant_z":
        layer.downsample(max_mag=Mag("8-8-1"), sampling_mode=sampling_mode)
    else:
        with pytest.warns(WkdaskWarning, match="constant_z"):
            layer.downsample(max_mag=8, sampling_mode=sampling_mode)
    assert names(layer) == ["1", "2-2-1", "4-4-1", "8-8-1"]
    for mag in layer.mags.values():
        assert (mag.read() == 123).all()
    assert layer.bounding_box == BoundingBox((3, 5, 7), (101, 99, 1))


def test_64_a_list_of_mags(new):
    layer = filled(new(scale=(1, 1, 1)), np.full((1, 40, 40, 40), 5, "uint8"))
    layer.downsample_mag_list(1, [8, "4-4-2", 2], only_setup_mags=True)
    assert names(layer) == ["1", "2", "4-4-2", "8"]
    assert not any(mag.read().any() for mag in list(layer.mags.values())[1:])
    with pytest.raises(AlreadyExistsError):
        layer.downsample_mag_list(1, [2, 8])
    layer.downsample_mag_list(1, [8, "4-4-2", 2], allow_overwrite=True)
    assert all((mag.read() == 5).all() for mag in layer.mags.values())
    for wrong in (["2-2-1", "1-1-2"], ["16", "32-32-8"], ["1"], [16, 16]):
        with pytest.raises(InvalidValueError) as caught:
            layer.downsample_mag_list(1, wrong)
        assert isinstance(caught.value, ValueError)
    assert names(layer) == ["1", "2", "4-4-2", "8"]
    assert layer.downsample_mag(8, 16, only_setup_mag=True) is None
    report = layer.downsample_mag(8, 16, allow_overwrite=True)
    assert report.bounding_box == BoundingBox((0, 0, 0), (48, 48, 48))
    assert (layer.get_mag(16).read() == 5).all()
    assert layer.bounding_box == BoundingBox((0, 0, 0), (40, 40, 40))
    check_reopened(layer.dataset)


def test_65_layers_have_the_same_mags(new):
    ds = new(scale=(1, 1, 1))
    data = ramp(1, 40, 40, 40)
    first, second, third, free = (filled(ds, data, name=name) for name in ("a", "b", "c", "d"))
    first.downsample_mag_list(1, ["2-2-1", "4-4-2"])
    second.downsample(coarsest_mag=8)
    assert names(second) == ["1", "2-2-1", "4-4-2", "8"]  # alone it would be 2, 4, 8
    free.downsample(coarsest_mag=8, align_with_other_layers=False)
    assert names(free) == ["1", "2", "4", "8"]
    before = raw(ds)
    with pytest.raises(InvalidValueError, match="2 and 2-2-1"):
        third.downsample(coarsest_mag=8)
    assert raw(ds) == before
    ds.delete_layer("d")
    third.downsample(coarsest_mag="4-4-2")
    coarse = filled(ds, data, name="e", mag="4-4-2")
    coarse.upsample("4-4-2")
    assert names(third) == names(coarse) == ["1", "2-2-1", "4-4-2"]


def test_66_upsampling_repeats_voxels(new):
    data = np.random.default_rng(2).integers(0, 255, (1, 20, 20, 20), "uint8")
    layer = filled(new("mean"), data, mag="4-4-2")
    layer.upsample("4-4-2", compress=True)
    assert names(layer) == ["1", "2-2-1", "4-4-2"]
    for mag in layer.mags.values():
        assert mag.read().mean() == pytest.approx(data.mean())
    assert layer.get_mag(1).spec.compression == "lz4hc"

    line = np.arange(1, 51, dtype="uint8")[None, :, None, None]
    ramped = filled(new("ramp", (1, 1, 1)), line, mag=2)
    ramped.upsample(2, min_mag=1)
    found = ramped.get_mag(1).read()
    assert np.array_equal(found[0, :, 0, 0], np.repeat(np.arange(1, 51), 2))
    assert (found == found[:, :, :1, :1]).all()

    odd = filled(new("odd", (1, 1, 1)), data, mag=2)
    box = BoundingBox((3, 5, 1), (31, 30, 33))
    odd.bounding_box = box
    odd.upsample(2, 1, False)
    assert odd.bounding_box == box
    expected = data.repeat(2, 1).repeat(2, 2).repeat(2, 3)[(slice(None), *box.to_slices())]
    assert np.array_equal(odd.get_mag(1).read(), expected)
    assert odd.get_mag(1).spec.compression is None
    with pytest.raises(AlreadyExistsError):
        odd.upsample(2)
    for arguments in ({"from_mag": 1, "finest_mag": 2}, {"from_mag": 2, "finest_mag": 1, "min_mag": 1}):
        with pytest.raises(InvalidValueError):
            odd.upsample(**arguments)
    check_reopened(odd.dataset)


# --- formats --------------------------------------------------------------------------------------------


def listed(ds, data_format):
    """Add a layer of another format by hand and return what the file then says of it."""
    content = raw(ds)
    entry = {
        "name": data_format,
        "category": "color",
        "boundingBox": {"topLeft": [0, 0, 0], "width": 100, "height": 60, "depth": 40},
        "dataFormat": data_format,
        "mags": [{"mag": [1, 1, 1], "path": f"./{data_format}/1", "credentialId": "x"}],
        "numChannels": 1,
        "elementClass": "uint8",
    }
    content["dataLayers"].append(entry)
    put(ds, content)
    return entry


def check_listed_only(ds, data_format):
    """Check that a layer is listed, kept through edits, and refused with its format's name when used."""
    entry = listed(ds, data_format)
    layer = Dataset(ds.path).get_layer(data_format)
    assert layer.data_format == data_format
    assert layer.bounding_box == BoundingBox((0, 0, 0), (100, 60, 40))
    assert names(layer) == ["1"]
    for use in (lambda: layer.get_mag(1), lambda: layer.mags[Mag(1)], layer.downsample):
        with pytest.raises(UnsupportedFormatError, match=data_format) as caught:
            use()
        assert isinstance(caught.value, NotImplementedError)
    ds.name = f"after {data_format}"
    assert entry in raw(ds)["dataLayers"]


@pytest.mark.parametrize(("data_format", "cut"), [("zarr3", {"shard_shape": 32}), ("zarr", {})])
def test_67_zarr_layers_are_layers_like_others(new, data_format, cut):
    ds = new()
    layer = ds.add_layer("color", COLOR, data_format=data_format)
    layer.add_mag(1, chunk_shape=16, **cut).write(ramp(1, 70, 40, 20), offset=(5, 6, 7))
    layer.downsample(coarsest_mag=4)
    assert np.array_equal(layer.get_mag(1).read(), ramp(1, 70, 40, 20))
    assert layer.bounding_box == BoundingBox((5, 6, 7), (70, 40, 20))
    for entry in raw(ds)["dataLayers"][0]["mags"]:
        assert "cubeLength" not in entry
    check_reopened(ds)


def test_68_the_bytes_of_wkw(new):
    layer = filled(new(), ramp(1, 40, 20, 20))
    mag = layer.get_mag(1)
    header = os.path.join(mag.path, "header.wkw")
    first = os.path.join(mag.path, "z0", "y0", "x0.wkw")
    with wkw.Dataset.open(mag.path) as native:  # the peers' own library reads it
        assert np.array_equal(native.read((0, 0, 0), (40, 20, 20)), ramp(1, 40, 20, 20))
    mag.write(np.zeros((1, 32, 32, 32), "uint8"), offset=(64, 0, 0))
    assert not os.path.exists(os.path.join(mag.path, "z0", "y0", "x2.wkw"))  # zeros need no file
    mag.write(np.zeros((1, 32, 32, 32), "uint8"), offset=(32, 0, 0))
    assert not os.path.exists(os.path.join(mag.path, "z0", "y0", "x1.wkw"))  # nor keep one
    expected = ramp(1, 40, 20, 20)
    expected[:, 32:] = 0
    assert np.array_equal(mag.read(size=(40, 20, 20)), expected)
    for path, error in [(first, DamagedCubeError), (header, DamagedHeaderError)]:
        sound = Path(path).read_bytes()
        for place, byte in [(0, b"X"), (3, b"\x02")]:  # magic, version
            Path(path).write_bytes(sound[:place] + byte + sound[place + 1 :])
            with pytest.raises(error, match=os.path.basename(path)) as caught:
                Dataset(layer.dataset_path).get_layer("layer").get_mag(1).read()
            assert isinstance(caught.value, OSError)
        Path(path).write_bytes(sound)
    os.remove(first)  # only a missing file means empty
    assert not mag.read().any()
    shutil.rmtree(mag.path)
    with pytest.raises(DamagedHeaderError):
        mag.read()


def test_69_n5_and_precomputed_layers_are_listed_and_kept(new):
    ds = new()
    for data_format in ("n5", "neuroglancerPrecomputed"):
        check_listed_only(ds, data_format)
