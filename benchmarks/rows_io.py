"""Rows of reading and writing: against the wkw library in a bare loop."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray

from benchmarks.bare import BareMag, read_all, read_and_drop, read_into_one
from benchmarks.contest import Bench, Contest, Row, Side
from benchmarks.data import KINDS, SIDE, VOXEL_SIZE
from wkdask import Dataset, MagView

CUBE = (1, SIDE, SIDE, SIDE)
NAMES = {None: "raw", "lz4": "lz4", "lz4hc": "lz4hc"}


def rows() -> Iterator[Row]:
    for kind, compression in itertools.product(KINDS, (None, "lz4")):
        name, text = f"{kind}-{NAMES[compression]}", f"{kind}, {NAMES[compression]}"
        yield Row(
            f"read-blocks-{name}",
            f"read a mag, blocks consumed in place: {text}",
            0.9,
            partial(read_blocks, kind, compression),
        )
        yield Row(
            f"read-array-{name}",
            f"`mag.read()` into one array: {text}",
            0.9,
            partial(read_array, kind, compression),
        )
    for kind, compression in [*itertools.product(KINDS, (None, "lz4")), ("images", "lz4hc")]:
        text = f"{kind}, {NAMES[compression]}"
        yield Row(
            f"write-{kind}-{NAMES[compression]}",
            f"write a Fortran-ordered dask array, published: {text}",
            0.85,
            partial(write, kind, compression, "F"),
        )
    for compression in (None, "lz4"):
        yield Row(
            f"write-c-order-{NAMES[compression]}",
            f"write a C-ordered dask array: images, {NAMES[compression]}",
            1.6,
            partial(write, "images", compression, "C"),
        )


def open_mag(bench: Bench, kind: str, compression: str | None) -> MagView:
    return Dataset(bench.volumes.dataset(kind, compression)).get_layer(kind).get_mag(1)


def consume(array: da.Array) -> None:
    """Compute every block and drop it."""
    sizes = array.map_blocks(
        lambda block: np.full((1, 1, 1, 1), block.size), chunks=(1, 1, 1, 1), dtype=np.int64
    )
    dask.compute(sizes)


def read_blocks(kind: str, compression: str | None, bench: Bench) -> Contest:
    mag, volume = open_mag(bench, kind, compression), bench.volumes[kind]

    def check() -> str:
        blocks = mag.to_dask(chunks="cube").to_delayed().ravel()
        for number, block in enumerate(blocks):
            index = np.unravel_index(number, mag.to_dask(chunks="cube").numblocks)
            place = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, CUBE, strict=True))
            equal(block.compute(scheduler="sync"), volume[place])
        return "every block is that of the volume"

    return Contest(
        volume.nbytes,
        [
            Side("wkdask", lambda: consume(mag.to_dask(chunks="cube"))),
            Side("bare wkw loop", lambda: read_and_drop(mag.place.store.path, volume.shape[1:])),
        ],
        check,
        rounds=9,
    )


def read_array(kind: str, compression: str | None, bench: Bench) -> Contest:
    mag, volume = open_mag(bench, kind, compression), bench.volumes[kind]

    def check() -> str:
        equal(mag.read(), volume)
        return "the array is the volume"

    return Contest(
        volume.nbytes,
        [
            Side("wkdask", mag.read),
            Side(
                "bare wkw loop, nothing kept", lambda: read_and_drop(mag.place.store.path, volume.shape[1:])
            ),
            Side(
                "bare wkw loop into one array",
                lambda: read_into_one(mag.place.store.path, volume.shape[1:]),
                is_peer=True,
            ),
        ],
        check,
        rounds=7,
    )


def write(kind: str, compression: str | None, order: str, bench: Bench) -> Contest:
    volume = bench.volumes[kind]
    # dask copies what it is given in C order: the transpose keeps Fortran order.
    lazy = (
        da.from_array(volume.T, chunks=CUBE[::-1], name=False).T
        if order == "F"
        else da.from_array(volume, chunks=CUBE, name=False)
    )
    given: Any = volume if order == "F" else np.ascontiguousarray(volume)
    bare = BareMag(bench.folder / "bare", str(volume.dtype), compression)
    ours = FreshMag(bench, kind, compression)

    def check() -> str:
        equal(read_all(ours.mag.place.store.path, volume.shape[1:]), volume)
        equal(read_all(bare.path, volume.shape[1:]), volume)
        return "both were read back by the library: the volume"

    return Contest(
        volume.nbytes,
        [
            Side("wkdask, not flushed", lambda: ours.write(lazy, durable=False), ours.renew),
            Side("bare wkw loop", lambda: bare.write(given), bare.clear),
            Side("wkdask, flushed to the disk", lambda: ours.write(lazy), ours.renew),
        ],
        check,
        rounds=3 if compression == "lz4hc" else 5,
    )


class FreshMag:
    """A mag of ours that is made anew for every round, off the clock."""

    def __init__(self, bench: Bench, kind: str, compression: str | None) -> None:
        self.dataset = Dataset.create(bench.folder / "ours", VOXEL_SIZE)
        self.kind, self.compression = kind, compression
        self.mag: MagView

    def renew(self) -> None:
        if self.kind in self.dataset.layers:
            self.dataset.delete_layer(self.kind)
        dtype, category = KINDS[self.kind]
        layer = self.dataset.add_layer(self.kind, category, dtype_per_channel=dtype)
        self.mag = layer.add_mag(1, chunk_shape=32, shard_shape=SIDE, compression=self.compression)

    def write(self, array: Any, durable: bool = True) -> None:
        self.mag.write(array, offset=(0, 0, 0), durable=durable, progress=False)


def equal(found: NDArray[Any], expected: NDArray[Any]) -> None:
    """Refuse voxels that differ, slab by slab: neither needs a copy."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise AssertionError(f"{found.shape} of {found.dtype}, not {expected.shape} of {expected.dtype}")
    for z in range(0, found.shape[-1], 64):
        here = (..., slice(z, z + 64))
        differ = np.count_nonzero(found[here] != expected[here])
        if differ:
            raise AssertionError(f"{differ} voxels differ in the sections from {z} on")
