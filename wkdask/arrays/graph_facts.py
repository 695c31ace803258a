"""What a dask expression reads and does, according to its graph; nothing is computed.

::

    graph ─┬─ facts_of        which stored mags it reads; whether something in it may read others unseen
           └─ structure_of    what it computes from a mag, whatever the mag holds now: the same text before and
                              after the mag was replaced, so that a job in place is recognised by the same call

A graph is a stack of layers. A blockwise layer is one task for all its blocks and is looked at once; a materialised
layer is looked at task by task, up to a limit.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.arrays.lazy import LazySource, Readable
from wkdask.errors import PlanError
from wkdask.geometry import BoundingBox
from wkdask.storage.formats import is_stored_mag

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["GraphFacts", "facts_of", "refuse_p2p", "structure_of"]

_MOST_TASKS = 200_000
"""Tasks of materialised layers that are looked at; of a larger graph it is not known what it reads."""
_DEEPEST = 40
"""How deep arguments may be nested."""
_KNOWN_MODULES = frozenset(
    (
        "builtins",
        "operator",
        "_operator",
        "functools",
        "itertools",
        "math",
        "numpy",
        "scipy",
        "dask",
        "toolz",
        "tlz",
    )
)
"""Functions and values of these read nothing but their arguments."""
_PLAIN = (type(None), bool, int, float, complex, str, bytes, slice, type(...), np.dtype, np.generic, type)
_TOKEN = re.compile(r"[0-9a-f]{24,32}")


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What the graph of an expression shows."""

    sources: tuple[Readable, ...]
    """The stored mags, and external arrays, that it is seen to read."""
    is_known: bool
    """Whether it reads nothing else for sure: no function, object or future in it could hide a read."""
    futures: tuple[Any, ...] = ()
    """Results that were persisted on a cluster."""
    boxes: tuple[tuple[Readable, BoundingBox], ...] = ()
    """The sources with the box of each lazy array of them: absolute, in voxels of the mag."""

    def reads(self, path: str) -> bool:
        """Return whether it is seen to read the mag in a folder."""
        return any(source.path == path for source in self.sources)


def facts_of(array: da.Array) -> GraphFacts:
    """Return what an expression reads.

    Parameters
    ----------
    array
        A dask array, or anything with a dask graph.
    """
    walk = _Walk()
    layers = _layers(array)
    budget = _MOST_TASKS
    for layer in layers.values():
        if (task := getattr(layer, "task", None)) is not None:  # blockwise: one task for all blocks
            walk.look(task)
            walk.look([argument for argument, index in layer.indices if index is None])
            walk.look(list(layer.io_deps.values()))
        elif getattr(layer, "is_materialized", lambda: True)():
            budget -= len(layer)
            if budget < 0:
                walk.is_known = False
                break
            for value in dict(layer).values():
                walk.look(value)
        elif not _is_of_known_module(type(layer)):  # dask's own layers slice and join, whatever they are
            walk.is_known = False
    return GraphFacts(
        tuple(walk.sources.values()), walk.is_known, tuple(walk.futures), tuple(walk.boxes.values())
    )


def refuse_p2p(array: da.Array) -> None:
    """Refuse an expression that is rechunked by dask's method "p2p".

    Raises
    ------
    PlanError
        If so: such a rechunk is one barrier over the whole array, and cannot be cut into windows of tasks.
    """
    for name, layer in _layers(array).items():
        if type(layer).__name__ == "P2PRechunkLayer" or name.startswith("rechunk-p2p"):
            raise PlanError(
                f'the array is rechunked by dask\'s method "p2p" ({name}), which cannot be written window '
                f"by window; "
                f'build it with x.rechunk(..., method="tasks"), or with '
                f'dask.config.set({{"array.rechunk.method": "tasks"}})'
            )


def _layers(array: Any) -> Mapping[str, Any]:
    """Return the layers of a graph by name; a graph without layers is one."""
    graph = array.__dask_graph__()
    layers = getattr(graph, "layers", None)
    return {"": graph} if layers is None else layers


class _Walk:
    """A look at tasks, arguments and constants."""

    def __init__(self) -> None:
        self.sources: dict[str, Readable] = {}
        self.boxes: dict[str, tuple[Readable, BoundingBox]] = {}  # by the token of the lazy array
        self.is_known = True
        self.futures: list[Any] = []
        self._known: set[Any] = set()  # functions that were looked at

    def look(self, value: Any, depth: int = 0) -> None:
        """Look at a value and at all that it holds."""
        if isinstance(value, LazySource):
            self.sources[value.store.path] = value.store
            self.boxes[value.token] = (value.store, value.box)
        elif type(value).__module__ == "distributed.client":
            self.futures.append(value)
            self.is_known = False
        elif isinstance(value, _PLAIN) or type(value) is np.ndarray:
            if isinstance(value, np.ndarray) and value.dtype.hasobject:
                self.is_known = False
        elif depth > _DEEPEST:
            self.is_known = False
        elif isinstance(value, Mapping):
            for each in value.values():
                self.look(each, depth + 1)
        elif isinstance(value, list | tuple | set | frozenset):
            for each in value:
                self.look(each, depth + 1)
        elif (parts := _parts_of(value)) is not None:
            for each in parts:
                self.look(each, depth + 1)
        elif callable(value):
            self._look_at_function(value)
        elif not _is_of_known_module(type(value)):
            self.is_known = False

    def _look_at_function(self, function: Any) -> None:
        """Note whether a function may read something by itself."""
        try:
            if function in self._known:
                return
            self._known.add(function)
        except TypeError:  # it cannot be hashed
            self.is_known = False
            return
        if isinstance(function, np.vectorize) or not _is_of_known_module(function):
            self.is_known = False


def _parts_of(value: Any) -> Iterator[Any] | None:
    """Return what one of dask's task objects, or a partial, is made of; None for other values."""
    if isinstance(value, functools.partial):
        return iter((value.func, value.args, value.keywords))
    if type(value).__module__ != "dask._task_spec":
        return None
    return iter(
        [
            getattr(value, name)
            for name in ("func", "args", "kwargs", "value")
            if getattr(value, name, None) is not None
        ]
    )


def _is_of_known_module(thing: Any) -> bool:
    """Return whether a function, method or class comes from a module whose functions read only their arguments."""
    if isinstance(thing, np.ufunc):
        return True
    own = getattr(thing, "__self__", None)
    if own is not None and not isinstance(own, type) and type(own).__name__ != "module":
        return _is_of_known_module(type(own))
    name = getattr(thing, "__module__", None) or getattr(type(thing), "__module__", "") or ""
    if name.startswith("wkdask."):
        return True
    return name.partition(".")[0] in _KNOWN_MODULES


# --- what is computed, whatever the target holds ---------------------------------------------------------


def structure_of(array: da.Array, *targets: str) -> str:
    """Return a text that stands for what an expression computes from mags, not for what the mags hold.

    Names of dask arrays depend on the state of the files that they read. This text is the same for the same
    expression on the same mags before and after they were replaced; of everything else that the expression
    reads, the state counts.

    Parameters
    ----------
    array
        A dask array.
    targets
        The folders of the mags, always in the same order.
    """
    layers = _layers(array)
    try:
        structure = _Structure(layers, targets)
        # Dependencies first, so that no chain of layers or keys is followed down in one go.
        for name in _sorted_layers(array, layers):
            structure.prepare(name)
        return structure.of_array(array)
    except RecursionError:
        raise PlanError(
            'the graph of this array is too deep to be recognised later; name the job yourself: job="..."'
        ) from None


def _sorted_layers(array: Any, layers: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of layers, each after those that it depends on."""
    dependencies = getattr(array.__dask_graph__(), "dependencies", {})
    return iter(TopologicalSorter({name: dependencies.get(name, ()) for name in layers}).static_order())


class _Structure:
    """Hashes of layers and keys, made of the hashes of what they depend on: names do not count."""

    def __init__(self, layers: Mapping[str, Any], targets: Sequence[str]) -> None:
        self._layers = layers
        self._targets = targets
        self._of_layer: dict[str, str] = {}
        self._of_key: dict[Any, str] = {}
        self._tasks: dict[Any, Any] = {}
        self._names: dict[str, int] = {}  # names within fused tasks, by the order in which they appear
        self._keys: dict[Any, list[Any]] = {}  # the keys of materialised layers, by their name
        for layer in layers.values():
            if getattr(layer, "task", None) is None:
                self._tasks.update(dict(layer))
        for key in self._tasks:
            if isinstance(key, tuple):
                self._keys.setdefault(key[0], []).append(key)

    def prepare(self, name: str) -> None:
        """Hash a layer whose dependencies are hashed; of a materialised one the keys in their order."""
        layer = self._layers[name]
        if getattr(layer, "task", None) is not None:
            self._layer(name)
        else:
            for key in dict(layer):
                self._key(key)

    def of_array(self, array: Any) -> str:
        """Return the hash of an array."""
        name = str(array.name)
        if name in self._layers and getattr(self._layers[name], "task", None) is not None:
            result = self._layer(name)
        else:
            keys = [(name, *index) for index in np.ndindex(*array.numblocks)]
            result = _hash(*map(self._key, keys))
        return _hash(result, repr(array.chunks), str(array.dtype))

    def _layer(self, name: str) -> str:
        """Return the hash of a blockwise layer, or of a name that has many keys in a materialised one."""
        if name not in self._of_layer:
            self._of_layer[name] = "circle"
            layer = self._layers.get(name)
            if layer is not None and getattr(layer, "task", None) is not None:
                self._of_layer[name] = self._blockwise(layer)
            else:
                keys = sorted(self._keys.get(name, ()), key=str)
                self._of_layer[name] = _hash(*(f"{key[1:]}{self._key(key)}" for key in keys))
        return self._of_layer[name]

    def _blockwise(self, layer: Any) -> str:
        """Return the hash of a blockwise layer."""
        inputs = []
        for argument, index in layer.indices:
            if index is None:
                inputs.append(self._value(argument))
            elif argument in layer.io_deps:
                inputs.append(f"{self._value(layer.io_deps[argument])}{index}")
            else:
                inputs.append(f"{self._layer(argument)}{index}")
        axes = (layer.output_indices, layer.concatenate, sorted(layer.new_axes.items()))
        return _hash(self._value(layer.task), repr(axes), *inputs)

    def _key(self, key: Any) -> str:
        """Return the hash of a key."""
        if key not in self._of_key:
            self._of_key[key] = "circle"
            if key in self._tasks:
                self._of_key[key] = self._value(self._tasks[key])
            else:
                name, *index = key if isinstance(key, tuple) else (key,)
                self._of_key[key] = _hash(self._layer(name), repr(index))
        return self._of_key[key]

    def _is_key(self, value: Any) -> bool:
        """Return whether a value is a key of the graph."""
        try:
            if value in self._tasks:
                return True
        except TypeError:
            return False
        return (
            isinstance(value, tuple)
            and bool(value)
            and isinstance(value[0], str)
            and value[0] in self._layers
        )

    def _value(self, value: Any) -> str:
        """Return the hash of a task, an argument or a constant."""
        if isinstance(value, LazySource):
            return _hash("source", self._state(value), str(value.box))
        if self._is_key(value):
            return self._key(value)
        if isinstance(value, str):
            return _TOKEN.sub(lambda found: f"#{self._names.setdefault(found[0], len(self._names))}", value)
        if isinstance(value, Mapping):
            return _hash("map", *(f"{self._value(key)}={self._value(each)}" for key, each in value.items()))
        if isinstance(value, list | tuple):
            return _hash(type(value).__name__, *map(self._value, value))
        if isinstance(value, functools.partial):
            return _hash("partial", *map(self._value, (value.func, value.args, value.keywords)))
        if type(value).__module__ == "dask._task_spec":
            if (key := getattr(value, "target", None) or _referred(value)) is not None:
                return self._key(key) if self._is_key(key) else self._value(key)
            if getattr(getattr(value, "func", None), "__name__", "") == "_execute_subgraph":
                # Fused tasks: the order in which dask lists their inputs changes from process to process.
                tasks, output, names, *inputs = value.args
                pairs = sorted(zip(map(str, names), map(self._value, inputs), strict=True))
                return _hash("fused", self._value(tasks), self._value(output), repr(pairs))
            return _hash(type(value).__name__, *map(self._value, _parts_of(value) or ()))
        from dask.base import tokenize

        return str(tokenize(value))

    def _state(self, source: LazySource) -> str:
        """Return what stands for a source; mags are named from the first target on: both may be moved."""
        path = source.store.path
        if path in self._targets:
            return f"target {self._targets.index(path)}"
        if self._targets and is_stored_mag(source.store):
            state = source.store.fingerprint(source.box)
            return f"{os.path.relpath(path, self._targets[0])}:{state}"
        return source.token


def _referred(value: Any) -> Any:
    """Return the key that one of dask's references stands for; None for other values."""
    return value.key if type(value).__name__ == "TaskRef" else None


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
