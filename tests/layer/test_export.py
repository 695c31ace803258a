"""A layer as files of other programs, in version 4's words: places, names, pyramids, what is there already."""

import json
import os
import zipfile

import numpy as np
import pytest
import tifffile
import zarr

from wkdask import BoundingBox, Dataset, LayerExport, Mag, NDBoundingBox
from wkdask.errors import AlreadyExistsError, InvalidValueError, UnsupportedFormatError, WkdaskWarning


def random(shape, dtype="uint8"):
    return np.random.default_rng(0).integers(1, 200, shape).astype(dtype)


@pytest.fixture
def dataset(tmp_path):
    return Dataset.create(tmp_path / "ds", (11, 11, 25))


def make(dataset, data, at=(0, 0, 0), **how):
    layer = dataset.add_layer("color", "color", num_channels=data.shape[0] if data.ndim == 4 else 1, **how)
    layer.add_mag(1, chunk_shape=8, shard_shape=32).write(data, at)
    return layer


def movie(dataset):
    """Return a layer with three positions along t, from 9 to 12, and its voxels."""
    box = NDBoundingBox((9, 0, 0, 0), (3, 12, 10, 4), ("t", "x", "y", "z"))
    layer = dataset.add_layer("movie", "color", bounding_box=box, data_format="zarr3")
    data = random((3, 12, 10, 4))
    layer.add_mag(1, chunk_shape=8, shard_shape=16).write(data, t=(9, 12))
    return layer, data


def opened(path):
    """Return the metadata of an .ozx file, and its arrays by their names."""
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
        assert names[0] == "zarr.json"
        assert all(each.compress_type == zipfile.ZIP_STORED for each in file.infolist())
        group = json.loads(file.read("zarr.json"))
    root = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")
    (image,) = group["attributes"]["ome"]["multiscales"]
    return image, {entry["path"]: root[entry["path"]][...] for entry in image["datasets"]}


def shifts(image):
    return {
        entry["path"]: each["translation"]
        for entry in image["datasets"]
        for each in entry["coordinateTransformations"]
        if each["type"] == "translation"
    }


def test_a_layer_has_it(dataset):
    layer = make(dataset, random((8, 8, 8)))
    assert isinstance(layer.export, LayerExport)
    assert layer.export.layer == layer


# zipped OME-Zarr


@pytest.mark.parametrize("data_format", ["wkw", "zarr3"])
def test_a_layer_with_its_pyramid(dataset, tmp_path, data_format):
    data = random((70, 65, 33))
    layer = make(dataset, data, data_format=data_format)
    layer.downsample()
    report = layer.export.as_ozx(output_path=tmp_path / "a.ozx")
    image, arrays = opened(tmp_path / "a.ozx")
    assert image["name"] == "color"
    assert list(arrays) == [str(mag) for mag in sorted(layer.mags)]
    assert len(arrays) > 2
    for name, array in arrays.items():  # to the last voxel of the box, and no further
        assert np.array_equal(array, layer.get_mag(name).read())
    assert (report.path, report.files, report.bytes) == (str(tmp_path / "a.ozx"), 1, data.size)
    assert report.file_bytes == os.stat(tmp_path / "a.ozx").st_size
    assert sorted(os.listdir(tmp_path)) == ["a.ozx", "ds"]
    assert sorted(dataset.layers) == ["color"]


def test_a_part_begins_at_its_corner(dataset, tmp_path):
    data = random((3, 70, 65, 33))
    layer = make(dataset, data, at=(100, 0, 10))
    box = BoundingBox((110, -10, 12), (20, 30, 100))
    layer.export.as_ozx(output_path=tmp_path / "a.ozx", bounding_box=box, downsample=False)
    image, arrays = opened(tmp_path / "a.ozx")
    assert list(arrays) == ["1"]
    assert np.array_equal(arrays["1"], data[:, 10:30, :20, 2:])
    assert shifts(image) == {"1": [0, 110 * 11, 0, 12 * 25]}


def test_a_coarser_mag_and_what_follows_it(dataset, tmp_path):
    layer = make(dataset, random((70, 65, 33)))
    layer.add_mag("2-2-1", chunk_shape=8, shard_shape=32).write(random((35, 33, 33)), (0, 0, 0))
    box = BoundingBox((11, 5, 7), (32, 32, 20))
    layer.export.as_ozx(output_path=tmp_path / "a.ozx", bounding_box=box, mag=Mag("2-2-1"), shard_shape=64)
    image, arrays = opened(tmp_path / "a.ozx")
    whole = box.aligned_outwards((2, 2, 1))
    assert np.array_equal(arrays["2-2-1"], layer.get_mag("2-2-1").read(absolute_bounding_box=whole))
    assert "1" not in arrays
    assert shifts(image)["2-2-1"] == [0, (10 + 0.5) * 11, (4 + 0.5) * 11, 7 * 25]


def test_segments_are_ids_in_coarser_mags_too(dataset, tmp_path):
    layer = dataset.add_layer("cells", "segmentation", dtype_per_channel="uint32")
    layer.add_mag(1, shard_shape=32).write(np.full((40, 40, 40), 7, "uint32"))
    layer.export.as_ozx(output_path=tmp_path / "a.ozx")
    _, arrays = opened(tmp_path / "a.ozx")
    assert {int(value) for array in arrays.values() for value in np.unique(array)} == {7}


def test_what_is_there_is_kept(dataset, tmp_path):
    layer = make(dataset, random((8, 8, 8)))
    (tmp_path / "a.ozx").write_text("mine")
    with pytest.raises(AlreadyExistsError, match="overwrite=True"):
        layer.export.as_ozx(output_path=tmp_path / "a.ozx")
    assert (tmp_path / "a.ozx").read_text() == "mine"
    layer.export.as_ozx(output_path=tmp_path / "a.ozx", overwrite=True)
    assert np.array_equal(opened(tmp_path / "a.ozx")[1]["1"], layer.get_mag(1).read())
    (tmp_path / "folder").mkdir()
    with pytest.raises(AlreadyExistsError, match="is a folder"):
        layer.export.as_ozx(output_path=tmp_path / "folder", overwrite=True)
    with pytest.raises(InvalidValueError, match="there is no folder"):
        layer.export.as_ozx(output_path=tmp_path / "no/a.ozx")
    assert sorted(os.listdir(tmp_path)) == ["a.ozx", "ds", "folder"]


def test_what_fails_leaves_nothing(dataset, tmp_path):
    layer = make(dataset, random((40, 40, 40)))
    with open(layer.path / "1/z0/y0/x0.wkw", "r+b") as file:
        file.truncate(20)
    with pytest.raises(Exception, match=r"x0\.wkw"):
        layer.export.as_ozx(output_path=tmp_path / "a.ozx")
    assert sorted(os.listdir(tmp_path)) == ["ds"]


# sections


def test_a_file_for_each_section(dataset, tmp_path):
    data = random((3, 40, 30, 12))
    layer = make(dataset, data, at=(0, 0, 95))
    (report,) = layer.export.as_tiff_stack(output_path=tmp_path / "s")
    names = [f"{z:03}.tiff" for z in range(95, 107)]
    assert sorted(os.listdir(tmp_path / "s")) == names
    assert np.array_equal(tifffile.imread(tmp_path / "s/096.tiff"), data[..., 1].transpose(2, 1, 0))
    assert report.files == 12


def test_sections_of_a_coarser_mag_are_named_by_mag_1(dataset, tmp_path):
    layer = make(dataset, random((40, 30, 21)))
    coarse = random((20, 15, 11))
    layer.add_mag(2, chunk_shape=8, shard_shape=32).write(coarse, (0, 0, 0))
    box = BoundingBox((0, 0, 5), (8, 8, 4))
    layer.export.as_tiff_stack(output_path=tmp_path / "s", bounding_box=box, mag=2, filename_prefix="a{z}")
    assert sorted(os.listdir(tmp_path / "s")) == ["a{z}_04.tiff", "a{z}_06.tiff", "a{z}_08.tiff"]
    assert np.array_equal(tifffile.imread(tmp_path / "s/a{z}_06.tiff"), coarse[:4, :4, 3].T)


def test_sections_at_each_position(dataset, tmp_path):
    layer, data = movie(dataset)
    reports = layer.export.as_tiff_stack(output_path=tmp_path / "s")
    assert len(reports) == 3
    assert sorted(os.listdir(tmp_path / "s")) == sorted(
        f"t{t:02}_z{z}.tiff" for t in (9, 10, 11) for z in range(4)
    )
    assert np.array_equal(tifffile.imread(tmp_path / "s/t10_z2.tiff"), data[1, :, :, 2].T)
    box = layer.bounding_box.with_bounds("t", 11, 1).with_bounds("z", 1, 2)
    layer.export.as_tiff_stack(output_path=tmp_path / "one", bounding_box=box)
    assert sorted(os.listdir(tmp_path / "one")) == ["t11_z1.tiff", "t11_z2.tiff"]


def test_no_file_is_replaced_unasked(dataset, tmp_path):
    layer, data = movie(dataset)
    (tmp_path / "s").mkdir()
    (tmp_path / "s/t11_z3.tiff").write_text("mine")
    with pytest.raises(AlreadyExistsError, match=r"t11_z3\.tiff exists already; overwrite=True"):
        layer.export.as_tiff_stack(output_path=tmp_path / "s")
    assert os.listdir(tmp_path / "s") == ["t11_z3.tiff"]
    layer.export.as_tiff_stack(output_path=tmp_path / "s", overwrite=True)
    assert np.array_equal(tifffile.imread(tmp_path / "s/t11_z3.tiff"), data[2, :, :, 3].T)


# one file


def test_an_ome_tiff(dataset, tmp_path):
    data = random((40, 30, 12))
    layer = make(dataset, data)
    layer.export.as_ome_tiff(
        output_path=tmp_path / "a.ome.tif", bounding_box=BoundingBox((4, 5, 6), (30, 20, 3))
    )
    assert np.array_equal(tifffile.imread(tmp_path / "a.ome.tif"), data[4:34, 5:25, 6:9].transpose(2, 1, 0))
    with pytest.warns(WkdaskWarning, match="downsample"):
        layer.export.as_ome_tiff(output_path=tmp_path / "b.ome.tif", downsample=True)


def test_one_position_of_several(dataset, tmp_path):
    layer, data = movie(dataset)
    with pytest.raises(UnsupportedFormatError, match="one position along"):
        layer.export.as_ome_tiff(output_path=tmp_path / "a.ome.tif")
    with pytest.raises(UnsupportedFormatError, match="one position along"):
        layer.export.as_ozx(output_path=tmp_path / "a.ozx")
    box = layer.bounding_box.with_bounds("t", 10, 1)
    layer.export.as_ome_tiff(output_path=tmp_path / "a.ome.tif", bounding_box=box)
    layer.export.as_ozx(output_path=tmp_path / "a.ozx", bounding_box=box)
    assert np.array_equal(tifffile.imread(tmp_path / "a.ome.tif"), data[1].transpose(2, 1, 0))
    assert np.array_equal(opened(tmp_path / "a.ozx")[1]["1"][0], data[1])


@pytest.mark.parametrize("call", ["as_ozx", "as_ome_tiff", "as_tiff_stack"])
def test_what_makes_no_sense_is_refused(dataset, tmp_path, call):
    layer, _ = movie(dataset)
    export = getattr(layer.export, call)
    with pytest.raises(InvalidValueError, match="on a server"):
        export(output_path=tmp_path / "a", access_mode="zarr")
    with pytest.raises(InvalidValueError, match="has no t"):
        export(output_path=tmp_path / "a", bounding_box=layer.bounding_box.with_bounds("t", 0, 2))
    with pytest.raises(InvalidValueError, match="nothing to export"):
        export(
            output_path=tmp_path / "a",
            bounding_box=layer.bounding_box.with_bounds("t", 9, 1).with_bounds("x", 50, 5),
        )
    assert os.listdir(tmp_path) == ["ds"]
