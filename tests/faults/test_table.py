"""`docs/faults.md` against the tests: 40 rows, each with tests that exist."""

import re

from repository import ROOT


def test_every_fault_has_a_row_and_every_test_in_it_exists():
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    table, zarr = text.split("## The same in Zarr")
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \|$", table, re.MULTILINE)
    assert [int(number) for number, *_ in rows] == list(range(1, 41))
    tests = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    named = [(number, re.findall(r"`(test_\w+)`", last)) for number, _, _, last in rows]
    assert [number for number, names in named if not names] == []
    assert {name for _, names in named for name in names} - tests == set()
    in_zarr = {*re.findall(r"`(test_\w+)`", zarr)}
    assert in_zarr
    assert in_zarr - tests == set()
    # and the other way round: a test of a case is in its case's row
    for name in tests:
        if found := re.match(r"test_case_(\d\d)_", name):
            assert name in dict(named)[str(int(found[1]))], name
