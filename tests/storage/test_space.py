"""The room that a job needs: never less than what it takes."""

import os
from pathlib import Path

import numpy as np
import pytest

from wkdask.fsio import free_bytes
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import ArraySpec
from wkdask.storage.publish.jobs import job_folder
from wkdask.storage.publish.publish import Piece, publish_pieces
from wkdask.storage.space import space_needed
from wkdask.storage.wkw.mag import WkwMag

SIDE = 64
CUBE = SIDE**3


def make_mag(tmp_path, compression=None):
    spec = ArraySpec("uint8", 1, Vec3Int.full(32), Vec3Int.full(SIDE), compression)
    return WkwMag.create(str(tmp_path / "mag"), spec)


def write(mag, box):
    voxels = np.random.default_rng(0).integers(1, 255, (1, *box.size)).astype("uint8", order="F")
    with job_folder(mag) as folder:
        pieces = [
            Piece(index, part, voxels[(slice(None), *part.to_slices(box.topleft))])
            for index, part in mag.spec.grid.pieces(box)
        ]
        publish_pieces(mag, folder, pieces)


def used(mag):
    return sum(path.stat().st_blocks * 512 for path in Path(mag.path).rglob("x*.wkw"))


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_new_cubes_count_with_what_is_written_of_them(tmp_path, compression):
    mag = make_mag(tmp_path, compression)
    box = BoundingBox((10, 0, 0), (60, 64, 64))
    assert space_needed(mag, box, at_once=2) == 96 * 64 * 64  # whole chunks
    assert space_needed(mag, BoundingBox((0, 0, 0), (0, 5, 5)), at_once=2) == 0
    write(mag, box)
    assert used(mag) <= 96 * 64 * 64 + 4 * 8192, "the bound holds, but for the blocks of the disk"


def test_cubes_that_are_replaced_are_there_twice_while_they_are_built(tmp_path):
    mag = make_mag(tmp_path)
    write(mag, BoundingBox((0, 0, 0), (2 * SIDE, SIDE, SIDE)))
    whole = BoundingBox((0, 0, 0), (4 * SIDE, SIDE, SIDE))
    assert space_needed(mag, whole, at_once=1) == 2 * CUBE + CUBE
    assert space_needed(mag, whole, at_once=8) == 2 * CUBE + 2 * CUBE
    elsewhere = whole.offset((0, SIDE, 0))
    assert space_needed(mag, elsewhere, at_once=8) == 4 * CUBE


@pytest.mark.parametrize(("compression", "expected"), [(None, 4 + 2), ("lz4", 4 + 2 + 2)])
def test_two_phases_need_all_at_once(tmp_path, compression, expected):
    mag = make_mag(tmp_path, compression)
    write(mag, BoundingBox((0, 0, 0), (2 * SIDE, SIDE, SIDE)))
    box = BoundingBox((0, 0, 0), (4 * SIDE, SIDE, SIDE))
    assert space_needed(mag, box, at_once=8, staged=True) == expected * CUBE


def test_free_bytes(tmp_path):
    space = os.statvfs(tmp_path)
    assert 0 < free_bytes(str(tmp_path)) <= space.f_blocks * space.f_frsize
    with pytest.raises(FileNotFoundError):
        free_bytes(str(tmp_path / "missing"))
