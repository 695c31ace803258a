"""What differs first between two datasets: the same answer whatever their cuts, None only where nothing does."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import wkdask.dataset.equality
from wkdask import BoundingBox, Dataset, Mag
from wkdask.dataset.equality import Difference, first_mismatch
from wkdask.errors import LayerNotFoundError, TaskFailedError
from wkdask.jobs.events import JobFinished, JobStarted, UnitDone
from wkdask.storage.wkw.mag import WkwMag
from wkdask.storage.zarr.mag import ZarrMag

BOX = BoundingBox((5, 3, 9), (70, 50, 40))
CUTS = [("wkw", 8, 32), ("wkw", 16, 16), ("zarr3", 8, 24), ("zarr3", 20, 80), ("zarr", 12, 12)]


def make(folder, cut, voxels, category="color", mag=1, box=BOX):
    """Return a dataset with one layer that holds an array in a box, given in voxels of the mag."""
    data_format, chunk, shard = cut
    layer = Dataset.create(folder, (4, 4, 35)).add_layer(
        "layer",
        category,
        dtype_per_channel=voxels.dtype,
        num_channels=voxels.shape[0],
        data_format=data_format,
    )
    layer.add_mag(mag, chunk_shape=chunk, shard_shape=shard).write(voxels, offset=box.topleft)
    return layer.dataset


def first_of(places, side):
    """Return the first of places (c, x, y, z) of the box: cube by cube, x fastest, then c and x fastest."""

    def order(place):
        c, x, y, z = place[0], *(BOX.topleft + place[1:])
        return (z // side, y // side, x // side, z, y, x, c)

    return min(places, key=order)


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.sampled_from(CUTS),
    second=st.sampled_from(CUTS),
    dtype=st.sampled_from(["uint8", "uint16", "float64"]),
    places=st.lists(st.tuples(*(st.integers(0, n - 1) for n in (2, *BOX.size))), max_size=4, unique=True),
    unit_nbytes=st.sampled_from([1, 10_000, 32 << 20]),
)
def test_the_first_voxel_that_differs(
    tmp_path_factory, random_voxels, monkeypatch, first, second, dtype, places, unit_nbytes
):
    monkeypatch.setattr(wkdask.dataset.equality, "_UNIT_NBYTES", unit_nbytes)
    folder = tmp_path_factory.mktemp("equal")
    voxels = random_voxels((2, *BOX.size), dtype)
    other = voxels.copy(order="F")
    for place in places:
        other[place] = 7 if voxels[place] != 7 else 8
    mine, theirs = make(folder / "a", first, voxels), make(folder / "b", second, other)
    found = mine.first_difference(theirs)
    if not places:
        assert found is None
        return
    place = first_of(places, first[2])
    at = (place[0], *(BOX.topleft + place[1:]))
    assert found == Difference("voxel", voxels[place], other[place], "layer", Mag(1), at)


def test_what_is_said_of_a_voxel(tmp_path):
    voxels, box = np.zeros((1, 10, 10, 10), "uint8"), BoundingBox((4, 4, 4), (10, 10, 10))
    other = voxels.copy()
    other[0, 1, 2, 3] = 7
    a, b = (make(tmp_path / n, CUTS[0], v, mag="2-2-1", box=box) for n, v in (("a", voxels), ("b", other)))
    text = "layer 'layer' mag 2-2-1, voxel (c, x, y, z) = (0, 5, 6, 7), (10, 12, 7) in mag 1: 0 against 7"
    assert str(a.first_difference(b)) == text
    assert str(b.first_difference(a.path)) == text.replace("0 against 7", "7 against 0")


def test_voxels_in_coarser_mags_come_after_finer_ones_and_layers_in_their_order(tmp_path, random_voxels):
    voxels = random_voxels((1, *BOX.size))
    a, b = (make(tmp_path / name, CUTS[0], voxels) for name in "ab")
    for ds in (a, b):
        ds.get_layer("layer").downsample_mag_list(1, ["2", "4"])
        more = ds.add_layer("another", "color").add_mag(1, chunk_shape=8, shard_shape=32)
        more.write(voxels, offset=BOX.topleft)
    b.get_layer("another").get_mag(1).write(np.full((1, 1, 1), 255 - voxels[0, 0, 0, 0]), offset=BOX.topleft)
    assert a.first_difference(b).layer == "another"
    assert a.first_difference(b, ["layer"]) is None
    for mag in ("4", "2"):
        view = b.get_layer("layer").get_mag(mag)
        view.write(255 - view.read(), bounding_box=view.bounding_box)
        assert a.first_difference(b).mag == Mag(mag)
    assert a.first_difference(b, ["another", "layer"]).layer == "another"
    with pytest.raises(LayerNotFoundError, match="'another'"):
        a.first_difference(b, ["nobody"])


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("voxel size", {"scale": {"factor": [4, 4, 36], "unit": "nanometer"}}),
        ("view configuration", {"defaultViewConfiguration": {"zoom": 2}}),
        ("category", {"category": "color"}),
        ("type", {"elementClass": "int32"}),
        ("bounding box", {"boundingBox": {"topLeft": [5, 3, 9], "width": 70, "height": 50, "depth": 39}}),
        ("mags", {"mags": []}),
        ("largest segment id", {"largestSegmentId": 5}),
        ("mappings", {"mappings": ["one"]}),
        ("view configuration", {"layerdefaultViewConfiguration": {"alpha": 3}}),
        ("transformations", {"coordinateTransformations": [{"type": "affine"}]}),
        ("attachments", {"attachments": {"meshes": [{"name": "m", "path": "./layer/meshes/m"}]}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_properties_that_differ(tmp_path, random_voxels, what, change):
    voxels = random_voxels((1, *BOX.size), "uint32")
    a, b = (make(tmp_path / name, CUTS[0], voxels, "segmentation") for name in "ab")
    assert a.first_difference(b) is None
    path = Path(b.path, "datasource-properties.json")
    raw = json.loads(path.read_text())
    of_dataset = next(iter(change)) in ("scale", "defaultViewConfiguration")
    changed = {key.removeprefix("layer"): value for key, value in change.items()}
    (raw if of_dataset else raw["dataLayers"][0]).update(changed)
    path.with_suffix(".new").write_text(json.dumps(raw))
    path.with_suffix(".new").rename(path)
    found = a.first_difference(b)
    assert (found.what, found.layer) == (what, None if of_dataset else "layer")
    assert f"{what}: " in str(found)
    assert (found.first, found.second) == (b.first_difference(a).second, b.first_difference(a).first)


def test_a_layer_that_only_one_has(tmp_path, random_voxels):
    a, b = (make(tmp_path / name, CUTS[0], random_voxels((1, *BOX.size))) for name in "ab")
    b.add_layer("more", "color")
    assert str(a.first_difference(b)) == "layer 'more', layer: missing against there"
    assert str(b.first_difference(a)) == "layer 'more', layer: there against missing"
    assert a.first_difference(b, ["layer"]) is None


def test_not_a_number_is_equal_to_itself():
    voxels = np.asfortranarray(np.array([[[[1.0, np.nan], [-0.0, 3.0]]]]))
    other = voxels.copy(order="F")
    assert first_mismatch(voxels, other) is None
    other[0, 0, 1, 0] = 0.0
    assert first_mismatch(voxels, other) is None, "zero is zero"
    other[0, 0, 1, 1] = np.nan
    place, a, b = first_mismatch(voxels, other)
    assert (place, a) == ((0, 0, 1, 1), 3.0)
    assert np.isnan(b)


@pytest.mark.slow
@pytest.mark.parametrize("second", [("wkw", 16, 16), ("zarr3", 8, 24)])
def test_gaps_between_cubes_are_not_read(tmp_path, monkeypatch, random_voxels, second):
    voxels = random_voxels((1, 16, 16, 16))
    a = make(tmp_path / "a", ("wkw", 8, 32), voxels, box=BoundingBox((0, 0, 0), (16, 16, 16)))
    b = make(tmp_path / "b", second, voxels, box=BoundingBox((0, 0, 0), (16, 16, 16)))
    box = BoundingBox((0, 0, 0), (1000, 900, 40))
    for dataset in (a, b):
        dataset.get_layer("layer").bounding_box = box
    asked = []
    for kind in (WkwMag, ZarrMag):
        read = kind.read

        def counting(self, box, threads=1, read=read):
            asked.append(box.volume())
            return read(self, box, threads)

        monkeypatch.setattr(kind, "read", counting)
    assert a.first_difference(b) is None
    assert sum(asked) < 1_000_000
    b.get_layer("layer").get_mag(1).write(voxels[:, :1, :1, :1] | 1, offset=(990, 880, 39))
    found = a.first_difference(b)
    assert (found.voxel, found.first) == ((0, 990, 880, 39), 0)


def test_damage_is_no_difference(tmp_path, random_voxels):
    a, b = (make(tmp_path / name, CUTS[0], random_voxels((1, *BOX.size))) for name in "ab")
    mag = b.get_layer("layer").get_mag(1)
    (*_, box) = mag.cubes_on_disk()
    path = Path(mag.place.store.cube_path(box.topleft // box.size))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TaskFailedError, match=path.name):
        a.first_difference(b)


@pytest.mark.slow
def test_it_ends_at_the_first_difference_and_is_one_job_to_listeners(tmp_path, random_voxels):
    voxels = random_voxels((1, 400, 20, 16))
    other = voxels.copy(order="F")
    other[0, 3, 3, 3] += 1
    cut = ("wkw", 8, 8)
    same, a, b = (make(tmp_path / n, cut, v) for n, v in (("same", voxels), ("a", voxels), ("b", other)))
    events = []
    assert a.first_difference(same, progress=events.append) is None
    started, *units, finished = events
    assert isinstance(started, JobStarted)
    assert isinstance(finished, JobFinished)
    assert started.units == len(units)
    assert started.cubes == sum(unit.report.cubes for unit in units)
    assert started.nbytes == sum(unit.report.nbytes for unit in units)
    events.clear()
    assert a.first_difference(b, progress=events.append).voxel == (0, 8, 6, 12)
    assert sum(isinstance(event, UnitDone) for event in events) < len(units)
