"""The journal: what it notes is known to the next run, whatever the file looks like at its end."""

import json
import os
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wkdask import BoundingBox, Mag
from wkdask.errors import ResumeError
from wkdask.geometry.grid import CubeGrid
from wkdask.geometry.vectors import Vec3Int
from wkdask.jobs.journal import Journal, Stream
from wkdask.jobs.tasks import PlaceReport, UnitReport, merge_reports

BOX = BoundingBox((100, 37, 5), (150, 70, 60))
STREAM = Stream(0, CubeGrid(Vec3Int(32, 32, 64)), BOX)
UNITS = [box for _, box in STREAM.grid.pieces(BOX)]


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
    assert [STREAM.number_of(unit) for unit in UNITS] == list(range(len(STREAM)))


def test_what_was_noted_is_known_and_merged_in_the_next_run(tmp_path):
    chosen = [unit for number, unit in enumerate(UNITS) if number % 3]
    with Journal(str(tmp_path)) as journal:
        for number, unit in enumerate(chosen):
            journal.note(STREAM, report(unit, number))
            journal.note(STREAM, report(unit, number))  # twice counts once
        assert journal.units == 0
    with Journal(str(tmp_path)) as journal:
        assert journal.units == len(chosen)
        assert [unit for unit in UNITS if journal.is_done(STREAM, unit)] == chosen
        expected = merged([report(unit, number) for number, unit in enumerate(chosen)])
        assert journal.merged == expected
        assert not journal.is_whole(STREAM)
        assert not journal.is_done(Stream(1, STREAM.grid, BOX), chosen[0])


def test_numbers_come_back_exactly(tmp_path):
    min_max = [
        (0, 2**64 - 1),
        (-(2**63), 2**63 - 1),
        (0.1, 1e300),
        (None, None),
        (float("nan"), float("inf")),
    ]
    for number, (low, high) in enumerate(min_max):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Journal(str(folder)) as journal:
            journal.note(STREAM, UnitReport(unit=UNITS[0], minimum=low, maximum=high))
        with Journal(str(folder)) as journal:
            assert journal.merged.box is None
            np.testing.assert_equal((journal.merged.minimum, journal.merged.maximum), (low, high))


def test_a_closed_stream_is_over(tmp_path):
    other = Stream(1, STREAM.grid, BOX)
    with Journal(str(tmp_path)) as journal:
        journal.close_stream(STREAM)
        assert journal.is_whole(STREAM)
    with Journal(str(tmp_path)) as journal:
        assert journal.is_whole(STREAM)
        assert all(journal.is_done(STREAM, unit) for unit in UNITS)
        assert not journal.is_whole(other)


@given(
    cut=st.integers(0, 400),
    junk=st.sampled_from(
        [b"", b"\0" * 30, b"[0,", b"null\n", b"[]\n[0,1]\n", b"\xff\n", b'00000000 ["end",0]\n']
    ),
)
def test_a_torn_end_loses_only_what_was_torn(tmp_path_factory, cut, junk):
    folder = tmp_path_factory.mktemp("journal")
    with Journal(str(folder)) as journal:
        for number, unit in enumerate(UNITS[:5]):
            journal.note(STREAM, report(unit, number))
    file = folder / "journal"
    whole = file.read_bytes()
    kept = whole[: max(0, len(whole) - cut)]
    file.write_bytes(kept + junk)
    lines = max(0, kept.count(b"\n") - 2)  # the first two say whose journal it is, and how the stream is cut
    with Journal(str(folder)) as journal:
        assert journal.units == lines
        assert [journal.is_done(STREAM, unit) for unit in UNITS[:5]] == [n < lines for n in range(5)]
        journal.note(STREAM, report(UNITS[7], 7))
    with Journal(str(folder)) as journal:  # what follows a torn end is written over it, not behind it
        assert journal.units == lines + 1
        assert journal.is_done(STREAM, UNITS[7])


def test_the_memory_of_a_long_stream_is_a_bit_per_unit(tmp_path):
    stream = Stream(0, CubeGrid(Vec3Int(1, 1, 1)), BoundingBox((0, 0, 0), (1000, 1000, 1000)))
    assert len(stream) == 10**9
    last = BoundingBox((999, 999, 99), (1, 1, 1))
    with Journal(str(tmp_path)) as journal:
        journal.note(stream, UnitReport(unit=last))
        assert journal.is_done(stream, last)
        assert len(journal._done[0].bits) == 10**8 // 8


def test_a_full_disk_stops_no_job(tmp_path, caplog):
    with Journal(str(tmp_path)) as journal:
        journal.note(STREAM, report(UNITS[0], 0))
        real = journal._descriptor
        journal._descriptor = os.open("/dev/full", os.O_WRONLY)
        journal.note(STREAM, report(UNITS[1], 1))
        os.close(journal._descriptor)
        journal._descriptor = real
        journal.note(STREAM, report(UNITS[2], 2))  # might follow half a line
    assert "could not be resumed" in caplog.text
    with Journal(str(tmp_path)) as journal:
        assert [journal.is_done(STREAM, unit) for unit in UNITS[:3]] == [True, False, False]


# --- what is not believed --------------------------------------------------------------------------------


def lines_of(folder):
    return (folder / "journal").read_bytes().splitlines(keepends=True)


def line(entry):
    """Return an entry as the journal writes it, with the right checksum."""
    text = json.dumps(entry, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def noted(folder, count=5):
    with Journal(str(folder), "job") as journal:
        for number, unit in enumerate(UNITS[:count]):
            journal.note(STREAM, report(unit, number))
        journal.close_stream(STREAM)


def test_a_journal_of_another_job_is_not_believed(tmp_path):
    noted(tmp_path)
    with Journal(str(tmp_path), "another job") as journal:
        assert journal.units == 0
        assert journal.merged is None
        assert not journal.is_whole(STREAM)


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_never_makes_a_unit_done_or_a_box_larger(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("journal")
    with Journal(str(folder), "job") as journal:
        for number, unit in enumerate(UNITS[:5]):
            journal.note(STREAM, report(unit, number))
    data = bytearray((folder / "journal").read_bytes())
    data[place % len(data)] ^= 1 << bit
    (folder / "journal").write_bytes(data)
    with Journal(str(folder), "job") as journal:
        done = [number for number, unit in enumerate(UNITS) if journal.is_done(STREAM, unit)]
        assert done == list(range(journal.units)), "what follows the damage is done again"
        assert journal.units < 6
        if journal.merged is not None:
            assert BOX.contains_bbox(journal.merged.box)


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(lambda unit: [0, 8, list(unit), 1, 1, 1, 1, 0, 1], id="index of another unit"),
        pytest.param(lambda unit: [0, 10**6, list(unit), 1, 1, 1, 1, 0, 1], id="index beyond the box"),
        pytest.param(
            lambda unit: [0, 7, list(unit), [0, 0, 0, 9000, 9000, 9000], 1, 1, 1, 0, 1], id="wrote elsewhere"
        ),
        pytest.param(
            lambda unit: [0, 7, [*unit[:3], 64, 32, 64], 1, 1, 1, 1, 0, 1], id="a unit of another size"
        ),
        pytest.param(
            lambda unit: [3, 7, list(unit), 1, 1, 1, 1, 0, 1], id="a stream that nothing is said of"
        ),
        pytest.param(lambda unit: ["end", 3], id="the end of such a stream"),
        pytest.param(lambda unit: ["lane", 0, [8, 8, 8], [0, 0, 0, 9, 9, 9]], id="a stream cut twice"),
        pytest.param(lambda unit: ["job", "another"], id="another job"),
        pytest.param(
            lambda unit: [0, 7, list(unit), 1, 1, 1, 1, 0, 1, [["/ds", "x", "1", list(unit), 1, 1, 1, 0, 1]]],
            id="wrote into a mag that is not the job's",
        ),
    ],
)
def test_a_sound_line_that_this_job_cannot_have_written_ends_the_journal(tmp_path, entry):
    with Journal(str(tmp_path), "job") as journal:
        journal.note(STREAM, report(UNITS[0], 0))
    with open(tmp_path / "journal", "ab") as file:
        file.write(line(entry(UNITS[7].to_tuple6())))
        file.write(line([0, 1, UNITS[1].to_tuple6(), 1, 1, 1, 1, 0, 1]))
    with Journal(str(tmp_path), "job", {}) as journal:
        assert [journal.is_done(STREAM, unit) for unit in (UNITS[0], UNITS[7], UNITS[1])] == [
            True,
            False,
            False,
        ]
        assert not journal.is_whole(STREAM)
        assert journal.merged.box == UNITS[0]


def test_a_stream_that_is_cut_in_another_way_is_refused(tmp_path):
    noted(tmp_path)
    other = Stream(0, CubeGrid(Vec3Int(64, 32, 64)), BOX)
    with Journal(str(tmp_path), "job") as journal, pytest.raises(ResumeError, match="without resume=True"):
        journal.is_done(other, UNITS[0])


@pytest.mark.parametrize("kind", ["symlink", "second name", "fifo", "folder"])
def test_a_journal_that_is_no_file_of_the_job_is_replaced_and_not_followed(tmp_path, kind):
    victim = tmp_path / "thesis.txt"
    victim.write_text("three years of work")
    folder = tmp_path / "job"
    folder.mkdir()
    match kind:
        case "symlink":
            (folder / "journal").symlink_to(victim)
        case "second name":
            (folder / "journal").hardlink_to(victim)
        case "fifo":
            os.mkfifo(folder / "journal")
        case "folder":
            (folder / "journal").mkdir()
    with Journal(str(folder), "job") as journal:
        assert journal.units == 0
        journal.note(STREAM, report(UNITS[0], 0))
    assert victim.read_text() == "three years of work"
    with Journal(str(folder), "job") as journal:
        assert journal.units == 1
