"""What datasets, layers and mags say of themselves: a tree for terminals, tables for notebooks.

The facts are gathered once, as texts, and laid out twice. What cannot be opened says why in its place:
nothing here raises. Names come from files, so control characters are shown escaped, and HTML is quoted.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import zip_longest
from typing import TYPE_CHECKING, cast

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

__all__ = ["dataset_html", "dataset_text", "layer_html", "layer_text", "mag_html", "mag_text"]

_MAX_CUBES = 20_000
"""Cubes of a mag that are counted."""
_MAX_SECONDS = 5.0
"""Seconds that all counting for one text may take: a share over the network may be slow."""
_MAX_DRAWN = 10_000
"""Cubes of a mag up to which its grid is drawn; dask's array looks at each."""
_HEADINGS = ("Mag", "Voxels", "Uncompressed", "Cubes", "Chunks", "Compression", "On disk")
_TABLE = "style='text-align:left;margin:0.3em 0 1em 0'"
_RED = "style='color:#c03030;text-align:left'"


def dataset_text(dataset: Dataset, *, max_cubes: int = _MAX_CUBES, max_seconds: float = _MAX_SECONDS) -> str:
    """Return a dataset as a tree of its layers and mags.

    Parameters
    ----------
    dataset
        The dataset.
    max_cubes
        Cubes of each mag that are counted on the disk.
    max_seconds
        Seconds after which nothing more is counted.
    """
    head, layers = _dataset_facts(dataset, _Limit(max_cubes, max_seconds))
    return "\n".join(_tree(head, [_layer_lines(layer) for layer in layers]))


def dataset_html(dataset: Dataset) -> str:
    """Return a dataset as HTML: a table of mags for each layer."""
    head, layers = _dataset_facts(dataset, _Limit())
    tables = "".join(map(_layer_table, layers))
    return f"<div>{_html_lines(head)}<div style='margin-left:1.5em'>{tables}</div></div>"


def layer_text(layer: Layer) -> str:
    """Return a layer and its mags, one line each."""
    return "\n".join(_layer_lines(_layer_facts(layer, _Limit())))


def layer_html(layer: Layer) -> str:
    """Return a layer as HTML: a table of its mags."""
    return _layer_table(_layer_facts(layer, _Limit()))


def mag_text(layer_record: LayerRecord, mag_view: MagView) -> str:
    """Return what is known of a mag, as lines of name and value.

    Parameters
    ----------
    layer_record
        The layer, as the properties have it.
    mag_view
        The mag.
    """
    return "\n".join(f"{name:<13}: {value}" for name, value in _mag_rows(layer_record, mag_view))


def mag_html(layer_record: LayerRecord, mag_view: MagView) -> str:
    """Return what is known of a mag as an HTML table, beside a drawing of its grid of blocks."""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in _mag_rows(layer_record, mag_view)
    )
    drawing = ""
    with contextlib.suppress(Exception):  # the table says what is wrong
        box = _box_in_mag(layer_record, mag_view)
        if not box.is_empty() and len(mag_view.spec.grid.cubes(box)) < _MAX_DRAWN:
            drawing = mag_view.to_dask()[0].to_svg(size=160)
    return (
        f"<div style='display:flex;gap:2em;align-items:flex-start'>"
        f"<table {_TABLE}>{rows}</table><div>{drawing}</div></div>"
    )


# --- facts --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Limit:
    """How much may be counted on the disk; the time runs from its creation on."""

    cubes: int = _MAX_CUBES
    """Of each mag."""
    seconds: float = _MAX_SECONDS
    """Of all mags together."""
    start: float = field(default_factory=time.monotonic)
    """By the monotonic clock, in seconds."""


@dataclass(frozen=True, slots=True)
class _MagFacts:
    """A mag, as texts."""

    name: str
    cells: tuple[str, ...] = ()
    """One for each of `_HEADINGS` but the first; none where there is an error."""
    error: str = ""
    note: str = ""
    """What else must be known: why it is read-only."""


@dataclass(frozen=True, slots=True)
class _LayerFacts:
    """A layer, as texts."""

    lines: tuple[str, ...]
    """Of the layer itself; its name first."""
    mags: tuple[_MagFacts, ...] = ()
    """Finest first."""


def _dataset_facts(dataset: Dataset, limit: _Limit) -> tuple[list[str], list[_LayerFacts]]:
    """Return the lines of the dataset itself, and its layers."""
    path = _plain(str(dataset.path))
    try:
        head = [_plain(dataset.name), path, f"voxel size {dataset.voxel_size}"]
        layers = list(dataset.layers.values())
    except Exception as error:  # the properties file is gone, or damaged
        return [path, _message(error)], []
    return head, [_layer_facts(layer, limit) for layer in layers]


def _layer_facts(layer: Layer, limit: _Limit) -> _LayerFacts:
    name = _plain(layer.name)
    try:
        record = layer.record
    except Exception as error:
        return _LayerFacts((name, _message(error)))
    kind = (
        f"{record.category}, {_attempt(lambda: f'{layer.dtype_per_channel}{_channels(layer.num_channels)}')}"
    )
    if record.data_format != "wkw":
        kind += f", stored as {_plain(record.data_format)}"
    lines = [f"{name}: {kind}", _attempt(lambda: _box_text(record.bounding_box, layer))]
    if record.is_segmentation:
        largest = record.largest_segment_id
        lines.append(f"largest segment id {'not known' if largest is None else largest}")
    mags = sorted((mag.mag for mag in record.mags), key=lambda mag: (mag.max_dim, mag.to_tuple()))
    facts = []
    for mag in mags:
        try:
            view = layer.get_mag(mag)
            if axes := getattr(view, "further_axes", ()):
                cells = _cells_of_more_axes(cast("NDMagView", view))
                facts.append(_MagFacts(str(mag), cells, note=f"also along {', '.join(axes)}"))
                continue
            note = f"read-only: {_plain(why)}" if (why := view.place.read_only) else _unfinished(view)
            facts.append(_MagFacts(str(mag), _mag_cells(record, view, limit), note=note))
        except Exception as error:
            facts.append(_MagFacts(str(mag), error=_message(error)))
    facts += _unlisted(layer, mags)
    return _LayerFacts(tuple(lines) if mags else (*lines, "no mags"), tuple(facts))


def _unfinished(mag: MagView) -> str:
    """Return what was begun on a mag, and stopped; empty where nothing was."""
    jobs = unfinished_jobs(mag.place.store)
    if not jobs:
        return ""
    return f"unfinished: {_plain(jobs[0].action)} {_plain(jobs[0].name)}; the same call resumed completes it"


def _unlisted(layer: Layer, mags: Sequence[Mag]) -> list[_MagFacts]:
    """Return the mags that a job began to make; they are listed when they are complete."""
    found = []
    with contextlib.suppress(OSError), os.scandir(layer.path) as entries:
        for name in sorted(entry.name for entry in entries if entry.name[:1].isdigit()):
            with contextlib.suppress(WkdaskError, OSError):
                if Mag(name) not in mags and is_unfinished(os.path.join(layer.path, name)) is not None:
                    note = "unfinished, and not listed yet: the same call resumed completes it"
                    found.append(_MagFacts(name, error=note))
    return found


def _mag_cells(record: LayerRecord, mag: MagView, limit: _Limit) -> tuple[str, ...]:
    """Return the facts of a mag in the order of `_HEADINGS`, without its name."""
    spec = mag.spec
    cubes, disk = _on_disk(mag.place.store, limit)
    return (
        *_voxels(record, mag),
        f"{cubes} of {_cuboid(spec.shard_shape)}",
        _cuboid(spec.chunk_shape),
        spec.compression or "none",
        disk,
    )


def _cells_of_more_axes(mag: NDMagView) -> tuple[str, ...]:
    """Return what is shown of a mag with axes beside c, x, y, z."""
    box = mag.bounding_box
    sides = " × ".join(f"{box.get_shape(axis)} {axis}" for axis in mag.axes)
    return (sides, format_bytes(box.volume() * mag.get_dtype().itemsize), "-", "-", "-", "-")


def _mag_rows(record: LayerRecord, mag: MagView) -> list[tuple[str, str]]:
    """Return (name, value) pairs for a mag on its own."""
    name = f"{mag.mag} of layer '{_plain(record.name)}'"
    try:
        spec, limit = mag.spec, _Limit()
        each = [size * step for size, step in zip(_nanometers(mag.layer), mag.mag, strict=True)]
        rows = [
            ("Mag", f"{name} ({record.category}, {spec.dtype}{_channels(spec.num_channels)})"),
            ("Box", _attempt(lambda: f"{_box_in_mag(record, mag)} (voxels of this mag)")),
            ("Voxels", f"{', '.join(_voxels(record, mag))}; each {_lengths(each)}"),
        ]
        cubes, disk = _on_disk(mag.place.store, limit)
        shapes = f"{_cuboid(spec.shard_shape)}, chunks of {_cuboid(spec.chunk_shape)}"
        rows.append(("Cubes", f"{cubes} of {shapes}, compression {spec.compression or 'none'}"))
        rows.append(("Files", f"{disk}, {_plain(str(mag.path))}{', read-only' if mag.read_only else ''}"))
    except Exception as error:
        return [("Mag", name), ("Error", _message(error))]
    return rows


def _voxels(record: LayerRecord, mag: MagView) -> tuple[str, str]:
    """Return the size of a mag, in its voxels and in uncompressed bytes."""
    try:
        box = _box_in_mag(record, mag)
    except Exception:
        return ("no box", "-")  # the layer's own line says why
    return (" × ".join(map(str, box.size)), format_bytes(box.volume() * mag.spec.bytes_per_voxel))


def _box_in_mag(record: LayerRecord, mag: MagView) -> BoundingBox:
    """Return the layer's box in voxels of a mag."""
    return record.bounding_box.aligned_outwards(mag.mag.to_vec3_int()).in_mag(mag.mag)


def _on_disk(store: StoredMag, limit: _Limit) -> tuple[str, str]:
    """Return how many cubes there are, and the bytes that they take on the disk (holes take none)."""
    count = nbytes = 0
    for index in store.cubes_on_disk():
        if count >= limit.cubes or (count % 64 == 0 and time.monotonic() > limit.start + limit.seconds):
            number = f"{count:,}".replace(",", " ")
            return (f"more than {number} cubes", f"more than {format_bytes(nbytes)}")
        with contextlib.suppress(FileNotFoundError):  # removed since it was listed
            nbytes += os.stat(store.cube_path(index)).st_blocks * 512
            count += 1
    return ("1 cube" if count == 1 else f"{count} cubes", format_bytes(nbytes))


# --- texts --------------------------------------------------------------------------------------------


def _attempt(text: Callable[[], str]) -> str:
    """Return a text, or what keeps it from being known."""
    try:
        return text()
    except Exception as error:
        return _message(error)


def _message(error: Exception) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {_plain(str(error))}"


def _plain(text: str) -> str:
    """Return a text with what a terminal would obey, not show, escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _channels(count: int) -> str:
    return "" if count == 1 else f" × {count} channels"


def _cuboid(shape: Sequence[int]) -> str:
    """Return ``"32³"`` for equal sides, else ``"64 × 64 × 32"``."""
    return f"{shape[0]}³" if len(set(shape)) == 1 else " × ".join(map(str, shape))


def _box_text(box: BoundingBox, layer: Layer) -> str:
    """Return a layer's box in voxels of mag 1, and its physical size."""
    if box.is_empty():
        return "empty"
    sides = [size * count for size, count in zip(_nanometers(layer), box.size, strict=True)]
    return f"box {box} voxels of mag 1, {_lengths(sides, micrometers=True)}"


def _nanometers(layer: Layer) -> tuple[float, float, float]:
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


# --- layout -------------------------------------------------------------------------------------------


def _layer_lines(facts: _LayerFacts) -> list[str]:
    """Return a layer as a tree of its mags, their columns aligned."""
    rows = []
    for mag in facts.mags:
        words: tuple[str, ...] = ()
        if mag.cells:
            voxels, nbytes, cubes, chunks, compression, disk = mag.cells
            words = (
                f"{voxels} voxels",
                nbytes,
                cubes,
                f"chunks {chunks}",
                f"compression {compression}",
                f"{disk} on disk",
            )
        rows.append((f"mag {mag.name}", *words))
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = []
    for row, mag in zip(rows, facts.mags, strict=True):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        lines.append(["  ".join([*cells, *filter(None, (mag.error, mag.note))]).rstrip()])
    return _tree(facts.lines, lines)


def _tree(head: Sequence[str], children: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a node above those of its children, joined by box-drawing characters."""
    stem = "│  " if children else "   "
    lines = [head[0], *(stem + line for line in head[1:])]
    for number, (first, *rest) in enumerate(children):
        last = number == len(children) - 1
        lines.append(("└─ " if last else "├─ ") + first)
        lines += [("   " if last else "│  ") + line for line in rest]
    return lines


def _html_lines(lines: Iterable[str]) -> str:
    """Return lines as HTML, the first in bold."""
    first, *rest = map(escape, lines)
    return "<br>".join([f"<strong>{first}</strong>", *rest])


def _layer_table(facts: _LayerFacts) -> str:
    """Return a layer as HTML."""
    headings = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
    rows = []
    for mag in facts.mags:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in (*mag.cells, *filter(None, [mag.note])))
        if mag.error:
            cells = f"<td colspan='{len(_HEADINGS) - 1}' {_RED}>{escape(mag.error)}</td>"
        rows.append(f"<tr><th>{escape(mag.name)}</th>{cells}</tr>")
    table = f"<table {_TABLE}><tr>{headings}</tr>{''.join(rows)}</table>" if rows else ""
    return f"<div>{_html_lines(facts.lines)}{table}</div>"
