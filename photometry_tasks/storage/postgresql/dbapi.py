"""The driver of PostgreSQL: how a server is reached, and what its errors mean."""

import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import ClauseElement, Dialect, Executable
from sqlalchemy.exc import DBAPIError

from photometry_tasks.errors import DriverMissingError, ServerError

__all__ = [
    "SETTINGS",
    "bind_for_postgresql",
    "check_driver",
    "compile_for_postgresql",
    "describe",
    "find_cause",
    "integrity_error",
    "judge",
    "reach_server",
    "will_pass",
]

#: What libpq is told unless the URL says otherwise: a server or a network that is gone is noticed within a minute.
_CONNECTING = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 4,
    "tcp_user_timeout": 60_000,
    "application_name": "photometry_tasks",
}

#: For a manager. Each of its statements touches few rows, by an index: made when a table was empty, a plan that reads
#: all of it would be kept long after that (https://www.postgresql.org/docs/current/sql-prepare.html). What a statement
#: has waited for it sees as it is then; and what was acknowledged survives a crash of the server.
SETTINGS = """
SET enable_seqscan = off; SET jit = off;
SET default_transaction_isolation = 'read committed';
SET tcp_keepalives_idle = 60; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 6;
DO $$ BEGIN PERFORM set_config('client_connection_check_interval', '2000', false); EXCEPTION WHEN OTHERS THEN END $$;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""

#: The server ends, or begins: https://www.postgresql.org/docs/current/errcodes-appendix.html.
_LOST = {"57P01", "57P02", "57P03", "57P05", "53300", "25P03", "25P04"}
#: The same where a connection is refused: there libpq gives no code, but the server's words. If those are not English,
#: it is not tried again.
_REFUSALS = (
    "too many",
    "connection slots are reserved",
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is not",  # yet, or not now, accepting connections
    "the database system is in recovery mode",
    "server closed the connection unexpectedly",
)
#: Two transactions were in each other's way.
_CONFLICTS = {"40001", "40P01", "55P03"}
#: What one of two transactions runs into that add the same at once; the next time it sees what is there.
_RACES = {"diagnostics_lightcurve_idx", "diagnostics_pkey", "photometry_tasks_attempts_live_idx"}


@cache
def _find_connection() -> Any:
    """Return the driver's class of connections, which also gives up a server that does not answer."""
    try:
        import psycopg
    except ImportError as error:
        raise DriverMissingError(found=error) from error

    class Impatient(psycopg.Connection[Any]):
        #: Seconds after which a statement is given up; None: never.
        patience: float | None = None

        def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
            return super().wait(gen if self.patience is None else self._limit(gen, self.patience), *arguments, **named)

        def _limit(self, gen: Any, seconds: float) -> Any:
            """Do as the driver's generator does, which is asked ten times a second if nothing has come."""
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

    return Impatient


def check_driver() -> None:
    """Check that there is the driver.

    Raises
    ------
    DriverMissingError
    """
    _find_connection()


def reach_server(arguments: Any, named: Mapping[str, Any], *, for_manager: bool) -> Any:
    """Return a connection of the driver.

    Parameters
    ----------
    arguments, named
        What the driver takes, from the URL.
    for_manager : bool
        Whether it is for a manager's work, and not only to look at the list or to make it.
    """
    from psycopg.types.numeric import Int8Dumper

    dbapi = _find_connection().connect(*arguments, **{**_CONNECTING, **named})
    # Always as 64 bits: the server prepares a statement for each combination of types.
    dbapi.adapters.register_dumper(int, Int8Dumper)
    if for_manager:
        dbapi.execute(SETTINGS)
        dbapi.commit()
    return dbapi


def judge(error: BaseException, *, is_lost: bool) -> tuple[bool, bool]:
    """Say whether an error means that the connection is lost, or that another transaction was in the way."""
    cause = find_cause(error)
    if cause is None:
        # The driver's pipeline may say it in its own way.
        return is_lost and isinstance(error, AssertionError), False
    code = cause.sqlstate or ""
    is_race = code == "23505" and cause.diag.constraint_name in _RACES
    if not code and isinstance(cause, _operational_error()):
        is_lost = True  # only what goes wrong on this side of the connection has no code
    return is_lost or code in _LOST or code.startswith("08"), code in _CONFLICTS or is_race


def _operational_error() -> type[Exception]:
    import psycopg

    return psycopg.OperationalError


def will_pass(error: BaseException) -> bool:
    """Whether a connection was not made for a reason that passes by itself."""
    return find_cause(error).sqlstate in _LOST or any(words in describe(error) for words in _REFUSALS)


def integrity_error() -> type[Exception]:
    """Return what the driver raises where a row breaks a rule."""
    import psycopg

    return psycopg.IntegrityError


def find_cause(error: BaseException) -> Any:
    """Return the driver's error in one of SQLAlchemy's, or itself; None if it is neither."""
    import psycopg

    if isinstance(error, ServerError) and error.__cause__ is not None:
        error = error.__cause__  # it was explained
    cause = error.orig if isinstance(error, DBAPIError) else error
    return cause if isinstance(cause, psycopg.Error) else None


def describe(error: BaseException) -> str:
    """Return what an error says, in a line."""
    return " ".join(str(find_cause(error) or error).split())


@cache
def compile_for_postgresql(statement: Executable) -> tuple[str, list[str]]:
    """Return a statement's text, and the names of its parameters in their order."""
    compiled = statement.compile(dialect=_make_dialect())  # type: ignore[attr-defined]  # ours can be
    return str(compiled), compiled.positiontup


def bind_for_postgresql(statement: ClauseElement, **parameters: Any) -> tuple[str, tuple[Any, ...]]:
    """Return the text of a statement, and the values of its parameters: those given, and those it has."""
    compiled: Any = statement.compile(dialect=_make_dialect())
    expanded = compiled.construct_expanded_state(parameters)
    return expanded.statement, tuple(expanded.positional_parameters)


def _make_dialect() -> Dialect:
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg  # only where there is a server

    return PGDialect_psycopg(paramstyle="format")  # type: ignore[no-untyped-call]  # SQLAlchemy gives it no types
