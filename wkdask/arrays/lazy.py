"""A stored magnification as a lazy dask array.

::

    MagReader --(box, chunks)--> LazySource --da.from_array--> dask.array (c, x, y, z)
                                     |
                                     +-- __getitem__(index): dask asks for the voxels of one block, or of a
                                         slice that it pushed down, and gets just those from MagReader.read
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from wkdask.errors import AlignmentError, InvalidValueError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.grid import block_shape_near, chunks_on_grid
from wkdask.jobs.windows import task_name
from wkdask.storage.protocol import ArraySpec, MagReader, Voxels

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["ChunksLike", "LazySource", "Readable", "block_shape", "lazy_array"]

ChunksLike: TypeAlias = "str | int | tuple[int, ...] | None"
"""``None`` or ``"auto"``, ``"cube"``, a side, or three sides in voxels of the mag."""


class Readable(Protocol):
    """What a lazy array is made of: a stored mag, or anything else that reads boxes."""

    @property
    def path(self) -> str:
        """Where it is, absolute."""

    @property
    def spec(self) -> ArraySpec:
        """Type and cut."""

    def read(self, box: BoundingBox, threads: int = 1) -> Voxels:
        """Return the voxels of a box, ``(c, *box.size)`` in Fortran order."""


@dataclass(frozen=True, slots=True)
class LazySource:
    """An array-like over a box of a stored mag: what dask holds in place of data.

    Plain data (a path, a box), so that it pickles to a few hundred bytes; it reads when it is indexed.
    """

    store: Readable
    """The mag, or another program's array."""
    box: BoundingBox
    """The part that is index (:, 0, 0, 0) on, absolute, in voxels of the mag."""
    token: str
    """Stands for the content; part of the array's name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(c, x, y, z)``."""
        return (self.store.spec.num_channels, *self.box.size)

    @property
    def ndim(self) -> int:
        """Four."""
        return 4

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one channel."""
        return np.dtype(self.store.spec.dtype)

    def __dask_tokenize__(self) -> tuple[str, str]:
        return ("wkdask.LazySource", self.token)

    def __getitem__(self, index: Any) -> Voxels:
        """Return the voxels of an orthogonal index of integers, slices and lists.

        Only the voxels between the smallest and the largest index along each axis are read.
        """
        parts = index if isinstance(index, tuple) else (index,)
        parts = parts + (slice(None),) * (4 - len(parts))
        spans = [_span(part, n) for part, n in zip(parts, self.shape, strict=True)]
        (first, last, _), *space = spans
        box = BoundingBox.from_corners([low for low, _, _ in space], [high for _, high, _ in space])
        if first == last:  # no channel: nothing is read
            block: Voxels = np.empty((0, *box.size), self.dtype, order="F")
        else:
            block = self.store.read(box.offset(self.box.topleft))[first:last]
        # One axis at a time, last first: integers drop their axis, and lists must not broadcast together.
        for axis, (low, high, rest) in reversed(list(enumerate(spans))):
            if not (isinstance(rest, slice) and rest == slice(0, high - low, 1)):
                block = block[(slice(None),) * axis + (rest,)]
        return block


def _span(part: Any, length: int) -> tuple[int, int, Any]:
    """Return what to read along an axis, [low, high), and the index into what was read."""
    if isinstance(part, slice):
        indices = range(length)[part]
        if not indices:
            return (0, 0, slice(0, 0, 1))
        low, high = min(indices[0], indices[-1]), max(indices[0], indices[-1]) + 1
        start = indices[0] - low
        stop = None if indices.step < 0 else high - low
        return (low, high, slice(start, stop, indices.step))
    if isinstance(part, int | np.integer):
        value = range(length)[int(part)]
        return (value, value + 1, 0)
    chosen = np.asarray(part)
    if chosen.dtype == bool:
        chosen = np.flatnonzero(chosen)
    if not chosen.size:
        return (0, 0, chosen.astype(np.intp))
    chosen = np.where(chosen < 0, chosen + length, chosen)
    return (int(chosen.min()), int(chosen.max()) + 1, chosen - chosen.min())


def block_shape(store: MagReader, chunks: ChunksLike, extent: Vec3Int) -> Vec3Int:
    """Return the shape (x, y, z) of dask blocks that `chunks` asks for.

    Raises
    ------
    AlignmentError
        If a block would neither divide a cube nor be a whole number of cubes along an axis.
    InvalidValueError
        If `chunks` is something else than `ChunksLike`.
    """
    spec = store.spec
    if chunks is None or chunks == "auto":
        import dask.config
        import dask.utils

        limit = dask.utils.parse_bytes(dask.config.get("array.chunk-size"))
        return block_shape_near(spec.shard_shape, spec.chunk_shape, spec.bytes_per_voxel, limit, extent)
    if chunks == "cube":
        return spec.shard_shape
    if isinstance(chunks, str):
        raise InvalidValueError(f'chunks is "cube", "auto", a side or three sides, got {chunks!r}')
    shape = Vec3Int.from_scalar_or_vec(chunks)
    if not shape.is_positive(strictly=True):
        raise InvalidValueError(f"the sides of blocks must be positive, got {shape}")
    if any(side % cube and cube % side for side, cube in zip(shape, spec.shard_shape, strict=True)):
        raise AlignmentError(
            f"blocks of {shape} straddle the cubes of {spec.shard_shape}; along each axis a block divides a "
            f'cube or is a whole number of cubes, for example chunks="cube"'
        )
    return shape


def mag_id(store: MagReader) -> str:
    """Return a short text that is the same for the same folder, in every process."""
    return hashlib.blake2b(store.path.encode(), digest_size=8).hexdigest()


def lazy_array(store: MagReader, box: BoundingBox, chunks: ChunksLike = None) -> da.Array:
    """Return the voxels of a box as a dask array ``(c, x, y, z)``; nothing is read.

    Parameters
    ----------
    store
        The mag.
    box
        Absolute, in voxels of the mag. Index ``[:, 0, 0, 0]`` of the array is its corner.
    chunks
        See `block_shape`. Blocks are cut on the absolute cube grid, wherever the box starts.

    Notes
    -----
    The name depends on the mag's path, the box and the state of the cubes in it, so that it is the same in
    every process, and another one once a cube is rewritten.
    """
    import dask.array as da

    shape = block_shape(store, chunks, box.size)
    _refuse_too_many_blocks(box, shape)
    token = hashlib.blake2b(
        f"{store.path}|{box}|{shape}|{store.fingerprint(box)}".encode(), digest_size=12
    ).hexdigest()
    source = LazySource(store, box, token)
    return da.from_array(
        source,
        chunks=((store.spec.num_channels,), *chunks_on_grid(box, shape)),
        name=f"{_name_prefix(store)}{token}",
        fancy=True,  # only then does dask push slices down into __getitem__
        inline_array=True,
        lock=False,
        asarray=False,
        meta=np.empty((0, 0, 0, 0), dtype=source.dtype),
    )


_MAX_BLOCKS = 10**9
"""Blocks of an array: dask names them only when they are used, and more could not be used."""
_MAX_BLOCKS_ALONG_AXIS = 10**6
"""dask keeps the length of each, and compares them: three axes of so many take 3 seconds."""


def _refuse_too_many_blocks(box: BoundingBox, shape: Vec3Int) -> None:
    """Refuse an array of a box that only a damaged or hostile properties file can mean."""
    blocks = box.bottomright.ceildiv(shape) - box.topleft // shape
    if max(blocks) > _MAX_BLOCKS_ALONG_AXIS or blocks.prod() > _MAX_BLOCKS:
        raise InvalidValueError(
            f"an array of the box {box} would have {blocks} blocks of {shape}; ask for a smaller bounding_box or "
            f"for larger chunks, or set the layer's box to where its data are"
        )


def _name_prefix(store: MagReader) -> str:
    """Return how the names of all arrays over a mag start."""
    return f"{task_name('read', store.path)}-{mag_id(store)}-"
