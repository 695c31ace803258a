"""Reading properties files: what comes out of both layouts, and what hostile files get."""

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import SHARED
from small_datasets import V4_WKW

from wkdask.errors import (
    DTypeError,
    InvalidValueError,
    LayerNotFoundError,
    MagNotFoundError,
    PropertiesError,
)
from wkdask.geometry import EMPTY_BOX, BoundingBox, Mag
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.properties import PROPERTIES_FILE, dtype_of, element_class, load, parse

SAMPLES = SHARED / "data" / "samples"

OLD = """{"id":{"name":"sbem","team":""},
 "scale":[11.24,11.24,28],
 "dataLayers":[
  {"name":"color","category":"color",
   "boundingBox":{"topLeft":[0,0,0],"width":2048,"height":1536,"depth":512},
   "elementClass":"uint8","dataFormat":"wkw","numChannels":1,
   "wkwResolutions":[{"resolution":1,"cubeLength":1024},{"resolution":[2,2,1],"cubeLength":1024}]},
  {"name":"segmentation","category":"segmentation",
   "boundingBox":{"topLeft":[128,128,64],"width":1024,"height":1024,"depth":256},
   "elementClass":"uint32","dataFormat":"wkw","numChannels":1,
   "wkwResolutions":[{"resolution":[1,1,1],"cubeLength":1024}],
   "largestSegmentId":1000000,"mappings":["axons"]}]}"""

V4_ZARR = """{"id":{"name":"v4zarr3","team":""},
 "scale":{"factor":[0.5,0.5,1.0],"unit":"micrometer"},
 "dataLayers":[
  {"name":"color","category":"color",
   "boundingBox":{"topLeft":[0,0,0],"width":100,"height":60,"depth":40},
   "dataFormat":"zarr3",
   "mags":[{"mag":[1,1,1],"path":"./color/1","axisOrder":{"c":0,"x":1,"y":2,"z":3}}],
   "defaultViewConfiguration":{"color":[255,0,0],"intensityRange":[0,1]},
   "coordinateTransformations":[{"type":"affine","matrix":[[1.0,0.0,0.0,1.0],[0.0,1.0,0.0,2.0],[0.0,0.0,1.0,3.0],[0.0,0.0,0.0,1.0]]}],
   "numChannels":1,"elementClass":"float"},
  {"name":"segmentation","category":"segmentation",
   "boundingBox":{"topLeft":[0,0,0],"width":64,"height":64,"depth":64},
   "dataFormat":"zarr3",
   "mags":[{"mag":[2,2,1],"path":"./segmentation/2-2-1","axisOrder":{"c":0,"x":1,"y":2,"z":3}}],
   "numChannels":1,"elementClass":"uint32"},
  {"name":"t","category":"color",
   "boundingBox":{"topLeft":[0,0,0],"width":10,"height":20,"depth":30},
   "dataFormat":"zarr3",
   "mags":[{"mag":[1,1,1],"path":"./t/1","axisOrder":{"z":1,"y":2,"x":3}}],
   "additionalAxes":[{"name":"t","bounds":[0,7],"index":0}],
   "numChannels":1,"elementClass":"uint8"}],
 "version":1,"defaultViewConfiguration":{"zoom":0.5}}"""


def one_layer(**changes):
    """The JSON text of a dataset with one layer; a key that is set to ... is left out."""
    layer = {
        "name": "color",
        "category": "color",
        "boundingBox": {"topLeft": [0, 0, 0], "width": 8, "height": 8, "depth": 8},
        "elementClass": "uint8",
        "dataFormat": "wkw",
        "numChannels": 1,
        "mags": [{"mag": [1, 1, 1], "path": "./color/1", "cubeLength": 64}],
    }
    layer = {key: value for key, value in {**layer, **changes}.items() if value is not ...}
    return json.dumps({"id": {"name": "d", "team": ""}, "scale": [1, 1, 1], "dataLayers": [layer]})


def layer_of(**changes):
    record = parse(one_layer(**changes), "ds/p.json")
    return record.layer(record.names[0])


# --- the three examples of the format ---------------------------------------------------------------


def test_a_file_of_2021():
    record = parse(OLD, "x")
    assert (record.name, record.voxel_size, record.version, record.layout) == (
        "sbem",
        VoxelSize((11.24, 11.24, 28)),
        1,
        "legacy",
    )
    color, segmentation = record.layers
    assert [(m.mag, m.path, m.cube_length) for m in color.mags] == [
        (Mag(1), None, 1024),
        (Mag("2-2-1"), None, 1024),
    ]
    assert color.bounding_box == BoundingBox((0, 0, 0), (2048, 1536, 512))
    assert (color.dtype_per_channel, color.num_channels, color.is_segmentation) == (np.uint8, 1, False)
    assert (color.largest_segment_id, color.mappings) == (None, ())
    assert (segmentation.largest_segment_id, segmentation.mappings) == (1000000, ("axons",))
    assert segmentation.is_segmentation
    assert segmentation.dtype_per_channel == np.uint32


def test_a_file_of_version_4():
    record = parse(V4_WKW.encode(), "x")
    assert record.layout == "v4"
    color, segmentation = record.layers
    assert [(m.mag, m.path, m.cube_length) for m in color.mags] == [
        (Mag(1), "./color/1", 64),
        (Mag("2-2-1"), "./color/2-2-1", 1024),
        (Mag("4-4-2"), "./color/4-4-2", 1024),
    ]
    assert (color.element_class, color.dtype_per_channel, color.num_channels) == ("uint24", np.uint8, 3)
    assert color.bounding_box == BoundingBox((3, 5, 7), (100, 60, 40))
    assert segmentation.largest_segment_id == 1152921504606846976


def test_a_zarr_file_of_version_4():
    record = parse(V4_ZARR, "x")
    assert record.voxel_size == VoxelSize((0.5, 0.5, 1.0), "micrometer")
    assert record.default_view_configuration == {"zoom": 0.5}
    color, segmentation, t = record.layers
    assert color.dtype_per_channel == np.float32
    assert color.default_view_configuration == {"color": [255, 0, 0], "intensityRange": [0, 1]}
    assert color.mags[0].cube_length is None
    assert segmentation.largest_segment_id is None
    assert t.raw["additionalAxes"] == [{"name": "t", "bounds": [0, 7], "index": 0}]
    assert t.mags[0].raw["axisOrder"] == {"z": 1, "y": 2, "x": 3}


@pytest.mark.parametrize(
    ("name", "layout", "layers"),
    [
        ("old_wkw_dataset", "legacy", {"color": ["1", "2"]}),
        ("simple_wkw_dataset", "legacy", {"color": ["1"]}),
        ("simple_zarr_dataset", "legacy", {"color": ["1"]}),
        ("simple_zarr3_dataset", "v4", {"color": ["1"]}),
        (
            "complex_property_ds",
            "v4",
            {key: ["1", "16", "2", "32", "4", "8"] for key in ("color", "segmentation")},
        ),
    ],
)
def test_files_of_other_programs(name, layout, layers):
    if not (SAMPLES / name).is_dir():
        pytest.skip(f"the samples of other programs are not at {SAMPLES}")
    record = load(SAMPLES / name)
    assert record.layout == layout
    assert {layer.name: [str(m.mag) for m in layer.mags] for layer in record.layers} == layers
    assert all(not layer.bounding_box.is_empty() for layer in record.layers)
    assert json.loads((SAMPLES / name / PROPERTIES_FILE).read_text()) == record.raw


def test_a_record_finds_its_layers_and_mags():
    record = parse(OLD, "x")
    assert record.layer("color") is record.layers[0]
    assert record.layer("color").mag("2-2-1") is record.layers[0].mags[1]
    with pytest.raises(LayerNotFoundError, match=r"'nope'.*'color', 'segmentation'"):
        record.layer("nope")
    with pytest.raises(MagNotFoundError, match="no mag 4; it has: 1, 2-2-1"):
        record.layer("color").mag(4)


def test_records_are_plain_values():
    record = parse(V4_WKW, "x")
    assert pickle.loads(pickle.dumps(record)) == record
    assert hash(record) == hash(parse(V4_WKW, "y"))
    moved = parse(V4_WKW.replace('"topLeft":[3,5,7]', '"topLeft":[3,5,8]'), "x")
    assert moved != record
    assert "cubeLength" not in repr(record)


# --- details of reading -----------------------------------------------------------------------------


def test_both_lists_of_mags_are_united_and_mags_counts():
    layer = layer_of(
        mags=[{"mag": 2, "path": "../other/2"}, {"mag": [1, 1, 1], "cubeLength": 32}],
        wkwResolutions=[
            {"resolution": [2, 2, 2], "cubeLength": 64},
            {"resolution": 1, "cubeLength": 64},
            {"resolution": 4, "cubeLength": 128},
        ],
    )
    assert [(m.mag, m.path, m.cube_length) for m in layer.mags] == [
        (Mag(2), "../other/2", 64),
        (Mag(1), None, 32),
        (Mag(4), None, 128),
    ]


@pytest.mark.parametrize(
    ("word", "channels", "expected_dtype", "expected_channels"),
    [
        ("uint8", None, "uint8", None),
        ("double", None, "float64", None),
        ("uint24", None, "uint8", 3),
        ("uint48", None, "uint16", 3),
        ("float96", None, "float32", 3),
        ("uint16", 2, "uint8", 2),
        ("int256", 4, "int64", 4),
    ],
)
def test_channels_and_dtype(word, channels, expected_dtype, expected_channels):
    layer = layer_of(elementClass=word, numChannels=... if channels is None else channels)
    assert (layer.dtype_per_channel, layer.num_channels) == (np.dtype(expected_dtype), expected_channels)


@pytest.mark.parametrize("data_format", ["n5", "neuroglancerPrecomputed", "something new"])
def test_unknown_formats_are_listed(data_format):
    assert layer_of(dataFormat=data_format).data_format == data_format
    assert layer_of(dataFormat=data_format, mags=...).mags == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (..., None),
        (None, None),
        (7, 7),
        ({"customJsonEncoding": "bigint", "value": str(2**64 - 1)}, 2**64 - 1),
    ],
)
def test_largest_segment_id(value, expected):
    assert layer_of(category="segmentation", largestSegmentId=value).largest_segment_id == expected


def test_what_python_writes_is_read():
    text = one_layer(future={"nan": float("nan"), "big": 2**200, "tiny": 1e-300, "lone": "\ud800", "b": True})
    raw = parse(b"\xef\xbb\xbf" + text.encode(), "x").layers[0].raw  # with a byte order mark
    assert json.dumps(raw["future"]) == json.dumps(json.loads(text)["dataLayers"][0]["future"])


KNOWN = [
    ("uint8", 1),
    ("uint8", 3),
    ("uint16", 3),
    ("int64", 4),
    ("float32", 1),
    ("float32", 3),
    ("float64", 1),
]
WORDS = ["uint8", "uint24", "uint48", "int256", "float", "float96", "double"]


@pytest.mark.parametrize(("pair", "word"), [*zip(KNOWN, WORDS, strict=True)])
def test_element_classes(pair, word):
    assert element_class(*pair) == word
    assert element_class(np.dtype(pair[0]), pair[1]) == word
    assert dtype_of(word, pair[1]) == np.dtype(pair[0])


@settings(deadline=None)
@given(st.sampled_from(["uint8", "int16", "uint32", "int64", "float32", "float64"]), st.integers(1, 40))
def test_element_class_round_trip(dtype, channels):
    assert dtype_of(element_class(dtype, channels), channels) == np.dtype(dtype)


@pytest.mark.parametrize(
    ("word", "channels"),
    [("uint30", 3), ("int64", 3), ("V999999999", 1), ("uint8", 2), ("uint12", None), ("float16", 1), ("", 1)]
    + [
        ("uint\u0668", 1),
        ("uint0", 1),
        ("uint" + "9" * 10**6, 1),
        ("bool", 1),
        ("complex128", 2),
        ("uint8 ", 1),
    ],
)
def test_words_that_do_not_split(word, channels):
    with pytest.raises(DTypeError):
        dtype_of(word, channels)


def test_a_long_word_is_not_repeated():
    with pytest.raises(DTypeError) as caught:
        dtype_of("uint" + "9" * 10**6, 1)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("dtype", ["bool", "float16", "complex64", "V9", "nonsense", "M8[ns]", "O", "U4"])
def test_dtypes_without_a_word(dtype):
    with pytest.raises(DTypeError, match=r"data type|integers of 8"):
        element_class(dtype, 1)


def test_no_channels():
    with pytest.raises(InvalidValueError, match="got 0"):
        element_class("uint8", 0)
    assert element_class("float", 1) == "float"  # not numpy's 64 bits


# --- boxes are checked when they are used -----------------------------------------------------------

BOX = {"topLeft": [0, 0, 0], "width": 8, "height": 8, "depth": 8}


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (BOX | {"width": 2**63}, "9223372036854775808.*32 bits"),
        (BOX | {"depth": 10**40}, "32 bits"),
        (BOX | {"width": 2**32 - 1, "topLeft": [2, 0, 0]}, "wkw counts in 32 bits"),
        (BOX | {"height": -5}, "height.*-5"),
        (BOX | {"height": 1.5}, "height.*1.5"),
        (BOX | {"width": float("nan")}, "nan"),
        (BOX | {"width": float("inf")}, "inf"),
        (BOX | {"width": "abc"}, "abc"),
        (BOX | {"width": True}, "True"),
        (BOX | {"width": None}, "None"),
        (BOX | {"topLeft": [0, 0]}, "2 components"),
        (BOX | {"topLeft": [0, 0, 0.5]}, r"0\.5"),
        (BOX | {"topLeft": "abc"}, "topLeft"),
        (BOX | {"topLeft": [-1, -1, -1]}, "negative"),
        (BOX | {"topLeft": [0, 0, -1], "width": 0, "height": 0, "depth": 0}, "negative"),
        ({"topLeft": [0, 0, 0]}, "width"),
        ({}, "topLeft"),
        ([], r"\[\]"),
        (None, "None"),
        (..., "None"),
    ],
)
def test_impossible_boxes(box, message):
    layer = layer_of(boundingBox=box)  # opening is fine
    with pytest.raises(PropertiesError, match=message) as caught:
        layer.bounding_box
    assert "'color'" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ({"topLeft": [-1, -1, -1], "width": 0, "height": 0, "depth": 0}, EMPTY_BOX),
        ({"topLeft": [0, 0, 0], "width": 0, "height": 0, "depth": 0}, EMPTY_BOX),
        (BOX | {"width": 8.0}, BoundingBox((0, 0, 0), (8, 8, 8))),
        (BOX | {"topLeft": [2**32 - 8, 0, 0]}, BoundingBox((2**32 - 8, 0, 0), (8, 8, 8))),
    ],
)
def test_possible_boxes(box, expected):
    assert layer_of(boundingBox=box).bounding_box == expected


# --- hostile files ----------------------------------------------------------------------------------

HOSTILE = {
    "empty": (b"", "empty"),
    "blank": (b" \n", "empty"),
    "cut": (OLD[:300].encode(), "not valid JSON"),
    "two in one": ((OLD + "}").encode(), "Extra data"),
    "a list": (b"[]", "expected an object"),
    "a number": (b"1", "expected an object"),
    "null": (b"null", "expected an object"),
    "binary": (bytes(range(256)), "not valid JSON"),
    "nested": (b"[" * 100_000, "nested"),
    "nested objects": (b'{"a":' * 100_000, "nested"),
    "closed nest": (b"[" * 100_000 + b"]" * 100_000, "nested"),
    "long integer": (b'{"x":' + b"9" * 10**6 + b"}", "1000000 digits"),
    "long float": (b'{"x":' + b"9" * 10**6 + b".5}", "too large"),
    "same key twice": (b'{"id":{},"id":{}}', "'id' appears twice"),
    "no id": (b'{"scale":[1,1,1],"dataLayers":[]}', "id is missing"),
    "no layers": (b'{"id":{"name":"d"},"scale":[1,1,1]}', "dataLayers is missing"),
    "layers are an object": (b'{"id":{"name":"d"},"scale":[1,1,1],"dataLayers":{}}', "a list"),
    "a layer is a text": (b'{"id":{"name":"d"},"scale":[1,1,1],"dataLayers":["x"]}', "layer number 0"),
    "id is a text": (b'{"id":"d","scale":[1,1,1],"dataLayers":[]}', "id"),
    "no scale": (b'{"id":{"name":"d"},"dataLayers":[]}', "scale"),
}
SCALES = [
    "[1,1]",
    "[1,1,0]",
    "[1,1,-1]",
    "[1,1,NaN]",
    "[1,1,true]",
    '["1","1","1"]',
    "5",
    '{"factor":[1,1,1],"unit":3}',
]
SCALES += ['{"factor":[1,1,1],"unit":"ell"}', "{}", f"[1,1,{10**400}]"]
for number, scale in enumerate(SCALES):
    text = f'{{"id":{{"name":"d"}},"scale":{scale},"dataLayers":[]}}'
    HOSTILE[f"scale {number}"] = (text.encode(), "scale")
for version in ("9000", "2", "0", '"1"', "null", "true"):
    text = f'{{"version":{version},"id":{{"name":"d"}},"scale":[1,1,1],"dataLayers":[]}}'
    HOSTILE[f"version {version}"] = (text.encode(), "version")
for name in ("..", ".", "", ".hidden", "../x", "/abs", "a/b", "a\0b", "\ud800", 5, None, ...):
    HOSTILE[f"name {name!r}"] = (one_layer(name=name).encode(), "name|folder")
BAD_LAYERS = {
    "category": ["video", "", None, 3, ...],
    "elementClass": ["V999999999", "uint30", "nonsense", 8],
    "dataFormat": [3],
    "numChannels": [0, -1, 1.5, "1", True, 3],
    "mags": [..., {}, "1", [1], [{}], [{"mag": 1}, {"mag": [1, 1, 1]}]]
    + [
        [{"mag": mag}]
        for mag in (
            0,
            -1,
            3,
            [1, 1],
            [1, 1, 1, 1],
            [2],
            True,
            1.5,
            "x",
            "3",
            "1-1",
            "-1",
            None,
            2**70,
        )
    ]
    + [[{"mag": 1, "cubeLength": length}] for length in (0, -64, 1.5, "64", 2**70)]
    + [[{"mag": 1, "path": 5}]]
    + [[{"mag": [1, 1, 10**40]}]],
    "wkwResolutions": [{}, [3], [{"resolution": 1}, {"resolution": [1, 1, 1]}], [{"resolution": 0}]],
    "mappings": ["axons", [1], {}],
    "defaultViewConfiguration": [[], "x"],
}
BROKEN = {}
for key, values in BAD_LAYERS.items():
    for value in values:
        BROKEN[f"{key} {value!r}"] = (one_layer(**{key: value}).encode(), "layer 'color'")
for value in (None, ...):
    BROKEN[f"dataFormat {value!r}"] = (
        one_layer(dataFormat=value, mags=[{"mag": 1}]).encode(),
        "layer 'color'",
    )
for value in ("7", 1.5, [], {}, True, 2**70, -(2**70)):
    text = one_layer(category="segmentation", largestSegmentId=value)
    BROKEN[f"id {value!r}"] = (text.encode(), "largestSegmentId")
for value in ("", "x", "9" * 5000, "1.5", 5, None, "٣"):
    text = one_layer(
        category="segmentation", largestSegmentId={"customJsonEncoding": "bigint", "value": value}
    )
    BROKEN[f"bigint {str(value)[:9]!r}"] = (text.encode(), "largestSegmentId")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name, tmp_path):
    data, message = HOSTILE[name]
    path = tmp_path / PROPERTIES_FILE
    path.write_bytes(data)
    started = time.process_time()
    with pytest.raises(PropertiesError, match=message) as caught:
        load(tmp_path)
    assert time.process_time() - started < 5
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 1000
    assert path.read_bytes() == data


@pytest.mark.parametrize("name", BROKEN)
def test_a_layer_that_cannot_be_understood_raises_when_it_is_used(name, tmp_path):
    data, message = BROKEN[name]
    raw = json.loads(data)
    good = json.loads(one_layer(name="good"))["dataLayers"][0]
    raw["dataLayers"].append(good)
    path = tmp_path / PROPERTIES_FILE
    path.write_text(json.dumps(raw))
    record = load(tmp_path)
    assert record.names == ("color", "good")
    assert [layer.name for layer in record.layers] == ["good"]
    assert record.layer("good").mags
    with pytest.raises(PropertiesError, match=message) as caught:
        record.layer("color")
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("said", "mag"),
    [("1", 1), ("1-1-1", 1), ("4", 4), ("2-2-1", (2, 2, 1)), ("016-16-4", (16, 16, 4))],
)
@pytest.mark.parametrize("key", ["mags", "wkwResolutions"])
def test_mags_that_are_texts(said, mag, key):
    inner = "mag" if key == "mags" else "resolution"
    layer = (
        layer_of(mags=..., **{key: [{inner: said, "cubeLength": 32}]})
        if key != "mags"
        else layer_of(mags=[{inner: said, "cubeLength": 32}])
    )
    assert [record.mag for record in layer.mags] == [Mag(mag)]


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({"elementClass": ...}, ["elementClass is missing"]),
        ({"elementClass": None}, ["elementClass is missing"]),
        ({"dataFormat": ..., "mags": [{"mag": 1, "cubeLength": 32}]}, ["dataFormat is missing"]),
        ({"dataFormat": None, "mags": ..., "wkwResolutions": [{"resolution": 1}]}, ["dataFormat is missing"]),
        (
            {"dataFormat": ..., "elementClass": ..., "mags": [{"mag": 1, "cubeLength": 32}]},
            ["dataFormat is missing", "elementClass is missing"],
        ),
        ({}, []),
    ],
)
def test_what_the_mags_tell(changes, notes):
    layer = layer_of(**changes)
    assert layer.data_format == "wkw"
    assert (layer.element_class is None) == ("elementClass" in changes)
    assert len(layer.notes) == len(notes)
    for note, words in zip(layer.notes, notes, strict=True):
        assert f"layer 'color': {words}" in note


@pytest.mark.parametrize("unit", ["Micrometer", "micrometre", "microns", "um"])
def test_units_as_people_spell_them(unit):
    raw = json.loads(one_layer()) | {"scale": {"factor": [1, 2, 3], "unit": unit}}
    record = parse(json.dumps(raw), "x")
    assert record.voxel_size == VoxelSize((1, 2, 3), "micrometer")
    assert record.raw["scale"]["unit"] == unit


def test_layers_of_one_name():
    raw = json.loads(OLD)
    raw["dataLayers"].append(raw["dataLayers"][0])
    with pytest.raises(PropertiesError, match="2 layers are called 'color'"):
        parse(json.dumps(raw), "x")


def test_junk_is_refused_in_bounded_time():
    for data in (
        b"[{}," * 5_000_000,
        b"\x00" * 20_000_000,
        b'"' + b"x" * 20_000_000,
        b'{"a":[' + b"1," * 10_000_000,
    ):
        started = time.process_time()
        with pytest.raises(PropertiesError):
            parse(data, "x")
        assert time.process_time() - started < 20


def test_a_file_that_is_too_large(tmp_path):
    path = tmp_path / PROPERTIES_FILE
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # a hole: a terabyte that takes no place
    with pytest.raises(PropertiesError, match="larger than 16 MiB"):
        load(tmp_path)


def test_things_that_are_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no dataset in the folder .*{PROPERTIES_FILE}"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")
    path = tmp_path / PROPERTIES_FILE
    with pytest.raises(FileNotFoundError):
        load(Path(__file__))
    os.mkfifo(path)
    with pytest.raises(PropertiesError, match="not a regular file"):
        load(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(PropertiesError, match="not a regular file"):
        load(tmp_path)
    path.rmdir()
    path.symlink_to("nowhere")
    with pytest.raises(PropertiesError, match="leads nowhere"):
        load(tmp_path)


@pytest.mark.slow  # Python compiles all modules anew
def test_checks_hold_under_python_O():
    """Nothing rests on assert."""
    code = (
        "import sys\nfrom wkdask.properties import parse\nfrom wkdask.errors import PropertiesError\n"
        "try: parse(sys.stdin.buffer.read(), 'x')\nexcept PropertiesError: print('refused')"
    )
    bad = one_layer(name="../x").encode()
    done = subprocess.run([sys.executable, "-O", "-c", code], input=bad, capture_output=True, check=True)
    assert done.stdout == b"refused\n"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 2**33) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from(sorted(json.loads(one_layer())["dataLayers"][0])), JSON_VALUES)
def test_any_value_anywhere_is_read_or_refused(key, value):
    try:
        layer = layer_of(**{key: value})
        layer.bounding_box
    except PropertiesError:
        pass
