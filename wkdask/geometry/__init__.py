"""Frozen values of integers, without I/O: vectors, boxes, magnifications, the cube grid, voxel sizes.

This room knows neither files nor dask. Enter at :mod:`~wkdask.geometry.boxes` (`BoundingBox`), go on to
:mod:`~wkdask.geometry.grid`, which cuts a box into cubes. Everything spatial is ``(x, y, z)``.
"""

from wkdask.geometry.boxes import (
    C_AXIS,
    CXYZ_AXES,
    EMPTY_BOX,
    T_AXIS,
    TCXYZ_AXES,
    TXYZ_AXES,
    X_AXIS,
    XY_AXES,
    XYZ_AXES,
    Y_AXIS,
    Z_AXIS,
    BoundingBox,
    Mag,
    MagLike,
    NDBoundingBox,
    NormalizedBoundingBox,
    Vec3Float,
    Vec3FloatLike,
    Vec3Int,
    Vec3IntLike,
    VecInt,
    VecIntLike,
    as_box,
)
from wkdask.geometry.vec3_float import as_vec3_float_or_none
from wkdask.geometry.vectors import as_vec3_int_or_none

__all__ = [
    "CXYZ_AXES",
    "C_AXIS",
    "EMPTY_BOX",
    "TCXYZ_AXES",
    "TXYZ_AXES",
    "T_AXIS",
    "XYZ_AXES",
    "XY_AXES",
    "X_AXIS",
    "Y_AXIS",
    "Z_AXIS",
    "BoundingBox",
    "Mag",
    "MagLike",
    "NDBoundingBox",
    "NormalizedBoundingBox",
    "Vec3Float",
    "Vec3FloatLike",
    "Vec3Int",
    "Vec3IntLike",
    "VecInt",
    "VecIntLike",
    "as_box",
    "as_vec3_float_or_none",
    "as_vec3_int_or_none",
]
