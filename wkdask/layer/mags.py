"""A layer as the magnifications that it has: get, add, delete, link, copy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from wkdask.errors import (
    AlreadyExistsError,
    InvalidValueError,
    ReadOnlyError,
    UnsupportedFormatError,
)
from wkdask.fsio import remove_folder
from wkdask.geometry import BoundingBox, Mag, MagLike, Vec3IntLike, as_box
from wkdask.geometry.nd_boxes import NDBoundingBox, NormalizedBoundingBox
from wkdask.jobs.folder_edits import recoverable_removal
from wkdask.jobs.job import MagPlace
from wkdask.jobs.mag_folders import clear_leftovers, is_address, mag_folder, mags_lock, refuse_unfinished
from wkdask.layer.axes import add_nd_mag, box_edits, normalized_box_of, open_nd_mag
from wkdask.layer.chunk_layout import Cut, in_chunks
from wkdask.layer.elsewhere import warn_of_cut
from wkdask.layer.first_mag import spec_of_new_mag
from wkdask.layer.multiscales import write_multiscales
from wkdask.layer.zarr_config import CompressLike
from wkdask.locations import (
    HOW_TO_WRITE,
    check_agreement,
    mag_place,
    outside,
    voxel_by_headers,
)
from wkdask.mag_view import MagView
from wkdask.paths import FolderPath, UrlPath, shown_path
from wkdask.properties import (
    AddMag,
    Edit,
    LayerRecord,
    MagRecord,
    RemoveMag,
    SetDataFormat,
    SetNumChannels,
    dtype_of,
    element_class,
)
from wkdask.properties.further_axes import further_axes_of, has_further_axes
from wkdask.properties.handle import Handles, Properties
from wkdask.properties.listed import LayerProperties, layer_properties
from wkdask.storage.formats import (
    check_format,
    check_spec,
    create_mag,
    entry_of,
    open_mag,
    planned_mag,
)
from wkdask.storage.protocol import ArraySpec, StoredMag

if TYPE_CHECKING:
    from wkdask.layer.layer import Layer

__all__ = ["LayerMags"]

_FLOATS = {"float": "float32", "double": "float64"}
"""Element classes that the API calls otherwise than the properties file."""


class LayerMags:
    """What a layer is, and its mags: the lower half of a :class:`~wkdask.layer.layer.Layer`.

    Examples
    --------
    >>> layer.get_mag("1") == layer.get_or_add_mag(1)
    True
    >>> coarse = layer.add_mag("2-2-1", shard_shape=32, compression="lz4")
    >>> [str(mag) for mag in layer.mags], layer.is_mag_view_foreign(coarse)
    (['1', '2-2-1'], False)
    >>> layer.delete_mag("2-2-1")
    >>> layer.set_bounding_box((0, 0, 0), (64, 64, 16))
    """

    def __init__(self, properties: Properties, name: str) -> None:
        self._file = properties
        self._name = name
        self._views = Handles()  # a rename moves the folders of those that are in use
        properties.layers.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self._file, self._name))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LayerMags):
            return NotImplemented
        return (self._file.folder, self._name) == (other._file.folder, other._name)

    def __hash__(self) -> int:
        return hash(self._file.folder)  # the name may be changed

    # --- what it is ----------------------------------------------------------------------------------

    @property
    def record(self) -> LayerRecord:
        """The layer as the properties file has it now."""
        return self._file.layer(self._name)

    @property
    def _properties(self) -> LayerProperties:
        """What the properties file says now, under the names that scripts for the API know."""
        return layer_properties(self.record)

    @property
    def name(self) -> str:
        """The layer's name."""
        return self._name

    @property
    def path(self) -> FolderPath | UrlPath:
        """The layer's folder."""
        return shown_path(f"{self._file.folder}/{self._name}")

    @property
    def dataset_path(self) -> str:
        """The folder of the dataset that it belongs to."""
        return self._file.folder

    @property
    def category(self) -> str:
        """One of `LayerCategories`."""
        return self.record.category

    @property
    def dtype_per_channel(self) -> np.dtype[Any]:
        """Type of one channel."""
        record = self.record
        if record.element_class is None:
            return np.dtype(voxel_by_headers(self._file.folder, record)[0])
        return dtype_of(record.element_class, self.num_channels)

    @property
    def dtype_per_layer(self) -> str:
        """Type of a voxel, all channels: ``"uint24"``; floats with their bits, ``"float32"``."""
        element = self.record.element_class or element_class(self.dtype_per_channel, self.num_channels)
        return _FLOATS.get(element, element)

    @property
    def num_channels(self) -> int:
        """Channels of a voxel; from the header of a mag that agrees with them where the properties do not say."""
        return self.record.num_channels or voxel_by_headers(self._file.folder, self.record)[1]

    @property
    def data_format(self) -> str:
        """How mags are stored: ``"wkw"``, ``"zarr3"``, ``"zarr"`` (Zarr 2), or a format that is only listed."""
        return self.record.data_format

    @property
    def bounding_box(self) -> BoundingBox:
        """Where there are data, in voxels of mag 1; setting it never touches data.

        Of a layer with axes beside c, x, y, z it is an :class:`~wkdask.NDBoundingBox` along all of them.
        """
        record = self.record
        if not has_further_axes(record.raw):
            return record.bounding_box
        return cast(BoundingBox, self.normalized_bounding_box.denormalize())

    @bounding_box.setter
    def bounding_box(self, box: BoundingBox | NDBoundingBox) -> None:
        self._commit(*box_edits(self.record, as_box(box)))

    @property
    def normalized_bounding_box(self) -> NormalizedBoundingBox:
        """Where there are data along all axes of the stored arrays, channels too; in voxels of mag 1."""
        return normalized_box_of(cast("Layer", self))

    def set_bounding_box(self, offset: Vec3IntLike, size: Vec3IntLike) -> None:
        """Set the layer's box, in voxels of mag 1; data are never touched."""
        self.bounding_box = BoundingBox(offset, size)

    def _commit(self, *edits: Edit) -> None:
        """Commit edits of this layer, and the number of channels where a file of 2021 does not say."""
        if self.record.raw.get("numChannels") is None and self.record.mags:
            edits = (SetNumChannels(self._name, self.num_channels), *edits)
        self._file.commit(*edits)

    @property
    def mags(self) -> Mapping[Mag, MagView]:
        """The layer's mags, finest first. One whose folder is missing raises when it is looked up."""
        return _Mags(self)

    # --- mags ----------------------------------------------------------------------------------------

    def get_mag(self, mag: MagLike) -> MagView:
        """Return a magnification; of a layer with axes beside c, x, y, z an :class:`~wkdask.NDMagView`.

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
        OutsideError
            If it lies outside of the dataset, which was opened with ``outside="refuse"``.
        """
        record = self.record.mag(mag)
        if has_further_axes(self.record.raw):
            return cast(MagView, open_nd_mag(cast("Layer", self), record))
        store = self._open(record)
        self._check_agreement(record, store)
        return self._view(Mag(mag), store)

    def _open(self, record: MagRecord) -> StoredMag:
        """Open what a record lists."""
        data_format = self.record.data_format
        try:
            check_format(data_format)
        except UnsupportedFormatError as error:
            raise UnsupportedFormatError(f"layer {self._name!r}: {error}") from None
        if further := self.record.raw.get("additionalAxes"):
            names = ", ".join(str(axis.get("name")) for axis in further if isinstance(axis, dict))
            raise UnsupportedFormatError(
                f"layer {self._name!r}: {data_format} arrays with axes beside c, x, y, z ({names}) are not read"
            )
        return open_mag(self._mag_folder(record), data_format, record.raw)

    def _view(self, mag: Mag, store: StoredMag) -> MagView:
        """Return the handle of an opened mag."""
        view = MagView(cast("Layer", self), mag_place(self._file, self._name, mag, store))
        self._views.add(view)
        return view

    def add_mag(
        self,
        mag: MagLike,
        block_len: int | None = None,
        file_len: int | None = None,
        compress: CompressLike = None,
        *,
        chunk_shape: Vec3IntLike | int | None = None,
        shard_shape: Vec3IntLike | int | None = None,
        chunks_per_shard: Vec3IntLike | int | None = None,
        compression: str | bool | None = None,
    ) -> MagView:
        """Add an empty magnification.

        Parameters
        ----------
        mag
            Which one.
        block_len, file_len
            The 2021 spelling: side of a chunk in voxels (32) and of a cube in chunks (32).
        compress
            The 2021 spelling of ``compression="lz4hc"``; in Zarr 3 also a `Zarr3Config`.
        chunks_per_shard
            Version 4's spelling: chunks along the sides of a cube, instead of `shard_shape`.
        chunk_shape, shard_shape
            Sides of a chunk (32³) and of a cube (1024³; in Zarr 2, where every chunk is a file, the chunk's), in
            voxels of this mag.
        compression
            ``"lz4"`` or ``"lz4hc"`` in WKW, ``"zstd"``, ``"gzip"`` or ``"blosc"`` in Zarr; False for none. By
            default WKW is not compressed, and Zarr by zstd, as webknossos 4 writes it.

        Raises
        ------
        AlreadyExistsError
            If the layer has that mag, or its folder is not empty. What an interrupted job left there is removed.
        JobRunningError
            If a job makes that mag at the moment.
        InvalidValueError, UnsupportedFormatError, DTypeError
            If the layer's format cannot hold it so; nothing was written.

        Notes
        -----
        A layer that was added in this session without a `data_format` becomes Zarr 3, with a warning, if its first
        mag is to be stored as WKW cannot do it: in cubes of unequal sides, or compressed as only Zarr is.
        """
        mag = Mag(mag)
        self._refuse_existing(mag)
        cut = Cut(
            block_len, in_chunks(file_len, chunks_per_shard), compress, chunk_shape, shard_shape, compression
        )
        spec = spec_of_new_mag(cast("Layer", self), mag, cut)
        if has_further_axes(self.record.raw):
            self._refuse_linked_folder()
            return cast(MagView, add_nd_mag(cast("Layer", self), mag, spec))
        return self._add_as(self._new_place(mag, spec, spec.data_format))

    def _new_place(self, mag: Mag, spec: ArraySpec, data_format: str | None = None) -> MagPlace:
        """Return where a new mag will be; nothing is made.

        Parameters
        ----------
        mag, spec
            Which one, its type and cut.
        data_format
            Its format; by default the layer's.

        Raises
        ------
        ReadOnlyError
            If the layer's folder is a symlink to another dataset's.
        InvalidValueError, UnsupportedFormatError, DTypeError
            If the layer's format cannot hold it so.
        """
        self._refuse_further_axes(
            f"mag {mag} would have c, x, y, z; layer.add_mag() adds one, and mag.write() writes its positions"
        )
        self._refuse_linked_folder()
        checked = check_spec(spec, data_format or self.record.data_format)
        warn_of_cut(self._name, mag, checked)
        folder = os.path.join(self.path, mag.to_layer_name())
        return mag_place(self._file, self._name, mag, planned_mag(folder, checked))

    def _add_as(self, place: MagPlace) -> MagView:
        """Make an empty mag where it was planned, and list it; the layer gets the format of its first one."""
        mag, folder, spec = place.mag, place.store.path, place.store.spec
        with mags_lock(self._file.folder):  # of two who add the same mag, one does
            self._refuse_existing(mag)
            there = os.path.isdir(folder)
            clear_leftovers(folder)
            try:
                extent = self.record.bounding_box.aligned_outwards(mag.to_vec3_int()).in_mag(mag).bottomright
                store = create_mag(folder, spec, spec.data_format, extent)
                edits: list[Edit] = [AddMag(self._name, mag, entry_of(store)[0])]
                if spec.data_format != self.record.data_format:
                    edits.insert(0, SetDataFormat(self._name, spec.data_format))
                self._commit(*edits)
            except BaseException:
                if not there:
                    remove_folder(folder)
                raise
        write_multiscales(self._file, self._name)
        return self._view(mag, store)

    def get_or_add_mag(
        self,
        mag: MagLike,
        block_len: int | None = None,
        file_len: int | None = None,
        compress: CompressLike = None,
        *,
        chunk_shape: Vec3IntLike | int | None = None,
        shard_shape: Vec3IntLike | int | None = None,
        chunks_per_shard: Vec3IntLike | int | None = None,
        compression: str | bool | None = None,
    ) -> MagView:
        """Return a magnification; add it if the layer does not have it.

        Parameters
        ----------
        mag, block_len, file_len, compress, chunk_shape, shard_shape, chunks_per_shard, compression
            As for :meth:`add_mag`; what is given must agree with the mag that is there.

        Raises
        ------
        InvalidValueError
            If the mag is there and differs.
        """
        mag = Mag(mag)
        if all(mag != known.mag for known in self.record.mags):
            return self.add_mag(
                mag,
                block_len,
                file_len,
                compress,
                chunk_shape=chunk_shape,
                shard_shape=shard_shape,
                chunks_per_shard=chunks_per_shard,
                compression=compression,
            )
        found = self.get_mag(mag)
        cut = Cut(
            block_len, in_chunks(file_len, chunks_per_shard), compress, chunk_shape, shard_shape, compression
        )
        wrong = cut.differences(found.spec)
        if wrong:
            raise InvalidValueError(f"layer {self._name!r} has a mag {mag} already: {'; '.join(wrong)}")
        return found

    def add_mag_for_existing_files(self, mag: MagLike) -> MagView:
        """List a magnification whose folder is there already.

        Parameters
        ----------
        mag
            Which one; its folder has the short or the long name.

        Raises
        ------
        AlreadyExistsError
            If the layer lists it already.
        DamagedHeaderError
            If the folder has no metadata, or such of another type than the layer.

        Examples
        --------
        >>> import shutil
        >>> second = ds.add_layer_like(layer, "second")
        >>> _ = shutil.copytree("ds/color/1", "ds/second/1")
        >>> second.add_mag_for_existing_files(1).content_is_equal(mag)
        True
        """
        mag = Mag(mag)
        self._refuse_existing(mag)
        record = MagRecord(mag, None, None, {})
        refuse_unfinished(self._mag_folder(record))
        store = self._open(record)
        if self.record.mags or self.record.num_channels is not None:
            self._check_agreement(record, store)
        cube_length, extra = entry_of(store)
        self._commit(AddMag(self._name, mag, cube_length, extra=extra))
        write_multiscales(self._file, self._name)
        return self._view(mag, store)

    def _refuse_further_axes(self, why: str) -> None:
        """Refuse what works on arrays of c, x, y, z, where the layer's have further axes."""
        if has_further_axes(self.record.raw):
            names = ", ".join(axis.name for axis in further_axes_of(self.record))
            raise UnsupportedFormatError(f"layer {self._name!r} has axes beside c, x, y, z ({names}): {why}")

    def _refuse_linked_folder(self) -> None:
        """Refuse to make a mag in a dataset that is read-only, or where the layer's folder is such a link."""
        self._file.check_writable()
        why = outside(self._file.folder, str(self.path))
        if why is not None and not self._file.may_write(str(self.path)):
            raise ReadOnlyError(f"layer {self._name!r} is read-only: {why}; {HOW_TO_WRITE}")

    def _refuse_existing(self, mag: Mag) -> None:
        """Refuse a mag that the layer has."""
        if any(mag == known.mag for known in self.record.mags):
            raise AlreadyExistsError(f"layer {self._name!r} has a mag {mag} already")

    def delete_mag(self, mag: MagLike) -> None:
        """Remove a magnification: from the properties first, then from the disk.

        A mag that is a link, lies outside of the layer's folder or at an address, or is listed by another layer
        too, is only unlisted (the link is removed).

        Raises
        ------
        MagNotFoundError
            If there is none.
        """
        record = self.record.mag(mag)
        removal: AbstractContextManager[None] = nullcontext()
        if not is_address(record):
            above, name = os.path.split(self._mag_folder(record))
            if os.path.realpath(above) == os.path.join(os.path.realpath(self._file.folder), self._name):
                removal = recoverable_removal(self._file, self._name, name)
        with removal:
            self._file.commit(RemoveMag(self._name, record.mag))
        write_multiscales(self._file, self._name)

    def all_handles(self, mag: Mag) -> list[MagView]:
        """Return the handles of a mag that are in use, also those of other handles of this layer."""
        same = [layer for layer in self._file.layers if layer.name == self._name]
        return [view for layer in same for view in layer._views if view.mag == mag]

    def is_mag_view_foreign(self, mag: MagView) -> bool:
        """Return whether a mag lies outside of the dataset, by a link or by its path."""
        return outside(self._file.folder, mag.place.store.path) is not None

    def _mag_folder(self, record: MagRecord) -> str:
        """Return a mag's folder."""
        return mag_folder(self._file.folder, self._name, record)

    def _check_agreement(self, record: MagRecord, store: StoredMag) -> None:
        """Refuse a header that contradicts the properties."""
        check_agreement(self._name, record, str(self.dtype_per_channel), self.num_channels, store)


class _Mags(Mapping[Mag, MagView]):
    """The mags of a layer by their Mag; each is opened when it is looked up."""

    def __init__(self, layer: LayerMags) -> None:
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
