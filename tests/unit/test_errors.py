"""The family of errors: what they say, and how they are caught."""

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
    """An error can be pickled, message and all."""
    error = pickle.loads(pickle.dumps(errors.UnknownTaskError(priority=5)))
    assert type(error) is errors.UnknownTaskError
    assert str(error) == "There is no task with priority 5 in this TODO-list."


class Hostile:
    """What cannot even be shown."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


def test_a_value_that_cannot_be_shown() -> None:
    """A value whose repr fails is named by its type, and a long one is cut short."""
    assert str(invalid_argument("starid", Hostile(), "an integer is expected")).startswith("starid=<Hostile")
    assert len(str(invalid_argument("starid", "x" * 10_000, "an integer is expected"))) < 100
    assert len(str(invalid_argument("starid", 10**5000, "an integer is expected"))) < 200
