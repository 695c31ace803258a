"""Requests that read: whole objects, ranges, names; repeated where that may help, with the errors of files.

::

    answer                         what comes of it
    200, 206                       the bytes, with the object's ETag and size
    404                            FileNotFoundError: the only answer that means that there is no object
    401, 403                       PermissionError
    412                            ChangedObjectError: it is another object than before
    429, 5xx, a broken connection  asked again after a pause, up to `store-retries` times; then a StoreError
    fewer bytes, another range     the same
"""

from __future__ import annotations

import contextlib
import errno
import random
import re
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from wkdask import settings
from wkdask.errors import StoreError
from wkdask.objects.stores import forget_store, store_of
from wkdask.objects.urls import Address

__all__ = [
    "ChangedObjectError",
    "Listed",
    "Part",
    "asking_once",
    "list_names",
    "list_objects",
    "object_state",
    "read_end",
    "read_object",
    "read_range",
    "repeated",
]

T = TypeVar("T")
_PAUSES = (0.1, 0.4, 1.6, 6.0)
"""Seconds before a request is repeated, about; before any further one as long as before the last of these."""


_once: ContextVar[bool] = ContextVar("asking once", default=False)


@contextlib.contextmanager
def asking_once() -> Iterator[None]:
    """Repeat no request that fails within this thread, where an answer is worth no waiting: a repr."""
    before = _once.set(True)
    try:
        yield
    finally:
        _once.reset(before)


class ChangedObjectError(Exception):
    """An object is another one than that whose ETag was given; read it anew from its beginning."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of an object."""

    data: memoryview
    """The bytes."""
    start: int
    """Where they begin in the object."""
    size: int
    """Bytes of the whole object."""
    version: str
    """What changes with the object: its ETag, or its size and time where the store gives none."""
    tagged: bool
    """Whether the version is an ETag, which the store compares."""

    def without_data(self) -> Part:
        """Return what says which object it is of, to be kept."""
        return replace(self, data=memoryview(b""), start=0)


@dataclass(frozen=True, slots=True)
class Listed:
    """An object, as a listing has it."""

    name: str
    """Relative to the folder that was listed."""
    size: int
    """Its bytes."""
    version: str
    """As in `Part`."""


def read_object(url: str, most: int | None = None, version: Part | None = None) -> Part:
    """Return a whole object.

    Parameters
    ----------
    url
        Which.
    most
        Bytes that it may have; a larger one is not read.
    version
        A part of it that was read before, of the same version.

    Raises
    ------
    FileNotFoundError, PermissionError, StoreError, ChangedObjectError
        See the module.
    """
    return _read(url, None, most, version)


def read_range(url: str, start: int, stop: int, version: Part | None = None) -> Part:
    """Return the bytes [start, stop) of an object; fewer where it ends before. Otherwise as :func:`read_object`."""
    return _read(url, (start, stop), None, version)


def read_end(url: str, nbytes: int) -> Part:
    """Return the last bytes of an object; all where it has fewer. Otherwise as :func:`read_object`."""
    return _read(url, {"suffix": nbytes}, None, None)


def _read(url: str, wanted: Any, most: int | None, version: Part | None) -> Part:
    """Return what a request gets, checked against what was asked for."""
    import obstore

    address = Address.of(url)
    store = store_of(address)
    options: Any = {} if wanted is None else {"range": wanted}
    if version is not None and version.tagged:
        options["if_match"] = version.version

    def ask() -> Part:
        result = obstore.get(store, address.key, options=options)
        meta = result.meta
        size, tag = int(meta["size"]), meta["e_tag"]
        start, stop = result.range
        found = tag or f"{size} {meta['last_modified'].timestamp()}"
        if version is not None and found != version.version:
            raise ChangedObjectError(url)
        if (start, stop) != _expected(wanted, size):
            raise _Incomplete(f"it sent the bytes {start} to {stop} of {size}, asked for was {wanted}")
        if most is not None and size > most:
            raise StoreError(f"{url} has {size} bytes, more than the {most} that it may have")
        data = memoryview(result.bytes())
        if len(data) != stop - start:
            raise _Incomplete(f"it sent {len(data)} bytes instead of {stop - start}")
        return Part(data, start, size, found, bool(tag))

    return repeated(url, ask)


def _expected(wanted: Any, size: int) -> tuple[int, int]:
    """Return the bytes that an answer must have."""
    if wanted is None:
        return 0, size
    if isinstance(wanted, dict):
        return max(0, size - wanted["suffix"]), size
    return wanted[0], min(wanted[1], size)


def object_state(url: str) -> Listed | None:
    """Return what changes with an object; None if there is none."""
    import obstore

    address = Address.of(url)
    store = store_of(address)
    try:
        meta = repeated(url, lambda: obstore.head(store, address.key))
    except FileNotFoundError:
        return None
    return _listed(meta, address.key, address.key)


def list_objects(url: str) -> Iterator[Listed]:
    """Yield the objects below a folder, in the order of their names.

    Raises
    ------
    PermissionError, StoreError
        If the store does not list them; http never does.
    """
    import obstore

    address = Address.of(url)
    prefix = f"{address.key}/" if address.key else ""
    _refuse_http(url, address)
    stream: Any = None
    offset: str | None = None

    def ask() -> Any:
        nonlocal stream
        if stream is None:  # a listing that broke goes on after the last name
            stream = obstore.list(store_of(address), prefix or None, chunk_size=1000, offset=offset)
        try:
            return next(stream, ())
        except BaseException:
            stream = None
            raise

    while batch := repeated(url, ask):
        for meta in batch:
            yield _listed(meta, meta["path"], prefix)
        offset = batch[-1]["path"]


def list_names(url: str) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the objects in a folder. Raises as :func:`list_objects`."""
    import obstore

    address = Address.of(url)
    prefix = f"{address.key}/" if address.key else ""
    _refuse_http(url, address)
    found = repeated(url, lambda: obstore.list_with_delimiter(store_of(address), prefix or None))
    folders = [each.rstrip("/").rpartition("/")[2] for each in found["common_prefixes"]]
    return sorted(folders), sorted(meta["path"].rpartition("/")[2] for meta in found["objects"])


def _refuse_http(url: str, address: Address) -> None:
    """Refuse to list what a web server holds."""
    if address.scheme in ("http", "https"):
        raise StoreError(f"{url}: a web server does not list its files")


def _listed(meta: Any, path: str, prefix: str) -> Listed:
    """Return an object's description by obstore as ours."""
    version = meta["e_tag"] or f"{meta['size']} {meta['last_modified'].timestamp()}"
    return Listed(path[len(prefix) :], int(meta["size"]), version)


class _Incomplete(Exception):
    """An answer that is not what was asked for."""


def repeated(url: str, ask: Callable[[], T], what: str = "read") -> T:
    """Return what a request gives; repeated where it fails in a way that may pass.

    Parameters
    ----------
    url
        The object, for messages.
    ask
        Makes the request.
    what
        The verb of messages: that the object cannot be "read", "written" or "deleted".

    Raises
    ------
    FileNotFoundError, PermissionError, ChangedObjectError, StoreError
        See the module.
    """
    from obstore import exceptions

    tries, number = 0 if _once.get() else int(settings.get("store-retries")), 0
    while True:
        try:
            return ask()
        except (FileNotFoundError, exceptions.NotFoundError) as error:
            if "NoSuchBucket" in str(error):
                raise StoreError(f"{url}: there is no such bucket") from None
            raise FileNotFoundError(errno.ENOENT, "no such object", url) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError) as error:
            forget_store(Address.of(url))
            raise PermissionError(
                errno.EACCES,
                f"access denied ({_reason(error)}); a bucket that may not be listed answers so for missing objects "
                f"too",
                url,
            ) from None
        except exceptions.PreconditionError:
            raise ChangedObjectError(url) from None
        except (exceptions.GenericError, _Incomplete, TimeoutError, ConnectionError) as error:
            if number >= tries or _is_final(error):
                times = f" (asked {number + 1} times)" if number else ""
                raise StoreError(f"{url} cannot be {what}: {_reason(error)}{times}") from None
            _pause(number)
            number += 1
        except exceptions.BaseError as error:
            raise StoreError(f"{url} cannot be {what}: {_reason(error)}") from None


def _pause(number: int) -> None:
    """Wait before a request is repeated; not all clients at the same moment."""
    time.sleep(_PAUSES[min(number, len(_PAUSES) - 1)] * random.uniform(0.5, 1.5))


_STATUS = re.compile(r"status: ([0-9]{3})|\b([45][0-9]{2}) (?:Client|Server|[A-Z])")


def _is_final(error: BaseException) -> bool:
    """Return whether a repetition would fail in the same way: the server has understood and refused."""
    found = _STATUS.search(str(error))
    status = int(found[1] or found[2]) if found else 0
    return 400 <= status < 500 and status not in (408, 425, 429)


def _reason(error: BaseException) -> str:
    """Return what a message says in its first line, without queries of URLs: those may hold signatures."""
    text = str(error).split("\n\nDebug source", 1)[0]
    text = re.sub(r"\?[^\s\"')]*", "?…", " ".join(text.split()))
    return text[:300]
