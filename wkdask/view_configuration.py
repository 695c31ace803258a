"""How WEBKNOSSOS shows a dataset or a layer at first: named fields over the JSON, unknown keys kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

__all__ = ["DatasetViewConfiguration", "LayerViewConfiguration"]


class _ViewConfiguration:
    """Fields in Python's spelling, keys in the file's (camelCase); only what is set is written."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Return the configuration of a JSON object; what has no field here goes to `extra`."""
        names = {_camel(item.name): item.name for item in fields(cls) if item.name != "extra"}  # type: ignore[arg-type]
        known = {names[key]: _as_tuple(value) for key, value in raw.items() if key in names}
        return cls(**known, extra={key: value for key, value in raw.items() if key not in names})  # type: ignore[call-arg]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        result: dict[str, Any] = {}
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if item.name != "extra" and value is not None:
                result[_camel(item.name)] = list(value) if isinstance(value, tuple) else value
        return {**result, **self.extra}  # type: ignore[attr-defined]


def _camel(name: str) -> str:
    """Return ``is_disabled`` as ``isDisabled``."""
    first, *others = name.split("_")
    return first + "".join(part.title() for part in others)


def _as_tuple(value: Any) -> Any:
    """Return a list as a tuple, so that the configuration can be compared and hashed."""
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class LayerViewConfiguration(_ViewConfiguration):
    """How a layer is shown; None leaves it to WEBKNOSSOS."""

    color: tuple[int, int, int] | None = None
    """Red, green, blue, 0 to 255."""
    alpha: float | None = None
    """Opacity in percent."""
    intensity_range: tuple[float, float] | None = None
    """The values shown as black and as white."""
    min: float | None = None
    """The least value of the range's slider."""
    max: float | None = None
    """The largest value of the range's slider."""
    is_disabled: bool | None = None
    """Whether the layer is hidden."""
    is_inverted: bool | None = None
    """Whether black and white change places."""
    is_in_edit_mode: bool | None = None
    """Whether the range's slider can be edited."""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Keys of newer versions, kept as they are."""


@dataclass(frozen=True)
class DatasetViewConfiguration(_ViewConfiguration):
    """How a dataset is shown; None leaves it to WEBKNOSSOS."""

    four_bit: bool | None = None
    """Whether color is sent with 4 bits."""
    interpolation: bool | None = None
    """Whether voxels are smoothed."""
    render_missing_data_black: bool | None = None
    """Whether missing data are black."""
    loading_strategy: str | None = None
    """``"BEST_QUALITY_FIRST"`` or ``"PROGRESSIVE_QUALITY"``."""
    segmentation_pattern_opacity: int | None = None
    """Opacity of the pattern of segments, in percent."""
    zoom: float | None = None
    """Zoom factor."""
    position: tuple[int, int, int] | None = None
    """Where the view is, in voxels of mag 1."""
    rotation: tuple[int, int, int] | None = None
    """How the view is turned, in degrees."""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Keys of newer versions, kept as they are."""
