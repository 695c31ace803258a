"""Every notebook runs from top to bottom, as a new user runs it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from notebooks_here import FOLDER, outputs, run_notebook
from processes_here import end

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
CLUSTER = ("02_map_blocks", "04_cluster")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jupyter's own libraries


def clusters_alone(path):
    return pytest.param(path, id=path.stem, marks=[pytest.mark.cluster] if path.stem in CLUSTER else [])


@pytest.mark.slow  # what they show, the pages show as well, whose Python runs every day
@pytest.mark.parametrize("path", [clusters_alone(path) for path in NOTEBOOKS])
def test_notebook_runs(path, tmp_path):
    notebook = run_notebook(path, tmp_path)
    assert any(cell.cell_type == "code" for cell in notebook.cells)
    assert outputs(notebook, "image/png"), "no picture"
    assert "False" not in outputs(notebook, "text/plain"), "a comparison fails"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_empty(path):
    cells = json.loads(path.read_text())["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


@pytest.mark.slow
@pytest.mark.cluster
def test_the_cluster_notebook_at_an_address(tmp_path):
    """One line changes: a scheduler that runs somewhere."""
    file = tmp_path / "scheduler.json"
    dask = Path(sys.executable).with_name("dask")
    here = ("--scheduler-file", file, "--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    with open(tmp_path / "log", "wb") as log:
        scheduler = subprocess.Popen([dask, "scheduler", "--port", "0", *here], stdout=log, stderr=log)
        workers = subprocess.Popen(
            [dask, "worker", "--nworkers", "2", "--nthreads", "1", *here], stdout=log, stderr=log
        )
    try:
        limit = time.monotonic() + 60
        while (tmp_path / "log").read_text().count("Registered to") < 2:
            assert time.monotonic() < limit, (tmp_path / "log").read_text()
            time.sleep(0.2)
        address = json.loads(file.read_text())["address"]
        notebook = run_notebook(FOLDER / "04_cluster.ipynb", tmp_path, WKDASK_WHERE=address)
    finally:
        end(workers)
        end(scheduler)
    assert outputs(notebook, "text/plain")[-1] == "True"
    assert any(address in text for text in outputs(notebook, "text/plain"))
