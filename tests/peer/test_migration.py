"""docs/migration.md: a row for every public name and parameter of the Dataset API, and what it says is so.

The names of version 4.3.3 come from the package itself, by introspection, in a Python of its own (``pytest -m
peer``, see `test_peer.py`); those of 2021 are the page's own.
"""

import inspect
import json
import os
import re
import subprocess
from enum import EnumType

import pytest
from repository import ROOT

import wkdask

PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
PARENTS = {"SegmentationLayer": "Layer", "MagView": "View"}

INTROSPECTION = """
import inspect, json, types, webknossos
def members(kind):
    found = {}
    for name in dir(kind):
        if name.startswith("_") and name != "__init__":
            continue
        member = inspect.getattr_static(kind, name)
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if isinstance(function, property) or not callable(function):
            found[name] = []
            continue
        parameters = inspect.signature(function).parameters
        found[name] = [each for each in parameters if each not in ("self", "cls")]
    return found
names = {
    name: getattr(getattr(webknossos, name), "__module__", "webknossos")
    for name in dir(webknossos)
    if not name.startswith("_") and not isinstance(getattr(webknossos, name), types.ModuleType)
}
classes = {name: members(getattr(webknossos, name)) for name in CLASSES}
print(json.dumps([names, classes]))
"""


def tables():
    """Return {heading: {name: (parameters of 2021, of version 4, what is said)}}; None for no such name."""
    found = {}
    for heading, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL):
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+) \|$", text, re.MULTILINE)
        assert len(rows) == len({row[0] for row in rows}), f"a name has two rows in {heading}"
        found[heading] = {
            name: (
                *(None if cell == "–" else re.findall(r"`(\w+)`", cell) for cell in (old, new)),
                said,
            )
            for name, old, new, said in rows
        }
    return found


TABLES = tables()
CLASSES = [heading for heading in TABLES if heading != "wkdask itself"]


def own_parameters(kind, name):
    """Return the parameters of one of our methods; None where it is an attribute."""
    if name == "__init__":
        return list(inspect.signature(kind).parameters)
    member = inspect.getattr_static(kind, name)
    function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
    if isinstance(function, property) or not callable(function):
        return None
    if isinstance(
        function, EnumType
    ):  # Python 3.12 does not show the parameters with which one makes an enum
        return list(inspect.signature(EnumType.__call__).parameters)
    return list(inspect.signature(function).parameters)


def test_the_tables_are_those_of_the_classes():
    assert CLASSES == [
        "Dataset", "Layer", "SegmentationLayer", "View", "MagView", "Mag", "Vec3Int", "BoundingBox", "VoxelSize",
        "SamplingModes", "DataFormat", "LengthUnit",
    ]  # fmt: skip
    words = {re.match(r"\w+", said).group() for table in TABLES.values() for *_, said in table.values()}
    assert words == {"same", "differs", "absent"}


@pytest.mark.parametrize("heading", TABLES)
def test_what_the_page_says_is_so(heading):
    kind = wkdask if heading == "wkdask itself" else getattr(wkdask, heading)
    for name, (old, new, said) in TABLES[heading].items():
        if not said.startswith("absent"):
            assert hasattr(kind, name), f"{name}: it is not there"
        if said.startswith("same") and kind is not wkdask:
            parameters = own_parameters(kind, name)
            asked = {*(old or []), *(new or [])} - {"args", "kwargs"}
            if parameters is None:
                assert asked == set(), f"{name}: it is an attribute, and was a method"
            else:
                assert asked - {*parameters} == set(), f"{name}: parameters are missing"


@pytest.mark.peer
def test_every_name_of_version_4_has_a_row():
    python = os.environ.get("WKDASK_PEER_PYTHON") or str(ROOT / ".venv-peer" / "bin" / "python")
    if not os.access(python, os.X_OK):
        pytest.skip(f"no Python with webknossos 4.3.3: {python} is missing; set WKDASK_PEER_PYTHON")
    done = subprocess.run(
        [python, "-W", "ignore", "-c", INTROSPECTION.replace("CLASSES", repr(CLASSES))],
        capture_output=True,
        text=True,
        check=True,
    )
    names, classes = json.loads(done.stdout.splitlines()[-1])
    public = [name for name, module in names.items() if module.partition(".")[0] == "webknossos"]
    missing = [name for name in public if name not in TABLES["wkdask itself"]]
    for kind, members in classes.items():
        rows = TABLES.get(PARENTS.get(kind, ""), {}) | TABLES[kind]
        for name, parameters in members.items():
            if name == "__init__" and kind in ("SamplingModes", "DataFormat", "LengthUnit"):
                continue  # Python's own
            _, listed, _ = rows.get(name, (None, None, ""))
            if listed is None:
                missing.append(f"{kind}.{name}")
            missing += [f"{kind}.{name}({each}=)" for each in parameters if each not in (listed or [])]
    assert missing == []
    assert len(public) > 90
