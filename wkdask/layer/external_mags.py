"""Mags of elsewhere in a layer: linked, listed where they are, or copied."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wkdask.errors import AlreadyExistsError, InvalidValueError
from wkdask.fsio import checked_path
from wkdask.further_axes.mag_view import NDMagView
from wkdask.geometry import BoundingBox, Mag, MagLike, Vec3Int, Vec3IntLike
from wkdask.jobs.job import WriteOptions
from wkdask.jobs.mag_folders import clear_leftovers, mags_lock, making_lock, refuse_unfinished
from wkdask.layer.chunk_layout import compression_of, cut_like, per_shard
from wkdask.layer.multiscales import write_multiscales
from wkdask.layer.positions import copy_positions
from wkdask.layer.pyramid import writable_mag
from wkdask.layer.zarr_config import CompressLike
from wkdask.locations import cubes_box, foreign_mag, link_folder
from wkdask.mag_view import MagView
from wkdask.operations.chunks import warn_of_ignored
from wkdask.operations.copy import copy_mag
from wkdask.paths import resolved
from wkdask.properties import AddMag, Edit, GrowBox, MagRecord
from wkdask.properties.further_axes import further_axes_of, has_further_axes
from wkdask.storage.formats import entry_of, extent_of, fitting_compression, open_mag
from wkdask.storage.protocol import ArraySpec, StoredMag

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.layer.layer import Layer

__all__ = [
    "add_copy_mag",
    "add_fs_copy_mag",
    "add_mag_as_ref",
    "add_mag_from_zarrarray",
    "add_symlink_mag",
]


def add_symlink_mag(
    self: Layer,
    foreign_mag_view_or_path: MagView | str | os.PathLike[str],
    make_relative: bool = False,
    extend_layer_bounding_box: bool = True,
    *,
    writable: bool = True,
) -> MagView:
    """Add a magnification that is a link to another dataset's.

    Through this dataset's handles of this session it may be written to, which changes the other dataset's voxels
    and not its properties; a dataset that is opened later says ``writable=True`` for that.

    Parameters
    ----------
    foreign_mag_view_or_path
        The mag, or its folder; the folder's name says which mag it is.
    make_relative
        Make the link relative, so that both datasets can be moved together.
    extend_layer_bounding_box
        Let the layer's box grow around the foreign layer's box.
    writable
        False: refuse writes in this session too.

    Raises
    ------
    AlreadyExistsError
        If the layer has that mag.

    Examples
    --------
    >>> other = Dataset("other", voxel_size=(4, 4, 35))
    >>> other.add_layer_like(layer, "color").add_symlink_mag("ds/color/1").content_is_equal(mag)
    True
    """
    mag, store, box = foreign_mag(foreign_mag_view_or_path)
    self._refuse_existing(mag)
    self._refuse_linked_folder()
    folder = os.path.join(self.path, mag.to_layer_name())
    link_folder(store.path, folder, make_relative)
    try:
        _list(self, mag, store, box if extend_layer_bounding_box else None)
    except BaseException:
        os.unlink(folder)
        raise
    write_multiscales(self._file, self._name)
    if writable:
        self._file.links.add(os.path.realpath(store.path))
    return self.get_mag(mag)


def add_mag_as_ref(
    self: Layer,
    foreign_mag_view_or_path: MagView | str | os.PathLike[str],
    *,
    mag: MagLike | None = None,
    extend_layer_bounding_box: bool = True,
) -> MagView:
    """List another dataset's magnification by its path; nothing is made, and it is read-only here.

    Parameters
    ----------
    foreign_mag_view_or_path
        The mag, or its folder.
    mag
        Which mag it is here; by default as there, for a folder by its name.
    extend_layer_bounding_box
        Let the layer's box grow around the foreign layer's box.

    Raises
    ------
    AlreadyExistsError
        If the layer has that mag.
    InvalidValueError, DamagedHeaderError
        If it is of another format or type than the layer.

    Examples
    --------
    >>> other = Dataset("other", voxel_size=(4, 4, 35))
    >>> other.add_layer_like(layer, "color").add_mag_as_ref(mag).read_only
    True
    """
    there, store, box = foreign_mag(foreign_mag_view_or_path, mag)
    here = there if mag is None else Mag(mag)
    self._file.check_writable()
    self._refuse_existing(here)
    if box is not None and here != there:
        box = box.aligned_outwards(there.to_vec3_int()).in_mag(there).from_mag_to_mag1(here)
    path = str(resolved(store.path))
    _list(self, here, store, box if extend_layer_bounding_box else None, path)
    write_multiscales(self._file, self._name)
    return self.get_mag(here)


def add_copy_mag(
    self: Layer,
    foreign_mag_view_or_path: MagView | str | os.PathLike[str],
    extend_layer_bounding_box: bool = True,
    *,
    mag: MagLike | None = None,
    chunk_shape: Vec3IntLike | int | None = None,
    shard_shape: Vec3IntLike | int | None = None,
    chunks_per_shard: Vec3IntLike | int | None = None,
    compress: CompressLike = None,
    exists_ok: bool = False,
    executor: object = None,
    progress_desc: str | None = None,
    client: Client | None = None,
    verify: bool = False,
) -> MagView:
    """Add a magnification that is a copy of another dataset's: its files, where nothing else is asked for.

    Parameters
    ----------
    foreign_mag_view_or_path
        The mag, or its folder.
    extend_layer_bounding_box
        Let the layer's box grow around the foreign layer's box; else around what was copied.
    mag
        Which mag it is here; by default as there, for a folder by its name.
    chunk_shape, shard_shape, compress
        As for :meth:`add_mag`; as there by default.
    chunks_per_shard
        Instead of `shard_shape`: chunks along the sides of a cube.
    exists_ok
        Copy into the mag if the layer has it; it stays cut and compressed as it is.
    executor, progress_desc
        Ignored, with a warning.
    client
        The cluster; the active one by default.
    verify
        Read what was copied back from the disk, and compare it with the source.

    Raises
    ------
    AlreadyExistsError
        If the layer has that mag, without `exists_ok`.

    Examples
    --------
    >>> second = ds.add_layer_like(layer, "second")
    >>> second.add_copy_mag(mag, shard_shape=64, compress=True).info.shard_shape
    Vec3Int(64,64,64)
    """
    warn_of_ignored(executor=executor, progress_desc=progress_desc)
    how = (chunk_shape, shard_shape, chunks_per_shard, compress)
    if has_further_axes(self.record.raw):
        return _copy_nd_mag(
            self,
            foreign_mag_view_or_path,
            mag,
            how,
            WriteOptions(client=client, verify=verify),
            exists_ok=exists_ok,
            extend=extend_layer_bounding_box,
        )
    there, store, box = foreign_mag(foreign_mag_view_or_path, mag)
    here = there if mag is None else Mag(mag)
    source_box = cubes_box(store) if box is None else box.aligned_outwards(there.to_vec3_int()).in_mag(there)
    grown: list[Edit] = []
    if box is not None and extend_layer_bounding_box:
        whole = box if here == there else source_box.from_mag_to_mag1(here)
        grown = [GrowBox(self._name, whole, Mag(1))]
    options = WriteOptions(client=client, verify=verify)
    if exists_ok and _has(self, here):
        copy_mag(store, writable_mag(self, here).place, source_box, options)
        self._commit(*grown)
        return self.get_mag(here)
    self._refuse_existing(here)
    spec = _spec_of_copy(self, store.spec, how)
    place = self._new_place(here, spec)
    with making_lock(self._file.folder, self._name):
        self._refuse_existing(here)
        if source_box.is_empty():
            self._add_as(place)
        else:
            copy_mag(store, place, source_box, options, new=True)
            write_multiscales(self._file, self._name)
        self._commit(*grown)
    return self.get_mag(here)


_AskedCut = tuple[Any, Any, Any, Any]
"""Chunk shape, shard shape, chunks per shard and compression as a user gives them."""


def _spec_of_copy(layer: Layer, source: ArraySpec, how: _AskedCut) -> ArraySpec:
    """Return how a copy of a mag is stored in a layer: as its source is, where nothing else is asked for."""
    chunk_shape, shard_shape, chunks_per_shard, compress = how
    chunk = source.chunk_shape if chunk_shape is None else Vec3Int.from_scalar_or_vec(chunk_shape)
    shard = per_shard(chunk, shard_shape, chunks_per_shard)
    compression = fitting_compression(layer.data_format, source.compression, copied=True)
    if compress is not None:
        compression = compression_of(layer.data_format, compress, None)
    chunk, shard = cut_like(source, layer.data_format, chunk_shape, shard)
    return replace(
        source,
        dtype=str(layer.dtype_per_channel),
        num_channels=layer.num_channels,
        chunk_shape=chunk,
        shard_shape=shard,
        compression=compression,
        layout=layer.data_format,
    )


def _copy_nd_mag(
    layer: Layer,
    foreign: object,
    mag: MagLike | None,
    how: _AskedCut,
    options: WriteOptions,
    *,
    exists_ok: bool,
    extend: bool,
) -> MagView:
    """Add a copy of a mag to a layer with further axes; errors as `add_copy_mag`."""
    if not isinstance(foreign, NDMagView):
        label = foreign.place.label if isinstance(foreign, MagView) else str(foreign)
        names = ", ".join(axis.name for axis in further_axes_of(layer.record))
        raise InvalidValueError(
            f"layer {layer.name!r} has axes beside c, x, y, z ({names}): what is copied into it is a mag that has "
            f"them, not {label}"
        )
    here = foreign.mag if mag is None else Mag(mag)
    there = exists_ok and _has(layer, here)
    if not there:
        layer._refuse_existing(here)
    spec = None if there else _spec_of_copy(layer, foreign.first_position().spec, how)
    with making_lock(layer._file.folder, layer.name):
        return copy_positions(layer, here, foreign, spec, options, extend=extend)


def _has(layer: Layer, mag: Mag) -> bool:
    return any(mag == known.mag for known in layer.record.mags)


def add_fs_copy_mag(
    self: Layer,
    foreign_mag_view_or_path: MagView | str | os.PathLike[str],
    *,
    extend_layer_bounding_box: bool = True,
    exists_ok: bool = False,
) -> MagView:
    """Add a copy of another dataset's magnification, cut and compressed as there; see :meth:`add_copy_mag`.

    Parameters
    ----------
    foreign_mag_view_or_path, extend_layer_bounding_box, exists_ok
        As for :meth:`add_copy_mag`.

    Examples
    --------
    >>> ds.add_layer_like(layer, "second").add_fs_copy_mag("ds/color/1").content_is_equal(mag)
    True
    """
    return add_copy_mag(self, foreign_mag_view_or_path, extend_layer_bounding_box, exists_ok=exists_ok)


def add_mag_from_zarrarray(
    self: Layer,
    mag: MagLike,
    path: str | os.PathLike[str],
    *,
    move: bool = False,
    extend_layer_bounding_box: bool = True,
) -> MagView:
    """Add a Zarr array that exists as a magnification.

    Parameters
    ----------
    mag
        Which one.
    path
        The array's folder; its format is the layer's, its type and channels too.
    move
        Rename the folder into the dataset, instead of copying it.
    extend_layer_bounding_box
        Let the layer's box grow around the whole array.

    Raises
    ------
    AlreadyExistsError
        If the layer has that mag, or its folder holds files.
    InvalidValueError, DamagedHeaderError, UnsupportedFormatError
        If the layer cannot have it; nothing was made.

    Examples
    --------
    >>> import zarr
    >>> array = zarr.create_array("array", shape=(1, 64, 64, 32), chunks=(1, 32, 32, 32), dtype="uint8")
    >>> new = ds.add_layer("zarr", "color", data_format="zarr3")
    >>> new.add_mag_from_zarrarray(1, "array", move=True).layer.bounding_box
    BoundingBox((0, 0, 0), (64, 64, 32))
    """
    here = Mag(mag)
    if self.data_format == "wkw":
        raise InvalidValueError(
            f"layer {self._name!r} is stored as WKW, and cannot have a Zarr array as a mag"
        )
    self._refuse_existing(here)
    self._refuse_linked_folder()
    source = checked_path(path)
    refuse_unfinished(source)
    store = open_mag(source, self.data_format)
    self._check_agreement(MagRecord(here, None, None, {}), store)
    folder = os.path.join(self.path, here.to_layer_name())
    with mags_lock(self._file.folder):
        if os.path.islink(folder):
            raise AlreadyExistsError(f"{folder} exists already")
        clear_leftovers(folder)
        try:
            os.rmdir(folder)
        except OSError:
            raise AlreadyExistsError(f"{folder} exists already") from None
        if move:
            shutil.move(source, folder)
        else:
            shutil.copytree(source, folder)
        try:
            moved = open_mag(folder, self.data_format)
            whole = BoundingBox((0, 0, 0), extent_of(moved)) if extend_layer_bounding_box else None
            _list(self, here, moved, None if whole is None else whole.from_mag_to_mag1(here))
        except BaseException:
            if move:
                shutil.move(folder, source)
            else:
                shutil.rmtree(folder)
            raise
    write_multiscales(self._file, self._name)
    return self.get_mag(here)


def _list(layer: Layer, mag: Mag, store: StoredMag, box: BoundingBox | None, path: str | None = None) -> None:
    """List a mag that is there, and let the layer's box grow."""
    if store.spec.data_format != layer.data_format:
        raise InvalidValueError(
            f"{store.path} is stored as {store.spec.data_format!r}, the mags of layer {layer.name!r} as "
            f"{layer.data_format!r}; add a copy instead"
        )
    layer._check_agreement(MagRecord(mag, None, None, {}), store)
    cube_length, extra = entry_of(store)
    edits: list[Edit] = [AddMag(layer.name, mag, cube_length, path, extra=extra)]
    if box is not None:
        edits.append(GrowBox(layer.name, box, Mag(1)))
    layer._commit(*edits)
