"""How an image stack is cut: integers in, integers out, refusals before anything is written.

::

    sections  |................................|
    chunks    |..|..|..|..|..|..|..|..|..|..|..|     a part: one task decodes it, batch by batch
    slabs     |.......|...........|...........|      whole layers of cubes: filled, then published

All are cut on the absolute grid, so that a chunk has one part, and a cube one slab.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from wkdask.errors import PlanError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.boxes import COORDINATE_LIMIT
from wkdask.geometry.grid import CubeGrid
from wkdask.geometry.voxel_size import format_bytes
from wkdask.jobs.plan import WritePlan, plan_write
from wkdask.storage.protocol import ArraySpec
from wkdask.storage.publish.assemble import publication_nbytes

__all__ = ["ConversionPlan", "plan_conversion"]

_SLAB_NBYTES = 64 << 30
"""Many workers want slabs of several layers of cubes; so many bytes of private cubes are enough."""


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """How a stack is cut: pure numbers, on the absolute grid."""

    write: WritePlan
    """Box, cubes, and units: groups of whole cubes that one task publishes."""
    slab_depth: int
    """Sections of a slab; a multiple of a unit's depth."""
    part_depth: int
    """Sections of a part: the side of a chunk."""
    batch_depth: int
    """Sections that a task decodes at once; below `part_depth` where more would not fit in memory."""

    @property
    def slabs(self) -> list[BoundingBox]:
        """The boxes of the slabs, from the first section on."""
        return _cut(self.write.box, self.slab_depth)

    @property
    def private_nbytes(self) -> int:
        """Bytes of the private cubes that exist at once: those of two slabs."""
        return min(2 * self.slab_depth, self.write.box.size.z) * self.write.nbytes // self.write.box.size.z

    def parts(self, slab: BoundingBox) -> list[BoundingBox]:
        """Return the boxes of a slab's parts: no two of them touch the same chunk."""
        return _cut(slab, self.part_depth)

    def batches(self, part: BoundingBox) -> Iterator[BoundingBox]:
        """Yield what one task decodes of a part, one after the other."""
        for z in range(part.topleft.z, part.bottomright.z, self.batch_depth):
            depth = min(self.batch_depth, part.bottomright.z - z)
            yield BoundingBox(part.topleft.with_z(z), part.size.with_z(depth))

    @property
    def part_grid(self) -> CubeGrid:
        """The grid that cuts a slab into parts."""
        return _plane(self.part_depth)

    def units(self, slab: BoundingBox) -> list[BoundingBox]:
        """Return the boxes that are published by one task each."""
        return [box for _, box in self.write.unit.pieces(slab)]


def _cut(box: BoundingBox, depth: int) -> list[BoundingBox]:
    """Cut a box at every multiple of `depth` along z."""
    return [piece for _, piece in _plane(depth).pieces(box)]


def _plane(depth: int) -> CubeGrid:
    """Return the grid that cuts along z only."""
    return CubeGrid(Vec3Int(COORDINATE_LIMIT, COORDINATE_LIMIT, depth))


def plan_conversion(
    spec: ArraySpec,
    box: BoundingBox,
    *,
    threads: int = 1,
    memory: int | None = None,
    unit: Vec3Int | None = None,
    slab_depth: int | None = None,
    image_nbytes: int | None = None,
) -> ConversionPlan:
    """Plan the conversion of a stack.

    Parameters
    ----------
    spec
        Type and cut of the target.
    box
        Where the stack lies: absolute, in voxels of mag 1.
    threads
        Tasks that run at once.
    memory
        Bytes that one task may use; None where unknown.
    unit, slab_depth
        How the job was cut that is resumed.
    image_nbytes
        Bytes of a decoded image, where it is not a section of the box.

    Raises
    ------
    PlanError
        If one section, or the cube that is to be compressed, does not fit into `memory`.
    """
    section = box.size.x * box.size.y * spec.bytes_per_voxel
    cube_extent = spec.shard_shape.pairmin(box.size)
    # The sections of a batch, the part of them that goes into one cube, an image and its file.
    per_section = section + cube_extent.x * cube_extent.y * spec.bytes_per_voxel
    decoding = 2 * (section if image_nbytes is None else max(section, image_nbytes))
    part_depth = spec.chunk_shape.z
    batch_depth = min(part_depth, box.size.z)
    if memory is not None:
        batch_depth = min(batch_depth, (memory - decoding) // per_section)
        if batch_depth < 1:
            raise PlanError(
                f"to decode one section of {box.size.x} x {box.size.y} voxels a task needs about "
                f"{format_bytes(decoding + per_section)}, but only {format_bytes(memory)} are there for each "
                f"task; use fewer threads per worker, or workers with more memory"
            )
    # A plain cube is published as it lies there.
    publishing = 0 if spec.compression is None else publication_nbytes(spec)
    if memory is not None and publishing > memory:
        raise PlanError(
            f"to publish a cube of {spec.shard_shape} voxels a task needs about {format_bytes(publishing)}, but "
            f"only {format_bytes(memory)} are there for each task; use a smaller chunk_shape, or fewer threads per "
            f"worker"
        )
    needed = max(decoding + batch_depth * per_section, publishing)
    write = plan_write(spec, box, threads=threads, task_memory=needed, unit=unit)
    depth = write.unit.shape.z
    # A part for every thread, if that is not too much at once.
    layers = min(math.ceil(threads * part_depth / depth), _SLAB_NBYTES // (section * depth))
    return ConversionPlan(write, slab_depth or depth * max(1, layers), part_depth, batch_depth)
