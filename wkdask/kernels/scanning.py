"""Many small files looked at: opened, their headers and jump tables compared, closed, in machine code.

Python takes twice as long for the calls of a file as the kernel of the operating system does, and one thread at a
time. What is not as it nearly always is, is left to Python, which says why.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from wkdask.kernels.layout import call, jit

__all__ = ["UsualCube", "can_scan", "scan_headers"]

_open: Any = types.ExternalFunction("open", types.intc(types.uintp, types.intc))
_close: Any = types.ExternalFunction("close", types.intc(types.intc))
_pread: Any = types.ExternalFunction("pread", types.intp(types.intc, types.uintp, types.uintp, types.int64))
_statx: Any = types.ExternalFunction(
    "statx", types.intc(types.intc, types.uintp, types.intc, types.uint32, types.uintp)
)
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_STATX_NBYTES = 256
"""Of what statx fills in. On every Linux the mode lies at byte 28 of it, the size at byte 40."""


@dataclass(frozen=True, slots=True)
class UsualCube:
    """What nearly all cubes of a WKW mag are like."""

    header: bytes
    """The first 16 bytes of an uncompressed one."""
    raw_nbytes: int
    """Its size."""
    table_end: int
    """Where the data of a compressed one begin."""
    num_blocks: int
    """Entries of its jump table."""
    worst: int
    """Bytes of a compressed block at most."""


@jit
def _is_sound(descriptor: Any, size: Any, header: Any, given: Any, scratch: Any, table: Any) -> Any:
    """Return whether a file is sound as most are, by the header that was read, its size, and its jump table."""
    for n in range(8):
        if n != 5 and scratch[n] != header[n]:
            return False
    kind, offset = scratch[5], np.int64(scratch.view(np.uint64)[1])
    if kind == 1:
        return offset == 16 and size == given[1]
    if not (kind == 2 or kind == 3) or offset != given[2] or size <= given[2]:
        return False
    nbytes = np.uint64(8 * given[3])
    if _pread(descriptor, table.ctypes.data, nbytes, np.int64(16)) != np.int64(nbytes):
        return False
    before = given[2]
    for n in range(given[3]):
        end = np.int64(table[n])
        if end <= before or end - before > given[4]:
            return False
        before = end
    return before == size


@jit
def _scan(
    paths: Any, starts: Any, header: Any, given: Any, scratch: Any, table: Any, odd: Any
) -> Any:  # fmt: skip
    """Look at files; mark those that are to be looked at closely; return the bytes of all.

    `given` are numbers: flags of open, size of a plain cube, end of the jump table, blocks, most bytes of a block.
    """
    total = np.int64(0)
    name, area = paths.ctypes.data, scratch.ctypes.data
    nothing = name + np.uint64(paths.size - 1)  # an empty name
    mode_of, size_of = scratch.view(np.uint16), scratch.view(np.uint64)
    for k in range(odd.size):
        odd[k] = True
        descriptor: Any = _open(name + np.uint64(starts[k]), np.int32(given[0]))
        if descriptor < 0:
            continue
        if _statx(descriptor, nothing, np.int32(0x1000), np.uint32(0x7FF), area) == 0:
            mode, size = mode_of[28 // 2], np.int64(size_of[40 // 8])
            total += size
            odd[k] = not (
                mode & 0o170000 == 0o100000
                and mode & 0o400
                and _pread(descriptor, area, np.uint64(16), np.int64(0)) == 16
                and _is_sound(descriptor, size, header, given, scratch, table)
            )
        _close(descriptor)
    return total


@functools.cache
def can_scan() -> bool:
    """Return whether this operating system has the calls that are needed."""
    import llvmlite.binding

    return sys.platform == "linux" and bool(llvmlite.binding.address_of_symbol("statx"))


def scan_headers(
    paths: Sequence[str], usual: UsualCube, instead: Callable[[], int]
) -> tuple[npt.NDArray[np.bool_], int]:
    """Look at the files of cubes.

    Parameters
    ----------
    paths
        The files.
    usual
        What they are compared with.
    instead
        Looks at all of them in Python, and returns their bytes; it is called while the kernel is not compiled.

    Returns
    -------
    array of bool
        Which are to be looked at closely; none after `instead`.
    int
        Bytes of the files.
    """
    encoded = [os.fsencode(path) for path in paths]
    starts = np.zeros(len(encoded), np.int64)
    np.cumsum([len(path) + 1 for path in encoded[:-1]], out=starts[1:])
    names = np.frombuffer(b"\0".join([*encoded, b"\0"]), np.uint8)
    given = np.array([_FLAGS, usual.raw_nbytes, usual.table_end, usual.num_blocks, usual.worst], np.int64)
    scratch = np.zeros(_STATX_NBYTES, np.uint8)
    table = np.empty(usual.num_blocks, np.uint64)
    odd = np.zeros(len(encoded), np.bool_)
    header = np.frombuffer(usual.header, np.uint8)
    nbytes = call(_scan, names, starts, header, given, scratch, table, odd, instead=instead)
    return odd, int(nbytes)
