"""Images by wkdask and by webknossos 4.3.3: the same layers, the same voxels. Run with ``pytest -m peer``."""

import numpy as np
import pytest
import tifffile
from peer_process import peer  # noqa: F401  # the fixture
from PIL import Image

from wkdask import Dataset

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore::wkdask.errors.WkdaskWarning")]

IMAGEJ = {
    "ZYX": (5, 20, 30), "ZCYX": (4, 2, 20, 30), "CYX": (3, 20, 30), "TZYX": (3, 4, 20, 30),
    "TZCYX": (2, 4, 3, 20, 30),
}  # fmt: skip


def noise(*shape, dtype="uint8"):
    return np.random.default_rng(0).integers(1, 200, shape).astype(dtype)


def tiff(path, array, axes=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"imagej": True, "metadata": {"axes": axes}} if axes else {"photometric": "minisblack"}
    tifffile.imwrite(path, array, **options)
    return path


def same_layers(peer, ours, theirs):  # noqa: F811
    """Compare names, types, boxes, colors and voxels."""
    found, expected = Dataset(ours).layers, Dataset(theirs).layers
    assert sorted(found) == sorted(expected)
    for name, layer in found.items():
        other = expected[name]
        for what in ("category", "dtype_per_channel", "num_channels", "normalized_bounding_box"):
            assert getattr(layer, what) == getattr(other, what), (name, what)
        assert layer.default_view_configuration == other.default_view_configuration, name
        (mag,) = other.mags
        place = {"layer": name, "mag": str(mag)}
        got = np.asarray(layer.get_mag(mag).read())
        np.testing.assert_array_equal(got, peer("read", path=theirs, **place))
        np.testing.assert_array_equal(got, peer("read", path=ours, **place))


def add_both(peer, tmp_path, images, layer="x", **options):  # noqa: F811
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    dataset = Dataset(ours, (4, 4, 40))
    made = dataset.add_layer_from_images(images, layer, data_format="zarr3", progress=False, **options)
    assert peer("add_layer_from_images", path=theirs, images=str(images), layer=layer, **options) == made.name
    same_layers(peer, ours, theirs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flip_x": True},
        {"flip_y": True, "swap_xy": True},
        {"flip_x": True, "flip_z": True, "swap_xy": True},
        {"mag": 2, "topleft": [10, 20, 30]},
        {"category": "segmentation", "dtype": "uint16"},
    ],
)
def test_a_stack(peer, tmp_path, options):  # noqa: F811
    for z, image in enumerate(noise(11, 20, 30)):
        tiff(tmp_path / f"in/s{z}.tif", image)
    add_both(peer, tmp_path, tmp_path / "in", **options)


@pytest.mark.parametrize(
    ("axes", "options"),
    [
        ("ZYX", {}),
        ("ZCYX", {"allow_multiple_layers": True}),
        ("ZCYX", {"channel": 1}),
        ("CYX", {}),
        ("CYX", {"allow_multiple_layers": True}),
        ("TZYX", {}),
        ("TZCYX", {}),
        ("TZCYX", {"allow_multiple_layers": True}),
    ],
)
def test_channels_and_time(peer, tmp_path, axes, options):  # noqa: F811
    add_both(peer, tmp_path, tiff(tmp_path / "a.tif", noise(*IMAGEJ[axes]), axes), **options)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("options", [{}, {"channel": 0}, {"allow_multiple_layers": True}])
def test_png(peer, tmp_path, channels, options):  # noqa: F811
    image = noise(20, 30, channels)
    Image.fromarray(image[..., 0] if channels == 1 else image).save(tmp_path / "a.png")
    add_both(peer, tmp_path, tmp_path / "a.png", **options)


@pytest.mark.parametrize("mapping", [*Dataset.ConversionLayerMapping])
@pytest.mark.parametrize("axes", [None, "ZYX"])
def test_layers_of_files_and_folders(peer, tmp_path, mapping, axes):  # noqa: F811
    if axes and not mapping.name.startswith(("INSPECT", "ENFORCE_LAYER_PER_FILE")):
        pytest.skip("webknossos takes the axes of several volumes in a layer for others")
    for name in ("a/i0", "a/i1", "b/c/i0", "my labels/i0", "top"):
        tiff(tmp_path / f"in/{name}.tif", noise(5, 20, 30) if axes else noise(20, 30), axes)
    options = {"layer_name": "L"} if mapping.name.endswith("FILE") else {}
    Dataset.from_images(
        tmp_path / "in", tmp_path / "ours", (4, 4, 40), map_filepath_to_layer_name=mapping, data_format="zarr3",
        progress=False, **options,
    )  # fmt: skip
    peer(
        "from_images", images=str(tmp_path / "in"), path=tmp_path / "theirs", mapping=mapping.name, **options
    )
    same_layers(peer, tmp_path / "ours", tmp_path / "theirs")
