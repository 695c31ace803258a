"""Whether two datasets hold the same, however they are stored; and if not, what differs first.

::

    first, second    voxel size, view configuration
      layer          category, type, box, mags, ids, ...
        mag          cube by cube of the first dataset, x fastest
          cube       voxel by voxel, channel fastest, then x

Tasks compare rows of small cubes, or slabs of large ones. They end in any order, but are heard in this one: what is
found first does not depend on threads, memory, or the cut of the second dataset.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wkdask.dataset.layers import DatasetLayers
from wkdask.errors import LayerNotFoundError
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.geometry.grid import CubeGrid
from wkdask.jobs.driver import open_sources
from wkdask.jobs.engines.choice import Engine, pick_engine
from wkdask.jobs.events import Listener
from wkdask.jobs.job import WriteOptions
from wkdask.jobs.plan import WritePlan, plan_again
from wkdask.jobs.tasks import UnitReport, ended
from wkdask.jobs.unwritten import stream_unwritten
from wkdask.jobs.windows import listed_windows, task_name
from wkdask.layer import Layer
from wkdask.paths import joined
from wkdask.progress.combined import Counts, Whole
from wkdask.storage.protocol import ArraySpec, StoredMag, Voxels

__all__ = ["Difference", "first_difference"]

_UNIT_NBYTES = 32 << 20
"""Bytes of each dataset that a task reads, if they can be cut so; it holds two of them."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing in which two datasets differ; shown by printing it."""

    what: str
    """``"voxel"``, or the property."""
    first: Any
    """What the first dataset has."""
    second: Any
    """What the second one has."""
    layer: str | None = None
    """The layer; None where it is the dataset's."""
    mag: Mag | None = None
    """The mag of a voxel."""
    voxel: tuple[int, int, int, int] | None = None
    """(c, x, y, z) of a voxel: absolute, in voxels of its mag."""

    def __str__(self) -> str:
        where = "" if self.layer is None else f"layer {self.layer!r}"
        if self.voxel is not None and self.mag is not None:
            place = Vec3Int(self.voxel[1:])
            in_mag1 = "" if self.mag == Mag(1) else f", {tuple(place * self.mag.to_vec3_int())} in mag 1"
            where += f" mag {self.mag}, voxel (c, x, y, z) = {self.voxel}{in_mag1}"
        else:
            where += f"{', ' if where else ''}{self.what}"
        return f"{where}: {self.first} against {self.second}"


def first_difference(
    first: DatasetLayers, second: DatasetLayers, layers: Sequence[str] | None, options: WriteOptions
) -> Difference | None:
    """Return what differs first between two datasets; None if nothing does.

    Parameters
    ----------
    first, second
        The datasets, of any formats and cuts.
    layers
        The names of the layers that are compared; None for all, and the dataset's own properties.
    options
        How it runs.

    Raises
    ------
    LayerNotFoundError
        If neither dataset has a layer of a name.
    TaskFailedError
        If voxels cannot be read.
    """
    mine, theirs = first.layers, second.layers
    names = list(dict.fromkeys(layers if layers is not None else [*mine, *theirs]))
    for name in names:
        if name not in mine and name not in theirs:
            raise LayerNotFoundError(
                f"neither dataset has a layer {name!r}; they have {', '.join(map(repr, {**mine, **theirs}))}"
            )
    if layers is None:
        for what, a, b in _dataset_properties(first, second):
            if a != b:
                return Difference(what, a, b)
    engine = pick_engine(options.client)
    pairs = {name: (mine[name], theirs[name]) for name in names if name in mine and name in theirs}
    whole = _whole(first, second, pairs, engine, options.listeners)
    try:
        for name in names:
            if name not in pairs:
                there = ("there", "missing")
                return Difference("layer", *(there if name in mine else there[::-1]), layer=name)
            found = _layer_difference(*pairs[name], options, whole)
            if found is not None:
                return found
    finally:
        whole.end()
    return None


def _dataset_properties(first: DatasetLayers, second: DatasetLayers) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, value, value) of what two datasets say of themselves, but for their names."""
    a, b = first._file.record, second._file.record
    yield "voxel size", a.voxel_size.to_nanometer(), b.voxel_size.to_nanometer()
    yield "view configuration", a.default_view_configuration or {}, b.default_view_configuration or {}


def _layer_properties(layer: Layer) -> dict[str, Any]:
    """Return what a layer says of itself, but for how it is stored."""
    record = layer.record
    return {
        "category": record.category,
        "type": str(layer.dtype_per_channel),
        "channels": layer.num_channels,
        "bounding box": record.bounding_box,
        "mags": ", ".join(map(str, sorted(each.mag for each in record.mags))),
        "largest segment id": record.largest_segment_id,
        "mappings": list(record.mappings),
        "view configuration": dict(record.default_view_configuration or {}),
        "transformations": list(record.raw.get("coordinateTransformations") or ()),
        "attachments": _plain_paths(layer, record.raw.get("attachments") or {}),
    }


def _plain_paths(layer: Layer, value: Any) -> Any:
    """Return attachments with the paths in the dataset's folder relative to it, in one spelling."""
    if isinstance(value, list):
        return [_plain_paths(layer, each) for each in value]
    if not isinstance(value, dict):
        return value
    plain = {key: _plain_paths(layer, each) for key, each in value.items()}
    if isinstance(path := plain.get("path"), str) and "://" not in path:
        path = joined(layer.dataset_path, path)
        inside = path.startswith(layer.dataset_path + os.sep)
        plain["path"] = path[len(layer.dataset_path) + 1 :] if inside else path
    return plain


def _layer_difference(first: Layer, second: Layer, options: WriteOptions, whole: Whole) -> Difference | None:
    """Return what differs first between two layers."""
    theirs = _layer_properties(second)
    for what, value in _layer_properties(first).items():
        if value != theirs[what]:
            return Difference(what, value, theirs[what], layer=first.name)
    for mag in sorted(each.mag for each in first.record.mags):
        a, b = (layer.get_mag(mag).place.store for layer in (first, second))
        if (box := _box_of(first, mag)).is_empty():
            continue
        engine = pick_engine(options.client)
        compared = _Compared(a, b, plan_again(a.spec, box, _unit_of(a.spec, box, engine.threads)))
        found = compared.run(f"layer {first.name!r} mag {mag}", engine, whole)
        if found is not None:
            voxel, value, other = found
            return Difference("voxel", value, other, first.name, mag, voxel)
    return None


def _box_of(layer: Layer, mag: Mag) -> BoundingBox:
    """Return what is compared of a mag, in its voxels."""
    box = layer.record.bounding_box
    return box if box.is_empty() else box.aligned_outwards(mag.to_vec3_int()).in_mag(mag)


def _whole(
    first: DatasetLayers,
    second: DatasetLayers,
    pairs: dict[str, tuple[Layer, Layer]],
    engine: Engine,
    listeners: Sequence[Listener],
) -> Whole:
    """Return a listener that reports the comparison of all mags as one job; what cannot be read shows up later."""
    left: dict[str, Counts] = {}
    for name, (layer, _) in pairs.items() if listeners else ():
        for record in layer.record.mags:
            with contextlib.suppress(Exception):
                spec, box = layer.get_mag(record.mag).spec, _box_of(layer, record.mag)
                if not box.is_empty():
                    plan = plan_again(spec, box, _unit_of(spec, box, engine.threads))
                    left[f"layer {name!r} mag {record.mag}"] = (len(plan.units), plan.num_cubes, plan.nbytes)
    label = f"{os.path.basename(first.path)!r} and {os.path.basename(second.path)!r}"
    return Whole(label, "comparing", left, (0, 0, 0), listeners)


def _unit_of(spec: ArraySpec, box: BoundingBox, threads: int) -> Vec3Int:
    """Return what a task compares: small cubes side by side along x, or a slab of a large one along z."""
    share = box.volume() * spec.bytes_per_voxel // (4 * threads)
    limit = max(min(_UNIT_NBYTES, share), 1)
    x, y, z = spec.shard_shape
    if spec.cube_nbytes <= limit:
        in_row = len(spec.grid.cubes(box.with_size(box.size.with_y(1).with_z(1))))
        return Vec3Int(x * max(1, min(limit // spec.cube_nbytes, in_row)), y, z)
    chunk, layers = spec.chunk_shape.z, z // spec.chunk_shape.z
    fits = [
        n
        for n in range(1, layers + 1)
        if layers % n == 0 and x * y * chunk * n * spec.bytes_per_voxel <= limit
    ]
    return Vec3Int(x, y, chunk * max(fits, default=1))


@dataclass(frozen=True, slots=True)
class _Compared:
    """Two mags of one box, type and magnification."""

    first: StoredMag
    second: StoredMag
    plan: WritePlan
    """The box, and what a task compares."""

    def boxes(self) -> Iterator[BoundingBox]:
        """Yield what the tasks compare: cube by cube of the first mag, x fastest; in a cube slab by slab."""
        plan = self.plan
        outer = CubeGrid(plan.cube.shape.pairmax(plan.unit.shape))
        for _, cube in outer.pieces(plan.box):
            for _, part in plan.unit.pieces(cube):
                yield part

    def _ends_cubes(self, box: BoundingBox) -> bool:
        """Return whether a part is the last one of its cubes."""
        z = box.bottomright.z
        return z % self.plan.cube.shape.z == 0 or z == self.plan.box.bottomright.z

    def run(self, label: str, engine: Engine, listener: Listener) -> _Found | None:
        """Return the first voxel that differs."""
        windows = listed_windows(
            self.boxes(),
            "",
            task_name("compare", self.first.path),
            lambda box: (compare_unit, self.first, self.second, box, self._ends_cubes(box)),
        )
        open_sources([self.first, self.second], engine)
        outcomes = stream_unwritten(label, self.plan, windows, engine, [listener])
        ended: dict[BoundingBox, _Found | None] = {}
        with contextlib.closing(outcomes):
            for box in self.boxes():
                while box not in ended:
                    report = next(outcomes).report
                    if report is not None:
                        ended[report.unit] = report.value
                if (found := ended.pop(box)) is not None:
                    return found
            for _ in outcomes:  # lets the job come to its end
                pass
        return None


_Found = tuple[tuple[int, int, int, int], Any, Any]
"""A voxel (c, x, y, z), and what the two mags have there."""


def compare_unit(first: StoredMag, second: StoredMag, box: BoundingBox, ends_cubes: bool) -> UnitReport:
    """Compare what a task compares, cube by cube of the first mag."""
    start, spec = time.perf_counter(), first.spec
    pieces = list(spec.grid.pieces(box))
    found = next(filter(None, (_first_in(first, second, piece) for _, piece in pieces)), None)
    return ended(
        box,
        start,
        cubes=len(pieces) if ends_cubes else 0,
        nbytes=box.volume() * spec.bytes_per_voxel,
        value=found,
    )


def _first_in(first: StoredMag, second: StoredMag, box: BoundingBox) -> _Found | None:
    """Return the first voxel of a box, z slowest, that differs; never much more than a unit is in memory."""
    best: _Found | None = None
    for _, tile in _tiles(first.spec, box):
        if best is not None and best[0][3] < tile.topleft.z:
            break  # all that is to come lies behind it
        if first.is_empty(tile) and second.is_empty(tile):
            continue
        place = first_mismatch(first.read(tile), second.read(tile))
        if place is None:
            continue
        (c, *inner), a, b = place
        x, y, z = tile.topleft + inner
        if best is None or (z, y, x, c) < best[0][::-1]:
            best = (c, x, y, z), a, b
    return best


def _tiles(spec: ArraySpec, box: BoundingBox) -> Iterator[tuple[Vec3Int, BoundingBox]]:
    """Yield the parts of a box that are read at a time: whole chunks, z slowest."""
    shape = list(spec.shard_shape)
    for axis in (2, 1, 0):
        chunk = spec.chunk_shape[axis]
        while (
            shape[axis] > chunk
            and Vec3Int(shape).pairmin(box.size).prod() * spec.bytes_per_voxel > _UNIT_NBYTES
        ):
            count = shape[axis] // chunk
            shape[axis] = chunk * (count // 2 if count % 2 == 0 else 1)
    return CubeGrid(Vec3Int(shape)).pieces(box)


def first_mismatch(first: Voxels, second: Voxels) -> _Found | None:
    """Return the first voxel, c fastest, then x, in which two arrays differ, and both values; None if none does.

    NaN is equal to NaN.

    Parameters
    ----------
    first, second : array (c, x, y, z)
        Of one type and shape, in Fortran order.
    """
    a, b = first.reshape(-1, order="F"), second.reshape(-1, order="F")
    whole = a.nbytes // 8 * 8
    bytes_a, bytes_b = a.view(np.uint8), b.view(np.uint8)
    # By words of 8 bytes, which is four times as fast as by voxels of one.
    if np.array_equal(bytes_a[:whole].view(np.uint64), bytes_b[:whole].view(np.uint64)) and np.array_equal(
        bytes_a[whole:], bytes_b[whole:]
    ):
        return None
    differs = a != b
    if a.dtype.kind == "f":
        differs &= ~(np.isnan(a) & np.isnan(b))
    if not differs.any():
        return None
    place = int(differs.argmax())
    c, x, y, z = (int(n) for n in np.unravel_index(place, first.shape, order="F"))
    return (c, x, y, z), a[place].item(), b[place].item()
