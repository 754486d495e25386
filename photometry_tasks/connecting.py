"""Connections of Python's own driver to SQLite files."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from photometry_tasks.sqlite_errors import sqlite_errors

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Lent", "connect", "count_rows", "cursor_of_rows", "plain_cursor", "set_up"]


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
