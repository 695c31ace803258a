"""WEBKNOSSOS datasets, native to Dask.

What the package shows is imported when it is first used: the command line shows a help without it.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from wkdask import portable as _portable  # first of all: it says where wkdask does not run

if TYPE_CHECKING:
    from wkdask.attachments.attachments import Attachments
    from wkdask.attachments.kinds import (
        AgglomerateAttachment,
        Attachment,
        AttachmentDataFormat,
        ConnectomeAttachment,
        CumsumAttachment,
        MeshAttachment,
        SegmentIndexAttachment,
        SegmentStatisticsAttachment,
    )
    from wkdask.components import Components, label_components
    from wkdask.dataset import Dataset
    from wkdask.dataset.defaults import (
        DEFAULT_CHUNK_SHAPE,
        DEFAULT_CHUNKS_PER_SHARD_FROM_IMAGES,
        DEFAULT_DATA_FORMAT,
        DEFAULT_SHARD_SHAPE,
    )
    from wkdask.further_axes.mag_view import NDMagView
    from wkdask.geometry import BoundingBox, Mag, MagLike, Vec3Int, Vec3IntLike
    from wkdask.geometry.axis_vectors import VecInt, VecIntLike
    from wkdask.geometry.nd_boxes import NDBoundingBox, NormalizedBoundingBox
    from wkdask.geometry.vec3_float import Vec3Float, Vec3FloatLike, as_vec3_float_or_none
    from wkdask.geometry.vectors import as_vec3_int_or_none
    from wkdask.geometry.voxel_size import VoxelSize, length_unit_from_str
    from wkdask.jobs.events import WriteReport
    from wkdask.layer import Layer, LayerCategories, SegmentationLayer
    from wkdask.layer.export import LayerExport
    from wkdask.layer.zarr_config import Zarr3Config
    from wkdask.mag_view import MagView
    from wkdask.names import (
        C_AXIS,
        COLOR_CATEGORY,
        CXYZ_AXES,
        SEGMENTATION_CATEGORY,
        T_AXIS,
        TCXYZ_AXES,
        TXYZ_AXES,
        X_AXIS,
        XY_AXES,
        XYZ_AXES,
        Y_AXIS,
        Z_AXIS,
        DataFormat,
        LayerCategoryType,
        LengthUnit,
        SamplingModes,
        XYZAxis,
    )
    from wkdask.operations.slices import BufferedSliceWriter
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
    from wkdask.storing import store
    from wkdask.view import View
    from wkdask.view.array_info import ArrayInfo

__version__ = "0.1.0"

__all__ = (
    "COLOR_CATEGORY",
    "CXYZ_AXES",
    "C_AXIS",
    "DEFAULT_CHUNKS_PER_SHARD_FROM_IMAGES",
    "DEFAULT_CHUNK_SHAPE",
    "DEFAULT_DATA_FORMAT",
    "DEFAULT_SHARD_SHAPE",
    "SEGMENTATION_CATEGORY",
    "TCXYZ_AXES",
    "TXYZ_AXES",
    "T_AXIS",
    "XYZ_AXES",
    "XY_AXES",
    "X_AXIS",
    "Y_AXIS",
    "Z_AXIS",
    "AffineCoordinateTransformation",
    "AgglomerateAttachment",
    "ArrayInfo",
    "Attachment",
    "AttachmentDataFormat",
    "Attachments",
    "BoundingBox",
    "BufferedSliceWriter",
    "Components",
    "ConnectomeAttachment",
    "CoordinateTransformation",
    "CumsumAttachment",
    "DataFormat",
    "Dataset",
    "DatasetProperties",
    "DatasetViewConfiguration",
    "Layer",
    "LayerCategories",
    "LayerCategoryType",
    "LayerExport",
    "LayerProperties",
    "LayerViewConfiguration",
    "LengthUnit",
    "Mag",
    "MagLike",
    "MagView",
    "MagViewProperties",
    "MeshAttachment",
    "NDBoundingBox",
    "NDMagView",
    "NormalizedBoundingBox",
    "SamplingModes",
    "SegmentIndexAttachment",
    "SegmentStatisticsAttachment",
    "SegmentationLayer",
    "SegmentationLayerProperties",
    "ThinPlateSplineCoordinateTransformation",
    "Vec3Float",
    "Vec3FloatLike",
    "Vec3Int",
    "Vec3IntLike",
    "VecInt",
    "VecIntLike",
    "View",
    "VoxelSize",
    "WriteReport",
    "XYZAxis",
    "Zarr3Config",
    "as_vec3_float_or_none",
    "as_vec3_int_or_none",
    "get_dataset_converter",
    "label_components",
    "length_unit_from_str",
    "store",
)

_NAMES = {
    "wkdask.attachments.attachments": "Attachments",
    "wkdask.attachments.kinds": (
        "AgglomerateAttachment Attachment AttachmentDataFormat ConnectomeAttachment "
        "CumsumAttachment MeshAttachment SegmentIndexAttachment SegmentStatisticsAttachment"
    ),
    "wkdask.components": "Components label_components",
    "wkdask.dataset": "Dataset",
    "wkdask.dataset.defaults": (
        "DEFAULT_CHUNK_SHAPE DEFAULT_CHUNKS_PER_SHARD_FROM_IMAGES DEFAULT_DATA_FORMAT DEFAULT_SHARD_SHAPE"
    ),
    "wkdask.further_axes.mag_view": "NDMagView",
    "wkdask.geometry": "BoundingBox Mag MagLike Vec3Int Vec3IntLike",
    "wkdask.geometry.axis_vectors": "VecInt VecIntLike",
    "wkdask.geometry.nd_boxes": "NDBoundingBox NormalizedBoundingBox",
    "wkdask.geometry.vec3_float": "Vec3Float Vec3FloatLike as_vec3_float_or_none",
    "wkdask.geometry.vectors": "as_vec3_int_or_none",
    "wkdask.geometry.voxel_size": "VoxelSize length_unit_from_str",
    "wkdask.jobs.events": "WriteReport",
    "wkdask.layer": "Layer LayerCategories SegmentationLayer",
    "wkdask.layer.export": "LayerExport",
    "wkdask.layer.zarr_config": "Zarr3Config",
    "wkdask.mag_view": "MagView",
    "wkdask.names": (
        "C_AXIS COLOR_CATEGORY CXYZ_AXES "
        "SEGMENTATION_CATEGORY T_AXIS TCXYZ_AXES TXYZ_AXES X_AXIS XY_AXES XYZ_AXES Y_AXIS "
        "Z_AXIS DataFormat LayerCategoryType LengthUnit SamplingModes XYZAxis"
    ),
    "wkdask.operations.slices": "BufferedSliceWriter",
    "wkdask.properties.listed": (
        "DatasetProperties LayerProperties MagViewProperties SegmentationLayerProperties get_dataset_converter"
    ),
    "wkdask.properties.transformations": (
        "AffineCoordinateTransformation CoordinateTransformation ThinPlateSplineCoordinateTransformation"
    ),
    "wkdask.properties.view_configuration": "DatasetViewConfiguration LayerViewConfiguration",
    "wkdask.storing": "store",
    "wkdask.view": "View",
    "wkdask.view.array_info": "ArrayInfo",
    "wkdask.attachments.agglomerates": "AgglomerateGraph",
}
"""The public names, by the module that has them."""

_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Return what is imported only when it is used, and say what of webknossos stays outside."""
    if name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = found  # the next time it is simply there
        return found
    if not name.startswith("_") and importlib.util.find_spec(f"wkdask.{name}") is not None:
        return importlib.import_module(f"wkdask.{name}")  # a module that the script has not imported
    from wkdask.absent import absent

    raise absent(name)


del _portable

_SHOWN = (
    "AgglomerateGraph",
    "__all__",
    "__doc__",
    "__file__",
    "__name__",
    "__path__",
    "__version__",
    "errors",
)
"""What `dir` shows beside the public names."""


def __dir__() -> list[str]:
    """Return the public names, and not the modules that they come from, which `import` finds all the same."""
    return sorted({*__all__, *_SHOWN})
