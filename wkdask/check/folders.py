"""The folders of a dataset against what its properties file lists, and what processes have left in them."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator

from wkdask.check.findings import Findings
from wkdask.check.opened import OpenedMag
from wkdask.errors import InvalidValueError
from wkdask.geometry import Mag
from wkdask.jobs.mag_folders import listed_folders
from wkdask.properties import LayerRecord
from wkdask.properties.handle import Properties
from wkdask.storage.formats import format_of
from wkdask.storage.listing import Odd, is_readable
from wkdask.storage.protocol import PRIVATE
from wkdask.storage.publish.dead_jobs import is_unfinished, leftovers

__all__ = ["check_attachments", "check_folders", "check_jobs", "note_loose_file", "note_odd"]

_OURS = re.compile(r"\..+\.([0-9a-f]{32}\.tmp|gone-[0-9a-f]{32})")
"""What a killed process of ours leaves of a file that it was to replace, or a folder that it was to remove."""
_DESKTOP = re.compile(r"\.DS_Store|\._.+|Thumbs\.db|desktop\.ini|\.directory|\.Trash.*", re.IGNORECASE)
_TEMPORARY = re.compile(
    r".+\.(tmp|temp|part|partial|crdownload|swp|swo|filepart|inprogress)(\.[0-9a-zA-Z]+)?"
    r"|.+\.partial.*|.*~|\.nfs[0-9a-f]+|#.+#|\.#.+|~\$.+|\.~.+|\.[^.].*\.[A-Za-z0-9]{6}|tmp[a-z0-9_]{8}",
    re.IGNORECASE,
)
"""Of editors, downloads, rsync, zarr-python, NFS, offices, `tempfile`."""
_MOST = 10_000
"""Entries of a folder that are looked at."""


def note_loose_file(
    path: str, findings: Findings, layer: str | None = None, mag: Mag | None = None, what: str | None = None
) -> None:
    """Note a file by its name alone, if the name says what it is; in a mag it is a stray file whatever its name.

    Parameters
    ----------
    path
        The file, or folder.
    findings
        Takes it in.
    layer, mag
        Where it is.
    what
        What is wrong with it, in a mag; None elsewhere.
    """
    name = os.path.basename(path)
    if _OURS.fullmatch(name):
        findings.add("leftover", path, "a killed process has left it", layer, mag)
    elif _DESKTOP.fullmatch(name):
        findings.add("foreign-file", path, "a desktop's own file", layer, mag)
    elif _TEMPORARY.fullmatch(name):
        findings.add("temporary-file", path, "by its name a temporary file", layer, mag)
    elif what is not None:
        findings.add("stray-file", path, what, layer, mag)


def note_odd(odd: Odd, opened: OpenedMag, findings: Findings) -> None:
    """Take in what a mag holds beside its files."""
    layer, mag = opened.layer.name, opened.mag
    codes = {
        "cycle": "link-cycle",
        "broken": "link-broken",
        "mode": "no-permission",
        "unreadable": "unreadable",
    }
    if odd.kind == "stray":
        note_loose_file(odd.path, findings, layer, mag, odd.what)
    else:
        findings.add(codes[odd.kind], odd.path, odd.what, layer, mag)


def check_folders(properties: Properties, findings: Findings) -> None:
    """Find layers and mags that are not listed, and loose files in the folders of the dataset and its layers.

    Parameters
    ----------
    properties
        The dataset.
    findings
        Takes in what is found.
    """
    dataset, record = properties.folder, properties.record
    listed = listed_folders(properties)
    names = {*record.names}
    if os.path.lexists(os.path.join(dataset, PRIVATE, "edit")):
        findings.add(
            "edit-unfinished", os.path.join(dataset, PRIVATE, "edit"), "a rename or a removal is noted"
        )
    for entry in _entries(dataset, findings):
        if not entry.is_dir() or _OURS.fullmatch(entry.name):
            note_loose_file(entry.path, findings)
        elif entry.name not in names and not entry.name.startswith("."):
            _check_unlisted_layer(entry.path, listed, names, findings)
    for layer in record.layers:
        if os.path.isdir(folder := os.path.join(dataset, layer.name)):
            _check_layer_folder(folder, layer, listed, findings)


def _entries(folder: str, findings: Findings, layer: str | None = None) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder; what cannot be listed is a finding."""
    try:
        mode = os.stat(folder).st_mode
        if not is_readable(mode):
            findings.add("no-permission", folder, f"its mode is {stat.filemode(mode)}", layer)
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number >= _MOST:
                    return
                try:
                    entry.is_dir()
                except OSError as error:  # a link to itself
                    findings.add("link-broken", entry.path, f"it cannot be followed: {error.strerror}", layer)
                    continue
                yield entry
    except OSError as error:
        code = "no-permission" if error.errno == errno.EACCES else "unreadable"
        findings.add(code, folder, f"it cannot be listed: {error.strerror}", layer)


def _check_unlisted_layer(path: str, listed: set[str], names: set[str], findings: Findings) -> None:
    """Find a folder of the dataset that holds mags, none of which is listed."""
    mags = [
        entry.name
        for entry in _entries(path, findings)
        if entry.is_dir() and format_of(entry.path) and os.path.realpath(entry.path) not in listed
    ]
    if mags:
        near = [name for name in names if name.casefold() == os.path.basename(path).casefold()]
        hint = f"; the properties file lists {near[0]!r}" if near else ""
        findings.add("layer-unlisted", path, f"it holds the mags {', '.join(sorted(mags)[:8])}{hint}")


def _check_layer_folder(folder: str, layer: LayerRecord, listed: set[str], findings: Findings) -> None:
    """Find mags in a layer's folder that are not listed, and loose files."""
    for entry in _entries(folder, findings, layer.name):
        if not entry.is_dir():
            if entry.is_symlink() and not os.path.exists(entry.path):
                findings.add("link-broken", entry.path, f"it leads to {os.readlink(entry.path)}", layer.name)
            else:
                note_loose_file(entry.path, findings, layer.name)
        elif _OURS.fullmatch(entry.name):
            note_loose_file(entry.path, findings, layer.name)
        elif not entry.name.startswith(".") and os.path.realpath(entry.path) not in listed:
            _check_unlisted_mag(entry.path, layer, findings)


def _check_unlisted_mag(path: str, layer: LayerRecord, findings: Findings) -> None:
    """Find what a folder is that is not listed, if it looks like a mag."""
    mag = _mag_named(os.path.basename(path))
    if format_of(path) is None and (mag is None or not _holds_something(path)):
        return
    why = is_unfinished(path)
    if why is not None and " is making " in why:
        findings.add("job-running", path, why, layer.name, mag)
    elif why is not None:
        findings.add("mag-unfinished", path, why, layer.name, mag)
    else:
        same = any(each.mag == mag for each in layer.mags)
        what = f"mag {mag} is listed already, in another folder" if same else "it is not listed"
        findings.add("mag-unlisted", path, what, layer.name, mag)


def _holds_something(path: str) -> bool:
    """Return whether there is anything in a folder."""
    try:
        with os.scandir(path) as entries:
            return any(True for _ in entries)
    except OSError:
        return True


def _mag_named(name: str) -> Mag | None:
    """Return the mag that a folder's name says; None where it says none."""
    try:
        return Mag(name)
    except InvalidValueError:
        return None


def check_attachments(dataset: str, layer: LayerRecord, findings: Findings) -> None:
    """Find attachments that are listed and not there.

    Parameters
    ----------
    dataset
        The dataset's folder.
    layer
        The layer.
    findings
        Takes in what is wrong.
    """
    listed = layer.raw.get("attachments")
    for kind, value in listed.items() if isinstance(listed, dict) else ():
        for entry in value if isinstance(value, list) else [value]:
            path = entry.get("path") if isinstance(entry, dict) else None
            if not isinstance(path, str) or "://" in path or "\0" in path:
                continue
            full = os.path.normpath(os.path.join(dataset, path))
            if not os.path.exists(full):
                what = f"{kind} {entry.get('name')!r} is listed, but there is no such file or folder"
                findings.add("attachment-missing", full, what, layer.name)


def check_jobs(opened: OpenedMag, findings: Findings) -> bool:
    """Find what jobs have left in a mag; tell whether its cubes are whole and at rest.

    Parameters
    ----------
    opened
        The mag.
    findings
        Takes in what is found.
    """
    at_rest = True
    private = os.path.join(opened.store.path, PRIVATE)
    if os.path.lexists(private) and (os.path.islink(private) or not os.path.isdir(private)):
        what = "a file or a link is where jobs have their folders: none can begin"
        findings.add("stray-file", private, what, opened.layer.name, opened.mag)
        return at_rest
    for left in leftovers(opened.store.path):
        doing = "" if left.manifest is None else f" ({left.manifest.action} {left.manifest.name})"
        code, what = {
            "living": ("job-running", f"a job{doing} is at work"),
            "resumable": ("job-unfinished", f"a job{doing} was interrupted"),
            "replacing": ("job-replacing", f"a job{doing} was interrupted in its second phase"),
            "ended": ("leftover", "the private folder of a job that has ended"),
        }[left.state]
        at_rest = at_rest and left.state not in ("living", "replacing")
        findings.add(code, left.path, what, opened.layer.name, opened.mag)
    return at_rest
