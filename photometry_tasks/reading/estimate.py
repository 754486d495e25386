"""Read what an estimate of the time left needs: run times, tasks that are left, and how many ran at once."""

from typing import Any

from sqlalchemy import Connection, case, func, or_, select

from photometry_tasks.models import diagnostics, todolist
from photometry_tasks.progress.status_fields import read_minutes
from photometry_tasks.reading.rows import find_stored
from photometry_tasks.rules.estimate import RunTimes, build_estimate
from photometry_tasks.sql.magnitudes import HALF, IS_IN_RANGE
from photometry_tasks.status import STATUS
from photometry_tasks.storage.open import OpenList

#: Seconds before the last result: so many tasks run at once as did then.
_LATELY = 600

#: Seconds. Longer run times are no times.
_LONGEST = 1e9

_task, _result = todolist.c, diagnostics.c
_half = case((IS_IN_RANGE, HALF), else_=None)
_source = case((_task.datasource == "ffi", "ffi"), (_task.datasource == "tpf", "tpf"), else_="secondary")
_LEFT = (
    select(_half, _source, func.count())
    .where(or_(_task.status.is_(None), _task.status == STATUS.STARTED.value))
    .group_by(_half, _source)
)
_RUN_TIMES = (
    select(_half, _source, func.count(), func.sum(_result.elaptime), func.sum(_result.elaptime * _result.elaptime))
    .join(diagnostics, _result.priority == _task.priority)
    .where(_result.elaptime.between(0, _LONGEST))
    .group_by(_half, _source)
)


def read_estimate(opened: OpenList) -> dict[str, Any]:
    """Return the time that the rest of a list takes, as `TodoList.estimate` describes it."""
    connection = opened.connection
    left = {(half, source): number for half, source, number in connection.execute(_LEFT)}
    run_times = {}
    if _result.elaptime in find_stored(opened):
        run_times = {(half, source): RunTimes(*times) for half, source, *times in connection.execute(_RUN_TIMES)}
    return build_estimate(run_times, left, _measure_at_once(connection))


def _measure_at_once(connection: Connection) -> float | None:
    """Return how many tasks ran at once in the ten minutes before the last result, or None."""
    minutes = read_minutes(connection)
    lately = [row for row in minutes if row.minute > minutes[-1].minute - _LATELY]
    if not lately:
        return None
    return sum(row.elaptime for row in lately) / (lately[-1].minute - lately[0].minute + 60) or None
