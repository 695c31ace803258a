"""Bilinear and bicubic against exact fractions, and against themselves cut otherwise."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from thorough import mostly_slow

from wkdask import kernels
from wkdask.errors import AlignmentError

FACTORS = [(2, 2, 2), (2, 2, 1), (4, 2, 3), (1, 6, 2), (1, 1, 1)]


def weights(mode, factor):
    """Return {voxel of the window: weight}: the interpolant at its centre."""
    if factor % 2:
        return {factor // 2: Fraction(1)}
    middle = factor // 2
    if mode == "bilinear":
        return {middle - 1: Fraction(1, 2), middle: Fraction(1, 2)}
    # Keys 1981, a = -1/2, at distances 1/2 and 3/2
    near = Fraction(3, 2) * Fraction(1, 8) - Fraction(5, 2) * Fraction(1, 4) + 1
    far = -Fraction(1, 2) * (Fraction(27, 8) - 5 * Fraction(9, 4) + 8 * Fraction(3, 2) - 4)
    return {middle - 2: far, middle - 1: near, middle: near, middle + 1: far}


def expected(block, factors, mode):
    """Return the interpolants as an array of fractions."""
    halo = kernels.reach(mode, factors)
    sides = [(n - 2 * h) // f for n, h, f in zip(block.shape[1:], halo, factors, strict=True)]
    total = np.full((block.shape[0], *sides), Fraction(0), dtype=object)
    exact = block.astype(object)
    for places in itertools.product(*(weights(mode, f).items() for f in factors)):
        index = tuple(
            slice(h + place, h + place + (n - 1) * f + 1, f)
            for (place, _), n, f, h in zip(places, sides, factors, halo, strict=True)
        )
        weight = places[0][1] * places[1][1] * places[2][1]
        total = total + weight * exact[(slice(None), *index)]
    return total


def voxels(shape, dtype, seed=0):
    """Return random bits with many of the type's limits among them: results leave the type's range."""
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    block = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    block[rng.random(shape) < 0.3] = info.max
    block[rng.random(shape) < 0.3] = info.min
    return block


INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


def wide(factors, mode, windows=(3, 2, 2)):
    halo = kernels.reach(mode, factors)
    return [n * f + 2 * h for n, f, h in zip(windows, factors, halo, strict=True)]


@pytest.mark.parametrize("mode", kernels.INTERPOLATIONS)
@pytest.mark.parametrize("dtype", mostly_slow(INTEGERS, lambda _, dtype: dtype == "uint8"))
def test_integers_are_exact_rounded_and_clipped(dtype, mode):
    info = np.iinfo(dtype)
    for factors in FACTORS:
        block = voxels((2, *wide(factors, mode)), dtype)
        rounded = [(value + Fraction(1, 2)).__floor__() for value in expected(block, factors, mode).ravel()]
        wanted = np.array([min(max(value, info.min), info.max) for value in rounded], dtype)
        for order in "FC":
            got = kernels.downsample(np.array(block, order=order), factors, mode)
            assert got.dtype == dtype
            assert got.ravel().tolist() == wanted.tolist()


@pytest.mark.parametrize("mode", kernels.INTERPOLATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_are_the_interpolant(dtype, mode):
    for factors in FACTORS:
        block = np.random.default_rng(1).integers(-4096, 4096, (3, *wide(factors, mode))).astype(dtype)
        wanted = expected(block.astype(int), factors, mode).astype(
            dtype
        )  # a few bits: no rounding on the way
        np.testing.assert_array_equal(kernels.downsample(block, factors, mode), wanted)
    block = np.full((1, *wide((2, 2, 2), mode)), np.nan, dtype)
    assert np.isnan(kernels.downsample(block, (2, 2, 2), mode)).all()


def test_known_values():
    row = np.array([7, 10, 20, 40], np.uint8).reshape(1, 4, 1, 1)
    assert kernels.downsample(row, (2, 1, 1), "bilinear").ravel().tolist() == [9, 30]  # 8.5 goes up
    assert kernels.downsample(row, (2, 1, 1), "bicubic").ravel().tolist() == [14]  # (-7 + 90 + 180 - 40) / 16
    assert kernels.downsample(row, (4, 1, 1), "bicubic").ravel().tolist() == [14]


@pytest.mark.parametrize("mode", kernels.INTERPOLATIONS)
def test_a_part_gives_a_part_of_the_result(mode):
    block = voxels((1, *wide((2, 2, 2), mode, (9, 8, 7))), "uint16")
    whole = kernels.downsample(block, (2, 2, 2), mode)
    halo = kernels.reach(mode, (2, 2, 2))[0]
    out = np.zeros((1, 9, 8, 7), "uint16", order="F")
    for x in range(9):
        part = block[:, 2 * x : 2 * x + 2 + 2 * halo]
        kernels.downsample(part, (2, 2, 2), mode, out=out[:, x : x + 1])
    np.testing.assert_array_equal(out, whole)


def test_a_block_without_its_margin_is_refused():
    with pytest.raises(AlignmentError, match=r"with \(1, 0, 1\) voxels around .*: \(6, 4, 4\)"):
        kernels.downsample(np.zeros((1, 5, 4, 4), np.uint8), (2, 1, 2), "bicubic")
    assert kernels.reach("bicubic", (2, 1, 4)) == (1, 0, 0)
    assert kernels.reach("median", (2, 2, 2)) == (0, 0, 0)
