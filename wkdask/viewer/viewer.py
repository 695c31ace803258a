"""`wkdask.view`: shows what it is given in a browser, and shows something else in the same window later."""

from __future__ import annotations

import atexit
import html
import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox, Mag, MagLike, as_box
from wkdask.geometry.voxel_size import VoxelSize, as_voxel_size
from wkdask.jobs.engines.choice import active_client
from wkdask.viewer.layers import Where, layers_of
from wkdask.viewer.scales import ShownLayer
from wkdask.viewer.server import Server
from wkdask.viewer.state import first_state, updated_state

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Viewer", "view"]


class Viewer:
    """A window on datasets and expressions, at an address of this machine.

    Made by :func:`wkdask.view`. It serves chunks from a thread of this process until :meth:`close`, or until the
    process ends. In a notebook it is shown inline.

    Parameters
    ----------
    layers
        What is shown.
    port
        The port of 127.0.0.1; any that is free by default.
    cache_nbytes
        Bytes of decoded chunks that are kept.
    threads
        How many chunks are made at a time, at least; one for each core by default.

    Examples
    --------
    >>> with wkdask.view(layer) as viewer:
    ...     viewer.layers
    ('color',)
    """

    def __init__(
        self, layers: tuple[ShownLayer, ...], port: int = 0, cache_nbytes: int = 256 << 20, threads: int = 0
    ) -> None:
        self._server = Server(layers, partial(first_state, layers), port, cache_nbytes, threads)
        self._closed = threading.Event()
        self.notes = _notes(layers)
        """What is to be known of the layers: a type that is cast, a resolution that is approximate."""

    @property
    def url(self) -> str:
        """The address of the viewer. Who has it can look at the data, from this machine."""
        return self._server.url

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return self._server.port

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that are shown."""
        return tuple(self._server.layers)

    def zarr_url(self, layer: str) -> str:
        """Return the address of a layer as a Zarr 3 group with OME-Zarr metadata, for any reader of Zarr.

        Parameters
        ----------
        layer
            The name of a layer that is shown.

        Raises
        ------
        InvalidValueError
            If none of this name is.
        """
        import urllib.parse

        if layer not in self._server.layers:
            raise InvalidValueError(f"no layer {layer!r} is shown; there are {', '.join(self.layers)}")
        return f"{self._server.data_url}/zarr/{urllib.parse.quote(layer, safe='')}"

    def show(self, layers: tuple[ShownLayer, ...], threads: int = 0) -> None:
        """Show other layers at the place where the user is; layers of the same names keep their settings."""
        self._server.show(layers, lambda state, sources: updated_state(state, layers, sources), threads)
        self.notes = _notes(layers)

    @property
    def is_closed(self) -> bool:
        """Whether it serves nothing any more."""
        return self._closed.is_set()

    def wait(self) -> None:
        """Wait until the viewer is closed, or Ctrl-C."""
        # Looked at now and then: a wait without end would not hear Ctrl-C everywhere.
        while not self._closed.wait(1):
            pass

    def close(self) -> None:
        """Stop serving. What is closed already stays so."""
        if not self._closed.is_set():
            self._closed.set()
            self._server.close()
            atexit.unregister(self.close)

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        names = ", ".join(self.layers)
        return f"Viewer({'closed' if self.is_closed else self.url}, layers: {names})"

    def _repr_html_(self) -> str:
        if self.is_closed:
            return html.escape(repr(self))
        notes = "".join(f"<div>{html.escape(note)}</div>" for note in self.notes)
        return (
            f'<iframe src="{html.escape(self.url)}" width="100%" height="600" style="border: 1px solid #888" '
            f'title="wkdask viewer"></iframe>{notes}'
        )


def _notes(layers: Sequence[ShownLayer]) -> tuple[str, ...]:
    """Return what is to be known of layers."""
    return tuple(note for layer in layers for note in layer.notes)


def _threads_of(client: Client | None) -> int:
    """Return how many chunks a cluster computes at a time: a thread here waits for each of them."""
    if client is None:
        return 0
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return min(_MOST_WAITING, sum(int(worker["nthreads"]) for worker in workers))


_MOST_WAITING = 64
"""Chunks that a cluster computes at a time, at most: a browser asks for some dozens."""

_current: Viewer | None = None
"""The viewer that `view` made last: the next call shows its layers there."""
_lock = threading.Lock()


def view(
    *shown: Any,
    mag: MagLike | Sequence[MagLike] | None = None,
    bounding_box: BoundingBox | None = None,
    voxel_size: Sequence[float] | VoxelSize | None = None,
    client: Client | None = None,
    port: int = 0,
    new: bool = False,
    open_browser: bool = False,
) -> Viewer:
    """Show datasets, layers, mags and lazy expressions in neuroglancer, in the browser or inline in a notebook.

    Nothing is read or computed but the chunks on the screen. Calling it again shows the new things in the same
    window at the same place: so an expression can be tried with other parameters before it is written.

    Parameters
    ----------
    shown
        Any number of: a :class:`Dataset` (all its layers), a :class:`Layer`, a :class:`MagView` or :class:`View`,
        a dask or numpy array ``(c, x, y, z)`` or ``(x, y, z)``, one of xarray (:meth:`MagView.to_xarray`), or
        ``(function, layer)``, where the function takes and returns a lazy array. A name may come first:
        ``("inverted", 255 - mag.to_dask())``.
    mag
        The mags that are shown of layers; all by default. Of an array: the mag it lies in.
    bounding_box
        The part that is shown, in voxels of mag 1; all by default. Of an array: where it lies. By default an array
        that is as large as a mag that it reads lies where that does.
    voxel_size
        Sides of a voxel of mag 1 in nm, of an array that reads no mag.
    client
        The cluster on which expressions are computed; the active one by default, else threads of this process.
    port
        The port on 127.0.0.1 of a new viewer; any that is free by default.
    new
        Open a further viewer, instead of showing this in the one that is open.
    open_browser
        Open the viewer in the browser of this machine.

    Returns
    -------
    Viewer
        With its address as ``url``.

    Raises
    ------
    InvalidValueError
        If something cannot be shown, it is not known where an array lies, or the port is in use.
    MissingPackageError
        If neuroglancer is not installed: ``pip install 'wkdask[view]'``.

    Notes
    -----
    Coarser resolutions of an array are downsampled out of it when they are looked at, which computes all that is
    on the screen. Those of ``(function, layer)`` are the function of the layer's coarser mags: quick, and
    approximate.

    Examples
    --------
    >>> viewer = wkdask.view(layer, ("inverted", 255 - mag.to_dask()))
    >>> viewer.layers
    ('color', 'inverted')
    >>> viewer = wkdask.view((lambda block: block // 2, layer))  # shown in the same window
    >>> viewer.close()
    """
    global _current
    if mag is None:
        mags: tuple[Mag, ...] = ()
    elif isinstance(mag, list | tuple | set) and not all(isinstance(each, int) for each in mag):
        mags = tuple(Mag(each) for each in mag)
    else:
        mags = (Mag(mag),)  # type: ignore[arg-type]
    where = Where(
        mags,
        None if bounding_box is None else as_box(bounding_box),
        None if voxel_size is None else as_voxel_size(voxel_size),
        client if client is not None else active_client(),
    )
    layers = layers_of(shown, where)
    threads = _threads_of(where.client)
    with _lock:
        if new or _current is None or _current.is_closed:
            viewer = Viewer(layers, port, threads=threads)
            atexit.register(viewer.close)
            if not new:
                _current = viewer
        else:
            viewer = _current
            viewer.show(layers, threads)
    if open_browser:
        import webbrowser

        webbrowser.open(viewer.url)
    return viewer
