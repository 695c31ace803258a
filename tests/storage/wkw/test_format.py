"""Headers and jump tables, byte for byte as the wkw library writes them, and every way to break them."""

import contextlib
import os
import resource
import struct
import time
from functools import partial

import numpy as np
import pytest
import wkw
from hypothesis import given
from hypothesis import strategies as st

from wkdask.errors import DamagedCubeError, DamagedHeaderError, DTypeError, UnsupportedFormatError
from wkdask.geometry import Vec3Int
from wkdask.storage.protocol import COMPRESSIONS, DTYPES, ArraySpec
from wkdask.storage.wkw.format import (
    HEADER_SIZE,
    WkwHeader,
    bytes_in,
    check_cube_file,
    header_of_spec,
    read_header,
)

BLOCK_TYPES = (1, 2, 3)


def library_header(dtype="uint8", channels=1, block_len=32, file_len=32, block_type=1):
    return wkw.Header(np.dtype(dtype).type, channels, 1, block_len, file_len, block_type)


def spec_of(dtype="uint8", channels=1, block_len=32, file_len=32, block_type=1):
    side = Vec3Int.full(block_len)
    return ArraySpec(dtype, channels, side, side * file_len, COMPRESSIONS[block_type - 1])


def packed(magic=b"WKW", version=1, lengths=0x55, block_type=1, voxel_type=1, voxel_bytes=1, offset=0):
    return struct.pack("<3sBBBBBQ", magic, version, lengths, block_type, voxel_type, voxel_bytes, offset)


# headers, against the library's own bytes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("block_len", "file_len", "block_type"), [(32, 32, 1), (1, 1, 2), (128, 2, 3), (2, 128, 2), (8, 16, 1)]
)
def test_header_is_the_librarys(tmp_path, dtype, channels, block_len, file_len, block_type):
    cut = (dtype, channels, block_len, file_len, block_type)
    wkw.Dataset.create(str(tmp_path / "mag"), library_header(*cut)).close()
    path = tmp_path / "mag" / "header.wkw"
    header = header_of_spec(spec_of(*cut))
    assert path.read_bytes() == header.to_bytes()
    assert read_header(str(path)) == header
    assert header.to_spec() == spec_of(*cut)
    # and the other way round: the library opens ours
    path.write_bytes(header.to_bytes())
    with contextlib.closing(wkw.Dataset.open(str(tmp_path / "mag"))) as opened:
        found = opened.header
    assert (
        np.dtype(found.voxel_type),
        found.num_channels,
        found.block_len,
        found.file_len,
        found.block_type,
    ) == cut


@given(
    st.sampled_from(DTYPES),
    st.integers(1, 31),
    st.integers(0, 7),
    st.integers(0, 8),
    st.sampled_from(BLOCK_TYPES),
)
def test_header_round_trip(dtype, channels, block_log, file_log, block_type):
    header = header_of_spec(spec_of(dtype, channels, 1 << block_log, 1 << file_log, block_type))
    data = header.to_bytes()
    assert len(data) == HEADER_SIZE
    assert WkwHeader.parse(data + b"more") == header
    assert header.dtype == dtype
    assert header.num_blocks == (1 << file_log) ** 3
    assert header.block_nbytes == (1 << block_log) ** 3 * channels * np.dtype(dtype).itemsize
    assert dtype in str(header)


@given(st.binary(max_size=40))
def test_any_bytes_parse_or_say_why(data):
    with contextlib.suppress(ValueError):
        assert WkwHeader.parse(data).to_bytes() == data[:HEADER_SIZE]


REFUSED = {
    "empty": (b"", "0 bytes"),
    "short": (packed()[:15], "15 bytes"),
    "zeros": (bytes(16), "starts with"),
    "magic": (packed(magic=b"WKX"), "WKX"),
    "version 0": (packed(version=0), "version is 0"),
    "version 2": (packed(version=2), "version is 2"),
    "block type 0": (packed(block_type=0), "block type is 0"),
    "block type 4": (packed(block_type=4), "block type is 4"),
    "voxel type 0": (packed(voxel_type=0), "voxel type is 0"),
    "voxel type 11": (packed(voxel_type=11), "voxel type is 11"),
    "voxel of 0 bytes": (packed(voxel_bytes=0), "0 bytes"),
    "u16 in 3 bytes": (packed(voxel_type=2, voxel_bytes=3), "uint16"),
}


@pytest.mark.parametrize(("data", "says"), REFUSED.values(), ids=REFUSED)
def test_damaged_headers_are_named(tmp_path, data, says):
    path = tmp_path / "header.wkw"
    path.write_bytes(data)
    with pytest.raises(DamagedHeaderError, match=says) as caught:
        read_header(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "dangling"])
def test_what_is_no_header_file(tmp_path, kind):
    path = tmp_path / "header.wkw"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    with pytest.raises(DamagedHeaderError, match=r"header\.wkw"):
        read_header(str(path))


@pytest.mark.parametrize("lengths", [0x58, 0x5F, 0x95, 0xF5, 0xFF], ids=hex)
def test_blocks_that_the_library_cannot_hold(tmp_path, lengths):
    path = tmp_path / "header.wkw"
    path.write_bytes(packed(lengths=lengths))
    with pytest.raises(UnsupportedFormatError, match="are supported"):
        read_header(str(path))


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        (spec_of(block_len=256, file_len=1), UnsupportedFormatError, "256"),
        (spec_of(block_len=1, file_len=512), UnsupportedFormatError, "512"),
        (spec_of(block_len=24, file_len=2), UnsupportedFormatError, "chunk shape"),
        (spec_of(block_len=32, file_len=3), UnsupportedFormatError, "shard shape"),
        (ArraySpec("uint8", 1, Vec3Int(32, 32, 16), Vec3Int.full(64), None), UnsupportedFormatError, "chunk"),
        (ArraySpec("uint8", 1, Vec3Int.full(32), Vec3Int(64, 64, 32), None), UnsupportedFormatError, "shard"),
        (spec_of(channels=256), DTypeError, "255"),
        (spec_of("float64", channels=32), DTypeError, "256 bytes"),
    ],
    ids=str,
)
def test_arrays_that_wkw_cannot_hold(spec, error, says):
    with pytest.raises(error, match=says):
        header_of_spec(spec)


def test_255_bytes_per_voxel_are_the_most():
    assert header_of_spec(spec_of(channels=255)).bytes_per_voxel == 255


# cubes


def check(path, dataset):
    with open(path, "rb") as file:
        check_cube_file(str(path), partial(bytes_in, file.fileno()), os.fstat(file.fileno()).st_size, dataset)


def make_cube(folder, block_type, dtype="uint16", block_len=4, file_len=4):
    """Let the library write a cube; return its path and the mag's header."""
    cut = (dtype, 1, block_len, file_len, block_type)
    side = block_len * file_len
    voxels = np.random.default_rng(7).integers(0, 9, (1, side, side, side)).astype(dtype, order="F")
    with contextlib.closing(wkw.Dataset.create(str(folder), library_header(*cut))) as dataset:
        dataset.write((0, 0, 0), voxels)
    return folder / "z0" / "y0" / "x0.wkw", header_of_spec(spec_of(*cut))


@pytest.mark.parametrize("block_type", BLOCK_TYPES)
@pytest.mark.parametrize(("block_len", "file_len"), [(4, 4), (8, 1), (1, 2)])
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_sound_cubes_pass(tmp_path, block_type, block_len, file_len, dtype):
    path, header = make_cube(tmp_path / "mag", block_type, dtype, block_len, file_len)
    check(path, header)


def test_incompressible_cubes_pass(tmp_path):
    """Blocks of noise grow when they are compressed: the limit for an entry is above that."""
    voxels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 64)).astype("uint8", order="F")
    with contextlib.closing(
        wkw.Dataset.create(str(tmp_path / "mag"), library_header("uint8", 1, 32, 2, 2))
    ) as ds:
        ds.write((0, 0, 0), voxels)
    path = tmp_path / "mag" / "z0" / "y0" / "x0.wkw"
    assert path.stat().st_size > 64**3
    check(path, header_of_spec(spec_of("uint8", 1, 32, 2, 2)))


@pytest.mark.parametrize("block_type", BLOCK_TYPES)
def test_a_cube_may_be_stored_otherwise_than_its_mag(tmp_path, block_type):
    path, _ = make_cube(tmp_path / "mag", block_type)
    for other in BLOCK_TYPES:
        check(path, header_of_spec(spec_of("uint16", 1, 4, 4, other)))


def put(data, position, new):
    return data[:position] + new + data[position + len(new) :]


def entry(data, number, value):
    return put(data, HEADER_SIZE + 8 * number, struct.pack("<Q", value))


def entries(data):
    return struct.unpack_from("<64Q", data, HEADER_SIZE)


ANY_DAMAGE = {
    "no bytes": lambda data: b"",
    "15 bytes": lambda data: data[:15],
    "header only": lambda data: data[:16],
    "zeros": lambda data: bytes(len(data)),
    "magic": lambda data: put(data, 0, b"X"),
    "version": lambda data: put(data, 3, b"\2"),
    "block length": lambda data: put(data, 4, b"\x23"),
    "file length": lambda data: put(data, 4, b"\x12"),
    "terabytes": lambda data: put(data, 4, b"\xff"),
    "block type 0": lambda data: put(data, 5, b"\0"),
    "block type 4": lambda data: put(data, 5, b"\4"),
    "voxel type": lambda data: put(data, 6, b"\1"),
    "signed instead of unsigned": lambda data: put(data, 6, b"\x08"),
    "voxel size": lambda data: put(data, 7, b"\4"),
    "voxel size 0": lambda data: put(data, 7, b"\0"),
    "data at 0": lambda data: put(data, 8, struct.pack("<Q", 0)),
    "data at 2**63": lambda data: put(data, 8, struct.pack("<Q", 2**63)),
    "data at 2**64 - 1": lambda data: put(data, 8, struct.pack("<Q", 2**64 - 1)),
    "data 8 bytes later": lambda data: put(
        data, 8, struct.pack("<Q", struct.unpack_from("<Q", data, 8)[0] + 8)
    ),
}
RAW_DAMAGE = {
    "a byte short": lambda data: data[:-1],
    "a byte long": lambda data: data + b"\0",
    "half": lambda data: data[: len(data) // 2],
    "says LZ4": lambda data: put(data, 5, b"\2"),
}
LZ4_DAMAGE = {
    "jump table cut": lambda data: data[:20],
    "jump table cut at its last byte": lambda data: data[: 16 + 8 * 64 - 1],
    "payload cut": lambda data: data[:-1],
    "no payload": lambda data: data[: 16 + 8 * 64],
    "says RAW": lambda data: put(data, 5, b"\1"),
    "zeros in the table": lambda data: put(data, 16, bytes(8 * 64)),
    "ones in the table": lambda data: put(data, 16, b"\xff" * 8 * 64),
    "first before the data": lambda data: entry(data, 0, 16 + 8 * 64),
    "falling": lambda data: entry(data, 5, entries(data)[4] - 1),
    "an empty block": lambda data: entry(data, 5, entries(data)[4]),
    "last past the end": lambda data: entry(data, 63, len(data) + 1),
    "last 2**64 - 1": lambda data: entry(data, 63, 2**64 - 1),
    "last 2**63": lambda data: entry(data, 63, 2**63),
    "a block larger than any": lambda data: entry(data, 63, len(data) + 5000) + bytes(5000),
}
CASES = [
    (block_type, name, damage)
    for block_type in BLOCK_TYPES
    for name, damage in {**ANY_DAMAGE, **(RAW_DAMAGE if block_type == 1 else LZ4_DAMAGE)}.items()
]


@pytest.mark.parametrize(("block_type", "name", "damage"), CASES, ids=[f"{t}-{n}" for t, n, _ in CASES])
def test_damaged_cubes_are_refused(tmp_path, block_type, name, damage):
    path, header = make_cube(tmp_path / "mag", block_type)
    good = path.read_bytes()
    assert damage(good) != good
    path.write_bytes(damage(good))
    with pytest.raises(DamagedCubeError) as caught:
        check(path, header)
    assert str(path) in str(caught.value)


def test_no_memory_and_no_time_for_terabytes(tmp_path):
    """Neither a header that asks for 2**15 blocks a side nor a sparse file of a terabyte costs anything."""
    path, header = make_cube(tmp_path / "mag", 2)
    data = put(path.read_bytes(), 4, b"\xff")
    path.write_bytes(put(data, 8, struct.pack("<Q", 16 + 8 * 2**45)))
    os.truncate(path, 2**40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with pytest.raises(DamagedCubeError, match=r"header\.wkw says"):
        check(path, header)
    assert time.process_time() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
