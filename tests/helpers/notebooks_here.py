"""Notebooks, run as a new user runs them: from top to bottom, in an empty folder."""

import os

from repository import ROOT

FOLDER = ROOT / "notebooks"


def run_notebook(path, folder, **env):
    """Run a notebook in a folder; return it with its outputs. An error in a cell is raised."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    # the backend of notebooks: a figure is an output of its cell
    backend = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    client.execute(env={**os.environ, **backend, **env})
    return notebook


def outputs(notebook, kind):
    """Return the outputs of a type, such as ``image/png`` or ``text/plain``."""
    found = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return [out.data[kind] for out in found if kind in out.get("data", {})]
