"""What a check finds, as values: findings, and the report of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from wkdask.check.rules import RULES, SEVERITIES, Severity
from wkdask.geometry import BoundingBox, Mag
from wkdask.geometry.voxel_size import format_bytes

__all__ = ["CheckReport", "Finding", "Findings", "shown"]

_MOST = 100
"""Findings of one code in one mag that are listed; the others are counted."""


def shown(path: str) -> str:
    """Return a path as it can be printed: bytes that are no UTF-8 become escapes."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a dataset, or worth knowing.

    Examples
    --------
    >>> found = Finding("mag-missing", "ds/color/2", "there is no folder", layer="color")
    >>> found.severity, found.remedy
    ('error', 'put back its folder, or layer.delete_mag()')
    """

    code: str
    """Which kind; `wkdask.check.rules.RULES` has them all."""
    path: str
    """The file or folder."""
    what: str
    """What was found there."""
    layer: str | None = None
    """The layer, where it is of one."""
    mag: Mag | None = None
    """The mag, where it is of one."""
    boxes: tuple[BoundingBox, ...] = ()
    """Where it is, in voxels of mag 1, as ``redownsample(boxes=)`` takes them."""
    value: int | str | None = None
    """The largest id that was found, or the way of sampling that other boxes of the mag agree with."""

    @property
    def severity(self) -> Severity:
        """``"error"``, ``"warning"`` or ``"info"``."""
        return RULES[self.code].severity

    @property
    def meaning(self) -> str:
        """What it comes to."""
        return RULES[self.code].meaning

    @property
    def remedy(self) -> str:
        """What would mend it."""
        return RULES[self.code].remedy

    @property
    def source(self) -> str:
        """Who says so, of the rules of others; else empty."""
        return RULES[self.code].source

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "severity": self.severity,
            "code": self.code,
            "path": self.path,
            "layer": self.layer,
            "mag": None if self.mag is None else self.mag.to_layer_name(),
            "what": self.what,
            "meaning": self.meaning,
            "remedy": self.remedy,
            "source": self.source or None,
            "boxes": [list(box.to_tuple6()) for box in self.boxes],
            "value": self.value,
        }

    def __str__(self) -> str:
        source = f" ({self.source})" if self.source else ""
        return (
            f"{self.severity}: {self.code}: {self.path}: {self.what}\n"
            f"    It means: {self.meaning}{source}.\n    To mend it: {self.remedy}."
        )


@dataclass(slots=True)
class Findings:
    """Takes in findings, bounded: of one code in one mag so many, and the number of the rest."""

    found: list[Finding] = field(default_factory=list)
    """Those that are listed."""
    _counts: Counter[tuple[str, str | None, Mag | None]] = field(default_factory=Counter)
    _known: set[tuple[str, str]] = field(default_factory=set)

    def add(
        self,
        code: str,
        path: str,
        what: str,
        layer: str | None = None,
        mag: Mag | None = None,
        boxes: Iterable[BoundingBox] = (),
        value: int | str | None = None,
    ) -> None:
        """Take in a finding; what is known of a path already is not said again."""
        path, what = shown(path), shown(what)
        if (code, path) in self._known and code != "mag-stale":
            return
        key = (code, layer, mag)
        self._counts[key] += 1
        if self._counts[key] <= _MOST:
            self._known.add((code, path))
            self.found.append(Finding(code, path, what, layer, mag, tuple(boxes), value))

    def listed(self) -> tuple[Finding, ...]:
        """Return the findings, the worst first; of what was left out, how many there are."""
        rest = [
            Finding(code, path, f"{count - _MOST} more like the {_MOST} that are listed", layer, mag)
            for (code, layer, mag), count in self._counts.items()
            if count > _MOST
            for path in [self._folder_of(code, layer, mag)]
        ]
        return tuple(sorted([*self.found, *rest], key=lambda each: SEVERITIES.index(each.severity)))

    def _folder_of(self, code: str, layer: str | None, mag: Mag | None) -> str:
        """Return the path of the first finding of a kind."""
        return next(f.path for f in self.found if (f.code, f.layer, f.mag) == (code, layer, mag))


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check of a dataset found; shown by printing it.

    Examples
    --------
    >>> report = ds.check(deep=True)
    >>> report.is_clean, [each.code for each in report if each.severity == "error"]
    (True, [])
    """

    path: str
    """The dataset's folder."""
    findings: tuple[Finding, ...]
    """What was found, the worst first."""
    layers: int = 0
    """Layers that were looked at."""
    mags: int = 0
    """Mags that could be opened."""
    cubes: int = 0
    """Files of cubes whose headers or indexes were checked."""
    nbytes: int = 0
    """Bytes of voxels that were decoded, with `deep`."""

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    @property
    def is_clean(self) -> bool:
        """Whether there is neither an error nor a warning."""
        return all(each.severity == "info" for each in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "dataset": self.path,
            "clean": self.is_clean,
            "layers": self.layers,
            "mags": self.mags,
            "cubes": self.cubes,
            "bytes": self.nbytes,
            "findings": [each.to_json() for each in self.findings],
        }

    def __str__(self) -> str:
        counts = Counter(each.severity for each in self.findings)
        told = [_counted(counts[each], each) for each in SEVERITIES if counts[each]]
        numbers = {"layer": self.layers, "mag": self.mags, "cube file": self.cubes}
        looked = ", ".join(_counted(number, noun) for noun, number in numbers.items())
        if self.nbytes:
            looked += f", {format_bytes(self.nbytes)} of voxels"
        return "\n".join([*map(str, self.findings), f"{self.path}: {', '.join(told) or 'clean'} ({looked})"])


def _counted(number: int, noun: str) -> str:
    """Return a number with its noun, as in 1 mag, 2 mags."""
    return f"{number} {noun}{'s' * (number != 1)}"
