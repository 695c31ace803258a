"""Mags cut anew in place: the properties name a whole folder at every moment, and nothing stays beside it."""

import inspect
import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zygote import Zygote

from wkdask import BoundingBox, Dataset, MagView
from wkdask.errors import (
    DamagedHeaderError,
    InvalidValueError,
    JobRunningError,
    MagNotFoundError,
    ReadOnlyError,
    TaskFailedError,
    UnsupportedFormatError,
)
from wkdask.properties import MoveMag

BOX = BoundingBox((37, 5, 70), (90, 60, 50))


@pytest.fixture
def filled(make_mag, random_voxels):
    """Return a function that makes (mag, its voxels in `BOX`)."""

    def fill(**options):
        mag = make_mag(**options)
        voxels = random_voxels((mag.num_channels, *BOX.size), mag.get_dtype())
        mag.write(voxels, offset=BOX.topleft)
        return mag, voxels

    return fill


def entries(mag):
    """Return what is in the layer's folder, hidden things too."""
    return sorted(os.listdir(mag.layer.path))


def listed(mag):
    """Return the entry of the mag in the properties file."""
    raw = json.loads(Path(mag.place.dataset_path, "datasource-properties.json").read_text())
    (layer,) = raw["dataLayers"]
    (entry,) = layer["mags"]
    return entry


def reopened(mag):
    return Dataset(mag.place.dataset_path).get_layer("layer").get_mag(mag.mag)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["uint8", "uint32"]),
    st.integers(1, 2),
    st.lists(
        st.tuples(st.sampled_from([(32, 16), (64, 32), (16, 8)]), st.sampled_from([None, "lz4", "lz4hc"])),
        min_size=2,
        max_size=4,
    ),
)
def test_any_cut_after_any_other(filled, dtype, channels, cuts):
    (cube, chunk), compression = cuts[0]
    mag, voxels = filled(dtype=dtype, channels=channels, cube=cube, chunk=chunk, compression=compression)
    for (cube, chunk), compression in cuts[1:]:
        mag.rechunk(chunk, cube, compress=False, compression=compression)
        for each in (mag, reopened(mag)):
            assert each.spec.shard_shape == (cube,) * 3
            assert each.spec.chunk_shape == (chunk,) * 3
            assert each.spec.compression == compression
            assert np.array_equal(each.read(BOX.topleft, BOX.size), voxels)
            assert each.layer.bounding_box == BOX
        assert listed(mag)["cubeLength"] == cube
        assert entries(mag) == [Path(mag.path).name]
        assert Path(mag.place.dataset_path, listed(mag)["path"]).samefile(mag.path)


def test_the_usual_name_is_taken_again(filled):
    mag, _ = filled()
    report = mag.rechunk(16, 64, compression="lz4")
    assert entries(mag) == ["1_2"]
    assert report.cubes == len(list(mag.cubes_on_disk()))
    assert report.bytes == report.cubes * 64**3
    assert mag.rechunk(16, 64, compression="lz4") is None, "nothing to do"
    assert entries(mag) == ["1_2"]
    mag.rechunk(16, 32)
    assert entries(mag) == ["1"]
    assert listed(mag)["path"] == "./layer/1"
    mag.rechunk(16, 32, compress=False)  # only stored otherwise: cube by cube, where it is
    assert entries(mag) == ["1"]
    assert mag.spec.compression is None


def test_the_defaults_are_those_of_webknossos():
    defaults = inspect.signature(MagView.rechunk).parameters
    # None: 1024, but in Zarr 2, where every chunk is a file, the chunk's side
    assert [defaults[name].default for name in ("chunk_shape", "shard_shape", "compress")] == [32, None, True]


def test_voxels_beyond_the_layers_box_stay_and_gaps_cost_nothing(make_mag):
    mag = make_mag()
    corners = [(0, 0, 0), (3_200, 0, 64), (32, 640_000, 0)]
    for number, corner in enumerate(corners, 1):
        mag.write(np.full((3, 3, 3), number, "uint8"), offset=corner)
    mag.layer.bounding_box = BoundingBox((0, 0, 0), (5, 5, 5))
    report = mag.rechunk(16, 64, compress=False)
    assert report.cubes == 3
    assert [int(mag.read(corner, (3, 3, 3)).sum()) for corner in corners] == [27, 54, 81]
    assert mag.layer.bounding_box == BoundingBox((0, 0, 0), (5, 5, 5))


@pytest.mark.parametrize("data_format", ["zarr3", "zarr"])
def test_arrays_are_cut_anew_too(tmp_path, random_voxels, data_format):
    layer = Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer("layer", "color", data_format=data_format)
    sides = [(16, 32), (16, 64)] if data_format == "zarr3" else [(16, 16), (32, 32)]
    mag = layer.add_mag(1, chunk_shape=sides[0][0], shard_shape=sides[0][1])
    voxels = random_voxels((1, *BOX.size))
    mag.write(voxels, offset=BOX.topleft)
    mag.rechunk(*sides[1])
    for each in (mag, reopened(mag)):
        assert (each.spec.chunk_shape.x, each.spec.shard_shape.x) == sides[1]
        assert np.array_equal(each.read(BOX.topleft, BOX.size), voxels)
    # beside the mags: what makes them the scales of one image
    assert [name for name in entries(mag) if name[0].isdigit()] == ["1_2"]
    assert mag.layer.bounding_box == BOX
    assert "cubeLength" not in listed(mag)


def test_an_empty_mag(make_mag):
    mag = make_mag()
    assert mag.rechunk(16, 64, compression="lz4") is None
    assert (mag.spec.shard_shape, reopened(mag).spec.compression) == ((64, 64, 64), "lz4")
    mag.write(np.ones((4, 4, 4), "uint8"))
    assert mag.read().sum() == 64


def test_handles_follow_and_what_was_made_of_them_raises(filled):
    mag, voxels = filled()
    other = mag.layer.get_mag(1)
    elsewhere = reopened(mag)
    lazy, view = mag.to_dask(), elsewhere.get_view()
    mag.rechunk(16, 64)
    assert np.array_equal(other.read(), voxels)
    other.write(np.full((2, 2, 2), 9, "uint8"), offset=BOX.topleft)
    assert mag.read(BOX.topleft, (2, 2, 2)).sum() == 72
    for old in (view.read, lazy.compute, lambda: view.write(voxels)):
        with pytest.raises(DamagedHeaderError):
            old()
    assert entries(mag) == ["1_2"], "a write through an old view makes no folder"
    assert elsewhere.read(BOX.topleft, (2, 2, 2)).sum() == 72
    elsewhere.write(voxels, offset=BOX.topleft)
    assert np.array_equal(mag.read(), voxels)
    assert (elsewhere.path, elsewhere.spec) == (mag.path, mag.spec)


def test_it_is_read_meanwhile(filled):
    mag, voxels = filled()
    stop, seen = threading.Event(), []

    def look():
        while not stop.is_set():
            try:
                seen.append(np.array_equal(reopened(mag).read(), voxels))
            except DamagedHeaderError:  # opened before the switch, read after it
                seen.append(None)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for cube in (64, 32, 64, 32):
            mag.rechunk(16, cube, compress=False)
    finally:
        stop.set()
        thread.join()
    assert False not in seen
    assert seen.count(True) > 4


def test_keys_that_nobody_knows_stay(filled):
    mag, _ = filled()
    path = Path(mag.place.dataset_path, "datasource-properties.json")
    raw = json.loads(path.read_text())
    raw["dataLayers"][0]["mags"][0]["future"] = {"a": [1]}
    path.write_text(json.dumps(raw))
    mag.rechunk(16, 64)
    assert listed(mag)["future"] == {"a": [1]}
    assert listed(mag)["mag"] == [1, 1, 1]


def test_a_layer_of_2021_gets_a_list_that_can_hold_a_path(filled):
    mag, voxels = filled()
    path = Path(mag.place.dataset_path, "datasource-properties.json")
    raw = json.loads(path.read_text())
    layer = raw["dataLayers"][0]
    layer["wkwResolutions"] = [{"resolution": [1, 1, 1], "cubeLength": 32, "future": 1}]
    del layer["mags"]
    path.write_text(json.dumps(raw))
    mag = reopened(mag)
    mag.rechunk(16, 64)
    assert listed(mag)["path"] == "./layer/1_2"
    assert listed(mag)["future"] == 1
    assert np.array_equal(reopened(mag).read(), voxels)


def test_what_cannot_be_is_refused_before_anything_is_made(filled):
    mag, _ = filled()
    before = listed(mag)
    for arguments in ((3, 9), (32, 48), (256, 512)):
        with pytest.raises((InvalidValueError, UnsupportedFormatError)):
            mag.rechunk(*arguments)
    assert entries(mag) == ["1"]
    assert listed(mag) == before
    other = Dataset.create(Path(mag.place.dataset_path).parent / "other", (1, 1, 1)).add_layer(
        "layer", "color"
    )
    with pytest.raises(ReadOnlyError):
        other.add_symlink_mag(mag).rechunk(16, 64)
    assert entries(mag) == ["1"]


def test_a_failure_leaves_all_as_it_was(filled):
    mag, voxels = filled()
    damaged = Path(mag.place.store.cube_path(next(iter(mag.place.store.cubes_on_disk()))))
    sound = damaged.read_bytes()
    damaged.write_bytes(sound[:50])
    before = listed(mag)
    with pytest.raises(TaskFailedError, match="rechunking"):
        mag.rechunk(16, 64)
    assert entries(mag) == ["1"]
    assert listed(mag) == before
    damaged.write_bytes(sound)
    assert np.array_equal(mag.read(), voxels)
    mag.rechunk(16, 64)
    assert np.array_equal(mag.read(), voxels)


def test_who_writes_meanwhile_is_not_lost(filled, monkeypatch):
    mag, voxels = filled()
    writer = reopened(mag)
    from wkdask.layer import rechunk

    copy = rechunk.copy_cubes

    def copy_and_write(*arguments):
        report = copy(*arguments)
        writer.write(np.full((1, 9, 9, 9), 7, "uint8"), offset=BOX.topleft)
        return report

    monkeypatch.setattr(rechunk, "copy_cubes", copy_and_write)
    with pytest.raises(JobRunningError, match="written to"):
        mag.rechunk(16, 64)
    voxels[:, :9, :9, :9] = 7
    assert entries(mag) == ["1"]
    assert np.array_equal(mag.read(), voxels)


def test_of_two_who_try_one_does(filled, monkeypatch):
    mag, voxels = filled()
    other, refused = reopened(mag), []
    from wkdask.layer import rechunk

    copy = rechunk.copy_cubes

    def copy_while_another_tries(*arguments):
        with pytest.raises(JobRunningError, match="by another process") as caught:
            other.rechunk(16, 128)
        refused.append(caught.value)
        return copy(*arguments)

    monkeypatch.setattr(rechunk, "copy_cubes", copy_while_another_tries)
    mag.rechunk(16, 64)
    assert len(refused) == 1
    assert np.array_equal(reopened(mag).read(), voxels)


def test_a_folder_that_another_layer_lists_stays(filled):
    mag, voxels = filled()
    path = Path(mag.place.dataset_path, "datasource-properties.json")
    raw = json.loads(path.read_text())
    raw["dataLayers"].append({**raw["dataLayers"][0], "name": "twin"})
    raw["dataLayers"][1]["mags"][0]["path"] = "./layer/1"
    path.write_text(json.dumps(raw))
    mag.rechunk(16, 64)
    assert entries(mag) == ["1", "1_2"]
    assert np.array_equal(Dataset(mag.place.dataset_path).get_layer("twin").get_mag(1).read(), voxels)


@pytest.mark.cluster
def test_on_workers(filled, client):
    mag, voxels = filled()
    mag.rechunk(16, 64, compression="lz4")
    assert np.array_equal(reopened(mag).read(), voxels)
    assert entries(mag) == ["1_2"]


def test_the_edit_names_a_mag_that_is_not_there(filled):
    mag, _ = filled()
    raw = json.loads(Path(mag.place.dataset_path, "datasource-properties.json").read_text())
    with pytest.raises(MagNotFoundError):
        MoveMag("layer", 4, "./layer/4", 64).apply(raw)


# killed at any moment

PRELUDE = """if True:
    import os, signal, threading
    import dask, numpy as np, toolz, wkw.wkw
    import wkdask
    wkdask.Dataset, wkdask.BoundingBox  # imported now, not in a child
    from wkdask import kernels
    block = np.ones((1, 8, 8, 8), "uint8", order="F")
    kernels.block_stats(block), kernels.is_zero(block), kernels.to_fortran(block)

    def killed_at(number):
        # Before the numbered call that changes a name or flushes one; counted in all threads.
        calls, mutex = [0], threading.Lock()
        for name in ("rename", "replace", "mkdir", "unlink", "rmdir", "fsync", "link"):
            def counted(*args, real=getattr(os, name), **kwargs):
                with mutex:
                    calls[0] += 1
                    if calls[0] == number:
                        os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)
            setattr(os, name, counted)
        return calls
"""
RUN = """if True:
    calls = killed_at({number})
    wkdask.Dataset({path!r}).get_layer("layer").get_mag(1).rechunk(16, 64, compression="lz4", progress=False)
    with open({path!r} + "/../calls", "w") as file:
        file.write(str(calls[0]))
"""


@pytest.fixture(scope="module")
def zygote():
    with Zygote(PRELUDE) as zygote:
        yield zygote


def scene(tmp_path, voxels):
    shutil.rmtree(tmp_path / "ds", ignore_errors=True)
    mag = (
        Dataset.create(tmp_path / "ds", (1, 1, 1))
        .add_layer("layer", "color")
        .add_mag(1, chunk_shape=16, shard_shape=32)
    )
    mag.write(voxels, offset=(5, 40, 0), progress=False)
    return mag


def check_killed(tmp_path, zygote, numbers):
    voxels = np.random.default_rng(0).integers(1, 255, (1, 70, 30, 30)).astype("uint8", order="F")
    folders, ended = set(), []
    for number in numbers:
        mag = scene(tmp_path, voxels)
        child = zygote.start(RUN.format(number=number, path=str(tmp_path / "ds")))
        ended.append(zygote.wait(child))
        found = reopened(mag)
        folders.add(Path(found.path).name)
        assert np.array_equal(found.read((5, 40, 0), (70, 30, 30)), voxels), number
        found.rechunk(8, 128, compress=False)
        assert np.array_equal(reopened(mag).read((5, 40, 0), (70, 30, 30)), voxels), number
        assert entries(found) == [Path(found.path).name], number
    # What threads do at once takes a few calls more or less: the last numbers may not be reached.
    assert set(ended[:-6]) == {-9}
    assert set(ended[-6:]) <= {-9, 0}
    return folders


def count_calls(tmp_path, zygote):
    scene(tmp_path, np.ones((1, 70, 30, 30), "uint8"))
    child = zygote.start(RUN.format(number=0, path=str(tmp_path / "ds")))
    assert zygote.wait(child) == 0
    return int((tmp_path / "calls").read_text())


@pytest.mark.slow
def test_killed_around_the_switch(tmp_path, zygote):
    calls = min(count_calls(tmp_path, zygote) for _ in range(3))
    assert check_killed(tmp_path, zygote, range(calls - 30, calls, 2)) == {"1", "1_2"}


@pytest.mark.slow
def test_killed_at_every_call(tmp_path, zygote):
    calls = count_calls(tmp_path, zygote)
    assert check_killed(tmp_path, zygote, range(1, calls)) == {"1", "1_2"}


def test_a_draft_of_a_call_that_died_at_once_goes(filled):
    mag, voxels = filled()
    draft = Path(mag.layer.path, ".1_2.new")
    draft.mkdir()
    (draft / ".header.wkw.0123.tmp").write_bytes(b"half")
    other = Path(mag.layer.path, ".10.new")  # of mag 10: not ours
    other.mkdir()
    mag.rechunk(16, 64)
    assert np.array_equal(mag.read(), voxels)
    assert not draft.exists()
    assert os.listdir(mag.path) == [name for name in os.listdir(mag.path) if not name.endswith(".tmp")]
    assert other.exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("marker", ["FIFO", "link", "[]", "{}", '{"mag": "1"}', '{"mag": "1", "folder": 5}'])
def test_a_marker_that_no_call_has_left_is_none(filled, tmp_path, marker):
    mag, voxels = filled()
    private = Path(mag.layer.path, "other/.wkdask")
    private.mkdir(parents=True)
    if marker == "FIFO":
        os.mkfifo(private / "replaces")
    elif marker == "link":
        (tmp_path / "stranger").write_text('{"mag": "1", "folder": "../.."}')
        (private / "replaces").symlink_to(tmp_path / "stranger")
    else:
        (private / "replaces").write_text(marker)
    mag.rechunk(16, 32)
    assert np.array_equal(mag.read(), voxels)
    assert private.exists()
