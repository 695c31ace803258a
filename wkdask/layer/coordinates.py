"""All mags of a layer as one tree of arrays with coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wkdask.arrays.lazy import ChunksLike
from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox, as_box
from wkdask.geometry.voxel_size import unit_symbol
from wkdask.labelled import data_tree

if TYPE_CHECKING:
    import xarray

    from wkdask.layer.layer import Layer

__all__ = ["to_xarray"]


def to_xarray(
    self: Layer, chunks: ChunksLike = None, *, bounding_box: BoundingBox | None = None
) -> xarray.DataTree:
    """Return all mags as one tree of xarray, with coordinates; nothing is read yet.

    Parameters
    ----------
    chunks
        As for :meth:`MagView.to_dask`.
    bounding_box
        In voxels of mag 1, aligned outwards to each mag; the layer's box by default.

    Returns
    -------
    xarray.DataTree
        A node for each mag, named like it (``"1"``, ``"2-2-1"``), whose one array has the layer's name and is what
        :meth:`MagView.to_xarray` returns.

    Raises
    ------
    MissingPackageError
        If xarray is not installed: ``pip install 'wkdask[xarray]'``.
    InvalidValueError
        If the layer has no mags.

    Examples
    --------
    >>> reports = layer.downsample(coarsest_mag=2)
    >>> tree = layer.to_xarray()
    >>> list(tree.children), tree["2-2-1/color"].shape
    (['1', '2-2-1'], (1, 32, 32, 32))
    >>> middle = {"x": 128, "y": 128, "method": "nearest"}
    >>> {mag: int(node.color.isel(c=0, z=0).sel(**middle)) for mag, node in tree.children.items()}
    {'1': 64, '2-2-1': 65}
    """
    if not self.mags:
        raise InvalidValueError(f"layer {self.name!r} has no mags")
    arrays = {}
    view: Any
    for mag, view in self.mags.items():
        box = None if bounding_box is None else as_box(bounding_box).aligned_outwards(mag.to_vec3_int())
        if hasattr(view, "further_axes"):
            array = view.to_xarray(chunks, absolute_bounding_box=box)
        else:
            array = view.to_xarray(chunks, bounding_box=box)
        arrays[mag.to_layer_name()] = array
    size = self.dataset.voxel_size
    said = {
        "layer": self.name,
        "category": str(self.category),
        "voxel_size": list(size.factor),
        "voxel_size_unit": unit_symbol(size.unit),
    }
    return data_tree(arrays, self.name, said)
