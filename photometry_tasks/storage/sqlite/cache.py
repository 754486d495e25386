"""A manager's cache of the table, valid as long as no other program changes it: counts by status, and pending tasks."""

from collections import Counter

from sqlalchemy import Connection

from photometry_tasks.sql.counts import count_by_status
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.storage.sqlite.database import SQLiteDatabase
from photometry_tasks.storage.sqlite.pending import PendingQueues


class TableCache:
    """The counts by status, and the pending tasks for the constraints that were asked for.

    Parameters
    ----------
    database : SQLiteDatabase
        Its change counters tell when the cache is out of date.
    """

    def __init__(self, database: SQLiteDatabase) -> None:
        self.queues = PendingQueues()
        self._database = database
        self._counts: Counter[int | None] | None = None
        self._has_triggers = False
        self.invalidate()

    def invalidate(self) -> None:
        """Drop everything at the beginning of the next transaction."""
        self._versions = -1, -1

    def refresh(self) -> None:
        """At the beginning of a transaction, drop everything if the table may have changed."""
        versions = self._database.get_total_changes(), self._database.get_data_version()
        if versions != self._versions:
            self._counts = None
            self._has_triggers = self._database.has_triggers()
            self.queues.restart()
            self._versions = versions

    def update(self, transaction: Transaction) -> None:
        """After a commit, take the changes of the transaction into account: no other program can have made one."""
        data_version = self._versions[1]
        self.invalidate()
        if self._has_triggers:
            return  # other programs' triggers may have changed anything
        if self._counts is not None:
            self._counts.update(transaction.moved)
        if transaction.reset_from is not None:
            self.queues.restart(transaction.reset_from)
        self._versions = self._database.get_total_changes(), data_version

    def count_by_status(self, connection: Connection) -> Counter[int | None]:
        """Return how many tasks have each status, with None for pending."""
        if self._counts is None:
            self._counts = count_by_status(connection)
        return self._counts
