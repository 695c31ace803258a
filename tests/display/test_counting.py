"""Counting cubes: all of them in threads, or as many as a moment allows."""

import os
import threading

import numpy as np
import pytest
from reprs import with_layer

from wkdask.display import counting
from wkdask.display.counting import Count, count_all, count_within


class Cubes:
    """What of a stored mag is counted: cubes that are files, or None for those that were removed meanwhile."""

    def __init__(self, paths):
        self.paths = paths

    def cubes_on_disk(self):
        return iter(range(len(self.paths)))

    def cube_path(self, index):
        return self.paths[index]


@pytest.fixture
def files(tmp_path):
    """Return a function that makes files, and what they take on the disk together."""

    def make(count, size=5000):
        folder = tmp_path / f"{count}-{size}"
        folder.mkdir()
        paths = [str(folder / str(number)) for number in range(count)]
        for path in paths:
            with open(path, "wb") as file:
                file.write(b"x" * size)
        return Cubes(paths), sum(os.stat(path).st_blocks * 512 for path in paths)

    return make


def test_both_count_the_same(files, tmp_path):
    few, of_few = files(3)
    many, of_many = files(700, 10)
    few.paths.append(str(tmp_path / "removed"))
    expected = [Count(3, of_few, True), Count(700, of_many, True), Count(0, 0, True)]
    assert count_all([few, many, Cubes([])]) == expected
    assert count_within([few, many, Cubes([])], 300) == expected


def test_of_a_real_mag(ds):
    layer = with_layer(ds, data=np.ones((64, 64, 64), np.uint8))
    (count,) = count_all([layer.get_mag(1).place.store])
    assert count.cubes == 8
    assert count.nbytes == sum(
        os.stat(os.path.join(folder, name)).st_blocks * 512
        for folder, _, names in os.walk(layer.path)
        for name in names
        if name.startswith("x")
    )


def test_coarse_mags_are_counted_before_fine_ones(files, monkeypatch):
    fine, _ = files(100)
    coarse, nbytes = files(2)
    blocked, asked = threading.Event(), threading.Event()

    def cubes():
        yield 0
        asked.set()
        blocked.wait()
        yield 1

    monkeypatch.setattr(fine, "cubes_on_disk", cubes)
    threading.Timer(0, asked.wait).start()
    counts = count_within([fine, coarse], 0.5)
    blocked.set()
    assert counts[1] == Count(2, nbytes, True)
    assert (counts[0].cubes, counts[0].complete) == (1, False)
    assert counts[0].texts() == ("at least 1 cube", f"at least {os.stat(fine.paths[0]).st_blocks // 2} KiB")


def test_a_limit_of_cubes_and_of_time(files):
    cubes, _ = files(20)
    (count,) = count_within([cubes], 300, 7)
    assert (count.cubes, count.complete) == (7, False)
    (count,) = count_within([cubes], -1)
    assert (count.cubes, count.complete) == (0, False)
    assert count.texts() == ("? cubes", "?")


def test_words():
    assert Count(1, 1024, True).texts() == ("1 cube", "1 KiB")
    assert Count(12345, 1024, True).texts() == ("12345 cubes", "1 KiB")
    assert Count(12345, 1024).texts() == ("at least 12 345 cubes", "at least 1 KiB")
    with pytest.raises(OSError, match="gone"):
        Count(1, 1, True, OSError("gone")).texts()


@pytest.mark.parametrize("where", ["cubes_on_disk", "cube_path"])
def test_an_error_is_kept(files, monkeypatch, where):
    good, nbytes = files(2)
    bad, _ = files(3)

    def fail(*args):
        raise OSError("no permission")

    monkeypatch.setattr(bad, where, fail)
    for counts in (count_all([bad, good]), count_within([bad, good], 300)):
        assert str(counts[0].error) == "no permission"
        assert counts[1] == Count(2, nbytes, True)


def test_progress_is_told_from_time_to_time(files, monkeypatch):
    cubes, nbytes = files(600)
    monkeypatch.setattr(counting, "_INTERVAL", 0.001)
    told, enough = [], threading.Event()
    monkeypatch.setattr(cubes, "cubes_on_disk", lambda: (n for n in range(600) if n < 500 or enough.wait()))

    def tell(count, size):
        told.append((count, size))
        if count:
            enough.set()

    assert count_all([cubes], tell) == [Count(600, nbytes, True)]
    assert 0 < told[-1][0] <= 600


def test_ctrl_c_ends_the_threads(files, monkeypatch):
    cubes, _ = files(600)
    monkeypatch.setattr(counting, "_INTERVAL", 0.001)
    monkeypatch.setattr(cubes, "cubes_on_disk", lambda: (n % 600 for n in range(10**9)))
    before = threading.active_count()

    def stop(count, size):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count_all([cubes], stop)
    assert threading.active_count() == before
