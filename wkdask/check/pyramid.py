"""Whether the coarser mags are what their finer ones come to.

How a pyramid was sampled is written nowhere. So a part is compared with the default of the layer's category, and,
where it differs, with all other ways that there are: a pyramid that was made by the median and one that was made by
the nearest voxel are both right. At the border of the layer's box windows reach beyond it: mirrored voxels count
there, as wkdask has it, and those that are stored, as others have it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt

from wkdask.check.cubes import ListedMag, merged_boxes
from wkdask.check.findings import Findings
from wkdask.check.jobs import CheckJob
from wkdask.errors import WkdaskError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.grid import CubeGrid, block_shape_near, box_tiles
from wkdask.jobs.tasks import UnitReport, ended
from wkdask.pyramid.levels import Level, levels_of
from wkdask.pyramid.mags import interpolation_of
from wkdask.pyramid.voxels import Stored, first_half, halved
from wkdask.storage.protocol import StoredMag, Voxels

__all__ = ["Compared", "MagPair", "check_compared", "compare_job", "pairs_of"]

_UNIT_NBYTES = 64 << 20
"""Voxels of the finer mag that a task reads."""
_TILE_NBYTES = 8 << 20
"""Those that it holds at once."""

_CUT_SHORT = ("array-too-small", "cubes-outside-array")

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MagPair:
    """Two mags of a layer of which one is computed from the other; plain data, for tasks."""

    finer: StoredMag
    """The mag that is read."""
    coarser: StoredMag
    """The mag that was computed from it."""
    source: Level
    """The finer one as a level of a pyramid."""
    level: Level
    """The coarser one."""
    modes: tuple[str, ...]
    """The ways of sampling that count, the default first."""
    is_first: bool
    """Whether the finer one is the layer's finest, of which nothing can be computed anew."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of comparing some parts of two mags."""

    boxes: tuple[BoundingBox, ...] = ()
    """Where they disagree, in voxels of the coarser mag."""
    missing: tuple[BoundingBox, ...] = ()
    """Where the coarser one has voxels and the finer one has no cube, in voxels of the coarser mag."""
    modes: Counter[str] | None = None
    """How many parts that are not all alike each way of sampling explains, the first that does."""
    nearest: Counter[str] | None = None
    """How many parts that disagree each way of sampling comes nearest to."""
    unread: tuple[str, ...] = ()
    """Why parts could not be read; damaged cubes are findings by themselves."""


def pairs_of(
    layer_mags: Sequence[ListedMag], box: BoundingBox | None, findings: Findings
) -> Iterator[tuple[ListedMag, ListedMag, MagPair]]:
    """Yield the pairs of neighbouring mags of a layer that can be compared.

    Parameters
    ----------
    layer_mags
        The mags of one layer, finest first.
    box
        The layer's box; None where it is not known.
    findings
        What was found so far: an array that is cut short is not compared.
    """
    from wkdask.kernels import INTERPOLATIONS, MODES

    if box is None or box.is_empty():
        return
    short = {(each.layer, each.mag) for each in findings.found if each.code in _CUT_SHORT}
    for finer, coarser in pairwise(layer_mags):
        if not (finer.at_rest and coarser.at_rest):
            continue
        if {(each.opened.layer.name, each.opened.mag) for each in (finer, coarser)} & short:
            continue
        a, b = finer.opened, coarser.opened
        if any(large % small for small, large in zip(a.mag, b.mag, strict=True)) or a.mag == b.mag:
            continue
        ids = a.layer.is_segmentation
        default = interpolation_of("default", ids)
        others = [mode for mode in MODES if mode != default and not (ids and mode in INTERPOLATIONS)]
        source, level = levels_of((a.mag, a.store.spec), [(b.mag, b.store.spec)], box, [b.mag])
        yield (
            finer,
            coarser,
            MagPair(a.store, b.store, source, level, (default, *others), is_first=finer is layer_mags[0]),
        )


def compare_job(finer: ListedMag, coarser: ListedMag, pair: MagPair, sample: int | None) -> CheckJob:
    """Return the job that compares two mags wherever one of them has a cube.

    Parameters
    ----------
    finer, coarser
        The mags.
    pair
        The same for tasks.
    sample
        How many parts of some MiB are compared, drawn at random but the same each time; None for all.
    """
    spec, factors = pair.coarser.spec, pair.level.factors
    limit = _UNIT_NBYTES if sample is None else _TILE_NBYTES
    nbytes = spec.bytes_per_voxel * factors.prod()
    unit = block_shape_near(spec.shard_shape, spec.chunk_shape, nbytes, limit, pair.level.box.size)
    grid = CubeGrid(unit)
    chosen = sorted(
        _touched(coarser.indices * np.array(spec.shard_shape), spec.shard_shape, unit)
        | _touched(
            finer.indices * np.array(pair.finer.spec.shard_shape) // np.array(factors),
            pair.finer.spec.shard_shape.ceildiv(factors),
            unit,
        ),
        key=lambda index: index[::-1],
    )
    boxes = [grid.cube_box(Vec3Int(index)).intersection(pair.level.box) for index in chosen]
    boxes = [box for box in boxes if not box.is_empty()]
    if sample is not None and sample < len(boxes):
        drawn = np.random.default_rng(0).choice(len(boxes), sample, replace=False)
        boxes = [boxes[n] for n in sorted(drawn.tolist())]
    return CheckJob(
        label=f"{coarser.opened.label}: against mag {finer.opened.mag}",
        action="compare",
        path=pair.coarser.path,
        units=boxes,
        call=lambda box: (compare_unit, pair, box),
        cubes=0,
        nbytes=sum(box.volume() for box in boxes) * nbytes,
    )


def _touched(low: npt.NDArray[np.int64], size: Vec3Int, unit: Vec3Int) -> set[tuple[int, ...]]:
    """Return the units that boxes of one size touch."""
    if not len(low):
        return set()
    side = np.array(unit)
    spans = np.unique(np.concatenate([low // side, -(-(low + np.array(size)) // side)], axis=1), axis=0)
    return {
        index
        for x, y, z, x_end, y_end, z_end in spans.tolist()
        for index in product(range(x, x_end), range(y, y_end), range(z, z_end))
    }


def compare_unit(pair: MagPair, box: BoundingBox) -> UnitReport:
    """Compare a part of two mags; the value is a `Compared`.

    Parameters
    ----------
    pair
        The mags.
    box
        The part, in voxels of the coarser one.
    """
    start = time.perf_counter()
    spec, factors = pair.coarser.spec, pair.level.factors
    nbytes = spec.bytes_per_voxel * factors.prod()
    tile = block_shape_near(spec.shard_shape, spec.chunk_shape, nbytes, _TILE_NBYTES, box.size)
    wrong: list[BoundingBox] = []
    missing: list[BoundingBox] = []
    unread: list[str] = []
    modes: Counter[str] = Counter()
    nearest: Counter[str] = Counter()
    for part in box_tiles(box, tile, tile):
        try:
            mode, absent, there = _compare(pair, part)
        except (WkdaskError, OSError) as error:
            unread.append(str(error))
            continue
        missing += absent
        if there is not None:
            wrong.append(there)
            nearest.update([mode] if mode else [])
        elif mode is not None and not absent:
            modes[mode] += 1
    value = Compared(tuple(wrong), tuple(missing), modes, nearest, tuple(unread))
    return ended(box, start, nbytes=box.volume() * nbytes, value=value)


def _compare(pair: MagPair, box: BoundingBox) -> tuple[str | None, list[BoundingBox], BoundingBox | None]:
    """Compare a tile of the coarser mag.

    Returns
    -------
    str or None
        The way of sampling by which it was made, or which comes nearest to that; None where all voxels are alike,
        which each way explains.
    list of BoundingBox
        Where it has voxels, and the finer mag has no cube.
    BoundingBox or None
        Where else it disagrees.
    """
    level = pair.level
    window = BoundingBox(box.topleft * level.factors, box.size * level.factors)
    if pair.coarser.is_empty(box) and pair.finer.is_empty(window.intersection(pair.source.box)):
        return None, [], None
    have = pair.coarser.read(box)
    least: Mask | None = None
    best: str | None = None
    for mode, steps in product(pair.modes, _ways(level.factors)):
        wrong = _differs(have, _computed(pair, window, mode, steps))
        if wrong.any() and not pair.source.box.contains_bbox(window):
            wrong &= _differs(have, _as_stored(pair, window, mode, steps))
        if not wrong.any():
            return (mode if have.min() != have.max() else None), [], None
        if least is None or wrong.sum() < least.sum():
            least, best = wrong, mode
    if least is None:
        return None, [], None
    missing = []  # in a mag in between, the mag before shows it
    for _, piece in pair.finer.spec.grid.pieces(window):
        part = piece.aligned_outwards(level.factors)
        part = BoundingBox(part.topleft // level.factors, part.size // level.factors).intersection(box)
        place = (slice(None), *part.to_slices(box.topleft))
        if least[place].any() and pair.finer.is_empty(piece) and have[place].any():
            least[place] = False
            if pair.is_first:
                missing.append(part)
    return best, missing, _bounds(least).offset(box.topleft) if least.any() else None


def _ways(factors: Vec3Int) -> list[tuple[Vec3Int, ...]]:
    """Return in which steps one mag may have been computed from the other: those in between may be gone."""
    if max(factors) <= 2:
        return [(factors,)]
    steps, left = [], factors
    while max(left) > 1:
        step = left.pairmin(2)
        if any(large % small for large, small in zip(left, step, strict=True)):
            return [(factors,)]
        steps.append(step)
        left = left // step
    return list(dict.fromkeys([(factors,), tuple(steps), tuple(reversed(steps))]))


def _computed(pair: MagPair, window: BoundingBox, mode: str, steps: tuple[Vec3Int, ...]) -> Voxels | None:
    """Return what wkdask computes for a part; None for zeros."""
    first, source = steps[0], pair.source
    wide = source.box.aligned_outwards(first)
    level = replace(
        pair.level, step=first, factors=first, box=BoundingBox(wide.topleft // first, wide.size // first)
    )
    half = first_half(Stored(pair.finer), source, level, window, window.size, mode)
    for step in steps[1:]:
        half = halved(half, step, mode)
    return half[1]


def _as_stored(pair: MagPair, window: BoundingBox, mode: str, steps: tuple[Vec3Int, ...]) -> Voxels | None:
    """Return what comes of the voxels that are stored, also of those outside of the layer's box."""
    from wkdask.kernels import INTERPOLATIONS, downsample

    if mode in INTERPOLATIONS:
        return _computed(pair, window, mode, steps)
    voxels: Voxels = pair.finer.read(window)
    for step in steps:
        voxels = downsample(voxels, tuple(step), mode)
    return voxels


def _differs(have: Voxels, want: Voxels | None) -> Mask:
    """Return which voxels differ; NaN is equal to NaN, and of fractions the last bits do not count."""
    if want is None:
        want = np.zeros((), have.dtype)
    wrong: Mask
    if have.dtype.kind == "f":
        wrong = ~np.isclose(have, want, rtol=1e-5, atol=0, equal_nan=True)
    else:
        wrong = have != want
    return wrong


def _bounds(wrong: Mask) -> BoundingBox:
    """Return the box around what is marked, in an array (c, x, y, z)."""
    low, high = [], []
    for axis in (1, 2, 3):
        marked = np.flatnonzero(wrong.any(axis=tuple(n for n in range(4) if n != axis)))
        low.append(int(marked[0]))
        high.append(int(marked[-1]) + 1)
    return BoundingBox.from_corners(low, high)


def check_compared(
    coarser: ListedMag, finer: ListedMag, results: Sequence[Compared], sampled: bool, findings: Findings
) -> None:
    """Take in what came of comparing two mags.

    Parameters
    ----------
    coarser, finer
        The mags.
    results
        What came of all parts.
    sampled
        Whether only some parts were compared.
    findings
        Takes in what is wrong.
    """
    opened = coarser.opened
    layer, mag = opened.layer.name, opened.mag
    missing = merged_boxes([box.from_mag_to_mag1(mag) for each in results for box in each.missing])
    if missing:
        what = (
            f"mag {mag} has voxels where mag {finer.opened.mag} has no cube, in {len(missing)} boxes, such as "
            f"{missing[0]} (voxels of mag 1)"
        )
        findings.add("cubes-missing", finer.opened.store.path, what, layer, finer.opened.mag, missing)
    for reason in dict.fromkeys(reason for each in results for reason in each.unread):
        if not any(known.path in reason for known in findings.found if known.severity != "info"):
            findings.add("cube-damaged", finer.opened.store.path, reason, layer, finer.opened.mag)
    boxes = merged_boxes([box.from_mag_to_mag1(mag) for each in results for box in each.boxes])
    if not boxes:
        return
    modes: Counter[str] = sum((each.modes or Counter() for each in results), Counter())
    nearest: Counter[str] = sum((each.nearest or Counter() for each in results), Counter())
    votes = modes or nearest
    mode = max(votes, key=lambda each: votes[each]) if votes else "default"
    told = ", ".join(f"{count} parts agree by {word}" for word, count in modes.most_common())
    what = (
        f"it disagrees with mag {finer.opened.mag} in {len(boxes)} boxes, such as {boxes[0]} (voxels of mag 1)"
        f"{'; ' + told if told else ''}{'; only some parts were compared' if sampled else ''}"
    )
    findings.add("mag-stale", opened.store.path, what, layer, mag, boxes, mode)
