"""Layers with axes beside c, x, y, z: made, bounded, their mags opened and added."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from wkdask.errors import InvalidValueError, UnsupportedFormatError
from wkdask.fsio import remove_folder
from wkdask.further_axes.data import nd_box_of
from wkdask.further_axes.mag_view import NDMagView
from wkdask.geometry import BoundingBox, Mag
from wkdask.geometry.axis_vectors import C_AXIS, CXYZ_AXES, XYZ_AXES
from wkdask.geometry.nd_boxes import NDBoundingBox, NormalizedBoundingBox
from wkdask.jobs.job import MagPlace
from wkdask.jobs.mag_folders import clear_leftovers, mag_folder, mags_lock
from wkdask.locations import mag_place
from wkdask.names import DEFAULT_DATA_FORMAT
from wkdask.properties import AddMag, Edit, LayerRecord, MagRecord, SetBox
from wkdask.properties.further_axes import (
    FurtherAxis,
    SetFurtherAxes,
    axes_of_layer,
    further_axes_of,
    has_further_axes,
)
from wkdask.storage.formats import check_format
from wkdask.storage.protocol import PRIVATE, ArraySpec
from wkdask.storage.zarr.plane import check_axes, create_nd, further_of, open_plane

if TYPE_CHECKING:
    from wkdask.layer.layer import Layer

__all__ = [
    "add_nd_mag",
    "box_edits",
    "default_format",
    "new_layer_box",
    "new_nd_mags",
    "normalized_box_of",
    "open_nd_mag",
]

AnyBox = BoundingBox | NDBoundingBox


def normalized_box_of(layer: Layer) -> NormalizedBoundingBox:
    """Return a layer's box along all axes of its stored arrays, channels included, in voxels of mag 1."""
    record = layer.record
    if not has_further_axes(record.raw):
        return record.bounding_box.normalize_axes(layer.num_channels)
    entry = record.mags[0].raw if record.mags else None
    return nd_box_of(layer, axes_of_layer(record, entry))


def default_format(box: AnyBox) -> str:
    """Return the data format of a new layer for which none is given: Zarr 3 if its box has further axes."""
    return "zarr3" if not isinstance(box, BoundingBox) and further_of(box.axes) else DEFAULT_DATA_FORMAT


def new_layer_box(
    name: str, box: AnyBox, data_format: str, num_channels: int
) -> tuple[BoundingBox, tuple[Edit, ...]]:
    """Return the box along x, y, z of a new layer, and the edits that give it further axes.

    Raises
    ------
    UnsupportedFormatError
        If the format has no further axes, or arrays of these axes are not written.
    InvalidValueError
        If the box has not the layer's channels.
    """
    if isinstance(box, BoundingBox):
        return box, ()
    if C_AXIS in box.axes and box.get_bounds(C_AXIS) != (0, num_channels):
        raise InvalidValueError(
            f"the layer {name!r} has {num_channels} channels, but its box has c from "
            f"{box.get_bounds(C_AXIS)[0]} to {box.get_bounds(C_AXIS)[1]}"
        )
    spatial = BoundingBox(box.topleft_xyz, box.size_xyz)
    axes = box.axes
    if C_AXIS not in axes and min(box.index) == 1:  # index 0 was left free for the channels
        axes = (C_AXIS, *axes)
    if not further_of(axes):
        if axes not in (XYZ_AXES, CXYZ_AXES):
            raise UnsupportedFormatError(f"a layer's arrays have the axes c, x, y, z; got {', '.join(axes)}")
        return spatial, ()
    _check_format(name, data_format, axes)
    check_axes(axes, num_channels)
    further = tuple(FurtherAxis(axis, *box.get_bounds(axis), axes.index(axis)) for axis in further_of(axes))
    negative = [axis.name for axis in further if axis.low < 0]
    if negative:
        raise InvalidValueError(f"positions along {negative[0]} count from 0, got {box}")
    order = {axis: axes.index(axis) for axis in CXYZ_AXES if axis in axes}
    return spatial, (SetFurtherAxes(name, further, order),)


def _check_format(name: str, data_format: str, axes: tuple[str, ...]) -> None:
    if data_format != "zarr3":
        raise UnsupportedFormatError(
            f"layer {name!r}: axes beside c, x, y, z ({', '.join(further_of(axes))}) are written in Zarr 3 only, "
            f'not in {data_format!r}; give data_format="zarr3"'
        )


def box_edits(record: LayerRecord, box: AnyBox) -> tuple[Edit, ...]:
    """Return the edits that give a layer another box.

    Raises
    ------
    InvalidValueError
        If the box has further axes that the layer has not.
    """
    if isinstance(box, BoundingBox):
        return (SetBox(record.name, box),)
    spatial: Edit = SetBox(record.name, BoundingBox(box.topleft_xyz, box.size_xyz))
    known = {axis.name: axis for axis in further_axes_of(record)}
    if unknown := [axis for axis in further_of(box.axes) if axis not in known]:
        raise InvalidValueError(
            f"layer {record.name!r} has no axis {unknown[0]!r}, which its new box has; its further axes are: "
            f"{', '.join(known) or 'none'}"
        )
    if not known:
        return (spatial,)
    axes = tuple(
        FurtherAxis(axis.name, *box.get_bounds(axis.name), axis.index) if axis.name in box.axes else axis
        for axis in known.values()
    )
    if any(axis.low < 0 for axis in axes):
        raise InvalidValueError(f"positions along further axes count from 0, got {box}")
    names = axes_of_layer(record, record.mags[0].raw if record.mags else None)
    order = {axis: names.index(axis) for axis in CXYZ_AXES if axis in names}
    return (spatial, SetFurtherAxes(record.name, axes, order))


def open_nd_mag(layer: Layer, record: MagRecord) -> NDMagView:
    """Return a mag of a layer that has further axes; errors as `Layer.get_mag`."""
    try:
        check_format(layer.data_format)
    except UnsupportedFormatError as error:
        raise UnsupportedFormatError(f"layer {layer.name!r}: {error}") from None
    if layer.data_format == "wkw":
        names = ", ".join(axis.name for axis in further_axes_of(layer.record))
        raise UnsupportedFormatError(
            f"layer {layer.name!r}: WKW has no axes beside c, x, y, z, but the properties say {names}"
        )
    return NDMagView(layer, record, mag_folder(layer.dataset_path, layer.name, record))


def add_nd_mag(layer: Layer, mag: Mag, spec: ArraySpec) -> NDMagView:
    """Add an empty magnification to a layer that has further axes; errors as `Layer.add_mag`."""
    folder = os.path.join(layer.path, mag.to_layer_name())
    with mags_lock(layer.dataset_path):  # of two who add the same mag, one does
        layer._refuse_existing(mag)
        clear_leftovers(folder)
        order = _create(layer, mag, spec, folder)
        layer._commit(AddMag(layer.name, mag, None, extra={"axisOrder": order}))
    return open_nd_mag(layer, layer.record.mag(mag))


def _create(layer: Layer, mag: Mag, spec: ArraySpec, folder: str) -> dict[str, int]:
    """Make the array of a magnification, listed nowhere; return the order of its axes for the properties."""
    record = layer.record
    axes = axes_of_layer(record, record.mags[0].raw if record.mags else None)
    _check_format(layer.name, layer.data_format, axes)
    check_axes(axes, spec.num_channels)
    far = record.bounding_box.aligned_outwards(mag.to_vec3_int()).in_mag(mag).bottomright
    sizes = dict(zip(XYZ_AXES, far, strict=True)) | {axis.name: axis.high for axis in further_axes_of(record)}
    create_nd(folder, spec, axes, sizes)
    return {axis: axes.index(axis) for axis in CXYZ_AXES if axis in axes}


@contextlib.contextmanager
def new_nd_mags(
    layer: Layer, specs: Mapping[Mag, ArraySpec]
) -> Iterator[Callable[[Mag, Mapping[str, int]], MagPlace]]:
    """Make magnifications that are listed when the block ends, complete; if it fails nothing of them is left.

    Parameters
    ----------
    layer
        The layer, which has further axes.
    specs
        How each is stored.

    Yields
    ------
    function
        What returns the place of a position of one of them.
    """
    private = os.path.join(layer.path, PRIVATE)
    folders = {mag: os.path.join(private, f"making-{mag.to_layer_name()}") for mag in specs}
    orders: dict[Mag, dict[str, int]] = {}

    def place(mag: Mag, positions: Mapping[str, int]) -> MagPlace:
        axes = axes_of_layer(layer.record, {"axisOrder": orders[mag]})
        store = open_plane(folders[mag], axes, [positions[axis] for axis in further_of(axes)])
        return mag_place(layer._file, layer.name, mag, store)

    try:
        for mag, spec in specs.items():
            remove_folder(folders[mag])  # of a call that was killed
            orders[mag] = _create(layer, mag, spec, folders[mag])
        yield place
        with mags_lock(layer.dataset_path):
            for mag in specs:
                layer._refuse_existing(mag)
                target = os.path.join(layer.path, mag.to_layer_name())
                clear_leftovers(target)
                remove_folder(target)
                os.rename(folders[mag], target)
            layer._commit(
                *(AddMag(layer.name, mag, None, extra={"axisOrder": order}) for mag, order in orders.items())
            )
    finally:
        for folder in folders.values():
            remove_folder(folder)
        with contextlib.suppress(OSError):  # it holds something else
            os.rmdir(private)
