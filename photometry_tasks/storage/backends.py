"""Which database a TODO-list is in: a SQLite file or a PostgreSQL server."""

import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Dialect, Table, select

from photometry_tasks.sql.execution import Row
from photometry_tasks.storage.postgresql.database import PostgreSQL, build_name
from photometry_tasks.storage.sqlite.database import SQLite
from photometry_tasks.storage.sqlite.dbapi import compile_for_sqlite, sqlite_errors
from photometry_tasks.storage.sqlite.paths import find_todo_file, locate_todo_file

__all__ = ["begin_reading", "find_path", "holds_tasoc_files", "is_shared", "name_list", "open_database", "read_rows"]


def open_database(target: str | os.PathLike[str], *, to_read: bool = False) -> SQLite | PostgreSQL:
    """Open an existing TODO-list.

    Parameters
    ----------
    target : str or os.PathLike
        A path, or a URL: postgresql+psycopg://user:password@host/database, or sqlite:/// and a path, in which
        nothing is quoted.
    to_read : bool, optional
        Only to look at it; somebody else may be working on it.

    Raises
    ------
    TodoFileNotFoundError, NotATodoFileError, DamagedFileError, TodoFileInUseError, InvalidArgumentError, ServerError
    TodoListNotFoundError
        If it is opened to be read, and not there.
    """
    path = find_path(target)
    if path is None:
        return _open_on_server(str(target), to_read=to_read)
    return (SQLite.open_to_read if to_read else SQLite.open)(find_todo_file(path))


def _open_on_server(url: str, *, to_read: bool) -> PostgreSQL:
    database = PostgreSQL(url)
    if to_read:
        try:
            database.check_list()
        except BaseException:
            database.close()
            raise
    return database


def find_path(target: str | os.PathLike[str]) -> Path | None:
    """Return the path that a path or URL leads to; None for a server."""
    url = re.match(r"(?P<file>sqlite(\+\w+)?:///)|[\w+]+://", str(target))
    if url is None:
        return locate_todo_file(target)
    return locate_todo_file(str(target)[url.end() :]) if url["file"] else None


def name_list(target: str | os.PathLike[str]) -> str:
    """Return a path, or a URL without its password, to be shown."""
    path = find_path(target)
    return str(target) if path is not None else build_name(str(target))


def holds_tasoc_files(connection: Connection) -> bool:
    """Whether this is a database in which the TASOC pipeline keeps its TODO-lists."""
    return connection.dialect.name == "sqlite"


def is_shared(dialect: Dialect) -> bool:
    """Whether this is a database on which many managers work on one TODO-list."""
    return dialect.name == "postgresql"


@contextmanager
def begin_reading(database: SQLite | PostgreSQL) -> Iterator[Connection]:
    """Run one transaction that sees nothing of what others do meanwhile."""
    with database.begin(writes=False) as connection:
        if isinstance(database, SQLite):
            connection.exec_driver_sql("BEGIN")  # else each statement would be a transaction of its own
        yield connection


def read_rows(database: SQLite | PostgreSQL, table: Table) -> Generator[Row, None, None]:
    """Yield the rows of a table, values in the order of its columns, within the transaction that is open."""
    if isinstance(database, PostgreSQL):
        yield from database.copy_out(table)
    else:
        with sqlite_errors(Path(database.name)):
            yield from database.statements.run(compile_for_sqlite(select(table))[0])
