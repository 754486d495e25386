"""The statements of a list that many managers share: workers, claims, rescues and releases. Pure.

Each statement includes the changes that depend on it (https://www.postgresql.org/docs/current/queries-with.html): all
are made, or none, in one round trip.
"""

from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as insert_or

from photometry_tasks.constraints import CheckedConstraints, build_expressions
from photometry_tasks.models import attempts, current_time, diagnostics, todolist, workers
from photometry_tasks.sql.statements import TASK_COLUMNS, build_has_failed
from photometry_tasks.status import GIVEN_UP, LOST, RELEASED, STATUS

_task, _try, _worker, _kept = todolist.c, attempts.c, workers.c, diagnostics.c

NOW = current_time()
IS_LIVE = _try.ended.is_(None)
ME = sa.bindparam("worker", type_=sa.BigInteger())
_lease = _worker.lease * sa.literal_column("interval '1 second'", sa.Interval())
_is_expired = sa.and_(_worker.ended.is_(None), _worker.seen < sa.func.now() - _lease)


# Constants are in the text of a statement, so that only the caller's values are parameters.
def as_number(value: int) -> sa.ColumnElement[int]:
    """Return an integer as a literal of SQL."""
    return sa.literal_column(str(value), sa.BigInteger())


def as_text(value: str) -> sa.ColumnElement[str]:
    """Return a text as a literal of SQL; it must not contain a quote."""
    return sa.literal_column(f"'{value}'", sa.Text())


STARTED, _error = as_number(STATUS.STARTED.value), as_number(STATUS.ERROR.value)
# No index holds this sum. With an index on the status, the planner would read all running tasks.
_is_started = _task.status + as_number(0) == STARTED
_pending: sa.ColumnElement[int] = sa.cast(sa.null(), sa.BigInteger)


def _build_age(time: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the seconds since a time; the server's clock may have been set back."""
    return sa.func.greatest(sa.func.extract("epoch", NOW - time), as_number(0))


# --- workers ---------------------------------------------------------------------------------------------

LOCK_WORKERS: sa.Executable = sa.text("LOCK TABLE photometry_tasks_workers IN SHARE ROW EXCLUSIVE MODE")

#: Parameters: host, pid, slurm_jobid, version, lease.
REGISTER: sa.Insert = (
    sa.insert(workers)
    .values({name: sa.bindparam(name) for name in ("host", "pid", "slurm_jobid", "version", "lease")})
    .returning(_worker.worker)
)
#: A heartbeat. It also brings back a worker whose lease had expired.
_touch = sa.update(workers).where(_worker.worker == ME).values(seen=NOW, ended=sa.null())
HEARTBEAT: sa.Update = _touch.returning(_worker.worker)
#: The other workers with a valid lease: worker, host, pid, and the seconds since the last heartbeat.
OTHERS: sa.Select[Any] = sa.select(_worker.worker, _worker.host, _worker.pid, _build_age(_worker.seen)).where(
    _worker.ended.is_(None), ~_is_expired, _worker.worker != ME
)

#: The oldest transaction of another session or a prepared one, if it is older than the parameter `seconds` and may see
#: the tables: vacuum keeps all row versions since then, and each claim reads more of them. Sessions of other roles are
#: NULL here unless the role may see them.
OLDEST_TRANSACTION: sa.Executable = sa.text("""
SELECT pid, application_name, CAST(extract(epoch FROM clock_timestamp() - begun) AS DOUBLE PRECISION) AS age
FROM (
    SELECT pid, application_name, xact_start FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
        AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
    UNION ALL
    SELECT NULL, 'prepared transaction ' || gid, prepared FROM pg_prepared_xacts WHERE database = current_database()
) AS transactions (pid, application_name, begun)
WHERE begun < clock_timestamp() - :seconds * interval '1 second' ORDER BY begun LIMIT 1
""")

# --- claiming --------------------------------------------------------------------------------------------


@lru_cache(256)
def build_pending(constraints: CheckedConstraints, limit: int) -> sa.Select[Any]:
    """Select the next pending tasks."""
    found = sa.select(*TASK_COLUMNS).where(_task.status.is_(None), *build_expressions(constraints))
    return found.order_by(_task.priority).limit(as_number(limit))


#: The columns that a claim selects.
CLAIMED = (*(column.name for column in TASK_COLUMNS), "attempt")


@lru_cache(256)
def build_claim(
    constraints: CheckedConstraints, has_failed: bool | None, limit: int, *, waits: bool, continues: bool
) -> sa.Select[Any]:
    """Start the next pending tasks for a worker, and select them with their attempts.

    The attempt is NULL if the task already had a live attempt.

    Parameters
    ----------
    has_failed : bool or None
        See `TaskManager.claim_tasks`.
    waits : bool
        Whether to claim nothing while the lease of another worker has expired: its tasks may come before these.
    continues : bool
        Whether to search only after the priority that the parameter `last` gives.
    """
    seen = _touch.cte("seen")
    no_lease_has_expired = ~sa.exists(sa.select(_worker.worker).where(_is_expired, _worker.worker != ME))
    chosen = (
        sa.select(_task.priority)
        .where(
            _task.status.is_(None),
            *build_expressions(constraints),
            *build_has_failed(has_failed),
            *([no_lease_has_expired] if waits else []),
            *([_task.priority > sa.bindparam("last", type_=sa.BigInteger())] if continues else []),
        )
        .order_by(_task.priority)
        # As a literal, so that the planner can use it.
        .limit(as_number(limit))
        .with_for_update(skip_locked=True, of=todolist)
        .correlate(None)
        .scalar_subquery()
    )
    started = (
        sa.update(todolist)
        # As an array, so that the subquery runs once.
        .where(_task.priority == sa.func.any(sa.func.array(chosen)))
        .values(status=STARTED)
        .returning(*TASK_COLUMNS)
        .cte("started")
    )
    # A running task that another program has set to pending still belongs to its worker.
    begun = (
        insert_or(attempts)
        .from_select([_try.priority, _try.worker], sa.select(started.c.priority, ME))
        .on_conflict_do_nothing(index_elements=[_try.priority], index_where=IS_LIVE)
        .returning(_try.priority, _try.attempt)
        .cte("begun")
    )
    claimed = sa.select(*started.c, begun.c.attempt).join(begun, begun.c.priority == started.c.priority, isouter=True)
    return claimed.order_by(started.c.priority).add_cte(seen)


#: Live attempts of a worker: priority, attempt.
OF_WORKER: sa.Select[Any] = sa.select(_try.priority, _try.attempt).where(_try.worker == ME, IS_LIVE)

_earlier = attempts.alias("earlier")
_losses = (
    sa.select(sa.func.count())
    .where(
        _earlier.c.priority == _try.priority,
        _earlier.c.how == as_text(LOST),
        _earlier.c.attempt
        > sa.func.coalesce(
            sa.select(sa.func.max(_earlier.c.attempt))
            .where(
                _earlier.c.priority == _try.priority,
                _earlier.c.how != as_text(LOST),
                _earlier.c.how != as_text(RELEASED),
            )
            .correlate(attempts)
            .scalar_subquery(),
            as_number(0),
        ),
    )
    .correlate(attempts)
    .scalar_subquery()
)


def _return_tasks(priority: sa.ColumnElement[int], status: sa.ColumnElement[int]) -> sa.CTE:
    """Set the status of tasks whose attempts have ended, if they are STARTED.

    The CASE reads the status when the row is locked. `transitions.reset_tasks` sets a task that was SKIPPED while it
    ran to STARTED: that transaction may not have committed yet, and sees the attempt as live.
    """
    returned = sa.update(todolist).where(_task.priority == priority)
    returned = returned.values(status=sa.case((_is_started, status), else_=_task.status))
    return returned.returning(_task.priority, _task.status).cte("back")


def _build_rescue() -> sa.Select[Any]:
    expired = (
        sa.select(_worker.worker)
        .where(_is_expired, _worker.worker != ME)
        .with_for_update(skip_locked=True)
        .cte("expired")
    )
    dead = (
        sa.update(workers)
        .where(_worker.worker == expired.c.worker)
        .values(ended=NOW)
        .returning(_worker.worker, _worker.host, _worker.pid, _worker.seen)
        .cte("dead")
    )
    is_last = _losses + as_number(1) >= sa.bindparam("max_attempts", type_=sa.BigInteger())
    reason = sa.func.format(
        as_text("Worker %s (%s, process %s) was lost: its last heartbeat was at %s"),
        dead.c.worker,
        dead.c.host,
        dead.c.pid,
        sa.func.date_trunc(as_text("second"), dead.c.seen),
    )
    lost = (
        sa.update(attempts)
        .where(_try.worker == dead.c.worker, IS_LIVE)
        .values(
            ended=NOW,
            how=sa.case((is_last, as_text(GIVEN_UP)), else_=as_text(LOST)),
            kind=as_text(LOST),
            counts=sa.case((is_last, sa.true())),
            errors=sa.case(
                (
                    is_last,
                    sa.func.format(
                        as_text("%s. The workers of %s attempts in a row were lost"), reason, _losses + as_number(1)
                    ),
                ),
                else_=reason,
            ),
        )
        .returning(_try.priority, _try.worker, _try.begun, _try.how, _try.errors)
        .cte("lost")
    )
    is_given_up = lost.c.how == as_text(GIVEN_UP)
    back = _return_tasks(lost.c.priority, sa.case((is_given_up, _error), else_=_pending))
    failed = sa.select(lost.c.priority, as_text("error"), _build_age(lost.c.begun), as_number(0), lost.c.errors).join(
        back, back.c.priority == lost.c.priority
    )
    kept = insert_or(diagnostics).from_select(
        [_kept.priority, _kept.method_used, _kept.elaptime, _kept.stamp_resizes, _kept.errors],
        failed.where(is_given_up, back.c.status == _error),
    )
    kept = kept.on_conflict_do_update(index_elements=[_kept.priority], set_={"errors": kept.excluded.errors})
    number = sa.select(sa.func.count()).where(lost.c.worker == dead.c.worker).scalar_subquery()
    return sa.select(dead.c.worker, dead.c.host, dead.c.pid, number).add_cte(kept.cte("kept"))


#: Return the tasks of workers whose lease has expired to pending; a task whose workers were lost too often becomes an
#: ERROR. Selects these workers with the number of their tasks.
RESCUE: sa.Select[Any] = _build_rescue()

# --- releasing -------------------------------------------------------------------------------------------


def _build_release(which: sa.ColumnElement[bool], *, ends: bool) -> sa.Select[Any]:
    seen = (_touch.values(ended=NOW) if ends else _touch).returning(_worker.worker).cte("seen")
    ended = (
        sa.update(attempts)
        .where(_try.worker == seen.c.worker, IS_LIVE, which)
        .values(ended=NOW, how=as_text(RELEASED))
        .returning(_try.priority)
        .cte("ended")
    )
    return sa.select(_return_tasks(ended.c.priority, _pending).c.priority)


#: Return STARTED tasks of a worker to pending.
RELEASE: sa.Select[Any] = _build_release(_try.priority == sa.func.any(sa.bindparam("priorities")), ends=False)
#: Return all STARTED tasks of a worker to pending, and end the worker.
SIGN_OFF_AND_RELEASE: sa.Select[Any] = _build_release(sa.literal_column("true"), ends=True)


def build_has_tasks_elsewhere(constraints: CheckedConstraints) -> sa.Select[Any]:
    """Select whether other workers run tasks, or tasks are pending: a claim skips locked rows."""
    conditions = build_expressions(constraints)
    running = (
        sa.select(_try.priority)
        .join(todolist, _task.priority == _try.priority)
        .where(IS_LIVE, _try.worker != ME, _is_started, *conditions)
    )
    return sa.select(sa.or_(running.exists(), build_pending(constraints, 1).exists()))
