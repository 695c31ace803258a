"""The help of a view's methods for a MagView, whose coordinates are absolute."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, TypeVar, cast

__all__ = ["absolute_help"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def absolute_help(method: _Method) -> _Method:
    """Return a method of a view whose help says what its coordinates are in a MagView, where they are absolute."""
    same = types.FunctionType(
        method.__code__, method.__globals__, method.__name__, method.__defaults__, method.__closure__
    )
    functools.update_wrapper(same, method)
    del same.__wrapped__  # type: ignore[attr-defined]  # help would show the other one
    same.__kwdefaults__ = method.__kwdefaults__
    same.__qualname__ = f"MagView.{method.__name__}"
    words = method.__doc__ or ""
    for view, mag in _COORDINATES:
        words = words.replace(view, mag)
    same.__doc__ = words
    return cast(_Method, same)


_COORDINATES = (
    (", in voxels of this mag, relative to the view", ": absolute, in voxels of this mag"),
    (": voxels of this mag, relative to the view", ": absolute, in voxels of this mag"),
    (": in voxels of this mag, relative to the view", ": absolute, in voxels of this mag"),
    ("its own corner by default", "the corner of the layer's box by default"),
)
"""What the help of a view says, and what that is in a MagView."""
