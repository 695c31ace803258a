"""How WEBKNOSSOS shows a dataset or a layer at first: named fields over the JSON, unknown keys kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

__all__ = ["DatasetViewConfiguration", "LayerViewConfiguration"]


class _ViewConfiguration:
    """Fields in Python's spelling, keys in the file's (camelCase); only what is set is written."""

    def __post_init__(self) -> None:
        for item in fields(self):  # type: ignore[arg-type]
            if isinstance(value := getattr(self, item.name), list):  # so that it can be compared and hashed
                object.__setattr__(self, item.name, tuple(value))

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Return the configuration of a JSON object; what has no field here goes to `extra`."""
        names = {_camel(item.name): item.name for item in fields(cls) if item.name != "extra"}  # type: ignore[arg-type]
        known = {
            names[key]: cls._value(key, value) for key, value in raw.items() if cls._fits(names, key, value)
        }
        rest = {key: value for key, value in raw.items() if not cls._fits(names, key, value)}
        return cls(**known, extra=rest)  # type: ignore[call-arg]

    @classmethod
    def _fits(cls, names: Mapping[str, str], key: str, value: Any) -> bool:
        """Return whether a key of the file is a field here."""
        return key in names

    @classmethod
    def _value(cls, key: str, value: Any) -> Any:
        """Return what a field holds for a value of the file."""
        return value

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        result: dict[str, Any] = {}
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if item.name != "extra" and value is not None:
                result[_camel(item.name)] = _plain(value)
        return {**result, **self.extra}  # type: ignore[attr-defined]


def _camel(name: str) -> str:
    """Return ``is_disabled`` as ``isDisabled``."""
    first, *others = name.split("_")
    return first + "".join(part.title() for part in others)


def _plain(value: Any) -> Any:
    """Return what a field holds as the file has it."""
    if isinstance(value, _ViewConfiguration):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class LayerViewConfiguration(_ViewConfiguration):
    """How a layer is shown; None leaves it to WEBKNOSSOS.

    Examples
    --------
    >>> layer.default_view_configuration = LayerViewConfiguration(color=(255, 0, 0), intensity_range=(10, 120))
    >>> layer.default_view_configuration.color
    (255, 0, 0)
    """

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
    mapping: Mapping[str, str] | None = field(default=None, hash=False)
    """The mapping of a segmentation that is shown: its ``name`` and ``type``."""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Keys of newer versions, kept as they are."""


@dataclass(frozen=True)
class DatasetViewConfiguration(_ViewConfiguration):
    """How a dataset is shown; None leaves it to WEBKNOSSOS.

    Examples
    --------
    >>> ds.default_view_configuration = DatasetViewConfiguration(zoom=2.0, position=(32, 32, 16))
    >>> ds.default_view_configuration.zoom
    2.0
    """

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
    layers: Mapping[str, LayerViewConfiguration] | None = field(default=None, hash=False)
    """How layers are shown in this dataset, by name."""
    color_layer_order: tuple[str, ...] | None = None
    """Names of color layers, the topmost first."""
    blend_mode: str | None = None
    """``"Additive"`` or ``"Cover"``."""
    natively_rendered_layer_name: str | None = None
    """The layer whose coordinates are those of the view; the others are transformed."""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Keys of newer versions, kept as they are."""

    @classmethod
    def _fits(cls, names: Mapping[str, str], key: str, value: Any) -> bool:
        """Return whether a key of the file is a field here; ``layers`` only where it holds objects."""
        if key == "layers" and value is not None:
            return isinstance(value, Mapping) and all(isinstance(each, Mapping) for each in value.values())
        return key in names

    @classmethod
    def _value(cls, key: str, value: Any) -> Any:
        """Return what a field holds for a value of the file.

        Some versions of webknossos write the keys of ``layers`` in Python's spelling, and null for what is not set.
        """
        if key != "layers" or value is None:
            return value
        names = {item.name for item in fields(LayerViewConfiguration)} - {"extra"}
        return {
            layer: LayerViewConfiguration.from_json(
                {
                    _camel(name) if name in names and _camel(name) not in each else name: setting
                    for name, setting in each.items()
                    if setting is not None or name not in names
                }
            )
            for layer, each in value.items()
        }
