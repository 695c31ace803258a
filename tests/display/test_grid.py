"""The drawing of the grid of cubes: borders where they are, and few of them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reprs import tags

from wkdask import BoundingBox, Vec3Int
from wkdask.display.grid import MAX_CELLS, cube_cuts, grid_svg


@pytest.mark.parametrize(
    ("low", "length", "side", "cuts"),
    [
        (0, 64, 32, [0.5]),
        (0, 32, 32, []),
        (0, 33, 32, [32 / 33]),
        (16, 64, 32, [0.25, 0.75]),
        (31, 2, 32, [0.5]),
        (100, 20, 1024, []),
    ],
)
def test_borders_lie_on_the_absolute_grid(low, length, side, cuts):
    box = BoundingBox((0, 0, low), (1, 1, length))
    assert cube_cuts(box, Vec3Int(side, side, side), 2) == (cuts, 1)


def test_where_there_are_many_a_cell_stands_for_several():
    cuts, step = cube_cuts(BoundingBox((0, 0, 0), (3200, 1, 1)), Vec3Int(32, 32, 32), 0)
    assert step == 7  # 100 cubes, 16 cells at most
    assert cuts == pytest.approx([n * 7 / 100 for n in range(1, 15)])


numbers, sizes = st.integers(0, 10**9), st.integers(1, 10**9)


@given(st.tuples(*[numbers] * 3), st.tuples(*[sizes] * 3), st.tuples(*[st.integers(1, 4096)] * 3))
def test_a_drawing_has_few_lines_and_stays_on_its_paper(corner, size, cube):
    svg = grid_svg(BoundingBox(corner, size), Vec3Int(cube), (8.0, 8.0, 30.0), section=0.5)
    tags(svg)
    assert len(svg) < 6000
    (cuts,) = re.findall("<path class='wk-cuts' d='([^']*)'", svg) or [""]
    assert cuts.count("M") <= 3 * MAX_CELLS
    width, height = (float(number) for number in re.search("width='(.*?)' height='(.*?)'", svg).groups())
    for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", svg):
        assert -0.1 <= float(x) <= width
        assert -0.1 <= float(y) <= height


def test_what_it_says():
    svg = grid_svg(BoundingBox((0, 0, 0), (64, 40, 10)), Vec3Int(32, 32, 32), (1, 1, 1))
    text = tags(svg).text
    assert "2 × 2 × 1 cubes" in text
    for word in ("x 64", "y 40", "z 10"):
        assert word in text
    assert "wk-section" not in svg
    many = grid_svg(BoundingBox((0, 0, 0), (3200, 40, 10)), Vec3Int(32, 32, 32), (1, 1, 1))
    assert "every 7/1/1th border drawn" in tags(many).text
