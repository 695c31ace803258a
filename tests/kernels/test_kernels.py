"""Every kernel against numpy: the expected array first, then the kernel has to agree voxel by voxel."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time

import dask
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import drawn, examples, mostly_slow

from wkdask import kernels
from wkdask.errors import AlignmentError, DTypeError, InvalidValueError
from wkdask.fsio import lock
from wkdask.kernels import layout as kernel_calls
from wkdask.kernels.layout import DTYPES, jit

LAYOUTS = (
    "F",
    "C",
    "F box",
    "C box",
    "y fastest",
    "channels last",
    "stepped",
    "reversed",
    "read-only",
    "unaligned",
)
FACTORS = (
    (2, 2, 2),
    (2, 2, 1),
    (1, 1, 2),
    (2, 1, 1),
    (1, 2, 1),
    (1, 2, 2),
    (4, 4, 1),
    (4, 4, 2),
    (3, 2, 1),
    (3, 3, 3),
)
MODES = tuple(mode for mode in kernels.MODES if mode not in kernels.INTERPOLATIONS)  # see test_interpolation
OPTIONS = settings(max_examples=examples(60), deadline=None)  # a first call compiles

dtypes = pytest.mark.parametrize("dtype", mostly_slow(DTYPES, lambda _, dtype: dtype in drawn(DTYPES)))


@pytest.fixture(
    autouse=True, scope="module", params=[pytest.param("compiled", marks=pytest.mark.slow), "numpy"]
)
def worker(request):
    """Let each kernel do its work itself, or numpy do all of it that it can.

    Compiling takes most of the time: every day `test_compiled.py` compiles each kernel once.
    """
    with pytest.MonkeyPatch.context() as patch, dask.config.set({"wkdask.compile-after": 0}):
        if request.param == "numpy":
            dask.config.set({"wkdask.compile-after": "10 hours"})
            patch.setattr(kernel_calls, "_ready", set())
            patch.setattr(kernel_calls, "_lock_path", lambda *version: None)
        yield request.param


def random_block(shape, dtype, seed=0, few=False):
    """Random bits, some infinities, no NaN; or few different small values, negative where possible."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if few:
        return rng.integers(0 if dtype.kind == "u" else -2, 3, shape).astype(dtype)
    bits = rng.integers(0, 2**64, shape, dtype=np.uint64)
    if dtype.kind != "f":
        return bits.astype(f"u{dtype.itemsize}").view(dtype)
    values = bits.view(np.int64).astype(dtype)
    values[bits % 61 == 0] = np.inf
    return values


def laid_out(block, layout):
    """The same voxels, another way to lie in memory."""
    if layout in "FC":
        return np.array(block, order=layout)
    if layout.endswith(" box"):
        larger = np.ones([n + 3 for n in block.shape[1:]], block.dtype)
        larger = np.array(np.broadcast_to(larger, (block.shape[0], *larger.shape)), order=layout[0])
        box = larger[:, 1:-2, 2:-1, :-3]
        box[...] = block
        return box
    if layout == "y fastest":
        return np.ascontiguousarray(block.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    if layout == "channels last":
        return np.ascontiguousarray(block.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)
    if layout == "stepped":
        wide = np.ones([2 * n for n in block.shape], block.dtype)[::2, ::2, ::2, ::2]
        wide[...] = block
        return wide
    if layout == "reversed":
        return np.array(block[:, ::-1, :, ::-1], order="F")[:, ::-1, :, ::-1]
    if layout == "read-only":
        block = np.array(block, order="F")
        block.flags.writeable = False
        return block
    memory = np.empty(block.nbytes + 1, np.uint8)[1:].view(block.dtype).reshape(block.shape, order="F")
    memory[...] = block
    return memory


def windows(block, factors):
    """(c, x, y, z, voxels of the window) with the voxels in the order y fastest, then x, then z."""
    (nc, nx, ny, nz), (fx, fy, fz) = block.shape, factors
    cut = block.reshape(nc, nx // fx, fx, ny // fy, fy, nz // fz, fz).transpose(0, 1, 3, 5, 6, 2, 4)
    return cut.reshape(nc, nx // fx, ny // fy, nz // fz, fx * fy * fz)


def expected_downsample(block, factors, mode):
    voxels = windows(np.ascontiguousarray(block), factors)
    n = voxels.shape[-1]
    if mode == "nearest":
        return voxels[..., 0]
    if mode in ("min", "max"):
        return getattr(voxels, mode)(axis=-1)
    if mode == "mode":
        counts = (voxels[..., :, None] == voxels[..., None, :]).sum(-1)
        counts = np.maximum(counts, 1)  # a NaN, which does not equal itself
        return np.take_along_axis(voxels, counts.argmax(-1)[..., None], -1)[..., 0]
    ordered = np.sort(voxels, axis=-1)
    low, high = ordered[..., (n - 1) // 2], ordered[..., n // 2]
    if block.dtype.kind == "f":
        with np.errstate(all="ignore"):
            mean = ((low.astype(np.float64) + high.astype(np.float64)) / 2).astype(block.dtype)
        return np.where(np.isnan(voxels).any(-1), block.dtype.type(np.nan), mean)
    total = low.astype(object) + high.astype(object)  # Python integers: exact
    return np.where(total < 0, -(-total // 2), total // 2).astype(block.dtype)


def assert_same(actual, expected):
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected, strict=True)


blocks = st.builds(
    lambda shape, dtype, seed, few, layout: laid_out(random_block(shape, dtype, seed, few), layout),
    st.tuples(st.sampled_from([1, 1, 3]), *[st.integers(1, 20)] * 3),
    st.sampled_from(drawn(DTYPES)),
    st.integers(0, 99),
    st.booleans(),
    st.sampled_from(LAYOUTS),
)


# -- moves ---------------------------------------------------------------------------------------------------


@OPTIONS
@given(blocks)
def test_to_fortran_keeps_every_voxel(block):
    expected = np.array(block, order="C")
    actual = kernels.to_fortran(block)
    assert actual.flags.f_contiguous
    assert_same(actual, expected)


@dtypes
@pytest.mark.parametrize(
    "shape", [(1, 150, 3, 141), (3, 70, 2, 133), (1, 1, 140, 150), (1, 140, 150, 1), (2, 1, 1, 9)]
)
def test_to_fortran_beyond_one_tile(dtype, shape):
    block = random_block(shape, dtype)
    expected = block.copy()
    for layout in ("C", "C box", "y fastest"):
        assert_same(kernels.to_fortran(laid_out(block, layout)), expected)


def test_to_fortran_returns_a_fortran_block_itself():
    block = random_block((3, 4, 5, 6), "uint8").copy(order="F")
    assert kernels.to_fortran(block) is block


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "target", ["F", "F box", "C", "y fastest", "channels last", "stepped", "reversed", "unaligned"]
)
def test_to_fortran_into_out(layout, target):
    expected = random_block((3, 9, 34, 21), "uint16")
    out = laid_out(np.zeros_like(expected), target)
    assert kernels.to_fortran(laid_out(expected, layout), out) is out
    assert_same(out, expected)


def test_to_fortran_into_a_box_touches_nothing_else():
    large = np.full((1, 40, 40, 40), 7, np.uint8, order="F")
    expected = large.copy()
    block = random_block((1, 20, 30, 25), "uint8")
    expected[:, 5:25, 6:36, 7:32] = block
    kernels.to_fortran(np.ascontiguousarray(block), large[:, 5:25, 6:36, 7:32])
    assert_same(large, expected)


@pytest.mark.parametrize("out", [np.empty((1, 2, 3, 5), np.uint8), np.empty((1, 2, 3, 4), np.int8)])
def test_to_fortran_refuses_an_out_that_does_not_fit(out):
    with pytest.raises(InvalidValueError, match="out has shape"):
        kernels.to_fortran(np.zeros((1, 2, 3, 4), np.uint8), out)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "before_after", [((1, 2, 3), (0, 1, 2)), ((9, 0, 0), (0, 13, 11)), ((0, 0, 0), (0, 0, 0))]
)
def test_mirror_pad(layout, before_after):
    block = laid_out(random_block((3, 4, 5, 2), "uint16"), layout)
    expected = np.pad(block, [(0, 0), *zip(*before_after, strict=True)], mode="symmetric")
    actual = kernels.mirror_pad(block, *before_after)
    assert actual.flags.f_contiguous
    assert_same(actual, expected)


def test_mirror_pad_refuses():
    with pytest.raises(InvalidValueError, match="Nothing to mirror"):
        kernels.mirror_pad(np.zeros((1, 0, 2, 2), np.uint8), (1, 0, 0), (0, 0, 0))
    with pytest.raises(InvalidValueError, match="before"):
        kernels.mirror_pad(np.zeros((1, 2, 2, 2), np.uint8), (-1, 0, 0), (0, 0, 0))


@dtypes
@pytest.mark.parametrize("factors", [(2, 2, 2), (2, 2, 1), (1, 1, 1), (1, 3, 2)])
def test_upsample(dtype, factors):
    for layout in ("F", "C box", "reversed"):
        block = laid_out(random_block((3, 4, 5, 2), dtype), layout)
        expected = block
        for axis, factor in enumerate(factors, start=1):
            expected = expected.repeat(factor, axis)
        actual = kernels.upsample(block, factors)
        assert actual.flags.f_contiguous
        assert not np.shares_memory(actual, block)
        assert_same(actual, expected)


# -- statistics ----------------------------------------------------------------------------------------------


@OPTIONS
@given(blocks)
def test_block_stats(block):
    expected = (block.min().item(), block.max().item())
    actual = kernels.block_stats(block)
    assert actual == expected
    assert [type(value) for value in actual] == [type(value) for value in expected]


@OPTIONS
@given(blocks, st.integers(0, 20), st.integers(0, 20))
def test_min_max_of_parts_are_those_of_the_whole(block, first, second):
    min_max = kernels.MinMax(block.dtype)
    assert min_max.values is None
    for z in (slice(None, first), slice(first, second), slice(min(first, second), None)):
        min_max.add(block[..., z])
    assert min_max.values == (block.min().item(), block.max().item())


@dtypes
def test_block_stats_reaches_the_limits_of_the_type(dtype):
    block = random_block((1, 33, 40, 17), dtype)
    limits = np.finfo(dtype) if block.dtype.kind == "f" else np.iinfo(dtype)
    block[...] = 3
    block[0, 32, 39, 16], block[0, 7, 0, 3] = limits.max, limits.min
    for layout in LAYOUTS:
        assert kernels.block_stats(laid_out(block, layout)) == (limits.min, limits.max)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_block_stats_ignores_nan(dtype):
    block = np.full((1, 10, 11, 12), np.nan, dtype)
    assert np.isnan(kernels.block_stats(block)).all()
    block[0, 3, 4, 5] = -2
    assert kernels.block_stats(block) == (-2.0, -2.0)
    block[0, 9, 10, 11] = np.inf
    assert kernels.block_stats(block) == (-2.0, np.inf)


def test_block_stats_of_nothing_is_an_error():
    with pytest.raises(InvalidValueError, match="without voxels"):
        kernels.block_stats(np.zeros((1, 0, 3, 3), np.uint8))


@dtypes
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_voxel_is_found(dtype, layout):
    rng = np.random.default_rng(1)
    for shape in ((1, 21, 9, 12), (3, 5, 300, 3), (2, 1, 1, 300)):
        block = np.zeros(shape, dtype)
        empty = laid_out(block, layout)
        assert kernels.is_zero(empty)
        assert kernels.nonzero_bounds(empty) is None
        at = tuple(int(rng.integers(n)) for n in shape)
        block[at] = 1
        one = laid_out(block, layout)
        assert not kernels.is_zero(one)
        assert kernels.nonzero_bounds(one) == (at[1:], tuple(i + 1 for i in at[1:]))


@OPTIONS
@given(blocks, st.integers(0, 99), st.integers(0, 30))
def test_nonzero_bounds(block, seed, count):
    rng = np.random.default_rng(seed)
    sparse = np.zeros(block.shape, block.dtype)
    for _ in range(count):
        sparse[tuple(rng.integers(block.shape))] = 1
    block = block.copy(order="K") if not block.flags.writeable else block
    block[...] = sparse
    places = np.argwhere(sparse)[:, 1:]
    expected = None if count == 0 else (tuple(places.min(0)), tuple(places.max(0) + 1))
    assert kernels.nonzero_bounds(block) == expected
    assert kernels.is_zero(block) == (count == 0)


def test_minus_zero_is_kept():
    block = np.zeros((1, 4, 4, 4), np.float32)
    block[0, 1, 2, 3] = -0.0
    assert not kernels.is_zero(block)
    assert kernels.nonzero_bounds(block) == ((1, 2, 3), (2, 3, 4))


def test_broadcast_blocks_are_not_copied():
    block = np.broadcast_to(np.zeros((), np.uint64), (1, 4096, 4096, 4096))  # 512 GiB
    assert kernels.is_zero(block)
    assert kernels.block_stats(block) == (0, 0)


# -- downsampling --------------------------------------------------------------------------------------------


@pytest.mark.slow
@dtypes
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("few", [True, False])
def test_downsample_every_type(dtype, mode, few):
    for channels in (1, 3):
        block = random_block((channels, 12, 12, 12), dtype, few=few)
        for factors in FACTORS:
            expected = expected_downsample(block, factors, mode)
            actual = kernels.downsample(block.copy(order="F"), factors, mode)
            assert actual.flags.f_contiguous
            assert_same(actual, expected)


@pytest.mark.slow
@OPTIONS
@given(
    st.tuples(st.sampled_from([1, 3]), *[st.integers(0, 5)] * 3),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.sampled_from(drawn(DTYPES)),
    st.sampled_from(LAYOUTS),
    st.sampled_from(MODES),
    st.booleans(),
)
def test_downsample_every_layout(shape, factors, dtype, layout, mode, few):
    shape = (shape[0], *(n * f for n, f in zip(shape[1:], factors, strict=True)))
    block = (
        laid_out(random_block(shape, dtype, few=few), layout) if np.prod(shape) else np.zeros(shape, dtype)
    )
    expected = (
        expected_downsample(block, factors, mode)
        if block.size
        else np.zeros((shape[0], *(n // f for n, f in zip(shape[1:], factors, strict=True))), dtype)
    )
    assert_same(kernels.downsample(block, factors, mode), expected)


@pytest.mark.parametrize("mode", mostly_slow(MODES, lambda _, mode: mode in ("median", "nearest")))
@pytest.mark.parametrize("channels", [1, 3])
def test_downsample_rows_longer_than_a_run(mode, channels):
    block = random_block((channels, 3000, 4, 2), "uint8", few=True)
    for factors in ((2, 2, 2), (2, 2, 1), (4, 4, 2)):
        assert_same(kernels.downsample(block, factors, mode), expected_downsample(block, factors, mode))


TOP = 2**64 - 1
MEDIANS = {
    "uint64": [(TOP, TOP - 2, TOP - 1), (TOP, TOP - 3, TOP - 2)],
    "int64": [(2**63 - 1, -(2**63), 0), (-(2**63), -(2**63) + 3, -(2**63) + 2)],
    "uint8": [(255, 254, 254)],
    "int8": [(-3, -4, -3), (-128, 127, 0)],
    "int32": [(-1, 0, 0)],
    "float32": [(3e38, 3.2e38, pytest.approx(3.1e38))],
}


@pytest.mark.parametrize(
    "dtype",
    [pytest.param(dtype, marks=[pytest.mark.slow] * (dtype != "uint8")) for dtype in MEDIANS],
)
def test_median_is_exact_and_truncated_toward_zero(dtype):
    for a, b, expected in MEDIANS[dtype]:
        block = np.array([a, b], dtype).reshape(1, 2, 1, 1)
        assert kernels.downsample(block, (2, 1, 1), "median").item() == expected


@pytest.mark.parametrize("mode", mostly_slow(["median", "min", "max"], lambda _, mode: mode == "max"))
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_nan_in_a_window_gives_nan(mode, dtype):
    block = random_block((1, 8, 8, 8), dtype)
    block[0, 1, 0, 1] = block[0, 6, 6, 6] = block[0, 6, 7, 6] = np.nan
    assert_same(kernels.downsample(block, (2, 2, 2), mode), expected_downsample(block, (2, 2, 2), mode))


def test_mode_of_equals_takes_the_first_in_y_then_x_then_z():
    columns = np.array([[1, 3, 4, 2, 2, 7], [5, 2, 2, 1, 4, 1], [3, 3, 2, 2, 1, 1]], np.uint32)
    # Six windows of three voxels along each axis in turn: nothing else to order, the first of equals wins.
    expected = np.array([1, 3, 2, 2, 2, 1], np.uint32)
    for axis in (1, 2, 3):
        factors = [3 if i == axis else 1 for i in (1, 2, 3)]
        block = np.moveaxis(columns.reshape(3, 6, 1), 0, axis - 1)[None]
        assert kernels.downsample(block, factors, "mode").ravel().tolist() == expected.tolist()
    # All eight differ: the voxel at (0, 0, 0). Two pairs: the one that starts earlier in y, x, z.
    window = np.arange(10, 18, dtype=np.uint32).reshape(1, 2, 2, 2)
    assert kernels.downsample(window, (2, 2, 2), "mode").item() == 10
    window[0, 1, 0, 0] = window[0, 1, 1, 1] = 2**30 + 1  # first seen third
    window[0, 0, 1, 0] = window[0, 0, 0, 1] = 2**30  # first seen second
    assert kernels.downsample(window, (2, 2, 2), "mode").item() == 2**30


def test_mode_tells_ids_apart_that_doubles_cannot():
    block = np.full((1, 2, 2, 2), 2**53, np.uint64)
    block[0, 0] = 2**53 + 1
    block[0, 1, 0, 0] = 2**53 + 1
    assert kernels.downsample(block, (2, 2, 2), "mode").item() == 2**53 + 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mode_of_floats_compares_values(dtype):
    rng = np.random.default_rng(2)
    block = rng.integers(-2, 3, (3, 12, 12, 12)).astype(dtype)
    block[rng.random(block.shape) < 0.3] = np.nan
    block[rng.random(block.shape) < 0.3] = -0.0
    for factors in FACTORS:
        expected = expected_downsample(block, factors, "mode")
        actual = kernels.downsample(block, factors, "mode")
        assert_same(actual, expected)
        assert_same(np.signbit(actual[expected == 0]), np.signbit(expected[expected == 0]))


@pytest.mark.parametrize("mode", mostly_slow(MODES, lambda _, mode: mode in ("median", "nearest")))
@pytest.mark.parametrize("target", ["F", "F box", "C", "stepped", "unaligned"])
def test_downsample_into_out(mode, target):
    block = random_block((3, 12, 8, 6), "uint8", few=True)
    expected = expected_downsample(block, (2, 2, 2), mode)
    out = laid_out(np.zeros_like(expected), target)
    assert kernels.downsample(block, (2, 2, 2), mode, out=out) is out
    assert_same(out, expected)


def test_factor_one_copies():
    block = random_block((1, 4, 4, 4), "uint8").copy(order="F")
    for mode in MODES:
        actual = kernels.downsample(block, (1, 1, 1), mode)
        assert not np.shares_memory(actual, block)
        assert_same(actual, block)


def test_downsample_refuses():
    block = np.zeros((1, 5, 4, 4), np.uint8)
    with pytest.raises(AlignmentError, match=r"\(6, 4, 4\)"):
        kernels.downsample(block, (2, 2, 2), "mode")
    with pytest.raises(InvalidValueError, match="median, mode, min, max, nearest"):
        kernels.downsample(block, (1, 2, 2), "tricubic")
    for factors in ((0, 1, 1), (1, 1), (1, 1.5, 1)):
        with pytest.raises(InvalidValueError, match="factors"):
            kernels.downsample(block, factors, "mode")
    with pytest.raises(InvalidValueError, match="out has shape"):
        kernels.downsample(block, (5, 2, 2), "mode", out=np.zeros((1, 1, 2, 1), np.uint8))


@pytest.mark.parametrize(
    "function",
    [
        kernels.to_fortran,
        kernels.block_stats,
        kernels.is_zero,
        kernels.nonzero_bounds,
        lambda block: kernels.downsample(block, (1, 1, 1), "mode"),
        lambda block: kernels.upsample(block, (1, 1, 1)),
        lambda block: kernels.mirror_pad(block, (0, 0, 0), (0, 0, 0)),
    ],
)
def test_other_arrays_are_refused(function):
    with pytest.raises(InvalidValueError, match="axes of shape"):
        function(np.zeros((2, 2, 2), np.uint8))
    for dtype in ("bool", "complex64", ">u4", "float16"):
        with pytest.raises(DTypeError, match="native byte order"):
            function(np.zeros((1, 2, 2, 2), dtype))


# -- running -------------------------------------------------------------------------------------------------


def test_kernels_run_in_threads_at_the_same_time():
    block = random_block((1, 64, 64, 64), "uint32", few=True)
    expected = expected_downsample(block, (2, 2, 2), "mode")
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(kernels.downsample(block, (2, 2, 2), "mode")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        assert_same(result, expected)


@pytest.mark.slow
def test_kernels_work_where_no_cache_can_be_written(tmp_path):
    # The locators of numba find no folder: what a container without a home and with a read-only package sees.
    code = (
        "from numba.core.caching import CacheImpl; CacheImpl._locator_classes = []\n"
        "import numpy as np; from wkdask import kernels\n"
        "print(kernels.is_zero(np.zeros((1, 2, 2, 2), np.uint8)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NUMBA_CACHE_DIR": ""},
        cwd=tmp_path,
    )
    assert done.stdout.strip() == "True"


# the blocks of plain cubes


def morton(x, y, z):
    """Bits interleaved one by one: x lowest."""
    return sum((n >> bit & 1) << (3 * bit + axis) for axis, n in enumerate((x, y, z)) for bit in range(8))


@OPTIONS
@given(st.lists(st.tuples(st.integers(0, 240), st.integers(1, 16)), min_size=3, max_size=3))
def test_morton_numbers(spans):
    low = [first for first, _ in spans]
    high = [first + count for first, count in spans]
    places = itertools.product(*(range(*span) for span in zip(low, high, strict=True)))
    assert kernels.morton_numbers(low, high).tolist() == sorted(morton(*place) for place in places)


def test_an_octant_is_one_run():
    codes = kernels.morton_numbers((4, 0, 4), (8, 4, 8))
    assert codes.tolist() == list(range(codes[0], codes[0] + 64))


@OPTIONS
@given(
    st.sampled_from([1, 2, 4, 8, 32]),
    st.sampled_from([1, 2, 3, 4, 6, 8, 16]),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=3, max_size=3),
    st.integers(0, 9),
)
def test_blocks_are_unpacked_and_packed(side, voxel_nbytes, streamed, spans, shift):
    low, high = [a for a, _ in spans], [a + n for a, n in spans]
    blocks = [range(a // side, -(-b // side)) for a, b in zip(low, high, strict=True)]
    codes = kernels.morton_numbers([r.start for r in blocks], [r.stop for r in blocks])
    data = np.random.default_rng(0).integers(1, 255, codes.size * side**3 * voxel_nbytes, dtype="uint8")
    whole = np.zeros((voxel_nbytes, *(r.stop * side for r in blocks)), "uint8", order="F")
    for place in itertools.product(*blocks):
        number = codes.tolist().index(morton(*place))
        block = data.reshape(codes.size, -1)[number].reshape((voxel_nbytes, side, side, side), order="F")
        whole[(slice(None), *(slice(n * side, (n + 1) * side) for n in place))] = block
    wanted = whole[(slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))]
    nx, ny, nz = wanted.shape[1:]
    around = np.zeros((voxel_nbytes, nx + 3, ny + 2, nz + shift), "uint8", order="F")
    out = around[:, shift % 4 : nx + shift % 4, 1 : ny + 1, :nz]
    target = kernels.BlockTarget.of(out, streamed=streamed)
    kernels.unpack_blocks(data, codes, side, low, high, target, low)
    np.testing.assert_array_equal(out, wanted)
    assert around.sum(dtype=int) == wanted.sum(dtype=int)
    packed = np.zeros_like(data)
    out.flags.writeable = False
    kernels.pack_blocks(out, codes, side, low, high, packed)
    again = np.zeros_like(around)
    there = again[:, :nx, :ny, :nz]
    kernels.unpack_blocks(packed, codes, side, low, high, kernels.BlockTarget.of(again, streamed=False), low)
    np.testing.assert_array_equal(there, wanted)
    assert packed.sum(dtype=int) == wanted.sum(dtype=int)
    assert ((packed == data) | (packed == 0)).all()


@pytest.mark.slow
@OPTIONS
@given(
    st.sampled_from([(4, 2), (8, 4), (32, 1)]),
    st.sampled_from([(2, 2, 2), (2, 2, 1), (1, 2, 2), (4, 2, 1), (4, 4, 4), (1, 1, 4)]),
    st.sampled_from(drawn(DTYPES)),
    st.sampled_from([1, 3]),
    st.sampled_from(sorted(kernels.BLOCK_MODES)),
    st.booleans(),
    st.data(),
)
def test_blocks_are_shrunk(cut, factors, dtype, channels, mode, few, data):
    side, blocks = cut
    whole = random_block((channels, *[side * blocks] * 3), dtype, few=few)
    spans = [
        sorted(data.draw(st.lists(st.integers(0, side * blocks // f), min_size=2, max_size=2, unique=True)))
        for f in factors
    ]
    low, high = ([span[end] * f for span, f in zip(spans, factors, strict=True)] for end in (0, 1))
    codes = kernels.morton_numbers([a // side for a in low], [-(-b // side) for b in high])
    places = kernels.morton_places(codes)
    parts = [
        whole[(slice(None), *(slice(n * side, (n + 1) * side) for n in place))].ravel(order="F")
        for place in places.astype(int).tolist()
    ]
    wanted = whole[(slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))]
    expected = expected_downsample(wanted, factors, mode)
    around = np.zeros([n + 2 for n in expected.shape[:0:-1]] + [channels], dtype).T
    out = around[:, 1:-1, 1:-1, 1:-1]
    kernels.downsample_blocks(
        np.concatenate(parts).view(np.uint8), places, side, low, high, factors, mode, out
    )
    assert_same(out, expected)
    out[...] = 0
    assert not around.any()


@OPTIONS
@given(st.lists(st.tuples(*[st.integers(0, 200)] * 3), max_size=20))
def test_places_of_morton_numbers(places):
    codes = np.array([morton(*place) for place in places], np.uint64)
    assert kernels.morton_places(codes).tolist() == [list(place) for place in places]


# -- the cache of machine code -------------------------------------------------------------------------------

FIRST = (
    "import sys, time, numpy as np\n"
    "from wkdask import kernels\n"
    "from wkdask.kernels.windows import sample_array as kernel\n"
    "print('ready', flush=True); sys.stdin.readline()\n"
    "kernels.downsample(np.ones((1, 4, 4, 4), np.uint16, order='F'), (2, 2, 2), 'median')\n"
    "print(sum(kernel.stats.cache_misses.values()), kernel.stats.cache_path)\n"
)


AT_ONCE = {"DASK_WKDASK__COMPILE_AFTER": "0"}
"""For a process of its own: kernels are compiled when they are first called."""


def together(count, env):
    """Let processes compile a kernel at the same moment; return what each prints."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate(timeout=120)[0].split() for process in processes]


@pytest.mark.slow
def test_of_many_processes_one_compiles(tmp_path):
    answers = together(3, {"NUMBA_CACHE_DIR": str(tmp_path), **AT_ONCE})
    assert sorted(misses for misses, _ in answers) == ["0", "0", "1"]
    assert all(path.startswith(str(tmp_path)) for _, path in answers)


@pytest.mark.slow
def test_where_nothing_else_can_be_written_the_cache_is_a_private_temporary_folder(tmp_path):
    code = (
        "from numba.core import caching\n"
        "caching.CacheImpl._locator_classes = [caching.UserProvidedCacheLocator]\n" + FIRST
    )
    env = {**os.environ, **AT_ONCE, "NUMBA_CACHE_DIR": "", "TMPDIR": str(tmp_path)}

    def run():
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env, input="\n"
        )
        return done.stdout.split()[1:]

    folder = tmp_path / f"wkdask-kernels-{os.getuid()}"
    misses, path = run()
    assert (misses, path.startswith(str(folder))) == ("1", True)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert run() == ["0", path]
    folder.chmod(0o777)  # anybody may have put code there
    assert run() == ["1", "None"]


def _three(x):
    return 3 * x


def test_kernels_are_compiled_whatever_the_user_says_for_his_own_functions(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    kernel = jit(_three)
    assert kernel(2) == 6
    assert kernel.signatures
    assert numba.config.DISABLE_JIT == 1


def test_a_cache_folder_that_is_a_file_is_passed_over(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert jit(_three)(2) == 6


def test_numpy_works_until_its_time_is_up(monkeypatch):
    monkeypatch.setattr(kernel_calls, "_ready", set())
    monkeypatch.setattr(kernel_calls, "_spent", {})
    monkeypatch.setattr(kernel_calls, "_lock_path", lambda *version: None)
    kernel, data = jit(lambda data: data[0] + 1), np.zeros(3, np.uint8)

    def work():
        start = time.thread_time()
        while time.thread_time() - start < 0.1:
            pass
        return "by numpy"

    with dask.config.set({"wkdask.compile-after": "150 ms"}):
        found = [kernel_calls.call(kernel, data, instead=work) for _ in range(4)]
    assert found == ["by numpy", "by numpy", 1, 1]
    with dask.config.set({"wkdask.compile-after": 0}):
        assert kernel_calls.call(kernel, data.astype(np.int16), instead=work) == 1


def test_numpy_works_while_another_process_compiles(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_calls, "_ready", set())
    monkeypatch.setattr(kernel_calls, "_lock_path", lambda *version: str(tmp_path / "kernel.lock"))
    kernel, data = jit(lambda data: data[0] + 1), np.zeros(3, np.uint8)
    with dask.config.set({"wkdask.compile-after": 0}):
        with lock(str(tmp_path / "kernel.lock")):
            assert kernel_calls.call(kernel, data, instead=lambda: "by numpy") == "by numpy"
        assert kernel_calls.call(kernel, data, instead=lambda: "by numpy") == 1


def test_what_was_compiled_before_is_loaded_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_calls, "_ready", set())
    monkeypatch.setattr(kernel_calls, "_lock_path", lambda *version: str(tmp_path / "kernel.lock"))
    (tmp_path / "kernel.lock").touch()
    with dask.config.set({"wkdask.compile-after": "10 hours"}):
        kernel = jit(lambda data: data[0] + 1)
        assert kernel_calls.call(kernel, np.zeros(3, np.uint8), instead=lambda: "by numpy") == 1
