"""WEBKNOSSOS datasets, native to Dask."""

from wkdask.axis_vectors import VecInt
from wkdask.components import Components, label_components
from wkdask.dataset import Dataset
from wkdask.events import WriteReport
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.layer import Layer, LayerCategories, SegmentationLayer
from wkdask.mag_view import MagView
from wkdask.nd_geometry import NDBoundingBox, NormalizedBoundingBox
from wkdask.storing import store
from wkdask.units import VoxelSize
from wkdask.vec3_float import Vec3Float
from wkdask.view import View
from wkdask.view_configuration import DatasetViewConfiguration, LayerViewConfiguration

__version__ = "0.1.0"

__all__ = (
    "BoundingBox",
    "Components",
    "Dataset",
    "DatasetViewConfiguration",
    "Layer",
    "LayerCategories",
    "LayerViewConfiguration",
    "Mag",
    "MagView",
    "NDBoundingBox",
    "NormalizedBoundingBox",
    "SegmentationLayer",
    "Vec3Float",
    "Vec3Int",
    "VecInt",
    "View",
    "VoxelSize",
    "WriteReport",
    "label_components",
    "store",
)
