"""Which mags follow which."""

import itertools

import pytest

from wkdask import BoundingBox, Mag, VoxelSize
from wkdask.errors import InvalidValueError
from wkdask.pyramid.mags import default_coarsest_mag, interpolation_of, mag_chain


@pytest.mark.parametrize(
    ("size", "start", "end", "mode", "chain"),
    [
        ((10.5, 10.5, 24), 1, 16, "anisotropic", "2-2-1 4-4-2 8-8-4 16-16-8"),
        ((10.5, 10.5, 24), 1, 16, "auto", "2-2-1 4-4-2 8-8-4 16-16-8"),
        ((10.5, 10.5, 24), 1, 16, "Anisotropic", "2-2-1 4-4-2 8-8-4 16-16-8"),
        ((10.5, 10.5, 35), 1, 16, "anisotropic", "2-2-1 4-4-1 8-8-2 16-16-4"),
        ((1, 1, 2), "2-2-2", "16-16-8", "anisotropic", "4-4-2 8-8-4 16-16-8"),
        ((1, 1, 4), 1, "16-16-2", "anisotropic", "2-2-1 4-4-1 8-8-2 16-16-2"),
        ((85, 85, 346), 1, 4, "anisotropic", "2-2-1 4-4-1"),
        ((11.24, 11.24, 28), 1, 4, "anisotropic", "2-2-1 4-4-2"),
        ((1, 1, 1), 1, 8, "anisotropic", "2 4 8"),
        ((10.5, 10.5, 24), 1, 8, "isotropic", "2 4 8"),
        ((1, 1, 1), "2-2-1", 8, "isotropic", "4-4-2 8-8-4"),
        ((1, 1, 1), 1, 8, "constant_z", "2-2-1 4-4-1 8-8-1"),
        ((1, 1, 1), "2-2-2", 8, "constant_z", "4-4-2 8-8-2"),
        ((1, 1, 1), 8, 8, "isotropic", ""),
    ],
)
def test_the_chain_of_mags(size, start, end, mode, chain):
    expected = [Mag(word) for word in chain.split()]
    assert mag_chain(Mag(start), Mag(end), VoxelSize(size), mode) == expected


@pytest.mark.parametrize(("start", "end"), [(2, "16-16-2"), (1, "1-1-2"), (1, "4-4-16")])
def test_mags_that_cannot_be_reached(start, end):
    with pytest.raises(InvalidValueError, match="cannot be reached"):
        mag_chain(Mag(start), Mag(end), VoxelSize((10.5, 10.5, 24)))


def test_unknown_words():
    with pytest.raises(InvalidValueError, match="anisotropic, isotropic, constant_z"):
        mag_chain(Mag(1), Mag(4), VoxelSize((1, 1, 1)), "sideways")
    with pytest.raises(InvalidValueError, match="median"):
        interpolation_of("bilinearish", False)
    assert interpolation_of("DEFAULT", True) == "mode"
    assert interpolation_of("default", False) == "median"
    assert interpolation_of("Max", False) == "max"
    assert interpolation_of("Bicubic", False) == "bicubic"
    for word in ("bilinear", "bicubic"):
        with pytest.raises(InvalidValueError, match="ids"):
            interpolation_of(word, True)


def test_a_chain_does_not_go_back():
    with pytest.raises(InvalidValueError, match="finer"):
        mag_chain(Mag(8), Mag(4), VoxelSize((1, 1, 1)))


@pytest.mark.parametrize("size", [(4, 4, 1), (1, 1, 1), (1, 3, 9), (11, 1, 2)])
@pytest.mark.parametrize("start", ["1", "4-4-1", "1-4-2"])
def test_no_two_mags_have_one_largest_component(size, start):
    """A step that only lets a shorter axis catch up is left out; the chain goes on from where it led."""
    chain = [Mag(start), *mag_chain(Mag(start), Mag(16), VoxelSize(size))]
    for before, after in itertools.pairwise(chain):
        assert after.max_dim == 2 * before.max_dim
        assert all(b >= a for a, b in zip(before.to_vec3_int(), after.to_vec3_int(), strict=True))
    assert chain[-1].max_dim == 16


@pytest.mark.parametrize(
    ("side", "coarsest"),
    [(1, 4), (256, 4), (400, 4), (401, 8), (4096, 64), (32768, 512), (65536, 1024), (262144, 4096)],
)
def test_the_default_coarsest_mag(side, coarsest):
    for size in [(side, 1, 1), (1, side, 1), (side, side, 10 * side)]:
        assert default_coarsest_mag(BoundingBox((5, 6, 7), size)) == Mag(coarsest)
