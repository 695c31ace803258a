"""Which format a path has, by its name or by what is in the folder; and what opens it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

from wkdask.external.arrays.found import Asked, Found
from wkdask.external.arrays.hdf5 import hdf5_found
from wkdask.external.arrays.knossos import is_knossos, knossos_found
from wkdask.external.arrays.mrc import mrc_found
from wkdask.external.arrays.nifti import nifti_found
from wkdask.external.arrays.nrrd import nrrd_found
from wkdask.external.arrays.plain import npy_found, raw_found
from wkdask.external.arrays.tensors import n5_found, precomputed_found

__all__ = ["kind_of", "open_found", "split_inner"]

_Opener: TypeAlias = Callable[[str, str, Asked], Found]

_SUFFIXES: dict[str, str] = {
    ".mrc": "mrc", ".map": "mrc", ".rec": "mrc", ".st": "mrc", ".ali": "mrc", ".mrcs": "mrc",
    ".mrc.gz": "mrc", ".mrc.bz2": "mrc", ".rec.gz": "mrc",
    ".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5", ".he5": "hdf5",
    ".nrrd": "nrrd", ".nhdr": "nrrd",
    ".nii": "nifti", ".nii.gz": "nifti", ".hdr": "nifti", ".img": "nifti",
    ".npy": "npy", ".npy.gz": "npy",
    ".raw": "raw", ".bin": "raw", ".dat": "raw", ".vol": "raw",
}  # fmt: skip
_OPENERS: dict[str, _Opener] = {
    "mrc": mrc_found, "hdf5": hdf5_found, "nrrd": nrrd_found, "nifti": nifti_found, "npy": npy_found,
    "raw": raw_found, "n5": n5_found, "precomputed": precomputed_found, "knossos": knossos_found,
}  # fmt: skip


def split_inner(path: str) -> tuple[str, str]:
    """Return the file or folder, and what is named in it after a colon: ``file.h5:/raw``."""
    if os.path.lexists(path):
        return path, ""
    outer, colon, inner = path.rpartition(":")
    if colon and outer and os.path.lexists(outer):
        return outer, inner
    return path, ""


def kind_of(path: str, *, is_raw: bool = False) -> str | None:
    """Return the name of the format of a path; None where it is none of those that are read here.

    Parameters
    ----------
    path
        A file or folder, perhaps with a colon and what is named in it.
    is_raw
        Whether a user says what raw voxels are: then a file of any name is taken for them.
    """
    outer, _ = split_inner(path)
    if os.path.isdir(outer):
        if _is_precomputed(outer):
            return "precomputed"
        if is_knossos(outer):
            return "knossos"
        return "n5" if _is_n5(outer) else None
    name = os.path.basename(outer).lower()
    found = [kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)]
    if is_raw and (not found or "raw" in found):
        return "raw"
    return found[0] if found else None


def _is_precomputed(path: str) -> bool:
    """Return whether a folder has the ``info`` of a neuroglancer volume."""
    if not os.path.isfile(f"{path}/info"):
        return False
    with open(f"{path}/info", "rb") as file:
        return b'"scales"' in file.read(1 << 20)


def _is_n5(path: str) -> bool:
    """Return whether a folder is N5, or lies in a folder that is called so."""
    named = path.rstrip("/").lower().endswith(".n5") or ".n5/" in path.lower()
    return named or os.path.isfile(f"{path}/attributes.json")


def open_found(path: str, asked: Asked, kind: str) -> Found:
    """Read the metadata of a file; no voxel is read.

    Parameters
    ----------
    path
        As for `kind_of`.
    asked
        What the file does not say.
    kind
        What `kind_of` returned.

    Raises
    ------
    WkdaskError
        If it cannot be read; names the file.
    """
    outer, inner = split_inner(path)
    return _OPENERS[kind](os.path.realpath(outer), inner, asked)
