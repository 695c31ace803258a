"""How much room on the disk a job needs at most: numbers for the check before its first task."""

from __future__ import annotations

from wkdask.geometry import BoundingBox
from wkdask.storage.protocol import StoredMag

__all__ = ["space_needed"]


def space_needed(store: StoredMag, box: BoundingBox, *, at_once: int, staged: bool = False) -> int:
    """Return the bytes of disk space that writing a box may take beyond what is there.

    An upper bound: compressed cubes are counted uncompressed, since their voxels are not known yet, and cubes
    of zeros are counted though they are not written. Compare it with :func:`wkdask.fsio.free_bytes`.

    ::

        cubes that are not there yet       the chunks that the box touches
        cubes that are replaced            stay until the new ones are built: as many as are built at once
        in two phases, or out of core      all of them once more, until they are published

    Parameters
    ----------
    store
        The mag.
    box
        What is written: absolute, in voxels of the mag.
    at_once
        Cubes that are being built at the same time, by all tasks together.
    staged
        Whether all cubes are built in a private mag before any of them is published.
    """
    if box.is_empty():
        return 0
    spec = store.spec
    chunks = box.aligned_outwards(spec.chunk_shape)
    written = chunks.volume() * spec.bytes_per_voxel
    touched = spec.grid.cubes(box)
    inside = BoundingBox.from_corners(touched.start, touched.stop)
    there = [index for index in store.cubes_on_disk() if inside.contains(index)]
    replaced = sum(spec.grid.cube_box(index).intersection(chunks).volume() for index in there)
    # A new cube is built where it stays; a replaced one is there twice.
    copies = min(at_once, len(there)) * spec.cube_nbytes
    if staged:
        # The private cubes stay while they are published: in a plain mag new ones are the private ones, renamed.
        shared = spec.compression is None
        return written + copies + (0 if shared else written - replaced * spec.bytes_per_voxel)
    return written - replaced * spec.bytes_per_voxel + copies
