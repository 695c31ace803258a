"""Scripts in the manner of webknossos' documentation run where only the import is another."""

import numpy as np
import pytest
import tifffile
import zarr

import wkdask as wk
from wkdask import COLOR_CATEGORY, SEGMENTATION_CATEGORY, Dataset

pytestmark = pytest.mark.filterwarnings("ignore::wkdask.errors.WkdaskWarning")


def noise(*shape, dtype="uint8"):
    return np.random.default_rng(0).integers(1, 200, shape).astype(dtype)


def test_a_dataset_is_made_written_read_and_copied(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fine, coarse = noise(3, 64, 48, 32), noise(3, 32, 24, 16)
    dataset = wk.Dataset("new", voxel_size=(1, 1, 1))
    layer = dataset.add_layer(layer_name="color", category="color", dtype_per_channel="uint8", num_channels=3)
    mag1, mag2 = layer.add_mag("1"), layer.add_mag("2")
    mag1.write(absolute_offset=(10, 20, 30), data=fine, allow_resize=True)
    mag2.write(absolute_offset=(10, 20, 30), data=coarse, allow_resize=True)
    assert np.array_equal(mag1.read(), fine)
    assert np.array_equal(mag1.read(absolute_offset=(10, 20, 30), size=(64, 48, 32)), fine)
    assert np.array_equal(mag2.read(absolute_offset=(10, 20, 30), size=(64, 48, 32)), coarse)

    copy = dataset.copy_dataset("copy", chunk_shape=8, shard_shape=64, compress=True)
    segmentation = dataset.add_layer(
        layer_name="segmentation", category="segmentation", dtype_per_channel="uint8", largest_segment_id=0
    )
    copy.add_layer_as_ref(segmentation)
    again = wk.Dataset.open("copy")
    assert sorted(again.layers) == ["color", "segmentation"]
    assert np.array_equal(again.get_layer("color").get_mag("1").read(), fine)


def test_images_become_a_layer_of_a_dataset(tmp_path):
    images = noise(2, 20, 30)
    files = tuple(tmp_path / f"s.{z:04}.tiff" for z in range(2))
    for path, image in zip(files, images, strict=True):
        tifffile.imwrite(path, image)
    dataset = Dataset(
        dataset_path=tmp_path / "ds", voxel_size=(11, 11, 11), name="My_dataset", exist_ok=False
    )
    dataset.add_layer_from_images(images=files, layer_name="test", category=COLOR_CATEGORY)
    assert np.array_equal(dataset.get_layer("test").get_finest_mag().read()[0], images.transpose(2, 1, 0))
    assert dataset.name == "My_dataset"


def test_a_folder_of_images_becomes_a_dataset(tmp_path):
    images = noise(3, 20, 30)
    (tmp_path / "tiff").mkdir()
    for z, image in enumerate(images):
        tifffile.imwrite(tmp_path / f"tiff/s.{z:04}.tiff", image)
    dataset = Dataset.from_images(
        input_path=tmp_path / "tiff", output_path=tmp_path / "ds", voxel_size=(11, 11, 11),
        layer_category=COLOR_CATEGORY, compress=True,
    )  # fmt: skip
    assert f"{dataset.name} at {dataset.path}" == f"ds at {tmp_path / 'ds'}"
    assert np.array_equal(dataset.get_layer("tiff").get_finest_mag().read()[0], images.transpose(2, 1, 0))


def test_images_over_time(tmp_path):
    images = noise(7, 5, 67, 49)
    expected = images.transpose(0, 3, 2, 1)[:, None]  # t, c, x, y, z
    (tmp_path / "4D").mkdir()
    tifffile.imwrite(
        tmp_path / "4D/series.ome.tif", images, metadata={"axes": "TZYX"}, photometric="minisblack"
    )
    dataset = wk.Dataset.from_images(
        tmp_path / "4D", tmp_path / "ds", layer_category="color", data_format="zarr3", voxel_size=(10, 10, 10)
    )
    dataset.downsample()
    dataset.compress()  # it is
    layer = dataset.get_color_layers()[0]
    assert list(layer.mags) == [1, 2, 4]
    assert layer.get_mag(4).read().shape == (7, 1, 13, 17, 2)
    mag = layer.get_finest_mag()
    assert np.array_equal(mag.read(), expected)
    third = mag.read(absolute_bounding_box=mag.bounding_box.with_bounds("t", 3, 1))
    assert np.array_equal(third, expected[3:4])
    box = wk.NDBoundingBox(
        topleft=(2, 0, 17, 9), size=(2, 5, 50, 40), axes=("t", "z", "y", "x"), index=(1, 2, 3, 4)
    )
    part = mag.read(absolute_bounding_box=box)
    assert np.array_equal(part, expected[2:4, :, 9:49, 17:67])
    mag.write(part, absolute_bounding_box=box.offset((2, 0, 0, 0)))
    assert np.array_equal(mag.read(t=(4, 6))[..., 9:49, 17:67, :], part)


def test_an_array_that_is_there_becomes_a_mag(tmp_path):
    values = noise(1, 40, 30, 20)
    array = zarr.create_array(
        str(tmp_path / "array"), shape=values.shape, chunks=(1, 32, 32, 32), dtype="uint8",
        dimension_names=("c", "x", "y", "z"),
    )  # fmt: skip
    array[...] = values
    dataset = wk.Dataset(tmp_path / "ds", voxel_size=(10, 10, 10))
    layer = dataset.add_layer("color", category="color", data_format="zarr3")
    layer.add_mag_from_zarrarray(1, tmp_path / "array", extend_layer_bounding_box=True)
    assert np.array_equal(wk.Dataset.open(tmp_path / "ds").get_layer("color").get_mag(1).read(), values)


def test_agglomerates_of_a_segmentation(tmp_path):
    pytest.importorskip("networkx")
    dataset = wk.Dataset(tmp_path / "ds", voxel_size=(8, 8, 8))
    layer = dataset.add_layer(
        layer_name="segmentation", category=SEGMENTATION_CATEGORY, dtype="uint32", largest_segment_id=4
    ).as_segmentation_layer()
    ids = np.arange(8, dtype="uint32").reshape(1, 2, 2, 2) % 5
    layer.add_mag("1").write(data=ids, allow_resize=True)
    graph = wk.AgglomerateGraph()
    for segment in (1, 2, 3, 4):
        graph.add_segment(segment, position=wk.Vec3Int(10 * segment, 20, 30))
    graph.add_affinity_edge(1, 2, affinity=0.75)
    graph.add_affinity_edge(3, 4, affinity=0.5)
    attachment = wk.AgglomerateAttachment.create_and_add_to(layer, "view_75", graph)
    again = attachment.to_graph()
    assert (again.number_of_nodes(), again.number_of_edges()) == (4, 2)
    assert dict(again.nodes(data="position"))[3] == wk.Vec3Int(30, 20, 30)
    (listed,) = (
        wk.Dataset.open(tmp_path / "ds").get_segmentation_layer("segmentation").attachments.agglomerates
    )
    assert listed.name == "view_75"


def test_names_of_the_properties_are_where_scripts_look_for_them():
    from wkdask.dataset import properties as dataset_properties

    for name in dataset_properties.__all__:
        assert getattr(dataset_properties, name) is getattr(wk, name)
