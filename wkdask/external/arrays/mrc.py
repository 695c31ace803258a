"""MRC, read by mrcfile: the header says axes, voxel size in Å, and where the voxels begin."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from wkdask.errors import DamagedHeaderError, InvalidValueError, UnsupportedFormatError
from wkdask.external.arrays.found import Asked, Found, library, refuse_packed, shown_error
from wkdask.external.arrays.plain import PlainVoxels, plain_part
from wkdask.geometry.voxel_size import VoxelSize

__all__ = ["mrc_found"]

_HEADER_NBYTES = 1024
_IMOD = 1146047817
"""The stamp of IMOD, which says whether bytes have a sign."""
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_SIGNED_SINCE = 20140
"""The version of the format from which on bytes have a sign."""


def mrc_found(path: str, inner: str, asked: Asked) -> Found:
    """Return what an MRC file says.

    Raises
    ------
    DamagedHeaderError
        If it is damaged, or cut off.
    UnsupportedFormatError
        If it holds no single volume of real numbers.
    InvalidValueError
        If its axes are invalid, or it is unknown whether its bytes have a sign.
    """
    del inner
    refuse_packed(path)
    mrcfile = library("mrcfile", "MRC")
    try:
        with warnings.catch_warnings():  # of what is no matter of the voxels, or said below
            warnings.simplefilter("ignore")
            with mrcfile.open(path, "r", header_only=True, permissive=True) as file:
                header = file.header.copy()
    except (ValueError, OSError) as error:
        raise DamagedHeaderError(f"{path} cannot be read as MRC: {shown_error(error)}") from error
    if header is None or not bytes(header.map).startswith(b"MAP"):
        raise DamagedHeaderError(f"{path} cannot be read as MRC: it has not the mark MAP of its header")
    mode = int(header.mode)
    if mode not in _MODES:
        raise UnsupportedFormatError(
            f"{path} holds voxels of MRC's mode {mode}; known are {', '.join(map(str, _MODES))}"
        )
    nx, ny, nz = int(header.nx), int(header.ny), int(header.nz)
    if min(nx, ny, nz) < 1:
        raise DamagedHeaderError(f"{path} says that it has {nx} x {ny} x {nz} voxels")
    if int(header.ispg) == 401:
        raise UnsupportedFormatError(
            f"{path} is a stack of volumes (space group 401): save one of them alone"
        )
    kind, notes = _MODES[mode], []
    if mode == 0:
        kind, note = _sign(path, header, asked)
        notes.append(note)
    dtype = np.dtype(kind).newbyteorder("=" if _is_native(header) else "S")
    reader = PlainVoxels(path, _HEADER_NBYTES + int(header.nsymbt), (nz, ny, nx), dtype.str, "C")
    # mapc, mapr, maps: which axis columns, rows and sections lie along.
    along = [int(header.mapc), int(header.mapr), int(header.maps)]
    if along == [0, 0, 0]:
        along = [1, 2, 3]
    if sorted(along) != [1, 2, 3]:
        raise DamagedHeaderError(
            f"{path} says that its columns, rows and sections lie along the axes {along}"
        )
    axes = "".join("xyz"[axis - 1] for axis in reversed(along))
    size = _voxel_size(header)
    origin = [float(header.origin[name]) for name in "xyz"]
    if any(origin):
        notes.append(
            f"the origin {tuple(origin)} Å of {path} is not applied; --offset says where its voxels go"
        )
    return Found((plain_part(reader),), axes, size, tuple(notes))


def _voxel_size(header: Any) -> VoxelSize | None:
    """Return the size of a voxel; None where the header has none."""
    cells = [float(header.cella[name]) for name in "xyz"]
    counts = [int(header[name]) for name in ("mx", "my", "mz")]
    if min(counts) < 1 or not all(0 < cell < float("inf") for cell in cells):
        return None
    # float32 numbers, in Å: 46.0000038 is 4.6 nm.
    x, y, z = (float(f"{cell / count / 10:.6g}") for cell, count in zip(cells, counts, strict=True))
    return VoxelSize((x, y, z))


def _is_native(header: Any) -> bool:
    """Return whether the numbers of a file have the byte order of this machine."""
    return bool(header.nx.dtype.isnative)


def _sign(path: str, header: Any, asked: Asked) -> tuple[str, str]:
    """Return whether bytes have a sign, and why."""
    if asked.dtype is not None:
        if asked.dtype not in ("int8", "uint8"):
            raise InvalidValueError(
                f"{path} holds bytes: they are int8 or uint8 (--dtype), not {asked.dtype}"
            )
        return np.dtype(asked.dtype).str, f"the bytes of {path} are taken for {asked.dtype}, as was said"
    words = np.frombuffer(bytes(header.extra2)[40:48], np.int32)
    stamp, flags = words if _is_native(header) else words.byteswap()
    if int(stamp) == _IMOD:
        kind = "int8" if int(flags) & 1 else "uint8"
        return np.dtype(kind).str, f"the bytes of {path} are taken for {kind}, as IMOD's stamp says"
    if float(header.dmax) > 127:
        return (
            "|u1",
            f"the bytes of {path} are taken for uint8, since its header names {float(header.dmax):g} as largest",
        )
    if float(header.dmin) < 0 and float(header.dmin) <= float(header.dmax):
        return (
            "|i1",
            f"the bytes of {path} are taken for int8, since its header names {float(header.dmin):g} as smallest",
        )
    if int(header.nversion) >= _SIGNED_SINCE:
        return "|i1", f"the bytes of {path} are taken for int8, as MRC2014 says; --dtype uint8 says otherwise"
    raise InvalidValueError(
        f"{path} holds bytes, and does not say whether they have a sign: give dtype= (--dtype), int8 or uint8"
    )
