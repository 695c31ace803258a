"""Whether the OME-Zarr metadata beside the mags of a Zarr layer are there, and list these mags."""

from __future__ import annotations

import os

from wkdask.check.findings import Findings
from wkdask.layer.multiscales import multiscales_fault
from wkdask.properties import LayerRecord
from wkdask.properties.handle import Properties

__all__ = ["check_ome"]


def check_ome(properties: Properties, layer: LayerRecord, findings: Findings) -> None:
    """Find OME-Zarr metadata that are missing or old.

    Parameters
    ----------
    properties
        The dataset.
    layer
        The layer; one that is not stored as Zarr has none.
    findings
        Takes in what is wrong.
    """
    fault = multiscales_fault(properties, layer)
    if fault is not None:
        code, what = fault
        findings.add(f"ome-{code}", os.path.join(properties.folder, layer.name), what, layer.name)
