"""`wkdask.view`: one window for what is shown one after the other, and what the browser tells it."""

import json
import threading
import urllib.request

import numpy as np
import pytest
from http_client import get
from reprs import IDS, with_layer

import wkdask
from wkdask.errors import InvalidValueError

DATA = np.random.default_rng(0).integers(1, 255, (90, 70, 20), np.uint8)


@pytest.fixture
def color(ds):
    return with_layer(ds, "color", DATA)


def state_url(viewer):
    return f"http://127.0.0.1:{viewer.port}/state/{viewer._server.token}"


def moved(viewer, **changes):
    """Do as a browser does whose user changed the state."""
    server = viewer._server
    new = {"s": {**server.state, **changes}, "pg": server._generation, "g": 7, "c": "browser"}
    return get(state_url(viewer), json.dumps(new).encode())


def test_calling_it_again_shows_other_things_at_the_same_place(show, ds, color):
    viewer = show(("a", 255 - color.get_mag(1).to_dask()), color)
    before = dict(viewer._server.sources)
    layers = [{**each, "visible": False} for each in viewer._server.state["layers"]]
    assert moved(viewer, position=[1.5, 2.5, 3.5], layers=layers)[0] == 200
    again = show(("a", 128 - color.get_mag(1).to_dask()), with_layer(ds, "cells", DATA.astype("uint32"), IDS))
    assert again is viewer
    assert viewer.layers == ("a", "cells")
    state = viewer._server.state
    assert state["position"] == [1.5, 2.5, 3.5]
    assert [layer.get("visible", True) for layer in state["layers"]] == [False, True]
    assert state["layers"][0]["source"] == viewer._server.sources["a"] != before["a"]


def test_a_further_window(show, color):
    one = show(color)
    assert show(color, new=True).port != one.port
    assert show(color) is one
    one.close()
    assert show(color) is not one


def test_what_is_done_to_a_state_that_is_no_longer_shown_is_not_taken(show, color):
    viewer = show(color)
    old = viewer._server._generation
    show(color)
    stale = {"s": {}, "pg": old, "g": 1, "c": "browser"}
    assert get(state_url(viewer), json.dumps(stale).encode())[0] == 412
    assert get(state_url(viewer), b"no JSON")[0] == 400
    assert viewer._server.state["layers"]


def test_a_browser_hears_of_what_is_shown(show, color):
    viewer = show(color)
    url = f"http://127.0.0.1:{viewer.port}/events/{viewer._server.token}?c=browser&gs=&gc="
    heard = []
    with urllib.request.urlopen(url, timeout=60) as events:
        lines = (line for line in events if line.startswith(b"data: "))
        heard += [json.loads(next(lines)[6:]), json.loads(next(lines)[6:])]
        show(("b", 255 - color.get_mag(1).to_dask()))
        heard.append(json.loads(next(lines)[6:]))
    assert [each["k"] for each in heard] == ["c", "s", "s"]
    assert [layer["name"] for each in heard[1:] for layer in each["s"]["layers"]] == ["color", "b"]


def test_the_middle_is_in_the_middle(show, ds):
    layer = ds.add_layer("a", "color", dtype_per_channel="uint8")
    layer.add_mag(1, shard_shape=32).write(DATA, offset=(10, 20, 30))
    state = show(layer)._server.state
    assert state["position"] == [10 + 45.5, 20 + 35.5, 30 + 10.5]
    assert state["dimensions"] == {"x": [8e-9, "m"], "y": [8e-9, "m"], "z": [3e-8, "m"]}


def test_layers_are_images_or_segmentations(show, ds, color):
    with_layer(ds, "rgb", np.stack([DATA] * 3))
    with_layer(ds, "cells", DATA.astype("uint32"), IDS)
    states = {layer["name"]: layer for layer in show(ds)._server.state["layers"]}
    assert [states[name]["type"] for name in ("color", "rgb", "cells")] == ["image", "image", "segmentation"]
    assert "emitGrayscale" in states["color"]["shader"]
    assert "emitRGB" in states["rgb"]["shader"]
    low, high = states["color"]["shaderControls"]["normalized"]["range"]
    assert 1 <= low < high <= 255


def test_handles_show_themselves(show, ds, color):
    for handle in (ds, color, color.get_mag(1), color.get_mag(1).get_view(offset=(0, 0, 0), size=(4, 4, 4))):
        with handle.view(new=True) as viewer:
            assert viewer.layers == ("color",)


def test_in_a_notebook_it_is_shown_inline(show, color):
    viewer = show((lambda block: block, color))
    assert f'<iframe src="{viewer.url}"' in viewer._repr_html_()
    viewer.close()
    assert "<iframe" not in viewer._repr_html_()


def test_an_address_of_a_layer_that_is_not_shown(show, color):
    with pytest.raises(InvalidValueError, match="there are color"):
        show(color).zarr_url("cells")


def test_waiting_ends_when_the_viewer_is_closed(color):
    viewer = color.view(new=True)
    waiting = threading.Thread(target=viewer.wait)
    waiting.start()
    viewer.close()
    waiting.join(60)
    assert not waiting.is_alive()


def test_the_name_is_a_module_as_well():
    from wkdask.view import View

    assert wkdask.view.View is View is wkdask.View
    with pytest.raises(InvalidValueError, match="nothing to look at"):
        wkdask.view()
