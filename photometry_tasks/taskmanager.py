"""`TaskManager`: hand out the tasks of a TODO-list, and save their results.

Opening a list imports the databases, and not this module: a worker process that imports it loads no SQLAlchemy.
"""

import atexit
import logging
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from photometry_tasks.errors import FileChangedError, UncommittedChangesError
from photometry_tasks.files import check_writable
from photometry_tasks.progress import summary as progress
from photometry_tasks.rules import validation
from photometry_tasks.rules.constraints import Constraints
from photometry_tasks.rules.results import Result, check_result, describe_unknown
from photometry_tasks.status import STATUS, name_counts
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.text import build_html, count_of, describe_tasks

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from photometry_tasks.constraints import build_constraints
    from photometry_tasks.progress.status_fields import LiveTasks
    from photometry_tasks.rules.estimate import Workload
    from photometry_tasks.sql.choices import Choice
    from photometry_tasks.sql.execution import Transaction
    from photometry_tasks.sql.transitions import Saved

__all__ = ["TaskManager", "build_constraints"]

_logger = logging.getLogger("photometry_tasks")


def __getattr__(name: str) -> Any:
    if name != "build_constraints":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from photometry_tasks.constraints import build_constraints

    return build_constraints


class TaskManager:
    """Hand out the tasks of a TODO-list, and save their results.

    Opening returns interrupted and failed tasks (STARTED, ABORT, ERROR) to pending, and with them the tasks that only
    they had skipped. On a server, tasks that another manager runs stay as they are.

    Parameters
    ----------
    todo_file : str or os.PathLike
        The TODO-file, a directory that holds `todo.sqlite`, or the URL of a list on a server, which many managers can
        share: postgresql+psycopg://user:password@host/database.
    cleanup : bool, optional
        Compact the list.
    overwrite : bool, optional
        Return all tasks to pending and delete all results; implies `cleanup`.
    cleanup_constraints : dict or list, optional
        Conditions on the interrupted and failed tasks that return to pending; by default all do. Either arguments of
        `build_constraints`, or a list of conditions (expressions, or SQL texts, which are trusted).
    summary : str or os.PathLike, optional
        The file into which the progress is written as JSON.
    summary_interval : int or None, optional
        Number of saved results after which the summary is written; None: only at opening and closing.
    load_into_memory : bool, optional
        Work on a copy in memory, which `backup` writes to disk. Meanwhile, results are logged in another file in the
        directory of the TODO-file. For TODO-files only.
    backup_interval : int or None, optional
        With `load_into_memory`, the number of saved results after which the manager backs up; None: only at closing.
    upgrade : bool, optional
        Upgrade a file with an older schema to the schema of this release; if False, refuse the file. A list on a
        server is upgraded by the command `photometry-tasks upgrade` only.
    durability : {'normal', 'full'}, optional
        With 'normal', a saved result survives the death of the process; with 'full', that of the machine too. On a
        server, a saved result survives both with either value.
    reset : bool, optional
        Whether opening returns tasks to pending; use False to join a run.
    lease : float, optional
        On a server: seconds without a heartbeat after which other managers take this manager's tasks.
    max_attempts : int, optional
        On a server: lost attempts in a row after which a task gets status ERROR. An attempt is lost when the lease of
        its manager expires.
    version : str, optional
        Version of the pipeline: any text that names its software, configuration and calibration. The history keeps
        which version made each result.
    forget : bool, optional
        With `overwrite`, delete the history of workers and attempts too.
    only_version : bool, optional
        Refuse a list that holds results of another version than `version`, or of an unknown one.
    retries : int, optional
        Opening returns a failed task (ERROR, ABORT) to pending only if it has failed at most `retries` times since it
        was last reset by hand; 0 returns none. By default opening returns every failed task.
    force : bool, optional
        Let the summary replace any file, not only a summary.

    Attributes
    ----------
    lease : float or None
        The argument `lease`, seconds; None for a file, whose tasks no other manager can have.

    Raises
    ------
    FileNotFoundError, TodoListNotFoundError
        If the file does not exist, or the server has no list.
    NotATodoFileError, DamagedFileError, UnknownRevisionError, CannotUpgradeError, OutdatedSchemaError
        If the file is not a TODO-file, is damaged, has the schema of a newer release, or has an older schema that
        cannot or must not be upgraded. The list is not changed.
    TodoFileInUseError, NotWritableError, MountWithoutLocksError, ListInUseError
        If another manager has the file open; if the file or its directory is read-only; if locks on its mount do
        not reach other nodes; or if `overwrite` is given while other managers work on the list.
    OtherVersionError
        If `only_version` is given, and the list holds results of another version.
    ServerError
        If the server cannot be reached, or refuses the call.
    ValueError
        If an argument is invalid.

    Notes
    -----
    Each method is one transaction: all of its changes are committed, or none. The manager, `conn`, `cursor` and
    `session` share one connection. If the caller has uncommitted changes there, a method raises, and keeps them
    unchanged. The next call of a method ends a read that the session has begun.
    """

    def __init__(
        self,
        todo_file: str | os.PathLike[str] | Location,
        cleanup: bool = False,
        overwrite: bool = False,
        cleanup_constraints: "Mapping[str, Any] | Sequence[str | ColumnElement[bool]] | None" = None,
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
        version: str | None = None,
        forget: bool = False,
        only_version: bool = False,
        retries: int | None = None,
        force: bool = False,
    ) -> None:
        from photometry_tasks.constraints import build_conditions
        from photometry_tasks.progress.throughput import Throughput
        from photometry_tasks.storage.base import OpenOptions
        from photometry_tasks.storage.open import check_versions, open_store

        conditions = build_conditions(cleanup_constraints)
        self.summary_interval = validation.check_interval("summary_interval", summary_interval)
        self.backup_interval = validation.check_interval("backup_interval", backup_interval)
        self.overwrite = bool(overwrite)
        if forget and not overwrite:
            raise validation.invalid_argument("forget", forget, "it needs `overwrite=True`; give both, or leave it out")
        self.load_into_memory = bool(load_into_memory)
        self.summary_file = None
        if summary is not None:
            self.summary_file = os.path.abspath(validation.check_path("summary", summary))  # noqa: PTH100 - a str is expected
        self.summary_counter = 0
        self.logger = _logger
        options = OpenOptions(
            cleanup=bool(cleanup),
            overwrite=self.overwrite,
            forget=bool(forget),
            reset=bool(reset),
            conditions=conditions,
            load_into_memory=self.load_into_memory,
            upgrade=upgrade,
            is_durable=validation.check_durability(durability),
            lease=validation.check_lease(lease),
            max_attempts=validation.check_positive("max_attempts", max_attempts),
            summary=None if self.summary_file is None else Path(self.summary_file),
            version=None if version is None else validation.check_text("version", version),
            retries=None if retries is None else validation.check_natural("retries", retries),
        )
        self._backup_counter = 0
        # Unknown keys of the details, of which the manager has warned.
        self._warned: set[str] = set()
        self._summary = progress.build_summary()
        if options.summary is not None:
            check_writable(options.summary)
            if not force:
                progress.check_place(options.summary)
        self._throughput = Throughput()
        location = parse_location(todo_file, "todo_file")
        if only_version:
            if options.version is None:
                raise validation.invalid_argument("only_version", only_version, "it needs `version`; give that too")
            check_versions(location, options.version)
        self._store = open_store(location, options)
        try:
            self.todo_file = self._store.name
            self.lease = self._store.lease
            self._connection = self._store.connection
            if returned := self._store.returned:
                is_loss = "ERROR" in returned or "ABORT" in returned
                fate = "; their results are deleted (reset=False of TaskManager keeps them)" if is_loss else ""
                level = logging.WARNING if is_loss else logging.INFO
                _logger.log(level, "%s: %s returned to pending%s", self.todo_file, describe_tasks(returned), fate)
            self.write_summary()
            _close_at_exit(self)
        except BaseException:
            self._store.abort()
            raise

    # --- handing out -------------------------------------------------------------------------------------

    def get_task(self, **constraints: Unpack[Constraints]) -> dict[str, Any] | None:
        """Return the pending task with the lowest priority, without reserving it (see `start_task`).

        Parameters
        ----------
        **constraints
            Arguments of `build_constraints`.

        Returns
        -------
        dict or None
            The task: priority, starid, method, sector, camera, ccd, cadence (seconds), datasource and tmag. None if no
            pending task matches the constraints.
        """
        return self._store.get_task(constraints)

    def get_tasks(self, limit: int, **constraints: Unpack[Constraints]) -> list[dict[str, Any]]:
        """Return the next pending tasks, in order of priority and at most `limit`; otherwise as `get_task`."""
        return self._store.get_tasks(validation.check_positive("limit", limit), constraints)

    def get_random_task(self, **constraints: Unpack[Constraints]) -> dict[str, Any] | None:
        """Return a random pending task, with equal probabilities; otherwise as `get_task`."""
        return self._store.get_random_task(constraints)

    def get_number_tasks(self, **constraints: Unpack[Constraints]) -> int:
        """Return the number of pending tasks that match the arguments of `build_constraints`."""
        return self._store.get_number_tasks(constraints)

    def read_workload(self, **constraints: Unpack[Constraints]) -> "Workload":
        """Return the run times of the results, and the tasks that are left; `run_tasks` needs them.

        Parameters
        ----------
        **constraints
            Arguments of `build_constraints`.

        Returns
        -------
        Workload
            Of a large list, a sample; see `TodoList.estimate`.
        """
        return self._store.read_workload(constraints)

    def claim_tasks(
        self, limit: int, *, has_failed: bool | None = None, **constraints: Unpack[Constraints]
    ) -> list[dict[str, Any]]:
        """Start the next pending tasks, in order of priority and at most `limit`, and return them.

        No other manager gets these tasks while the lease of this manager is valid. After `lease` seconds without a
        heartbeat, other managers on the same server take the tasks with their next claim. Every claim or save counts as
        a heartbeat; `heartbeat` sends one without a claim or a save.

        Parameters
        ----------
        limit : int
        has_failed : bool, optional
            With True, only tasks that have failed since they were last reset by hand; with False, only the others.
        **constraints
            Arguments of `build_constraints`.

        Returns
        -------
        list of dict
            Each task as `get_task` returns it, with the additional key `attempt`, an int that no other claim has. A
            result with this key is accepted only while its attempt is the last of the task.
        """
        return self._store.claim_tasks(validation.check_positive("limit", limit), constraints, has_failed)

    def heartbeat(self) -> None:
        """Send a heartbeat, to keep the claimed tasks; needed only while the manager neither claims nor saves."""
        self._try(self._throughput.write_if_due, self._write)
        self._store.heartbeat()

    def watch_running(self, find: "Callable[[], LiveTasks] | None") -> None:
        """Let readers of a file see which started tasks run, and that the others wait for a worker.

        Parameters
        ----------
        find : callable or None
            Returns the tasks that run. It is called when a claim, save or heartbeat publishes the status. None ends
            this: all started tasks count as running.
        """
        self._store.watch_running(find)

    def has_tasks_elsewhere(self, **constraints: Unpack[Constraints]) -> bool:
        """Whether a later claim may return tasks though the last returned none: other managers run or lock them."""
        return self._store.has_tasks_elsewhere(constraints)

    def find_skipped(self, priorities: Iterable[int]) -> list[int]:
        """Return those of the given tasks that are SKIPPED: a result may have covered tasks that were handed out."""
        return self._store.find_skipped(validation.check_integers("priorities", priorities))

    def start_task(self, taskid: int) -> None:
        """Mark a task as STARTED, so that it is not handed out again.

        Parameters
        ----------
        taskid : int
            The priority of the task.

        Raises
        ------
        UnknownTaskError
            If the task does not exist; also a LookupError.
        TaskFinishedError
            If the task has a status other than STARTED; also a ValueError.
        TaskOwnedError
            If another manager runs the task; also a ValueError.
        """
        self._store.start_tasks("start_task", [validation.check_integer("taskid", taskid)])

    def start_tasks(self, priorities: Iterable[int]) -> None:
        """Mark tasks as STARTED, all or none; otherwise as `start_task`."""
        self._store.start_tasks("start_tasks", validation.check_integers("priorities", priorities))

    def release_tasks(self, priorities: Iterable[int]) -> None:
        """Return started tasks to pending; finished tasks, and tasks of other managers, stay as they are."""
        self._store.release_tasks(validation.check_integers("priorities", priorities))

    def release_failures(self, failures: Mapping[int, int]) -> int:
        """Return failed tasks to pending as if they had not been tried: their failures do not count for `retries`.

        Parameters
        ----------
        failures : mapping
            The attempts that failed, by priority: the key `attempt` of the results.

        Returns
        -------
        int
            The number of tasks. A task with a later attempt stays as it is.
        """
        priorities = validation.check_integers("failures", list(failures))
        numbers = validation.check_integers("failures", list(failures.values()))
        number = self._store.release_failures(dict(zip(priorities, numbers, strict=True)))
        if self.load_into_memory:
            self._store.backup()  # the log of results does not hold this change
        return number

    def reset_tasks(self, *, everything: bool = False, **choice: "Unpack[Choice]") -> dict[str, int]:
        """Delete the results of chosen tasks, and return to pending these tasks and those that only they covered.

        A chosen task that a task outside the choice covers stays SKIPPED, which is logged.

        When this method returns, the change survives the death of the process. On a server, tasks that a manager runs
        stay as they are. The earlier failures of these tasks no longer count for `retries`. `undo_reset` puts the
        results back.

        Parameters
        ----------
        everything : bool, optional
            Choose every task; then give no other argument.
        **choice
            The chosen tasks meet all of these arguments: `status`, one or several STATUS; `error_like`, a part of their
            errors; `kind`, one or several kinds of failures; `made_by` and `not_made_by`, one or several versions of
            the pipeline; `attempts_min`, the least number of attempts; and arguments of `build_constraints`.

        Returns
        -------
        dict
            The numbers of tasks that returned to pending, by the name of their former status.

        Raises
        ------
        InvalidArgumentError
            If an argument is invalid, or no argument chooses tasks.
        """
        from photometry_tasks.sql.choices import build_chosen_tasks

        reset = self._store.reset_tasks(build_chosen_tasks(choice, everything=everything))
        if reset.covered:
            message = "%s: %s still SKIPPED, covered by tasks that were not chosen; reset those too to measure again"
            self.logger.warning(message, self.todo_file, count_of(reset.covered, "task"))
        return reset.name_returned()

    def undo_reset(self) -> dict[str, int]:
        """Put back the results that the last call of `reset_tasks` deleted, with their skips.

        Returns
        -------
        dict
            The numbers of tasks that changed, by the name of their status now.

        Raises
        ------
        CannotUndoError
            If nothing was reset by hand, or a result was saved or a task changed since.
        """
        restored = self._store.undo_reset()
        if self.load_into_memory:
            self._store.backup()  # the log of results does not hold this change
        return {name: number for name, number in name_counts(restored).items() if number}

    def reset_uncovered_tasks(self) -> int:
        """Return to pending the SKIPPED tasks that no task covers, without their results, and return their number.

        Lists of TASOC and of older releases may hold such tasks, which would never be measured: a task that covered
        them was skipped itself, or not measured. `find_notes` names them.
        """
        reset = self._store.reset_uncovered_tasks()
        if self.load_into_memory:
            self._store.backup()  # the log of results does not hold this change
        return reset.returned.total()

    # --- saving ------------------------------------------------------------------------------------------

    def save_result(self, result: Mapping[str, Any] | Result) -> STATUS | None:
        """Save the result of a task, and skip the tasks that the brightest star in its aperture covers.

        When this method returns, the result survives the death of the process. A second result of a task replaces the
        first; the tasks that only the first had skipped return to pending.

        Parameters
        ----------
        result : mapping
            The task as it was handed out, with the additional keys

            - `status` : the STATUS, an enum with the same values, or the integer;
            - `method_used` : str;
            - `time` : float, the run time, seconds;
            - `worker_wait_time` : float, optional, the time that the worker waited for the task, seconds;
            - `details` : mapping, optional, with any of `filepath_lightcurve`, `pos_centroid` (column, row;
              pixels), `stamp` (row1, row2, col1, col2), `stamp_resizes`, `mean_flux`, `variance`,
              `variability`, `rms_hour`, `ptp`, `mask_size`, `edge_flux`, `contamination`, `errors` (a list of
              texts), `skip_targets` (the star ids in the aperture), `kind` (of a failure: any text) and `extra`. A
              warning names each other key once.

            `extra` is a mapping of the pipeline's own numbers, texts, booleans and None by name, of at most 64 kB,
            which is kept with the result, and exported in the columns `extra_NAME`.

            The mapping is not changed. NaN is stored as NULL. A `Result` of `check_result` is not checked again.

        Returns
        -------
        STATUS or None
            The new status of the task: SKIPPED if a brighter star covers it. None if the result came too late and was
            refused: its attempt is not the last of the task, or it has no attempt and another manager runs the task.

        Raises
        ------
        InvalidResultError
            If a field is missing or invalid; also a ValueError.
        UnknownTaskError
            If the task does not exist; also a LookupError.

        Notes
        -----
        If another task already has the light-curve path, the result is saved as an ERROR, without a path and with the
        reason in its errors.
        """
        (status,) = self._save("save_result", [check_result(result)])
        return status

    def save_results(self, results: Iterable[Mapping[str, Any] | Result]) -> list[STATUS | None]:
        """Save results in one transaction, all or none, as `save_result` would save them one after the other.

        Returns
        -------
        list of STATUS or None
            The status that each task had when its result was saved; None for a result that came too late.

        Raises
        ------
        InvalidResultError, UnknownTaskError
            The error names the task. Nothing was saved.
        """
        return self._save("save_results", list(map(check_result, results)))

    def _save(self, method: str, results: list[Result]) -> list[STATUS | None]:
        found = self._store.save_results(method, results)
        # The results are saved: a failure from here on must not raise.
        self._try(self._count, results, found)
        is_due = self.summary_interval is not None and self.summary_counter >= self.summary_interval
        if is_due and self._try(self.write_summary):
            self.summary_counter = 0
        is_due = self.backup_interval is not None and self._backup_counter >= self.backup_interval
        if is_due and self.load_into_memory:
            self._try(self.backup)
        self._try(self._throughput.write_if_due, self._write)
        self._try(self._store.publish_status)
        return [None if task is None else task.status for task in found]

    def _count(self, results: list[Result], found: "list[Saved | None]") -> None:
        pairs = [(result, task) for result, task in zip(results, found, strict=True) if task is not None]
        progress.add_results(self._summary, pairs)
        self._throughput.count(pairs)
        self.summary_counter += len(pairs)
        self._backup_counter += len(pairs)
        for result in results:
            if result.unknown:
                self._warn_of_unknown(result.unknown)
        if len(pairs) < len(results):
            late = [result.priority for result, task in zip(results, found, strict=True) if task is None]
            message = "%s: refused %s that came too late (priority %s)"
            self.logger.warning(message, self.todo_file, count_of(len(late), "result"), ", ".join(map(str, late)))

    def _warn_of_unknown(self, keys: Iterable[str]) -> None:
        """Warn once of each key of the details that is not stored."""
        for key in sorted(set(keys) - self._warned):
            self._warned.add(key)
            self.logger.warning("%s: %s", self.todo_file, describe_unknown(key))

    def _write(self, work: "Callable[[Transaction], None]") -> None:
        self._store.run_in_transaction("write", work, writes=True)

    def _try(self, method: Callable[..., None], *arguments: object) -> bool:
        try:
            method(*arguments)
        except Exception:
            with suppress(Exception):  # a handler of the caller may fail too
                name = method.__name__.strip("_")
                self.logger.exception("%s: automatic %s failed; the manager will retry", self.todo_file, name)
            return False
        return True

    # --- summary, backup, closing ------------------------------------------------------------------------

    @property
    def summary(self) -> dict[str, Any]:
        """The progress in numbers: always the same dict, with the current counts of the table.

        It holds slurm_jobid, numtasks, tasks_run, last_error, mean_elaptime and mean_worker_waittime (seconds,
        exponentially weighted means in which the newest value has the weight 0.1), and a count for each STATUS. If a
        mapping is assigned, the dict gets its items; a number that it lacks begins anew.
        """
        if self._connection.is_open:
            progress.set_counts(self._summary, self._store.count_by_status())
        return self._summary

    @summary.setter
    def summary(self, summary: Mapping[str, Any]) -> None:
        if not isinstance(summary, Mapping):
            raise validation.invalid_argument("summary", summary, "a dict is expected")
        items = {**progress.build_summary(), **summary}
        self._summary.clear()
        self._summary.update(items)

    def write_summary(self) -> None:
        """Write the summary as JSON into the file that was given at opening, if any."""
        self._connection.check_ready("write_summary")
        if self.summary_file is not None:
            progress.write_summary(Path(self.summary_file), self.summary)

    def backup(self) -> None:
        """With `load_into_memory`, replace the file on disk by the copy in memory; otherwise complete the file itself.

        After that, a copy of the file alone (`cp`) has every result. On a server this does nothing.
        """
        self._connection.check_ready("backup")
        self._backup_counter = 0
        self._store.backup()

    def close(self) -> None:
        """Back up, write the summary, and close the list; a second call does nothing.

        Raises
        ------
        FileChangedError
            If another program has replaced the file, or has changed a file that was loaded into memory. The list is
            saved in another file, which the error names, and the manager is closed.
        OSError
            If the file or the summary cannot be written. If the file cannot, the manager stays open.
        """
        if not self._connection.is_open:
            self._connection.close()  # completes a call that was interrupted
            return
        self._connection.check_ready("close")
        if self._store.is_in_place():
            self._throughput.write_if_due(self._write, is_last=True)
        saved_as = self._store.finish()
        try:
            self.write_summary()
            _ = self.summary  # the last counts stay readable
        finally:
            self._store.close()
        if saved_as is not None:
            remedy = f"The list was saved as {saved_as} instead. Compare the two files, then continue with one of them"
            raise FileChangedError(path=self.todo_file, remedy=remedy)

    def __repr__(self) -> str:
        return f"<TaskManager of {self.todo_file!r}{' in memory' if self.load_into_memory else ''}>"

    def _repr_html_(self) -> str:
        note = "" if self._connection.is_open else "closed"
        counts = {} if note else name_counts(self._store.count_by_status())
        return build_html("TaskManager", self.todo_file, counts, note=note)

    # --- the connection that the manager shares with its callers -------------------------------------------

    @property
    def conn(self) -> "sqlite3.Connection":
        """The driver's connection, which the manager itself uses; for TODO-files only."""
        return self._connection.dbapi

    @property
    def cursor(self) -> "sqlite3.Cursor":
        """A cursor of `conn`, always the same, whose rows are `sqlite3.Row`; for TODO-files only."""
        return self._connection.cursor

    @property
    def session(self) -> "Session":
        """An ORM session on the manager's connection; the caller commits its changes."""
        return self._connection.session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection.is_forked() or not self._connection.is_open:
            return  # only the parent closes the manager
        if kind is None:
            self._connection.check_open()  # another thread must not close it
        try:
            if kind is None:
                self._connection.check_ready("close")
        except UncommittedChangesError:
            remedy = "They are rolled back, the results are saved, the list is closed. Commit changes within the block"
            raise UncommittedChangesError(method="The end of the `with` block", remedy=remedy) from None
        finally:
            try:
                # Uncommitted changes of the caller must not keep the results from being written to disk.
                self._connection.discard_changes()
                self.close()
            except BaseException:
                if self._connection.is_open:
                    self._store.abort()  # in memory, the next opening takes the results from the log
                raise

    def __del__(self) -> None:
        connection = getattr(self, "_connection", None)  # missing if opening failed
        if connection is None or not connection.is_open or connection.is_forked():
            return
        try:
            connection.discard_changes()
            self.close()
        finally:
            warnings.warn(f"{self!r} was not closed; call close()", ResourceWarning, source=self, stacklevel=2)


_open: weakref.WeakSet[TaskManager] = weakref.WeakSet()


def _close_at_exit(manager: TaskManager) -> None:
    """Close a manager at the exit of the interpreter, if it is still open."""
    _open.add(manager)
    # The last registered function runs first: it must run before filelock, loaded since, releases the locks.
    atexit.unregister(_close_all)
    atexit.register(_close_all)


def _close_all() -> None:
    for manager in list(_open):
        try:
            manager.__del__()
        except ResourceWarning:
            pass  # with -W error the warning is an error; the manager is closed by then
        except Exception:
            # If a manager cannot be closed, the others must be closed nevertheless.
            _logger.exception("%r could not be closed at exit", manager)
