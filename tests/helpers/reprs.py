"""Layers to show, and a reader of the HTML that shows them."""

import json
import os
from html.parser import HTMLParser

import numpy as np

from wkdask import LayerCategories

COLOR, IDS = LayerCategories.COLOR_TYPE, LayerCategories.SEGMENTATION_TYPE
SHAPES = {"chunk_shape": 16, "shard_shape": 32}


def with_layer(ds, name="raw", data=None, category=COLOR, mag=1, **options):
    data = np.arange(1, 40 * 20 * 6 + 1, dtype=np.uint32).reshape(40, 20, 6) if data is None else data
    layer = ds.add_layer(
        name,
        category,
        dtype_per_channel=data.dtype,
        num_channels=data.shape[0] if data.ndim == 4 else 1,
    )
    layer.add_mag(mag, **SHAPES, **options).write(data, offset=(0, 0, 0))
    return layer


def edit(ds, change):
    path = os.path.join(ds.path, "datasource-properties.json")
    with open(path) as file:
        properties = json.load(file)
    change(properties)
    with open(path, "w") as file:
        json.dump(properties, file)


class Tags(HTMLParser):
    """Checks that tags are balanced; collects names of tags and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.names, self.text = [], set(), ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + " "


def tags(text):
    found = Tags(text)
    assert found.open == []
    return found
