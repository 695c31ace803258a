"""A box of a mag, as users hold it: read, write, lazy arrays, functions per chunk.

A handle holds no data. :mod:`~wkdask.view.box_view` has what a view and a whole mag share,
:mod:`~wkdask.view.view` the rest; the work is done by :mod:`wkdask.operations`.
"""

import sys
from types import ModuleType
from typing import Any

from wkdask.view.view import View

__all__ = ["View"]


class _Callable(ModuleType):
    """The module `wkdask.view`, which can be called: it shows what it is given in the browser."""

    def __call__(self, *shown: Any, **how: Any) -> Any:
        """Show datasets, layers, mags and lazy expressions: :func:`wkdask.viewer.viewer.view`."""
        from wkdask.viewer.viewer import view

        return view(*shown, **how)


# `wkdask.view(...)` is what people type, and `wkdask.view` has been the name of this module all along.
sys.modules[__name__].__class__ = _Callable
