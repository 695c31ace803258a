"""Magnifications of layers with further axes, computed and copied position by position.

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
from wkdask.operations.copy import copy_mag
from wkdask.properties import Edit, GrowBox
from wkdask.properties.further_axes import GrowAxes, further_axes_of
from wkdask.pyramid.job import downsample_mags, plan_pyramid, upsample_mag
from wkdask.storage.formats import check_spec
from wkdask.storage.protocol import ArraySpec

if TYPE_CHECKING:
    from wkdask.layer.layer import Layer

__all__ = ["copy_positions", "downsample_positions", "upsample_positions"]


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


def copy_positions(
    layer: Layer,
    mag: Mag,
    source: NDMagView,
    spec: ArraySpec | None,
    options: WriteOptions,
    *,
    extend: bool,
) -> MagView:
    """Copy a mag, position by position; return the copy, in which the layer's bounds have grown around them.

    Parameters
    ----------
    layer
        The layer that gets it.
    mag
        Which mag it is there.
    source
        What is copied.
    spec
        How the copy is stored; None: the layer has that mag.
    options
        How it runs.
    extend
        Whether the layer's box grows around that of the source, and not only around what was copied.

    Raises
    ------
    InvalidValueError
        If type, channels or axes are others.
    """
    own = [axis.name for axis in further_axes_of(layer.record)]
    _check_axes(layer, own, source)
    have, want = (source.get_dtype(), source.num_channels), (layer.dtype_per_channel, layer.num_channels)
    if have != want:
        raise InvalidValueError(
            f"layer {layer.name!r} holds {want[1]} × {want[0]}, the mag {have[1]} × {have[0]}: that is not a copy"
        )
    whole = BoundingBox.from_ndbbox(source.bounding_box)
    box = whole.in_mag(source.mag)
    bounds = {axis: source.bounding_box.get_bounds(axis) for axis in own}
    edits: list[Edit] = [GrowAxes(layer.name, bounds)]
    if extend:
        edits.append(GrowBox(layer.name, box.from_mag_to_mag1(mag), Mag(1)))
    if spec is None:
        layer._commit(*edits)
        target = _nd_mag(layer, mag)
        for positions in source.positions():
            copy_mag(source.at(**positions).place.store, _writable(target.at(**positions)), box, options)
        return cast(MagView, target)
    layer._refuse_linked_folder()
    spec = check_spec(spec, layer.data_format)
    warn_of_cut(layer.name, mag, spec)
    with new_nd_mags(layer, {mag: spec}) as new_place:
        for positions in source.positions():
            copy_mag(source.at(**positions).place.store, new_place(mag, positions), box, options)
    layer._commit(*edits)
    return layer.get_mag(mag)


def _check_axes(layer: Layer, own: Sequence[str], read: object) -> None:
    """Refuse a mag whose further axes are not the layer's."""
    theirs = list(read.further_axes) if isinstance(read, NDMagView) else []
    if theirs != list(own):
        raise InvalidValueError(
            f"layer {layer.name!r} has the further axes {', '.join(own)}, the mag that is read has "
            f"{', '.join(theirs) or 'none'}"
        )


def _nd_mag(layer: Layer, mag: Mag) -> NDMagView:
    return cast(NDMagView, layer.get_mag(mag))


def _source(layer: Layer, start: Mag, source: MagView | None) -> NDMagView:
    """Return the mag that is read; refuse one whose positions are not the layer's."""
    read: object = _nd_mag(layer, start) if source is None else source
    _check_axes(layer, [axis.name for axis in further_axes_of(layer.record)], read)
    return cast(NDMagView, read)


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
