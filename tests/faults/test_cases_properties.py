"""The table of faults, cases 27, 29 to 31, 34, 35, 38 and 39: the properties file, and what hostile ones say."""

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
from small_datasets import edit, first, two_layers
from small_datasets import raw as read_raw

import wkdask
from wkdask import BoundingBox, Dataset
from wkdask.errors import (
    DamagedHeaderError,
    LayerNotFoundError,
    PropertiesError,
    TaskFailedError,
    WkdaskError,
)

NAME = "datasource-properties.json"
VOXELS = np.full((40, 40, 40), 5, "uint8")
COMPRESSIONS = [None, "lz4"]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return two_layers(tmp_path_factory.mktemp("template") / "ds")


@pytest.fixture
def dataset(template, tmp_path):
    """A copy of the template."""
    shutil.copytree(template.path, tmp_path / "ds")
    return Dataset(tmp_path / "ds")


# --- 27: stale files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["junk", "link", "dangling"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_case_27_stale_temporary_files_do_no_harm(make_mag, random_voxels, tmp_path, kind, compression):
    mag = make_mag(compression=compression)
    voxels = random_voxels((1, 64, 32, 32))
    mag.write(voxels, offset=(0, 0, 0))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    dataset = Path(mag.place.dataset_path)
    stale = [
        Path(mag.path, "z0", "y0", "x0.wkw_tmp"),
        Path(mag.path, "z0", "y0", ".x0.wkw.0123.tmp"),
        Path(mag.path, ".header.wkw.0123456789abcdef.tmp"),
        dataset / f".{NAME}.0123456789abcdef.tmp",
        dataset / f".{NAME}.tmp",
    ]
    for path in stale:
        if kind == "junk":
            path.write_bytes(b"WKW\1" + b"\xff" * 99)
        else:
            path.symlink_to(victim if kind == "link" else tmp_path / "nothing")
    new = random_voxels((1, 40, 20, 20), seed=1)
    mag.write(new, offset=(3, 3, 3))
    voxels[:, 3:43, 3:23, 3:23] = new
    assert np.array_equal(mag.read(), voxels)
    mag.write(voxels[:, :, ::-1], offset=(0, 0, 0))
    mag.layer.bounding_box = BoundingBox((0, 0, 0), (60, 32, 32))
    mag.compress(compression=None if compression else "lz4hc")
    assert np.array_equal(mag.read(), voxels[:, :60, ::-1])
    assert victim.read_text() == "precious"
    assert not os.path.lexists(tmp_path / "nothing")
    assert not os.path.lexists(stale[3])  # swept with the next commit
    assert len(list(mag.cubes_on_disk())) == 2


def test_case_27_a_lock_file_that_is_a_link_is_not_followed(dataset, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o640)
    locks = Path(dataset.path, ".wkdask", "locks")
    before = Path(dataset.path, NAME).read_bytes()
    for target in (victim, tmp_path / "nothing"):
        for name in ("properties.lock", "mags.lock"):
            (locks / name).unlink(missing_ok=True)
            (locks / name).symlink_to(target)
        with pytest.raises(OSError, match=r"mags\.lock"):
            dataset.get_layer("color").add_mag(4, shard_shape=32)
        with pytest.raises(OSError, match=r"properties\.lock"):
            dataset.name = "x"
    assert victim.read_text() == "precious"
    assert victim.stat().st_mode & 0o777 == 0o640
    assert not (tmp_path / "nothing").exists()
    assert Path(dataset.path, NAME).read_bytes() == before


# --- 29 to 31: saves that are disturbed -----------------------------------------------------------------

SAVES = """
from wkdask.geometry import BoundingBox, Mag
from wkdask.properties import GrowBox, RaiseSegmentId, SetDatasetName, commit
number = 0
while number < args[1]:
    number += 1
    commit(args[0], [SetDatasetName(f"{number}." * (1 + 900 * (number % 2))), RaiseSegmentId("seg", number + 100),
                     GrowBox("color", BoundingBox((0, 0, 0), (40 + number, 40, 40)), Mag(1))])
    if number in (1, args[1]):
        print(number, flush=True)
"""


def assert_a_save(dataset, raw):
    """Check that a file is one of those that `SAVES` writes, whole."""
    number = raw["id"]["name"].split(".")[0]
    assert raw["id"]["name"] == f"{number}." * (1 + 900 * (int(number) % 2))
    assert first(raw)["boundingBox"]["width"] == 40 + int(number)
    assert raw["dataLayers"][1]["largestSegmentId"] == 100 + int(number)
    assert [layer["name"] for layer in raw["dataLayers"]] == ["color", "seg"]


FULL = """
fail_syscalls(args[1], *args[2])
from wkdask.properties import SetDatasetName, commit
try:
    commit(args[0], [SetDatasetName("x" * 100_000)])
    print("saved")
except OSError as error:
    print(error.errno)
"""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("calls", [("write",), ("fsync",), ("rename", "renameat", "renameat2"), ("openat",)])
def test_case_29_a_save_that_the_disk_refuses_leaves_the_old_file(dataset, children, number, calls):
    before = Path(dataset.path, NAME).read_bytes()
    try:
        out = children.run(FULL, dataset.path, number, calls)
    except AssertionError as error:
        if "takes no filter" in str(error):
            pytest.skip("this kernel takes no filter of system calls")
        raise
    assert out.strip() == str(number)
    assert Path(dataset.path, NAME).read_bytes() == before
    dataset.name = "later"
    assert sorted(os.listdir(dataset.path)) == [".wkdask", "color", NAME, "seg"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_case_29_a_full_disk_leaves_the_old_file(tmp_path):
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(tmp_path)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"mount does not work here: {mount.stderr!r}")
    try:
        dataset = Dataset.create(tmp_path / "ds", (1, 1, 1))
        layer = dataset.add_layer("color", "color")
        for size in (0, 100, 5000, 40_000, 120_000):
            before = Path(dataset.path, NAME).read_bytes()
            filler = tmp_path / "filler"
            with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            for change in (
                lambda size=size: setattr(dataset, "name", "x" * (100_000 + size)),
                lambda: setattr(layer, "default_view_configuration", {"x": "y" * 50_000}),
                lambda: layer.set_bounding_box((0, 0, 0), (3, 4, 5)),
            ):
                with pytest.raises(OSError, match="No space left") as caught:
                    change()
                assert caught.value.errno == errno.ENOSPC
                assert Path(dataset.path, NAME).read_bytes() == before
            filler.unlink()
            layer.set_bounding_box((0, 0, 0), (size, 4, 5))
            assert layer.bounding_box.size.x == size
        assert sorted(os.listdir(dataset.path)) == [".wkdask", "color", NAME]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_case_30_a_kill_during_a_save_leaves_a_valid_file_100_times(dataset, children):
    start = time.monotonic()
    children.run(SAVES, dataset.path, 20)
    pause = (time.monotonic() - start) / 5  # of four saves
    rng = random.Random(30)
    seen = set()
    for _ in range(100):
        child = children.start(SAVES, dataset.path, 10**9)
        while not children.out(child):
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, pause))
        os.kill(child, signal.SIGKILL)
        assert children.wait(child).code == -signal.SIGKILL
        raw = read_raw(dataset)
        seen.add(raw["id"]["name"])
        width = first(raw)["boundingBox"]["width"]
        number = int(raw["id"]["name"].split(".")[0])
        assert raw["id"]["name"] == f"{number}." * (1 + 900 * (number % 2))
        assert width >= 40 + number  # the box of an earlier, longer run stays
        assert Dataset(dataset.path).get_layer("seg").largest_segment_id == width + 60
        first(raw)["boundingBox"]["width"] = 40 + number
        raw["dataLayers"][1]["largestSegmentId"] = 100 + number
        assert_a_save(dataset, raw)
    assert len(seen) > 1  # of the saves, which a loaded machine cuts short at the same places
    dataset.name = "end"  # the lock is free, the litter goes
    assert sorted(os.listdir(dataset.path)) == [".wkdask", "color", NAME, "seg"]
    assert (dataset.get_layer("color").get_mag(1).read(offset=(0, 0, 0), size=(40, 40, 40)) == 1).all()


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_case_31_a_reader_meets_a_whole_file_during_1000_saves(dataset, children):
    children.run(SAVES, dataset.path, 1)
    writer = children.start(SAVES, dataset.path, 1000)
    reads = 0
    handle = Dataset(dataset.path)
    while "1000" not in children.out(writer):
        assert_a_save(dataset, read_raw(dataset))
        assert Dataset(dataset.path).get_layer("color").bounding_box.size.y == 40
        assert list(handle.layers) == ["color", "seg"]
        reads += 1
    assert children.wait(writer).code == 0
    assert reads > 100
    assert handle.get_layer("color").bounding_box.size.x == 1040


# --- 34: the file changes during a job ------------------------------------------------------------------


def run_while_changing(dataset, change):
    """Write a dask array whose first block changes the dataset behind the job's back."""
    mag = dataset.get_layer("color").get_mag(1)
    once = threading.Lock()

    def block(voxels):
        if once.acquire(blocking=False):
            change(Dataset(dataset.path))
        return voxels

    array = da.full((80, 40, 40), 7, dtype="uint8", chunks=32)
    array = array.map_blocks(block, dtype="uint8", meta=np.empty((0, 0, 0), "uint8"))
    return mag.write(array, offset=(16, 8, 0))


MERGED = {
    "unknown keys": lambda ds: edit(
        ds,
        lambda raw: (
            raw.update(future={"a": [1, None]}), first(raw).update(more=2**60), first(raw)["mags"][0].update(x=1)
        ),
    ),
    "a grown box": lambda ds: edit(ds, lambda raw: first(raw)["boundingBox"].update(topLeft=[0, 0, 0], depth=500)),
    "a new layer": lambda ds: ds.add_layer("new", "color").add_mag(1, shard_shape=32),
    "another layer deleted": lambda ds: ds.delete_layer("seg"),
    "another mag": lambda ds: ds.get_layer("color").add_mag(4, shard_shape=32),
    "a name": lambda ds: setattr(ds, "name", "renamed"),
    "compact JSON": lambda ds: edit(ds, lambda raw: None),
    "a legacy entry": lambda ds: edit(ds, lambda raw: first(raw).update(wkwResolutions=[])),
}  # fmt: skip


@pytest.mark.parametrize("name", MERGED)
def test_case_34_what_others_change_during_a_job_is_merged(dataset, name):
    before = read_raw(dataset)
    report = run_while_changing(dataset, MERGED[name])
    assert report.bounding_box == BoundingBox((16, 8, 0), (80, 40, 40))
    raw = read_raw(dataset)
    layer = Dataset(dataset.path).get_layer("color")
    assert layer.bounding_box == BoundingBox((0, 0, 0), (96, 48, 500 if name == "a grown box" else 40))
    assert (layer.get_mag(1).read(offset=(16, 8, 0), size=(80, 40, 40)) == 7).all()
    if name == "unknown keys":
        assert (raw["future"], first(raw)["more"], first(raw)["mags"][0]["x"]) == ({"a": [1, None]}, 2**60, 1)
    if name == "a new layer":
        assert [each["name"] for each in raw["dataLayers"]] == ["color", "seg", "new"]
    if name == "another layer deleted":
        assert [each["name"] for each in raw["dataLayers"]] == ["color"]
    if name == "another mag":
        assert [mag["mag"] for mag in first(raw)["mags"]] == [[1] * 3, [2] * 3, [4] * 3]
    assert raw["id"]["name"] == ("renamed" if name == "a name" else before["id"]["name"])


def write_text(text):
    return lambda ds: Path(ds.path, NAME).write_text(text)


CONFLICTS = {
    "the layer deleted": (lambda ds: ds.delete_layer("color"), (LayerNotFoundError, DamagedHeaderError)),
    "the mag deleted": (lambda ds: ds.get_layer("color").delete_mag(1), DamagedHeaderError),
    "the layer renamed": (
        lambda ds: setattr(ds.get_layer("color"), "name", "x"), (LayerNotFoundError, DamagedHeaderError)
    ),
    "the layer unlisted": (lambda ds: edit(ds, lambda raw: raw["dataLayers"].pop(0)), LayerNotFoundError),
    "an impossible box": (
        lambda ds: edit(ds, lambda raw: first(raw)["boundingBox"].update(width=-3)), PropertiesError
    ),
    "a cut file": (write_text('{"id": {"na'), PropertiesError),
    "an empty file": (write_text(""), PropertiesError),
    "another version": (lambda ds: edit(ds, lambda raw: raw.update(version=7)), PropertiesError),
    "no file": (lambda ds: os.unlink(Path(ds.path, NAME)), FileNotFoundError),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFLICTS)
def test_case_34_what_cannot_be_merged_is_an_error_and_stays(dataset, name):
    change, error = CONFLICTS[name]
    after = []

    def changed(ds):
        change(ds)
        after.append(Path(ds.path, NAME).read_bytes() if name != "no file" else None)

    expected = (*(error if isinstance(error, tuple) else (error,)), TaskFailedError)
    with dask.config.set(num_workers=1), pytest.raises(expected):  # nothing lands before the change
        run_while_changing(dataset, changed)
    assert after == [Path(dataset.path, NAME).read_bytes() if name != "no file" else None]


# --- 35: names ------------------------------------------------------------------------------------------

NO_NAMES = [
    "..",
    "/",
    "",
    "a\0b",
    ".",
    "../color",
    "/etc",
    "color/1",
    ".hidden",
    "\ud800",
    "x" * 256,
    "ü" * 128,
    NAME,
    5,
    None,
]
OPENS = """
import sys
from wkdask import Dataset
from wkdask.errors import PropertiesError
assert False, "with -O this is not looked at"
for path in sys.argv[1:]:
    try:
        Dataset(path)
    except PropertiesError as error:
        print("refused", str(error).startswith(path))
"""


@pytest.mark.parametrize("name", NO_NAMES, ids=lambda name: repr(name)[:20])
def test_case_35_a_layer_whose_name_is_no_folders_does_not_open(dataset, name):
    edit(dataset, lambda raw: first(raw).update(name=name))
    with pytest.raises(PropertiesError) as caught:
        Dataset(dataset.path)
    assert str(caught.value).startswith(str(Path(dataset.path, NAME)))
    assert len(str(caught.value)) < 600
    before = Path(dataset.path, NAME).read_bytes()
    with pytest.raises(PropertiesError):
        dataset.name = "anything"
    assert Path(dataset.path, NAME).read_bytes() == before
    edit(dataset, lambda raw: first(raw).update(name="color"))
    before = Path(dataset.path, NAME).read_bytes(), sorted(os.listdir(dataset.path))
    for call in (
        lambda: dataset.add_layer(name, "color"),
        lambda: dataset.add_layer_like(dataset.get_layer("color"), name),
        lambda: setattr(dataset.get_layer("color"), "name", name),
    ):
        with pytest.raises((WkdaskError, TypeError)):
            call()
    assert (Path(dataset.path, NAME).read_bytes(), sorted(os.listdir(dataset.path))) == before


def test_case_35_two_layers_of_one_name_do_not_open(dataset):
    edit(dataset, lambda raw: raw["dataLayers"][1].update(name="color"))
    with pytest.raises(PropertiesError, match="2 layers are called 'color'"):
        Dataset(dataset.path)


@pytest.mark.slow  # Python compiles all modules anew
def test_case_35_under_python_O(dataset, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}
    paths = []
    for number, name in enumerate(("..", "a/b", "", "a\0b", "seg")):
        paths.append(str(tmp_path / f"copy{number}"))
        shutil.copytree(dataset.path, paths[-1])
        edit(Dataset(paths[-1]), lambda raw, name=name: first(raw).update(name=name))
    command = [sys.executable, "-O", "-c", OPENS, *paths]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["refused True"] * 5, done.stderr


# --- 38: boxes ------------------------------------------------------------------------------------------

NO_BOXES = {
    "width 2^63": {"width": 2**63},
    "depth 2^64 + 1": {"depth": 2**64 + 1},
    "all 10^40": {"width": 10**40, "height": 10**40, "depth": 10**40},
    "beyond 2^32": {"topLeft": [1, 0, 0], "width": 2**32},
    "corner 2^62": {"topLeft": [2**62, 0, 0]},
    "negative size": {"height": -5},
    "negative corner": {"topLeft": [0, -1, 0]},
    "nearly the legacy empty box": {"topLeft": [-1, -1, -1], "width": 1, "height": 0, "depth": 0},
    "fraction": {"width": 1.5},
    "fraction of a corner": {"topLeft": [0, 0, 0.25]},
    "NaN": {"depth": float("nan")},
    "infinity": {"depth": float("inf")},
    "text": {"width": "40"},
    "true": {"height": True},
    "null": {"height": None},
    "a corner of two": {"topLeft": [0, 0]},
    "a corner of four": {"topLeft": [0, 0, 0, 0]},
    "a corner that is a number": {"topLeft": 0},
}


@pytest.mark.parametrize("name", NO_BOXES)
def test_case_38_an_impossible_box_closes_its_layer_when_that_is_used(dataset, name):
    edit(dataset, lambda raw: first(raw)["boundingBox"].update(NO_BOXES[name]))
    before = Path(dataset.path, NAME).read_bytes()
    opened = Dataset(dataset.path)  # opening is fine, the other layer works
    assert opened.get_layer("seg").get_mag(1).read().any()
    layer = opened.get_layer("color")
    mag = layer.get_mag(1)
    for call in (
        lambda: layer.bounding_box,
        mag.read,
        mag.to_dask,
        lambda: mag.box,
        lambda: mag.get_view(),
        lambda: mag.write(VOXELS, offset=(0, 0, 0)),
        lambda: mag.write(da.from_array(VOXELS, chunks=32), offset=(0, 0, 0)),
        lambda: layer.downsample(),
        lambda: mag.for_each_chunk(lambda chunk: None),
        lambda: opened.copy_dataset(Path(dataset.path).parent / "copy", layers_to_ignore=["seg"]),
    ):
        with pytest.raises(PropertiesError, match="bounding box of layer 'color'") as caught:
            call()
        assert len(str(caught.value)) < 700
    assert "PropertiesError: the bounding box of layer 'color'" in repr(opened)
    assert Path(dataset.path, NAME).read_bytes() == before
    layer.bounding_box = BoundingBox((0, 0, 0), (40, 40, 40))  # that heals it
    assert (mag.read() == 1).all()


def test_case_38_the_legacy_empty_box_is_empty(dataset):
    edit(
        dataset,
        lambda raw: first(raw).update(boundingBox={"topLeft": [-1] * 3, "width": 0, "height": 0, "depth": 0}),
    )
    mag = Dataset(dataset.path).get_layer("color").get_mag(1)
    assert mag.read().shape == (1, 0, 0, 0)
    assert mag.to_dask().compute().shape == (1, 0, 0, 0)
    mag.write(VOXELS, offset=(3, 4, 5))
    assert mag.layer.bounding_box == BoundingBox((3, 4, 5), (40, 40, 40))


HUGE = """
import resource, time
from wkdask import Dataset
from wkdask.errors import WkdaskError
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
start, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dataset = Dataset(args[0])
mag = dataset.get_layer("color").get_mag(1)
assert (mag.read(offset=(0, 0, 0), size=(40, 40, 40)) == 1).all()
assert (mag.get_view((3, 3, 3), (4, 4, 4)).to_dask().compute() == 1).all()
assert "color" in repr(dataset) and "color" in dataset._repr_html_() and mag._repr_html_()
for call in (
    mag.read, mag.to_dask, lambda: mag.to_dask(chunks=32), lambda: mag.get_view().read(),
    lambda: list(mag.get_buffered_slice_reader().__enter__()),
    lambda: mag.for_each_chunk(print), lambda: mag.read(offset=(0, 0, 0), size=(2**32 - 64, 2**32 - 64, 0)),
):
    try:
        call()
        print("let through", call.__code__.co_firstlineno)
    except WkdaskError as error:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used, time.monotonic() - start)
"""


@pytest.mark.parametrize("side", [2**31, 2**32 - 64])
def test_case_38_a_legal_box_without_end_makes_no_graph_and_no_array(dataset, children, side):
    edit(dataset, lambda raw: first(raw)["boundingBox"].update(width=side, height=side, depth=side))
    kibibytes, seconds = children.run(HUGE, dataset.path).split()
    assert int(kibibytes) < 200_000
    assert float(seconds) < 20


# --- 39: hostile files ----------------------------------------------------------------------------------

LAYER = (
    '{"name":"%s","category":"color","boundingBox":{"topLeft":[0,0,0],"width":1,"height":1,"depth":1},'
    '"elementClass":"uint8","dataFormat":"wkw","mags":[]}'
)
FRAME = '{"id":{"name":"d","team":""},"scale":[1,1,1],"dataLayers":[%s]%s}'
MEGA = 1 << 20


def with_mags(text):
    """Return a file with one layer with mags."""
    return (FRAME % (LAYER % "c", "")).replace('"mags":[]', f'"mags":[{text}]')


HOSTILE = {
    "empty": lambda: "",
    "blank": lambda: " \n\t" * 1000,
    "cut": lambda: (FRAME % (LAYER % "color", ""))[:150],
    "a list": lambda: "[1, 2, 3]",
    "a text": lambda: '"datasource"',
    "null": lambda: "null",
    "not UTF-8": lambda: b'{"id": "\xff\xfe\xfa"}',
    "UTF-16 without a mark": lambda: (FRAME % ("", "")).encode("utf-16-be")[:-1],
    "zero bytes": lambda: bytes(5 * MEGA),
    "100k lists": lambda: "[" * 100_000,
    "100k lists closed": lambda: "[" * 100_000 + "]" * 100_000,
    "100k objects": lambda: '{"a":' * 100_000,
    "100k in a key": lambda: FRAME % ("", ',"x":' + "[" * 100_000 + "]" * 100_000),
    "20 MB of a valid file": lambda: FRAME % ("", ',"x":"' + "y" * 20 * MEGA + '"'),
    "20 MB of spaces": lambda: FRAME % ("", "") + " " * 20 * MEGA,
    "20 MB of junk": lambda: b"\x8f" * (20 * MEGA),
    "15 MB of empty objects": lambda: "[" + "{}," * (5 * MEGA) + "{}",
    "15 MB of empty lists": lambda: '{"a":[' + "[]," * (5 * MEGA),
    "15 MB of numbers": lambda: '{"a":[' + "1," * (7 * MEGA) + "x",
    "15 MB of keys": lambda: "{" + ",".join(f'"{n}":1' for n in range(MEGA)) + ',"1":2}',
    "15 MB of one key": lambda: "{" + '"a":1,' * (2 * MEGA) + '"b":1}',
    "a million digits": lambda: FRAME % ("", ',"x":' + "9" * 10**6),
    "ten million digits": lambda: FRAME % ("", ',"x":-' + "1" * 10**7),
    "a million digits in a box": lambda: (FRAME % (LAYER % "c", "")).replace('"width":1', '"width":' + "9" * 10**6),
    "a fraction of a million digits": lambda: FRAME % ("", ',"x":1.' + "9" * 10**6 + "e999999999"),
    "1e400": lambda: FRAME % ("", ',"x":1e400'),
    "the same key twice": lambda: FRAME % ("", ',"id":{"name":"e"}'),
    "the same key deep down": lambda: FRAME % ((LAYER % "c")[:-1] + ',"x":[{"y":1,"y":1}]}', ""),
    "two files": lambda: (FRAME % ("", "")) * 2,
    "no layers": lambda: '{"id":{"name":"d"},"scale":[1,1,1]}',
    "no scale": lambda: '{"id":{"name":"d"},"dataLayers":[]}',
    "no id": lambda: '{"scale":[1,1,1],"dataLayers":[]}',
    "a name of 15 MB": lambda: FRAME % (LAYER % ("n" * 15 * MEGA), ""),
    "a category of 15 MB": lambda: (FRAME % (LAYER % "c", "")).replace("color", "x" * 15 * MEGA),
    "a class of 15 MB": lambda: (FRAME % (LAYER % "c", "")).replace("uint8", "uint" + "8" * 15 * MEGA),
    "60 000 layers of one name": lambda: FRAME % (",".join([LAYER % "c"] * 60_000), ""),
    "a million mags": lambda: with_mags('{"mag":1},' * MEGA + "0"),
    "a mag of 10^40": lambda: with_mags('{"mag":[1,1,1%s]}' % ("0" * 40)),
}  # fmt: skip
for _key in ("name", "category", "boundingBox", "elementClass", "dataFormat", "mags"):
    if _key not in (
        "boundingBox",
        "elementClass",
    ):  # the first is told when it is used, the mags tell the other
        HOSTILE[f"no {_key}"] = lambda key=_key: (FRAME % (LAYER % "c", "")).replace(
            f'"{key}"', '"other"', 1 if key != "name" else 2
        )

OPEN_HOSTILE = """
import resource, sys, time, warnings
warnings.simplefilter("ignore")  # a layer cannot be used
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from wkdask import Dataset
from wkdask.errors import PropertiesError
from wkdask.properties import SetDatasetName, commit
start = time.process_time()
whole = (lambda: Dataset(args[0]), lambda: commit(args[0], [SetDatasetName("x")]))
layer = (lambda: Dataset(args[0]).get_layer("c"), lambda: Dataset(args[0]).layers["c"].bounding_box)
for call in layer if args[1] else whole:
    try:
        call()
        print("let through")
    except PropertiesError as error:
        assert str(error).startswith(args[0]) and len(str(error)) < 2000, str(error)[:3000]
print("seconds", time.process_time() - start)
"""


ONE_LAYER = (
    "a category of 15 MB", "a class of 15 MB", "a million mags", "a mag of 10^40", "no category", "no dataFormat",
    "no mags",
)  # fmt: skip
"""Those that close a layer only."""
AT_ONCE = ("20 MB of a valid file", "15 MB of empty objects", "a million digits")
"""Large ones of the quick run."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow)
        if ("MB" in name or "million" in name) and name not in AT_ONCE
        else name
        for name in HOSTILE
    ],
)
def test_case_39_a_hostile_file_is_one_error_with_the_path_in_bounded_time_and_memory(
    tmp_path, children, name
):
    """At most 2 GiB of address space in all, of which the loaded modules take half a gibibyte."""
    content = HOSTILE[name]()
    path = tmp_path / NAME
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    size, inode = path.stat().st_size, path.stat().st_ino
    word, seconds = children.run(OPEN_HOSTILE, str(tmp_path), name in ONE_LAYER, timeout=280).split()
    assert word == "seconds"
    assert float(seconds) < 40
    assert (path.stat().st_size, path.stat().st_ino) == (size, inode)
    path.unlink()
