"""Cubes assembled part by part and published, whatever their size, around the voxels of older ones."""

import contextlib
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import wkw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thorough import examples

import wkdask
from wkdask.errors import DamagedCubeError, JobEndedError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import COMPRESSIONS, PRIVATE, ArraySpec
from wkdask.storage.publish import assemble
from wkdask.storage.publish.assemble import move_voxels, publication_nbytes, publish_assembled, publish_parts
from wkdask.storage.publish.jobs import job_folder
from wkdask.storage.publish.publish import Piece, publish_pieces
from wkdask.storage.wkw.mag import WkwMag
from wkdask.testing import boxes_within

SIDE = 32
CUBE = BoundingBox((0, 0, 0), (SIDE, SIDE, SIDE))
FIRST = Vec3Int(0, 0, 0)

each_compression = pytest.mark.parametrize("compression", COMPRESSIONS)


def make_mag(folder, compression=None, dtype="uint8", channels=1, chunk=8, side=SIDE):
    spec = ArraySpec(dtype, channels, Vec3Int.full(chunk), Vec3Int.full(side), compression)
    return WkwMag.create(str(Path(folder) / "data" / "layer" / "1"), spec)


def noise(mag, box, seed=0, zeros=0.0):
    rng = np.random.default_rng(seed)
    voxels = rng.integers(1, 100, (mag.spec.num_channels, *box.size)).astype(mag.spec.dtype, order="F")
    voxels[:, rng.random(box.size) < zeros] = 0
    return voxels


def put(mag, box, voxels):
    with job_folder(mag) as folder:
        pieces = [
            Piece(index, part, voxels[(slice(None), *part.to_slices(box.topleft))])
            for index, part in mag.spec.grid.pieces(box)
        ]
        publish_pieces(mag, folder, pieces, durable=False)


def stored_as(mag, compression):
    """Return the mag as one whose next cubes are stored otherwise than those that are there."""
    return mag.recompressed(compression)


@pytest.mark.slow
@settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    box=boxes_within(2 * SIDE, 1),
    older=st.none() | boxes_within(2 * SIDE, 1),
    compression=st.sampled_from(COMPRESSIONS),
    stored=st.sampled_from(COMPRESSIONS),
    zeros=st.sampled_from([0.0, 0.5, 1.0]),
    slab=st.sampled_from([1, 8**3, 3000, 1 << 20]),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_what_was_assembled_is_there_and_the_rest_stays(
    box, older, compression, stored, zeros, slab, channels, seed
):
    everything = BoundingBox((0, 0, 0), Vec3Int.full(2 * SIDE))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "SLAB_NBYTES", slab)
        mag = make_mag(folder, stored, "uint16", channels)
        expected = np.zeros((channels, *everything.size), "uint16")
        if older is not None:
            voxels = noise(mag, older, seed + 1)
            put(mag, older, voxels)
            expected[(slice(None), *older.to_slices())] = voxels
        mag = stored_as(mag, compression)
        voxels = noise(mag, box, seed, zeros)
        expected[(slice(None), *box.to_slices())] = voxels
        with job_folder(mag) as job:
            private = mag.staged(f"{job}/assembled", raw=True)
            for part in box.chunk(Vec3Int.full(16), Vec3Int.full(16)):
                private.write_in_place(part, voxels[(slice(None), *part.to_slices(box.topleft))])
            for _ in range(2):
                publish_assembled(mag, private, job, box, durable=bool(seed % 2))
                np.testing.assert_array_equal(mag.read(everything), expected)
        for index in mag.cubes_on_disk():
            cube = expected[(slice(None), *mag.spec.grid.cube_box(index).to_slices())]
            assert cube.any(), "a cube of zeros is not there"
            assert mag.conforms(mag.cube_path(index)) or older is not None
        with contextlib.closing(wkw.Dataset.open(mag.path)) as dataset:
            np.testing.assert_array_equal(dataset.read((0, 0, 0), tuple(everything.size)), expected)
        assert os.listdir(f"{mag.path}/{PRIVATE}") == ["locks"]


@each_compression
def test_several_parts_of_one_cube(tmp_path, compression):
    mag = make_mag(tmp_path, compression)
    expected = noise(mag, CUBE)
    put(mag, CUBE, expected)
    parts = [
        BoundingBox((1, 1, 1), (5, 5, 5)),
        BoundingBox((6, 0, 3), (9, 30, 2)),
        BoundingBox((9, 9, 9), (1, 1, 1)),
    ]
    with job_folder(mag) as folder:
        private = mag.staged(f"{folder}/assembled", raw=True)
        for number, box in enumerate(parts):
            voxels = noise(mag, box, number + 5)
            private.write_in_place(box, voxels)
            expected[(slice(None), *box.to_slices())] = voxels
        nbytes = publish_parts(mag, private, folder, FIRST, parts)
    assert nbytes == os.stat(mag.cube_path(FIRST)).st_size
    np.testing.assert_array_equal(mag.read(CUBE), expected)


@each_compression
def test_where_nobody_assembled_a_cube_zeros_were_written(tmp_path, compression):
    mag = make_mag(tmp_path, compression)
    box = BoundingBox((0, 0, 0), (2 * SIDE, SIDE, 20))
    voxels = noise(mag, BoundingBox((0, 0, 0), (2 * SIDE, SIDE, SIDE)))
    put(mag, BoundingBox((0, 0, 0), voxels.shape[1:]), voxels)
    with job_folder(mag) as folder:
        private = mag.staged(f"{folder}/assembled", raw=True)
        private.write_in_place(box, np.zeros((1, *box.size), "uint8", order="F"))
        assert list(private.cubes_on_disk()) == []
        assert publish_assembled(mag, private, folder, box)[0] == 2
        voxels[..., :20] = 0
        np.testing.assert_array_equal(mag.read(BoundingBox((0, 0, 0), voxels.shape[1:])), voxels)
        for _ in range(2):
            assert publish_assembled(mag, private, folder, CUBE) == (0, 0)
            assert list(mag.cubes_on_disk()) == [(1, 0, 0)]
    assert os.listdir(f"{mag.path}/{PRIVATE}") == ["locks"]


def test_zeros_over_voxels_of_a_private_cube(tmp_path):
    mag = make_mag(tmp_path)
    box = BoundingBox((0, 0, 8), (SIDE, SIDE, 8))
    with job_folder(mag) as folder:
        private = mag.staged(f"{folder}/assembled", raw=True)
        private.write_in_place(CUBE, noise(mag, CUBE))
        private.write_in_place(box, np.zeros((1, *box.size), "uint8", order="F"))
        assert not private.read(box).any()
        private.write_in_place(CUBE, np.zeros((1, *CUBE.size), "uint8", order="F"))
        publish_assembled(mag, private, folder, CUBE)
    assert list(mag.cubes_on_disk()) == [], "a cube that became zeros is not published"


def test_a_plain_cube_is_published_by_its_second_name(tmp_path):
    mag = make_mag(tmp_path)
    with job_folder(mag) as folder:
        private = mag.staged(f"{folder}/assembled", raw=True)
        private.write_in_place(CUBE, noise(mag, CUBE))
        publish_assembled(mag, private, folder, CUBE)
        assert os.path.samefile(private.cube_path(FIRST), mag.cube_path(FIRST))
        publish_assembled(mag, private, folder, CUBE)
        np.testing.assert_array_equal(mag.read(CUBE), noise(mag, CUBE))


def test_a_sparse_cube_stays_sparse(tmp_path):
    mag = make_mag(tmp_path, chunk=32, side=256)
    first, last = BoundingBox((0, 0, 0), (1, 1, 1)), BoundingBox((255, 255, 255), (1, 1, 1))
    put(mag, first, np.ones((1, 1, 1, 1), "uint8"))
    box = BoundingBox((0, 0, 200), (256, 256, 56))
    with job_folder(mag) as folder:
        private = mag.staged(f"{folder}/assembled", raw=True)
        private.write_in_place(last, np.ones((1, 1, 1, 1), "uint8"))
        publish_assembled(mag, private, folder, box)
    info = os.stat(mag.cube_path(FIRST))
    assert info.st_size == 16 + 256**3
    assert info.st_blocks * 512 < box.volume() + (1 << 20), "what was not written has no room of its own"
    assert mag.read(BoundingBox((0, 0, 0), Vec3Int.full(256)), 2).sum() == 2


@each_compression
def test_a_damaged_older_cube_is_not_merged_with(tmp_path, compression):
    mag = make_mag(tmp_path, compression)
    put(mag, CUBE, noise(mag, CUBE))
    path = Path(mag.cube_path(FIRST))
    path.write_bytes(path.read_bytes()[:-9])
    before = path.read_bytes()
    box = BoundingBox((0, 0, 0), (SIDE, SIDE, 9))
    with job_folder(mag) as folder:
        private = mag.staged(f"{folder}/assembled", raw=True)
        private.write_in_place(box, noise(mag, box))
        with pytest.raises(DamagedCubeError, match="x0"):
            publish_assembled(mag, private, folder, box)
        assert path.read_bytes() == before
        private.write_in_place(CUBE, noise(mag, CUBE, 2))
        publish_assembled(mag, private, folder, CUBE)  # a whole one heals it
    np.testing.assert_array_equal(mag.read(CUBE), noise(mag, CUBE, 2))


@pytest.mark.parametrize("box", [CUBE, BoundingBox((0, 0, 0), (9, 9, 9))], ids=["whole", "part"])
def test_a_private_mag_that_was_taken_away_is_not_empty(tmp_path, box):
    mag = make_mag(tmp_path)
    put(mag, CUBE, noise(mag, CUBE))
    with job_folder(mag) as folder:
        private = mag.staged(f"{folder}/assembled", raw=True)
        private.write_in_place(box, noise(mag, box, 1))
        os.rename(private.path, f"{folder}/sealed")
        with pytest.raises(JobEndedError, match="published and removed"):
            publish_assembled(mag, private, folder, box)
        with pytest.raises(OSError, match="assembled"):  # nor does it come back by a late part
            private.write_in_place(box, noise(mag, box, 2))
        assert not os.path.exists(private.path)
    np.testing.assert_array_equal(mag.read(CUBE), noise(mag, CUBE))


def test_voxels_are_moved_between_private_mags(tmp_path):
    mag = make_mag(tmp_path)
    box = BoundingBox((3, 4, 5), (2 * SIDE, 9, SIDE))
    with job_folder(mag) as folder:
        source, target = (mag.staged(f"{folder}/{name}", raw=True) for name in "ab")
        voxels = noise(mag, box, zeros=0.3)
        source.write_in_place(box, voxels)
        move_voxels(source, target, box)
        np.testing.assert_array_equal(target.read(box), voxels)


def test_parts_are_flushed_where_a_report_relies_on_it(tmp_path, monkeypatch):
    from wkdask.storage.wkw import build as wkw_build

    flushed = []
    monkeypatch.setattr(wkw_build, "fsync_files", lambda paths: flushed.extend(paths))
    monkeypatch.setattr(wkw_build, "fsync_folder", flushed.append)
    mag = make_mag(tmp_path)
    box = BoundingBox((0, 0, 0), (2 * SIDE, 8, 8))
    mag.write_in_place(box, noise(mag, box))
    assert flushed == []
    mag.write_in_place(box, noise(mag, box), durable=True)
    paths = [mag.cube_path(Vec3Int(x, 0, 0)) for x in (0, 1)]
    assert flushed == [*paths, f"{mag.path}/z0", f"{mag.path}/z0/y0", mag.path]


MEASURED = """if True:
    import os, sys
    import numpy as np
    from wkdask.geometry import BoundingBox, Vec3Int
    from wkdask.storage.publish.assemble import publication_nbytes, publish_assembled
    from wkdask.storage.publish.jobs import job_folder
    from wkdask.storage.protocol import ArraySpec
    from wkdask.storage.publish.publish import Piece, publish_pieces
    from wkdask.storage.wkw.mag import WkwMag

    side, compression, depth = 512, sys.argv[2] or None, int(sys.argv[3])
    spec = ArraySpec("uint32", 1, Vec3Int.full(32), Vec3Int.full(side), compression)
    mag = WkwMag.create(sys.argv[1], spec)
    layer = np.empty((1, side, side, 32), "uint32", order="F")

    def fill(private, start, value):
        for z in range(start, side, 32):
            layer[...] = value + z
            private.write_in_place(BoundingBox((0, 0, z), (side, side, 32)), layer)

    def peak():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))

    with job_folder(mag) as folder:
        first, second = (mag.staged(f"{folder}/{name}", raw=True) for name in "ab")
        fill(first, 0, 1)
        fill(second, side - depth, 1000)
        del layer
        # small twins, so that all code is loaded
        tiny = mag.staged(f"{folder}/c", raw=True)
        for box in (BoundingBox((side, 0, 0), (32, 32, 32)), BoundingBox((side, 0, 0), (40, 40, 40))):
            tiny.write_in_place(box, np.ones((1, *box.size), "uint32", order="F"))
            publish_assembled(mag, tiny, folder, box, durable=False)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        idle = peak()
        publish_assembled(mag, first, folder, BoundingBox((0, 0, 0), (side, side, side)), durable=False)
        box = BoundingBox((0, 0, side - depth), (side, side, depth))
        publish_assembled(mag, second, folder, box, durable=False)
        grown = peak() - idle
        for z in (0, side - depth - 1, side - depth, side - 1):
            value = z // 32 * 32 + (1000 if z >= side - depth else 1)
            voxels = mag.read(BoundingBox((0, 0, z), (side, side, 1)))
            assert (voxels == value).all(), z
        print(grown, publication_nbytes(spec), spec.cube_nbytes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["", "lz4hc"])
def test_memory_is_what_the_plan_says(tmp_path, compression):
    """A cube of 512 MiB, new and then a part of it over the old one, takes two slabs at most."""
    env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "mag"), compression, "96"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    grown, planned, cube = map(int, done.stdout.split())
    assert grown <= planned < cube / 2


def test_what_a_publication_takes_does_not_grow_with_the_cube():
    def needed(side, dtype, compression, chunk=32):
        spec = ArraySpec(dtype, 1, Vec3Int.full(chunk), Vec3Int.full(side), compression)
        return publication_nbytes(spec), spec.cube_nbytes

    for compression in (None, "lz4", "lz4hc"):
        small, large = needed(512, "uint64", compression), needed(1024, "uint64", compression)
        assert small[0] < large[0] < 64 << 20 < large[1]
    assert needed(64, "uint8", None)[0] < 16 << 20
    assert needed(2048, "uint64", None, 128)[0] < 64 << 20


def test_slabs_cover_a_box_once(tmp_path, monkeypatch):
    rng = random.Random(1)
    for _ in range(30):
        spec = ArraySpec("uint8", 1, Vec3Int.full(8), Vec3Int.full(64), None)
        monkeypatch.setattr(assemble, "SLAB_NBYTES", rng.choice([1, 8**3, 8**3 * 8, 10**4, 10**6]))
        low = [rng.randrange(60) for _ in range(3)]
        box = BoundingBox.from_corners(low, [rng.randrange(start + 1, 130) for start in low])
        slabs = list(assemble._slabs(box, spec))
        count = np.zeros(tuple(Vec3Int.full(130)), int)
        for slab in slabs:
            assert slab.volume() <= max(assemble.SLAB_NBYTES, 8**3)
            count[slab.to_slices()] += 1
        inside = count[box.to_slices()]
        assert (inside == 1).all()
        assert count.sum() == inside.sum()
