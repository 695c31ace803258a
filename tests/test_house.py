"""The house: which room may import which, how long a module may be, what `import wkdask` may load."""

import ast
import functools
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import wkdask

PACKAGE = Path(wkdask.__file__).parent

# The rooms of the package, each a folder or one module, in the order in which data travel: a room imports only
# rooms above it, and its own modules import each other without a circle. A new room needs a place here: a decision.
ROOMS = [
    "portable",
    "errors",
    "settings",
    "absent",
    "names",
    "objects",
    "fsio",
    "paths",
    "compiling",
    "geometry",
    "kernels",
    "properties",
    "storage",
    "jobs",
    "arrays",
    "progress",
    "operations",
    "pyramid",
    "export",
    "display",
    "labelled",
    "viewer",
    "napari_layers",
    "view",
    "locations",
    "mag_view",
    "components",
    "storing",
    "further_axes",
    "attachments",
    "layer",
    "external",
    "check",
    "dataset",
    "dataset_properties",
    "napari_reader",
    "convert",
    "utils",
    "demo",
    "testing",
    "cli",
    "__main__",
]

# Parts of one room that do not know each other: each could be taken away.
STRANGERS = [("storage.wkw", "storage.zarr"), ("jobs.engines.local", "jobs.engines.cluster")]

BOTH_WAYS = [*STRANGERS, *((two, one) for one, two in STRANGERS)]

# The only places that look into dask graphs.
GRAPH_ROOMS = ("arrays", "jobs.engines")
GRAPH_LEVEL = ("dask._task_spec", "dask.blockwise", "dask.core", "dask.highlevelgraph", "dask.optimization")

MAX_LINES = 600
MANY_PARAMETERS = 12
HEAVY = ("distributed", "numba", "zarr", "rich", "tifffile", "PIL", "matplotlib")


def place(module):
    """Return the place of a module's room in ROOMS; None where it has none."""
    room = module.split(".")[0]
    return ROOMS.index(room) if room in ROOMS else None


def inside(module, part):
    return module == part or module.startswith(f"{part}.")


def sources(package):
    """Return {module: (its tree, whether it is an __init__)}, named without the package: `storage.wkw`."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        is_init = parts[-1] == "__init__"
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        found[".".join(parts[:-1] if is_init else parts)] = (tree, is_init)
    return found


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def statements(node):
    """Yield all nodes below one, but nothing under `if TYPE_CHECKING:` (its `else:` runs, and counts)."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            for other in child.orelse:
                yield other
                yield from statements(other)
        else:
            yield child
            yield from statements(child)


def imports(module, tree, modules, walk=statements):
    """Yield (line, the module of the package that is imported; "" for the package itself)."""
    for node in walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # relative
                parents = ["wkdask", *module.split(".")][: -node.level]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                inside = f"{base}.{alias.name}"
                if inside.removeprefix("wkdask.") in modules:
                    names.append(inside)  # from wkdask import fsio
                elif inside != "wkdask.__version__":
                    names.append(base)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        for name in dict.fromkeys(names):
            if name == "wkdask" or str(name).startswith("wkdask."):
                yield node.lineno, name.removeprefix("wkdask").removeprefix(".")


def violations(found):
    """Return what breaks the rules of the rooms, one line each."""
    wrong = []
    circles = {}
    # the package itself is as late as the latest module whose names it shows, though these are imported when used
    shown = imports("", found[""][0], found, walk=ast.walk)
    front = max((place(other) or 0 for _, other in shown if other), default=-1)
    for module, (tree, is_init) in found.items():
        if is_init:
            continue
        if place(module) is None:
            wrong.append(f"{module} has no place in ROOMS")
            continue
        for line, other in imports(module, tree, found):
            here, there = place(module), place(other) if other else front
            if not other and there >= here:
                wrong.append(f"{module}:{line} imports the package itself, whose names come later")
            elif there is None:
                wrong.append(f"{module}:{line} imports {other}, which has no place in ROOMS")
            elif there > here:
                wrong.append(f"{module}:{line} imports {other}, which comes later")
            elif any(inside(module, one) and inside(other, two) for one, two in BOTH_WAYS):
                wrong.append(f"{module}:{line} imports {other}, which it must not know")
            elif there == here:
                circles.setdefault(module, set()).add(other)
                if found.get(other, (None, False))[1]:
                    wrong.append(f"{module}:{line} imports the __init__ of its own package: name the module")
    try:
        TopologicalSorter(circles).prepare()
    except CycleError as error:
        wrong.append("a circle: " + " imports ".join(reversed(error.args[1])))
    return wrong


def fake(*shown, **modules):
    """Return what `sources` returns, for texts; the package itself imports those `shown`.

    `storage__wkw` stands for `storage.wkw`.
    """
    texts = {name.replace("__", "."): text for name, text in modules.items()}
    packages = {name.rsplit(".", part)[0] for name in texts for part in range(1, name.count(".") + 1)}
    inits = {name: (ast.parse(""), True) for name in packages}
    inits[""] = (ast.parse("\n".join(f"import wkdask.{name}" for name in shown)), True)
    return inits | {name: (ast.parse(text), False) for name, text in texts.items()}


# the rule itself


@pytest.mark.parametrize(
    "text",
    [
        "from wkdask.geometry import BoundingBox",
        "import wkdask.geometry",
        "import os, wkdask.geometry as g",
        "from wkdask import geometry",
        "from . import geometry",
        "from .geometry import BoundingBox",
        "def f():\n    from wkdask.geometry import BoundingBox",
        "class A:\n    try:\n        import wkdask.geometry\n    except ImportError: pass",
        "import importlib\nimportlib.import_module('wkdask.geometry')",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import wkdask.geometry",
    ],
)
def test_the_rule_finds_an_import_of_a_later_room(text):
    (wrong,) = violations(fake(fsio=text, geometry=""))
    assert wrong.startswith("fsio:")
    assert wrong.endswith("imports geometry, which comes later")


@pytest.mark.parametrize(
    "text",
    [
        "from wkdask.errors import WkdaskError",
        "from .errors import WkdaskError",
        "import os, json",
        "from wkdask import errors, __version__",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from wkdask.geometry import Mag",
        "import typing\nif typing.TYPE_CHECKING:\n    if True:\n        import wkdask.geometry",
        "import wkdask_other",
    ],
)
def test_the_rule_allows_the_rest(text):
    assert violations(fake(errors="", fsio=text, geometry="")) == []


def test_the_rule_inside_a_room():
    good = fake(storage__formats="from wkdask.storage.protocol import Spec", storage__protocol="", arrays="")
    assert violations(good) == []
    circle = fake(
        storage__a="from . import b", storage__b="from .c import x", storage__c="import wkdask.storage.a"
    )
    (wrong,) = violations(circle)
    assert wrong.startswith("a circle: storage.")
    assert wrong.count("imports") == 3
    (wrong,) = violations(fake(storage__formats="from wkdask.storage import open_store"))
    assert "the __init__ of its own package" in wrong
    (wrong,) = violations(fake(storage__formats="from wkdask.arrays import x", arrays=""))
    assert wrong == "storage.formats:1 imports arrays, which comes later"
    (wrong,) = violations(fake(geometry="from wkdask.storage import open_store", storage__formats=""))
    assert wrong == "geometry:1 imports storage, which comes later"
    assert violations(fake(arrays="from wkdask.storage import open_store", storage__formats="")) == []


def test_the_rule_of_formats_that_do_not_know_each_other():
    for one, other in (("wkw", "zarr"), ("zarr", "wkw")):
        found = {
            f"storage__{one}__mag": f"from wkdask.storage.{other}.mag import x",
            f"storage__{other}__mag": "",
        }
        (wrong,) = violations(fake(**found))
        assert wrong == f"storage.{one}.mag:1 imports storage.{other}.mag, which it must not know"


def test_the_rule_wants_a_place_for_every_room():
    assert violations(fake(helpers="", geometry="")) == ["helpers has no place in ROOMS"]
    assert violations(fake(helpers__deep="")) == ["helpers.deep has no place in ROOMS"]


def test_the_package_shows_what_it_says_it_does():
    tree, _ = modules()[""]
    imported = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wkdask.")
        for alias in node.names
    }
    assert {name: wkdask._HOMES[name] for name in imported if name != "absent"} == {
        name: module for name, module in imported.items() if name != "absent"
    }
    assert {*wkdask._HOMES} - {"AgglomerateGraph"} == {*wkdask.__all__}
    assert {*dir(wkdask)} == {*wkdask.__all__, *wkdask._SHOWN}
    assert all(getattr(wkdask, name) is not None for name in wkdask.__all__)


def test_the_rule_for_the_package_itself():
    for text in ("import wkdask", "from wkdask import Dataset", "from . import Dataset"):
        assert violations(fake("layer", "dataset", demo=text, layer="", dataset="")) == []
        (wrong,) = violations(fake("layer", "dataset", layer=text, dataset=""))
        assert wrong == "layer:1 imports the package itself, whose names come later"


# the rule, kept


@functools.cache
def modules():
    """Return the sources of the package."""
    return sources(PACKAGE)


def test_rooms_import_only_rooms_above_them():
    assert "\n".join(violations(modules())) == ""


def test_below_the_api_types_follow_the_same_rule():
    # what is imported for type checkers only is on the way of a reader too
    below = {
        name for name in modules() if name and place(name) is not None and place(name) < place("display")
    }
    wrong, arrows = [], {}
    for module in below:
        for line, other in imports(module, modules()[module][0], modules(), walk=ast.walk):
            if other not in below:
                wrong.append(f"{module}:{line} imports {other or 'the package'}, which comes later")
            elif other != module and not modules()[other][1]:
                arrows.setdefault(module, set()).add(other)
    assert wrong == []
    TopologicalSorter(arrows).prepare()  # raises where there is a circle


def test_only_two_rooms_look_into_graphs():
    found = []
    for module, (tree, _) in modules().items():
        if any(inside(module, room) for room in GRAPH_ROOMS):
            continue
        for node in ast.walk(tree):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [f"{module}:{node.lineno} imports {name}" for name in names if name in GRAPH_LEVEL]
            if isinstance(node, ast.Attribute) and node.attr == "__dask_graph__":
                found.append(f"{module}:{node.lineno} takes a graph")
    assert found == []


def test_every_room_says_what_it_is_for():
    for module, (tree, is_init) in modules().items():
        if is_init:
            assert len(ast.get_docstring(tree) or "") > 20, module


def test_errors_import_nothing_of_ours():
    assert list(imports("errors", modules()["errors"][0], modules())) == []


def test_no_assert_on_what_a_user_gave():
    # `python -O` removes them, and an AssertionError does not say what would work
    found = [
        f"{module}:{node.lineno}"
        for module, (tree, _) in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert) and module != "testing"
    ]
    assert found == []


def test_no_module_is_too_long():
    lengths = {
        str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")
    }
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_only_the_public_api_has_functions_of_many_parameters():
    """There each is one thing that a user may say; `convert` is the Python side of its command."""
    classes = [wkdask.Dataset, wkdask.Layer, wkdask.MagView, wkdask.View]
    public = {*wkdask.__all__, *(name for kind in classes for name in dir(kind))}
    many = {
        f"{module}.{node.name}"
        for module, (tree, _) in modules().items() if not module.startswith("convert.")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name not in public
        and len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) >= MANY_PARAMETERS
    }  # fmt: skip
    assert many == set()


def test_import_is_light():
    # these cost seconds, or are not needed on a worker: functions that use them import them
    script = f"import sys\nfrom wkdask import *\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
    script = "import sys, wkdask; print(*({'numpy', 'dask', 'wkdask.errors'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
