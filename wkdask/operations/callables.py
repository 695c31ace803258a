"""A user's function: how it gets to the workers, and what it is called in every process.

::

    by reference   module and name travel, each worker imports them       functions of installed modules
    by value       the code travels                                       functions of a notebook, a script, lambdas

The name of a job that is resumed stands for what the function does: for its code, its defaults, what it encloses,
and for the constants and the functions of its own module that it uses, a few steps deep. What lies in other modules
counts by its name only.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import pickle
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from wkdask.errors import ResumeError

__all__ = ["Shipped", "call_name", "describe", "takes", "takes_block"]

_DEPTH = 8
"""Functions that call functions of the same module are followed so far."""
_PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    tuple,
    list,
    dict,
    frozenset,
    np.ndarray,
    np.generic,
)
"""Values of a module that belong to what a function does."""


class Shipped:
    """A function that is pickled once, however many tasks carry it, and unpickled once per process.

    It is unpickled when it is first called, not when the task arrives: a function that a worker cannot import then
    fails its task. An error while a message is read would end the connection of the worker, and the job would hang.
    """

    __slots__ = ("_bytes", "_function")

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function: Callable[..., Any] | None = function
        self._bytes: bytes | None = None

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself.

        Raises
        ------
        ImportError
            If this process cannot import the module that it is from.
        """
        if self._function is None:
            self._function = _unpickled(self._bytes or b"")
        return self._function

    def __reduce__(self) -> tuple[Any, ...]:
        if self._bytes is None:
            import cloudpickle

            self._bytes = cloudpickle.dumps(self._function)
        return (_arrived, (self._bytes,))

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the function."""
        return self.function(*arguments, **keywords)


@functools.lru_cache(maxsize=16)
def _arrived(content: bytes) -> Shipped:
    """Return the function that the driver of this job has pickled, not unpickled yet."""
    shipped = Shipped.__new__(Shipped)
    shipped._bytes, shipped._function = content, None
    return shipped


def _unpickled(content: bytes) -> Callable[..., Any]:
    """Return a function that was pickled elsewhere; the error says what is missing here."""
    try:
        function: Callable[..., Any] = pickle.loads(content)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"a worker cannot import the function ({type(error).__name__}: {error}). Install its module where the "
            f"workers run, send it with client.upload_file, or define the function in the script or notebook itself"
        ) from error
    return function


def describe(function: Callable[..., Any]) -> str:
    """Return module and name, for people: ``"filters.sharpen"``."""
    inner = function.func if isinstance(function, functools.partial) else function
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    return f"{getattr(inner, '__module__', None) or type(inner).__module__}.{name}"


def takes(function: Callable[..., Any], name: str) -> bool:
    """Return whether a function has a parameter of a name; False where it does not say."""
    try:
        parameter = inspect.signature(function).parameters.get(name)
    except (TypeError, ValueError):
        return False
    return parameter is not None and parameter.kind in (
        parameter.POSITIONAL_OR_KEYWORD,
        parameter.KEYWORD_ONLY,
    )


def takes_block(function: Callable[..., Any], names: Iterable[str]) -> bool:
    """Return whether a function takes another block than those of `names` (and ``box``)."""
    keywords = dict.fromkeys(names)
    if not keywords:
        return True
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    if takes(function, "box"):
        keywords["box"] = None
    try:
        signature.bind(None, **keywords)
    except TypeError:
        return False
    return True


def call_name(function: Callable[..., Any]) -> str:
    """Return a text that is the same in every process for a function that does the same.

    Raises
    ------
    ResumeError
        If something that belongs to the function has another name in every process.
    """
    digest = hashlib.blake2b(digest_size=12)
    for part in _parts(function, _DEPTH, set()):
        digest.update(part.encode() + b"\0")
    return f"{describe(function)}-{digest.hexdigest()}"


def _parts(value: Any, depth: int, seen: set[int]) -> Iterator[str]:
    """Yield texts that stand for what a function does, or for a value that it uses."""
    if id(value) in seen or depth < 0:
        yield "again"
        return
    if isinstance(value, functools.partial):
        yield "partial"
        for part in (
            value.func,
            *value.args,
            *(item for pair in sorted(value.keywords.items()) for item in pair),
        ):
            yield from _parts(part, depth - 1, seen)
    elif isinstance(value, types.MethodType):
        yield from _parts(value.__self__, depth - 1, seen)
        yield from _parts(value.__func__, depth - 1, seen)
    elif isinstance(value, types.FunctionType):
        seen.add(id(value))
        yield describe(value)
        yield from _code(value.__code__)
        yield from _used(value, depth, seen)
    elif isinstance(value, types.ModuleType):
        yield value.__name__
    else:
        yield _token(value)


def _code(code: types.CodeType) -> Iterator[str]:
    """Yield what the compiler made of a function, without the lines where it stands."""
    yield code.co_code.hex()
    yield " ".join([*code.co_names, *code.co_varnames, *code.co_freevars])
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code(constant)
        else:  # the order of a set is another one in every process
            yield repr(sorted(constant, key=repr) if isinstance(constant, frozenset) else constant)


def _used(function: types.FunctionType, depth: int, seen: set[int]) -> Iterator[str]:
    """Yield what stands for a function's defaults, for what it encloses, and for what it uses of its module."""
    for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield from _parts(value, depth - 1, seen)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield name
        try:
            content = cell.cell_contents
        except ValueError:  # not bound yet
            continue
        yield from _parts(content, depth - 1, seen)
    for name in sorted(_names(function.__code__)):
        value = function.__globals__.get(name)
        own = isinstance(value, types.FunctionType) and value.__module__ == function.__module__
        if own or (name in function.__globals__ and isinstance(value, _PLAIN)):
            yield name
            yield from _parts(value, depth - 1, seen)


def _names(code: types.CodeType) -> set[str]:
    """Return the names that a function looks up, those of the functions inside it as well."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


def _token(value: Any) -> str:
    """Return dask's token of a value."""
    import dask
    from dask.base import tokenize

    try:
        with dask.config.set({"tokenize.ensure-deterministic": True}):
            return str(tokenize(value))
    except RuntimeError as error:  # dask's TokenizationError is one
        raise ResumeError(
            f"this function cannot be resumed: {type(value).__name__} {value!r:.80} has another name in every "
            f'process ({error}). Name the job yourself: job="..."'
        ) from error
