"""Names that scripts of version 4 import from ``webknossos.dataset_properties``."""

from __future__ import annotations

from wkdask.dataset.properties import (
    COLOR_CATEGORY,
    SEGMENTATION_CATEGORY,
    AffineCoordinateTransformation,
    AttachmentDataFormat,
    CoordinateTransformation,
    DataFormat,
    DatasetViewConfiguration,
    LayerCategoryType,
    LayerViewConfiguration,
    LengthUnit,
    ThinPlateSplineCoordinateTransformation,
    VoxelSize,
    length_unit_from_str,
)

__all__ = [
    "COLOR_CATEGORY",
    "SEGMENTATION_CATEGORY",
    "AffineCoordinateTransformation",
    "AttachmentDataFormat",
    "CoordinateTransformation",
    "DataFormat",
    "DatasetViewConfiguration",
    "LayerCategoryType",
    "LayerViewConfiguration",
    "LengthUnit",
    "ThinPlateSplineCoordinateTransformation",
    "VoxelSize",
    "length_unit_from_str",
]
