"""Every query and update of the hot paths, built once; and those that depend on constraints. Pure: no execution."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Delete,
    Insert,
    Select,
    Update,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from photometry_tasks.models import diagnostics, photometry_skipped, todolist
from photometry_tasks.status import STATUS

_task, _skip = todolist.c, photometry_skipped.c
_is_pending = _task.status.is_(None)


def _integers(name: str) -> BindParameter[Any]:
    """Take a list of integers into the statement's text: there may be more than a driver takes as parameters."""
    return bindparam(name, expanding=True, literal_execute=True)


# --- handing out -----------------------------------------------------------------------------------------

#: What a task dict holds, in this order.
TASK_COLUMNS = (
    _task.priority,
    _task.starid,
    _task.method,
    _task.sector,
    _task.camera,
    _task.ccd,
    _task.cadence,
    _task.datasource,
    _task.tmag,
)

_pending = select(*TASK_COLUMNS).where(_is_pending)


def next_task(conditions: Iterable[ColumnElement[bool]]) -> Select[Any]:
    """Select the pending task with the lowest priority, from the parameter `start` on."""
    return _pending.where(_task.priority >= bindparam("start"), *conditions).order_by(_task.priority).limit(1)


def random_task(conditions: Iterable[ColumnElement[bool]]) -> Select[Any]:
    """Select a pending task, each as likely as the others."""
    return _pending.where(*conditions).order_by(func.random()).limit(1)


def count_pending(conditions: Iterable[ColumnElement[bool]]) -> Select[Any]:
    """Count the pending tasks."""
    return select(func.count()).select_from(todolist).where(_is_pending, *conditions)


#: Changes no row where the task is unknown or finished.
START_TASK: Update = (
    update(todolist)
    .where(_task.priority == bindparam("task"), or_(_is_pending, _task.status == STATUS.STARTED.value))
    .values(status=STATUS.STARTED.value)
)

RELEASE_TASKS: Update = (
    update(todolist)
    .where(_task.priority.in_(_integers("priorities")), _task.status == STATUS.STARTED.value)
    .values(status=None)
)

STATUS_OF_TASK: Select[Any] = select(_task.status).where(_task.priority == bindparam("task"))

# --- saving ----------------------------------------------------------------------------------------------

#: The task of a result, with whether it was saved before, and whether it is in a skip, on either side.
TASK_OF_RESULT: Select[Any] = select(
    _task.starid,
    _task.sector,
    _task.camera,
    _task.ccd,
    _task.cadence,
    _task.datasource,
    _task.tmag,
    exists().where(diagnostics.c.priority == _task.priority).label("was_saved"),
    exists().where(or_(_skip.priority == _task.priority, _skip.skipped_by == _task.priority)).label("is_in_skips"),
).where(_task.priority == bindparam("task"))

LIGHTCURVE_OWNER: Select[Any] = select(diagnostics.c.priority).where(
    diagnostics.c.lightcurve == bindparam("lightcurve")
)

RIVALS: Select[Any] = select(_task.priority, _task.tmag).where(
    _task.starid.in_(_integers("starids")),
    _task.datasource.in_(bindparam("datasources", expanding=True)),
    _task.sector == bindparam("sector"),
    _task.camera == bindparam("camera"),
    _task.ccd == bindparam("ccd"),
    _task.cadence == bindparam("cadence"),
)

SET_STATUS: Update = update(todolist).where(_task.priority == bindparam("task")).values(status=bindparam("new_status"))
SET_SKIPPED: Update = (
    update(todolist).where(_task.priority.in_(_integers("priorities"))).values(status=STATUS.SKIPPED.value)
)
INSERT_DIAGNOSTICS: Insert = insert(diagnostics)
INSERT_SKIP: Insert = insert(photometry_skipped)
SKIPS_OF_TASK: Select[Any] = select(_skip.priority, _skip.skipped_by).where(
    or_(_skip.priority == bindparam("task"), _skip.skipped_by == bindparam("task"))
)
#: Who is skipped by a task, without a result of its own: only a result of that task can have written it.
UNMEASURED_RIVALS: Select[Any] = select(_skip.priority).where(
    _skip.skipped_by == bindparam("task"), ~exists().where(diagnostics.c.priority == _skip.priority)
)
DELETE_SKIP: Delete = delete(photometry_skipped).where(
    _skip.priority == bindparam("rival"), _skip.skipped_by == bindparam("task")
)
DELETE_SKIPS_OF: Delete = delete(photometry_skipped).where(_skip.priority == bindparam("task"))

# --- back to pending -------------------------------------------------------------------------------------


def tasks_with_status(statuses: Iterable[STATUS], conditions: Iterable[ColumnElement[bool]]) -> Select[Any]:
    """Select the priorities of the tasks in one of these states."""
    values = [status.value for status in statuses]
    return select(_task.priority).where(_task.status.in_(values), *conditions)


SKIPPED_BY_ANY: Select[Any] = select(_skip.priority).distinct().where(_skip.skipped_by.in_(_integers("priorities")))
#: Of the tasks given, those that are SKIPPED and that nothing skips any more.
NO_LONGER_SKIPPED: Select[Any] = select(_task.priority).where(
    _task.priority.in_(_integers("priorities")),
    _task.status == STATUS.SKIPPED.value,
    ~exists().where(_skip.priority == _task.priority),
)
DELETE_SKIPS: Delete = delete(photometry_skipped).where(
    or_(_skip.priority.in_(_integers("priorities")), _skip.skipped_by.in_(_integers("priorities")))
)
DELETE_DIAGNOSTICS: Delete = delete(diagnostics).where(diagnostics.c.priority.in_(_integers("priorities")))
SET_PENDING: Update = update(todolist).where(_task.priority.in_(_integers("priorities"))).values(status=None)

RESET_EVERYTHING = (
    delete(diagnostics),
    delete(photometry_skipped),
    update(todolist).where(_task.status.is_not(None)).values(status=None),
)

# --- counting --------------------------------------------------------------------------------------------

COUNT_BY_STATUS: Select[Any] = select(_task.status, func.count()).group_by(_task.status)
COUNT_BY_CCD: Select[Any] = (
    select(_task.camera, _task.ccd, _task.status, func.count())
    .group_by(_task.camera, _task.ccd, _task.status)
    .order_by(_task.camera, _task.ccd)
)

# --- loading ---------------------------------------------------------------------------------------------

#: What makes two rows the same target.
TARGET_COLUMNS = (_task.starid, _task.datasource, _task.sector, _task.camera, _task.ccd, _task.cadence)
TARGETS: Select[Any] = select(*TARGET_COLUMNS)
TARGET_OF_TASK: Select[Any] = TARGETS.where(_task.priority == bindparam("task"))
LAST_PRIORITY: Select[Any] = select(func.coalesce(func.max(_task.priority), 0))
INSERT_TASKS: Insert = insert(todolist)
