"""Open a TODO-file for work: check, upgrade, replay the log of a killed manager, reset interrupted tasks."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from msgspec.structs import asdict

from photometry_tasks import schema
from photometry_tasks.errors import OutdatedSchemaError, TodoFileInUseError, UnsavedResultsError
from photometry_tasks.files import get_stat, os_errors, resolve
from photometry_tasks.progress.throughput import Minutes
from photometry_tasks.sql import statements, transitions
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.sql.history import build_end, end_killed_workers, register_worker
from photometry_tasks.sql.transitions import Saved
from photometry_tasks.storage.base import OpenOptions
from photometry_tasks.storage.sqlite.database import SQLiteDatabase
from photometry_tasks.storage.sqlite.dbapi import sqlite_errors
from photometry_tasks.storage.sqlite.paths import check_summary_place, owner_errors
from photometry_tasks.storage.sqlite.result_log import Logged, ResultLog
from photometry_tasks.storage.sqlite.store import SQLiteStore
from photometry_tasks.storage.sqlite.working_copy import WorkingCopy
from photometry_tasks.storage.upgrade import upgrade_schema
from photometry_tasks.text import count_of

_logger = logging.getLogger("photometry_tasks")

#: Attempts at reading a file that a manager replaces meanwhile.
_TRIES = 20


#: Why a log of results is not read.
_OLDER = "is of an older release (commit 0177b06 reads it, with the list as it was before this release opened it)"


def open_todo_file(path: Path, options: OpenOptions) -> SQLiteStore:
    """Open a TODO-file of any release, or a copy of it in memory, and reset interrupted and failed tasks.

    Raises
    ------
    TodoError
        If the file is not a TODO-file, is damaged or in use, or has a schema that is unknown or cannot be upgraded. It
        is not changed.
    """
    if options.summary is not None:
        check_summary_place(options.summary, path)
    with owner_errors(path), ExitStack() as opened, os_errors(path), sqlite_errors(path):
        database, copy = SQLiteDatabase.open(path), None
        opened.callback(database.close)
        changes: list[str] = []
        if not database.has_current_schema():
            with database.begin(writes=False) as connection:
                changes = schema.find_changes(connection, path)
        if changes and not options.upgrade:
            raise OutdatedSchemaError(path=path, change=changes[0])
        if options.load_into_memory:
            copy = WorkingCopy(path, database, is_durable=options.is_durable)
            database = copy.database
            opened.callback(database.close)
            opened.callback(copy.close)
        is_rewritten = options.overwrite or options.cleanup
        if options.load_into_memory or is_rewritten:
            # Rewriting reads the indexes too: their damage must be found before the first change.
            database.check_content(with_indexes=is_rewritten)
        if changes:
            upgrade_schema(database)
        log = opened.enter_context(closing(ResultLog(path)))
        is_replayed = _replay_log(log, database, in_memory=options.load_into_memory)
        returned = _reset(database, options, in_memory=copy is not None)
        if copy is None:
            # Not earlier: a file that turns out to be damaged must stay unchanged.
            database.prepare_for_work(is_durable=options.is_durable)
        if is_rewritten:
            database.compact()
        with database.transaction(writes=True) as transaction:
            worker = register_worker(transaction, options.version, time.time())
        if copy is not None:
            has_changed = bool(changes) or is_replayed or is_rewritten or bool(returned)
            copy.begin(worker, is_changed=has_changed)
        store = SQLiteStore(path, database, copy, returned, worker["worker"])
        opened.pop_all()
    return store


def _reset(database: SQLiteDatabase, options: OpenOptions, *, in_memory: bool) -> dict[str, int]:
    """Return tasks to pending as the options say, and count the interrupted and failed tasks by their former status."""
    # Most files hold neither a worker that was killed nor an interrupted task: then nothing is written.
    if not options.overwrite and not (
        options.reset
        and (
            options.conditions
            or database.cursor.fetch_one(statements.UNENDED_WORKER, {}) is not None
            or database.cursor.fetch_one(statements.HAS_INTERRUPTED_TASKS, {}) == (1,)
        )
    ):
        return {}
    with database.transaction(writes=True) as transaction:
        end_killed_workers(transaction, () if options.overwrite else options.conditions)
        if options.overwrite:
            transitions.reset_all_tasks(transaction, forget=options.forget)
        reset = transitions.reset_interrupted_tasks(transaction, options.conditions, options.retries)
        if not in_memory:
            database.begin_generation()
    return reset.name_returned()


def upgrade_todo_file(path: Path) -> list[str]:
    """Upgrade a TODO-file to the schema of this release, and replay the log of a killed manager.

    Returns
    -------
    list of str
        A line for each change.
    """
    with (
        owner_errors(path),
        sqlite_errors(path),
        closing(SQLiteDatabase.open(path)) as database,
        closing(ResultLog(path)) as log,
    ):
        changes = upgrade_schema(database)
        if _replay_log(log, database, in_memory=False):
            changes.append("the results that a killed manager logged are saved")
        database.recover()
    return changes


def open_todo_file_with_log(path: Path, log: ResultLog) -> SQLiteDatabase:
    """Open a file read-only; if a log holds results that the file lacks, open a copy in memory that has them.

    Raises
    ------
    UnsavedResultsError
        If a result in the log cannot be read, or if the log belongs to another file or to another state of the file.
    """
    if get_stat(log.path) is None:
        return SQLiteDatabase.open_read_only(path)
    for _ in range(_TRIES):
        log.read_end = 0
        with ExitStack() as opened, os_errors(path), sqlite_errors(path):
            database, problem = SQLiteDatabase.open_read_only(path), None
            opened.callback(database.close)
            generation = database.get_generation()
            start = log.find_start(generation)
            if start is not None:
                file, database = database, database.load_into_memory()
                opened.callback(database.close)
                file.close()
                problem = _add_logged_results(database, log, start)
            elif log.has_results():
                is_older = log.is_of_older_release()
                problem = f"their log {_OLDER}" if is_older else "they belong to another state of the file"
            # In this order: a backup replaces the file before it empties the log.
            start_now = log.find_start(generation)
            with closing(SQLiteDatabase.open_read_only(path)) as file:
                if (start_now, file.get_generation()) != (start, generation):
                    continue  # meanwhile a backup has replaced the file or emptied the log
            if problem is not None:
                raise UnsavedResultsError(path=path, log=log.path, found=problem)
            opened.pop_all()
        return database
    raise TodoFileInUseError(path=path, found="a manager replaces it again and again")


class FileReader:
    """Opens a TODO-file for reading, again and again.

    Between two reads nothing is open but, while a log holds results that the file lacks, a copy in memory that has
    them. The next read adds the results that were logged since.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._copy: SQLiteDatabase | None = None
        self._path = path
        self._log = ResultLog(path)
        self._state: tuple[int, ...] | None = None
        self._tail = b""

    @contextmanager
    def open(self) -> Iterator[SQLiteDatabase]:
        """Open the file, or its copy; see `open_todo_file_with_log`."""
        if not self._continue():
            self.close()
            state = self._get_state()
            database = open_todo_file_with_log(self._path, self._log)
            if not database.is_copy:
                with closing(database):
                    yield database
                return
            self._copy, self._state = database, state
        self._tail = self._log.read_tail(self._log.read_end)
        assert self._copy is not None  # noqa: S101 - narrows the type for mypy
        yield self._copy

    def _continue(self) -> bool:
        """Add newly logged results to the copy; return False if there is none, or if it is not of this file and log."""
        copy, end = self._copy, self._log.read_end
        if copy is None or self._log.read_tail(end) != self._tail:
            return False
        is_complete = _add_logged_results(copy, self._log, end) is None
        # A backup replaces the file, then empties the log: in this order no result is missed.
        return is_complete and self._state == self._get_state()

    def _get_state(self) -> tuple[int, ...] | None:
        # The file is not opened: in the process of its manager, closing it would release SQLite's locks.
        found = get_stat(resolve(self._path))
        return None if found is None else (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def close(self) -> None:
        """Close the copy, if there is one."""
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.close()

    __del__ = close


def _add_logged_results(copy: SQLiteDatabase, log: ResultLog, start: int) -> str | None:
    """Save the results after an offset of a log in a copy of the file; return why not all could be saved, or None."""
    if not copy.has_current_schema():
        upgrade_schema(copy)
    with copy.transaction(writes=True) as transaction:
        _, _, lost = _replay_entries(transaction, log, start)
    return f"{count_of(lost, 'result')} cannot be read" if lost else None


def _replay_log(log: ResultLog, database: SQLiteDatabase, *, in_memory: bool) -> bool:
    """Save the results and repeat the resets that a killed manager logged, and return whether there were any.

    On disk the log is deleted; in memory it stays until the next backup.
    """
    start = log.find_start(database.get_generation())
    if start is None:
        if log.has_results():
            reason = _OLDER if log.is_of_older_release() else "belongs to another file"
            message = "%s: its log of results %s; it is kept as %s"
            _logger.warning(message, database.name, reason, log.keep_aside())
        log.remove()
        return False
    with database.transaction(writes=True) as transaction:
        number, reset, lost = _replay_entries(transaction, log, start)
        if lost:
            message = "%s: cannot replay %s (damaged, or without a matching task); the log is kept as %s"
            _logger.warning(message, database.name, count_of(lost, "logged result"), log.keep_aside())
        if not in_memory:
            # A file of this generation holds all results of the log.
            log.mark(database.begin_generation())
    if number:
        _logger.warning("%s: saved %s that a killed manager had logged", database.name, count_of(number, "result"))
    if reset:
        _logger.warning("%s: returned %s to pending, as a killed manager had", database.name, count_of(reset, "task"))
    if in_memory:
        log.close()
    else:
        log.remove()
    return number + reset > 0


def _replay_entries(transaction: Transaction, log: ResultLog, start: int) -> tuple[int, int, int]:
    """Replay a log from an offset on, and return the numbers of saved results, reset tasks and lost entries."""
    number = reset = lost = 0
    minutes, seen = Minutes(), None
    worker = log.find_worker(start) if start != log.read_end else None  # a reader that goes on has it
    if worker is not None and transaction.fetch_one(statements.WORKER, {"number": worker["worker"]}) is None:
        transaction.execute(statements.INSERT_WORKER, worker)
    for logged in log.iter_results(start):
        if isinstance(logged, list):
            reset += transitions.reset_by_hand(transaction, logged).returned.total()
        elif logged is not None and (saved := transaction.savepoint(partial(_replay_result, transaction, logged))):
            number += 1
            minutes.count(logged.attempt.ended, logged.result, saved.status)
            seen = {"number": logged.attempt.worker, "now": logged.attempt.ended, "end": None}
        else:
            lost += 1
    minutes.write(transaction)
    if seen is not None:
        transaction.execute(statements.TOUCH_WORKER, seen)
    return number, reset, lost


def _replay_result(transaction: Transaction, logged: Logged) -> Saved | None:
    """Save a logged result again; return None if its task does not match."""
    result = logged.result
    saved = transitions.replay_result(transaction, result, logged.target)
    if saved is None:
        return None
    own = {"priority": result.priority, "peak_memory": result.peak_memory, **asdict(logged.attempt)}
    transaction.execute(statements.INSERT_ATTEMPT, {**own, **build_end(saved)})
    return saved
