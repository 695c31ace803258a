"""Wrong command lines: each is refused in one line that names the remedy, and touches nothing."""

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from command_runner import runner

from wkdask import Dataset
from wkdask.cli import main

# Exit code 2: not understood, nothing touched; 1: the fault is in the data, or found in them.
LINES = [
    # commands
    (2, "infoo ds", "did you mean info"),
    (2, "downsampel ds", "did you mean downsample"),
    (2, "zebra", "there are demo"),
    (2, "--versoin", "--version"),
    (2, "-x", "-x"),
    # arguments
    (2, "info", "Usage: wkdask info"),
    (2, "info ds other", "Usage: wkdask info"),
    (2, "copy ds", "Usage: wkdask copy"),
    (2, "equal ds", "Usage: wkdask equal"),
    (2, "convert stack", "Usage: wkdask convert"),
    (2, "map ds ds", "Usage: wkdask map"),
    (2, "export ds", "Usage: wkdask export"),
    (2, "export ds out --layer color --format gif", "ome-tiff"),
    (2, "export ds out --layer color --layer cells", "once"),
    (2, "export ds a.tif --layer color --mag 1 --mag 2", "once"),
    (1, "export ds out --layer color", "--format"),
    (1, "export ds out --layer color --format png --name section.png", "{z}"),
    (1, "export ds a.npy --layer color --codec zstd", "--codec"),
    (1, "export ds a.tif --layer color --tile 20", "multiple of 16"),
    (1, "export ds nofolder/a.tif --layer color", "no folder"),
    (2, "convert a.raw new --voxel-size 4,4,4 --shape 3", "100,512,512"),
    (2, "convert stack new --voxel-size 4,4,4 --order F", "raw voxels"),
    (2, "upsample ds", "--from-mag"),
    # options
    (2, "info ds --laier color", "--layer"),
    (2, "downsample ds --shedule x", "--schedule"),
    (2, "downsample ds --coarsest 4", "--coarsest-mag"),
    (2, "info ds --layer", "requires an argument"),
    (2, "info ds --json=yes", "does not take a value"),
    (2, "preview ds --resume", "--resume"),
    (2, "info ds --workers 2", "--workers"),
    # numbers
    (2, "downsample ds --workers 0", "x>=1"),
    (2, "downsample ds --workers two", "integer"),
    (2, "downsample ds --workers 2 --memory lots", "such as 4GiB"),
    (2, "downsample ds --workers 2 --memory 0", "such as 4GiB"),
    (2, "plan ds --memory -1GiB", "such as 4GiB"),
    (2, "copy ds new --bbox 1,2,3", "0,0,10,512,512,20"),
    (2, "copy ds new --bbox 0,0,0,0,1,1", "no voxel"),
    (2, "copy ds new --shard-shape 1,2", "256 or 256,256,64"),
    (2, "copy ds new --shard-shape big", "256 or 256,256,64"),
    (2, "copy ds new --chunk-shape 0", "from 1 on"),
    (2, "downsample ds --from-mag 3", "power"),
    (2, "downsample ds --coarsest-mag x", "mag"),
    (2, "compress ds --mag 1-2", "mag"),
    (2, "preview ds --max-side 3", "x>=16"),
    (2, "view ds --port 99999", "1<=x<=65535"),
    (2, "view ds --expr invert", "filters:sharpen"),
    (1, "view ds --expr filters:inver", "it has invert"),
    (1, "view ds --layer colr", "'color'"),
    (1, "view ds --layer color --mag 8", "it has 1"),
    (1, "view nothere", "no dataset in the folder"),
    (2, "preview ds --z middle", "integer"),
    (2, "histogram ds --bins 0", "1<=x<="),
    (2, "histogram ds --workers 2", "--exact"),
    (1, "histogram ds --layer color --mag 2", "mag"),
    (2, "convert stack new --voxel-size 4,4", "4.6,4.6,45"),
    (2, "convert stack new --voxel-size 0,4,4", "above 0"),
    (2, "convert stack new --voxel-size 4,4,4 --offset -1,0,0", "from 0 on"),
    (2, "convert stack new --voxel-size 4,4,4 --rescale 9", "0,4095"),
    (2, "map filters:invert ds ds --layer color --target new --halo 1,2", "4 or 4,4,1"),
    (2, "map filters:invert ds ds --layer color --target new --retries -1", "x>=0"),
    (2, "map filters:invert ds ds --layer color --target new --part 9/8", "such as 3/8"),
    (2, "map filters:invert ds ds --layer color --target new --resource GPU", "such as GPU=1"),
    (2, "map filters:invert ds ds --layer color --target new --task-memory x", "such as 4GiB"),
    # words
    (2, "copy ds new --data-format n5", "zarr3"),
    (2, "copy ds new --compression zip", "lz4hc"),
    (2, "downsample ds --interpolation-mode mediann", "median"),
    (2, "downsample ds --sampling-mode round", "isotropic"),
    (2, "downsample ds --progress loud", "json"),
    (2, "convert stack new --voxel-size 4,4,4 --category blue", "segmentation"),
    (2, "convert stack new --voxel-size 4,4,4 --dtype unit8", "uint8"),
    (2, "convert stack new --voxel-size 4,4,4 --layer a/b", "a/b"),
    (2, "convert stack new --voxel-size 4,4,4 --page x", "page"),
    (2, "convert stack new --voxel-size 4,4,4 --gaps fill", "keep"),
    (2, "convert-zarr array new --voxel-size 4,4,4 --unit parsnip", "nanometer"),
    (2, "convert-zarr array new --voxel-size 4,4,4 --flip-axes 1", "flip the array"),
    (2, "map filters ds ds --layer color --target new", "filters:sharpen"),
    (2, "map filters:invert ds ds --layer color --target new --boundary mirror", "reflect"),
    (2, "preview ds -o picture.jpg", "PNG"),
    # what does not go together
    (2, "downsample ds --scheduler tcp://a:1 --workers 2", "one of them"),
    (2, "downsample ds --memory 4GiB", "--workers 4 --memory 4GiB"),
    (2, "downsample ds --scheduler tcp://a:1 --memory 4GiB", "leave out --memory"),
    (2, "downsample ds --report run.html", "--scheduler or --workers"),
    (2, "downsample ds --scheduler head", "tcp://head:8786"),
    (2, "downsample ds --quiet --progress json", "one of them"),
    (2, "convert stack new", "--voxel-size 4.6,4.6,45"),
    (1, "convert nowhere.zarr new", "no such file or folder"),
    (1, "convert s3://bucket/a.zarr new", "is a URL"),
    (2, "convert stack new --voxel-size 4,4,4 --axes xyz", "for Zarr and other arrays only"),
    (2, "convert array new --voxel-size 4,4,4 --gaps keep", "for image files only"),
    (2, "convert array array new --voxel-size 4,4,4", "alone"),
    (2, "convert stack new --voxel-size 4,4,4 --compression zstd", "lz4"),
    (2, "convert stack new --voxel-size 4,4,4 --shard-shape 100", "100"),
    (2, "convert stack new --voxel-size 4,4,4 --chunk-shape 33", "33"),
    (2, "rechunk ds", "--shard-shape 512"),
    (2, "map filters:invert ds ds --target new", "--layer"),
    (2, "map filters:invert ds ds --layer color --layer cells --target new", "once"),
    (2, "map filters:invert ds ds --layer color --target new --mag 1 --mag 2", "once"),
    # what the layers that are there cannot be
    (2, "copy ds new --shard-shape 100", "layer 'color' mag 1"),
    (2, "copy ds new --compression zstd", "lz4"),
    (2, "plan ds --shard-shape 100", "100"),
    (2, "downsample ds --shard-shape 32,32,16", "power"),
    (2, "downsample ds --compression gzip", "lz4"),
    (2, "upsample ds --from-mag 1 --chunk-shape 5", "multiple"),
    (2, "rechunk ds --shard-shape 8,8,4", "power"),
    (2, "compress ds --compression zstd", "lz4"),
    (2, "map filters:invert ds ds --layer color --target new --shard-shape 100", "--shard-shape"),
    # what is not there, or is there already
    (1, "info nowhere", "nowhere"),
    (1, "info stack", "datasource-properties.json"),
    (1, "info ds --layer colour", "color"),
    (1, "plan ds --mag 8", "mag"),
    (1, "preview ds -o nofolder/a.png", "make the folder"),
    (1, "preview ds -o stack.png", "name of a file"),
    (1, "copy ds ds", "into itself"),
    (1, "copy ds file/x", "file"),
    (1, "copy ds new --bbox 9000,0,0,1,1,1", "touches no layer"),
    (1, "copy ds other", "not an empty folder"),
    (2, "equal ds nowhere", "nowhere"),
    (2, "equal ds other --layer nobody", "nobody"),
    (1, "convert nowhere new --voxel-size 4,4,4", "nowhere"),
    (1, "convert file new --voxel-size 4,4,4", "file"),
    (1, "convert stack ds --voxel-size 4,4,35", "already"),
    (1, "convert stack ds --voxel-size 4,4,4 --layer new", "voxel"),
    (1, "convert array new --voxel-size 4,4,4 --axes xy", "axes"),
    (1, "downsample ds --layer color --from-mag 2", "mag"),
    (1, "downsample ds --interpolation-mode bilinear", "segmentation"),
    (1, "upsample ds --layer color --from-mag 1", "--finest-mag"),
    (1, "map nothing:there ds ds --layer color --target new", "cannot be imported"),
    (1, "map filters:there ds ds --layer color --target new", "it has invert"),
    (1, "map filters:invert ds ds --layer color --target color", "--overwrite"),
    (1, "map filters:invert ds ds --layer color --target cells --dtype uint8", "for a new layer"),
    (1, "map filters:invert ds ds --layer color --target new --part 90/90", "parts only"),
    (1, "map filters:invert ds ds --layer color --target new --boundary 300", "uint8"),
    (1, "map filters:invert ds nowhere --layer color --target new", "nowhere"),
    (1, "copy-dataset ds other --exists-ok", "delete it there"),
    (1, "demo ds", "another path"),
    (1, "demo file/x", "file"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that no wrong command line changes."""
    folder = tmp_path_factory.mktemp("wrong")
    voxels = np.random.default_rng(0).integers(1, 255, (50, 40, 30), np.uint8)
    for name in ("ds", "other"):
        ds = Dataset.create(folder / name, (4, 4, 35))
        ds.add_layer("color", "color").add_mag(1, chunk_shape=16, shard_shape=32).write(
            np.asfortranarray(voxels), offset=(0, 0, 0)
        )
    Dataset(folder / "ds").add_layer("cells", "segmentation", dtype_per_channel="uint32").add_mag(
        1, chunk_shape=16, shard_shape=32
    ).write(np.asfortranarray(voxels.astype("uint32")))
    (folder / "stack").mkdir()
    for z in range(3):
        tifffile.imwrite(folder / "stack" / f"{z}.tif", voxels[:, :, z].T)
    zarr.create_array(folder / "array", shape=(4, 3, 2), chunks=(4, 3, 2), dtype="uint8", zarr_format=3)[
        ...
    ] = 3
    (folder / "filters.py").write_text("def invert(block):\n    return 255 - block\n")
    (folder / "file").write_text("x")
    (folder / "stack.png").mkdir()
    return folder


def snapshot(folder):
    """Return what there is: paths, sizes, times of change; byte code of the filters does not count."""
    return sorted(
        (str(path), path.is_file() and (path.stat().st_size, path.stat().st_mtime_ns))
        for path in Path(folder).rglob("*")
        if "__pycache__" not in path.parts
    )


def test_there_are_enough():
    assert len(LINES) >= 110
    assert len({line for _, line, _ in LINES}) == len(LINES)


@pytest.mark.parametrize(("code", "line", "remedy"), LINES, ids=[line for _, line, _ in LINES])
def test_a_wrong_line(folder, monkeypatch, code, line, remedy):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = snapshot(folder)
    try:
        done = runner().invoke(main, shlex.split(line))
    finally:
        sys.modules.pop("filters", None)
    assert done.exit_code == code, (done.output, done.exception)
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.stdout == ""
    (told,) = done.stderr.splitlines()
    assert told.startswith("Error: ")
    assert remedy in told
    assert (" -h" in told) == (code == 2 and not line.startswith("equal ds n") and "nobody" not in line)
    assert snapshot(folder) == before
