"""Mags with further axes as arrays with coordinates, and where such arrays go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.further_axes.data import Position, span_of
from wkdask.geometry import BoundingBox, Vec3Int, Vec3IntLike
from wkdask.geometry.axis_vectors import C_AXIS, XYZ_AXES
from wkdask.geometry.nd_boxes import NDBoundingBox
from wkdask.labelled import MagGrid

if TYPE_CHECKING:
    import xarray

    from wkdask.further_axes.mag_view import NDMagView

__all__ = ["to_xarray", "without_coordinates"]


def _single(mag: NDMagView, positions: dict[str, Any]) -> list[str]:
    """Return the further axes that have one position, so that arrays do not have them."""
    return [axis for axis in mag.further_axes if isinstance(positions.get(axis), int | np.integer)]


def _axes(mag: NDMagView, single: list[str]) -> tuple[str, ...]:
    """Return the axes of arrays."""
    if len(single) == len(mag.further_axes):
        return (C_AXIS, *XYZ_AXES)
    return tuple(axis for axis in mag.axes if axis not in single)


def _grid(mag: NDMagView, axes: tuple[str, ...]) -> MagGrid:
    """Return where the voxels of a mag lie."""
    label = f"layer {mag.layer.name!r} mag {mag.mag}"
    return MagGrid(label, mag.mag, mag.layer.dataset.voxel_size, mag.num_channels, axes)


def to_xarray(
    self: NDMagView,
    chunks: Any = None,
    *,
    absolute_bounding_box: NDBoundingBox | BoundingBox | None = None,
    **positions: Position,
) -> xarray.DataArray:
    """Return the voxels as a lazy array of xarray, with coordinates; nothing is read yet.

    Parameters
    ----------
    chunks, absolute_bounding_box, **positions
        As for :meth:`to_dask`, whose array it holds.

    Returns
    -------
    xarray.DataArray
        Along x, y, z as that of :meth:`MagView.to_xarray`; coordinates along further axes are the positions.

    Raises
    ------
    MissingPackageError
        If xarray is not installed: ``pip install 'wkdask[xarray]'``.

    Examples
    --------
    >>> box = NDBoundingBox((0, 0, 0, 0), (5, 64, 64, 32), ("t", "x", "y", "z"))
    >>> movie = ds.add_layer("movie", "color", bounding_box=box, data_format="zarr3").add_mag(1, shard_shape=32)
    >>> frames = movie.to_xarray(t=(1, 3))
    >>> frames.dims, frames.t.values
    (('t', 'x', 'y', 'z'), array([1, 2]))
    >>> reports = movie.write(frames + np.uint8(7))
    >>> int(movie.read(t=2).min()), int(movie.read(t=0).max())
    (7, 0)
    """
    lazy = self.to_dask(chunks, absolute_bounding_box=absolute_bounding_box, **positions)
    own = self.bounding_box
    box = own if absolute_bounding_box is None else absolute_bounding_box
    corner = box.topleft_xyz // self.mag.to_vec3_int()
    starts = {C_AXIS: 0, **dict(zip(XYZ_AXES, corner, strict=True))}
    for axis in self.further_axes:
        bounds = own.get_bounds(axis)
        position = box.get_bounds(axis) if axis in box.axes else bounds
        starts[axis] = span_of(axis, positions.get(axis, position), bounds)[0]
    axes = _axes(self, _single(self, dict(positions)))
    name = self.layer.name
    found = _grid(self, axes).labelled(lazy, axes, starts, name, {"layer": name})
    return found.assign_coords({axis: starts[axis] for axis in self.further_axes if axis not in axes})


def without_coordinates(
    mag: NDMagView,
    data: xarray.DataArray,
    offset: Vec3IntLike | None,
    box: NDBoundingBox | BoundingBox | None,
    positions: dict[str, Any],
) -> tuple[Any, Vec3IntLike | None]:
    """Return what is to be written as numpy or dask has it, and its corner in voxels of mag 1.

    Parameters
    ----------
    mag
        Where it goes.
    data
        The array with coordinates.
    offset, box
        Where the user says that it goes along x, y, z.
    positions
        And along further axes; those that only the array says are added.

    Raises
    ------
    InvalidValueError
        If the coordinates are not those of the mag's voxels, or contradict the arguments; or if no place is given.
    """
    single = _single(mag, positions)
    axes = _axes(mag, single)
    grid = _grid(mag, axes)
    array, starts = grid.taken_apart(data)
    left = axes if array.ndim == len(axes) else tuple(axis for axis in axes if axis != C_AXIS)
    lengths = dict(zip(left, array.shape, strict=True))
    for axis in (axis for axis in single if axis in data.coords):
        if data.coords[axis].ndim == 0:
            starts[axis], lengths[axis] = int(data.coords[axis]), 1
    said: dict[str, int] = {}
    if offset is not None:
        said = dict(zip(XYZ_AXES, Vec3Int(offset) // mag.mag.to_vec3_int(), strict=True))
    elif box is not None:
        said = dict(zip(XYZ_AXES, box.topleft_xyz // mag.mag.to_vec3_int(), strict=True))
    for axis in mag.further_axes:
        if axis in positions:
            said[axis] = span_of(axis, positions[axis], mag.bounding_box.get_bounds(axis))[0]
        elif box is not None and axis in box.axes:
            said[axis] = box.get_bounds(axis)[0]
        elif axis in starts:
            positions[axis] = (starts[axis], starts[axis] + lengths[axis])
    for axis in (*mag.further_axes, *XYZ_AXES):
        if axis not in said and axis not in starts:
            raise InvalidValueError(
                f"{grid.label}: the array has no coordinate along {axis!r}, so that it is not known where it goes"
            )
        if axis in said and starts.get(axis, said[axis]) != said[axis]:
            raise InvalidValueError(
                f"{grid.label}: the coordinates of the array begin at {starts[axis]} along {axis!r}, it is to be "
                f"written from {said[axis]} on. Leave out the place, or the coordinates: .data"
            )
    if offset is None and box is None:
        offset = Vec3Int(*(starts[axis] for axis in XYZ_AXES)) * mag.mag.to_vec3_int()
    return array, offset
