"""Words that the properties file and the Dataset API have: categories, formats, modes, units, axes, defaults.

Each is a text as well: ``DataFormat.Zarr3 == "zarr3"``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

__all__ = [
    "COLOR_CATEGORY",
    "CXYZ_AXES",
    "C_AXIS",
    "DEFAULT_DATA_FORMAT",
    "SEGMENTATION_CATEGORY",
    "TCXYZ_AXES",
    "TXYZ_AXES",
    "T_AXIS",
    "XYZ_AXES",
    "XY_AXES",
    "X_AXIS",
    "Y_AXIS",
    "Z_AXIS",
    "DataFormat",
    "InterpolationModes",
    "LayerCategories",
    "LayerCategoryType",
    "LengthUnit",
    "SamplingModes",
    "XYZAxis",
]

LayerCategoryType = Literal["color", "segmentation"]
"""What a layer can be."""

COLOR_CATEGORY: LayerCategoryType = "color"
"""An image."""

SEGMENTATION_CATEGORY: LayerCategoryType = "segmentation"
"""Ids of segments."""

XYZAxis = Literal["x", "y", "z"]
"""The name of an axis in space."""

C_AXIS, X_AXIS, Y_AXIS, Z_AXIS, T_AXIS = "c", "x", "y", "z", "t"
XY_AXES, XYZ_AXES, CXYZ_AXES = ("x", "y"), ("x", "y", "z"), ("c", "x", "y", "z")
TXYZ_AXES, TCXYZ_AXES = ("t", "x", "y", "z"), ("t", "c", "x", "y", "z")


class LayerCategories:
    """The kinds of layers, as the properties file writes them.

    Examples
    --------
    >>> LayerCategories.COLOR_TYPE == COLOR_CATEGORY == ds.get_layer("color").category
    True
    """

    COLOR_TYPE = "color"
    SEGMENTATION_TYPE = "segmentation"


class DataFormat(StrEnum):
    """How the mags of a layer are stored; the last two are listed only.

    Examples
    --------
    >>> DataFormat("zarr3"), DataFormat.WKW == "wkw" == DEFAULT_DATA_FORMAT
    (<DataFormat.Zarr3: 'zarr3'>, True)
    """

    WKW = "wkw"
    Zarr = "zarr"
    Zarr3 = "zarr3"
    N5 = "n5"
    NeuroglancerPrecomputed = "neuroglancerPrecomputed"


class SamplingModes(StrEnum):
    """How the coarser mags are chosen; see :meth:`Layer.downsample`.

    Examples
    --------
    >>> reports = layer.downsample(coarsest_mag=2, sampling_mode=SamplingModes.CONSTANT_Z)
    >>> [str(mag) for mag in layer.mags]
    ['1', '2-2-1']
    """

    ANISOTROPIC = "anisotropic"
    ISOTROPIC = "isotropic"
    CONSTANT_Z = "constant_z"


class InterpolationModes(StrEnum):
    """How a coarser voxel is made of finer ones; see :meth:`Layer.downsample`.

    Examples
    --------
    >>> reports = layer.downsample(coarsest_mag=2, interpolation_mode=InterpolationModes.MAX)
    """

    MEDIAN = "median"
    MODE = "mode"
    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    MAX = "max"
    MIN = "min"


class LengthUnit(StrEnum):
    """The unit of a voxel's size.

    Examples
    --------
    >>> VoxelSize((1, 1, 2), LengthUnit.MICROMETER).unit == "micrometer"
    True
    """

    YOCTOMETER = "yoctometer"
    ZEPTOMETER = "zeptometer"
    ATTOMETER = "attometer"
    FEMTOMETER = "femtometer"
    PICOMETER = "picometer"
    NANOMETER = "nanometer"
    MICROMETER = "micrometer"
    MILLIMETER = "millimeter"
    CENTIMETER = "centimeter"
    DECIMETER = "decimeter"
    METER = "meter"
    HECTOMETER = "hectometer"
    KILOMETER = "kilometer"
    MEGAMETER = "megameter"
    GIGAMETER = "gigameter"
    TERAMETER = "terameter"
    PETAMETER = "petameter"
    EXAMETER = "exameter"
    ZETTAMETER = "zettameter"
    YOTTAMETER = "yottameter"
    ANGSTROM = "angstrom"
    INCH = "inch"
    FOOT = "foot"
    YARD = "yard"
    MILE = "mile"
    PARSEC = "parsec"


DEFAULT_DATA_FORMAT = DataFormat.WKW
"""Of a new layer; webknossos 4 has Zarr 3."""
