"""Every public call that writes, as plain functions, each with what it must leave by numpy alone.

A scene is a folder with two datasets: ``src``, which is only read, and ``ds``, which is written. All voxels are
constant over 4**3 voxels of mag 1, so that every way to compute mag 2 and mag 4 gives the same.
"""

import copy
import json
import os
from dataclasses import dataclass, field

import dask.array as da
import numpy as np
import tifffile

import wkdask
from wkdask import BoundingBox, Dataset, Mag
from wkdask.convert.images import convert_images

CANVAS = (64, 32, 32)
"""Voxels of mag 1 that are compared: more than any call writes."""
FIRST = BoundingBox((8, 4, 0), (32, 24, 16))
BEYOND = BoundingBox((40, 4, 16), (24, 28, 16))
ELSEWHERE = BoundingBox((56, 24, 20), (4, 4, 4))
"""A box that touches neither of them but in the cubes of `BEYOND`."""
CHUNK, CUBE = 8, 16


def coarse_grained(seed, low=1, high=250):
    """Return voxels of the canvas, none of them zero, each value in 4**3 voxels."""
    few = np.random.default_rng(seed).integers(low, high, [side // 4 for side in CANVAS], "uint8")
    return few.repeat(4, 0).repeat(4, 1).repeat(4, 2)


SOURCE, OLDER = coarse_grained(1), coarse_grained(2)


def in_mag(voxels, mag):
    return voxels[::mag, ::mag, ::mag]


@dataclass
class State:
    """What is to be found in a scene: voxels by (dataset, layer, mag), boxes by (dataset, layer)."""

    voxels: dict = field(default_factory=dict)
    boxes: dict = field(default_factory=dict)

    def put(self, key, box, values):
        """Write a part of the canvas of mag 1 into a mag, and grow the layer's box."""
        self.fill(key, box, values)
        old = self.boxes.get(key[:2])
        self.boxes[key[:2]] = box if old is None or old.is_empty() else old.extended_by(box)

    def fill(self, key, box, values):
        """Write into a mag; the layer's box stays."""
        _name, _layer, mag = key
        canvas = self.voxels.setdefault(key, np.zeros([side // mag for side in CANVAS], values.dtype))
        part = tuple(slice(a // mag, b // mag) for a, b in zip(box.topleft, box.bottomright, strict=True))
        canvas[part] = in_mag(values, mag)[part]


class Scene:
    """The two datasets in a folder."""

    def __init__(self, folder, data_format):
        self.folder, self.data_format = str(folder), data_format

    @property
    def layout(self):
        chunk = CUBE if self.data_format == "zarr" else CHUNK
        return {"chunk_shape": chunk, "shard_shape": CUBE}

    def path(self, name):
        return os.path.join(self.folder, name)

    def mag(self, layer="color", mag=1, dataset="ds"):
        return Dataset.open(self.path(dataset)).get_layer(layer).get_mag(mag)

    def layer(self, layer="color", dataset="ds"):
        return Dataset.open(self.path(dataset)).get_layer(layer)

    def add(self, layer="color", mags=(1,), dtype="uint8", dataset="ds", **layout):
        """Add an empty layer, unless it is there."""
        there = Dataset.open(self.path(dataset))
        if layer in there.layers:
            return
        category = "segmentation" if layer in ("ids", "cells") else "color"
        new = there.add_layer(layer, category, dtype_per_channel=dtype, data_format=self.data_format)
        for mag in mags:
            new.add_mag(mag, **{**self.layout, **layout})

    def put(self, state, key, box, values):
        """Write into a mag, and note that."""
        name, layer, mag = key
        part = tuple(slice(a // mag, b // mag) for a, b in zip(box.topleft, box.bottomright, strict=True))
        self.mag(layer, mag, name).write(
            np.asfortranarray(in_mag(values, mag)[part])[None],
            bounding_box=box,
            durable=False,
            progress=False,
        )
        state.put(key, box, values)


def source_array(scene, box, layer="color"):
    return scene.mag(layer, 1, "src").to_dask(bounding_box=box)


def make_scene(folder, data_format):
    """Make the datasets; return the scene and what is in it."""
    scene, state = Scene(folder, data_format), State()
    for name in ("src", "ds"):
        Dataset.create(scene.path(name), (1, 1, 1))
    scene.add(dataset="src")
    everything = BoundingBox((0, 0, 0), CANVAS)
    scene.put(state, ("src", "color", 1), everything, SOURCE)
    return scene, state


@dataclass(frozen=True)
class Call:
    """A call that writes: what must be there before, the call, what is there after it."""

    name: str
    prepare: object
    """(scene, state, box, older): makes what the call needs, and notes it."""
    run: object
    """(scene, box, **how): the call; `how` is client or resume."""
    expect: object
    """(state, box): what it changes, by numpy."""
    resumes: bool = True
    """Whether it takes resume=True."""
    grows: bool = True
    """Whether it can be called again for a box beyond the first."""
    whole: tuple = ()
    """The mags that change as a whole, or not at all, once an interrupted job is finished."""
    again: bool = True
    """Whether the same call may be made again after it was killed."""
    inverts: bool = False
    """Whether the same call made twice restores what was there."""
    older: bool = True
    """Whether it may find older voxels where it writes."""


CALLS = {}


def call(**options):
    """Add a class of functions to the calls."""

    def add(given):
        name = given.__name__
        CALLS[name] = Call(name, given.prepare, given.run, given.expect, **options)
        return given

    return add


def invert(block):
    return 255 - block


def split(block):
    return {"a": 255 - block, "b": block.astype("uint16") + 1}


class _Color:
    """Prepares one mag, with older voxels or none."""

    def prepare(scene, state, box, older):
        scene.add()
        state.voxels.setdefault(("ds", "color", 1), np.zeros(CANVAS, "uint8"))
        state.boxes.setdefault(("ds", "color"), BoundingBox((0, 0, 0), (0, 0, 0)))
        if older:
            scene.put(state, ("ds", "color", 1), box, OLDER)

    def expect(state, box):
        state.put(("ds", "color", 1), box, SOURCE)


class _InPlace:
    def prepare(scene, state, box, older):
        scene.add()
        scene.put(state, ("ds", "color", 1), box, SOURCE)

    def expect(state, box):
        state.put(("ds", "color", 1), box, 255 - SOURCE)


def _empty(scene, state, layer, dtype="uint8", mags=(1,), **layout):
    scene.add(layer, mags, dtype, **layout)
    for mag in mags:
        state.voxels.setdefault(("ds", layer, mag), np.zeros([side // mag for side in CANVAS], dtype))
    state.boxes.setdefault(("ds", layer), BoundingBox((0, 0, 0), (0, 0, 0)))


@call()
class write_numpy(_Color):
    def run(scene, box, **how):
        block = np.asfortranarray(SOURCE[box.to_slices()])[None]
        scene.mag().write(block, bounding_box=box, progress=False, **how)


@call()
class write_dask(_Color):
    def run(scene, box, **how):
        scene.mag().write(source_array(scene, box), bounding_box=box, progress=False, **how)


@call(whole=(("ds", "color", 1),), inverts=True)
class write_in_place(_InPlace):
    def run(scene, box, **how):
        mag = scene.mag()
        mag.write(255 - mag.to_dask(bounding_box=box), bounding_box=box, progress=False, **how)


@call(whole=(("ds", "color", 1),), again=False)
class write_rolled(_InPlace):
    def run(scene, box, **how):
        mag = scene.mag()
        array = da.roll(mag.to_dask(bounding_box=box), 8, axis=1)
        mag.write(array, bounding_box=box, progress=False, **how)

    def expect(state, box):
        values = SOURCE.copy()
        values[box.to_slices()] = np.roll(SOURCE[box.to_slices()], 8, axis=0)
        state.put(("ds", "color", 1), box, values)


class _Pyramid:
    def prepare(scene, state, box, older):
        _empty(scene, state, "color", mags=(1, 2, 4))
        if older:
            for mag in (1, 2, 4):
                scene.put(state, ("ds", "color", mag), box, OLDER)

    def expect(state, box):
        for mag in (1, 2, 4):
            state.put(("ds", "color", mag), box, SOURCE)


@call()
class write_pyramid(_Pyramid):
    def run(scene, box, **how):
        scene.mag().write(source_array(scene, box), bounding_box=box, pyramid=True, progress=False, **how)


@call(whole=(("ds", "color", 1),), older=False, inverts=True)
class write_pyramid_in_place:
    def prepare(scene, state, box, older):
        scene.add("color", (1, 2, 4))
        for mag in (1, 2, 4):
            scene.put(state, ("ds", "color", mag), box, SOURCE)

    def run(scene, box, **how):
        mag = scene.mag()
        array = 255 - mag.to_dask(bounding_box=box)
        mag.write(array, bounding_box=box, pyramid=True, progress=False, **how)

    def expect(state, box):
        for mag in (1, 2, 4):
            state.put(("ds", "color", mag), box, 255 - SOURCE)


@call(older=False)
class write_pyramid_new:
    """The coarser mags are made; older voxels of the layer are elsewhere."""

    def prepare(scene, state, box, older):
        _empty(scene, state, "color")
        scene.put(state, ("ds", "color", 1), BoundingBox((0, 0, 0), (8, 4, 4)), OLDER)

    def run(scene, box, **how):
        scene.mag().write(source_array(scene, box), bounding_box=box, pyramid=True, progress=False, **how)

    def expect(state, box):
        state.put(("ds", "color", 1), box, SOURCE)
        for mag in (2, 4, 8):
            if mag < 8:
                canvas = in_mag(state.voxels["ds", "color", 1], mag).copy()
                state.voxels["ds", "color", mag] = canvas


@call()
class store_two:
    def prepare(scene, state, box, older):
        _empty(scene, state, "color")
        _empty(scene, state, "other", "uint16")
        if older:
            scene.put(state, ("ds", "color", 1), box, OLDER)
            scene.put(state, ("ds", "other", 1), box, OLDER.astype("uint16"))

    def run(scene, box, **how):
        array = source_array(scene, box)
        pairs = [(array, scene.mag(), box), (array.astype("uint16") + 1, scene.mag("other"), box)]
        wkdask.store(pairs, progress=False, **how)

    def expect(state, box):
        state.put(("ds", "color", 1), box, SOURCE)
        state.put(("ds", "other", 1), box, SOURCE.astype("uint16") + 1)


@call(whole=(("ds", "color", 1), ("ds", "other", 1)), older=False, again=False)
class store_two_in_place:
    """One of the targets is read."""

    def prepare(scene, state, box, older):
        _empty(scene, state, "other", "uint16")
        scene.add()
        scene.put(state, ("ds", "color", 1), box, SOURCE)

    def run(scene, box, **how):
        array = scene.mag().to_dask(bounding_box=box)
        pairs = [(255 - array, scene.mag(), box), (array.astype("uint16") + 1, scene.mag("other"), box)]
        wkdask.store(pairs, progress=False, **how)

    def expect(state, box):
        state.put(("ds", "color", 1), box, 255 - SOURCE)
        state.put(("ds", "other", 1), box, SOURCE.astype("uint16") + 1)


@call()
class map_one(_Color):
    def run(scene, box, **how):
        source = scene.mag("color", 1, "src")
        source.map_cubes(invert, scene.mag(), bounding_box=box, progress=False, **how)

    def expect(state, box):
        state.put(("ds", "color", 1), box, 255 - SOURCE)


@call()
class map_two:
    prepare = store_two.prepare

    def run(scene, box, **how):
        targets = {"a": scene.mag(), "b": scene.mag("other")}
        scene.mag("color", 1, "src").map_cubes(split, targets, bounding_box=box, progress=False, **how)

    def expect(state, box):
        state.put(("ds", "color", 1), box, 255 - SOURCE)
        state.put(("ds", "other", 1), box, SOURCE.astype("uint16") + 1)


@call(whole=(("ds", "color", 1),), inverts=True)
class map_in_place(_InPlace):
    def run(scene, box, **how):
        mag = scene.mag()
        mag.map_cubes(invert, mag, bounding_box=box, progress=False, **how)


@call(whole=(("ds", "color", 1), ("ds", "other", 1)), older=False, again=False)
class map_two_in_place:
    prepare = store_two_in_place.prepare

    def run(scene, box, **how):
        targets = {"b": scene.mag("other"), "a": scene.mag()}
        scene.mag().map_cubes(split, targets, bounding_box=box, progress=False, **how)

    expect = store_two_in_place.expect


def fill_chunk(given):
    view, _number = given
    view.write(np.full(view.size, 7, "uint8"), offset=(0, 0, 0))


def _within(scene, state, box, older):
    """Prepare a mag of a layer whose box holds what a view is taken of."""
    _Color.prepare(scene, state, box, older)
    layer, old = scene.layer(), state.boxes["ds", "color"]
    layer.bounding_box = state.boxes["ds", "color"] = box if old.is_empty() else old.extended_by(box)


@call(resumes=False)
class each_chunk(_Color):
    prepare = _within

    def run(scene, box, **how):
        view = scene.mag().get_view(bounding_box=box)
        view.for_each_chunk(fill_chunk, chunk_shape=(32, 32, 32), progress=False, **how)

    def expect(state, box):
        state.put(("ds", "color", 1), box, np.full(CANVAS, 7, "uint8"))


def copy_chunk(given):
    source, target, _number = given
    target.write(source.read(), offset=(0, 0, 0))


@call(resumes=False)
class zipped_chunks(_Color):
    prepare = _within

    def run(scene, box, **how):
        source = scene.mag("color", 1, "src").get_view(bounding_box=box)
        target = scene.mag().get_view(bounding_box=box)
        shape = (32, 32, 32)
        source.for_zipped_chunks(
            copy_chunk, target, source_chunk_shape=shape, target_chunk_shape=shape, progress=False, **how
        )


@call(resumes=False)
class slice_writer(_Color):
    def run(scene, box, **how):
        block = SOURCE[box.to_slices()]
        with scene.mag().get_buffered_slice_writer(offset=box.topleft, buffer_size=5) as writer:
            for z in range(block.shape[2]):
                writer.send(block[None, :, :, z])


@call(older=False)
class downsample:
    def prepare(scene, state, box, older):
        scene.add()
        scene.put(state, ("ds", "color", 1), box, SOURCE)

    def run(scene, box, **how):
        layer = scene.layer()
        layer.downsample(
            1, coarsest_mag=4, compression=_other_compression(scene), allow_overwrite=len(layer.mags) > 1,
            progress=False, **how,
        )  # fmt: skip

    def expect(state, box):
        for mag in (2, 4):
            state.fill(("ds", "color", mag), box, SOURCE)


@call(resumes=False)
class redownsample:
    def prepare(scene, state, box, older):
        scene.add("color", (1, 2, 4))
        for mag in (1, 2, 4):
            scene.put(state, ("ds", "color", mag), box, SOURCE if mag == 1 else OLDER)

    def run(scene, box, **how):
        scene.layer().redownsample(boxes=[box], progress=False, **how)

    def expect(state, box):
        for mag in (2, 4):
            state.fill(("ds", "color", mag), box, SOURCE)


@call(resumes=False, grows=False, older=False)
class upsample:
    def prepare(scene, state, box, older):
        scene.add("color", (4,))
        scene.put(state, ("ds", "color", 4), box, SOURCE)

    def run(scene, box, **how):
        scene.layer().upsample(4, finest_mag=1, compression=_other_compression(scene), progress=False, **how)

    def expect(state, box):
        for mag in (1, 2):
            state.fill(("ds", "color", mag), box, SOURCE)


class _Same:
    prepare = _InPlace.prepare

    def expect(state, box):
        pass


def _other_compression(scene):
    return "lz4" if scene.data_format == "wkw" else "gzip"


@call(resumes=False, whole=(("ds", "color", 1),))
class compress(_Same):
    def run(scene, box, **how):
        scene.mag().compress(compression=_other_compression(scene), progress=False, **how)


@call(resumes=False, whole=(("ds", "color", 1),))
class rechunk(_Same):
    def run(scene, box, **how):
        small = scene.mag().spec.shard_shape[0] == CUBE
        layout = (16, 32) if small else (8, 16)
        layout = (layout[1], layout[1]) if scene.data_format == "zarr" else layout
        scene.mag().rechunk(*layout, progress=False, **how)


class _Copied:
    prepare = _InPlace.prepare

    def expect(state, box):
        key = ("copy", "color", 1)
        state.voxels[key] = state.voxels["ds", "color", 1].copy()
        state.boxes[key[:2]] = state.boxes["ds", "color"]


@call(resumes=False, grows=False)
class compress_target(_Copied):
    def run(scene, box, **how):
        scene.mag().compress(scene.path("copy"), compression=_other_compression(scene), progress=False, **how)


@call(resumes=False, grows=False)
class rechunk_target(_Copied):
    def run(scene, box, **how):
        layout = (32, 32) if scene.data_format == "zarr" else (16, 32)
        scene.mag().rechunk(
            *layout,
            target_path=scene.path("copy"),
            compression=_other_compression(scene),
            progress=False,
            **how,
        )


@call(resumes=False, grows=False, older=False)
class add_copy_mag:
    def prepare(scene, state, box, older):
        scene.add("color", ())
        state.boxes["ds", "color"] = BoundingBox((0, 0, 0), (0, 0, 0))

    def run(scene, box, **how):
        scene.layer().add_copy_mag(scene.mag("color", 1, "src"), **how)

    def expect(state, box):
        state.voxels["ds", "color", 1] = SOURCE.copy()
        state.boxes["ds", "color"] = BoundingBox((0, 0, 0), CANVAS)


@call(resumes=False, grows=False, older=False)
class add_copy_layer:
    def prepare(scene, state, box, older):
        pass

    def run(scene, box, **how):
        Dataset.open(scene.path("ds")).add_copy_layer(scene.layer("color", "src"), progress=False, **how)

    expect = add_copy_mag.expect


@call(grows=False, again=False)
class copy_dataset(_Copied):
    def run(scene, box, **how):
        Dataset.open(scene.path("ds")).copy_dataset(
            scene.path("copy"), compression=_other_compression(scene), **scene.layout, progress=False, **how
        )


@call(grows=False, again=False)
class copy_verified(_Copied):
    def run(scene, box, **how):
        Dataset.open(scene.path("ds")).copy_dataset(scene.path("copy"), verify=True, progress=False, **how)


CELLS = [(0, 9), (12, 20), (24, 30)]
"""Extents along x, from the box's corner, of what `label_components` finds."""


@call()
class label:
    def prepare(scene, state, box, older):
        _empty(scene, state, "ids", "uint32")
        _empty(scene, state, "cells", "uint8")
        cells = np.zeros(CANVAS, "uint8")
        for a, b in CELLS:
            cells[box.topleft.x + a : min(box.topleft.x + b, CANVAS[0]), box.topleft.y :, box.topleft.z :] = 9
        scene.put(state, ("ds", "cells", 1), box, cells)

    def run(scene, box, **how):
        wkdask.label_components(scene.mag("cells"), scene.mag("ids"), bounding_box=box, progress=False, **how)

    def expect(state, box):
        ids = np.zeros(CANVAS, "uint32")
        number = 0
        for a, b in CELLS:
            part = slice(box.topleft.x + a, min(box.topleft.x + b, CANVAS[0]))
            if part.start < min(CANVAS[0], box.bottomright.x):
                number += 1
                ids[part, box.topleft.y :, box.topleft.z :] = number
        state.put(("ds", "ids", 1), box, ids)


@call(grows=False, older=False, again=False)
class from_dask:
    def prepare(scene, state, box, older):
        pass

    def run(scene, box, **how):
        Dataset.from_dask(
            scene.path("copy"), source_array(scene, box), (1, 1, 1), topleft=box.topleft, pyramid=False,
            data_format=scene.data_format, **scene.layout, progress=False, **how,
        )  # fmt: skip

    def expect(state, box):
        state.put(("copy", "color", 1), box, SOURCE)


@call(grows=False, older=False, again=False)
class convert:
    def prepare(scene, state, box, older):
        os.mkdir(scene.path("images"))
        for z, section in enumerate(np.moveaxis(SOURCE[box.to_slices()], 2, 0)):
            tifffile.imwrite(scene.path(f"images/s{z:02}.tif"), np.ascontiguousarray(section.T))

    def run(scene, box, **how):
        convert_images(
            scene.path("images"), scene.path("copy"), voxel_size=(1, 1, 1), offset=box.topleft,
            data_format=scene.data_format, **scene.layout, progress=False, **how,
        )  # fmt: skip

    expect = from_dask.expect


# --- independent readers ---------------------------------------------------------------------------------


def found(folder, dataset="ds"):
    """Return what a dataset holds by its files: read by the wkw library and zarr-python."""
    state, root = State(), os.path.join(folder, dataset)
    if not os.path.exists(f"{root}/datasource-properties.json"):
        return state
    with open(f"{root}/datasource-properties.json") as file:
        raw = json.load(file)
    for layer in raw["dataLayers"]:
        state.boxes[dataset, layer["name"]] = BoundingBox.from_wkw_dict(layer["boundingBox"])
        for entry in layer["mags"] if "mags" in layer else layer["wkwResolutions"]:
            mag = Mag(entry.get("mag", entry.get("resolution")))
            path = os.path.join(root, entry.get("path", f"{layer['name']}/{mag.to_layer_name()}"))
            state.voxels[dataset, layer["name"], mag.max_dim] = read_canvas(path, mag.max_dim)
    return state


def read_canvas(path, mag):
    """Return the canvas of a mag, zeros where it holds nothing."""
    import wkw
    import zarr

    shape = [side // mag for side in CANVAS]
    if os.path.exists(f"{path}/header.wkw"):
        with wkw.Dataset.open(path) as opened:
            return opened.read((0, 0, 0), shape)[0]
    stored = zarr.open_array(path, mode="r")[...]
    stored = stored.reshape(stored.shape[-3:])
    canvas = np.zeros(shape, stored.dtype)
    part = tuple(slice(0, min(pair)) for pair in zip(shape, stored.shape, strict=True))
    canvas[part] = stored[part]
    assert not stored[shape[0] :].any()
    return canvas


def difference(got, wanted):
    """Return in words how two states differ; empty if they do not."""
    words = []
    for key in sorted({*got.voxels, *wanted.voxels}):
        if key not in got.voxels or key not in wanted.voxels:
            words.append(f"{key} is {'not listed' if key in wanted.voxels else 'listed'}")
            continue
        a, b = got.voxels[key], wanted.voxels[key]
        if a.dtype != b.dtype or not np.array_equal(a, b):
            zeros = np.count_nonzero((a == 0) & (b != 0))
            words.append(f"{key}: {np.count_nonzero(a != b)} voxels differ, {zeros} are zero")
    words += [
        f"box of {key} is {got.boxes.get(key)}, want {wanted.boxes.get(key)}"
        for key in sorted({*got.boxes, *wanted.boxes})
        if got.boxes.get(key) != wanted.boxes.get(key)
        and not (got.boxes.get(key, BEYOND).is_empty() and wanted.boxes.get(key, BEYOND).is_empty())
    ]
    return "; ".join(words)


def whole_state(folder):
    """Return what all datasets of a scene hold."""
    state = State()
    for name in sorted(os.listdir(folder)):
        each = found(folder, name)
        state.voxels |= each.voxels
        state.boxes |= each.boxes
    return state


def copied(state):
    return copy.deepcopy(state)
