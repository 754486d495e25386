"""Look a TODO-list through, from its bytes to its counts, without changing it."""

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from sqlalchemy import Connection, Select, exists, func, select

from photometry_tasks import schema
from photometry_tasks.errors import OutdatedSchemaError, TodoError
from photometry_tasks.models import diagnostics, todolist
from photometry_tasks.sql import statements
from photometry_tasks.status import STATUS
from photometry_tasks.storage.backends import find_path, open_database
from photometry_tasks.storage.sqlite.database import SQLite
from photometry_tasks.storage.sqlite.introspection import count_orphans
from photometry_tasks.storage.sqlite.paths import find_leftovers, find_todo_file

__all__ = ["find_faults"]

#: Priorities shown of each fault.
_SHOWN = 5

_task, _result = todolist.c, diagnostics.c
_is_finished = _task.status.in_([STATUS.OK.value, STATUS.WARNING.value, STATUS.ERROR.value])
_has_result = exists().where(_result.priority == _task.priority)

#: What is wrong with a task, and the query for those with which it is.
_FAULTS: dict[str, Select[Any]] = {
    "finished without a row in diagnostics": select(_task.priority).where(_is_finished, ~_has_result),
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


def find_faults(todo: str | os.PathLike[str]) -> Iterator[str]:
    """Say what is wrong with a TODO-list, one line for each fault; it is only read.

    Looked at is the schema, statuses that do not exist, results that lack or are too many, and duplicates; of a file
    also what lies beside it, SQLite's own check of every page and index, and foreign keys.
    """
    path = find_path(todo)
    if path is not None:
        path = find_todo_file(path)
        for leftover in find_leftovers(path):
            remedy = f"then `photometry-tasks upgrade {path}` takes it in"
            yield f"{leftover.name} lies beside it: somebody is writing it, or was killed while doing so; {remedy}"
    try:
        with closing(open_database(todo, to_read=True)) as database:
            if isinstance(database, SQLite):
                yield from _find_damage(database)
            with database.begin(writes=False) as connection:
                changes = schema.find_changes(connection, database.name)
                if changes:
                    yield str(OutdatedSchemaError(path=database.name, change=changes[0]))
                    schema.check_upgradable(connection, database.name)
                    return
                yield from _find_contradictions(connection)
    except TodoError as error:
        yield str(error)


def _find_damage(database: SQLite) -> Iterator[str]:
    yield from (f"SQLite says: {damage}" for damage in database.find_damage())
    orphans = count_orphans(database.dbapi).items()
    yield from (f"{number} rows of {table} refer to what is not there" for table, number in orphans if number)


def _find_contradictions(connection: Connection) -> Iterator[str]:
    for fault, query in _FAULTS.items():
        priorities = connection.execute(query.limit(_SHOWN + 1)).scalars().all()
        if priorities:
            shown = ", ".join(map(str, priorities[:_SHOWN])) + ", …" * (len(priorities) > _SHOWN)
            yield f"tasks {fault}: {shown}"
