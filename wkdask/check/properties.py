"""The rules of the properties file: whether it is there, can be understood, and says all that is needed."""

from __future__ import annotations

import codecs
import errno
import os

from wkdask.check.findings import Findings
from wkdask.errors import PropertiesError
from wkdask.properties import PROPERTIES_FILE, DatasetRecord, load
from wkdask.storage.listing import is_readable

__all__ = ["read_properties"]


def read_properties(dataset: str, findings: Findings) -> DatasetRecord | None:
    """Return what the properties file says; None where it cannot be understood, which is a finding then.

    Parameters
    ----------
    dataset
        The dataset's folder.
    findings
        Takes in what is wrong.
    """
    path = os.path.join(dataset, PROPERTIES_FILE)
    try:
        record = load(dataset)
    except FileNotFoundError as error:
        findings.add("properties-missing", path, str(error))
        return None
    except PropertiesError as error:
        findings.add("properties-damaged", path, str(error))
        return None
    except OSError as error:
        code = "no-permission" if error.errno == errno.EACCES else "unreadable"
        findings.add(code, path, f"it cannot be read: {error.strerror}")
        return None
    if not is_readable(os.stat(path).st_mode):
        findings.add("no-permission", path, "its owner may not read it")
    _check_usual(path, record, findings)
    for broken in record.broken:
        findings.add("layer-broken", os.path.join(dataset, broken.name), broken.reason, broken.name)
    for layer in record.layers:
        for note in layer.notes:
            findings.add("layer-incomplete", os.path.join(dataset, layer.name), note, layer.name)
    return record


def _check_usual(path: str, record: DatasetRecord, findings: Findings) -> None:
    """Find what can be understood here, and not by other programs."""
    with open(path, "rb") as file:
        if file.read(3) == codecs.BOM_UTF8:
            findings.add(
                "properties-unusual", path, "it begins with a byte order mark, which JSON does not have"
            )
    for layer in record.layers:
        if not isinstance(layer.raw.get("attachments"), dict | None):
            what = "its attachments are no object with a list for each kind"
            findings.add("properties-unusual", f"{path}, {layer.name}", what, layer.name)
