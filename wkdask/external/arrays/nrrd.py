"""NRRD, read by pynrrd: the fastest axis comes first, and the header says sizes, directions and where it begins."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np

from wkdask.errors import DamagedHeaderError, UnsupportedFormatError
from wkdask.external.arrays.found import Asked, Found, library, shown_error, whole_steps
from wkdask.external.arrays.plain import PlainVoxels, plain_part
from wkdask.geometry.voxel_size import VoxelSize, unit_named

__all__ = ["nrrd_found"]

_TYPES = {
    "i1": "signed char|int8|int8_t", "u1": "uchar|unsigned char|uint8|uint8_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i4": "int|signed int|int32|int32_t", "u4": "uint|unsigned int|uint32|uint32_t",
    "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t", "f4": "float", "f8": "double",
}  # fmt: skip
_DTYPES = {name: kind for kind, names in _TYPES.items() for name in names.split("|")}
_CHANNELS = (
    "vector",
    "list",
    "rgb-color",
    "rgba-color",
    "covariant-vector",
    "3-vector",
    "point",
    "3-color",
    "4-color",
)


def nrrd_found(path: str, inner: str, asked: Asked) -> Found:
    """Return what a NRRD file, or a header with its data in another file, says.

    Raises
    ------
    DamagedHeaderError
        If it is damaged, or cut off.
    UnsupportedFormatError
        If it is compressed, or holds no numbers.
    """
    del inner, asked
    nrrd = library("nrrd", "NRRD")
    try:
        with open(path, "rb") as file:
            header = nrrd.read_header(file)
            after = file.tell()
        sizes = _sizes(header)
        kind = _DTYPES.get(str(header["type"]).strip().lower())
        encoding = str(header["encoding"]).strip().lower()
    except (ValueError, KeyError, OSError, StopIteration, nrrd.NRRDError) as error:
        raise DamagedHeaderError(f"{path} cannot be read as NRRD: {shown_error(error)}") from error
    if kind is None:
        raise UnsupportedFormatError(f"{path} holds {header['type']!r}, which are no voxels")
    if encoding != "raw":
        raise UnsupportedFormatError(
            f"{path} is encoded as {encoding} as a whole, so that no part of it can be read alone: save it "
            f"with the "
            f"encoding raw (nrrd.write(…, {{'encoding': 'raw'}}), unu save -e raw)"
        )
    data, offset = _data_file(path, header, after)
    dtype = np.dtype(kind)
    endian = str(header.get("endian", "little" if dtype.itemsize == 1 else "")).strip().lower()
    if endian not in ("little", "big"):
        raise DamagedHeaderError(
            f"{path} does not say in which order the bytes of its {dtype} are: its field endian is {endian!r}, "
            f"expected little or big"
        )
    dtype = dtype.newbyteorder(">" if endian == "big" else "<")
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    if skip < -1:
        raise DamagedHeaderError(f"{path} skips {skip} bytes in front of its voxels")
    offset = os.stat(data).st_size - int(np.prod(sizes)) * dtype.itemsize if skip == -1 else offset + skip
    if offset < 0:
        raise DamagedHeaderError(f"{data} is cut off: it is shorter than its voxels")
    part = plain_part(PlainVoxels(data, offset, sizes, dtype.str, "F"))
    axes, size, corner, notes = _placed(path, header, sizes)
    return Found((replace(part, corner=corner),), axes, size, tuple(notes))


_OF_EACH_AXIS = ("kinds", "spacings", "units", "space directions", "thicknesses", "axis mins", "labels")
"""Fields that have a value for each axis."""


def _sizes(header: Any) -> tuple[int, ...]:
    """Return the sides; raise ValueError where another field says another number of axes."""
    sizes = tuple(map(int, header["sizes"]))
    counts = {"dimension": int(header["dimension"])}
    counts |= {name: len(header[name]) for name in _OF_EACH_AXIS if header.get(name) is not None}
    for name, count in counts.items():
        if count != len(sizes):
            raise ValueError(f"there are {len(sizes)} sizes, but {name} says {count} axes")
    if min(sizes) < 0:
        raise ValueError(f"the sizes are {sizes}")
    return sizes


def _data_file(path: str, header: Any, after: int) -> tuple[str, int]:
    """Return the file that holds the voxels, and where they begin but for what the header skips."""
    lines = int(header.get("line skip", header.get("lineskip", 0)))
    if lines:
        raise UnsupportedFormatError(
            f"{path} skips {lines} lines in front of its voxels, which is not supported"
        )
    name = header.get("data file", header.get("datafile"))
    if name is None:
        return path, after
    if not isinstance(name, str) or "%" in name or name.upper().startswith("LIST") or len(name.split()) > 1:
        raise UnsupportedFormatError(f"{path} has its voxels in several files, {name!r}; save it as one")
    data = os.path.join(os.path.dirname(path), name)
    if not os.path.isfile(data):
        raise DamagedHeaderError(f"{path} has its voxels in {data}, which is not there")
    return os.path.realpath(data), 0


def _placed(
    path: str, header: Any, sizes: tuple[int, ...]
) -> tuple[str | None, VoxelSize | None, tuple[int, int, int] | None, list[str]]:
    """Return axes, voxel size and corner, as far as the header says them."""
    kinds = [str(kind).lower() for kind in header.get("kinds", ["domain"] * len(sizes))]
    space = [
        n for n, kind in enumerate(kinds) if kind not in _CHANNELS and not kind.endswith(("color", "vector"))
    ]
    directions = header.get("space directions")
    if directions is not None:
        rows = np.array([np.full(3, np.nan) if row is None else row for row in directions], float)
        space = [n for n, row in enumerate(rows) if not np.isnan(row).any()]
        if len(space) != 3 or rows.shape[1] != 3:
            return None, None, None, []
        matrix = rows[space]
        along = [int(np.abs(row).argmax()) for row in matrix]
        straight = np.zeros((3, 3))
        for n, axis in enumerate(along):
            straight[n, axis] = matrix[n, axis]
        if sorted(along) != [0, 1, 2] or np.abs(matrix - straight).max() > 1e-6 * np.abs(matrix).max():
            return None, None, None, [f"{path} lies askew in its space; its axes are not taken from there"]
        notes = []
        sides = [abs(matrix[n, axis]) for n, axis in enumerate(along)]
        flipped = [n for n, axis in enumerate(along) if matrix[n, axis] < 0]
        if flipped:
            letters = ", ".join("xyz"[along[n]] for n in flipped)
            notes.append(
                f"the axes {letters} of {path} run backwards in its space; voxels are taken as they are stored"
            )
        names = {n: "xyz"[axis] for n, axis in zip(space, along, strict=True)}
        by_axis = dict(zip(along, sides, strict=True))
        size = _voxel_size([by_axis[axis] for axis in range(3)], header.get("space units"))
        corner = None
        origin = header.get("space origin")
        if origin is not None and len(origin) == 3 and not flipped and not np.isnan(origin).any():
            corner = whole_steps(origin, [by_axis[axis] for axis in range(3)])
            if corner is None:
                notes.append(
                    f"the origin {tuple(map(float, origin))} of {path} is no whole voxel from 0 on; it is "
                    f"not applied"
                )
        return _letters(names, len(sizes)), size, corner, notes
    spacings = header.get("spacings")
    if spacings is None or len(space) != 3:
        return None, None, None, []
    units = [header["units"][n] for n in space] if len(header.get("units", ())) == len(sizes) else None
    size = _voxel_size([float(spacings[n]) for n in space], units)
    return _letters(dict(zip(space, "xyz", strict=True)), len(sizes)), size, None, []


def _letters(names: dict[int, str], count: int) -> str | None:
    """Return a letter for each axis; the one beside the three of space is that of channels."""
    others = count - len(names)
    return "".join(names.get(n, "c") for n in range(count)) if others <= 1 else None


def _voxel_size(sides: list[float], units: Any) -> VoxelSize | None:
    """Return the size of a voxel, where all sides have one unit that is known."""
    named = {unit_named(str(unit).strip('"')) for unit in units} if units is not None else set()
    if len(named) != 1 or None in named or not all(0 < side < float("inf") for side in sides):
        return None
    x, y, z = map(float, sides)
    return VoxelSize((x, y, z), str(named.pop()))
