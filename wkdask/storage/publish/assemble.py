"""Publication of cubes that were assembled part by part in a private plain mag, whatever their size.

::

    parts ─write_in_place─> private plain cube ─┬─ no older cube, or all of it is written:
                                                │    RAW    a second name takes the place, nothing is copied
                                                │    LZ4    compressed chunk by chunk
                                                └─ an older cube keeps its other voxels:
                                                     plain copy of it <- the parts, slab by slab; then as above

At most two slabs of voxels are in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from wkdask.errors import JobEndedError
from wkdask.fsio import copy_sparse, is_there
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.grid import CubeGrid
from wkdask.storage.protocol import ArraySpec, StoredMag
from wkdask.storage.publish.jobs import check_alive
from wkdask.storage.publish.locks import Attempt
from wkdask.storage.publish.publisher import CubeFile, Publisher

__all__ = ["merged", "move_voxels", "publication_nbytes", "publish_assembled", "publish_parts"]

SLAB_NBYTES = 16 << 20
"""Bytes of voxels that are moved at a time: enough to hide the cost of a call, few enough to skip empty space."""
_BESIDE_NBYTES = 14 << 20
"""What buffers and checks take beside the voxels."""


def publication_nbytes(spec: ArraySpec) -> int:
    """Return the bytes of memory that the publication of an assembled cube takes at most.

    Parameters
    ----------
    spec
        Type, cut and compression of the mag that is published to.
    """
    slab = min(max(SLAB_NBYTES, spec.chunk_shape.prod() * spec.bytes_per_voxel), spec.cube_nbytes)
    # An old slab and the part that goes into it; two looks at a jump table.
    return 2 * slab + 16 * (spec.shard_shape // spec.chunk_shape).prod() + _BESIDE_NBYTES


def publish_assembled(
    store: StoredMag,
    assembled: StoredMag,
    folder: str,
    box: BoundingBox,
    *,
    durable: bool = True,
    attempt: Attempt | None = None,
) -> tuple[int, int]:
    """Publish what several tasks assembled in a private mag.

    The private cubes stay, so that doing this twice gives the same. Where no part of a cube was assembled, all
    that the job wrote of it was zeros.

    Parameters
    ----------
    store, assembled
        The mag, and the private plain one, where the tasks used ``write_in_place``.
    folder
        The job's private folder.
    box
        What is published: absolute, in voxels of the mag. It touches whole cubes that no other task publishes.
    durable
        Flush data and folders to the disk before returning.
    attempt
        The run of the task, where a scheduler may run it again.

    Returns
    -------
    int
        Cubes published; those that are or become empty do not count.
    int
        Bytes of their files.

    Raises
    ------
    JobEndedError
        If the job's folder or the private mag is gone: this task was thought lost, and is.
    """
    count = 0
    with Publisher(store, folder, attempt, durable=durable) as publisher:
        for index, piece in store.spec.grid.pieces(box):
            count += _publish_cube(publisher, assembled, index, [piece])
        publisher.flush()
    return count, publisher.nbytes


def publish_parts(
    store: StoredMag,
    assembled: StoredMag,
    folder: str,
    index: Vec3Int,
    boxes: Sequence[BoundingBox],
    *,
    durable: bool = True,
    attempt: Attempt | None = None,
) -> int:
    """Publish one assembled cube of which several parts were written; returns the bytes of its file.

    Parameters
    ----------
    store, assembled, folder, durable, attempt
        As for :func:`publish_assembled`.
    index
        The cube.
    boxes
        What was written of it: absolute, in voxels of the mag.
    """
    with Publisher(store, folder, attempt, durable=durable) as publisher:
        _publish_cube(publisher, assembled, index, boxes)
        publisher.flush()
    return publisher.nbytes


def _publish_cube(
    publisher: Publisher, assembled: StoredMag, index: Vec3Int, boxes: Sequence[BoundingBox]
) -> bool:
    """Publish one cube; False if it is empty."""
    store = publisher.store
    source: str | None = assembled.cube_path(index)
    if not assembled.check_cube(assembled.cube_path(index)):
        source = None
        _check_kept(assembled, publisher.folder)
    whole = any(box.size == store.spec.shard_shape for box in boxes)
    if whole or not is_there(store.cube_path(index)):
        # Not under the lock: no other task writes into it.
        [cube] = publisher.encode([CubeFile(index, source, tuple(boxes))])
        with publisher.locked(index):
            if whole or not is_there(store.cube_path(index)):
                publisher.publish(cube)
                return cube.path is not None
        publisher.drop(cube)
    with publisher.locked(index, slow=True):
        cube = merged(publisher, assembled, index, boxes)
        publisher.publish(cube)
    return cube.path is not None


def _check_kept(assembled: StoredMag, folder: str) -> None:
    """Refuse to go on when a private mag was published and removed: what is missing there is not empty."""
    if not os.path.isdir(assembled.path):
        check_alive(folder)
        raise JobEndedError(f"{assembled.path} was published and removed; this task publishes nothing")


def move_voxels(source: StoredMag, target: StoredMag, box: BoundingBox, *, durable: bool = True) -> None:
    """Write the voxels of a box from one private mag into another, whole chunks at a time.

    Parameters
    ----------
    source, target
        Private mags of the same type and cut; the target is plain.
    box
        Absolute, in voxels of the mag; all of its chunks that the source was written to.
    durable
        Flush the target's cubes to the disk before returning.
    """
    for slab in _slabs(box, target.spec):
        target.write_in_place(slab, source.read(slab), durable=durable)


def merged(publisher: Publisher, source: StoredMag, index: Vec3Int, boxes: Sequence[BoundingBox]) -> CubeFile:
    """Build the published cube with parts of another mag put into it; its lock is held.

    Parameters
    ----------
    publisher
        The publication.
    source
        Where the parts are read: any mag of the same type.
    index, boxes
        The cube, and its parts: absolute, in voxels of the mag.
    """
    plain = _plain_cube(publisher, source, index, boxes)
    try:
        path = plain.cube_path(index)
        [cube] = publisher.encode([CubeFile(index, path if plain.check_cube(path) else None, tuple(boxes))])
    finally:
        plain.drop_cube(index)
    return cube


def _plain_cube(
    publisher: Publisher, source: StoredMag, index: Vec3Int, boxes: Sequence[BoundingBox]
) -> StoredMag:
    """Make a plain copy of the published cube in the private root, put parts into it, return its private mag."""
    store = publisher.store
    plain = _plain_mag(publisher)
    cube_box = store.spec.grid.cube_box(index)
    base, copy = store.cube_path(index), plain.cube_path(index)
    todo: Sequence[BoundingBox] = boxes
    old = store
    plain.drop_cube(index)
    if publisher.has_sound(index):
        if plain.conforms(base):
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            copy_sparse(
                base, copy, flushed=publisher.durable
            )  # holes stay holes; only what is written anew is looked at
            old = plain
        else:
            todo = [cube_box]
    for box in todo:
        for slab in _slabs(box.aligned_outwards(store.spec.chunk_shape), store.spec):
            parts = [part for each in boxes if not (part := slab.intersection(each)).is_empty()]
            if parts == [slab]:
                voxels = source.read(slab)
            else:
                voxels = old.read(slab)
                for part in parts:
                    voxels[(slice(None), *part.to_slices(slab.topleft))] = source.read(part)
            plain.write_in_place(slab, voxels)
    return plain


def _plain_mag(publisher: Publisher) -> StoredMag:
    """Return the plain private mag in a publication's root, made on first use."""
    path = f"{publisher.root}/plain"
    if os.path.isdir(path):
        return publisher.store.opened(path)
    return publisher.store.staged(path, raw=True)


def _slabs(box: BoundingBox, spec: ArraySpec) -> Iterator[BoundingBox]:
    """Yield the parts of a box that are moved at a time: whole chunks, halved along z, then y, then x."""
    shape, chunk = list(spec.shard_shape), spec.chunk_shape
    for axis in (2, 1, 0):
        while Vec3Int(shape).prod() * spec.bytes_per_voxel > SLAB_NBYTES and shape[axis] > chunk[axis]:
            count = shape[axis] // chunk[axis]
            shape[axis] = chunk[axis] * (count // 2 if count % 2 == 0 else 1)
    return (slab for _, slab in CubeGrid(Vec3Int(shape)).pieces(box))
