"""The statements of a list that many managers share: claims, results, and what a dead worker leaves. Pure.

Each is one statement with all that hangs on it (https://www.postgresql.org/docs/current/queries-with.html), so that
it is done as a whole or not at all, in one round trip. Rows are locked in one order everywhere: the worker, then the
attempt and the task.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    Executable,
    Insert,
    Interval,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    case,
    cast,
    column,
    exists,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as insert_or

from photometry_tasks.models import attempts, diagnostics, photometry_skipped, todolist, workers
from photometry_tasks.statements import TASK_COLUMNS
from photometry_tasks.status import STATUS

_task, _skip, _try, _worker, _kept = todolist.c, photometry_skipped.c, attempts.c, workers.c, diagnostics.c

#: How an attempt ended, if no result did it.
LOST, RELEASED, GIVEN_UP = "lost", "released", "given up"

_now = func.clock_timestamp()
_is_live = _try.ended.is_(None)
_me = bindparam("worker", type_=BigInteger())
_lease = _worker.lease * literal_column("interval '1 second'", Interval())
_is_silent = and_(_worker.ended.is_(None), _worker.seen < func.now() - _lease)
_has_live_attempt = exists().where(_try.priority == _task.priority, _is_live)


# What a statement has of its own is in its text: see `transactions.Statements`.
def _number(value: int) -> ColumnElement[int]:
    return literal_column(str(value), BigInteger())


def _text(value: str) -> ColumnElement[str]:
    return literal_column(f"'{value}'", Text())


_is_started = _task.status == _number(STATUS.STARTED.value)
_started, _error = _number(STATUS.STARTED.value), _number(STATUS.ERROR.value)
_pending: ColumnElement[int] = cast(null(), BigInteger)

# --- workers ---------------------------------------------------------------------------------------------

LOCK_WORKERS: Executable = text("LOCK TABLE photometry_tasks_workers IN SHARE ROW EXCLUSIVE MODE")

#: Parameters: host, pid, slurm_jobid, lease.
REGISTER: Insert = (
    insert(workers)
    .values({name: bindparam(name) for name in ("host", "pid", "slurm_jobid", "lease")})
    .returning(_worker.worker)
)
#: A sign of life. One that was given up is back with it.
_touch = update(workers).where(_worker.worker == _me).values(seen=_now, ended=null())
HEARTBEAT: Update = _touch.returning(_worker.worker)
#: Who else is at work: worker, host, pid, and the seconds since the last sign of life.
OTHERS: Select[Any] = select(
    _worker.worker, _worker.host, _worker.pid, func.extract("epoch", func.now() - _worker.seen)
).where(_worker.ended.is_(None), ~_is_silent, _worker.worker != _me)

# --- claiming --------------------------------------------------------------------------------------------


def pending(conditions: Iterable[ColumnElement[bool]], limit: int) -> Select[Any]:
    """Select the next pending tasks."""
    found = select(*TASK_COLUMNS).where(_task.status.is_(None), *conditions)
    return found.order_by(_task.priority).limit(_number(limit))


def claim(conditions: Iterable[ColumnElement[bool]], limit: int, *, waits: bool) -> Select[Any]:
    """Start the next pending tasks for a worker, and select them with their attempts.

    Parameters
    ----------
    waits : bool
        Whether none is claimed while a worker is silent for longer than its lease: its tasks may come before these.
    """
    seen = _touch.cte("seen")
    nobody_is_silent = ~exists(select(_worker.worker).where(_is_silent, _worker.worker != _me))
    chosen = (
        select(_task.priority)
        .where(_task.status.is_(None), *conditions, *([nobody_is_silent] if waits else []))
        .order_by(_task.priority)
        # In the text, so that the planner knows it.
        .limit(_number(limit))
        .with_for_update(skip_locked=True, of=todolist)
        .cte("chosen")
    )
    started = (
        update(todolist)
        .where(_task.priority == chosen.c.priority)
        .values(status=_started)
        .returning(*TASK_COLUMNS)
        .cte("started")
    )
    # One whose status another program has set to pending while it ran stays its worker's.
    begun = (
        insert_or(attempts)
        .from_select([_try.priority, _try.worker], select(started.c.priority, _me))
        .on_conflict_do_nothing(index_elements=[_try.priority], index_where=_is_live)
        .returning(_try.priority, _try.attempt)
        .cte("begun")
    )
    claimed = select(*started.c, begun.c.attempt).join(begun, begun.c.priority == started.c.priority)
    return claimed.order_by(started.c.priority).add_cte(seen)


#: Live attempts of a worker, with their tasks: what a claim has given it, whose answer was lost.
CLAIMED: Select[Any] = (
    select(*TASK_COLUMNS, _try.attempt)
    .join(attempts, _try.priority == _task.priority)
    .where(_try.worker == _me, _is_live)
    .order_by(_task.priority)
)

_earlier = attempts.alias("earlier")
_losses = (
    select(func.count())
    .where(
        _earlier.c.priority == _try.priority,
        _earlier.c.how == _text(LOST),
        _earlier.c.attempt
        > func.coalesce(
            select(func.max(_earlier.c.attempt))
            .where(
                _earlier.c.priority == _try.priority, _earlier.c.how != _text(LOST), _earlier.c.how != _text(RELEASED)
            )
            .correlate(attempts)
            .scalar_subquery(),
            _number(0),
        ),
    )
    .correlate(attempts)
    .scalar_subquery()
)


def _build_rescue() -> Select[Any]:
    silent = (
        select(_worker.worker, _worker.host, _worker.pid, func.now() - _worker.seen)
        .where(_is_silent, _worker.worker != _me)
        .with_for_update(skip_locked=True)
        .cte("silent")
    )
    dead = (
        update(workers)
        .where(_worker.worker == silent.c.worker)
        .values(ended=_now)
        .returning(_worker.worker, _worker.host, _worker.pid, _worker.seen)
        .cte("dead")
    )
    is_last = _losses + _number(1) >= bindparam("max_attempts", type_=BigInteger())
    reason = func.format(
        _text("Worker %s (%s, process %s) was lost: it has given no sign of life since %s"),
        dead.c.worker,
        dead.c.host,
        dead.c.pid,
        func.date_trunc(_text("second"), dead.c.seen),
    )
    lost = (
        update(attempts)
        .where(_try.worker == dead.c.worker, _is_live)
        .values(
            ended=_now,
            how=case((is_last, _text(GIVEN_UP)), else_=_text(LOST)),
            errors=case(
                (
                    is_last,
                    func.format(_text("%s. So were those of %s attempts in a row"), reason, _losses + _number(1)),
                ),
                else_=reason,
            ),
        )
        .returning(_try.priority, _try.worker, _try.begun, _try.how, _try.errors)
        .cte("lost")
    )
    is_given_up = lost.c.how == _text(GIVEN_UP)
    back = (
        update(todolist)
        .where(_task.priority == lost.c.priority, _is_started)
        .values(status=case((is_given_up, _error), else_=_pending))
        .returning(_task.priority)
        .cte("back")
    )
    failed = select(
        lost.c.priority, _text("error"), func.extract("epoch", _now - lost.c.begun), _number(0), lost.c.errors
    ).join(back, back.c.priority == lost.c.priority)
    kept = insert_or(diagnostics).from_select(
        [_kept.priority, _kept.method_used, _kept.elaptime, _kept.stamp_resizes, _kept.errors],
        failed.where(is_given_up),
    )
    kept = kept.on_conflict_do_update(index_elements=[_kept.priority], set_={"errors": kept.excluded.errors})
    number = select(func.count()).where(lost.c.worker == dead.c.worker).scalar_subquery()
    return select(dead.c.worker, dead.c.host, dead.c.pid, number).add_cte(kept.cte("kept"))


#: Return the tasks of silent workers to pending; one whose workers were lost too often becomes an ERROR. Selects the
#: workers with the number of their tasks.
RESCUE: Select[Any] = _build_rescue()

# --- saving ----------------------------------------------------------------------------------------------

_RESULT_COLUMNS = [*diagnostics.columns]
#: Results as one parameter, a JSON array: so one statement serves one result as well as a thousand.
_rows = func.json_to_recordset(cast(bindparam("rows", type_=Text()), JSON)).table_valued(
    column("attempt", BigInteger()),
    column("status", BigInteger()),
    column("how", Text()),
    *(column(kept.name, kept.type) for kept in _RESULT_COLUMNS),
    name="result",
)
RESULT_NAMES = tuple(_rows.c.keys())


def _build_save() -> Select[Any]:
    seen = HEARTBEAT.cte("seen")
    rows = _rows.render_derived(with_types=True)

    # As the planner gets them, each is one look-up in an index, whatever the statistics say.
    def none_in(table: Any, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        return (
            select(literal_column("1"))
            .select_from(table)
            .where(*conditions)
            .limit(_number(1))
            .scalar_subquery()
            .is_(None)
        )

    # Lateral: so each row is looked up by its key and locked, and what is asked of it is asked of its last version.
    is_ours = or_(_try.attempt == rows.c.attempt, and_(rows.c.attempt.is_(None), _try.worker == seen.c.worker))
    live = select(_try.attempt).where(_try.priority == rows.c.priority, _is_live, is_ours).with_for_update()
    task = select(_task.status).where(_task.priority == rows.c.priority).with_for_update()
    live_attempt, locked_task = live.lateral("live_attempt"), task.lateral("locked_task")
    true = literal_column("true", Boolean())
    accepted = (
        select(*rows.c, live_attempt.c.attempt.label("accepted"))
        .select_from(rows)
        .join(seen, true)
        .join(live_attempt, true)
        .join(locked_task, true)
        .where(
            # The sum is none that an index has: by its status, all that run would be looked through for each.
            locked_task.c.status + _number(0) == _started,
            none_in(photometry_skipped, _skip.priority == rows.c.priority),
            none_in(photometry_skipped, _skip.skipped_by == rows.c.priority),
            none_in(diagnostics, _kept.priority == rows.c.priority),
            none_in(diagnostics, _kept.lightcurve == rows.c.lightcurve),
        )
        .cte("accepted")
    )
    ended = (
        update(attempts)
        .where(_try.priority == accepted.c.priority, _try.attempt == accepted.c.accepted)
        .values(ended=_now, how=accepted.c.how, errors=accepted.c.errors)
        .cte("ended")
    )
    saved = update(todolist).where(_task.priority == accepted.c.priority).values(status=accepted.c.status).cte("saved")
    kept = insert(diagnostics).from_select(
        [kept.name for kept in _RESULT_COLUMNS], select(*(accepted.c[kept.name] for kept in _RESULT_COLUMNS))
    )
    return select(accepted.c.priority).add_cte(ended, saved, kept.cte("kept"))


#: Save results of live attempts, of tasks that are STARTED and in no skip: nearly all. Selects the priorities of those.
SAVE: Select[Any] = _build_save()

#: Live attempts of tasks, with their workers.
LIVE: Select[Any] = (
    select(_try.priority, _try.attempt, _try.worker, _worker.host, _worker.pid, _worker.lease)
    .join(workers, _worker.worker == _try.worker)
    .where(_try.priority == func.any(bindparam("priorities")), _is_live)
)
#: In the order of its parameters.
END_ATTEMPT: Update = (
    update(attempts)
    .where(_try.priority == bindparam("task"), _try.attempt == bindparam("number"), _is_live)
    .values(ended=_now, how=bindparam("end"), errors=bindparam("text"))
)
END_ALL_ATTEMPTS: Update = update(attempts).where(_is_live).values(ended=_now, how=_text(RELEASED))
#: How an attempt ended: what became of a result whose answer was lost.
END_OF_ATTEMPT: Select[Any] = select(_try.how).where(
    _try.priority == bindparam("task"), _try.attempt == bindparam("number")
)
#: Parameters: priorities, worker.
BEGIN_ATTEMPTS: Insert = (
    insert(attempts)
    .from_select(
        [_try.priority, _try.worker],
        select(func.unnest(cast(bindparam("priorities"), ARRAY(BigInteger))), cast(_me, BigInteger)),
    )
    .returning(_try.priority, _try.attempt)
)
#: Locks, in one order, the tasks of some priorities and of some stars.
LOCK_FIELD: Select[Any] = (
    select(_task.priority)
    .where(or_(_task.priority == func.any(bindparam("priorities")), _task.starid == func.any(bindparam("starids"))))
    .order_by(_task.priority)
    .with_for_update()
)

# --- giving back -----------------------------------------------------------------------------------------


def _build_release(which: ColumnElement[bool], *, ends: bool) -> Select[Any]:
    seen = (_touch.values(ended=_now) if ends else _touch).returning(_worker.worker).cte("seen")
    ended = (
        update(attempts)
        .where(_try.worker == seen.c.worker, _is_live, which)
        .values(ended=_now, how=_text(RELEASED))
        .returning(_try.priority)
        .cte("ended")
    )
    back = (
        update(todolist)
        .where(_task.priority == ended.c.priority, _is_started)
        .values(status=_pending)
        .returning(_task.priority)
        .cte("back")
    )
    return select(back.c.priority)


#: Return tasks of a worker that are STARTED to pending.
RELEASE: Select[Any] = _build_release(_try.priority == func.any(bindparam("priorities")), ends=False)
#: All of them, since it works no longer.
SIGN_OFF_AND_RELEASE: Select[Any] = _build_release(literal_column("true"), ends=True)


def history(priority: int) -> Select[Any]:
    """Select the attempts at a task, the first one first."""
    return (
        select(*attempts.columns, _worker.host, _worker.pid, _worker.slurm_jobid)
        .join(workers, _worker.worker == _try.worker, isouter=True)
        .where(_try.priority == priority)
        .order_by(_try.attempt)
    )


def count_elsewhere(conditions: Iterable[ColumnElement[bool]]) -> Select[Any]:
    """Count the tasks that other workers are at."""
    return (
        select(func.count())
        .select_from(attempts)
        .join(todolist, _task.priority == _try.priority)
        .where(_is_live, _try.worker != _me, _is_started, *conditions)
    )


__all__ = [
    "BEGIN_ATTEMPTS",
    "CLAIMED",
    "END_ALL_ATTEMPTS",
    "END_ATTEMPT",
    "END_OF_ATTEMPT",
    "GIVEN_UP",
    "HEARTBEAT",
    "LIVE",
    "LOCK_FIELD",
    "LOCK_WORKERS",
    "LOST",
    "OTHERS",
    "REGISTER",
    "RELEASE",
    "RELEASED",
    "RESCUE",
    "RESULT_NAMES",
    "SAVE",
    "SIGN_OFF_AND_RELEASE",
    "claim",
    "count_elsewhere",
    "history",
    "pending",
]
