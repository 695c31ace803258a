"""Reprs of notebooks: a tree without scripts, escaped, with a picture and the grid, that never waits."""

import re
import threading
import time
from html.parser import HTMLParser

import dask
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reprs import COLOR, IDS, edit, tags, with_layer

from wkdask import Dataset
from wkdask.display import thumbnail
from wkdask.display.facts import LayerFacts, MagFacts, plain
from wkdask.display.html import _layer, _page, _Pictures, dataset_html, layer_html
from wkdask.storage.wkw.mag import WkwMag

NAMES = {
    "div", "style", "strong", "span", "br", "details", "summary", "table", "thead", "tbody", "tr", "th", "td",
    "figure", "figcaption", "img", "svg", "title", "path", "text",
}  # fmt: skip
"""All tags that a repr is made of."""


class Details(HTMLParser):
    """Collects, for each <details>, whether it is open, and the text of its <summary>."""

    def __init__(self, text):
        super().__init__()
        self.found, self._inside = [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "details":
            self.found.append(["open" in dict(attrs), ""])
        self._inside = self._inside or tag == "summary"

    def handle_endtag(self, tag):
        self._inside = self._inside and tag != "summary"

    def handle_data(self, data):
        if self._inside:
            self.found[-1][1] += data


def test_html_says_what_the_text_says(ds):
    layer = with_layer(ds)
    html = ds._repr_html_()
    found = tags(html)
    assert found.names == NAMES
    for word in (
        "tissue",
        str(ds.path),
        "8 × 8 × 30 nm",
        "raw",
        "color, uint32",
        "2 cubes of 32³",
        "16³",
        "none",
    ):
        assert word in found.text
    assert "18.8 KiB" in tags(layer_html(layer)).text
    drawn = tags(layer.get_mag(1)._repr_html_())
    assert "svg" in drawn.names
    assert "2 cubes of 32³" in drawn.text
    for forbidden in (
        "<script",
        "javascript:",
        "onclick",
        "http",
        "url(",
    ):  # nothing runs, nothing is fetched
        assert forbidden not in html


def test_layers_can_be_folded_and_are_where_there_are_many(ds):
    for number in range(4):
        with_layer(ds, f"raw{number}", np.ones((8, 8, 8), np.uint8))
    about = " color, uint8, 8 × 8 × 8 voxels, 1 mag"
    assert Details(dataset_html(ds)).found == [[True, f"raw{number}{about}"] for number in range(4)]
    with_layer(ds, "raw4", np.ones((8, 8, 8), np.uint8))
    assert Details(dataset_html(ds)).found == [[False, f"raw{number}{about}"] for number in range(5)]
    assert Details(layer_html(ds.get_layer("raw4"))).found == [[True, f"raw4{about}"]]


def test_light_and_dark(ds):
    html = dataset_html(ds)
    assert "@media (prefers-color-scheme:dark)" in html
    assert "[data-jp-theme-light=false] .wkdask" in html
    assert "var(--jp-content-font-color0,inherit)" in html
    style = html[html.index("<style>") : html.index("</style>")]
    used = {*re.findall(r"(?<!:)var\((--wk-[a-z]+)\)", style)}
    for theme in re.findall(r"\{(--wk-soft:[^}]*)\}", style):
        assert used <= {*re.findall(r"(--wk-[a-z]+):", theme)}


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "a & b", "'\"><img src=x>", "\x1b[31mred\n\u202e"]
)
def test_hostile_names(ds, name):
    with_layer(ds)
    ds.name = name

    def change(properties):
        layer = dict(properties["dataLayers"][0], name=name.replace("/", "|"))
        layer["dataFormat"] = "zarr<b>"
        properties["dataLayers"].append(layer)

    edit(ds, change)
    html, text = ds._repr_html_(), repr(ds)
    found = tags(html)
    assert found.names == NAMES
    assert "zarr<b>" in found.text
    for output in (html, text):
        assert "\x1b" not in output
        assert "\u202e" not in output
    assert len(text.splitlines()) == 9
    if name.isprintable():
        assert name in found.text


@given(st.text(min_size=1, max_size=20))
def test_no_name_breaks_out(name):
    shown = plain(name)
    assert shown.isprintable()
    mags = (MagFacts(shown, (shown,) * 6, note=shown), MagFacts(shown, error=shown))
    facts = LayerFacts(shown, (shown, shown), mags, shown)
    found = tags(_page(_layer(facts, True, _Pictures())))
    assert found.names <= NAMES - {"img", "svg", "figure"}


def test_a_view_shows_its_part(ds):
    layer = with_layer(ds, "cells", np.arange(1, 40 * 20 * 6 + 1, dtype=np.uint32).reshape(40, 20, 6), IDS)
    view = layer.get_mag(1).get_view(offset=(4, 2, 1), size=(20, 10, 3), read_only=True)
    html = view._repr_html_()
    found = tags(html)
    assert found.names == NAMES - {"details", "summary", "strong", "span", "br", "thead"}
    for word in (
        "mag 1 of layer 'cells' (uint32)",
        "(4, 2, 1) + (20, 10, 3)",
        "20 × 10 × 3",
        "the view is read-only",
    ):
        assert word in found.text
    assert "class='wk-ids'" in html  # squares: a segmentation
    assert "mag 1, z = 2" in found.text
    ds.delete_layer("cells")
    assert "<img" not in view._repr_html_()


def test_a_mag_that_is_gone_is_left_to_its_text(ds):
    mag = with_layer(ds).get_mag(1)
    ds.delete_layer("raw")
    assert mag._repr_html_() is None


def test_layers_with_further_axes(tmp_path):
    from wkdask import NDBoundingBox

    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    box = NDBoundingBox((0, 0, 0, 0), (3, 8, 8, 8), ("t", "x", "y", "z"), (0, 1, 2, 3))
    layer = ds.add_layer("film", COLOR, data_format="zarr3", bounding_box=box)
    layer.add_mag(1, chunk_shape=8, shard_shape=8)
    assert "also along t" in tags(ds._repr_html_()).text


# --- pictures -----------------------------------------------------------------------------------------


def test_pictures_are_switched_off(ds):
    layer = with_layer(ds)
    mag = layer.get_mag(1)
    shown = (ds, layer, mag, mag.get_view())
    assert all("<img" in thing._repr_html_() for thing in shown)
    with dask.config.set({"wkdask.thumbnails": False}):
        assert all("<img" not in thing._repr_html_() for thing in shown)


def test_a_folder_that_does_not_answer_is_not_waited_for(ds, monkeypatch):
    with_layer(ds)
    answer = threading.Event()
    monkeypatch.setattr(WkwMag, "cubes_on_disk", lambda self: iter([answer.wait() and None][:0]))
    monkeypatch.setattr(WkwMag, "read", lambda self, box, threads=1: answer.wait())
    monkeypatch.setattr(thumbnail, "MAX_SECONDS", 0.2)
    start = time.monotonic()
    try:
        for thing in (ds, ds.get_layer("raw"), ds.get_layer("raw").get_mag(1)):
            assert "? cubes of 32³" in tags(thing._repr_html_()).text
            assert "<img" not in thing._repr_html_()
            assert "? cubes of 32³" in repr(thing)
        assert time.monotonic() - start < 60  # nine moments of 0.2 s, on however slow a machine
    finally:
        answer.set()


def test_what_cannot_be_read_has_no_picture(ds):
    layer = with_layer(ds)
    mag = layer.get_mag(1)
    for index in mag.place.store.cubes_on_disk():
        with open(mag.place.store.cube_path(index), "r+b") as file:
            file.truncate(20)
    html = ds._repr_html_()
    assert "<img" not in html
    assert "<svg" in html
