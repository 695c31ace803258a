"""Which image becomes part of which layer: by its file, its folder, or a function of its path."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import TypeAlias

from wkdask.errors import ImageStackError, InvalidValueError, WkdaskWarning
from wkdask.external.images.info import shown

__all__ = ["ConversionLayerMapping", "LayerMapping", "layers_of"]


class ConversionLayerMapping(Enum):
    """How `Dataset.from_images` makes layers of files.

    A layer of a file has the file's name, folders in front with ``_`` in between; a layer of a folder that of the
    folder.
    """

    INSPECT_SINGLE_FILE = "inspect_single_file"
    """If the first file holds several sections a layer per file, else one per folder, named after it alone."""
    INSPECT_EVERY_FILE = "inspect_every_file"
    """A layer for each file of several sections, and one per folder for the others."""
    ENFORCE_LAYER_PER_FILE = "enforce_layer_per_file"
    """A layer per file."""
    ENFORCE_SINGLE_LAYER = "enforce_single_layer"
    """One layer."""
    ENFORCE_LAYER_PER_FOLDER = "enforce_layer_per_folder"
    """A layer for each folder that holds images."""
    ENFORCE_LAYER_PER_TOPLEVEL_FOLDER = "enforce_layer_per_toplevel_folder"
    """A layer for each folder at the top, with all below it."""


_OTHERS = re.compile(r"[^A-Za-z0-9_$@.-]")
"""What the name of a layer cannot have."""

LayerMapping: TypeAlias = ConversionLayerMapping | str | Callable[[Path], str]
"""A strategy, its value, or a function of an image's path below the input folder: the name of its layer."""


def layers_of(
    root: str, paths: Sequence[str], mapping: LayerMapping, is_volume: Callable[[str], bool]
) -> dict[str, list[str]]:
    """Sort images by their layers.

    Parameters
    ----------
    root
        The folder that was given, or that of the file.
    paths
        The images, absolute.
    mapping
        How.
    is_volume
        A function that says whether a file holds several sections.

    Returns
    -------
    dict
        The images of each layer, in the order that they were given in.

    Raises
    ------
    InvalidValueError
        If the mapping is no strategy, or a function that returns no text.
    ImageStackError
        If two files would become one layer that is to hold one, or two names one name.
    """
    if isinstance(mapping, str):
        mapping = _strategy(mapping)
    if not isinstance(mapping, ConversionLayerMapping) and not callable(mapping):
        raise InvalidValueError(
            f"map_filepath_to_layer_name is a ConversionLayerMapping or a function, got {mapping!r}"
        )
    kind = ConversionLayerMapping
    by_file = mapping is kind.ENFORCE_LAYER_PER_FILE
    if mapping is kind.INSPECT_SINGLE_FILE:
        by_file = is_volume(paths[0])
    found: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for path in paths:
        alone = by_file or (mapping is kind.INSPECT_EVERY_FILE and is_volume(path))
        text = _name(root, path, mapping, alone=alone)
        name = given.get(text) or _fitting(text, path)
        if (alone and name in found) or (text not in given and name in found):
            raise ImageStackError(
                f"{shown(path)}: would be the layer {name!r}, as {shown(found[name][0])}; give a function of the "
                "path as map_filepath_to_layer_name"
            )
        given[text] = name
        found.setdefault(name, []).append(path)
    return found


def _fitting(text: str, path: str) -> str:
    """Return a name of a layer: what layers' names cannot have is left out, as webknossos 4 does it."""
    name = _OTHERS.sub("", text).lstrip(".")
    if not name:
        raise InvalidValueError(
            f"{shown(path)}: {text!r} has nothing of which a layer's name can be made; give a function of the path "
            "as map_filepath_to_layer_name"
        )
    if name != text.replace("/", ""):
        warnings.warn(
            f"{shown(path)}: the name {text!r} becomes {name!r}: a layer's name has letters, digits and "
            "_ $ @ - . only",
            WkdaskWarning,
            stacklevel=5,
        )
    return name


def _strategy(text: str) -> ConversionLayerMapping:
    """Return a strategy by its value."""
    try:
        return ConversionLayerMapping(text)
    except ValueError:
        values = ", ".join(each.value for each in ConversionLayerMapping)
        raise InvalidValueError(f"map_filepath_to_layer_name={text!r}; expected one of {values}") from None


def _name(
    root: str, path: str, mapping: ConversionLayerMapping | Callable[[Path], str], *, alone: bool
) -> str:
    """Return the name of an image's layer."""
    below = Path(os.path.relpath(path, root))
    if not isinstance(mapping, ConversionLayerMapping):
        name = mapping(below)
        if not isinstance(name, str) or not name:
            raise InvalidValueError(
                f"map_filepath_to_layer_name returned {name!r} for {below}; expected a text"
            )
        return name
    top, folders = os.path.basename(root), below.parent.parts
    if alone:  # of the others the / is left out
        return ("_" if mapping is ConversionLayerMapping.ENFORCE_LAYER_PER_FILE else "/").join(below.parts)
    if mapping is ConversionLayerMapping.ENFORCE_SINGLE_LAYER or not folders:
        return top
    if mapping is ConversionLayerMapping.INSPECT_SINGLE_FILE:
        return folders[-1]
    if mapping is ConversionLayerMapping.ENFORCE_LAYER_PER_TOPLEVEL_FOLDER:
        return folders[0]
    return "_".join(folders)
