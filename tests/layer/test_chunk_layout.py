"""The cut of a new mag: both spellings of the arguments, and what each format has by default."""

import pytest

from wkdask.errors import InvalidValueError
from wkdask.geometry import Vec3Int
from wkdask.layer.chunk_layout import Cut


def cut(**said):
    names = ("block_len", "file_len", "compress", "chunk_shape", "shard_shape", "compression")
    return Cut(**{name: said.get(name) for name in names})


def spec(data_format="wkw", **said):
    found = cut(**said).to_spec(data_format, "uint8", 1)
    return tuple(found.chunk_shape), tuple(found.shard_shape), found.compression


@pytest.mark.parametrize(
    ("data_format", "said", "expected"),
    [
        ("wkw", {}, ((32,) * 3, (1024,) * 3, None)),
        ("zarr3", {}, ((32,) * 3, (1024,) * 3, "zstd")),
        ("zarr", {}, ((32,) * 3, (32,) * 3, "zstd")),
        ("zarr", {"chunk_shape": (64, 64, 16)}, ((64, 64, 16), (64, 64, 16), "zstd")),
        ("wkw", {"block_len": 16}, ((16,) * 3, (512,) * 3, None)),
        ("wkw", {"block_len": 16, "file_len": 4, "compress": True}, ((16,) * 3, (64,) * 3, "lz4hc")),
        ("wkw", {"chunk_shape": 16, "shard_shape": 64, "compress": False}, ((16,) * 3, (64,) * 3, None)),
        ("zarr3", {"chunk_shape": 16, "file_len": 2, "compress": True}, ((16,) * 3, (32,) * 3, "zstd")),
        (
            "zarr3",
            {"shard_shape": (4096, 4096, 32), "compression": False},
            ((32,) * 3, (4096, 4096, 32), None),
        ),
        ("zarr3", {"compression": "gzip"}, ((32,) * 3, (1024,) * 3, "gzip")),
        ("zarr3", {"compression": "lz4"}, ((32,) * 3, (1024,) * 3, "zstd")),
    ],
)
def test_what_is_said_and_what_is_not(data_format, said, expected):
    assert spec(data_format, **said) == expected


@pytest.mark.parametrize(
    "said",
    [
        {"block_len": 32, "chunk_shape": 32},
        {"file_len": 32, "shard_shape": 1024},
        {"compress": True, "compression": "lz4"},
    ],
)
def test_both_spellings_of_one_thing_are_refused(said):
    with pytest.raises(InvalidValueError, match="2021 spelling"):
        cut(**said)


def test_differences_are_what_was_said_and_is_not_so():
    there = cut(chunk_shape=16, shard_shape=64).to_spec("wkw", "uint8", 1)
    assert cut().differences(there) == []
    assert cut(block_len=16, file_len=4, compress=False).differences(there) == []
    assert len(cut(chunk_shape=32).differences(there)) == 1
    (shard,) = cut(file_len=2).differences(there)
    assert f"{Vec3Int.full(32)}" in shard
    assert len(cut(compress=True).differences(there)) == 1
