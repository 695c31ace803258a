"""Scripts written for the API of 2021 run with other imports; misuse is refused, also under `python -O`."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wkw
from small_datasets import COLOR, SEGMENTATION, SMALL, check_reopened, filled, names, put, ramp, raw

import wkdask
from wkdask import BoundingBox
from wkdask.errors import DamagedHeaderError, InvalidValueError, WkdaskWarning


def test_existing_files_become_a_layer(new):
    ds = new()
    data = ramp(1, 40, 40, 40, dtype="uint32")
    filled(ds, data, category=SEGMENTATION, name="seg").add_mag(2, **SMALL)
    put(ds, {**raw(ds), "dataLayers": []})
    layer = ds.add_layer_for_existing_files("seg", SEGMENTATION, largest_segment_id=7, mappings=["axons"])
    assert (names(layer), layer.largest_segment_id, layer.mappings) == (["1", "2"], 7, ("axons",))
    assert layer.bounding_box == BoundingBox((0, 0, 0), (64, 64, 64))  # whole cubes
    layer.bounding_box = layer.get_mag(1).calculate_bounding_box()
    assert np.array_equal(layer.get_mag(1).read(), data)
    layer.delete_mag(2)
    os.makedirs(os.path.join(layer.path, "4"))
    with pytest.raises(DamagedHeaderError):
        layer.add_mag_for_existing_files(4)
    with pytest.raises(InvalidValueError, match=r"header\.wkw"):
        ds.add_layer_for_existing_files("nothing", COLOR)
    check_reopened(ds)


def test_coarser_mags_are_computed_anew(new):
    layer = filled(new(), np.full((1, 50, 50, 50), 1, "uint8"))
    layer.downsample_mag_list(1, ["4-4-2", "2-2-1"], compression=None)
    layer.get_mag(1).write(np.full((1, 50, 50, 50), 7, "uint8"))
    reports = layer.redownsample()
    assert len(reports) == 2
    for mag in layer.mags.values():
        assert (mag.read() == 7).all()
        assert mag.spec.compression is None
    layer.add_mag("1-1-8", **SMALL)
    with pytest.raises(InvalidValueError, match="cannot be computed"):
        layer.redownsample()
    with pytest.raises(InvalidValueError, match="no mag"):
        new("empty").add_layer("layer", COLOR).redownsample()


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("downsample", {"max_mag": 2, "buffer_edge_len": 256, "args": object()}),
        ("downsample", {"coarsest_mag": 2, "executor": object()}),
        ("downsample_mag", {"from_mag": 1, "target_mag": 2, "buffer_edge_len": 256, "compress": True}),
        ("downsample_mag_list", {"from_mag": 1, "target_mags": [2], "args": object()}),
        ("redownsample", {"executor": object()}),
        ("upsample", {"from_mag": 4, "min_mag": 2, "buffer_edge_len": 256, "compress": False}),
        ("refresh_largest_segment_id", {"chunk_shape": (64, 64, 64), "executor": object()}),
    ],
)
def test_what_is_ignored_is_said(new, method, arguments):
    layer = filled(
        new(scale=(1, 1, 1)),
        np.full((1, 20, 20, 20), 3, "uint32"),
        category=SEGMENTATION,
        mag=arguments.get("from_mag", 1),
    )
    ignored = [name for name in ("buffer_edge_len", "args", "executor", "chunk_shape") if name in arguments]
    with pytest.warns(WkdaskWarning, match="ignored") as caught:
        getattr(layer, method)(**arguments)
    (warning,) = caught
    assert warning.filename == __file__  # it points at the caller
    assert all(f"{name}=" in str(warning.message) for name in ignored)
    assert all((mag.read() == 3).all() for mag in layer.mags.values())


def test_private_names_that_the_documentation_of_2021_tells_scripts_to_use(new):
    layer = filled(new(), ramp(1, 40, 40, 40))
    mag = layer.get_mag(1)
    assert mag._get_file_dimensions() == (32, 32, 32)
    assert not mag._is_compressed()
    mag.compress()
    assert mag._is_compressed()
    assert mag.get_view()._is_compressed()
    sizes = mag.map_chunk(lambda view: view.read().size, chunk_shape=mag._get_file_dimensions())
    assert sum(sizes) == 40**3


@pytest.mark.slow
def test_a_script_of_2021_runs_with_other_imports(tmp_path, monkeypatch):
    # written as in 2021: positional arguments, offsets in voxels of the mag, views and slices
    from wkdask import BoundingBox, Mag
    from wkdask.dataset import Dataset
    from wkdask.layer import LayerCategories, SegmentationLayer
    from wkdask.mag_view import MagView
    from wkdask.view import View

    monkeypatch.chdir(tmp_path)
    dataset = Dataset.get_or_create("wk_dataset", scale=(11.24, 11.24, 25), name="example")
    color = dataset.get_or_add_layer(
        "color", LayerCategories.COLOR_TYPE, dtype_per_channel="uint8", num_channels=3
    )
    mag1 = color.get_or_add_mag("1", block_len=8, file_len=4, compress=False)
    assert isinstance(mag1, MagView)
    images = (np.random.default_rng(0).random((3, 100, 80, 30)) * 255).astype(np.uint8)
    with mag1.get_buffered_slice_writer((10, 20, 30)) as writer:
        for z in range(images.shape[-1]):
            writer.send(images[..., z])
    assert tuple(color.bounding_box.topleft) == (10, 20, 30)
    assert tuple(color.bounding_box.bottomright) == (110, 100, 60)
    assert tuple(mag1.size) == (110, 100, 60)

    view = mag1.get_view((10, 20, 30), (64, 64, 16))
    assert isinstance(view, View)
    assert np.array_equal(view.read((4, 4, 4), (8, 8, 8)), images[:, 4:12, 4:12, 4:12])
    assert np.array_equal(mag1.read_bbox(BoundingBox((14, 24, 34), (8, 8, 8))), images[:, 4:12, 4:12, 4:12])
    with mag1.get_view((10, 20, 30), (100, 80, 30), read_only=True) as opened:
        assert np.array_equal(opened.read(), images)

    segmentation = dataset.add_layer(
        "segmentation",
        LayerCategories.SEGMENTATION_TYPE,
        "uint32",
        largest_segment_id=0,
        mappings=["mapping"],
    )
    assert isinstance(segmentation, SegmentationLayer)
    segmentation.bounding_box = color.bounding_box
    target = segmentation.add_mag(Mag(1), 32, 2, True)

    def threshold(args):
        source_view, target_view, _ = args
        target_view.write((source_view.read()[:1] > 128).astype(np.uint32) * 5)

    mag1.get_view((10, 20, 30)).for_zipped_chunks(
        threshold,
        target.get_view((10, 20, 30)),
        source_chunk_size=(64, 64, 64),
        target_chunk_size=(64, 64, 64),
    )
    labels = (images[:1] > 128).astype(np.uint32) * 5
    assert np.array_equal(target.get_view().read(), labels)
    assert segmentation.largest_segment_id == 5

    def brighten(args):
        chunk, _ = args
        chunk.write(chunk.read() // 2 + 100)

    mag1.get_view().for_each_chunk(brighten, chunk_size=(32, 32, 32))
    assert np.array_equal(mag1.get_view().read(), images // 2 + 100)

    color.downsample(from_mag=Mag(1), max_mag=Mag(4), interpolation_mode="default", compress=True)
    segmentation.downsample_mag_list(Mag(1), [Mag("2-2-1"), Mag("4-4-2")])
    assert list(color.mags) == [Mag("1"), Mag("2-2-1"), Mag("4-4-2")]
    mag2 = dataset.get_color_layer().get_mag("2-2-1")
    assert tuple(mag2.size) == (55, 50, 60)  # voxels of the mag
    mag2.write(images[:, :2, :2, :2], (5, 10, 30))  # mag 1: (10, 20, 30)
    assert np.array_equal(mag2.read((5, 10, 30), (2, 2, 2)), images[:, :2, :2, :2])
    mag1.compress()
    assert mag1.header.block_type == wkw.Header.BLOCK_TYPE_LZ4HC

    copy = dataset.copy_dataset("copy", compress=True, block_len=32, file_len=2)
    assert copy.get_layer("color").get_mag(1).content_is_equal(mag1)
    shallow = dataset.shallow_copy_dataset("shallow", name="shallow", make_relative=True)
    assert np.array_equal(shallow.get_segmentation_layer().get_mag("1").get_view().read(), labels)
    color.name = "em"
    assert list(dataset.layers.keys()) == ["em", "segmentation"]
    assert np.array_equal(mag1.get_view().read(), images // 2 + 100)
    dataset.delete_layer("segmentation")
    assert list(Dataset("wk_dataset").layers) == ["em"]


MISUSES = """
import tempfile, numpy as np
from wkdask import BoundingBox, Dataset, Mag
from wkdask.errors import WkdaskError

path = tempfile.mkdtemp()
ds = Dataset.create(path, (1, 1, 1))
layer = ds.add_layer("color", "color")
mag = layer.add_mag(1, block_len=16, file_len=2)
mag.write(np.ones((1, 64, 64, 64), "uint8"))
view = mag.get_view(read_only=True)
ones = np.ones((1, 8, 8, 8), "uint8")
calls = {
    "create": lambda: Dataset.create(path, (1, 1, 1)),
    "scale": lambda: Dataset.get_or_create(path, (1, 1, 2)),
    "layer": lambda: ds.get_or_add_layer("color", "segmentation"),
    "files": lambda: ds.add_layer_for_existing_files("none", "color"),
    "dtype": lambda: ds.add_layer("other", "color", dtype_per_layer="uint30", num_channels=3),
    "category": lambda: ds.add_layer("other", "nothing"),
    "mag": lambda: layer.get_or_add_mag(1, block_len=8),
    "power": lambda: Mag(3),
    "channels": lambda: mag.write(np.ones((3, 8, 8, 8), "uint8")),
    "type": lambda: mag.write(np.ones((1, 8, 8, 8), "uint16")),
    "negative": lambda: mag.write(ones, offset=(-1, 0, 0)),
    "zero": lambda: mag.write(ones[:, :0]),
    "read": lambda: mag.read(offset=(0, 0, -1)),
    "view": lambda: mag.get_view(offset=(60, 0, 0), size=(8, 8, 8)),
    "outside": lambda: mag.get_view(size=(8, 8, 8)).write(ones, offset=(1, 0, 0)),
    "readonly": lambda: view.write(ones),
    "child": lambda: view.get_view(size=(1, 1, 1), read_only=False),
    "chunk": lambda: mag.for_each_chunk(print, (16, 64, 64)),
    "zipped": lambda: mag.for_zipped_chunks(print, mag, (64, 64, 64), (32, 32, 32)),
    "axis": lambda: mag.get_buffered_slice_writer(dimension=4),
    "order": lambda: layer.downsample_mag_list(1, ["2-2-1", "1-1-2"]),
    "finer": lambda: layer.downsample(from_mag=1, coarsest_mag="2-2-16"),
    "missing": lambda: layer.downsample(from_mag=2),
    "exists": lambda: layer.upsample(2),
    "grid": lambda: BoundingBox((1, 0, 0), (2, 2, 2)).in_mag(2),
    "disjoint": lambda: BoundingBox((0, 0, 0), (1, 1, 1)).intersected_with(BoundingBox((2, 2, 2), (1, 1, 1))),
    "size": lambda: BoundingBox((0, 0, 0), (-1, 1, 1)),
    "rename": lambda: setattr(layer, "name", "a/b"),
    "box": lambda: mag.write(ones, bounding_box=BoundingBox((0, 0, 0), (9, 8, 8))),
}
for name, call in calls.items():
    try:
        call()
    except WkdaskError as error:
        kind = type(error)
        print(name, kind.__name__, isinstance(error, ValueError), str(error).replace(path, "PATH"))
    else:
        print(name, "was let through")
print(np.array_equal(mag.read(), np.ones((1, 64, 64, 64))), len(layer.mags), layer.bounding_box)
"""


@pytest.mark.slow
def test_misuse_is_refused_alike_under_python_O():
    def lines(*flags):
        env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}
        done = subprocess.run(
            [sys.executable, *flags, "-c", MISUSES], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    plain = lines()
    for line in plain[:-1]:
        assert line.split()[2] == "True", line  # a ValueError, each of them
    assert plain[-1] == "True 1 (0, 0, 0) + (64, 64, 64)"
    assert lines("-O") == plain
