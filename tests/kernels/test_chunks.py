"""Chunks packed and unpacked by machine code, against numcodecs and numpy."""

import itertools
import math

import dask
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import zstd
from thorough import drawn, examples

from wkdask.kernels.chunks import can_pack, pack_chunks, unpack_chunks
from wkdask.kernels.layout import DTYPES
from wkdask.storage.zarr.zstd import compressor, decompressor


def compress(size):
    return compressor(3, True, size)


def encode(chunk):
    return zstd.compress(chunk, 3, True)


@settings(max_examples=examples(60), deadline=None)  # the first call compiles
@given(
    st.sampled_from(drawn(DTYPES)), st.sampled_from([1, 3]), st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 3)] * 3), st.integers(0, 3), st.sampled_from(["0 s", "10 hours"]),
)  # fmt: skip
def test_chunks_are_packed_and_unpacked(dtype, channels, shape, counts, border, compile_after):
    sides = [n * side + border for n, side in zip(counts, shape, strict=True)]
    voxels = np.random.default_rng(0).integers(0, 3, (channels, *sides)).astype(dtype, order="F")
    voxels[:, : shape[0], : shape[1], : shape[2]] = 0
    corners = np.array(
        list(itertools.product(*(range(0, n * side, side) for n, side in zip(counts, shape, strict=True))))
    )
    nbytes = channels * math.prod(shape) * voxels.itemsize
    context, bound = compress(nbytes)
    out = np.empty(bound * len(corners), np.uint8)
    assert can_pack(voxels)
    with dask.config.set({"wkdask.compile-after": compile_after}):
        sizes = pack_chunks(voxels, corners, shape, context, bound, out, encode)
    expected = [
        voxels[(slice(None), *(slice(a, a + n) for a, n in zip(corner, shape, strict=True)))]
        for corner in corners
    ]
    assert [size > 0 for size in sizes] == [bool(chunk.any()) for chunk in expected]
    ends = np.cumsum(sizes).astype(int)
    for chunk, size, end in zip(expected, sizes.astype(int), ends, strict=True):
        if size:
            assert zstd.decompress(out[end - size : end]) == chunk.tobytes("F")

    there = np.flatnonzero(sizes)
    entries = np.stack([ends - sizes.astype(int), sizes.astype(int)], axis=1)[there]
    back = np.zeros_like(voxels)
    cut = [max(side - 2, 0) for side in shape]  # a part of each chunk, from voxel 1 on where it has so many
    low = [int(side > 2) for side in shape]
    high = [low[n] + max(cut[n], 1) for n in range(3)]
    regions = np.array(
        [[*itertools.chain(*((low[n], high[n] - low[n]) for n in range(3))), *corner] for corner in corners]
    )
    done = unpack_chunks(out, entries, regions[there], shape, decompressor(), back)
    assert done == len(there)
    again = np.zeros_like(voxels)
    inner = (slice(None), *(slice(low[n], high[n]) for n in range(3)))
    for corner, chunk in zip(corners, expected, strict=True):
        place = (slice(None), *(slice(corner[n], corner[n] + high[n] - low[n]) for n in range(3)))
        again[place] = chunk[inner]
    assert np.array_equal(back, again)


def test_a_chunk_that_does_not_decompress_is_found():
    voxels = np.random.default_rng(0).integers(1, 200, (1, 24, 8, 8), "uint8").copy(order="F")
    corners = np.array([(0, 0, 0), (8, 0, 0), (16, 0, 0)])
    context, bound = compress(512)
    out = np.empty(3 * bound, np.uint8)
    sizes = pack_chunks(voxels, corners, (8, 8, 8), context, bound, out, encode).astype(int)
    starts = np.cumsum(sizes) - sizes
    regions = np.array([[0, 8, 0, 8, 0, 8, *corner] for corner in corners])
    for damage in ((1, 0), (1, -1), (1, 12)):
        chunk, place = damage
        bad = out.copy()
        bad[starts[chunk] + place % sizes[chunk]] ^= 0x55
        entries = np.stack([starts, sizes], axis=1)
        back = np.zeros_like(voxels)
        assert unpack_chunks(bad, entries, regions, (8, 8, 8), decompressor(), back) == chunk
    short = np.stack([starts, sizes - 1], axis=1)
    assert unpack_chunks(out, short, regions, (8, 8, 8), decompressor(), np.zeros_like(voxels)) == 0


@pytest.mark.parametrize("order", ["C", "strided"])
def test_blocks_without_rows_are_not_packed(order):
    voxels = (
        np.zeros((2, 8, 8, 8), "uint8", order="C")
        if order == "C"
        else np.zeros((2, 16, 8, 8), order="F")[:, ::2]
    )
    assert not can_pack(voxels)
