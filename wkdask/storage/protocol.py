"""What a stored magnification is: the seam between the formats and everything else.

Lazy arrays, tasks and the driver know a :class:`StoredMag` and nothing of WKW or Zarr. A stored mag is a
plain value (absolute path, :class:`ArraySpec`): it holds no handle and pickles to a few hundred bytes;
handles are opened where they are needed, per thread, and stay there.
"""

from __future__ import annotations

import contextlib
import functools
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from wkdask.errors import DTypeError, InvalidValueError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.boxes import COORDINATE_LIMIT
from wkdask.geometry.grid import CubeGrid
from wkdask.geometry.voxel_size import format_bytes

if TYPE_CHECKING:
    from wkdask.kernels import MinMax

__all__ = [
    "COMPRESSIONS",
    "LARGEST_COMPRESSED",
    "OUTSIDE",
    "PRIVATE",
    "STAMP",
    "ZARR_COMPRESSIONS",
    "ArraySpec",
    "CubeBuilder",
    "CubeFiles",
    "KeptReader",
    "MagMetadata",
    "MagReader",
    "PrivateMags",
    "StoredMag",
    "Voxels",
    "bump_stamp",
    "check_coordinates",
    "empty_block",
    "leads_out",
]

Voxels = npt.NDArray[Any]
"""Voxels as an array ``(c, x, y, z)``."""

PRIVATE = ".wkdask"
"""Folder in a mag for locks, jobs and the stamp; hidden, so that every reader passes over it."""

STAMP = f"{PRIVATE}/locks/stamp"
"""File that the driver makes anew after every job on a mag."""

LARGEST_COMPRESSED = 1 << 40
"""Bytes of a compressed cube that is written: one task compresses all of it, a tebibyte in minutes to hours."""
COMPRESSIONS = (None, "lz4", "lz4hc")
"""How a WKW cube can be stored: plain, LZ4 (fast), LZ4 with a thorough search (20-40 % smaller for labels)."""

ZARR_COMPRESSIONS = ("zstd", "gzip", "zlib", "blosc")
"""How the chunks of a Zarr array can be compressed; new ones by Zstandard, unless another is asked for."""

OUTSIDE = ("read-only", "refuse", "write")
"""What may happen with what a path or a link of a dataset reaches outside of its folder."""

DTYPES = (
    "uint8", "uint16", "uint32", "uint64", "float32", "float64", "int8", "int16", "int32", "int64",
)  # fmt: skip
"""The types of a voxel's channel, in the order of wkw's own numbering from 1 on."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Type and cut of a stored magnification.

    Raises
    ------
    DTypeError
        If the type is none of the ten that WEBKNOSSOS knows.
    InvalidValueError
        If a side is not positive, the cube is no multiple of the chunk, or the compression is unknown.
    """

    dtype: str
    """numpy name of the type of one channel."""
    num_channels: int
    """Channels of a voxel."""
    chunk_shape: Vec3Int
    """Voxels (x, y, z) of the unit that is encoded on its own, usually 32³."""
    shard_shape: Vec3Int
    """Voxels (x, y, z) of a cube: one file, one owner, one publication."""
    compression: str | None
    """One of `COMPRESSIONS` or `ZARR_COMPRESSIONS`."""
    layout: str = "wkw"
    """The format, and in it whatever else the bytes of a file depend on: mags of equal specs share cube files."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise DTypeError(f"a layer cannot hold {self.dtype}; known types are {', '.join(DTYPES)}")
        if self.num_channels < 1:
            raise InvalidValueError(f"a layer needs at least one channel, got {self.num_channels}")
        if not self.chunk_shape.is_positive(strictly=True) or not self.shard_shape.is_positive(strictly=True):
            raise InvalidValueError(
                f"the sides of chunks and cubes must be positive, got {self.chunk_shape} and {self.shard_shape}"
            )
        if any(self.shard_shape % self.chunk_shape):
            raise InvalidValueError(
                f"the shard shape {self.shard_shape} must be a multiple of the chunk shape {self.chunk_shape}"
            )
        if self.compression not in (*COMPRESSIONS, *ZARR_COMPRESSIONS):
            raise InvalidValueError(
                f'unknown compression {self.compression!r}; known are None, "lz4" and "lz4hc" in WKW, '
                f"None and {', '.join(ZARR_COMPRESSIONS)} in Zarr"
            )

    @property
    def data_format(self) -> str:
        """``"wkw"``, ``"zarr3"`` or ``"zarr"``."""
        return self.layout.partition(":")[0]

    def __str__(self) -> str:
        stored = self.compression or "plain"
        return (
            f"{self.dtype}, {self.num_channels} channel(s), chunks of {self.chunk_shape}, cubes of "
            f"{self.shard_shape}, {stored}"
        )

    @property
    def grid(self) -> CubeGrid:
        """The cube grid."""
        return CubeGrid(self.shard_shape)

    @property
    def bytes_per_voxel(self) -> int:
        """Bytes of one voxel, all channels."""
        return self.num_channels * np.dtype(self.dtype).itemsize

    @property
    def cube_nbytes(self) -> int:
        """Bytes of the voxels of one cube, uncompressed."""
        return self.shard_shape.prod() * self.bytes_per_voxel


class KeptReader(Protocol):
    """Reads boxes of a mag again and again, and keeps cubes open meanwhile; made by :meth:`MagReader.kept_open`.

    The mag's metadata count as they were when it was made. A cube that is replaced is noticed. Many threads may
    read at once; a forked child makes a reader of its own.
    """

    def read(self, box: BoundingBox, out: Voxels, threads: int = 1) -> None:
        """Read a box into an array ``(c, *box.size)``, whose channels, then x, are contiguous.

        Raises
        ------
        DamagedCubeError, DamagedHeaderError
            As :meth:`MagReader.read`. The mag's metadata are looked at where there is no cube.
        """

    def close(self) -> None:
        """Close the cubes."""


class MagReader(Protocol):
    """What reads a magnification: its type and chunk layout, its voxels, and whether they changed."""

    @property
    def path(self) -> str:
        """The absolute, real path of the mag's folder."""

    @property
    def spec(self) -> ArraySpec:
        """Type and cut."""

    @property
    def outside(self) -> str:
        """What may happen with cubes that are links out of the dataset: one of `OUTSIDE`."""

    @property
    def metadata_path(self) -> str:
        """The path of the file that makes the folder a mag."""

    def read(self, box: BoundingBox, threads: int = 1) -> Voxels:
        """Return the voxels of a box; zeros where there is no cube.

        Raises
        ------
        DamagedCubeError
            If a cube exists but cannot be read; names the file.
        DamagedHeaderError
            If the mag's metadata are gone: an unmounted share is not an empty one.
        """

    def kept_open(self, most_cubes: int) -> KeptReader:
        """Return a reader that keeps so many cubes open at most."""

    def shrink(self, box: BoundingBox, factors: Vec3Int, mode: str, out: Voxels) -> None:
        """Write the voxels of a box into an array, one for each window of the factors.

        What ``downsample(self.read(box), factors, mode, out)`` of `wkdask.kernels` does, in fewer passes over the
        memory where the format allows it; of a compressed mag all voxels are read first. Raises as :meth:`read`.

        Parameters
        ----------
        box
            On the grid of the factors, in voxels of the mag.
        factors, mode
            As for :func:`wkdask.kernels.downsample`; not ``"bicubic"``, which looks beyond the box.
        out
            The array ``(c, *box.size // factors)``, of the mag's type; channels, then x, are contiguous.
        """

    def is_empty(self, box: BoundingBox) -> bool:
        """Return whether a box is known to be zero without reading voxels: no file has any of it."""

    def fingerprint(self, box: BoundingBox) -> str:
        """Return a text that changes when a cube that the box touches is rewritten."""

    def cubes_on_disk(self) -> Iterator[Vec3Int]:
        """Yield the indices of the cubes that exist, and of those that hold something without a file."""

    def native_header(self) -> Any:
        """Return what the format's own library calls the header of an array."""


class CubeFiles(Protocol):
    """Where the cubes of a magnification are, and whether a file is one of them."""

    def cube_path(self, index: Vec3Int) -> str:
        """Return the path under which a cube is published."""

    def check_cube(self, path: str) -> bool:
        """Check a cube file as far as native code relies on it; False where there is no such file.

        Raises
        ------
        DamagedCubeError
            If it exists and is not a sound cube of this mag.
        """

    def conforms(self, path: str) -> bool:
        """Return whether a checked cube is stored with this mag's compression."""


class CubeBuilder(Protocol):
    """What makes the files of cubes in a private folder, before they are published.

    A folder has numbered slots, one for each cube.
    """

    def prepare_scratch(self, root: str) -> None:
        """Make a new private folder ready for :meth:`build`."""

    def slot_path(self, root: str, slot: int) -> str:
        """Return where :meth:`build` leaves a cube in a private folder."""

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
        """Build a cube in a private folder from a block and, around it, the voxels of an older cube.

        Parameters
        ----------
        root
            A private folder that :meth:`prepare_scratch` made ready, used by this thread only.
        slot
            Number of the cube within the folder; what lies there is replaced.
        box
            Where the block lies, relative to the cube's corner.
        block
            The voxels, ``(c, *box.size)``, any order.
        base
            Path of a checked cube whose other voxels are kept; None where there is none.
        flushed
            The caller flushes the cube to the disk when it is built: begin with that.
        min_max
            Takes in the voxels of the block, on their way.

        Returns
        -------
        bool
            False if the cube would hold zeros only; nothing is built then.
        """

    def encode(self, root: str, slot: int, source: str) -> bool:
        """Store a plain cube in a slot, as this mag stores its cubes; False if it would hold zeros only.

        Takes little memory whatever the cube's size. A plain cube gets a second name: `source` and what is built
        are one file then. In WKW, where each cube says how it is stored, `source` may be compressed.
        """

    def read_scratch(self, root: str, box: BoundingBox) -> Voxels:
        """Return voxels from a private folder; slot n starts at voxel (n · cube side, 0, 0)."""


class PrivateMags(Protocol):
    """Private magnifications of the same format, which the tasks of one job fill in place and only they read."""

    def opened(self, path: str) -> StoredMag:
        """Open another mag of the same format, such as a private one, by its folder."""

    def staged(self, path: str, *, raw: bool = False) -> StoredMag:
        """Make a private mag of the same type and cut, for a job that builds all before it publishes any.

        With `raw` it is stored plainly, also where this mag is compressed: see :meth:`write_in_place`. One that
        an earlier run of the job left is opened.
        """

    def write_in_place(
        self, box: BoundingBox, block: Voxels, *, durable: bool = False, min_max: MinMax | None = None
    ) -> None:
        """Write a block into cubes of a private mag made by ``staged(raw=True)``, which come into being so.

        Several tasks may fill one cube at once, as long as no two of them write into the same chunk. A task
        that may be run twice at once writes all that it has of a chunk in one call: then both write the same
        bytes. A cube that gets only zeros is not made. With `durable` the cubes are flushed to the disk.
        `min_max` takes in the voxels of the block, on their way.
        """

    def drop_cube(self, index: Vec3Int) -> None:
        """Remove a cube of a private mag, if it is there."""


class MagMetadata(Protocol):
    """The metadata of a magnification before and after a job, for its driver only, and variants of the mag."""

    def publish_header(self) -> None:
        """Replace the mag's metadata by those of this object (driver only)."""

    def recompressed(self, compression: str | None) -> StoredMag:
        """Return the same mag as one whose cubes should have another compression; nothing is written."""

    def reaching(self, outside: str) -> StoredMag:
        """Return the same mag with another word on cubes that are links out of the dataset: one of `OUTSIDE`."""

    def prepare(self, box: BoundingBox) -> None:
        """Make the mag ready for tasks that write into a box (driver only, before the first task)."""

    def finish(self) -> None:
        """Note that a job changed the mag (driver only, after the last task)."""


class StoredMag(MagReader, CubeFiles, CubeBuilder, PrivateMags, MagMetadata, Protocol):
    """A magnification on disk: all that a format implements.

    All boxes are absolute and count voxels of this mag; all arrays are ``(c, x, y, z)``, Fortran-ordered
    where they are returned. Everything may be called from many threads and processes at once.
    """


def empty_block(spec: ArraySpec, box: BoundingBox) -> Voxels:
    """Return a new array for the voxels of a box, ``(c, *box.size)`` in Fortran order.

    It is not zeroed: large new arrays come in huge pages that way.

    Raises
    ------
    InvalidValueError
        If it is more than this machine's memory can hold: a layer's box may say anything up to 2**32 voxels.
    """
    nbytes = box.volume() * spec.bytes_per_voxel
    if nbytes > (memory := _memory()):
        raise InvalidValueError(
            f"the box {box} has {format_bytes(nbytes)}, this machine's memory {format_bytes(memory)}; "
            f"read a part of it, or use to_dask()"
        )
    try:
        return np.empty((spec.num_channels, *box.size), dtype=spec.dtype, order="F")
    except ValueError as error:  # numpy multiplies the sides, also where one of them is 0
        raise InvalidValueError(f"no array can have the shape of the box {box}: {error}") from None


@functools.cache
def _memory() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def leads_out(mag_path: str, path: str) -> str | None:
    """Return where a path in a mag leads if its links leave the dataset; None where they do not.

    Parameters
    ----------
    mag_path
        The real path of the mag's folder; the dataset is two folders above it.
    path
        A cube of the mag.
    """
    target = os.path.realpath(path)
    dataset = os.path.dirname(os.path.dirname(mag_path))
    return None if target == path or os.path.commonpath([dataset, target]) == dataset else target


def bump_stamp(path: str) -> None:
    """Bump the stamp of a mag's folder, which stands for its cubes in the fingerprint of a large box."""
    stamp = f"{path}/{STAMP}"
    with contextlib.suppress(FileNotFoundError):  # the mag was deleted meanwhile, and must not come back so
        for folder in (f"{path}/{PRIVATE}", os.path.dirname(stamp)):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder)
        # A new file each time: the old one may belong to another user, or be a link.
        temporary = f"{stamp}.{uuid.uuid4().hex}.tmp"
        with open(temporary, "xb"):
            pass
        os.replace(temporary, stamp)


def check_coordinates(box: BoundingBox, shard_shape: Vec3Int) -> None:
    """Refuse a box that a format counting in unsigned 32 bits would wrap around.

    Raises
    ------
    InvalidValueError
        If a corner is negative, or the cube around the far corner ends beyond 2**32. A box without voxels
        touches no cube: it only needs a corner below 2**32.
    """
    if min(box.topleft) >= 0 and max(box.bottomright) + max(shard_shape) < COORDINATE_LIMIT:
        return  # the usual case, in a fifth of the time
    if not box.topleft.is_positive():
        raise InvalidValueError(f"voxel coordinates cannot be negative, got the box {box}")
    if box.is_empty():
        beyond = max(box.topleft) >= COORDINATE_LIMIT or max(box.bottomright) > COORDINATE_LIMIT
    else:
        beyond = max(box.bottomright.ceildiv(shard_shape) * shard_shape) >= COORDINATE_LIMIT
    if beyond:
        raise InvalidValueError(f"the box {box} ends beyond voxel 2**32, where the format stops counting")
