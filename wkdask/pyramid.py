"""Pyramids: which mags follow which, and the tasks that compute one from another.

Sampling is defined voxel by voxel, independent of how the work is cut: an output voxel is the median (mode,
…) of the window of source voxels that it covers. Where the window leaves the layer's box, the voxels
inside are mirrored into the gap, so that borders neither darken nor erode (as webknossos 4 does)::

    source      | a b c | d e .     box ends after e
    windows of 2  a b | c d | e e   the last one sees e mirrored
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from wkdask.engines import pick_engine
from wkdask.errors import InvalidValueError
from wkdask.events import WriteReport
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.job import Job, JobFolders, MagPlace, Stage, WriteOptions, call_windows
from wkdask.plan import plan_write
from wkdask.storage.protocol import StoredMag, Voxels
from wkdask.tasks import Target, UnitReport, write_unit
from wkdask.units import VoxelSize
from wkdask.writer import run_planned

__all__ = [
    "SAMPLING_MODES",
    "check_mag_order",
    "default_coarsest_mag",
    "downsample_mag",
    "interpolation_of",
    "mag_chain",
    "upsample_mag",
]

SAMPLING_MODES = ("anisotropic", "isotropic", "constant_z")
"""How the next mag is chosen: voxels towards cubes, all axes alike, or x and y only."""
_TILE_NBYTES = 64 << 20
"""Source voxels that a task holds at once; its target cubes are filled tile by tile."""


def default_coarsest_mag(box: BoundingBox) -> Mag:
    """Return the mag at which a layer's longer side in the plane is about 100 voxels, at least 4.

    Parameters
    ----------
    box
        The layer's box, in voxels of mag 1.
    """
    longest = max(box.size.x, box.size.y, 1)
    return Mag(max(4, 2 ** max(0, math.ceil(math.log2(longest / 100)))))


def mag_chain(
    from_mag: Mag,
    coarsest_mag: Mag,
    voxel_size: VoxelSize,
    sampling_mode: str = "anisotropic",
    align_with: Collection[Mag] = (),
) -> list[Mag]:
    """Return the mags that follow `from_mag`, up to `coarsest_mag`.

    Each step doubles all axes, or, in the anisotropic mode, only those along which voxels are shortest if
    that makes voxels more like cubes. No axis goes beyond `coarsest_mag`; the chain ends when its largest
    component is reached. A step that only lets a shorter axis catch up is left out: WEBKNOSSOS cannot tell
    two mags of the same largest component apart.

    Parameters
    ----------
    from_mag
        Where the chain starts; not part of the result.
    coarsest_mag
        Where it ends.
    voxel_size
        Size of a voxel of mag 1.
    sampling_mode
        One of `SAMPLING_MODES`; ``"auto"`` is another word for anisotropic.
    align_with
        Mags of other layers: one whose largest component is twice that of the current mag is taken as the next
        one, if no component of it is finer than the current mag or coarser than `coarsest_mag`.

    Raises
    ------
    InvalidValueError
        If the coarsest mag cannot be reached so, the mode is unknown, or the other layers do not agree.
    """
    mode = "anisotropic" if sampling_mode.lower() == "auto" else sampling_mode.lower()
    if mode not in SAMPLING_MODES:
        raise InvalidValueError(
            f"unknown sampling mode {sampling_mode!r}; known are {', '.join(SAMPLING_MODES)}"
        )
    end = coarsest_mag.to_vec3_int()
    if mode == "constant_z":
        end = end.with_z(from_mag.z)
    current, chain = from_mag.to_vec3_int(), [from_mag]
    if any(side < start for side, start in zip(end, current, strict=True)):
        raise InvalidValueError(f"mag {coarsest_mag} is finer than mag {from_mag}, from which to start")
    while max(current) < max(end):
        wanted = _guided(current, end, align_with) or _next_mag(current, voxel_size, mode)
        following = wanted.pairmin(end)
        if following == current:
            raise InvalidValueError(
                f"mag {coarsest_mag} cannot be reached from mag {from_mag} in the {mode} mode: after mag "
                f"{Mag(current)} the next would be {Mag(wanted)}"
            )
        current = following
        if max(current) > chain[-1].max_dim:
            chain.append(Mag(current))
    return chain[1:]


def _guided(mag: Vec3Int, end: Vec3Int, others: Collection[Mag]) -> Vec3Int | None:
    """Return the mag of other layers that may follow `mag` on the way to `end`; None where there is none."""
    following = {
        other
        for other in others
        if other.max_dim == 2 * max(mag) and all(a <= b <= c for a, b, c in zip(mag, other, end, strict=True))
    }
    if len(following) > 1:
        names = " and ".join(sorted(map(str, following)))
        raise InvalidValueError(
            f"other layers do not agree on the mag after {Mag(mag)}: they have {names}; choose by "
            f"downsample_mag_list, or pass align_with_other_layers=False"
        )
    return following.pop().to_vec3_int() if following else None


def _next_mag(mag: Vec3Int, voxel_size: VoxelSize, mode: str) -> Vec3Int:
    """Return the mag after `mag`, before it is limited to the coarsest."""
    if mode == "constant_z":
        return mag * (2, 2, 1)
    if mode == "isotropic":
        return mag * 2
    extent = [side * factor for side, factor in zip(mag, voxel_size.factor, strict=True)]
    shortest = [2 if side == min(extent) else 1 for side in extent]

    def ratio(factors: Sequence[int]) -> float:
        sides = [side * factor for side, factor in zip(extent, factors, strict=True)]
        return max(sides) / min(sides)

    return mag * (2 if ratio((2, 2, 2)) < ratio(shortest) else shortest)


def check_mag_order(start: Mag, mags: Sequence[Mag]) -> list[Mag]:
    """Return mags in the order in which each can be computed from the one before.

    Raises
    ------
    InvalidValueError
        If a component shrinks from one to the next, or a mag comes twice.
    """
    ordered = sorted(mags, key=lambda mag: tuple(mag.to_vec3_int()))
    for finer, coarser in itertools.pairwise([start, *ordered]):
        if finer == coarser or any(a > b for a, b in zip(finer, coarser, strict=True)):
            raise InvalidValueError(f"mag {coarser} cannot be computed from mag {finer}")
    return ordered


def interpolation_of(mode: str, is_segmentation: bool) -> str:
    """Return the kernel's mode for a user's word; ``"default"`` is mode for ids and median for images.

    Raises
    ------
    InvalidValueError
        If the word is unknown.
    """
    from wkdask.kernels import MODES

    word = mode.lower()
    if word == "default":
        return "mode" if is_segmentation else "median"
    if word not in MODES:
        raise InvalidValueError(f"unknown interpolation mode {mode!r}; known are default, {', '.join(MODES)}")
    return word


def downsample_mag(
    source: MagPlace, target: MagPlace, layer_box: BoundingBox, mode: str, options: WriteOptions
) -> WriteReport:
    """Compute one mag from a finer one.

    Parameters
    ----------
    source, target
        The two mags of one layer.
    layer_box
        The layer's box, in voxels of mag 1; voxels outside of it are never read.
    mode
        A mode of `wkdask.kernels.downsample`.
    options
        How it runs.

    Raises
    ------
    InvalidValueError
        If the target is not coarser than the source, component by component.
    """
    factors = target.mag.to_vec3_int() // source.mag.to_vec3_int()
    if any(target.mag.to_vec3_int() % source.mag.to_vec3_int()) or factors == Vec3Int.full(1):
        raise InvalidValueError(f"mag {target.mag} cannot be computed from mag {source.mag}")
    valid = layer_box.aligned_outwards(source.mag.to_vec3_int()).in_mag(source.mag)
    box = layer_box.aligned_outwards(target.mag.to_vec3_int()).in_mag(target.mag)
    engine = pick_engine(options.client)
    spec = target.store.spec
    unit_nbytes = max(spec.cube_nbytes, _TILE_NBYTES // factors.prod())
    plan = plan_write(
        spec,
        box,
        threads=engine.threads,
        memory=engine.task_memory(),
        task_memory=options.task_memory or 2 * unit_nbytes + 2 * _TILE_NBYTES,
        unit_nbytes=unit_nbytes,
    )

    def stages(job: Job, folders: JobFolders) -> list[Stage]:
        out = Target(job.store, folders.main, job.durable, job.verify)
        windows = call_windows(
            plan,
            folders.main,
            "downsample",
            lambda unit: (downsample_unit, source.store, valid, factors, mode, out, unit),
        )
        return [Stage(len(plan.units), windows)]

    return run_planned(Job.of(target, plan, "downsampling", options), stages, engine, options)


def downsample_unit(
    source: StoredMag, valid: BoundingBox, factors: Vec3Int, mode: str, target: Target, box: BoundingBox
) -> UnitReport:
    """Compute and publish the target cubes of a unit, tile by tile of source voxels.

    Parameters
    ----------
    source
        The finer mag.
    valid
        Voxels of it that may be read, in its own voxels.
    factors
        Source voxels per target voxel along (x, y, z).
    mode
        A mode of `wkdask.kernels.downsample`.
    target, box
        Where the result goes, in voxels of the target.
    """
    from wkdask.kernels import downsample

    start = time.perf_counter()
    spec = target.store.spec
    out: Voxels = np.empty((spec.num_channels, *box.size), dtype=spec.dtype, order="F")
    for tile in _tiles(source, factors, box):
        block = read_mirrored(source, valid, BoundingBox(tile.topleft * factors, tile.size * factors))
        place = out[(slice(None), *tile.to_slices(box.topleft))]
        place[...] = downsample(block, tuple(factors), mode)
    report = write_unit(out, target, box)
    return replace(report, seconds=time.perf_counter() - start)


def _tiles(source: StoredMag, factors: Vec3Int, box: BoundingBox) -> Iterator[BoundingBox]:
    """Cut a target box so that the source voxels of a tile stay within `_TILE_NBYTES`."""
    from wkdask.grid import block_shape_near

    voxel_nbytes = source.spec.bytes_per_voxel * factors.prod()
    start = Vec3Int.full(1 << max(size - 1 for size in box.size).bit_length())
    shape = block_shape_near(start, Vec3Int.full(1), voxel_nbytes, _TILE_NBYTES, box.size)
    return box.chunk(shape, shape)


def read_mirrored(source: StoredMag, valid: BoundingBox, box: BoundingBox) -> Voxels:
    """Read a box of which some may lie outside of the valid voxels; those are mirrored at the border.

    The mirror image of a voxel k outside is the voxel k-1 inside, also where that lies outside of `box`, so
    that the result does not depend on how the work is cut.
    """
    from wkdask.kernels import mirror_pad

    inside = box.intersection(valid)
    if inside == box:
        return source.read(box)
    before, after = inside.topleft - box.topleft, box.bottomright - inside.bottomright
    # As many voxels beyond the box, on its inner side, as are to be mirrored on its outer side.
    wide = BoundingBox.from_corners(inside.topleft - after, inside.bottomright + before).intersection(valid)
    block = mirror_pad(source.read(wide), tuple(before), tuple(after))
    crop = box.offset(before - wide.topleft)
    return block[(slice(None), *crop.to_slices())]


def upsample_mag(
    source: MagPlace, target: MagPlace, layer_box: BoundingBox, options: WriteOptions
) -> WriteReport:
    """Compute one mag from a coarser one by repeating voxels.

    Parameters
    ----------
    source, target
        The two mags of one layer.
    layer_box
        The layer's box, in voxels of mag 1; it does not grow.
    options
        How it runs.
    """
    factors = source.mag.to_vec3_int() // target.mag.to_vec3_int()
    box = layer_box.aligned_outwards(target.mag.to_vec3_int()).in_mag(target.mag)
    engine = pick_engine(options.client)
    plan = plan_write(
        target.store.spec,
        box,
        threads=engine.threads,
        memory=engine.task_memory(),
        task_memory=options.task_memory,
    )

    def stages(job: Job, folders: JobFolders) -> list[Stage]:
        out = Target(job.store, folders.main, job.durable, job.verify)
        windows = call_windows(
            plan, folders.main, "upsample", lambda unit: (upsample_unit, source.store, factors, out, unit)
        )
        return [Stage(len(plan.units), windows)]

    return run_planned(Job.of(target, plan, "upsampling", options), stages, engine, options)


def upsample_unit(source: StoredMag, factors: Vec3Int, target: Target, box: BoundingBox) -> UnitReport:
    """Compute and publish the target cubes of a unit from the coarser voxels that cover it."""
    from wkdask.kernels import upsample

    start = time.perf_counter()
    coarse = BoundingBox.from_corners(box.topleft // factors, box.bottomright.ceildiv(factors))
    block = upsample(source.read(coarse), tuple(factors))
    inner = box.offset(-(coarse.topleft * factors))
    report = write_unit(block[(slice(None), *inner.to_slices())], target, box)
    return replace(report, seconds=time.perf_counter() - start)
