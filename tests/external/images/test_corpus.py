"""A corpus of images, all made here: each is read right, whole and in part, or refused by name.

Every image is there as one file per section and, where its format has pages, as pages of one file. The voxels are
those that were written; the referees are tifffile, imagecodecs and pillow.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from png_files import grey_palette, png
from thorough import mostly_slow
from tiff_files import by_hand, grey_tags, random_image, write_reversed

from wkdask.errors import ImageStackError
from wkdask.external.images.selection import select
from wkdask.external.images.stack import open_stack
from wkdask.geometry import BoundingBox

HEIGHT, WIDTH, DEPTH = 37, 53, 2
BOX = BoundingBox((11, 7, 0), (29, 19, DEPTH))
INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
DTYPES = [*INTEGERS, "float32", "float64"]


@dataclass(frozen=True)
class Case:
    """One kind of image."""

    name: str
    write: Callable
    """Writes sections (z, y, x[, c]) to a path: one, or all."""
    dtype: str = "uint8"
    channels: int = 1
    suffix: str = "tif"
    refused: str | None = None
    """A word of the refusal; None: it is read."""
    lossy: bool = False
    """The voxels are what a referee reads."""
    top: int | None = None
    """Values are below this."""
    has_pages: bool = True
    options: dict = field(default_factory=dict)

    @property
    def sections(self):
        shape = (DEPTH, HEIGHT, WIDTH, 3)[: 3 if self.channels == 1 else 4]
        if self.lossy:  # smooth
            z, y, x = np.indices(shape[:3])
            grey = (x * 3 + y * 2 + z * 40) % 200 if self.top is None else (x * 40 + y * 30) % self.top
            image = grey if self.channels == 1 else np.stack([grey, 255 - grey, (grey + y) % 200], -1)
            return image.astype(self.dtype)
        image = random_image(shape, self.dtype, seed=len(self.name))
        return image if self.top is None else image % np.dtype(self.dtype).type(self.top)


def tiff(**options):
    """Return a writer by tifffile."""

    def write(path, sections):
        rgb = sections.ndim == 4
        used = {"photometric": "rgb" if rgb else "minisblack", "metadata": None} | options
        if used.get("planarconfig") == "separate":
            sections = np.moveaxis(sections, -1, 1)
        if used.pop("by_page", False):
            with tifffile.TiffWriter(path, byteorder=used.pop("byteorder", None)) as writer:
                for section in sections:
                    writer.write(section, **used)
            return
        tifffile.imwrite(path, sections if len(sections) > 1 else sections[0], **used)

    return write


def reversed_tiff(**options):
    """Return a writer of bits in reverse order."""

    def write(path, sections):
        rgb = sections.ndim == 4
        if options.get("planarconfig") == "separate":
            sections = np.moveaxis(sections, -1, 1)
        used = {"photometric": "rgb" if rgb else "minisblack", "metadata": None} | options
        write_reversed(path, sections if len(sections) > 1 else sections[0], **used)

    return write


def packed_tiff(bits, byteorder):
    """Return a writer of integers of any number of bits, most significant first, rows padded to bytes."""

    def write(path, sections):
        pages = []
        for section in sections:
            split = (section[..., None] >> np.arange(bits - 1, -1, -1, dtype=section.dtype)) & 1
            rows = np.packbits(split.reshape(len(section), -1).astype(np.uint8), axis=1)
            pages.append((grey_tags(WIDTH, HEIGHT, bits), rows.tobytes()))
        path.write_bytes(by_hand(pages, byteorder=byteorder))

    return write


def tagged_tiff(photometric, samples=1, bits=8, **tags):
    """Return a writer of bytes under any tags."""

    def write(path, sections):
        data = bytes(HEIGHT * ((WIDTH * samples * bits + 7) // 8))
        page = (grey_tags(WIDTH, HEIGHT, bits, photometric, samples, **tags), data)
        path.write_bytes(by_hand([page] * len(sections)))

    return write


def pillow(mode=None, **options):
    """Return a writer by pillow."""

    def write(path, sections):
        first, *others = [
            Image.fromarray(section).convert(mode) if mode else Image.fromarray(section)
            for section in sections
        ]
        more = {"save_all": True, "append_images": others} if others else {}
        first.save(path, **more, **options)

    return write


def png_by_hand(bits, colour=0, *, interlaced=False):
    """Return a writer of a PNG as the standard says it."""

    def write(path, sections):
        values = sections[0].astype(np.int64)
        palette = None
        if colour == 3:
            values, palette = values // 17, grey_palette(np.arange(16) * 17)
        elif bits < 8:
            values = values // (255 // ((1 << bits) - 1))
        path.write_bytes(png(values, bits, colour=colour, palette=palette, interlaced=interlaced))

    return write


def png_by_imagecodecs(path, sections):
    path.write_bytes(imagecodecs.png_encode(sections[0]))


def shades(count):
    """Return a case's write for values that a PNG of few bits can hold."""

    def spread(sections):
        return (sections % count) * np.uint8(255 // (count - 1))

    return spread


def cases():
    """Yield the corpus."""
    layouts = {
        "strip": {},
        "strips": {"rowsperstrip": 5},
        "tiles": {"tile": (16, 32)},
        "big": {"bigtiff": True, "rowsperstrip": 8},
    }
    for dtype, byteorder, (name, options) in product(DTYPES, "<>", layouts.items()):
        yield Case(f"{dtype}{byteorder}{name}", tiff(byteorder=byteorder, **options), dtype)
    for dtype, byteorder, planar, tiled in product(
        ["uint8", "int16", "uint32", "float32"], "<>", ["contig", "separate"], [False, True]
    ):
        options = {"planarconfig": planar, "byteorder": byteorder} | ({"tile": (16, 16)} if tiled else {})
        yield Case(f"rgb-{dtype}{byteorder}{planar}{'-tiles' * tiled}", tiff(**options), dtype, 3)
    # compressions and predictors
    for compression, dtype in product(["lzw", "zlib", "zstd", "packbits", "lzma"], DTYPES):
        predictors = [1] if compression == "packbits" else [1, 3] if dtype[0] == "f" else [1, 2]
        for predictor, byteorder in product(predictors, "<>"):
            if predictor == 2 and dtype[-2:] == "64":
                continue
            options = {"rowsperstrip": 9} if byteorder == "<" else {"tile": (32, 16)}
            yield Case(
                f"{compression}-{dtype}{byteorder}{predictor}",
                tiff(compression=compression, predictor=predictor, byteorder=byteorder, **options),
                dtype,
            )
    for compression, dtype, channels in product(
        ["png", "jpeg2000", "jpegxl", "lerc", "webp", "jpegxr"], ["uint8", "uint16"], [1, 3]
    ):
        if compression == "webp" and (dtype, channels) != ("uint8", 3):
            continue
        args = {"compressionargs": {"lossless": True}} if compression in ("webp", "jpegxl") else {}
        yield Case(
            f"{compression}-tiles-{dtype}-{channels}", tiff(compression=compression, tile=(32, 32), **args),
            dtype, channels, lossy=compression in ("jpegxr", "jpeg2000", "webp", "jpegxl"),
        )  # fmt: skip
    for planar, predictor in product(["contig", "separate"], [1, 2]):
        yield Case(
            f"rgb-lzw-{planar}{predictor}",
            tiff(compression="lzw", predictor=predictor, planarconfig=planar, rowsperstrip=10),
            "uint16",
            3,
        )
    for subsampling, options in product([(1, 1), (2, 1), (2, 2)], [{"rowsperstrip": 16}, {"tile": (32, 32)}]):
        yield Case(
            f"jpeg-{subsampling}-{next(iter(options))}",
            tiff(compression="jpeg", compressionargs={"level": 90}, subsampling=subsampling, **options),
            "uint8",
            3,
            lossy=True,
        )
    yield Case("jpeg-grey", tiff(compression="jpeg", rowsperstrip=8), lossy=True)
    yield Case("jpeg-planes", tiff(compression="jpeg", planarconfig="separate"), "uint8", 3, lossy=True)
    # bits in reverse order
    for dtype, byteorder, (name, options) in product(
        ["uint8", "uint16", "uint32", "float32"],
        "<>",
        {
            "strip": {},
            "strips": {"rowsperstrip": 6},
            "tiles": {"tile": (16, 16)},
            "lzw": {"compression": "lzw"},
        }.items(),
    ):
        yield Case(f"reversed-{dtype}{byteorder}{name}", reversed_tiff(byteorder=byteorder, **options), dtype)
    for planar in ("contig", "separate"):
        yield Case(f"reversed-rgb-{planar}", reversed_tiff(planarconfig=planar), "uint16", 3)
    # bits
    for bits, byteorder in product([*range(2, 8), *range(9, 16), 17, 20, 31], "<>"):
        dtype = "uint8" if bits < 8 else "uint16" if bits < 16 else "uint32"
        yield Case(f"{bits} bits{byteorder}", packed_tiff(bits, byteorder), dtype, top=1 << bits)
    # metadata
    for name, options in {
        "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
        "imagej-time": {"imagej": True, "metadata": {"axes": "TYX"}},
        "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
        "shaped": {"metadata": {}},
        "shaped-named": {"metadata": {"axes": "ZYX"}},
        "pages": {"by_page": True},
        "big-endian-pages": {"by_page": True, "byteorder": ">"},
        "dots per inch": {"resolution": (300, 300), "resolutionunit": "inch"},
        "dots per cm": {"resolution": (1e7, 1e7), "resolutionunit": "centimeter"},
        "no unit": {"resolution": (2.5, 0.25), "resolutionunit": "none"},
        "white is 0": {"photometric": "miniswhite"},
        "software": {"software": "SEM", "description": "WD=4.2\nmag=9", "datetime": True},
        "georeferenced": {
            "extratags": [(33550, 12, 3, (1.0, 1.0, 0.0), False), (42113, 2, 0, "-9999", False)]
        },
        "instrument": {
            "extratags": [(34118, 2, 0, "AP_MAG\r\n1", False), (34682, 2, 0, "[User]\r\n", False)]
        },
        "upright": {"extratags": [(274, 3, 1, 1, False)]},
        "rotated": {"extratags": [(274, 3, 1, 6, False)]},
        "page names": {"extratags": [(285, 2, 0, "one", False), (297, 3, 2, (0, 2), False)]},
    }.items():
        for dtype in ("uint8", "uint16"):
            if {"imagej", "ome"} & options.keys() or "axes" in (options.get("metadata") or {}):
                yield Case(f"{name}-{dtype}", metadata_tiff(options), dtype)
            else:
                yield Case(f"{name}-{dtype}", tiff(**options), dtype)
    # pillow's files
    for mode, dtype, channels in (
        ("L", "uint8", 1),
        ("RGB", "uint8", 3),
        (None, "uint16", 1),
        ("I", "int32", 1),
        ("F", "float32", 1),
    ):
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
            if mode in ("I", "F"):
                yield Case(f"pillow-{mode}-{compression}", pillow(compression=compression), dtype)
            else:
                yield Case(f"pillow-{mode}-{compression}", pillow(compression=compression), dtype, channels)
    # PNG and JPEG
    alone = {"has_pages": False}
    for dtype, channels in product(["uint8", "uint16"], [1, 3]):
        yield Case(f"png-{dtype}-{channels}", png_by_imagecodecs, dtype, channels, "png", **alone)
    for bits, interlaced in product([1, 2, 4], [False, True]):
        yield Case(
            f"png-{bits}{'-interlaced' * interlaced}", png_by_hand(bits, interlaced=interlaced), suffix="png",
            options={"spread": shades(1 << bits)}, **alone,
        )  # fmt: skip
    for interlaced in (False, True):
        yield Case(
            f"png-palette{'-interlaced' * interlaced}", png_by_hand(4, 3, interlaced=interlaced), suffix="png",
            options={"spread": shades(16)}, **alone,
        )  # fmt: skip
        for bits, dtype, colour in ((8, "uint8", 0), (16, "uint16", 0), (8, "uint8", 2), (16, "uint16", 2)):
            yield Case(
                f"png-by-hand-{bits}-{colour}{'-interlaced' * interlaced}",
                png_by_hand(bits, colour, interlaced=interlaced), dtype, 3 if colour else 1, "png", **alone,
            )  # fmt: skip
    for channels, options in product(
        [1, 3],
        [{"quality": 95}, {"quality": 30}, {"progressive": True}, {"optimize": True}, {"subsampling": 0},
         {"subsampling": 2}, {"restart_marker_rows": 1}],
    ):  # fmt: skip
        name = next(iter(options))
        yield Case(
            f"jpeg-{channels}-{name}{options[name]}",
            pillow(**options),
            "uint8",
            channels,
            "jpg",
            lossy=True,
            **alone,
        )
    # what is refused, by the word that says why
    for name, write, word in (
        ("24 bits", tagged_tiff(1, bits=24), "24 bits"),
        ("12 bits signed", tagged_tiff(1, bits=12, t339=(3, [2])), "data type"),
        ("bits that differ", tagged_tiff(2, 3, t258=(3, [5, 6, 5])), "bits"),
        ("palette", tagged_tiff(3), "palette"),
        ("mask", tagged_tiff(4), "MASK"),
        ("cmyk", tagged_tiff(5, 4), "SEPARATED"),
        ("lab", tagged_tiff(8, 3), "CIELAB"),
        ("icc lab", tagged_tiff(9, 3), "ICCLAB"),
        ("ycbcr", tagged_tiff(6, 3), "YCBCR"),
        ("ycbcr planes", tagged_tiff(6, 3, t284=(3, [2])), "YCBCR"),
        ("filter array", tagged_tiff(32803), "CFA"),
        ("luminance", tagged_tiff(32844), "LOGL"),
        ("1 bit", tagged_tiff(1, bits=1), "1-bit"),
        ("alpha", tagged_tiff(2, 4, t338=(3, [2])), "transparency"),
        ("grey and alpha", tagged_tiff(1, 2, t338=(3, [1])), "transparency"),
        ("four samples", tagged_tiff(2, 4, t338=(3, [0])), "4 RGB"),
        ("five samples", tagged_tiff(1, 5), "5 MINISBLACK"),
        ("float16", tiff(), "float16"),
        ("complex64", tiff(), "complex64"),
        ("complex integers", tagged_tiff(1, bits=32, t339=(3, [5])), "complex"),
        ("unknown compression", tagged_tiff(1, t259=(3, [34999])), "compression"),
        ("differences uncompressed", tagged_tiff(1, t317=(3, [2])), "Predictor"),
        ("pillow ycbcr", pillow("YCbCr", compression="tiff_lzw"), "YCBCR"),
        ("pillow cmyk", pillow("CMYK"), "SEPARATED"),
        ("pillow 1", pillow("1"), "1-bit"),
        ("pillow fax", pillow("1", compression="group4"), "1-bit"),
        ("pillow palette", pillow("P"), "palette"),
    ):
        channels = 3 if "YCbCr" in name or "ycbcr" in name else 1
        dtype = name if name in ("float16", "complex64") else "uint8"
        yield Case(f"no-{name}", write, dtype, channels if "pillow" in name else 1, refused=word)
    yield Case("no-cmyk jpeg", pillow("CMYK"), suffix="jpg", refused="CMYK", **alone)
    yield Case("no-alpha png", pillow("LA"), suffix="png", refused="transparency", **alone)
    yield Case("no-palette png", pillow("P"), "uint8", 3, "png", refused="palette", **alone)


def metadata_tiff(options):
    """Return a writer of metadata that name the axes of what is written."""

    def write(path, sections):
        used = dict(options)
        axes = used.pop("metadata")["axes"][-sections.ndim :]
        stored = sections if len(sections) > 1 else sections[0]
        tifffile.imwrite(
            path, stored, photometric="minisblack", metadata={"axes": axes[-stored.ndim :]}, **used
        )

    return write


CORPUS = list(cases())


def referee(path, case):
    """Read one section by another program."""
    if case.suffix == "tif" and not case.name.startswith(("jpeg-(", "pillow-L", "pillow-RGB")):
        return tifffile.imread(path, key=0)
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_corpus_is_large():
    assert len({case.name for case in CORPUS}) == len(CORPUS) >= 300


@pytest.mark.parametrize("case", mostly_slow(CORPUS, lambda n, _: n % 5 == 0), ids=lambda case: case.name)
def test_an_image(tmp_path, case):
    sections = case.sections
    if "spread" in case.options:
        sections = case.options["spread"](sections)
    folder = tmp_path / "one"
    folder.mkdir()
    paths = [folder / f"{z}.{case.suffix}" for z in range(DEPTH)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for z, path in enumerate(paths):
            case.write(path, sections[z : z + 1])
        if case.has_pages:
            case.write(tmp_path / f"pages.{case.suffix}", sections)
    given = [folder] + [tmp_path / f"pages.{case.suffix}"] * case.has_pages
    if case.refused is not None:
        for path in given:
            with pytest.raises(ImageStackError, match=case.refused) as caught:
                open_stack(path)
            assert str(tmp_path) in str(caught.value)
        return
    if case.suffix != "png":  # pillow cuts colours of 16 bits
        read = np.stack([referee(path, case) for path in paths])
        if read.ndim == 4 and read.shape[1] == 3:
            read = np.moveaxis(read, 1, -1)
        if case.lossy:
            sections = read
        np.testing.assert_array_equal(read, sections)
    expected = sections.T.reshape(case.channels, WIDTH, HEIGHT, DEPTH)
    low, high = BOX.topleft, BOX.bottomright
    for path in given:
        stack = open_stack(path)
        assert (stack.dtype, stack.shape) == (case.dtype, expected.shape)
        np.testing.assert_array_equal(stack.read(0, DEPTH), expected, err_msg="whole")
        np.testing.assert_array_equal(
            select(stack, BOX).read(0, DEPTH), expected[:, low.x : high.x, low.y : high.y], err_msg="box"
        )
