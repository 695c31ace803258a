"""A layer as a pyramid: coarser and finer magnifications computed from those that it has.

What the methods of `wkdask.layer.sampling` and a write with ``pyramid=True`` have in common.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from wkdask.errors import AlreadyExistsError, InvalidValueError, ReadOnlyError, WkdaskError, WkdaskWarning
from wkdask.geometry import BoundingBox, Mag, MagLike
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import MagPlace, WriteOptions
from wkdask.jobs.mag_folders import making_lock
from wkdask.layer.chunk_layout import NewCut, cut_like
from wkdask.layer.multiscales import write_multiscales
from wkdask.layer.positions import downsample_positions, upsample_positions
from wkdask.mag_view import MagView
from wkdask.properties.further_axes import has_further_axes
from wkdask.pyramid.job import PyramidPlan, downsample_mags, plan_pyramid, upsample_mag
from wkdask.pyramid.mags import default_coarsest_mag, interpolation_of, mag_chain
from wkdask.storage.publish.dead_jobs import is_unfinished
from wkdask.storage.publish.jobs import unfinished_jobs

if TYPE_CHECKING:
    from wkdask.dataset import Dataset
    from wkdask.layer.layer import Layer

__all__ = [
    "check_filled",
    "default_chain",
    "downsample_chain",
    "existing_mags",
    "mags_of_other_layers",
    "making_mags",
    "place_like",
    "planned_chain",
    "refuse_existing_mags",
    "unfinished_mag",
    "upsample_chain",
    "writable_mag",
]


def default_chain(
    layer: Layer,
    start: Mag,
    box: BoundingBox,
    coarsest_mag: MagLike | None = None,
    sampling_mode: str = "anisotropic",
    *,
    align: bool | Dataset = True,
) -> list[Mag]:
    """Return the mags that follow one in a layer of some box."""
    if coarsest_mag is not None:
        end = Mag(coarsest_mag)
    else:
        default = default_coarsest_mag(box)
        if default <= start:
            return []
        end = Mag(default.to_vec3_int().pairmax(start.to_vec3_int()))
    if box.size.z == 1 and sampling_mode != "constant_z":
        warnings.warn(
            f"layer {layer._name!r} is one section: z is kept as it is (constant_z)",
            WkdaskWarning,
            stacklevel=3,
        )
        sampling_mode = "constant_z"
    others = mags_of_other_layers(layer, align)
    return mag_chain(start, end, layer._file.record.voxel_size, sampling_mode, others)


def check_filled(layer: Layer) -> None:
    """Refuse to sample a layer without mags or without voxels."""
    if not layer.record.mags:
        raise InvalidValueError(f"layer {layer._name!r} has no mag to start from")
    if layer.record.bounding_box.is_empty():
        raise InvalidValueError(f"layer {layer._name!r} is empty: there is nothing to sample")


def mags_of_other_layers(layer: Layer, of: bool | Dataset) -> set[Mag]:
    """Return the mags of the dataset's other layers, or of another dataset's; none if they do not matter."""
    if of is False:
        return set()
    properties = layer._file if of is True else of._file
    own = layer._name if properties.folder == layer._file.folder else None
    others = [other for other in properties.record.layers if other.name != own]
    return {record.mag for other in others for record in other.mags}


def existing_mags(layer: Layer, chain: Sequence[Mag]) -> list[Mag]:
    """Return the mags of a chain that are there."""
    return [mag for mag in chain if any(mag == record.mag for record in layer.record.mags)]


def writable_mag(layer: Layer, mag: Mag) -> MagView:
    """Return a mag; refuse one that may not be written."""
    view = layer.get_mag(mag)
    if view.place.read_only is not None:
        raise ReadOnlyError(f"{view.place.label} is read-only: {view.place.read_only}")
    return view


def refuse_existing_mags(layer: Layer, chain: Sequence[Mag], remedy: str = "") -> None:
    """Refuse a chain if some of its mags are there; `remedy` replaces the usual advice."""
    there = existing_mags(layer, chain)
    if there:
        raise AlreadyExistsError(
            f"layer {layer._name!r} has mag {', '.join(map(str, there))} already; delete it, or start from a "
            f"coarser one{remedy}"
        )


def place_like(
    layer: Layer, source: MagView, mag: Mag, compression: str | None, cut: NewCut = (None, None)
) -> MagPlace:
    """Return where a mag will be that a job makes, cut like another unless a cut is given; nothing is made."""
    chunk, shard = cut_like(source.spec, layer.data_format, *cut)
    return layer._new_place(
        mag, replace(source.spec, chunk_shape=chunk, shard_shape=shard, compression=compression)
    )


@contextlib.contextmanager
def making_mags(layer: Layer, chain: Callable[[], list[Mag]]) -> Iterator[list[Mag]]:
    """Yield a chain of mags; of several jobs that make mags of the layer one runs at a time.

    The next one begins when those mags are listed: it computes what it changes of them, not all of them again.
    """
    with contextlib.ExitStack() as stack:
        mags = chain()
        if len(existing_mags(layer, mags)) < len(mags):
            stack.enter_context(making_lock(layer._file.folder, layer._name))
            mags = chain()
            if len(existing_mags(layer, mags)) == len(mags):
                stack.close()
        yield mags


def unfinished_mag(layer: Layer, chain: Sequence[Mag]) -> Mag | None:
    """Return the first mag of a chain that an interrupted call was to compute; None if there is none."""
    for mag in chain:
        with contextlib.suppress(
            WkdaskError, OSError
        ):  # one that cannot be opened is reported when it is used
            if mag in existing_mags(layer, [mag]):
                jobs = unfinished_jobs(layer.get_mag(mag).place.store)
                if any(
                    job.action == "downsampling" or job.role > 0 for job in jobs
                ):  # coarser mags of a write
                    return mag
            elif is_unfinished(os.path.join(layer.path, mag.to_layer_name())) is not None:
                return mag
    return None


def planned_chain(
    layer: Layer,
    start: Mag,
    chain: Sequence[Mag],
    mode: str,
    compression: str | None,
    options: WriteOptions,
    *,
    changed: tuple[Sequence[BoundingBox] | None, BoundingBox | None] = (None, None),
    source: MagView | None = None,
    cut: NewCut = (None, None),
) -> tuple[PyramidPlan, MagView, list[MagPlace], dict[Mag, MagView]]:
    """Return how mags would be computed: the plan, the mag that is read, the targets, those that are there."""
    there = {mag: writable_mag(layer, mag) for mag in existing_mags(layer, chain)}
    source = source or layer.get_mag(start)
    targets = [
        there[mag].place if mag in there else place_like(layer, source, mag, compression, cut)
        for mag in chain
    ]
    plan = plan_pyramid(
        (start, source.spec),
        [(place.mag, place.store.spec) for place in targets],
        layer.record.bounding_box,
        mode,
        options,
        boxes=changed[0],
        before=changed[1],
        existing=there,
    )
    return plan, source, targets, there


def downsample_chain(
    layer: Layer,
    start: Mag,
    chain: Sequence[Mag],
    interpolation_mode: str,
    compression: str | None,
    options: WriteOptions,
    *,
    allow_overwrite: bool = False,
    only_setup_mags: bool = False,
    changed: tuple[Sequence[BoundingBox] | None, BoundingBox | None] = (None, None),
    source: MagView | None = None,
    cut: NewCut = (None, None),
) -> list[WriteReport]:
    """Compute mags one from the other; those that are not there are added when all is planned.

    Parameters
    ----------
    layer, start, chain, interpolation_mode, compression, options, allow_overwrite, only_setup_mags
        As :meth:`Layer.downsample` has them, checked.
    changed
        The boxes in voxels of mag 1 that are computed again, all by default; and the layer's box before them.
    source
        What is read in place of the layer's mag `start`.
    cut
        Chunk and shard shape of new mags.
    """
    mode = interpolation_of(interpolation_mode, layer.record.is_segmentation)
    if not chain:
        return []
    with making_mags(layer, lambda: list(chain)):
        if not allow_overwrite:
            refuse_existing_mags(layer, chain, ", or compute it anew with allow_overwrite=True (--overwrite)")
        if has_further_axes(layer.record.raw):
            return downsample_positions(
                layer,
                start,
                chain,
                mode,
                compression,
                options,
                only_setup_mags=only_setup_mags,
                changed=changed,
                source=source,
                cut=cut,
            )
        plan, source, targets, there = planned_chain(
            layer,
            start,
            chain,
            mode,
            compression,
            options,
            changed=changed,
            source=source,
            cut=cut,
        )
        new = [place for place in targets if place.mag not in there]
        if only_setup_mags:
            for place in new:
                layer._add_as(place)
            return []
        reports = downsample_mags(plan, source.place, targets, {place.mag for place in new}, options)
        if new:
            write_multiscales(layer._file, layer._name)
        return reports


def upsample_chain(
    layer: Layer,
    start: Mag,
    chain: Sequence[Mag],
    compression: str | None,
    options: WriteOptions,
    *,
    source: MagView | None = None,
    cut: NewCut = (None, None),
) -> list[WriteReport]:
    """Compute finer mags, each from the one before; none of them is there.

    Parameters
    ----------
    layer, start, chain, compression, options, source, cut
        As :meth:`Layer.upsample` has them, checked.
    """
    with making_mags(layer, lambda: list(chain)):
        refuse_existing_mags(layer, chain)
        if has_further_axes(layer.record.raw):
            return upsample_positions(layer, start, chain, compression, options, source=source, cut=cut)
        read, reports = source or layer.get_mag(start), []
        for mag in chain:
            target = place_like(layer, read, mag, compression, cut)
            reports.append(upsample_mag(read.place, target, layer.record.bounding_box, options))
            write_multiscales(layer._file, layer.name)
            read = layer.get_mag(mag)
    return reports
