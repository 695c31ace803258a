"""A layer as a pyramid: coarser and finer magnifications computed from those that it has."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from wkdask.chunkwise import warn_of_ignored
from wkdask.errors import AlreadyExistsError, InvalidValueError, ReadOnlyError, WkdaskError, WkdaskWarning
from wkdask.events import WriteReport
from wkdask.geometry import BoundingBox, Mag, MagLike
from wkdask.job import WriteOptions
from wkdask.layer_mags import LayerMags
from wkdask.mag_view import MagView
from wkdask.progress import ProgressLike, listeners_for
from wkdask.pyramid import downsample_mags, plan_pyramid, upsample_mag
from wkdask.pyramid_mags import check_mag_order, default_coarsest_mag, interpolation_of, mag_chain
from wkdask.storage.jobs import unfinished_jobs

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.dataset import Dataset

__all__ = ["LayerPyramid"]


class LayerPyramid(LayerMags):
    """The sampling of a :class:`~wkdask.layer.Layer`."""

    def downsample(
        self,
        from_mag: MagLike | None = None,
        coarsest_mag: MagLike | None = None,
        interpolation_mode: str = "default",
        compression: str | bool | None = "lz4",
        sampling_mode: str = "anisotropic",
        buffer_edge_len: object = None,
        force_sampling_scheme: bool = False,
        args: object = None,
        *,
        align_with_other_layers: bool | Dataset = True,
        allow_overwrite: bool = False,
        only_setup_mags: bool = False,
        max_mag: MagLike | None = None,
        compress: bool | None = None,
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
            Of the new mags: ``"lz4"``, ``"lz4hc"`` or None. ``True`` means ``"lz4hc"``, ``False`` None.
        sampling_mode
            ``"anisotropic"`` brings voxels towards cubes, ``"isotropic"`` doubles all axes, ``"constant_z"``
            only x and y.
        force_sampling_scheme
            Without effect: mags of the same largest component, which it is for elsewhere, are never made.
        align_with_other_layers
            Take the mags that the dataset's other layers have, where their largest component is the next.
        allow_overwrite
            Compute mags that are there anew; they stay cut and compressed as they are.
        only_setup_mags
            Add the mags, compute nothing.
        max_mag, compress
            The 2021 spelling of `coarsest_mag` and ``compression="lz4hc"``.
        buffer_edge_len, args, executor
            Ignored, with a warning.
        client
            The cluster; the active one by default.
        durable
            Flush to the disk before a cube counts as written.
        resume
            Go on where an earlier call with the same arguments stopped: killed, interrupted, or failed. Cubes that
            it has published are not computed again. Another number of threads, or workers with other memory, may
            cut the work in another way: then it begins anew, with a warning.
        progress
            As in :meth:`MagView.write`.

        Returns
        -------
        list of WriteReport
            One per mag that was computed.

        Raises
        ------
        AlreadyExistsError
            If one of the mags is there, without `allow_overwrite`, or was left unfinished, without `resume`;
            nothing was written.
        InvalidValueError
            If the mags cannot be reached, the other layers do not agree, or the layer holds nothing.
        """
        warn_of_ignored(buffer_edge_len=buffer_edge_len, args=args, executor=executor)
        self._check_filled()
        del force_sampling_scheme
        coarsest_mag = _either("coarsest_mag", coarsest_mag, "max_mag", max_mag)
        mags = [record.mag for record in self.record.mags]
        unfinished = self._unfinished_mag()
        if unfinished is not None and not (resume or allow_overwrite):
            raise AlreadyExistsError(
                f"layer {self._name!r}: an interrupted call left mag {unfinished} and coarser ones unfinished; "
                f"resume=True (--resume) goes on with them, allow_overwrite=True computes them anew"
            )
        if from_mag is not None:
            start = self.record.mag(from_mag).mag
        elif unfinished is not None:
            start = max((mag for mag in mags if mag < unfinished), default=unfinished)
        else:
            start = max(mags)
        chain = self._default_chain(
            start, self.bounding_box, coarsest_mag, sampling_mode, align=align_with_other_layers
        )
        if not chain:
            return []
        options = WriteOptions(
            client=client, durable=durable, resume=resume, listeners=listeners_for(progress)
        )
        return self._downsample_chain(
            start,
            chain,
            interpolation_mode,
            _compression(compress, compression),
            options,
            allow_overwrite=allow_overwrite or unfinished is not None,
            only_setup_mags=only_setup_mags,
        )

    def downsample_mag(
        self,
        from_mag: MagLike,
        target_mag: MagLike,
        interpolation_mode: str = "default",
        compression: str | bool | None = "lz4",
        buffer_edge_len: object = None,
        args: object = None,
        allow_overwrite: bool = False,
        only_setup_mag: bool = False,
        *,
        compress: bool | None = None,
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
        buffer_edge_len, args, executor
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
        """
        warn_of_ignored(buffer_edge_len=buffer_edge_len, args=args, executor=executor)
        reports = self.downsample_mag_list(
            from_mag,
            [target_mag],
            interpolation_mode,
            compression,
            allow_overwrite=allow_overwrite,
            only_setup_mags=only_setup_mag,
            compress=compress,
            client=client,
            progress=progress,
        )
        return reports[0] if reports else None

    def downsample_mag_list(
        self,
        from_mag: MagLike,
        target_mags: Sequence[MagLike],
        interpolation_mode: str = "default",
        compression: str | bool | None = "lz4",
        buffer_edge_len: object = None,
        args: object = None,
        allow_overwrite: bool = False,
        only_setup_mags: bool = False,
        *,
        compress: bool | None = None,
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
        buffer_edge_len, args, executor
            Ignored, with a warning.

        Raises
        ------
        AlreadyExistsError
            If one of the targets is there, without `allow_overwrite`; nothing was written.
        InvalidValueError
            If the mags do not follow each other.
        """
        warn_of_ignored(buffer_edge_len=buffer_edge_len, args=args, executor=executor)
        self._check_filled()
        start = self.record.mag(from_mag).mag
        chain = check_mag_order(start, [Mag(mag) for mag in target_mags])
        options = WriteOptions(client=client, listeners=listeners_for(progress))
        return self._downsample_chain(
            start,
            chain,
            interpolation_mode,
            _compression(compress, compression),
            options,
            allow_overwrite=allow_overwrite,
            only_setup_mags=only_setup_mags,
        )

    def redownsample(
        self,
        interpolation_mode: str = "default",
        *,
        boxes: Iterable[BoundingBox] | None = None,
        previous_box: BoundingBox | None = None,
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
        executor
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
        """
        warn_of_ignored(executor=executor)
        self._check_filled()
        changed = None if boxes is None else [box.intersection(self.bounding_box) for box in boxes]
        if changed is not None and all(box.is_empty() for box in changed) and previous_box is None:
            return []
        finest, *coarser = sorted(
            (record.mag for record in self.record.mags), key=lambda mag: (mag.max_dim, mag.to_tuple())
        )
        options = WriteOptions(client=client, listeners=listeners_for(progress))
        return self._downsample_chain(
            finest,
            check_mag_order(finest, coarser),
            interpolation_mode,
            None,
            options,
            allow_overwrite=True,
            boxes=changed,
            previous_box=previous_box,
        )

    def upsample(
        self,
        from_mag: MagLike,
        finest_mag: MagLike | None = None,
        compression: str | bool | None = "lz4",
        sampling_mode: str = "anisotropic",
        buffer_edge_len: object = None,
        args: object = None,
        *,
        align_with_other_layers: bool | Dataset = True,
        min_mag: MagLike | None = None,
        compress: bool | None = None,
        executor: object = None,
        client: Client | None = None,
        progress: ProgressLike = None,
    ) -> list[WriteReport]:
        """Compute finer magnifications by repeating voxels; see :func:`wkdask.layer_sampling.upsample`."""
        warn_of_ignored(buffer_edge_len=buffer_edge_len, args=args, executor=executor)
        self._check_filled()
        finest_mag = _either("finest_mag", finest_mag, "min_mag", min_mag)
        start, end = Mag(from_mag), Mag(1 if finest_mag is None else finest_mag)
        others = self._mags_of_other_layers(align_with_other_layers)
        down = mag_chain(end, start, self._properties.record.voxel_size, sampling_mode, others)
        if not down or down[-1] != start:
            raise InvalidValueError(f"mag {start} is not reached from mag {end} in the {sampling_mode} mode")
        chain = [end, *down][-2::-1]
        self._refuse_all_existing(chain)
        options = WriteOptions(client=client, listeners=listeners_for(progress))
        source, reports = self.get_mag(start), []
        for mag in chain:
            target = self._add_like(source, mag, _compression(compress, compression))
            reports.append(upsample_mag(source.place, target.place, self.bounding_box, options))
            source = target
        return reports

    def _default_chain(
        self,
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
                f"layer {self._name!r} is one section: z is kept as it is (constant_z)",
                WkdaskWarning,
                stacklevel=3,
            )
            sampling_mode = "constant_z"
        others = self._mags_of_other_layers(align)
        return mag_chain(start, end, self._properties.record.voxel_size, sampling_mode, others)

    def _check_filled(self) -> None:
        """Refuse to sample a layer without mags or without voxels."""
        if not self.record.mags:
            raise InvalidValueError(f"layer {self._name!r} has no mag to start from")
        if self.bounding_box.is_empty():
            raise InvalidValueError(f"layer {self._name!r} is empty: there is nothing to sample")

    def _mags_of_other_layers(self, of: bool | Dataset) -> set[Mag]:
        """Return the mags of the dataset's other layers, or of another dataset's; none if they do not matter."""
        if of is False:
            return set()
        properties = self._properties if of is True else of._properties
        own = self._name if properties.folder == self._properties.folder else None
        return {
            record.mag for layer in properties.record.layers if layer.name != own for record in layer.mags
        }

    def _existing(self, chain: Sequence[Mag]) -> list[Mag]:
        """Return the mags of a chain that are there."""
        return [mag for mag in chain if any(mag == record.mag for record in self.record.mags)]

    def _writable(self, mag: Mag) -> MagView:
        """Return a mag; refuse one that may not be written."""
        view = self.get_mag(mag)
        if view.place.read_only is not None:
            raise ReadOnlyError(f"{view.place.label} is read-only: {view.place.read_only}")
        return view

    def _refuse_all_existing(self, chain: Sequence[Mag]) -> None:
        """Refuse a chain of which some mags are there."""
        there = self._existing(chain)
        if there:
            raise AlreadyExistsError(
                f"layer {self._name!r} has mag {', '.join(map(str, there))} already; delete it, or start from a "
                f"coarser one"
            )

    def _add_like(self, source: MagView, mag: Mag, compression: str | None) -> MagView:
        """Add a mag that is cut like another."""
        return self.add_mag(
            mag,
            chunk_shape=source.spec.chunk_shape,
            shard_shape=source.spec.shard_shape,
            compression=compression or False,
        )

    def _unfinished_mag(self) -> Mag | None:
        """Return the finest mag that an interrupted call was to compute; None if there is none."""
        mags = sorted(record.mag for record in self.record.mags)
        for mag, coarser in itertools.zip_longest(mags, mags[1:]):
            with contextlib.suppress(WkdaskError, OSError):  # one that cannot be opened is its own trouble
                jobs = unfinished_jobs(self.get_mag(mag).place.store)
                if any(job.action == "downsampling" for job in jobs):
                    return mag
                if coarser is not None and any(
                    job.layer_box is not None for job in jobs
                ):  # a write with them
                    return coarser
        return None

    def _downsample_chain(
        self,
        start: Mag,
        chain: Sequence[Mag],
        interpolation_mode: str,
        compression: str | None,
        options: WriteOptions,
        *,
        allow_overwrite: bool = False,
        only_setup_mags: bool = False,
        boxes: Sequence[BoundingBox] | None = None,
        previous_box: BoundingBox | None = None,
        source: MagView | None = None,
    ) -> list[WriteReport]:
        """Compute mags one from the other; those that are not there are added when all is planned."""
        mode = interpolation_of(interpolation_mode, self.record.is_segmentation)
        if not allow_overwrite:
            self._refuse_all_existing(chain)
        there = {mag: self._writable(mag) for mag in self._existing(chain)}
        if not chain:
            return []
        source = source or self.get_mag(start)
        new = replace(source.spec, compression=compression)
        cuts = [(mag, there[mag].spec if mag in there else new) for mag in chain]
        plan = plan_pyramid(
            (start, source.spec),
            cuts,
            self.bounding_box,
            mode,
            options,
            boxes=boxes,
            before=previous_box,
            existing=there,
        )
        targets = [there[mag] if mag in there else self._add_like(source, mag, compression) for mag in chain]
        if only_setup_mags:
            return []
        return downsample_mags(plan, source.place, [view.place for view in targets], options)


def _either(name: str, value: MagLike | None, old_name: str, old: MagLike | None) -> MagLike | None:
    """Return a mag from its newer or its 2021 spelling; not from both."""
    if value is not None and old is not None:
        raise InvalidValueError(f"give either {name} or its 2021 spelling {old_name}, not both")
    return old if value is None else value


def _compression(compress: bool | None, compression: str | bool | None) -> str | None:
    """Return the compression from either spelling; what was given in 2021's way counts."""
    wanted = compression if compress is None else compress
    if isinstance(wanted, bool):
        return "lz4hc" if wanted else None
    return wanted
