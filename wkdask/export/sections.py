"""A file for each section, TIFF or PNG: what `wkdask convert` reads.

Files differ in nothing but their pixels where they are not compressed, so that they are read fast.
"""

from __future__ import annotations

import contextlib
import os
import string
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from wkdask.errors import InvalidValueError
from wkdask.export.extract import Extract
from wkdask.export.tiff import TiffStyle
from wkdask.export.writer import Cut, Made, slabs
from wkdask.fsio import fsync_folder
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import Voxels

__all__ = ["SectionFiles", "checked_pattern"]

_FIELDS = ("layer", "mag", "z", "z1", "n")
_UNFINISHED = ".wkdask-unfinished"
"""What the names of files end with until they are whole; they begin with a dot, so that nothing reads them."""


@dataclass(frozen=True, slots=True)
class SectionFiles:
    """A folder of images, one for each section."""

    extract: Extract
    """What is exported."""
    target: str
    """The folder."""
    pattern: str
    """Of the names: see `checked_pattern`."""
    tiff: TiffStyle | None
    """How TIFF is stored; None for PNG."""

    is_folder = True
    copies = 1

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names, and how images are stored."""
        return ("sections", self.pattern, str(self.tiff))

    @property
    def is_compressed(self) -> bool:
        """PNG is; TIFF where it is asked for."""
        return self.tiff is None or self.tiff.codec != "none"

    @property
    def notes(self) -> tuple[str, ...]:
        """What becomes of channels."""
        if self.extract.channels == 1 or self.extract.is_rgb:
            return ()
        return (f"each file holds {self.extract.channels} pages, one for each channel",)

    def name(self, z: int) -> str:
        """Return the path of the file of a section, by its z in voxels of the mag."""
        mag, n = self.extract.mag, z - self.extract.box.topleft.z
        name = self.pattern.format(
            layer=self.extract.layer, mag=mag.to_layer_name(), z=z, z1=z * mag.to_vec3_int().z, n=n
        )
        return os.path.join(self.target, name)

    def names(self) -> Iterator[str]:
        """Yield the paths of all files."""
        box = self.extract.box
        return (self.name(z) for z in range(box.topleft.z, box.bottomright.z))

    def cut(self, threads: int, memory: int | None, unit: Vec3Int | None) -> Cut:
        """Return slabs."""
        return slabs(self.extract, threads, memory, unit)

    def begin(self, folder: str) -> None:
        """Remove what killed tasks left of an earlier run."""
        del folder
        with os.scandir(self.target) as entries:
            left = [entry.path for entry in entries if entry.name.endswith(_UNFINISHED)]
        for path in left:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def write(self, folder: str, number: int, unit: BoundingBox) -> int:
        """Write the files of a slab; each gets its name when it is whole and on the disk."""
        del folder, number
        block, nbytes = self.extract.read(unit), 0
        for n in range(unit.size.z):
            path = self.name(unit.topleft.z + n)
            temporary = f"{self.target}/.{uuid.uuid4().hex}{_UNFINISHED}"
            try:
                with open(temporary, "xb") as file:
                    self._encode(file, self.extract.pages(block[..., n : n + 1]))
                    file.flush()
                    os.fsync(file.fileno())
                    nbytes += os.fstat(file.fileno()).st_size
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):  # the first error says more
                    os.unlink(temporary)
                raise
        fsync_folder(self.target)
        return nbytes

    def _encode(self, file: object, pages: list[Voxels]) -> None:
        """Write one image."""
        if self.tiff is not None:
            self.tiff.write_image(file, self.extract, pages)
            return
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        (x, y, z), symbol = self.extract.size_and_symbol
        info = PngInfo()
        info.add_itxt("voxel size", f"{x:.12g}, {y:.12g}, {z:.12g} {symbol}")
        Image.fromarray(pages[0]).save(file, "png", pnginfo=info)  # type: ignore[arg-type]  # any open file

    def finish(self, folder: str, cut: Cut) -> Made:
        """Count the files."""
        del folder, cut
        sizes = [os.stat(path).st_size for path in self.names()]
        return Made(len(sizes), sum(sizes))


def checked_pattern(pattern: str, suffixes: tuple[str, ...]) -> str:
    """Return a pattern of names that makes a name of its own for each section.

    Parameters
    ----------
    pattern
        Such as ``"{layer}_{z:05}.tif"``: ``{z}`` is the section in voxels of the mag, ``{z1}`` in voxels of
        mag 1, ``{n}`` counts from 0, ``{layer}`` and ``{mag}`` are names.
    suffixes
        What a name ends with.

    Raises
    ------
    InvalidValueError
        If it does not.
    """
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
        names = [pattern.format(layer="color", mag="1", z=z, z1=z, n=z) for z in (0, 9, 10, 123456)]
    except (ValueError, KeyError, IndexError, AttributeError, TypeError):
        fields, names = set(), []
    known = bool(fields) and fields <= set(_FIELDS) and len(set(names)) == 4
    plain = all("/" not in name and "\0" not in name and not name.startswith(".") for name in names)
    if not known or not plain or not all(name.lower().endswith(suffixes) for name in names):
        raise InvalidValueError(
            f"the name {pattern!r} is no pattern for one file per section: it has a field {{z}} (or {{n}}, from 0 "
            f"on), may have {{layer}} and {{mag}}, and ends with {' or '.join(suffixes)}, such as "
            f"'{{layer}}_{{z:05}}{suffixes[0]}'"
        )
    return pattern
