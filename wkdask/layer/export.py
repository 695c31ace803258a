"""A layer as files of other programs, in version 4's words: `layer.export`."""

from __future__ import annotations

import itertools
import json
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wkdask.errors import AlreadyExistsError, InvalidValueError, UnsupportedFormatError, WkdaskWarning
from wkdask.export.folder import held_folder
from wkdask.export.job import ExportReport, plan_export
from wkdask.export.ozx import write_zip
from wkdask.fsio import (
    atomic_write,
    checked_path,
    fsync_folder,
    is_there,
    remove_folder,
    replace_keeping_mode,
)
from wkdask.further_axes.mag_view import NDMagView
from wkdask.geometry import BoundingBox, Mag, MagLike, Vec3Int, Vec3IntLike
from wkdask.geometry.axis_vectors import XYZ_AXES
from wkdask.geometry.nd_boxes import NDBoundingBox
from wkdask.jobs.engines.choice import pick_engine
from wkdask.layer.chunk_layout import fitting_shard_shape
from wkdask.mag_view import MagView
from wkdask.operations.chunks import warn_of_ignored
from wkdask.progress.bar import ProgressLike
from wkdask.properties import create
from wkdask.properties.handle import Properties

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.layer.layer import Layer

__all__ = ["LayerExport"]

_CHUNK = 32


@dataclass(frozen=True, slots=True)
class LayerExport:
    """Writes a layer as files of other programs; it is ``layer.export``.

    :meth:`MagView.export` knows more formats, and can go on where it was stopped.

    Examples
    --------
    >>> import os, zarr
    >>> reports = layer.export.as_tiff_stack(output_path="sections", filename_prefix="section")
    >>> len(os.listdir("sections")), sorted(os.listdir("sections"))[0]
    (32, 'section_00.tiff')
    >>> report = layer.export.as_ozx(output_path="color.ozx")
    >>> zarr.open_group(zarr.storage.ZipStore("color.ozx"), mode="r")["1"].shape
    (1, 64, 64, 32)
    """

    layer: Layer
    """The layer."""

    def as_tiff_stack(
        self,
        *,
        output_path: str | os.PathLike[str],
        bounding_box: BoundingBox | NDBoundingBox | None = None,
        mag: MagLike | None = None,
        filename_prefix: str = "",
        access_mode: object = None,
        overwrite: bool = False,
        client: Client | None = None,
        progress: ProgressLike = None,
    ) -> list[ExportReport]:
        """Write a TIFF for each section, and for each position along further axes.

        Parameters
        ----------
        output_path
            The folder; made if it is missing.
        bounding_box
            What is exported, in voxels of mag 1, cut to the layer's box and aligned outwards to the mag; all by
            default.
        mag
            Which one; the finest by default.
        filename_prefix
            What names begin with. The section follows in voxels of mag 1, with as many digits as the layer
            needs: ``section_07.tiff``, and of layers with further axes ``t3_z07.tiff``.
        access_mode
            Refused: it is for layers on a server.
        overwrite
            Replace files that are there.
        client, progress
            As for :meth:`MagView.export`.

        Returns
        -------
        list of ExportReport
            One for each position along further axes; one if there are none.

        Raises
        ------
        AlreadyExistsError
            If one of the files is there.
        InvalidValueError
            If the box does not meet the layer's.
        """
        view = self._view(mag, access_mode)
        box = self._box(view.mag, bounding_box)
        own, target = self.layer.record.bounding_box, checked_path(output_path)
        prefix = f"{_escaped(filename_prefix)}_" if filename_prefix else ""
        section = f"{{z1:0{_digits(max(own.bottomright.z, box.bottomright.z))}}}.tiff"
        plans = [
            (
                plane,
                prefix + (f"{name}_z{section}" if name else section),
            )
            for name, plane in self._planes(view, bounding_box)
        ]
        engine = pick_engine(client)
        for plane, name in plans:
            files = plan_export(
                plane.place, box.in_mag(plane.mag), target, "tiff", engine, codec=self._codec, name=name
            )
            there = [] if overwrite else [path for path in files.writer.names() if is_there(path)]
            if there:
                raise AlreadyExistsError(f"{there[0]} exists already; overwrite=True replaces it")
        reports = []
        with warnings.catch_warnings():
            if len(plans) > 1:  # files of other positions are no surprise
                warnings.filterwarnings("ignore", ".*stay beside the new ones", WkdaskWarning)
            for plane, name in plans:
                report = plane.export(
                    target,
                    "tiff",
                    bounding_box=box,
                    codec=self._codec,
                    name=name,
                    overwrite=overwrite,
                    client=client,
                    progress=progress,
                )
                reports.append(report)
        return reports

    def as_ome_tiff(
        self,
        *,
        output_path: str | os.PathLike[str],
        bounding_box: BoundingBox | NDBoundingBox | None = None,
        mag: MagLike | None = None,
        downsample: bool | None = None,
        access_mode: object = None,
        overwrite: bool = False,
        client: Client | None = None,
        progress: ProgressLike = None,
    ) -> ExportReport:
        """Write one OME-TIFF of one resolution.

        Parameters
        ----------
        output_path
            The file.
        bounding_box, mag, access_mode, overwrite, client, progress
            As for :meth:`as_tiff_stack`.
        downsample
            Ignored, with a warning if it is True: there is one resolution; :meth:`as_ozx` has several.

        Raises
        ------
        AlreadyExistsError
            If the file is there.
        DTypeError
            If OME-TIFF does not hold the voxels.
        UnsupportedFormatError
            If the layer has further axes, and not one position along them is exported.
        """
        warn_of_ignored(downsample=downsample or None)
        view = self._only(mag, access_mode, bounding_box)
        return view.export(
            output_path,
            "ome-tiff",
            bounding_box=self._box(view.mag, bounding_box),
            codec=self._codec,
            overwrite=overwrite,
            client=client,
            progress=progress,
        )

    def as_ozx(
        self,
        *,
        output_path: str | os.PathLike[str],
        bounding_box: BoundingBox | NDBoundingBox | None = None,
        mag: MagLike | None = None,
        downsample: bool = True,
        access_mode: object = None,
        shard_shape: Vec3IntLike | int | None = None,
        executor: object = None,
        overwrite: bool = False,
        client: Client | None = None,
        progress: ProgressLike = None,
    ) -> ExportReport:
        """Write zipped OME-Zarr (``.ozx``) with a pyramid.

        Parameters
        ----------
        output_path
            The file.
        bounding_box, mag, access_mode, overwrite, client, progress
            As for :meth:`as_tiff_stack`.
        downsample
            Compute coarser mags of what is exported, those that :meth:`Layer.downsample` would add.
        shard_shape
            Sides of a shard of all mags; by default they suit the size.
        executor
            Ignored, with a warning.

        Raises
        ------
        AlreadyExistsError
            If the file is there.
        UnsupportedFormatError
            If the layer has further axes, and not one position along them is exported.

        Notes
        -----
        Arrays begin at the corner of what is exported, which the metadata's translation says. They come together
        in a hidden folder beside the file, so that their bytes are on the disk twice for a while.
        """
        warn_of_ignored(executor=executor)
        start = time.perf_counter()
        view = self._only(mag, access_mode, bounding_box)
        box, target = self._box(view.mag, bounding_box), checked_path(output_path)
        if is_there(target) and not overwrite:
            raise AlreadyExistsError(f"{target} exists already; overwrite=True replaces it")
        if os.path.isdir(target):
            raise AlreadyExistsError(f"{target} is a folder; give the name of a file")
        parent = os.path.dirname(target)
        if not os.path.isdir(parent):
            raise InvalidValueError(f"there is no folder {parent}, in which {target} would be made")
        with held_folder(target) as folder:
            try:
                folder.sweep()
                image = self._image(f"{folder.path}/dataset", view, box, shard_shape)
                data = view.to_dask(bounding_box=box)
                finest = image.get_mag(view.mag)
                report = finest.write(data, (0, 0, 0), client=client, pyramid=downsample, progress=progress)
                files = list(_finished(image, box))
                nbytes = write_zip(str(image.path), files, f"{folder.path}/whole")
                replace_keeping_mode(f"{folder.path}/whole", target)
                fsync_folder(parent)
            finally:
                remove_folder(folder.path)
        seconds = time.perf_counter() - start
        return ExportReport(view.place.label, target, box, 1, report.bytes, nbytes, seconds)

    # --- what they share -----------------------------------------------------------------------------

    @property
    def _codec(self) -> str:
        """How TIFF is compressed: ids are, images are not."""
        return "deflate" if self.layer.record.is_segmentation else "none"

    def _view(self, mag: MagLike | None, access_mode: object) -> MagView | NDMagView:
        """Return the mag that is read."""
        if access_mode is not None:
            raise InvalidValueError(f"access_mode is for layers on a server, got {access_mode!r}")
        return self.layer.get_finest_mag() if mag is None else self.layer.get_mag(mag)

    def _only(
        self, mag: MagLike | None, access_mode: object, wanted: BoundingBox | NDBoundingBox | None
    ) -> MagView:
        """Return the mag that is read, or the one position of it."""
        view = self._view(mag, access_mode)
        (_, plane), *others = self._planes(view, wanted)
        if others:
            raise UnsupportedFormatError(
                f"layer {self.layer.name!r} has axes beside c, x, y, z, and such a file holds one position along "
                f"them: choose it by bounding_box=, such as layer.bounding_box.with_bounds('t', 3, 1)"
            )
        return plane

    def _box(self, mag: Mag, wanted: BoundingBox | NDBoundingBox | None) -> BoundingBox:
        """Return what is exported along x, y, z, in voxels of mag 1, aligned to a mag."""
        own = self.layer.record.bounding_box
        box = own if wanted is None else own.intersection(BoundingBox(wanted.topleft_xyz, wanted.size_xyz))
        if box.is_empty():
            raise InvalidValueError(
                f"there is nothing to export: {own if wanted is None else wanted} holds no voxel of layer "
                f"{self.layer.name!r}, which has the bounding box {own}"
            )
        return box.aligned_outwards(mag.to_vec3_int())

    def _planes(
        self, view: MagView | NDMagView, wanted: BoundingBox | NDBoundingBox | None
    ) -> Iterator[tuple[str, MagView]]:
        """Yield each position along further axes, with its name such as ``t3``; one without a name if none."""
        if not isinstance(view, NDMagView):
            yield "", view
            return
        own = view.bounding_box
        spans, digits = {}, {}
        for axis in sorted(view.further_axes):
            low, high = own.get_bounds(axis)
            digits[axis] = _digits(high)
            if wanted is not None and axis in wanted.axes:
                first, behind = wanted.get_bounds(axis)
                low, high = max(low, first), min(high, behind)
            if low >= high:
                raise InvalidValueError(f"there is nothing to export: {wanted} has no {axis} of {own}")
            spans[axis] = range(low, high)
        for place in itertools.product(*spans.values()):
            positions = dict(zip(spans, place, strict=True))
            yield (
                "_".join(f"{axis}{at:0{digits[axis]}}" for axis, at in positions.items()),
                view.at(**positions),
            )

    def _image(
        self, path: str, view: MagView, box: BoundingBox, shard_shape: Vec3IntLike | int | None
    ) -> Layer:
        """Make a dataset of one layer like this, whose mag is empty, with room for a box from its origin on."""
        name = self.layer.name
        create(path, name, self.layer._file.record.voxel_size)
        properties = Properties(path)
        new = self.layer.as_new(name)
        properties.commit(
            replace(new, bounding_box=box.with_topleft((0, 0, 0)), data_format="zarr3", mappings=(), extra={})
        )
        os.makedirs(f"{path}/{name}")
        layer = type(self.layer)(properties, name)
        if shard_shape is None:
            size, nbytes = box.in_mag(view.mag).size, view.spec.bytes_per_voxel
            shard_shape = fitting_shard_shape(size, nbytes, "zstd", Vec3Int.full(_CHUNK), "zarr3")
        layer.add_mag(view.mag, chunk_shape=_CHUNK, shard_shape=shard_shape)
        return layer


def _finished(image: Layer, box: BoundingBox) -> Iterator[str]:
    """Yield the files of an image whose mags are written, metadata first; arrays end where the voxels do."""
    group = f"{image.path}/zarr.json"
    document = _read(group)
    factor = image._file.record.voxel_size.factor
    (multiscale,) = document["attributes"]["ome"]["multiscales"]
    axes = [axis["name"] for axis in multiscale["axes"]]
    corner = dict(
        zip(XYZ_AXES, (at * side for at, side in zip(box.topleft, factor, strict=True)), strict=True)
    )
    for entry in multiscale["datasets"]:
        placed = {each["type"]: each[each["type"]] for each in entry["coordinateTransformations"]}
        shift = placed.get("translation", [0.0] * len(axes))
        placed["translation"] = [at + corner.get(axis, 0.0) for at, axis in zip(shift, axes, strict=True)]
        if not any(placed["translation"]):
            del placed["translation"]
        entry["coordinateTransformations"] = [{"type": kind, kind: values} for kind, values in placed.items()]
    atomic_write(group, json.dumps(document, indent=4).encode())
    yield group
    folders = [f"{image.path}/{entry['path']}" for entry in multiscale["datasets"]]
    for folder, mag in zip(folders, sorted(image.mags), strict=True):
        array = _read(f"{folder}/zarr.json")
        ends = dict(zip(XYZ_AXES, box.size.ceildiv(mag.to_vec3_int()), strict=True))
        array["shape"] = [ends.get(axis, side) for axis, side in zip(axes, array["shape"], strict=True)]
        atomic_write(f"{folder}/zarr.json", json.dumps(array, indent=4).encode())
        yield f"{folder}/zarr.json"
    for folder in folders:
        for root, subfolders, names in os.walk(f"{folder}/c"):
            subfolders.sort(key=int)
            yield from (f"{root}/{name}" for name in sorted(names, key=int))


def _read(path: str) -> Any:
    with open(path) as file:
        return json.load(file)


def _digits(end: int) -> int:
    """Return how many digits the numbers below one have."""
    return len(str(max(end - 1, 0)))


def _escaped(prefix: str) -> str:
    """Return a text as a part of a pattern that means itself."""
    return prefix.replace("{", "{{").replace("}", "}}")
