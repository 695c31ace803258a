"""Layers of elsewhere in a dataset: linked, listed where they are, or copied."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from wkdask.errors import InvalidValueError
from wkdask.geometry import Vec3Int, Vec3IntLike
from wkdask.jobs.job import WriteOptions
from wkdask.layer import Layer
from wkdask.layer.chunk_layout import per_shard
from wkdask.layer.copies import CopyCut
from wkdask.layer.links import copy_layer, link_layer, open_foreign_layer, refer_to_layer
from wkdask.layer.zarr_config import CompressLike, asked_compression
from wkdask.operations.chunks import warn_of_ignored
from wkdask.progress.bar import ProgressLike, listeners_for

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.dataset.dataset import Dataset

__all__ = [
    "add_copy_layer",
    "add_fs_copy_layer",
    "add_layer_as_ref",
    "add_symlink_layer",
    "copy_cut",
    "copy_missing_layers",
    "fs_copy_dataset",
]


def add_symlink_layer(
    self: Dataset,
    foreign_layer: Layer | str | os.PathLike[str],
    make_relative: bool | str = False,
    new_layer_name: str | None = None,
    *,
    writable: bool = True,
) -> Layer:
    """Add a layer that is a link to another dataset's.

    Through this dataset's handles of this session it may be written to, which changes the other dataset's voxels
    and not its properties; a dataset that is opened later says ``writable=True`` for that.

    Parameters
    ----------
    foreign_layer
        The layer, or its folder.
    make_relative
        Make the link relative, so that both datasets can be moved together. A name in this place is
        `new_layer_name`, as in version 4.
    new_layer_name
        Its name here; the same by default.
    writable
        False: refuse writes in this session too.

    Raises
    ------
    AlreadyExistsError
        If the name is taken.

    Examples
    --------
    >>> other = Dataset("other", voxel_size=(4, 4, 35))
    >>> other.add_symlink_layer("ds/color", new_layer_name="linked").is_foreign
    True
    """
    if isinstance(make_relative, str):
        if new_layer_name is not None:
            raise InvalidValueError(f"give one name, not {make_relative!r} and {new_layer_name!r}")
        new_layer_name, make_relative = make_relative, False
    foreign = open_foreign_layer(foreign_layer)
    self._file.check_writable()
    name = new_layer_name or foreign.name
    layer = link_layer(foreign, self._file, name, make_relative)
    if writable:
        self._file.links.add(os.path.realpath(foreign.path))
        self._file.links.update(os.path.realpath(view.path) for view in layer.mags.values())
    return layer


def add_layer_as_ref(
    self: Dataset, foreign_layer: Layer | str | os.PathLike[str], new_layer_name: str | None = None
) -> Layer:
    """List another dataset's layer, its mags by their paths; they are read-only here, further ones may be added.

    Parameters
    ----------
    foreign_layer
        The layer, or its folder.
    new_layer_name
        Its name here; the same by default.

    Raises
    ------
    AlreadyExistsError
        If the name is taken.

    Examples
    --------
    >>> other = Dataset("other", voxel_size=(4, 4, 35))
    >>> other.add_layer_as_ref(ds.get_layer("color")).get_mag(1).is_foreign
    True
    """
    foreign = open_foreign_layer(foreign_layer)
    self._file.check_writable()
    return refer_to_layer(foreign, self._file, new_layer_name or foreign.name)


def add_copy_layer(
    self: Dataset,
    foreign_layer: Layer | str | os.PathLike[str],
    new_layer_name: str | None = None,
    *,
    chunk_shape: Vec3IntLike | int | None = None,
    shard_shape: Vec3IntLike | int | None = None,
    chunks_per_shard: Vec3IntLike | int | None = None,
    data_format: str | None = None,
    compress: CompressLike = None,
    exists_ok: bool = False,
    executor: object = None,
    with_attachments: bool = True,
    client: Client | None = None,
    verify: bool = False,
    progress: ProgressLike = None,
) -> Layer:
    """Add a copy of another dataset's layer, with all its mags.

    Parameters
    ----------
    foreign_layer
        The layer, or its folder.
    new_layer_name
        Its name here; the same by default.
    chunk_shape, shard_shape, compress
        As for :meth:`Layer.add_mag`; as there by default.
    chunks_per_shard
        Instead of `shard_shape`: chunks along the sides of a cube.
    data_format
        ``"wkw"``, ``"zarr3"`` or ``"zarr"``; as there by default.
    exists_ok
        If there is a layer of that name, copy the mags that it does not have.
    executor
        Ignored, with a warning.
    with_attachments
        Copy meshes, agglomerates and what else is in the layer's folder too.
    client, progress
        As for :meth:`MagView.write`.
    verify
        Read what was copied back from the disk, and compare it with the source.

    Raises
    ------
    AlreadyExistsError
        If the name is taken, without `exists_ok`.

    Examples
    --------
    >>> other = Dataset("other", voxel_size=(4, 4, 35))
    >>> copy = other.add_copy_layer(ds.get_layer("color"), "copy", data_format="zarr3")
    >>> copy.get_mag(1).content_is_equal(mag)
    True
    """
    warn_of_ignored(executor=executor)
    foreign = open_foreign_layer(foreign_layer)
    self._file.check_writable()
    name = new_layer_name or foreign.name
    if exists_ok and name in self.layers:
        layer = self.get_layer(name)
        for mag, view in foreign.mags.items():
            if mag not in layer.mags:
                layer.add_copy_mag(
                    view,
                    chunk_shape=chunk_shape,
                    shard_shape=shard_shape,
                    chunks_per_shard=chunks_per_shard,
                    compress=compress,
                    client=client,
                    verify=verify,
                )
        return layer
    return copy_layer(
        foreign,
        self._file,
        name,
        WriteOptions(client=client, verify=verify, listeners=listeners_for(progress)),
        copy_cut(chunk_shape, shard_shape, chunks_per_shard, compress, data_format),
        with_rest=with_attachments,
    )


def copy_missing_layers(
    source: Dataset,
    copy: Dataset,
    layers: Iterable[str] | None,
    layers_to_ignore: Iterable[str] | None,
    **how: Any,
) -> Dataset:
    """Copy what a dataset that is there does not have of another's layers and mags; return it."""
    for name in list(source.layers) if layers is None else layers:
        if name not in (layers_to_ignore or ()):
            copy.add_copy_layer(source.get_layer(name), exists_ok=True, **how)
    return copy


def copy_cut(
    chunk_shape: Vec3IntLike | int | None,
    shard_shape: Vec3IntLike | int | None,
    chunks_per_shard: Vec3IntLike | int | None,
    compress: CompressLike,
    data_format: str | None,
) -> CopyCut:
    """Return how the mags of a copy are to be stored, from version 4's words."""
    per_shard(Vec3Int.ones(), shard_shape, chunks_per_shard)
    compression = asked_compression(compress)
    return CopyCut(
        None if chunk_shape is None else Vec3Int.from_scalar_or_vec(chunk_shape),
        None if shard_shape is None else Vec3Int.from_scalar_or_vec(shard_shape),
        cast("int | None", chunks_per_shard),  # of three numbers a vector, which multiplies chunks as well
        True if compression is None else _thorough(compression, data_format),
        None if data_format is None else str(data_format),
    )


def _thorough(compression: str | bool, data_format: str | None) -> str | None:
    """Return the name of a compression; True, which a copy would take for as it is, is the format's own."""
    if compression is True:
        return "zstd" if data_format in ("zarr", "zarr3") else "lz4hc"  # in Zarr that means Zstandard too
    return compression or None


def add_fs_copy_layer(
    self: Dataset, foreign_layer: Layer | str | os.PathLike[str], new_layer_name: str | None = None
) -> Layer:
    """Add a copy of another dataset's layer, its files as they are; see :meth:`add_copy_layer`.

    Parameters
    ----------
    foreign_layer, new_layer_name
        As for :meth:`add_copy_layer`.

    Examples
    --------
    >>> other = Dataset("other", voxel_size=(4, 4, 35))
    >>> other.add_fs_copy_layer("ds/color").get_mag(1).content_is_equal(mag)
    True
    """
    return self.add_copy_layer(foreign_layer, new_layer_name)


def fs_copy_dataset(
    self: Dataset,
    new_dataset_path: str | os.PathLike[str],
    *,
    exists_ok: bool = False,
    layers_to_ignore: Iterable[str] | None = None,
) -> Dataset:
    """Copy the dataset, its files as they are; see :meth:`copy_dataset`.

    Parameters
    ----------
    new_dataset_path, exists_ok, layers_to_ignore
        As for :meth:`copy_dataset`.

    Examples
    --------
    >>> ds.fs_copy_dataset("copy").first_difference(ds) is None
    True
    """
    return self.copy_dataset(
        new_dataset_path, exists_ok=exists_ok, layers_to_ignore=tuple(layers_to_ignore or ())
    )
