"""Image stacks: what is read is what was written, and what does not fit is refused by name."""

import multiprocessing
import os
import pickle
import random
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from repository import SHARED

from wkdask.errors import ImageStackError, InvalidValueError, OutOfBoundsError
from wkdask.external.images import stack as stack_module
from wkdask.external.images.stack import ImageStack, find_images, natural_key, open_stack

VNC = SHARED / "data" / "vnc"
DTYPES = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64"]


def volume(dtype="uint8", shape=(1, 13, 9, 5)):
    """Expected array (c, x, y, z), and its sections as images (y, x) or (y, x, c)."""
    values = np.random.default_rng(7).integers(0, 256, (*shape, np.dtype(dtype).itemsize), dtype=np.uint8)
    values[..., -1] &= 0x3F  # no NaN
    expected = np.asfortranarray(values.view(dtype)[..., 0])
    images = [np.ascontiguousarray(expected[..., z].T) for z in range(shape[3])]
    return expected, [image[..., 0] if shape[0] == 1 else image for image in images]


def check(stack, expected):
    assert stack.shape == expected.shape
    assert stack.dtype == expected.dtype.name
    data = stack.read(0, stack.depth)
    assert data.flags.f_contiguous
    assert data.dtype.isnative
    np.testing.assert_array_equal(data, expected)


def refused(inputs, *words):
    with pytest.raises(ImageStackError) as caught:
        open_stack(inputs)
    for word in words:
        assert str(word) in str(caught.value)


# ---- order and search


def test_natural_order():
    expected = ["a.tif", "a1.tif", "a2.tif", "A10.tif", "a10b.tif", "s2/1.png", "s2/9.png", "s10/1.png"]
    shuffled = random.Random(1).sample(expected, len(expected))
    assert sorted(shuffled, key=natural_key) == expected


def test_natural_order_ties_and_long_numbers():
    assert sorted(["1.tif", "01.tif", "001.tif"], key=natural_key) == ["001.tif", "01.tif", "1.tif"]
    assert natural_key("9" * 6000) < natural_key("1" + "0" * 6000)
    assert natural_key("x-9/b.tif") < natural_key("x-10/a.tif")


@given(st.lists(st.text(max_size=8), max_size=6, unique=True))
def test_natural_order_is_total(names):
    paths = sorted({str(Path(name)) for name in names})
    assert len({natural_key(path) for path in paths}) == len(paths)


@given(st.lists(st.integers(0, 10**30), max_size=20))
def test_natural_order_of_numbers(numbers):
    names = [f"s{number}.tif" for number in numbers]
    assert sorted(names, key=natural_key) == [f"s{number}.tif" for number in sorted(numbers)]


def test_find_images(tmp_path, monkeypatch):
    names = ["2.tif", "10.TIF", "deep/a/1.png", "deep/a/b/c/2.JPEG", ".hidden.png", ".git/1.png", "notes.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    expected = [str(tmp_path / name) for name in names[:4]]
    assert find_images([tmp_path]) == expected
    monkeypatch.chdir(tmp_path)
    assert find_images(["10.TIF", "2.tif", "./deep", tmp_path / "2.tif", "deep/a"]) == expected
    assert find_images("deep/a") == expected[2:]


def test_links_sort_by_their_name(tmp_path):
    expected, images = volume()
    for k, image in enumerate(images):
        tifffile.imwrite(tmp_path / f"blob{9 - k}.dat", image)
        (tmp_path / f"{k + 8}.tif").symlink_to(tmp_path / f"blob{9 - k}.dat")
    (tmp_path / "13.tif").symlink_to(tmp_path / "blob9.dat")  # a missing section replaced by another
    stack = open_stack([tmp_path])
    check(stack, np.concatenate([expected, expected[..., :1]], axis=3))
    assert stack.section_name(0) == os.path.realpath(tmp_path / "blob9.dat")


def test_nothing_to_find(tmp_path):
    (tmp_path / "a.txt").touch()
    refused([tmp_path], tmp_path, ".tif")
    refused([tmp_path / "no.tif"], tmp_path / "no.tif", "no such file")
    refused([tmp_path / "a.txt"], tmp_path / "a.txt", ".png")
    refused([], "empty")


def test_same_name_in_two_formats(tmp_path):
    tifffile.imwrite(tmp_path / "1.tif", np.zeros((4, 4), "uint8"))
    Image.new("L", (4, 4)).save(tmp_path / "1.png")
    refused([tmp_path], tmp_path / "1.tif", tmp_path / "1.png", "suffix")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can list every folder")
def test_a_folder_that_cannot_be_listed(tmp_path):
    (tmp_path / "1.tif").touch()
    (tmp_path / "closed").mkdir(mode=0)
    refused([tmp_path], tmp_path / "closed")


# ---- formats, TIFF


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_types_and_byte_orders(tmp_path, dtype, byteorder):
    expected, images = volume(dtype)
    for k, image in enumerate(images):
        tifffile.imwrite(tmp_path / f"{k}.tif", image, byteorder=byteorder)
    check(open_stack([tmp_path]), expected)


TIFF_OPTIONS = {
    "tiled": {"tile": (16, 16)},
    "lzw": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "zlib", "rowsperstrip": 2},
    "zstd-tiled": {"compression": "zstd", "tile": (16, 16)},
    "bigtiff": {"bigtiff": True},
    "strips": {"rowsperstrip": 2},
    "big-endian": {"byteorder": ">", "compression": "lzw"},
    "white": {"photometric": "miniswhite"},
    "imagej": {"imagej": True},
    "imagej-z": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "imagej-t": {"imagej": True, "metadata": {"axes": "TYX"}},
    "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
    "plain": {"metadata": None},
}


@pytest.mark.parametrize("options", TIFF_OPTIONS.values(), ids=TIFF_OPTIONS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tiff_variants(tmp_path, options, dtype):
    expected, images = volume(dtype)
    tifffile.imwrite(tmp_path / "all.tif", np.stack(images), **({"photometric": "minisblack"} | options))
    check(open_stack([tmp_path / "all.tif"]), expected)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_rgb_tiff(tmp_path, planar, compression):
    expected, images = volume("uint16", (3, 13, 9, 4))
    data = np.stack(images) if planar == "contig" else np.moveaxis(np.stack(images), -1, 1)
    options = {"photometric": "rgb", "planarconfig": planar, "compression": compression}
    tifffile.imwrite(tmp_path / "all.tif", data, **options)
    tifffile.imwrite(tmp_path / "one.tif", data[0], **options)
    check(open_stack([tmp_path / "all.tif"]), expected)
    check(open_stack([tmp_path / "one.tif"]), expected[..., :1])


def test_a_stack_in_one_directory(tmp_path):
    """ImageJ writes files above 4 GiB so: one header, the sections one after the other."""
    expected, images = volume("uint16")
    path = tmp_path / "imagej.tif"
    text = "ImageJ=1.53t\nimages=5\nslices=5\nloop=false\n"
    tifffile.imwrite(path, images[0], byteorder=">", description=text, metadata=None)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].dataoffsets[0] + images[0].nbytes == path.stat().st_size
    with open(path, "ab") as stream:
        for image in images[1:]:
            stream.write(image.astype(">u2").tobytes())
    stack = open_stack([path])
    check(stack, expected)
    np.testing.assert_array_equal(stack.read(3, 5), expected[..., 3:])
    os.truncate(path, path.stat().st_size - 1)
    refused([path], path, "truncated")
    with pytest.raises(ImageStackError, match="page 5 of 5"):
        stack.read(0, 5)


def test_pages_written_one_by_one(tmp_path):
    expected, images = volume()
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for k, image in enumerate(images):  # tifffile makes a series of each, and two kinds of page
            writer.write(image, compression="zlib" if k % 2 else None, metadata=None)
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        for image in images:
            writer.write(image)
    check(open_stack([tmp_path / "a.tif"]), expected)
    check(open_stack([tmp_path]), np.concatenate([expected, expected], axis=3))


def test_small_copies_are_left_out_and_other_pages_refused(tmp_path):
    expected, images = volume()
    with tifffile.TiffWriter(tmp_path / "thumb.tif") as writer:
        for image in [images[0], images[0][::2, ::2][:4, :6], *images[1:]]:
            writer.write(image, metadata=None)
    check(open_stack([tmp_path / "thumb.tif"]), expected)
    with tifffile.TiffWriter(tmp_path / "cut.tif") as writer:
        for image in [*images, images[0][:-1]]:
            writer.write(image, metadata=None)
    refused([tmp_path / "cut.tif"], "cut.tif", "pages 1-5: 13 x 9 uint8", "page 6: 13 x 8 uint8", "--series")
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as writer:
        for image in [*images, images[0].astype("uint16")]:
            writer.write(image, metadata=None)
    refused([tmp_path / "mixed.tif"], "mixed.tif", "page 6: 13 x 9 uint16", "pages 1-5: 13 x 9 uint8")


def test_pyramid_in_a_tiff(tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (64, 96), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "p.tif") as writer:
        writer.write(image, subifds=1, tile=(16, 16))
        writer.write(image[::2, ::2], subfiletype=1, tile=(16, 16))
    check(open_stack([tmp_path]), image.T[None, :, :, None])


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((2, 3, 9, 13), {"imagej": True, "metadata": {"axes": "ZCYX"}}, ("ZCYX",)),
        ((2, 9, 13), {"imagej": True, "metadata": {"axes": "CYX", "mode": "composite"}}, ("CYX",)),
        ((2, 9, 13), {"ome": True, "metadata": {"axes": "CYX"}}, ("CYX", "channel")),
        ((2, 3, 9, 13), {}, ("YX", "stacking axis")),
        ((16, 32, 32), {"tile": (16, 16, 16), "volumetric": True}, ("ZYX",)),
    ],
)
def test_other_axes_are_refused(tmp_path, shape, options, words):
    options = {"photometric": "minisblack"} | options
    tifffile.imwrite(tmp_path / "axes.tif", np.ones(shape, "uint8"), **options)
    refused([tmp_path], tmp_path / "axes.tif", *words)


TIFF_REFUSED = {
    "bilevel": (np.zeros((9, 13), bool), {}, "1-bit"),
    "half": (np.zeros((9, 13), "float16"), {}, "float16"),
    "complex": (np.zeros((9, 13), "complex64"), {}, "complex64"),
    "alpha": (np.zeros((9, 13, 4), "uint8"), {"photometric": "rgb", "extrasamples": [2]}, "alpha"),
    "grey-alpha": (
        np.zeros((9, 13, 2), "uint8"),
        {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": [2]},
        "alpha",
    ),
    "palette": (
        np.zeros((9, 13), "uint8"),
        {"photometric": "palette", "colormap": np.zeros((3, 256), "uint16")},
        "palette",
    ),
    "cmyk": (np.zeros((9, 13, 4), "uint8"), {"photometric": "separated"}, "SEPARATED"),
}


@pytest.mark.parametrize(("image", "options", "word"), TIFF_REFUSED.values(), ids=TIFF_REFUSED)
def test_unsupported_tiffs(tmp_path, image, options, word):
    tifffile.imwrite(tmp_path / "bad.tif", image, **({"photometric": "minisblack"} | options))
    refused([tmp_path], tmp_path / "bad.tif", word)


def test_one_file_of_an_ome_set(tmp_path):
    _, images = volume()
    tifffile.imwrite(tmp_path / "1.ome.tif", np.stack(images), ome=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "1.ome.tif") as tiff:
        text = tiff.ome_metadata
    other = '<UUID FileName="2.ome.tif">urn:uuid:11111111-2222-3333-4444-555555555555</UUID></TiffData>'
    text = text.replace('PlaneCount="5"/>', f'PlaneCount="5">{other}')
    assert other in text
    tifffile.imwrite(tmp_path / "1.ome.tif", np.stack(images), description=text, metadata=None)
    refused([tmp_path], "1.ome.tif", "one of several files", "2.ome.tif missing")


# ---- formats, PNG and JPEG


def png(raw, bits, colour, size, *chunks):
    """A PNG written by hand, for what no library writes."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 1), ("uint16", 1), ("uint8", 3), ("uint16", 3)])
def test_png(tmp_path, dtype, channels):
    expected, images = volume(dtype, (channels, 13, 9, 5))
    expected, images = expected * 3, [image * 3 for image in images]  # into the upper values
    for k, image in enumerate(images):
        if channels == 3 and dtype == "uint16":
            (tmp_path / f"{k}.png").write_bytes(imagecodecs.png_encode(image))
        else:
            Image.fromarray(image).save(tmp_path / f"{k}.png")
    check(open_stack([tmp_path]), expected)


@pytest.mark.parametrize(
    ("mode", "colour", "word"), [("P", "red", "palette"), ("LA", 1, "alpha"), ("RGBA", 1, "alpha")]
)
def test_unsupported_pngs(tmp_path, mode, colour, word):
    Image.new(mode, (13, 9), colour).save(tmp_path / "bad.png")
    refused([tmp_path], tmp_path / "bad.png", word)


def test_png_with_a_clear_colour(tmp_path):
    (tmp_path / "clear.png").write_bytes(png(b"\0\1\2" * 2, 8, 0, (2, 2), (b"tRNS", b"\0\1")))
    refused([tmp_path], "clear.png", "transparency")


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg(tmp_path, channels):
    y, x = np.mgrid[:9, :13].astype("uint8") * 3
    image = y + x if channels == 1 else np.stack([x, y, x + y], axis=-1)
    Image.fromarray(image).save(tmp_path / "0.jpg", quality=100, subsampling=0)
    stack = open_stack([tmp_path])
    assert stack.shape == (channels, 13, 9, 1)
    got = stack.read(0, 1)[..., 0].T.astype(int)
    assert np.abs(got - (image[..., None] if channels == 1 else image)).max() <= 4


def test_cmyk_jpeg_is_refused(tmp_path):
    Image.new("CMYK", (13, 9)).save(tmp_path / "bad.jpg")
    refused([tmp_path], tmp_path / "bad.jpg", "CMYK")


def test_large_images_pass_pillows_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    expected, images = volume()
    Image.fromarray(images[0]).save(tmp_path / "0.png")
    check(open_stack([tmp_path]), expected[..., :1])
    Image.fromarray(images[0]).save(tmp_path / "0.jpg")
    assert open_stack([tmp_path / "0.jpg"]).read(0, 1).shape == (1, 13, 9, 1)
    assert Image.MAX_IMAGE_PIXELS == 10


# ---- disagreement, damage


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((9, 14), "uint8"), ("14 x 9", "13 x 9")),
        (np.zeros((9, 13), "uint16"), ("uint16", "uint8")),
        (np.zeros((9, 13, 3), "uint8"), ("3 channel", "1 channel")),
    ],
)
def test_the_first_that_differs_is_named(tmp_path, image, words):
    _, images = volume()
    for k, good in enumerate(images):
        tifffile.imwrite(tmp_path / f"{k}.tif", good)
    for k in (2, 4):
        tifffile.imwrite(tmp_path / f"{k}.tif", image, photometric="rgb" if image.ndim == 3 else "minisblack")
    refused([tmp_path], f"{tmp_path / '2.tif'}: has", tmp_path / "0.tif", *words)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
def test_files_that_are_no_images(tmp_path, name):
    for content in (
        b"",
        b"hello, this is text",
        b"II*\0\x08\0\0\0",
        b"\x89PNG\r\n\x1a\nxx",
        b"\xff\xd8\xff\xe0",
    ):
        (tmp_path / name).write_bytes(content)
        refused([tmp_path], tmp_path / name)


@pytest.mark.parametrize("suffix", ["tif", "png", "jpg"])
def test_truncated_after_opening(tmp_path, suffix):
    image = np.random.default_rng(3).integers(0, 256, (200, 100), dtype=np.uint8)
    for k in range(3):
        Image.fromarray(image).save(tmp_path / f"{k}.{suffix}")
    stack = open_stack([tmp_path])
    path = tmp_path / f"1.{suffix}"
    os.truncate(path, path.stat().st_size // 2)
    assert stack.read(0, 1).shape == stack.read(2, 3).shape == (1, 100, 200, 1)
    for threads in (1, 2):
        with pytest.raises(ImageStackError, match=str(path)):
            stack.read(0, 3, threads=threads)


def test_damaged_pixels(tmp_path):
    _, images = volume(shape=(1, 100, 80, 1))
    tifffile.imwrite(tmp_path / "0.tif", images[0], compression="zlib")
    Image.fromarray(images[0]).save(tmp_path / "1.png")
    stack = open_stack([tmp_path])
    for z in (0, 1):
        path = Path(stack.section_name(z))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x55
        path.write_bytes(content)
        with pytest.raises(ImageStackError, match=str(path)):
            stack.read(z, z + 1)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_cut_multi_page_tiff_is_not_a_shorter_stack(tmp_path, compression):
    _, images = volume(shape=(1, 40, 30, 6))
    path = tmp_path / "all.tif"
    with tifffile.TiffWriter(path) as writer:
        for image in images:
            writer.write(image, compression=compression, metadata=None)
    content = path.read_bytes()
    for cut in range(8, len(content) - 1, 97):
        path.write_bytes(content[:cut])
        refused([path], path)


def test_a_strip_that_was_never_written(tmp_path):
    path = tmp_path / "sparse.tif"
    tiles = iter([np.ones((16, 16), "uint8"), None])
    options = {"shape": (16, 32), "dtype": "uint8", "tile": (16, 16), "compression": "zlib"}
    tifffile.imwrite(path, tiles, **options)
    refused([path], path, "empty strip or tile")


def test_changed_after_opening(tmp_path):
    _, images = volume()
    for k, image in enumerate(images):
        tifffile.imwrite(tmp_path / f"{k}.tif", image)
    stack = open_stack([tmp_path])
    tifffile.imwrite(tmp_path / "3.tif", images[3][:-1])
    with pytest.raises(ImageStackError, match=r"3\.tif: changed since.*\(8, 13\).*\(9, 13\)"):
        stack.read(2, 5)
    (tmp_path / "3.tif").unlink()
    with pytest.raises(ImageStackError, match=r"3\.tif"):
        stack.read(2, 5)


def test_a_damaged_page_is_named(tmp_path):
    _, images = volume(shape=(1, 50, 40, 5))
    path = tmp_path / "all.tif"
    tifffile.imwrite(path, np.stack(images), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[3].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset + 20 : offset + 40] = bytes(20)
    path.write_bytes(content)
    stack = open_stack([path])
    assert stack.read(0, 3).shape == (1, 50, 40, 3)
    with pytest.raises(ImageStackError, match=r"all\.tif, page 4 of 5"):
        stack.read(1, 5)


# ---- the stack


@pytest.fixture
def mixed(tmp_path):
    """Two multi-page TIFFs around a PNG: sections 0-2, 3, 4-8."""
    expected, images = volume("uint16", (1, 13, 9, 9))
    tifffile.imwrite(tmp_path / "a1.tif", np.stack(images[:3]), photometric="minisblack")
    Image.fromarray(images[3]).save(tmp_path / "a2.png")
    tifffile.imwrite(tmp_path / "a10.tif", np.stack(images[4:]), compression="lzw")
    return open_stack([tmp_path]), expected


@pytest.mark.parametrize("threads", [1, 2, 20])
def test_every_range(mixed, threads):
    stack, expected = mixed
    for start in range(10):
        for stop in range(start, 10):
            data = stack.read(start, stop, threads=threads)
            assert data.flags.f_contiguous
            np.testing.assert_array_equal(data, expected[..., start:stop])


def test_each_image_is_decoded_once(mixed, monkeypatch):
    stack, _ = mixed
    seen = []
    decode = stack_module._decode
    monkeypatch.setattr(
        stack_module,
        "_decode",
        lambda f, pages, *more: seen.extend((f.path, p) for p in pages) or decode(f, pages, *more),
    )
    stack.read(1, 8, threads=3)
    assert len(seen) == len(set(seen)) == 7


def test_ranges_and_threads_are_checked(mixed):
    stack, _ = mixed
    for start, stop in ((-1, 2), (3, 2), (0, 10)):
        with pytest.raises(OutOfBoundsError, match="9"):
            stack.read(start, stop)
    with pytest.raises(InvalidValueError):
        stack.read(0, 1, threads=0)
    with pytest.raises(OutOfBoundsError):
        stack.section_name(9)


def test_section_names(mixed):
    stack, _ = mixed
    names = [os.path.basename(stack.section_name(z)) for z in (0, 3, 8)]
    assert names == ["a1.tif, page 1 of 3", "a2.png", "a10.tif, page 5 of 5"]


@pytest.mark.parametrize("channels", [1, 3])
def test_planes_are_plain_copies(channels):
    image = np.zeros((9, 13, 3)[: 2 if channels == 1 else 3], "uint16")
    plane = np.empty((channels, 13, 9, 4), "uint16", order="F")[..., 2]
    assert plane.strides[-image.ndim :] == image.T.strides


def test_paths_are_real_and_absolute(tmp_path, monkeypatch):
    expected, images = volume()
    (tmp_path / "real").mkdir()
    for k, image in enumerate(images):
        tifffile.imwrite(tmp_path / "real" / f"{k}.tif", image)
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    stack = open_stack(["link"])
    assert stack.section_name(0) == os.path.realpath(tmp_path / "real" / "0.tif")
    monkeypatch.chdir("/")
    check(stack, expected)


def test_pickle_and_spawned_worker(mixed):
    stack, expected = mixed
    data = pickle.dumps(stack)
    assert pickle.loads(data) == stack
    assert len(data) < 1000
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(ImageStack.read, stack, 2, 6).result(), expected[..., 2:6])


def test_import_is_light():
    code = "import sys, wkdask.external.images.stack; print({'PIL', 'tifffile', 'imagecodecs'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
    )


@pytest.mark.skipif(not VNC.is_dir(), reason=f"the real stack is not at {VNC}")
@pytest.mark.parametrize("folder", ["raw", "labels"])
def test_the_real_stack(folder):
    stack = open_stack([VNC / folder])
    assert (stack.shape, stack.dtype) == ((1, 1024, 1024, 20), "uint8")
    data = stack.read(0, 20, threads=2)
    for z in (0, 7, 19):
        with Image.open(stack.section_name(z)) as image:
            np.testing.assert_array_equal(data[0, ..., z], np.asarray(image).T)
