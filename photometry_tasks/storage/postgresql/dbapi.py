"""psycopg, the driver of PostgreSQL: its connections, its dialect, and the text of its errors."""

import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.exc import DBAPIError

from photometry_tasks.errors import DriverMissingError, ServerError

#: libpq's parameters, unless the URL sets them: a lost server or network is detected within a minute.
_CONNECTING = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 4,
    "tcp_user_timeout": 60_000,
    "fallback_application_name": "photometry_tasks",
}

#: The settings of a manager's connection. Each of its statements reads few rows, by an index. Otherwise a plan that was
#: made for an empty table, and reads the whole table, would stay in use
#: (https://www.postgresql.org/docs/current/sql-prepare.html). A statement that waited for a row sees its latest
#: version. A commit survives a crash of the server.
SETTINGS = """
SET enable_seqscan = off; SET jit = off;
SET default_transaction_isolation = 'read committed';
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

        def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
            return super().wait(gen if self.timeout is None else self._limit(gen, self.timeout), *arguments, **named)

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
        Whether a manager uses the connection; a reader or a command needs no settings.
    """
    from psycopg.types.numeric import Int8Dumper

    dbapi = _build_connection_class().connect(**{**_CONNECTING, **arguments})
    # Always 64 bits: the server would prepare each statement again for every other combination of types.
    dbapi.adapters.register_dumper(int, Int8Dumper)
    if for_manager:
        dbapi.execute(SETTINGS, prepare=False)
        dbapi.commit()
    return dbapi


@cache
def build_dialect() -> Dialect:
    """Return the dialect that compiles statements for the driver."""
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg  # only needed with a server

    return PGDialect_psycopg(paramstyle="format")  # type: ignore[no-untyped-call]  # SQLAlchemy does not type it


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
