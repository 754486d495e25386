"""`TaskManager`: hands out the tasks of a TODO-list and keeps their results."""

import atexit
import logging
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from photometry_tasks.constraints import (
    Constraints,
    build_conditions,
    build_constraints,
    build_expressions,
    check_constraints,
)
from photometry_tasks.errors import FileChangedError
from photometry_tasks.files import check_writable
from photometry_tasks.progress import summary as progress
from photometry_tasks.progress.throughput import Throughput
from photometry_tasks.rules import validation
from photometry_tasks.rules.results import Result, check_result
from photometry_tasks.sql import statements, transitions
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.sql.sampling import draw_task
from photometry_tasks.status import STATUS
from photometry_tasks.storage.base import OpenOptions
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import open_store

if TYPE_CHECKING:
    import sqlite3

__all__ = ["TaskManager", "build_constraints"]

T = TypeVar("T")

_logger = logging.getLogger("photometry_tasks")


class TaskManager:
    """Hand out the tasks of a TODO-list and keep their results.

    Opening returns the tasks that were cut short or went wrong (STARTED, ABORT, ERROR) to pending, with the
    tasks that only they had skipped; on a server none that another manager is at.

    Parameters
    ----------
    todo_file : str or os.PathLike
        The TODO-file, a directory that holds `todo.sqlite`, or the URL of a list on a server that many managers share:
        postgresql+psycopg://user:password@host/database.
    cleanup : bool, optional
        Compact the file.
    overwrite : bool, optional
        Return all tasks to pending and delete all results; implies `cleanup`.
    cleanup_constraints : dict or list, optional
        Which of the tasks that were cut short return to pending: arguments of `build_constraints`, or a list
        of conditions (expressions, or SQL texts, which are trusted).
    summary : str or os.PathLike, optional
        Where to write the progress as JSON.
    summary_interval : int or None, optional
        Write it after so many saved results; None: only at opening and closing.
    load_into_memory : bool, optional
        Work on a copy in memory, which is put back on disk by `backup`; results are logged beside the file meanwhile.
    backup_interval : int or None, optional
        With `load_into_memory`, back up after so many saved results; None: only at closing.
    upgrade : bool, optional
        Bring a file with an older schema to that of this release; False: refuse it. A server is upgraded by command.
    durability : {'normal', 'full'}, optional
        Whether a saved result survives the death of the process, or that of the machine too. On a server both do.
    reset : bool, optional
        Whether opening returns tasks to pending; False: for those who join a run.
    lease : float, optional
        On a server: seconds without a sign of life after which others take this manager's tasks.
    max_attempts : int, optional
        On a server: how often in a row a task's managers may fall silent before it becomes an ERROR.

    Attributes
    ----------
    lease : float or None
        As it was given; None for a file, of which nobody else has tasks.

    Raises
    ------
    FileNotFoundError, TodoListNotFoundError
        If there is no such file, or no list on the server.
    NotATodoFileError, DamagedFileError, UnknownRevisionError, CannotUpgradeError, OutdatedSchemaError
        If it is something else, damaged, of a newer release, or older and not to be upgraded. It is not changed.
    TodoFileInUseError, NotWritableError, MountWithoutLocksError, ListInUseError
        If another manager has it, it or its directory is read-only, or nothing would keep other nodes from it; or if
        it is to be overwritten while others work on it.
    ServerError
        If the server cannot be reached, or refuses.
    ValueError
        If an argument is not what it should be.

    Notes
    -----
    Each method is one transaction: it is done as a whole or not at all. The manager, `conn`, `cursor` and `session`
    share one connection; a method that is called while the caller's own changes are uncommitted raises, and leaves
    them alone. A read that the session has begun ends with the next call of a method.
    """

    def __init__(
        self,
        todo_file: str | os.PathLike[str] | Location,
        cleanup: bool = False,
        overwrite: bool = False,
        cleanup_constraints: Mapping[str, Any] | Sequence[str | ColumnElement[bool]] | None = None,
        summary: str | os.PathLike[str] | None = None,
        summary_interval: int | None = 200,
        load_into_memory: bool = False,
        backup_interval: int | None = 10_000,
        *,
        upgrade: bool = True,
        durability: Literal["normal", "full"] = "normal",
        reset: bool = True,
        lease: float = 600.0,
        max_attempts: int = 3,
    ) -> None:
        conditions = build_conditions(cleanup_constraints)
        self.summary_interval = validation.check_interval("summary_interval", summary_interval)
        self.backup_interval = validation.check_interval("backup_interval", backup_interval)
        self.overwrite = bool(overwrite)
        self.load_into_memory = bool(load_into_memory)
        self.summary_file = None if summary is None else os.path.abspath(summary)  # noqa: PTH100 - a str is expected
        self.summary_counter = 0
        self.logger = _logger
        options = OpenOptions(
            cleanup=bool(cleanup),
            overwrite=self.overwrite,
            reset=bool(reset),
            conditions=conditions,
            load_into_memory=self.load_into_memory,
            upgrade=upgrade,
            is_durable=validation.check_durability(durability),
            lease=validation.check_lease(lease),
            max_attempts=validation.check_positive("max_attempts", max_attempts),
            summary=None if self.summary_file is None else Path(self.summary_file),
        )
        self._backup_counter = 0
        self._summary = progress.build_summary()
        if options.summary is not None:
            check_writable(options.summary)
        self._store = open_store(parse_location(todo_file), options)
        self._connection = self._store.connection
        self.todo_file = self._store.name
        self.lease = self._store.lease
        self._throughput = Throughput()
        try:
            self.write_summary()
        except BaseException:
            self._store.abort()
            raise
        _close_at_exit(self)

    # --- handing out -------------------------------------------------------------------------------------

    def get_task(self, **constraints: Unpack[Constraints]) -> dict[str, Any] | None:
        """Return the pending task with the lowest priority; it is not reserved (see `start_task`).

        Returns
        -------
        dict or None
            Of priority, starid, method, sector, camera, ccd, cadence (s), datasource, tmag; None if none matches the
            constraints, which are arguments of `build_constraints`.
        """
        return self._store.get_task(constraints)

    def get_tasks(self, limit: int, **constraints: Unpack[Constraints]) -> list[dict[str, Any]]:
        """Return the next pending tasks, in order of priority and at most `limit`; otherwise as `get_task`."""
        return self._store.get_tasks(validation.check_positive("limit", limit), constraints)

    def get_random_task(self, **constraints: Unpack[Constraints]) -> dict[str, Any] | None:
        """Return a pending task, each as likely as the others; otherwise as `get_task`."""
        expressions = build_expressions(check_constraints(constraints))
        return self._read("get_random_task", partial(draw_task, conditions=expressions))

    def get_number_tasks(self, **constraints: Unpack[Constraints]) -> int:
        """Return the number of pending tasks that match the arguments of `build_constraints`."""
        statement = statements.build_count_pending(build_expressions(check_constraints(constraints)))

        def count(transaction: Transaction) -> int:
            number: int = transaction.connection.execute(statement).scalar_one()
            return number

        return self._read("get_number_tasks", count)

    def claim_tasks(self, limit: int, **constraints: Unpack[Constraints]) -> list[dict[str, Any]]:
        """Start the next pending tasks, in order of priority and at most `limit`, and return them.

        They are this manager's: nobody else gets them. Only when it gives no sign of life for `lease` seconds (claims
        and saves are signs, and `heartbeat`) others on the same server take them, by their own next claim.

        Returns
        -------
        list of dict
            Each as `get_task` returns it, and besides `attempt`, an int that no other claim has. A result that
            holds it is accepted only as long as this attempt is the task's last.
        """
        return self._store.claim_tasks(validation.check_positive("limit", limit), constraints)

    def heartbeat(self) -> None:
        """Give a sign of life, to keep the tasks that were claimed; needed only where none is claimed or saved."""
        self._store.heartbeat()

    def has_tasks_elsewhere(self, **constraints: Unpack[Constraints]) -> bool:
        """Whether a later claim may give tasks though the last gave none: other managers run or lock them."""
        return self._store.has_tasks_elsewhere(constraints)

    def start_task(self, taskid: int) -> None:
        """Mark a task, given by its priority, as STARTED, so that it is not handed out again.

        Raises
        ------
        UnknownTaskError
            If there is no such task; also a LookupError.
        TaskFinishedError
            If it has a status already, other than STARTED; also a ValueError.
        TaskOwnedError
            If another manager has it; also a ValueError.
        """
        self._store.start_tasks("start_task", [validation.check_integer("taskid", taskid)])

    def start_tasks(self, priorities: Iterable[int]) -> None:
        """Mark tasks as STARTED, all or none; otherwise as `start_task`."""
        self._store.start_tasks("start_tasks", validation.check_integers("priorities", priorities))

    def release_tasks(self, priorities: Iterable[int]) -> None:
        """Return those of the tasks that were started, but not finished, to pending; not those of other managers."""
        self._store.release_tasks(validation.check_integers("priorities", priorities))

    def reset_tasks(
        self,
        *,
        status: STATUS | Iterable[STATUS] | None = None,
        error_like: str | None = None,
        **constraints: Unpack[Constraints],
    ) -> dict[str, int]:
        """Return chosen tasks to pending, and with them those that only they had skipped, and so on to the end.

        On a server, tasks that somebody is at stay with them.

        Parameters
        ----------
        status : STATUS or iterable of STATUS, optional
            What they have now; by default anything but pending.
        error_like : str, optional
            A part of their errors.
        **constraints
            Arguments of `build_constraints`.

        Returns
        -------
        dict
            How many went back, by the name of their status.
        """
        chosen = statements.build_chosen_tasks(status, error_like, constraints)
        reset = partial(transitions.reset_chosen_tasks, chosen=chosen)
        return self._store.run_in_transaction("reset_tasks", reset, writes=True)

    # --- saving ------------------------------------------------------------------------------------------

    def save_result(self, result: Mapping[str, Any] | Result) -> STATUS | None:
        """Save the result of a task, and skip the tasks that the brightest star in its aperture covers.

        When this returns, the result survives the death of the process. A second result of a task replaces the
        first, and undoes what that one had skipped.

        Parameters
        ----------
        result : mapping
            The task as it was handed out, and besides

            - `status` : the STATUS, an enum with the same values, or the integer;
            - `method_used` : str;
            - `time` : float, what it took, seconds;
            - `worker_wait_time` : float, optional, what the worker had waited for it, seconds;
            - `details` : mapping, optional, with any of `filepath_lightcurve`, `pos_centroid` (column, row;
              pixels), `stamp` (row1, row2, col1, col2), `stamp_resizes`, `mean_flux`, `variance`,
              `variability`, `rms_hour`, `ptp`, `mask_size`, `edge_flux`, `contamination`, `errors` (a list of
              texts) and `skip_targets` (the star ids in the aperture). Others are ignored.

            It is not changed. NaN is stored as NULL. A `Result` was checked before, by `check_result`.

        Returns
        -------
        STATUS or None
            What the task has now: SKIPPED if a brighter star covers it. None if the result was refused: it holds an
            attempt that is not the task's last, or none, and another manager has the task. It came too late.

        Raises
        ------
        InvalidResultError
            If a field is missing or is not what it should be; also a ValueError.
        UnknownTaskError
            If there is no such task; also a LookupError.

        Notes
        -----
        A light-curve path that another task has already makes the result an ERROR, without a path and with
        the reason in its errors.
        """
        (status,) = self._save("save_result", [check_result(result)])
        return status

    def save_results(self, results: Iterable[Mapping[str, Any] | Result]) -> list[STATUS | None]:
        """Save results in one transaction, all of them or none, as `save_result` would one after the other.

        Returns
        -------
        list of STATUS or None
            What each task had when its result was saved; None for a result that came too late.

        Raises
        ------
        InvalidResultError, UnknownTaskError
            They name the task; nothing was saved.
        """
        return self._save("save_results", list(map(check_result, results)))

    def _save(self, method: str, results: list[Result]) -> list[STATUS | None]:
        found = self._store.save_results(method, results)
        pairs = [(result, task) for result, task in zip(results, found, strict=True) if task is not None]
        if len(pairs) < len(results):
            late = [result.priority for result, task in zip(results, found, strict=True) if task is None]
            self.logger.warning("%s: results that came too late, and were refused: of tasks %s", self.todo_file, late)
        progress.add_results(self._summary, pairs)
        self._throughput.count(pairs)
        self.summary_counter += len(pairs)
        self._backup_counter += len(pairs)
        # The results are safe, whatever goes wrong here.
        if self.summary_interval is not None and self.summary_counter >= self.summary_interval:
            self._try(self.write_summary)
        if self.backup_interval is not None and self._backup_counter >= self.backup_interval:
            self._try(self.backup)
        self._throughput.write_if_due(self._write)
        self._store.publish_status()
        return [None if task is None else task.status for task in found]

    def _read(self, method: str, work: Callable[[Transaction], T]) -> T:
        return self._store.run_in_transaction(method, work, writes=False)

    def _write(self, work: Callable[[Transaction], None]) -> None:
        self._store.run_in_transaction("write", work, writes=True)

    def _try(self, method: Callable[[], None]) -> None:
        try:
            method()
        except OSError:
            self.logger.exception("Automatic %s failed; it is tried again later", method.__name__)

    # --- summary, backup, closing ------------------------------------------------------------------------

    @property
    def summary(self) -> dict[str, Any]:
        """The progress in numbers: always the same dict, whose counts are those of the table.

        It holds slurm_jobid, numtasks, tasks_run, last_error, mean_elaptime and mean_worker_waittime (seconds,
        exponentially weighted means with a weight of 0.1 for the newest), and a count for each STATUS.
        """
        if self._connection.is_open:
            progress.set_counts(self._summary, self._store.count_by_status())
        return self._summary

    def write_summary(self) -> None:
        """Write the summary as JSON to the path given at opening, if there is one."""
        self._connection.check_ready("write_summary")
        if self.summary_file is not None:
            progress.write_summary(Path(self.summary_file), self.summary, self._store.path)
        self.summary_counter = 0

    def backup(self) -> None:
        """With `load_into_memory`, replace the file on disk by the state in memory; else do nothing."""
        self._connection.check_ready("backup")
        self._backup_counter = 0
        self._store.backup()

    def close(self) -> None:
        """Back up, write the summary and close the file. Calling it again does nothing.

        Raises
        ------
        FileChangedError
            If another program has changed a file that was loaded into memory: all is then saved in another file,
            which the error names, and the manager is closed.
        OSError
            If the file or the summary cannot be written. If it is the file, the manager stays open.
        """
        if not self._connection.is_open:
            return
        self._connection.check_ready("close")
        if self._store.is_in_place():
            self._throughput.write_if_due(self._write, is_last=True)
        saved_as = self._store.finish()
        try:
            self.write_summary()
            _ = self.summary  # its last counts stay readable
        finally:
            self._store.close()
        if saved_as is not None:
            remedy = f"All was saved as {saved_as} instead; see with which of the two to go on"
            raise FileChangedError(path=self.todo_file, remedy=remedy)

    def __repr__(self) -> str:
        return f"<TaskManager of {self.todo_file!r}{' in memory' if self.load_into_memory else ''}>"

    # --- the connection that the manager shares with its callers -------------------------------------------

    @property
    def conn(self) -> "sqlite3.Connection":
        """The connection that the manager itself uses; for TODO-files only."""
        return self._connection.dbapi

    @property
    def cursor(self) -> "sqlite3.Cursor":
        """A cursor of it, always the same, whose rows are `sqlite3.Row`; for TODO-files only."""
        return self._connection.cursor

    @property
    def session(self) -> Session:
        """An ORM session on the manager's own connection; the caller commits it."""
        return self._connection.session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection.is_forked():
            return  # the parent leaves the block
        if kind is not None and self._connection.is_open:
            # The caller's half-done changes must not keep the results from being written to disk.
            self._connection.discard_changes()
        self.close()

    def __del__(self) -> None:
        connection = getattr(self, "_connection", None)  # there is none if opening failed
        if connection is None or not connection.is_open or connection.is_forked():
            return
        try:
            connection.discard_changes()
            self.close()
        finally:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)


_open: weakref.WeakSet[TaskManager] = weakref.WeakSet()


def _close_at_exit(manager: TaskManager) -> None:
    """Close a manager when the interpreter exits, unless it is closed by then."""
    _open.add(manager)
    # The function that is registered last runs first: before filelock, which was loaded since, releases the locks.
    atexit.unregister(_close_all)
    atexit.register(_close_all)


def _close_all() -> None:
    for manager in list(_open):
        try:
            manager.__del__()
        except ResourceWarning:
            pass  # -W error makes the warning an error; the manager is closed by then
        except Exception:
            # A manager that cannot be closed must not keep the others from it.
            _logger.exception("%r was not closed, and could not be", manager)
