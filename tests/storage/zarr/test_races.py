"""Zarr cubes under races and kills: the old shard or the new one, for every reader, at every moment."""

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr_mags import FORMATS, make, noise, write

import wkdask
from wkdask import Dataset
from wkdask.geometry import BoundingBox
from wkdask.storage.zarr.mag import ZarrMag

ROOT = Path(wkdask.__file__).parent.parent
SIDE = 64
CUBE = BoundingBox((0, 0, 0), (SIDE, SIDE, SIDE))
PART = BoundingBox((5, 0, 9), (50, 64, 40))

VICTIM = """
import os, sys
import numpy as np
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.publish.jobs import job_folder
from wkdask.storage.publish.publish import Piece, publish_pieces
from wkdask.storage.zarr.mag import ZarrMag

path, data_format = sys.argv[1:3]
box = BoundingBox.from_tuple6([int(n) for n in sys.argv[3:]])
texture = np.random.default_rng(0).integers(0, 3, (1, *box.size)).astype("uint8", order="F")

def write(mag, value):
    with job_folder(mag) as folder:
        publish_pieces(mag, folder, [Piece(Vec3Int(0, 0, 0), box, texture + np.uint8(value))], durable=False)

write(ZarrMag.open(sys.argv[1] + " warm up", data_format), 1)
mag = ZarrMag.open(path, data_format)
print("ready", flush=True)
for line in sys.stdin:  # a victim for each, forked from this process, in which all is loaded
    value = int(line)
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("dead", flush=True)
    while not pid:
        write(mag, value)
        value = value % 250 + 1
"""


@contextlib.contextmanager
def process(script, *args):
    """Run a script in a Python process of its own, which is gone at the end."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", script, *map(str, args)]
    with subprocess.Popen(command, env=env, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        try:
            yield child
        finally:
            child.kill()


def wait_for_line(child, seconds=120):
    ready, _, _ = select.select([child.stdout], [], [], seconds)
    assert ready, "the child says nothing"
    line = child.stdout.readline().strip()
    assert line, child.stderr.read()[-2000:]
    return line


@pytest.mark.slow
@pytest.mark.parametrize(("data_format", "chunk"), [("zarr3", 16), ("zarr", SIDE)])
@pytest.mark.parametrize("box", [CUBE, PART], ids=["whole", "part"])
def test_a_killed_writer_leaves_the_old_shard_or_the_new_one(tmp_path, data_format, chunk, box):
    cut = {"data_format": data_format, "compression": "zstd", "chunk": chunk, "shard": SIDE}
    mag, _ = make(tmp_path / "mag", **cut), make(tmp_path / "mag warm up", **cut)
    old = noise((1, SIDE, SIDE, SIDE))
    write(mag, CUBE, old)
    texture = np.random.default_rng(0).integers(0, 3, (1, *box.size)).astype("uint8")
    inside, rng, met = (slice(None), *box.to_slices()), np.random.default_rng(1), set()
    with process(VICTIM, mag.path, data_format, *box.topleft, *box.size) as parent:
        assert wait_for_line(parent) == "ready"
        for round_ in range(50):
            parent.stdin.write(f"{7 * round_ % 250 + 1}\n")
            parent.stdin.flush()
            pid = int(wait_for_line(parent))
            time.sleep(rng.uniform(0, 0.15))
            os.kill(pid, signal.SIGKILL)
            assert wait_for_line(parent) == "dead"
            found = mag.read(CUBE)
            values = np.unique(found[inside] - texture)
            if met or len(values) == 1:  # else nothing was written yet
                assert len(values) == 1
                met.add(int(values[0]))
                old[inside] = found[inside]
            np.testing.assert_array_equal(found, old)
            theirs = zarr.open_array(mag.path, mode="r")[:, :SIDE, :SIDE, :SIDE]
            np.testing.assert_array_equal(theirs, found)
    assert len(met) > 5, "the kills met writers at work"
    write(mag, box, noise((1, *box.size), seed=9))
    old[inside] = noise((1, *box.size), seed=9)
    np.testing.assert_array_equal(mag.read(CUBE), old)
    assert sorted(os.listdir(f"{mag.path}/.wkdask")) == ["locks"]


PARTS = """
import sys
import numpy as np
from wkdask.geometry import BoundingBox
from wkdask.storage.publish.jobs import job_folder
from wkdask.storage.publish.publish import Piece, publish_pieces
from wkdask.storage.zarr.mag import ZarrMag

mag, me, rounds = ZarrMag.open(sys.argv[1], sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
for n in range(rounds):
    box = BoundingBox((7 * me, 0, 64 * n), (7, 64, 64))
    mag.prepare(box)
    block = np.full((1, *box.size), me + 1, "uint8", order="F")
    with job_folder(mag) as folder:
        publish_pieces(mag, folder, [Piece(box.topleft // mag.spec.shard_shape, box, block)], durable=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("data_format", "chunk"), [("zarr3", 16), ("zarr", SIDE)])
def test_writers_of_parts_of_one_shard_lose_nothing_and_the_shape_grows(tmp_path, data_format, chunk):
    mag = make(tmp_path / "mag", data_format, "zstd", chunk=chunk, shard=SIDE)
    rounds = 12
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(process(PARTS, mag.path, data_format, me, rounds)) for me in range(3)]
        for child in children:
            assert wait_for_line(child) == "ready"
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in children:
            _, errors = child.communicate(timeout=100)
            assert child.returncode == 0, errors[-2000:]
    expected = np.zeros((1, 64, 64, 64 * rounds), "uint8")
    for me in range(3):
        expected[:, 7 * me : 7 * me + 7] = me + 1
    np.testing.assert_array_equal(mag.read(BoundingBox((0, 0, 0), (64, 64, 64 * rounds))), expected)
    assert zarr.open_array(mag.path, mode="r").shape == (1, 64, 64, 64 * rounds)


@pytest.mark.slow
def test_a_job_on_a_cluster(client, tmp_path):
    """Shards written, inverted in place and mapped by worker processes; the array grows before the tasks."""
    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    layer = ds.add_layer("layer", "color", data_format="zarr3")
    mag = layer.add_mag(1, chunk_shape=16, shard_shape=32)
    voxels = noise((1, 100, 70, 50))
    import dask.array as da

    report = mag.write(da.from_array(voxels, chunks=(1, 40, 40, 40)), offset=(9, 8, 7))
    assert report.cubes == 4 * 3 * 2
    np.testing.assert_array_equal(mag.read(), voxels)
    mag.write(255 - mag.to_dask(), offset=(9, 8, 7))
    np.testing.assert_array_equal(mag.read(), 255 - voxels)
    np.testing.assert_array_equal(zarr.open_array(mag.path)[:, 9:109, 8:78, 7:57], 255 - voxels)
    layer.downsample(coarsest_mag=2)
    assert layer.get_mag(2).read().any()


def test_zarr_arrays_pickle_small(tmp_path):
    import pickle

    mag = make(tmp_path / "mag")
    assert len(pickle.dumps(mag)) < 1000
    assert isinstance(pickle.loads(pickle.dumps(mag)), ZarrMag)


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize(("data_format", "compression"), FORMATS)
def test_full_disk(small_disk, data_format, compression, part):
    chunk = 64 if data_format == "zarr" else 16
    mag = make(small_disk / "layer" / "1", data_format, compression, chunk=chunk, shard=64)
    voxels = np.random.default_rng(1).integers(1, 256, (1, 64, 64, 64)).astype("uint8", order="F")
    write(mag, CUBE, voxels)
    path = Path(mag.cube_path(CUBE.topleft))
    before = path.read_bytes(), path.stat().st_ino
    disk = os.statvfs(mag.path)
    Path(mag.path, "filler").write_bytes(bytes(disk.f_bavail * disk.f_frsize - 150_000))
    box = CUBE.with_size((60, 64, 64)) if part else CUBE
    block = np.asfortranarray(255 - voxels[(slice(None), *box.to_slices())])
    with pytest.raises(OSError, match=r"[Nn]o space left") as caught:
        write(mag, box, block)
    assert caught.value.errno == errno.ENOSPC
    assert (path.read_bytes(), path.stat().st_ino) == before
    Path(mag.path, "filler").unlink()
    write(mag, box, block)
    voxels[(slice(None), *box.to_slices())] = block
    np.testing.assert_array_equal(mag.read(CUBE), voxels)


def test_what_lies_in_a_private_root_is_no_obstacle(tmp_path):
    """A killed predecessor left a link in the slot: what it leads to is not touched."""
    mag = make(tmp_path / "mag")
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "0.shard").symlink_to(tmp_path / "precious")
    box = BoundingBox((0, 0, 0), (16, 16, 16))
    assert mag.build(str(tmp_path / "root"), 0, box, noise((1, 16, 16, 16)), None)
    assert (tmp_path / "precious").read_bytes() == b"mine"
    np.testing.assert_array_equal(mag.read_scratch(str(tmp_path / "root"), box), noise((1, 16, 16, 16)))


@pytest.mark.slow
def test_cubes_too_large_for_a_task_are_assembled_in_parts(tmp_path, monkeypatch):
    """A cube of 16 MiB by tasks of 12 MiB: parts into a private plain shard, then encoded chunk by chunk."""
    import dask.array as da

    from wkdask.jobs.engines.choice import LocalEngine

    monkeypatch.setattr(LocalEngine, "task_memory", lambda *_: 12 << 20)
    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    voxels = np.asfortranarray(np.random.default_rng(0).integers(0, 9, (1, 150, 130, 128), dtype="uint64"))
    for compression in ("zstd", False):
        layer = ds.add_layer(
            f"{compression}", "segmentation", dtype_per_channel="uint64", data_format="zarr3"
        )
        mag = layer.add_mag(1, chunk_shape=32, shard_shape=128, compression=compression)
        array = da.from_array(voxels, chunks=(1, 40, 40, 40))
        assert mag.plan_write(array, offset=(0, 0, 0)).plan.part is not None
        report = mag.write(array, offset=(0, 0, 0))
        assert report.cubes == 4
        np.testing.assert_array_equal(mag.read(), voxels)
        np.testing.assert_array_equal(zarr.open_array(mag.path)[:, :150, :130, :128], voxels)
        mag.write(da.from_array(voxels[:, :100, :100, :100], chunks=(1, 40, 40, 40)) + 1, offset=(3, 4, 5))
        expected = voxels.copy()
        expected[:, 3:103, 4:104, 5:105] = voxels[:, :100, :100, :100] + 1
        np.testing.assert_array_equal(mag.read(), expected)
