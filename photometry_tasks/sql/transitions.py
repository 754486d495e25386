"""Change the status of tasks, and with it their diagnostics and skips.

Each function runs in a transaction of its caller, and never commits.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import asdict
from sqlalchemy import ColumnElement, Delete, Select, Table, delete

from photometry_tasks.errors import TaskCoveredError, TaskFinishedError, UnknownTaskError
from photometry_tasks.models import attempts, todolist, workers
from photometry_tasks.rules.results import (
    INVALID_RESULT,
    Result,
    TaskTarget,
    build_diagnostics,
    encode_extra,
    join_errors,
)
from photometry_tasks.rules.skipping import Decision, Rival, Target, build_decision, build_neighbours
from photometry_tasks.sql import statements
from photometry_tasks.sql.execution import Transaction, iter_chunks
from photometry_tasks.sql.skips import find_contradictions
from photometry_tasks.sql.undo import Kept
from photometry_tasks.status import FAILED, STATUS, name_counts

_NO_SKIPS = Decision()

# A member of an enum and its value take longer to look up than a name of the module.
_STARTED, _SKIPPED = STATUS.STARTED.value, STATUS.SKIPPED.value


def start_tasks(transaction: Transaction, priorities: Sequence[int]) -> None:
    """Mark pending tasks as STARTED; STARTED tasks stay STARTED.

    Raises
    ------
    UnknownTaskError, TaskFinishedError, TaskCoveredError
    """
    started = transaction.executemany(statements.START_TASK, [{"task": priority} for priority in priorities])
    transaction.count_move(None, _STARTED, started)
    transaction.left.extend(priorities)
    if started == len(priorities):
        return
    names = {status.value: status.name for status in STATUS}
    for priority in priorities:
        row = transaction.fetch_one(statements.STATUS_OF_TASK, {"task": priority})
        if row is None:
            raise UnknownTaskError(priority=priority)
        (status,) = row
        if status == _SKIPPED and (cover := transaction.fetch_one(statements.COVERS_OF_TASK, {"task": priority})):
            raise TaskCoveredError(priority=priority, cover=cover[0])
        if status != _STARTED:
            raise TaskFinishedError(priority=priority, status=names.get(status, status))


def release_tasks(transaction: Transaction, priorities: Sequence[int]) -> None:
    """Return the STARTED tasks among the given ones to pending."""
    released = transaction.executemany(statements.RELEASE_TASK, [{"task": priority} for priority in priorities])
    transaction.count_move(_STARTED, None, released)
    if released:
        transaction.count_reset(priorities)


def find_skipped(transaction: Transaction, priorities: Collection[int]) -> list[int]:
    """Return those of the given tasks that are SKIPPED."""
    found: list[int] = []
    for chunk in iter_chunks(priorities):
        found += transaction.connection.execute(statements.SKIPPED_AMONG, {"priorities": chunk}).scalars()
    return found


# --- saving ----------------------------------------------------------------------------------------------


class Saved(NamedTuple):
    """The outcome of saving a result.

    Attributes
    ----------
    status : STATUS
        The new status of the task.
    errors : str or None
        The stored errors.
    target : TaskTarget or None
        The target of the task; None if the result names it.
    kind : str or None
        Kind of the failure.
    """

    status: STATUS
    errors: str | None
    target: TaskTarget | None
    kind: str | None

    @property
    def counts(self) -> bool | None:
        """Whether the failure counts for the limit of retries; None if the task did not fail."""
        return True if self.status in FAILED else None


def build_saved(result: Result) -> Saved:
    """Return the outcome of a result that names its target, and affects no other task."""
    details = result.details
    return Saved(result.status, join_errors(details.errors), None, details.kind)


def _build_update(result: Result) -> dict[str, Any]:
    """Return the parameters of `statements.SAVE_STARTED`."""
    return {
        "priority": result.priority,
        "new_status": result.status._value_,
        "starid": result.starid,
        "datasource": result.datasource,
        "sector": result.sector,
        "camera": result.camera,
        "ccd": result.ccd,
        "cadence": result.cadence,
    }


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
    is_covered: bool
    has_void_skips: bool
    has_covered: bool
    lightcurve_owner: int | None

    @property
    def target(self) -> TaskTarget:
        return TaskTarget(self.starid, self.datasource, self.sector, self.camera, self.ccd, self.cadence)


def replay_result(transaction: Transaction, result: Result, target: TaskTarget | None) -> Saved | None:
    """Store a logged result again if its task still exists and has the same target; return None if it does not."""
    found = transaction.fetch_one(statements.TARGET_OF_TASK, {"task": result.priority})
    if found is None or TaskTarget(*found) != (target or result.target):
        return None
    (saved,) = save_results(transaction, [result])
    return saved


def save_results(transaction: Transaction, results: Sequence[Result]) -> list[Saved]:
    """Store results, and skip the tasks that the brightest star in each aperture covers.

    The statuses and the skips are then those of `rules.skipping.settle`, whatever the order of the results.

    Raises
    ------
    UnknownTaskError
    """
    if len(results) == 1:
        return [_save_simply(transaction, results[0]) or _save(transaction, results[0])]
    saved: list[Saved] = []
    waiting: dict[int, Result] = {}
    for result in results:
        if result.details.skip_targets or result.priority in waiting or result.lacks_target:
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
        together.append(build_saved(result))
        statuses.append(_build_update(result))
        rows.append(build_diagnostics(result))

    def write() -> bool:
        # The conditions of this statement and the constraints of diagnostics cover all that _save looks up.
        return (
            transaction.executemany(statements.SAVE_STARTED, statuses) == len(rows)
            and transaction.executemany(statements.INSERT_DIAGNOSTICS, rows) == len(rows)
            and transaction.executemany(statements.INSERT_EXTRA, extras) == len(extras)
        )

    extras = [_build_extra(result) for result in results if result.details.extra is not None]
    if len(rows) < 2 or not transaction.savepoint(write):
        return [_save(transaction, result) for result in results]
    for status, number in Counter(row["new_status"] for row in statuses).items():
        transaction.count_move(_STARTED, status, number)
    return together


def _save_simply(transaction: Transaction, result: Result) -> Saved | None:
    """Store a result that concerns only its own task; return None, without change, if it concerns another task."""
    if transaction.is_shared or result.details.skip_targets or result.lacks_target:
        return None
    update = _build_update(result)
    if not transaction.execute(statements.SAVE_STARTED, update):
        return None
    try:
        transaction.execute(statements.INSERT_DIAGNOSTICS, build_diagnostics(result))
    except transaction.integrity_error:  # of these rows; SQLite has kept all others
        transaction.execute(statements.SET_STATUS, {"task": result.priority, "new_status": _STARTED})
        return None
    if result.details.extra is not None:
        transaction.execute(statements.INSERT_EXTRA, _build_extra(result))
    transaction.count_move(_STARTED, update["new_status"])
    return build_saved(result)


def _build_extra(result: Result) -> dict[str, Any]:
    return {"priority": result.priority, "extra": encode_extra(result.details.extra)}


def _save(transaction: Transaction, result: Result) -> Saved:
    task = _look_up(transaction, result)
    if task.was_saved or task.has_covered or task.has_void_skips:
        # TASOC keeps skips that no result states any more: those by this task, and those of it.
        reset_tasks(transaction, [result.priority])
        task = _look_up(transaction, result)
    details = result.details
    status, kind, row, errors = result.status, details.kind, build_diagnostics(result), list(details.errors)
    if task.lightcurve_owner is not None:
        path, owner = row["lightcurve"], task.lightcurve_owner
        errors.append(f"The light-curve path {path!r} already belongs to task {owner}")
        status, kind, row["lightcurve"] = STATUS.ERROR, INVALID_RESULT, None
    decision = _NO_SKIPS
    if details.skip_targets and not task.is_covered:
        decision = _decide(transaction, result, task, status)
    if decision.is_skipped or task.is_covered:
        status = STATUS.SKIPPED
    if decision.error is not None:
        errors.append(decision.error)
    row["errors"] = join_errors(errors)
    transaction.count_move(task.status, status.value)
    transaction.left.append(result.priority)
    transaction.execute(statements.SET_STATUS, {"task": result.priority, "new_status": status.value})
    transaction.execute(statements.INSERT_DIAGNOSTICS, row)
    if details.extra is not None:
        transaction.execute(statements.INSERT_EXTRA, _build_extra(result))
    if decision.skipped_by is not None:
        skip = {"priority": result.priority, "skipped_by": decision.skipped_by}
        transaction.execute(statements.INSERT_SKIP, skip)
        transaction.execute(statements.INSERT_OWN_SKIP, skip)
    if decision.rivals:
        _cover(transaction, result.priority, decision.rivals)
    return Saved(status, row["errors"], task.target, kind if status in FAILED else None)


def _look_up(transaction: Transaction, result: Result) -> _Task:
    asked = {"task": result.priority, "lightcurve": result.details.filepath_lightcurve}
    row = transaction.fetch_one(statements.TASK_OF_RESULT, asked)
    if row is None:
        raise UnknownTaskError(priority=result.priority)
    return _Task._make(row)


def _decide(transaction: Transaction, result: Result, task: _Task, status: STATUS) -> Decision:
    """Look up the rivals, and apply the rule. Values of the result take precedence over those of the table.

    Magnitudes are the table's alone: otherwise each of two stars could cover the other.
    """
    said = {name: getattr(task, name) if own is None else own for name, own in asdict(result.target).items()}
    target = Target(result.priority, said["starid"], said["datasource"], task.tmag)
    neighbours = build_neighbours(target, result.details.skip_targets)
    if neighbours is None:
        return Decision()
    rivals = [
        Rival._make(row)
        for starid in neighbours.starids
        for datasource in neighbours.datasources
        for row in transaction.fetch_all(statements.RIVALS, {**said, "starid": starid, "datasource": datasource})
    ]
    return build_decision(target, status, neighbours, rivals)


def _cover(transaction: Transaction, priority: int, rivals: Sequence[Rival]) -> None:
    """Skip the rivals of a task; what their own results say counts for nothing from then on."""
    silenced = [rival.priority for rival in rivals if rival.has_caused_skips]
    if silenced:
        _delete_own_skips(transaction, silenced)
    transaction.left.extend(rival.priority for rival in rivals)
    for rival in rivals:
        if rival.status != _SKIPPED:
            transaction.count_move(rival.status, _SKIPPED)
            transaction.execute(statements.SET_STATUS, {"task": rival.priority, "new_status": _SKIPPED})
    skips = [{"priority": rival.priority, "skipped_by": priority} for rival in rivals]
    transaction.executemany(statements.INSERT_SKIP, skips)
    if silenced:
        _free(transaction, _end_covers(transaction, silenced))


# --- back to pending -------------------------------------------------------------------------------------


class Reset(NamedTuple):
    """The outcome of a reset.

    Attributes
    ----------
    returned : Counter
        The number of tasks that returned to pending, by their former status.
    covered : int
        The number of chosen tasks that stay SKIPPED, because tasks outside the choice cover them.
    """

    returned: Counter[int | None]
    covered: int

    def name_returned(self) -> dict[str, int]:
        """Return the number of tasks that returned to pending, by the name of their former status."""
        return {name: number for name, number in name_counts(self.returned).items() if number}


def reset_tasks(transaction: Transaction, priorities: Collection[int]) -> Reset:
    """Delete the results of tasks with the skips that they caused, and return to pending what no task covers then."""
    no_longer_covered = _take_out(transaction, priorities)
    for chunk in iter_chunks(priorities):
        _delete(transaction, statements.DELETE_VOID_SKIPS, chunk)
    free = _select(transaction, statements.UNSKIPPED, priorities)
    returned = _set_pending(transaction, free)
    covered = sorted(set(priorities) - set(free))
    for chunk in iter_chunks(covered):
        _count_moves(transaction, chunk, _SKIPPED)
        transaction.connection.execute(statements.SET_SKIPPED, {"priorities": chunk})
    return Reset(returned + _free(transaction, no_longer_covered), len(covered))


def reset_uncovered_tasks(transaction: Transaction) -> Reset:
    """Return to pending the SKIPPED tasks that no task covers: only TASOC and older releases leave such tasks."""
    found = find_contradictions(transaction.connection)
    uncovered = found.uncovered
    if transaction.is_shared:
        for chunk in iter_chunks(uncovered):
            _lock(transaction, chunk)  # then look again: other managers may have changed these tasks
        found = find_contradictions(transaction.connection)
        uncovered &= found.uncovered
    stated = [{"priority": priority, "skipped_by": other} for priority, other in found.unmarked.items()]
    transaction.executemany(statements.INSERT_OWN_SKIP, stated)
    for chunk in iter_chunks(uncovered):
        _delete(transaction, statements.DELETE_SKIPS_OF, chunk)
    return Reset(_free(transaction, uncovered), 0)


def _free(transaction: Transaction, priorities: Collection[int]) -> Counter[int | None]:
    """Return to pending those of the SKIPPED tasks that no task covers any more, without their results, and so on.

    If such a task is running, it becomes STARTED.
    """
    returned: Counter[int | None] = Counter()
    while priorities:
        freed = _select(transaction, statements.NO_LONGER_SKIPPED, priorities)
        running = {priority for priority in freed if priority in transaction.running}
        running.difference_update(_select(transaction, statements.MEASURED_AMONG, running))  # their results have come
        priorities = _take_out(transaction, freed)
        returned += _set_pending(transaction, freed)
        started = [{"task": priority, "new_status": _STARTED} for priority in running]
        transaction.executemany(statements.SET_STATUS, started)
        transaction.count_move(None, _STARTED, len(running))
    return returned


def _take_out(transaction: Transaction, priorities: Collection[int]) -> set[int]:
    """Delete the results of tasks with all skips that they caused; return the other tasks that they covered."""
    covered: set[int] = set()
    for chunk in iter_chunks(priorities):
        _lock(transaction, chunk)
        covered |= _end_covers(transaction, chunk)
        _delete_own_skips(transaction, chunk)
        _delete(transaction, statements.DELETE_EXTRA, chunk)
        _delete(transaction, statements.DELETE_DIAGNOSTICS, chunk)
    return covered.difference(priorities)


def _end_covers(transaction: Transaction, priorities: Sequence[int]) -> set[int]:
    """Delete the skips by which tasks cover others, and return these others; further tasks may cover them."""
    given = {"priorities": priorities}
    covered = set(transaction.connection.execute(statements.COVERED_BY_ANY, given).scalars())
    if covered:
        _delete(transaction, statements.DELETE_COVERS, priorities)
    return covered


def _delete_own_skips(transaction: Transaction, priorities: Sequence[int]) -> None:
    for statement in statements.DELETE_OWN_SKIPS:
        _delete(transaction, statement, priorities)


def _delete(transaction: Transaction, statement: Delete, priorities: Sequence[int]) -> None:
    if transaction.kept is not None:
        table = statement.table
        assert isinstance(table, Table)  # noqa: S101 - narrows the type for mypy
        transaction.kept.keep_rows(table, statement.whereclause, priorities)
    transaction.connection.execute(statement, {"priorities": priorities})


def _set_pending(transaction: Transaction, priorities: Collection[int]) -> Counter[int | None]:
    """Return tasks to pending, and return their number by their former status."""
    before: Counter[int | None] = Counter()
    statement = statements.SET_PENDING_OR_STARTED if transaction.is_shared else statements.SET_PENDING
    for chunk in iter_chunks(priorities):
        before += _count_moves(transaction, chunk, None)
        transaction.connection.execute(statement, {"priorities": chunk})
    transaction.count_reset(priorities)
    return before


def _count_moves(transaction: Transaction, priorities: Sequence[int], new: int | None) -> Counter[int | None]:
    if transaction.kept is not None:
        transaction.kept.keep_statuses(priorities)
    counts = Counter(
        dict(map(tuple, transaction.connection.execute(statements.COUNT_CHOSEN, {"priorities": priorities})))
    )
    for status, number in counts.items():
        transaction.count_move(status, new, number)
    return counts


def _select(transaction: Transaction, statement: Select[Any], priorities: Collection[int]) -> list[int]:
    """Return those of the given tasks that a statement selects; until the transaction ends, this stays true."""
    found: list[int] = []
    for chunk in iter_chunks(priorities):
        _lock(transaction, chunk)
        found += transaction.connection.execute(statement, {"priorities": chunk}).scalars()
    return found


def _lock(transaction: Transaction, priorities: Sequence[int]) -> None:
    """Keep other managers from changing tasks until the transaction ends; later reads stay valid until then."""
    if transaction.is_shared:
        transaction.connection.execute(statements.LOCK_TASKS, {"priorities": priorities})


def reset_interrupted_tasks(
    transaction: Transaction, conditions: Sequence[ColumnElement[bool]], retries: int | None
) -> Reset:
    """Reset interrupted tasks, and failed tasks that may be retried, unless another manager runs them."""
    chosen = statements.build_interrupted_tasks(conditions, retries)
    return reset_tasks(transaction, select_chosen_tasks(transaction, chosen))


def release_failures(transaction: Transaction, failures: Mapping[int, int]) -> int:
    """Return failed tasks to pending, and let their attempts, by priority, end as released, unless others came later.

    Return the number of tasks.
    """
    for chunk in iter_chunks(failures):
        _lock(transaction, chunk)
    released = [
        priority
        for priority, number in sorted(failures.items())
        if transaction.execute(statements.RELEASE_FAILURE, {"task": priority, "number": number})
    ]
    reset_tasks(transaction, released)
    return len(released)


def reset_by_hand(transaction: Transaction, priorities: Collection[int]) -> Reset:
    """Call `reset_tasks`, keep what `undo_reset` needs, and let the tasks' earlier failures no longer count."""
    if not priorities:
        return Reset(Counter(), 0)  # a call that is repeated, because its answer was lost, keeps what the first kept
    transaction.kept = kept = Kept(transaction)
    reset = reset_tasks(transaction, priorities)
    kept.finish()
    transaction.kept = None
    return reset


def select_chosen_tasks(transaction: Transaction, chosen: Select[Any]) -> list[int]:
    """Return the priorities that a statement selects, without the tasks that another manager runs."""
    execute = transaction.connection.execute
    if not transaction.is_shared:
        return list(execute(chosen).scalars())
    chosen = statements.build_unowned(chosen)
    still: list[int] = []
    for chunk in iter_chunks(execute(chosen).scalars().all()):
        _lock(transaction, chunk)  # then select again: other managers may have changed these tasks
        still += execute(chosen.where(todolist.c.priority.in_(chunk))).scalars()
    return still


def reset_all_tasks(transaction: Transaction, *, forget: bool, worker: int | None = None) -> None:
    """Return every task to pending, and empty the tables of results; the tasks are not counted.

    With `forget`, delete the history too, but not the row of this worker.
    """
    for statement in statements.RESET_EVERYTHING:
        transaction.connection.execute(statement)
    if forget:
        transaction.connection.execute(delete(attempts))
        transaction.connection.execute(delete(workers).where(workers.c.worker.is_distinct_from(worker)))
