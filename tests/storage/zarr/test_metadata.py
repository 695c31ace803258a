"""Metadata of Zarr arrays: what others wrote is understood, damage and what cannot be held are told apart."""

import copy
import errno
import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thorough import examples
from zarr_mags import CUBE_0, make, noise, write

from wkdask.errors import DamagedHeaderError, DTypeError, UnsupportedFormatError, WkdaskError
from wkdask.geometry import BoundingBox
from wkdask.storage.zarr.layout import document_of
from wkdask.storage.zarr.mag import ZarrMag
from wkdask.storage.zarr.metadata import parse, shape_around


@pytest.fixture(params=["zarr3", "zarr"])
def form(request, tmp_path):
    """The format, and the metadata of a mag in it."""
    mag = make(tmp_path / "mag", request.param)
    with open(mag.metadata_path) as file:
        return request.param, json.load(file), mag


def test_what_is_written_is_what_is_read(form):
    data_format, document, mag = form
    layout, shape = parse(document, data_format)
    assert layout == mag.layout
    assert document_of(layout, shape) == document


def changed(document, path, value):
    """Return a document with another value in a place."""
    document = copy.deepcopy(document)
    *way, last = path
    place = document
    for step in way:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


SHARDING = ("codecs", 0, "configuration")
INNER = (*SHARDING, "codecs")
V3_DAMAGES = [
    *[
        ((key,), ...)
        for key in ("zarr_format", "node_type", "shape", "chunk_grid", "chunk_key_encoding", "codecs")
    ],
    *[((key,), None) for key in ("shape", "data_type", "chunk_grid", "codecs")],
    (("node_type",), "group"),
    (("zarr_format",), 2),
    (("shape",), [1, 16, 16]),
    (("shape",), [1, 16, 16, -16]),
    (("shape",), [1, 16, 16, 16.0]),
    (("shape",), [1, 16, 16, True]),
    (("shape",), [0, 16, 16, 16]),
    (("shape",), [1, 16, 16, 2**63]),
    (("chunk_grid", "configuration", "chunk_shape"), [1, 16, 16, 0]),
    (("chunk_grid", "configuration", "chunk_shape"), [1, 16, 16]),
    (("chunk_grid", "configuration", "chunk_shape"), "16"),
    (("chunk_key_encoding", "configuration", "separator"), "-"),
    (("dimension_names",), ["x", "y", "z", "x"]),
    (("fill_value",), "seven"),
    (("fill_value",), 256),
    (("fill_value",), 0.5),
    (("codecs",), []),
    (("codecs",), [7]),
    ((*SHARDING, "chunk_shape"), [1, 8, 8, 7]),
    ((*SHARDING, "chunk_shape"), [1, 8, 8]),
    ((*INNER, 0, "configuration", "order"), [3, 2, 1, 1]),
    ((*INNER, 0, "configuration", "order"), [3, 2, 1]),
    ((*INNER, 0, "configuration", "order"), "F"),
    ((*INNER, 1), {"name": "bytes", "configuration": {"endian": "middle"}}),
    ((*INNER, 2, "configuration"), []),
]
V3_UNSUPPORTED = [
    (("chunk_grid", "name"), "rectilinear"),
    (("chunk_key_encoding", "name"), "suffix"),
    (("storage_transformers",), [{"name": "some"}]),
    ((*INNER, 2, "name"), "numcodecs.lzma"),
    ((*INNER, 2, "name"), "sharding_indexed"),
    ((*INNER, 1, "name"), "packbits"),
    ((*INNER, 1), ...),
    ((*SHARDING, "index_location"), "middle"),
    ((*SHARDING, "index_codecs"), [{"name": "bytes", "configuration": {"endian": "big"}}]),
    ((*SHARDING, "index_codecs"), [{"name": "bytes"}, {"name": "zstd", "configuration": {}}]),
    (("chunk_grid", "configuration", "chunk_shape"), [1, 2**40, 2**40, 2**40]),
]
V2_DAMAGES = [
    *[((key,), ...) for key in ("zarr_format", "shape", "chunks", "order")],
    (("zarr_format",), 3),
    (("dtype",), "no type"),
    (("order",), "A"),
    (("shape",), None),
    (("chunks",), [1, 8, 8]),
    (("chunks",), [1, 8, 8, 0]),
    (("dimension_separator",), "-"),
    (("compressor",), "zstd"),
    (("compressor",), {}),
    (("fill_value",), "seven"),
]
V2_UNSUPPORTED = [
    (("filters",), [{"id": "delta", "dtype": "|u1"}]),
    (("compressor", "id"), "bz2"),
    (("chunks",), [1, 2**40, 8, 8]),
]


@pytest.mark.parametrize(
    ("data_format", "path", "value", "error"),
    [
        *[("zarr3", *change, DamagedHeaderError) for change in V3_DAMAGES],
        *[("zarr3", *change, UnsupportedFormatError) for change in V3_UNSUPPORTED],
        *[("zarr", *change, DamagedHeaderError) for change in V2_DAMAGES],
        *[("zarr", *change, UnsupportedFormatError) for change in V2_UNSUPPORTED],
        ("zarr3", ("data_type",), "float16", DTypeError),
        ("zarr3", ("data_type",), {"name": "struct"}, DTypeError),
        ("zarr", ("dtype",), "|b1", DTypeError),
        ("zarr", ("dtype",), [["a", "<u2"]], DTypeError),
        ("zarr", ("dtype",), "<c8", DTypeError),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path, data_format, path, value, error):
    mag = make(tmp_path / "mag", data_format)
    with open(mag.metadata_path) as file:
        document = json.load(file)
    with open(mag.metadata_path, "w") as file:
        json.dump(changed(document, path, value), file)
    with pytest.raises(error, match=mag.metadata_path):
        ZarrMag.open(mag.path, data_format)


def test_axes_that_the_properties_name_count(form):
    data_format, document, _ = form
    document = (
        changed(document, ("dimension_names",), ["c", "x", "y", "z"]) if data_format == "zarr3" else document
    )
    layout, _ = parse(document, data_format, {"c": 0, "z": 1, "y": 2, "x": 3})
    assert layout.axes == "czyx"
    for bad in (
        {"x": 0, "y": 1},
        {"x": 0, "y": 1, "z": 4},
        {"x": 0, "y": 1, "z": 1},
        {"x": 0, "y": 1, "z": "2"},
    ):
        with pytest.raises(ValueError, match="ax"):
            parse(document, data_format, bad)


def test_more_axes_are_passed_over_where_they_are_one_thick(tmp_path):
    import zarr

    for length in (1, 2):
        zarr.create_array(tmp_path / f"{length}", shape=(length, 4, 4, 4), chunks=(1, 4, 4, 4), dtype="uint8",
                          dimension_names=["t", "z", "y", "x"])  # fmt: skip
    assert ZarrMag.open(str(tmp_path / "1"), "zarr3").layout.axes == ".zyx"
    with pytest.raises(UnsupportedFormatError, match="2 entries"):
        ZarrMag.open(str(tmp_path / "2"), "zarr3")
    zarr.create_array(tmp_path / "5", shape=(1,) * 5, chunks=(1,) * 5, dtype="uint8")
    with pytest.raises(UnsupportedFormatError, match="5 dimensions"):
        ZarrMag.open(str(tmp_path / "5"), "zarr3")


def test_a_shape_grows_by_whole_cubes_and_never_shrinks(form):
    _, _, mag = form
    side = mag.spec.shard_shape.x
    shape = [1, 5 * side + 1, 1, 0]
    found = shape_around(mag.layout, shape, BoundingBox((side, 0, 0), (1, side + 1, 0)))
    assert found == [1, 5 * side + 1, 2 * side, 0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


def ways(value, way=()):
    """Yield the ways to all places in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*way, key)
        yield from ways(inner, (*way, key))


def check_mutation(folder, data_format, mutate):
    """Any document gives an error of ours, or an array that can be used."""
    mag = (
        make(folder, data_format) if not folder.exists() else ZarrMag(str(folder), make.layouts[data_format])
    )
    make.layouts[data_format] = mag.layout
    sound = json.dumps(document_of(mag.layout, [1, 16, 16, 16]))
    with open(mag.metadata_path, "w") as file:
        file.write(mutate(sound))
    try:
        found = ZarrMag.open(str(folder), data_format)
        assert found.read(BoundingBox((0, 0, 0), (3, 3, 3))).shape[1:] == (3, 3, 3)
    except WkdaskError as error:
        assert str(folder) in str(error)  # noqa: PT017


make.layouts = {}


@settings(
    max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data(), st.sampled_from(["zarr3", "zarr"]))
def test_mutated_metadata_are_an_error_of_ours_or_usable(tmp_path, data, data_format):
    def mutate(text):
        document = json.loads(text)
        for _ in range(data.draw(st.integers(1, 3))):
            way = data.draw(st.sampled_from(list(ways(document))))
            document = changed(document, way, data.draw(JSON | st.just(...)))
            if not document:
                break
        return json.dumps(document)

    check_mutation(tmp_path / data_format, data_format, mutate)


@pytest.mark.slow
def test_10_000_mutated_metadata_and_cubes(tmp_path):
    rng = np.random.default_rng(0)
    for data_format in ("zarr3", "zarr"):

        def mutate(text):
            data = bytearray(text.encode())
            for _ in range(rng.integers(1, 5)):
                data[rng.integers(len(data))] = rng.integers(32, 127)
            return data[: rng.integers(1, len(data)) if rng.random() < 0.1 else None].decode()

        for _ in range(2500):
            check_mutation(tmp_path / data_format, data_format, mutate)
        mag = make(tmp_path / f"{data_format} cubes", data_format)
        voxels = noise((1, 16, 16, 16))
        write(mag, CUBE_0, voxels)
        path = mag.cube_path(BoundingBox((0, 0, 0), (1, 1, 1)).topleft)
        with open(path, "rb") as file:
            sound = file.read()
        for _ in range(2500):
            data = bytearray(sound)
            for _ in range(rng.integers(1, 5)):
                data[rng.integers(len(data))] = rng.integers(256)
            with open(path, "wb") as file:
                file.write(data[: rng.integers(len(data)) if rng.random() < 0.2 else None])
            try:
                found = mag.read(CUBE_0)
            except WkdaskError as error:
                assert path in str(error)  # noqa: PT017
            else:
                if data_format == "zarr3":
                    np.testing.assert_array_equal(found, voxels)


def test_a_folder_without_descriptors_is_an_error(tmp_path):
    """No descriptor is left in the process: neither the metadata nor a cube are taken for missing."""
    import resource

    mag = make(tmp_path / "mag")
    write(mag, CUBE_0, noise((1, 16, 16, 16)))
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                mag.read(CUBE_0)
            except OSError as error:
                code = 1 if error.errno == errno.EMFILE and error.filename == mag.metadata_path else 2
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            code += 10 * (mag.read(CUBE_0) == noise((1, 16, 16, 16))).all()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 11
