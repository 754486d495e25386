"""The pipeline's own values as columns."""

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any

from sqlalchemy import Boolean, Column, ColumnElement, Connection, Double, Integer, Text, select

from photometry_tasks.models import extra, todolist
from photometry_tasks.reading.columns import EXTRA
from photometry_tasks.sql.execution import iter_batches

_TYPES: dict[type, Any] = {bool: Boolean(), int: Integer(), float: Double(), str: Text()}


def find_extra_columns(connection: Connection, conditions: Sequence[ColumnElement[bool]]) -> dict[str, Column[Any]]:
    """Return a column for each name in the chosen tasks' own values, in alphabetical order.

    Integers and other numbers of one name give a column of floats, and values of different types a column of texts.

    Raises
    ------
    ValueError
        If another program has stored a text that is not a JSON object.
    """
    found: dict[str, set[type]] = {}
    joined = todolist.join(extra, todolist.c.priority == extra.c.priority)
    statement = select(extra.c.priority, extra.c.extra).select_from(joined).where(*conditions)
    for priority, text in chain.from_iterable(iter_batches(connection, statement)):
        for name, value in _parse(text, priority).items():
            found.setdefault(name, set()).add(type(value))
    return {name: Column(f"{EXTRA}{name}", _find_type(found[name] - {type(None)})) for name in sorted(found)}


def _find_type(types: set[type]) -> Any:
    if types == {int, float}:
        return _TYPES[float]
    return _TYPES.get(next(iter(types)), Text()) if len(types) == 1 else Text()


def read_extra(columns: dict[str, Column[Any]], texts: Sequence[Any], keys: Sequence[Any]) -> list[list[Any]]:
    """Return the values of each column, from the stored texts of rows with these priorities."""
    if not columns:
        return []
    rows = [{} if text is None else _parse(text, key) for text, key in zip(texts, keys, strict=True)]
    return [[_convert(row.get(name), column) for row in rows] for name, column in columns.items()]


def _convert(value: Any, column: Column[Any]) -> Any:
    kind = column.type.python_type
    if value is None or type(value) is kind:
        return value
    return float(value) if kind is float else json.dumps(value)


def _parse(text: Any, priority: Any) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (TypeError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{extra.c.extra} is no JSON object in the row with priority {priority}")
    return values
