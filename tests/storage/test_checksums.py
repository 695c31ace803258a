"""Checksums of cubes: renewed by every publication, stale after other programs, damage where a bit flipped."""

import errno
import itertools
import os
import re
import shutil
from pathlib import Path

import dask
import numpy as np
import pytest
import wkw
import zarr

from wkdask import BoundingBox, Dataset, testing
from wkdask.errors import DamagedCubeError, TaskFailedError
from wkdask.geometry import Vec3Int
from wkdask.storage.checksums import (
    Checksums,
    Verdict,
    begin_checksums,
    crc32c,
    drop_entry,
    find_sums,
    has_checksums,
    put_entry,
    verify_cube,
    write_entry,
)

FORMS = [("wkw", None), ("wkw", "lz4"), ("zarr3", None), ("zarr3", "zstd"), ("zarr", "zstd")]
ORIGIN = Vec3Int(0, 0, 0)
PIECE = 65536


@pytest.fixture
def summed(make_mag):
    """Return a function that makes a mag of two cubes with checksums, and its voxels."""

    def make(data_format="wkw", compression=None):
        cube = 64
        mag = make_mag(
            cube=cube, chunk=cube if data_format == "zarr" else 32, compression=compression or False,
            data_format=data_format,
        )  # fmt: skip
        voxels = testing.random_voxels((1, 128, 64, 64), "uint8")
        with dask.config.set({"wkdask.checksums": True}):
            mag.write(voxels, offset=(0, 0, 0), progress=False)
        return mag, voxels

    return make


@pytest.fixture
def verifying():
    """Compare what is read with checksums."""
    with dask.config.set({"wkdask.verify-reads": True}):
        yield


def verdicts(mag):
    """Return what the checksums say of each cube."""
    store = mag.place.store
    return [verify_cube(store, index).state for index in store.cubes_on_disk()]


def flip(path, place, keep_time=True):
    """Flip a bit of a file, as a disk does, or as a program that writes in place."""
    info = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 4]))
    if keep_time:
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


@pytest.mark.parametrize(("data_format", "compression"), FORMS)
def test_a_flipped_bit_is_found_and_named(summed, verifying, data_format, compression):
    mag, voxels = summed(data_format, compression)
    path = mag.place.store.cube_path(ORIGIN)
    assert np.array_equal(mag.read(), voxels)
    assert verdicts(mag) == ["sound", "sound"]
    size = os.stat(path).st_size
    flip(path, size // 2)
    first = size // 2 // PIECE * PIECE
    assert verify_cube(mag.place.store, ORIGIN) == Verdict("damaged", ((first, min(first + PIECE, size)),))
    assert verdicts(mag) == ["damaged", "sound"]
    with pytest.raises(
        DamagedCubeError, match=rf"{re.escape(path)} is damaged: its bytes {first} to .* checksum"
    ):
        mag.read()
    reader = mag.open_reader()
    with pytest.raises(DamagedCubeError, match="checksum"):
        reader.read((0, 0, 0), (64, 64, 64))
    assert np.array_equal(mag.read((64, 0, 0), (64, 64, 64)), voxels[:, 64:])


def test_a_flipped_bit_of_plain_voxels_is_silent_without(summed):
    mag, voxels = summed()
    flip(mag.place.store.cube_path(ORIGIN), 100_000)
    assert not np.array_equal(mag.read(), voxels)


def test_a_small_read_is_verified_without_the_rest_of_the_cube(summed, verifying):
    mag, voxels = summed()
    path = mag.place.store.cube_path(ORIGIN)
    flip(path, os.stat(path).st_size - 1)
    assert np.array_equal(mag.read((0, 0, 0), (32, 32, 32)), voxels[:, :32, :32, :32])
    with pytest.raises(DamagedCubeError, match="checksum"):
        mag.read((32, 32, 32), (32, 32, 32))


@pytest.mark.parametrize(("data_format", "compression"), FORMS[:4])
def test_what_keeps_voxels_of_a_damaged_cube_is_refused(summed, tmp_path, data_format, compression):
    mag, _ = summed(data_format, compression)
    path = mag.place.store.cube_path(ORIGIN)
    flip(path, os.stat(path).st_size // 2)
    before = Path(path).read_bytes()
    with pytest.raises(TaskFailedError, match="other checksums than when they were written"):
        mag.write(np.full((1, 40, 40, 40), 7, "uint8"), offset=(0, 0, 0), progress=False)
    assert Path(path).read_bytes() == before
    with pytest.raises(TaskFailedError, match="other checksums than when they were written"):
        Dataset(os.path.dirname(mag.layer.path)).copy_dataset(tmp_path / "copy", progress=False)
    mag.write(np.full((1, 64, 64, 64), 7, "uint8"), offset=(0, 0, 0), progress=False)  # keeps nothing of it
    assert verdicts(mag) == ["sound", "sound"]


@pytest.mark.parametrize(("data_format", "compression"), FORMS)
def test_every_publication_renews_the_entry(summed, verifying, data_format, compression):
    mag, voxels = summed(data_format, compression)
    mag.write(np.full((1, 30, 64, 20), 3, "uint8"), offset=(50, 0, 10), progress=False)
    voxels[:, 50:80, :, 10:30] = 3
    assert verdicts(mag) == ["sound", "sound"]
    assert np.array_equal(mag.read(), voxels)
    entries = Path(mag.path, ".wkdask", "checksums")
    assert len([*entries.rglob("*.crc")]) == 2
    mag.write(np.zeros((1, 64, 64, 64), "uint8"), offset=(0, 0, 0), progress=False)  # the cube is removed
    assert len([*entries.rglob("*.crc")]) == 1
    assert verdicts(mag) == ["sound"]
    mag.write(mag.to_dask() + 1, offset=(0, 0, 0), progress=False)  # in place, in two phases
    assert verdicts(mag) == ["sound", "sound"]


def test_what_other_programs_write_is_stale_and_not_wrong(summed, verifying):
    mag, _ = summed()
    store = mag.place.store
    flip(store.cube_path(ORIGIN), 100_000, keep_time=False)  # in place, at once after the publication
    assert verify_cube(store, ORIGIN).state == "stale"
    mag.read()
    with wkw.Dataset.open(mag.path) as dataset:
        dataset.write((0, 0, 0), np.full((128, 64, 64), 9, "uint8"))
    assert verdicts(mag) == ["stale", "stale"]
    assert (mag.read() == 9).all()
    mag.write(np.full((1, 8, 8, 8), 5, "uint8"), offset=(0, 0, 0), progress=False)
    assert verdicts(mag) == ["sound", "stale"]


def test_a_fresh_cube_beside_an_old_entry_is_stale(summed, verifying, tmp_path):
    # as a reader may meet them between two renames, and after a crash there
    mag, _ = summed()
    store = mag.place.store
    entries = Path(mag.path, ".wkdask", "checksums")
    shutil.copytree(entries, tmp_path / "old")
    mag.write(np.full((1, 128, 64, 64), 5, "uint8"), offset=(0, 0, 0), progress=False)
    new = entries.rename(tmp_path / "new")
    shutil.copytree(tmp_path / "old", entries)
    assert verdicts(mag) == ["stale", "stale"]
    assert (mag.read() == 5).all()
    shutil.rmtree(entries)
    new.rename(entries)
    assert verdicts(mag) == ["sound", "sound"]
    assert find_sums(store.path, store.cube_path(ORIGIN), os.stat(__file__)) is None


def test_a_copy_of_the_files_with_their_times_keeps_its_checksums(summed, tmp_path):
    mag, _ = summed()
    dataset = os.path.dirname(mag.layer.path)
    other = Dataset(shutil.copytree(dataset, tmp_path / "moved"))
    assert verdicts(other.get_layer(mag.layer.name).get_mag(1)) == ["sound", "sound"]


def test_entries_that_are_cut_or_links_count_as_none(summed, verifying, tmp_path):
    mag, voxels = summed()
    entry = Path(mag.path, ".wkdask", "checksums", "z0", "y0", "x0.wkw.crc")
    data = entry.read_bytes()
    for wrong in (b"", data[:-1], data[:50], data[:-4] + b"abcd", b"?" + data[1:], bytes(len(data))):
        entry.write_bytes(wrong)
        assert verdicts(mag) == ["none", "sound"]
        assert np.array_equal(mag.read(), voxels)
    entry.unlink()
    (tmp_path / "entry").write_bytes(data)
    entry.symlink_to(tmp_path / "entry")
    assert verdicts(mag) == ["none", "sound"]


def test_an_entry_is_what_it_says():
    data = np.arange(200_000, dtype="<u4").view(np.uint8)
    pieces = [crc32c(data[start : start + PIECE]) for start in range(0, data.size, PIECE)]
    sums = Checksums(data.size, 12345, np.array(pieces, np.uint32))
    found = Checksums.from_bytes(sums.to_bytes())
    assert (found.size, found.time_ns, found.crcs.tolist()) == (data.size, 12345, pieces)
    assert crc32c(b"123456789") == 0xE3069283


def test_holes_have_the_checksums_of_zeros(tmp_path):
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.truncate(5 * PIECE + 100)
        file.seek(3 * PIECE + 7)
        file.write(b"voxels")
    entry = Checksums.from_bytes(Path(write_entry(str(path))).read_bytes())
    data = path.read_bytes()
    assert entry.crcs.tolist() == [
        crc32c(data[start : start + PIECE]) for start in range(0, len(data), PIECE)
    ]


def test_no_mag_gets_checksums_unasked_and_one_that_has_them_keeps_them(make_mag):
    mag = make_mag()
    mag.write(testing.random_voxels((1, 32, 32, 32), "uint8"), offset=(0, 0, 0), progress=False)
    assert not has_checksums(mag.path)
    assert verdicts(mag) == ["none"]
    begin_checksums(mag.path)
    mag.write(testing.random_voxels((1, 32, 32, 32), "uint8"), offset=(32, 0, 0), progress=False)
    assert verdicts(mag) == ["none", "sound"]
    shutil.rmtree(Path(mag.path, ".wkdask", "checksums"))
    mag.write(testing.random_voxels((1, 32, 32, 32), "uint8"), offset=(32, 0, 0), progress=False)
    assert verdicts(mag) == ["none", "none"]


def test_whatever_makes_mags_gives_them_checksums(tmp_path, leftovers):
    voxels = testing.random_voxels((1, 128, 128, 64), "uint8")
    with dask.config.set({"wkdask.checksums": True}):
        ds = Dataset.create(tmp_path / "ds", (4, 4, 35))
        layer = ds.add_layer("color", "color")
        mag = layer.add_mag(1, shard_shape=64)
        mag.write(voxels, offset=(0, 0, 0), progress=False)
        layer.downsample(coarsest_mag=2, progress=False)
        mag.compress(compression="lz4")
        mag.rechunk(32, 32)
        copy = ds.copy_dataset(tmp_path / "copy", progress=False)
        other = ds.copy_dataset(tmp_path / "other", data_format="zarr3", shard_shape=64, progress=False)
    layer.name = "renamed"
    for each in (ds.get_layer("renamed"), copy.get_layer("color"), other.get_layer("color")):
        for mag in each.mags.values():
            assert set(verdicts(mag)) == {"sound"}
    ds.get_layer("renamed").delete_mag("2-2-1")
    assert not os.path.exists(tmp_path / "ds" / "renamed" / "2-2-1")


@pytest.mark.parametrize(("data_format", "compression"), [("wkw", None), ("zarr3", "zstd"), ("zarr", "zstd")])
def test_other_readers_pass_over_the_entries(summed, data_format, compression):
    mag, voxels = summed(data_format, compression)
    again = Dataset(os.path.dirname(mag.layer.path)).get_layer(mag.layer.name).get_mag(1)
    assert len([*again.cubes_on_disk()]) == 2
    assert np.array_equal(again.read(), voxels)
    if data_format == "wkw":
        with wkw.Dataset.open(mag.path) as dataset:
            assert np.array_equal(dataset.read((0, 0, 0), (128, 64, 64)), voxels)
            assert len([*dataset.list_files()]) == 2
        assert len([*Path(mag.path).glob("z*/y*/x*.wkw")]) == len([*Path(mag.path).rglob("*.wkw")]) - 1 == 2
    else:
        assert np.array_equal(zarr.open_array(mag.path, mode="r")[:, :128, :64, :64], voxels)


def test_an_entry_is_put_where_no_link_leads_elsewhere(summed, tmp_path):
    mag, _ = summed()
    store = mag.place.store
    path = store.cube_path(ORIGIN)
    entries = Path(mag.path, ".wkdask", "checksums")
    shutil.rmtree(entries / "z0")
    (tmp_path / "elsewhere").mkdir()
    (entries / "z0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="z0"):
        put_entry(write_entry(path), store.path, path)
    drop_entry(store.path, path)
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_boxes_that_begin_anywhere_are_verified(summed, verifying):
    mag, voxels = summed("wkw", "lz4")
    for corner, size in itertools.product(
        itertools.product((0, 31, 63), (0, 17), (5,)), ((1, 1, 1), (40, 9, 33))
    ):
        box = BoundingBox(corner, size)
        assert np.array_equal(
            mag.read(absolute_offset=corner, size=size), voxels[(slice(None), *box.to_slices())]
        )


def test_a_job_that_stops_between_entry_and_cube_leaves_nothing_wrong(
    summed, verifying, monkeypatch, leftovers
):
    mag, voxels = summed()
    new = testing.random_voxels((1, 128, 64, 64), "uint8", seed=1)

    def fail(*_):
        raise OSError(errno.EIO, "the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr("wkdask.storage.publish.publisher.replace_keeping_mode", fail)
        with pytest.raises(TaskFailedError, match="the disk is gone"):
            mag.write(new, offset=(0, 0, 0), progress=False)
    assert "stale" in verdicts(mag)
    assert "damaged" not in verdicts(mag)
    assert np.array_equal(mag.read(), voxels)
    mag.write(new, offset=(0, 0, 0), progress=False)
    assert verdicts(mag) == ["sound", "sound"]
    assert np.array_equal(mag.read(), new)
    assert leftovers(mag) == ["checksums"]
