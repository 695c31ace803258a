"""The sampling of a layer with version 4's parameters: how new mags are cut, and sources in other datasets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from wkdask.errors import AlreadyExistsError, InvalidValueError
from wkdask.geometry import BoundingBox, Mag, MagLike, Vec3IntLike
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import WriteOptions
from wkdask.layer.chunk_layout import NewCut, compression_of, either_spelling
from wkdask.layer.pyramid import (
    check_filled,
    default_chain,
    downsample_chain,
    existing_mags,
    mags_of_other_layers,
    refuse_existing_mags,
    unfinished_mag,
    upsample_chain,
)
from wkdask.layer.zarr_config import CompressLike
from wkdask.mag_view import MagView
from wkdask.names import SamplingModes
from wkdask.operations.chunks import warn_of_ignored
from wkdask.progress.bar import ProgressLike, listeners_for
from wkdask.pyramid.mags import check_mag_order, interpolation_of, mag_chain

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.dataset import Dataset
    from wkdask.layer.layer import Layer

__all__ = [
    "coarser_chain",
    "downsample",
    "downsample_mag",
    "downsample_mag_list",
    "finer_chain",
    "redownsample",
    "upsample",
]

ShapeLike: TypeAlias = "Vec3IntLike | int | None"
"""Sides: one for all axes, or three; None where nothing is said."""


def downsample(
    self: Layer,
    from_mag: MagLike | None = None,
    coarsest_mag: MagLike | None = None,
    interpolation_mode: str = "default",
    compression: str | bool | None = "lz4",
    sampling_mode: str = SamplingModes.ANISOTROPIC,
    buffer_edge_len: object = None,
    force_sampling_scheme: bool = False,
    args: object = None,
    *,
    align_with_other_layers: bool | Dataset = True,
    allow_overwrite: bool = False,
    only_setup_mags: bool = False,
    from_mag_view: MagView | None = None,
    chunk_shape: ShapeLike = None,
    shard_shape: ShapeLike = None,
    buffer_shape: object = None,
    max_mag: MagLike | None = None,
    compress: CompressLike = None,
    executor: object = None,
    client: Client | None = None,
    durable: bool = True,
    resume: bool = False,
    progress: ProgressLike = None,
) -> list[WriteReport]:
    """Compute the coarser magnifications, all in one pass over the finest.

    Parameters
    ----------
    from_mag
        Where to start; the coarsest there is by default.
    coarsest_mag
        Where to end; by default the mag at which the longer side of the plane is about 100 voxels.
    interpolation_mode
        ``"default"`` (median for images, mode for segmentations), ``"median"``, ``"mode"``,
        ``"nearest"`` (the first voxel of a window), ``"min"``, ``"max"``, ``"bilinear"`` or ``"bicubic"`` (the
        interpolant at a window's centre, see :mod:`wkdask.kernels.interpolation`; not for segmentations).
    compression
        Of the new mags, as in :meth:`add_mag`; ``"lz4"`` and ``"lz4hc"`` mean ``"zstd"`` in Zarr.
    sampling_mode
        ``"anisotropic"`` brings voxels towards cubes, ``"isotropic"`` doubles all axes, ``"constant_z"``
        only x and y; or one of `SamplingModes`.
    force_sampling_scheme
        Without effect: mags of the same largest component, which it is for elsewhere, are never made.
    align_with_other_layers
        Take the mags that the dataset's other layers have, where their largest component is the next; of another
        dataset's layers where one is given.
    allow_overwrite
        Compute mags that are there anew; they stay cut and compressed as they are.
    only_setup_mags
        Add the mags, compute nothing.
    from_mag_view
        Read the finest mag there, in this or another dataset, instead of in this layer.
    chunk_shape, shard_shape
        Sides of chunks and cubes of the new mags; those of the finest by default.
    max_mag, compress
        The 2021 spelling of `coarsest_mag` and ``compression="lz4hc"``; version 4's `Zarr3Config`.
    buffer_edge_len, buffer_shape, args, executor
        Ignored, with a warning.
    client
        The cluster; the active one by default.
    durable
        Flush to the disk before a cube counts as written.
    resume
        Go on where an earlier call with the same arguments stopped: killed, interrupted, or failed. Cubes that
        it has published are not computed again. Another number of threads, or workers with other memory, may
        cut the work in another way: it is the same call nevertheless, and computes all of them again.
        If the earlier call has ended, its reports are returned; mags of another call (another mode, a source that
        has changed) are refused, also if `from_mag` is not given and there is no coarser mag to make. Refused
        for layers with further axes.
    progress
        As in :meth:`MagView.write`.

    Returns
    -------
    list of WriteReport
        One per mag that was computed; of a layer with further axes, which is computed position by position, one
        per mag of each position.

    Raises
    ------
    AlreadyExistsError
        If one of the mags is there, without `allow_overwrite`, or was left unfinished, without `resume` or by
        another call; nothing was written.
    InvalidValueError
        If the mags cannot be reached, the other layers do not agree, or the layer holds nothing.

    Examples
    --------
    >>> reports = layer.downsample(coarsest_mag=4)
    >>> [str(mag) for mag in layer.mags]
    ['1', '2-2-1', '4-4-1']
    """
    warn_of_ignored(buffer_edge_len=buffer_edge_len, buffer_shape=buffer_shape, args=args, executor=executor)
    del force_sampling_scheme
    coarsest_mag = either_spelling("coarsest_mag", coarsest_mag, "max_mag", max_mag)
    start, chain = coarser_chain(
        self, from_mag, from_mag_view, coarsest_mag, sampling_mode, align_with_other_layers
    )
    options = WriteOptions(
        client=client,
        durable=durable,
        resume=resume,
        overwrite=allow_overwrite or not resume,
        listeners=listeners_for(progress),
    )
    if resume and not chain and from_mag is None and from_mag_view is None and not allow_overwrite:
        return _ended(self, coarsest_mag, sampling_mode, align_with_other_layers, interpolation_mode, options)
    unfinished = unfinished_mag(self, chain)
    if unfinished is not None and not (resume or allow_overwrite):
        raise AlreadyExistsError(
            f"layer {self.name!r}: an interrupted call left mag {unfinished} and coarser ones unfinished; "
            f"resume=True (--resume) continues it, allow_overwrite=True (--overwrite) begins from the start"
        )
    # Of a call that has ended all mags are there. It is answered by its receipt; another one is refused.
    ended = resume and unfinished is None and len(existing_mags(self, chain)) == len(chain)
    return downsample_chain(
        self,
        start,
        chain,
        interpolation_mode,
        compression_of(self.data_format, compress, compression),
        options,
        allow_overwrite=allow_overwrite or unfinished is not None or ended,
        only_setup_mags=only_setup_mags,
        source=from_mag_view,
        cut=(chunk_shape, shard_shape),
    )


def downsample_mag(
    self: Layer,
    from_mag: MagLike,
    target_mag: MagLike,
    interpolation_mode: str = "default",
    compression: str | bool | None = "lz4",
    buffer_edge_len: object = None,
    args: object = None,
    allow_overwrite: bool = False,
    only_setup_mag: bool = False,
    *,
    from_mag_view: MagView | None = None,
    chunk_shape: ShapeLike = None,
    shard_shape: ShapeLike = None,
    buffer_shape: object = None,
    compress: CompressLike = None,
    executor: object = None,
    client: Client | None = None,
    progress: ProgressLike = None,
) -> WriteReport | None:
    """Compute one magnification from another.

    Parameters
    ----------
    from_mag, target_mag
        The second is coarser in at least one component and finer in none.
    interpolation_mode, compression, allow_overwrite, compress, client, progress
        As for :meth:`downsample`.
    only_setup_mag
        Add the mag, compute nothing.
    from_mag_view, chunk_shape, shard_shape
        As for :meth:`downsample`.
    buffer_edge_len, buffer_shape, args, executor
        Ignored, with a warning.

    Returns
    -------
    WriteReport or None
        None with `only_setup_mag`.

    Raises
    ------
    AlreadyExistsError
        If the target is there, without `allow_overwrite`.
    InvalidValueError
        If it cannot be computed from the other.

    Examples
    --------
    >>> report = layer.downsample_mag(from_mag=1, target_mag=2)
    >>> layer.get_mag(2).shape
    (1, 32, 32, 16)
    """
    warn_of_ignored(buffer_edge_len=buffer_edge_len, buffer_shape=buffer_shape, args=args, executor=executor)
    reports = _list(
        self,
        from_mag,
        [target_mag],
        from_mag_view,
        interpolation_mode,
        compression_of(self.data_format, compress, compression),
        (chunk_shape, shard_shape),
        WriteOptions(client=client, listeners=listeners_for(progress)),
        allow_overwrite=allow_overwrite,
        only_setup_mags=only_setup_mag,
    )
    return reports[0] if reports else None


def downsample_mag_list(
    self: Layer,
    from_mag: MagLike,
    target_mags: Sequence[MagLike],
    interpolation_mode: str = "default",
    compression: str | bool | None = "lz4",
    buffer_edge_len: object = None,
    args: object = None,
    allow_overwrite: bool = False,
    only_setup_mags: bool = False,
    *,
    chunk_shape: ShapeLike = None,
    shard_shape: ShapeLike = None,
    buffer_shape: object = None,
    compress: CompressLike = None,
    executor: object = None,
    client: Client | None = None,
    progress: ProgressLike = None,
) -> list[WriteReport]:
    """Compute several magnifications, each from the one before.

    Parameters
    ----------
    from_mag
        Where to start.
    target_mags
        In any order; sorted, no component may shrink from one to the next.
    interpolation_mode, compression, allow_overwrite, only_setup_mags, compress, client, progress
        As for :meth:`downsample`.
    chunk_shape, shard_shape
        As for :meth:`downsample`.
    buffer_edge_len, buffer_shape, args, executor
        Ignored, with a warning.

    Raises
    ------
    AlreadyExistsError
        If one of the targets is there, without `allow_overwrite`; nothing was written.
    InvalidValueError
        If the mags do not follow each other.

    Examples
    --------
    >>> reports = layer.downsample_mag_list(from_mag=1, target_mags=["2-2-1", "4-4-1"])
    >>> layer.get_mag("4-4-1").shape
    (1, 16, 16, 32)
    """
    warn_of_ignored(buffer_edge_len=buffer_edge_len, buffer_shape=buffer_shape, args=args, executor=executor)
    return _list(
        self,
        from_mag,
        target_mags,
        None,
        interpolation_mode,
        compression_of(self.data_format, compress, compression),
        (chunk_shape, shard_shape),
        WriteOptions(client=client, listeners=listeners_for(progress)),
        allow_overwrite=allow_overwrite,
        only_setup_mags=only_setup_mags,
    )


def redownsample(
    self: Layer,
    interpolation_mode: str = "default",
    compress: object = None,
    buffer_edge_len: object = None,
    args: object = None,
    *,
    boxes: Iterable[BoundingBox] | None = None,
    previous_box: BoundingBox | None = None,
    buffer_shape: object = None,
    chunk_shape: object = None,
    shard_shape: object = None,
    executor: object = None,
    client: Client | None = None,
    progress: ProgressLike = None,
) -> list[WriteReport]:
    """Compute all coarser magnifications anew from the finest, or what of them has changed.

    They stay cut and compressed as they are. Voxels outside of the layer's box stay too.

    Parameters
    ----------
    interpolation_mode, client, progress
        As for :meth:`downsample`.
    boxes
        What has changed, absolute, in voxels of mag 1; each is aligned outwards to the coarsest mag. Everything
        by default. The rest is neither read nor written.
    previous_box
        The layer's bounding box before that change, where it has grown: windows across the old border were
        computed from mirrored voxels, and are redone too.
    compress, chunk_shape, shard_shape
        Without effect: the mags stay cut and compressed as they are.
    buffer_edge_len, buffer_shape, args, executor
        Ignored, with a warning.

    Returns
    -------
    list of WriteReport
        One per coarser mag; none if there is no coarser mag, or `boxes` hold no voxel of the layer.

    Raises
    ------
    InvalidValueError
        If the layer holds nothing, or one of its mags cannot be computed from the one before.
    ReadOnlyError
        If one of the coarser mags is a link out of the dataset; nothing was written.

    Examples
    --------
    >>> _ = layer.downsample(coarsest_mag=4)
    >>> box = BoundingBox((0, 0, 0), (8, 8, 8))
    >>> report = mag.write(np.full((8, 8, 8), 9, "uint8"), bounding_box=box)
    >>> [report.cubes for report in layer.redownsample(boxes=[box])]
    [1, 1]
    """
    warn_of_ignored(
        compress=compress,
        buffer_edge_len=buffer_edge_len,
        buffer_shape=buffer_shape,
        chunk_shape=chunk_shape,
        shard_shape=shard_shape,
        args=args,
        executor=executor,
    )
    check_filled(self)
    changed = None if boxes is None else [box.intersection(self.record.bounding_box) for box in boxes]
    if changed is not None and all(box.is_empty() for box in changed) and previous_box is None:
        return []
    finest, *coarser = sorted(
        (record.mag for record in self.record.mags), key=lambda mag: (mag.max_dim, mag.to_tuple())
    )
    return downsample_chain(
        self,
        finest,
        check_mag_order(finest, coarser),
        interpolation_mode,
        None,
        WriteOptions(client=client, listeners=listeners_for(progress)),
        allow_overwrite=True,
        changed=(changed, previous_box),
    )


def upsample(
    self: Layer,
    from_mag: MagLike,
    finest_mag: MagLike | None = None,
    compression: str | bool | None = "lz4",
    sampling_mode: str = SamplingModes.ANISOTROPIC,
    buffer_edge_len: object = None,
    args: object = None,
    *,
    align_with_other_layers: bool | Dataset = True,
    from_mag_view: MagView | None = None,
    chunk_shape: ShapeLike = None,
    shard_shape: ShapeLike = None,
    buffer_shape: object = None,
    min_mag: MagLike | None = None,
    compress: CompressLike = None,
    executor: object = None,
    client: Client | None = None,
    progress: ProgressLike = None,
) -> list[WriteReport]:
    """Compute finer magnifications by repeating voxels.

    Parameters
    ----------
    from_mag
        Where to start.
    finest_mag
        Where to end; mag 1 by default.
    compression, compress, client, progress
        As for :meth:`downsample`.
    sampling_mode, align_with_other_layers
        The mags are those that downsampling from `finest_mag` to `from_mag` would go through.
    from_mag_view, chunk_shape, shard_shape
        As for :meth:`downsample`; the mag that is read need not be one of the layer's.
    min_mag
        The 2021 spelling of `finest_mag`.
    buffer_edge_len, buffer_shape, args, executor
        Ignored, with a warning.

    Raises
    ------
    AlreadyExistsError
        If one of the mags is there; nothing was written.
    InvalidValueError
        If `from_mag` is not reached from `finest_mag`.

    Examples
    --------
    >>> coarse = ds.add_layer("coarse", "color")
    >>> report = coarse.add_mag("2-2-1", shard_shape=32).write(np.full((32, 32, 32), 7, "uint8"))
    >>> reports = coarse.upsample(from_mag="2-2-1")
    >>> coarse.get_mag(1).shape
    (1, 64, 64, 32)
    """
    warn_of_ignored(buffer_edge_len=buffer_edge_len, buffer_shape=buffer_shape, args=args, executor=executor)
    end = Mag(either_spelling("finest_mag", finest_mag, "min_mag", min_mag) or 1)
    start, chain = finer_chain(self, from_mag, from_mag_view, end, sampling_mode, align_with_other_layers)
    options = WriteOptions(client=client, listeners=listeners_for(progress))
    named = compression_of(self.data_format, compress, compression)
    return upsample_chain(
        self, start, chain, named, options, source=from_mag_view, cut=(chunk_shape, shard_shape)
    )


# --- what they share ------------------------------------------------------------------------------------


def coarser_chain(
    layer: Layer,
    from_mag: MagLike | None,
    view: MagView | None,
    coarsest_mag: MagLike | None,
    sampling_mode: str,
    align: bool | Dataset,
) -> tuple[Mag, list[Mag]]:
    """Return the mag that is read and those that follow it."""
    start = _start(layer, from_mag, view)
    if from_mag is None and view is None:
        mags = sorted(layer.mags)
        stopped = unfinished_mag(layer, mags)
        if stopped is not None:  # a call that was to compute mags anew began before the first of them
            start = max((mag for mag in mags if mag < stopped), default=start)
    return start, default_chain(
        layer, start, layer.record.bounding_box, coarsest_mag, str(sampling_mode), align=align
    )


def finer_chain(
    layer: Layer,
    from_mag: MagLike,
    view: MagView | None,
    end: Mag,
    sampling_mode: str,
    align: bool | Dataset,
) -> tuple[Mag, list[Mag]]:
    """Return the mag that is read and those that are made of it, coarsest first; refuse those that are there."""
    start = _start(layer, from_mag, view)
    others = mags_of_other_layers(layer, align)
    down = mag_chain(end, start, layer._file.record.voxel_size, str(sampling_mode), others)
    if not down or down[-1] != start:
        raise InvalidValueError(
            f"mag {start} is not reached from mag {end} in the {sampling_mode} mode, which goes to "
            f"{', '.join(map(str, down)) or 'none'}; choose another finest_mag (--finest-mag) or sampling_mode "
            f"(--sampling-mode)"
        )
    chain = [end, *down][-2::-1]
    refuse_existing_mags(layer, chain)
    return start, chain


def _ended(
    layer: Layer,
    coarsest_mag: MagLike | None,
    sampling_mode: str,
    align: bool | Dataset,
    interpolation_mode: str,
    options: WriteOptions,
) -> list[WriteReport]:
    """Return the reports of the call that made the coarsest mags; none if there is only one mag.

    Raises
    ------
    AlreadyExistsError
        If it was another call.
    """
    interpolation_of(interpolation_mode, layer.record.is_segmentation)
    mags = sorted(record.mag for record in layer.record.mags)
    if len(mags) < 2:
        return []
    for start in mags[:-1]:
        with contextlib.suppress(AlreadyExistsError, InvalidValueError):  # made from another mag, perhaps
            chain = default_chain(
                layer,
                start,
                layer.record.bounding_box,
                coarsest_mag or mags[-1],
                str(sampling_mode),
                align=align,
            )
            if chain and len(existing_mags(layer, chain)) == len(chain):
                return downsample_chain(
                    layer, start, chain, interpolation_mode, None, options, allow_overwrite=True
                )
    raise AlreadyExistsError(
        f"layer {layer.name!r} has mag {mags[-1]} already, and this call has not computed it from what the layer "
        f"holds now; from_mag={mags[0]} with allow_overwrite=True (--from-mag {mags[0]} --overwrite) computes it "
        f"anew, and without resume=True (--resume) it is left as it is"
    )


def _start(layer: Layer, from_mag: MagLike | None, view: MagView | None) -> Mag:
    """Return the mag that is read; refuse a layer without voxels, and a view of another mag than the one named."""
    if view is None:
        check_filled(layer)
        return layer.record.mag(max(layer.mags) if from_mag is None else from_mag).mag
    if layer.record.bounding_box.is_empty():
        raise InvalidValueError(f"layer {layer.name!r} is empty: there is nothing to sample")
    if from_mag is not None and view.mag != Mag(from_mag):
        raise InvalidValueError(f"from_mag_view is of mag {view.mag}, from_mag says {Mag(from_mag)}")
    own, theirs = (layer.dtype_per_channel, layer.num_channels), (view.get_dtype(), view.num_channels)
    if own != theirs:
        raise InvalidValueError(
            f"layer {layer.name!r} holds {own[1]} × {own[0]}, from_mag_view {theirs[1]} × {theirs[0]}"
        )
    return view.mag


def _list(
    layer: Layer,
    from_mag: MagLike,
    target_mags: Sequence[MagLike],
    view: MagView | None,
    mode: str,
    compression: str | None,
    cut: NewCut,
    options: WriteOptions,
    *,
    allow_overwrite: bool,
    only_setup_mags: bool,
) -> list[WriteReport]:
    """Compute several mags, each from the one before."""
    start = _start(layer, from_mag, view)
    chain = check_mag_order(start, [Mag(mag) for mag in target_mags])
    return downsample_chain(
        layer,
        start,
        chain,
        mode,
        compression,
        options,
        allow_overwrite=allow_overwrite,
        only_setup_mags=only_setup_mags,
        source=view,
        cut=cut,
    )
