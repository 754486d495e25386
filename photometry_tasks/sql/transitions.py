"""Change the status of tasks, and with it their diagnostics and skips.

Each function runs in a transaction of its caller, and never commits.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select

from photometry_tasks.errors import TaskFinishedError, UnknownTaskError
from photometry_tasks.models import todolist
from photometry_tasks.rules.results import Result
from photometry_tasks.rules.skipping import Decision, Rival, Target, build_decision, build_neighbours
from photometry_tasks.sql import statements
from photometry_tasks.sql.counts import name_counts
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.status import STATUS

#: Priorities per statement: about 100 kB of SQL.
_CHUNK = 10_000

_NO_SKIPS = Decision()


def start_tasks(transaction: Transaction, priorities: Sequence[int]) -> None:
    """Mark pending tasks as STARTED; STARTED tasks stay STARTED.

    Raises
    ------
    UnknownTaskError, TaskFinishedError
    """
    started = transaction.executemany(statements.START_TASK, [{"task": priority} for priority in priorities])
    transaction.count_move(None, STATUS.STARTED.value, started)
    if started == len(priorities):
        return
    names = {status.value: status.name for status in STATUS}
    for priority in priorities:
        row = transaction.fetch_one(statements.STATUS_OF_TASK, {"task": priority})
        if row is None:
            raise UnknownTaskError(priority=priority)
        (status,) = row
        if status != STATUS.STARTED.value:
            raise TaskFinishedError(priority=priority, status=names.get(status, status))


def release_tasks(transaction: Transaction, priorities: Sequence[int]) -> None:
    """Return the STARTED tasks among the given ones to pending."""
    released = transaction.executemany(statements.RELEASE_TASK, [{"task": priority} for priority in priorities])
    transaction.count_move(STATUS.STARTED.value, None, released)
    if released:
        transaction.count_reset(priorities)


# --- saving ----------------------------------------------------------------------------------------------


class Saved(NamedTuple):
    """The outcome of saving a result.

    Attributes
    ----------
    status : STATUS
        The new status of the task.
    errors : str or None
        The stored errors.
    target : dict
        The target of the task: `statements.TARGET_COLUMNS` by name, and possibly other columns.
    """

    status: STATUS
    errors: str | None
    target: dict[str, Any]


class _Task(NamedTuple):
    """The task of a result: the columns of `statements.TASK_OF_RESULT`."""

    starid: int
    datasource: str
    sector: int
    camera: int
    ccd: int
    cadence: int
    tmag: float | None
    status: int | None
    was_saved: bool
    is_in_skips: bool
    lightcurve_owner: int | None

    @property
    def target(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in statements.TARGET_NAMES}


def replay_result(transaction: Transaction, result: Result, target: dict[str, Any]) -> bool:
    """Store a logged result again if its task still exists and has the same target; return whether it did."""
    found = transaction.fetch_one(statements.TARGET_OF_TASK, {"task": result.priority})
    if found != tuple(map(target.get, statements.TARGET_NAMES)):
        return False
    save_results(transaction, [result])
    return True


def save_results(transaction: Transaction, results: Iterable[Result]) -> list[Saved]:
    """Store results in their order, and skip the tasks that the brightest star in each aperture covers.

    Raises
    ------
    UnknownTaskError
    """
    saved: list[Saved] = []
    waiting: dict[int, Result] = {}
    for result in results:
        if result.skip_targets or result.priority in waiting or None in map(result.target.get, statements.TARGET_NAMES):
            saved += _save_together(transaction, waiting.values())
            saved.append(_save(transaction, result))
            waiting.clear()
        else:
            waiting[result.priority] = result
    return saved + _save_together(transaction, waiting.values())


def _save_together(transaction: Transaction, results: Collection[Result]) -> list[Saved]:
    """Store results that concern only their own tasks in one batch; if any concerns another task, one by one."""
    together: list[Saved] = []
    statuses: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for result in results:
        together.append(Saved(result.status, result.diagnostics["errors"], result.target))
        statuses.append({**result.target, "priority": result.priority, "new_status": result.status.value})
        rows.append(result.diagnostics)

    def write() -> bool:
        # The conditions of SAVE_STARTED and the constraints of diagnostics cover all that _save looks up.
        return (
            transaction.executemany(statements.SAVE_STARTED, statuses) == len(rows)
            and transaction.executemany(statements.INSERT_DIAGNOSTICS, rows) == len(rows)
        )  # fmt: skip

    if len(rows) < 2 or not transaction.savepoint(write):
        return [_save(transaction, result) for result in results]
    for status, number in Counter(saved.status for saved in together).items():
        transaction.count_move(STATUS.STARTED.value, status.value, number)
    return together


def _save(transaction: Transaction, result: Result) -> Saved:
    task = _look_up(transaction, result)
    if task.was_saved:
        reset_tasks(transaction, [result.priority])
        task = _look_up(transaction, result)
    elif task.is_in_skips:
        _free_stale_rivals(transaction, result.priority)
        task = _look_up(transaction, result)
    status, row, errors = result.status, dict(result.diagnostics), list(result.errors)
    if task.lightcurve_owner is not None:
        path, owner = row["lightcurve"], task.lightcurve_owner
        errors.append(f"The light-curve path {path!r} already belongs to task {owner}")
        status, row["lightcurve"] = STATUS.ERROR, None
    decision = _decide(transaction, result, task) if result.skip_targets else _NO_SKIPS
    if decision.is_skipped:
        status = STATUS.SKIPPED
    if decision.error is not None:
        errors.append(decision.error)
    row["errors"] = "\n".join(errors) or None
    transaction.count_move(task.status, status.value)
    transaction.execute(statements.SET_STATUS, {"task": result.priority, "new_status": status.value})
    transaction.execute(statements.INSERT_DIAGNOSTICS, row)
    if task.is_in_skips and status is not STATUS.SKIPPED:
        # A brighter star's result skipped the task while it ran. The skip stays only if the task's own result agrees.
        transaction.execute(statements.DELETE_SKIPS_OF, {"task": result.priority})
    if decision is not _NO_SKIPS:
        _write_skips(transaction, result.priority, decision, may_exist=task.is_in_skips)
    return Saved(status, row["errors"], task.target)


def _look_up(transaction: Transaction, result: Result) -> _Task:
    asked = {"task": result.priority, "lightcurve": result.diagnostics["lightcurve"]}
    row = transaction.fetch_one(statements.TASK_OF_RESULT, asked)
    if row is None:
        raise UnknownTaskError(priority=result.priority)
    return _Task._make(row)


def _free_stale_rivals(transaction: Transaction, priority: int) -> None:
    """Return to pending the rivals that a lost result skipped: TASOC resets an ERROR but leaves its rivals SKIPPED."""
    rivals = [rival for (rival,) in transaction.fetch_all(statements.UNMEASURED_RIVALS, {"task": priority})]
    transaction.executemany(statements.DELETE_SKIP, [{"rival": rival, "task": priority} for rival in rivals])
    reset_tasks(transaction, _no_longer_skipped(transaction, rivals))


def _decide(transaction: Transaction, result: Result, task: _Task) -> Decision:
    """Look up the rivals, and apply the rule. Values of the result take precedence over those of the table."""
    said = {name: getattr(task, name) if own is None else own for name, own in result.target.items()}
    target = Target(result.priority, said["starid"], said["datasource"], said["tmag"])
    neighbours = build_neighbours(target, result.skip_targets)
    if neighbours is None:
        return Decision()
    rivals = [
        Rival._make(row)
        for starid in neighbours.starids
        for datasource in neighbours.datasources
        for row in transaction.fetch_all(statements.RIVALS, {**said, "starid": starid, "datasource": datasource})
    ]
    return build_decision(target, neighbours, rivals)


def _write_skips(transaction: Transaction, priority: int, decision: Decision, *, may_exist: bool) -> None:
    skips = [(rival.priority, priority) for rival in decision.rivals]
    if decision.skipped_by is not None:
        skips.append((priority, decision.skipped_by))
    if skips and may_exist:
        # The rival's result may have written the same skip: no skip is written twice.
        existing = set(transaction.fetch_all(statements.SKIPS_OF_TASK, {"task": priority}))
        skips = [skip for skip in skips if skip not in existing]
    skipped = STATUS.SKIPPED.value
    for rival in decision.rivals:
        transaction.count_move(rival.status, skipped)
        transaction.execute(statements.SET_STATUS, {"task": rival.priority, "new_status": skipped})
    transaction.executemany(statements.INSERT_SKIP, [{"priority": a, "skipped_by": b} for a, b in skips])


# --- back to pending -------------------------------------------------------------------------------------


def reset_tasks(transaction: Transaction, priorities: Iterable[int]) -> int:
    """Return tasks to pending, and then, along each chain of skips, the tasks that no task skips any more.

    Returns
    -------
    int
        The number of all tasks that returned to pending.
    """
    execute = transaction.connection.execute
    waiting, number = list(priorities), 0
    while waiting:
        freed: set[int] = set()
        for chunk in _chunks(waiting):
            chosen = {"priorities": chunk}
            _lock(transaction, chunk)
            freed.update(execute(statements.SKIPPED_BY_ANY, chosen).scalars())
            for status, count in execute(statements.COUNT_CHOSEN, chosen):
                transaction.count_move(status, None, count)
            execute(statements.DELETE_SKIPS, chosen)
            execute(statements.DELETE_DIAGNOSTICS, chosen)
            is_shared = transaction.is_shared
            execute(statements.SET_PENDING_OR_STARTED if is_shared else statements.SET_PENDING, chosen)
        transaction.count_reset(waiting)
        number += len(waiting)
        waiting = _no_longer_skipped(transaction, sorted(freed))
    return number


def _no_longer_skipped(transaction: Transaction, priorities: Sequence[int]) -> list[int]:
    """Return the SKIPPED tasks among the given ones that no task skips any more."""
    found: list[int] = []
    for chunk in _chunks(priorities):
        _lock(transaction, chunk)
        found += transaction.connection.execute(statements.NO_LONGER_SKIPPED, {"priorities": chunk}).scalars()
    return found


def _lock(transaction: Transaction, priorities: Sequence[int]) -> None:
    """Keep other managers from changing tasks until the transaction ends; later reads stay valid until then."""
    if transaction.is_shared:
        transaction.connection.execute(statements.LOCK_TASKS, {"priorities": priorities})


def reset_interrupted_tasks(transaction: Transaction, conditions: Sequence[ColumnElement[bool]]) -> dict[str, int]:
    """Call `reset_chosen_tasks` for interrupted and failed tasks."""
    return reset_chosen_tasks(transaction, statements.build_interrupted_tasks(conditions))


def reset_chosen_tasks(transaction: Transaction, chosen: Select[Any]) -> dict[str, int]:
    """Return to pending the tasks whose priorities a statement selects, as `reset_tasks` does, unless they run.

    Returns
    -------
    dict
        The numbers of all tasks that returned to pending, by the name of their former status.
    """
    execute = transaction.connection.execute
    if transaction.is_shared:
        chosen = statements.build_unowned(chosen)
        still: list[int] = []
        for chunk in _chunks(execute(chosen.order_by(todolist.c.priority)).scalars().all()):
            _lock(transaction, chunk)  # then select again: other managers may have changed these tasks
            still += execute(chosen.where(todolist.c.priority.in_(chunk))).scalars()
        reset_tasks(transaction, still)
    else:
        reset_tasks(transaction, execute(chosen).scalars().all())
    counts = name_counts({status: -number for status, number in transaction.moved.items()})
    return {name: number for name, number in counts.items() if number > 0}


def reset_all_tasks(transaction: Transaction) -> None:
    """Return every task to pending, and empty the tables of results; the tasks are not counted."""
    for statement in statements.RESET_EVERYTHING:
        transaction.connection.execute(statement)


def _chunks(priorities: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(priorities), _CHUNK):
        yield priorities[start : start + _CHUNK]
