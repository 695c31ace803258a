"""Layers as volumes in neuroglancer's "precomputed" format, one uncompressed file per chunk.

The rules are those of the format's own description, in neuroglancer's repository:
``src/datasource/precomputed/volume.md``. A chunk holds x fastest, then y, z, and channels; that is the order of our
own blocks, if there is one channel.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import Voxels
from wkdask.viewer.scales import CHUNK, Scale, ShownLayer, sent_bytes, served_dtype

__all__ = ["cell_named", "chunk_name", "encoded", "volume_info"]

_CHUNK_NAME = re.compile("_".join(["(0|-?[1-9][0-9]*)-(0|-?[1-9][0-9]*)"] * 3))


def volume_info(layer: ShownLayer) -> dict[str, Any]:
    """Return the file ``info`` of a volume."""
    return {
        "@type": "neuroglancer_multiscale_volume",
        "type": "segmentation" if layer.is_segmentation else "image",
        "data_type": served_dtype(layer.dtype, layer.is_segmentation).name,
        "num_channels": layer.num_channels,
        "scales": [
            {
                "key": scale.name,
                "resolution": list(scale.voxel),
                "voxel_offset": list(scale.box.topleft),
                "size": list(scale.box.size),
                "chunk_sizes": [list(CHUNK)],
                "encoding": "raw",
            }
            for scale in layer.scales
        ],
    }


def chunk_name(box: BoundingBox) -> str:
    """Return the file name of a chunk.

    Examples
    --------
    >>> chunk_name(BoundingBox((64, 0, 0), (64, 64, 8)))
    '64-128_0-64_0-8'
    """
    return "_".join(f"{low}-{high}" for low, high in zip(box.topleft, box.bottomright, strict=True))


def cell_named(scale: Scale, name: str) -> Vec3Int:
    """Return which chunk of a scale a file name means.

    Raises
    ------
    InvalidValueError
        If the scale has no such chunk.
    """
    found = _CHUNK_NAME.fullmatch(name)
    if found is not None:
        numbers = [int(text) for text in found.groups()]
        ends = zip(numbers[::2], numbers[1::2], scale.box.topleft, scale.box.bottomright, CHUNK, strict=True)
        cell = []
        for low, high, first, last, side in ends:
            if not first <= low < last or (low - first) % side or high != min(low + side, last):
                break
            cell.append((low - first) // side)
        else:
            return Vec3Int(*cell)
    raise InvalidValueError(f"mag {scale.name} of {scale.box} has no chunk {name}")


def encoded(voxels: Voxels, layer: ShownLayer) -> memoryview:
    """Return a chunk ``(c, x, y, z)`` as the bytes of its file."""
    sent = np.asarray(voxels).astype(served_dtype(layer.dtype, layer.is_segmentation), copy=False)
    return sent_bytes(sent.transpose(0, 3, 2, 1))
