"""The size of a voxel and its unit; bytes and rates as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wkdask.errors import InvalidValueError
from wkdask.names import LengthUnit

__all__ = [
    "VoxelSize",
    "as_voxel_size",
    "format_bytes",
    "format_count",
    "format_rate",
    "length_unit_from_str",
    "unit_named",
    "unit_symbol",
]

_UNITS_IN_NM = {
    "yoctometer": 1e-15,
    "zeptometer": 1e-12,
    "attometer": 1e-9,
    "femtometer": 1e-6,
    "picometer": 1e-3,
    "nanometer": 1.0,
    "micrometer": 1e3,
    "millimeter": 1e6,
    "centimeter": 1e7,
    "decimeter": 1e8,
    "meter": 1e9,
    "hectometer": 1e11,
    "kilometer": 1e12,
    "megameter": 1e15,
    "gigameter": 1e18,
    "terameter": 1e21,
    "petameter": 1e24,
    "exameter": 1e27,
    "zettameter": 1e30,
    "yottameter": 1e33,
    "angstrom": 0.1,
    "inch": 2.54e7,
    "foot": 3.048e8,
    "yard": 9.144e8,
    "mile": 1.609344e12,
    "parsec": 3.0856775814913673e25,
}
_SHORT_UNITS = {
    "ym": "yoctometer",
    "zm": "zeptometer",
    "am": "attometer",
    "fm": "femtometer",
    "pm": "picometer",
    "nm": "nanometer",
    "µm": "micrometer",
    "\u03bcm": "micrometer",  # the Greek letter, which keyboards have and which looks the same
    "um": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "dm": "decimeter",
    "m": "meter",
    "hm": "hectometer",
    "km": "kilometer",
    "Mm": "megameter",
    "Gm": "gigameter",
    "Tm": "terameter",
    "Pm": "petameter",
    "Em": "exameter",
    "Zm": "zettameter",
    "Ym": "yottameter",
    "Å": "angstrom",
    "\u212b": "angstrom",  # the sign, which looks the same as the letter
    "in": "inch",
    "ft": "foot",
    "yd": "yard",
    "mi": "mile",
    "pc": "parsec",
}


_SPELLED = {
    "micron": "micrometer",
    "inche": "inch",
    "feet": "foot",
    "µ": "micrometer",
    "\u03bc": "micrometer",
}
"""Other words for units, in lower case, without the s of a plural; the Greek letter looks like the sign."""


def unit_named(text: object) -> str | None:
    """Return the full name of a unit that other programs spell as they like; None if it is none that is known.

    Examples
    --------
    >>> unit_named("Micrometre"), unit_named("microns"), unit_named("nm"), unit_named("pixel")
    ('micrometer', 'micrometer', 'nanometer', None)
    """
    if not isinstance(text, str):
        return None
    word = text.strip()
    if word in _SHORT_UNITS:
        return _SHORT_UNITS[word]
    word = word.lower().replace("metre", "meter").replace("ångström", "angstrom").removesuffix("s")
    word = _SPELLED.get(word, word)
    return word if word in _UNITS_IN_NM else None


def unit_symbol(unit: str) -> str:
    """Return the short name of a unit, which plots and other programs show.

    Examples
    --------
    >>> unit_symbol("nanometer"), unit_symbol("micrometer"), unit_symbol("yard")
    ('nm', 'µm', 'yd')
    """
    return next(short for short, name in _SHORT_UNITS.items() if name == unit)


@dataclass(frozen=True, slots=True, eq=False)
class VoxelSize:
    """The size of a voxel of mag 1.

    Unpacks, indexes and compares like its three numbers in nm: ``voxel_size == (11.24, 11.24, 28)``. Two voxel
    sizes are equal if their factors and units are.

    Raises
    ------
    InvalidValueError
        If a factor is not a positive finite number or the unit is unknown.

    Examples
    --------
    >>> VoxelSize((4.6, 4.6, 45)) == (4.6, 4.6, 45)
    True
    >>> VoxelSize((1, 1, 2), "micrometer").unit
    'micrometer'
    """

    factor: tuple[float, float, float]
    """Extent along (x, y, z), in `unit`."""
    unit: str = "nanometer"
    """The full name of the unit, as the properties file writes it; short names are accepted."""

    def __post_init__(self) -> None:
        try:
            parts = tuple(self.factor)
            factor = () if any(isinstance(part, str | bool) for part in parts) else tuple(map(float, parts))
        except (TypeError, ValueError, OverflowError):
            factor = ()
        if len(factor) != 3 or not all(0 < part < float("inf") for part in factor):
            raise InvalidValueError(
                f"a voxel size is three positive numbers (x, y, z) such as (4.6, 4.6, 45), got {self.factor!r}"
            )
        unit = _SHORT_UNITS.get(self.unit, str(self.unit)) if isinstance(self.unit, str) else ""
        if unit not in _UNITS_IN_NM:
            raise InvalidValueError(f"unknown unit {self.unit!r}; known are {', '.join(_UNITS_IN_NM)}")
        object.__setattr__(self, "factor", factor)
        object.__setattr__(self, "unit", unit)

    def to_nanometer(self) -> tuple[float, float, float]:
        """Return the extent along (x, y, z) in nanometers."""
        scale = _UNITS_IN_NM[self.unit]
        x, y, z = (part * scale for part in self.factor)
        return (x, y, z)

    def __iter__(self) -> Iterator[float]:
        return iter(self.to_nanometer())

    def __len__(self) -> int:
        return 3

    def __getitem__(self, axis: int) -> float:
        return self.to_nanometer()[axis]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, VoxelSize):
            return (self.factor, self.unit) == (other.factor, other.unit)
        if isinstance(other, Sequence) and not isinstance(other, str):
            return self.to_nanometer() == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.to_nanometer())

    def __str__(self) -> str:
        short = {"nanometer": "nm", "micrometer": "µm", "millimeter": "mm"}.get(self.unit, self.unit)
        return " × ".join(f"{part:g}" for part in self.factor) + f" {short}"


def as_voxel_size(scale: Sequence[float] | VoxelSize) -> VoxelSize:
    """Return a voxel size from three numbers in nm, or as it is."""
    return scale if isinstance(scale, VoxelSize) else VoxelSize(tuple(scale))  # type: ignore[arg-type]


def length_unit_from_str(unit: str) -> LengthUnit:
    """Return a unit of length by its full or its short name: ``"nm"``.

    Raises
    ------
    InvalidValueError
        If there is no such unit.

    Examples
    --------
    >>> length_unit_from_str("nm")
    <LengthUnit.NANOMETER: 'nanometer'>
    """
    return LengthUnit(VoxelSize((1, 1, 1), unit).unit)


def format_bytes(count: float) -> str:
    """Return bytes in binary units: ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 999.5:  # what is above would be rounded to 1e+03
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


def format_count(count: int, noun: str) -> str:
    """Return how many of something there are: ``1 cube``, ``2 cubes``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def format_rate(count: float, seconds: float) -> str:
    """Return bytes per second in decimal units, as disks and networks are sold: ``850 MB/s``."""
    rate = count / max(seconds, 1e-9) / 1e6
    return f"{rate:.0f} MB/s" if rate >= 10 else f"{rate:.2g} MB/s"
