"""Layers as napari takes them: lazy arrays of all mags, with scale, translation and units. napari is not imported.

napari shows the last two axes, rows before columns, so that the axes are z, y, x here. The middle of voxel 0 of
mag 1 is at 0, as there and in OME-Zarr::

    mag 1    |  0  |  1  |  2  |  3  |      all mags cover one box, aligned outwards to the coarsest of them,
    mag 2    |     0     |     1     |      so that each is a whole number of times smaller than the finest
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from wkdask.errors import InvalidValueError
from wkdask.geometry.axis_vectors import XYZ_AXES
from wkdask.geometry.vectors import Vec3Int
from wkdask.geometry.voxel_size import unit_symbol

if TYPE_CHECKING:
    import dask.array as da

    from wkdask.layer import Layer

__all__ = ["LayerData", "add_to_napari", "napari_layers"]

LayerData: TypeAlias = tuple[list[Any], dict[str, Any], str]
"""What napari calls layer data: arrays from fine to coarse, arguments, and the kind of layer."""


def napari_layers(layer: Layer) -> Iterator[LayerData]:
    """Yield what napari shows of a layer: one layer, or one for each channel of an image that is not RGB.

    Parameters
    ----------
    layer
        A layer with at least one mag.

    Raises
    ------
    InvalidValueError
        If it has no mags, or its voxels are of a type that napari cannot show as labels.
    """
    if not layer.record.mags:
        raise InvalidValueError(f"layer {layer.name!r} has no mags to look at")
    views: list[Any] = list(layer.mags.values())  # finest first
    further = getattr(views[0], "further_axes", ())
    coarsest = Vec3Int(1, 1, 1)
    for view in views:
        coarsest = coarsest.pairmax(view.mag.to_vec3_int())
    box = layer.record.bounding_box.aligned_outwards(coarsest)
    is_labels = layer.category == "segmentation"
    if is_labels and layer.dtype_per_channel.kind not in "ui":
        raise InvalidValueError(f"layer {layer.name!r}: ids of type {layer.dtype_per_channel} are no labels")
    arrays = [_channels_first(view, box, further) for view in views]
    size, finest = layer.dataset.voxel_size, views[0].mag.to_vec3_int()
    sides = [step * side for step, side in zip(finest, size.factor, strict=True)]
    corners = [
        (low + (step - 1) / 2) * side
        for low, step, side in zip(box.topleft, finest, size.factor, strict=True)
    ]
    given: dict[str, Any] = {
        "scale": (*(1.0 for _ in further), *reversed(sides)),
        "translate": (*(float(_first(views[0], axis)) for axis in further), *reversed(corners)),
        "units": (*("pixel" for _ in further), *[unit_symbol(size.unit)] * 3),
        "axis_labels": (*further, *reversed(XYZ_AXES)),
        "metadata": {"dataset": str(layer.dataset.path), "layer": layer.name},
    }
    if is_labels:
        yield _of(arrays, 0), {"name": layer.name, **given}, "labels"
        return
    given |= _contrast(layer)
    if layer.num_channels == 3 and layer.dtype_per_channel == "uint8":
        import dask.array as da

        given.pop("contrast_limits", None)
        yield (
            [da.moveaxis(array, 0, -1) for array in arrays],
            {"name": layer.name, "rgb": True, **given},
            "image",
        )
        return
    for channel in range(layer.num_channels):
        name = layer.name if layer.num_channels == 1 else f"{layer.name} {channel}"
        more = {} if layer.num_channels == 1 else {"blending": "additive"}
        yield _of(arrays, channel), {"name": name, **given, **more}, "image"


def _of(arrays: list[da.Array], channel: int) -> list[da.Array]:
    """Return one channel of all mags."""
    return [array[channel] for array in arrays]


def _channels_first(view: Any, box: Any, further: tuple[str, ...]) -> da.Array:
    """Return a mag as (c, further axes, z, y, x); beyond the layer's box it is zeros."""
    if not further:
        return view.to_dask(bounding_box=box).transpose(0, 3, 2, 1)
    import dask.array as da

    lazy = view.to_dask(absolute_bounding_box=box)
    if "c" not in view.axes:
        lazy, axes = lazy[None], ("c", *view.axes)
    else:
        axes = view.axes
    wanted = ("c", *further, *reversed(XYZ_AXES))
    return da.transpose(lazy, [axes.index(axis) for axis in wanted])


def _first(view: Any, axis: str) -> int:
    """Return the first position along a further axis."""
    low: int = view.bounding_box.get_bounds(axis)[0]
    return low


def _contrast(layer: Layer) -> dict[str, Any]:
    """Return which values are black and white, and the colour, as the view configuration says."""
    shown = layer.default_view_configuration
    found: dict[str, Any] = {}
    if shown is not None:
        low, high = shown.intensity_range or (shown.min, shown.max)
        if low is not None and high is not None and low < high:
            found["contrast_limits"] = (float(low), float(high))
        if shown.color is not None and tuple(shown.color) != (255, 255, 255):
            found["colormap"] = "#" + "".join(f"{part:02x}" for part in shown.color)
    return found


def add_to_napari(self: Layer, viewer: Any) -> list[Any]:
    """Add the layer to a viewer of napari, with all its mags; nothing is read but what is on the screen.

    Parameters
    ----------
    viewer
        A `napari.Viewer`, or another object with its `add_image` and `add_labels`.

    Returns
    -------
    list
        napari's layers: one, or one for each channel of an image that is not RGB.

    Raises
    ------
    InvalidValueError
        If the layer has no mags.

    Examples
    --------
    >>> class Viewer:  # what of napari's is used
    ...     def add_image(self, arrays, **how):
    ...         return arrays[0].shape, how["scale"], how["units"]
    >>> layer.add_to_napari(Viewer())
    [((32, 64, 64), (35.0, 4.0, 4.0), ('nm', 'nm', 'nm'))]
    """
    return [
        getattr(viewer, f"add_{kind}")(arrays, multiscale=True, **given)
        for arrays, given, kind in list(napari_layers(self))
    ]
