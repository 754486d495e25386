"""A TODO-list copied as a whole, from a file to a server or back: all rows of our tables, or nothing."""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, Table, func, insert, select

from photometry_tasks import schema
from photometry_tasks.errors import CopyError, TodoError, TodoFileInUseError, UnsavedResultsError
from photometry_tasks.models import Base, diagnostics, photometry_skipped, todolist
from photometry_tasks.rules.validation import invalid
from photometry_tasks.sql.execution import Row
from photometry_tasks.storage.backends import begin_reading, find_path, read_rows
from photometry_tasks.storage.postgresql.database import PostgreSQL
from photometry_tasks.storage.sqlite.creation import create_todo_file
from photometry_tasks.storage.sqlite.database import SQLite
from photometry_tasks.storage.sqlite.introspection import find_misfit
from photometry_tasks.storage.sqlite.lock import find_holder
from photometry_tasks.storage.sqlite.paths import find_todo_file
from photometry_tasks.storage.sqlite.result_log import ResultLog

__all__ = ["Copied", "copy_list"]

Progress = Callable[[int, int | None], None]

#: What is copied, in an order in which each row finds those that it refers to.
_TABLES: list[Table] = list(Base.metadata.sorted_tables)
_NAMES = ", ".join(table.name for table in _TABLES)

#: Rows between two calls of `progress`.
_CHUNK = 10_000


class Copied(NamedTuple):
    """How many rows of each kind were copied, and which tables and columns of other programs were not."""

    tasks: int
    results: int
    skips: int
    left_out: list[str]


def copy_list(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    progress: Callable[[int, int | None], None] | None = None,
) -> Copied:
    """Copy a TODO-list from a file to a server, back, or to another of its kind; the source is not changed.

    Managers may be at work on it: what it has when the copy begins is copied. A task that is being run is STARTED in
    the copy too, until that is opened. The workers and attempts of a list on a server stay there.

    Parameters
    ----------
    source : str or os.PathLike
        The TODO-file, or the URL of a list on a server, with the schema of this release.
    target : str or os.PathLike
        A path where there is no file, or the URL of a database without a TODO-list, or with an empty one.
    progress : callable, optional
        Called now and then with the number of rows copied, and how many there are.

    Returns
    -------
    Copied

    Raises
    ------
    InvalidArgumentError
        If the target is not empty.
    OutdatedSchemaError, UnsavedResultsError
        If the source has to be upgraded first.
    CopyError
        If the source holds what the target cannot hold.
    TodoError
        If one of them cannot be read or written. Whatever is raised, the target is as it was.
    """
    with closing(_open_source(source)) as origin, begin_reading(origin) as connection:
        schema.check_current(connection, origin.name)
        copying = _Copying(origin, _count(connection), progress or (lambda _done, _total: None))
        left_out = schema.find_foreign(connection)
        if (path := find_path(target)) is None:
            _copy_to_server(str(target), copying)
        else:
            _copy_to_file(path, copying)
    tasks, results, skips = (copying.counts[table.name] for table in (todolist, diagnostics, photometry_skipped))
    return Copied(tasks, results, skips, left_out)


def _open_source(source: str | os.PathLike[str]) -> SQLite | PostgreSQL:
    if (found := find_path(source)) is None:
        return PostgreSQL(str(source))
    path = find_todo_file(found)
    # Before the file is opened: whoever takes the results into it empties the log afterwards.
    if (log := ResultLog(path)).has_results():
        if holder := find_holder(path):
            raise TodoFileInUseError(path=path, found=holder)
        raise UnsavedResultsError(path=path, log=log.path)
    return SQLite.open_to_read(path)


def _count(connection: Connection) -> dict[str, int]:
    counting = ((table.name, select(func.count()).select_from(table)) for table in _TABLES)
    return {name: connection.execute(statement).scalar_one() for name, statement in counting}


@dataclass
class _Copying:
    """What is copied, and how far it is."""

    source: SQLite | PostgreSQL
    counts: dict[str, int]
    report: Progress
    done: int = 0

    def fill(self, name: str, connection: Connection, write: Callable[[Table, Iterator[Row]], None]) -> None:
        """Copy all rows to the tables of a transaction, and count them there."""
        for table in _TABLES:
            with closing(self._read(table)) as rows:
                write(table, rows)
        self.report(self.done, sum(self.counts.values()))
        if (copied := _count(connection)) != self.counts:
            raise CopyError(source=self.source.name, target=name, problem=f"of the rows {self.counts} it has {copied}")

    def _read(self, table: Table) -> Generator[Row, None, None]:
        with closing(read_rows(self.source, table)) as rows:
            for row in rows:
                yield row
                self.done += 1
                if self.done % _CHUNK == 0:
                    self.report(self.done, sum(self.counts.values()))


def _copy_to_server(url: str, copying: _Copying) -> None:
    with closing(PostgreSQL(url)) as database, database.begin_upgrade() as connection:

        def write(table: Table, rows: Iterator[Row]) -> None:
            try:
                database.copy_in(table, rows)
            except Exception as error:
                if isinstance(error, TodoError) or isinstance(copying.source, PostgreSQL):
                    raise
                if (problem := find_misfit(table, read_rows(copying.source, table))) is None:
                    raise
                raise CopyError(source=copying.source.name, target=database.name, problem=problem) from error

        fill = partial(copying.fill, database.name, connection, write)
        if schema.has_list(connection):
            # Against managers that have it open, and whoever adds targets: what is empty stays so.
            schema.check_current(connection, database.name)
            connection.exec_driver_sql(f"LOCK TABLE {_NAMES} IN SHARE ROW EXCLUSIVE MODE")
            if found := {name: number for name, number in _count(connection).items() if number}:
                remedy = f"it holds {found.get('todolist', 0)} tasks (rows: {found}); give the URL of an empty database"
                raise invalid("target", database.name, remedy)
            fill()
        else:
            schema.find_changes(connection, database.name)  # refuses other programs' tables of these names
            schema.create_schema(connection, fill=fill)
        connection.exec_driver_sql(f"ANALYZE {_NAMES}")


def _copy_to_file(path: Path, copying: _Copying) -> None:
    if not create_todo_file(path, lambda database: _fill_file(database, path, copying)):
        raise _is_taken(path)


def _is_taken(path: Path) -> Exception:
    problem = "there is another file"
    with suppress(Exception), closing(SQLite.open_to_read(path)) as database:  # whatever it is, it stays
        problem = f"it holds {_count(database.connection)[todolist.name]} tasks"
    return invalid("target", str(path), f"{problem}, and is not replaced; give the path of a new file")


def _fill_file(database: SQLite, path: Path, copying: _Copying) -> None:
    with database.transaction(writes=True) as transaction:
        connection = transaction.connection

        def write(table: Table, rows: Iterator[Row]) -> None:
            try:
                transaction.change_rows(insert(table), rows)
            except database.dbapi.IntegrityError as error:
                raise CopyError(source=copying.source.name, target=path, problem=error) from error

        schema.create_schema(connection, fill=partial(copying.fill, str(path), connection, write))
