"""The one place where a cube comes into view.

A job builds its cubes in its private folder in the mag, and publishes each by one rename::

    <mag>/header.wkw
    <mag>/z0/y0/x0.wkw                         a published cube
    <mag>/.wkdask/locks/017.lock               held while a cube that falls on it is published
    <mag>/.wkdask/<job>/alive                  locked while the job's driver lives
    <mag>/.wkdask/<job>/<host-pid-thread>/     one private root per worker thread, reused for cube after cube
    <mag>/.wkdask/<job>/staged/                a private mag, where a job builds all before it publishes any

A reader sees the old cube or the new one. When a job ends its folder is renamed away first: whatever a
task that was thought lost does later (rename out of it, rename into it) fails.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from toolz import partition_all

from wkdask.errors import DamagedCubeError, JobEndedError, LockTimeoutError, ReadOnlyError
from wkdask.fsio import fsync_files, fsync_folder, lock, locks, remove_folder, replace_keeping_mode
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import PRIVATE, StoredMag, Voxels

__all__ = ["Piece", "job_folder", "publish_pieces", "publish_staged"]

LOCK_FILES = 256
"""Lock files per mag: cubes share them, so that a mag of a million cubes does not need a million."""
_PARTIAL_BATCH = 8
"""Partial cubes are locked from read to replace; few at a time, so that writers seldom wait for each other."""

_local = threading.local()


@dataclass(frozen=True, slots=True)
class Piece:
    """What a job writes into one cube."""

    index: Vec3Int
    """The cube."""
    box: BoundingBox
    """The part that is written, absolute, in voxels of the mag."""
    block: Voxels
    """Its voxels, ``(c, *box.size)``."""


@contextlib.contextmanager
def job_folder(store: StoredMag) -> Iterator[str]:
    """Make a job's private folder in a mag, sweep those of dead jobs, and take it away at the end."""
    private = f"{store.path}/{PRIVATE}"
    try:
        os.makedirs(f"{private}/locks", exist_ok=True)
    except PermissionError as error:
        raise ReadOnlyError(f"{store.path} cannot be written to: {error.strerror}") from error
    folder = f"{private}/{uuid.uuid4().hex[:12]}"
    # No sweeper may see the folder before its owner holds it: born under a lock that sweepers take too.
    with contextlib.ExitStack() as stack:
        with lock(f"{private}/locks/jobs.lock"):
            _sweep(private)
            os.mkdir(folder)
            stack.enter_context(lock(f"{folder}/alive"))
        try:
            yield folder
        finally:
            remove_folder(folder)


def _sweep(private: str) -> None:
    """Remove the folders of jobs whose driver is dead: nobody holds their lock."""
    for entry in os.scandir(private):
        if not entry.is_dir(follow_symlinks=False) or entry.name == "locks":
            continue
        if ".gone-" in entry.name:
            shutil.rmtree(entry.path, ignore_errors=True)
            continue
        with contextlib.suppress(LockTimeoutError, FileNotFoundError), lock(f"{entry.path}/alive", timeout=0):
            remove_folder(entry.path)


def _scratch(store: StoredMag, folder: str) -> str:
    """Return this thread's private root in a job's folder; made on first use, then reused."""
    roots: dict[str, str] = _local.__dict__.setdefault("roots", {})
    key = f"{store.path}:{folder}"
    if key in roots:
        return roots[key]
    kind = "staged" if store.path.startswith(folder) else "cubes"
    root = f"{folder}/{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}-{kind}"
    try:
        os.mkdir(root)
    except FileExistsError:
        pass  # the operating system gave this thread the number of one that ended
    except FileNotFoundError as error:
        raise JobEndedError(f"the job of {folder} has ended; this task publishes nothing") from error
    store.prepare_scratch(root)
    if len(roots) > 16:
        roots.clear()
    roots[key] = root
    return root


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
    root = _scratch(store, folder)
    shard = store.spec.shard_shape
    whole = [piece for piece in pieces if piece.box.size == shard]
    partial = [piece for piece in pieces if piece.box.size != shard]
    publish = _Publisher(store, root, durable, verify)
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
    except FileNotFoundError as error:
        if not os.path.isdir(folder):
            raise JobEndedError(f"the job of {folder} has ended; this task publishes nothing") from error
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
    exists = staged.check_cube(source)
    if not (box.size == store.spec.shard_shape and exists and staged.spec == store.spec):
        return publish_pieces(store, folder, [Piece(index, box, staged.read(box))], durable=durable)
    root = _scratch(store, folder)
    path = store.slot_path(root, 0)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    try:
        os.link(source, path)
    except PermissionError:  # a file system without second names
        shutil.copyfile(source, path)
    publish = _Publisher(store, root, durable, verify=False)
    publish.adopt(path)
    with lock(_lock_path(store, index)):
        publish.replace(0, Piece(index, box, np.empty(0)))
    publish.flush()
    return publish.nbytes


class _Publisher:
    """Steps of a publication that share a private root."""

    def __init__(self, store: StoredMag, root: str, durable: bool, verify: bool) -> None:
        self.store = store
        self.root = root
        self.durable = durable
        self.verify = verify
        self.built: list[str | None] = []
        self.nbytes = 0
        self._folders: set[str] = set()

    def build(self, pieces: Sequence[Piece], *, keep_old: bool) -> None:
        """Build the cubes of pieces in the slots 0, 1, …, check them and flush them to the disk."""
        store = self.store
        self.built = []
        for slot, piece in enumerate(pieces):
            target = store.cube_path(piece.index)
            base = target if keep_old and store.check_cube(target) else None
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
        self._fsync()

    def adopt(self, path: str) -> None:
        """Take a file that was built elsewhere as the one in slot 0."""
        self.built = [path]
        self._fsync()

    def _fsync(self) -> None:
        if self.durable:
            fsync_files(path for path in self.built if path is not None)

    def _read_back(self, slot: int, inner: BoundingBox, block: Voxels, target: str) -> None:
        """Compare a built cube with what it should hold."""
        corner = Vec3Int(slot * self.store.spec.shard_shape.x, 0, 0)
        found = self.store.read_scratch(self.root, inner.offset(corner))
        if found.tobytes("F") != block.tobytes("F"):
            raise DamagedCubeError(f"the cube {target} reads back with other voxels than were written")

    def replace(self, slot: int, piece: Piece) -> None:
        """Let the built cube take the place of the published one; the caller holds the cube's lock."""
        target = self._real_target(self.store.cube_path(piece.index))
        source = self.built[slot]
        folder = os.path.dirname(target)
        if source is None:
            # Into the job's folder, not unlinked: a task of a job that has ended must fail here too.
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
        self._folders.add(folder)

    def _real_target(self, path: str) -> str:
        """Follow a cube that is a link, but only within the dataset (two folders above the mag)."""
        if not os.path.islink(path):
            return path
        target = os.path.realpath(path)
        dataset = os.path.dirname(os.path.dirname(self.store.path))
        if os.path.commonpath([dataset, target]) != dataset:
            raise ReadOnlyError(f"the cube {path} is a link to {target}, outside of the dataset {dataset}")
        return target

    def flush(self) -> None:
        """Make the renames durable."""
        if self.durable:
            for folder in sorted(self._folders):
                fsync_folder(folder)
        self._folders.clear()
