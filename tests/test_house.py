"""The house: which module may import which, how long a module may be, what `import wkdask` may load."""

import ast
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import wkdask

PACKAGE = Path(wkdask.__file__).parent

# In the order in which data travel: a module imports only modules above it. A `.*` is a sub-package, whose
# modules may import each other, but not in a circle. A new module needs a place here: a decision.
ORDER = [
    "errors",
    "absent",
    "names",
    "fsio",
    "paths",
    "vectors",
    "axis_vectors",
    "vec3_float",
    "box_axes",
    "nd_geometry",
    "three_axes",
    "box_forms",
    "geometry",
    "units",
    "grid",
    "kernels.*",
    "synthetic",
    "properties.*",
    "storage.*",
    "lazy",
    "graph_facts",
    "plan",
    "tasks",
    "journal",
    "events",
    "windows",
    "job",
    "mag_folders",
    "folder_edits",
    "resume",
    "space",
    "flow",
    "callables",
    "halo",
    "map_tasks",
    "engine",
    "local_engine",
    "cluster_engine",
    "engines",
    "expression",
    "settlement",
    "driver",
    "unwritten",
    "records",
    "tally",
    "progress",
    "whole",
    "inline",
    "writer",
    "slices",
    "inline_write",
    "where",
    "array_info",
    "chunkwise",
    "existing",
    "map_cubes",
    "transfer",
    "pyramid_mags",
    "pyramid_levels",
    "pyramid_tree",
    "pyramid_plan",
    "pyramid_voxels",
    "pyramid_tasks",
    "pyramid",
    "pyramid_write",
    "display",
    "preview",
    "view_configuration",
    "transformations",
    "box_view",
    "view_parts",
    "view",
    "mag_view",
    "components",
    "storing",
    "places",
    "multiscales",
    "zarr_config",
    "elsewhere",
    "cut",
    "rechunk",
    "nd_data",
    "nd_foreign",
    "nd_mag",
    "layer_axes",
    "layer_mags",
    "layer_pyramid",
    "layer_sampling",
    "layer_writing",
    "agglomerates",
    "attachment_kinds",
    "attachments",
    "layer_foreign_mags",
    "layer",
    "layer_copies",
    "links",
    "dataset_copies",
    "dataset_from_dask",
    "dataset_foreign_layers",
    "dataset_work",
    "dataset_layers",
    "equal",
    "dataset",
    "convert.*",
    "utils",
    "demo",
    "check",
    "testing",
    "cli.*",
    "__main__",
]

MAX_LINES = 600
HEAVY = ("distributed", "numba", "zarr", "rich", "tifffile", "PIL", "matplotlib")


def place(module):
    """Return the place of a module in ORDER; None where it has none."""
    top = module.split(".")[0]
    for name in (module, top, f"{top}.*"):
        if name in ORDER and (name == module or name.endswith(".*")):
            return ORDER.index(name)
    return None


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


def imports(module, tree, modules):
    """Yield (line, the module of the package that is imported; "" for the package itself)."""
    for node in statements(tree):
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
    """Return what breaks the order, one line each."""
    wrong = []
    circles = {}
    # the package itself is as late as the latest module whose names it shows
    front = max((place(other) or 0 for _, other in imports("", found[""][0], found) if other), default=-1)
    for module, (tree, is_init) in found.items():
        if is_init:
            continue
        if place(module) is None:
            wrong.append(f"{module} has no place in ORDER")
            continue
        for line, other in imports(module, tree, found):
            here, there = place(module), place(other) if other else front
            if not other and there >= here:
                wrong.append(f"{module}:{line} imports the package itself, whose names come later")
            elif there is None:
                wrong.append(f"{module}:{line} imports {other}, which has no place in ORDER")
            elif there > here:
                wrong.append(f"{module}:{line} imports {other}, which comes later")
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
    packages = {name.split(".")[0] for name in texts if "." in name}
    inits = {name: (ast.parse(""), True) for name in packages}
    inits[""] = (ast.parse("\n".join(f"import wkdask.{name}" for name in shown)), True)
    return inits | {name: (ast.parse(text), False) for name, text in texts.items()}


# the rule itself


@pytest.mark.parametrize(
    "text",
    [
        "from wkdask.grid import CubeGrid",
        "import wkdask.grid",
        "import os, wkdask.grid as g",
        "from wkdask import grid",
        "from . import grid",
        "from .grid import CubeGrid",
        "def f():\n    from wkdask.grid import CubeGrid",
        "class A:\n    try:\n        import wkdask.grid\n    except ImportError: pass",
        "import importlib\nimportlib.import_module('wkdask.grid')",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import wkdask.grid",
    ],
)
def test_the_rule_finds_an_import_of_a_later_module(text):
    (wrong,) = violations(fake(fsio=text, grid=""))
    assert wrong.startswith("fsio:")
    assert wrong.endswith("imports grid, which comes later")


@pytest.mark.parametrize(
    "text",
    [
        "from wkdask.errors import WkdaskError",
        "from .errors import WkdaskError",
        "import os, json",
        "from wkdask import errors, __version__",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from wkdask.grid import CubeGrid",
        "import typing\nif typing.TYPE_CHECKING:\n    if True:\n        import wkdask.grid",
        "import wkdask_other",
    ],
)
def test_the_rule_allows_the_rest(text):
    assert violations(fake(errors="", fsio=text, grid="")) == []


def test_the_rule_inside_sub_packages():
    good = fake(storage__wkw="from wkdask.storage.protocol import Spec", storage__protocol="", lazy="")
    assert violations(good) == []
    circle = fake(
        storage__a="from . import b", storage__b="from .c import x", storage__c="import wkdask.storage.a"
    )
    (wrong,) = violations(circle)
    assert wrong.startswith("a circle: storage.")
    assert wrong.count("imports") == 3
    (wrong,) = violations(fake(storage__wkw="from wkdask.storage import open_store"))
    assert "the __init__ of its own package" in wrong
    (wrong,) = violations(fake(storage__wkw="from wkdask.lazy import x", lazy=""))
    assert wrong == "storage.wkw:1 imports lazy, which comes later"
    (wrong,) = violations(fake(grid="from wkdask.storage import open_store", storage__wkw=""))
    assert wrong == "grid:1 imports storage, which comes later"
    assert violations(fake(lazy="from wkdask.storage import open_store", storage__wkw="")) == []


def test_the_rule_wants_a_place_for_every_module():
    assert violations(fake(helpers="", geometry="")) == ["helpers has no place in ORDER"]
    assert violations(fake(grid__deep="")) == ["grid.deep has no place in ORDER"]


def test_the_rule_for_the_package_itself():
    for text in ("import wkdask", "from wkdask import Dataset", "from . import Dataset"):
        assert violations(fake("layer", "dataset", demo=text, layer="", dataset="")) == []
        (wrong,) = violations(fake("layer", "dataset", layer=text, dataset=""))
        assert wrong == "layer:1 imports the package itself, whose names come later"


# the rule, kept


MODULES = sources(PACKAGE)


def test_modules_import_only_modules_above_them():
    assert "\n".join(violations(MODULES)) == ""


def test_errors_import_nothing_of_ours():
    assert list(imports("errors", MODULES["errors"][0], MODULES)) == []


@pytest.mark.parametrize("module", [name for name in MODULES if name != "testing"])
def test_no_assert_on_what_a_user_gave(module):
    # `python -O` removes them, and an AssertionError does not say what would work
    tree, _ = MODULES[module]
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert lines == [], f"assert statements in wkdask/{module}"


def files():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield pytest.param(path, id=name)


@pytest.mark.parametrize("path", list(files()))
def test_no_module_is_too_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_import_is_light():
    # these cost seconds, or are not needed on a worker: functions that use them import them
    script = f"import sys, wkdask; print(*(name for name in {HEAVY} if name in sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
