"""All files of a Zarr mag looked at: which there are, and whether their sizes and indexes are sound."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence

from wkdask.errors import DamagedCubeError
from wkdask.storage.listing import OWN_NAMES, Listing, Places, Suspect, is_readable, list_files
from wkdask.storage.zarr.layout import AXES, METADATA_NAMES, ZarrLayout
from wkdask.storage.zarr.mag import ZarrMag
from wkdask.storage.zarr.shard import CubeFile

__all__ = ["list_zarr", "scan_zarr"]

_NUMBER = "(0|[1-9][0-9]{0,17})"
_OWN = OWN_NAMES | {*METADATA_NAMES.values(), ".zattrs"}


def list_zarr(mag: ZarrMag) -> Listing:
    """List the folder of a mag."""
    layout = mag.layout

    def place_of(numbers: Sequence[int]) -> Sequence[int]:
        # A channel that is no dimension is channel 0, whose column is that of zeros.
        return [numbers[layout.axes.index(axis)] if axis in layout.axes else 0 for axis in AXES]

    return list_files(mag.path, _levels(layout), _OWN, place_of)


def _levels(layout: ZarrLayout) -> list[re.Pattern[str]]:
    """Return what the names at each depth are like."""
    ndim = len(layout.axes)
    if layout.separator != "/":
        name = re.escape(layout.prefix) + re.escape(layout.separator).join([_NUMBER] * ndim)
        return [re.compile(name, re.ASCII)]
    *above, first = layout.prefix.split("/")
    names = [re.escape(each) for each in above] + [re.escape(first) + _NUMBER] + [_NUMBER] * (ndim - 1)
    return [re.compile(name, re.ASCII) for name in names]


def scan_zarr(mag: ZarrMag, places: Places) -> tuple[list[Suspect], int]:
    """Check the files of cubes as a read does before it believes them.

    Parameters
    ----------
    mag
        The mag.
    places
        Which files.

    Returns
    -------
    list of Suspect
        What is wrong.
    int
        Bytes of the files.
    """
    found: list[Suspect] = []
    nbytes = 0
    for place in places.tolist():
        path = f"{mag.path}/{mag.layout.key(place)}"
        try:
            if mag.layout.sharding is None and (size := _usual_size(path, mag.layout)):
                nbytes += size
                continue
            file = CubeFile.open(path, mag.layout, mag.path)
            if file is None:
                continue  # removed since it was listed
            file.close()
            info = os.stat(path)
            nbytes += info.st_size
            if not is_readable(info.st_mode):
                found.append(("mode", path, f"its mode is {stat.filemode(info.st_mode)}"))
        except PermissionError as error:
            found.append(("mode", path, str(error)))
        except DamagedCubeError as error:
            found.append(("damaged", path, str(error)))
        except OSError as error:
            found.append(("damaged", path, f"it cannot be read: {error.strerror}"))
    return found, nbytes


def _usual_size(path: str, layout: ZarrLayout) -> int:
    """Return the bytes of a file that is one chunk, if it can be opened and has a size that it may have; else 0."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return 0
    try:
        info = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not (stat.S_ISREG(info.st_mode) and is_readable(info.st_mode)):
        return 0
    plain = not any(codec.compresses for codec in layout.codecs)
    wanted = layout.chunk_nbytes + 4 * len(layout.codecs) if plain else info.st_size
    return info.st_size if info.st_size == wanted else 0
