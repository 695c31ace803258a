"""What is known of datasets, layers and mags, as texts that :mod:`.text` and :mod:`.html` lay out.

::

    dataset -> layers and their mags, opened or not -> cubes counted, as far as a moment allows -> facts

What cannot be opened says why in its place: nothing here raises. Names come from files, so control characters are
shown escaped.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from wkdask.display.counting import Count, count_within
from wkdask.errors import WkdaskError
from wkdask.geometry import BoundingBox, Mag
from wkdask.geometry.voxel_size import VoxelSize, format_bytes
from wkdask.properties.records import LayerRecord
from wkdask.storage.protocol import StoredMag
from wkdask.storage.publish.dead_jobs import is_unfinished
from wkdask.storage.publish.jobs import unfinished_jobs

if TYPE_CHECKING:
    from wkdask.dataset import Dataset
    from wkdask.further_axes.mag_view import NDMagView
    from wkdask.layer import Layer
    from wkdask.mag_view import MagView
    from wkdask.view import View

__all__ = [
    "HEADINGS",
    "MAX_SECONDS",
    "Counter",
    "LayerFacts",
    "MagFacts",
    "OpenedLayer",
    "box_in_mag",
    "cuboid",
    "dataset_facts",
    "layer_facts",
    "mag_rows",
    "nanometers",
    "open_layer",
    "plain",
    "view_rows",
]

MAX_SECONDS = 0.2
"""Seconds that all counting for one text may take: a share over the network may be slow."""
HEADINGS = ("Mag", "Voxels", "Uncompressed", "Cubes", "Chunks", "Compression", "On disk")

Counter = Callable[[Sequence[StoredMag]], Sequence[Count]]
"""Counts the cubes of mags, finest first."""
WhenOpen = Callable[[Sequence["OpenedLayer"]], None]
"""What is done when layers are open, before cubes are counted."""


def _count_a_moment(stores: Sequence[StoredMag]) -> Sequence[Count]:
    """Count as far as a repr may."""
    return count_within(stores, MAX_SECONDS)


def _nothing(layers: Sequence[OpenedLayer]) -> None:
    """Do nothing when layers are open."""


@dataclass(frozen=True, slots=True)
class MagFacts:
    """A mag, as texts."""

    name: str
    cells: tuple[str, ...] = ()
    """One for each of `HEADINGS` but the first; none where there is an error."""
    error: str = ""
    note: str = ""
    """What else must be known: why it is read-only."""


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """A layer, as texts."""

    name: str
    lines: tuple[str, ...]
    """Of the layer itself; its name first."""
    mags: tuple[MagFacts, ...] = ()
    """Finest first."""
    kind: str = ""
    """Category and type; empty where the layer cannot be opened."""
    views: tuple[MagView, ...] = field(default=(), compare=False)
    """The mags that could be opened, finest first, but for those with further axes."""


@dataclass(slots=True)
class OpenedLayer:
    """A layer whose mags are open, as far as they can be, and not counted yet."""

    layer: Layer
    record: LayerRecord | Exception
    mags: list[tuple[Mag, Any]] = field(default_factory=list)
    """Each with its view, or with the error of opening it; finest first."""

    def views(self) -> list[MagView]:
        """Return the mags that could be opened, finest first, but for those with further axes."""
        return [
            view
            for _, view in self.mags
            if not isinstance(view, Exception) and not getattr(view, "further_axes", ())
        ]


def dataset_facts(
    dataset: Dataset, count: Counter = _count_a_moment, when_open: WhenOpen = _nothing
) -> tuple[list[str], list[LayerFacts]]:
    """Return the lines of the dataset itself, and its layers.

    Parameters
    ----------
    dataset
        The dataset.
    count
        Counts cubes.
    when_open
        Called with the layers when they are open, before cubes are counted.
    """
    path = plain(str(dataset.path))
    try:
        head = [plain(dataset.name), path, f"voxel size {dataset.voxel_size}"]
        layers = list(dataset.layers.values())
    except Exception as error:  # the properties file is gone, or damaged
        return [path, _message(error)], []
    return head, _facts([open_layer(layer) for layer in layers], count, when_open)


def layer_facts(layer: Layer, count: Counter = _count_a_moment, when_open: WhenOpen = _nothing) -> LayerFacts:
    """Return what is known of a layer.

    Parameters
    ----------
    layer
        The layer.
    count, when_open
        As for `dataset_facts`.
    """
    (facts,) = _facts([open_layer(layer)], count, when_open)
    return facts


def open_layer(layer: Layer) -> OpenedLayer:
    """Open the mags of a layer.

    Parameters
    ----------
    layer
        The layer.
    """
    try:
        record = layer.record
    except Exception as error:
        return OpenedLayer(layer, error)
    opened = OpenedLayer(layer, record)
    for mag in sorted((mag.mag for mag in record.mags), key=lambda mag: (mag.max_dim, mag.to_tuple())):
        try:
            opened.mags.append((mag, layer.get_mag(mag)))
        except Exception as error:
            opened.mags.append((mag, error))
    return opened


def _facts(layers: Sequence[OpenedLayer], count: Counter, when_open: WhenOpen) -> list[LayerFacts]:
    """Count what is open, and put everything into words."""
    when_open(layers)
    # Of all layers the finest first: the counter takes the coarse ones, of all layers, before the large ones.
    views = sorted((view for layer in layers for view in layer.views()), key=lambda view: view.mag.max_dim)
    counts = dict(zip(map(id, views), count([view.place.store for view in views]), strict=True))
    return [_facts_of(layer, counts) for layer in layers]


def _facts_of(opened: OpenedLayer, counts: dict[int, Count]) -> LayerFacts:
    layer, record = opened.layer, opened.record
    name = plain(layer.name)
    if isinstance(record, Exception):
        return LayerFacts(name, (name, _message(record)))
    kind = (
        f"{record.category}, {_attempt(lambda: f'{layer.dtype_per_channel}{_channels(layer.num_channels)}')}"
    )
    if record.data_format != "wkw":
        kind += f", stored as {plain(record.data_format)}"
    lines = [f"{name}: {kind}", _attempt(lambda: _box_text(record.bounding_box, layer))]
    if record.is_segmentation:
        largest = record.largest_segment_id
        lines.append(f"largest segment id {'not known' if largest is None else largest}")
    facts = [_mag_facts(record, mag, view, counts) for mag, view in opened.mags]
    facts += _unlisted(layer, [mag for mag, _ in opened.mags])
    if not opened.mags:
        lines.append("no mags")
    return LayerFacts(name, tuple(lines), tuple(facts), kind, tuple(opened.views()))


def _mag_facts(record: LayerRecord, mag: Mag, view: Any, counts: dict[int, Count]) -> MagFacts:
    """Return what is known of a mag; `view` is the error where it cannot be opened."""
    if isinstance(view, Exception):
        return MagFacts(str(mag), error=_message(view))
    try:
        if axes := getattr(view, "further_axes", ()):
            cells = _cells_of_more_axes(cast("NDMagView", view))
            return MagFacts(str(mag), cells, note=f"also along {', '.join(axes)}")
        note = f"read-only: {plain(why)}" if (why := view.place.read_only) else _unfinished(view)
        return MagFacts(str(mag), _mag_cells(record, view, counts[id(view)]), note=note)
    except Exception as error:
        return MagFacts(str(mag), error=_message(error))


def _unfinished(mag: MagView) -> str:
    """Return what was begun on a mag, and stopped; empty where nothing was."""
    jobs = unfinished_jobs(mag.place.store)
    if not jobs:
        return ""
    return f"unfinished: {plain(jobs[0].action)} {plain(jobs[0].name)}; the same call resumed completes it"


def _unlisted(layer: Layer, mags: Sequence[Mag]) -> list[MagFacts]:
    """Return the mags that a job began to make; they are listed when they are complete."""
    found = []
    with contextlib.suppress(OSError), os.scandir(layer.path) as entries:
        for name in sorted(entry.name for entry in entries if entry.name[:1].isdigit()):
            with contextlib.suppress(WkdaskError, OSError):
                if Mag(name) not in mags and is_unfinished(os.path.join(layer.path, name)) is not None:
                    note = "unfinished, and not listed yet: the same call resumed completes it"
                    found.append(MagFacts(name, error=note))
    return found


def _mag_cells(record: LayerRecord, mag: MagView, count: Count) -> tuple[str, ...]:
    """Return the facts of a mag in the order of `HEADINGS`, without its name."""
    spec = mag.spec
    cubes, disk = count.texts()
    return (
        *_voxels(record, mag),
        f"{cubes} of {cuboid(spec.shard_shape)}",
        cuboid(spec.chunk_shape),
        spec.compression or "none",
        disk,
    )


def _cells_of_more_axes(mag: NDMagView) -> tuple[str, ...]:
    """Return what is shown of a mag with axes beside c, x, y, z."""
    box = mag.bounding_box
    sides = " × ".join(f"{box.get_shape(axis)} {axis}" for axis in mag.axes)
    return (sides, format_bytes(box.volume() * mag.get_dtype().itemsize), "-", "-", "-", "-")


def mag_rows(record: LayerRecord, mag: MagView, count: Counter = _count_a_moment) -> list[tuple[str, str]]:
    """Return (name, value) pairs for a mag on its own.

    Parameters
    ----------
    record
        The layer, as the properties have it.
    mag
        The mag.
    count
        Counts cubes.
    """
    name = f"{mag.mag} of layer '{plain(record.name)}'"
    try:
        spec = mag.spec
        each = [size * step for size, step in zip(nanometers(mag.layer), mag.mag, strict=True)]
        rows = [
            ("Mag", f"{name} ({record.category}, {spec.dtype}{_channels(spec.num_channels)})"),
            ("Box", _attempt(lambda: f"{box_in_mag(record, mag)} (voxels of this mag)")),
            ("Voxels", f"{', '.join(_voxels(record, mag))}; each {_lengths(each)}"),
        ]
        cubes, disk = count([mag.place.store])[0].texts()
        shapes = f"{cuboid(spec.shard_shape)}, chunks of {cuboid(spec.chunk_shape)}"
        rows.append(("Cubes", f"{cubes} of {shapes}, compression {spec.compression or 'none'}"))
        rows.append(("Files", f"{disk}, {plain(str(mag.path))}{', read-only' if mag.read_only else ''}"))
    except Exception as error:
        return [("Mag", name), ("Error", _message(error))]
    return rows


def view_rows(view: View) -> list[tuple[str, str]]:
    """Return (name, value) pairs for a part of a mag; nothing is counted."""
    place, spec, box = view.place, view.spec, view.box
    kind = f"{spec.dtype}{_channels(spec.num_channels)}"
    rows = [
        ("View", f"of mag {place.mag} of layer '{plain(place.layer)}' ({kind})"),
        ("Box", f"{box} (voxels of this mag)"),
        ("Voxels", f"{' × '.join(map(str, box.size))}, {format_bytes(box.volume() * spec.bytes_per_voxel)}"),
        ("Cubes", f"of {cuboid(spec.shard_shape)}, chunks of {cuboid(spec.chunk_shape)}"),
    ]
    if view.read_only:
        rows.append(("Writes", f"refused: {plain(place.read_only or 'the view is read-only')}"))
    return rows


def _voxels(record: LayerRecord, mag: MagView) -> tuple[str, str]:
    """Return the size of a mag, in its voxels and in uncompressed bytes."""
    try:
        box = box_in_mag(record, mag)
    except Exception:
        return ("no box", "-")  # the layer's own line says why
    return (" × ".join(map(str, box.size)), format_bytes(box.volume() * mag.spec.bytes_per_voxel))


def box_in_mag(record: LayerRecord, mag: MagView) -> BoundingBox:
    """Return the layer's box in voxels of a mag."""
    return record.bounding_box.aligned_outwards(mag.mag.to_vec3_int()).in_mag(mag.mag)


# --- texts --------------------------------------------------------------------------------------------


def _attempt(text: Callable[[], str]) -> str:
    """Return a text, or what keeps it from being known."""
    try:
        return text()
    except Exception as error:
        return _message(error)


def _message(error: Exception) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {plain(str(error))}"


def plain(text: str) -> str:
    """Return a text with what a terminal would obey, not show, escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _channels(count: int) -> str:
    return "" if count == 1 else f" × {count} channels"


def cuboid(shape: Sequence[int]) -> str:
    """Return ``"32³"`` for equal sides, else ``"64 × 64 × 32"``."""
    return f"{shape[0]}³" if len(set(shape)) == 1 else " × ".join(map(str, shape))


def _box_text(box: BoundingBox, layer: Layer) -> str:
    """Return a layer's box in voxels of mag 1, and its physical size."""
    if box.is_empty():
        return "empty"
    sides = [size * count for size, count in zip(nanometers(layer), box.size, strict=True)]
    return f"box {box} voxels of mag 1, {_lengths(sides, micrometers=True)}"


def nanometers(layer: Layer) -> tuple[float, float, float]:
    """Return the size of a voxel of mag 1."""
    size: VoxelSize = layer._file.record.voxel_size
    return size.to_nanometer()


def _lengths(sides: Sequence[float], micrometers: bool = False) -> str:
    """Return three lengths in nm, in one unit that suits the longest; at least µm if asked for."""
    longest = max(sides)
    scale, unit = 1.0, "nm"
    if longest >= 1e7:
        scale, unit = 1e6, "mm"
    elif micrometers or longest >= 1e4:
        scale, unit = 1e3, "µm"
    return " × ".join(f"{side / scale:.4g}" for side in sides) + f" {unit}"
