"""What a format is: how a box is cut into the units of tasks, what a task makes, how the file comes together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from wkdask.errors import PlanError
from wkdask.export.extract import Extract
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.boxes import COORDINATE_LIMIT
from wkdask.geometry.grid import CubeGrid
from wkdask.geometry.voxel_size import format_bytes

__all__ = ["Cut", "Made", "Writer", "slabs"]

_SLAB_NBYTES = 64 << 20
"""Bytes of the voxels of a slab, if its layers of chunks are smaller."""
_SECTIONS_BESIDE = 4
"""What a task holds beside its slab, in sections: one as an image, encoded, and in the buffers of a codec."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How an export is cut into the units of tasks."""

    grid: CubeGrid
    """Cuts the box; absolute, or from the corner of the box on."""
    box: BoundingBox
    """The box, as the grid counts."""
    origin: Vec3Int
    """What is added to a unit to have it in voxels of the mag."""
    task_nbytes: int
    """Bytes that a task holds."""
    notes: tuple[str, ...] = ()
    """What it costs that one may not expect."""

    def units(self) -> Iterator[BoundingBox]:
        """Yield all units in their order, x fastest: absolute, in voxels of the mag."""
        return (piece.offset(self.origin) for _, piece in self.grid.pieces(self.box))

    def number(self, unit: BoundingBox) -> int:
        """Return which of the units one is."""
        units = self.grid.cubes(self.box)
        x, y, z = unit.topleft - self.origin
        index = Vec3Int(x, y, z) // self.grid.shape - units.start
        return int(index.x + units.shape.x * (index.y + units.shape.y * index.z))

    def __len__(self) -> int:
        return len(self.grid.cubes(self.box))


@dataclass(frozen=True, slots=True)
class Made:
    """What a format has made of an export."""

    files: int
    """Files."""
    nbytes: int
    """Bytes of them."""


class Writer(Protocol):
    """A format, and what is written in it: plain data, which goes to the workers."""

    @property
    def extract(self) -> Extract:
        """What is exported."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """What its bytes depend on, beside what is exported."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the voxels the format does not say, or says in a way of its own."""

    @property
    def target(self) -> str:
        """The file or the folder that is made; absolute."""

    @property
    def is_folder(self) -> bool:
        """Whether that is a folder of files."""

    @property
    def is_compressed(self) -> bool:
        """Whether it may take less room than the voxels."""

    @property
    def copies(self) -> int:
        """How often the voxels are on the disk at once before the file is complete."""

    def names(self) -> Iterator[str]:
        """Yield the paths of all files that will be made; absolute."""

    def cut(self, threads: int, memory: int | None, unit: Vec3Int | None) -> Cut:
        """Return how it is cut; `unit` is the shape of the units of an export that is resumed.

        Raises
        ------
        PlanError
            If a task would need more memory than there is.
        """

    def begin(self, folder: str) -> None:
        """Make ready what tasks need in the private folder; it may be there already (driver only)."""

    def write(self, folder: str, number: int, unit: BoundingBox) -> int:
        """Make the part of a unit, whole or not at all; return the bytes of its files (on a worker)."""

    def finish(self, folder: str, cut: Cut) -> Made:
        """Put the parts together into what is wanted (driver only)."""


def slabs(extract: Extract, threads: int, memory: int | None, unit: Vec3Int | None) -> Cut:
    """Cut a box into slabs of whole sections, along the chunks of the mag: so that each is decoded once.

    ::

        chunks    |....|....|....|....|....|....|
        slabs       |..|.........|.........|..|        one task each
        box         [.........................)

    Where even a layer of chunks does not fit in memory the slabs are thinner, and chunks are decoded for each.

    Parameters
    ----------
    extract
        What is exported.
    threads
        Tasks that run at once: there should be several slabs for each.
    memory
        Bytes that one task may use; None where unknown.
    unit
        The shape of a slab, where it is given.

    Raises
    ------
    PlanError
        If one section does not fit in memory.
    """
    spec, section = extract.store.spec, extract.section_nbytes
    stored = extract.box.size.x * extract.box.size.y * spec.bytes_per_voxel  # all channels are read
    beside = _SECTIONS_BESIDE * section
    chunk = spec.chunk_shape.z
    depth = chunk
    if unit is not None:
        depth = unit.z
    else:
        share = extract.box.size.z * section // (4 * threads)
        limit = max(min(_SLAB_NBYTES, share), 1)
        fits = depth if memory is None else (memory - beside) // stored
        while 2 * depth * section <= limit and 2 * depth <= max(spec.shard_shape.z, chunk):
            depth *= 2
        while depth > max(fits, 1) and memory is not None:
            depth = max(depth // 2, 1)
        if memory is not None and fits < 1:
            raise PlanError(
                f"to export one section of {extract.box.size.x} x {extract.box.size.y} voxels a task needs about "
                f"{format_bytes(stored + beside)}, but only {format_bytes(memory)} are there for each task; use "
                f"fewer threads per worker, workers with more memory, or a part of the layer (--bbox)"
            )
    times = -(-chunk // depth)
    notes: tuple[str, ...] = ()
    if times > 1 and spec.compression is not None:
        notes = (
            f"a layer of chunks, {chunk} sections, does not fit in memory: {depth} are exported at a time, and "
            f"chunks are decoded up to {times} times",
        )
    held = min(depth, extract.box.size.z) * stored + beside
    grid = CubeGrid(Vec3Int(COORDINATE_LIMIT, COORDINATE_LIMIT, depth))
    return Cut(grid, extract.box, Vec3Int.zeros(), held, notes)
