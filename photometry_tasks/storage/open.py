"""Open, create or upgrade the TODO-list at a location."""

import shlex
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Index
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from photometry_tasks import schema
from photometry_tasks.errors import OtherVersionError, OutdatedSchemaError
from photometry_tasks.rules.validation import invalid_argument
from photometry_tasks.sql.functions import is_server
from photometry_tasks.sql.history import count_versions
from photometry_tasks.storage.base import Database, OpenOptions, TaskStore
from photometry_tasks.storage.guard import check_no_import
from photometry_tasks.storage.location import Location
from photometry_tasks.storage.reading import build_reading_session
from photometry_tasks.storage.sqlite.creation import create_todo_file
from photometry_tasks.storage.sqlite.database import SQLiteDatabase, create_reading_engine
from photometry_tasks.storage.sqlite.opening import (
    FileReader,
    open_todo_file,
    open_todo_file_with_log,
    upgrade_todo_file,
)
from photometry_tasks.storage.sqlite.result_log import ResultLog
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
    check_no_import()
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


@dataclass(frozen=True)
class OpenList:
    """A TODO-list that is open for one transaction, which only reads.

    Attributes
    ----------
    database : Database
    connection : sqlalchemy.Connection
    name : str
        The path, or the URL without its password.
    changes : list of str
        A line for each change that an upgrade would make; empty if the list has the schema of this release.
    """

    database: Database
    connection: Connection
    name: str
    changes: list[str]

    def check_current(self) -> None:
        """Check that the list has the schema of this release.

        Raises
        ------
        OutdatedSchemaError
        """
        if self.changes:
            raise OutdatedSchemaError(path=self.name, change=self.changes[0])


class ListReader:
    """Opens an existing TODO-list for reading, again and again, with the results that a manager in memory logged.

    Managers may open, change, back up, replace or upgrade the list meanwhile. Between two reads nothing is open: see
    `FileReader`. Any thread may read.

    Parameters
    ----------
    location : Location
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._local = threading.local()

    @contextmanager
    def begin(self) -> Iterator[OpenList]:
        """Open the list for one transaction that only reads.

        Raises
        ------
        UnsavedResultsError
            If a log cannot be read as a whole.
        OutdatedSchemaError
            If a statement fails, and the list has an older schema: it may lack a column or a table.
        TodoFileNotFoundError, TodoListNotFoundError, NotATodoFileError, DamagedFileError, UnknownRevisionError,
        ServerError
        """
        path = self._location.find_file()
        opened: AbstractContextManager[Database] = (
            closing(_connect(self._location)) if path is None else self._get_file_reader(path).open()
        )
        with opened as database, database.begin(writes=False) as connection:
            found = OpenList(database, connection, database.name, _find_changes(connection, database.name))
            try:
                yield found
            except DBAPIError as error:
                if not found.changes:
                    raise
                raise OutdatedSchemaError(path=found.name, change=found.changes[0]) from error

    def _get_file_reader(self, path: Path) -> FileReader:
        reader: FileReader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = FileReader(path)
        return reader

    def close(self) -> None:
        """Close what this thread has open."""
        reader: FileReader | None = self._local.__dict__.pop("reader", None)
        if reader is not None:
            reader.close()


def _find_changes(connection: Connection, name: str) -> list[str]:
    """Return a line for each change that an upgrade would make: see `schema.find_changes`."""
    if is_server(connection.dialect):
        # Only upgrades change the tables on a server, and comparing all of them takes longer than most reads.
        if schema.is_at_head(connection):
            return []
        schema.check_exists(connection, name)
    return schema.find_changes(connection, name)


@contextmanager
def begin_reading(location: Location) -> Iterator[OpenList]:
    """Open an existing TODO-list for one transaction that only reads: see `ListReader`."""
    with closing(ListReader(location)) as reader, reader.begin() as opened:
        yield opened


def open_reading_session(location: Location) -> Session:
    """Return an ORM session that only reads; each of its transactions opens the list: see `build_reading_session`."""

    def find_changes() -> list[str]:
        with begin_reading(location) as opened:
            return opened.changes

    def open_file() -> SQLiteDatabase:
        path = location.find_file()
        assert path is not None  # noqa: S101 - narrows the type for mypy
        return open_todo_file_with_log(path, ResultLog(path))

    if location.path is not None:
        return build_reading_session(create_reading_engine(open_file), location.name, find_changes)
    from photometry_tasks.storage.postgresql import database

    return build_reading_session(database.create_reading_engine(location.url), location.name, find_changes)


def check_versions(location: Location, version: str) -> None:
    """Check that a list holds no result of another version of the pipeline, or of an unknown one; it is only read.

    Raises
    ------
    OtherVersionError
    """
    with begin_reading(location) as opened:
        counts = count_versions(opened.connection)
        counts.pop(version, None)
        if counts:
            others = (f"{name_version(other)} ({count_of(number, 'result')})" for other, number in counts.items())
            quoted = shlex.quote(version)
            raise OtherVersionError(path=opened.name, version=version, found=", ".join(others), quoted_version=quoted)


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
    check_no_import()

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
