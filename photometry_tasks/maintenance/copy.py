"""Copy a TODO-list from a file to a server, or back: all rows of its tables, or nothing."""

import os
from collections import namedtuple
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Dialect, Table, delete, func, select

from photometry_tasks import schema
from photometry_tasks.errors import CopyError, RowRefusedError
from photometry_tasks.models import TABLES, attempts, diagnostics, photometry_skipped, todolist, workers
from photometry_tasks.rules.stored_values import describe_value, is_foreign
from photometry_tasks.rules.validation import invalid_argument
from photometry_tasks.sql.execution import Row
from photometry_tasks.storage.base import Database
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import begin_reading, create_list, open_database, open_read_only
from photometry_tasks.text import count_of

Progress = Callable[[int, int | None], None]

#: The tables that an empty list may have filled.
_HISTORY = (workers.name, attempts.name)

#: Rows between two calls of `progress`.
_CHUNK = 10_000


class Copied(NamedTuple):
    """The numbers of copied rows, and the tables and columns of other programs, which were left out."""

    tasks: int
    results: int
    skips: int
    left_out: list[str]


def copy_list(
    source: str | os.PathLike[str] | Location,
    target: str | os.PathLike[str] | Location,
    *,
    progress: Progress | None = None,
) -> Copied:
    """Copy a TODO-list to another place, of the same or of another kind; the source is not changed.

    The source may be in use: the copy holds the state of the source when the copy began, with the results that a
    manager in memory has logged. A running task is STARTED in the copy too, until the copy is opened; the history holds
    only attempts that have ended.

    Parameters
    ----------
    source : str or os.PathLike
        The TODO-file, or the URL of a list on a server, with the schema of this release.
    target : str or os.PathLike
        The path of a new file, or the URL of a database without a TODO-list or with an empty TODO-list.
    progress : callable, optional
        Called after every 10,000 rows and at the end, with the number of copied rows and the number of all rows.

    Returns
    -------
    Copied

    Raises
    ------
    InvalidArgumentError
        If the target is not empty.
    OutdatedSchemaError, UnsavedResultsError
        If the source must be upgraded first.
    CopyError
        If the source holds a value that the target cannot hold.
    TodoError
        If the source cannot be read or the target cannot be written. After any error, the target is unchanged.
    """
    target = parse_location(target, "target")
    with begin_reading(parse_location(source, "source")) as opened:
        opened.check_current()
        counts = _count(opened.connection)
        copying = _Copying(opened.database, target, counts, progress or (lambda _done, _total: None))
        left_out = schema.find_foreign(opened.connection)
        if not create_list(target, copying.fill):
            _fill_empty(target, copying)
    tasks, results, skips = (copying.counts[table.name] for table in (todolist, diagnostics, photometry_skipped))
    return Copied(tasks, results, skips, left_out)


def _count(connection: Connection) -> dict[str, int]:
    counts = {}
    for table in TABLES:
        statement = select(func.count()).select_from(table)
        if table is attempts:
            statement = statement.where(attempts.c.ended.is_not(None))
        counts[table.name] = connection.execute(statement).scalar_one()
    return counts


def _fill_empty(target: Location, copying: "_Copying") -> None:
    """Copy into an existing, empty list on a server; an existing file is never replaced."""
    if target.path is not None:
        problem = "this file exists"
        with (
            suppress(Exception),  # the file may be of any kind
            closing(open_read_only(target)) as database,
            database.begin(writes=False) as connection,
        ):
            problem = f"it holds {count_of(_count(connection)[todolist.name], 'task')}"
        raise invalid_argument("target", target.name, f"{problem}, and is not replaced; give the path of a new file")
    with closing(open_database(target)) as database, database.begin_load() as connection:
        schema.check_current(connection, database.name)
        database.lock_tables()  # other managers may have the list open, and must not add rows
        found = {name: number for name, number in _count(connection).items() if number and name not in _HISTORY}
        holder = database.find_holder()
        if found or holder:
            tasks = count_of(found.get(todolist.name, 0), "task")
            problem = f"it holds {tasks} (rows: {_describe(found)})" if found else f"it is in use by {holder}"
            raise invalid_argument("target", database.name, f"{problem}; give the URL of an empty database")
        for table in (attempts, workers):  # of managers that had the empty list open
            connection.execute(delete(table))
        copying.fill(database)
        database.renew_statistics()


@dataclass
class _Copying:
    """A copy in progress: its source, its target, and the numbers of all rows and of copied rows."""

    source: Database
    target: Location
    counts: dict[str, int]
    progress: Progress
    done: int = 0

    def fill(self, target: Database) -> tuple[()]:
        """Copy all rows into the empty tables of an open transaction, and compare the row counts."""
        for table in TABLES:
            try:
                with closing(self._iter_rows(table, target.connection.dialect)) as rows:
                    target.add_rows(list(table.columns), rows)
            except RowRefusedError as error:
                refusal = " ".join(str(error.__cause__).split())
                problem = _find_invalid_value(table, self.source.iter_rows(table)) or refusal
                raise CopyError(source=self.source.name, target=self.target.name, problem=problem) from error
        self._report()
        if (copied := _count(target.connection)) != self.counts:
            problem = f"the row counts differ (source: {_describe(self.counts)}; copy: {_describe(copied)})"
            raise CopyError(source=self.source.name, target=self.target.name, problem=problem)
        return ()

    def _iter_rows(self, table: Table, dialect: Dialect) -> Generator[Any, None, None]:
        build_record: Callable[[Row], Any] = namedtuple("Record", table.columns.keys())._make  # type: ignore[attr-defined]  # mypy wants literal names
        own = self.source.connection.dialect
        converters = {
            name: _build_converter(column, own, dialect)
            for name, column in table.columns.items()
            if column.type.python_type is datetime
        }
        with closing(self.source.iter_rows(table)) as rows:
            for row in map(build_record, rows):
                if table is attempts and row.ended is None:
                    continue  # the worker of a running task does not work on the copy
                if table is workers and row.ended is None:
                    row = row._replace(ended=row.seen)
                if converters:
                    times = {name: convert(getattr(row, name)) for name, convert in converters.items()}
                    row = row._replace(**times)
                yield row
                self.done += 1
                if self.done % _CHUNK == 0:
                    self._report()

    def _report(self) -> None:
        self.progress(self.done, sum(self.counts.values()))


def _build_converter(column: Column[Any], source: Dialect, target: Dialect) -> Callable[[Any], Any]:
    """Return a function that turns a value of a column in one database into the value in another."""
    read = column.type.dialect_impl(source).result_processor(source, None)
    write = column.type.dialect_impl(target).bind_processor(target)

    def convert(value: Any) -> Any:
        read_value = value if read is None else read(value)
        return read_value if write is None else write(read_value)

    return convert


def _describe(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())


def _find_invalid_value(table: Table, rows: Iterable[tuple[Any, ...]]) -> str | None:
    """Describe the first value that a server cannot hold: a foreign value, or a text with NUL."""
    for row in rows:
        for column, value in zip(table.columns, row, strict=True):
            if is_foreign(column, value) or (isinstance(value, str) and "\x00" in value):
                return describe_value(column, value, row[0])
    return None
