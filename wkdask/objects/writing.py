"""Objects that are put: each appears whole, or not at all.

::

    put            over whatever is there; asked again where it fails, since doing it twice does the same
    put_new        only where there is no object
    replace        only over the version that was read

A condition is checked by the store. If its answer is lost, the request that is made again finds our own object and
looks like a conflict: then the object is read back, and equal bytes are success. Objects above 64 MiB are put in
parts, which appear together; a condition has no parts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wkdask.errors import StoreError
from wkdask.objects.metadata import forget_metadata
from wkdask.objects.reading import ChangedObjectError, Part, read_object, repeated
from wkdask.objects.stores import store_of
from wkdask.objects.urls import Address

__all__ = ["delete", "put", "put_new", "replace"]

_IN_PARTS_NBYTES = 64 << 20
"""Bytes from which on an object is put in parts: one request would have to be made again as a whole."""
_PART_NBYTES = 16 << 20


def put(url: str, data: bytes | Path) -> None:
    """Put an object, whatever was there.

    Parameters
    ----------
    url
        Which.
    data
        Its bytes, or a file that holds them; not changed meanwhile.

    Raises
    ------
    PermissionError, StoreError
        If the store does not take it; what was there stays.
    """
    import obstore

    address = _writable(url)
    nbytes = data.stat().st_size if isinstance(data, Path) else len(data)
    in_parts = nbytes > _IN_PARTS_NBYTES

    def ask() -> None:
        obstore.put(
            store_of(address),
            address.key,
            data,
            use_multipart=in_parts,
            chunk_size=_PART_NBYTES,
            max_concurrency=4,
        )

    repeated(url, ask, "written")
    forget_metadata(url)


def put_new(url: str, data: bytes) -> None:
    """Put an object where there is none.

    Raises
    ------
    FileExistsError
        If there is one, with other bytes.
    PermissionError, StoreError
        If the store does not take it, or has no such condition.
    """
    try:
        _put_if(url, data, "create")
    except ChangedObjectError:
        raise FileExistsError(f"{url} exists already") from None


def replace(url: str, data: bytes, version: Part) -> None:
    """Put an object over the version that was read.

    Raises
    ------
    ChangedObjectError
        If it is another one by now, with other bytes than these.
    PermissionError, StoreError
        If the store does not take it, or has no such condition.
    """
    if not version.tagged:
        raise StoreError(f"{url} has no ETag, by which it could be replaced only if it has not changed")
    _put_if(url, data, {"e_tag": version.version})


def _put_if(url: str, data: bytes, mode: Any) -> None:
    """Put an object under a condition."""
    import obstore
    from obstore import exceptions

    address = _writable(url)
    tries = 0

    def ask() -> None:
        nonlocal tries
        tries += 1
        try:
            obstore.put(store_of(address), address.key, data, mode=mode, use_multipart=False)
        except exceptions.AlreadyExistsError:
            raise ChangedObjectError(url) from None
        except exceptions.NotSupportedError as error:
            raise StoreError(f"{url}: the store cannot put an object under a condition: {error}") from None

    try:
        repeated(url, ask, "written")
    except ChangedObjectError:
        if tries == 1 or not _holds(url, data):  # the first answer was not lost
            raise
    finally:
        forget_metadata(url)


def _holds(url: str, data: bytes) -> bool:
    """Return whether an object has these bytes."""
    try:
        return bytes(read_object(url).data) == data
    except FileNotFoundError:
        return False


def delete(url: str) -> None:
    """Delete an object, if there is one.

    Raises
    ------
    PermissionError, StoreError
        If the store does not do it.
    """
    import obstore

    address = _writable(url)
    try:
        repeated(url, lambda: obstore.delete(store_of(address), address.key), "deleted")
    except FileNotFoundError:
        pass
    finally:
        forget_metadata(url)


def _writable(url: str) -> Address:
    """Return the address of an object that can be put."""
    address = Address.of(url)
    if address.scheme in ("http", "https"):
        raise StoreError(f"{url}: nothing can be written to a web server")
    if not address.key:
        raise StoreError(f"{url} names no object")
    return address
