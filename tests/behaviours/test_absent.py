"""Names of the webknossos library that stay outside."""

import inspect
import subprocess
import sys

import pytest

import wkdask
from wkdask.absent import ABSENT
from wkdask.errors import OutOfScopeError

CLASSES = [
    "Annotation",
    "Skeleton",
    "Node",
    "RemoteDataset",
    "Task",
    "Project",
    "User",
    "Datastore",
    "WkApiClient",
]


@pytest.mark.parametrize("name", CLASSES)
def test_importing_one_says_that_it_stays_outside(name):
    with pytest.raises(
        ImportError, match=f"no {name}: .*stays outside of wkdask.*from webknossos import {name}"
    ):
        exec(f"from wkdask import {name}")
    with pytest.raises(OutOfScopeError, match=f"no {name}: .*stays outside of wkdask") as caught:
        getattr(wkdask, name)
    assert isinstance(caught.value, AttributeError)
    assert not hasattr(wkdask, name)


def test_other_names_are_missing_as_anywhere():
    with pytest.raises(AttributeError, match="module 'wkdask' has no attribute 'nothing'"):
        wkdask.nothing
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from wkdask import nothing")


def test_no_name_is_both_there_and_outside():
    assert not {*ABSENT} & {*wkdask.__all__}


def test_all_names_can_be_imported():
    code = "import sys; sys.modules['networkx'] = None; from wkdask import *; print(VecInt, Attachments)"
    assert (
        "VecInt"
        in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )


def test_dir_shows_the_public_names_and_no_modules():
    shown = dir(wkdask)
    assert {*wkdask.__all__, "AgglomerateGraph", "errors", "__version__"} <= {*shown}
    assert [name for name in shown if inspect.ismodule(getattr(wkdask, name))] == ["errors"]
    from IPython.core.completer import Completer

    completed = Completer(namespace={"wkdask": wkdask}).attr_matches("wkdask.La")
    assert {name.removeprefix("wkdask").removeprefix(".") for name in completed} == {
        "Layer", "LayerCategories", "LayerCategoryType", "LayerExport", "LayerProperties",
        "LayerViewConfiguration",
    }  # fmt: skip


def test_a_star_imports_the_public_names():
    names = {}
    exec("from wkdask import *", names)
    assert {*names} - {"__builtins__"} == {*wkdask.__all__}
