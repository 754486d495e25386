"""PostgreSQL: connections and transactions."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from photometry_tasks.arguments import invalid

__all__ = ["PostgreSQL"]


class PostgreSQL:
    """One connection to a TODO-list on a PostgreSQL server.

    Attributes
    ----------
    connection : sqlalchemy.Connection
    name : str
        The URL, without password and query.
    """

    #: Key of the lock that keeps two upgrades apart; any number that is always the same.
    _UPGRADE_LOCK = 0x7068_6F74  # 'phot'

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):
            # Nothing is shown of it: it may hold a password.
            raise invalid("url", "…", "postgresql+psycopg://user:password@host/database is expected") from None
        # Other secrets may stand in the query.
        self.name = parsed.set(query={}).render_as_string(hide_password=True)
        if parsed.get_backend_name() != "postgresql":
            raise invalid("url", self.name, "a path or a URL of postgresql+psycopg is expected")
        self._engine = create_engine(parsed.set(drivername="postgresql+psycopg"), poolclass=NullPool)
        self.connection = self._engine.connect()

    @contextmanager
    def begin(self, *, writes: bool) -> Iterator[Connection]:  # noqa: ARG002 - SQLite has to know
        """Run one transaction: committed at the end of the block, rolled back on any exception."""
        with self.connection.begin():
            yield self.connection

    @contextmanager
    def begin_upgrade(self) -> Iterator[Connection]:
        """Run one transaction that waits for other upgrades, and keeps them waiting."""
        with self.begin(writes=True) as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self._UPGRADE_LOCK})")
            yield connection

    def close(self) -> None:
        """Close the connection; what is not committed is rolled back."""
        self.connection.close()
        self._engine.dispose()
