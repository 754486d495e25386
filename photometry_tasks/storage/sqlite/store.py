"""A TODO-list in a SQLite file, which one manager works on: on disk, or on a copy in memory."""

import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from photometry_tasks.errors import CLOSING_SAVES, FileChangedError
from photometry_tasks.progress.overview import Publisher
from photometry_tasks.rules.results import Result
from photometry_tasks.sql import transitions
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.sql.transitions import Saved
from photometry_tasks.storage.connection import SharedConnection
from photometry_tasks.storage.sqlite.cache import Known
from photometry_tasks.storage.sqlite.database import SQLite
from photometry_tasks.storage.sqlite.opening import put_on_disk
from photometry_tasks.storage.sqlite.working_copy import WorkingCopy

__all__ = ["FileList"]

T = TypeVar("T")


class FileList:
    """What a manager does to the TODO-file that it has opened; each method is one transaction.

    Parameters
    ----------
    path : Path
    database : SQLite
        The file, or a copy of it in memory.
    copy : WorkingCopy or None
        What belongs to the copy.

    Attributes
    ----------
    name : str
    path : Path
    shared : SharedConnection
    """

    #: There are no others, whom it would have to tell that it is alive.
    lease: float | None = None

    def __init__(self, path: Path, database: SQLite, copy: WorkingCopy | None) -> None:
        self.name = str(path)
        self.path = path
        self._database = database
        self._copy = copy
        self._known = Known(database)
        can_be_read = copy is not None or not database.keeps_readers_out
        is_needed = copy is not None or not can_be_read
        self._publisher = Publisher(path, is_needed=is_needed, can_be_read=can_be_read)
        self.shared = SharedConnection(database, self.name)
        # Live attempts by priority, in numbers that no manager before this one has given.
        self._attempts: dict[int, int] = {}
        self._last_attempt = secrets.randbits(62)

    def _transact(
        self, method: str, work: Callable[[Transaction], T], *, writes: bool = False, is_synced: bool = True
    ) -> T:
        self.shared.check_ready(method)
        try:
            transaction = self._database.start(writes=writes, is_synced=is_synced)
            self._known.notice()
            answer = work(transaction)
            self._database.commit()
        except BaseException as error:
            self._known.forget()
            self._database.abandon(error)
        if writes:
            self._known.learn(transaction)
        return answer

    def read(self, method: str, work: Callable[[Transaction], T]) -> T:
        """Return what some work returns that changes nothing."""
        return self._transact(method, work)

    def change(self, method: str, work: Callable[[Transaction], T]) -> T:
        """Return what some work returns, all of which is done or nothing."""
        return self._transact(method, work, writes=True)

    # --- handing out -------------------------------------------------------------------------------------

    def next_task(self, constraints: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the next pending task."""
        return self._transact("get_task", self._known.selections.find(constraints).next_task)

    def next_tasks(self, limit: int, constraints: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the next pending tasks."""
        selection = self._known.selections.find(constraints)
        return self._transact("get_tasks", lambda transaction: selection.next_tasks(transaction, limit))

    def claim(self, limit: int, constraints: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Start the next pending tasks, and return them with the numbers of their attempts."""
        selection = self._known.selections.find(constraints)

        def work(transaction: Transaction) -> list[dict[str, Any]]:
            tasks = selection.next_tasks(transaction, limit)
            transitions.start_tasks(transaction, [task["priority"] for task in tasks])
            return tasks

        tasks = self._transact("claim_tasks", work, writes=True, is_synced=False)
        for task in tasks:
            self._last_attempt += 1
            self._attempts[task["priority"]] = task["attempt"] = self._last_attempt
        self._publisher.publish_if_due(self.read)
        return tasks

    def start(self, method: str, priorities: Sequence[int]) -> None:
        """Start tasks."""

        def work(transaction: Transaction) -> None:
            transitions.start_tasks(transaction, priorities)

        self._transact(method, work, writes=True, is_synced=False)
        self._publisher.publish_if_due(self.read)

    def release(self, priorities: Sequence[int]) -> None:
        """Return tasks that are STARTED to pending."""
        self.change("release_tasks", lambda transaction: transitions.release_tasks(transaction, priorities))
        for priority in priorities:
            self._attempts.pop(priority, None)

    def may_more_come(self, constraints: Mapping[str, Any]) -> bool:  # noqa: ARG002 - see ServerList
        """Whether tasks may come yet though a claim gave none: not from others, there are none."""
        return False

    def heartbeat(self) -> None:
        """Say nothing: nobody waits for a sign of life."""

    # --- saving ------------------------------------------------------------------------------------------

    def save(self, method: str, results: Sequence[Result]) -> list[Saved | None]:
        """Save results, and return what became of each; None where another attempt has taken its place."""
        if self._database.is_replaced():
            raise FileChangedError(path=self.name, remedy=CLOSING_SAVES)
        accepted = self._find_accepted(results)
        copy = self._copy
        position = 0 if copy is None else copy.position()

        def work(transaction: Transaction) -> list[Saved]:
            saved = transitions.save_results(transaction, accepted)
            if copy is not None:
                copy.record(accepted, [task.target for task in saved])
            return saved

        try:
            saved = self.change(method, work)
        except BaseException:
            if copy is not None:
                copy.take_back(position)
            raise
        if self._attempts:
            for result in accepted:
                self._attempts.pop(result.priority, None)
        if len(saved) == len(results):
            return list(saved)
        found = dict(zip(map(id, accepted), saved, strict=True))
        return [found.get(id(result)) for result in results]

    def _find_accepted(self, results: Sequence[Result]) -> list[Result]:
        """Leave out results whose attempt is not, or no longer, the live one."""
        if all(result.attempt is None for result in results):
            return list(results)  # it is the manager that started them
        live = dict(self._attempts)
        accepted = []
        for result in results:
            if result.attempt is None or live.get(result.priority) == result.attempt:
                live.pop(result.priority, None)
                accepted.append(result)
        return accepted

    def tell(self) -> None:
        """Tell others now and then how it stands, where they cannot see it."""
        self._publisher.publish_if_due(self.read)

    # --- counting, choosing, closing ---------------------------------------------------------------------

    def count(self) -> Counter[int | None]:
        """Return how many tasks have each status; pending ones as None."""
        return self.read("summary", lambda transaction: self._known.count(transaction.connection))

    def backup(self) -> None:
        """Put a copy in memory on disk."""
        if self._copy is not None:
            self._copy.backup()

    def is_ours(self) -> bool:
        """Whether the file is still the one that was opened."""
        return not self._database.is_replaced()

    def finish(self) -> Path | None:
        """Put on disk what is not, for the last time; return where to, if not in its place."""
        return put_on_disk(self.path, self._database, self._copy)

    def close(self) -> None:
        """Close the file."""
        self._publisher.remove()
        self.shared.close()

    def abandon(self) -> None:
        """Close the file without putting anything on disk."""
        if self._copy is not None:
            self._copy.close()
        self.shared.close()
