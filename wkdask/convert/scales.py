"""What a Zarr array, or an OME-Zarr image, would become: which array is which mag, and what of it is taken.

::

    image.ome.zarr     >  layer "color"      scale 0 > mag 1, scale 1 > mag 2-2-1, …
      labels/nuclei    >  layer "nuclei"     its scales, by the image's voxels
    array.zarr         >  layer "color"      mag 1

Only metadata are read, and of float labels the coarsest scale, to recognise masks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from wkdask.dataset import Dataset
from wkdask.errors import InvalidValueError, OutOfBoundsError, WkdaskError
from wkdask.external.foreign import ForeignArray, Scale
from wkdask.external.target import check_layer, viewer_notes
from wkdask.external.zarr.array import ZarrArray, open_zarr_array
from wkdask.external.zarr.ome_zarr import Image, corner_of, label_names, matched, place, read_image
from wkdask.external.zarr.scale_mags import Taken, channel_of, scale_array, scales_of
from wkdask.external.zarr.store import is_file, is_zarr, read_json, root_of
from wkdask.fsio import checked_path
from wkdask.geometry import BoundingBox, Mag, Vec3Int, Vec3IntLike
from wkdask.geometry.voxel_size import VoxelSize, as_voxel_size, format_bytes
from wkdask.layer import LayerCategories
from wkdask.properties import PROPERTIES_FILE
from wkdask.storage.protocol import ArraySpec

__all__ = [
    "ScaledLayer",
    "Scales",
    "channel_layers",
    "layer_notes",
    "open_scales",
    "selected_box",
    "shape_of_axes",
]

_MAX_CHANNELS = 64
"""More channels than that are an axis that was taken for channels."""
_CASTS = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
"""Types of images that WEBKNOSSOS does not show, and those that it does."""
_LOOK_NBYTES = 64 << 20
"""Voxels of float labels that are read, to recognise a mask."""


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
    """What a conversion takes, made by `open_scales`; print it to see it."""

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
    dtype: str | None = None,
) -> Scales:
    """Return what a Zarr array, or an OME-Zarr image, would become.

    Parameters
    ----------
    path, voxel_size, layer_name, category, offset, bbox, axes, labels, together, dtype
        As for :func:`wkdask.convert.zarr.convert_zarr`.

    Raises
    ------
    WkdaskError
        As there.
    """
    folder = root_of(os.path.realpath(checked_path(path)))
    if not is_zarr(folder):
        raise InvalidValueError(
            f"{folder} is no Zarr array or group: it has neither zarr.json nor .zarray, .zattrs"
        )
    size = None if voxel_size is None else as_voxel_size(voxel_size)
    if _is_array(folder):
        return _open_array(folder, size, layer_name, category, offset, bbox, axes, together, dtype)
    return _open_image(folder, size, layer_name, category, offset, bbox, axes, labels, together, dtype)


def _is_array(folder: str) -> bool:
    """Return whether this is an array, not a group."""
    if is_file(f"{folder}/zarr.json"):
        return read_json(f"{folder}/zarr.json").get("node_type") == "array"
    return is_file(f"{folder}/.zarray")


def _open_array(
    folder: str,
    size: VoxelSize | None,
    layer_name: str,
    category: str,
    offset: Vec3IntLike | None,
    bbox: BoundingBox | None,
    axes: str | None,
    together: bool,
    dtype: str | None,
) -> Scales:
    """Return what one array becomes."""
    array = open_zarr_array(folder, axes)
    if size is None:
        raise InvalidValueError(
            f"{folder} is an array, which does not say how large its voxels are: give voxel_size= (--voxel-size)"
        )
    corner = Vec3Int(offset or (0, 0, 0))
    box = selected_box(array, bbox).offset(corner)
    notes = []
    if array.are_assumed:
        notes.append(
            f"the axes of {folder}, of shape {shape_of_axes(array)}, were taken for {array.axes}; --axes says "
            f"otherwise"
        )
    notes += array.notes
    array = array if dtype is None else array.as_dtype(dtype)
    layers = tuple(
        ScaledLayer(name, category, (Scale(Mag(1), channel_of(array, channel), corner, box),))
        for name, channel in channel_layers(array, layer_name, together, notes)
    )
    notes += layer_notes(layers)
    return Scales(folder, size, layers, tuple(notes))


def layer_notes(layers: Sequence[ScaledLayer]) -> list[str]:
    """Return what WEBKNOSSOS does not show, once for layers that are alike."""
    notes: dict[str, None] = {}
    for layer in layers:
        dtype, channels = layer.spec.dtype, layer.spec.num_channels
        cast = (
            f"--dtype {_CASTS[dtype]} (or another type) stores one that it shows" if dtype in _CASTS else ""
        )
        split = "without --together each channel becomes a layer" if channels > 1 else ""
        remedy = "; ".join(filter(None, (split, cast)))
        notes |= dict.fromkeys(viewer_notes(layer.category, dtype, channels, remedy=remedy))
    return list(notes)


def channel_layers(
    array: ForeignArray, layer_name: str, together: bool, notes: list[str], names: Sequence[str] = ()
) -> list[tuple[str, int | None]]:
    """Return the layers of an image: name, and channel of the array, None for all; note what is split."""
    count = array.spec.num_channels
    if together or count == 1 or (count, array.spec.dtype) == (3, "uint8"):
        return [(layer_name, None)]
    if count > _MAX_CHANNELS:
        raise InvalidValueError(
            f"{array.path}, of shape {shape_of_axes(array)}, would become {count} layers, one for each "
            f"channel; are its axes {array.axes}? Name them (--axes), or keep the channels in one layer "
            f"(--together)"
        )
    called = f" ({', '.join(names)})" if len(names) == count else ""
    notes.append(
        f"the {count} channels{called} of {array.path} become the layers {layer_name}_0 to "
        f"{layer_name}_{count - 1}, since a layer is shown as one channel or as RGB; --together keeps them in one "
        f"layer"
    )
    return [(f"{layer_name}_{number}", number) for number in range(count)]


def shape_of_axes(array: ForeignArray) -> tuple[int, ...]:
    """Return the shape of an array, in the order of its axes."""
    sides = {**dict(zip("xyz", array.size, strict=True)), "c": array.spec.num_channels, "t": 1}
    return tuple(sides[axis] for axis in array.axes)


def selected_box(array: ForeignArray, bbox: BoundingBox | None) -> BoundingBox:
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
    dtype: str | None,
) -> Scales:
    """Return what an OME-Zarr image and its labels become."""
    image = read_image(folder)
    if size is None and image.voxel_size is None:
        raise InvalidValueError(
            f"{folder}: its axes have no units that are known ({image.unit_text}); say how large a voxel of the "
            f"finest scale is: voxel_size= (--voxel-size)"
        )
    finest = image.scales[0]
    array = scale_array(image, finest, axes)
    own = _layer_box(folder)
    known = own if bbox is None else None
    corner = corner_of(folder, finest) if offset is None else Vec3Int(offset)
    # A layer of a WEBKNOSSOS dataset has whole cubes; its box is in the properties.
    wanted = selected_box(array, None).intersection(known) if known is not None else selected_box(array, bbox)
    if wanted.is_empty():
        raise InvalidValueError(f"{folder}: nothing was written into this layer, its box is {known}")
    taken = Taken(finest, array.size, corner, wanted.offset(corner))
    notes = [*image.notes, *array.notes]
    layers = [
        ScaledLayer(name, category, scales_of(image, taken, axes, notes, channel, dtype))
        for name, channel in channel_layers(
            array, layer_name, together or own is not None, notes, image.channel_names
        )
    ]
    for name in label_names(folder) if labels else []:
        if name in {layer.name for layer in layers}:
            raise InvalidValueError(
                f"{folder}: both its image and its labels would become the layer {name!r}; choose another name "
                f"(--layer), or leave the labels out (--no-labels)"
            )
        mine: list[str] = []
        try:
            layers.append(_label_layer(image, name, taken, axes, mine))
        except WkdaskError as error:
            notes.append(f"the labels {name!r} are left out: {error}")
        else:
            notes += mine
    notes += layer_notes(layers)
    return Scales(folder, size or image.voxel_size or VoxelSize((1, 1, 1)), tuple(layers), tuple(notes))


def _label_layer(image: Image, name: str, taken: Taken, axes: str | None, notes: list[str]) -> ScaledLayer:
    """Return the layer that labels of an image become; refuse what cannot be one."""
    found = read_image(os.path.join(image.path, "labels", name), image)
    notes += found.notes
    if axes is not None:  # what the user says of the image is meant of its labels too, which have no channels
        given = axes.lower()
        axes = next((each for each in (given, given.replace("c", "")) if len(each) == len(found.axes)), None)
    array = scale_array(found, found.scales[0], axes)
    if found.unit_text and image.voxel_size is not None:
        found = _by_extent(image, found, array.size, taken, notes)
    is_mask = array.stored.startswith("float")
    if is_mask:
        _check_mask(scale_array(found, found.scales[-1], axes))
    notes += array.notes
    scales = scales_of(found, taken, axes, notes, None, "mask" if is_mask else None)
    layer = ScaledLayer(name, LayerCategories.SEGMENTATION_TYPE, scales)
    check_layer(name, layer.category, layer.spec.dtype, layer.spec.num_channels, found.path)
    if is_mask:
        notes.append(f"the labels {name!r} hold {array.stored}, of 0 and 1 only: they are stored as uint8")
    return layer


def _by_extent(image: Image, found: Image, size: Vec3Int, taken: Taken, notes: list[str]) -> Image:
    """Return labels without units as an image in the units of theirs: by its numbers, or by its extent."""
    how = "their numbers are taken for those of the image"
    try:
        mag, _ = place(found.scales[0], taken.finest, (size, taken.size))
        step = mag.to_vec3_int()
        fits = all(
            n in (whole // s, -(-whole // s)) for n, whole, s in zip(size, taken.size, step, strict=True)
        )
    except InvalidValueError:
        fits = False
    if not fits:
        for entry in image.scales:
            if scale_array(image, entry, None).size == size:
                found = matched(found, entry)
                how = f"they have as many voxels as scale {entry.name!r} of the image, and are taken for as large"
                break
    notes.append(f"the labels {os.path.basename(found.path)!r} have no units ({found.unit_text}): {how}")
    return found


def _check_mask(array: ZarrArray) -> None:
    """Refuse labels of floats that are no mask, by what is in the middle of their coarsest scale."""
    size = array.size
    while size.prod() * array.stored_nbytes > _LOOK_NBYTES:
        size = (size // 2).pairmax(1)
    box = BoundingBox((array.size - size) // 2, size)
    found = array.read(box)
    other = found[(found != 0) & (found != 1)]
    if other.size:
        raise InvalidValueError(
            f"{array.path} holds {array.stored}, such as {other[0]}: the ids of a segmentation are whole numbers"
        )


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
