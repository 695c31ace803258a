"""What the examples of the docstrings are given: `pytest --doctest-modules wkdask`."""

import re

import pytest
from _pytest.doctest import DoctestItem


@pytest.fixture(autouse=True)
def _examples(request):
    """Run every example in a folder of its own that holds a small dataset, with the names of docs/api/index.md."""
    if not isinstance(request.node, DoctestItem):
        return
    import json

    import dask.array as da
    import numpy as np

    import wkdask

    request.getfixturevalue("monkeypatch").chdir(request.getfixturevalue("tmp_path"))
    given = {name: getattr(wkdask, name) for name in wkdask.__all__} | {
        "np": np,
        "da": da,
        "json": json,
        "wkdask": wkdask,
    }
    code = "".join(example.source for example in request.node.dtest.examples)
    if "to_xarray" in code:
        pytest.importorskip("xarray")
    if re.search(r"\b(ds|layer|mag|cells)\b", code):
        ds = wkdask.Dataset.create("ds", (4, 4, 35))
        x, y, _ = np.mgrid[:64, :64, :32]
        layer = ds.add_layer("color", "color", dtype_per_channel="uint8")
        mag = layer.add_mag(1, shard_shape=32)
        mag.write((x + y).astype("uint8"))
        cells = ds.add_layer("cells", "segmentation", dtype_per_channel="uint32")
        cells.add_mag(1, shard_shape=32).write((x // 32 + 1).astype("uint32"))
        given |= {"ds": ds, "layer": layer, "mag": mag, "cells": cells}
    for name, value in given.items():
        request.node.dtest.globs.setdefault(name, value)
