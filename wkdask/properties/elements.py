"""Element classes: the one word that the properties file has for a voxel of all channels."""

from __future__ import annotations

import re
import reprlib
from typing import Any

import numpy as np

from wkdask.errors import DTypeError, InvalidValueError

__all__ = ["dtype_of", "element_class"]

_CLASS_WORDS = {"float": "float32", "double": "float64"}
_BITS = {"uint": (8, 16, 32, 64), "int": (8, 16, 32, 64), "float": (32, 64)}
_KINDS = {"u": "uint", "i": "int", "f": "float"}


def element_class(dtype_per_channel: np.dtype[Any] | str, num_channels: int) -> str:
    """Return the one word that the file has for a data type and a number of channels.

    Raises
    ------
    DTypeError
        If the file has no word for that data type.
    InvalidValueError
        If the number of channels is not positive.

    Examples
    --------
    >>> element_class("uint8", 3), element_class("float32", 1), element_class("float64", 1)
    ('uint24', 'float', 'double')
    """
    try:
        # "float" is the format's word for 32 bits; numpy would take it for 64
        dtype = np.dtype(_CLASS_WORDS.get(str(dtype_per_channel), dtype_per_channel))
    except (TypeError, ValueError):
        raise DTypeError(f"not a data type: {dtype_per_channel!r}") from None
    if num_channels < 1:
        raise InvalidValueError(f"a layer has at least one channel, got {num_channels}")
    kind = _KINDS.get(dtype.kind, "")
    if dtype.itemsize * 8 not in _BITS.get(kind, ()):
        raise DTypeError(
            f"a layer holds integers of 8 to 64 bits or floats of 32 or 64 bits, not {dtype_per_channel!r}"
        )
    word = f"{kind}{dtype.itemsize * 8 * num_channels}"
    return {"float32": "float", "float64": "double"}.get(word, word)


def dtype_of(element_class: str, num_channels: int | None) -> np.dtype[Any]:
    """Return the data type of one channel.

    Parameters
    ----------
    element_class
        Such as ``"uint24"``: the bits of all channels together.
    num_channels
        The number of channels; None: 1 for a plain class such as ``"uint8"``, else 3.

    Raises
    ------
    DTypeError
        If the word is unknown, or its bits do not split into that many channels.

    Examples
    --------
    >>> dtype_of("uint24", 3), dtype_of("double", 1)
    (dtype('uint8'), dtype('float64'))
    """
    match = re.fullmatch(r"(u?int|float)([1-9][0-9]{0,4})", _CLASS_WORDS.get(element_class, element_class))
    if match is None:
        raise DTypeError(
            f"unknown element class {reprlib.repr(element_class)}; known are such as uint8, uint24, float"
        )
    kind, bits = match[1], int(match[2])
    channels = num_channels or (1 if bits in _BITS[kind] else 3)
    width, rest = divmod(bits, channels)
    if rest or width not in _BITS[kind]:
        raise DTypeError(f"element class {element_class!r} does not split into {channels} channels")
    return np.dtype(f"{kind}{width}")
