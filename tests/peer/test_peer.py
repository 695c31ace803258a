"""Parity with webknossos 4.3.3: files and voxels, both ways; it is a black box in a Python of its own.

Run with ``pytest -m peer``; the Python is ``WKDASK_PEER_PYTHON``, else ``.venv-peer/bin/python`` in the repository.
"""

import json
import shutil
import struct
import subprocess
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import tifffile
import wkw
from peer_process import (
    PLAIN,
    TEM,
    described,
    pair,
    read_png,
    same,
    same_pyramid,
    stack,
    voxels,
)

from wkdask import BoundingBox, Dataset, Mag, VoxelSize
from wkdask.convert.images import convert_images
from wkdask.properties import SetViewConfiguration, commit

pytestmark = pytest.mark.peer

PROPERTIES = "datasource-properties.json"

MAGS = ["1", "2-2-1", "4-4-2"]
OFF_GRID = BoundingBox((13, 7, 5), (90, 71, 40))  # of no cube, no chunk, no voxel of mag 2-2-1
LAYERS = [
    *(("color", dtype, 1) for dtype in ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32")),
    *(("color", dtype, 3) for dtype in ("uint8", "uint16", "int16", "float32")),
    *(("segmentation", f"{kind}{bits}", 1) for kind in ("uint", "int") for bits in (8, 16, 32, 64)),
]
HUGE_ID = 2**60 + 1  # no double holds it


# ---- what is compared ---------------------------------------------------------------------------------


def in_mag(box, mag):
    """Return the box aligned outwards, in voxels of the mag."""
    step = Mag(mag).to_vec3_int()
    low = [corner // side for corner, side in zip(box.topleft, step, strict=True)]
    high = [-(-corner // side) for corner, side in zip(box.bottomright, step, strict=True)]
    return BoundingBox.from_corners(low, high)


def corner_in_mag1(box, mag):
    """Return the corner of a box of a mag as the peer counts it."""
    return [int(corner * side) for corner, side in zip(box.topleft, Mag(mag).to_vec3_int(), strict=True)]


def raw_properties(path):
    return json.loads((Path(path) / PROPERTIES).read_text())


def peer_write(peer, path, layer, mag, data, box, **options):
    """Write a box, given in voxels of the mag, with the peer."""
    offset = corner_in_mag1(box, mag)
    peer("write", path=path, layer=layer, mag=mag, data=data, offset=offset, **options)


# ---- 1. we read what the peer wrote -------------------------------------------------------------------


@pytest.mark.parametrize("compress", [False, True], ids=["raw", "lz4hc"])
@pytest.mark.parametrize(("category", "dtype", "channels"), LAYERS)
def test_we_read_what_the_peer_wrote(peer, tmp_path, category, dtype, channels, compress):
    boxes = {mag: in_mag(OFF_GRID, mag) for mag in MAGS}
    expected = {
        mag: voxels((channels, *box.size), dtype, seed) for seed, (mag, box) in enumerate(boxes.items())
    }
    path = tmp_path / "theirs"
    peer("create", path=path, factor=[11.24, 11.24, 28])
    peer("add_layer", path=path, name="layer", category=category, dtype=dtype, num_channels=channels)
    for mag in MAGS:
        peer("add_mag", path=path, layer="layer", mag=mag, compress=compress)
        peer_write(peer, path, "layer", mag, expected[mag], boxes[mag])

    assert described(path) == peer("describe", path=path)
    layer = Dataset(path).get_layer("layer")
    assert layer.bounding_box == OFF_GRID
    assert list(layer.mags) == MAGS
    for mag, box in boxes.items():
        view = layer.get_mag(mag)
        assert view.box == box
        assert view.spec.compression == ("lz4hc" if compress else None)
        same(view.read(), expected[mag])
        same(view.to_dask().compute(), expected[mag])
        same(view.to_dask(16)[:, 5:40, 30:, 3:9].compute(), expected[mag][:, 5:40, 30:, 3:9])


def test_we_read_a_sparse_compressed_cube_of_the_peers_default_size(peer, tmp_path):
    data, box = voxels((1, 40, 30, 20)), BoundingBox((1000, 70, 5), (40, 30, 20))
    expected = np.pad(data, ((0, 0), (10, 10), (10, 10), (5, 5)))
    path = tmp_path / "theirs"
    peer("create", path=path, factor=[1, 1, 1])
    peer("add_layer", path=path, name="color", category="color", dtype="uint8")
    peer("add_mag", path=path, layer="color", mag="1", shard_shape=1024, compress=True)
    peer_write(peer, path, "color", "1", data, box)
    mag = Dataset(path).get_layer("color").get_mag(1)
    assert mag.spec.shard_shape == (1024, 1024, 1024)
    same(mag.read(), data)
    same(mag.read(offset=(990, 60, 0), size=(60, 50, 30)), expected)


def test_we_read_the_properties_that_the_peer_wrote(peer, tmp_path):
    expected = {
        "name": "a name of its own",
        "factor": [0.5, 0.5, 1.25],
        "unit": "micrometer",
        "zoom": 0.5,
        "layers": {
            "raw": {
                "category": "color",
                "dtype": "uint8",
                "num_channels": 3,
                "box": [[3, 5, 7], [100, 60, 40]],
                "mags": ["1", "2-2-1", "4-4-2"],
                "largest_segment_id": None,
                "color": [255, 0, 128],
                "intensity_range": [3.0, 250.0],
            },
            "cells.v2": {
                "category": "segmentation",
                "dtype": "uint64",
                "num_channels": 1,
                "box": [[0, 0, 0], [0, 0, 0]],
                "mags": ["2-2-1"],
                "largest_segment_id": HUGE_ID,
                "color": None,
                "intensity_range": None,
            },
            "few": {
                "category": "segmentation",
                "dtype": "uint32",
                "num_channels": 1,
                "box": [[1, 2, 3], [4, 5, 6]],
                "mags": [],
                "largest_segment_id": None,
                "color": None,
                "intensity_range": None,
            },
        },
    }
    path = tmp_path / "theirs"
    peer("create", path=path, factor=[0.5, 0.5, 1.25], unit="micrometer", name="a name of its own", zoom=0.5)
    box = [[3, 5, 7], [100, 60, 40]]
    peer("add_layer", path=path, name="raw", category="color", dtype="uint8", num_channels=3, box=box)
    for mag in ("4-4-2", "1", "2-2-1"):
        peer("add_mag", path=path, layer="raw", mag=mag)
    peer("view_configuration", path=path, layer="raw", color=[255, 0, 128], intensity_range=[3, 250])
    ids = {"dtype": "uint64", "largest_segment_id": HUGE_ID, "mappings": ["axons", "dendrites"]}
    peer("add_layer", path=path, name="cells.v2", category="segmentation", **ids)
    peer("add_mag", path=path, layer="cells.v2", mag="2-2-1")
    box = [[1, 2, 3], [4, 5, 6]]
    peer("add_layer", path=path, name="few", category="segmentation", dtype="uint32", box=box)

    assert described(path) == expected
    assert peer("describe", path=path) == expected
    cells = raw_properties(path)["dataLayers"][1]
    assert cells["largestSegmentId"] == {"customJsonEncoding": "bigint", "value": str(HUGE_ID)}
    assert Dataset(path).get_segmentation_layer("cells.v2").mappings == ("axons", "dendrites")


@pytest.mark.parametrize("compress", [False, True], ids=["raw", "lz4hc"])
def test_we_read_ids_that_no_double_holds(peer, tmp_path, compress):
    expected = voxels((1, 70, 20, 10), "uint64", low=2**53)
    assert (expected.astype("float64").astype("uint64") != expected).any()
    path = tmp_path / "theirs"
    peer("create", path=path, factor=[1, 1, 1])
    peer("add_layer", path=path, name="ids", category="segmentation", dtype="uint64")
    peer("add_mag", path=path, layer="ids", mag="1", compress=compress)
    peer_write(peer, path, "ids", "1", expected, BoundingBox((5, 6, 7), (70, 20, 10)))
    assert peer("find_largest_segment_id", path=path, layer="ids") == expected.max()
    layer = Dataset(path).get_segmentation_layer("ids")
    assert layer.largest_segment_id == expected.max()
    same(layer.get_mag(1).read(), expected)


# ---- 2. the peer reads what we wrote ------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "lz4", "lz4hc"])
@pytest.mark.parametrize(("category", "dtype", "channels"), LAYERS)
def test_the_peer_reads_what_we_wrote(peer, tmp_path, category, dtype, channels, compression):
    boxes = {mag: in_mag(OFF_GRID, mag) for mag in MAGS}
    expected = {
        mag: voxels((channels, *box.size), dtype, seed) for seed, (mag, box) in enumerate(boxes.items())
    }
    ds = Dataset.create(tmp_path / "ours", VoxelSize((0.5, 0.5, 1.25), "micrometer"), name="its name")
    layer = ds.add_layer("layer", category, dtype_per_channel=dtype, num_channels=channels)
    for mag, box in boxes.items():
        layer.add_mag(mag, shard_shape=64, compression=compression).write(expected[mag], offset=box.topleft)

    theirs = peer("describe", path=ds.path)
    assert theirs == described(ds.path)
    assert [theirs[key] for key in ("name", "factor", "unit")] == ["its name", [0.5, 0.5, 1.25], "micrometer"]
    assert theirs["layers"]["layer"]["box"] == pair(OFF_GRID)
    assert theirs["layers"]["layer"]["mags"] == MAGS
    if category == "segmentation":
        largest = max(int(data.max()) for data in expected.values())
        assert theirs["layers"]["layer"]["largest_segment_id"] == largest
    for mag, box in boxes.items():
        place = {"path": ds.path, "layer": "layer", "mag": mag}
        same(peer("read", **place), expected[mag])
        layout = peer("layout_of", **place)
        assert layout == [[32, 32, 32], [64, 64, 64], compression is not None]
        cubes = [cube.from_mag_to_mag1(mag) for cube in layer.get_mag(mag).cubes_on_disk()]
        assert peer("cubes_on_disk", **place) == sorted(map(pair, cubes))
        assert len(cubes) == len(list(box.chunk((64, 64, 64), (64, 64, 64))))


@pytest.mark.parametrize("compression", [None, "lz4", "lz4hc"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_peer_reads_our_sparse_cubes_of_1024(peer, tmp_path, channels, compression):
    data = voxels((channels, 40, 30, 20))
    expected = np.pad(data, ((0, 0), (10, 10), (10, 10), (5, 5)))
    ds = Dataset.create(tmp_path / "ours", (1, 1, 1))
    mag = ds.add_layer("color", "color", num_channels=channels).add_mag(1, compression=compression)
    mag.write(data, offset=(1000, 70, 5))
    place = {"path": ds.path, "layer": "color", "mag": "1"}
    assert peer("layout_of", **place) == [[32] * 3, [1024] * 3, compression is not None]
    assert peer("cubes_on_disk", **place) == [[[0, 0, 0], [1024] * 3], [[1024, 0, 0], [1024] * 3]]
    same(peer("read", **place), data)
    same(peer("read", **place, box=[[990, 60, 0], [60, 50, 30]]), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_peer_reads_dask_expressions_of_badly_aligned_chunks(peer, tmp_path, channels):
    data = voxels((channels, 150, 101, 77), "uint16")
    expected = 65535 - data.astype("uint16")
    ds = Dataset.create(tmp_path / "ours", (1, 1, 1))
    layer = ds.add_layer("color", "color", dtype_per_channel="uint16", num_channels=channels)
    expression = 65535 - da.from_array(data, chunks=(1, (37, 100, 13), 29, (1, 76)))
    report = layer.add_mag(1, shard_shape=64, compression="lz4").write(expression, offset=(61, 3, 127))
    assert report.bounding_box == BoundingBox((61, 3, 127), (150, 101, 77))
    assert peer("describe", path=ds.path)["layers"]["color"]["box"] == [[61, 3, 127], [150, 101, 77]]
    same(peer("read", path=ds.path, layer="color", mag="1"), expected)


@pytest.mark.parametrize("compression", [None, "lz4", "lz4hc"])
def test_the_peer_reads_what_several_growing_writes_left(peer, tmp_path, compression):
    corners, size = [(50, 60, 5), (10, 20, 30), (90, 3, 0), (61, 62, 1)], (40, 33, 28)
    pieces = [voxels((1, *size), "uint32", seed) for seed in range(len(corners))]
    expected = np.zeros((1, 130, 95, 58), "uint32", "F")
    for (x, y, z), piece in zip(corners, pieces, strict=True):
        expected[:, x : x + 40, y : y + 33, z : z + 28] = piece
    expected = expected[:, 10:, 3:, :]

    ds = Dataset.create(tmp_path / "ours", (1, 1, 1))
    layer = ds.add_layer("ids", "segmentation", dtype_per_channel="uint32")
    mag = layer.add_mag(1, shard_shape=64, compression=compression)
    for number, (corner, piece) in enumerate(zip(corners, pieces, strict=True)):
        mag.write(piece if number % 2 else da.from_array(piece, chunks=17), offset=corner)
    theirs = peer("describe", path=ds.path)["layers"]["ids"]
    assert theirs["box"] == [[10, 3, 0], [120, 92, 58]]
    assert theirs["largest_segment_id"] == max(int(piece.max()) for piece in pieces)
    same(peer("read", path=ds.path, layer="ids", mag="1"), expected)


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_the_peer_reads_our_ids_that_no_double_holds(peer, tmp_path, compression):
    expected = voxels((1, 70, 20, 10), "uint64", low=2**53)
    expected[0, 3, 4, 5] = HUGE_ID * 7
    ds = Dataset.create(tmp_path / "ours", (1, 1, 1))
    layer = ds.add_layer("ids", "segmentation", dtype_per_channel="uint64")
    layer.add_mag(1, shard_shape=64, compression=compression).write(expected, offset=(5, 6, 7))
    theirs = peer("describe", path=ds.path)["layers"]["ids"]
    assert theirs["largest_segment_id"] == expected.max()
    assert peer("find_largest_segment_id", path=ds.path, layer="ids") == expected.max()
    same(peer("read", path=ds.path, layer="ids", mag="1"), expected)


def test_the_peers_check_equality_takes_our_dataset_for_its_own(peer, tmp_path):
    layers = [("color", "uint8", 3), ("color", "int16", 1), ("segmentation", "uint64", 1)]
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    peer("create", path=theirs, factor=[11.24, 11.24, 28])
    ds = Dataset.create(ours, (11.24, 11.24, 28))
    for seed, (category, dtype, channels) in enumerate(layers):
        name = f"layer{seed}"
        largest = {} if category == "color" else {"largest_segment_id": 2**64 - 1}
        peer(
            "add_layer",
            path=theirs,
            name=name,
            category=category,
            dtype=dtype,
            num_channels=channels,
            **largest,
        )
        layer = ds.add_layer(name, category, dtype_per_channel=dtype, num_channels=channels, **largest)
        for mag in MAGS:
            box = in_mag(OFF_GRID, mag)
            data = voxels((channels, *box.size), dtype, seed)
            peer("add_mag", path=theirs, layer=name, mag=mag, compress=True)
            peer_write(peer, theirs, name, mag, data, box)
            layer.add_mag(mag, shard_shape=64, compression="lz4").write(data, offset=box.topleft)

    def verdict():
        command = [peer.cli, "check-equality", "--distribution-strategy", "sequential", theirs, ours]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        return done.returncode, " ".join(done.stdout.split())

    code, text = verdict()
    assert code == 0, text
    assert "are equal" in text
    voxel = layer.get_mag(1).read(offset=(50, 50, 30), size=(1, 1, 1))
    layer.get_mag(1).write(voxel ^ np.uint64(1), offset=(50, 50, 30))
    code, text = verdict()
    assert "are equal" not in text, "the check tells nothing: it misses a voxel that differs"


# ---- 3. edited by turns -------------------------------------------------------------------------------


def test_nothing_is_lost_when_we_and_the_peer_edit_by_turns(peer, tmp_path):
    first, second, third = (voxels((1, 64, 40, 30), seed=seed) for seed in range(3))
    ids = voxels((1, 32, 32, 16), "uint64", low=1, high=HUGE_ID)
    path = tmp_path / "both"
    ds = Dataset.create(path, (11.24, 11.24, 28), name="both")
    color = ds.add_layer("color", "color")
    color.add_mag(1, shard_shape=64, compression="lz4").write(first, offset=(10, 20, 30))

    # The peer: voxels beside ours, a layer, a mag, a view configuration.
    peer_write(peer, path, "color", "1", second, BoundingBox((74, 20, 30), (64, 40, 30)))
    peer("view_configuration", path=path, layer="color", color=[1, 2, 3], intensity_range=[4, 5])
    peer("add_layer", path=path, name="cells", category="segmentation", dtype="uint64", mappings=["axons"])
    peer("add_mag", path=path, layer="cells", mag="2-2-1", compress=True)
    peer_write(peer, path, "cells", "2-2-1", ids, BoundingBox((5, 6, 7), (32, 32, 16)))
    # We, through a handle of before: voxels, a mag, an id, a layer.
    assert color.bounding_box == BoundingBox((10, 20, 30), (128, 40, 30))
    color.get_mag(1).write(third, offset=(10, 60, 30))
    color.add_mag("4-4-1", shard_shape=64)
    ds.get_segmentation_layer("cells").largest_segment_id = HUGE_ID
    ds.add_layer(
        "mask", "segmentation", dtype_per_channel="uint8", bounding_box=BoundingBox((1, 2, 3), (4, 5, 6))
    )
    # The peer again, and we once more.
    peer("set_box", path=path, layer="mask", box=[[0, 2, 3], [5, 5, 6]])
    peer("delete_mag", path=path, layer="color", mag="4-4-1")
    commit(path, [SetViewConfiguration("mask", {"color": [7, 8, 9]})])

    expected = np.zeros((1, 128, 80, 30), "uint8", "F")
    expected[:, :64, :40], expected[:, 64:, :40], expected[:, :64, 40:] = first, second, third
    view = {"color": None, "intensity_range": None}
    segmentation = {"category": "segmentation", "num_channels": 1}
    layers = {
        "color": {
            "category": "color",
            "dtype": "uint8",
            "num_channels": 1,
            "box": [[10, 20, 30], [128, 80, 30]],
            "mags": ["1"],
            "largest_segment_id": None,
            "color": [1, 2, 3],
            "intensity_range": [4, 5],
        },
        "cells": {
            **segmentation,
            **view,
            "dtype": "uint64",
            "box": [[10, 12, 7], [64, 64, 16]],
            "mags": ["2-2-1"],
            "largest_segment_id": HUGE_ID,
        },
        "mask": {
            **segmentation,
            **view,
            "dtype": "uint8",
            "box": [[0, 2, 3], [5, 5, 6]],
            "mags": [],
            "largest_segment_id": None,
            "color": [7, 8, 9],
        },
    }
    assert described(path)["layers"] == layers
    assert peer("describe", path=path)["layers"] == layers
    assert ds.get_segmentation_layer("cells").mappings == ("axons",)
    for layer, mag, data in (("color", "1", expected), ("cells", "2-2-1", ids)):
        same(ds.get_layer(layer).get_mag(mag).read(), data)
        same(peer("read", path=path, layer=layer, mag=mag), data)


def test_our_edits_keep_every_key_that_we_do_not_know(peer, tmp_path):
    path = tmp_path / "theirs"
    peer("create", path=path, factor=[1, 1, 2], zoom=2.0)
    peer("add_layer", path=path, name="color", category="color", dtype="uint8")
    peer("add_mag", path=path, layer="color", mag="1")
    expected = raw_properties(
        path
    )  # the peer drops such keys on its own save: they come after it, as the server's
    expected["adminViewConfiguration"] = {"layers": {"color": {"alpha": 20}}}
    expected["dataLayers"][0]["attachments"] = {"meshes": [], "segmentIndex": None}
    expected["dataLayers"][0]["mags"][0]["credentialId"] = "5f1"
    expected["dataLayers"][0]["ofTomorrow"] = {"large": 2**70, "small": 1e-300, "text": "µ"}
    (path / PROPERTIES).write_text(json.dumps(expected))

    ds = Dataset(path)
    ds.get_layer("color").get_mag(1).write(voxels((1, 10, 20, 30)), offset=(1, 2, 3))
    ds.get_layer("color").add_mag(2, shard_shape=64)
    ds.name = "new"
    found = raw_properties(path)
    expected["id"]["name"] = "new"
    expected["dataLayers"][0]["boundingBox"] = {"topLeft": [1, 2, 3], "width": 10, "height": 20, "depth": 30}
    added = found["dataLayers"][0]["mags"].pop()
    assert found == expected
    assert added["mag"] == [2, 2, 2]
    assert peer("describe", path=path) == described(path)


@pytest.fixture(params=[False, True], ids=["", "checksums"])
def checksums(request):
    """Keep checksums of cubes, and compare what is read with them; or not."""
    with dask.config.set({"wkdask.checksums": request.param, "wkdask.verify-reads": request.param}):
        yield request.param


@pytest.mark.parametrize("compression", [None, "lz4", "lz4hc"])
def test_the_peer_and_we_write_into_each_others_cubes(peer, tmp_path, compression, checksums):
    expected = voxels((3, 100, 60, 40), seed=0)
    patches = [voxels((3, 30, 20, 10), seed=seed) for seed in (1, 2, 3)]
    ds = Dataset.create(tmp_path / "both", (1, 1, 1))
    mag = ds.add_layer("color", "color", num_channels=3).add_mag(1, shard_shape=64, compression=compression)
    mag.write(expected, offset=(3, 5, 7))
    for number, (patch, x) in enumerate(zip(patches, (40, 50, 66), strict=True)):
        box = BoundingBox((x, 30, 20), patch.shape[1:])
        expected[:, x - 3 : x + 27, 25:45, 13:23] = patch
        if number % 2:
            mag.write(patch, offset=box.topleft)
        else:
            peer_write(peer, ds.path, "color", "1", patch, box, grow=False)
    assert Path(mag.path, ".wkdask", "checksums").exists() == checksums
    same(mag.read(), expected)
    same(peer("read", path=ds.path, layer="color", mag="1"), expected)


# ---- 4. electron microscopy ---------------------------------------------------------------------------


def test_a_real_stack_keeps_everything_when_both_edit_it(peer, tmp_path):
    files, images = stack("raw", "*.tif", tifffile.imread)
    label_files, labels = stack("labels", "*.png", read_png)
    assert images.shape == labels.shape == (1, 1024, 1024, 20)
    expected = images.copy("F")
    inverted = expected[:, 77:300, 500:600, 3:9] = 255 - images[:, 77:300, 500:600, 3:9]
    path = tmp_path / "vnc"
    where = {"path": path, "layer": "color", "mag": "1"}
    convert_images(files, path, voxel_size=TEM, offset=(100, 200, 3), shard_shape=256)
    same(peer("read", **where), images)
    # The peer: a view configuration, a layer with voxels, voxels of ours inverted.
    peer("view_configuration", path=path, layer="color", color=[9, 8, 7], intensity_range=[10, 200])
    peer("add_layer", path=path, name="theirs", category="color", dtype="uint16")
    peer("add_mag", path=path, layer="theirs", mag="1", compress=True)
    copy = images[:, :99].astype("uint16")
    peer_write(peer, path, "theirs", "1", copy, BoundingBox((1, 2, 3), copy.shape[1:]))
    peer_write(peer, path, "color", "1", inverted, BoundingBox((177, 700, 6), (223, 100, 6)), grow=False)
    # We: labels, and a dask expression over what the peer changed.
    convert_images(
        label_files,
        path,
        voxel_size=TEM,
        layer_name="labels",
        category="segmentation",
        offset=(100, 200, 3),
        compression="lz4",
    )
    ds = Dataset(path)
    color = ds.get_layer("color").get_mag(1)
    bright = ds.add_layer("bright", "color").add_mag(1, shard_shape=256, compression="lz4hc")
    bright.write((color.to_dask() > 128).astype("uint8"), bounding_box=ds.get_layer("color").bounding_box)
    # The peer and we once more.
    peer("set_box", path=path, layer="theirs", box=[[1, 2, 3], [50, 1024, 20]])
    ds.name = "vnc stack 1"

    found = peer("describe", path=path)
    assert found == described(path)
    assert found["name"] == "vnc stack 1"
    assert list(found["layers"]) == ["color", "theirs", "labels", "bright"]
    assert found["layers"]["color"]["color"] == [9, 8, 7]
    assert found["layers"]["color"]["intensity_range"] == [10, 200]
    assert found["layers"]["color"]["box"] == [[100, 200, 3], [1024, 1024, 20]]
    assert found["layers"]["theirs"]["box"] == [[1, 2, 3], [50, 1024, 20]]
    assert found["layers"]["labels"]["largest_segment_id"] == 255
    for name, data in {
        "color": expected,
        "theirs": copy[:, :50],
        "labels": labels,
        "bright": (expected > 128).astype("uint8"),
    }.items():
        same(ds.get_layer(name).get_mag(1).read(), data)
        same(peer("read", path=path, layer=name, mag="1"), data)


def test_a_real_stack_gets_the_same_pyramid(peer, tmp_path):
    raw_files, _ = stack("raw", "*.tif", tifffile.imread)
    label_files, _ = stack("labels", "*.png", read_png)
    path, twin = tmp_path / "ours", tmp_path / "theirs"
    convert_images(raw_files, path, voxel_size=TEM, offset=(37, 21, 5), shard_shape=256)
    convert_images(
        label_files, path, voxel_size=TEM, layer_name="labels", category="segmentation", shard_shape=256
    )
    shutil.copytree(path, twin)
    ds = Dataset(path)
    for layer in ("color", "labels"):
        ds.get_layer(layer).downsample()
        peer("downsample", path=twin, layer=layer)
        assert [str(mag) for mag in ds.get_layer(layer).mags] == ["1", "2-2-1", "4-4-1", "8-8-1", "16-16-2"]
        same_pyramid(peer, ds, twin, layer)


# ---- 5. the layout of 2021 ----------------------------------------------------------------------------


def legacy(path, channels=1, **more):
    """Make a dataset as it was in 2021: a list for the scale, whole numbers for isotropic mags."""
    layer = {
        "name": "color",
        "category": "color",
        "boundingBox": {"topLeft": [0, 0, 0], "width": 0, "height": 0, "depth": 0},
        "elementClass": "uint8" if channels == 1 else "uint24",
        "dataFormat": "wkw",
        "wkwResolutions": [
            {"resolution": 1, "cubeLength": 64},
            {"resolution": [2, 2, 1], "cubeLength": 64},
        ],
        **more,
    }
    raw = {"id": {"name": "old", "team": "mpi"}, "scale": [11.24, 11.24, 28.0], "dataLayers": [layer]}
    path.mkdir()
    (path / PROPERTIES).write_text(json.dumps(raw))
    for mag in ("1", "2-2-1"):
        header = wkw.Header(
            np.uint8, channels, block_len=32, file_len=2, block_type=wkw.Header.BLOCK_TYPE_RAW
        )
        wkw.Dataset.create(str(path / "color" / mag), header).close()
    return raw


@pytest.mark.parametrize("more", [{}, {"numChannels": 1}], ids=["", "numChannels"])
def test_the_peer_reads_a_dataset_of_2021_after_our_edits(peer, tmp_path, more):
    path, box = tmp_path / "old", OFF_GRID
    expected = legacy(path, **more)
    data = {mag: voxels((1, *in_mag(box, mag).size), seed=seed) for seed, mag in enumerate(MAGS)}
    layer = Dataset(path).get_layer("color")
    layer.get_mag(1).write(data["1"], offset=box.topleft)
    layer.get_mag("2-2-1").write(da.from_array(data["2-2-1"], chunks=31), offset=in_mag(box, "2-2-1").topleft)
    layer.add_mag("4-4-2", shard_shape=64, compression="lz4")
    layer.get_mag("4-4-2").write(data["4-4-2"], offset=in_mag(box, "4-4-2").topleft)

    (old,) = expected["dataLayers"]
    old["boundingBox"] = {"topLeft": [13, 7, 5], "width": 90, "height": 71, "depth": 40}
    old["wkwResolutions"].append({"resolution": [4, 4, 2], "cubeLength": 64})
    found = raw_properties(path)
    found["dataLayers"][0].pop("numChannels", None)
    old.pop("numChannels", None)
    assert found == expected
    theirs = peer("describe", path=path)
    assert theirs == described(path)
    assert theirs["layers"]["color"]["mags"] == MAGS
    for mag in MAGS:
        same(peer("read", path=path, layer="color", mag=mag), data[mag])


def test_a_dataset_of_2021_survives_an_edit_of_the_peer(peer, tmp_path):
    path = tmp_path / "old"
    legacy(path, channels=3, numChannels=3)
    first, second = voxels((3, 64, 40, 30)), voxels((3, 20, 40, 30), seed=1)
    expected = np.concatenate([first, second], axis=1)
    layer = Dataset(path).get_layer("color")
    layer.get_mag(1).write(first, offset=(10, 20, 30))
    peer("view_configuration", path=path, layer="color", color=[1, 2, 3])
    layer.get_mag(1).write(second, offset=(74, 20, 30))
    layer.downsample(from_mag="2-2-1", coarsest_mag=4)
    theirs = peer("describe", path=path)
    assert theirs == described(path)
    assert theirs["layers"]["color"]["mags"] == ["1", "2-2-1", "4-4-2"]
    assert theirs["layers"]["color"]["color"] == [1, 2, 3]
    same(layer.get_mag(1).read(), expected)
    same(peer("read", path=path, layer="color", mag="1"), expected)


def test_the_cubes_of_both_have_the_same_headers(peer, tmp_path):
    expected = struct.pack(
        "<3sBBBBBQ", b"WKW", 1, 0x15, 1, 2, 6, 0
    )  # 64³ cubes of 32³ chunks, RAW, uint16 times 3
    ds = Dataset.create(tmp_path / "ours", PLAIN)
    ds.add_layer("l", "color", dtype_per_channel="uint16", num_channels=3).add_mag("2-2-1", shard_shape=64)
    theirs = tmp_path / "theirs"
    peer("create", path=theirs, factor=[1, 1, 1])
    peer("add_layer", path=theirs, name="l", category="color", dtype="uint16", num_channels=3)
    peer("add_mag", path=theirs, layer="l", mag="2-2-1")
    headers = [(Path(path) / "l" / "2-2-1" / "header.wkw").read_bytes() for path in (ds.path, theirs)]
    assert headers == [expected, expected]


# ---- 6. Zarr ------------------------------------------------------------------------------------------

ZARR = [("zarr3", 64, True), ("zarr3", 64, False), ("zarr", 32, True), ("zarr", 32, False)]
zarr_formats = pytest.mark.parametrize(
    ("data_format", "shard", "compress"), ZARR, ids=["3 zstd", "3 raw", "2 zstd", "2 raw"]
)


@zarr_formats
@pytest.mark.parametrize(("category", "dtype", "channels"), LAYERS)
def test_zarr_of_the_peer_is_read_changed_and_read_by_it(
    peer, tmp_path, category, dtype, channels, data_format, shard, compress
):
    boxes = {mag: in_mag(OFF_GRID, mag) for mag in ("1", "2-2-1")}
    expected = {
        mag: voxels((channels, *box.size), dtype, seed) for seed, (mag, box) in enumerate(boxes.items())
    }
    path = tmp_path / "theirs"
    peer("create", path=path, factor=[11.24, 11.24, 28])
    peer(
        "add_layer", path=path, name="layer", category=category, dtype=dtype, num_channels=channels,
        data_format=data_format,
    )  # fmt: skip
    for mag, box in boxes.items():
        peer("add_mag", path=path, layer="layer", mag=mag, shard_shape=shard, compress=compress)
        peer_write(peer, path, "layer", mag, expected[mag], box)

    assert described(path) == peer("describe", path=path)
    layer = Dataset(path).get_layer("layer")
    assert layer.data_format == data_format
    for mag, box in boxes.items():
        view, place = layer.get_mag(mag), {"path": path, "layer": "layer", "mag": mag}
        assert view.box == box
        assert view.spec.compression == ("zstd" if compress else None)
        same(view.read(), expected[mag])
        same(view.to_dask(16)[:, 5:40, 30:, 3:9].compute(), expected[mag][:, 5:40, 30:, 3:9])
        cubes = [cube.from_mag_to_mag1(mag) for cube in view.cubes_on_disk()]
        assert peer("cubes_on_disk", **place) == sorted(map(pair, cubes))
        part = voxels((channels, 17, 9, 11), dtype, 7)
        view.write(part, offset=box.topleft + (5, 3, 2))
        expected[mag][:, 5:22, 3:12, 2:13] = part
        same(peer("read", **place), expected[mag])
        same(view.read(), expected[mag])


@zarr_formats
@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 1), ("uint8", 3), ("uint32", 1), ("float32", 1)])
def test_zarr_of_ours_is_read_changed_and_grown_by_the_peer(
    peer, tmp_path, dtype, channels, data_format, shard, compress
):
    ds = Dataset.create(tmp_path / "ours", (4, 4, 40))
    layer = ds.add_layer(
        "layer", "color", dtype_per_channel=dtype, num_channels=channels, data_format=data_format
    )
    mag = layer.add_mag(1, chunk_shape=32, shard_shape=shard, compression="zstd" if compress else False)
    expected = voxels((channels, *OFF_GRID.size), dtype)
    mag.write(expected, offset=OFF_GRID.topleft)
    place = {"path": ds.path, "layer": "layer", "mag": "1"}
    assert peer("describe", path=ds.path) == described(ds.path)
    same(peer("read", **place), expected)
    assert peer("layout_of", **place) == [[32] * 3, [shard] * 3, compress]

    far = BoundingBox((100, 130, 10), (60, 20, 30))
    data = voxels((channels, *far.size), dtype, 1)
    peer_write(peer, ds.path, "layer", "1", data, far)
    both = np.zeros((channels, 150, 150, 50), dtype)
    both[(slice(None), *OFF_GRID.to_slices((10, 0, 0)))] = expected
    both[(slice(None), *far.to_slices((10, 0, 0)))] = data
    same(mag.read(offset=(10, 0, 0), size=(150, 150, 50)), both)
    assert layer.bounding_box == OFF_GRID.extended_by(far)
    mag.write(data, offset=(300, 7, 90))
    box = pair(BoundingBox((300, 7, 90), far.size))
    same(peer("read", **place, box=box), data)


@pytest.mark.parametrize("data_format", ["zarr3", "zarr"])
def test_arrays_that_end_with_the_box_are_read_and_grown_by_the_peer(peer, tmp_path, data_format):
    with dask.config.set({"wkdask.zarr-shape": "box"}):
        layer = Dataset.create(tmp_path / "ours", (4, 4, 40)).add_layer(
            "layer", "color", data_format=data_format
        )
        mag = layer.add_mag(1, chunk_shape=32, shard_shape=64 if data_format == "zarr3" else 32)
        expected = voxels((1, *OFF_GRID.size), "uint8")
        mag.write(expected, offset=OFF_GRID.topleft)
    path = str(tmp_path / "ours")
    same(peer("read", path=path, layer="layer", mag="1"), expected)
    # It writes whole shards, for which there is no room before the box has grown and the array with it.
    far = BoundingBox((100, 130, 10), (60, 20, 30))
    data = voxels((1, *far.size), "uint8", 1)
    peer_write(peer, path, "layer", "1", data, far)
    same(mag.read(far.topleft, far.size), data)
    same(mag.read(OFF_GRID.topleft, OFF_GRID.size), expected)


def test_pyramids_of_zarr_layers_are_those_of_the_peer(peer, tmp_path):
    data = voxels((1, *OFF_GRID.size), low=1)
    paths = [tmp_path / "ours", tmp_path / "theirs"]
    for path in paths:
        layer = Dataset.create(path, (4, 4, 8)).add_layer("layer", "color", data_format="zarr3")
        layer.add_mag(1, chunk_shape=32, shard_shape=64).write(data, offset=OFF_GRID.topleft)
    Dataset(paths[0]).get_layer("layer").downsample(coarsest_mag=4)
    names = peer("downsample", path=paths[1], layer="layer", coarsest_mag=[4, 4, 2])
    ours = Dataset(paths[0]).get_layer("layer")
    assert [str(mag) for mag in ours.mags] == names
    for name in names[1:]:
        same(peer("read", path=paths[1], layer="layer", mag=name), ours.get_mag(name).read())
        same(peer("read", path=paths[0], layer="layer", mag=name), ours.get_mag(name).read())
