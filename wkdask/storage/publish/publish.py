"""The one place where a cube comes into view: built in a job's private folder, published by one rename.

:mod:`~wkdask.storage.publish.jobs` draws the folders, :mod:`~wkdask.storage.publish.locks` says who may publish.
Every publication holds the cube's lock; partial writers from their read of the old cube to their rename of the
new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolz import partition_all

from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import StoredMag
from wkdask.storage.publish.locks import Attempt
from wkdask.storage.publish.publisher import (
    CubeFile,
    Piece,
    Publisher,
    landed_boxes,
    locked_batch,
    note_landed_boxes,
)

if TYPE_CHECKING:
    from wkdask.kernels import MinMax

__all__ = ["Piece", "landed_boxes", "note_landed_boxes", "publish_pieces", "publish_staged"]

_SLOW_NBYTES = 256 << 20
"""Bytes of voxels whose copying under a lock may take long on a slow file system."""


def publish_pieces(
    store: StoredMag,
    folder: str,
    pieces: Sequence[Piece],
    *,
    durable: bool = True,
    verify: bool = False,
    attempt: Attempt | None = None,
    min_max: MinMax | None = None,
) -> int:
    """Build and publish the cubes of pieces.

    Whole cubes are all built, made durable together, then renamed one by one. Of a cube that is written in
    part the lock is held from the read of the old cube to the rename of the new one.

    Parameters
    ----------
    store
        The mag.
    folder
        The job's private folder.
    pieces
        At most one per cube.
    durable
        Flush data and folders to the disk before returning.
    verify
        Read every built cube back and compare it with the block before it is published.
    attempt
        The run of the task, where a scheduler may run it again; see :class:`~wkdask.storage.publish.locks.Attempt`.
    min_max
        Takes in the voxels of the pieces; it has those of a cube before that is published.

    Returns
    -------
    int
        Bytes of the files published.

    Raises
    ------
    JobEndedError
        If the job's folder is gone, or another run of the task took over: this one was thought lost, and is.
    DamagedCubeError
        If an old cube cannot be read; it stays untouched.
    LockTimeoutError
        If a cube stayed locked by a process that could not be fenced off.
    """
    spec = store.spec
    whole = [piece for piece in pieces if piece.box.size == spec.shard_shape and not piece.more]
    partial = [piece for piece in pieces if piece.box.size != spec.shard_shape or piece.more]
    with Publisher(store, folder, attempt, durable=durable, verify=verify, min_max=min_max) as publisher:
        for cube in publisher.build(whole, keep_old=False):
            with publisher.locked(cube.index):
                publisher.publish(cube)
        publisher.flush()
        for batch in partition_all(locked_batch(spec), partial):
            slow = len(batch) * spec.cube_nbytes > _SLOW_NBYTES
            with publisher.locked(*(piece.index for piece in batch), slow=slow):
                for cube in publisher.build(batch, keep_old=True):
                    publisher.publish(cube)
            publisher.flush()
    return publisher.nbytes


def publish_staged(
    store: StoredMag,
    staged: StoredMag,
    folder: str,
    index: Vec3Int,
    box: BoundingBox,
    *,
    durable: bool = True,
    attempt: Attempt | None = None,
) -> int:
    """Publish a cube from a job's private mag; returns the bytes of its file.

    The staged cube stays (a second name is made of it), so that doing this twice gives the same.

    Parameters
    ----------
    store, staged
        The mag, and the private mag in which the cube was built. Their compression may differ.
    folder
        The job's private folder.
    index, box
        The cube, and the part of it that the job writes.
    durable
        Flush data and folders to the disk before returning.
    attempt
        The run of the task, where a scheduler may run it again.
    """
    source = staged.cube_path(index)
    with Publisher(store, folder, attempt, durable=durable) as publisher:
        exists = staged.check_cube(source)
        if box.size == store.spec.shard_shape and exists and staged.spec == store.spec:
            [cube] = publisher.adopt([CubeFile(index, source, (box,))])
            with publisher.locked(index):
                publisher.publish(cube)
            publisher.flush()
            return publisher.nbytes
        piece = Piece(index, box, staged.read(box))
    return publish_pieces(store, folder, [piece], durable=durable, attempt=publisher.attempt)
