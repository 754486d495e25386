"""Load targets into a TODO-list: rows and CSV files become tasks."""

import gc
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from photometry_tasks import schema
from photometry_tasks.ingest.csv_lists import Located, read_list
from photometry_tasks.ingest.targets import Defaults, Target, build_plain_target, build_targets, get_key, sort_targets
from photometry_tasks.models import todolist
from photometry_tasks.rules.validation import as_items, invalid_argument
from photometry_tasks.sql import statements
from photometry_tasks.storage.base import Database
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import create_list, open_database

#: Targets between two calls of `progress`.
_CHUNK = 10_000

Progress = Callable[[int, int | None], None]


class Added(NamedTuple):
    """The number of added tasks, and of targets that the TODO-list already had or that were listed twice."""

    added: int
    known: int


def add_targets(
    todo_file: str | os.PathLike[str] | Location,
    rows: Iterable[Mapping[str, Any]],
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
    rows : iterable of mapping
        With `starid`, `camera` and `ccd` (1 to 4) and `tmag` (TESS magnitude from -10 to 30, or None), and optionally
        `sector`, `datasource` ('ffi', 'tpf' or 'tpf:<starid>'), `cadence` (seconds), `method` and `cbv_area` (110 to
        444). Numbers start at 1: a code for an unknown value, such as 0 or -99, is refused. Other columns are ignored.
    sector : int, optional
        For rows without a sector.
    cadence : int, optional
        Seconds, for rows without a cadence. By default 120 for target pixel files; for full-frame images 1800
        before sector 27, 600 to sector 55, and 200 from sector 56 on. It must be a cadence of `datasource`: at most 120
        for 'tpf', more for 'ffi'. A row with another datasource then needs a cadence of its own.
    datasource : {'tpf', 'ffi', 'both'}, optional
        For rows without a datasource; 'both' creates two tasks from a row.
    progress : callable, optional
        Called after every 10,000 targets and at the end: while reading with the number of targets and None, while
        writing with the number of written targets and the number of all new targets.

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
    located: Iterable[Located] = ((f"row {number}", {}, row) for number, row in enumerate(rows, start=1))
    return _add(todo_file, located, Defaults(sector, cadence, datasource), progress)


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
    located = (row for path in _check_paths(lists) for row in read_list(path, sector))
    return _add(todo_file, located, Defaults(sector, cadence, datasource), progress)


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
    """Keep Python from searching the targets for garbage again and again: that takes a quarter of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_paused_garbage_collection()
def _add(
    todo_file: str | os.PathLike[str] | Location,
    located: Iterable[Located],
    defaults: Defaults,
    progress: Progress | None,
) -> Added:
    report = progress or (lambda _done, _total: None)
    location = parse_location(todo_file)
    added = Added(0, 0)

    def fill(database: Database) -> None:
        nonlocal added
        targets, listed = _collect(located, defaults, report)
        _insert(database, targets.values(), 0, report)
        added = Added(len(targets), listed - len(targets))

    if create_list(location, fill):
        return added
    with closing(open_database(location)) as database:
        with database.begin(writes=False) as connection:
            schema.find_changes(connection, database.name)  # refuses other files before reading the lists
        targets, listed = _collect(located, defaults, report)
        database.ensure_schema()
        with database.begin_load() as connection:
            for key in connection.execute(statements.TARGETS):
                targets.pop(tuple(key), None)
            last: int = max(connection.execute(statements.LAST_PRIORITY).one())
            _insert(database, targets.values(), last, report)
            database.renew_statistics()
        database.recover()
    return Added(len(targets), listed - len(targets))


def _collect(
    located: Iterable[Located], defaults: Defaults, report: Progress
) -> tuple[dict[tuple[Any, ...], Target], int]:
    """Return each target once, by its key, and the number of listed targets."""
    targets: dict[tuple[Any, ...], Target] = {}
    listed = 0
    for row in located:
        plain = build_plain_target(row[2], defaults)
        for target in build_targets(row, defaults) if plain is None else (plain,):
            targets.setdefault(get_key(target), target)
            listed += 1
            if listed % _CHUNK == 0:
                report(listed, None)
    return targets, listed


def _insert(database: Database, targets: Collection[Target], last: int, report: Progress) -> None:
    """Add targets in order of brightness, with priorities after `last`."""

    def iter_targets() -> Iterator[Target]:
        for number, target in enumerate(sort_targets(targets), start=1):
            target.priority = last + number
            yield target
            if number % _CHUNK == 0:
                report(number, len(targets))

    database.add_rows([todolist.c[field.name] for field in fields(Target)], iter_targets())
    report(len(targets), len(targets))
