"""Names that scripts import from ``webknossos.dataset.properties`` (2021) or ``webknossos.dataset_properties``."""

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
from wkdask.properties.listed import (
    DatasetProperties,
    LayerProperties,
    MagViewProperties,
    SegmentationLayerProperties,
    get_dataset_converter,
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
    "DatasetProperties",
    "DatasetViewConfiguration",
    "LayerCategoryType",
    "LayerProperties",
    "LayerViewConfiguration",
    "LengthUnit",
    "MagViewProperties",
    "SegmentationLayerProperties",
    "ThinPlateSplineCoordinateTransformation",
    "VoxelSize",
    "get_dataset_converter",
    "length_unit_from_str",
]

dataset_converter = get_dataset_converter()  # as it was called in 2021; version 4 has the function
