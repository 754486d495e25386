"""A connection to a TODO-file, or to a copy of it in memory: transactions, pragmas, and its journal."""

import logging
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from sqlalchemy import Column, Connection, Engine, Table, create_engine, event, select
from sqlalchemy.pool import NullPool, StaticPool

from photometry_tasks.errors import (
    BackupError,
    CannotUpgradeError,
    DamagedFileError,
    DiskFullError,
    NotWritableError,
    RowRefusedError,
    TodoError,
    TodoFileInUseError,
)
from photometry_tasks.files import check_writable, delete_temporaries, get_stat, os_errors, resolve
from photometry_tasks.progress.status_fields import NO_LIVE_TASKS, LiveTasks
from photometry_tasks.sql.execution import DriverCursor, Row, Transaction
from photometry_tasks.storage.base import Database
from photometry_tasks.storage.connection import find_interrupt
from photometry_tasks.storage.sqlite.dbapi import (
    HintingCompiler,
    UnownedConnection,
    build_dialect,
    build_insert,
    configure,
    connect,
    connect_new,
    find_damage,
    set_journal_mode,
    sqlite_errors,
    tuple_cursor,
)
from photometry_tasks.storage.sqlite.introspection import (
    check_size,
    count_orphans,
    count_rows,
    has_current_schema,
)
from photometry_tasks.storage.sqlite.lock import TodoLock, find_holder, find_readers
from photometry_tasks.storage.sqlite.paths import FileIdentity, find_temporaries, owner_errors
from photometry_tasks.storage.sqlite.result_log import ResultLog
from photometry_tasks.storage.sqlite.status_file import read_live_tasks
from photometry_tasks.storage.upgrade import upgrade_schema
from photometry_tasks.text import count_of

if TYPE_CHECKING:
    import sqlite3

_logger = logging.getLogger("photometry_tasks")

#: Seconds for which closing waits for readers.
_PATIENCE = 0.5

#: Values in a statement: SQLite before 3.32 takes no more than 999.
_MOST_VALUES = 900

#: Bytes. SQLite shortens the write-ahead log to this size after a checkpoint: a longer log shows that a reader has kept
#: it from that. Usually the log has about 4 MB.
_LONG_LOG = 64_000_000


class SQLiteDatabase(Database):
    """One connection to a TODO-file, or to a copy of it in memory.

    Attributes
    ----------
    name : str
        The path.
    dbapi : sqlite3.Connection
        The driver's connection, which the manager shares with its callers.
    cursor : DriverCursor
        Runs Core statements on the driver's connection.
    is_copy : bool
        Whether this is a copy in memory.
    """

    def __init__(self, path: Path, dbapi: "sqlite3.Connection", lock: TodoLock | None = None) -> None:
        self.name = str(path)
        self._path = path
        self._lock = lock
        # The manager begins its transactions itself. The driver's own stay as existing pipelines expect them: a change
        # through `cursor` begins a transaction, and `conn.commit()` ends it.
        self.dbapi = dbapi
        self._connection: Connection | None = None
        self._unowned: UnownedConnection | None = None
        self.cursor = DriverCursor(tuple_cursor(dbapi), build_dialect(), dbapi.IntegrityError)
        self._identity: FileIdentity | None = None
        self._is_new_generation_due = self.is_copy = False
        self._outer_error: BaseException | None = None
        self._is_busy = self._is_closed = self._is_durable = self._is_synced = self._has_warned = False
        self._may_leave_log = False

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection, created at its first use: that takes as long as opening the file."""
        if self._connection is None:
            unowned = self._unowned = UnownedConnection(self.dbapi)
            engine = create_engine(
                "sqlite://", creator=lambda: unowned, poolclass=StaticPool, pool_reset_on_return=None
            )
            engine.dialect.statement_compiler = HintingCompiler
            self._connection = engine.connect()
        return self._connection

    # --- opening -----------------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing file for work, and lock it against other managers until it is closed.

        Raises
        ------
        NotATodoFileError, DamagedFileError
            If the file is not a database, or is truncated. It is not changed.
        TodoFileInUseError, MountWithoutLocksError, NotWritableError
            If another manager has the file open, or the file cannot be locked or written.
        """
        check_writable(path)
        with owner_errors(path):
            lock = TodoLock(path)
            try:
                delete_temporaries(find_temporaries(path))
                return cls._open(path, "rw", lock)
            except BaseException:
                lock.close()
                raise

    @classmethod
    def open_read_only(cls, path: Path) -> Self:
        """Open an existing file read-only, while a manager may work on it; otherwise as `open`.

        A text that is not UTF-8, which another program may have stored, is read with lone surrogates for its bytes.
        """
        with owner_errors(path):
            has_log = get_stat(Path(f"{resolve(path)}-wal")) is not None
            try:
                database = cls._open(path, "ro")
            except NotWritableError:
                # A file that another program left in WAL mode, without a log, where SQLite can create no other file.
                if has_log:
                    raise
                return cls._open(path, "ro&immutable=1")
            database._may_leave_log = not has_log
            return database

    @classmethod
    def _open(cls, path: Path, mode: str, lock: TodoLock | None = None) -> Self:
        database = cls(path, connect(path, mode), lock)
        try:
            if database.keeps_readers_out:
                # The index of a write-ahead log is in shared memory, which other nodes cannot see. SQLite works without
                # it if this is set before the first read (https://sqlite.org/wal.html#noshm).
                database.dbapi.execute("PRAGMA locking_mode=EXCLUSIVE")
            check_size(database.dbapi, path)
            if mode == "ro":
                with sqlite_errors(path):
                    database.dbapi.execute("SELECT sql FROM sqlite_master").fetchall()  # the schema must be UTF-8
                database.dbapi.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        except BaseException:
            database._lock = None  # the caller releases it until the database is open
            database.close()
            raise
        return database

    @classmethod
    def create(cls, path: Path) -> Self:
        """Open an empty file to fill it; on failure the caller deletes the file."""
        database = cls(path, connect_new(path))
        set_journal_mode(database.dbapi, "MEMORY")  # for savepoints
        return database

    def load_into_memory(self) -> "SQLiteDatabase":
        """Return a copy in memory."""
        import sqlite3

        copy = SQLiteDatabase(self._path, configure(sqlite3.connect(":memory:", check_same_thread=False)))
        copy.is_copy = True
        copy.dbapi.text_factory = self.dbapi.text_factory
        try:
            with sqlite_errors(self._path):
                # SQLite waits 5 s for this read lock; without it, the copy would wait for other programs without end.
                self.dbapi.execute("BEGIN")
                self.dbapi.execute("SELECT 1 FROM sqlite_master").fetchone()
                self.dbapi.backup(copy.dbapi)
                self.dbapi.rollback()
        except BaseException:
            copy.close()
            raise
        return copy

    def move_lock_to(self, copy: "SQLiteDatabase") -> None:
        """Close the file, and pass its lock to a copy in memory."""
        copy._lock, self._lock = self._lock, None
        self.close()

    def recover(self) -> None:
        """Complete or roll back the last write of a killed writer, and delete what it left next to the file.

        Raises
        ------
        TodoFileInUseError
            If the writer still runs.
        """
        with sqlite_errors(self._path):
            set_journal_mode(self.dbapi, "DELETE")
            left = [self._beside(suffix) for suffix in ("-journal", "-wal", "-shm") if get_stat(self._beside(suffix))]
            if left:
                # SQLite has taken in a journal or a log with content; it leaves an empty one to the next writer.
                self.dbapi.execute("BEGIN EXCLUSIVE")
                if tuple_cursor(self.dbapi).execute("PRAGMA journal_mode").fetchone() == ("delete",):
                    for path in left:
                        path.unlink(missing_ok=True)
                self.dbapi.execute("ROLLBACK")

    @property
    def keeps_readers_out(self) -> bool:
        """Whether other programs cannot read the file while a manager has it open."""
        return self._lock is not None and not self._lock.mount.is_local

    def prepare_for_work(self, *, is_durable: bool) -> None:
        """Switch to a write-ahead log: other programs can read meanwhile, and a commit need not be synced.

        Each commit survives the death of the process (https://sqlite.org/wal.html).

        Parameters
        ----------
        is_durable : bool
            Whether each commit is synced nevertheless, and survives a power cut too.
        """
        self._identity = FileIdentity(self._path)
        # A log of results that was written before the first change belongs to another state of the file.
        self._is_new_generation_due = True
        with sqlite_errors(self._path):
            set_journal_mode(self.dbapi, "WAL")
            self.dbapi.execute("BEGIN IMMEDIATE")  # fails if SQLite, after an error, has opened the file read-only
            self.dbapi.rollback()
        self.dbapi.execute(f"PRAGMA synchronous={'FULL' if is_durable else 'NORMAL'}")
        self.dbapi.execute(f"PRAGMA journal_size_limit={_LONG_LOG}")
        self._is_durable = self._is_synced = is_durable

    # --- transactions ------------------------------------------------------------------------------------

    @contextmanager
    def begin(self, *, writes: bool) -> Iterator[Connection]:
        """Run one transaction: committed at the end of the block, rolled back on any exception."""
        self.connection.begin()
        with self.transaction(writes=writes) as transaction:
            if not writes:
                self.dbapi.execute("BEGIN")  # otherwise each statement would be a separate transaction
            yield transaction.connection

    @contextmanager
    def begin_upgrade(self) -> Iterator[Connection]:
        """Run one transaction in which a table may be rebuilt without deleting the rows that refer to it."""
        self.dbapi.execute("PRAGMA foreign_keys=OFF")  # within a transaction this has no effect
        try:
            with self.begin(writes=True) as connection:
                before = count_orphans(self.dbapi)
                yield connection
                after = count_orphans(self.dbapi)
                if lost := [table for table in before if after.get(table, 0) > before[table]]:
                    problem = f"rows of {', '.join(lost)} would refer to missing rows"
                    raise CannotUpgradeError(path=self._path, problem=problem, remedy="Report this as a bug.")
        finally:
            self.dbapi.execute("PRAGMA foreign_keys=ON")

    def begin_load(self) -> AbstractContextManager[Connection]:
        """Run one transaction that adds many rows."""
        return self.begin(writes=True)

    @contextmanager
    def begin_adding(self, stage: Callable[[], None]) -> Iterator[Connection]:
        """Run one transaction that adds rows; `stage` needs no lock, and the file is upgraded after it."""
        with self.begin(writes=False):
            stage()
        upgrade_schema(self)
        with self.begin(writes=True) as connection:
            yield connection

    @contextmanager
    def transaction(self, *, writes: bool) -> Iterator[Transaction]:
        """Run one transaction of a manager, at the driver's cost; otherwise as `begin`."""
        try:
            yield self.start_transaction(writes=writes)
            self.commit()
        except BaseException as error:
            self.rollback_and_raise(error)

    def start_transaction(self, *, writes: bool, is_synced: bool = True) -> Transaction:
        """Begin a transaction, which `commit` or `rollback_and_raise` ends.

        Parameters
        ----------
        writes : bool
        is_synced : bool, optional
            Whether the commit of a durable database waits for the disk.
        """
        connection = self.connection  # created before the transaction: SQLAlchemy begins with a rollback
        self._is_busy = True
        self._outer_error = sys.exc_info()[1]  # if the caller calls from an `except` block
        if self._is_durable and not is_synced:
            self._is_synced = False
            self.dbapi.execute("PRAGMA synchronous=NORMAL")
        if writes:
            # IMMEDIATE: another writer could make a transaction fail that reads first and writes later.
            self.cursor.run_sql("BEGIN IMMEDIATE")
            if self._is_new_generation_due:
                self.begin_generation()
        return Transaction(connection, self.cursor)

    def commit(self) -> None:
        """Commit the open transaction."""
        connection = self._connection
        # Most transactions need the driver alone; SQLAlchemy takes part where its connection was used.
        if self.dbapi.in_transaction:
            self.dbapi.commit()
            self._is_new_generation_due = False
        if connection is not None and connection.in_transaction():
            connection.commit()
        self._end()

    def rollback_and_raise(self, error: BaseException) -> NoReturn:
        """Roll back the open transaction, and raise the error as `sqlite_errors` translates it."""
        self.rollback()
        interrupt = find_interrupt(error, self._outer_error)
        if interrupt is not error:
            raise interrupt from None
        with sqlite_errors(self._path):
            raise error

    def rollback(self) -> None:
        """Roll back the open transaction, if there is one."""
        if self._connection is not None and self._connection.get_transaction() is not None:
            self.forget_connection()
        self.dbapi.rollback()
        self._end()

    def _end(self) -> None:
        if self._is_durable and not self._is_synced:
            self.dbapi.execute("PRAGMA synchronous=FULL")
            self._is_synced = True
        self._is_busy = False

    def finish_interrupted(self) -> None:
        """Roll back the manager's transaction if an exception interrupted it, at any point."""
        # If Ctrl-C interrupts a statement of a caller's session, SQLAlchemy regards the connection as lost.
        if self._is_busy or (self._connection is not None and self._connection.invalidated):
            self.forget_connection()
            self.rollback()

    def forget_connection(self) -> None:
        """Let the next use of SQLAlchemy's connection create it anew: any exception may have interrupted it."""
        self._connection = None
        if self._unowned is not None:
            self._unowned.close()

    # --- the manager's callers ---------------------------------------------------------------------------

    def get_dbapi(self, attribute: str) -> "sqlite3.Connection":  # noqa: ARG002 - only a server refuses it
        """Return the driver's connection."""
        return self.dbapi

    def has_changes(self) -> bool:
        """Whether an open transaction has uncommitted changes."""
        return self.dbapi.in_transaction

    def leak_in_child(self) -> None:
        """Keep a forked child from using or closing the connection, even at its exit.

        In the child SQLite assumes that it holds the parent's locks, and would delete the parent's log
        (https://sqlite.org/howtocorrupt.html, section 2.6).
        """
        import ctypes

        self.dbapi.set_authorizer(lambda *_: 1)  # SQLITE_DENY, for code that already has the connection
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.dbapi))

    # --- whole tables ------------------------------------------------------------------------------------

    def iter_rows(self, table: Table) -> Generator[Row, None, None]:
        """Yield the rows of a table within the open transaction, with values in the order of its columns."""
        with sqlite_errors(self._path):
            yield from tuple_cursor(self.dbapi).execute(str(select(table).compile(dialect=build_dialect())))

    def add_rows(self, columns: Sequence[Column[Any]], rows: Iterable[Row]) -> None:
        """Add rows, with values in the order of the columns, to their table within the open transaction.

        Raises
        ------
        RowRefusedError
        """
        cursor, rows, size = tuple_cursor(self.dbapi), iter(rows), len(columns)
        one, another = build_insert(columns[0].table.name, tuple(column.name for column in columns))
        number = _MOST_VALUES // size
        many = one + another * (number - 1)
        try:
            # A row takes half of the time if a statement inserts many.
            while values := list(chain.from_iterable(islice(rows, number))):
                found = len(values) // size
                cursor.execute(many if found == number else one + another * (found - 1), values)
        except (self.dbapi.IntegrityError, UnicodeEncodeError) as error:
            raise RowRefusedError(path=self._path, table=columns[0].table, found=error) from error

    # --- the state of the file ---------------------------------------------------------------------------

    def has_current_schema(self) -> bool:
        """Whether the file has the schema of this release."""
        with sqlite_errors(self._path):
            return has_current_schema(self.dbapi)

    def get_data_version(self) -> int:
        """Return a number that changes whenever another connection changes the file; a copy in memory has no other."""
        return 0 if self.is_copy else int(self.cursor.run_sql("PRAGMA data_version").fetchone()[0])

    def get_total_changes(self) -> int:
        """Return how many rows were changed through this connection, by the manager or its caller."""
        return self.dbapi.total_changes

    def has_triggers(self) -> bool:
        """Whether other programs have triggers in the file."""
        return self.cursor.run_sql("SELECT 1 FROM sqlite_master WHERE type = 'trigger'").fetchone() is not None

    def check_content(self, *, with_indexes: bool) -> None:
        """Check that the whole database can be read, and if asked that each index agrees with its table.

        Raises
        ------
        DamagedFileError
        """
        with os_errors(self._path), sqlite_errors(self._path):
            found = find_damage(self.dbapi, "integrity_check" if with_indexes else "quick_check")
        if found:
            raise DamagedFileError(path=self._path, found="; ".join(found[:3]))

    def find_damage(self) -> list[str]:
        """Return a line for each damage that SQLite finds, and for each table with orphans."""
        with os_errors(self._path), sqlite_errors(self._path):
            damage = [f"SQLite reports: {line}" for line in find_damage(self.dbapi, "integrity_check")]
            orphans = count_orphans(self.dbapi).items()
        return damage + [
            f"{table}: {count_of(number, 'row')} with a reference to a missing row"
            for table, number in orphans
            if number
        ]

    def find_holder(self) -> str | None:
        """Return the process that works on the file, or None."""
        return find_holder(self._path)

    def limit_time(self, seconds: float | None) -> None:
        """Let queries fail that end later than so many seconds from now; None ends this."""
        end = time.monotonic() + (seconds or 0.0)
        self.dbapi.set_progress_handler(None if seconds is None else lambda: time.monotonic() > end, 100_000)

    def find_live_tasks(self) -> LiveTasks:
        """Return tasks that the manager of the file runs, the longest of them, by priority."""
        return NO_LIVE_TASKS if self.find_holder() is None else read_live_tasks(self._path)

    def find_result_log(self) -> Path | None:
        """Return the log with results of a killed manager that the file lacks, or None."""
        log = ResultLog(self._path)
        return log.path if log.has_results() else None

    def get_generation(self) -> int:
        """Return the generation, a number for the state of the file; 0 if it has none."""
        return int(self.cursor.run_sql("PRAGMA user_version").fetchone()[0])

    def begin_generation(self) -> int:
        """Set and return a new generation: the state of the file after the open transaction, or the next."""
        number = secrets.randbelow(2**31 - 1) + 1
        self.cursor.run_sql(f"PRAGMA user_version={number}")
        return number

    def is_replaced(self) -> bool:
        """Whether the open file was replaced or deleted."""
        return self._identity is not None and not self._identity.is_in_place()

    def warn_of_readers(self) -> None:
        """Warn once if the write-ahead log has grown because a reader keeps its transaction open."""
        if self._identity is None or self._has_warned:
            return
        try:
            size = self._beside("-wal").stat().st_size
        except OSError:
            return
        if size > _LONG_LOG:
            self._has_warned = True
            reason = f"{_STILL_READ}{find_readers(self._beside('-shm'))}"
            message = "%s: %s. Its -wal file has grown to %.0f MB, which makes each task slower; end that transaction"
            _logger.warning(message, self.name, reason, size / 1e6)

    def compact(self) -> None:
        """Rewrite the file without its free pages, and renew the planner's statistics."""
        with sqlite_errors(self._path):
            self.dbapi.execute("VACUUM")
            self.dbapi.execute("ANALYZE")
            # Statistics of an index that changes with every task would soon mislead the planner.
            self.dbapi.execute("DELETE FROM sqlite_stat1 WHERE idx IN ('status_idx', 'todolist_pending_idx')")
            self.dbapi.commit()
            self.dbapi.execute("ANALYZE sqlite_master")  # reloads the statistics

    def checkpoint(self) -> None:
        """Write the content of the write-ahead log into the file, for programs that copy the file alone."""
        try:
            with sqlite_errors(self._path):
                (is_blocked, *_) = tuple_cursor(self.dbapi).execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        except TodoFileInUseError:  # by an open cursor of the caller
            is_blocked = True
        if is_blocked:
            reason = f"{_STILL_READ}{find_readers(self._beside('-shm'))}"
            message = "%s: %s. Its newest results stay in its -wal file: copy both files, or back up again later"
            _logger.warning(message, self.name, reason)

    def copy_to(self, path: Path) -> None:
        """Write the whole database into an empty file through SQLite's backup API, and compare the row counts.

        Raises
        ------
        BackupError, DiskFullError
        """
        import sqlite3

        try:
            with sqlite_errors(self._path), closing(connect_new(path)) as target:
                self.dbapi.backup(target)
                set_journal_mode(target, "DELETE")
                copied, ours = count_rows(target), count_rows(self.dbapi)
        except DiskFullError:
            raise
        except (TodoError, sqlite3.Error) as error:
            raise BackupError(path=self._path, found=error.__cause__ or error) from error
        if copied != ours:
            raise BackupError(path=self._path, found=f"the row counts differ (list: {ours}; copy: {copied})")

    # --- closing -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Roll back an open transaction, close the connection, and leave a single file.

        A second call completes a call that was interrupted.
        """
        with ExitStack() as steps:  # each step is done, whatever the others raise
            if self._lock is not None:
                steps.callback(self._lock.close)
            if self._identity is not None:
                steps.callback(self._identity.remove_log)
            if self._may_leave_log:
                steps.callback(self._remove_empty_log)
            steps.callback(self.dbapi.close)
            try:
                if not self._is_closed:
                    self.cursor.close()
                    self.forget_connection()
                    self.dbapi.rollback()
                    if self._identity is not None:
                        self._finish_work()
            finally:
                self._is_closed = True
        self._lock = self._identity = None

    def _remove_empty_log(self) -> None:
        """Let SQLite delete the empty log of a file that another program left in WAL mode: it does so for a writer."""
        self._may_leave_log = False
        log = get_stat(self._beside("-wal"))
        if log is not None and not log.st_size:
            with suppress(TodoError), closing(connect(self._path, "rw")) as dbapi, sqlite_errors(self._path):
                dbapi.execute("SELECT 1 FROM sqlite_master").fetchone()

    def _finish_work(self) -> None:
        """Write the content of the write-ahead log into the file, delete the log, and close the connection."""
        import sqlite3

        if self.is_replaced():
            return  # the path belongs to another program's file, or to none
        reason = "its directory has become read-only"
        try:
            if self._leave_wal_mode() == "wal":
                reason = _STILL_READ
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            is_read = code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            reason = _STILL_READ if is_read else str(error)
        if reason is _STILL_READ:
            with suppress(sqlite3.OperationalError):
                tuple_cursor(self.dbapi).execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self.dbapi.close()  # it may still delete the log
        for suffix in ("-wal", "-journal"):
            if get_stat(self._beside(suffix)):
                warnings.warn(
                    f"{self.name}: {reason}. Its {suffix} file stays; keep it until the next opening", stacklevel=5
                )

    def _leave_wal_mode(self) -> str:
        """Return the journal mode that the file has then; a reader that polls is waited for, which SQLite does not."""
        import sqlite3

        end = time.monotonic() + _PATIENCE
        while True:
            is_over = time.monotonic() > end
            try:
                mode = set_journal_mode(self.dbapi, "DELETE")
            except sqlite3.OperationalError as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if is_over or code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
            else:
                if is_over or mode != "wal":
                    return mode
            time.sleep(0.01)

    def _beside(self, suffix: str) -> Path:
        path = resolve(self._path)
        return path.with_name(path.name + suffix)


class _OwnedConnection(UnownedConnection):
    """The driver's connection for SQLAlchemy, which closes the database with it."""

    def __init__(self, database: SQLiteDatabase) -> None:
        super().__init__(database.dbapi)
        self._database = database

    def close(self) -> None:
        """Close the cursors and the database."""
        super().close()
        self._database.close()


def create_reading_engine(open_database: Callable[[], SQLiteDatabase]) -> Engine:
    """Return an engine each of whose transactions opens a file or a copy, and only reads."""

    from sqlite3 import SQLITE_LIMIT_ATTACHED

    def connect_reader() -> Any:
        database = open_database()
        database.dbapi.execute("PRAGMA query_only=ON")  # for a copy in memory
        database.dbapi.setlimit(SQLITE_LIMIT_ATTACHED, 0)  # ATTACH creates a file
        return _OwnedConnection(database)

    engine = create_engine("sqlite://", creator=connect_reader, poolclass=NullPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


_STILL_READ = "another program or an open cursor is still reading it"
