"""How the files of Zarr cubes are made: whole, from a part and an older file, from a plain one, or part by part.

All of it happens in private folders. :mod:`wkdask.storage.zarr.shard` reads files and checks them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.fsio import LARGE_NBYTES, flushing, fsync_files, fsync_folder, make_folders
from wkdask.geometry import BoundingBox
from wkdask.storage.checksums import crc32c
from wkdask.storage.protocol import StoredMag, Voxels
from wkdask.storage.zarr.codecs import encode
from wkdask.storage.zarr.layout import ZarrLayout, layout_of_spec
from wkdask.storage.zarr.shard import (
    ABSENT,
    Corner,
    CubeFile,
    Numbers,
    Table,
    Touched,
    index_nbytes,
    places_in_plain_file,
    read_file,
    region,
)
from wkdask.storage.zarr.zstd import compressor

if TYPE_CHECKING:
    from wkdask.kernels import MinMax

__all__ = ["build_cube", "encode_cube", "read_scratch", "write_in_place"]

_BUFFER_NBYTES = 1 << 20


def build_cube(
    mag: StoredMag,
    layout: ZarrLayout,
    path: str,
    box: BoundingBox,
    block: Voxels,
    base: str | None,
    *,
    threads: int,
    flushed: bool = False,
    min_max: MinMax | None = None,
) -> bool:
    """Build a cube at a path in a private folder, over what is there; False if it would hold only zeros.

    ::

        whole block      -> chunk by chunk: a piece of the block, its bytes, encoded
        part of a cube   -> chunks beside it are copied as they are, without decoding
                            chunks that it touches in part are decoded, changed, encoded
    """
    spec = mag.spec
    shape = (spec.num_channels, *box.size)
    if block.dtype != np.dtype(spec.dtype) or block.shape != shape:
        raise InvalidValueError(f"a block is {block.dtype} {block.shape}, expected {spec.dtype} {shape}")
    if min_max is not None:
        min_max.add(block)
    _remove(path)
    low, high = region(box.topleft, box.size, (0, spec.num_channels))
    with contextlib.ExitStack() as stack:
        old = None
        if base is not None and box.size != spec.shard_shape:
            old = stack.enter_context(_existing(base, layout, mag.path))
        large = flushed and block.nbytes >= LARGE_NBYTES
        return build_file(path, layout, low, high, block, old, threads=threads, flushed=large)


def encode_cube(layout: ZarrLayout, path: str, source: str, root: str) -> bool:
    """Store a checked plain cube at a path, as the mag stores its cubes; False if it holds only zeros."""
    plain = layout_of_spec(replace(layout.to_spec(), compression=None), layout.data_format)
    with _existing(source, plain, root) as file:
        _remove(path)
        return encode_file(path, layout, file)


def read_scratch(mag: StoredMag, layout: ZarrLayout, root: str, box: BoundingBox) -> Voxels:
    """Return voxels from a private folder; slot n starts at voxel (n · cube side, 0, 0)."""
    spec = mag.spec
    slot = box.topleft.x // spec.shard_shape.x
    out = np.empty((spec.num_channels, *box.size), spec.dtype, order="F")
    inner = box.offset((-slot * spec.shard_shape.x, 0, 0))
    with _existing(mag.slot_path(root, slot), layout, root) as file:
        read_file(file, *region(inner.topleft, inner.size, (0, spec.num_channels)), out)
    return out


def write_in_place(
    mag: StoredMag,
    layout: ZarrLayout,
    box: BoundingBox,
    block: Voxels,
    *,
    durable: bool,
    min_max: MinMax | None,
) -> None:
    """Write a block into the cubes of a private, plain mag; of a cube that gets only zeros none is made.

    Each chunk has its own place in a plain cube, so that tasks may write other chunks of it meanwhile.
    """
    if layout.codecs:
        raise InvalidValueError(f"{mag.path} is compressed; parts of a cube can only be stored plainly")
    if min_max is not None:
        min_max.add(block)
    touched: list[str] = []
    folders: set[str] = set()
    for index, piece in mag.spec.grid.pieces(box):
        part = block[(slice(None), *piece.to_slices(box.topleft))]
        path = mag.cube_path(index)
        if not os.path.lexists(path) and not np.ascontiguousarray(part).view(np.uint8).any():
            continue
        folders.update(make_folders(mag.path, os.path.dirname(path)))
        inner = piece.offset(-(index * mag.spec.shard_shape))
        descriptor = lay_out_file(path, layout)
        try:
            corners = region(inner.topleft, inner.size, (0, mag.spec.num_channels))
            write_in_file(descriptor, layout, *corners, part)
        finally:
            os.close(descriptor)
        touched.append(path)
    if durable and touched:
        fsync_files(touched)
        for folder in sorted(folders):
            fsync_folder(folder)


def _existing(path: str, layout: ZarrLayout, mag_path: str) -> CubeFile:
    """Open a file that must be there."""
    file = CubeFile.open(path, layout, mag_path)
    if file is None:
        raise FileNotFoundError(errno.ENOENT, "the cube was there and is gone", path)
    return file


def _remove(path: str) -> None:
    """Remove a file if there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


# --- files --------------------------------------------------------------------------------------------


class _NewFile:
    """A file that gets its chunks one after the other, and then its index."""

    def __init__(self, file: BinaryIO, layout: ZarrLayout) -> None:
        self._file = file
        self._layout = layout
        self._position = 0
        self._table = np.full((layout.num_chunks, 2), ABSENT, "<u8")
        self._at_end = layout.sharding is None or layout.sharding.at_end
        if not self._at_end:
            self._write(bytes(index_nbytes(layout)))

    def put(self, n: int, data: Any) -> None:
        """Append the encoded bytes of a chunk."""
        self._table[n] = self._position, len(data)
        self._write(data)

    def _write(self, data: Any) -> None:
        """Append bytes."""
        self._position += self._file.write(data)

    def put_all(self, numbers: Numbers, sizes: Table, data: Any) -> None:
        """Append chunks that lie one after the other; those of size 0 are none."""
        there = np.flatnonzero(sizes)
        ends = np.cumsum(sizes[there]) + np.uint64(self._position)
        self._table[numbers[there], 0] = ends - sizes[there]
        self._table[numbers[there], 1] = sizes[there]
        self._write(data[: int(sizes.sum())])

    def finish(self) -> bool:
        """Write the index; False if there is no chunk."""
        if (self._table == ABSENT).all():
            return False
        if self._layout.sharding is not None:
            if not self._at_end:
                self._file.seek(0)
            self._file.write(_index_bytes(self._layout, self._table))
        return True


def build_file(
    path: str,
    layout: ZarrLayout,
    low: Corner,
    high: Corner,
    block: Voxels,
    base: CubeFile | None,
    *,
    threads: int = 1,
    flushed: bool = False,
) -> bool:
    """Write a new file of the voxels of a region and, around it, those of an older file.

    Chunks that the region does not touch are copied as they are, without decoding; of a chunk that it touches
    in part the other voxels are decoded. Chunks of zeros are left out. With `flushed` the disk works meanwhile, for
    a caller that flushes the file at the end.

    Returns
    -------
    bool
        False if there would be no chunk; no file is made then.
    """
    scratch = np.empty(layout.chunk_nbytes, np.uint8)
    voxels = layout.view(scratch.view(layout.stored_dtype))
    touched = Touched.of(layout, low, high)
    with (
        open(path, "xb", buffering=_BUFFER_NBYTES) as file,
        flushing(file.fileno()) if flushed else contextlib.nullcontext(),
    ):
        new = _NewFile(file, layout)
        if base is not None:
            kept = np.setdiff1d(np.arange(layout.num_chunks), touched.numbers)
            for k, data in base.encoded(kept):
                if layout.codecs or np.frombuffer(data, np.uint8).any():  # else a hole in a plain cube
                    new.put(int(kept[k]), data)
        packed = _pack(new, layout, touched, block, threads)
        for k in np.flatnonzero(~touched.whole | (not packed)).tolist():
            if not touched.whole[k]:
                scratch[:] = 0
                for _, old in base.decoded(touched.numbers[k : k + 1]) if base is not None else ():
                    np.copyto(voxels, old)
            inner, outer = touched.slices(k)
            np.copyto(voxels[inner], block[outer])
            if scratch.any():
                new.put(int(touched.numbers[k]), encode(layout.codecs, scratch))
        full = new.finish()
    if not full:
        os.unlink(path)
    return full


def _pack(new: _NewFile, layout: ZarrLayout, touched: Touched, block: Voxels, threads: int) -> bool:
    """Encode the chunks that are whole in a block, many at a time; False where that cannot be done."""
    from wkdask.kernels.chunks import can_pack, pack_chunks

    if not (layout.is_packed and block.shape[0] == layout.chunk[0] and can_pack(block)):
        return False
    options = layout.codecs[0].settings
    level, checksum = int(options.get("level", 0)), bool(options.get("checksum"))
    found = compressor(level, checksum, layout.chunk_nbytes)
    if found is None:
        return False
    _, bound = found
    whole = np.flatnonzero(touched.whole)
    step = max(1, _BUFFER_NBYTES // bound)
    batches = [whole[start : start + step] for start in range(0, len(whole), step)]

    def pack(batch: Numbers) -> tuple[Table, Any]:
        # A thread has a context of its own.
        context, _ = compressor(level, checksum, layout.chunk_nbytes) or found
        out = np.empty(len(batch) * bound, np.uint8)
        corners, one = touched.outer[batch, 1:], partial(encode, layout.codecs)
        return pack_chunks(block, corners, layout.chunk[1:], context, bound, out, one), out

    packed = map(pack, batches) if threads == 1 or len(batches) == 1 else _ahead(pack, batches, threads)
    for batch, (sizes, out) in zip(batches, packed, strict=True):
        new.put_all(touched.numbers[batch], sizes, out)
    return True


def _ahead(function: Callable[[Numbers], Any], arguments: Sequence[Numbers], threads: int) -> Iterator[Any]:
    """Yield results in order, made by threads that are a few ahead of who takes them."""
    with ThreadPoolExecutor(threads, thread_name_prefix="wkdask-pack") as pool:
        begun: deque[Future[Any]] = deque()
        for argument in arguments:
            begun.append(pool.submit(function, argument))
            if len(begun) > 2 * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def encode_file(path: str, layout: ZarrLayout, source: CubeFile) -> bool:
    """Write a new file of the chunks of one of another layout, but the same cut; False if all are zeros."""
    scratch = np.empty(layout.chunk_nbytes, np.uint8)
    voxels = layout.view(scratch.view(layout.stored_dtype))
    theirs, ours = (Touched.of(each, (0, 0, 0, 0), each.shard).numbers for each in (source.layout, layout))
    with open(path, "xb", buffering=_BUFFER_NBYTES) as file:
        new = _NewFile(file, layout)
        for k, chunk in source.decoded(theirs):
            np.copyto(voxels, chunk)
            if scratch.any():
                new.put(int(ours[k]), encode(layout.codecs, scratch))
        full = new.finish()
    if not full:
        os.unlink(path)
    return full


def _index_bytes(layout: ZarrLayout, table: Table) -> bytes:
    """Return the index of a shard as it is stored."""
    data = table.astype("<u8").tobytes()
    with_checksum = layout.sharding is not None and layout.sharding.checksum
    return data + struct.pack("<I", crc32c(data)) if with_checksum else data


def lay_out_file(path: str, layout: ZarrLayout) -> int:
    """Return a descriptor of an uncompressed file with room for every chunk, created if it is missing.

    It is the same file whichever task makes it, so that several tasks may fill it at once.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        nbytes = layout.num_chunks * layout.chunk_nbytes
        if os.fstat(descriptor).st_size < nbytes + index_nbytes(layout):
            if layout.sharding is None:
                os.truncate(descriptor, nbytes)
            else:
                os.pwrite(descriptor, _index_bytes(layout, places_in_plain_file(layout)), nbytes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_in_file(descriptor: int, layout: ZarrLayout, low: Corner, high: Corner, block: Voxels) -> None:
    """Write a region into a file that :func:`lay_out_file` made; only the chunks that it touches change.

    Zeros are not written over zeros: the holes of the file stay holes.
    """
    scratch = np.empty(layout.chunk_nbytes, np.uint8)
    voxels = layout.view(scratch.view(layout.stored_dtype))
    touched = Touched.of(layout, low, high)
    for k, n in enumerate(touched.numbers.tolist()):
        place = n * layout.chunk_nbytes
        inner, outer = touched.slices(k)
        if not touched.whole[k]:
            scratch[:] = np.frombuffer(os.pread(descriptor, scratch.nbytes, place), np.uint8)
        np.copyto(voxels[inner], block[outer])
        if scratch.any() or any(os.pread(descriptor, scratch.nbytes, place)):
            os.pwrite(descriptor, scratch, place)
