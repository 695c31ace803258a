"""Cube files of Zarr that are damaged, hostile, or no files: an error that names them, never zeros."""

import contextlib
import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from open_folders import let_others_reach
from thorough import examples
from zarr_mags import CUBE_0, SIDE, each_format, make, noise, write

from wkdask.errors import CubePermissionError, DamagedCubeError, DamagedHeaderError, InvalidValueError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.zarr.mag import ZarrMag

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


@pytest.fixture
def stored(tmp_path):
    """A mag of one shard, and its file."""
    mag = make(tmp_path / "mag")
    write(mag, CUBE_0, noise((1, SIDE, SIDE, SIDE)))
    return mag, Path(mag.cube_path(Vec3Int(0, 0, 0)))


def index_of(data):
    return np.frombuffer(data[-132:-4], "<u8").reshape(-1, 2).copy()


def with_index(data, table):
    import google_crc32c

    index = table.astype("<u8").tobytes()
    return data[:-132] + index + google_crc32c.value(index).to_bytes(4, "little")


def moved(n, column, value):
    def change(data):
        table = index_of(data)
        table[n, column] = value
        return with_index(data, table)

    return change


def flipped(place, bits=0x40):
    return lambda data: data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]


DAMAGES = {
    "empty": lambda data: b"",
    "short": lambda data: data[:100],
    "without its end": lambda data: data[:-1],
    "without its start": lambda data: data[1:],
    "longer": lambda data: data + b"\0",
    "an index of zeros": lambda data: data[:-132] + bytes(132),
    "a bit of the index": lambda data: flipped(len(data) - 100)(data),
    "a bit of the checksum": lambda data: flipped(len(data) - 1)(data),
    "an offset behind the end": moved(3, 0, 1 << 40),
    "an offset in the index": lambda data: moved(3, 0, len(data) - 130)(data),
    "a length over the end": moved(3, 1, 1 << 20),
    "a length that wraps around": moved(3, 1, 2**64 - 1),
    "an offset without a length": moved(3, 0, 2**64 - 1),
    "a length of zero": moved(3, 1, 0),
    "another chunk's place": moved(3, 0, 1),
    "magic of a chunk": flipped(0),
    "content of a chunk": flipped(40),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_shard_is_named_and_never_zeros(stored, name):
    mag, path = stored
    path.write_bytes(DAMAGES[name](path.read_bytes()))
    damaged = path.read_bytes()
    for threads in (1, 2):
        with pytest.raises(DamagedCubeError, match=str(path)) as caught:
            mag.read(BoundingBox((0, 0, 0), (200, 200, 200)), threads)
        assert isinstance(caught.value, OSError)
    with pytest.raises(DamagedCubeError, match=str(path)):  # a part of it too
        write(mag, BoundingBox((1, 1, 1), (14, 14, 14)), noise((1, 14, 14, 14)))
    assert path.read_bytes() == damaged
    write(mag, CUBE_0, noise((1, SIDE, SIDE, SIDE), seed=5))  # whole, it is replaced
    np.testing.assert_array_equal(mag.read(CUBE_0), noise((1, SIDE, SIDE, SIDE), seed=5))


@pytest.mark.parametrize("compression", ["zstd", "zlib", "gzip", "blosc", "lz4", None])
@pytest.mark.parametrize("change", ["empty", "cut", "longer"])
def test_a_damaged_chunk_of_zarr_2_is_named(tmp_path, compression, change):
    mag = make(tmp_path / "mag", "zarr", compression)
    write(mag, BoundingBox((0, 0, 0), (8, 8, 8)), noise((1, 8, 8, 8)))
    path = Path(mag.cube_path(Vec3Int(0, 0, 0)))
    data = path.read_bytes()
    if change == "longer" and compression in ("zlib", "gzip"):
        pytest.skip("what follows the stream is passed over, as others do")
    path.write_bytes({"empty": b"", "cut": data[:-3], "longer": data + b"\0\0"}[change])
    with pytest.raises(DamagedCubeError, match=str(path)):
        mag.read(CUBE_0)


def test_a_chunk_that_claims_terabytes_allocates_nothing(tmp_path):
    frame = b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + (1 << 42).to_bytes(8, "little") + b"\x01\x00\x00"
    blosc = (
        bytes([2, 1, 0, 1]) + (0xFFFFFFF0).to_bytes(4, "little") * 2 + (40).to_bytes(4, "little") + bytes(24)
    )
    for compression, data in (
        ("zstd", frame),
        ("blosc", blosc),
        ("lz4", (1 << 31).to_bytes(4, "little") + b"x"),
    ):
        mag = make(tmp_path / compression, "zarr", compression)
        path = Path(mag.cube_path(Vec3Int(0, 0, 0)))
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        with pytest.raises(DamagedCubeError, match=r"decoded: (Zstandard|it claims|LZ4)"):
            mag.read(CUBE_0)


def test_a_bomb_is_not_unpacked(tmp_path):
    import gzip
    import zlib

    for compression, pack in (("gzip", gzip.compress), ("zlib", zlib.compress)):
        mag = make(tmp_path / compression, "zarr", compression)
        path = Path(mag.cube_path(Vec3Int(0, 0, 0)))
        path.parent.mkdir(parents=True)
        path.write_bytes(pack(bytes(64 << 20)))
        with pytest.raises(DamagedCubeError, match="holds more than"):
            mag.read(CUBE_0)


def as_folder(path):
    path.mkdir()


def as_fifo(path):
    os.mkfifo(path)


def as_dangling_link(path):
    path.symlink_to("nowhere")


def as_loop(path):
    path.symlink_to(path)


@pytest.mark.parametrize("make_it", [as_folder, as_fifo, as_dangling_link, as_loop])
def test_what_is_no_file_is_an_error_without_a_hang(stored, make_it):
    mag, path = stored
    path.unlink()
    make_it(path)
    with pytest.raises(DamagedCubeError, match=str(path)):
        mag.read(CUBE_0)
    with pytest.raises(DamagedCubeError, match=str(path)):
        mag.check_cube(str(path))


def test_a_folder_that_is_a_dangling_link_is_an_error(stored):
    mag, path = stored
    folder = path.parents[2]
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")
    with pytest.raises(DamagedCubeError, match=str(folder)):
        mag.read(CUBE_0)
    with pytest.raises(DamagedCubeError, match="nowhere"):
        list(mag.cubes_on_disk())


@needs_root
@pytest.mark.parametrize("what", ["cube", "folder", "metadata"])
def test_no_permission_says_so(stored, what):
    mag, path = stored
    target = {"cube": path, "folder": path.parent, "metadata": Path(mag.metadata_path)}[what]
    let_others_reach(path)
    os.chmod(target, 0)
    pid = os.fork()
    if pid == 0:
        code = 9
        with contextlib.suppress(BaseException):
            os.setuid(65534)
            try:
                mag.read(CUBE_0)
                code = 1
            except CubePermissionError:
                code = 2
            except DamagedHeaderError:
                code = 3
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == (3 if what == "metadata" else 2)


@each_format
def test_without_metadata_nothing_is_empty(tmp_path, data_format, compression):
    mag = make(tmp_path / "mag", data_format, compression)
    write(mag, CUBE_0, noise((1, SIDE, SIDE, SIDE)))
    uses = (
        lambda: mag.read(BoundingBox((0, 0, 500), (5, 5, 5))),
        lambda: list(mag.cubes_on_disk()),
        lambda: mag.fingerprint(CUBE_0),
        lambda: mag.prepare(CUBE_0),
        lambda: ZarrMag.open(mag.path, data_format),
    )
    data = Path(mag.metadata_path).read_bytes()
    os.unlink(mag.metadata_path)
    for use in uses:
        with pytest.raises(DamagedHeaderError, match="is missing"):
            use()
    for bad in (b"", b"{", data[:-9], b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b" " * (2 << 20)):
        Path(mag.metadata_path).write_bytes(bad)
        for use in uses:
            with pytest.raises(DamagedHeaderError, match=mag.metadata_path):
                use()
    os.unlink(mag.metadata_path)
    os.mkdir(mag.metadata_path)
    for use in uses:
        with pytest.raises(DamagedHeaderError, match=mag.metadata_path):
            use()


def test_metadata_that_change_their_mind_are_an_error(stored):
    mag, _ = stored
    document = json.loads(Path(mag.metadata_path).read_text())
    for change in ({"data_type": "int8"}, {"dimension_names": ["x", "y", "z", "c"], "data_type": "uint16"}):
        Path(mag.metadata_path).write_text(json.dumps(document | change))
        with pytest.raises(DamagedHeaderError, match="when it was opened"):
            mag.read(CUBE_0)


@pytest.mark.parametrize(
    "box", [((-1, 0, 0), (5, 5, 5)), ((0, 0, 2**32 - 5), (5, 5, 5)), ((0, 2**40, 0), (1, 1, 1))]
)
def test_coordinates_out_of_reach_are_refused(stored, box):
    mag, _ = stored
    with pytest.raises(InvalidValueError):
        mag.read(BoundingBox(*box))
    with pytest.raises(InvalidValueError):
        mag.prepare(BoundingBox(*box))


def test_reads_of_nothing(stored):
    mag, _ = stored
    assert mag.read(BoundingBox((3, 3, 3), (0, 5, 5))).shape == (1, 0, 5, 5)
    assert mag.read(BoundingBox((300, 3, 3), (0, 0, 0))).shape == (1, 0, 0, 0)


def test_threads_name_their_own_cubes(tmp_path):
    mag = make(tmp_path / "mag")
    boxes = [mag.spec.grid.cube_box(Vec3Int(n, 0, 0)) for n in range(8)]
    for box in boxes:
        write(mag, box, noise((1, SIDE, SIDE, SIDE)))
        path = Path(mag.cube_path(box.topleft // SIDE))
        path.write_bytes(path.read_bytes()[:50])
    found = {}

    def read(box):
        for _ in range(20):
            try:
                mag.read(box)
            except DamagedCubeError as error:
                found.setdefault(box, set()).add(str(error).split()[2])

    threads = [threading.Thread(target=read, args=(box,)) for box in boxes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {box: {mag.cube_path(box.topleft // SIDE)} for box in boxes}


def test_a_read_during_replacements_sees_one_shard(tmp_path):
    mag = make(tmp_path / "mag")
    write(mag, CUBE_0, np.full((1, SIDE, SIDE, SIDE), 1, "uint8", order="F"))
    stop = threading.Event()
    seen = []

    def read():
        while not stop.is_set():
            seen.append(np.unique(mag.read(CUBE_0)).tolist())

    reader = threading.Thread(target=read)
    reader.start()
    for value in range(2, 102):
        write(mag, CUBE_0, np.full((1, SIDE, SIDE, SIDE), value, "uint8", order="F"))
    stop.set()
    reader.join()
    assert all(len(values) == 1 for values in seen)
    assert len({values[0] for values in seen}) > 1


def mutations():
    """Ways to change some bytes of a file."""
    change = st.tuples(st.integers(0, 10**6), st.integers(0, 255))
    return st.one_of(
        st.lists(change, min_size=1, max_size=6),
        st.integers(0, 10**6),
    )


@settings(
    max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(mutations(), st.sampled_from(["zarr3", "zarr"]))
def test_mutated_cubes_give_an_error_or_the_right_voxels(tmp_path, mutation, data_format):
    folder = tmp_path / data_format
    voxels = noise((1, SIDE, SIDE, SIDE))
    if not folder.exists():
        write(make(folder, data_format), CUBE_0, voxels)
        shutil.copytree(folder, tmp_path / f"{data_format} sound")
    mag = ZarrMag.open(str(folder), data_format)
    path = Path(mag.cube_path(Vec3Int(0, 0, 0)))
    data = bytearray((tmp_path / f"{data_format} sound" / path.relative_to(folder)).read_bytes())
    if isinstance(mutation, int):
        data = data[: mutation % len(data)]
    else:
        for place, value in mutation:
            data[place % len(data)] = value
    path.write_bytes(data)
    try:
        found = mag.read(CUBE_0)
    except DamagedCubeError as error:
        names = str(error)
    else:
        names = str(path)
        if data_format == "zarr3":  # whose chunks and index have checksums
            np.testing.assert_array_equal(found, voxels)
    assert str(path) in names
