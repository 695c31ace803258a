"""How layers and mags are made where nothing else is asked for, under version 4's names."""

from __future__ import annotations

from wkdask.geometry import Vec3Int
from wkdask.names import DEFAULT_DATA_FORMAT, DataFormat
from wkdask.properties import PROPERTIES_FILE

__all__ = [
    "DEFAULT_CHUNKS_PER_SHARD",
    "DEFAULT_CHUNKS_PER_SHARD_FROM_IMAGES",
    "DEFAULT_CHUNK_SHAPE",
    "DEFAULT_DATA_FORMAT",
    "DEFAULT_SHARD_SHAPE",
    "PROPERTIES_FILE_NAME",
    "DataFormat",
]

PROPERTIES_FILE_NAME = PROPERTIES_FILE
"""The file of a dataset that lists its layers."""

DEFAULT_CHUNK_SHAPE = Vec3Int.full(32)
"""Sides of a chunk, in voxels of its mag."""

DEFAULT_CHUNKS_PER_SHARD = Vec3Int.full(32)
"""Chunks along the sides of a cube of WKW or Zarr 3."""

DEFAULT_SHARD_SHAPE = Vec3Int.full(1024)
"""Sides of a cube of WKW or Zarr 3, in voxels of its mag; in Zarr 2 every chunk is a file."""

DEFAULT_CHUNKS_PER_SHARD_FROM_IMAGES = Vec3Int(128, 128, 1)
"""Chunks along the sides of a cube of images in webknossos 4; here cubes suit the size of the images."""
