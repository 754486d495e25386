"""SQLite: connections, pragmas and transactions, and what its errors mean."""

import re
import secrets
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool

from photometry_tasks.errors import (
    BackupError,
    CannotUpgradeError,
    DamagedFileError,
    DiskError,
    DiskFullError,
    InterruptedWriteError,
    NotATodoFileError,
    NotWritableError,
    TodoFileInUseError,
)
from photometry_tasks.locking import TodoLock
from photometry_tasks.todo_file import check_writable, clear_temporaries

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLite"]


class SQLite:
    """One connection to a TODO-file, or to a copy of it in memory.

    Attributes
    ----------
    dbapi : sqlite3.Connection
        The connection of the driver, which is lent to the manager's callers.
    connection : sqlalchemy.Connection
        The same connection for statements.
    """

    def __init__(self, path: Path, dbapi: "sqlite3.Connection", lock: TodoLock | None = None) -> None:
        self.name = str(path)
        self._path = path
        self._lock = lock
        # Ours is the transaction's beginning (`begin`), so that the driver's stays as existing pipelines know
        # it: a change through `cursor` begins one, and `conn.commit()` ends it.
        self.dbapi = dbapi
        self._engine = create_engine("sqlite://", creator=lambda: dbapi, poolclass=StaticPool)
        self.connection: Connection = self._engine.connect()
        self._is_prepared = False

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
            clear_temporaries(path.resolve())
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
        database = cls(path, _connect(path, mode), lock)
        try:
            if lock is not None and not lock.mount.is_local:
                # The index of a write-ahead log is memory that processes share, and other nodes' cannot. So it must
                # be set before the first read (https://sqlite.org/wal.html#noshm).
                database.dbapi.execute("PRAGMA locking_mode=EXCLUSIVE")
            database._check_size()
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
        with self._explained():
            self.dbapi.execute("PRAGMA journal_mode=DELETE")
            if self._beside("-journal").exists():
                # SQLite has rolled back one that holds something, and leaves the others to the next writer.
                self.dbapi.execute("BEGIN EXCLUSIVE")
                self._beside("-journal").unlink(missing_ok=True)
                self.dbapi.execute("ROLLBACK")

    def load_into_memory(self) -> "SQLite":
        """Return a copy in memory, which has the file's lock, and close the file."""
        import sqlite3

        memory = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            self.dbapi.backup(memory)
            lock, self._lock = self._lock, None
            self.close()
        except BaseException:
            memory.close()
            raise
        return SQLite(self._path, _set_up(memory), lock)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what can be done about a file that somebody else has open, or that is no whole database."""
        import sqlite3

        try:
            yield
        except UnicodeDecodeError as error:
            raise DamagedFileError(path=self._path, found=error) from error
        except (sqlite3.DatabaseError, DatabaseError) as error:
            cause = error.orig if isinstance(error, DatabaseError) else error
            # The extended codes stand in the higher bits (https://sqlite.org/rescode.html).
            extended = getattr(cause, "sqlite_errorcode", 0)
            code = extended & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise TodoFileInUseError(path=self._path, found=cause) from error
            if extended in (sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY):
                raise InterruptedWriteError(path=self._path) from error
            if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                raise NotWritableError(path=self._path, found=cause) from error
            if code == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_WRITE:
                raise DiskFullError(path=self._path, found=cause) from error
            if code == sqlite3.SQLITE_IOERR:
                raise DiskError(path=self._path, found=cause) from error
            if code == sqlite3.SQLITE_NOTADB:
                raise NotATodoFileError(path=self._path, found="it is no SQLite database") from error
            is_damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_TOOBIG)
            if is_damaged or re.match("unsupported file format|Could not decode", str(cause)):
                raise DamagedFileError(path=self._path, found=cause) from error
            raise

    def _check_size(self) -> None:
        """Check that the file has all the pages that its header tells of; SQLite allows for half a page less."""
        if self._path.stat().st_size == 0:
            raise NotATodoFileError(path=self._path, found="it is empty (0 bytes)")
        with self._explained():
            mode, pages, page_size = (
                self.dbapi.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "page_count", "page_size")
            )
        size = self._path.stat().st_size
        # The log of a file in WAL mode may hold pages that the file has not got yet.
        if mode != "wal" and size < pages * page_size:
            raise DamagedFileError(path=self._path, found=f"it ends after {size} of {pages * page_size} bytes")

    def check_content(self) -> None:
        """Read the whole database, and check that it can be.

        Raises
        ------
        DamagedFileError
        """
        if found := self.find_damage():
            raise DamagedFileError(path=self._path, found="; ".join(found[:3]))

    def find_damage(self) -> list[str]:
        """Say what SQLite finds wrong in the whole database."""
        with self._explained():
            lines = [row[0] for row in self.dbapi.execute("PRAGMA integrity_check")]
        return [] if lines == ["ok"] else lines

    @contextmanager
    def begin_upgrade(self) -> Iterator[Connection]:
        """Run one transaction in which tables may be made anew without what refers to them being deleted."""
        self.dbapi.execute("PRAGMA foreign_keys=OFF")  # within a transaction it would have no effect
        try:
            with self.begin(writes=True) as connection:
                before = self.count_orphans()
                yield connection
                after = self.count_orphans()
                if lost := [table for table in before if after.get(table, 0) > before[table]]:
                    problem = f"rows of {', '.join(lost)} would refer to nothing"
                    raise CannotUpgradeError(path=self._path, problem=problem, remedy="Please report this.")
        finally:
            self.dbapi.execute("PRAGMA foreign_keys=ON")

    def count_orphans(self) -> dict[str, int]:
        """Count the rows of each table that refer to what is not there."""
        import sqlite3

        orphans = {}
        for (table,) in self.dbapi.execute(
            "SELECT DISTINCT m.name FROM sqlite_master AS m, pragma_foreign_key_list(m.name) WHERE m.type = 'table'"
        ).fetchall():
            # Where a foreign key leads to no key, it cannot be asked.
            with suppress(sqlite3.OperationalError):
                (orphans[table],) = self.dbapi.execute(
                    "SELECT count(*) FROM pragma_foreign_key_check(?)", (table,)
                ).fetchone()
        return orphans

    @classmethod
    def create(cls, path: Path) -> Self:
        """Open an empty file to fill it; the caller discards it if that fails."""
        dbapi = _connect(path, "rw")
        dbapi.execute("PRAGMA journal_mode=OFF")
        dbapi.execute("PRAGMA synchronous=OFF")
        return cls(path, dbapi)

    @contextmanager
    def begin(self, *, writes: bool) -> Iterator[Connection]:
        """Run one transaction: committed at the end of the block, rolled back on any exception."""
        with self._explained(), self.connection.begin():
            if writes:
                # IMMEDIATE: whoever reads first and writes later can be refused in between, by another writer.
                self.connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield self.connection

    def cursor_of_rows(self) -> "sqlite3.Cursor":
        """Return a cursor whose rows can be read by column name."""
        import sqlite3

        cursor = self.dbapi.cursor()
        cursor.row_factory = sqlite3.Row
        return cursor

    def has_open_transaction(self) -> bool:
        """Whether changes wait to be committed."""
        return self.dbapi.in_transaction

    def changes(self) -> object:
        """Return a value that differs after every change, by this connection or by another."""
        version = self.dbapi.execute("PRAGMA data_version").fetchone()
        return self.dbapi.total_changes, version

    def prepare_for_work(self, *, is_durable: bool) -> None:
        """Let others read the file during the work, and commit to a log, which need not be synced each time.

        A commit then survives the death of the process (https://sqlite.org/wal.html).

        Parameters
        ----------
        is_durable : bool
            Whether it is synced all the same, and so survives a power cut too.
        """
        self._is_prepared = True
        with self._explained():
            self.dbapi.execute("PRAGMA journal_mode=WAL")
        self.dbapi.execute(f"PRAGMA synchronous={'FULL' if is_durable else 'NORMAL'}")

    def compact(self) -> None:
        """Rewrite the file without its free pages, and renew the planner's statistics."""
        with self._explained():
            self.dbapi.execute("VACUUM")
            self.dbapi.execute("ANALYZE")

    @property
    def generation(self) -> int:
        """A number that tells one state of a file from another; 0 as long as none was given."""
        number: int = self.dbapi.execute("PRAGMA user_version").fetchone()[0]
        return number

    def begin_generation(self) -> int:
        """Give a new number to what the open transaction, or the next, will have made of the database."""
        number = secrets.randbelow(2**31 - 1) + 1
        self.dbapi.execute(f"PRAGMA user_version={number}")
        return number

    def copy_to(self, path: Path) -> None:
        """Write the whole database into an empty file, through SQLite's backup API, and compare the row counts.

        Raises
        ------
        BackupError
        """
        import sqlite3

        try:
            with closing(_set_up(sqlite3.connect(path))) as target:
                # The file is discarded if this fails, so it needs no journal; and the caller syncs it.
                target.execute("PRAGMA journal_mode=OFF")
                target.execute("PRAGMA synchronous=OFF")
                self.dbapi.backup(target)
                target.execute("PRAGMA journal_mode=DELETE")
                if (copied := _count_rows(target)) != (ours := _count_rows(self.dbapi)):
                    raise BackupError(path=self._path, found=f"of the rows {ours} the copy has {copied}")
        except sqlite3.Error as error:
            raise BackupError(path=self._path, found=error) from error

    def keep_open(self) -> None:
        """Let nothing close the connection in this process, a forked child, not even its end.

        SQLite believes that the child holds the parent's locks, and would tidy up the parent's log
        (https://sqlite.org/howtocorrupt.html, section 2.6).
        """
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.dbapi))

    def close(self) -> None:
        """Close the connection, and leave one file; what is not committed is rolled back."""
        self.connection.close()
        try:
            if self._is_prepared:
                self._finish_work()
        finally:
            self._engine.dispose()
            self.dbapi.close()
            if self._lock is not None:
                self._lock.close()

    def _finish_work(self) -> None:
        """Take the log beside the file into it, and away."""
        import sqlite3

        try:
            (mode,) = self.dbapi.execute("PRAGMA journal_mode=DELETE").fetchone()
        except sqlite3.OperationalError:
            mode = "wal"
        if mode == "wal":
            with suppress(sqlite3.OperationalError):
                self.dbapi.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            reason = "the TODO-file is still being read, by another program or a cursor"
        elif self._beside("-wal").exists():
            reason = "the directory of the TODO-file has become read-only"
        else:
            return
        warnings.warn(f"{reason}: its -wal file stays until it is opened again", stacklevel=5)

    def _beside(self, suffix: str) -> Path:
        path = self._path.resolve()
        return path.with_name(path.name + suffix)


def _connect(path: Path, mode: str) -> "sqlite3.Connection":
    import sqlite3

    # As a URI it opens only what is there; quoted, since '#', '?' and '%' are part of a name. Another thread
    # may have to close what nobody closed; for calls the manager itself checks the thread.
    uri = f"file://{quote(bytes(path))}?mode={mode}"
    try:
        return _set_up(sqlite3.connect(uri, uri=True, check_same_thread=False))
    except sqlite3.OperationalError as error:
        raise NotWritableError(path=path, found=error) from error


def _set_up(dbapi: "sqlite3.Connection") -> "sqlite3.Connection":
    dbapi.execute("PRAGMA foreign_keys=ON")
    # A file may come from anybody: what its views and triggers call must not reach beyond it.
    dbapi.execute("PRAGMA trusted_schema=OFF")
    return dbapi


def _count_rows(dbapi: "sqlite3.Connection") -> dict[str, int]:
    """Count the rows of each table, other programs' too; virtual ones keep theirs in tables of their own."""
    tables = dbapi.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0").fetchall()
    return {
        name: dbapi.execute(f'SELECT count(*) FROM "{name.replace(chr(34), chr(34) * 2)}"').fetchone()[0]  # noqa: S608 - it is quoted
        for (name,) in tables
    }
