"""A layer: an image or a segmentation in several magnifications."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wkdask.attachments.attachments import Attachments
from wkdask.errors import AlreadyExistsError, DTypeError, MagNotFoundError, ReadOnlyError, WkdaskError
from wkdask.fsio import remove_folder
from wkdask.geometry import Mag, Vec3Int, Vec3IntLike
from wkdask.jobs.events import WriteReport
from wkdask.jobs.folder_edits import recoverable_rename
from wkdask.jobs.job import WriteOptions
from wkdask.layer.coordinates import to_xarray
from wkdask.layer.export import LayerExport
from wkdask.layer.external_mags import (
    add_copy_mag,
    add_fs_copy_mag,
    add_mag_as_ref,
    add_mag_from_zarrarray,
    add_symlink_mag,
)
from wkdask.layer.histogram import histogram
from wkdask.layer.mags import LayerMags
from wkdask.layer.multiscales import GROUP_FILES, write_multiscales
from wkdask.layer.planning import plan_downsample, plan_upsample
from wkdask.layer.rechunk import rechunk_in_place
from wkdask.layer.sampling import (
    downsample,
    downsample_mag,
    downsample_mag_list,
    redownsample,
    upsample,
)
from wkdask.layer.writing import write_with_coarser
from wkdask.locations import outside
from wkdask.mag_view import MagView
from wkdask.names import LayerCategories
from wkdask.napari_layers import add_to_napari
from wkdask.operations.chunks import ChunkedView, run_chunks, warn_of_ignored
from wkdask.operations.copy import compress_in_place, copy_mag
from wkdask.paths import FolderPath, UrlPath, resolved
from wkdask.properties import (
    PROPERTIES_FILE,
    AddLayer,
    LayerRecord,
    RenameLayer,
    SetMappings,
    SetSegmentId,
    SetViewConfiguration,
    create,
)
from wkdask.properties.extras import SetTransformations
from wkdask.properties.handle import Properties
from wkdask.properties.transformations import (
    CoordinateTransformation,
    transformation_of,
    transformations_json,
)
from wkdask.properties.view_configuration import LayerViewConfiguration
from wkdask.storage.formats import check_spec, fitting_compression, found_format
from wkdask.storage.protocol import PRIVATE
from wkdask.storage.publish.dead_jobs import is_unfinished
from wkdask.view import View

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.dataset import Dataset
    from wkdask.viewer.viewer import Viewer

__all__ = ["Layer", "LayerCategories", "SegmentationLayer", "layer_of"]


class Layer(LayerMags):
    """A layer of a dataset.

    Made by :meth:`Dataset.get_layer` and :meth:`Dataset.add_layer`. It holds no data and no state of its own:
    what it says of itself is what the properties file says now.

    Examples
    --------
    >>> layer = ds.get_layer("color")
    >>> layer.category, layer.dtype_per_channel, layer.num_channels, layer.bounding_box
    ('color', dtype('uint8'), 1, BoundingBox((0, 0, 0), (64, 64, 32)))
    >>> layer.get_finest_mag() == layer.get_best_mag() == layer.get_mag(1)
    True
    >>> ds.get_layer("cells").as_segmentation_layer().largest_segment_id
    2
    """

    add_symlink_mag = add_symlink_mag
    add_mag_as_ref = add_remote_mag = add_mag_as_ref
    add_copy_mag = add_mag_as_copy = add_copy_mag
    add_fs_copy_mag = add_fs_copy_mag
    add_mag_from_zarrarray = add_mag_from_zarrarray

    downsample, redownsample, upsample = downsample, redownsample, upsample
    downsample_mag, downsample_mag_list = downsample_mag, downsample_mag_list
    plan_downsample, plan_upsample = plan_downsample, plan_upsample
    write_with_coarser = write_with_coarser
    to_xarray, histogram, add_to_napari = to_xarray, histogram, add_to_napari

    _dataset_of: ClassVar[
        Callable[[Properties], Dataset]
    ]  # `wkdask.dataset.dataset`, which comes later, sets it

    @property
    def dataset(self) -> Dataset:
        """The dataset that it belongs to."""
        return type(self)._dataset_of(self._file)

    # --- version 4's names ---------------------------------------------------------------------------

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one channel; the same as `dtype_per_channel`."""
        return self.dtype_per_channel

    @property
    def read_only(self) -> bool:
        """Whether the layer cannot be changed: the dataset was opened so, or its folder is a link that is."""
        try:
            self._refuse_linked_folder()
        except ReadOnlyError:
            return True
        return False

    @property
    def is_foreign(self) -> bool:
        """Whether the layer's folder lies outside of the dataset."""
        return outside(self._file.folder, str(self.path)) is not None

    @property
    def is_remote_to_dataset(self) -> bool:
        """The same as `is_foreign`."""
        return self.is_foreign

    @property
    def resolved_path(self) -> FolderPath | UrlPath:
        """The layer's folder, links followed."""
        return resolved(str(self.path))

    def get_finest_mag(self) -> MagView:
        """Return the finest magnification.

        Raises
        ------
        MagNotFoundError
            If there is none.
        """
        mags = [record.mag for record in self.record.mags]
        if not mags:
            raise MagNotFoundError(f"layer {self._name!r} has no mags")
        return self.get_mag(min(mags))

    def get_best_mag(self) -> MagView:
        """Return the finest magnification, as :meth:`get_finest_mag`; so it is called in 2021."""
        return self.get_finest_mag()

    def as_segmentation_layer(self) -> SegmentationLayer:
        """Return the layer, if it is a segmentation.

        Raises
        ------
        DTypeError
            If it is not.
        """
        if not isinstance(self, SegmentationLayer):
            raise DTypeError(f"layer {self._name!r} is of the category {self.category!r}, no segmentation")
        return self

    @property
    def export(self) -> LayerExport:
        """The layer as TIFF, OME-TIFF or zipped OME-Zarr: ``layer.export.as_ozx(output_path="color.ozx")``."""
        return LayerExport(self)

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
        old_name = self._name
        new_path = os.path.join(self._file.folder, name)
        if os.path.lexists(new_path):
            raise AlreadyExistsError(f"{new_path} exists already")
        try:
            with recoverable_rename(self._file, old_name, name):
                self._file.commit(RenameLayer(old_name, name))
        except OSError:
            if any(record.name == name for record in self._file.record.layers):  # the folder kept its name
                self._file.commit(RenameLayer(name, old_name))
            raise
        for handle in self._file.layers:
            if handle.name == old_name:
                handle._renamed(name)
        write_multiscales(self._file, name)

    def _renamed(self, name: str) -> None:
        """Follow a rename, with the mags that are in use."""
        self._name = name
        for view in self._views:
            with contextlib.suppress(WkdaskError, OSError):  # the mag was deleted meanwhile
                view.moved(self.get_mag(view.mag).place)

    @property
    def coordinate_transformations(self) -> tuple[CoordinateTransformation, ...]:
        """What maps the layer into the dataset, one after the other; setting none removes them."""
        raws = self.record.raw.get("coordinateTransformations") or ()
        return tuple(transformation_of(each, f"layer {self._name!r}") for each in raws)

    @coordinate_transformations.setter
    def coordinate_transformations(
        self, value: Sequence[CoordinateTransformation | Mapping[str, Any]] | None
    ) -> None:
        self._commit(SetTransformations(self._name, transformations_json(value)))

    @property
    def default_view_configuration(self) -> LayerViewConfiguration | None:
        """How WEBKNOSSOS shows the layer at first; None where nothing is said."""
        raw = self.record.default_view_configuration
        return None if raw is None else LayerViewConfiguration.from_json(raw)

    @default_view_configuration.setter
    def default_view_configuration(self, value: LayerViewConfiguration | Mapping[str, Any] | None) -> None:
        raw = value.to_json() if isinstance(value, LayerViewConfiguration) else value
        self._commit(SetViewConfiguration(self._name, raw))

    def copy_mag_to(
        self,
        mag: MagView,
        dataset_path: str,
        compression: str | None,
        options: WriteOptions,
        *,
        chunk_shape: Vec3IntLike | int | None = None,
        shard_shape: Vec3IntLike | int | None = None,
        action: str = "compressing",
    ) -> WriteReport | None:
        """Copy a mag into a new dataset that holds this layer with that mag only; cut alike by default.

        Raises
        ------
        AlreadyExistsError
            If `dataset_path` exists; what an interrupted call of the same kind left there is replaced.
        """
        spec = replace(
            mag.spec,
            chunk_shape=Vec3Int.from_scalar_or_vec(
                mag.spec.chunk_shape if chunk_shape is None else chunk_shape
            ),
            shard_shape=Vec3Int.from_scalar_or_vec(
                mag.spec.shard_shape if shard_shape is None else shard_shape
            ),
            compression=fitting_compression(self.data_format, False if compression is None else compression),
        )
        check_spec(spec, self.data_format)  # before anything is made
        if os.path.lexists(dataset_path) and not self._is_unfinished_copy(dataset_path, mag.mag):
            raise AlreadyExistsError(f"{dataset_path} exists already")
        dataset = self._file.record
        if not os.path.lexists(os.path.join(dataset_path, PROPERTIES_FILE)):
            create(dataset_path, dataset.name, dataset.voxel_size)
        properties = Properties(dataset_path)
        if all(record.name != self._name for record in properties.record.layers):
            properties.commit(self.as_new(self._name))
        os.makedirs(os.path.join(dataset_path, self._name), exist_ok=True)
        layer = layer_of(properties, properties.layer(self._name))
        place = layer._new_place(mag.mag, spec)
        try:
            if mag.box.is_empty():
                layer._add_as(place)
                return None
            report = copy_mag(mag.place.store, place, mag.box, options, action=action, new=True)
        except BaseException:
            remove_folder(dataset_path)  # a dataset without its only mag is of no use
            raise
        write_multiscales(properties, self._name)
        return report

    def _is_unfinished_copy(self, dataset_path: str, mag: Mag) -> bool:
        """Return whether a folder holds nothing but a copy of this mag that was interrupted."""
        if not os.path.lexists(os.path.join(dataset_path, PROPERTIES_FILE)):
            return False
        layers = Properties(dataset_path).record.layers
        if any(layer.name != self._name or layer.mags for layer in layers):
            return False
        if {*os.listdir(dataset_path)} - {PROPERTIES_FILE, PRIVATE, self._name, *GROUP_FILES}:
            return False
        folder = os.path.join(dataset_path, self._name)
        if not os.path.isdir(folder):
            return not layers  # it stopped before the layer was listed
        names = {*os.listdir(folder)} - {*GROUP_FILES}
        name = mag.to_layer_name()
        return names <= {name} and (not names or is_unfinished(os.path.join(folder, name)) is not None)

    def rechunk_mag(
        self,
        mag: MagView,
        chunk_shape: Vec3IntLike | int,
        shard_shape: Vec3IntLike | int,
        compression: str | None,
        options: WriteOptions,
    ) -> WriteReport | None:
        """Cut a mag into other chunks and cubes where it is; see :meth:`MagView.rechunk`."""
        self._refuse_further_axes(
            "an array is cut and compressed alike at all positions; target_path= makes a dataset of this one"
        )
        if self.is_mag_view_foreign(mag):  # the other dataset would list a folder that is gone
            raise ReadOnlyError(
                f"{mag.place.label} lies at {mag.place.store.path}, outside of the dataset; rechunk it there, or "
                f"into target_path="
            )
        data_format = found_format(mag.place.store.path)
        spec = replace(
            mag.spec,
            chunk_shape=Vec3Int.from_scalar_or_vec(chunk_shape),
            shard_shape=Vec3Int.from_scalar_or_vec(shard_shape),
            compression=fitting_compression(data_format, False if compression is None else compression),
        )
        check_spec(spec, data_format)  # before anything is made
        if spec == mag.spec and data_format != "wkw":
            return None  # each WKW cube has its own compression, which may differ from the header
        if data_format == "wkw" and spec == replace(mag.spec, compression=spec.compression):
            report = compress_in_place(mag.place, spec.compression, options)
        else:
            report, _ = rechunk_in_place(self._file, mag.place, spec, options)
        place = self.get_mag(mag.mag).place
        for view in [mag, *self.all_handles(mag.mag)]:
            view.moved(place)
        return report

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
            data_format=record.data_format,
            extra=kept,
        )

    def view(self, **how: Any) -> Viewer:
        """Show the layer in neuroglancer, with all its mags, in the browser or inline in a notebook.

        Parameters
        ----------
        how
            As for :func:`wkdask.view`.

        Examples
        --------
        >>> with layer.view(mag=1) as viewer:
        ...     viewer.layers
        ('color',)
        """
        from wkdask.viewer.viewer import view

        return view(self, **how)

    def __repr__(self) -> str:
        from wkdask.display.text import layer_text

        return layer_text(self)

    def _repr_html_(self) -> str:
        from wkdask.display.html import layer_html

        return layer_html(self)


class SegmentationLayer(Layer):
    """A layer whose voxels are ids of segments; 0 is no segment.

    Examples
    --------
    >>> isinstance(ds.get_layer("cells"), SegmentationLayer), cells.largest_segment_id, cells.mappings
    (True, 2, ())
    """

    @property
    def attachments(self) -> Attachments:
        """The layer's meshes, agglomerates, connectomes, indices and statistics."""
        return Attachments(self)

    @property
    def largest_segment_id(self) -> int | None:
        """The largest id; a write that has a larger one raises it."""
        return self.record.largest_segment_id

    @largest_segment_id.setter
    def largest_segment_id(self, value: int | None) -> None:
        self._file.commit(SetSegmentId(self._name, value))

    @property
    def mappings(self) -> tuple[str, ...]:
        """Names of the mappings."""
        return self.record.mappings

    @mappings.setter
    def mappings(self, names: Sequence[str]) -> None:
        self._commit(SetMappings(self._name, tuple(names)))

    def refresh_largest_segment_id(
        self, chunk_shape: object = None, executor: object = None, *, client: Client | None = None
    ) -> int | None:
        """Set the largest id to the largest in the data, which are read once.

        Parameters
        ----------
        chunk_shape, executor
            Ignored, with a warning.
        client
            The cluster; the active one by default.

        Returns
        -------
        int or None
            The id; None if there are no data.

        Examples
        --------
        >>> cells.largest_segment_id = 99
        >>> cells.refresh_largest_segment_id()
        2
        """
        warn_of_ignored(chunk_shape=chunk_shape, executor=executor)
        if not self.record.mags or self.record.bounding_box.is_empty():
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
