"""For tests of code that uses wkdask: small datasets, voxels, hypothesis strategies, a comparison of mags.

The strategies need hypothesis (``pip install hypothesis``); the rest needs numpy alone.

Examples
--------
>>> import tempfile
>>> from wkdask.testing import assert_equal_mags, random_voxels, small_mag
>>> folder = tempfile.TemporaryDirectory()
>>> mag = small_mag(f"{folder.name}/ds", "uint16")
>>> report = mag.write(random_voxels((1, 40, 40, 40), "uint16"))
>>> copy = mag.layer.dataset.add_copy_layer(mag.layer, "copy").get_mag(1)
>>> assert_equal_mags(mag, copy)
>>> folder.cleanup()
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.dataset import Dataset
from wkdask.geometry import BoundingBox, MagLike, Vec3IntLike

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from wkdask.mag_view import MagView
    from wkdask.view import View

__all__ = [
    "assert_equal_mags",
    "boxes",
    "boxes_within",
    "chunk_layouts",
    "dtypes",
    "random_voxels",
    "small_mag",
]


def small_mag(
    folder: str | os.PathLike[str],
    dtype: Any = "uint8",
    channels: int = 1,
    *,
    category: str = "color",
    mag: MagLike = 1,
    chunk_shape: Vec3IntLike | int = 16,
    shard_shape: Vec3IntLike | int = 32,
    compression: str | None = None,
    data_format: str = "wkw",
    voxel_size: tuple[float, float, float] = (1, 1, 1),
) -> MagView:
    """Make a dataset with one layer, ``"layer"``, and an empty mag of small cubes.

    Parameters
    ----------
    folder
        Where the dataset is made; nothing may be there.
    dtype, channels, category, data_format
        Of the layer.
    mag, chunk_shape, shard_shape, compression
        Of the mag; shapes are ``(x, y, z)`` in its voxels, or one number for all three.
    voxel_size
        In nm.

    Returns
    -------
    MagView
        The mag; its ``layer.dataset`` is the dataset.
    """
    dataset = Dataset.create(folder, voxel_size)
    layer = dataset.add_layer(
        "layer", category, dtype_per_channel=dtype, num_channels=channels, data_format=data_format
    )
    return layer.add_mag(mag, chunk_shape=chunk_shape, shard_shape=shard_shape, compression=compression)


def random_voxels(shape: tuple[int, ...], dtype: Any = "uint8", seed: int = 0) -> np.ndarray:
    """Return voxels that are the same for the same seed, in Fortran order, zeros rare.

    Integers have all values of their type, floats are normally distributed.

    Examples
    --------
    >>> from wkdask.testing import random_voxels
    >>> random_voxels((1, 2, 2, 1))[0, :, :, 0]
    array([[ 95, 130],
           [194, 217]], dtype=uint8)
    """
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return np.asfortranarray(rng.normal(size=shape).astype(dtype))
    info = np.iinfo(dtype)
    return np.asfortranarray(rng.integers(info.min, info.max, shape, dtype, endpoint=True))


def assert_equal_mags(left: View, right: View) -> None:
    """Raise an AssertionError that says what differs first: box, type, channels, or the first voxel.

    Reads both mags whole: for small mags. `View.content_is_equal` compares large ones cube by cube.
    """
    for what in ("bounding_box", "dtype", "num_channels"):
        first, second = (_fact(view, what) for view in (left, right))
        assert_that(first == second, f"{what}: {first} and {second}")
    one, other = left.read(), right.read()
    different = one != other
    if one.dtype.kind == "f":
        different &= ~(np.isnan(one) & np.isnan(other))
    if different.any():
        place = tuple(map(int, np.argwhere(different)[0]))
        raise AssertionError(
            f"{int(different.sum())} of {different.size} voxels differ, the first at (c, x, y, z) = {place} of the "
            f"box: {one[place]} and {other[place]}"
        )


def assert_that(holds: bool, text: str) -> None:
    """Raise an AssertionError; unlike the statement, also under ``python -O``."""
    if not holds:
        raise AssertionError(text)


def _fact(view: View, what: str) -> Any:
    return view.get_dtype() if what == "dtype" else getattr(view, what)


def boxes(least: int = 1, most: int = 300, far: int = 500) -> SearchStrategy[BoundingBox]:
    """Boxes whose corners are at 0 to `far` and whose sides are `least` to `most` voxels long."""
    from hypothesis import strategies as st

    corners, sizes = (st.tuples(*[side] * 3) for side in (st.integers(0, far), st.integers(least, most)))
    return st.builds(BoundingBox, corners, sizes)


def boxes_within(extent: int, least: int = 0) -> SearchStrategy[BoundingBox]:
    """Boxes whose corners are anywhere in 0 to `extent`, with sides of at least `least` voxels."""
    from hypothesis import strategies as st

    def side(low: int) -> SearchStrategy[tuple[int, int]]:
        return st.tuples(st.just(low), st.integers(low + least, extent))

    sides = st.integers(0, extent - least).flatmap(side)
    return st.tuples(sides, sides, sides).map(
        lambda pairs: BoundingBox.from_corners(
            tuple(low for low, _ in pairs), tuple(high for _, high in pairs)
        )
    )


def dtypes(category: str = "color") -> SearchStrategy[np.dtype[Any]]:
    """Types that webknossos reads in layers of a category: integers, and floats where it is "color"."""
    from hypothesis import strategies as st

    integers = [f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32)]
    more = ["float32"] if category == "color" else ["uint64", "int64"]
    return st.sampled_from([np.dtype(name) for name in [*integers, *more]])


def chunk_layouts(most: int = 64) -> SearchStrategy[dict[str, Any]]:
    """Arguments of `Layer.add_mag`: shapes of chunks and of shards of up to `most` voxels a side, compression."""
    from hypothesis import strategies as st

    sides = [side for side in (8, 16, 32, 64, 128, 256) if side <= most]
    pairs = st.sampled_from(
        [(chunk, shard) for chunk in sides for shard in sides if chunk <= shard <= 32 * chunk]
    )
    return st.builds(
        lambda pair, compression: {
            "chunk_shape": pair[0], "shard_shape": pair[1], "compression": compression,
        },
        pairs,
        st.sampled_from([None, "lz4", "lz4hc"]),
    )  # fmt: skip
