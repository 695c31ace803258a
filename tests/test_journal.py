"""The journal: what it notes is known to the next run, whatever the file looks like at its end."""

import os

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wkdask import BoundingBox, Mag
from wkdask.grid import CubeGrid
from wkdask.journal import Journal, Lane
from wkdask.tasks import PlaceReport, UnitReport, merge_reports
from wkdask.vectors import Vec3Int

BOX = BoundingBox((100, 37, 5), (150, 120, 100))
LANE = Lane(0, CubeGrid(Vec3Int(32, 32, 64)), BOX)
UNITS = [box for _, box in LANE.grid.pieces(BOX)]


def report(unit, number):
    others = (PlaceReport("/a b/ds", "läyer", Mag("2-2-1"), unit, 1, 2, 3, -5, 2**64 - 1),)
    return UnitReport(
        unit=unit, box=unit, cubes=2, nbytes=100 + number, file_nbytes=50, minimum=number, maximum=2**64 - 1,
        others=others if number % 2 else (),
    )  # fmt: skip


def merged(reports):
    total = reports[0]
    for other in reports[1:]:
        total = merge_reports(total, other)
    return total


def test_units_are_numbered_x_fastest_without_gaps():
    assert [LANE.number_of(unit) for unit in UNITS] == list(range(len(LANE)))


def test_what_was_noted_is_known_and_merged_in_the_next_run(tmp_path):
    chosen = [unit for number, unit in enumerate(UNITS) if number % 3]
    with Journal(str(tmp_path)) as journal:
        for number, unit in enumerate(chosen):
            journal.note(LANE, report(unit, number))
            journal.note(LANE, report(unit, number))  # twice counts once
        assert journal.units == 0
    with Journal(str(tmp_path)) as journal:
        assert journal.units == len(chosen)
        assert [unit for unit in UNITS if journal.is_done(LANE, unit)] == chosen
        expected = merged([report(unit, number) for number, unit in enumerate(chosen)])
        assert journal.merged == expected
        assert not journal.is_whole(LANE)
        assert not journal.is_done(Lane(1, LANE.grid, BOX), chosen[0])


def test_numbers_come_back_exactly(tmp_path):
    extremes = [
        (0, 2**64 - 1),
        (-(2**63), 2**63 - 1),
        (0.1, 1e300),
        (None, None),
        (float("nan"), float("inf")),
    ]
    for number, (low, high) in enumerate(extremes):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Journal(str(folder)) as journal:
            journal.note(LANE, UnitReport(unit=UNITS[0], minimum=low, maximum=high))
        with Journal(str(folder)) as journal:
            assert journal.merged.box is None
            np.testing.assert_equal((journal.merged.minimum, journal.merged.maximum), (low, high))


def test_a_closed_lane_is_over(tmp_path):
    other = Lane(1, LANE.grid, BOX)
    with Journal(str(tmp_path)) as journal:
        journal.close_lane(LANE)
        assert journal.is_whole(LANE)
    with Journal(str(tmp_path)) as journal:
        assert journal.is_whole(LANE)
        assert all(journal.is_done(LANE, unit) for unit in UNITS)
        assert not journal.is_whole(other)


@given(
    cut=st.integers(0, 400),
    junk=st.sampled_from([b"", b"\0" * 30, b"[0,", b"null\n", b"[]\n[0,1]\n", b"\xff\n"]),
)
def test_a_torn_end_loses_only_what_was_torn(tmp_path_factory, cut, junk):
    folder = tmp_path_factory.mktemp("journal")
    with Journal(str(folder)) as journal:
        for number, unit in enumerate(UNITS[:5]):
            journal.note(LANE, report(unit, number))
    file = folder / "journal"
    whole = file.read_bytes()
    kept = whole[: max(0, len(whole) - cut)]
    file.write_bytes(kept + junk)
    lines = kept.count(b"\n")
    with Journal(str(folder)) as journal:
        assert journal.units == lines
        assert [journal.is_done(LANE, unit) for unit in UNITS[:5]] == [n < lines for n in range(5)]
        journal.note(LANE, report(UNITS[7], 7))
    with Journal(str(folder)) as journal:  # what follows a torn end is written over it, not behind it
        assert journal.units == lines + 1
        assert journal.is_done(LANE, UNITS[7])


def test_the_memory_of_a_long_lane_is_a_bit_per_unit(tmp_path):
    lane = Lane(0, CubeGrid(Vec3Int(1, 1, 1)), BoundingBox((0, 0, 0), (1000, 1000, 1000)))
    assert len(lane) == 10**9
    last = BoundingBox((999, 999, 99), (1, 1, 1))
    with Journal(str(tmp_path)) as journal:
        journal.note(lane, UnitReport(unit=last))
        assert journal.is_done(lane, last)
        assert len(journal._done[0].bits) == 10**8 // 8


def test_a_full_disk_stops_no_job(tmp_path, caplog):
    with Journal(str(tmp_path)) as journal:
        journal.note(LANE, report(UNITS[0], 0))
        real = journal._descriptor
        journal._descriptor = os.open("/dev/full", os.O_WRONLY)
        journal.note(LANE, report(UNITS[1], 1))
        os.close(journal._descriptor)
        journal._descriptor = real
        journal.note(LANE, report(UNITS[2], 2))  # might follow half a line
    assert "could not be resumed" in caplog.text
    with Journal(str(tmp_path)) as journal:
        assert [journal.is_done(LANE, unit) for unit in UNITS[:3]] == [True, False, False]
