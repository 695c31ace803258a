"""A small synthetic block of brain tissue: electron microscopy and its segmentation, from a seed.

Everything is computed from hashes of integer lattices in world coordinates (nm), never from the array that
is filled: any box of the same seed and voxel size shows the same tissue, so tasks fill blocks on their own.

The tissue has two families of neurites. Most run along z: each is a centre line that drifts slowly, and the
space between is shared by an additively weighted Voronoi tessellation (a large weight is a dendrite), whose
coordinates are warped by smooth noise. Some run along x, and push the others aside instead of cutting
them: so a label stays in one piece. The functions below `make_tissue` are plain Python that numba compiles
on the first call; numba is not imported before.
"""

from __future__ import annotations

import functools
import math
import operator
import threading
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wkdask.compiling import compiling
from wkdask.errors import InvalidValueError

__all__ = ["make_tissue"]

_TILE_NM = 5000.0  # widest part of a section filled at once: bounds the table of centre lines
_ROW, _STOREY = 4600.0, 1900.0  # nm in y and z from one neurite along x to the next
_LIMIT = 2**31  # voxels; farther out, nm positions would begin to lose the grain of a voxel
_SIGNATURES = {  # in the order in which they call each other
    "_hash": "u8(i8, i8, i8, u8)",
    "_unit": "f8(i8, u8)",
    "_noise1": "f8(f8, u8)",
    "_mix": "f8(f8[:, ::1], i8, i8, f8, f8)",
    "_noise3": "f8(f8, f8, f8, u8)",
    "_nodes": "void(i8, i8, i8, u8, f8[:, ::1])",
    "_look": "f8(f8, f8, i8, i8, f8[:, ::1])",
    "_mito": "void(f8, f8, u8, f8[:])",
    "_tube": "void(f8, f8, i8, i8, u8, f8[:])",
    "_norm": "f8(f8[:, ::1], i8, f8, f8)",
    "_sites": "i8(f8, f8, f8, f8, u8, u8[::1], f8[:, ::1])",
    "_shade": "f8(UniTuple(f8, 3), u8, u8, f8, UniTuple(f8, 2), f8, f8, f8[:], UniTuple(f8, 4), f8, u8)",
    "_render": "void(u1[:, :, ::1], u4[:, :, ::1], UniTuple(i8, 4), UniTuple(i8, 3), UniTuple(f8, 3), "
    "UniTuple(i8, 2), u8)",
}
_COMPILE_LOCK = threading.Lock()  # threads that start together compile once


def make_tissue(
    size: Sequence[int] = (512, 512, 96),
    *,
    voxel_size: Sequence[float] = (8.0, 8.0, 30.0),
    seed: int = 0,
    offset: Sequence[int] = (0, 0, 0),
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    """Make a box of synthetic brain tissue as serial-section electron microscopy shows it.

    Boxes are tiles of one endless volume: the result for ``size`` and ``offset`` equals that part of any
    larger box with the same seed and voxel size. The GIL is released, so threads fill tiles side by side.

    Parameters
    ----------
    size : sequence of int
        Voxels in x, y, z; each at least 1.
    voxel_size : sequence of float
        Size of a voxel in nm; 1 to 200 in x and y, 1 to 1000 in z.
    seed : int
        Which volume; 0 to 2**64 - 1.
    offset : sequence of int
        First voxel of the box in the endless volume; may be negative.

    Returns
    -------
    raw : numpy.ndarray
        Grey values, uint8, shape `size`, Fortran order; 1 to 255, dark membranes on bright cytoplasm.
    labels : numpy.ndarray
        A segment id per neurite, uint32, same shape and order; ids are hashes, spread over 1 to 2**31 - 1.
        Voxels of the cell membranes (at least 1.5 voxels wide in x and y) are 0.

    Raises
    ------
    InvalidValueError
        If an argument is out of its range.

    Examples
    --------
    >>> raw, labels = make_tissue((64, 64, 8), seed=1)
    >>> raw.shape, raw.dtype.name, labels.dtype.name
    ((64, 64, 8), 'uint8', 'uint32')
    """
    nx, ny, nz = _three("size", size, operator.index, 1, _LIMIT)
    ox, oy, oz = _three("offset", offset, operator.index, -_LIMIT, _LIMIT)
    vx, vy, vz = _three("voxel_size", voxel_size, float, 1, 1000)
    if max(vx, vy) > 200:
        raise InvalidValueError(f"voxel_size is {(vx, vy, vz)} nm; in x and y at most 200 nm show any tissue")
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < 2**64:
        raise InvalidValueError(f"seed is {seed!r}; expected an integer from 0 to 2**64 - 1")
    raw = np.empty((nx, ny, nz), np.uint8, order="F")
    labels = np.empty((nx, ny, nz), np.uint32, order="F")
    with _COMPILE_LOCK:
        render = _compiled()
    _fill(render, raw, labels, (ox, oy, oz), (vx, vy, vz), number)
    return raw, labels


def _three(
    name: str, value: Any, kind: Callable[[Any], Any], low: float, high: float
) -> tuple[Any, Any, Any]:
    """Return three checked numbers."""
    try:
        x, y, z = (kind(v) for v in value)
    except (TypeError, ValueError):
        wanted = "integers" if kind is operator.index else "numbers"
        raise InvalidValueError(f"{name} is {value!r}; expected three {wanted} (x, y, z)") from None
    if not all(low <= v <= high for v in (x, y, z)):  # NaN fails too
        raise InvalidValueError(f"{name} is {value!r}; each must be from {low} to {high}")
    return x, y, z


def _fill(
    render: Any,
    raw: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint32],
    offset: tuple[int, int, int],
    voxel_size: tuple[float, float, float],
    seed: int,
) -> None:
    """Fill the arrays tile by tile in x and y."""
    tx, ty = (max(16, int(_TILE_NM / v)) for v in voxel_size[:2])
    # A world-aligned patch shares one list of candidate neurites; 72 nm keep the linear noise in it smooth.
    px, py = (min(16, max(2, round(72 / v))) for v in voxel_size[:2])
    nm = tuple(map(float, voxel_size))
    for y in range(0, raw.shape[1], ty):
        for x in range(0, raw.shape[0], tx):
            box = (x, min(x + tx, raw.shape[0]), y, min(y + ty, raw.shape[1]))
            # Transposed to C order: an array of one voxel is of both orders, and numba calls it C.
            render(raw.T, labels.T, box, offset, nm, (px, py), np.uint64(seed))


@functools.cache
def _compiled() -> Any:
    """Return `_render` as machine code.

    The functions are copied into a namespace of their own where their helpers are compiled ones: closures
    would make numba's cache miss in every process, decorators would import numba with the module.
    """
    import numba

    disabled, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, 0  # for the functions of users
    try:
        with compiling("the growth of tissue"):
            return _machine_code(numba.njit)
    finally:
        numba.config.DISABLE_JIT = disabled


def _machine_code(njit: Any) -> Any:
    """Return `_render`, compiled."""
    space = dict(globals())
    for function, signature in _SIGNATURES.items():
        copy = types.FunctionType(globals()[function].__code__, space, function)
        # The types are named, so that each function is compiled once and not for every mix of integers.
        try:
            space[function] = njit(signature, cache=True, nogil=True, error_model="numpy")(copy)
        except (OSError, RuntimeError):  # neither the package nor the home folder can be written
            space[function] = njit(signature, nogil=True, error_model="numpy")(copy)
    return space["_render"]


def _hash(a: Any, b: Any, c: Any, key: Any) -> Any:
    """Hash three integers and a key to 64 bits."""
    h = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(b) * np.uint64(0xC2B2AE3D27D4EB4F)
    h = (h + np.uint64(c) * np.uint64(0x165667B19E3779F9)) ^ key
    h = (h ^ (h >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    h = (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return h ^ (h >> np.uint64(32))


def _unit(a: Any, key: Any) -> Any:
    """Hash number `a` of a key, as a float from 0 to 1."""
    return (_hash(a, 7, 11, key) >> np.uint64(11)) * 1.1102230246251565e-16


def _noise1(t: Any, key: Any) -> Any:
    """Smooth noise on a line, -1 to 1."""
    i = math.floor(t)
    f = t - i
    a = _unit(np.int64(i), key)
    return 2 * (a + (_unit(np.int64(i) + 1, key) - a) * f * f * (3 - 2 * f)) - 1


def _noise3(x: Any, y: Any, z: Any, key: Any) -> Any:
    """Smooth noise in space, -1 to 1."""
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    f, g, h = x - i, y - j, z - k
    f, g, h = f * f * (3 - 2 * f), g * g * (3 - 2 * g), h * h * (3 - 2 * h)
    total = 0.0
    for c in range(8):
        a, b, d = c & 1, (c >> 1) & 1, c >> 2
        weight = (f if a else 1 - f) * (g if b else 1 - g) * (h if d else 1 - h)
        total += weight * _unit(a + i, _hash(b + j, d + k, 13, key))
    return 2 * total - 1


def _mix(square: Any, i: Any, j: Any, f: Any, g: Any) -> Any:
    """Interpolate between four nodes of a table, from node (i, j) on."""
    low = square[i, j] * (1 - f) + square[i + 1, j] * f
    return low * (1 - g) + (square[i, j + 1] * (1 - f) + square[i + 1, j + 1] * f) * g


def _nodes(a: Any, b: Any, layer: Any, key: Any, out: Any) -> None:
    """Fill a table with the nodes of a noise, -1 to 1, from node (a, b) on."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = 2 * _unit(_hash(a + i, b + j, layer, key), key) - 1


def _look(x: Any, y: Any, a: Any, b: Any, nodes: Any) -> Any:
    """Look up smooth noise in a table of nodes that begins at (a, b)."""
    i, j = math.floor(x), math.floor(y)
    f, g = x - i, y - j
    return _mix(nodes, i - a, j - b, f * f * (3 - 2 * f), g * g * (3 - 2 * g))


def _mito(t: Any, radius: Any, key: Any, out: Any) -> None:
    """Put the mitochondrion of a neurite at position `t` along it in `out`: x, y, half axes, cos, sin."""
    period = 2000.0
    shifted = t + period * _unit(1, key)
    segment = np.int64(math.floor(shifted / period))
    own = _hash(segment, 3, 5, key)
    half = 500 + 500 * _unit(2, own)
    s = (shifted - period * (segment + 0.5)) / half
    out[2] = 0.0
    if abs(s) < 1 and _unit(3, own) < (0.9 if radius > 190 else 0.3):
        thick = min(0.76 * radius, 240.0) * (0.7 + 0.3 * _unit(4, own))
        out[2] = thick * math.sqrt(1 - s * s) * (1.1 + 0.6 * _unit(5, own))
        out[3] = thick * math.sqrt(1 - s * s) * 0.85
        angle = 6.28 * _unit(6, own) + 0.7 * s
        out[4], out[5] = math.cos(angle), math.sin(angle)
        away = max(radius - thick, 0.0) * 0.7
        out[0] = away * math.cos(6.28 * _unit(7, own) + s)
        out[1] = away * math.sin(6.28 * _unit(7, own) + s)


def _tube(x: Any, z: Any, row: Any, layer: Any, own: Any, out: Any) -> None:
    """Put the neurite along x of a lattice cell at `x` in `out`: y, half width, height, mitochondrion."""
    radius = (150 + 270 * _unit(1, own)) * (0.85 + 0.15 * _noise1(x / 900, own ^ np.uint64(1)))
    out[0] = (row + 0.5) * _ROW + 500 * (_unit(2, own) - 0.5) + 60 * _noise1(x / 350, own ^ np.uint64(5))
    out[0] += 380 * _noise1(x / 1500, own ^ np.uint64(2))
    out[2] = z - (layer + 0.5) * _STOREY - 400 * (_unit(3, own) - 0.5)
    out[2] -= 150 * _noise1(x / 1800, own ^ np.uint64(3))
    # A parabola, not a circle: its edge moves slowly enough from section to section.
    out[1] = radius * (1 - (out[2] / (1.25 * radius)) ** 2) if _unit(0, own) < 0.85 else 0.0
    _mito(x, radius, own, out[3:])


def _norm(table: Any, s: Any, dx: Any, dy: Any) -> Any:
    """Return the length of a vector in the metric of a neurite: an ellipse is its circle."""
    return math.sqrt(table[3, s] * dx * dx + 2 * table[4, s] * dx * dy + table[5, s] * dy * dy)


def _sites(u0: Any, u1: Any, v0: Any, v1: Any, key: Any, keys: Any, table: Any) -> Any:
    """List the neurites along z that can matter in a box: x, y, weight, metric; return how many."""
    # Two passes: dendrites on a wide lattice, then axons on a narrow one, where no dendrite covers them.
    n = wide = 0
    for level in range(2):
        step, margin = (1450.0, 3600.0) if level == 0 else (250.0, 1800.0)
        for a in range(math.floor((u0 - margin) / step), math.floor((u1 + margin) / step) + 1):
            for b in range(math.floor((v0 - margin) / step), math.floor((v1 + margin) / step) + 1):
                own = _hash(a, b, 101 + level, key)
                x = (a + 0.5 + 0.85 * (_unit(1, own) - 0.5)) * step
                y = (b + 0.5 + 0.85 * (_unit(2, own) - 0.5)) * step
                weight = 180 + 400 * _unit(3, own) if level == 0 else 95 * _unit(3, own) ** 2
                angle, stretch = 3.15 * _unit(4, own), 1 + _unit(5, own) * (1.0 if level == 0 else 0.8)
                c, s, q = math.cos(angle), math.sin(angle), 1 / (stretch * stretch)
                free = level == 1 or _unit(0, own) < 0.8
                for m in range(wide):
                    # The slack is what drift and swelling add up to: an axon is never swallowed on its way.
                    d = _norm(table, m, x - table[0, m], y - table[1, m]) - table[2, m]
                    free = free and d + weight > 150
                if free:
                    keys[n] = own
                    table[0, n], table[1, n], table[2, n] = x, y, weight
                    table[3, n], table[4, n] = c * c * q + s * s, c * s * (q - 1)
                    table[5, n] = s * s * q + c * c
                    n += 1
        wide = n if level == 0 else wide
    return n


def _shade(
    place: Any, own: Any, other: Any, big: Any, across: Any, edge: Any, wall: Any, mito: Any, look: Any,
    grey: Any, key: Any,
) -> Any:  # fmt: skip
    """Return the grey value of a place (nm), `across` from the centre of its neurite, `edge` from its rim."""
    x, y, z = place
    lx, ly = across
    cloud, fold, grain, speck = look
    value = grey + 17 * grain + 15 * speck + 10 * cloud
    # Ribosomes and other specks: only the darkest of the grain shows.
    value -= 150 * max(0.0, -0.38 - 0.6 * grain - 0.5 * speck + 0.15 * cloud)
    depth, bx, by = -1e9, 0.0, 0.0
    if mito[2] > 20:
        dx, dy = lx - mito[0], ly - mito[1]
        bx, by = dx * mito[4] + dy * mito[5], dy * mito[4] - dx * mito[5]
        d = math.sqrt((bx / mito[2]) ** 2 + (by / mito[3]) ** 2) + 1e-6
        slope = math.sqrt((bx / mito[2] ** 2) ** 2 + (by / mito[3] ** 2) ** 2) / d + 1e-6
        depth = min((1 - d) / slope + 16 * cloud, edge - 30)
    if depth > -9:  # two membranes, and cristae between
        wave = by / 40 + 0.9 * cloud + 0.4 * _noise1(bx / 90, own)
        wave = abs(wave - math.floor(wave) - 0.5) * 2
        inside = 108 + 14 * grain + 12 * speck - 50 * max(0.0, wave - 0.45)
        value += (inside - value) * min(max(depth / 10, 0.0), 1.0)
        value += (48 - value) * max(0.0, 1 - abs(depth) / 11)
        value += (85 - value) * max(0.0, 1 - abs(depth - 21) / 8) * 0.4
    elif edge > 24:
        if big and edge > 40:  # microtubules run along the neurite: dots on a lattice across it
            a, b = math.floor(lx / 75), math.floor(ly / 75)
            h = _hash(a, b, 1, own)
            dx, dy = lx / 75 - a - 0.25 - 0.5 * _unit(1, h), ly / 75 - b - 0.25 - 0.5 * _unit(2, h)
            if h & np.uint64(7) < np.uint64(3):
                value += (75 - value) * max(0.0, 1 - 5 * math.sqrt(dx * dx + dy * dy))
        if cloud > 0.12 and _unit(22, own) < 0.3:  # vesicles
            b, c = math.floor(y / 52), math.floor(z / 60)
            d = x / 58 + _unit(b, key ^ np.uint64(c))
            h = _hash(math.floor(d), b, c, key)
            dx = (d - math.floor(d) - 0.35 - 0.3 * _unit(1, h)) * 58
            dy = y - (b + 0.38 + 0.24 * _unit(2, h)) * 52
            d = math.sqrt(dx * dx + dy * dy + (0.5 * (z - (c + 0.5) * 60)) ** 2)
            if h & np.uint64(3):
                value += (70 - value) * max(0.0, 1 - abs(d - 17) / 9) * 0.8
        if big and edge > 60:  # endoplasmic reticulum: a contour of slow noise
            value += (72 - value) * max(0.0, 1 - abs(fold + 0.3 * cloud - 0.62) / 0.08)
    dark = min(max((wall + 7 - edge) / (9 + 10 * abs(speck)) + 0.2, 0.0), 1.0)
    value += (58 + 6 * grain - value) * dark
    # A synaptic density, on one side of some contacts.
    if edge < 48 and cloud > 0.25 and own < other and _unit(1, own ^ other) < 0.25:
        value += (45 - value) * min((48 - edge) / 24, 1.0) * min(1.0, 5 * (cloud - 0.25))
    return value


def _render(
    raw: Any, labels: Any, tile: Any, offset: Any, voxel_size: Any, patch_size: Any, seed: Any
) -> None:
    """Fill a tile of the arrays (z, y, x), section by section."""
    i0, i1, j0, j1 = tile
    ox, oy, oz = offset
    vx, vy, vz = voxel_size
    px, py = patch_size
    key = _hash(1, 2, 3, seed)
    k_fine, k_coarse, k_shot, k_section = (
        key + np.uint64(11),
        key + np.uint64(12),
        key + np.uint64(13),
        key + np.uint64(14),
    )
    x0, x1, y0, y1 = (ox + i0) * vx, (ox + i1) * vx, (oy + j0) * vy, (oy + j1) * vy
    reach = 1300.0  # the warp and a push, both at their largest
    n = 0
    for step, margin in ((1450.0, 3600.0), (250.0, 1800.0)):
        wide = 2 * (reach + margin) + 3 * step
        n += int((x1 - x0 + wide) / step * ((y1 - y0 + wide) / step))
    keys, table = np.empty(n, np.uint64), np.empty((6, n))
    n = _sites(x0 - reach, x1 + reach, y0 - reach, y1 + reach, key, keys, table)
    now, organ, guess, near = np.empty((3, n)), np.empty((n, 6)), np.empty(n), np.empty(n, np.int64)
    # Neurites along x: one in each cell of a (y, z) lattice, so that no two ever touch.
    row0 = math.floor(y0 / _ROW)
    tube = np.empty((math.floor(y1 / _ROW) - row0 + 1, i1 - i0, 9))
    # Slow noise: three octaves of warp for x and y, clouds in the cytoplasm, membranes within it.
    across = np.array([3100.0, 3100, 480, 480, 170, 170, 270, 170])
    along = np.array([2300.0, 2300, 700, 700, 280, 280, 270, 400])
    amount = np.array([560.0, 560, 72, 72, 17, 17, 1, 1])
    w = np.empty((8, 2))
    # Fast noise, of its own in each section, from a table of its nodes.
    e0, e1 = max(19.0, 2 * max(vx, vy)), max(43.0, 4 * max(vx, vy))
    fa, fb, ca, cb = math.floor(x0 / e0), math.floor(y0 / e0), math.floor(x0 / e1), math.floor(y0 / e1)
    fine = np.empty((math.floor(x1 / e0) - fa + 2, math.floor(y1 / e0) - fb + 2))
    coarse = np.empty((math.floor(x1 / e1) - ca + 2, math.floor(y1 / e1) - cb + 2))
    u, v = np.empty((py, px)), np.empty((py, px))
    wall = max(9.0, 0.75 * max(vx, vy))
    for k in range(raw.shape[0]):
        z = (oz + k) * vz
        for s in range(n):
            drift = 70.0 if table[2, s] > 150 else 35.0
            now[0, s] = table[0, s] + drift * _noise1(z / 900, keys[s] ^ np.uint64(1))
            now[1, s] = table[1, s] + drift * _noise1(z / 900, keys[s] ^ np.uint64(2))
            now[2, s] = table[2, s] * (1 + 0.1 * _noise1(z / 700, keys[s] ^ np.uint64(3)))
            _mito(z, table[2, s] + 80, keys[s], organ[s])
        layer = math.floor(z / _STOREY)
        for r in range(tube.shape[0]):
            for i in range(i1 - i0):
                own = _hash(row0 + r, layer, 9, key)
                _tube((ox + i0 + i) * vx, z, row0 + r, layer, own, tube[r, i])
        _nodes(fa, fb, oz + k, k_fine, fine)
        _nodes(ca, cb, oz + k, k_coarse, coarse)
        gain = 1 + 0.06 * (_unit(oz + k, k_section) - 0.5)
        shift = 9 * (_unit(-oz - k, k_section) - 0.5)
        for patch in range(
            ((oy + j1 - 1) // py - (oy + j0) // py + 1) * ((ox + i1 - 1) // px - (ox + i0) // px + 1)
        ):
            columns = (ox + i1 - 1) // px - (ox + i0) // px + 1
            bj, bi = (oy + j0) // py + patch // columns, (ox + i0) // px + patch % columns
            ia, ib, ja, jb = (
                max(i0, bi * px - ox),
                min(i1, bi * px - ox + px),
                max(j0, bj * py - oy),
                min(j1, bj * py - oy + py),
            )
            w[:] = 0  # slow noise at the corners of the patch, linear between them
            for c in range(32):
                a, b, e = c & 1, (c >> 1) & 1, c >> 2
                x, y = (bi + a) * px * vx / across[e], (bj + b) * py * vy / across[e]
                field = e & 1 if e < 6 else e - 4
                w[2 * field + a, b] += amount[e] * _noise3(x, y, z / along[e], key ^ np.uint64(e))
            for j in range(ja, jb):
                y = (oy + j) * vy
                for i in range(ia, ib):
                    here = tube[math.floor(y / _ROW) - row0, i - i0]
                    f, g = (ox + i) / px - bi, (oy + j) / py - bj
                    # What a neurite along x takes, its neighbours make room for, up to three widths away.
                    room = 0.0
                    if here[1] > 0:
                        room = 1 - max(abs(y - here[0]) - here[1], 0.0) / (3 * here[1])
                        room = math.copysign(here[1] * max(room, 0.0) ** 2, y - here[0])
                    u[j - ja, i - ia] = (ox + i) * vx + _mix(w, 0, 0, f, g)
                    v[j - ja, i - ia] = y - room + _mix(w, 2, 0, f, g)
            # Exact culling: a neurite that three others beat everywhere in the patch is left out.
            uc, vc, far = u[(jb - ja) // 2, (ib - ia) // 2], v[(jb - ja) // 2, (ib - ia) // 2], 0.0
            for j in range(jb - ja):
                for i in range(ib - ia):
                    far = max(far, (u[j, i] - uc) ** 2 + (v[j, i] - vc) ** 2)
            for s in range(n):
                guess[s] = _norm(table, s, uc - now[0, s], vc - now[1, s]) - now[2, s]
            f1, f2, f3, m = 1e9, 1e9, 1e9, 0
            for s in range(n):
                if guess[s] < f3:
                    f3 = max(f2, guess[s])
                    f1, f2 = min(f1, guess[s]), min(f2, max(f1, guess[s]))
            for s in range(n):
                if guess[s] <= f3 + 2 * math.sqrt(far) + 1e-6:
                    near[m] = s
                    m += 1
            for j in range(ja, jb):
                y = (oy + j) * vy
                r = math.floor(y / _ROW) - row0
                for i in range(ia, ib):
                    x = (ox + i) * vx
                    uu, vv, f1, f2, f3, s1, s2 = u[j - ja, i - ia], v[j - ja, i - ia], 1e9, 1e9, 1e9, 0, 0
                    for c in range(m):
                        s = near[c]
                        d = _norm(table, s, uu - now[0, s], vv - now[1, s]) - now[2, s]
                        if d < f1:
                            f1, f2, f3, s1, s2 = d, f1, f2, s, s1
                        elif d < f2:
                            f2, f3, s2 = d, f2, s
                        elif d < f3:
                            f3 = d
                    # Distance to the boundary in nm: the difference over its own gradient.
                    lx, ly, gx, gy = uu - now[0, s1], vv - now[1, s1], uu - now[0, s2], vv - now[1, s2]
                    d1, d2 = f1 + now[2, s1] + 1e-3, f2 + now[2, s2] + 1e-3
                    dx = (table[3, s2] * gx + table[4, s2] * gy) / d2 - (
                        table[3, s1] * lx + table[4, s1] * ly
                    ) / d1
                    dy = (table[4, s2] * gx + table[5, s2] * gy) / d2 - (
                        table[4, s1] * lx + table[5, s1] * ly
                    ) / d1
                    d = max(math.sqrt(dx * dx + dy * dy), 0.5)
                    # Where three meet, a smooth minimum rounds the corners.
                    edge = min((f2 - f1) / d - 9 * max(1 - (f3 - f2) / (d * 70), 0.0) ** 2, 300.0)
                    own, other, big, mito = keys[s1], keys[s2], table[2, s1] > 150, organ[s1]
                    gap = abs(y - tube[r, i - i0, 0]) - tube[r, i - i0, 1]
                    if tube[r, i - i0, 1] > 0 and gap < edge:
                        other = _hash(row0 + r, layer, 9, key)
                        edge = min(abs(gap), 300.0)
                        if gap <= 0:
                            own, big, mito = other, True, tube[r, i - i0, 3:]
                            lx, ly = y - tube[r, i - i0, 0], tube[r, i - i0, 2]
                    f, g = (ox + i) / px - bi, (oy + j) / py - bj
                    grain, speck = _look(x / e0, y / e0, fa, fb, fine), _look(x / e1, y / e1, ca, cb, coarse)
                    cloud, fold = _mix(w, 4, 0, f, g), _mix(w, 6, 0, f, g)
                    grey = 174 + 28 * _unit(21, own) - (45 if _unit(20, own) < 0.1 else 0)
                    value = _shade(
                        (x, y, z), own, other, big, (lx, ly), edge, wall, mito, (cloud, fold, grain, speck), grey,
                        key,
                    )  # fmt: skip
                    # Shot noise: the sum of four short hashes is nearly a bell curve.
                    h, noise = _hash(ox + i, oy + j, oz + k, k_shot), -131070.0
                    for c in range(0, 64, 16):
                        noise += np.float64((h >> np.uint64(c)) & np.uint64(65535))
                    value = (value - 128) * gain + 128 + shift + noise * 1.7e-4
                    raw[k, j, i] = np.uint8(min(max(value, 1.0), 255.0))
                    labels[k, j, i] = 0 if edge < wall else own % np.uint64(2147483647) + np.uint64(1)
