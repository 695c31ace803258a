"""Files of cubes looked at by machine code: it passes by the sound ones, and no others."""

import dask
import pytest
from damage import FAULTS, WKW, cubes, sound_dataset

from wkdask.kernels import layout, scanning
from wkdask.storage.formats import list_cubes, open_mag, scan_cubes

pytestmark = pytest.mark.skipif(not scanning.can_scan(), reason="the system has no statx")

OF_CUBES = [
    (fault, kind)
    for fault in FAULTS
    for kind in WKW
    if kind in fault.formats
    and fault.codes
    and fault.codes <= {"cube-damaged", "cube-trailing", "no-permission"}
    if fault.name.startswith(("cube", "jump", "bytes"))
]


@pytest.fixture
def compiled():
    """Let the kernel work from the first call on."""
    with dask.config.set({"wkdask.compile-after": 0}):
        yield


def scanned(folder, mag="1"):
    store = open_mag(str(folder / "color" / mag))
    return scan_cubes(store, list_cubes(store).places)


@pytest.mark.parametrize("kind", WKW)
def test_sound_cubes_are_passed_by_and_counted(tmp_path, compiled, kind):
    sound_dataset(tmp_path, kind)
    expected = sum(path.stat().st_size for path in cubes(tmp_path))
    assert scanned(tmp_path) == ([], expected)
    assert any(version[0] is scanning._scan for version in layout._ready)  # it was not Python that looked


@pytest.mark.parametrize(
    ("fault", "kind"), OF_CUBES, ids=[f"{fault.name}-{kind}" for fault, kind in OF_CUBES]
)
def test_the_kernel_leaves_to_python_what_is_not_sound(tmp_path, compiled, fault, kind):
    sound_dataset(tmp_path, kind)
    fault.damage(tmp_path)
    suspects, _ = scanned(tmp_path)
    assert len(suspects) == 1
    codes = {"damaged": "cube-damaged", "mode": "no-permission", "trailing": "cube-trailing"}
    assert codes[suspects[0][0]] in fault.codes


def test_a_file_that_is_gone_is_no_finding(tmp_path, compiled):
    sound_dataset(tmp_path, "wkw")
    store = open_mag(str(tmp_path / "color" / "1"))
    places = list_cubes(store).places
    for path in cubes(tmp_path):
        path.unlink()
    assert scan_cubes(store, places) == ([], 0)
