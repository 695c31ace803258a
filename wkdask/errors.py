"""Errors of wkdask: each is a :class:`WkdaskError` and also the built-in error that callers already catch.

Messages say what was asked, what was found, what would work. Every error carries its text as its only
argument, so that it crosses a process boundary unchanged.

Where the Dataset API asserts, or raises another built-in error, the class is that error as well, so that the
``except`` of an existing script works: ``AssertionError`` in 2021, ``RuntimeError`` for some of them in version 4.
"""

from __future__ import annotations

__all__ = [
    "AlignmentError",
    "AlreadyExistsError",
    "AxisNotFoundError",
    "CategoryError",
    "ChannelError",
    "CubePermissionError",
    "DTypeError",
    "DamagedCubeError",
    "DamagedHeaderError",
    "ImageStackError",
    "InterruptedJobError",
    "InvalidValueError",
    "JobEndedError",
    "JobRunningError",
    "LayerNotFoundError",
    "LockTimeoutError",
    "MagChainError",
    "MagNotFoundError",
    "MissingPackageError",
    "OutOfBoundsError",
    "OutOfScopeError",
    "OutsideError",
    "PlanError",
    "PropertiesError",
    "ReadOnlyError",
    "ResumeError",
    "SaidTwiceError",
    "SchedulerLostError",
    "SpaceError",
    "StoreError",
    "TaskFailedError",
    "UnsupportedFormatError",
    "WkdaskError",
    "WkdaskWarning",
    "WorkerPathError",
]


class WkdaskError(Exception):
    """Base of all errors that wkdask raises on purpose."""


class WkdaskWarning(UserWarning):
    """Base of all warnings of wkdask."""


class InvalidValueError(WkdaskError, ValueError, AssertionError):
    """An argument has a value that cannot work."""


class AlignmentError(InvalidValueError):
    """A box or a block is off the grid that it must lie on; the message names the nearest that works."""


class OutOfBoundsError(InvalidValueError):
    """A box leaves the region that it must stay in."""


class AxisNotFoundError(InvalidValueError, KeyError):
    """A vector or a box has no axis of that name."""

    __str__ = Exception.__str__  # KeyError would print the repr of the message


class MagChainError(InvalidValueError, RuntimeError):
    """No chain of mags leads from one to another."""


class CategoryError(InvalidValueError, RuntimeError):
    """A layer is neither an image nor a segmentation."""


class SaidTwiceError(InvalidValueError, AttributeError):
    """Two arguments say the same thing, and one of them would have to be ignored."""


class ChannelError(InvalidValueError):
    """Data have another number of channels than the layer."""


class DTypeError(WkdaskError, TypeError, ValueError, AssertionError):
    """A data type that the layer or the format cannot hold."""


class PlanError(InvalidValueError):
    """A write was refused before anything was written."""


class AlreadyExistsError(WkdaskError, FileExistsError, IndexError, ValueError, AssertionError, RuntimeError):
    """A dataset, layer or magnification of that name exists."""


class LayerNotFoundError(WkdaskError, IndexError, KeyError):
    """The dataset has no such layer."""

    __str__ = Exception.__str__  # KeyError would print the repr of the message


class MagNotFoundError(WkdaskError, IndexError, KeyError, ValueError, AssertionError):
    """The layer has no such magnification."""

    __str__ = Exception.__str__


class MissingPackageError(WkdaskError, ImportError):
    """A package is not installed that only one part of wkdask needs."""


class PropertiesError(WkdaskError, ValueError, AssertionError):
    """``datasource-properties.json`` cannot be understood, or an edit of it makes no sense."""


class DamagedHeaderError(WkdaskError, OSError):
    """``header.wkw`` (or array metadata) is missing, damaged, or contradicts the properties."""


class DamagedCubeError(WkdaskError, OSError):
    """A cube file exists but cannot be read; never taken for an empty one."""


class StoreError(WkdaskError, OSError):
    """An object store did not do what it was asked for, also when it was asked again."""


class CubePermissionError(DamagedCubeError, PermissionError):
    """A cube file exists but this user may not read it."""


class ReadOnlyError(WkdaskError, PermissionError, ValueError, AssertionError, RuntimeError):
    """A write through a read-only view, or through a link that leaves the dataset."""


class OutOfScopeError(WkdaskError, AttributeError):
    """Something of the webknossos library that wkdask will not have; the message says where it is."""


class OutsideError(WkdaskError, PermissionError, ValueError):
    """Something of a dataset lies outside of its folder, and the dataset was opened with ``outside="refuse"``."""


class LockTimeoutError(WkdaskError, TimeoutError):
    """A lock file stayed locked by another process for too long."""


class WorkerPathError(WkdaskError, FileNotFoundError, PermissionError):
    """A worker does not see the dataset under the path that the driver sees, or may not write to it."""


class TaskFailedError(WkdaskError, RuntimeError):
    """A task of a job failed; names the layer and the cube, and chains the error itself."""


class JobEndedError(WkdaskError, RuntimeError):
    """A task came back to life after its job had ended; it publishes nothing."""


class JobRunningError(WkdaskError, RuntimeError):
    """A job cannot be resumed, because another living process works on it."""


class InterruptedJobError(WkdaskError, RuntimeError):
    """A mag is half replaced by a job that was interrupted, and this user may not finish that."""


class ResumeError(PlanError):
    """A job cannot be resumed for what it is: its array has another name in every process."""


class SchedulerLostError(WkdaskError, ConnectionError):
    """The connection to the scheduler was lost during a job; what landed is noted, and the job can be resumed."""


class SpaceError(OSError, PlanError):
    """The file system has less room than a job will take; nothing was written."""

    __str__ = Exception.__str__


class ImageStackError(WkdaskError, ValueError):
    """Images that do not form one stack; names the file."""


class UnsupportedFormatError(WkdaskError, NotImplementedError):
    """A data format that wkdask lists but does not read."""
