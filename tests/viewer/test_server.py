"""The server: who is answered, what is served, and that a damaged cube is an error and not black."""

import importlib.util
import json
import os
import re
import socket
import threading

import numpy as np
import pytest
import zarr
from http_client import get
from reprs import with_layer
from viewer_slots import recorded_slots

from wkdask import BoundingBox, Vec3Int
from wkdask.errors import InvalidValueError, MissingPackageError
from wkdask.portable import cores
from wkdask.viewer.precomputed import chunk_name
from wkdask.viewer.scales import Scale, ShownLayer
from wkdask.viewer.server import Server

DATA = np.random.default_rng(0).integers(1, 255, (90, 70, 20), np.uint8)


def volume(viewer, name):
    return viewer._server.sources[name].removeprefix("precomputed://")


def first_chunk(viewer, name):
    scale = viewer._server.layers[name].scales[0]
    return f"{volume(viewer, name)}/{scale.name}/{chunk_name(scale.cell_box(scale.grid * 0))}"


@pytest.fixture
def color(ds):
    return with_layer(ds, "color", DATA)


def test_only_who_knows_the_token_is_answered(show, color):
    viewer = show(color)
    token = viewer._server.token
    data = (
        f"{volume(viewer, 'color')}/info",
        first_chunk(viewer, "color"),
        f"{viewer.zarr_url('color')}/zarr.json",
    )
    for url in (viewer.url, *data):
        assert get(url)[0] == 200
        for other in ("x", "", token[:-1]):
            assert get(url.replace(token, other))[0] in (403, 404)
            assert get(url.replace(token, other))[2] in (b"Forbidden\n", b"Not Found\n")
    root = f"http://127.0.0.1:{viewer.port}"
    assert get(root)[0] == 403
    wrong = token[:-1] + ("y" if token.endswith("x") else "x")
    assert get(f"{root}/state/{wrong}", b"{}")[0] == 403


def test_it_listens_on_this_machine_only(show, color):
    viewer = show(color)
    with socket.socket() as other, pytest.raises(OSError, match="refused"):
        other.connect(("127.0.0.2", viewer.port))


def test_no_file_beside_the_client_is_served(show, color):
    viewer = show(color)
    assert get(viewer.url + "..%2f..%2f__init__.py")[0] in (403, 404)
    assert get(viewer.url + "../../server.py")[0] in (403, 404)


def test_chunks_are_the_voxels(show, color):
    viewer = show(color)
    info = json.loads(get(f"{volume(viewer, 'color')}/info")[2])
    assert info["scales"][0]["size"] == list(DATA.shape)
    status, headers, body = get(first_chunk(viewer, "color"))
    assert status == 200
    np.testing.assert_array_equal(np.frombuffer(body, "u1").reshape((64, 64, 20), order="F"), DATA[:64, :64])
    assert get(first_chunk(viewer, "color"), **{"If-None-Match": headers["Etag"]})[0] == 304


@pytest.mark.parametrize("wrong", ["0-64_0-64_0-65", "nothing", "0-64"])
def test_what_is_not_there_is_404(show, color, wrong):
    viewer = show(color)
    chunks, arrays = volume(viewer, "color"), viewer.zarr_url("color")
    for url in (
        f"{chunks}/1/{wrong}",
        f"{chunks}/2/{wrong}",
        f"{chunks}x/info",
        f"{arrays}/1/c/0/9/0/0",
        f"{arrays}/1/c/{wrong}",
    ):
        assert get(url)[0] == 404


@pytest.mark.parametrize("data_format", ["wkw", "zarr3", "zarr"])
def test_a_reader_of_zarr_reads_a_mag_over_http(show, ds, data_format):
    layer = ds.add_layer(
        "a-layer", "color", num_channels=2, dtype_per_channel="uint16", data_format=data_format
    )
    data = np.random.default_rng(0).integers(1, 9999, (2, 90, 70, 20), np.uint16)
    layer.add_mag(1, chunk_shape=32).write(data, offset=(7, 8, 9))
    layer.downsample(coarsest_mag=2)
    group = zarr.open_group(show(layer).zarr_url("a-layer"), mode="r")
    expected = np.zeros((2, 97, 78, 29), np.uint16)
    expected[:, 7:, 8:, 9:] = data
    np.testing.assert_array_equal(group["1"][...], expected)
    scales = group.attrs["ome"]["multiscales"][0]["datasets"]
    for scale, mag in zip(scales, layer.mags.values(), strict=True):
        box = mag.box
        found = group[scale["path"]][(slice(None), *box.to_slices())]
        np.testing.assert_array_equal(found, mag.read())
        voxel = [1.0, *(side * step for side, step in zip(ds.voxel_size, mag.mag, strict=True))]
        assert scale["coordinateTransformations"][0]["scale"] == voxel


def test_a_damaged_cube_is_an_error_that_says_so(show, ds, color):
    viewer = show(color)
    store = color.get_mag(1).place.store
    path = store.cube_path(next(iter(store.cubes_on_disk())))
    os.truncate(path, os.path.getsize(path) - 7)
    status, _, body = get(first_chunk(viewer, "color"))
    assert status == 500
    assert re.search(rf"DamagedCubeError: .*{re.escape(path)}", body.decode())


def test_a_cube_that_is_rewritten_is_read_again(show, color):
    viewer = show(color)
    before = get(first_chunk(viewer, "color"))
    color.get_mag(1).write(255 - DATA)
    status, _, body = get(first_chunk(viewer, "color"), **{"If-None-Match": before[1]["Etag"]})
    assert status == 200
    np.testing.assert_array_equal(
        np.frombuffer(body, "u1").reshape((64, 64, 20), order="F"), 255 - DATA[:64, :64]
    )


@pytest.mark.parametrize("is_zarr", [False, True])
def test_what_the_browser_has_is_not_read_again(show, color, is_zarr):
    def address():
        return f"{viewer.zarr_url('color')}/1/c/0/0/0/0" if is_zarr else first_chunk(viewer, "color")

    viewer = show(color)
    status, headers, _ = get(address())
    assert status == 200
    server = viewer._server
    server.cache.forget({*server.layers["color"].scales})
    served = server.served
    status, again, body = get(address(), **{"If-None-Match": headers["Etag"]})
    assert (status, again["Etag"], body) == (304, headers["Etag"], b"")
    assert (server.served, server.cache.nbytes) == (served, 0)
    # another layer of the same name has other chunks
    show(("color", 255 - color.get_mag(1).to_dask()))
    status, other, _ = get(address(), **{"If-None-Match": headers["Etag"]})
    assert status == 200
    assert other["Etag"] != headers["Etag"]
    assert get(address(), **{"If-None-Match": other["Etag"]})[0] == 304


def test_a_chunk_that_nobody_waits_for_is_not_begun():
    box = BoundingBox((0, 0, 0), (64 * (cores() + 2), 64, 64))
    busy, go_on, begun = threading.Semaphore(0), threading.Event(), []

    def compute(part, region):
        begun.append(part.topleft.x // 64)
        busy.release()
        assert go_on.wait(60)
        return np.zeros((1, *part.size), np.uint8)

    scale = Scale("1", (4.0, 4.0, 40.0), box, np.dtype("uint8"), 1, compute)
    layer = ShownLayer("a", False, (scale,), contrast=(0, 1))
    server = Server((layer,), lambda sources: {})
    waiting, given_up = recorded_slots(server)
    try:
        asked = []
        for number in range(cores() + 1):  # the last one waits for a thread
            connection = socket.create_connection(("127.0.0.1", server.port))
            name = chunk_name(scale.cell_box(Vec3Int(number, 0, 0)))
            path = f"/data/{server.token}/precomputed/0/a/1/{name}"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            asked.append(connection)
            if number < cores():
                assert busy.acquire(timeout=60)
        for _ in range(cores() + 1):
            waiting.get(timeout=60)
        asked[-1].close()
        given_up.get(timeout=60)  # once it is heard that the browser has gone
        go_on.set()
        for connection in asked[:-1]:
            assert connection.recv(12) == b"HTTP/1.1 200"
            connection.close()
        assert sorted(begun) == list(range(cores()))
    finally:
        go_on.set()
        server.close()


def test_a_port_that_is_in_use_is_refused(show, color):
    viewer = show(color)
    with pytest.raises(InvalidValueError, match=f"port {viewer.port} of 127.0.0.1 cannot be used"):
        show(color, port=viewer.port, new=True)


def test_a_closed_viewer_answers_no_more(color):
    viewer = color.view(new=True)
    threads = {thread.name for thread in threading.enumerate()}
    assert "wkdask-view" in threads
    url = viewer.url
    viewer.close()
    viewer.close()
    with pytest.raises(OSError, match="refused"):
        get(url)
    assert viewer.is_closed
    assert "closed" in repr(viewer)
    assert "wkdask-view" not in {thread.name for thread in threading.enumerate()}


def test_without_neuroglancer_it_says_what_to_install(color, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=re.escape("pip install 'wkdask[view]'")):
        color.view(new=True)
