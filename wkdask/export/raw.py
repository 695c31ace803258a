"""NRRD and npy: a short header, then the voxels as they lie in memory here, x fastest, z slowest.

So each slab has its place in the file from the start, and tasks fill it in any order; what is empty stays a hole.
The file gets its name when it is complete. The header of NRRD is a few lines of text, written here: pynrrd writes
it only together with an array that is in memory as a whole.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wkdask.export.extract import Extract
from wkdask.export.writer import Cut, Made, slabs
from wkdask.fsio import replace_keeping_mode
from wkdask.geometry import BoundingBox, Vec3Int

__all__ = ["RawFile"]

_NRRD_TYPES = {"float32": "float", "float64": "double"}
"""Types that NRRD calls otherwise than numpy."""


@dataclass(frozen=True, slots=True)
class RawFile:
    """One file of plain voxels."""

    extract: Extract
    """What is exported."""
    target: str
    """The file."""
    kind: str
    """``"nrrd"`` or ``"npy"``."""

    is_folder = False
    is_compressed = False
    copies = 1

    @property
    def parameters(self) -> tuple[str, ...]:
        """The format."""
        return (self.kind,)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the file does not say."""
        if self.kind == "nrrd":
            return ()
        return ("a .npy file holds an array (c, x, y, z), and neither voxel size nor offset",)

    def names(self) -> Iterator[str]:
        """Yield the file."""
        yield self.target

    def cut(self, threads: int, memory: int | None, unit: Vec3Int | None) -> Cut:
        """Return slabs."""
        return slabs(self.extract, threads, memory, unit)

    def header(self) -> bytes:
        """Return what comes before the voxels."""
        return _npy_header(self.extract) if self.kind == "npy" else _nrrd_header(self.extract)

    def begin(self, folder: str) -> None:
        """Make the file with its header, as long as it will be; one that is there holds finished slabs."""
        header, path = self.header(), f"{folder}/whole"
        if os.path.exists(path):
            return
        with open(f"{path}.unfinished", "wb") as file:
            file.write(header)
            file.truncate(len(header) + self.extract.nbytes)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.unfinished", path)

    def write(self, folder: str, number: int, unit: BoundingBox) -> int:
        """Write a slab to its place."""
        del number
        extract = self.extract
        place = len(self.header()) + (unit.topleft.z - extract.box.topleft.z) * extract.section_nbytes
        if extract.store.is_empty(unit):
            return 0  # no other unit writes there: it is a hole
        data = extract.read(unit).reshape(-1, order="F")
        with open(f"{folder}/whole", "r+b", buffering=0) as file:
            file.seek(place)
            left = memoryview(data.view(np.uint8))
            while left:
                left = left[file.write(left) or 0 :]
            os.fsync(file.fileno())
        return data.nbytes

    def finish(self, folder: str, cut: Cut) -> Made:
        """Give the file its name."""
        del cut
        replace_keeping_mode(f"{folder}/whole", self.target)
        return Made(1, os.stat(self.target).st_size)


def _npy_header(extract: Extract) -> bytes:
    """Return the header of an array (c, x, y, z) in Fortran order."""
    shape = (extract.channels, *extract.box.size)
    file = io.BytesIO()
    described = {"descr": extract.dtype.str, "fortran_order": True, "shape": tuple(map(int, shape))}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()


def _nrrd_header(extract: Extract) -> bytes:
    """Return the header: axes x, y, z, and before them the channels where there are several."""
    several = extract.channels > 1
    size, symbol = extract.size_and_symbol
    symbol = symbol.replace("µ", "u").replace("Å", "angstrom")  # the header is ASCII
    directions = [
        f"({','.join(f'{side:.17g}' if n == axis else '0' for n, side in enumerate(size))})"
        for axis in range(3)
    ]
    origin = ",".join(f"{at * side:.17g}" for at, side in zip(extract.box.topleft, size, strict=True))
    sides = [*([extract.channels] if several else []), *extract.box.size]
    lines = [
        "NRRD0005",
        f"content: {extract.layer} mag {extract.mag}".encode("ascii", "replace").decode(),
        f"type: {_NRRD_TYPES.get(extract.dtype.name, extract.dtype.name)}",
        f"dimension: {len(sides)}",
        "space dimension: 3",
        f"sizes: {' '.join(map(str, sides))}",
        f"space directions: {' '.join([*(['none'] if several else []), *directions])}",
        f"kinds: {' '.join([*(['vector'] if several else []), 'domain', 'domain', 'domain'])}",
        "endian: little",
        "encoding: raw",
        f'space units: "{symbol}" "{symbol}" "{symbol}"',
        f"space origin: ({origin})",
    ]
    return ("\n".join(lines) + "\n\n").encode()
