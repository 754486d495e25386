"""The task store of a TODO-file, on disk or as a copy in memory."""

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Select

from photometry_tasks.errors import CLOSING_SAVES, FileChangedError, TodoFileInUseError
from photometry_tasks.files import resolve
from photometry_tasks.progress.status_fields import LiveTasks
from photometry_tasks.rules.results import Result
from photometry_tasks.sql import statements, transitions
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.sql.history import first_attempt, insert_attempts
from photometry_tasks.sql.transitions import Reset, Saved
from photometry_tasks.status import RELEASED, STATUS
from photometry_tasks.storage.base import TaskStore
from photometry_tasks.storage.connection import ManagerConnection
from photometry_tasks.storage.sqlite.cache import TableCache
from photometry_tasks.storage.sqlite.database import SQLiteDatabase
from photometry_tasks.storage.sqlite.status_file import StatusFile
from photometry_tasks.storage.sqlite.working_copy import WorkingCopy, save_beside

T = TypeVar("T")

_logger = logging.getLogger("photometry_tasks")

#: Saved results between two looks at the size of the write-ahead log.
_LOOK = 500

#: Seconds between two heartbeats: other saves do not write one.
_HEARTBEAT = 10.0


class SQLiteStore(TaskStore):
    """The TODO-file that a manager has open; each method is one transaction.

    Parameters
    ----------
    path : Path
    database : SQLiteDatabase
        The file, or a copy of it in memory.
    copy : WorkingCopy or None
        The log and the backups of a copy in memory.
    returned : dict
        The numbers of tasks that opening has returned to pending, by the name of their former status.
    worker : int
        The manager's number among the workers.

    Attributes
    ----------
    name : str
    returned : dict
    connection : ManagerConnection
    """

    #: No other manager waits for a heartbeat.
    lease: float | None = None

    def __init__(
        self, path: Path, database: SQLiteDatabase, copy: WorkingCopy | None, returned: dict[str, int], worker: int
    ) -> None:
        self.name = str(path)
        self.returned = returned
        self._path = path
        self._database = database
        self._copy = copy
        self._cache = TableCache(database)
        can_be_read = copy is not None or not database.keeps_readers_out
        is_needed = copy is not None or not can_be_read
        self._status_file = StatusFile(path, is_needed=is_needed, can_be_read=can_be_read)
        self.connection = ManagerConnection(database, self.name)
        # Live attempts by priority, each with its number and the time of its begin. The first number is random: a
        # manager in memory that was killed before its first result has left no trace of its own number.
        self._live: dict[int, tuple[int, float]] = {}
        self._worker = worker
        self._last_attempt = first_attempt(worker) + secrets.randbits(28)
        self._heartbeat = time.time()
        self._not_looked = 0

    def run_in_transaction(
        self, method: str, work: Callable[[Transaction], T], *, writes: bool, is_synced: bool = True
    ) -> T:
        """Return the result of `work`, whose changes are committed as a whole.

        Parameters
        ----------
        is_synced : bool, optional
            Whether the commit of a durable file waits for the disk.
        """
        self.connection.check_ready(method)
        try:
            transaction = self._database.start_transaction(writes=writes, is_synced=is_synced)
            transaction.running = self._live
            self._cache.refresh()
            result = work(transaction)
            self._database.commit()
        except BaseException as error:
            self._cache.invalidate()
            self._database.rollback_and_raise(error)
        if writes:
            try:
                self._cache.update(transaction)
            except Exception:  # the transaction is committed
                self._cache.invalidate()
        return result

    def _run_logged(self, method: str, work: Callable[[Transaction], T]) -> T:
        """Call `run_in_transaction`; if it fails, remove from the log of a copy in memory what `work` logged."""
        log_size = 0 if self._copy is None else self._copy.log_size
        try:
            return self.run_in_transaction(method, work, writes=True)
        except BaseException:
            if self._copy is not None:
                self._copy.truncate_log(log_size)
            raise

    # --- handing out -------------------------------------------------------------------------------------

    def get_task(self, constraints: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the next pending task, or None."""
        queues = self._cache.queues
        queue = queues.find(constraints)
        return self.run_in_transaction(
            "get_task", lambda transaction: queue.get_task(transaction, queues.left), writes=False
        )

    def get_tasks(self, limit: int, constraints: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the next pending tasks, at most `limit`."""
        queues = self._cache.queues
        queue = queues.find(constraints)
        return self.run_in_transaction(
            "get_tasks", lambda transaction: queue.get_tasks(transaction, queues.left, limit), writes=False
        )

    def claim_tasks(
        self, limit: int, constraints: Mapping[str, Any], has_failed: bool | None = None
    ) -> list[dict[str, Any]]:
        """Start the next pending tasks, and return them with the numbers of their attempts."""
        queues = self._cache.queues
        queue = queues.find(constraints, has_failed)

        def work(transaction: Transaction) -> list[dict[str, Any]]:
            tasks = queue.get_tasks(transaction, queues.left, limit)
            transitions.start_tasks(transaction, [task["priority"] for task in tasks])
            return tasks

        tasks = self.run_in_transaction("claim_tasks", work, writes=True, is_synced=False)
        now = time.time()
        for task in tasks:
            task["attempt"] = self._last_attempt = self._last_attempt + 1
            self._live[task["priority"]] = self._last_attempt, now
        self.publish_status()
        return tasks

    def start_tasks(self, method: str, priorities: Sequence[int]) -> None:
        """Mark tasks as STARTED, all or none."""

        def work(transaction: Transaction) -> None:
            transitions.start_tasks(transaction, priorities)

        self.run_in_transaction(method, work, writes=True, is_synced=False)
        now = time.time()
        for priority in priorities:
            self._last_attempt += 1
            self._live.setdefault(priority, (self._last_attempt, now))
        self.publish_status()

    def release_tasks(self, priorities: Sequence[int]) -> None:
        """Return tasks that are STARTED to pending."""

        def work(transaction: Transaction) -> None:
            self._record_released(transaction, priorities)
            transitions.release_tasks(transaction, priorities)

        self.run_in_transaction("release_tasks", work, writes=True)
        for priority in priorities:
            self._live.pop(priority, None)

    def reset_tasks(self, chosen: Select[Any]) -> Reset:
        """Reset the tasks whose priorities a statement selects; attempts of this manager at them end."""
        copy = self._copy
        ended: list[int] = []

        def work(transaction: Transaction) -> Reset:
            priorities = transitions.select_chosen_tasks(transaction, chosen)
            ended.extend(self._live.keys() & set(priorities))
            self._record_released(transaction, ended)
            if copy is not None:
                copy.record_reset(priorities)
            return transitions.reset_by_hand(transaction, priorities)

        reset = self._run_logged("reset_tasks", work)
        for priority in ended:
            del self._live[priority]
        return reset

    # --- saving ------------------------------------------------------------------------------------------

    def save_results(self, method: str, results: Sequence[Result]) -> list[Saved | None]:
        """Save results, all or none; return None for each result whose attempt is no longer live."""
        if self._database.is_replaced():
            raise FileChangedError(path=self.name, remedy=CLOSING_SAVES)
        accepted = self._find_accepted(results)
        copy = self._copy

        def work(transaction: Transaction) -> list[Saved]:
            saved = transitions.save_results(transaction, accepted)
            now = time.time()
            tried = self._build_attempts(accepted, saved, now)
            insert_attempts(transaction, tried)
            if now - self._heartbeat >= _HEARTBEAT:
                self._touch(transaction)
            if copy is not None:
                copy.record(accepted, saved, tried)
            return saved

        saved = self._run_logged(method, work)
        if self._live:
            for result in accepted:
                self._live.pop(result.priority, None)
        self._not_looked += len(saved)
        if len(saved) == len(results):
            return list(saved)
        found = dict(zip(map(id, accepted), saved, strict=True))
        return [found.get(id(result)) for result in results]

    def _find_accepted(self, results: Sequence[Result]) -> list[Result]:
        """Return the results without those whose attempt is no longer live."""
        if all(result.attempt is None for result in results):
            return list(results)  # the manager's caller started these tasks
        live = dict(self._live)
        accepted = []
        for result in results:
            if result.attempt is None or live.get(result.priority, (None,))[0] == result.attempt:
                live.pop(result.priority, None)
                accepted.append(result)
        return accepted

    def _build_attempts(self, results: Sequence[Result], saved: Sequence[Saved], now: float) -> list[dict[str, Any]]:
        """Return the attempts that results end; an attempt that was not started begins too."""
        live = {result.priority: self._live.get(result.priority) for result in results}
        tried = []
        for result, task in zip(results, saved, strict=True):
            number, begun = live.pop(result.priority, None) or (None, None)
            if number is None:
                number = self._last_attempt = self._last_attempt + 1
                begun = now - result.time if 0 <= result.time <= now else None
            tried.append(
                {
                    "priority": result.priority,
                    "attempt": number,
                    "worker": self._worker,
                    "begun": begun,
                    "ended": now,
                    "how": task.status._name_,
                    "errors": task.errors,
                    "kind": task.kind,
                    "peak_memory": result.peak_memory,
                    "counts": task.counts,
                }
            )
        return tried

    def _record_released(self, transaction: Transaction, priorities: Iterable[int]) -> None:
        """Record the end of the live attempts at those of the tasks that are STARTED."""
        now = time.time()
        end = {
            "worker": self._worker,
            "ended": now,
            "how": RELEASED,
            "peak_memory": None,
            "counts": None,
            "errors": None,
        }
        released = [
            {"priority": priority, "attempt": live[0], "begun": live[1], **end}
            for priority in priorities
            if (live := self._live.get(priority)) is not None
            and transaction.fetch_one(statements.STATUS_OF_TASK, {"task": priority}) == (STATUS.STARTED.value,)
        ]
        insert_attempts(transaction, released)

    def watch_running(self, find: Callable[[], LiveTasks] | None) -> None:
        """Publish as running only what `find` returns, not all started tasks."""
        self._status_file.find_running = find

    # --- counting, closing -------------------------------------------------------------------------------

    def heartbeat(self) -> None:
        """Show readers that the manager works, although no result comes; not while another program locks the file."""
        with suppress(TodoFileInUseError):
            if time.time() - self._heartbeat >= _HEARTBEAT:
                self.run_in_transaction("heartbeat", self._touch, writes=True, is_synced=False)
            self.publish_status()

    def _touch(self, transaction: Transaction) -> None:
        self._heartbeat = now = time.time()
        transaction.execute(statements.TOUCH_WORKER, {"number": self._worker, "now": now, "end": None})

    def count_by_status(self) -> Counter[int | None]:
        """Return how many tasks have each status, with None for pending."""
        return self.run_in_transaction(
            "summary", lambda transaction: self._cache.count_by_status(transaction.connection), writes=False
        )

    def publish_status(self) -> None:
        """Publish the list's status at intervals, if readers cannot read it from the file; name readers that block."""
        if self._not_looked >= _LOOK:
            self._not_looked = 0
            self._database.warn_of_readers()
        self._status_file.write_if_due(partial(self.run_in_transaction, "publish", writes=False), self._live)

    def is_in_place(self) -> bool:
        """Whether the open file was neither replaced nor deleted."""
        return not self._database.is_replaced()

    def backup(self) -> None:
        """Write a copy in memory to disk, or complete the file from its write-ahead log."""
        if self._copy is not None:
            self._copy.backup()
        elif self._database.is_replaced():
            raise FileChangedError(path=self.name, remedy=CLOSING_SAVES)
        else:
            self._database.checkpoint()

    def finish(self) -> Path | None:
        """Write everything to disk for the last time.

        Returns
        -------
        Path or None
            The other file to which the list was saved, if another program replaced or changed the original.
        """
        try:
            self.run_in_transaction("close", self._sign_off, writes=True)
        except Exception:  # the results are saved
            _logger.exception("%s: the end of this manager could not be recorded", self.name)
        if self._copy is not None:
            return self._copy.finish()
        if not self._database.is_replaced():
            return None
        saved_as = save_beside(self._database, self._path)
        return None if saved_as == resolve(self._path) else saved_as

    def _sign_off(self, transaction: Transaction) -> None:
        """Record the end of this manager, and of its live attempts, whose tasks stay STARTED."""
        self._record_released(transaction, self._live)
        now = time.time()
        transaction.execute(statements.TOUCH_WORKER, {"number": self._worker, "now": now, "end": now})

    def close(self) -> None:
        """Close the file."""
        try:
            self._status_file.remove()
        except OSError:
            _logger.exception("%s: its status file could not be deleted; the next opening deletes it", self.name)
        self.connection.close()

    def abort(self) -> None:
        """Close the file without writing anything to disk."""
        try:
            if self._copy is not None:
                self._copy.close()
        finally:
            self.connection.close()
