"""A job as one transaction over all that it changes: killed, failed and repeated where it is easiest to err."""

import itertools
import json
import os
import signal
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from thorough import mostly_slow

import wkdask
from wkdask import BoundingBox, Dataset, store
from wkdask.errors import (
    AlreadyExistsError,
    DamagedHeaderError,
    DTypeError,
    InterruptedJobError,
    InvalidValueError,
    PlanError,
    ResumeError,
    TaskFailedError,
    WkdaskWarning,
)
from wkdask.jobs import driver, mag_folders
from wkdask.storage.publish import dead_jobs
from wkdask.storage.publish.jobs import interrupted_jobs, unfinished_jobs

SHAPE = (96, 64, 48)
BOX = BoundingBox((0, 0, 0), SHAPE)
FORMATS = ("wkw", "zarr3", "zarr")
IN_ZARR = pytest.param("zarr3", marks=pytest.mark.slow)
"""Where the format is one more of what WKW shows already."""


def invert(block):
    return 255 - block


def new_mag(path, name="c", data_format="wkw", fill=None):
    """Return mag 1 of a new layer, in cubes of 16³ (Zarr 2: chunks)."""
    ds = Dataset(path) if os.path.exists(path) else Dataset.create(path, (4, 4, 4))
    layer = ds.add_layer(name, "color", data_format=data_format)
    mag = layer.add_mag(1, chunk_shape=16, shard_shape=16)
    if fill is not None:
        mag.write(fill)
    return mag


def voxels_of(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(1, 200, (1, *shape)).astype("uint8")


def killed(children, script, *args):
    """Run a script in a child that is killed by it."""
    ended = children.wait(children.start(PRELUDE + script, *args))
    assert ended.code == -signal.SIGKILL, ended.out


PRELUDE = """
import os, signal
import numpy as np, dask.array as da
import wkdask
from wkdask import BoundingBox, Dataset
import wkdask.jobs.driver as driver, wkdask.jobs.journal as journal

def invert(block):
    return 255 - block

def die(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def die_at(module, name, count):
    real, calls = getattr(module, name), [0]
    def counted(*args, **kwargs):
        calls[0] += 1
        if calls[0] == count:
            die()
        return real(*args, **kwargs)
    setattr(module, name, counted)

def die_while_cubes_are_replaced(count):
    import wkdask.storage.publish.dead_jobs as dead
    begin, replace, seen = dead.JobFolder.begin_second_phase, os.replace, [-10**9]
    def begun(self, state):
        begin(self, state)
        seen[0] = 0
    def replaced(source, target, **more):
        replace(source, target, **more)
        seen[0] += ".wkdask" not in str(target) and "properties" not in str(target)
        if seen[0] == count:
            die()
    dead.JobFolder.begin_second_phase, os.replace = begun, replaced

mag = Dataset(args[0]).get_layer("c").get_mag(1)
"""


# --- in place, exactly once ------------------------------------------------------------------------------

IN_PLACE = {
    "write": "mag.write(255 - mag.to_dask(), resume={resume})",
    "write with pyramid": "mag.write(255 - mag.to_dask(), pyramid=True, resume={resume})",
    "map_cubes": "mag.map_cubes(invert, target=mag, resume={resume})",
    "store": "wkdask.store([(255 - mag.to_dask(), mag)], resume={resume})",
}
MOMENTS = {
    "before the manifest": "die_at(driver, 'job_folders', 1)",
    "while it builds": "die_at(journal.Journal, 'note', 5)",
    "while cubes are replaced": "die_while_cubes_are_replaced(5)",
    "after the last cube": "driver.commit_job = die",
    "before its receipt": "driver.write_receipt = die",
    "after its receipt": "driver.JobFinished = die",
    "after its end": "call = lambda c=call: (c(), die())",
}


@pytest.mark.slow
@pytest.mark.parametrize("data_format", ["wkw", IN_ZARR])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("what", IN_PLACE)
def test_an_in_place_job_is_applied_exactly_once(tmp_path, children, what, moment, data_format):
    voxels = voxels_of()
    mag = new_mag(tmp_path / "ds", data_format=data_format, fill=voxels)
    call = IN_PLACE[what].format(resume=False)
    killed(children, f"call = lambda: {call}\n{MOMENTS[moment]}\ncall()\n", mag.layer.dataset_path)
    children.run(PRELUDE + IN_PLACE[what].format(resume=True), mag.layer.dataset_path)
    layer = Dataset(tmp_path / "ds").get_layer("c")
    assert np.array_equal(layer.get_mag(1).read(), 255 - voxels)
    assert layer.bounding_box == BOX
    if "pyramid" in what:
        check_coarser(layer)
    else:
        assert [str(mag) for mag in layer.mags] == ["1"]
    assert unfinished_jobs(mag.place.store) == []


def check_coarser(layer):
    """The coarser mags are those that another layer of the same voxels gets."""
    ds = layer.dataset
    other = ds.add_layer("other", "color").add_mag(1, chunk_shape=16, shard_shape=16)
    other.write(layer.get_mag(1).read(), pyramid=True)
    assert list(layer.mags) == list(other.layer.mags)
    for mag, view in layer.mags.items():
        assert np.array_equal(view.read(), other.layer.get_mag(mag).read()), mag


@pytest.mark.slow
@pytest.mark.parametrize("what", IN_PLACE)
def test_the_same_call_is_answered_until_the_mag_changes(tmp_path, what):
    voxels = voxels_of()
    mag = new_mag(tmp_path / "ds", fill=voxels)
    space = {"mag": mag, "wkdask": wkdask, "invert": invert}

    def call():
        report = eval(IN_PLACE[what].format(resume=True), space)
        return report[0] if isinstance(report, list) else report

    first = call()
    assert not first.was_finished
    again = call()
    assert again.was_finished
    assert (again.cubes, again.bytes, again.bounding_box) == (first.cubes, first.bytes, first.bounding_box)
    assert "nothing was done" in repr(again)
    assert np.array_equal(mag.read(), 255 - voxels)
    mag.write(voxels[:, :5, :5, :5], offset=(0, 0, 0))
    changed = mag.read()
    assert not call().was_finished
    assert np.array_equal(mag.read(), 255 - changed)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["while cubes are replaced", "after its end"])
@pytest.mark.parametrize("what", [*IN_PLACE, "with another layer"])
def test_an_in_place_job_of_a_dataset_that_was_moved_and_a_layer_that_was_renamed(
    tmp_path, children, what, moment
):
    voxels, more = voxels_of(), voxels_of(1) // 8
    mag = new_mag(tmp_path / "ds", fill=voxels)
    new_mag(tmp_path / "ds", "more", fill=more)
    another = (
        'mag.write(255 - mag.to_dask() + mag.layer.dataset.get_layer("more").get_mag(1).to_dask(), {how})'
    )
    calls = {**IN_PLACE, "with another layer": another.replace("{how}", "resume={resume}")}
    call = calls[what].format(resume=False)
    killed(children, f"call = lambda: {call}\n{MOMENTS[moment]}\ncall()\n", mag.layer.dataset_path)
    Dataset(tmp_path / "ds").get_layer("c").name = "renamed"
    os.rename(tmp_path / "ds", tmp_path / "moved")
    script = PRELUDE.replace('get_layer("c")', 'get_layer("renamed")')
    out = children.run(
        f"{script}report = {calls[what].format(resume=True)}\nprint(getattr(report, 'label', report))",
        tmp_path / "moved",
    )
    assert "layer 'renamed' mag 1" in out
    expected = 255 - voxels + (more if what == "with another layer" else 0)
    assert np.array_equal(Dataset(tmp_path / "moved").get_layer("renamed").get_mag(1).read(), expected)


def test_another_expression_is_another_job(tmp_path):
    voxels = voxels_of()
    mag = new_mag(tmp_path / "ds", fill=voxels)
    mag.write(255 - mag.to_dask(), resume=True)
    assert not mag.write(254 - mag.to_dask(), resume=True).was_finished
    assert np.array_equal(mag.read(), voxels - 1)


# --- what an interrupted job left half replaced ------------------------------------------------------------

READERS = {
    "rechunk": lambda mag, ds: (mag.rechunk(16, 32), ds.get_layer("c").get_mag(1))[1],
    "copy_dataset": lambda mag, ds: ds.copy_dataset(f"{ds.path}-copy").get_layer("c").get_mag(1),
    "add_copy_layer": lambda mag, ds: ds.add_copy_layer(mag.layer, "copy").get_mag(1),
    "add_copy_mag": lambda mag, ds: ds.add_layer("copy", "color").add_copy_mag(mag),
    "compress": lambda mag, ds: (
        mag.compress(f"{ds.path}-packed"),
        Dataset(f"{ds.path}-packed").get_layer("c").get_mag(1),
    )[1],
    "write": lambda mag, ds: written(ds, lambda target: target.write(mag.to_dask() + 0)),
    "store": lambda mag, ds: written(ds, lambda target: store([(mag.to_dask() + 0, target)])),
    "map_cubes": lambda mag, ds: written(ds, lambda target: mag.map_cubes(np.copy, target)),
    "for_each_chunk": lambda mag, ds: (mag.for_each_chunk(lambda args: args[0].read(), (32, 32, 32)), mag)[1],
}


def written(ds, write):
    target = ds.add_layer("target", "color").add_mag(1, chunk_shape=16, shard_shape=16)
    write(target)
    return target


def half_replaced(tmp_path, children, voxels, data_format="wkw"):
    mag = new_mag(tmp_path / "ds", data_format=data_format, fill=voxels)
    killed(
        children, "die_while_cubes_are_replaced(7)\nmag.write(255 - mag.to_dask())\n", mag.layer.dataset_path
    )
    assert interrupted_jobs(mag.place.store)
    return mag


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*half replaced")
@pytest.mark.parametrize("reader", READERS)
def test_no_job_reads_a_mixture(tmp_path, children, reader):
    voxels = voxels_of()
    mag = half_replaced(tmp_path, children, voxels)
    got = READERS[reader](mag, Dataset(tmp_path / "ds"))
    assert np.array_equal(got.read(), 255 - voxels)


def test_downsampling_a_half_replaced_mag(tmp_path, children):
    mag = half_replaced(tmp_path, children, voxels_of())
    mag.layer.downsample(coarsest_mag=4)
    check_coarser(mag.layer)


def test_reading_a_half_replaced_mag_warns(tmp_path, children):
    mag = half_replaced(tmp_path, children, voxels_of())
    with pytest.warns(WkdaskWarning, match="half replaced"):
        mag.read()
    with pytest.warns(WkdaskWarning, match="half replaced"):
        mag.to_dask()
    mag.write(voxels_of()[:, :1, :1, :1], offset=(0, 0, 0))
    mag.read()  # whole again: a warning would be an error here


def test_a_half_replaced_mag_of_a_renamed_layer_in_a_moved_dataset(tmp_path, children):
    voxels = voxels_of()
    half_replaced(tmp_path, children, voxels)
    Dataset(tmp_path / "ds").get_layer("c").name = "renamed"
    os.rename(tmp_path / "ds", tmp_path / "moved")
    other = new_mag(tmp_path / "ds", fill=voxels[:, :7])  # at the old place
    mag = Dataset(tmp_path / "moved").get_layer("renamed").get_mag(1)
    mag.write(voxels[:, :1, :1, :1], offset=(0, 0, 0))
    expected = 255 - voxels
    expected[:, :1, :1, :1] = voxels[:, :1, :1, :1]
    assert np.array_equal(mag.read(), expected)
    assert other.layer.bounding_box == BoundingBox((0, 0, 0), (7, *SHAPE[1:]))


def test_threads_that_come_upon_a_half_replaced_mag_wait_for_each_other(tmp_path, children):
    voxels = voxels_of()
    mag = half_replaced(tmp_path, children, voxels)
    source = new_mag(tmp_path / "ds", "source", fill=voxels)

    def write_elsewhere(args):
        view, _number = args
        block = view.read()
        mag.write(block, offset=view.global_offset)

    with dask.config.set(num_workers=4):
        source.for_each_chunk(write_elsewhere, (32, 32, 32))
    assert np.array_equal(mag.read(), voxels)


def test_a_job_that_is_taken_over_while_its_folder_is_looked_for_is_found(tmp_path, children, monkeypatch):
    mag = half_replaced(tmp_path, children, voxels_of())
    names, seen = dead_jobs._job_names, []

    def renamed_after_a_look(path):
        seen.append(names(path))
        if len(seen) == 1:
            dead_jobs.renamed(f"{path}/.wkdask/{seen[0][0]}")
        return seen[-1]

    monkeypatch.setattr(dead_jobs, "_job_names", renamed_after_a_look)
    assert dead_jobs.has_replacing_job(mag.path)
    assert len(seen) == 2


def test_what_cannot_be_finished_is_said_and_nothing_is_read(tmp_path, children):
    mag = half_replaced(tmp_path, children, voxels_of())
    (built,) = Path(mag.path, ".wkdask").glob("*/built")
    os.rename(built, tmp_path / "gone")
    with pytest.raises(InterruptedJobError, match="damaged or gone"):
        mag.layer.downsample(coarsest_mag=2)
    assert [str(each) for each in mag.layer.mags] == ["1"]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flipped", "empty", "gone", "fifo", "symlink"])
def test_a_half_replaced_mag_whose_manifest_is_damaged_is_refused_and_nothing_is_lost(
    tmp_path, children, damage
):
    mag = half_replaced(tmp_path, children, voxels_of())
    (path,) = Path(mag.path, ".wkdask").glob("*/manifest")
    data = bytearray(path.read_bytes())
    path.unlink()
    match damage:
        case "flipped":
            data[len(data) // 2] ^= 4
            path.write_bytes(data)
        case "empty":
            path.touch()
        case "fifo":
            os.mkfifo(path)
        case "symlink":
            (tmp_path / "elsewhere").write_bytes(data)
            path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InterruptedJobError, match="manifest"):
        mag.write(voxels_of()[:, :1, :1, :1], offset=(0, 0, 0))
    with pytest.raises(InterruptedJobError, match="manifest"):
        mag.layer.downsample(coarsest_mag=2)
    assert list(path.parent.glob("built/*")), "what was built is the only copy"


# --- reads that the graph hides ---------------------------------------------------------------------------


def hidden(mag, kind):
    """Return 255 - mag rolled by a cube, in which the read of the mag cannot be seen."""
    x = da.roll(255 - mag.to_dask(), 16, axis=1)
    match kind:
        case "delayed":
            whole = dask.delayed(lambda: np.roll(255 - mag.read(), 16, axis=1))
            blocks = da.from_delayed(whole(), x.shape, x.dtype)
            return blocks.rechunk((1, 16, 16, 16))
        case "closure":
            lazy = da.zeros((1, *SHAPE), chunks=(1, 16, 16, 16), dtype="uint8")

            def read(block, block_info=None):
                if not block_info:
                    return block
                spans = block_info[None]["array-location"][1:]
                corner = [low for low, _ in spans]
                size = [high - low for low, high in spans]
                corner[0] = (corner[0] - 16) % SHAPE[0]
                return 255 - mag.read(offset=corner, size=size)

            return lazy.map_blocks(read, dtype="uint8", meta=np.empty((0,) * 4, "uint8"))
        case "wrapper":

            class Wrapper:
                shape, dtype, ndim = (1, *SHAPE), np.dtype("uint8"), 4

                def __getitem__(self, index):
                    return np.roll(255 - mag.read(), 16, axis=1)[index]

            return da.from_array(Wrapper(), chunks=(1, 16, 16, 16), name="wrapper")
    return x.persist()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["write", "store", "pyramid"])
@pytest.mark.parametrize("kind", ["delayed", "closure", "wrapper", "persisted"])
def test_reads_that_the_graph_hides(tmp_path, kind, way):
    voxels = voxels_of()
    mag = new_mag(tmp_path / "ds", fill=voxels)
    x = hidden(mag, kind)
    if kind != "persisted":
        assert mag.plan_write(x).reads_target
        assert not mag.plan_write(x, in_place=False).reads_target
    assert not mag.plan_write(x, offset=(256, 0, 0)).reads_target, "there is nothing to be replaced"
    if way == "store":
        store([(x, mag)])
    else:
        mag.write(x, pyramid=way == "pyramid")
    assert np.array_equal(mag.read(), np.roll(255 - voxels, 16, axis=1))


def test_blocks_that_are_persisted_on_a_cluster_are_waited_for(tmp_path, client):
    voxels = voxels_of()
    mag = new_mag(tmp_path / "ds", fill=voxels)
    x = da.roll(255 - mag.to_dask(), 16, axis=1).persist()
    assert mag.plan_write(x).reads_target
    mag.write(x)
    assert np.array_equal(mag.read(), np.roll(255 - voxels, 16, axis=1))


def test_what_the_graph_shows_cannot_be_denied(tmp_path):
    mag = new_mag(tmp_path / "ds", fill=voxels_of())
    with pytest.raises(InvalidValueError, match="reads the mag"):
        mag.write(255 - mag.to_dask(), in_place=False)


@pytest.mark.parametrize("shape", [(64, 64, 64), (20, 64, 13), (16, 16, 16), (33, 1, 7)])
def test_masked_blocks_are_refused_whatever_their_shape(tmp_path, shape):
    mag = new_mag(tmp_path / "ds")
    x = da.ones((1, *shape), chunks=(1, 10, 16, 9), dtype="uint8")
    x = x.map_blocks(lambda block: np.ma.masked_array(block, block > 0), meta=np.empty((0,) * 4, "uint8"))
    with pytest.raises(TaskFailedError) as caught:
        mag.write(x)
    assert isinstance(caught.value.__cause__, DTypeError)
    assert mag.layer.bounding_box.is_empty()


# --- every mag that a job writes ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("grown", [False, True], ids=["fresh", "grown"])
@pytest.mark.parametrize("way", ["store", "map_cubes"])
def test_every_target_is_prepared_and_finished(tmp_path, data_format, grown, way):
    voxels = voxels_of(shape=(64, 40, 40))
    source = new_mag(tmp_path / "ds", "source", fill=voxels)
    targets = [new_mag(tmp_path / "ds", name, data_format) for name in "ab"]
    before = [target.to_dask().name for target in targets]
    if grown:
        for target in targets:
            target.write(np.ones((1, 8, 8, 8), "uint8"))
    if way == "store":
        store([(source.to_dask(), targets[0]), (source.to_dask() + 1, targets[1])])
    else:
        source.map_cubes(lambda block: {"a": block, "b": block + 1}, dict(zip("ab", targets, strict=True)))
    for number, target in enumerate(targets):
        assert np.array_equal(target.read(), voxels + number)
        assert target.to_dask().name != before[number]
        if data_format != "wkw":
            array = zarr.open_array(target.path, mode="r")
            assert np.array_equal(array[:, :64, :40, :40], voxels + number)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["written by another job", "deleted and added again"])
def test_units_are_not_skipped_that_another_job_took_from_a_further_target(tmp_path, children, change):
    voxels = voxels_of()
    path = tmp_path / "ds"
    new_mag(path, "c", fill=voxels)
    a, b = new_mag(path, "a"), new_mag(path, "b")
    call = """
a, b = (Dataset(args[0]).get_layer(name).get_mag(1) for name in "ab")
wkdask.storing.UNIT_NBYTES = 1
die_at(journal.Journal, "note", 9)
wkdask.store([(mag.to_dask(), a, BoundingBox(*args[1])), (mag.to_dask() + 1, b, BoundingBox(*args[1]))])
"""
    killed(children, call, str(path), [list(BOX.topleft), list(BOX.size)])
    assert unfinished_jobs(a.place.store)
    if change == "written by another job":
        b.write(np.full((1, 64, 64, 48), 9, "uint8"), offset=(0, 0, 0))
    else:
        b.layer.delete_mag(1)
        b = b.layer.add_mag(1, chunk_shape=16, shard_shape=16)
    x = Dataset(path).get_layer("c").get_mag(1).to_dask()
    with pytest.warns(WkdaskWarning, match="starts from its beginning"):
        store([(x, a, BOX), (x + 1, b, BOX)], resume=True)
    assert np.array_equal(a.read(), voxels)
    assert np.array_equal(b.read(), voxels + 1)


# --- mags that a job makes ---------------------------------------------------------------------------------

MAKERS = {
    "downsample": "mag.layer.downsample(coarsest_mag=4{resume})",
    "write with pyramid": (
        "mag.write(np.full((1, 32, 64, 48), 7, 'uint8'), offset=(96, 0, 0), pyramid=True{resume})"
    ),
}


@pytest.mark.parametrize("data_format", ["wkw", IN_ZARR])
@pytest.mark.parametrize(
    ("what", "then", "count"),  # every day each call, continued and made again, after each count
    mostly_slow(itertools.product(MAKERS, ["resume", "again"], [1, 2]), lambda n, _: n in (0, 3, 5, 6)),
)
def test_mags_are_listed_when_they_are_whole(tmp_path, children, what, then, count, data_format):
    mag = new_mag(tmp_path / "ds", data_format=data_format, fill=np.full((1, *SHAPE), 7, "uint8"))
    call = MAKERS[what].format(resume=", resume=True")
    killed(
        children, f"die_at(wkdask.pyramid.tasks, 'publish_pieces', {count})\n{call}\n", mag.layer.dataset_path
    )
    layer = Dataset(tmp_path / "ds").get_layer("c")
    assert [str(each) for each in layer.mags] == ["1"], "nobody sees mags that are not whole"
    if then == "again" and what == "downsample":
        with pytest.raises(AlreadyExistsError, match="resume=True"):
            layer.downsample(coarsest_mag=4)
        call = "mag.layer.downsample(coarsest_mag=4, allow_overwrite=True)"
    elif then == "again":
        call = MAKERS[what].format(resume="")
    children.run(PRELUDE + call, mag.layer.dataset_path)
    assert [str(each) for each in layer.mags] == ["1", "2", "4"]
    for each in layer.mags.values():
        assert np.unique(each.read()).tolist() == [7]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), PlanError("no")], ids=["disk", "plan"])
@pytest.mark.parametrize("what", MAKERS)
def test_nothing_was_written_is_true(tmp_path, monkeypatch, what, error):
    mag = new_mag(tmp_path / "ds", fill=np.full((1, *SHAPE), 7, "uint8"))
    before = sorted(path for path in Path(tmp_path).rglob("*") if ".wkdask" not in str(path))

    def refuse(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(driver, "check_space", refuse)
    call = MAKERS[what].format(resume="")
    with pytest.raises(type(error)):
        eval(call, {"mag": mag, "np": np})
    assert sorted(path for path in Path(tmp_path).rglob("*") if ".wkdask" not in str(path)) == before
    assert [str(each) for each in mag.layer.mags] == ["1"]
    monkeypatch.undo()
    eval(call, {"mag": mag, "np": np})
    assert [str(each) for each in mag.layer.mags] == ["1", "2", "4"]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["add_copy_mag", "upsample", "compress"])
def test_other_calls_that_make_a_mag(tmp_path, children, what):
    voxels = voxels_of()
    source = new_mag(tmp_path / "source", fill=voxels)
    layer = Dataset.create(tmp_path / "ds", (4, 4, 4)).add_layer("c", "color")
    layer.add_mag(2, chunk_shape=16, shard_shape=16).write(voxels)
    calls = {
        "add_copy_mag": "layer.add_copy_mag(args[1])",
        "upsample": "layer.upsample(2)",
        "compress": "Dataset(args[0] + '/../source').get_layer('c').get_mag(1).compress(args[0] + '-packed')",
    }
    prelude = PRELUDE.replace('mag = Dataset(args[0]).get_layer("c").get_mag(1)', "")
    prelude += 'layer = Dataset(args[0]).get_layer("c")\n'
    script = f"{prelude}die_at(wkdask.jobs.settlement.JobTally, 'add', 2)\n{calls[what]}\n"
    ended = children.wait(children.start(script, str(tmp_path / "ds"), str(source.path)))
    assert ended.code == -signal.SIGKILL, ended.out
    assert [str(each) for each in layer.mags] == ["2"]
    if what == "add_copy_mag":
        with pytest.raises(DamagedHeaderError, match="not complete"):
            layer.add_mag_for_existing_files(1)
    children.run(prelude + calls[what], str(tmp_path / "ds"), str(source.path))
    if what == "compress":
        got = Dataset(tmp_path / "ds-packed").get_layer("c").get_mag(1).read()
    else:
        got = layer.get_mag(1).read()[:, : 96 if what == "add_copy_mag" else None]
    expected = voxels if what != "upsample" else voxels.repeat(2, 1).repeat(2, 2).repeat(2, 3)
    assert np.array_equal(got[:, :, : expected.shape[2], : expected.shape[3]], expected)


def test_two_writes_that_make_the_same_mags_wait_for_each_other(tmp_path, children):
    mag = new_mag(tmp_path / "ds", fill=np.full((1, 8, 8, 8), 7, "uint8"))
    script = (
        PRELUDE
        + "mag.write(np.full((1, 64, 64, 48), 7, 'uint8'), offset=(64 * args[1], 0, 0), pyramid=True)\n"
    )
    running = [children.start(script, mag.layer.dataset_path, number) for number in (0, 1)]
    for each in running:
        ended = children.wait(each)
        assert ended.code == 0, ended.out
    assert [str(each) for each in mag.layer.mags] == ["1", "2", "4"]
    for each in mag.layer.mags.values():
        assert np.unique(each.read()).tolist() == [7]


# --- boxes, metadata, names ---------------------------------------------------------------------------------


def test_a_compression_that_fails_grows_no_box(tmp_path, monkeypatch):
    voxels = voxels_of(shape=(90, 50, 41))
    mag = new_mag(tmp_path / "ds", fill=voxels)
    replace, calls = os.replace, []

    def fails_once(source, target, **more):
        calls.append(str(target))
        if str(target).endswith(".wkw") and len(calls) > 20:
            raise OSError(28, "No space left on device")
        return replace(source, target, **more)

    monkeypatch.setattr(os, "replace", fails_once)
    with pytest.raises(TaskFailedError):
        mag.compress(compression="lz4")
    assert mag.layer.bounding_box == BoundingBox((0, 0, 0), (90, 50, 41))
    assert np.array_equal(mag.read(), voxels)


@pytest.mark.parametrize("data_format", ["zarr3", "zarr"])
def test_zarr_mags_are_compressed_and_rechunked_in_place_with_their_ome_metadata(tmp_path, data_format):
    voxels = voxels_of()
    mag = new_mag(tmp_path / "ds", data_format=data_format, fill=voxels)
    for change in (
        lambda: mag.rechunk(32, 32 if data_format == "zarr" else 128),
        lambda: mag.rechunk(32, 32 if data_format == "zarr" else 128),  # nothing to do
        lambda: mag.compress(compression="blosc"),
        lambda: mag.rechunk(16, 16 if data_format == "zarr" else 32),
    ):
        change()
        assert np.array_equal(mag.read(), voxels)
        array = zarr.open_array(mag.path, mode="r")
        assert np.array_equal(array[:, : SHAPE[0], : SHAPE[1], : SHAPE[2]], voxels)
        if data_format == "zarr3":
            text = json.loads(Path(mag.layer.path, "zarr.json").read_text())["attributes"]["ome"]
        else:
            text = json.loads(Path(mag.layer.path, ".zattrs").read_text())
        (image,) = text["multiscales"]
        assert [scale["path"] for scale in image["datasets"]] == [os.path.basename(mag.path)]


@pytest.mark.parametrize("moment", ["rename", "remove_folder"])
def test_a_killed_rename_or_removal_is_completed_by_the_next_process(tmp_path, children, moment):
    voxels = voxels_of()
    mag = new_mag(tmp_path / "ds", fill=voxels)
    script = "import wkdask.jobs.folder_edits as edits\n"
    if moment == "rename":
        script += "die_at(edits, '_bring_to_an_end', 2)\nmag.layer.name = 'new'\n"
    else:
        script += "edits.remove_folder = die\nDataset(args[0]).delete_layer('c')\n"
    killed(children, script, mag.layer.dataset_path)
    ds = Dataset(tmp_path / "ds")
    if moment == "rename":
        assert np.array_equal(ds.get_layer("new").get_mag(1).read(), voxels)
        assert not os.path.exists(tmp_path / "ds" / "c")
    else:
        assert list(ds.layers) == []
        ds.add_layer("c", "color").add_mag(1)
    assert not os.path.exists(tmp_path / "ds" / ".wkdask" / "edit")


@pytest.mark.parametrize(
    "note", ['{"remove": ["..", "victim"]}', '{"rename": ["../victim", "x"]}', "{}", "[", "null"]
)
def test_a_note_of_an_edit_cannot_name_anything_else(tmp_path, note):
    (tmp_path / "victim").mkdir()
    mag = new_mag(tmp_path / "ds", fill=voxels_of())
    Path(tmp_path, "ds", ".wkdask", "edit").write_text(note)
    Dataset(tmp_path / "ds")
    assert (tmp_path / "victim").is_dir()
    assert mag.read().any()
    assert not os.path.exists(tmp_path / "ds" / ".wkdask" / "edit")


# --- messages -----------------------------------------------------------------------------------------------


def test_dasks_own_settings_that_cannot_work_are_named(tmp_path):
    mag = new_mag(tmp_path / "ds", fill=voxels_of())
    for number in (0, "3", -1, 2.5, True):
        with dask.config.set(num_workers=number), pytest.raises(InvalidValueError, match="num_workers"):
            mag.write(255 - mag.to_dask())
    with dask.config.set({"array.rechunk.method": "p2p"}):
        x = (255 - mag.to_dask()).rechunk((1, 20, 20, 20))
    with pytest.raises(PlanError, match="p2p"):
        mag.write(x)


def test_a_client_that_is_closed_is_named(tmp_path, local_cluster):
    from distributed import Client

    mag = new_mag(tmp_path / "ds", fill=voxels_of())
    client = Client(local_cluster, set_as_default=False)
    x = (255 - mag.to_dask()).persist(scheduler=client.get)
    client.close()
    with pytest.raises(ConnectionError, match="closed"):
        mag.write(255 - mag.to_dask(), client=client)
    del x


def test_a_job_that_another_call_cannot_be_is_refused_by_name(tmp_path):
    mag = new_mag(tmp_path / "ds", fill=voxels_of())
    random = da.random.random((1, *SHAPE)).astype("uint8")
    with pytest.raises(ResumeError, match="non-deterministic"):
        mag.write(random, resume=True)


def test_waiting_for_another_job_that_makes_mags_is_logged(tmp_path, caplog):
    mag = new_mag(tmp_path / "ds", fill=voxels_of())
    from threading import Event, Thread

    held, free = Event(), Event()

    def hold():
        with mag_folders.making_lock(mag.layer.dataset_path, "c"):
            held.set()
            assert free.wait(60)

    thread = Thread(target=hold)
    thread.start()
    assert held.wait(60)

    class Freeing:
        """Lets the other job end when this one says that it waits."""

        def emit(self, record):
            if "waiting for another job" in record.getMessage():
                free.set()

    import logging

    handler = logging.Handler()
    handler.emit = Freeing().emit
    logging.getLogger("wkdask.jobs.mag_folders").addHandler(handler)
    try:
        mag.layer.downsample(coarsest_mag=2)
    finally:
        free.set()
        thread.join()
        logging.getLogger("wkdask.jobs.mag_folders").removeHandler(handler)
    assert [str(each) for each in mag.layer.mags] == ["1", "2"]


def test_a_doubt_whether_the_mag_was_replaced_by_this_job_is_refused(tmp_path, children):
    voxels = voxels_of()
    mag = new_mag(tmp_path / "ds", fill=voxels)
    killed(children, "driver.commit_job = die\nmag.write(255 - mag.to_dask())\n", mag.layer.dataset_path)
    (manifest,) = Path(mag.path, ".wkdask").glob("*/manifest")
    kept = manifest.read_bytes()
    manifest.unlink()
    with pytest.raises(ResumeError, match="damaged or gone"):
        mag.write(255 - mag.to_dask(), resume=True)
    manifest.write_bytes(kept)
    mag.write(255 - mag.to_dask(), resume=True)
    assert np.array_equal(mag.read(), 255 - voxels)
    (receipt,) = Path(mag.path, ".wkdask", "finished").iterdir()
    receipt.write_bytes(receipt.read_bytes()[:-9])
    with pytest.raises(ResumeError, match="receipt"):
        mag.write(255 - mag.to_dask(), resume=True)
    assert np.array_equal(mag.read(), 255 - voxels)


@pytest.mark.parametrize("then", ["rechunk", "compress"])
def test_a_job_of_which_only_the_commit_is_left_is_settled_by_the_next_one(tmp_path, children, then):
    voxels = voxels_of()
    mag = new_mag(tmp_path / "ds", fill=voxels)
    killed(children, "driver.commit_job = die\nmag.write(255 - mag.to_dask())\n", mag.layer.dataset_path)
    if then == "rechunk":
        mag.rechunk(16, 32)
    else:
        mag.compress()
    assert np.array_equal(mag.read(), 255 - voxels)
    assert unfinished_jobs(mag.place.store) == []
