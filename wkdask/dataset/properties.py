"""Names that scripts of version 4 import from ``webknossos.dataset_properties``, as `wkdask.dataset_properties`."""

from __future__ import annotations

from wkdask.attachments.kinds import AttachmentDataFormat
from wkdask.geometry.voxel_size import VoxelSize, length_unit_from_str
from wkdask.names import (
    COLOR_CATEGORY,
    SEGMENTATION_CATEGORY,
    DataFormat,
    LayerCategoryType,
    LengthUnit,
)
from wkdask.properties.transformations import (
    AffineCoordinateTransformation,
    CoordinateTransformation,
    ThinPlateSplineCoordinateTransformation,
)
from wkdask.properties.view_configuration import DatasetViewConfiguration, LayerViewConfiguration

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
