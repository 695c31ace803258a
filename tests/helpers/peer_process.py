"""A process that runs webknossos 4.3.3, which is compared with, and what is compared."""

import contextlib
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from repository import ROOT

from wkdask import Dataset
from wkdask.properties import load

VNC = ROOT.parent / "shared" / "data" / "vnc"
PLAIN, TEM, SBEM, ODD = (1, 1, 1), (4.6, 4.6, 45), (11.24, 11.24, 28), (1, 2, 3)


class PeerError(Exception):
    """What a call raised in the peer's process."""


class Peer:
    """The peer's process: ``peer("read", path=..., layer=..., mag=...)``; see the calls in peer_side.py."""

    def __init__(self, python, folder, array_files):
        self.cli = Path(python).parent / "webknossos"
        self._files = array_files(folder, "ours")
        self._log = folder / "peer.log"
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(
                [python, ROOT / "tests" / "helpers" / "peer_side.py", folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __call__(self, name, /, **arguments):
        request = self._files.dumps({"call": name, "arguments": arguments})
        with contextlib.suppress(BrokenPipeError):  # its last words are in the log
            print(request, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            pytest.fail(f"the peer's process died in {name!r}:\n{self._log.read_text()[-4000:]}")
        answer = self._files.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer["result"]

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # it ends with its stdin
        with self._process as process:
            process.wait(30)


@pytest.fixture(scope="session")
def peer(tmp_path_factory):
    """The peer's process, one for all tests."""
    python = os.environ.get("WKDASK_PEER_PYTHON") or str(ROOT / ".venv-peer" / "bin" / "python")
    if not os.access(python, os.X_OK):
        pytest.skip(f"no Python with webknossos 4.3.3: {python} is missing; set WKDASK_PEER_PYTHON")
    from peer_side import ArrayFiles

    peer = Peer(python, tmp_path_factory.mktemp("peer"), ArrayFiles)
    try:
        assert peer("version") == "4.3.3"
        yield peer
    finally:
        peer.close()


def same(got, expected):
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)


def pair(box):
    return [list(box.topleft), list(box.size)]


def described(path):
    """Return what we know of a dataset, in the words of the peer's `describe`."""
    dataset, record = Dataset(path), load(path)
    return {
        "name": dataset.name,
        "factor": list(dataset.voxel_size.factor),
        "unit": dataset.voxel_size.unit,
        "zoom": (record.default_view_configuration or {}).get("zoom"),
        "layers": {name: described_layer(layer) for name, layer in dataset.layers.items()},
    }


def described_layer(layer):
    view = layer.record.default_view_configuration or {}
    return {
        "category": layer.category,
        "dtype": str(layer.dtype_per_channel),
        "num_channels": layer.num_channels,
        "box": pair(layer.bounding_box),
        "mags": [str(mag) for mag in layer.mags],
        "largest_segment_id": getattr(layer, "largest_segment_id", None),
        "color": view.get("color"),
        "intensity_range": view.get("intensityRange"),
    }


def stack(folder, pattern, read):
    """Return the files of a stack and its voxels: column is x, row is y, section is z."""
    files = sorted((VNC / folder).glob(pattern))
    if not files:
        pytest.skip(f"no stack in {VNC / folder}")
    return files, np.asfortranarray(np.stack([read(file).T for file in files], axis=-1)[np.newaxis])


def read_png(path):
    with Image.open(path) as image:
        return np.asarray(image)


def voxels(shape, dtype="uint8", seed=0, low=None, high=None):
    """Reproducible voxels over all of the type's values."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return np.asfortranarray(rng.normal(size=shape).astype(dtype))
    info = np.iinfo(dtype)
    low, high = info.min if low is None else low, info.max if high is None else high
    return np.asfortranarray(rng.integers(low, high, shape, dtype, endpoint=True))


def same_pyramid(peer, ds, twin, layer="layer"):
    """Compare all mags of two datasets: which there are, their boxes, their voxels."""
    ours, theirs = described(ds.path)["layers"][layer], peer("describe", path=twin)["layers"][layer]
    assert ours == theirs
    for mag, view in ds.get_layer(layer).mags.items():
        expected = peer("read", path=twin, layer=layer, mag=str(mag))
        got = view.read()
        assert got.any() or not expected.any()
        same(got, expected)
