"""PNG and JPEG files: few bits, palettes, interlacing, several images, orientation; nothing on stderr."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from png_files import grey_palette, png
from thorough import examples
from tiff_files import random_image

from wkdask.errors import ImageStackError
from wkdask.external.images.png_file import decode_png
from wkdask.external.images.selection import select
from wkdask.external.images.stack import open_stack
from wkdask.geometry import BoundingBox


def refused(path, *words, **choices):
    with pytest.raises(ImageStackError) as caught:
        open_stack(path, **choices)
    for word in words:
        assert str(word) in str(caught.value)


def test_an_optimised_stack_of_8_bits(tmp_path):
    rng = np.random.default_rng(1)
    sections = np.zeros((7, 9, 13), np.uint8)
    sections[1] = rng.choice([0, 255], (9, 13))
    sections[2] = rng.choice([0, 85, 170, 255], (9, 13))
    sections[3] = rng.choice(np.arange(16) * 17, (9, 13))
    sections[4] = rng.integers(0, 256, (9, 13))
    sections[5] = rng.choice([3, 4, 9], (9, 13))
    sections[6] = rng.choice(np.arange(100, 200), (9, 13))
    files = [
        png(sections[0], 1),
        png(sections[1] // 255, 1),
        png(sections[2] // 85, 2),
        png(sections[3] // 17, 4),
        png(sections[4], 8),
        png(np.searchsorted([3, 4, 9], sections[5]), 2, colour=3, palette=grey_palette([3, 4, 9])),
        png(sections[6] - 100, 8, colour=3, palette=grey_palette(range(100, 200))),
    ]
    for number, content in enumerate(files):
        (tmp_path / f"{number}.png").write_bytes(content)
        with Image.open(io.BytesIO(content)) as image:
            np.testing.assert_array_equal(np.asarray(image.convert("L")), sections[number])
    stack = open_stack(tmp_path)
    assert stack.dtype == "uint8"
    np.testing.assert_array_equal(stack.read(0, 7)[0].T, sections)
    assert "6 files" in stack.notes[0]
    assert "few bits" in stack.notes[0]
    part = select(stack, BoundingBox((2, 3, 1), (7, 5, 6))).read(0, 6)
    np.testing.assert_array_equal(part[0].T, sections[1:, 3:8, 2:9])


def test_an_optimised_stack_of_16_bits(tmp_path):
    sections = np.zeros((4, 9, 13), np.uint16)
    sections[1] = random_image((9, 13), "uint16")
    sections[2] = np.random.default_rng(1).choice([0, 65535], (9, 13))
    sections[3] = np.random.default_rng(1).choice(np.arange(16) * 4369, (9, 13))
    files = [
        png(sections[0], 1),
        png(sections[1], 16),
        png(sections[2] // 65535, 1),
        png(sections[3] // 4369, 4),
    ]
    for number, content in enumerate(files):
        (tmp_path / f"{number}.png").write_bytes(content)
    stack = open_stack(tmp_path)
    assert stack.dtype == "uint16"
    np.testing.assert_array_equal(stack.read(0, 4)[0].T, sections)


def test_few_bits_beside_a_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "0.tif", np.full((9, 13), 7, "uint8"))
    (tmp_path / "1.png").write_bytes(png(np.ones((9, 13), int), 1))
    np.testing.assert_array_equal(open_stack(tmp_path).read(0, 2)[0, 0, 0], [7, 255])


def test_what_does_not_map_to_one_grey_type(tmp_path):
    (tmp_path / "0.png").write_bytes(png(np.ones((9, 13), int), 1))
    for name, content, words in (
        ("1.png", png(np.ones((9, 13, 3), int), 8, colour=2), ("0.png", "1 channel(s)")),
        ("1.png", png(np.ones((9, 14), int), 8), ("0.png", "13 x 9")),
        (
            "1.png",
            png(np.zeros((9, 13), int), 2, colour=3, palette=np.array([[1, 2, 3]])),
            ("1.png", "palette"),
        ),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path, *words)
    tifffile.imwrite(tmp_path / "2.tif", np.ones((9, 13), "float32"))
    (tmp_path / "1.png").unlink()
    refused(tmp_path, "0.png", "float32")
    (tmp_path / "2.tif").unlink()
    (tmp_path / "1.png").write_bytes(png(np.ones((9, 13), int), 8))
    (tmp_path / "2.png").write_bytes(png(np.ones((9, 13), int), 16))  # the same values, or 257 times them?
    refused(tmp_path, "2.png", "uint16", "uint8")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_transparency_of_few_bits_and_palettes(tmp_path, bits):
    path = tmp_path / "a.png"
    for colour, body, palette in ((0, b"\0\0", None), (3, b"\0", grey_palette([0, 9]))):
        content = png(np.zeros((9, 13), int), bits, colour=colour, palette=palette)
        place = content.index(b"IDAT") - 4
        clear = struct.pack(">I", len(body)) + b"tRNS" + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))
        path.write_bytes(content[:place] + clear + content[place:])
        refused(path, "transparency")


KINDS = [(bits, 0) for bits in (1, 2, 4, 8, 16)] + [(8, 2), (16, 2), (1, 3), (2, 3), (4, 3), (8, 3)]


@pytest.mark.parametrize(("bits", "colour"), KINDS)
def test_interlaced(tmp_path, capfd, bits, colour):
    rng = np.random.default_rng(bits)
    for height, width in ((1, 1), (1, 5), (5, 1), (3, 4), (8, 8), (9, 17), (33, 40)):
        samples = rng.integers(0, 1 << bits, (height, width, 3)[: 3 if colour == 2 else 2])
        palette = grey_palette(rng.permutation(1 << bits)) if colour == 3 else None
        path = tmp_path / f"{height}-{width}.png"
        path.write_bytes(png(samples, bits, colour=colour, palette=palette, interlaced=True))
        if colour == 3:
            expected = palette[samples, 0].astype("uint8")
        else:
            expected = (samples * (1 if bits > 4 else 255 // ((1 << bits) - 1))).astype(
                "uint16" if bits == 16 else "uint8"
            )
        stack = open_stack(path)
        np.testing.assert_array_equal(stack.read(0, 1)[..., 0].T, expected.reshape(height, width, -1))
        if bits <= 8:
            with Image.open(path) as image:
                read = np.asarray(image.convert("RGB" if colour == 2 else "L"))
            np.testing.assert_array_equal(read, expected)
    assert capfd.readouterr() == ("", "")


@settings(max_examples=examples(30), deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), bits=st.sampled_from([1, 4, 8, 16]))
def test_any_size_interlaced(tmp_path_factory, height, width, bits):
    samples = np.random.default_rng(height * width).integers(0, 1 << bits, (height, width))
    path = tmp_path_factory.getbasetemp() / "any.png"
    path.write_bytes(png(samples, bits, interlaced=True))
    interlaced = decode_png(str(path), "uint8")
    path.write_bytes(png(samples, bits))
    np.testing.assert_array_equal(interlaced, decode_png(str(path), "uint8"))


def test_what_libpng_complains_about_is_not_printed(tmp_path, capfd):
    image = random_image((9, 13), "uint8")
    extra = [(b"sBIT", b"\x09"), (b"gAMA", b"\0\0\0\0"), (b"iCCP", b"x\0\0junk"), (b"cHRM", bytes(32))]
    (tmp_path / "0.png").write_bytes(png(image, 8, extra=extra))
    np.testing.assert_array_equal(open_stack(tmp_path).read(0, 1)[0, ..., 0].T, image)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("interlaced", [False, True])
def test_every_byte_counts(tmp_path, interlaced):
    image = random_image((20, 30), "uint8")
    path = tmp_path / "0.png"
    path.write_bytes(png(image, 8, interlaced=interlaced))
    stack = open_stack(path)
    content = path.read_bytes()
    for place in range(33, len(content), 41):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(ImageStackError, match=r"0\.png"):
            stack.read(0, 1)
        path.write_bytes(content[:place])
        with pytest.raises(ImageStackError, match=r"0\.png"):
            stack.read(0, 1)


def test_an_interlaced_image_without_its_last_rows(tmp_path):
    samples = random_image((20, 30), "uint8")
    content = png(samples, 8, interlaced=True)
    start = content.index(b"IDAT")
    raw = zlib.decompress(content[start + 4 : -16])[:-200]
    body = b"IDAT" + zlib.compress(raw)
    short = (
        content[: start - 4] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    )
    (tmp_path / "0.png").write_bytes(short + content[-12:])
    with pytest.raises(ImageStackError, match=r"0\.png"):
        open_stack(tmp_path).read(0, 1)


# ---- several images in a file


def test_animated_png(tmp_path):
    images = [Image.fromarray(random_image((9, 13), "uint8", k)) for k in range(3)]
    images[0].save(tmp_path / "a.png", save_all=True, append_images=images[1:])
    refused(tmp_path, "a.png", "animation of 3 images", "--page 1")
    stack = open_stack(tmp_path, page=1)
    np.testing.assert_array_equal(stack.read(0, 1)[0, ..., 0].T, np.asarray(images[0]))
    assert "of its 3 images the first is taken" in stack.notes[0]
    refused(tmp_path, "only page 1", page=2)


def test_several_images_in_a_jpeg(tmp_path):
    images = [Image.fromarray(random_image((9, 13), "uint8", k)) for k in range(3)]
    images[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=images[1:])
    refused(tmp_path, "a.jpg", "3 images (MPO)", "--page 1")
    stack = open_stack(tmp_path, page=1)
    with Image.open(tmp_path / "a.jpg") as image:
        np.testing.assert_array_equal(stack.read(0, 1)[0, ..., 0].T, np.asarray(image))
    assert "of its 3 images the first is taken" in stack.notes[0]
    refused(tmp_path, "only page 1", series=2)


# ---- orientation


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3])
def test_orientation(tmp_path, suffix, orientation, channels):
    image = Image.fromarray(random_image((30, 50, 3) if channels == 3 else (30, 50), "uint8"))
    exif = image.getexif()
    exif[274] = orientation
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as opened:
        upright, stored = np.asarray(ImageOps.exif_transpose(opened)), np.asarray(opened)
    stack = open_stack(tmp_path)
    np.testing.assert_array_equal(stack.read(0, 1)[..., 0].T.squeeze(), stored)
    assert [f"says {orientation} (" in note and "--orient" in note for note in stack.notes] == (
        [] if orientation == 1 else [True]
    )
    stack = open_stack(tmp_path, orient=True)
    assert stack.notes == ()
    np.testing.assert_array_equal(stack.read(0, 1)[..., 0].T.squeeze(), upright)
    part = select(stack, BoundingBox((3, 4, 0), (20, 15, 1))).read(0, 1)
    np.testing.assert_array_equal(part[..., 0].T.squeeze(), upright[4:19, 3:23])


# ---- colours of a JPEG


@pytest.mark.parametrize("mode", ["CMYK", "YCCK"])
def test_inks_are_refused(tmp_path, mode):
    Image.new("CMYK", (13, 9), (10, 20, 30, 40)).save(tmp_path / "a.jpg")
    content = bytearray((tmp_path / "a.jpg").read_bytes())
    if mode == "YCCK":
        place = content.index(b"Adobe")
        content[place + 11] = 2
        (tmp_path / "a.jpg").write_bytes(content)
    refused(tmp_path, "a.jpg", "CMYK")
