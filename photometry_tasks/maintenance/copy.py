"""Copy a TODO-list from a file to a server, or back: all rows of our tables, or nothing."""

import os
from collections import namedtuple
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, func, select

from photometry_tasks import schema
from photometry_tasks.errors import CopyError, RowRefusedError, TodoFileInUseError, UnsavedResultsError
from photometry_tasks.models import Base, diagnostics, photometry_skipped, todolist
from photometry_tasks.rules.validation import invalid_argument, show
from photometry_tasks.sql.execution import Row
from photometry_tasks.storage.base import Database
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import create_list, open_database, open_read_only
from photometry_tasks.storage.sqlite.lock import find_holder

Progress = Callable[[int, int | None], None]

#: The tables, in an order in which each row finds the rows that it refers to.
_TABLES: list[Table] = list(Base.metadata.sorted_tables)

#: Rows between two calls of `progress`.
_CHUNK = 10_000


class Copied(NamedTuple):
    """The numbers of copied rows, and the tables and columns of other programs that were left out."""

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

    Managers may be at work on the source: the copy holds its state when the copy began. A task that is running is
    STARTED in the copy too, until the copy is opened. Workers and attempts of a list on a server are not copied.

    Parameters
    ----------
    source : str or os.PathLike
        The TODO-file, or the URL of a list on a server, with the schema of this release.
    target : str or os.PathLike
        A path where there is no file, or the URL of a database without a TODO-list or with an empty one.
    progress : callable, optional
        Called now and then with the number of rows copied, and the number of all.

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
        If the source holds a value that the target cannot hold.
    TodoError
        If one of them cannot be read or written. Whatever is raised, the target is unchanged.
    """
    place, target = parse_location(source), parse_location(target)
    with closing(open_read_only(place)) as origin:
        _check_log(place, origin)
        with origin.begin(writes=False) as connection:
            schema.check_current(connection, origin.name)
            copying = _Copying(origin, target, _count(connection), progress or (lambda _done, _total: None))
            left_out = schema.find_foreign(connection)
            if not create_list(target, copying.fill):
                _fill_empty(target, copying)
    tasks, results, skips = (copying.counts[table.name] for table in (todolist, diagnostics, photometry_skipped))
    return Copied(tasks, results, skips, left_out)


def _check_log(location: Location, database: Database) -> None:
    """Check that the source has all results: a killed manager's log may hold some, or a manager in memory has them."""
    log = database.find_result_log()
    if log is None or location.path is None:
        return
    if holder := find_holder(location.path):
        raise TodoFileInUseError(path=location.path, found=holder)
    raise UnsavedResultsError(path=location.path, log=log)


def _count(connection: Connection) -> dict[str, int]:
    counting = ((table.name, select(func.count()).select_from(table)) for table in _TABLES)
    return {name: connection.execute(statement).scalar_one() for name, statement in counting}


def _fill_empty(target: Location, copying: "_Copying") -> None:
    """Copy into a list that exists on a server and is empty; a file is never replaced."""
    if target.path is not None:
        problem = "another file is there"
        with (
            suppress(Exception),  # a file of any kind stays as it is
            closing(open_read_only(target)) as database,
            database.begin(writes=False) as connection,
        ):
            problem = f"it holds {_count(connection)[todolist.name]} tasks"
        raise invalid_argument("target", target.name, f"{problem}, and is not replaced; give the path of a new file")
    with closing(open_database(target)) as database, database.begin_load() as connection:
        schema.check_current(connection, database.name)
        database.lock_tables()  # against managers that have it open: it stays empty
        if found := {name: number for name, number in _count(connection).items() if number}:
            remedy = f"it holds {found.get('todolist', 0)} tasks (rows: {found}); give the URL of an empty database"
            raise invalid_argument("target", database.name, remedy)
        copying.fill(database)
        database.renew_statistics()


@dataclass
class _Copying:
    """A copy under way: its source, the rows that there are, and how many of them are copied."""

    source: Database
    target: Location
    counts: dict[str, int]
    progress: Progress
    done: int = 0

    def fill(self, target: Database) -> None:
        """Copy all rows into the empty tables of an open transaction, and compare the row counts."""
        for table in _TABLES:
            try:
                with closing(self._iter_rows(table)) as rows:
                    target.add_rows(list(table.columns), rows)
            except RowRefusedError as error:
                refusal = " ".join(str(error.__cause__).split())
                problem = _find_misfit(table, self.source.iter_rows(table)) or refusal
                raise CopyError(source=self.source.name, target=self.target.name, problem=problem) from error
        self._report()
        if (copied := _count(target.connection)) != self.counts:
            problem = f"of the rows {self.counts} it has {copied}"
            raise CopyError(source=self.source.name, target=self.target.name, problem=problem)

    def _iter_rows(self, table: Table) -> Generator[Any, None, None]:
        build_record: Callable[[Row], Any] = namedtuple("Record", table.columns.keys())._make  # type: ignore[attr-defined]  # mypy wants literal names
        with closing(self.source.iter_rows(table)) as rows:
            for row in rows:
                yield build_record(row)
                self.done += 1
                if self.done % _CHUNK == 0:
                    self._report()

    def _report(self) -> None:
        self.progress(self.done, sum(self.counts.values()))


def _find_misfit(table: Table, rows: Iterable[tuple[Any, ...]]) -> str | None:
    """Name the value that has no place in a column of its type: in a SQLite file any column may hold anything."""
    for row in rows:
        for column, value in zip(table.columns, row, strict=True):
            kind = column.type.python_type
            fits = isinstance(value, int | float if kind is float else kind)
            if value is not None and (not fits or (isinstance(value, str) and "\x00" in value)):
                return f"{table.name}.{column.name} is {show(value)} in the row that begins with {show(row[0])}"
    return None
