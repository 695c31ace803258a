"""A view of a box of a magnification, as the Dataset API has it: parts, slices, chunks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.errors import InvalidValueError, ReadOnlyError
from wkdask.geometry import BoundingBox, Vec3Int, Vec3IntLike
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import MagPlace, WriteOptions
from wkdask.operations.chunks import ChunkedView, check_zipped, chunk_shape_2021, run_chunks, warn_of_ignored
from wkdask.operations.slices import BufferedSliceWriter, check_dimension, check_first_slice, read_slices
from wkdask.operations.where import Where, warn_of_parts_of_cubes
from wkdask.progress.bar import ProgressLike, listeners_for
from wkdask.storage.protocol import Voxels, check_coordinates
from wkdask.storage.publish.dead_jobs import warn_if_half_replaced
from wkdask.view.box_view import BoxView
from wkdask.view.checks import because
from wkdask.view.exporting import export
from wkdask.view.parts import chunk, read_cxyz, read_xyz, write_cxyz
from wkdask.view.reader import BoxReader

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.viewer.viewer import Viewer

__all__ = ["View"]


class View(BoxView):
    """A box of a magnification.

    Made by :meth:`MagView.get_view`. It holds paths and numbers only, pickles to a few hundred bytes and
    works on any machine that sees the dataset.

    Notes
    -----
    ``offset`` and ``size`` count voxels of this mag, relative to the view's corner. ``bounding_box``
    counts voxels of mag 1 and is absolute. Arrays are ``(c, x, y, z)``, Fortran-ordered.

    Examples
    --------
    >>> view = mag.get_view(offset=(32, 32, 0), size=(16, 16, 16))
    >>> view.read(offset=(1, 2, 3), size=(1, 1, 1)) == mag.read(offset=(33, 34, 3), size=(1, 1, 1))
    array([[[[ True]]]])
    >>> view.get_view(offset=(8, 8, 8), size=(8, 8, 8)).bounding_box
    BoundingBox((40, 40, 8), (8, 8, 8))
    >>> view.open().close()     # as scripts of 2021 do; not needed
    """

    __slots__ = ("_is_open",)

    def __init__(self, place: MagPlace, box: BoundingBox, read_only: bool = False) -> None:
        super().__init__(place, box, read_only)
        self._is_open = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (View, (self._place, self._box, self._read_only))

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, View):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity()[:2])  # the name of a layer may be changed

    def _identity(self) -> tuple[Any, ...]:
        """Return what makes two handles equal; the first two never change."""
        place = self._place
        return (place.dataset_path, place.mag, place.layer, self._box, self._read_only)

    # --- parts ---------------------------------------------------------------------------------------

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
        """Return a view of a part of this one.

        Parameters
        ----------
        offset, size
            In voxels of this mag, relative to this view; all of it by default.
        read_only
            Refuse writes; as this view by default.
        bounding_box
            Instead of offset and size: absolute, in voxels of mag 1.
        relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box
            The same in version 4's words, all in voxels of mag 1, also the `size` that goes with an offset. A part
            that may be written to and has cubes in part is warned of then, as version 4 does.

        Raises
        ------
        OutOfBoundsError
            If the part leaves this view, and is not read-only.
        ReadOnlyError
            If a part of a read-only view should be writable.

        Examples
        --------
        >>> mag.get_view(offset=(0, 0, 0), size=(8, 8, 8)).shape
        (1, 8, 8, 8)
        """
        if read_only is None:
            read_only = self._read_only
        if self._read_only and not read_only:
            raise ReadOnlyError(f"{self._place.label}: a part of a read-only view is read-only too")
        where = Where(relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box)
        box = self._requested(offset, size, bounding_box, where)
        if not read_only:
            self._check_bounds(box)
            warn_of_parts_of_cubes(self, box, where)
        check_coordinates(box, self.spec.shard_shape)
        return View(self.place, box, read_only)

    # --- reading again and again ---------------------------------------------------------------------

    def open_reader(self, *, max_open_cubes: int = 64, threads: int = 1) -> BoxReader:
        """Return a reader of many boxes, such as a training asks for at random, in one process or in many.

        A :meth:`read` looks at the properties, the header and each cube anew. A reader looks once, and keeps cubes
        open; only whether a cube has been replaced is looked at with every box. It pickles, and works after a fork.

        Parameters
        ----------
        max_open_cubes
            How many cubes are open at most in a process; the least recently used one is closed first. Each takes a
            file descriptor, and a compressed one of 1024³ voxels 256 KiB for its jump table.
        threads
            How many threads read a box of 8 MiB or more.

        Returns
        -------
        BoxReader
            Has the same ``read`` as this view, and an array to read into as `out`; close it, or use it in a
            ``with`` statement.

        Raises
        ------
        InvalidValueError
            If a number is not positive.

        Warns
        -----
        WkdaskWarning
            As :meth:`read`, once.

        Examples
        --------
        >>> with mag.open_reader() as reader:
        ...     reader.read(offset=(10, 20, 0), size=(2, 2, 1))[0, :, :, 0]
        array([[30, 31],
               [31, 32]], dtype=uint8)
        """
        reader = BoxReader(self, max_open_cubes, threads)
        _ = self.box  # one that is impossible is an error now, not only where it is used
        warn_if_half_replaced(self.place.store.path)
        return reader

    # --- slices --------------------------------------------------------------------------------------

    def get_buffered_slice_writer(
        self,
        offset: Vec3IntLike | None = None,
        buffer_size: int | None = 32,
        dimension: int | str = 2,
        *,
        bounding_box: BoundingBox | None = None,
        relative_offset: Vec3IntLike | None = None,
        absolute_offset: Vec3IntLike | None = None,
        relative_bounding_box: BoundingBox | None = None,
        absolute_bounding_box: BoundingBox | None = None,
        use_logging: bool = False,
        allow_unaligned: bool | None = None,
    ) -> BufferedSliceWriter:
        """Return a writer of slices, for a ``with`` statement; each cube is published once.

        Parameters
        ----------
        offset
            Where the first slice goes: voxels of this mag, relative to the view.
        buffer_size
            Slices that are gathered before they are written.
        dimension
            Along which axis slices follow each other: 0, 1 or 2, or ``"x"``, ``"y"``, ``"z"``.
        bounding_box
            Instead of the offset: its corner, absolute, in voxels of mag 1.
        relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box
            The corner in version 4's words, in voxels of mag 1.
        use_logging
            Without effect.
        allow_unaligned
            False refuses a first slice that does not begin a cube; as version 4 does where its words say the place.

        Examples
        --------
        >>> with mag.get_buffered_slice_writer(offset=(0, 0, 32)) as writer:
        ...     for z in range(4):
        ...         writer.send(np.full((64, 64), z, "uint8"))
        >>> layer.bounding_box
        BoundingBox((0, 0, 0), (64, 64, 36))
        """
        if self.read_only:
            raise ReadOnlyError(
                f"{self._place.label}: this view is read-only{because(self._place.read_only)}"
            )
        del use_logging
        where = Where(relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box)
        bounding_box = where.box(self, offset, None, bounding_box, Vec3Int.full(0))
        if bounding_box is not None:
            corner = self._resolve(offset, None, bounding_box).topleft
        else:
            corner = self._relative(self._write_offset(offset, Vec3Int.full(1)), (0, 0, 0)).topleft
        check_first_slice(self._place, corner, where, allow_unaligned)
        origin, size = self.box.topleft, 32 if buffer_size is None else buffer_size
        return BufferedSliceWriter(self.place, corner, self._limits(), size, dimension, origin)

    @contextlib.contextmanager
    def get_buffered_slice_reader(
        self,
        offset: Vec3IntLike | None = None,
        size: Vec3IntLike | None = None,
        buffer_size: int | None = 32,
        dimension: int | str = 2,
        *,
        bounding_box: BoundingBox | None = None,
        relative_offset: Vec3IntLike | None = None,
        absolute_offset: Vec3IntLike | None = None,
        relative_bounding_box: BoundingBox | None = None,
        absolute_bounding_box: BoundingBox | None = None,
        use_logging: bool = False,
    ) -> Iterator[Iterator[Voxels]]:
        """Return an iterator of slices, for a ``with`` statement; `buffer_size` of them are read at a time.

        Parameters
        ----------
        offset, size, bounding_box
            As for :meth:`read`.
        buffer_size
            Slices that are read together.
        dimension
            Along which axis: 0, 1 or 2, or their names; the slices are (c, y, z), (c, x, z) or (c, x, y).
        relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box
            As for :meth:`read`.
        use_logging
            Without effect.

        Examples
        --------
        >>> with mag.get_buffered_slice_reader(size=(64, 64, 3)) as reader:
        ...     [image.shape for image in reader]
        [(1, 64, 64), (1, 64, 64), (1, 64, 64)]
        """
        del use_logging
        buffer_size = 32 if buffer_size is None else buffer_size
        axis = check_dimension(dimension, buffer_size)
        where = Where(relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box)
        box = self._resolve(offset, size, bounding_box, where)
        yield read_slices(self.place.store, box, buffer_size, axis)

    # --- chunks --------------------------------------------------------------------------------------

    def for_each_chunk(
        self,
        func_per_chunk: Callable[[tuple[View, int]], None] | None = None,
        chunk_size: Vec3IntLike | None = None,
        executor: object = None,
        *,
        chunk_shape: Vec3IntLike | None = None,
        work_on_chunk: Callable[[tuple[View, int]], None] | None = None,
        progress_desc: str | None = None,
        client: Client | None = None,
        progress: ProgressLike = None,
    ) -> WriteReport | None:
        """Call a function for every chunk, as tasks on the cluster or on local threads.

        A task owns whole cubes and runs the chunks in them: what they write is gathered, seen by later reads
        of the same task, and published once per cube.

        Parameters
        ----------
        func_per_chunk
            Called with ``(view, number)``; the view is the chunk, clipped at this view's box, and may be read
            and (unless this view is read-only) written.
        chunk_size, chunk_shape
            Sides of a chunk in voxels of this mag, powers of two from 32 on; chunks are cut on the absolute
            grid. The default is a cube.
        work_on_chunk
            The 2021 spelling of `func_per_chunk`.
        executor, progress_desc
            Ignored, with a warning.
        client
            The cluster; the active one by default.
        progress
            As in :meth:`write`.

        Returns
        -------
        WriteReport or None
            What was written; None if nothing was.

        Raises
        ------
        AlignmentError
            If the sides are no powers of two from 32 on.
        TaskFailedError
            If the function raised.

        Examples
        --------
        >>> def darken(args):
        ...     view, number = args
        ...     view.write(view.read() // 2)
        >>> mag.for_each_chunk(darken, chunk_shape=(32, 32, 32)).cubes
        4
        """
        warn_of_ignored(executor=executor, progress_desc=progress_desc)
        function = _function(func_per_chunk, work_on_chunk)
        report, _ = run_chunks(
            lambda views, number: function((views[0], number)),
            [self._chunked(chunk_size if chunk_size is not None else chunk_shape)],
            View,
            WriteOptions(client=client, listeners=listeners_for(progress)),
            keep=False,
        )
        return report

    def map_chunk(
        self,
        func_per_chunk: Callable[[View], Any],
        chunk_shape: Vec3IntLike | None = None,
        executor: object = None,
        *,
        progress_desc: str | None = None,
        client: Client | None = None,
        progress: ProgressLike = None,
    ) -> list[Any]:
        """Call a function for every chunk and return its results, in the order of the chunks (x fastest).

        Parameters
        ----------
        func_per_chunk
            Called with the chunk as a view.
        chunk_shape, executor, progress_desc, client, progress
            As in :meth:`for_each_chunk`.

        Examples
        --------
        >>> mag.map_chunk(lambda view: int(view.read().max()), chunk_shape=(32, 32, 32))
        [62, 94, 94, 126]
        """
        warn_of_ignored(executor=executor, progress_desc=progress_desc)
        _, values = run_chunks(
            lambda views, _number: func_per_chunk(views[0]),
            [self._chunked(chunk_shape)],
            View,
            WriteOptions(client=client, listeners=listeners_for(progress)),
            keep=True,
        )
        return values

    def for_zipped_chunks(
        self,
        func_per_chunk: Callable[[tuple[View, View, int]], None] | None = None,
        target_view: View | None = None,
        source_chunk_size: Vec3IntLike | None = None,
        target_chunk_size: Vec3IntLike | None = None,
        executor: object = None,
        *,
        work_on_chunk: Callable[[tuple[View, View, int]], None] | None = None,
        progress_desc: str | None = None,
        source_chunk_shape: Vec3IntLike | None = None,
        target_chunk_shape: Vec3IntLike | None = None,
        client: Client | None = None,
        progress: ProgressLike = None,
    ) -> WriteReport | None:
        """Call a function for every pair of chunks of this view and another; see :meth:`for_each_chunk`.

        Parameters
        ----------
        func_per_chunk
            Called with ``(source_view, target_view, number)``.
        target_view
            Where the function writes; its chunks are whole cubes.
        source_chunk_size, target_chunk_size, source_chunk_shape, target_chunk_shape
            Sides of the chunks, each in voxels of its own mag, in the ratio of the views' sizes.
        work_on_chunk, executor, progress_desc, client, progress
            As in :meth:`for_each_chunk`.

        Raises
        ------
        AlignmentError, InvalidValueError
            If the ratios differ, a view is empty, or the target's chunks are no whole cubes.

        Examples
        --------
        >>> target = ds.add_layer_like(layer, "copy").add_mag(1, shard_shape=32)
        >>> def copy(args):
        ...     source, target, number = args
        ...     target.write(source.read())
        >>> mag.for_zipped_chunks(copy, target, (32, 32, 32), (32, 32, 32)).cubes
        4
        """
        warn_of_ignored(executor=executor, progress_desc=progress_desc)
        function = _function(func_per_chunk, work_on_chunk)
        if target_view is None:
            raise InvalidValueError("give target_view, whose chunks are written")
        source = self._chunked(
            source_chunk_size if source_chunk_size is not None else source_chunk_shape, read_only=True
        )
        target = target_view._chunked(
            target_chunk_size if target_chunk_size is not None else target_chunk_shape
        )
        check_zipped(source, target)
        report, _ = run_chunks(
            lambda views, number: function((views[0], views[1], number)),
            [source, target],
            View,
            WriteOptions(client=client, listeners=listeners_for(progress)),
            keep=False,
        )
        return report

    def content_is_equal(
        self,
        other: View,
        args: object = None,
        executor: object = None,
        *,
        progress_desc: str | None = None,
        chunk_shape: object = None,
        client: Client | None = None,
    ) -> bool:
        """Return whether two views hold the same voxels, comparing cube by cube.

        Parameters
        ----------
        other
            A view of the same size; its mag may be cut and compressed differently.
        args, executor, progress_desc, chunk_shape
            Ignored, with a warning.
        client
            The cluster; the active one by default.

        Examples
        --------
        >>> mag.content_is_equal(ds.add_copy_layer(layer, "copy").get_mag(1))
        True
        """
        warn_of_ignored(args=args, executor=executor, progress_desc=progress_desc, chunk_shape=chunk_shape)
        if (self.box.size, self.num_channels, self.get_dtype()) != (
            other.box.size,
            other.num_channels,
            other.get_dtype(),
        ):
            return False
        distance = other.box.topleft - self.box.topleft
        place = other.place

        def same(views: Sequence[View], _number: int) -> bool:
            return bool(np.array_equal(views[0].read(), place.store.read(views[0].box.offset(distance))))

        _, equal = run_chunks(
            same, [self._chunked(None, read_only=True)], View, WriteOptions(client=client), keep=True
        )
        return all(equal)

    def _chunked(self, shape: Vec3IntLike | None, read_only: bool | None = None) -> ChunkedView:
        """Return the view as a value that tasks cut into chunks."""
        chunk = self.spec.shard_shape if shape is None else chunk_shape_2021(shape)
        return ChunkedView(self.place, self.box, chunk, self.read_only if read_only is None else read_only)

    chunk, read_xyz, read_cxyz, write_cxyz = chunk, read_xyz, read_cxyz, write_cxyz
    export = export

    def _repr_html_(self) -> str | None:
        from wkdask.display.html import view_html

        return view_html(self)

    # --- opening and closing -------------------------------------------------------------------------

    def view(self, **how: Any) -> Viewer:
        """Show it in neuroglancer, in the browser or inline in a notebook.

        Parameters
        ----------
        how
            As for :func:`wkdask.view`.

        Examples
        --------
        >>> with mag.get_view(offset=(0, 0, 0), size=(32, 32, 32)).view() as viewer:
        ...     viewer.layers
        ('color',)
        """
        from wkdask.viewer.viewer import view

        return view(self, **how)

    def open(self) -> View:
        """Mark the view as open; reading and writing work without.

        Raises
        ------
        InvalidValueError
            If it is open already.
        """
        if self._is_open:
            raise InvalidValueError(f"{self._place.label}: the view is open already")
        self._is_open = True
        return self

    def close(self) -> None:
        """Mark the view as closed.

        Raises
        ------
        InvalidValueError
            If it is not open.
        """
        if not self._is_open:
            raise InvalidValueError(f"{self._place.label}: the view is not open")
        self._is_open = False

    def __enter__(self) -> View:
        return self.open()

    def __exit__(self, *error: object) -> None:
        self.close()


def _function(
    function: Callable[[Any], None] | None, old: Callable[[Any], None] | None
) -> Callable[[Any], None]:
    """Return the function from either spelling."""
    chosen = old if function is None else function
    if chosen is None or (function is not None and old is not None):
        raise InvalidValueError("give either func_per_chunk or its 2021 spelling work_on_chunk")
    return chosen
