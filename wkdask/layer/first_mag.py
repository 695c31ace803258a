"""The data format of layers added without `data_format`: WKW, unless the first mag needs Zarr 3."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from wkdask.errors import UnsupportedFormatError, WkdaskWarning
from wkdask.geometry import Mag
from wkdask.layer.chunk_layout import Cut
from wkdask.storage.formats import check_spec
from wkdask.storage.protocol import ArraySpec

if TYPE_CHECKING:
    from wkdask.layer.layer import Layer

__all__ = ["spec_of_new_mag"]


def spec_of_new_mag(layer: Layer, mag: Mag, cut: Cut) -> ArraySpec:
    """Return type and cut of a new mag, with its format; nothing is changed.

    That is the layer's. A layer that was added without `data_format` becomes Zarr 3 with its first mag, if WKW
    cannot store that and webknossos would.
    """
    record, properties = layer.record, layer._file
    voxel = (str(layer.dtype_per_channel), layer.num_channels)
    fixed = record.name not in properties.unasked or record.data_format != "wkw"
    if fixed or record.raw.get("mags") != []:
        return check_spec(cut.to_spec(record.data_format, *voxel), record.data_format)
    try:
        return check_spec(cut.to_spec("wkw", *voxel), "wkw")
    except UnsupportedFormatError as error:
        try:
            other = check_spec(cut.to_spec("zarr3", *voxel), "zarr3")
        except UnsupportedFormatError:
            raise error from None
        if any(side & (side - 1) for side in (*other.chunk_shape, *other.shard_shape)):
            raise  # webknossos does not make such arrays: a mistake, more likely
        warnings.warn(
            f"layer {record.name!r} is stored as Zarr 3, as webknossos 4 stores new layers, for mag {mag} can be "
            f'none of WKW: {error}. data_format="zarr3" in add_layer says so',
            WkdaskWarning,
            stacklevel=3,
        )
        return other
