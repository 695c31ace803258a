"""Stacks of images made of others: some samples of a pixel, channels put together, images turned around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wkdask.errors import ImageStackError
from wkdask.external.images.info import ImageFile
from wkdask.external.images.orientation import orientation_of, swaps_axes
from wkdask.external.images.stack import ImageStack

__all__ = ["together", "turned_stack", "with_samples"]


def with_samples(stack: ImageStack, samples: Sequence[int]) -> ImageStack:
    """Return a stack of some samples of every pixel.

    Parameters
    ----------
    stack
        The images.
    samples
        Which samples become channels, in that order, counted from 0.
    """
    if tuple(samples) == tuple(range(stack.num_channels)):
        return stack
    files = [
        file
        if file.format == "missing"
        else replace(file, samples=tuple(samples), stored_samples=stack.num_channels)
        for file in stack.sections
    ]
    return replace(stack, sections=tuple(files), num_channels=len(samples))


def turned_stack(stack: ImageStack, *, flip_x: bool, flip_y: bool, flip_z: bool, swap_xy: bool) -> ImageStack:
    """Return a stack whose images are turned around, as webknossos says it.

    Parameters
    ----------
    stack
        The images, as they are stored.
    flip_x
        Whether the last **row** of an image becomes its first.
    flip_y
        Whether the last **column** becomes the first.
    flip_z
        Whether the last section becomes the first.
    swap_xy
        Whether rows then become columns.
    """
    orientation = orientation_of(flip_rows=flip_x, flip_columns=flip_y, swap=swap_xy)
    files = [replace(file, orientation=orientation) for file in stack.sections]
    if flip_z:
        files = [_backwards(file) for file in reversed(files)]
    if swaps_axes(orientation):
        stack = replace(stack, width=stack.height, height=stack.width)
    return replace(stack, sections=tuple(files))


def _backwards(file: ImageFile) -> ImageFile:
    """Return a file whose last section comes first."""
    return replace(file, directories=file.directories[::-1])


def together(stacks: Sequence[ImageStack]) -> ImageStack:
    """Return a stack whose channels are those of several stacks of one channel each.

    Parameters
    ----------
    stacks
        What holds a channel each, of the same files.

    Raises
    ------
    ImageStackError
        If their files do not hold the same sections.
    """
    first = stacks[0]
    if len(stacks) == 1:
        return first
    files = []
    for planes in zip(*(stack.sections for stack in stacks), strict=True):
        if len({plane.pages for plane in planes}) > 1:
            raise ImageStackError(
                f"{planes[0].page_name(0)}: its channels have not the same number of sections"
            )
        if planes[0].format == "missing":
            files.append(planes[0])
            continue
        files.append(replace(planes[0], format="planes", planes=planes, frame=None, piece=None))
    return replace(first, sections=tuple(files), num_channels=len(stacks))
