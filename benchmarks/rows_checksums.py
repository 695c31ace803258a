"""Rows of checksums: what writing and reading take with them, against the same without."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import dask
import dask.array as da
import numpy as np

from benchmarks.contest import Bench, Contest, Row, Side
from benchmarks.data import VOXEL_SIZE
from benchmarks.rows_io import CUBE, equal
from wkdask import Dataset, MagView

FORMS = {"raw": ("wkw", False), "lz4": ("wkw", "lz4"), "zarr3": ("zarr3", "zstd")}
BOXES = 200
BOX = 64


def rows() -> Iterator[Row]:
    """Yield the rows."""
    kinds = {
        "write": ("write over a mag, not flushed, with checksums", write),
        "read": ("read all, verified", read),
        "boxes": (f"read random boxes of {BOX}³, verified", boxes),
    }
    for form, (name, (work, make)) in itertools.product(FORMS, kinds.items()):
        yield Row(f"checksums-{name}-{form}", f"{work}: images, {form}", None, partial(make, form))


class SummedMag:
    """A mag that is made anew, with or without checksums."""

    def __init__(self, bench: Bench, form: str, name: str, checksums: bool) -> None:
        data_format, compression = FORMS[form]
        self._setting = {"wkdask.checksums": checksums}
        layer = Dataset.create(bench.folder / name, VOXEL_SIZE).add_layer(
            "images", "color", data_format=data_format
        )
        self.mag: MagView = layer.add_mag(1, chunk_shape=32, shard_shape=CUBE[1], compression=compression)

    def write(self, lazy: da.Array) -> None:
        """Write all, not flushed."""
        with dask.config.set(self._setting):
            self.mag.write(lazy, offset=(0, 0, 0), durable=False, progress=False)


def _pair(bench: Bench, form: str) -> tuple[Any, da.Array, SummedMag, SummedMag]:
    """Return the voxels, as blocks too, and a mag with checksums and one without, both written."""
    volume = bench.volumes["images"]
    lazy = da.from_array(volume.T, chunks=CUBE[::-1], name=False).T
    summed, bare = SummedMag(bench, form, "summed", True), SummedMag(bench, form, "bare", False)
    summed.write(lazy)
    bare.write(lazy)
    return volume, lazy, summed, bare


def write(form: str, bench: Bench) -> Contest:
    """Write over what is there."""
    volume, lazy, summed, bare = _pair(bench, form)

    def check() -> str:
        equal(summed.mag.read(), volume)
        return "read back: the volume"

    sides = [Side("with", lambda: summed.write(lazy)), Side("without", lambda: bare.write(lazy))]
    return Contest(volume.nbytes, sides, check)


def read(form: str, bench: Bench) -> Contest:
    """Read all into one array."""
    volume, _, summed, _ = _pair(bench, form)

    def check() -> str:
        equal(verified(summed.mag.read), volume)
        return "the array is the volume"

    sides = [Side("verified", lambda: verified(summed.mag.read)), Side("not", summed.mag.read)]
    return Contest(volume.nbytes, sides, check)


def boxes(form: str, bench: Bench) -> Contest:
    """Read boxes at random places."""
    volume, _, summed, _ = _pair(bench, form)
    rng = np.random.default_rng(0)
    places = [tuple(int(rng.integers(0, n - BOX)) for n in volume.shape[1:]) for _ in range(BOXES)]
    size = (BOX, BOX, BOX)

    def all_boxes() -> None:
        for place in places:
            summed.mag.read(place, size)

    def check() -> str:
        for x, y, z in places[:20]:
            expected = volume[:, x : x + BOX, y : y + BOX, z : z + BOX]
            equal(verified(partial(summed.mag.read, (x, y, z), size)), expected)
        return "the boxes are those of the volume"

    sides = [Side("verified", lambda: verified(all_boxes)), Side("not", all_boxes)]
    return Contest(BOXES * BOX**3 * volume.itemsize, sides, check)


def verified(call: Any) -> Any:
    """Call with reads compared with checksums."""
    with dask.config.set({"wkdask.verify-reads": True}):
        return call()
