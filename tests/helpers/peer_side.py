"""Runs in webknossos's own Python: answers one JSON line on stdout for each on stdin, until stdin ends.

``{"call": "read", "arguments": {...}}`` -> ``{"result": ...}`` or ``{"error": traceback}``. Arrays travel as
``{"npy": path}``: the files lie in the folder given as the only argument, and whoever reads one removes it.
Only webknossos's public interface is used; it says "mag 1" where we say voxels of the mag.
"""

import itertools
import json
import os
import sys
import traceback

import numpy as np


class ArrayFiles:
    """Both ends of the exchange of arrays: values that hold arrays <-> lines of JSON."""

    def __init__(self, folder, prefix):
        self._paths = (os.path.join(folder, f"{prefix}{number}.npy") for number in itertools.count())

    def dumps(self, value):
        return json.dumps(value, default=self._save)

    def _save(self, value):
        if isinstance(value, np.ndarray):
            path = next(self._paths)
            np.save(path, value)
            return {"npy": path}
        return value.item() if isinstance(value, np.generic) else os.fspath(value)

    def loads(self, line):
        return json.loads(line, object_hook=self._load)

    def _load(self, value):
        if value.keys() != {"npy"}:
            return value
        array = np.load(value["npy"])
        os.unlink(value["npy"])
        return array


class Calls:
    """What can be asked for; boxes are ``[topleft, size]``, absolute, in voxels of mag 1."""

    def __init__(self):
        import webknossos
        from cluster_tools import get_executor

        self.wk = webknossos
        self.executor = get_executor("sequential")

    def version(self):
        from importlib.metadata import version

        return version("webknossos")

    def create(self, path, factor, unit="nanometer", name=None, zoom=None):
        size = self.wk.VoxelSize(tuple(factor), self.wk.LengthUnit(unit))
        dataset = self.wk.Dataset(path, voxel_size_with_unit=size, name=name)
        if zoom is not None:
            dataset.default_view_configuration = self.wk.DatasetViewConfiguration(zoom=zoom)

    def add_layer(
        self, path, name, category, dtype, num_channels=1, box=None, data_format="wkw", **segmentation
    ):
        self.wk.Dataset.open(path).add_layer(
            name,
            category,
            dtype=dtype,
            num_channels=num_channels,
            data_format=data_format,
            bounding_box=None if box is None else self.wk.BoundingBox(*box),
            **segmentation,
        )

    def add_mag(self, path, layer, mag, chunk_shape=32, shard_shape=64, compress=False):
        self.wk.Dataset.open(path).get_layer(layer).add_mag(
            mag, chunk_shape=chunk_shape, shard_shape=shard_shape, compress=compress
        )

    def write(self, path, layer, mag, data, offset, grow=True):
        """Write at an offset in voxels of mag 1."""
        view = self.wk.Dataset.open(path).get_layer(layer).get_mag(mag)
        view.write(data, absolute_offset=offset, allow_resize=grow, allow_unaligned=True)

    def view_configuration(self, path, layer, **values):
        layer = self.wk.Dataset.open(path).get_layer(layer)
        layer.default_view_configuration = self.wk.LayerViewConfiguration(**values)

    def set_box(self, path, layer, box):
        self.wk.Dataset.open(path).get_layer(layer).bounding_box = self.wk.BoundingBox(*box)

    def delete_mag(self, path, layer, mag):
        self.wk.Dataset.open(path).get_layer(layer).delete_mag(mag)

    def describe(self, path):
        dataset = self.wk.Dataset.open(path, read_only=True)
        return {
            "name": dataset.name,
            "factor": list(dataset.voxel_size_with_unit.factor),
            "unit": dataset.voxel_size_with_unit.unit.value,
            "zoom": getattr(dataset.default_view_configuration, "zoom", None),
            "layers": {name: self._layer(layer) for name, layer in dataset.layers.items()},
        }

    def _layer(self, layer):
        view = layer.default_view_configuration
        return {
            "category": layer.category,
            "dtype": str(layer.dtype),
            "num_channels": layer.num_channels,
            "box": [layer.bounding_box.topleft.to_list(), layer.bounding_box.size.to_list()],
            "mags": [str(mag) for mag in sorted(layer.mags)],
            "largest_segment_id": getattr(layer, "largest_segment_id", None),
            "color": None if view is None or view.color is None else list(view.color),
            "intensity_range": None if view is None else view.intensity_range,
        }

    def layout_of(self, path, layer, mag):
        info = self.wk.Dataset.open(path, read_only=True).get_layer(layer).get_mag(mag).info
        return [info.chunk_shape.to_list(), info.shard_shape.to_list(), bool(info.compression_mode)]

    def read(self, path, layer, mag, box=None):
        """Read a box, by default all of the mag."""
        view = self.wk.Dataset.open(path, read_only=True).get_layer(layer).get_mag(mag)
        return view.read(absolute_bounding_box=None if box is None else self.wk.BoundingBox(*box))

    def cubes_on_disk(self, path, layer, mag):
        view = self.wk.Dataset.open(path, read_only=True).get_layer(layer).get_mag(mag)
        return sorted(
            [box.topleft.to_list(), box.size.to_list()] for box in view.get_bounding_boxes_on_disk()
        )

    def find_largest_segment_id(self, path, layer):
        layer = self.wk.Dataset.open(path).get_layer(layer)
        layer.refresh_largest_segment_id(executor=self.executor)
        return layer.largest_segment_id

    def from_images(self, images, path, mapping=None, **options):
        """Make a dataset of images; a mapping is named as the API names it."""
        kind = self.wk.Dataset.ConversionLayerMapping
        if mapping is not None:
            options["map_filepath_to_layer_name"] = kind[mapping]
        self.wk.Dataset.from_images(images, path, (4, 4, 40), executor=self.executor, **options)

    def add_layer_from_images(self, path, images, layer, **options):
        """Add a layer of images; return its name."""
        dataset = self.wk.Dataset(path, (4, 4, 40), exist_ok=True)
        return dataset.add_layer_from_images(images, layer, executor=self.executor, **options).name

    def downsample(self, path, layer, from_mag=None, coarsest_mag=None, **options):
        """Return the mags there are afterwards."""
        layer = self.wk.Dataset.open(path).get_layer(layer)
        layer.downsample(
            from_mag=None if from_mag is None else self.wk.Mag(from_mag),
            coarsest_mag=None if coarsest_mag is None else self.wk.Mag(coarsest_mag),
            chunk_shape=32,
            shard_shape=64,
            compress=False,
            executor=self.executor,
            **options,
        )
        return [str(mag) for mag in sorted(layer.mags)]


def serve(folder):
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # progress bars must not get between the answers
    files, calls = ArrayFiles(folder, "peer"), Calls()
    for line in sys.stdin:
        request = files.loads(line)
        try:
            answer = {"result": getattr(calls, request["call"])(**request["arguments"])}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(files.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
