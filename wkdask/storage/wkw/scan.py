"""All files of a WKW mag looked at: which there are, and whether headers, sizes and jump tables are sound."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from wkdask.errors import DamagedCubeError
from wkdask.storage.listing import OWN_NAMES, Listing, Places, Suspect, is_readable, list_files
from wkdask.storage.wkw.format import HEADER_SIZE, RAW, WkwHeader, bytes_in, check_cube_file
from wkdask.storage.wkw.lz4 import bound
from wkdask.storage.wkw.mag import HEADER_NAME, WkwMag

if TYPE_CHECKING:
    from wkdask.kernels.scanning import UsualCube

__all__ = ["list_wkw", "scan_wkw"]

_NUMBER = "(0|[1-9][0-9]{0,9})"
_LEVELS = [
    re.compile(f"z{_NUMBER}", re.ASCII),
    re.compile(f"y{_NUMBER}", re.ASCII),
    re.compile(rf"x{_NUMBER}\.wkw", re.ASCII),
]
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def list_wkw(mag: WkwMag) -> Listing:
    """List the folder of a mag."""
    return list_files(
        mag.path, _LEVELS, OWN_NAMES | {HEADER_NAME}, lambda numbers: (0, numbers[2], numbers[1], numbers[0])
    )


def scan_wkw(mag: WkwMag, places: Places) -> tuple[list[Suspect], int]:
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
    from wkdask.kernels.scanning import can_scan, scan_headers

    paths = [f"{mag.path}/z{z}/y{y}/x{x}.wkw" for _, x, y, z in places.tolist()]
    found: list[Suspect] = []

    def look() -> int:
        return _look_closely(mag, paths, found)

    if not can_scan():
        return found, look()
    odd, nbytes = scan_headers(paths, _usual_cube(mag.header), look)
    _look_closely(mag, [paths[n] for n in np.flatnonzero(odd).tolist()], found)
    return found, nbytes


def _usual_cube(header: WkwHeader) -> UsualCube:
    """Return what nearly all cubes of a mag are like."""
    from wkdask.kernels.scanning import UsualCube

    plain = WkwHeader(
        header.block_len, header.file_len, RAW, header.voxel_type, header.bytes_per_voxel, HEADER_SIZE
    )
    return UsualCube(
        header=plain.to_bytes(),
        raw_nbytes=HEADER_SIZE + plain.num_blocks * plain.block_nbytes,
        table_end=HEADER_SIZE + 8 * plain.num_blocks,
        num_blocks=plain.num_blocks,
        worst=bound(plain.block_nbytes),
    )


def _look_closely(mag: WkwMag, paths: Sequence[str], found: list[Suspect]) -> int:
    """Look at files one by one; what is wrong goes into a list. Return their bytes."""
    nbytes = 0
    for path in paths:
        try:
            descriptor = os.open(path, _FLAGS)
        except FileNotFoundError:
            if os.path.islink(path):
                found.append(("damaged", path, "it is a link that leads nowhere"))
            continue  # removed since it was listed
        except OSError as error:
            kind = "mode" if isinstance(error, PermissionError) else "damaged"
            found.append((kind, path, str(error.strerror)))
            continue
        try:
            info = os.fstat(descriptor)
            nbytes += info.st_size
            if not is_readable(info.st_mode):
                found.append(("mode", path, f"its mode is {stat.filemode(info.st_mode)}"))
            if not stat.S_ISREG(info.st_mode):
                found.append(("damaged", path, "it is not a regular file"))
                continue
            _, ends = check_cube_file(path, partial(bytes_in, descriptor), info.st_size, mag.header)
            if ends is not None and int(ends[-1]) < info.st_size:
                found.append(("trailing", path, f"its blocks end at byte {ends[-1]} of {info.st_size}"))
        except DamagedCubeError as error:
            found.append(("damaged", path, str(error)))
        except OSError as error:
            found.append(("damaged", path, f"it cannot be read: {error.strerror}"))
        finally:
            os.close(descriptor)
    return nbytes
