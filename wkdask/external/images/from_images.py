"""Datasets and layers of images under version 4's names: `Dataset.from_images`, `Dataset.add_layer_from_images`."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wkdask.errors import ImageStackError, InvalidValueError, UnsupportedFormatError
from wkdask.external.images.channels import Turn, channels_of
from wkdask.external.images.info import shown
from wkdask.external.images.layer_mapping import ConversionLayerMapping, LayerMapping, layers_of
from wkdask.external.images.layers import (
    NewLayer,
    Reading,
    Stored,
    check_names,
    make_layers,
    plan_layers,
    wish_of,
)
from wkdask.external.images.numbering import Order, put_in_order
from wkdask.external.images.paths import find_images
from wkdask.external.zarr.store import is_zarr, root_of
from wkdask.fsio import checked_path, remove_folder
from wkdask.geometry import MagLike, Vec3IntLike
from wkdask.geometry.axis_vectors import VecInt
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.jobs.job import WriteOptions
from wkdask.layer import Layer, LayerCategories
from wkdask.layer.zarr_config import CompressLike
from wkdask.names import DEFAULT_DATA_FORMAT
from wkdask.operations.chunks import warn_of_ignored
from wkdask.progress.bar import ProgressLike, listeners_for

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.dataset import Dataset

__all__ = ["add_layer_from_images", "from_images"]

# --- paths ---------------------------------------------------------------------------------------------


def _order_of(images: Any) -> Order:
    """Return the files that a user means: a path, a pattern, or a list that is in the right order already."""
    if isinstance(images, (str, os.PathLike)):
        return put_in_order(_found(os.fspath(images)))
    paths = list(images)
    if not paths:
        raise ImageStackError("no images: the list is empty; give image files, a folder, or a pattern")
    files = list(dict.fromkeys(path for each in paths for path in _found(os.fspath(each))))
    return Order(tuple(files), (), (), ())


def _found(text: str) -> list[str]:
    """Return the images at a path, or of a pattern such as ``stack/*.tif``, in natural order."""
    if not os.path.lexists(text) and glob.has_magic(text):
        matches = glob.glob(text, recursive=True)
        if not matches:
            raise ImageStackError(f"{shown(text)}: no file or folder fits this pattern")
        return find_images(matches)
    if is_zarr(root_of(text)):
        raise UnsupportedFormatError(
            f"{shown(text)}: is Zarr, which `wkdask convert` makes layers from, or "
            "wkdask.convert.zarr.convert_scales"
        )
    return find_images(text)


# --- what users call -----------------------------------------------------------------------------------


def add_layer_from_images(
    self: Dataset,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    layer_name: str,
    category: str | None = LayerCategories.COLOR_TYPE,
    *,
    data_format: str = DEFAULT_DATA_FORMAT,
    mag: MagLike = 1,
    chunk_shape: Vec3IntLike | int | None = None,
    shard_shape: Vec3IntLike | int | None = None,
    chunks_per_shard: Vec3IntLike | int | None = None,
    compress: CompressLike = True,
    topleft: VecInt | Sequence[int] = (0, 0, 0),
    swap_xy: bool = False,
    flip_x: bool = False,
    flip_y: bool = False,
    flip_z: bool = False,
    dtype: npt.DTypeLike | None = None,
    rescale: Sequence[float] | None = None,
    channel: int | None = None,
    czi_channel: int | None = None,
    scale: int | None = None,
    batch_size: int | None = None,
    allow_multiple_layers: bool = False,
    max_layers: int = 20,
    truncate_rgba_to_rgb: bool = True,
    gaps: str = "close",
    tiles: str = "refuse",
    executor: object = None,
    client: Client | None = None,
    progress: ProgressLike = None,
) -> Layer:
    """Add a layer of images: column is x, row is y, section is z.

    TIFF, PNG and JPEG, read as `wkdask.convert.images.convert_images` reads them. Three channels of uint8 are one
    layer (RGB); others need `channel` or `allow_multiple_layers`. A file of several points in time makes a layer
    with an axis ``t``, in Zarr 3.

    Parameters
    ----------
    images
        A file, a folder with all below it, a pattern such as ``"stack/*.tif"``, in natural order (2.tif before
        10.tif); or a list of files, in its own order.
    layer_name
        Name of the new layer. Of several, one per channel, they are ``<layer_name>__channel0`` and so on.
    category
        ``"color"`` or ``"segmentation"``.
    data_format
        ``"wkw"``, ``"zarr3"`` or ``"zarr"``.
    mag
        The magnification that the images are.
    chunk_shape, shard_shape, chunks_per_shard
        As for :meth:`Layer.add_mag`; what is not given suits the size of the images.
    compress
        False for none; a `Zarr3Config` says which.
    topleft
        Where the first voxel goes, (x, y, z) in voxels of mag 1; (t, x, y, z) where there is time.
    swap_xy
        Make rows x and columns y. That comes after the flips.
    flip_x, flip_y, flip_z
        Reverse the rows, the columns, the sections of the stack. That `flip_x` is about the **rows**, and `flip_y`
        about the columns, is as in webknossos 4.
    dtype
        Type of the layer; without `rescale` one that holds all values of the images. Nothing is cut off, as numpy's
        `astype` does it.
    rescale
        Two values: the first becomes 0, the second the largest of `dtype`, others in proportion.
    channel
        The only channel that is taken, counted from 0.
    czi_channel, scale
        Refused where given: CZI files are not read, and of Zarr `wkdask convert` makes layers.
    batch_size, executor
        Ignored, with a warning.
    allow_multiple_layers
        Make a layer of every channel where they cannot be one; the first is returned.
    max_layers
        No more layers of channels than that; others are left out, with a warning.
    truncate_rgba_to_rgb
        Leave out transparency, with a warning. False: it is one more channel.
    gaps
        What becomes of numbers that are missing in the names: ``"close"``, the sections after them move up;
        ``"keep"``, empty sections stay in their place; ``"refuse"``.
    tiles
        What becomes of images that are tiles of sections by their names: ``"refuse"``; ``"join"``, those of a
        section are put side by side; ``"sections"``, each is taken for a section.
    client, progress
        As for :meth:`MagView.write`.

    Raises
    ------
    ImageStackError
        If the images are no stack; names the file.
    ChannelError
        If there are several channels that cannot be one layer, or there is no such channel.
    AlreadyExistsError, CategoryError, DTypeError, InvalidValueError, PlanError, UnsupportedFormatError
        If the layer cannot be made.
    TaskFailedError
        If an image cannot be decoded.

    In all these cases nothing is left behind.

    Warns
    -----
    WkdaskWarning
        For all that is left out, guessed or ignored.

    Examples
    --------
    >>> import tifffile
    >>> for z in range(3):
    ...     tifffile.imwrite(f"{z}.tif", np.full((48, 64), z, "uint8"))     # rows are y, columns are x
    >>> ds.add_layer_from_images("*.tif", "stack", topleft=(0, 0, 10)).bounding_box
    BoundingBox((0, 0, 10), (64, 48, 3))
    """
    _refuse_given(czi_channel=czi_channel, scale=scale)
    warn_of_ignored(batch_size=batch_size, executor=executor)
    wish = wish_of(
        LayerCategories.COLOR_TYPE if category is None else category,
        mag,
        topleft,
        Stored.of(data_format, chunk_shape, shard_shape, chunks_per_shard, compress),
        Reading(
            Turn(flip_x=flip_x, flip_y=flip_y, flip_z=flip_z, swap_xy=swap_xy),
            dtype=None if dtype is None else np.dtype(dtype).name,
            rescale=rescale,
            channel=channel,
            split=allow_multiple_layers,
            keep_alpha=not truncate_rgba_to_rgb,
            gaps=gaps,
            tiles=tiles,
        ),
    )
    layers = plan_layers(layer_name, _order_of(images), wish, _checked_max(max_layers), client)
    check_names(self, layers)
    options = WriteOptions(client=client, listeners=listeners_for(progress))
    return make_layers(self, layers, wish, options)[0]


def from_images(
    cls: type[Dataset],
    input_path: str | os.PathLike[str],
    output_path: str | os.PathLike[str],
    voxel_size: Sequence[float] | VoxelSize | None = None,
    name: str | None = None,
    *,
    map_filepath_to_layer_name: LayerMapping = ConversionLayerMapping.INSPECT_SINGLE_FILE,
    z_slices_sort_key: Callable[[Path], Any] | None = None,
    voxel_size_with_unit: VoxelSize | None = None,
    layer_name: str | None = None,
    layer_category: str | None = None,
    data_format: str = DEFAULT_DATA_FORMAT,
    chunk_shape: Vec3IntLike | int | None = None,
    shard_shape: Vec3IntLike | int | None = None,
    chunks_per_shard: Vec3IntLike | int | None = None,
    compress: CompressLike = True,
    swap_xy: bool = False,
    flip_x: bool = False,
    flip_y: bool = False,
    flip_z: bool = False,
    max_layers: int = 20,
    batch_size: int | None = None,
    gaps: str = "close",
    tiles: str = "refuse",
    executor: object = None,
    client: Client | None = None,
    progress: ProgressLike = None,
) -> Dataset:
    """Make a dataset of images: of a file, or of all images in a folder.

    Files of one layer are its sections, one after the other. Channels that cannot be one layer become layers of
    their own; see :meth:`add_layer_from_images`.

    Parameters
    ----------
    input_path
        A file, or a folder with all below it.
    output_path
        The dataset's folder; missing, or empty.
    voxel_size, voxel_size_with_unit
        Size of a voxel along (x, y, z), in nm, or a `VoxelSize`; one of the two.
    name
        The dataset's name; the folder's by default.
    map_filepath_to_layer_name
        Which file becomes part of which layer: a `Dataset.ConversionLayerMapping`, or a function of the file's path
        below the input folder that returns a name.
    z_slices_sort_key
        A function of a file's path by which the sections of a layer are sorted; natural order by default.
    layer_name
        Name of the layer; of several, what their names begin with: ``<layer_name>_<name>``.
    layer_category
        ``"color"`` or ``"segmentation"``, of all layers. By default a layer of ids whose name has ``segmentation``
        or ``labels`` in it is a segmentation, with a warning, and others are color.
    data_format, chunk_shape, shard_shape, chunks_per_shard, compress, swap_xy, flip_x, flip_y, flip_z, gaps, \
    tiles
        As for :meth:`add_layer_from_images`.
    max_layers
        More layers than that are refused; of channels those beyond are left out, with a warning.
    batch_size, executor
        Ignored, with a warning.
    client, progress
        As for :meth:`MagView.write`.

    Raises
    ------
    ImageStackError, ChannelError, AlreadyExistsError, DTypeError, InvalidValueError, PlanError, TaskFailedError
        As there. Nothing is left behind.

    Warns
    -----
    WkdaskWarning
        As there.

    Examples
    --------
    >>> import os, tifffile
    >>> os.mkdir("images")
    >>> for z in range(3):
    ...     tifffile.imwrite(f"images/{z}.tif", np.full((48, 64), z, "uint8"))
    >>> list(Dataset.from_images("images", "stack", voxel_size=(4, 4, 40)).layers)
    ['images']
    """
    warn_of_ignored(batch_size=batch_size, executor=executor)
    if voxel_size is None and voxel_size_with_unit is None:
        raise InvalidValueError("give voxel_size= or voxel_size_with_unit=: images do not say it reliably")
    limit = _checked_max(max_layers)
    turn = Turn(flip_x=flip_x, flip_y=flip_y, flip_z=flip_z, swap_xy=swap_xy)
    wish = wish_of(
        layer_category,
        1,
        (0, 0, 0),
        Stored.of(data_format, chunk_shape, shard_shape, chunks_per_shard, compress),
        Reading(turn, gaps=gaps, tiles=tiles),
    )
    groups = dict(_named(os.fspath(input_path), map_filepath_to_layer_name, layer_name))
    if len(groups) > limit:
        raise InvalidValueError(
            f"the images become {len(groups)} layers, max_layers={limit} are allowed; the first are "
            f"{', '.join(list(groups)[:5])}"
        )
    layers: list[NewLayer] = []
    for number, (own_name, paths) in enumerate(groups.items()):
        left = limit - len(layers) - (len(groups) - number - 1)
        layers += plan_layers(own_name, _sorted(paths, z_slices_sort_key), wish, left, client)
    names = [layer.name for layer in layers]
    if twice := [each for each in names if names.count(each) > 1]:
        raise InvalidValueError(
            f"two layers would have the name {twice[0]!r}; choose another mapping or names"
        )
    folder = checked_path(output_path)
    was_there = os.path.lexists(folder)
    dataset = cls(folder, voxel_size, name, voxel_size_with_unit=voxel_size_with_unit)
    try:
        make_layers(dataset, layers, wish, WriteOptions(client=client, listeners=listeners_for(progress)))
    except BaseException:
        remove_folder(folder)
        if was_there:
            os.makedirs(folder, exist_ok=True)
        raise
    return dataset


def _named(text: str, mapping: LayerMapping, layer_name: str | None) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the images of each layer."""
    paths = _found(text)
    path = os.path.abspath(text)
    root = path if os.path.isdir(path) else os.path.dirname(paths[0])
    groups = layers_of(root, paths, mapping, lambda file: channels_of(file).sections > 1)
    for own_name, files in groups.items():
        if layer_name is None:
            yield own_name, files
        else:
            yield (layer_name if len(groups) == 1 else f"{layer_name}_{own_name}"), files


def _sorted(paths: Sequence[str], key: Callable[[Path], Any] | None) -> Order:
    """Return the images of a layer in the order of its sections."""
    if key is None:
        return put_in_order(paths)
    return Order(tuple(sorted(paths, key=lambda path: key(Path(path)))), (), (), ())


def _checked_max(max_layers: int) -> int:
    """Refuse fewer than one layer."""
    if max_layers < 1:
        raise InvalidValueError(f"max_layers={max_layers}; expected 1 or more")
    return max_layers


def _refuse_given(**given: object) -> None:
    """Refuse arguments that are for formats that are not read."""
    why = {
        "czi_channel": "CZI files are not read; save the channel as TIFF, and choose channels by channel=",
        "scale": "it chooses a scale of Zarr, N5 or precomputed data, and images have one; `wkdask convert` makes "
        "layers of Zarr",
    }
    for name, value in given.items():
        if value is not None:
            raise UnsupportedFormatError(f"{name}={value!r}: {why[name]}")
