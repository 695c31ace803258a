"""What can belong to a segmentation beside its voxels: meshes, agglomerates, connectomes, indices, statistics.

Frozen values, without I/O but for agglomerates.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

from wkdask.errors import InvalidValueError, UnsupportedFormatError
from wkdask.fsio import checked_path
from wkdask.objects.urls import checked_url, is_url

if TYPE_CHECKING:
    from wkdask.attachments.agglomerates import AgglomerateGraph
    from wkdask.layer import SegmentationLayer

__all__ = [
    "KINDS",
    "NAME",
    "SUFFIXES",
    "AgglomerateAttachment",
    "AnyPath",
    "Attachment",
    "AttachmentDataFormat",
    "ConnectomeAttachment",
    "CumsumAttachment",
    "MeshAttachment",
    "SegmentIndexAttachment",
    "SegmentStatisticsAttachment",
    "absolute",
    "contains",
    "written",
]

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
AnyPath: TypeAlias = str | os.PathLike[str]


class AttachmentDataFormat(Enum):
    """How the data of an attachment are stored."""

    Zarr3 = "zarr3"
    HDF5 = "hdf5"
    JSON = "json"
    NeuroglancerPrecomputed = "neuroglancerPrecomputed"

    def __str__(self) -> str:
        return self.value


SUFFIXES = {"hdf5": ".hdf5", "json": ".json"}
"""Of files; what else there is are folders."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """Something that belongs to a segmentation: one of the classes below. Made by `from_path_and_name`."""

    name: str
    """Its name among those of its kind."""
    path: Path | str
    """Where its data are, absolute; the text of a URL."""
    data_format: AttachmentDataFormat | str
    """How they are stored; the text of the properties file where wkdask does not know it."""

    type_name: ClassVar[str] = ""
    container_name: ClassVar[str] = ""
    key: ClassVar[str] = ""
    """Its key in the properties file, and its folder in that of the layer."""
    is_list: ClassVar[bool] = True
    """Whether a layer can have several."""
    formats: ClassVar[tuple[AttachmentDataFormat, ...]] = ()
    """How it can be stored."""

    @classmethod
    def from_path_and_name(
        cls,
        path: AnyPath,
        name: str,
        *,
        data_format: AttachmentDataFormat | str,
        dataset_path: AnyPath | None = None,
    ) -> Self:
        """Return an attachment that no layer lists yet.

        Parameters
        ----------
        path
            Where its data are: a path, or a URL. They need not be there yet.
        name
            Letters, digits, ``_ - .``; not a dot at the start.
        data_format
            One of `formats`.
        dataset_path
            What a relative path starts from; the working folder by default.

        Raises
        ------
        InvalidValueError
            If the name or the path is none, or this kind of attachment is not stored in that format.
        """
        if not cls.key:
            raise InvalidValueError(
                "an attachment is of one kind: use MeshAttachment, AgglomerateAttachment, …"
            )
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InvalidValueError(
                f"the name of an attachment has letters, digits and _ - . and no dot at the start; got {name!r}"
            )
        allowed = ", ".join(str(each) for each in cls.formats)
        try:
            known = AttachmentDataFormat(str(data_format))
        except ValueError:
            raise InvalidValueError(f"{cls.__name__} is stored as {allowed}; got {data_format!r}") from None
        if known not in cls.formats:
            raise InvalidValueError(f"{cls.__name__} is stored as {allowed}; got {known}")
        return cls(name, absolute(path, dataset_path), known)


class MeshAttachment(Attachment):
    """Meshes of segments."""

    __slots__ = ()
    type_name, container_name, key = "mesh", "meshes", "meshes"
    formats = (
        AttachmentDataFormat.Zarr3,
        AttachmentDataFormat.HDF5,
        AttachmentDataFormat.NeuroglancerPrecomputed,
    )


class AgglomerateAttachment(Attachment):
    """Which segments belong together, with the edges between them."""

    __slots__ = ()
    type_name, container_name, key = "agglomerate", "agglomerates", "agglomerates"
    formats = (AttachmentDataFormat.Zarr3, AttachmentDataFormat.HDF5)

    @classmethod
    def create(
        cls, path: AnyPath, graph: AgglomerateGraph, *, segmentation_dtype: Any = "uint32"
    ) -> AgglomerateAttachment:
        """Write the agglomerates of a graph as Zarr 3 arrays.

        The errors are those of `wkdask.attachments.agglomerates.write_graph`.

        Parameters
        ----------
        path
            The folder to make; its name is that of the attachment.
        graph
            The segments, and the edges between those that belong together.
        segmentation_dtype
            ``"uint32"`` or ``"uint64"``: of the segmentation.
        """
        from wkdask.attachments.agglomerates import write_graph

        folder = checked_path(path)
        made = cls.from_path_and_name(
            folder, os.path.basename(folder), data_format=AttachmentDataFormat.Zarr3
        )
        write_graph(folder, graph, segmentation_dtype)
        return made

    @classmethod
    def create_and_add_to(
        cls, layer: SegmentationLayer, name: str, graph: AgglomerateGraph
    ) -> AgglomerateAttachment:
        """Write the agglomerates of a graph into a layer's folder, and list them; errors as `create`.

        Raises
        ------
        AlreadyExistsError
            If the layer has agglomerates of that name.
        """
        from wkdask.attachments.agglomerates import write_graph

        dtype = layer.dtype_per_channel
        return layer.attachments.add_made(
            cls, name, AttachmentDataFormat.Zarr3, lambda folder: write_graph(folder, graph, dtype)
        )

    def to_graph(self) -> AgglomerateGraph:
        """Return the graph that is stored; see `wkdask.attachments.agglomerates.read_graph` for the errors."""
        from wkdask.attachments.agglomerates import read_graph

        if self.data_format is not AttachmentDataFormat.Zarr3 or isinstance(self.path, str):
            raise UnsupportedFormatError(
                f"agglomerates are read where they are Zarr 3 in a folder; {self.name!r} is {self.data_format} "
                f"at {self.path}"
            )
        return read_graph(self.path)


class ConnectomeAttachment(Attachment):
    """Synapses and what they connect."""

    __slots__ = ()
    type_name, container_name, key = "connectome", "connectomes", "connectomes"
    formats = (AttachmentDataFormat.Zarr3, AttachmentDataFormat.HDF5)


class SegmentIndexAttachment(Attachment):
    """Which chunks each segment touches."""

    __slots__ = ()
    type_name, container_name, key, is_list = "segmentIndex", "segment_index", "segmentIndex", False
    formats = (AttachmentDataFormat.Zarr3, AttachmentDataFormat.HDF5)


class SegmentStatisticsAttachment(Attachment):
    """Sizes, boxes and other numbers of segments."""

    __slots__ = ()
    type_name, container_name, key = "segmentStatistics", "segment_statistics", "segmentStatistics"
    is_list = False
    formats = (AttachmentDataFormat.Zarr3,)


class CumsumAttachment(Attachment):
    """Offsets into agglomerates."""

    __slots__ = ()
    type_name, container_name, key, is_list = "cumsum", "cumsum", "cumsum", False
    formats = (AttachmentDataFormat.Zarr3, AttachmentDataFormat.JSON)


KINDS: tuple[type[Attachment], ...] = (
    MeshAttachment,
    AgglomerateAttachment,
    SegmentIndexAttachment,
    SegmentStatisticsAttachment,
    CumsumAttachment,
    ConnectomeAttachment,
)


def absolute(path: AnyPath, dataset_path: AnyPath | None) -> Path | str:
    """Return a path as an absolute one, or a URL as it is."""
    text = str(path)
    if "://" in text:
        return text
    if dataset_path is not None and is_url(dataset_path):
        return checked_url(f"{dataset_path}/{text}")
    return Path(checked_path(text if dataset_path is None else os.path.join(dataset_path, text)))


def written(path: Path | str, dataset_path: str) -> str:
    """Return a path as the properties file has it: relative where it is in the dataset's folder."""
    text = str(path)
    if "://" in text or not contains(dataset_path, text):
        return text
    return f"./{os.path.relpath(text, dataset_path)}"


def contains(folder: str, path: str) -> bool:
    """Return whether a path is below a folder, by their texts."""
    return path.startswith(folder.rstrip(os.sep) + os.sep)
