"""What every kernel needs to know about a block: is it one of ours, and how does it lie in memory.

Kernels do not get 4-D arrays but the flat memory under them and the strides as numbers: one signature per
data type, whatever the layout, and LLVM knows that neighbours in the flat array are neighbours in memory.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from wkdask import settings
from wkdask.compiling import compiling
from wkdask.errors import DTypeError, InvalidValueError, LockTimeoutError
from wkdask.fsio import lock

Block = NDArray[Any]
P = ParamSpec("P")
R = TypeVar("R")

DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64")


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile in nopython mode, without the GIL, and keep the machine code on disk.

    The code goes to ``NUMBA_CACHE_DIR``, else beside the module, else (read-only installation) to the user's
    cache folder: numba tries them in this order by itself. Where none of them can be written (a container without
    a home) it goes to a private folder among the host's temporary files; and where not even that is possible,
    each process compiles for itself. ``NUMBA_DISABLE_JIT`` is for the functions of users, which they want to look
    into: as Python these kernels would wrap their integers in another way, or run for hours.

    Invariant: a kernel calls only helpers of its own module, because numba takes a cached kernel for stale
    only when the file of that kernel changes.
    """
    disabled, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, 0
    try:
        return _compiled(function)
    finally:
        numba.config.DISABLE_JIT = disabled


def _compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Return the dispatcher of a function, with a cache where one can be."""
    try:
        return cast("Callable[P, R]", numba.njit(nogil=True, cache=True)(function))
    except (OSError, RuntimeError):
        pass
    before = numba.config.CACHE_DIR
    try:
        numba.config.CACHE_DIR = _own_folder(f"{tempfile.gettempdir()}/wkdask-kernels-{os.getuid()}")
        return cast("Callable[P, R]", numba.njit(nogil=True, cache=True)(function))
    except (OSError, RuntimeError):
        return cast("Callable[P, R]", numba.njit(nogil=True)(function))
    finally:
        numba.config.CACHE_DIR = before


def _own_folder(path: str) -> str:
    """Return a folder that only this user can write to: what lies there will be executed."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o022:
        raise PermissionError(f"{path} is not a folder of this user alone")
    return path


def call(kernel: Callable[..., R], *arguments: Any, instead: Callable[[], R] | None = None) -> R:
    """Call a kernel; of many processes that need it for the first time one compiles, the others load its code.

    Compiling takes seconds, which a few blocks are not worth: until numpy has taken as long as the setting
    ``wkdask.compile-after`` says, and while another compiles, it does the work, if it can.

    Parameters
    ----------
    kernel
        What :func:`jit` returned.
    arguments
        Its arguments: the first is an array, whose data type says which of the kernel's versions it is, and so do
        those that are None.
    instead
        Does the same by numpy.
    """
    version = (kernel, arguments[0].dtype, tuple(argument is None for argument in arguments))
    if version in _ready:
        return kernel(*arguments)
    path = _lock_path(*version)
    # A version that has a lock file was compiled before: most likely it is loaded from the disk.
    is_kept = path is not None and os.path.exists(path)
    if instead is not None and not is_kept and _spent.get(version, 0.0) < settings.get("compile-after"):
        return _timed(version, instead)
    delay = _LOAD_SECONDS if is_kept else None
    with (
        compiling(f"kernels for {arguments[0].dtype}", delay),
        _alone(path, _COMPILE_SECONDS if instead is None else 0.0) as is_alone,
    ):
        if instead is not None and not is_alone:
            return instead()
        result = kernel(*arguments)
    _ready.add(version)
    return result


Version = tuple[Any, np.dtype[Any], tuple[bool, ...]]
"""A kernel, its data type, and which arguments are None."""
_ready: set[Version] = set()
"""Versions for which this process has machine code."""
_spent: dict[Version, float] = {}
"""Seconds of processor time that numpy took in a version's place, in this process."""
_COMPILE_SECONDS = 120.0
"""However slow another process is with a kernel, after this time it is compiled here too."""
_LOAD_SECONDS = 6.0
"""Longer than this no kernel is loaded from the disk."""


def _timed(version: Version, instead: Callable[[], R]) -> R:
    """Let numpy work, and add up how long; of threads that end at once one may be left out, which does no harm."""
    start = time.thread_time()
    try:
        return instead()
    finally:
        _spent[version] = _spent.get(version, 0.0) + time.thread_time() - start


def _lock_path(kernel: Any, dtype: np.dtype[Any], absent: tuple[bool, ...]) -> str | None:
    """Return the lock file of a kernel's version, beside its machine code; None where that is not kept."""
    folder = kernel.stats.cache_path
    way = f"-{sum(1 << place for place, is_none in enumerate(absent) if is_none)}" if any(absent) else ""
    return (
        None if folder is None else f"{folder}/{kernel.__module__}.{kernel.__name__}-{dtype.name}{way}.lock"
    )


@contextlib.contextmanager
def _alone(path: str | None, seconds: float) -> Iterator[bool]:
    """Keep other processes from compiling a kernel meanwhile, where its code is kept and locks work.

    Yields False if another still compiles it after so many seconds.
    """
    with contextlib.ExitStack() as stack:
        is_alone = True
        if path is not None:
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                stack.enter_context(lock(path, seconds))
            except LockTimeoutError:
                is_alone = False
            except OSError:  # a read-only cache, a file system without locks
                pass
        yield is_alone


def checked(block: Block) -> Block:
    """Refuse what no kernel takes; bring unaligned memory into order."""
    if block.ndim != 4:
        raise InvalidValueError(
            f"Expected an array (c, x, y, z), got {block.ndim} axes of shape {block.shape}."
        )
    if block.dtype.name not in DTYPES or not block.dtype.isnative:
        raise DTypeError(f"Expected one of {', '.join(DTYPES)} in native byte order, got {block.dtype!r}.")
    return block if block.flags.aligned else np.array(block, order="F")


def as_bits(block: Block) -> Block:
    """View the voxels as unsigned integers of their size, for kernels that only move or compare them."""
    return block.view(f"u{block.itemsize}")


def flat(block: Block, *, writeable: bool = False) -> Block:
    """View the memory from the first to the last voxel; the strides must not be negative.

    Inputs are always read-only views: numba compiles another signature for a read-only array, and so there
    is only this one.
    """
    if block.flags.forc:  # the usual case, in a tenth of the time
        memory = block.reshape(-1, order="F" if block.flags.f_contiguous else "C")
        memory.flags.writeable = writeable
        return memory
    last = sum((n - 1) * stride for n, stride in zip(block.shape, block.strides, strict=True))
    shape = (last // block.itemsize + 1,)
    return np.lib.stride_tricks.as_strided(block, shape, (block.itemsize,), writeable=writeable)


def numbers(values: Sequence[int]) -> tuple[Any, ...]:
    """Make the tuple of uint64 that kernels take.

    Indices in kernels are unsigned throughout: numba would otherwise test each for a negative one, which
    keeps LLVM from vectorising (ten times slower).
    """
    return tuple(np.uint64(value) for value in values)


def steps(block: Block) -> list[int]:
    """Strides in voxels; 0 along axes of one voxel, whose stride numpy leaves undefined."""
    strides = zip(block.shape, block.strides, strict=True)
    return [0 if n == 1 else stride // block.itemsize for n, stride in strides]


def has_voxel_rows(block: Block) -> bool:
    """Say whether channels, then x, are contiguous while y and z may have any positive stride."""
    c, x, y, z = steps(block)
    nc, nx, ny, nz = block.shape
    along_x = (nc == 1 or c == 1) and (nx == 1 or x == nc)
    return along_x and (ny == 1 or y > 0) and (nz == 1 or z > 0)


def triple(name: str, values: Sequence[int], smallest: int) -> tuple[int, int, int]:
    """Check three integers of at least ``smallest``."""
    if len(values) != 3 or any(int(value) != value or value < smallest for value in values):
        raise InvalidValueError(
            f"{name}={tuple(values)!r}: expected three integers (x, y, z), each {smallest} or more."
        )
    return int(values[0]), int(values[1]), int(values[2])


def check_out(out: Block, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse an ``out`` array that does not fit."""
    if out.shape != shape or out.dtype != dtype:
        raise InvalidValueError(f"out has shape {out.shape} of {out.dtype}, expected {shape} of {dtype}.")
