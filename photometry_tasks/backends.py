"""Which database a TODO-list is in: a SQLite file or a PostgreSQL server."""

import os
import re
from pathlib import Path

from sqlalchemy import Connection, Dialect

from photometry_tasks.postgresql import PostgreSQL
from photometry_tasks.sqlite import SQLite
from photometry_tasks.todo_file import find_todo_file, locate_todo_file

__all__ = ["find_path", "holds_tasoc_files", "is_shared", "open_database"]


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
    TodoFileNotFoundError, NotATodoFileError, DamagedFileError, TodoFileInUseError, InvalidArgumentError
    """
    path = find_path(target)
    if path is None:
        return PostgreSQL(str(target))
    return (SQLite.open_to_read if to_read else SQLite.open)(find_todo_file(path))


def find_path(target: str | os.PathLike[str]) -> Path | None:
    """Return the path that a path or URL leads to; None for a server."""
    url = re.match(r"(?P<file>sqlite(\+\w+)?:///)|[\w+]+://", str(target))
    if url is None:
        return locate_todo_file(target)
    return locate_todo_file(str(target)[url.end() :]) if url["file"] else None


def holds_tasoc_files(connection: Connection) -> bool:
    """Whether this is a database in which the TASOC pipeline keeps its TODO-lists."""
    return connection.dialect.name == "sqlite"


def is_shared(dialect: Dialect) -> bool:
    """Whether this is a database on which many managers work on one TODO-list."""
    return dialect.name == "postgresql"
