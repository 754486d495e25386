"""SQLite: connections, pragmas and transactions, and what its errors mean."""

import secrets
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

from sqlalchemy import Connection, MetaData, create_engine
from sqlalchemy.pool import StaticPool

from photometry_tasks.errors import BackupError, CannotUpgradeError, DamagedFileError, DiskFullError, TodoError
from photometry_tasks.files import check_writable, clear_temporaries
from photometry_tasks.sql.execution import Statements, Transaction
from photometry_tasks.storage.sqlite.dbapi import (
    HintingCompiler,
    Lent,
    compile_for_sqlite,
    connect,
    count_rows,
    plain_cursor,
    set_up,
    sqlite_errors,
)
from photometry_tasks.storage.sqlite.introspection import (
    check_size,
    count_orphans,
    find_damage,
    has_layout,
    read_revisions,
)
from photometry_tasks.storage.sqlite.lock import TodoLock
from photometry_tasks.storage.sqlite.paths import Place

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLite"]


class SQLite:
    """One connection to a TODO-file, or to a copy of it in memory.

    Attributes
    ----------
    dbapi : sqlite3.Connection
        The connection of the driver, which is lent to the manager's callers.
    statements : Statements
        The same connection for prepared statements.
    """

    def __init__(self, path: Path, dbapi: "sqlite3.Connection", lock: TodoLock | None = None) -> None:
        self.name = str(path)
        self._path = path
        self._lock = lock
        # Ours is the transaction's beginning (`begin`), so that the driver's stays as existing pipelines know
        # it: a change through `cursor` begins one, and `conn.commit()` ends it.
        self.dbapi = dbapi
        self._connection: Connection | None = None
        self.statements = Statements(plain_cursor(dbapi), compile_for_sqlite, dbapi.IntegrityError)
        self._place: Place | None = None
        self._is_new_generation_due = False
        self._handled: BaseException | None = None
        self._is_busy = self._is_closed = self._is_durable = self._is_synced = False

    @property
    def connection(self) -> Connection:
        """The same connection for statements; made when it is first asked for, which takes as long as opening."""
        if self._connection is None:
            lent = Lent(self.dbapi)
            engine = create_engine("sqlite://", creator=lambda: lent, poolclass=StaticPool, pool_reset_on_return=None)
            engine.dialect.statement_compiler = HintingCompiler
            self._connection = engine.connect()
        return self._connection

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing file to work on it, and keep others from doing so until it is closed.

        Raises
        ------
        NotATodoFileError, DamagedFileError
            If it is no database, or ends too early. It is not changed.
        TodoFileInUseError, MountWithoutLocksError, NotWritableError
            If somebody else works on it, or nobody can.
        """
        check_writable(path)
        lock = TodoLock(path)
        try:
            clear_temporaries(path.resolve().parent, path)
            return cls._open(path, "rw", lock)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def open_to_read(cls, path: Path) -> Self:
        """Open an existing file only to look at it; somebody else may be working on it. Otherwise as `open`."""
        return cls._open(path, "ro")

    @classmethod
    def _open(cls, path: Path, mode: str, lock: TodoLock | None = None) -> Self:
        database = cls(path, connect(path, mode), lock)
        try:
            if database.keeps_readers_out:
                # The index of a write-ahead log is memory that processes share, and other nodes' cannot. So it must
                # be set before the first read (https://sqlite.org/wal.html#noshm).
                database.dbapi.execute("PRAGMA locking_mode=EXCLUSIVE")
            check_size(database.dbapi, path)
        except BaseException:
            database._lock = None  # the caller's until it is open
            database.close()
            raise
        return database

    def recover(self) -> None:
        """Take in what a killed writer has left beside the file, and delete what holds nothing.

        Raises
        ------
        TodoFileInUseError
            If the writer is not dead.
        """
        with sqlite_errors(self._path):
            self.dbapi.execute("PRAGMA journal_mode=DELETE")
            if self._beside("-journal").exists():
                # SQLite has rolled back one that holds something, and leaves the others to the next writer.
                self.dbapi.execute("BEGIN EXCLUSIVE")
                self._beside("-journal").unlink(missing_ok=True)
                self.dbapi.execute("ROLLBACK")

    def load_into_memory(self) -> "SQLite":
        """Return a copy in memory."""
        import sqlite3

        memory = SQLite(self._path, set_up(sqlite3.connect(":memory:", check_same_thread=False)))
        try:
            with sqlite_errors(self._path):
                self.dbapi.backup(memory.dbapi)
        except BaseException:
            memory.close()
            raise
        return memory

    def leave_lock_to(self, copy: "SQLite") -> None:
        """Close the file, and let a copy in memory have its lock."""
        copy._lock, self._lock = self._lock, None
        self.close()

    def check_content(self) -> None:
        """Read the whole database, and check that it can be; not that each index has what its table has.

        Raises
        ------
        DamagedFileError
        """
        if found := self.find_damage("quick_check"):
            raise DamagedFileError(path=self._path, found="; ".join(found[:3]))

    def find_damage(self, pragma: str = "integrity_check") -> list[str]:
        """Say what SQLite finds wrong in the whole database."""
        with sqlite_errors(self._path):
            return find_damage(self.dbapi, pragma)

    def is_current(self, version_table: str, head: str, metadata: MetaData) -> bool:
        """Whether it has a revision, and our tables are as the models describe them."""
        with sqlite_errors(self._path):
            return read_revisions(self.dbapi, version_table) == [head] and has_layout(self.dbapi, metadata)

    @contextmanager
    def begin_upgrade(self) -> Iterator[Connection]:
        """Run one transaction in which tables may be made anew without what refers to them being deleted."""
        self.dbapi.execute("PRAGMA foreign_keys=OFF")  # within a transaction it would have no effect
        try:
            with self.begin(writes=True) as connection:
                before = count_orphans(self.dbapi)
                yield connection
                after = count_orphans(self.dbapi)
                if lost := [table for table in before if after.get(table, 0) > before[table]]:
                    problem = f"rows of {', '.join(lost)} would refer to nothing"
                    raise CannotUpgradeError(path=self._path, problem=problem, remedy="Please report this.")
        finally:
            self.dbapi.execute("PRAGMA foreign_keys=ON")

    @property
    def keeps_readers_out(self) -> bool:
        """Whether nobody else can read it while it is worked on."""
        return self._lock is not None and not self._lock.mount.is_local

    @classmethod
    def create(cls, path: Path) -> Self:
        """Open an empty file to fill it; the caller discards it if that fails."""
        dbapi = connect(path, "rw")
        dbapi.execute("PRAGMA journal_mode=OFF")
        dbapi.execute("PRAGMA synchronous=OFF")
        return cls(path, dbapi)

    @contextmanager
    def begin(self, *, writes: bool) -> Iterator[Connection]:
        """Run one transaction: committed at the end of the block, rolled back on any exception."""
        self.connection.begin()
        with self.transaction(writes=writes) as transaction:
            yield transaction.connection

    @contextmanager
    def transaction(self, *, writes: bool) -> Iterator[Transaction]:
        """Run one transaction of a manager, at the cost of the driver; otherwise as `begin`."""
        try:
            yield self.start(writes=writes)
            self.commit()
        except BaseException as error:
            self.abandon(error)

    def start(self, *, writes: bool, is_synced: bool = True) -> Transaction:
        """Begin a transaction, which `commit` or `abandon` ends; with `durability="full"` it is synced, if need be."""
        connection = self.connection  # made before the transaction: SQLAlchemy begins with a rollback
        self._is_busy = True
        self._handled = sys.exc_info()[1]  # what the caller is handling is not our concern
        if self._is_durable and not is_synced:
            self._is_synced = False
            self.dbapi.execute("PRAGMA synchronous=NORMAL")
        if writes:
            # IMMEDIATE: whoever reads first and writes later can be refused in between, by another writer.
            self.dbapi.execute("BEGIN IMMEDIATE")
            if self._is_new_generation_due:
                self.begin_generation()
        return Transaction(connection, self.statements)

    def commit(self) -> None:
        """Keep what was done."""
        connection = self._connection
        # SQLAlchemy takes part where its connection was used, and most transactions need the driver alone.
        if self.dbapi.in_transaction:
            self.dbapi.commit()
            self._is_new_generation_due = False
        if connection is not None and connection.in_transaction():
            connection.commit()
        self._end()

    def abandon(self, error: BaseException) -> NoReturn:
        """Undo what was done, and raise the error, explained."""
        # SQLAlchemy may say that something is wrong with it where Ctrl-C came in between.
        context = None if error.__context__ is self._handled else error.__context__
        interrupt = context if isinstance(error, Exception) else error
        if isinstance(interrupt, KeyboardInterrupt | SystemExit):
            self.finish_interrupted()
            raise interrupt from None
        self.roll_back()
        with sqlite_errors(self._path):
            raise error

    def roll_back(self) -> None:
        """Roll back whatever transaction is open."""
        if self._connection is not None and self._connection.in_transaction():
            self._connection.rollback()
        self.dbapi.rollback()
        self._end()

    def _end(self) -> None:
        if self._is_durable and not self._is_synced:
            self.dbapi.execute("PRAGMA synchronous=FULL")
            self._is_synced = True
        self._is_busy = False

    def finish_interrupted(self) -> None:
        """Roll back a transaction of ours that Ctrl-C has ended, wherever it came."""
        if self._is_busy:
            self._connection = None  # SQLAlchemy may have been interrupted in between, and takes it for lost
            self.roll_back()

    def lend(self, name: str) -> "sqlite3.Connection":  # noqa: ARG002 - a server lends none
        """Return the connection of the driver, for the manager's callers."""
        return self.dbapi

    def has_changes(self) -> bool:
        """Whether a transaction is open that has changed something."""
        return self.dbapi.in_transaction

    def changes_by_others(self) -> int:
        """Return a number that differs after every change by another connection."""
        return int(self.statements.run("PRAGMA data_version").fetchone()[0])

    def has_triggers(self) -> bool:
        """Whether other programs have triggers in the file."""
        return self.statements.run("SELECT 1 FROM sqlite_master WHERE type = 'trigger'").fetchone() is not None

    def changes_by_us(self) -> int:
        """Return how many rows were changed through this connection, whoever did it."""
        return self.dbapi.total_changes

    def prepare_for_work(self, *, is_durable: bool) -> None:
        """Let others read the file during the work, and commit to a log, which need not be synced each time.

        A commit then survives the death of the process (https://sqlite.org/wal.html).

        Parameters
        ----------
        is_durable : bool
            Whether it is synced all the same, and so survives a power cut too.
        """
        self._place = Place(self._path)
        # A log of results that was made before the first change is of another state of the file.
        self._is_new_generation_due = True
        with sqlite_errors(self._path):
            self.dbapi.execute("PRAGMA journal_mode=WAL")
        self.dbapi.execute(f"PRAGMA synchronous={'FULL' if is_durable else 'NORMAL'}")
        self._is_durable = self._is_synced = is_durable

    def compact(self) -> None:
        """Rewrite the file without its free pages, and renew the planner's statistics."""
        with sqlite_errors(self._path):
            self.dbapi.execute("VACUUM")
            self.dbapi.execute("ANALYZE")
            # What changes with every task would mislead the planner soon.
            self.dbapi.execute("DELETE FROM sqlite_stat1 WHERE idx IN ('status_idx', 'todolist_pending_idx')")
            self.dbapi.commit()
            self.dbapi.execute("ANALYZE sqlite_master")  # reads them again

    @property
    def generation(self) -> int:
        """A number that tells one state of a file from another; 0 as long as none was given."""
        return int(self.statements.run("PRAGMA user_version").fetchone()[0])

    def begin_generation(self) -> int:
        """Give a new number to what the open transaction, or the next, will have made of the database."""
        number = secrets.randbelow(2**31 - 1) + 1
        self.statements.run(f"PRAGMA user_version={number}")
        return number

    def copy_to(self, path: Path) -> None:
        """Write the whole database into an empty file, through SQLite's backup API, and compare the row counts.

        Raises
        ------
        BackupError
        """
        import sqlite3

        try:
            with sqlite_errors(self._path), closing(set_up(sqlite3.connect(path))) as target:
                # The file is discarded if this fails, so it needs no journal; and the caller syncs it.
                target.execute("PRAGMA journal_mode=OFF")
                target.execute("PRAGMA synchronous=OFF")
                self.dbapi.backup(target)
                target.execute("PRAGMA journal_mode=DELETE")
                copied, ours = count_rows(target), count_rows(self.dbapi)
        except DiskFullError:
            raise
        except (TodoError, sqlite3.Error) as error:
            raise BackupError(path=self._path, found=error.__cause__ or error) from error
        if copied != ours:
            raise BackupError(path=self._path, found=f"of the rows {ours} the copy has {copied}")

    def keep_open(self) -> None:
        """Let nothing use or close the connection in this process, a forked child, not even its end.

        SQLite believes that the child holds the parent's locks, and would tidy up the parent's log
        (https://sqlite.org/howtocorrupt.html, section 2.6).
        """
        import ctypes

        self.dbapi.set_authorizer(lambda *_: 1)  # SQLITE_DENY, for whoever has fetched it before
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.dbapi))

    def close(self) -> None:
        """Close the connection, and leave one file; what is not committed is rolled back."""
        if self._is_closed:
            return
        self._is_closed = True
        self.statements.close()
        if self._connection is not None:
            self._connection.close()
        try:
            if self._place is not None:
                self._finish_work()
        finally:
            self.dbapi.close()
            if self._place is not None:
                self._place.remove_log()
            if self._lock is not None:
                self._lock.close()

    def _finish_work(self) -> None:
        """Take the log beside the file into it, and away."""
        import sqlite3

        if self.is_replaced():
            return  # it is no longer ours
        reason = "the directory of the TODO-file has become read-only"
        try:
            if plain_cursor(self.dbapi).execute("PRAGMA journal_mode=DELETE").fetchone() == ("wal",):
                reason = _STILL_READ
        except sqlite3.OperationalError as error:
            is_the_disk = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
            reason = str(error) if is_the_disk else _STILL_READ
        if reason is _STILL_READ:
            with suppress(sqlite3.OperationalError):
                self.dbapi.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        if self._beside("-wal").exists():
            warnings.warn(f"{reason}: its -wal file stays until it is opened again", stacklevel=5)

    def is_replaced(self) -> bool:
        """Whether another file, or none, is now where the one was that is being worked on."""
        return self._place is not None and not self._place.is_ours()

    def _beside(self, suffix: str) -> Path:
        path = self._path.resolve()
        return path.with_name(path.name + suffix)


_STILL_READ = "the TODO-file is still being read, by another program or a cursor"
