"""A layer as a pyramid: coarser and finer magnifications computed from those that it has."""

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
from wkdask.layer.mags import LayerMags
from wkdask.layer.multiscales import write_multiscales
from wkdask.mag_view import MagView
from wkdask.pyramid.job import PyramidPlan, downsample_mags, plan_pyramid
from wkdask.pyramid.mags import default_coarsest_mag, interpolation_of, mag_chain
from wkdask.storage.publish.dead_jobs import is_unfinished
from wkdask.storage.publish.jobs import unfinished_jobs

if TYPE_CHECKING:
    from wkdask.dataset import Dataset

__all__ = ["LayerPyramid"]


class LayerPyramid(LayerMags):
    """What the sampling of a :class:`~wkdask.layer.layer.Layer` does; its calls are in `wkdask.layer.sampling`."""

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
        return mag_chain(start, end, self._file.record.voxel_size, sampling_mode, others)

    def _check_filled(self) -> None:
        """Refuse to sample a layer without mags or without voxels."""
        if not self.record.mags:
            raise InvalidValueError(f"layer {self._name!r} has no mag to start from")
        if self.record.bounding_box.is_empty():
            raise InvalidValueError(f"layer {self._name!r} is empty: there is nothing to sample")

    def _mags_of_other_layers(self, of: bool | Dataset) -> set[Mag]:
        """Return the mags of the dataset's other layers, or of another dataset's; none if they do not matter."""
        if of is False:
            return set()
        properties = self._file if of is True else of._file
        own = self._name if properties.folder == self._file.folder else None
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

    def _refuse_all_existing(self, chain: Sequence[Mag], remedy: str = "") -> None:
        """Refuse a chain if some of its mags are there; `remedy` replaces the usual advice."""
        there = self._existing(chain)
        if there:
            raise AlreadyExistsError(
                f"layer {self._name!r} has mag {', '.join(map(str, there))} already; delete it, or start from a "
                f"coarser one{remedy}"
            )

    def _place_like(
        self, source: MagView, mag: Mag, compression: str | None, cut: NewCut = (None, None)
    ) -> MagPlace:
        """Return where a mag will be that a job makes, cut like another unless a cut is given; nothing is made."""
        chunk, shard = cut_like(source.spec, self.data_format, *cut)
        return self._new_place(
            mag, replace(source.spec, chunk_shape=chunk, shard_shape=shard, compression=compression)
        )

    @contextlib.contextmanager
    def _making(self, chain: Callable[[], list[Mag]]) -> Iterator[list[Mag]]:
        """Yield a chain of mags; of several jobs that make mags of the layer one runs at a time.

        The next one begins when those mags are listed: it computes what it changes of them, not all of them again.
        """
        self._refuse_further_axes(
            "coarser and finer mags of it are not computed; layer.add_mag() adds one, and mag.write() writes it"
        )
        with contextlib.ExitStack() as stack:
            mags = chain()
            if len(self._existing(mags)) < len(mags):
                stack.enter_context(making_lock(self._file.folder, self._name))
                mags = chain()
                if len(self._existing(mags)) == len(mags):
                    stack.close()
            yield mags

    def _unfinished_mag(self, chain: Sequence[Mag]) -> Mag | None:
        """Return the first mag of a chain that an interrupted call was to compute; None if there is none."""
        for mag in chain:
            with contextlib.suppress(
                WkdaskError, OSError
            ):  # one that cannot be opened is reported when it is used
                if mag in self._existing([mag]):
                    jobs = unfinished_jobs(self.get_mag(mag).place.store)
                    if any(
                        job.action == "downsampling" or job.role > 0 for job in jobs
                    ):  # coarser mags of a write
                        return mag
                elif is_unfinished(os.path.join(self.path, mag.to_layer_name())) is not None:
                    return mag
        return None

    def _planned_chain(
        self,
        start: Mag,
        chain: Sequence[Mag],
        mode: str,
        compression: str | None,
        options: WriteOptions,
        *,
        boxes: Sequence[BoundingBox] | None = None,
        previous_box: BoundingBox | None = None,
        source: MagView | None = None,
        cut: NewCut = (None, None),
    ) -> tuple[PyramidPlan, MagView, list[MagPlace], dict[Mag, MagView]]:
        """Return how mags would be computed: the plan, the mag that is read, the targets, those that are there."""
        there = {mag: self._writable(mag) for mag in self._existing(chain)}
        source = source or self.get_mag(start)
        targets = [
            there[mag].place if mag in there else self._place_like(source, mag, compression, cut)
            for mag in chain
        ]
        plan = plan_pyramid(
            (start, source.spec),
            [(place.mag, place.store.spec) for place in targets],
            self.record.bounding_box,
            mode,
            options,
            boxes=boxes,
            before=previous_box,
            existing=there,
        )
        return plan, source, targets, there

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
        cut: NewCut = (None, None),
    ) -> list[WriteReport]:
        """Compute mags one from the other; those that are not there are added when all is planned."""
        mode = interpolation_of(interpolation_mode, self.record.is_segmentation)
        if not chain:
            return []
        with self._making(lambda: list(chain)):
            if not allow_overwrite:
                self._refuse_all_existing(
                    chain, ", or compute it anew with allow_overwrite=True (--overwrite)"
                )
            plan, source, targets, there = self._planned_chain(
                start,
                chain,
                mode,
                compression,
                options,
                boxes=boxes,
                previous_box=previous_box,
                source=source,
                cut=cut,
            )
            new = [place for place in targets if place.mag not in there]
            if only_setup_mags:
                for place in new:
                    self._add_as(place)
                return []
            reports = downsample_mags(plan, source.place, targets, {place.mag for place in new}, options)
            if new:
                write_multiscales(self._file, self._name)
            return reports
