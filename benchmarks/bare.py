"""The wkw library in a loop over cubes, on as many threads as we use: the roofline."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import wkw

from benchmarks.data import SIDE, threads

BLOCK_TYPES = {None: 1, "lz4": 2, "lz4hc": 3}


class BareMag:
    """A folder of cubes that the library writes and reads itself."""

    def __init__(self, path: Path, dtype: str, compression: str | None, side: int = SIDE) -> None:
        self.path, self.side = path, side
        self.header = wkw.Header(
            np.dtype(dtype).type, block_len=32, file_len=side // 32, block_type=BLOCK_TYPES[compression]
        )

    def clear(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def write(self, data: Any) -> None:
        """Write an array, cube by cube."""
        with closing(wkw.Dataset.open(str(self.path), self.header)) as dataset:
            _in_threads(
                lambda place: dataset.write(place[0], data[place[1]]), _cubes(data.shape[1:], self.side)
            )


def read_and_drop(path: Path, shape: tuple[int, ...]) -> None:
    """Read a mag cube by cube and keep nothing."""
    with closing(wkw.Dataset.open(str(path))) as dataset:
        _in_threads(lambda place: dataset.read(place[0], (SIDE,) * 3).shape, _cubes(shape, SIDE))


def read_into_one(path: Path, shape: tuple[int, ...]) -> Any:
    """Read a mag cube by cube into one array."""
    with closing(wkw.Dataset.open(str(path))) as dataset:
        out = np.empty((1, *shape), dataset.header.voxel_type, order="F")

        def read(place: tuple[tuple[int, ...], tuple[slice, ...]]) -> None:
            out[place[1]] = dataset.read(place[0], (SIDE,) * 3)

        _in_threads(read, _cubes(shape, SIDE))
    return out


def read_all(path: Path, shape: tuple[int, ...]) -> Any:
    """Read a mag by one call of the library."""
    with closing(wkw.Dataset.open(str(path))) as dataset:
        return dataset.read((0, 0, 0), shape)


def _cubes(
    shape: tuple[int, ...], side: int
) -> Iterator[tuple[tuple[int, ...], tuple[slice, slice, slice, slice]]]:
    """Yield the corner of each cube, and where it lies in an array."""
    for x, y, z in itertools.product(*(range(0, n, side) for n in shape)):
        place = (slice(None), slice(x, x + side), slice(y, y + side), slice(z, z + side))
        yield (x, y, z), place


def _in_threads(function: Callable[[Any], object], places: Iterator[Any]) -> None:
    with ThreadPoolExecutor(threads()) as pool:
        for _ in pool.map(function, list(places)):
            pass
