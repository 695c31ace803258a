"""KNOSSOS cubes: raw files of 128³ bytes, x fastest, and a ``knossos.conf`` beside them."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass

import numpy as np

from wkdask.errors import DamagedCubeError, DamagedHeaderError, UnsupportedFormatError
from wkdask.external.arrays.found import Asked, Found, Part
from wkdask.fsio import open_regular
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.grid import CubeGrid
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.storage.protocol import Voxels

__all__ = ["is_knossos", "knossos_found"]

_CONF = "knossos.conf"
_SIDE = 128
_NUMBER = r"([-+0-9.eE]+)"


@dataclass(frozen=True, slots=True)
class _Cubes:
    """The cubes of one magnification."""

    folder: str
    """Its folder, with the folders x0000 and so on."""
    name: str
    """What the names of files begin with: experiment and mag."""
    side: int
    """Of a cube."""

    def path(self, index: Vec3Int) -> str:
        """Return the file of a cube."""
        x, y, z = (f"{axis}{n:04}" for axis, n in zip("xyz", index, strict=True))
        return f"{self.folder}/{x}/{y}/{z}/{self.name}_{x}_{y}_{z}.raw"

    def read(self, index: tuple[slice, ...]) -> Voxels:
        """Return a part; what has no file is zeros."""
        low, high = [each.start for each in index], [each.stop for each in index]
        box = BoundingBox.from_corners(low, high)
        out = np.zeros(box.size, "u1", order="F")
        for number, piece in CubeGrid(Vec3Int.full(self.side)).pieces(box):
            cube = self._cube(number)
            if cube is not None:
                inside = piece.to_slices(number * self.side)
                out[piece.to_slices(box.topleft)] = cube[inside]
        return out

    def _cube(self, index: Vec3Int) -> Voxels | None:
        """Return the voxels of a cube; None where there is no file."""
        path = self.path(index)
        try:
            with open(open_regular(path), "rb") as file:
                data = file.read(self.side**3 + 1)
        except FileNotFoundError:
            return None
        if len(data) != self.side**3:
            raise DamagedCubeError(f"{path} has {os.stat(path).st_size} bytes, a cube has {self.side**3}")
        return np.frombuffer(data, "u1").reshape((self.side,) * 3, order="F")


def is_knossos(path: str) -> bool:
    """Return whether a folder has KNOSSOS cubes, or magnifications of them."""
    return os.path.isfile(f"{path}/{_CONF}") or os.path.isfile(f"{path}/mag1/{_CONF}")


def knossos_found(path: str, inner: str, asked: Asked) -> Found:
    """Return what ``knossos.conf`` says; of a folder of mags also what is in ``mag2``, ``mag4`` and so on.

    Raises
    ------
    DamagedHeaderError
        If it does not say how large the volume is.
    UnsupportedFormatError
        If its cubes are compressed.
    """
    del inner, asked
    root = path if os.path.isfile(f"{path}/{_CONF}") else f"{path}/mag1"
    size, _, _ = _conf(root)
    parts, notes = [_part(root, (1, 1, 1))], []
    if root != path:
        others = sorted(int(name[3:]) for name in os.listdir(path) if re.fullmatch(r"mag[1-9][0-9]*", name))
        for mag in others:
            folder = f"{path}/mag{mag}"
            if mag == 1:
                continue
            if mag & (mag - 1) or not os.path.isfile(f"{folder}/{_CONF}"):
                notes.append(f"{folder} is left out: it is no power of two, or has no {_CONF}")
                continue
            parts.append(_part(folder, (mag, mag, mag)))
    return Found(tuple(parts), "xyz", size, tuple(notes))


def _part(folder: str, step: tuple[int, int, int]) -> Part:
    """Return the cubes of a folder."""
    _, shape, side = _conf(folder)
    first = next(glob.iglob(f"{glob.escape(folder)}/x[0-9]*/y[0-9]*/z[0-9]*/*"), None)
    if first is None or not first.endswith(".raw"):
        raise UnsupportedFormatError(
            f"{folder} has no cubes of raw bytes "
            f"(x0000/y0000/z0000/….raw){'' if first is None else f', but {first}'}; "
            f"compressed cubes, and those of segmentations, are not read"
        )
    found = re.fullmatch(r"(.*)_x[0-9]{4}_y[0-9]{4}_z[0-9]{4}\.raw", os.path.basename(first))
    if found is None:
        raise UnsupportedFormatError(f"{first} has not the name of a KNOSSOS cube, …_x0000_y0000_z0000.raw")
    return Part(folder, _Cubes(folder, found[1], side), shape, "uint8", (side,) * 3, step, (0, 0, 0))


def _conf(folder: str) -> tuple[VoxelSize | None, tuple[int, int, int], int]:
    """Return voxel size in nm, extent, and the side of a cube."""
    path = f"{folder}/{_CONF}"
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 16)
    except OSError as error:
        raise DamagedHeaderError(f"{path} cannot be read: {error}") from error

    def numbers(word: str) -> list[float] | None:
        found = [re.search(rf"^\s*{word}\s+{axis}\s+{_NUMBER}", text, re.MULTILINE) for axis in "xyz"]
        try:
            return [float(each[1]) for each in found if each is not None] if all(found) else None
        except ValueError:
            return None

    extent, scale = numbers("boundary"), numbers("scale")
    if extent is None or not all(side >= 1 and side == int(side) for side in extent):
        raise DamagedHeaderError(f"{path} does not say how large the volume is (boundary x 1024; …)")
    edge = re.search(r"^\s*cube_edge_length\s+([0-9]+)", text, re.MULTILINE)
    side = int(edge[1]) if edge is not None else _SIDE
    if not 1 <= side <= 1024:
        raise DamagedHeaderError(f"{path} says that cubes have sides of {side}")
    size = None
    if scale is not None and all(0 < each < 1e12 for each in scale):
        mag = re.search(r"^\s*magnification\s+([0-9]+)", text, re.MULTILINE)
        factor = int(mag[1]) if mag is not None and int(mag[1]) else 1
        size = VoxelSize((scale[0], scale[1], scale[2])) if factor == 1 else None
    return size, (int(extent[0]), int(extent[1]), int(extent[2])), side
