"""The bytes of a cube that a read needs: ranges put together, fetched, and looked up."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from wkdask import settings
from wkdask.errors import DamagedCubeError
from wkdask.objects.reading import Part, read_range
from wkdask.storage.parallel import run_all

__all__ = ["GAP_NBYTES", "WHOLE_NBYTES", "Kept", "Pieces", "joined_ranges"]

T = TypeVar("T")
WHOLE_NBYTES = 32 << 20
"""All of a cube is fetched by one request if its voxels have so many bytes at most."""
GAP_NBYTES = 1 << 20
"""What lies between two ranges is fetched too, rather than asking twice, up to so many bytes."""


def joined_ranges(ranges: Iterable[tuple[int, int]], gap: int = GAP_NBYTES) -> list[tuple[int, int]]:
    """Return ranges of bytes in their order, those that are near each other as one.

    Examples
    --------
    >>> joined_ranges([(50, 60), (0, 10), (12, 20)], gap=5)
    [(0, 20), (50, 60)]
    """
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and start <= joined[-1][1] + gap:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined


@dataclass(slots=True)
class Pieces:
    """Bytes of an object, all of one version of it."""

    url: str
    """The object."""
    size: int
    """Its bytes."""
    starts: list[int] = field(default_factory=list)
    """Where the pieces begin, ascending."""
    data: list[memoryview] = field(default_factory=list)
    """The pieces."""

    @classmethod
    def fetched(cls, url: str, ranges: Iterable[tuple[int, int]], version: Part) -> Pieces:
        """Return ranges of an object, one request for each that stands apart.

        Raises
        ------
        ChangedObjectError
            If the object is not of that version any more.
        """
        joined = joined_ranges(ranges)
        found: dict[int, memoryview] = {}

        def fetch(start: int, stop: int) -> None:
            found[start] = read_range(url, start, stop, version).data

        run_all((partial(fetch, *each) for each in joined), int(settings.get("store-requests")))
        return cls(url, version.size, [start for start, _ in joined], [found[start] for start, _ in joined])

    @classmethod
    def of(cls, url: str, part: Part) -> Pieces:
        """Return what one request has given."""
        return cls(url, part.size, [part.start], [part.data])

    def read(self, start: int, nbytes: int) -> memoryview:
        """Return bytes of one of the pieces; fewer where the object ends.

        Raises
        ------
        DamagedCubeError
            If they were not fetched: the jump table or the index leads elsewhere.
        """
        nbytes = max(0, min(nbytes, self.size - start))
        number = bisect_right(self.starts, start) - 1
        if number >= 0:
            inner = start - self.starts[number]
            found = self.data[number][inner : inner + nbytes]
            if len(found) == nbytes:
                return found
        raise DamagedCubeError(
            f"the cube {self.url} is damaged: its bytes {start} to {start + nbytes} are not there"
        )


class Kept(Generic[T]):
    """What was read of cubes' beginnings, by URL; the least recently used leave first. For many threads.

    Parameters
    ----------
    most_nbytes
        Bytes of what is kept.
    """

    def __init__(self, most_nbytes: int = 64 << 20) -> None:
        self._most = most_nbytes
        self._nbytes = 0
        self._known: OrderedDict[str, tuple[Any, T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, url: str, against: object) -> T | None:
        """Return what is known of a cube, if it was checked against the same layout."""
        with self._lock:
            known = self._known.get(url)
            if known is None or known[0] != against:
                return None
            self._known.move_to_end(url)
            return known[1]

    def put(self, url: str, against: object, found: T, nbytes: int) -> None:
        """Keep what was read of a cube."""
        with self._lock:
            self._drop(url)
            self._known[url] = (against, found, nbytes)
            self._nbytes += nbytes
            while self._nbytes > self._most and len(self._known) > 1:
                _, (_, _, freed) = self._known.popitem(last=False)
                self._nbytes -= freed

    def forget(self, url: str) -> None:
        """Read a cube's beginning anew when it is needed next."""
        with self._lock:
            self._drop(url)

    def _drop(self, url: str) -> None:
        known = self._known.pop(url, None)
        if known is not None:
            self._nbytes -= known[2]
