"""The settings under ``wkdask.`` in dask's configuration: defaults from ``wkdask.yaml``, values that are checked.

Importing this module makes the defaults known to dask. All settings are read through this module, so that a
wrong value is an error that names the setting.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import dask.config
import yaml
from dask.utils import parse_timedelta

from wkdask.errors import InvalidValueError, WkdaskWarning

__all__ = ["DEFAULTS", "SETTINGS", "Setting", "check", "get", "is_on"]


def _read_defaults() -> dict[str, Any]:
    """Return what the package's own file says."""
    with open(os.path.join(os.path.dirname(__file__), "wkdask.yaml"), encoding="utf-8") as file:
        found: dict[str, Any] = yaml.safe_load(file)
    return found


DEFAULTS: dict[str, Any] = _read_defaults()
"""The defaults, as ``wkdask.yaml`` has them."""

dask.config.update_defaults(DEFAULTS)


@dataclass(frozen=True)
class Setting:
    """What a value of a setting may be."""

    expected: str
    """Said of a value that is none."""

    parse: Callable[[Any], Any]
    """Returns the value that is worked with; raises a ValueError, LookupError or TypeError for what is none."""


def _seconds(given: Any) -> float:
    """Return a duration in seconds."""
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise TypeError(given)
    seconds = float(parse_timedelta(given, default="seconds"))
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(given)
    return seconds


def _limit(given: Any) -> float | str | None:
    """Return a duration in seconds, None for no limit, or ``"auto"``."""
    return given if given is None or given == "auto" else _seconds(given)


def _flag(given: Any) -> bool:
    """Return True or False; 1 and 0 come from the environment."""
    if given is not True and given is not False and not (isinstance(given, int) and given in (0, 1)):
        raise TypeError(given)
    return bool(given)


def _threads(given: Any) -> int | None:
    """Return a number of threads from 1 on; None for as many as dask uses."""
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(given)
    if given < 1:
        raise ValueError(given)
    return given


def _number(given: Any) -> int:
    """Return a number from 1 on."""
    if _count(given) < 1:
        raise ValueError(given)
    return int(given)


def _count(given: Any) -> int:
    """Return a number from 0 on."""
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(given)
    if given < 0:
        raise ValueError(given)
    return given


def _shape(given: Any) -> str:
    """Return one of the two words."""
    if given not in ("shards", "box"):
        raise ValueError(given)
    return str(given)


_DURATION = 'a duration: a number of seconds from 0 on, or a text such as "90s" or "10 minutes"'

SETTINGS = {
    "lock-timeout": Setting(_DURATION, _seconds),
    "check-space": Setting("true or false", _flag),
    "worker-timeout": Setting(f'{_DURATION}; null (None) for no limit; or "auto"', _limit),
    "progress-interval": Setting(_DURATION, _seconds),
    "thumbnails": Setting("true or false", _flag),
    "compile-after": Setting(_DURATION, _seconds),
    "read-threads": Setting(
        "a number of threads from 1 on, or null (None) for as many as dask uses", _threads
    ),
    "read-retries": Setting("a number from 0 on", _count),
    "checksums": Setting("true or false", _flag),
    "verify-reads": Setting("true or false", _flag),
    "store-timeout": Setting(_DURATION, _seconds),
    "store-retries": Setting("a number from 0 on", _count),
    "store-refresh": Setting(_DURATION, _seconds),
    "store-requests": Setting("a number from 1 on", _number),
    "zarr-shape": Setting('"shards" or "box"', _shape),
}
"""Every setting, by its name without ``wkdask.``."""

_told: set[str] = set()
"""Unknown names that were warned of in this process."""


def get(name: str) -> Any:
    """Return a setting.

    Parameters
    ----------
    name
        Without ``wkdask.``, such as ``"lock-timeout"``.

    Returns
    -------
    float, int, bool, None or str
        A duration in seconds, a number, a flag, a word; None and ``"auto"`` where the setting allows them.

    Raises
    ------
    InvalidValueError
        If what was configured is no such value; the message names the setting, the value, and what is expected.

    Examples
    --------
    >>> import dask.config
    >>> from wkdask import settings
    >>> settings.get("lock-timeout")
    600.0
    >>> with dask.config.set({"wkdask.lock-timeout": "90s"}):
    ...     settings.get("lock-timeout")
    90.0
    """
    setting = SETTINGS[name]
    given = dask.config.get(f"wkdask.{name}", DEFAULTS["wkdask"][name])
    try:
        return setting.parse(given)
    except (TypeError, ValueError, LookupError) as error:
        variable = f"DASK_WKDASK__{name.upper().replace('-', '_')}"
        raise InvalidValueError(
            f"the setting wkdask.{name} is {given!r}; expected is {setting.expected}. "
            f"It comes from dask.config.set, the environment ({variable}), or a file in {dask.config.PATH}"
        ) from error


def is_on(name: str) -> bool:
    """Return whether a flag that is off by default is on.

    What is asked for every cube that is opened costs a quarter of :func:`get` where it is off.
    """
    found = dask.config.config.get("wkdask", {})
    return bool(found.get(name) or found.get(name.replace("-", "_"))) and bool(get(name))


def check() -> None:
    """Check all settings: called before a job begins, so that a wrong one does not end it half-way.

    Raises
    ------
    InvalidValueError
        If a setting has a value that cannot work.

    Warns
    -----
    WkdaskWarning
        If there is a setting of an unknown name, once per process.
    """
    for name in SETTINGS:
        get(name)
    found = dask.config.get("wkdask", {})
    if not isinstance(found, dict):
        raise InvalidValueError(f"wkdask in dask's configuration is {found!r}; expected are settings by name")
    for name in {str(key).replace("_", "-") for key in found} - SETTINGS.keys() - _told:
        _told.add(name)
        near = get_close_matches(name, SETTINGS, n=1)
        hint = f"did you mean wkdask.{near[0]}?" if near else f"there are {', '.join(SETTINGS)}"
        warnings.warn(f"unknown setting wkdask.{name}; {hint}", WkdaskWarning, stacklevel=2)
