"""WEBKNOSSOS datasets, native to Dask."""

from typing import Any

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
from wkdask.axis_vectors import (
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
    VecInt,
)
from wkdask.components import Components, label_components
from wkdask.dataset import Dataset
from wkdask.events import WriteReport
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.layer import Layer, LayerCategories, SegmentationLayer
from wkdask.mag_view import MagView
from wkdask.nd_geometry import NDBoundingBox, NormalizedBoundingBox
from wkdask.nd_mag import NDMagView
from wkdask.storing import store
from wkdask.transformations import (
    AffineCoordinateTransformation,
    CoordinateTransformation,
    ThinPlateSplineCoordinateTransformation,
)
from wkdask.units import VoxelSize
from wkdask.vec3_float import Vec3Float
from wkdask.view import View
from wkdask.view_configuration import DatasetViewConfiguration, LayerViewConfiguration

__version__ = "0.1.0"

__all__ = (
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
    "AffineCoordinateTransformation",
    "AgglomerateAttachment",
    "Attachment",
    "AttachmentDataFormat",
    "Attachments",
    "BoundingBox",
    "Components",
    "ConnectomeAttachment",
    "CoordinateTransformation",
    "CumsumAttachment",
    "Dataset",
    "DatasetViewConfiguration",
    "Layer",
    "LayerCategories",
    "LayerViewConfiguration",
    "Mag",
    "MagView",
    "MeshAttachment",
    "NDBoundingBox",
    "NDMagView",
    "NormalizedBoundingBox",
    "SegmentIndexAttachment",
    "SegmentStatisticsAttachment",
    "SegmentationLayer",
    "ThinPlateSplineCoordinateTransformation",
    "Vec3Float",
    "Vec3Int",
    "VecInt",
    "View",
    "VoxelSize",
    "WriteReport",
    "label_components",
    "store",
)


def __getattr__(name: str) -> Any:
    """Return what is imported only when it is used, and say what of webknossos stays outside."""
    if name == "AgglomerateGraph":  # needs networkx, which is an extra
        from wkdask.agglomerates import AgglomerateGraph

        return AgglomerateGraph
    from wkdask.absent import absent

    raise absent(name)
