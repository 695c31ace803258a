"""The histogram of a view, or of a mag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wkdask.geometry import BoundingBox
from wkdask.operations.histogram import Histogram, histogram_of
from wkdask.progress.bar import ProgressLike, listeners_for
from wkdask.storage.publish.dead_jobs import warn_if_half_replaced

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.view.box_view import BoxView

__all__ = ["histogram"]


def histogram(
    self: BoxView,
    bins: int = 256,
    *,
    value_range: Sequence[float] | None = None,
    bounding_box: BoundingBox | None = None,
    exact: bool = False,
    client: Client | None = None,
    progress: ProgressLike = None,
) -> Histogram:
    """Count how often values occur: in a sample, which takes moments however large it is, or in all voxels.

    Parameters
    ----------
    bins
        How many bins there are at most. Those of integers are as many whole values each.
    value_range
        The least and the largest value that is counted. By default all values of a type of 8 bits, so that each
        of 256 bins is a value, and of other types the smallest and the largest finite value that is met.
    bounding_box
        What is counted: absolute, in voxels of mag 1; all by default.
    exact
        Count all voxels, as a job over the cubes, in bounded memory. By default up to 256 boxes of 64³ voxels are
        looked at, spread evenly: these are all voxels of a small mag.
    client
        The cluster that the job runs on; the active one by default. A sample is read by this process.
    progress
        Of the job, as in :meth:`write`.

    Returns
    -------
    Histogram
        Counts and edges, how many voxels were looked at, and the smallest and the largest value.

    Raises
    ------
    InvalidValueError
        If there are no bins, or no values between the ends of the range.
    DamagedCubeError, TaskFailedError
        If a cube exists but cannot be read.

    Examples
    --------
    >>> found = mag.histogram(4)
    >>> found.counts, found.edges
    (array([66560, 64512,     0,     0]), array([  0,  64, 128, 192, 256]))
    >>> mag.histogram(exact=True).is_exact
    True
    """
    box = self.box if bounding_box is None else self.box_to_read(None, None, bounding_box)
    warn_if_half_replaced(self.place.store.path)
    return histogram_of(
        self.place, box, bins=bins, value_range=value_range, exact=exact, client=client,
        listeners=listeners_for(progress) if exact else (),
    )  # fmt: skip
