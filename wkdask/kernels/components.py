"""Connected components of a block: labelled in one pass over the voxels, with a forest of equivalences.

::

    scan, x fastest      a voxel takes the label of a neighbour before it; where two differ they become one tree
    flatten              the trees' roots are numbered 1, 2, … in the order in which the scan met them
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.kernels.layout import Block, jit

__all__ = ["CONNECTIVITIES", "first_places", "label_block", "merge_pairs"]

CONNECTIVITIES = {6: 1, 18: 2, 26: 3}
"""Neighbours of a voxel, and along how many axes at most they lie apart."""


def _neighbours(connectivity: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the steps (x, y, z) to the neighbours that a scan, x fastest, meets before a voxel."""
    if connectivity not in CONNECTIVITIES:
        raise InvalidValueError(
            f"connectivity is 6 (faces), 18 (and edges) or 26 (and corners), got {connectivity!r}"
        )
    apart = CONNECTIVITIES[connectivity]
    steps = [
        (x, y, z)
        for z in (-1, 0)
        for y in (-1, 0, 1)
        for x in (-1, 0, 1)
        if (z, y, x) < (0, 0, 0) and abs(x) + abs(y) + abs(z) <= apart
    ]
    return np.array(steps, np.int64)


def label_block(voxels: Block, connectivity: int = 6, *, by_value: bool = False) -> tuple[Block, Block]:
    """Label the connected components of a block.

    Parameters
    ----------
    voxels
        ``(x, y, z)``; voxels that are not zero belong to a component.
    connectivity
        6, 18 or 26 neighbours.
    by_value
        Whether neighbours belong together only where they are equal.

    Returns
    -------
    numpy.ndarray
        ``(x, y, z)`` of uint32 in Fortran order, or uint64 where a block has 2**32 voxels or more: 0 where the
        voxel is, else 1, 2, … without gaps.
    numpy.ndarray
        For each component the place of its first voxel, uint64: ``z + nz * (y + ny * x)``, the order of
        `scipy.ndimage.label`.
    """
    if not by_value:
        voxels = voxels != 0
    voxels = np.asfortranarray(voxels.view(np.uint8) if voxels.dtype == bool else voxels)
    dtype = np.uint32 if voxels.size < 2**32 else np.uint64
    labels = np.zeros(voxels.shape, dtype, order="F")
    firsts = _label(voxels, labels, _neighbours(connectivity))
    return labels, firsts


@jit
def _root(parents: Any, label: Any) -> Any:
    """Return the root of a label's tree, and halve the way to it for the next."""
    while parents[label] != label:
        parents[label] = parents[parents[label]]
        label = parents[label]
    return label


@jit
def _label(voxels: Any, labels: Any, steps: Any) -> Any:
    """Label in place; return the first place of every component."""
    nx, ny, nz = voxels.shape
    parents = np.zeros(1024, np.int64)
    count = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                value = voxels[x, y, z]
                if value == 0:
                    continue
                own = np.int64(0)
                for number in range(len(steps)):
                    i, j, k = x + steps[number, 0], y + steps[number, 1], z + steps[number, 2]
                    if i < 0 or j < 0 or k < 0 or i >= nx or j >= ny or voxels[i, j, k] != value:
                        continue
                    other = _root(parents, np.int64(labels[i, j, k]))
                    if own == 0:
                        own = other
                    elif other < own:
                        parents[own] = other
                        own = other
                    elif own < other:
                        parents[other] = own
                if own == 0:
                    count += 1
                    if count == len(parents):
                        larger = np.zeros(2 * count, np.int64)
                        larger[:count] = parents
                        parents = larger
                    parents[count] = count
                    own = np.int64(count)
                labels[x, y, z] = own
    # A label leads to a smaller one, which has its number already; numbers are negative until all have theirs.
    total = 0
    for label in range(1, count + 1):
        if parents[label] == label:
            total += 1
            parents[label] = -total
        else:
            parents[label] = parents[parents[label]]
    firsts = np.full(total, np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64)
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                provisional = labels[x, y, z]
                if provisional == 0:
                    continue
                final = -parents[np.int64(provisional)]
                labels[x, y, z] = final
                place = np.uint64(z + nz * (y + ny * x))
                if place < firsts[final - 1]:
                    firsts[final - 1] = place
    return firsts


def first_places(labels: Block) -> Block:
    """Return the place of the first voxel of each label 1, 2, … of a block ``(x, y, z)``, as `label_block` does."""
    firsts: Block = _first_places(labels, int(labels.max(initial=0)))
    return firsts


@jit
def _first_places(labels: Any, count: Any) -> Any:
    nx, ny, nz = labels.shape
    firsts = np.full(count, np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64)
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                label = np.int64(labels[x, y, z])
                place = np.uint64(z + nz * (y + ny * x))
                if label != 0 and place < firsts[label - 1]:
                    firsts[label - 1] = place
    return firsts


@jit
def merge_pairs(parents: Any, pairs: Any) -> Any:
    """Join trees by pairs ``(n, 2)`` of their nodes, then let every node of `parents` point at its root."""
    for number in range(len(pairs)):
        first, second = _root(parents, pairs[number, 0]), _root(parents, pairs[number, 1])
        if first < second:
            parents[second] = first
        else:
            parents[first] = second
    for node in range(len(parents)):
        parents[node] = parents[parents[node]]  # the smaller is the root: its own way is short already
    return parents
