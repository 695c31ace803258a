"""Exports as jobs: what is there is kept, what was killed is resumed, what fails leaves nothing half done."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile

from wkdask import Dataset
from wkdask.errors import (
    AlreadyExistsError,
    InvalidValueError,
    JobRunningError,
    PlanError,
    ResumeError,
    SpaceError,
    TaskFailedError,
    WkdaskWarning,
)
from wkdask.export import job as job_module
from wkdask.export.folder import ExportFolder, Manifest, held_folder
from wkdask.export.job import plan_export
from wkdask.export.writer import slabs
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.jobs.engines.local import LocalEngine
from wkdask.jobs.events import JobFinished, JobStarted, UnitDone
from wkdask.storage.wkw.mag import WkwMag

TARGETS = {
    "sections": "tiff",
    "a.tif": "tiff",
    "a.ozx": "ozx",
    "a.nrrd": "nrrd",
    "a.npy": "npy",
    "png": "png",
}


@pytest.fixture
def mag(make_mag, random_voxels):
    made = make_mag(chunk=16, cube=32, compression="lz4")
    made.write(random_voxels((40, 30, 90)), offset=(3, 2, 5), progress=False)
    return made


def content(path):
    """Return what is at a path: of a folder, all files in it."""
    path = Path(path)
    if path.is_dir():
        return {each.name: each.read_bytes() for each in path.iterdir()}
    return path.read_bytes()


def hidden(folder):
    return sorted(name for name in os.listdir(folder) if name.startswith("."))


@pytest.fixture
def units(monkeypatch):
    """Return the units that are made from now on."""
    made, real = [], job_module.export_unit
    held = threading.Lock()

    def export_unit(writer, folder, number, unit, cubes):
        report = real(writer, folder, number, unit, cubes)
        with held:
            made.append(unit)
        return report

    monkeypatch.setattr(job_module, "export_unit", export_unit)
    return made


# --- slabs -------------------------------------------------------------------------------------------------


def test_each_chunk_is_decoded_once(tmp_path, mag, monkeypatch):
    boxes, real = [], WkwMag.read

    def read(self, box, threads=1):
        boxes.append(box)
        return real(self, box, threads)

    monkeypatch.setattr(WkwMag, "read", read)
    for name, kind in TARGETS.items():
        if kind == "ozx":  # its shards begin at the corner of the box
            continue
        boxes.clear()
        mag.export(tmp_path / name, kind, progress=False)
        assert sum(box.size.z for box in boxes) == 90
        assert all(box.topleft.z % 16 == 0 or box.topleft.z == 5 for box in boxes)


def test_slabs_fit_into_memory_or_are_refused(mag):
    from wkdask.export.extract import Extract
    from wkdask.geometry.voxel_size import VoxelSize

    extract = Extract(mag.place.store, mag.box, "color", mag.mag, VoxelSize((1, 1, 1)))
    section = 40 * 30
    for memory, depth in [
        (None, 16),
        (100 * section, 16),
        (20 * section, 16),
        (19 * section, 8),
        (5 * section, 1),
    ]:
        cut = slabs(extract, 2, memory, None)
        assert cut.grid.shape.z == depth
        assert memory is None or cut.task_nbytes <= memory
        assert bool(cut.notes) == (depth < 16)
        assert [cut.number(unit) for unit in cut.units()] == list(range(len(cut)))
        assert sum(unit.size.z for unit in cut.units()) == 90
    with pytest.raises(PlanError, match="one section"):
        slabs(extract, 2, 5 * section - 1, None)


def test_a_plan_says_what_it_takes(tmp_path, mag):
    plan = plan_export(mag.place, mag.box, tmp_path / "a.npy", None, LocalEngine(2))
    assert "90" not in str(len(plan.cut))
    assert f"{len(plan.cut)} tasks" in repr(plan)
    assert "neither voxel size nor offset" in repr(plan)
    assert os.listdir(tmp_path) == ["dataset0"]


# --- events ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_progress_counts_cubes_and_bytes(tmp_path, mag, name):
    events = []
    report = mag.export(tmp_path / name, TARGETS[name], progress=events.append)
    started = events[0]
    done = [event.report for event in events if isinstance(event, UnitDone)]
    assert isinstance(started, JobStarted)
    assert isinstance(events[-1], JobFinished)
    assert (started.action, started.cubes, started.nbytes) == ("exporting", 2 * 1 * 3, 40 * 30 * 90)
    assert len(done) == started.units
    assert sum(each.nbytes for each in done) == report.bytes == started.nbytes
    if name != "a.ozx":
        assert sum(each.cubes for each in done) == started.cubes
    assert hidden(tmp_path) == []


# --- what is there -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_there_is_replaced_only_if_asked(tmp_path, mag, name):
    mag.export(tmp_path / name, TARGETS[name], progress=False)
    first = content(tmp_path / name)
    with pytest.raises(AlreadyExistsError, match="overwrite=True"):
        mag.export(tmp_path / name, TARGETS[name], progress=False)
    with pytest.raises(AlreadyExistsError, match="overwrite=True"):
        mag.export(tmp_path / name, TARGETS[name], progress=False, resume=True)
    assert content(tmp_path / name) == first
    mag.write(np.zeros((9, 9, 9), "uint8"), offset=(3, 2, 5), progress=False)
    mag.export(tmp_path / name, TARGETS[name], progress=False, overwrite=True)
    assert content(tmp_path / name) != first
    assert hidden(tmp_path) == []


def test_files_that_stay_beside_the_new_ones_are_told(tmp_path, mag):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other.txt").write_text("mine")
    with pytest.warns(WkdaskWarning, match=r"1 other file, such as other\.txt"):
        mag.export(tmp_path / "out", "tiff", progress=False)
    assert len(os.listdir(tmp_path / "out")) == 91


def test_folders_and_files_are_not_mistaken(tmp_path, mag):
    (tmp_path / "a.npy").mkdir()
    (tmp_path / "png").write_text("")
    with pytest.raises(AlreadyExistsError, match="is a folder"):
        mag.export(tmp_path / "a.npy", progress=False)
    with pytest.raises(AlreadyExistsError, match="is a file"):
        mag.export(tmp_path / "png", "png", progress=False)
    with pytest.raises(InvalidValueError, match="there is no folder"):
        mag.export(tmp_path / "nowhere" / "a.npy", progress=False)
    assert hidden(tmp_path) == []


def test_two_exports_into_one_target_exclude_each_other(tmp_path, mag):
    with held_folder(str(tmp_path / "a.npy")), pytest.raises(JobRunningError, match=r"a\.npy"):
        mag.export(tmp_path / "a.npy", progress=False)


def test_room_is_checked_first(tmp_path, mag, monkeypatch):
    monkeypatch.setattr(job_module, "free_bytes", lambda path: 40 * 30 * 90 - 1)
    with pytest.raises(SpaceError, match="105 KiB"):
        mag.export(tmp_path / "a.npy", progress=False)
    assert os.listdir(tmp_path) == ["dataset0"]
    with pytest.warns(WkdaskWarning, match="may fit"):
        mag.export(tmp_path / "a.tif", progress=False)


def test_a_full_disk_leaves_nothing(small_disk, mag, random_voxels, monkeypatch):
    mag.write(random_voxels((200, 200, 90)), offset=(0, 0, 0), progress=False)
    monkeypatch.setattr(job_module, "free_bytes", lambda path: 1 << 40)
    for name, kind in (("a.tif", "tiff"), ("png", "png")):
        with pytest.raises(TaskFailedError, match="No space left"):
            mag.export(small_disk / name, kind, progress=False)
        done = ExportFolder.of(str(small_disk / name)).done(1 << 40)
        whole = [each for each in small_disk.rglob("*.png") if not each.name.startswith(".")]
        assert all(each.stat().st_size > 0 for each in whole)
        assert bool(done or whole) == bool(hidden(small_disk))
        assert not (small_disk / "a.tif").exists()
        for each in hidden(small_disk):
            os.system(f"rm -r {small_disk / each}")


# --- damage, and kills -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_damage_is_named_and_the_rest_can_be_resumed(tmp_path, mag, units, name):
    damaged = mag.place.store.cube_path(Vec3Int(0, 0, 2))
    whole = Path(damaged).read_bytes()
    Path(damaged).write_bytes(whole[:-7])
    with pytest.raises(TaskFailedError, match=r"z2/.*\.wkw") as raised:
        mag.export(tmp_path / name, TARGETS[name], progress=False)
    before = list(units)
    assert not (tmp_path / name).is_file()
    made = bool(before) or (tmp_path / name).is_dir()
    assert made == any("--resume" in note for note in getattr(raised.value, "__notes__", ()))
    Path(damaged).write_bytes(whole)
    os.utime(damaged, ns=(1, 1))
    assert made == bool(hidden(tmp_path))


SCRIPT = """
import os, signal, dask
from wkdask.export.folder import ExportFolder
real, left = ExportFolder.note, [2]
def note(self, number):
    real(self, number)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
ExportFolder.note = note
mag = wkdask.Dataset(args[0]).get_layer("layer").get_mag(1)
with dask.config.set(num_workers=1):
    mag.export(args[1], args[2], progress=False, resume=True)
"""


@pytest.mark.parametrize("name", TARGETS)
def test_a_killed_export_goes_on(tmp_path, make_mag, random_voxels, children, units, name):
    mag = make_mag(chunk=16, cube=32)
    size = (600, 30, 90) if name == "a.ozx" else (40, 30, 90)
    mag.write(random_voxels(size), progress=False)
    mag.export(tmp_path / f"expected-{name}", TARGETS[name], progress=False)
    expected, number = content(tmp_path / f"expected-{name}"), len(units)
    ended = children.wait(children.start(SCRIPT, mag.layer.dataset.path, tmp_path / name, TARGETS[name]))
    assert ended.code == -9, ended.out
    assert not (tmp_path / name).is_file()
    if (tmp_path / name).is_dir():  # whatever is there is whole
        there = content(tmp_path / name)
        assert {path: data for path, data in there.items() if path[0] != "."}.items() <= expected.items()
        with pytest.raises(AlreadyExistsError, match="--resume"):
            mag.export(tmp_path / name, TARGETS[name], progress=False)
    (folder,) = hidden(tmp_path)
    assert len(ExportFolder(str(tmp_path / folder)).done(1 << 40)) == 2
    with pytest.raises(ResumeError, match="another export"):
        mag.export(
            tmp_path / name, TARGETS[name], size=(5, 5, 90), offset=(0, 0, 0), progress=False, resume=True
        )
    units.clear()
    mag.export(tmp_path / name, TARGETS[name], progress=False, resume=True)
    assert len(units) == number - 2
    assert content(tmp_path / name) == expected
    units.clear()
    report = mag.export(tmp_path / name, TARGETS[name], progress=False, resume=True)
    assert report.was_finished
    assert units == []
    mag.write(np.full((1, 1, 1), 77, "uint8"), offset=(0, 0, 0), progress=False)
    with pytest.raises(ResumeError, match="have changed"):
        mag.export(tmp_path / name, TARGETS[name], progress=False, resume=True)


def test_a_refused_call_leaves_an_export_that_stopped_as_it_is(tmp_path, mag):
    with held_folder(str(tmp_path / "out")) as folder:  # killed before its first unit was noted
        folder.begin(Manifest("key", (1, 1, 16)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "layer_00005.tif").write_bytes(b"whole")
    with pytest.raises(AlreadyExistsError, match="--resume"):
        mag.export(tmp_path / "out", "tiff", progress=False)
    with pytest.raises(ResumeError, match="another export"):
        mag.export(tmp_path / "out", "tiff", progress=False, resume=True)
    assert ExportFolder.of(str(tmp_path / "out")).manifest == Manifest("key", (1, 1, 16))
    mag.export(tmp_path / "out", "tiff", progress=False, overwrite=True)
    assert hidden(tmp_path) == []


def test_a_journal_that_was_cut_off(tmp_path):
    with held_folder(str(tmp_path / "a")) as folder:
        folder.note(3)
        folder.note(12)
        journal = Path(folder.path) / "journal"
        journal.write_bytes(journal.read_bytes()[:-2])  # of 12 only the 1 is left
        assert folder.done(100) == {3}
        folder.note(7)
        assert folder.done(100) == {3, 7}
        assert folder.done(5) == {3}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["symlink", "link", "mkfifo"])
@pytest.mark.parametrize("name", ["manifest.json", "journal", "whole"])
def test_nothing_counts_in_the_folder_of_an_export_into_which_others_put_something(tmp_path, mag, kind, name):
    mag.export(tmp_path / "expected.npy", progress=False)
    mag.export(tmp_path / "a.npy", progress=False, resume=True)
    (tmp_path / "a.npy").unlink()  # so that it looks as if the export had not ended
    folder, stranger = tmp_path / ".a.npy.wkdask-export", tmp_path / "stranger"
    stranger.write_bytes((folder / name).read_bytes() if name == "manifest.json" else b"mine")
    before = stranger.read_bytes()
    (folder / name).unlink(missing_ok=True)
    getattr(os, kind)(*[stranger] * (kind != "mkfifo"), folder / name)
    mag.export(tmp_path / "a.npy", progress=False, resume=True)
    assert content(tmp_path / "a.npy") == content(tmp_path / "expected.npy")
    assert stranger.read_bytes() == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_link_in_place_of_the_folder_of_an_export_is_not_followed(tmp_path, mag, resume):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one.jpg").write_bytes(b"mine")
    (tmp_path / ".a.npy.wkdask-export").symlink_to(tmp_path / "photos")
    with pytest.raises(AlreadyExistsError, match="is a link"):
        mag.export(tmp_path / "a.npy", progress=False, resume=resume)
    assert content(tmp_path / "photos") == {"one.jpg": b"mine"}
    assert not (tmp_path / "a.npy").exists()


def test_a_manifest_that_is_damaged_is_none(tmp_path):
    with held_folder(str(tmp_path / "a")) as folder:
        for text in (
            "",
            "[]",
            "{",
            '{"version": 1}',
            '{"version": 2, "key": "", "unit": [1,1,1], "files": 0, "bytes": 0}',
        ):
            (Path(folder.path) / "manifest.json").write_text(text)
            assert folder.manifest is None


def test_empty_slabs_are_holes(tmp_path, make_mag):
    mag = make_mag(chunk=16, cube=32)
    mag.write(np.full((32, 32, 32), 7, "uint8"), offset=(0, 0, 0), progress=False)
    mag.layer.bounding_box = BoundingBox((0, 0, 0), (32, 32, 32 << 12))
    mag.export(tmp_path / "a.npy", progress=False)
    info = os.stat(tmp_path / "a.npy")
    assert info.st_size > 100 << 20
    assert info.st_blocks * 512 < 1 << 20
    assert np.load(tmp_path / "a.npy", mmap_mode="r")[0, 3, 3, 31] == 7


# --- where it runs -----------------------------------------------------------------------------------------


@pytest.mark.cluster
@pytest.mark.parametrize("name", TARGETS)
def test_on_a_cluster(tmp_path, mag, local_cluster, name):
    from distributed import Client

    mag.export(tmp_path / f"threads-{name}", TARGETS[name], progress=False)
    with Client(local_cluster) as client:
        mag.export(tmp_path / f"cluster-{name}", TARGETS[name], client=client, progress=False)
    assert content(tmp_path / f"cluster-{name}") == content(tmp_path / f"threads-{name}")


# --- the command -------------------------------------------------------------------------------------------


def test_the_command(tmp_path, mag, invoke):
    dataset, out = mag.layer.dataset.path, tmp_path / "out"
    part = ("--bbox", "3,2,5,40,30,10", "--name", "{n}.tif")
    assert "Files" in invoke("export", dataset, out, "--format", "tiff", *part)
    assert sorted(os.listdir(out))[0] == "0.tif"
    np.testing.assert_array_equal(tifffile.imread(out / "4.tif"), mag.read()[0, :, :, 4].T)
    assert "neither voxel size" in invoke("export", dataset, tmp_path / "a.npy", "--dry-run")
    assert not (tmp_path / "a.npy").exists()
    assert "Note: a .npy file" in invoke("export", dataset, tmp_path / "a.npy", "--resume")
    assert "nothing was done" in invoke("export", dataset, tmp_path / "a.npy", "--resume")
    assert "--overwrite" in invoke("export", dataset, out, "--format", "tiff", *part, code=1)
    Dataset(dataset).add_layer("second", "color").add_mag(1)
    assert "--layer names it" in invoke("export", dataset, tmp_path / "b.npy", code=2)
