"""A dataset as the layers that it has: get, add, delete, link, copy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wkdask.errors import (
    CategoryError,
    DTypeError,
    InvalidValueError,
    LayerNotFoundError,
    SaidTwiceError,
)
from wkdask.geometry import EMPTY_BOX, BoundingBox, Mag, as_box
from wkdask.geometry.nd_boxes import NDBoundingBox
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.jobs.folder_edits import recoverable_removal
from wkdask.layer import Layer, LayerCategories, SegmentationLayer, layer_of
from wkdask.layer.axes import default_format, new_layer_box
from wkdask.layer.elsewhere import warn_of_voxels
from wkdask.locations import cubes_box
from wkdask.operations.chunks import warn_of_ignored
from wkdask.paths import FolderPath, UrlPath, resolved, shown_path
from wkdask.properties import (
    AddLayer,
    RemoveLayer,
    SetDatasetName,
    SetViewConfiguration,
    dtype_of,
)
from wkdask.properties.handle import Properties
from wkdask.properties.listed import DatasetProperties
from wkdask.properties.values import whole_argument
from wkdask.properties.view_configuration import DatasetViewConfiguration
from wkdask.storage.formats import check_format, check_voxel, format_of, metadata_names, open_mag
from wkdask.storage.protocol import StoredMag

__all__ = ["DatasetLayers"]


class DatasetLayers:
    """What a dataset is, and its layers: the lower half of a :class:`~wkdask.dataset.dataset.Dataset`.

    Examples
    --------
    >>> sorted(ds.layers)
    ['cells', 'color']
    >>> ds.get_layer("color") == ds.get_color_layer()
    True
    >>> ds.get_segmentation_layer().largest_segment_id
    2
    >>> [layer.name for layer in ds.get_color_layers() + ds.get_segmentation_layers()]
    ['color', 'cells']
    >>> ds.add_layer_like(ds.get_layer("color"), "second").bounding_box
    BoundingBox((0, 0, 0), (64, 64, 32))
    >>> ds.delete_layer("second")
    """

    def __init__(self, properties: Properties) -> None:
        self._file = properties

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DatasetLayers):
            return NotImplemented
        return self._file.folder == other._file.folder

    def __hash__(self) -> int:
        return hash(self._file.folder)

    # --- what it is ----------------------------------------------------------------------------------

    @property
    def _properties(self) -> DatasetProperties:
        """What the properties file says now, under the names that scripts for the API know."""
        return DatasetProperties(self._file.record)

    def _export_as_json(self) -> None:
        """Write what the properties file lacks, as a save of 2021 did: the number of channels of each layer."""
        for layer in self.layers.values():
            layer._commit()

    @property
    def path(self) -> FolderPath | UrlPath:
        """The dataset's folder, absolute."""
        return shown_path(self._file.folder)

    @property
    def name(self) -> str:
        """The dataset's name; may be set."""
        return self._file.record.name

    @name.setter
    def name(self, name: str) -> None:
        self._file.commit(SetDatasetName(name))

    @property
    def voxel_size(self) -> VoxelSize:
        """Size of a voxel of mag 1, with its unit."""
        return self._file.record.voxel_size

    @property
    def voxel_size_with_unit(self) -> VoxelSize:
        """Size of a voxel of mag 1, with its unit; the same as `voxel_size`."""
        return self.voxel_size

    @property
    def read_only(self) -> bool:
        """Whether the dataset was opened read-only, or is in an object store."""
        return self._file.is_read_only

    @property
    def resolved_path(self) -> FolderPath | UrlPath:
        """The dataset's folder, links followed."""
        return resolved(self._file.folder)

    @property
    def scale(self) -> tuple[float, float, float]:
        """Size of a voxel of mag 1 along (x, y, z), in nm."""
        return self.voxel_size.to_nanometer()

    @property
    def layers(self) -> dict[str, Layer]:
        """The layers by name, as the properties file lists them now.

        One that cannot be understood is listed too, and raises a `PropertiesError` when it is used.
        """
        record = self._file.record
        found = {layer.name: layer_of(self._file, layer) for layer in record.layers}
        return {name: found.get(name) or Layer(self._file, name) for name in record.names}

    def get_layer(self, layer_name: str) -> Layer:
        """Return a layer.

        Raises
        ------
        LayerNotFoundError
            If there is none of that name; lists those there are.

        Examples
        --------
        >>> ds.get_layer("color").name
        'color'
        """
        return layer_of(self._file, self._file.layer(layer_name))

    def get_segmentation_layer(self, layer_name: str | None = None) -> SegmentationLayer:
        """Return the segmentation layer; without a name there must be exactly one.

        Raises
        ------
        LayerNotFoundError
            If there is none of that name, or not exactly one.
        """
        layer = self._only(LayerCategories.SEGMENTATION_TYPE, layer_name)
        if not isinstance(layer, SegmentationLayer):
            raise LayerNotFoundError(f"layer {layer.name!r} is of the category {layer.category!r}")
        return layer

    def get_color_layer(self, layer_name: str | None = None) -> Layer:
        """Return the color layer; without a name there must be exactly one.

        Raises
        ------
        LayerNotFoundError
            If there is none of that name, or not exactly one.
        """
        layer = self._only(LayerCategories.COLOR_TYPE, layer_name)
        if isinstance(layer, SegmentationLayer):
            raise LayerNotFoundError(f"layer {layer.name!r} is of the category {layer.category!r}")
        return layer

    def get_color_layers(self) -> list[Layer]:
        """Return all color layers."""
        return [layer for layer in self.layers.values() if not isinstance(layer, SegmentationLayer)]

    def get_segmentation_layers(self) -> list[SegmentationLayer]:
        """Return all segmentation layers."""
        return [layer for layer in self.layers.values() if isinstance(layer, SegmentationLayer)]

    def _only(self, category: str, layer_name: str | None) -> Layer:
        """Return the layer of a name, or the only one of a category."""
        if layer_name is not None:
            return self.get_layer(layer_name)
        records = self._file.record.layers
        found = [layer_of(self._file, record) for record in records if record.category == category]
        if len(found) != 1:
            names = ", ".join(repr(layer.name) for layer in found) or "none"
            raise LayerNotFoundError(
                f"the dataset has {len(found)} {category} layers ({names}); say which by get_layer(name)"
            )
        return found[0]

    @property
    def default_view_configuration(self) -> DatasetViewConfiguration | None:
        """How WEBKNOSSOS shows the dataset at first; None where nothing is said."""
        raw = self._file.record.default_view_configuration
        return None if raw is None else DatasetViewConfiguration.from_json(raw)

    @default_view_configuration.setter
    def default_view_configuration(self, value: DatasetViewConfiguration | Mapping[str, Any] | None) -> None:
        raw = value.to_json() if isinstance(value, DatasetViewConfiguration) else value
        self._file.commit(SetViewConfiguration(None, raw))

    # --- layers --------------------------------------------------------------------------------------

    def add_layer(
        self,
        layer_name: str,
        category: str,
        dtype_per_layer: npt.DTypeLike | None = None,
        dtype_per_channel: npt.DTypeLike | None = None,
        num_channels: int | None = None,
        *,
        largest_segment_id: int | None = None,
        mappings: Sequence[str] = (),
        bounding_box: BoundingBox | NDBoundingBox | None = None,
        data_format: str | None = None,
        dtype: npt.DTypeLike | None = None,
        **kwargs: object,
    ) -> Layer:
        """Add a layer without mags.

        Parameters
        ----------
        layer_name
            Letters, digits, ``_ $ @ - .``; also the folder's name.
        category
            ``LayerCategories.COLOR_TYPE`` or ``SEGMENTATION_TYPE``.
        dtype_per_layer
            Type of a voxel, all channels, such as ``"uint24"``; instead of `dtype_per_channel`.
        dtype_per_channel
            Type of one channel, ``uint8`` by default.
        num_channels
            Channels, 1 by default.
        largest_segment_id
            Of a segmentation; written data raise it.
        mappings
            Names of the mappings of a segmentation.
        bounding_box
            In voxels of mag 1; it grows with what is written. An NDBoundingBox gives the layer further axes, in
            Zarr 3.
        data_format
            How its mags are stored: ``"wkw"``, ``"zarr3"``, or ``"zarr"`` for Zarr 2. Where nothing is said:
            ``"wkw"``, but Zarr 3 if the box has further axes, or the first mag is to be cut as WKW cannot be.
        dtype
            Version 4's spelling of `dtype_per_channel`.
        **kwargs
            What scripts of 2021 say beside that, such as ``compressed=True``: ignored, with a warning.

        Raises
        ------
        AlreadyExistsError
            If there is a layer of that name.
        DTypeError
            If a layer cannot hold such voxels.
        InvalidValueError
            If name, category or the combination of arguments cannot work.
        UnsupportedFormatError
            If the data format is another one.

        Examples
        --------
        >>> layer = ds.add_layer("ids", "segmentation", dtype_per_channel="uint64", data_format="zarr3")
        >>> layer.largest_segment_id is None, layer.data_format
        (True, 'zarr3')
        """
        if category not in (LayerCategories.COLOR_TYPE, LayerCategories.SEGMENTATION_TYPE):
            raise CategoryError(f'a layer is "color" or "segmentation", got {category!r}')
        box_asked = EMPTY_BOX if bounding_box is None else as_box(bounding_box)
        unasked = data_format is None
        data_format = str(default_format(box_asked) if data_format is None else data_format)
        check_format(data_format)
        dtype_per_channel = _either_dtype(dtype, dtype_per_channel, dtype_per_layer)
        channels = (
            1 if num_channels is None else whole_argument(num_channels, "the number of channels", 1, 2**16)
        )
        dtype_name = _channel_dtype(dtype_per_layer, dtype_per_channel, channels)
        check_voxel(data_format, dtype_name, channels)  # no mag could be added to the layer
        warn_of_ignored(**kwargs)
        warn_of_voxels(layer_name, category, dtype_name)
        box, axes_edits = new_layer_box(layer_name, box_asked, data_format, channels)
        edit = AddLayer(
            name=layer_name,
            category=category,
            dtype_per_channel=dtype_name,
            num_channels=channels,
            largest_segment_id=largest_segment_id,
            mappings=tuple(mappings),
            bounding_box=box,
            data_format=data_format,
        )
        self._file.commit(edit, *axes_edits)
        (self._file.unasked.add if unasked else self._file.unasked.discard)(layer_name)
        os.makedirs(os.path.join(self.path, layer_name), exist_ok=True)
        return self.get_layer(layer_name)

    def get_or_add_layer(
        self,
        layer_name: str,
        category: str,
        dtype_per_layer: npt.DTypeLike | None = None,
        dtype_per_channel: npt.DTypeLike | None = None,
        num_channels: int | None = None,
        *,
        largest_segment_id: int | None = None,
        mappings: Sequence[str] = (),
        data_format: str | None = None,
        dtype: npt.DTypeLike | None = None,
        **kwargs: object,
    ) -> Layer:
        """Return a layer; add it if the dataset does not have it.

        Parameters
        ----------
        layer_name, category, dtype_per_layer, dtype_per_channel, num_channels, largest_segment_id, mappings
            As for :meth:`add_layer`; what is given must agree with the layer that is there.
        data_format, dtype, **kwargs
            As for :meth:`add_layer`; what is given must agree with the layer that is there.

        Raises
        ------
        InvalidValueError
            If the layer is there and differs.

        Examples
        --------
        >>> ds.get_or_add_layer("color", "color", dtype_per_channel="uint8") == ds.get_layer("color")
        True
        """
        dtype_per_channel = _either_dtype(dtype, dtype_per_channel, dtype_per_layer)
        if layer_name not in self._file.record.names:
            return self.add_layer(
                layer_name,
                category,
                dtype_per_layer,
                dtype_per_channel,
                num_channels,
                largest_segment_id=largest_segment_id,
                mappings=mappings,
                data_format=data_format,
                **kwargs,  # type: ignore[arg-type]
            )
        layer = self.get_layer(layer_name)
        asked: dict[str, tuple[object, object]] = {"category": (category, layer.category)}
        if data_format is not None:
            asked["data format"] = (data_format, layer.data_format)
        if num_channels is not None:
            asked["channels"] = (num_channels, layer.num_channels)
        if dtype_per_layer is not None or dtype_per_channel is not None:
            want = _channel_dtype(dtype_per_layer, dtype_per_channel, num_channels or layer.num_channels)
            asked["type per channel"] = (want, str(layer.dtype_per_channel))
        wrong = [f"{what} {want}, it has {have}" for what, (want, have) in asked.items() if want != have]
        if wrong:
            raise InvalidValueError(f"there is a layer {layer_name!r} already: {'; '.join(wrong)}")
        return layer

    def add_layer_like(self, other_layer: Layer | str, layer_name: str) -> Layer:
        """Add a layer with the type, box and view configuration of another one, without mags.

        Parameters
        ----------
        other_layer
            A layer of any dataset, or the name of one of this dataset.
        layer_name
            The new one's name.

        Raises
        ------
        AlreadyExistsError
            If there is a layer of that name.
        LayerNotFoundError
            If there is none to be like.
        """
        other = self.get_layer(other_layer) if isinstance(other_layer, str) else other_layer
        if not isinstance(other, Layer):
            raise InvalidValueError(f"a layer is like another layer, or one by its name; got {other_layer!r}")
        self._file.commit(other.as_new(layer_name))
        os.makedirs(os.path.join(self.path, layer_name), exist_ok=True)
        return self.get_layer(layer_name)

    def add_layer_for_existing_files(
        self,
        layer_name: str,
        category: str,
        *,
        largest_segment_id: int | None = None,
        mappings: Sequence[str] = (),
        **kwargs: object,
    ) -> Layer:
        """List a layer whose folder is there already; type and mags come from the headers in it.

        The layer's box becomes the box around all cubes of the finest mag; set a smaller one if you know it.

        Parameters
        ----------
        layer_name
            The folder's name.
        category
            ``LayerCategories.COLOR_TYPE`` or ``SEGMENTATION_TYPE``.
        largest_segment_id, mappings
            Of a segmentation.
        **kwargs
            Ignored, with a warning.

        Raises
        ------
        InvalidValueError
            If no folder in it is a mag, or they are of several formats.

        Examples
        --------
        >>> import shutil
        >>> _ = shutil.copytree("ds/color", "ds/found")
        >>> ds.add_layer_for_existing_files("found", "color").get_mag(1).info.shard_shape
        Vec3Int(32,32,32)
        """
        warn_of_ignored(**kwargs)
        folder = os.path.join(self.path, layer_name)
        found: dict[Mag, StoredMag] = {}
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            if format_of(os.path.join(folder, name)) is not None:
                found[Mag(name)] = open_mag(os.path.join(folder, name))
        if not found:
            raise InvalidValueError(
                f"{folder} holds no folder with one of {', '.join(sorted(metadata_names()))}"
            )
        finest = min(found)
        spec = found[finest].spec
        formats = {store.spec.data_format for store in found.values()}
        if len(formats) > 1:
            raise InvalidValueError(
                f"the mags in {folder} are stored in several formats: {', '.join(sorted(formats))}"
            )
        layer = self.add_layer(
            layer_name,
            category,
            dtype_per_channel=spec.dtype,
            num_channels=spec.num_channels,
            largest_segment_id=largest_segment_id,
            mappings=mappings,
            bounding_box=cubes_box(found[finest]).from_mag_to_mag1(finest),
            data_format=spec.data_format,
        )
        for mag in found:
            layer.add_mag_for_existing_files(mag)
        return layer

    def delete_layer(self, layer_name: str) -> None:
        """Remove a layer: from the properties first, then from the disk; a link is only unlinked.

        A folder in which another layer has a mag stays.

        Raises
        ------
        LayerNotFoundError
            If there is none of that name.
        """
        with recoverable_removal(self._file, layer_name):
            self._file.commit(RemoveLayer(layer_name))


def _either_dtype(dtype: Any, per_channel: Any, per_layer: Any) -> Any:
    """Return the type of a channel from either spelling.

    Raises
    ------
    InvalidValueError
        If the type is said twice.
    """
    if dtype is not None and (per_channel is not None or per_layer is not None):
        raise SaidTwiceError("give dtype, dtype_per_channel or dtype_per_layer, not two of them")
    return per_channel if dtype is None else dtype


_TYPE_WORDS = {"float": "float32", "double": "float64", "int": "int64"}
"""Words of the 2021 API for types; also Python's own `float` and `int`."""


def _channel_dtype(per_layer: Any, per_channel: Any, channels: int) -> str:
    """Return the name of the type of one channel, from either of the two spellings."""
    if per_layer is not None and per_channel is not None:
        raise SaidTwiceError("give either dtype_per_layer or dtype_per_channel, not both")
    given = per_channel if per_layer is None else per_layer
    word = given.__name__ if given is float or given is int else given
    word = _TYPE_WORDS.get(word, word) if isinstance(word, str) else word
    if per_layer is not None and isinstance(word, str):
        return str(dtype_of(word, channels))
    if per_layer is not None:
        try:
            whole = np.dtype(word)
        except TypeError as error:
            raise DTypeError(f"{given!r} is not a type of voxels") from error
        if channels < 1 or whole.itemsize % channels:
            raise DTypeError(f"{whole} per voxel cannot be split into {channels} channels")
        word = f"{whole.kind}{whole.itemsize // channels}"
    try:
        return str(np.dtype("uint8" if word is None else word))
    except TypeError as error:
        raise DTypeError(f"{given!r} is not a type of voxels") from error
