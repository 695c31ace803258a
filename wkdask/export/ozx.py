"""Zipped OME-Zarr (RFC-9 of NGFF, ``.ozx``): an image of OME-Zarr 0.5 with one scale, in one plain zip file.

Tasks build the shards, as they build those of a Zarr layer; the driver puts them into the zip file, metadata first.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wkdask.errors import PlanError
from wkdask.export.extract import Extract
from wkdask.export.writer import Cut, Made
from wkdask.fsio import fsync_files, fsync_folder, make_folders, remove_folder, replace_keeping_mode
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.grid import CubeGrid
from wkdask.geometry.voxel_size import format_bytes
from wkdask.storage.formats import open_mag
from wkdask.storage.protocol import StoredMag

__all__ = ["OzxFile", "write_zip"]

_CHUNK = 32
_SHARD = 256
"""Sides of a shard, if the box is as large."""
_VERSION = "0.5"


@dataclass(frozen=True, slots=True)
class OzxFile:
    """A zip file of an OME-Zarr image."""

    extract: Extract
    """What is exported."""
    target: str
    """The file."""
    codec: str = "zstd"
    """``"zstd"`` or ``"none"``."""

    is_folder = False
    copies = 2

    @property
    def parameters(self) -> tuple[str, ...]:
        """How chunks are stored."""
        return ("ozx", self.codec)

    @property
    def is_compressed(self) -> bool:
        """Where it is asked for."""
        return self.codec != "none"

    @property
    def notes(self) -> tuple[str, ...]:
        """What is in it."""
        return ()

    def names(self) -> Iterator[str]:
        """Yield the file."""
        yield self.target

    @property
    def _shard(self) -> Vec3Int:
        """Sides of a shard: no longer than the box needs."""
        return self.extract.box.size.ceildiv(Vec3Int.full(_CHUNK)).pairmin(_SHARD // _CHUNK) * _CHUNK

    def cut(self, threads: int, memory: int | None, unit: Vec3Int | None) -> Cut:
        """Return a unit for each shard; they begin at the corner of the box."""
        del threads, unit
        box = self.extract.box
        stored = self.extract.store.spec.bytes_per_voxel
        held = 3 * self._shard.prod() * stored
        if memory is not None and held > memory:
            raise PlanError(
                f"to export a shard of {self._shard} voxels a task needs about {format_bytes(held)}, but only "
                f"{format_bytes(memory)} are there for each task; use fewer threads per worker, or workers with "
                f"more memory"
            )
        return Cut(CubeGrid(self._shard), BoundingBox((0, 0, 0), box.size), box.topleft, held)

    def begin(self, folder: str) -> None:
        """Make the metadata."""
        path = f"{folder}/image"
        if os.path.exists(f"{path}/0/zarr.json"):
            return
        import zarr

        remove_folder(path)
        extract, several = self.extract, self.extract.channels > 1
        channels = (extract.channels,) if several else ()
        ones = (1,) if several else ()
        compressor = zarr.codecs.ZstdCodec(level=5, checksum=True) if self.is_compressed else None
        zarr.create_array(
            zarr.storage.LocalStore(f"{path}/0"),
            shape=(*channels, *reversed(extract.box.size)),
            chunks=(*ones, _CHUNK, _CHUNK, _CHUNK),
            shards=(*channels, *reversed(self._shard)),
            dtype=extract.dtype,
            compressors=compressor,
            fill_value=0,
            dimension_names=[*("c" * several), "z", "y", "x"],
            zarr_format=3,
        )
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": self._multiscales()}}
        with open(f"{path}/zarr.json", "w") as file:
            json.dump(group, file, indent=4)

    def _multiscales(self) -> dict[str, Any]:
        """Return the metadata of the image: voxel size, unit, and where it begins."""
        extract, several = self.extract, self.extract.channels > 1
        size = extract.voxel_size
        corner = [at * side for at, side in zip(extract.box.topleft, size.factor, strict=True)]
        space: list[dict[str, Any]] = [{"name": axis, "type": "space", "unit": size.unit} for axis in "zyx"]
        transformations: list[dict[str, Any]] = [
            {"type": "scale", "scale": [*([1.0] * several), *reversed(size.factor)]}
        ]
        if any(corner):
            shift = [*([0.0] * several), *reversed(corner)]
            transformations.append({"type": "translation", "translation": shift})
        return {
            "version": _VERSION,
            "multiscales": [
                {
                    "name": extract.layer,
                    "axes": [*([{"name": "c", "type": "channel"}] * several), *space],
                    "datasets": [{"path": "0", "coordinateTransformations": transformations}],
                }
            ],
        }

    def _array(self, folder: str) -> StoredMag:
        """Open the array whose shards are built."""
        axes = "czyx" if self.extract.channels > 1 else "zyx"
        order = {axis: n for n, axis in enumerate(axes)}
        return open_mag(f"{folder}/image/0", "zarr3", {"axisOrder": order})

    def write(self, folder: str, number: int, unit: BoundingBox) -> int:
        """Build a shard; one of zeros is no file."""
        del number
        array, extract = self._array(folder), self.extract
        if extract.store.is_empty(unit):
            return 0
        root = f"{folder}/{uuid.uuid4().hex}.unfinished"
        os.mkdir(root)
        try:
            array.prepare_scratch(root)
            inside = BoundingBox((0, 0, 0), unit.size)
            if not array.build(root, 0, inside, extract.read(unit), None):
                return 0
            built = array.slot_path(root, 0)
            fsync_files([built])
            nbytes = os.stat(built).st_size
            path = array.cube_path((unit.topleft - extract.box.topleft) // self._shard)
            make_folders(array.path, os.path.dirname(path))
            os.replace(built, path)
            fsync_folder(os.path.dirname(path))
        finally:
            remove_folder(root)
        return nbytes

    def finish(self, folder: str, cut: Cut) -> Made:
        """Put all into the zip file: metadata first, then the shards in their order."""
        image, whole, array = f"{folder}/image", f"{folder}/whole", self._array(folder)
        indices = cut.grid.cubes(cut.box)
        shards = [path for path in map(array.cube_path, indices) if os.path.exists(path)]
        nbytes = write_zip(image, [f"{image}/zarr.json", f"{image}/0/zarr.json", *shards], whole)
        replace_keeping_mode(whole, self.target)
        return Made(1, nbytes)


def write_zip(image: str, files: Sequence[str], path: str) -> int:
    """Put the files of an OME-Zarr image into a zip file that is on the disk afterwards; return its bytes.

    Parameters
    ----------
    image
        The folder of the image; names in the zip file are below it.
    files
        Its files: all metadata first, those of the image before those of its arrays.
    path
        The zip file.
    """
    comment = {"ome": {"version": _VERSION, "zipFile": {"centralDirectory": {"jsonFirst": True}}}}
    with open(path, "wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for each in files:
                entry = zipfile.ZipInfo(os.path.relpath(os.path.realpath(each), os.path.realpath(image)))
                entry.external_attr = 0o644 << 16
                with open(each, "rb") as source, archive.open(entry, "w", force_zip64=True) as out:
                    shutil.copyfileobj(source, out, 1 << 20)
            archive.comment = json.dumps(comment).encode()
        file.flush()
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size
