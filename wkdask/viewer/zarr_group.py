"""The same layers as Zarr 3 groups with OME-Zarr metadata, for every reader of Zarr that can fetch over http.

The arrays hold no files: a chunk is made when it is asked for. As in a stored Zarr layer, index (c, x, y, z) of an
array is voxel (x, y, z) of the mag, and chunks are cut from the origin on; those outside of the layer's box are
missing, and read as zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import Voxels
from wkdask.viewer.scales import CHUNK, Scale, ShownLayer, sent_bytes

__all__ = ["array_metadata", "box_of_key", "encoded", "group_metadata"]


def group_metadata(layer: ShownLayer) -> dict[str, Any]:
    """Return ``zarr.json`` of a layer: its scales are one image of OME-Zarr 0.5."""
    finest = layer.scales[0].voxel
    datasets = []
    for scale in layer.scales:
        transformations: list[dict[str, Any]] = [{"type": "scale", "scale": [1.0, *scale.voxel]}]
        # The middle of the first voxel: that of mag 2 covers voxels 0 and 1 of mag 1.
        shift = [(side - first) / 2 for side, first in zip(scale.voxel, finest, strict=True)]
        if any(shift):
            transformations.append({"type": "translation", "translation": [0.0, *shift]})
        datasets.append({"path": scale.name, "coordinateTransformations": transformations})
    axes: list[dict[str, Any]] = [{"name": "c", "type": "channel"}]
    axes += [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "xyz"]
    multiscale = {"name": layer.name, "axes": axes, "datasets": datasets}
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ome": {"version": "0.5", "multiscales": [multiscale]}},
    }


def array_metadata(layer: ShownLayer, scale: Scale) -> dict[str, Any]:
    """Return ``zarr.json`` of a scale's array, in the type in which it is stored."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [layer.num_channels, *scale.box.bottomright],
        "data_type": layer.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [layer.num_channels, *CHUNK]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        # Chunks are Fortran-ordered, as our blocks are.
        "codecs": [
            {"name": "transpose", "configuration": {"order": [3, 2, 1, 0]}},
            {"name": "bytes", "configuration": {"endian": "little"}},
        ],
        "dimension_names": ["c", "x", "y", "z"],
        "attributes": {},
    }


def box_of_key(scale: Scale, key: str) -> BoundingBox:
    """Return the box of a chunk by its key, ``c/0/x/y/z``: whole, also where it reaches beyond the scale's box.

    Raises
    ------
    InvalidValueError
        If the array has no such chunk, or the chunk has no voxel in the scale's box.
    """
    parts = key.split("/")
    if (
        len(parts) == 5
        and parts[:2] == ["c", "0"]
        and all(part.isascii() and part.isdigit() for part in parts[2:])
    ):
        box = BoundingBox(Vec3Int(*map(int, parts[2:])) * CHUNK, CHUNK)
        if not box.intersection(scale.box).is_empty():
            return box
    raise InvalidValueError(f"mag {scale.name} of {scale.box} has no chunk {key}")


def encoded(voxels: Voxels, found: BoundingBox, chunk: BoundingBox) -> memoryview:
    """Return the bytes of a whole chunk, zeros where there are no voxels.

    Parameters
    ----------
    voxels
        Those of the part that lies in the scale's box, ``(c, *found.size)``.
    found
        That part.
    chunk
        The whole chunk.
    """
    whole = voxels
    if found != chunk:
        whole = np.zeros((len(voxels), *chunk.size), voxels.dtype, order="F")
        whole[(slice(None), *found.offset(-chunk.topleft).to_slices())] = voxels
    return sent_bytes(whole.T)
