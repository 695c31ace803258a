"""The one place where a cube comes into view: built in a job's private folder, published by one rename.

:mod:`wkdask.storage.jobs` draws the folders. Every publication holds the cube's lock; partial writers from their
read of the old cube to their rename of the new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from toolz import partition_all

from wkdask.errors import DamagedCubeError, JobEndedError, ReadOnlyError
from wkdask.fsio import copy_sparse, fsync_files, fsync_folder, lock, locks, replace_keeping_mode
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.jobs import check_alive, of_living_job, scratch_root
from wkdask.storage.protocol import PRIVATE, StoredMag, Voxels

__all__ = [
    "Piece",
    "landed_boxes",
    "note_landed_boxes",
    "publish_assembled",
    "publish_copies",
    "publish_pieces",
    "publish_staged",
    "rewrite_cubes",
]

LOCK_FILES = 256
"""Lock files per mag: cubes share them, so that a mag of a million cubes does not need a million."""
_PARTIAL_BATCH = 8
"""Partial cubes are locked from read to replace; few at a time, so that writers seldom wait for each other."""
_WHOLE_BATCH = 64
"""Whole cubes are locked one by one; as many are made durable together."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What a job writes into one cube."""

    index: Vec3Int
    """The cube."""
    box: BoundingBox
    """The part that is written, absolute, in voxels of the mag."""
    block: Voxels
    """Its voxels, ``(c, *box.size)``."""
    more: tuple[tuple[BoundingBox, Voxels], ...] = ()
    """Further parts of the same cube, written in this order."""


def _lock_path(store: StoredMag, index: Vec3Int) -> str:
    """Return the lock file that a cube falls on."""
    number = (index.x * 73_856_093 ^ index.y * 19_349_663 ^ index.z * 83_492_791) % LOCK_FILES
    return f"{store.path}/{PRIVATE}/locks/{number:03d}.lock"


def publish_pieces(
    store: StoredMag, folder: str, pieces: Sequence[Piece], *, durable: bool = True, verify: bool = False
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

    Returns
    -------
    int
        Bytes of the files published.

    Raises
    ------
    JobEndedError
        If the job's folder is gone: this task was thought lost, and is.
    DamagedCubeError
        If an old cube cannot be read; it stays untouched.
    """
    with of_living_job(folder):
        return _publish_pieces(store, folder, pieces, durable, verify)


def landed_boxes(error: BaseException) -> list[BoundingBox]:
    """Return what a publication had published before it failed; it cannot be taken back, so it is reported."""
    return list(getattr(error, "_wkdask_landed", []))


def note_landed_boxes(error: BaseException, boxes: list[BoundingBox]) -> None:
    """Let an error say what had been published."""
    error._wkdask_landed = boxes  # type: ignore[attr-defined]


def _publish_pieces(
    store: StoredMag, folder: str, pieces: Sequence[Piece], durable: bool, verify: bool
) -> int:
    """Do what :func:`publish_pieces` promises, in a job that lives."""
    shard = store.spec.shard_shape
    whole = [piece for piece in pieces if piece.box.size == shard and not piece.more]
    partial = [piece for piece in pieces if piece.box.size != shard or piece.more]
    publish = _Publisher(store, folder, durable, verify)
    try:
        publish.build(whole, keep_old=False)
        for number, piece in enumerate(whole):
            with lock(_lock_path(store, piece.index)):
                publish.replace(number, piece)
        publish.flush()
        for batch in partition_all(_PARTIAL_BATCH, partial):
            with locks([_lock_path(store, piece.index) for piece in batch]):
                publish.build(batch, keep_old=True)
                for number, piece in enumerate(batch):
                    publish.replace(number, piece)
            publish.flush()
    except BaseException as error:
        if not store.path.startswith(f"{folder}/"):  # what is only staged has not landed
            note_landed_boxes(error, publish.landed)
        raise
    return publish.nbytes


def publish_staged(
    store: StoredMag,
    staged: StoredMag,
    folder: str,
    index: Vec3Int,
    box: BoundingBox,
    *,
    durable: bool = True,
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
    """
    source = staged.cube_path(index)
    with of_living_job(folder):
        exists = staged.check_cube(source)
        if not (box.size == store.spec.shard_shape and exists and staged.spec == store.spec):
            return _publish_pieces(
                store, folder, [Piece(index, box, staged.read(box))], durable, verify=False
            )
        publish = _Publisher(store, folder, durable, verify=False)
        publish.adopt(source)
        with lock(_lock_path(store, index)):
            publish.replace(0, Piece(index, box, np.empty(0)))
        publish.flush()
        return publish.nbytes


def publish_assembled(
    store: StoredMag, assembled: StoredMag, folder: str, box: BoundingBox, *, durable: bool = True
) -> tuple[int, int]:
    """Publish the cubes that several tasks assembled in a private mag, into a mag that the job itself made.

    A plain cube takes its place by a second name: nothing is copied, however large it is. One that nobody
    assembled is empty, and there is no older one to remove. Doing this twice gives the same.

    Parameters
    ----------
    store, assembled
        The mag, and the private one, where the tasks used ``write_in_place``. Their compression may differ.
    folder
        The job's private folder.
    box
        What is published: absolute, in voxels of the mag. It touches whole cubes that no other task publishes.
    durable
        Flush data and folders to the disk before returning.

    Returns
    -------
    int
        Cubes published.
    int
        Bytes of their files.

    Raises
    ------
    JobEndedError
        If the job's folder or the private mag is gone: this task was thought lost, and is.
    """
    with of_living_job(folder):
        publish = _Publisher(store, folder, durable, verify=False)
        pieces = [
            (index, piece)
            for index, piece in store.spec.grid.pieces(box)
            if assembled.check_cube(assembled.cube_path(index))
        ]
        _check_kept(assembled, folder)
        for batch in partition_all(_WHOLE_BATCH, pieces):
            if assembled.spec == store.spec:
                publish.adopt(*(assembled.cube_path(index) for index, _ in batch))
            else:  # one after the other: their voxels are never in memory together
                blocks = (Piece(index, piece, assembled.read(piece)) for index, piece in batch)
                publish.build(blocks, keep_old=False)
            again = []
            for slot, (index, piece) in enumerate(batch):
                with lock(_lock_path(store, index)):
                    # One that is there is our own, from a lost attempt, or another writer's: merge with it.
                    if os.path.lexists(store.cube_path(index)):
                        again.append(Piece(index, piece, np.empty(0)))
                    else:
                        publish.replace(slot, Piece(index, piece, np.empty(0)))
            publish.flush()
            for piece in again:
                whole = Piece(piece.index, piece.box, assembled.read(piece.box))
                _check_kept(assembled, folder)
                publish.nbytes += _publish_pieces(store, folder, [whole], durable, verify=False)
        return len(pieces), publish.nbytes


def publish_copies(
    store: StoredMag, source: StoredMag, folder: str, box: BoundingBox, *, durable: bool = True
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
    durable
        Flush data and folders to the disk before returning.

    Returns
    -------
    int
        Cubes that the box touches.
    int
        Bytes of the files published.
    """
    with of_living_job(folder):
        publish = _Publisher(store, folder, durable, verify=False)
        pieces = list(store.spec.grid.pieces(box))
        for batch in partition_all(_PARTIAL_BATCH, pieces):
            merged, files = [], []
            with locks([_lock_path(store, index) for index, _ in batch]):
                for index, piece in batch:
                    if os.path.lexists(store.cube_path(index)):
                        merged.append((index, piece))
                    elif source.check_cube(source.cube_path(index)):
                        files.append((index, piece))
                publish.adopt(*(source.cube_path(index) for index, _ in files), copied=True)
                for slot, (index, piece) in enumerate(files):
                    publish.replace(slot, Piece(index, piece, np.empty(0)))
            publish.flush()
            for index, piece in merged:
                block = Piece(index, piece, source.read(piece))
                publish.nbytes += _publish_pieces(store, folder, [block], durable, verify=False)
        return len(pieces), publish.nbytes


def rewrite_cubes(
    store: StoredMag, folder: str, box: BoundingBox, *, durable: bool = True
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

    Returns
    -------
    int
        Cubes rewritten.
    int
        Bytes of their voxels.
    int
        Bytes of their new files.
    """
    count = 0
    with of_living_job(folder):
        publish = _Publisher(store, folder, durable, verify=False)
        indices = [index for index in store.spec.grid.cubes(box) if store.check_cube(store.cube_path(index))]
        for batch in partition_all(_PARTIAL_BATCH, indices):
            with locks([_lock_path(store, index) for index in batch]):
                pieces = [
                    Piece(index, store.spec.grid.cube_box(index), np.empty(0))
                    for index in batch
                    if store.check_cube(path := store.cube_path(index)) and not store.conforms(path)
                ]
                # One after the other: their voxels are never in memory together.
                publish.build(
                    (Piece(piece.index, piece.box, store.read(piece.box)) for piece in pieces), keep_old=False
                )
                for slot, piece in enumerate(pieces):
                    publish.replace(slot, piece)
            publish.flush()
            count += len(pieces)
    return count, count * store.spec.cube_nbytes, publish.nbytes


def _check_kept(assembled: StoredMag, folder: str) -> None:
    """Refuse to go on when a private mag was published and removed: what is missing there is not empty."""
    if not os.path.isdir(assembled.path):
        check_alive(folder)
        raise JobEndedError(f"{assembled.path} was published and removed; this task publishes nothing")


class _Publisher:
    """Steps of a publication that share a private root."""

    def __init__(self, store: StoredMag, folder: str, durable: bool, verify: bool) -> None:
        self.store = store
        self.folder = folder
        self.root = scratch_root(store, folder)
        self.durable = durable
        self.verify = verify
        self.built: list[str | None] = []
        self.nbytes = 0
        self.landed: list[BoundingBox] = []
        self._folders: set[str] = set()

    def build(self, pieces: Iterable[Piece], *, keep_old: bool) -> None:
        """Build the cubes of pieces in the slots 0, 1, …, check them and flush them to the disk."""
        store = self.store
        self.built = []
        for slot, piece in enumerate(pieces):
            target = store.cube_path(piece.index)
            base = target if keep_old and store.check_cube(target) else None
            if piece.more:
                piece, base = self._in_one(piece, base), None
            inner = piece.box.offset(-(piece.index * store.spec.shard_shape))
            path = store.slot_path(self.root, slot)
            if not store.build(self.root, slot, inner, piece.block, base):
                self.built.append(None)
                continue
            if not store.check_cube(path):
                raise DamagedCubeError(f"the cube {target} was built in {path} but is not there")
            if self.verify:
                self._read_back(slot, inner, piece.block, target)
            self.built.append(path)
        self._settle()

    def _in_one(self, piece: Piece, base: str | None) -> Piece:
        """Return a piece of several parts as one that is the whole cube, the old voxels around them."""
        cube_box = self.store.spec.grid.cube_box(piece.index)
        spec = self.store.spec
        if base is None:
            cube = np.zeros((spec.num_channels, *cube_box.size), spec.dtype, order="F")
        else:
            cube = self.store.read(cube_box)
        for box, block in ((piece.box, piece.block), *piece.more):
            cube[(slice(None), *box.to_slices(cube_box.topleft))] = block
        return Piece(piece.index, cube_box, cube)

    def adopt(self, *sources: str, copied: bool = False) -> None:
        """Take cubes that were built elsewhere as those in the slots 0, 1, …: second names, or copies."""
        self.built = []
        for slot, source in enumerate(sources):
            path = self.store.slot_path(self.root, slot)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            if copied:
                copy_sparse(source, path)
                self.built.append(path)
                continue
            try:
                os.link(source, path)
            except OSError as error:  # a file system without second names
                if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                    raise
                copy_sparse(source, path)
            self.built.append(path)
        self._settle()

    def _settle(self) -> None:
        """Flush what was built, then see that the job has not ended: nothing is built after this."""
        if self.durable:
            fsync_files(path for path in self.built if path is not None)
        check_alive(self.folder)

    def _read_back(self, slot: int, inner: BoundingBox, block: Voxels, target: str) -> None:
        """Compare a built cube with what it should hold."""
        corner = Vec3Int(slot * self.store.spec.shard_shape.x, 0, 0)
        found = self.store.read_scratch(self.root, inner.offset(corner))
        if found.tobytes("F") != block.tobytes("F"):
            raise DamagedCubeError(f"the cube {target} reads back with other voxels than were written")

    def replace(self, slot: int, piece: Piece) -> None:
        """Let the built cube take the place of the published one; the caller holds the cube's lock."""
        name = self.store.cube_path(piece.index)
        target = self._real_target(name)
        source = self.built[slot]
        folder = os.path.dirname(target)
        if source is None:
            # Into the job's folder, not unlinked: a task of a job that has ended must fail here too.
            if target != name and os.path.islink(name):  # nor may it be left behind, leading nowhere
                os.rename(name, f"{self.root}/removed")
                self._folders.add(os.path.dirname(name))
            try:
                os.rename(target, f"{self.root}/removed")
            except FileNotFoundError:
                if not os.path.isdir(self.root):
                    raise
                return
        else:
            if not os.path.isdir(folder):
                os.makedirs(folder, exist_ok=True)
                self._folders.update((os.path.dirname(folder), self.store.path))
            self.nbytes += os.stat(source).st_size
            replace_keeping_mode(source, target)
            self.landed.append(piece.box)
        self._folders.add(folder)

    def _real_target(self, path: str) -> str:
        """Follow links to a cube or its folders, but only within the dataset (two folders above the mag)."""
        target = os.path.realpath(path)
        if target == path:
            return path
        dataset = os.path.dirname(os.path.dirname(self.store.path))
        if os.path.commonpath([dataset, target]) != dataset:
            raise ReadOnlyError(f"the cube {path} leads to {target}, outside of the dataset {dataset}")
        return target

    def flush(self) -> None:
        """Make the renames durable."""
        if self.durable:
            for folder in sorted(self._folders):
                fsync_folder(folder)
        self._folders.clear()
