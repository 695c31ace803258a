"""WEBKNOSSOS datasets, native to Dask."""

from typing import Any

from wkdask.array_info import ArrayInfo
from wkdask.attachment_kinds import (
    AgglomerateAttachment,
    Attachment,
    AttachmentDataFormat,
    ConnectomeAttachment,
    CumsumAttachment,
    MeshAttachment,
    SegmentIndexAttachment,
    SegmentStatisticsAttachment,
)
from wkdask.attachments import Attachments
from wkdask.axis_vectors import VecInt, VecIntLike
from wkdask.components import Components, label_components
from wkdask.dataset import Dataset
from wkdask.events import WriteReport
from wkdask.geometry import BoundingBox, Mag, MagLike, Vec3Int, Vec3IntLike
from wkdask.layer import Layer, LayerCategories, SegmentationLayer
from wkdask.mag_view import MagView
from wkdask.names import (
    C_AXIS,
    COLOR_CATEGORY,
    CXYZ_AXES,
    DEFAULT_CHUNK_SHAPE,
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
from wkdask.nd_geometry import NDBoundingBox, NormalizedBoundingBox
from wkdask.nd_mag import NDMagView
from wkdask.slices import BufferedSliceWriter
from wkdask.storing import store
from wkdask.transformations import (
    AffineCoordinateTransformation,
    CoordinateTransformation,
    ThinPlateSplineCoordinateTransformation,
)
from wkdask.units import VoxelSize, length_unit_from_str
from wkdask.vec3_float import Vec3Float, Vec3FloatLike
from wkdask.vectors import as_vec3_int_or_none
from wkdask.view import View
from wkdask.view_configuration import DatasetViewConfiguration, LayerViewConfiguration
from wkdask.zarr_config import Zarr3Config

__version__ = "0.1.0"

__all__ = (
    "COLOR_CATEGORY",
    "CXYZ_AXES",
    "C_AXIS",
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
        from wkdask.agglomerates import AgglomerateGraph

        return AgglomerateGraph
    from wkdask.absent import absent

    raise absent(name)
