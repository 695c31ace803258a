"""Layers that are to be made of images: planned, all of them, before the first is made; removed if one fails."""

from __future__ import annotations

import colorsys
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wkdask.errors import (
    AlreadyExistsError,
    CategoryError,
    ChannelError,
    InvalidValueError,
    UnsupportedFormatError,
    WkdaskWarning,
)
from wkdask.external.images.channels import Channels, Turn, channels_of, opened
from wkdask.external.images.info import shown
from wkdask.external.images.job import fill_mag, plan_source
from wkdask.external.images.numbering import Order
from wkdask.external.images.selection import Selection, select
from wkdask.external.target import add_mag, check_layer, spec_of, viewer_notes
from wkdask.further_axes.mag_view import NDMagView
from wkdask.geometry import BoundingBox, Mag, MagLike, Vec3Int, Vec3IntLike
from wkdask.geometry.axis_vectors import CXYZ_AXES, T_AXIS, VecInt
from wkdask.geometry.nd_boxes import NDBoundingBox
from wkdask.jobs.engines.choice import pick_engine
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import WriteOptions
from wkdask.layer import Layer, LayerCategories
from wkdask.layer.chunk_layout import per_shard
from wkdask.layer.zarr_config import CompressLike, asked_compression
from wkdask.properties.view_configuration import LayerViewConfiguration
from wkdask.storage.protocol import ArraySpec, check_coordinates

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.dataset import Dataset

__all__ = ["NewLayer", "Reading", "Stored", "Wish", "check_names", "make_layers", "plan_layers", "wish_of"]

_COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
"""How the layers of the first three channels are shown."""
_SEGMENTATIONS = ("segmentation", "labels")
"""Words in the names of layers of segmentations."""
_GOLDEN = 0.618033988749895
"""Further hues lie apart by that part of the circle, so that no two are near each other."""


# --- what the layers are to be -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stored:
    """How all layers of a call are stored."""

    data_format: str
    """``"wkw"``, ``"zarr3"`` or ``"zarr"``."""
    chunk_shape: Vec3IntLike | int | None
    """Sides of a chunk; None, here and below, for what suits the size of the images."""
    shard_shape: Vec3IntLike | int | None
    """Sides of a cube."""
    compression: str | bool | None
    """Its name; False for none."""

    @classmethod
    def of(
        cls,
        data_format: str,
        chunk_shape: Vec3IntLike | int | None,
        shard_shape: Vec3IntLike | int | None,
        chunks_per_shard: Vec3IntLike | int | None,
        compress: CompressLike,
    ) -> Stored:
        """Return what the arguments of a call say."""
        if chunks_per_shard is not None:
            chunk = Vec3Int.from_scalar_or_vec(32 if chunk_shape is None else chunk_shape)
            shard_shape = per_shard(chunk, shard_shape, chunks_per_shard)
        compression = asked_compression(compress)
        if compression is True:
            compression = "lz4" if str(data_format) == "wkw" else "zstd"
        return cls(str(data_format), chunk_shape, shard_shape, compression)


@dataclass(frozen=True, slots=True)
class Reading:
    """What is taken of the images of a call, and how."""

    turn: Turn
    """How images are turned around."""
    dtype: str | None = None
    """Type of the layers; None for that of the images."""
    rescale: Sequence[float] | None = None
    """The values that become 0 and the largest of `dtype`."""
    channel: int | None = None
    """The only channel that is taken."""
    split: bool = True
    """Whether channels may become layers of their own."""
    keep_alpha: bool = False
    """Whether transparency is one more channel, instead of left out."""
    gaps: str = "close"
    """What becomes of missing numbers: ``"close"``, ``"keep"`` or ``"refuse"``."""
    tiles: str = "refuse"
    """What becomes of tiles of sections: ``"refuse"``, ``"join"`` or ``"sections"``."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a call says of all its layers, checked."""

    category: str | None
    """None: as the names of the layers say."""
    mag: Mag
    """The magnification that the images are."""
    topleft: tuple[int, ...]
    """Where the first voxel goes: (x, y, z) in voxels of mag 1, or (t, x, y, z)."""
    stored: Stored
    """How they are stored."""
    reading: Reading
    """What is taken of the images."""


@dataclass(frozen=True, slots=True)
class NewLayer:
    """A layer that is to be made, of images whose headers fit together."""

    name: str
    category: str
    sources: tuple[Selection, ...]
    """The images, for each position in time."""
    spec: ArraySpec
    box: BoundingBox
    """Where they go: absolute, in voxels of the mag."""
    first_time: int
    """The first position in time."""
    color: tuple[int, int, int] | None
    """How it is shown at first."""

    @property
    def is_timed(self) -> bool:
        """Whether it has an axis for time."""
        return len(self.sources) > 1


def wish_of(
    category: str | None,
    mag: MagLike,
    topleft: VecInt | Sequence[int],
    stored: Stored,
    reading: Reading,
) -> Wish:
    """Check what a call says of all its layers."""
    if category not in (None, LayerCategories.COLOR_TYPE, LayerCategories.SEGMENTATION_TYPE):
        raise CategoryError(f'a layer is "color" or "segmentation", got {category!r}')
    return Wish(category, Mag(mag), _corner(topleft), stored, reading)


def _corner(topleft: VecInt | Sequence[int]) -> tuple[int, ...]:
    """Return (x, y, z), or (t, x, y, z), as integers."""
    if isinstance(topleft, VecInt):
        axes = topleft.axes
        if {*axes} - {"c", T_AXIS, "x", "y", "z"}:
            raise InvalidValueError(f"topleft has the axes x, y, z, and t where there is time; got {topleft}")
        values = dict(zip(axes, topleft, strict=True))
        order = (T_AXIS, "x", "y", "z") if T_AXIS in axes else ("x", "y", "z")
        return tuple(values[axis] for axis in order)
    values_given = tuple(topleft)
    if len(values_given) not in (3, 4):
        raise InvalidValueError(
            f"topleft is (x, y, z), or (t, x, y, z) where there is time; got {values_given}"
        )
    return (*map(int, values_given[:-3]), *Vec3Int(values_given[-3:]))


def plan_layers(
    name: str, order: Order, wish: Wish, max_layers: int | None, client: Client | None
) -> list[NewLayer]:
    """Open the images of one layer, or of its channels' layers, and check that all of it can be made.

    Parameters
    ----------
    name
        Name of the layer; of several, what their names begin with.
    order
        The images.
    wish
        What is wanted of all layers.
    max_layers
        No more layers of channels than that; None where there is to be one.
    client
        The cluster.
    """
    found = channels_of(
        order.paths[0], keep_alpha=wish.reading.keep_alpha or wish.reading.channel is not None
    )
    if wish.category is None:
        wish = replace(wish, category=_category(name, found))
    groups = _groups(name, found, wish, order.paths[0])
    if max_layers is not None and len(groups) > max_layers:
        warnings.warn(
            f"{shown(order.paths[0])}: of its {len(groups)} channels {max_layers} become layers; max_layers= says "
            "how many do",
            WkdaskWarning,
            stacklevel=4,
        )
        groups = groups[:max_layers]
    return [
        _planned(own_name, order, found, numbers, wish, color, client, first=k == 0)
        for k, (own_name, numbers, color) in enumerate(groups)
    ]


def _category(name: str, found: Channels) -> str:
    """Return the category that the name of a layer says, as webknossos 4 reads it."""
    says_so = any(word in name.lower() for word in _SEGMENTATIONS)
    if not says_so or found.samples > 1 or found.dtype.startswith("float"):
        return LayerCategories.COLOR_TYPE
    warnings.warn(
        f"the layer {name!r} is taken for a segmentation, by its name; layer_category= says otherwise",
        WkdaskWarning,
        stacklevel=5,
    )
    return LayerCategories.SEGMENTATION_TYPE


def _groups(
    name: str, found: Channels, wish: Wish, path: str
) -> list[tuple[str, tuple[int, ...], tuple[int, int, int] | None]]:
    """Return which channels become which layer: its name, its channels, its color."""
    count = found.count
    if wish.reading.channel is not None:
        if not 0 <= wish.reading.channel < count:
            raise ChannelError(
                f"{shown(path)}: has the channels 0 to {count - 1}, got channel={wish.reading.channel}"
            )
        return [(name, (wish.reading.channel,), None)]
    every = tuple(range(count))
    is_rgb = (count, found.dtype) == (3, "uint8")
    if count == 1 or (is_rgb and (found.planes == 1 or not wish.reading.split)):
        return [(name, every, None)]
    if not wish.reading.split:
        raise ChannelError(
            f"{shown(path)}: has {count} channels of {found.dtype}; only three of uint8 (RGB) are shown as one "
            "layer. allow_multiple_layers=True makes a layer of each, channel= takes one"
        )
    shown_in = wish.category == LayerCategories.COLOR_TYPE
    colors = [_color(k) if shown_in else None for k in every]
    return [(f"{name}__channel{k}", (k,), color) for k, color in zip(every, colors, strict=True)]


def _color(number: int) -> tuple[int, int, int]:
    """Return how the layer of a channel is shown: red, green, blue, then colors far from each other."""
    if number < len(_COLORS):
        return _COLORS[number]
    hue = (number - len(_COLORS)) * _GOLDEN % 1
    red, green, blue = (int(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.85, 1))
    return red, green, blue


def _planned(
    name: str,
    order: Order,
    found: Channels,
    numbers: tuple[int, ...],
    wish: Wish,
    color: tuple[int, int, int] | None,
    client: Client | None,
    *,
    first: bool,
) -> NewLayer:
    """Open the images of one layer, and check that it can be made."""
    reading, sources = wish.reading, []
    for time in range(found.times):
        stack = opened(order, found, numbers, time, reading.turn, gaps=reading.gaps, tiles=reading.tiles)
        sources.append(select(stack, None, reading.dtype, reading.rescale))
    source = sources[0]
    first_time = _first_time(wish, found.times)
    corner = Vec3Int(wish.topleft[-3:])
    size = source.box.size
    box = BoundingBox(corner, size * wish.mag.to_vec3_int()).in_mag(wish.mag)
    spec = spec_of(
        wish.stored.data_format,
        source.dtype,
        source.num_channels,
        size,
        compression=wish.stored.compression,
        shard_shape=wish.stored.shard_shape,
        chunk_shape=wish.stored.chunk_shape,
    )
    check_coordinates(box, spec.shard_shape)
    category = wish.category or LayerCategories.COLOR_TYPE
    check_layer(name, category, source.dtype, source.num_channels, shown(order.paths[0]))
    if found.times > 1 and wish.stored.data_format != "zarr3":
        raise UnsupportedFormatError(
            f"{shown(order.paths[0])}: has {found.times} positions in time, which are written in Zarr 3 only, "
            f'not in {wish.stored.data_format!r}; give data_format="zarr3"'
        )
    plan_source(source, spec, box, pick_engine(client))
    for note in [*(source.notes if first else ()), *viewer_notes(category, source.dtype, len(numbers))]:
        warnings.warn(note, WkdaskWarning, stacklevel=6)
    return NewLayer(name, category, tuple(sources), spec, box, first_time, color)


def _first_time(wish: Wish, times: int) -> int:
    """Return the first position in time."""
    if len(wish.topleft) == 3:
        return 0
    if times == 1:
        raise InvalidValueError(f"topleft={wish.topleft} has four values, but the images have no time")
    if wish.topleft[0] < 0:
        raise InvalidValueError(f"positions in time count from 0, got topleft={wish.topleft}")
    return wish.topleft[0]


# --- the layers made -----------------------------------------------------------------------------------


def check_names(dataset: Dataset, layers: Sequence[NewLayer]) -> None:
    """Refuse layers that are there already, or twice among the new ones."""
    seen = set(dataset._file.record.names)
    for layer in layers:
        folder = os.path.join(dataset.path, layer.name)
        if layer.name in seen or (
            os.path.lexists(folder) and (not os.path.isdir(folder) or os.listdir(folder))
        ):
            raise AlreadyExistsError(
                f"{dataset.path} has a layer {layer.name!r}, or a folder of that name, already; choose another name"
            )
        seen.add(layer.name)


def make_layers(
    dataset: Dataset, layers: Sequence[NewLayer], wish: Wish, options: WriteOptions
) -> list[Layer]:
    """Make layers and fill them; if one fails, all are removed again."""
    made: list[str] = []
    try:
        for new in layers:
            layer = _added(dataset, new, wish)
            made.append(new.name)
            _fill(layer, new, wish, options)
        return [dataset.get_layer(name) for name in made]
    except BaseException:
        for name in made:
            if name in dataset.layers:
                dataset.delete_layer(name)
        raise


def _added(dataset: Dataset, new: NewLayer, wish: Wish) -> Layer:
    """Add a layer without mags."""
    factor = wish.mag.to_vec3_int()
    corner, size = new.box.topleft * factor, new.box.size * factor
    box: BoundingBox | NDBoundingBox | None = None
    if new.is_timed:
        axes = (T_AXIS, *CXYZ_AXES)
        box = NDBoundingBox(
            (new.first_time, 0, *corner),
            (len(new.sources), new.spec.num_channels, *size),
            axes,
            tuple(range(len(axes))),
        )
    with warnings.catch_warnings():  # what is not shown has been said
        warnings.filterwarnings("ignore", ".*webknossos 4 does not make", WkdaskWarning)
        return dataset.add_layer(
            new.name,
            new.category,
            dtype_per_channel=new.spec.dtype,
            num_channels=new.spec.num_channels,
            data_format=new.spec.data_format,
            bounding_box=box,
        )


def _fill(layer: Layer, new: NewLayer, wish: Wish, options: WriteOptions) -> None:
    """Add the mag of a layer and fill it."""
    mag: Any = add_mag(layer, wish.mag, new.spec)
    reports = []
    for number, source in enumerate(new.sources):
        engine = pick_engine(options.client)  # one for each job, which ends with it
        target = mag.at(t=new.first_time + number) if isinstance(mag, NDMagView) else mag
        reports.append(
            fill_mag(target.place, source, plan_source(source, new.spec, new.box, engine), engine, options)
        )
    if new.category == LayerCategories.COLOR_TYPE:
        layer.default_view_configuration = _shown(new, reports)


def _shown(new: NewLayer, reports: Sequence[WriteReport]) -> LayerViewConfiguration:
    """Return how a layer is shown at first: over the values that it has, as webknossos 4 does it."""
    low = [report.minimum for report in reports if report.minimum is not None]
    high = [report.maximum for report in reports if report.maximum is not None]
    return LayerViewConfiguration(
        color=new.color, min=float(min(low)) if low else None, max=float(max(high)) if high else None
    )
