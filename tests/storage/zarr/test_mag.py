"""Zarr mags: right voxels against zarr-python and tensorstore, both ways; an error, never zeros, for the rest."""

import itertools
import json
import os
import pickle
import shutil
import threading
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr
import zarr.codecs as zc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thorough import examples, mostly_slow
from zarr_mags import CUBE_0, FORMATS, SIDE, cubes, each_format, make, noise, write

from wkdask.errors import (
    DamagedHeaderError,
    DTypeError,
    InvalidValueError,
    UnsupportedFormatError,
)
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.formats import built_by
from wkdask.storage.protocol import DTYPES, ArraySpec
from wkdask.storage.zarr.mag import ZarrMag
from wkdask.testing import boxes_within

# --- what others wrote --------------------------------------------------------------------------------

BYTES = [
    [],
    [zc.ZstdCodec(level=3, checksum=True)],
    [zc.ZstdCodec(level=0, checksum=False)],
    [zc.GzipCodec(level=1)],
    [zc.BloscCodec(cname="lz4", clevel=4, shuffle="shuffle")],
    [zc.BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")],
    [zc.Crc32cCodec()],
    [zc.ZstdCodec(level=1), zc.Crc32cCodec()],
    [zc.Crc32cCodec(), zc.GzipCodec(level=1)],
]


@pytest.mark.slow
@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_zarr_3_as_zarr_python_writes_it(tmp_path, data):
    pick = lambda *values: data.draw(st.sampled_from(values))  # noqa: E731
    dtype, channels = pick(*DTYPES), pick(1, 3)
    axes = (
        pick("cxyz", "zyx", "xyz", "czyx", "xyzc", "tczyx") if channels == 1 else pick("cxyz", "zyxc", "czyx")
    )
    order = data.draw(st.permutations(range(len(axes))))
    sharded, fill = pick(True, True, False), pick(0, 0, 0, 7)
    extent = {"c": channels, "x": 21, "y": 16, "z": 9, "t": 1}
    chunk = {"c": pick(1, channels), "x": 4, "y": 8, "z": 3, "t": 1}
    shard = {**chunk, "c": channels, "x": 8, "z": 9} if sharded else chunk
    codecs = [
        zc.TransposeCodec(order=tuple(order)),
        zc.BytesCodec(endian=pick("little", "big")),
        *pick(*BYTES),
    ]
    if sharded:
        codecs = [
            zc.ShardingCodec(
                chunk_shape=[chunk[axis] for axis in axes], codecs=codecs, index_location=pick("start", "end"),
                index_codecs=pick([zc.BytesCodec(), zc.Crc32cCodec()], [zc.BytesCodec()]),
            )
        ]  # fmt: skip
    folder = tmp_path / "mag"
    shutil.rmtree(folder, ignore_errors=True)
    serializer = next(c for c in codecs if isinstance(c, zc.ShardingCodec | zc.BytesCodec))
    at = codecs.index(serializer)
    array = zarr.create_array(
        folder, shape=[extent[a] for a in axes], chunks=[shard[a] for a in axes], dtype=dtype, fill_value=fill,
        filters=codecs[:at], serializer=serializer, compressors=codecs[at + 1 :], zarr_format=3,
        dimension_names=list(axes) if pick(True, False) and axes != "tczyx" else None,
        chunk_key_encoding={"name": pick("default", "v2"), "separator": pick(".", "/")},
    )  # fmt: skip
    expected = np.zeros((channels, 40, 40, 40), dtype)
    voxels = np.full((channels, 21, 16, 9), fill, dtype)
    for part in data.draw(st.lists(boxes_within(16), min_size=1, max_size=3)):
        part = part.intersection(BoundingBox((0, 0, 0), (21, 16, 9)))
        inner = (slice(None), *part.to_slices())
        voxels[inner] = noise((channels, *part.size), dtype)
    stored = voxels
    if "t" in axes:
        stored = stored[..., None]
    named = "cxyz" + ("t" if "t" in axes else "")
    if "c" not in axes:
        stored, named = stored[0], named[1:]
    array[...] = stored.transpose([named.index(a) for a in axes])
    expected[:, :21, :16, :9] = voxels

    mag = ZarrMag.open(str(folder), "zarr3", {axis: n for n, axis in enumerate(axes)})
    assert mag.spec.dtype == dtype
    assert mag.spec.num_channels == channels
    assert pickle.loads(pickle.dumps(mag)) == mag
    for box in [BoundingBox((0, 0, 0), (40, 40, 40)), *data.draw(st.lists(boxes_within(30), max_size=3))]:
        found = mag.read(box, pick(1, 3))
        np.testing.assert_array_equal(found, expected[(slice(None), *box.to_slices())])
        assert found.dtype == dtype
        assert found.flags.f_contiguous
        assert not (mag.is_empty(box) and found.any())
    one_file = chunk["c"] == channels or sharded
    if one_file and fill == 0:  # and we write into it
        box = data.draw(boxes_within(20).filter(lambda box: not box.is_empty()))
        block = noise((channels, *box.size), dtype, 1)
        write(mag, box, block, verify=True)
        expected[(slice(None), *box.to_slices())] = block
        np.testing.assert_array_equal(mag.read(BoundingBox((0, 0, 0), (40, 40, 40))), expected)
        again = zarr.open_array(folder, mode="r")
        theirs = (
            again[...]
            .transpose([axes.index(a) for a in named])
            .reshape([extent["c"], *(again.shape[axes.index(a)] for a in "xyz")])
        )
        np.testing.assert_array_equal(
            theirs, expected[:, : theirs.shape[1], : theirs.shape[2], : theirs.shape[3]]
        )
    else:
        with pytest.raises(UnsupportedFormatError):
            write(mag, CUBE_0, noise((channels, SIDE, SIDE, SIDE), dtype))


@pytest.mark.slow
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("name", ["zstd", "zlib", "gzip", "blosc", "lz4", None])
@pytest.mark.parametrize("dtype", ["|u1", "<u4", ">f4", ">i2"])
def test_zarr_2_as_zarr_python_writes_it(tmp_path, order, separator, name, dtype):
    import numcodecs

    codec = None if name is None else numcodecs.get_codec({"id": name})
    array = zarr.create_array(
        tmp_path / "mag", shape=(2, 21, 16, 9), chunks=(2, 8, 8, 8), dtype=dtype, zarr_format=2, order=order,
        compressors=codec, filters=None, chunk_key_encoding={"name": "v2", "separator": separator}, fill_value=0,
    )  # fmt: skip
    voxels = noise((2, 21, 16, 9), dtype)
    array[...] = voxels
    mag = ZarrMag.open(str(tmp_path / "mag"), "zarr")
    assert mag.spec.compression == name
    np.testing.assert_array_equal(mag.read(BoundingBox((0, 0, 0), (21, 16, 9))), voxels)
    assert cubes(mag) == set(itertools.product(range(3), range(2), range(2)))
    box, block = BoundingBox((5, 7, 3), (10, 3, 6)), noise((2, 10, 3, 6), mag.spec.dtype, 1)
    write(mag, box, block)
    voxels[(slice(None), *box.to_slices())] = block
    np.testing.assert_array_equal(mag.read(BoundingBox((0, 0, 0), (21, 16, 9))), voxels)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "mag", mode="r")[...], voxels)


# --- what we write ------------------------------------------------------------------------------------


@each_format
@pytest.mark.parametrize(
    ("dtype", "channels"),
    mostly_slow(
        itertools.product(DTYPES, [1, 3]),
        lambda _, case: case in (("uint8", 3), ("uint32", 1), ("float32", 1)),
    ),
)
def test_others_read_what_we_write(tmp_path, data_format, compression, channels, dtype):
    tensorstore = pytest.importorskip("tensorstore")
    mag = make(tmp_path / "mag", data_format, compression, dtype, channels)
    expected = np.zeros((channels, 48, 32, 32), dtype)
    for box in (CUBE_0, BoundingBox((21, 3, 5), (20, 14, 9))):
        block = noise((channels, *box.size), dtype)
        write(mag, box, block, verify=True)
        expected[(slice(None), *box.to_slices())] = block
    found = mag.read(BoundingBox((0, 0, 0), (48, 32, 32)))
    np.testing.assert_array_equal(found, expected)
    array = zarr.open_array(tmp_path / "mag", mode="r")
    assert array.dtype == dtype
    corner = tuple(slice(0, side) for side in array.shape)
    np.testing.assert_array_equal(array[...], expected[corner])
    assert all(side % (8 if data_format == "zarr" else SIDE) == 0 for side in array.shape[1:])
    driver = {"zarr3": "zarr3", "zarr": "zarr"}[data_format]
    store = {"driver": "file", "path": str(tmp_path / "mag")}
    theirs = tensorstore.open({"driver": driver, "kvstore": store}).result()
    np.testing.assert_array_equal(theirs.read().result(), expected[corner])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
@pytest.mark.parametrize("compressed", [True, False])
def test_we_read_what_tensorstore_writes(tmp_path, dtype, compressed):
    tensorstore = pytest.importorskip("tensorstore")
    mag = make(
        tmp_path / "mag", "zarr3", "zstd" if compressed else None, dtype, 3, extent=Vec3Int(32, 32, 16)
    )
    voxels = noise((3, 32, 32, 16), dtype)
    voxels[:, :16] = 0
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": mag.path}}
    tensorstore.open(spec).result()[...] = voxels
    np.testing.assert_array_equal(mag.read(BoundingBox((0, 0, 0), (32, 32, 16))), voxels)
    assert cubes(mag) == {(1, 0, 0), (1, 1, 0)}


@pytest.mark.parametrize("part", [(160, 160, 160), (150, 9, 160)], ids=["whole", "part"])
def test_threads_that_build_a_cube_together_make_the_same_file(tmp_path, part):
    block = np.zeros((1, *part), "uint16", order="F")
    block[:, :120] = noise((1, 120, *part[1:]), "uint16")
    box, files = BoundingBox((0, 0, 0), part), {}
    for threads in (1, 3):
        mag = make(tmp_path / str(threads), dtype="uint16", chunk=16, shard=160)
        mag = pickle.loads(pickle.dumps(built_by(mag, threads)))
        assert mag.threads == threads
        write(mag, box, block)
        files[threads] = Path(mag.cube_path(Vec3Int(0, 0, 0))).read_bytes()
        assert np.array_equal(mag.read(box), block)
    assert files[1] == files[3]


def test_the_metadata_are_those_of_webknossos_4(tmp_path):
    mag = make(
        tmp_path / "3", "zarr3", dtype="uint32", channels=3, chunk=32, shard=64, extent=Vec3Int(100, 60, 40)
    )
    found = json.loads(Path(mag.metadata_path).read_text())
    (sharding,) = found["codecs"]
    assert found["shape"] == [3, 128, 64, 64]
    assert found["chunk_grid"] == {"name": "regular", "configuration": {"chunk_shape": [3, 64, 64, 64]}}
    assert found["dimension_names"] == ["c", "x", "y", "z"]
    assert sharding["name"] == "sharding_indexed"
    assert sharding["configuration"]["chunk_shape"] == [3, 32, 32, 32]
    assert sharding["configuration"]["codecs"] == [
        {"name": "transpose", "configuration": {"order": [3, 2, 1, 0]}},
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "zstd", "configuration": {"level": 5, "checksum": True}},
    ]
    assert [codec["name"] for codec in sharding["configuration"]["index_codecs"]] == ["bytes", "crc32c"]
    mag = make(tmp_path / "2", "zarr", dtype="uint32", chunk=32)
    found = json.loads(Path(mag.metadata_path).read_text())
    assert found == {
        "zarr_format": 2, "shape": [1, 32, 32, 32], "chunks": [1, 32, 32, 32], "dtype": "<u4", "order": "F",
        "compressor": {"id": "zstd", "level": 5}, "fill_value": 0, "filters": None, "dimension_separator": "/",
    }  # fmt: skip
    assert mag.cube_path(Vec3Int(1, 2, 3)) == str(tmp_path / "2" / "0" / "1" / "2" / "3")


@pytest.mark.slow
@settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(FORMATS),
    st.sampled_from([1, 2]),
    st.lists(st.tuples(boxes_within(40), st.booleans()), min_size=1, max_size=5),
    st.sampled_from([(8, 16), ((8, 4, 2), (16, 16, 8)), (16, 16)]),
)
def test_writes_upon_writes(tmp_path, form, channels, steps, cut):
    """Boxes anywhere, some of zeros: the voxels are those of an array, and no cube of zeros stays."""
    data_format, compression = form
    folder = tmp_path / "mag"
    shutil.rmtree(folder, ignore_errors=True)
    mag = make(folder, data_format, compression, "uint16", channels, *cut)
    expected = np.zeros((channels, 48, 48, 48), "uint16")
    for seed, (box, empty) in enumerate(steps):
        if box.is_empty():
            continue
        block = noise((channels, *box.size), "uint16", seed)
        if empty:
            block[...] = 0
        write(mag, box, block, verify=True)
        expected[(slice(None), *box.to_slices())] = block
        np.testing.assert_array_equal(mag.read(BoundingBox((0, 0, 0), (48, 48, 48)), threads=2), expected)
        full = {
            tuple(index)
            for index, piece in mag.spec.grid.pieces(BoundingBox((0, 0, 0), (48, 48, 48)))
            if expected[(slice(None), *piece.to_slices())].any()
        }
        assert cubes(mag) == full


@pytest.mark.parametrize("order", ["C", "F"])
def test_blocks_in_any_order_of_memory(tmp_path, order):
    mag = make(tmp_path / "mag", channels=3)
    voxels = noise((3, 32, 32, 32))
    write(mag, BoundingBox((0, 0, 0), (32, 32, 32)), np.asarray(voxels, order=order))
    np.testing.assert_array_equal(mag.read(BoundingBox((0, 0, 0), (32, 32, 32))), voxels)


def test_negative_zeros_and_nan_are_not_empty(tmp_path):
    mag = make(tmp_path / "mag", dtype="float32")
    block = np.full((1, SIDE, SIDE, SIDE), -0.0, "float32", order="F")
    write(mag, CUBE_0, block)
    assert np.signbit(mag.read(CUBE_0)).all()


def test_chunks_of_zeros_take_no_place(tmp_path):
    mag = make(tmp_path / "mag", compression=None)
    block = np.zeros((1, SIDE, SIDE, SIDE), "uint8", order="F")
    block[0, 0, 0, 0] = 1
    write(mag, CUBE_0, block)
    assert os.stat(mag.cube_path(Vec3Int(0, 0, 0))).st_size == 8**3 + 8 * 16 + 4


# --- the shape ----------------------------------------------------------------------------------------


@each_format
def test_the_shape_grows_in_whole_cubes_and_keeps_what_others_noted(tmp_path, data_format, compression):
    mag = make(tmp_path / "mag", data_format, compression)
    side = mag.spec.shard_shape.x
    before = json.loads(Path(mag.metadata_path).read_text())
    before["attributes"] = {"mine": [1, {"deep": None}]}
    Path(mag.metadata_path).write_text(json.dumps(before))
    mag.prepare(BoundingBox((0, 0, 0), (side, side, side)))
    assert json.loads(Path(mag.metadata_path).read_text()) == before
    mag.prepare(BoundingBox((3, 5, 7), (side, 1, 1)))
    mag.prepare(BoundingBox((0, 0, 3 * side), (1, 1, 1)))
    grown = json.loads(Path(mag.metadata_path).read_text())
    assert grown == before | {"shape": [1, 2 * side, side, 4 * side]}


@each_format
def test_an_array_that_ends_with_the_box(tmp_path, data_format, compression):
    with dask.config.set({"wkdask.zarr-shape": "box"}):
        mag = make(tmp_path / "mag", data_format, compression, extent=Vec3Int(5, 6, 7))
        assert zarr.open_array(mag.path, mode="r").shape == (1, 5, 6, 7)
        first, second = BoundingBox((1, 2, 3), (20, 9, 5)), BoundingBox((30, 2, 3), (11, 4, 50))
        for box in (first, second):
            mag.prepare(box)
            write(mag, box, noise((1, *box.size)))
        array = zarr.open_array(mag.path, mode="r")
        assert array.shape == (1, 41, 11, 53)
        expected = np.zeros(array.shape, "uint8")
        for box in (first, second):
            expected[(slice(None), *box.to_slices())] = noise((1, *box.size))
        np.testing.assert_array_equal(array[...], expected)
        np.testing.assert_array_equal(mag.read(BoundingBox((0, 0, 0), (41, 11, 53))), expected)
        assert not mag.read(BoundingBox((35, 8, 40), (64, 64, 64)))[:, 6:, 3:, 13:].any()
        empty = make(tmp_path / "empty", data_format, compression)
        assert zarr.open_array(empty.path, mode="r").shape == (1, 1, 1, 1)
    mag.prepare(BoundingBox((0, 0, 0), (42, 1, 1)))  # whole cubes again
    side = mag.spec.shard_shape.x
    assert zarr.open_array(mag.path, mode="r").shape == (1, -(-42 // side) * side, max(11, side), 53)


def test_another_word_on_the_shape_is_refused(tmp_path):
    with (
        dask.config.set({"wkdask.zarr-shape": "chunks"}),
        pytest.raises(InvalidValueError, match="'chunks'"),
    ):
        make(tmp_path / "mag")


def test_two_that_grow_at_once_both_do(tmp_path):
    mag = make(tmp_path / "mag")
    for _ in range(20):
        corner = zarr.open_array(mag.path, mode="r").shape[1:]
        boxes = [
            BoundingBox([corner[n] if n == axis else 0 for n in range(3)], (1, 1, 1)) for axis in range(3)
        ]
        threads = [threading.Thread(target=mag.prepare, args=(box,)) for box in boxes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list(zarr.open_array(mag.path, mode="r").shape[1:]) == [side + SIDE for side in corner]


def test_growth_by_another_process_is_seen(tmp_path):
    mag = make(tmp_path / "mag")
    other = pickle.loads(pickle.dumps(mag))
    box = BoundingBox((32, 0, 0), (SIDE, SIDE, SIDE))
    assert not mag.read(box).any()
    write(other, box, noise((1, *box.size)))
    np.testing.assert_array_equal(mag.read(box), noise((1, *box.size)))


def test_what_lies_beyond_the_shape_is_zeros(tmp_path):
    mag = make(tmp_path / "mag", extent=Vec3Int(32, 32, 32))
    write(mag, BoundingBox((0, 0, 0), (32, 32, 32)), noise((1, 32, 32, 32)))
    document = json.loads(Path(mag.metadata_path).read_text()) | {"shape": [1, 20, 32, 16]}
    Path(mag.metadata_path).write_text(json.dumps(document))
    found = mag.read(BoundingBox((0, 0, 0), (64, 64, 64)))
    expected = np.zeros((1, 64, 64, 64), "uint8")
    expected[:, :20, :32, :16] = noise((1, 32, 32, 32))[:, :20, :, :16]
    np.testing.assert_array_equal(found, expected)


# --- private mags -------------------------------------------------------------------------------------


@each_format
def test_a_private_plain_mag_is_filled_part_by_part(tmp_path, data_format, compression):
    mag = make(tmp_path / "mag", data_format, compression, channels=2)
    staged = mag.staged(str(tmp_path / "staged"), raw=True)
    box = BoundingBox((3, 5, 60), (40, 20, 50))
    voxels = noise((2, *box.size))
    for z in range(0, 50, 3):
        part = voxels[..., z : z + 3]
        staged.write_in_place(BoundingBox((3, 5, 60 + z), (40, 20, part.shape[3])), part)
    np.testing.assert_array_equal(staged.read(box), voxels)
    assert all(staged.check_cube(staged.cube_path(index)) for index in staged.cubes_on_disk())
    assert staged.spec.compression is None
    assert (staged.spec == mag.spec) == (compression is None)
    staged.write_in_place(BoundingBox((200, 0, 0), (8, 8, 8)), np.zeros((2, 8, 8, 8), "uint8"))
    assert (200 // mag.spec.shard_shape.x, 0, 0) not in cubes(staged)
    if compression is not None:
        with pytest.raises(InvalidValueError, match="compressed"):
            mag.write_in_place(box, voxels)
    theirs = zarr.open_array(staged.path, mode="r")
    np.testing.assert_array_equal(theirs[:, 3:43, 5:25, 60:110], voxels)
    index = mag.spec.grid.cubes(box)[0]
    staged.drop_cube(index)
    staged.drop_cube(index)
    assert tuple(index) not in cubes(staged)


def test_threads_fill_one_plain_cube(tmp_path):
    staged = make(tmp_path / "mag", shard=64).staged(str(tmp_path / "staged"), raw=True)
    voxels = noise((1, 64, 64, 64))
    parts = list(BoundingBox((0, 0, 0), (64, 64, 64)).chunk((8, 64, 64)))
    threads = [
        threading.Thread(target=staged.write_in_place, args=(part, voxels[(slice(None), *part.to_slices())]))
        for part in parts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(staged.read(BoundingBox((0, 0, 0), (64, 64, 64))), voxels)


def test_a_private_mag_that_was_taken_away_does_not_come_back(tmp_path):
    staged = make(tmp_path / "mag").staged(str(tmp_path / "staged"), raw=True)
    shutil.rmtree(staged.path)
    with pytest.raises(FileNotFoundError):
        staged.write_in_place(CUBE_0, noise((1, SIDE, SIDE, SIDE)))
    assert not os.path.exists(staged.path)


# --- what is stored otherwise -------------------------------------------------------------------------


def test_specs_tell_formats_and_codecs_apart(tmp_path):
    mags = [
        make(tmp_path / f"{form}{compression}", form, compression, shard=8) for form, compression in FORMATS
    ]
    wkw = ArraySpec("uint8", 1, Vec3Int.full(8), Vec3Int.full(8), None)
    assert len({mag.spec for mag in mags} | {wkw}) == len(FORMATS) + 1
    assert make(tmp_path / "again", shard=8).spec == mags[0].spec
    assert {mag.spec.data_format for mag in mags} == {"zarr3", "zarr"}


def test_compression_in_place_is_refused(tmp_path):
    mag = make(tmp_path / "mag")
    assert mag.recompressed("zstd") == mag
    mag.recompressed("zstd").publish_header()
    with pytest.raises(UnsupportedFormatError, match="target_path"):
        mag.recompressed(None)


@pytest.mark.parametrize(
    ("data_format", "spec", "error", "text"),
    [
        ("zarr", {"shard_shape": Vec3Int.full(16)}, UnsupportedFormatError, "no shards"),
        ("zarr3", {"compression": "lz4hc"}, UnsupportedFormatError, "lz4hc"),
        ("zarr3", {"compression": "zlib"}, UnsupportedFormatError, "zlib"),
        ("zarr3", {"shard_shape": Vec3Int.full(8 << 12)}, UnsupportedFormatError, "chunks"),
        (
            "zarr3",
            {"chunk_shape": Vec3Int.full(2048), "shard_shape": Vec3Int.full(2048)},
            UnsupportedFormatError,
            "bytes",
        ),
    ],
)
def test_what_zarr_cannot_hold_is_refused_before_anything_is_made(tmp_path, data_format, spec, error, text):
    cut = {
        "dtype": "uint8",
        "num_channels": 1,
        "chunk_shape": Vec3Int.full(8),
        "shard_shape": Vec3Int.full(8),
    }
    with pytest.raises(error, match=text):
        ZarrMag.create(str(tmp_path / "mag"), ArraySpec(**{"compression": None, **cut, **spec}), data_format)
    assert not (tmp_path / "mag").exists()


def test_a_block_of_another_shape_or_type_is_refused(tmp_path):
    mag = make(tmp_path / "mag")
    for block in (noise((1, 8, 8, 8)), noise((1, SIDE, SIDE, SIDE), "int8"), noise((2, SIDE, SIDE, SIDE))):
        with pytest.raises(InvalidValueError, match="expected"):
            mag.build(str(tmp_path), 0, CUBE_0, block, None)


def test_the_native_header_is_that_of_zarr_python(tmp_path):
    header = make(tmp_path / "mag").native_header()
    assert header.zarr_format == 3
    assert header.shape == (1, SIDE, SIDE, SIDE)


def test_fingerprints_follow_the_cubes(tmp_path, monkeypatch):
    mag = make(tmp_path / "mag", extent=Vec3Int(64, 64, 64))
    box = BoundingBox((0, 0, 0), (32, 32, 32))
    seen = {mag.fingerprint(box)}
    write(mag, CUBE_0, noise((1, SIDE, SIDE, SIDE)))
    seen.add(first := mag.fingerprint(box))
    write(mag, BoundingBox((48, 48, 48), (1, 1, 1)), noise((1, 1, 1, 1)))
    assert mag.fingerprint(box) == first
    write(mag, CUBE_0, noise((1, SIDE, SIDE, SIDE), seed=1))
    seen.add(mag.fingerprint(box))
    monkeypatch.setattr("wkdask.storage.zarr.mag._STAT_LIMIT", 1)
    seen.add(mag.fingerprint(box))
    write(mag, CUBE_0, noise((1, SIDE, SIDE, SIDE), seed=2))
    seen.add(mag.fingerprint(box))
    assert len(seen) == 5


def test_types_that_no_layer_holds_are_refused(tmp_path):
    for name, dtype in (("b", "bool"), ("f", "float16"), ("c", "complex64")):
        zarr.create_array(tmp_path / name, shape=(1, 8, 8, 8), chunks=(1, 8, 8, 8), dtype=dtype)
        with pytest.raises(DTypeError, match=str(tmp_path / name)):
            ZarrMag.open(str(tmp_path / name), "zarr3")


@each_format
def test_a_plain_cube_is_encoded_as_the_mag_stores_it(tmp_path, data_format, compression):
    mag = make(tmp_path / "mag", data_format, compression, "uint16", 2)
    box = mag.spec.grid.cube_box(Vec3Int(1, 2, 0))
    voxels = noise((2, *box.size), "uint16")
    voxels[:, :, :, 3:] = 0
    plain = mag.staged(str(tmp_path / "plain"), raw=True)
    plain.write_in_place(box, voxels)
    root = str(tmp_path / "root")
    os.mkdir(root)
    source = plain.cube_path(Vec3Int(1, 2, 0))
    for _ in range(2):
        assert mag.encode(root, 3, source)
    corner = (3 * box.size.x, 0, 0)
    np.testing.assert_array_equal(mag.read_scratch(root, BoundingBox(corner, box.size)), voxels)
    plain.write_in_place(box, np.zeros_like(voxels))
    assert not plain.read(box).any()
    assert not mag.encode(root, 3, source)
    assert os.listdir(root) == []
    with pytest.raises(FileNotFoundError):
        mag.encode(root, 3, f"{source}.gone")


@each_format
def test_plain_cubes_with_all_places_are_told_from_others(tmp_path, data_format, compression):
    mag = make(tmp_path / "mag", data_format, compression)
    box = mag.spec.grid.cube_box(Vec3Int(0, 0, 0))
    block = noise((1, *box.size))
    block[:, :8, :8, :8] = 0 if data_format == "zarr3" else 1
    write(mag, box, block)
    plain = mag.staged(str(tmp_path / "plain"), raw=True)
    plain.write_in_place(box, block)
    assert plain.conforms(plain.cube_path(Vec3Int(0, 0, 0)))
    assert plain.conforms(mag.cube_path(Vec3Int(0, 0, 0))) == (data_format == "zarr" and compression is None)
    assert mag.conforms(mag.cube_path(Vec3Int(0, 0, 0))) == (compression is not None or data_format == "zarr")


def test_a_private_mag_of_an_earlier_run_is_opened(tmp_path):
    mag = make(tmp_path / "mag")
    for name, raw in (("plain", True), ("staged", False)):
        staged = mag.staged(str(tmp_path / name), raw=raw)
        again = mag.staged(str(tmp_path / name), raw=raw)
        assert staged == again
        assert staged.spec.compression == (None if raw else "zstd")
    assert (staged.spec, staged.layout) == (mag.spec, mag.layout)


def test_zeros_over_zeros_fill_no_holes(tmp_path):
    plain = make(tmp_path / "mag", chunk=32, shard=256).staged(str(tmp_path / "plain"), raw=True)
    plain.write_in_place(BoundingBox((0, 0, 0), (32, 32, 32)), noise((1, 32, 32, 32)))
    plain.write_in_place(BoundingBox((0, 0, 32), (256, 256, 64)), np.zeros((1, 256, 256, 64), "uint8"))
    assert os.stat(plain.cube_path(Vec3Int(0, 0, 0))).st_blocks * 512 < 256 << 10


@pytest.mark.parametrize(("fill", "channels_apart"), [(0, False), (7, False), (0, True)])
def test_a_box_is_known_to_be_empty_where_no_file_is_and_that_means_zero(tmp_path, fill, channels_apart):
    array = zarr.create_array(
        tmp_path / "mag", shape=(2, 32, 32, 32), chunks=(1 if channels_apart else 2, 16, 16, 16), dtype="uint8",
        fill_value=fill, dimension_names=["c", "x", "y", "z"],
    )  # fmt: skip
    array[1, :16, :16, :16] = 3  # where channels have files of their own, the first has none
    mag = ZarrMag.open(str(tmp_path / "mag"), "zarr3", {axis: n for n, axis in enumerate("cxyz")})
    assert not mag.is_empty(BoundingBox((15, 15, 15), (10, 10, 10)))
    known = fill == 0 and not channels_apart
    assert mag.is_empty(BoundingBox((16, 0, 0), (16, 32, 40))) == known
    shutil.rmtree(tmp_path / "mag")
    if known:
        with pytest.raises(DamagedHeaderError):
            mag.is_empty(BoundingBox((16, 0, 0), (16, 16, 16)))


@pytest.mark.parametrize("compile_after", ["0 s", "10 hours"])
@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 1), ("uint16", 3)])
def test_chunks_are_packed_by_the_kernel_and_without_it(
    make_mag, random_voxels, compile_after, dtype, channels
):
    voxels = random_voxels((channels, 70, 64, 64), dtype)
    voxels[:, 32:64, :32, :32] = 0  # a chunk that is not stored
    with dask.config.set({"wkdask.compile-after": compile_after}):
        mag = make_mag(dtype, channels, cube=64, chunk=32, compression="zstd", data_format="zarr3")
        mag.write(voxels)
    np.testing.assert_array_equal(zarr.open_array(str(mag.path), mode="r")[:, :70], voxels)
