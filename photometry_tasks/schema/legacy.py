"""Upgrade TODO-files of the TASOC pipeline, since release 3.0 (2019), to the schema of release 6.3.

A file does not name its release. The upgrade compares its tables with those of release 6.3, and adds what is missing;
therefore it also completes a partial upgrade by another program.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from photometry_tasks.errors import CannotUpgradeError, NotATodoFileError
from photometry_tasks.schema.comparison import TableLayout, find_lacking_indexes, find_unfilled, read_layout
from photometry_tasks.schema.table_rebuild import quote, rebuild_table
from photometry_tasks.schema.tasoc_6_3 import metadata
from photometry_tasks.text import list_first

# --- how older releases differ ---------------------------------------------------------------------------

#: Columns of every release; other columns can be added.
_REQUIRED = {
    "todolist": {*metadata.tables["todolist"].columns.keys()} - {"cadence"},
    "diagnostics": {*metadata.tables["diagnostics"].columns.keys()} - {"method_used", "worker_wait_time", "edge_flux"},
    "photometry_skipped": {"priority", "skipped_by"},
}

#: Columns that release 5.0 dropped: todolist has the same values.
_GONE: dict[str, set[str]] = {"diagnostics": {"starid"}}

#: Indexes of releases before 5.0, which release 5.0 replaced.
_GONE_INDEXES = {"priority_idx", "starid_datasource_idx"}

# The cadence of full-frame images was 1800 s in the first two years of TESS and 600 s in the next two. The cadence of
# target pixel files was 120 s. From sector 27 on it may be 20 s too, and the list does not show which.
_CADENCE = (
    "CASE WHEN datasource = 'ffi' AND sector < 27 THEN 1800 "
    "WHEN datasource = 'ffi' AND sector BETWEEN 27 AND 55 THEN 600 "
    "WHEN datasource <> 'ffi' AND sector < 27 THEN 120 END"
)

# The requested method is the used method, unless the pipeline switched to another method.
_METHOD_USED = (
    "coalesce(nullif((SELECT t.method FROM todolist AS t WHERE t.priority = diagnostics.priority "
    "AND t.method IN ('aperture', 'halo', 'psf', 'linpsf')), 'aperture'), "
    "CASE WHEN instr(errors, 'Automatically switched to Halo photometry') THEN 'halo' ELSE 'aperture' END)"
)

#: Columns whose values must be unique, with the words for an error.
_DISTINCT: dict[str, dict[tuple[str, ...], str]] = {
    "todolist": {
        ("priority",): "of the same priority",
        ("starid", "datasource", "sector", "camera", "ccd", "cadence"): "of the same target",
    },
    "diagnostics": {("priority",): "of the same task", ("lightcurve",): "with the same light-curve path"},
}

_RULES = {"todolist": {"cadence": _CADENCE}, "diagnostics": {"method_used": _METHOD_USED}}


#: The remedy if an object of another program cannot be kept.
_REMEDY = "Drop it, upgrade, and create it again for the new tables."


# --- reading a file --------------------------------------------------------------------------------------


def _read(connection: Connection) -> dict[str, TableLayout]:
    return read_layout(connection, metadata.tables)


@cache
def _build_wanted() -> dict[str, TableLayout]:
    """Return the layout of the tables of release 6.3 in SQLite."""
    with _open_scratch() as scratch:
        metadata.create_all(scratch)
        return _read(scratch)


@contextmanager
def _open_scratch() -> Iterator[Connection]:
    """Open an empty database in memory."""
    with create_engine("sqlite://", poolclass=NullPool).connect() as connection:
        yield connection


# --- the changes of an upgrade ---------------------------------------------------------------------------


def find_changes(connection: Connection, path: object) -> list[str]:
    """Return a line for each change that `upgrade` would make.

    Raises
    ------
    NotATodoFileError
        If the file is of no release.
    """
    lines: list[str] = []
    problems: list[str] = []
    layout = _read(connection)
    for name, table in _build_wanted().items():
        found = layout.get(name)
        if found is None and name == "todolist":
            problems.append("it has no table todolist")
        elif found is None:
            lines.append(f"table {name} is created")
        else:
            problems += _find_problems(name, found, table)
            lines += _find_column_changes(name, found, table)
            lacking = find_lacking_indexes(found, metadata.tables[name])
            lines += [f"index {index.name} is created" for index in lacking]
            lines += [f"index {index} is dropped" for index in sorted(_GONE_INDEXES & found.indexes.keys())]
    if problems:
        raise NotATodoFileError(path=path, found="; ".join(problems))
    return lines


def _find_problems(name: str, found: TableLayout, wanted: TableLayout) -> Iterator[str]:
    """Yield a line for each difference that no release explains."""
    for column in sorted(_REQUIRED[name] - found.columns.keys()):
        yield f"{name} has no column {column}"
    for column, has in found.columns.items():
        if column in wanted.columns and has.is_generated:
            yield f"{name}.{column} is a generated column"
        if has.key and column != "priority" and name != "photometry_skipped":
            yield f"{name}.{column} is in the primary key"
    yield from find_unfilled(found.columns, {*wanted.columns, *_GONE.get(name, ())}, name)


def _find_column_changes(name: str, found: TableLayout, wanted: TableLayout) -> Iterator[str]:
    for column, should in wanted.columns.items():
        has = found.columns.get(column)
        if has is None:
            yield f"{name}.{column} is added"
        elif has != should:
            yield f"{name}.{column} becomes {should}"
    for column in sorted(_GONE.get(name, set()) & found.columns.keys()):
        yield f"{name}.{column} is dropped; todolist has it too"
    if found.references != wanted.references:
        yield f"the foreign keys of {name} to todolist are corrected"


# --- upgrading -------------------------------------------------------------------------------------------


def upgrade(connection: Connection, path: object) -> None:
    """Upgrade a file of any release to the schema of 6.3, in a transaction of the caller with foreign keys off.

    Raises
    ------
    NotATodoFileError, CannotUpgradeError
        If the file cannot be upgraded; nothing is written then.
    """
    check_upgradable(connection, path)
    try:
        _change(connection)
    except ValueError as error:
        raise CannotUpgradeError(path=path, problem=error, remedy=_REMEDY) from error


def check_upgradable(connection: Connection, path: object) -> None:
    """Check that a file can be upgraded. The file is only read.

    Raises
    ------
    NotATodoFileError, CannotUpgradeError
    """
    find_changes(connection, path)
    wanted = _build_wanted()
    for name, found in _read(connection).items():
        _check_values(connection, path, name, found, wanted[name])
        _check_duplicates(connection, path, name, found)
    _rehearse(connection, path)


def _check_values(connection: Connection, path: object, name: str, found: TableLayout, wanted: TableLayout) -> None:
    for column, should in wanted.columns.items():
        has = found.columns.get(column)
        is_sound = has is not None and has.is_required and (has == should or not should.key)
        if not should.is_required or is_sound or column == "method_used":
            continue  # the rule for method_used always gives a value
        value = _build_value(name, column, found)
        is_wrong = f"typeof({value}) <> 'integer'" if should.key else f"{value} IS NULL"
        rows = connection.exec_driver_sql(
            f"SELECT priority FROM {name} WHERE {is_wrong} LIMIT 4"  # noqa: S608 - built from our own names
        )
        if not (priorities := rows.scalars().all()):
            continue
        fault = "is not an integer" if should.key else "has no value"
        problem = f"{name}.{column} {fault} for priority {list_first(priorities, 3)}"
        remedy = "Correct these values, then try again."
        if column == "cadence":
            problem += ", and does not follow from datasource and sector"
            remedy = "Create the file again from its target list, with `photometry-tasks init`."
        raise CannotUpgradeError(path=path, problem=problem, remedy=remedy)


def _check_duplicates(connection: Connection, path: object, name: str, found: TableLayout) -> None:
    for columns, are in _DISTINCT.get(name, {}).items():
        held = [set(index.columns) for index in found.indexes.values() if index.is_unique and not index.is_partial]
        held += [{"priority"}] if found.columns["priority"].key else []
        if any(unique <= set(columns) for unique in held) or not set(columns) & found.columns.keys():
            continue
        # Most rows differ in the first two columns, and older files have an index on these.
        first = ", ".join(columns[:2])
        values = ", ".join(_build_value(name, column, found) for column in columns)
        groups = connection.exec_driver_sql(
            f"SELECT group_concat(priority, ', ') FROM {name} "  # noqa: S608 - built from our own names
            f"WHERE ({first}) IN (SELECT {first} FROM {name} GROUP BY {first} HAVING count(*) > 1) "
            f"GROUP BY {values} HAVING count(*) > 1 LIMIT 4"
        )
        if shown := groups.scalars().all():
            problem = f"{name} has rows {are}: those with priority {'; '.join(shown[:3])}{'; …' * (len(shown) > 3)}"
            remedy = "Delete all but one row of each group, then try again."
            raise CannotUpgradeError(path=path, problem=problem, remedy=remedy)


def _rehearse(connection: Connection, path: object) -> None:
    """Upgrade a copy without rows, and check that the objects of other programs still work."""
    objects = connection.exec_driver_sql(
        """SELECT type, name, lower(tbl_name) AS "table", sql FROM sqlite_master
        WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite!_%' ESCAPE '!'
        ORDER BY type <> 'table', type <> 'index', type <> 'view', rowid"""
    ).all()
    with _open_scratch() as scratch:
        for thing in objects:
            try:
                scratch.exec_driver_sql(thing.sql)
            except DatabaseError as error:
                if thing.table in metadata.tables:
                    problem = f"{thing.type} {thing.name} cannot be created again ({error.orig})"
                    raise CannotUpgradeError(path=path, problem=problem, remedy=_REMEDY) from None
        before = dict(_find_broken(scratch))
        try:
            _change(scratch)
        except (ValueError, DatabaseError) as error:
            problem = str(error.orig if isinstance(error, DatabaseError) else error)
            raise CannotUpgradeError(path=path, problem=problem, remedy=_REMEDY) from None
        for broken, reason in _find_broken(scratch):
            if broken not in before:
                problem = f"{broken} would no longer work ({reason})"
                raise CannotUpgradeError(path=path, problem=problem, remedy=_REMEDY)


def _find_broken(connection: Connection) -> Iterator[tuple[str, str]]:
    """Yield the views, triggers and foreign keys that do not work, each with the reason."""
    execute = connection.exec_driver_sql
    tries = [
        (f"{kind} {name}", statement)
        for kind, name in execute("SELECT type, name FROM sqlite_master WHERE type IN ('view', 'table')").all()
        for statement in (
            f"SELECT * FROM {quote(name)} LIMIT 0",  # noqa: S608 - quoted
            f"PRAGMA foreign_key_check({quote(name)})",
        )
    ]
    for table, triggers in execute(
        "SELECT tbl_name, group_concat(name, ', ') FROM sqlite_master WHERE type = 'trigger' GROUP BY lower(tbl_name)"
    ).all():
        columns = execute("SELECT name FROM pragma_table_xinfo(?) WHERE NOT hidden", (table,)).scalars()
        changes = ", ".join(f"{quote(column)} = {quote(column)}" for column in columns)
        tries += [
            (f"trigger {triggers} of {table}", f"EXPLAIN {statement}")
            for statement in (
                f"INSERT INTO {quote(table)} DEFAULT VALUES",
                f"UPDATE {quote(table)} SET {changes}",  # noqa: S608 - quoted
                f"DELETE FROM {quote(table)}",  # noqa: S608 - quoted
            )
        ]
    for thing, statement in tries:
        try:
            execute(statement).close()
        except DatabaseError as error:
            yield thing, str(error.orig)


def _change(connection: Connection) -> None:
    wanted, layout = _build_wanted(), _read(connection)
    ours = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
    for table in metadata.sorted_tables:
        found = layout.get(table.name)
        if found is None:
            table.create(connection)
        elif any(_find_column_changes(table.name, found, wanted[table.name])):
            values = {column: _build_value(table.name, column, found) for column in wanted[table.name].columns}
            rebuild_table(connection, table, values, _GONE.get(table.name, set()), _GONE_INDEXES | ours)
    for name, found in _read(connection).items():
        # Only indexes of our tables: a table of another program may have an index of the same name.
        lacking = find_lacking_indexes(found, metadata.tables[name])
        for index in sorted(found.indexes.keys() & {*_GONE_INDEXES, *(str(index.name) for index in lacking)}):
            connection.exec_driver_sql(f"DROP INDEX {index}")
        for new in lacking:
            new.create(connection)


def _build_value(table: str, column: str, found: TableLayout) -> str:
    """Return the SQL expression for a column of the new table."""
    rule = _RULES.get(table, {}).get(column, "NULL")
    if column not in found.columns:
        return rule
    return quote(column) if rule == "NULL" else f"coalesce({quote(column)}, {rule})"
