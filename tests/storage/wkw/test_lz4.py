"""LZ4 of many blocks at a time, by machine code and without: the same blocks, and no other length than theirs."""

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wkdask import kernels
from wkdask.storage.wkw.lz4 import bound, pack, unpack


@pytest.fixture(params=["machine code", "one by one"], autouse=True)
def _way(request, monkeypatch):
    if request.param == "one by one":
        monkeypatch.setattr(kernels, "has_lz4", lambda: False)
    else:
        assert kernels.has_lz4(), "numcodecs does not show the functions of LZ4"


def packed_of(blocks, nbytes, level):
    """Compress blocks; return what they become, and where each ends."""
    out = np.empty(blocks.size // nbytes * bound(nbytes), np.uint8)
    ends = pack(blocks, nbytes, level, out)
    return out[: int(ends[-1])], ends


def blocks_of(kind, count, nbytes):
    rng = np.random.default_rng(count * nbytes)
    if kind == "noise":
        return rng.integers(0, 256, count * nbytes, dtype=np.uint8)
    if kind == "zeros":
        return np.zeros(count * nbytes, np.uint8)
    return np.repeat(rng.integers(0, 256, count * nbytes // 8 + 1, dtype=np.uint8), 8)[: count * nbytes]


def edges_of(ends):
    return np.stack([np.concatenate([[0], ends[:-1]]).astype(np.uint64), ends], axis=1)


@pytest.mark.parametrize("level", [0, 9])
@pytest.mark.parametrize("nbytes", [1, 8, 512, 32**3])
@pytest.mark.parametrize("kind", ["noise", "zeros", "runs"])
def test_round_trip(kind, nbytes, level):
    blocks = blocks_of(kind, 5, nbytes)
    packed, ends = packed_of(blocks, nbytes, level)
    assert ends[-1] == packed.size <= 5 * bound(nbytes)
    for number, (start, stop) in enumerate(edges_of(ends).tolist()):  # the reference reads each of them
        block = imagecodecs.lz4_decode(packed[start:stop].tobytes(), out=nbytes)
        assert block == blocks[number * nbytes : (number + 1) * nbytes].tobytes()

    out = np.full_like(blocks, 7)
    assert unpack(packed, edges_of(ends), nbytes, out) == 5
    assert np.array_equal(out, blocks)


def test_some_of_the_blocks_in_any_order():
    blocks = blocks_of("runs", 6, 100)
    packed, ends = packed_of(blocks, 100, 0)
    out = np.empty(300, np.uint8)
    assert unpack(packed.copy(), edges_of(ends)[[4, 0, 5]], 100, out) == 3
    assert np.array_equal(out.reshape(3, 100), blocks.reshape(6, 100)[[4, 0, 5]])


@pytest.mark.parametrize("other", [99, 101, 1000])
def test_a_block_of_another_length_is_refused(other):
    """Nothing is written behind the place of a block that holds more."""
    good, _ = packed_of(blocks_of("runs", 1, 100), 100, 0)
    good = good.copy()
    wrong, _ = packed_of(blocks_of("runs", 1, other), other, 0)
    packed = np.concatenate([good, wrong])
    edges = np.array([[0, good.size], [good.size, packed.size]], np.uint64)
    out = np.full(200 + 1000, 7, np.uint8)
    assert unpack(packed, edges, 100, out[:200]) == 1
    assert (out[200:] == 7).all()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=200))
def test_what_is_no_block_is_refused_or_decoded_to_its_length(data):
    packed = np.frombuffer(data, np.uint8)
    edges = np.array([[0, packed.size]], np.uint64)
    out = np.full(64 + 64, 7, np.uint8)
    assert unpack(packed, edges, 64, out[:64]) in (0, 1)
    assert (out[64:] == 7).all()
