"""Where magnifications are: their folders, links to them, what lies outside of a dataset."""

from __future__ import annotations

import contextlib
import os
import warnings
from functools import reduce

from wkdask.errors import (
    AlreadyExistsError,
    DamagedHeaderError,
    DTypeError,
    InvalidValueError,
    OutsideError,
    WkdaskError,
    WkdaskWarning,
)
from wkdask.fsio import checked_place
from wkdask.geometry import EMPTY_BOX, BoundingBox, Mag, MagLike
from wkdask.jobs.job import MagPlace
from wkdask.jobs.mag_folders import is_address, listed_folders, mag_folder, refuse_unfinished
from wkdask.objects.urls import is_url
from wkdask.properties import PROPERTIES_FILE, DatasetRecord, LayerRecord, MagRecord, dtype_of, load
from wkdask.properties.handle import Properties
from wkdask.storage.formats import found_format, open_mag
from wkdask.storage.protocol import OUTSIDE, StoredMag
from wkdask.view.box_view import BoxView

__all__ = [
    "HOW_TO_WRITE",
    "check_agreement",
    "cubes_box",
    "foreign_mag",
    "is_dataset",
    "is_own",
    "link_folder",
    "mag_place",
    "outside",
    "refuse_outside",
    "voxel_by_headers",
    "warn_of_layers",
]


HOW_TO_WRITE = (
    "opened with writable=True it may be written to; the box and the largest id in the properties of that dataset "
    "then stay as they are"
)
"""What a user may do about it."""


def outside(dataset_path: str, folder: str) -> str | None:
    """Return why a mag in this folder is read-only; None where it is in the dataset."""
    if is_url(folder):
        inside = folder.startswith(f"{dataset_path}/")
        return None if inside else f"it is at {folder}, outside of the dataset {dataset_path}"
    if is_url(dataset_path):  # the path of a mag there is joined to the URL: nothing leads to a disk
        return f"it is at {folder}, outside of the dataset {dataset_path}"
    dataset, target = os.path.realpath(dataset_path), os.path.realpath(folder)
    if os.path.commonpath([dataset, target]) == dataset:
        return None
    return f"it is linked from {target}, outside of the dataset {dataset}"


def refuse_outside(properties: Properties) -> None:
    """Refuse a dataset that reaches outside of its folder, if it was opened so.

    Raises
    ------
    OutsideError
        If a mag lies elsewhere, by its path or by a link, or at an address.
    InvalidValueError
        If what may happen with such mags is none of the three words that there are.
    """
    if properties.outside not in OUTSIDE:
        words = ", ".join(f'"{word}"' for word in OUTSIDE)
        raise InvalidValueError(f"outside= is one of {words}; got {properties.outside!r}")
    if properties.outside != "refuse":
        return
    for layer in properties.record.layers:
        for mag in layer.mags:
            if is_address(mag):
                why: str | None = f"it is at {mag.path}, outside of the dataset {properties.folder}"
            else:
                why = outside(properties.folder, mag_folder(properties.folder, layer.name, mag))
            if why is not None:
                raise _forbidden(layer.name, mag.mag, why)


def warn_of_layers(record: DatasetRecord) -> None:
    """Warn of layers that cannot be understood, or that lack something which the headers of their mags say."""
    for broken in record.broken:
        warnings.warn(f"a layer cannot be used: {broken.reason}", WkdaskWarning, stacklevel=3)
    for layer in record.layers:
        for note in layer.notes:
            warnings.warn(note, WkdaskWarning, stacklevel=3)


def mag_place(properties: Properties, layer_name: str, mag: Mag, store: StoredMag) -> MagPlace:
    """Return where an opened mag is and what may happen with it, as plain data.

    Raises
    ------
    OutsideError
        If it lies outside of a dataset that was opened with ``outside="refuse"``.
    """
    policy, why = properties.outside, outside(properties.folder, store.path)
    if why is not None and policy == "refuse":
        raise _forbidden(layer_name, mag, why)
    if is_url(store.path):
        why = "it is in an object store, where mags are read only"
    elif why is not None and properties.may_write(store.path):
        policy, why = "write", None
    elif why is not None:
        why = f"{why}; {HOW_TO_WRITE}"
    if properties.read_only:
        why = why or "the dataset was opened with read_only=True"
    return MagPlace(properties.folder, layer_name, mag, store.reaching(policy), why)


def _forbidden(layer_name: str, mag: Mag, why: str) -> OutsideError:
    """Return the error that a mag is not where it must be."""
    return OutsideError(f'layer {layer_name!r} mag {mag}: {why}; outside="refuse" forbids that')


def is_own(properties: Properties, layer_name: str, folder: str) -> bool:
    """Return whether a folder is one of a layer's own, and no mag that is still listed lies there."""
    dataset, target = properties.folder, os.path.realpath(folder)
    if os.path.dirname(target) != os.path.join(os.path.realpath(dataset), layer_name):
        return False
    return target not in listed_folders(properties)


def link_folder(target: str, link: str, make_relative: bool) -> None:
    """Make a link to a folder.

    Raises
    ------
    AlreadyExistsError
        If something has that name.
    InvalidValueError
        If it would lead to a URL.
    """
    if is_url(target):
        raise InvalidValueError(
            f"a link cannot lead to {target}; list it where it is (add_layer_as_ref, add_mag_as_ref), or copy it"
        )
    os.makedirs(os.path.dirname(link), exist_ok=True)
    if make_relative:
        # Between real paths: the file system follows a link from where its folder really is.
        target = os.path.relpath(os.path.realpath(target), os.path.realpath(os.path.dirname(link)))
    try:
        os.symlink(target, link, target_is_directory=True)
    except FileExistsError as error:
        raise AlreadyExistsError(f"{link} exists already") from error


def foreign_mag(
    mag: BoxView | str | os.PathLike[str], named: MagLike | None = None
) -> tuple[Mag, StoredMag, BoundingBox | None]:
    """Return which mag a handle or a folder is, its store, and its layer's box (voxels of mag 1) if known.

    A folder whose name is no mag's is the mag `named`. A mag with further axes says that it has no place for this.
    """
    if not isinstance(mag, str | os.PathLike | bytes):
        place = mag.place
        return mag.mag, place.store, Properties(place.dataset_path).layer(place.layer).bounding_box
    folder = checked_place(mag)
    data_format = found_format(folder)
    try:
        which = Mag(os.path.basename(folder))
    except InvalidValueError:
        if named is None:
            raise
        which = Mag(named)
    properties, name = os.path.split(os.path.dirname(folder))
    if not is_dataset(properties):
        refuse_unfinished(folder)
        return which, open_mag(folder, data_format), None
    layer = Properties(properties).layer(name)
    entry = next((record.raw for record in layer.mags if record.mag == which), None)
    if entry is None:
        refuse_unfinished(folder)
    return which, open_mag(folder, data_format, entry), layer.bounding_box


def is_dataset(folder: str) -> bool:
    """Return whether a folder, or what is at a URL, has properties."""
    if not is_url(folder):
        return os.path.isfile(os.path.join(folder, PROPERTIES_FILE))
    try:
        load(folder)
    except FileNotFoundError:
        return False
    return True


def check_agreement(layer_name: str, record: MagRecord, dtype: str, channels: int, store: StoredMag) -> None:
    """Refuse a mag whose header contradicts the properties of its layer.

    Raises
    ------
    DamagedHeaderError
        If so; names both.
    """
    spec = store.spec
    says: dict[str, tuple[object, object]] = {
        "dtype": (spec.dtype, dtype),
        "channels": (spec.num_channels, channels),
    }
    if record.cube_length is not None:
        says["cubeLength"] = (spec.shard_shape.x, record.cube_length)
    wrong = [f"{what} {a} against {b}" for what, (a, b) in says.items() if a != b]
    if wrong:
        raise DamagedHeaderError(
            f"{store.metadata_path} ({spec}) contradicts the properties of layer {layer_name!r} mag"
            f" {record.mag}: {', '.join(wrong)}"
        )


def voxel_by_headers(dataset_path: str, layer: LayerRecord) -> tuple[str, int]:
    """Return type and channels of a layer whose properties do not say: those of the first mag that agrees.

    What is wrong with one mag is reported when that mag is used; the others do not need it. Where the properties
    say neither type nor channels, all mags that can be opened must be alike.

    Raises
    ------
    DamagedHeaderError
        If no mag has metadata that do, with what is wrong with the first; or if they differ.
    """
    reasons: list[str] = []
    found: dict[tuple[str, int], Mag] = {}
    word = layer.element_class
    for mag in layer.mags:
        try:
            store = open_mag(mag_folder(dataset_path, layer.name, mag), layer.data_format, mag.raw)
        except (WkdaskError, OSError) as error:
            reasons.append(str(error))
            continue
        spec = store.spec
        voxel = (spec.dtype, spec.num_channels)
        if word is None and layer.num_channels in (None, spec.num_channels):
            found.setdefault(voxel, mag.mag)
            continue
        with contextlib.suppress(DTypeError):  # its channels do not divide the class
            if word is not None and dtype_of(word, spec.num_channels) == spec.dtype:
                return voxel
        reasons.append(f"{store.metadata_path} says {spec}")
    if len(found) == 1:
        return next(iter(found))
    if found:
        reasons = [" and ".join(f"mag {mag} holds {n} × {dtype}" for (dtype, n), mag in found.items())]
    lacks = "elementClass" if word is None else f"numChannels for the element class {word!r}"
    raise DamagedHeaderError(
        f"layer {layer.name!r}: the properties give no {lacks}, and no mag has metadata that do: "
        f"{reasons[0] if reasons else 'there are no mags'}"
    )


def cubes_box(store: StoredMag) -> BoundingBox:
    """Return the box around the cubes that exist, in voxels of the mag."""
    return reduce(BoundingBox.extended_by, map(store.spec.grid.cube_box, store.cubes_on_disk()), EMPTY_BOX)
