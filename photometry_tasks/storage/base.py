"""The protocols of a database and of a task store, which each kind of database implements.

The implementations are in `storage/sqlite` and `storage/postgresql`; `storage/open.py` chooses between them. The
manager uses nothing else. A method with a body is the default of a database that needs nothing else; mypy demands the
others.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Select, Table

from photometry_tasks.constraints import build_expressions, check_constraints
from photometry_tasks.progress.status_fields import LiveTasks
from photometry_tasks.rules.estimate import Workload
from photometry_tasks.rules.results import Result
from photometry_tasks.sql import statements, transitions
from photometry_tasks.sql.execution import Row, Transaction
from photometry_tasks.sql.run_times import read_workload
from photometry_tasks.sql.sampling import draw_task
from photometry_tasks.sql.transitions import Reset, Saved
from photometry_tasks.sql.undo import undo_reset
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
    forget : bool
        With `overwrite`, delete the history too.
    reset : bool
        Return interrupted and failed tasks to pending.
    conditions : sequence of sqlalchemy.ColumnElement
        Conditions on the interrupted and failed tasks that return to pending.
    load_into_memory : bool
        Work on a copy in memory.
    upgrade : bool
        Upgrade an older schema; if False, refuse the list.
    is_durable : bool
        Whether each saved result survives a power cut.
    lease : float
        Seconds without a heartbeat after which other managers take this manager's tasks.
    max_attempts : int
        Lost attempts in a row after which a task gets status ERROR.
    summary : Path or None
        The file for the manager's summary.
    version : str or None
        Version of the pipeline.
    retries : int or None
        Failures since the last reset by hand up to which a failed task returns to pending; None sets no limit.
    """

    cleanup: bool
    overwrite: bool
    forget: bool
    reset: bool
    conditions: Sequence[ColumnElement[bool]]
    load_into_memory: bool
    upgrade: bool
    is_durable: bool
    lease: float
    max_attempts: int
    summary: Path | None
    version: str | None
    retries: int | None


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
        """Run one transaction that may change the schema, while no other upgrade or load can run."""

    def begin_load(self) -> AbstractContextManager[Connection]:
        """Run one transaction that adds many rows, while no other upgrade or load can run."""

    def begin_adding(self, stage: Callable[[], None]) -> AbstractContextManager[Connection]:
        """Run one transaction that adds rows to a list, after `stage` has put them into a temporary table.

        A file is upgraded to the schema of this release after `stage`; the list on a server must have this schema.

        Raises
        ------
        CannotUpgradeError, OutdatedSchemaError, NotATodoFileError, UnknownRevisionError
        """

    def lock_tables(self) -> None:
        """Keep other managers from changing the list until the open transaction ends."""
        return

    def iter_rows(self, table: Table) -> Generator[Row, None, None]:
        """Yield the rows of a table within the open transaction, with values in the order of its columns."""

    def add_rows(self, columns: Sequence[Column[Any]], rows: Iterable[Row]) -> None:
        """Add rows, with values in the order of the columns, to their table within the open transaction.

        Raises
        ------
        RowRefusedError
            If the database cannot hold a row.
        """

    def renew_statistics(self) -> None:
        """Renew the planner's statistics after many rows were added, where the planner needs them."""
        return

    def recover(self) -> None:
        """Complete or roll back the last write of a killed writer, if it left a journal."""
        return

    def limit_time(self, seconds: float | None) -> None:
        """Let queries of the open transaction fail that end later than so many seconds from now; None ends this."""

    def find_damage(self) -> list[str]:
        """Return a line for each damage that the database itself finds."""
        return []

    def find_holder(self) -> str | None:
        """Return the managers that have the list open, as a text, or None."""

    def find_live_tasks(self) -> LiveTasks:
        """Return tasks that managers run, the longest of them, by priority."""

    def find_oldest_transaction(self) -> dict[str, Any] | None:
        """Return the transaction of another program that makes claims slower (pid, application_name, age), or None."""
        return None

    def find_result_log(self) -> Path | None:
        """Return the log with results of a killed manager that the list lacks, or None."""
        return None

    def close(self) -> None:
        """Roll back an open transaction, and close the connection."""


class TaskStore(Protocol):
    """The TODO-list that a manager has open; each method is one transaction.

    Attributes
    ----------
    name : str
        The path, or the URL without its password.
    lease : float or None
        Seconds without a heartbeat after which other managers take this manager's tasks; None for a file.
    returned : dict
        The numbers of tasks that opening has returned to pending, by the name of their former status.
    connection : ManagerConnection
        The connection that the manager shares with its callers.
    """

    name: str
    lease: float | None
    returned: dict[str, int]
    connection: ManagerConnection

    def run_in_transaction(self, method: str, work: Callable[[Transaction], T], *, writes: bool) -> T:
        """Return the result of `work`, whose changes are committed as a whole; `method` names the caller in errors."""

    def get_task(self, constraints: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the next pending task, or None."""

    def get_tasks(self, limit: int, constraints: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the next pending tasks, at most `limit`."""

    def get_random_task(self, constraints: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a random pending task, with equal probabilities, or None."""
        work = partial(draw_task, conditions=build_expressions(check_constraints(constraints)))
        return self.run_in_transaction("get_random_task", work, writes=False)

    def get_number_tasks(self, constraints: Mapping[str, Any]) -> int:
        """Return the number of pending tasks."""
        statement = statements.build_count_pending(build_expressions(check_constraints(constraints)))

        def count(transaction: Transaction) -> int:
            number: int = transaction.connection.execute(statement).scalar_one()
            return number

        return self.run_in_transaction("get_number_tasks", count, writes=False)

    def read_workload(self, constraints: Mapping[str, Any]) -> Workload:
        """Return the run times of the results, and the tasks that are left."""
        conditions = build_expressions(check_constraints(constraints))

        def read(transaction: Transaction) -> Workload:
            return read_workload(transaction.connection, conditions)

        return self.run_in_transaction("read_workload", read, writes=False)

    def claim_tasks(
        self, limit: int, constraints: Mapping[str, Any], has_failed: bool | None = None
    ) -> list[dict[str, Any]]:
        """Start the next pending tasks, and return them with the numbers of their attempts.

        With `has_failed`, only tasks that have failed since they were last reset by hand, or only the others.
        """

    def has_tasks_elsewhere(self, constraints: Mapping[str, Any]) -> bool:  # noqa: ARG002 - the default needs none
        """Whether other managers run or lock tasks that may return to pending."""
        return False

    def find_skipped(self, priorities: Sequence[int]) -> list[int]:
        """Return those of the given tasks that are SKIPPED."""
        work = partial(transitions.find_skipped, priorities=priorities)
        return self.run_in_transaction("find_skipped", work, writes=False)

    def start_tasks(self, method: str, priorities: Sequence[int]) -> None:
        """Mark tasks as STARTED, all or none."""

    def release_tasks(self, priorities: Sequence[int]) -> None:
        """Return tasks that this manager has started to pending."""

    def reset_tasks(self, chosen: Select[Any]) -> Reset:
        """Reset the tasks whose priorities a statement selects, unless other managers run them."""

        def reset(transaction: Transaction) -> Reset:
            return transitions.reset_by_hand(transaction, transitions.select_chosen_tasks(transaction, chosen))

        return self.run_in_transaction("reset_tasks", reset, writes=True)

    def release_failures(self, failures: Mapping[int, int]) -> int:
        """Return failed tasks to pending, and let their last attempts, by priority, end as released."""

        def release(transaction: Transaction) -> int:
            return transitions.release_failures(transaction, failures)

        return self.run_in_transaction("release_failures", release, writes=True)

    def undo_reset(self) -> Counter[int | None]:
        """Put back what the last call of `reset_tasks` deleted, and return the number of tasks by their status now."""
        return self.run_in_transaction("undo_reset", partial(undo_reset, path=self.name), writes=True)

    def reset_uncovered_tasks(self) -> Reset:
        """Return to pending the SKIPPED tasks that no task covers."""
        return self.run_in_transaction("reset_uncovered_tasks", transitions.reset_uncovered_tasks, writes=True)

    def save_results(self, method: str, results: Sequence[Result]) -> list[Saved | None]:
        """Save results, all or none; return None for each result whose attempt is no longer live."""

    def watch_running(self, find: Callable[[], LiveTasks] | None) -> None:  # noqa: ARG002 - see SQLiteStore
        """Publish as running only what `find` returns, not all started tasks; a server shows all."""
        return

    def heartbeat(self) -> None:
        """Send a heartbeat, if other managers can take this manager's tasks."""
        return

    def count_by_status(self) -> Counter[int | None]:
        """Return how many tasks have each status, with None for pending."""

    def publish_status(self) -> None:
        """Publish the list's status at intervals, if readers cannot read the list itself."""
        return

    def is_in_place(self) -> bool:
        """Whether the open list was neither replaced nor deleted."""
        return True

    def backup(self) -> None:
        """Write what the file lacks into it."""
        return

    def finish(self) -> Path | None:
        """Write everything to disk for the last time, and release this manager's tasks.

        Returns
        -------
        Path or None
            The other file to which the list was saved, if another program replaced or changed the original.
        """

    def close(self) -> None:
        """Close the list."""

    def abort(self) -> None:
        """Close the list after a failed opening."""
