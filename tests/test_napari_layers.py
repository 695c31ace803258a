"""Layers as napari takes them: without napari the arrays and what is said of them, with it its own layers."""

import dask.array as da
import numpy as np
import pytest

from wkdask import BoundingBox, Dataset, LayerViewConfiguration, NDBoundingBox, VoxelSize
from wkdask.errors import InvalidValueError
from wkdask.napari_layers import napari_layers

VOXELS = np.random.default_rng(0).integers(1, 255, (40, 28, 20), np.uint8)
CORNER = (5, 3, 2)


class Viewer:
    """What of napari's viewer is called."""

    def add_image(self, arrays, **how):
        return ("image", arrays, how)

    def add_labels(self, arrays, **how):
        return ("labels", arrays, how)


def make(folder, voxels=VOXELS, category="color", mags=("1", "2-2-1", "4-4-2"), size=(4, 4, 30)):
    channels = voxels.shape[0] if voxels.ndim == 4 else 1
    layer = Dataset.create(folder, size).add_layer(
        "raw", category, dtype_per_channel=voxels.dtype, num_channels=channels
    )
    layer.add_mag(mags[0], chunk_shape=16, shard_shape=32).write(voxels, CORNER)
    if len(mags) > 1:
        layer.downsample_mag_list(mags[0], mags[1:])
    return layer


def test_all_mags_cover_one_box(tmp_path):
    layer = make(tmp_path / "ds")
    ((arrays, said, kind),) = napari_layers(layer)
    assert kind == "image"
    assert all(isinstance(array, da.Array) for array in arrays)
    # x from 4 to 48, y from 0 to 32, z from 2 to 22
    assert [array.shape for array in arrays] == [(20, 32, 44), (20, 16, 22), (10, 8, 11)]
    expected = np.zeros((44, 32, 20), np.uint8)
    expected[1:41, 3:31] = VOXELS
    assert np.array_equal(arrays[0].compute(), expected.transpose(2, 1, 0))
    for array, mag in zip(arrays, layer.mags.values(), strict=True):
        own = mag.read(bounding_box=BoundingBox((4, 0, 2), (44, 32, 20)))[0]
        assert np.array_equal(array.compute(), own.transpose(2, 1, 0))
    assert said["scale"] == (30, 4, 4)
    assert said["translate"] == (60, 0, 16)
    assert said["units"] == ("nm", "nm", "nm")
    assert said["axis_labels"] == ("z", "y", "x")
    assert said["name"] == "raw"


def test_the_finest_mag_may_be_a_coarse_one(tmp_path):
    layer = make(tmp_path / "ds", mags=("2-2-1",), size=VoxelSize((4, 4, 30), "micrometer"))
    ((_, said, _),) = napari_layers(layer)
    assert said["scale"] == (30, 8, 8)
    assert said["translate"] == (60, 26, 42)  # the middles of voxels 6 and 7, 10 and 11
    assert said["units"] == ("µm", "µm", "µm")


def test_contrast_and_colour(tmp_path):
    layer = make(tmp_path / "ds", mags=("1",))
    ((_, said, _),) = napari_layers(layer)
    assert not {"contrast_limits", "colormap"} & {*said}
    layer.default_view_configuration = LayerViewConfiguration(min=3, max=90, color=(255, 0, 16))
    ((_, said, _),) = napari_layers(layer)
    assert (said["contrast_limits"], said["colormap"]) == ((3, 90), "#ff0010")
    layer.default_view_configuration = LayerViewConfiguration(min=3, max=90, intensity_range=(5, 50))
    ((_, said, _),) = napari_layers(layer)
    assert said["contrast_limits"] == (5, 50)


def test_channels(tmp_path):
    voxels = np.stack([VOXELS, VOXELS // 2, VOXELS // 3])
    ((arrays, said, _),) = napari_layers(make(tmp_path / "rgb", voxels, mags=("1",)))
    assert said["rgb"] is True
    assert arrays[0].shape == (20, 28, 40, 3)
    assert np.array_equal(arrays[0].compute(), voxels.transpose(3, 2, 1, 0))
    found = [*napari_layers(make(tmp_path / "two", voxels[:2].astype("uint16"), mags=("1",)))]
    assert [said["name"] for _, said, _ in found] == ["raw 0", "raw 1"]
    assert np.array_equal(found[1][0][0].compute(), (VOXELS // 2).T)


def test_time(tmp_path):
    box = NDBoundingBox((4, 0, 0, 0), (2, 16, 12, 8), ("t", "x", "y", "z"))
    layer = Dataset.create(tmp_path / "ds", (4, 4, 30)).add_layer(
        "movie", "color", bounding_box=box, data_format="zarr3"
    )
    voxels = np.random.default_rng(0).integers(1, 255, (2, 16, 12, 8), np.uint8)
    layer.add_mag(1, chunk_shape=8, shard_shape=16).write(voxels)
    ((arrays, said, _),) = napari_layers(layer)
    assert np.array_equal(arrays[0].compute(), voxels.transpose(0, 3, 2, 1))
    assert said["axis_labels"] == ("t", "z", "y", "x")
    assert said["scale"] == (1, 30, 4, 4)
    assert said["translate"] == (4, 0, 0, 0)


def test_what_cannot_be_shown(tmp_path):
    layer = make(tmp_path / "ds", mags=("1",))
    with pytest.raises(InvalidValueError, match="no mags"):
        layer.dataset.add_layer("empty", "color").add_to_napari(Viewer())


def test_a_viewer_is_given_them(tmp_path):
    ids = make(tmp_path / "ds", VOXELS.astype("uint64"), "segmentation")
    ((kind, arrays, how),) = ids.add_to_napari(Viewer())
    assert (kind, how["multiscale"], how["name"], len(arrays)) == ("labels", True, "raw", 3)


# --- with napari -------------------------------------------------------------------------------------


@pytest.fixture
def viewer():
    """napari's viewer without a window."""
    components = pytest.importorskip("napari.components", reason="napari is not installed")
    return components.ViewerModel()


@pytest.mark.filterwarnings("ignore")  # napari's own
def test_napari_shows_an_image(tmp_path, viewer):
    layer = make(tmp_path / "ds")
    (shown,) = layer.add_to_napari(viewer)
    assert shown in viewer.layers
    assert type(shown).__name__ == "Image"
    assert shown.multiscale
    assert np.allclose(shown.downsample_factors, [(1, 1, 1), (1, 2, 2), (2, 4, 4)])
    assert np.allclose(shown.scale, (30, 4, 4))
    assert np.allclose(shown.translate, (60, 0, 16))
    assert [str(unit) for unit in shown.units] == ["nanometer"] * 3
    # the middle of voxel (10, 9, 8) of mag 1, in napari's world of z, y, x in nm
    place = shown.world_to_data((8 * 30, 9 * 4, 10 * 4))
    assert np.allclose(place, (6, 9, 6))
    assert shown.data[0][6, 9, 6].compute() == VOXELS[10 - 5, 9 - 3, 8 - 2]


@pytest.mark.filterwarnings("ignore")
def test_napari_shows_labels(tmp_path, viewer):
    (shown,) = make(tmp_path / "ds", VOXELS.astype("uint32"), "segmentation").add_to_napari(viewer)
    assert type(shown).__name__ == "Labels"
    assert [array.shape for array in shown.data] == [(20, 32, 44), (20, 16, 22), (10, 8, 11)]


@pytest.mark.filterwarnings("ignore")
def test_napari_shows_channels_and_time(tmp_path, viewer):
    voxels = np.stack([VOXELS, VOXELS // 2, VOXELS // 3])
    (shown,) = make(tmp_path / "rgb", voxels).add_to_napari(viewer)
    assert shown.rgb
    assert shown.ndim == 3
    two = make(tmp_path / "two", voxels[:2].astype("uint16")).add_to_napari(viewer)
    assert [layer.name for layer in two] == ["raw 0", "raw 1"]
