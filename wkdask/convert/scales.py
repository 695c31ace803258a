"""What a Zarr array, or an OME-Zarr image, would become: which array is which mag, and what of it is taken.

::

    image.ome.zarr     >  layer "color"      scale 0 > mag 1, scale 1 > mag 2-2-1, …
      labels/nuclei    >  layer "nuclei"     its scales, by the image's voxels
    array.zarr         >  layer "color"      mag 1

Only metadata are read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from wkdask.convert.ome_zarr import Image, ScaleEntry, corner_of, label_names, place, read_image
from wkdask.convert.target import check_layer
from wkdask.convert.zarr_array import ZarrArray, is_zarr, open_zarr_array, read_json
from wkdask.dataset import Dataset
from wkdask.errors import InvalidValueError, OutOfBoundsError, WkdaskError
from wkdask.fsio import checked_path
from wkdask.geometry import BoundingBox, Mag, Vec3Int, Vec3IntLike
from wkdask.layer import LayerCategories
from wkdask.properties import PROPERTIES_FILE
from wkdask.storage.formats import format_of
from wkdask.storage.protocol import ArraySpec
from wkdask.units import VoxelSize, as_voxel_size, format_bytes

__all__ = ["Scale", "ScaledLayer", "Scales", "open_scales"]

_MAX_CHANNELS = 64
"""More channels than that are an axis that was taken for channels."""


@dataclass(frozen=True, slots=True)
class Scale:
    """One array, and the mag that it becomes."""

    mag: Mag
    """Which one."""
    array: ZarrArray
    """Where its voxels are."""
    corner: Vec3Int
    """Where the array's first voxel goes: absolute, in voxels of the mag."""
    box: BoundingBox
    """What is taken: absolute, in voxels of the mag."""


@dataclass(frozen=True, slots=True)
class ScaledLayer:
    """One image, and the layer that it becomes."""

    name: str
    """Name of the layer."""
    category: str
    """``"color"`` or ``"segmentation"``."""
    scales: tuple[Scale, ...]
    """The finest first."""

    @property
    def spec(self) -> ArraySpec:
        """Type and channels: those of the finest."""
        return self.scales[0].array.spec


@dataclass(frozen=True, slots=True)
class Scales:
    """What a conversion takes, made by `open_scales`; printing it tells."""

    path: str
    """The folder of the image, or of the array."""
    voxel_size: VoxelSize
    """Of mag 1."""
    layers: tuple[ScaledLayer, ...]
    """The image first, then its labels."""
    notes: tuple[str, ...]
    """What is left out, or was assumed, and why."""

    def __repr__(self) -> str:
        lines = [f"{self.path}: voxels of {self.voxel_size}"]
        for layer in self.layers:
            spec = layer.spec
            channel = layer.scales[0].array.channel
            which = "" if channel is None else f", channel {channel}"
            lines.append(
                f"  layer {layer.name!r}: {layer.category}, {spec.num_channels} × {spec.dtype}{which}"
            )
            lines += [
                f"    mag {scale.mag} from {os.path.relpath(scale.array.path, self.path)}: {scale.box} (voxels of "
                f"this mag), {format_bytes(scale.box.volume() * spec.bytes_per_voxel)}"
                for scale in layer.scales
            ]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def open_scales(
    path: str | os.PathLike[str],
    *,
    voxel_size: Sequence[float] | VoxelSize | None = None,
    layer_name: str = "color",
    category: str = LayerCategories.COLOR_TYPE,
    offset: Vec3IntLike | None = None,
    bbox: BoundingBox | None = None,
    axes: str | None = None,
    labels: bool = True,
    together: bool = False,
) -> Scales:
    """Tell what a Zarr array, or an OME-Zarr image, would become; only metadata are read.

    Parameters
    ----------
    path, voxel_size, layer_name, category, offset, bbox, axes, labels, together
        As for :func:`wkdask.convert.zarr_layers.convert_zarr`.

    Raises
    ------
    WkdaskError
        As there.
    """
    folder = os.path.realpath(checked_path(path))
    if not is_zarr(folder):
        raise InvalidValueError(
            f"{folder} is no Zarr array or group: it has neither zarr.json nor .zarray, .zattrs"
        )
    size = None if voxel_size is None else as_voxel_size(voxel_size)
    if _is_array(folder):
        return _open_array(folder, size, layer_name, category, offset, bbox, axes, together)
    return _open_image(folder, size, layer_name, category, offset, bbox, axes, labels, together)


def _is_array(folder: str) -> bool:
    """Tell an array from a group."""
    if os.path.isfile(os.path.join(folder, "zarr.json")):
        return read_json(os.path.join(folder, "zarr.json")).get("node_type") == "array"
    return format_of(folder) is not None


def _open_array(
    folder: str,
    size: VoxelSize | None,
    layer_name: str,
    category: str,
    offset: Vec3IntLike | None,
    bbox: BoundingBox | None,
    axes: str | None,
    together: bool,
) -> Scales:
    """Tell what one array becomes."""
    array = open_zarr_array(folder, axes)
    if size is None:
        raise InvalidValueError(
            f"{folder} is an array, which does not say how large its voxels are: give voxel_size= (--voxel-size)"
        )
    corner = Vec3Int(offset or (0, 0, 0))
    box = _selected(array, bbox).offset(corner)
    notes = (
        [
            f"the axes of {folder}, of shape {_shape(array)}, were taken for {array.axes}; --axes says otherwise"
        ]
        if array.are_assumed
        else []
    )
    layers = tuple(
        ScaledLayer(name, category, (Scale(Mag(1), _channel_of(array, channel), corner, box),))
        for name, channel in _channels(array, layer_name, together, notes)
    )
    return Scales(folder, size, layers, tuple(notes))


def _channels(
    array: ZarrArray, layer_name: str, together: bool, notes: list[str]
) -> list[tuple[str, int | None]]:
    """Return the layers of an image: name, and channel of the array, None for all; note what is split."""
    count = array.spec.num_channels
    if together or count == 1 or (count, array.spec.dtype) == (3, "uint8"):
        return [(layer_name, None)]
    if count > _MAX_CHANNELS:
        raise InvalidValueError(
            f"{array.path}, of shape {_shape(array)}, would become {count} layers, one for each channel; are its "
            f"axes {array.axes}? Name them (--axes), or keep the channels in one layer (--together)"
        )
    notes.append(
        f"the {count} channels of {array.path} become the layers {layer_name}_0 to {layer_name}_{count - 1}, since "
        f"a layer is shown as one channel or as RGB; --together keeps them in one layer"
    )
    return [(f"{layer_name}_{number}", number) for number in range(count)]


def _channel_of(array: ZarrArray, channel: int | None) -> ZarrArray:
    """Return one channel of an array, or all of it."""
    return array if channel is None else array.one_channel(channel)


def _shape(array: ZarrArray) -> tuple[int, ...]:
    """Return the shape of an array, in the order of its axes."""
    sides = {**dict(zip("xyz", array.size, strict=True)), "c": array.spec.num_channels, "t": 1}
    return tuple(sides[axis] for axis in array.axes)


def _selected(array: ZarrArray, bbox: BoundingBox | None) -> BoundingBox:
    """Return what is taken of the finest array, in its voxels."""
    whole = BoundingBox((0, 0, 0), array.size)
    if bbox is not None and (bbox.is_empty() or not whole.contains_bbox(bbox)):
        raise OutOfBoundsError(f"the box {bbox} is no part of {array.path}, which is {whole}")
    return bbox or whole


def _open_image(
    folder: str,
    size: VoxelSize | None,
    layer_name: str,
    category: str,
    offset: Vec3IntLike | None,
    bbox: BoundingBox | None,
    axes: str | None,
    labels: bool,
    together: bool,
) -> Scales:
    """Tell what an OME-Zarr image and its labels become."""
    image = read_image(folder)
    if size is None and image.voxel_size is None:
        raise InvalidValueError(
            f"{folder}: its axes have no units; say how large a voxel of the finest scale is: voxel_size= "
            f"(--voxel-size)"
        )
    finest = image.scales[0]
    array = _scale_array(image, finest, axes)
    own = _layer_box(folder)
    known = own if bbox is None else None
    corner = corner_of(folder, finest) if offset is None else Vec3Int(offset)
    # A layer of a WEBKNOSSOS dataset has whole cubes; its box is in the properties.
    wanted = _selected(array, None).intersection(known) if known is not None else _selected(array, bbox)
    if wanted.is_empty():
        raise InvalidValueError(f"{folder}: nothing was written into this layer, its box is {known}")
    limit = wanted.offset(corner)
    notes: list[str] = []
    layers = [
        ScaledLayer(name, category, _scales_of(image, finest, corner, limit, axes, notes, channel))
        for name, channel in _channels(array, layer_name, together or own is not None, notes)
    ]
    for name in label_names(folder) if labels else []:
        if name in {layer.name for layer in layers}:
            raise InvalidValueError(
                f"{folder}: both its image and its labels would become the layer {name!r}; choose another name "
                f"(--layer), or leave the labels out (--no-labels)"
            )
        try:
            found = read_image(os.path.join(folder, "labels", name))
            if (found.voxel_size is None) != (image.voxel_size is None):
                raise InvalidValueError("only one of image and labels has units")
            scales = _scales_of(found, finest, corner, limit, axes and axes.lower().replace("c", ""), notes)
            label = ScaledLayer(name, LayerCategories.SEGMENTATION_TYPE, scales)
            check_layer(name, label.category, label.spec.dtype, label.spec.num_channels, found.path)
        except WkdaskError as error:
            notes.append(f"the labels {name!r} are left out: {error}")
        else:
            layers.append(label)
    return Scales(folder, size or image.voxel_size or VoxelSize((1, 1, 1)), tuple(layers), tuple(notes))


def _scale_array(image: Image, scale: ScaleEntry, axes: str | None) -> ZarrArray:
    """Open the array of a scale, which must lie inside of the image's folder."""
    path = os.path.realpath(os.path.join(image.path, scale.name))
    if os.path.commonpath([path, image.path]) != image.path:
        raise InvalidValueError(f"{image.path}: its scale {scale.name!r} lies outside of it, at {path}")
    return open_zarr_array(path, axes or image.axes)


def _layer_box(folder: str) -> BoundingBox | None:
    """Return the box of a layer of a WEBKNOSSOS dataset, in voxels of its finest mag; None if a folder is none."""
    parent, name = os.path.split(folder)
    if not os.path.isfile(os.path.join(parent, PROPERTIES_FILE)):
        return None
    layer = Dataset(parent).layers.get(name)
    if layer is None or not layer.mags:
        return None
    mag = min(layer.mags, key=lambda mag: mag.to_vec3_int().prod())
    return layer.get_mag(mag).box


def _scales_of(
    image: Image,
    finest: ScaleEntry,
    corner: Vec3Int,
    limit: BoundingBox,
    axes: str | None,
    notes: list[str],
    channel: int | None = None,
) -> tuple[Scale, ...]:
    """Return the scales of an image that are mags; note those that are not.

    Parameters
    ----------
    image
        The image, or one of its labels.
    finest
        The scale that is mag 1.
    corner
        Where that begins: absolute, in voxels of mag 1.
    limit
        What is taken: absolute, in voxels of mag 1.
    axes
        Instead of the image's.
    notes
        Grows; the first of several channels tells for all.
    channel
        The channel that is taken; None for all.
    """
    scales: dict[Mag, Scale] = {}
    notes = notes if not channel else []
    for entry in image.scales:
        try:
            scale = _scale_of(image, entry, finest, corner, limit, axes, channel)
            if scale.mag in scales:
                raise InvalidValueError(f"it is mag {scale.mag}, as {scales[scale.mag].array.path} is")
            if scales:
                _check_alike(next(iter(scales.values())).array, scale.array)
        except InvalidValueError as error:
            if not scales and entry is image.scales[-1]:
                raise InvalidValueError(
                    f"{image.path}: scale {entry.name!r} cannot be a mag: {error}"
                ) from error
            notes.append(f"scale {entry.name!r} of {image.path} is left out: {error}")
            continue
        scales[scale.mag] = scale
        whole = limit.aligned_outwards(scale.mag.to_vec3_int()).in_mag(scale.mag)
        if scale.box != whole:
            notes.append(
                f"scale {entry.name!r} of {image.path} holds {scale.box} of {whole} (voxels of mag {scale.mag}); "
                f"the rest of that mag is 0"
            )
    return tuple(scales.values())


def _scale_of(
    image: Image,
    entry: ScaleEntry,
    finest: ScaleEntry,
    corner: Vec3Int,
    limit: BoundingBox,
    axes: str | None,
    channel: int | None,
) -> Scale:
    """Return a scale as a mag; refuse one that is none."""
    mag, distance = place(entry, finest)
    step, start = mag.to_vec3_int(), corner + distance
    if any(start % step) or not start.is_positive():
        raise InvalidValueError(
            f"it begins at voxel {start.to_tuple()} of mag 1, which is no voxel of mag {mag}: those begin at "
            f"multiples of {step.to_tuple()}. Another offset (--offset) may do, such as 0,0,0"
        )
    array = _channel_of(_scale_array(image, entry, axes), channel)
    at = start // step
    box = BoundingBox(at, array.size).intersection(limit.aligned_outwards(step).in_mag(mag))
    if box.is_empty():
        raise InvalidValueError(f"it holds nothing of the box {limit} (voxels of mag 1)")
    return Scale(mag, array, at, box)


def _check_alike(first: ZarrArray, other: ZarrArray) -> None:
    """Refuse a scale of another type than the finest has."""
    have, want = other.spec, first.spec
    if (have.dtype, have.num_channels) != (want.dtype, want.num_channels):
        raise InvalidValueError(
            f"it holds {have.num_channels} × {have.dtype}, {first.path} {want.num_channels} × {want.dtype}"
        )
