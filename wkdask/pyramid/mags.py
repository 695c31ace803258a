"""Pyramids: which mags follow which, and the word for how voxels are made. Pure: nothing is read or written."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence

from wkdask.errors import InvalidValueError, MagChainError
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.geometry.voxel_size import VoxelSize

__all__ = ["SAMPLING_MODES", "check_mag_order", "default_coarsest_mag", "interpolation_of", "mag_chain"]

SAMPLING_MODES = ("anisotropic", "isotropic", "constant_z")
"""How the next mag is chosen: voxels towards cubes, all axes alike, or x and y only."""


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
    MagChainError
        If the coarsest mag cannot be reached so.
    InvalidValueError
        If it is finer, the mode is unknown, or the other layers do not agree.
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
            raise MagChainError(
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
        If the word is unknown, or mixes values where those are ids.
    """
    from wkdask.kernels import INTERPOLATIONS, MODES

    word = mode.lower()
    if word == "default":
        return "mode" if is_segmentation else "median"
    if word not in MODES:
        raise InvalidValueError(f"unknown interpolation mode {mode!r}; known are default, {', '.join(MODES)}")
    if word in INTERPOLATIONS and is_segmentation:
        raise InvalidValueError(
            f"{word} makes ids that are nowhere in the layer out of those that are; for a segmentation use mode "
            f"or nearest"
        )
    return word
