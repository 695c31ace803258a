"""NIfTI, read by nibabel: x is the fastest axis, and the header says the size of a voxel and where it begins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wkdask.errors import DamagedHeaderError, UnsupportedFormatError
from wkdask.external.arrays.found import Asked, Found, library, refuse_packed, shown_error, whole_steps
from wkdask.external.arrays.plain import PlainVoxels, plain_part
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.storage.protocol import Voxels

__all__ = ["nifti_found"]

_UNITS = {"meter": "meter", "mm": "millimeter", "micron": "micrometer"}


def nifti_found(path: str, inner: str, asked: Asked) -> Found:
    """Return what a NIfTI file (1 or 2) says.

    Raises
    ------
    DamagedHeaderError
        If it is damaged, or cut off.
    UnsupportedFormatError
        If it is compressed, or holds no numbers.
    """
    del inner, asked
    refuse_packed(path)
    nibabel = library("nibabel", "NIfTI")
    try:
        image = nibabel.load(path)
        header, proxy = image.header, image.dataobj
        shape = tuple(map(int, header.get_data_shape()))
        dtype = header.get_data_dtype()
        data = image.file_map["image"].filename or path
        offset = int(proxy.offset)
        zooms = [float(zoom) for zoom in header.get_zooms()][:3]
        unit = _UNITS.get(header.get_xyzt_units()[0])
        slope, inter = float(proxy.slope), float(proxy.inter)
        affine = image.affine
    except (
        nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError, ValueError, OSError,
        KeyError, AttributeError,
    ) as error:  # fmt: skip
        raise DamagedHeaderError(f"{path} cannot be read as NIfTI: {shown_error(error)}") from error
    refuse_packed(data)
    axes, notes = "xyztc"[: len(shape)], []
    if len(shape) < 2 or len(shape) > 5:
        raise UnsupportedFormatError(f"{path} has the shape {shape}, which is no volume")
    if dtype.fields is not None:  # RGB, RGBA: bytes side by side
        if len(dtype.fields) != 3 or dtype.itemsize != 3:
            raise UnsupportedFormatError(f"{path} holds {dtype}; of colours RGB of 8 bits is read")
        axes, shape, dtype = f"c{axes}", (3, *shape), np.dtype("u1")
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UnsupportedFormatError(f"{path} holds {dtype}, which no layer can hold")
    if (slope, inter) != (1, 0):
        notes.append(f"{path} has the scaling {slope} × value + {inter}, which is not applied to its voxels")
    part = plain_part(PlainVoxels(data, offset, shape, dtype.str, "F"))
    size = None
    if unit is not None and len(zooms) == 3 and all(0 < zoom < float("inf") for zoom in zooms):
        # float32 numbers: 0.00460000010 mm is 4.6 µm
        x, y, z = (float(f"{zoom:.7g}") for zoom in zooms)
        size = VoxelSize((x, y, z), unit)
    corner = None
    if affine is not None and len(zooms) == 3 and int(header["sform_code"]) + int(header["qform_code"]) > 0:
        corner, note = _corner(path, np.asarray(affine), zooms)
        notes += note
    return Found((replace(part, corner=corner),), axes, size, tuple(notes))


def _corner(path: str, affine: Voxels, zooms: list[float]) -> tuple[tuple[int, int, int] | None, list[str]]:
    """Return where the voxels begin, if the affine says so in whole voxels; else a note."""
    if not np.allclose(affine[:3, :3], np.diag(zooms), rtol=1e-4, atol=1e-6 * max(zooms)):
        return None, [f"the affine of {path} turns or mirrors its axes; voxels are taken as they are stored"]
    corner = whole_steps(affine[:3, 3].tolist(), zooms)
    if corner is None:
        at = tuple(float(each) for each in affine[:3, 3])
        return None, [f"the origin {at} of {path} is no whole voxel from 0 on; it is not applied"]
    return corner, []
