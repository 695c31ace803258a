"""The seam to the formats: the only module that knows which there are. Everything else asks here.

::

    data_format   metadata       a cube is                     cut and compression of new mags
    "wkw"         header.wkw     z{Z}/y{Y}/x{X}.wkw            cubes of 1024³, plain
    "zarr3"       zarr.json      a shard, c/0/{X}/{Y}/{Z}      shards of 1024³, chunks of 32³, zstd
    "zarr"        .zarray        a chunk, 0/{X}/{Y}/{Z}        chunks of 32³, zstd
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeGuard

from wkdask.errors import DamagedHeaderError, InvalidValueError, UnsupportedFormatError
from wkdask.fsio import checked_path
from wkdask.geometry import Vec3Int
from wkdask.objects.urls import is_url
from wkdask.storage.listing import Listing, Places, Suspect
from wkdask.storage.objects.mag import ObjectMag, ZarrObjects, open_objects
from wkdask.storage.objects.mag import found_format as objects_format
from wkdask.storage.protocol import COMPRESSIONS, ZARR_COMPRESSIONS, ArraySpec, StoredMag
from wkdask.storage.wkw import format as wkw_format
from wkdask.storage.wkw.format import header_of_spec
from wkdask.storage.wkw.mag import HEADER_NAME, WkwMag
from wkdask.storage.wkw.scan import list_wkw, scan_wkw
from wkdask.storage.zarr.layout import AXES, METADATA_NAMES, layout_of_spec
from wkdask.storage.zarr.mag import ZarrMag
from wkdask.storage.zarr.plane import PlaneMag, open_plane
from wkdask.storage.zarr.scan import list_zarr, scan_zarr

__all__ = [
    "DATA_FORMATS",
    "address_of",
    "axes_of",
    "built_by",
    "check_format",
    "check_spec",
    "check_voxel",
    "create_mag",
    "default_shard_shape",
    "entry_of",
    "extent_of",
    "fitting_compression",
    "format_of",
    "found_format",
    "is_listed",
    "is_stored_mag",
    "is_zero_filled",
    "list_cubes",
    "listed_sizes",
    "metadata_names",
    "open_address",
    "open_mag",
    "planned_mag",
    "scan_cubes",
]

DATA_FORMATS = ("wkw", "zarr3", "zarr")
"""What a mag can be stored as; layers of other formats are listed only."""

_METADATA = {"wkw": HEADER_NAME, **METADATA_NAMES}


def check_format(data_format: str) -> None:
    """Refuse a format that mags are not stored in here.

    Raises
    ------
    UnsupportedFormatError
        If it is none of `DATA_FORMATS`.
    """
    if data_format not in DATA_FORMATS:
        raise UnsupportedFormatError(
            f"mags in the data format {data_format!r} are neither read nor written; known are "
            f"{', '.join(DATA_FORMATS)}"
        )


def metadata_names() -> frozenset[str]:
    """Return the names of the files of which one makes a folder a mag."""
    return frozenset(_METADATA.values())


def format_of(folder: str) -> str | None:
    """Return the format of a folder that is a mag; None if it is none."""
    if is_url(folder):
        return objects_format(folder)
    return next(
        (name for name, file in _METADATA.items() if os.path.lexists(os.path.join(folder, file))), None
    )


def found_format(folder: str) -> str:
    """Return the format of a folder that must be a mag.

    Raises
    ------
    DamagedHeaderError
        If it is none.
    """
    found = format_of(folder)
    if found is None:
        raise DamagedHeaderError(
            f"{folder} holds none of {', '.join(_METADATA.values())}: is the folder a magnification, is the share "
            f"mounted?"
        )
    return found


def open_mag(path: str, data_format: str | None = None, entry: Mapping[str, Any] | None = None) -> StoredMag:
    """Open the folder of a mag.

    Parameters
    ----------
    path
        The folder.
    data_format
        How the properties say it is stored; None: as the files in it say.
    entry
        The JSON object that lists it, if one does: it may say which axis of an array is which.

    Raises
    ------
    DamagedHeaderError
        If its metadata are missing or damaged.
    UnsupportedFormatError, DTypeError
        If wkdask does not read such a mag.
    """
    if data_format is None:
        data_format = found_format(path)
    check_format(data_format)
    entry = entry or {}
    if data_format != "wkw" and entry.get("channelIndex") is not None:
        raise UnsupportedFormatError(f"{path} is one channel of an array of several, which is not supported")
    axes = entry.get("axisOrder")
    axis_order = axes if isinstance(axes, Mapping) else None
    if is_url(path):
        return open_objects(path, data_format, axis_order)
    return WkwMag.open(path) if data_format == "wkw" else ZarrMag.open(path, data_format, axis_order)


def list_cubes(store: StoredMag) -> Listing:
    """Return what lies in the folder of a mag: the files of its cubes, and what is none of them."""
    return list_wkw(store) if isinstance(store, WkwMag) else list_zarr(_zarr(store))


def scan_cubes(store: StoredMag, places: Places) -> tuple[list[Suspect], int]:
    """Check headers, sizes and indexes of files of cubes; return what is wrong, and the bytes of the files."""
    return scan_wkw(store, places) if isinstance(store, WkwMag) else scan_zarr(_zarr(store), places)


def _zarr(store: StoredMag) -> ZarrMag:
    """Return a mag that is not WKW as what it is."""
    if not isinstance(store, ZarrMag):
        raise UnsupportedFormatError(f"{store.path} is stored in a way that is not listed here")
    return store


def _kind(store: StoredMag) -> StoredMag:
    """Return the mag of its format: of one in an object store, that which knows how its bytes are laid out."""
    found: StoredMag = store.mag if isinstance(store, ObjectMag) else store
    return found


def address_of(store: StoredMag) -> str | list[Any]:
    """Return what :func:`open_address` opens a mag by, as JSON: its folder, or a position in an array."""
    return [store.root, store.all_axes, store.positions] if isinstance(store, PlaneMag) else store.path


def open_address(address: str | list[Any], data_format: str, entry: Mapping[str, Any]) -> StoredMag:
    """Open what :func:`address_of` names; otherwise as :func:`open_mag`."""
    return open_mag(address, data_format, entry) if isinstance(address, str) else open_plane(*address)


def create_mag(path: str, spec: ArraySpec, data_format: str, extent: Vec3Int | None = None) -> StoredMag:
    """Make the folder of a mag, with its metadata published atomically.

    Parameters
    ----------
    path
        The folder.
    spec
        Type and cut.
    data_format
        One of `DATA_FORMATS`.
    extent
        Voxels (x, y, z) of the mag, from the origin, that are known to be needed.

    Raises
    ------
    UnsupportedFormatError, DTypeError
        If the format cannot hold such an array; nothing is written then.
    """
    check_format(data_format)
    if data_format == "wkw":
        return WkwMag.create(path, spec)
    return ZarrMag.create(path, spec, data_format, extent)


def planned_mag(path: str, spec: ArraySpec) -> StoredMag:
    """Return a mag as `create_mag` will make it in a folder; nothing is made.

    Parameters
    ----------
    path
        The folder.
    spec
        Type and layout, with the format; checked by `check_spec`.
    """
    folder = os.path.realpath(checked_path(path))
    if spec.data_format == "wkw":
        return WkwMag(folder, header_of_spec(spec))
    return ZarrMag(folder, layout_of_spec(spec, spec.data_format))


def is_stored_mag(source: object) -> TypeGuard[StoredMag]:
    """Return whether something that is read is a mag on disk, in whose folder jobs may work."""
    return isinstance(source, WkwMag | ZarrMag)


def check_spec(spec: ArraySpec, data_format: str) -> ArraySpec:
    """Refuse what a format cannot hold, before anything is made for it; return it as a mag will have it.

    Raises
    ------
    UnsupportedFormatError, DTypeError
        If the format cannot hold it.
    """
    check_format(data_format)
    if data_format != "wkw":
        return layout_of_spec(spec, data_format).to_spec()
    header_of_spec(spec)
    return replace(spec, layout="wkw")


def check_voxel(data_format: str, dtype: str, num_channels: int) -> None:
    """Refuse a voxel that no mag of a format can hold.

    Raises
    ------
    DTypeError
        If so.
    """
    if data_format == "wkw":
        wkw_format.check_voxel(dtype, num_channels)


def fitting_compression(
    data_format: str, compression: str | bool | None, *, copied: bool = False
) -> str | None:
    """Return the compression of a new mag from what a user, or another mag, says.

    Parameters
    ----------
    data_format
        One of `DATA_FORMATS`.
    compression
        A name; True for the format's thorough one; False for none; None for the format's default. The words of
        WKW, ``"lz4"`` and ``"lz4hc"``, mean Zstandard in Zarr.
    copied
        It is another mag's: None is none, and a compression that only other formats have becomes the format's own.
    """
    wkw = data_format == "wkw"
    if compression is None:
        return None if wkw or copied else "zstd"
    if compression is False:
        return None
    if compression is True:
        return "lz4hc" if wkw else "zstd"
    if copied and wkw and compression in ZARR_COMPRESSIONS:
        return "lz4"  # as our own pyramids: ten times as fast as "lz4hc", on images as small
    if not wkw and compression in COMPRESSIONS:
        return "zstd"
    if not isinstance(compression, str):
        raise InvalidValueError(f"a compression is a name, True, False or None, got {compression!r}")
    return compression


def extent_of(store: StoredMag) -> Vec3Int:
    """Return the voxels (x, y, z) of a Zarr array from its origin on; 0 for other mags, which have no end."""
    return store.extent() if isinstance(store, ZarrMag | ZarrObjects) else Vec3Int.zeros()


def is_zero_filled(store: StoredMag) -> bool:
    """Return whether what no file of a mag holds is zeros: all but Zarr arrays of other programs."""
    kind = _kind(store)
    return not (isinstance(kind, ZarrMag) and kind.layout.fill)


def default_shard_shape(data_format: str, chunk: Vec3Int, chunks: int = 32) -> Vec3Int:
    """Return the sides of a cube where only its chunks are given."""
    return chunk if data_format == "zarr" else Vec3Int.full(32 * chunks)


def built_by(store: StoredMag, threads: int) -> StoredMag:
    """Return the same mag, whose cubes are built by several threads together where the format can do that."""
    return replace(store, threads=threads) if isinstance(store, ZarrMag) else store


def listed_sizes(store: StoredMag) -> Iterator[int] | None:
    """Return the bytes of each object of a mag, as a listing has them; None for a mag on a disk."""
    return (nbytes for _, nbytes in store.file_sizes()) if isinstance(store, ObjectMag) else None


def is_listed(store: StoredMag) -> bool:
    """Return whether the cubes that a mag has can be listed: not where it is on a web server."""
    return not isinstance(store, ObjectMag) or store.is_listed


def axes_of(store: StoredMag) -> str:
    """Return a letter for each dimension of a Zarr array, ``.`` for one beside c, x, y, z; "" for other mags."""
    kind = _kind(store)
    return kind.layout.axes if isinstance(kind, ZarrMag) else ""


def entry_of(store: StoredMag) -> tuple[int | None, dict[str, Any]]:
    """Return what the properties say of a mag: the side of its cubes (WKW), and its axes where they are unusual."""
    kind = _kind(store)
    if isinstance(kind, WkwMag):
        return store.spec.shard_shape.x, {}
    axes = kind.layout.axes if isinstance(kind, ZarrMag) else AXES
    order = {axis: n for n, axis in enumerate(axes) if axis in AXES}
    return None, {} if axes == AXES else {"axisOrder": order}
