"""WKW: a folder with ``header.wkw`` and one file per cube, ``z{Z}/y{Y}/x{X}.wkw``."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from wkdask.errors import DamagedCubeError, DamagedHeaderError, OutsideError
from wkdask.fsio import atomic_write, checked_path
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.fingerprint import fingerprint_of
from wkdask.storage.open_cubes import SETTLED_NS, OpenCubes
from wkdask.storage.parallel import Corner, read_cubes
from wkdask.storage.protocol import (
    PRIVATE,
    STAMP,
    ArraySpec,
    Voxels,
    bump_stamp,
    check_coordinates,
    empty_block,
    leads_out,
)
from wkdask.storage.rereads import reliably
from wkdask.storage.wkw import build as wkw_build
from wkdask.storage.wkw.blocks import OpenCube, is_sound, opened_cube, read_box, shrink_box, target_of
from wkdask.storage.wkw.format import HEADER_SIZE, WkwHeader, header_of_spec, read_header

if TYPE_CHECKING:
    from wkdask.kernels import MinMax

__all__ = ["HEADER_NAME", "WkwMag", "WkwReader"]

T = TypeVar("T")

HEADER_NAME = "header.wkw"
"""The file that says how the cubes of a mag are cut and stored."""
_STAT_LIMIT = 10_000
"""Cubes whose times enter a fingerprint one by one."""
_sound_headers: dict[str, tuple[object, tuple[int, ...], bytes]] = {}
"""Per process: the headers of mags that were read, with their state at that moment and the geometry they said."""


@dataclass(frozen=True, slots=True)
class WkwMag:
    """A magnification stored as WKW; see :class:`~wkdask.storage.protocol.StoredMag` for the contract.

    Open one with :meth:`open` or :meth:`create`.
    """

    path: str
    """The absolute, real path of the mag's folder."""
    header: WkwHeader
    """What its ``header.wkw`` says."""
    outside: str = "read-only"
    """What may happen with cubes that are links out of the dataset: one of `OUTSIDE`."""
    spec: ArraySpec = field(init=False, compare=False)
    """Type and cut."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", self.header.to_spec())

    def __reduce__(self) -> tuple[type[WkwMag], tuple[str, WkwHeader, str]]:
        return (WkwMag, (self.path, self.header, self.outside))

    @classmethod
    def open(cls, path: str) -> WkwMag:
        """Open a folder by its ``header.wkw``.

        Raises
        ------
        DamagedHeaderError
            If the header is missing or damaged.
        """
        folder = checked_path(os.path.realpath(checked_path(path)))
        return cls(folder, read_header(os.path.join(folder, HEADER_NAME)))

    @classmethod
    def create(cls, path: str, spec: ArraySpec) -> WkwMag:
        """Make a folder with a ``header.wkw``, published atomically.

        Raises
        ------
        UnsupportedFormatError, DTypeError
            If WKW cannot hold such an array; nothing is written then.
        """
        header = header_of_spec(spec)
        folder = checked_path(path)
        os.makedirs(folder, exist_ok=True)
        atomic_write(os.path.join(folder, HEADER_NAME), header.to_bytes())
        return cls(os.path.realpath(folder), header)

    @property
    def metadata_path(self) -> str:
        """The path of ``header.wkw``."""
        return f"{self.path}/{HEADER_NAME}"

    # --- names ---------------------------------------------------------------------------------------

    def cube_path(self, index: Vec3Int) -> str:
        """Return the path of a cube's file."""
        return f"{self.path}/z{index.z}/y{index.y}/x{index.x}.wkw"

    def cubes_on_disk(self) -> Iterator[Vec3Int]:
        """Yield the indices of the cubes that exist, z slowest."""
        self.checked_header()
        for z in _numbered(self.path, "z", ""):
            for y in _numbered(f"{self.path}/z{z}", "y", ""):
                for x in _numbered(f"{self.path}/z{z}/y{y}", "x", ".wkw"):
                    yield Vec3Int(x, y, z)

    def fingerprint(self, box: BoundingBox) -> str:
        """Return a text that changes when a cube in the box is rewritten.

        Up to 10 000 cubes are looked at one by one; above that the times of the mag's folders and of the stamp.
        """
        header = self._header_of(self._header_state())
        return fingerprint_of(self.path, header, self._telling_names(box))

    def _telling_names(self, box: BoundingBox) -> list[str]:
        """Return the names of the files that tell whether the content of a box has changed."""
        cubes = self.spec.grid.cubes(box)
        if cubes.shape.prod() > _STAT_LIMIT:  # not len(): a legal box may have more cubes than that counts
            return self._summary_names()
        return [self.cube_path(index)[len(self.path) + 1 :] for index in cubes]

    def _summary_names(self) -> list[str]:
        """Return the names that stand for all cubes, where those are too many."""
        return [*(f"z{z}" for z in _numbered(self.path, "z", "")), STAMP]

    # --- reading -------------------------------------------------------------------------------------

    def read(self, box: BoundingBox, threads: int = 1) -> Voxels:
        """Return the voxels of a box, ``(c, *box.size)`` in Fortran order; zeros where there is no cube."""
        return self._while_header_stays(box, lambda: self._read_once(box, threads))

    def kept_open(self, most_cubes: int) -> WkwReader:
        """Return a reader that keeps so many cubes open at most."""
        self.checked_header()
        return WkwReader(self, OpenCubes(most_cubes, self._open_cube))

    def shrink(self, box: BoundingBox, factors: Vec3Int, mode: str, out: Voxels) -> None:
        """Write the voxels of a box, shrunk, into an array; they never lie in memory as a whole."""
        from wkdask.kernels import BLOCK_MODES, downsample

        if mode not in BLOCK_MODES or any(self.spec.chunk_shape % factors):
            downsample(self.read(box), tuple(factors), mode, out=out)
            return

        def work() -> None:
            for index, piece in self.spec.grid.pieces(box):
                target = BoundingBox((piece.topleft - box.topleft) // factors, piece.size // factors)
                place = out[(slice(None), *target.to_slices())]
                path, inner = self.cube_path(index), piece.offset(-(index * self.spec.shard_shape))
                if not (self.check_cube(path) and shrink_box(path, self.header, inner, factors, mode, place)):
                    place[...] = 0

        self._while_header_stays(box, work)

    def _while_header_stays(self, box: BoundingBox, work: Callable[[], T]) -> T:
        """Return what is read of a box; again, if the mag's header was replaced meanwhile."""
        check_coordinates(box, self.spec.shard_shape)
        for _ in range(16):
            before = self._header_state()
            self._header_of(before)
            try:
                out = work()
            except OSError:
                if self._header_state() == before:
                    raise
                continue
            # A mag that was removed while it was read had no cubes any more, which is not to say zeros.
            if self._header_state() == before:
                return out
        raise DamagedHeaderError(f"{self.path}/{HEADER_NAME} is replaced again and again")

    def _header_state(self) -> tuple[int, int] | None:
        """Return what changes when the mag's header is replaced; None if it is gone."""
        try:
            info = os.stat(f"{self.path}/{HEADER_NAME}")
        except OSError:
            return None
        return (info.st_ino, info.st_ctime_ns)

    def _header_of(self, state: tuple[int, int] | None) -> bytes:
        """Return the header's bytes as `checked_header` does; what was read in the same state is not read again."""
        known = _sound_headers.get(self.path)
        if known is not None and known[0] == state and known[1] == self.header.geometry:
            return known[2]
        data = self.checked_header()
        # Not where it may change again without a new time.
        if state is not None and time.time_ns() - state[1] > SETTLED_NS:
            if len(_sound_headers) > 10_000:
                _sound_headers.clear()
            _sound_headers[self.path] = (state, self.header.geometry, data)
        return data

    def _read_once(self, box: BoundingBox, threads: int) -> Voxels:
        """Read a box; only missing cubes need zeros."""
        out = empty_block(self.spec, box)
        if not box.is_empty():
            self.read_cubes(box, out, threads, self._open_cube)
        return out

    def read_cubes(
        self, box: BoundingBox, out: Voxels, threads: int, open_cube: Callable[[str], OpenCube | None]
    ) -> None:
        """Read a box into an array whose channels, then x, are contiguous."""
        target, corner, side = target_of(out), box.topleft, self.spec.shard_shape

        def read(cube: OpenCube | None, index: Vec3Int, low: Corner, high: Corner) -> None:
            origin = [c - n * s for c, n, s in zip(corner, index, side, strict=True)]
            if cube is not None:
                cube.read(low, high, target, origin)
            else:
                out[
                    (slice(None), *(slice(a - o, b - o) for a, b, o in zip(low, high, origin, strict=True)))
                ] = 0

        read_cubes(self.spec, box, threads, lambda index: open_cube(self.cube_path(index)), read)

    def _open_cube(self, path: str) -> OpenCube | None:
        """Open and check a cube; None where there is no such file."""
        if self.outside == "refuse":
            self._check_place(path)
        cube = opened_cube(path, self.header)
        if cube is None:
            _refuse_dangling(path)
        return cube

    def _check_place(self, path: str) -> None:
        """Refuse a cube that is a link out of the dataset, where those are not to be read."""
        if (target := leads_out(self.path, path)) is not None:
            raise OutsideError(f"the cube {path} leads to {target}, outside of the dataset; it is not read")

    def checked_header(self) -> bytes:
        """Return the header's bytes as they are on disk now; the mag must still be there, cut as it was."""
        name = f"{self.path}/{HEADER_NAME}"

        def look() -> bytes:
            header = read_header(name)
            if header.geometry != self.header.geometry:
                raise DamagedHeaderError(
                    f"{name} now says {header}, it said {self.header} when it was opened"
                )
            return header.to_bytes()

        return reliably(name, look, HEADER_SIZE)

    def check_cube(self, path: str) -> bool:
        """Check a cube's header, size and jump table; False where there is no such file."""
        if self.outside == "refuse":
            self._check_place(path)
        return is_sound(path, self.header) or self._open_cube(path) is not None

    def is_empty(self, box: BoundingBox) -> bool:
        """Return whether there is no cube in a box."""
        cubes = self.spec.grid.cubes(box)
        return self._while_header_stays(
            box, lambda: not any(self.check_cube(self.cube_path(index)) for index in cubes)
        )

    # --- building ------------------------------------------------------------------------------------

    def prepare_scratch(self, root: str) -> None:
        """Put a ``header.wkw`` into a private folder."""
        with open(os.path.join(root, HEADER_NAME), "wb") as file:
            file.write(self.header.to_bytes())

    def slot_path(self, root: str, slot: int) -> str:
        """Return the path of the cube (slot, 0, 0) of a private folder."""
        return f"{root}/z0/y0/x{slot}.wkw"

    def build(
        self,
        root: str,
        slot: int,
        box: BoundingBox,
        block: Voxels,
        base: str | None,
        *,
        flushed: bool = False,
        min_max: MinMax | None = None,
    ) -> bool:
        """Build a cube in a private folder; False if it would hold only zeros."""
        return wkw_build.build_cube(
            self.slot_path(root, slot), self.header, box, block, base, flushed, min_max
        )

    def encode(self, root: str, slot: int, source: str) -> bool:
        """Store a plain cube of a private mag in a slot, as this mag stores its cubes."""
        return wkw_build.encode_cube(self.slot_path(root, slot), self.header, source)

    def write_in_place(
        self, box: BoundingBox, block: Voxels, *, durable: bool = False, min_max: MinMax | None = None
    ) -> None:
        """Write a block into the cubes of a private, plain mag; of a cube that gets only zeros none is made."""
        wkw_build.write_in_place(self, self.header, box, block, durable=durable, min_max=min_max)

    def drop_cube(self, index: Vec3Int) -> None:
        """Remove a cube of a private mag, if it is there."""
        wkw_build.unlink(self.cube_path(index))

    def read_scratch(self, root: str, box: BoundingBox) -> Voxels:
        """Return voxels from a private folder; slot n starts at voxel (n · cube side, 0, 0)."""
        block = np.zeros((self.spec.num_channels, *box.size), self.spec.dtype, order="F")
        for index, piece in self.spec.grid.pieces(box):
            inner = piece.offset(-(index * self.spec.shard_shape))
            read_box(self.slot_path(root, index.x), self.header, inner, block, piece.topleft - box.topleft)
        return block

    def conforms(self, path: str) -> bool:
        """Return whether a checked cube is stored with this mag's compression."""
        return wkw_build.block_type_of(path, self.header) == self.header.block_type

    # --- the driver's part ---------------------------------------------------------------------------

    def reaching(self, outside: str) -> WkwMag:
        """Return the same mag with another word on cubes that are links out of the dataset."""
        return WkwMag(self.path, self.header, outside)

    def recompressed(self, compression: str | None) -> WkwMag:
        """Return the same mag as one whose cubes should have another compression."""
        header = header_of_spec(replace(self.spec, compression=compression))
        return WkwMag(self.path, header, self.outside)

    def publish_header(self) -> None:
        """Replace ``header.wkw``, whose block type readers pass over and writers follow."""
        self.checked_header()
        atomic_write(f"{self.path}/{HEADER_NAME}", self.header.to_bytes())

    def native_header(self) -> Any:
        """Return the header as the wkw package's own object."""
        import wkw

        return wkw.Header(
            np.dtype(self.spec.dtype).type,
            num_channels=self.spec.num_channels,
            block_len=self.header.block_len,
            file_len=self.header.file_len,
            block_type=self.header.block_type,
        )

    def opened(self, path: str) -> WkwMag:
        """Open another mag, such as a private one, by its folder."""
        return WkwMag.open(path)

    def staged(self, path: str, *, raw: bool = False) -> WkwMag:
        """Make a private mag of the same type and cut; stored plainly where its cubes come in parts."""
        if os.path.exists(f"{path}/{HEADER_NAME}"):  # left by an earlier run of the job
            return WkwMag.open(path)
        os.makedirs(f"{path}/{PRIVATE}/locks", exist_ok=True)
        return WkwMag.create(path, replace(self.spec, compression=None) if raw else self.spec)

    def prepare(self, box: BoundingBox) -> None:
        """Check that the mag is there and the box within the format's reach."""
        self.checked_header()
        check_coordinates(box, self.spec.shard_shape)

    def finish(self) -> None:
        """Bump the stamp that stands for the cubes in the fingerprint of a large box."""
        bump_stamp(self.path)


@dataclass(frozen=True, slots=True)
class WkwReader:
    """Reads boxes of a mag again and again; see :class:`~wkdask.storage.protocol.KeptReader`."""

    mag: WkwMag
    """The mag."""
    cubes: OpenCubes[OpenCube]
    """Its cubes that are open."""

    def read(self, box: BoundingBox, out: Voxels, threads: int = 1) -> None:
        """Read a box into an array."""
        check_coordinates(box, self.mag.spec.shard_shape)
        missing = False

        def open_cube(path: str) -> OpenCube | None:
            nonlocal missing
            cube = self.cubes.get(path)
            missing = missing or cube is None
            return cube

        self.mag.read_cubes(box, out, threads, open_cube)
        if missing:  # of a mag that is gone that is not to say zeros
            self.mag.checked_header()

    def close(self) -> None:
        """Close the cubes."""
        self.cubes.clear()


def _refuse_dangling(path: str) -> None:
    """Raise an error where a cube is not there because a link on the way to it leads nowhere."""
    folder = os.path.dirname(path)
    for name in (path, folder, os.path.dirname(folder)):
        if os.path.islink(name) and not os.path.exists(name):
            raise DamagedCubeError(f"the cube {path}: {name} is a link that leads nowhere")


def _numbered(folder: str, prefix: str, suffix: str) -> list[int]:
    """Return the numbers n of the entries ``{prefix}{n}{suffix}`` of a folder, in order."""
    pattern = re.compile(rf"{prefix}(0|[1-9][0-9]*){re.escape(suffix)}")
    try:
        names = os.listdir(folder)
    except NotADirectoryError:
        return []
    except FileNotFoundError:
        if os.path.islink(folder):
            raise DamagedCubeError(f"{folder} is a link that leads nowhere") from None
        return []
    return sorted(int(found[1]) for name in names if (found := pattern.fullmatch(name)))
