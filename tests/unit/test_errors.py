"""The family of errors: what they say, and how they are caught."""

import pickle
import subprocess
import sys

import pytest

from photometry_tasks import errors
from photometry_tasks.rules.validation import invalid


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "TodoError"])
def test_every_error_is_of_the_family_and_a_builtin(name: str) -> None:
    """Each error can be caught as a TodoError, and as the builtin that one would expect."""
    error = getattr(errors, name)
    assert issubclass(error, errors.TodoError)
    assert issubclass(error, AttributeError | ImportError | LookupError | OSError | RuntimeError | ValueError)


def test_an_error_crosses_processes() -> None:
    """An error can be pickled, message and all."""
    error = pickle.loads(pickle.dumps(errors.UnknownTaskError(priority=5)))
    assert type(error) is errors.UnknownTaskError
    assert str(error) == "There is no task with priority 5 in this TODO-list."


def test_without_docstrings() -> None:
    """With -OO, where Python drops docstrings, a message still holds what was found."""
    script = "from photometry_tasks.errors import UnknownTaskError as E; print(E(priority=5))"
    run = subprocess.run([sys.executable, "-OO", "-c", script], capture_output=True, text=True)
    assert run.stdout == "priority=5\n"


class Hostile:
    """What cannot even be shown."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


def test_a_value_that_cannot_be_shown() -> None:
    """A value whose repr fails is named by its type, and a long one is cut short."""
    assert str(invalid("starid", Hostile(), "an integer is expected")).startswith("starid=<Hostile")
    assert len(str(invalid("starid", "x" * 10_000, "an integer is expected"))) < 100
    assert len(str(invalid("starid", 10**5000, "an integer is expected"))) < 200
