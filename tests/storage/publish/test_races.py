"""Publication under races and kills, with many processes and many rounds: nothing lost, nothing torn."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import wkw
from zygote import Zygote

from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import PRIVATE, ArraySpec
from wkdask.storage.publish.jobs import job_folder
from wkdask.storage.publish.publish import Piece, publish_pieces
from wkdask.storage.wkw.mag import WkwMag

PRELUDE = """if True:
    import os, tempfile, time
    from pathlib import Path
    import numpy as np
    from wkdask.errors import JobEndedError
    from wkdask.geometry import BoundingBox, Vec3Int
    from wkdask.storage.publish.locks import Attempt
    from wkdask.storage.publish.jobs import job_folder
    from wkdask.storage.protocol import ArraySpec
    from wkdask.storage.publish.publish import Piece, publish_pieces
    from wkdask.storage.wkw.mag import WkwMag

    def pieces_of(mag, boxes, value):
        boxes = [BoundingBox(each[:3], each[3:]) for each in boxes]
        return [
            Piece(box.topleft // mag.spec.shard_shape, box, np.full((1, *box.size), value, "uint8", order="F"))
            for box in boxes
        ]

    def write_at(moment, out, path, folder, boxes, value, unit=""):
        mag, pieces = WkwMag.open(path), None
        pieces = pieces_of(mag, boxes, value)
        while time.time() < moment:  # all at once
            pass
        try:
            publish_pieces(mag, folder, pieces, durable=False, attempt=Attempt(unit))
        except JobEndedError:
            Path(out).write_text("given up")
        else:
            Path(out).write_text("done")

    def write_on(path, folder, boxes, value, steps):
        mag = WkwMag.open(path)
        while True:
            publish_pieces(mag, folder, pieces_of(mag, boxes, value), durable=False, attempt=Attempt("unit"))
            value = value % steps + 1

    with tempfile.TemporaryDirectory() as scratch:  # the kernels are loaded before anything is forked
        for number, compression in enumerate((None, "lz4")):
            spec = ArraySpec("uint8", 1, Vec3Int.full(8), Vec3Int.full(16), compression)
            mag = WkwMag.create(f"{scratch}/{number}", spec)
            with job_folder(mag) as folder:
                for box in ([0, 0, 0, 16, 16, 16], [1, 2, 3, 9, 8, 7]):
                    for value in (1, 0):
                        publish_pieces(mag, folder, pieces_of(mag, [box], value), durable=False)
"""

each_store = pytest.mark.parametrize("compression", [None, "lz4"])


def quick_and_slow(quick, slow):
    return pytest.mark.parametrize("rounds", [quick, pytest.param(slow, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def zygote():
    with Zygote(PRELUDE) as server:
        yield server


def make_mag(tmp_path, compression, side, chunk):
    spec = ArraySpec("uint8", 1, Vec3Int.full(chunk), Vec3Int.full(side), compression)
    return WkwMag.create(str(tmp_path / "data" / "layer" / "1"), spec)


def library_read(mag, box):
    with contextlib.closing(wkw.Dataset.open(mag.path)) as dataset:
        return dataset.read(tuple(box.topleft), tuple(box.size))


def together(zygote, tmp_path, mag, folder, works, unit=""):
    """Run writers in processes of their own, all at once; return how each ended."""
    moment = time.time() + 0.02
    outs = [str(tmp_path / f"out{number}") for number in range(len(works))]
    children = [
        zygote.start(f"write_at({moment}, {out!r}, {mag.path!r}, {folder!r}, {boxes}, {value}, {unit!r})")
        for out, (boxes, value) in zip(outs, works, strict=True)
    ]
    for child in children:
        assert zygote.wait(child) == 0
    return [Path(out).read_text() for out in outs]


@quick_and_slow(4, 200)
@each_store
def test_parts_of_one_cube_from_several_processes(tmp_path, zygote, compression, rounds):
    """Three writers, disjoint parts that share chunks, one of them in another job: no voxel is lost."""
    mag = make_mag(tmp_path, compression, 32, 16)
    box = BoundingBox((0, 0, 0), (64, 32, 32))
    expected = np.zeros((1, *box.size), "uint8")
    rng = random.Random(3)
    for number in range(rounds):
        cuts = sorted(rng.sample(range(1, 32), 2))
        works = []
        for part, (low, high) in enumerate(zip([0, *cuts], [*cuts, 32], strict=True)):
            value = 1 + (3 * number + part) % 250
            works.append(([[x, low, 0, 32, high - low, 32] for x in (0, 32)], value))
            expected[:, :, low:high] = value
        with job_folder(mag) as folder:
            assert together(zygote, tmp_path, mag, folder, works) == ["done"] * 3
        np.testing.assert_array_equal(library_read(mag, box), expected)
    assert os.listdir(f"{mag.path}/{PRIVATE}") == ["locks"]


@quick_and_slow(5, 300)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "part"])
@each_store
def test_the_same_task_twice_at_once(tmp_path, zygote, compression, whole, rounds):
    """Each cube is one full result, and at least one of the two says that it is done."""
    mag = make_mag(tmp_path, compression, 32, 16)
    depth = 32 if whole else 21
    boxes = [[32 * x, 0, 0, 32, 32, depth] for x in range(3)]
    for number in range(rounds):
        first, second = 1 + 2 * number % 200, 2 + 2 * number % 200
        with job_folder(mag) as folder:
            works = [(boxes, first), (boxes, second)]
            assert "done" in together(zygote, tmp_path, mag, folder, works, unit="unit")
        for x in range(3):
            cube = library_read(mag, BoundingBox((32 * x, 0, 0), (32, 32, 32)))
            assert np.unique(cube[..., :depth]).tolist() in ([first], [second])
            assert not cube[..., depth:].any()


@pytest.mark.slow
@quick_and_slow(12, 100)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "part"])
@each_store
def test_a_killed_writer_leaves_the_old_cube_or_the_new_one(tmp_path, zygote, compression, whole, rounds):
    mag = make_mag(tmp_path, compression, 128, 32)
    depth = 128 if whole else 100
    boxes = [[128 * x, 0, 0, 128, 128, depth] for x in range(2)]
    cubes = [BoundingBox((128 * x, 0, 0), (128, 128, 128)) for x in range(2)]
    with job_folder(mag) as folder:
        old = [
            Piece(Vec3Int(x, 0, 0), cube, np.full((1, 128, 128, 128), 255, "uint8"))
            for x, cube in enumerate(cubes)
        ]
        publish_pieces(mag, folder, old)
    rng = random.Random(whole)
    states, value = set(), 255
    for number in range(rounds):
        with job_folder(mag) as folder:
            start = 1 + number % 200
            child = zygote.start(f"write_on({mag.path!r}, {folder!r}, {boxes}, {start}, 200)")
            time.sleep(rng.random() ** 2 * 0.06)
            os.kill(child, signal.SIGKILL)
            assert zygote.wait(child) == -signal.SIGKILL
            for cube in cubes:
                found = library_read(mag, cube)
                low = np.unique(found[..., :depth]).tolist()
                assert len(low) == 1, "a cube is the old one or a new one"
                assert np.unique(found[..., depth:]).tolist() == ([] if whole else [255])
                states.add(low[0] == value)
            value = 201 + number % 50  # the retry, by another process, in the same job
            assert together(zygote, tmp_path, mag, folder, [(boxes, value)], unit="unit") == ["done"]
        for cube in cubes:
            assert np.unique(library_read(mag, cube)[..., :depth]).tolist() == [value]
    assert False in states, "the kills met writers at work"
    assert True in states or rounds < 100, "and some before their first publication"
    assert os.listdir(f"{mag.path}/{PRIVATE}") == ["locks"]
