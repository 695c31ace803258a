"""All files of a WKW mag looked at: which there are, and whether headers, sizes and jump tables are sound."""

from __future__ import annotations

import os
import re
import stat

from wkdask.errors import DamagedCubeError
from wkdask.storage.listing import OWN_NAMES, Listing, Places, Suspect, is_readable, list_files
from wkdask.storage.wkw.format import HEADER_SIZE, RAW, WkwHeader, check_cube_file
from wkdask.storage.wkw.mag import HEADER_NAME, WkwMag

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
    found: list[Suspect] = []
    nbytes = 0
    plain = _PlainCubes(mag.header)
    for _, x, y, z in places.tolist():
        path = f"{mag.path}/z{z}/y{y}/x{x}.wkw"
        try:
            descriptor = os.open(path, _FLAGS)
        except FileNotFoundError:
            if os.path.islink(path):
                found.append(("damaged", path, "it is a link that leads nowhere"))
            continue  # removed since it was listed
        except OSError as error:
            found.append(
                ("mode" if isinstance(error, PermissionError) else "damaged", path, str(error.strerror))
            )
            continue
        try:
            info = os.fstat(descriptor)
            nbytes += info.st_size
            if not is_readable(info.st_mode):
                found.append(("mode", path, f"its mode is {stat.filemode(info.st_mode)}"))
            if not stat.S_ISREG(info.st_mode):
                found.append(("damaged", path, "it is not a regular file"))
            elif not plain.is_sound(descriptor, info.st_size):
                _, ends = check_cube_file(path, descriptor, info.st_size, mag.header)
                if ends is not None and int(ends[-1]) < info.st_size:
                    what = f"its blocks end at byte {ends[-1]} of {info.st_size}"
                    found.append(("trailing", path, what))
        except DamagedCubeError as error:
            found.append(("damaged", path, str(error)))
        except OSError as error:
            found.append(("damaged", path, f"it cannot be read: {error.strerror}"))
        finally:
            os.close(descriptor)
    return found, nbytes


class _PlainCubes:
    """Knows the header and the size that nearly all plain cubes of a mag have.

    Parameters
    ----------
    header
        The mag's.
    """

    def __init__(self, header: WkwHeader) -> None:
        usual = WkwHeader(
            header.block_len, header.file_len, RAW, header.voxel_type, header.bytes_per_voxel, HEADER_SIZE
        )
        self._data = usual.to_bytes()
        self._size = HEADER_SIZE + usual.num_blocks * usual.block_nbytes

    def is_sound(self, descriptor: int, size: int) -> bool:
        """Tell whether a file is a plain cube of the usual header; others are to be looked at closely."""
        return size == self._size and os.pread(descriptor, HEADER_SIZE, 0) == self._data
