"""WEBKNOSSOS datasets, native to Dask."""

from wkdask.components import Components, label_components
from wkdask.dataset import Dataset
from wkdask.events import WriteReport
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.layer import Layer, LayerCategories, SegmentationLayer
from wkdask.mag_view import MagView
from wkdask.storing import store
from wkdask.units import VoxelSize
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
    "SegmentationLayer",
    "Vec3Int",
    "View",
    "VoxelSize",
    "WriteReport",
    "label_components",
    "store",
)
