"""Receipts of jobs that have ended, by which the same call is answered instead of done again.

A receipt lies in ``<mag>/.wkdask/finished/<key>``. It counts as long as nothing that the job wrote has
changed since: it holds the fingerprint of each mag's box, and a checksum of itself. A job that writes into
the same box takes its place. The mags are named from the job's own mag on: a dataset may be moved, a layer renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from wkdask.errors import ResumeError, WkdaskError
from wkdask.geometry import BoundingBox
from wkdask.storage.protocol import PRIVATE, StoredMag
from wkdask.storage.publish.private import (
    has_entry,
    make_shared_folder,
    opened_folder,
    private_folder,
    read_private_file,
    write_private_file,
)

__all__ = ["drop_receipts", "read_receipt", "write_receipt"]

_FOLDER = "finished"
_LARGEST = 1 << 20
"""Bytes of a receipt at most."""
_MOST = 1000
"""Receipts of a mag at most; beyond that the oldest go."""


def write_receipt(
    key: str, mags: Sequence[tuple[StoredMag, BoundingBox]], content: Any, *, durable: bool = True
) -> None:
    """Leave a receipt in a job's own mag.

    Parameters
    ----------
    key
        The job's key.
    mags
        What the job wrote: each mag and the box, absolute, in voxels of it; the job's own first.
    content
        What the same call gets later, as JSON.
    durable
        Flush it to the disk.
    """
    store, box = mags[0]
    private = private_folder(store.path)
    make_shared_folder(f"{private}/{_FOLDER}")
    states = [
        [os.path.relpath(mag.path, store.path), each.to_tuple6(), mag.fingerprint(each)] for mag, each in mags
    ]
    body = {"key": key, "box": box.to_tuple6(), "states": states, "content": content}
    data = json.dumps({"checksum": _digest(body), "receipt": body}).encode()
    with opened_folder(store.path, PRIVATE, _FOLDER) as folder:
        write_private_file(folder, _name(key), data, durable=durable)


def read_receipt(key: str, mags: Sequence[tuple[StoredMag, BoundingBox]], *, own_only: bool = False) -> Any:
    """Return the content of a job's receipt; None if there is none, or a mag has changed since.

    Parameters
    ----------
    key, mags
        As for `write_receipt`; the boxes of further mags are those of the receipt.
    own_only
        Whether only changes of the job's own mag count: a job that replaced it must not do so again,
        whatever became of the others.

    Raises
    ------
    ResumeError
        If the receipt is damaged, and `own_only`.
    """
    store, box = mags[0]
    try:
        with opened_folder(store.path, PRIVATE, _FOLDER) as folder:
            if not has_entry(folder, _name(key)):
                return None
            body = _read(folder, _name(key))
    except FileNotFoundError:
        return None
    if body is None and own_only:
        raise ResumeError(
            f"{store.path}: the receipt of a job that replaced the mag is damaged: it may be that of this "
            f"job, which "
            f"would be applied twice. Call it without resume=True (--resume) if it is not"
        )
    if body is None or body.get("key") != key or body.get("box") != list(box.to_tuple6()):
        return None
    stores = {os.path.relpath(mag.path, store.path): mag for mag, _ in mags}
    try:
        for path, sides, state in body["states"][:1] if own_only else body["states"]:
            if path not in stores or stores[path].fingerprint(BoundingBox.from_tuple6(sides)) != state:
                return None
    except (KeyError, TypeError, ValueError):
        return None
    return body.get("content")


def drop_receipts(store: StoredMag, box: BoundingBox) -> None:
    """Remove the receipts of jobs that wrote into a box which another job writes into now.

    Parameters
    ----------
    store
        The mag.
    box
        Absolute, in voxels of the mag.
    """
    with contextlib.suppress(OSError), opened_folder(store.path, PRIVATE, _FOLDER) as folder:
        names = sorted(os.listdir(folder), key=lambda name: os.stat(name, dir_fd=folder).st_mtime_ns)
        for number, name in enumerate(names):
            body = _read(folder, name)
            outdated = body is None or len(names) - number >= _MOST
            with contextlib.suppress(WkdaskError, TypeError, ValueError, KeyError):
                written = BoundingBox.from_tuple6((body or {})["box"])
                outdated |= not written.intersection(box).is_empty()
            if outdated:
                os.unlink(name, dir_fd=folder)


def _read(folder: int, name: str) -> dict[str, Any] | None:
    """Return what a receipt says; None if it is damaged, or none that a job has left."""
    try:
        document = json.loads(read_private_file(folder, name, _LARGEST))
        body: dict[str, Any] = document["receipt"]
        return body if document["checksum"] == _digest(body) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _name(key: str) -> str:
    """Return the file name of a receipt."""
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def _digest(body: dict[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
