"""A write into a layer's finest mag together with the coarser ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox, Mag
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import WriteOptions
from wkdask.layer.multiscales import write_multiscales
from wkdask.layer.pyramid import default_chain, existing_mags, making_mags, place_like, writable_mag
from wkdask.mag_view import MagView
from wkdask.operations.write import write_voxels
from wkdask.properties import GrowBox
from wkdask.pyramid.mags import check_mag_order, interpolation_of
from wkdask.pyramid.write import Coarser, plan_with_pyramid, write_with_pyramid

if TYPE_CHECKING:
    from wkdask.layer.layer import Layer

__all__ = ["write_with_coarser"]


def write_with_coarser(
    self: Layer, view: MagView, data: Any, box: BoundingBox, options: WriteOptions
) -> WriteReport:
    """Write an array into the finest mag and compute the coarser ones; see :meth:`MagView.write`.

    Parameters
    ----------
    view
        The finest mag.
    data
        The array, checked; all channels of a voxel in one block.
    box
        Where it goes: absolute, in voxels of the mag.
    options
        How it runs.
    """
    finest = min((record.mag for record in self.record.mags), key=lambda mag: (mag.max_dim, mag.to_tuple()))
    if view.mag != finest:
        raise InvalidValueError(
            f"{view.place.label}: pyramid=True computes coarser mags from the finest, which is mag {finest}"
        )
    self._refuse_further_axes("pyramid=True would compute one position; layer.redownsample() computes all")
    with making_mags(self, lambda: _chain_of_write(self, view, box)) as chain:
        if not chain:
            return write_voxels(view.place, data, box, options)
        there = {mag: writable_mag(self, mag) for mag in existing_mags(self, chain)}
        compression, layer_box = view.spec.compression, self.record.bounding_box
        targets = [
            there[mag].place if mag in there else place_like(self, view, mag, compression) for mag in chain
        ]
        coarser = Coarser(
            cuts=tuple((place.mag, place.store.spec) for place in targets),
            mode=interpolation_of("default", self.record.is_segmentation),
            existing=frozenset(there),
            layer_box=layer_box,
            before=layer_box,
        )
        planned = plan_with_pyramid(view.place, data, box, coarser, options)
        new = {mag for mag in chain if mag not in there}
        report = write_with_pyramid(planned, view.place, data, targets, new, options)
        if new:
            write_multiscales(self._file, self._name)
        return report


def _chain_of_write(layer: Layer, view: MagView, box: BoundingBox) -> list[Mag]:
    """Return the mags that a write into the finest one concerns: those that are there, else the usual ones."""
    coarser = sorted(
        (record.mag for record in layer.record.mags if record.mag != view.mag),
        key=lambda mag: (mag.max_dim, mag.to_tuple()),
    )
    if coarser:
        return check_mag_order(view.mag, coarser)
    return default_chain(layer, view.mag, GrowBox(layer._name, box, view.mag).of(layer.record.bounding_box))
