"""Public names have examples. That these run is the doctests' part: `pytest --doctest-modules wkdask`."""

import ast
import functools
import inspect
import re
from pathlib import Path
from types import FunctionType

import pytest
from repository import ROOT

import wkdask

CLASSES = [
    "BoundingBox", "BufferedSliceWriter", "Dataset", "Layer", "Mag", "MagView", "SegmentationLayer", "Vec3Int",
    "View",
]  # fmt: skip


def shown(text):
    """Return the lines of the examples of a docstring."""
    return "\n".join(re.findall(r"^ *(?:>>>|\.\.\.) (.*)", text or "", re.MULTILINE))


@functools.cache
def docstrings():
    """Return every docstring of the package."""
    return [
        ast.get_docstring(node) or ""
        for path in Path(wkdask.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    ]


def left_out(name):
    """Return the members of a class that the reference leaves out: they are for the package itself."""
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    found = re.search(rf"autoclass:: wkdask\.{name}\n(?: +:.*\n)* +:exclude-members: (.*)", pages)
    return set(found[1].split(", ")) if found else set()


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_method_has_an_example(name):
    cls = getattr(wkdask, name)
    tour = "\n".join(
        shown(parent.__doc__) for parent in cls.__mro__ if parent.__module__.startswith("wkdask")
    )
    missing = []
    for method in dir(cls):
        value = inspect.getattr_static(cls, method)
        if method.startswith("_") or isinstance(value, property | type) or not callable(getattr(cls, method)):
            continue
        if not str(getattr(getattr(cls, method), "__module__", "")).startswith("wkdask"):
            continue  # of tuple
        if not shown(getattr(cls, method).__doc__) and not re.search(rf"\.{method}\(", tour):
            missing.append(method)
    assert set(missing) - set().union(*(left_out(parent.__name__) for parent in cls.__mro__)) == set()


def test_every_public_name_is_in_an_example():
    examples = "\n".join(map(shown, docstrings()))
    names = [name for name in wkdask.__all__ if isinstance(getattr(wkdask, name), type | FunctionType)]
    own = {name for name in names if shown(getattr(wkdask, name).__doc__)}
    missing = [name for name in names if name not in own and not re.search(rf"\b{name}\b", examples)]
    assert missing == []


def test_no_example_is_skipped():
    assert [text for text in docstrings() if "doctest: +SKIP" in text] == []
