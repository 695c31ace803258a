"""WEBKNOSSOS datasets, native to Dask."""

from typing import Any

from wkdask import portable as _portable  # first of all: it says where wkdask does not run
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
from wkdask.further_axes.mag_view import NDMagView
from wkdask.geometry import BoundingBox, Mag, MagLike, Vec3Int, Vec3IntLike
from wkdask.geometry.axis_vectors import VecInt, VecIntLike
from wkdask.geometry.nd_boxes import NDBoundingBox, NormalizedBoundingBox
from wkdask.geometry.vec3_float import Vec3Float, Vec3FloatLike
from wkdask.geometry.vectors import as_vec3_int_or_none
from wkdask.geometry.voxel_size import VoxelSize, length_unit_from_str
from wkdask.jobs.events import WriteReport
from wkdask.layer import Layer, LayerCategories, SegmentationLayer
from wkdask.layer.zarr_config import Zarr3Config
from wkdask.mag_view import MagView
from wkdask.names import (
    C_AXIS,
    COLOR_CATEGORY,
    CXYZ_AXES,
    DEFAULT_CHUNK_SHAPE,
    DEFAULT_CHUNKS_PER_SHARD_FROM_IMAGES,
    DEFAULT_DATA_FORMAT,
    DEFAULT_SHARD_SHAPE,
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
    "DatasetViewConfiguration",
    "Layer",
    "LayerCategories",
    "LayerCategoryType",
    "LayerViewConfiguration",
    "LengthUnit",
    "Mag",
    "MagLike",
    "MagView",
    "MeshAttachment",
    "NDBoundingBox",
    "NDMagView",
    "NormalizedBoundingBox",
    "SamplingModes",
    "SegmentIndexAttachment",
    "SegmentStatisticsAttachment",
    "SegmentationLayer",
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
    "as_vec3_int_or_none",
    "label_components",
    "length_unit_from_str",
    "store",
)


def __getattr__(name: str) -> Any:
    """Return what is imported only when it is used, and say what of webknossos stays outside."""
    if name == "AgglomerateGraph":  # needs networkx, which is an extra
        from wkdask.attachments.agglomerates import AgglomerateGraph

        return AgglomerateGraph
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
