"""Connections of Python's own driver to SQLite files."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    import sqlite3
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from sqlalchemy import Executable
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler, SQLiteDialect
from sqlalchemy.exc import DatabaseError

from photometry_tasks.errors import (
    DamagedFileError,
    DiskError,
    DiskFullError,
    InterruptedWriteError,
    NotATodoFileError,
    NotWritableError,
    TodoFileInUseError,
    UnreadRowsError,
)

__all__ = [
    "HintingCompiler",
    "Lent",
    "compile_for_sqlite",
    "connect",
    "count_rows",
    "cursor_of_rows",
    "plain_cursor",
    "set_up",
    "sqlite_errors",
]


def connect(path: Path, mode: str) -> "sqlite3.Connection":
    """Open a file that is there, to read ('ro') or to write too ('rw')."""
    import sqlite3

    # As a URI it opens only what is there; quoted, since '#', '?' and '%' are part of a name. Another thread
    # may have to close what nobody closed; for calls the manager itself checks the thread.
    uri = f"file://{quote(bytes(path))}?mode={mode}"
    with sqlite_errors(path):
        return set_up(sqlite3.connect(uri, uri=True, check_same_thread=False))


def set_up(dbapi: "sqlite3.Connection") -> "sqlite3.Connection":
    """Set what every connection of ours has, and return it."""
    dbapi.execute("PRAGMA foreign_keys=ON")
    # A file may come from anybody: what its views and triggers call must not reach beyond it.
    dbapi.execute("PRAGMA trusted_schema=OFF")
    return dbapi


def plain_cursor(dbapi: "sqlite3.Connection") -> "sqlite3.Cursor":
    """Return a cursor whose rows are tuples, whatever the callers have set for theirs."""
    cursor = dbapi.cursor()
    cursor.row_factory = None
    return cursor


def cursor_of_rows(dbapi: "sqlite3.Connection") -> "sqlite3.Cursor":
    """Return a cursor whose rows can be read by column name."""
    import sqlite3

    cursor = dbapi.cursor()
    cursor.row_factory = sqlite3.Row
    return cursor


class Lent:
    """A connection as SQLAlchemy gets it: with cursors of its own kind, and not its to close."""

    def __init__(self, dbapi: "sqlite3.Connection") -> None:
        self._dbapi = dbapi

    def cursor(self) -> "sqlite3.Cursor":
        """Return a cursor."""
        return plain_cursor(self._dbapi)

    def close(self) -> None:
        """Do nothing."""

    def create_function(self, *given: Any, **named: Any) -> None:
        """Add a function, unless it is there and in use, by rows that the caller has left unread."""
        import sqlite3

        with suppress(sqlite3.OperationalError):
            self._dbapi.create_function(*given, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dbapi, name)


def count_rows(dbapi: "sqlite3.Connection") -> dict[str, int]:
    """Count the rows of each table, other programs' too; virtual ones keep theirs in tables of their own."""
    execute = plain_cursor(dbapi).execute
    tables = execute("SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0").fetchall()
    return {
        name: execute(f'SELECT count(*) FROM "{name.replace(chr(34), chr(34) * 2)}"').fetchone()[0]  # noqa: S608 - it is quoted
        for (name,) in tables
    }


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Say what can be done about a file that somebody else has open, or that is no whole database."""
    import sqlite3

    try:
        yield
    except UnicodeDecodeError as error:
        raise DamagedFileError(path=path, found=error) from error
    except (sqlite3.DatabaseError, DatabaseError) as error:
        cause = error.orig if isinstance(error, DatabaseError) else error
        # The extended codes stand in the higher bits (https://sqlite.org/rescode.html).
        extended = getattr(cause, "sqlite_errorcode", 0)
        code = extended & 0xFF
        if extended == sqlite3.SQLITE_BUSY_SNAPSHOT:
            raise UnreadRowsError(path=path) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise TodoFileInUseError(path=path, found=cause) from error
        if extended in (sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY):
            raise InterruptedWriteError(path=path) from error
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            raise NotWritableError(path=path, found=cause) from error
        if code == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_WRITE:
            raise DiskFullError(path=path, found=cause) from error
        if code == sqlite3.SQLITE_IOERR:
            raise DiskError(path=path, found=cause) from error
        if code == sqlite3.SQLITE_NOTADB:
            raise NotATodoFileError(path=path, found="it is no SQLite database") from error
        is_damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_TOOBIG)
        if is_damaged or re.match("unsupported file format|Could not decode", str(cause)):
            raise DamagedFileError(path=path, found=cause) from error
        raise


class HintingCompiler(SQLiteCompiler):
    """SQLAlchemy's own, which also writes which index is to be taken (https://sqlite.org/lang_indexedby.html)."""

    def get_from_hint_text(self, table: Any, text: str | None) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Return a hint as it stands behind a table."""
        return text


class _Dialect(SQLiteDialect):
    statement_compiler = HintingCompiler
    supports_statement_cache = True


@cache
def compile_for_sqlite(statement: Executable) -> tuple[str, list[str]]:
    """Return a statement's text, and the names of its parameters in their order."""
    compiled = statement.compile(dialect=_Dialect(paramstyle="qmark"))  # type: ignore[attr-defined]  # ours can be
    return str(compiled), compiled.positiontup
