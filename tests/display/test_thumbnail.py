"""Small pictures: which mag, which part, which pixels, and that nobody waits for them."""

import threading
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from reprs import IDS, with_layer

from wkdask import BoundingBox
from wkdask.display import thumbnail
from wkdask.display.preview import preview
from wkdask.display.thumbnail import Request, Thumbnails, draw, request_of_layer

NM = (8.0, 8.0, 30.0)


def opened(picture):
    return np.asarray(Image.open(BytesIO(picture.png)))


def views_of(layer):
    return [layer.get_mag(mag) for mag in sorted(layer.mags)]


def request(layer, is_ids=False):
    return request_of_layer(views_of(layer), layer.bounding_box, is_ids, NM)


def test_a_picture_is_the_middle_section(ds):
    data = np.random.default_rng(0).integers(0, 255, (70, 50, 9), np.uint8)
    layer = with_layer(ds, data=data)
    picture = draw(request(layer))
    np.testing.assert_array_equal(opened(picture), data[:, :, 4].T)  # grey: one byte a pixel
    assert (picture.width, picture.height) == (160, round(160 * 50 / 70))
    assert picture.caption == "mag 1, z = 4"


def test_ids_have_the_colours_of_previews(ds):
    ids = np.arange(40 * 30 * 3, dtype=np.uint32).reshape(40, 30, 3)
    layer = with_layer(ds, "cells", ids, IDS)
    picture = draw(request(layer, is_ids=True))
    assert picture.is_ids
    np.testing.assert_array_equal(opened(picture), preview(layer))


def test_three_channels(ds):
    data = np.random.default_rng(0).integers(0, 255, (3, 70, 50, 9), np.uint8)
    np.testing.assert_array_equal(
        opened(draw(request(with_layer(ds, data=data)))), data[..., 4].transpose(2, 1, 0)
    )


def test_the_coarsest_mag_that_has_enough_voxels(ds):
    layer = with_layer(ds, data=np.ones((300, 100, 4), np.uint8))
    layer.downsample(coarsest_mag=16)
    assert request(layer).view.mag == layer.get_mag("4-4-1").mag  # 75 × 25; mag 8 has 38 × 13
    assert request(with_layer(ds, "small", np.ones((8, 8, 8), np.uint8))).view.mag.max_dim == 1


def test_more_voxels_than_pixels_are_averaged(ds):
    data = np.zeros((400, 200, 1), np.uint8)
    data[::2] = 200
    pixels = opened(draw(request(with_layer(ds, data=data))))
    assert pixels.shape == (66, 133)  # by three
    assert {*np.unique(pixels)} == {66, 133}


def test_a_line_is_thinner_than_a_pixel(ds):
    assert opened(draw(request(with_layer(ds, data=np.full((400, 2, 1), 7, np.uint8))))).shape == (1, 134)


def test_of_a_large_section_the_middle_is_read(ds, monkeypatch):
    data = np.random.default_rng(0).integers(0, 255, (100, 60, 1), np.uint8)
    layer = with_layer(ds, data=data)
    monkeypatch.setattr(thumbnail, "_MAX_NBYTES", 4 * 16**3)
    picture = draw(request(layer))
    width, height = (int(n) for n in picture.caption.split("the middle ")[1].split(" × "))
    assert 16 <= width <= 32
    x, y = 50 - width // 2, 30 - height // 2
    np.testing.assert_array_equal(opened(picture), data[x : x + width, y : y + height, 0].T)
    monkeypatch.setattr(thumbnail, "_MAX_NBYTES", 16**3 - 1)  # not even one chunk
    assert draw(request(layer)) is None


def test_nothing_to_show(ds):
    layer = with_layer(ds)
    assert request_of_layer([], layer.bounding_box, False, NM) is None
    assert request_of_layer(views_of(layer), BoundingBox((0, 0, 0), (0, 0, 0)), False, NM) is None
    assert Thumbnails([None, None]).take(0) == [None, None]


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32", "float64", "uint64"])
def test_all_types(ds, dtype):
    data = (np.arange(70 * 50, dtype=np.float64).reshape(70, 50, 1) / 7).astype(dtype)
    pixels = opened(draw(request(with_layer(ds, data=data))))
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_what_is_not_done_in_time_is_left_out(ds, monkeypatch):
    good = request(with_layer(ds, "good"))
    slow = request(with_layer(ds, "slow"))
    reached, answer = threading.Event(), threading.Event()
    real = thumbnail.draw

    def late(asked: Request):
        if asked is slow:
            reached.set()
            answer.wait()
        return real(asked)

    monkeypatch.setattr(thumbnail, "draw", late)
    pictures = Thumbnails([good, slow, good])
    assert reached.wait(100)
    found = pictures.take(0)
    answer.set()
    assert found[0] is not None
    assert found[1:] == [None, None]


def test_what_fails_is_left_out(ds, monkeypatch):
    good, bad = request(with_layer(ds, "good")), request(with_layer(ds, "bad"))
    real = thumbnail.draw
    monkeypatch.setattr(thumbnail, "draw", lambda asked: real(asked) if asked is good else 1 / 0)
    first, second = Thumbnails([bad, good]).take(100)
    assert first is None
    assert second is not None
