"""The target dataset of a conversion: opened or made; a layer that cannot be added to it is refused."""

from __future__ import annotations

import math
import os

from wkdask.dataset import Dataset
from wkdask.errors import AlreadyExistsError, InvalidValueError
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.properties import PROPERTIES_FILE

__all__ = ["open_target"]


def open_target(path: str, voxel_size: VoxelSize, layer_name: str, *, resume: bool) -> Dataset:
    """Return the dataset, made if there is none; refuse one that the layer cannot be added to.

    Parameters
    ----------
    path
        Its folder.
    voxel_size
        Of the voxels that are to come.
    layer_name
        The layer that is to come.
    resume
        Whether the layer may be there already.

    Raises
    ------
    AlreadyExistsError
        If the layer exists, or its folder.
    InvalidValueError
        If the dataset has another voxel size.
    """
    properties = os.path.join(path, PROPERTIES_FILE)
    if not os.path.lexists(properties):
        try:
            return Dataset.create(path, voxel_size)
        except AlreadyExistsError:
            if not os.path.lexists(properties):  # else another process was faster
                raise
    dataset = Dataset(path)
    is_there = layer_name in dataset.layers
    if is_there and not resume:
        raise AlreadyExistsError(
            f"{path} has a layer {layer_name!r} already; choose another name, or delete it first. If an "
            f"interrupted conversion left it, resume=True (--resume) continues it"
        )
    folder = os.path.join(path, layer_name)
    if not is_there and os.path.lexists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise AlreadyExistsError(
            f"{folder} exists, but the properties list no layer {layer_name!r}; move it away first"
        )
    there, given = dataset.voxel_size.to_nanometer(), voxel_size.to_nanometer()
    if not all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(there, given, strict=True)):
        raise InvalidValueError(
            f"{path} has voxels of {dataset.voxel_size}, got {voxel_size}; all layers of a dataset share one size"
        )
    return dataset
