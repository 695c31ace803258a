"""Mags that are made before they are computed, because they are to be cut otherwise than the finest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from wkdask.errors import WkdaskError
from wkdask.geometry import Mag, Vec3IntLike
from wkdask.layer_pyramid import _compression
from wkdask.mag_view import MagView

if TYPE_CHECKING:
    from wkdask.layer import Layer

__all__ = ["new_mags"]


@contextlib.contextmanager
def new_mags(
    layer: Layer,
    mags: Sequence[Mag],
    source: MagView,
    compression: str | bool | None,
    cut: tuple[Vec3IntLike | int | None, Vec3IntLike | int | None],
) -> Iterator[None]:
    """Add empty mags that are cut as is wished; if the body fails, those that are empty still go again."""
    chunk, shard = cut
    if chunk is None:
        chunk = source.spec.chunk_shape
        shard = source.spec.shard_shape if shard is None else shard
    made: list[Mag] = []
    try:
        for mag in mags:
            named = _compression(None, compression)
            layer.add_mag(mag, chunk_shape=chunk, shard_shape=shard, compression=named or False)
            made.append(mag)
        yield
    except BaseException:
        for mag in made:
            with contextlib.suppress(WkdaskError, OSError):  # the first error tells more
                if next(layer.get_mag(mag).cubes_on_disk(), None) is None:
                    layer.delete_mag(mag)
        raise
