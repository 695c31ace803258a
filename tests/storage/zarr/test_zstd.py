"""Zstandard through the library in numcodecs, and without it: the same bytes, the same refusals."""

import threading

import numpy as np
import pytest
from numcodecs import zstd
from zarr_mags import CUBE_0, SIDE, make, noise, write

from wkdask.errors import DamagedCubeError
from wkdask.geometry import BoundingBox
from wkdask.storage.zarr import zstd as zarr_zstd
from wkdask.storage.zarr.zstd import compress, compressor, decompress, decompressor

CHUNK = np.random.default_rng(0).integers(0, 30, 5000, dtype=np.uint8)


@pytest.fixture(params=["library", "numcodecs"])
def way(request, monkeypatch):
    """Either way to call zstd."""
    if request.param == "numcodecs":
        monkeypatch.setattr(zarr_zstd, "_library", lambda: None)
    assert (decompressor() is None) == (compressor(1, False, 9) is None) == (request.param == "numcodecs")
    return request.param


def test_frames_are_those_of_numcodecs(way):
    for level in (-3, 0, 1, 5, 12):
        for checksum in (True, False):
            found = bytes(compress(CHUNK, level, checksum))
            assert found == zstd.compress(CHUNK, level, checksum)
            out = np.zeros(CHUNK.size, np.uint8)
            assert decompress(found, out) == CHUNK.size
            np.testing.assert_array_equal(out, CHUNK)


def test_settings_do_not_stay_with_the_context(way):
    with_checksum = bytes(compress(CHUNK, 19, True))
    assert bytes(compress(CHUNK, 1, False)) == zstd.compress(CHUNK, 1, False)
    assert bytes(compress(CHUNK, 19, True)) == with_checksum


def test_no_more_is_decoded_than_there_is_room_for(way):
    frame = bytes(compress(CHUNK, 5, True))
    for size in (0, 1, CHUNK.size - 1):
        out = np.zeros(size + 64, np.uint8)
        with pytest.raises(ValueError, match=r"small|claims"):
            decompress(frame, out[:size])
        assert not out[size:].any()
    out = np.zeros(CHUNK.size + 9, np.uint8)
    assert decompress(frame, out) == CHUNK.size


def test_damage_is_an_error(way):
    frame = bytes(compress(CHUNK, 5, True))
    out = np.zeros(CHUNK.size, np.uint8)
    bad = [b"", b"\0", frame[:3], frame[:7], frame[:-1], frame[1:], b"\0" * 40, frame[:-2] + b"\0\0"]
    for data in bad:
        with pytest.raises(ValueError):  # noqa: PT011 - in the words of the library
            decompress(data, out)
    assert decompress(frame, out) == CHUNK.size  # the context is none the worse


def test_frames_that_do_not_say_how_large_they_are(way):
    imagecodecs = pytest.importorskip("imagecodecs")
    frame = imagecodecs.zstd_encode(CHUNK.tobytes(), 3)
    out = np.zeros(CHUNK.size, np.uint8)
    assert decompress(frame, out) == CHUNK.size
    streamed = b"\x28\xb5\x2f\xfd\x00\x58" + (5 << 3 | 1).to_bytes(3, "little") + b"hello"
    out = np.zeros(5, np.uint8)
    assert decompress(streamed, out) == 5
    assert out.tobytes() == b"hello"


def test_threads_have_contexts_of_their_own(way):
    wrong = []

    def work(seed):
        chunk = np.random.default_rng(seed).integers(0, 30, 3000, dtype=np.uint8)
        out = np.zeros_like(chunk)
        sizes = [decompress(bytes(compress(chunk, 3, True)), out) for _ in range(200)]
        if {*sizes} != {3000} or not np.array_equal(out, chunk):
            wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_mags_are_the_same_either_way(way, tmp_path):
    mag = make(tmp_path / "mag", dtype="uint16", channels=3)
    box = BoundingBox((5, 0, 3), (40, 30, 20))
    voxels = noise((3, *box.size), "uint16")
    write(mag, box, voxels, verify=True)
    np.testing.assert_array_equal(mag.read(box), voxels)
    part = BoundingBox((11, 9, 7), (9, 17, 3))
    np.testing.assert_array_equal(mag.read(part), voxels[(slice(None), *part.to_slices(box.topleft))])
    path = mag.cube_path(box.topleft // SIDE)
    with open(path, "r+b") as file:
        file.seek(40)
        file.write(b"damage")
    with pytest.raises(DamagedCubeError, match=path):
        mag.read(CUBE_0)
