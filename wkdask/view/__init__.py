"""A box of a mag, as users hold it: read, write, lazy arrays, functions per chunk.

A handle holds no data. :mod:`~wkdask.view.box_view` has what a view and a whole mag share,
:mod:`~wkdask.view.view` the rest; the work is done by :mod:`wkdask.operations`.
"""

from wkdask.view.view import View

__all__ = ["View"]
