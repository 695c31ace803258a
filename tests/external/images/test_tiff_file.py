"""Which pages of a TIFF are sections, and what is refused, or noted, instead of guessed."""

import json
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from tiff_files import by_hand, grey_tags, random_image, retag, write_reversed

from wkdask.errors import ImageStackError, InvalidValueError
from wkdask.external.images.selection import select
from wkdask.external.images.stack import open_stack
from wkdask.geometry import BoundingBox

BOX = (slice(6, 27), slice(5, 25))


def check(path, expected, **choices):
    """Compare whole and box with sections (y, x[, c]); return the notes."""
    stack = open_stack(path, **choices)
    channels = 1 if expected.ndim == 3 else expected.shape[3]
    planes = expected.T.reshape(channels, *expected.T.shape[-3:])
    assert stack.dtype == expected.dtype.name
    np.testing.assert_array_equal(stack.read(0, stack.depth), planes)
    rows, columns = (
        slice(side.start, min(side.stop, n)) for side, n in zip(BOX, expected.shape[1:3], strict=True)
    )
    box = BoundingBox(
        (columns.start, rows.start, 0), (columns.stop - columns.start, rows.stop - rows.start, stack.depth)
    )
    part = select(stack, box).read(0, stack.depth)
    np.testing.assert_array_equal(part, planes[:, columns, rows])
    return stack.notes


def refused(path, *words, **choices):
    with pytest.raises(ImageStackError) as caught:
        open_stack(path, **choices)
    for word in words:
        assert str(word) in str(caught.value)
    return str(caught.value)


def write_pages(path, *pages, **options):
    """Write pages that are no series to tifffile."""
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            writer.write(page, photometric="minisblack", metadata=None, **options)
    return path


# ---- bits in reverse order

STORED = {
    "one strip": {},
    "strips": {"rowsperstrip": 7},
    "tiles": {"tile": (16, 16)},
    "deflate": {"compression": "zlib", "rowsperstrip": 9},
    "lzw with differences": {"compression": "lzw", "predictor": 2},
    "big": {"bigtiff": True},
}


@pytest.mark.parametrize("options", STORED.values(), ids=STORED)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_bits_in_reverse_order(tmp_path, dtype, byteorder, options):
    if "predictor" in options and dtype[0] == "f":
        options = options | {"predictor": 3}
    sections = random_image((3, 40, 37), dtype)
    options = options | {"byteorder": byteorder, "photometric": "minisblack"}
    (tmp_path / "one").mkdir()
    for number, section in enumerate(sections):
        write_reversed(tmp_path / f"one/{number}.tif", section, **options)
    check(tmp_path / "one", sections)
    write_reversed(tmp_path / "pages.tif", sections, **options)
    check(tmp_path / "pages.tif", sections)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "pages.tif"), sections)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_bits_of_colours_in_reverse_order(tmp_path, dtype, planar):
    image = random_image((40, 37, 3), dtype)
    stored = image if planar == "contig" else np.moveaxis(image, -1, 0)
    write_reversed(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    check(tmp_path / "a.tif", image[None])


def test_pillow_reads_reversed_bits_alike(tmp_path):
    image = random_image((40, 37), "uint8")
    write_reversed(tmp_path / "a.tif", image)
    with Image.open(tmp_path / "a.tif") as opened:
        np.testing.assert_array_equal(np.asarray(opened), image)
    check(tmp_path / "a.tif", image[None])


def test_one_directory_for_many_pages_of_reversed_bits(tmp_path):
    """Nobody writes that: its pages are not taken for rows as they are."""
    text = b'{"shape": [4, 9, 13]}\0'
    page = (grey_tags(13, 9, t266=(3, [2]), t270=(2, text)), bytes(4 * 9 * 13))
    (tmp_path / "a.tif").write_bytes(by_hand([page]))
    refused(tmp_path / "a.tif", "promise 4 pages")


# ---- colours


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
def test_luma_and_chroma_that_are_not_jpeg(tmp_path, compression):
    image = Image.new("RGB", (16, 16), (200, 30, 40)).convert("YCbCr")
    image.save(tmp_path / "0.tif", compression=compression)
    refused(tmp_path, "0.tif", "YCBCR", "RGB")


def test_luma_and_chroma_in_a_jpeg_become_rgb(tmp_path):
    image = Image.new("RGB", (16, 16), (200, 30, 40)).convert("YCbCr")
    image.save(tmp_path / "0.tif", compression="jpeg")
    with tifffile.TiffFile(tmp_path / "0.tif") as tiff:
        assert tiff.pages[0].photometric.name == "YCBCR"
    found = open_stack(tmp_path).read(0, 1)[:, 5, 5, 0].astype(int)
    assert np.abs(found - (200, 30, 40)).max() <= 3


def test_subsampled_luma_and_chroma(tmp_path):
    tags = grey_tags(4, 4, 8, 6, 3, t530=(3, [2, 2]))
    (tmp_path / "a.tif").write_bytes(by_hand([(tags, bytes(24))]))
    refused(tmp_path, "YCBCR")


COLOURS = {3: "palette", 4: "MASK", 5: "SEPARATED", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32803: "CFA",
           32844: "LOGL", 32845: "LOGLUV", 34892: "LINEAR_RAW", 77: "77"}  # fmt: skip


@pytest.mark.parametrize(("photometric", "word"), COLOURS.items(), ids=COLOURS.values())
@pytest.mark.parametrize("samples", [1, 3, 4])
def test_other_colours_are_refused_by_name(tmp_path, photometric, word, samples):
    page = (grey_tags(4, 4, 8, photometric, samples), bytes(16 * samples))
    (tmp_path / "a.tif").write_bytes(by_hand([page]))
    refused(tmp_path, "a.tif", word)


SAMPLES = {
    "alpha": (2, 4, {"t338": (3, [2])}, "transparency"),
    "associated alpha": (2, 4, {"t338": (3, [1])}, "transparency"),
    "grey and alpha": (1, 2, {"t338": (3, [2])}, "transparency"),
    "grey, more and alpha": (1, 3, {"t338": (3, [0, 2])}, "transparency"),
    "a fourth sample": (2, 4, {"t338": (3, [0])}, "4 RGB samples"),
    "two samples": (1, 2, {"t338": (3, [0])}, "2 MINISBLACK samples"),
    "one colour": (2, 1, {}, "1 RGB sample"),
}


@pytest.mark.parametrize(("photometric", "samples", "more", "word"), SAMPLES.values(), ids=SAMPLES)
def test_other_samples_are_refused_by_name(tmp_path, photometric, samples, more, word):
    page = (grey_tags(4, 4, 8, photometric, samples, **more), bytes(16 * samples))
    (tmp_path / "a.tif").write_bytes(by_hand([page]))
    refused(tmp_path, "a.tif", word)


def test_pages_that_do_not_say_what_they_are(tmp_path):
    tags = grey_tags(4, 4)
    del tags[262]
    (tmp_path / "a.tif").write_bytes(by_hand([(tags, bytes(16))]))
    refused(tmp_path, "PhotometricInterpretation")


def test_differences_that_are_not_compressed(tmp_path):
    """Tifffile sums them up, libtiff does not."""
    (tmp_path / "a.tif").write_bytes(by_hand([(grey_tags(4, 4, t317=(3, [2])), bytes(range(16)))]))
    refused(tmp_path, "Predictor")


@pytest.mark.parametrize("bits", [2, 4, 6, 10, 12, 14, 20, 31])
def test_other_numbers_of_bits(tmp_path, bits):
    pages = [
        (grey_tags(37, 40, bits), np.random.default_rng(k).bytes((37 * bits + 7) // 8 * 40)) for k in range(2)
    ]
    (tmp_path / "a.tif").write_bytes(by_hand(pages))
    notes = check(tmp_path / "a.tif", tifffile.imread(tmp_path / "a.tif", key=(0, 1)))
    assert f"{bits} bits" in notes[0]


def test_white_that_is_zero_is_told(tmp_path):
    image = random_image((9, 13), "uint8")
    for k in range(3):
        tifffile.imwrite(tmp_path / f"{k}.tif", image, photometric="miniswhite" if k else "minisblack")
    (note,) = check(tmp_path, np.stack([image] * 3))
    assert "2 files" in note
    assert "0 is white" in note


def test_samples_that_nobody_calls_red_green_and_blue(tmp_path):
    image = random_image((9, 13, 3), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", planarconfig="contig")
    (note,) = check(tmp_path, image[None])
    assert "does not call RGB" in note


# ---- several series in a file

LARGE, SMALL = random_image((4, 40, 60), "uint8"), random_image((6, 20, 30), "uint8", 1)


def test_a_large_page_and_small_ones(tmp_path):
    path = write_pages(tmp_path / "a.tif", LARGE[0], *SMALL)
    refused(
        path, "series 1: page 1: 60 x 40 uint8", "series 2: pages 2-7: 30 x 20 uint8", "--series", "--page"
    )
    (note,) = check(path, SMALL, series=2)
    assert "series 2 of 2 is taken, pages 2-7: 30 x 20 uint8" in note
    (note,) = check(path, LARGE[:1], series=1)
    assert "series 1 of 2" in note
    assert "of its 7 pages 6 are taken" in check(path, SMALL, page="2-7")[0]
    refused(path, "holds 2 series, but series 3", series=3)
    refused(path, "page 2 of 7", page="1-2")


def test_four_large_and_six_small_pages(tmp_path):
    for name, options in (("shaped", {}), ("plain", {"metadata": None})):
        path = tmp_path / f"{name}.tif"
        with tifffile.TiffWriter(path) as writer:
            writer.write(LARGE, photometric="minisblack", **options)
            writer.write(SMALL, photometric="minisblack", **options)
        refused(path, "pages 1-4: 60 x 40", "pages 5-10: 30 x 20")
        check(path, LARGE, series=1)
        check(path, SMALL, series=2)
        check(path, SMALL[1:4], page="6-8")


def test_images_of_one_size_in_an_ome_tiff(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for sections in (LARGE, LARGE[::-1], SMALL):
            writer.write(sections, photometric="minisblack", metadata={"axes": "ZYX"})
    refused(tmp_path, "holds 3 series", "4 plane(s) of 60 x 40 uint8", "6 plane(s) of 30 x 20 uint8")
    for series, sections in ((1, LARGE), (2, LARGE[::-1]), (3, SMALL)):
        check(tmp_path / "a.ome.tif", sections, series=series)


def test_types_that_differ(tmp_path):
    path = write_pages(tmp_path / "a.tif", LARGE[0], LARGE[0].astype("uint16"))
    refused(path, "60 x 40 uint8", "60 x 40 uint16")
    check(path, LARGE[:1].astype("uint16"), page=2)


def test_copies_are_left_out_with_a_note(tmp_path):
    with tifffile.TiffWriter(tmp_path / "flagged.tif") as writer:
        for page in LARGE:
            writer.write(page, metadata=None)
            writer.write(page[::2, ::2], subfiletype=1, metadata=None)
    (note,) = check(tmp_path / "flagged.tif", LARGE)
    assert "4 page(s) flagged as reduced copies or masks are left out: 30 x 20" in note
    (note,) = check(write_pages(tmp_path / "thumb.tif", *LARGE, SMALL[0]), LARGE)
    assert "page 5, 30 x 20 uint8, is taken for a thumbnail" in note
    refused(write_pages(tmp_path / "two.tif", LARGE[0], SMALL[0]), "series 2: page 2")
    refused(write_pages(tmp_path / "cut.tif", *LARGE, LARGE[0, :-1]), "page 5: 60 x 39")
    with tifffile.TiffWriter(tmp_path / "first.tif") as writer:
        writer.write(SMALL[0], subfiletype=1, metadata=None)
        writer.write(LARGE[0], metadata=None)
    (note,) = check(tmp_path / "first.tif", LARGE[:1])
    assert "30 x 20" in note


def test_a_mask_is_left_out(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(LARGE[0], metadata=None)
        writer.write(np.ones((40, 60), bool), subfiletype=4, photometric="mask", metadata=None)
    (note,) = check(tmp_path / "a.tif", LARGE[:1])
    assert "masks" in note


def test_images_inside_of_pages(tmp_path):
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as writer:
        writer.write(LARGE[0], subifds=2, tile=(16, 16))
        writer.write(LARGE[0, ::2, ::2], subfiletype=1, tile=(16, 16))
        writer.write(LARGE[0, ::4, ::4], subfiletype=1, tile=(16, 16))
    (note,) = check(tmp_path / "pyramid.tif", LARGE[:1])
    assert "2 smaller copies" in note
    with tifffile.TiffWriter(tmp_path / "unflagged.tif") as writer:
        writer.write(LARGE[0], subifds=2)
        writer.write(LARGE[0, ::2, ::2])
        writer.write(LARGE[0, ::4, ::4])
    (note,) = check(tmp_path / "unflagged.tif", LARGE[:1])
    assert "2 smaller copies" in note
    with tifffile.TiffWriter(tmp_path / "raw.tif") as writer:
        writer.write(SMALL[0], subifds=1, subfiletype=1, metadata=None)
        writer.write(LARGE[0], metadata=None)
    refused(tmp_path / "raw.tif", "60 x 40", "SubIFD")


PAGES = {"1": [0], "3": [2], "2-4": [1, 2, 3], "2-": [1, 2, 3, 4, 5], "1-:2": [0, 2, 4], "2-6:2": [1, 3, 5]}


@pytest.mark.parametrize(("page", "expected"), PAGES.items(), ids=PAGES)
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"imagej": True}, {"metadata": None}])
def test_pages(tmp_path, page, expected, options):
    tifffile.imwrite(tmp_path / "a.tif", SMALL, photometric="minisblack", **options)
    check(tmp_path / "a.tif", SMALL[expected], page=page)


def test_pages_of_one_directory(tmp_path):
    """ImageJ writes files above 4 GiB so: one header, the sections one after the other."""
    text = "ImageJ=1.53t\nimages=6\nslices=6\nloop=false\n"
    tifffile.imwrite(tmp_path / "a.tif", SMALL[0], byteorder=">", description=text, metadata=None)
    with open(tmp_path / "a.tif", "ab") as file:
        file.write(SMALL[1:].tobytes())
    check(tmp_path / "a.tif", SMALL)
    check(tmp_path / "a.tif", SMALL[1::2], page="2-:2")
    refused(tmp_path / "a.tif", "has 6 page(s), but page 7", page=7)
    refused(tmp_path / "a.tif", "series 2", series=2)
    assert open_stack(tmp_path, page="2-3").section_name(1).endswith("a.tif, page 3")


def test_channels_of_one_directory(tmp_path):
    text = "ImageJ=1.53t\nimages=6\nchannels=2\nslices=3\nhyperstack=true\nmode=composite\n"
    tifffile.imwrite(tmp_path / "a.tif", SMALL[0], byteorder=">", description=text, metadata=None)
    with open(tmp_path / "a.tif", "ab") as file:
        file.write(SMALL[1:].tobytes())
    refused(tmp_path / "a.tif", "ZCYX", "--page")
    check(tmp_path / "a.tif", SMALL[1::2], page="2-:2")


@pytest.mark.parametrize("page", ["0", "3-2", "x", "1,2", "-3", "1-4:0", ""])
def test_pages_that_cannot_be(tmp_path, page):
    path = write_pages(tmp_path / "a.tif", *SMALL)
    with pytest.raises(InvalidValueError, match="page="):
        open_stack(path, page=page)


def test_series_and_pages_exclude_each_other(tmp_path):
    with pytest.raises(InvalidValueError, match="--page"):
        open_stack(tmp_path, page=1, series=1)
    with pytest.raises(InvalidValueError, match="series=0"):
        open_stack(tmp_path, series=0)


# ---- axes

WRONG_AXES = ["ZXY", "XYZ", "YXZ", "XZY", "YZX", "TXY", "XY", "XYS", "YXZ", "CYX", "ZYXC", "ABC", "XYC"]


@pytest.mark.parametrize("axes", WRONG_AXES)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_axes_that_are_not_y_and_x(tmp_path, axes, compression):
    shape = {2: (9, 13), 3: (5, 9, 13), 4: (2, 9, 13, 5)}[len(axes)]
    shape = (9, 13, 3) if axes in ("XYS", "XYC") else shape
    image = random_image(shape, "uint8")
    photometric = "rgb" if axes in ("XYS", "XYC") else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", image, photometric=photometric, compression=compression,
                     metadata={"axes": axes})  # fmt: skip
    refused(tmp_path, "a.tif", axes, " x ".join(map(str, shape)))


def test_sections_that_are_stored_as_colours(tmp_path):
    image = random_image((3, 9, 13), "uint8")
    tifffile.imwrite(
        tmp_path / "a.tif", image, photometric="rgb", planarconfig="separate", metadata={"axes": "ZYX"}
    )
    refused(tmp_path, "ZYX")


@pytest.mark.parametrize("axes", ["ZYX", "QYX", "IYX", "TYX", "RYX"])
def test_axes_that_are_sections(tmp_path, axes):
    sections = random_image((5, 9, 13), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", sections, photometric="minisblack", metadata={"axes": axes})
    notes = check(tmp_path / "a.tif", sections)
    assert [f"axis {axes[0]} is taken for z" in note for note in notes] == [True] * (axes[0] in "TR")


@pytest.mark.parametrize(
    ("shape", "axes"), [((5, 1, 13), "ZYX"), ((5, 9, 2), "ZYX"), ((1, 13), "YX"), ((9, 1), "YX")]
)
def test_images_of_one_row_or_column(tmp_path, shape, axes):
    image = random_image(shape, "uint16")
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", metadata={"axes": axes})
    stack = open_stack(tmp_path)
    np.testing.assert_array_equal(stack.read(0, stack.depth)[0], image.reshape(-1, *shape[-2:]).T)


def test_channels_of_a_hyperstack_one_by_one(tmp_path):
    sections = random_image((4, 2, 9, 13), "uint16")
    metadata = {"axes": "ZCYX", "mode": "composite"}
    tifffile.imwrite(tmp_path / "a.tif", sections, imagej=True, metadata=metadata)
    refused(tmp_path, "ZCYX", "--page")
    check(tmp_path / "a.tif", sections[:, 0], page="1-:2")
    check(tmp_path / "a.tif", sections[:, 1], page="2-:2")


def test_the_calibration_of_imagej_is_told(tmp_path):
    """It stores signed numbers as unsigned ones."""
    for name, lines, text in (
        ("signed", "cf=0\nc0=-32768\nc1=1\n", "as -32768 + 1 * value"),
        ("curve", "cf=3\nc0=2\nc1=1\nc2=5\n", "by a calibration"),
        ("plain", "cf=0\nc0=0\nc1=1\n", None),
        ("none", "", None),
    ):
        image = random_image((9, 13), "uint16")
        text_of_imagej = f"ImageJ=1.54f\nmin=0\nmax=9\n{lines}"
        tifffile.imwrite(tmp_path / f"{name}.tif", image, description=text_of_imagej, metadata=None)
        notes = check(tmp_path / f"{name}.tif", image[None])
        assert [text in note for note in notes] == [True] * (text is not None)


def write_micro_manager(path, sections, order, *, slices=None):
    """Write a Micro-Manager stack whose pages were taken in another order than that of z."""
    summary = json.dumps({"MicroManagerVersion": "1.4", "Frames": 1, "Channels": 1, "Positions": 1,
                          "Slices": slices or len(sections)}).encode()  # fmt: skip
    start = 8 + 32 + len(summary)
    header = struct.pack("<8I", 54773648, start, 0, 0, 0, 0, 2355492, len(summary)) + summary
    index_map = struct.pack("<2I", 3453623, len(order)) + bytes(20 * len(order))
    height, width = sections.shape[1:]
    pages = [(grey_tags(width, height, t51123=(2, b'{"a": 1}\0\0')), sections[z].tobytes()) for z in order]
    content = bytearray(by_hand(pages, after_header=header + index_map) + bytes(4000))
    path.write_bytes(content)
    with tifffile.TiffFile(path) as tiff:
        offsets = [page.offset for page in tiff.pages]
    for k, (z, offset) in enumerate(zip(order, offsets, strict=True)):
        struct.pack_into("<5I", content, start + 8 + 20 * k, 0, z, 0, 0, offset)
    path.write_bytes(content)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_micro_manager_says_the_order(tmp_path, order):
    write_micro_manager(tmp_path / "a_MMStack.tif", LARGE, order)
    with tifffile.TiffFile(tmp_path / "a_MMStack.tif") as tiff:
        assert tiff.series[0].kind == "mmstack"
    notes = check(tmp_path / "a_MMStack.tif", LARGE)
    assert all("tifffile says: failed to read display settings" in note for note in notes)


def test_a_micro_manager_stack_that_is_not_complete(tmp_path):
    write_micro_manager(tmp_path / "a_MMStack.tif", LARGE, [1, 0, 3, 2], slices=9)
    notes = check(tmp_path / "a_MMStack.tif", LARGE)
    assert any("MMStack series is missing files" in note for note in notes)


# ---- OME


def write_ome(path, sections, *, said, **options):
    """Write an OME-TIFF whose metadata say another number of planes than are there."""
    tifffile.imwrite(path, sections, ome=True, metadata={"axes": "ZYX"}, photometric="minisblack")
    with tifffile.TiffFile(path) as tiff:
        text = tiff.ome_metadata
    for name in ("SizeZ", "PlaneCount"):
        text = text.replace(f'{name}="{len(sections)}"', f'{name}="{said}"')
    tifffile.imwrite(path, sections, description=text, metadata=None, photometric="minisblack", **options)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_fewer_planes_than_the_metadata_say(tmp_path, compression):
    path = tmp_path / "a.ome.tif"
    write_ome(path, SMALL, said=9, compression=compression)
    refused(path, "a.ome.tif", "OME metadata promise 9 planes, 6 are there")
    check(path, SMALL, page="1-")
    write_ome(path, SMALL, said=4, compression=compression)
    refused(path, "its metadata do not describe pages 5-6")
    write_ome(path, SMALL[:1], said=4, compression=compression)
    refused(path, "promise 4 planes, 1")


def write_set(folder, sections, owners, *, missing=(), channels=1):
    """Write an OME-TIFF image as several files: `owners` says which file holds which section."""
    folder.mkdir()
    ids = [f"urn:uuid:{k:08}-0000-0000-0000-000000000000" for k in range(max(owners) + 1)]
    counts, planes = [0] * len(ids), ""
    for z, owner in enumerate(owners):
        planes += (
            f'<TiffData FirstC="{z % channels}" FirstT="0" FirstZ="{z // channels}" IFD="{counts[owner]}" '
            f'PlaneCount="1"><UUID FileName="s_{owner}.ome.tif">{ids[owner]}</UUID></TiffData>'
        )
        counts[owner] += 1
    depth, height, width = sections.shape
    colours = "".join(f'<Channel ID="Channel:0:{c}" SamplesPerPixel="1"/>' for c in range(channels))
    for k, uuid in enumerate(ids):
        text = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid}"><Image ID="Image:0">'
            f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="{sections.dtype}" SizeX="{width}" '
            f'SizeY="{height}" SizeC="{channels}" SizeZ="{depth // channels}" SizeT="1">'
            f"{colours}{planes}</Pixels></Image></OME>"
        )
        if k not in missing:
            own = sections[[z for z, owner in enumerate(owners) if owner == k]]
            tifffile.imwrite(
                folder / f"s_{k}.ome.tif", own, description=text, metadata=None, photometric="minisblack"
            )
    return folder


SETS = {
    "one file per plane": [0, 1, 2, 3, 4, 5],
    "in another order": [3, 0, 5, 1, 4, 2],
    "two files": [0, 0, 0, 1, 1, 1],
    "files of several lengths": [1, 1, 0, 0, 0, 2],
    "files by turns": [0, 1, 0, 1, 0, 1],
}


@pytest.mark.parametrize("owners", SETS.values(), ids=SETS)
def test_a_set_of_files(tmp_path, owners):
    folder = write_set(tmp_path / "in", SMALL.astype("uint16"), owners)
    (note,) = check(folder, SMALL.astype("uint16"))
    assert f"{max(owners) + 1} files are one OME-TIFF image" in note
    notes = check(folder / "s_0.ome.tif", SMALL.astype("uint16"))
    assert "were not given" in notes[1]


def test_a_set_that_is_not_complete(tmp_path):
    folder = write_set(tmp_path / "in", SMALL, SETS["one file per plane"], missing=[2, 4])
    refused(folder, "promise 6 planes; 4 are there", "s_2.ome.tif, s_4.ome.tif missing")
    folder = write_set(tmp_path / "all but one", SMALL, SETS["two files"], missing=[0])
    refused(folder, "s_0.ome.tif missing")
    check(folder, SMALL[3:], page="1-")


def test_a_set_and_other_files(tmp_path):
    folder = write_set(tmp_path / "in", SMALL, SETS["two files"])
    tifffile.imwrite(folder / "t.tif", SMALL[0])
    refused(folder, "t.tif", "no part of the OME-TIFF image")


def test_a_set_of_channels(tmp_path):
    folder = write_set(tmp_path / "in", SMALL, SETS["one file per plane"], channels=2)
    refused(folder, "ZCYX of 3 x 2 x 20 x 30")


def test_a_set_whose_files_are_not_alike(tmp_path):
    folder = write_set(tmp_path / "in", SMALL, SETS["one file per plane"])
    with tifffile.TiffFile(folder / "s_3.ome.tif") as tiff:
        text = tiff.pages[0].description
    tifffile.imwrite(folder / "s_3.ome.tif", SMALL[3].astype("uint16"), description=text, metadata=None)
    refused(folder, "s_3.ome.tif", "uint16", "uint8")


def test_metadata_in_another_file(tmp_path):
    space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    text = f'<OME xmlns="{space}"><BinaryOnly MetadataFile="x.companion.ome"/></OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", SMALL, description=text, metadata=None, photometric="minisblack")
    (note,) = check(tmp_path / "a.ome.tif", SMALL)
    assert "another file" in note


def test_what_tifffile_logs_is_told_once(tmp_path, capfd):
    tags = grey_tags(13, 9, t42113=(2, b"none\0"))
    for k in range(3):
        (tmp_path / f"{k}.tif").write_bytes(by_hand([(tags, bytes(9 * 13))]))
    (note,) = check(tmp_path, np.zeros((3, 9, 13), "uint8"))
    assert note.startswith("3 files, the first is")
    assert "tifffile says: parsing GDAL_NODATA tag raised" in note
    assert capfd.readouterr() == ("", "")


def test_a_worker_does_not_print_what_was_told(tmp_path):
    tags = grey_tags(13, 9, t42113=(2, b"none\0"))
    (tmp_path / "a.tif").write_bytes(by_hand([(tags, bytes(9 * 13)), (tags, bytes(9 * 13))]))
    code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).read(0, 2).sum())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(open_stack(tmp_path)),
        capture_output=True,
        check=True,
    )
    assert (done.stdout.strip(), done.stderr) == (b"0", b"")


# ---- damage


@pytest.mark.parametrize("cut", [0.3, 0.7])
def test_a_jpeg_strip_that_is_cut_off(tmp_path, cut):
    image = np.add.outer(np.arange(64), np.arange(80)).astype("uint8")
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.stack([image, image]), compression="jpeg", rowsperstrip=16, photometric="minisblack"
    )
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[1]
        start, count = page.dataoffsets[2], page.databytecounts[2]
    content = bytearray(path.read_bytes())
    content[start + int(cut * count) : start + count] = bytes(count - int(cut * count))
    path.write_bytes(content)
    stack = open_stack(path)
    assert stack.read(0, 1).shape == (1, 80, 64, 1)
    with pytest.raises(ImageStackError, match=r"a\.tif, page 2 of 2: a strip or tile is cut off"):
        stack.read(0, 2)
    upper = select(stack, BoundingBox((0, 0, 0), (80, 30, 2)))
    assert upper.read(0, 2).shape == (1, 80, 30, 2)
    with pytest.raises(ImageStackError, match="cut off"):
        select(stack, BoundingBox((0, 40, 0), (80, 20, 2))).read(0, 2)


# ---- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"photometric": "rgb"}, {"compression": "zlib"}])
def test_orientations(tmp_path, orientation, options):
    image = random_image((40, 60, 3) if "photometric" in options else (40, 60), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", image, extratags=[(274, 3, 1, orientation, True)], **options)
    notes = check(tmp_path / "a.tif", image[None])
    assert [f"says {orientation} (" in note for note in notes] == [True] * (orientation > 1)
    stored = Image.fromarray(image)  # pillow's own reading of large plain TIFFs mixes up rows and columns
    stored.getexif()[274] = orientation
    upright = np.asarray(ImageOps.exif_transpose(stored))
    assert check(tmp_path / "a.tif", upright[None], orient=True) == ()


def test_pages_of_several_orientations(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for value in (1, 3):
            writer.write(LARGE[0], metadata=None, extratags=[(274, 3, 1, value, True)])
    (note,) = check(tmp_path / "a.tif", LARGE[[0, 0]])
    assert "says 3 (" in note
    refused(tmp_path / "a.tif", "orientations [1, 3]", orient=True)


def test_files_that_are_turned_and_files_that_are_not(tmp_path):
    tifffile.imwrite(tmp_path / "0.tif", LARGE[0])
    tifffile.imwrite(tmp_path / "1.tif", np.rot90(LARGE[1]), extratags=[(274, 3, 1, 6, True)])
    refused(tmp_path, "1.tif", "40 x 60")
    check(tmp_path, LARGE[:2], orient=True)


def test_an_orientation_that_does_not_exist(tmp_path):
    tifffile.imwrite(tmp_path / "0.tif", LARGE[0], extratags=[(274, 3, 1, 1, True)])
    retag(tmp_path / "0.tif", 274, 9)
    for orient in (False, True):
        (note,) = check(tmp_path, LARGE[:1], orient=orient)
        assert "9 is not a valid ORIENTATION" in note
