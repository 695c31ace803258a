"""Cubes that are decoded: what the checksums that were written with them say."""

import os

import dask
import pytest

from wkdask import testing
from wkdask.check.run import check_dataset
from wkdask.geometry import Vec3Int


@pytest.mark.parametrize(("data_format", "compression"), [("wkw", False), ("zarr3", False), ("zarr", "zstd")])
@pytest.mark.parametrize("has_checksums", [True, False])
def test_a_flipped_bit_is_found_by_its_checksum(make_mag, data_format, compression, has_checksums):
    chunk = 64 if data_format == "zarr" else 32
    mag = make_mag(cube=64, chunk=chunk, compression=compression, data_format=data_format)
    with dask.config.set({"wkdask.checksums": has_checksums}):
        mag.write(testing.random_voxels((1, 64, 64, 64), "uint8"), offset=(0, 0, 0))
    dataset = mag.place.dataset_path
    assert [each.code for each in check_dataset(dataset, deep=True) if each.severity == "error"] == []

    path = mag.place.store.cube_path(Vec3Int(0, 0, 0))
    info = os.stat(path)
    with open(path, "r+b") as file:  # as a disk does: the time stays
        file.seek(info.st_size // 2)
        byte = file.read(1)[0]
        file.seek(info.st_size // 2)
        file.write(bytes([byte ^ 4]))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    found = [each for each in check_dataset(dataset, deep=True) if each.severity == "error"]
    if has_checksums:
        (damage,) = found
        assert (damage.code, damage.path) == ("cube-damaged", path)
        assert "other checksums" in damage.what
    elif not compression:
        assert found == []  # nothing else knows what the byte was
