"""The protocols of a database and of a task store: what another kind of database has to implement.

`storage/sqlite` and `storage/postgresql` implement both; `storage/open.py` chooses between them. The manager, the
readers and the commands use nothing else.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Table

from photometry_tasks.rules.results import Result
from photometry_tasks.sql.execution import Row, Transaction
from photometry_tasks.sql.transitions import Saved
from photometry_tasks.storage.connection import ManagerConnection, SharedDatabase

T = TypeVar("T")


@dataclass(frozen=True)
class OpenOptions:
    """How a manager opens a TODO-list.

    Attributes
    ----------
    cleanup : bool
        Compact the list.
    overwrite : bool
        Return all tasks to pending, and delete all results.
    reset : bool
        Return interrupted and failed tasks to pending.
    conditions : sequence of sqlalchemy.ColumnElement
        Which of these tasks return to pending.
    load_into_memory : bool
        Work on a copy in memory.
    upgrade : bool
        Upgrade an older schema; False: refuse it.
    is_durable : bool
        Whether each result survives a power cut too.
    lease : float
        Seconds without a heartbeat after which other managers take this manager's tasks.
    max_attempts : int
        Lost attempts in a row after which a task becomes an ERROR.
    summary : Path or None
        Where the manager writes its summary.
    """

    cleanup: bool
    overwrite: bool
    reset: bool
    conditions: Sequence[ColumnElement[bool]]
    load_into_memory: bool
    upgrade: bool
    is_durable: bool
    lease: float
    max_attempts: int
    summary: Path | None


class Database(SharedDatabase, Protocol):
    """One connection to a TODO-list.

    Attributes
    ----------
    name : str
        The path, or the URL without its password.
    """

    name: str

    def begin(self, *, writes: bool) -> AbstractContextManager[Connection]:
        """Run one transaction: committed at the end of the block, rolled back on any exception.

        A transaction that only reads sees one state of the list.
        """

    def begin_upgrade(self) -> AbstractContextManager[Connection]:
        """Run one transaction that may change the schema, while no other can."""

    def begin_load(self) -> AbstractContextManager[Connection]:
        """Run one transaction that adds many rows, while no other can do so or change the schema."""

    def lock_tables(self) -> None:
        """Keep other managers from changing the list until the open transaction ends."""

    def iter_rows(self, table: Table) -> Generator[Row, None, None]:
        """Yield the rows of a table within the open transaction, with values in the order of its columns."""

    def add_rows(self, columns: Sequence[Column[Any]], records: Iterable[object]) -> None:
        """Add records, which have the columns as attributes, to the columns' table within the open transaction.

        Raises
        ------
        RowRefusedError
            If the database cannot hold one of them.
        """

    def ensure_schema(self) -> None:
        """Bring a file to the schema of this release; on a server, check that it has it.

        Raises
        ------
        CannotUpgradeError, OutdatedSchemaError, NotATodoFileError, UnknownRevisionError
        """

    def renew_statistics(self) -> None:
        """Renew the planner's statistics after many rows were added, where the planner needs them."""

    def recover(self) -> None:
        """Take in the journal of a killed writer, where there may be one."""

    def find_damage(self) -> list[str]:
        """Return a line for each damage that the database itself finds."""

    def find_result_log(self) -> Path | None:
        """Return the log of a killed manager whose results the list lacks, or None."""

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back."""


class TaskStore(Protocol):
    """The TODO-list that a manager has open; each method is one transaction.

    Attributes
    ----------
    name : str
        The path, or the URL without its password.
    path : Path or None
        The file; None on a server.
    lease : float or None
        Seconds without a heartbeat after which other managers take this manager's tasks; None where no other can.
    connection : ManagerConnection
        The connection that the manager shares with its callers.
    """

    name: str
    lease: float | None
    connection: ManagerConnection

    @property
    def path(self) -> Path | None:
        """The file; None on a server."""

    def run_in_transaction(self, method: str, work: Callable[[Transaction], T], *, writes: bool) -> T:
        """Return the result of `work`, whose changes are committed as a whole; `method` names the caller in errors."""

    def get_task(self, constraints: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the next pending task, or None."""

    def get_tasks(self, limit: int, constraints: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the next pending tasks, at most `limit`."""

    def claim_tasks(self, limit: int, constraints: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Start the next pending tasks, and return them with the numbers of their attempts."""

    def has_tasks_elsewhere(self, constraints: Mapping[str, Any]) -> bool:
        """Whether other managers run or lock tasks that may come back."""

    def start_tasks(self, method: str, priorities: Sequence[int]) -> None:
        """Mark tasks as STARTED, all or none."""

    def release_tasks(self, priorities: Sequence[int]) -> None:
        """Return tasks that this manager has started to pending."""

    def save_results(self, method: str, results: Sequence[Result]) -> list[Saved | None]:
        """Save results, all or none; None stands for one whose attempt is no longer the live one."""

    def heartbeat(self) -> None:
        """Send a sign of life, where other managers wait for one."""

    def count_by_status(self) -> Counter[int | None]:
        """Return how many tasks have each status, with None for pending."""

    def publish_status(self) -> None:
        """Publish the list's status now and then, where readers cannot see it in the list itself."""

    def is_in_place(self) -> bool:
        """Whether the list is still where it was opened."""

    def backup(self) -> None:
        """Write a list that is in memory to disk."""

    def finish(self) -> Path | None:
        """Write everything to disk for the last time, and release this manager's tasks.

        Returns
        -------
        Path or None
            The other file that holds the list, if its own was replaced.
        """

    def close(self) -> None:
        """Close the list."""

    def abort(self) -> None:
        """Close the list after a failed opening."""
