"""A magnification with axes beside c, x, y, z: read and written position by position along them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from wkdask.errors import AxisNotFoundError, InvalidValueError, OutOfBoundsError, UnsupportedFormatError
from wkdask.further_axes.coordinates import to_xarray, without_coordinates
from wkdask.further_axes.data import Position, Target, cxyz_of, nd_box_of, span_of, turned
from wkdask.further_axes.external import ForeignArray
from wkdask.geometry import BoundingBox, Mag, Vec3Int, Vec3IntLike
from wkdask.geometry.axis_vectors import C_AXIS, XYZ_AXES
from wkdask.geometry.nd_boxes import NDBoundingBox, NormalizedBoundingBox
from wkdask.jobs.events import WriteReport
from wkdask.labelled import is_labelled
from wkdask.locations import check_agreement, mag_place
from wkdask.mag_view import MagView
from wkdask.names import DataFormat
from wkdask.objects.urls import is_url
from wkdask.paths import FolderPath, UrlPath, shown_path
from wkdask.properties import MagRecord
from wkdask.properties.further_axes import GrowAxes, axes_of_layer, channel_index, further_axes_of
from wkdask.storage.zarr.plane import further_of, open_plane
from wkdask.view.array_info import ArrayInfo, info_of

if TYPE_CHECKING:
    import dask.array as da

    from wkdask.jobs.job import MagPlace
    from wkdask.layer import Layer
    from wkdask.storage.protocol import ArraySpec

__all__ = ["NDMagView"]


class NDMagView:
    """One magnification of a layer that has axes beside c, x, y, z.

    Made by :meth:`Layer.get_mag` and :meth:`Layer.add_mag`. A position along its further axes is a
    :class:`MagView` with all that one can do: ``mag.at(t=3)``.

    Parameters
    ----------
    layer
        The layer.
    record
        What the properties say of the mag.
    folder
        Its folder.

    Examples
    --------
    >>> box = NDBoundingBox((0, 0, 0, 0), (5, 64, 64, 32), ("t", "x", "y", "z"))
    >>> movie = ds.add_layer("movie", "color", bounding_box=box, data_format="zarr3").add_mag(1, shard_shape=32)
    >>> isinstance(movie, NDMagView), movie.further_axes
    (True, ('t',))
    >>> report = movie.at(t=3).write(np.full((64, 64, 32), 9, "uint8"))
    >>> movie.read(t=3).shape, movie.axes
    ((1, 64, 64, 32), ('t', 'x', 'y', 'z'))
    """

    def __init__(self, layer: Layer, record: MagRecord, folder: str) -> None:
        if is_url(folder):
            raise UnsupportedFormatError(
                f"layer {layer.name!r} mag {record.mag} has axes beside c, x, y, z, and is at {folder}; such are "
                f"read from a disk only"
            )
        self._layer = layer
        self._mag = record.mag
        self._path = folder
        self._axes = axes_of_layer(layer.record, record.raw)
        self._foreign: ForeignArray | None = None
        channel = channel_index(record)
        if layer.data_format == "zarr3" and channel is None:
            with contextlib.suppress(UnsupportedFormatError):
                store = open_plane(folder, self._axes, [0] * len(self.further_axes))  # it must be there
                dtype, channels = str(layer.dtype_per_channel), layer.num_channels
                check_agreement(layer.name, record, dtype, channels, store)
                return
        dtype, channels = str(layer.dtype_per_channel), layer.num_channels
        self._foreign = ForeignArray(folder, self._axes, dtype, channels, channel)
        self._foreign.check()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopened, (self._layer, self._mag))

    # --- what it is ------------------------------------------------------------------------------------

    @property
    def layer(self) -> Layer:
        """The layer that it belongs to."""
        return self._layer

    @property
    def mag(self) -> Mag:
        """The magnification; along further axes positions are the same in all."""
        return self._mag

    @property
    def name(self) -> str:
        """The mag's short name, such as ``"2-2-1"``."""
        return self._mag.to_layer_name()

    @property
    def path(self) -> FolderPath | UrlPath:
        """The mag's folder."""
        return shown_path(self._path)

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the stored array's dimensions, in their order."""
        return self._axes

    @property
    def further_axes(self) -> tuple[str, ...]:
        """Those beside c, x, y, z."""
        return further_of(self._axes)

    @property
    def num_channels(self) -> int:
        """Channels of a voxel."""
        return self._layer.num_channels

    def get_dtype(self) -> np.dtype[Any]:
        """Return the type of one channel."""
        return self._layer.dtype_per_channel

    @property
    def normalized_bounding_box(self) -> NormalizedBoundingBox:
        """The layer's box, aligned outwards to this mag, along all of `axes`: x, y, z in voxels of mag 1."""
        return nd_box_of(self._layer, self._axes).align_with_mag(self._mag, ceil=True)

    @property
    def bounding_box(self) -> NDBoundingBox:
        """The same, as a plain box."""
        box = self.normalized_bounding_box
        return NDBoundingBox(box.topleft, box.size, box.axes, box.index)

    @property
    def info(self) -> ArrayInfo:
        """How the mag is stored; chunks and cubes have one position along further axes where these are written."""
        box = self.normalized_bounding_box.in_mag(self._mag)
        if self._foreign is None:
            store = open_plane(self._path, self._axes, [0] * len(self.further_axes))
            return replace(info_of(store.spec, BoundingBox.empty()), bounding_box=box)
        chunk, shard, compression = self._foreign.cut()
        return ArrayInfo(
            data_format=DataFormat(self._layer.data_format),
            num_channels=self.num_channels,
            voxel_type=self.get_dtype(),
            chunk_shape=chunk,
            shard_shape=shard,
            bounding_box=box,
            compression_mode=compression is not None,
            compression=compression,
        )

    @property
    def place(self) -> MagPlace:
        """Refused: what asks for it works on c, x, y, z."""
        self._refuse()

    @property
    def spec(self) -> ArraySpec:
        """Refused as `place`."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        first = ", ".join(f"{axis}={self._bounds()[axis][0]}" for axis in self.further_axes)
        raise UnsupportedFormatError(
            f"{self._label()}: {self._layer.data_format} arrays with axes beside c, x, y, z "
            f"({', '.join(self.further_axes)}) are read and written, nothing else; mag.at({first}) is a mag for "
            "the rest"
        )

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(MagView, name):
            self._refuse()
        raise AttributeError(f"'NDMagView' object has no attribute {name!r}")

    def _bounds(self) -> dict[str, tuple[int, int]]:
        """Return the bounds of each further axis now."""
        return {axis.name: (axis.low, axis.high) for axis in further_axes_of(self._layer.record)}

    # --- one position ----------------------------------------------------------------------------------

    def at(self, **positions: int) -> MagView:
        """Return one position along all further axes, as a mag of c, x, y, z.

        Parameters
        ----------
        **positions
            The position along each further axis, within the layer's bounds: ``mag.at(t=3)``.

        Raises
        ------
        AxisNotFoundError
            If an axis is missing, or there is none of that name.
        OutOfBoundsError
            If a position lies outside of the layer's bounds; :meth:`write` makes them grow.
        UnsupportedFormatError
            If the array stores several positions in one file, or has a further axis after x, y or z.
        """
        for axis, (low, high) in self._spans(positions).items():
            if high - low != 1:
                raise InvalidValueError(f"a mag has one position along {axis}, got {positions[axis]!r}")
            self._check_inside(axis, low, high)
        return self._plane(positions)

    def first_position(self) -> MagView:
        """Return the first position along all further axes, as `at` does."""
        return self.at(**{axis: low for axis, (low, _) in self._bounds().items()})

    def positions(self) -> Iterator[dict[str, int]]:
        """Yield each position along all further axes, as `at` takes it."""
        bounds = self._bounds()
        for place in itertools.product(*(range(*bounds[axis]) for axis in self.further_axes)):
            yield dict(zip(self.further_axes, place, strict=True))

    def views(self, axis: str) -> Iterator[MagView]:
        """Yield each position along a further axis of a mag that has only this one, as a mag of c, x, y, z."""
        if self.further_axes != (axis,):
            raise AxisNotFoundError(f"the only further axis is to be named, got {axis!r}; {self._text()}")
        return (self.at(**{axis: position}) for position in range(*self._bounds()[axis]))

    def _plane(self, positions: Mapping[str, int]) -> MagView:
        properties, name = self._layer._file, self._layer.name
        if self._layer.data_format != "zarr3":
            raise UnsupportedFormatError(
                f"layer {name!r} is stored as {self._layer.data_format!r}: arrays with axes beside c, x, y, z are "
                "written, and are mags position by position, in Zarr 3 only; this one can be read"
            )
        if self._foreign is not None and self._foreign.channel is not None:
            raise UnsupportedFormatError(
                f"{self._label()} is a channel of an array of several, which can be read; nothing else is supported"
            )
        store = open_plane(self._path, self._axes, [positions[axis] for axis in self.further_axes])
        return MagView(self._layer, mag_place(properties, name, self._mag, store))

    # --- where -----------------------------------------------------------------------------------------

    def _text(self) -> str:
        bounds = self._bounds()
        return "the further axes are " + ", ".join(
            f"{axis} from {low} to {high}" for axis, (low, high) in bounds.items()
        )

    def _spans(self, positions: Mapping[str, Position], *, whole: bool = False) -> dict[str, tuple[int, int]]:
        """Return (first, first behind) for each further axis, or raise AxisNotFoundError."""
        unknown = [axis for axis in positions if axis not in self.further_axes]
        if unknown:
            raise AxisNotFoundError(f"there is no further axis {unknown[0]!r}; {self._text()}")
        missing = [axis for axis in self.further_axes if axis not in positions]
        if missing and not whole:
            raise AxisNotFoundError(f"the position along {missing[0]} is missing; {self._text()}")
        bounds = self._bounds()
        return {
            axis: span_of(axis, positions[axis], bounds[axis]) if axis in positions else bounds[axis]
            for axis in self.further_axes
        }

    def _check_inside(self, axis: str, low: int, high: int) -> None:
        first, behind = self._bounds()[axis]
        if low < first or high > behind:
            raise OutOfBoundsError(
                f"layer {self._layer.name!r} mag {self._mag} has no {axis} from {low} to {high}; {self._text()}"
            )

    def _resolve(
        self,
        size: Vec3IntLike | None,
        offset: Vec3IntLike | None,
        box: NDBoundingBox | BoundingBox | None,
        positions: Mapping[str, Position],
    ) -> tuple[BoundingBox, dict[str, tuple[int, int]]]:
        """Return what is meant: a box along x, y, z in voxels of mag 1, and the span along each further axis."""
        if box is not None:
            if size is not None or offset is not None:
                raise InvalidValueError("a place is a box, or an offset and a size, not both")
            spans = {axis: box.get_bounds(axis) for axis in self.further_axes if axis in box.axes}
            twice = [axis for axis in spans if axis in positions]
            if twice:
                raise InvalidValueError(f"{twice[0]} is in the box and in the arguments; give it once")
            return BoundingBox(box.topleft_xyz, box.size_xyz), {**self._spans(positions, whole=True), **spans}
        own = BoundingBox.from_ndbbox(self.bounding_box)
        corner = own.topleft if offset is None else Vec3Int(offset)
        extent = (own.bottomright - corner).pairmax(0) if size is None else Vec3Int(size)
        return BoundingBox(corner, extent), self._spans(positions, whole=True)

    # --- reading ---------------------------------------------------------------------------------------

    def read(
        self,
        size: Vec3IntLike | None = None,
        *,
        relative_offset: Vec3IntLike | None = None,
        absolute_offset: Vec3IntLike | None = None,
        absolute_bounding_box: NDBoundingBox | BoundingBox | None = None,
        **positions: Position,
    ) -> np.ndarray[Any, Any]:
        """Read voxels into one array.

        Parameters
        ----------
        size, absolute_offset
            Extent and corner along x, y, z, in voxels of mag 1; those of the layer's box by default.
        relative_offset
            Instead of `absolute_offset`: from the corner of the layer's box on.
        absolute_bounding_box
            Instead of all: in voxels of mag 1, also along further axes.
        **positions
            What is read along further axes: a position, or the first one and the first one behind. All by default.

        Returns
        -------
        numpy.ndarray
            ``(c, x, y, z)`` where a position along each further axis is given: ``mag.read(t=3)``. Else along
            `axes`, without those whose position is given: ``mag.read()``, ``mag.read(t=(0, 3))``.

        Raises
        ------
        AxisNotFoundError
            If there is no such further axis.
        OutOfBoundsError
            If a position lies outside of the layer's bounds.
        AlignmentError
            If the place is not on this mag's voxel grid.
        """
        if relative_offset is not None:
            if absolute_offset is not None:
                raise InvalidValueError("an offset is absolute or relative, not both")
            absolute_offset = self.bounding_box.topleft_xyz + Vec3Int(relative_offset)
        box, spans = self._resolve(size, absolute_offset, absolute_bounding_box, positions)
        own = box.in_mag(self._mag)
        for axis, (low, high) in spans.items():
            self._check_inside(axis, low, high)
        if self._foreign is not None:
            found: np.ndarray[Any, Any] = turned(
                self._foreign.read(self._all_spans(own, spans), self._order), self._axes, positions
            )
            return found
        sides = {C_AXIS: self.num_channels, **dict(zip(XYZ_AXES, own.size, strict=True))}
        counts = {axis: high - low for axis, (low, high) in spans.items()}
        further = tuple(spans)
        out = np.zeros(
            [*(counts[axis] for axis in further), *(sides[axis] for axis in (C_AXIS, *XYZ_AXES))],
            self.get_dtype(),
            "F",
        )
        for place in itertools.product(*(range(*spans[axis]) for axis in further)):
            at = tuple(n - spans[axis][0] for axis, n in zip(further, place, strict=True))
            out[at] = self._plane(dict(zip(further, place, strict=True))).read(own.topleft, own.size)
        result: np.ndarray[Any, Any] = turned(out, self._axes, positions)
        return result

    def read_cxyz(self, size: Vec3IntLike | None = None, **place: Any) -> np.ndarray[Any, Any]:
        """Read ``(c, x, y, z)`` where there is one position along each further axis; otherwise as :meth:`read`.

        Raises
        ------
        InvalidValueError
            If there are several positions.
        """
        positions = {name: value for name, value in place.items() if name in self.further_axes}
        _, spans = self._resolve(None, None, place.get("absolute_bounding_box"), positions)
        several = [axis for axis, (low, high) in spans.items() if high - low != 1]
        if several:
            raise InvalidValueError(
                f"{self._label()}: (c, x, y, z) has one position along {several[0]}; give it, as {several[0]}="
            )
        found: np.ndarray[Any, Any] = cxyz_of(self.read(size, **place), self._axes, positions)
        return found

    def to_dask(
        self,
        chunks: Any = None,
        *,
        absolute_bounding_box: NDBoundingBox | BoundingBox | None = None,
        **positions: Position,
    ) -> da.Array:
        """Return the voxels as a lazy dask array; nothing is read yet.

        Parameters
        ----------
        chunks
            As for :meth:`MagView.to_dask`; along further axes a block has one position.
        absolute_bounding_box, **positions
            As for :meth:`read`.

        Returns
        -------
        dask.array.Array
            The axes of :meth:`read`.

        Raises
        ------
        AxisNotFoundError, OutOfBoundsError, AlignmentError
            As :meth:`read`.
        """
        import dask.array as da

        box, spans = self._resolve(None, None, absolute_bounding_box, positions)
        for axis, (low, high) in spans.items():
            self._check_inside(axis, low, high)

        if self._foreign is not None:
            lazy = self._foreign.to_dask(self._all_spans(box.in_mag(self._mag), spans), self._order)
            return turned(lazy, self._axes, positions)

        def stacked(left: tuple[str, ...], place: dict[str, int]) -> da.Array:
            if not left:
                return self._plane(place).to_dask(chunks, bounding_box=box)
            axis, *rest = left
            return da.stack([stacked(tuple(rest), {**place, axis: n}) for n in range(*spans[axis])])

        if any(low == high for low, high in spans.values()):
            empty: Any = self.read(absolute_bounding_box=absolute_bounding_box, **positions)  # type: ignore[arg-type]
            return da.from_array(empty)
        return turned(stacked(tuple(spans), {}), self._axes, positions)

    to_xarray = to_xarray

    @property
    def _order(self) -> tuple[str, ...]:
        """The order of axes in which positions are put together."""
        return (*self.further_axes, C_AXIS, *XYZ_AXES)

    def _all_spans(
        self, own: BoundingBox, spans: Mapping[str, tuple[int, int]]
    ) -> dict[str, tuple[int, int]]:
        """Return (first, first behind) for each axis, in voxels of this mag."""
        return {**spans, C_AXIS: (0, self.num_channels), **{axis: own.get_bounds(axis) for axis in XYZ_AXES}}

    # --- writing ---------------------------------------------------------------------------------------

    def write(
        self,
        data: Any,
        *,
        absolute_offset: Vec3IntLike | None = None,
        absolute_bounding_box: NDBoundingBox | BoundingBox | None = None,
        allow_resize: bool = True,
        allow_unaligned: bool = True,
        **positions: Any,
    ) -> list[WriteReport]:
        """Write a numpy or dask array; positions one after the other, each as :meth:`MagView.write` writes it.

        The layer's box and the bounds of its further axes grow around what was written.

        Parameters
        ----------
        data
            ``(c, x, y, z)``, or ``(x, y, z)`` for one channel, where there is one position along each further axis:
            ``mag.write(data, t=3)``. Else along `axes`, without those of one position. An array of xarray goes
            where its coordinates say, which are as in :meth:`to_xarray`.
        absolute_offset
            The corner along x, y, z, in voxels of mag 1; that of the layer's box by default.
        absolute_bounding_box
            Instead: in voxels of mag 1, also along further axes; of the shape of the data.
        allow_resize
            False: refuse what lies beyond the layer's box and bounds.
        allow_unaligned
            Accepted; a cube that is written in part keeps its other voxels.
        **positions
            A position along a further axis; or the first one and the first one behind. Without it the data begin
            where the layer does.

        Returns
        -------
        list of WriteReport
            One for each position.

        Raises
        ------
        AxisNotFoundError
            If there is no such further axis.
        InvalidValueError
            If the shape does not fit; nothing was written.
        OutOfBoundsError
            If a position is negative, or `allow_resize` is False and the data lie outside; nothing was written.
        UnsupportedFormatError
            If such an array is not written: see :meth:`at`.
        """
        known = {name: value for name, value in positions.items() if name in self.further_axes}
        options = {name: value for name, value in positions.items() if name not in known}
        wrong = [name for name in options if name not in _OPTIONS]
        if wrong:
            raise AxisNotFoundError(
                f"{wrong[0]!r} is neither an option of a write ({', '.join(_OPTIONS)}) nor an axis; {self._text()}"
            )
        if is_labelled(data):
            data, absolute_offset = without_coordinates(
                self, data, absolute_offset, absolute_bounding_box, known
            )
        array = data if hasattr(data, "ndim") else np.asarray(data)
        single = [axis for axis in self.further_axes if isinstance(known.get(axis), int | np.integer)]
        target = Target(self._label(), self._axes, self.num_channels, self._bounds(), self._mag)
        array = target.planes_of(array, single)
        spans = target.spans(array.shape, absolute_bounding_box, known)
        corner = target.corner(array.shape, absolute_offset, absolute_bounding_box)
        corner = self._layer.record.bounding_box.topleft if corner is None else corner
        extent = Vec3Int(array.shape[-3:])
        own = BoundingBox(corner, extent * self._mag.to_vec3_int()).in_mag(self._mag)
        self._check_target(own, spans, allow_resize)
        further = tuple(spans)
        planes = []
        for place in itertools.product(*(range(*spans[axis]) for axis in further)):
            at = tuple(n - spans[axis][0] for axis, n in zip(further, place, strict=True))
            planes.append((self._plane(dict(zip(further, place, strict=True))), array[at]))
        reports = []
        for view, part in planes:
            reports.append(view.write(part, own.topleft, **options))
            at_now = dict(zip(further, _positions_of(view), strict=True))
            self._layer._commit(GrowAxes(self._layer.name, {axis: (n, n + 1) for axis, n in at_now.items()}))
        return reports

    def _label(self) -> str:
        return f"layer {self._layer.name!r} mag {self._mag}"

    def _check_target(
        self, own: BoundingBox, spans: Mapping[str, tuple[int, int]], allow_resize: bool
    ) -> None:
        """Refuse what leaves the positions that there can be, or without `allow_resize` those that there are."""
        for axis, (low, high) in spans.items():
            if low < 0 or high > 2**31:
                raise OutOfBoundsError(f"positions along {axis} count from 0, got {low} to {high}")
            if not allow_resize:
                self._check_inside(axis, low, high)
        inner = BoundingBox.from_ndbbox(self.bounding_box).in_mag(self._mag)
        if not allow_resize and not inner.contains_bbox(own):
            raise OutOfBoundsError(
                f"{self._label()}: {own} leaves the layer's box {inner} (voxels of this mag); allow_resize=True "
                "lets it grow"
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NDMagView):
            return NotImplemented
        return (self._path, self._mag, self._axes) == (other._path, other._mag, other._axes)

    def __hash__(self) -> int:
        return hash((self._path, self._mag))

    def __repr__(self) -> str:
        box = self.bounding_box
        return f"NDMagView({self._label()}, axes {', '.join(self._axes)}, {box})"


_OPTIONS = ("client", "durable", "verify", "resume", "job", "retries", "resources", "progress")


def _positions_of(view: MagView) -> tuple[int, ...]:
    positions: tuple[int, ...] = view.place.store.positions  # type: ignore[attr-defined]
    return positions


def _reopened(layer: Layer, mag: Mag) -> Any:
    return layer.get_mag(mag)
