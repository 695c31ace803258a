"""Reads that gave wrong data are repeated past the page cache: by rules, and against a library that lies."""

import json
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import dask
import numpy as np
import pytest
from lying_reads import lies_told, lying

import wkdask
from wkdask import Dataset, testing
from wkdask.errors import CubePermissionError, DamagedCubeError
from wkdask.storage import rereads
from wkdask.storage.rereads import fill, note_repeated, read_again, reliably, take_repeated

PACKAGES = str(Path(wkdask.__file__).parent.parent)


@pytest.fixture
def cube(tmp_path, monkeypatch):
    """Return a file of a thousand bytes; nothing was counted, and no repetition waits."""
    path = tmp_path / "cube"
    path.write_bytes(bytes(range(250)) * 4)
    monkeypatch.setattr(rereads, "_PAUSES", (0.0,))
    take_repeated()
    with dask.config.set({"wkdask.read-retries": 3}):
        yield str(path)


def failing(times, error=DamagedCubeError, text="its chunk 7 is odd"):
    """Return a read that fails so often, then gives "right"; and how often it was called."""
    calls = []

    def read():
        calls.append(None)
        if len(calls) <= times:
            raise error(text)
        return "right"

    return read, calls


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_read_that_is_right_at_last_is_counted_and_logged(cube, caplog, times):
    read, calls = failing(times)
    with caplog.at_level(logging.WARNING, "wkdask"):
        assert reliably(cube, read) == "right"
    assert len(calls) == times + 1
    assert take_repeated() == 1
    assert take_repeated() == 0
    (record,) = caplog.records
    assert record.name == "wkdask.storage.rereads"
    assert cube in record.message
    assert "its chunk 7 is odd" in record.message


def test_what_stays_wrong_is_the_same_error_with_how_often_it_was_read(cube):
    read, calls = failing(100)
    with pytest.raises(DamagedCubeError) as caught:
        reliably(cube, read)
    assert str(caught.value) == "its chunk 7 is odd (read 4 times)"
    assert len(calls) == 4
    assert take_repeated() == 0
    # a read around that one does not begin anew
    outer, calls = failing(0)
    with pytest.raises(DamagedCubeError, match=r"odd \(read 4 times\)$"):
        read_again(cube, caught.value, outer)
    assert not calls


def test_a_file_that_is_damaged_for_good_is_read_twice_from_then_on(cube):
    with pytest.raises(DamagedCubeError, match="read 4 times"):
        reliably(cube, failing(100)[0])
    with pytest.raises(DamagedCubeError, match="read 2 times"):
        reliably(cube, failing(100)[0])
    Path(cube).write_bytes(b"another file")
    with pytest.raises(DamagedCubeError, match="read 4 times"):
        reliably(cube, failing(100)[0])


def test_no_repetition_where_the_setting_says_so_or_none_could_help(cube):
    with dask.config.set({"wkdask.read-retries": 0}):
        read, calls = failing(1)
        with pytest.raises(DamagedCubeError, match=r"^its chunk 7 is odd$"):
            reliably(cube, read)
        assert len(calls) == 1
    read, calls = failing(1, CubePermissionError, "not yours")
    with pytest.raises(CubePermissionError, match=r"^not yours$"):
        reliably(cube, read)
    assert len(calls) == 1


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system knows no such advice")
def test_whole_pages_around_the_part_are_dropped_before_each_repetition(cube, monkeypatch):
    dropped = []
    monkeypatch.setattr(
        os, "posix_fadvise", lambda _, start, size, advice: dropped.append((start, size, advice))
    )
    read, _ = failing(2)
    mib = 1 << 20
    assert read_again(cube, DamagedCubeError("odd"), read, (5 * mib, 100)) == "right"
    assert dropped == [(4 * mib, 2 * mib, os.POSIX_FADV_DONTNEED)] * 3


def test_bytes_that_end_too_early_are_asked_for_again_from_there_on(cube, monkeypatch):
    answers = [400, 0, 0, 350, 250]
    asked = []

    def read_into(descriptor, buffer, position):
        count = answers.pop(0)
        asked.append((position, len(buffer)))
        buffer[:count] = os.pread(descriptor, count, position)
        return count

    monkeypatch.setattr(rereads, "read_into", read_into)
    found = bytearray(1000)
    with open(cube, "rb") as file:
        assert fill(cube, file.fileno(), memoryview(found), 0)
    assert found == Path(cube).read_bytes()
    assert asked == [(0, 1000), (400, 600), (400, 600), (400, 600), (750, 250)]
    assert take_repeated() == 1


def test_a_report_has_what_was_repeated_since_the_job_began(make_mag):
    mag = make_mag()
    voxels = testing.random_voxels((1, 32, 32, 32), "uint8")
    note_repeated("cube", "odd", 1)  # before the job
    assert mag.write(voxels, offset=(0, 0, 0)).reads_repeated == 0

    def source(block):
        note_repeated("cube", "odd", 1)
        return block

    report = mag.write(mag.to_dask().map_blocks(source, dtype="uint8"), offset=(0, 0, 0))
    assert report.reads_repeated == 1
    assert "1 repeated" in repr(report)


# --- against a library that lies -------------------------------------------------------------------------

SHAPE = (192, 192, 128)
FORMS = {
    "raw": ("wkw", False, 64),
    "lz4": ("wkw", "lz4", 64),
    "shards": ("zarr3", "zstd", 64),
    "chunks": ("zarr", "zstd", 64),
}


def make_source(path, names, shape=SHAPE):
    """Make a dataset with a layer for each form; return the voxels, the same in all."""
    voxels = np.asfortranarray(np.random.default_rng(0).integers(0, 16, (1, *shape), "uint8") * 16)
    ds = Dataset.create(path, (4, 4, 35))
    for name in names:
        data_format, compression, shard = FORMS[name]
        layer = ds.add_layer(name, "color", data_format=data_format)
        mag = layer.add_mag(
            1, chunk_shape=64 if data_format == "zarr" else 32, shard_shape=shard, compression=compression
        )
        mag.write(voxels, offset=(0, 0, 0), durable=False, progress=False)
    return voxels


def run_lied_to(tmp_path, script, **lies):
    """Run a script whose reads of the source lie; return what it prints as JSON, and what it logs."""
    file = tmp_path / "script.py"
    file.write_text(
        "import json, logging, sys\nimport numpy as np\nfrom wkdask import Dataset\n"
        "def main(base):\n" + textwrap.indent(textwrap.dedent(script), "    ") + "\n"
        "if __name__ == '__main__':\n    main(sys.argv[1])\n"
    )
    env = {**os.environ, "PYTHONPATH": PACKAGES, "DASK_WKDASK__READ_RETRIES": "9"}
    env |= lying(tmp_path / "source", tmp_path / "lies", **lies)
    done = subprocess.run(
        [sys.executable, file, tmp_path], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert lies_told(tmp_path / "lies") > 0
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


READS = """
    voxels, right = np.load(f"{base}/voxels.npy"), {}
    coarse = np.load(f"{base}/coarse.npy")
    for name, layer in Dataset(f"{base}/source").layers.items():
        mag = layer.get_mag(1)
        reader = mag.open_reader()
        boxes = [((x, y, 60), (50, 40, 60)) for x in range(0, 142, 50) for y in range(0, 142, 40)]
        right[name] = {
            "read": bool((mag.read() == voxels).all()),
            "to_dask": bool((mag.to_dask().compute() == voxels).all()),
            "reader": all(
                (reader.read((x, y, z), size) == voxels[:, x : x + 50, y : y + 40, z : z + 60]).all()
                for (x, y, z), size in boxes
            ),
        }
        other = Dataset(f"{base}/{name}", voxel_size=(4, 4, 35)).add_layer(name, "color")
        report = other.add_mag(1, shard_shape=64).write(mag.to_dask(), progress=False)
        right[name]["written"] = bool((other.get_mag(1).read() == voxels).all())
        layer.downsample(coarsest_mag=2, sampling_mode="isotropic", interpolation_mode="nearest", progress=False)
        right[name]["downsampled"] = bool((layer.get_mag(2).read() == coarse).all())
    print(json.dumps(right))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kinds", ["s", "szn"])
def test_reads_that_lie_are_right_in_the_end(tmp_path, kinds):
    # Zeros and noise are found in shards, whose chunks have checksums, and spoil all of a small Zarr 2 file.
    names = list(FORMS) if kinds == "s" else ["shards", "chunks"]
    voxels = make_source(tmp_path / "source", names)
    np.save(tmp_path / "voxels.npy", voxels)
    np.save(tmp_path / "coarse.npy", voxels[:, ::2, ::2, ::2])
    right, log = run_lied_to(tmp_path, READS, per_10000=600, kinds=kinds)
    ways = {"read", "to_dask", "reader", "written", "downsampled"}
    assert right == {name: dict.fromkeys(ways, True) for name in names}
    assert "right data when it was repeated" in log


@pytest.mark.slow
def test_lies_about_uncompressed_voxels_are_found_by_checksums(tmp_path, monkeypatch):
    with dask.config.set({"wkdask.checksums": True}):
        voxels = make_source(tmp_path / "source", ["raw", "lz4"])
    np.save(tmp_path / "voxels.npy", voxels)
    np.save(tmp_path / "coarse.npy", voxels[:, ::2, ::2, ::2])
    monkeypatch.setenv("DASK_WKDASK__VERIFY_READS", "1")
    right, _ = run_lied_to(tmp_path, READS, per_10000=600)
    assert all(all(ways.values()) for ways in right.values())


COPY = """
    from wkdask.jobs.events import JobFinished
    logging.basicConfig(level=logging.WARNING)
    reports = []
    def listen(event):
        if isinstance(event, JobFinished):
            reports.append(event.report)
    options = dict(data_format="zarr3", shard_shape=128, chunk_shape=32, compression=None, progress=listen)
    if {workers}:
        from distributed import Client, LocalCluster
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            with Client(cluster) as client:
                Dataset(f"{{base}}/source").copy_dataset(f"{{base}}/copy", client=client, **options)
    else:
        Dataset(f"{{base}}/source").copy_dataset(f"{{base}}/copy", **options)
    print(json.dumps([report.reads_repeated for report in reports]))
"""


@pytest.mark.parametrize(
    ("workers", "shape"),
    [
        pytest.param(False, SHAPE, marks=pytest.mark.slow),
        pytest.param(True, SHAPE, marks=pytest.mark.slow),
        pytest.param(False, (1024, 512, 512), marks=pytest.mark.slow),
    ],
)
def test_a_copy_with_a_percent_of_lies_is_right_and_told(tmp_path, workers, shape):
    voxels = make_source(tmp_path / "source", ["shards"], shape)
    lies = {"per_10000": 1000 if shape == SHAPE else 100}
    (repeated,), log = run_lied_to(tmp_path, COPY.format(workers=workers), **lies)
    assert repeated > 0
    if not workers:
        assert "right data when it was repeated" in log
    copied = Dataset(tmp_path / "copy").get_layer("shards").get_mag(1).read()
    assert np.array_equal(copied, voxels)
