"""Frames of plain TIFFs: what is read by them is what a parser reads, and only where nothing but pixels differs."""

import struct

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from wkdask.external.images.file import probe
from wkdask.external.images.plain_tiff import Frame
from wkdask.external.images.stack import open_stack


def image_of(shape, dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def by_hand(image, directory_at):
    """A grey TIFF whose directory lies before, behind, or between its pixels, for 8 bits per sample."""
    rows, columns = image.shape
    tags = [
        (256, columns),
        (257, rows),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 0),
        (277, 1),
        (278, rows),
        (279, image.size),
    ]
    length = 2 + 12 * len(tags) + 4
    start = 8 + (length if directory_at == "before" else 0)
    place = {"before": 8, "behind": start + image.size, "between": start + image.size // 2}[directory_at]
    tags[5] = (273, start)
    directory = struct.pack("<H", len(tags))
    for code, value in tags:
        directory += struct.pack("<HHII", code, 4, 1, value)
    directory += struct.pack("<I", 0)
    content = bytearray(max(start + image.size, place + length))
    content[:8] = b"II" + struct.pack("<HI", 42, place)
    content[start : start + image.size] = image.tobytes()
    content[place : place + length] = directory
    return bytes(content)


@pytest.fixture
def parsed(monkeypatch):
    """The files that were parsed so far."""
    paths = []
    init = tifffile.TiffFile.__init__

    def noted(self, path, *args, **options):
        paths.append(path)
        init(self, path, *args, **options)

    monkeypatch.setattr(tifffile.TiffFile, "__init__", noted)
    return paths


def write_stack(folder, images, **options):
    for number, image in enumerate(images):
        tifffile.imwrite(folder / f"{number}.tif", image, **options)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_of_a_plain_stack_one_file_is_parsed(tmp_path, parsed, dtype, byteorder):
    images = [image_of((9, 7), dtype, seed) for seed in range(5)]
    write_stack(tmp_path, images, byteorder=byteorder)

    stack = open_stack([tmp_path])
    data = stack.read(0, 5, threads=2)
    assert np.array_equal(data[0], np.stack(images, axis=-1).swapaxes(0, 1))
    assert data.dtype == np.dtype(dtype)
    assert parsed == [str(tmp_path / "0.tif")]


def test_rgb(tmp_path, parsed):
    images = [image_of((9, 7, 3), seed=seed) for seed in range(3)]
    write_stack(tmp_path, images, photometric="rgb")

    data = open_stack([tmp_path]).read(0, 3)
    assert np.array_equal(data, np.stack(images, axis=-1).transpose(2, 1, 0, 3))
    assert len(parsed) == 1


@pytest.mark.parametrize("directory_at", ["before", "behind"])
def test_directories_before_and_behind_the_pixels(tmp_path, parsed, directory_at):
    images = [image_of((20, 30), seed=seed) for seed in range(3)]
    for number, image in enumerate(images):
        (tmp_path / f"{number}.tif").write_bytes(by_hand(image, directory_at))

    data = open_stack([tmp_path]).read(0, 3)
    assert np.array_equal(data[0], np.stack(images, axis=-1).swapaxes(0, 1))
    assert len(parsed) == 1


def test_a_directory_between_the_pixels_is_no_frame(tmp_path):
    """Such a file's pixels say what its header is."""
    path = tmp_path / "0.tif"
    path.write_bytes(by_hand(image_of((20, 30)), "between"))
    file, layout = probe(str(path))
    assert layout == (30, 20, "uint8", 1)
    assert file.frame is None


NO_FRAME = {
    "tiled": {"tile": (16, 16)},
    "compressed": {"compression": "zlib"},
    "planes": {"photometric": "rgb", "planarconfig": "separate"},
    "much metadata": {"description": "x" * 70_000},
}


@pytest.mark.parametrize("options", NO_FRAME.values(), ids=NO_FRAME)
def test_no_frame(tmp_path, parsed, options):
    images = [image_of((3, 64, 64) if "photometric" in options else (64, 64), seed=seed) for seed in range(3)]
    write_stack(tmp_path, images, **options)
    stack = open_stack([tmp_path])
    assert all(file.frame is None for file in stack.sections)
    expected = np.stack(images, axis=-1).reshape(-1, 64, 64, 3).swapaxes(1, 2)
    assert np.array_equal(stack.read(0, 3), expected)
    assert len(parsed) == 6


def test_several_pages_are_no_frame(tmp_path):
    tifffile.imwrite(tmp_path / "0.tif", image_of((3, 9, 7)), photometric="minisblack")
    assert open_stack([tmp_path]).sections[0].frame is None


def test_sub_directories_are_no_frame(tmp_path):
    with tifffile.TiffWriter(tmp_path / "0.tif") as writer:
        writer.write(image_of((64, 64)), subifds=1, metadata=None)
        writer.write(image_of((32, 32)), subfiletype=1, metadata=None)
    file, layout = probe(str(tmp_path / "0.tif"))
    assert layout == (64, 64, "uint8", 1)
    assert file.frame is None


@pytest.fixture(scope="module")
def frame_and_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("frame") / "0.tif"
    tifffile.imwrite(path, image_of((9, 7), "uint16"))
    file, _ = probe(str(path))
    assert isinstance(file.frame, Frame)
    return file.frame, path


@given(data=st.data())
def test_a_file_has_a_frame_as_long_as_only_pixels_change(frame_and_path, data):
    frame, path = frame_and_path
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    other = path.with_name("other.tif")
    other.write_bytes(content)

    in_pixels = 0 <= place - len(frame.before) < 9 * 7 * 2
    assert frame.surrounds(str(other)) == in_pixels
    if in_pixels:
        assert np.array_equal(frame.read(str(other)), tifffile.imread(other))
    else:
        assert frame.read(str(other)) is None


@given(cut=st.integers(-40, 40).filter(bool))
def test_a_longer_or_shorter_file_has_another_frame(frame_and_path, cut):
    frame, path = frame_and_path
    content = path.read_bytes()
    other = path.with_name("other.tif")
    other.write_bytes(content[:cut] if cut < 0 else content + bytes(cut))
    assert not frame.surrounds(str(other))
    assert frame.read(str(other)) is None


def test_another_suffix_is_another_frame(frame_and_path):
    """Some formats on top of TIFF are told by their suffix."""
    frame, path = frame_and_path
    other = path.with_suffix(".tiff")
    other.write_bytes(path.read_bytes())
    assert frame.surrounds(str(path))
    assert not frame.surrounds(str(other))


@given(
    rows=st.tuples(st.integers(0, 8), st.integers(1, 9)).filter(lambda r: r[0] < r[1]),
    columns=st.tuples(st.integers(0, 6), st.integers(1, 7)).filter(lambda c: c[0] < c[1]),
)
def test_windows(frame_and_path, rows, columns):
    frame, path = frame_and_path
    window = slice(*rows), slice(*columns)
    assert np.array_equal(frame.read(str(path), window), tifffile.imread(path)[window])


def test_a_stack_of_two_kinds(tmp_path, parsed):
    """The files that are not like the first are parsed each."""
    images = [image_of((9, 7), seed=seed) for seed in range(4)]
    for number, image in enumerate(images):
        tifffile.imwrite(tmp_path / f"{number}.tif", image, compression="lzw" if number % 2 else None)
    data = open_stack([tmp_path]).read(0, 4)
    assert np.array_equal(data[0], np.stack(images, axis=-1).swapaxes(0, 1))
    assert [path[-5] for path in sorted(parsed)] == ["0", "1", "1", "3", "3"]
