"""The histogram of a layer, from the mag that suffices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox, as_box
from wkdask.mag_view import MagView
from wkdask.operations.histogram import Histogram
from wkdask.progress.bar import ProgressLike

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.layer.layer import Layer

__all__ = ["histogram"]

_ENOUGH = 1 << 20
"""Voxels of a mag that suffice: a value that one in a thousand voxels has is then met a thousand times."""


def histogram(
    self: Layer,
    bins: int = 256,
    *,
    value_range: Sequence[float] | None = None,
    bounding_box: BoundingBox | None = None,
    exact: bool = False,
    client: Client | None = None,
    progress: ProgressLike = None,
) -> Histogram:
    """Count how often values occur, in the coarsest mag that suffices, which the result names.

    Coarser mags of an image are averages: their histogram is narrower than that of the finest, and so are its ends.

    Parameters
    ----------
    bins, value_range, client, progress
        As for :meth:`MagView.histogram`.
    bounding_box
        What is counted, in voxels of mag 1, aligned outwards to the mag; the layer's box by default.
    exact
        Count all voxels of the finest mag, as a job. By default the coarsest mag that has a million voxels in the
        box is looked at, the finest where none has: a sample of it, if it is large.

    Returns
    -------
    Histogram
        Its ``mag`` is the one that was counted.

    Raises
    ------
    InvalidValueError
        If the layer has no mags, or as for :meth:`MagView.histogram`.

    Examples
    --------
    >>> found = layer.histogram(exact=True)
    >>> found.mag, found.minimum, found.maximum
    (Mag(1), 0, 126)
    """
    if not self.record.mags:
        raise InvalidValueError(f"layer {self.name!r} has no mags")
    whole = self.record.bounding_box if bounding_box is None else as_box(bounding_box)
    parts = {mag: whole.aligned_outwards(mag.to_vec3_int()) for mag in self.mags}  # finest first
    enough = [mag for mag, part in parts.items() if part.in_mag(mag).volume() >= _ENOUGH]
    chosen = next(iter(parts)) if exact or not enough else enough[-1]
    mag: MagView = self.mags[chosen]
    return mag.histogram(
        bins,
        value_range=value_range,
        bounding_box=parts[chosen],
        exact=exact,
        client=client,
        progress=progress,
    )
