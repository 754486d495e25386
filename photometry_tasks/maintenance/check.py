"""Check a TODO-list without changing it: the file, the schema, the rows."""

import os
import shlex
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from sqlalchemy import Column, Connection, Select, exists, func, select

from photometry_tasks import schema
from photometry_tasks.errors import OutdatedSchemaError, TodoError
from photometry_tasks.models import TABLES, diagnostics, todolist
from photometry_tasks.rules.stored_values import is_foreign
from photometry_tasks.rules.validation import BRIGHTEST, FAINTEST
from photometry_tasks.sql import statements
from photometry_tasks.sql.functions import is_server
from photometry_tasks.sql.skips import find_contradictions
from photometry_tasks.status import MEASURED, STATUS
from photometry_tasks.storage.base import Database
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import open_read_only
from photometry_tasks.text import count_of, list_first

#: The most priorities that are listed for each fault.
_SHOWN = 5

_task, _result = todolist.c, diagnostics.c
_is_measured = _task.status.in_([status.value for status in MEASURED])
_has_result = exists().where(_result.priority == _task.priority)

#: Faults, each with the query for the priorities of its tasks.
_FAULTS: dict[str, Select[Any]] = {
    "finished tasks without diagnostics": select(_task.priority).where(_is_measured, ~_has_result),
    "pending tasks with diagnostics": select(_task.priority).where(_task.status.is_(None), _has_result),
    "started tasks with diagnostics": select(_task.priority).where(_task.status == STATUS.STARTED.value, _has_result),
    "tasks with a status that does not exist": select(_task.priority).where(
        _task.status.not_in([status.value for status in STATUS])
    ),
    "tasks with the target of another task": select(func.min(_task.priority))
    .group_by(*statements.TARGET_COLUMNS)
    .having(func.count() > 1),
    "tasks with the light-curve path of another task": select(func.min(_result.priority))
    .where(_result.lightcurve.is_not(None))
    .group_by(_result.lightcurve)
    .having(func.count() > 1),
}

#: Tasks whose magnitude is a code for an unknown one.
_CODES = select(_task.priority).where(~_task.tmag.between(BRIGHTEST, FAINTEST))


def find_faults(todo: str | os.PathLike[str] | Location) -> Iterator[str]:
    """Yield a line for each fault of a TODO-list, which is only read.

    The check covers the schema, statuses that contradict results or do not exist, and duplicates. For a file, it also
    covers leftover files, SQLite's own check of every page and index, foreign keys, and values whose type is not the
    type of their column.
    """
    location = parse_location(todo)
    for leftover in location.find_leftovers():
        fault = f"leftover file {leftover.name}: another program is writing the TODO-file, or was killed while writing"
        yield f"{fault}; if it was killed, run `photometry-tasks upgrade {shlex.quote(location.name)}`"
    try:
        with closing(open_read_only(location)) as database:
            yield from database.find_damage()
            with database.begin(writes=False) as connection:
                changes = schema.find_changes(connection, database.name)
                if changes:
                    yield str(OutdatedSchemaError(path=database.name, change=changes[0]))
                    schema.check_upgradable(connection, database.name)
                    return
                yield from _find_faulty_tasks(connection)
                if not is_server(connection.dialect):  # a server refuses these values
                    yield from _find_foreign_values(database)
    except TodoError as error:
        yield str(error)


def find_notes(todo: str | os.PathLike[str] | Location) -> Iterator[str]:
    """Yield a line for each kind of state that is no fault, but that may leave stars without a measurement.

    These are codes in place of magnitudes, and skips that the rule of skipping would not give: TASOC and older releases
    leave such skips, and opening does not change them.
    """
    location = parse_location(todo)
    try:
        with closing(open_read_only(location)) as database, database.begin(writes=False) as connection:
            if schema.find_changes(connection, database.name):
                return
            found = find_contradictions(connection)
            codes = connection.execute(_CODES.limit(_SHOWN + 1)).scalars().all()
    except TodoError:
        return  # `find_faults` names it
    if codes:
        limits = f"outside {BRIGHTEST:g} to {FAINTEST:g}"
        remedy = "store NULL if the magnitude is unknown: a code such as -99 counts as the brightest star"
        yield f"tasks with a code in place of the magnitude, {limits}: {list_first(codes, _SHOWN)}; {remedy}"
    if found.failed:
        stars = count_of(len(set().union(*found.failed.values())), "star")
        remedy = "a reset of these tasks, by default the next opening, frees the stars"
        yield (
            f"ERROR and ABORT tasks that keep {stars} from being measured: "
            f"{list_first(sorted(found.failed), _SHOWN)}; {remedy}"
        )
    if found.uncovered:
        remedy = f"`photometry-tasks reset-uncovered {shlex.quote(location.name)}` returns them to pending"
        yield f"SKIPPED tasks that no task covers: {list_first(sorted(found.uncovered), _SHOWN)}; {remedy}"
    if found.covered:
        remedy = "a result stays until its task is reset; a task without one is measured, and is SKIPPED then"
        yield (
            "tasks that another task covers, but that are not SKIPPED: "
            f"{list_first(sorted(found.covered), _SHOWN)}; {remedy}"
        )


def _find_faulty_tasks(connection: Connection) -> Iterator[str]:
    for fault, query in _FAULTS.items():
        priorities = connection.execute(query.limit(_SHOWN + 1)).scalars().all()
        if priorities:
            yield f"{fault}: {list_first(priorities, _SHOWN)}"


def _find_foreign_values(database: Database) -> Iterator[str]:
    for table in TABLES:
        found: dict[Column[Any], list[Any]] = {}
        with closing(database.iter_rows(table)) as rows:
            for row in rows:
                for column, value in zip(table.columns, row, strict=True):
                    if is_foreign(column, value):
                        found.setdefault(column, []).append(row[0])
        for column, keys in found.items():
            key = table.columns.keys()[0]
            yield f"{column}: {count_of(len(keys), 'value')} of a wrong type, with {key} {list_first(keys, _SHOWN)}"
