"""Python's driver of SQLite: connections, cursors, the dialect, and the translation of the driver's errors."""

import errno
import re
import stat
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import Dialect, column, insert, table
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler, SQLiteDialect
from sqlalchemy.exc import DBAPIError

from photometry_tasks.errors import (
    DamagedFileError,
    DiskError,
    DiskFullError,
    InterruptedWriteError,
    NotATodoFileError,
    NotWritableError,
    SQLiteError,
    TodoFileInUseError,
    UnreadRowsError,
)
from photometry_tasks.files import check_descriptors
from photometry_tasks.storage.sqlite.paths import check_length

if TYPE_CHECKING:
    import sqlite3


def connect(path: Path, mode: str) -> "sqlite3.Connection":
    """Open an existing file, read-only ('ro') or for reading and writing ('rw')."""
    import sqlite3

    # Any thread may have to close an unclosed manager; for calls the manager itself checks the thread.
    with sqlite_errors(path):
        return configure(sqlite3.connect(_build_uri(path, mode), uri=True, check_same_thread=False))


def _build_uri(path: Path, mode: str) -> str:
    # A URI opens only an existing file; it is quoted, since '#', '?' and '%' may be part of a name.
    return f"file://{quote(bytes(path))}?mode={mode}"


def connect_new(path: Path) -> "sqlite3.Connection":
    """Open a new, empty file without a journal: the caller deletes it on failure, and syncs it on success.

    Raises
    ------
    NotWritableError
        If another user has put a link in its place.
    """
    dbapi = connect(path, "rw")
    try:
        _check_no_link(path)
        set_journal_mode(dbapi, "OFF")
        dbapi.execute("PRAGMA synchronous=OFF")
    except BaseException:
        dbapi.close()
        raise
    return dbapi


def _check_no_link(path: Path) -> None:
    """Check that SQLite has followed no link to open a file; a later link has no effect."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_nlink != 1:
        raise NotWritableError(path=path, found="another program has replaced it")


def configure(dbapi: "sqlite3.Connection") -> "sqlite3.Connection":
    """Set the pragmas of a connection, and return it; its rows can be read by column name, as pipelines expect."""
    import sqlite3

    dbapi.row_factory = sqlite3.Row
    dbapi.execute("PRAGMA foreign_keys=ON")
    # A file may come from an untrusted source: the functions in its views and triggers must not reach beyond it.
    dbapi.execute("PRAGMA trusted_schema=OFF")
    return dbapi


def tuple_cursor(dbapi: "sqlite3.Connection") -> "sqlite3.Cursor":
    """Return a cursor whose rows are tuples, whatever row factory the caller has set.

    If a statement fails, SQLite keeps the file locked until the cursor is closed, even if the connection is.
    """
    cursor = dbapi.cursor()
    cursor.row_factory = None
    return cursor


def set_journal_mode(dbapi: "sqlite3.Connection", mode: str) -> str:
    """Set the journal mode, and return the mode that the file has then."""
    # All rows are read: the change is committed after the last row, and its error is raised there.
    ((found,),) = tuple_cursor(dbapi).execute(f"PRAGMA journal_mode={mode}").fetchall()
    return str(found)


class UnownedConnection:
    """The driver's connection for SQLAlchemy, which gets cursors with tuples and cannot close the connection."""

    def __init__(self, dbapi: "sqlite3.Connection") -> None:
        self._dbapi = dbapi
        self._cursors: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()

    def cursor(self) -> "sqlite3.Cursor":
        """Return a cursor whose rows are tuples."""
        cursor = tuple_cursor(self._dbapi)
        self._cursors.add(cursor)
        return cursor

    def close(self) -> None:
        """Close only the cursors: the unread rows of an interrupted statement would keep the file locked."""
        for cursor in list(self._cursors):
            cursor.close()

    def create_function(self, *given: Any, **named: Any) -> None:
        """Add a function, unless it exists and unread rows of the caller use it."""
        import sqlite3

        with suppress(sqlite3.OperationalError):
            self._dbapi.create_function(*given, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dbapi, name)


class HintingCompiler(SQLiteCompiler):
    """SQLAlchemy's compiler, which also writes index hints (https://sqlite.org/lang_indexedby.html)."""

    def get_from_hint_text(self, table: Any, text: str | None) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Return a hint as it follows a table in SQL."""
        return text


class _HintingDialect(SQLiteDialect):
    statement_compiler = HintingCompiler
    supports_statement_cache = True


@cache
def build_dialect() -> Dialect:
    """Return the dialect that compiles statements for the driver."""
    return _HintingDialect(paramstyle="qmark")


@lru_cache
def build_insert(name: str, columns: tuple[str, ...]) -> tuple[str, str]:
    """Return the SQL that inserts a row with values for these columns, and the addition for each further row."""
    statement = insert(table(name, *map(column, columns)))
    return str(statement.compile(dialect=build_dialect())), f", ({', '.join('?' * len(columns))})"


def find_damage(dbapi: "sqlite3.Connection", pragma: str) -> list[str]:
    """Return a line for each damage; `quick_check`, unlike `integrity_check`, does not compare indexes with tables.

    Raises
    ------
    OSError
        If a page cannot be read: it need not be damaged.
    """
    import sqlite3

    lines = [line for row in tuple_cursor(dbapi).execute(f"PRAGMA {pragma}") for line in row[0].splitlines()]
    for line in lines:
        code = re.search(r"unable to get the page\. error code=(\d+)", line)
        if code is not None and int(code[1]) & 0xFF == sqlite3.SQLITE_IOERR:
            raise OSError(errno.EIO, line)
    return [] if lines == ["ok"] else [line for line in lines if not line.startswith("***")]


def _is_undamaged(path: Path) -> bool:
    """Whether a file has no damage, although SQLite reports it: it does so too if a read fails."""
    import sqlite3

    try:
        with closing(sqlite3.connect(_build_uri(path, "ro"), uri=True, timeout=0)) as connection:
            return not find_damage(connection, "integrity_check")
    except OSError:
        return True  # reads still fail
    except sqlite3.Error:
        return False


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Translate the driver's errors into errors that name the file, the fault and the remedy."""
    import sqlite3

    try:
        yield
    except UnicodeDecodeError as error:
        raise DamagedFileError(path=path, found=error) from error
    except (sqlite3.Error, DBAPIError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        # The low 8 bits of an extended code are the primary code (https://sqlite.org/rescode.html).
        extended = getattr(cause, "sqlite_errorcode", 0)
        code = extended & 0xFF
        if extended == sqlite3.SQLITE_BUSY_SNAPSHOT:
            raise UnreadRowsError(path=path) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
            raise TodoFileInUseError(path=path, found=cause) from error
        if extended in (sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY):
            raise InterruptedWriteError(path=path) from error
        if code == sqlite3.SQLITE_CANTOPEN:
            check_length(path)
            check_descriptors(path)
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            raise NotWritableError(path=path, found=cause) from error
        if code == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_WRITE:
            raise DiskFullError(path=path, found=cause) from error
        if code == sqlite3.SQLITE_IOERR:
            raise DiskError(path=path, found=cause) from error
        if code == sqlite3.SQLITE_NOTADB:
            raise NotATodoFileError(path=path, found="it is not a SQLite database") from error
        if code == sqlite3.SQLITE_CORRUPT and _is_undamaged(path):
            raise DiskError(path=path, found="a read failed") from error
        is_damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_TOOBIG)
        if is_damaged or re.match("unsupported file format|Could not decode", str(cause)):
            raise DamagedFileError(path=path, found=cause) from error
        raise SQLiteError(path=path, found=cause) from error
