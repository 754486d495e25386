"""What SQLite's errors mean, and what can be done about them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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

__all__ = ["sqlite_errors"]


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
