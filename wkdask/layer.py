"""A layer: an image or a segmentation in several magnifications."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wkdask.chunkwise import ChunkedView, run_chunks
from wkdask.errors import AlreadyExistsError, InvalidValueError, WkdaskWarning
from wkdask.events import WriteReport
from wkdask.geometry import Mag, MagLike
from wkdask.job import WriteOptions
from wkdask.layer_mags import LayerMags
from wkdask.mag_view import MagView
from wkdask.progress import ProgressLike, listeners_for
from wkdask.properties import (
    AddLayer,
    LayerRecord,
    RenameLayer,
    SetMappings,
    SetSegmentId,
    SetViewConfiguration,
    create,
)
from wkdask.properties.handle import Properties
from wkdask.pyramid import (
    check_mag_order,
    default_coarsest_mag,
    downsample_mag,
    interpolation_of,
    mag_chain,
    upsample_mag,
)
from wkdask.transfer import copy_mag
from wkdask.view import View
from wkdask.view_configuration import LayerViewConfiguration

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Layer", "LayerCategories", "SegmentationLayer", "layer_of"]


class LayerCategories:
    """The kinds of layers, as the properties file writes them."""

    COLOR_TYPE = "color"
    SEGMENTATION_TYPE = "segmentation"


class Layer(LayerMags):
    """A layer of a dataset.

    Made by :meth:`Dataset.get_layer` and :meth:`Dataset.add_layer`. It holds no data and no state of its own:
    what it says of itself is what the properties file says now.
    """

    # --- name and view configuration -----------------------------------------------------------------

    @property
    def name(self) -> str:
        """The layer's name; setting it renames the folder, and handles of mags follow.

        Raises
        ------
        AlreadyExistsError
            If the dataset has a layer, or its folder something, of that name.
        """
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        if name == self._name:
            return
        old_path = self.path
        new_path = os.path.join(self._properties.folder, name)
        if os.path.lexists(new_path):
            raise AlreadyExistsError(f"{new_path} exists already")
        self._properties.commit(RenameLayer(self._name, name))
        try:
            if os.path.lexists(old_path):
                os.rename(old_path, new_path)
        except OSError:
            self._properties.commit(RenameLayer(name, self._name))
            raise
        self._name = name
        for view in list(self._views):
            view.moved(self.get_mag(view.mag).place)

    @property
    def default_view_configuration(self) -> LayerViewConfiguration | None:
        """How WEBKNOSSOS shows the layer at first; None where nothing is said."""
        raw = self.record.default_view_configuration
        return None if raw is None else LayerViewConfiguration.from_json(raw)

    @default_view_configuration.setter
    def default_view_configuration(self, value: LayerViewConfiguration | Mapping[str, Any] | None) -> None:
        raw = value.to_json() if isinstance(value, LayerViewConfiguration) else value
        self._commit(SetViewConfiguration(self._name, raw))

    # --- pyramid -------------------------------------------------------------------------------------

    def downsample(
        self,
        from_mag: MagLike | None = None,
        coarsest_mag: MagLike | None = None,
        interpolation_mode: str = "default",
        compression: str | None = "lz4",
        sampling_mode: str = "anisotropic",
        *,
        force_sampling_scheme: bool = False,
        client: Client | None = None,
        durable: bool = True,
        progress: ProgressLike = None,
    ) -> list[WriteReport]:
        """Compute the coarser magnifications.

        Parameters
        ----------
        from_mag
            Where to start; the coarsest there is by default.
        coarsest_mag
            Where to end; by default the mag at which the longer side of the plane is about 100 voxels.
        interpolation_mode
            ``"default"`` (median for images, mode for segmentations), ``"median"``, ``"mode"``,
            ``"nearest"``, ``"min"`` or ``"max"``.
        compression
            Of the new mags: ``"lz4"``, ``"lz4hc"`` or None.
        sampling_mode
            ``"anisotropic"`` brings voxels towards cubes, ``"isotropic"`` doubles all axes, ``"constant_z"``
            only x and y.
        force_sampling_scheme
            Without effect: mags of the same largest component, which it is for elsewhere, are never made.
        client
            The cluster; the active one by default.
        durable
            Flush to the disk before a cube counts as written.
        progress
            As in :meth:`MagView.write`.

        Returns
        -------
        list of WriteReport
            One per new mag.

        Raises
        ------
        AlreadyExistsError
            If one of the mags is there; nothing was written.
        InvalidValueError
            If the mags cannot be reached, or the layer holds nothing.
        """
        self._check_filled()
        del force_sampling_scheme
        start = (
            self.record.mag(from_mag).mag
            if from_mag is not None
            else max(record.mag for record in self.record.mags)
        )
        if coarsest_mag is not None:
            end = Mag(coarsest_mag)
        else:
            default = default_coarsest_mag(self.bounding_box)
            if default <= start:
                return []
            end = Mag(default.to_vec3_int().pairmax(start.to_vec3_int()))
        if self.bounding_box.size.z == 1 and sampling_mode != "constant_z":
            warnings.warn(
                f"layer {self._name!r} is one section: z is kept as it is (constant_z)",
                WkdaskWarning,
                stacklevel=2,
            )
            sampling_mode = "constant_z"
        chain = mag_chain(start, end, self._properties.record.voxel_size, sampling_mode)
        options = WriteOptions(client=client, durable=durable, listeners=listeners_for(progress))
        return self._downsample_chain(start, chain, interpolation_mode, compression, options)

    def downsample_mag(
        self,
        from_mag: MagLike,
        target_mag: MagLike,
        interpolation_mode: str = "default",
        compression: str | None = "lz4",
        *,
        client: Client | None = None,
        progress: ProgressLike = None,
    ) -> WriteReport:
        """Compute one magnification from another.

        Parameters
        ----------
        from_mag, target_mag
            The second is coarser in at least one component and finer in none.
        interpolation_mode, compression, client, progress
            As for :meth:`downsample`.

        Raises
        ------
        AlreadyExistsError
            If the target is there.
        InvalidValueError
            If it cannot be computed from the other.
        """
        (report,) = self.downsample_mag_list(
            from_mag, [target_mag], interpolation_mode, compression, client=client, progress=progress
        )
        return report

    def downsample_mag_list(
        self,
        from_mag: MagLike,
        target_mags: Sequence[MagLike],
        interpolation_mode: str = "default",
        compression: str | None = "lz4",
        *,
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
        interpolation_mode, compression, client, progress
            As for :meth:`downsample`.

        Raises
        ------
        AlreadyExistsError
            If one of the targets is there; nothing was written.
        InvalidValueError
            If the mags do not follow each other.
        """
        self._check_filled()
        chain = check_mag_order(Mag(from_mag), [Mag(mag) for mag in target_mags])
        options = WriteOptions(client=client, listeners=listeners_for(progress))
        return self._downsample_chain(Mag(from_mag), chain, interpolation_mode, compression, options)

    def upsample(
        self,
        from_mag: MagLike,
        finest_mag: MagLike = 1,
        compression: str | None = "lz4",
        sampling_mode: str = "anisotropic",
        *,
        client: Client | None = None,
        progress: ProgressLike = None,
    ) -> list[WriteReport]:
        """Compute finer magnifications by repeating voxels.

        Parameters
        ----------
        from_mag
            Where to start.
        finest_mag
            Where to end.
        compression, client, progress
            As for :meth:`downsample`.
        sampling_mode
            The mags are those that downsampling from `finest_mag` to `from_mag` would go through.

        Raises
        ------
        AlreadyExistsError
            If one of the mags is there; nothing was written.
        InvalidValueError
            If `from_mag` is not reached from `finest_mag`.
        """
        self._check_filled()
        start, end = Mag(from_mag), Mag(finest_mag)
        down = mag_chain(end, start, self._properties.record.voxel_size, sampling_mode)
        if not down or down[-1] != start:
            raise InvalidValueError(f"mag {start} is not reached from mag {end} in the {sampling_mode} mode")
        chain = [end, *down][-2::-1]
        self._refuse_all_existing(chain)
        options = WriteOptions(client=client, listeners=listeners_for(progress))
        source, reports = self.get_mag(start), []
        for mag in chain:
            target = self._add_like(source, mag, compression)
            reports.append(upsample_mag(source.place, target.place, self.bounding_box, options))
            source = target
        return reports

    def _check_filled(self) -> None:
        """Refuse to sample a layer without mags or without voxels."""
        if not self.record.mags:
            raise InvalidValueError(f"layer {self._name!r} has no mag to start from")
        if self.bounding_box.is_empty():
            raise InvalidValueError(f"layer {self._name!r} is empty: there is nothing to sample")

    def _refuse_all_existing(self, chain: Sequence[Mag]) -> None:
        """Refuse a chain of which some mags are there."""
        there = [str(mag) for mag in chain if any(mag == record.mag for record in self.record.mags)]
        if there:
            raise AlreadyExistsError(
                f"layer {self._name!r} has mag {', '.join(there)} already; delete it, or start from a coarser one"
            )

    def _add_like(self, source: MagView, mag: Mag, compression: str | None) -> MagView:
        """Add a mag that is cut like another."""
        return self.add_mag(
            mag,
            chunk_shape=source.spec.chunk_shape,
            shard_shape=source.spec.shard_shape,
            compression=compression,
        )

    def _downsample_chain(
        self,
        start: Mag,
        chain: Sequence[Mag],
        interpolation_mode: str,
        compression: str | None,
        options: WriteOptions,
    ) -> list[WriteReport]:
        """Compute mags one from the other."""
        mode = interpolation_of(interpolation_mode, self.category == LayerCategories.SEGMENTATION_TYPE)
        self._refuse_all_existing(chain)
        source, reports = self.get_mag(start), []
        for mag in chain:
            target = self._add_like(source, mag, compression)
            reports.append(downsample_mag(source.place, target.place, self.bounding_box, mode, options))
            source = target
        return reports

    def copy_mag_to(
        self, mag: MagView, dataset_path: str, compression: str | None, options: WriteOptions
    ) -> WriteReport | None:
        """Copy a mag into a new dataset that holds this layer with that mag only.

        Raises
        ------
        AlreadyExistsError
            If `dataset_path` exists.
        """
        if os.path.lexists(dataset_path):
            raise AlreadyExistsError(f"{dataset_path} exists already")
        dataset = self._properties.record
        create(dataset_path, dataset.name, dataset.voxel_size)
        properties = Properties(dataset_path)
        properties.commit(self.as_new(self._name))
        os.makedirs(os.path.join(dataset_path, self._name), exist_ok=True)
        target = layer_of(properties, properties.layer(self._name))._add_like(mag, mag.mag, compression)
        return copy_mag(mag.place.store, target.place, mag.box, options, action="compressing")

    def as_new(self, name: str) -> AddLayer:
        """Return the edit that adds a layer like this one, without mags, to a dataset."""
        record = self.record
        kept = {
            key: value
            for key, value in record.raw.items()
            if key in ("defaultViewConfiguration", "coordinateTransformations", "adminViewConfiguration")
        }
        return AddLayer(
            name=name,
            category=record.category,
            dtype_per_channel=str(self.dtype_per_channel),
            num_channels=self.num_channels,
            bounding_box=record.bounding_box,
            largest_segment_id=record.largest_segment_id,
            mappings=record.mappings,
            extra=kept,
        )

    def __repr__(self) -> str:
        from wkdask.display import layer_text

        return layer_text(self)

    def _repr_html_(self) -> str:
        from wkdask.display import layer_html

        return layer_html(self)


class SegmentationLayer(Layer):
    """A layer whose voxels are ids of segments; 0 is no segment."""

    @property
    def largest_segment_id(self) -> int | None:
        """The largest id; a write that has a larger one raises it."""
        return self.record.largest_segment_id

    @largest_segment_id.setter
    def largest_segment_id(self, value: int | None) -> None:
        self._properties.commit(SetSegmentId(self._name, value))

    @property
    def mappings(self) -> tuple[str, ...]:
        """Names of the mappings."""
        return self.record.mappings

    @mappings.setter
    def mappings(self, names: Sequence[str]) -> None:
        self._commit(SetMappings(self._name, tuple(names)))

    def refresh_largest_segment_id(self, *, client: Client | None = None) -> int | None:
        """Set the largest id to the largest in the data, which are read once.

        Parameters
        ----------
        client
            The cluster; the active one by default.

        Returns
        -------
        int or None
            The id; None if there are no data.
        """
        if not self.record.mags or self.bounding_box.is_empty():
            self.largest_segment_id = None
            return None
        mag = self.get_mag(min(record.mag for record in self.record.mags))
        _, maxima = run_chunks(
            _largest,
            [ChunkedView(mag.place, mag.box, mag.spec.shard_shape, read_only=True)],
            View,
            WriteOptions(client=client),
            keep=True,
        )
        self.largest_segment_id = max(maxima)
        return self.largest_segment_id


def _largest(views: Sequence[View], _number: int) -> int:
    """Return the largest voxel of a chunk."""
    from wkdask.kernels import block_stats

    return int(block_stats(views[0].read())[1])


def layer_of(properties: Properties, record: LayerRecord) -> Layer:
    """Return the handle of a layer by its category."""
    kind = SegmentationLayer if record.is_segmentation else Layer
    return kind(properties, record.name)
