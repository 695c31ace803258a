"""The ``wkdask`` command: thin commands around the Python API, one function each."""

from wkdask.cli.main import main

__all__ = ["main"]
