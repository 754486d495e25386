"""How far the tasks that match some constraints have been handed out, so that each search goes on from there. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select

from photometry_tasks import statements
from photometry_tasks.constraints import CheckedConstraints, build_expressions, check_constraints

__all__ = ["Selection", "Selections"]

#: Selections that are kept; who asks for ever new ones begins anew.
_MOST = 1000

_FIRST, _NONE_LEFT = -(2**63), 2**63 - 1


@dataclass(slots=True)
class Selection:
    """The pending tasks that match some constraints.

    Attributes
    ----------
    statement : sqlalchemy.Select
        The next of them, with the parameter `start`.
    start : int
        No task with a lower priority matches and is pending.
    """

    statement: Select[Any]
    start: int

    def advance(self, priority: int | None) -> None:
        """Note the priority of the next task, which stays the next until it is started; None: there is none."""
        self.start = _NONE_LEFT if priority is None else priority


class Selections:
    """The selections that were asked for, as long as no task has gone back to pending.

    A task is handed out in order of priority, and those before it are passed over in each search: the running,
    the finished, and those that do not match. Searching from where the last search ended passes over each once.
    """

    def __init__(self) -> None:
        self._selections: dict[CheckedConstraints, Selection] = {}
        self._changes: object = None

    def find(self, constraints: Mapping[str, Any]) -> Selection:
        """Return the selection of these arguments of `build_constraints`."""
        key = check_constraints(constraints)
        selection = self._selections.get(key)
        if selection is None:
            if len(self._selections) >= _MOST:
                self._selections.clear()
            selection = Selection(statements.next_task(build_expressions(key)), _FIRST)
            self._selections[key] = selection
        return selection

    def notice(self, changes: object) -> None:
        """Begin anew if there were changes that `expect` was not told of: somebody else's."""
        if changes != self._changes:
            self.forget()
            self._changes = changes

    def expect(self, changes: object) -> None:
        """Take the changes so far as our own, which have returned no task to pending."""
        self._changes = changes

    def forget(self) -> None:
        """Begin anew, since a task may have gone back to pending."""
        for selection in self._selections.values():
            selection.start = _FIRST
