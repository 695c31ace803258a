"""Modules from which scripts of version 4 import names: the names are the same objects as those of `wkdask`."""

import importlib

import pytest

import wkdask
from wkdask.errors import OutOfScopeError

PLACES = {
    "dataset": (
        "Dataset Layer MagView View SegmentationLayer MeshAttachment AgglomerateAttachment Attachments "
        "AgglomerateGraph SamplingModes DEFAULT_SHARD_SHAPE"
    ),
    "dataset.defaults": "DEFAULT_CHUNK_SHAPE DEFAULT_SHARD_SHAPE DEFAULT_DATA_FORMAT DataFormat",
    "dataset.sampling_modes": "SamplingModes",
    "dataset_properties": "DataFormat COLOR_CATEGORY AttachmentDataFormat VoxelSize LayerViewConfiguration",
    "geometry": "BoundingBox Mag NDBoundingBox Vec3Int Vec3Float VecInt as_vec3_int_or_none as_vec3_float_or_none",
    "geometry.constants": "C_AXIS X_AXIS XYZ_AXES TCXYZ_AXES XYZAxis",
}


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in PLACES.items() for n in names.split()])
def test_a_name_is_there(module, name):
    if name == "AgglomerateGraph":
        pytest.importorskip("networkx")
    assert getattr(importlib.import_module(f"wkdask.{module}"), name) is getattr(wkdask, name)


def test_the_defaults_are_vectors_that_equal_tuples():
    from wkdask.dataset.defaults import DEFAULT_CHUNKS_PER_SHARD, PROPERTIES_FILE_NAME

    assert (wkdask.DEFAULT_CHUNK_SHAPE * DEFAULT_CHUNKS_PER_SHARD).x == wkdask.DEFAULT_SHARD_SHAPE.x == 1024
    assert wkdask.DEFAULT_SHARD_SHAPE == (1024, 1024, 1024)
    assert PROPERTIES_FILE_NAME == "datasource-properties.json"


def test_what_stays_outside_says_so_from_there_too():
    with pytest.raises(ImportError, match=r"no RemoteDataset: .*stays outside of wkdask"):
        exec("from wkdask.dataset import RemoteDataset")
    with pytest.raises(OutOfScopeError, match="stays outside"):
        importlib.import_module("wkdask.dataset").TransferMode
