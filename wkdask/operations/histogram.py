"""How often values occur in a box of a mag: of a sample of it, or of all voxels as a job.

::

    a sample     up to 256 boxes of 64³ voxels, spread evenly       threads of this process
    exact        the cubes that exist, unit by unit                 the engine of a job
                 what is not stored counts as zeros, unread

A type of 8 or 16 bits is counted by value, in one pass. Another one needs the smallest and the largest voxel before
there are bins: where the caller does not say them, all is read twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.geometry.grid import CubeGrid
from wkdask.jobs.engines.choice import pick_engine
from wkdask.jobs.events import Event, Listener, UnitDone
from wkdask.jobs.job import MagPlace
from wkdask.jobs.tasks import UnitReport
from wkdask.jobs.unwritten import run_unwritten
from wkdask.jobs.windows import listed_windows, task_name
from wkdask.operations.existing import plan_existing
from wkdask.portable import cores
from wkdask.storage.protocol import MagReader, Voxels

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Histogram", "histogram_of"]

_SAMPLES = 256
"""Boxes of a sample, at most."""
_SAMPLE = Vec3Int(64, 64, 64)
"""Sides of one of them: some chunks, whatever their shape."""
_PART = CubeGrid(Vec3Int(256, 256, 256))
"""What is in memory at a time, of a unit: 16 MiB of uint8."""


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often values occur.

    Examples
    --------
    >>> found = mag.histogram()
    >>> found.counts[62:65], found.edges[62:65]
    (array([2016, 2048, 2016]), array([62, 63, 64]))
    >>> found.minimum, found.maximum, found.voxels == found.total == 64 * 64 * 32
    (0, 126, True)
    >>> found
    Histogram of layer 'color' mag 1: 131072 of 131072 voxels, 256 bins, 0 to 126
    """

    label: str
    """The layer and the mag that was counted."""
    mag: Mag
    """The mag that was counted."""
    bounding_box: BoundingBox
    """Where: absolute, in voxels of mag 1."""
    counts: np.ndarray[Any, np.dtype[np.int64]]
    """How often values of each bin occur, all channels together."""
    edges: np.ndarray[Any, Any]
    """Where bins begin, and where the last one ends: one more than counts. A bin has its lower edge, and not its
    upper one; only of floats the last bin has both, as in `numpy.histogram`."""
    voxels: int
    """How many voxels were looked at, those of all channels."""
    total: int
    """How many there are in the box."""
    minimum: int | float | None
    """The smallest finite value that was met; None if there was none."""
    maximum: int | float | None
    """The largest one."""
    left_out: int
    """How many voxels that were looked at are in no bin: NaN, infinite, or outside of `value_range`."""

    @property
    def is_exact(self) -> bool:
        """Whether all voxels of the box were looked at."""
        return self.voxels == self.total

    def __repr__(self) -> str:
        found = "no finite value" if self.minimum is None else f"{self.minimum:g} to {self.maximum:g}"
        return f"Histogram of {self.label}: {self.voxels} of {self.total} voxels, {len(self.counts)} bins, {found}"


class _Tally(Protocol):
    """What is known of some voxels; crosses the wire."""

    def add(self, block: Voxels) -> None:
        """Take in the voxels of a block."""

    def add_zeros(self, number: int) -> None:
        """Take in voxels that are not stored."""

    def merge(self, other: Self) -> None:
        """Take in what another one has."""


class _Values:
    """Voxels of a type of 8 or 16 bits by value."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.least = int(np.iinfo(dtype).min)
        self.counts = np.zeros(1 << 8 * dtype.itemsize, np.int64)

    def add(self, block: Voxels) -> None:
        from wkdask.kernels import count_values

        self.counts += count_values(block)

    def add_zeros(self, number: int) -> None:
        self.counts[-self.least] += number

    def merge(self, other: _Values) -> None:
        self.counts += other.counts

    @property
    def range(self) -> tuple[int, int] | None:
        """The smallest and the largest value."""
        there = np.flatnonzero(self.counts)
        return (int(there[0]) + self.least, int(there[-1]) + self.least) if there.size else None

    def in_bins(self, bins: _Bins) -> np.ndarray[Any, Any]:
        """Return the counts of bins."""
        counts = np.zeros(bins.number, np.int64)
        values = np.arange(int(bins.low), int(bins.high) + 1)
        values = values[(values >= self.least) & (values < self.least + len(self.counts))]
        np.add.at(counts, (values - int(bins.low)) // bins.width, self.counts[values - self.least])
        return counts


class _Extent:
    """The smallest and the largest finite voxel."""

    def __init__(self) -> None:
        self.range: tuple[int | float, int | float] | None = None

    def add(self, block: Voxels) -> None:
        from wkdask.kernels import finite_range

        self._extend(finite_range(block))

    def add_zeros(self, number: int) -> None:
        if number:
            self._extend((0, 0))

    def merge(self, other: _Extent) -> None:
        self._extend(other.range)

    def _extend(self, found: tuple[int | float, int | float] | None) -> None:
        if found is not None:
            low, high = self.range or found
            self.range = (min(low, found[0]), max(high, found[1]))


@dataclass(frozen=True, slots=True)
class _Bins:
    """Bins of one width."""

    low: int | float
    """The least value."""
    high: int | float
    """The largest value."""
    number: int
    """How many bins there are."""
    width: int
    """Values of a bin of integers; 0 of floats."""

    @classmethod
    def of(cls, dtype: np.dtype[Any], low: int | float, high: int | float, most: int) -> _Bins:
        """Return at most so many bins; of integers each has as many whole values."""
        if dtype.kind == "f":
            return cls(float(low), float(high), most, 0)
        low, high = int(low), int(high)
        width = -(-(high - low + 1) // most)
        number = -(-(high - low + 1) // width)
        return cls(low, high, number, width)

    @property
    def edges(self) -> np.ndarray[Any, Any]:
        """Where they begin, and where the last one ends."""
        if not self.width:
            return np.histogram_bin_edges([], self.number, (self.low, self.high))
        edges = [int(self.low) + self.width * number for number in range(self.number + 1)]
        fits = edges[-1] < 1 << 63
        return np.array(edges, np.int64 if fits else np.float64)


class _Binned:
    """Voxels of other types in bins."""

    def __init__(self, bins: _Bins) -> None:
        self.bins, self.extent = bins, _Extent()
        self.counts = np.zeros(bins.number, np.int64)

    def add(self, block: Voxels) -> None:
        from wkdask.kernels import count_bins

        bins = self.bins
        self.extent.add(block)
        self.counts += count_bins(block, bins.low, bins.high, bins.number, bins.width)

    def add_zeros(self, number: int) -> None:
        if number:
            one = _Binned(self.bins)
            one.add(np.zeros((1, 1, 1, 1), np.int64 if self.bins.width else np.float64))
            self.counts += one.counts * number
            self.extent.merge(one.extent)

    def merge(self, other: _Binned) -> None:
        self.counts += other.counts
        self.extent.merge(other.extent)


Make = Callable[[], Any]
"""Makes an empty tally."""


def histogram_of(
    place: MagPlace,
    box: BoundingBox,
    *,
    bins: int = 256,
    value_range: Sequence[float] | None = None,
    exact: bool = False,
    client: Client | None = None,
    listeners: Sequence[Listener] = (),
) -> Histogram:
    """Count the voxels of a box by their values.

    Parameters
    ----------
    place
        The mag.
    box
        What is counted: absolute, in voxels of the mag.
    bins
        How many bins there are at most.
    value_range
        The least and the largest value that is counted: by default all values of a type of 8 bits, and of others
        the smallest and the largest that are met.
    exact
        Count all voxels, as a job; otherwise a sample where there are many.
    client, listeners
        Where the job runs, and who hears of it.

    Raises
    ------
    InvalidValueError
        If there are no bins, or no values between the ends of the range.
    TaskFailedError
        If a task of the job failed, as where a cube is damaged.
    """
    dtype = np.dtype(place.store.spec.dtype)
    given = _checked(dtype, bins, value_range)
    voxels = box.volume() * place.store.spec.num_channels
    if exact:
        over = partial(_over_cubes, place, box, client=client, listeners=listeners)
        counted = voxels
    else:
        boxes = _sample_of(box)
        over = partial(_over_sample, place.store, boxes)
        counted = sum(part.volume() for part in boxes) * place.store.spec.num_channels
    if dtype.kind in "ui" and dtype.itemsize <= 2:
        values: _Values = over(partial(_Values, dtype))
        found: tuple[int | float, int | float] | None = values.range
        usual = (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) if dtype.itemsize == 1 else found
        low, high = given or usual or (0, 0)
        chosen = _Bins.of(dtype, low, high, bins)
        counts = values.in_bins(chosen)
    else:
        low, high = given or over(_Extent).range or (0, 0)
        chosen = _Bins.of(dtype, low, high, bins)
        binned: _Binned = over(partial(_Binned, chosen))
        counts, found = binned.counts, binned.extent.range
    minimum, maximum = found or (None, None)
    left_out = counted - int(counts.sum())
    return Histogram(
        place.label, place.mag, box.from_mag_to_mag1(place.mag), counts, chosen.edges, counted, voxels, minimum,
        maximum, left_out,
    )  # fmt: skip


def _checked(
    dtype: np.dtype[Any], bins: int, value_range: Sequence[float] | None
) -> tuple[int | float, int | float] | None:
    """Return the range that is counted, if the caller says one; refuse what makes no bins."""
    if isinstance(bins, bool) or not isinstance(bins, int | np.integer) or not 1 <= bins <= 1 << 20:
        raise InvalidValueError(f"a histogram has from 1 to {1 << 20} bins, got {bins!r}")
    if value_range is None:
        return None
    try:
        low, high = value_range
        fits = bool(np.isfinite(low) and np.isfinite(high) and low <= high)
        fits = fits and (dtype.kind == "f" or (int(low) == low and int(high) == high))
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise InvalidValueError(
            f"value_range is the least and the largest value that is counted, of type {dtype}; got {value_range!r}"
        )
    return (low, high)


def _sample_of(box: BoundingBox) -> list[BoundingBox]:
    """Return boxes that are spread evenly over a box, on the absolute grid; all of it where it is small enough.

    They are the first points of a sequence of low discrepancy: as even as a grid, but in step with nothing.
    """
    grid = CubeGrid(_SAMPLE)
    cells = grid.cubes(box)
    if len(cells) <= _SAMPLES:
        return [grid.cube_box(cell).intersection(box) for cell in cells]
    low, high = box.topleft // _SAMPLE, box.bottomright.ceildiv(_SAMPLE)
    steps = np.arange(_SAMPLES)[:, None] / _PLASTIC ** np.arange(1, 4) + 0.5
    places = np.floor(steps % 1 * np.array(high - low)).astype(np.int64)
    chosen = dict.fromkeys(Vec3Int(*place) + low for place in places.tolist())
    return [grid.cube_box(cell).intersection(box) for cell in chosen]


_PLASTIC = 1.2207440846057596
"""The root of x⁴ = x + 1: steps of its inverse powers spread points in three dimensions."""


def _over_sample(store: MagReader, boxes: Sequence[BoundingBox], make: Make) -> Any:
    """Return the tally of boxes, read on threads of this process."""
    total = make()

    def one(part: BoundingBox) -> Any:
        tally = make()
        tally.add(store.read(part))
        return tally

    with ThreadPoolExecutor(cores()) as pool:
        for tally in pool.map(one, boxes):
            total.merge(tally)
    return total


def _over_cubes(
    place: MagPlace, box: BoundingBox, make: Make, *, client: Client | None, listeners: Sequence[Listener]
) -> Any:
    """Return the tally of all voxels of a box, as a job over the cubes that exist."""
    total, store = make(), place.store
    grid, channels = store.spec.grid, store.spec.num_channels
    cubes = [cube for cube in store.cubes_on_disk() if not grid.cube_box(cube).intersection(box).is_empty()]
    stored = 0

    def collect(event: Event) -> None:
        if isinstance(event, UnitDone):
            total.merge(event.report.value)

    if cubes:
        engine = pick_engine(client)
        plan, found = plan_existing(store, cubes, engine)
        units = [unit.intersection(box) for unit in found]
        stored = sum(unit.volume() for unit in units)
        windows = listed_windows(
            units, "", task_name("histogram", store.path), partial(_call_of, store, make)
        )
        run_unwritten(
            place.label, replace(plan, box=box), windows, engine, [collect, *listeners], reads=[store]
        )
    total.add_zeros((box.volume() - stored) * channels)
    return total


def _call_of(store: MagReader, make: Make, unit: BoundingBox) -> tuple[Any, ...]:
    """Return the task of a unit."""
    return (count_unit, store, make, unit)


def count_unit(store: MagReader, make: Make, unit: BoundingBox) -> UnitReport:
    """Count the voxels of a unit, part by part.

    Parameters
    ----------
    store
        The mag.
    make
        Makes an empty tally.
    unit
        Absolute, in voxels of the mag.
    """
    tally = make()
    for part in _parts(unit):
        if store.is_empty(part):
            tally.add_zeros(part.volume() * store.spec.num_channels)
        else:
            tally.add(store.read(part))
    return UnitReport(unit=unit, value=tally)


def _parts(unit: BoundingBox) -> Iterator[BoundingBox]:
    """Yield what of a unit is in memory at a time."""
    return (_PART.cube_box(cell).intersection(unit) for cell in _PART.cubes(unit))
