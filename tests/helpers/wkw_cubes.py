"""Mags of small cubes that the wkw library has written."""

import contextlib

import numpy as np
import wkw

from wkdask.storage.wkw.mag import WkwMag

SIDE = 32  # of the cubes: 4**3 blocks of 8**3 voxels


def library_mag(folder, dtype="uint8", channels=1, compression=1):
    """Return a mag of 2 × 1 × 1 cubes that the library wrote, and its voxels."""
    voxels = np.random.default_rng(3).integers(0, 100, (channels, 2 * SIDE, SIDE, SIDE)).astype(dtype)
    voxels = np.asfortranarray(voxels)
    header = wkw.Header(voxels.dtype.type, channels, 1, 8, 4, compression)
    with contextlib.closing(wkw.Dataset.open(str(folder), header)) as dataset:
        dataset.write((0, 0, 0), voxels)
    return WkwMag.open(str(folder)), voxels
