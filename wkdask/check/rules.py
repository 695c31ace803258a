"""The kinds of findings: how severe each is, what it means, what would mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["RULES", "SEVERITIES", "Rule", "Severity"]

Severity: TypeAlias = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""The worst first. Only errors and warnings make a dataset unclean."""

_CONCEPTS = "WEBKNOSSOS documentation, data concepts"
_SPEC = "WEBKNOSSOS documentation, datasource-properties.json"


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of finding."""

    severity: Severity
    """An error: data cannot be read. A warning: something is otherwise than meant. An info: neither."""
    meaning: str
    """What it comes to."""
    remedy: str
    """What would mend it."""
    source: str = ""
    """Who says so, of the rules of others."""


def _error(meaning: str, remedy: str) -> Rule:
    return Rule("error", meaning, remedy)


def _warning(meaning: str, remedy: str, source: str = "") -> Rule:
    return Rule("warning", meaning, remedy, source)


def _info(meaning: str, remedy: str = "nothing needs to be done") -> Rule:
    return Rule("info", meaning, remedy)


_COPY = "put back a copy of the file, or compute it again"

RULES: dict[str, Rule] = {
    # the properties file
    "properties-missing": _error(
        "no program opens the folder as a dataset",
        "put back a copy of datasource-properties.json, or make a dataset and list the folders with "
        "add_layer_for_existing_files()",
    ),
    "properties-damaged": _error(
        "the properties file cannot be understood, so the dataset cannot be opened",
        "correct the file by hand, or put back a copy",
    ),
    "layer-broken": _error(
        "what the properties file says of the layer cannot be understood, so it cannot be used",
        "correct the layer's entry by hand",
    ),
    "box-invalid": _error(
        "the layer's bounding box is one that no array can have",
        "set layer.bounding_box, or correct it by hand",
    ),
    "layer-incomplete": _warning(
        "the properties file does not say all that other programs need to know of the layer",
        "add what is missing to the layer's entry",
    ),
    "properties-unusual": _warning(
        "the properties file says something that other programs do not know, or do not read",
        "correct the file by hand",
    ),
    "layer-without-mags": _info("the layer lists no mag, and holds no voxels"),
    "segment-id-missing": _warning(
        "the largest segment id is not known, so that no new segments can be made in WEBKNOSSOS",
        "check --deep --repair sets it, and so does layer.refresh_largest_segment_id()",
    ),
    # folders
    "layer-unlisted": _warning(
        "a folder holds mags, and no layer of the properties file is in it",
        "list it with add_layer_for_existing_files(), or remove it",
    ),
    "mag-missing": _error(
        "the properties file lists a mag that is not there", "put back its folder, or layer.delete_mag()"
    ),
    "mag-unlisted": _warning(
        "a folder looks like a mag of the layer, and the properties file does not list it",
        "list it with layer.add_mag_for_existing_files(), or remove it",
    ),
    "mag-unfinished": _warning(
        "an interrupted job has begun to make a mag, which is not complete",
        "call the same again with resume=True (--resume), or remove the folder",
    ),
    "mag-damaged": _error(
        "the mag's header or array metadata cannot be used, so that none of its cubes can be read",
        "put back a copy of the file: those of mags of the same cut are alike",
    ),
    "mag-mismatch": _error(
        "the mag's header or array metadata contradict the properties file",
        "correct the one that is wrong: cubes of the mag show which",
    ),
    "mag-unchecked": _info("the mag is stored where, or as, check does not look"),
    "attachment-missing": _error(
        "the properties file lists an attachment that is not there",
        "put back its file, or remove the attachment",
    ),
    "no-permission": _error(
        "a file or folder may not be read by its owner, or by the user who checks",
        "change its mode, with chmod",
    ),
    "unreadable": _error(
        "the file system did not give a file or folder", "look at the disk, or at the share"
    ),
    "link-cycle": _error("a link leads to a folder in which it lies itself", "remove the link"),
    "link-broken": _error("a link leads nowhere", "put back what it leads to, or remove the link"),
    "stray-file": _warning(
        "a mag holds something that is none of its files; a cube under a wrong name is read as zeros",
        "rename it, or move it out of the mag",
    ),
    "temporary-file": _warning(
        "another program has left a temporary file, perhaps in place of what it was to write",
        "look at it, and remove it",
    ),
    "foreign-file": _info("a desktop has left a file, which every reader passes over"),
    # jobs
    "leftover": _warning(
        "a process that was killed has left files that nothing needs", "check --repair removes them"
    ),
    "job-unfinished": _warning(
        "a job on the mag was interrupted, so that some of what it was to write may be missing",
        "call the same again with resume=True (--resume); check --repair forgets the job, and keeps its cubes",
    ),
    "job-replacing": _error(
        "a job was interrupted while it replaced the mag's cubes: some are new, others old",
        "any write to the mag finishes that first, and so does the same call with resume=True (--resume)",
    ),
    "job-running": _info(
        "a job is at work on the mag, whose findings may be of the moment", "check again afterwards"
    ),
    "edit-unfinished": _warning(
        "a process was killed while it renamed or removed a layer or a mag",
        "check --repair brings it to its end",
    ),
    # cubes
    "cube-damaged": _error("a cube cannot be read", _COPY),
    "cube-trailing": _warning(
        "a cube has bytes at its end that its jump table does not lead to", "write the cube anew"
    ),
    "cubes-outside-box": _warning(
        "cubes lie outside of the layer's bounding box, where no program shows them",
        "check --repair grows the box around their voxels",
    ),
    "cubes-outside-array": _warning(
        "files lie beyond the shape in the array's metadata, where they are read as zeros",
        "correct the shape in the metadata, or remove the files",
    ),
    "array-too-small": _warning(
        "the layer's bounding box reaches beyond the shape in the array's metadata, where all is zeros",
        "correct the shape in the metadata, or the box",
    ),
    "array-too-large": _warning(
        "the shape in the array's metadata reaches far beyond the layer's bounding box, and viewers show all of it",
        "correct the shape in the metadata, or the box",
    ),
    "array-fill-value": _warning(
        "chunks that are not there are not zeros, as a cube that is not there is elsewhere",
        "correct the fill value in the metadata, if the array is one of WEBKNOSSOS or wkdask",
    ),
    "box-too-large": _warning(
        "the layer's bounding box reaches beyond all cubes, where all is zeros",
        "set layer.bounding_box, if nothing is missing there",
    ),
    "box-sparse": _info(
        "the layer's bounding box reaches beyond all cubes, as where the margin of an image is black",
        "set layer.bounding_box, if nothing is to be there",
    ),
    "no-cubes": _info("the mag has no cubes: all of it is zeros"),
    # voxels
    "segment-id-too-small": _warning(
        "there are ids above largestSegmentId: new segments would get ids that are taken",
        "check --deep --repair raises it",
    ),
    "voxels-outside-box": _warning(
        "voxels that are not zero lie outside of the layer's bounding box, where no program shows them",
        "check --deep --repair grows the box around them",
    ),
    "mag-stale": _warning(
        "a coarser mag is not what its finer one comes to, by any way of sampling that wkdask has",
        "check --deep --repair, or layer.redownsample(boxes=), computes these boxes anew",
    ),
    "cubes-missing": _error(
        "a coarser mag has voxels where the finer one has no cube: it was lost, or removed without the coarser one",
        "put back the cubes; where there are to be none, layer.redownsample(boxes=) forgets them",
    ),
    # OME-Zarr
    "ome-missing": _warning(
        "the OME-Zarr metadata beside the mags are missing, so that other viewers do not find them",
        "check --repair writes them",
    ),
    "ome-stale": _warning(
        "the OME-Zarr metadata beside the mags list others than there are, or in other places",
        "check --repair writes them anew",
    ),
    # the rules of the WEBKNOSSOS server
    "server-mag-step": _warning(
        "the server shows mags of which each is 1 or 2 times the one before along each axis",
        "compute the mags in between with layer.downsample_mag_list()",
        _CONCEPTS,
    ),
    "server-mag-ambiguous": _warning(
        "the server cannot tell two mags apart that have the same largest component",
        "layer.delete_mag() one of them",
        _CONCEPTS,
    ),
    "server-large-ids": _warning(
        "the server and its browser count ids up to 2^53 - 1; larger ones are rounded, and fall together",
        "number the segments anew",
        _CONCEPTS,
    ),
    "server-float64": _warning(
        "the server does not show layers of float64", "convert the layer to float32", _CONCEPTS
    ),
    "server-channels": _warning(
        "the server shows layers of one channel, or of three of uint8",
        "make a layer of each channel",
        _SPEC,
    ),
    "server-chunk-shape": _warning(
        "the server reads in buckets of 32³, and recommends chunks of 32 to 128 voxels a side",
        "wkdask rechunk --chunk-shape 32",
        _CONCEPTS,
    ),
}
"""Each code, in the order in which they are documented."""
