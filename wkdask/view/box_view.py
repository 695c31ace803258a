"""A box of a magnification: what it is, reading it, writing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.arrays.lazy import ChunksLike, lazy_array
from wkdask.errors import InvalidValueError, OutOfBoundsError, ReadOnlyError
from wkdask.geometry import BoundingBox, Mag, Vec3Int, Vec3IntLike, as_box
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import MagPlace, WriteOptions
from wkdask.names import DataFormat
from wkdask.operations.inline import current_writes
from wkdask.operations.inline_write import write_inline
from wkdask.operations.where import NOWHERE, Where, check_allowed, spatial_box
from wkdask.operations.write import PlannedWrite, plan_voxels, shape_of, with_whole_voxels, write_voxels
from wkdask.paths import FolderPath, UrlPath, shown_path
from wkdask.progress.bar import ProgressLike, listeners_for
from wkdask.storage.protocol import ArraySpec, Voxels, check_coordinates
from wkdask.storage.publish.dead_jobs import warn_if_half_replaced
from wkdask.storage.publish.jobs import unfinished_jobs
from wkdask.view.array_info import ArrayInfo, info_of
from wkdask.view.array_like import ArrayLike, as_array
from wkdask.view.checks import because, checked_size, checked_threads
from wkdask.view.coordinates import to_xarray, without_coordinates
from wkdask.view.histogram import histogram

if TYPE_CHECKING:
    import dask.array as da
    from distributed import Client

__all__ = ["BoxView"]


class BoxView(ArrayLike):
    """A box of a magnification: the part of a :class:`~wkdask.view.view.View` that reads and writes it whole."""

    __slots__ = ("_box", "_place", "_read_only")

    def __init__(self, place: MagPlace, box: BoundingBox, read_only: bool = False) -> None:
        self._place = place
        self._box = box
        self._read_only = read_only

    # --- what it is ----------------------------------------------------------------------------------

    @property
    def place(self) -> MagPlace:
        """Where the mag is, as plain data; what reads and writes asks for it anew each time."""
        return self._place

    @property
    def spec(self) -> ArraySpec:
        """Type and cut of the mag."""
        return self._place.store.spec

    @property
    def path(self) -> FolderPath | UrlPath:
        """The mag's folder."""
        return shown_path(self.place.store.path)

    @property
    def mag(self) -> Mag:
        """The magnification."""
        return self._place.mag

    @property
    def box(self) -> BoundingBox:
        """The view's box: absolute, in voxels of this mag."""
        return self._box

    @property
    def bounding_box(self) -> BoundingBox:
        """The view's box in voxels of mag 1."""
        return self.box.from_mag_to_mag1(self.mag)

    @property
    def global_offset(self) -> Vec3Int:
        """The corner that offsets are relative to: absolute, in voxels of this mag."""
        return self.box.topleft

    @property
    def size(self) -> Vec3Int:
        """Extent in voxels of this mag."""
        return self.box.size

    @property
    def read_only(self) -> bool:
        """Whether writing is refused."""
        return self._read_only or self._place.read_only is not None

    @property
    def header(self) -> Any:
        """The mag's header as a :class:`wkw.Header`, for code that knows the wkw package."""
        return self.place.store.native_header()

    @property
    def data_format(self) -> DataFormat:
        """How the mag is stored: WKW, Zarr 3 or Zarr 2."""
        return DataFormat(self.spec.data_format)

    @property
    def info(self) -> ArrayInfo:
        """Type, cut and compression of the mag, in version 4's words."""
        return info_of(self.spec, self.box)

    def _is_compressed(self) -> bool:
        """Return whether cubes are compressed; scripts of 2021 ask so."""
        return self.spec.compression is not None

    def get_dtype(self) -> np.dtype[Any]:
        """Return the type of one channel.

        Examples
        --------
        >>> mag.get_dtype()
        dtype('uint8')
        """
        return np.dtype(self.spec.dtype)

    @property
    def num_channels(self) -> int:
        """Channels of a voxel."""
        return self.spec.num_channels

    # --- reading -------------------------------------------------------------------------------------

    def read(
        self,
        offset: Vec3IntLike | None = None,
        size: Vec3IntLike | None = None,
        *,
        bounding_box: BoundingBox | None = None,
        relative_offset: Vec3IntLike | None = None,
        absolute_offset: Vec3IntLike | None = None,
        relative_bounding_box: BoundingBox | None = None,
        absolute_bounding_box: BoundingBox | None = None,
        threads: int | None = None,
    ) -> Voxels:
        """Read voxels into one array.

        For many small boxes one after the other there is :meth:`~wkdask.View.open_reader`.

        Parameters
        ----------
        offset
            Corner, in voxels of this mag, relative to the view; its own corner by default.
        size
            Extent, in voxels of this mag; up to the far corner by default.
        bounding_box
            Instead of both: absolute, in voxels of mag 1.
        relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box
            The same in version 4's words, all in voxels of mag 1, also the `size` that goes with an offset.
        threads
            How many threads read a box of 8 MiB or more: by default what the setting ``wkdask.read-threads``
            says, else as many as dask uses; 1 within a task.

        Returns
        -------
        numpy.ndarray
            ``(c, x, y, z)``, Fortran-ordered, also for one channel; zeros where nothing was written.

        Raises
        ------
        OutOfBoundsError
            If the box leaves the view.
        AlignmentError
            If `bounding_box` is not on this mag's voxel grid.
        InvalidValueError
            If the voxels are more than this machine's memory can hold.
        DamagedCubeError
            If a cube exists but cannot be read; names the file.

        Warns
        -----
        WkdaskWarning
            If a job was interrupted while it replaced cubes in place: what is read may be old voxels and new ones.

        Examples
        --------
        >>> mag.read(offset=(10, 20, 0), size=(2, 2, 1))[0, :, :, 0]
        array([[30, 31],
               [31, 32]], dtype=uint8)
        >>> mag.read(bounding_box=BoundingBox((0, 0, 0), (64, 64, 1))).shape
        (1, 64, 64, 1)
        """
        where = Where(relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box)
        box = self._resolve(offset, size, bounding_box, where)
        store = self.place.store
        if (writes := current_writes()) is not None:  # the other tasks have the other cores
            block = store.read(box, 1 if threads is None else checked_threads(threads))
            writes.overlay(store, box, block)
            return block
        warn_if_half_replaced(store.path)
        return store.read(box, checked_threads(threads))

    def read_bbox(self, bounding_box: BoundingBox | None = None) -> Voxels:
        """Read a box given as in the 2021 API: in voxels of this mag, relative to the view.

        Parameters
        ----------
        bounding_box
            As `offset` and `size` of :meth:`read`; all by default.

        Examples
        --------
        >>> mag.read_bbox(BoundingBox((10, 20, 0), (2, 2, 1))).shape
        (1, 2, 2, 1)
        """
        if bounding_box is None:
            return self.read()
        return self.read(bounding_box.topleft, bounding_box.size)

    def to_dask(
        self,
        chunks: ChunksLike = None,
        *,
        bounding_box: BoundingBox | None = None,
        relative_bounding_box: BoundingBox | None = None,
        absolute_bounding_box: BoundingBox | None = None,
    ) -> da.Array:
        """Return the voxels as a lazy dask array; nothing is read yet.

        Parameters
        ----------
        chunks
            Shape of the blocks in voxels of this mag: ``"cube"`` for one block per cube file, a side, or three
            sides; along each axis a block divides a cube or is a whole number of cubes. The default stays
            near dask's option ``array.chunk-size``.
        bounding_box
            Absolute, in voxels of mag 1; the view's own box by default.
        relative_bounding_box, absolute_bounding_box
            The same in version 4's words, as for :meth:`read`.

        Returns
        -------
        dask.array.Array
            ``(c, x, y, z)``. Index ``[:, 0, 0, 0]`` is the corner of the box; the blocks are cut on the
            absolute cube grid wherever that lies. A slice of it reads the voxels asked for, not whole blocks.

        Raises
        ------
        AlignmentError
            If blocks would straddle cubes, or `bounding_box` is off this mag's voxel grid.
        InvalidValueError
            If the array would have more than a million blocks along an axis, or a billion in all.
        OutOfBoundsError
            If `bounding_box` leaves the view.

        Examples
        --------
        >>> x = mag.to_dask(chunks="cube")
        >>> x.chunks
        ((1,), (32, 32), (32, 32), (32,))
        >>> int(x[0, 3, 4, 5].compute())
        7
        """
        where = Where(None, None, relative_bounding_box, absolute_bounding_box)
        box, store = self._resolve(None, None, bounding_box, where), self.place.store
        if (writes := current_writes()) is not None:
            writes.note_read(store, box)
        else:
            warn_if_half_replaced(store.path)
        return lazy_array(store, box, chunks)

    to_xarray, histogram = to_xarray, histogram

    # --- writing -------------------------------------------------------------------------------------

    def write(
        self,
        data: Any,
        offset: Vec3IntLike | None = None,
        *,
        bounding_box: BoundingBox | None = None,
        relative_offset: Vec3IntLike | None = None,
        absolute_offset: Vec3IntLike | None = None,
        relative_bounding_box: BoundingBox | None = None,
        absolute_bounding_box: BoundingBox | None = None,
        allow_resize: bool | None = None,
        allow_unaligned: bool | None = None,
        client: Client | None = None,
        durable: bool = True,
        verify: bool = False,
        task_memory: int | None = None,
        resume: bool = False,
        job: str | None = None,
        retries: int | None = None,
        resources: Mapping[str, float] | None = None,
        pyramid: bool = False,
        in_place: bool | None = None,
        progress: ProgressLike = None,
    ) -> WriteReport:
        """Write a numpy or dask array, or one of xarray that holds one.

        A dask array is computed and written as one task per cube (small cubes in groups) on the active
        :class:`distributed.Client`, or on local threads. Cubes are built aside and take their place by one
        rename, so that a reader never meets a half-written one; the layer's box grows by what was written.

        Parameters
        ----------
        data
            ``(c, x, y, z)``, or ``(x, y, z)`` where there is one channel, of the layer's type. An array of xarray
            may have its axes in any order, and goes where its coordinates say, which are as in :meth:`to_xarray`.
        offset
            Corner, in voxels of this mag, relative to the view.
        bounding_box
            Instead: absolute, in voxels of mag 1; its size must be that of the data.
        relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box
            The same in version 4's words, all in voxels of mag 1.
        allow_resize, allow_unaligned
            False refuses a box that leaves the layer's, or cubes in part. Both are allowed by default, for the box
            grows under a lock, and a cube keeps its other voxels; but where the place is said in version 4's words,
            they are refused as there. With one of them and no place, the data go to the corner of the layer's box.
        client
            The cluster; the active one by default.
        durable
            Flush to the disk before a cube counts as written.
        verify
            Read every cube back before it is published.
        task_memory
            Bytes that a task needs, where the plan's estimate is wrong.
        resume
            Continue where an earlier call with the same array and box stopped: killed, interrupted, or failed. What
            that one has published is not computed again, and is part of the report. If it came to its end, and the
            mag has not changed since, nothing is done and its report is returned. Without an earlier call all is
            written.
        job
            A name of your own by which the earlier call is recognised, instead of the array's name: for arrays
            with a non-deterministic name (random numbers without a seed, ``dask.delayed``).
        retries
            How often a task that failed is tried again; by default twice on a cluster, not on local threads.
        resources
            What each task occupies of a worker, such as ``{"GPU": 1}``.
        pyramid
            Compute the layer's coarser mags as well, of what is written: those that are there, else all that
            :meth:`Layer.downsample` would add. Only through the MagView of the layer's finest mag. Each task
            shrinks the block that it has written, so that this mag is not read again. Where tasks cannot, the
            coarser mags are computed after the write, by the same job: if the array reads the mag that it
            is written to, if cubes are too large for a task, if blocks of an expression lie across the borders of
            tasks, if the first step is by more than 2, or with `resources`. Coarser mags that are not there yet are
            listed when they are complete.
        in_place
            Whether the array was computed from the voxels that it replaces. Then all cubes are built before
            the first is replaced, which takes their space on the disk twice for a while, and a failed or
            killed job leaves the mag as it was or is finished by the next one. By default that is done if
            the graph reads this mag, or if something in it (a function, persisted blocks, ``dask.delayed``)
            might and the box holds cubes. False says that it does not.
        progress
            ``True`` for a progress bar, ``False`` for none, a listener of events; by default a bar on a
            terminal or in a notebook once the job lasts.

        Returns
        -------
        WriteReport
            Box, cubes, bytes and min/max of what was written; with `pyramid`, its `others` are the coarser mags'.

        Raises
        ------
        ReadOnlyError
            If the view is read-only, or a coarser mag with `pyramid`.
        ChannelError, DTypeError, InvalidValueError
            If the data do not fit the layer; nothing was written.
        PlanError
            If the plan cannot work; nothing was written.
        ResumeError
            If `resume` is asked for an array with a non-deterministic name, without `job`; nothing was written.
        TaskFailedError
            If tasks failed; what landed is in the properties.
        SchedulerLostError
            If the cluster's scheduler is gone; what landed is in the properties.

        Examples
        --------
        >>> report = mag.write(np.full((8, 8, 4), 255, "uint8"), offset=(60, 0, 0))
        >>> report.bounding_box, layer.bounding_box
        (BoundingBox((60, 0, 0), (8, 8, 4)), BoundingBox((0, 0, 0), (68, 64, 32)))
        >>> out = ds.add_layer_like(layer, "inverted").add_mag(1, shard_shape=32)
        >>> out.write(255 - mag.to_dask(), bounding_box=layer.bounding_box).cubes
        6
        """
        if self.read_only:
            raise ReadOnlyError(
                f"{self._place.label}: this view is read-only{because(self._place.read_only)}"
            )
        where = Where(relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box)
        data, offset = without_coordinates(self, as_array(data), offset, bounding_box, where)
        if offset is None and bounding_box is None and where == NOWHERE:
            if resume:
                offset = self._offset_of_unfinished(data)
            if offset is None and (allow_resize, allow_unaligned) != (None, None):
                offset = self._own_corner  # only version 4 has these words, and there nothing else is meant
        box = self.box_to_write(data, offset, bounding_box, where)
        check_allowed(self, box, where, allow_resize, allow_unaligned)
        if (writes := current_writes()) is not None:
            return write_inline(self.place, writes, data, box)
        options = WriteOptions(
            client=client,
            durable=durable,
            verify=verify,
            task_memory=task_memory,
            resume=resume,
            job=job,
            retries=retries,
            resources=resources,
            in_place=in_place,
            listeners=listeners_for(progress),
        )
        data = with_whole_voxels(data)
        if pyramid:
            return self._write_with_coarser(data, box, options)
        return write_voxels(self.place, data, box, options)

    def _write_with_coarser(self, data: Any, box: BoundingBox, options: WriteOptions) -> WriteReport:
        """Write an array, and compute the layer's coarser mags."""
        del data, box, options
        raise InvalidValueError(
            f"pyramid=True is for writes through a MagView; this is a part of {self._place.label}"
        )

    def plan_write(
        self,
        data: Any,
        offset: Vec3IntLike | None = None,
        *,
        bounding_box: BoundingBox | None = None,
        relative_offset: Vec3IntLike | None = None,
        absolute_offset: Vec3IntLike | None = None,
        relative_bounding_box: BoundingBox | None = None,
        absolute_bounding_box: BoundingBox | None = None,
        client: Client | None = None,
        task_memory: int | None = None,
        in_place: bool | None = None,
    ) -> PlannedWrite:
        """Say what :meth:`write` would do with the same arguments; nothing is written.

        Parameters
        ----------
        data, offset, bounding_box, relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box
            As for :meth:`write`.
        client, task_memory, in_place
            As there.

        Returns
        -------
        PlannedWrite
            Cubes, bytes, tasks and the memory of each, the engine; print it.

        Raises
        ------
        PlanError
            If the plan cannot work, with what would.

        Examples
        --------
        >>> print(mag.plan_write(255 - mag.to_dask()))
        To write : layer 'color' mag 1
        Box      : (0, 0, 0) + (64, 64, 32) (voxels of this mag)
        Cubes    : 4 of (32, 32, 32) voxels
        ...
        """
        where = Where(relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box)
        data, offset = without_coordinates(self, as_array(data), offset, bounding_box, where)
        box = self.box_to_write(data, offset, bounding_box, where)
        options = WriteOptions(client=client, task_memory=task_memory, in_place=in_place)
        return plan_voxels(self.place, with_whole_voxels(data), box, options)

    def _offset_of_unfinished(self, data: Any) -> Vec3IntLike | None:
        """Return the origin if an unfinished job began to write an array of this size there; None if none did.

        The layer's box may begin elsewhere by then, as that job's first cube does; the default would be refused.
        A job anywhere else was given its offset: this call is another one, or must be given the offset too.
        """
        shape = Vec3Int(shape_of(data, self._place))
        boxes = [job.box for job in unfinished_jobs(self._place.store)]
        return (0, 0, 0) if BoundingBox(self._origin, shape) in boxes else None

    @property
    def _origin(self) -> Vec3Int:
        """The voxel that offsets count from: absolute, in voxels of this mag."""
        return self.global_offset

    @property
    def _own_corner(self) -> Vec3Int:
        """The corner of the view's box, as an offset."""
        return self.box.topleft - self._origin

    def box_to_write(
        self,
        data: Any,
        offset: Vec3IntLike | None,
        bounding_box: BoundingBox | None,
        where: Where = NOWHERE,
    ) -> BoundingBox:
        """Return where an array goes: absolute, in voxels of this mag, checked."""
        shape = Vec3Int(shape_of(data, self._place))
        bounding_box = where.box(self, offset, None, bounding_box, shape)
        if bounding_box is not None:
            box = self._resolve(offset, None, bounding_box)
            if box.size != shape:
                raise InvalidValueError(
                    f"the bounding box {as_box(bounding_box)} has {box.size} voxels of mag {self.mag}, "
                    f"the array has {shape}"
                )
        else:
            box = self._resolve(self._write_offset(offset, shape), shape, None)
        check_coordinates(box, self.spec.shard_shape)
        return box

    def _write_offset(self, offset: Vec3IntLike | None, shape: Vec3Int) -> Vec3IntLike:
        """Return where data without a place go: the view's corner."""
        del shape
        return (0, 0, 0) if offset is None else offset

    # --- boxes ---------------------------------------------------------------------------------------

    def _limits(self) -> BoundingBox | None:
        """Return the box that writes must stay in; None where there is none."""
        return self.box

    def _resolve(
        self,
        offset: Vec3IntLike | None,
        size: Vec3IntLike | None,
        bounding_box: BoundingBox | None,
        where: Where = NOWHERE,
    ) -> BoundingBox:
        """Return the box that the arguments mean: absolute, in voxels of this mag, checked."""
        box = self._requested(offset, size, bounding_box, where)
        self._check_bounds(box)
        return box

    def box_to_read(
        self,
        offset: Vec3IntLike | None,
        size: Vec3IntLike | None,
        bounding_box: BoundingBox | None,
        where: Where = NOWHERE,
    ) -> BoundingBox:
        """Return which box the arguments of a reader mean: absolute, in voxels of this mag, checked."""
        return self._resolve(offset, size, bounding_box, where)

    def _requested(
        self,
        offset: Vec3IntLike | None,
        size: Vec3IntLike | None,
        bounding_box: BoundingBox | None,
        where: Where = NOWHERE,
    ) -> BoundingBox:
        """Return the box that the arguments mean: absolute, in voxels of this mag, wherever it is."""
        if where is not NOWHERE and where != NOWHERE:
            bounding_box, size = where.box(self, offset, size, bounding_box), None
        if bounding_box is None:
            return self._relative(offset, size)
        if offset is not None or size is not None:
            raise InvalidValueError("give either offset and size, or bounding_box")
        return spatial_box(bounding_box, self.spec.num_channels).in_mag(self.mag)

    def _relative(self, offset: Vec3IntLike | None, size: Vec3IntLike | None) -> BoundingBox:
        """Return the absolute box of an offset and a size relative to the view's corner."""
        corner = Vec3Int(0, 0, 0) if offset is None else Vec3Int(offset)
        if not corner.is_positive():
            raise OutOfBoundsError(f"the offset {corner} lies before the corner of the view")
        extent = (self.size - corner).pairmax(0) if size is None else checked_size(size)
        return BoundingBox(self.global_offset + corner, extent)

    def _check_bounds(self, box: BoundingBox) -> None:
        """Refuse a box that leaves the view; a read-only view may be read beyond."""
        if not self._read_only and not self.box.contains_bbox(box):
            raise OutOfBoundsError(
                f"the box {box} leaves the view {self.box} (both absolute, in voxels of mag {self.mag})"
            )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self._place.label}, {self.box}{', read-only' if self.read_only else ''})"
        )
