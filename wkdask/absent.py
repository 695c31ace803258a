"""What the webknossos library has and wkdask will not have: servers, annotations, skeletons, tasks."""

from __future__ import annotations

import sys

from wkdask.errors import OutOfScopeError

__all__ = ["ABSENT", "absent"]

_KINDS = {
    "speaks to a WEBKNOSSOS server": (
        "AiModelCategory Datastore LayerToLink RemoteAccessMode RemoteAiModel RemoteAttachments RemoteDataset "
        "RemoteFolder RemoteLayer RemoteMagView RemoteSegmentationLayer StorageCredentials Team TransferMode User "
        "WkApiClient administration ai_model ai_model_category api_client client datastore login "
        "remote_access_mode remote_ai_model remote_dataset remote_dataset_registry remote_folder team user "
        "webknossos_context"
    ),
    "is about annotations": (
        "Annotation AnnotationInfo AnnotationState AnnotationType RemoteAnnotation SegmentInformation annotation "
        "annotation_info proofreading volume_layer"
    ),
    "is about skeletons": "Group Node Skeleton Tree group node skeleton tree",
    "is about tasks and projects": "Project Task TaskType project task",
}
ABSENT = {name: kind for kind, names in _KINDS.items() for name in names.split()}
"""Names of the webknossos library that stay outside, and what they are about."""


def absent(name: str) -> Exception:
    """Return the error that a name of the package is raised with."""
    kind = ABSENT.get(name)
    if kind is None:
        return AttributeError(f"module 'wkdask' has no attribute {name!r}")
    error = OutOfScopeError(
        f"wkdask has no {name}: it {kind}, which stays outside of wkdask. "
        f"Use the webknossos library for it (from webknossos import {name}), beside wkdask for the voxels"
    )
    # `from wkdask import name` asks with hasattr first, and would hide the text of an AttributeError.
    caller = sys._getframe(2).f_code.co_name
    return ImportError(str(error)) if caller == "_handle_fromlist" else error
