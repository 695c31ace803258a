"""The viewer in a real browser: what is on the screen. Pictures are kept in docs/_build/screenshots."""

import os
import time

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from repository import ROOT
from reprs import IDS, with_layer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]

SHAPE = (256, 256, 16)
READY = "typeof viewer !== 'undefined' && viewer.isReady()"


@pytest.fixture
def browser():
    with Browser((800, 600)) as opened:
        yield opened


@pytest.fixture
def picture(browser):
    """Return a function that opens a viewer, one plane alone, and returns the middle of the screen."""
    folder = ROOT / "docs" / "_build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)

    def take(viewer, name):
        server = viewer._server
        server.state = {**server.state, "layout": "xy", "showScaleBar": False, "showAxisLines": False}
        browser.open("about:blank")
        browser.open(viewer.url)
        browser.wait_until(f"{READY} && viewer.state.toJSON().layers?.length > 0")
        pixels = browser.screenshot(folder / f"{name}.png")
        return pixels[200:400, 300:500].astype(int)

    return take


def test_what_is_on_the_screen(show, ds, picture):
    x, y, _ = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    color = with_layer(ds, "color", (x // 2 + 64).astype("uint8"))  # brighter to the right
    color.downsample()
    found = picture(show(color), "image")
    columns = found.mean(axis=(0, 2))
    assert np.ptp(found, axis=2).max() == 0  # grey
    assert (np.diff(columns) >= -1).all()
    assert columns[-1] > columns[0] + 50
    # An expression before it is computed: darker to the right.
    inverted = picture(show(("inverted", 255 - color.get_mag(1).to_dask())), "expression")
    columns = inverted.mean(axis=(0, 2))
    assert columns[-1] < columns[0] - 50
    # Ids have colours, the same for the same id in every session.
    cells = with_layer(ds, "cells", (1 + (x >= 128) + 2 * (y >= 128)).astype("uint32"), IDS)
    first = picture(show(cells), "segmentation")
    corners = {tuple(first[row, column]) for row in (5, -5) for column in (5, -5)}
    assert len(corners) == 4
    assert all(np.ptp(corner) > 20 for corner in corners)
    np.testing.assert_array_equal(picture(show(cells, new=True), "segmentation-again"), first)


def test_the_same_window_shows_another_expression_where_the_user_is(show, ds, picture, browser):
    color = with_layer(ds, "color", np.full(SHAPE, 40, np.uint8))
    lazy = color.get_mag(1).to_dask()
    viewer = show(("a", lazy))
    picture(viewer, "before")
    browser.evaluate("viewer.navigationState.position.value = new Float32Array([60.5, 70.5, 3.5])")
    while viewer._server.state["position"] != [60.5, 70.5, 3.5]:
        browser.evaluate("1")  # until the browser has told where its user is
    asked = viewer._server.served
    show(("a", lazy * 5))
    browser.wait_until(f"{READY} && viewer.state.toJSON().layers[0].source.includes('/precomputed/1/')")
    assert viewer._server.served > asked
    assert browser.evaluate("Array.from(viewer.navigationState.position.value)") == [60.5, 70.5, 3.5]


def test_a_damaged_cube_is_told_in_the_browser(show, ds, browser):
    color = with_layer(ds, "color", np.random.default_rng(0).integers(1, 255, SHAPE, np.uint8))
    viewer = show(color)
    store = color.get_mag(1).place.store
    for cube in list(store.cubes_on_disk()):
        os.truncate(store.cube_path(cube), 100)
    browser.open(viewer.url)
    end = time.monotonic() + 120
    while not any("HTTP error 500" in line and "is damaged" in line for line in browser.console):
        assert time.monotonic() < end, browser.console[-5:]
        browser.evaluate("1")
