"""Functions that are named on a command line, as ``module:function``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from wkdask.errors import InvalidValueError

__all__ = ["function_name", "function_of"]


def function_name(text: str, hint: str = "'MODULE:FUNCTION'") -> tuple[str, str]:
    """Return module and name of ``module:name``."""
    module, colon, name = text.partition(":")
    if not colon or not module or not name:
        raise click.BadParameter(
            f"expected MODULE:FUNCTION, such as filters:sharpen, got {text!r}",
            click.get_current_context(),
            param_hint=hint,
        )
    return module, name


def function_of(module_name: str, name: str) -> Callable[..., Any]:
    """Return a function of a module, which travels by value, as workers need not have it."""
    import cloudpickle

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InvalidValueError(f"the module {module_name!r} cannot be imported: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        near = [other for other, value in vars(module).items() if callable(value) and other[0] != "_"]
        raise InvalidValueError(f"{module_name} has no function {name!r}; it has {', '.join(near) or 'none'}")
    if os.path.dirname(os.path.abspath(module.__file__ or "")) == os.getcwd():
        cloudpickle.register_pickle_by_value(module)
    found: Callable[..., Any] = function
    return found
