"""psycopg, the driver of PostgreSQL: its connections, its dialect, and the text of its errors."""

import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.exc import DBAPIError

from photometry_tasks.errors import DriverMissingError, ServerError
from photometry_tasks.rules.validation import invalid_argument

#: libpq's parameters, unless the URL sets them: a lost server or network is detected within a minute.
_CONNECTING = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 4,
    "tcp_user_timeout": 60_000,
    "fallback_application_name": "photometry_tasks",
}

#: The longest time for the settings, seconds: a pooler accepts clients for which it has no free connection yet.
_LONGEST_SETTING = 60.0

#: The settings of each connection: other settings of the role, the database or the client change no answer, and end no
#: call. A statement that waited for a row sees its latest version. All tables are those of the schema with the list; a
#: new list is created in the first schema of the search path where the name of its table is free.
_SETTINGS = """
SELECT set_config(name, value, false) FROM (VALUES
    ('client_encoding', 'UTF8'), ('datestyle', 'ISO, MDY'), ('intervalstyle', 'postgres'), ('timezone', 'UTC'),
    ('extra_float_digits', '1'), ('standard_conforming_strings', 'on'), ('quote_all_identifiers', 'off'),
    ('default_transaction_isolation', 'read committed'),
    ('statement_timeout', '0'), ('lock_timeout', '0'), ('transaction_timeout', '0'),
    ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'),
    ('search_path', coalesce(
        (SELECT relnamespace::regnamespace || ', ' || current_setting('search_path')
         FROM pg_class WHERE oid = to_regclass('photometry_tasks_version')),
        (SELECT quote_ident(name) FROM unnest(current_schemas(false)) WITH ORDINALITY AS schema (name, place)
         WHERE to_regclass(quote_ident(name) || '.todolist') IS NULL ORDER BY place LIMIT 1),
        quote_ident(current_schema()), 'public'))
) AS setting (name, value) WHERE current_setting(name, true) IS NOT NULL;
"""

#: The settings of a manager's connection. Each of its statements reads few rows, by an index. Otherwise a plan that was
#: made for an empty table, and reads the whole table, would stay in use
#: (https://www.postgresql.org/docs/current/sql-prepare.html). A commit survives a crash of the server.
MANAGER_SETTINGS = f"""{_SETTINGS}SET enable_seqscan = off; SET jit = off;
SET tcp_keepalives_idle = 60; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 6;
DO $$ BEGIN PERFORM set_config('client_connection_check_interval', '2000', false); EXCEPTION WHEN OTHERS THEN END $$;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""


@cache
def _build_connection_class() -> Any:
    """Return the driver's class of connections, extended by a timeout for the server's answers."""
    try:
        import psycopg
    except ImportError as error:
        raise DriverMissingError(found=error) from error

    class TimeoutConnection(psycopg.Connection[Any]):
        #: Seconds to wait for an answer; None: no limit.
        timeout: float | None = None
        #: Whether an exception has interrupted a wait: the connection is cut then, since the answer would come later.
        was_interrupted = False
        #: The number of transactions that have begun, without statements that run alone.
        begun = 0

        def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
            limited = gen if self.timeout is None else self._limit(gen, self.timeout)
            try:
                return super().wait(limited, *arguments, **named)
            except BaseException as error:
                is_active = self.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE
                if is_active and not isinstance(error, psycopg.Error):
                    self.was_interrupted = True
                    self.pgconn.finish()
                raise

        def _limit(self, gen: Any, seconds: float) -> Any:
            """Run the driver's generator, which is resumed ten times a second while no answer comes."""
            end = time.monotonic() + seconds
            try:
                awaited = next(gen)
                while True:
                    ready = yield awaited
                    if not ready and time.monotonic() > end:
                        self.pgconn.finish()
                        raise psycopg.OperationalError(f"the server has not answered for {seconds:g} s")
                    awaited = gen.send(ready)
            except StopIteration as done:
                return done.value

    return TimeoutConnection


def check_driver() -> None:
    """Check that the driver is installed.

    Raises
    ------
    DriverMissingError
    """
    _build_connection_class()


def find_parameters() -> set[str]:
    """Return the names of the parameters that a URL may have."""
    from psycopg.pq import Conninfo

    return {option.keyword.decode() for option in Conninfo.get_defaults()} | {"prepare_threshold"}


def connect(arguments: Mapping[str, Any], *, for_manager: bool) -> Any:
    """Return a connection of the driver.

    Parameters
    ----------
    arguments : mapping
        The driver's arguments, from the URL.
    for_manager : bool
        Whether a manager uses the connection; a reader or a command needs fewer settings.

    Raises
    ------
    InvalidArgumentError
        If the database cannot hold every text.
    """
    from psycopg import IsolationLevel
    from psycopg.types.numeric import Int8Dumper

    dbapi = _build_connection_class().connect(**{**_CONNECTING, **arguments})
    encoding, database = dbapi.pgconn.parameter_status(b"server_encoding"), dbapi.pgconn.db
    if encoding not in (b"UTF8", None):
        dbapi.close()
        remedy = "create one with `createdb --encoding=UTF8 --template=template0 NAME`, and move a list with pg_dump"
        problem = f"the encoding of this database is {encoding.decode()}, not UTF8"
        raise invalid_argument("url", database.decode(), f"{problem}; {remedy}")
    # Always 64 bits: the server would prepare each statement again for every other combination of types.
    dbapi.adapters.register_dumper(int, Int8Dumper)
    dbapi.isolation_level = IsolationLevel.READ_COMMITTED  # a standby refuses the serializable one, as a role may have
    dbapi.timeout = _LONGEST_SETTING
    settings = MANAGER_SETTINGS if for_manager else _SETTINGS
    # In a transaction that the driver begins first, a limit of the role could end the session before they are set.
    dbapi.autocommit = True
    (pid,) = dbapi.execute(f"SELECT pg_backend_pid(); {settings}", prepare=False).fetchone()
    dbapi.autocommit = False
    dbapi.timeout = None
    if pid != dbapi.info.backend_pid and "prepare_threshold" not in arguments:
        # A pooler has made the number up. In transaction mode, its clients would run each other's prepared statements.
        dbapi.prepare_threshold = None
    return dbapi


def open_cursor(dbapi: Any) -> Any:
    """Return a cursor for statements of `build_dialect`: it sends them unchanged to the server."""
    from psycopg import RawCursor

    return RawCursor(dbapi)


@cache
def build_dialect() -> Dialect:
    """Return the dialect that compiles statements for the driver, with the server's own parameters $1, $2 and so on."""
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg  # only needed with a server

    return PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # SQLAlchemy does not type it


def integrity_error() -> type[Exception]:
    """Return the driver's exception for a row that violates a constraint of the database."""
    import psycopg

    return psycopg.IntegrityError


def find_driver_error(error: BaseException) -> Any:
    """Return the driver's error that an error is or wraps, or None."""
    import psycopg

    if isinstance(error, ServerError) and error.__cause__ is not None:
        error = error.__cause__
    cause = error.orig if isinstance(error, DBAPIError) else error
    return cause if isinstance(cause, psycopg.Error) else None


def describe_error(error: BaseException) -> str:
    """Return the text of an error as one line."""
    return " ".join(str(find_driver_error(error) or error).split())
