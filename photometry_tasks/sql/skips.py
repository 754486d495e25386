"""Compare the skips of a list with the rule: TASOC and older releases leave states that the rule would not give."""

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from photometry_tasks.models import diagnostics, own_skips, photometry_skipped, todolist
from photometry_tasks.rules.skipping import Decision, Rival, Said, get_faintness, settle
from photometry_tasks.status import COVERS_NONE, FAILED, STATUS

_task, _skip = todolist.c, photometry_skipped.c
_SKIPPED = STATUS.SKIPPED.value
_COVERS_NONE = [status.value for status in COVERS_NONE]
_FAILED = [status.value for status in FAILED]

#: The tasks of all skips, and all SKIPPED tasks.
_TASKS = sa.select(
    _task.priority,
    _task.tmag,
    _task.status,
    sa.exists().where(diagnostics.c.priority == _task.priority).label("has_result"),
).where(
    sa.or_(
        _task.status == _SKIPPED,
        _task.priority.in_(sa.select(_skip.priority)),
        _task.priority.in_(sa.select(_skip.skipped_by)),
    )
)
_SKIPS = sa.select(_skip.priority, _skip.skipped_by).distinct()
_OWN_SKIPS = sa.select(own_skips.c.priority, own_skips.c.skipped_by)


class Contradictions(NamedTuple):
    """Tasks with another state than the rule gives.

    Attributes
    ----------
    uncovered : set of int
        SKIPPED tasks that no task covers: they are never measured.
    covered : set of int
        Tasks that another task covers, and that are not SKIPPED.
    failed : dict
        ERROR and ABORT tasks that nevertheless cover others, each with the `uncovered` tasks that it covers.
    unmarked : dict
        Tasks whose own results must have stated their skips, since the other task has no result, each with that task;
        `photometry_tasks_own_skips` does not hold these skips.
    """

    uncovered: set[int]
    covered: set[int]
    failed: dict[int, set[int]]
    unmarked: dict[int, int]


def find_contradictions(connection: Connection) -> Contradictions:
    """Return the tasks with another state than the results and the skips of a list give.

    If the task that skips another has no result, the skip is that of the other's own result.
    """
    tasks = {row.priority: row for row in connection.execute(_TASKS)}
    own: dict[int, int] = {}
    if sa.inspect(connection).has_table(own_skips.name):
        own.update(map(tuple, connection.execute(_OWN_SKIPS)))
    unmarked: dict[int, int] = {}
    covers: dict[int, list[int]] = {}
    results: dict[int, Said] = {}
    for priority, cover in connection.execute(_SKIPS):
        if priority not in tasks or cover not in tasks:
            continue  # `check` names it as a reference to a missing row
        if priority not in own and tasks[priority].has_result and not tasks[cover].has_result:
            own[priority] = unmarked[priority] = cover
        if own.get(priority) == cover:
            results[priority] = Said(_SKIPPED, Decision(is_skipped=True, skipped_by=cover))
        else:
            covers.setdefault(cover, []).append(priority)
    skipped = {rival for rivals in covers.values() for rival in rivals}
    for priority, row in tasks.items():
        if priority in results or not row.has_result or row.status in (None, STATUS.STARTED.value):
            continue
        if row.status == _SKIPPED:
            if priority not in skipped:  # its own result says so, without naming another task
                results[priority] = Said(_SKIPPED, Decision(is_skipped=True))
            continue
        rivals = [] if row.status in _COVERS_NONE else covers.get(priority, [])
        results[priority] = Said(row.status, Decision(rivals=tuple(Rival(r, tasks[r].tmag, None) for r in rivals)))
    by_brightness = sorted(tasks, key=lambda priority: get_faintness(priority, tasks[priority].tmag))
    statuses = settle(by_brightness, results).statuses
    uncovered = {p for p, row in tasks.items() if row.status == _SKIPPED and statuses[p] != _SKIPPED}
    covered = {p for p, row in tasks.items() if row.status != _SKIPPED and statuses[p] == _SKIPPED}
    failed = {p: uncovered.intersection(covers[p]) for p in covers if tasks[p].status in _FAILED}
    return Contradictions(uncovered, covered, {p: stars for p, stars in failed.items() if stars}, unmarked)
