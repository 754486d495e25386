"""A manager's cache of counts by status and of pending tasks, valid until another program changes the table."""

from collections import Counter

from sqlalchemy import Connection

from photometry_tasks.sql.counts import count_by_status
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.storage.sqlite.database import SQLiteDatabase
from photometry_tasks.storage.sqlite.pending import PendingQueues


class TableCache:
    """The counts by status, and the pending tasks for each set of constraints.

    Parameters
    ----------
    database : SQLiteDatabase
        Its change counters show whether the cache is up to date.
    """

    def __init__(self, database: SQLiteDatabase) -> None:
        self.queues = PendingQueues()
        self._database = database
        self._counts: Counter[int | None] | None = None
        self._has_triggers = False
        self.invalidate()

    def invalidate(self) -> None:
        """Let the next `refresh` drop everything."""
        self._versions = -1, -1

    def refresh(self) -> None:
        """Drop everything if the table may have changed; call this at the beginning of a transaction."""
        versions = self._database.get_total_changes(), self._database.get_data_version()
        if versions != self._versions:
            self._counts = None
            self._has_triggers = self._database.has_triggers()
            self.queues.restart()
            self._versions = versions

    def update(self, transaction: Transaction) -> None:
        """Apply the changes of a committed transaction, during which no other program can have changed the table."""
        data_version = self._versions[1]
        self.invalidate()
        if self._has_triggers:
            return  # a trigger of another program may have changed any row
        if self._counts is not None:
            self._counts.update(transaction.moved)
        if transaction.reset_from is not None:
            self.queues.restart(transaction.reset_from)
        elif transaction.number_left:
            self.queues.drop(transaction.left, is_complete=len(transaction.left) >= transaction.number_left)
        self._versions = self._database.get_total_changes(), data_version

    def count_by_status(self, connection: Connection) -> Counter[int | None]:
        """Return how many tasks have each status, with None for pending."""
        if self._counts is None:
            self._counts = count_by_status(connection)
        return self._counts
