"""What a manager knows of the table, as long as nobody else has changed it: the counts, and which tasks come next."""

from collections import Counter

from sqlalchemy import Connection

from photometry_tasks.sql.counts import count_by_status
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.storage.sqlite.database import SQLite
from photometry_tasks.storage.sqlite.pending import Selections

__all__ = ["Known"]


class Known:
    """The counts by status, and the selections that were asked for.

    Parameters
    ----------
    database : SQLite
        It tells of changes.
    """

    def __init__(self, database: SQLite) -> None:
        self.selections = Selections()
        self._database = database
        self._counts: Counter[int | None] | None = None
        self._has_triggers = False
        self.forget()

    def forget(self) -> None:
        """Know nothing any more, at the latest from the next transaction on."""
        self._changes = -1, -1

    def notice(self) -> None:
        """At the beginning of a transaction: forget all if somebody has changed the table, or may have."""
        changes = self._database.changes_by_us(), self._database.changes_by_others()
        if changes != self._changes:
            self._counts = None
            self._has_triggers = self._database.has_triggers()
            self.selections.begin_anew()
            self._changes = changes

    def learn(self, transaction: Transaction) -> None:
        """After a transaction of ours, in which nobody else could change anything: take it into account."""
        others = self._changes[1]
        self.forget()
        if self._has_triggers:
            return  # other programs' triggers may have changed what they like
        if self._counts is not None:
            self._counts.update(transaction.moved)
        if transaction.reset_from is not None:
            self.selections.begin_anew(transaction.reset_from)
        self._changes = self._database.changes_by_us(), others

    def count(self, connection: Connection) -> Counter[int | None]:
        """Return how many tasks have each status; pending ones as None."""
        if self._counts is None:
            self._counts = count_by_status(connection)
        return self._counts
