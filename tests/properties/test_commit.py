"""Edits of properties files: what they write in both layouts, and that nothing is lost or torn."""

import contextlib
import copy
import json
import os
import pickle
import random
import signal
import stat
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import SHARED
from small_datasets import V4_WKW
from thorough import examples

from wkdask import errors, fsio
from wkdask.geometry import EMPTY_BOX, BoundingBox, Mag, Vec3Int
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.properties import (
    PROPERTIES_FILE,
    AddLayer,
    AddMag,
    GrowBox,
    RaiseSegmentId,
    RemoveLayer,
    RemoveMag,
    RenameLayer,
    SetBox,
    SetDatasetName,
    SetMappings,
    SetSegmentId,
    SetViewConfiguration,
    commit,
    create,
    load,
    parse,
)
from wkdask.properties.values import NoteMinMax
from wkdask.testing import boxes

SAMPLES = SHARED / "data" / "samples"
AXES = {"c": 0, "x": 1, "y": 2, "z": 3}
NM = VoxelSize((11.24, 11.24, 28))


def on_disk(folder):
    return json.loads((folder / PROPERTIES_FILE).read_text())


def put(folder, raw):
    (folder / PROPERTIES_FILE).write_text(json.dumps(raw))


def old_layer(name="color", mags=((1, 1024),), **more):
    return {
        "name": name,
        "category": "color",
        "boundingBox": {"topLeft": [0, 0, 0], "width": 64, "height": 64, "depth": 64},
        "elementClass": "uint8",
        "dataFormat": "wkw",
        "wkwResolutions": [{"resolution": mag, "cubeLength": length} for mag, length in mags],
        **more,
    }


def v4_layer(name="color", **more):
    entry = {"mag": [1, 1, 1], "path": f"./{name}/1", "cubeLength": 1024, "axisOrder": AXES}
    layer = {**old_layer(name), "mags": [entry], "numChannels": 1}
    del layer["wkwResolutions"]
    return {**layer, **more}


def old_file(*layers):
    return {"id": {"name": "old", "team": "t"}, "scale": [11.24, 11.24, 28], "dataLayers": list(layers)}


def v4_file(*layers):
    scale = {"factor": [11.24, 11.24, 28.0], "unit": "nanometer"}
    return {"id": {"name": "new", "team": "t"}, "scale": scale, "dataLayers": list(layers), "version": 1}


# --- a new dataset ----------------------------------------------------------------------------------


def test_a_v4_dataset_is_written_as_webknossos_4_writes_it(tmp_path):
    folder = tmp_path / "made" / "on the way"
    create(folder, "v4wkw", NM)
    record = commit(
        folder,
        [
            AddLayer("color", "color", "uint8", 3),
            AddMag("color", Mag(1), 64),
            GrowBox("color", BoundingBox((3, 5, 7), (100, 60, 40)), Mag(1)),
            AddMag("color", Mag("2-2-1"), 1024),
            AddMag("color", Mag("4-4-2"), 1024),
            AddLayer("segmentation", "segmentation", "uint64", 1, largest_segment_id=5),
            AddMag("segmentation", Mag(1), 64),
            SetBox("segmentation", BoundingBox((0, 0, 0), (64, 64, 64))),
            RaiseSegmentId("segmentation", 2**60),
        ],
    )
    text = (folder / PROPERTIES_FILE).read_text()
    assert text == json.dumps(json.loads(V4_WKW), indent=4)  # the order of the keys too
    assert record == load(folder) == parse(V4_WKW, "x")


def test_a_legacy_dataset_is_written_as_in_2021(tmp_path):
    record = create(tmp_path, "sbem", VoxelSize((0.01, 0.01, 0.028), "micrometer"), layout="legacy")
    assert (record.layout, record.layers) == ("legacy", ())
    commit(
        tmp_path,
        [
            AddLayer("color", "color", "uint8", 1, bounding_box=BoundingBox((1, 2, 3), (4, 5, 6))),
            AddMag("color", Mag(1), 1024, path="./color/1"),
            AddMag("color", Mag("2-2-1"), 1024),
            AddLayer("seg", "segmentation", "uint32", 1, largest_segment_id=7, mappings=("axons",)),
            AddLayer("unknown", "segmentation", "float", 3),
            AddLayer("z", "color", "uint16", 1, data_format="zarr3"),
            AddMag("z", Mag(1), None),
        ],
    )
    box0 = {"topLeft": [0, 0, 0], "width": 0, "height": 0, "depth": 0}
    assert on_disk(tmp_path) == {
        "id": {"name": "sbem", "team": ""},
        "scale": pytest.approx([10, 10, 28]),
        "dataLayers": [
            {
                "name": "color",
                "category": "color",
                "boundingBox": {"topLeft": [1, 2, 3], "width": 4, "height": 5, "depth": 6},
                "elementClass": "uint8",
                "dataFormat": "wkw",
                "numChannels": 1,
                "wkwResolutions": [
                    {"resolution": [1, 1, 1], "cubeLength": 1024},
                    {"resolution": [2, 2, 1], "cubeLength": 1024},
                ],
            },
            {
                "name": "seg",
                "category": "segmentation",
                "boundingBox": box0,
                "elementClass": "uint32",
                "dataFormat": "wkw",
                "numChannels": 1,
                "wkwResolutions": [],
                "largestSegmentId": 7,
                "mappings": ["axons"],
            },
            {
                "name": "unknown",
                "category": "segmentation",
                "boundingBox": box0,
                "elementClass": "float96",
                "dataFormat": "wkw",
                "numChannels": 3,
                "wkwResolutions": [],
                "largestSegmentId": None,
                "mappings": [],
            },
            {
                "name": "z",
                "category": "color",
                "boundingBox": box0,
                "dataFormat": "zarr3",
                "mags": [{"mag": [1, 1, 1], "path": "./z/1", "axisOrder": AXES}],
                "numChannels": 1,
                "elementClass": "uint16",
            },
        ],
    }
    assert load(tmp_path).layout == "legacy"


def test_create_refuses_what_is_there(tmp_path):
    create(tmp_path, "a", NM)
    before = (tmp_path / PROPERTIES_FILE).read_bytes()
    with pytest.raises(errors.AlreadyExistsError, match=PROPERTIES_FILE):
        create(tmp_path, "b", NM)
    assert (tmp_path / PROPERTIES_FILE).read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.AlreadyExistsError, match="a file is there"):
        create(tmp_path / "file", "b", NM)
    with pytest.raises(errors.InvalidValueError, match="layout"):
        create(tmp_path / "x", "b", NM, layout="v3")
    with pytest.raises(errors.InvalidValueError, match="name"):
        create(tmp_path / "x", "", NM)
    assert not (tmp_path / "x").exists()


def test_of_two_creators_one_wins(tmp_path):
    for round_ in range(10):
        folder, outcomes, start = tmp_path / str(round_), [], threading.Barrier(4)

        def make(name, folder=folder, outcomes=outcomes, start=start):
            start.wait()
            try:
                outcomes.append(create(folder, name, NM).name)
            except errors.AlreadyExistsError:
                outcomes.append(None)

        threads = [threading.Thread(target=make, args=(f"n{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes, key=str)[:3] == [None] * 3
        assert load(folder).name in outcomes


# --- layers and mags in files that are there --------------------------------------------------------


def test_a_file_of_2021_keeps_its_layout(tmp_path):
    raw = old_file(old_layer(mags=((1, 1024), ([2, 2, 1], 512))))
    put(tmp_path, raw)
    commit(
        tmp_path,
        [AddMag("color", Mag(4), 256), RemoveMag("color", Mag(1)), AddLayer("b", "color", "uint8", 1)],
    )
    raw["dataLayers"][0]["wkwResolutions"] = [
        {"resolution": [2, 2, 1], "cubeLength": 512},
        {"resolution": [4, 4, 4], "cubeLength": 256},
    ]
    now = on_disk(tmp_path)
    assert now["dataLayers"].pop()["wkwResolutions"] == []
    assert now == raw


@pytest.mark.parametrize(
    "path", ["../other/color/2", "/data/color/2", "s3://bucket/color/2", "./color/2-2-2"]
)
def test_a_legacy_layer_with_a_path_moves_to_mags(tmp_path, path):
    layer = old_layer()
    layer["wkwResolutions"][0]["credentials"] = {"k": 1}
    put(tmp_path, old_file(layer))
    record = commit(tmp_path, [AddMag("color", Mag(2), 512, path)])
    (now,) = on_disk(tmp_path)["dataLayers"]
    assert "wkwResolutions" not in now
    assert now["mags"] == [
        {"mag": [1, 1, 1], "cubeLength": 1024, "credentials": {"k": 1}, "axisOrder": AXES},
        {"mag": [2, 2, 2], "path": path, "cubeLength": 512, "axisOrder": AXES},
    ]
    assert record.layer("color").mag(2).path == path
    assert record.layout == "legacy"


def test_both_lists_are_edited_while_the_old_one_is_complete(tmp_path):
    layer = v4_layer(wkwResolutions=[{"resolution": 1, "cubeLength": 1024}])
    put(tmp_path, v4_file(layer))
    commit(tmp_path, [AddMag("color", Mag(2), 512)])
    (now,) = on_disk(tmp_path)["dataLayers"]
    assert [entry["mag"] for entry in now["mags"]] == [[1, 1, 1], [2, 2, 2]]
    assert now["wkwResolutions"][1:] == [{"resolution": [2, 2, 2], "cubeLength": 512}]
    commit(tmp_path, [RemoveMag("color", Mag(1))])
    (now,) = on_disk(tmp_path)["dataLayers"]
    assert [entry["mag"] for entry in now["mags"]] == [[2, 2, 2]]
    assert [entry["resolution"] for entry in now["wkwResolutions"]] == [[2, 2, 2]]
    commit(tmp_path, [AddMag("color", Mag(4), 512, "../elsewhere/4")])  # the old list cannot say that
    (now,) = on_disk(tmp_path)["dataLayers"]
    assert "wkwResolutions" not in now
    assert [entry["mag"] for entry in now["mags"]] == [[2, 2, 2], [4, 4, 4]]


def test_an_incomplete_old_list_stays_as_it_is(tmp_path):
    layer = v4_layer(wkwResolutions=[{"resolution": 8, "cubeLength": 1024}])
    put(tmp_path, v4_file(layer))
    commit(tmp_path, [AddMag("color", Mag(2), 512)])
    (now,) = on_disk(tmp_path)["dataLayers"]
    assert now["wkwResolutions"] == layer["wkwResolutions"]
    assert [entry["mag"] for entry in now["mags"]] == [[1, 1, 1], [2, 2, 2]]


def test_extra_keys(tmp_path):
    create(tmp_path, "d", NM)
    view = {"color": [1, 2, 3]}
    add = AddLayer("a", "color", "uint8", 1, data_format="zarr3", extra={"defaultViewConfiguration": view})
    order = {"z": 0, "y": 1, "x": 2}
    commit(tmp_path, [add, AddMag("a", Mag(1), None, extra={"axisOrder": order, "channelIndex": 2})])
    view["color"].append(4)  # a copy was taken
    layer = load(tmp_path).layer("a")
    assert layer.default_view_configuration == {"color": [1, 2, 3]}
    assert layer.mags[0].raw == {"mag": [1, 1, 1], "path": "./a/1", "axisOrder": order, "channelIndex": 2}


def test_rename_moves_the_paths_below_the_folder(tmp_path):
    here = str(tmp_path)
    paths = ["./color/1", "color/2", f"{here}/color/4", f"../{tmp_path.name}/color/8", "./color"]
    others = ["./colors/16", "../color/32", "s3://x/color/64", "/color/128", "./a/color/256"]
    mags = [{"mag": 2**i, "path": path} for i, path in enumerate(paths + others)]
    attachments = {
        "meshes": [{"name": "m", "path": "./color/meshes/m"}],
        "segmentIndex": {"path": "./color/i"},
    }
    put(tmp_path, v4_file(v4_layer(mags=mags, attachments=attachments), v4_layer("b", mags=mags[:1])))
    record = commit(tmp_path, [RenameLayer("color", "new.name")])
    moved = [f"./new.name/{n}" for n in (1, 2, 4, 8)] + ["./new.name"]
    assert [m.path for m in record.layer("new.name").mags] == moved + others
    assert record.layer("b").mags[0].path == "./new.name/1"
    assert record.layer("new.name").raw["attachments"] == {
        "meshes": [{"name": "m", "path": "./new.name/meshes/m"}],
        "segmentIndex": {"path": "./new.name/i"},
    }
    assert commit(tmp_path, [RenameLayer("b", "b")]) == record


# --- boxes ------------------------------------------------------------------------------------------


def grown(current, box, mag):
    raw = v4_file(v4_layer(boundingBox=current.to_wkw_dict()))
    GrowBox("color", box, Mag(mag)).apply(raw)
    return parse(json.dumps(raw), "x").layers[0].bounding_box


@pytest.mark.parametrize(
    ("current", "box", "mag", "expected"),
    [
        (EMPTY_BOX, ((10, 10, 10), (10, 10, 10)), 1, ((10, 10, 10), (10, 10, 10))),
        (((10, 10, 10), (10, 10, 10)), ((5, 5, 20), (10, 10, 5)), 1, ((5, 5, 10), (15, 15, 15))),
        (((0, 0, 0), (24, 24, 24)), ((0, 0, 0), (1, 1, 48)), 1, ((0, 0, 0), (24, 24, 48))),
        (((0, 0, 0), (24, 24, 24)), ((10, 10, 10), (50, 1, 48)), (2, 2, 1), ((0, 0, 0), (120, 24, 58))),
        (((3, 5, 7), (100, 60, 40)), ((1, 2, 7), (51, 31, 40)), (2, 2, 1), ((3, 5, 7), (100, 60, 40))),
        (((3, 5, 7), (100, 60, 40)), ((0, 2, 7), (53, 31, 40)), (2, 2, 1), ((0, 5, 7), (106, 60, 40))),
        (((5, 5, 5), (0, 9, 9)), ((1, 1, 1), (2, 2, 2)), 4, ((4, 4, 4), (8, 8, 8))),
        (((5, 5, 5), (9, 9, 9)), ((0, 0, 0), (0, 2, 2)), 1, ((5, 5, 5), (9, 9, 9))),
    ],
)
def test_grow_box(current, box, mag, expected):
    current = current if isinstance(current, BoundingBox) else BoundingBox(*current)
    assert grown(current, BoundingBox(*box), mag) == BoundingBox(*expected)


mags = st.tuples(*[st.sampled_from([1, 2, 4, 8])] * 3)


@settings(deadline=None)
@given(boxes(1, 40, 40), boxes(1, 40, 40), mags)
def test_growing_covers_what_was_written_and_no_more(current, box, mag):
    step = Vec3Int(mag)
    new, written = grown(current, box, mag), box.from_mag_to_mag1(mag)
    assert new.contains_bbox(current)
    assert new.aligned_outwards(step).contains_bbox(written)
    assert current.extended_by(written).contains_bbox(new)
    assert grown(new, box, mag) == new
    if current.aligned_outwards(step).contains_bbox(written):
        assert new == current
    if mag == (1, 1, 1):
        assert new == current.extended_by(box)


@settings(deadline=None)
@given(st.lists(boxes(1, 40, 40), min_size=1, max_size=5), st.randoms())
def test_the_order_of_growing_does_not_matter(pieces, rng):
    shuffled = pieces[:]
    rng.shuffle(shuffled)
    results = []
    for order in (pieces, shuffled):
        box = EMPTY_BOX
        for piece in order:
            box = grown(box, piece, 1)
        results.append(box)
    assert results[0] == results[1]


def test_a_legacy_empty_box_grows_and_unknown_keys_in_it_stay():
    box = {"topLeft": [-1, -1, -1], "width": 0, "height": 0, "depth": 0, "x": 1}
    raw = v4_file(v4_layer(boundingBox=box))
    GrowBox("color", BoundingBox((1, 2, 3), (4, 5, 6)), Mag(2)).apply(raw)
    assert raw["dataLayers"][0]["boundingBox"] == {
        "topLeft": [2, 4, 6],
        "width": 8,
        "height": 10,
        "depth": 12,
        "x": 1,
    }


def test_an_impossible_box_can_be_set_but_not_grown(tmp_path):
    put(tmp_path, v4_file(v4_layer(boundingBox={"topLeft": [0, 0, 0], "width": 2**63})))
    box = BoundingBox((0, 0, 0), (1, 1, 1))
    with pytest.raises(errors.PropertiesError, match="'color'"):
        commit(tmp_path, [GrowBox("color", box, Mag(1))])
    assert commit(tmp_path, [SetBox("color", box)]).layer("color").bounding_box == box


# --- ids, mappings, views, names --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        (None, 5, 5),
        (None, None, None),
        (None, -3, None),
        (7, 5, 7),
        (7, np.uint64(9), 9),
        (7, None, 7),
        (7, 2**53 - 1, 2**53 - 1),
        (7, 2**53, {"customJsonEncoding": "bigint", "value": "9007199254740992"}),
        ({"customJsonEncoding": "bigint", "value": "9007199254740993"}, 2**53, ...),
        (2**60, 2**59, 2**60),
    ],
)
def test_raise_segment_id(before, value, after):
    raw = v4_file(v4_layer(category="segmentation", largestSegmentId=before))
    RaiseSegmentId("color", value).apply(raw)
    assert raw["dataLayers"][0]["largestSegmentId"] == (before if after is ... else after)


def test_ids_and_mappings(tmp_path):
    put(tmp_path, v4_file(v4_layer("s", category="segmentation"), v4_layer()))
    commit(tmp_path, [SetSegmentId("s", 3), SetMappings("s", ("a", "b")), RaiseSegmentId("color", 9)])
    segmentation, color = on_disk(tmp_path)["dataLayers"]
    assert (segmentation["largestSegmentId"], segmentation["mappings"]) == (3, ["a", "b"])
    assert "largestSegmentId" not in color
    commit(tmp_path, [SetSegmentId("s", 1), SetMappings("s", ())])
    assert load(tmp_path).layer("s").largest_segment_id == 1
    commit(tmp_path, [SetSegmentId("s", None)])
    assert on_disk(tmp_path) == v4_file(v4_layer("s", category="segmentation"), v4_layer())
    old = old_file(old_layer("s", category="segmentation", largestSegmentId=4, mappings=["a"]))
    put(tmp_path, old)
    commit(tmp_path, [SetSegmentId("s", None), SetMappings("s", ())])
    (layer,) = on_disk(tmp_path)["dataLayers"]
    assert (layer["largestSegmentId"], layer["mappings"]) == (None, [])


def test_views_and_the_name(tmp_path):
    put(tmp_path, v4_file(v4_layer(), v4_layer("b")))
    view = {"color": (255, 0, 0), "alpha": 0.5}
    record = commit(
        tmp_path,
        [
            SetViewConfiguration("color", view),
            SetViewConfiguration("b", view),
            SetViewConfiguration(None, {"zoom": 2}),
            SetDatasetName("ü/x"),
        ],
    )
    assert (record.name, record.default_view_configuration) == ("ü/x", {"zoom": 2})
    assert record.layer("b").default_view_configuration == {"color": [255, 0, 0], "alpha": 0.5}
    assert on_disk(tmp_path)["id"] == {"name": "ü/x", "team": "t"}
    edits = [SetViewConfiguration(name, None) for name in ("color", "b", None)] + [SetDatasetName("new")]
    commit(tmp_path, edits)
    assert on_disk(tmp_path) == v4_file(v4_layer(), v4_layer("b"))


def test_the_range_of_an_image_is_noted_unless_one_is_set(tmp_path):
    cells = v4_layer("cells") | {"category": "segmentation"}
    put(tmp_path, v4_file(*(v4_layer(name) for name in "abcd"), cells))
    commit(
        tmp_path,
        [
            SetViewConfiguration("b", {"color": (255, 0, 0)}),
            SetViewConfiguration("c", {"max": 9.0}),
            SetViewConfiguration("d", {"intensityRange": (3, 4)}),
        ],
    )
    commit(tmp_path, [NoteMinMax(name, 2.0, 200.0) for name in ("a", "b", "c", "d", "cells")])
    found = {
        layer["name"]: layer.get("defaultViewConfiguration") for layer in on_disk(tmp_path)["dataLayers"]
    }
    assert found == {
        "a": {"min": 2.0, "max": 200.0},
        "b": {"color": [255, 0, 0], "min": 2.0, "max": 200.0},
        "c": {"max": 9.0},
        "d": {"intensityRange": [3, 4]},
        "cells": cells.get("defaultViewConfiguration"),
    }


# --- failing edits ----------------------------------------------------------------------------------

BOX = BoundingBox((0, 0, 0), (1, 1, 1))
BIG = BoundingBox((2**32 - 4, 0, 0), (8, 8, 8))
BELOW = BoundingBox((-1, 0, 0), (8, 8, 8))
FAILING = [
    (AddLayer("color", "color", "uint8", 1), errors.AlreadyExistsError, "'color'"),
    (AddLayer("x", "video", "uint8", 1), errors.InvalidValueError, "category"),
    (AddLayer("x", "color", "uint12", 1), errors.DTypeError, "uint12"),
    (AddLayer("x", "color", "bool", 1), errors.DTypeError, "bool"),
    (AddLayer("x", "color", "uint8", 0), errors.InvalidValueError, "channels"),
    (AddLayer("x", "color", "uint8", 1.0), errors.InvalidValueError, "channels"),
    (AddLayer("x", "color", "uint8", 1, bounding_box=BIG), errors.OutOfBoundsError, r"2\^32"),
    (AddLayer("x", "color", "uint8", 1, largest_segment_id=3), errors.InvalidValueError, "color layer"),
    (AddLayer("x", "segmentation", "uint8", 1, mappings="abc"), errors.InvalidValueError, "mappings"),
    (AddLayer("x", "color", "uint8", 1, extra={"name": "y"}), errors.InvalidValueError, "cannot set name"),
    (AddLayer("x", "color", "uint8", 1, extra={"wkwResolutions": []}), errors.InvalidValueError, "wkwRes"),
    (AddLayer("x", "color", "uint8", 1, extra={"y": {1j}}), errors.InvalidValueError, "not JSON"),
    (
        AddLayer("x", "color", "uint8", 1, extra={"attachments": {}, "mags": 1}),
        errors.InvalidValueError,
        "mags",
    ),
    (RemoveLayer("x"), errors.LayerNotFoundError, r"'x'; the dataset has: 'color', 's'"),
    (RenameLayer("x", "y"), errors.LayerNotFoundError, "'x'"),
    (RenameLayer("color", "s"), errors.AlreadyExistsError, "'s'"),
    (RenameLayer("color", "../s"), errors.InvalidValueError, "name"),
    (AddMag("x", Mag(1), 64), errors.LayerNotFoundError, "'x'"),
    (AddMag("color", Mag(1), 64), errors.AlreadyExistsError, "mag 1"),
    (AddMag("color", Mag(2), None), errors.InvalidValueError, "cube length"),
    (AddMag("color", Mag(2), 0), errors.InvalidValueError, "cube length"),
    (AddMag("color", Mag(2), 64, path=""), errors.InvalidValueError, "path"),
    (AddMag("color", Mag(2), 64, path="a\0"), errors.InvalidValueError, "NUL"),
    (AddMag("color", Mag(2), 64, extra={"path": "x"}), errors.InvalidValueError, "cannot set path"),
    (RemoveMag("color", Mag(2)), errors.MagNotFoundError, "it has: 1"),
    (RemoveMag("x", Mag(2)), errors.LayerNotFoundError, "'x'"),
    (GrowBox("x", BOX, Mag(1)), errors.LayerNotFoundError, "'x'"),
    (GrowBox("color", BIG, Mag(1)), errors.OutOfBoundsError, r"2\^32"),
    (GrowBox("color", BELOW, Mag(1)), errors.OutOfBoundsError, "from 0"),
    (SetBox("color", BELOW), errors.OutOfBoundsError, "from 0"),
    (SetBox("x", BOX), errors.LayerNotFoundError, "'x'"),
    (RaiseSegmentId("x", 3), errors.LayerNotFoundError, "'x'"),
    (RaiseSegmentId("s", 2**64), errors.InvalidValueError, "segment id"),
    (SetSegmentId("s", -1), errors.InvalidValueError, "segment id"),
    (SetSegmentId("s", 1.5), errors.InvalidValueError, "segment id"),
    (SetSegmentId("s", True), errors.InvalidValueError, "segment id"),
    (SetSegmentId("color", 1), errors.InvalidValueError, "color layer"),
    (SetMappings("color", ("a",)), errors.InvalidValueError, "color layer"),
    (SetMappings("s", (1,)), errors.InvalidValueError, "mappings"),
    (SetViewConfiguration("x", {}), errors.LayerNotFoundError, "'x'"),
    (SetViewConfiguration(None, {"a": np.zeros(3)}), errors.InvalidValueError, "not JSON"),
    (SetViewConfiguration(None, {"a": float("nan")}), errors.InvalidValueError, "not JSON"),
    (SetDatasetName(""), errors.InvalidValueError, "empty"),
    *[
        (AddLayer(name, "color", "uint8", 1), errors.InvalidValueError, "name")
        for name in ("", ".", "..", ".x", "a/b", "a b", "ü", "a\n", "a\0", 5)
    ],
]


@pytest.mark.parametrize(("edit", "error", "message"), FAILING, ids=lambda value: type(value).__name__)
def test_a_failing_edit_leaves_the_file_untouched(tmp_path, edit, error, message):
    put(tmp_path, v4_file(v4_layer(), v4_layer("s", category="segmentation")))
    before = (tmp_path / PROPERTIES_FILE).read_bytes()
    with pytest.raises(error, match=message):
        commit(tmp_path, [SetDatasetName("changed"), edit])
    assert (tmp_path / PROPERTIES_FILE).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == [".wkdask", PROPERTIES_FILE]


def test_edits_are_plain_values():
    for edit, _, _ in FAILING:
        if "1j" not in repr(edit) and "array" not in repr(edit) and "nan" not in repr(edit):
            assert pickle.loads(pickle.dumps(edit)) == edit


def test_files_that_cannot_be_edited(tmp_path):
    with pytest.raises(FileNotFoundError, match="no dataset"):
        commit(tmp_path / "nowhere", [])
    with pytest.raises(FileNotFoundError, match="no dataset"):
        commit(tmp_path, [SetDatasetName("x")])
    assert os.listdir(tmp_path) == []  # no lock was left in a wrong folder
    for text in ("", '{"id":', "[]"):
        (tmp_path / PROPERTIES_FILE).write_text(text)
        with pytest.raises(errors.PropertiesError):
            commit(tmp_path, [SetDatasetName("x")])
        assert (tmp_path / PROPERTIES_FILE).read_text() == text


# --- nothing is lost --------------------------------------------------------------------------------

EVERY_EDIT = [
    AddLayer("b", "segmentation", "uint32", 1),
    AddMag("b", Mag(1), 64),
    AddMag("color", Mag(2), 64),
    GrowBox("color", BoundingBox((9, 9, 9), (99, 99, 99)), Mag(2)),
    RaiseSegmentId("b", 2**60),
    SetSegmentId("b", 5),
    SetMappings("b", ("m",)),
    SetViewConfiguration("b", {"a": 1}),
    RenameLayer("b", "c"),
    RemoveMag("color", Mag(2)),
    SetBox("color", BoundingBox((0, 0, 0), (64, 64, 64))),
    RemoveLayer("c"),
]
UNKNOWN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**53, 2**90)
    | st.floats(allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=examples(40), deadline=None)  # a dozen fsyncs each
@given(UNKNOWN, st.booleans())
def test_unknown_keys_survive_every_edit(tmp_path_factory, unknown, old):
    folder = tmp_path_factory.mktemp("d")
    raw = old_file(old_layer()) if old else v4_file(v4_layer())
    for holder in (raw, raw["id"], raw["dataLayers"][0], raw["dataLayers"][0]["boundingBox"]):
        holder["unknown"] = unknown
    for key in ("mags", "wkwResolutions"):
        for entry in raw["dataLayers"][0].get(key, []):
            entry["unknown"] = unknown
    if not old:
        raw["scale"]["unknown"] = unknown
    put(folder, raw)
    for edit in EVERY_EDIT:
        commit(folder, [edit])
    assert json.dumps(on_disk(folder)) == json.dumps(raw)


def test_numbers_keep_their_value(tmp_path):
    numbers = (
        "[1e3, 11.239999771118164, 9007199254740993, -0.0, 5e-324, 123456789012345678901234567890, 0.1, NaN]"
    )
    text = json.dumps(v4_file()).replace('"version"', f'"numbers": {numbers}, "version"')
    (tmp_path / PROPERTIES_FILE).write_text(text)
    commit(tmp_path, [SetDatasetName("x")])
    assert repr(on_disk(tmp_path)["numbers"]) == repr(json.loads(numbers))


@pytest.mark.parametrize(
    "name",
    [
        "old_wkw_dataset",
        "simple_wkw_dataset",
        "simple_zarr_dataset",
        "simple_zarr3_dataset",
        "complex_property_ds",
    ],
)
def test_files_of_other_programs_round_trip(tmp_path, name):
    if not (SAMPLES / name).is_dir():
        pytest.skip(f"the samples of other programs are not at {SAMPLES}")
    data = (SAMPLES / name / PROPERTIES_FILE).read_bytes()
    (tmp_path / PROPERTIES_FILE).write_bytes(data)
    commit(tmp_path, [])
    assert (tmp_path / PROPERTIES_FILE).read_bytes() == data  # nothing changed: not even the spaces
    expected = json.loads(data)
    name = expected["id"]["name"]
    commit(tmp_path, [SetDatasetName("x"), AddLayer("added", "segmentation", "uint64", 1)])
    commit(tmp_path, [SetDatasetName(name), RemoveLayer("added")])
    assert json.dumps(on_disk(tmp_path)) == json.dumps(expected)


def test_nothing_is_written_where_nothing_changes(tmp_path):
    put(tmp_path, v4_file(v4_layer()))
    before = os.stat(tmp_path / PROPERTIES_FILE)
    record = commit(
        tmp_path, [GrowBox("color", BOX, Mag(1)), RaiseSegmentId("color", 4), SetDatasetName("new")]
    )
    after = os.stat(tmp_path / PROPERTIES_FILE)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert record == load(tmp_path)


def test_a_second_handle_does_not_lose_the_first(tmp_path):
    create(tmp_path, "d", NM)
    commit(tmp_path, [AddLayer("a", "color", "uint8", 1)])
    record = commit(tmp_path, [AddLayer("b", "color", "uint8", 1)])
    assert [layer.name for layer in record.layers] == ["a", "b"]


def test_mode_and_links_stay(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    create(real, "d", NM)
    os.chmod(real / PROPERTIES_FILE, 0o640)
    link.mkdir()
    (link / PROPERTIES_FILE).symlink_to(real / PROPERTIES_FILE)
    commit(link, [SetDatasetName("x")])
    assert (link / PROPERTIES_FILE).is_symlink()
    assert load(real).name == "x"
    assert stat.S_IMODE(os.stat(real / PROPERTIES_FILE).st_mode) == 0o640
    assert os.listdir(link) == [PROPERTIES_FILE]  # one lock for both, beside the real file


def test_a_failed_write_changes_nothing(tmp_path, monkeypatch):
    create(tmp_path, "d", NM)

    def fail(path, data):
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(fsio, "atomic_write", fail)
    with pytest.raises(OSError, match="No space"):
        commit(tmp_path, [SetDatasetName("x")])
    monkeypatch.undo()
    assert load(tmp_path).name == "d"
    assert commit(tmp_path, [SetDatasetName("y")]).name == "y"  # the lock is free


@pytest.mark.parametrize("depth", [200, 400, 600, 800, 900, 980])
def test_a_deep_file_is_edited_or_refused(tmp_path, depth):
    text = json.dumps(v4_file()).replace('"version"', f'"deep": {"[" * depth + "]" * depth}, "version"')
    (tmp_path / PROPERTIES_FILE).write_text(text)
    refusal = None
    try:
        commit(tmp_path, [SetDatasetName("x")])
    except errors.PropertiesError as error:
        refusal = str(error)
    if refusal is None:
        assert load(tmp_path).name == "x"
    else:
        assert "nested" in refusal
        assert (tmp_path / PROPERTIES_FILE).read_text() == text


# --- races and kills, with real processes -----------------------------------------------------------

GROW = """
import sys
from wkdask.geometry import BoundingBox, Mag
from wkdask.properties import GrowBox, RaiseSegmentId, commit
folder, worker, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for i in range(rounds):
    corner = [1000, 1000, 1000]
    size = [10, 10, 10]
    axis = worker % 3
    if worker == 3:
        corner = [1000 - 5 * (i + 1)] * 3
    else:
        size[axis] += (worker + 1) * (i + 1)
    commit(folder, [GrowBox("s", BoundingBox(corner, size), Mag(1)), RaiseSegmentId("s", 1000 * worker + i)])
"""


@contextlib.contextmanager
def started(code, *arguments):
    """A process that has said it is ready; it is gone at the end, whatever happens in the test."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_processes_that_grow_one_box_get_the_exact_union(tmp_path):
    rounds = 80
    create(tmp_path, "race", NM)
    commit(tmp_path, [AddLayer("s", "segmentation", "uint32", 1)])
    reads = 0
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(started(GROW, tmp_path, worker, rounds)) for worker in range(4)]
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        while any(writer.poll() is None for writer in writers):
            load(tmp_path)  # never unparsable
            reads += 1
    assert [writer.returncode for writer in writers] == [0] * 4
    assert reads > 50
    layer = load(tmp_path).layer("s")
    low, base = 1000 - 5 * rounds, 1010
    far = [base + 1 * rounds, base + 2 * rounds, base + 3 * rounds]
    assert layer.bounding_box == BoundingBox.from_corners((low, low, low), far)
    assert layer.largest_segment_id == 3000 + rounds - 1
    assert sorted(os.listdir(tmp_path)) == [".wkdask", PROPERTIES_FILE]


SAVE = """
import sys
from wkdask.properties import SetDatasetName, commit
i = 0
while True:
    commit(sys.argv[1], [SetDatasetName(str(i) * 2000)])
    if i == 2:
        print("ready", flush=True)
    i += 1
"""


@pytest.mark.slow
def test_a_kill_while_saving_leaves_a_valid_file(tmp_path):
    create(tmp_path, "kills", NM)
    commit(tmp_path, [AddLayer("color", "color", "uint8", 1), AddMag("color", Mag(1), 64)])
    expected = load(tmp_path).layers
    rng = random.Random(3)
    for _ in range(20):
        with started(SAVE, tmp_path) as writer:
            time.sleep(rng.uniform(0, 0.03))
            writer.send_signal(signal.SIGKILL)
        assert load(tmp_path).layers == expected
    commit(tmp_path, [SetDatasetName("end")])  # the lock is free, the litter goes
    assert sorted(os.listdir(tmp_path)) == [".wkdask", PROPERTIES_FILE]


def test_threads_do_not_lose_edits(tmp_path):
    create(tmp_path, "t", NM)
    names = [f"l{i}" for i in range(12)]
    threads = [
        threading.Thread(target=commit, args=(tmp_path, [AddLayer(name, "color", "uint8", 1)]))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(layer.name for layer in load(tmp_path).layers) == sorted(names)


def test_apply_does_not_share_with_the_edit():
    raw = v4_file()
    edit = AddLayer("a", "color", "uint8", 1, extra={"deep": {"list": [1]}})
    edit.apply(raw)
    raw["dataLayers"][0]["deep"]["list"].append(2)
    other = copy.deepcopy(v4_file())
    edit.apply(other)
    assert other["dataLayers"][0]["deep"] == {"list": [1]}
