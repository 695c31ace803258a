"""A magnification that keeps nothing: it reads zeros, and every cube built is an empty one, which leaves no file.

All else is real: plan, tasks, locks, private folders, journal, properties.
"""

from dataclasses import dataclass

import numpy as np

from wkdask import Dataset
from wkdask.jobs.job import MagPlace
from wkdask.mag_view import MagView
from wkdask.storage.protocol import ArraySpec
from wkdask.storage.wkw.mag import WkwMag


@dataclass(frozen=True)
class NullMag:
    """A test double of `wkdask.storage.protocol.StoredMag`."""

    path: str
    spec: ArraySpec

    @classmethod
    def of(cls, mag):
        """Return a view like `mag`, and in its place, that keeps nothing."""
        place = mag.place
        store = cls(place.store.path, place.store.spec)
        return MagView(mag.layer, MagPlace(place.dataset_path, place.layer, place.mag, store))

    def read(self, box, threads=1):
        return np.zeros((self.spec.num_channels, *box.size), self.spec.dtype, order="F")

    def build(self, root, slot, box, block, base, *, flushed=False, min_max=None):
        return False

    def fingerprint(self, box):
        return "null"

    def check_cube(self, path):
        return False

    def is_empty(self, box):
        return True

    def cube_path(self, index):
        return f"{self.path}/z{index.z}/y{index.y}/x{index.x}.wkw"

    def slot_path(self, root, slot):
        return f"{root}/z0/y0/x{slot}.wkw"

    def prepare_scratch(self, root):
        pass

    @property
    def metadata_path(self):
        return f"{self.path}/header.wkw"

    def opened(self, path):
        return NullMag(path, self.spec)

    def staged(self, path, *, raw=False):
        return NullMag(path, self.spec)

    def write_in_place(self, box, block, *, durable=False, min_max=None):
        pass

    def cubes_on_disk(self):
        return iter(())

    def prepare(self, box):
        WkwMag.open(self.path)

    def finish(self):
        pass


def null_mag(folder, cube, dtype="uint8", *, chunk=None, compression=None, box=None):
    """Return a null mag in a new dataset; `box` is the layer's, in voxels of mag 1."""
    layer = Dataset.create(folder, (4, 4, 40)).add_layer("layer", "color", dtype_per_channel=dtype)
    mag = layer.add_mag(1, chunk_shape=chunk or min(cube, 32), shard_shape=cube, compression=compression)
    if box is not None:
        layer.bounding_box = box
    return NullMag.of(mag)
