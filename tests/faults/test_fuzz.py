"""Mutated cubes, headers and properties files, read and written in children: no signal, no hang, no wrong voxel.

The seeds are fixed: a failure comes again, and its message says which mutant it was. The quick form runs some
hundred mutants of each kind, the slow one 10 000 cubes and headers, and 10 000 properties files (less where
`WKDASK_FUZZ` says so).
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from wkdask import Dataset

SHARE = float(os.environ.get("WKDASK_FUZZ", "1"))
"""Share of the slow form's seeds that is run."""
SIDE, CHUNK = 16, 8

CUBES = """
import random, struct, sys, traceback
import numpy as np, dask.array as da
from wkdask import Dataset
from wkdask.errors import TaskFailedError, WkdaskError

path, compression, seed, count = args
TABLE = 16 if compression is None else 16 + 8 * 8
mag = Dataset(path).get_layer("layer").get_mag(1)
cubes = [f"{mag.path}/z0/y0/x{x}.wkw" for x in range(2)]
header = f"{mag.path}/header.wkw"
good = {name: open(name, "rb").read() for name in (*cubes, header)}
others = [open(f"{args[0]}/../other{number}", "rb").read() for number in range(3)]
expected = mag.read()
rng = random.Random(seed)
EDGES = [0, 1, 7, 15, 16, 17, 79, 80, 81, 255, 2**15, 2**31, 2**32, 2**32 - 1, 2**63, 2**64 - 1]


def mutated(data, end):
    # The header and the table are checked; what is behind them has no checksum, and is not changed here.
    data = bytearray(data)
    kind = rng.choice(["flip", "flip", "byte", "field", "cut", "grow", "entry", "swap", "noise", "lengths", "type"])
    if kind == "flip":
        for _ in range(rng.choice([1, 1, 1, 2, 8])):
            data[rng.randrange(end)] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        data[rng.randrange(min(end, 16))] = rng.randrange(256)
    elif kind == "field":
        near = len(data) + rng.randrange(-9, 9)
        struct.pack_into("<Q", data, 8, rng.choice([*EDGES, len(data), near, rng.getrandbits(64)]))
    elif kind == "cut":
        del data[rng.choice([rng.randrange(len(data)), rng.randrange(min(len(data), end + 2)), len(data) - 1]):]
    elif kind == "grow":
        data += bytes(rng.choice([1, 8, 4096]))
    elif kind == "entry" and end > 16:
        place = 16 + 8 * rng.randrange(8)
        old = struct.unpack_from("<Q", data, place)[0]
        new = rng.choice([*EDGES, len(data), old + rng.choice([-1, 1, -9, 300]), rng.getrandbits(64)])
        struct.pack_into("<Q", data, place, new % 2**64)
    elif kind == "swap":
        data = bytearray(rng.choice(others))
    elif kind == "noise":
        data[:end] = rng.randbytes(end)
    elif kind == "lengths":
        data[4] = rng.randrange(256)
    else:
        data[5:8] = bytes([rng.randrange(5), rng.randrange(12), rng.choice([0, 1, 2, 3, 4, 8, 255])])
    return kind, bytes(data)


def ours(error):
    # A task's error is ours, and is caused by one that is ours, or by the file system's.
    cause = error.__cause__ if isinstance(error, TaskFailedError) else error
    return isinstance(cause, (WkdaskError, OSError))


count_of = {"right": 0, "error": 0}
box = [0, 0, 0, 32, 16, 16]
for number in range(count):
    target = header if rng.random() < 0.2 else cubes[0]
    end = 16 if target == header else TABLE
    kind, data = mutated(good[target], end)
    with open(target, "wb") as file:
        file.write(data)
    where = f"mutant {number} of seed {seed}: {kind} of {target}, {data[:24].hex()}"
    print(where, file=sys.stderr, flush=True)
    call = rng.choice(["read", "part", "lazy", "open", "write", "dask", "slices"])
    wanted = expected
    try:
        if call == "read":
            found = mag.read()
        elif call == "part":
            corner = [rng.randrange(0, 15) for _ in range(3)]
            found = mag.read(offset=corner, size=(9, 1, 1))
            wanted = expected[:, corner[0] : corner[0] + 9, corner[1] : corner[1] + 1, corner[2] : corner[2] + 1]
        elif call == "lazy":
            found, wanted = mag.to_dask()[:, ::3, 5].compute(scheduler="synchronous"), expected[:, ::3, 5]
        elif call == "open":
            found = Dataset(path).get_layer("layer").get_mag(1).read()
        else:
            # a part of the cube, with the voxels that are there already
            part = expected[:, 2:9, 3:5, 1:6]
            if call == "write":
                mag.write(part, offset=(2, 3, 1))
            elif call == "dask":
                mag.write(da.from_array(part, chunks=(1, 4, 4, 4)), offset=(2, 3, 1))
            else:
                with mag.get_buffered_slice_writer(offset=(2, 3, 1)) as writer:
                    for z in range(part.shape[3]):
                        writer.send(part[..., z])
            found = mag.read()
    except Exception as error:
        assert ours(error), f"{where}, {call}: {error!r}"
        if target != header and isinstance(error, WkdaskError):
            assert cubes[0] in str(error), f"{where}, {call}: {error}"
        count_of["error"] += 1
        if call in ("write", "dask", "slices"):
            assert open(target, "rb").read() == data, f"{where}, {call}: a damaged file was changed"
    else:
        assert np.array_equal(found, wanted), f"{where}, {call}: wrong voxels"
        count_of["right"] += 1
    for name in (*cubes, header):
        if open(name, "rb").read() != good[name]:
            with open(name, "wb") as file:
                file.write(good[name])
print("RESULT", count_of["right"], count_of["error"])
"""


def fuzz_cubes(make_mag, children, dtype, compression, seed, count):
    """Run mutants of a mag's first cube and header; return how many were right and how many errors."""
    mag = make_mag(dtype, 1, SIDE, CHUNK, compression)
    values = np.random.default_rng(seed).integers(1, 100, (1, 2 * SIDE, SIDE, SIDE))
    mag.write(np.asfortranarray(values.astype(dtype)), offset=(0, 0, 0))
    dataset = Path(mag.place.dataset_path)
    for number, other in enumerate(
        [{"dtype": "uint16"}, {"cube": 32, "chunk": 16}, {"channels": 2, "compression": "lz4"}]
    ):
        foreign = make_mag(**{"dtype": dtype, "cube": SIDE, "chunk": CHUNK, **other})
        side = foreign.spec.shard_shape.x
        foreign.write(
            np.ones((foreign.num_channels, side, side, side), foreign.get_dtype()), offset=(0, 0, 0)
        )
        (dataset.parent / f"other{number}").write_bytes(Path(foreign.path, "z0/y0/x0.wkw").read_bytes())
    out = children.run(CUBES, str(dataset), compression, seed, count, timeout=400)
    right, errors = map(int, out.rpartition("RESULT")[2].split())
    assert right + errors == count
    return right, errors


KINDS = [("uint8", None), ("uint8", "lz4"), ("uint32", "lz4hc"), ("int16", None)]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "compression"), KINDS)
def test_case_13_mutated_cubes_and_headers(make_mag, children, dtype, compression):
    right, errors = fuzz_cubes(make_mag, children, dtype, compression, 7, 200)
    assert errors > 100
    assert right > 2  # such as another block type of the same layout


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("dtype", "compression"), KINDS)
def test_case_13_ten_thousand_mutated_cubes_and_headers(make_mag, children, dtype, compression):
    for seed in range(max(1, round(5 * SHARE))):
        right, errors = fuzz_cubes(make_mag, children, dtype, compression, 100 + seed, 500)
        assert errors > 250
        assert right > 5


PAYLOADS = """
import random, sys
from wkdask import Dataset
from wkdask.errors import DamagedCubeError
path, table, seed, count = args
mag = Dataset(path).get_layer("layer").get_mag(1)
cube = f"{mag.path}/z0/y0/x0.wkw"
good = open(cube, "rb").read()
rng = random.Random(seed)
for number in range(count):
    data = bytearray(good)
    for _ in range(rng.choice([1, 1, 4, 64])):
        data[rng.randrange(table, len(data))] = rng.choice([0, 255, rng.randrange(256)])
    with open(cube, "wb") as file:
        file.write(data)
    print(number, file=sys.stderr, flush=True)
    try:
        mag.read()
    except DamagedCubeError as error:
        assert cube in str(error)
"""


@pytest.mark.parametrize("compression", [None, "lz4", "lz4hc"])
@pytest.mark.parametrize(
    "count", [150, pytest.param(3000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_case_13_mutated_voxels_end_no_process(make_mag, children, compression, count):
    """The format has no checksum: other voxels may come out, or an error that names the cube; nothing else."""
    mag = make_mag("uint16", 1, SIDE, CHUNK, compression)
    ramp = np.arange(SIDE**3, dtype="uint16").reshape(1, SIDE, SIDE, SIDE) // 7
    mag.write(ramp + 1, offset=(0, 0, 0))
    children.run(PAYLOADS, mag.place.dataset_path, 80 if compression else 16, 3, count, timeout=400)


PROPERTIES = """
import json, os, random, resource, sys
from wkdask import Dataset
from wkdask.errors import PropertiesError, WkdaskError
from wkdask.properties import SetDatasetName, commit
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
path, seed, count = args
name = f"{path}/datasource-properties.json"
good = open(name, "rb").read()
rng = random.Random(seed)
VALUES = [
    None, True, False, 0, 1, -1, 2, 3, 255, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, 10**40, -(2**63), 0.5, -0.0,
    1e300, float("nan"), float("inf"), "", "a", "..", "/", "a/b", "\\0", "\\ud800", "color", "seg", "uint8",
    "uint24", "wkw", "zarr3", "http://127.0.0.1:9/x", "x" * 300, "../other/1", "./color/1", [], [[]], [1, 1, 1],
    [-1, -1, -1], [2, 2, 2], [1, 1], {}, {"a": 1}, {"mag": 1}, {"name": "color"},
    {"customJsonEncoding": "bigint", "value": "12"},
]
SPLINTERS = [b"{", b"[", b"]", b"}", b'"', b",", b"0", b"-", b"\\xff", b"\\0", b"NaN", b"1e999"]


def places(value, found, holder=None, key=None):
    if holder is not None:
        found.append((holder, key))
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for inner, each in list(items):
        places(each, found, value, inner)
    return found


def mutated():
    if rng.random() < 0.25:  # the text
        data = bytearray(good)
        for _ in range(rng.choice([1, 1, 2, 10])):
            kind = rng.choice(["flip", "cut", "insert", "repeat"])
            place = rng.randrange(len(data) or 1)
            if kind == "flip" and data:
                data[place] = rng.choice([data[place] ^ 1 << rng.randrange(8), *b'{}[],:"0-9.eE\\\\'])
            elif kind == "cut":
                del data[place : place + rng.choice([1, 5, 100, len(data)])]
            elif kind == "insert":
                data[place:place] = rng.choice(SPLINTERS)
            else:
                data[place:place] = data[place : place + rng.randrange(200)]
        return "text", bytes(data)
    raw = json.loads(good)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        holder, key = rng.choice(places(raw, []) or [(raw, "x")])
        kind = rng.choice(["set", "set", "set", "delete", "copy", "twice", "add"])
        try:
            if kind == "set":
                holder[key] = rng.choice(VALUES)
            elif kind == "delete":
                del holder[key]
            elif kind == "copy":
                other, inner = rng.choice(places(raw, []))
                holder[key] = json.loads(json.dumps(other[inner]))
            elif kind == "twice" and isinstance(holder, list):
                holder.append(holder[key])
            elif isinstance(holder, dict):
                holder["new key"] = rng.choice(VALUES)
        except (KeyError, IndexError, RecursionError):
            pass
    return "value", json.dumps(raw).encode()


def use(dataset):
    # Everything that looks at a layer: only errors of ours, and no word of it to the outside.
    for call in (
        lambda: dataset.name, lambda: dataset.voxel_size, lambda: dataset.scale, lambda: dataset.layers,
        lambda: dataset.default_view_configuration, lambda: dataset.get_color_layer(),
        lambda: repr(dataset), lambda: dataset._repr_html_(),
    ):
        attempt(call)
    for layer in dataset.layers.values():
        for call in (
            lambda: layer.bounding_box, lambda: layer.num_channels, lambda: layer.dtype_per_channel,
            lambda: layer.category, lambda: layer.data_format, lambda: layer.default_view_configuration,
            lambda: layer.largest_segment_id if layer.category == "segmentation" else None,
            lambda: list(layer.mags), lambda: layer.coordinate_transformations,
            lambda: getattr(layer, "attachments", None),
            lambda: repr(layer), lambda: layer._repr_html_(),
        ):
            attempt(call)
        for mag in attempt(lambda: list(layer.mags)) or ():
            view = attempt(lambda: layer.get_mag(mag))
            if view is not None:
                for call in (
                    lambda: view.read(), lambda: view.to_dask(),
                    lambda: view.read(offset=(0, 0, 0), size=(2, 2, 2)), lambda: view.bounding_box,
                    lambda: repr(view), lambda: view.get_view(),
                ):
                    attempt(call)


def attempt(call):
    try:
        return call()
    except WkdaskError:
        return None


opened = refused = saved = 0
for number in range(count):
    kind, data = mutated()
    with open(name, "wb") as file:
        file.write(data)
    print(f"mutant {number} of seed {seed}: {kind} {data[:3000]}", file=sys.stderr, flush=True)
    try:
        dataset = Dataset(path)
    except PropertiesError as error:
        assert str(error).startswith(name) and len(str(error)) < 2000, error
        refused += 1
    else:
        opened += 1
        use(dataset)
    try:
        commit(path, [SetDatasetName("fuzzed")])
        saved += 1
        assert json.loads(open(name, "rb").read())["id"]["name"] == "fuzzed"
    except PropertiesError:
        assert open(name, "rb").read() == data
print("RESULT", opened, refused, saved)
"""


def fuzz_properties(tmp_path, children, seed, count):
    """Run mutants of a properties file; return how many opened and how many were refused."""
    dataset = Dataset.create(tmp_path / f"ds{seed}", (11.24, 11.24, 28))
    for name, category in (("color", "color"), ("seg", "segmentation")):
        layer = dataset.add_layer(name, category)
        for mag in (1, "2-2-1"):
            layer.add_mag(mag, chunk_shape=8, shard_shape=16).write(
                np.ones((9, 9, 9), "uint8"), offset=(0, 0, 0)
            )
        layer.default_view_configuration = {"color": [255, 0, 0], "intensityRange": [0, 1], "alpha": 20}
    dataset.default_view_configuration = {"zoom": 0.5, "position": [1, 2, 3]}
    path = Path(dataset.path, "datasource-properties.json")
    if seed % 2:  # the layout of 2021
        raw = json.loads(path.read_text())
        raw["scale"] = [11.24, 11.24, 28]
        del raw["version"]
        for layer in raw["dataLayers"]:
            mags = layer.pop("mags")
            layer["wkwResolutions"] = [
                {"resolution": mag["mag"], "cubeLength": mag["cubeLength"]} for mag in mags
            ]
        path.write_text(json.dumps(raw, indent=1))
        assert Dataset(dataset.path).get_layer("seg").get_mag("2-2-1").read().any()
    out = children.run(PROPERTIES, dataset.path, seed, count, timeout=400)
    opened, refused, _ = map(int, out.rpartition("RESULT")[2].split())
    assert opened + refused == count
    return opened, refused


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_case_39_mutated_properties_files(tmp_path, children, seed):
    opened, refused = fuzz_properties(tmp_path, children, seed, 150)
    assert min(opened, refused) > 25


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 100 + max(1, round(20 * SHARE))))
def test_case_39_ten_thousand_mutated_properties_files(tmp_path, children, seed):
    opened, refused = fuzz_properties(tmp_path, children, seed, 500)
    assert min(opened, refused) > 80
