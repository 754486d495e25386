"""How tasks go from one status to another, with all that hangs on it.

Each function works inside a transaction of its caller, and never commits.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection

from photometry_tasks import statements
from photometry_tasks.errors import TaskFinishedError, UnknownTaskError
from photometry_tasks.results import Result
from photometry_tasks.skipping import Decision, Rival, Target, build_decision, build_neighbours
from photometry_tasks.status import STATUS

__all__ = [
    "release_tasks",
    "replay_result",
    "reset_all_tasks",
    "reset_tasks",
    "reset_tasks_with_status",
    "save_result",
    "start_task",
]

#: Priorities in one statement: a text of about 100 kB.
_CHUNK = 10_000


def start_task(connection: Connection, priority: int) -> None:
    """Mark a pending task as STARTED; one that is STARTED already stays so.

    Raises
    ------
    UnknownTaskError, TaskFinishedError
    """
    if connection.execute(statements.START_TASK, {"task": priority}).rowcount:
        return
    row = connection.execute(statements.STATUS_OF_TASK, {"task": priority}).first()
    if row is None:
        raise UnknownTaskError(priority=priority)
    names = {status.value: status.name for status in STATUS}
    raise TaskFinishedError(priority=priority, status=names.get(row.status, row.status))


def release_tasks(connection: Connection, priorities: Sequence[int]) -> None:
    """Return those of the tasks that are STARTED to pending."""
    for chunk in _chunks(priorities):
        connection.execute(statements.RELEASE_TASKS, {"priorities": chunk})


class Saved(NamedTuple):
    """What became of a result.

    Attributes
    ----------
    status : STATUS
        What the task has now.
    errors : str or None
        What was stored with it.
    has_freed : bool
        Whether other tasks went back to pending.
    target : tuple
        What the task is of: see `statements.TARGET_COLUMNS`.
    """

    status: STATUS
    errors: str | None
    has_freed: bool
    target: tuple[Any, ...]


def replay_result(connection: Connection, result: Result, target: tuple[Any, ...]) -> bool:
    """Store a result of a log again, if there still is such a task, and of the same target."""
    task = connection.execute(statements.TARGET_OF_TASK, {"task": result.priority}).first()
    if task is None or tuple(task) != target:
        return False
    save_result(connection, result)
    return True


def save_result(connection: Connection, result: Result) -> Saved:
    """Store a result, and skip whom the brightest star in the aperture covers.

    Raises
    ------
    UnknownTaskError
    """
    task = connection.execute(statements.TASK_OF_RESULT, {"task": result.priority}).first()
    if task is None:
        raise UnknownTaskError(priority=result.priority)
    has_freed = task.was_saved
    if task.was_saved:
        reset_tasks(connection, [result.priority])
    elif task.is_in_skips:
        has_freed = _free_stale_rivals(connection, result.priority)

    status, lightcurve, errors = result.status, result.lightcurve, list(result.errors)
    if lightcurve is not None:
        owner = connection.execute(statements.LIGHTCURVE_OWNER, {"lightcurve": lightcurve}).scalar()
        if owner is not None:
            errors.append(f"The light-curve path {lightcurve!r} belongs to the task with priority {owner} already")
            status, lightcurve = STATUS.ERROR, None

    decision = _decide(connection, result, task._asdict() | result.task)
    if decision.is_skipped:
        status = STATUS.SKIPPED
    if decision.error is not None:
        errors.append(decision.error)
    errors_text = "\n".join(errors) or None

    connection.execute(statements.SET_STATUS, {"task": result.priority, "new_status": status.value})
    connection.execute(
        statements.INSERT_DIAGNOSTICS,
        {"priority": result.priority, "lightcurve": lightcurve, "errors": errors_text, **result.diagnostics},
    )
    if task.is_in_skips and status is not STATUS.SKIPPED:
        # While it ran, a brighter star skipped it: that holds only if its own result says so too.
        connection.execute(statements.DELETE_SKIPS_OF, {"task": result.priority})
    _write_skips(connection, result.priority, decision, may_exist=task.is_in_skips)
    target = tuple(getattr(task, column.name) for column in statements.TARGET_COLUMNS)
    return Saved(status, errors_text, has_freed, target)


def _decide(connection: Connection, result: Result, task: dict[str, Any]) -> Decision:
    target = Target(result.priority, task["starid"], task["datasource"], task["tmag"])
    neighbours = build_neighbours(target, result.skip_targets)
    if neighbours is None:
        return Decision()
    where = {name: task[name] for name in ("sector", "camera", "ccd", "cadence")}
    rows = connection.execute(
        statements.RIVALS, {"starids": neighbours.starids, "datasources": neighbours.datasources, **where}
    )
    return build_decision(target, neighbours, [Rival(*row) for row in rows])


def _free_stale_rivals(connection: Connection, priority: int) -> bool:
    """Return rivals to pending that a lost result had skipped: TASOC reset an ERROR, and left its rivals SKIPPED."""
    rivals = connection.execute(statements.UNMEASURED_RIVALS, {"task": priority}).scalars().all()
    if not rivals:
        return False
    connection.execute(statements.DELETE_SKIP, [{"rival": rival, "task": priority} for rival in rivals])
    reset_tasks(connection, connection.execute(statements.NO_LONGER_SKIPPED, {"priorities": rivals}).scalars().all())
    return True


def _write_skips(connection: Connection, priority: int, decision: Decision, *, may_exist: bool) -> None:
    skips = [(rival, priority) for rival in decision.rivals]
    if decision.skipped_by is not None:
        skips.append((priority, decision.skipped_by))
    if skips and may_exist:
        # Written by the other side's result: no skip is written twice.
        existing = set(map(tuple, connection.execute(statements.SKIPS_OF_TASK, {"task": priority})))
        skips = [skip for skip in skips if skip not in existing]
    if decision.rivals:
        connection.execute(statements.SET_SKIPPED, {"priorities": decision.rivals})
    if skips:
        connection.execute(statements.INSERT_SKIP, [{"priority": a, "skipped_by": b} for a, b in skips])


def reset_tasks(connection: Connection, priorities: Iterable[int]) -> int:
    """Return tasks to pending, and with them those that only they had skipped, and so on to the end.

    Returns
    -------
    int
        How many tasks went back in all.
    """
    waiting, number = list(priorities), 0
    while waiting:
        freed: set[int] = set()
        for chunk in _chunks(waiting):
            chosen = {"priorities": chunk}
            freed.update(connection.execute(statements.SKIPPED_BY_ANY, chosen).scalars())
            connection.execute(statements.DELETE_SKIPS, chosen)
            connection.execute(statements.DELETE_DIAGNOSTICS, chosen)
            connection.execute(statements.SET_PENDING, chosen)
        number += len(waiting)
        waiting = [
            priority
            for chunk in _chunks(sorted(freed))
            for priority in connection.execute(statements.NO_LONGER_SKIPPED, {"priorities": chunk}).scalars()
        ]
    return number


def reset_tasks_with_status(
    connection: Connection, statuses: Iterable[STATUS], conditions: Iterable[ColumnElement[bool]]
) -> int:
    """Return the tasks in one of these states to pending, as `reset_tasks` does."""
    chosen = connection.execute(statements.tasks_with_status(statuses, conditions)).scalars().all()
    return reset_tasks(connection, chosen)


def reset_all_tasks(connection: Connection) -> None:
    """Return every task to pending, and empty the tables of results."""
    for statement in statements.RESET_EVERYTHING:
        connection.execute(statement)


def _chunks(priorities: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(priorities), _CHUNK):
        yield priorities[start : start + _CHUNK]
