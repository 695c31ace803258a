"""The order of sections by their names, the numbers that are missing, and names of tiles."""

import cProfile
import math
import os
import random
from itertools import pairwise

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

import wkdask
from wkdask.convert.images import convert_images, plan_images
from wkdask.errors import ImageStackError, InvalidValueError, WkdaskWarning
from wkdask.external.images.numbering import natural_key, put_in_order
from wkdask.external.images.selection import select
from wkdask.external.images.stack import open_stack
from wkdask.external.images.tile_names import refuse_tiles
from wkdask.geometry import BoundingBox


def ordered(names):
    """Order names given in another order; return them, and the order."""
    paths = [f"/data/{name}.tif" for name in names]
    order = put_in_order(sorted(random.Random(3).sample(paths, len(paths)), key=natural_key))
    return [path.removeprefix("/data/").removesuffix(".tif") for path in order.paths], order


# ---- order

ORDERS = {
    "padded": ["s_0001", "s_0002", "s_0010"],
    "not padded": ["s1", "s2", "s10", "s100"],
    "decimals": ["z0.5", "z1.25", "z1.3"],
    "decimals of one length": ["z0.25", "z0.50", "z0.75", "z1.00"],
    "decimals and whole": ["z1", "z1.5", "z2", "z10.25"],
    "negative": ["z-10", "z-5", "z0", "z5", "z10"],
    "negative decimals": ["p-1.5", "p-0.25", "p0.3", "p1"],
    "nothing before the sign": ["-2", "-1", "0", "1"],
    "a separator": ["s-1", "s-2", "s-10"],
    "two separators": ["2024-01-02", "2024-01-10", "2024-02-01"],
    "section and tile": ["v1.8", "v1.9", "v1.10", "v1.11", *(f"v2.{k}" for k in range(1, 12))],
    "a version": ["v1.2_s1", "v1.2_s2", "v1.2_s11"],
    "folders": ["a1/s1", "a1/s2", "a2/s1", "a10/s0"],
    "index and place": ["slice_1_z=0.005um", "slice_2_z=0.010um", "slice_10_z=0.050um"],
    "no pattern": ["a1", "a2b", "b", "c3"],
}


@pytest.mark.parametrize("names", ORDERS.values(), ids=ORDERS)
def test_order(names):
    assert ordered(names)[0] == names


def test_decimals_and_negative_numbers_are_told():
    assert ordered(["z0.5", "z1.25", "z1.3"])[1].notes == (
        "numbers in the names are read as decimal ones: 0.5, 1.25, 1.3 ...",
    )
    assert "negative" in ordered(["z-1", "z0"])[1].notes[0]
    assert ordered(["s-1", "s-2"])[1].notes == ordered(["s1", "s10"])[1].notes == ()


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=9, unique=True).map(sorted))
def test_any_negative_and_positive_numbers(numbers):
    if numbers[0] < 0 <= numbers[-1]:
        assert ordered([f"z{number}" for number in numbers])[0] == [f"z{number}" for number in numbers]


@given(st.lists(st.integers(0, 10**20), min_size=3, max_size=20, unique=True).map(sorted), st.integers(0, 30))
def test_gaps_of_any_numbers(numbers, width):
    names = [f"s_{number:0{width}}" for number in numbers]
    found, order = ordered(names)
    assert found == names
    step = math.gcd(*(b - a for a, b in pairwise(numbers)))
    expected = (numbers[-1] - numbers[0]) // step + 1 - len(numbers)
    assert sum(gap.count for gap in order.gaps) == expected
    assert order.doubles == ()


def test_names_of_several_patterns_are_told():
    found, order = ordered(["raw_1", "raw_2", "raw_4", "mask_1", "mask_2", "mask_3"])
    assert found == ["mask_1", "mask_2", "mask_3", "raw_1", "raw_2", "raw_4"]
    assert order.notes == (
        "the names have 2 patterns, which come one after the other: mask_#.tif (3 files), raw_#.tif (3 files)",
    )
    assert {gap.place: gap.count for gap in order.gaps} == {5: 1}
    assert "in natural order" in ordered(["s1", "s1b", "s2", "s2b"])[1].notes[0]
    assert "a/s#.tif (2 files), /data/b/t.tif" in ordered(["a/s1", "a/s2", "b/t"])[1].notes[0]
    assert ordered(["S_1", "s_2", "S_3"])[1].notes == ()
    assert "9 patterns" in (text := ordered([*"abcdefgh", "i1", "i2"])[1].notes[0])
    assert text.endswith("...")
    assert ordered(list("abc"))[1].notes == ()


# ---- gaps and doubles

GAPS = {
    "one": (["s1", "s2", "s4"], {2: 1}, "3 between s2.tif and s4.tif"),
    "several": (["s1", "s5", "s6", "s9"], {1: 3, 3: 2}, "2 to 4 between s1.tif and s5.tif"),
    "steps of ten": (["s10", "s20", "s40"], {2: 1}, "30 between s20.tif and s40.tif"),
    "decimals": (["z0.5", "z1", "z2.0"], {2: 1}, "1.5 between z1.tif and z2.0.tif"),
    "decimals of one length": (["z0.050", "z0.100", "z0.200"], {2: 1}, "0.15 between"),
    "negative": (["z-2", "z-1", "z1"], {2: 1}, "0 between z-1.tif and z1.tif"),
    "index beside a place": (["s1_z0.05", "s2_z0.11", "s4_z0.21"], {2: 1}, "3 between"),
    "date beside an index": (["a_20240101_01", "a_20240309_02", "a_20241231_04"], {2: 1}, "3 between"),
    "in folders": (["b1/s1", "b1/s2", "b2/s3", "b2/s5"], {3: 1}, "4 between /data/b2/s3.tif"),
    "counted in each folder": (["b1/s0", "b1/s1", "b1/s3", "b2/s0", "b2/s1"], {2: 1}, "2 between"),
    "folders that are numbers": (["1/a", "2/a", "4/a"], {2: 1}, "3 between"),
    "of two files": (["s3", "s5"], {1: 1}, "4 between"),
    "none": (["s1", "s2", "s3"], {}, ""),
    "none in steps": (["s0", "s50", "s100"], {}, ""),
    "no pattern": (["a1", "b9"], {}, ""),
    "one file": (["s7"], {}, ""),
}


@pytest.mark.parametrize(("names", "expected", "text"), GAPS.values(), ids=GAPS)
def test_gaps(names, expected, text):
    found, order = ordered(names)
    assert found == names
    assert {gap.place: gap.count for gap in order.gaps} == expected
    assert text in order.gaps_text
    assert order.doubles == ()


def test_doubles():
    found, order = ordered(["s_1", "s_02", "s_2", "s_4"])
    assert found == ["s_1", "s_02", "s_2", "s_4"]
    assert order.doubles == (("/data/s_02.tif", "/data/s_2.tif"),)
    assert {gap.place: gap.count for gap in order.gaps} == {3: 1}
    assert ordered(["1", "01"])[1].doubles == (("/data/01.tif", "/data/1.tif"),)


def test_steps_are_told():
    assert (
        ordered(["s10", "s20", "s40"])[1].text == "3 files, from s10.tif to s40.tif, numbered in steps of 10"
    )
    assert ordered(["z0.5", "z1.0", "z1.5"])[1].text.endswith("steps of 0.5")
    assert ordered(["s1", "s2", "s4"])[1].text == "3 files, from s1.tif to s4.tif"


def test_many_gaps_are_counted():
    text = ordered([f"s{k * k}" for k in range(20)])[1].gaps_text
    assert "342 are missing" in text
    assert "and 13 more gaps" in text
    assert len(text) < 400


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_steps_grow_like_the_names():
    """Twice as many names take about twice as many calls of functions, not four times as many."""

    def calls(paths):
        profile = cProfile.Profile()
        profile.runcall(put_in_order, paths)
        return sum(entry.callcount for entry in profile.getstats())

    paths = [f"/data/slice_{k:06}_z={k / 200:.3f}um.tif" for k in range(8_000) if k != 77]
    assert calls(paths) < 2.5 * calls(paths[:4_000])


def test_many_names_are_put_in_order():
    paths = [f"/data/slice_{k:06}_z={k / 200:.3f}um.tif" for k in range(5_000) if k != 77]
    order = put_in_order(paths)
    assert order.paths == tuple(paths)
    assert [gap.place for gap in order.gaps] == [77]


# ---- what becomes of them


def save(folder, numbers, pages=1):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        image = np.full((pages, 9, 13), number, "uint8")
        tifffile.imwrite(folder / f"s_{number:04}.tif", image, photometric="minisblack", metadata=None)
    return folder


def sections(stack):
    """Return the one value of every section."""
    data = stack.read(0, stack.depth, threads=2)
    assert (data == data[:, :1, :1]).all()
    return data[0, 0, 0].tolist()


def test_gaps_close_keep_refuse(tmp_path):
    save(tmp_path, [1, 2, 3, 4, 6, 7, 10])
    closed = open_stack(tmp_path)
    assert sections(closed) == [1, 2, 3, 4, 6, 7, 10]
    assert closed.order == "7 section(s) of 7 files, from s_0001.tif to s_0010.tif"
    (note,) = closed.notes
    assert "5 between s_0004.tif and s_0006.tif; 8 to 9 between" in note
    assert "3 are missing" in note
    assert "--gaps keep" in note
    kept = open_stack(tmp_path, gaps="keep")
    assert sections(kept) == [1, 2, 3, 4, 0, 6, 7, 0, 0, 10]
    assert "empty sections stay" in kept.notes[0]
    assert kept.digest != closed.digest
    with pytest.raises(ImageStackError, match=r"5 between s_0004\.tif"):
        open_stack(tmp_path, gaps="refuse")
    with pytest.raises(InvalidValueError, match="gaps='fill'"):
        open_stack(tmp_path, gaps="fill")
    assert open_stack(save(tmp_path / "whole", [1, 2, 3]), gaps="refuse").notes == ()


def test_every_range_of_a_stack_with_gaps(tmp_path):
    stack = open_stack(save(tmp_path, [1, 2, 5, 9]), gaps="keep")
    expected = [1, 2, 0, 0, 5, 0, 0, 0, 9]
    for start in range(9):
        for stop in range(start + 1, 10):
            assert stack.read(start, stop)[0, 0, 0].tolist() == expected[start:stop]
            part, first = select(stack, BoundingBox((2, 3, 0), (4, 5, 9))).subset(start, stop)
            assert part.read(first, first + stop - start)[0, 3, 4].tolist() == expected[start:stop]
    assert stack.section_name(3) == "a section that is missing"


def test_empty_sections_stay_empty_when_values_are_rescaled(tmp_path):
    stack = open_stack(save(tmp_path, [100, 102]), gaps="keep")
    data = select(stack, None, "uint8", (-100, 155)).read(0, 3)
    assert data[0, 0, 0].tolist() == [200, 0, 202]


def test_what_cannot_be_kept(tmp_path):
    save(tmp_path / "pages", [1, 3], pages=2)
    with pytest.raises(ImageStackError, match=r"s_0001\.tif.*how many sections"):
        open_stack(tmp_path / "pages", gaps="keep")
    save(tmp_path / "twice", [1, 2])
    (tmp_path / "twice/s_02.tif").write_bytes((tmp_path / "twice/s_0002.tif").read_bytes())
    for gaps in ("keep", "refuse"):
        with pytest.raises(ImageStackError, match=r"same number is in .*s_0002\.tif and .*s_02\.tif"):
            open_stack(tmp_path / "twice", gaps=gaps)
    stack = open_stack(tmp_path / "twice")
    assert sections(stack) == [1, 2, 2]
    assert "same number" in stack.notes[0]


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_a_layer_with_gaps(tmp_path, compression):
    save(tmp_path / "in", [3, 4, 6, 40])
    options = {"compression": compression, "gaps": "keep", "offset": (5, 6, 7)}
    with pytest.warns(WkdaskWarning, match="empty sections stay"):
        plan = plan_images(tmp_path / "in", **options)
    assert plan.plan.box == BoundingBox((5, 6, 7), (13, 9, 38))
    with pytest.warns(WkdaskWarning, match="empty sections stay"):
        convert_images(tmp_path / "in", tmp_path / "ds", voxel_size=(1, 1, 1), progress=False, **options)
    expected = np.zeros((1, 13, 9, 38), "uint8")
    for z, value in ((0, 3), (1, 4), (3, 6), (37, 40)):
        expected[..., z] = value
    np.testing.assert_array_equal(
        wkdask.Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read(), expected
    )


def test_a_refusal_leaves_nothing(tmp_path):
    save(tmp_path / "in", [3, 5])
    with pytest.raises(ImageStackError, match="4 between"):
        convert_images(tmp_path / "in", tmp_path / "ds", voxel_size=(1, 1, 1), gaps="refuse", progress=False)
    assert os.listdir(tmp_path) == ["in"]


# ---- tiles

TILES = {
    "mag/z/y/x": [f"{mag}/{z}/{y}/{x}" for mag in (1, 2) for z in (0, 1) for y in (0, 1) for x in (0, 1)],
    "one mag": [f"1/{z}/{y}/{x}" for z in (0, 1) for y in (0, 1) for x in (0, 1)],
    "z/y/x": [f"{z}/{y}/{x}" for z in range(5) for y in range(2) for x in range(3)],
    "one row": [f"{z}/0/{x}" for z in range(5) for x in range(3)],
    "one column": [f"{z}/{y}/0" for z in range(5) for y in range(3)],
    "letters": [f"z{z:04}/y{y}/x{x}" for z in range(3) for y in range(2) for x in range(2)],
    "row_column_zoom": [f"{z}/{row}_{column}_0" for z in range(3) for row in range(2) for column in range(2)],
    "cubes": [f"mag1/x{x:04}/y{y:04}/z{z:04}/em_mag1_x{x:04}_y{y:04}_z{z:04}" for x in (0, 1) for y in (0, 1)
              for z in (0, 1)],
    "x and y": [f"s{z:03}_x{x}_y{y}" for z in range(2) for x in range(2) for y in range(2)],
    "r and c": [f"s{z:03}_r{row}-c{column}" for z in range(2) for row in range(2) for column in range(2)],
    "row and col": [f"W1_row{row}_col{col}_z{z}" for z in range(2) for row in range(2) for col in range(2)],
}  # fmt: skip


@pytest.mark.parametrize("names", TILES.values(), ids=TILES)
def test_tiles_are_refused(names):
    with pytest.raises(ImageStackError, match=r"is a tile.*--tiles sections"):
        refuse_tiles([f"/data/{name}.png" for name in names])


SECTIONS = {
    "flat": [f"s{z}" for z in range(9)],
    "folders": [f"{batch}/{z}" for batch in range(3) for z in range(4)],
    "dates": [f"2024/{month:02}/{month * 100 + z}" for month in range(3) for z in range(4)],
    "one tile each": [f"1/{z}/0/0" for z in range(9)],
    "one named tile each": [f"{z}/0_0_0" for z in range(9)],
    "a crop": [f"s{z:03}_x100_y200" for z in range(5)],
    "one": ["1/2/3"],
    "words": [f"max{z}_tiny{z}" for z in range(4)],
}


@pytest.mark.parametrize("names", SECTIONS.values(), ids=SECTIONS)
def test_sections_are_no_tiles(names):
    refuse_tiles([f"/data/{name}.png" for name in names])


def test_tiles_as_sections(tmp_path):
    for name in ("0/0/0", "0/0/1", "1/0/0", "1/0/1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(tmp_path / f"{name}.tif", np.ones((4, 4), "uint8"))
    with pytest.raises(ImageStackError, match="z/y/x"):
        open_stack(tmp_path)
    with pytest.raises(ImageStackError, match="z/y/x"):
        convert_images(tmp_path, tmp_path / "ds", voxel_size=(1, 1, 1), progress=False)
    assert not (tmp_path / "ds").exists()
    assert open_stack(tmp_path, tiles="sections").depth == 4
    with pytest.raises(InvalidValueError, match="tiles='mosaic'"):
        open_stack(tmp_path, tiles="mosaic")
