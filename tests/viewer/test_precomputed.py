"""Volumes in neuroglancer's precomputed format: which chunks there are, and the order of their bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wkdask import BoundingBox, Vec3Int
from wkdask.errors import InvalidValueError
from wkdask.viewer.precomputed import cell_named, chunk_name, encoded, volume_info
from wkdask.viewer.scales import Scale, ShownLayer


def scale_of(box, dtype="uint8", num_channels=1, name="1"):
    return Scale(name, (4.0, 4.0, 40.0), box, np.dtype(dtype), num_channels, lambda part, region: None)


def test_the_metadata():
    fine, coarse = (
        scale_of(BoundingBox((3, 4, 5), (100, 90, 80))),
        scale_of(BoundingBox((1, 2, 5), (51, 45, 80))),
    )
    info = volume_info(ShownLayer("a", False, (fine, coarse)))
    assert info == {
        "@type": "neuroglancer_multiscale_volume",
        "type": "image",
        "data_type": "uint8",
        "num_channels": 1,
        "scales": [
            {
                "key": "1",
                "resolution": [4.0, 4.0, 40.0],
                "voxel_offset": offset,
                "size": size,
                "chunk_sizes": [[64, 64, 64]],
                "encoding": "raw",
            }
            for offset, size in (([3, 4, 5], [100, 90, 80]), ([1, 2, 5], [51, 45, 80]))
        ],
    }


@given(st.tuples(*[st.integers(0, 200)] * 3), st.tuples(*[st.integers(1, 200)] * 3), st.data())
def test_every_chunk_has_a_name_that_leads_back_to_it(corner, size, data):
    scale = scale_of(BoundingBox(corner, size))
    cell = Vec3Int(*(data.draw(st.integers(0, count - 1)) for count in scale.grid))
    assert cell_named(scale, chunk_name(scale.cell_box(cell))) == cell


@given(st.tuples(*[st.integers(0, 200)] * 3), st.tuples(*[st.integers(1, 200)] * 3))
def test_chunks_tile_the_box(corner, size):
    scale = scale_of(BoundingBox(corner, size))
    hits = np.zeros(size, int)
    for cell in np.ndindex(*scale.grid):
        hits[scale.cell_box(Vec3Int(*cell)).offset(-scale.box.topleft).to_slices()] += 1
    assert (hits == 1).all()


@pytest.mark.parametrize(
    "name", ["0-64_0-64_0-64", "3-67_4-68_5-70", "67-131_4-68_5-69", "x", "", "3-67_4-68"]
)
def test_other_names_are_refused(name):
    with pytest.raises(InvalidValueError, match="has no chunk"):
        cell_named(scale_of(BoundingBox((3, 4, 5), (64, 64, 64))), name)


@pytest.mark.parametrize(
    ("dtype", "is_segmentation", "sent"),
    [
        ("uint8", False, "<u1"),
        ("uint64", True, "<u8"),
        ("int16", False, "<i2"),
        ("float32", False, "<f4"),
        ("int64", True, "<u8"),  # what the client does not know
        ("int64", False, "<f4"),
        ("float64", False, "<f4"),
    ],
)
def test_a_chunk_has_x_fastest_and_channels_last(dtype, is_segmentation, sent):
    voxels = np.asfortranarray(np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(dtype))
    layer = ShownLayer("a", is_segmentation, (scale_of(BoundingBox((0, 0, 0), (3, 4, 5)), dtype, 2),))
    found = np.frombuffer(encoded(voxels, layer), sent).reshape(3, 4, 5, 2, order="F")
    np.testing.assert_array_equal(found, voxels.transpose(1, 2, 3, 0))
    assert np.dtype(volume_info(layer)["data_type"]) == np.dtype(sent)
