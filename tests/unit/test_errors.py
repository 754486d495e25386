"""The errors: their messages and their base classes."""

import pickle

import pytest

from photometry_tasks import errors
from photometry_tasks.rules.validation import invalid_argument


def find_errors(base: type[Exception]) -> list[type[Exception]]:
    return [error for own in base.__subclasses__() for error in (own, *find_errors(own))]


@pytest.mark.parametrize("error", find_errors(errors.TodoError))
def test_every_error_is_a_builtin(error: type[Exception]) -> None:
    """Each error can be caught as the builtin that a caller expects."""
    assert error.__module__ == errors.__name__
    assert issubclass(error, AttributeError | ImportError | LookupError | OSError | RuntimeError | ValueError)


def test_an_error_crosses_processes() -> None:
    """A pickled error keeps its message."""
    error = pickle.loads(pickle.dumps(errors.UnknownTaskError(priority=5)))
    assert type(error) is errors.UnknownTaskError
    assert str(error) == "Task 5 does not exist in this TODO-list. Use a priority that `get_task` returned."


class Hostile:
    """An object whose repr fails."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


def test_a_value_that_cannot_be_shown() -> None:
    """If the repr of a value fails, the message shows its type; a long value is shortened."""
    assert str(invalid_argument("starid", Hostile(), "an integer is expected")).startswith("starid=<Hostile")
    assert len(str(invalid_argument("starid", "x" * 10_000, "an integer is expected"))) < 100
    assert len(str(invalid_argument("starid", 10**5000, "an integer is expected"))) < 200
