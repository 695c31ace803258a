"""Every public call that reads, each as a function of a dataset whose result is compared with that on a folder.

A result is plain data: arrays, tuples, texts. `Scene.plain` replaces the place of the dataset in texts.
"""

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from stored_objects import put_folder

from wkdask import BoundingBox, Dataset

CHUNK, CUBE = 8, 16
SIZE = (40, 24, 24)
BOX = BoundingBox((4, 0, 8), (36, 24, 16))
PART = BoundingBox((10, 3, 9), (17, 14, 13))
LAYOUTS = {
    "wkw-raw": ("wkw", None, CUBE),
    "wkw-lz4": ("wkw", "lz4", CUBE),
    "wkw-lz4hc": ("wkw", "lz4hc", CUBE),
    "zarr3-zstd": ("zarr3", "zstd", CUBE),
    "zarr3-plain": ("zarr3", None, CUBE),
    "zarr3-unsharded": ("zarr3", "zstd", CHUNK),
    "zarr2": ("zarr", "zstd", CHUNK),
}


def voxels_of(dtype, high, channels=1):
    """Return voxels of `BOX` with zeros among them, and none in one cube."""
    found = np.random.default_rng(7).integers(0, high, (channels, *BOX.size), dtype)
    found[:, 12:28, 16:] = 0
    return np.asfortranarray(found)


def make_dataset(folder, layout):
    """Make a dataset on the disk: an image in mags 1 and 2, and a segmentation with an attachment."""
    data_format, compression, shard = LAYOUTS[layout]
    cut = {"chunk_shape": CHUNK, "shard_shape": shard, "compression": compression}
    ds = Dataset.create(folder, (11.24, 11.24, 28), name="brain")
    color = ds.add_layer("color", "color", dtype="uint8", data_format=data_format)
    color.add_mag(1, **cut).write(voxels_of("uint8", 250), offset=BOX.topleft, progress=False)
    color.downsample(coarsest_mag=2, progress=False)
    seg = ds.add_layer("seg", "segmentation", dtype="uint32", data_format=data_format, largest_segment_id=9)
    seg.add_mag(1, **cut).write(voxels_of("uint32", 9), offset=BOX.topleft, progress=False)
    meshes = Path(folder, "seg", "meshes")
    meshes.mkdir()
    (meshes / "mesh.hdf5").write_bytes(b"a mesh")
    return ds


def at_urls(folder, url):
    """Make a dataset on the disk, beside another, whose mags lie at a URL."""
    target = Path(f"{folder}-refs")
    target.mkdir()
    says = json.loads(Path(folder, "datasource-properties.json").read_text())
    for layer in says["dataLayers"]:
        for mag in layer["mags" if "mags" in layer else "wkwResolutions"]:
            if "path" in mag:
                mag["path"] = f"{url}/{mag['path'].removeprefix('./')}"
            else:
                name = mag.get("mag", mag.get("resolution"))
                short = str(name[0]) if len(set(name)) == 1 else "-".join(map(str, name))
                mag["path"] = f"{url}/{layer['name']}/{short}"
    (target / "datasource-properties.json").write_text(json.dumps(says))
    return str(target)


def memory_url(folder):
    """Put a dataset into memory; return its URL."""
    url = f"memory://{uuid.uuid4().hex}/data/ds"
    put_folder(folder, url)
    return url


@dataclass
class Scene:
    """A dataset that is read, and a folder for what is made of it."""

    path: str
    out: Path
    other: str
    """The same dataset on a disk."""

    @property
    def ds(self):
        return Dataset(self.path)

    @property
    def mag(self):
        return self.ds.get_layer("color").get_mag(1)

    @property
    def seg(self):
        return self.ds.get_layer("seg").get_mag(1)

    @property
    def local(self):
        """The image on the disk."""
        return Dataset(self.other).get_layer("color").get_mag(1)

    def plain(self, text):
        return text.replace(self.path, "PLACE")

    def new_mag(self, name="new"):
        """Return an empty mag in a new dataset on the disk."""
        ds = Dataset.create(self.out / name, (11.24, 11.24, 28))
        layer = ds.add_layer("color", "color", dtype="uint8", data_format="wkw")
        return layer.add_mag(1, chunk_shape=CHUNK, shard_shape=CUBE, compression="lz4")
