"""The arguments of public functions, checked: an error names the argument, the value and the way out. Pure."""

import enum
from typing import Any

from photometry_tasks.errors import InvalidArgumentError
from photometry_tasks.status import STATUS
from photometry_tasks.values import as_finite, as_integer, as_items, show

__all__ = [
    "check_durability",
    "check_finite",
    "check_integer",
    "check_integers",
    "check_interval",
    "check_natural",
    "check_positive",
    "check_seconds",
    "check_statuses",
    "check_text",
    "invalid",
]


def invalid(argument: str, value: object, remedy: object) -> InvalidArgumentError:
    """Return the error that says what is wrong with an argument."""
    return InvalidArgumentError(argument=argument, value=show(value), remedy=remedy)


def check_integer(argument: str, value: object) -> int:
    """Return an integer, NumPy's too, as an int."""
    try:
        return as_integer(value)
    except ValueError as error:
        raise invalid(argument, value, error) from None


def check_integers(argument: str, values: Any) -> list[int]:
    """Return an iterable of integers as a list of int."""
    try:
        items = as_items(values)
    except ValueError as error:
        raise invalid(argument, values, error) from None
    if set(map(type, items)) == {int} and min(items) >= -(2**63) and max(items) < 2**63:
        return items  # as nearly always
    return [check_integer(argument, item) for item in items]


def check_natural(argument: str, value: object) -> int:
    """Return an integer that is not negative."""
    if (number := check_integer(argument, value)) < 0:
        raise invalid(argument, value, "an integer, not negative, is expected")
    return number


def check_positive(argument: str, value: object) -> int:
    """Return a positive integer."""
    if (number := check_integer(argument, value)) < 1:
        raise invalid(argument, value, "a positive integer is expected")
    return number


def check_interval(argument: str, value: Any) -> int | None:
    """Return None, or the positive integer that int() makes of a value."""
    if value is None:
        return None
    try:
        interval = int(value)
    except (TypeError, ValueError, OverflowError):
        interval = 0
    if interval < 1:
        raise invalid(argument, value, "None or a positive integer is expected")
    return interval


def check_durability(value: object) -> bool:
    """Return whether each result is to survive a power cut."""
    if value not in ("normal", "full"):
        raise invalid("durability", value, "'normal' or 'full' is expected")
    return value == "full"


def check_finite(argument: str, value: object, remedy: str) -> float:
    """Return a finite number as a float."""
    try:
        return as_finite(value)
    except ValueError as error:
        raise invalid(argument, value, f"{error}; {remedy}") from None


def check_seconds(argument: str, value: object) -> float:
    """Return a time in seconds that is not negative."""
    if (seconds := check_finite(argument, value, "seconds are expected")) < 0:
        raise invalid(argument, value, "seconds are expected, not negative")
    return seconds


def check_text(argument: str, value: object) -> str:
    """Return a text that is not empty."""
    if not (isinstance(value, str) and value):
        raise invalid(argument, value, "a text is expected")
    return value


def check_statuses(value: Any) -> list[int]:
    """Return the values of one STATUS or several; of all, if it is None."""
    if value is None:
        return [status.value for status in STATUS]
    try:
        items = [value] if isinstance(value, enum.Enum | int) else as_items(value)
        # A pipeline has an enum of its own, with the same values.
        return [STATUS(as_integer(item.value if isinstance(item, enum.Enum) else item)).value for item in items]
    except ValueError:
        raise invalid("status", value, f"of {', '.join(status.name for status in STATUS)} are expected") from None
