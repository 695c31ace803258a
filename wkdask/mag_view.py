"""One magnification of a layer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wkdask.errors import InvalidValueError, OutOfBoundsError, WkdaskError
from wkdask.fsio import checked_path
from wkdask.geometry import BoundingBox, Vec3Int, Vec3IntLike, as_box
from wkdask.geometry.grid import split_box
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import MagPlace, WriteOptions
from wkdask.objects.urls import is_url
from wkdask.operations.callables import takes_block
from wkdask.operations.chunks import warn_of_ignored
from wkdask.operations.copy import compress_in_place
from wkdask.operations.existing import nonzero_box
from wkdask.operations.halo import Boundary
from wkdask.operations.map_cubes import MapRequest, map_into, map_to_records
from wkdask.operations.where import NOWHERE, Where, warn_of_parts_of_cubes
from wkdask.progress.bar import ProgressLike, listeners_for
from wkdask.properties.listed import MagViewProperties
from wkdask.storage.formats import default_shard_shape, fitting_compression
from wkdask.storage.protocol import check_coordinates
from wkdask.view import View
from wkdask.view.absolute import absolute_help
from wkdask.view.array_info import zarr_array_of
from wkdask.view.checks import checked_size
from wkdask.view.parts import views_on_disk

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.layer import Layer

__all__ = ["MagView"]


class MagView(View):
    """One magnification of a layer, as a lazy array on the grid of its cubes.

    Made by :meth:`Layer.get_mag` and :meth:`Layer.add_mag`.

    Notes
    -----
    ``offset`` and ``size`` count voxels of this mag and are **absolute**. ``bounding_box`` counts voxels of
    mag 1 and is absolute too. A MagView may read and write anywhere from (0, 0, 0) on; a write beyond the
    layer's box makes the box grow.

    Examples
    --------
    >>> mag = ds.get_layer("color").get_mag("1")
    >>> mag.shape, mag.dtype, mag.chunks
    ((1, 64, 64, 32), dtype('uint8'), ((1,), (64,), (64,), (32,)))
    >>> part = mag.get_view(offset=(32, 0, 0), size=(32, 64, 32))
    >>> part.bounding_box
    BoundingBox((32, 0, 0), (32, 64, 32))
    >>> len([*mag.cubes_on_disk()]), len([*mag.get_bounding_boxes_on_disk()]), len([*mag.get_views_on_disk()])
    (4, 4, 4)
    >>> mag.calculate_bounding_box()
    BoundingBox((0, 0, 0), (64, 64, 32))
    """

    __slots__ = ("__weakref__", "_layer")

    def __init__(self, layer: Layer, place: MagPlace) -> None:
        super().__init__(place, BoundingBox((0, 0, 0), (0, 0, 0)))
        self._layer = layer

    def __reduce__(self) -> tuple[Any, ...]:
        return (MagView, (self._layer, self._place))

    read = absolute_help(View.read)
    read_bbox = absolute_help(View.read_bbox)
    write = absolute_help(View.write)
    get_buffered_slice_writer = absolute_help(View.get_buffered_slice_writer)

    @property
    def layer(self) -> Layer:
        """The layer that it belongs to."""
        return self._layer

    @property
    def place(self) -> MagPlace:
        """Where the mag is and what may happen with it; looked up anew where its folder has gone."""
        path = self._place.store.path
        if not is_url(path) and not os.path.isdir(path):
            with contextlib.suppress(WkdaskError, OSError):  # what reads it says what is missing
                self._place = self._layer.get_mag(self.mag).place
        return self._place

    @property
    def _properties(self) -> MagViewProperties:
        """What the properties file says now, under the names that scripts for the API know."""
        return MagViewProperties(self._layer.record.mag(self.mag))

    def _get_file_dimensions(self) -> Vec3Int:
        """Return the sides of a cube in voxels of this mag; scripts of 2021 cut their chunks by it."""
        return self.spec.shard_shape

    @property
    def name(self) -> str:
        """The mag's short name, such as ``"2-2-1"``."""
        return self.mag.to_layer_name()

    @property
    def box(self) -> BoundingBox:
        """The layer's box, aligned outwards to this mag: absolute, in voxels of this mag."""
        step = self.mag.to_vec3_int()
        return self._layer.record.bounding_box.aligned_outwards(step).in_mag(self.mag)

    @property
    def global_offset(self) -> Vec3Int:
        """The origin: offsets on a MagView are absolute."""
        return Vec3Int(0, 0, 0)

    @property
    def size(self) -> Vec3Int:
        """The far corner of the layer's box, in voxels of this mag: the extent from the origin on."""
        return self.box.bottomright

    def get_view(
        self,
        offset: Vec3IntLike | None = None,
        size: Vec3IntLike | None = None,
        read_only: bool | None = None,
        *,
        bounding_box: BoundingBox | None = None,
        relative_offset: Vec3IntLike | None = None,
        absolute_offset: Vec3IntLike | None = None,
        relative_bounding_box: BoundingBox | None = None,
        absolute_bounding_box: BoundingBox | None = None,
    ) -> View:
        """Return a view of a box.

        Parameters
        ----------
        offset, size
            Absolute, in voxels of this mag; the layer's box by default.
        read_only
            Refuse writes; such a view may reach beyond the layer's box.
        bounding_box
            Instead of both: absolute, in voxels of mag 1.
        relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box
            The same in version 4's words, all in voxels of mag 1, also the `size` that goes with an offset. A view
            that may be written to and has cubes in part is warned of then, as version 4 does.

        Raises
        ------
        OutOfBoundsError
            If the view would leave the layer's box and is not read-only.
        """
        where = Where(relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box)
        box = self._resolve(offset, size, bounding_box, where)
        if not read_only and not self.box.contains_bbox(box):
            raise OutOfBoundsError(
                f"{self._place.label}: a view of {box} leaves the layer's box {self.box} (voxels of this mag); "
                f"read_only=True may do that"
            )
        if not read_only:
            warn_of_parts_of_cubes(self, box, where)
        return View(self.place, box, bool(read_only))

    def get_bounding_boxes_on_disk(self) -> Iterator[tuple[Vec3Int, Vec3Int]]:
        """Yield (offset, size) of every cube that exists: absolute, in voxels of this mag, as in 2021."""
        return ((box.topleft, box.size) for box in self.cubes_on_disk())

    def get_views_on_disk(self, read_only: bool | None = None) -> Iterator[View]:
        """Yield a view of every cube that exists, clipped at the layer's box.

        Parameters
        ----------
        read_only
            Refuse writes.
        """
        return views_on_disk(self, self.cubes_on_disk(), read_only)

    @property
    def is_foreign(self) -> bool:
        """Whether the mag lies outside of the dataset."""
        return self._layer.is_mag_view_foreign(self)

    def get_zarr_array(self) -> Any:
        """Return the mag as a :class:`zarr.Array`, ``(c, x, y, z)`` or whatever axes it was made with.

        What is written through it passes by the plan, the locks and the layer's box; :meth:`to_dask` reads, and
        :meth:`write` writes, without that.

        Raises
        ------
        InvalidValueError
            If the mag is stored as WKW.

        Examples
        --------
        >>> zarr_mag = ds.copy_dataset("archive", data_format="zarr3").get_layer("color").get_mag(1)
        >>> zarr_mag.get_zarr_array().shape
        (1, 64, 64, 32)
        """
        return zarr_array_of(self.place, read_only=self.read_only)

    def calculate_bounding_box(self, *, client: Client | None = None) -> BoundingBox:
        """Return the smallest box around all voxels that are not zero, from the data themselves.

        Parameters
        ----------
        client
            The cluster; the active one by default.

        Returns
        -------
        BoundingBox
            In voxels of mag 1; of size 0 where there are only zeros. The layer's own box is not changed.
        """
        return nonzero_box(self.place, client).from_mag_to_mag1(self.mag)

    def compress(
        self,
        target_path: str | os.PathLike[str] | None = None,
        args: object = None,
        executor: object = None,
        *,
        compression: str | None = "lz4hc",
        client: Client | None = None,
        progress: ProgressLike = None,
    ) -> WriteReport | None:
        """Store the cubes with another compression, in place or in another dataset.

        In place, each cube is replaced under its lock and the header last: a reader meets both kinds meanwhile,
        and reads both.

        Parameters
        ----------
        target_path
            Folder of a new mag to write to; in place by default.
        args, executor
            Ignored, with a warning.
        compression
            ``"lz4hc"``, ``"lz4"`` or None; in Zarr ``"zstd"``, ``"gzip"`` or ``"blosc"``.
        client, progress
            As in :meth:`write`.

        Raises
        ------
        AlreadyExistsError
            If `target_path` exists.
        ReadOnlyError
            If the mag lies outside of the dataset.
        UnsupportedFormatError
            If its format does not have the compression.

        Examples
        --------
        >>> report = mag.compress(compression="lz4")
        >>> mag.info.compression
        'lz4'
        """
        warn_of_ignored(args=args, executor=executor)
        compression = fitting_compression(self.spec.data_format, compression or False)
        options = WriteOptions(client=client, listeners=listeners_for(progress))
        if target_path is not None:
            return self._layer.copy_mag_to(self, checked_path(target_path), compression, options)
        if (
            self.spec.data_format != "wkw"
        ):  # a Zarr array says once for all its shards how they are compressed
            return self._layer.rechunk_mag(
                self, self.spec.chunk_shape, self.spec.shard_shape, compression, options
            )
        report = compress_in_place(self.place, compression, options)
        place = replace(self.place, store=self.place.store.recompressed(compression))
        for view in [self, *self._layer.all_handles(self.mag)]:
            view.moved(place)
        return report

    def rechunk(
        self,
        chunk_shape: Vec3IntLike | int = 32,
        shard_shape: Vec3IntLike | int | None = None,
        compress: bool = True,
        target_path: str | os.PathLike[str] | None = None,
        executor: object = None,
        *,
        compression: str | None = None,
        client: Client | None = None,
        progress: ProgressLike = None,
    ) -> WriteReport | None:
        """Cut the mag into other chunks and cubes, in place or in a new dataset.

        In place, the new cubes grow in a folder beside the old one, and one commit of the properties switches to
        it: the mag's path changes. Until then the mag is read as before; afterwards the old folder goes, and what
        is still open on it (another process's handle, a dask array made before) raises. Nothing else may write into
        the mag meanwhile.

        Parameters
        ----------
        chunk_shape, shard_shape
            Sides of a chunk (32) and of a cube (1024; in Zarr 2, where every chunk is a file, the chunk's),
            in voxels of this mag.
        compress
            Compress with ``"lz4hc"`` (Zarr: Zstandard); False for uncompressed cubes.
        target_path
            Folder of a new dataset that holds this layer with this mag only; in place by default.
        executor
            Ignored, with a warning.
        compression
            Instead of `compress`: ``"lz4"`` or ``"lz4hc"``.
        client, progress
            As in :meth:`write`.

        Raises
        ------
        AlreadyExistsError
            If `target_path` exists.
        InvalidValueError, UnsupportedFormatError
            If WKW cannot hold it so.
        ReadOnlyError
            If the mag is to be changed in place and lies outside of the dataset.
        JobRunningError
            If another process is at it, or somebody wrote into the mag meanwhile; it is as before.

        Examples
        --------
        >>> report = mag.rechunk(chunk_shape=16, shard_shape=64)
        >>> layer.get_mag(1).info.shard_shape
        Vec3Int(64,64,64)
        """
        warn_of_ignored(executor=executor)
        wanted = compression or ("lz4hc" if compress else None)
        options = WriteOptions(client=client, listeners=listeners_for(progress))
        if shard_shape is None:
            chunk = Vec3Int.from_scalar_or_vec(chunk_shape)
            shard_shape = default_shard_shape(self.spec.data_format, chunk)
        if target_path is None:
            return self._layer.rechunk_mag(self, chunk_shape, shard_shape, wanted, options)
        return self._layer.copy_mag_to(
            self,
            checked_path(target_path),
            wanted,
            options,
            chunk_shape=chunk_shape,
            shard_shape=shard_shape,
            action="rechunking",
        )

    def cubes_on_disk(self) -> Iterator[BoundingBox]:
        """Yield the boxes, in voxels of this mag, of the cubes that exist; of Zarr with a fill value, of all."""
        return (self.spec.grid.cube_box(index) for index in self.place.store.cubes_on_disk())

    def map_cubes(
        self,
        func: Callable[..., Any],
        target: MagView | Mapping[str, MagView] | None = None,
        *,
        sources: Mapping[str, MagView] | None = None,
        halo: Vec3IntLike | int = 0,
        boundary: Boundary = "clip",
        bounding_box: BoundingBox | None = None,
        block_shape: Vec3IntLike | int | None = None,
        client: Client | None = None,
        durable: bool = True,
        verify: bool = False,
        task_memory: int | None = None,
        resume: bool = False,
        job: str | None = None,
        retries: int | None = None,
        resources: Mapping[str, float] | None = None,
        in_place: bool | None = None,
        overwrite: bool = True,
        progress: ProgressLike = None,
    ) -> Any:
        """Call a function for every cube, without an array graph: the batch form.

        Workers get boxes, read for themselves, and publish what the function returns. Small cubes go several to a
        task, and are read together; the function gets them one by one.

        Parameters
        ----------
        func
            Called with this mag's voxels of a block, halo included: ``(c, x, y, z)``, Fortran-ordered, its own to
            change. Voxels of `sources` come as keywords; if those are all that it takes, it gets nothing else. A
            parameter named ``box`` gets the block's box without the halo: absolute, in voxels of the target's mag
            (of this mag where there is no target).
            It returns the block for the target, of the target's type, with or without the halo; for several
            targets a dict of them; without a target anything that can be pickled, a *record*.
        target
            Where the blocks go; of any type and mag. Several by name. None for records.
        sources
            Further mags that are read, also of other magnifications: of one that is coarser than the target, the
            least box around the block.
        halo
            Voxels of this mag around a block; as many nm around the blocks of other mags.
        boundary
            Where the halo leaves the layer's box: ``"clip"`` ends the block there, ``"reflect"`` mirrors it with
            the edge repeated (as scipy and dask do), ``"nearest"`` repeats the edge, a number fills.
        bounding_box
            What is mapped: absolute, in voxels of mag 1, aligned outwards to the target's mag; this layer's box
            by default. A halo reaches beyond it.
        block_shape
            What the function gets at a time, in voxels of the target's mag, cut on the absolute grid: a divisor
            or a multiple of the target's cube along each axis. A cube by default.
        client, durable, verify, retries
            As in :meth:`write`.
        task_memory
            Bytes that a task needs, where the estimate (what is read and returned, and a copy) is wrong.
        resume
            Go on where an earlier call with the same function, sources and options stopped. Records of a job that
            can be resumed must be plain (None, bool, int, float, str, lists and dicts of them); they are kept in
            this mag's private folder until the job ends.
        job
            A name of your own by which the earlier call is recognised. The default is made of the function (its
            code, its defaults and what it encloses, the functions and constants of its module that it uses) and
            of the sources' files.
        resources
            What each task occupies of a worker, such as ``{"GPU": 1}``.
        in_place
            As in :meth:`write`: by default a target is replaced when all of it is built, if it is a source,
            or if it holds cubes that the function could read by itself. False says that it does not.
        overwrite
            False refuses to replace cubes, or unfinished work, of another job in the box: of another function, halo
            or box, or of a source that has changed.
        progress
            As in :meth:`write`.

        Returns
        -------
        WriteReport, dict of WriteReport, or iterator
            What was written into the target, or into each target. Without a target an iterator of the records in
            the order of the blocks, x fastest: tasks run as it is read, and no more are ahead than two windows.

        Raises
        ------
        ReadOnlyError
            If a target cannot be written to.
        PlanError
            If the plan cannot work, such as blocks that do not fit in memory; nothing was written.
        ResumeError
            If the job, or a record, cannot be resumed.
        AlreadyExistsError
            If `overwrite` is False and another job wrote into the box; nothing was written.
        TaskFailedError
            If the function failed, or returned a block of another shape or type; what landed is in the properties.

        Notes
        -----
        If a target is a source, all of its cubes are built before any is replaced: no call reads what
        another wrote.

        Examples
        --------
        >>> inverted = ds.add_layer_like(layer, "inverted").add_mag(1, shard_shape=32)
        >>> mag.map_cubes(lambda block: 255 - block, target=inverted).cubes
        4
        >>> sum(mag.map_cubes(lambda block: int(block.max() > 100)))
        1
        """
        layers: dict[str | None, tuple[MagPlace, BoundingBox]] = {}
        if takes_block(func, sources or {}):
            layers[None] = self._place_and_box()
        layers.update((name, view._place_and_box()) for name, view in (sources or {}).items())
        if isinstance(target, Mapping) and not target:
            raise InvalidValueError("no target at all: leave target out for records")
        targets = target if isinstance(target, Mapping) else {} if target is None else {None: target}
        request = MapRequest(
            func,
            self.place,
            layers,
            {name: view.place for name, view in targets.items()},
            self.bounding_box if bounding_box is None else as_box(bounding_box),
            Vec3Int.from_scalar_or_vec(halo),
            boundary,
            None if block_shape is None else Vec3Int.from_scalar_or_vec(block_shape),
            WriteOptions(
                client=client,
                durable=durable,
                verify=verify,
                task_memory=task_memory,
                resume=resume,
                job=job,
                retries=retries,
                resources=resources,
                in_place=in_place,
                overwrite=overwrite,
                listeners=listeners_for(progress),
            ),
        )
        if not targets:
            return map_to_records(request)
        reports = map_into(request)
        return reports if isinstance(target, Mapping) else reports[None]

    def split(self, parts: int, *, bounding_box: BoundingBox | None = None) -> list[BoundingBox]:
        """Cut a box into parts of whole cubes, for as many drivers that work on this mag at once.

        Parameters
        ----------
        parts
            How many.
        bounding_box
            What is cut: absolute, in voxels of mag 1; the layer's box by default.

        Returns
        -------
        list of BoundingBox
            In voxels of mag 1; cut along the axis of most cubes, no cube in two of them. Fewer where there are
            fewer cubes along it.

        Examples
        --------
        >>> mag.split(2)
        [BoundingBox((0, 0, 0), (64, 32, 32)), BoundingBox((0, 32, 0), (64, 32, 32))]
        """
        if parts < 1:
            raise InvalidValueError(f"a box is cut into 1 part or more, got {parts}")
        box = self.bounding_box if bounding_box is None else as_box(bounding_box)
        side = self.spec.shard_shape * self.mag.to_vec3_int()
        return split_box(box, side, parts)

    def _place_and_box(self) -> tuple[MagPlace, BoundingBox]:
        """Return the mag, and the layer's box in voxels of it."""
        return self.place, self.box

    def _write_with_coarser(self, data: Any, box: BoundingBox, options: WriteOptions) -> WriteReport:
        """Write an array, and compute the layer's coarser mags."""
        return self._layer.write_with_coarser(self, data, box, options)

    def _write_offset(self, offset: Vec3IntLike | None, shape: Vec3Int) -> Vec3IntLike:
        """Return where data without a place go: the origin, if that is where the layer begins."""
        if offset is not None:
            return offset
        corner = self.box.topleft
        if self.box.is_empty() or corner == (0, 0, 0):
            return corner * 0
        raise InvalidValueError(
            f"{self._place.label} begins at {corner}: say where the {shape} voxels go, "
            f"offset=(0, 0, 0) or offset={corner.to_tuple()}"
        )

    def _relative(self, offset: Vec3IntLike | None, size: Vec3IntLike | None) -> BoundingBox:
        """Return the box of an absolute offset and size; each defaults to the layer's box."""
        own = self.box  # one that is impossible is an error, whatever part is asked for
        corner = own.topleft if offset is None else Vec3Int(offset)
        if not corner.is_positive():
            raise OutOfBoundsError(f"voxel coordinates cannot be negative, got the offset {corner}")
        extent = (own.bottomright - corner).pairmax(0) if size is None else checked_size(size)
        return BoundingBox(corner, extent)

    def box_to_read(
        self,
        offset: Vec3IntLike | None,
        size: Vec3IntLike | None,
        bounding_box: BoundingBox | None,
        where: Where = NOWHERE,
    ) -> BoundingBox:
        """Return which box the arguments of a reader mean; the properties are asked only for what is not given."""
        if offset is None or size is None or bounding_box is not None or where != NOWHERE:
            return super().box_to_read(offset, size, bounding_box, where)
        corner, extent = Vec3Int(offset), Vec3Int(size)
        if not (corner.is_positive() and extent.is_positive()):
            return super().box_to_read(offset, size, bounding_box, where)  # says what is wrong
        box = BoundingBox(corner, extent)
        self._check_bounds(box)
        return box

    def _limits(self) -> None:
        """Return None: a MagView may be written anywhere."""

    def moved(self, place: MagPlace) -> None:
        """Follow the mag to where a rename of its layer has put it."""
        self._place = place

    def _check_bounds(self, box: BoundingBox) -> None:
        """Refuse only what lies beyond the reach of the format."""
        check_coordinates(box, self.spec.shard_shape)

    def __repr__(self) -> str:
        from wkdask.display.text import mag_text

        try:
            return mag_text(self._layer.record, self)
        except (WkdaskError, OSError) as error:  # the layer is gone: a repr never raises
            return f"MagView({self._place.label}: {error})"

    def _repr_html_(self) -> str | None:
        from wkdask.display.html import mag_html

        try:
            return mag_html(self._layer.record, self)
        except (WkdaskError, OSError):  # the layer is gone, as the text says
            return None
