"""The table of faults, cases 36 and 37: mags and cubes that are elsewhere: linked, or at a URL."""

import contextlib
import os
import pickle
import shutil
import socket
import threading
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
from small_datasets import edit, first, two_layers
from small_datasets import raw as read_raw

from wkdask import Dataset, Mag
from wkdask.errors import (
    InvalidValueError,
    OutsideError,
    ReadOnlyError,
    StoreError,
    TaskFailedError,
    UnsupportedFormatError,
)
from wkdask.objects.urls import is_url


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return two_layers(tmp_path_factory.mktemp("template") / "ds")


@pytest.fixture
def dataset(template, tmp_path):
    """A copy of the template."""
    shutil.copytree(template.path, tmp_path / "ds")
    return Dataset(tmp_path / "ds")


# --- 36: what leads outside -----------------------------------------------------------------------------

VOXELS = np.full((40, 40, 40), 5, "uint8")


def lead_out(dataset, other, how):
    """Let mag 1 of a dataset's first layer, or one of its cubes, be in another dataset."""
    mine, theirs = Path(dataset.path, "color"), Path(other.path, "color")
    if how in ("absolute", "relative"):
        path = str(theirs / "1") if how == "absolute" else "./../other/color/1"
        edit(dataset, lambda raw: first(raw)["mags"][0].update(path=path))
        return
    name = {"layer": ".", "mag": "1", "z folder": "1/z0", "y folder": "1/z0/y0", "cube": "1/z0/y0/x0.wkw"}[
        how
    ]
    link = mine / name
    shutil.rmtree(link) if link.is_dir() else link.unlink()
    link.symlink_to(theirs / name)


@pytest.fixture
def other(tmp_path):
    """A dataset whose layer "color" has mags 1 and 2 of fives."""
    other = Dataset.create(tmp_path / "other", (1, 1, 1))
    layer = other.add_layer("color", "color", dtype_per_channel="uint8")
    for mag in (1, 2):
        layer.add_mag(mag, chunk_shape=16, shard_shape=32).write(VOXELS, offset=(0, 0, 0))
    return other


def files(dataset):
    """Return all files of a dataset with their content, but for the private ones."""
    return {
        path: path.read_bytes()
        for path in Path(dataset.path).rglob("*")
        if path.is_file() and ".wkdask" not in path.parts
    }


def send(mag):
    with mag.get_buffered_slice_writer(offset=(0, 0, 0)) as writer:
        writer.send(VOXELS[..., 0])


def writes(mag):
    """Return every way to write to a mag."""
    return [
        lambda: mag.write(VOXELS * 0, offset=(0, 0, 0)),
        lambda: mag.write(VOXELS[:3, :3, :3] + 1, offset=(1, 1, 1)),
        lambda: mag.write(da.from_array(VOXELS[:9], chunks=4), offset=(0, 0, 0)),
        lambda: mag.get_view((0, 0, 0), (9, 9, 9)).write(VOXELS[:9, :9, :9]),
        lambda: mag.for_each_chunk(lambda chunk: chunk[0].write(chunk[0].read() + 1)),
        lambda: mag.compress(),
        lambda: send(mag),
    ]


MAGS = ["absolute", "relative", "layer", "mag"]
CUBES = ["z folder", "y folder", "cube"]


@pytest.mark.parametrize("how", MAGS)
def test_case_36_a_mag_that_is_elsewhere_opens_read_only_and_says_so(dataset, other, how):
    lead_out(dataset, other, how)
    before = files(other)
    for opened in (Dataset(dataset.path), Dataset.open(dataset.path), pickle.loads(pickle.dumps(dataset))):
        layer = opened.get_layer("color")
        mag = layer.get_mag(1)
        assert mag.read_only
        assert (mag.read(offset=(0, 0, 0), size=(40, 40, 40)) == 5).all()
        assert (mag.to_dask()[:, :40, :40, :40].compute() == 5).all()
        assert "read-only" in repr(mag)
        real = os.path.realpath(mag.path)
        assert f"read-only: it is linked from {real}, outside of the dataset" in repr(opened)
        assert "outside of the dataset" in opened._repr_html_()
    for call in writes(mag):
        with pytest.raises((ReadOnlyError, TaskFailedError)) as caught:
            call()
        assert "outside of the dataset" in str(caught.value)
    layer.delete_mag(1)  # takes it from the list, not from the other's disk
    assert files(other) == before
    assert list(layer.mags) == [Mag(2)]


@pytest.mark.parametrize("how", CUBES)
def test_case_36_a_cube_that_is_elsewhere_is_read_and_not_written(dataset, other, how):
    lead_out(dataset, other, how)
    before = files(other)
    mag = Dataset(dataset.path).get_layer("color").get_mag(1)
    assert (mag.read(offset=(0, 0, 0), size=(32, 32, 32)) == 5).all()
    for call in writes(mag):
        with pytest.raises((ReadOnlyError, TaskFailedError), match="outside of the dataset"):
            call()
    assert files(other) == before


@pytest.mark.parametrize("how", [*MAGS, "address"])
def test_case_36_refused_at_open_if_asked_for(dataset, other, how):
    if how == "address":
        edit(dataset, lambda raw: first(raw)["mags"][0].update(path="https://example.org/color/1"))
    else:
        lead_out(dataset, other, how)
    for opening in (Dataset, Dataset.open):
        with pytest.raises(
            OutsideError, match=r"layer 'color' mag 1: it is .* outside of the dataset"
        ) as caught:
            opening(dataset.path, outside="refuse")
        assert isinstance(caught.value, PermissionError)
    Dataset(other.path, outside="refuse")


def test_case_36_refused_when_it_comes_to_be_later(dataset, other):
    opened = Dataset(dataset.path, outside="refuse")
    again = pickle.loads(pickle.dumps(opened))
    lead_out(dataset, other, "mag")
    for each in (opened, again):
        with pytest.raises(OutsideError):
            each.get_layer("color").get_mag(1)
        assert (each.get_layer("color").get_mag(2).read(offset=(0, 0, 0), size=(20, 20, 20)) == 2).all()
    with pytest.raises(OutsideError):
        pickle.loads(pickle.dumps(opened))


@pytest.mark.parametrize("how", CUBES)
def test_case_36_refused_cubes_are_not_even_read(dataset, other, how):
    lead_out(dataset, other, how)
    before = files(other)
    mag = Dataset(dataset.path, outside="refuse").get_layer("color").get_mag(1)
    for call in (mag.read, mag.to_dask().compute, lambda: mag.read(offset=(3, 3, 3), size=(1, 1, 1))):
        with pytest.raises(OutsideError, match=r"x0\.wkw leads to .*, outside of the dataset"):
            call()
    assert (mag.read(offset=(0, 0, 32), size=(40, 40, 8)) == 1).all()
    for call in writes(mag):
        with pytest.raises((ReadOnlyError, TaskFailedError, OutsideError), match="outside of the dataset"):
            call()
    assert files(other) == before


@pytest.mark.parametrize("how", [*MAGS, *CUBES])
def test_case_36_written_if_asked_for(dataset, other, how):
    lead_out(dataset, other, how)
    opened = Dataset(dataset.path, outside="write")
    for mag in (
        opened.get_layer("color").get_mag(1),
        pickle.loads(pickle.dumps(opened)).get_layer("color").get_mag(1),
    ):
        assert not mag.read_only
        expected = mag.read(offset=(0, 0, 0), size=(40, 40, 40))
        for value in (8, 9):
            mag.write(VOXELS[:4, :5, :6] * 0 + value, offset=(1, 2, 3))
            mag.write(da.full((4, 5, 6), value + 1, dtype="uint8", chunks=3), offset=(20, 20, 20))
            expected[:, 1:5, 2:7, 3:9], expected[:, 20:24, 20:25, 20:26] = value, value + 1
            assert np.array_equal(mag.read(offset=(0, 0, 0), size=(40, 40, 40)), expected)
    theirs = other.get_layer("color").get_mag(1).read(offset=(0, 0, 0), size=(32, 32, 32))
    assert np.array_equal(theirs, expected[:, :32, :32, :32])
    if how in CUBES:
        assert Path(
            dataset.path, "color", {"z folder": "1/z0", "y folder": "1/z0/y0", "cube": "1/z0/y0/x0.wkw"}[how]
        ).is_symlink()


@pytest.mark.parametrize("word", ["", "Write", "readonly", None, True])
def test_case_36_an_unknown_word_is_refused(dataset, word):
    with pytest.raises(InvalidValueError, match='"read-only", "refuse", "write"'):
        Dataset(dataset.path, outside=word)


# --- 37: addresses --------------------------------------------------------------------------------------


@pytest.fixture
def listening():
    """The port of a server that counts who connects, and the list of them."""
    connected = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        stop = threading.Event()

        def accept():
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = server.accept()
                    connected.append(1)
                    connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1], connected
        stop.set()
        thread.join()


@pytest.mark.parametrize("scheme", ["http", "https", "s3", "HTTP", "ftp", "gs", "zip::http"])
def test_case_37_opening_connects_nowhere(dataset, listening, tmp_path, scheme):
    port, connected = listening
    url = f"{scheme}://127.0.0.1:{port}/color/1"
    edit(dataset, lambda raw: first(raw)["mags"][0].update(path=url))
    opened = Dataset(dataset.path)
    layer = opened.get_layer("color")
    assert list(layer.mags) == [Mag(1), Mag(2)]
    mag = layer.get_mag(2)
    assert (mag.read(offset=(0, 0, 0), size=(20, 20, 20)) == 2).all()
    mag.write(VOXELS[:3, :3, :3], offset=(20, 0, 0))
    layer.add_mag(4, shard_shape=32)
    layer.name = "renamed"
    assert first(read_raw(dataset))["mags"][0]["path"] == url
    assert opened.get_layer("seg").get_mag(1).read().any()
    layer.delete_mag(1)
    assert list(layer.mags) == [Mag(2), Mag(4)]
    assert connected == []
    edit(dataset, lambda raw: first(raw)["mags"][0].update(path=url))
    layer = opened.get_layer("renamed")
    known = is_url(url)
    with dask.config.set({"wkdask.store-retries": 0}):
        for call in (
            lambda: layer.get_mag(2),
            lambda: layer.mags[Mag(2)],
            lambda: opened.copy_dataset(tmp_path / "copy"),
        ):
            with pytest.raises(StoreError if known else UnsupportedFormatError) as caught:
                call()
            assert url in str(caught.value)
    assert url in repr(opened)  # asks once, whatever the setting says
    opened._repr_html_()
    assert known or connected == []
    opened.delete_layer("renamed")
