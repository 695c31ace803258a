"""C libraries that are part of other packages: their functions made known to machine code, by name.

A codec that Python calls for every chunk costs a third of the time in between, and threads wait for each other. A
kernel calls it for a batch.
"""

from __future__ import annotations

import functools

__all__ = ["link"]


@functools.lru_cache(maxsize=8)
def link(path: str, *names: str) -> bool:
    """Make functions of a library known to machine code.

    Parameters
    ----------
    path
        The library's file: an extension module of another package, which carries it.
    names
        Functions that it shows to others.

    Returns
    -------
    bool
        False if it does not show all of them: a kernel that calls one must not be called then.
    """
    import llvmlite.binding

    try:
        llvmlite.binding.load_library_permanently(path)
    except RuntimeError:
        return False
    return all(llvmlite.binding.address_of_symbol(name) for name in names)
