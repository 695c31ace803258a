"""Mags in an object store: the voxels that were put there, every format, whole and by boxes."""

import uuid
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_objects import delete, put, put_folder

from wkdask.errors import DamagedCubeError, DamagedHeaderError, ReadOnlyError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.formats import create_mag, open_mag
from wkdask.storage.protocol import ArraySpec
from wkdask.storage.publish.jobs import job_folder
from wkdask.storage.publish.publish import Piece, publish_pieces

SIDE, CHUNK = 32, 8
LAYOUTS = [
    ("wkw", None, "uint8", 1),
    ("wkw", "lz4", "uint32", 1),
    ("wkw", "lz4hc", "uint8", 3),
    ("zarr3", "zstd", "uint16", 1),
    ("zarr3", None, "uint8", 2),
    ("zarr", "zstd", "uint64", 1),
]
ALL = BoundingBox((0, 0, 0), (3 * SIDE, 2 * SIDE, 2 * SIDE))
WRITTEN = BoundingBox((5, 0, 3), (2 * SIDE, SIDE + 7, SIDE))


def stored(folder, data_format, compression, dtype, channels):
    """Return (a mag on the disk with voxels in a part of its cubes, all voxels of `ALL`)."""
    shard = CHUNK if data_format == "zarr" else SIDE
    spec = ArraySpec(dtype, channels, Vec3Int.full(CHUNK), Vec3Int.full(shard), compression, data_format)
    mag = create_mag(str(folder), spec, data_format, ALL.bottomright)
    voxels = np.zeros((channels, *ALL.size), dtype, order="F")
    part = np.random.default_rng(1).integers(0, 200, (channels, *WRITTEN.size)).astype(dtype)
    voxels[(slice(None), *WRITTEN.to_slices())] = part
    with job_folder(mag) as private:
        pieces = [
            Piece(index, piece, part[(slice(None), *piece.to_slices(WRITTEN.topleft))])
            for index, piece in mag.spec.grid.pieces(WRITTEN)
        ]
        publish_pieces(mag, private, pieces)
    return mag, voxels


@pytest.fixture(params=LAYOUTS, ids=lambda layout: "-".join(map(str, layout)))
def mag_at_url(request, tmp_path):
    """Return (the mag at a URL, its voxels, the mag on the disk)."""
    local, voxels = stored(tmp_path / "1", *request.param)
    url = f"memory://{uuid.uuid4().hex}/ds/color/1"
    put_folder(local.path, url)
    return open_mag(url, request.param[0]), voxels, local


def test_all_voxels_are_read(mag_at_url):
    mag, voxels, _ = mag_at_url
    assert np.array_equal(mag.read(ALL), voxels)
    assert np.array_equal(mag.read(ALL, threads=4), voxels)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_box_is_read(mag_at_url, data):
    mag, voxels, _ = mag_at_url
    low = [data.draw(st.integers(0, side + 5)) for side in ALL.size]
    size = [data.draw(st.integers(0, 40)) for _ in range(3)]
    box = BoundingBox(low, size)
    expected = np.zeros((voxels.shape[0], *size), voxels.dtype)
    inside = box.intersection(ALL)
    if not inside.is_empty():
        expected[(slice(None), *inside.to_slices(box.topleft))] = voxels[(slice(None), *inside.to_slices())]
    assert np.array_equal(mag.read(box), expected)


def test_the_cubes_are_those_on_the_disk(mag_at_url):
    mag, _, local = mag_at_url
    assert sorted(mag.cubes_on_disk()) == sorted(local.cubes_on_disk())
    assert mag.spec == local.spec
    assert not mag.is_empty(WRITTEN)
    assert mag.is_empty(BoundingBox((3 * SIDE, SIDE + 8, SIDE + 8), (4, 4, 4)))


def test_a_cube_that_is_replaced_is_read_anew(mag_at_url, tmp_path):
    """Its first bytes are kept by the object's ETag: never those of one version and the chunks of another."""
    mag, voxels, local = mag_at_url
    before = mag.fingerprint(ALL)
    index = Vec3Int(0, 0, 0)
    box = local.spec.grid.cube_box(index)
    part = BoundingBox(box.topleft, Vec3Int.full(CHUNK))
    mag.read(part)
    block = np.full((voxels.shape[0], *box.size), 7, voxels.dtype)
    with job_folder(local) as private:
        publish_pieces(local, private, [Piece(index, box, block)])
    path = local.cube_path(index)
    put(mag.cube_path(index), Path(path).read_bytes())
    assert (mag.read(part) == 7).all()
    assert mag.fingerprint(ALL) != before


def test_a_reader_that_stays_open(mag_at_url):
    mag, voxels, _ = mag_at_url
    reader = mag.kept_open(2)
    out = np.empty((voxels.shape[0], *ALL.size), voxels.dtype, order="F")
    reader.read(ALL, out, 2)
    reader.close()
    assert np.array_equal(out, voxels)


@pytest.mark.parametrize("nbytes", [0, 5, 16, 100, -1])
def test_a_truncated_cube_is_named(mag_at_url, nbytes):
    mag, _, local = mag_at_url
    index = next(iter(local.cubes_on_disk()))
    data = Path(local.cube_path(index)).read_bytes()
    put(mag.cube_path(index), data[: nbytes if nbytes >= 0 else len(data) - 1])
    with pytest.raises(DamagedCubeError, match=mag.cube_path(index)):
        mag.read(local.spec.grid.cube_box(index))


def test_a_missing_cube_is_empty_only_while_the_mag_is_there(mag_at_url):
    mag, _, local = mag_at_url
    index = next(iter(local.cubes_on_disk()))
    box = local.spec.grid.cube_box(index)
    delete(mag.cube_path(index))
    assert not mag.read(box).any()
    delete(mag.metadata_path)
    with pytest.raises(DamagedHeaderError, match=mag.metadata_path):
        mag.read(box)


FOREIGN = {
    "a fill value": {"chunks": (2, 16, 16, 16), "fill_value": 7},
    "a file for each channel": {"chunks": (1, 16, 16, 16)},
    "both, in Zarr 2": {"chunks": (1, 16, 16, 16), "fill_value": 3, "zarr_format": 2},
    "big-endian": {"chunks": (2, 16, 16, 16), "dtype": ">u2", "zarr_format": 2},
    "shards of all channels": {"chunks": (2, 8, 8, 8), "shards": (2, 16, 16, 16)},
}


@pytest.mark.parametrize("how", FOREIGN.values(), ids=FOREIGN)
def test_arrays_of_other_programs_are_as_on_the_disk(tmp_path, how):
    stored = {"shape": (2, 40, 40, 40), "dtype": "u2", "fill_value": 0, "zarr_format": 3, **how}
    array = zarr.create_array(str(tmp_path / "1"), **stored)
    array[:, 5:20, 8:30, 3:33] = np.random.default_rng(0).integers(1, 200, (2, 15, 22, 30))
    data_format = "zarr3" if stored["zarr_format"] == 3 else "zarr"
    local, url = open_mag(str(tmp_path / "1"), data_format), f"memory://{uuid.uuid4().hex}/ds/color/1"
    put_folder(local.path, url)
    mag = open_mag(url, data_format)
    beyond = BoundingBox((0, 0, 0), (45, 40, 40))
    assert np.array_equal(mag.read(beyond), local.read(beyond))
    assert sorted(mag.cubes_on_disk()) == sorted(local.cubes_on_disk())
    assert not mag.is_empty(BoundingBox((4, 8, 0), (8, 8, 8)))
    before = mag.fingerprint(beyond)
    last = mag.urls_of(Vec3Int(0, 0, 0))[-1]
    put(last, Path(local.path, last.removeprefix(f"{url}/")).read_bytes())
    assert mag.fingerprint(beyond) != before


def test_a_compressed_cube_of_an_uncompressed_mag_is_read(tmp_path):
    """Each cube says how it is stored: a mag that is being compressed has both kinds."""
    plain, voxels = stored(tmp_path / "plain", "wkw", None, "uint8", 1)
    packed, _ = stored(tmp_path / "packed", "wkw", "lz4", "uint8", 1)
    url = f"memory://{uuid.uuid4().hex}/ds/color/1"
    put_folder(plain.path, url)
    index = next(iter(plain.cubes_on_disk()))
    mag = open_mag(url, "wkw")
    put(mag.cube_path(index), Path(packed.cube_path(index)).read_bytes())
    for box in (BoundingBox((6, 1, 5), (9, 9, 9)), ALL):
        assert np.array_equal(mag.read(box), voxels[(slice(None), *box.to_slices())])


def test_what_would_write_is_refused(mag_at_url):
    mag, _, _ = mag_at_url
    for call in (
        lambda: mag.staged("folder"),
        lambda: mag.build("folder", 0, ALL, None, None),
        lambda: mag.write_in_place(ALL, None),
        lambda: mag.prepare(ALL),
        mag.finish,
        mag.publish_header,
        lambda: mag.recompressed(None),
        lambda: mag.drop_cube(Vec3Int(0, 0, 0)),
    ):
        with pytest.raises(ReadOnlyError, match=mag.path):
            call()


def test_a_url_without_a_mag_is_named():
    with pytest.raises(DamagedHeaderError, match="memory://nothing/ds/color/1 holds none of header"):
        open_mag("memory://nothing/ds/color/1")
