"""Every error is ours, is the built-in error that callers catch, and crosses a process boundary unchanged."""

import pickle

import pytest

import wkdask.errors as errors

MESSAGE = "cube /data/color/1/z0/y1/x2.wkw: got 'a', expected 'b'"

PARENTS = {
    "AlignmentError": (ValueError, errors.InvalidValueError),
    "AlreadyExistsError": (FileExistsError, IndexError, ValueError, AssertionError, RuntimeError),
    "AxisNotFoundError": (KeyError, ValueError, errors.InvalidValueError),
    "CategoryError": (RuntimeError, errors.InvalidValueError),
    "ChannelError": (ValueError, errors.InvalidValueError),
    "CubePermissionError": (PermissionError, errors.DamagedCubeError),
    "DTypeError": (TypeError, ValueError, AssertionError),
    "DamagedCubeError": (OSError,),
    "DamagedHeaderError": (OSError,),
    "ImageStackError": (ValueError,),
    "InterruptedJobError": (RuntimeError,),
    "InvalidValueError": (ValueError, AssertionError),
    "JobEndedError": (RuntimeError,),
    "JobRunningError": (RuntimeError,),
    "LayerNotFoundError": (IndexError, KeyError),
    "LockTimeoutError": (TimeoutError,),
    "MagChainError": (RuntimeError, errors.InvalidValueError),
    "MagNotFoundError": (IndexError, KeyError, ValueError, AssertionError),
    "MissingPackageError": (ImportError,),
    "OutOfBoundsError": (ValueError, errors.InvalidValueError),
    "OutOfScopeError": (AttributeError,),
    "OutsideError": (PermissionError, ValueError),
    "PlanError": (ValueError, errors.InvalidValueError),
    "PropertiesError": (ValueError, AssertionError),
    "ReadOnlyError": (PermissionError, ValueError, AssertionError, RuntimeError),
    "ResumeError": (ValueError, errors.PlanError),
    "SaidTwiceError": (AttributeError, errors.InvalidValueError),
    "SchedulerLostError": (ConnectionError,),
    "SpaceError": (OSError, ValueError, errors.PlanError),
    "StoreError": (OSError,),
    "TaskFailedError": (RuntimeError,),
    "UnsupportedFormatError": (NotImplementedError,),
    "WkdaskError": (Exception,),
    "WkdaskWarning": (UserWarning,),
    "WorkerPathError": (FileNotFoundError, PermissionError),
}


def test_every_error_has_a_row_above():
    assert sorted(PARENTS) == sorted(errors.__all__)


def test_every_class_of_the_module_is_public():
    defined = [name for name, value in vars(errors).items() if isinstance(value, type)]
    assert sorted(errors.__all__) == sorted(defined)


@pytest.mark.parametrize("name", errors.__all__)
def test_error_is_ours_and_built_in(name):
    kind = getattr(errors, name)
    if name != "WkdaskWarning":
        assert issubclass(kind, errors.WkdaskError)
    for parent in PARENTS[name]:
        assert issubclass(kind, parent)
        if issubclass(parent, Warning):
            continue
        with pytest.raises(parent):
            raise kind(MESSAGE)


@pytest.mark.parametrize("name", errors.__all__)
def test_error_prints_its_plain_message(name):
    error = getattr(errors, name)(MESSAGE)
    assert str(error) == MESSAGE
    assert error.args == (MESSAGE,)


@pytest.mark.parametrize("name", errors.__all__)
def test_error_pickles_with_its_message(name):
    error = getattr(errors, name)(MESSAGE)
    error.add_note("task 7")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))
        assert type(copy) is type(error)
        assert str(copy) == MESSAGE
        assert copy.args == (MESSAGE,)
        assert copy.__notes__ == ["task 7"]


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_of_two_built_in_parents_are_made_by_the_larger_one(name):
    """Python finds ``__new__`` along the bases: that of ValueError, before OSError, it then refuses."""
    kind = getattr(errors, name)
    assert isinstance(kind.__new__(kind, MESSAGE), kind)


def test_a_damaged_file_is_never_taken_for_a_missing_one():
    for name in ("DamagedHeaderError", "DamagedCubeError", "CubePermissionError", "LockTimeoutError"):
        assert not issubclass(getattr(errors, name), FileNotFoundError)
