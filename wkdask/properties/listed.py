"""What a properties file says, as values under the names that the Dataset API gives them.

They are looked at only: a dataset is changed by the methods of its handles, which commit edits of the file.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox, Mag
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.properties.elements import dtype_of
from wkdask.properties.records import DatasetRecord, LayerRecord, MagRecord, parse
from wkdask.properties.transformations import CoordinateTransformation, transformation_of
from wkdask.properties.view_configuration import DatasetViewConfiguration, LayerViewConfiguration

__all__ = [
    "AttachmentProperties",
    "AttachmentsProperties",
    "DatasetProperties",
    "LayerProperties",
    "MagViewProperties",
    "PropertiesConverter",
    "SegmentationLayerProperties",
    "get_dataset_converter",
    "layer_properties",
]


class _Listed:
    """An entry of the file; equal where the file says the same, also under keys that are not known here."""

    __slots__ = ("_record",)
    _record: DatasetRecord | LayerRecord | MagRecord

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, _Listed):
            return NotImplemented
        return self._record.raw == other._record.raw

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({json.dumps(self._record.raw)})"


class MagViewProperties(_Listed):
    """What the file says of a magnification; `get_dataset_converter` and handles make it."""

    __slots__ = ()
    _record: MagRecord

    def __init__(self, record: MagRecord) -> None:
        self._record = record

    @property
    def mag(self) -> Mag:
        """The magnification."""
        return self._record.mag

    @property
    def resolution(self) -> Mag:
        """The same, as it was called in 2021."""
        return self._record.mag

    @property
    def path(self) -> str | None:
        """As written: relative to the dataset, absolute, or a URL; None for the folder of the mag's name."""
        return self._record.path

    @property
    def cube_length(self) -> int | None:
        """Voxels of this mag along the side of a cube; None where the file does not say."""
        return self._record.cube_length

    @property
    def axis_order(self) -> dict[str, int] | None:
        """The place of each axis in a Zarr array; None where the file does not say."""
        order = self._record.raw.get("axisOrder")
        return dict(order) if isinstance(order, Mapping) else None


class AttachmentProperties:
    """What the file says of an attachment; :class:`AttachmentsProperties` makes it."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw

    @property
    def name(self) -> str | None:
        """Its name among those of its kind; None where the file does not say."""
        return self._raw.get("name")

    @property
    def path(self) -> str | None:
        """As written: relative to the dataset, absolute, or a URL."""
        return self._raw.get("path")

    @property
    def data_format(self) -> str | None:
        """How it is stored."""
        return self._raw.get("dataFormat")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AttachmentProperties) and self._raw == other._raw

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"AttachmentProperties({json.dumps(self._raw)})"


class AttachmentsProperties:
    """What the file says of the attachments of a segmentation, by their kinds; None where it says nothing."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw

    def _all(self, key: str) -> list[AttachmentProperties] | None:
        entries = self._raw.get(key)
        if entries is None:
            return None
        entries = entries if isinstance(entries, list) else [entries]
        return [AttachmentProperties(each) for each in entries if isinstance(each, Mapping)]

    def _one(self, key: str) -> AttachmentProperties | None:
        return next(iter(self._all(key) or ()), None)

    @property
    def meshes(self) -> list[AttachmentProperties] | None:
        """Meshes."""
        return self._all("meshes")

    @property
    def agglomerates(self) -> list[AttachmentProperties] | None:
        """Agglomerates."""
        return self._all("agglomerates")

    @property
    def connectomes(self) -> list[AttachmentProperties] | None:
        """Connectomes."""
        return self._all("connectomes")

    @property
    def segment_index(self) -> AttachmentProperties | None:
        """The segment index."""
        return self._one("segmentIndex")

    @property
    def segment_statistics(self) -> AttachmentProperties | None:
        """The segment statistics."""
        return self._one("segmentStatistics")

    @property
    def cumsum(self) -> AttachmentProperties | None:
        """The offsets into agglomerates."""
        return self._one("cumsum")

    def __iter__(self) -> Iterator[AttachmentProperties]:
        for key in self._raw:
            yield from self._all(key) or ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AttachmentsProperties) and self._raw == other._raw

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"AttachmentsProperties({json.dumps(self._raw)})"


class LayerProperties(_Listed):
    """What the file says of a layer; `get_dataset_converter` and handles make it."""

    __slots__ = ()
    _record: LayerRecord

    def __init__(self, record: LayerRecord) -> None:
        self._record = record

    @property
    def name(self) -> str:
        """The layer's name."""
        return self._record.name

    @property
    def category(self) -> str:
        """``"color"`` or ``"segmentation"``."""
        return self._record.category

    @property
    def bounding_box(self) -> BoundingBox:
        """Where there are data along x, y, z, in voxels of mag 1."""
        return self._record.bounding_box

    @property
    def element_class(self) -> str | None:
        """All channels of a voxel in one word, such as ``"uint24"``; None where the file does not say."""
        return self._record.element_class

    @property
    def dtype(self) -> str | None:
        """The type of one channel, such as ``"uint8"``; None where the file does not say."""
        return None if self.element_class is None else str(dtype_of(self.element_class, self.num_channels))

    @property
    def dtype_np(self) -> np.dtype[Any] | None:
        """The same, as numpy has it."""
        return None if self.dtype is None else np.dtype(self.dtype)

    @property
    def data_format(self) -> str:
        """How mags are stored."""
        return self._record.data_format

    @property
    def num_channels(self) -> int | None:
        """Channels of a voxel; None where the file does not say."""
        return self._record.num_channels

    @property
    def mags(self) -> list[MagViewProperties]:
        """The magnifications, in the order of the file."""
        return [MagViewProperties(record) for record in self._record.mags]

    @property
    def wkw_resolutions(self) -> list[MagViewProperties]:
        """The same, as it was called in 2021."""
        return self.mags

    @property
    def default_view_configuration(self) -> LayerViewConfiguration | None:
        """How WEBKNOSSOS shows the layer at first; None where nothing is said."""
        raw = self._record.default_view_configuration
        return None if raw is None else LayerViewConfiguration.from_json(raw)

    @property
    def coordinate_transformations(self) -> list[CoordinateTransformation] | None:
        """What maps the layer into the dataset; None where nothing is said."""
        raws = self._record.raw.get("coordinateTransformations")
        if raws is None:
            return None
        return [transformation_of(each, f"layer {self.name!r}") for each in raws]


class SegmentationLayerProperties(LayerProperties):
    """What the file says of a segmentation; `get_dataset_converter` and handles make it."""

    __slots__ = ()

    @property
    def largest_segment_id(self) -> int | None:
        """The largest id; None where it is not known."""
        return self._record.largest_segment_id

    @property
    def mappings(self) -> list[str]:
        """The names of mappings."""
        return list(self._record.mappings)

    @property
    def attachments(self) -> AttachmentsProperties:
        """What belongs to it beside voxels; :attr:`SegmentationLayer.attachments` checks, adds and removes it."""
        raw = self._record.raw.get("attachments")
        return AttachmentsProperties(copy.deepcopy(raw) if isinstance(raw, dict) else {})


class DatasetProperties(_Listed):
    """What the file says of a dataset; `get_dataset_converter` and handles make it."""

    __slots__ = ()
    _record: DatasetRecord

    def __init__(self, record: DatasetRecord) -> None:
        self._record = record

    @property
    def id(self) -> dict[str, Any]:
        """The name, and the team of a server."""
        return copy.deepcopy(self._record.raw["id"])

    @property
    def scale(self) -> VoxelSize:
        """The size of a voxel of mag 1."""
        return self._record.voxel_size

    @property
    def version(self) -> int:
        """Of the file's format; 1 where it has none."""
        return self._record.version

    @property
    def data_layers(self) -> list[LayerProperties]:
        """The layers that can be understood, in the order of the file."""
        return [layer_properties(record) for record in self._record.layers]

    @property
    def default_view_configuration(self) -> DatasetViewConfiguration | None:
        """How WEBKNOSSOS shows the dataset at first; None where nothing is said."""
        raw = self._record.default_view_configuration
        return None if raw is None else DatasetViewConfiguration.from_json(raw)


def layer_properties(record: LayerRecord) -> LayerProperties:
    """Return what the file says of a layer, by its category."""
    return (SegmentationLayerProperties if record.is_segmentation else LayerProperties)(record)


class PropertiesConverter:
    """Between the JSON object of a properties file and its values."""

    def structure(self, obj: Mapping[str, Any], cl: type[DatasetProperties]) -> DatasetProperties:
        """Return what a JSON object says.

        Parameters
        ----------
        obj
            The content of a properties file.
        cl
            `DatasetProperties`.

        Raises
        ------
        InvalidValueError
            If another type is asked for.
        PropertiesError
            If the object is no properties file.
        """
        if cl is not DatasetProperties:
            raise InvalidValueError(
                f"a properties file is read as DatasetProperties, which lists its layers and mags; got {cl!r}"
            )
        return DatasetProperties(parse(json.dumps(obj), "the JSON object"))

    def unstructure(self, obj: DatasetProperties | LayerProperties | MagViewProperties) -> dict[str, Any]:
        """Return the JSON object that a value was read from: nothing is lost, also not what is not known here."""
        if not isinstance(obj, _Listed):
            raise InvalidValueError(f"expected DatasetProperties, or what is in them, got {obj!r}")
        return copy.deepcopy(dict(obj._record.raw))


_CONVERTER = PropertiesConverter()


def get_dataset_converter() -> PropertiesConverter:
    """Return what reads the JSON object of a properties file as values, and gives it back.

    Examples
    --------
    >>> with open(ds.path / "datasource-properties.json") as file:
    ...     found = get_dataset_converter().structure(json.load(file), DatasetProperties)
    >>> color, ids = found.data_layers
    >>> isinstance(color, LayerProperties), isinstance(ids, SegmentationLayerProperties)
    (True, True)
    >>> [each.mag.to_layer_name() for each in color.mags if isinstance(each, MagViewProperties)]
    ['1']
    """
    return _CONVERTER
