"""Check the arguments of public functions; an error names the argument, its value and the remedy. Pure."""

import enum
import math
import operator
import os
import re
import reprlib
from collections.abc import Iterable, Mapping
from numbers import Complex, Real
from typing import Any

from photometry_tasks.errors import InvalidArgumentError
from photometry_tasks.status import STATUS

#: Seconds. With a longer lease, other managers would get a dead manager's tasks only after the campaign.
_LONGEST_LEASE = 30 * 86_400


def invalid_argument(argument: str, value: object, remedy: object) -> InvalidArgumentError:
    """Return the error for an invalid argument."""
    return InvalidArgumentError(argument=argument, value=show(value), remedy=remedy)


def check_integer(argument: str, value: object) -> int:
    """Return a Python or NumPy integer as an int."""
    try:
        return as_integer(value)
    except ValueError as error:
        raise invalid_argument(argument, value, error) from None


def check_integers(argument: str, values: Any) -> list[int]:
    """Return an iterable of integers as a list of int."""
    try:
        items = as_items(values)
    except ValueError as error:
        raise invalid_argument(argument, values, error) from None
    if set(map(type, items)) == {int} and min(items) >= -(2**63) and max(items) < 2**63:
        return items  # the usual case
    return [check_integer(argument, item) for item in items]


def check_positive(argument: str, value: object) -> int:
    """Return a positive integer."""
    if (number := check_integer(argument, value)) < 1:
        raise invalid_argument(argument, value, "a positive integer is expected")
    return number


def check_natural(argument: str, value: object) -> int:
    """Return an integer that is not negative."""
    if (number := check_integer(argument, value)) < 0:
        raise invalid_argument(argument, value, "0 or a positive integer is expected")
    return number


def check_interval(argument: str, value: Any) -> int | None:
    """Return None, or the positive integer that int() returns for a value."""
    if value is None:
        return None
    try:
        interval = int(value)
    except (TypeError, ValueError, OverflowError):
        interval = 0
    if interval < 1:
        raise invalid_argument(argument, value, "None or a positive integer is expected")
    return interval


def check_durability(value: object) -> bool:
    """Return whether each result shall survive a power cut."""
    if value not in ("normal", "full"):
        raise invalid_argument("durability", value, "'normal' or 'full' is expected")
    return value == "full"


def check_finite(argument: str, value: object, remedy: str) -> float:
    """Return a finite number as a float."""
    try:
        return as_finite(value)
    except ValueError as error:
        raise invalid_argument(argument, value, f"{error}; {remedy}") from None


def check_seconds(argument: str, value: object) -> float:
    """Return a non-negative time in seconds."""
    if (seconds := check_finite(argument, value, "give seconds")) < 0:
        raise invalid_argument(argument, value, "0 s or more is expected")
    return seconds


#: Magnitudes of stars; programs write a number outside, such as -99, for an unknown magnitude.
BRIGHTEST, FAINTEST = -10.0, 30.0


def check_lease(lease: object) -> float:
    """Return a lease in seconds."""
    seconds = check_seconds("lease", lease)
    if not 0 < seconds <= _LONGEST_LEASE:
        raise invalid_argument("lease", lease, "more than 0 s and at most 30 days is expected; 600 s is usual")
    return seconds


def check_text(argument: str, value: object) -> str:
    """Return a non-empty text, in the form in which a database stores it."""
    if not (isinstance(value, str) and value):
        raise invalid_argument(argument, value, "a non-empty text is expected")
    return as_text(value)


def check_texts(argument: str, value: Any) -> list[str]:
    """Return one or several texts as a list."""
    try:
        items = [value] if isinstance(value, str) else as_items(value)
    except ValueError:
        items = [value]
    if not items:
        raise invalid_argument(argument, value, "one text or several are expected; leave it out to choose by none")
    return [check_text(argument, item) for item in items]


def check_path(argument: str, value: object) -> str:
    """Return a path as a text; an empty text, which Python takes for the current directory, is no path."""
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or not path or "\0" in path:
        # Only its type is shown, because it may be a URL with a password.
        given = "''" if path == "" else f"<{type(value).__name__}>"
        remedy = "a path is expected: a text that is not empty, without NUL"
        raise InvalidArgumentError(argument=argument, value=given, remedy=remedy)
    return path


def check_statuses(value: Any, *, with_pending: bool = False) -> list[int | None]:
    """Return the values of one or several statuses; the value None stands for all.

    Parameters
    ----------
    value : STATUS, another enum with the same values, an integer, a name in any case, or an iterable of these
    with_pending : bool, optional
        Whether an item may be None or 'PENDING', which stand for pending tasks.
    """
    if value is None:
        return [status.value for status in STATUS]
    try:
        items = as_items(value)
    except ValueError:
        items = [value]
    pending = (None, "PENDING") if with_pending else ()
    try:
        items = [item.upper() if isinstance(item, str) else item for item in items]
        return [None if item in pending else _as_status(item) for item in items]
    except (KeyError, ValueError):
        names = ", ".join(status.name for status in STATUS) + (", or PENDING" if with_pending else "")
        raise invalid_argument("status", value, f"a STATUS or several, or their names, are expected: {names}") from None


def _as_status(item: object) -> int:
    if isinstance(item, str):
        return STATUS[item].value
    # A pipeline may have its own enum with the same values.
    status: int = STATUS(as_integer(item.value if isinstance(item, enum.Enum) else item)).value
    return status


_INT64 = range(-(2**63), 2**63)


def _unwrap(value: object) -> object:
    """Return the Python number inside a NumPy scalar or zero-dimensional array; return any other value unchanged."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or getattr(value, "ndim", None) != 0:
        return value
    if getattr(value, "mask", False):
        return math.nan  # a masked value is missing; item() would return the number under the mask
    # A NumPy time has item() too, but that returns a number without the unit.
    return value.item() if dtype.kind in "biufc" else None  # type: ignore[attr-defined]  # it has a dtype


def as_integer(value: object) -> int:
    """Return `value` as an int.

    Raises
    ------
    ValueError
        If it is not an integer (a bool, a float and a text are not), or needs more than the 64 bits of a database
        column. The message says which value is expected.
    """
    if type(value) is int and -(2**63) <= value < 2**63:  # as nearly all are
        return value
    value = _unwrap(value)
    try:
        integer = operator.index(value)  # type: ignore[arg-type]  # TypeError is caught
    except TypeError:
        integer = None
    if integer is None or isinstance(value, bool):
        raise ValueError("an integer is expected")
    if integer not in _INT64:
        raise ValueError("an integer of at most 64 bits is expected")
    return integer


def as_real(value: object) -> float:
    """Return `value` as a float, NaN and infinity included.

    Raises
    ------
    ValueError
        If it is not a real number (a bool, a text and a complex number are not), or is too large for a float.
    """
    if isinstance(value, float):  # as nearly all are
        return float(value)
    value = _unwrap(value)
    is_complex = isinstance(value, Complex) and not isinstance(value, Real)
    if isinstance(value, bool | str | bytes | bytearray) or is_complex or getattr(value, "ndim", 0) != 0:
        raise ValueError("a number is expected")
    try:
        return float(value)  # type: ignore[arg-type]  # TypeError is caught
    except (TypeError, ValueError):
        raise ValueError("a number is expected") from None
    except OverflowError:
        raise ValueError("a number of at most 64 bits is expected") from None


def as_finite(value: object) -> float:
    """Return `value` as a float; NaN and infinity raise a ValueError too."""
    number = as_real(value)
    if not math.isfinite(number):
        raise ValueError("a finite number is expected")
    return number


def as_text(value: object) -> str:
    """Return `value` as a plain text that every database can store; other types raise a ValueError."""
    if not isinstance(value, str):
        raise ValueError("a text is expected")
    if value.isascii() and "\0" not in value:
        return str(value)
    # No database stores NUL in a text, and UTF-8 has no lone surrogates (a file name in another encoding has them).
    return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def as_scalar(value: object) -> float | str | None:
    """Return `value` as a plain number, text, bool or None; NaN is None.

    Raises
    ------
    ValueError
        If it is of another type, or needs more than 64 bits.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return as_text(value)
    plain = _unwrap(value)
    if isinstance(plain, bool | int):
        return plain if isinstance(plain, bool) else as_integer(plain)
    try:
        number = as_real(plain)
    except ValueError:
        raise ValueError("a number, a text, True, False or None is expected") from None
    return None if number != number else number


def as_items(value: object) -> list[Any]:
    """Return the items of an iterable as a list; a text, bytes or a mapping raises a ValueError."""
    if type(value) in (tuple, list):  # as nearly all are
        return list(value)  # type: ignore[call-overload, no-any-return]  # mypy does not see the type
    if isinstance(value, str | bytes | bytearray | Mapping) or not isinstance(value, Iterable):
        raise ValueError("a list is expected")
    if getattr(value, "ndim", 1) == 0:
        raise ValueError("a list is expected")
    if getattr(getattr(value, "dtype", None), "kind", None) in ("i", "u") and getattr(value, "ndim", None) == 1:
        return list(value.tolist())  # type: ignore[attr-defined]  # converts all integers at once
    return list(value)


def is_one_letter_off(word: str, other: str) -> bool:
    """Whether one letter added, removed or changed, or two neighbouring letters swapped, turn a word into another."""
    short, long = sorted((word, other), key=len)
    if len(long) - len(short) == 1:
        return any(long[:place] + long[place + 1 :] == short for place in range(len(long)))
    places = [place for place, letters in enumerate(zip(word, other, strict=False)) if letters[0] != letters[1]]
    if len(short) != len(long) or len(places) not in (1, 2):
        return False
    first, last = places[0], places[-1]
    return first == last or (last == first + 1 and word[first] + word[last] == other[last] + other[first])


def show(value: object) -> str:
    """Return a short `repr` for an error message, on one line; long arrays and texts are shortened."""
    try:
        return re.sub(r"\s*\n\s*", " ", reprlib.repr(value))
    except Exception:  # an object whose repr fails must not hide the error in the argument
        return f"<{type(value).__name__}>"
