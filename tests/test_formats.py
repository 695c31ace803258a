"""The seam to the formats: which folder is what, who opens it, which compression it gets."""

import json

import numpy as np
import pytest
import zarr

from wkdask import BoundingBox, Dataset
from wkdask.errors import DamagedHeaderError, InvalidValueError, UnsupportedFormatError
from wkdask.geometry import Vec3Int
from wkdask.storage.formats import (
    DATA_FORMATS,
    check_spec,
    create_mag,
    entry_of,
    fitting_compression,
    format_of,
    found_format,
    metadata_names,
    open_mag,
)
from wkdask.storage.protocol import ArraySpec


def a_spec(**changes):
    cut = {"chunk_shape": Vec3Int.full(8), "shard_shape": Vec3Int.full(8), "compression": None}
    return ArraySpec(**{"dtype": "uint8", "num_channels": 1, **cut, **changes})


@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_a_folder_is_known_by_its_metadata(tmp_path, data_format):
    assert format_of(str(tmp_path)) is None
    with pytest.raises(DamagedHeaderError, match=r"zarr\.json"):
        open_mag(str(tmp_path))
    store = create_mag(str(tmp_path / "mag"), a_spec(), data_format)
    assert found_format(store.path) == format_of(store.path) == store.spec.data_format == data_format
    assert open_mag(store.path) == open_mag(store.path, data_format) == store
    assert store.metadata_path.rpartition("/")[2] in metadata_names()
    for other in {*DATA_FORMATS} - {data_format}:
        with pytest.raises(DamagedHeaderError, match="is missing"):
            open_mag(store.path, other)


def test_other_formats_are_refused(tmp_path):
    for use in (
        lambda: open_mag(str(tmp_path), "n5"),
        lambda: create_mag(str(tmp_path / "mag"), a_spec(), "n5"),
        lambda: check_spec(a_spec(), "neuroglancerPrecomputed"),
    ):
        with pytest.raises(UnsupportedFormatError, match="wkw, zarr3, zarr"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_each_format_refuses_the_compressions_of_others():
    check_spec(a_spec(compression="lz4hc"), "wkw")
    check_spec(a_spec(compression="zstd"), "zarr3")
    for data_format, compression in (("wkw", "zstd"), ("zarr3", "lz4hc"), ("zarr", "lz4hc")):
        with pytest.raises(UnsupportedFormatError, match=compression):
            check_spec(a_spec(compression=compression), data_format)


@pytest.mark.parametrize(
    ("data_format", "said", "copied", "expected"),
    [
        ("wkw", None, False, None),
        ("zarr3", None, False, "zstd"),
        ("zarr", False, False, None),
        ("wkw", True, False, "lz4hc"),
        ("zarr3", True, False, "zstd"),
        ("zarr3", "lz4", False, "zstd"),
        ("wkw", "zstd", True, "lz4hc"),
        ("zarr3", None, True, None),
        ("zarr3", "lz4hc", True, "zstd"),
        ("zarr3", "gzip", True, "gzip"),
        ("wkw", "lz4", True, "lz4"),
        ("wkw", "zstd", False, "zstd"),  # and is then refused by check_spec
    ],
)
def test_compressions_translate(data_format, said, copied, expected):
    assert fitting_compression(data_format, said, copied=copied) == expected


def test_a_compression_is_a_name():
    with pytest.raises(InvalidValueError, match="5"):
        fitting_compression("zarr3", 5)


def test_axes_follow_the_properties(tmp_path):
    """An array of another program, (z, y, x), that the properties list with its axes."""
    voxels = np.arange(6 * 5 * 4, dtype="uint8").reshape(6, 5, 4)
    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    layer = ds.add_layer(
        "layer", "color", data_format="zarr3", bounding_box=BoundingBox((0, 0, 0), (4, 5, 6))
    )
    array = zarr.create_array(tmp_path / "ds/layer/1", shape=(6, 5, 4), chunks=(4, 4, 4), dtype="uint8")
    array[...] = voxels
    file = tmp_path / "ds/datasource-properties.json"
    content = json.loads(file.read_text())
    axes = {"x": 2, "y": 1, "z": 0}
    content["dataLayers"][0]["mags"] = [{"mag": [1, 1, 1], "path": "./layer/1", "axisOrder": axes}]
    file.write_text(json.dumps(content))
    mag = Dataset(ds.path).get_layer("layer").get_mag(1)
    assert np.array_equal(mag.read(), voxels.T[None])
    assert entry_of(mag.place.store) == (None, {"axisOrder": axes})
    mag.write(mag.read() + 1)
    assert np.array_equal(zarr.open_array(array.store.root, mode="r")[:6, :5, :4], voxels + 1)
    linked = Dataset.create(tmp_path / "other", (1, 1, 1)).add_symlink_layer(layer)
    assert np.array_equal(linked.get_mag(1).read(), voxels.T[None] + 1)


def test_one_channel_of_an_array_is_refused(tmp_path):
    store = create_mag(str(tmp_path / "mag"), a_spec(num_channels=2), "zarr3")
    with pytest.raises(UnsupportedFormatError, match="channel"):
        open_mag(store.path, "zarr3", {"channelIndex": 1})
