"""Load targets into a TODO-list: rows and CSV files become tasks."""

import gc
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sqlalchemy import Index
from sqlalchemy.exc import IntegrityError

from photometry_tasks import schema
from photometry_tasks.ingest import staging
from photometry_tasks.ingest.csv_lists import read_list
from photometry_tasks.ingest.rows import ArrowTable, Table, find_names, read_arrow, read_rows, read_table
from photometry_tasks.ingest.targets import Chunk, Defaults, build_targets
from photometry_tasks.models import todolist
from photometry_tasks.rules.validation import as_items, invalid_argument
from photometry_tasks.sql import statements
from photometry_tasks.sql.functions import is_sqlite
from photometry_tasks.storage.base import Database
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import create_list, open_database

#: Two targets with equal values in its columns are the same target.
(_unique,) = (index for index in todolist.indexes if index.unique)
#: The keys of new tasks come in the order of these indexes. SQLite takes longer to sort them afterwards.
_ordered = [index for index in todolist.indexes if {"priority", "status"}.issuperset(index.columns.keys())]

Progress = Callable[[int, int | None], None]


class Added(NamedTuple):
    """The number of added tasks, and of targets that the TODO-list already had or that were listed twice."""

    added: int
    known: int


def add_targets(
    todo_file: str | os.PathLike[str] | Location,
    rows: Iterable[Mapping[str, Any]] | Mapping[str, Any] | ArrowTable | Table,
    *,
    sector: int | None = None,
    cadence: int | None = None,
    datasource: Literal["tpf", "ffi", "both"] = "ffi",
    progress: Progress | None = None,
) -> Added:
    """Add targets to a TODO-list, which is created if it does not exist.

    New priorities follow the highest existing priority, in order of magnitude: brightest first, ties by star id and
    datasource. Existing tasks are not changed. All rows are added, or none.

    Parameters
    ----------
    todo_file : str or os.PathLike
        The TODO-file, a directory for the `todo.sqlite` in it, or the URL of a PostgreSQL server's database.
    rows : iterable of mapping, mapping, or table
        One mapping counts as one row. With `starid`, `camera` and `ccd` (1 to 4) and `tmag` (TESS magnitude from -10 to
        30, or None), and optionally `sector`, `datasource` ('ffi', 'tpf' or 'tpf:<starid>'), `cadence` (seconds),
        `method` and `cbv_area` (110 to 444). Numbers start at 1: a code for an unknown value, such as 0 or -99, is
        refused. Other columns are ignored. A table may be of astropy, a structured array of NumPy or, with the extra
        `parquet`, a DataFrame of pandas or polars, or a table of any library with the Arrow PyCapsule interface.
    sector : int, optional
        For rows without a sector.
    cadence : int, optional
        Seconds, for rows without a cadence. By default 120 for target pixel files; for full-frame images 1800
        before sector 27, 600 to sector 55, and 200 from sector 56 on. It must be a cadence of `datasource`: at most 120
        for 'tpf', more for 'ffi'. A row with another datasource then needs a cadence of its own.
    datasource : {'tpf', 'ffi', 'both'}, optional
        For rows without a datasource; 'both' creates two tasks from a row.
    progress : callable, optional
        Called while reading with the number of targets and None, after every 1,000 rows and at the end; before and
        after writing with the number of written targets and the number of all new targets.

    Returns
    -------
    Added

    Raises
    ------
    InvalidTargetError
        If a row is invalid. The error names the row and the column; it is also a ValueError.

    Notes
    -----
    The default `method` is 'halo' for targets of full-frame images with tmag ≤ 2, else NULL: the pipeline chooses.
    The default `cbv_area` is camera*100 + ccd*10, which means that no area was assigned.
    """
    return _add(todo_file, _Loading(_read(rows), Defaults(sector, cadence, datasource), progress or _ignore))


def _read(rows: Any) -> Iterator[Chunk]:
    if hasattr(rows, "keys") and not hasattr(rows, "iterrows"):  # a mapping, or a row of SQLite, astropy or pandas
        return read_rows([rows])
    if isinstance(rows, ArrowTable):
        return read_arrow(rows)
    if (names := find_names(rows)) is not None:
        return read_table(rows, names)
    if isinstance(rows, str | bytes) or not isinstance(rows, Iterable):
        remedy = "rows or a table are expected; for CSV files use add_target_lists"
        raise invalid_argument("rows", rows, remedy)
    return read_rows(rows)


def add_target_lists(
    todo_file: str | os.PathLike[str] | Location,
    lists: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    sector: int | None = None,
    cadence: int | None = None,
    datasource: Literal["tpf", "ffi", "both"] = "ffi",
    progress: Progress | None = None,
) -> Added:
    """Add the targets of CSV files to a TODO-list; otherwise as `add_targets`.

    Parameters
    ----------
    lists : str, os.PathLike, or iterable of these
        CSV files in UTF-8 with a header line: TESS target lists of MIT (columns TICID, Camera, CCD, Tmag), or lists
        with the column names of `todolist`. Case does not matter, and other columns are ignored. Lines that begin with
        '#' are comments. If a list has no column for the sector, a comment with "sector N" gives it, but none that
        names several, such as "sector 1-13".
    todo_file, sector, cadence, datasource, progress
        As for `add_targets`.

    Returns
    -------
    Added

    Raises
    ------
    TargetListNotFoundError
        If a list does not exist; it is also a FileNotFoundError.
    InvalidTargetError
        If a list is invalid. The error names the file, the line and the column; it is also a ValueError.
    """
    chunks = (chunk for path in _check_paths(lists) for chunk in read_list(path, sector))
    return _add(todo_file, _Loading(chunks, Defaults(sector, cadence, datasource), progress or _ignore))


def _check_paths(lists: Any) -> list[Path]:
    try:
        paths = [lists] if isinstance(lists, str | os.PathLike) else as_items(lists)
    except ValueError:
        paths = []
    if not paths or not all(isinstance(path, str | os.PathLike) and os.fspath(path) for path in paths):
        raise invalid_argument("lists", lists, "paths of CSV files are expected")
    return [Path(path) for path in paths]


# --- writing ---------------------------------------------------------------------------------------------


@contextmanager
def _paused_garbage_collection() -> Iterator[None]:
    """Keep Python from searching the rows for garbage again and again: that takes up to a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_paused_garbage_collection()
def _add(todo_file: str | os.PathLike[str] | Location, loading: "_Loading") -> Added:
    location = parse_location(todo_file, "todo_file")
    if not create_list(location, loading.fill):
        with closing(open_database(location)) as database:
            with database.begin(writes=False) as connection:
                schema.find_changes(connection, database.name)  # refuses other files before reading the lists
            with database.begin_adding(lambda: loading.stage(database)):
                loading.add(database)
                database.renew_statistics()
            database.recover()
    return Added(loading.new, loading.listed - loading.new)


def _ignore(_done: int, _total: int | None) -> None:
    """Report no progress."""


@dataclass
class _Loading:
    """A load in progress: the rows, the number of listed targets, and the number of new targets."""

    chunks: Iterable[Chunk]
    defaults: Defaults
    progress: Progress
    listed: int = 0
    new: int = 0

    def fill(self, database: Database) -> Collection[Index]:
        """Add all targets to a new list without indexes, and return the indexes that were created."""
        self.stage(database)
        connection = database.connection
        first = _ordered if is_sqlite(connection.dialect) else []
        for index in first:
            index.create(connection)
        self._write(database, lambda: _unique.create(connection))
        return [*first, _unique]

    def stage(self, database: Database) -> None:
        """Check the rows, and put their targets into a temporary table."""
        staging.create_table(database.connection)
        for chunk in self.chunks:
            targets = build_targets(chunk, self.defaults)
            database.add_rows([staging.listed.c[name] for name in targets], zip(*targets.values(), strict=True))
            self.listed += len(targets["starid"])
            self.progress(self.listed, None)
        self.new = self.listed

    def add(self, database: Database) -> None:
        """Add the targets that a list lacks."""
        self.new -= database.connection.execute(staging.DELETE_KNOWN).rowcount
        self._write(database, lambda: None)

    def _write(self, database: Database, create_index: Callable[[], None]) -> None:
        connection = database.connection
        last, last_tried = connection.execute(statements.LAST_PRIORITY).one()
        is_numbered = is_sqlite(connection.dialect) and last_tried <= last
        statement = staging.build_add_tasks(None if is_numbered else max(last, last_tried))

        def write() -> None:
            connection.execute(statement)
            create_index()

        self.progress(0, self.new)
        try:
            with connection.begin_nested():
                write()
        except IntegrityError:  # a target is listed twice
            self.new -= connection.execute(staging.DELETE_REPEATED).rowcount
            write()
        self.progress(self.new, self.new)
