"""A dataset against a model of numpy arrays: writes, failures, growth, renames, deletions, reopenings in any order.

::

    rule ──> Dataset on disk ──┐
         └─> model in memory ──┴─ voxels, boxes, ids, names and unknown keys are the same after every step

A write that fails may have landed in part: each cube then holds what it held, or what was written, nothing else.
"""

import json
import pickle
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from wkdask import BoundingBox, Dataset, Mag
from wkdask.errors import PropertiesError, TaskFailedError, WkdaskError

SIDE = 40
CUBE, CHUNK = 16, 8
NAMES = ["a", "b", "c"]
COMPRESSIONS = [None, "lz4", "lz4hc"]
MAGS = ["1", "2", "2-2-1", "4-4-2"]
TYPES = [("uint8", 1), ("uint8", 3), ("uint16", 1), ("int32", 2), ("float32", 1)]
EMPTY = ((0, 0, 0), (0, 0, 0))


@dataclass
class ModelLayer:
    """What a layer is."""

    dtype: str
    channels: int
    category: str
    low: tuple = (0, 0, 0)
    high: tuple = (0, 0, 0)
    largest_id: int | None = None
    mags: dict = field(default_factory=dict)
    """Mag: voxels (c, x, y, z) from the origin on, `SIDE` along each axis."""

    @property
    def is_empty(self):
        return any(low >= high for low, high in zip(self.low, self.high, strict=True))

    def grow(self, mag, corner, size):
        """Take in what was written: in voxels of mag 1, and a coarse voxel at the border claims no more of it."""
        factors = tuple(Mag(mag))
        low = tuple(c * f for c, f in zip(corner, factors, strict=True))
        high = tuple((c + s) * f for c, s, f in zip(corner, size, factors, strict=True))
        if self.is_empty:
            self.low, self.high = low, high
            return
        self.low = tuple(
            new if new < old // f * f else old for new, old, f in zip(low, self.low, factors, strict=True)
        )
        self.high = tuple(
            new if new > -(-old // f) * f else old
            for new, old, f in zip(high, self.high, factors, strict=True)
        )

    def note_ids(self, block):
        """Take in the ids that were written."""
        if self.category == "segmentation" and block.max() >= 0:
            self.largest_id = max(int(block.max()), self.largest_id or 0)


corners = st.tuples(*[st.integers(0, SIDE - 1)] * 3)
sizes = st.tuples(*[st.integers(1, SIDE)] * 3)
seeds = st.integers(0, 2**16)


class DatasetMachine(RuleBasedStateMachine):
    """The rules."""

    @initialize(
        legacy=st.booleans(),
        kind=st.sampled_from(TYPES),
        category=st.sampled_from(["segmentation", "color"]),
        compression=st.sampled_from(COMPRESSIONS),
    )
    def create(self, legacy, kind, category, compression):
        self.folder = Path(tempfile.mkdtemp(prefix="wkdask-stateful-"))
        self.path = self.folder / "ds"
        self.dataset = Dataset.create(self.path, (11.24, 11.24, 28))
        self.file = self.path / "datasource-properties.json"
        if legacy:
            raw = json.loads(self.file.read_text())
            raw["scale"] = [11.24, 11.24, 28]
            del raw["version"]
            self.file.write_text(json.dumps(raw))
        self.layers = {}
        self.extra = {}
        self.handles = [self.dataset]
        dtype, channels = kind
        category = "color" if dtype[0] == "f" else category
        self.layers["a"] = ModelLayer(dtype, channels, category)
        layer = self.dataset.add_layer("a", category, dtype_per_channel=dtype, num_channels=channels)
        self.make_mag(layer, "1", compression)

    def teardown(self):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    # --- picking ------------------------------------------------------------------------------------------

    def pick_layer(self, data):
        name = data.draw(st.sampled_from(sorted(self.layers)))
        return name, self.layers[name], self.any_handle(data).get_layer(name)

    def pick_mag(self, data):
        name, mag = data.draw(
            st.sampled_from([(name, mag) for name in sorted(self.layers) for mag in self.layers[name].mags])
        )
        layer = self.layers[name]
        return layer, layer.mags[mag], self.any_handle(data).get_layer(name).get_mag(mag), mag

    def any_handle(self, data):
        """A dataset opened now, or long ago: handles are never stale."""
        return data.draw(st.sampled_from(self.handles))

    def has_mag(self):
        return any(layer.mags for layer in self.layers.values())

    def pick_block(self, data, layer, corner, size, seed):
        """Return a box within the extent, and voxels for it: many, few, or none of them zero."""
        size = tuple(min(s, SIDE - c) for c, s in zip(corner, size, strict=True))
        rng = np.random.default_rng(seed)
        if data.draw(st.integers(0, 4)) == 0:
            block = np.zeros((layer.channels, *size), layer.dtype)
        else:
            block = rng.integers(0, 100, (layer.channels, *size)).astype(layer.dtype)
        return size, block

    @staticmethod
    def index(corner, size):
        return (slice(None), *(slice(c, c + s) for c, s in zip(corner, size, strict=True)))

    # --- layers and mags ----------------------------------------------------------------------------------

    @rule(
        data=st.data(), name=st.sampled_from(NAMES), kind=st.sampled_from(TYPES), segmentation=st.booleans()
    )
    def add_layer(self, data, name, kind, segmentation):
        dtype, channels = kind
        category = "segmentation" if segmentation and dtype[0] != "f" else "color"
        add = self.any_handle(data).add_layer
        if name in self.layers:
            with pytest.raises(ValueError, match="already"):
                add(name, category, dtype_per_channel=dtype, num_channels=channels)
            return
        add(name, category, dtype_per_channel=dtype, num_channels=channels)
        self.layers[name] = ModelLayer(dtype, channels, category)

    @precondition(lambda self: bool(self.layers))
    @rule(data=st.data(), mag=st.sampled_from(MAGS), compression=st.sampled_from(COMPRESSIONS))
    def add_mag(self, data, mag, compression):
        _, model, layer = self.pick_layer(data)
        if mag in model.mags:
            with pytest.raises(ValueError, match="already"):
                layer.add_mag(mag, shard_shape=CUBE)
        else:
            self.make_mag(layer, mag, compression)

    def make_mag(self, layer, mag, compression):
        layer.add_mag(mag, chunk_shape=CHUNK, shard_shape=CUBE, compression=compression)
        model = self.layers[layer.name]
        model.mags[mag] = np.zeros((model.channels, SIDE, SIDE, SIDE), model.dtype)

    @precondition(lambda self: len(self.layers) > 1)
    @rule(data=st.data(), chance=st.integers(0, 2))
    def delete_layer(self, data, chance):
        if chance:  # seldom: what is deleted is tested no more
            return
        name, _, _ = self.pick_layer(data)
        self.any_handle(data).delete_layer(name)
        del self.layers[name]
        assert not (self.path / name).exists()

    @precondition(has_mag)
    @rule(data=st.data(), chance=st.integers(0, 2))
    def delete_mag(self, data, chance):
        if chance:
            return
        model, _, view, mag = self.pick_mag(data)
        view.layer.delete_mag(mag)
        del model.mags[mag]
        with pytest.raises(WkdaskError):
            view.read(offset=(0, 0, 0), size=(1, 1, 1))

    @precondition(lambda self: bool(self.layers))
    @rule(data=st.data(), new=st.sampled_from(NAMES))
    def rename_layer(self, data, new):
        name, model, layer = self.pick_layer(data)
        if new in self.layers and new != name:
            with pytest.raises(ValueError, match="exists"):
                layer.name = new
            return
        layer.name = new
        del self.layers[name]
        self.layers[new] = model

    @precondition(lambda self: bool(self.layers))
    @rule(data=st.data(), corner=corners, size=sizes)
    def set_box(self, data, corner, size):
        _, model, layer = self.pick_layer(data)
        layer.bounding_box = BoundingBox(corner, size)
        model.low, model.high = corner, tuple(c + s for c, s in zip(corner, size, strict=True))

    @precondition(has_mag)
    @rule(data=st.data(), compression=st.sampled_from(COMPRESSIONS))
    def compress(self, data, compression):
        _, _, view, _ = self.pick_mag(data)
        view.compress(compression=compression)

    # --- writes -------------------------------------------------------------------------------------------

    @precondition(has_mag)
    @rule(
        data=st.data(),
        corner=corners,
        size=sizes,
        seed=seeds,
        way=st.sampled_from(["numpy", "dask", "view", "slices"]),
    )
    def write(self, data, corner, size, seed, way):
        model, voxels, view, mag = self.pick_mag(data)
        size, block = self.pick_block(data, model, corner, size, seed)
        if way == "numpy":
            view.write(block, offset=corner, durable=False)
        elif way == "dask":
            chunks = data.draw(st.sampled_from([-1, 5, 16]))
            view.write(da.from_array(block, chunks=(1, chunks, chunks, chunks)), offset=corner, durable=False)
        elif way == "view":
            whole = view.get_view(corner, size, read_only=True)
            assert whole.size == size
            view.write(
                block, bounding_box=BoundingBox(corner, size).from_mag_to_mag1(Mag(mag)), durable=False
            )
        else:
            dimension = data.draw(st.integers(0, 2))
            with view.get_buffered_slice_writer(offset=corner, dimension=dimension, buffer_size=7) as writer:
                for number in range(size[dimension]):
                    writer.send(np.take(block, number, axis=dimension + 1))
        voxels[self.index(corner, size)] = block
        model.grow(mag, corner, size)
        model.note_ids(block)
        self.compare(view, voxels)

    @precondition(has_mag)
    @rule(data=st.data())
    def write_its_own_voxels(self, data):
        """An expression that reads the mag that it is written to."""
        model, voxels, view, mag = self.pick_mag(data)
        box = view.box
        if box.is_empty() or max(box.bottomright) > SIDE:
            return
        view.write(view.to_dask() + np.ones((), model.dtype), offset=box.topleft, durable=False)
        index = self.index(box.topleft, box.size)
        voxels[index] = voxels[index] + np.ones((), model.dtype)
        model.grow(mag, box.topleft, box.size)
        model.note_ids(voxels[index])
        self.compare(view, voxels)

    @precondition(has_mag)
    @rule(data=st.data(), corner=corners, size=sizes, seed=seeds)
    def write_that_fails(self, data, corner, size, seed):
        """One block raises: the others may land."""
        model, voxels, view, mag = self.pick_mag(data)
        size, block = self.pick_block(data, model, corner, size, seed)
        chunk = data.draw(st.sampled_from([6, 16, 40]))
        array = da.from_array(block, chunks=(-1, chunk, chunk, chunk))
        culprit = (0, *(data.draw(st.integers(0, count - 1)) for count in array.numblocks[1:]))

        def poison(voxels, block_id=None):
            if block_id == culprit:
                raise ZeroDivisionError("poison")
            return voxels

        poisoned = array.map_blocks(poison, dtype=block.dtype, meta=np.empty((0,) * 4, block.dtype))
        with pytest.raises(TaskFailedError) as caught:
            view.write(poisoned, offset=corner, durable=False)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        self.reconcile(model, voxels, view, mag, corner, size, block)

    @precondition(has_mag)
    @rule(data=st.data(), corner=corners, size=sizes, seed=seeds)
    def write_over_a_damaged_cube(self, data, corner, size, seed):
        """A cube of the mag is cut short while others are written; it stays, and is mended by hand."""
        model, voxels, view, mag = self.pick_mag(data)
        cubes = sorted(box.topleft // CUBE for box in view.cubes_on_disk())
        if not cubes:
            return
        index = data.draw(st.sampled_from(cubes))
        path = Path(view.path, f"z{index.z}", f"y{index.y}", f"x{index.x}.wkw")
        good = path.read_bytes()
        path.write_bytes(good[: data.draw(st.integers(0, len(good) - 1))])
        damaged = path.read_bytes()
        size, block = self.pick_block(data, model, corner, size, seed)
        piece = BoundingBox(corner, size).intersection(BoundingBox(index * CUBE, (CUBE,) * 3))
        if piece.is_empty() or piece.size == (CUBE,) * 3:
            view.write(block, offset=corner, durable=False)
            voxels[self.index(corner, size)] = block
            model.grow(mag, corner, size)
            model.note_ids(block)
        else:
            with pytest.raises(TaskFailedError, match=f"x{index.x}.wkw"):
                view.write(block, offset=corner, durable=False)
        if path.exists() and path.read_bytes() == damaged:
            with pytest.raises(OSError, match=f"x{index.x}.wkw"):
                view.read(offset=index * CUBE, size=(1, 1, 1))
            path.write_bytes(good)
        if not piece.is_empty() and piece.size != (CUBE,) * 3:
            self.reconcile(model, voxels, view, mag, corner, size, block)
        self.compare(view, voxels)

    @precondition(has_mag)
    @rule(
        data=st.data(),
        kind=st.sampled_from(["type", "channels", "empty", "far", "negative", "nothing known"]),
    )
    def write_that_is_refused(self, data, kind):
        model, _, view, _ = self.pick_mag(data)
        block = np.ones((model.channels, 3, 3, 3), model.dtype)
        offset = (1, 2, 3)
        if kind == "type":
            block = block.astype("float64")
        elif kind == "channels":
            block = np.concatenate([block, block])
        elif kind == "empty":
            block = block[:, :0]
        elif kind == "far":
            offset = (2**32 - 2, 0, 0)
        elif kind == "negative":
            offset = (0, -1, 0)
        else:
            block = da.from_array(block, chunks=2)[:, da.ones(3, dtype=bool, chunks=2)]
        with pytest.raises(ValueError, match=r"."):
            view.write(block, offset=offset)

    def reconcile(self, model, voxels, view, mag, corner, size, block):
        """Check that each cube holds the old voxels or the new ones, and take over which."""
        written = BoundingBox(corner, size)
        landed = []
        for index, piece in view.spec.grid.pieces(written):
            old = voxels[self.index(piece.topleft, piece.size)]
            new = block[self.index(piece.topleft - corner, piece.size)]
            found = view.read(offset=piece.topleft, size=piece.size)
            assert np.array_equal(found, old) or np.array_equal(found, new), f"cube {index} is a mixture"
            if not np.array_equal(found, old):
                landed.append(piece)
                old[...] = new
        before = ModelLayer(model.dtype, model.channels, model.category, model.low, model.high)
        most = ModelLayer(model.dtype, model.channels, model.category, model.low, model.high)
        most.grow(mag, corner, size)
        for piece in landed:
            before.grow(mag, piece.topleft, piece.size)
        box = view.layer.bounding_box
        if not before.is_empty:
            least = BoundingBox.from_corners(before.low, before.high)
            assert box.contains_bbox(least), f"{box} does not cover {least}, which landed"
        if not box.is_empty():
            assert BoundingBox.from_corners(most.low, most.high).contains_bbox(box)
        model.low, model.high = tuple(box.topleft), tuple(box.bottomright)
        if model.category == "segmentation":
            found = view.layer.largest_segment_id
            assert (found or 0) >= (model.largest_id or 0)
            assert (found or 0) <= max(int(block.max()), model.largest_id or 0)
            for piece in landed:
                assert found >= view.read(offset=piece.topleft, size=piece.size).max()
            model.largest_id = found
        self.compare(view, voxels)

    # --- handles, and other programs ----------------------------------------------------------------------

    @rule(pickled=st.booleans())
    def reopen(self, pickled):
        self.handles.append(pickle.loads(pickle.dumps(self.dataset)) if pickled else Dataset(self.path))
        del self.handles[:-3]

    @rule(
        data=st.data(),
        key=st.sampled_from(["future", "more"]),
        value=st.one_of(st.integers(), st.text(max_size=5)),
    )
    def another_program_adds_a_key(self, data, key, value):
        raw = json.loads(self.file.read_text())
        raw[key] = self.extra[key] = value
        if raw["dataLayers"]:
            data.draw(st.sampled_from(raw["dataLayers"]))["note"] = value
        self.file.write_text(json.dumps(raw))

    @rule()
    def another_program_breaks_the_file(self):
        good = self.file.read_bytes()
        self.file.write_bytes(good[: len(good) // 2])
        for handle in self.handles:
            with pytest.raises(PropertiesError):
                handle.layers
            with pytest.raises(PropertiesError):
                handle.add_layer("d", "color")
        assert self.file.read_bytes() == good[: len(good) // 2]
        self.file.write_bytes(good)

    # --- what always holds --------------------------------------------------------------------------------

    def compare(self, view, voxels):
        assert np.array_equal(view.read(offset=(0, 0, 0), size=(SIDE, SIDE, SIDE)), voxels)

    @invariant()
    def properties_are_the_models(self):
        if not hasattr(self, "layers"):
            return
        raw = json.loads(self.file.read_text())
        assert {key: raw[key] for key in self.extra} == self.extra
        for handle in (*self.handles, Dataset(self.path)):
            assert sorted(handle.layers) == sorted(self.layers)
        for name, model in self.layers.items():
            layer = self.handles[-1].get_layer(name)
            assert (layer.category, layer.num_channels, str(layer.dtype_per_channel)) == (
                model.category,
                model.channels,
                model.dtype,
            )
            box = layer.bounding_box
            assert (tuple(box.topleft), tuple(box.bottomright)) == (model.low, model.high)
            assert {str(mag) for mag in layer.mags} == {str(Mag(mag)) for mag in model.mags}
            if model.category == "segmentation":
                assert layer.largest_segment_id == model.largest_id
        assert {path.name for path in self.path.iterdir()} == {".wkdask", self.file.name, *self.layers} or (
            not self.layers and {path.name for path in self.path.iterdir()} >= {self.file.name}
        )

    @precondition(has_mag)
    @rule(data=st.data(), corner=corners, size=sizes)
    def voxels_are_the_models(self, data, corner, size):
        _, voxels, view, _ = self.pick_mag(data)
        self.compare(view, voxels)
        size = tuple(min(s, SIDE - c) for c, s in zip(corner, size, strict=True))
        index = self.index(corner, size)
        assert np.array_equal(view.read(offset=corner, size=size), voxels[index])
        step = tuple(view.mag)
        box = BoundingBox(corner, size).from_mag_to_mag1(view.mag)
        lazy = view.to_dask(chunks=8, bounding_box=box)
        assert np.array_equal(lazy[:, ::2].compute(scheduler="synchronous"), voxels[index][:, ::2]), step
        private = Path(view.path, ".wkdask")
        assert not private.exists() or {each.name for each in private.iterdir()} <= {"locks", "finished"}


def run(examples, steps):
    run_state_machine_as_test(
        DatasetMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_dataset_is_what_its_model_is():
    run(4, 30)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_dataset_is_what_its_model_is_for_long():
    run(40, 60)
