"""What channels and points in time a file holds, and the stack of images that some of them make."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from wkdask.errors import ImageStackError, InvalidValueError
from wkdask.external.images.channel_stack import together, turned_stack, with_samples
from wkdask.external.images.file import probe
from wkdask.external.images.info import AxisPosition, Choice
from wkdask.external.images.numbering import Order
from wkdask.external.images.stack import ImageStack, stack_in_order
from wkdask.external.images.tiff_file import axes_of_tiff
from wkdask.external.images.tiff_log import collected_log

__all__ = ["Channels", "Turn", "channels_of", "opened"]

_ALPHA_SAMPLES = (2, 4)
"""Numbers of samples of a pixel that end with transparency."""


@dataclass(frozen=True, slots=True)
class Turn:
    """How images are turned around; see `turned_stack`."""

    flip_x: bool
    """Reverse the rows."""
    flip_y: bool
    """Reverse the columns."""
    flip_z: bool
    """Reverse the sections."""
    swap_xy: bool
    """Make rows of the columns after that."""


@dataclass(frozen=True, slots=True)
class Channels:
    """What a file holds beside x, y and z."""

    planes: int
    """Channels that are images of their own."""
    stored_samples: int
    """Samples of a pixel, as stored."""
    samples: int
    """Those that are channels: without transparency that is left out."""
    times: int
    """Points in time."""
    sections: int
    """Sections of one channel at one time."""
    dtype: str
    """Type of the values."""
    axes: tuple[tuple[str, int], ...]
    """The axes that its metadata name, C and T, and their extent."""

    @property
    def count(self) -> int:
        """All channels."""
        return self.planes * self.samples


def channels_of(path: str, *, keep_alpha: bool = False) -> Channels:
    """Return which channels a file holds.

    Parameters
    ----------
    path
        The file.
    keep_alpha
        Whether transparency is a channel.

    Raises
    ------
    ImageStackError
        If it is damaged, not supported, or has other axes; names it.
    """
    path = os.path.realpath(path)
    axes = _axes(path)
    file, layout = probe(path, choice=_choice(axes, 0, 0))
    times = dict(axes).get("T", 1)
    sections = file.pages
    if file.format == "set":
        found = stack_in_order(Order((path,), (), (), ()), _choice(axes, 0, 0))
        layout, sections = found.layout, found.depth
    planes, stored = dict(axes).get("C", 1), layout[3]
    if planes > 1 and stored > 1:
        raise ImageStackError(
            f"{file.page_name(0)}: has {planes} channels of {stored} samples each; save one stack per channel"
        )
    samples = stored - 1 if stored in _ALPHA_SAMPLES and not keep_alpha else stored
    return Channels(planes, stored, samples, times, sections, layout[2], axes)


def _axes(path: str) -> tuple[tuple[str, int], ...]:
    """Return the axes that the metadata of a file name beside x, y, z."""
    try:
        with open(path, "rb") as stream:
            if stream.read(3) not in (b"II*", b"II+", b"MM\0"):
                return ()
        with collected_log():
            return tuple(axes_of_tiff(path).items())
    except ImageStackError:
        raise
    except Exception:  # the probe says what is wrong with the file
        return ()


def _choice(axes: tuple[tuple[str, int], ...], channel: int, time: int) -> Choice:
    """Return what is wanted of every file."""
    places = {"C": channel, "T": time}
    at = tuple(AxisPosition(axis, places[axis], count) for axis, count in axes)
    return Choice(alpha=True, at=at or None)


def opened(
    order: Order, found: Channels, numbers: tuple[int, ...], time: int, turn: Turn, *, gaps: str, tiles: str
) -> ImageStack:
    """Open the images of some channels at one time.

    Parameters
    ----------
    order
        The files.
    found
        What the first of them holds, and all are to hold.
    numbers
        The channels that are taken, counted from 0.
    time
        The point in time.
    turn
        How images are turned around.
    gaps, tiles
        As for `open_stack`.

    Raises
    ------
    ImageStackError
        If the files are no stack; names the file.
    """
    planes = numbers if found.planes > 1 else (0,)
    stacks = []
    for plane in planes:
        stack = stack_in_order(order, _choice(found.axes, plane, time), gaps=gaps, tiles=tiles)
        if any(file.tiles for file in stack.sections) and turn != Turn(
            flip_x=False, flip_y=False, flip_z=turn.flip_z, swap_xy=False
        ):
            raise InvalidValueError(
                'tiles="join" takes sections as they are: flip_x, flip_y and swap_xy cannot work with it'
            )
        stacks.append(stack)
    if found.planes == 1:
        if stacks[0].num_channels != found.stored_samples:
            raise ImageStackError(
                f"{stacks[0].section_name(0)}: has {stacks[0].num_channels} channels, expected "
                f"{found.stored_samples}"
            )
        left_out = _left_out(found, numbers)
        stacks = [with_samples(stacks[0], numbers)]
        stacks = [_with_note(stacks[0], left_out)]
    turned = [
        turned_stack(stack, flip_x=turn.flip_x, flip_y=turn.flip_y, flip_z=turn.flip_z, swap_xy=turn.swap_xy)
        for stack in stacks
    ]
    return together(turned)


def _left_out(found: Channels, numbers: tuple[int, ...]) -> str:
    """Return the note on transparency that is left out."""
    if found.samples == found.stored_samples or len(numbers) != found.samples:
        return ""
    return "the transparency of the images is left out: their colors are taken as they are stored"


def _with_note(stack: ImageStack, note: str) -> ImageStack:
    """Return a stack with one more note."""
    return replace(stack, notes=(*stack.notes, note)) if note else stack
