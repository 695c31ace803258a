"""Histograms as text.

::

      0 to 15      41 %  ####################
     16 to 31       3 %  #
"""

from __future__ import annotations

import numpy as np

from wkdask.operations.histogram import Histogram

__all__ = ["histogram_text"]

_ROWS = 16
_COLUMNS = 50


def histogram_text(found: Histogram) -> str:
    """Return a histogram as table rows, each with a bar; neighbouring bins are merged.

    Examples
    --------
    >>> print(histogram_text(mag.histogram(4)))
    layer 'color' mag 1: all 131072 voxels, from 0 to 126
      0 to 63     50.8 %  ##################################################
     64 to 127    49.2 %  #################################################
    128 to 191     0.0 %
    192 to 255     0.0 %
    """
    counts, edges = found.counts, found.edges
    together = -(-len(counts) // _ROWS)
    starts = np.arange(0, len(counts), together)
    sums = np.add.reduceat(counts, starts)
    lows, highs = edges[starts], edges[np.minimum(starts + together, len(counts))]
    is_whole = edges.dtype.kind == "i"
    names = [
        (f"{low}", f"{high - 1}") if is_whole else (f"{low:g}", f"{high:g}")
        for low, high in zip(lows, highs, strict=True)
    ]
    widths = [max(len(name[end]) for name in names) for end in (0, 1)]
    total, most = max(1, int(counts.sum())), max(1, int(sums.max()))
    lines = [_title(found)]
    for (low, high), number in zip(names, sums.tolist(), strict=True):
        bar = "#" * -(-number * _COLUMNS // most)
        name = (
            low.rjust(widths[0]) if is_whole and low == high else f"{low:>{widths[0]}} to {high:<{widths[1]}}"
        )
        lines.append(f"{name}  {100 * number / total:6.1f} %  {bar}".rstrip())
    if found.left_out:
        lines.append(f"in none of them: {found.left_out} voxels")
    return "\n".join(lines)


def _title(found: Histogram) -> str:
    """Say what was counted."""
    seen = (
        f"all {found.total} voxels"
        if found.is_exact
        else f"a sample of {found.voxels} of {found.total} voxels"
    )
    if found.minimum is None:
        return f"{found.label}: {seen}, no finite value"
    return f"{found.label}: {seen}, from {found.minimum:g} to {found.maximum:g}"
