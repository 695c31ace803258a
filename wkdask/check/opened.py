"""The mags of a dataset, opened as far as they can be: what the other rules look at."""

from __future__ import annotations

import os
from dataclasses import dataclass

from wkdask.check.findings import Findings
from wkdask.errors import (
    DamagedHeaderError,
    DTypeError,
    PropertiesError,
    UnsupportedFormatError,
    WkdaskError,
)
from wkdask.geometry import BoundingBox, Mag
from wkdask.jobs.mag_folders import is_address, mag_folder
from wkdask.locations import check_agreement, outside, voxel_by_headers
from wkdask.properties import LayerRecord, MagRecord, dtype_of
from wkdask.properties.further_axes import has_further_axes
from wkdask.storage.formats import DATA_FORMATS, format_of, open_mag
from wkdask.storage.listing import is_readable
from wkdask.storage.protocol import StoredMag

__all__ = ["OpenedLayer", "OpenedMag", "open_layer"]


@dataclass(frozen=True, slots=True)
class OpenedMag:
    """A mag that can be opened."""

    layer: LayerRecord
    """Its layer, as the properties file lists it."""
    mag: Mag
    """Which mag."""
    store: StoredMag
    """The mag on disk."""
    box: BoundingBox | None
    """The layer's box, aligned outwards to the mag, in its voxels; None where that is invalid."""
    is_own: bool
    """Whether it lies in the dataset's folder, so that it may be changed."""

    @property
    def label(self) -> str:
        """Layer and mag, for people."""
        return f"layer {self.layer.name!r} mag {self.mag}"


@dataclass(frozen=True, slots=True)
class OpenedLayer:
    """A layer whose entry can be understood."""

    record: LayerRecord
    """As the properties file lists it."""
    box: BoundingBox | None
    """Its box in voxels of mag 1; None where that is invalid."""
    mags: tuple[OpenedMag, ...]
    """Those of its mags that can be opened, finest first."""


def open_layer(dataset: str, layer: LayerRecord, findings: Findings) -> OpenedLayer:
    """Open the mags of a layer; what is wrong with one becomes a finding.

    Parameters
    ----------
    dataset
        The dataset's folder.
    layer
        The layer.
    findings
        Takes in what is wrong.
    """
    box: BoundingBox | None = None
    try:
        box = layer.bounding_box
    except PropertiesError as error:
        findings.add("box-invalid", os.path.join(dataset, layer.name), str(error), layer.name)
    if not layer.mags:
        findings.add("layer-without-mags", os.path.join(dataset, layer.name), "it lists no mag", layer.name)
    mags = []
    for record in sorted(layer.mags, key=lambda each: (each.mag.max_dim, each.mag.to_tuple())):
        opened = _opened(dataset, layer, record, box, findings)
        if opened is not None:
            mags.append(opened)
    return OpenedLayer(layer, box, tuple(mags))


def _opened(
    dataset: str, layer: LayerRecord, record: MagRecord, box: BoundingBox | None, findings: Findings
) -> OpenedMag | None:
    """Open a mag; None where it cannot be, or is not looked at."""

    def note(code: str, path: str, what: str) -> None:
        findings.add(code, path, what, layer.name, record.mag)

    if is_address(record):
        note("mag-unchecked", record.path or "", "it is at an address, not on this machine")
        return None
    folder = mag_folder(dataset, layer.name, record)
    found = format_of(folder)
    if layer.data_format not in DATA_FORMATS and found is not None:
        note("mag-mismatch", folder, f"its dataFormat is {layer.data_format}, the files are those of {found}")
        return None
    if layer.data_format not in DATA_FORMATS:
        note("mag-unchecked", folder, f"it is stored as {layer.data_format}, which is listed only")
        return None
    if (missing := _missing(folder)) is not None:
        note("mag-missing", folder, missing)
        return None
    if not is_readable(os.stat(folder).st_mode):
        note("no-permission", folder, "its owner may not list and enter it")
    if has_further_axes(layer.raw):
        note("mag-unchecked", folder, "it has axes beside c, x, y, z")
        return None
    try:
        store = open_mag(folder, layer.data_format, record.raw)
    except PermissionError as error:
        note("no-permission", folder, str(error))
        return None
    except DamagedHeaderError as error:
        is_hidden = isinstance(error.__cause__, PermissionError)
        note("no-permission" if is_hidden else "mag-damaged", folder, str(error))
        return None
    except (UnsupportedFormatError, DTypeError) as error:
        note("mag-damaged", folder, f"it is stored as wkdask does not read: {error}")
        return None
    except (WkdaskError, OSError) as error:
        note("unreadable", folder, str(error))
        return None
    if not is_readable(os.stat(store.metadata_path).st_mode):
        note("no-permission", store.metadata_path, "its owner may not read it")
    try:
        _check_agreement(dataset, layer, record, store)
    except DamagedHeaderError as error:
        note("mag-mismatch", store.metadata_path, str(error))
        return None
    own_box = None
    if box is not None:
        own_box = box if box.is_empty() else box.aligned_outwards(record.mag.to_vec3_int()).in_mag(record.mag)
    return OpenedMag(layer, record.mag, store, own_box, outside(dataset, folder) is None)


def _check_agreement(dataset: str, layer: LayerRecord, record: MagRecord, store: StoredMag) -> None:
    """Refuse a mag that contradicts the properties of its layer."""
    if layer.element_class is None or layer.num_channels is None:
        dtype, channels = voxel_by_headers(dataset, layer)
        channels = layer.num_channels or channels
        if layer.element_class is not None:
            dtype = str(dtype_of(layer.element_class, channels))
    else:
        dtype, channels = str(dtype_of(layer.element_class, layer.num_channels)), layer.num_channels
    check_agreement(layer.name, record, dtype, channels, store)


def _missing(folder: str) -> str | None:
    """Return why there is no folder; None where there is one."""
    if os.path.isdir(folder):
        return None
    if os.path.islink(folder):
        return f"it is a link that leads nowhere: {os.readlink(folder)}"
    if os.path.lexists(folder):
        return "a file is where the mag's folder belongs"
    above, wanted = folder, ""
    while not os.path.isdir(above):
        if os.path.lexists(above):
            return f"{above} is no folder"
        above, wanted = os.path.split(above)
    try:
        near = [name for name in os.listdir(above) if name.casefold() == wanted.casefold()]
    except OSError as error:
        return f"{above} cannot be listed: {error.strerror}"
    hint = f"; there is {near[0]!r}" if near else ""
    return f"there is no folder {wanted!r} in {above}{hint}"
