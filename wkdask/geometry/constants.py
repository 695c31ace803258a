"""Names of axes, where scripts of version 4 import them from ``webknossos.geometry.constants``."""

from __future__ import annotations

from wkdask.names import (
    C_AXIS,
    CXYZ_AXES,
    T_AXIS,
    TCXYZ_AXES,
    TXYZ_AXES,
    X_AXIS,
    XY_AXES,
    XYZ_AXES,
    Y_AXIS,
    Z_AXIS,
    XYZAxis,
)

__all__ = [
    "CXYZ_AXES",
    "C_AXIS",
    "TCXYZ_AXES",
    "TXYZ_AXES",
    "T_AXIS",
    "XYZ_AXES",
    "XY_AXES",
    "X_AXIS",
    "Y_AXIS",
    "Z_AXIS",
    "XYZAxis",
]
