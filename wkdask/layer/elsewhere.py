"""What webknossos refuses to make, or shows otherwise, and we make: said in a warning."""

from __future__ import annotations

import warnings

import numpy as np

from wkdask.errors import WkdaskWarning
from wkdask.geometry import Mag
from wkdask.names import SEGMENTATION_CATEGORY
from wkdask.storage.protocol import ArraySpec

__all__ = ["warn_of_cut", "warn_of_voxels"]

_COLOR = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32")


def warn_of_voxels(name: str, category: str, dtype: str) -> None:
    """Say that webknossos 4 makes no such layer: of an image with 64 bits, of a segmentation with fractions."""
    segmentation = category == SEGMENTATION_CATEGORY
    if (np.dtype(dtype).kind == "f") if segmentation else dtype not in _COLOR:
        fitting = "integers" if segmentation else ", ".join(_COLOR)
        warnings.warn(
            f"layer {name!r}: webknossos 4 does not make {category} layers of {dtype}. Version 4.3.3 reads them; "
            f"whether a server shows them depends on it. It makes {category} layers of {fitting}",
            WkdaskWarning,
            stacklevel=4,
        )


def warn_of_cut(name: str, mag: Mag, spec: ArraySpec) -> None:
    """Say that webknossos 4 makes no Zarr array that is cut so: its sides are powers of two."""
    if spec.data_format != "wkw" and any(
        side & (side - 1) for side in (*spec.chunk_shape, *spec.shard_shape)
    ):
        warnings.warn(
            f"layer {name!r} mag {mag}: webknossos 4 does not make Zarr arrays with chunks of {spec.chunk_shape} "
            f"and shards of {spec.shard_shape}, but with powers of two. Version 4.3.3 reads them; a server reads "
            f"in buckets of 32³",
            WkdaskWarning,
            stacklevel=4,
        )
