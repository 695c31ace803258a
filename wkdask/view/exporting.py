"""A view as files of other programs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from wkdask.export.job import ExportReport, plan_export
from wkdask.export.job import export as run_export
from wkdask.geometry import BoundingBox, Vec3IntLike
from wkdask.jobs.engines.choice import pick_engine
from wkdask.jobs.job import WriteOptions
from wkdask.progress.bar import ProgressLike, listeners_for, say

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.view.view import View

__all__ = ["export"]


def export(
    self: View,
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    offset: Vec3IntLike | None = None,
    size: Vec3IntLike | None = None,
    bounding_box: BoundingBox | None = None,
    codec: str | None = None,
    tile: int | None = None,
    name: str | None = None,
    channel: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    client: Client | None = None,
    progress: ProgressLike = None,
) -> ExportReport:
    """Write voxels as TIFF, PNG, OME-TIFF, zipped OME-Zarr, NRRD or npy.

    Tasks read slab by slab, each chunk once, in planned memory, on the active :class:`distributed.Client` or on
    local threads. A file gets its name when it is complete. Column is x, row is y, section is z. The format's
    metadata say the voxel size and its unit, where it has a place for them.

    Parameters
    ----------
    path
        The file, or for one file per section the folder, which is made.
    format
        ``"tiff"``, ``"png"``, ``"ome-tiff"``, ``"ozx"`` (zipped OME-Zarr), ``"nrrd"`` or ``"npy"``; by default
        as the name of the file says. ``"png"``, and ``"tiff"`` where `path` does not end with ``.tif``, make a
        folder of one file per section, which :meth:`Dataset.from_images` and ``wkdask convert`` read.
    offset, size
        What is exported, in voxels of this mag, as for :meth:`read`; all by default.
    bounding_box
        Instead of both: absolute, in voxels of mag 1.
    codec
        Of TIFF ``"deflate"`` (the default), ``"lzw"``, ``"zstd"`` or ``"none"``; of ozx ``"zstd"`` or
        ``"none"``.
    tile
        Side of a TIFF's tiles, a multiple of 16; by default there are strips.
    name
        Pattern of the names of one file per section, such as ``"{layer}_{z:05}.tif"``, the default. ``{z}``
        counts voxels of this mag, ``{z1}`` those of mag 1, ``{n}`` sections from 0 on; there are ``{layer}`` and
        ``{mag}`` too.
    channel
        The only channel that is exported, from 0 on. Of several channels three of uint8 are RGB; others are
        pages, or an axis, of their own.
    overwrite
        Replace files that are there.
    resume
        Go on where the same call stopped; if that came to its end, its report is returned. What it needs for
        that is kept in a hidden folder beside `path`.
    client, progress
        As for :meth:`write`.

    Raises
    ------
    AlreadyExistsError
        If the file, or one of the files, is there already.
    DTypeError
        If the format cannot hold the voxels.
    InvalidValueError
        If an argument makes no sense, or another export stopped there (`ResumeError`).
    PlanError
        If one section does not fit in memory, or all files on the disk (`SpaceError`).
    TaskFailedError
        If voxels cannot be read; what is done can be resumed.

    Examples
    --------
    >>> import os
    >>> report = mag.export("sections", "tiff")
    >>> report.files, sorted(os.listdir("sections"))[0]
    (32, 'color_00000.tif')
    >>> mag.export("color.npy").path.endswith("color.npy"), bool((np.load("color.npy") == mag.read()).all())
    (True, True)
    """
    engine = pick_engine(client)
    place = self.place
    box = self.box_to_read(offset, size, bounding_box)
    plan = plan_export(place, box, path, format, engine, codec=codec, tile=tile, name=name, channel=channel)
    for note in plan.notes:
        say(progress, f"Note: {note}")
    options = WriteOptions(client=client, resume=resume, listeners=listeners_for(progress))
    return run_export(plan, options, overwrite=overwrite)
