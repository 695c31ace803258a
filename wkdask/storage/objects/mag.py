"""Magnifications in object stores: read by ranges, as the mags of their formats say where what lies."""

from __future__ import annotations

import itertools
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from typing import Any

from wkdask import settings
from wkdask.errors import (
    CubePermissionError,
    DamagedCubeError,
    DamagedHeaderError,
    ReadOnlyError,
)
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.boxes import COORDINATE_LIMIT
from wkdask.objects.metadata import Metadata, read_metadata
from wkdask.objects.reading import ChangedObjectError, list_objects, object_state
from wkdask.objects.urls import Address, checked_url
from wkdask.storage.objects.wkw import fetch_cube, forget_cube
from wkdask.storage.objects.zarr import fetch_shard, forget_shard
from wkdask.storage.parallel import Corner, run_all, tiles
from wkdask.storage.protocol import ArraySpec, Voxels, check_coordinates, empty_block
from wkdask.storage.wkw.format import WkwHeader, header_in
from wkdask.storage.wkw.mag import HEADER_NAME, WkwMag
from wkdask.storage.zarr.layout import METADATA_NAMES, ZarrLayout
from wkdask.storage.zarr.mag import ZarrMag
from wkdask.storage.zarr.metadata import frozen, parsed
from wkdask.storage.zarr.names import check_names_in, place_of
from wkdask.storage.zarr.shard import fill_of, read_file

__all__ = ["ObjectMag", "WkwObjects", "ZarrObjects", "found_format", "open_objects"]

_WKW_NAME = re.compile(r"z(0|[1-9][0-9]*)/y(0|[1-9][0-9]*)/x(0|[1-9][0-9]*)\.wkw")
"""The name of a cube, relative to the mag."""
_PART_NBYTES = 32 << 20
"""Voxels of a cube that are fetched and decoded together."""
_LOOK_AT = 64
"""Cubes that are asked for one by one; where there are more, the objects of the mag are listed."""
_LISTED = 20_000
"""Objects of a mag whose ETags stand for its content: 20 requests."""


@dataclass(frozen=True, slots=True)
class ObjectMag(ABC):
    """A mag whose cubes are objects; see :class:`~wkdask.storage.protocol.StoredMag` for the contract.

    Nothing is written to the store.
    """

    mag: Any
    """The mag of its format, whose path is the URL."""
    outside: str = "read-only"
    """As in :class:`~wkdask.storage.protocol.MagReader`; an object is never a link."""

    @property
    def path(self) -> str:
        """The URL of the mag."""
        return str(self.mag.path)

    @property
    def spec(self) -> ArraySpec:
        """Type and chunk layout."""
        found: ArraySpec = self.mag.spec
        return found

    @property
    def metadata_path(self) -> str:
        """The URL of the metadata."""
        return str(self.mag.metadata_path)

    @property
    def is_listed(self) -> bool:
        """Whether the store lists its objects: a web server does not."""
        return Address.of(self.path).scheme not in ("http", "https")

    def cube_path(self, index: Vec3Int) -> str:
        """Return the URL of a cube."""
        return str(self.mag.cube_path(index))

    def reaching(self, outside: str) -> ObjectMag:
        """Return the same mag with another word on what lies outside of its dataset."""
        return replace(self, outside=outside)

    # --- what the formats do -------------------------------------------------------------------------

    @abstractmethod
    def metadata(self, fresh: bool = False) -> Metadata:
        """Return the mag's metadata, which must be there, laid out as when it was opened.

        Raises
        ------
        DamagedHeaderError
            If they are not.
        """

    @abstractmethod
    def extent(self) -> Vec3Int:
        """Return the voxels (x, y, z) that may lie in objects."""

    @property
    def is_zero_filled(self) -> bool:
        """Whether what is in no object is zero."""
        return True

    @abstractmethod
    def urls_of(self, index: Vec3Int) -> list[str]:
        """Return the URLs of the objects that hold a cube; several only in arrays of other programs."""

    @abstractmethod
    def read_part(
        self, index: Vec3Int, low: Corner, high: Corner, out: Voxels, gate: threading.Semaphore
    ) -> bool:
        """Fetch a part of a cube and put it into an array; decode while holding the gate.

        Returns
        -------
        bool
            False if an object is missing; zeros, or the array's fill value, are put then.
        """

    @abstractmethod
    def index_of(self, name: str) -> Vec3Int | None:
        """Return the cube of an object, by its name relative to the mag; None if it is none."""

    # --- reading -------------------------------------------------------------------------------------

    def read(self, box: BoundingBox, threads: int = 1) -> Voxels:
        """Return the voxels of a box, ``(c, *box.size)`` in Fortran order; zeros where there is no cube."""
        check_coordinates(box, self.spec.shard_shape)
        self.metadata()
        out = empty_block(self.spec, box)
        self.read_into(box, out, threads)
        return out

    def read_into(self, box: BoundingBox, out: Voxels, threads: int) -> None:
        """Read a box into an array ``(c, *box.size)``: several requests at once, decoded by so many threads.

        Raises
        ------
        DamagedCubeError
            If an object is no sound cube of the mag.
        DamagedHeaderError
            If there is no object, and no mag either.
        PermissionError, StoreError
            If the store does not give what is there.
        """
        inside = box.intersection(BoundingBox((0, 0, 0), self.extent()))
        if inside != box:
            out[...] = 0
        if inside.is_empty():
            return
        gate = threading.Semaphore(max(1, threads))
        missing = []

        def read(index: Vec3Int, part: BoundingBox) -> None:
            corner = index * self.spec.shard_shape
            place = part.offset(corner - box.topleft).to_slices()
            if not self.read_part(index, part.topleft, part.bottomright, out[(slice(None), *place)], gate):
                missing.append(index)

        jobs = (
            partial(read, index, part)
            for index, low, high in self.spec.grid.cuts(inside)
            for part in tiles(self.spec, BoundingBox.from_corners(low, high), _PART_NBYTES)
        )
        run_all(jobs, max(threads, int(settings.get("store-requests"))))
        if missing:  # only while the mag is there does a missing object mean zeros
            self.metadata(fresh=True)

    def kept_open(self, most_cubes: int) -> ObjectReader:
        """Return a reader; headers and indexes of cubes are kept by their ETags, for all reads of a process."""
        self.metadata()
        return ObjectReader(self)

    def shrink(self, box: BoundingBox, factors: Vec3Int, mode: str, out: Voxels) -> None:
        """Write the voxels of a box, shrunk, into an array."""
        from wkdask.kernels import downsample

        downsample(self.read(box), tuple(factors), mode, out=out)

    def check_cube(self, path: str) -> bool:
        """Check a cube's first bytes and its index; False where there is no such object."""
        if object_state(path) is None:
            return False
        name = path[len(self.path) + 1 :]
        index = self.index_of(name)
        if index is None:
            raise DamagedCubeError(f"{path} is no cube of {self.path}")
        one = BoundingBox(index * self.spec.shard_shape, (1, 1, 1))
        self.read_into(one, empty_block(self.spec, one), 1)
        return True

    def conforms(self, path: str) -> bool:
        """Return True: cubes of an object store are not compressed in place."""
        return True

    def is_empty(self, box: BoundingBox) -> bool:
        """Return whether there is no object in a box, and what is in none is zero."""
        cubes = self.spec.grid.cubes(box)
        if not self.is_zero_filled or cubes.shape.prod() > _LOOK_AT:
            return False
        if any(object_state(url) is not None for index in cubes for url in self.urls_of(index)):
            return False
        self.metadata(fresh=True)
        return True

    def fingerprint(self, box: BoundingBox) -> str:
        """Return a text that changes when a cube in the box is replaced.

        Up to 64 cubes are asked for one by one, up to 20 000 objects are listed; of a larger mag, and of one on a
        web server, the first of them and the metadata count.
        """
        digest = blake2b(self.metadata().version.encode(), digest_size=16)
        cubes = self.spec.grid.cubes(box)
        few = cubes.shape.prod() <= _LOOK_AT
        if few or not self.is_listed:
            found: dict[str, str] = {}

            def look(url: str) -> None:
                state = object_state(url)
                found[url] = "-" if state is None else state.version

            first = [url for index in itertools.islice(cubes, _LOOK_AT) for url in self.urls_of(index)]
            run_all((partial(look, url) for url in first), int(settings.get("store-requests")))
            states = [f"{url[len(self.path) :]} {found[url]}" for url in first]
        else:
            objects = itertools.islice(list_objects(self.path), _LISTED)
            states = [f"{each.name} {each.version}" for each in objects]
        for state in states:
            digest.update(f"{state};".encode())
        return digest.hexdigest()

    def cubes_on_disk(self) -> Iterator[Vec3Int]:
        """Yield the indices of the cubes that exist, in the order of the objects' names."""
        self.metadata()
        seen = set()
        for each in list_objects(self.path):
            index = self.index_of(each.name)
            if index is not None and index not in seen:
                seen.add(index)
                yield index

    def file_sizes(self) -> Iterator[tuple[Vec3Int, int]]:
        """Yield the cube and the bytes of each object that holds voxels."""
        self.metadata()
        for each in list_objects(self.path):
            index = self.index_of(each.name)
            if index is not None:
                yield index, each.size

    def native_header(self) -> Any:
        """Return what the format's own library calls the header of an array."""
        return self.mag.native_header()

    # --- building and writing: refused before, by `MagPlace.read_only` -------------------------------

    def _refuse(self, *arguments: Any, **options: Any) -> Any:
        """Refuse to build a cube, or to change the mag."""
        raise ReadOnlyError(f"{self.path} is in an object store, where mags are read only")

    prepare_scratch = slot_path = build = encode = read_scratch = _refuse
    opened = staged = write_in_place = drop_cube = _refuse
    publish_header = recompressed = prepare = finish = _refuse


@dataclass(frozen=True, slots=True)
class ObjectReader:
    """Reads boxes of a mag again and again; see :class:`~wkdask.storage.protocol.KeptReader`."""

    mag: ObjectMag
    """The mag."""

    def read(self, box: BoundingBox, out: Voxels, threads: int = 1) -> None:
        """Read a box into an array."""
        check_coordinates(box, self.mag.spec.shard_shape)
        self.mag.read_into(box, out, threads)

    def close(self) -> None:
        """Nothing is open."""


class WkwObjects(ObjectMag):
    """A WKW mag whose cubes are objects."""

    __slots__ = ()

    mag: WkwMag

    def metadata(self, fresh: bool = False) -> Metadata:
        """Return ``header.wkw``, which must be as when the mag was opened."""
        found, header = _wkw_metadata(self.metadata_path, fresh)
        if header.geometry != self.mag.header.geometry:
            raise DamagedHeaderError(
                f"{self.metadata_path} now says {header}, it said {self.mag.header} when it was opened"
            )
        return found

    def extent(self) -> Vec3Int:
        """Return the end of all coordinates."""
        return Vec3Int.full(COORDINATE_LIMIT)

    def urls_of(self, index: Vec3Int) -> list[str]:
        """Return the URL of the cube."""
        return [self.cube_path(index)]

    def read_part(
        self, index: Vec3Int, low: Corner, high: Corner, out: Voxels, gate: threading.Semaphore
    ) -> bool:
        """Fetch a part of a cube and put it into an array."""
        url = self.cube_path(index)
        box = BoundingBox.from_corners(low, high).offset(index * self.spec.shard_shape)

        def read() -> bool:
            cube = fetch_cube(url, self.mag.header, low, high)
            with gate:
                self.mag.read_cubes(box, out, 1, lambda path: cube)
            return cube is not None

        return _reliably(url, read, forget_cube)

    def index_of(self, name: str) -> Vec3Int | None:
        """Return the cube of a name such as ``z0/y1/x2.wkw``."""
        found = _WKW_NAME.fullmatch(name)
        return None if found is None else Vec3Int(int(found[3]), int(found[2]), int(found[1]))


class ZarrObjects(ObjectMag):
    """A Zarr array whose shards, or chunks, are objects."""

    __slots__ = ()

    mag: ZarrMag

    def _document(self, fresh: bool = False) -> tuple[Metadata, tuple[int, ...]]:
        """Return the array's metadata and its shape."""
        name, layout = self.metadata_path, self.mag.layout
        axes = frozen({axis: n for n, axis in enumerate(layout.axes) if axis != "."})
        found = _metadata_of(name, fresh)
        now, shape = parsed(name, found.data, layout.data_format, axes)
        if now != layout:
            raise DamagedHeaderError(f"{name} now says {now}, it said {layout} when it was opened")
        return found, shape

    def metadata(self, fresh: bool = False) -> Metadata:
        """Return the array's metadata, which must be laid out as when the mag was opened."""
        return self._document(fresh)[0]

    def extent(self) -> Vec3Int:
        """Return the voxels (x, y, z) that the array has."""
        _, shape = self._document()
        return Vec3Int(*(min(shape[self.mag.layout.axes.index(axis)], COORDINATE_LIMIT) for axis in "xyz"))

    @property
    def is_zero_filled(self) -> bool:
        """Whether the array's fill value is zero."""
        return not self.mag.layout.fill

    def urls_of(self, index: Vec3Int) -> list[str]:
        """Return the URLs of the files that hold a cube's channels."""
        return [url for url, _, _ in self.mag.files_of(index)]

    def cubes_on_disk(self) -> Iterator[Vec3Int]:
        """Yield the indices of the cubes that exist; all of an array whose missing chunks are not zeros."""
        if self.is_zero_filled:
            yield from super().cubes_on_disk()
        else:
            yield from self.spec.grid.cubes(BoundingBox((0, 0, 0), self.extent()))

    def read_part(
        self, index: Vec3Int, low: Corner, high: Corner, out: Voxels, gate: threading.Semaphore
    ) -> bool:
        """Fetch a part of a cube, which may lie in several files, and put it into an array."""
        layout, complete = self.mag.layout, True
        for url, first, last in self.mag.files_of(index):
            part, corners = out[first:last], ((0, *low), (last - first, *high))

            def read(url: str = url, part: Voxels = part, corners: Any = corners) -> bool:
                file = fetch_shard(url, layout, *corners)
                with gate:
                    if file is None:
                        part[...] = fill_of(layout)
                    else:
                        read_file(file, corners[0], corners[1], part)
                return file is not None

            complete &= _reliably(url, read, forget_shard)
        return complete

    def index_of(self, name: str) -> Vec3Int | None:
        """Return the cube of the key of a chunk."""
        place = place_of(self.mag.layout, name)
        if place is None:
            return None
        numbers = dict(zip(self.mag.layout.axes, place, strict=True))
        return Vec3Int(*(numbers[axis] for axis in "xyz"))

    def native_header(self) -> Any:
        """Return the array's metadata as zarr-python's own object."""
        import zarr
        from zarr.core.buffer import default_buffer_prototype

        data = default_buffer_prototype().buffer.from_bytes(self.metadata().data)
        name = METADATA_NAMES[self.mag.layout.data_format]
        return zarr.open_array(zarr.storage.MemoryStore({name: data}), mode="r").metadata


def open_objects(
    url: str, data_format: str | None = None, axis_order: Mapping[str, int] | None = None
) -> ObjectMag:
    """Open a mag at a URL by its metadata.

    Parameters
    ----------
    url
        The mag's folder.
    data_format
        ``"wkw"``, ``"zarr3"`` or ``"zarr"``; None to look for the metadata of each.
    axis_order
        Which dimension of an array is which axis, as the properties have it.

    Raises
    ------
    DamagedHeaderError
        If its metadata are missing or damaged.
    UnsupportedFormatError, DTypeError
        If wkdask does not read such a mag.
    PermissionError, StoreError
        If the store does not give them.
    """
    url = checked_url(url)
    if data_format is None:
        data_format = found_format(url)
        if data_format is None:
            names = ", ".join((HEADER_NAME, *METADATA_NAMES.values()))
            raise DamagedHeaderError(f"{url} holds none of {names}: is the URL that of a magnification?")
    if data_format == "wkw":
        _, header = _wkw_metadata(f"{url}/{HEADER_NAME}", fresh=False)
        return WkwObjects(WkwMag(url, header))
    name = f"{url}/{METADATA_NAMES[data_format]}"
    layout, _ = parsed(name, _metadata_of(name, fresh=False).data, data_format, frozen(axis_order))
    _check_names(url, layout)
    return ZarrObjects(ZarrMag(url, layout))


def found_format(url: str) -> str | None:
    """Return the format of a mag at a URL; None if there is none."""
    for data_format, name in (("wkw", HEADER_NAME), *METADATA_NAMES.items()):
        try:
            read_metadata(f"{url}/{name}")
        except FileNotFoundError:
            continue
        return data_format
    return None


def _check_names(url: str, layout: ZarrLayout) -> None:
    """Refuse an array of whose chunks none is named as its metadata say; where the store lists names."""
    if Address.of(url).scheme in ("http", "https"):
        return
    try:
        names = [each.name for each in itertools.islice(list_objects(url), _LISTED // 20)]
    except PermissionError:  # a bucket that may be read, but not listed
        return
    check_names_in(url, names, len(layout.axes), layout.prefix, layout.separator)


def _metadata_of(url: str, fresh: bool) -> Metadata:
    """Return the metadata of a mag, which must be there."""
    try:
        return read_metadata(url, fresh=fresh)
    except FileNotFoundError as error:
        raise DamagedHeaderError(f"{url} is missing: is the URL that of a magnification?") from error


def _wkw_metadata(url: str, fresh: bool) -> tuple[Metadata, WkwHeader]:
    """Return ``header.wkw``, and what it says."""
    found = _metadata_of(url, fresh)
    return found, header_in(url, found.data)


def _reliably(url: str, read: Callable[[], bool], forget: Callable[[str], None]) -> bool:
    """Read a part of a cube; anew where it was replaced meanwhile, or what came is damaged.

    Raises
    ------
    DamagedCubeError
        If it is damaged each time, or replaced again and again.
    CubePermissionError
        If it may not be read.
    """
    left = int(settings.get("read-retries"))
    while True:
        try:
            return read()
        except PermissionError as error:
            raise CubePermissionError(f"the cube {url} cannot be read: {error.strerror}") from error
        except ChangedObjectError:
            wrong: DamagedCubeError = DamagedCubeError(f"the cube {url} is replaced again and again")
        except FileNotFoundError:  # between its first bytes and its chunks
            wrong = DamagedCubeError(f"the cube {url} is removed again and again")
        except DamagedCubeError as error:
            wrong = error
        forget(url)
        if not left:
            raise wrong
        left -= 1
