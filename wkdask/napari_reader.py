"""What napari calls to open a dataset's folder; the manifest is `napari.yaml`. napari is not imported."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import TypeAlias

from wkdask.dataset import Dataset
from wkdask.errors import InvalidValueError, WkdaskError, WkdaskWarning
from wkdask.napari_layers import LayerData, napari_layers
from wkdask.properties import PROPERTIES_FILE

__all__ = ["get_reader", "read_dataset"]

Paths: TypeAlias = str | Sequence[str]


def get_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """Return what reads a path, if it is a dataset's folder or its properties file; else None.

    Parameters
    ----------
    path
        What the user opens; of several, all are datasets.
    """
    paths = [path] if isinstance(path, str) else list(path)
    return read_dataset if paths and all(map(_folder_of, paths)) else None


def _folder_of(path: str) -> str | None:
    """Return the dataset's folder; None if it is none."""
    folder = os.path.dirname(path) if os.path.basename(path) == PROPERTIES_FILE else path
    return folder if os.path.isfile(os.path.join(folder, PROPERTIES_FILE)) else None


def read_dataset(path: Paths) -> list[LayerData]:
    """Return the layers of a dataset as napari takes them: lazy, each with all its mags.

    Parameters
    ----------
    path
        The dataset's folder, or several.

    Raises
    ------
    InvalidValueError
        If no layer can be shown.

    Warns
    -----
    WkdaskWarning
        For a layer that cannot be shown, with the reason.
    """
    found: list[LayerData] = []
    for each in [path] if isinstance(path, str) else path:
        dataset = Dataset(_folder_of(each) or each)
        for layer in dataset.layers.values():
            try:
                found += [
                    (arrays, {**given, "multiscale": True}, kind)
                    for arrays, given, kind in napari_layers(layer)
                ]
            except (WkdaskError, OSError) as error:
                warnings.warn(f"layer {layer.name!r} is not shown: {error}", WkdaskWarning, stacklevel=2)
    if not found:
        raise InvalidValueError(f"{path} has no layer to look at")
    return found
