"""Agglomerates: which segments belong together, as a graph and as the Zarr 3 arrays that WEBKNOSSOS reads.

Graphs are networkx's, which wkdask does not need otherwise: ``pip install wkdask[graph]``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from wkdask.attachments.making import made_apart
from wkdask.errors import AlreadyExistsError, DamagedHeaderError, DTypeError, InvalidValueError
from wkdask.fsio import is_there
from wkdask.geometry.vectors import Vec3Int, Vec3IntLike

try:
    import networkx
except ImportError as error:
    raise ImportError(
        "agglomerate graphs need networkx, which is not installed: pip install wkdask[graph]"
    ) from error


__all__ = ["AgglomerateGraph", "read_graph", "write_graph"]

_ATTRIBUTES = {"voxelytics": {"artifact_schema_version": 4, "artifact_class": "AgglomerateViewArtifact"}}
_CHUNK = 1 << 17
"""Rows of a chunk; 16 of them share a file."""
_SHARD = _CHUNK << 4


class AgglomerateGraph(networkx.Graph):  # type: ignore[misc]
    """A networkx graph whose nodes are segments with a ``position`` and whose edges have an ``affinity``.

    Segments that are connected are one agglomerate.

    Examples
    --------
    >>> graph = AgglomerateGraph()
    >>> graph.add_segment(1, position=(10, 20, 30))
    >>> graph.add_segment(2, position=(12, 20, 30))
    >>> graph.add_affinity_edge(1, 2, affinity=0.9)
    """

    def add_segment(self, segment_id: int, *, position: Vec3IntLike) -> None:
        """Add a segment.

        Parameters
        ----------
        segment_id
            Its id; ids count from 1 without gaps.
        position
            A voxel of it (x, y, z), in mag 1.
        """
        self.add_node(int(segment_id), position=Vec3Int(position))

    def add_affinity_edge(self, u: int, v: int, *, affinity: float) -> None:
        """Connect two segments.

        Parameters
        ----------
        u, v
            Their ids.
        affinity
            How surely they belong together.
        """
        self.add_edge(int(u), int(v), affinity=affinity)

    def __repr__(self) -> str:
        return f"AgglomerateGraph({self.number_of_nodes()} nodes, {self.number_of_edges()} edges)"


def write_graph(folder: str | os.PathLike[str], graph: AgglomerateGraph, segmentation_dtype: Any) -> None:
    """Write a graph as the Zarr 3 group of an agglomerate attachment; it is there when it is complete.

    Agglomerates count from 1 in the order of their smallest segment; 0 is that of the background.

    Parameters
    ----------
    folder
        The folder to make.
    graph
        Segments from 1 without gaps, each with a position; edges with an affinity.
    segmentation_dtype
        uint32 or uint64.

    Raises
    ------
    AlreadyExistsError
        If something has that name.
    DTypeError
        If it is another type.
    InvalidValueError
        If ids have gaps, or a position or an affinity is missing; nothing was made.
    """
    folder = os.path.abspath(folder)
    dtype = np.dtype(segmentation_dtype)
    if dtype not in (np.dtype("uint32"), np.dtype("uint64")):
        raise DTypeError(f"agglomerates are made for segmentations of uint32 or uint64, got {dtype}")
    arrays = _arrays_of(graph, dtype)
    if is_there(folder):
        raise AlreadyExistsError(f"{folder} exists already")
    with made_apart(folder) as hidden:
        os.makedirs(hidden)
        group = {"zarr_format": 3, "node_type": "group", "attributes": _ATTRIBUTES}
        Path(hidden, "zarr.json").write_text(json.dumps(group))
        for name, array in arrays.items():
            _write_array(os.path.join(hidden, name), array)


def _arrays_of(graph: AgglomerateGraph, dtype: np.dtype[Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of a graph, or raise InvalidValueError."""
    segments = sorted(graph.nodes)
    if segments and segments[0] < 1:
        raise InvalidValueError(f"segments are positive integers, counted from 1; got {segments[0]}")
    if segments != list(range(1, len(segments) + 1)):
        missing = next(n for n, each in enumerate(segments, start=1) if n != each)
        raise InvalidValueError(
            f"the ids of segments are dense, from 1 to {segments[-1]} without gaps, but {missing} is missing: "
            "add it with add_segment"
        )
    for each in segments:
        if "position" not in graph.nodes[each]:
            raise InvalidValueError(f"segment {each} has no position; add it with add_segment")
    groups = sorted(
        (sorted(group) for group in networkx.connected_components(graph)), key=lambda group: group[0]
    )
    owner = np.zeros(len(segments) + 1, np.uint64)
    order: list[int] = []
    edges: list[tuple[int, int]] = []
    affinities: list[float] = []
    starts, edge_starts = [0, 0], [0, 0]
    for number, group in enumerate(groups, start=1):
        owner[group] = number
        place = {each: n for n, each in enumerate(group)}
        order += group
        pairs = [(place[u], place[v], affinity) for u, v, affinity in _edges(graph, group)]
        found = sorted((min(u, v), max(u, v), affinity) for u, v, affinity in pairs)
        edges += [(u, v) for u, v, _ in found]
        affinities += [affinity for _, _, affinity in found]
        starts.append(len(order))
        edge_starts.append(len(edges))
    positions = [Vec3Int(graph.nodes[each]["position"]) for each in order]
    return {
        "segment_to_agglomerate": owner,
        "agglomerate_to_segments_offsets": np.array(starts, np.uint64),
        "agglomerate_to_segments": np.array(order, dtype),
        "agglomerate_to_positions": _positions(positions),
        "agglomerate_to_edges_offsets": np.array(edge_starts, np.uint64),
        "agglomerate_to_edges": np.array(edges, dtype).reshape(-1, 2),
        "agglomerate_to_affinities": np.array(affinities, np.float32),
    }


def _edges(graph: AgglomerateGraph, group: list[int]) -> list[tuple[int, int, float]]:
    found = []
    for u, v, data in graph.edges(group, data=True):
        if "affinity" not in data:
            raise InvalidValueError(f"the edge {u}, {v} has no affinity; add it with add_affinity_edge")
        found.append((u, v, float(data["affinity"])))
    return found


def _positions(positions: list[Vec3Int]) -> np.ndarray[Any, Any]:
    array = np.array(positions, np.int64).reshape(-1, 3)
    if array.size and (array.min() < -(2**31) or array.max() >= 2**31):
        raise InvalidValueError("positions of segments have 32 bits, but one lies beyond them")
    return array.astype(np.int32)


def _write_array(folder: str, array: np.ndarray[Any, Any]) -> None:
    """Write an array in shards, as webknossos does."""
    import zarr
    from zarr.codecs import ZstdCodec

    rows = max(1, min(array.shape[0], _CHUNK))
    shard = rows if array.shape[0] <= _CHUNK else _SHARD
    rest = array.shape[1:]
    stored = zarr.create_array(
        folder,
        shape=array.shape,
        dtype=array.dtype,
        chunks=(rows, *rest),
        shards=(shard, *rest),
        compressors=ZstdCodec(level=5, checksum=True),
        fill_value=0,
        zarr_format=3,
    )
    if array.size:
        stored[...] = array


def read_graph(folder: str | os.PathLike[str]) -> AgglomerateGraph:
    """Return the graph of the Zarr 3 group of an agglomerate attachment, whole in memory.

    Raises
    ------
    FileNotFoundError
        If there is no such group.
    DamagedHeaderError
        If its arrays are not there, or do not fit together.
    """
    import zarr

    if not Path(folder, "zarr.json").is_file():
        raise FileNotFoundError(f"there are no agglomerates at {folder}: zarr.json is missing")
    names = ("segments_offsets", "segments", "positions", "edges_offsets", "edges", "affinities")
    try:
        group: Any = zarr.open_group(os.fspath(folder), mode="r")
        arrays = [np.asarray(group[f"agglomerate_to_{name}"][...]) for name in names]
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise DamagedHeaderError(f"the agglomerates at {folder} cannot be read: {error}") from error
    starts, segments, positions, edge_starts, edges, affinities = arrays
    _check_offsets(folder, starts, segments)
    _check_offsets(folder, edge_starts, edges)
    shapes = (positions.shape, edges.shape[1:], affinities.shape, edge_starts.shape)
    if shapes != ((len(segments), 3), (2,), (len(edges),), starts.shape):
        raise DamagedHeaderError(f"the arrays of the agglomerates at {folder} do not fit together: {shapes}")
    graph = AgglomerateGraph()
    for segment, position in zip(segments.tolist(), positions.tolist(), strict=True):
        graph.add_segment(segment, position=position)
    for n in range(len(starts) - 1):
        group_segments = segments[int(starts[n]) : int(starts[n + 1])].tolist()
        span = slice(int(edge_starts[n]), int(edge_starts[n + 1]))
        for (u, v), affinity in zip(edges[span].tolist(), affinities[span].tolist(), strict=True):
            if max(u, v) >= len(group_segments):
                raise DamagedHeaderError(
                    f"an edge of agglomerate {n} at {folder} leaves its segments: {u}, {v}"
                )
            graph.add_affinity_edge(group_segments[u], group_segments[v], affinity=affinity)
    return graph


def _check_offsets(
    folder: str | os.PathLike[str], starts: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]
) -> None:
    """Raise DamagedHeaderError unless offsets rise from 0 to the number of rows."""
    ends = starts.tolist()
    if starts.ndim != 1 or not ends or ends[0] != 0 or ends[-1] != len(rows) or ends != sorted(ends):
        raise DamagedHeaderError(
            f"the offsets of the agglomerates at {folder} do not rise from 0 to {len(rows)}"
        )
