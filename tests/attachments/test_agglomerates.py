"""Agglomerates: a graph of segments, and the arrays that are stored of it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import zarr

from wkdask import AgglomerateAttachment, AgglomerateGraph, Dataset
from wkdask.errors import (
    AlreadyExistsError,
    DamagedHeaderError,
    DTypeError,
    InvalidValueError,
    UnsupportedFormatError,
)

POSITIONS = [(1, 2, 3), (4, 5, 6), (7, 8, 9), (0, 0, 1), (5, 5, 5), (6, 6, 6)]
ARRAYS = {  # 1 alone; 2, 4, 6; 3, 5
    "segment_to_agglomerate": ("uint64", [0, 1, 2, 3, 2, 3, 2]),
    "agglomerate_to_segments_offsets": ("uint64", [0, 0, 1, 4, 6]),
    "agglomerate_to_segments": ("uint32", [1, 2, 4, 6, 3, 5]),
    "agglomerate_to_positions": (
        "int32",
        [[1, 2, 3], [4, 5, 6], [0, 0, 1], [6, 6, 6], [7, 8, 9], [5, 5, 5]],
    ),
    "agglomerate_to_edges_offsets": ("uint64", [0, 0, 0, 2, 3]),
    "agglomerate_to_edges": ("uint32", [[0, 1], [0, 2], [0, 1]]),
    "agglomerate_to_affinities": ("float32", [0.5, 1.0, 0.25]),
}


def make_graph():
    graph = AgglomerateGraph()
    for n, position in enumerate(POSITIONS, start=1):
        graph.add_segment(n, position=position)
    graph.add_affinity_edge(4, 2, affinity=0.5)
    graph.add_affinity_edge(2, 6, affinity=1)
    graph.add_affinity_edge(5, 3, affinity=0.25)
    return graph


def same(a, b):
    edges = [{frozenset(e[:2]): e[2]["affinity"] for e in graph.edges(data=True)} for graph in (a, b)]
    return dict(a.nodes(data="position")) == dict(b.nodes(data="position")) and edges[0] == edges[1]


def test_the_arrays_of_a_graph(tmp_path):
    made = AgglomerateAttachment.create(tmp_path / "agg", make_graph())
    assert (made.name, made.path, str(made.data_format)) == ("agg", tmp_path / "agg", "zarr3")
    group = zarr.open_group(tmp_path / "agg", mode="r")
    assert dict(group.attrs)["voxelytics"] == {
        "artifact_schema_version": 4,
        "artifact_class": "AgglomerateViewArtifact",
    }
    found = {name: (str(array.dtype), array[...].tolist()) for name, array in group.arrays()}
    assert found == ARRAYS
    codecs = json.loads((tmp_path / "agg" / "agglomerate_to_edges" / "zarr.json").read_text())["codecs"]
    assert [codec["name"] for codec in codecs] == ["sharding_indexed"]


def test_a_graph_comes_back(tmp_path):
    made = AgglomerateAttachment.create(tmp_path / "agg", make_graph(), segmentation_dtype="uint64")
    assert zarr.open_array(tmp_path / "agg" / "agglomerate_to_edges", mode="r").dtype == np.uint64
    assert same(made.to_graph(), make_graph())
    assert repr(made.to_graph()) == "AgglomerateGraph(6 nodes, 3 edges)"


def test_graphs_without_segments_or_edges(tmp_path):
    empty = AgglomerateAttachment.create(tmp_path / "empty", AgglomerateGraph())
    assert empty.to_graph().number_of_nodes() == 0
    graph = AgglomerateGraph()
    graph.add_segment(1, position=(0, 0, 0))
    assert same(AgglomerateAttachment.create(tmp_path / "one", graph).to_graph(), graph)


def test_many_segments_take_several_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("wkdask.attachments.agglomerates._CHUNK", 10)
    monkeypatch.setattr("wkdask.attachments.agglomerates._SHARD", 40)
    graph = AgglomerateGraph()
    for n in range(1, 98):
        graph.add_segment(n, position=(n, 0, 0))
    for n in range(1, 97, 2):
        graph.add_affinity_edge(n, n + 1, affinity=n)
    assert same(AgglomerateAttachment.create(tmp_path / "agg", graph).to_graph(), graph)


def gap(graph):
    graph.add_segment(8, position=(0, 0, 0))


def zero(graph):
    graph.add_segment(0, position=(0, 0, 0))


def no_position(graph):
    graph.add_affinity_edge(6, 7, affinity=1)


def no_affinity(graph):
    graph.add_edge(1, 2)


def far(graph):
    graph.add_segment(7, position=(2**31, 0, 0))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (gap, "dense, from 1 to .* without gaps, but 7 is missing"),
        (zero, "positive integers, counted from 1; got 0"),
        (no_position, "segment 7 has no position"),
        (no_affinity, "edge 1, 2 has no affinity"),
        (far, "32 bits"),
    ],
)
def test_a_graph_that_cannot_be_stored_is_refused(tmp_path, change, says):
    graph = make_graph()
    change(graph)
    with pytest.raises(InvalidValueError, match=says):
        AgglomerateAttachment.create(tmp_path / "agg", graph)
    assert os.listdir(tmp_path) == []


def test_other_types_and_taken_names_are_refused(tmp_path):
    with pytest.raises(DTypeError, match="uint32 or uint64, got uint16"):
        AgglomerateAttachment.create(tmp_path / "agg", make_graph(), segmentation_dtype="uint16")
    (tmp_path / "agg").mkdir()
    with pytest.raises(AlreadyExistsError, match="exists already"):
        AgglomerateAttachment.create(tmp_path / "agg", make_graph())
    assert os.listdir(tmp_path) == ["agg"]


def test_agglomerates_of_a_layer(tmp_path):
    dataset = Dataset.create(tmp_path / "ds", (1, 1, 1))
    layer = dataset.add_layer("seg", "segmentation", dtype_per_channel="uint64")
    made = AgglomerateAttachment.create_and_add_to(layer, "first", make_graph())
    assert made.path == tmp_path / "ds" / "seg" / "agglomerates" / "first"
    assert layer.attachments.agglomerates == (made,)
    assert same(layer.attachments.agglomerates[0].to_graph(), make_graph())
    assert zarr.open_array(made.path / "agglomerate_to_segments", mode="r").dtype == np.uint64
    with pytest.raises(AlreadyExistsError, match="'first' among its agglomerates"):
        AgglomerateAttachment.create_and_add_to(layer, "first", make_graph())
    small = dataset.add_layer("small", "segmentation", dtype_per_channel="uint16")
    with pytest.raises(DTypeError, match="got uint16"):
        AgglomerateAttachment.create_and_add_to(small, "first", make_graph())
    assert os.listdir(small.path) == []


def test_what_is_no_agglomerate_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"zarr\.json is missing"):
        AgglomerateAttachment.from_path_and_name(tmp_path / "x", "x", data_format="zarr3").to_graph()
    with pytest.raises(UnsupportedFormatError, match="is hdf5 at"):
        AgglomerateAttachment.from_path_and_name(tmp_path / "x", "x", data_format="hdf5").to_graph()
    with pytest.raises(UnsupportedFormatError, match="s3://"):
        AgglomerateAttachment.from_path_and_name("s3://b/x", "x", data_format="zarr3").to_graph()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("agglomerate_to_segments_offsets", [0, 0, 4, 1, 6]),
        ("agglomerate_to_edges_offsets", [0, 0, 0, 2, 9]),
        ("agglomerate_to_edges", [[0, 1], [0, 7], [0, 1]]),
    ],
)
def test_arrays_that_contradict_each_other_are_refused(tmp_path, name, values):
    made = AgglomerateAttachment.create(tmp_path / "agg", make_graph())
    zarr.open_array(tmp_path / "agg" / name, mode="r+")[...] = values
    with pytest.raises(DamagedHeaderError, match=r"do not rise|leaves its segments"):
        made.to_graph()


def test_a_missing_array_is_named(tmp_path):
    made = AgglomerateAttachment.create(tmp_path / "agg", make_graph())
    (tmp_path / "agg" / "agglomerate_to_edges" / "zarr.json").unlink()
    with pytest.raises(DamagedHeaderError, match="cannot be read"):
        made.to_graph()


def test_without_networkx_the_graph_says_what_it_needs():
    code = "import sys; sys.modules['networkx'] = None; import wkdask; wkdask.AgglomerateGraph"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install wkdask[graph]" in found.stderr
