"""What is exported: a box of a mag as plain data, and how its voxels become sections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wkdask.geometry import BoundingBox, Mag
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.storage.protocol import StoredMag, Voxels

__all__ = ["Extract"]

_SYMBOLS = {
    "nanometer": "nm", "micrometer": "µm", "millimeter": "mm", "centimeter": "cm", "meter": "m",
    "picometer": "pm", "angstrom": "Å",
}  # fmt: skip
"""Units that other programs have a symbol for; sizes in others are written in nm."""


@dataclass(frozen=True, slots=True)
class Extract:
    """A box of a mag."""

    store: StoredMag
    """The mag."""
    box: BoundingBox
    """What is taken: absolute, in voxels of the mag."""
    layer: str
    """The layer's name."""
    mag: Mag
    """Which of its mags."""
    voxel_size: VoxelSize
    """Of a voxel of this mag."""
    channel: int | None = None
    """The channel that is taken; None for all."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of one channel, little-endian as all formats here are written."""
        return np.dtype(self.store.spec.dtype).newbyteorder("<")

    @property
    def channels(self) -> int:
        """Channels of a voxel that are taken."""
        return self.store.spec.num_channels if self.channel is None else 1

    @property
    def is_rgb(self) -> bool:
        """Whether a voxel is a colour: three channels of uint8."""
        return self.channels == 3 and self.store.spec.dtype == "uint8"

    @property
    def voxel_nbytes(self) -> int:
        """Bytes of a voxel, all channels that are taken."""
        return self.channels * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels, uncompressed."""
        return self.box.volume() * self.voxel_nbytes

    @property
    def section_nbytes(self) -> int:
        """Bytes of the voxels of a section."""
        return self.box.size.x * self.box.size.y * self.voxel_nbytes

    @property
    def size_and_symbol(self) -> tuple[tuple[float, float, float], str]:
        """The extent of a voxel along (x, y, z), and the symbol of its unit."""
        symbol = _SYMBOLS.get(self.voxel_size.unit)
        if symbol is None:
            return self.voxel_size.to_nanometer(), "nm"
        return self.voxel_size.factor, symbol

    def read(self, box: BoundingBox) -> Voxels:
        """Return the voxels of a part of it, ``(c, *box.size)`` in Fortran order, little-endian."""
        block = self.store.read(box)
        if self.channel is not None and self.store.spec.num_channels > 1:
            block = np.asfortranarray(block[self.channel : self.channel + 1])
        return block.astype(self.dtype, copy=False)

    def pages(self, block: Voxels) -> list[Voxels]:
        """Return the sections of a block as images, row by row: (y, x, c) of a colour, else (y, x).

        Of several channels that are no colour each is an image of its own, one after the other in each section.
        """
        if self.is_rgb:
            return [np.ascontiguousarray(block[..., z].T) for z in range(block.shape[3])]
        channels = range(self.channels)
        return [np.ascontiguousarray(block[c, ..., z].T) for z in range(block.shape[3]) for c in channels]
