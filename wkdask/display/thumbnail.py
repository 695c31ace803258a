"""Small pictures of layers: a middle section, read within a moment, or no picture.

::

    layer -> coarsest mag that is large enough -> middle of its middle section, a few MiB -> pixels -> PNG
"""

from __future__ import annotations

import math
import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wkdask import settings
from wkdask.display.preview import Pixels, grey_or_rgb, id_colours
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import Voxels

if TYPE_CHECKING:
    from wkdask.view import View

__all__ = ["MAX_SECONDS", "Request", "Thumbnail", "Thumbnails", "is_wanted", "request_of_layer"]

MAX_SECONDS = 0.2
"""Seconds that all pictures of one repr may take."""
_SIDE = 160
"""Pixels along the longer side, at most."""
_ENOUGH = 64
"""Voxels along the longer side of a section that make a picture; of fewer a finer mag is shown."""
_MAX_NBYTES = 16 << 20
"""Bytes of decoded chunks that are read for one picture."""


@dataclass(frozen=True, slots=True)
class Request:
    """A picture that is asked for."""

    view: View
    """The mag."""
    box: BoundingBox
    """Whose middle section: absolute, in voxels of the mag."""
    z: int
    """Which section, in voxels of the mag."""
    is_ids: bool
    """Whether the voxels are ids of a segmentation."""
    voxel: Sequence[float]
    """Lengths of a voxel of the mag."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture."""

    png: bytes
    """The pixels."""
    width: int
    """On the screen: pixels are as wide and high as the voxels are."""
    height: int
    """On the screen."""
    caption: str
    """What is seen."""
    is_ids: bool
    """Whether pixels are to be shown as squares."""


def is_wanted() -> bool:
    """Return whether pictures are shown: the setting ``wkdask.thumbnails``."""
    return bool(settings.get("thumbnails"))


def request_of_layer(
    mags: Sequence[View], box: BoundingBox, is_ids: bool, voxel: Sequence[float]
) -> Request | None:
    """Return what shows a layer: the middle section of its coarsest mag that has enough voxels.

    Parameters
    ----------
    mags
        Its mags, finest first.
    box
        The layer's box, in voxels of mag 1.
    is_ids
        Whether it is a segmentation.
    voxel
        Lengths of a voxel of mag 1.

    Returns
    -------
    Request or None
        None where there is nothing to show.
    """
    if not mags or box.is_empty():
        return None
    z = box.topleft.z + box.size.z // 2
    for view in reversed(mags):
        own = box.aligned_outwards(view.mag.to_vec3_int()).in_mag(view.mag)
        if max(own.size.x, own.size.y) >= _ENOUGH or view is mags[0]:
            sides = [length * step for length, step in zip(voxel, view.mag, strict=True)]
            return Request(view, own, z // view.mag.z, is_ids, sides)
    return None


class Thumbnails:
    """Pictures that a thread draws while other things are done.

    Parameters
    ----------
    requests
        What is asked for; None for none.
    """

    def __init__(self, requests: Sequence[Request | None]) -> None:
        self._requests = requests
        self._done: list[Thumbnail | None] = [None] * len(requests)
        self._is_over = threading.Event()
        # A thread that reads a share which does not answer cannot be stopped: nobody waits for it, not at the end
        # of the process either.
        self._thread = threading.Thread(target=self._draw, name="wkdask-thumbnails", daemon=True)
        if any(request is not None for request in requests):
            self._thread.start()
        else:
            self._is_over.set()

    def _draw(self) -> None:
        for number, request in enumerate(self._requests):
            if self._is_over.is_set():
                return
            try:
                self._done[number] = None if request is None else draw(request)
            except Exception:  # what is wrong with the mag is said in its row
                continue

    def take(self, seconds: float) -> list[Thumbnail | None]:
        """Return what is done after so many seconds, None for what is not."""
        if not self._is_over.is_set():
            self._thread.join(max(seconds, 0))
            self._is_over.set()
        return list(self._done)


def draw(request: Request) -> Thumbnail | None:
    """Return a picture; None where not even a part of the section can be read cheaply.

    Parameters
    ----------
    request
        What is asked for.
    """
    store, spec = request.view.place.store, request.view.spec
    box = request.box
    plane = BoundingBox(box.topleft.with_z(request.z), box.size.with_z(1))
    part = _affordable(plane, spec.chunk_shape, spec.bytes_per_voxel)
    if part is None or part.is_empty():
        return None
    pixels = _pixels(store.read(part)[..., 0], request.is_ids)
    lengths = [n * step for n, step in zip(part.size, request.voxel, strict=True)][:2]
    width, height = (max(8, round(_SIDE * length / max(lengths))) for length in lengths)
    caption = f"mag {request.view.mag}, z = {request.z * request.view.mag.z}"
    if part != plane:
        caption += f", the middle {part.size.x} × {part.size.y}"
    return Thumbnail(_png(pixels), width, height, caption, request.is_ids)


def _affordable(plane: BoundingBox, chunk: Vec3Int, nbytes_per_voxel: int) -> BoundingBox | None:
    """Return as much of the middle of a plane as a few MiB of decoded chunks hold."""
    most = _MAX_NBYTES // (chunk.prod() * nbytes_per_voxel)
    if most < 1:
        return None
    middle = plane.topleft + plane.size // 2
    side = max(plane.size.x, plane.size.y)
    while True:
        half = Vec3Int(min(side, plane.size.x), min(side, plane.size.y), 1) // 2
        corner = (middle - half).pairmax(plane.topleft).with_z(plane.topleft.z)
        part = BoundingBox(corner, Vec3Int(side, side, 1)).intersection(plane)
        if (part.aligned_outwards(chunk).size // chunk).prod() <= most:
            return part
        if side <= 2:
            return None
        side = 3 * side // 4


def _pixels(section: Voxels, is_ids: bool) -> Pixels:
    """Return a section ``(c, x, y)`` as pixels ``(y, x, 3)``, with as many voxels to a pixel as are needed."""
    stride = math.ceil(max(section.shape[1:]) / _SIDE)
    if is_ids:
        return id_colours(section[0, ::stride, ::stride])
    x, y = (n // stride * stride for n in section.shape[1:])
    if not (x and y):  # thinner than a pixel
        section = section[:, ::stride, ::stride]
    elif stride > 1:  # the mean of the voxels of a pixel: single ones of an electron micrograph are noise
        tiles = section[:, :x, :y].reshape(-1, x // stride, stride, y // stride, stride)
        with np.errstate(all="ignore"):
            section = tiles.mean(axis=(2, 4)).astype(section.dtype)
    return grey_or_rgb(section)


def _png(pixels: Pixels) -> bytes:
    """Return pixels as a PNG, which takes less time than to import what is made for that."""
    is_grey = bool((pixels == pixels[..., :1]).all())
    rows = pixels[..., 0] if is_grey else pixels.reshape(len(pixels), -1)
    data = np.zeros((len(rows), rows.shape[1] + 1), np.uint8)  # each row begins with its filter: none
    data[:, 1:] = rows
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if is_grey else 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(data.tobytes(), 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )
