"""The command line: examples in every help, plain errors, and whole runs on a small dataset."""

import inspect
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from foreign_zarr import halved, image
from PIL import Image

import wkdask
from wkdask import BoundingBox, Dataset
from wkdask.cli import main
from wkdask.jobs.events import UnitDone

COMMANDS = sorted(main.commands)


@pytest.fixture
def dataset(tmp_path, random_voxels):
    ds = Dataset.create(tmp_path / "ds", (4, 4, 35))
    color = ds.add_layer("color", "color").add_mag(1, chunk_shape=16, shard_shape=64)
    color.write(random_voxels((1, 200, 150, 40)), offset=(10, 20, 30))
    cells = ds.add_layer("cells", "segmentation", dtype_per_channel="uint32")
    cells.add_mag(1, chunk_shape=16, shard_shape=64).write(
        np.asfortranarray(random_voxels((1, 200, 150, 40), "uint32") // 2**20), offset=(10, 20, 30)
    )
    return ds


def real(*arguments, cwd=None):
    """Run ``python -m wkdask`` as a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}
    command = [sys.executable, "-m", "wkdask", *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=cwd, timeout=120)


def error_line(output):
    """Return the one line that an error is."""
    (line,) = output.strip().splitlines()
    assert line.startswith("Error: ")
    return line


# --- help and mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda c: " ".join(c) or "main")
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_help_shows_an_example(invoke, command, option):
    text = invoke(*command, option)
    assert "Example:" in text
    examples = re.findall(r"^ +wkdask ([\w-]+)", text.split("Example:")[1], re.MULTILINE)
    assert examples
    assert {*examples} <= {*COMMANDS}
    if command:
        assert {*examples} == {*command}
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("command", [main, *map(main.commands.get, COMMANDS)], ids=lambda c: c.name)
def test_examples_are_lines_that_can_be_copied(invoke, command):
    # click rewraps a paragraph unless it begins with the character \b: not with a backslash and a b
    written = inspect.getdoc(command.callback).split("Example:\n")[1].splitlines()
    assert all(line.strip().startswith("wkdask ") for line in written)
    text = invoke(*([] if command is main else [command.name]), "-h")
    assert "\\b" not in text
    shown = text.split("  Example:\n")[1].split("\n\n")[0].splitlines()
    assert [line.strip() for line in shown] == [line.strip() for line in written]


def test_the_commands_are_these():
    assert {"convert", "demo", "downsample", "info", "preview"} <= {*COMMANDS}


def test_versions(invoke):
    assert wkdask.__version__ in invoke("--version")
    done = real("--version")
    assert (done.returncode, done.stdout.split()[-1], done.stderr) == (0, wkdask.__version__, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["info"],
        ["info", "a", "b"],
        ["info", "--nonsense", "a"],
        ["convert", "images"],
        ["convert", "images", "ds", "--voxel-size", "4,4"],
        ["convert", "images", "ds", "--voxel-size", "a,b,c"],
        ["convert", "images", "ds", "--voxel-size", "4,4,4", "--offset", "1.5,0,0"],
        ["convert", "images", "ds", "--voxel-size", "4,4,4", "--category", "other"],
        ["convert", "images", "ds", "--voxel-size", "4,4,4", "--bbox", "1,2,3"],
        ["convert", "images", "ds", "--voxel-size", "4,4,4", "--rescale", "1"],
        ["convert", "images", "ds", "--voxel-size", "4,4,4", "--data-format", "n5"],
        ["downsample", "ds", "--coarsest-mag", "3"],
        ["downsample", "ds", "--from-mag", "x"],
        ["downsample", "ds", "--sampling-mode", "x"],
        ["downsample", "ds", "--compression", "zip"],
        ["preview", "ds", "--max-side", "1"],
        ["convert", "images", "ds", "--voxel-size", "0,4,4"],
        ["convert", "images", "ds", "--voxel-size", "nan,4,4"],
        ["convert", "images", "ds", "--voxel-size", "4,4,4", "--offset", "-1,0,0"],
        ["convert", "images", "ds", "--voxel-size", "4,4,4", "--dtype", "unit8"],
        ["convert", "images", "ds", "--voxel-size", "4,4,4", "--shard-shape", "0"],
        ["convert", "images", "ds", "--voxel-size", "4,4,4", "--shard-shape", "100"],
        ["convert", "images", "ds", "--voxel-size", "4,4,4", "--chunk-shape", "33"],
        ["convert", "images", "ds", "--voxel-size", "4,4,4", "--compression", "gzip"],
        ["convert", "images", "ds", "--voxel-size", "4,4,4", "--dtype", "bool"],
        ["convert", "images", "ds", "--voxel-size", "4,4,4", "--layer", "a/b"],
        ["convert", "images", "ds", "--voxel-size", "4,4,4", "--page", "x"],
        ["convert-zarr", "array", "ds", "--voxel-size", "4,4,4", "--unit", "parsnip"],
        ["preview", "ds", "-o", "out.jpg"],
        ["copy", "ds", "new", "--bbox", "0,0,0,0,1,1"],
        ["downsample", "ds", "--interpolation-mode", "maxx"],
        ["downsample", "ds", "--report", "run.html"],
        ["downsample", "ds", "--scheduler", "nonsense://x:1"],
        ["downsample", "ds", "--scheduler", "host-without-port"],
        ["downsample", "ds", "--scheduler", "::"],
        ["plan", "ds", "--layer", "color", "--memory", "x"],
    ],
)
def test_mistakes_in_the_call_are_one_line(invoke, arguments):
    assert " -h" in error_line(invoke(*arguments, code=2))


def test_a_voxel_size_that_is_missing_is_asked_for(invoke, tmp_path):
    Image.fromarray(np.zeros((5, 5), "uint8")).save(tmp_path / "0.png")
    line = error_line(invoke("convert", tmp_path, tmp_path / "ds", code=2))
    assert "--voxel-size" in line
    assert " -h" in line
    assert not (tmp_path / "ds").exists()


def test_errors_are_one_line(invoke, dataset, tmp_path):
    absent, file = tmp_path / "absent", tmp_path / "file"
    file.write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "datasource-properties.json").write_text("{")
    for arguments, words in [
        (["info", absent], ["absent"]),
        (["info", file], ["file"]),
        (["info", tmp_path / "empty"], ["empty", "datasource-properties.json"]),
        (["info", tmp_path / "broken"], ["broken"]),
        (["info", ""], ["path"]),
        (["preview", absent], ["absent"]),
        (["preview", dataset.path, "--layer", "nonsense"], ["nonsense", "color"]),
        (["preview", dataset.path, "-o", tmp_path / "no" / "folder.png"], ["folder.png"]),
        (["preview", dataset.path, "-o", tmp_path / "folder.png"], ["is a folder"]),
        (["downsample", absent], ["absent"]),
        (["downsample", dataset.path, "--layer", "nonsense"], ["nonsense", "color"]),
        (["downsample", dataset.path, "--from-mag", "2"], ["mag"]),
        (["convert", absent, tmp_path / "new", "--voxel-size", "4,4,4"], ["absent"]),
        (["convert", tmp_path / "empty", tmp_path / "new", "--voxel-size", "4,4,4"], ["empty"]),
        (["convert", file, tmp_path / "new", "--voxel-size", "4,4,4"], ["file"]),
        (["copy", dataset.path, file / "x"], [str(file)]),
    ]:
        line = error_line(invoke(*arguments, code=1))
        assert all(word in line for word in words), line
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_real_run_has_no_traceback(tmp_path):
    done = real("info", tmp_path / "absent")
    assert (done.returncode, done.stdout) == (1, "")
    assert "absent" in error_line(done.stderr)
    done = real("nonsense")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


# --- whole runs -----------------------------------------------------------------------------------------


def test_info_lists_layers_and_mags(invoke, dataset):
    text = invoke("info", dataset.path)
    for word in ("color", "cells", "uint8", "uint32", "(10, 20, 30)", "16", "64"):
        assert word in text
    assert text.strip() == repr(dataset)
    done = real("info", "ds", cwd=Path(dataset.path).parent)
    assert done.stderr == ""
    assert "color" in done.stdout


def test_info_names_what_is_unfinished(invoke, dataset):
    def stop(event):
        if isinstance(event, UnitDone):
            raise KeyboardInterrupt

    color = dataset.get_layer("color")
    target = dataset.add_layer("new", "color").add_mag(1, chunk_shape=16, shard_shape=64)
    with pytest.raises(KeyboardInterrupt):
        target.write(255 - color.get_mag(1).to_dask(), bounding_box=color.bounding_box, progress=stop)
    with pytest.raises(KeyboardInterrupt):
        color.downsample(coarsest_mag=4, resume=True, progress=stop)
    text = invoke("info", dataset.path)
    (line,) = [line for line in text.splitlines() if "unfinished: writing" in line]
    assert "mag 1" in line
    assert any("mag 2-2-1" in line and "unfinished, and not listed yet" in line for line in text.splitlines())


def test_compress_tells_the_box_of_the_layer(invoke, dataset):
    text = invoke("compress", dataset.path, "--layer", "color")
    assert "(10, 20, 30) + (200, 150, 40)" in text
    assert "stored so already" in invoke("compress", dataset.path, "--layer", "color")


def test_downsample_checks_all_layers_before_the_first(invoke, dataset):
    """Bilinear is for images: the dataset has a segmentation too."""
    line = error_line(invoke("downsample", dataset.path, "--interpolation-mode", "bilinear", code=1))
    assert "segmentation" in line
    assert list(dataset.get_layer("color").mags) == [1]


def test_preview_of_a_damaged_cube_draws_the_others_and_fails(invoke, dataset, tmp_path):
    mag = dataset.get_layer("color").get_mag(1)
    for box in mag.cubes_on_disk():
        path = mag.place.store.cube_path(box.topleft // box.size)
        with open(path, "wb") as file:
            file.write(b"damaged")
    text = invoke("preview", dataset.path, "-o", tmp_path / "out.png", "--max-side", "64", code=1)
    assert "layer 'color' is not shown" in text
    assert ".wkw" in text
    assert (tmp_path / "out.png").stat().st_size > 0


def test_preview_draws_a_section(invoke, dataset, tmp_path):
    output = tmp_path / "picture.png"
    assert str(output) in invoke("preview", dataset.path, "-o", output, "--z", "40", "--max-side", "256")
    with Image.open(output) as image:
        both = image.size
        assert np.asarray(image.convert("L")).std() > 10
    invoke("preview", dataset.path, "-o", output, "--layer", "color", "--max-side", "256")
    with Image.open(output) as image:
        assert image.size[0] < both[0] or image.size[1] < both[1]


def test_downsample_makes_the_pyramid(invoke, dataset):
    text = invoke("downsample", dataset.path, "--coarsest-mag", "4-4-1", "--compression", "lz4hc")
    for name in ("color", "cells"):
        layer = dataset.get_layer(name)
        assert [str(mag) for mag in layer.mags] == ["1", "2-2-1", "4-4-1"]
        assert layer.get_mag("4-4-1").spec.compression == "lz4hc"
        assert layer.bounding_box == BoundingBox((10, 20, 30), (200, 150, 40))
        assert f"layer {name!r} mag 4-4-1" in text
    voxels = dataset.get_layer("cells").get_mag("2-2-1").read()
    assert voxels.any()
    text = invoke("downsample", dataset.path, "--from-mag", "4-4-1", "--layer", "color")
    assert "color" in text
    assert len(dataset.get_layer("cells").mags) == 3
    line = error_line(
        invoke("downsample", dataset.path, "--from-mag", "1", "--coarsest-mag", "2-2-1", code=1)
    )
    assert "already" in line


def test_compress_stores_the_cubes_otherwise(invoke, dataset):
    expected = dataset.get_layer("color").get_mag(1).read()
    path = dataset.get_layer("color").get_mag(1).path
    text = invoke("compress", str(dataset.path), "--layer", "color", "--mag", "1", "--compression", "lz4hc")
    assert "cubes" in text.lower()
    mag = wkdask.Dataset(dataset.path).get_layer("color").get_mag(1)
    assert (mag.path, mag.spec.compression) == (path, "lz4hc")
    np.testing.assert_array_equal(mag.read(), expected)
    assert "no layer" in invoke("compress", str(dataset.path), "--layer", "none", code=1).lower()


def test_downsample_without_compression_and_options(invoke, dataset):
    invoke(
        "downsample", dataset.path, "--layer", "color", "--coarsest-mag", "2", "--sampling-mode", "isotropic",
        "--interpolation-mode", "max", "--compression", "none",
    )  # fmt: skip
    layer = dataset.get_layer("color")
    assert layer.get_mag(2).spec.compression is None
    source = layer.get_mag(1).read()
    blocks = source.reshape((1, 100, 2, 75, 2, 20, 2))
    assert np.array_equal(layer.get_mag(2).read(), blocks.max(axis=(2, 4, 6)))
    assert list(dataset.get_layer("cells").mags) == [1]


def test_convert_reads_a_stack(invoke, tmp_path, random_voxels):
    voxels = random_voxels((1, 60, 40, 12))
    (tmp_path / "stack").mkdir()
    for z in range(12):
        tifffile.imwrite(tmp_path / "stack" / f"{z}.tif", voxels[0, :, :, z].T)
    out = tmp_path / "out"
    text = invoke("convert", tmp_path / "stack", out, "--voxel-size", "4.5,4.5,40", "--offset", "5,6,7")
    layer = Dataset(out).get_layer("color")
    assert np.array_equal(layer.get_mag(1).read(), voxels)
    assert layer.bounding_box == BoundingBox((5, 6, 7), (60, 40, 12))
    assert Dataset(out).scale == (4.5, 4.5, 40)
    assert layer.get_mag(1).spec.compression == "lz4"
    assert "layer 'color' mag 1" in text
    invoke(
        "convert", *sorted((tmp_path / "stack").iterdir())[:3], out, "--voxel-size", "4.5,4.5,40", "--layer",
        "labels", "--category", "segmentation", "--compression", "none", "--shard-shape", "64",
    )  # fmt: skip
    labels = Dataset(out).get_segmentation_layer("labels")
    assert (labels.get_mag(1).spec.shard_shape, labels.get_mag(1).spec.compression) == ((64, 64, 64), None)
    line = error_line(invoke("convert", tmp_path / "stack", out, "--voxel-size", "4.5,4.5,40", code=1))
    assert "color" in line


def make_stack(folder, voxels):
    folder.mkdir()
    for z in range(voxels.shape[3]):
        tifffile.imwrite(folder / f"{z}.tif", voxels[0, :, :, z].T)
    return folder


def test_convert_with_a_pyramid_and_again_to_resume(invoke, tmp_path, random_voxels):
    voxels = random_voxels((1, 60, 40, 12))
    stack, out = make_stack(tmp_path / "stack", voxels), tmp_path / "out"
    arguments = ("convert", stack, out, "--voxel-size", "4,4,40", "--compression", "none", "--downsample")
    text = invoke(*arguments)
    layer = Dataset(out).get_layer("color")
    assert sorted(map(str, layer.mags)) == ["1", "2-2-1", "4-4-1"]
    assert "mag 4-4-1" in text
    before = layer.get_mag("4-4-1").read()
    for again in (arguments, arguments[:-1]):  # all is done: nothing is converted, nothing computed
        text = invoke(*again, "--resume")
        assert "finished by an earlier run; nothing was done" in text
        assert text.count("Written") == 1
    assert np.array_equal(layer.get_mag("4-4-1").read(), before)
    other = make_stack(tmp_path / "other", 255 - voxels)
    for more in ((), ("--downsample",)):
        line = error_line(invoke("convert", other, out, *arguments[3:-1], *more, "--resume", code=1))
        assert "holds voxels" in line
    assert np.array_equal(layer.get_mag(1).read(), voxels)


def test_downsample_again_and_otherwise(invoke, dataset):
    arguments = ("downsample", dataset.path, "--layer", "color", "--from-mag", "1", "--coarsest-mag", "4")
    invoke(*arguments)
    before = dataset.get_layer("color").get_mag("2-2-1").read()
    text = invoke(*arguments, "--resume")
    assert text.count("finished by an earlier run; nothing was done") == 2
    for more in ((), ("--resume", "--interpolation-mode", "max")):
        assert "--overwrite" in error_line(invoke(*arguments, *more, code=1))
    assert np.array_equal(dataset.get_layer("color").get_mag("2-2-1").read(), before)
    invoke(*arguments, "--overwrite", "--resume", "--interpolation-mode", "max")
    assert (dataset.get_layer("color").get_mag("2-2-1").read() >= before).all()


def test_convert_a_part_in_another_type_and_format(invoke, tmp_path, random_voxels):
    voxels = random_voxels((1, 60, 40, 12), "uint16")
    stack, out = make_stack(tmp_path / "stack", voxels), tmp_path / "out"
    part = ("--bbox", "10,5,2,30,20,8", "--dtype", "uint8", "--rescale", "1000,60000")
    arguments = ("convert", stack, out, "--voxel-size", "4,4,40", *part, "--data-format", "zarr3")
    text = invoke(*arguments, "--chunk-shape", "16", "--shard-shape", "32,32,16", "--plan")
    assert "of (32, 32, 16) voxels" in text
    assert not out.exists()
    invoke(*arguments, "--chunk-shape", "16", "--shard-shape", "32,32,16", "--downsample")
    layer = Dataset(out).get_layer("color")
    assert layer.bounding_box == BoundingBox((10, 5, 2), (30, 20, 8))
    cut = voxels[:, 10:40, 5:25, 2:10].astype(float)
    expected = np.clip(np.rint((cut - 1000) * (255 / 59000)), 0, 255).astype("uint8")
    assert np.array_equal(layer.get_mag(1).read(), expected)
    spec = layer.get_mag(1).spec
    assert (spec.data_format, spec.chunk_shape, spec.shard_shape) == ("zarr3", (16, 16, 16), (32, 32, 16))
    assert spec.compression == "zstd"
    invoke("convert", stack, out, "--voxel-size", "4,4,40", "--layer", "plain", "--compression", "none")
    assert Dataset(out).get_layer("plain").get_mag(1).spec.compression is None
    line = error_line(
        invoke("convert", stack, tmp_path / "no", "--voxel-size", "4,4,40", "--dtype", "uint8", code=1)
    )
    assert "0.tif" in line
    assert "--rescale" in line
    assert not (tmp_path / "no").exists()


def test_convert_ome_zarr(invoke, tmp_path, random_voxels):
    voxels = random_voxels((3, 64, 48, 8))
    scales = [
        ((1, 1, 1), voxels),
        ((3, 3, 1), halved(voxels, (3, 3, 1))),
        ((2, 2, 1), halved(voxels, (2, 2, 1))),
    ]
    path, out = image(tmp_path / "i.ome.zarr", scales, voxel=(4.5, 4.5, 40)), tmp_path / "out"
    text = invoke("convert", path, out, "--plan")
    assert "mag 2-2-1 from 2" in text
    assert "layer 'color' mag 2-2-1\nBox      : (0, 0, 0) + (32, 24, 8)" in text
    assert "note: scale '1'" in text
    assert not out.exists()
    text = invoke("convert", path, out, "--chunk-shape", "16", "--shard-shape", "32", "--downsample")
    assert "Note: scale '1' of" in text
    layer = Dataset(out).get_layer("color")
    assert Dataset(out).scale == (4.5, 4.5, 40)
    assert sorted(map(str, layer.mags)) == ["1", "2-2-1", "4-4-1"]  # the last one is computed
    assert np.array_equal(layer.get_mag(1).read(), voxels)
    assert np.array_equal(layer.get_mag("2-2-1").read(), scales[2][1])
    assert layer.get_mag("4-4-1").read().any()
    again = invoke(
        "convert", path, out, "--chunk-shape", "16", "--shard-shape", "32", "--downsample", "--resume"
    )
    assert again.count("Written") == again.count("finished by an earlier run; nothing was done") == 2
    invoke(
        "convert",
        path / "0",
        out,
        "--voxel-size",
        "4.5,4.5,40",
        "--layer",
        "one",
        "--offset",
        "1,2,3",
        "--together",
    )
    assert Dataset(out).get_layer("one").bounding_box == BoundingBox((1, 2, 3), (64, 48, 8))
    for more, code, words in [
        (["--voxel-size", "4,4,4"], 1, "voxels of"),
        (["--dtype", "uint8", "--rescale", "0,9"], 2, "for image files only"),
        (["--layer", "color"], 1, "already"),
    ]:
        assert words in invoke("convert", path, out, "--layer", "other", *more, code=code)
    assert "alone" in invoke("convert", path, path, out, code=2)
    assert "Zarr and other arrays only" in invoke(
        "convert", tmp_path, out, "--voxel-size", "4,4,4", "--axes", "zyx", code=2
    )
    line = error_line(invoke("convert", path / "0", out, "--layer", "x", code=1))
    assert "--voxel-size" in line


def test_plans_are_printed_and_nothing_is_written(invoke, tmp_path, random_voxels):
    stack, out = make_stack(tmp_path / "stack", random_voxels((1, 60, 40, 12))), tmp_path / "out"
    text = invoke("convert", stack, out, "--voxel-size", "4,4,40", "--plan")
    assert "Cubes    : 1 of (64, 64, 64) voxels" in text
    assert not out.exists()
    invoke("convert", stack, out, "--voxel-size", "4,4,40")
    text = invoke("plan", out, "--layer", "color", "--shard-shape", "32", "--memory", "1GiB")
    assert "Cubes    : 4 of (32, 32, 32) voxels" in text
    assert "1 GiB are there" in text
    line = error_line(invoke("plan", out, "--layer", "color", "--memory", "10kB", code=1))
    assert "such as (32, 32, 32)" in line


# --- schedulers -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.cluster
def test_downsample_on_a_scheduler(dataset, local_cluster):
    done = real(
        "downsample", dataset.path, "--coarsest-mag", "2-2-1", "--scheduler", local_cluster.scheduler_address
    )
    assert done.returncode == 0, done.stderr
    assert local_cluster.scheduler_address in done.stderr
    assert "Traceback" not in done.stderr
    assert [str(mag) for mag in dataset.get_layer("cells").mags] == ["1", "2-2-1"]
    assert dataset.get_layer("color").get_mag("2-2-1").read().any()


@pytest.mark.cluster
@pytest.mark.slow  # ten seconds to be given up
def test_an_address_where_nobody_listens_is_a_clear_error(dataset):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    done = real("downsample", dataset.path, "--scheduler", address)
    assert done.returncode == 1
    assert address in error_line(done.stderr)
    assert done.stdout == ""
    assert list(dataset.get_layer("color").mags) == [1]


def test_downsample_over_mags_that_are_there(invoke, dataset):
    layer = dataset.get_layer("color")
    invoke("downsample", dataset.path)
    before = {mag: view.read() for mag, view in layer.mags.items()}
    coarser = layer.get_mag("2-2-1")
    coarser.write(np.zeros((1, 8, 8, 8), coarser.spec.dtype), offset=coarser.box.topleft)
    assert "nothing to do" in invoke("downsample", dataset.path)
    invoke("downsample", dataset.path, "--from-mag", "1", code=1)
    invoke("downsample", dataset.path, "--from-mag", "1", "--overwrite")
    assert all(np.array_equal(before[mag], view.read()) for mag, view in layer.mags.items())
