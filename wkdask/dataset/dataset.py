"""A dataset: a folder with ``datasource-properties.json`` and its layers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from wkdask.dataset.copies import DatasetCopy, plan_dataset, run_copy
from wkdask.dataset.defaults import PROPERTIES_FILE_NAME
from wkdask.dataset.equality import Difference, first_difference
from wkdask.dataset.external_layers import (
    add_copy_layer,
    add_fs_copy_layer,
    add_layer_as_ref,
    add_symlink_layer,
    copy_missing_layers,
    fs_copy_dataset,
)
from wkdask.dataset.from_dask import from_dask
from wkdask.dataset.layers import DatasetLayers
from wkdask.dataset.making import make_dataset
from wkdask.dataset.uploads import plan_upload, run_upload, warn_of_unused
from wkdask.dataset.work import calculate_bounding_box, check, compress, downsample, write_layer
from wkdask.errors import AlreadyExistsError, InvalidValueError
from wkdask.external.images.from_images import add_layer_from_images, from_images
from wkdask.external.images.layer_mapping import ConversionLayerMapping
from wkdask.fsio import checked_path, checked_place
from wkdask.geometry import BoundingBox, Vec3Int, Vec3IntLike, as_box
from wkdask.geometry.voxel_size import VoxelSize, as_voxel_size
from wkdask.jobs.folder_edits import recover_edits
from wkdask.jobs.job import WriteOptions
from wkdask.layer import Layer, SegmentationLayer
from wkdask.layer.chunk_layout import in_chunks, per_shard
from wkdask.layer.copies import CopyCut
from wkdask.layer.links import copy_view_configuration, link_mags
from wkdask.layer.zarr_config import CompressLike, asked_compression
from wkdask.locations import refuse_outside, warn_of_layers
from wkdask.mag_view import MagView
from wkdask.names import COLOR_CATEGORY, SEGMENTATION_CATEGORY, LayerCategoryType
from wkdask.objects.stores import take_options
from wkdask.objects.urls import is_url
from wkdask.operations.chunks import warn_of_ignored
from wkdask.progress.bar import ProgressLike, listeners_for
from wkdask.properties import PROPERTIES_FILE
from wkdask.properties.handle import Properties
from wkdask.view import View

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.viewer.viewer import Viewer

__all__ = [
    "COLOR_CATEGORY",
    "PROPERTIES_FILE_NAME",
    "SEGMENTATION_CATEGORY",
    "Dataset",
    "Layer",
    "LayerCategoryType",
    "MagView",
    "SegmentationLayer",
    "View",
]  # what scripts import from there

"""The name of the file that makes a folder a dataset."""


class Dataset(DatasetLayers):
    """A WEBKNOSSOS dataset on disk.

    Parameters
    ----------
    dataset_path
        Its folder, which holds ``datasource-properties.json``; or its URL, as text or UPath, at which it is read
        only: ``s3://bucket/path``, ``s3://endpoint/bucket/path``, ``gs://``, ``az://``, ``https://``. Datasets of
        2021 and later open; what the file says beyond what is known here stays as it is through every edit. A
        layer that cannot be understood is listed, with a warning; it raises a `PropertiesError` when it is used.
    voxel_size
        Size of a voxel of mag 1 along (x, y, z), in nm, or a `VoxelSize`. With it a dataset is **made**: the folder
        must be missing or empty, unless `exist_ok`.
    name
        The dataset's name, the folder's by default; that of a dataset that is there must agree.
    exist_ok
        Open the dataset if it is there; its voxel size and name must agree with what is given.
    voxel_size_with_unit
        Instead of `voxel_size`.
    read_only
        Refuse every change through this handle and those that it returns.
    outside
        What may happen with mags, and cubes, that a path in the file or a link reaches outside of the folder:
        ``"read-only"``: they are read, writes are refused; ``"refuse"``: a dataset with such mags does not open,
        and such a cube is not read; ``"write"``: they are written as well. The other dataset's properties file
        does not hear of such a write: if it has a box or ids, they stay as they were.
    writable
        The same as ``outside="write"``.
    storage_options
        Of a dataset at a URL: credentials and endpoint of its bucket, in the words of s3fs and UPath (``key``,
        ``secret``, ``token``, ``anon``, ``endpoint_url``) or of obstore. They hold for the bucket in this process;
        workers in other processes read their own environment.

    Raises
    ------
    FileNotFoundError
        If there is no such file, and no `voxel_size` to make one with.
    AlreadyExistsError
        If the folder holds something and a dataset is to be made, or the one that is there differs.
    PropertiesError
        If the file cannot be understood.
    OutsideError
        If ``outside="refuse"`` and a mag lies outside of the folder, or at an address.

    Examples
    --------
    >>> ds = Dataset("ds")
    >>> x = ds.get_layer("color").get_mag("1").to_dask()
    >>> x.shape
    (1, 64, 64, 32)
    """

    def __init__(
        self,
        dataset_path: str | os.PathLike[str],
        voxel_size: Sequence[float] | VoxelSize | None = None,
        name: str | None = None,
        exist_ok: bool = False,
        *,
        voxel_size_with_unit: VoxelSize | None = None,
        read_only: bool = False,
        outside: str = "read-only",
        writable: bool = False,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        path = checked_place(dataset_path)
        if storage_options is not None:
            take_options(path, storage_options)
        if voxel_size is not None and voxel_size_with_unit is not None:
            raise InvalidValueError("give either voxel_size or voxel_size_with_unit, not both")
        if writable and (read_only or outside == "refuse"):
            raise InvalidValueError('writable=True contradicts read_only=True and outside="refuse"')
        size = voxel_size if voxel_size_with_unit is None else voxel_size_with_unit
        if size is not None and not read_only:
            make_dataset(path, as_voxel_size(size), name, exist_ok)
        super().__init__(Properties(path, "write" if writable else outside, read_only))
        warn_of_layers(self._file.record)  # a wrong path or a damaged file shows here, not later
        recover_edits(self._file)
        self._check(None if size is None else as_voxel_size(size), name)
        refuse_outside(self._file)

    def _check(self, size: VoxelSize | None, name: str | None) -> None:
        """Refuse a dataset that is there with another voxel size, or another name, than the ones given."""
        if size is not None and self.voxel_size.to_nanometer() != size.to_nanometer():
            raise AlreadyExistsError(f"{self.path} has voxels of {self.voxel_size}, not of {size}")
        if name is not None and self.name != name:
            raise AlreadyExistsError(f"{self.path} has the name {self.name!r}, not {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_opened, (self._file,))

    @classmethod
    def _of(cls, properties: Properties) -> Dataset:
        """Return the dataset of properties that other handles share."""
        dataset = cls.__new__(cls)
        DatasetLayers.__init__(dataset, properties)
        return dataset

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

        Examples
        --------
        >>> tuple(Dataset.create("new", (4, 4, 35)).voxel_size)
        (4.0, 4.0, 35.0)
        """
        return cls(dataset_path, scale, name)

    @classmethod
    def open(
        cls,
        dataset_path: str | os.PathLike[str],
        read_only: bool = False,
        *,
        outside: str = "read-only",
        writable: bool = False,
        storage_options: Mapping[str, Any] | None = None,
    ) -> Dataset:
        """Open a dataset, as ``Dataset(dataset_path)`` does.

        Parameters
        ----------
        dataset_path, read_only, outside, writable, storage_options
            As for the class.

        Examples
        --------
        >>> Dataset.open("ds", read_only=True).read_only
        True
        """
        how = {"outside": outside, "writable": writable, "storage_options": storage_options}
        return cls(dataset_path, read_only=read_only, **how)  # type: ignore[arg-type]

    @classmethod
    def get_or_create(
        cls,
        dataset_path: str | os.PathLike[str],
        scale: Sequence[float] | VoxelSize,
        name: str | None = None,
    ) -> Dataset:
        """Open a dataset, or make it if there is none.

        Raises
        ------
        AlreadyExistsError
            If it is there with another scale, or another name than the one given.

        Examples
        --------
        >>> Dataset.get_or_create("ds", (4, 4, 35)) == Dataset("ds")
        True
        """
        return cls(dataset_path, scale, name, exist_ok=True)

    from_dask, from_images = classmethod(from_dask), classmethod(from_images)
    add_layer_from_images = add_layer_from_images
    ConversionLayerMapping = ConversionLayerMapping

    # --- layers of elsewhere, and all layers ---------------------------------------------------------

    add_symlink_layer = add_symlink_layer
    add_layer_as_ref = add_remote_layer = add_layer_as_ref
    add_copy_layer = add_layer_as_copy = add_copy_layer
    add_fs_copy_layer, fs_copy_dataset = add_fs_copy_layer, fs_copy_dataset
    write_layer, downsample, compress = write_layer, downsample, compress
    calculate_bounding_box, check = calculate_bounding_box, check

    # --- datasets ------------------------------------------------------------------------------------

    def copy_dataset(
        self,
        new_dataset_path: str | os.PathLike[str],
        scale: Sequence[float] | VoxelSize | None = None,
        block_len: int | None = None,
        file_len: int | None = None,
        compress: CompressLike = None,
        args: object = None,
        *,
        voxel_size: Sequence[float] | VoxelSize | None = None,
        voxel_size_with_unit: VoxelSize | None = None,
        chunk_shape: Vec3IntLike | int | None = None,
        shard_shape: Vec3IntLike | int | None = None,
        chunks_per_shard: Vec3IntLike | int | None = None,
        compression: str | bool | None = True,
        data_format: str | None = None,
        bounding_box: BoundingBox | None = None,
        layers: Sequence[str] | None = None,
        layers_to_ignore: Sequence[str] | None = (),
        exists_ok: bool = False,
        executor: object = None,
        resume: bool = False,
        client: Client | None = None,
        durable: bool = True,
        verify: bool = False,
        task_memory: int | None = None,
        progress: ProgressLike = None,
    ) -> Dataset:
        """Copy the dataset, into another format, cut or compressed otherwise if wanted.

        All layers with their mags, view configurations, transformations, mappings and attachments. Where a mag
        keeps format, cut and compression its files are copied; else tasks read their cubes and publish them. A
        layer is listed in the copy when it is complete.

        Parameters
        ----------
        new_dataset_path
            Folder of the copy; or its URL in an object store (s3, gs, az), where files are copied as they are, so
            that nothing but `layers`, `layers_to_ignore`, `resume`, `verify` and `progress` can be given.
        scale, voxel_size, voxel_size_with_unit
            Another voxel size, in any of its spellings; as it is by default.
        block_len, file_len, compress
            The 2021 spelling of `chunk_shape`, `shard_shape` (in chunks) and ``compression="lz4hc"``.
        args, executor
            Ignored, with a warning.
        chunk_shape, shard_shape
            Sides of chunks and cubes in voxels of each mag; as they are by default.
        chunks_per_shard
            Instead of `shard_shape`: chunks along the sides of a cube.
        compression
            ``None``, ``"lz4"``, ``"lz4hc"``, in Zarr ``"zstd"``; ``True`` for as it is.
        data_format
            ``"wkw"``, ``"zarr3"`` or ``"zarr"``; as each layer is by default.
        bounding_box
            What is copied, in voxels of mag 1, absolute; all by default. A layer's box in the copy is what the two
            have in common; in each mag that is aligned outwards, and what lies beyond stays zero.
        layers
            Names of the layers that are copied; all by default.
        layers_to_ignore
            Names of layers that are not copied.
        exists_ok
            If there is a dataset in the folder, copy the layers and mags that it does not have.
        resume
            Go on with a copy that was killed, interrupted or failed; one that is complete already is returned. All
            other arguments must be as they were.
        client, task_memory, progress
            As for :meth:`MagView.write`; the bar is one for the whole.
        durable
            Flush what is copied to the disk. Without it nothing can be resumed: a copy that fails is removed.
        verify
            Read all that was copied back from the disk, past the page cache, and compare it with the source: a
            voxel that differs is an error, and its layer is not listed.

        Raises
        ------
        AlreadyExistsError
            If the folder holds something else than the copy that is to be resumed.
        LayerNotFoundError
            If there is no layer of a name.
        InvalidValueError, UnsupportedFormatError, DTypeError, PlanError
            If a mag cannot be read here, not be stored so, or the box touches no layer; nothing was made.
        ResumeError
            If the unfinished copy in the folder is another one.
        TaskFailedError
            If tasks failed; what was copied stays for ``resume=True``.

        Examples
        --------
        >>> copy = ds.copy_dataset("archive", data_format="zarr3", shard_shape=64)
        >>> copy.get_layer("color").data_format
        'zarr3'
        """
        warn_of_ignored(executor=executor)
        target = checked_place(new_dataset_path)
        if is_url(target):
            changes = {
                "voxel_size": scale or voxel_size or voxel_size_with_unit,
                "chunk_shape": block_len or chunk_shape,
                "shard_shape": file_len or shard_shape or chunks_per_shard,
                "compression": None if compression is True and compress is None else True,
                "data_format": data_format,
                "bounding_box": bounding_box,
                "exists_ok": exists_ok or None,
            }
            warn_of_unused(client=client, task_memory=task_memory)
            upload = plan_upload(self._file, self._chosen(layers, layers_to_ignore), target, changes)
            run_upload(upload, resume=resume, verify=verify, listeners=listeners_for(progress))
            return Dataset(target)
        if exists_ok and os.path.isfile(os.path.join(checked_path(new_dataset_path), PROPERTIES_FILE)):
            return copy_missing_layers(
                self,
                Dataset(new_dataset_path),
                layers,
                layers_to_ignore,
                chunk_shape=chunk_shape,
                shard_shape=shard_shape,
                chunks_per_shard=chunks_per_shard,
                compress=compress,
                data_format=data_format,
                client=client,
                verify=verify,
            )
        options = WriteOptions(
            client=client,
            durable=durable,
            verify=verify,
            task_memory=task_memory,
            resume=resume,
            listeners=listeners_for(progress),
        )
        return Dataset(
            run_copy(
                self.plan_copy(
                    scale,
                    block_len,
                    file_len,
                    compress,
                    args,
                    voxel_size=voxel_size,
                    voxel_size_with_unit=voxel_size_with_unit,
                    chunk_shape=chunk_shape,
                    shard_shape=shard_shape,
                    chunks_per_shard=chunks_per_shard,
                    compression=compression,
                    data_format=data_format,
                    bounding_box=bounding_box,
                    layers=layers,
                    layers_to_ignore=layers_to_ignore,
                    client=client,
                    task_memory=task_memory,
                ),
                new_dataset_path,
                options,
            )
        )

    def plan_copy(
        self,
        scale: Sequence[float] | VoxelSize | None = None,
        block_len: int | None = None,
        file_len: int | None = None,
        compress: CompressLike = None,
        args: object = None,
        *,
        voxel_size: Sequence[float] | VoxelSize | None = None,
        voxel_size_with_unit: VoxelSize | None = None,
        chunk_shape: Vec3IntLike | int | None = None,
        shard_shape: Vec3IntLike | int | None = None,
        chunks_per_shard: Vec3IntLike | int | None = None,
        compression: str | bool | None = True,
        data_format: str | None = None,
        bounding_box: BoundingBox | None = None,
        layers: Sequence[str] | None = None,
        layers_to_ignore: Sequence[str] | None = (),
        client: Client | None = None,
        task_memory: int | None = None,
    ) -> DatasetCopy:
        """Return what :meth:`copy_dataset` would do, to be printed; nothing is made.

        Parameters and errors are those of :meth:`copy_dataset`.

        Examples
        --------
        >>> print(ds.plan_copy(data_format="zarr3"))
        To copy  : ...
        Layer    : color, (0, 0, 0) + (64, 64, 32) (voxels of mag 1)
        ...
        """
        warn_of_ignored(args=args)
        wanted = asked_compression(compress)
        if wanted is not None:
            compression = "lz4hc" if wanted is True else wanted or None
        chunks = in_chunks(file_len, chunks_per_shard)
        per_shard(Vec3Int.ones(), shard_shape, chunks)
        scales = [each for each in (scale, voxel_size, voxel_size_with_unit) if each is not None]
        if len(scales) > 1:
            raise InvalidValueError("give one of scale, voxel_size and voxel_size_with_unit")
        chunk = block_len if chunk_shape is None else chunk_shape
        cut = CopyCut(
            None if chunk is None else Vec3Int.from_scalar_or_vec(chunk),
            None if shard_shape is None else Vec3Int.from_scalar_or_vec(shard_shape),
            cast("int | None", chunks),
            compression,
            None if data_format is None else str(data_format),
        )
        chosen = self._chosen(layers, layers_to_ignore)
        size = as_voxel_size(scales[0]) if scales else self.voxel_size
        options = WriteOptions(client=client, task_memory=task_memory)
        clip = None if bounding_box is None else as_box(bounding_box)
        return plan_dataset(self._file, chosen, size, cut, clip, options)

    def _chosen(self, layers: Sequence[str] | None, ignored: Sequence[str] | None) -> list[Layer]:
        """Return the layers that are to be copied."""
        names = list(self.layers) if layers is None else list(dict.fromkeys(layers))
        return [self.get_layer(name) for name in names if name not in (ignored or ())]

    def shallow_copy_dataset(
        self,
        new_dataset_path: str | os.PathLike[str],
        name: str | None = None,
        make_relative: bool | None = False,
        layers_to_ignore: Sequence[str] | None = (),
    ) -> Dataset:
        """Make a dataset whose mags are links to this one's; they are read-only there.

        Parameters
        ----------
        new_dataset_path
            Folder of the new dataset.
        name
            Its name; the folder's by default.
        make_relative
            Make the links relative, so that both can be moved together.
        layers_to_ignore
            Names of layers that are left out.

        Raises
        ------
        AlreadyExistsError
            If the folder holds something.

        Examples
        --------
        >>> shallow = ds.shallow_copy_dataset("shallow")
        >>> shallow.get_layer("color").get_mag(1).read_only
        True
        """
        copy = Dataset.create(new_dataset_path, self.voxel_size, name)
        copy_view_configuration(self._file, copy._file)
        for layer_name, layer in self.layers.items():
            if layer_name not in (layers_to_ignore or ()):
                link_mags(layer, copy._file, bool(make_relative))
        return copy

    def first_difference(
        self,
        other: Dataset | str | os.PathLike[str],
        layers: Sequence[str] | None = None,
        *,
        client: Client | None = None,
        progress: ProgressLike = None,
    ) -> Difference | None:
        """Compare with another dataset: what the properties say, and every voxel in the layers' boxes.

        Formats, cuts, compression and the datasets' names may differ. Both are streamed: about 64 MiB per task
        are in memory.

        Parameters
        ----------
        other
            The other dataset, or its folder.
        layers
            The names of the layers that are compared; all by default, with the datasets' own properties.
        client, progress
            As for :meth:`MagView.write`.

        Returns
        -------
        Difference or None
            None if they are equal. Else the first difference: layer by layer of this dataset, properties first;
            mag by mag, finest first; cube by cube of this dataset, x fastest; in a cube c fastest, then x.

        Raises
        ------
        LayerNotFoundError
            If neither has a layer of a name.
        TaskFailedError
            If voxels cannot be read.

        Examples
        --------
        >>> copy = ds.copy_dataset("copy")
        >>> ds.first_difference(copy) is None
        True
        >>> copy.get_layer("color").get_mag(1).write(np.full((1, 1, 1), 9, "uint8"), offset=(5, 0, 0)).cubes
        1
        >>> print(ds.first_difference(copy))
        layer 'color' mag 1, voxel (c, x, y, z) = (0, 5, 0, 0): 5 against 9
        """
        second = other if isinstance(other, Dataset) else Dataset(other)
        options = WriteOptions(client=client, listeners=listeners_for(progress))
        return first_difference(self, second, layers, options)

    def view(self, **how: Any) -> Viewer:
        """Show all layers in neuroglancer, in the browser or inline in a notebook.

        Parameters
        ----------
        how
            As for :func:`wkdask.view`.

        Examples
        --------
        >>> with ds.view() as viewer:
        ...     viewer.layers
        ('color', 'cells')
        """
        from wkdask.viewer.viewer import view

        return view(self, **how)

    def __repr__(self) -> str:
        from wkdask.display.text import dataset_text

        return dataset_text(self)

    def _repr_html_(self) -> str:
        from wkdask.display.html import dataset_html

        return dataset_html(self)


Layer._dataset_of = Dataset._of


def _opened(properties: Properties) -> Dataset:
    """Open a dataset that was pickled."""
    _ = properties.record
    refuse_outside(properties)
    return Dataset._of(properties)
