"""What every stored magnification shares: type and cut of the array, coordinates within reach."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wkdask.errors import DTypeError, InvalidValueError, WkdaskError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import (
    COMPRESSIONS,
    DTYPES,
    ArraySpec,
    check_coordinates,
    empty_block,
    leads_out,
)


def spec_of(**changes):
    values = {
        "dtype": "uint8",
        "num_channels": 1,
        "chunk_shape": Vec3Int.full(32),
        "shard_shape": Vec3Int.full(1024),
        "compression": None,
    }
    return ArraySpec(**{**values, **changes})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes(dtype, channels):
    spec = spec_of(dtype=dtype, num_channels=channels)
    assert spec.bytes_per_voxel == channels * np.dtype(dtype).itemsize
    assert spec.cube_nbytes == 1024**3 * channels * np.dtype(dtype).itemsize
    assert spec.grid.shape == (1024, 1024, 1024)
    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_known_compressions(compression):
    assert spec_of(compression=compression).compression == compression


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"dtype": "bool"}, DTypeError, "bool"),
        ({"dtype": "float16"}, DTypeError, "uint8"),
        ({"dtype": ">u2"}, DTypeError, ">u2"),
        ({"num_channels": 0}, InvalidValueError, "channel"),
        ({"num_channels": -1}, InvalidValueError, "-1"),
        ({"chunk_shape": Vec3Int(32, 0, 32)}, InvalidValueError, "positive"),
        ({"shard_shape": Vec3Int(0, 0, 0)}, InvalidValueError, "positive"),
        ({"shard_shape": Vec3Int(-32, 32, 32)}, InvalidValueError, "positive"),
        ({"shard_shape": Vec3Int(48, 32, 32)}, InvalidValueError, "multiple"),
        ({"chunk_shape": Vec3Int.full(2048)}, InvalidValueError, "multiple"),
        ({"compression": "lzma"}, InvalidValueError, "lz4hc"),
        ({"compression": True}, InvalidValueError, "True"),
    ],
    ids=str,
)
def test_refusals_say_what_and_why(changes, error, says):
    with pytest.raises(error, match=says) as caught:
        spec_of(**changes)
    assert isinstance(caught.value, WkdaskError)


corners = st.tuples(*[st.integers(-(2**33), 2**33)] * 3)
sizes = st.tuples(*[st.integers(0, 2**33)] * 3)


@given(corners, sizes, st.sampled_from([1, 32, 1024]))
def test_coordinates_never_reach_what_wraps(corner, size, side):
    box = BoundingBox(corner, size)
    ends = [-(-(low + n) // side) * side for low, n in zip(corner, size, strict=True)]
    if min(corner) >= 0 and max(ends) < 2**32:
        check_coordinates(box, Vec3Int.full(side))
    else:
        with pytest.raises(InvalidValueError, match=r"negative|2\*\*32"):
            check_coordinates(box, Vec3Int.full(side))


def test_the_last_cube_is_refused_whole():
    side = Vec3Int.full(1024)
    check_coordinates(BoundingBox((2**32 - 2048, 0, 0), (1024, 1, 1)), side)
    with pytest.raises(InvalidValueError, match="stops counting"):
        check_coordinates(BoundingBox((2**32 - 1024, 0, 0), (1, 1, 1)), side)


@pytest.mark.parametrize("size", [(0, 0, 0), (0, 5, 5), (3, 0, 1)])
def test_a_box_without_voxels_is_anywhere_below_2_to_the_32(size):
    for corner in ((0, 0, 0), (2**32 - 5,) * 3):
        check_coordinates(BoundingBox(corner, size), Vec3Int.full(1024))
    for corner in ((2**32, 0, 0), (-1, 0, 0)):
        with pytest.raises(InvalidValueError):
            check_coordinates(BoundingBox(corner, size), Vec3Int.full(1024))


def test_blocks_beyond_the_memory_are_refused():
    spec = spec_of(dtype="uint16", num_channels=2)
    block = empty_block(spec, BoundingBox((5, 5, 5), (3, 4, 5)))
    assert (block.shape, block.dtype, block.flags.f_contiguous) == ((2, 3, 4, 5), np.uint16, True)
    assert empty_block(spec, BoundingBox((0, 0, 0), (0, 2**20, 2**20))).shape == (2, 0, 2**20, 2**20)
    for size in ((2**20,) * 3, (2**32 - 1,) * 3, (2**32 - 1, 2**32 - 1, 0)):
        with pytest.raises(InvalidValueError):
            empty_block(spec, BoundingBox((0, 0, 0), size))


def test_links_that_leave_the_dataset_are_told(tmp_path):
    mag, other = tmp_path / "ds" / "color" / "1", tmp_path / "other"
    for folder in (mag / "z0" / "y0", other / "y0", tmp_path / "ds" / "spare"):
        folder.mkdir(parents=True)
    (mag / "z1").symlink_to(other)
    (mag / "z2").symlink_to(tmp_path / "ds" / "spare")
    assert leads_out(str(mag), f"{mag}/z0/y0/x0.wkw") is None
    assert leads_out(str(mag), f"{mag}/z2/y0/x0.wkw") is None
    assert leads_out(str(mag), f"{mag}/z1/y0/x0.wkw") == f"{other}/y0/x0.wkw"
    (mag / "z0" / "y0" / "x0.wkw").symlink_to("/nowhere")
    assert leads_out(str(mag), f"{mag}/z0/y0/x0.wkw") == "/nowhere"
