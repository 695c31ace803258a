"""One command line: all commands have the same options, answer as JSON, and import only what they need."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import dask
import numpy as np
import pytest
import tifffile
import zarr
from command_runner import runner
from repository import ROOT

import wkdask
from wkdask import Dataset, testing
from wkdask.cli import main, types
from wkdask.cli.options import SHARED, SharedCommand
from wkdask.jobs.events import UnitDone
from wkdask.kernels.sampling import MODES
from wkdask.storage.formats import DATA_FORMATS
from wkdask.storage.protocol import COMPRESSIONS, ZARR_COMPRESSIONS

COMMANDS = sorted(main.commands)
PAGE = (ROOT / "docs" / "commands.md").read_text()
PRINTING = {"json", "progress", "quiet", "verbose"}
TASKS = {"scheduler", "workers", "memory", "report"}
WITHOUT_TASKS = {"demo", "info", "preview"}
NEW_LAYER = {"convert", "convert-zarr"}
"""Their --layer names a layer that they make."""


def shared_params(command):
    return {param.name: param for param in command.params if param.name in SHARED}


# --- options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_a_shared_option_has_one_name_one_type_and_one_text(name):
    command = main.commands[name]
    assert isinstance(command, SharedCommand)
    for field, param in shared_params(command).items():
        like = SHARED[field]()
        facts = [
            (
                each.opts,
                each.secondary_opts,
                each.help,
                each.is_flag,
                each.multiple,
                each.default,
                each.metavar,
            )
            for each in (param, like)
        ]
        assert facts[0] == facts[1]
        assert param.type is like.type or param.type.to_info_dict() == like.type.to_info_dict()
    spellings = {opt: field for field, make in SHARED.items() for opt in make().opts}
    for param in command.params:
        for opt in param.opts:
            if opt in spellings and param.name != spellings[opt]:
                assert (param.name, name in NEW_LAYER) == ("layer_name", True)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_how_it_prints_and_runs(name):
    fields = {*shared_params(main.commands[name])}
    assert fields >= PRINTING
    assert (fields >= TASKS) == (name not in WITHOUT_TASKS)


def test_options_are_where_they_make_sense():
    found = {
        field: {name for name in COMMANDS if field in shared_params(main.commands[name])} for field in SHARED
    }
    layered = {*COMMANDS} - {"demo", "convert", "convert-zarr", "copy-dataset"}
    assert found["layers"] == layered
    assert found["mags"] == {"plan", "map", "compress", "rechunk", "view", "histogram", "export"}
    assert found["bbox"] == {"plan", "map", "convert", "copy", "view", "histogram", "export"}
    assert found["resume"] == {"convert", "copy", "map", "downsample", "compress", "export"}
    assert found["overwrite"] == {"demo", "map", "downsample", "export"}
    assert found["dry_run"] == {
        *("convert", "copy", "map", "downsample", "upsample", "compress", "rechunk", "export")
    }
    cut = {
        "convert",
        "convert-zarr",
        "copy",
        "copy-dataset",
        "map",
        "plan",
        "downsample",
        "upsample",
        "rechunk",
    }
    assert found["shard_shape"] == found["chunk_shape"] == cut


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_understood(name):
    command = main.commands[name]
    lines = re.findall(rf"^ *wkdask {name} (.+)$", command.help.split("Example:")[1], re.MULTILINE)
    assert lines
    for line in lines:
        with click.Context(main) as above:
            command.make_context(name, shlex.split(line), parent=above)


@pytest.mark.parametrize(
    "line",
    [
        "map f:g a b --layer x --target y --box 0,0,0,1,1,1 --task-memory 1GiB --shard-shape 64",
        "convert a b --plan",
        "copy a b --plan --layer-name x",
        "downsample a --layer-name x --jobs 3",
        "plan a --shard-shape 64",
    ],
)
def test_old_spellings_are_understood_and_not_shown(line):
    name, *arguments = shlex.split(line)
    command = main.commands[name]
    with click.Context(main) as above:
        context = command.make_context(name, arguments, parent=above)
    assert not {"--box", "--plan", "--layer-name"} & {*command.get_help(context).split()}


def test_the_list_of_commands_says_what_they_say():
    listed = {name: line for section in main.sections.values() for name, line in section.items()}
    assert {*listed} == {*COMMANDS}
    folder = Path(wkdask.__file__).parent / "cli"
    for name in COMMANDS:
        assert (folder / f"{name.replace('-', '_')}.py").exists()
    for name, line in main.sections["Commands"].items():
        first = main.commands[name].help.splitlines()[0]
        assert first.removesuffix(".").startswith(line.removesuffix(".")), name


def test_choices_are_those_of_the_library():
    assert (*types.DATA_FORMAT.choices,) == DATA_FORMATS
    assert {*types.COMPRESSION.choices} == {"none", *filter(None, COMPRESSIONS), *ZARR_COMPRESSIONS}
    assert {*types.INTERPOLATION.choices} - {"default"} == {*MODES}


# --- what is imported -----------------------------------------------------------------------------------


SCRIPT = """
import sys
from wkdask.cli import main
for arguments in (["--version"], ["-h"], *([name, "-h"] for name in main.commands)):
    main(arguments, standalone_mode=False)
    ours = sorted(name for name in sys.modules if name.startswith("wkdask."))
    heavy = [name for name in ("numpy", "dask", "numba", "zarr", "distributed", "rich") if name in sys.modules]
    light = ("wkdask.cli", "wkdask.errors", "wkdask.portable")
    print(*arguments, *heavy, *(name for name in ours if not name.startswith(light)), file=sys.stderr)
"""


def test_a_help_imports_the_command_line_only():
    env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stderr.split() == [
        "--version",
        "-h",
        *(word for name in main.commands for word in (name, "-h")),
    ]


def test_shell_completion_knows_commands_and_options():
    from click.shell_completion import ShellComplete

    completion = ShellComplete(main, {}, "wkdask", "_WKDASK_COMPLETE")
    assert [item.value for item in completion.get_completions([], "down")] == ["downsample"]
    assert [item.value for item in completion.get_completions(["copy", "a", "b"], "--data")] == [
        "--data-format"
    ]
    formats = [item.value for item in completion.get_completions(["copy", "a", "b", "--data-format"], "z")]
    assert formats == ["zarr3", "zarr"]


# --- answers --------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch, random_voxels):
    """A folder with a dataset, images, an array and a module of filters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    ds = Dataset.create("ds", (4, 4, 35))
    voxels = random_voxels((1, 100, 60, 40))
    ds.add_layer("color", "color").add_mag(1, chunk_shape=16, shard_shape=64).write(voxels, offset=(8, 16, 0))
    Dataset.create("coarse", (4, 4, 4)).add_layer("color", "color").add_mag(
        2, chunk_shape=16, shard_shape=32
    ).write(random_voxels((16, 16, 16)))
    (tmp_path / "stack").mkdir()
    for z in range(4):
        tifffile.imwrite(tmp_path / "stack" / f"{z}.tif", voxels[0, :, :, z].T)
    zarr.create_array("array", shape=(40, 30, 20), chunks=(40, 30, 20), dtype="uint8", zarr_format=3)[...] = 3
    (tmp_path / "filters.py").write_text("def invert(block):\n    return 255 - block\n")
    yield tmp_path
    sys.modules.pop("filters", None)


LINES = {
    "info": ["info ds"],
    "preview": ["preview ds -o a.png --max-side 64"],
    "histogram": [
        "histogram ds --exact --bins 16",
        "histogram ds --layer color --mag 1 --bbox 8,16,0,32,32,32",
    ],
    "plan": ["plan ds --shard-shape 32", "plan ds --mag 1 --bbox 8,16,0,32,32,32 --memory 1GiB"],
    "convert": [
        "convert stack out --voxel-size 4,4,40 --dry-run",
        "convert stack out --voxel-size 4,4,40 --downsample --shard-shape 32",
        "convert array zarr --voxel-size 4,4,4 --axes xyz",
    ],
    "export": ["export ds stack.tif --dry-run", "export ds sections --format png"],
    "copy": ["copy ds copied --data-format zarr3 --dry-run", "copy ds copied --data-format zarr3"],
    "check": ["check ds", "check ds --deep", "check ds --metadata-only"],
    "equal": ["equal ds ds"],
    "map": [
        "map filters:invert ds ds --layer color --target new --dry-run",
        "map filters:invert ds ds --layer color --target new --shard-shape 32 --chunk-shape 16",
    ],
    "downsample": ["downsample ds --coarsest-mag 2 --dry-run", "downsample ds --coarsest-mag 2"],
    "upsample": ["upsample coarse --from-mag 2 --dry-run", "upsample coarse --from-mag 2"],
    "compress": ["compress ds --dry-run", "compress ds --resume"],
    "rechunk": ["rechunk ds --shard-shape 32 --dry-run", "rechunk ds --shard-shape 32"],
    "check-equality": ["check-equality ds ds --layer-name color"],
    "convert-zarr": ["convert-zarr array zarr --voxel-size 4,4,4 --no-downsample"],
    "copy-dataset": ["copy-dataset ds copied --shard-shape 32", "copy-dataset ds coarse2 --exists-ok"],
}


def run(line, code=0):
    done = runner().invoke(main, shlex.split(line))
    assert done.exit_code == code, (done.output, done.exception)
    return done


def snapshot(folder):
    """Return what there is: paths, sizes, times of change; locks that were looked at do not count."""
    return sorted(
        (str(path), path.stat().st_size, path.stat().st_mtime_ns)
        for path in Path(folder).rglob("*")
        if path.is_file() and "locks" not in path.parts and "__pycache__" not in path.parts
    )


def keys_of(value):
    """Return all keys in a JSON value."""
    if isinstance(value, dict):
        return {*value} | {key for each in value.values() for key in keys_of(each)}
    return {key for each in value for key in keys_of(each)} if isinstance(value, list) else set()


def test_the_page_on_commands_names_them_and_their_options():
    assert {*re.findall(r"`([a-z-]+)`", PAGE)} >= {*COMMANDS}
    for make in SHARED.values():
        for opt in make().opts:
            assert opt == "--task-memory" or f"`{opt}" in PAGE


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("demo", "view")])
def test_json_is_one_object_and_all_that_is_on_stdout(here, name):
    for line in LINES[name]:
        before = snapshot(here)
        done = run(f"{line} --json --quiet", code=2 if name == "check" else 0)  # its chunks are small
        facts = json.loads(done.stdout)
        assert done.stdout.count("\n") == 1
        assert done.stderr == ""
        assert facts["command"] == name
        assert [key for key in keys_of(facts) if f"`{key}`" not in PAGE] == []
        if "--dry-run" in line or name == "plan":
            assert facts["plans"]
            assert all(each["cubes"] > 0 and each["bytes"] > 0 for each in facts["plans"])
            assert snapshot(here) == before
        elif "reports" in facts and "--exists-ok" not in line:
            assert all(report["cubes"] > 0 and not report["was_finished"] for report in facts["reports"])
            assert facts["reports"]


def test_the_same_without_json_is_text(here):
    for line in ("info ds", "plan ds", "downsample ds --coarsest-mag 2 --dry-run", "equal ds ds"):
        with pytest.raises(ValueError, match="Expecting value"):
            json.loads(run(line).stdout)


def test_the_json_of_a_dataset(here):
    facts = json.loads(run("info ds --json").stdout)
    (layer,) = facts["layers"]
    assert (facts["voxel_size"], facts["unit"], layer["name"]) == ([4, 4, 35], "nanometer", "color")
    assert layer["bounding_box"] == [8, 16, 0, 100, 60, 40]
    (mag,) = layer["mags"]
    assert (mag["mag"], mag["shard_shape"], mag["cubes"], mag["compression"]) == ("1", [64] * 3, 4, "none")
    assert mag["bytes"] == 100 * 60 * 40
    assert mag["unfinished"] == []


def test_the_json_of_a_difference(here):
    run("copy ds other")
    Dataset("other").get_layer("color").get_mag(1).write(np.zeros((1, 1, 1), "uint8"), offset=(9, 16, 0))
    facts = json.loads(run("equal ds other --json", code=1).stdout)
    assert facts["equal"] is False
    found = facts["difference"]
    assert (found["layer"], found["mag"], found["voxel"], found["second"]) == ("color", "1", [0, 9, 16, 0], 0)


def test_progress_as_lines_of_json(here):
    done = run("downsample ds --coarsest-mag 2 --progress json")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events][:: len(events) - 1] == ["started", "finished"]
    first, last = events[0], events[-1]
    assert (first["cubes_done"], last["cubes_done"]) == (0, first["cubes"])
    assert {"job", "tasks", "bytes", "seconds"} <= {*last}
    assert "Written" in done.stdout
    done = run("convert stack out --voxel-size 4,4,40 --progress json")
    assert "note" in {json.loads(line)["event"] for line in done.stderr.splitlines()}


def test_quiet_prints_the_result_only(here):
    done = run("convert stack out --voxel-size 4,4,40 -q")
    assert done.stderr == ""
    assert done.stdout.startswith("Written")
    assert "Images:" in run("convert stack out2 --voxel-size 4,4,40").stderr


def test_verbose_shows_the_traceback(here):
    assert "Traceback" not in run("info nowhere", code=1).output
    text = run("info nowhere --verbose", code=1).stderr
    assert text.startswith("Traceback")
    assert text.splitlines()[-1].startswith("Error: ")


def test_a_fault_of_ours_is_one_line_too(here, monkeypatch):
    def broken(*_):
        raise KeyError("x")

    monkeypatch.setattr("wkdask.display.text.dataset_text_counted", broken)
    (line,) = run("info ds", code=1).stderr.splitlines()
    assert "--verbose shows the traceback" in line


# --- layers of images -----------------------------------------------------------------------------------


def test_images_that_join_a_dataset_have_its_voxel_size(here):
    run("convert stack ds --layer images -q")
    assert Dataset("ds").get_layer("images").bounding_box.size == (100, 60, 4)
    assert "--voxel-size 4.6,4.6,45" in run("convert stack new", code=2).stderr
    assert not (here / "new").exists()


# --- sampling and cutting -------------------------------------------------------------------------------


def test_downsample_and_upsample_in_another_cut(here):
    run("downsample ds --coarsest-mag 2 --shard-shape 32 --chunk-shape 8 -q")
    spec = Dataset("ds").get_layer("color").get_mag("2-2-1").spec
    assert (spec.shard_shape, spec.chunk_shape, spec.compression) == ((32, 32, 32), (8, 8, 8), "lz4")
    run("upsample coarse --from-mag 2 --shard-shape 64 --compression none -q")
    mag = Dataset("coarse").get_layer("color").get_mag(1)
    assert (mag.spec.shard_shape, mag.spec.compression) == ((64, 64, 64), None)
    expected = (
        Dataset("coarse").get_layer("color").get_mag(2).read()[0].repeat(2, 0).repeat(2, 1).repeat(2, 2)
    )
    assert np.array_equal(mag.read()[0], expected)


def test_rechunk(here):
    before = Dataset("ds").get_layer("color").get_mag(1).read()
    run("rechunk ds --shard-shape 32 -q")
    mag = Dataset("ds").get_layer("color").get_mag(1)
    assert (mag.spec.shard_shape, mag.spec.chunk_shape, mag.spec.compression) == (
        (32, 32, 32),
        (16, 16, 16),
        None,
    )
    assert np.array_equal(mag.read(), before)
    assert "cut so already" in run("rechunk ds --shard-shape 32,32,32").stdout
    run("rechunk ds --chunk-shape 8 --compression lz4 --layer color --mag 1 -q")
    mag = Dataset("ds").get_layer("color").get_mag(1)
    assert (mag.spec.chunk_shape, mag.spec.compression) == ((8, 8, 8), "lz4")
    assert np.array_equal(mag.read(), before)


def test_downsample_claims_no_work_of_others(here):
    assert "nothing to do" not in run("downsample ds --coarsest-mag 4 --resume").stdout
    layer = Dataset("ds").get_layer("color")
    before = layer.get_mag("2-2-1").read()
    assert run("downsample ds --coarsest-mag 4 --resume").stdout.count("finished by an earlier run") == 2
    for other in ("--interpolation-mode max", "--interpolation-mode min --layer color"):
        (line,) = run(f"downsample ds --coarsest-mag 4 --resume {other}", code=1).stderr.splitlines()
        assert "--overwrite" in line
    assert "--from-mag 1 --overwrite" in run("downsample ds --coarsest-mag 4 --interpolation-mode max").stdout
    assert np.array_equal(layer.get_mag("2-2-1").read(), before)
    layer.get_mag(1).write(np.zeros((1, 2, 2, 2), "uint8"), offset=(8, 16, 0))
    assert "--overwrite" in run("downsample ds --coarsest-mag 4 --resume", code=1).stderr
    run("downsample ds --coarsest-mag 4 --from-mag 1 --overwrite -q")
    assert not np.array_equal(layer.get_mag("2-2-1").read(), before)


def test_downsample_in_two_calls_is_resumed(here):
    run("downsample ds --coarsest-mag 2 -q")
    run("downsample ds --coarsest-mag 4 -q")
    assert "finished by an earlier run" in run("downsample ds --coarsest-mag 4 --resume").stdout


@pytest.mark.slow
def test_downsampling_that_is_cut_otherwise_when_it_is_resumed_is_the_same_call(tmp_path):
    voxels = testing.random_voxels((1, 512, 512, 256))
    layer = Dataset.create(tmp_path / "ds", (4, 4, 4)).add_layer("color", "color")
    layer.add_mag(1, chunk_shape=16, shard_shape=32).write(voxels)

    def stop(event):
        if isinstance(event, UnitDone):
            raise KeyboardInterrupt

    tasks = []
    for threads, listener in ((1, stop), (16, False)):
        with dask.config.set(num_workers=threads), contextlib.suppress(KeyboardInterrupt):
            tasks.append(layer.plan_downsample(coarsest_mag=8, resume=True).num_tasks)
            layer.downsample(coarsest_mag=8, interpolation_mode="max", resume=True, progress=listener)
    assert layer.get_mag(8).read().any()
    assert tasks[0] != tasks[1]
    expected = voxels.reshape((1, 64, 8, 64, 8, 32, 8)).max(axis=(2, 4, 6))
    assert np.array_equal(layer.get_mag(8).read(), expected)


# --- workers --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.cluster
def test_workers_are_started_for_a_command(here):
    env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}
    line = (
        "map filters:invert ds ds --layer color --target new --json --workers 2 --memory 1GiB --progress json"
    )
    done = subprocess.run(
        [sys.executable, "-m", "wkdask", *line.split()],
        env=env, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reports"][0]["cubes"] == 4
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert events[0] == {"event": "note", "text": "2 worker processes on this machine"}
    assert "2" in events[1]["engine"]
    ds = Dataset("ds")
    assert np.array_equal(
        ds.get_layer("new").get_mag(1).read(), 255 - ds.get_layer("color").get_mag(1).read()
    )


@pytest.mark.slow
@pytest.mark.cluster
def test_ctrl_c_ends_workers_without_a_word(here):
    """A terminal sends it to all processes: the workers leave it to the driver."""
    (here / "filters.py").write_text(
        "import time\n\ndef wait(block):\n    time.sleep(1)\n    return 255 - block\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}
    line = "map filters:wait ds ds --layer color --target new --workers 2 --progress json"
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "wkdask", *line.split()]
    with subprocess.Popen(
        command, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as child:
        for told in child.stderr:
            if '"started"' in told:
                break
        os.killpg(child.pid, signal.SIGINT)
        out, rest = child.communicate(timeout=100)
    assert child.returncode == 1
    assert out == ""
    assert "Traceback" not in rest
    assert rest.splitlines()[-1] == "Aborted!"
