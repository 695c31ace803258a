"""The formats of an export: which there are, which one a name means, and what each cannot hold."""

from __future__ import annotations

import os

from wkdask.errors import DTypeError, InvalidValueError
from wkdask.export.extract import Extract
from wkdask.export.ozx import OzxFile
from wkdask.export.raw import RawFile
from wkdask.export.sections import SectionFiles, checked_pattern
from wkdask.export.tiff import CODECS, OneTiff, TiffStyle
from wkdask.export.writer import Writer

__all__ = ["FORMATS", "format_of_name", "writer_of"]

FORMATS = ("tiff", "png", "ome-tiff", "ozx", "nrrd", "npy")
"""What a box of a mag can be exported to."""
_SUFFIXES = {
    ".ome.tif": "ome-tiff", ".ome.tiff": "ome-tiff", ".tif": "tiff", ".tiff": "tiff", ".ozx": "ozx",
    ".nrrd": "nrrd", ".npy": "npy",
}  # fmt: skip
_TIFF_NAMES = (".tif", ".tiff")
_PNG = ("uint8", "uint16")
_OME = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")
_CODECS = {"tiff": CODECS, "ome-tiff": CODECS, "ozx": ("zstd", "none"), "nrrd": ("none",), "npy": ("none",)}


def format_of_name(path: str) -> str:
    """Return the format that the name of a file means.

    Raises
    ------
    InvalidValueError
        If it means none: as that of a folder.
    """
    for suffix, name in _SUFFIXES.items():
        if path.lower().endswith(suffix):
            return name
    raise InvalidValueError(
        f"{path}: its name does not say in which format; give format= (--format), one of {', '.join(FORMATS)}. "
        f"tiff and png make a folder of one file per section; a name such as stack.tif makes one TIFF"
    )


def writer_of(
    extract: Extract,
    target: str,
    data_format: str,
    *,
    codec: str | None = None,
    tile: int | None = None,
    name: str | None = None,
) -> Writer:
    """Return what writes an export; refuse what the format cannot hold, before anything is made.

    Parameters
    ----------
    extract
        What is exported.
    target
        The file or folder; absolute.
    data_format
        One of `FORMATS`.
    codec, tile, name
        As for :meth:`MagView.export`.

    Raises
    ------
    DTypeError
        If the format cannot hold the voxels.
    InvalidValueError
        If an argument makes no sense, or the format cannot hold the box.
    """
    if data_format not in FORMATS:
        raise InvalidValueError(f"the formats of an export are {', '.join(FORMATS)}; got {data_format!r}")
    known = _CODECS.get(data_format, ())
    if codec is not None and codec not in known:
        what = f"it has {' or '.join(known)}" if known else "it has one of its own"
        raise InvalidValueError(f"{data_format} has no codec {codec!r} (--codec): {what}")
    if tile is not None and data_format not in ("tiff", "ome-tiff"):
        raise InvalidValueError(f"only TIFF has tiles (--tile); {data_format} has none")
    as_files = data_format == "png" or (data_format == "tiff" and not target.lower().endswith(_TIFF_NAMES))
    if name is not None and not as_files:
        raise InvalidValueError(
            f"a pattern of names (--name) is for one file per section: give a folder, and the format tiff or png; "
            f"{os.path.basename(target)} is one file"
        )
    _refuse_voxels(extract, data_format)
    if data_format == "ozx":
        return OzxFile(extract, target, codec or "zstd")
    if data_format in ("nrrd", "npy"):
        return RawFile(extract, target, data_format)
    if data_format == "png":
        return SectionFiles(extract, target, checked_pattern(name or "{layer}_{z:05}.png", (".png",)), None)
    style = TiffStyle(codec or "deflate", tile, ome=data_format == "ome-tiff")
    if as_files:
        return SectionFiles(
            extract, target, checked_pattern(name or "{layer}_{z:05}.tif", _TIFF_NAMES), style
        )
    return OneTiff(extract, target, style)


def _refuse_voxels(extract: Extract, data_format: str) -> None:
    """Refuse voxels that a format cannot hold."""
    dtype = extract.store.spec.dtype
    if data_format == "png":
        if dtype not in _PNG or (extract.channels > 1 and not extract.is_rgb):
            raise DTypeError(
                f"PNG holds uint8 and uint16 in one channel, or RGB of uint8; layer {extract.layer!r} is "
                f"{extract.channels} × {dtype}: use tiff, or one channel of it (--channel)"
            )
    elif data_format == "tiff" and extract.box.size.x == 1 and not extract.is_rgb:
        # tifffile, as writer and as reader, takes a last axis of length 1 for samples of a pixel.
        raise InvalidValueError(
            f"the box {extract.box} is one voxel wide, and the pages of such a TIFF would be mistaken: use ome-tiff"
        )
    elif data_format == "ome-tiff" and dtype not in _OME:
        raise DTypeError(
            f"OME-TIFF holds {', '.join(_OME)}; layer {extract.layer!r} is {dtype}: use tiff, nrrd or ozx"
        )
