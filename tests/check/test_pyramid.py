"""Coarser mags against finer ones: no way of sampling is a false alarm, and what was changed is found, as boxes."""

import numpy as np
import pytest
from thorough import mostly_slow

from wkdask import BoundingBox, Dataset
from wkdask.check.run import check_dataset
from wkdask.kernels import INTERPOLATIONS, MODES

SIZE, OFFSET = (150, 70, 41), (7, 3, 5)


def pyramid(folder, mode="default", category="color", dtype="uint8", data_format="wkw", voxels=None, **how):
    """Make a layer with three coarser mags."""
    layer = Dataset.create(folder, (4, 4, 10)).add_layer(
        "layer", category, dtype_per_channel=dtype, data_format=data_format
    )
    if voxels is None:
        voxels = np.random.default_rng(2).integers(0, 200, SIZE).astype(dtype)
    mag = layer.add_mag(1, chunk_shape=32, shard_shape=32 if data_format == "zarr" else 64)
    mag.write(voxels, offset=OFFSET, progress=False)
    layer.downsample(coarsest_mag=8, interpolation_mode=mode, progress=False, **how)
    return layer


def stale(folder, **how):
    """Return the findings of coarser mags, which are the only errors and warnings."""
    found = [each for each in check_dataset(folder, deep=True, **how) if each.severity != "info"]
    assert {each.code for each in found} <= {"mag-stale"}
    return found


CASES = [
    (mode, category, dtype, data_format)
    for mode in MODES
    for category, dtype in (("color", "uint8"), ("segmentation", "uint32"), ("color", "float32"))
    for data_format in ("wkw", "zarr3", "zarr")
    if not (category == "segmentation" and mode in INTERPOLATIONS)
]


@pytest.mark.parametrize(
    ("mode", "category", "dtype", "data_format"),
    mostly_slow(
        CASES, lambda n, case: case[3] == ("wkw", "zarr3", "zarr")[n // 3 % 3] and case[2] != "float32"
    ),
)
@pytest.mark.parametrize("sampling", ["anisotropic", pytest.param("isotropic", marks=pytest.mark.slow)])
def test_no_way_of_sampling_is_a_false_alarm(tmp_path, mode, category, dtype, data_format, sampling):
    pyramid(tmp_path / "ds", mode, category, dtype, data_format, sampling_mode=sampling)
    assert stale(tmp_path / "ds") == []


def test_mags_in_between_may_be_gone(tmp_path):
    layer = pyramid(tmp_path / "ds")
    layer.delete_mag(sorted(layer.mags)[1])
    found = {each.code for each in check_dataset(tmp_path / "ds", deep=True)}
    assert "mag-stale" not in found


def test_what_was_changed_is_found_as_boxes_that_redownsample_takes(tmp_path):
    layer = pyramid(tmp_path / "ds", "nearest")
    changed = BoundingBox((70, 40, 16), (16, 8, 8))
    layer.get_mag(1).write(np.full(changed.size, 255, "uint8"), bounding_box=changed, progress=False)
    (found,) = stale(tmp_path / "ds")
    assert found.value == "nearest"
    assert all(changed.contains_bbox(box) for box in found.boxes)
    assert sum(box.volume() for box in found.boxes) == changed.volume()
    layer.redownsample(found.value, boxes=found.boxes, progress=False)
    assert stale(tmp_path / "ds") == []


def test_a_coarser_mag_that_was_changed_is_found_too(tmp_path):
    layer = pyramid(tmp_path / "ds")
    mag = sorted(layer.mags)[-1]
    view = layer.get_mag(mag)
    view.write(np.full((2, 2, 2), 255, "uint8"), offset=view.box.topleft, progress=False)
    assert [each.mag for each in stale(tmp_path / "ds")] == [mag]


def test_a_sample_is_a_part_and_the_same_each_time(tmp_path):
    voxels = np.ones((128, 128, 64), "uint8")
    layer = pyramid(tmp_path / "ds", voxels=voxels)
    layer.get_mag(1).write(np.full((16, 16, 16), 9, "uint8"), offset=OFFSET, progress=False)
    whole = check_dataset(tmp_path / "ds", deep=True)
    few = [check_dataset(tmp_path / "ds", deep=True, sample=1) for _ in range(2)]
    assert [each.code for each in whole] == ["mag-stale"]
    assert few[0].to_json() == few[1].to_json()


def test_voxels_without_cubes_are_not_read(tmp_path):
    layer = pyramid(tmp_path / "ds", voxels=np.ones((32, 32, 32), "uint8"))
    layer.bounding_box = BoundingBox((0, 0, 0), (2**31, 2**31, 2**31))
    report = check_dataset(tmp_path / "ds", deep=True, sample=5)
    assert report.nbytes < 10 << 20
