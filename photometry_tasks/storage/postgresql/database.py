"""PostgreSQL: connections and transactions, and what its errors mean."""

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from sqlalchemy import Column, Connection, Executable, Table, cast, create_engine, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from photometry_tasks.errors import (
    OnlyOfFilesError,
    ServerError,
    ServerLostError,
    TodoError,
    TodoListNotFoundError,
)
from photometry_tasks.rules.validation import invalid
from photometry_tasks.sql.execution import Row, Statements, Transaction
from photometry_tasks.storage.postgresql.dbapi import (
    check_driver,
    compile_for_postgresql,
    describe,
    find_cause,
    integrity_error,
    judge,
    reach_server,
    will_pass,
)

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgreSQL", "build_name"]

T = TypeVar("T")

_logger = logging.getLogger("photometry_tasks")

#: How often a transaction is tried that others are in the way of.
_TRIES = 20

#: Seconds that one of the statements of the hot paths may take.
_LONGEST_STATEMENT = 60.0

#: Seconds between two tries, at first and at most.
_PAUSE, _LONGEST_PAUSE = 0.02, 5.0


class PostgreSQL:
    """One connection to a TODO-list on a PostgreSQL server.

    Parameters
    ----------
    url : str
        postgresql+psycopg://user:password@host/database
    patience : float, optional
        For the connection of a manager: seconds for which it is tried to reach a server that is gone, and to get an
        answer to a statement of the hot paths.

    Attributes
    ----------
    connection : sqlalchemy.Connection
    dbapi : psycopg.Connection
        The same connection, of the driver.
    statements : Statements
        The same connection for prepared statements.
    is_unsure : bool
        Whether in the call of `repeat` an answer was lost.
    name : str
        The URL, without password and query.
    """

    #: Key of the lock that keeps two upgrades apart; any number that is always the same.
    _UPGRADE_LOCK = 0x7068_6F74  # 'phot'

    connection: Connection
    dbapi: "psycopg.Connection[Any]"
    statements: Statements

    def __init__(self, url: str, *, patience: float | None = None) -> None:
        self.name = build_name(url)
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        self._patience = patience
        # A client that is stopped, or whose node dies, in the midst of a transaction must not keep its locks for ever.
        milliseconds = int(1000 * (patience or 0))
        self._begin = f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = {milliseconds}"
        self._is_given_up = self.is_unsure = False
        check_driver()
        self._engine = create_engine(self._url, poolclass=NullPool, creator=self._reach)
        self._open()

    # --- connecting --------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Connect for the first time; a manager waits while there are too many, or the server is starting up."""
        begun, is_told = time.monotonic(), False
        while True:
            try:
                return self._connect()
            except DBAPIError as error:
                seconds = begun + (self._patience or 0.0) - time.monotonic()
                if seconds <= 0 or not will_pass(error):
                    raise self._explain(error) from error
                if not is_told:
                    message = "%s: %s; it is tried again for %.0f s"
                    _logger.warning(message, self.name, describe(error), seconds)
                is_told = True
            time.sleep(random.uniform(0.1, min(_LONGEST_PAUSE, seconds)))  # noqa: S311 - no secret

    def _reach(self) -> Any:
        arguments, named = self._engine.dialect.create_connect_args(self._url)
        return reach_server(arguments, named, for_manager=self._patience is not None)

    def _connect(self) -> None:
        self.connection = self._engine.connect()
        dbapi: Any = self.connection.connection.dbapi_connection
        self.dbapi = dbapi
        self.statements = Statements(dbapi.cursor(), compile_for_postgresql, integrity_error())

    def _reconnect(self) -> None:
        with suppress(Exception):
            self.connection.invalidate()
            self.connection.close()
        self._connect()

    def is_lost(self) -> bool:
        """Whether the connection is cut."""
        return self.dbapi.closed or self.dbapi.broken

    def _is_idle(self) -> bool:
        from psycopg.pq import TransactionStatus

        return bool(self.dbapi.info.transaction_status == TransactionStatus.IDLE)

    def _ensure_idle(self) -> None:
        """Make a connection anew that is lost, or that Ctrl-C has left in the midst of something."""
        if not self.is_lost() and not self._is_idle():
            self.roll_back()
        if not self._is_idle():
            self.dbapi.pgconn.finish()
            self._reconnect()
        elif self.dbapi.autocommit:
            self.dbapi.autocommit = False

    # --- transactions ------------------------------------------------------------------------------------

    def check_list(self) -> None:
        """Check that there is a TODO-list.

        Raises
        ------
        TodoListNotFoundError
        """
        with self.begin(writes=False) as connection:
            if not inspect(connection).has_table("todolist"):
                raise TodoListNotFoundError(path=self.name)

    @contextmanager
    def begin(self, *, writes: bool) -> Iterator[Connection]:
        """Run one transaction: committed at the end of the block, rolled back on any exception."""
        try:
            with self.connection.begin():
                if not writes:  # what is read in several statements belongs together
                    self.connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                yield self.connection
        except Exception as error:
            self.abandon(error)

    @contextmanager
    def begin_upgrade(self) -> Iterator[Connection]:
        """Run one transaction that waits for other upgrades, and keeps them waiting."""
        with self.begin(writes=True) as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self._UPGRADE_LOCK})")
            yield connection

    def transact(self, work: Callable[[Transaction], T], *, is_long: bool = False) -> T:
        """Return what some work returns, which is one transaction; it is done again while the server says it may be.

        It may have been done before, if the connection was lost in the commit: work that is done twice has to see that.
        """

        def call() -> T:
            with self._patient(None if is_long else self._patience):
                self.dbapi.execute(self._begin, prepare=False)
                answer = work(Transaction(self.connection, self.statements, is_shared=True))
                self._commit()
            return answer

        return self.repeat(call)

    @contextmanager
    def _patient(self, seconds: float | None) -> Iterator[None]:
        """Begin no transaction but by a statement, and give up a server that does not answer one for so long."""
        dbapi: Any = self.dbapi
        try:
            dbapi.autocommit = True
            dbapi.patience = seconds
            yield
        finally:
            dbapi.patience = None  # the callers' own statements may take long
            if self._is_idle():
                dbapi.autocommit = False

    def try_out(self, work: Callable[[Transaction], T]) -> T:
        """Return what some work returns, and take all back that it has done."""
        try:
            return work(Transaction(self.connection, self.statements, is_shared=True))
        except DBAPIError as error:
            self.abandon(error)
        finally:
            self.roll_back()

    def run_alone(self, sql: str, parameters: Row) -> list[Row]:
        """Run a statement that is a transaction of its own, and return its rows."""
        with self._patient(None if self._patience is None else min(_LONGEST_STATEMENT, self._patience)):
            rows: list[Row] = self.statements.run(sql, parameters).fetchall()
        return rows

    def alone(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Do as `run_alone` with a statement built once."""
        sql, names = compile_for_postgresql(statement)
        return self.run_alone(sql, tuple(parameters[name] for name in names))

    def repeat(self, call: Callable[[], T]) -> T:
        """Return what a call returns, which is made again while the server says that it may be.

        Parameters
        ----------
        call : callable
            It finds in `is_unsure` whether an earlier one may have been done, though nobody was told.

        Raises
        ------
        ServerLostError
            If the server cannot be reached for too long.
        ServerError
            If it refuses.
        """
        begun, tries, self.is_unsure = None, 0, False
        while True:
            try:
                self._ensure_idle()
                answer = call()
            except BaseException as error:
                is_lost, is_conflict = judge(error, is_lost=self.is_lost())
                if is_lost:
                    self.dbapi.pgconn.finish()  # in whatever state it is
                self.roll_back()
                if not (is_lost or is_conflict) or self._patience is None:
                    self.abandon(error)
                tries += 1
                begun = begun or time.monotonic()
                self.is_unsure = self.is_unsure or is_lost
                # After that each call is tried but once, until one gets through.
                patience = 0.0 if self._is_given_up else self._patience
                if is_conflict and tries >= _TRIES:
                    self.abandon(error)
                if time.monotonic() - begun >= patience:
                    self._is_given_up = is_lost
                    raise ServerLostError(path=self.name, found=describe(error), seconds=self._patience) from error
            else:
                self._is_given_up = False
                return answer
            time.sleep(random.uniform(0.5, 1) * min(_LONGEST_PAUSE, _PAUSE * 2**tries))  # noqa: S311 - no secret

    def _commit(self) -> None:
        if self.connection.in_transaction():
            self.connection.commit()
        else:
            self.dbapi.commit()

    def roll_back(self) -> None:
        """Roll back whatever transaction is open."""
        # A connection that is lost, or that Ctrl-C has left in the midst of something, is made anew by the next call.
        with suppress(Exception):
            if self.connection.in_transaction():
                self.connection.rollback()
            self.dbapi.rollback()
            self.dbapi.autocommit = False

    def abandon(self, error: BaseException) -> NoReturn:
        """Raise an error, explained."""
        if find_cause(error) is not None and not isinstance(error, TodoError):
            raise self._explain(error) from error
        raise error

    def _explain(self, error: BaseException) -> ServerError:
        return ServerError(path=self.name, found=describe(error))

    def compact(self) -> None:
        """Free what was deleted, and renew the planner's statistics."""
        with self._patient(None):
            self.statements.run("VACUUM (ANALYZE) todolist, diagnostics, photometry_skipped")

    # --- whole tables ------------------------------------------------------------------------------------

    # In binary: it is fast, not one bit is rounded, and a value of another type than its column's is an error.

    def copy_in(self, table: Table, rows: Iterable[Row], columns: Iterable[Column[Any]] | None = None) -> None:
        """Add rows to a table, values in the order of its columns, within the transaction that is open."""
        columns = list(table.columns if columns is None else columns)
        names = ", ".join(column.name for column in columns)
        sql = f"COPY {table.name} ({names}) FROM STDIN (FORMAT BINARY)"
        with self.dbapi.cursor() as cursor, cursor.copy(sql.encode()) as copy:
            copy.set_types(self._find_types(columns))
            for row in rows:
                copy.write_row(row)

    def copy_out(self, table: Table) -> Iterator[Row]:
        """Yield the rows of a table in the order of its key, as the transaction that is open sees them."""
        columns = list(table.columns)
        selected = select(*(cast(column, column.type) for column in columns))
        sql = str(selected.order_by(*(list(table.primary_key) or columns)).compile(self.connection))
        with self.dbapi.cursor() as cursor, cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT BINARY)".encode()) as copy:
            copy.set_types(self._find_types(columns))
            yield from copy.rows()

    def _find_types(self, columns: Iterable[Column[Any]]) -> list[str]:
        """Return the server's names of the columns' types."""
        return [column.type.compile(self.connection.dialect).lower() for column in columns]

    # --- what the manager's callers do with the connection -----------------------------------------------

    def has_changes(self) -> bool:
        """Whether a transaction of the caller's is open that has changed something."""
        from psycopg.pq import TransactionStatus

        status = self.dbapi.info.transaction_status
        if status != TransactionStatus.INTRANS:
            return bool(status == TransactionStatus.INERROR)
        try:
            return bool(self.statements.run("SELECT pg_current_xact_id_if_assigned()").fetchone()[0])
        except Exception as error:
            self.abandon(error)

    def lend(self, name: str) -> NoReturn:
        """Refuse: who uses the driver's connection directly does so with SQLite's."""
        raise OnlyOfFilesError(name=name, path=self.name)

    def finish_interrupted(self) -> None:
        """Nothing is left of what Ctrl-C has ended: each call tidies up after itself."""

    def keep_open(self) -> None:
        """Let nothing close the connection in this process, a forked child: it would say good-bye for the parent."""
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))

    def close(self) -> None:
        """Close the connection; what is not committed is rolled back."""
        with suppress(DBAPIError):  # as one that is lost already
            self.connection.close()
        self._engine.dispose()


def build_name(url: str) -> str:
    """Return a URL as it is shown, without password and query.

    Raises
    ------
    InvalidArgumentError
        If it is not the URL of a PostgreSQL server.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Nothing is shown of it: it may hold a password.
        raise invalid("url", "…", "postgresql+psycopg://user:password@host/database is expected") from None
    # Other secrets may stand in the query.
    name = parsed.set(query={}).render_as_string(hide_password=True)
    if "@" in (parsed.host or ""):
        raise invalid("url", "…", "write the @ in a password as %40")  # a part of it would be taken for the host
    if parsed.drivername not in ("postgresql", "postgresql+psycopg"):
        raise invalid("url", name, "a path or a URL of postgresql+psycopg is expected")
    return name
