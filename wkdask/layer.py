"""A layer: an image or a segmentation in several magnifications."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.errors import (
    AlreadyExistsError,
    DamagedHeaderError,
    InvalidValueError,
    ReadOnlyError,
    UnsupportedFormatError,
)
from wkdask.events import WriteReport
from wkdask.fsio import remove_folder
from wkdask.geometry import BoundingBox, Mag, MagLike, Vec3Int, Vec3IntLike
from wkdask.job import MagPlace, WriteOptions
from wkdask.mag_view import MagView
from wkdask.progress import ProgressLike, listeners_for
from wkdask.properties import AddMag, LayerRecord, MagRecord, RemoveMag, SetBox, SetSegmentId, dtype_of
from wkdask.properties.handle import Properties
from wkdask.pyramid import default_coarsest_mag, downsample_mag, interpolation_of, mag_chain
from wkdask.storage.protocol import ArraySpec
from wkdask.storage.wkw import HEADER_NAME, WkwMag
from wkdask.storage.wkw_format import header_of_spec, read_header

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Layer", "LayerCategories", "SegmentationLayer"]


class LayerCategories:
    """The kinds of layers, as the properties file writes them."""

    COLOR_TYPE = "color"
    SEGMENTATION_TYPE = "segmentation"


class Layer:
    """A layer of a dataset.

    Made by :meth:`Dataset.get_layer` and :meth:`Dataset.add_layer`. It holds no data and no state of its own:
    what it says of itself is what the properties file says now.
    """

    def __init__(self, properties: Properties, name: str) -> None:
        self._properties = properties
        self._name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self._properties, self._name))

    # --- what it is ----------------------------------------------------------------------------------

    @property
    def record(self) -> LayerRecord:
        """The layer as the properties file has it now."""
        return self._properties.layer(self._name)

    @property
    def name(self) -> str:
        """The layer's name."""
        return self._name

    @property
    def path(self) -> str:
        """The layer's folder."""
        return os.path.join(self._properties.folder, self._name)

    @property
    def category(self) -> str:
        """One of `LayerCategories`."""
        return self.record.category

    @property
    def dtype_per_channel(self) -> np.dtype[Any]:
        """Type of one channel."""
        return dtype_of(self.record.element_class, self.num_channels)

    @property
    def dtype_per_layer(self) -> str:
        """Type of a voxel, all channels, as the properties file names it: ``"uint24"``."""
        return self.record.element_class

    @property
    def num_channels(self) -> int:
        """Channels of a voxel; from the first mag's header where the properties do not say."""
        known = self.record.num_channels
        if known is not None:
            return known
        for mag in self.record.mags:
            header = os.path.join(self._mag_folder(mag), HEADER_NAME)
            if os.path.exists(header):
                return read_header(header).to_spec().num_channels
        raise DamagedHeaderError(
            f"layer {self._name!r}: the properties give no numChannels, and no mag has a {HEADER_NAME} that does"
        )

    @property
    def data_format(self) -> str:
        """How mags are stored: ``"wkw"``."""
        return self.record.data_format

    @property
    def bounding_box(self) -> BoundingBox:
        """Where there are data, in voxels of mag 1; setting it never touches data."""
        return self.record.bounding_box

    @bounding_box.setter
    def bounding_box(self, box: BoundingBox) -> None:
        self._properties.commit(SetBox(self._name, box))

    @property
    def mags(self) -> Mapping[Mag, MagView]:
        """The layer's mags, finest first. One whose folder is missing raises when it is looked up."""
        return _Mags(self)

    # --- mags ----------------------------------------------------------------------------------------

    def get_mag(self, mag: MagLike) -> MagView:
        """Return a magnification.

        Parameters
        ----------
        mag
            ``1``, ``"1"``, ``"2-2-1"``, ``(2, 2, 1)`` or a `Mag`.

        Raises
        ------
        MagNotFoundError
            If the properties do not list it.
        DamagedHeaderError
            If its folder or header is missing, or contradicts the properties.
        UnsupportedFormatError
            If it is stored in a format, or at an address, that wkdask does not read.
        """
        record = self.record.mag(mag)
        if self.record.data_format != "wkw":
            raise UnsupportedFormatError(
                f"layer {self._name!r} is stored as {self.record.data_format!r}; this version reads wkw"
            )
        folder = self._mag_folder(record)
        store = WkwMag.open(folder)
        self._check_agreement(record, store)
        return MagView(self, self._place(Mag(mag), store))

    def add_mag(
        self,
        mag: MagLike,
        block_len: int | None = None,
        file_len: int | None = None,
        compress: bool | None = None,
        *,
        chunk_shape: Vec3IntLike | int | None = None,
        shard_shape: Vec3IntLike | int | None = None,
        compression: str | None = None,
    ) -> MagView:
        """Add an empty magnification.

        Parameters
        ----------
        mag
            Which one.
        block_len, file_len
            The 2021 spelling: side of a chunk in voxels (32) and of a cube in chunks (32).
        compress
            The 2021 spelling of ``compression="lz4hc"``.
        chunk_shape, shard_shape
            Sides of a chunk (32³) and of a cube (1024³), in voxels of this mag.
        compression
            ``None``, ``"lz4"`` or ``"lz4hc"``.

        Raises
        ------
        AlreadyExistsError
            If the layer has that mag, or its folder is not empty.
        InvalidValueError, UnsupportedFormatError, DTypeError
            If WKW cannot hold it so; nothing was written.
        """
        mag = Mag(mag)
        if any(mag == known.mag for known in self.record.mags):
            raise AlreadyExistsError(f"layer {self._name!r} has a mag {mag} already")
        spec = ArraySpec(
            dtype=str(self.dtype_per_channel),
            num_channels=self.num_channels,
            chunk_shape=_side("chunk_shape", chunk_shape, block_len, 1, 32),
            shard_shape=_side(
                "shard_shape", shard_shape, file_len, _scalar(chunk_shape, block_len), 32 * (block_len or 32)
            ),
            compression=_compression(compress, compression),
        )
        header_of_spec(spec)  # refuses what WKW cannot hold before a folder is made
        folder = os.path.join(self.path, mag.to_layer_name())
        if os.path.isdir(folder) and os.listdir(folder):
            raise AlreadyExistsError(
                f"{folder} holds files, but the properties do not list mag {mag}; remove it or move it away first"
            )
        store = WkwMag.create(folder, spec)
        self._properties.commit(AddMag(self._name, mag, spec.shard_shape.x))
        return MagView(self, self._place(mag, store))

    def delete_mag(self, mag: MagLike) -> None:
        """Remove a magnification: from the properties first, then from the disk.

        A mag that is a link, lies outside of the layer's folder, or is listed by another layer too, is only
        unlisted (the link is removed).

        Raises
        ------
        MagNotFoundError
            If there is none.
        """
        record = self.record.mag(mag)
        folder = self._mag_folder(record)
        self._properties.commit(RemoveMag(self._name, record.mag))
        if os.path.islink(folder):
            os.unlink(folder)
        elif self._owns(folder):
            remove_folder(folder)

    def _owns(self, folder: str) -> bool:
        """Tell whether a folder is one of this layer's own, and no mag that is still listed lies there."""
        target = os.path.realpath(folder)
        if os.path.dirname(target) != os.path.join(os.path.realpath(self._properties.folder), self._name):
            return False
        listed = (
            Layer(self._properties, layer.name)._mag_folder(mag)
            for layer in self._properties.record.layers
            for mag in layer.mags
            if "://" not in (mag.path or "")
        )
        return all(os.path.realpath(other) != target for other in listed)

    def _place(self, mag: Mag, store: WkwMag) -> MagPlace:
        """Return where a mag is, as plain data."""
        return MagPlace(self._properties.folder, self._name, mag, store, self._outside(store.path))

    def _outside(self, folder: str) -> str | None:
        """Return why a mag in this folder is read-only; None where it is in the dataset."""
        dataset, target = os.path.realpath(self._properties.folder), os.path.realpath(folder)
        if os.path.commonpath([dataset, target]) == dataset:
            return None
        return f"it is linked from {target}, outside of the dataset {dataset}"

    def _mag_folder(self, record: MagRecord) -> str:
        """Return a mag's folder: as the properties say, or by its short name, or by its long one."""
        if record.path is not None:
            if "://" in record.path:
                raise UnsupportedFormatError(
                    f"layer {self._name!r} mag {record.mag} is at {record.path}; this version reads local files"
                )
            return os.path.normpath(os.path.join(self._properties.folder, record.path))
        short = os.path.join(self.path, record.mag.to_layer_name())
        long = os.path.join(self.path, record.mag.to_long_layer_name())
        return long if os.path.isdir(long) and not os.path.isdir(short) else short

    def _check_agreement(self, record: MagRecord, store: WkwMag) -> None:
        """Refuse a header that contradicts the properties."""
        found, spec = store.header, store.spec
        says: dict[str, tuple[object, object]] = {
            "dtype": (spec.dtype, str(self.dtype_per_channel)),
            "channels": (spec.num_channels, self.num_channels),
        }
        if record.cube_length is not None:
            says["cubeLength"] = (spec.shard_shape.x, record.cube_length)
        wrong = [f"{what} {a} against {b}" for what, (a, b) in says.items() if a != b]
        if wrong:
            raise DamagedHeaderError(
                f"{store.path}/{HEADER_NAME} ({found}) contradicts the properties of layer {self._name!r} "
                f"mag {record.mag}: {', '.join(wrong)}"
            )

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
            Accept two mags of the same largest component.
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
        if not self.record.mags:
            raise InvalidValueError(f"layer {self._name!r} has no mag to start from")
        if self.bounding_box.is_empty():
            raise InvalidValueError(f"layer {self._name!r} is empty: there is nothing to downsample")
        start = Mag(from_mag) if from_mag is not None else max(record.mag for record in self.record.mags)
        end = Mag(coarsest_mag) if coarsest_mag is not None else default_coarsest_mag(self.bounding_box)
        mode = interpolation_of(interpolation_mode, self.category == LayerCategories.SEGMENTATION_TYPE)
        chain = mag_chain(
            start, end, self._properties.record.voxel_size, sampling_mode, force_sampling_scheme
        )
        there = [str(mag) for mag in chain if any(mag == record.mag for record in self.record.mags)]
        if there:
            raise AlreadyExistsError(
                f"layer {self._name!r} has mag {', '.join(there)} already; delete it, or start from a coarser one"
            )
        options = WriteOptions(client=client, durable=durable, listeners=listeners_for(progress))
        source, reports = self.get_mag(start), []
        if source.read_only and self._outside(self.path) is not None:
            raise ReadOnlyError(f"layer {self._name!r} lies outside of the dataset")
        for mag in chain:
            target = self.add_mag(
                mag,
                chunk_shape=source.spec.chunk_shape,
                shard_shape=source.spec.shard_shape,
                compression=compression,
            )
            reports.append(downsample_mag(source.place, target.place, self.bounding_box, mode, options))
            source = target
        return reports

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


class _Mags(Mapping[Mag, MagView]):
    """The mags of a layer by their Mag; each is opened when it is looked up."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    def __getitem__(self, mag: Mag) -> MagView:
        return self._layer.get_mag(mag)

    def __iter__(self) -> Any:
        return iter(sorted(record.mag for record in self._layer.record.mags))

    def __len__(self) -> int:
        return len(self._layer.record.mags)

    def __contains__(self, mag: object) -> bool:
        return any(record.mag == mag for record in self._layer.record.mags)

    def __repr__(self) -> str:
        return f"<mags {', '.join(map(str, self))}>"


def _scalar(shape: Any, length: int | None) -> int:
    """Return the side of a chunk that a file length counts in."""
    if shape is not None:
        return Vec3Int.from_scalar_or_vec(shape).x
    return 32 if length is None else length


def _side(name: str, shape: Any, length: int | None, unit: int, default: int) -> Vec3Int:
    """Return a shape from its newer spelling, or from a 2021 length in units; not from both."""
    if shape is not None:
        if length is not None:
            raise InvalidValueError(f"give either {name} or its 2021 spelling, not both")
        return Vec3Int.from_scalar_or_vec(shape)
    return Vec3Int.full(default if length is None else unit * length)


def _compression(compress: bool | None, compression: str | None) -> str | None:
    """Return the compression from either spelling."""
    if compress is not None and compression is not None:
        raise InvalidValueError("give either compression or its 2021 spelling compress, not both")
    return "lz4hc" if compress else compression


def layer_of(properties: Properties, record: LayerRecord) -> Layer:
    """Return the handle of a layer by its category."""
    kind = SegmentationLayer if record.is_segmentation else Layer
    return kind(properties, record.name)
