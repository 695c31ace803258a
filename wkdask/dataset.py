"""A dataset: a folder with ``datasource-properties.json`` and its layers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wkdask.errors import AlreadyExistsError, DTypeError, InvalidValueError, LayerNotFoundError
from wkdask.fsio import checked_path, remove_folder
from wkdask.geometry import EMPTY_BOX, BoundingBox
from wkdask.layer import Layer, LayerCategories, SegmentationLayer, layer_of
from wkdask.properties import AddLayer, RemoveLayer, SetDatasetName, create, dtype_of
from wkdask.properties.handle import Properties
from wkdask.units import VoxelSize

__all__ = ["Dataset"]


class Dataset:
    """A WEBKNOSSOS dataset on disk.

    Parameters
    ----------
    dataset_path
        Its folder, which holds ``datasource-properties.json``. Datasets of 2021 and later open; what the file
        says beyond what is known here stays as it is through every edit.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PropertiesError
        If the file cannot be understood.

    Examples
    --------
    >>> ds = Dataset("e2006")                                      # doctest: +SKIP
    >>> x = ds.get_layer("color").get_mag("1").to_dask()           # doctest: +SKIP
    """

    def __init__(self, dataset_path: str | os.PathLike[str]) -> None:
        self._properties = Properties(checked_path(dataset_path))
        _ = self._properties.record

    def __reduce__(self) -> tuple[Any, ...]:
        return (Dataset, (self.path,))

    @classmethod
    def create(
        cls,
        dataset_path: str | os.PathLike[str],
        scale: Sequence[float] | VoxelSize,
        name: str | None = None,
    ) -> Dataset:
        """Make a dataset without layers.

        Parameters
        ----------
        dataset_path
            Its folder; made if missing, else it must be empty.
        scale
            Size of a voxel of mag 1 along (x, y, z), in nm, or a `VoxelSize`.
        name
            The dataset's name; the folder's by default.

        Raises
        ------
        AlreadyExistsError
            If the folder holds something.
        InvalidValueError
            If the scale is not three positive numbers.
        """
        path = checked_path(dataset_path)
        size = scale if isinstance(scale, VoxelSize) else VoxelSize(tuple(scale))  # type: ignore[arg-type]
        if os.path.exists(path) and (not os.path.isdir(path) or os.listdir(path)):
            raise AlreadyExistsError(f"{path} exists and is not an empty folder")
        create(path, name or os.path.basename(path), size)
        return cls(path)

    # --- what it is ----------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The dataset's folder, absolute."""
        return self._properties.folder

    @property
    def name(self) -> str:
        """The dataset's name; may be set."""
        return self._properties.record.name

    @name.setter
    def name(self, name: str) -> None:
        self._properties.commit(SetDatasetName(name))

    @property
    def voxel_size(self) -> VoxelSize:
        """Size of a voxel of mag 1, with its unit."""
        return self._properties.record.voxel_size

    @property
    def scale(self) -> tuple[float, float, float]:
        """Size of a voxel of mag 1 along (x, y, z), in nm."""
        return self.voxel_size.to_nanometer()

    @property
    def layers(self) -> dict[str, Layer]:
        """The layers by name, as the properties file lists them now."""
        return {record.name: layer_of(self._properties, record) for record in self._properties.record.layers}

    def get_layer(self, layer_name: str) -> Layer:
        """Return a layer.

        Raises
        ------
        LayerNotFoundError
            If there is none of that name; lists those there are.
        """
        return layer_of(self._properties, self._properties.layer(layer_name))

    def get_segmentation_layer(self, layer_name: str) -> SegmentationLayer:
        """Return a segmentation layer.

        Raises
        ------
        LayerNotFoundError
            If there is none of that name.
        """
        layer = self.get_layer(layer_name)
        if not isinstance(layer, SegmentationLayer):
            raise LayerNotFoundError(f"layer {layer_name!r} is of the category {layer.category!r}")
        return layer

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
        bounding_box: BoundingBox = EMPTY_BOX,
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
            In voxels of mag 1; it grows with what is written.

        Raises
        ------
        AlreadyExistsError
            If there is a layer of that name.
        DTypeError
            If a layer cannot hold such voxels.
        InvalidValueError
            If name, category or the combination of arguments cannot work.
        """
        if category not in (LayerCategories.COLOR_TYPE, LayerCategories.SEGMENTATION_TYPE):
            raise InvalidValueError(f'a layer is "color" or "segmentation", got {category!r}')
        channels = 1 if num_channels is None else num_channels
        edit = AddLayer(
            name=layer_name,
            category=category,
            dtype_per_channel=_channel_dtype(dtype_per_layer, dtype_per_channel, channels),
            num_channels=channels,
            largest_segment_id=largest_segment_id,
            mappings=tuple(mappings),
            bounding_box=bounding_box,
        )
        self._properties.commit(edit)
        os.makedirs(os.path.join(self.path, layer_name), exist_ok=True)
        return self.get_layer(layer_name)

    def delete_layer(self, layer_name: str) -> None:
        """Remove a layer: from the properties first, then from the disk; a link is only unlinked.

        Raises
        ------
        LayerNotFoundError
            If there is none of that name.
        """
        self._properties.commit(RemoveLayer(layer_name))
        folder = os.path.join(self.path, layer_name)
        if os.path.islink(folder):
            os.unlink(folder)
        else:
            remove_folder(folder)

    def __repr__(self) -> str:
        from wkdask.display import dataset_text

        return dataset_text(self)

    def _repr_html_(self) -> str:
        from wkdask.display import dataset_html

        return dataset_html(self)


def _channel_dtype(per_layer: Any, per_channel: Any, channels: int) -> str:
    """Return the name of the type of one channel, from either of the two spellings."""
    if per_layer is not None and per_channel is not None:
        raise InvalidValueError("give either dtype_per_layer or dtype_per_channel, not both")
    if per_layer is not None and isinstance(per_layer, str):
        return str(dtype_of(per_layer, channels))
    if per_layer is not None:
        whole = np.dtype(per_layer)
        if channels < 1 or whole.itemsize % channels:
            raise DTypeError(f"{whole} per voxel cannot be split into {channels} channels")
        per_channel = f"{whole.kind}{whole.itemsize // channels}"
    chosen = "uint8" if per_channel is None else per_channel
    named = {"float": "float32", "double": "float64", "int": "int64"}
    try:
        return str(np.dtype(named.get(chosen, chosen) if isinstance(chosen, str) else chosen))
    except TypeError as error:
        raise DTypeError(f"{chosen!r} is not a type of voxels") from error
