"""Mutated metadata of OME-Zarr images: an error of ours, or an image that can be read; nothing else."""

import json
import random
import shutil

import numpy as np
import pytest
from foreign_zarr import halved, image, labels

from wkdask.convert.scales import open_scales
from wkdask.errors import WkdaskError
from wkdask.geometry import BoundingBox

VALUES = [
    None, True, 0, 1, -1, 2, 3, 0.5, 1e300, float("nan"), float("inf"), 2**63, 10**18, "", "a", "..", "/", "0",
    "labels", "zyx", "pixel", "uint16", "|u1", [], [[]], [1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], ["z", "y", "x"],
    {}, {"a": 1}, {"name": "x"}, {"type": "scale"}, {"type": "scale", "scale": [1, 1]},
]  # fmt: skip


def places(value, found, holder=None, key=None):
    """Return (holder, key) of everything in a JSON value."""
    if holder is not None:
        found.append((holder, key))
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for inner, each in list(items):
        places(each, found, value, inner)
    return found


def mutate(rng, folder):
    """Change something in one of the metadata files of a folder."""
    names = (".zattrs", ".zarray", ".zgroup", "zarr.json")
    files = sorted(path for path in folder.rglob("*") if path.name in names)
    file = rng.choice([path for path in files if len(path.read_text()) > 2])  # not {}
    if (kind := rng.random()) < 0.05:
        file.unlink()
        return
    if kind < 0.1:
        file.write_text(file.read_text()[:20])
        return
    raw = json.loads(file.read_text())
    holder, key = rng.choice(places(raw, []))
    how = rng.choice(["set", "set", "delete", "twice"])
    if how == "set":
        holder[key] = rng.choice(VALUES)
    elif how == "delete":
        del holder[key]
    elif isinstance(holder, list):
        holder.append(holder[key])
    file.write_text(json.dumps(raw))


@pytest.fixture(scope="module", params=["0.4", "0.5"])
def sound(request, tmp_path_factory):
    """A sound image with labels."""
    voxels = np.random.default_rng(0).integers(0, 9, (2, 12, 10, 6)).astype("uint8")
    folder = tmp_path_factory.mktemp("sound") / "image"
    scales = [((1, 1, 1), voxels), ((2, 2, 1), halved(voxels, (2, 2, 1)))]
    image(folder, scales, version=request.param, unit="micrometer")
    options = {"axes": "zyx", "unit": "micrometer"}
    labels(folder, request.param, cells=([((1, 1, 1), voxels[:1].astype("uint32"))], options))
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # zarr-python's
@pytest.mark.parametrize("seed", range(3))
def test_mutated_metadata(tmp_path, sound, seed):
    rng = random.Random(seed)
    outcomes = {"read": 0, "refused": 0}
    for number in range(15):
        folder = tmp_path / str(number)
        shutil.copytree(sound, folder)
        mutate(rng, folder)
        refusal = None
        try:
            for layer in open_scales(folder, voxel_size=(1, 1, 1)).layers:
                for scale in layer.scales:
                    if scale.array.size.prod() < 10**6:
                        box = BoundingBox((0, 0, 0), scale.array.size)
                        assert scale.array.read(box).shape[1:] == scale.array.size
        except WkdaskError as error:
            refusal = str(error)
        outcomes["read" if refusal is None else "refused"] += 1
        assert refusal is None or str(folder) in refusal
    assert min(outcomes.values()) > 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", ["chunks", "shape"])
def test_sides_of_nothing(tmp_path, sound, key):
    shutil.copytree(sound, tmp_path / "image")
    for file in tmp_path.rglob("*"):
        if file.name == ".zarray":
            raw = json.loads(file.read_text())
            file.write_text(json.dumps(raw | {key: [0] * len(raw[key])}))
        elif file.name == "zarr.json" and (raw := json.loads(file.read_text()))["node_type"] == "array":
            if key == "shape":
                raw["shape"] = [0] * len(raw["shape"])
            else:
                raw["chunk_grid"]["configuration"]["chunk_shape"] = [0] * len(raw["shape"])
            file.write_text(json.dumps(raw))
    with pytest.raises(WkdaskError, match="image/0"):
        open_scales(tmp_path / "image")
