"""Engine, pragmas and transactions: all that differs between databases. So far there is SQLite."""

import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from photometry_tasks.errors import BackupError, TodoFileInUseError

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

    def __init__(self, path: Path, dbapi: "sqlite3.Connection") -> None:
        self._path = path
        # Ours is the transaction's beginning (`begin`), so that the driver's stays as existing pipelines know
        # it: a change through `cursor` begins one, and `conn.commit()` ends it.
        self.dbapi = dbapi
        self._engine = create_engine("sqlite://", creator=lambda: dbapi, poolclass=StaticPool)
        self.connection: Connection = self._engine.connect()
        self._is_prepared = False

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing file to work on it."""
        return cls(path, _connect(path, "rw"))

    def load_into_memory(self) -> "SQLite":
        """Return a copy in memory, and close the file."""
        import sqlite3

        memory = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            # A log that was left beside the file would be laid over what is later put in the file's place.
            with self._explained():
                self.dbapi.execute("PRAGMA journal_mode=DELETE")
            self.dbapi.backup(memory)
            self.close()
        except BaseException:
            memory.close()
            raise
        memory.execute("PRAGMA foreign_keys=ON")
        return SQLite(self._path, memory)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what can be done about a file that somebody else has open."""
        import sqlite3

        try:
            yield
        except (sqlite3.OperationalError, OperationalError) as error:
            cause = error.orig if isinstance(error, OperationalError) else error
            # The extended codes stand in the higher bits (https://sqlite.org/rescode.html).
            if getattr(cause, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise TodoFileInUseError(path=self._path, found=cause) from error
            raise

    @classmethod
    def open_to_read(cls, path: Path) -> Self:
        """Open an existing file only to look at it; somebody else may be working on it."""
        return cls(path, _connect(path, "ro"))

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

    def prepare_for_work(self) -> None:
        """Let others read the file during the work, and commit without waiting for the disk each time.

        A commit then survives the death of the process (https://sqlite.org/wal.html).
        """
        self._is_prepared = True
        with self._explained():
            self.dbapi.execute("PRAGMA journal_mode=WAL")
        self.dbapi.execute("PRAGMA synchronous=NORMAL")

    def compact(self) -> None:
        """Rewrite the file without its free pages, and renew the planner's statistics."""
        self.dbapi.execute("VACUUM")
        self.dbapi.execute("ANALYZE")

    def copy_to(self, path: Path) -> None:
        """Write the whole database into an empty file, through SQLite's backup API."""
        import sqlite3

        try:
            with closing(sqlite3.connect(path)) as target:
                self.dbapi.backup(target)
                target.execute("PRAGMA journal_mode=DELETE")
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
            warnings.warn(
                "the TODO-file is still being read, by another program or a cursor: its -wal file stays until then",
                stacklevel=5,
            )


def _connect(path: Path, mode: str) -> "sqlite3.Connection":
    import sqlite3

    # As a URI it opens only what is there; quoted, since '#', '?' and '%' are part of a name. Another thread
    # may have to close what nobody closed; for calls the manager itself checks the thread.
    uri = f"file://{quote(bytes(path))}?mode={mode}"
    dbapi = sqlite3.connect(uri, uri=True, check_same_thread=False)
    dbapi.execute("PRAGMA foreign_keys=ON")
    return dbapi
