"""Where calls of Linux are missing: macOS works, Windows is told what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wkdask import portable

TESTS = Path(__file__).parent


def run(script, *arguments):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS / "helpers")])}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=TESTS.parent, capture_output=True, text=True, check=False)


WORK = """
import sys
import not_linux
import os
import dask.array as da
import numpy as np
from wkdask import Dataset

assert not any(hasattr(os, name) for name in not_linux.MISSING)
folder, data_format = sys.argv[1:]
data = np.random.default_rng(0).integers(1, 255, (1, 80, 70, 60), np.uint8)
ds = Dataset.create(folder + "/ds", (8, 8, 30))
layer = ds.add_layer("color", "color", data_format=data_format)
cut = {"chunk_shape": 16, "shard_shape": 16 if data_format == "zarr" else 32}
mag = layer.add_mag(1, compression=False, **cut)
mag.write(da.from_array(data, chunks=40), offset=(0, 0, 0))
data[:, 5:20, 7:50, 3:9] = 7
mag.write(data[:, 5:20, 7:50, 3:9], offset=(5, 7, 3))  # cubes in part: data extents are copied
assert (mag.read() == data).all()
report = mag.write(255 - mag.to_dask(), job="invert")  # in two phases
assert (mag.read() == 255 - data).all()
layer.downsample(coarsest_mag=4)
assert sum(mag.map_cubes(np.count_nonzero)) == np.count_nonzero(255 - data)
with mag.get_buffered_slice_writer(offset=(0, 0, 0)) as writer:
    for z in range(60):
        writer.send(data[..., z])
assert (mag.read() == data).all()
mag.write(data, offset=(0, 0, 0), resume=True, job="again")
assert mag.write(data, offset=(0, 0, 0), resume=True, job="again").was_finished
mag.compress()
assert (layer.get_mag(1).read() == data).all()
copy = ds.copy_dataset(folder + "/copy", data_format="wkw")
assert ds.first_difference(copy) is None
assert "color, uint8" in repr(copy)
layer.delete_mag("4-4-1")
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("data_format", ["wkw", "zarr3", "zarr"])
def test_what_a_dataset_is_used_for_works_without_what_only_linux_has(tmp_path, data_format):
    done = run(WORK, tmp_path, data_format)
    assert done.stdout.strip() == "done", done.stderr


# A sparse cube whose holes the system does not tell of is copied with zeros in their place.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "chosen"), [("test_every_call.py", "a_call_on_threads"), ("storage/publish", "not sparse")]
)
def test_the_suite_without_what_only_linux_has(tmp_path, module, chosen):
    script = "import sys, not_linux, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    done = run(
        script, TESTS / module, "-q", "-k", chosen, "-p", "no:cacheprovider", "--basetemp", tmp_path / "t"
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_windows_is_told_what_to_do():
    done = run("import sys; sys.modules['fcntl'] = None; import wkdask")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: wkdask runs on Linux and on macOS.")
    assert "WSL" in last


# each call against what it stands for


@pytest.fixture(params=[False, True], ids=["Linux", "elsewhere"])
def missing(request, monkeypatch):
    """Take away what only Linux has, or leave it; tell which."""
    if request.param:
        for name in ("sched_getaffinity", "fdatasync", "preadv", "SEEK_DATA", "SEEK_HOLE", "copy_file_range"):
            monkeypatch.delattr(os, name, raising=False)
    return request.param


def test_processors(missing):
    assert 1 <= portable.cores() <= os.cpu_count()


def test_files(missing, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 40)
    with open(source, "rb") as reader, open(target, "xb") as writer:
        buffer = memoryview(bytearray(100))
        assert portable.read_into(reader.fileno(), buffer, 250) == 100
        assert bytes(buffer) == (bytes(range(256)) * 2)[250:350]
        assert portable.read_into(reader.fileno(), buffer, 10240 - 30) == 30
        assert portable.read_into(reader.fileno(), buffer, 10240) == 0
        extents = list(portable.data_extents(reader.fileno(), 10240))
        assert extents == [(0, 10240)]
        copied = portable.copy_in_kernel(reader.fileno(), writer.fileno(), 1000, 0)
        assert copied is None if missing else copied in (None, 1000)
        portable.sync_data(writer.fileno())


def test_a_file_that_is_one_hole(missing, tmp_path):
    path = tmp_path / "hole"
    path.touch()
    os.truncate(path, 1 << 20)
    with open(path, "rb") as file:
        extents = list(portable.data_extents(file.fileno(), 1 << 20))
    assert extents == [(0, 1 << 20)] if missing else extents in ([], [(0, 1 << 20)])
