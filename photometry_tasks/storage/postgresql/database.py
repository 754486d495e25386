"""A connection to a TODO-list on a PostgreSQL server: connecting, transactions, whole tables."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from sqlalchemy import Column, Connection, Engine, Executable, Table, cast, create_engine, event, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from photometry_tasks import schema
from photometry_tasks.errors import RowRefusedError, ServerError, TodoError, UnsupportedOnServerError
from photometry_tasks.models import TABLES
from photometry_tasks.progress.status_fields import NO_LIVE_TASKS, LiveTask, LiveTasks
from photometry_tasks.sql.execution import DriverCursor, Row, Transaction
from photometry_tasks.sql.statements import LIVE_ATTEMPTS, TIME
from photometry_tasks.storage.base import Database
from photometry_tasks.storage.postgresql import claim_statements
from photometry_tasks.storage.postgresql.dbapi import (
    build_dialect,
    check_driver,
    connect,
    describe_error,
    find_driver_error,
    integrity_error,
    open_cursor,
)
from photometry_tasks.storage.postgresql.retry import is_temporary_refusal, pause_before_reconnecting, with_retry
from photometry_tasks.storage.postgresql.url import build_arguments, hide_password
from photometry_tasks.text import count_of, list_first

if TYPE_CHECKING:
    import psycopg


T = TypeVar("T")

_logger = logging.getLogger("photometry_tasks")

#: The longest time for a statement of the hot paths, seconds.
_LONGEST_STATEMENT = 60.0

#: Seconds. A transaction that is open for longer makes claims slower.
_LONG_TRANSACTION = 300.0

#: The code of a change in a transaction that only reads.
_READ_ONLY = "25006"

#: States of a connection, as libpq numbers them (PQTransactionStatusType).
_IDLE, _IN_TRANSACTION, _IN_ERROR = 0, 2, 3

#: The remedies of other errors, by a part of their text.
_REMEDIES = {
    "no password supplied": "add a line to ~/.pgpass, with the host as the URL spells it",
    "permission denied to create temporary tables": "let the owner of the database grant TEMPORARY to this role",
    "statement pooling mode": "set pool_mode = transaction in PgBouncer",
}

#: The most hosts that are listed.
_LISTED = 10

_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"

_TABLES = ", ".join(table.name for table in TABLES)


def _note_interrupt(dbapi: Any, _record: Any, error: BaseException | None) -> None:
    """Note that SQLAlchemy cuts a connection because of Ctrl-C, and not because the server did."""
    if error is not None and not isinstance(error, dbapi.Error):
        dbapi.was_interrupted = True


def _begin(connection: Connection) -> None:
    """Let the driver begin a transaction of SQLAlchemy, unless it joins one of `run_in_transaction`."""
    dbapi: Any = connection.connection.dbapi_connection
    dbapi.begun += 1
    is_wanted = connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT"
    if dbapi.autocommit and is_wanted and dbapi.pgconn.transaction_status == _IDLE:
        dbapi.autocommit = False


def create_reading_engine(url: str) -> Engine:
    """Return an engine each of whose transactions connects to a server, and only reads."""
    check_driver()
    connect_driver = partial(connect, build_arguments(url), for_manager=False)
    engine = create_engine("postgresql+psycopg://", poolclass=NullPool, creator=connect_driver)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(_BEGIN_READING))
    return engine


class PostgreSQLDatabase(Database):
    """One connection to a TODO-list on a PostgreSQL server.

    Parameters
    ----------
    url : str
        postgresql+psycopg://user:password@host/database, or any other form of a URL of libpq.
    patience : float, optional
        For a manager's connection: seconds for which calls are retried after the server was lost, and the longest time
        for a statement of the hot paths.

    Attributes
    ----------
    name : str
        The URL, without password and query.
    connection : sqlalchemy.Connection
    dbapi : psycopg.Connection
        The driver's connection.
    cursor : DriverCursor
        Runs statements on the driver's connection.
    is_unsure : bool
        Whether an earlier try of the current call of `with_retry` may have been committed, with its answer lost.
    is_given_up : bool
        Whether the last call failed after retries: then calls are not retried until a call succeeds.
    """

    #: Key of the advisory lock that upgrades and loads take in turn: an arbitrary number, which must not change.
    _UPGRADE_LOCK = 0x7068_6F74  # 'phot'

    dbapi: "psycopg.Connection[Any]"
    cursor: DriverCursor

    def __init__(self, url: str, *, patience: float | None = None) -> None:
        self.name = hide_password(url)
        self.patience = patience
        self._longest_statement = None if patience is None else min(_LONGEST_STATEMENT, patience)
        # If a client stops or its node fails within a transaction, its locks must not stay for ever.
        milliseconds = int(1000 * (patience or 0))
        self._begin_limited = f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = {milliseconds}"
        self.is_given_up = self.is_unsure = False
        check_driver()
        connect_driver = partial(connect, build_arguments(url), for_manager=patience is not None)
        self._engine = create_engine("postgresql+psycopg://", poolclass=NullPool, creator=connect_driver)
        event.listen(self._engine, "invalidate", _note_interrupt)
        event.listen(self._engine, "begin", _begin)
        self._open()

    # --- connecting --------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Connect for the first time; a manager retries while the server is full or starts up."""
        begun, is_reported = time.monotonic(), False
        while True:
            try:
                return self._connect()
            except DBAPIError as error:
                seconds = begun + (self.patience or 0.0) - time.monotonic()
                if seconds <= 0 or not is_temporary_refusal(error):
                    raise self._explain(error) from error
                if not is_reported:
                    message = "%s: %s; retrying for %.0f s"
                    _logger.warning(message, self.name, describe_error(error), seconds)
                is_reported = True
            pause_before_reconnecting(seconds)

    def _connect(self) -> None:
        connection = self._engine.connect()
        dbapi: Any = connection.connection.dbapi_connection

        def build_cursor(_statement: Executable | None = None) -> DriverCursor:
            return DriverCursor(open_cursor(dbapi), build_dialect(), integrity_error())

        cursor, get_cursor = build_cursor(), lru_cache(64)(build_cursor)
        # No exception can come between these assignments.
        self._connection, self.dbapi, self.cursor, self._get_cursor = connection, dbapi, cursor, get_cursor

    def ensure_idle(self) -> None:
        """Reconnect if the connection is lost, or if Ctrl-C has interrupted a statement."""
        if not self._is_idle() and not self.is_lost():
            self.rollback()
        if not self._is_idle():
            self.invalidate()
            with suppress(Exception):
                self.connection.invalidate()
                self.connection.close()
            self._connect()
        if not self.dbapi.autocommit:
            self.dbapi.autocommit = True  # a statement alone needs no transaction

    def ensure_connected(self) -> None:
        """Connect again if the connection is lost."""
        if self.is_lost():
            self.with_retry(lambda: None)

    def was_interrupted(self) -> bool:
        """Whether the connection is lost because an exception interrupted a statement."""
        dbapi: Any = self.dbapi
        return bool(dbapi.was_interrupted)

    def invalidate(self) -> None:
        """Cut the connection; the next call reconnects."""
        self.dbapi.pgconn.finish()

    #: `ensure_idle` then replaces SQLAlchemy's connection too.
    forget_connection = invalidate

    def is_lost(self) -> bool:
        """Whether the connection is cut."""
        return self.dbapi.closed or self.dbapi.broken

    def _is_idle(self) -> bool:
        return self.dbapi.pgconn.transaction_status == _IDLE

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection."""
        return self._connection

    # --- transactions ------------------------------------------------------------------------------------

    @contextmanager
    def begin(self, *, writes: bool) -> Iterator[Connection]:
        """Run one transaction: committed at the end of the block, rolled back on any exception."""
        try:
            with self.connection.begin():
                if not writes:
                    self.connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                yield self.connection
        except Exception as error:
            self.raise_explained(error)

    @contextmanager
    def begin_upgrade(self) -> Iterator[Connection]:
        """Run one transaction that waits for other upgrades and loads, and makes later ones wait."""
        with self.begin(writes=True) as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self._UPGRADE_LOCK})")
            yield connection

    #: Loads wait for each other and for upgrades too.
    begin_load = begin_upgrade

    @contextmanager
    def begin_adding(self, stage: Callable[[], None]) -> Iterator[Connection]:
        """Run one transaction that adds rows: behind a pooler, a temporary table has no longer life."""
        with self.begin_load() as connection:
            schema.check_current(connection, self.name)
            stage()
            yield connection

    def run_in_transaction(self, work: Callable[[Transaction], T], *, is_long: bool = False) -> T:
        """Return the result of `work`, which runs as one transaction and is retried.

        If the connection was lost during the commit, an earlier try may have been committed. `work` must allow for
        this.
        """

        def call() -> T:
            dbapi: Any = self.dbapi
            dbapi.timeout = None if is_long else self.patience
            dbapi.begun += 1
            try:
                dbapi.execute(self._begin_limited, prepare=False)
                result = work(Transaction(self.connection, self.cursor, is_shared=True))
                self._commit()
            finally:
                dbapi.timeout = None  # statements of the manager's callers may take long
            return result

        return self.with_retry(call)

    def run_alone(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run a statement as a transaction, and return its rows."""
        dbapi: Any = self.dbapi
        dbapi.timeout = self._longest_statement
        try:
            # Each statement has a cursor, which keeps the conversions of its values as long as it runs no other.
            return self._get_cursor(statement).fetch_all(statement, parameters)
        finally:
            dbapi.timeout = None

    def with_retry(self, call: Callable[[], T]) -> T:
        """Return the result of a call, and retry it after temporary errors: see `retry`."""
        return with_retry(self, call)

    def _commit(self) -> None:
        if self.connection.in_transaction():
            self.connection.commit()
        else:
            self.dbapi.commit()

    def rollback(self) -> None:
        """Roll back the open transaction, if any."""
        with suppress(Exception):
            if self.connection.in_transaction():
                self.connection.rollback()
            self.dbapi.rollback()
        if not self._is_idle() or self.connection.get_transaction() is not None:
            self.invalidate()  # an exception has interrupted the driver or SQLAlchemy

    def raise_explained(self, error: BaseException) -> NoReturn:
        """Raise an error; an error of the driver becomes a ServerError."""
        if find_driver_error(error) is not None and not isinstance(error, TodoError):
            raise self._explain(error) from error
        raise error

    def _explain(self, error: BaseException) -> ServerError:
        found = describe_error(error)
        if find_driver_error(error).sqlstate == _READ_ONLY:
            found += "; use the primary server, and a role without default_transaction_read_only"
        found += "".join(f"; {remedy}" for text, remedy in _REMEDIES.items() if text in found)
        return ServerError(path=self.name, found=found)

    # --- whole tables ------------------------------------------------------------------------------------

    # COPY in the binary format is fast, does not round, and refuses a value whose type is not its column's.

    def iter_rows(self, table: Table) -> Generator[Row, None, None]:
        """Yield the rows of a table within the open transaction, with values in the order of its columns."""
        columns = list(table.columns)
        selected = select(*(cast(column, column.type) for column in columns))
        sql = str(selected.order_by(*(list(table.primary_key) or columns)).compile(self.connection))
        with self.dbapi.cursor() as cursor, cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT BINARY)".encode()) as copy:
            copy.set_types(self._find_types(columns))
            yield from copy.rows()

    def add_rows(self, columns: Sequence[Column[Any]], rows: Iterable[Row]) -> None:
        """Add rows, with values in the order of the columns, to their table within the open transaction.

        Raises
        ------
        RowRefusedError
        """
        import psycopg

        names = ", ".join(column.name for column in columns)
        sql = f"COPY {columns[0].table} ({names}) FROM STDIN (FORMAT BINARY)"
        try:
            with self.dbapi.cursor() as cursor, cursor.copy(sql.encode()) as copy:
                copy.set_types(self._find_types(columns))
                for row in rows:
                    copy.write_row(row)
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.NotSupportedError, ValueError, TypeError) as error:
            raise RowRefusedError(path=self.name, table=columns[0].table, found=describe_error(error)) from error
        for column in columns:
            if column.identity is not None:  # COPY does not count its numbers
                sequence = func.pg_get_serial_sequence(column.table.name, column.name)
                self.connection.execute(select(func.setval(sequence, func.max(column))))

    def _find_types(self, columns: Iterable[Column[Any]]) -> list[str]:
        """Return the types of the columns, as the server names them."""
        return [column.type.compile(self.connection.dialect).lower() for column in columns]

    def renew_statistics(self) -> None:
        """Renew the planner's statistics, on which the plans of claims with constraints depend."""
        self.connection.exec_driver_sql(f"ANALYZE {_TABLES}")

    def lock_tables(self) -> None:
        """Keep other managers from changing the tasks until the open transaction ends."""
        self.connection.exec_driver_sql(f"LOCK TABLE {_TABLES} IN SHARE ROW EXCLUSIVE MODE")

    def compact(self) -> None:
        """Free the space of deleted rows, and renew the planner's statistics."""
        self.ensure_idle()
        self.cursor.run_sql(f"VACUUM (ANALYZE) {_TABLES}")

    # --- other managers ----------------------------------------------------------------------------------

    def find_holder(self) -> str | None:
        """Return the number of managers that have the list open, with their hosts, or None."""
        if schema.find_changes(self.connection, self.name):
            return None  # an older schema may lack the table of workers
        hosts = Counter(row.host for row in self.connection.execute(claim_statements.OTHERS, {"worker": 0}))
        named = [f"{host}: {number}" for host, number in sorted(hosts.items())]
        return f"{count_of(hosts.total(), 'manager')} ({list_first(named, _LISTED)})" if hosts else None

    def limit_time(self, seconds: float | None) -> None:
        """Let queries of the open transaction fail that take longer; None ends this."""
        self.connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(1000 * (seconds or 0.0))}")

    def find_live_tasks(self) -> LiveTasks:
        """Return tasks that managers run, the longest of them, by priority."""
        if schema.find_changes(self.connection, self.name):
            return NO_LIVE_TASKS  # an older schema may lack the table of attempts
        now: float = self.connection.execute(TIME).scalar_one()
        rows = self.connection.execute(LIVE_ATTEMPTS)
        return LiveTasks(
            {
                row.priority: LiveTask(max(0.0, now - row.begun.timestamp()), f"worker {row.worker} on {row.host}")
                for row in rows
            }
        )

    def find_oldest_transaction(self) -> dict[str, Any] | None:
        """Return the oldest transaction of other sessions that has been open for minutes, or None."""
        found = self.connection.execute(claim_statements.OLDEST_TRANSACTION, {"seconds": _LONG_TRANSACTION})
        return next(map(dict, found.mappings()), None)

    # --- the manager's callers ---------------------------------------------------------------------------

    def count_begun(self) -> int:
        """Return the number of transactions on this connection, also of a session; a statement alone is not counted."""
        dbapi: Any = self.dbapi
        return int(dbapi.begun)

    def has_changes(self) -> bool:
        """Whether the open transaction of a caller has changed rows, or has failed."""
        status = self.dbapi.pgconn.transaction_status
        if status != _IN_TRANSACTION:
            return status == _IN_ERROR
        try:
            return bool(self.cursor.run_sql("SELECT pg_current_xact_id_if_assigned()").fetchone()[0])
        except Exception as error:
            self.raise_explained(error)

    def get_dbapi(self, attribute: str) -> NoReturn:
        """Raise UnsupportedOnServerError: programs that use the driver's connection expect SQLite's."""
        raise UnsupportedOnServerError(name=attribute, path=self.name)

    def leak_in_child(self) -> None:
        """Keep a forked child from closing the connection: that would end the parent's session on the server."""
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back."""
        with suppress(DBAPIError):  # the connection may be lost
            self.connection.close()
        self._engine.dispose()
