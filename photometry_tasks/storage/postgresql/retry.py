"""Retries: after which errors of a server a call is made again, and when."""

import random
import sys
import time
from collections.abc import Callable
from typing import NoReturn, Protocol, TypeVar

from photometry_tasks.errors import ServerUnreachableError
from photometry_tasks.storage.connection import find_interrupt
from photometry_tasks.storage.postgresql.dbapi import describe_error, find_driver_error

T = TypeVar("T")

#: Seconds between two tries: the first time, and at most.
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.02, 5.0

#: Codes of a server that stops or starts: https://www.postgresql.org/docs/current/errcodes-appendix.html.
_LOST = {"57P01", "57P02", "57P03", "57P05", "53300", "25P03", "25P04"}
#: Codes of a prepared statement that the session lacks, or has of another client: a pooler shares or resets sessions.
_FOREIGN_SESSION = {"26000", "42P05"}
#: The function of the server that refuses a prepared statement after another program has changed the type of a column.
_OUTDATED = "RevalidateCachedQuery"
#: The texts of the same errors for a refused connection: libpq then gives no code, only the server's text. If the
#: server's messages are not in English, the connection is not retried.
_REFUSALS = (
    "too many",
    "connection slots are reserved",
    "the database system is starting up",
    "shutting down",  # "the database system is …", and PgBouncer's "server …"
    "the database system is not",  # "… not yet accepting connections", "… not accepting connections"
    "the database system is in recovery mode",
    "server closed the connection unexpectedly",
    # Of PgBouncer, while it or its pool is full or paused, or the server behind it is:
    "no more connections allowed",
    "client connections exceeded",
    "server login has been failing",
    "server conn crashed",
    "client_login_timeout",
    "query_wait_timeout",
    # Of libpq and of our driver's connection, while PgBouncer lets them wait:
    "timeout expired",
    "the server has not answered",
)
#: Codes of transactions that conflict, and of a wait for a lock that reached the server's `lock_timeout`.
_CONFLICTS = {"40001", "40P01", "55P03"}
#: Constraints that fail if two transactions add the same row at once; the next try sees the other row.
_RACES = {"diagnostics_lightcurve_idx", "diagnostics_pkey", "photometry_tasks_attempts_live_idx"}


class Retryable(Protocol):
    """The connection on which calls are retried; `PostgreSQLDatabase` describes its attributes and methods."""

    name: str
    patience: float | None
    is_unsure: bool
    is_given_up: bool

    def ensure_idle(self) -> None: ...  # noqa: D102 - described there
    def is_lost(self) -> bool: ...  # noqa: D102
    def invalidate(self) -> None: ...  # noqa: D102
    def rollback(self) -> None: ...  # noqa: D102
    def raise_explained(self, error: BaseException) -> NoReturn: ...  # noqa: D102


def with_retry(connection: Retryable, call: Callable[[], T]) -> T:
    """Return the result of a call, and retry it after temporary errors.

    Parameters
    ----------
    connection : Retryable
        Its `patience` limits the retries, in seconds after the first error.
    call : callable
        `connection.is_unsure` says whether an earlier try may have been committed.

    Raises
    ------
    ServerUnreachableError
        If the server cannot be reached for longer than the patience.
    ServerError
        If the server refuses the call.
    """
    begun, tries, outer = None, 0, sys.exc_info()[1]
    connection.is_unsure = False
    while True:
        try:
            connection.ensure_idle()
            result = call()
        except BaseException as raised:
            error = find_interrupt(raised, outer)
            is_lost, is_conflict = _classify(error, is_lost=connection.is_lost())
            if is_lost:
                connection.invalidate()
            connection.rollback()
            if not (is_lost or is_conflict) or connection.patience is None:
                connection.raise_explained(error)
            tries += 1
            begun = begun or time.monotonic()
            connection.is_unsure = connection.is_unsure or is_lost
            patience = 0.0 if connection.is_given_up else connection.patience
            if time.monotonic() - begun >= patience:
                connection.is_given_up = True
                found, seconds = describe_error(error), connection.patience
                raise ServerUnreachableError(path=connection.name, found=found, seconds=seconds) from error
        else:
            connection.is_given_up = False
            return result
        backoff = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2**tries)
        time.sleep(random.uniform(0.5, 1) * backoff)  # noqa: S311 - no secret


def _classify(error: BaseException, *, is_lost: bool) -> tuple[bool, bool]:
    """Return whether a new connection is needed, and whether two transactions conflict, according to an error."""
    cause = find_driver_error(error)
    if cause is None:
        # In a pipeline, the driver may fail an assertion if the connection is lost.
        return is_lost and isinstance(error, AssertionError), False
    import psycopg

    code = cause.sqlstate or ""
    # A new connection has our settings, and prepares each statement again.
    is_lost = is_lost or code in _FOREIGN_SESSION or cause.diag.source_function == _OUTDATED
    is_race = code == "23505" and cause.diag.constraint_name in _RACES
    if not code and isinstance(cause, psycopg.OperationalError):
        is_lost = True  # only an error of the client has no code
    return is_lost or code in _LOST or code.startswith("08"), code in _CONFLICTS or is_race


def is_temporary_refusal(error: BaseException) -> bool:
    """Whether a server refuses a connection for a temporary reason."""
    text = describe_error(error)
    return find_driver_error(error).sqlstate in _LOST or any(refusal in text for refusal in _REFUSALS)


def pause_before_reconnecting(seconds_left: float) -> None:
    """Wait a random time before the next try to connect, so that the workers do not connect all at once."""
    time.sleep(random.uniform(0.1, min(_LONGEST_BACKOFF, seconds_left)))  # noqa: S311 - no secret
