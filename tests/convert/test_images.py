"""Image stacks become layers: every voxel is the images', each image is decoded once, nothing is left behind."""

import itertools
import os
import pickle
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import tifffile
import wkw
from PIL import Image
from repository import SHARED
from thorough import mostly_slow

import wkdask
from wkdask.convert import images as images_module
from wkdask.convert.images import convert_images
from wkdask.errors import (
    AlreadyExistsError,
    ImageStackError,
    InvalidValueError,
    JobEndedError,
    PlanError,
    TaskFailedError,
    UnsupportedFormatError,
    WkdaskWarning,
)
from wkdask.external.images import job as job_module
from wkdask.external.images import plan as plan_module
from wkdask.external.images import stack as stack_module
from wkdask.external.images.plan import plan_conversion
from wkdask.external.images.stack import open_stack
from wkdask.fsio import remove_folder
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.jobs.events import JobStarted, UnitDone
from wkdask.layer.chunk_layout import default_shard_side
from wkdask.storage.protocol import ArraySpec
from wkdask.storage.publish.assemble import publish_assembled
from wkdask.storage.publish.jobs import job_folder
from wkdask.storage.wkw.mag import WkwMag

VNC = SHARED / "data" / "vnc"
SIZE = (4.6, 4.6, 45)
MIB = 1 << 20


def volume(shape, dtype="uint8", seed=3):
    """Random voxels (c, x, y, z) of all values that the type has."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return np.asfortranarray(rng.normal(size=shape).astype(dtype))
    info = np.iinfo(dtype)
    return np.asfortranarray(rng.integers(info.min, info.max, shape, dtype, endpoint=True))


def save(folder, voxels):
    """Write (c, x, y, z) as one TIFF per section."""
    folder.mkdir()
    for z in range(voxels.shape[3]):
        image = np.ascontiguousarray(voxels[..., z].T)  # (y, x, c)
        colours = "rgb" if voxels.shape[0] > 1 else "minisblack"
        tifffile.imwrite(folder / f"s{z}.tif", image.squeeze(), photometric=colours)
    return folder


def check(dataset, expected, offset=(0, 0, 0), layer="color"):
    """Compare the whole layer, and all that is in its cubes, through wkdask and the bare library."""
    mag = wkdask.Dataset(dataset).get_layer(layer).get_mag("1")
    assert mag.bounding_box == BoundingBox(offset, expected.shape[1:])
    np.testing.assert_array_equal(mag.read(), expected)
    stop = (mag.box.bottomright.ceildiv(mag.spec.shard_shape) * mag.spec.shard_shape).pairmin(
        mag.box.bottomright + 40
    )
    around = np.zeros((expected.shape[0], *stop), expected.dtype)
    around[(slice(None), *mag.box.to_slices())] = expected
    with wkw.Dataset.open(mag.path) as bare:
        np.testing.assert_array_equal(bare.read((0, 0, 0), tuple(stop)), around)
    nothing_left(mag.path)


def nothing_left(mag_path):
    private = Path(mag_path, ".wkdask")
    assert {entry.name for entry in private.iterdir()} - {"finished"} == {"locks"}


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


# --- every voxel -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compression", "shard", "offset"),
    mostly_slow(  # every pair of compression and shard every day
        itertools.product([None, "lz4", "lz4hc"], [32, 64, 256], [(0, 0, 0), (37, 130, 61)]),
        lambda n, _: n % 2 == n // 2 % 2,
    ),
)
def test_voxels_are_the_images(tmp_path, compression, offset, shard):
    # odd sides, more than one chunk along each axis; slabs of one and of several layers of chunks
    expected = volume((1, 70, 45, 83))
    report = convert_images(
        save(tmp_path / "in", expected), tmp_path / "ds", voxel_size=SIZE, offset=offset,
        compression=compression, shard_shape=shard, progress=False,
    )  # fmt: skip
    check(tmp_path / "ds", expected, offset)
    assert report.bounding_box == BoundingBox(offset, (70, 45, 83))
    assert (report.minimum, report.maximum) == (0, 255)
    assert report.bytes == expected.nbytes
    mag = wkdask.Dataset(tmp_path / "ds").get_layer("color").get_mag("1")
    shown = mag.layer.default_view_configuration
    assert (shown.min, shown.max, shown.intensity_range) == (0, 255, None)
    assert mag.spec.compression == compression
    cubes = [path for path in Path(mag.path).rglob("*.wkw") if path.name != "header.wkw"]
    assert report.cubes == len(cubes)
    assert report.file_bytes == sum(path.stat().st_size for path in cubes)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "float32", "int16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_types_and_channels(tmp_path, dtype, channels):
    expected = volume((channels, 33, 70, 3), dtype)
    shown = channels == 1 or dtype == "uint8"
    with nullcontext() if shown else pytest.warns(WkdaskWarning, match=f"3 channels of {dtype}.*--rescale"):
        convert_images(
            save(tmp_path / "in", expected),
            tmp_path / "ds",
            voxel_size=SIZE,
            offset=(5, 0, 31),
            progress=False,
        )
    check(tmp_path / "ds", expected, (5, 0, 31))
    assert wkdask.Dataset(tmp_path / "ds").get_layer("color").num_channels == channels


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_pages_of_one_file(tmp_path, compression):
    expected = volume((1, 40, 31, 70), "uint16")
    tifffile.imwrite(
        tmp_path / "a.tif", expected[0].T[:50], photometric="minisblack", compression="zlib", metadata=None
    )
    tifffile.imwrite(tmp_path / "b.tif", expected[0].T[50:], photometric="minisblack")
    convert_images(
        [tmp_path / "a.tif", tmp_path / "b.tif"], tmp_path / "ds", voxel_size=SIZE, shard_shape=32,
        offset=(0, 0, 9), compression=compression, progress=False,
    )  # fmt: skip
    check(tmp_path / "ds", expected, (0, 0, 9))


def test_segmentation_has_the_largest_id_of_the_images(tmp_path):
    expected = volume((1, 50, 60, 40), "uint32") // 7
    expected[0, 49, 59, 39] = 4_000_000_000
    convert_images(
        save(tmp_path / "in", expected), tmp_path / "ds", voxel_size=SIZE, layer_name="cells",
        category="segmentation", shard_shape=32, compression="lz4hc", progress=False,
    )  # fmt: skip
    check(tmp_path / "ds", expected, layer="cells")
    layer = wkdask.Dataset(tmp_path / "ds").get_segmentation_layer("cells")
    assert layer.largest_segment_id == 4_000_000_000
    assert layer.default_view_configuration is None


def test_wide_ids(tmp_path):
    expected = np.full((1, 8, 8, 2), 2**53 - 1, "uint64")
    convert_images(
        save(tmp_path / "in", expected), tmp_path / "ds", voxel_size=SIZE, layer_name="cells",
        category="segmentation", progress=False,
    )  # fmt: skip
    check(tmp_path / "ds", expected, layer="cells")


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_cubes_of_zeros_are_not_there(tmp_path, compression):
    expected = np.zeros((1, 96, 64, 70), "uint8", order="F")
    expected[0, 40, 5, 66] = 9
    report = convert_images(
        save(tmp_path / "in", expected), tmp_path / "ds", voxel_size=SIZE, shard_shape=32,
        compression=compression, progress=False,
    )  # fmt: skip
    check(tmp_path / "ds", expected)
    assert report.cubes == 1
    assert (tmp_path / "ds/color/1/z2/y0/x1.wkw").exists()
    assert len(list((tmp_path / "ds/color/1").rglob("x*.wkw"))) == 1


def test_only_zeros(tmp_path):
    expected = np.zeros((1, 20, 20, 3), "uint8")
    report = convert_images(save(tmp_path / "in", expected), tmp_path / "ds", voxel_size=SIZE, progress=False)
    check(tmp_path / "ds", expected)  # the box grows all the same
    assert (report.cubes, report.maximum) == (0, 0)


def test_plain_cubes_stay_sparse(tmp_path):
    convert_images(
        save(tmp_path / "in", volume((1, 64, 64, 3))), tmp_path / "ds", voxel_size=SIZE, shard_shape=1024,
        progress=False,
    )  # fmt: skip
    cube = (tmp_path / "ds/color/1/z0/y0/x0.wkw").stat()
    assert cube.st_size == 16 + 1024**3
    assert cube.st_blocks * 512 < MIB


@pytest.mark.slow
def test_real_sections(tmp_path):
    if not VNC.is_dir():
        pytest.skip(f"{VNC} is not there")
    raw = np.stack([tifffile.imread(VNC / "raw" / f"{z:02}.tif").T for z in range(20)], -1)[None]
    names = [VNC / "labels" / f"labels{z:08}.png" for z in range(20)]
    labels = np.stack([np.asarray(Image.open(name)).T for name in names], -1)[None]
    convert_images(VNC / "raw", tmp_path / "ds", voxel_size=SIZE, compression="lz4", progress=False)
    convert_images(
        [VNC / "labels"], tmp_path / "ds", voxel_size=SIZE, layer_name="labels", category="segmentation",
        compression="lz4hc", shard_shape=256, progress=False,
    )  # fmt: skip
    check(tmp_path / "ds", raw)
    check(tmp_path / "ds", labels, layer="labels")
    dataset = wkdask.Dataset(tmp_path / "ds")
    assert dataset.get_segmentation_layer("labels").largest_segment_id == labels.max()
    assert dataset.get_layer("color").get_mag("1").spec.shard_shape == (256, 256, 256)


# --- how it runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [None, 40_000])
def test_each_image_is_decoded_once(tmp_path, monkeypatch, memory):
    expected = volume((1, 70, 45, 83))
    save(tmp_path / "in", expected)
    seen, decode = [], stack_module._decode
    monkeypatch.setattr(
        stack_module,
        "_decode",
        lambda file, pages, *more: seen.extend((file.path, k) for k in pages) or decode(file, pages, *more),
    )
    # little memory: a part is decoded in batches, which share chunks
    monkeypatch.setattr(job_module.LocalEngine, "task_memory", lambda self: memory)
    convert_images(
        tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, offset=(3, 4, 5), shard_shape=64, progress=False
    )
    assert len(seen) == len(set(seen)) == 83
    check(tmp_path / "ds", expected, (3, 4, 5))


def test_slabs_flow_and_leave(tmp_path, monkeypatch):
    # at no time more than two slabs of private cubes, and the tasks of a stage carry their own files only
    save(tmp_path / "in", volume((1, 40, 40, 160)))
    most, calls = [], []

    def listen(event):
        if isinstance(event, UnitDone):
            most.append(len(list((tmp_path / "ds/color/1/.wkdask").glob("*/slab-*"))))

    part = job_module.convert_part

    def spy(stack, first, private, folder, batches, threads, durable):
        calls.append((stack.stack.depth, first, batches[0].topleft.z, len(pickle.dumps(stack)), threads))
        return part(stack, first, private, folder, batches, threads, durable)

    monkeypatch.setattr(job_module, "convert_part", spy)
    monkeypatch.setattr(plan_module, "_SLAB_NBYTES", 0)  # one layer of cubes each
    starts = []
    convert_images(
        tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, shard_shape=32, compression="lz4",
        listeners=[listen, lambda event: starts.append(event) if isinstance(event, JobStarted) else None],
        progress=False,
    )  # fmt: skip
    assert max(most) == 2
    assert [call[:3] for call in sorted(calls, key=lambda call: call[2])] == [
        (32, 0, z) for z in range(0, 160, 32)
    ]
    assert all(size < 10_000 for *_, size, _ in calls)
    (started,) = starts
    assert started.units == len(most)
    assert started.action == "converting"


def test_few_parts_decode_with_all_threads(tmp_path, monkeypatch):
    import dask

    save(tmp_path / "in", volume((1, 40, 40, 40)))
    seen, read = [], images_module.Selection.read
    monkeypatch.setattr(
        images_module.Selection,
        "read",
        lambda self, *args, threads=1: seen.append(threads) or read(self, *args, threads=threads),
    )
    with dask.config.set(num_workers=6):
        convert_images(tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, progress=False)
    assert seen == [3, 3]


def test_a_second_layer_beside_the_first(tmp_path):
    a, b = volume((1, 30, 20, 5)), volume((1, 20, 30, 6), "uint16")
    convert_images(save(tmp_path / "a", a), tmp_path / "ds", voxel_size=SIZE, progress=False)
    convert_images(
        save(tmp_path / "b", b), tmp_path / "ds", voxel_size=VoxelSize((4.6e-3, 4.6e-3, 45e-3), "µm"),
        layer_name="other", progress=False,
    )  # fmt: skip
    check(tmp_path / "ds", a)
    check(tmp_path / "ds", b, layer="other")


@pytest.mark.slow
@pytest.mark.cluster
def test_on_a_cluster(tmp_path):
    from distributed import Client, LocalCluster

    expected = volume((1, 150, 90, 131), "uint16")
    save(tmp_path / "in", expected)
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            # no dashboard, and any free port: None would want 8787, which another cluster may have
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
        ) as cluster,  # fmt: skip
        Client(cluster) as client,
    ):
        for name, compression in (("plain", None), ("packed", "lz4")):
            report = convert_images(
                tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, layer_name=name, shard_shape=64,
                offset=(10, 0, 50), compression=compression, client=client, progress=False,
            )  # fmt: skip
            check(tmp_path / "ds", expected, (10, 0, 50), name)
            assert report.bytes == expected.nbytes
        (tmp_path / "in/s70.tif").write_bytes(b"II*\0")
        with pytest.raises(ImageStackError, match=r"s70\.tif"):
            convert_images(
                tmp_path / "in",
                tmp_path / "ds",
                voxel_size=SIZE,
                layer_name="no",
                client=client,
                progress=False,
            )


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [(1, 71, 45, 1), (3, 70, 45, 1)])
def test_an_image_that_differs_is_refused_before_anything_is_written(tmp_path, other):
    save(tmp_path / "in", volume((1, 70, 45, 3)))
    image = np.ascontiguousarray(volume(other)[..., 0].T)
    tifffile.imwrite(tmp_path / "in/s1.tif", image if other[0] > 1 else image[..., 0])
    with pytest.raises(ImageStackError, match=r"s1\.tif"):
        convert_images(tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, progress=False)
    assert not (tmp_path / "ds").exists()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"category": "colour"}, InvalidValueError, "colour"),
        ({"layer_name": "a/b"}, InvalidValueError, "a/b"),
        ({"compression": "zip"}, InvalidValueError, "zip"),
        ({"shard_shape": 48}, InvalidValueError, "48"),
        ({"shard_shape": 96}, UnsupportedFormatError, "96"),
        ({"offset": (0, -1, 0)}, InvalidValueError, "negative"),
        ({"offset": (2**32 - 50, 0, 0)}, InvalidValueError, "2\\*\\*32"),
        ({"voxel_size": (1, 2)}, InvalidValueError, "three positive numbers"),
        ({"voxel_size": (1, 2, 0)}, InvalidValueError, "three positive numbers"),
    ],
)
def test_arguments_that_cannot_work_leave_nothing(tmp_path, options, error, words):
    save(tmp_path / "in", volume((1, 70, 45, 3)))
    with pytest.raises(error, match=words):
        convert_images(tmp_path / "in", tmp_path / "ds", **{"voxel_size": SIZE, "progress": False} | options)
    assert not (tmp_path / "ds").exists()


@pytest.mark.parametrize(("channels", "dtype"), [(3, "uint8"), (1, "float32")])
def test_what_cannot_be_ids_is_no_segmentation(tmp_path, channels, dtype):
    save(tmp_path / "in", volume((channels, 7, 4, 3), dtype))
    with pytest.raises(InvalidValueError, match=r"s0\.tif"):
        convert_images(
            tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, category="segmentation", progress=False
        )
    assert not (tmp_path / "ds").exists()


def test_what_is_there_stays(tmp_path):
    expected = volume((1, 30, 20, 5))
    save(tmp_path / "in", expected)
    convert_images(tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, progress=False)
    (tmp_path / "ds/stray").mkdir()
    (tmp_path / "ds/stray/file").write_text("mine")
    before = tree(tmp_path / "ds")
    with pytest.raises(AlreadyExistsError, match="color"):
        convert_images(tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, progress=False)
    with pytest.raises(AlreadyExistsError, match="stray"):
        convert_images(tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, layer_name="stray", progress=False)
    with pytest.raises(InvalidValueError, match=r"4\.6 × 4\.6 × 45 nm.*4 × 4 × 45 nm"):
        convert_images(
            tmp_path / "in", tmp_path / "ds", voxel_size=(4, 4, 45), layer_name="new", progress=False
        )
    with pytest.raises(AlreadyExistsError):
        convert_images(tmp_path / "in", tmp_path / "in", voxel_size=SIZE, progress=False)
    assert tree(tmp_path / "ds") == before
    check(tmp_path / "ds", expected)


def damage(path):
    """Leave the header as it is, but no pixels that can be decoded."""
    data = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        start, count = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    path.write_bytes(data[:start] + b"\xff" * count + data[start + count :])


def save_packed(folder, voxels):
    folder.mkdir()
    for z in range(voxels.shape[3]):
        tifffile.imwrite(folder / f"s{z}.tif", np.ascontiguousarray(voxels[0, ..., z].T), compression="zlib")
    return folder


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_a_damaged_image_in_the_middle(tmp_path, monkeypatch, compression):
    monkeypatch.setattr(plan_module, "_SLAB_NBYTES", 0)
    expected = volume((1, 40, 40, 130))
    damage(save_packed(tmp_path / "in", expected) / "s70.tif")
    with pytest.raises(TaskFailedError, match=r"s70\.tif") as caught:
        convert_images(
            tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, shard_shape=32, compression=compression,
            progress=False,
        )  # fmt: skip
    assert isinstance(caught.value.__cause__, ImageStackError)
    mag = wkdask.Dataset(tmp_path / "ds").get_layer("color").get_mag(1)
    assert np.array_equal(mag.read(), expected[..., :64])  # two slabs landed, and are in the box
    shutil.rmtree(tmp_path / "in")
    save_packed(tmp_path / "in", expected)  # the image is repaired
    decoded = []
    report = convert_images(
        tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, shard_shape=32, compression=compression,
        progress=False, resume=True,
        listeners=[lambda event: decoded.append(event.report.unit) if isinstance(event, UnitDone) else None],
    )  # fmt: skip
    assert all(unit.bottomright.z > 64 for unit in decoded)
    assert report.cubes == 2 * 2 * 5
    assert report.cubes_before == 2 * 2 * 2
    check(tmp_path / "ds", expected)


def test_damage_before_anything_landed_leaves_no_layer(tmp_path):
    expected = volume((1, 40, 40, 10))
    kept = save_packed(tmp_path / "in", expected) / "s7.tif"
    data = kept.read_bytes()
    damage(kept)
    with pytest.raises(TaskFailedError, match=r"s7\.tif"):
        convert_images(tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, progress=False)
    assert not (tmp_path / "ds").exists()
    kept.write_bytes(data)
    convert_images(tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, progress=False)
    check(tmp_path / "ds", expected)


def test_too_little_memory_is_refused(tmp_path, monkeypatch):
    save(tmp_path / "in", volume((1, 70, 45, 3)))
    monkeypatch.setattr(job_module.LocalEngine, "task_memory", lambda self: 4000)
    with pytest.raises(PlanError, match="one section of 70 x 45 voxels"):
        convert_images(tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, progress=False)
    monkeypatch.setattr(job_module.LocalEngine, "task_memory", lambda self: 100_000)
    with pytest.raises(PlanError, match="to publish a cube"):
        convert_images(tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, compression="lz4", progress=False)
    assert not (tmp_path / "ds").exists()


# --- the plan --------------------------------------------------------------------------------------------


def spec(side, compression=None, dtype="uint8"):
    return ArraySpec(dtype, 1, Vec3Int.full(32), Vec3Int.full(side), compression)


@pytest.mark.parametrize("offset", [0, 7, 1000, 1024])
@pytest.mark.parametrize("depth", [1, 31, 1024, 2100])
@pytest.mark.parametrize("side", [32, 256, 1024])
@pytest.mark.parametrize("threads", [1, 64])
def test_the_plan_covers_the_stack_once_on_the_grid(offset, depth, side, threads):
    box = BoundingBox((5, 0, offset), (3000, 2000, depth))
    plan = plan_conversion(spec(side), box, threads=threads, memory=80 * MIB)
    parts = [part for slab in plan.slabs for part in plan.parts(slab)]
    batches = [batch for part in parts for batch in plan.batches(part)]
    units = [unit for slab in plan.slabs for unit in plan.units(slab)]
    for pieces in (plan.slabs, parts, batches):
        assert [piece.topleft.z for piece in pieces[1:]] == [piece.bottomright.z for piece in pieces[:-1]]
        assert (pieces[0].topleft, pieces[-1].bottomright) == (box.topleft, box.bottomright)
    assert sum(unit.volume() for unit in units) == box.volume()
    assert all(part.topleft.z // 32 == (part.bottomright.z - 1) // 32 for part in parts)
    assert all(slab.bottomright.z % side == 0 for slab in plan.slabs[:-1])
    assert max(batch.size.z for batch in batches) * 6_000_000 < 80 * MIB


def test_a_slab_has_a_part_for_every_thread():
    box = BoundingBox((0, 0, 0), (6000, 6000, 20_000))
    assert plan_conversion(spec(1024), box, threads=16).slab_depth == 1024
    assert plan_conversion(spec(1024), box, threads=40).slab_depth == 1024  # 36 GB of private cubes already
    assert (
        plan_conversion(spec(1024), BoundingBox((0, 0, 0), (3000, 3000, 9000)), threads=40).slab_depth == 2048
    )
    assert plan_conversion(spec(32), box, threads=16).slab_depth >= 512


@pytest.mark.parametrize("compression", [None, "lz4", "lz4hc"])
def test_large_cubes_are_stored_part_by_part(compression):
    """8 GiB each, by workers of 2 GiB."""
    large = ArraySpec("uint64", 1, Vec3Int.full(32), Vec3Int.full(1024), compression)
    box = BoundingBox((0, 0, 0), (1024, 1024, 2048))
    assert plan_conversion(large, box, memory=2048 * MIB).write.box == box


def test_default_sides():
    assert default_shard_side((1024, 1024, 20), 1, None) == 1024
    assert default_shard_side((6000, 5000, 3000), 1, "lz4") == 1024
    assert default_shard_side((6000, 5000, 3000), 8, None) == 1024
    assert default_shard_side((6000, 5000, 3000), 8, "lz4") == 512
    # Of a compressed cube a quarter is the stack's, but for cubes of 16 MiB.
    assert default_shard_side((6000, 5000, 256), 1, "lz4") == 1024
    assert default_shard_side((6000, 5000, 255), 1, "lz4") == 512
    assert default_shard_side((1024, 1024, 20), 1, "lz4") == 256
    assert default_shard_side((1024, 1024, 20), 4, "lz4") == 128
    assert default_shard_side((70, 45, 3), 1, "lz4") == 128
    assert default_shard_side((3, 2, 1), 1, None) == 32
    assert default_shard_side((33, 2, 1), 1, None) == 64
    assert default_shard_side((3, 2, 65), 1, None) == 128
    assert default_shard_side((3, 2, 1), 1, None, chunk_side=64) == 64


# --- its parts in other modules --------------------------------------------------------------------------


def test_a_subset_holds_the_files_of_its_sections(tmp_path):
    expected = volume((1, 9, 8, 12))
    save(tmp_path / "in", expected[..., :5])
    tifffile.imwrite(tmp_path / "in/t.tif", expected[0].T[5:], photometric="minisblack")
    stack = open_stack([tmp_path / "in"])
    for start in range(12):
        for stop in range(start + 1, 13):
            part, first = stack.subset(start, stop)
            np.testing.assert_array_equal(part.read(first, first + stop - start), expected[..., start:stop])
            assert len(part.sections) == max(0, min(stop, 5) - start) + (stop > 5)


def test_private_cubes_are_shared_by_parts(tmp_path):
    store = WkwMag.create(str(tmp_path / "1"), spec(64, "lz4"))
    expected = volume((1, 64, 64, 64))
    with job_folder(store) as folder:
        private = store.staged(f"{folder}/slab-0", raw=True)
        assert private.spec.compression is None
        with pytest.raises(InvalidValueError, match="plainly"):
            store.write_in_place(BoundingBox((0, 0, 0), (64, 64, 64)), expected)
        for z in (32, 0):
            private.write_in_place(BoundingBox((0, 0, z), (64, 64, 32)), expected[..., z : z + 32])
        box = BoundingBox((0, 0, 0), (128, 64, 64))  # the second cube is empty
        for _ in range(2):  # a retry finds its own cube and publishes it again
            cubes, nbytes = publish_assembled(store, private, folder, box)
            assert cubes == 1
            assert nbytes == os.stat(store.cube_path(Vec3Int(0, 0, 0))).st_size
        np.testing.assert_array_equal(store.read(box)[:, :64], expected)
        assert not store.read(box)[:, 64:].any()
        remove_folder(private.path)  # a lost task comes to a slab that is done
        with pytest.raises(JobEndedError, match="published and removed"):
            publish_assembled(store, private, folder, box)
    nothing_left(store.path)
    # a task of a job that has ended neither writes nor publishes
    with pytest.raises(FileNotFoundError):
        private.write_in_place(BoundingBox((64, 0, 0), (64, 64, 64)), expected)
    with pytest.raises(JobEndedError):
        publish_assembled(store, private, folder, box)
    np.testing.assert_array_equal(store.read(box)[:, :64], expected)
    nothing_left(store.path)


def test_another_writers_voxels_in_a_cube_stay(tmp_path):
    store = WkwMag.create(str(tmp_path / "1"), spec(64))
    mine, theirs = volume((1, 64, 64, 40), seed=1), volume((1, 64, 64, 24), seed=2)
    with job_folder(store) as folder:
        private = store.staged(f"{folder}/slab-0", raw=True)
        box = BoundingBox((0, 0, 0), (64, 64, 40))
        private.write_in_place(box, mine)
        with wkw.Dataset.open(store.path) as other:
            other.write((0, 0, 40), theirs)
        publish_assembled(store, private, folder, box)
    whole = store.read(BoundingBox((0, 0, 0), (64, 64, 64)))
    np.testing.assert_array_equal(whole, np.concatenate([mine, theirs], axis=3))
