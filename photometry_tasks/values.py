"""Plain numbers from whatever a pipeline holds them in: Python's own, or NumPy's of any width. Pure."""

import math
import operator
import reprlib
from collections.abc import Iterable, Mapping
from numbers import Complex, Real
from typing import Any

__all__ = ["as_finite", "as_integer", "as_items", "as_real", "show"]

_INT64 = range(-(2**63), 2**63)


def _unwrap(value: object) -> object:
    """Return the Python number inside a NumPy scalar or a zero-dimensional array; anything else as it is."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or getattr(value, "ndim", None) != 0:
        return value
    if getattr(value, "mask", False):
        return math.nan  # a masked value is one that is not known; item() would give what lies under the mask
    # Times have an item() too, which is a bare number in whatever unit they have.
    return value.item() if dtype.kind in "biufc" else None  # type: ignore[attr-defined]  # it has a dtype


def as_integer(value: object) -> int:
    """Return `value` as an int.

    Raises
    ------
    ValueError
        If it is no integer (a bool, a float or a text is none) or does not fit 64 bits, which is what the
        database holds. The message says what is expected.
    """
    if type(value) is int and -(2**63) <= value < 2**63:  # as nearly all are
        return value
    value = _unwrap(value)
    try:
        integer = operator.index(value)  # type: ignore[arg-type]  # what it takes is found out by trying
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
        If it is no real number (a bool, a text and a complex number are none) or too large for a float.
    """
    if type(value) is float:  # as nearly all are
        return value
    value = _unwrap(value)
    is_complex = isinstance(value, Complex) and not isinstance(value, Real)
    if isinstance(value, bool | str | bytes | bytearray) or is_complex or getattr(value, "ndim", 0) != 0:
        raise ValueError("a number is expected")
    try:
        return float(value)  # type: ignore[arg-type]  # what float() takes is found out by trying
    except (TypeError, ValueError):
        raise ValueError("a number is expected") from None
    except OverflowError:
        raise ValueError("a number of at most 64 bits is expected") from None


def as_finite(value: object) -> float:
    """Return `value` as a float; NaN and infinity are a ValueError too."""
    number = as_real(value)
    if not math.isfinite(number):
        raise ValueError("a finite number is expected")
    return number


def as_items(value: object) -> list[Any]:
    """Return what stands in an iterable; a text, bytes or a mapping is none of items."""
    if type(value) in (tuple, list):  # as nearly all are
        return list(value)  # type: ignore[call-overload, no-any-return]  # mypy does not see it
    if isinstance(value, str | bytes | bytearray | Mapping) or not isinstance(value, Iterable):
        raise ValueError("a list is expected")
    if getattr(value, "ndim", 1) == 0:
        raise ValueError("a list is expected")
    if getattr(getattr(value, "dtype", None), "kind", None) in ("i", "u") and getattr(value, "ndim", None) == 1:
        return list(value.tolist())  # type: ignore[attr-defined]  # an array has it; Python's integers all at once
    return list(value)


def show(value: object) -> str:
    """Return a short `repr` for an error message: of an array or a long text only the ends."""
    try:
        return reprlib.repr(value)
    except Exception:  # whatever the object does, it must not hide what was wrong with it
        return f"<{type(value).__name__}>"
