"""Pictures: a section of a layer as pixels, the layers of a dataset side by side in one PNG.

::

    layer, z -> mag whose section fits -> strided section, read tile by tile -> colours -> panel -> PNG
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from wkdask.errors import CategoryError, InvalidValueError, OutOfBoundsError, WkdaskWarning
from wkdask.fsio import atomic_write, checked_path
from wkdask.geometry import BoundingBox, Mag, MagLike, as_box

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from wkdask.dataset import Dataset
    from wkdask.layer import Layer
    from wkdask.mag_view import MagView
    from wkdask.storage.protocol import Voxels

__all__ = ["Picture", "draw_sheet", "preview", "save_preview"]

Pixels = npt.NDArray[np.uint8]
_TILE = 1024
"""Voxels along x and y that are read at once."""
_MIN_SIDE = 512
"""Pixels of a panel's longer side, at least: smaller sections are enlarged."""
# OKLab to sRGB (Björn Ottosson): steps of the same size look alike, so that no id shouts.
_LAB_TO_CONES = np.array(
    [(1, 0.39633778, 0.21580376), (1, -0.10556135, -0.06385417), (1, -0.08948418, -1.29148555)]
)
_CONES_TO_RGB = np.array(
    [(4.0767417, -3.3077116, 0.2309699), (-1.268438, 2.6097574, -0.3413194), (-0.0041961, -0.7034186, 1.7076147)]
)  # fmt: skip
_BACKGROUND, _WHITE, _GREY = "#181a1f", "white", "#9ea4ae"
_MARGIN = 28


class Picture(np.ndarray[Any, np.dtype[np.uint8]]):
    """Pixels ``(rows, columns, 3)``: an array that a notebook shows as the picture that it is."""

    def _repr_png_(self) -> bytes | None:
        """Return it as a PNG; None for what was cut out of it and is no picture any more."""
        if self.ndim != 3 or self.shape[2] != 3 or self.dtype != np.uint8 or 0 in self.shape:
            return None
        from io import BytesIO

        from PIL import Image

        data = BytesIO()
        Image.fromarray(np.asarray(self)).save(data, "PNG")
        return data.getvalue()


def preview(
    layer_or_mag_view: Layer | MagView,
    z: int | None = None,
    *,
    max_side: int = 1024,
    bounding_box: BoundingBox | None = None,
    mag: MagLike | None = None,
    overlay: Layer | None = None,
    alpha: float = 0.4,
) -> Picture:
    """Return a section of a layer in the plane of x and y, as a picture that a notebook shows.

    Parameters
    ----------
    layer_or_mag_view
        A layer: the finest mag whose section fits into `max_side` is read, or the coarsest there is. Or
        the mag to be read.
    z
        Which section, in voxels of mag 1, absolute; the middle of the layer's box by default.
    max_side
        Pixels along the longer side, at most; of a larger section every n-th voxel is taken.
    bounding_box
        What is shown of the layer: absolute, in voxels of mag 1; its middle section, if `z` is not given.
    mag
        The mag to be read of a layer.
    overlay
        A segmentation whose ids are laid over it in their colours, where they are not 0; of any mags and box.
    alpha
        How much of those colours is seen, from 0 to 1.

    Returns
    -------
    Picture
        A numpy array, uint8, ``(rows, columns, 3)``: rows are y, columns are x, one pixel per voxel taken. Images
        of uint8 as they are, three channels as red, green, blue, of other numbers of channels the first. Others
        are stretched between the 1st and the 99th percentile of the section. Each id of a segmentation
        has a colour that depends on nothing else; 0 is black.

    Raises
    ------
    InvalidValueError
        If the layer is empty or has no mag, or `max_side` is not positive.
    OutOfBoundsError
        If `z`, or all of `bounding_box`, is outside of the layer's box.
    CategoryError
        If `overlay` is no segmentation.

    Examples
    --------
    >>> preview(ds.get_layer("color"), overlay=ds.get_layer("cells")).shape
    (64, 64, 3)
    """
    if hasattr(layer_or_mag_view, "get_mag"):
        layer = cast("Layer", layer_or_mag_view)
        view = None if mag is None else layer.get_mag(mag)
    else:
        view = layer_or_mag_view
        layer = view.layer
        if mag is not None and view.mag != Mag(mag):
            raise InvalidValueError(
                f"{view.place.label} is given, and mag={mag!r}: give the layer for another mag"
            )
    section = _section(layer, z, max_side, view, None if bounding_box is None else as_box(bounding_box))
    pixels = section.pixels
    if overlay is not None:
        pixels = _overlaid(section, overlay, alpha)
    return pixels.view(Picture)


def _overlaid(section: _Section, overlay: Layer, alpha: float) -> Pixels:
    """Return a section with the ids of a segmentation in colours over it."""
    if overlay.category != "segmentation":
        raise CategoryError(f"layer {overlay.name!r} is no segmentation: only ids can be laid over a layer")
    if not 0 <= alpha <= 1:
        raise InvalidValueError(f"alpha is a share from 0 to 1, got {alpha}")
    rows, columns, _ = section.pixels.shape
    step = section.mag.mag.to_vec3_int() * section.stride
    corner = section.plane.topleft * section.mag.mag.to_vec3_int()
    mags = sorted(
        (record.mag for record in overlay.record.mags), key=lambda mag: (mag.max_dim, mag.to_tuple())
    )
    if not mags:
        raise InvalidValueError(f"layer {overlay.name!r} has no mag: there is nothing to show")
    # The coarsest whose voxels are not larger than a pixel, or the finest there is.
    fine = [mag for mag in mags if mag.x <= step.x and mag.y <= step.y] or mags[:1]
    view = overlay.get_mag(fine[-1])
    x = (corner.x + np.arange(columns) * step.x + step.x // 2) // view.mag.x
    y = (corner.y + np.arange(rows) * step.y + step.y // 2) // view.mag.y
    plane = BoundingBox(
        (int(x[0]), int(y[0]), section.z // view.mag.z), (int(x[-1] - x[0]) + 1, int(y[-1] - y[0]) + 1, 1)
    )
    stride = max(1, min(step.x // view.mag.x, step.y // view.mag.y))
    read = _read_strided(view, plane, stride)[0]
    column = ((x - x[0]) // stride).clip(max=read.shape[0] - 1)
    row = ((y - y[0]) // stride).clip(max=read.shape[1] - 1)
    ids = read[column][:, row]
    mixed = np.rint((1 - alpha) * section.pixels + alpha * id_colours(ids)).astype(np.uint8)
    return np.where((ids.T != 0)[..., None], mixed, section.pixels)


def save_preview(
    dataset: Dataset,
    path: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    z: int | None = None,
    max_side: int = 1024,
) -> str:
    """Save a PNG with a section of each layer, with captions and scale bars.

    A pixel spans as many nm along x as along y.

    Parameters
    ----------
    dataset
        The dataset.
    path
        Of the PNG; replaced if it exists.
    layers
        Names of layers, in order. By default all; the panel of one that cannot be shown says why.
    z
        Which section, in voxels of mag 1, absolute; the middle of each layer's box by default.
    max_side
        Pixels along the longer side of a panel, at most.

    Returns
    -------
    str
        The absolute path of the PNG.

    Raises
    ------
    InvalidValueError
        If there is nothing to show, or `path` does not end in ``.png``.
    LayerNotFoundError
        If there is no layer of such a name.

    Warns
    -----
    WkdaskWarning
        For each layer that cannot be shown, with the reason.
    """
    target, hidden = draw_sheet(dataset, path, layers=layers, z=z, max_side=max_side)
    for name, error in hidden.items():
        warnings.warn(f"layer {name!r} is not shown: {error}", WkdaskWarning, stacklevel=2)
    return target


def draw_sheet(
    dataset: Dataset,
    path: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    z: int | None = None,
    max_side: int = 1024,
) -> tuple[str, dict[str, Exception]]:
    """Save a PNG as `save_preview` does; return its path, and why layers are not shown.

    Parameters
    ----------
    dataset, path, layers, z, max_side
        As there.
    """
    target = checked_path(path)
    if not target.lower().endswith(".png"):
        raise InvalidValueError(f"a preview is a PNG; name it so, got {target}")
    chosen = list(dataset.layers.values()) if layers is None else [dataset.get_layer(name) for name in layers]
    panels: list[_Panel] = []
    hidden: dict[str, Exception] = {}
    for layer in chosen:
        try:
            panels.append(_panel_of(layer, z, max_side, dataset.scale))
        except Exception as error:
            if layers is not None:
                raise
            hidden[layer.name] = error
            panels.append(_Panel(layer.name, str(error), None, 1.0))
    if all(panel.image is None for panel in panels):
        first = next(iter(hidden.values()), None)
        raise InvalidValueError(f"{dataset.path}: no layer to show ({first or 'there is none'})") from first
    from io import BytesIO

    data = BytesIO()
    _sheet(panels).save(data, "PNG", optimize=True)
    atomic_write(target, data.getvalue())
    return target, hidden


# --- sections -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Section:
    """A section as pixels, and where it was taken."""

    pixels: Pixels
    mag: MagView
    z: int
    """In voxels of mag 1."""
    stride: int
    """Voxels of the mag from one pixel to the next."""
    plane: BoundingBox
    """What was read: absolute, in voxels of the mag."""


def _section(
    layer: Layer,
    z: int | None,
    max_side: int,
    mag: MagView | None = None,
    part: BoundingBox | None = None,
) -> _Section:
    """Read a section, or what of it lies in a part of the layer (in voxels of mag 1), and colour it."""
    if max_side < 1:
        raise InvalidValueError(f"max_side must be positive, got {max_side}")
    box = layer.record.bounding_box
    if box.is_empty():
        raise InvalidValueError(f"layer {layer.name!r} is empty: there is nothing to show")
    if part is not None:
        if box.intersection(part).is_empty():
            raise OutOfBoundsError(
                f"layer {layer.name!r} has nothing in {part}; its box is {box} (voxels of mag 1)"
            )
        box = box.intersection(part)
    if z is None:
        z = box.topleft.z + box.size.z // 2
    if not box.topleft.z <= z < box.bottomright.z:
        raise OutOfBoundsError(
            f"layer {layer.name!r} has no section z = {z}; its box goes from {box.topleft.z} to "
            f"{box.bottomright.z - 1} (voxels of mag 1)"
        )
    mag = _fitting_mag(layer, max_side, box) if mag is None else mag
    own = box.aligned_outwards(mag.mag.to_vec3_int()).in_mag(mag.mag)
    stride = math.ceil(max(own.size.x, own.size.y) / max_side)
    plane = BoundingBox(own.topleft.with_z(z // mag.mag.z), own.size.with_z(1))
    values = _read_strided(mag, plane, stride)
    if layer.category == "segmentation":
        return _Section(id_colours(values[0]), mag, z, stride, plane)
    return _Section(grey_or_rgb(values), mag, z, stride, plane)


def _fitting_mag(layer: Layer, max_side: int, box: BoundingBox) -> MagView:
    """Return the finest mag in which a section of a box fits, or the coarsest."""
    mags = sorted((record.mag for record in layer.record.mags), key=lambda mag: (mag.max_dim, mag.to_tuple()))
    if not mags:
        raise InvalidValueError(f"layer {layer.name!r} has no mag: there is nothing to show")
    for mag in mags:
        size = box.aligned_outwards(mag.to_vec3_int()).in_mag(mag).size
        if max(size.x, size.y) <= max_side:
            return layer.get_mag(mag)
    return layer.get_mag(mags[-1])


def _read_strided(mag: MagView, plane: BoundingBox, stride: int) -> Voxels:
    """Return every n-th voxel of a plane as ``(c, x, y)``; no more than a tile is in memory besides."""
    counts = plane.size.ceildiv(stride)
    out = np.zeros((mag.num_channels, counts.x, counts.y), dtype=mag.get_dtype())
    tile = (_TILE, _TILE, 1)
    for piece in plane.chunk(tile, tile):
        block = mag.read(offset=piece.topleft, size=piece.size)[..., 0]
        start = piece.topleft - plane.topleft
        first = start.ceildiv(stride)
        skip = first * stride - start
        part = block[:, skip.x :: stride, skip.y :: stride]
        out[:, first.x : first.x + part.shape[1], first.y : first.y + part.shape[2]] = part
    return out


def grey_or_rgb(values: Voxels) -> Pixels:
    """Return ``(c, x, y)`` as pixels ``(y, x, 3)``."""
    channels = values if len(values) == 3 else np.repeat(values[:1], 3, axis=0)
    if channels.dtype != np.uint8:
        channels = _stretched(channels)
    return np.ascontiguousarray(channels.transpose(2, 1, 0))


def _stretched(values: Voxels) -> Pixels:
    """Return values of any type between their 1st and 99th percentile as 0 to 255; what is no number as 0."""
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    if finite.size == 0:
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(finite, (1, 99))
    if low == high:
        low, high = finite.min(), finite.max()
    if low == high:  # one value: grey, or black for zeros
        return np.full(values.shape, 128 if low else 0, np.uint8)
    numbers = np.nan_to_num(numbers, nan=low, posinf=high, neginf=low).clip(low, high)
    # Halved, so that the difference of the largest numbers is still one.
    scaled = (numbers / 2 - low / 2) / (high / 2 - low / 2)
    return np.asarray(np.rint(255 * scaled), np.uint8)


def id_colours(ids: Voxels) -> Pixels:
    """Return ids ``(x, y)`` as pixels ``(y, x, 3)``: lightness, chroma and hue, in OKLab, from a hash."""
    if ids.dtype.kind == "f":
        ids = ids.astype(np.float64).view(np.uint64)
    known, places = np.unique(ids.T, return_inverse=True)
    mixed = known.astype(np.uint64)
    for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):  # splitmix64: every bit of the id counts
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    first, second, third = (
        ((mixed >> np.uint64(shift)) & np.uint64(0xFFFF)) / 0xFFFF for shift in (48, 32, 16)
    )
    light, chroma, hue = 0.57 + 0.29 * first, 0.07 + 0.08 * second, 2 * np.pi * third
    lab = np.stack([light, chroma * np.cos(hue), chroma * np.sin(hue)])
    linear = (_CONES_TO_RGB @ (_LAB_TO_CONES @ lab) ** 3).clip(0, 1).T
    gamma = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours = np.rint(255 * gamma).astype(np.uint8)
    colours[known == 0] = 0
    return np.ascontiguousarray(colours[places.reshape(ids.T.shape)])


# --- the sheet ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Panel:
    """What the sheet shows of a layer."""

    title: str
    caption: str
    image: Image | None
    """None where there is a reason for that in the caption."""
    nm_per_pixel: float


def _panel_of(layer: Layer, z: int | None, max_side: int, voxel_size: Sequence[float]) -> _Panel:
    """Return a section scaled so that a pixel spans as many nm along x as along y."""
    from PIL import Image

    section = _section(layer, z, max_side)
    mag = section.mag
    sizes = [size * step for size, step in zip(voxel_size, mag.mag, strict=True)]
    rows, columns, _ = section.pixels.shape
    width, height = columns * section.stride * sizes[0], rows * section.stride * sizes[1]
    finest = min(sizes[:2]) * section.stride
    side = min(max(max(width, height) / finest, min(_MIN_SIDE, max_side)), max_side)
    nm_per_pixel = max(width, height) / side
    shape = (max(1, round(width / nm_per_pixel)), max(1, round(height / nm_per_pixel)))
    image = Image.fromarray(section.pixels)
    if shape != image.size:
        smooth = layer.category == "color"
        image = image.resize(shape, Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST)
    voxel = " x ".join(f"{size:.4g}" for size in sizes)
    caption = f"{mag.get_dtype()} · mag {mag.mag} · z = {section.z} · voxels {voxel} nm"  # the font has no ×
    return _Panel(layer.name, caption, image, nm_per_pixel)


def _sheet(panels: Sequence[_Panel]) -> Image:
    """Return all panels in a grid, on a dark ground."""
    from PIL import Image, ImageDraw, ImageFont

    images = [panel.image for panel in panels if panel.image is not None]
    width = max(360, *(image.width for image in images))
    height = max(image.height for image in images)
    columns = len(panels) if len(panels) <= 3 else math.ceil(math.sqrt(len(panels)))
    big, small = max(20, width // 32), max(13, width // 50)
    above, below = round(2.9 * big), round(2.6 * small)
    cell = (width + _MARGIN, above + height + below)
    size = (columns * cell[0] + _MARGIN, math.ceil(len(panels) / columns) * cell[1] + _MARGIN // 2)
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    fonts = [ImageFont.load_default(size=size) for size in (big, small)]
    for number, panel in enumerate(panels):
        left, top = _MARGIN + number % columns * cell[0], number // columns * cell[1]
        baseline = top + above - 0.6 * big
        _text(draw, (left, baseline - 1.5 * small), panel.title, fonts[0], _WHITE, width)
        _text(draw, (left, baseline), panel.caption, fonts[1], _GREY, width)
        if panel.image is not None:
            sheet.paste(panel.image, (left, top + above))
            place = (left, top + above + panel.image.height + round(0.6 * small))
            _scale_bar(draw, place, panel.image.width, panel.nm_per_pixel, fonts[1])
    return sheet


def _text(draw: ImageDraw, xy: tuple[float, float], text: str, font: Any, colour: str, width: int) -> None:
    """Write a line on its baseline, cut where it would leave its panel."""
    line = " ".join(text.split())
    while draw.textlength(line, font=font) > width and len(line) > 1:
        line = line[:-2].rstrip() + "…"
    draw.text(xy, line, font=font, fill=colour, anchor="ls")


def _scale_bar(draw: ImageDraw, place: tuple[int, int], width: int, nm_per_pixel: float, font: Any) -> None:
    """Draw a bar of a round length, at most a quarter of the panel, with its length beside it."""
    nm = _round_length(width * nm_per_pixel / 4)
    pixels = max(1, round(nm / nm_per_pixel))
    size = font.size
    left, right, base = place[0], place[0] + pixels, place[1] + round(0.85 * size)
    draw.rectangle((left, base - round(0.45 * size), right - 1, base - round(0.2 * size)), fill=_WHITE)
    number, unit = (nm, "nm") if nm < 1e3 else (nm / 1e3, "µm") if nm < 1e6 else (nm / 1e6, "mm")
    start = right + round(0.6 * size)
    draw.text((start, base), f"{number:g} {unit.replace('µ', 'u')}", font=font, fill=_WHITE, anchor="ls")
    if unit == "µm":  # the font that comes with pillow has no µ: it is a u with a longer stem
        left = start + draw.textlength(f"{number:g} ", font=font) + 0.08 * size
        stem = max(1, round(size / 11))
        draw.rectangle((left, base - 0.3 * size, left + stem - 1, base + 0.2 * size), fill=_WHITE)


def _round_length(limit: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that is not above a limit."""
    power = 10.0 ** math.floor(math.log10(limit))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= limit * (1 + 1e-9))
