"""The steps of a publication: build in the private root, flush, check, rename under the cube's lock, flush.

The order is what keeps cubes whole::

    build ─> check the files ─> fsync ─> is this attempt still wanted? ─> rename ─> fsync of the folders
    └──────── in the private root ────────────────────────────────────┘└─ under the cube's lock ─┘
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from wkdask.errors import DamagedCubeError, ReadOnlyError
from wkdask.fsio import (
    copy_sparse,
    freed_later,
    fsync_files,
    fsync_folder,
    link_or_copy,
    make_folders,
    replace_keeping_mode,
)
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.checksums import (
    ENTRY,
    drop_entry,
    has_checksums,
    put_entry,
    require_sound,
    write_entry,
)
from wkdask.storage.protocol import ArraySpec, StoredMag, Voxels, leads_out
from wkdask.storage.publish.locks import Attempt, cube_locks, of_living_attempt

if TYPE_CHECKING:
    from wkdask.kernels import MinMax

__all__ = [
    "LOCKED_NBYTES",
    "CubeFile",
    "Piece",
    "Publisher",
    "landed_boxes",
    "locked_batch",
    "note_landed_boxes",
]

LOCKED_NBYTES = 1 << 30
"""Bytes of voxels that are worked on under locks that are held together."""
_LOCKED_CUBES = 8
"""Cubes whose locks are held together; few, so that writers seldom wait for each other."""


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


@dataclass(frozen=True, slots=True)
class CubeFile:
    """A file that holds a cube: in a publication's private root, ready to be published, or elsewhere."""

    index: Vec3Int
    """The cube."""
    path: str | None
    """The file; None for a cube that holds zeros only, which has none."""
    boxes: tuple[BoundingBox, ...] = ()
    """What a job wrote of the cube: absolute, in voxels of the mag."""


def locked_batch(spec: ArraySpec) -> int:
    """Return how many cubes are worked on under locks that are held together."""
    return max(1, min(_LOCKED_CUBES, LOCKED_NBYTES // spec.cube_nbytes))


def landed_boxes(error: BaseException) -> list[BoundingBox]:
    """Return what a publication had published before it failed; it cannot be taken back, so it is reported."""
    return list(getattr(error, "_wkdask_landed", []))


def note_landed_boxes(error: BaseException, boxes: list[BoundingBox]) -> None:
    """Let an error say what had been published."""
    error._wkdask_landed = boxes  # type: ignore[attr-defined]


class Publisher:
    """Steps of one publication; they share a private root.

    Used in a ``with`` statement: an error that comes of the job's end, or of being fenced off, says so when it
    leaves, and carries what had been published by then.
    """

    def __init__(
        self,
        store: StoredMag,
        folder: str,
        attempt: Attempt | None,
        *,
        durable: bool,
        verify: bool = False,
        min_max: MinMax | None = None,
    ) -> None:
        self.store = store
        self.folder = folder
        self.attempt = attempt or Attempt()
        self.durable = durable
        self.verify = verify
        self.min_max = min_max
        self.root = ""
        self.nbytes = 0
        self.landed: list[BoundingBox] = []
        self._slots = itertools.count()
        self._folders: set[str] = set()
        # What is only staged is published once more, and is private until then.
        self._is_staged = store.path.startswith(f"{folder}/")
        self._has_sums = not self._is_staged and has_checksums(store.path)
        self._living = contextlib.ExitStack()

    def __enter__(self) -> Publisher:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._noting_what_landed())
            stack.enter_context(of_living_attempt(self.attempt, self.store, self.folder))
            self.root = self.attempt.root(self.store, self.folder)
            self._living = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> bool | None:
        return self._living.__exit__(*error)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def _noting_what_landed(self) -> Iterator[None]:
        """Let an error carry what had been published; what is only staged has not landed."""
        try:
            yield
        except BaseException as error:
            if not self._is_staged:
                note_landed_boxes(error, self.landed)
            raise

    def locked(self, *indices: Vec3Int, slow: bool = False) -> AbstractContextManager[None]:
        """Hold the locks of cubes; `slow` where what is done meanwhile may take minutes."""
        return cube_locks(self.store, self.folder, indices, self.attempt, slow=slow)

    # --- in the private root ---------------------------------------------------------------------------

    def build(self, pieces: Iterable[Piece], *, keep_old: bool) -> list[CubeFile]:
        """Build the cubes of pieces, check them and flush them to the disk.

        Parameters
        ----------
        pieces
            One for each cube.
        keep_old
            Whether the voxels around a piece are those of the published cube; its lock is held then.
        """
        store = self.store
        built = []
        for piece in pieces:
            boxes = (piece.box, *(box for box, _ in piece.more))
            target = store.cube_path(piece.index)
            base = target if keep_old and self.has_sound(piece.index) else None
            min_max = self.min_max
            if piece.more:
                if min_max is not None:
                    for block in (piece.block, *(block for _, block in piece.more)):
                        min_max.add(block)
                piece, base, min_max = self._in_one(piece, base), None, None
            inner = piece.box.offset(-(piece.index * store.spec.shard_shape))
            slot = next(self._slots)
            path = store.slot_path(self.root, slot)
            if not store.build(
                self.root, slot, inner, piece.block, base, flushed=self.durable, min_max=min_max
            ):
                built.append(CubeFile(piece.index, None, boxes))
                continue
            self._check_built(path, target)
            if self.verify:
                self._read_back(slot, inner, piece.block, target)
            built.append(CubeFile(piece.index, path, boxes))
        return self._settled(built)

    def encode(self, cubes: Iterable[CubeFile]) -> list[CubeFile]:
        """Return checked plain cubes stored as the mag stores its cubes, in the private root."""
        built = []
        for cube in cubes:
            slot = next(self._slots)
            if cube.path is None or not self.store.encode(self.root, slot, cube.path):
                built.append(replace(cube, path=None))
                continue
            path = self.store.slot_path(self.root, slot)
            self._check_built(path, cube.path)
            built.append(replace(cube, path=path))
        return self._settled(built)

    def adopt(self, cubes: Iterable[CubeFile], *, copied: bool = False) -> list[CubeFile]:
        """Return cubes that were built elsewhere under second names in the private root, or as copies there."""
        built = []
        for cube in cubes:
            if cube.path is None:
                built.append(cube)
                continue
            path = self.store.slot_path(self.root, next(self._slots))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            if copied:
                copy_sparse(cube.path, path, flushed=self.durable)
            else:
                link_or_copy(cube.path, path)
            built.append(replace(cube, path=path))
        return self._settled(built)

    def has_sound(self, index: Vec3Int) -> bool:
        """Return whether there is a published cube; the caller holds its lock, and keeps some of its voxels.

        Raises
        ------
        DamagedCubeError
            If it is damaged.
        """
        if not self.store.check_cube(self.store.cube_path(index)):
            return False
        if self._has_sums:
            require_sound(self.store, index)
        return True

    def drop(self, cube: CubeFile) -> None:
        """Remove a cube of the private root that is not published after all."""
        if cube.path is not None:
            os.unlink(cube.path)
            if self._has_sums:
                os.unlink(cube.path + ENTRY)

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

    def _check_built(self, path: str, source: str) -> None:
        """Refuse to publish what is not a sound cube."""
        if not self.store.check_cube(path):
            raise DamagedCubeError(f"the cube {source} was built in {path} but is not there")

    def _settled(self, built: list[CubeFile]) -> list[CubeFile]:
        """Flush what was built, with its checksums, then see that this attempt is still wanted."""
        paths = [cube.path for cube in built if cube.path is not None]
        if self._has_sums:
            paths += [write_entry(path) for path in paths]
        if self.durable:
            fsync_files(paths)
        self.attempt.check(self.store, self.folder)
        return built

    def _read_back(self, slot: int, inner: BoundingBox, block: Voxels, target: str) -> None:
        """Compare a built cube with what it should hold."""
        corner = Vec3Int(slot * self.store.spec.shard_shape.x, 0, 0)
        found = self.store.read_scratch(self.root, inner.offset(corner))
        if found.tobytes("F") != block.tobytes("F"):
            raise DamagedCubeError(f"the cube {target} reads back with other voxels than were written")

    # --- into the mag ----------------------------------------------------------------------------------

    def publish(self, cube: CubeFile) -> None:
        """Let a cube of the private root take the place of the published one; the caller holds the cube's lock."""
        name = self.store.cube_path(cube.index)
        target = self._real_target(name)
        folder = os.path.dirname(target)
        if cube.path is None:
            # Into the root, not unlinked: a task that is no longer wanted must fail here too.
            if target != name and os.path.islink(name):  # nor may it be left behind, leading nowhere
                os.rename(name, f"{self.root}/removed")
                self._folders.add(os.path.dirname(name))
            try:
                os.rename(target, f"{self.root}/removed")
            except FileNotFoundError:
                self.attempt.check(self.store, self.folder)
                return
            if self._has_sums:
                drop_entry(self.store.path, name)
        else:
            self._make_folder(folder)
            self.nbytes += os.stat(cube.path).st_size
            if (
                self._has_sums
            ):  # before the cube: one beside an older entry would be taken for another program's
                self._folders.add(put_entry(cube.path + ENTRY, self.store.path, name))
            with freed_later(target):
                replace_keeping_mode(cube.path, target)
            self.landed += cube.boxes
        self._folders.add(folder)

    def _make_folder(self, folder: str) -> None:
        """Make the folder of a cube, but not that of a mag that was removed."""
        if os.path.isdir(folder):
            return
        inside = folder.startswith(f"{self.store.path}/")
        root = self.store.path if inside else os.path.dirname(os.path.dirname(folder))
        self._folders.update(make_folders(root, folder))

    def _real_target(self, path: str) -> str:
        """Follow links to a cube or its folders; out of the dataset only where that is allowed."""
        outside = leads_out(self.store.path, path)
        if outside is not None and self.store.outside != "write":
            raise ReadOnlyError(f"the cube {path} leads to {outside}, outside of the dataset")
        return os.path.realpath(path)

    def flush(self) -> None:
        """Make the renames durable."""
        if self.durable:
            for folder in sorted(self._folders):
                fsync_folder(folder)
        self._folders.clear()
