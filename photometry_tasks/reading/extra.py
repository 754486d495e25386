"""The pipeline's own values as columns."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Boolean, Column, Double, Integer, Text

from photometry_tasks.models import extra
from photometry_tasks.reading.columns import EXTRA

_TYPES: dict[type, Any] = {bool: Boolean(), int: Integer(), float: Double(), str: Text()}


def add_types(found: dict[str, set[type]], texts: Iterable[tuple[int, Any]]) -> None:
    """Add the types of the values in stored texts, each with its priority, to those that were found by name.

    Raises
    ------
    ValueError
        If another program has stored a text that is not a JSON object.
    """
    for priority, text in texts:
        for name, value in parse_values(text, priority).items():
            found.setdefault(name, set()).add(type(value))


def build_columns(found: Mapping[str, set[type]]) -> list[Column[Any]]:
    """Return a column for each name, in alphabetical order.

    Integers and other numbers of one name give a column of floats, and values of different types a column of texts.
    """
    return [Column(f"{EXTRA}{name}", _find_type(found[name])) for name in sorted(found)]


def _find_type(types: set[type]) -> Any:
    types = types - {type(None)}
    if types == {int, float}:
        return _TYPES[float]
    return _TYPES.get(next(iter(types)), Text()) if len(types) == 1 else Text()


def read_extra(names: Iterable[str], texts: Sequence[Any], keys: Sequence[Any]) -> list[list[Any]]:
    """Return the values of each name, from the stored texts of rows with these priorities; a list or dict as JSON."""
    rows = [{} if text is None else parse_values(text, key) for text, key in zip(texts, keys, strict=True)]
    return [[_show(row.get(name)) for row in rows] for name in names]


def _show(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def fit_values(column: Column[Any], values: Sequence[Any]) -> list[Any]:
    """Return a name's values as the type of its column.

    Raises
    ------
    ValueError
        If a value does not fit, because it was saved after the type had been found.
    """
    kind = column.type.python_type
    return [value if value is None or type(value) is kind else _fit(column, kind, value) for value in values]


def _fit(column: Column[Any], kind: type, value: Any) -> Any:
    if kind is str:
        return json.dumps(value)
    if kind is float and type(value) is int:
        return float(value)
    raise ValueError(f"{column.name} had only values of type {kind.__name__} before, and now has {value!r}")


def retype(column: Column[Any], values: Iterable[Any]) -> Column[Any]:
    """Return a name's column with the type of all of its values."""
    return Column(column.name, _find_type(set(map(type, values))))


def parse_values(text: Any, priority: Any) -> dict[str, Any]:
    """Return the values of a stored text.

    Raises
    ------
    ValueError
        If another program has stored a text that is not a JSON object.
    """
    try:
        values = json.loads(text)
    except (TypeError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{extra.c.extra} is no JSON object in the row with priority {priority}")
    return values
