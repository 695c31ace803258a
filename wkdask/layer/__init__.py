"""One layer: its mags, how they are sampled, copied, rechunked and linked.

Enter at :mod:`~wkdask.layer.layer`; each other module is one subject of it.
"""

from wkdask.layer.layer import Layer, LayerCategories, SegmentationLayer, layer_of

__all__ = ["Layer", "LayerCategories", "SegmentationLayer", "layer_of"]
