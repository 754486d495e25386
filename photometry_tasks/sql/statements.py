"""The statements of the hot paths, built once, and builders of statements with constraints. Pure: no execution."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from photometry_tasks.models import (
    attempts,
    diagnostics,
    extra,
    own_skips,
    photometry_skipped,
    progress,
    todolist,
    undo,
    workers,
)
from photometry_tasks.rules.results import COLUMNS
from photometry_tasks.sql.functions import unix_time
from photometry_tasks.status import COVERS_NONE, FAILED, GIVEN_UP, LOST, RELEASED, RESET_AT_OPENING, STATUS

_task, _skip = todolist.c, photometry_skipped.c
_is_pending = _task.status.is_(None)
_started: sa.ColumnClause[int] = sa.literal_column(str(STATUS.STARTED.value))
_cover = todolist.alias("cover")
#: Whether a skip is stated by the result of the skipped task, and not by the result of the covering one.
_is_own = sa.exists().where(own_skips.c.priority == _skip.priority, own_skips.c.skipped_by == _skip.skipped_by)
#: Whether the covering task of a skip covers none: it was not measured, or is SKIPPED itself. TASOC and older releases
#: leave such skips.
_is_void = sa.exists().where(
    _cover.c.priority == _skip.skipped_by,
    sa.or_(_cover.c.status.is_(None), _cover.c.status == _started, *(_cover.c.status == s.value for s in COVERS_NONE)),
)

_LAST_MINUTE = 253_402_300_740  # of the year 9999, where datetime ends


def _integers(name: str) -> sa.BindParameter[Any]:
    """Return a parameter whose integers are written into the SQL: a driver limits the number of its parameters."""
    return sa.bindparam(name, expanding=True, literal_execute=True)


# --- getting tasks ---------------------------------------------------------------------------------------

#: The keys of a task dict, in this order.
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

_TASK_NAMES = tuple(column.name for column in TASK_COLUMNS)


def build_task(row: Sequence[Any]) -> dict[str, Any]:
    """Return the task dict of a row of `TASK_COLUMNS`."""
    return dict(zip(_TASK_NAMES, row, strict=True))


_pending = sa.select(*TASK_COLUMNS).where(_is_pending)

PENDING_TASK: sa.Select[Any] = _pending.where(_task.priority == sa.bindparam("task"))


_PENDING_IDX, _STATUS_IDX = "INDEXED BY todolist_pending_idx", "INDEXED BY status_idx"


def build_next_tasks(conditions: Iterable[sa.ColumnElement[bool]], names: Collection[str]) -> sa.Select[Any]:
    """Select pending tasks by priority, from the parameter `start` on, at most the parameter `limit`.

    Parameters
    ----------
    conditions : iterable
        Expressions that the tasks match.
    names : collection of str
        Names of the constraints from which the conditions were built.
    """
    found = (
        _pending.where(_task.priority >= sa.bindparam("start"), *conditions)
        .order_by(_task.priority)
        .limit(sa.bindparam("limit"))
    )
    if "priority" in names:
        return found  # SQLite finds these by the key
    # The index is prescribed: TASOC's code runs ANALYZE when all tasks are pending or none is, and such statistics
    # mislead SQLite's planner. Most constraints pass over many rows, which is fastest without an index.
    index = "INDEXED BY starid_idx" if "starid" in names else "NOT INDEXED" if names else _PENDING_IDX
    return found.with_hint(todolist, index, "sqlite")


FIRST_PENDING: sa.Select[Any] = (
    sa.select(sa.func.min(_task.priority)).where(_is_pending).with_hint(todolist, _PENDING_IDX, "sqlite")
)


PRIORITY_RANGE: sa.Select[Any] = sa.select(
    sa.select(sa.func.min(_task.priority)).scalar_subquery(), sa.select(sa.func.max(_task.priority)).scalar_subquery()
)


def build_numbered_task(conditions: Iterable[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    """Select the pending task with the parameter `number` in the order of priorities, counted from 0."""
    one = sa.select(_task.priority).where(_is_pending, *conditions).order_by(_task.priority)
    chosen = one.limit(1).offset(sa.bindparam("number")).scalar_subquery()
    return sa.select(*TASK_COLUMNS).where(_task.priority == chosen)


def build_count_pending(conditions: Iterable[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    """Count the pending tasks that match the conditions."""
    return sa.select(sa.func.count()).select_from(todolist).where(_is_pending, *conditions)


START_TASK: sa.Update = (
    sa.update(todolist).where(_task.priority == sa.bindparam("task"), _is_pending).values(status=_started)
)
RELEASE_TASK: sa.Update = (
    sa.update(todolist).where(_task.priority == sa.bindparam("task"), _task.status == _started).values(status=sa.null())
)
SKIPPED_AMONG: sa.Select[Any] = sa.select(_task.priority).where(
    _task.priority.in_(_integers("priorities")), _task.status == STATUS.SKIPPED.value
)
STATUS_OF_TASK: sa.Select[Any] = sa.select(_task.status).where(_task.priority == sa.bindparam("task"))
COVERS_OF_TASK: sa.Select[Any] = sa.select(_skip.skipped_by).where(_skip.priority == sa.bindparam("task"), ~_is_own)

# --- saving ----------------------------------------------------------------------------------------------

#: Two rows with equal values in these columns have the same target.
TARGET_COLUMNS = (_task.starid, _task.datasource, _task.sector, _task.camera, _task.ccd, _task.cadence)
TARGET_NAMES = tuple(column.name for column in TARGET_COLUMNS)
TARGET_OF_TASK: sa.Select[Any] = sa.select(*TARGET_COLUMNS).where(_task.priority == sa.bindparam("task"))

#: The task of a result; whether a result was saved before; whether the task is covered, before its result is saved,
#: whether it is in a skip that counts for nothing, and whether it covers others by a result that was deleted; the
#: priority of the task that owns the light-curve path.
TASK_OF_RESULT: sa.Select[Any] = sa.select(
    *TARGET_COLUMNS,
    _task.tmag,
    _task.status,
    sa.or_(
        sa.exists().where(diagnostics.c.priority == _task.priority),
        # Programs that do not switch foreign keys on leave these rows when they delete diagnostics.
        sa.exists().where(extra.c.priority == _task.priority),
        sa.exists().where(own_skips.c.priority == _task.priority),
    ).label("was_saved"),
    sa.exists().where(_skip.priority == _task.priority).label("is_covered"),
    sa.exists().where(_skip.priority == _task.priority, _is_void).label("has_void_skips"),
    sa.exists().where(_skip.skipped_by == _task.priority, ~_is_own).label("has_covered"),
    sa.select(diagnostics.c.priority)
    .where(diagnostics.c.lightcurve == sa.bindparam("lightcurve"))
    .scalar_subquery()
    .label("lightcurve_owner"),
).where(_task.priority == sa.bindparam("task"))

#: Tasks with a target, and whether their own results have caused skips.
RIVALS: sa.Select[Any] = sa.select(
    _task.priority,
    _task.tmag,
    _task.status,
    sa.or_(
        sa.exists().where(_skip.skipped_by == _task.priority, ~_is_own),
        sa.exists().where(own_skips.c.priority == _task.priority),
    ).label("has_caused_skips"),
).where(*(column == sa.bindparam(column.name) for column in TARGET_COLUMNS))

SET_STATUS: sa.Update = (
    sa.update(todolist).where(_task.priority == sa.bindparam("task")).values(status=sa.bindparam("new_status"))
)
#: Changes no row if the task is not STARTED, has another target, is in a skip, or has values of the pipeline's own.
SAVE_STARTED: sa.Update = (
    sa.update(todolist)
    .where(
        _task.priority == sa.bindparam("priority"),
        *(column == sa.bindparam(column.name) for column in TARGET_COLUMNS),
        _task.status == _started,
        ~sa.exists().where(_skip.priority == _task.priority),
        ~sa.exists().where(_skip.skipped_by == _task.priority),
        ~sa.exists().where(extra.c.priority == _task.priority),
    )
    .values(status=sa.bindparam("new_status"))
)
INSERT_DIAGNOSTICS: sa.Insert = sa.insert(diagnostics)
if _missing := set(diagnostics.columns.keys()) - COLUMNS:
    raise NotImplementedError(f"diagnostics.{min(_missing)} has no source: rules/results.py must give its value")
INSERT_EXTRA: sa.Insert = sa.insert(extra)
INSERT_SKIP: sa.Insert = sa.insert(photometry_skipped)
INSERT_OWN_SKIP: sa.Insert = sa.insert(own_skips)

# --- back to pending -------------------------------------------------------------------------------------

_is_failed = sa.or_(*(_task.status == sa.literal_column(str(status.value)) for status in FAILED))
#: The number of failures of a task since it was last reset by hand.
_failures = (
    sa.select(sa.func.count())
    .where(attempts.c.priority == _task.priority, attempts.c.counts)
    .correlate(todolist)
    .scalar_subquery()
)


_next_try = attempts.alias("next_try")
#: Let an attempt that has failed last at a failed task end as released. Changes no row if there was a later attempt.
RELEASE_FAILURE: sa.Update = (
    sa.update(attempts)
    .where(
        attempts.c.priority == sa.bindparam("task"),
        attempts.c.attempt == sa.bindparam("number"),
        attempts.c.counts,
        ~sa.exists().where(_next_try.c.priority == attempts.c.priority, _next_try.c.attempt > sa.bindparam("number")),
        sa.exists().where(_task.priority == attempts.c.priority, _is_failed),
    )
    .values(how=RELEASED, counts=sa.null())
)


def build_has_failed(has_failed: bool | None) -> list[sa.ColumnElement[bool]]:
    """Return the condition that a task has failed since it was last reset by hand, or that it has not."""
    if has_failed is None:
        return []
    # In this form both databases look the task up in an index, with any statistics.
    failure: sa.Select[Any] = sa.select(sa.literal_column("1")).where(
        attempts.c.priority == _task.priority, attempts.c.counts
    )
    found = failure.limit(sa.literal_column("1")).correlate(todolist).scalar_subquery()
    return [found.is_not(None) if has_failed else found.is_(None)]


#: Tasks that opening returns to pending. For the hint see `build_next_tasks`.
_interrupted = (
    sa.select(_task.priority)
    .where(sa.or_(*(_task.status == sa.literal_column(str(status.value)) for status in RESET_AT_OPENING)))
    .with_hint(todolist, _STATUS_IDX, "sqlite")
)
HAS_INTERRUPTED_TASKS: sa.Select[Any] = sa.select(_interrupted.exists())


def _is_used_up(retries: int) -> sa.ColumnElement[bool]:
    """Whether a failed task has no retries left; if it failed before attempts were recorded, it has failed once."""
    return _failures > retries if retries else sa.true()


def build_interrupted_tasks(conditions: Iterable[sa.ColumnElement[bool]], retries: int | None) -> sa.Select[Any]:
    """Select the priorities of interrupted tasks, and of failed tasks that may be retried; None sets no limit."""
    chosen = _interrupted.where(*conditions)
    return chosen if retries is None else chosen.where(sa.or_(_task.status == _started, ~_is_used_up(retries)))


def build_used_up(retries: int) -> sa.Select[Any]:
    """Count the failed tasks that have no retries left."""
    return sa.select(sa.func.count()).select_from(todolist).where(_is_failed, _is_used_up(retries))


def build_skip_chains(chosen: sa.Select[Any], *, is_shared: bool, has_own_skips: bool) -> sa.Select[Any]:
    """Select the chosen tasks, and the SKIPPED tasks that they cover, and so on: a row for each task that covers them.

    The columns are priority, status, is_chosen, skipped_by (NULL for a task that no other skips), is_own and is_void. A
    list of an older release has no own skips.
    """
    is_own = _is_own if has_own_skips else sa.false()
    first = (build_unowned(chosen) if is_shared else chosen).cte("chosen")
    reached = sa.select(first.c.priority).cte("reached", recursive=True)
    reached = reached.union(
        sa.select(_skip.priority)
        .select_from(photometry_skipped)
        .join(reached, sa.and_(_skip.skipped_by == reached.c.priority, ~is_own))
        .join(todolist, _task.priority == _skip.priority)
        .where(_task.status == STATUS.SKIPPED.value)
    )
    is_chosen = reached.c.priority.in_(sa.select(first.c.priority)).label("is_chosen")
    return (
        sa.select(
            reached.c.priority,
            _task.status,
            is_chosen,
            _skip.skipped_by,
            is_own.label("is_own"),
            _is_void.label("is_void"),
        )
        .select_from(reached)
        .join(todolist, _task.priority == reached.c.priority)
        .join(photometry_skipped, _skip.priority == reached.c.priority, isouter=True)
    )


_is_cover = sa.and_(_skip.skipped_by.in_(_integers("priorities")), ~_is_own)
COVERED_BY_ANY: sa.Select[Any] = sa.select(_skip.priority).distinct().where(_is_cover)
DELETE_COVERS: sa.Delete = sa.delete(photometry_skipped).where(_is_cover)
#: First the skips, then their marks.
DELETE_OWN_SKIPS = (
    sa.delete(photometry_skipped).where(_skip.priority.in_(_integers("priorities")), _is_own),
    sa.delete(own_skips).where(own_skips.c.priority.in_(_integers("priorities"))),
)
DELETE_VOID_SKIPS: sa.Delete = sa.delete(photometry_skipped).where(
    _skip.priority.in_(_integers("priorities")), _is_void
)
DELETE_SKIPS_OF: sa.Delete = sa.delete(photometry_skipped).where(_skip.priority.in_(_integers("priorities")))
#: The given tasks that nothing skips.
UNSKIPPED: sa.Select[Any] = sa.select(_task.priority).where(
    _task.priority.in_(_integers("priorities")), ~sa.exists().where(_skip.priority == _task.priority)
)
NO_LONGER_SKIPPED: sa.Select[Any] = UNSKIPPED.where(_task.status == STATUS.SKIPPED.value)
MEASURED_AMONG: sa.Select[Any] = sa.select(diagnostics.c.priority).where(
    diagnostics.c.priority.in_(_integers("priorities"))
)
DELETE_EXTRA: sa.Delete = sa.delete(extra).where(extra.c.priority.in_(_integers("priorities")))
DELETE_DIAGNOSTICS: sa.Delete = sa.delete(diagnostics).where(diagnostics.c.priority.in_(_integers("priorities")))
COUNTED_FAILURES: sa.Select[Any] = sa.select(attempts.c.priority, attempts.c.attempt).where(
    attempts.c.priority.in_(_integers("priorities")), attempts.c.counts
)
COUNT_AGAIN: sa.Update = (
    sa.update(attempts)
    .where(attempts.c.priority == sa.bindparam("task"), attempts.c.attempt == sa.bindparam("number"))
    .values(counts=sa.true())
)
STATUSES: sa.Select[Any] = sa.select(_task.priority, _task.status).where(_task.priority.in_(_integers("priorities")))
INSERT_UNDO: sa.Insert = sa.insert(undo)
UNDO_PARTS: sa.Select[Any] = sa.select(undo.c.part).where(undo.c.origin == sa.bindparam("origin")).order_by(undo.c.part)
UNDO_CONTENT: sa.Select[Any] = sa.select(undo.c.content).where(undo.c.part == sa.bindparam("part"))
#: After a reset by hand, the earlier failures of a task no longer count for the limit of retries.
FORGIVE_FAILURES: sa.Update = (
    sa.update(attempts)
    .where(attempts.c.priority.in_(_integers("priorities")), attempts.c.counts)
    .values(counts=sa.false())
)
COUNT_CHOSEN: sa.Select[Any] = (
    sa.select(_task.status, sa.func.count()).where(_task.priority.in_(_integers("priorities"))).group_by(_task.status)
)
SET_SKIPPED: sa.Update = (
    sa.update(todolist).where(_task.priority.in_(_integers("priorities"))).values(status=STATUS.SKIPPED.value)
)
SET_PENDING: sa.Update = sa.update(todolist).where(_task.priority.in_(_integers("priorities"))).values(status=sa.null())

# For lists that other managers may change at the same time.
LOCK_TASKS: sa.Select[Any] = (
    sa.select(_task.priority)
    .where(_task.priority.in_(_integers("priorities")))
    .order_by(_task.priority)  # the same order everywhere: deadlocks are rare
    .with_for_update()
)
_has_live_attempt = sa.exists().where(attempts.c.priority == _task.priority, attempts.c.ended.is_(None))
#: A running task becomes STARTED, not pending.
SET_PENDING_OR_STARTED: sa.Update = (
    sa.update(todolist)
    .where(_task.priority.in_(_integers("priorities")))
    .values(status=sa.case((_has_live_attempt, _started), else_=sa.cast(sa.null(), todolist.c.status.type)))
)


def build_unowned(chosen: sa.Select[Any]) -> sa.Select[Any]:
    """Select the chosen tasks that have no live attempt."""
    return chosen.where(~_has_live_attempt)


RESET_EVERYTHING = (
    sa.delete(undo),
    sa.update(attempts).where(attempts.c.counts).values(counts=sa.false()),
    sa.delete(own_skips),
    sa.delete(extra),
    sa.delete(diagnostics),
    sa.delete(photometry_skipped),
    sa.delete(progress),
    sa.update(todolist).where(_task.status.is_not(None)).values(status=sa.null()),
)

# --- the history -----------------------------------------------------------------------------------------

_try, _worker = attempts.c, workers.c

LAST_WORKER: sa.Select[Any] = sa.select(sa.func.coalesce(sa.func.max(_worker.worker), sa.literal_column("0")))
#: The last manager of a file that has not closed it, and its last heartbeat.
UNENDED_WORKER: sa.Select[Any] = (
    sa.select(_worker.worker, _worker.host, _worker.pid, _worker.seen)
    .where(_worker.ended.is_(None))
    .order_by(_worker.worker.desc())
    .limit(1)
)
WORKER: sa.Select[Any] = sa.select(_worker.worker).where(_worker.worker == sa.bindparam("number"))
INSERT_WORKER: sa.Insert = sa.insert(workers)
END_KILLED_WORKERS: sa.Update = sa.update(workers).where(_worker.ended.is_(None)).values(ended=_worker.seen)
TOUCH_WORKER: sa.Update = (
    sa.update(workers)
    .where(_worker.worker == sa.bindparam("number"))
    .values(seen=sa.bindparam("now"), ended=sa.bindparam("end"))
)
INSERT_ATTEMPT: sa.Insert = sa.insert(attempts)
#: For an attempt without errors, as nearly all are: in half the time.
INSERT_SUCCESS: sa.Insert = sa.insert(attempts).values(
    {
        column.name: sa.bindparam(column.name, type_=column.type)
        for column in (_try.priority, _try.attempt, _try.worker, _try.begun, _try.ended, _try.how, _try.peak_memory)
    }
)


def build_lost_attempts(conditions: Iterable[sa.ColumnElement[bool]]) -> sa.Insert:
    """Insert an attempt for each STARTED task that matches the conditions; parameters: number, worker, now, text."""
    lost: sa.ColumnClause[str] = sa.literal_column(f"'{LOST}'")
    values = {
        _try.priority: _task.priority,
        _try.attempt: sa.bindparam("number", type_=_try.attempt.type),
        _try.worker: sa.bindparam("worker", type_=_try.worker.type),
        _try.begun: sa.null(),
        _try.ended: sa.bindparam("now", type_=_try.priority.type),
        _try.how: lost,
        _try.kind: lost,
        _try.errors: sa.bindparam("text", type_=_try.errors.type),
    }
    started = sa.select(*values.values()).where(_task.status == _started, *conditions)
    return sa.insert(attempts).from_select(
        list(values), started.with_hint(todolist, _STATUS_IDX, "sqlite"), include_defaults=False
    )


#: The outcomes of attempts that gave a task its result.
RESULTS = (*(status.name for status in STATUS if status is not STATUS.STARTED), GIVEN_UP)
IS_RESULT = _try.how.in_([sa.literal_column(f"'{how}'") for how in RESULTS])
COUNT_RESULTS: sa.Select[Any] = sa.select(sa.func.count()).select_from(attempts).where(IS_RESULT)


def build_latest_results(limit: int) -> sa.Select[Any]:
    """Select the priorities of the results that were saved after the parameter `since`, the latest first."""
    latest = sa.select(_try.priority).where(IS_RESULT, _try.ended > sa.bindparam("since", type_=_try.ended.type))
    return latest.order_by(_try.ended.desc()).limit(limit)


_later = attempts.alias("later")
#: Whether an attempt gave its task the last result.
IS_LAST_RESULT: sa.ColumnElement[bool] = sa.and_(
    IS_RESULT,
    ~sa.exists().where(
        _later.c.priority == _try.priority,
        _later.c.attempt > _try.attempt,
        _later.c.how.in_([sa.literal_column(f"'{how}'") for how in RESULTS]),
    ),
)
#: The number of results by the version of the pipeline that made them; NULL if it is not known.
COUNT_VERSIONS: sa.Select[Any] = (
    sa.select(_worker.version, sa.func.count())
    .select_from(diagnostics)
    .join(attempts, sa.and_(_try.priority == diagnostics.c.priority, IS_LAST_RESULT), isouter=True)
    .join(workers, _worker.worker == _try.worker, isouter=True)
    .group_by(_worker.version)
    .order_by(_worker.version)
)
#: The number of failed tasks by the kind of their failure and by the host; NULL if it is not known.
COUNT_FAILURES: sa.Select[Any] = (
    sa.select(_try.kind, _worker.host, sa.func.count())
    .select_from(todolist)
    .join(attempts, sa.and_(_try.priority == _task.priority, IS_LAST_RESULT), isouter=True)
    .join(workers, _worker.worker == _try.worker, isouter=True)
    .where(_is_failed)
    .group_by(_try.kind, _worker.host)
)
HAS_VERSIONS: sa.Select[Any] = sa.select(sa.exists().where(_worker.version.is_not(None)))
ATTEMPTS_OF_TASK: sa.Select[Any] = (
    sa.select(*attempts.columns, _worker.host, _worker.pid, _worker.slurm_jobid, _worker.version)
    .join(workers, _worker.worker == _try.worker, isouter=True)
    .where(_try.priority == sa.bindparam("task"))
    .order_by(_try.attempt)
)


# --- counting --------------------------------------------------------------------------------------------

COUNT_BY_STATUS: sa.Select[Any] = sa.select(_task.status, sa.func.count()).group_by(_task.status)
COUNT_BY_CCD: sa.Select[Any] = (
    sa.select(_task.camera, _task.ccd, _task.status, sa.func.count())
    .group_by(_task.camera, _task.ccd, _task.status)
    .order_by(_task.camera, _task.ccd)
)


def build_count_by_status(
    statuses: Iterable[int | None], conditions: Sequence[sa.ColumnElement[bool]]
) -> sa.Select[Any]:
    """Count the tasks that meet conditions, a column for each status.

    With GROUP BY, SQLite would read each page of the table once for each status, in the order of its index.
    """
    counts: list[Any] = [sa.func.count(sa.case((_task.status == status, 1))) for status in statuses]
    return sa.select(*counts).where(*conditions)


def build_running_tasks(limit: int, first: Sequence[int] = ()) -> sa.Select[Any]:
    """Select STARTED tasks, some priorities first, in this order; only columns that files of every release have."""
    columns = [column for column in TASK_COLUMNS if column is not _task.cadence]
    started = sa.select(*columns).where(_task.status == _started)
    return started.order_by(*_put_first(first), _task.priority).limit(limit)


#: The live attempts, the longest first.
LIVE_ATTEMPTS: sa.Select[Any] = (
    sa.select(_try.priority, _try.begun, _worker.worker, _worker.host)
    .join(workers, _worker.worker == _try.worker, isouter=True)
    .where(_try.ended.is_(None))
    .order_by(_try.begun)
    .limit(100)
)


def build_failed_tasks(limit: int, last: Sequence[int]) -> sa.Select[Any]:
    """Select tasks with status ERROR and their errors: first the priorities in `last`, then in descending priority.

    Managers take tasks in the order of priorities, so the highest priorities failed about last.
    """
    joined = todolist.join(diagnostics, _task.priority == diagnostics.c.priority)
    failed = sa.select(_task.priority, _task.starid, diagnostics.c.errors).select_from(joined)
    failed = failed.where(_task.status == sa.literal_column(str(STATUS.ERROR.value)))
    return failed.order_by(*_put_first(last), _task.priority.desc()).limit(limit)


def _put_first(priorities: Sequence[int]) -> list[sa.ColumnElement[int]]:
    """Return an order of tasks: some priorities first."""
    order = {priority: place for place, priority in enumerate(priorities)}
    return [sa.case(order, value=_task.priority, else_=len(order))] if order else []


# --- progress --------------------------------------------------------------------------------------------

TIME: sa.Select[Any] = sa.select(unix_time())
INSERT_PROGRESS: sa.Insert = sa.insert(progress)
ADD_PROGRESS: sa.Update = (
    sa.update(progress)
    .where(progress.c.minute == sa.bindparam("minute"))
    .values(
        saved=progress.c.saved + sa.bindparam("saved"),
        errors=progress.c.errors + sa.bindparam("errors"),
        elaptime=progress.c.elaptime + sa.bindparam("elaptime"),
        last_error=sa.func.coalesce(sa.bindparam("last_error"), progress.c.last_error),
    )
)
PROGRESS: sa.Select[Any] = (
    sa.select(progress).where(progress.c.minute.between(0, _LAST_MINUTE)).order_by(progress.c.minute)
)

# --- loading ---------------------------------------------------------------------------------------------

_last = (sa.select(sa.func.max(column)).scalar_subquery() for column in (_task.priority, attempts.c.priority))
#: No task inherits the attempts at a deleted one.
LAST_PRIORITY: sa.Select[Any] = sa.select(*(sa.func.coalesce(priority, sa.literal_column("0")) for priority in _last))
