"""Every public call that reads, each as a function of a dataset whose result is compared with that on a folder.

A result is plain data: arrays, tuples, texts. `Scene.plain` replaces the place of the dataset in texts.
"""

import json
import pickle
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import dask.array as da
import numpy as np
from click.testing import CliRunner
from PIL import Image
from stored_objects import put_folder

from wkdask import BoundingBox, Dataset, MeshAttachment, store
from wkdask.cli import main

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
    seg.attachments.add_attachment_as_ref(
        MeshAttachment.from_path_and_name(meshes / "mesh.hdf5", "mesh", data_format="hdf5")
    )
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
    shutil.copytree(Path(folder, "seg", "meshes"), target / "seg" / "meshes")
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
        """Return a text without what may differ: where it is, the disk's blocks, times."""
        text = text.replace(self.path, "PLACE").replace(str(self.out), "OUT")
        text = re.sub(r"(at least )?([0-9.]+ (Ki|Mi)?B|\?) on disk", "N on disk", text)
        text = re.sub(r"Files *: .*", "Files", text)
        text = re.sub(r"  read-only: [^\n]*|, read-only", "", text)
        text = re.sub(r"(at least )?([0-9]+|\?) cubes? of", "N cubes of", text)
        return re.sub(r" +(\n|$)", r"\1", re.sub(r" +", " ", text))

    def new_layer(self, name="new", data_format="wkw"):
        """Return an empty layer in a new dataset on the disk."""
        ds = Dataset.create(self.out / name, (11.24, 11.24, 28))
        return ds.add_layer("color", "color", dtype="uint8", data_format=data_format)

    def new_mag(self, name="new"):
        """Return an empty mag in a new dataset on the disk."""
        layer = self.new_layer(name)
        layer.bounding_box = BOX
        return layer.add_mag(1, chunk_shape=CHUNK, shard_shape=CUBE, compression="lz4")

    def run(self, *arguments):
        """Run a command; return its exit code and what it prints."""
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, self.plain(result.output)


def same(one, other):
    """Tell whether two results are equal."""
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def all_of(dataset):
    """Return the voxels of all mags of a dataset, and the files beside them."""
    voxels = {
        f"{layer.name} {mag}": view.read()
        for layer in dataset.layers.values()
        for mag, view in layer.mags.items()
    }
    meshes = Path(dataset.path, "seg", "meshes", "mesh.hdf5")
    return voxels, meshes.read_bytes() if meshes.exists() else None


CALLS = {}
UNLISTED = set()
"""Calls that list the objects of a mag, which a web server does not."""
REFUSED = {}


def call(function, into=CALLS):
    into[function.__name__] = function
    return function


def listing(function):
    UNLISTED.add(function.__name__)
    return call(function)


def refused(function):
    return call(function, REFUSED)


@call
def read(s):
    mag = s.mag
    return [
        mag.read(),
        mag.read(absolute_bounding_box=PART),
        mag.read(absolute_offset=(0, 0, 0), size=(50, 30, 30)),
        s.ds.get_layer("color").get_mag("2-2-1").read(),
        s.seg.read(),
        mag.read_bbox(PART),
        mag.read_xyz(absolute_bounding_box=PART),
        mag.read_cxyz(absolute_bounding_box=PART),
    ]


@call
def lazily(s):
    return [
        s.mag.to_dask().compute(),
        s.mag.to_dask(bounding_box=PART).compute(),
        s.mag.to_dask(bounding_box=PART, chunks=(4, 8, 8)).compute(),
        s.mag.to_dask_array().compute(),
        (s.mag.to_dask().astype("uint32") + s.seg.to_dask()).sum().compute(),
        np.asarray(s.mag[0, 5:20, 3:9, 10]),
    ]


@call
def readers_and_views(s):
    view = s.mag.get_view(absolute_bounding_box=PART, read_only=True)
    with s.mag.open_reader(max_open_cubes=2, threads=2) as reader:
        found = [reader.read(PART.topleft, PART.size), reader.read(BOX.topleft, BOX.size)]
    with s.mag.get_buffered_slice_reader(buffer_size=5) as slices:
        found += list(slices)
    inner = view.get_view(relative_offset=(1, 2, 3), size=(4, 4, 4))
    return [*found, view.read(), inner.read(), view.to_dask().compute()]


@call
def labelled(s):
    x = s.mag.to_xarray()
    tree = s.ds.get_layer("color").to_xarray()
    return [x.values, {name: found.values for name, found in x.coords.items()}, tree["2-2-1/color"].values]


@call
def figures(s):
    layer = s.ds.get_layer("color")
    return [repr(s.mag.histogram()), repr(layer.histogram()), str(s.mag.info), str(s.mag.split(3))]


@call
def shown(s):
    handles = [s.ds, s.ds.get_layer("color"), s.ds.get_layer("seg"), s.mag]
    for handle in handles:
        html = handle._repr_html_()
        assert "Error" not in html, html
    return [s.plain(repr(handle)) for handle in handles]


@call
def places(s):
    return [
        s.plain(str(s.ds.path)),
        s.plain(str(s.ds.get_layer("color").path)),
        s.plain(str(s.ds.resolved_path)),
    ]


@call
def opened(s):
    again = [Dataset(s.path), Dataset.open(s.path, read_only=True)]
    again += [
        Dataset.get_or_create(s.path, (11.24, 11.24, 28)),
        Dataset(s.path, (11.24, 11.24, 28), exist_ok=True),
    ]
    return [(ds.name, ds.voxel_size, ds == again[0], list(ds.layers)) for ds in again]


@call
def pickled(s):
    mag, ds, lazy = pickle.loads(pickle.dumps([s.mag, s.ds, s.mag.to_dask()]))
    return [mag.read(), ds.name, lazy.compute()]


@call
def compared(s):
    other = Dataset(s.other)
    return [
        s.mag.content_is_equal(s.local),
        s.local.content_is_equal(s.mag),
        s.ds.first_difference(other) is None,
        other.first_difference(s.ds) is None,
    ]


@call
def compared_with_another(s):
    changed = s.new_mag()
    changed.write(s.local.read(), offset=BOX.topleft, progress=False)
    equal = [changed.content_is_equal(s.mag), s.mag.content_is_equal(changed)]
    changed.write(np.full((1, 1, 1, 1), 255, "uint8"), offset=BOX.bottomright - 1, progress=False)
    return [*equal, changed.content_is_equal(s.mag), s.mag.content_is_equal(changed)]


@call
def dataset_copied(s):
    return all_of(s.ds.copy_dataset(s.out / "copy", progress=False))[0]


@call
def dataset_copied_otherwise(s):
    how = {
        "data_format": "zarr3",
        "chunk_shape": CHUNK,
        "shard_shape": CUBE,
        "verify": True,
        "progress": False,
    }
    box = s.ds.copy_dataset(s.out / "box", bounding_box=PART, progress=False)
    return all_of(s.ds.copy_dataset(s.out / "copy", **how))[0], all_of(box)[0]


@call
def dataset_copied_in_two_parts(s):
    s.ds.copy_dataset(s.out / "copy", layers=["color"], progress=False)
    return all_of(s.ds.copy_dataset(s.out / "copy", exists_ok=True, progress=False))[0]


@listing
def copied_with_what_is_beside(s):
    ds = Dataset.create(s.out / "more", (11.24, 11.24, 28))
    ds.add_copy_layer(f"{s.path}/seg")
    assert [str(each.path) for each in ds.get_layer("seg").attachments] == [f"{ds.path}/seg/meshes/mesh.hdf5"]
    return all_of(s.ds.fs_copy_dataset(s.out / "copy")), all_of(ds)


@call
def shallow_copy(s):
    s.ds.shallow_copy_dataset(s.out / "copy")
    return all_of(Dataset(s.out / "copy"))[0]


@call
def layers_of_elsewhere(s):
    ds = Dataset.create(s.out / "new", (11.24, 11.24, 28))
    ds.add_copy_layer(s.ds.get_layer("seg"), "copy", progress=False)
    ds.add_layer_as_ref(s.ds.get_layer("color"))
    ds.add_layer_as_ref(f"{s.path}/seg", "listed")
    return all_of(Dataset(s.out / "new"))[0]


@call
def mags_of_elsewhere(s):
    path = str(s.mag.path)
    for name, add in {
        "a": lambda layer: layer.add_copy_mag(s.mag),
        "b": lambda layer: layer.add_copy_mag(path),
        "c": lambda layer: layer.add_mag_as_ref(s.mag),
        "d": lambda layer: layer.add_mag_as_ref(path),
        "e": lambda layer: layer.add_fs_copy_mag(s.mag),
    }.items():
        layer = s.new_layer(name, str(s.local.data_format))
        layer.bounding_box = BOX
        add(layer)
    return {name: Dataset(s.out / name).get_layer("color").get_mag(1).read() for name in "abcde"}


@call
def mapped(s):
    target = s.new_mag()
    s.mag.map_cubes(lambda block: block + 1, target, progress=False)
    return target.read(), sorted(map(int, s.mag.map_cubes(lambda block: int(block.sum()), progress=False)))


@call
def over_chunks(s):
    target, zipped = s.new_mag(), s.new_mag("zipped")

    def copy_one(arguments):
        view, _ = arguments
        target.write(view.read(), offset=view.bounding_box.topleft, progress=False)

    def copy_pair(arguments):
        source, there, _ = arguments
        there.write(source.read())

    s.mag.for_each_chunk(copy_one, chunk_shape=(32, 32, 32))
    s.mag.get_view(read_only=True).for_zipped_chunks(
        copy_pair, zipped.get_view(), source_chunk_shape=(32, 32, 32), target_chunk_shape=(32, 32, 32)
    )
    sums = s.mag.map_chunk(lambda view: int(view.read().sum()), chunk_shape=(32, 32, 32))
    return target.read(), zipped.read(), sums


@call
def written_elsewhere(s):
    one, two, three = s.new_mag("a"), s.new_mag("b"), s.new_mag("c")
    lazy = s.mag.to_dask() + s.seg.to_dask().astype("uint8")
    for _ in range(2):  # again: complete
        one.write(lazy, offset=BOX.topleft, resume=True, progress=False)
    store([(lazy, two, BOX), (lazy + 1, three, BOX)], progress=False)
    return one.read(), two.read(), three.read()


@call
def exported(s):
    s.mag.export(s.out / "sections", format="tiff", progress=False)
    s.mag.export(s.out / "one.npy", progress=False)
    files = sorted(path for path in (s.out / "sections").rglob("*.tif"))
    assert files
    return [path.read_bytes() for path in files], np.load(s.out / "one.npy")


@call
def attachments(s):
    return [s.plain(str(each.path)) for each in s.ds.get_layer("seg").attachments]


@listing
def cubes_listed(s):
    views = [view.bounding_box for view in s.mag.get_views_on_disk(read_only=True)]
    return [
        sorted(tuple(box.topleft) for box in s.mag.cubes_on_disk()),
        sorted(map(str, s.mag.get_bounding_boxes_on_disk())),
        sorted(map(str, views)),
        str(s.mag.calculate_bounding_box()),
    ]


@call
def commands(s):
    preview = s.out / "preview.png"
    assert s.run("preview", s.path, "--layer", "color", "-o", preview)[0] == 0
    return [
        s.run("info", s.path),
        s.run("histogram", s.path, "--layer", "color"),
        s.run("equal", s.path, s.other)[0],
        s.run("equal", s.other, s.path)[0],
        s.run("copy", s.path, s.out / "copy")[0],
        s.run("export", s.path, s.out / "one.npy", "--layer", "color", "--mag", "1")[0],
        json.loads(s.run("info", s.path, "--json")[1])["name"],
        preview.read_bytes(),
    ]


@refused
def write(s):
    s.mag.write(np.zeros((1, 4, 4, 4), "uint8"), offset=BOX.topleft)


@refused
def write_lazily(s):
    s.mag.write(da.zeros((1, 16, 16, 16), chunks=16, dtype="uint8"), offset=BOX.topleft)


@refused
def write_slices(s):
    with s.mag.get_buffered_slice_writer() as writer:
        writer.send(np.zeros((4, 4), "uint8"))


@refused
def map_into(s):
    s.local.map_cubes(lambda block: block, s.mag)


@refused
def store_into(s):
    store([(da.zeros((1, 16, 16, 16), chunks=16, dtype="uint8"), s.mag)])


@refused
def redownsample(s):
    s.ds.get_layer("color").redownsample()


@refused
def compress(s):
    others = ("lz4", "lz4hc") if s.seg.data_format == "wkw" else ("zstd", "gzip")
    s.seg.compress(compression=next(each for each in others if each != s.seg.spec.compression))


@refused
def rechunk(s):
    s.mag.rechunk(chunk_shape=16)


OF_THE_DATASET = {}
"""What is refused of a dataset at a URL, not of one on a disk whose mags are at URLs."""


def refused_there(function):
    return call(function, OF_THE_DATASET)


@refused_there
def downsample(s):
    s.ds.get_layer("color").downsample(coarsest_mag=4)


@refused_there
def downsample_all(s):
    s.ds.downsample(coarsest_mag=8)


@refused_there
def add_layer(s):
    s.ds.add_layer("x", "color")


@refused_there
def add_mag(s):
    s.ds.get_layer("color").add_mag(4)


@refused_there
def write_layer(s):
    s.ds.write_layer("new", "color", da.zeros((1, 16, 16, 16), chunks=16, dtype="uint8"))


@refused_there
def delete_layer(s):
    s.ds.delete_layer("color")


@refused_there
def delete_mag(s):
    s.ds.get_layer("color").delete_mag(1)


@refused_there
def rename(s):
    s.ds.name = "x"


@refused_there
def rename_layer(s):
    s.ds.get_layer("color").name = "x"


@refused_there
def set_box(s):
    s.ds.get_layer("color").bounding_box = PART


@refused_there
def add_attachment(s):
    s.ds.get_layer("seg").attachments.add_mesh(s.out, name="x", data_format="hdf5")


@refused_there
def make(s):
    Dataset(f"{s.path}/new", (1, 1, 1))


@refused_there
def make_by_create(s):
    Dataset.create(f"{s.path}/new", (1, 1, 1))


@refused_there
def get_or_make(s):
    Dataset.get_or_create(f"{s.path}/new", (1, 1, 1))


@refused_there
def make_from_dask(s):
    Dataset.from_dask(f"{s.path}/new", da.zeros((1, 16, 16, 16), chunks=16, dtype="uint8"), (1, 1, 1))


@refused_there
def compress_to(s):
    s.local.compress(f"{s.path}/new")


@refused_there
def export_to(s):
    s.local.export(f"{s.path}/new.npy")


@refused_there
def images_to(s):
    Image.fromarray(np.zeros((8, 8), "uint8")).save(s.out / "1.png")
    Dataset.from_images(s.out, f"{s.path}/new", (1, 1, 1))
