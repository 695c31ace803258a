"""The properties file as JSON: its bytes, the object in them, checked access to what the object holds.

Every function names in `where` what it looks at, for the message of its :class:`PropertiesError`.
"""

from __future__ import annotations

import errno
import json
import os
import reprlib
from collections import Counter
from collections.abc import Mapping
from math import isinf
from typing import Any, TypeAlias

from wkdask.errors import PropertiesError
from wkdask.fsio import checked_place, open_regular
from wkdask.objects.metadata import read_metadata
from wkdask.objects.urls import is_url

__all__ = [
    "MAX_BYTES",
    "PROPERTIES_FILE",
    "Raw",
    "optional",
    "read_bytes",
    "required",
    "to_bytes",
    "to_raw",
    "typed",
    "whole",
]

PROPERTIES_FILE = "datasource-properties.json"
"""The name of the file in a dataset's folder."""
MAX_BYTES = 16 << 20
"""A larger file is refused unparsed: real ones have kilobytes, with large tables of landmarks a few megabytes.
The worst of this size (millions of empty objects) takes 0.5 GiB to parse."""
MAX_DIGITS = 4300
"""Digits of an integer; Python's own default limit, kept where a program has lifted that."""

Raw: TypeAlias = dict[str, Any]


def read_bytes(folder: str | os.PathLike[str]) -> tuple[bytes, str]:
    """Return the content of a folder's properties file, and its path; see `load` for the errors."""
    folder = checked_place(folder)
    path = os.path.join(folder, PROPERTIES_FILE)
    if is_url(folder):
        try:
            return read_metadata(path, MAX_BYTES).data, path
        except FileNotFoundError:
            raise FileNotFoundError(f"no dataset at {folder}: there is no object {PROPERTIES_FILE}") from None
    try:
        descriptor = open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"no dataset in the folder {folder}: the file {PROPERTIES_FILE} is missing there"
        ) from None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ELOOP):  # not a file at all; other faults are the disk's
            raise PropertiesError(f"{path}: {error.strerror}") from None
        raise
    with open(descriptor, "rb") as file:
        try:
            data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
    return data, path


def to_raw(data: bytes | str, path: str) -> Raw:
    """Return the JSON object in a properties file; see `parse`."""
    if len(data) > MAX_BYTES:
        raise PropertiesError(f"{path}: larger than {MAX_BYTES >> 20} MiB, that cannot be a properties file")
    try:
        raw = json.loads(data, parse_int=_integer, parse_float=_float, object_pairs_hook=_object)
    except RecursionError:
        raise PropertiesError(f"{path}: nested too deeply") from None
    except ValueError as error:
        what = str(error) if data.strip() else "the file is empty"
        raise PropertiesError(f"{path}: not valid JSON: {what}") from None
    found: Raw = typed(raw, dict, path)
    return found


def to_bytes(raw: Raw, path: str) -> bytes:
    """Return the content of a properties file; indented by 4, all ASCII, so that any text survives."""
    try:
        return json.dumps(raw, indent=4).encode("ascii")
    except RecursionError:  # a little less depth than can be read
        raise PropertiesError(f"{path}: nested too deeply to be written") from None


def is_same(raw: Raw, other: Raw) -> bool:
    """Return whether two objects are the same JSON, keys in the same order: 24 is not 24.0, and true is not 1."""
    try:
        return json.dumps(raw) == json.dumps(other)  # without an indent, which takes ten times as long
    except RecursionError:  # `to_bytes` says so
        return False


def _integer(token: str) -> int:
    if len(token) > MAX_DIGITS:  # the time to convert grows with the square
        raise ValueError(f"an integer of {len(token)} digits")
    return int(token)


def _float(token: str) -> float:
    value = float(token)
    if isinf(value):  # it would be written back as Infinity, which is not JSON
        raise ValueError(f"a number that is too large: {reprlib.repr(token)}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> Raw:
    found = dict(pairs)
    if len(found) != len(pairs):  # one would silently win, and the next save would lose the other
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {reprlib.repr(key)} appears twice in one object")
    return found


_NAMES: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}


def typed(value: Any, kind: type, where: str) -> Any:
    """Return the value if it is of that kind of JSON."""
    if not isinstance(value, kind):
        raise PropertiesError(f"{where}: expected {_NAMES[kind]}, got {reprlib.repr(value)}")
    return value


def required(raw: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """Return what a key holds, which must be there and of that kind."""
    if key not in raw:
        raise PropertiesError(f"{where}: {key} is missing")
    return typed(raw[key], kind, f"{where}: {key}")


def optional(raw: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """Return what a key holds, of that kind; None where it is missing or null."""
    return None if raw.get(key) is None else typed(raw[key], kind, f"{where}: {key}")


def whole(value: Any, where: str, low: int | None = 0, high: int | None = None) -> int:
    """Return a whole number from `low` to `high`; 24.0 is one, as JSON does not tell it from 24."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or (low is not None and value < low) or (high is not None and value > high):
        least = "" if low is None else f" of at least {low}" if high is None else f" from {low} to {high}"
        raise PropertiesError(f"{where}: expected a whole number{least}, got {reprlib.repr(value)}")
    return value
