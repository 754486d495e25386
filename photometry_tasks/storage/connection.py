"""The one connection of a manager, which it shares with its callers: whose turn it is, and whose changes they are."""

import os
import threading
import warnings
import weakref
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from photometry_tasks.errors import ClosedError, ServerError, UncommittedChangesError, WrongThreadError
from photometry_tasks.storage.postgresql.database import PostgreSQL
from photometry_tasks.storage.sqlite.database import SQLite
from photometry_tasks.storage.sqlite.dbapi import cursor_of_rows

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Shared", "SharedConnection"]


class SharedConnection:
    """A manager's connection, and the session that it lends to its callers.

    Parameters
    ----------
    database : SQLite or PostgreSQL
        It is closed by `close`.
    path : str
        Names the TODO-file in errors.
    """

    def __init__(self, database: SQLite | PostgreSQL, path: str) -> None:
        self._database = database
        self._path = path
        self._cursor: sqlite3.Cursor | None = None
        self._session: Session | None = None
        self._owner = os.getpid(), threading.get_ident()
        self.is_open = True
        _all.add(self)

    @property
    def conn(self) -> "sqlite3.Connection":
        """The connection itself."""
        self.check_open()
        return self._database.lend("conn")

    @property
    def cursor(self) -> "sqlite3.Cursor":
        """A cursor of it, always the same, whose rows can be read by column name."""
        self.check_open()
        if self._cursor is None:
            self._cursor = cursor_of_rows(self._database.lend("cursor"))
        return self._cursor

    @property
    def session(self) -> Session:
        """The session, made when it is first asked for."""
        self.check_open()
        if self._session is None or self._session.bind is not self._database.connection:
            self._session = Session(self._database.connection)
        return self._session

    def check_open(self) -> None:
        """Refuse what comes after closing, from another thread, or from a forked child."""
        if not self.is_open:
            raise ClosedError(path=self._path)
        if self._owner != (os.getpid(), threading.get_ident()):
            raise WrongThreadError(path=self._path)

    def check_ready(self, method: str) -> None:
        """Refuse a method while the caller's own changes are uncommitted."""
        self.check_open()
        self._database.finish_interrupted()
        session = self._session
        is_lost = isinstance(self._database, PostgreSQL) and self._database.is_lost()
        if is_lost and session is not None and session.in_transaction():
            self._close_session()
            found = "the connection was lost while a transaction of `session` was open"
            raise ServerError(path=self._path, found=found)
        try:
            has_changes = self._database.has_changes()
        except ServerError:
            self._close_session()
            raise
        if has_changes or (session is not None and _has_changes(session)):
            raise UncommittedChangesError(method=method)
        if session is not None:
            # Nothing but a read can be open now. Its objects would hide what the method is going to change.
            session.rollback()

    def keep_open(self) -> None:
        """Let nothing close the connection in this process, which is a forked child."""
        self._database.keep_open()

    def is_forked(self) -> bool:
        """Whether this process is a child of the one that opened the connection."""
        return self._owner[0] != os.getpid()

    def take_back(self) -> None:
        """Drop the caller's uncommitted changes, from whichever thread: the garbage collector runs in any."""
        self._owner = os.getpid(), threading.get_ident()
        self._close_session()
        self._database.roll_back()

    def close(self) -> None:
        """Close the session and the connection."""
        self.is_open = False
        if self._cursor is not None:
            self._cursor.close()  # rows that were left in it would hold the file
        self._close_session()
        self._database.close()

    def _close_session(self) -> None:
        if self._session is not None:
            with suppress(DBAPIError):  # as where the connection is lost
                self._session.close()
            self._session = None


_all: weakref.WeakSet[SharedConnection] = weakref.WeakSet()


def _keep_open_in_child() -> None:
    for shared in list(_all):
        if shared.is_open:
            shared.keep_open()


os.register_at_fork(after_in_child=_keep_open_in_child)


class Shared:
    """What a manager shares with its callers, and how they leave it. A base class of `TaskManager`."""

    _shared: SharedConnection

    @property
    def conn(self) -> "sqlite3.Connection":
        """The connection that the manager itself uses; of TODO-files only."""
        return self._shared.conn

    @property
    def cursor(self) -> "sqlite3.Cursor":
        """A cursor of it, always the same, whose rows are `sqlite3.Row`; of TODO-files only."""
        return self._shared.cursor

    @property
    def session(self) -> Session:
        """An ORM session on the manager's own connection; it is the caller's to commit."""
        return self._shared.session

    def close(self) -> None:
        """Put all on disk, and close the file."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shared.is_forked():
            return  # the block is the parent's to leave
        if kind is not None and self._shared.is_open:
            # What the caller left half done must not keep the results from being put on disk.
            self._shared.take_back()
        self.close()

    def __del__(self) -> None:
        shared = getattr(self, "_shared", None)  # there is none if opening failed
        if shared is None or not shared.is_open:
            return
        if shared.is_forked():
            return  # the file is the parent's to close
        try:
            shared.take_back()
            self.close()
        finally:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)


def _has_changes(session: Session) -> bool:
    return bool(session.new or session.deleted or any(map(session.is_modified, session.dirty)))
