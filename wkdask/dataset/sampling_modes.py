"""Where scripts of version 4 import `SamplingModes` from."""

from __future__ import annotations

from wkdask.names import SamplingModes

__all__ = ["SamplingModes"]
