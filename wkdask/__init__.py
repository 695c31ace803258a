"""WEBKNOSSOS datasets, native to Dask."""

from wkdask.array_info import ArrayInfo
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
from wkdask.slices import BufferedSliceWriter
from wkdask.storing import store
from wkdask.units import VoxelSize, length_unit_from_str
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
    "XYZ_AXES",
    "XY_AXES",
    "X_AXIS",
    "Y_AXIS",
    "Z_AXIS",
    "ArrayInfo",
    "BoundingBox",
    "BufferedSliceWriter",
    "Components",
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
    "SamplingModes",
    "SegmentationLayer",
    "Vec3Int",
    "Vec3IntLike",
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
