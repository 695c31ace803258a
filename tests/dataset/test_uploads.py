"""Datasets copied to an object store and back: the same files, the properties last, resumed, or refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
from proxy_rules import Say

from wkdask import BoundingBox, Dataset
from wkdask.errors import (
    AlreadyExistsError,
    InvalidValueError,
    StoreError,
    UnsupportedFormatError,
    WkdaskWarning,
)
from wkdask.jobs.events import JobFinished, JobStarted, UnitDone
from wkdask.objects.reading import list_objects, read_object

FORMATS = [("wkw", None), ("wkw", "lz4"), ("zarr3", "zstd"), ("zarr", "zstd")]
BOX = BoundingBox((6, 10, 14), (71, 53, 40))


@pytest.fixture
def original(tmp_path, random_voxels):
    """A dataset with a layer of every format, each with three mags, and an attachment."""
    ds = Dataset(tmp_path / "original", (4, 4, 35))
    for data_format, compression in FORMATS:
        layer = ds.add_layer(f"{data_format}-{compression}", "color", data_format=data_format)
        sides = {"chunk_shape": 16} if data_format == "zarr" else {"chunk_shape": 16, "shard_shape": 32}
        mag = layer.add_mag(1, compression=compression, **sides)
        mag.write(random_voxels(tuple(BOX.size), "uint8"), offset=BOX.topleft)
        layer.downsample_mag_list(1, ["2-2-1", "4-4-1"])
    folder = Path(layer.path) / "agglomerates"
    folder.mkdir()
    (folder / "file.hdf5").write_bytes(b"agglomerates")
    return ds


def files_of(ds):
    """Return {name: bytes} of a dataset's files, but for private ones and the properties."""
    found = {}
    for root, folders, names in os.walk(ds.path):
        folders[:] = [name for name in folders if name != ".wkdask"]
        for name in names:
            path = Path(root, name)
            found[path.relative_to(ds.path).as_posix()] = path.read_bytes()
    found.pop("datasource-properties.json")
    return found


def objects_of(url):
    """Return {name: bytes} of all objects of a dataset but the properties."""
    found = {each.name: bytes(read_object(f"{url}/{each.name}").data) for each in list_objects(url)}
    found.pop("datasource-properties.json", None)
    return found


def test_there_and_back(original, bucket, tmp_path):
    url = f"{bucket.url}/copy"
    there = original.copy_dataset(url, verify=True)
    assert there.path == url
    assert objects_of(url) == files_of(original)
    back = there.copy_dataset(tmp_path / "back")
    for name in original.layers:
        for mag in ("1", "2-2-1", "4-4-1"):
            expected = original.get_layer(name).get_mag(mag).read()
            assert expected.any()
            assert np.array_equal(there.get_layer(name).get_mag(mag).read(), expected)
            assert np.array_equal(back.get_layer(name).get_mag(mag).read(), expected)
    attachment = Path(back.path, "zarr-zstd", "agglomerates", "file.hdf5")
    assert attachment.read_bytes() == b"agglomerates"


def test_chosen_layers_only(original, bucket):
    url = f"{bucket.url}/copy"
    there = original.copy_dataset(url, layers=["wkw-lz4"])
    assert [*there.layers] == ["wkw-lz4"]
    assert all(name.startswith("wkw-lz4/") for name in objects_of(url))


def test_the_events_count_files(original, bucket):
    events = []
    original.copy_dataset(f"{bucket.url}/copy", layers=["wkw-None"], progress=events.append)
    started, *done, finished = events
    files = [name for name in files_of(original) if name.startswith("wkw-None/")]
    assert isinstance(started, JobStarted)
    assert started.units == len(files)
    assert [type(event) for event in done] == [UnitDone] * len(files)
    assert isinstance(finished, JobFinished)
    assert finished.report.cubes == len(files)


def test_a_copy_that_failed_is_resumed(original, proxied_bucket):
    """What is there with the same bytes is not put again; without properties there is no dataset meanwhile."""
    url, proxy = f"{proxied_bucket.url}/copy", proxied_bucket.proxy
    with dask.config.set({"wkdask.store-retries": 0, "wkdask.store-requests": 1}):
        with (
            proxy.rule(Say(403, method="PUT", after=5)),
            pytest.raises(PermissionError, match="access denied") as caught,
        ):
            original.copy_dataset(url)
        assert "without properties" in caught.value.__notes__[0]
        with pytest.raises(FileNotFoundError):
            Dataset(url)
        before = len(objects_of(url))
        assert before == 5
        with pytest.raises(AlreadyExistsError, match="resume=True"):
            original.copy_dataset(url)
        proxy.clear()
        original.copy_dataset(url, resume=True)
        assert len(proxy.requests("PUT")) == len(files_of(original)) - before + 1
        assert objects_of(url) == files_of(original)
        proxy.clear()
        original.copy_dataset(url, resume=True)
        assert not proxy.requests("PUT")


def test_a_killed_copy_is_resumed(original, bucket):
    script = f"""
import os, signal, wkdask
from wkdask.jobs.events import UnitDone

count = 0

def listen(event):
    global count
    count += isinstance(event, UnitDone)
    if count == 7:
        os.kill(os.getpid(), signal.SIGKILL)

wkdask.Dataset({str(original.path)!r}).copy_dataset({bucket.url + "/copy"!r}, progress=listen)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert 7 <= len(objects_of(f"{bucket.url}/copy")) < len(files_of(original))
    there = original.copy_dataset(f"{bucket.url}/copy", resume=True)
    assert objects_of(there.path) == files_of(original)


def test_a_file_that_changed_meanwhile_is_an_error(original, bucket):
    path = next(Path(original.path).rglob("*.wkw"))
    done = []

    def listen(event):
        if isinstance(event, UnitDone) and not done:
            done.append(event)
            os.utime(path, ns=(1, 1))

    with pytest.raises(Exception, match="was written to while it was copied"):
        original.copy_dataset(f"{bucket.url}/copy", progress=listen)
    with pytest.raises(FileNotFoundError):
        Dataset(f"{bucket.url}/copy")


@pytest.mark.parametrize(
    "change",
    [
        {"data_format": "zarr3"},
        {"compression": None},
        {"bounding_box": BOX},
        {"voxel_size": (1, 1, 1)},
        {"shard_shape": 64},
        {"exists_ok": True},
    ],
    ids=str,
)
def test_another_way_to_store_is_refused(original, bucket, change):
    with pytest.raises(InvalidValueError, match=f"without {next(iter(change))}"):
        original.copy_dataset(f"{bucket.url}/copy", **change)
    assert not bucket.keys()


def test_what_is_there_is_not_replaced(original, bucket):
    url = f"{bucket.url}/copy"
    original.copy_dataset(url, layers=["wkw-lz4"])
    before = objects_of(url)
    with pytest.raises(AlreadyExistsError, match="already"):
        original.copy_dataset(url)
    with pytest.raises(AlreadyExistsError, match="another dataset"):
        original.copy_dataset(url, resume=True)
    assert objects_of(url) == before


def test_a_dataset_as_2021_wrote_it(tmp_path, bucket, random_voxels):
    voxels = random_voxels((70, 40, 30), "uint8")
    layer = Dataset(tmp_path / "ds", (4, 4, 4)).add_layer("color", "color")
    layer.add_mag(1, chunk_shape=16, shard_shape=32).write(voxels)
    layer.downsample(coarsest_mag=2)
    path = tmp_path / "ds" / "datasource-properties.json"
    raw = json.loads(path.read_text())
    del raw["version"]
    raw["scale"] = [4, 4, 4]
    for each in raw["dataLayers"]:
        mags = each.pop("mags")
        each["wkwResolutions"] = [{"resolution": mag["mag"], "cubeLength": 32} for mag in mags]
    path.write_text(json.dumps(raw))
    there = Dataset(tmp_path / "ds").copy_dataset(f"{bucket.url}/copy")
    assert there.read_only
    assert np.array_equal(there.get_layer("color").get_mag(1).read()[0], voxels)
    assert [str(mag) for mag in there.get_layer("color").mags] == ["1", "2"]


def test_further_axes_are_refused_before_anything_is_put(tmp_path, bucket):
    ds = Dataset(tmp_path / "ds", (4, 4, 4))
    voxels = np.ones((3, 40, 30, 20), "uint8")
    ds.write_layer("time", "color", voxels, axes=("t", "x", "y", "z"), data_format="zarr3", downsample=False)
    with pytest.raises(UnsupportedFormatError, match=r"axes beside c, x, y, z \(t\)"):
        ds.copy_dataset(f"{bucket.url}/copy")
    assert not bucket.keys()


def test_a_client_is_not_used_and_that_is_said(original, bucket):
    with pytest.warns(WkdaskWarning, match="task_memory= not used"):
        original.copy_dataset(f"{bucket.url}/copy", layers=["wkw-lz4"], task_memory=1 << 30)


def test_a_link_in_a_circle_is_refused(original, bucket):
    (Path(original.path) / "wkw-lz4" / "notes").mkdir()
    (Path(original.path) / "wkw-lz4" / "notes" / "up").symlink_to(Path(original.path) / "wkw-lz4")
    with pytest.raises(InvalidValueError, match=r"notes is a link to .*wkw-lz4|up is a link to"):
        original.copy_dataset(f"{bucket.url}/copy")
    assert not bucket.keys()


def test_a_copy_from_store_to_store_is_refused(original, bucket):
    there = original.copy_dataset(f"{bucket.url}/copy", layers=["wkw-lz4"])
    with pytest.raises(InvalidValueError, match="copy it to a disk first"):
        there.copy_dataset(f"{bucket.url}/other")


def test_a_web_server_takes_nothing(original):
    with pytest.raises(StoreError, match="web server"):
        original.copy_dataset("http://127.0.0.1:9/copy")


def test_the_command(original, bucket, invoke):
    url = f"{bucket.url}/copy"
    assert "as they are" in invoke("copy", original.path, url, "--dry-run")
    assert not bucket.keys()
    assert "of files were read back, and are as in" in invoke("copy", original.path, url, "--verify")
    assert objects_of(url) == files_of(original)
    assert json.loads(invoke("copy", original.path, url, "--resume", "--json", "--quiet"))["was_finished"]
    for option, value, name in (
        ("--data-format", "zarr3", "data_format"),
        ("--compression", "none", "compression"),
    ):
        for more in ((), ("--dry-run",)):
            text = invoke("copy", original.path, f"{bucket.url}/x", option, value, *more, code=1)
            assert f"without {name}" in text
    assert sorted(bucket.keys())[0].startswith("copy/")
