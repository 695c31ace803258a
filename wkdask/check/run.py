"""A whole check: the properties first, then folders and metadata, then every cube, then every voxel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import reduce

from wkdask.check.content import Decoded, check_decoded, check_segment_id, decode_job
from wkdask.check.cubes import ListedMag, check_boxes, check_places, note_suspects, probe, scan_job
from wkdask.check.findings import CheckReport, Finding, Findings
from wkdask.check.folders import check_attachments, check_folders, check_jobs, note_loose_file, note_odd
from wkdask.check.jobs import run_check_job, whole_of
from wkdask.check.ome import check_ome
from wkdask.check.opened import OpenedLayer, open_layer
from wkdask.check.properties import read_properties
from wkdask.check.pyramid import check_compared, compare_job, pairs_of
from wkdask.check.server import check_server_rules
from wkdask.errors import InvalidValueError, UnsupportedFormatError
from wkdask.fsio import checked_path
from wkdask.geometry import BoundingBox
from wkdask.jobs.job import WriteOptions
from wkdask.objects.urls import checked_url, is_url
from wkdask.properties import PROPERTIES_FILE
from wkdask.properties.handle import Properties
from wkdask.properties.records import no_such_layer
from wkdask.storage.formats import format_of, list_cubes

__all__ = ["check_dataset"]


def check_dataset(
    path: str | os.PathLike[str],
    layers: Sequence[str] | None = None,
    *,
    deep: bool = False,
    sample: int | None = None,
    metadata_only: bool = False,
    options: WriteOptions | None = None,
) -> CheckReport:
    """Check whether a dataset holds what it says; nothing is changed.

    Parameters
    ----------
    path
        The dataset's folder; its properties file may be damaged.
    layers
        The layers that are looked at; all by default.
    deep
        Decode every cube, and compare the coarser mags with the finer ones.
    sample
        With `deep`: how many parts of each coarser mag are compared; all by default.
    metadata_only
        Look at the properties, folders and metadata only; no cube is listed.
    options
        Where the tasks run, and who listens.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no folder, or nothing in it that looks like a dataset.
    LayerNotFoundError
        If there is no layer of a name.
    InvalidValueError
        If the arguments contradict each other.
    TaskFailedError
        If a task failed for another reason than what is wrong with the dataset.

    Examples
    --------
    >>> from wkdask.check.run import check_dataset
    >>> print(check_dataset("ds", ["color"], metadata_only=True).is_clean)
    True
    """
    if metadata_only and deep:
        raise InvalidValueError(
            "metadata_only=True looks at no cube, deep=True at all voxels: give one of them"
        )
    if sample is not None and (not deep or sample < 1):
        raise InvalidValueError(
            f"sample= is the number of parts that deep=True compares, 1 or more; got {sample}"
        )
    if is_url(path):
        raise UnsupportedFormatError(
            f"{checked_url(str(path))} is in an object store, where files are not checked; check the "
            f"dataset before it is put there, or a copy of it"
        )
    dataset = checked_path(path)
    _refuse_what_is_none(dataset)
    findings = Findings()
    record = read_properties(dataset, findings)
    if record is None:
        with os.scandir(dataset) as entries:
            for entry in entries:
                note_loose_file(entry.path, findings)
        return CheckReport(dataset, _still_there(findings))
    for name in layers or ():
        if name not in record.names:
            raise no_such_layer(name, record.names)
    properties = Properties(dataset, read_only=True)
    check_folders(properties, findings)
    opened = []
    for layer in record.layers:
        if layers is None or layer.name in layers:
            opened.append(open_layer(dataset, layer, findings))
            check_attachments(dataset, layer, findings)
            if len(opened[-1].mags) == len(layer.mags):  # else those that are listed may be right
                check_ome(properties, layer, findings)
            check_server_rules(dataset, opened[-1], findings)
    check = _Check(dataset, opened, findings, options or WriteOptions())
    check.list_mags(metadata_only=metadata_only)
    if not metadata_only:
        check.run(deep=deep, sample=sample)
    return CheckReport(
        dataset,
        _still_there(findings, layers),
        layers=len(opened),
        mags=sum(len(layer.mags) for layer in opened),
        cubes=check.cubes,
        nbytes=check.nbytes,
    )


def _refuse_what_is_none(dataset: str) -> None:
    """Refuse a folder in which nothing looks like a dataset."""
    if not os.path.isdir(dataset):
        if os.path.lexists(dataset):
            raise NotADirectoryError(
                f"{dataset} is no folder; a dataset is one, with a {PROPERTIES_FILE} in it"
            )
        raise FileNotFoundError(f"there is no folder {dataset}")
    if os.path.lexists(os.path.join(dataset, PROPERTIES_FILE)):
        return
    with os.scandir(dataset) as layers:
        for layer in layers:
            if layer.is_dir():
                with os.scandir(layer.path) as mags:
                    if any(mag.is_dir() and format_of(mag.path) for mag in mags):
                        return
    raise FileNotFoundError(
        f"no dataset in the folder {dataset}: the file {PROPERTIES_FILE} is missing there"
    )


def _still_there(findings: Findings, layers: Sequence[str] | None = None) -> tuple[Finding, ...]:
    """Return the findings, without files that were there for a moment only, and other layers than are asked for."""
    return tuple(
        each
        for each in findings.listed()
        if (each.code not in ("leftover", "temporary-file") or os.path.lexists(os.fsencode(each.path)))
        and (layers is None or each.layer is None or each.layer in layers)
    )


class _Check:
    """The part of a check that looks at cubes.

    Parameters
    ----------
    dataset
        The dataset's folder.
    layers
        Its layers, opened.
    findings
        Takes in what is found.
    options
        Where the tasks run, and who listens.
    """

    def __init__(
        self, dataset: str, layers: Sequence[OpenedLayer], findings: Findings, options: WriteOptions
    ) -> None:
        self.dataset = dataset
        self.layers = layers
        self.findings = findings
        self.options = options
        self.cubes = 0
        self.nbytes = 0
        self.listed: list[list[ListedMag]] = []

    def list_mags(self, *, metadata_only: bool) -> None:
        """List the folders of all mags, and what jobs have left there."""
        for layer in self.layers:
            mags = []
            for opened in layer.mags:
                at_rest = check_jobs(opened, self.findings)
                if metadata_only:
                    continue
                listing = list_cubes(opened.store)
                for odd in listing.odd:
                    note_odd(odd, opened, self.findings)
                mags.append(ListedMag(opened, listing, at_rest, is_finest=opened is layer.mags[0]))
                self.cubes += len(listing.places)
            self.listed.append(mags)

    def run(self, *, deep: bool, sample: int | None) -> None:
        """Look at all cubes, and with `deep` at all voxels."""
        flat = [listed for mags in self.listed for listed in mags]
        for layer, mags in zip(self.layers, self.listed, strict=True):
            boxes = [each.box for each in self.layers if each is not layer and each.box is not None]
            filled = [box for box in boxes if not box.is_empty()]
            others = reduce(BoundingBox.extended_by, filled) if filled else None
            check_boxes(layer, mags, others, self.findings)
        for listed in flat:
            check_places(listed, self.findings)
        scans = [scan_job(listed) for listed in flat]
        decodes = [decode_job(listed) for listed in flat] if deep else []
        pairs = [
            pair
            for layer, mags in zip(self.layers, self.listed, strict=True)
            for pair in (pairs_of(mags, layer.box, self.findings) if deep else ())
        ]
        compares = [compare_job(finer, coarser, pair, sample) for finer, coarser, pair in pairs]
        name = os.path.basename(self.dataset)
        whole = whole_of(f"{name!r}", [*scans, *decodes, *compares], self.options)
        try:
            for listed, job in zip(flat, scans, strict=True):
                for suspects in run_check_job(job, self.options, whole):
                    note_suspects(suspects, listed.opened, self.findings)
                probe(listed, self.findings)
            largest: dict[str, int] = {}
            for listed, job in zip(flat, decodes, strict=bool(decodes)):
                total = reduce(Decoded.merged, run_check_job(job, self.options, whole), Decoded())
                check_decoded(listed.opened, total, self.findings)
                self.nbytes += total.nbytes
                if total.maximum is not None:
                    layer_name = listed.opened.layer.name
                    largest[layer_name] = max(total.maximum, largest.get(layer_name, 0))
            for (finer, coarser, _), job in zip(pairs, compares, strict=True):
                results = list(run_check_job(job, self.options, whole))
                check_compared(coarser, finer, results, sample is not None, self.findings)
        finally:
            whole.end()
        for layer, mags in zip(self.layers, self.listed, strict=True):
            has_cubes = any(len(listed.indices) for listed in mags)
            folder = os.path.join(self.dataset, layer.record.name)
            check_segment_id(layer, folder, largest.get(layer.record.name), has_cubes, self.findings)
