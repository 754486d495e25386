"""The next pending tasks for each set of constraints, found in advance: so no search begins at the first row."""

from collections import deque
from collections.abc import Collection, Container, Mapping
from itertools import islice
from typing import Any

from photometry_tasks.constraints import CheckedConstraints, build_expressions, check_constraints
from photometry_tasks.sql import statements
from photometry_tasks.sql.execution import Row, Transaction
from photometry_tasks.sql.statements import build_has_failed, build_task

#: The largest number of queues in the cache; the next one empties it.
_MOST = 1000

#: The most priorities of tasks that are no longer pending; the next ones let all queues search again.
_MOST_LEFT = 10_000

#: Tasks that a search finds in advance: the first number, the growth factor, and the largest number. The first number
#: is small, since the caller may need a single task.
_AHEAD_FIRST, _AHEAD_MORE, _AHEAD_MOST = 16, 8, 1024

_ALL = 2**63 - 1
_FIRST, _NONE_LEFT = -(2**63), 2**63 - 1


class PendingQueue:
    """The pending tasks that match some constraints, in order of priority.

    A search passes over each task that does not match only once, and finds several tasks in advance.

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
        self._tasks = statements.build_next_tasks(expressions, names)
        # The tasks of a list are found in the order of its index, and then sorted: all at once, since half of the tasks
        # would cost as much.
        self._is_list = not names.isdisjoint(("priority", "starid"))
        self._size = _ALL if self._is_list else _AHEAD_FIRST
        self._ahead: deque[Row] = deque()
        self._start = _FIRST  # no task before this one matches and is pending, except in _ahead

    def get_task(self, transaction: Transaction, left: Container[int]) -> dict[str, Any] | None:
        """Return the next task, which stays the next until it is no longer pending.

        Parameters
        ----------
        left : container of int
            Priorities of tasks that are no longer pending.
        """
        if self._is_empty:
            return None
        while True:
            while self._ahead and self._ahead[0][0] in left:
                self._ahead.popleft()
            if self._ahead:
                return build_task(self._ahead[0])
            if self._start == _NONE_LEFT:
                return None
            self._look_ahead(transaction)

    def get_tasks(self, transaction: Transaction, left: Container[int], limit: int) -> list[dict[str, Any]]:
        """Return the next tasks, at most `limit`; otherwise as `get_task`."""
        if self._is_empty:
            return []
        if self._is_list:
            self.get_task(transaction, left)
            return list(map(build_task, islice((row for row in self._ahead if row[0] not in left), limit)))
        self.restart(_NONE_LEFT)
        tasks = list(map(build_task, self._select(transaction, limit)))
        self._start = tasks[0]["priority"] if tasks else _NONE_LEFT
        return tasks

    def restart(self, priority: int) -> None:
        """Search again, at the latest from a task on: it returned to pending, and later tasks may have."""
        if self._ahead:
            self._start = self._ahead[0][0]
            self._ahead.clear()
        self._start = min(self._start, priority)
        if not self._is_list:
            self._size = _AHEAD_FIRST

    def _look_ahead(self, transaction: Transaction) -> None:
        found = self._select(transaction, self._size)
        self._ahead.extend(found)
        self._start = found[-1][0] + 1 if len(found) == self._size else _NONE_LEFT
        if not self._is_list:
            self._size = min(_AHEAD_MORE * self._size, _AHEAD_MOST)

    def _select(self, transaction: Transaction, limit: int) -> list[Row]:
        if self._start == _FIRST:
            (first,) = transaction.fetch_one(statements.FIRST_PENDING, {}) or (None,)
            self._start = _NONE_LEFT if first is None else first
        return transaction.fetch_all(self._tasks, {"start": self._start, "limit": limit})


class PendingQueues:
    """A queue for each set of constraints, valid until another program changes the table."""

    def __init__(self) -> None:
        #: Priorities of tasks that are no longer pending, although a search may have found them.
        self.left: set[int] = set()
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

    def drop(self, priorities: Collection[int], *, is_complete: bool) -> None:
        """Pass over tasks that are no longer pending; if these are not all such tasks, search again."""
        self.left.update(priorities)
        if not is_complete or len(self.left) > _MOST_LEFT:
            self.restart(_NONE_LEFT)

    def restart(self, priority: int = _FIRST) -> None:
        """Search again from a task on: it and later tasks may have returned to pending."""
        for selection in self._selections.values():
            selection.restart(priority)
        self.left.clear()


def _are_the_same(constraints: Mapping[str, Any], last: Mapping[str, Any]) -> bool:
    """Whether constraints hold the same immutable objects as the last ones, and need no check."""
    if not constraints:
        return not last
    return constraints.keys() == last.keys() and all(
        value is last[name] and isinstance(value, int | float | str | tuple | range | None)
        for name, value in constraints.items()
    )
