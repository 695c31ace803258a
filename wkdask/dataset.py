"""A dataset: a folder with ``datasource-properties.json`` and its layers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wkdask.chunkwise import warn_of_ignored
from wkdask.cut import Cut, check_array
from wkdask.dataset_copies import DatasetCopy, plan_dataset, run_copy
from wkdask.dataset_layers import DatasetLayers
from wkdask.equal import Difference, first_difference
from wkdask.errors import AlreadyExistsError, InvalidValueError
from wkdask.fsio import checked_path, remove_folder
from wkdask.geometry import BoundingBox, Vec3Int, Vec3IntLike
from wkdask.job import WriteOptions
from wkdask.layer import Layer, LayerCategories
from wkdask.layer_copies import CopyCut
from wkdask.links import copy_view_configuration, link_mags
from wkdask.places import refuse_outside
from wkdask.progress import ProgressLike, listeners_for
from wkdask.properties import (
    PROPERTIES_FILE,
    create,
)
from wkdask.properties.handle import Properties
from wkdask.units import VoxelSize

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Dataset"]


class Dataset(DatasetLayers):
    """A WEBKNOSSOS dataset on disk.

    Parameters
    ----------
    dataset_path
        Its folder, which holds ``datasource-properties.json``. Datasets of 2021 and later open; what the file
        says beyond what is known here stays as it is through every edit.
    outside
        What may happen with mags, and cubes, that a path in the file or a link reaches outside of the folder:
        ``"read-only"``: they are read, writes are refused; ``"refuse"``: a dataset with such mags does not open,
        and such a cube is not read; ``"write"``: they are written as well. The other dataset's properties file
        does not hear of such a write: if it has a box or ids, they stay as they were.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PropertiesError
        If the file cannot be understood.
    OutsideError
        If ``outside="refuse"`` and a mag lies outside of the folder, or at an address.

    Examples
    --------
    >>> ds = Dataset("e2006")                                      # doctest: +SKIP
    >>> x = ds.get_layer("color").get_mag("1").to_dask()           # doctest: +SKIP
    """

    def __init__(self, dataset_path: str | os.PathLike[str], *, outside: str = "read-only") -> None:
        super().__init__(Properties(checked_path(dataset_path), outside))
        _ = self._properties.record  # a wrong path or a damaged file shows here, not later
        refuse_outside(self._properties)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_opened, (self._properties.folder, self._properties.outside))

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
        """
        path = checked_path(dataset_path)
        size = as_voxel_size(scale)
        if os.path.exists(path) and (not os.path.isdir(path) or os.listdir(path)):
            raise AlreadyExistsError(f"{path} exists and is not an empty folder")
        create(path, name or os.path.basename(path), size)
        return cls(path)

    @classmethod
    def open(cls, dataset_path: str | os.PathLike[str], *, outside: str = "read-only") -> Dataset:
        """Open a dataset, as ``Dataset(dataset_path)`` does."""
        return cls(dataset_path, outside=outside)

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
        InvalidValueError
            If it is there with another scale, or another name than the one given.
        """
        if not os.path.isfile(os.path.join(checked_path(dataset_path), PROPERTIES_FILE)):
            return cls.create(dataset_path, scale, name)
        dataset = cls(dataset_path)
        size = as_voxel_size(scale)
        if dataset.voxel_size.to_nanometer() != size.to_nanometer():
            raise InvalidValueError(f"{dataset.path} has voxels of {dataset.voxel_size}, not of {size}")
        if name is not None and dataset.name != name:
            raise InvalidValueError(f"{dataset.path} has the name {dataset.name!r}, not {name!r}")
        return dataset

    @classmethod
    def from_dask(
        cls,
        dataset_path: str | os.PathLike[str],
        array: Any,
        voxel_size: Sequence[float] | VoxelSize,
        *,
        name: str | None = None,
        layer_name: str = "color",
        category: str = LayerCategories.COLOR_TYPE,
        largest_segment_id: int | None = None,
        topleft: Vec3IntLike = (0, 0, 0),
        data_format: str = "wkw",
        chunk_shape: Vec3IntLike | int | None = None,
        shard_shape: Vec3IntLike | int | None = None,
        compression: str | bool | None = None,
        pyramid: bool = True,
        client: Client | None = None,
        durable: bool = True,
        resume: bool = False,
        job: str | None = None,
        progress: ProgressLike = None,
    ) -> Dataset:
        """Make a dataset of an array: one layer, with its pyramid.

        Parameters
        ----------
        dataset_path
            Folder of the new dataset; made if missing, else it must be empty.
        array
            A dask or numpy array ``(x, y, z)`` or ``(c, x, y, z)``, of a type that layers hold. A dask array is
            computed block by block, on the active :class:`distributed.Client` or on local threads. An array whose
            axes are (z, y, x) is given as ``array.T``.
        voxel_size
            Size of a voxel along (x, y, z), in nm, or a `VoxelSize`.
        name
            The dataset's name; the folder's by default.
        layer_name, category
            Of the layer: ``"color"`` or ``"segmentation"``.
        largest_segment_id
            Of a segmentation; by default that of the array.
        topleft
            Where the array's first voxel goes: (x, y, z), absolute, in voxels of mag 1.
        data_format
            How the layer is stored: ``"wkw"``, ``"zarr3"``, or ``"zarr"`` for Zarr 2.
        chunk_shape, shard_shape, compression
            As for :meth:`Layer.add_mag`; sides in voxels of mag 1.
        pyramid
            Compute the coarser mags as well, those that :meth:`Layer.downsample` would add.
        client, durable, progress
            As for :meth:`MagView.write`.
        resume, job
            Go on where an earlier call with the same array and path stopped, as :meth:`MagView.write` does.

        Returns
        -------
        Dataset
            The new one.

        Raises
        ------
        AlreadyExistsError
            If the folder holds something, and `resume` is not asked for.
        InvalidValueError, DTypeError, UnsupportedFormatError, PlanError
            If the array, or an argument, cannot work. Nothing is left behind.
        TaskFailedError
            If a task failed. What landed stays, and can be resumed; if nothing did, nothing is left behind.

        Examples
        --------
        >>> import dask.array as da
        >>> x = da.random.random((2048, 2048, 512), chunks=256).astype("float32")
        >>> Dataset.from_dask("noise", x, voxel_size=(4, 4, 35))  # doctest: +SKIP
        """
        channels = check_array(
            array, data_format, Cut(None, None, None, chunk_shape, shard_shape, compression)
        )
        path = checked_path(dataset_path)
        is_there = os.path.lexists(path)
        dataset = (cls.get_or_create if resume else cls.create)(path, voxel_size, name)
        try:
            layer = dataset.get_or_add_layer(
                layer_name,
                category,
                dtype_per_channel=array.dtype,
                num_channels=channels,
                largest_segment_id=None if layer_name in dataset.layers else largest_segment_id,
                data_format=data_format,
            )
            mag = layer.get_or_add_mag(
                1, chunk_shape=chunk_shape, shard_shape=shard_shape, compression=compression
            )
            mag.write(
                array,
                topleft,
                client=client,
                durable=durable,
                resume=resume,
                job=job,
                pyramid=pyramid,
                progress=progress,
            )
        except Exception:
            if not resume and all(found.bounding_box.is_empty() for found in dataset.layers.values()):
                _remove(dataset, whole=not is_there)
            raise
        return dataset

    # --- datasets ------------------------------------------------------------------------------------

    def copy_dataset(
        self,
        new_dataset_path: str | os.PathLike[str],
        scale: Sequence[float] | VoxelSize | None = None,
        block_len: int | None = None,
        file_len: int | None = None,
        compress: bool | None = None,
        args: object = None,
        *,
        chunk_shape: Vec3IntLike | int | None = None,
        shard_shape: Vec3IntLike | int | None = None,
        compression: str | bool | None = True,
        data_format: str | None = None,
        bounding_box: BoundingBox | None = None,
        layers: Sequence[str] | None = None,
        layers_to_ignore: Sequence[str] = (),
        resume: bool = False,
        client: Client | None = None,
        durable: bool = True,
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
            Folder of the copy.
        scale
            Another voxel size; as it is by default.
        block_len, file_len, compress
            The 2021 spelling of `chunk_shape`, `shard_shape` (in chunks) and ``compression="lz4hc"``.
        args
            Ignored, with a warning.
        chunk_shape, shard_shape
            Sides of chunks and cubes in voxels of each mag; as they are by default.
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
        resume
            Go on with a copy that was killed, interrupted or failed; one that is complete already is returned. All
            other arguments must be as they were.
        client, task_memory, progress
            As for :meth:`MagView.write`; the bar is one for the whole.
        durable
            Flush what is copied to the disk. Without it nothing can be resumed: a copy that fails is removed.

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
        """
        options = WriteOptions(
            client=client,
            durable=durable,
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
                    chunk_shape=chunk_shape,
                    shard_shape=shard_shape,
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
        compress: bool | None = None,
        args: object = None,
        *,
        chunk_shape: Vec3IntLike | int | None = None,
        shard_shape: Vec3IntLike | int | None = None,
        compression: str | bool | None = True,
        data_format: str | None = None,
        bounding_box: BoundingBox | None = None,
        layers: Sequence[str] | None = None,
        layers_to_ignore: Sequence[str] = (),
        client: Client | None = None,
        task_memory: int | None = None,
    ) -> DatasetCopy:
        """Return what :meth:`copy_dataset` would do, to be printed; nothing is made.

        Parameters and errors are those of :meth:`copy_dataset`.
        """
        warn_of_ignored(args=args)
        if compress is not None:
            compression = "lz4hc" if compress else None
        chunk = block_len if chunk_shape is None else chunk_shape
        cut = CopyCut(
            None if chunk is None else Vec3Int.from_scalar_or_vec(chunk),
            None if shard_shape is None else Vec3Int.from_scalar_or_vec(shard_shape),
            file_len,
            compression,
            data_format,
        )
        names = list(self.layers) if layers is None else list(dict.fromkeys(layers))
        chosen = [self.get_layer(name) for name in names if name not in layers_to_ignore]
        voxel_size = self.voxel_size if scale is None else as_voxel_size(scale)
        options = WriteOptions(client=client, task_memory=task_memory)
        return plan_dataset(self._properties, chosen, voxel_size, cut, bounding_box, options)

    def shallow_copy_dataset(
        self,
        new_dataset_path: str | os.PathLike[str],
        name: str | None = None,
        make_relative: bool = False,
        layers_to_ignore: Sequence[str] = (),
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
        """
        copy = Dataset.create(new_dataset_path, self.voxel_size, name)
        copy_view_configuration(self._properties, copy._properties)
        for layer_name, layer in self.layers.items():
            if layer_name not in layers_to_ignore:
                link_mags(layer, copy._properties, make_relative)
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
        """
        second = other if isinstance(other, Dataset) else Dataset(other)
        options = WriteOptions(client=client, listeners=listeners_for(progress))
        return first_difference(self, second, layers, options)

    def __repr__(self) -> str:
        from wkdask.display import dataset_text

        return dataset_text(self)

    def _repr_html_(self) -> str:
        from wkdask.display import dataset_html

        return dataset_html(self)


Layer._dataset_of = Dataset._of


def _opened(path: str, outside: str) -> Dataset:
    """Open a dataset that was pickled."""
    return Dataset(path, outside=outside)


def _remove(dataset: Dataset, *, whole: bool) -> None:
    """Remove a dataset that was just made; without `whole` its folder stays, empty as it was."""
    if whole:
        remove_folder(str(dataset.path))
        return
    with os.scandir(dataset.path) as entries:
        for entry in entries:
            if entry.is_dir():
                remove_folder(entry.path)
            else:
                os.unlink(entry.path)


def as_voxel_size(scale: Sequence[float] | VoxelSize) -> VoxelSize:
    """Return a voxel size from three numbers in nm, or as it is."""
    return scale if isinstance(scale, VoxelSize) else VoxelSize(tuple(scale))  # type: ignore[arg-type]
