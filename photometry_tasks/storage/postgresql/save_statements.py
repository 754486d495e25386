"""The statements that save results in a list that many managers share: see `claim_statements`. Pure."""

import math
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from msgspec.json import encode

from photometry_tasks.models import attempts, diagnostics, extra, photometry_skipped, todolist, workers
from photometry_tasks.rules.results import Result, build_diagnostics, encode_extra
from photometry_tasks.sql.history import build_end
from photometry_tasks.sql.transitions import build_saved
from photometry_tasks.status import RELEASED
from photometry_tasks.storage.postgresql.claim_statements import (
    HEARTBEAT,
    IS_LIVE,
    ME,
    NOW,
    STARTED,
    as_number,
    as_text,
)

_task, _skip, _try, _worker, _kept = todolist.c, photometry_skipped.c, attempts.c, workers.c, diagnostics.c

_RESULT_COLUMNS = [*diagnostics.columns]

#: The columns of an attempt that the outcome of its result gives.
_END = ("how", "errors", "kind", "counts")

#: Results as one parameter, a JSON array (`encode_results`): the same statement saves one result or a thousand.
_rows = sa.func.json_to_recordset(sa.cast(sa.bindparam("rows", type_=sa.Text()), sa.JSON)).table_valued(
    sa.column("attempt", sa.BigInteger()),
    sa.column("status", sa.BigInteger()),
    sa.column("how", sa.Text()),
    *(sa.column(column.name, column.type) for column in (_try.kind, _try.peak_memory, _try.counts, extra.c.extra)),
    *(sa.column(kept.name, kept.type) for kept in _RESULT_COLUMNS),
    name="result",
)


def _build_save(*, all_or_none: bool) -> sa.Select[Any]:
    seen = HEARTBEAT.cte("seen")
    rows = _rows.render_derived(with_types=True)

    # In this form the planner looks the row up in an index, with any statistics.
    def none_in(table: Any, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
        return (
            sa.select(sa.literal_column("1"))
            .select_from(table)
            .where(*conditions)
            .limit(as_number(1))
            .scalar_subquery()
            .is_(None)
        )

    # Lateral: each row is looked up by its key and locked, and the conditions see its latest version.
    is_ours = sa.or_(_try.attempt == rows.c.attempt, sa.and_(rows.c.attempt.is_(None), _try.worker == seen.c.worker))
    live = sa.select(_try.attempt).where(_try.priority == rows.c.priority, IS_LIVE, is_ours).with_for_update()
    task = sa.select(_task.status).where(_task.priority == rows.c.priority).with_for_update()
    live_attempt, locked_task = live.lateral("live_attempt"), task.lateral("locked_task")
    true = sa.literal_column("true", sa.Boolean())
    accepted = (
        sa.select(*rows.c, live_attempt.c.attempt.label("accepted"))
        .select_from(rows)
        .join(seen, true)
        .join(live_attempt, true)
        .join(locked_task, true)
        .where(
            # No index holds this sum. With an index on the status, the planner would read all running tasks for each
            # row.
            locked_task.c.status + as_number(0) == STARTED,
            none_in(photometry_skipped, _skip.priority == rows.c.priority),
            none_in(photometry_skipped, _skip.skipped_by == rows.c.priority),
            none_in(diagnostics, _kept.priority == rows.c.priority),
            none_in(diagnostics, _kept.lightcurve == rows.c.lightcurve),
        )
        .cte("accepted")
    )
    if all_or_none:
        number = sa.select(sa.func.count()).select_from(accepted).scalar_subquery()
        accepted = sa.select(accepted).where(number == sa.bindparam("number", type_=sa.BigInteger())).cte("complete")
    ended = (
        sa.update(attempts)
        .where(_try.priority == accepted.c.priority, _try.attempt == accepted.c.accepted)
        .values(ended=NOW, **{name: accepted.c[name] for name in (*_END, "peak_memory")})
        .cte("ended")
    )
    saved = (
        sa.update(todolist).where(_task.priority == accepted.c.priority).values(status=accepted.c.status).cte("saved")
    )
    kept = sa.insert(diagnostics).from_select(
        [kept.name for kept in _RESULT_COLUMNS], sa.select(*(accepted.c[kept.name] for kept in _RESULT_COLUMNS))
    )
    own = sa.insert(extra).from_select(
        [extra.c.priority, extra.c.extra],
        sa.select(accepted.c.priority, accepted.c.extra).where(accepted.c.extra.is_not(None)),
    )
    return sa.select(accepted.c.priority).add_cte(ended, saved, kept.cte("kept"), own.cte("own"))


#: Save the results of live attempts at STARTED tasks that are in no skip, as nearly all results are. Selects the
#: priorities of the saved results.
SAVE: sa.Select[Any] = _build_save(all_or_none=False)
#: The same, but save no result unless the number of such results is the parameter `number`.
SAVE_ALL: sa.Select[Any] = _build_save(all_or_none=True)

#: Live attempts of tasks, with their workers.
LIVE: sa.Select[Any] = (
    sa.select(_try.priority, _try.attempt, _try.worker, _worker.host, _worker.pid, _worker.lease)
    .join(workers, _worker.worker == _try.worker)
    .where(_try.priority == sa.func.any(sa.bindparam("priorities")), IS_LIVE)
)
#: The parameters of the next statements that are columns have a name of their own: SQLAlchemy reserves the columns'.
_end = {name: sa.bindparam(f"new_{name}", type_=_try[name].type) for name in _END}
END_ATTEMPT: sa.Update = (
    sa.update(attempts)
    .where(_try.priority == sa.bindparam("task"), _try.attempt == sa.bindparam("number"), IS_LIVE)
    .values(ended=NOW, peak_memory=sa.bindparam("memory"), **_end)
)
END_ALL_ATTEMPTS: sa.Update = sa.update(attempts).where(IS_LIVE).values(ended=NOW, how=as_text(RELEASED))
DESCRIBE_END: sa.Update = (
    sa.update(attempts)
    .where(_try.priority == sa.bindparam("task"), _try.attempt == sa.bindparam("number"))
    .values(_end)
)
#: Parameters: those of `DESCRIBE_END`, priority, worker, memory, elaptime. Adds an attempt that was not begun.
ADD_ATTEMPT: sa.Insert = sa.insert(attempts).values(
    priority=sa.bindparam("task"),
    worker=ME,
    begun=NOW - sa.bindparam("elaptime") * sa.literal_column("interval '1 second'", sa.Interval()),
    ended=NOW,
    peak_memory=sa.bindparam("memory"),
    **_end,
)
#: The last attempt at a task: its worker, and how it ended.
LAST_ATTEMPT: sa.Select[Any] = (
    sa.select(_try.worker, *(_try[name] for name in _END))
    .where(_try.priority == sa.bindparam("task"))
    .order_by(_try.attempt.desc())
    .limit(as_number(1))
)
#: How an attempt ended: the outcome of a save whose answer was lost.
END_OF_ATTEMPT: sa.Select[Any] = sa.select(_try.how, _try.errors, _try.kind).where(
    _try.priority == sa.bindparam("task"), _try.attempt == sa.bindparam("number")
)
#: Parameters: priorities, worker.
BEGIN_ATTEMPTS: sa.Insert = (
    sa.insert(attempts)
    .from_select(
        [_try.priority, _try.worker],
        sa.select(
            sa.func.unnest(sa.cast(sa.bindparam("priorities"), sa.ARRAY(sa.BigInteger))), sa.cast(ME, sa.BigInteger)
        ),
    )
    .returning(_try.priority, _try.attempt)
)
#: Locks the tasks with given priorities or star ids, always in the same order.
LOCK_FIELD: sa.Select[Any] = (
    sa.select(_task.priority)
    .where(
        sa.or_(
            _task.priority == sa.func.any(sa.bindparam("priorities")),
            _task.starid == sa.func.any(sa.bindparam("starids")),
        )
    )
    .order_by(_task.priority)
    .with_for_update()
)


_INFINITE = (math.inf, -math.inf)


def encode_results(results: Iterable[Result]) -> str:
    """Return results as the parameter `rows` of `SAVE`."""
    rows = []
    for result in results:
        extra = result.details.extra
        own = {"attempt": result.attempt, "status": result.status.value, "extra": extra and encode_extra(extra)}
        row = {**own, **build_end(build_saved(result)), "peak_memory": result.peak_memory, **build_diagnostics(result)}
        # JSON has no infinity; PostgreSQL reads it from a text.
        rows.append({name: str(x) if x in _INFINITE else x for name, x in row.items() if x is not None})
    return encode(rows).decode()
