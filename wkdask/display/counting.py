"""How many cubes a mag has on the disk, and what they take: within a moment, or all of them in threads."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

from wkdask.geometry.voxel_size import format_bytes
from wkdask.storage.formats import is_listed, listed_sizes
from wkdask.storage.protocol import StoredMag

__all__ = ["Count", "count_all", "count_within"]

_BATCH = 256
"""Cubes that a thread looks at in one go."""
_THREADS = 16
"""What takes time is a share over the network that answers one question after the other."""
_LISTINGS = 4
"""Mags that are listed at once."""
_INTERVAL = 0.25
"""Seconds from one word on the progress to the next."""


@dataclass(slots=True)
class Count:
    """What was found of a mag so far."""

    cubes: int = 0
    """Cubes that exist."""
    nbytes: int = 0
    """Bytes that they take on the disk; holes take none."""
    complete: bool = False
    """Whether these are all."""
    error: Exception | None = None
    """What ended the counting, if anything did."""

    def texts(self) -> tuple[str, str]:
        """Return how many cubes there are, and the bytes that they take, in words.

        Raises
        ------
        Exception
            What ended the counting.
        """
        if self.error is not None:
            raise self.error
        if self.complete:
            return ("1 cube" if self.cubes == 1 else f"{self.cubes} cubes", format_bytes(self.nbytes))
        if not self.cubes:
            return ("? cubes", "?")
        number = f"{self.cubes:,}".replace(",", " ")
        cubes = "cube" if self.cubes == 1 else "cubes"
        return (f"at least {number} {cubes}", f"at least {format_bytes(self.nbytes)}")


def count_within(stores: Sequence[StoredMag], seconds: float, most: int | None = None) -> list[Count]:
    """Count the cubes of some mags as far as a time allows.

    A thread counts, and is left to itself when the time is over: a folder of a share that does not answer cannot
    be asked to stop.

    Parameters
    ----------
    stores
        The mags, finest first; they are counted coarsest first, since the coarse ones are over in no time.
    seconds
        For all of them together.
    most
        Cubes of each mag that are counted; all by default.
    """
    counts = [Count() for _ in stores]
    is_over = threading.Event()
    if seconds <= 0:
        is_over.set()

    def count() -> None:
        for store, found in reversed(list(zip(stores, counts, strict=True))):
            try:
                found.complete = _counted(store, found, is_over, most)
            except Exception as error:
                found.error = error

    thread = threading.Thread(target=count, name="wkdask-count", daemon=True)
    thread.start()
    thread.join(max(seconds, 0))
    is_over.set()
    # The thread may still be at it: what it finds from now on must not change what is shown.
    return [Count(found.cubes, found.nbytes, found.complete, found.error) for found in counts]


def _counted(store: StoredMag, found: Count, is_over: threading.Event, most: int | None) -> bool:
    """Count the cubes of a mag; tell whether all of them were counted."""
    if not is_listed(store):
        return False
    if (sizes := listed_sizes(store)) is not None:
        for nbytes in sizes:
            if is_over.is_set() or found.cubes == most:
                return False
            found.nbytes += nbytes
            found.cubes += 1
        return not is_over.is_set()
    for index in store.cubes_on_disk():
        if is_over.is_set() or found.cubes == most:
            return False
        with contextlib.suppress(FileNotFoundError):  # removed since it was listed
            found.nbytes += os.stat(store.cube_path(index)).st_blocks * 512
            found.cubes += 1
    return not is_over.is_set()


def count_all(
    stores: Sequence[StoredMag], tell: Callable[[int, int], None] = lambda cubes, nbytes: None
) -> list[Count]:
    """Count all cubes of some mags, in threads.

    Parameters
    ----------
    stores
        The mags.
    tell
        Called in this thread, a few times a second, with the cubes and bytes found so far.
    """
    counts = [Count() for _ in stores]
    room = threading.BoundedSemaphore(4 * _THREADS)  # batches that are listed and not looked at yet
    adding, is_over = threading.Lock(), threading.Event()

    def look(store: StoredMag, found: Count, batch: Sequence[object]) -> None:
        cubes = nbytes = 0
        try:
            for index in batch:
                with contextlib.suppress(FileNotFoundError):
                    nbytes += os.stat(store.cube_path(index)).st_blocks * 512  # type: ignore[arg-type]
                    cubes += 1
        except Exception as error:
            found.error = error
        finally:
            room.release()
        with adding:
            found.cubes += cubes
            found.nbytes += nbytes

    def enumerate_cubes(store: StoredMag, found: Count) -> None:
        try:
            if not is_listed(store):
                return
            if (sizes := listed_sizes(store)) is not None:
                for nbytes in sizes:
                    if is_over.is_set():
                        return
                    with adding:
                        found.cubes += 1
                        found.nbytes += nbytes
                found.complete = True
                return
            cubes = iter(store.cubes_on_disk())
            while batch := list(islice(cubes, _BATCH)):
                room.acquire()
                if is_over.is_set():
                    return
                lookers.submit(look, store, found, batch)
            found.complete = True
        except Exception as error:
            found.error = error

    with (
        ThreadPoolExecutor(_THREADS, thread_name_prefix="wkdask-count") as lookers,
        ThreadPoolExecutor(_LISTINGS, thread_name_prefix="wkdask-count") as listers,
    ):
        left = {
            listers.submit(enumerate_cubes, store, found) for store, found in zip(stores, counts, strict=True)
        }
        try:
            while left := wait(left, _INTERVAL).not_done:
                tell(sum(found.cubes for found in counts), sum(found.nbytes for found in counts))
        except BaseException:  # Ctrl-C
            is_over.set()
            lookers.shutdown(cancel_futures=True)
            for _ in range(_LISTINGS):
                with contextlib.suppress(ValueError):
                    room.release()
            raise
    return counts
