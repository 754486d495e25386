"""Values as a file stores them: SQLite accepts a value of any type in any column. Pure."""

import math
import struct
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column

from photometry_tasks.rules.validation import show

#: The types of the values in a column, by the type of the column.
TYPES: dict[type, set[type]] = {
    int: {int},
    float: {float, int},
    str: {str},
    bytes: {bytes},
    bool: {int},
    datetime: {float, int},
}

#: Python's driver stores NumPy's integers and float32 as their bytes: formats of `struct`, by the type of the column
#: and the number of bytes. Other numbers of bytes are ambiguous.
_FORMATS = {(int, 8): "<q", (float, 4): "<f", (float, 8): "<d"}

#: The bytes of a small integer, read as a float, are a number below this limit.
_SMALLEST = 1e-38


def is_foreign(column: Column[Any], value: object) -> bool:
    """Whether a value is neither NULL nor of the type of its column; a text that is not Unicode is foreign too."""
    if value is None:
        return False
    return type(value) not in TYPES[column.type.python_type] or (type(value) is str and not _is_unicode(value))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def describe_value(column: Column[Any], value: object, key: object) -> str:
    """Return a value with its place, for messages; the key is the value of the table's first column."""
    return f"{column} is {show(value)} in the row with {column.table.columns.keys()[0]} {show(key)}"


def read_value(column: Column[Any], value: Any) -> Any:
    """Return a stored value with the type of its column, or None.

    Raises
    ------
    ValueError
        If a number cannot be read without doubt.
    """
    if not is_foreign(column, value):
        return value
    kind = column.type.python_type
    if kind is str:
        if isinstance(value, str):
            value = value.encode("utf-8", "surrogateescape")
        return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    if not isinstance(value, bytes) or (kind, len(value)) not in _FORMATS:
        raise ValueError("a number is expected")
    (number,) = struct.unpack(_FORMATS[kind, len(value)], value)
    if kind is int or number == 0 or abs(number) >= _SMALLEST:
        return number
    if math.isnan(number) and not any(value[:-2]):
        return None  # the bytes of NumPy's NaN; those of a small negative integer are a NaN too
    raise ValueError("a number is expected")


def read_values(column: Column[Any], values: Sequence[Any], keys: Sequence[Any]) -> Sequence[Any]:
    """Return values of a column as `read_value` returns them; an error names the value and the key of its row."""
    # A test of each value would take longer than all other steps of an export.
    types = set(map(type, values)) - {type(None)}
    if types <= TYPES[column.type.python_type] and (str not in types or _is_unicode("".join(filter(None, values)))):
        return values
    readable = []
    for value, key in zip(values, keys, strict=True):
        try:
            readable.append(read_value(column, value))
        except ValueError as error:
            raise ValueError(f"{describe_value(column, value, key)}: {error}") from None
    return readable


def show_value(column: Column[Any], value: Any) -> Any:
    """Return a stored value for display and for JSON: as `read_value` returns it, otherwise as a short text."""
    try:
        readable = read_value(column, value)
    except ValueError:
        return show(value)
    return show(readable) if isinstance(readable, float) and not math.isfinite(readable) else readable
