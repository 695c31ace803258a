"""Handles of the wkw library: closed whenever they are dropped, in a process that ends too."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wkw

import wkdask
from wkdask.geometry import BoundingBox
from wkdask.storage.wkw_native import native_read

CUBE = BoundingBox((0, 0, 0), (16, 16, 16))

END_WITH_A_HANDLE = """
import sys, threading
import numpy as np
from wkdask.geometry import BoundingBox
from wkdask.storage import wkw_native

root, kept_by = sys.argv[1:]
with open(root + "/header.wkw", "rb") as file:
    header = file.read()

def read():
    out = np.zeros((1, 16, 16, 16), np.uint8, order="F")
    assert wkw_native.native_read(root, header, BoundingBox((0, 0, 0), (16, 16, 16)), out) and out.all()

read()
(handle,) = wkw_native._local.handles.values()
if kept_by == "sys":  # which is taken down after all other modules, the library's among them
    sys.handle = handle
elif kept_by == "cycle":
    cycle = [handle]
    cycle.append(cycle)
    threading.cycle = cycle
elif kept_by == "thread":  # which never ends
    done = threading.Event()
    threading.Thread(target=lambda: (read(), done.set(), threading.Event().wait()), daemon=True).start()
    done.wait()
del handle
"""


@pytest.fixture
def root(tmp_path):
    """A folder with one compressed cube of ones."""
    root = str(tmp_path / "wkw")
    header = wkw.Header(np.uint8, block_len=8, file_len=2, block_type=wkw.Header.BLOCK_TYPE_LZ4)
    with wkw.Dataset.create(root, header) as dataset:
        dataset.write((0, 0, 0), np.ones((16, 16, 16), np.uint8, order="F"))
    return root


@pytest.mark.parametrize("kept_by", ["its thread alone", "sys", "cycle", "thread"])
def test_an_interpreter_ends_with_an_open_handle(root, kept_by):
    """Closing it when the library was unloaded killed the process; looking up how to, it printed an error."""
    command = [sys.executable, "-c", END_WITH_A_HANDLE, root, kept_by]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=Path(wkdask.__file__).parent.parent
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_folder_made_anew_gets_a_new_handle(root):
    """The old one knows the old header; the bytes of the header tell them apart."""
    old = Path(root, "header.wkw").read_bytes()
    out = np.zeros((1, *CUBE.size), np.uint8, order="F")
    assert native_read(root, old, CUBE, out)
    assert out.all()

    for path in sorted(Path(root).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    expected = np.arange(16**3, dtype=np.uint16).reshape(16, 16, 16, order="F")
    with wkw.Dataset.create(root, wkw.Header(np.uint16, block_len=8, file_len=2)) as dataset:
        dataset.write((0, 0, 0), expected)
    wide = np.zeros((1, *CUBE.size), np.uint16, order="F")
    assert native_read(root, Path(root, "header.wkw").read_bytes(), CUBE, wide)
    assert np.array_equal(wide[0], expected)
