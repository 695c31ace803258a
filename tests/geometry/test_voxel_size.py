"""The size of a voxel: what is accepted, what it is in nanometers, what is refused."""

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wkdask.errors import InvalidValueError
from wkdask.geometry.voxel_size import VoxelSize, format_bytes, format_rate

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # shared cores
FACTORS = st.tuples(*[st.floats(min_value=1e-6, max_value=1e6)] * 3)

ONE_IN_NANOMETERS = {
    "ym": 1e-15,
    "zm": 1e-12,
    "am": 1e-9,
    "fm": 1e-6,
    "pm": 1e-3,
    "nm": 1,
    "µm": 1e3,
    "um": 1e3,
    "mm": 1e6,
    "cm": 1e7,
    "dm": 1e8,
    "m": 1e9,
    "hm": 1e11,
    "km": 1e12,
    "Mm": 1e15,
    "Gm": 1e18,
    "Tm": 1e21,
    "Pm": 1e24,
    "Em": 1e27,
    "Zm": 1e30,
    "Ym": 1e33,
    "Å": 0.1,
    "in": 25.4e6,
    "ft": 304.8e6,
    "yd": 914.4e6,
    "mi": 1609.344e9,
    "pc": 648000 / math.pi * 149597870700 * 1e9,
}


def test_the_unit_is_the_nanometer_by_default():
    size = VoxelSize((4.6, 4.6, 45))
    assert size.unit == "nanometer"
    assert size.factor == (4.6, 4.6, 45.0)
    assert size.to_nanometer() == (4.6, 4.6, 45.0)


@pytest.mark.parametrize(("short", "nanometers"), ONE_IN_NANOMETERS.items())
def test_short_units(short, nanometers):
    size = VoxelSize((1, 2, 4), short)
    assert size.to_nanometer() == pytest.approx((nanometers, 2 * nanometers, 4 * nanometers), rel=1e-14)
    assert VoxelSize((1, 2, 4), size.unit) == size  # the full name is accepted too, and kept


def test_short_units_get_their_full_name():
    assert VoxelSize((1, 1, 1), "um").unit == "micrometer"
    assert VoxelSize((1, 1, 1), "\u00b5m").unit == "micrometer"  # the micro sign
    assert VoxelSize((1, 1, 1), "\u03bcm").unit == "micrometer"  # the Greek letter
    assert VoxelSize((1, 1, 1), "\u00c5").unit == "angstrom"  # the letter
    assert VoxelSize((1, 1, 1), "\u212b").unit == "angstrom"  # the sign
    assert VoxelSize((1, 1, 1), "Mm").unit == "megameter"  # case matters
    assert VoxelSize((1, 1, 1), "mm").unit == "millimeter"


@PATIENT
@given(FACTORS)
def test_factors_stay_as_they_are(factor):
    assert VoxelSize(factor).factor == factor
    assert VoxelSize(list(factor)) == VoxelSize(np.array(factor)) == VoxelSize(factor)
    assert hash(VoxelSize(list(factor))) == hash(VoxelSize(factor))
    for size in (VoxelSize(factor, "um"), VoxelSize(factor)):
        assert pickle.loads(pickle.dumps(size)) == size
        assert copy.deepcopy(size) == size


def test_factors_are_plain_floats():
    size = VoxelSize(np.array([4, 4, 40], dtype=np.int16))
    assert [type(part) for part in size.factor] == [float, float, float]


@pytest.mark.parametrize(
    "factor",
    [
        (0, 1, 1),
        (1, -1, 1),
        (1, 1, math.nan),
        (1, math.inf, 1),
        (1, 1),
        (1, 1, 1, 1),
        (),
        4.6,
        None,
        "123",  # not one, two, three
        ("4", "4", "40"),
        (True, 1, 1),
        (10**400, 1, 1),
        (1j, 1, 1),
        (None, 1, 1),
        [[1, 1, 1]],
    ],
    ids=repr,
)
def test_bad_factors_are_refused(factor):
    with pytest.raises(InvalidValueError, match="three positive numbers"):
        VoxelSize(factor)


@pytest.mark.parametrize("unit", ["lightyear", "", "NM", " nm", "nanometers", None, 1, ["nm"]], ids=repr)
def test_unknown_units_are_refused(unit):
    with pytest.raises(InvalidValueError, match=r"unknown unit .* known are .*nanometer, micrometer"):
        VoxelSize((1, 1, 1), unit)


def test_frozen():
    size = VoxelSize((1, 1, 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        size.unit = "meter"


def test_text():
    assert str(VoxelSize((4.6, 4.6, 45))) == "4.6 × 4.6 × 45 nm"
    assert str(VoxelSize((0.5, 0.5, 1), "um")) == "0.5 × 0.5 × 1 µm"
    assert str(VoxelSize((1, 1, 1), "pc")) == "1 × 1 × 1 parsec"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0 B", 0),
        ("999 B", 999),
        ("0.977 KiB", 1000),
        ("1.5 KiB", 1536),
        ("999 KiB", 999 * 2**10),
        ("0.976 MiB", int(999.6 * 2**10)),
        ("64 MiB", 2**26),
        ("8 GiB", 2**33),
        ("1 TiB", 2**40),
        ("1500 TiB", 1500 * 2**40),
        ("-2 KiB", -2048),
    ],
)
def test_bytes_as_text(text, count):
    assert format_bytes(count) == text


def test_rates_as_text():
    assert format_rate(850e6, 1) == "850 MB/s"
    assert format_rate(10**9, 4.0) == "250 MB/s"
    assert format_rate(0, 0) == "0 MB/s"  # nothing done in no time
