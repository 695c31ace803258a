"""HDF5, read by h5py: ``file.h5:/path`` names a dataset in it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wkdask.errors import DamagedHeaderError, UnsupportedFormatError, WkdaskError
from wkdask.external.arrays.found import Asked, Found, Part, library, one_of, shown_error, whole_steps
from wkdask.geometry.voxel_size import VoxelSize, unit_named
from wkdask.storage.protocol import Voxels

__all__ = ["hdf5_found"]

_WINDOW = 64
_NAMES = {"axes", "dimension_names", "axis_names"}
"""Attributes that programs give the names of axes."""


@dataclass(frozen=True, slots=True)
class _Hdf5Voxels:
    """A dataset of an HDF5 file."""

    path: str
    """The file."""
    name: str
    """The dataset."""

    def read(self, index: tuple[slice, ...]) -> Voxels:
        """Return a part."""
        import h5py

        with h5py.File(self.path, "r", locking=False) as file:
            part: Voxels = file[self.name][index]
        return part.astype(part.dtype.newbyteorder("="), copy=False)


def hdf5_found(path: str, inner: str, asked: Asked) -> Found:
    """Return what an HDF5 file says of one of its datasets.

    Raises
    ------
    DamagedHeaderError
        If it is damaged, or cut off.
    InvalidValueError
        If it has several datasets, and none of them is named.
    """
    del asked
    h5py = library("h5py", "HDF5")
    try:
        with h5py.File(path, "r", locking=False) as file:
            there: dict[str, Any] = {}

            def note(name: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset) and item.shape is not None and 2 <= len(item.shape) <= 5:
                    there[f"/{name}"] = f"{item.shape} {item.dtype}"

            file.visititems(note)
            given = f"/{inner.strip('/')}" if inner.strip("/") else ""
            if given and given not in there and (linked := _linked(file, given)) is not None:
                if linked.file.filename != file.filename:
                    raise UnsupportedFormatError(
                        f"{path}:{given} is a link into {linked.file.filename}; name {linked.name} in that file"
                    )
                note(given.strip("/"), linked)
            notes = []
            if not given and len(there) == 1:
                (given,) = there
                notes.append(f"{path} has one dataset, {given}, which is taken")
            name = one_of(path, given, there, "dataset")
            dataset = file[name]
            shape, dtype = tuple(map(int, dataset.shape)), dataset.dtype
            if dtype.kind not in "biuf":
                raise UnsupportedFormatError(f"{path}:{name} holds {dtype}, which are no voxels")
            _check_sources(path, name, dataset)
            chunks = tuple(map(int, dataset.chunks or (min(side, _WINDOW) for side in shape)))
            axes = _axes(dataset)
            size, corner = _placed(dataset, axes)
            dataset[tuple(slice(max(side - 1, 0), side) for side in shape)]  # is the file as long as it says?
    except (OSError, RuntimeError, KeyError) as error:
        if isinstance(error, WkdaskError):
            raise
        raise DamagedHeaderError(f"{path} cannot be read as HDF5: {shown_error(error)}") from error
    part = Part(f"{path}:{name}", _Hdf5Voxels(path, name), shape, np.dtype(dtype).name, chunks, corner=corner)
    return Found((part,), axes, size, tuple(notes))


def _linked(file: Any, name: str) -> Any:
    """Return what lies under a name to which a link in the file leads; None if nothing does."""
    try:
        return file.get(name)
    except (OSError, KeyError, ValueError):
        return None


def _check_sources(path: str, name: str, dataset: Any) -> None:
    """Refuse a dataset some of whose parts are in missing files: HDF5 reads those as zeros.

    Raises
    ------
    DamagedHeaderError
        If it is virtual, and its parts are not there.
    UnsupportedFormatError
        If its voxels are raw in another file, which HDF5 looks for in the working directory.
    """
    import h5py

    if dataset.external:
        raise UnsupportedFormatError(
            f"{path}:{name} has its voxels in another file, {dataset.external[0][0]}, as raw bytes; convert that "
            f"(--shape, --dtype), or save the dataset as one file"
        )
    sources = dataset.virtual_sources() if dataset.is_virtual else ()
    for other, inner in sorted({(source.file_name, source.dset_name) for source in sources}):
        place = path if other == "." else os.path.join(os.path.dirname(path), other)
        try:
            with h5py.File(place, "r", locking=False) as file:
                is_there = isinstance(file.get(inner), h5py.Dataset)
        except (OSError, RuntimeError, KeyError):
            is_there = False
        if not is_there:
            raise DamagedHeaderError(
                f"{path}:{name} is virtual, and of its parts {place}:{inner} is not there; its voxels would be "
                f"zeros"
            )


def _axes(dataset: Any) -> str | None:
    """Return the axes that a dataset names, by its dimension scales or attributes; None where it does not."""
    names: Sequence[Any] = [dimension.label for dimension in dataset.dims]
    if not all(names):
        names = next((_listed(dataset.attrs[key]) for key in _NAMES if key in dataset.attrs), [])
    if not names and "axistags" in dataset.attrs:  # vigra, ilastik
        try:
            names = [axis["key"] for axis in json.loads(_text(dataset.attrs["axistags"]))["axes"]]
        except (ValueError, KeyError, TypeError):
            names = []
    letters = "".join(_text(name).lower()[:1] for name in names)
    known = (
        len(letters) == len(dataset.shape)
        and not set(letters) - set("tczyx")
        and len(set(letters)) == len(letters)
    )
    return letters if known else None


def _listed(value: Any) -> Sequence[Any]:
    """Return names as a sequence: some programs write ``"zyx"``."""
    return list(value) if isinstance(value, list | tuple | np.ndarray) else list(_text(value))


def _text(value: Any) -> str:
    """Return a text that may be bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _placed(dataset: Any, axes: str | None) -> tuple[VoxelSize | None, tuple[int, int, int] | None]:
    """Return voxel size and corner, as attributes say that are in use.

    ``element_size_um`` (ilastik, napari), and ``resolution`` with ``offset`` and ``units`` (funlib, daisy: nm).
    """
    attributes = dataset.attrs
    unit: str | None = "micrometer"
    numbers = attributes.get("element_size_um")
    if numbers is None:
        numbers, unit = attributes.get("resolution"), "nanometer"
        units = attributes.get("units")
        if units is not None:
            named = {unit_named(_text(each)) for each in np.atleast_1d(units)}
            unit = named.pop() if len(named) == 1 else None
    space = [axis for axis in axes or "" if axis in "zyx"]
    values = [float(each) for each in np.atleast_1d(numbers)] if numbers is not None else []
    if unit is None or len(values) != 3 or len(space) != 3 or not all(0 < value < 1e30 for value in values):
        return None, None
    sides = dict(zip(space, values, strict=True))
    size = VoxelSize((sides["x"], sides["y"], sides["z"]), unit)
    offset = attributes.get("offset")
    if offset is None or len(np.atleast_1d(offset)) != 3:
        return size, None
    at = dict(zip(space, map(float, offset), strict=True))
    return size, whole_steps([at[axis] for axis in "xyz"], size.factor)
