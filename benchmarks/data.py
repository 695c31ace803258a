"""The two volumes, and datasets that hold them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wkdask import Dataset
from wkdask.demo.tissue import make_tissue
from wkdask.external.images.stack import find_images, open_stack

SIDE = 256
"""Sides of the cubes."""
VOXEL_SIZE = (4.6, 4.6, 45.0)
KINDS = {"images": ("uint8", "color"), "labels": ("uint32", "segmentation")}
DEFAULT_STACK = Path(__file__).parents[2] / "shared" / "data" / "vnc" / "raw"


class Volumes:
    """The volumes, made once and kept as files; Fortran order, ``(1, x, y, z)``, mapped into memory."""

    def __init__(self, folder: Path, mib: int, stack: Path | None) -> None:
        self.folder = folder
        self.mib = mib
        self.stack = stack if stack is not None else DEFAULT_STACK
        self._loaded: dict[str, NDArray[np.generic]] = {}

    def __getitem__(self, kind: str) -> NDArray[np.generic]:
        if kind not in self._loaded:
            self._loaded[kind] = np.asfortranarray(np.load(self._made(kind), mmap_mode="r"))
        return self._loaded[kind]

    def _made(self, kind: str) -> Path:
        path = self.folder / f"{kind}-{self.mib}.npy"
        if not path.exists():
            volume = tiled_stack(self.stack, self.mib) if kind == "images" else tiled_labels(self.mib)
            draft = path.with_suffix(".draft.npy")
            np.save(draft, volume)
            draft.rename(path)
        return path

    def dataset(self, kind: str, compression: str | None, side: int = SIDE) -> Path:
        """Return a dataset whose layer of that name holds a volume in mag 1; made once, never changed."""
        folder = self.folder / f"{kind}-{self.mib}-{compression}-{side}"
        if not folder.exists():
            draft = Path(f"{folder}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            dtype, category = KINDS[kind]
            layer = Dataset.create(draft, VOXEL_SIZE).add_layer(kind, category, dtype_per_channel=dtype)
            mag = layer.add_mag(1, chunk_shape=32, shard_shape=side, compression=compression)
            mag.write(self[kind], offset=(0, 0, 0), progress=False)
            draft.rename(folder)
        return folder


def shape_for(mib: int, itemsize: int) -> tuple[int, int, int]:
    """Return a shape of so many MiB, cubes of `SIDE` along z first, then x, then y."""
    cubes = max(1, (mib << 20) // (SIDE**3 * itemsize))
    counts = [1, 1, 1]
    while 2 * counts[0] * counts[1] * counts[2] <= cubes:
        axis = min(range(3), key=lambda each: (counts[each], each))
        counts[axis] *= 2
    return (counts[0] * SIDE, counts[1] * SIDE, counts[2] * SIDE)


def tiled_stack(folder: Path, mib: int) -> NDArray[np.uint8]:
    """Return an image stack repeated to a size; synthetic tissue where there is none.

    Every repetition along z is shifted in the plane, so that no block holds the same piece of tissue twice:
    a compressor would find it.
    """
    nx, ny, nz = shape_for(mib, 1)
    if folder.is_dir():
        stack = open_stack(find_images([folder]))
        tile = stack.read(0, stack.depth)[0]
    else:
        tile = make_tissue((1024, 1024, 32))[0]
    out = np.empty((1, nx, ny, nz), np.uint8, order="F")
    for z in range(nz):
        repetition, section = divmod(z, tile.shape[2])
        plane = np.roll(tile[:, :, section], (137 * repetition, 311 * repetition), axis=(0, 1))
        out[0, :, :, z] = np.tile(plane, (-(-nx // plane.shape[0]), -(-ny // plane.shape[1])))[:nx, :ny]
    return out


def tiled_labels(mib: int) -> NDArray[np.uint32]:
    """Return labels of synthetic tissue."""
    nx, ny, nz = shape_for(mib, 4)
    out = np.empty((1, nx, ny, nz), np.uint32, order="F")
    for z in range(0, nz, 64):
        out[0, :, :, z : z + 64] = make_tissue((nx, ny, 64), offset=(0, 0, z))[1]
    return out


def fresh_copy(dataset: Path, target: Path) -> Path:
    """Copy a dataset's files into a folder that is emptied first."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(dataset, target, ignore=shutil.ignore_patterns(".wkdask"))
    return target


def image_stack(volume: NDArray[np.generic], folder: Path) -> Path:
    """Write a volume as a stack of plain TIFFs, a file for each section."""
    import tifffile

    folder.mkdir()
    for z in range(volume.shape[3]):
        tifffile.imwrite(folder / f"{z:04d}.tif", np.ascontiguousarray(volume[0, :, :, z].T))
    return folder


def drop(folder: Path) -> None:
    """Remove a folder, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def threads() -> int:
    """Return the processors that this process may use."""
    return len(os.sched_getaffinity(0))
