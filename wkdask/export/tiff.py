"""TIFF and OME-TIFF: how images are stored in it, and a whole stack as one file.

The file of a stack comes together in two steps, since it is unknown where a page begins before the pages in front
of it are encoded::

    tasks     |part 0|part 1|part 2|      the strips or tiles of a slab, encoded, one after the other; any order
    driver    |header|strips and tiles, as they are|tags|

tifffile writes headers and tags; strips and tiles are encoded by imagecodecs, as it would.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from wkdask import __version__
from wkdask.errors import InvalidValueError
from wkdask.export.extract import Extract
from wkdask.export.writer import Cut, Made, slabs
from wkdask.fsio import fsync_folder, replace_keeping_mode
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import Voxels

__all__ = ["CODECS", "OneTiff", "TiffStyle"]

CODECS = ("none", "deflate", "lzw", "zstd")
"""How strips and tiles are encoded; the first three are read by nearly every program."""
_TIFFFILE = {"none": None, "deflate": "adobe_deflate", "lzw": "lzw", "zstd": "zstd"}
_STRIP_NBYTES = 256 << 10
_CLASSIC_NBYTES = (4 << 30) - (64 << 20)
"""A file that may become larger is BigTIFF: the classic one counts in 32 bits."""
_IMAGEJ = ("uint8", "uint16", "float32")
"""Types that ImageJ knows."""
_CM_IN_NM = 1e7


@dataclass(frozen=True, slots=True)
class TiffStyle:
    """How images are stored in a TIFF."""

    codec: str = "deflate"
    """One of `CODECS`."""
    tile: int | None = None
    """Side of a tile, a multiple of 16; None for strips."""
    ome: bool = False
    """Whether the metadata are OME-XML."""

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise InvalidValueError(f"TIFF is stored with one of {', '.join(CODECS)}, got {self.codec!r}")
        if self.tile is not None and (self.tile < 16 or self.tile % 16):
            raise InvalidValueError(f"the side of a TIFF's tiles is a multiple of 16, got {self.tile}")

    def rows(self, extract: Extract) -> int:
        """Return how many rows a strip has."""
        row = extract.box.size.x * self._samples(extract) * extract.dtype.itemsize
        return max(1, min(extract.box.size.y, _STRIP_NBYTES // max(row, 1)))

    @staticmethod
    def _samples(extract: Extract) -> int:
        return 3 if extract.is_rgb else 1

    def arguments(self, extract: Extract) -> dict[str, Any]:
        """Return the arguments that tifffile gets for every page."""
        cut: dict[str, Any] = {"rowsperstrip": self.rows(extract)}
        if self.tile is not None:
            cut = {"tile": (self.tile, self.tile)}
        return {
            "photometric": "rgb" if extract.is_rgb else "minisblack",
            "compression": _TIFFFILE[self.codec],
            **cut,
        }

    def write_image(self, file: Any, extract: Extract, pages: list[Voxels]) -> None:
        """Write the image of one section, with a page for each channel."""
        import tifffile

        (_, _, z), symbol = extract.size_and_symbol
        nm = extract.voxel_size.to_nanometer()
        metadata = {"axes": _axes(extract, len(pages) > 1, sections=False), "spacing": z, "unit": symbol}
        tifffile.imwrite(
            file,
            pages[0] if len(pages) == 1 else np.stack(pages),
            resolution=(_CM_IN_NM / nm[0], _CM_IN_NM / nm[1]),
            resolutionunit="CENTIMETER",
            metadata=metadata,
            software=f"wkdask {__version__}",
            **self.arguments(extract),
        )

    def segments(self, extract: Extract, page: Voxels) -> Iterator[bytes]:
        """Yield the strips or tiles of a page, encoded; tiles at the edges are filled with zeros."""
        if self.tile is None:
            rows = self.rows(extract)
            for top in range(0, page.shape[0], rows):
                yield self._encoded(page[top : top + rows])
            return
        side = self.tile
        for top in range(0, page.shape[0], side):
            for left in range(0, page.shape[1], side):
                piece = page[top : top + side, left : left + side]
                if piece.shape[:2] != (side, side):
                    whole = np.zeros((side, side, *page.shape[2:]), page.dtype)
                    whole[: piece.shape[0], : piece.shape[1]] = piece
                    piece = whole
                yield self._encoded(piece)

    def _encoded(self, piece: Voxels) -> bytes:
        """Return the bytes of a strip or a tile."""
        data = piece.tobytes()
        if self.codec == "none":
            return data
        import imagecodecs

        if self.codec == "deflate":  # libdeflate, in half the time of zlib
            return bytes(imagecodecs.deflate_encode(data, level=6))
        encode = imagecodecs.lzw_encode if self.codec == "lzw" else imagecodecs.zstd_encode
        return bytes(encode(data))


@dataclass(frozen=True, slots=True)
class OneTiff:
    """All sections as the pages of one file."""

    extract: Extract
    """What is exported."""
    target: str
    """The file."""
    style: TiffStyle
    """How it is stored."""

    is_folder = False
    copies = 2

    @property
    def parameters(self) -> tuple[str, ...]:
        """How images are stored."""
        return ("one file", str(self.style))

    @property
    def is_compressed(self) -> bool:
        """Where it is asked for."""
        return self.style.codec != "none"

    @property
    def is_big(self) -> bool:
        """Whether it is BigTIFF."""
        return self.extract.nbytes > _CLASSIC_NBYTES

    @property
    def is_imagej(self) -> bool:
        """Whether the metadata are those of ImageJ, which knows few types, strips, and files of 4 GiB."""
        kind = self.extract.store.spec.dtype in _IMAGEJ
        return kind and not (self.style.ome or self.is_big or self.style.tile or self.style.codec == "zstd")

    @property
    def notes(self) -> tuple[str, ...]:
        """What becomes of channels, and of the metadata for ImageJ."""
        notes = []
        if self.extract.channels > 1 and not self.extract.is_rgb:
            notes.append(
                f"each section is {self.extract.channels} pages, one for each channel (axes "
                f"{_axes(self.extract, True, sections=True)})"
            )
        if not (self.is_imagej or self.style.ome):
            notes.append(
                "ImageJ reads the voxel size of this file only in x and y: its own metadata are for uint8, uint16 "
                "and float32, in strips of deflate, lzw or none, and files below 4 GiB"
            )
        return tuple(notes)

    def names(self) -> Iterator[str]:
        """Yield the file."""
        yield self.target

    def cut(self, threads: int, memory: int | None, unit: Vec3Int | None) -> Cut:
        """Return slabs."""
        return slabs(self.extract, threads, memory, unit)

    def begin(self, folder: str) -> None:
        """Nothing is needed."""

    def write(self, folder: str, number: int, unit: BoundingBox) -> int:
        """Write the strips or tiles of a slab into a file of its own."""
        block, lengths = self.extract.read(unit), []
        temporary = f"{folder}/{uuid.uuid4().hex}.unfinished"
        try:
            with open(temporary, "xb") as file:
                for n in range(unit.size.z):
                    for page in self.extract.pages(block[..., n : n + 1]):
                        for segment in self.style.segments(self.extract, page):
                            lengths.append(len(segment))
                            file.write(segment)
                file.flush()
                os.fsync(file.fileno())
            _save_lengths(f"{folder}/{number}.lengths", lengths)
            os.replace(temporary, f"{folder}/{number}.part")
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        fsync_folder(folder)
        return sum(lengths)

    def finish(self, folder: str, cut: Cut) -> Made:
        """Put the parts together."""
        import tifffile

        whole, style, extract = f"{folder}/whole", self.style, self.extract
        metadata = _ome(extract) if style.ome else _stack_metadata(extract)
        resolution = _resolution(extract, imagej=self.is_imagej)
        with (
            open(whole, "wb") as file,
            tifffile.TiffWriter(
                file, bigtiff=self.is_big, byteorder="<", imagej=self.is_imagej, ome=style.ome, shaped=None
            ) as tiff,
        ):
            tiff.write(
                _joined(folder, len(cut)),
                shape=_shape(extract),
                dtype=extract.dtype,
                metadata=metadata,
                software=f"wkdask {__version__}",
                **resolution,
                **style.arguments(extract),
            )
            file.flush()
            os.fsync(file.fileno())
            nbytes = os.fstat(file.fileno()).st_size
        replace_keeping_mode(whole, self.target)
        return Made(1, nbytes)


def _save_lengths(path: str, lengths: list[int]) -> None:
    """Write how long the segments of a part are, before the part gets its name."""
    temporary = f"{path}.{uuid.uuid4().hex}.unfinished"
    with open(temporary, "xb") as file:
        file.write(np.array(lengths, "<u8").tobytes())
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _joined(folder: str, parts: int) -> Iterator[bytes]:
    """Yield all segments, one at a time."""
    for number in range(parts):
        lengths = np.fromfile(f"{folder}/{number}.lengths", "<u8")
        with open(f"{folder}/{number}.part", "rb") as file:
            for length in lengths.tolist():
                yield file.read(length)


def _axes(extract: Extract, several: bool, *, sections: bool) -> str:
    """Return a letter for each axis, in the words of tifffile."""
    z = "Z" if sections else ""
    return f"{z}YXS" if extract.is_rgb else f"{z}{'C' if several else ''}YX"


def _shape(extract: Extract) -> tuple[int, ...]:
    """Return the shape of a stack, in the order of its axes."""
    x, y, z = extract.box.size
    if extract.is_rgb:
        return (z, y, x, 3)
    return (z, y, x) if extract.channels == 1 else (z, extract.channels, y, x)


def _stack_metadata(extract: Extract) -> dict[str, Any]:
    """Return the arguments about a stack, for ImageJ or for tifffile."""
    (_, _, z), symbol = extract.size_and_symbol
    axes = _axes(extract, extract.channels > 1, sections=True)
    return {"axes": axes, "spacing": z, "unit": symbol.replace("µ", "u").replace("Å", "angstrom")}


def _resolution(extract: Extract, *, imagej: bool) -> dict[str, Any]:
    """Return how many pixels a unit has."""
    if imagej:  # in the unit of its metadata
        (x, y, _), _ = extract.size_and_symbol
        return {"resolution": (1 / x, 1 / y), "resolutionunit": "NONE"}
    x, y, _ = extract.voxel_size.to_nanometer()
    return {"resolution": (_CM_IN_NM / x, _CM_IN_NM / y), "resolutionunit": "CENTIMETER"}


def _ome(extract: Extract) -> dict[str, Any]:
    """Return what OME-XML says of a stack."""
    size, symbol = extract.size_and_symbol
    sides = {f"PhysicalSize{axis}": side for axis, side in zip("XYZ", size, strict=True)}
    units = {f"PhysicalSize{axis}Unit": symbol for axis in "XYZ"}
    axes = _axes(extract, extract.channels > 1, sections=True)
    return {"axes": axes, "Name": extract.layer, **sides, **units}
