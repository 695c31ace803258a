"""Calls into the wkw library, with buffers of our own.

The Python class of the wkw package allocates what it reads, so that many cubes would have to be copied
together afterwards, and crashes the process when a closed handle is used. Here a handle belongs to one
thread, is closed when that thread has opened many others since, and never leaves this module.

The caller has checked every file and every coordinate: nothing here protects the process.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from wkdask.geometry import BoundingBox

__all__ = ["native_compress", "native_read", "native_write"]

_HANDLES_PER_THREAD = 64
_local = threading.local()


class _Handle:
    """An open folder of the library, closed when it is dropped: by its thread, or with it.

    That may be when the interpreter ends, where a function can no longer be looked up in the library, and
    the library is unloaded as soon as nobody holds it. So a handle holds both.
    """

    __slots__ = ("_close", "_lib", "pointer")

    def __init__(self, root: str) -> None:
        ffi, self._lib = _library()
        lib = self._lib
        self._close = lib.dataset_close
        self.pointer = lib.dataset_open(ffi.new("char[]", root.encode()))
        if self.pointer == ffi.NULL:
            raise OSError(f"the wkw library could not open {root}")

    def __del__(self) -> None:
        if self.pointer:  # false for NULL
            self._close(self.pointer)


def _library() -> tuple[Any, Any]:
    """Return the package's foreign function interface and the loaded library."""
    from wkw.wkw import ffi, libwkw

    return ffi, libwkw


def _handle(root: str, header: bytes) -> Any:
    """Return this thread's handle of a folder that holds a checked ``header.wkw`` of these bytes.

    The handle keeps the header that it was opened with; a folder made anew with another one gets a new handle.
    """
    handles: OrderedDict[tuple[str, bytes], _Handle] | None = getattr(_local, "handles", None)
    if handles is None:
        handles = _local.handles = OrderedDict()
    key = (root, header)
    if key in handles:
        handles.move_to_end(key)
        return handles[key].pointer
    handle = handles[key] = _Handle(root)
    while len(handles) > _HANDLES_PER_THREAD:
        handles.popitem(last=False)
    return handle.pointer


def _corners(box: BoundingBox) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Return both corners as the library wants them."""
    return np.array([*box.topleft, *box.bottomright], dtype=np.uint32)


def native_read(root: str, header: bytes, box: BoundingBox, out: np.ndarray[Any, Any]) -> bool:
    """Fill `out`, Fortran-contiguous ``(c, *box.size)``; voxels of missing cubes are left as they are.

    Returns
    -------
    bool
        False if the library reports an error. Its text is not passed on: it is one global for all threads
        and may speak of another thread's cube.
    """
    ffi, lib = _library()
    corners = _corners(box)
    handle = _handle(root, header)
    return bool(
        lib.dataset_read(
            handle, ffi.cast("uint32_t *", corners.ctypes.data), ffi.cast("void *", out.ctypes.data)
        )
        == 0
    )


def native_write(root: str, header: bytes, box: BoundingBox, block: np.ndarray[Any, Any]) -> bool:
    """Write `block`, Fortran-contiguous ``(c, *box.size)``; False if the library reports an error."""
    ffi, lib = _library()
    corners = _corners(box)
    handle = _handle(root, header)
    return bool(
        lib.dataset_write(
            handle, ffi.cast("uint32_t *", corners.ctypes.data), ffi.cast("void *", block.ctypes.data), False
        )
        == 0
    )


def native_compress(source: str, target: str) -> bool:
    """Write a plain cube as LZ4HC into a new file, block by block; False if the library reports an error.

    The memory that it takes does not depend on the cube (below 1 MiB for 512³ voxels of uint64); it releases
    the interpreter's lock.
    """
    ffi, lib = _library()
    status = lib.file_compress(ffi.new("char[]", source.encode()), ffi.new("char[]", target.encode()))
    return bool(status == 0)
