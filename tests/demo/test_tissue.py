"""Synthetic tissue: the same everywhere, in pieces that fit, and like tissue."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from wkdask.demo.tissue import make_tissue
from wkdask.errors import InvalidValueError

pytestmark = pytest.mark.slow  # compiling it takes longer than most modules of tests

SIZE = (256, 224, 48)


@pytest.fixture(scope="module")
def tissue() -> tuple[np.ndarray, np.ndarray]:
    return make_tissue(SIZE, seed=3)


def test_arrays_are_fortran_ordered_and_typed(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    raw, labels = tissue
    assert raw.shape == labels.shape == SIZE
    assert raw.dtype == np.uint8
    assert labels.dtype == np.uint32
    assert raw.flags.f_contiguous
    assert labels.flags.f_contiguous
    assert raw.min() >= 1


def test_same_seed_same_tissue_other_seed_other_tissue(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    raw, labels = make_tissue(SIZE, seed=3)
    np.testing.assert_array_equal(raw, tissue[0])
    np.testing.assert_array_equal(labels, tissue[1])
    for other in (0, 4, 2**64 - 1):
        raw, labels = make_tissue((64, 64, 8), seed=other)
        assert (raw != tissue[0][:64, :64, :8]).mean() > 0.9
        assert not set(np.unique(labels)) & set(np.unique(tissue[1])) - {0}


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        ((0, 0, 0), (1, 1, 1)),
        ((37, 101, 5), (64, 50, 7)),
        ((0, 0, 47), (256, 224, 1)),
        ((255, 0, 0), (1, 224, 48)),
        ((100, 223, 0), (129, 1, 48)),
    ],
)
def test_a_part_equals_that_part_of_the_whole(
    tissue: tuple[np.ndarray, np.ndarray], offset: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    part = make_tissue(size, seed=3, offset=offset)
    box = tuple(slice(o, o + s) for o, s in zip(offset, size, strict=True))
    for got, whole in zip(part, tissue, strict=True):
        np.testing.assert_array_equal(got, whole[box])


@pytest.mark.parametrize(
    ("voxel_size", "size", "start", "cut"),
    [
        ((8.0, 8.0, 30.0), (700, 700, 4), (-350, -350, -2), 345),  # wider than a tile, across the origin
        ((8, 8, 30), (160, 160, 4), (2**31 - 200, -(2**31), 10**6), 77),
        ((4.0, 4.0, 40.0), (192, 160, 6), (1000, -5000, 70), 64),
        ((11.24, 11.24, 25.0), (192, 160, 6), (-96, 40, -3), 95),
        ((32.0, 28.0, 30.0), (200, 200, 4), (7, 3, -100), 111),
        ((100.0, 120.0, 500.0), (60, 60, 2), (7, 3, -1), 31),
    ],
)
def test_tiles_fit_at_any_voxel_size_and_place(
    voxel_size: tuple[float, float, float], size: tuple[int, int, int], start: tuple[int, int, int], cut: int
) -> None:
    whole = make_tissue(size, voxel_size=voxel_size, offset=start, seed=9)
    nx, ny, nz = size
    for x, y, sx, sy in ((0, 0, cut, cut), (cut, 0, nx - cut, cut), (cut, cut, nx - cut, ny - cut)):
        part = make_tissue(
            (sx, sy, nz), voxel_size=voxel_size, offset=(start[0] + x, start[1] + y, start[2]), seed=9
        )
        for got, expected in zip(part, whole, strict=True):
            np.testing.assert_array_equal(got, expected[x : x + sx, y : y + sy])


def test_threads_fill_tiles_side_by_side(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    starts = [(x, y, 0) for x in (0, 128) for y in (0, 112)]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda o: make_tissue((128, 112, 48), seed=3, offset=o), starts))
    for (x, y, _), part in zip(starts, parts, strict=True):
        for got, whole in zip(part, tissue, strict=True):
            np.testing.assert_array_equal(got, whole[x : x + 128, y : y + 112])


def test_it_looks_like_tissue(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    raw, labels = tissue
    membrane = labels == 0
    assert 0.05 < membrane.mean() < 0.2
    assert raw[membrane].mean() < 90 < 150 < raw[~membrane].mean() < 200
    # Neighbouring sections show the same cells, and not the same noise.
    same = (labels[..., 1:] == labels[..., :-1])[~membrane[..., 1:] & ~membrane[..., :-1]]
    assert 0.9 < same.mean() < 1
    assert (raw[..., 1:] == raw[..., :-1]).mean() < 0.1
    profiles = np.bincount(np.unique(labels[..., 20], return_inverse=True)[1].ravel())[1:] * 64e-6  # µm²
    assert len(profiles) > 20
    assert np.median(profiles) < 0.15 < 0.5 < profiles.max()


def test_membranes_part_the_cells(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    labels = tissue[1]
    for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        touching = (a != b) & (a > 0) & (b > 0)
        assert touching.mean() < 2e-4


@pytest.mark.slow
def test_ids_are_spread_and_cells_are_in_one_piece() -> None:
    _, labels = make_tissue((320, 320, 96), seed=3)
    ids, compact = np.unique(labels, return_inverse=True)
    compact = compact.reshape(labels.shape)
    assert ids[0] == 0
    assert 10**8 < ids[-1] < 2**31
    inner = np.zeros(labels.shape, bool)
    inner[24:-24, 24:-24] = True  # a cell that the box cuts may be in the box twice
    shares = []
    for number, where in enumerate(ndimage.find_objects(compact), start=1):
        mask = compact[where] == number
        if mask.sum() < 2000 or not inner[where].all():
            continue
        pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
        shares.append(np.bincount(pieces.ravel())[1:].max() / mask.sum())
    assert len(shares) > 10
    assert np.median(shares) > 0.99
    assert np.mean(np.array(shares) > 0.8) > 0.9


def test_numba_is_imported_on_the_first_call_only() -> None:
    code = "import sys, wkdask.demo.tissue; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": (0, 8, 8)},
        {"size": (8, 8)},
        {"size": (8.5, 8, 8)},
        {"size": 8},
        {"offset": (0, 0, 2**31 + 1)},
        {"offset": (0.5, 0, 0)},
        {"voxel_size": (8, 8, 0)},
        {"voxel_size": (8, -8, 30)},
        {"voxel_size": (float("nan"), 8, 30)},
        {"voxel_size": (8, 8, float("inf"))},
        {"voxel_size": (400, 8, 30)},
        {"voxel_size": "abc"},
        {"seed": -1},
        {"seed": 2**64},
        {"seed": 1.5},
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match=next(iter(arguments))):
        make_tissue(**{"size": (8, 8, 8), **arguments})
