"""Counts of voxels against numpy, for all types and layouts."""

import numpy as np
import pytest
from thorough import mostly_slow

from wkdask.errors import DTypeError
from wkdask.kernels import count_bins, count_values, finite_range
from wkdask.kernels.histograms import _count
from wkdask.kernels.layout import flat, numbers, steps
from wkdask.kernels.stand_ins import count

LAYOUTS = {
    "F": lambda block: np.asfortranarray(block),
    "C": lambda block: np.ascontiguousarray(block),
    "every second": lambda block: block[:, ::2, :, ::2],
    "reversed": lambda block: block[:, ::-1],
    "turned": lambda block: block.transpose(0, 3, 1, 2),
    "broadcast": lambda block: np.broadcast_to(block[:, :, :1], block.shape),
    "empty": lambda block: block[:, :0],
}


def noise(dtype, shape=(2, 17, 12, 9)):
    info = np.iinfo(dtype)
    return np.random.default_rng(0).integers(info.min, info.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_by_value(dtype, layout):
    block = LAYOUTS[layout](noise(dtype))
    info = np.iinfo(dtype)
    expected = np.bincount(block.ravel().astype(int) - info.min, minlength=info.max - info.min + 1)
    assert np.array_equal(count_values(block), expected)


@pytest.mark.parametrize("dtype", mostly_slow(["uint8", "uint16"], lambda n, _: n == 0))
def test_the_compiled_loop_is_the_same_as_numpy(dtype):
    rows = noise(dtype)
    size = 1 << 8 * rows.itemsize
    expected, found = np.zeros(size, np.uint64), np.zeros(4 * size, np.uint64)
    count(rows, expected)
    _count(flat(rows), numbers(rows.shape), numbers(steps(rows)), found, np.uint64(size))
    assert np.array_equal(found.reshape(4, size).sum(axis=0), expected)


def test_larger_types_are_not_counted_by_value():
    with pytest.raises(DTypeError, match="uint32"):
        count_values(np.zeros((1, 2, 2, 2), "uint32"))


@pytest.mark.parametrize("dtype", ["uint32", "int32", "uint64", "int64"])
def test_integers_in_bins(dtype):
    block = noise(dtype)
    low, high = int(block.min()), int(block.max())
    width = (high - low) // 7 + 1
    expected = np.zeros(7, int)
    for value in block.ravel().tolist():
        expected[(value - low) // width] += 1
    assert np.array_equal(count_bins(block, low, high, 7, width), expected)
    assert count_bins(block, low, low + width - 1, 1, width).tolist() == [expected[0]]


def test_floats_in_bins():
    block = np.random.default_rng(0).normal(0, 1, (1, 20, 20, 20)).astype("float32")
    block[0, :3, 0, 0] = np.nan, np.inf, -np.inf
    block[0, 3, 0, 0] = 2.0
    expected = np.histogram(block[(block >= -1) & (block <= 2)], 9, (-1, 2))[0]
    assert np.array_equal(count_bins(block, -1, 2, 9), expected)


def test_finite_numbers():
    block = np.array([np.nan, -2.5, np.inf, 7]).reshape(1, 4, 1, 1)
    assert finite_range(block) == (-2.5, 7)
    assert finite_range(block[:, ::2]) is None
    assert finite_range(np.array([2**64 - 1, 3], "uint64").reshape(1, 2, 1, 1)) == (3, 2**64 - 1)
    assert finite_range(np.zeros((1, 0, 1, 1), "uint32")) is None
