"""Datasets copied between formats and cuts: the same voxels and properties, never half a layer, resumed exactly."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thorough import mostly_slow

from wkdask import BoundingBox, Dataset, DatasetViewConfiguration, LayerViewConfiguration, Mag
from wkdask.errors import (
    AlreadyExistsError,
    DamagedHeaderError,
    InvalidValueError,
    JobRunningError,
    LayerNotFoundError,
    PlanError,
    ReadOnlyError,
    ResumeError,
    TaskFailedError,
    UnsupportedFormatError,
    WkdaskWarning,
)
from wkdask.fsio import lock
from wkdask.jobs.engines.local import LocalEngine
from wkdask.jobs.events import JobFinished, JobStarted, UnitDone
from wkdask.storage.publish.jobs import unfinished_jobs

BOX = BoundingBox((6, 10, 14), (71, 53, 40))
"""Off the grid of the coarser mags."""
MAGS = ["1", "2-2-1", "4-4-1"]


@pytest.fixture
def original(tmp_path, random_voxels):
    """A dataset of two layers with three mags each, and all that may go with them."""
    ds = Dataset.create(tmp_path / "a" / "original", (4, 4, 35))
    ds.default_view_configuration = DatasetViewConfiguration(zoom=0.5, position=(1, 2, 3))
    color = ds.add_layer("color", "color", num_channels=3)
    cells = ds.add_layer(
        "cells", "segmentation", dtype_per_channel="uint32", mappings=["agglomerate"], largest_segment_id=77
    )
    for layer in (color, cells):
        voxels = random_voxels((layer.num_channels, *BOX.size), layer.dtype_per_channel)
        layer.add_mag(1, chunk_shape=16, shard_shape=32, compression="lz4").write(voxels, offset=BOX.topleft)
        layer.downsample_mag_list(1, ["2-2-1", "4-4-1"])
    color.default_view_configuration = LayerViewConfiguration(alpha=40, color=(255, 0, 10))
    (Path(cells.path) / "agglomerates").mkdir()
    (Path(cells.path) / "agglomerates" / "file.hdf5").write_bytes(b"agglomerates")
    edit(
        ds,
        "cells",
        coordinateTransformations=[{"type": "affine", "matrix": [[1, 0], [0, 1]]}],
        attachments={"agglomerates": [{"name": "file", "path": "./cells/agglomerates/file.hdf5"}]},
        somebodysKey={"of": "another program"},
    )
    return ds


def raw_of(path):
    return json.loads(Path(path, "datasource-properties.json").read_text())


def edit(ds, name, **keys):
    """Set keys of a layer as another program would."""
    content = raw_of(ds.path)
    for layer in content["dataLayers"]:
        if layer["name"] == name:
            layer.update(keys)
    path = Path(ds.path, "datasource-properties.json")
    path.with_suffix(".new").write_text(json.dumps(content))
    path.with_suffix(".new").rename(path)


def voxels_of(ds, name="color", mags=MAGS):
    return {mag: ds.get_layer(name).get_mag(mag).read() for mag in mags}


def cube_files(mag):
    """Return {path: inode} of the cubes of a mag."""
    paths = [mag.place.store.cube_path(box.topleft // box.size) for box in mag.cubes_on_disk()]
    return {path: os.stat(path).st_ino for path in paths}


def damage(mag, number=-1):
    """Cut a cube short; return its path and what it held."""
    path = Path(sorted(cube_files(mag))[number])
    content = path.read_bytes()
    path.write_bytes(content[:30])
    return path, content


# --- formats and cuts -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("data_format", ["wkw", "zarr3", "zarr"])
def test_everything_goes_with_a_copy_and_comes_back(original, tmp_path, data_format):
    there = original.copy_dataset(tmp_path / "there", data_format=data_format, chunk_shape=8)
    back = there.copy_dataset(tmp_path / "back", data_format="wkw", chunk_shape=16, shard_shape=32)
    assert {layer.data_format for layer in there.layers.values()} == {data_format}
    for copy in (there, back):
        assert copy.voxel_size == original.voxel_size
        assert copy.default_view_configuration == original.default_view_configuration
        for name in original.layers:
            mine, theirs = (
                next(e for e in raw_of(d)["dataLayers"] if e["name"] == name)
                for d in (copy.path, original.path)
            )
            stored = {"dataFormat", "mags", "wkwResolutions"}
            assert {k: v for k, v in mine.items() if k not in stored} == {
                k: v for k, v in theirs.items() if k not in stored
            }
            for mag, voxels in voxels_of(original, name).items():
                assert np.array_equal(copy.get_layer(name).get_mag(mag).read(), voxels)
        assert Path(copy.path, "cells", "agglomerates", "file.hdf5").read_bytes() == b"agglomerates"
        assert original.first_difference(copy) is None
    assert back.get_layer("color").get_mag(1).spec.compression == "lz4"


CUTS = st.sampled_from(
    [("wkw", 8, 16), ("wkw", 16, 64), ("zarr3", 8, 24), ("zarr3", 16, 16), ("zarr", 12, 12)]
)


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    source=CUTS,
    target=CUTS,
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    channels=st.integers(1, 2),
    plain=st.tuples(st.booleans(), st.booleans()),
    clip=st.none()
    | st.builds(BoundingBox, st.tuples(*[st.integers(0, 60)] * 3), st.tuples(*[st.integers(1, 70)] * 3)),
)
def test_any_cut_into_any_other_and_any_box(
    tmp_path_factory, random_voxels, source, target, dtype, channels, plain, clip
):
    folder = tmp_path_factory.mktemp("copies")
    ds = Dataset.create(folder / "source", (1, 1, 1))
    layer = ds.add_layer(
        "layer", "color", dtype_per_channel=dtype, num_channels=channels, data_format=source[0]
    )
    compression = {"wkw": "lz4", "zarr3": "zstd", "zarr": "zstd"}
    voxels = {}
    for mag in ("1", "2"):
        view = layer.add_mag(
            mag,
            chunk_shape=source[1],
            shard_shape=source[2],
            compression=False if plain[0] else compression[source[0]],
        )
        box = BOX if mag == "1" else BOX.aligned_outwards((2, 2, 2)).in_mag("2")
        voxels[mag] = random_voxels((channels, *box.size), dtype)
        view.write(voxels[mag], offset=box.topleft)
    expected = {}
    wanted = BOX if clip is None else BOX.intersection(clip)
    for mag, step in (("1", 1), ("2", 2)):
        everything = np.zeros((channels, 96, 96, 96), dtype)
        box = BOX.aligned_outwards((step,) * 3).in_mag(mag)
        everything[(slice(None), *box.to_slices((0, 0, 0)))] = voxels[mag]
        expected[mag] = np.zeros_like(everything)
        if not wanted.is_empty():
            part = (slice(None), *wanted.aligned_outwards((step,) * 3).in_mag(mag).to_slices((0, 0, 0)))
            expected[mag][part] = everything[part]
    arguments = {
        "data_format": target[0],
        "chunk_shape": target[1],
        "shard_shape": target[2],
        "compression": None if plain[1] else compression[target[0]],
        "bounding_box": clip,
    }
    if wanted.is_empty():
        with pytest.raises(InvalidValueError, match="touches no layer"):
            ds.copy_dataset(folder / "copy", **arguments)
        assert not (folder / "copy").exists()
    else:
        copied = ds.copy_dataset(folder / "copy", **arguments).get_layer("layer")
        assert copied.bounding_box == wanted
        for mag, array in expected.items():
            assert np.array_equal(copied.get_mag(mag).read((0, 0, 0), (96, 96, 96)), array)
            assert copied.get_mag(mag).spec.shard_shape == (target[2],) * 3
    shutil.rmtree(folder)


def test_files_are_copied_as_they_are_and_only_those_of_a_box_as_voxels(original, tmp_path):
    copy = original.copy_dataset(tmp_path / "copy")
    part = original.copy_dataset(tmp_path / "part", bounding_box=BoundingBox((32, 0, 0), (32, 32, 64)))
    mine, theirs, parts = (ds.get_layer("color").get_mag(1) for ds in (copy, original, part))
    for path in cube_files(theirs):
        name = os.path.relpath(path, theirs.path)
        assert Path(mine.path, name).read_bytes() == Path(path).read_bytes()
    whole = BoundingBox((32, 32, 0), (32, 32, 32))
    assert parts.layer.bounding_box == BoundingBox((32, 10, 14), (32, 22, 40))
    assert {tuple(box.topleft) for box in parts.cubes_on_disk()} == {(32, 0, 0), (32, 0, 32)}
    assert not parts.read(whole.topleft, whole.size).any()


@pytest.mark.parametrize(("source", "target"), [("zarr", "wkw"), ("zarr", "zarr3"), ("zarr3", "wkw")])
def test_a_cut_that_a_format_cannot_have_becomes_its_own(tmp_path, source, target):
    layer = Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer("layer", "color", data_format=source)
    chunk = (1, 24, 24) if source == "zarr" else (20, 20, 20)
    layer.add_mag(1, chunk_shape=chunk, shard_shape=chunk).write(np.ones((5, 5, 5), "uint8"))
    spec = (
        layer.dataset.copy_dataset(tmp_path / "copy", data_format=target).get_layer("layer").get_mag(1).spec
    )
    assert (spec.chunk_shape, spec.shard_shape) == (
        ((32,) * 3, (1024,) * 3) if target == "wkw" else (chunk, (1024, 1008, 1008))
    )
    with pytest.raises((UnsupportedFormatError, InvalidValueError)):
        layer.dataset.copy_dataset(tmp_path / "other", data_format="wkw", chunk_shape=20)
    assert not (tmp_path / "other").exists()


def test_cubes_that_no_task_can_hold(original, tmp_path, monkeypatch):
    expected = voxels_of(original, "cells")
    monkeypatch.setattr(LocalEngine, "task_memory", lambda self: 400_000)
    arguments = {"layers": ["cells"], "chunk_shape": 16, "shard_shape": 64}
    for name, more in (("lz4", {}), ("hc", {"compression": "lz4hc"}), ("zarr", {"data_format": "zarr3"})):
        plan = original.plan_copy(**arguments, **more)
        assert plan.plans["cells", Mag(1)].part is not None
        copy = original.copy_dataset(tmp_path / name, **arguments, **more)
        for mag, voxels in expected.items():
            assert np.array_equal(copy.get_layer("cells").get_mag(mag).read(), voxels)
        assert copy.get_layer("cells").bounding_box == BOX
    assert (
        original.copy_dataset(tmp_path / "files", layers=["cells"]).first_difference(original, ["cells"])
        is None
    )


@pytest.mark.slow
def test_on_a_cluster(client, original, tmp_path):
    copy = original.copy_dataset(tmp_path / "copy", data_format="zarr3", client=client)
    assert original.first_difference(copy, client=client) is None
    damage(copy.get_layer("cells").get_mag("2-2-1"))
    with pytest.raises(TaskFailedError, match="damaged"):
        original.first_difference(copy, client=client)


# --- what goes wrong ------------------------------------------------------------------------------------


TROUBLES = ("address", "header", "folder", "memory", "name", "box", "cube")


@pytest.mark.parametrize(
    ("trouble", "there"),
    mostly_slow(itertools.product(TROUBLES, [False, True]), lambda n, _: n % 2 == n // 2 % 2),
)
def test_what_fails_at_once_leaves_nothing(original, tmp_path, there, trouble, monkeypatch):
    target, arguments, error = tmp_path / "copy", {}, DamagedHeaderError
    if there:
        target.mkdir()
    mag = original.get_layer("cells").get_mag("4-4-1")
    if trouble == "address":
        (entry,) = (each for each in raw_of(original.path)["dataLayers"] if each["name"] == "cells")
        entry["mags"][0]["path"] = "ftp://example.org/1"
        edit(original, "cells", mags=entry["mags"])
        error = UnsupportedFormatError
    elif trouble == "header":
        Path(mag.path, "header.wkw").write_bytes(b"WKW")
    elif trouble == "folder":
        shutil.rmtree(mag.path)
    elif trouble == "memory":
        monkeypatch.setattr(LocalEngine, "task_memory", lambda self: 1000)
        arguments, error = {"compression": None}, PlanError
    elif trouble == "name":
        arguments, error = {"layers": ["nobody"]}, LayerNotFoundError
    elif trouble == "box":
        arguments, error = {"bounding_box": BoundingBox((900, 0, 0), (5, 5, 5))}, InvalidValueError
    else:  # seen by the tasks only
        arguments, error = {"layers": ["color"]}, TaskFailedError
        for number in range(len(cube_files(mag.layer.dataset.get_layer("color").get_mag(1)))):
            damage(original.get_layer("color").get_mag(1), number)
    with pytest.raises(error):
        original.copy_dataset(target, **arguments)
    assert target.exists() == there
    assert not there or os.listdir(target) == []


def test_a_folder_that_holds_something_is_refused(original, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("copy", "file"):
        for resume in (False, True):
            with pytest.raises(AlreadyExistsError):
                original.copy_dataset(tmp_path / name, resume=resume)
    assert os.listdir(tmp_path / "copy") == ["mine"]


@pytest.mark.slow
def test_a_failed_copy_lists_whole_layers_only_and_goes_on_where_it_stopped(original, tmp_path):
    expected = {name: voxels_of(original, name) for name in ("color", "cells")}
    path, content = damage(original.get_layer("cells").get_mag("2-2-1"))
    target, arguments = tmp_path / "copy", {"data_format": "zarr3", "chunk_shape": 8, "shard_shape": 16}
    with pytest.raises(TaskFailedError) as caught:
        original.copy_dataset(target, **arguments)
    assert "resume=True" in "".join(caught.value.__notes__)
    half = Dataset(target)
    assert list(half.layers) == ["color"]
    for mag, voxels in expected["color"].items():
        assert np.array_equal(half.get_layer("color").get_mag(mag).read(), voxels)
    with pytest.raises(AlreadyExistsError, match="resume=True"):
        original.copy_dataset(target, **arguments)
    for other in (
        {"data_format": "zarr3"},
        {**arguments, "layers": ["color"]},
        {**arguments, "scale": (1, 2, 3)},
    ):
        with pytest.raises(ResumeError, match="voxel size" if "scale" in other else "cells"):
            original.copy_dataset(target, **other, resume=True)
    before = {
        name: os.stat(name).st_ino for name in map(str, target.rglob("c/*/*/*/*")) if ".wkdask" not in name
    }
    assert len(before) > 10
    (target / "mine").write_text("mine")
    with pytest.raises(TaskFailedError):
        original.copy_dataset(target, **arguments, resume=True)
    assert (target / "mine").exists()
    path.write_bytes(content)
    events = []
    copy = original.copy_dataset(target, **arguments, resume=True, progress=events.append)
    for name, arrays in expected.items():
        for mag, voxels in arrays.items():
            assert np.array_equal(copy.get_layer(name).get_mag(mag).read(), voxels)
    assert original.first_difference(copy) is None
    done = {name: os.stat(name).st_ino for name in before}
    assert done.items() >= {k: v for k, v in before.items() if "/color/" in k or "/cells/1/" in k}.items()
    (started,) = [event for event in events if isinstance(event, JobStarted)]
    (finished,) = [event for event in events if isinstance(event, JobFinished)]
    tasks = sum(isinstance(event, UnitDone) for event in events)
    assert started.units == started.units_before + tasks
    assert started.cubes_before > 0
    assert finished.report.cubes == started.cubes
    assert original.copy_dataset(target, **arguments, resume=True).path == str(target), (
        "nothing is left to do"
    )


def test_what_is_not_flushed_is_not_resumed(original, tmp_path):
    target = tmp_path / "copy"
    with pytest.raises(InvalidValueError, match="durable=True"):
        original.copy_dataset(target, durable=False, resume=True)
    assert not target.exists()
    path, content = damage(original.get_layer("cells").get_mag("2-2-1"))
    with pytest.raises(TaskFailedError):
        original.copy_dataset(target, durable=False)
    assert not target.exists()
    path.write_bytes(content)
    assert original.first_difference(original.copy_dataset(target, durable=False)) is None


def test_a_source_that_changed_is_copied_anew_where_its_layer_is_not_complete(original, tmp_path):
    cells = original.get_layer("cells")
    path, content = damage(cells.get_mag("4-4-1"))
    with pytest.raises(TaskFailedError):
        original.copy_dataset(tmp_path / "copy")
    path.write_bytes(content)
    cells.get_mag(1).write(np.zeros(BOX.size, "uint32"), offset=BOX.topleft)
    copy = original.copy_dataset(tmp_path / "copy", resume=True)
    assert not copy.get_layer("cells").get_mag(1).read().any()
    assert original.first_difference(copy) is None


KILLED = """
import signal
from wkdask import Dataset
from wkdask.jobs.events import UnitDone

source, target, number, after = args
seen = 0

def stop(event):
    global seen
    if isinstance(event, UnitDone):
        seen += 1
        if seen == after:
            os.kill(os.getpid(), number)

try:
    with dask.config.set(num_workers=2):
        Dataset(source).copy_dataset(target, data_format="zarr3", chunk_shape=8, shard_shape=16, progress=stop)
except SystemExit as end:
    os._exit(end.code)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "after"), [(signal.SIGKILL, 1), (signal.SIGKILL, 12), (signal.SIGTERM, 7), (signal.SIGINT, 7)]
)
def test_a_copy_that_is_killed_goes_on(original, tmp_path, children, number, after):
    target = tmp_path / "copy"
    child = children.start(KILLED, str(original.path), str(target), int(number), after)
    ended = children.wait(child)
    wanted = {signal.SIGKILL: (-signal.SIGKILL,), signal.SIGTERM: (143,), signal.SIGINT: (1, -2, 130)}
    assert ended.code in wanted[number], ended.out
    listed = Dataset(target).layers
    assert "cells" not in listed
    for name in listed:
        assert original.first_difference(Dataset(target), [name]) is None
    copy = original.copy_dataset(
        target, data_format="zarr3", chunk_shape=8, shard_shape=16, resume=True, progress=False
    )
    assert original.first_difference(copy) is None
    for layer in copy.layers.values():
        for mag in layer.mags.values():
            assert unfinished_jobs(mag.place.store) == []
            assert {*os.listdir(f"{mag.path}/.wkdask")} <= {"locks", "finished"}


def test_a_dataset_is_not_copied_into_itself(original, tmp_path):
    (tmp_path / "link").symlink_to(original.path)
    for target in (
        original.path,
        f"{original.path}/copy",
        f"{original.path}/cells/copy",
        tmp_path / "link" / "copy",
    ):
        with pytest.raises(InvalidValueError, match="into itself"):
            original.copy_dataset(target)
    assert not Path(original.path, "copy").exists()


def test_a_source_that_is_written_to_meanwhile(original, tmp_path):
    mag = original.get_layer("color").get_mag(1)

    def change(event):
        if isinstance(event, JobStarted):
            mag.write(mag.read((6, 10, 14), (5, 5, 5)) + 1, offset=(6, 10, 14))

    with pytest.warns(WkdaskWarning, match="while it was copied"):
        original.copy_dataset(tmp_path / "copy", progress=change)


@pytest.mark.slow
def test_a_copy_that_is_killed_again_and_again(original, tmp_path, children):
    script = KILLED.replace("progress=stop", "resume=True, progress=False")
    code, killed = None, 0
    for number in range(100):
        child = children.start(script, str(original.path), str(tmp_path / "copy"), 0, 0)
        time.sleep(0.1 + 0.05 * number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        code = children.wait(child).code
        killed += code == -signal.SIGKILL
        if (tmp_path / "copy" / "datasource-properties.json").exists():
            for name in Dataset(tmp_path / "copy").layers:
                assert original.first_difference(Dataset(tmp_path / "copy"), [name]) is None
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert code == 0
    assert killed > 1
    assert original.first_difference(Dataset(tmp_path / "copy")) is None


def test_of_two_that_copy_into_a_folder_one_does(original, tmp_path):
    target = tmp_path / "copy"
    (target / ".wkdask" / "locks").mkdir(parents=True)
    with lock(str(target / ".wkdask" / "locks" / "copy.lock")), pytest.raises(JobRunningError):
        original.copy_dataset(target)
    assert original.first_difference(original.copy_dataset(target)) is None


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", ["link", "hard link", "FIFO", "list"])
def test_the_state_of_a_copy_that_others_have_put_there_is_none(original, tmp_path, what):
    stranger, state = tmp_path / "stranger", tmp_path / "copy/.wkdask/copy.json"
    stranger.write_bytes(b"mine")
    state.parent.mkdir(parents=True)
    if what == "link":
        state.symlink_to(stranger)
    elif what == "hard link":
        os.link(stranger, state)
    elif what == "FIFO":
        os.mkfifo(state)
    else:
        state.write_text('{"request": {}, "mags": [], "finished": true}')
    copy = original.copy_dataset(tmp_path / "copy")
    assert {*copy.layers} == {*original.layers}
    assert stranger.read_bytes() == b"mine"


def test_half_a_state_of_a_copy_that_was_killed_goes(original, tmp_path):
    private = tmp_path / "copy/.wkdask"
    private.mkdir(parents=True)
    (private / f".copy.json.{'0' * 32}.tmp").write_bytes(b"{")
    original.copy_dataset(tmp_path / "copy")
    assert {*os.listdir(private)} == {"copy.json", "locks"}


def test_a_private_folder_of_a_copy_that_is_a_link_is_refused(original, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/.wkdask").symlink_to(tmp_path / "photos")
    with pytest.raises(ReadOnlyError, match="is a symlink"):
        original.copy_dataset(tmp_path / "copy")
    assert os.listdir(tmp_path / "photos") == []


def test_the_plan_is_shown(original):
    text = repr(original.plan_copy(data_format="zarr3", layers=["color"]))
    assert "color, (6, 10, 14)" in text
    assert "wkw → zarr3" in text
    assert "files as they are" in repr(original.plan_copy())
