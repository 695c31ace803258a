"""A dataset is data only, and nothing of ours listens: what ``docs/security.md`` says, tried."""

import contextlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import wkdask
from wkdask import Dataset

BIN = Path(sys.executable).parent

LISTENING = """
import json, sys
import psutil
from wkdask import Dataset

listening = set()

def look(*_):
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        for connection in process.net_connections("all"):
            if connection.status == psutil.CONN_LISTEN:
                listening.add(str(connection.laddr))

layer = Dataset(sys.argv[1]).get_layer("color")
look()
out = layer.get_mag(1)
out.write(255 - out.to_dask(), progress=look)
layer.downsample(coarsest_mag=2, progress=look)
look()
print(json.dumps(sorted(listening)))
"""


def environment():
    env = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
    return env | {"PYTHONPATH": str(Path(wkdask.__file__).parents[1])}


def run(*command, cwd, **env):
    done = subprocess.run(
        [str(part) for part in command], env=environment() | env, cwd=cwd, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert "AssertionError" not in done.stderr, done.stderr
    return done


@pytest.fixture
def volume(tmp_path, random_voxels):
    voxels = random_voxels((1, 128, 128, 64))
    ds = Dataset.create(tmp_path / "ds", (8, 8, 30))
    ds.add_layer("color", "color").add_mag(1, shard_shape=32, chunk_shape=16).write(voxels)
    return voxels


@pytest.mark.slow
def test_a_job_on_local_threads_listens_nowhere(tmp_path, volume):
    done = run(sys.executable, "-c", LISTENING, "ds", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
    assert np.array_equal(Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read(), 255 - volume)


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture
def hostile(tmp_path, volume):
    """A dataset whose folders are full of what would run if anything imported, unpickled or evaluated it."""
    folder, trap = tmp_path / "ds", tmp_path / "executed"
    load = pickle.dumps(Trap(str(trap)), protocol=2)
    code = f"open({str(trap)!r}, 'w').close()\n"
    layer = folder / "color"

    with contextlib.closing(pickle.loads(load)):
        assert trap.exists(), "the trap does not work"
    trap.unlink()
    exec(code)
    assert trap.exists(), "the trap does not work"
    trap.unlink()

    modules = [
        "wkw",
        "numpy",
        "dask",
        "distributed",
        "conftest",
        "sitecustomize",
        "__init__",
        "__main__",
        "yaml",
    ]
    for place in (folder, layer, layer / "1"):
        for name in modules:
            (place / f"{name}.py").write_text(code)
        for name in ("data.pkl", "array.npy", ".zattrs", "mapping.json", "agglomerate.hdf5", "header.pkl"):
            (place / name).write_bytes(load)
        (place / "dask.yaml").write_text(f"distributed:\n  worker:\n    preload: ['{folder}/wkw.py']\n")
        (place / "env").write_text(f"PYTHONPATH={folder}\n")
    private = layer / "1/.wkdask"
    job = private / "0123456789ab"
    job.mkdir(parents=True)
    for name in ("alive", "ticket", "journal", "plan", "state", "journal.json", "done"):
        (job / name).write_bytes(load)
    (private / "stamp").write_bytes(load)
    (private / "locks/000.lock").write_bytes(load)

    mags = {"bad_header": layer / "2", "bad_cube": layer / "4"}
    ds = Dataset(folder)
    for mag in (2, 4):
        ds.get_layer("color").add_mag(mag, shard_shape=32, chunk_shape=16).write(
            volume[:, ::mag, ::mag, ::mag]
        )
    (mags["bad_header"] / "header.wkw").write_bytes(load)
    for cube in mags["bad_cube"].glob("z*/y*/x*.wkw"):
        cube.write_bytes(load)

    zarr2 = {
        "zarr_format": 2, "shape": [1, 32, 32, 32], "chunks": [1, 32, 32, 32], "dtype": "|O", "fill_value": 0,
        "order": "F", "compressor": None, "filters": [{"id": "pickle", "protocol": 2}],
    }  # fmt: skip
    zarr3 = {
        "zarr_format": 3, "node_type": "array", "shape": [1, 32, 32, 32], "data_type": "uint8", "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 32, 32, 32]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "numcodecs.pickle", "configuration": {"protocol": 2}}, {"name": "bytes"}],
        "attributes": {}, "dimension_names": ["c", "x", "y", "z"],
    }  # fmt: skip
    for name, file, content, chunk in [
        ("zarr2", ".zarray", zarr2, "0.0.0.0"),
        ("zarr3", "zarr.json", zarr3, "c/0/0/0/0"),
    ]:
        mag = folder / name / "1"
        (mag / chunk).parent.mkdir(parents=True)
        (mag / file).write_text(json.dumps(content))
        (mag / chunk).write_bytes(load)

    path = folder / "datasource-properties.json"
    properties = json.loads(path.read_text())
    properties["name"] = f"{{{{ {code} }}}} $({code}) __import__('os').system('touch {trap}')"
    box = {"topLeft": [0, 0, 0], "width": 32, "height": 32, "depth": 32}
    for name, form in (("zarr2", "zarr"), ("zarr3", "zarr3")):
        properties["dataLayers"].append(
            {
                "name": name, "category": "color", "elementClass": "uint8", "dataFormat": form,
                "boundingBox": box, "numChannels": 1, "mags": [{"mag": [1, 1, 1], "path": f"./{name}/1"}],
            }
        )  # fmt: skip
    path.write_text(json.dumps(properties))
    return folder, trap


TRY_ALL = """
import sys
from wkdask import Dataset
from wkdask.errors import WkdaskError

def attempt(function):
    try:
        return function()
    except (WkdaskError, OSError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        print(type(error).__name__, str(error)[:100])

def use(ds):
    repr(ds), attempt(ds._repr_html_)
    for layer in ds.layers.values():
        repr(layer), attempt(layer._repr_html_)
        for mag in list(layer.mags):
            view = attempt(lambda: layer.get_mag(mag))
            if view is not None:
                attempt(lambda: view.read())
                attempt(lambda: view.to_dask().max().compute())
                attempt(lambda: view.write(255 - view.to_dask()))
                attempt(lambda: view.compress())
        attempt(lambda: layer.downsample(from_mag=1, coarsest_mag=8, allow_overwrite=True))
        attempt(lambda: ds.copy_dataset(ds.path + "-copy"))

if __name__ == "__main__":
    if sys.argv[1] == "threads":
        use(Dataset("."))
    else:
        from distributed import Client, LocalCluster
        with LocalCluster(n_workers=1, dashboard_address=None) as cluster, Client(cluster):
            use(Dataset("."))
    ds = Dataset(".")
    for name in list(ds.layers):
        attempt(lambda: ds.delete_layer(name))
    print("tried")
"""


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("where", ["threads", "workers"])
def test_nothing_of_a_dataset_is_executed(hostile, tmp_path, where):
    """Whoever works on it stands in its folder, as one does.

    There a Python that is spawned takes modules from that folder, unless it is told not to: see the page.
    """
    folder, trap = hostile
    (tmp_path / "use.py").write_text(TRY_ALL)
    for command in (
        [BIN / "wkdask", "info", "."],
        [BIN / "wkdask", "preview", ".", "-o", "../preview.png"],
        [sys.executable, tmp_path / "use.py", where],
    ):
        env = {"PYTHONSAFEPATH": "1"} if where == "workers" else {}
        done = run(*command, cwd=folder, **env)
        assert not trap.exists(), command
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("tried\n")
