"""Where magnifications are: their folders, links to them, what lies outside of a dataset."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import reduce

from wkdask.box_view import BoxView
from wkdask.errors import (
    AlreadyExistsError,
    DamagedHeaderError,
    DTypeError,
    InvalidValueError,
    OutsideError,
    UnsupportedFormatError,
    WkdaskError,
)
from wkdask.fsio import checked_path, lock
from wkdask.geometry import EMPTY_BOX, BoundingBox, Mag, MagLike
from wkdask.job import MagPlace
from wkdask.properties import PROPERTIES_FILE, LayerRecord, MagRecord, dtype_of
from wkdask.properties.handle import Properties
from wkdask.storage.formats import found_format, metadata_names, open_mag
from wkdask.storage.protocol import OUTSIDE, PRIVATE, StoredMag

__all__ = [
    "HOW_TO_WRITE",
    "channels_by_headers",
    "check_agreement",
    "cubes_box",
    "foreign_mag",
    "is_address",
    "is_own",
    "link_folder",
    "listed_folders",
    "mag_folder",
    "mag_place",
    "outside",
    "refuse_outside",
]


HOW_TO_WRITE = (
    "opened with writable=True it may be written to, of which that dataset's box and ids do not hear"
)
"""What a user may do about it."""


def mag_folder(dataset_path: str, layer_name: str, record: MagRecord) -> str:
    """Return a mag's folder: as the properties say, or by its short name, or by its long one.

    Raises
    ------
    UnsupportedFormatError
        If it is at a URL.
    """
    if record.path is not None:
        if is_address(record):
            raise UnsupportedFormatError(
                f"layer {layer_name!r} mag {record.mag} is at {record.path}; this version reads local files"
            )
        folder = os.path.normpath(os.path.join(dataset_path, record.path))
        if os.path.basename(folder) == record.mag.to_layer_name():
            return _long_if_renamed(os.path.dirname(folder), record.mag)
        return folder
    return _long_if_renamed(os.path.join(dataset_path, layer_name), record.mag)


def _long_if_renamed(layer_folder: str, mag: Mag) -> str:
    """Return a mag's folder of the short name, or that of the long one if there is only that."""
    short = os.path.join(layer_folder, mag.to_layer_name())
    long = os.path.join(layer_folder, mag.to_long_layer_name())
    return long if os.path.isdir(long) and not os.path.isdir(short) else short


def outside(dataset_path: str, folder: str) -> str | None:
    """Return why a mag in this folder is read-only; None where it is in the dataset."""
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
    if why is not None and properties.may_write(store.path):
        policy, why = "write", None
    elif why is not None:
        why = f"{why}; {HOW_TO_WRITE}"
    if properties.read_only:
        why = why or "the dataset was opened with read_only=True"
    return MagPlace(properties.folder, layer_name, mag, store.reaching(policy), why)


def _forbidden(layer_name: str, mag: Mag, why: str) -> OutsideError:
    """Return the error that a mag is not where it must be."""
    return OutsideError(f'layer {layer_name!r} mag {mag}: {why}; outside="refuse" forbids that')


def is_address(record: MagRecord) -> bool:
    """Tell whether a mag is at a URL."""
    return "://" in (record.path or "")


def is_own(properties: Properties, layer_name: str, folder: str) -> bool:
    """Tell whether a folder is one of a layer's own, and no mag that is still listed lies there."""
    dataset, target = properties.folder, os.path.realpath(folder)
    if os.path.dirname(target) != os.path.join(os.path.realpath(dataset), layer_name):
        return False
    return target not in listed_folders(properties)


def listed_folders(properties: Properties) -> set[str]:
    """Return the real paths of the folders of all mags that a dataset lists."""
    return {
        os.path.realpath(mag_folder(properties.folder, layer.name, mag))
        for layer in properties.record.layers
        for mag in layer.mags
        if not is_address(mag)
    }


@contextlib.contextmanager
def mags_lock(dataset_path: str) -> Iterator[None]:
    """Hold the lock of a dataset under which folders of mags are made, until the properties list them."""
    folder = os.path.join(dataset_path, PRIVATE, "locks")
    os.makedirs(folder, exist_ok=True)
    with lock(os.path.join(folder, "mags.lock")):
        yield


def refuse_foreign_files(folder: str) -> None:
    """Refuse a folder that is to become a mag and holds more than the header of one that was never listed.

    Raises
    ------
    AlreadyExistsError
        If it holds anything else; nobody but the user knows what that is.
    """
    if os.path.isdir(folder) and set(os.listdir(folder)) - {*metadata_names(), PRIVATE}:
        raise AlreadyExistsError(
            f"{folder} holds files, but the properties do not list it; remove it, move it away, or list it with "
            f"add_mag_for_existing_files"
        )


def link_folder(target: str, link: str, make_relative: bool) -> None:
    """Make a link to a folder.

    Raises
    ------
    AlreadyExistsError
        If something has that name.
    """
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

    A folder whose name is no mag's is the mag `named`.
    """
    if isinstance(mag, BoxView):
        return (
            mag.mag,
            mag.place.store,
            Properties(mag.place.dataset_path).layer(mag.place.layer).bounding_box,
        )
    folder = checked_path(mag)
    data_format = found_format(folder)
    try:
        which = Mag(os.path.basename(folder))
    except InvalidValueError:
        if named is None:
            raise
        which = Mag(named)
    properties, name = os.path.split(os.path.dirname(folder))
    if not os.path.isfile(os.path.join(properties, PROPERTIES_FILE)):
        return which, open_mag(folder, data_format), None
    layer = Properties(properties).layer(name)
    entry = next((record.raw for record in layer.mags if record.mag == which), None)
    return which, open_mag(folder, data_format, entry), layer.bounding_box


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


def channels_by_headers(dataset_path: str, layer: LayerRecord) -> int:
    """Return the channels of a layer whose properties do not say: those of the first mag that agrees with them.

    What is wrong with one mag is told when that mag is used; the others do not need it.

    Raises
    ------
    DamagedHeaderError
        If no mag has metadata that do; says what is wrong with the first.
    """
    reasons = []
    for mag in layer.mags:
        try:
            store = open_mag(mag_folder(dataset_path, layer.name, mag), layer.data_format, mag.raw)
        except (WkdaskError, OSError) as error:
            reasons.append(str(error))
            continue
        with contextlib.suppress(DTypeError):  # its channels do not divide the class
            if dtype_of(layer.element_class, store.spec.num_channels) == store.spec.dtype:
                return store.spec.num_channels
        reasons.append(f"{store.metadata_path} says {store.spec}")
    raise DamagedHeaderError(
        f"layer {layer.name!r}: the properties give no numChannels for the element class "
        f"{layer.element_class!r}, and no mag has metadata that do: "
        f"{reasons[0] if reasons else 'there are no mags'}"
    )


def cubes_box(store: StoredMag) -> BoundingBox:
    """Return the box around the cubes that exist, in voxels of the mag."""
    return reduce(BoundingBox.extended_by, map(store.spec.grid.cube_box, store.cubes_on_disk()), EMPTY_BOX)
