"""How a dataset is made in a folder."""

from __future__ import annotations

import os

from wkdask.errors import AlreadyExistsError
from wkdask.fsio import checked_path
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.locations import is_dataset
from wkdask.properties import create

__all__ = ["make_dataset"]


def make_dataset(path: str, size: VoxelSize, name: str | None, exist_ok: bool) -> None:
    """Make a dataset without layers; leave one that may exist as it is.

    Parameters
    ----------
    path
        Its folder, missing or empty.
    size
        The size of a voxel of mag 1.
    name
        Its name; the folder's by default.
    exist_ok
        Whether there may be a dataset already.

    Raises
    ------
    AlreadyExistsError
        If the folder holds something.
    ReadOnlyError
        If it is a URL.
    """
    if exist_ok and is_dataset(path):
        return
    checked_path(path)
    if os.path.exists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise AlreadyExistsError(f"{path} exists and is not an empty folder")
    create(path, name or os.path.basename(path), size)
