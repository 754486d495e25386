"""The one connection that a manager shares with its callers: `conn`, `cursor` and `session`."""

import os
import sys
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.orm import Session, SessionTransaction, configure_mappers

from photometry_tasks.errors import ClosedError, ServerError, UncommittedChangesError, WrongThreadError

if TYPE_CHECKING:
    import sqlite3


class SharedDatabase(Protocol):
    """The part of a database that a manager shares with its callers."""

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection."""

    def get_dbapi(self, attribute: str) -> "sqlite3.Connection":
        """Return the driver's connection.

        Raises
        ------
        UnsupportedOnServerError
            On a server; the error names the attribute.
        """

    def has_changes(self) -> bool:
        """Whether an open transaction has uncommitted changes."""

    def is_lost(self) -> bool:
        """Whether the connection is lost."""
        return False

    def was_interrupted(self) -> bool:
        """Whether the connection is lost because an exception interrupted a statement."""
        return False

    def ensure_connected(self) -> None:
        """Connect again if the connection is lost."""
        return

    def finish_interrupted(self) -> None:
        """Roll back the manager's transaction if an exception interrupted it."""
        return

    def forget_connection(self) -> None:
        """Let the next use of SQLAlchemy's connection create it anew, since an exception interrupted it."""

    def rollback(self) -> None:
        """Roll back the open transaction."""

    def leak_in_child(self) -> None:
        """Keep a forked child from closing the connection, even at its exit."""

    def close(self) -> None:
        """Roll back an open transaction, and close the connection."""


class ManagerConnection:
    """A manager's connection, with the cursor and the session that its callers use.

    Parameters
    ----------
    database : SharedDatabase
        The database, which `close` closes.
    name : str
        The name of the list in errors.
    """

    def __init__(self, database: SharedDatabase, name: str) -> None:
        self._database = database
        self._name = name
        self._cursor: sqlite3.Cursor | None = None
        self._session: Session | None = None
        #: The thread that opened the connection; None in a forked child.
        self._thread: int | None = threading.get_ident()
        self.is_open = True
        _all.add(self)

    @property
    def dbapi(self) -> "sqlite3.Connection":
        """The driver's connection."""
        self.check_open()
        return self._database.get_dbapi("conn")

    @property
    def cursor(self) -> "sqlite3.Cursor":
        """A cursor of the driver's connection, always the same, whose rows can be read by column name."""
        self.check_open()
        if self._cursor is None:
            import sqlite3

            self._cursor = self._database.get_dbapi("cursor").cursor()
            self._cursor.row_factory = sqlite3.Row
        return self._cursor

    @property
    def session(self) -> Session:
        """The ORM session, created at its first use."""
        self.check_open()
        if self._session is None or not self._session.in_transaction():
            self._database.ensure_connected()
        if self._session is None or self._session.bind is not self._database.connection:
            _configure_models()
            self._session = Session(self._database.connection)
            event.listen(self._session, "after_soft_rollback", self._roll_back)
        return self._session

    def _roll_back(self, _session: Session, transaction: SessionTransaction) -> None:
        """Roll back with the session: after an interrupted commit, its own rollback does not reach the database."""
        if not transaction.nested:
            self._database.rollback()

    def check_open(self) -> None:
        """Check that the manager is open, and that the call comes from its own thread and process.

        If an exception has interrupted the last call, roll it back: the caller's commit shall not complete it.

        Raises
        ------
        ClosedError, WrongThreadError
        """
        if not self.is_open:
            raise ClosedError(path=self._name, opener="TaskManager")
        if self._thread != threading.get_ident():
            raise WrongThreadError(path=self._name)
        self._database.finish_interrupted()

    def check_ready(self, method: str) -> None:
        """Check that the caller has no uncommitted changes, before `method` begins its transaction.

        Raises
        ------
        UncommittedChangesError, ServerError, ClosedError, WrongThreadError
        """
        self.check_open()
        session = self._session
        if session is not None and session.in_transaction() and self._database.is_lost():
            self._close_session()
            session = None
            if not self._database.was_interrupted():  # otherwise the caller has got the exception
                found = "the connection was lost while a transaction of `session` was open"
                raise ServerError(path=self._name, found=found)
        try:
            has_changes = self._database.has_changes()
        except BaseException:
            if self._database.is_lost():
                self._close_session()
            raise
        if has_changes or (session is not None and _has_changes(session)):
            remedy = f"Commit or roll back these changes, then call {method} again"
            raise UncommittedChangesError(method=method, remedy=remedy)
        if session is not None:
            self._end_read(session)

    def _end_read(self, session: Session) -> None:
        """Roll back the session, in which only a read is open: its objects would hide the changes of the method."""
        outer, interrupt = sys.exc_info()[1], None
        try:
            session.rollback()
            if self._database.connection.get_transaction() is None:
                return
        except BaseException as error:
            interrupt = find_interrupt(error, outer)
        # An exception has interrupted SQLAlchemy, now or in an earlier call of the session.
        self._session = None
        self._database.forget_connection()
        if interrupt is not None and not isinstance(interrupt, _STATE_ERRORS):
            raise interrupt from None

    def is_forked(self) -> bool:
        """Whether this process is a child of the process that opened the connection."""
        return self._thread is None

    def discard_changes(self) -> None:
        """Roll back the caller's uncommitted changes, from any thread: the garbage collector may run there."""
        self._thread = threading.get_ident()
        self._close_session()
        self._database.rollback()

    def close(self) -> None:
        """Close the session and the connection."""
        self.is_open = False
        try:
            if self._cursor is not None:
                self._cursor.close()  # its unread rows would keep the file locked
                self._cursor = None
            self._close_session()
        finally:
            self._database.close()

    def leak_in_child(self) -> None:
        """Keep a forked child from using or closing the connection."""
        self._thread = None
        self._database.leak_in_child()

    def _close_session(self) -> None:
        if self._session is not None:
            with suppress(DBAPIError, *_STATE_ERRORS):  # the connection may be lost
                self._session.close()
            self._session = None


#: Errors of SQLAlchemy about its own state, which is inconsistent after an exception has interrupted it.
_STATE_ERRORS = AssertionError, AttributeError, InvalidRequestError


def find_interrupt(error: BaseException, outer: BaseException | None) -> BaseException:
    """Return the exception that interrupted SQLAlchemy, which may raise another one in its place.

    Parameters
    ----------
    error : BaseException
    outer : BaseException or None
        The exception that was handled before, if the caller calls from an `except` block.
    """
    context = error.__context__
    if context is None or context is outer:
        return error
    is_in_its_place = isinstance(error, SQLAlchemyError | AssertionError) and not isinstance(error, DBAPIError)
    return find_interrupt(context, outer) if is_in_its_place or not isinstance(context, Exception) else error


def _configure_models() -> None:
    """Configure the models in another thread: an exception of a signal handler here would leave them unusable."""
    thread = threading.Thread(target=configure_mappers)
    thread.start()
    thread.join()


def _has_changes(session: Session) -> bool:
    return bool(session.new or session.deleted or any(map(session.is_modified, session.dirty)))


_all: weakref.WeakSet[ManagerConnection] = weakref.WeakSet()


def _leak_all_in_child() -> None:
    for connection in list(_all):
        if connection.is_open:
            connection.leak_in_child()


os.register_at_fork(after_in_child=_leak_all_in_child)
