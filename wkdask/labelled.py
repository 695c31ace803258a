"""Arrays whose axes have names and coordinates, as xarray has them: made of a mag's voxels, and taken apart again.

The coordinate of a voxel is its middle, where the middle of voxel 0 of mag 1 is at 0, as in OME-Zarr::

    voxel i of mag m, along an axis whose voxels of mag 1 have side s    is at    s · (m · i + (m - 1) / 2)

So a coordinate along x, divided by the side, is WEBKNOSSOS's x in mag 1, and the mags of a layer lie over each
other. xarray is imported only where it is used: it is an extra.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.errors import AlignmentError, ChannelError, InvalidValueError, MissingPackageError
from wkdask.geometry import Mag
from wkdask.geometry.axis_vectors import C_AXIS, XYZ_AXES
from wkdask.geometry.voxel_size import VoxelSize, unit_named, unit_symbol

if TYPE_CHECKING:
    import xarray

__all__ = ["MagGrid", "data_tree", "is_labelled", "moved_to_origin", "voxel_size_of"]

_TOLERANCE = 0.01
"""How far a coordinate may lie from the middle of its voxel, in voxels: sums of floats are not exact."""


def _xarray() -> Any:
    """Return the package.

    Raises
    ------
    MissingPackageError
        If it is not installed, or knows no trees.
    """
    try:
        import xarray
    except ImportError as error:
        raise MissingPackageError(
            "arrays with coordinates need the package xarray: pip install 'wkdask[xarray]'"
        ) from error
    return xarray


def is_labelled(data: Any) -> bool:
    """Return whether something is an array with coordinates, without importing xarray.

    Raises
    ------
    InvalidValueError
        If it is several of them.
    """
    xarray = sys.modules.get("xarray")
    if xarray is None or not hasattr(xarray, "DataArray"):
        return False
    if isinstance(data, xarray.Dataset | xarray.DataTree):
        raise InvalidValueError(
            f"a {type(data).__name__} of xarray holds several arrays: give one, such as data[{_first_name(data)!r}]"
        )
    return isinstance(data, xarray.DataArray)


def _first_name(data: Any) -> str:
    """Return the name of an array or of a child of it."""
    return str(next(iter([*data.data_vars, *getattr(data, "children", ())]), "color"))


@dataclass(frozen=True, slots=True)
class MagGrid:
    """Where the voxels of a mag lie."""

    label: str
    """What the mag is called in messages."""
    mag: Mag
    """The magnification."""
    voxel_size: VoxelSize
    """The size of a voxel of mag 1."""
    num_channels: int
    """Channels of a voxel."""
    axes: tuple[str, ...] = (C_AXIS, *XYZ_AXES)
    """The names of the axes, in the order of the mag's arrays."""

    def labelled(
        self, array: Any, axes: Sequence[str], starts: Mapping[str, int], name: str, attrs: Mapping[str, Any]
    ) -> xarray.DataArray:
        """Return an array with its coordinates.

        Parameters
        ----------
        array
            A numpy or dask array.
        axes
            The names of its axes.
        starts
            Where it begins along each of them: a voxel of the mag, a channel, a position.
        name
            The name of the array.
        attrs
            What else is said of it.
        """
        coordinates = {
            axis: (axis, *self._coordinates(axis, starts[axis], length))
            for axis, length in zip(axes, array.shape, strict=True)
        }
        said = {
            **attrs,
            "mag": self.mag.to_layer_name(),
            "voxel_size": list(self.voxel_size.factor),
            "voxel_size_unit": unit_symbol(self.voxel_size.unit),
        }
        found: xarray.DataArray = _xarray().DataArray(array, coordinates, tuple(axes), name, said)
        return found

    def _coordinates(self, axis: str, start: int, length: int) -> tuple[Any, dict[str, str]]:
        """Return the coordinates of voxels along an axis, and their attributes."""
        numbers = np.arange(start, start + length)
        if axis not in XYZ_AXES:
            return numbers, {}
        step, side = self._step_and_side(axis)
        return (numbers * step + (step - 1) / 2) * side, {"units": unit_symbol(self.voxel_size.unit)}

    def _step_and_side(self, axis: str) -> tuple[int, float]:
        """Return how many voxels of mag 1 a voxel has along an axis, and the side of one of them."""
        number = XYZ_AXES.index(axis)
        return self.mag.to_tuple()[number], self.voxel_size.factor[number]

    def taken_apart(self, data: xarray.DataArray) -> tuple[Any, dict[str, int]]:
        """Return what is in an array with coordinates, along `axes`, and where that begins.

        Parameters
        ----------
        data
            Its axes in any order. Along an axis that it has no longer, but whose coordinate it has kept (as
            ``isel(z=3)`` does), it has one voxel.

        Returns
        -------
        array
            The numpy or dask array along the axes. That of channels is missing where `data` has none, and there is
            one.
        dict of str to int
            Its first voxel or position along each axis that has coordinates, but for channels.

        Raises
        ------
        InvalidValueError
            If an axis is missing or unknown, or coordinates are not those of the mag's voxels, one after the other.
        AlignmentError
            If they lie between the mag's voxels.
        ChannelError
            If channels are missing, or in another order.
        """
        wanted = self.axes
        unknown = [str(dim) for dim in data.dims if dim not in wanted]
        if unknown:
            raise InvalidValueError(
                f"{self.label} has the axes {', '.join(wanted)}; the array has {unknown[0]!r} as well: select one "
                f"position along it, or rename it"
            )
        for axis in wanted:
            if axis not in data.dims and axis in data.coords:
                data = data.expand_dims(axis)
        missing = [axis for axis in wanted if axis not in data.dims and axis != C_AXIS]
        if missing:
            raise InvalidValueError(
                f"{self.label} has the axes {', '.join(wanted)}; the array {tuple(map(str, data.dims))} has no "
                f"{missing[0]!r}, and no coordinate of that name"
            )
        channels = list(range(data.sizes.get(C_AXIS, 1)))
        if C_AXIS in data.coords:
            channels = np.atleast_1d(data.coords[C_AXIS].values).tolist()
        if channels != list(range(self.num_channels)):
            raise ChannelError(
                f"{self.label} has {self.num_channels} channels, and a write has all of them in their order; the "
                f"array has the channels {channels}"
            )
        starts = {
            axis: self._start(axis, data.coords[axis])
            for axis in wanted
            if axis in data.coords and axis != C_AXIS and data.sizes[axis]
        }
        return data.transpose(*(axis for axis in wanted if axis in data.dims)).data, starts

    def _start(self, axis: str, coordinate: xarray.DataArray) -> int:
        """Return the voxel or position at which coordinates begin."""
        if coordinate.dims != (axis,) or coordinate.dtype.kind not in "iuf":
            raise InvalidValueError(
                f"{self.label}: the coordinate {axis!r} is not one number for each voxel along {axis!r}, but "
                f"{coordinate.dtype} along {tuple(map(str, coordinate.dims))}"
            )
        values = coordinate.values.astype(np.float64)
        unit = ""
        voxels, what = values, "positions"
        if axis in XYZ_AXES:
            step, side = self._step_and_side(axis)
            values = values * self._factor(axis, coordinate)
            voxels, unit = (values / side - (step - 1) / 2) / step, f" {unit_symbol(self.voxel_size.unit)}"
            what = f"voxels of {step * side:g}{unit}"
        if not np.isfinite(voxels).all():
            raise InvalidValueError(
                f"{self.label}: the coordinates along {axis!r} are not all finite numbers"
            )
        expected = voxels[0] + np.arange(len(voxels))
        wrong = np.flatnonzero(np.abs(voxels - expected) > _TOLERANCE)
        if wrong.size:
            first = int(wrong[0])
            raise InvalidValueError(
                f"{self.label} has {what} along {axis!r}, one after the other; the coordinates go from "
                f"{values[first - 1]:g} to {values[first]:g}{unit} at index {first - 1}"
                + (
                    f": data.sortby({axis!r}) turns them round"
                    if len(voxels) > 1 and voxels[1] < voxels[0]
                    else ""
                )
            )
        start = round(float(voxels[0]))
        if abs(float(voxels[0]) - start) > _TOLERANCE:
            raise AlignmentError(
                f"{self.label}: the array begins at {axis} = {values[0]:g}{unit}, which is voxel {voxels[0]:g} of "
                f"this mag: between two of them"
            )
        return start

    def _factor(self, axis: str, coordinate: xarray.DataArray) -> float:
        """Return what turns coordinates into the unit of the voxel size; without a unit they are in it."""
        units = coordinate.attrs.get("units")
        if units is None:
            return 1.0
        name = unit_named(units)
        if name is None:
            raise InvalidValueError(
                f"{self.label}: the coordinate {axis!r} has the units {units!r}, which is no length that is known; "
                f"the voxel size is in {self.voxel_size.unit}"
            )
        if name == self.voxel_size.unit:
            return 1.0
        theirs, ours = VoxelSize((1, 1, 1), name), VoxelSize((1, 1, 1), self.voxel_size.unit)
        return theirs.to_nanometer()[0] / ours.to_nanometer()[0]


def voxel_size_of(data: xarray.DataArray) -> VoxelSize:
    """Return how far the voxels of an array with coordinates lie apart, in the unit of those along x.

    Raises
    ------
    InvalidValueError
        If the coordinates along x, y or z do not say it.
    """
    spacings: dict[str, VoxelSize] = {}
    for axis in XYZ_AXES:
        if axis not in data.coords or data.coords[axis].size < 2:
            why = "is one voxel" if axis in data.coords else "has no coordinates"
            raise InvalidValueError(
                f"the array {why} along {axis!r}, so that it does not say how long a voxel is: give voxel_size="
            )
        coordinate = data.coords[axis]
        unit = unit_named(coordinate.attrs.get("units"))
        if unit is None:
            raise InvalidValueError(
                f"the coordinate {axis!r} has the units {coordinate.attrs.get('units')!r}, which is no length that "
                f"is known: give voxel_size="
            )
        values = coordinate.values
        if values.dtype.kind not in "iuf" or values.ndim != 1 or not np.isfinite(values).all():
            raise InvalidValueError(f"the coordinate {axis!r} is not one finite number for each voxel")
        spacing = (float(values[-1]) - float(values[0])) / (values.size - 1)
        if spacing <= 0:
            raise InvalidValueError(
                f"the coordinates along {axis!r} do not ascend: data.sortby({axis!r}) turns them round"
            )
        spacings[axis] = VoxelSize((spacing,) * 3, unit)
    unit = spacings["x"].unit
    own = VoxelSize((1, 1, 1), unit).to_nanometer()[0]
    x, y, z = (
        _rounded(each.factor[0] if each.unit == unit else each.to_nanometer()[0] / own)
        for each in spacings.values()
    )
    return VoxelSize((x, y, z), unit)


def _rounded(value: float) -> float:
    """Return a number without what the subtraction of floats has added to it."""
    return float(f"{value:.12g}")


def moved_to_origin(data: xarray.DataArray, voxel_size: VoxelSize) -> xarray.DataArray:
    """Return an array with coordinates that begin at voxel 0 of mag 1, whatever they were."""
    sides = dict(zip(XYZ_AXES, voxel_size.factor, strict=True))
    symbol = {"units": unit_symbol(voxel_size.unit)}
    return data.assign_coords(
        {
            axis: (axis, np.arange(data.sizes[axis]) * side, symbol)
            if axis in data.dims
            else ((), 0.0, symbol)
            for axis, side in sides.items()
            if axis in data.dims or axis in data.coords
        }
    )


def data_tree(arrays: Mapping[str, xarray.DataArray], name: str, attrs: Mapping[str, Any]) -> xarray.DataTree:
    """Return arrays of different resolutions as one tree.

    Parameters
    ----------
    arrays
        The arrays by the names of their nodes.
    name, attrs
        Those of the root.
    """
    xr = _xarray()
    children = {node: xr.DataTree(array.to_dataset(), name=node) for node, array in arrays.items()}
    found: xarray.DataTree = xr.DataTree(xr.Dataset(attrs=dict(attrs)), children=children, name=name)
    return found
