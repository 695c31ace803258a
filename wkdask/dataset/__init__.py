"""A dataset: its layers, copies of it, its equality with another.

Enter at :mod:`~wkdask.dataset.dataset`; each other module is one subject of it. Beside it the room has the names
that scripts import from ``webknossos.dataset``.
"""

from typing import Any

from wkdask.attachments.attachments import Attachments
from wkdask.attachments.kinds import (
    AgglomerateAttachment,
    Attachment,
    ConnectomeAttachment,
    CumsumAttachment,
    MeshAttachment,
    SegmentIndexAttachment,
    SegmentStatisticsAttachment,
)
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
from wkdask.dataset.defaults import (
    DEFAULT_CHUNK_SHAPE,
    DEFAULT_CHUNKS_PER_SHARD_FROM_IMAGES,
    DEFAULT_DATA_FORMAT,
    DEFAULT_SHARD_SHAPE,
)
from wkdask.layer.export import LayerExport
from wkdask.names import SamplingModes

__all__ = [
    "COLOR_CATEGORY",
    "DEFAULT_CHUNKS_PER_SHARD_FROM_IMAGES",
    "DEFAULT_CHUNK_SHAPE",
    "DEFAULT_DATA_FORMAT",
    "DEFAULT_SHARD_SHAPE",
    "PROPERTIES_FILE_NAME",
    "SEGMENTATION_CATEGORY",
    "AgglomerateAttachment",
    "Attachment",
    "Attachments",
    "ConnectomeAttachment",
    "CumsumAttachment",
    "Dataset",
    "Layer",
    "LayerCategoryType",
    "LayerExport",
    "MagView",
    "MeshAttachment",
    "SamplingModes",
    "SegmentIndexAttachment",
    "SegmentStatisticsAttachment",
    "SegmentationLayer",
    "View",
]


def __getattr__(name: str) -> Any:
    """Return what is imported only when it is used, and say what of webknossos stays outside."""
    if name == "AgglomerateGraph":  # needs networkx, which is an extra
        from wkdask.attachments.agglomerates import AgglomerateGraph

        return AgglomerateGraph
    from wkdask.absent import absent

    raise absent(name)
