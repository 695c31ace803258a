"""Events -> what a person sees while a job runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from wkdask.events import Event, Listener

__all__ = ["ProgressLike", "listeners_for"]

ProgressLike: TypeAlias = "bool | Callable[[Event], None] | None"
"""``True`` for a bar, ``False`` for none, a listener, ``None`` for a bar where a person watches."""


def listeners_for(progress: ProgressLike) -> Sequence[Listener]:
    """Return the listeners that a ``progress=`` argument asks for."""
    return [progress] if callable(progress) else []
