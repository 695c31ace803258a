"""Datasets, layers and mags on a terminal: a tree, its columns aligned. The words are those of :mod:`.facts`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from wkdask.display.counting import count_all, count_within
from wkdask.display.facts import MAX_SECONDS, LayerFacts, dataset_facts, layer_facts, mag_rows
from wkdask.objects.reading import asking_once
from wkdask.properties.records import LayerRecord

if TYPE_CHECKING:
    from wkdask.dataset import Dataset
    from wkdask.layer import Layer
    from wkdask.mag_view import MagView

__all__ = ["dataset_text", "dataset_text_counted", "layer_text", "layer_text_counted", "mag_text"]


@asking_once()
def dataset_text(dataset: Dataset, *, max_cubes: int | None = None, max_seconds: float = MAX_SECONDS) -> str:
    """Return a dataset as a tree of its layers and mags.

    Parameters
    ----------
    dataset
        The dataset.
    max_cubes
        Cubes of each mag that are counted on the disk; as many as the time allows by default.
    max_seconds
        Seconds after which nothing more is counted.
    """
    return _as_tree(*dataset_facts(dataset, lambda stores: count_within(stores, max_seconds, max_cubes)))


def dataset_text_counted(dataset: Dataset, tell: Callable[[int, int], None]) -> str:
    """Return a dataset as a tree of its layers and mags, with all cubes counted, however long that takes.

    Parameters
    ----------
    dataset
        The dataset.
    tell
        Called a few times a second with the cubes, and the bytes on the disk, that were found so far.
    """
    return _as_tree(*dataset_facts(dataset, lambda stores: count_all(stores, tell)))


@asking_once()
def layer_text(layer: Layer) -> str:
    """Return a layer and its mags, one line each."""
    return "\n".join(_layer_lines(layer_facts(layer)))


def layer_text_counted(layer: Layer, tell: Callable[[int, int], None]) -> str:
    """Return a layer and its mags, with all cubes counted; see :func:`dataset_text_counted`."""
    return "\n".join(_layer_lines(layer_facts(layer, lambda stores: count_all(stores, tell))))


@asking_once()
def mag_text(layer_record: LayerRecord, mag_view: MagView) -> str:
    """Return what is known of a mag, as lines of name and value.

    Parameters
    ----------
    layer_record
        The layer, as the properties have it.
    mag_view
        The mag.
    """
    return "\n".join(f"{name:<13}: {value}" for name, value in mag_rows(layer_record, mag_view))


def _as_tree(head: Sequence[str], layers: Sequence[LayerFacts]) -> str:
    """Return a dataset as lines."""
    return "\n".join(_tree(head, [_layer_lines(layer) for layer in layers]))


def _layer_lines(facts: LayerFacts) -> list[str]:
    """Return a layer as a tree of its mags, their columns aligned."""
    rows = []
    for mag in facts.mags:
        words: tuple[str, ...] = ()
        if mag.cells:
            voxels, nbytes, cubes, chunks, compression, disk = mag.cells
            words = (
                f"{voxels} voxels",
                nbytes,
                cubes,
                f"chunks {chunks}",
                f"compression {compression}",
                f"{disk} on disk",
            )
        rows.append((f"mag {mag.name}", *words))
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = []
    for row, mag in zip(rows, facts.mags, strict=True):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        lines.append(["  ".join([*cells, *filter(None, (mag.error, mag.note))]).rstrip()])
    return _tree(facts.lines, lines)


def _tree(head: Sequence[str], children: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a node above those of its children, joined by box-drawing characters."""
    stem = "│  " if children else "   "
    lines = [head[0], *(stem + line for line in head[1:])]
    for number, (first, *rest) in enumerate(children):
        last = number == len(children) - 1
        lines.append(("└─ " if last else "├─ ") + first)
        lines += [("   " if last else "│  ") + line for line in rest]
    return lines
