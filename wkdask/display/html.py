"""Datasets, layers and mags in a notebook: a tree that can be folded, without scripts.

The words are those of :mod:`.facts`. Every text goes through `escape`. Colours follow the theme of Jupyter where
there is one (its variables), else that of the page or of the system.
"""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from wkdask.display.facts import (
    HEADINGS,
    LayerFacts,
    OpenedLayer,
    box_in_mag,
    cuboid,
    dataset_facts,
    layer_facts,
    mag_rows,
    nanometers,
    open_layer,
    view_rows,
)
from wkdask.display.grid import grid_svg
from wkdask.display.thumbnail import (
    MAX_SECONDS,
    Request,
    Thumbnail,
    Thumbnails,
    is_wanted,
    request_of_layer,
)
from wkdask.geometry import BoundingBox
from wkdask.objects.reading import asking_once
from wkdask.properties.handle import Properties

if TYPE_CHECKING:
    from wkdask.dataset import Dataset
    from wkdask.layer import Layer
    from wkdask.mag_view import MagView
    from wkdask.properties.records import LayerRecord
    from wkdask.view import View

__all__ = ["dataset_html", "layer_html", "mag_html", "view_html"]

_UNFOLDED = 4
"""Layers of a dataset up to which all are shown unfolded."""

_LIGHT = (
    "--wk-soft:var(--jp-content-font-color2,#5f6671);--wk-line:var(--jp-border-color2,#d5d9df);"
    "--wk-face:#f4d5a8;--wk-shade:#e9bd83;--wk-edge:#8b4903;--wk-mark:#1769c4;--wk-bad:#b3261e"
)
_DARK = (
    "--wk-soft:var(--jp-content-font-color2,#a3abb8);--wk-line:var(--jp-border-color2,#454b55);"
    "--wk-face:#6b4520;--wk-shade:#4e3115;--wk-edge:#f0b36a;--wk-mark:#7fb8ff;--wk-bad:#ff8a80"
)
_DARK_PAGES = ("[data-jp-theme-light=false]", "[data-theme=dark]", "[theme=dark]", ".vscode-dark")
_LIGHT_PAGES = ("[data-jp-theme-light=true]", "[data-theme=light]", "[theme=light]", ".vscode-light")


def _themed(pages: Iterable[str]) -> str:
    return ",".join(f"{page} .wkdask" for page in pages)


_STYLE = f"""<style>
.wkdask{{{_LIGHT};color:var(--jp-content-font-color0,inherit);font-size:13px;line-height:1.45}}
@media (prefers-color-scheme:dark){{.wkdask{{{_DARK}}}}}
{_themed(_DARK_PAGES)}{{{_DARK}}}
{_themed(_LIGHT_PAGES)}{{{_LIGHT}}}
.wkdask .wk-soft{{color:var(--wk-soft)}}
.wkdask .wk-bad{{color:var(--wk-bad)}}
.wkdask details{{border-top:1px solid var(--wk-line);padding:2px 0}}
.wkdask summary{{cursor:pointer;display:list-item}}
.wkdask .wk-body{{display:flex;flex-wrap:wrap;gap:8px 28px;align-items:flex-start;padding:4px 0 8px 18px}}
.wkdask table{{border-collapse:collapse;margin:4px 0;border:none;font-size:inherit}}
.wkdask table th,.wkdask table td{{text-align:left;padding:1px 14px 1px 0;border:none;background:none}}
.wkdask table thead th{{color:var(--wk-soft);font-weight:normal;border-bottom:1px solid var(--wk-line)}}
.wkdask figure{{margin:0}}
.wkdask figcaption{{color:var(--wk-soft);font-size:11px}}
.wkdask img{{display:block;max-width:none;margin:0}}
.wkdask img.wk-ids{{image-rendering:pixelated}}
.wkdask svg{{overflow:visible}}
.wkdask svg path{{stroke:var(--wk-edge);stroke-width:1.2;stroke-linejoin:round;fill:var(--wk-face)}}
.wkdask svg path.wk-top,.wkdask svg path.wk-side{{fill:var(--wk-shade)}}
.wkdask svg path.wk-cuts{{fill:none;stroke-width:.6;opacity:.8}}
.wkdask svg path.wk-section{{fill:none;stroke:var(--wk-mark);stroke-width:1.6}}
.wkdask svg text{{fill:currentColor;font-size:11px}}
</style>"""


@asking_once()
def dataset_html(dataset: Dataset) -> str:
    """Return a dataset as HTML: its layers, which can be folded, with their mags, a picture and the grid of cubes.

    Parameters
    ----------
    dataset
        The dataset.
    """
    pictures = _Pictures()
    head, layers = dataset_facts(dataset, when_open=pictures.begin)
    pictures.end()
    name, *rest = map(escape, head)
    is_open = len(layers) <= _UNFOLDED
    body = "".join(_layer(layer, is_open, pictures) for layer in layers)
    kind = "<span class='wk-soft'>Dataset</span> "
    return _page(
        f"<div>{kind}<strong>{name}</strong></div><div class='wk-soft'>{'<br>'.join(rest)}</div>{body}"
    )


@asking_once()
def layer_html(layer: Layer) -> str:
    """Return a layer as HTML: a table of its mags, a picture and the grid of cubes.

    Parameters
    ----------
    layer
        The layer.
    """
    pictures = _Pictures()
    facts = layer_facts(layer, when_open=pictures.begin)
    pictures.end()
    return _page(_layer(facts, True, pictures))


@asking_once()
def mag_html(layer_record: LayerRecord, mag_view: MagView) -> str:
    """Return what is known of a mag as an HTML table, beside a picture of its layer and the grid of its cubes.

    Parameters
    ----------
    layer_record
        The layer, as the properties have it.
    mag_view
        The mag.
    """
    pictures = _Pictures()
    pictures.begin([open_layer(mag_view.layer)])
    rows = mag_rows(layer_record, mag_view)
    pictures.end()
    figures = pictures.of(mag_view.layer.name)
    with contextlib.suppress(Exception):  # the table says what is wrong
        figures += _grid(mag_view, box_in_mag(layer_record, mag_view), nanometers(mag_view.layer))
    return _page(_facts(rows, figures))


def view_html(view: View) -> str:
    """Return what is known of a part of a mag as an HTML table, beside its picture and the grid of its cubes.

    Parameters
    ----------
    view
        The part.
    """
    figures = ""
    box, place = view.box, view.place
    is_ids, voxel = False, (1.0, 1.0, 1.0)
    with contextlib.suppress(Exception):  # a view outlives its layer
        properties = Properties(place.dataset_path)
        is_ids = properties.layer(place.layer).is_segmentation
        voxel = properties.record.voxel_size.to_nanometer()
    if not box.is_empty():
        if is_wanted():
            sides = [length * step for length, step in zip(voxel, view.mag, strict=True)]
            request = Request(view, box, box.topleft.z + box.size.z // 2, is_ids, sides)
            figures = "".join(map(_picture, Thumbnails([request]).take(MAX_SECONDS)))
        with contextlib.suppress(Exception):
            figures += _grid(view, box, voxel)
    return _page(_facts(view_rows(view), figures))


# --- parts --------------------------------------------------------------------------------------------


class _Pictures:
    """The pictures of layers, drawn while the cubes are counted, in the same moment."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._names: list[str] = []
        self._thumbnails: Thumbnails | None = None
        self._done: list[Thumbnail | None] = []

    def begin(self, layers: Sequence[OpenedLayer]) -> None:
        """Let a thread draw them, unless no pictures are wanted."""
        self._started = time.monotonic()
        if is_wanted():
            self._names = [opened.layer.name for opened in layers]
            self._thumbnails = Thumbnails([_request(opened) for opened in layers])

    def end(self) -> None:
        """Wait for as much of the moment as is left."""
        if self._thumbnails is not None:
            self._done = self._thumbnails.take(self._started + MAX_SECONDS - time.monotonic())

    def of(self, layer_name: str) -> str:
        """Return the picture of a layer as HTML; empty where there is none."""
        found = dict(zip(self._names, self._done, strict=False)).get(layer_name)
        return _picture(found)


def _request(opened: OpenedLayer) -> Request | None:
    """Return what shows a layer."""
    record = opened.record
    if isinstance(record, Exception):
        return None
    with contextlib.suppress(Exception):  # a box that is none; it is said among the facts
        voxel = nanometers(opened.layer)
        return request_of_layer(opened.views(), record.bounding_box, record.is_segmentation, voxel)
    return None


def _layer(facts: LayerFacts, is_open: bool, pictures: _Pictures) -> str:
    """Return a layer that can be folded."""
    rest = facts.lines[1:]
    about = [facts.kind] if facts.kind else []
    about += [mag.cells[0] + " voxels" for mag in facts.mags[:1] if mag.cells]
    about += [f"{len(facts.mags)} mag{'s' * (len(facts.mags) != 1)}"] if facts.mags else []
    figures = ""
    if facts.views:
        figures = pictures.of(facts.views[0].layer.name)
        with contextlib.suppress(Exception):  # a box that is none
            view = facts.views[0]
            figures += _grid(view, box_in_mag(view.layer.record, view), nanometers(view.layer))
    lines = "".join(f"<div{'' if facts.kind else _BAD}>{escape(line)}</div>" for line in rest)
    name = escape(facts.name)
    summary = f"<strong>{name}</strong> <span class='wk-soft'>{escape(', '.join(about))}</span>"
    return (
        f"<details{' open' if is_open else ''}><summary>{summary}</summary>"
        f"<div class='wk-body'><div>{lines}{_mags(facts)}</div>{figures}</div></details>"
    )


_BAD = " class='wk-bad'"


def _mags(facts: LayerFacts) -> str:
    """Return the table of mags."""
    if not facts.mags:
        return ""
    shown = HEADINGS if any(mag.cells for mag in facts.mags) else HEADINGS[:1]
    headings = "".join(f"<th>{heading}</th>" for heading in shown)
    rows = []
    for mag in facts.mags:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in mag.cells)
        if mag.note:
            cells += f"<td class='wk-soft'>{escape(mag.note)}</td>"
        if mag.error:
            cells = f"<td colspan='{len(HEADINGS) - 1}'{_BAD}>{escape(mag.error)}</td>"
        rows.append(f"<tr><th>{escape(mag.name)}</th>{cells}</tr>")
    return f"<table><thead><tr>{headings}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _facts(rows: Iterable[tuple[str, str]], figures: str) -> str:
    """Return names and values beside pictures."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<div class='wk-body'><table><tbody>{cells}</tbody></table>{figures}</div>"


def _grid(view: View, box: BoundingBox, voxel_of_mag_1: Sequence[float]) -> str:
    """Return the drawing of the cubes of a mag in a box."""
    if box.is_empty():
        return ""
    voxel = [length * step for length, step in zip(voxel_of_mag_1, view.mag, strict=True)]
    spec = view.spec
    drawing = grid_svg(box, spec.shard_shape, voxel, section=0.5)
    counts = " × ".join(map(str, box.aligned_outwards(spec.shard_shape).size // spec.shard_shape))
    caption = f"mag {view.mag}: {counts} cubes of {cuboid(spec.shard_shape)}"
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def _picture(thumbnail: Thumbnail | None) -> str:
    """Return a picture that is part of the page; nothing for none."""
    if thumbnail is None:
        return ""
    data = base64.b64encode(thumbnail.png).decode("ascii")
    squares = " class='wk-ids'" if thumbnail.is_ids else ""
    caption = escape(thumbnail.caption)
    return (
        f"<figure><img{squares} width='{thumbnail.width}' height='{thumbnail.height}' alt='{caption}' "
        f"src='data:image/png;base64,{data}'><figcaption>{caption}</figcaption></figure>"
    )


def _page(body: str) -> str:
    """Return a repr with what it looks like."""
    return f"<div class='wkdask'>{_STYLE}{body}</div>"
