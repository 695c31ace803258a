"""Each kernel compiled once, for the commonest type; `test_kernels.py` tries them in every way."""

import dask
import numpy as np
import pytest

from wkdask import kernels

SIDE = 8


@pytest.fixture(autouse=True)
def _compile_at_once():
    with dask.config.set({"wkdask.compile-after": 0}):
        yield


@pytest.fixture
def block():
    """Return voxels ``(1, x, y, z)`` of few values, x fastest."""
    return np.random.default_rng(0).integers(1, 5, (1, 2 * SIDE, SIDE, SIDE), "uint8").copy(order="F")


def windows_of(block):
    """Return the voxels of each window of 2×2×2 along the last axis, y fastest, then x, then z."""
    _, x, y, z = (n // 2 for n in block.shape)
    cut = block[0].reshape(x, 2, y, 2, z, 2).transpose(0, 2, 4, 5, 1, 3)
    return cut.reshape(1, x, y, z, 8)


def test_median(block):
    ordered = np.sort(windows_of(block), axis=-1).astype(int)
    expected = (ordered[..., 3] + ordered[..., 4]) // 2
    assert np.array_equal(kernels.downsample(block, (2, 2, 2), "median"), expected)


def test_mode(block):
    windows = windows_of(block)
    counts = (windows[..., :, None] == windows[..., None, :]).sum(-1)
    expected = np.take_along_axis(windows, counts.argmax(-1)[..., None], -1)[..., 0]
    assert np.array_equal(kernels.downsample(block, (2, 2, 2), "mode"), expected)


def test_moves_and_statistics(block):
    turned = kernels.to_fortran(np.ascontiguousarray(block))
    assert turned.flags.f_contiguous
    assert np.array_equal(turned, block)
    assert kernels.block_stats(block) == (1, 4)


def test_blocks_of_a_cube(block):
    codes = kernels.morton_numbers([0, 0, 0], [2, 1, 1])
    expected = np.concatenate([block[0, :SIDE].ravel(order="F"), block[0, SIDE:].ravel(order="F")])
    packed = np.zeros(block.size, "uint8")
    kernels.pack_blocks(block, codes, SIDE, (0, 0, 0), block.shape[1:], packed)
    assert np.array_equal(packed, expected)
    out = np.zeros_like(block)
    target = kernels.BlockTarget.of(out, streamed=False)
    kernels.unpack_blocks(packed, codes, SIDE, (0, 0, 0), block.shape[1:], target, (0, 0, 0))
    assert np.array_equal(out, block)
