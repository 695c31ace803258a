"""Names of sections: in which order they come, and which numbers are missing or double.

Numbers in names compare as numbers. A dot or a minus sign in front of digits is part of a number where the names
as a whole say so (``z0.5, z1.25, z1.3``; ``z-10, z-5, z0``), and a separator elsewhere (``v1.9, v1.10``;
``s-1, s-2``).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import PurePath
from typing import Any, TypeAlias

from wkdask.external.images.info import shown

__all__ = ["Gap", "Order", "below_common_folder", "natural_key", "put_in_order"]

_PLAIN = r"([0-9]+)"
_SIGNED = r"(-?[0-9]+)"
_DECIMAL = r"([0-9]+(?:\.[0-9]+)?)"
_SIGNED_DECIMAL = r"(-?[0-9]+(?:\.[0-9]+)?)"
_TOLD = 5
"""How many gaps and doubles are named; beyond that, only their number is."""

Number: TypeAlias = int | Fraction
"""The text of a name."""
_Names: TypeAlias = list[tuple[tuple[str, ...], tuple[str, ...]]]
"""Of each path the texts around its numbers, and the numbers."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers that are missing between two names."""

    place: int
    """Of the first path after them."""
    count: int
    """How many are missing."""
    text: str
    """Which ones."""


@dataclass(frozen=True, slots=True)
class Order:
    """Paths in their order, made by `put_in_order`."""

    paths: tuple[str, ...]
    """The paths."""
    gaps: tuple[Gap, ...]
    """What is missing between them."""
    doubles: tuple[tuple[str, str], ...]
    """Paths that have the same number."""
    notes: tuple[str, ...]
    """How the names were read, where that is not plain."""
    step: Number = 1
    """By how much the numbers grow from name to name."""

    @property
    def text(self) -> str:
        """Number of files, and the first and the last of them."""
        if len(self.paths) == 1:
            return f"1 file, {shown(self.paths[0])}"
        names = _short(self.paths)
        steps = "" if self.step == 1 else f", numbered in steps of {_digits(self.step)}"
        return f"{len(self.paths)} files, from {names[self.paths[0]]} to {names[self.paths[-1]]}{steps}"

    @property
    def gaps_text(self) -> str:
        """The gaps in words; empty if there are none."""
        if not self.gaps:
            return ""
        named = "; ".join(gap.text for gap in self.gaps[:_TOLD])
        more = f"; and {len(self.gaps) - _TOLD} more gaps" if len(self.gaps) > _TOLD else ""
        total = sum(gap.count for gap in self.gaps)
        return f"of the numbers in the names {total} {'is' if total == 1 else 'are'} missing: {named}{more}"

    @property
    def doubles_text(self) -> str:
        """The doubles in words; empty if there are none."""
        if not self.doubles:
            return ""
        named = "; ".join(f"{shown(a)} and {shown(b)}" for a, b in self.doubles[:_TOLD])
        more = f"; and {len(self.doubles) - _TOLD} more" if len(self.doubles) > _TOLD else ""
        return f"the same number is in {named}{more}"


def natural_key(path: str | os.PathLike[str]) -> tuple[Any, ...]:
    """Sort key that puts ``2.tif`` before ``10.tif``, folder by folder.

    Digits compare as numbers of any length, text without case, the suffix last (``a.tif`` before ``a1.tif``).
    Paths that are equal in this order (``01`` and ``1``) are ordered as text.
    """
    pure = PurePath(path)

    def chunks(text: str) -> tuple[tuple[int, int, str], ...]:
        # (length, digits) orders numbers of any length; int() refuses very long ones.
        return tuple(
            (0, len(digits.lstrip("0")), digits.lstrip("0")) if digits else (1, 0, other.casefold())
            for digits, other in re.findall(r"([0-9]+)|([^0-9]+)", text)
        )

    return tuple(map(chunks, (*pure.parent.parts, pure.stem))), pure.suffix.casefold(), str(pure)


def put_in_order(paths: Sequence[str]) -> Order:
    """Put paths in the order of their sections, and find what is missing.

    Parameters
    ----------
    paths
        Absolute paths, each once, in natural order.

    Returns
    -------
    Order
        In natural order, or that of decimals or negative numbers.
    """
    ordered = list(paths)
    if len(ordered) < 2:
        return Order(tuple(ordered), (), (), ())
    names, notes = _read(ordered)
    if names is None:
        return _by_pattern(ordered)
    values = [tuple(map(_value, numbers)) for _, numbers in names]
    # Python's sort is stable: equal ones stay in natural order.
    places = sorted(range(len(ordered)), key=values.__getitem__)
    ordered, values = [ordered[k] for k in places], [values[k] for k in places]
    gaps, doubles, step = _missing(ordered, values)
    return Order(tuple(ordered), tuple(gaps), tuple(doubles), tuple(notes), step)


def _by_pattern(paths: Sequence[str]) -> Order:
    """Order names of several patterns: those of one pattern are put in order among themselves."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, name in enumerate(below_common_folder(paths)):
        groups.setdefault(_split(_PLAIN, name)[0], []).append(place)
    # Numbers that are too long to be numbers, or names without common numbers: the alphabet orders them.
    if len(groups) in (1, len(paths)):
        return Order(tuple(paths), (), (), ())
    named = ", ".join(
        f"{shown('#'.join(texts))} ({len(places)} files)" if len(places) > 1 else shown(paths[places[0]])
        for texts, places in list(groups.items())[:_TOLD]
    )
    more = ", ..." if len(groups) > _TOLD else ""
    notes = [f"the names have {len(groups)} patterns, which come one after the other: {named}{more}"]
    if any(places != list(range(places[0], places[0] + len(places))) for places in groups.values()):
        notes = [f"the names have {len(groups)} patterns, mixed in natural order: {named}{more}"]
        return Order(tuple(paths), (), (), tuple(notes))
    ordered: list[str] = []
    gaps: list[Gap] = []
    doubles: list[tuple[str, str]] = []
    for places in groups.values():
        part = put_in_order([paths[place] for place in places])
        gaps += [Gap(len(ordered) + gap.place, gap.count, gap.text) for gap in part.gaps]
        doubles += part.doubles
        notes += part.notes
        ordered += part.paths
    return Order(tuple(ordered), tuple(gaps), tuple(doubles), tuple(notes))


def _read(paths: Sequence[str]) -> tuple[_Names | None, list[str]]:
    """Split names at their numbers, whose kind all of them together tell; None if there is no one pattern."""
    stems = [os.path.splitext(name)[0] for name in below_common_folder(paths)]
    if any(len(digits) > 4000 for stem in stems for digits in re.findall(_PLAIN, stem)):
        return None, []  # int() refuses them
    for pattern in (_PLAIN, _SIGNED, _DECIMAL, _SIGNED_DECIMAL):
        names = [_split(pattern, stem) for stem in stems]
        if len({texts for texts, _ in names}) > 1:
            continue
        if pattern in (_PLAIN, _SIGNED):
            wider = _DECIMAL if pattern == _PLAIN else _SIGNED_DECIMAL
            other = [_split(wider, stem) for stem in stems]
            if len({texts for texts, _ in other}) == 1 and _are_decimals([numbers for _, numbers in other]):
                pattern, names = wider, other
        return names, _reading_notes(pattern, names)
    return None, []


def below_common_folder(paths: Sequence[str]) -> list[str]:
    """Return absolute paths without the folder that all of them are in."""
    common = os.path.commonpath(list({os.path.dirname(path) for path in paths}))
    return [path[len(os.path.join(common, "")) :] for path in paths]


def _split(pattern: str, stem: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the texts around the numbers of a name, and the numbers."""
    parts = re.split(pattern, stem)
    return tuple(text.casefold() for text in parts[::2]), tuple(parts[1::2])


def _reading_notes(pattern: str, names: _Names) -> list[str]:
    """Report numbers that are read otherwise than as plain digits."""
    fields = list(zip(*(numbers for _, numbers in names), strict=True))
    varying = [field for field in fields if len(set(field)) > 1]
    notes = []
    if any(len({len(text.partition(".")[2]) for text in field}) > 1 for field in varying):
        notes.append("decimal")
    if any(text.startswith("-") for field in varying for text in field):
        notes.append("negative")
    if not notes:
        return []
    example = ", ".join(sorted({text for field in varying for text in field}, key=_value)[:3])
    return [f"numbers in the names are read as {' and '.join(notes)} ones: {example} ..."]


def _are_decimals(names: Sequence[tuple[str, ...]]) -> bool:
    """Tell decimals from two numbers with a dot between them, such as section and tile.

    Counters run on from 0 or 1 without many gaps, and come to ``10``. Decimals of several lengths never end in 0.
    """
    for field in zip(*names, strict=True):
        fractions = [fraction for text in field if (fraction := text.partition(".")[2])]
        if len(set(fractions)) < 2:
            continue
        if len({len(fraction) for fraction in fractions}) > 1 and any(
            len(fraction) > 1 and fraction.endswith("0") for fraction in fractions
        ):
            continue
        values = set(map(int, fractions))
        if 2 * len(values) < max(values) + 1:
            return True
    return False


def _value(text: str) -> Number:
    """Return a number exactly."""
    return Fraction(text) if "." in text else int(text)


def _missing(
    paths: Sequence[str], values: Sequence[tuple[Number, ...]]
) -> tuple[list[Gap], list[tuple[str, str]], Number]:
    """Return gaps and doubles of paths in their order, and the step of their numbers.

    The number of a section is the one of those in its name that differs in all of them; if there are several, the
    one with the fewest gaps. If there is none, names that differ in their last number only are a group.
    """
    fields = list(zip(*values, strict=True))
    varying = [k for k, field in enumerate(fields) if len(set(field)) > 1]
    found: list[tuple[list[Gap], list[tuple[str, str]], Number]] = []
    for k in varying:
        field = fields[k]
        if all(a < b for a, b in pairwise(field)):
            found.append((_gaps(paths, field), [], _step(field)))
    if found:
        return min(found, key=lambda one: sum(gap.count for gap in one[0]))
    if not varying:  # names that differ in leading zeros, or in nothing that is a number
        return [], list(pairwise(paths)) if fields else [], 1
    groups: dict[tuple[Number, ...], list[int]] = {}
    last = varying[-1]
    for place, value in enumerate(values):
        groups.setdefault((*value[:last], *value[last + 1 :]), []).append(place)
    gaps, doubles = [], []
    for places in groups.values():
        numbers = [fields[last][place] for place in places]
        kept: list[int] = []
        for place, number in zip(places, numbers, strict=True):
            if kept and fields[last][kept[-1]] == number:
                doubles.append((paths[kept[-1]], paths[place]))
            else:
                kept.append(place)
        inside = _gaps([paths[k] for k in kept], [fields[last][k] for k in kept])
        gaps += [Gap(kept[gap.place], gap.count, gap.text) for gap in inside]
    return gaps, doubles, 1


def _gaps(paths: Sequence[str], numbers: Sequence[Number]) -> list[Gap]:
    """Return the gaps in numbers that rise; their step is the largest that all differences are multiples of."""
    step = _step(numbers)
    names, found = _short(paths), []
    for place, (low, high) in enumerate(pairwise(numbers), 1):
        count = int((high - low) / step) - 1
        if count:
            first, last = _digits(low + step), _digits(high - step)
            which = first if count == 1 else f"{first} to {last}"
            before, after = names[paths[place - 1]], names[paths[place]]
            found.append(Gap(place, count, f"{which} between {before} and {after}"))
    return found


def _step(numbers: Sequence[Number]) -> Number:
    """Return the largest number that all differences are multiples of; of whole numbers at least two must be."""
    steps = [b - a for a, b in pairwise(numbers)]
    scale = math.lcm(*(step.denominator for step in steps))
    if scale == 1 and len(steps) < 2:
        return 1
    return Fraction(math.gcd(*(int(step * scale) for step in steps)), scale)


def _digits(number: Number) -> str:
    """Return a number as it would stand in a name."""
    return str(number.numerator) if number.denominator == 1 else f"{float(number):g}"


def _short(paths: Sequence[str]) -> dict[str, str]:
    """Return short names of paths: without the folder, if they are all in one."""
    alike = len({os.path.dirname(path) for path in paths}) == 1
    return {path: shown(os.path.basename(path) if alike else path) for path in paths}
