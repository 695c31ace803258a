"""Parity with webknossos 4.3.3: vectors, boxes, attachments, transformations, further axes; each both ways.

Run with ``pytest -m peer``; see test_peer.py for the peer's Python. The peer is asked by small programs of its own.
"""

import json
import os
import subprocess

import numpy as np
import pytest
from repository import ROOT

import wkdask
from wkdask import (
    AffineCoordinateTransformation,
    AgglomerateAttachment,
    AgglomerateGraph,
    Dataset,
    DatasetViewConfiguration,
    LayerViewConfiguration,
    MeshAttachment,
    NDBoundingBox,
    ThinPlateSplineCoordinateTransformation,
)

pytestmark = pytest.mark.peer

VALUES = ["VecInt", "Vec3Float", "NDBoundingBox", "NormalizedBoundingBox"]
OTHERS = [
    "Attachments", "MeshAttachment", "AgglomerateAttachment", "AgglomerateGraph", "Attachment",
    "AffineCoordinateTransformation", "ThinPlateSplineCoordinateTransformation", "AttachmentDataFormat",
    "LayerViewConfiguration", "DatasetViewConfiguration",
]  # fmt: skip


@pytest.fixture(scope="module")
def peer():
    """Return a function that runs a program in the peer's Python and returns what it printed as JSON."""
    python = os.environ.get("WKDASK_PEER_PYTHON") or str(ROOT / ".venv-peer" / "bin" / "python")
    if not os.access(python, os.X_OK):
        pytest.skip(f"no Python with webknossos 4.3.3: {python} is missing; set WKDASK_PEER_PYTHON")

    def run(program, *arguments):
        head = "import json, sys, inspect, warnings; warnings.simplefilter('ignore')\n"
        head += "import numpy as np, webknossos as wk\nfrom webknossos import *\n"
        command = [python, "-c", head + program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


# --- names ------------------------------------------------------------------------------------------------

NAMES = """
import webknossos
found = {}
for kind in sys.argv[1:]:
    cls = getattr(webknossos, kind)
    found[kind] = {}
    for name in dir(cls):
        if name.startswith("_") or hasattr(object, name) or cls.__module__.startswith("builtins"):
            continue
        value = inspect.getattr_static(cls, name)
        function = getattr(value, "__func__", value)
        if getattr(function, "__module__", "").startswith("webknossos") and callable(function):
            found[kind][name] = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
        elif not callable(function):
            found[kind][name] = None
print(json.dumps(found))
"""


def test_every_public_name_and_parameter_is_there(peer):
    import inspect

    missing = []
    for kind, names in peer(NAMES, *VALUES, *OTHERS).items():
        ours = getattr(wkdask, kind)
        for name, parameters in names.items():
            if not hasattr(ours, name) and name not in getattr(ours, "__dataclass_fields__", {}):
                missing.append(f"{kind}.{name}")
            elif parameters is not None and callable(getattr(ours, name)):
                known = inspect.signature(getattr(ours, name)).parameters
                missing += [f"{kind}.{name}({p}=)" for p in parameters if p not in known]
    assert missing == [
        "AgglomerateGraph.to_agglomerate_graph_data"
    ]  # arrays of their own; `create` writes them


# --- values -----------------------------------------------------------------------------------------------

SETUP = """
v = VecInt(1, 2, 3, 4, axes=("t", "x", "y", "z"))
f = Vec3Float(1.5, 2, 3)
b = NDBoundingBox((0, 1, 2, 3), (4, 10, 11, 12), ("t", "x", "y", "z"))
o = NDBoundingBox((2, 0, 0, 0), (4, 5, 5, 5), "txyz")
m = BoundingBox((1, 2, 3), (10, 11, 12)).normalize_axes(3)
n = NormalizedBoundingBox((0, 0, 1, 2, 3), (3, 4, 10, 11, 12), ("c", "t", "x", "y", "z"))
j = {"topLeft": [1, 2, 3], "width": 4, "height": 5, "depth": 6}
"""
EXPRESSIONS = """
v; str(v); v.axes; v + 1; v - (1, 1, 1, 1); v * 2; v // 2; v % 2; -v; v.ceildiv(2); v.pairmin(2)
v.pairmax((0, 5, 0, 5)); v.with_x(9); v.with_xyz(Vec3Int(7, 8, 9)); v.with_replaced("t", 5); v.get("q", 5)
v.prod(); v.is_positive(strictly_positive=True); v.is_uniform(); VecInt.full(3, "xy"); VecInt.ones("tx")
VecInt.zeros("t"); v.to_list(); v.to_tuple(); v.contains(2); v == (1, 2, 3, 4)
hash(v) == hash((1, 2, 3, 4)); v < (1, 2, 3, 5); v[1:3]; v["t"]; VecInt(x=1, t=2)
VecInt((1, 2), ("a", "b")); v.add_or_none(v); v.add_or_none(None); tuple(v); 2 in v; v == [1, 2, 3, 4]; f
f + 1; f - (1, 1, 1); f * 2; f / 2; -f; f.pairmin(2); f.pairmax((2, 2, 2)); f.prod(); f.with_x(9)
f.to_list(); f.to_tuple(); Vec3Float.zeros(); Vec3Float.ones(); Vec3Float.full(2.5)
Vec3Float.from_str("(1.5,2,3)"); f == (1.5, 2, 3); f == [1.5, 2, 3]; b; b.index; b.bottomright; b.volume()
b.is_empty(); b.get_bounds("t"); b.get_shape("x"); b.ndim; len(b); b.axes; b.name
b.with_topleft((1, 1, 1, 1)); b.with_size((1, 1, 1, 1)); b.with_bottomright((5, 12, 13, 14))
b.with_bounds("t", 1, 2); b.with_topleft_xyz((0, 0, 0)); b.with_size_xyz((5, 6, 7))
b.with_bottomright_xyz((12, 13, 14)); b.with_index((4, 3, 2, 1)); b.with_index_xyz((4, 5, 6))
b.offset((1, 1, 1)); b.offset((1, 1, 1, 1)); b.extended_by(o); b.intersected_with(o)
b.intersected_with(o.with_bounds("t", 20), dont_assert=True); b.contains((0, 1, 2, 3))
b.contains((4, 1, 2, 3)); b.contains_bbox(o); b.padded_with_margins((1, 2, 3), (3, 2, 1))
b.align_with_mag(Mag(2)); b.align_with_mag(Mag(2), ceil=True); b.align_with_mag(Vec3Int(3, 3, 3))
b.align_with_mag(Mag(2)).in_mag(Mag(2)); b.from_mag_to_mag1(Mag(2)); b.to_slices()
list(b.chunk((2, 5, 5, 10))); list(b.chunk((4, 6, 10, 10), (4, 2, 2, 2))); list(b.chunk((10, 11, 12)))
b.to_config_dict(); b.to_checkpoint_name(); b.normalize_axes(1); b.denormalize()
NDBoundingBox.from_axes("tx", (7, 8)); b == b.with_name("q")
NDBoundingBox((0, 1, 2, 3), (4, -10, 10, 10), "txyz")
NDBoundingBox((0, 1, 2, 3), (4, 5, 6, 7), "txyz", (4, 3, 2, 1)); b.with_bounds("t", 0, 1).to_slices_xyz()
b.with_bounds("t", 0, 1).xyz_array_to_bbox_shape(np.zeros((10, 11, 12))).shape
b.slice_array(np.zeros((9, 20, 20, 20))).shape; b.topleft_xyz; b.size_xyz; b.bottomright_xyz; b.index_xyz; m
n; m.denormalize() == BoundingBox((1, 2, 3), (10, 11, 12)); n.denormalize(); sorted(m.to_wkw_dict().items())
sorted(n.to_wkw_dict().items()); NormalizedBoundingBox.from_wkw_dict(j)
NormalizedBoundingBox.from_wkw_dict(n.to_wkw_dict()); n.normalize_axes(1)
m == BoundingBox((1, 2, 3), (10, 11, 12)); m == BoundingBox((1, 2, 3), (10, 11, 12)).normalize_axes(1)
n == n.denormalize(); m.extended_by(BoundingBox((0, 0, 0), (1, 1, 1)))
BoundingBox((0, 0, 0), (1, 1, 1)).extended_by(m); list(m.chunk((5, 11, 12)))
m.intersected_with(BoundingBox((0, 0, 0), (5, 5, 5))); m.contains_bbox(BoundingBox((1, 2, 3), (5, 5, 5)))
m.to_slices(); BoundingBox((1, 2, 3), (10, 11, 12)).contains_bbox(m); m.offset((1, 1, 1))
n.with_bounds("c", 0, 5); n.volume()
"""


def plain(value):
    """Return a text that does not depend on how vectors write themselves."""
    return repr(value).replace(" ", "").replace("Vec3Int", "")


def test_values_behave_alike(peer):
    names = {name: getattr(wkdask, name) for name in wkdask.__all__} | {"np": np}
    exec(SETUP, names)
    expressions = [each.strip() for each in EXPRESSIONS.replace("\n", ";").split(";") if each.strip()]
    program = f"exec({SETUP!r})\nprint(json.dumps([repr(eval(each)) for each in json.loads(sys.argv[1])]))"
    theirs = [text.replace(" ", "").replace("Vec3Int", "") for text in peer(program, json.dumps(expressions))]
    ours = [plain(eval(each, names)) for each in expressions]
    different = [f"{a}: {b} | {c}" for a, b, c in zip(expressions, ours, theirs, strict=True) if b != c]
    assert different == []


# --- attachments, transformations, view configurations -------------------------------------------------------

SEGMENTATION = """
ds = wk.Dataset(sys.argv[1], voxel_size=(1, 1, 1))
box = wk.BoundingBox((0, 0, 0), (8, 8, 8))
layer = ds.add_layer("seg", "segmentation", dtype_per_channel="uint32", bounding_box=box)
"""
LISTED = """
layer = wk.Dataset.open(sys.argv[1]).get_layer("seg")
print(json.dumps([[a.type_name, a.name, str(a.path), str(a.data_format)] for a in layer.attachments]))
"""


def listed(layer):
    return [[each.type_name, each.name, str(each.path), str(each.data_format)] for each in layer.attachments]


def test_attachments_of_the_peer_are_listed_alike(peer, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "zarr.json").write_text("{}")
    program = (
        SEGMENTATION
        + """
F = wk.AttachmentDataFormat
a = layer.attachments
a.add_mesh(sys.argv[2], name="m", data_format=F.Zarr3)
a.add_agglomerate("seg/agglomerates/v.hdf5", name="v", data_format=F.HDF5)
a.set_segment_index("../out", name="i", data_format=F.Zarr3)
a.set_cumsum("/c.json", name="c", data_format=F.JSON)
a.add_connectome("/con", name="con", data_format=F.HDF5)
a.add_attachment_as_copy(wk.SegmentStatisticsAttachment.from_path_and_name(sys.argv[2], "s", data_format=F.Zarr3))
print(json.dumps(None))
"""
    )
    peer(program, tmp_path / "ds", tmp_path / "out")
    layer = Dataset(tmp_path / "ds").get_layer("seg")
    theirs = layer.record.raw["attachments"]
    assert sorted(listed(layer)) == sorted(peer(LISTED, tmp_path / "ds"))

    ours = Dataset.create(tmp_path / "ours", (1, 1, 1)).add_layer(
        "seg", "segmentation", dtype_per_channel="uint32"
    )
    found = ours.attachments
    found.add_mesh(tmp_path / "out", name="m", data_format="zarr3")
    found.add_agglomerate("seg/agglomerates/v.hdf5", name="v", data_format="hdf5")
    found.set_segment_index("../out", name="i", data_format="zarr3")
    found.set_cumsum("/c.json", name="c", data_format="json")
    found.add_connectome("/con", name="con", data_format="hdf5")
    found.add_attachment_as_copy(
        wkdask.SegmentStatisticsAttachment.from_path_and_name(tmp_path / "out", "s", data_format="zarr3")
    )
    assert ours.record.raw["attachments"] == theirs
    assert sorted(peer(LISTED, tmp_path / "ours")) == sorted(listed(ours))
    found.delete_attachment(found.meshes[0])
    found.rename_attachment(found.connectomes[0], new_name="other")
    assert sorted(peer(LISTED, tmp_path / "ours")) == sorted(listed(ours))


GRAPH = """
graph = AgglomerateGraph()
for n, position in enumerate([(1, 2, 3), (4, 5, 6), (7, 8, 9), (0, 0, 1), (5, 5, 5), (6, 6, 6)], start=1):
    graph.add_segment(n, position=Vec3Int(position))
for u, v, affinity in [(4, 2, 0.5), (2, 6, 1), (5, 3, 0.25)]:
    graph.add_affinity_edge(u, v, affinity=affinity)
"""
FACTS = """
facts = [sorted([int(n), list(p)] for n, p in graph.nodes(data="position")),
         sorted([*sorted((int(u), int(v))), float(a)] for u, v, a in graph.edges(data="affinity"))]
"""


def test_agglomerates_go_both_ways(peer, tmp_path):
    names = {"AgglomerateGraph": AgglomerateGraph, "Vec3Int": wkdask.Vec3Int}
    exec(GRAPH + FACTS, names)
    AgglomerateAttachment.create(tmp_path / "ours", names["graph"])
    program = (
        GRAPH
        + f"""
wk.AgglomerateAttachment.create(sys.argv[2], graph)
zarr3 = wk.AttachmentDataFormat.Zarr3
graph = wk.AgglomerateAttachment.from_path_and_name(sys.argv[1], "x", data_format=zarr3).to_graph()
{FACTS}
print(json.dumps(facts))
"""
    )
    assert peer(program, tmp_path / "ours", tmp_path / "theirs") == names["facts"]
    theirs = AgglomerateAttachment.from_path_and_name(
        tmp_path / "theirs", "x", data_format="zarr3"
    ).to_graph()
    again = {"graph": theirs}
    exec(FACTS, again)
    assert again["facts"] == names["facts"]
    import zarr

    for name, array in zarr.open_group(tmp_path / "theirs", mode="r").arrays():
        mine = zarr.open_array(tmp_path / "ours" / name, mode="r")
        assert mine.dtype == array.dtype, name
        np.testing.assert_array_equal(mine[...], array[...], name)


def test_transformations_and_view_configurations_go_both_ways(peer, tmp_path):
    affine = (
        AffineCoordinateTransformation.from_rotation("y", 30).scale((1, 2, 3)).translate((4, 5, 6)).flip("z")
    )
    spline = ThinPlateSplineCoordinateTransformation([(0, 0, 0), (1, 1, 1)], [(0, 0, 1), (2, 2, 2)])
    program = (
        SEGMENTATION
        + """
affine = AffineCoordinateTransformation.from_rotation("y", 30).scale((1, 2, 3)).translate((4, 5, 6)).flip("z")
spline = ThinPlateSplineCoordinateTransformation([(0, 0, 0), (1, 1, 1)], [(0, 0, 1), (2, 2, 2)])
layer.coordinate_transformations = [affine, spline]
layer.default_view_configuration = LayerViewConfiguration(alpha=5.0, mapping={"name": "a", "type": "HDF5"})
ds.default_view_configuration = DatasetViewConfiguration(
    color_layer_order=["seg"], blend_mode="Cover", natively_rendered_layer_name="seg",
    layers={"seg": LayerViewConfiguration(alpha=7.0, is_disabled=True)},
)
print(json.dumps(None))
"""
    )
    peer(program, tmp_path / "ds")
    dataset = Dataset(tmp_path / "ds")
    layer = dataset.get_layer("seg")
    first, second = layer.coordinate_transformations
    np.testing.assert_allclose(first.matrix, affine.matrix, atol=1e-12)
    assert second == spline
    assert layer.default_view_configuration == LayerViewConfiguration(
        alpha=5.0, mapping={"name": "a", "type": "HDF5"}
    )
    assert dataset.default_view_configuration == DatasetViewConfiguration(
        color_layer_order=("seg",),
        blend_mode="Cover",
        natively_rendered_layer_name="seg",
        layers={"seg": LayerViewConfiguration(alpha=7.0, is_disabled=True)},
    )
    layer.coordinate_transformations = (spline, affine)
    dataset.default_view_configuration = dataset.default_view_configuration
    program = """
ds = wk.Dataset.open(sys.argv[1])
first, second = ds.get_layer("seg").coordinate_transformations
view = ds.default_view_configuration
print(json.dumps([first.target.tolist(), second.matrix.tolist(), view.layers["seg"].is_disabled, view.blend_mode]))
"""
    target, matrix, is_disabled, mode = peer(program, tmp_path / "ds")
    assert (target, is_disabled, mode) == (spline.target.tolist(), True, "Cover")
    np.testing.assert_allclose(matrix, affine.matrix, atol=1e-12)


# --- further axes -------------------------------------------------------------------------------------------

SIZES = {"t": 3, "q": 2, "x": 30, "y": 20, "z": 10}


@pytest.mark.parametrize("axes", ["txyz", "ctxyz", "tcxyz", "tqxyz"])
def test_layers_with_further_axes_go_both_ways(peer, tmp_path, axes):
    channels = 3 if "c" in axes else 1
    sizes = [channels if axis == "c" else SIZES[axis] for axis in axes]
    corner = [5 if axis in "xyz" else 0 for axis in axes]
    data = np.random.default_rng(0).integers(1, 255, sizes, dtype="uint8")
    np.save(tmp_path / "data.npy", data)
    box = NDBoundingBox(corner, sizes, axes)
    layer = Dataset.create(tmp_path / "ours", (1, 1, 1)).add_layer(
        "l", "color", bounding_box=box, data_format="zarr3", num_channels=channels
    )
    mag = layer.add_mag(1, chunk_shape=8, shard_shape=16)
    mag.write(data)
    program = f"""
if __name__ == "__main__":
    data = np.load(sys.argv[3])
    ours = wk.Dataset.open(sys.argv[1]).get_layer("l").get_mag(1)
    box = wk.NDBoundingBox({corner}, {sizes}, {tuple(axes)})
    layer = wk.Dataset(sys.argv[2], voxel_size=(1, 1, 1)).add_layer(
        "l", "color", bounding_box=box, num_channels={channels}, data_format="zarr3")
    theirs = layer.add_mag(1, chunk_shape=8, shard_shape=16)
    theirs.write(data, absolute_bounding_box=box, allow_unaligned=True)
    boxes = [repr(ours.bounding_box), repr(layer.normalized_bounding_box)]
    print(json.dumps([bool((ours.read() == data).all()), *boxes]))
"""
    same, seen, normalized = peer(program, tmp_path / "ours", tmp_path / "theirs", tmp_path / "data.npy")
    assert same
    assert seen == repr(mag.bounding_box)
    theirs = Dataset(tmp_path / "theirs").get_layer("l")
    assert normalized == repr(theirs.normalized_bounding_box)
    np.testing.assert_array_equal(theirs.get_mag(1).read(), data)
    np.testing.assert_array_equal(theirs.get_mag(1).to_dask().compute(), data)
    for key in ("additionalAxes", "mags", "numChannels", "elementClass", "dataFormat", "category"):
        assert layer.record.raw[key] == theirs.record.raw[key], key
    documents = [
        json.loads((tmp_path / name / "l" / "1" / "zarr.json").read_text()) for name in ("ours", "theirs")
    ]
    for key in ("shape", "data_type", "chunk_grid", "codecs", "dimension_names", "fill_value"):
        if key != "codecs":
            assert documents[0][key] == documents[1][key], key
    position = dict.fromkeys(mag.further_axes, 1)
    plane = theirs.get_mag(1).read(**position)
    theirs.get_mag(1).write(255 - plane, **position)
    program = "print(json.dumps(int(wk.Dataset.open(sys.argv[1]).get_layer('l').get_mag(1).read().sum())))"
    changed = (
        int(data.astype(int).sum()) - int(plane.astype(int).sum()) + int((255 - plane).astype(int).sum())
    )
    assert peer(program, tmp_path / "theirs") == changed


def test_a_mesh_that_was_copied_by_us_is_found_by_the_peer(peer, tmp_path):
    (tmp_path / "m.hdf5").write_text("x")
    layer = Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer(
        "seg", "segmentation", dtype_per_channel="uint32"
    )
    layer.attachments.add_attachment_as_copy(
        MeshAttachment.from_path_and_name(tmp_path / "m.hdf5", "m", data_format="hdf5")
    )
    program = "a = wk.Dataset.open(sys.argv[1]).get_layer('seg').attachments.meshes[0]\n"
    assert peer(program + "print(json.dumps(a.path.read_text()))", tmp_path / "ds") == "x"
