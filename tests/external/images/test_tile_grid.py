"""Tiles side by side are the sections that they were cut from; what does not fit together is refused."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from thorough import examples
from tiff_files import random_image

import wkdask
from wkdask.convert.images import convert_images, plan_images
from wkdask.errors import ImageStackError, TaskFailedError, WkdaskWarning
from wkdask.external.images.selection import open_images, select
from wkdask.external.images.stack import open_stack
from wkdask.geometry import BoundingBox

ROWS, COLUMNS = (0, 20, 40, 47), (0, 32, 50)  # tiles at the ends are smaller

NAMES = {
    "z/y/x": "{z}/{y}/{x}",
    "mag/z/y/x": "1/{z}/{y}/{x}",
    "letters": "z{z:04}/y{y:02}/x{x:02}",
    "catmaid": "{z}/{y}_{x}_0",
    "x and y": "em_z{z:03}_x{x}_y{y}",
    "row and col": "row{y}_col{x}_{z:02}",
    "r and c": "s{z:03}_r{y:02}-c{x:02}",
}


def cut(folder, sections, name="{z}/{y}/{x}", suffix="tif", numbers=None, skip=(), **options):
    """Write sections (z, y, x[, c]) as tiles."""
    for z, section in enumerate(sections):
        for y, (top, bottom) in enumerate(pairwise(ROWS)):
            for x, (left, right) in enumerate(pairwise(COLUMNS)):
                number = z if numbers is None else numbers[z]
                path = folder / f"{name.format(z=number, y=y, x=x)}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                tile = np.ascontiguousarray(section[top:bottom, left:right])
                if (z, y, x) in skip:
                    continue
                if suffix == "tif":
                    tifffile.imwrite(
                        path, tile, photometric="rgb" if tile.ndim == 3 else "minisblack", **options
                    )
                else:
                    Image.fromarray(tile).save(path)
    return folder


def planes(sections):
    channels = 1 if sections.ndim == 3 else sections.shape[3]
    return sections.T.reshape(channels, *sections.T.shape[-3:])


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_tiles_of_every_kind_of_name(tmp_path, name, suffix):
    sections = random_image((12, 47, 50), "uint8")
    stack = open_stack(cut(tmp_path, sections, name, suffix), tiles="join")
    assert stack.shape == (1, 50, 47, 12)
    np.testing.assert_array_equal(stack.read(0, 12, threads=2), planes(sections))
    assert "12 section(s) of 3 x 2 tiles" in stack.order
    assert "side by side" in stack.notes[0]
    with pytest.raises(ImageStackError, match="--tiles join"):
        open_stack(tmp_path)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}])
@pytest.mark.parametrize("channels", [1, 3])
def test_types_and_storage(tmp_path, options, channels):
    sections = random_image((2, 47, 50, 3)[: 3 if channels == 1 else 4], "uint16")
    stack = open_stack(cut(tmp_path, sections, **options), tiles="join")
    np.testing.assert_array_equal(stack.read(0, 2), planes(sections))


@settings(max_examples=examples(60), deadline=None)
@given(data=st.data())
def test_any_box(tmp_path_factory, data):
    sections = random_image((3, 47, 50), "uint16")
    folder = tmp_path_factory.getbasetemp() / "tiles"
    if not folder.exists():
        cut(folder, sections, compression="zlib")
    stack = open_stack(folder, tiles="join")
    low = [data.draw(st.integers(0, n - 1)) for n in (50, 47, 3)]
    size = [data.draw(st.integers(1, n - a)) for n, a in zip((50, 47, 3), low, strict=True)]
    got = select(stack, BoundingBox(low, size)).read(0, size[2])
    high = [a + b for a, b in zip(low, size, strict=True)]
    expected = planes(sections)[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    np.testing.assert_array_equal(got, expected)


def test_only_tiles_of_the_box_are_decoded(tmp_path):
    sections = random_image((2, 47, 50), "uint8")
    cut(tmp_path, sections, suffix="png")
    stack = open_stack(tmp_path, tiles="join")
    (tmp_path / "1/2/1.png").write_bytes(b"gone")
    box = BoundingBox((0, 0, 0), (50, 40, 2))
    np.testing.assert_array_equal(select(stack, box).read(0, 2), planes(sections)[:, :, :40])
    with pytest.raises(ImageStackError, match=r"1/2/1\.png"):
        stack.read(0, 2)


def test_a_layer_of_tiles(tmp_path):
    sections = random_image((5, 47, 50), "uint8")
    cut(tmp_path / "in", sections, numbers=[3, 4, 6, 7, 8])
    options = {"tiles": "join", "gaps": "keep", "bbox": BoundingBox((10, 5, 0), (30, 40, 6))}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        plan = plan_images(tmp_path / "in", **options)
    texts = [str(one.message) for one in told if one.category is WkdaskWarning]
    assert len(texts) == 2
    assert "side by side, 3 x 2 in each section" in texts[0]
    assert "5 between 4 and 6" in texts[1]
    assert plan.plan.box == options["bbox"]
    source = open_images(tmp_path / "in", **options)
    convert_images(source, tmp_path / "ds", voxel_size=(1, 1, 1), progress=False)
    expected = np.insert(sections, 2, 0, axis=0)[:, 5:45, 10:40]
    found = wkdask.Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read()
    np.testing.assert_array_equal(found[0].T, expected)


def test_a_damaged_tile_is_named(tmp_path):
    cut(tmp_path / "in", random_image((2, 47, 50), "uint8"), suffix="png")
    path = tmp_path / "in/1/0/1.png"
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)
    source = open_images(tmp_path / "in", tiles="join")
    with pytest.raises(TaskFailedError, match=r"1/0/1\.png"):
        convert_images(source, tmp_path / "ds", voxel_size=(1, 1, 1), progress=False)


def test_what_does_not_fit_together(tmp_path):
    sections = random_image((3, 47, 50), "uint8")
    cut(tmp_path / "missing", sections, skip={(1, 2, 0)})
    refused(tmp_path / "missing", "'1' the tile at row 2, column 0 is missing")
    cut(tmp_path / "mags", sections, "1/{z}/{y}/{x}")
    cut(tmp_path / "mags", sections // 2, "2/{z}/{y}/{x}")
    refused(tmp_path / "mags", "several mags or stacks", "1, 2")
    cut(tmp_path / "zooms", sections, "{z}/{y}_{x}_0")
    cut(tmp_path / "zooms", sections, "{z}/{y}_{x}_1")
    refused(tmp_path / "zooms", "several mags", "_0, _1")
    cut(tmp_path / "size", sections)
    tifffile.imwrite(tmp_path / "size/1/1/1.tif", sections[0, :19, :18])
    refused(tmp_path / "size", "1/1/1.tif", "18 x 19", "18 x 20")
    cut(tmp_path / "type", sections)
    tifffile.imwrite(tmp_path / "type/1/1/1.tif", sections[0, :20, :18].astype("uint16"))
    refused(tmp_path / "type", "1/1/1.tif", "uint16")
    cut(tmp_path / "section", sections)
    for path in (tmp_path / "section/2").rglob("*.tif"):
        tifffile.imwrite(path, tifffile.imread(path)[:-1])
    refused(tmp_path / "section", "section/2/0/0.tif", "50 x 44", "50 x 47")
    cut(tmp_path / "twice", sections, "{z}/{y}/{x}")
    tifffile.imwrite(tmp_path / "twice/1/1/01.tif", sections[0, :20, :18])
    refused(tmp_path / "twice", "row 1, column 1", "1/1/01.tif", "1/1/1.tif")


def refused(path, *words):
    with pytest.raises(ImageStackError) as caught:
        open_stack(path, tiles="join")
    for word in words:
        assert word in str(caught.value)


def test_images_that_are_no_tiles_are_sections(tmp_path):
    sections = random_image((3, 9, 13), "uint8")
    for z, section in enumerate(sections):
        tifffile.imwrite(tmp_path / f"{z}.tif", section)
    stack = open_stack(tmp_path, tiles="join")
    np.testing.assert_array_equal(stack.read(0, 3), planes(sections))


def test_other_tiles_are_another_job(tmp_path):
    cut(tmp_path / "in", random_image((3, 47, 50), "uint8"))
    digests = {open_stack(tmp_path / "in", tiles="join").digest}
    (tmp_path / "in/1/1/1.tif").rename(tmp_path / "in/1/1/001.tif")
    digests.add(open_stack(tmp_path / "in", tiles="join").digest)
    assert len(digests) == 2
