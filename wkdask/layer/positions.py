"""Coarser and finer magnifications of layers with further axes, computed position by position.

A position is a mag of c, x, y, z, and a job computes it as it computes any. New mags are listed when all their
positions are complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from wkdask.errors import InvalidValueError, ReadOnlyError, UnsupportedFormatError
from wkdask.further_axes.mag_view import NDMagView
from wkdask.geometry import BoundingBox, Mag
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import MagPlace, WriteOptions
from wkdask.layer.axes import new_nd_mags
from wkdask.layer.chunk_layout import NewCut, cut_like
from wkdask.layer.elsewhere import warn_of_cut
from wkdask.mag_view import MagView
from wkdask.properties.further_axes import further_axes_of
from wkdask.pyramid.job import downsample_mags, plan_pyramid, upsample_mag
from wkdask.storage.formats import check_spec
from wkdask.storage.protocol import ArraySpec

if TYPE_CHECKING:
    from wkdask.layer.layer import Layer

__all__ = ["downsample_positions", "upsample_positions"]


def downsample_positions(
    layer: Layer,
    start: Mag,
    chain: Sequence[Mag],
    mode: str,
    compression: str | None,
    options: WriteOptions,
    *,
    only_setup_mags: bool = False,
    changed: tuple[Sequence[BoundingBox] | None, BoundingBox | None] = (None, None),
    source: MagView | None = None,
    cut: NewCut = (None, None),
) -> list[WriteReport]:
    """Compute mags one from the other; return a report for each mag of each position.

    Parameters
    ----------
    layer, start, chain, compression, options, only_setup_mags, changed, source, cut
        As for `wkdask.layer.pyramid.downsample_chain`, checked.
    mode
        A mode of `wkdask.kernels.downsample`.

    Raises
    ------
    UnsupportedFormatError
        If the call is to be resumed, or positions are no folders of their own.
    InvalidValueError
        If what is read has other axes.
    """
    if options.resume:
        raise UnsupportedFormatError(
            f"layer {layer.name!r} has axes beside c, x, y, z, and its mags are computed position by position, "
            f"which cannot be resumed: call it without resume=True (--resume)"
        )
    read = _source(layer, start, source)
    there = _existing(layer, chain)
    spec = _spec_like(layer, read.first_position(), compression, cut)
    new = {mag: spec for mag in chain if mag not in there}
    reports: list[WriteReport] = []
    with new_nd_mags(layer, new) as new_place:
        for mag in new:
            warn_of_cut(layer.name, mag, spec)
        for positions in () if only_setup_mags else read.positions():
            view = read.at(**positions)
            targets = [
                _writable(there[mag].at(**positions)) if mag in there else new_place(mag, positions)
                for mag in chain
            ]
            plan = plan_pyramid(
                (start, view.spec),
                [(place.mag, place.store.spec) for place in targets],
                layer.record.bounding_box,
                mode,
                options,
                boxes=changed[0],
                before=changed[1],
                existing=there,
            )
            reports += downsample_mags(plan, view.place, targets, (), options)
    return reports


def upsample_positions(
    layer: Layer,
    start: Mag,
    chain: Sequence[Mag],
    compression: str | None,
    options: WriteOptions,
    *,
    source: MagView | None = None,
    cut: NewCut = (None, None),
) -> list[WriteReport]:
    """Compute finer mags, each from the one before; return a report for each position of each mag.

    Parameters
    ----------
    layer, start, chain, compression, options, source, cut
        As :meth:`Layer.upsample` has them, checked; none of the mags is there.
    """
    read, reports = _source(layer, start, source), []
    for mag in chain:
        spec = _spec_like(layer, read.first_position(), compression, cut)
        warn_of_cut(layer.name, mag, spec)
        with new_nd_mags(layer, {mag: spec}) as new_place:
            for positions in read.positions():
                report = upsample_mag(
                    read.at(**positions).place,
                    new_place(mag, positions),
                    layer.record.bounding_box,
                    options,
                    new=False,
                )
                reports.append(report)
        read = _nd_mag(layer, mag)
    return reports


def _nd_mag(layer: Layer, mag: Mag) -> NDMagView:
    return cast(NDMagView, layer.get_mag(mag))


def _source(layer: Layer, start: Mag, source: MagView | None) -> NDMagView:
    """Return the mag that is read; refuse one whose positions are not the layer's."""
    read: object = _nd_mag(layer, start) if source is None else source
    own = [axis.name for axis in further_axes_of(layer.record)]
    theirs = list(read.further_axes) if isinstance(read, NDMagView) else []
    if not isinstance(read, NDMagView) or theirs != own:
        raise InvalidValueError(
            f"layer {layer.name!r} has the further axes {', '.join(own)}, from_mag_view has "
            f"{', '.join(theirs) or 'none'}"
        )
    return read


def _existing(layer: Layer, chain: Sequence[Mag]) -> dict[Mag, NDMagView]:
    """Return the mags of a chain that are there."""
    listed = {record.mag for record in layer.record.mags}
    return {mag: _nd_mag(layer, mag) for mag in chain if mag in listed}


def _writable(view: MagView) -> MagPlace:
    """Return where a position is; refuse one that may not be written."""
    if view.place.read_only is not None:
        raise ReadOnlyError(f"{view.place.label} is read-only: {view.place.read_only}")
    return view.place


def _spec_like(layer: Layer, view: MagView, compression: str | None, cut: NewCut) -> ArraySpec:
    """Return how a new mag is stored: cut like another unless a cut is given."""
    layer._refuse_linked_folder()
    chunk, shard = cut_like(view.spec, layer.data_format, *cut)
    return check_spec(
        replace(view.spec, chunk_shape=chunk, shard_shape=shard, compression=compression), layer.data_format
    )
