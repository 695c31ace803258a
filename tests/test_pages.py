"""The pages of docs/: their Python runs, their commands are understood, their tables agree with the code."""

import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest
import tifffile
import yaml
from repository import ROOT

import wkdask
from wkdask import Dataset, testing
from wkdask.cli import main

DOCS = ROOT / "docs"
PAGES = sorted(path for folder in (DOCS, DOCS / "howto") for path in folder.glob("*.md"))

# What a page takes for granted, said before its first block.
GIVEN = {
    "clusters": """
        from wkdask import Dataset
        color = Dataset("dataset").get_layer("color")
        mag1 = color.get_mag(1)
        out = color.dataset.add_layer_like(color, "out").add_mag(1, shard_shape=64)
    """,
    "images": """
        import shutil
        from wkdask import Dataset
        shutil.rmtree("dataset")
    """,
    "scale": """
        from wkdask import Dataset
        color = Dataset("dataset").get_layer("color")
        source, target = color.get_mag(1), color.dataset.add_layer_like(color, "target").add_mag(1, shard_shape=64)
        number, function = 1, lambda block: 255 - block
    """,
}
# Nobody listens at the address of the pages: what their client is asked to do runs on local threads.
CLIENT = re.compile(r"client = Client\(.*")

# Packages of extras that some blocks need; where one is not installed these are left out, and the test says so.
EXTRAS = ("xarray", "ipywidgets")

FENCED = re.compile(r"^( *)```([^\n]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(
    rf"^(?:[A-Z_]+=\S+ )*wkdask ((?:{'|'.join(main.commands)})\b.*?)(?:  +#.*)?$", re.MULTILINE
)
COMMANDS = sorted(
    {
        (path.stem, line)
        for path in PAGES
        for _, language, block in FENCED.findall(path.read_text())
        if language != "python"
        for line in COMMAND.findall(block)
    }
)


def blocks_of(path):
    """Return (line, code) of every python block of a page."""
    text = path.read_text()
    return [
        (text.count("\n", 0, found.start()) + 1, re.sub(f"^{found[1]}", "", found[3], flags=re.MULTILINE))
        for found in FENCED.finditer(text)
        if found[2] == "python"
    ]


WITH_PYTHON = [path for path in PAGES if blocks_of(path)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """What the pages name, in the working folder: a dataset with an image and ids, and images."""
    monkeypatch.chdir(tmp_path)
    dataset = Dataset.create("dataset", (4, 4, 35))
    voxels = testing.random_voxels((1, 200, 180, 40))
    dataset.add_layer("color", "color").add_mag(1, shard_shape=64).write(voxels, progress=False)
    ids = dataset.add_layer("cells", "segmentation", dtype_per_channel="uint32").add_mag(1, shard_shape=64)
    ids.write((voxels // 64).astype("uint32"), progress=False)
    for folder in ("images", "raw"):
        Path(folder).mkdir()
        for z in range(3):
            tifffile.imwrite(f"{folder}/{z:03}.tif", voxels[0, :64, :48, z].T)
    return tmp_path


@pytest.mark.parametrize("path", WITH_PYTHON, ids=lambda path: path.stem)
@pytest.mark.filterwarnings(
    "ignore::wkdask.errors.WkdaskWarning"
)  # notes on what a page does, such as on its images
def test_the_python_of_a_page_runs(path, here, capsys):
    space = {"__name__": "page"}
    exec(re.sub(r"^ +", "", GIVEN.get(path.stem, ""), flags=re.MULTILINE), space)
    missing = set()
    for line, code in blocks_of(path):
        lacking = {name for name in EXTRAS if name in code and importlib.util.find_spec(name) is None}
        if lacking:
            missing |= lacking
            continue
        code = "\n" * line + CLIENT.sub("client = None", code)  # so that an error names the line of the page
        exec(compile(code, str(path), "exec"), space)
    if missing:
        pytest.skip(f"all of the page ran but what needs {', '.join(sorted(missing))}")


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_is_understood(page, line):
    name, *arguments = shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "1"))
    command = main.commands[name]
    with click.Context(main) as above:
        command.make_context(name, arguments, parent=above)  # a UsageError where it is not


def test_there_is_something_to_test():
    assert {"quickstart", "concepts", "settings", "convert", "resume"} <= {path.stem for path in WITH_PYTHON}
    assert len(COMMANDS) >= 20


def test_every_page_and_notebook_is_in_the_site():
    listed = set()
    for path in [*PAGES, DOCS / "api" / "index.md"]:
        for tree in re.findall(r"```{toctree}\n(.*?)```", path.read_text(), re.DOTALL):
            listed |= {
                (path.parent / name).resolve() for name in re.findall(r"^[\w./-]+$", tree, re.MULTILINE)
            }
    there = [*PAGES, *(DOCS / "api").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    assert {path.with_suffix("") for path in there} - {DOCS / "index"} <= listed


def test_every_public_name_is_in_the_reference():
    text = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    assert [name for name in wkdask.__all__ if not re.search(rf"wkdask\.{name}$", text, re.MULTILINE)] == []


def test_the_table_of_the_settings():
    rows = re.findall(
        r"^\| `wkdask\.([\w-]+)` \| `(.*?)` \| `(\w+)` \|", (DOCS / "settings.md").read_text(), re.MULTILINE
    )
    defaults = yaml.safe_load((ROOT / "wkdask" / "wkdask.yaml").read_text())["wkdask"]
    assert {name: yaml.safe_load(default) for name, default, _ in rows} == defaults
    assert [variable for *_, variable in rows] == [
        f"DASK_WKDASK__{name.upper().replace('-', '_')}" for name in defaults
    ]


def test_the_table_of_the_loggers():
    found = set()
    for path in (ROOT / "wkdask").rglob("*.py"):
        if "logging.getLogger(__name__)" in path.read_text():
            found.add(".".join(path.relative_to(ROOT).with_suffix("").parts))
    listed = re.search(r"\| logger \|.*?\n\n", (DOCS / "settings.md").read_text(), re.DOTALL)[0]
    assert {*re.findall(r"`(wkdask\.[\w.]+)`", listed)} == found
