"""Files and folders of images: what is no file, names that are not UTF-8, what is left out, what is told."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiff_files import random_image, write_reversed

import wkdask
from wkdask.convert.images import convert_images, plan_images
from wkdask.errors import ImageStackError, InvalidValueError, TaskFailedError, WkdaskWarning
from wkdask.external.images.selection import open_images
from wkdask.external.images.stack import open_stack

SIZE = ("--voxel-size", "4,4,40")


def refused(path, *words):
    with pytest.raises(ImageStackError) as caught:
        open_stack(path)
    for word in words:
        assert str(word) in str(caught.value)


def run(*arguments, code=0):
    """Run the command; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "wkdask", *arguments], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def stack(tmp_path):
    """Three sections of five, and a file of notes."""
    (tmp_path / "in").mkdir()
    for number in (1, 2, 5):
        image = np.full((9, 13), number, "uint8")
        tifffile.imwrite(tmp_path / f"in/s_{number:02}.tif", image, extratags=[(274, 3, 1, 3, True)])
    (tmp_path / "in/about.txt").touch()
    return tmp_path / "in"


# ---- what is no file


@pytest.mark.timeout(30)
@pytest.mark.parametrize("given", ["file", "folder"])
def test_a_pipe_is_not_waited_for(tmp_path, given):
    os.mkfifo(tmp_path / "x.tif")
    refused(tmp_path / "x.tif" if given == "file" else tmp_path, "x.tif: is a named pipe")


@pytest.mark.timeout(30)
def test_a_pipe_behind_a_link_among_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "in").mkdir()
    for name in ("0.tif", "1.tif", "3.tif"):
        tifffile.imwrite(tmp_path / "in" / name, np.ones((4, 4), "uint8"))
    (tmp_path / "in/2.tif").symlink_to(tmp_path / "pipe")
    refused(tmp_path / "in", tmp_path / "in/2.tif", "named pipe")


def test_devices_and_sockets(tmp_path):
    (tmp_path / "x.tif").symlink_to("/dev/zero")
    refused(tmp_path, "x.tif: is a device")
    (tmp_path / "x.tif").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket is short
        try:
            server.bind("x.tif")
        finally:
            os.chdir(here)
        refused(tmp_path, "x.tif: is a socket")


def test_a_broken_link_has_its_own_name(tmp_path):
    (tmp_path / "x.tif").symlink_to("/nowhere/else.dat")
    for path in (tmp_path, tmp_path / "x.tif"):
        refused(path, tmp_path / "x.tif", "is a link to /nowhere/else.dat", "No such file")
    (tmp_path / "x.tif").unlink()
    (tmp_path / "x.tif").symlink_to("x.tif")
    refused(tmp_path, "x.tif: is a link to x.tif", "symbolic links")


# ---- names that are not UTF-8


@pytest.fixture
def odd(tmp_path):
    """A folder and files whose names are not UTF-8, one of them missing."""
    folder = os.path.join(os.fsencode(tmp_path), b"f\xff\xfe")
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    for number in (1, 2, 4):
        path = os.path.join(folder, b"s\xe4_%d.tif" % number)
        tifffile.imwrite(os.fsdecode(path), np.full((9, 13), number, "uint8"))
    return os.fsdecode(folder)


def test_names_that_are_not_utf8(tmp_path, odd):
    with pytest.warns(WkdaskWarning, match=r"3 between s\\xe4_2\.tif and s\\xe4_4\.tif"):
        convert_images(odd, tmp_path / "ds", voxel_size=(1, 1, 1), progress=False)
    found = wkdask.Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read()
    assert found[0, 0, 0].tolist() == [1, 2, 4]
    one = os.path.join(odd, os.fsdecode(b"s\xe4_2.tif"))
    convert_images(one, tmp_path / "ds", voxel_size=(1, 1, 1), layer_name="one", progress=False)
    assert wkdask.Dataset(tmp_path / "ds").get_layer("one").get_mag(1).read().max() == 2


@pytest.mark.slow
def test_the_command_and_names_that_are_not_utf8(tmp_path, odd):
    plan, _ = run("convert", odd, tmp_path / "ds", *SIZE, "--plan")
    assert "from s\\xe4_1.tif to s\\xe4_4.tif" in plan
    assert not (tmp_path / "ds").exists()
    _, told = run("convert", odd, tmp_path / "ds", *SIZE, "--gaps", "keep")
    assert "from s\\xe4_1.tif to s\\xe4_4.tif" in told
    assert wkdask.Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read()[0, 0, 0].tolist() == [
        1,
        2,
        0,
        4,
    ]


def test_damage_in_a_file_whose_name_is_not_utf8(tmp_path, odd):
    path = os.path.join(odd, os.fsdecode(b"s\xe4_2.tif"))
    image = random_image((64, 64), "uint8")
    for number in (1, 2, 4):
        Image.fromarray(image).save(os.path.join(odd, os.fsdecode(b"t%d.png" % number)))
        os.remove(os.path.join(odd, os.fsdecode(b"s\xe4_%d.tif" % number)))
    path = os.path.join(odd, "t2.png")
    with open(path, "r+b") as file:
        file.seek(200)
        file.write(b"damage")
    with (
        pytest.warns(WkdaskWarning, match="3 between"),
        pytest.raises(TaskFailedError, match=r"f\\xff\\xfe/t2\.png"),
    ):
        convert_images(odd, tmp_path / "ds", voxel_size=(1, 1, 1), progress=False)
    assert not (tmp_path / "ds").exists(), "nothing landed: the same call can be made again"


def test_a_dataset_whose_name_is_not_utf8(tmp_path, stack):
    target = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"ds\xff"))
    for more in ((), ("--plan",)):
        _, told = run("convert", stack, target, *SIZE, *more, code=1)
        assert "valid Unicode" in told
    assert not os.path.exists(target)


# ---- what is told


@pytest.mark.slow
def test_the_run_and_the_plan_tell_the_same_once(tmp_path, stack):
    plan, nothing = run("convert", stack, tmp_path / "ds", *SIZE, "--plan")
    assert nothing == ""
    printed, told = run("convert", stack, tmp_path / "ds", *SIZE)
    for text in (
        "Images: 3 section(s) of 3 files, from s_01.tif to s_05.tif",
        "of the numbers in the names 2 are missing: 3 to 4 between s_02.tif and s_05.tif",
        "1 file(s) have other suffixes than images (.txt) and are left out",
        "3 files, the first is",
        "its orientation tag says 3 (rotated by 180 degrees)",
    ):
        assert plan.count(text) == told.count(text) == 1
        assert text not in printed


@pytest.mark.slow
def test_a_refusal_is_one_line(tmp_path, stack):
    run("convert", stack, tmp_path / "ds", *SIZE)
    _, told = run("convert", stack, tmp_path / "ds", *SIZE, code=1)
    assert told.count("\n") == 1
    _, told = run("convert", stack, tmp_path / "new", *SIZE, "--gaps", "refuse", code=1)
    assert told.startswith("Error: of the numbers")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_options_of_the_command(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", random_image((6, 9, 13), "uint8"), photometric="minisblack",
                     extratags=[(274, 3, 1, 6, False)])  # fmt: skip
    run("convert", tmp_path / "a.tif", tmp_path / "ds", *SIZE, "--page", "2-:2", "--orient")
    found = wkdask.Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read()
    expected = np.rot90(random_image((6, 9, 13), "uint8")[1::2], -1, (1, 2))
    np.testing.assert_array_equal(found[0].T, expected)
    for options in (("--series", "2"), ("--page", "7")):
        _, told = run("convert", tmp_path / "a.tif", tmp_path / "no", *SIZE, *options, code=1)
        assert "was asked for" in told
    text, _ = run("convert", "-h")
    for option in (
        "--gaps [close|keep|refuse]",
        "--page PAGES",
        "--series",
        "--orient",
        "--tiles [refuse|join|sections]",
    ):
        assert option in text
    assert "--gaps keep --dry-run" in text


def test_choices_of_images_that_are_opened_already(tmp_path, stack):
    source = open_images(stack, gaps="keep")
    assert source.depth == 5
    convert_images(source, tmp_path / "ds", voxel_size=(1, 1, 1), progress=False)  # warns of nothing
    assert plan_images(source).plan.box.size == (13, 9, 5)
    for choice in (
        {"gaps": "refuse"},
        {"orient": True},
        {"page": 1},
        {"dtype": "uint8"},
        {"tiles": "sections"},
    ):
        with pytest.raises(InvalidValueError, match=next(iter(choice))):
            convert_images(source, tmp_path / "no", voxel_size=(1, 1, 1), progress=False, **choice)
    assert not (tmp_path / "no").exists()


SHOWN = {
    "grey": ("uint8", 1, "color", None),
    "16 bits": ("uint16", 1, "color", None),
    "float": ("float32", 1, "color", None),
    "signed": ("int32", 1, "color", None),
    "rgb": ("uint8", 3, "color", None),
    "rgb of 16 bits": ("uint16", 3, "color", "3 channels of uint16"),
    "rgb of floats": ("float32", 3, "color", "3 channels of float32"),
    "rgb of signed": ("int8", 3, "color", "3 channels of int8"),
    "double": ("float64", 1, "color", "float64"),
    "64 bits": ("uint64", 1, "color", "uint64"),
    "signed 64 bits": ("int64", 1, "color", "int64"),
    "ids of 64 bits": ("uint64", 1, "segmentation", None),
}


@pytest.mark.parametrize(("dtype", "channels", "category", "text"), SHOWN.values(), ids=SHOWN)
def test_what_webknossos_does_not_show(tmp_path, dtype, channels, category, text, recwarn):
    image = np.ones((9, 13, 3) if channels == 3 else (9, 13), dtype)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb" if channels == 3 else "minisblack")
    convert_images(tmp_path, tmp_path / "ds", voxel_size=(1, 1, 1), category=category, progress=False)
    told = [str(warning.message) for warning in recwarn.list if warning.category is WkdaskWarning]
    assert len(told) == (text is not None)
    assert all(text in note and "--rescale" in note for note in told)
    if text is not None:  # what is advised works
        options = {"dtype": "uint8", "rescale": (0, 255), "layer_name": "shown"}
        convert_images(tmp_path / "a.tif", tmp_path / "ds", voxel_size=(1, 1, 1), progress=False, **options)
        assert len(recwarn.list) == 1


# ---- the plan of a part of a large image


def test_a_box_of_a_large_image_is_planned_by_what_is_read(tmp_path):
    """100 000 x 60 000 pixels, of which only tiles of the box are in the file: others are one tile of zeros."""
    side, path = 512, tmp_path / "large.tif"
    across, down = -(-100_000 // side), -(-60_000 // side)
    tifffile.imwrite(
        path, iter([np.full((side, side), 7, "uint16")]), shape=(side, side), dtype="uint16", tile=(side, side),
        bigtiff=True, compression="zlib", metadata=None,
    )  # fmt: skip
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[0], page.databytecounts[0]
        page.tags[324].overwrite([offset] * (across * down))
        page.tags[325].overwrite([count] * (across * down))
        page.tags[256].overwrite(100_000)
        page.tags[257].overwrite(60_000)
    box = wkdask.BoundingBox((50_000, 30_000, 0), (10, 10, 1))
    source = open_images(path, bbox=box)
    assert source.image_nbytes <= 2 * 2 * side**2
    import wkdask.external.images.job as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.LocalEngine, "task_memory", lambda self: 20 << 20)
        assert plan_images(source).plan.box.size == (10, 10, 1)
        convert_images(source, tmp_path / "ds", voxel_size=(1, 1, 1), progress=False)
    assert (wkdask.Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read() == 7).all()


def test_reversed_bits_become_a_layer(tmp_path):
    sections = random_image((5, 40, 37), "uint16")
    for number, section in enumerate(sections):
        write_reversed(tmp_path / f"{number}.tif", section, byteorder=">")
    convert_images(tmp_path, tmp_path / "ds", voxel_size=(1, 1, 1), progress=False)
    found = wkdask.Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read()
    np.testing.assert_array_equal(found[0].T, sections)
