"""Which mags follow which, and the sampling of blocks in memory, under the names that scripts of 2021 import.

They are for scripts that plan, or sample arrays, themselves; layers are sampled by :meth:`Layer.downsample`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox, Mag, Vec3Float, Vec3Int, Vec3IntLike
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.names import InterpolationModes, SamplingModes
from wkdask.pyramid.mags import default_coarsest_mag, interpolation_of, mag_chain

if TYPE_CHECKING:
    from wkdask.dataset.dataset import Dataset

__all__ = [
    "InterpolationModes",
    "SamplingModes",
    "calculate_default_coarsest_mag",
    "calculate_default_max_mag",
    "calculate_mags_to_downsample",
    "calculate_mags_to_upsample",
    "downsample_cube",
    "parse_interpolation_mode",
]


def calculate_default_coarsest_mag(dataset_size: Vec3IntLike) -> Mag:
    """Return the mag at which the longer side in the plane is about 100 voxels, at least 4.

    Parameters
    ----------
    dataset_size
        In voxels of mag 1.
    """
    return default_coarsest_mag(BoundingBox((0, 0, 0), dataset_size))


calculate_default_max_mag = calculate_default_coarsest_mag


def calculate_mags_to_downsample(
    from_mag: Mag,
    coarsest_mag: Mag,
    dataset_to_align_with: Dataset | Sequence[float] | None,
    voxel_size: Sequence[float] | None = None,
) -> list[Mag]:
    """Return the mags that follow one, finest first, without it.

    Parameters
    ----------
    from_mag, coarsest_mag
        Where the chain starts, and where it ends.
    dataset_to_align_with
        The mags of its layers are taken where they fit. As in 2021 also the voxel size, as the last argument.
    voxel_size
        The sides of a voxel of mag 1: steps make voxels more like cubes. Without it a step doubles all axes, up to
        those of `coarsest_mag`.

    Raises
    ------
    MagChainError
        If the coarsest mag cannot be reached so.
    InvalidValueError
        If it is finer, or the layers do not agree.
    """
    others: set[Mag] = set()
    if dataset_to_align_with is not None:
        layers = getattr(dataset_to_align_with, "layers", None)
        if layers is not None:
            others = {mag for layer in layers.values() for mag in layer.mags}
        elif voxel_size is None:
            voxel_size = dataset_to_align_with  # type: ignore[assignment]
        else:
            raise InvalidValueError(f"expected a dataset to align with, got {dataset_to_align_with!r}")
    mode = SamplingModes.ISOTROPIC if voxel_size is None else SamplingModes.ANISOTROPIC
    sides = (1, 1, 1) if voxel_size is None else Vec3Float(*voxel_size).to_tuple()
    return mag_chain(Mag(from_mag), Mag(coarsest_mag), VoxelSize(sides), mode, others)


def calculate_mags_to_upsample(
    from_mag: Mag,
    finest_mag: Mag,
    dataset_to_align_with: Dataset | Sequence[float] | None,
    voxel_size: Sequence[float] | None = None,
) -> list[Mag]:
    """Return the mags between two, and the finer one, coarsest first: the way of downsampling in reverse.

    Parameters
    ----------
    from_mag, finest_mag
        Where the chain starts, and where it ends.
    dataset_to_align_with, voxel_size
        As for :func:`calculate_mags_to_downsample`.
    """
    chain = calculate_mags_to_downsample(finest_mag, from_mag, dataset_to_align_with, voxel_size)
    return [*reversed(chain), Mag(finest_mag)][1:]


def parse_interpolation_mode(interpolation_mode: str, layer_category: str) -> InterpolationModes:
    """Return an interpolation mode by its name; ``"default"`` is the mode of ids and the median of images.

    Parameters
    ----------
    interpolation_mode
        Its name, in capital letters or not.
    layer_category
        ``"color"`` or ``"segmentation"``.
    """
    return InterpolationModes(interpolation_of(interpolation_mode, layer_category == "segmentation"))


def downsample_cube(cube_buffer: Any, factors: Sequence[int], interpolation_mode: str) -> Any:
    """Return a block with one voxel out of each window.

    Parameters
    ----------
    cube_buffer
        An array (x, y, z), or (c, x, y, z); its sides are multiples of the factors.
    factors
        The windows' sides along x, y, z.
    interpolation_mode
        One of `InterpolationModes`.
    """
    from wkdask.kernels import downsample, mirror_pad, reach

    block = cube_buffer[None] if cube_buffer.ndim == 3 else cube_buffer
    step = tuple(Vec3Int(factors))
    margins = reach(str(interpolation_mode), step)
    found = downsample(mirror_pad(block, margins, margins), step, str(interpolation_mode))
    return found[0] if cube_buffer.ndim == 3 else found
