"""A write into a layer's finest mag together with the coarser ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wkdask.errors import InvalidValueError
from wkdask.events import WriteReport
from wkdask.geometry import BoundingBox
from wkdask.job import WriteOptions
from wkdask.layer_pyramid import LayerPyramid
from wkdask.mag_view import MagView
from wkdask.properties import GrowBox
from wkdask.pyramid_mags import check_mag_order, interpolation_of
from wkdask.pyramid_write import Coarser, plan_with_pyramid, write_with_pyramid
from wkdask.writer import write_voxels

__all__ = ["LayerWriting"]


class LayerWriting(LayerPyramid):
    """What a :class:`~wkdask.layer.Layer` does when one of its mags is written with ``pyramid=True``."""

    def write_with_coarser(
        self, view: MagView, data: Any, box: BoundingBox, options: WriteOptions
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
        mags = sorted(self.mags, key=lambda mag: (mag.max_dim, mag.to_tuple()))
        if view.mag != mags[0]:
            raise InvalidValueError(
                f"{view.place.label}: pyramid=True computes coarser mags from the finest, which is mag {mags[0]}"
            )
        before, compression = self.bounding_box, view.spec.compression
        now = GrowBox(self.name, box, view.mag).of(before)
        chain = check_mag_order(view.mag, mags[1:]) if mags[1:] else self._default_chain(view.mag, now)
        if not chain:
            return write_voxels(view.place, data, box, options)
        there = {mag: self._writable(mag) for mag in mags[1:]}
        coarser = Coarser(
            cuts=tuple(
                (mag, there[mag].spec if mag in there else replace(view.spec, compression=compression))
                for mag in chain
            ),
            mode=interpolation_of("default", self.record.is_segmentation),
            existing=frozenset(there),
            layer_box=before,
        )
        planned = plan_with_pyramid(view.place, data, box, coarser, options)
        if planned is not None:
            targets = [
                there[mag] if mag in there else self._add_like(view, mag, compression) for mag in chain
            ]
            return write_with_pyramid(planned, view.place, data, [mag.place for mag in targets], options)
        coarser.plan(
            view.place, box, replace(options, task_memory=None)
        )  # refused before anything is written
        report = write_voxels(view.place, data, box, options)
        reports = self._downsample_chain(
            view.mag,
            chain,
            "default",
            compression,
            replace(options, verify=False, task_memory=None, job=None, resume=options.resume and not there),
            allow_overwrite=True,
            boxes=[report.bounding_box] if there else None,
            previous_box=before if there and not before.is_empty() else None,
        )
        return replace(report, others=(*report.others, *reports))
