"""What a dataset does with all its layers, and a layer of an array, under version 4's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from wkdask.dataset.from_dask import is_to_resume
from wkdask.errors import InvalidValueError
from wkdask.further_axes.mag_view import NDMagView
from wkdask.geometry import EMPTY_BOX, BoundingBox, Mag, MagLike, NDBoundingBox, Vec3Int, Vec3IntLike
from wkdask.jobs.job import WriteOptions
from wkdask.layer import Layer
from wkdask.layer.chunk_layout import Cut, check_array
from wkdask.layer.zarr_config import CompressLike
from wkdask.names import C_AXIS, CXYZ_AXES, XYZ_AXES, SamplingModes
from wkdask.operations.chunks import warn_of_ignored
from wkdask.progress.bar import ProgressLike, listeners_for
from wkdask.storage.zarr.plane import further_of

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.check.findings import CheckReport
    from wkdask.dataset.dataset import Dataset

__all__ = ["calculate_bounding_box", "check", "compress", "downsample", "write_layer"]


def calculate_bounding_box(self: Dataset) -> BoundingBox:
    """Return the smallest box around the boxes of all layers, in voxels of mag 1.

    Examples
    --------
    >>> ds.calculate_bounding_box()
    BoundingBox((0, 0, 0), (64, 64, 32))
    """
    box = EMPTY_BOX
    for layer in self.layers.values():
        box = box.extended_by(layer.record.bounding_box)
    return box


def downsample(
    self: Dataset,
    *,
    sampling_mode: str = SamplingModes.ANISOTROPIC,
    coarsest_mag: MagLike | None = None,
    interpolation_mode: str = "default",
    compress: CompressLike = None,
    executor: object = None,
    client: Client | None = None,
) -> None:
    """Compute the coarser magnifications of every layer; see :meth:`Layer.downsample`.

    Parameters
    ----------
    sampling_mode, coarsest_mag, interpolation_mode, compress, client
        As for :meth:`Layer.downsample`.
    executor
        Ignored, with a warning.

    Examples
    --------
    >>> ds.downsample(coarsest_mag=4)
    >>> [str(mag) for mag in ds.get_layer("cells").mags]
    ['1', '2-2-1', '4-4-1']
    """
    warn_of_ignored(executor=executor)
    for layer in self.layers.values():
        layer.downsample(
            coarsest_mag=coarsest_mag,
            interpolation_mode=interpolation_mode,
            sampling_mode=sampling_mode,
            compress=compress,
            client=client,
        )


def check(
    self: Dataset,
    *,
    layers: Sequence[str] | None = None,
    deep: bool = False,
    sample: int | None = None,
    metadata_only: bool = False,
    repair: bool = False,
    client: Client | None = None,
    progress: ProgressLike = None,
) -> CheckReport:
    """Check whether the dataset holds what it says; see :doc:`/docs/howto/check`.

    Properties against folders and metadata, the header and the index of every cube, what processes have left, and
    what a WEBKNOSSOS server needs. A dataset that does not open is checked by ``wkdask check``.

    Parameters
    ----------
    layers
        Names of the layers that are looked at; all by default.
    deep
        Decode every cube; compare the largest ids with the properties, and the coarser mags with the finer ones.
    sample
        With `deep`: how many parts of each coarser mag are compared, some MiB each; all by default.
    metadata_only
        Look at the properties, folders and metadata only, which takes no time however many cubes there are.
    repair
        Mend what cannot lose a voxel, and check again: files of dead processes go, a box and the largest id grow,
        OME-Zarr metadata are written, stale boxes of coarser mags are computed anew.
    client, progress
        As for :meth:`MagView.write`.

    Returns
    -------
    CheckReport
        The findings; after a repair what is left.

    Raises
    ------
    LayerNotFoundError, InvalidValueError
        If there is no layer of a name, or the arguments contradict each other.

    Examples
    --------
    >>> report = ds.check(deep=True)
    >>> report.is_clean, report.cubes
    (True, 8)
    """
    from wkdask.check.repair import mend
    from wkdask.check.run import check_dataset

    if repair:
        self._file.check_writable()
    options = WriteOptions(client=client, listeners=listeners_for(progress))

    def run() -> CheckReport:
        return check_dataset(
            self.path, layers, deep=deep, sample=sample, metadata_only=metadata_only, options=options
        )

    report = run()
    return mend(report, run, options, lambda repairs: True)[0] if repair else report


def compress(self: Dataset, *, executor: object = None, client: Client | None = None) -> None:
    """Compress every magnification that is not, in place; see :meth:`MagView.compress`.

    Parameters
    ----------
    executor
        Ignored, with a warning.
    client
        The cluster; the active one by default.

    Examples
    --------
    >>> ds.compress()
    >>> mag.info.compression_mode
    True
    """
    warn_of_ignored(executor=executor)
    for layer in self.layers.values():
        mags: list[Any] = list(layer.mags.values())
        for mag in mags:
            spec = mag.first_position().spec if isinstance(mag, NDMagView) else mag.spec  # alike in all
            if spec.compression is None:
                mag.compress(client=client)


def write_layer(
    self: Dataset,
    layer_name: str,
    category: str,
    data: Any,
    *,
    data_format: str = "wkw",
    downsample: bool = True,
    chunk_shape: Vec3IntLike | int | None = None,
    shard_shape: Vec3IntLike | int | None = None,
    chunks_per_shard: Vec3IntLike | int | None = None,
    axes: Sequence[str] | None = None,
    absolute_offset: Vec3IntLike | Sequence[int] | None = None,
    mag: MagLike = 1,
    client: Client | None = None,
    resume: bool = False,
    job: str | None = None,
) -> Layer:
    """Add a layer of an array.

    Parameters
    ----------
    layer_name, category, data_format
        As for :meth:`add_layer`.
    data
        A numpy or dask array, with the axes that `axes` say: by default ``(x, y, z)`` or ``(c, x, y, z)``.
    downsample
        Compute the coarser mags as well, as :meth:`Layer.downsample` does.
    chunk_shape, shard_shape, chunks_per_shard
        As for :meth:`Layer.add_mag`.
    axes
        The axes of the array, each once, of ``"c"``, ``"x"``, ``"y"``, ``"z"``. Those that it does not have get one
        voxel. In Zarr 3 also further ones, such as ``"t"``: then all of x, y, z; the stored array has these last.
    absolute_offset
        Where its first voxel goes, in voxels of mag 1; the origin by default. With further axes: along x, y, z, or
        along `axes`.
    mag
        The magnification that the array is.
    client
        The cluster; the active one by default.
    resume, job
        Go on where an earlier call with the same array and name stopped, as :meth:`MagView.write` does.

    Raises
    ------
    AlreadyExistsError, InvalidValueError, DTypeError, AlignmentError, PlanError
        If it cannot work; nothing is left behind.
    TaskFailedError
        If a task failed. What landed stays if it can be resumed; else nothing is left behind.

    Examples
    --------
    >>> layer = ds.write_layer("ramp", "color", np.arange(64 * 64 * 16, dtype="uint16").reshape(64, 64, 16))
    >>> layer.bounding_box
    BoundingBox((0, 0, 0), (64, 64, 16))
    """
    which, data_format = Mag(mag), str(data_format)
    if axes is not None and further_of(tuple(axes)):
        if resume or job is not None:
            raise InvalidValueError(
                "of further axes each position is a job: add_mag(), and write(resume=True) each"
            )
        shapes = {
            "chunk_shape": chunk_shape,
            "shard_shape": shard_shape,
            "chunks_per_shard": chunks_per_shard,
        }
        place = (tuple(axes), absolute_offset, which)
        return _write_further_axes(
            self, layer_name, category, data, data_format, *place, shapes, client, downsample=downsample
        )
    array = _with_axes(data, axes)
    cut = Cut(None, chunks_per_shard, None, chunk_shape, shard_shape, None)
    channels = check_array(array, data_format, cut)
    corner = Vec3Int((0, 0, 0) if absolute_offset is None else absolute_offset)
    size = Vec3Int(array.shape[1:]) * which.to_vec3_int()
    offset = BoundingBox(corner, size).in_mag(which).topleft
    add = self.get_or_add_layer if resume else self.add_layer
    layer = add(
        layer_name, category, dtype_per_channel=array.dtype, num_channels=channels, data_format=data_format
    )
    try:
        target = layer.get_or_add_mag(
            which, chunk_shape=chunk_shape, shard_shape=shard_shape, chunks_per_shard=chunks_per_shard
        )
        target.write(array, offset, client=client, pyramid=downsample, resume=resume, job=job)
    except BaseException:
        if not resume and not is_to_resume(layer):
            self.delete_layer(layer_name)
        raise
    return layer


def _write_further_axes(
    dataset: Dataset,
    layer_name: str,
    category: str,
    data: Any,
    data_format: str,
    axes: tuple[str, ...],
    corner: Any,
    mag: Mag,
    shapes: Mapping[str, Any],
    client: Client | None,
    *,
    downsample: bool,
) -> Layer:
    """Add a layer of an array with axes beside c, x, y, z; nothing is left of it if that fails."""
    array = data if hasattr(data, "ndim") else np.asarray(data)
    missing = [axis for axis in XYZ_AXES if axis not in axes]
    if missing or len(axes) != array.ndim or len({*axes}) < len(axes):
        raise InvalidValueError(
            f"an array with further axes has x, y and z too, and each axis once; got the shape {array.shape} "
            f"and the axes {axes}"
        )
    stored = (*(axis for axis in axes if axis not in XYZ_AXES), *XYZ_AXES)
    array = array.transpose([axes.index(axis) for axis in stored])
    low = dict.fromkeys(stored, 0)
    if corner is not None:
        given = XYZ_AXES if len(corner) == len(XYZ_AXES) else axes
        if len(corner) != len(given):
            raise InvalidValueError(f"absolute_offset is along x, y, z or along {axes}; got {corner}")
        low |= {axis: int(n) for axis, n in zip(given, corner, strict=True)}
    step = dict(zip(XYZ_AXES, mag.to_vec3_int(), strict=True))
    sides = {axis: n * step.get(axis, 1) for axis, n in zip(stored, array.shape, strict=True)}
    box = NDBoundingBox([low[axis] for axis in stored], [sides[axis] for axis in stored], stored)
    layer = dataset.add_layer(
        layer_name,
        category,
        dtype_per_channel=array.dtype,
        num_channels=sides.get(C_AXIS, 1),
        data_format=data_format,
        bounding_box=box,
    )
    try:
        cast(NDMagView, layer.add_mag(mag, **shapes)).write(array, absolute_bounding_box=box, client=client)
        if downsample:
            layer.downsample(client=client)
    except BaseException:
        dataset.delete_layer(layer_name)
        raise
    return layer


def _with_axes(data: Any, axes: Sequence[str] | None) -> Any:
    """Return an array as (c, x, y, z).

    Raises
    ------
    InvalidValueError
        If it has other axes than those.
    """
    if axes is None:
        axes = {3: ("x", "y", "z"), 4: CXYZ_AXES}.get(getattr(data, "ndim", 0), ())
    axes = tuple(axes)
    if (
        len(axes) != getattr(data, "ndim", None)
        or {*axes} - {*CXYZ_AXES}
        or len({*axes}) < len(axes)
        or not axes
    ):
        shape = getattr(data, "shape", None)
        raise InvalidValueError(
            f"an array (x, y, z) or (c, x, y, z) needs no axes=; others name each of theirs once, of c, x, y, z. "
            f"Got the shape {shape} and the axes {axes}"
        )
    data = data[(..., *[np.newaxis] * (4 - len(axes)))]
    full = (*axes, *(axis for axis in CXYZ_AXES if axis not in axes))
    return data.transpose([full.index(axis) for axis in CXYZ_AXES])
