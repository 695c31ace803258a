"""The upsampling of blocks in memory, under the name that scripts of 2021 import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wkdask.geometry import Vec3Int

__all__ = ["upsample_cube"]


def upsample_cube(cube_buffer: Any, factors: Sequence[int]) -> Any:
    """Return a block with each voxel repeated.

    Parameters
    ----------
    cube_buffer
        An array (x, y, z), or (c, x, y, z).
    factors
        How often along x, y, z.
    """
    from wkdask.kernels import upsample

    block = cube_buffer[None] if cube_buffer.ndim == 3 else cube_buffer
    found = upsample(block, tuple(Vec3Int(factors)))
    return found[0] if cube_buffer.ndim == 3 else found
