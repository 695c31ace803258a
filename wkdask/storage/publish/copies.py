"""Publication of cubes that exist elsewhere, or are stored otherwise: files copied, voxels as they were."""

from __future__ import annotations

from toolz import partition_all

from wkdask.fsio import is_there
from wkdask.geometry import BoundingBox
from wkdask.storage.checksums import has_checksums, require_sound
from wkdask.storage.protocol import StoredMag
from wkdask.storage.publish.assemble import merged
from wkdask.storage.publish.locks import Attempt
from wkdask.storage.publish.publisher import CubeFile, Publisher, locked_batch

__all__ = ["publish_copies", "rewrite_cubes"]

_COPIED_TOGETHER = 8
"""Cube files that are copied before any of them is flushed and renamed."""


def publish_copies(
    store: StoredMag,
    source: StoredMag,
    folder: str,
    box: BoundingBox,
    *,
    exact: bool = False,
    durable: bool = True,
    attempt: Attempt | None = None,
) -> tuple[int, int]:
    """Publish copies of the cube files of another mag that is stored alike; nothing is decoded.

    A cube that is there already keeps the voxels outside of the box; then the box is copied as voxels.

    Parameters
    ----------
    store, source
        Where the cubes go, and where they are.
    folder
        The job's private folder.
    box
        What is copied: absolute, in voxels of the mag. Whole files are, where there is no cube yet.
    exact
        Cubes that the box covers in part are copied as voxels as well, none of them outside of the box.
    durable
        Flush data and folders to the disk before returning.
    attempt
        The run of the task, where a scheduler may run it again.

    Returns
    -------
    int
        Cubes that the box touches.
    int
        Bytes of the files published.
    """
    pieces = list(store.spec.grid.pieces(box))
    has_sums = has_checksums(source.path)
    with Publisher(store, folder, attempt, durable=durable) as publisher:
        for batch in partition_all(_COPIED_TOGETHER, pieces):
            there = [
                each
                for each in batch
                if (exact and each[1].size != store.spec.shard_shape) or is_there(store.cube_path(each[0]))
            ]
            files = [
                CubeFile(index, source.cube_path(index), (piece,))
                for index, piece in batch
                if (index, piece) not in there and source.check_cube(source.cube_path(index))
            ]
            if has_sums:
                for cube in files:
                    require_sound(source, cube.index)
            for cube in publisher.adopt(files, copied=True):
                with publisher.locked(cube.index):
                    if is_there(store.cube_path(cube.index)):  # another writer's, meanwhile
                        publisher.drop(cube)
                        there += [(cube.index, box) for box in cube.boxes]
                    else:
                        publisher.publish(cube)
            publisher.flush()
            for index, piece in there:
                with publisher.locked(index, slow=True):
                    publisher.publish(merged(publisher, source, index, [piece]))
            publisher.flush()
    return len(pieces), publisher.nbytes


def rewrite_cubes(
    store: StoredMag, folder: str, box: BoundingBox, *, durable: bool = True, attempt: Attempt | None = None
) -> tuple[int, int, int]:
    """Store the cubes of a box anew where they are not stored as the mag says; their voxels stay.

    Each cube's lock is held from its read to its replacement.

    Parameters
    ----------
    store
        The mag, with the compression that its cubes should have.
    folder
        The job's private folder.
    box
        Whole cubes: absolute, in voxels of the mag.
    durable
        Flush data and folders to the disk before returning.
    attempt
        The run of the task, where a scheduler may run it again.

    Returns
    -------
    int
        Cubes rewritten.
    int
        Bytes of their voxels.
    int
        Bytes of their new files.
    """
    spec = store.spec
    count = 0
    indices = [index for index in spec.grid.cubes(box) if store.check_cube(store.cube_path(index))]
    with Publisher(store, folder, attempt, durable=durable) as publisher:
        for batch in partition_all(locked_batch(spec), indices):
            with publisher.locked(*batch, slow=True):
                todo = [
                    CubeFile(index, path, (spec.grid.cube_box(index),))
                    for index in batch
                    if store.check_cube(path := store.cube_path(index))
                    and not store.conforms(path)
                    and publisher.has_sound(index)
                ]
                for cube in publisher.encode(todo):
                    publisher.publish(cube)
            publisher.flush()
            count += len(todo)
    return count, count * spec.cube_nbytes, publisher.nbytes
