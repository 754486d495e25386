"""Databases on the tests' PostgreSQL server."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text

#: A password that must be quoted in a URL.
SECRET = "p@ss%41:/?#"


@contextmanager
def owned_databases(postgresql: Engine, owner: str, *names: str) -> Iterator[str]:
    """Create empty databases of a user without superuser rights, and yield the URL of the first."""
    quoted = SECRET.replace(":", "\\:")
    with postgresql.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE ROLE {owner} LOGIN PASSWORD '{quoted}'"))
        for name in names:
            connection.execute(text(f"CREATE DATABASE {name} OWNER {owner}"))
    yield postgresql.url.set(username=owner, password=SECRET, database=names[0]).render_as_string(hide_password=False)
    with postgresql.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name in names:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        connection.execute(text(f"DROP ROLE {owner}"))
