"""One magnification of a layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from wkdask.errors import InvalidValueError, OutOfBoundsError
from wkdask.geometry import BoundingBox, Vec3Int, Vec3IntLike
from wkdask.job import MagPlace
from wkdask.storage.protocol import check_coordinates
from wkdask.view import View, _checked_size

if TYPE_CHECKING:
    from wkdask.layer import Layer

__all__ = ["MagView"]


class MagView(View):
    """One magnification of a layer, as a lazy array on the grid of its cubes.

    Made by :meth:`Layer.get_mag` and :meth:`Layer.add_mag`.

    Notes
    -----
    ``offset`` and ``size`` count voxels of this mag and are **absolute**. ``bounding_box`` counts voxels of
    mag 1 and is absolute too. A MagView may read and write anywhere from (0, 0, 0) on; a write beyond the
    layer's box makes the box grow.
    """

    __slots__ = ("_layer",)

    def __init__(self, layer: Layer, place: MagPlace) -> None:
        super().__init__(place, BoundingBox((0, 0, 0), (0, 0, 0)))
        self._layer = layer

    def __reduce__(self) -> tuple[Any, ...]:
        return (MagView, (self._layer, self._place))

    @property
    def layer(self) -> Layer:
        """The layer that it belongs to."""
        return self._layer

    @property
    def name(self) -> str:
        """The mag's short name, such as ``"2-2-1"``."""
        return self.mag.to_layer_name()

    @property
    def box(self) -> BoundingBox:
        """The layer's box, aligned outwards to this mag: absolute, in voxels of this mag."""
        step = self.mag.to_vec3_int()
        return self._layer.bounding_box.aligned_outwards(step).in_mag(self.mag)

    @property
    def global_offset(self) -> Vec3Int:
        """The origin: offsets on a MagView are absolute."""
        return Vec3Int(0, 0, 0)

    @property
    def size(self) -> Vec3Int:
        """The far corner of the layer's box, in voxels of this mag: the extent from the origin on."""
        return self.box.bottomright

    def get_view(
        self,
        offset: Vec3IntLike | None = None,
        size: Vec3IntLike | None = None,
        read_only: bool = False,
        *,
        bounding_box: BoundingBox | None = None,
    ) -> View:
        """Return a view of a box.

        Parameters
        ----------
        offset, size
            Absolute, in voxels of this mag; the layer's box by default.
        read_only
            Refuse writes; such a view may reach beyond the layer's box.
        bounding_box
            Instead of both: absolute, in voxels of mag 1.

        Raises
        ------
        OutOfBoundsError
            If the view would leave the layer's box and is not read-only.
        """
        box = self._resolve(offset, size, bounding_box)
        if not read_only and not self.box.contains_bbox(box):
            raise OutOfBoundsError(
                f"{self._place.label}: a view of {box} leaves the layer's box {self.box} (voxels of this mag); "
                f"read_only=True may do that"
            )
        return View(self._place, box, read_only)

    def cubes_on_disk(self) -> Iterator[BoundingBox]:
        """Yield the boxes, in voxels of this mag, of the cubes that exist."""
        return (self.spec.grid.cube_box(index) for index in self._place.store.cubes_on_disk())

    def _write_offset(self, offset: Vec3IntLike | None, shape: Vec3Int) -> Vec3IntLike:
        """Return where data without a place go: the origin, if that is where the layer begins."""
        if offset is not None:
            return offset
        corner = self.box.topleft
        if self.box.is_empty() or corner == (0, 0, 0):
            return corner * 0
        raise InvalidValueError(
            f"{self._place.label} begins at {corner}: say where the {shape} voxels go, "
            f"offset=(0, 0, 0) or offset={corner.to_tuple()}"
        )

    def _relative(self, offset: Vec3IntLike | None, size: Vec3IntLike | None) -> BoundingBox:
        """Return the box of an absolute offset and size; each defaults to the layer's box."""
        own = self.box
        corner = own.topleft if offset is None else Vec3Int(offset)
        if not corner.is_positive():
            raise OutOfBoundsError(f"voxel coordinates cannot be negative, got the offset {corner}")
        extent = (own.bottomright - corner).pairmax(0) if size is None else _checked_size(size)
        return BoundingBox(corner, extent)

    def _check_bounds(self, box: BoundingBox) -> None:
        """Refuse only what lies beyond the reach of the format."""
        check_coordinates(box, self.spec.shard_shape)

    def __repr__(self) -> str:
        from wkdask.display import mag_text

        return mag_text(self._layer.record, self)

    def _repr_html_(self) -> str:
        from wkdask.display import mag_html

        return mag_html(self._layer.record, self)
