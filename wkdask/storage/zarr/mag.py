"""Zarr: a folder with ``zarr.json`` (or ``.zarray``) and one file per shard (in Zarr 2, per chunk).

To everything else such a file is what a ``.wkw`` file is: a cube, built in private and published by a rename.
We read and build the files ourselves: a task has a whole cube in its hands anyway, and a chunk in webknossos's
order is a piece of a Fortran-ordered block. See ``benchmarks/bench_zarr.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from wkdask.errors import DamagedCubeError, DamagedHeaderError, OutsideError, UnsupportedFormatError
from wkdask.fsio import atomic_write, checked_path, lock, remove_temporaries
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.boxes import COORDINATE_LIMIT
from wkdask.storage.fingerprint import fingerprint_of
from wkdask.storage.open_cubes import OpenCubes
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
from wkdask.storage.zarr.build import build_cube, encode_cube, read_scratch, write_in_place
from wkdask.storage.zarr.layout import METADATA_NAMES, ZarrLayout, document_of, layout_of_spec
from wkdask.storage.zarr.metadata import covers, frozen, parsed, read_bytes, room_for, shape_around, to_json
from wkdask.storage.zarr.names import check_names, places_on_disk
from wkdask.storage.zarr.shard import CubeFile, fill_of, read_file

if TYPE_CHECKING:
    from wkdask.kernels import MinMax

__all__ = ["ZarrMag", "ZarrReader"]

_STAT_LIMIT = 10_000
"""Cubes whose times enter a fingerprint one by one."""


@dataclass(slots=True)
class ZarrReader:
    """Reads boxes of a mag again and again; see :class:`~wkdask.storage.protocol.KeptReader`."""

    mag: ZarrMag
    """The mag."""
    files: OpenCubes[CubeFile]
    """The files that are open."""
    extent: Vec3Int
    """Voxels that the array had when its metadata were read."""

    def read(self, box: BoundingBox, out: Voxels, threads: int = 1) -> None:
        """Read a box into an array; the metadata are read again for what lies beyond the array's end."""
        check_coordinates(box, self.mag.spec.shard_shape)
        if any(high > end for high, end in zip(box.bottomright, self.extent, strict=True)):
            self.extent = self.mag.extent()
        missing = False

        def open_file(path: str) -> CubeFile | None:
            nonlocal missing
            file = self.files.get(path)
            missing = missing or file is None
            return file

        self.mag.read_cubes(box, self.extent, out, threads, open_file)
        if missing:  # of a mag that is gone that is not to say zeros
            self.mag.extent()

    def close(self) -> None:
        """Close the files."""
        self.files.clear()


@dataclass(frozen=True, slots=True)
class ZarrMag:
    """A magnification stored as Zarr; see :class:`~wkdask.storage.protocol.StoredMag` for the contract.

    Open one with :meth:`open` or :meth:`create`. The shape is not part of the value: it grows, and is read
    anew with every read. What lies beyond it is zeros.
    """

    path: str
    """The absolute, real path of the mag's folder."""
    layout: ZarrLayout
    """What its metadata say, but for the shape."""
    outside: str = "read-only"
    """What may happen with cubes that are links out of the dataset: one of `OUTSIDE`."""
    threads: int = field(default=1, compare=False)
    """Threads that build a cube together, where there are fewer cubes than threads."""
    spec: ArraySpec = field(init=False, compare=False)
    """Type and cut."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", self.layout.to_spec())

    def __reduce__(self) -> tuple[type[ZarrMag], tuple[str, ZarrLayout, str, int]]:
        return (ZarrMag, (self.path, self.layout, self.outside, self.threads))

    @classmethod
    def open(cls, path: str, data_format: str, axis_order: Mapping[str, int] | None = None) -> ZarrMag:
        """Open a folder by its metadata.

        Parameters
        ----------
        path
            The folder.
        data_format
            ``"zarr3"`` or ``"zarr"``.
        axis_order
            Which dimension of the array is which axis, as the properties have it.

        Raises
        ------
        DamagedHeaderError
            If the metadata are missing or damaged, or say that its files have other names than they have.
        UnsupportedFormatError, DTypeError
            If the array is sound, but cannot be a layer here.
        """
        folder = os.path.realpath(checked_path(path))
        name = os.path.join(folder, METADATA_NAMES[data_format])
        axes = frozen(axis_order)
        layout, _ = reliably(name, lambda: parsed(name, read_bytes(name), data_format, axes))
        check_names(folder, len(layout.axes), layout.prefix, layout.separator)
        return cls(folder, layout)

    @classmethod
    def create(cls, path: str, spec: ArraySpec, data_format: str, extent: Vec3Int | None = None) -> ZarrMag:
        """Make a folder with metadata, published atomically.

        Parameters
        ----------
        path
            The folder.
        spec
            Type and cut.
        data_format
            ``"zarr3"`` or ``"zarr"``.
        extent
            Voxels (x, y, z) that the array shall have room for; it gets whole cubes (or see `room_for`), and grows.

        Raises
        ------
        UnsupportedFormatError, DTypeError
            If Zarr cannot hold such an array; nothing is written then.
        """
        layout = layout_of_spec(spec, data_format)
        folder = checked_path(path)
        os.makedirs(folder, exist_ok=True)
        sides = room_for((extent or Vec3Int(1, 1, 1)).pairmax(1), spec.shard_shape)
        document = document_of(layout, (spec.num_channels, *sides))
        atomic_write(os.path.join(folder, METADATA_NAMES[data_format]), to_json(document))
        return cls(os.path.realpath(folder), layout)

    # --- names ---------------------------------------------------------------------------------------

    @property
    def metadata_path(self) -> str:
        """The path of ``zarr.json`` or ``.zarray``."""
        return f"{self.path}/{METADATA_NAMES[self.layout.data_format]}"

    def cube_path(self, index: Vec3Int) -> str:
        """Return the path of a cube's file."""
        return self._file_path(index, 0)

    def _file_path(self, index: Vec3Int, channel: int) -> str:
        """Return the path of the file that holds some of a cube's channels."""
        return f"{self.path}/{self.layout.key((channel, *index))}"

    def files_of(self, index: Vec3Int) -> Iterator[tuple[str, int, int]]:
        """Yield (path, first channel, its end) of the files of a cube; but for foreign arrays there is one."""
        step = self.layout.shard[0]
        for number in range(self.layout.files_per_cube):
            yield (
                self._file_path(index, number),
                number * step,
                min((number + 1) * step, self.layout.channels),
            )

    def cubes_on_disk(self) -> Iterator[Vec3Int]:
        """Yield the indices of the cubes that exist; all of an array whose missing chunks are not zeros."""
        extent = self.extent()
        if self.layout.fill:
            yield from self.spec.grid.cubes(BoundingBox((0, 0, 0), extent))
            return
        seen = set()
        several = self.layout.files_per_cube > 1
        for place in places_on_disk(self.layout, self.path):
            numbers = dict(zip(self.layout.axes, place, strict=True))
            index = Vec3Int(*(numbers[axis] for axis in "xyz"))
            if several:
                if index in seen:
                    continue
                seen.add(index)
            yield index

    def fingerprint(self, box: BoundingBox) -> str:
        """Return a text that changes when a cube in the box is rewritten.

        Up to 10 000 cubes are looked at one by one; above that the stamp, which the driver bumps after every job.
        """
        self.extent()
        return fingerprint_of(self.path, repr(self.layout).encode(), self._telling_names(box))

    def _telling_names(self, box: BoundingBox) -> list[str]:
        """Return the names of the files that tell whether the content of a box has changed."""
        cubes = self.spec.grid.cubes(box)
        if len(cubes) * self.layout.files_per_cube > _STAT_LIMIT:
            return [STAMP]
        return [path[len(self.path) + 1 :] for index in cubes for path, _, _ in self.files_of(index)]

    # --- metadata ------------------------------------------------------------------------------------

    def _document(self) -> tuple[bytes, list[int]]:
        """Return the metadata on disk now and the array's shape; it must be laid out as it was."""
        axis_order = frozen({axis: n for n, axis in enumerate(self.layout.axes) if axis != "."})
        name = self.metadata_path

        def look() -> tuple[bytes, list[int]]:
            data = read_bytes(name)
            layout, shape = parsed(name, data, self.layout.data_format, axis_order)
            if layout != self.layout:
                raise DamagedHeaderError(
                    f"{name} now says {layout}, it said {self.layout} when it was opened"
                )
            return data, list(shape)

        return reliably(name, look)

    def extent(self) -> Vec3Int:
        """Return the voxels (x, y, z) that the array has now; the mag must still be there."""
        _, shape = self._document()
        return Vec3Int(*(min(shape[self.layout.axes.index(axis)], COORDINATE_LIMIT) for axis in "xyz"))

    # --- reading -------------------------------------------------------------------------------------

    def read(self, box: BoundingBox, threads: int = 1) -> Voxels:
        """Return the voxels of a box, ``(c, *box.size)`` in Fortran order; zeros where there is no cube."""
        check_coordinates(box, self.spec.shard_shape)
        extent = self.extent()
        out = empty_block(self.spec, box)
        self.read_cubes(box, extent, out, threads, self._open_file)
        return out

    def read_cubes(
        self,
        box: BoundingBox,
        extent: Vec3Int,
        out: Voxels,
        threads: int,
        open_file: Callable[[str], CubeFile | None],
    ) -> None:
        """Read a box of an array of so many voxels into an array; what lies beyond is zeros."""
        inside = box.intersection(BoundingBox((0, 0, 0), extent))
        if inside != box:
            out[...] = 0
        corner, side = box.topleft, self.spec.shard_shape

        def open_cube(index: Vec3Int) -> list[tuple[CubeFile | None, int, int]]:
            return [(open_file(path), first, last) for path, first, last in self.files_of(index)]

        def read(
            files: list[tuple[CubeFile | None, int, int]], index: Vec3Int, low: Corner, high: Corner
        ) -> None:
            origin = [c - n * s for c, n, s in zip(corner, index, side, strict=True)]
            place = [slice(a - o, b - o) for a, b, o in zip(low, high, origin, strict=True)]
            for file, first, last in files:
                part = out[(slice(first, last), *place)]
                if file is None:
                    part[...] = fill_of(self.layout)
                else:
                    read_file(
                        file, (0, low[0], low[1], low[2]), (last - first, high[0], high[1], high[2]), part
                    )

        read_cubes(self.spec, inside, threads, open_cube, read)

    def _open_file(self, path: str) -> CubeFile | None:
        """Open and check a file of a cube; None where there is none."""
        self._check_place(path)
        return CubeFile.open(path, self.layout, self.path)

    def kept_open(self, most_cubes: int) -> ZarrReader:
        """Return a reader that keeps so many files open at most."""
        return ZarrReader(self, OpenCubes(most_cubes, self._open_file), self.extent())

    def shrink(self, box: BoundingBox, factors: Vec3Int, mode: str, out: Voxels) -> None:
        """Write the voxels of a box, shrunk, into an array."""
        from wkdask.kernels import downsample

        downsample(self.read(box), tuple(factors), mode, out=out)

    def _check_place(self, path: str) -> None:
        """Refuse a cube that is a link out of the dataset, where those are not to be read."""
        if self.outside == "refuse" and (target := leads_out(self.path, path)) is not None:
            raise OutsideError(f"the cube {path} leads to {target}, outside of the dataset; it is not read")

    def check_cube(self, path: str) -> bool:
        """Check a cube's size and index; False where there is no such file."""
        file = self._open_file(path)
        if file is None:
            return False
        file.close()
        return True

    def is_empty(self, box: BoundingBox) -> bool:
        """Return whether there is no cube in a box, and what is not there is zero."""
        if self.layout.fill or self.layout.files_per_cube > 1:
            return False
        is_there = any(self.check_cube(self.cube_path(index)) for index in self.spec.grid.cubes(box))
        self._document()  # of a mag that is gone nothing is known
        return not is_there

    # --- building ------------------------------------------------------------------------------------

    def prepare_scratch(self, root: str) -> None:
        """Nothing is needed: a cube's file stands for itself."""

    def slot_path(self, root: str, slot: int) -> str:
        """Return the path of a cube of a private folder."""
        return f"{root}/{slot}.shard"

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
        self._refuse_foreign_layout()
        return build_cube(
            self,
            self.layout,
            self.slot_path(root, slot),
            box,
            block,
            base,
            threads=self.threads,
            flushed=flushed,
            min_max=min_max,
        )

    def encode(self, root: str, slot: int, source: str) -> bool:
        """Store a plain cube in a slot, chunk by chunk, whatever its size; False if it holds only zeros."""
        return encode_cube(self.layout, self.slot_path(root, slot), source, root)

    def _refuse_foreign_layout(self) -> None:
        """Refuse to write where a cube would not be one file, or a missing one would not be zeros."""
        if self.layout.files_per_cube > 1:
            raise UnsupportedFormatError(
                f"{self.path} holds the channels of a voxel in {self.layout.files_per_cube} files, which could "
                f"not be replaced together; it can only be read"
            )
        if self.layout.fill:
            raise UnsupportedFormatError(
                f"{self.path} has the fill value {fill_of(self.layout)}; only arrays whose missing chunks are "
                f"zeros can be written to"
            )

    def read_scratch(self, root: str, box: BoundingBox) -> Voxels:
        """Return voxels from a private folder; slot n starts at voxel (n · cube side, 0, 0)."""
        return read_scratch(self, self.layout, root, box)

    def write_in_place(
        self, box: BoundingBox, block: Voxels, *, durable: bool = False, min_max: MinMax | None = None
    ) -> None:
        """Write a block into the cubes of a private, plain mag; of a cube that gets only zeros none is made."""
        write_in_place(self, self.layout, box, block, durable=durable, min_max=min_max)

    def drop_cube(self, index: Vec3Int) -> None:
        """Remove a cube of a private mag, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.cube_path(index))

    def conforms(self, path: str) -> bool:
        """Return whether a cube is stored as this mag writes it; a plain one: with a place for every chunk."""
        if self.layout.codecs:
            return True
        try:
            file = CubeFile.open(path, self.layout, self.path)
        except DamagedCubeError:  # of a compressed mag
            return False
        if file is None:
            return False
        with file:
            return file.has_all_places()

    # --- the driver's part ---------------------------------------------------------------------------

    def reaching(self, outside: str) -> ZarrMag:
        """Return the same mag with another word on cubes that are links out of the dataset."""
        return replace(self, outside=outside)

    def recompressed(self, compression: str | None) -> ZarrMag:
        """Return the same mag, if that is its compression.

        Raises
        ------
        UnsupportedFormatError
            If it is not: the codecs of all cubes are in the array's metadata, so that cubes of another
            compression cannot replace the old ones one by one.
        """
        if compression == self.spec.compression:
            return self
        raise UnsupportedFormatError(
            f"{self.path} is {self.layout}; cubes of a Zarr array cannot be compressed in place, because a crash "
            f"would leave two kinds in one array; give target_path=, or use copy_dataset(compression=)"
        )

    def publish_header(self) -> None:
        """Nothing changes: see :meth:`recompressed`."""
        self.extent()

    def native_header(self) -> Any:
        """Return the array's metadata as zarr-python's own object."""
        import zarr

        # A text with "::" or "://" in it would be taken for a URL.
        return zarr.open_array(zarr.storage.LocalStore(self.path, read_only=True), mode="r").metadata

    def opened(self, path: str) -> ZarrMag:
        """Open another mag, such as a private one, by its folder."""
        axis_order = {axis: n for n, axis in enumerate(self.layout.axes) if axis != "."}
        with contextlib.suppress(UnsupportedFormatError, DamagedHeaderError):
            same = ZarrMag.open(path, self.layout.data_format, axis_order)
            if same.layout == self.layout:
                return same
        return ZarrMag.open(path, self.layout.data_format)  # a plain one, which has always c, x, y, z

    def staged(self, path: str, *, raw: bool = False) -> ZarrMag:
        """Make a private mag of the same type and cut; stored plainly where its cubes come in parts."""
        data_format = self.layout.data_format
        if os.path.exists(
            os.path.join(path, METADATA_NAMES[data_format])
        ):  # left by an earlier run of the job
            return ZarrMag.open(path, data_format) if raw else self.opened(path)
        os.makedirs(f"{path}/{PRIVATE}/locks", exist_ok=True)
        room = Vec3Int.full(COORDINATE_LIMIT) - self.spec.shard_shape
        if raw:
            return ZarrMag.create(path, replace(self.spec, compression=None), data_format, room)
        data, shape = self._document()
        document = json.loads(data)
        document["shape"] = shape_around(self.layout, shape, BoundingBox((0, 0, 0), room))
        atomic_write(os.path.join(path, METADATA_NAMES[data_format]), to_json(document))
        return ZarrMag(os.path.realpath(path), self.layout)

    def prepare(self, box: BoundingBox) -> None:
        """Let the array's shape grow around a box, in whole cubes (or see `room_for`)."""
        check_coordinates(box, self.spec.shard_shape)
        self._refuse_foreign_layout()
        if covers(self.layout, self._document()[1], box):
            return
        os.makedirs(f"{self.path}/{PRIVATE}/locks", exist_ok=True)
        with lock(f"{self.path}/{PRIVATE}/locks/metadata.lock"):  # two jobs may grow the shape at once
            data, shape = self._document()
            if not covers(self.layout, shape, box):
                document = json.loads(data)
                document["shape"] = shape_around(self.layout, shape, box)
                remove_temporaries(self.metadata_path)
                atomic_write(self.metadata_path, to_json(document))

    def finish(self) -> None:
        """Bump the stamp that stands for the cubes in the fingerprint of a large box."""
        bump_stamp(self.path)
