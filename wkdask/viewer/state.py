"""What neuroglancer shows: its state, as JSON.

The rules are those of neuroglancer's ``python/neuroglancer/viewer_state.py``. Coordinates are voxels of the finest
scale of the first layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wkdask.viewer.scales import ShownLayer, extent_of, middle_of

__all__ = ["first_state", "updated_state"]

_SCREEN = 500
"""Pixels along a panel that the dataset fills at first."""
_GREY = """#uicontrol invlerp normalized
void main() {
  emitGrayscale(normalized());
}
"""
_COLORED = """#uicontrol invlerp normalized
#uicontrol vec3 tint color(default="{color}")
void main() {{
  emitRGB(tint * normalized());
}}
"""
_RGB = """#uicontrol invlerp normalized
void main() {
  emitRGB(vec3(normalized(0), normalized(1), normalized(2)));
}
"""
_RGB_BYTES = """void main() {
  emitRGB(vec3(toNormalized(getDataValue(0)), toNormalized(getDataValue(1)), toNormalized(getDataValue(2))));
}
"""


def first_state(layers: tuple[ShownLayer, ...], sources: Mapping[str, str]) -> dict[str, Any]:
    """Return what is shown at first: all layers, their middle in the middle.

    Parameters
    ----------
    layers
        What is shown.
    sources
        The address of each layer's volume, by the layer's name.
    """
    voxel = layers[0].scales[0].voxel
    middle = [place / side for place, side in zip(middle_of(layers), voxel, strict=True)]
    extent = extent_of(layers) / min(voxel)
    return {
        "dimensions": {axis: [side / 1e9, "m"] for axis, side in zip("xyz", voxel, strict=True)},
        "position": [int(place) + 0.5 for place in middle],
        "crossSectionScale": max(extent / _SCREEN, 1e-3),
        "projectionScale": extent * 1.5,
        "layers": [_layer_state(layer, sources[layer.name]) for layer in layers],
        "layout": "4panel",
        "showDefaultAnnotations": False,
        "title": "wkdask",
    }


def updated_state(
    state: Mapping[str, Any], layers: tuple[ShownLayer, ...], sources: Mapping[str, str]
) -> dict[str, Any]:
    """Return a state that shows other layers at the place where the user is.

    A layer of the same name keeps what the user has set: whether it is visible, its shader, its segments.

    Parameters
    ----------
    state
        What is shown now.
    layers, sources
        As for `first_state`.
    """
    shown = state.get("layers")
    old: Sequence[Any] = shown if isinstance(shown, list) else ()
    by_name = {each.get("name"): each for each in old if isinstance(each, dict)}
    new: list[dict[str, Any]] = []
    for layer in layers:
        fresh = _layer_state(layer, sources[layer.name])
        before = by_name.get(layer.name)
        if before is not None and before.get("type") == fresh["type"]:
            fresh = {**before, "source": fresh["source"]}
        new.append(fresh)
    return {**state, "layers": new}


def _layer_state(layer: ShownLayer, source: str) -> dict[str, Any]:
    """Return the state of a layer."""
    if layer.is_segmentation:
        # Ids are coloured by a hash of theirs and of the seed: the same in every session.
        return {
            "type": "segmentation",
            "name": layer.name,
            "source": source,
            "colorSeed": 1,
            "selectedAlpha": 0.35,
        }
    state: dict[str, Any] = {"type": "image", "name": layer.name, "source": source}
    if layer.num_channels == 3:
        state["shader"] = _RGB_BYTES if layer.dtype == "uint8" else _RGB
    elif layer.color is not None and tuple(layer.color) != (255, 255, 255):
        state["shader"] = _COLORED.format(color="#" + "".join(f"{part:02x}" for part in layer.color))
    else:
        state["shader"] = _GREY
    if layer.contrast is not None and state["shader"] != _RGB_BYTES:
        state["shaderControls"] = {"normalized": {"range": list(layer.contrast)}}
    return state
