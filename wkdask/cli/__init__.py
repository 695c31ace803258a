"""The ``wkdask`` command: thin commands around the Python API, a module each, imported when it is called.

Enter at :mod:`~wkdask.cli.main`, which lists them; :mod:`~wkdask.cli.options` has the options that they share, and
:mod:`~wkdask.cli.run` what these say.
"""

from wkdask.cli.main import main

__all__ = ["main"]
