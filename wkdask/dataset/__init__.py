"""A dataset: its layers, copies of it, its equality with another.

Enter at :mod:`~wkdask.dataset.dataset`; each other module is one subject of it.
"""

from wkdask.dataset.dataset import (
    COLOR_CATEGORY,
    PROPERTIES_FILE_NAME,
    SEGMENTATION_CATEGORY,
    Dataset,
    Layer,
    LayerCategoryType,
    MagView,
    SegmentationLayer,
    View,
)

__all__ = [
    "COLOR_CATEGORY",
    "PROPERTIES_FILE_NAME",
    "SEGMENTATION_CATEGORY",
    "Dataset",
    "Layer",
    "LayerCategoryType",
    "MagView",
    "SegmentationLayer",
    "View",
]
