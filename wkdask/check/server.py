"""The rules of the WEBKNOSSOS server: what it shows, beyond what the format allows."""

from __future__ import annotations

import os
from itertools import pairwise

from wkdask.check.findings import Findings
from wkdask.check.opened import OpenedLayer
from wkdask.properties import LayerRecord
from wkdask.properties.values import LARGEST_PLAIN_INTEGER

__all__ = ["check_server_rules"]

LEAST_CHUNK, LARGEST_CHUNK = 32, 128
"""Sides of chunks that the server recommends."""


def check_server_rules(dataset: str, layer: OpenedLayer, findings: Findings) -> None:
    """Find what a WEBKNOSSOS server does not show, or shows otherwise.

    Parameters
    ----------
    dataset
        The dataset's folder.
    layer
        The layer.
    findings
        Takes in what is against a rule.
    """
    record = layer.record
    path = os.path.join(dataset, record.name)
    _check_mags(path, record, findings)
    largest = record.largest_segment_id
    if largest is not None and largest > LARGEST_PLAIN_INTEGER:
        findings.add("server-large-ids", path, f"its largest segment id is {largest}", record.name)
    if record.element_class is not None and str(record.dtype_per_channel) == "float64":
        findings.add("server-float64", path, f"its elementClass is {record.element_class}", record.name)
    channels = record.num_channels or 1
    if channels > 1 and record.element_class not in (None, "uint24"):
        what = f"it has {channels} channels of {record.dtype_per_channel}"
        findings.add("server-channels", path, what, record.name)
    for opened in layer.mags:
        chunk = opened.store.spec.chunk_shape
        if min(chunk) < LEAST_CHUNK or max(chunk) > LARGEST_CHUNK:
            what = f"its chunks have {chunk} voxels"
            findings.add("server-chunk-shape", opened.store.path, what, record.name, opened.mag)


def _check_mags(path: str, record: LayerRecord, findings: Findings) -> None:
    """Find mags that the server cannot follow from one to the next."""
    mags = sorted((each.mag for each in record.mags), key=lambda mag: (mag.max_dim, mag.to_tuple()))
    for finer, coarser in pairwise(mags):
        pair = f"{path}, mags {finer.to_layer_name()} and {coarser.to_layer_name()}"
        if finer.max_dim == coarser.max_dim:
            what = f"mags {finer} and {coarser} have the same largest component"
            findings.add("server-mag-ambiguous", pair, what, record.name)
        elif any(large not in (small, 2 * small) for small, large in zip(finer, coarser, strict=True)):
            what = f"from mag {finer} to mag {coarser} a step is neither 1 nor 2"
            findings.add("server-mag-step", pair, what, record.name)
