"""The tasks that match a choice; and why none does. Only reads."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, exists, func, select

from photometry_tasks.models import todolist
from photometry_tasks.rules.validation import as_items, check_statuses
from photometry_tasks.sql.choices import build_choice
from photometry_tasks.sql.counts import count_by_status
from photometry_tasks.sql.history import count_failures, count_versions
from photometry_tasks.status import NOT_GIVEN, name_counts, name_status
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import begin_reading
from photometry_tasks.text import count_of, list_first, name_version

#: The most values, or ranges of values, that are listed.
_MOST = 20


def describe_matches(todo: str | os.PathLike[str] | Location, choice: Mapping[str, Any]) -> str:
    """Return how many tasks match the arguments of `Choice`; if none does, the first argument that excludes all tasks.

    Returns
    -------
    str
        A sentence: "No task has camera 7; the list has 1–4."
    """
    with begin_reading(parse_location(todo)) as opened:
        connection = opened.connection
        conditions = build_choice(choice, with_pending=True)
        status = todolist.c.status
        counts = dict(map(tuple, connection.execute(select(status, func.count()).where(*conditions).group_by(status))))
        if counts:
            return f"{count_of(sum(counts.values()), 'matching task')}: {_list_counts(counts)}."
        return explain_lack(connection, choice)


def explain_lack(connection: Connection, choice: Mapping[str, Any]) -> str:
    """Return the first of the arguments of `Choice` that excludes all tasks, if no task matches all of them."""
    if not _has_match(connection, {}):
        return "The list has no tasks."
    for name, value in choice.items():
        if not _has_match(connection, {name: value}):
            return f"No task {_describe_lack(connection, name, value)}."
    return f"No task matches all of these at once: {', '.join(choice)}."


def has_match(todo: str | os.PathLike[str] | Location, choice: Mapping[str, Any]) -> bool:
    """Whether any task matches the arguments of `Choice`."""
    with begin_reading(parse_location(todo)) as opened:
        return _has_match(opened.connection, choice)


def _has_match(connection: Connection, choice: Mapping[str, Any]) -> bool:
    conditions = build_choice(choice, with_pending=True)
    return bool(connection.execute(select(exists(select(todolist.c.priority).where(*conditions)))).scalar_one())


def _describe_lack(connection: Connection, name: str, value: Any) -> str:
    """Return an argument that no task meets, and what the list has instead."""
    if name == "datasource" or value == "ffi":
        return f"has the datasource {value!r}; all have {'tpf' if value == 'ffi' else 'ffi'!r}"
    if name in ("tmag_min", "tmag_max"):
        found = connection.execute(select(func.min(todolist.c.tmag), func.max(todolist.c.tmag))).one()
        limit = f"has a magnitude of {value:g} or {'more' if name == 'tmag_min' else 'less'}"
        return f"{limit}; the list has " + ("no magnitudes" if found[0] is None else f"{found[0]:g} to {found[1]:g}")
    if name == "status":
        names = map(name_status, check_statuses(value, with_pending=True))
        return f"has the status {' or '.join(names)}; the list has {_list_counts(count_by_status(connection))}"
    if name == "kind":
        kinds = [row["kind"] or NOT_GIVEN for row in count_failures(connection)]
        return f"failed with the kind {_join(value)}; the list has {list_first(kinds, _MOST) or 'no failures'}"
    if name in ("made_by", "not_made_by"):
        versions = list_first(map(name_version, count_versions(connection)), _MOST)
        other = "a version other than " if name == "not_made_by" else "the version "
        return f"has a result of {other}{_join(value)}; the list has {versions or 'no results'}"
    if name == "attempts_min":
        return f"has {count_of(value, 'attempt')}"
    if name == "error_like":
        return f"has {value!r} in its errors"
    column = todolist.c[name]
    numbers = connection.execute(select(column).distinct().order_by(column).limit(_MOST + 1)).scalars().all()
    if len(numbers) > _MOST:
        numbers = connection.execute(select(func.min(column), func.max(column))).one()
        return f"has {name} {_join(value)}; the list has {numbers[0]} to {numbers[1]}"
    return f"has {name} {_join(value)}; the list has {_list_ranges(numbers)}"


def _join(value: Any) -> str:
    try:
        items = as_items(value)
    except ValueError:
        items = [value]
    return list_first(items, 3)


def _list_counts(counts: Mapping[int | None, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in name_counts(counts).items() if number)


def _list_ranges(numbers: Sequence[Any]) -> str:
    """Return numbers in ascending order with ranges: "1–4, 7"."""
    ranges: list[list[Any]] = []
    for number in (number for number in numbers if isinstance(number, int)):  # other programs may store texts
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return ", ".join("–".join(map(str, each)) for each in ranges)
