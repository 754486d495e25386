"""Check a TODO-list, from its bytes to its counts, without changing it."""

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from sqlalchemy import Connection, Select, exists, func, select

from photometry_tasks import schema
from photometry_tasks.errors import OutdatedSchemaError, TodoError
from photometry_tasks.models import diagnostics, todolist
from photometry_tasks.sql import statements
from photometry_tasks.status import MEASURED, STATUS
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import open_read_only
from photometry_tasks.storage.sqlite.paths import find_leftovers

#: Priorities that are named for each fault.
_SHOWN = 5

_task, _result = todolist.c, diagnostics.c
_is_measured = _task.status.in_([status.value for status in MEASURED])
_has_result = exists().where(_result.priority == _task.priority)

#: Faults of tasks, each with the query that finds them.
_FAULTS: dict[str, Select[Any]] = {
    "finished without a row in diagnostics": select(_task.priority).where(_is_measured, ~_has_result),
    "pending with a row in diagnostics": select(_task.priority).where(_task.status.is_(None), _has_result),
    "of a status that does not exist": select(_task.priority).where(
        _task.status.not_in([status.value for status in STATUS])
    ),
    "listed twice": select(func.min(_task.priority)).group_by(*statements.TARGET_COLUMNS).having(func.count() > 1),
    "with the light-curve path of another": select(func.min(_result.priority))
    .where(_result.lightcurve.is_not(None))
    .group_by(_result.lightcurve)
    .having(func.count() > 1),
}


def find_faults(todo: str | os.PathLike[str] | Location) -> Iterator[str]:
    """Yield a line for each fault of a TODO-list, which is only read.

    The check covers the schema, statuses that do not exist, missing and superfluous results, and duplicates; for a file
    also its leftovers, SQLite's own check of every page and index, and foreign keys.
    """
    location = parse_location(todo)
    path = location.find_file()
    for leftover in [] if path is None else find_leftovers(path):
        remedy = f"then `photometry-tasks upgrade {path}` takes it in"
        yield f"{leftover.name} lies beside it: somebody is writing it, or was killed while doing so; {remedy}"
    try:
        with closing(open_read_only(location)) as database:
            yield from database.find_damage()
            with database.begin(writes=False) as connection:
                changes = schema.find_changes(connection, database.name)
                if changes:
                    yield str(OutdatedSchemaError(path=database.name, change=changes[0]))
                    schema.check_upgradable(connection, database.name)
                    return
                yield from _find_contradictions(connection)
    except TodoError as error:
        yield str(error)


def _find_contradictions(connection: Connection) -> Iterator[str]:
    for fault, query in _FAULTS.items():
        priorities = connection.execute(query.limit(_SHOWN + 1)).scalars().all()
        if priorities:
            shown = ", ".join(map(str, priorities[:_SHOWN])) + ", …" * (len(priorities) > _SHOWN)
            yield f"tasks {fault}: {shown}"
