"""The attachments of a segmentation layer: listed, added, copied, linked, renamed, removed.

The properties file lists them under a layer's ``attachments``; their data may lie in the layer's folder, elsewhere,
or behind a URL.
"""

from __future__ import annotations

import contextlib
import os
import reprlib
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wkdask.attachments.kinds import (
    KINDS,
    NAME,
    SUFFIXES,
    AgglomerateAttachment,
    AnyPath,
    Attachment,
    AttachmentDataFormat,
    ConnectomeAttachment,
    CumsumAttachment,
    MeshAttachment,
    SegmentIndexAttachment,
    SegmentStatisticsAttachment,
    absolute,
    contains,
    written,
)
from wkdask.attachments.making import made_apart, remove
from wkdask.errors import (
    AlreadyExistsError,
    InvalidValueError,
    PropertiesError,
    UnsupportedFormatError,
    WkdaskWarning,
)
from wkdask.fsio import is_there
from wkdask.jobs.mag_folders import mags_lock
from wkdask.locations import link_folder
from wkdask.properties import check_edit
from wkdask.properties.extras import DropAttachment, PutAttachment
from wkdask.properties.values import Edit

if TYPE_CHECKING:
    from wkdask.layer import SegmentationLayer

__all__ = ["Attachments"]

_Kind = TypeVar("_Kind", bound=Attachment)


class Attachments:
    """The attachments of a segmentation layer, as its properties file lists them now.

    Parameters
    ----------
    layer
        The layer.

    Examples
    --------
    Files that exist elsewhere are copied, linked, or listed by their path:

    >>> import pathlib
    >>> for name in ("meshes", "ids", "synapses"):
    ...     pathlib.Path(f"{name}.hdf5").touch()
    >>> mesh = MeshAttachment.from_path_and_name("meshes.hdf5", "first", data_format="hdf5")
    >>> isinstance(mesh, Attachment), mesh.data_format == AttachmentDataFormat.HDF5
    (True, True)
    >>> isinstance(cells.attachments, Attachments), cells.attachments.add_attachment_as_copy(mesh).name
    (True, 'first')
    >>> ids = AgglomerateAttachment.from_path_and_name("ids.hdf5", "ids", data_format="hdf5")
    >>> synapses = ConnectomeAttachment.from_path_and_name("synapses.hdf5", "synapses", data_format="hdf5")
    >>> [one.name for one in cells.attachments.add_copy_attachments(ids, synapses)]
    ['ids', 'synapses']
    >>> [one.name for one in cells.attachments.meshes + cells.attachments.agglomerates]
    ['first', 'ids']

    A layer has one index of segments, one file of their statistics, and one of offsets into agglomerates:

    >>> for kind in (SegmentIndexAttachment, CumsumAttachment, SegmentStatisticsAttachment):
    ...     print(kind.type_name, [str(form) for form in kind.formats])
    segmentIndex ['zarr3', 'hdf5']
    cumsum ['zarr3', 'json']
    segmentStatistics ['zarr3']
    """

    def __init__(self, layer: SegmentationLayer) -> None:
        self._layer = layer

    # --- looking at them -------------------------------------------------------------------------------

    @property
    def meshes(self) -> tuple[MeshAttachment, ...]:
        """Meshes, in the order of the file."""
        return self._all(MeshAttachment)

    @property
    def agglomerates(self) -> tuple[AgglomerateAttachment, ...]:
        """Agglomerates, in the order of the file."""
        return self._all(AgglomerateAttachment)

    @property
    def connectomes(self) -> tuple[ConnectomeAttachment, ...]:
        """Connectomes, in the order of the file."""
        return self._all(ConnectomeAttachment)

    @property
    def segment_index(self) -> SegmentIndexAttachment | None:
        """The segment index, if there is one."""
        return next(iter(self._all(SegmentIndexAttachment)), None)

    @property
    def segment_statistics(self) -> SegmentStatisticsAttachment | None:
        """The segment statistics, if there are some."""
        return next(iter(self._all(SegmentStatisticsAttachment)), None)

    @property
    def cumsum(self) -> CumsumAttachment | None:
        """The offsets into agglomerates, if there are some."""
        return next(iter(self._all(CumsumAttachment)), None)

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        return next(iter(self), None) is None

    def __iter__(self) -> Iterator[Attachment]:
        for kind in KINDS:
            yield from self._all(kind)

    def __repr__(self) -> str:
        return f"Attachments({list(self)!r})"

    def _all(self, kind: type[_Kind]) -> tuple[_Kind, ...]:
        """Return the attachments of a kind; what the file says of them is checked."""
        where = f"layer {self._layer.name!r}: attachments"
        listed = self._layer.record.raw.get("attachments") or {}
        value = listed.get(kind.key) if isinstance(listed, dict) else listed
        entries = value if isinstance(value, list) else [] if value is None else [value]
        found = []
        for entry in entries:
            if not isinstance(entry, dict) or not all(
                isinstance(entry.get(key), str) for key in ("name", "path", "dataFormat")
            ):
                raise PropertiesError(
                    f"{where}: {kind.key}: expected name, path and dataFormat, got {reprlib.repr(entry)}"
                )
            data_format: AttachmentDataFormat | str = entry["dataFormat"]
            with contextlib.suppress(ValueError):  # one of a newer version
                data_format = AttachmentDataFormat(data_format)
            found.append(kind(entry["name"], absolute(entry["path"], self._layer.dataset_path), data_format))
        return tuple(found)

    # --- listing data where they are -------------------------------------------------------------------

    def add_mesh(
        self, path: AnyPath, *, name: str, data_format: AttachmentDataFormat | str
    ) -> MeshAttachment:
        """List meshes that are at a path or a URL; a relative path starts from the dataset.

        Raises
        ------
        AlreadyExistsError
            If the layer has meshes of that name.
        InvalidValueError
            As `Attachment.from_path_and_name`.
        """
        return self._add(MeshAttachment, path, name, data_format)

    def add_agglomerate(
        self, path: AnyPath, *, name: str, data_format: AttachmentDataFormat | str
    ) -> AgglomerateAttachment:
        """List agglomerates that are at a path or a URL; errors as `add_mesh`."""
        return self._add(AgglomerateAttachment, path, name, data_format)

    def add_connectome(
        self, path: AnyPath, *, name: str, data_format: AttachmentDataFormat | str
    ) -> ConnectomeAttachment:
        """List a connectome that is at a path or a URL; errors as `add_mesh`."""
        return self._add(ConnectomeAttachment, path, name, data_format)

    def set_segment_index(
        self, path: AnyPath, *, name: str, data_format: AttachmentDataFormat | str
    ) -> SegmentIndexAttachment:
        """List the segment index, instead of the one before, whose data stay; errors as `add_mesh`."""
        return self._add(SegmentIndexAttachment, path, name, data_format)

    def set_segment_statistics(
        self, path: AnyPath, *, name: str, data_format: AttachmentDataFormat | str
    ) -> SegmentStatisticsAttachment:
        """List the segment statistics, instead of those before, whose data stay; errors as `add_mesh`."""
        return self._add(SegmentStatisticsAttachment, path, name, data_format)

    def set_cumsum(
        self, path: AnyPath, *, name: str, data_format: AttachmentDataFormat | str
    ) -> CumsumAttachment:
        """List the offsets, instead of those before, whose data stay; errors as `add_mesh`."""
        return self._add(CumsumAttachment, path, name, data_format)

    def _add(self, kind: type[_Kind], path: AnyPath, name: str, data_format: Any) -> _Kind:
        made = kind.from_path_and_name(
            path, name, data_format=data_format, dataset_path=self._layer.dataset_path
        )
        self._layer._file.commit(self._edit(made))
        return made

    def _edit(self, attachment: Attachment, renamed_from: str | None = None) -> PutAttachment:
        """Return the edit that lists an attachment, with the path as the file writes it."""
        entry = {
            "name": attachment.name,
            "path": written(attachment.path, self._layer.dataset_path),
            "dataFormat": str(attachment.data_format),
        }
        return PutAttachment(self._layer.name, attachment.key, entry, attachment.is_list, renamed_from)

    def add_attachment_as_ref(self, attachment: Attachment, *, new_name: str | None = None) -> Attachment:
        """List an attachment of another layer, or of none, where its data are.

        Parameters
        ----------
        attachment
            The attachment.
        new_name
            Its name here; the same by default.

        Raises
        ------
        AlreadyExistsError, InvalidValueError
            As `add_mesh`.
        """
        name = attachment.name if new_name is None else new_name
        return self._add(type(attachment), attachment.path, name, attachment.data_format)

    def add_attachments(self, *other: Attachment) -> list[Attachment]:
        """List attachments where their data are, all or none; errors as `add_mesh`."""
        made = [
            type(each).from_path_and_name(each.path, each.name, data_format=each.data_format)
            for each in other
        ]
        edits: list[Edit] = [self._edit(each) for each in made]
        self._layer._file.commit(*edits)
        return made

    # --- with data in the layer's folder ---------------------------------------------------------------

    def add_attachment_as_copy(self, attachment: Attachment) -> Attachment:
        """Copy the data of an attachment into the layer's folder, and list the copy.

        Raises
        ------
        AlreadyExistsError
            If the layer has an attachment of that name, or its folder such a file.
        FileNotFoundError
            If there are no data; nothing was made.
        UnsupportedFormatError
            If they are behind a URL.
        """
        source = self._local(attachment)
        os.stat(source)  # nothing is made for data that are not there
        if os.path.isdir(source) and contains(os.path.realpath(source), os.path.realpath(self._layer.path)):
            raise InvalidValueError(f"{source} contains the layer's folder, so it cannot be copied there")
        return self.add_made(
            type(attachment), attachment.name, attachment.data_format, lambda target: _copy(source, target)
        )

    def add_copy_attachments(self, *other: Attachment) -> list[Attachment]:
        """Copy attachments one after the other; errors as `add_attachment_as_copy`."""
        return [self.add_attachment_as_copy(each) for each in other]

    def add_symlink_attachments(self, *other: Attachment, make_relative: bool = False) -> list[Attachment]:
        """Make links to the data of attachments in the layer's folder, and list these; errors as for a copy.

        Parameters
        ----------
        other
            The attachments.
        make_relative
            Whether the links are relative paths.
        """

        def link_to(source: str) -> Callable[[str], object]:
            return lambda link: link_folder(os.path.realpath(source), link, make_relative)

        return [
            self.add_made(type(each), each.name, each.data_format, link_to(self._local(each)))
            for each in other
        ]

    def add_made(
        self,
        kind: type[_Kind],
        name: str,
        data_format: AttachmentDataFormat | str,
        make: Callable[[str], object],
    ) -> _Kind:
        """List an attachment whose data a function makes at a path in the layer's folder; all of it or nothing.

        Raises
        ------
        AlreadyExistsError
            If the layer has an attachment of that name, or its folder such a file.
        ReadOnlyError
            If the layer's folder is a link to another dataset's.
        """
        layer = self._layer
        checked = kind.from_path_and_name("unknown", name, data_format=data_format)
        suffix = SUFFIXES.get(str(checked.data_format), "")
        path = os.path.join(layer.path, kind.key, name + suffix)
        made = kind(name, Path(path), checked.data_format)
        edit = self._edit(made)
        layer._refuse_linked_folder()
        check_edit(layer.dataset_path, edit)
        with _making(path, layer.dataset_path) as ours:
            make(path)
            ours.append(path)
            layer._file.commit(edit)
        return made

    def _local(self, attachment: Attachment) -> str:
        """Return where the data of an attachment are, or raise UnsupportedFormatError if behind a URL."""
        if isinstance(attachment.path, str):
            raise UnsupportedFormatError(
                f"{attachment.path} is a URL: its data are not copied; add_attachment_as_ref lists it as it is"
            )
        return str(attachment.path)

    # --- changing the list -----------------------------------------------------------------------------

    def rename_attachment(self, attachment: Attachment, *, new_name: str) -> Attachment:
        """Give an attachment another name; its data stay where they are.

        Raises
        ------
        InvalidValueError
            If the layer does not list it, or the name is none.
        AlreadyExistsError
            If another one of its kind has that name.
        """
        self._listed(attachment)
        made = type(attachment).from_path_and_name(
            attachment.path, new_name, data_format=attachment.data_format
        )
        self._layer._file.commit(self._edit(made, attachment.name))
        return made

    def delete_attachment(self, attachment: Attachment) -> None:
        """Remove an attachment from the list, and its data where they are the layer's own.

        These are the data in the layer's folder of that kind (``meshes/``, …), of a link only the link; all other
        data stay.

        Raises
        ------
        InvalidValueError
            If the layer does not list it.
        """
        self._listed(attachment)
        layer = self._layer
        layer._file.commit(DropAttachment(layer.name, attachment.key, attachment.name))
        path = str(attachment.path)
        home = os.path.join(layer.path, attachment.key)
        is_own = os.path.dirname(path) == home and os.path.realpath(home) == os.path.join(
            os.path.realpath(layer.dataset_path), layer.name, attachment.key
        )
        if is_own and not any(str(each.path) == path for each in self):
            remove(path)
            with contextlib.suppress(OSError):  # others are in it
                os.rmdir(home)

    def _listed(self, attachment: Attachment) -> None:
        """Raise InvalidValueError unless the layer lists an attachment."""
        listed = self._all(type(attachment))
        if attachment not in listed:
            known = ", ".join(repr(each.name) for each in listed) or "none"
            raise InvalidValueError(
                f"layer {self._layer.name!r} does not list {attachment!r}; its {attachment.key} are: {known}"
            )

    def detect_legacy_attachments(self) -> None:
        """List the files that WEBKNOSSOS found by itself before attachments were listed.

        These are ``*.hdf5`` in ``meshes/``, ``agglomerates/`` and ``connectomes/`` of the layer's folder,
        ``agglomerates/cumsum.json`` and ``segmentIndex/segmentIndex.hdf5``. Those that are listed already are
        passed over.

        Raises
        ------
        AlreadyExistsError
            If another attachment of the kind has the name of a file; nothing is listed then.
        """
        known = {os.path.realpath(str(each.path)) for each in self}
        edits: list[Edit] = []
        for kind in (MeshAttachment, AgglomerateAttachment, ConnectomeAttachment):
            for path in sorted(Path(self._layer.path, kind.key).glob("*.hdf5")):
                if os.path.realpath(path) in known:
                    continue
                if not NAME.fullmatch(path.stem):
                    self._warn(path)
                    continue
                edits.append(self._edit(kind.from_path_and_name(path, path.stem, data_format="hdf5")))
        cumsum = Path(self._layer.path, "agglomerates", "cumsum.json")
        if cumsum.is_file() and self.cumsum is None:
            edits.append(
                self._edit(CumsumAttachment.from_path_and_name(cumsum, "cumsum", data_format="json"))
            )
        index = Path(self._layer.path, "segmentIndex", "segmentIndex.hdf5")
        if index.is_file() and self.segment_index is None:
            edits.append(
                self._edit(
                    SegmentIndexAttachment.from_path_and_name(index, "segmentIndex", data_format="hdf5")
                )
            )
        if edits:
            self._layer._file.commit(*edits)

    def _warn(self, path: Path) -> None:
        warnings.warn(
            f"{path} is not listed: the name of an attachment has letters, digits and _ - . only",
            WkdaskWarning,
            stacklevel=3,
        )


def _copy(source: str, target: str) -> None:
    """Copy a file or a folder."""
    with made_apart(target) as hidden:
        if os.path.isdir(source):
            shutil.copytree(source, hidden)
        else:
            shutil.copy2(source, hidden)


@contextlib.contextmanager
def _making(path: str, root: str) -> Iterator[list[str]]:
    """Make the folder of a path; remove it, and what the body noted that it made, if the body fails."""
    made: list[str] = []
    with mags_lock(root):
        if is_there(path):
            raise AlreadyExistsError(f"{path} exists already")
        missing = []
        folder = os.path.dirname(path)
        while contains(root, folder) and not is_there(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            yield made
        except BaseException:
            for each in made:
                remove(each)
            for each in missing:
                with contextlib.suppress(OSError):  # another process uses it meanwhile
                    os.rmdir(each)
            raise
