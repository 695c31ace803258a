"""Views as arrays with coordinates, and where arrays with coordinates go; :mod:`wkdask.labelled` has the rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wkdask.arrays.lazy import ChunksLike
from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox, Vec3Int, Vec3IntLike
from wkdask.geometry.axis_vectors import C_AXIS, XYZ_AXES
from wkdask.jobs.job import MagPlace
from wkdask.labelled import MagGrid, is_labelled
from wkdask.operations.where import NOWHERE, Where
from wkdask.properties.handle import Properties

if TYPE_CHECKING:
    import xarray

    from wkdask.view.box_view import BoxView

__all__ = ["grid_of", "to_xarray", "without_coordinates"]


def grid_of(place: MagPlace) -> MagGrid:
    """Return where the voxels of a mag lie, as its dataset says now."""
    voxel_size = Properties(place.dataset_path).record.voxel_size
    return MagGrid(place.label, place.mag, voxel_size, place.store.spec.num_channels)


def to_xarray(
    self: BoxView, chunks: ChunksLike = None, *, bounding_box: BoundingBox | None = None
) -> xarray.DataArray:
    """Return the voxels as a lazy array of xarray, with coordinates along x, y, z; nothing is read yet.

    Parameters
    ----------
    chunks, bounding_box
        As for :meth:`to_dask`, whose array it holds.

    Returns
    -------
    xarray.DataArray
        Along ``c, x, y, z``. Coordinates are the middles of voxels, in the unit of the dataset's voxel size, where
        that of voxel 0 of mag 1 is 0: so they are positions in WEBKNOSSOS times the voxel size, and mags lie over
        each other. It has the layer's name; layer, mag and voxel size are its attributes. :meth:`write` takes it,
        or what was computed from it, and puts it where its coordinates say.

    Raises
    ------
    MissingPackageError
        If xarray is not installed: ``pip install 'wkdask[xarray]'``.

    Examples
    --------
    >>> tissue = mag.to_xarray()
    >>> tissue.sel(x=slice(100, 120)).x.values
    array([100., 104., 108., 112., 116., 120.])
    >>> tissue.z.attrs, float(tissue.mean("x").sel(c=0, y=8, z=70, method="nearest"))
    ({'units': 'nm'}, 33.5)
    >>> report = mag.write(255 - tissue.isel(x=slice(8, 16)))
    >>> report.bounding_box
    BoundingBox((8, 0, 0), (8, 64, 32))
    """
    box = self.box if bounding_box is None else self.box_to_read(None, None, bounding_box)
    lazy = self.to_dask(chunks, bounding_box=bounding_box)
    starts = {C_AXIS: 0, **dict(zip(XYZ_AXES, box.topleft, strict=True))}
    layer = self.place.layer
    return grid_of(self.place).labelled(lazy, (C_AXIS, *XYZ_AXES), starts, layer, {"layer": layer})


def without_coordinates(
    view: BoxView,
    data: Any,
    offset: Vec3IntLike | None,
    bounding_box: BoundingBox | None,
    where: Where = NOWHERE,
) -> tuple[Any, Vec3IntLike | None]:
    """Return what is to be written as numpy or dask has it, and its offset in the view; other data as they are.

    Parameters
    ----------
    view
        Where it goes.
    data
        What the user gave.
    offset, bounding_box, where
        Where the user says that it goes.

    Raises
    ------
    InvalidValueError
        If the data have coordinates that are not those of the mag's voxels, or lie elsewhere than the user says;
        or if it is unknown where they lie.
    """
    if not is_labelled(data):
        return data, offset
    array, starts = grid_of(view.place).taken_apart(data)
    label = view.place.label
    if offset is None and bounding_box is None and where == NOWHERE:
        missing = [axis for axis in XYZ_AXES if axis not in starts]
        if missing:
            raise InvalidValueError(
                f"{label}: the array has no coordinate along {missing[0]!r}, so that it is not known where it "
                f"goes; say offset= or bounding_box="
            )
        corner = Vec3Int(*(starts[axis] for axis in XYZ_AXES))
        return array, corner - view.global_offset
    box = view.box_to_write(array, offset, bounding_box, where)
    for axis, low in zip(XYZ_AXES, box.topleft, strict=True):
        if starts.get(axis, low) != low:
            raise InvalidValueError(
                f"{label}: the coordinates of the array begin at voxel {starts[axis]} along {axis!r}, it is to be "
                f"written from {low} on (both absolute, in voxels of this mag). Leave out the place, or the "
                f"coordinates: .data"
            )
    return array, offset
