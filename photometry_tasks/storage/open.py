"""Open, create or upgrade the TODO-list at a location."""

import shlex
from collections.abc import Callable, Collection
from contextlib import ExitStack, closing

from sqlalchemy import Index

from photometry_tasks import schema
from photometry_tasks.errors import OtherVersionError
from photometry_tasks.rules.validation import invalid_argument
from photometry_tasks.sql.history import count_versions
from photometry_tasks.storage.base import Database, OpenOptions, TaskStore
from photometry_tasks.storage.location import Location
from photometry_tasks.storage.sqlite.creation import create_todo_file
from photometry_tasks.storage.sqlite.database import SQLiteDatabase
from photometry_tasks.storage.sqlite.opening import open_todo_file, open_todo_file_with_log, upgrade_todo_file
from photometry_tasks.storage.upgrade import upgrade_schema
from photometry_tasks.text import count_of, name_version

#: A function that adds the rows of a new list before its indexes are created, and returns those that it has created.
Fill = Callable[[Database], Collection[Index]]


def open_store(location: Location, options: OpenOptions) -> TaskStore:
    """Open a TODO-list for a manager.

    Raises
    ------
    TodoError
        If there is no TODO-list, or it cannot be opened: see `TaskManager`.
    """
    path = location.find_file()
    if path is not None:
        return open_todo_file(path, options)
    if options.load_into_memory:
        raise invalid_argument(
            "load_into_memory", True, "a list on a server cannot be loaded into memory; leave this argument out"
        )
    from photometry_tasks.storage.postgresql.store import PostgreSQLStore

    return PostgreSQLStore.open(location.url, options)


def _connect(location: Location) -> Database:
    """Connect to a server."""
    # A file needs neither this module nor SQLAlchemy's dialect, which together take a quarter of the import time.
    from photometry_tasks.storage.postgresql.database import PostgreSQLDatabase

    return PostgreSQLDatabase(location.url)


def open_database(location: Location) -> Database:
    """Open an existing file, or a database on a server, to change it; the caller closes it.

    Raises
    ------
    TodoFileNotFoundError, NotATodoFileError, DamagedFileError, TodoFileInUseError, ServerError
    """
    path = location.find_file()
    return _connect(location) if path is None else SQLiteDatabase.open(path)


def open_read_only(location: Location) -> Database:
    """Open an existing TODO-list read-only; managers may work on it meanwhile.

    Raises
    ------
    TodoFileNotFoundError, TodoListNotFoundError, NotATodoFileError, DamagedFileError, ServerError
    """
    path = location.find_file()
    if path is not None:
        return SQLiteDatabase.open_read_only(path)
    with ExitStack() as opened:
        database = opened.enter_context(closing(_connect(location)))
        with database.begin(writes=False) as connection:
            schema.check_exists(connection, database.name)
        opened.pop_all()
    return database


def open_with_log(location: Location) -> Database:
    """Open an existing TODO-list read-only, with the results that a manager in memory logged; see `open_read_only`.

    Raises
    ------
    UnsavedResultsError
        If the log cannot be read as a whole.
    """
    path = location.find_file()
    return open_read_only(location) if path is None else open_todo_file_with_log(path)


def check_versions(location: Location, version: str) -> None:
    """Check that a list holds no result of another version of the pipeline, or of an unknown one; it is only read.

    Raises
    ------
    OtherVersionError
    """
    with closing(open_with_log(location)) as database, database.begin(writes=False) as connection:
        counts = count_versions(connection)
        counts.pop(version, None)
        if counts:
            others = (f"{name_version(other)} ({count_of(number, 'result')})" for other, number in counts.items())
            quoted = shlex.quote(version)
            raise OtherVersionError(path=database.name, version=version, found=", ".join(others), quoted_version=quoted)


def create_list(location: Location, fill: Fill) -> bool:
    """Create and fill a TODO-list as a whole, unless a list or another file exists there.

    Parameters
    ----------
    location : Location
        A path without a file, or a database without a list.
    fill : callable
        Adds the rows of the list. If it raises, no list is created.

    Returns
    -------
    bool
        False if a list or another file exists there; it is not changed.

    Raises
    ------
    FileNotFoundError
        If the directory does not exist.
    NotATodoFileError
        If a table of another program has the name of a table of the list.
    TodoFileInUseError, LeftoverLogError, NotWritableError, DiskFullError, MountWithoutLocksError, ServerError
    """

    def create(database: Database) -> bool:
        with database.begin_load() as connection:
            if schema.has_list(connection):
                return False
            schema.check_names_are_free(connection, database.name)
            schema.create_schema(connection, fill=lambda: fill(database))
            database.renew_statistics()
        return True

    if location.path is not None:
        return create_todo_file(location.path, create)
    with closing(_connect(location)) as database:
        return create(database)


def upgrade_list(location: Location) -> list[str]:
    """Upgrade a TODO-list to the schema of this release, and return a line for each change.

    For a file, this also saves the results that a killed manager logged.

    Raises
    ------
    CannotUpgradeError, NotATodoFileError, UnknownRevisionError
        The list is not changed.
    """
    path = location.find_file()
    if path is not None:
        return upgrade_todo_file(path)
    with closing(_connect(location)) as database:
        return upgrade_schema(database)
