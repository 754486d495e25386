"""The next pending tasks for each set of constraints, found in advance: so no search begins at the first row."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select

from photometry_tasks.constraints import CheckedConstraints, build_expressions, check_constraints
from photometry_tasks.sql import statements
from photometry_tasks.sql.execution import Row, Transaction
from photometry_tasks.sql.statements import build_has_failed, build_task

#: The largest number of queues in the cache; the next one empties it.
_MOST = 1000

#: Tasks that a search finds in advance: the first number, the growth factor, and the largest number. The first number
#: is small, since the caller may need a single task.
_AHEAD_FIRST, _AHEAD_MORE, _AHEAD_MOST = 16, 8, 1024

_ALL = 2**63 - 1
_FIRST, _NONE_LEFT = -(2**63), 2**63 - 1


class PendingQueue:
    """The pending tasks that match some constraints, in order of priority.

    A search passes over each task that does not match only once. Whether a task that it found is still pending is
    checked when the task's turn comes.

    Parameters
    ----------
    constraints : tuple
        As `check_constraints` returns them.
    has_failed : bool or None
        See `TaskManager.claim_tasks`.
    """

    def __init__(self, constraints: CheckedConstraints, has_failed: bool | None) -> None:
        names = {name for name, _ in constraints}
        self._is_empty = any(value == () for _, value in constraints)
        expressions = build_expressions(constraints, for_our_schema=True) + build_has_failed(has_failed)
        self._priorities = statements.build_next_priorities(expressions, names)
        self._tasks = statements.build_next_tasks(expressions, names)
        # The tasks of a list are found in the order of its index, and then sorted: all at once, since half of the tasks
        # would cost as much.
        self._is_list = not names.isdisjoint(("priority", "starid"))
        self._size = _ALL if self._is_list else _AHEAD_FIRST
        self._ahead: deque[int] = deque()
        self._start = _FIRST  # no task before this one matches and is pending, except in _ahead

    def get_task(self, transaction: Transaction) -> dict[str, Any] | None:
        """Return the next task, which stays the next until it is no longer pending."""
        if self._is_empty:
            return None
        tasks = self._get_ahead(transaction, 1)
        while not tasks and self._start != _NONE_LEFT:
            self._look_ahead(transaction)
            tasks = self._get_ahead(transaction, 1)
        return tasks[0] if tasks else None

    def get_tasks(self, transaction: Transaction, limit: int) -> list[dict[str, Any]]:
        """Return the next tasks, at most `limit`."""
        if self._is_empty:
            return []
        if self._is_list:
            if self._start != _NONE_LEFT:
                self._look_ahead(transaction)
            return self._get_ahead(transaction, limit)
        if self._ahead:
            self._start = self._ahead[0]
            self._ahead.clear()
        tasks = list(map(build_task, self._select(transaction, self._tasks, limit)))
        self._start = tasks[0]["priority"] if tasks else _NONE_LEFT
        return tasks

    def restart(self, priority: int) -> None:
        """Search again from a task on: it returned to pending, and later tasks may have."""
        while self._ahead and self._ahead[-1] >= priority:
            self._ahead.pop()
        self._start = min(self._start, priority)
        if not self._is_list:
            self._size = _AHEAD_FIRST

    def _get_ahead(self, transaction: Transaction, limit: int) -> list[dict[str, Any]]:
        """Return the first tasks in _ahead that are still pending, and drop the others before them."""
        tasks: list[dict[str, Any]] = []
        while self._ahead and len(tasks) < limit:
            row = transaction.fetch_one(statements.PENDING_TASK, {"task": self._ahead.popleft()})
            if row is not None:
                tasks.append(build_task(row))
        self._ahead.extendleft(task["priority"] for task in reversed(tasks))
        return tasks

    def _look_ahead(self, transaction: Transaction) -> None:
        found = [priority for (priority,) in self._select(transaction, self._priorities, self._size)]
        self._ahead.extend(found)
        self._start = found[-1] + 1 if len(found) == self._size else _NONE_LEFT
        if not self._is_list:
            self._size = min(_AHEAD_MORE * self._size, _AHEAD_MOST)

    def _select(self, transaction: Transaction, statement: Select[Any], limit: int) -> list[Row]:
        if self._start == _FIRST:
            (first,) = transaction.fetch_one(statements.FIRST_PENDING, {}) or (None,)
            self._start = _NONE_LEFT if first is None else first
        return transaction.fetch_all(statement, {"start": self._start, "limit": limit})


class PendingQueues:
    """A queue for each set of constraints, valid until another program changes the table."""

    def __init__(self) -> None:
        self._selections: dict[tuple[CheckedConstraints, bool | None], PendingQueue] = {}
        self._last: tuple[Mapping[str, Any], bool | None, PendingQueue | None] = {}, None, None

    def find(self, constraints: Mapping[str, Any], has_failed: bool | None = None) -> PendingQueue:
        """Return the queue for these arguments of `build_constraints`."""
        last, last_failed, selection = self._last
        if selection is not None and has_failed is last_failed and _are_the_same(constraints, last):
            return selection
        key = check_constraints(constraints), has_failed
        selection = self._selections.get(key)
        if selection is None:
            if len(self._selections) >= _MOST:
                self._last = {}, None, None
                self._selections.clear()
            selection = self._selections[key] = PendingQueue(*key)
        self._last = constraints, has_failed, selection
        return selection

    def restart(self, priority: int = _FIRST) -> None:
        """Search again from a task on: it and later tasks may have returned to pending."""
        for selection in self._selections.values():
            selection.restart(priority)


def _are_the_same(constraints: Mapping[str, Any], last: Mapping[str, Any]) -> bool:
    """Whether constraints hold the same immutable objects as the last ones, and need no check."""
    return constraints.keys() == last.keys() and all(
        value is last[name] and isinstance(value, int | float | str | tuple | range | None)
        for name, value in constraints.items()
    )
